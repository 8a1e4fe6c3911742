//! What the build embedded: the kernels' sources, how they are compiled, and the image that nvcc made of them.

/// Written by `build/nvcc.rs`.
mod generated {
    include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
}

/// `COMPILER` is the compiler of `IMAGE`, or why there is no image; `TARGETS` is what the image holds code for.
pub(crate) use generated::{COMPILER, FILES, IMAGE, OPTIONS, TARGETS};

/// The file that includes all others.
pub(crate) const ROOT: &str = "kernels.cu";

/// The names of all kernels, in the order of the files.
pub(crate) fn kernels() -> Vec<&'static str> {
    FILES.iter().flat_map(|(_, text)| names(text)).collect()
}

/// Those of them that a GPU of this compute capability has: kernels of an architecture's own instructions take the place of others.
pub(crate) fn kernels_for(compute: (u32, u32)) -> Vec<&'static str> {
    let all = kernels();
    let is_there = |name: &str| match compute {
        (9, 0) => !all.contains(&format!("{name}_sm90").as_str()),
        _ => !name.ends_with("_sm90"),
    };
    all.iter().copied().filter(|name| is_there(name)).collect()
}

/// True for a kernel on tensor cores, which NVRTC compiles for one decoder alone.
pub(crate) fn is_fused(name: &str) -> bool {
    name.starts_with("solve_") || name.starts_with("over_points_")
}

/// The kernels that a file defines, as `KERNEL(name, Params, threads)` at the start of a line.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let heads = text.lines().filter_map(|line| line.strip_prefix("KERNEL("));
    // A macro that defines kernels pastes their names together: those are of the macro's uses, which are not known here.
    heads.filter_map(|rest| rest.split(',').next().map(str::trim)).filter(|name| !name.contains('#'))
}

/// The target of [`TARGETS`] whose code a GPU runs: machine code of its own generation, or PTX of an earlier one.
pub(crate) fn target(targets: &[&'static str], compute: (u32, u32)) -> Option<&'static str> {
    let runs = |target: &str| {
        let Some(number) = target.split('_').nth(1) else { return false };
        let Ok(code) = number.trim_end_matches('a').parse::<u32>() else { return false };
        let (major, minor) = (code / 10, code % 10);
        if target.starts_with("compute") {
            (major, minor) <= compute
        } else if number.ends_with('a') {
            (major, minor) == compute // code for one chip's own instructions runs on nothing else
        } else {
            major == compute.0 && minor <= compute.1
        }
    };
    targets.iter().copied().find(|target| runs(target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_names_are_those_at_the_start_of_a_line() {
        let text = "//   KERNEL(comment, P, 1)\n#define KERNEL(name, P, t) x\nKERNEL(a_b, P, 128) {\n}\nKERNEL(c,P,1)\nKERNEL(d_##W, P, 1)";
        assert_eq!(names(text).collect::<Vec<_>>(), ["a_b", "c"]);
    }

    #[test]
    fn every_source_is_embedded() {
        let root = FILES.iter().find(|(name, _)| *name == ROOT).expect("kernels.cu is embedded").1;
        for line in root.lines().filter_map(|line| line.strip_prefix("#include \"")) {
            let name = line.trim_end_matches('"');
            assert!(FILES.iter().any(|(file, _)| *file == name), "{name}");
        }
    }

    #[test]
    fn a_gpu_runs_code_of_its_own_generation_or_earlier_ptx() {
        let all = ["sm_80", "sm_90a", "sm_100", "compute_80"];
        for (compute, expected) in [
            ((7, 5), None),
            ((8, 0), Some("sm_80")),
            ((8, 9), Some("sm_80")),
            ((9, 0), Some("sm_90a")),
            ((9, 1), Some("compute_80")),
            ((10, 0), Some("sm_100")),
            ((10, 3), Some("sm_100")),
            ((12, 0), Some("compute_80")),
        ] {
            assert_eq!(target(&all, compute), expected, "{compute:?}");
        }
        assert_eq!(target(&["sm_80"], (9, 0)), None);
    }
}
