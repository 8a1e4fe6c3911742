//! The CUDA path: launchers for the kernels in `kernels/`, and the platforms that run them.
#![allow(dead_code)] // not wired to the models yet

#[cfg(feature = "cuda")]
pub(crate) mod array;
#[cfg(feature = "cuda")]
pub(crate) mod cache;
#[cfg(feature = "cuda")]
pub(crate) mod compile;
#[cfg(feature = "cust")]
pub(crate) mod cust;
#[cfg(feature = "cuda")]
pub(crate) mod driver;
#[cfg(feature = "cuda")]
pub(crate) mod module;
#[cfg(feature = "cuda")]
pub(crate) mod nvrtc;
pub(crate) mod platform;
#[cfg(feature = "cuda")]
pub(crate) mod sources;
