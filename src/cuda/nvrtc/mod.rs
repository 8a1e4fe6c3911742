//! Compiles the embedded sources at run time: without nvcc, without a file on the disk, for the architecture at hand.

mod library;

use std::ffi::{CStr, CString, c_char, c_int};
use std::path::PathBuf;
use std::ptr;
use std::sync::OnceLock;

use self::library::{Functions, Program};
use super::sources;
use crate::error::{Error, Result};

/// NVRTC, as this process found it.
pub(crate) struct Compiler {
    functions: Functions,
    path: PathBuf,
    /// Such as (13, 0).
    pub version: (i32, i32),
    /// Compute capabilities that it compiles for, such as 90.
    architectures: Vec<i32>,
}

/// The compiler, or a line that says why there is none. Looked for once in a process.
pub(crate) fn compiler() -> Result<&'static Compiler, &'static str> {
    static COMPILER: OnceLock<Result<Compiler, String>> = OnceLock::new();
    COMPILER
        .get_or_init(|| library::open().and_then(|(functions, path)| Compiler::new(functions, path)))
        .as_ref()
        .map_err(String::as_str)
}

/// The options that every compilation is given, besides the architecture.
pub(crate) fn options(instances: &str) -> Vec<&'static str> {
    // Lets the sources leave out, in a module for one decoder, the kernels that the general module already has, and in the general one
    // those that every decoder gets of its own.
    let left_out = match instances {
        "" => "--define-macro=PULLBACK_AT_RUN_TIME",
        _ => "--define-macro=PULLBACK_SPECIALISED",
    };
    sources::OPTIONS.iter().copied().chain([left_out]).collect()
}

impl Compiler {
    fn new(functions: Functions, path: PathBuf) -> Result<Self, String> {
        let (mut major, mut minor, mut count) = (0, 0, 0);
        // SAFETY: both functions write to the integers they are given.
        let codes = unsafe {
            [(functions.nvrtcVersion)(&mut major, &mut minor), (functions.nvrtcGetNumSupportedArchs)(&mut count)]
        };
        let mut architectures = vec![0; usize::try_from(count).unwrap_or(0)];
        // SAFETY: the function writes as many integers as the one before counted.
        let code = unsafe { (functions.nvrtcGetSupportedArchs)(architectures.as_mut_ptr()) };
        if codes != [0, 0] || code != 0 {
            return Err("NVRTC does not tell its version".into());
        }
        Ok(Self { functions, path, version: (major, minor), architectures })
    }

    /// The library's path, or its name alone where the loader found it.
    pub(crate) fn path(&self) -> String {
        self.path.display().to_string()
    }

    /// What to compile for so that a GPU runs it: its own architecture, with the instructions of that chip alone where there are
    /// any that the kernels use, or the nearest earlier one of its generation.
    pub(crate) fn architecture(&self, compute: (u32, u32)) -> Result<String> {
        let wanted = i32::try_from(compute.0 * 10 + compute.1).unwrap_or(0);
        let same = |code: &&i32| **code / 10 == wanted / 10 && **code <= wanted;
        match self.architectures.iter().filter(same).max() {
            Some(90) if wanted == 90 => Ok("sm_90a".into()),
            Some(code) => Ok(format!("sm_{code}")),
            None => Err(Error::Compile {
                what: format!("kernels for sm_{wanted}"),
                message: format!("NVRTC {}.{} does not know this architecture", self.version.0, self.version.1),
            }),
        }
    }

    /// Machine code of all embedded kernels and of `instances`, which stands behind them.
    ///
    /// # Errors
    ///
    /// [`Error::Compile`] with the compiler's log.
    pub(crate) fn compile(&self, architecture: &str, instances: &str) -> Result<Vec<u8>> {
        let root = sources::FILES.iter().find(|(name, _)| *name == sources::ROOT).map_or("", |(_, text)| text);
        let source = format!("{root}\n{instances}\n");
        let mut flags = vec![format!("--gpu-architecture={architecture}")];
        flags.extend(options(instances).into_iter().map(String::from));
        let headers = sources::FILES.iter().filter(|(name, _)| *name != sources::ROOT);
        let (names, texts): (Vec<&str>, Vec<&str>) = headers.copied().unzip();

        let failed = |message: String| Error::Compile { what: format!("kernels for {architecture}"), message };
        let strings = |all: &[&str]| Strings::new(all).ok_or_else(|| failed("a zero byte in the sources".into()));
        let (names, texts, flags) = (strings(&names)?, strings(&texts)?, {
            let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
            strings(&flags)?
        });
        let root = strings(&[&source, sources::ROOT])?;

        let mut program = ptr::null_mut();
        // SAFETY: all strings end in zero and outlive the program; there are as many names as texts.
        let code = unsafe {
            (self.functions.nvrtcCreateProgram)(
                &mut program,
                root.pointers[0],
                root.pointers[1],
                names.count(),
                texts.pointers.as_ptr(),
                names.pointers.as_ptr(),
            )
        };
        self.check(code).map_err(failed)?;
        let program = Guard { functions: &self.functions, program };
        // SAFETY: the program was created above, and there are that many flags.
        let code =
            unsafe { (self.functions.nvrtcCompileProgram)(program.program, flags.count(), flags.pointers.as_ptr()) };
        self.check(code).map_err(|words| failed(format!("{words}\n{}", program.log()).trim_end().into()))?;
        program.machine_code().ok_or_else(|| failed("NVRTC made no machine code".into()))
    }

    fn check(&self, code: c_int) -> Result<(), String> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: the function takes any number and returns a string that is never freed, or null.
        let words = unsafe { (self.functions.nvrtcGetErrorString)(code) };
        // SAFETY: as above; null is excluded.
        let words = (!words.is_null()).then(|| unsafe { CStr::from_ptr(words) }.to_string_lossy().into_owned());
        Err(words.unwrap_or_else(|| format!("NVRTC error {code}")))
    }
}

/// C strings, and the array of pointers that C takes them as.
struct Strings {
    pointers: Vec<*const c_char>,
    _owned: Vec<CString>,
}

impl Strings {
    fn new(all: &[&str]) -> Option<Self> {
        let owned: Vec<_> = all.iter().map(|text| CString::new(*text).ok()).collect::<Option<_>>()?;
        Some(Self { pointers: owned.iter().map(|text| text.as_ptr()).collect(), _owned: owned })
    }

    fn count(&self) -> c_int {
        c_int::try_from(self.pointers.len()).unwrap_or(c_int::MAX)
    }
}

/// A program, destroyed at the end.
struct Guard<'a> {
    functions: &'a Functions,
    program: Program,
}

impl Guard<'_> {
    fn log(&self) -> String {
        let functions = self.functions;
        let log = self.bytes(functions.nvrtcGetProgramLogSize, functions.nvrtcGetProgramLog).unwrap_or_default();
        String::from_utf8_lossy(&log).trim_end_matches('\0').trim_end().into()
    }

    fn machine_code(&self) -> Option<Vec<u8>> {
        let code = self.bytes(self.functions.nvrtcGetCUBINSize, self.functions.nvrtcGetCUBIN)?;
        (!code.is_empty()).then_some(code)
    }

    fn bytes(
        &self,
        size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
        get: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    ) -> Option<Vec<u8>> {
        let mut count = 0;
        // SAFETY: the program is alive, and the function writes one integer.
        (unsafe { size(self.program, &mut count) } == 0).then_some(())?;
        let mut bytes = vec![0u8; count];
        // SAFETY: the function writes as many bytes as its partner counted.
        (unsafe { get(self.program, bytes.as_mut_ptr().cast()) } == 0).then_some(bytes)
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // SAFETY: the program was created, and nothing uses it any more. A failure would leak it, no more.
        let _ = unsafe { (self.functions.nvrtcDestroyProgram)(&mut self.program) };
    }
}

#[cfg(test)]
mod tests;
