//! The CUDA path: launchers for the kernels in `kernels/`, and the platforms that run them.
//!
//! `kernels/x.cu`, `src/cuda/x.rs`, `src/cpu/x.rs` and `tests/x.rs` are one operation: the kernel, its launcher, the reference, and
//! the test that holds the one against the other. Everything `unsafe` in this crate stands here.

pub(crate) mod backend;
mod decode;
#[cfg(feature = "emulator")]
pub(crate) mod emulator;
mod energy;
mod gram;
mod jacobian;
mod launch;
mod memory;
pub(crate) mod model;
mod network;
pub(crate) mod platform;
mod step;
