//! The decoders that are measured.

use std::path::PathBuf;

use ndarray::{Array1, Array2, Axis};

use super::super::args::FileArgs;
use super::super::demo;
use super::super::random::Random;
use crate::decoder::{Activation, Decoder, FileOptions, Head, Layer};
use crate::error::Result;

/// A decoder R⁸ → R⁶⁴ trained on the digits of the demo, and the latents of all 1,797 images.
const DECODER: &[u8] = include_bytes!("../../../fixtures/digits-d8-softplus.safetensors");
const LATENTS: &[u8] = include_bytes!("../../../fixtures/digits-d8-softplus.latents.npy");

/// A decoder and latents of it.
pub(super) struct Subject {
    pub name: String,
    pub decoder: Decoder,
    pub latents: Array2<f32>,
    /// `None` for a decoder that is built in.
    pub path: Option<PathBuf>,
    /// Whether the weights were drawn: geodesics of such a decoder say little of those of a trained one.
    pub is_random: bool,
}

impl Subject {
    /// A decoder with its own latents, or drawn from the standard normal law.
    fn new(name: impl Into<String>, decoder: Decoder, latents: Option<Array2<f32>>) -> Self {
        let latents = latents.unwrap_or_else(|| {
            let mut random = Random(3);
            Array2::from_shape_simple_fn((4096, decoder.latent_dim()), || random.normal() as f32)
        });
        Self { name: name.into(), decoder, latents, path: None, is_random: false }
    }

    /// Tanh layers of these widths with random weights, and a linear one at the end.
    pub fn random(widths: &[usize]) -> Result<Self> {
        let mut random = Random(1);
        let layers = widths.windows(2).enumerate().map(|(k, pair)| {
            let (inputs, outputs) = (pair[0], pair[1]);
            let scale = 1.0 / (inputs as f64).sqrt();
            Layer {
                weight: Array2::from_shape_simple_fn((outputs, inputs), || scale * random.normal()),
                bias: Array1::from_shape_simple_fn(outputs, || 0.1 * random.normal()),
                activation: if k + 2 < widths.len() { Activation::Tanh } else { Activation::Identity },
            }
        });
        let decoder = Decoder::new(vec![Head::new("decoder", layers.collect())?])?;
        let name: Vec<String> = widths.iter().map(usize::to_string).collect();
        Ok(Self { is_random: true, ..Self::new(name.join("-"), decoder, None) })
    }

    /// Those that are built in, and shapes of common sizes.
    pub fn all(quick: bool) -> Result<Vec<Self>> {
        let shapes: &[&[usize]] = if quick { &[&[3, 16, 24]] } else { &[&[8, 256, 256, 784], &[8, 512, 512, 3072]] };
        let digits = [
            Self::new("digits-d2-tanh", demo::decoder()?, Some(demo::latents()?)),
            Self::new(
                "digits-d8-softplus",
                Decoder::from_safetensors(DECODER, &FileOptions::default())?,
                Some(demo::built_in_rows(LATENTS, 8)?),
            ),
        ];
        digits.into_iter().map(Ok).chain(shapes.iter().map(|widths| Self::random(widths))).collect()
    }

    /// Those of files, by the files' names, or paths where two have one name.
    pub fn files(paths: &[PathBuf], file: &FileArgs) -> Result<Vec<Self>> {
        let stem = |path: &PathBuf| path.file_stem().map(|name| name.to_string_lossy().into_owned());
        let open = |path: &PathBuf| {
            let is_only = paths.iter().filter(|other| stem(other) == stem(path)).count() == 1;
            let name = stem(path).filter(|_| is_only).unwrap_or_else(|| path.display().to_string());
            Ok(Self { path: Some(path.clone()), ..Self::new(name, file.open(path)?, None) })
        };
        paths.iter().map(open).collect()
    }

    /// So many rows of the latents, over and over; of different `from`, such that the pairs of both differ.
    pub fn rows(&self, count: usize, from: usize) -> Array2<f32> {
        let all = self.latents.nrows();
        // Steps that have no factor in common with most lengths, and other neighbours in every round.
        let row = |k: usize| (from * (1 + 31 * (k / all)) + k * 7919) % all;
        self.latents.select(Axis(0), &(0..count).map(row).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_decoders_have_latents_of_their_own() {
        let all = Subject::all(true).unwrap();
        assert_eq!(all.iter().map(|s| s.latents.dim()).collect::<Vec<_>>(), [(1797, 2), (1797, 8), (4096, 3)]);
        assert!(all[1].latents.iter().all(|x| x.abs() < 10.0) && all[1].latents.iter().any(|x| x.abs() > 0.1));
        assert_eq!(all.iter().map(|s| s.is_random).collect::<Vec<_>>(), [false, false, true]);
    }

    /// Many more pairs than latents, and none of a point with itself.
    #[test]
    fn pairs_differ() {
        let latents = Array2::from_shape_fn((1797, 1), |(k, _)| k as f32);
        let subject = Subject { latents, ..Subject::random(&[1, 2]).unwrap() };
        let (starts, ends) = (subject.rows(100_000, 0), subject.rows(100_000, 1));
        let mut pairs: Vec<_> = starts.iter().zip(&ends).map(|(a, b)| (*a as usize, *b as usize)).collect();
        assert!(pairs.iter().all(|(a, b)| a != b));
        pairs.sort_unstable();
        pairs.dedup();
        assert_eq!(pairs.len(), 100_000);
    }
}
