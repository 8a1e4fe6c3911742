//! How products are computed on a GPU.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// How a GPU computes the products of metrics, chord energies and geodesics; sums are in float32 whatever the precision.
///
/// Values, Jacobians and second derivatives that are asked for by themselves are in float32 throughout, and on the processor everything
/// is computed in the model's scalar type. On a GPU, decoders that the kernels for tensor cores do not take (a layer wider than 512, of a
/// linear last one its inputs, say) are computed in [`Float32`](Self::Float32); [`Model::precision`](crate::Model::precision) tells what
/// is used, and `pullback precision` measures how far each is from float64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Float32 multiplications and additions, without tensor cores.
    Float32,
    /// Tensor cores, with every factor split into two TF32 numbers and three of their products: about as accurate as float32.
    #[default]
    Tf32x3,
    /// Tensor cores, with factors rounded to TF32, which has 11 significant bits: for a first look.
    Tf32,
    /// Tensor cores, with factors rounded to bfloat16, which has 8 significant bits: for a first look.
    Bf16,
    /// Geodesics start in [`Tf32`](Self::Tf32) and end in [`Tf32x3`](Self::Tf32x3), in which metrics and energies are computed, and
    /// geodesics from given curves and those with few iterations allowed.
    Mixed,
}

impl Precision {
    /// Every precision, in the order in which the documentation lists them.
    pub const ALL: [Self; 5] = [Self::Float32, Self::Tf32x3, Self::Tf32, Self::Bf16, Self::Mixed];

    /// The name used in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Tf32x3 => "tf32x3",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
            Self::Mixed => "mixed",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Precision {
    type Err = Error;

    /// Reads a name as [`Precision::name`] writes it; case, `-` and `_` do not matter.
    fn from_str(text: &str) -> Result<Self, Error> {
        let wanted = text.replace(['-', '_'], "").to_ascii_lowercase();
        Self::ALL.into_iter().find(|p| p.name() == wanted).ok_or_else(|| Error::Option {
            name: "precision",
            expected: "float32, tf32x3, tf32, bf16 or mixed",
            found: format!("`{text}`"),
        })
    }
}
