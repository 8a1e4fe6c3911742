//! The geometry that a trained decoder gives its latent space, for thousands of curves at once.
//!
//! A decoder f: R^d → R^D pulls the Euclidean metric of its outputs back to the latent space: G(z) = JᵀJ with J = ∂f/∂z. This
//! crate computes with that metric: values, Jacobians, metrics, volumes, and above all geodesics, whose lengths are distances.
//!
//! | noun | what it is |
//! | --- | --- |
//! | [`Decoder`] | what is computed: layers and activations, from a file, from layers in memory, or a classical surface |
//! | [`Device`] | where: an NVIDIA GPU, or the processor |
//! | [`Model`] | a decoder on a device, with every operation as a method; arrays in and out are those of [`ndarray`] |
//! | [`Precision`] | how a GPU computes products: on tensor cores about as accurately as float32, or faster for a first look |
//! | [`Options`] | how geodesics are discretised, and when the solver stops |
//! | [`Geodesics`] | solved curves with energy, length, gradient, passes and [`Status`] |
//!
//! # Example
//!
//! On the unit sphere, in the coordinates (θ, φ), a quarter of the equator is π/2 long:
//!
//! ```
//! use ndarray::array;
//! use pullback::{Decoder, Device, Options, Status};
//!
//! let model = Device::best()?.load(&Decoder::sphere(1.0))?;
//! let quarter = std::f32::consts::FRAC_PI_2;
//! let (starts, ends) = (array![[quarter, 0.0]], array![[quarter, quarter]]);
//!
//! let found = model.geodesics(starts.view(), ends.view(), &Options::default())?;
//! assert_eq!(found.status, [Status::Converged]);
//! assert!((found.length[0] - quarter).abs() < 1e-3);
//!
//! let metric = model.metric(array![[0.5, 0.0]].view())?; // diag(1, sin² θ)
//! assert!((metric[[0, 1, 1]] - 0.5f32.sin().powi(2)).abs() < 1e-6);
//! # Ok::<(), pullback::Error>(())
//! ```
//!
//! # Curves and lengths
//!
//! A curve is N + 1 points z_0 … z_N with fixed ends. Its chord energy E = N/2 · Σ ‖f(z_{i+1}) − f(z_i)‖² and length
//! L = Σ ‖f(z_{i+1}) − f(z_i)‖ are taken in data space, and L² ≤ 2E, with equality at constant speed. A geodesic is a local
//! minimum of E; its length falls short of the continuous one by O(1/N²).
//!
//! A curve's result depends on that curve alone, to the bit: not on its neighbours, their order, the number of threads or the run.

#![deny(unsafe_code)]
#![deny(missing_docs)]

#[cfg(feature = "cli")]
pub mod cli;
pub mod cost;
mod cpu;
#[cfg(any(feature = "cuda", feature = "emulator"))]
#[allow(unsafe_code)] // the only place: see `cuda::platform`
mod cuda;
pub mod decoder;
mod device;
mod error;
mod geodesic;
mod model;
mod precision;
mod scalar;

#[cfg(any(feature = "cuda", feature = "emulator"))]
pub use cuda::array::DeviceArray;
#[cfg(feature = "emulator")]
pub use cuda::emulator::EmulatorOptions;
pub use decoder::{Activation, Decoder, FileOptions, Geometry, Head, Layer, Likelihood};
pub use device::{Device, DeviceProperties};
pub use error::{Error, Result};
pub use geodesic::{Geodesics, Options, Status};
pub use model::{Energies, Model, Singular, Spectrum};
pub use precision::Precision;
pub use scalar::Scalar;
