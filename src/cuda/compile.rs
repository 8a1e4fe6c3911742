//! From the embedded sources to machine code, through the cache; and where each kernel of this build comes from.

use std::fmt;

use super::cache::{Cache, Key};
use super::nvrtc::{self, Compiler};
use super::sources;
use crate::error::Result;

/// [`compile`], or what stands for it in a test.
pub(crate) type Compile = fn((u32, u32), &str) -> Result<Compiled>;

/// What compiling at run time comes to.
#[derive(Debug)]
pub(crate) enum Compiled {
    Code(Vec<u8>),
    /// There is no compiler on this machine: a line that says so.
    Unavailable(String),
}

/// Machine code of all kernels and of `instances` for a GPU of this compute capability.
///
/// # Errors
///
/// [`Error::Compile`](crate::Error::Compile), with the compiler's log.
pub(crate) fn compile(compute: (u32, u32), instances: &str) -> Result<Compiled> {
    let compiler = match nvrtc::compiler() {
        Ok(compiler) => compiler,
        Err(reason) => return Ok(Compiled::Unavailable(reason.into())),
    };
    through(&Cache::of_the_user(), compiler, &compiler.architecture(compute)?, instances).map(Compiled::Code)
}

fn through(cache: &Cache, compiler: &Compiler, architecture: &str, instances: &str) -> Result<Vec<u8>> {
    let key = key(compiler.version, architecture, instances);
    if let Some(code) = cache.read(key) {
        return Ok(code);
    }
    let code = compiler.compile(architecture, instances)?;
    cache.write(key, &code);
    Ok(code)
}

/// Everything that decides what NVRTC makes.
fn key((major, minor): (i32, i32), architecture: &str, instances: &str) -> Key {
    let version = format!("NVRTC {major}.{minor}");
    let files = sources::FILES.iter().flat_map(|(name, text)| [*name, *text]);
    let parts = [version.as_str(), architecture, instances].into_iter();
    Key::new(parts.chain(nvrtc::options(instances)).chain(files))
}

/// Where a kernel's code comes from on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The image that the build embedded.
    Embedded { compiler: &'static str, target: &'static str },
    /// NVRTC, when a device is first used, or the cache.
    AtRunTime { version: (i32, i32) },
    /// Nowhere, and why.
    Missing(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded { compiler, target } => write!(f, "embedded ({compiler}, {target})"),
            Self::AtRunTime { version: (major, minor) } => write!(f, "compiled at run time (NVRTC {major}.{minor})"),
            Self::Missing(why) => write!(f, "missing ({why})"),
        }
    }
}

/// Every kernel, and where its code would come from for a GPU of this compute capability. Loads no driver.
pub(crate) fn provenance(compute: (u32, u32)) -> Vec<(&'static str, Origin)> {
    let origin = match (sources::COMPILER, sources::target(sources::TARGETS, compute), nvrtc::compiler()) {
        (Ok(compiler), Some(target), _) => Origin::Embedded { compiler, target },
        (_, _, Ok(nvrtc)) => Origin::AtRunTime { version: nvrtc.version },
        (Ok(_), None, Err(why)) => Origin::Missing(format!("the image has no code for it; {why}")),
        (Err(unbuilt), _, Err(why)) => Origin::Missing(format!("{unbuilt}; {why}")),
    };
    sources::kernels_for(compute).into_iter().map(|name| (name, origin.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::cache::tests::Scratch;

    #[test]
    fn every_kernel_has_an_origin() {
        let found = provenance((8, 0));
        assert_eq!(found.len(), sources::kernels_for((8, 0)).len());
        for (name, origin) in found {
            match (&origin, sources::COMPILER, nvrtc::compiler()) {
                (Origin::Embedded { target: "sm_80", .. }, Ok(_), _) => {}
                (Origin::AtRunTime { .. }, Err(_), Ok(_)) => {}
                (Origin::Missing(_), Err(_), Err(_)) => {}
                _ => panic!("{name}: {origin}"),
            }
        }
    }

    #[test]
    fn what_was_compiled_is_kept_and_read_again() {
        let Ok(compiler) = nvrtc::compiler() else { return println!("skipped: no NVRTC") };
        let scratch = Scratch::new("compile");
        let code = through(&scratch.0, compiler, "sm_80", "").unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(scratch.0.read(key(compiler.version, "sm_80", "")), Some(code));
        scratch.0.write(key(compiler.version, "sm_80", ""), b"planted");
        assert_eq!(through(&scratch.0, compiler, "sm_80", "").unwrap(), b"planted");
        assert_ne!(through(&scratch.0, compiler, "sm_90a", "").unwrap(), b"planted");
        assert_ne!(through(&scratch.0, compiler, "sm_80", "// other").unwrap(), b"planted");
    }
}
