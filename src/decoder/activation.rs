//! Which activations a decoder may have.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// An activation φ, applied to every output of a linear layer.
///
/// Parameters are PyTorch's defaults: `leaky_relu` has slope 0.01, `elu` has α = 1. Where φ has a kink (the relu family),
/// the derivative at 0 is the one from the left, as in PyTorch, and the second derivative is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// x
    Identity,
    /// max(x, 0)
    Relu,
    /// max(x, 0) + 0.01 · min(x, 0)
    LeakyRelu,
    /// x for x > 0, e^x − 1 otherwise
    Elu,
    /// 1.0507 · (x for x > 0, 1.6733 · (e^x − 1) otherwise), G. Klambauer et al., 2017
    Selu,
    /// tanh x
    Tanh,
    /// 1 / (1 + e^−x)
    Sigmoid,
    /// log(1 + e^x)
    Softplus,
    /// x / (1 + e^−x), also called swish
    Silu,
    /// x · Φ(x), with Φ the cumulative distribution of the standard normal law
    Gelu,
    /// ½x · (1 + tanh(√(2/π) · (x + 0.044715 x³)))
    GeluTanh,
    /// sin x
    Sin,
}

impl Activation {
    /// Every activation, in the order in which the documentation lists them.
    pub const ALL: [Self; 12] = [
        Self::Identity,
        Self::Relu,
        Self::LeakyRelu,
        Self::Elu,
        Self::Selu,
        Self::Tanh,
        Self::Sigmoid,
        Self::Softplus,
        Self::Silu,
        Self::Gelu,
        Self::GeluTanh,
        Self::Sin,
    ];

    /// The name used in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Relu => "relu",
            Self::LeakyRelu => "leaky_relu",
            Self::Elu => "elu",
            Self::Selu => "selu",
            Self::Tanh => "tanh",
            Self::Sigmoid => "sigmoid",
            Self::Softplus => "softplus",
            Self::Silu => "silu",
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_tanh",
            Self::Sin => "sin",
        }
    }

    /// True where the second derivative is zero almost everywhere.
    pub fn is_piecewise_linear(self) -> bool {
        matches!(self, Self::Identity | Self::Relu | Self::LeakyRelu)
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Activation {
    type Err = Error;

    /// Reads a name as [`Activation::name`] writes it; case, `-` and `_` do not matter, and `swish` and `linear` are known too.
    fn from_str(text: &str) -> Result<Self, Error> {
        let plain = |s: &str| s.replace(['-', '_'], "").to_ascii_lowercase();
        let wanted = match plain(text).as_str() {
            "swish" => "silu".into(),
            "linear" | "none" => "identity".into(),
            other => other.to_owned(),
        };
        Self::ALL.into_iter().find(|a| plain(a.name()) == wanted).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Error::Decoder(format!("unknown activation `{text}`: expected one of {known}"))
        })
    }
}
