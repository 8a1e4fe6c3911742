//! The differential J of the decoder, its adjoint Jᵀ, and lengths and angles of latent vectors.

use ndarray::{Array1, Array2, ArrayView2};

use super::{Model, array2, beside, numbers};
use crate::cpu::maps::Pair;
use crate::error::Result;
use crate::scalar::Scalar;

impl<T: Scalar> Model<T> {
    /// The push-forward J v: latents and vectors `[P, d]` to `[P, D]`, the velocity in data space of a latent that moves with velocity v.
    ///
    /// It costs one row through the layers beside the value, not d. NaN where the latent or the vector is not finite.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`](crate::Error::Shape) where the latents' width is not d, or the vectors are not `[P, d]`.
    pub fn push_forward(&self, latents: ArrayView2<'_, T>, vectors: ArrayView2<'_, T>) -> Result<Array2<T>> {
        let latents = self.latents(latents)?;
        let vectors = beside("vectors", vectors, latents.nrows(), latents.ncols())?;
        let pushed = self.engine.push_forward(numbers(&latents), numbers(&vectors))?;
        Ok(array2(latents.nrows(), self.decoder.data_dim(), pushed))
    }

    /// The pull-back Jᵀ w: latents `[P, d]` and covectors `[P, D]` to `[P, d]`; of the gradient of a function of the data, that is the
    /// gradient of the function of the latents.
    ///
    /// It costs one row forward and one back. NaN where the latent or the covector is not finite.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`](crate::Error::Shape) where the latents' width is not d, or the covectors are not `[P, D]`.
    pub fn pull_back(&self, latents: ArrayView2<'_, T>, covectors: ArrayView2<'_, T>) -> Result<Array2<T>> {
        let latents = self.latents(latents)?;
        let covectors = beside("covectors", covectors, latents.nrows(), self.decoder.data_dim())?;
        let pulled = self.engine.pull_back(numbers(&latents), numbers(&covectors))?;
        Ok(array2(latents.nrows(), latents.ncols(), pulled))
    }

    /// The Riemannian inner product ⟨u, v⟩ = uᵀ G v = (J u)·(J v): latents and vectors `[P, d]` to `[P]`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`](crate::Error::Shape) where the latents' width is not d, or u or v is not `[P, d]`.
    pub fn inner(&self, latents: ArrayView2<'_, T>, u: ArrayView2<'_, T>, v: ArrayView2<'_, T>) -> Result<Array1<T>> {
        let latents = self.latents(latents)?;
        let [u, v] = [("u", u), ("v", v)].map(|(what, rows)| beside(what, rows, latents.nrows(), latents.ncols()));
        let products = self.engine.pair(numbers(&latents), [numbers(&u?), numbers(&v?)], |pair| pair.uv)?;
        Ok(Array1::from_vec(products))
    }

    /// The Riemannian length ‖u‖ = √⟨u, u⟩ of a tangent vector: latents and vectors `[P, d]` to `[P]`, in units of the data space.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`](crate::Error::Shape) where the latents' width is not d, or u is not `[P, d]`.
    pub fn norm(&self, latents: ArrayView2<'_, T>, u: ArrayView2<'_, T>) -> Result<Array1<T>> {
        let latents = self.latents(latents)?;
        let u = beside("u", u, latents.nrows(), latents.ncols())?;
        let lengths = self.engine.square(numbers(&latents), numbers(&u), f64::sqrt)?;
        Ok(Array1::from_vec(lengths))
    }

    /// The angle between J u and J v: latents and vectors `[P, d]` to `[P]`, in radians from 0 to π.
    ///
    /// It is atan2(‖u‖ ‖w‖, ⟨u, v⟩) with the part w = v − (⟨u, v⟩/⟨u, u⟩) u of v across u, which is accurate for every angle, near 0 and π
    /// too, where an arc cosine is not. NaN where u or v has length 0.
    ///
    /// ```
    /// use ndarray::array;
    /// use pullback::{Decoder, Device};
    ///
    /// let model = Device::cpu().load(&Decoder::sphere(1.0))?;
    /// let (z, u, v) = (array![[0.5, 0.0]], array![[1.0, 0.0]], array![[1.0, 1.0]]);
    /// let angle = model.angle(z.view(), u.view(), v.view())?; // tan = sin θ
    /// assert!((angle[0] - 0.5f32.sin().atan()).abs() < 1e-6);
    /// # Ok::<(), pullback::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Shape`](crate::Error::Shape) where the latents' width is not d, or u or v is not `[P, d]`.
    pub fn angle(&self, latents: ArrayView2<'_, T>, u: ArrayView2<'_, T>, v: ArrayView2<'_, T>) -> Result<Array1<T>> {
        let latents = self.latents(latents)?;
        let [u, v] = [("u", u), ("v", v)].map(|(what, rows)| beside(what, rows, latents.nrows(), latents.ncols()));
        let angles = self.engine.pair(numbers(&latents), [numbers(&u?), numbers(&v?)], Pair::angle)?;
        Ok(Array1::from_vec(angles))
    }
}
