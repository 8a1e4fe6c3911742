//! Other measures of the data space: weights of single outputs, and the information metric of what the outputs are parameters of.

use std::fmt;
use std::str::FromStr;

use ndarray::{Array1, Axis, Slice};

use super::{Activation, Decoder, Geometry};
use crate::error::{Error, Result};

/// The law that a decoder's outputs are parameters of: see [`Decoder::fisher_rao`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Likelihood {
    /// Every output is the probability p of a Bernoulli law, by a sigmoid: ds² = Σ dp² / (p (1 − p)).
    Bernoulli,
    /// All outputs of a head together are the probabilities of a categorical law, by a softmax: ds² = Σ dp² / p.
    Categorical,
    /// The outputs of two heads are means μ and standard deviations σ of normal laws: ds² = Σ (dμ² + 2 dσ²) / σ².
    Gaussian,
}

impl Likelihood {
    /// Every one of them.
    pub const ALL: [Self; 3] = [Self::Bernoulli, Self::Categorical, Self::Gaussian];

    /// The name used on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bernoulli => "bernoulli",
            Self::Categorical => "categorical",
            Self::Gaussian => "gaussian",
        }
    }
}

impl fmt::Display for Likelihood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Likelihood {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|l| l.name().eq_ignore_ascii_case(text)).ok_or_else(|| {
            Error::Decoder(format!("unknown likelihood `{text}`: expected bernoulli, categorical or gaussian"))
        })
    }
}

impl Decoder {
    /// The pullback of the Fisher–Rao metric of the law that the outputs are parameters of (G. Arvanitidis et al., "Pulling back
    /// information geometry", 2022), as a decoder again.
    ///
    /// | law | the decoder's outputs become | chords |
    /// | --- | --- | --- |
    /// | Bernoulli | 2 arcsin √p, from the logits: nothing is lost at p → 0 and p → 1 | Euclidean |
    /// | categorical | 2 √p, on a sphere of radius 2 | Euclidean |
    /// | Gaussian | stay μ and σ | ((Δμ)² + 2 (Δσ)²) / (σ σ′), summed: the Euclidean chord of the half-plane's hyperboloid in R^{2,1} |
    ///
    /// # Errors
    ///
    /// [`Error::Decoder`] where the outputs are no such parameters: a head without a sigmoid (Bernoulli) or softmax (categorical)
    /// behind its last layer, or (Gaussian) not two heads of as many outputs, the second with an activation that is positive.
    pub fn fisher_rao(&self, likelihood: Likelihood) -> Result<Self> {
        let refuse =
            |problem: String| Err(Error::Decoder(format!("Fisher–Rao metric of {likelihood} outputs: {problem}")));
        if self.geometry != Geometry::Euclidean {
            return refuse("expected a decoder with Euclidean outputs, found an ensemble or Gaussian outputs".into());
        }
        if let Some(head) = self.heads.iter().find(|head| head.scale.is_some()) {
            return refuse(format!("expected outputs without weights, found head `{}` with some", head.name));
        }
        let mut decoder = self.clone();
        let (probability, angle) = match likelihood {
            Likelihood::Bernoulli => (Activation::Sigmoid, Activation::SigmoidAngle),
            Likelihood::Categorical => (Activation::Softmax, Activation::SoftmaxAngle),
            Likelihood::Gaussian => {
                let [mean, std] = &self.heads[..] else {
                    let found = self.heads.len();
                    return refuse(format!("expected two heads, means and standard deviations, found {found}"));
                };
                if mean.data_dim() != std.data_dim() {
                    let (expected, found) = (mean.data_dim(), std.data_dim());
                    return refuse(format!(
                        "expected {expected} standard deviations of head `{}`, one for every mean, found {found}",
                        std.name
                    ));
                }
                if !std.last().activation.is_positive() {
                    return refuse(format!(
                        "expected standard deviations that are positive, by softplus, exp, sigmoid or rsqrt behind the last layer of head `{}`, found {}",
                        std.name,
                        std.last().activation
                    ));
                }
                decoder.geometry = Geometry::Gaussian;
                return Ok(decoder);
            }
        };
        for head in &mut decoder.heads {
            if let Some(last) = head.layers.last_mut() {
                if last.activation != probability {
                    return refuse(format!(
                        "expected probabilities, by {probability} behind the last layer of head `{}`, found {}",
                        head.name, last.activation
                    ));
                }
                last.activation = angle;
            }
        }
        Ok(decoder)
    }

    /// The decoder with weights w ≥ 0 on its outputs: chords are √(Σ_k w_k (Δf_k)²), the metric is Jᵀ diag(w) J.
    ///
    /// `weights` are `[D]`; of an ensemble those of one member, `[D / M]`, or of all. Values become √w_k f_k.
    ///
    /// # Errors
    ///
    /// [`Error::Decoder`] where there is not one weight for every output, one is negative or not finite, or the outputs are those of
    /// a Gaussian law, whose metric does not change with the scale of the data.
    pub fn weighted(&self, weights: &[f64]) -> Result<Self> {
        let refuse = |problem: String| Err(Error::Decoder(format!("weights: {problem}")));
        let (width, count) = (self.data_dim(), weights.len());
        let member = match self.geometry {
            Geometry::Gaussian => return refuse("expected none with the Fisher–Rao metric of gaussian outputs".into()),
            Geometry::Ensemble(_) => self.heads[0].data_dim(),
            Geometry::Euclidean => width,
        };
        if let Some((k, w)) = weights.iter().enumerate().find(|(_, w)| !(**w >= 0.0 && w.is_finite())) {
            return refuse(format!("expected finite numbers of at least 0, found {w} at {k}"));
        }
        if count != width && !(count == member && width.is_multiple_of(member)) {
            return refuse(format!("expected {member}, one for every output, found {count}"));
        }
        let roots: Array1<f64> = (0..width).map(|k| weights[k % count].sqrt()).collect();
        let mut decoder = self.clone();
        let mut offset = 0;
        for head in &mut decoder.heads {
            let end = offset + head.data_dim();
            *head = head.scaled(&roots.slice_axis(Axis(0), Slice::from(offset..end)).to_owned());
            offset = end;
        }
        Ok(decoder)
    }
}
