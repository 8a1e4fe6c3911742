//! A decoder on the processor: every operation over many points, on all threads.

use rayon::prelude::*;

use super::backend::CpuBackend;
use super::decode::{DecodeScratch, decode, store};
use super::energy::{AdjointScratch, adjoint_hessians, chord_sums};
use super::gaussian;
use super::gram::add_gram;
use super::jacobian::{JacobianScratch, jacobians};
use super::network::Network;
use super::rows::{chunk, over_finite_rows, over_rows};
use crate::decoder::{Decoder, Geometry};
use crate::error::Result;
use crate::geodesic::backend::{Backend, Initial};
use crate::geodesic::jobs::{Jobs, Solved};
use crate::geodesic::policy::Policy;
use crate::scalar::Scalar;

/// A decoder's weights in the processor's memory.
pub(crate) struct CpuModel<T> {
    /// The decoder as it is: for values and Jacobians.
    pub(super) original: Network<T>,
    /// The same up to a rigid motion of the data space: for everything that is geometry.
    pub(super) compressed: Network<T>,
}

impl<T: Scalar> CpuModel<T> {
    pub fn new(decoder: &Decoder) -> Self {
        Self { original: Network::new(decoder), compressed: Network::new(&decoder.normalised()) }
    }

    /// True where the metric is the Gram matrix of the Jacobian that is at hand.
    pub fn is_euclidean(&self) -> bool {
        self.compressed.geometry != Geometry::Gaussian
    }

    /// d.
    pub fn latent_dim(&self) -> usize {
        self.original.latent_dim
    }

    /// `[P, d]` to `[P, D]`.
    pub fn decode(&self, latents: &[T]) -> Vec<T> {
        let network = &self.original;
        by_chunks(
            (latents, network.latent_dim),
            network.data_dim,
            chunk(2 * network.widest),
            |rows| DecodeScratch::new(network, rows),
            |scratch, latents, out| decode(network, latents, out, scratch),
        )
    }

    /// `[P, d]` to `[P, d, D]`.
    pub fn jacobian(&self, latents: &[T]) -> Vec<T> {
        let network = &self.original;
        let (d, width) = (network.latent_dim, network.data_dim);
        by_chunks(
            (latents, d),
            d * width,
            jacobian_chunk(network),
            |rows| JacobianScratch::new(network, rows),
            |scratch, latents, out| {
                jacobians(network, latents, scratch, |chain, _, tangents| store(network, chain, tangents, out));
            },
        )
    }

    /// `[P, d]` to `[P, d, d]`.
    pub fn metric(&self, latents: &[T]) -> Vec<T> {
        let network = &self.compressed;
        let d = network.latent_dim;
        by_chunks(
            (latents, d),
            d * d,
            jacobian_chunk(network),
            |rows| JacobianScratch::new(network, rows),
            |scratch, latents, out| {
                add_metrics(network, latents, scratch, out);
            },
        )
    }

    /// Latents `[P, d]` and adjoints `[P, D]` to `[P, d, d]`.
    pub fn adjoint_hessian(&self, latents: &[T], adjoints: &[T]) -> Vec<T> {
        let network = &self.original;
        let (d, width) = (network.latent_dim, network.data_dim);
        let pairs = latents.chunks_exact(d).zip(adjoints.chunks_exact(width));
        let both: Vec<T> = pairs.flat_map(|(z, w)| z.iter().chain(w).copied()).collect();
        by_chunks(
            (&both, d + width),
            d * d,
            jacobian_chunk(network),
            |rows| AdjointScratch::new(network, rows),
            |scratch, rows, out| adjoint_hessians(network, rows, scratch, out),
        )
    }

    /// Runs `compute` on the metrics `[points, d, d]` of chunks of points, which are its to overwrite, and on the chunks' rows of the inputs,
    /// the first of which are the latents.
    pub fn on_metrics<const I: usize, const O: usize>(
        &self,
        inputs: [(&[T], usize); I],
        widths: [usize; O],
        compute: impl Fn(&mut [T], [&[T]; I], [&mut [T]; O]) + Sync + Send,
    ) -> [Vec<T>; O] {
        let network = &self.compressed;
        let d = network.latent_dim;
        over_finite_rows(
            inputs,
            widths,
            jacobian_chunk(network),
            |points| (JacobianScratch::new(network, points), vec![T::ZERO; points * d * d]),
            |(scratch, metrics), _, inputs, out| {
                let metrics = &mut metrics[..inputs[0].len() * d];
                metrics.fill(T::ZERO);
                add_metrics(network, inputs[0], scratch, metrics);
                compute(metrics, inputs, out);
            },
        )
    }

    /// The same on Jacobian columns `[points, d, D]`.
    pub fn on_jacobians<const I: usize, const O: usize>(
        &self,
        inputs: [(&[T], usize); I],
        widths: [usize; O],
        compute: impl Fn(&mut [T], [&[T]; I], [&mut [T]; O]) + Sync + Send,
    ) -> [Vec<T>; O] {
        let network = &self.original;
        let width = network.data_dim;
        over_finite_rows(
            inputs,
            widths,
            jacobian_chunk(network),
            |points| (JacobianScratch::new(network, points), vec![T::ZERO; points * network.latent_dim * width]),
            |(scratch, columns), _, inputs, out| {
                let columns = &mut columns[..inputs[0].len() * width];
                jacobians(network, inputs[0], scratch, |chain, _, tangents| store(network, chain, tangents, columns));
                compute(columns, inputs, out);
            },
        )
    }

    /// Curves `[C, points, d]` to Σ ‖f_{i+1} − f_i‖² and Σ ‖f_{i+1} − f_i‖, `[C]`.
    pub fn chord_sums(&self, curves: &[T], points: usize) -> Vec<(f64, f64)> {
        let network = &self.compressed;
        curves
            .par_chunks(points * network.latent_dim)
            .map_init(
                || (DecodeScratch::new(network, points), vec![T::ZERO; points * network.data_dim]),
                |(scratch, values), curve| {
                    decode(network, curve, values, scratch);
                    chord_sums(network, values)
                },
            )
            .collect()
    }

    /// Solves all curves, each thread a batch of its own.
    pub fn solve(&self, jobs: &Jobs<'_, T>, grids: &[usize], policy: Policy) -> Result<Vec<Solved<T>>> {
        let threads = rayon::current_num_threads().min(jobs.count());
        (0..threads).into_par_iter().map(|_| jobs.work(&mut CpuBackend::new(&self.compressed, grids, policy))).collect()
    }

    /// One pass of the solver over straight lines of so many segments, each thread with its share: for measurements.
    pub fn pass(&self, starts: &[T], ends: &[T], segments: usize, policy: Policy, newton: bool) -> Result<()> {
        let d = self.latent_dim();
        let each = (starts.len() / d).div_ceil(rayon::current_num_threads()).max(1) * d;
        starts.par_chunks(each).zip(ends.par_chunks(each)).try_for_each(|(starts, ends)| {
            let mut backend = CpuBackend::new(&self.compressed, &[segments], policy);
            let pairs: Vec<_> = starts.chunks_exact(d).zip(ends.chunks_exact(d)).collect();
            for pairs in pairs.chunks(backend.free().max(1)) {
                for (job, (start, end)) in pairs.iter().enumerate() {
                    backend.admit(job, Initial::Line(start, end))?;
                }
                backend.pass(newton)?;
            }
            Ok(())
        })
    }
}

/// Points of a chunk with its Jacobians.
fn jacobian_chunk<T: Scalar>(network: &Network<T>) -> usize {
    let layers: usize = network.layers().map(|l| l.outputs).sum();
    chunk((network.latent_dim + 2) * (layers + 2 * network.widest))
}

/// [`over_rows`] of one array, to another one.
fn by_chunks<T: Scalar, S>(
    rows: (&[T], usize),
    width: usize,
    most: usize,
    scratch: impl Fn(usize) -> S + Sync + Send,
    compute: impl Fn(&mut S, &[T], &mut [T]) + Sync + Send,
) -> Vec<T> {
    let [out] = over_rows([rows], [width], most, scratch, |scratch, _, [rows], [out]| compute(scratch, rows, out));
    out
}

/// G at `latents` `[points, d]`, added to `metrics` `[points, d, d]`.
fn add_metrics<T: Scalar>(network: &Network<T>, latents: &[T], scratch: &mut JacobianScratch<T>, metrics: &mut [T]) {
    let d = network.latent_dim;
    jacobians(network, latents, scratch, |chain, values, tangents| {
        if let Some(is_std) = network.is_std(chain) {
            gaussian::normalise(d, chain.outputs(), network.data_dim, is_std, values, tangents);
        }
        add_gram(chain.outputs(), d, tangents, metrics);
    });
}
