//! Operations over single points: values, Jacobians, metrics, second derivatives.

use ndarray::{Array2, Array3, ArrayView2};

use super::{Model, array2, array3, beside, numbers};
use crate::error::Result;
use crate::scalar::Scalar;

impl<T: Scalar> Model<T> {
    /// Values f(z): latents `[P, d]` to `[P, D]`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`](crate::Error::Shape) where the latents' width is not d.
    pub fn decode(&self, latents: ArrayView2<'_, T>) -> Result<Array2<T>> {
        let latents = self.latents(latents)?;
        let values = self.engine.decode(numbers(&latents))?;
        Ok(array2(latents.nrows(), self.decoder.data_dim(), values))
    }

    /// Jacobian columns: latents `[P, d]` to `[P, d, D]`, where row k of a point is ∂f/∂z_k.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`](crate::Error::Shape) where the latents' width is not d.
    pub fn jacobian(&self, latents: ArrayView2<'_, T>) -> Result<Array3<T>> {
        let latents = self.latents(latents)?;
        let columns = self.engine.jacobian(numbers(&latents))?;
        Ok(array3(latents.nrows(), latents.ncols(), self.decoder.data_dim(), columns))
    }

    /// The pullback metric G = JᵀJ: latents `[P, d]` to `[P, d, d]`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`](crate::Error::Shape) where the latents' width is not d.
    pub fn metric(&self, latents: ArrayView2<'_, T>) -> Result<Array3<T>> {
        let latents = self.latents(latents)?;
        let metrics = self.engine.metric(numbers(&latents))?;
        Ok(array3(latents.nrows(), latents.ncols(), latents.ncols(), metrics))
    }

    /// Second derivatives weighted by adjoints, Σ_k w_k ∇²f_k(z): latents `[P, d]` and adjoints `[P, D]` to `[P, d, d]`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`](crate::Error::Shape) where the latents' width is not d, or the adjoints are not `[P, D]`.
    pub fn adjoint_hessian(&self, latents: ArrayView2<'_, T>, adjoints: ArrayView2<'_, T>) -> Result<Array3<T>> {
        let latents = self.latents(latents)?;
        let adjoints = beside("adjoints", adjoints, latents.nrows(), self.decoder.data_dim())?;
        let blocks = self.engine.adjoint_hessian(numbers(&latents), numbers(&adjoints))?;
        Ok(array3(latents.nrows(), latents.ncols(), latents.ncols(), blocks))
    }
}
