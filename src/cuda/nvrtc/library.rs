//! NVRTC's library.

use std::ffi::{c_char, c_int, c_void};
use std::path::PathBuf;

use crate::cuda::toolkit::{Wanted, functions};

/// `nvrtcProgram`.
pub(super) type Program = *mut c_void;

const NVRTC: Wanted = Wanted {
    name: "NVRTC",
    variable: "PULLBACK_NVRTC",
    files: if cfg!(windows) {
        &["nvrtc64_130_0.dll", "nvrtc64_120_0.dll"]
    } else {
        &["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"]
    },
    needs: &["libnvrtc-builtins.so.", "nvrtc-builtins64_"],
};

functions! {
    /// The functions of nvrtc.h that are used here.
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

/// As [`Wanted::open`].
pub(super) fn open() -> Result<(Functions, PathBuf), String> {
    NVRTC.open(Functions::load)
}
