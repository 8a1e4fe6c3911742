//! The CUDA path: launchers for the kernels in `kernels/`, and the platforms that run them.

#[cfg(feature = "emulator")]
pub(crate) mod emulator;
pub(crate) mod platform;
