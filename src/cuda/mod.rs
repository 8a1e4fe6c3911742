//! The CUDA path: launchers for the kernels in `kernels/`, and the platforms that run them.

pub(crate) mod platform;
