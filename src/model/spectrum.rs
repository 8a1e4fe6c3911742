//! Eigenvalues of metrics, and what they tell of a decoder's directions and dimension.

use ndarray::{Array1, Array2, Array3, ArrayView1, ArrayView2};

use super::{Model, array2, array3, numbers};
use crate::cpu::spectrum::rank;
use crate::error::{Error, Result};
use crate::scalar::Scalar;

/// Eigenvalues λ_k and eigenvectors of the pullback metrics at P latents: G = Σ λ_k v_k v_kᵀ.
///
/// λ_k are the squares of the singular values of J, v_k its right singular vectors. An error of G, a few ε of its largest eigenvalue, is one
/// of every eigenvalue, so that singular values below √ε of the largest are rounding; [`Model::singular`] has those too, at a higher price.
#[derive(Clone, Debug, PartialEq)]
pub struct Spectrum<T> {
    /// λ_k, `[P, d]`, largest first; not negative.
    pub values: Array2<T>,
    /// v_k, `[P, d, d]`: row k of a point belongs to its value k. Orthonormal; each vector's largest number is positive.
    pub vectors: Array3<T>,
}

impl<T: Scalar> Spectrum<T> {
    /// The condition number of J (not of G), √(λ_max/λ_min), `[P]`: ∞ where the smallest is 0, NaN where G is 0
    /// or not finite. Beyond 1/√ε it is rounding: [`Model::singular`] tells more.
    pub fn condition(&self) -> Array1<T> {
        self.of_each(|values| match (values.first(), values.last()) {
            (Some(largest), Some(smallest)) => (*largest / *smallest).root(),
            _ => T::ONE,
        })
    }

    /// How many eigenvalues exceed `threshold` times the largest, `[P]`: the dimension of the surface, as far as the decoder resolves it. It is
    /// 0 where G is 0 or not finite. A threshold of 0 counts rounding too.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] where the threshold is not in [0, 1).
    pub fn effective_rank(&self, threshold: f64) -> Result<Array1<usize>> {
        let threshold = check_threshold(threshold)?;
        Ok(self.of_each(|values| rank(values.iter(), threshold)))
    }

    /// The participation ratio (Σ λ_k)² / Σ λ_k², `[P]`: how many directions of the latent space move the data, counted smoothly, from 1
    /// (one direction alone) to d (all alike); [`Spectrum::effective_rank`] is the hard count. NaN where G is 0 or not finite.
    pub fn intrinsic_dimension(&self) -> Array1<T> {
        self.of_each(|values| {
            // Shares of the largest do not overflow.
            let shares = || values.iter().map(|x| x.to_f64() / values[0].to_f64());
            let (sum, squares) = (shares().sum::<f64>(), shares().map(|x| x * x).sum::<f64>());
            T::from_f64(sum * sum / squares)
        })
    }

    fn of_each<A>(&self, measure: impl Fn(ArrayView1<'_, T>) -> A) -> Array1<A> {
        self.values.rows().into_iter().map(measure).collect()
    }
}

fn check_threshold<T: Scalar>(threshold: f64) -> Result<T> {
    if (0.0..1.0).contains(&threshold) {
        return Ok(T::from_f64(threshold));
    }
    Err(Error::Option { name: "threshold", expected: "a number from 0 to 1, without 1", found: threshold.to_string() })
}

impl<T: Scalar> Model<T> {
    /// Eigenvalues and eigenvectors of the metric: latents `[P, d]` to values `[P, d]` and vectors `[P, d, d]`; NaN where the latent or
    /// the metric is not finite.
    ///
    /// ```
    /// use ndarray::array;
    /// use pullback::{Decoder, Device};
    ///
    /// let model = Device::cpu().load_as::<f64>(&Decoder::clifford_torus(1.0, 2.0))?;
    /// let spectrum = model.spectrum(array![[0.3, 0.4]].view())?;
    /// assert!((spectrum.values[[0, 0]] - 4.0).abs() < 1e-12); // the second direction is stretched twice
    /// assert!((spectrum.vectors[[0, 0, 1]] - 1.0).abs() < 1e-12);
    /// assert!((spectrum.condition()[0] - 2.0).abs() < 1e-12);
    /// assert_eq!(spectrum.effective_rank(0.5)?[0], 1);
    /// # Ok::<(), pullback::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the latents' width is not d.
    pub fn spectrum(&self, latents: ArrayView2<'_, T>) -> Result<Spectrum<T>> {
        let latents = self.latents(latents)?;
        let (points, d) = latents.dim();
        let [values, vectors] = self.engine.spectrum(numbers(&latents))?;
        Ok(Spectrum { values: array2(points, d, values), vectors: array3(points, d, d, vectors) })
    }

    /// The metric without its weak directions: latents `[P, d]` to Σ λ_k v_k v_kᵀ over the eigenvalues above `threshold` times the largest,
    /// `[P, d, d]`, and how many those are, `[P]`. Where they are all d of them it is the metric itself, to the bit.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the latents' width is not d, [`Error::Option`] where the threshold is not in [0, 1).
    pub fn truncated_metric(&self, latents: ArrayView2<'_, T>, threshold: f64) -> Result<(Array3<T>, Array1<usize>)> {
        let threshold = check_threshold(threshold)?;
        let latents = self.latents(latents)?;
        let (points, d) = latents.dim();
        let [metrics, ranks] = self.engine.truncated_metric(numbers(&latents), threshold)?;
        let ranks = ranks.iter().map(|r| if r.finite() { r.to_f64() as usize } else { 0 }).collect();
        Ok((array3(points, d, d, metrics), ranks))
    }
}
