//! The first layers of a decoder, as decoders.

use super::{Decoder, Geometry, Head};
use crate::error::{Error, Result};

impl Head {
    /// The head's first `count` layers, f_count ∘ … ∘ f_1, under the same name.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] where `count` is 0 or more than the head has layers.
    pub fn stage(&self, count: usize) -> Result<Self> {
        if count == 0 || count > self.layers.len() {
            return Err(Error::Option {
                name: "layers of a stage",
                expected: "at least 1 and no more than the head has",
                found: format!("{count} of {}", self.layers.len()),
            });
        }
        let mut head = Self::new(self.name.clone(), self.layers[..count].to_vec())?;
        head.scale = self.scale.clone().filter(|_| count == self.layers.len());
        Ok(head)
    }
}

impl Decoder {
    /// What the first layer, the first two layers, and so on make of a latent, as decoders; the last is the whole decoder.
    ///
    /// A head that has fewer layers than another is whole from there on. The last stage is the decoder itself; chords of the others are
    /// Euclidean. Each stage has a geometry of its own: its singular values tell
    /// where along the layers directions are stretched or lost.
    ///
    /// ```
    /// use ndarray::array;
    /// use pullback::{Decoder, Device};
    ///
    /// let torus = Decoder::torus(2.0, 0.5);
    /// for stage in torus.stages() {
    ///     let found = Device::cpu().load(&stage)?.singular(array![[0.1, 0.2]].view())?;
    ///     assert_eq!(found.left.dim(), (1, 2, stage.data_dim()));
    /// }
    /// # Ok::<(), pullback::Error>(())
    /// ```
    pub fn stages(&self) -> Vec<Self> {
        let depth = self.heads.iter().map(|head| head.layers.len()).max().unwrap_or(0);
        let whole = |head: &Head, count: usize| head.stage(count).unwrap_or_else(|_| head.clone());
        let stage = |count: usize| Self {
            heads: self.heads.iter().map(|head| whole(head, count)).collect(),
            geometry: if count == depth { self.geometry } else { Geometry::Euclidean },
        };
        (1..=depth).map(stage).collect()
    }
}
