//! The differential and its adjoint, J v and Jᵀ w, and inner products ⟨u, v⟩ = (J u)·(J v): one or two rows a point, never all of J.

use super::activation::Order;
use super::decode::{DecodeScratch, Wanted, forward, store};
use super::jet::{Jet, JetScratch, jets};
use super::model::CpuModel;
use super::network::{Dense, Network, with_spare_row};
use super::rows::{chunk, over_finite_rows};
use super::simd::vectorised;
use crate::scalar::Scalar;

/// Inner products of two tangent vectors u and v.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    /// ⟨u, u⟩.
    pub uu: f64,
    /// ⟨u, v⟩.
    pub uv: f64,
    /// ⟨v, v⟩.
    pub vv: f64,
    /// ⟨w, w⟩ of w = v − (⟨u, v⟩ / ⟨u, u⟩) u, taken from w itself: it is right where u and v are nearly parallel.
    pub rest: f64,
}

impl Pair {
    /// From J u and J v.
    fn of_rows<T: Scalar>(u: &[T], v: &[T]) -> Self {
        let (uu, uv, vv) = (dot(u, u), dot(u, v), dot(v, v));
        let share = uv / uu;
        let rest = |u: T, v: T| {
            let w = v.to_f64() - share * u.to_f64();
            w * w
        };
        Self { uu, uv, vv, rest: sum(u, v, rest) }
    }

    /// From the metric `[d, d]`, u and v.
    pub fn of_metric<T: Scalar>(metric: &[T], u: &[T], v: &[T]) -> Self {
        let d = u.len();
        let wide = |x: &[T]| x.iter().map(|x| x.to_f64()).collect::<Vec<f64>>();
        let (u, v) = (wide(u), wide(v));
        let product = |a: &[f64], b: &[f64]| {
            let rows = metric.chunks_exact(d).zip(a);
            rows.map(|(row, a)| a * row.iter().zip(b).map(|(g, b)| g.to_f64() * b).sum::<f64>()).sum::<f64>()
        };
        let (uu, uv, vv) = (product(&u, &u), product(&u, &v), product(&v, &v));
        let w: Vec<f64> = u.iter().zip(&v).map(|(u, v)| v - uv / uu * u).collect();
        Self { uu, uv, vv, rest: product(&w, &w).max(0.0) }
    }

    /// The angle between u and v in radians, from 0 to π; NaN where one of them has length 0.
    pub fn angle(&self) -> f64 {
        if self.uu > 0.0 && self.vv > 0.0 { (self.uu.sqrt() * self.rest.sqrt()).atan2(self.uv) } else { f64::NAN }
    }
}

/// Σ term(a_i, b_i), in an order that depends on the length alone.
#[inline(always)]
fn sum<T: Scalar>(a: &[T], b: &[T], term: impl Fn(T, T) -> f64) -> f64 {
    vectorised(
        #[inline(always)]
        || {
            let mut sums = [0.0; 8];
            let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
            for (sum, (&a, &b)) in sums.iter_mut().zip(a8.remainder().iter().zip(b8.remainder())) {
                *sum += term(a, b);
            }
            for (a, b) in a8.zip(b8) {
                for l in 0..8 {
                    sums[l] += term(a[l], b[l]);
                }
            }
            sums.iter().sum()
        },
    )
}

/// a · b in `f64`: squares of small `f32` do not vanish.
pub(crate) fn dot<T: Scalar>(a: &[T], b: &[T]) -> f64 {
    sum(a, b, |a, b| a.to_f64() * b.to_f64())
}

impl<T: Scalar> CpuModel<T> {
    /// J v: latents and vectors `[P, d]` to `[P, D]`.
    pub fn push_forward(&self, latents: &[T], vectors: &[T]) -> Vec<T> {
        let (network, jet) = (&self.original, Jet { directions: 1, pairs: &[] });
        let (d, width) = (network.latent_dim, network.data_dim);
        let [out] = over_finite_rows(
            [(latents, d), (vectors, d)],
            [width],
            chunk(jet.numbers(network)),
            |points| JetScratch::new(network, points, jet),
            |scratch, _, [latents, vectors], [out]| {
                let write = |p: usize, room: &mut [T]| room.copy_from_slice(&vectors[p * d..(p + 1) * d]);
                jets(network, latents, jet, scratch, write, |chain, rows| {
                    store(network, chain, rows, out);
                });
            },
        );
        out
    }

    /// Jᵀ w: latents `[P, d]` and covectors `[P, D]` to `[P, d]`.
    pub fn pull_back(&self, latents: &[T], covectors: &[T]) -> Vec<T> {
        let network = &self.original;
        let d = network.latent_dim;
        let [out] = over_finite_rows(
            [(latents, d), (covectors, network.data_dim)],
            [d],
            chunk(4 * network.widest + network.layers().map(|l| l.outputs).sum::<usize>()),
            |points| PullBackScratch::new(network, points),
            |scratch, _, [latents, covectors], [out]| pull_back(network, latents, covectors, scratch, out),
        );
        out
    }

    /// ⟨u, u⟩: latents and vectors `[P, d]` to what `measure` makes of it, `[P]`.
    pub fn square(&self, latents: &[T], u: &[T], measure: impl Fn(f64) -> f64 + Sync + Send) -> Vec<T> {
        self.measure([latents, u], |rows, _| measure(dot(rows, rows)))
    }

    /// Inner products of u and v: latents and vectors `[P, d]` to what `measure` makes of them, `[P]`.
    pub fn pair(&self, latents: &[T], u: &[T], v: &[T], measure: impl Fn(&Pair) -> f64 + Sync + Send) -> Vec<T> {
        self.measure([latents, u, v], |rows, width| measure(&Pair::of_rows(&rows[..width], &rows[width..])))
    }

    /// Latents and vectors `[P, d]` to a number for the push-forwards of each point's vectors, `[vectors, width]`.
    fn measure<const I: usize>(&self, inputs: [&[T]; I], measure: impl Fn(&[T], usize) -> f64 + Sync + Send) -> Vec<T> {
        let (network, jet) = (&self.compressed, Jet { directions: I - 1, pairs: &[] });
        let (d, width) = (network.latent_dim, network.data_dim);
        let [out] = over_finite_rows(
            inputs.map(|input| (input, d)),
            [1],
            chunk(jet.numbers(network)),
            |points| (JetScratch::new(network, points, jet), vec![T::ZERO; points * jet.directions * width]),
            |(scratch, pushed), _, inputs, [out]| {
                let write = |p: usize, room: &mut [T]| {
                    for (to, from) in room.chunks_exact_mut(d).zip(&inputs[1..]) {
                        to.copy_from_slice(&from[p * d..(p + 1) * d]);
                    }
                };
                jets(network, inputs[0], jet, scratch, write, |chain, rows| {
                    store(network, chain, rows, pushed);
                });
                for (out, rows) in out.iter_mut().zip(pushed.chunks_exact(jet.directions * width)) {
                    *out = T::from_f64(measure(rows, width));
                }
            },
        );
        out
    }
}

/// Room for [`pull_back`].
struct PullBackScratch<T> {
    decode: DecodeScratch<T>,
    /// φ' of every layer.
    first: Vec<Vec<T>>,
    /// ∂(w · f)/∂a of a layer and of the one before.
    adjoints: [Vec<T>; 2],
}

impl<T: Scalar> PullBackScratch<T> {
    fn new(network: &Network<T>, points: usize) -> Self {
        let adjoint = || with_spare_row(points, network.widest);
        Self {
            decode: DecodeScratch::new(network, points),
            first: network.layers().map(|l| vec![T::ZERO; points * l.outputs]).collect(),
            adjoints: [adjoint(), adjoint()],
        }
    }
}

/// One adjoint row a point, from the outputs back to the latents: λ ← Wᵀ (λ ∘ φ'), beginning with w.
fn pull_back<T: Scalar>(
    network: &Network<T>,
    latents: &[T],
    covectors: &[T],
    scratch: &mut PullBackScratch<T>,
    out: &mut [T],
) {
    let d = network.latent_dim;
    let points = latents.len() / d;
    let PullBackScratch { decode, first, adjoints } = scratch;
    decode.latents()[..latents.len()].copy_from_slice(latents);
    let keep = |number: usize, layer: &Dense<T>, products: &mut [T]| {
        let first = &mut first[number][..products.len()];
        layer.activate(Order::First, products, first, &mut []);
    };
    forward(network, Wanted::Derivatives, points, decode, keep, |_, _| {});
    for chain in &network.chains {
        let width = chain.outputs();
        let rows = covectors.chunks_exact(network.data_dim).map(|row| &row[chain.output_offset..][..width]);
        for (to, from) in adjoints[0].chunks_exact_mut(width).zip(rows) {
            to.copy_from_slice(from);
        }
        for (k, layer) in chain.layers.iter().enumerate().rev() {
            let first = layer.stored(&first[chain.first_layer + k], points);
            layer.pull_back(first, &mut adjoints[0][..points * layer.outputs]);
            let [from, to] = &mut *adjoints;
            layer.backward(points, from, to);
            adjoints.swap(0, 1);
        }
        for (out, &a) in out.iter_mut().zip(&adjoints[0]) {
            *out += a;
        }
    }
}
