//! What this machine and this build have: devices, compilers of kernels, and the way that each kernel takes from one to the other.

use serde_json::{Value, json};

use super::solve::thousands;
use crate::device::DeviceProperties;
use crate::precision::Precision;

/// The machine, as `pullback info` tells of it.
pub(super) struct Machine {
    /// The GPUs, or why there is none.
    gpus: Result<Vec<DeviceProperties>, String>,
    /// Whether the build has the feature `emulator`.
    emulator: bool,
    /// `None` in a build without the feature `cuda`.
    compilers: Option<Compilers>,
}

/// Where kernels get compiled.
struct Compilers {
    /// What nvcc embedded when this was built, or why it did not.
    nvcc: Result<Embedded, String>,
    /// Version and path of the NVRTC of this machine, or why there is none.
    nvrtc: Result<(String, String), String>,
    /// Folder of kernels compiled at run time.
    cache: Option<String>,
    /// Compute capability that the kernels' ways are told for: the first GPU's, or one chosen where there is none.
    compute: (u32, u32),
    /// Names and ways.
    kernels: Vec<(String, String)>,
}

struct Embedded {
    compiler: String,
    targets: Vec<String>,
}

impl Machine {
    #[cfg(not(feature = "cuda"))]
    pub fn look() -> Self {
        let gpus = Err("this build has no CUDA path: expected the feature `cuda`".into());
        Self { gpus, emulator: cfg!(feature = "emulator"), compilers: None }
    }

    #[cfg(feature = "cuda")]
    pub fn look() -> Self {
        use crate::cuda::cache::Cache;
        use crate::cuda::network::SPECIALISED;
        use crate::cuda::{compile, driver, nvrtc, sources};

        let gpus = driver::devices().map_err(|reason| reason.to_string());
        let gpus: Result<Vec<DeviceProperties>, _> = gpus.map(|all| all.iter().map(Into::into).collect());
        // A table for a GPU that is not there still tells what was embedded.
        let compute = gpus.as_ref().ok().and_then(|all| all.first()).map_or((9, 0), |gpu| gpu.compute);
        let targets = || sources::TARGETS.iter().map(|&target| target.to_owned()).collect();
        let nvcc = sources::COMPILER.map(|compiler| Embedded { compiler: compiler.into(), targets: targets() });
        let nvrtc = nvrtc::compiler().map(|c| (format!("{}.{}", c.version.0, c.version.1), c.path()));
        let kernels = compile::provenance(compute).into_iter().map(|(name, origin)| {
            let by_nvrtc = nvrtc
                .as_ref()
                .ok()
                .filter(|_| sources::is_fused(name) || SPECIALISED.contains(&name.trim_end_matches("_narrow")));
            (name.to_owned(), way(&origin, by_nvrtc.map(|(version, _)| version.as_str())))
        });
        let kernels = kernels.collect();
        let compilers = Compilers {
            nvcc: nvcc.map_err(Into::into),
            nvrtc: nvrtc.map_err(Into::into),
            cache: Cache::of_the_user().folder().map(|folder| folder.display().to_string()),
            compute,
            kernels,
        };
        Self { gpus, emulator: cfg!(feature = "emulator"), compilers: Some(compilers) }
    }

    /// Puts everything into a record.
    pub fn record(&self, record: &mut Value) {
        let threads = rayon::current_num_threads();
        let mut devices = vec![json!({ "device": "cpu", "threads": threads, "vectors": vectors() })];
        devices.extend(self.gpus.iter().flatten().enumerate().map(|(k, gpu)| {
            let mut device = describe(gpu);
            device["device"] = json!(format!("cuda:{k}"));
            device
        }));
        if self.emulator {
            devices.push(json!({ "device": "emulator" }));
        }
        record["devices"] = json!(devices);
        record["no_gpu"] = json!(self.gpus.as_ref().err());
        record["precisions"] = json!(Precision::ALL.map(Precision::name));
        let Some(compilers) = &self.compilers else { return };
        record["nvcc"] = match &compilers.nvcc {
            Ok(embedded) => json!({ "version": embedded.compiler, "targets": embedded.targets }),
            Err(reason) => json!({ "missing": reason }),
        };
        record["nvrtc"] = match &compilers.nvrtc {
            Ok((version, path)) => json!({ "version": version, "path": path }),
            Err(reason) => json!({ "missing": reason }),
        };
        record["cache"] = json!(compilers.cache);
        record["kernels_for"] = json!(dotted(compilers.compute));
        record["kernels"] = compilers.kernels.iter().map(|(name, way)| (name.clone(), json!(way))).collect();
    }

    /// The compilers of kernels, on a line; `None` where there is none.
    pub fn compilers(&self) -> Option<String> {
        let Compilers { nvcc, nvrtc, .. } = self.compilers.as_ref()?;
        let nvcc = nvcc.as_ref().ok().map(|embedded| embedded.compiler.clone());
        let nvrtc = nvrtc.as_ref().ok().map(|(version, _)| format!("NVRTC {version}"));
        let all: Vec<String> = nvcc.into_iter().chain(nvrtc).collect();
        (!all.is_empty()).then(|| all.join(", "))
    }

    /// A GPU, on a line.
    pub fn line(gpu: &DeviceProperties) -> String {
        format!(
            "{}, compute capability {}, {} multiprocessors to {} MHz, {} MiB, {} bits wide to {} MHz, driver for CUDA {}",
            gpu.name,
            dotted(gpu.compute),
            gpu.multiprocessors,
            gpu.clock,
            thousands((gpu.memory >> 20) as usize),
            gpu.memory_bus,
            gpu.memory_clock,
            dotted(gpu.driver),
        )
    }

    pub fn for_people(&self) -> String {
        let mut text = format!("cpu:       {} threads, vectors: {}\n", rayon::current_num_threads(), vectors());
        match &self.gpus {
            Ok(gpus) => {
                for (k, gpu) in gpus.iter().enumerate() {
                    text += &format!("{:<10} {}\n", format!("cuda:{k}:"), Self::line(gpu));
                }
            }
            Err(reason) => text += &format!("cuda:      none: {reason}\n"),
        }
        if self.emulator {
            text += "emulator:  in this build\n";
        }
        text += &format!("precision: {}; the processor has float32\n", Precision::ALL.map(Precision::name).join(", "));
        let Some(compilers) = &self.compilers else { return text };
        text += &match &compilers.nvcc {
            Ok(embedded) => {
                format!("nvcc:      {}, embedded for {}\n", embedded.compiler, embedded.targets.join(", "))
            }
            Err(reason) => format!("nvcc:      {reason}\n"),
        };
        text += &match &compilers.nvrtc {
            Ok((version, path)) => format!("nvrtc:     {version}, {path}\n"),
            Err(reason) => format!("nvrtc:     {reason}\n"),
        };
        text += &format!("cache:     {}\n", compilers.cache.as_deref().unwrap_or("none"));
        text += &format!("kernels, for compute capability {}:\n", dotted(compilers.compute));
        let width = compilers.kernels.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, way) in &compilers.kernels {
            text += &format!("  {name:<width$}  {way}\n");
        }
        text
    }
}

/// A GPU, for a record.
pub(super) fn describe(gpu: &DeviceProperties) -> Value {
    json!({
        "name": gpu.name,
        "compute_capability": dotted(gpu.compute),
        "multiprocessors": gpu.multiprocessors,
        "clock_mhz": gpu.clock,
        "memory_bytes": gpu.memory,
        "memory_clock_mhz": gpu.memory_clock,
        "memory_bus_bits": gpu.memory_bus,
        "driver_cuda_version": dotted(gpu.driver),
    })
}

/// How a kernel gets onto the GPU: `by_nvrtc` is the compiler that makes versions for one decoder, where there is one.
#[cfg(feature = "cuda")]
fn way(origin: &crate::cuda::compile::Origin, by_nvrtc: Option<&str>) -> String {
    use crate::cuda::compile::Origin;

    let general = match origin {
        Origin::Embedded { target, .. } if target.starts_with("compute") => {
            format!("embedded PTX ({target}), compiled by the driver")
        }
        Origin::Embedded { target, .. } => format!("embedded ({target})"),
        Origin::AtRunTime { .. } => "compiled at run time by NVRTC".into(),
        Origin::Missing(_) if cfg!(feature = "emulator") => return "emulator only".into(),
        Origin::Missing(_) => return "none: neither embedded nor compiled at run time".into(),
    };
    match by_nvrtc {
        Some(version) => format!("{general}; specialised to a decoder by NVRTC {version}"),
        None => general,
    }
}

fn dotted((major, minor): (u32, u32)) -> String {
    format!("{major}.{minor}")
}

/// The vector instructions that the CPU path uses here.
fn vectors() -> &'static str {
    let arch = format!("{:?}", pulp::Arch::new());
    match arch.split(|c: char| !c.is_alphanumeric()).next() {
        Some("V4") => "AVX-512",
        Some("V3") => "AVX2 with FMA",
        Some("Neon" | "NeonFcma") => "NEON",
        _ => "none",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_told_on_a_line_and_in_a_record() {
        let gpu = DeviceProperties {
            name: "GPU".into(),
            compute: (9, 0),
            multiprocessors: 132,
            clock: 1980,
            memory: 2 << 30,
            memory_clock: 3201,
            memory_bus: 6144,
            driver: (12, 8),
        };
        assert_eq!(
            Machine::line(&gpu),
            "GPU, compute capability 9.0, 132 multiprocessors to 1980 MHz, 2,048 MiB, 6144 bits wide to 3201 MHz, \
             driver for CUDA 12.8"
        );
        let expected = json!({
            "name": "GPU",
            "compute_capability": "9.0",
            "multiprocessors": 132,
            "clock_mhz": 1980,
            "memory_bytes": 2_147_483_648_u64,
            "memory_clock_mhz": 3201,
            "memory_bus_bits": 6144,
            "driver_cuda_version": "12.8",
        });
        assert_eq!(describe(&gpu), expected);
    }

    #[test]
    fn compilers_that_are_there_are_named() {
        let with = |nvcc: Option<&str>, nvrtc: Option<&str>| {
            let nvcc = nvcc.map(|name| Embedded { compiler: name.into(), targets: Vec::new() }).ok_or("none".into());
            let nvrtc = nvrtc.map(|version| (version.into(), "libnvrtc.so".into())).ok_or("none".into());
            let compilers = Compilers { nvcc, nvrtc, cache: None, compute: (9, 0), kernels: Vec::new() };
            Machine { gpus: Err("none".into()), emulator: false, compilers: Some(compilers) }.compilers()
        };
        assert_eq!(with(Some("nvcc 12.8"), Some("12.9")).as_deref(), Some("nvcc 12.8, NVRTC 12.9"));
        assert_eq!(with(None, Some("12.9")).as_deref(), Some("NVRTC 12.9"));
        assert_eq!(with(None, None), None);
    }
}
