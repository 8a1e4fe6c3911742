//! Second derivatives and curvature of the decoder's surface.

use ndarray::{Array1, Array2, ArrayView2};

use super::{Model, array2, beside, numbers};
use crate::error::{Error, Result};
use crate::scalar::Scalar;

/// Second derivatives are computed on the processor; on a CUDA device these are [`Error::Device`]. All are NaN where the latent or a vector
/// is not finite, and where the metric is singular to working precision, as for [`Model::log_volume`].
impl<T: Scalar> Model<T> {
    /// The second fundamental form II(u, v), the part of ∂²f[u, v] across the surface: latents and vectors `[P, d]` to `[P, D]`.
    ///
    /// On a curve of constant speed v, II(v, v) is the acceleration that the surface itself asks for.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the latents' width is not d, or u or v is not `[P, d]`; [`Error::Device`] on a CUDA device,
    /// [`Error::Decoder`] under the Fisher–Rao metric of Gaussian outputs.
    pub fn second_fundamental_form(
        &self,
        latents: ArrayView2<'_, T>,
        u: ArrayView2<'_, T>,
        v: ArrayView2<'_, T>,
    ) -> Result<Array2<T>> {
        let latents = self.latents(latents)?;
        let [u, v] = [("u", u), ("v", v)].map(|(what, rows)| beside(what, rows, latents.nrows(), latents.ncols()));
        let (u, v) = (u?, v?);
        let model = self.engine.extrinsic("second fundamental form")?;
        let form = model.second_fundamental_form(numbers(&latents), numbers(&u), numbers(&v));
        Ok(array2(latents.nrows(), self.decoder.data_dim(), form))
    }

    /// The sectional curvature K of the plane of u and v: latents and vectors `[P, d]` to `[P]`, in 1/(units of the data space)².
    ///
    /// By Gauss's equation, K = (⟨II(u, u), II(v, v)⟩ − ‖II(u, v)‖²) / (‖u‖² ‖v‖² − ⟨u, v⟩²). It does not depend on the lengths of u and v or
    /// on the angle between them; NaN where they span no plane.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the latents' width is not d, or u or v is not `[P, d]`; [`Error::Device`] on a CUDA device,
    /// [`Error::Decoder`] under the Fisher–Rao metric of Gaussian outputs.
    pub fn sectional_curvature(
        &self,
        latents: ArrayView2<'_, T>,
        u: ArrayView2<'_, T>,
        v: ArrayView2<'_, T>,
    ) -> Result<Array1<T>> {
        let latents = self.latents(latents)?;
        let [u, v] = [("u", u), ("v", v)].map(|(what, rows)| beside(what, rows, latents.nrows(), latents.ncols()));
        let (u, v) = (u?, v?);
        let model = self.engine.extrinsic("sectional curvature")?;
        Ok(Array1::from_vec(model.sectional_curvature(numbers(&latents), numbers(&u), numbers(&v))))
    }

    /// The Gaussian curvature of a surface with two latents: latents `[P, 2]` to `[P]`, in 1/(units of the data space)².
    ///
    /// ```
    /// use ndarray::array;
    /// use pullback::{Decoder, Device};
    ///
    /// let model = Device::cpu().load_as::<f64>(&Decoder::sphere(2.0))?;
    /// let found = model.gaussian_curvature(array![[0.5, 0.1]].view())?; // 1/r²
    /// assert!((found[0] - 0.25).abs() < 1e-12);
    /// # Ok::<(), pullback::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the decoder has another number of latents than 2, or the latents' width is not 2; [`Error::Device`] on a CUDA
    /// device.
    pub fn gaussian_curvature(&self, latents: ArrayView2<'_, T>) -> Result<Array1<T>> {
        if self.decoder.latent_dim() != 2 {
            return Err(Error::Shape {
                what: "Gaussian curvature".into(),
                expected: "a decoder of 2 latents (for others there are sectional and scalar curvature)".into(),
                found: self.decoder.latent_dim().to_string(),
            });
        }
        let latents = self.latents(latents)?;
        let model = self.engine.extrinsic("Gaussian curvature")?;
        Ok(Array1::from_vec(model.gaussian_curvature(numbers(&latents))))
    }

    /// The scalar curvature Σ_{a ≠ b} K(e_a, e_b) over an orthonormal frame e: latents `[P, d]` to `[P]`, in 1/(units of the data space)².
    ///
    /// It is twice the Gaussian curvature for d = 2, and 0 for d = 1. By Gauss's equation it is ‖Σ_a II(e_a, e_a)‖² − Σ_ab ‖II(e_a, e_b)‖²,
    /// and costs d(d + 1)/2 second-order rows through the layers.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the latents' width is not d; [`Error::Device`] on a CUDA device,
    /// [`Error::Decoder`] under the Fisher–Rao metric of Gaussian outputs.
    pub fn scalar_curvature(&self, latents: ArrayView2<'_, T>) -> Result<Array1<T>> {
        let latents = self.latents(latents)?;
        let model = self.engine.extrinsic("scalar curvature")?;
        Ok(Array1::from_vec(model.scalar_curvature(numbers(&latents))))
    }

    /// The acceleration z̈ = −G⁻¹ Jᵀ ∂²f[ż, ż] of a geodesic: latents and velocities `[P, d]` to `[P, d]`.
    ///
    /// That is −Γ(ż, ż) with Christoffel's symbols Γ, without a derivative of G: one second-order row through the layers.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the latents' width is not d, or the velocities are not `[P, d]`; [`Error::Device`] on a CUDA device,
    /// [`Error::Decoder`] under the Fisher–Rao metric of Gaussian outputs.
    pub fn geodesic_acceleration(
        &self,
        latents: ArrayView2<'_, T>,
        velocities: ArrayView2<'_, T>,
    ) -> Result<Array2<T>> {
        let latents = self.latents(latents)?;
        let velocities = beside("velocities", velocities, latents.nrows(), latents.ncols())?;
        let model = self.engine.extrinsic("geodesic acceleration")?;
        let accelerations = model.geodesic_acceleration(numbers(&latents), numbers(&velocities));
        Ok(array2(latents.nrows(), latents.ncols(), accelerations))
    }
}
