//! The CUDA path: launchers for the kernels in `kernels/`, and the platforms that run them.

#[cfg(feature = "emulator")]
#[cfg_attr(not(test), allow(dead_code))] // until there are launchers
pub(crate) mod emulator;
#[cfg_attr(not(test), allow(dead_code))] // until there are launchers
pub(crate) mod platform;
