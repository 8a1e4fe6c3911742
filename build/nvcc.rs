//! Compiles the kernels ahead of time where nvcc is found, and writes down what the crate embeds: `kernels.rs` in OUT_DIR.
//!
//! Without nvcc the image is empty, and NVRTC compiles the embedded sources on the machine that has the GPU.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How kernels are compiled, by nvcc here and by NVRTC at run time.
const OPTIONS: &str = include_str!("../kernels/options.txt");

/// Machine code for the generations in use, and PTX that the driver compiles for every later one.
const TARGETS: [(&str, &str); 4] = [
    ("sm_80", "arch=compute_80,code=sm_80"),
    ("sm_90a", "arch=compute_90a,code=sm_90a"),
    ("sm_100", "arch=compute_100,code=sm_100"),
    ("compute_80", "arch=compute_80,code=compute_80"),
];

const AT_RUN_TIME: &str = "kernels are compiled at run time by NVRTC";

/// What nvcc made.
struct Image {
    /// Such as `nvcc 13.0.88`.
    compiler: String,
    targets: Vec<&'static str>,
    path: PathBuf,
}

/// Why there is no image.
enum Missing {
    /// Nothing is wrong: there is no nvcc, or none is wanted.
    Absent(String),
    Failed(String),
}

pub fn build() {
    println!("cargo::rerun-if-changed=build/nvcc.rs");
    println!("cargo::rerun-if-changed=kernels");
    for name in ["PULLBACK_NVCC", "CUDA_HOME", "CUDA_PATH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let explicit = env::var_os("PULLBACK_NVCC").is_some_and(|value| !value.is_empty());
    let image = find().and_then(|nvcc| compile(&nvcc, &out));
    if let Err(Missing::Failed(message)) = &image {
        let level = if explicit { "error" } else { "warning" };
        for line in message.lines().filter(|line| !line.trim().is_empty()) {
            println!("cargo::{level}={line}");
        }
        if explicit {
            std::process::exit(1);
        }
    }
    fs::write(out.join("kernels.rs"), generated(&image)).expect("OUT_DIR is writable");
}

/// nvcc of `PULLBACK_NVCC`, of the toolkit that `CUDA_HOME` or `CUDA_PATH` names, or of `PATH`.
fn find() -> Result<PathBuf, Missing> {
    let program = format!("nvcc{}", env::consts::EXE_SUFFIX);
    if let Some(named) = env::var_os("PULLBACK_NVCC").filter(|value| !value.is_empty()) {
        return if named == "none" {
            Err(Missing::Absent(format!("built with PULLBACK_NVCC=none: {AT_RUN_TIME}")))
        } else if Path::new(&named).is_file() {
            Ok(named.into())
        } else {
            Err(Missing::Failed(format!("PULLBACK_NVCC: expected a file or `none`, found {}", named.display())))
        };
    }
    let toolkits = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os);
    let mut found = toolkits.map(|root| Path::new(&root).join("bin").join(&program)).find(|path| path.is_file());
    if found.is_none() {
        // Only now does PATH matter; otherwise every shell with another PATH would compile the crate again.
        println!("cargo::rerun-if-env-changed=PATH");
        let path = env::var_os("PATH").unwrap_or_default();
        found = env::split_paths(&path).map(|folder| folder.join(&program)).find(|path| path.is_file());
    }
    found.ok_or_else(|| Missing::Absent(format!("built without nvcc: {AT_RUN_TIME}")))
}

fn compile(nvcc: &Path, out: &Path) -> Result<Image, Missing> {
    println!("cargo::rerun-if-changed={}", nvcc.display());
    let version = run(Command::new(nvcc).arg("--version"))?;
    let version = version.split_whitespace().find_map(|word| word.strip_prefix('V')).unwrap_or("of unknown version");
    let known = run(Command::new(nvcc).arg("--list-gpu-code"))?;
    let knows = |target: &str| known.lines().any(|line| line.trim() == target.trim_end_matches('a'));
    let targets: Vec<_> = TARGETS.into_iter().filter(|(name, _)| name.starts_with("compute") || knows(name)).collect();

    let path = out.join("kernels.fatbin");
    let mut command = Command::new(nvcc);
    command.args(options()).args(["--fatbin", "--threads=0"]);
    for (_, generate) in &targets {
        command.args(["-gencode", generate]);
    }
    command.arg("-o").arg(&path).arg("kernels/kernels.cu");
    let log = run(&mut command)?;
    // For whoever looks into a build: what was run, and what it said.
    let _ = fs::write(out.join("nvcc.log"), format!("{command:?}\n{log}"));
    for line in log.lines().filter(|line| line.contains("warning")) {
        println!("cargo::warning={line}");
    }
    let targets = targets.into_iter().map(|(name, _)| name).collect();
    Ok(Image { compiler: format!("nvcc {version}"), targets, path })
}

/// What the command printed.
fn run(command: &mut Command) -> Result<String, Missing> {
    let output = command.output().map_err(|error| Missing::Failed(format!("{command:?}: {error}")))?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() {
        Ok(text)
    } else {
        Err(Missing::Failed(format!("{command:?}: {}\n{text}", output.status)))
    }
}

fn options() -> Vec<&'static str> {
    OPTIONS.lines().filter(|line| line.starts_with("--")).collect()
}

fn generated(image: &Result<Image, Missing>) -> String {
    let mut text = String::new();
    let mut constant = |name: &str, of: &str, value: String| {
        let _ = writeln!(text, "pub(crate) static {name}: {of} = {value};");
    };
    constant("OPTIONS", "&[&str]", format!("&{:?}", options()));
    constant("FILES", "&[(&str, &str)]", format!("&[{}]", files().concat()));
    match image {
        Ok(image) => {
            constant("COMPILER", "Result<&str, &str>", format!("Ok({:?})", image.compiler));
            constant("TARGETS", "&[&str]", format!("&{:?}", image.targets));
            constant("IMAGE", "&[u8]", format!("include_bytes!({:?})", image.path));
        }
        Err(missing) => {
            let reason = match missing {
                Missing::Absent(reason) => reason.clone(),
                Missing::Failed(_) => format!("built where nvcc failed: {AT_RUN_TIME}"),
            };
            constant("COMPILER", "Result<&str, &str>", format!("Err({reason:?})"));
            constant("TARGETS", "&[&str]", "&[]".into());
            constant("IMAGE", "&[u8]", "&[]".into());
        }
    }
    text
}

/// The kernels' sources, each as a name and the text to embed.
fn files() -> Vec<String> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let folder = root.join("kernels");
    let entries = fs::read_dir(&folder).expect("the package has a folder `kernels`");
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "cu" || extension == "cuh"));
    paths.sort(); // the order of a folder is any, and it goes into the cache's key
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    paths.iter().map(|path| format!("({:?}, include_str!({path:?})), ", name(path))).collect()
}
