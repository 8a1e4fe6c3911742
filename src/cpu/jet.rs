//! Taylor mode: first and second directional derivatives, forward through the layers.
//!
//! For directions u, v at a point, every layer takes h_u = ∂h[u] and h_uv = ∂²h[u, v] of its pre-activations to those of its
//! activations a = φ(h), and a linear layer takes those to the next one's:
//!
//! ```text
//! a_u = φ'(h) h_u        a_uv = φ'(h) h_uv + φ''(h) h_u h_v        h_u ← W a_u        h_uv ← W a_uv
//! ```
//!
//! (A. Griewank, A. Walther, "Evaluating Derivatives", 2008, chapter 13.) A direction costs one row through the weights, a pair of
//! directions another one.

use super::activation::Order;
use super::network::{Chain, Dense, Network, with_spare_row};
use super::simd::vectorised;
use crate::scalar::Scalar;

/// Which derivatives are asked for: along `directions` of them, and along pairs of these.
#[derive(Clone, Copy)]
pub(crate) struct Jet<'a> {
    pub directions: usize,
    pub pairs: &'a [(usize, usize)],
}

impl Jet<'_> {
    /// Rows of a point: the directions' first, then the pairs'.
    pub fn rows(&self) -> usize {
        self.directions + self.pairs.len()
    }

    fn order(&self) -> Order {
        if self.pairs.is_empty() { Order::First } else { Order::Second }
    }

    /// Numbers in the scratch of a point.
    pub fn numbers<T: Scalar>(&self, network: &Network<T>) -> usize {
        (2 * self.rows() + 4) * network.widest
    }
}

/// Room for the jets of a tile of points.
pub(crate) struct JetScratch<T> {
    /// Activations of a layer and of the one before, `[points, outputs]`.
    values: [Vec<T>; 2],
    /// Derivatives, likewise, `[points, rows, outputs]`.
    derivatives: [Vec<T>; 2],
    first: Vec<T>,
    second: Vec<T>,
}

impl<T: Scalar> JetScratch<T> {
    pub fn new(network: &Network<T>, points: usize, jet: Jet<'_>) -> Self {
        let values = || with_spare_row(points, network.widest);
        let derivatives = || with_spare_row(points * jet.rows(), network.widest);
        let second = if jet.pairs.is_empty() { Vec::new() } else { values() };
        Self { values: [values(), values()], derivatives: [derivatives(), derivatives()], first: values(), second }
    }
}

/// Derivatives at `latents` `[points, d]` along the directions that `write` puts, d numbers each, into the rows of every point
/// `[directions, d]`; `output` gets each head with its derivatives `[points, rows, outputs]`.
pub(crate) fn jets<T: Scalar>(
    network: &Network<T>,
    latents: &[T],
    jet: Jet<'_>,
    scratch: &mut JetScratch<T>,
    write: impl Fn(usize, &mut [T]),
    mut output: impl FnMut(&Chain<T>, &[T]),
) {
    let d = network.latent_dim;
    let points = latents.len() / d;
    let rows = jet.rows();
    for chain in &network.chains {
        scratch.values[0][..latents.len()].copy_from_slice(latents);
        for (point, room) in scratch.derivatives[0][..points * rows * d].chunks_exact_mut(rows * d).enumerate() {
            let (directions, pairs) = room.split_at_mut(jet.directions * d);
            write(point, directions);
            pairs.fill(T::ZERO); // a latent is linear in itself
        }
        for (k, layer) in chain.layers.iter().enumerate() {
            let [from, to] = &mut scratch.derivatives;
            layer.forward(points * rows, from, to);
            // Behind a linear output nobody asks for values.
            if k + 1 < chain.layers.len() || !layer.is_linear() {
                let [from, to] = &mut scratch.values;
                layer.forward(points, from, to);
                bend(layer, points, jet, scratch);
                scratch.values.swap(0, 1);
            }
            scratch.derivatives.swap(0, 1);
        }
        output(chain, &scratch.derivatives[0][..points * rows * chain.outputs()]);
    }
}

/// From a layer's pre-activations to its activations, in `values[1]` and `derivatives[1]`.
fn bend<T: Scalar>(layer: &Dense<T>, points: usize, jet: Jet<'_>, scratch: &mut JetScratch<T>) {
    let JetScratch { values, derivatives, first, second } = scratch;
    let (width, rows) = (layer.outputs, jet.rows());
    let length = points * width;
    let (values, first) = (&mut values[1][..length], &mut first[..length]);
    let second = if jet.pairs.is_empty() { &mut [][..] } else { &mut second[..length] };
    layer.activate(jet.order(), values, first, second);
    if layer.is_linear() {
        return;
    }
    let derivatives = &mut derivatives[1][..points * rows * width];
    if !layer.activation.is_elementwise() {
        for (rows, first) in derivatives.chunks_exact_mut(rows * width).zip(first.chunks_exact(width)) {
            layer.bend_together(jet, first, rows);
        }
        return;
    }
    let curved = !layer.activation.is_piecewise_linear();
    vectorised(
        #[inline(always)]
        || {
            for (p, (rows, first)) in
                derivatives.chunks_exact_mut(rows * width).zip(first.chunks_exact(width)).enumerate()
            {
                let (tangents, pairs) = rows.split_at_mut(jet.directions * width);
                for (row, &(u, v)) in pairs.chunks_exact_mut(width).zip(jet.pairs) {
                    if curved {
                        let (second, u, v) = (
                            &second[p * width..][..width],
                            &tangents[u * width..][..width],
                            &tangents[v * width..][..width],
                        );
                        for ((((x, &f), &s), &u), &v) in row.iter_mut().zip(first).zip(second).zip(u).zip(v) {
                            *x = (*x * f) + s * (u * v);
                        }
                    } else {
                        for (x, &f) in row.iter_mut().zip(first) {
                            *x *= f;
                        }
                    }
                }
                for row in tangents.chunks_exact_mut(width) {
                    for (x, &f) in row.iter_mut().zip(first) {
                        *x *= f;
                    }
                }
            }
        },
    );
}
