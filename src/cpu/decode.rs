//! The decoder's forward pass: f(z) for rows of latents.

use super::activation::Order;
use super::network::{Chain, Dense, Network, with_spare_row};
use crate::decoder::Head;
use crate::scalar::Scalar;

/// Room for the activations of a tile of rows.
pub(crate) struct DecodeScratch<T> {
    latents: Vec<T>,
    layers: [Vec<T>; 2],
}

impl<T: Scalar> DecodeScratch<T> {
    pub fn new(network: &Network<T>, rows: usize) -> Self {
        let layer = || with_spare_row(rows, network.widest);
        Self { latents: with_spare_row(rows, network.latent_dim), layers: [layer(), layer()] }
    }

    /// Where the latents go, `[rows, d]`, before [`forward`].
    pub fn latents(&mut self) -> &mut [T] {
        &mut self.latents
    }
}

/// What a pass through the layers is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Values,
    /// Derivatives of f alone: a linear last layer is left out, as nothing depends on its values.
    Derivatives,
}

/// Sends the latents in `scratch` through all layers of all heads.
///
/// `activate` gets each layer's number (counted through all heads), the layer, and its products W a `[rows, outputs]`, and must add the
/// bias and apply φ in place; `output` gets each head with its outputs `[rows, outputs]`, where they are wanted.
pub(crate) fn forward<T: Scalar>(
    network: &Network<T>,
    wanted: Wanted,
    rows: usize,
    scratch: &mut DecodeScratch<T>,
    mut activate: impl FnMut(usize, &Dense<T>, &mut [T]),
    mut output: impl FnMut(&Chain<T>, &[T]),
) {
    for chain in &network.chains {
        let is_whole = wanted == Wanted::Values || !chain.last().is_linear();
        let layers = if is_whole { &chain.layers[..] } else { &chain.layers[..chain.layers.len() - 1] };
        for (k, layer) in layers.iter().enumerate() {
            let [input, products] = &mut scratch.layers;
            layer.forward(rows, if k == 0 { &scratch.latents } else { input }, products);
            activate(chain.first_layer + k, layer, &mut products[..rows * layer.outputs]);
            scratch.layers.swap(0, 1);
        }
        if is_whole {
            output(chain, &scratch.layers[0][..rows * chain.outputs()]);
        }
    }
}

/// f(z) for `latents` `[rows, d]` into `values` `[rows, D]`.
pub(crate) fn decode<T: Scalar>(network: &Network<T>, latents: &[T], values: &mut [T], scratch: &mut DecodeScratch<T>) {
    let rows = latents.len() / network.latent_dim;
    scratch.latents[..latents.len()].copy_from_slice(latents);
    forward(
        network,
        Wanted::Values,
        rows,
        scratch,
        |_, layer, products| layer.activate(Order::Value, products, &mut [], &mut []),
        |chain, outputs| store(network, chain, outputs, values),
    );
}

/// Size of the pre-activations of every layer of a head, √(mean h²) over all outputs at standard normal latents, always the same.
pub(crate) fn root_mean_square(head: &Head) -> Vec<f64> {
    const POINTS: usize = 256;
    let network = Network::<f64>::of_head(head);
    let mut scratch = DecodeScratch::new(&network, POINTS);
    let length = POINTS * network.latent_dim;
    normal_numbers(&mut scratch.latents()[..length]);
    let mut sizes = Vec::new();
    let measure = |_: usize, layer: &Dense<f64>, products: &mut [f64]| {
        for row in products.chunks_exact_mut(layer.outputs) {
            row.iter_mut().zip(&layer.bias).for_each(|(h, b)| *h += b);
        }
        sizes.push((products.iter().map(|h| h * h).sum::<f64>() / products.len() as f64).sqrt());
        products
            .chunks_exact_mut(layer.outputs)
            .for_each(|row| row.iter_mut().zip(&layer.bias).for_each(|(h, b)| *h -= b));
        layer.activate(Order::Value, products, &mut [], &mut []);
    };
    forward(&network, Wanted::Values, POINTS, &mut scratch, measure, |_, _| {});
    sizes
}

/// Standard normal numbers (Box and Muller's formula over splitmix64), the same every time.
fn normal_numbers(out: &mut [f64]) {
    let mut state = 0u64;
    let mut uniform = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    };
    for number in out {
        let radius = (-2.0 * (1.0 - uniform()).ln()).sqrt();
        *number = radius * (std::f64::consts::TAU * uniform()).cos();
    }
}

/// Copies one head's outputs into its columns of `values` `[rows, D]`.
pub(crate) fn store<T: Scalar>(network: &Network<T>, chain: &Chain<T>, outputs: &[T], values: &mut [T]) {
    let (width, offset) = (chain.outputs(), chain.output_offset);
    for (from, to) in outputs.chunks_exact(width).zip(values.chunks_exact_mut(network.data_dim)) {
        to[offset..offset + width].copy_from_slice(from);
    }
}
