//! Ensembles of decoders.

use ndarray::{Array1, Array2};

use super::{Activation, Decoder, Geometry, Head, Layer};
use crate::error::{Error, Result};

impl Decoder {
    /// An ensemble of M independent decoders with the same latent and data space, whose disagreement tells where there is no data.
    ///
    /// The energy of a curve is the expected one of chords between members drawn independently at every point (C. Syrota et al.,
    /// "Decoder ensembling for learned latent geometries", 2024):
    ///
    /// ```text
    /// E = N/2 · Σ_i E‖f_a(z_{i+1}) − f_b(z_i)‖² = N/2 · Σ_i (‖m_{i+1} − m_i‖² + v_{i+1} + v_i)
    /// ```
    ///
    /// with m the members' mean and v = 1/M · Σ_c ‖f_c − m‖² their total variance. It grows with N², as v does not shrink with the
    /// segments; its length is Σ √(‖m_{i+1} − m_i‖² + v_{i+1} + v_i). The metric is the expected one, 1/M · Σ_c J_cᵀJ_c.
    /// Values and Jacobians are those of all members, side by side: D is M times a member's.
    ///
    /// # Errors
    ///
    /// [`Error::Decoder`] where there are fewer than two members or their latent or data dimensions differ.
    pub fn ensemble(members: Vec<Head>) -> Result<Self> {
        let count = members.len();
        let Self { heads, .. } = Self::new(members)?;
        let first = &heads[0];
        if count < 2 {
            return Err(Error::Decoder(format!(
                "ensemble: expected at least two members, found `{}` alone",
                first.name
            )));
        }
        if let Some(other) = heads.iter().find(|head| head.data_dim() != first.data_dim()) {
            return Err(Error::Decoder(format!(
                "ensemble: expected {} outputs of member `{}`, as `{}` has, found {}",
                first.data_dim(),
                other.name,
                first.name,
                other.data_dim()
            )));
        }
        Ok(Self { heads, geometry: Geometry::Ensemble(count) })
    }

    /// The decoder (f, √ε · z), whose metric is G + ε I: without directions of length 0, for decoders that do not use all of their
    /// latents.
    ///
    /// Energies, lengths and geodesics are those of that metric. ε = 0 gives the decoder itself.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] where ε is negative or not finite.
    pub fn regularised(&self, epsilon: f64) -> Result<Self> {
        if !(epsilon >= 0.0 && epsilon.is_finite()) {
            return Err(Error::Option {
                name: "epsilon",
                expected: "a finite number of at least 0",
                found: epsilon.to_string(),
            });
        }
        let mut decoder = self.clone();
        if epsilon > 0.0 {
            let d = self.latent_dim();
            let weight = Array2::from_diag_elem(d, epsilon.sqrt());
            let layer = Layer { weight, bias: Array1::zeros(d), activation: Activation::Identity };
            decoder.heads.push(Head::new("epsilon", vec![layer])?);
        }
        Ok(decoder)
    }
}
