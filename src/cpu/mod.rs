//! The CPU path: the reference for every kernel, and the default where there is no GPU.

pub(crate) mod activation;
mod backend;
pub(crate) mod cholesky;
pub(crate) mod curvature;
mod curve;
mod decode;
mod energy;
mod ensemble;
mod gaussian;
mod gram;
mod jacobian;
mod jet;
pub(crate) mod maps;
pub(crate) mod model;
pub(crate) mod network;
pub(crate) mod rows;
mod simd;
pub(crate) mod singular;
mod softmax;
pub(crate) mod spectrum;
pub(crate) mod step;

pub(crate) use decode::root_mean_square;
