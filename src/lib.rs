//! The geometry that a trained decoder gives its latent space, for thousands of curves at once.

#![deny(unsafe_code)]
#![deny(missing_docs)]

#[cfg(feature = "cli")]
pub mod cli;
mod cpu;
pub mod decoder;
mod device;
mod error;
mod geodesic;
mod model;
mod scalar;

pub use decoder::{Activation, Decoder, FileOptions, Head, Layer};
pub use device::Device;
pub use error::{Error, Result};
pub use geodesic::{Geodesics, Options, Status};
pub use model::{Energies, Model};
pub use scalar::Scalar;
