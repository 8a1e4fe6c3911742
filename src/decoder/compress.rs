//! Isometric compression of a linear output layer.

use faer::Mat;
use ndarray::{Array1, Array2};

use super::{Activation, Decoder, Geometry, Head, Layer};

impl Decoder {
    /// The same geometry with fewer outputs: f up to a rigid motion of the data space.
    ///
    /// A head that ends in a linear layer f = W a + b with W `[D, h]`, D > h, gets the h×h factor R of the thin QR
    /// decomposition W = QR in place of W, and no bias; below its diagonal R is zero. Q has orthonormal columns, so metrics, energies,
    /// lengths and geodesics are unchanged, whatever D is; decoded values are not. Other heads stay as they are, and so do the members of an ensemble
    /// and heads whose outputs are parameters of a Gaussian: their data space is not turned without turning the others'.
    pub fn compressed(&self) -> Self {
        let kept = match self.geometry {
            Geometry::Euclidean => 0,
            Geometry::Ensemble(members) => members,
            Geometry::Gaussian => 2,
        };
        let heads = self.heads.iter().enumerate();
        let heads = heads.map(|(k, head)| if k < kept { head.clone() } else { compress(head) }).collect();
        Self { heads, geometry: self.geometry }
    }

    /// [`Decoder::compressed`] with the members of an ensemble divided by √M: then the sum of their Gram matrices is the metric.
    pub(crate) fn normalised(&self) -> Self {
        let mut decoder = self.compressed();
        if let Geometry::Ensemble(members) = self.geometry {
            let factor = (members as f64).sqrt().recip();
            for head in &mut decoder.heads[..members] {
                *head = head.scaled(&Array1::from_elem(head.data_dim(), factor));
            }
        }
        decoder
    }
}

fn compress(head: &Head) -> Head {
    let mut head = head.clone();
    if let Some(last) = head.layers.last_mut()
        && last.activation == Activation::Identity
        && last.outputs() > last.inputs()
    {
        let weight = Mat::from_fn(last.outputs(), last.inputs(), |i, j| last.weight[[i, j]]);
        let qr = weight.qr();
        let r = qr.thin_R();
        let h = last.inputs();
        *last = Layer {
            weight: Array2::from_shape_fn((h, h), |(i, j)| if i <= j { r[(i, j)] } else { 0.0 }),
            bias: Array1::zeros(h),
            activation: Activation::Identity,
        };
    }
    head
}
