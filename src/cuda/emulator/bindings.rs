//! The library that `build/emulator.rs` makes of `kernels/`; its structures are those of `kernels/emulator/`.

use std::ffi::{CStr, c_char, c_void};

/// A kernel in one of the two builds; `Registered` in `runtime.hpp`.
#[repr(C)]
pub(super) struct Registered {
    name: *const c_char,
    /// Size of its structure of parameters.
    pub params: u32,
    /// Most threads that a block may have.
    pub threads: u32,
    entry: extern "C" fn(*const c_void),
    next: *const Registered,
}

// SAFETY: the library never changes what it registered before `main`.
unsafe impl Sync for Registered {}

impl Registered {
    pub(super) fn name(&self) -> &'static CStr {
        // SAFETY: the name is a literal of the library.
        unsafe { CStr::from_ptr(self.name) }
    }
}

#[repr(C)]
struct Launch {
    kernel: *const Registered,
    params: *const c_void,
    blocks: u32,
    threads: u32,
    shared: u32,
    workers: u32,
    checked: u32,
}

#[repr(C)]
struct Fault {
    block: u32,
    thread: u32,
    what: [c_char; 496],
}

unsafe extern "C" {
    fn pullback_emulator_kernels() -> *const Registered;
    fn pullback_emulator_checked_kernels() -> *const Registered;
    fn pullback_emulator_launch(launch: *const Launch, fault: *mut Fault) -> bool;
}

/// The kernels of a build.
pub(super) fn kernels(checked: bool) -> Vec<&'static Registered> {
    // SAFETY: both take nothing, and give the first of a list or null.
    let mut next = unsafe { if checked { pullback_emulator_checked_kernels() } else { pullback_emulator_kernels() } };
    let mut kernels = Vec::new();
    // SAFETY: the list is static, and ends with null.
    while let Some(kernel) = unsafe { next.as_ref() } {
        kernels.push(kernel);
        next = kernel.next;
    }
    kernels
}

/// 16 bytes, aligned as parameters must be.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
pub(super) struct Aligned([u8; 16]);

/// A copy of a launch's parameters.
pub(super) fn aligned(params: &[u8]) -> Vec<Aligned> {
    let chunk = |bytes: &[u8]| {
        let mut aligned = Aligned([0; 16]);
        aligned.0[..bytes.len()].copy_from_slice(bytes);
        aligned
    };
    params.chunks(16).map(chunk).collect()
}

/// Runs a kernel; the error says which thread of which block did what.
///
/// # Safety
///
/// The kernel is of the build that `checked` names, `params` is its structure, at most so many threads as it is bound to and a
/// multiple of 32, `shared` within the limit, and every address in `params` valid for what the kernel does with it.
pub(super) unsafe fn launch(
    kernel: &'static Registered,
    checked: bool,
    geometry: crate::cuda::platform::Geometry,
    params: &[Aligned],
    workers: u32,
) -> Result<(), String> {
    let launch = Launch {
        kernel,
        params: params.as_ptr().cast(),
        blocks: geometry.blocks,
        threads: geometry.threads,
        shared: geometry.shared,
        workers,
        checked: checked.into(),
    };
    let mut fault = Fault { block: 0, thread: 0, what: [0; 496] };
    // SAFETY: both structures live until the call returns; the rest is the caller's promise.
    if unsafe { pullback_emulator_launch(&launch, &mut fault) } {
        return Ok(());
    }
    // SAFETY: the library ends its text with a zero inside the array.
    let what = unsafe { CStr::from_ptr(fault.what.as_ptr()) };
    Err(format!("block {}, thread {} {}", fault.block, fault.thread, what.to_string_lossy()))
}
