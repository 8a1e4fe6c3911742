//! Standard deviations that grow where there is no data.

use ndarray::{Array1, Array2};

use super::{Activation, Head, Layer};
use crate::error::{Error, Result};

impl Head {
    /// A standard deviation σ(z) of every output from a network of radial basis functions for the precision (G. Arvanitidis et al.,
    /// "Latent Space Oddity", 2018, section 4.1):
    ///
    /// ```text
    /// 1/σ²(z) = W v(z) + ζ        v_k(z) = exp(−λ_k ‖z − c_k‖²)
    /// ```
    ///
    /// with `centers` c `[K, d]`, `bandwidths` λ `[K]`, `weight` W `[D, K]` and `floor` ζ, `[1]` or `[D]`. Far from all centers σ is
    /// ζ^−½: geodesics of `Decoder::new(vec![mean, std])` stay near the data.
    ///
    /// The head is a chain of three layers: K · d differences squared, their sums and exponentials, the precision's root.
    ///
    /// # Errors
    ///
    /// [`Error::Decoder`] where shapes do not fit, a bandwidth or weight is negative or not finite, or ζ is not positive: σ
    /// would be infinite, or no number.
    pub fn rbf(
        name: impl Into<String>,
        centers: &Array2<f64>,
        bandwidths: &Array1<f64>,
        weight: &Array2<f64>,
        floor: &Array1<f64>,
    ) -> Result<Self> {
        let name = name.into();
        let refuse = |part: &str, problem: String| Err(Error::Decoder(format!("head `{name}`, {part}: {problem}")));
        let ((count, d), outputs) = (centers.dim(), weight.nrows());
        if count == 0 || d == 0 {
            return refuse("centers", format!("expected at least one center of one number, found [{count}, {d}]"));
        }
        if bandwidths.len() != count {
            return refuse(
                "bandwidths",
                format!("expected shape [{count}], one for every center, found [{}]", bandwidths.len()),
            );
        }
        if weight.ncols() != count || outputs == 0 {
            return refuse("weight", format!("expected shape [outputs, {count}], found {:?}", weight.shape()));
        }
        if floor.len() != 1 && floor.len() != outputs {
            return refuse("floor", format!("expected shape [1] or [{outputs}], found [{}]", floor.len()));
        }
        let first =
            |numbers: &mut dyn Iterator<Item = &f64>, good: fn(f64) -> bool| numbers.copied().find(|&x| !good(x));
        let at_least_0 = |x: f64| x >= 0.0 && x.is_finite();
        if let Some(c) = first(&mut centers.iter(), f64::is_finite) {
            return refuse("centers", format!("expected finite numbers, found {c}"));
        }
        if let Some(l) = first(&mut bandwidths.iter(), at_least_0) {
            return refuse("bandwidths", format!("expected finite numbers of at least 0, found {l}"));
        }
        if let Some(w) = first(&mut weight.iter(), at_least_0) {
            return refuse("weight", format!("expected finite numbers of at least 0, found {w}"));
        }
        if let Some(z) = first(&mut floor.iter(), |x| x > 0.0 && x.is_finite()) {
            return refuse("floor", format!("expected positive finite numbers (σ is infinite at 0), found {z}"));
        }
        // Differences rather than ‖z‖² − 2⟨c, z⟩ + ‖c‖²: near a center nothing cancels.
        let differences = Layer {
            weight: Array2::from_shape_fn((count * d, d), |(row, k)| f64::from(u8::from(row % d == k))),
            bias: centers.iter().map(|c| -c).collect(),
            activation: Activation::Square,
        };
        let sums = Layer {
            weight: Array2::from_shape_fn((count, count * d), |(k, j)| if j / d == k { -bandwidths[k] } else { 0.0 }),
            bias: Array1::zeros(count),
            activation: Activation::Exp,
        };
        let root = Layer {
            weight: weight.clone(),
            bias: floor.broadcast(outputs).map_or_else(|| floor.clone(), |f| f.to_owned()),
            activation: Activation::Rsqrt,
        };
        Self::new(name, vec![differences, sums, root])
    }
}
