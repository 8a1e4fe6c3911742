//! Smooth neighbours of decoders with kinks.

use ndarray::Array1;

use super::{Activation, Decoder, Head};
use crate::cpu::root_mean_square;

impl Decoder {
    /// True where relu or leaky_relu make f a map with kinks, at which no search by derivatives can tell a minimum.
    pub(crate) fn has_kinks(&self) -> bool {
        self.heads.iter().flat_map(Head::layers).any(|layer| is_kinked(layer.activation))
    }

    /// The same decoder with softplus(β h)/β in place of relu (and leaky_relu), β in every layer `sharpness` divided by the size of
    /// its pre-activations h at standard normal latents.
    ///
    /// β goes into the weights on both sides; it is a power of two, so that nothing is rounded.
    pub(crate) fn softened(&self, sharpness: f64) -> Self {
        let mut decoder = self.clone();
        for head in &mut decoder.heads {
            let sizes = root_mean_square(head);
            for (k, size) in sizes.into_iter().enumerate() {
                if !is_kinked(head.layers[k].activation) || size <= 0.0 || !size.is_finite() {
                    continue;
                }
                let sharp = (sharpness / size).log2().round().clamp(-60.0, 60.0).exp2();
                let layer = &mut head.layers[k];
                layer.weight *= sharp;
                layer.bias *= sharp;
                layer.activation = Activation::Softplus;
                match head.layers.get_mut(k + 1) {
                    Some(next) => next.weight /= sharp,
                    None => *head = head.scaled(&Array1::from_elem(head.data_dim(), sharp.recip())),
                }
            }
        }
        decoder
    }
}

fn is_kinked(activation: Activation) -> bool {
    matches!(activation, Activation::Relu | Activation::LeakyRelu)
}
