//! A decoder on the processor: every operation over many points, on all threads.

use rayon::prelude::*;

use super::backend::CpuBackend;
use super::decode::{DecodeScratch, decode};
use super::energy::{AdjointScratch, adjoint_hessians, chord_sums};
use super::gaussian;
use super::gram::add_gram;
use super::jacobian::{JacobianScratch, jacobians};
use super::network::Network;
use crate::decoder::Decoder;
use crate::error::Result;
use crate::geodesic::jobs::{Jobs, Solved};
use crate::geodesic::policy::Policy;
use crate::scalar::Scalar;

/// Points that one thread computes before it takes others.
const CHUNK: usize = 256;

/// A decoder's weights in the processor's memory.
pub(crate) struct CpuModel<T> {
    /// The decoder as it is: for values and Jacobians.
    original: Network<T>,
    /// The same up to a rigid motion of the data space: for everything that is geometry.
    compressed: Network<T>,
}

impl<T: Scalar> CpuModel<T> {
    pub fn new(decoder: &Decoder) -> Self {
        Self { original: Network::new(decoder), compressed: Network::new(&decoder.normalised()) }
    }

    /// `[P, d]` to `[P, D]`.
    pub fn decode(&self, latents: &[T]) -> Vec<T> {
        let network = &self.original;
        by_chunks(
            (latents, network.latent_dim),
            network.data_dim,
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
            |rows| JacobianScratch::new(network, rows),
            |scratch, latents, out| {
                jacobians(network, latents, scratch, |chain, _, tangents| {
                    let (outputs, offset) = (chain.outputs(), chain.output_offset);
                    for (from, to) in tangents.chunks_exact(outputs).zip(out.chunks_exact_mut(width)) {
                        to[offset..offset + outputs].copy_from_slice(from);
                    }
                });
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
            |rows| JacobianScratch::new(network, rows),
            |scratch, latents, out| {
                jacobians(network, latents, scratch, |chain, values, tangents| {
                    if let Some(is_std) = network.is_std(chain) {
                        gaussian::normalise(d, chain.outputs(), network.data_dim, is_std, values, tangents);
                    }
                    add_gram(chain.outputs(), d, tangents, out);
                });
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
            |rows| AdjointScratch::new(network, rows),
            |scratch, rows, out| adjoint_hessians(network, rows, scratch, out),
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
}

/// Runs `compute` over chunks of rows of `columns` numbers on all threads, each with its own scratch; `width` numbers come out for
/// every row.
fn by_chunks<T: Scalar, S>(
    (rows, columns): (&[T], usize),
    width: usize,
    scratch: impl Fn(usize) -> S + Sync + Send,
    compute: impl Fn(&mut S, &[T], &mut [T]) + Sync + Send,
) -> Vec<T> {
    let count = rows.len() / columns;
    let mut out = vec![T::ZERO; count * width];
    let chunk = CHUNK.min(count.div_ceil(rayon::current_num_threads()).max(1));
    rows.par_chunks(chunk * columns)
        .zip(out.par_chunks_mut(chunk * width))
        .for_each_init(|| scratch(chunk), |scratch, (rows, out)| compute(scratch, rows, out));
    out
}
