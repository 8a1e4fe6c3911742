//! The CUDA path: launchers for the kernels in `kernels/`, and the platforms that run them.

#[cfg(feature = "cuda")]
pub(crate) mod cache;
#[cfg(feature = "cuda")]
pub(crate) mod nvrtc;
pub(crate) mod platform;
#[cfg(feature = "cuda")]
pub(crate) mod sources;
