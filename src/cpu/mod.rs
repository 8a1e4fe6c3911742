//! The CPU path: the reference for every kernel, and the default where there is no GPU.

pub(crate) mod activation;
pub(crate) mod backend;
mod curve;
pub(crate) mod decode;
pub(crate) mod energy;
pub(crate) mod gram;
pub(crate) mod jacobian;
pub(crate) mod network;
pub(crate) mod simd;
mod step;
