//! The CPU path: the reference for every kernel, and the default where there is no GPU.

pub(crate) mod activation;
mod backend;
mod curve;
mod decode;
mod energy;
mod ensemble;
mod gaussian;
mod gram;
mod jacobian;
pub(crate) mod model;
pub(crate) mod network;
mod simd;
mod softmax;
pub(crate) mod step;

pub(crate) use decode::root_mean_square;
