//! A decoder on a device: everything that can be computed with it.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ndarray::{Array1, Array2, Array3, ArrayView2, ArrayView3, Axis, s};
use rayon::prelude::*;

use crate::cpu::backend::CpuBackend;
use crate::cpu::decode::{DecodeScratch, decode};
use crate::cpu::energy::{AdjointScratch, adjoint_hessians};
use crate::cpu::gram::{add_gram, chord_sums};
use crate::cpu::jacobian::{JacobianScratch, jacobians};
use crate::cpu::network::Network;
use crate::decoder::Decoder;
use crate::error::{Error, Result};
use crate::geodesic::backend::{Backend, Finished, drive};
use crate::geodesic::initial::straight_line;
use crate::geodesic::{Geodesics, Options, Status};
use crate::scalar::Scalar;

/// Points that one thread computes before it takes others.
const CHUNK: usize = 256;

/// A decoder's weights on a device. Shared freely between threads.
pub struct Model<T = f32> {
    decoder: Decoder,
    /// The decoder as it is: for values and Jacobians.
    original: Network<T>,
    /// The same up to a rigid motion of the data space: for everything that is geometry.
    compressed: Network<T>,
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
    pub(crate) fn new(decoder: &Decoder) -> Self {
        Self {
            decoder: decoder.clone(),
            original: Network::new(decoder),
            compressed: Network::new(&decoder.compressed()),
        }
    }

    /// The decoder that was loaded.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// Values f(z): latents `[P, d]` to `[P, D]`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the latents' width is not d.
    pub fn decode(&self, latents: ArrayView2<'_, T>) -> Result<Array2<T>> {
        let width = self.original.data_dim;
        let values = self.by_chunks(
            latents,
            width,
            |rows| DecodeScratch::new(&self.original, rows),
            |scratch, latents, out| {
                decode(&self.original, latents, out, scratch);
            },
        )?;
        Ok(array2(latents.nrows(), width, values))
    }

    /// Jacobian columns: latents `[P, d]` to `[P, d, D]`, where row k of a point is ∂f/∂z_k.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the latents' width is not d.
    pub fn jacobian(&self, latents: ArrayView2<'_, T>) -> Result<Array3<T>> {
        let (d, width) = (self.original.latent_dim, self.original.data_dim);
        let columns = self.by_chunks(
            latents,
            d * width,
            |rows| JacobianScratch::new(&self.original, rows),
            |scratch, latents, out| {
                jacobians(&self.original, latents, scratch, |chain, tangents| {
                    let (outputs, offset) = (chain.outputs(), chain.output_offset);
                    for (from, to) in tangents.chunks_exact(outputs).zip(out.chunks_exact_mut(width)) {
                        to[offset..offset + outputs].copy_from_slice(from);
                    }
                });
            },
        )?;
        Ok(array3(latents.nrows(), d, width, columns))
    }

    /// The pullback metric G = JᵀJ: latents `[P, d]` to `[P, d, d]`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the latents' width is not d.
    pub fn metric(&self, latents: ArrayView2<'_, T>) -> Result<Array3<T>> {
        let network = &self.compressed;
        let d = network.latent_dim;
        let metrics = self.by_chunks(
            latents,
            d * d,
            |rows| JacobianScratch::new(network, rows),
            |scratch, latents, out| {
                jacobians(network, latents, scratch, |chain, tangents| {
                    add_gram(chain.outputs(), d, tangents, out);
                });
            },
        )?;
        Ok(array3(latents.nrows(), d, d, metrics))
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
        let network = &self.original;
        let (d, width) = (network.latent_dim, network.data_dim);
        if adjoints.dim() != (latents.nrows(), width) {
            return Err(Error::Shape {
                what: "adjoints".into(),
                expected: format!("[{}, {width}]", latents.nrows()),
                found: format!("{:?}", adjoints.shape()),
            });
        }
        self.check_width("latents", latents.ncols())?;
        let mut both = Array2::from_elem((latents.nrows(), d + width), T::ZERO);
        both.slice_mut(s![.., ..d]).assign(&latents);
        both.slice_mut(s![.., d..]).assign(&adjoints);
        let blocks = by_chunks(
            both.view(),
            d * d,
            |rows| AdjointScratch::new(network, rows),
            |scratch, rows, out| {
                adjoint_hessians(network, rows, scratch, out);
            },
        );
        Ok(array3(latents.nrows(), d, d, blocks))
    }

    /// Chord energies and lengths of given curves `[C, N + 1, d]`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the curves' width is not d or they have fewer than two points.
    pub fn energy(&self, curves: ArrayView3<'_, T>) -> Result<Energies<T>> {
        let (count, points, d) = curves.dim();
        self.check_width("curves", d)?;
        if points < 2 {
            return Err(Error::Shape {
                what: "curves".into(),
                expected: "at least 2 points each".into(),
                found: points.to_string(),
            });
        }
        let network = &self.compressed;
        let curves = curves.as_standard_layout();
        let curves = curves.as_slice().unwrap_or_default();
        let sums: Vec<(f64, f64)> = curves
            .par_chunks(points * d)
            .map_init(
                || (DecodeScratch::new(network, points), vec![T::ZERO; points * network.data_dim]),
                |(scratch, values), curve| {
                    decode(network, curve, values, scratch);
                    chord_sums(network.data_dim, values)
                },
            )
            .collect();
        let segments = (points - 1) as f64;
        debug_assert_eq!(sums.len(), count);
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
    /// [`Error::Option`] where an option is out of its range. Curves that do not converge are no error: see [`Status`].
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
        let d = self.compressed.latent_dim;
        let (from, to) = (starts.as_slice().unwrap_or_default(), ends.as_slice().unwrap_or_default());
        let initial = |job: usize, points: &mut [T]| {
            straight_line(&from[job * d..(job + 1) * d], &to[job * d..(job + 1) * d], points);
        };
        self.solve(starts.nrows(), options, initial, progress)
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
        let copy = |job: usize, out: &mut [T]| out.copy_from_slice(&flat[job * points * d..(job + 1) * points * d]);
        self.solve(count, &Options { coarse_to_fine: false, ..options.clone() }, copy, |_, _| ControlFlow::Continue(()))
    }

    fn solve(
        &self,
        count: usize,
        options: &Options,
        initial: impl Fn(usize, &mut [T]) + Sync,
        progress: impl Fn(usize, usize) -> ControlFlow<()> + Sync,
    ) -> Result<Geodesics<T>> {
        options.check()?;
        let d = self.compressed.latent_dim;
        let (grids, policy) = (options.grids(), options.policy::<T>());
        let (taken, done, stop) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
        let threads = rayon::current_num_threads().min(count);
        let workers: Vec<Result<Batch<T>>> = (0..threads)
            .into_par_iter()
            .map(|_| {
                let mut batch = Batch::default();
                let mut backend = CpuBackend::new(&self.compressed, &grids, policy);
                let mut points = vec![T::ZERO; (options.segments + 1) * d];
                let next = |backend: &mut CpuBackend<'_, T>| {
                    let cancelled = stop.load(Ordering::Relaxed);
                    let job = if cancelled { count } else { taken.fetch_add(1, Ordering::Relaxed) };
                    if job < count {
                        initial(job, &mut points);
                        backend.admit(job, &points)?;
                    }
                    Ok(job < count)
                };
                drive(&mut backend, next, |curve| {
                    batch.push(&curve);
                    let finished = 1 + done.fetch_add(1, Ordering::Relaxed);
                    if progress(finished, count).is_break() {
                        stop.store(true, Ordering::Relaxed);
                    }
                })?;
                Ok(batch)
            })
            .collect();
        let mut geodesics = Geodesics::new(count, options.segments, d);
        for batch in workers {
            batch?.scatter(&mut geodesics);
        }
        if stop.into_inner() {
            return Err(Error::Cancelled { finished: done.into_inner(), total: count });
        }
        Ok(geodesics)
    }

    fn check_width(&self, what: &str, width: usize) -> Result<()> {
        let d = self.original.latent_dim;
        if width == d {
            return Ok(());
        }
        Err(Error::Shape {
            what: what.into(),
            expected: format!("latents of dimension {d}, the decoder's"),
            found: width.to_string(),
        })
    }

    /// Runs `compute` over chunks of latents on all threads, each with its own scratch; `width` numbers come out for every row.
    fn by_chunks<S>(
        &self,
        latents: ArrayView2<'_, T>,
        width: usize,
        scratch: impl Fn(usize) -> S + Sync + Send,
        compute: impl Fn(&mut S, &[T], &mut [T]) + Sync + Send,
    ) -> Result<Vec<T>> {
        self.check_width("latents", latents.ncols())?;
        Ok(by_chunks(latents, width, scratch, compute))
    }
}

fn by_chunks<T: Scalar, S>(
    rows: ArrayView2<'_, T>,
    width: usize,
    scratch: impl Fn(usize) -> S + Sync + Send,
    compute: impl Fn(&mut S, &[T], &mut [T]) + Sync + Send,
) -> Vec<T> {
    let (count, columns) = rows.dim();
    let rows = rows.as_standard_layout();
    let rows = rows.as_slice().unwrap_or_default();
    let mut out = vec![T::ZERO; count * width];
    let chunk = CHUNK.min(count.div_ceil(rayon::current_num_threads()).max(1));
    rows.par_chunks(chunk * columns)
        .zip(out.par_chunks_mut(chunk * width))
        .for_each_init(|| scratch(chunk), |scratch, (rows, out)| compute(scratch, rows, out));
    out
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

/// What one worker finished, in the order in which it did.
struct Batch<T> {
    jobs: Vec<usize>,
    points: Vec<T>,
    numbers: Vec<[T; 3]>,
    iterations: Vec<u32>,
    status: Vec<Status>,
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Self { jobs: Vec::new(), points: Vec::new(), numbers: Vec::new(), iterations: Vec::new(), status: Vec::new() }
    }
}

impl<T: Scalar> Batch<T> {
    fn push(&mut self, curve: &Finished<'_, T>) {
        self.jobs.push(curve.job);
        self.points.extend_from_slice(curve.points);
        self.numbers.push([curve.energy, curve.length, curve.gradient_norm].map(T::from_f64));
        self.iterations.push(curve.iterations);
        self.status.push(curve.status);
    }

    fn scatter(self, to: &mut Geodesics<T>) {
        let (_, points, d) = to.curves.dim();
        for (k, (&job, curve)) in self.jobs.iter().zip(self.points.chunks_exact(points * d)).enumerate() {
            let mut target = to.curves.index_axis_mut(Axis(0), job);
            for (to, &from) in target.iter_mut().zip(curve) {
                *to = from;
            }
            [to.energy[job], to.length[job], to.gradient_norm[job]] = self.numbers[k];
            to.iterations[job] = self.iterations[k];
            to.status[job] = self.status[k];
        }
    }
}
