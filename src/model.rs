//! A decoder on a device: everything that can be computed with it.

mod soften;

use std::ops::ControlFlow;
use std::sync::OnceLock;
#[cfg(any(feature = "cuda", feature = "emulator"))]
use std::{any::TypeId, sync::Arc};

use ndarray::{Array1, Array2, Array3, ArrayView2, ArrayView3, Axis};

use crate::cpu::model::CpuModel;
#[cfg(any(feature = "cuda", feature = "emulator"))]
use crate::cuda::{
    array::DeviceArray,
    backend::Pairs,
    model::{CudaModel, Latents},
    platform::Platform,
};
use crate::decoder::Decoder;
use crate::error::{Error, Result};
use crate::geodesic::backend::Initial;
use crate::geodesic::jobs::Jobs;
use crate::geodesic::{Geodesics, Options};
use crate::precision::Precision;
use crate::scalar::Scalar;

/// A decoder's weights on a device. Shared freely between threads.
pub struct Model<T = f32> {
    decoder: Decoder,
    engine: Engine<T>,
    /// Of a decoder with kinks, smooth neighbours, made when geodesics are first asked for.
    softened: OnceLock<Vec<Model<T>>>,
}

enum Engine<T> {
    Cpu(CpuModel<T>),
    /// Only where `T` is `f32`.
    #[cfg(any(feature = "cuda", feature = "emulator"))]
    Cuda(Box<CudaModel>),
}

/// Chord energies and lengths of curves.
#[derive(Clone, Debug, PartialEq)]
pub struct Energies<T> {
    /// N/2 · Σ ‖f(z_{i+1}) − f(z_i)‖², `[C]`.
    pub energy: Array1<T>,
    /// Σ ‖f(z_{i+1}) − f(z_i)‖, `[C]`.
    pub length: Array1<T>,
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
        let model = CudaModel::new(platform, decoder, precision)?;
        Ok(Self { decoder: decoder.clone(), engine: Engine::Cuda(Box::new(model)), softened: OnceLock::new() })
    }

    /// Seconds that values, Jacobians, metrics and the like have spent in kernels so far, transfers not counted; `None` on the processor.
    #[doc(hidden)] // for the benches
    pub fn kernel_seconds(&self) -> Option<f64> {
        match &self.engine {
            Engine::Cpu(_) => None,
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Engine::Cuda(model) => Some(model.kernel_seconds()),
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
            Engine::Cuda(model) => model.precision(),
        }
    }

    /// Values f(z): latents `[P, d]` to `[P, D]`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the latents' width is not d.
    pub fn decode(&self, latents: ArrayView2<'_, T>) -> Result<Array2<T>> {
        self.check_width("latents", latents.ncols())?;
        let rows = latents.as_standard_layout();
        let rows = rows.as_slice().unwrap_or_default();
        let values = match &self.engine {
            Engine::Cpu(model) => model.decode(rows),
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Engine::Cuda(model) => from_device(model.decode(Latents::Host(to_device(rows)?))?)?,
        };
        Ok(array2(latents.nrows(), self.decoder.data_dim(), values))
    }

    /// Jacobian columns: latents `[P, d]` to `[P, d, D]`, where row k of a point is ∂f/∂z_k.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the latents' width is not d.
    pub fn jacobian(&self, latents: ArrayView2<'_, T>) -> Result<Array3<T>> {
        self.check_width("latents", latents.ncols())?;
        let rows = latents.as_standard_layout();
        let rows = rows.as_slice().unwrap_or_default();
        let columns = match &self.engine {
            Engine::Cpu(model) => model.jacobian(rows),
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Engine::Cuda(model) => from_device(model.jacobian(Latents::Host(to_device(rows)?))?)?,
        };
        Ok(array3(latents.nrows(), latents.ncols(), self.decoder.data_dim(), columns))
    }

    /// The pullback metric G = JᵀJ: latents `[P, d]` to `[P, d, d]`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the latents' width is not d.
    pub fn metric(&self, latents: ArrayView2<'_, T>) -> Result<Array3<T>> {
        self.check_width("latents", latents.ncols())?;
        let rows = latents.as_standard_layout();
        let rows = rows.as_slice().unwrap_or_default();
        let metrics = match &self.engine {
            Engine::Cpu(model) => model.metric(rows),
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Engine::Cuda(model) => from_device(model.metric(Latents::Host(to_device(rows)?))?)?,
        };
        Ok(array3(latents.nrows(), latents.ncols(), latents.ncols(), metrics))
    }

    /// The volume element √det G: latents `[P, d]` to `[P]`; how much the decoder magnifies volumes there.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the latents' width is not d.
    pub fn volume(&self, latents: ArrayView2<'_, T>) -> Result<Array1<T>> {
        let metrics = self.metric(latents)?;
        let root = |g: ndarray::ArrayView2<'_, T>| {
            let matrix = faer::Mat::from_fn(g.nrows(), g.ncols(), |i, j| g[[i, j]].to_f64());
            let determinant = matrix.determinant();
            // Rounding can make a singular metric's determinant negative; NaN stays NaN.
            T::from_f64(if determinant < 0.0 { 0.0 } else { determinant.sqrt() })
        };
        Ok(metrics.axis_iter(Axis(0)).map(root).collect())
    }

    /// Second derivatives weighted by adjoints, Σ_k w_k ∇²f_k(z): latents `[P, d]` and adjoints `[P, D]` to `[P, d, d]`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the latents' width is not d, or the adjoints are not `[P, D]`.
    pub fn adjoint_hessian(&self, latents: ArrayView2<'_, T>, adjoints: ArrayView2<'_, T>) -> Result<Array3<T>> {
        let width = self.decoder.data_dim();
        if adjoints.dim() != (latents.nrows(), width) {
            return Err(Error::Shape {
                what: "adjoints".into(),
                expected: format!("[{}, {width}]", latents.nrows()),
                found: format!("{:?}", adjoints.shape()),
            });
        }
        self.check_width("latents", latents.ncols())?;
        let (rows, weights) = (latents.as_standard_layout(), adjoints.as_standard_layout());
        let (rows, weights) = (rows.as_slice().unwrap_or_default(), weights.as_slice().unwrap_or_default());
        let blocks = match &self.engine {
            Engine::Cpu(model) => model.adjoint_hessian(rows, weights),
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Engine::Cuda(model) => from_device(model.adjoint_hessian(to_device(rows)?, to_device(weights)?)?)?,
        };
        Ok(array3(latents.nrows(), latents.ncols(), latents.ncols(), blocks))
    }

    /// Chord energies and lengths of given curves `[C, N + 1, d]`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the curves' width is not d or they have fewer than two points.
    pub fn energy(&self, curves: ArrayView3<'_, T>) -> Result<Energies<T>> {
        let (_, points, d) = curves.dim();
        self.check_width("curves", d)?;
        if points < 2 {
            return Err(Error::Shape {
                what: "curves".into(),
                expected: "at least 2 points each".into(),
                found: points.to_string(),
            });
        }
        let curves = curves.as_standard_layout();
        let numbers = curves.as_slice().unwrap_or_default();
        let sums = match &self.engine {
            Engine::Cpu(model) => model.chord_sums(numbers, points),
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Engine::Cuda(model) => model.chord_sums(to_device(numbers)?, points)?,
        };
        let segments = (points - 1) as f64;
        Ok(Energies {
            energy: sums.iter().map(|(e, _)| T::from_f64(0.5 * segments * e)).collect(),
            length: sums.iter().map(|(_, l)| T::from_f64(*l)).collect(),
        })
    }

    /// Geodesics between pairs of latents `[C, d]`, from straight lines.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where starts and ends are not both `[C, d]`; [`Error::NotFinite`] where one of them is NaN or infinite;
    /// [`Error::Option`] where an option is out of its range. Curves that do not converge are no error: see [`Status`](crate::Status).
    pub fn geodesics(
        &self,
        starts: ArrayView2<'_, T>,
        ends: ArrayView2<'_, T>,
        options: &Options,
    ) -> Result<Geodesics<T>> {
        self.geodesics_observed(starts, ends, options, |_, _| ControlFlow::Continue(()))
    }

    /// The same, calling `progress(finished, total)` from time to time, on any thread; `Break` stops the run.
    ///
    /// # Errors
    ///
    /// As [`Model::geodesics`], and [`Error::Cancelled`] where `progress` asked to stop.
    pub fn geodesics_observed(
        &self,
        starts: ArrayView2<'_, T>,
        ends: ArrayView2<'_, T>,
        options: &Options,
        progress: impl Fn(usize, usize) -> ControlFlow<()> + Sync,
    ) -> Result<Geodesics<T>> {
        self.geodesics_timed(starts, ends, options, progress).map(|(geodesics, _)| geodesics)
    }

    /// The same, with the seconds that the device spent in kernels, transfers not counted; `None` on the processor.
    #[doc(hidden)] // for the command and the benches
    pub fn geodesics_timed(
        &self,
        starts: ArrayView2<'_, T>,
        ends: ArrayView2<'_, T>,
        options: &Options,
        progress: impl Fn(usize, usize) -> ControlFlow<()> + Sync,
    ) -> Result<(Geodesics<T>, Option<f64>)> {
        if starts.dim() != ends.dim() {
            return Err(Error::Shape {
                what: "ends".into(),
                expected: format!("{:?}, the shape of starts", starts.shape()),
                found: format!("{:?}", ends.shape()),
            });
        }
        for (what, latents) in [("starts", starts), ("ends", ends)] {
            self.check_width(what, latents.ncols())?;
            check_finite(what, latents)?;
        }
        let (starts, ends) = (starts.as_standard_layout(), ends.as_standard_layout());
        let d = starts.ncols();
        let (from, to) = (starts.as_slice().unwrap_or_default(), ends.as_slice().unwrap_or_default());
        let line = |job: usize| Initial::Line(&from[job * d..(job + 1) * d], &to[job * d..(job + 1) * d]);
        self.solve(starts.nrows(), options, &line, &progress)
    }

    /// [`Model::decode`] of latents that are on the device already, `[P, d]`: nothing is copied there.
    ///
    /// # Errors
    ///
    /// [`Error::Device`] where the model is not on a CUDA device, [`Error::Shape`] where the numbers are no whole rows of d.
    #[cfg(any(feature = "cuda", feature = "emulator"))]
    pub fn decode_on_device(&self, latents: DeviceArray<'_>) -> Result<Array2<T>> {
        let (model, rows) = self.on_device("latents", latents)?;
        let values = from_device(model.decode(Latents::Device(latents.address(), latents.len()))?)?;
        Ok(array2(rows, self.decoder.data_dim(), values))
    }

    /// [`Model::jacobian`] of latents that are on the device already.
    ///
    /// # Errors
    ///
    /// As [`Model::decode_on_device`].
    #[cfg(any(feature = "cuda", feature = "emulator"))]
    pub fn jacobian_on_device(&self, latents: DeviceArray<'_>) -> Result<Array3<T>> {
        let (model, rows) = self.on_device("latents", latents)?;
        let columns = from_device(model.jacobian(Latents::Device(latents.address(), latents.len()))?)?;
        Ok(array3(rows, self.decoder.latent_dim(), self.decoder.data_dim(), columns))
    }

    /// [`Model::metric`] of latents that are on the device already.
    ///
    /// # Errors
    ///
    /// As [`Model::decode_on_device`].
    #[cfg(any(feature = "cuda", feature = "emulator"))]
    pub fn metric_on_device(&self, latents: DeviceArray<'_>) -> Result<Array3<T>> {
        let (model, rows) = self.on_device("latents", latents)?;
        let metrics = from_device(model.metric(Latents::Device(latents.address(), latents.len()))?)?;
        Ok(array3(rows, self.decoder.latent_dim(), self.decoder.latent_dim(), metrics))
    }

    /// [`Model::geodesics`] between pairs of latents that are on the device already. A pair that is not finite ends with
    /// [`Status::NonFinite`](crate::Status::NonFinite).
    ///
    /// # Errors
    ///
    /// As [`Model::decode_on_device`], and [`Error::Option`] where an option is out of its range.
    #[cfg(any(feature = "cuda", feature = "emulator"))]
    pub fn geodesics_on_device(
        &self,
        starts: DeviceArray<'_>,
        ends: DeviceArray<'_>,
        options: &Options,
    ) -> Result<Geodesics<T>> {
        let (_, count) = self.on_device("starts", starts)?;
        self.on_device("ends", ends)?;
        if starts.len() != ends.len() {
            return Err(Error::Shape {
                what: "ends".into(),
                expected: format!("{} numbers, as many as starts", starts.len()),
                found: ends.len().to_string(),
            });
        }
        let pair = |_| Initial::OnDevice(starts.address(), ends.address());
        self.solve(count, options, &pair, &|_, _| ControlFlow::Continue(())).map(|(geodesics, _)| geodesics)
    }

    /// The model, and the number of rows in an array on its device.
    #[cfg(any(feature = "cuda", feature = "emulator"))]
    fn on_device(&self, what: &str, array: DeviceArray<'_>) -> Result<(&CudaModel, usize)> {
        let Engine::Cuda(model) = &self.engine else {
            return Err(Error::Device(format!(
                "{what}: expected a model on a CUDA device, found one on the processor"
            )));
        };
        let d = self.decoder.latent_dim();
        if !array.len().is_multiple_of(d) {
            return Err(Error::Shape {
                what: what.into(),
                expected: format!("rows of {d} numbers, the decoder's latent dimension"),
                found: format!("{} numbers", array.len()),
            });
        }
        Ok((model.as_ref(), array.len() / d))
    }

    /// Geodesics from given initial curves `[C, N + 1, d]`, whose ends stay where they are; `options.segments` must be N.
    ///
    /// # Errors
    ///
    /// As [`Model::geodesics`].
    pub fn geodesics_from(&self, initial: ArrayView3<'_, T>, options: &Options) -> Result<Geodesics<T>> {
        let (count, points, d) = initial.dim();
        self.check_width("initial curves", d)?;
        if points != options.segments.saturating_add(1) {
            return Err(Error::Shape {
                what: "initial curves".into(),
                expected: format!("{} points each, one more than segments", options.segments.saturating_add(1)),
                found: points.to_string(),
            });
        }
        let initial = initial.as_standard_layout();
        let flat = initial.as_slice().unwrap_or_default();
        let rows = ArrayView2::from_shape((count * points, d), flat).map_err(|e| Error::Device(e.to_string()))?;
        check_finite("initial curves", rows)?;
        let curve = |job: usize| Initial::Curve(&flat[job * points * d..(job + 1) * points * d]);
        let options = Options { coarse_to_fine: false, ..options.clone() };
        self.solve(count, &options, &curve, &|_, _| ControlFlow::Continue(())).map(|(geodesics, _)| geodesics)
    }

    /// Loads another decoder where this one is.
    fn beside(&self, decoder: &Decoder) -> Result<Self> {
        match &self.engine {
            Engine::Cpu(_) => Ok(Self::on_cpu(decoder)),
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Engine::Cuda(model) => Self::on_cuda(model.platform(), decoder, model.asked()),
        }
    }

    /// Geodesics, by way of smooth neighbours where the decoder has kinks.
    fn solve<'a>(
        &self,
        count: usize,
        options: &Options,
        initial: &(dyn Fn(usize) -> Initial<'a, T> + Sync),
        progress: &(dyn Fn(usize, usize) -> ControlFlow<()> + Sync),
    ) -> Result<(Geodesics<T>, Option<f64>)> {
        options.check()?;
        if count > 0
            && options.soften_kinks
            && options.max_iterations >= soften::LEAST_ITERATIONS
            && self.decoder.has_kinks()
        {
            soften::solve(self, count, options, initial, progress)
        } else {
            self.solve_once(count, options, initial, progress)
        }
    }

    fn solve_once<'a>(
        &self,
        count: usize,
        options: &Options,
        initial: &(dyn Fn(usize) -> Initial<'a, T> + Sync),
        progress: &(dyn Fn(usize, usize) -> ControlFlow<()> + Sync),
    ) -> Result<(Geodesics<T>, Option<f64>)> {
        let mut geodesics = Geodesics::new(count, options.segments, self.decoder.latent_dim());
        let policy = options.policy::<T>(self.precision());
        let device_seconds = match &self.engine {
            Engine::Cpu(model) => {
                let initial = |job: usize| initial(job);
                let jobs = Jobs::new(count, &initial, progress);
                for solved in model.solve(&jobs, &options.grids(), policy)? {
                    solved.scatter(&mut geodesics);
                }
                jobs.check()?;
                None
            }
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Engine::Cuda(model) => {
                let initial = |job: usize| match initial(job) {
                    Initial::Line(start, end) => Initial::Line(bytemuck::cast_slice(start), bytemuck::cast_slice(end)),
                    Initial::Curve(points) => Initial::Curve(bytemuck::cast_slice(points)),
                    Initial::OnDevice(starts, ends) => Initial::OnDevice(starts, ends),
                };
                let jobs = Jobs::new(count, &initial, progress);
                let mut seconds = 0.0;
                if count > 0 {
                    let pairs = match initial(0) {
                        Initial::Line(..) => Pairs::Lines,
                        Initial::Curve(_) => Pairs::Curves,
                        Initial::OnDevice(starts, ends) => Pairs::OnDevice(starts, ends),
                    };
                    // A curve that was given is near a geodesic as a rule: a start in low precision would only lead it away.
                    let starts_low = self.precision() == Precision::Mixed && !matches!(pairs, Pairs::Curves);
                    let mut backend = model.backend(&options.stages(starts_low), &policy, count, pairs)?;
                    jobs.work(&mut backend)?.scatter(&mut geodesics);
                    seconds = backend.device_seconds();
                }
                jobs.check()?;
                Some(seconds)
            }
        };
        Ok((geodesics, device_seconds))
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

/// The numbers of a model on a CUDA device, which are `f32` there: see [`Model::on_cuda`].
#[cfg(any(feature = "cuda", feature = "emulator"))]
fn to_device<T: Scalar>(numbers: &[T]) -> Result<&[f32]> {
    bytemuck::try_cast_slice(numbers).map_err(|e| Error::Device(e.to_string()))
}

#[cfg(any(feature = "cuda", feature = "emulator"))]
fn from_device<T: Scalar>(numbers: Vec<f32>) -> Result<Vec<T>> {
    bytemuck::try_cast_vec(numbers).map_err(|(e, _)| Error::Device(e.to_string()))
}

fn check_finite<T: Scalar>(what: &str, rows: ArrayView2<'_, T>) -> Result<()> {
    match rows.indexed_iter().find(|(_, v)| !v.finite()) {
        Some(((row, column), &value)) => {
            Err(Error::NotFinite { what: what.into(), row, column, value: value.to_f64() })
        }
        None => Ok(()),
    }
}

fn array2<T: Scalar>(rows: usize, columns: usize, numbers: Vec<T>) -> Array2<T> {
    Array2::from_shape_vec((rows, columns), numbers).unwrap_or_else(|_| Array2::from_elem((rows, columns), T::ZERO))
}

fn array3<T: Scalar>(a: usize, b: usize, c: usize, numbers: Vec<T>) -> Array3<T> {
    Array3::from_shape_vec((a, b, c), numbers).unwrap_or_else(|_| Array3::from_elem((a, b, c), T::ZERO))
}
