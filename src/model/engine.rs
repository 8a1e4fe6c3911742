//! Where a model computes: the one place that tells the processor from a CUDA device.

use crate::cpu::cholesky::log_dets;
use crate::cpu::maps::Pair;
use crate::cpu::model::CpuModel;
#[cfg(any(feature = "cuda", feature = "emulator"))]
use crate::cpu::rows::{chunk, over_finite_rows, spoil};
use crate::cpu::spectrum::{spectra, truncate};
#[cfg(any(feature = "cuda", feature = "emulator"))]
use crate::cuda::model::{CudaModel, Latents};
#[cfg(any(feature = "cuda", feature = "emulator"))]
use crate::error::Error;
use crate::error::Result;
use crate::scalar::Scalar;

pub(super) enum Engine<T> {
    Cpu(CpuModel<T>),
    /// Only where `T` is `f32`.
    #[cfg(any(feature = "cuda", feature = "emulator"))]
    Cuda {
        model: Box<CudaModel>,
        dims: Dims,
    },
}

/// Numbers of a metric or a Jacobian that are copied from a device before the processor goes on with them.
#[cfg(any(feature = "cuda", feature = "emulator"))]
const PIECE: usize = 1 << 24;

/// d and D.
#[cfg(any(feature = "cuda", feature = "emulator"))]
#[derive(Clone, Copy)]
pub(super) struct Dims {
    pub latent: usize,
    pub data: usize,
}

#[cfg(any(feature = "cuda", feature = "emulator"))]
impl Dims {
    /// Numbers of a Jacobian.
    fn size(self) -> usize {
        self.latent * self.data
    }
}

impl<T: Scalar> Engine<T> {
    pub fn decode(&self, latents: &[T]) -> Result<Vec<T>> {
        match self {
            Self::Cpu(model) => Ok(model.decode(latents)),
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Self::Cuda { model, .. } => from_device(model.decode(Latents::Host(to_device(latents)?))?),
        }
    }

    pub fn jacobian(&self, latents: &[T]) -> Result<Vec<T>> {
        match self {
            Self::Cpu(model) => Ok(model.jacobian(latents)),
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Self::Cuda { model, .. } => from_device(model.jacobian(Latents::Host(to_device(latents)?))?),
        }
    }

    pub fn metric(&self, latents: &[T]) -> Result<Vec<T>> {
        match self {
            Self::Cpu(model) => Ok(model.metric(latents)),
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Self::Cuda { model, .. } => from_device(model.metric(Latents::Host(to_device(latents)?))?),
        }
    }

    /// Eigenvalues `[P, d]` and eigenvectors `[P, d, d]` of the metrics.
    pub fn spectrum(&self, latents: &[T]) -> Result<[Vec<T>; 2]> {
        let d = self.latent_dim();
        #[cfg(any(feature = "cuda", feature = "emulator"))]
        if let Self::Cuda { model, .. } = self {
            let ask = |latents: &[T]| model.spectrum(to_device(latents)?)?.map(from_device).transpose();
            if let Some(found) = by_columns((latents, d), [d, d * d], ask)? {
                return Ok(found);
            }
        }
        self.on_metrics([(latents, d)], [d, d * d], |metrics, _, [values, vectors]| {
            spectra(d, metrics, values, vectors);
        })
    }

    /// The metrics without eigenvalues that are not above the threshold times the largest, `[P, d, d]`, and how many are, `[P]`.
    pub fn truncated_metric(&self, latents: &[T], threshold: T) -> Result<[Vec<T>; 2]> {
        let d = self.latent_dim();
        #[cfg(any(feature = "cuda", feature = "emulator"))]
        if let Self::Cuda { model, .. } = self {
            let least = threshold.to_f64() as f32;
            let ask = |latents: &[T]| model.truncated_metric(to_device(latents)?, least)?.map(from_device).transpose();
            if let Some(found) = by_columns((latents, d), [d * d, 1], ask)? {
                return Ok(found);
            }
        }
        self.on_metrics([(latents, d)], [d * d, 1], |metrics, _, [out, ranks]| {
            truncate(d, metrics, threshold, out, ranks);
        })
    }

    /// What `measure` makes of log det G at every point.
    pub fn log_det(&self, latents: &[T], measure: fn(f64) -> f64) -> Result<Vec<T>> {
        let d = self.latent_dim();
        #[cfg(any(feature = "cuda", feature = "emulator"))]
        if let Self::Cuda { model, .. } = self
            && let Some(found) = model.log_det(to_device(latents)?)?
        {
            let mut out: Vec<T> = found.into_iter().map(|x| T::from_f64(measure(x))).collect();
            spoil([(latents, d)], [1], [&mut out]);
            return Ok(out);
        }
        let [out] = self.on_metrics([(latents, d)], [1], |metrics, _, [out]| {
            log_dets(d, metrics, |point, log_det| out[point] = T::from_f64(measure(log_det)));
        })?;
        Ok(out)
    }

    pub fn adjoint_hessian(&self, latents: &[T], adjoints: &[T]) -> Result<Vec<T>> {
        match self {
            Self::Cpu(model) => Ok(model.adjoint_hessian(latents, adjoints)),
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Self::Cuda { model, .. } => from_device(model.adjoint_hessian(to_device(latents)?, to_device(adjoints)?)?),
        }
    }

    /// J v.
    pub fn push_forward(&self, latents: &[T], vectors: &[T]) -> Result<Vec<T>> {
        match self {
            Self::Cpu(model) => Ok(model.push_forward(latents, vectors)),
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Self::Cuda { model, dims } => {
                let pushed = model.push_forward(to_device(latents)?, to_device(vectors)?)?;
                let inputs = [(latents, dims.latent), (vectors, dims.latent)];
                Ok(or_nan(inputs, dims.data, from_device(pushed)?))
            }
        }
    }

    /// Jᵀ w.
    pub fn pull_back(&self, latents: &[T], covectors: &[T]) -> Result<Vec<T>> {
        match self {
            Self::Cpu(model) => Ok(model.pull_back(latents, covectors)),
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Self::Cuda { model, dims } => {
                let pulled = model.pull_back(to_device(latents)?, to_device(covectors)?)?;
                let inputs = [(latents, dims.latent), (covectors, dims.data)];
                Ok(or_nan(inputs, dims.latent, from_device(pulled)?))
            }
        }
    }

    /// What `measure` makes of the square ⟨u, u⟩ at every point.
    pub fn square(&self, latents: &[T], u: &[T], measure: fn(f64) -> f64) -> Result<Vec<T>> {
        match self {
            Self::Cpu(model) if model.is_euclidean() => Ok(model.square(latents, u, measure)),
            _ => self.pair_by_metric(latents, [u, u], |pair| measure(pair.uu)),
        }
    }

    /// What `measure` makes of the inner products of u and v at every point.
    pub fn pair(&self, latents: &[T], [u, v]: [&[T]; 2], measure: fn(&Pair) -> f64) -> Result<Vec<T>> {
        match self {
            Self::Cpu(model) if model.is_euclidean() => Ok(model.pair(latents, u, v, measure)),
            _ => self.pair_by_metric(latents, [u, v], measure),
        }
    }

    /// Runs `compute` on the metrics `[points, d, d]` of chunks of points, which are its to overwrite, and on the chunks' rows of the inputs,
    /// the first of which are the latents.
    pub fn on_metrics<const I: usize, const O: usize>(
        &self,
        inputs: [(&[T], usize); I],
        widths: [usize; O],
        compute: impl Fn(&mut [T], [&[T]; I], [&mut [T]; O]) + Sync + Send,
    ) -> Result<[Vec<T>; O]> {
        match self {
            Self::Cpu(model) => Ok(model.on_metrics(inputs, widths, compute)),
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Self::Cuda { dims, .. } => {
                in_pieces(dims.latent * dims.latent, inputs, widths, |rows| self.metric(rows[0]), compute)
            }
        }
    }

    /// The same on Jacobian columns `[points, d, D]`.
    pub fn on_jacobians<const I: usize, const O: usize>(
        &self,
        inputs: [(&[T], usize); I],
        widths: [usize; O],
        compute: impl Fn(&mut [T], [&[T]; I], [&mut [T]; O]) + Sync + Send,
    ) -> Result<[Vec<T>; O]> {
        match self {
            Self::Cpu(model) => Ok(model.on_jacobians(inputs, widths, compute)),
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Self::Cuda { dims, .. } => in_pieces(dims.size(), inputs, widths, |rows| self.jacobian(rows[0]), compute),
        }
    }

    pub fn latent_dim(&self) -> usize {
        match self {
            Self::Cpu(model) => model.latent_dim(),
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Self::Cuda { dims, .. } => dims.latent,
        }
    }

    fn pair_by_metric(
        &self,
        latents: &[T],
        [u, v]: [&[T]; 2],
        measure: impl Fn(&Pair) -> f64 + Sync + Send,
    ) -> Result<Vec<T>> {
        let d = self.latent_dim();
        let [out] = self.on_metrics([(latents, d), (u, d), (v, d)], [1], |metrics, [_, u, v], [out]| {
            for (((x, metric), u), v) in
                out.iter_mut().zip(metrics.chunks_exact(d * d)).zip(u.chunks_exact(d)).zip(v.chunks_exact(d))
            {
                *x = T::from_f64(measure(&Pair::of_metric(metric, u, v)));
            }
        })?;
        Ok(out)
    }
}

/// Runs `compute` on what `ask` gets from a device, `size` numbers a point, for as many points at once as [`PIECE`] allows.
#[cfg(any(feature = "cuda", feature = "emulator"))]
pub(super) fn in_pieces<T: Scalar, const I: usize, const O: usize>(
    size: usize,
    inputs: [(&[T], usize); I],
    widths: [usize; O],
    ask: impl Fn([&[T]; I]) -> Result<Vec<T>>,
    compute: impl Fn(&mut [T], [&[T]; I], [&mut [T]; O]) + Sync + Send,
) -> Result<[Vec<T>; O]> {
    let (latents, d) = inputs[0];
    let count = latents.len() / d;
    let mut outputs = widths.map(|width| Vec::with_capacity(count * width));
    let step = (PIECE / size).max(1);
    for first in (0..count).step_by(step) {
        let points = step.min(count - first);
        let inputs = inputs.map(|(rows, width)| (&rows[first * width..(first + points) * width], width));
        let asked = ask(inputs.map(|(rows, _)| rows))?;
        let part = over_finite_rows(
            inputs,
            widths,
            chunk(size),
            |_| Vec::new(),
            |room, first, rows, out| {
                room.clear();
                room.extend_from_slice(&asked[first * size..(first + rows[0].len() / d) * size]);
                compute(room, rows, out);
            },
        );
        outputs.iter_mut().zip(part).for_each(|(output, part)| output.extend(part));
    }
    Ok(outputs)
}

/// Parts of rows that `ask` gets from a device, for as many points at once as [`PIECE`] allows; nothing where it gets nothing.
#[cfg(any(feature = "cuda", feature = "emulator"))]
fn by_columns<T: Scalar, const O: usize>(
    (latents, d): (&[T], usize),
    widths: [usize; O],
    ask: impl Fn(&[T]) -> Result<Option<Vec<T>>>,
) -> Result<Option<[Vec<T>; O]>> {
    let width: usize = widths.iter().sum();
    let mut outputs = widths.map(|width| Vec::with_capacity(latents.len() / d * width));
    for latents in latents.chunks((PIECE / width).max(1) * d) {
        let Some(rows) = ask(latents)? else { return Ok(None) };
        for mut row in rows.chunks_exact(width) {
            for (output, width) in outputs.iter_mut().zip(widths) {
                let (part, behind) = row.split_at(width);
                output.extend_from_slice(part);
                row = behind;
            }
        }
    }
    spoil([(latents, d)], widths, outputs.each_mut().map(|output| &mut output[..]));
    Ok(Some(outputs))
}

/// A device's results, NaN where an input is not finite: an activation may have made it finite again.
#[cfg(any(feature = "cuda", feature = "emulator"))]
fn or_nan<T: Scalar, const I: usize>(inputs: [(&[T], usize); I], width: usize, mut out: Vec<T>) -> Vec<T> {
    spoil(inputs, [width], [&mut out]);
    out
}

/// The numbers of a model on a CUDA device, which are `f32` there: see [`Model::on_cuda`](super::Model::on_cuda).
#[cfg(any(feature = "cuda", feature = "emulator"))]
pub(super) fn to_device<T: Scalar>(numbers: &[T]) -> Result<&[f32]> {
    bytemuck::try_cast_slice(numbers).map_err(|e| Error::Device(e.to_string()))
}

#[cfg(any(feature = "cuda", feature = "emulator"))]
pub(super) fn from_device<T: Scalar>(numbers: Vec<f32>) -> Result<Vec<T>> {
    bytemuck::try_cast_vec(numbers).map_err(|(e, _)| Error::Device(e.to_string()))
}
