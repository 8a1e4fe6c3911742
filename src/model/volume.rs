//! Volumes and densities.

use ndarray::{Array1, ArrayView2};

use super::{Model, numbers};
use crate::error::Result;
use crate::scalar::Scalar;

impl<T: Scalar> Model<T> {
    /// The volume element √det G: latents `[P, d]` to `[P]`; how much the decoder magnifies volumes there.
    ///
    /// It is [`Model::log_volume`]'s exponential: 0 where the metric is singular, and 0 or ∞ where no `T` is that small or large.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`](crate::Error::Shape) where the latents' width is not d.
    pub fn volume(&self, latents: ArrayView2<'_, T>) -> Result<Array1<T>> {
        self.of_log_det(latents, |log_det| (0.5 * log_det).exp())
    }

    /// ½ log det G: latents `[P, d]` to `[P]`, the density correction of an injective flow.
    ///
    /// Latents of density p_Z have images of density p_X on the decoder's surface, with log p_X(f(z)) = log p_Z(z) − ½ log det G(z)
    /// (A. Ben-Israel, "The change-of-variables formula using matrix volume", 1999), taken per unit of the surface's volume. It is −∞
    /// where G is singular to working precision, that is where a column of J has less than √(2dε) of its length outside the span of others, or
    /// less than 4ε of the length of another, and NaN where the latent or G is not finite. Different scales of the latents cost no accuracy.
    ///
    /// ```
    /// use ndarray::array;
    /// use pullback::{Decoder, Device};
    ///
    /// let model = Device::cpu().load(&Decoder::sphere(2.0))?;
    /// let found = model.log_volume(array![[0.5, 0.0]].view())?; // log(r² sin θ)
    /// assert!((found[0] - (4.0 * 0.5f32.sin()).ln()).abs() < 1e-6);
    /// # Ok::<(), pullback::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Shape`](crate::Error::Shape) where the latents' width is not d.
    pub fn log_volume(&self, latents: ArrayView2<'_, T>) -> Result<Array1<T>> {
        self.of_log_det(latents, |log_det| 0.5 * log_det)
    }

    /// log det G: latents `[P, d]` to `[P]`. It is −∞ and NaN where [`Model::log_volume`] is.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`](crate::Error::Shape) where the latents' width is not d.
    pub fn log_det(&self, latents: ArrayView2<'_, T>) -> Result<Array1<T>> {
        self.of_log_det(latents, |log_det| log_det)
    }

    /// By Cholesky's factors, whose logarithms are added up in `f64`: a determinant itself may be too small or too large for any float.
    fn of_log_det(&self, latents: ArrayView2<'_, T>, measure: fn(f64) -> f64) -> Result<Array1<T>> {
        let latents = self.latents(latents)?;
        let out = self.engine.log_det(numbers(&latents), measure)?;
        Ok(Array1::from_vec(out))
    }
}
