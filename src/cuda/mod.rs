//! The CUDA path: launchers for the kernels in `kernels/`, and the platforms that run them.
//!
//! `kernels/x.cu`, `src/cuda/x.rs`, `src/cpu/x.rs` and `tests/laws/x.rs` are one operation: the kernel, its launcher, the reference, and
//! the test that holds the one against the other. Everything `unsafe` in this crate stands here.
//!
//! | what | where |
//! | --- | --- |
//! | launchers | `decode`, `softmax`, `jacobian`, `jet`, `gram` with `spectrum` and `cholesky`, `energy` with `ensemble` and `gaussian`, `step`, with `launch` for their geometry; `fused` with `slices` |
//! | what is launched on | `network` (weights), `memory` (buffers, streams) with the `pool` that keeps them, `model` with `maps` and `curvature` (many points), `backend` (many curves) |
//! | what launches | `platform`, the seam; `driver`, an NVIDIA GPU; `emulator`, the processor |
//! | compiled kernels | `module`, from `sources` by nvcc, or by `nvrtc` through `compile` and its `cache` |
//! | NVIDIA's libraries | `toolkit`, which finds NVRTC and `cublas` when they are needed |

pub(crate) mod array;
pub(crate) mod backend;
#[cfg(feature = "cuda")]
#[cfg_attr(not(feature = "cli"), allow(dead_code))] // a part is for `pullback info` alone
pub(crate) mod cache;
mod cholesky;
#[cfg(feature = "cuda")]
#[cfg_attr(not(feature = "cli"), allow(dead_code))] // a part is for `pullback info` alone
pub(crate) mod compile;
#[cfg(all(feature = "cuda", feature = "cli"))]
mod cublas;
pub(crate) mod curvature;
#[cfg(feature = "cust")]
mod cust;
mod decode;
#[cfg(feature = "cuda")]
#[cfg_attr(not(feature = "cli"), allow(dead_code))] // a part is for `pullback info` alone
pub(crate) mod driver;
#[cfg(feature = "emulator")]
pub(crate) mod emulator;
mod energy;
mod ensemble;
pub(crate) mod fused;
mod gaussian;
mod gram;
mod jacobian;
pub(crate) mod jet;
mod launch;
mod maps;
mod memory;
pub(crate) mod model;
#[cfg(feature = "cuda")]
mod module;
pub(crate) mod network;
#[cfg(feature = "cuda")]
#[cfg_attr(not(feature = "cli"), allow(dead_code))] // a part is for `pullback info` alone
pub(crate) mod nvrtc;
pub(crate) mod platform;
mod pool;
mod slices;
mod softmax;
#[cfg(feature = "cuda")]
#[cfg_attr(not(feature = "cli"), allow(dead_code))] // a part is for `pullback info` alone
pub(crate) mod sources;
mod spectrum;
mod step;
#[cfg(feature = "cuda")]
mod toolkit;
