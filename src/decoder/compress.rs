//! Isometric compression of a linear output layer.

use faer::Mat;
use ndarray::{Array1, Array2};

use super::{Activation, Decoder, Head, Layer};

impl Decoder {
    /// The same geometry with fewer outputs: f up to a rigid motion of the data space.
    ///
    /// A head that ends in a linear layer f = W a + b with W `[D, h]`, D > h, gets the h×h factor R of the thin QR
    /// decomposition W = QR in place of W, and no bias. Q has orthonormal columns, so metrics, energies, lengths and geodesics
    /// are unchanged, whatever D is; decoded values are not. Other heads stay as they are.
    pub fn compressed(&self) -> Self {
        Self { heads: self.heads.iter().map(compress).collect() }
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
