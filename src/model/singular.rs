//! Singular values and vectors of Jacobians.

use ndarray::{Array2, Array3, ArrayView2};

use super::{Model, array2, array3, numbers};
use crate::cpu::singular::decompose;
use crate::error::Result;
use crate::scalar::Scalar;

/// Singular values σ_k and vectors of the Jacobians at P latents: J = Σ σ_k l_k r_kᵀ with r = min(d, D) terms.
#[derive(Clone, Debug, PartialEq)]
pub struct Singular<T> {
    /// σ_k, `[P, r]`, largest first.
    pub values: Array2<T>,
    /// l_k, `[P, r, D]`: orthonormal directions of the data space.
    pub left: Array3<T>,
    /// r_k, `[P, r, d]`: orthonormal directions of the latent space, each with a positive largest number. J r_k = σ_k l_k.
    pub right: Array3<T>,
}

impl<T: Scalar> Model<T> {
    /// The thin singular value decomposition of J: latents `[P, d]` to values `[P, r]`, left vectors `[P, r, D]` and right ones `[P, r, d]`
    /// with r = min(d, D); NaN where the latent or J is not finite.
    ///
    /// It is taken of J itself: small singular values have an error of a few ε of the largest, where the roots of
    /// [`Model::spectrum`]'s values have one of √ε. For what the layers before the last do, see [`Decoder::stages`](crate::Decoder::stages).
    ///
    /// ```
    /// use ndarray::array;
    /// use pullback::{Decoder, Device};
    ///
    /// let model = Device::cpu().load_as::<f64>(&Decoder::cylinder(3.0))?;
    /// let found = model.singular(array![[0.0, 0.0]].view())?;
    /// assert!((found.values[[0, 0]] - 3.0).abs() < 1e-12); // along the latent (1, 0), which moves the data along (0, 1, 0)
    /// assert!((found.right[[0, 0, 0]] - 1.0).abs() < 1e-12 && (found.left[[0, 0, 1]] - 1.0).abs() < 1e-12);
    /// # Ok::<(), pullback::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Shape`](crate::Error::Shape) where the latents' width is not d.
    pub fn singular(&self, latents: ArrayView2<'_, T>) -> Result<Singular<T>> {
        let latents = self.latents(latents)?;
        let (points, d) = latents.dim();
        let width = self.decoder.data_dim();
        let r = d.min(width);
        let inputs = [(numbers(&latents), d)];
        let [values, left, right] =
            self.engine.on_jacobians(inputs, [r, r * width, r * d], |columns, _, [values, left, right]| {
                decompose((d, width), columns, values, left, right);
            })?;
        Ok(Singular {
            values: array2(points, r, values),
            left: array3(points, r, width, left),
            right: array3(points, r, d, right),
        })
    }
}
