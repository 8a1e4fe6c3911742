//! Operations over whole curves: energies, and geodesics.

use std::ops::ControlFlow;

use ndarray::{Array1, ArrayView2, ArrayView3};

use super::engine::Engine;
#[cfg(any(feature = "cuda", feature = "emulator"))]
use super::engine::to_device;
use super::soften;
use super::{Model, check_finite};
use crate::error::{Error, Result};
use crate::geodesic::backend::Initial;
use crate::geodesic::jobs::Jobs;
use crate::geodesic::{Geodesics, Options};
use crate::scalar::Scalar;
#[cfg(any(feature = "cuda", feature = "emulator"))]
use crate::{cuda::backend::Pairs, precision::Precision};

/// Chord energies and lengths of curves.
#[derive(Clone, Debug, PartialEq)]
pub struct Energies<T> {
    /// N/2 · Σ ‖f(z_{i+1}) − f(z_i)‖², `[C]`.
    pub energy: Array1<T>,
    /// Σ ‖f(z_{i+1}) − f(z_i)‖, `[C]`.
    pub length: Array1<T>,
}

impl<T: Scalar> Model<T> {
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
            Engine::Cuda { model, .. } => model.chord_sums(to_device(numbers)?, points)?,
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
        self.check_pairs(starts, ends)?;
        let (starts, ends) = (starts.as_standard_layout(), ends.as_standard_layout());
        let d = starts.ncols();
        let (from, to) = (starts.as_slice().unwrap_or_default(), ends.as_slice().unwrap_or_default());
        let line = |job: usize| Initial::Line(&from[job * d..(job + 1) * d], &to[job * d..(job + 1) * d]);
        self.solve(starts.nrows(), options, &line, &progress)
    }

    /// One pass of the solver over straight lines: values with derivatives, gradient and blocks of the Hessian (the full one where
    /// `newton` says so, otherwise Gauss and Newton's), and one block-tridiagonal solve. False on a device, where passes are not
    /// computed alone, and nothing was done.
    ///
    /// # Errors
    ///
    /// As [`Model::geodesics`].
    #[doc(hidden)] // for the command and the benches
    pub fn pass(
        &self,
        starts: ArrayView2<'_, T>,
        ends: ArrayView2<'_, T>,
        options: &Options,
        newton: bool,
    ) -> Result<bool> {
        options.check()?;
        self.check_pairs(starts, ends)?;
        #[allow(irrefutable_let_patterns)] // without a CUDA path there is the processor alone
        let Engine::Cpu(model) = &self.engine else { return Ok(false) };
        let (starts, ends) = (starts.as_standard_layout(), ends.as_standard_layout());
        let (from, to) = (starts.as_slice().unwrap_or_default(), ends.as_slice().unwrap_or_default());
        model.pass(from, to, options.segments, options.policy::<T>(self.precision()), newton)?;
        Ok(true)
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

    fn check_pairs(&self, starts: ArrayView2<'_, T>, ends: ArrayView2<'_, T>) -> Result<()> {
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
        Ok(())
    }

    /// Geodesics, by way of smooth neighbours where the decoder has kinks.
    pub(super) fn solve<'a>(
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

    pub(super) fn solve_once<'a>(
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
            Engine::Cuda { model, .. } => {
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
}
