//! Jacobian columns by forward mode: tangents T_l = ∂h_l/∂z of every layer's pre-activations.
//!
//! T_1 = W_1 for every point, U_l = φ'(h_l) ∘ T_l, T_{l+1} = W_{l+1} U_l; the Jacobian is U of the last layer.

use super::activation::Order;
use super::decode::{DecodeScratch, Wanted, forward, store};
use super::network::{Chain, Dense, Network, with_spare_row};
use super::simd::vectorised;
use crate::decoder::Geometry;
use crate::scalar::Scalar;

/// Tangents of a tile of points through one head. Row `p · d + k` belongs to point p and latent direction k.
pub(crate) struct Tangents<T> {
    /// T_l, `[points · d, outputs]` for every layer (of the longest head).
    pub pre: Vec<Vec<T>>,
    /// U_l of the layer reached last: behind [`push_forward`], the Jacobian's columns `[points · d, outputs]`.
    pub post: Vec<T>,
    /// Columns of W_1 as rows, `[d, outputs]`.
    columns: Vec<T>,
}

impl<T: Scalar> Tangents<T> {
    pub fn new(network: &Network<T>, points: usize) -> Self {
        let rows = points * network.latent_dim;
        let depth = network.chains.iter().map(|c| c.layers.len()).max().unwrap_or(0);
        let width =
            |k: usize| network.chains.iter().filter_map(|c| c.layers.get(k)).map(|l| l.outputs).max().unwrap_or(0);
        Self {
            pre: (0..depth).map(|k| with_spare_row(rows, width(k))).collect(),
            post: with_spare_row(rows, network.widest),
            columns: vec![T::ZERO; network.latent_dim * width(0)],
        }
    }
}

/// Sends the tangents of `points` points through a head.
///
/// `scale` gets each layer's number (counted through all heads), its T_l and room for U_l, both `[points · d, outputs]`, and must
/// write U_l (see [`scale_rows`]).
pub(crate) fn push_forward<T: Scalar>(
    chain: &Chain<T>,
    points: usize,
    latent_dim: usize,
    tangents: &mut Tangents<T>,
    mut scale: impl FnMut(usize, &[T], &mut [T]),
) {
    let rows = points * latent_dim;
    for (k, layer) in chain.layers.iter().enumerate() {
        let length = rows * layer.outputs;
        if k == 0 {
            let columns = &mut tangents.columns[..latent_dim * layer.outputs];
            for (i, column) in columns.chunks_exact_mut(layer.outputs).enumerate() {
                for (to, from) in column.iter_mut().zip(layer.weight.iter().skip(i).step_by(latent_dim)) {
                    *to = *from;
                }
            }
            for point in tangents.pre[0][..length].chunks_exact_mut(columns.len()) {
                point.copy_from_slice(columns);
            }
        } else {
            layer.forward(rows, &tangents.post, &mut tangents.pre[k]);
        }
        scale(chain.first_layer + k, &tangents.pre[k][..length], &mut tangents.post[..length]);
    }
}

/// `post[p, k] = first[p] ∘ pre[p, k]` for points p and latent directions k; a copy where `first` is empty (φ' = 1).
pub(crate) fn scale_rows<T: Scalar>(latent_dim: usize, width: usize, first: &[T], pre: &[T], post: &mut [T]) {
    if first.is_empty() {
        post.copy_from_slice(pre);
        return;
    }
    vectorised(
        #[inline(always)]
        || {
            let points = pre.chunks_exact(latent_dim * width).zip(post.chunks_exact_mut(latent_dim * width));
            for ((pre, post), first) in points.zip(first.chunks_exact(width)) {
                for (pre, post) in pre.chunks_exact(width).zip(post.chunks_exact_mut(width)) {
                    for ((p, &t), &f) in post.iter_mut().zip(pre).zip(first) {
                        *p = t * f;
                    }
                }
            }
        },
    );
}

/// Room for Jacobians of a tile of points given by their latents.
pub(crate) struct JacobianScratch<T> {
    decode: DecodeScratch<T>,
    tangents: Tangents<T>,
    /// φ' of every layer.
    first: Vec<Vec<T>>,
    /// f, `[points, D]`, of Gaussian outputs.
    values: Vec<T>,
}

impl<T: Scalar> JacobianScratch<T> {
    pub fn new(network: &Network<T>, points: usize) -> Self {
        Self {
            decode: DecodeScratch::new(network, points),
            tangents: Tangents::new(network, points),
            first: network.layers().map(|l| vec![T::ZERO; points * l.outputs]).collect(),
            values: vec![T::ZERO; points * network.data_dim],
        }
    }
}

/// Jacobians at `latents` `[points, d]`; `output` gets each head with its columns `[points · d, outputs]` and, of Gaussian outputs
/// alone, f `[points, D]`.
pub(crate) fn jacobians<T: Scalar>(
    network: &Network<T>,
    latents: &[T],
    scratch: &mut JacobianScratch<T>,
    mut output: impl FnMut(&Chain<T>, &[T], &mut [T]),
) {
    let d = network.latent_dim;
    let points = latents.len() / d;
    let JacobianScratch { decode, tangents, first, values } = scratch;
    let values = &mut values[..points * network.data_dim];
    decode.latents()[..latents.len()].copy_from_slice(latents);
    let keep = |number: usize, layer: &Dense<T>, products: &mut [T]| {
        let first = &mut first[number][..products.len()];
        layer.activate(Order::First, products, first, &mut []);
    };
    // Tangents of means and standard deviations are divided by the latter.
    let wanted = if network.geometry == Geometry::Gaussian { Wanted::Values } else { Wanted::Derivatives };
    forward(network, wanted, points, decode, keep, |chain, outputs| store(network, chain, outputs, values));
    for chain in &network.chains {
        push_forward(chain, points, d, tangents, |number, pre, post| {
            let layer = &chain.layers[number - chain.first_layer];
            layer.push_forward(d, layer.stored(&first[number], points), pre, post);
        });
        output(chain, values, &mut tangents.post[..points * d * chain.outputs()]);
    }
}
