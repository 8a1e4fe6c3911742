//! NVRTC's library: found at run time, in more places than the loader looks.

use std::env;
use std::ffi::{c_char, c_int, c_void};
use std::path::{Path, PathBuf};

/// `nvrtcProgram`.
pub(super) type Program = *mut c_void;

/// Names that toolkits give the library, newest first.
const NAMES: &[&str] = if cfg!(windows) {
    &["nvrtc64_130_0.dll", "nvrtc64_120_0.dll"]
} else {
    &["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"]
};

macro_rules! functions {
    ($($function:ident($($argument:ty),*) -> $result:ty;)*) => {
        /// The functions of NVRTC's C interface that are used here, under their own names. What they return is a plain number: a
        /// newer NVRTC may know results that nobody here has heard of.
        #[allow(non_snake_case)]
        pub(super) struct Functions {
            $(pub $function: unsafe extern "C" fn($($argument),*) -> $result,)*
        }

        impl Functions {
            fn load(library: &libloading::Library) -> Result<Self, libloading::Error> {
                Ok(Self {
                    // SAFETY: the signature is that of nvrtc.h, the same in every version that exports the name.
                    $($function: *unsafe { library.get(concat!(stringify!($function), "\0").as_bytes()) }?,)*
                })
            }
        }
    };
}

functions! {
    nvrtcVersion(*mut c_int, *mut c_int) -> c_int;
    nvrtcGetErrorString(c_int) -> *const c_char;
    nvrtcGetNumSupportedArchs(*mut c_int) -> c_int;
    nvrtcGetSupportedArchs(*mut c_int) -> c_int;
    nvrtcCreateProgram(*mut Program, *const c_char, *const c_char, c_int, *const *const c_char, *const *const c_char) -> c_int;
    nvrtcCompileProgram(Program, c_int, *const *const c_char) -> c_int;
    nvrtcGetProgramLogSize(Program, *mut usize) -> c_int;
    nvrtcGetProgramLog(Program, *mut c_char) -> c_int;
    nvrtcGetCUBINSize(Program, *mut usize) -> c_int;
    nvrtcGetCUBIN(Program, *mut c_char) -> c_int;
    nvrtcDestroyProgram(*mut Program) -> c_int;
}

/// Opens NVRTC: the file or folder that `PULLBACK_NVRTC` names (`none`: no NVRTC at all), or the one that the loader finds, or that of
/// a toolkit; with the name it was opened by. The error says, in a line, where there is none.
pub(super) fn open() -> Result<(Functions, PathBuf), String> {
    if let Some(named) = env::var_os("PULLBACK_NVRTC").filter(|value| !value.is_empty()) {
        if named == "none" {
            return Err("no NVRTC (PULLBACK_NVRTC=none)".into());
        }
        let path = PathBuf::from(named);
        let files = if path.is_dir() { NAMES.iter().map(|name| path.join(name)).collect() } else { vec![path.clone()] };
        let file = files.into_iter().find(|file| file.is_file());
        let file =
            file.ok_or_else(|| format!("PULLBACK_NVRTC: {}: expected NVRTC's library or its folder", path.display()))?;
        return load(&file).map_err(|problem| format!("PULLBACK_NVRTC: {problem}"));
    }
    let by_name = NAMES.iter().map(PathBuf::from);
    let found =
        by_name.chain(in_toolkits().into_iter().filter(|file| file.is_file())).find_map(|file| load(&file).ok());
    found.ok_or_else(|| {
        format!(
            "no NVRTC ({}) on the library path or in CUDA_HOME; PULLBACK_NVRTC names one elsewhere",
            NAMES.join(", ")
        )
    })
}

fn in_toolkits() -> Vec<PathBuf> {
    let named = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os).filter(|root| !root.is_empty());
    let usual = ["/usr/local/cuda", "/opt/cuda"].into_iter().map(Into::into);
    let roots: Vec<PathBuf> = named.chain(usual).map(PathBuf::from).collect();
    let folders = roots.iter().flat_map(|root| ["lib64", "lib", "bin"].map(|folder| root.join(folder)));
    folders.flat_map(|folder| NAMES.iter().map(move |name| folder.join(name))).collect()
}

/// NVRTC opens a second library when it compiles, by name alone: one that lies beside it, off the library path, is found only if it
/// is loaded already.
fn load_builtins(file: &Path) {
    let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return };
    let Ok(entries) = folder.read_dir() else { return };
    let siblings = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let builtins = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("libnvrtc-builtins.so.") || name.starts_with("nvrtc-builtins64_")
    };
    for path in siblings.filter(builtins) {
        // SAFETY: as for NVRTC itself.
        if let Ok(library) = unsafe { libloading::Library::new(path) } {
            std::mem::forget(library);
        }
    }
}

fn load(file: &Path) -> Result<(Functions, PathBuf), String> {
    let problem = |error: libloading::Error| format!("{}: {error}", file.display());
    load_builtins(file);
    // SAFETY: the library is NVIDIA's, by its name or by the user's word; its initialisers ask nothing of their caller.
    let library = unsafe { libloading::Library::new(file) }.map_err(problem)?;
    let functions = Functions::load(&library).map_err(problem)?;
    std::mem::forget(library); // its functions are called until the process ends
    Ok((functions, file.to_owned()))
}
