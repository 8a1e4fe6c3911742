//! What the crate promises, as laws. One program, as each would compile the processor's path for both types anew.

#[path = "../fixtures/mod.rs"]
mod fixtures;

mod curvature;
mod decode;
mod decoder_files;
mod energy;
mod fused;
mod geodesics;
mod gram;
mod information;
mod invariance;
mod jacobian;
mod maps;
mod options;
mod singular;
mod spectrum;
mod surfaces;
mod uncertain;
mod volume;
