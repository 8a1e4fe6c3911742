//! A decoder on a device: everything that can be computed with it.

mod curvature;
mod curves;
#[cfg(any(feature = "cuda", feature = "emulator"))]
mod device;
mod engine;
mod maps;
mod points;
mod singular;
mod soften;
mod spectrum;
mod volume;

use std::sync::OnceLock;
#[cfg(any(feature = "cuda", feature = "emulator"))]
use std::{any::TypeId, sync::Arc};

use ndarray::{Array2, Array3, ArrayView2, CowArray, Ix2};

use crate::cpu::model::CpuModel;
#[cfg(any(feature = "cuda", feature = "emulator"))]
use crate::cuda::{model::CudaModel, platform::Platform};
use crate::decoder::Decoder;
use crate::error::{Error, Result};
use crate::precision::Precision;
use crate::scalar::Scalar;
pub use curves::Energies;
#[cfg(any(feature = "cuda", feature = "emulator"))]
use engine::Dims;
use engine::Engine;
pub use singular::Singular;
pub use spectrum::Spectrum;

/// A decoder's weights on a device. Shared freely between threads.
pub struct Model<T = f32> {
    decoder: Decoder,
    engine: Engine<T>,
    /// Of a decoder with kinks, smooth neighbours, made when geodesics are first asked for.
    softened: OnceLock<Vec<Model<T>>>,
}

impl<T: Scalar> Model<T> {
    pub(crate) fn on_cpu(decoder: &Decoder) -> Self {
        Self { decoder: decoder.clone(), engine: Engine::Cpu(CpuModel::new(decoder)), softened: OnceLock::new() }
    }

    #[cfg(any(feature = "cuda", feature = "emulator"))]
    pub(crate) fn on_cuda(platform: Arc<dyn Platform>, decoder: &Decoder, precision: Precision) -> Result<Self> {
        if TypeId::of::<T>() != TypeId::of::<f32>() {
            let device = platform.label();
            return Err(Error::Device(format!(
                "{device}: expected f32, which its kernels compute in: use the CPU for f64"
            )));
        }
        let model = Box::new(CudaModel::new(platform, decoder, precision)?);
        let dims = Dims { latent: decoder.latent_dim(), data: decoder.data_dim() };
        Ok(Self { decoder: decoder.clone(), engine: Engine::Cuda { model, dims }, softened: OnceLock::new() })
    }

    /// Seconds that values, Jacobians, metrics and the like have spent in kernels so far, transfers not counted; `None` on the processor.
    #[doc(hidden)] // for the benches
    pub fn kernel_seconds(&self) -> Option<f64> {
        match &self.engine {
            Engine::Cpu(_) => None,
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Engine::Cuda { model, .. } => Some(model.kernel_seconds()),
        }
    }

    /// The decoder that was loaded.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// The precision in which products are computed: on a GPU the one asked for, or [`Precision::Float32`] where the decoder needs that;
    /// [`Precision::Float32`] on the processor, where they are computed in `T`.
    pub fn precision(&self) -> Precision {
        match &self.engine {
            Engine::Cpu(_) => Precision::Float32,
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Engine::Cuda { model, .. } => model.precision(),
        }
    }

    /// Loads another decoder where this one is.
    fn load(&self, decoder: &Decoder) -> Result<Self> {
        match &self.engine {
            Engine::Cpu(_) => Ok(Self::on_cpu(decoder)),
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Engine::Cuda { model, .. } => Self::on_cuda(model.platform(), decoder, model.asked()),
        }
    }

    /// Latents `[P, d]` in standard layout.
    fn latents<'a>(&self, latents: ArrayView2<'a, T>) -> Result<CowArray<'a, T, Ix2>> {
        self.check_width("latents", latents.ncols())?;
        Ok(standard(latents))
    }

    fn check_width(&self, what: &str, width: usize) -> Result<()> {
        let d = self.decoder.latent_dim();
        if width == d {
            return Ok(());
        }
        Err(Error::Shape {
            what: what.into(),
            expected: format!("latents of dimension {d}, the decoder's"),
            found: width.to_string(),
        })
    }
}

fn check_finite<T: Scalar>(what: &str, rows: ArrayView2<'_, T>) -> Result<()> {
    match rows.indexed_iter().find(|(_, v)| !v.finite()) {
        Some(((row, column), &value)) => {
            Err(Error::NotFinite { what: what.into(), row, column, value: value.to_f64() })
        }
        None => Ok(()),
    }
}

/// An array of one row for each of `points` latents, `[points, width]`, in standard layout.
fn beside<'a, T: Scalar>(
    what: &str,
    rows: ArrayView2<'a, T>,
    points: usize,
    width: usize,
) -> Result<CowArray<'a, T, Ix2>> {
    if rows.dim() == (points, width) {
        return Ok(standard(rows));
    }
    Err(Error::Shape {
        what: what.into(),
        expected: format!("[{points}, {width}]"),
        found: format!("{:?}", rows.shape()),
    })
}

fn standard<T: Scalar>(rows: ArrayView2<'_, T>) -> CowArray<'_, T, Ix2> {
    if rows.is_standard_layout() { rows.into() } else { rows.as_standard_layout().into_owned().into() }
}

/// The numbers of an array in standard layout.
fn numbers<'a, T>(rows: &'a CowArray<'_, T, Ix2>) -> &'a [T] {
    rows.as_slice().unwrap_or_default()
}

fn array2<T: Scalar>(rows: usize, columns: usize, numbers: Vec<T>) -> Array2<T> {
    Array2::from_shape_vec((rows, columns), numbers).unwrap_or_else(|_| Array2::from_elem((rows, columns), T::ZERO))
}

fn array3<T: Scalar>(a: usize, b: usize, c: usize, numbers: Vec<T>) -> Array3<T> {
    Array3::from_shape_vec((a, b, c), numbers).unwrap_or_else(|_| Array3::from_elem((a, b, c), T::ZERO))
}
