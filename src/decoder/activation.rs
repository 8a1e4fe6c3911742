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
    /// x²
    Square,
    /// e^x: a standard deviation from its logarithm, say
    Exp,
    /// 1 / √x for x > 0: a standard deviation from a precision
    Rsqrt,
    /// 2 · arcsin √p of the probability p = 1 / (1 + e^−x): the Fisher–Rao metric of a Bernoulli law is the Euclidean one in it
    SigmoidAngle,
    /// p_k = e^(x_k) / Σ_j e^(x_j) over all outputs of the last layer
    Softmax,
    /// 2 · √p_k of the softmax p: the Fisher–Rao metric of a categorical law is the Euclidean one in it
    SoftmaxAngle,
}

impl Activation {
    /// Every activation, in the order in which the documentation lists them.
    pub const ALL: [Self; 18] = [
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
        Self::Square,
        Self::Exp,
        Self::Rsqrt,
        Self::SigmoidAngle,
        Self::Softmax,
        Self::SoftmaxAngle,
    ];

    /// Those that stand behind any layer and grow no faster than their argument: the first of [`Activation::ALL`].
    pub const COMMON: [Self; 12] = {
        let mut common = [Self::Identity; 12];
        let mut k = 0;
        while k < common.len() {
            common[k] = Self::ALL[k];
            k += 1;
        }
        common
    };

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
            Self::Square => "square",
            Self::Exp => "exp",
            Self::Rsqrt => "rsqrt",
            Self::SigmoidAngle => "sigmoid_angle",
            Self::Softmax => "softmax",
            Self::SoftmaxAngle => "softmax_angle",
        }
    }

    /// True where every output depends on one input alone; the others stand behind the last layer of a head only.
    pub fn is_elementwise(self) -> bool {
        !matches!(self, Self::Softmax | Self::SoftmaxAngle)
    }

    /// True where no output is 0 or negative, whatever the weights.
    pub fn is_positive(self) -> bool {
        matches!(self, Self::Sigmoid | Self::Softplus | Self::Exp | Self::Rsqrt | Self::Softmax)
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
