//! What is computed: decoders as chains of linear layers and activations.

mod activation;
mod batch_norm;
mod compress;
mod ensemble;
mod file;
mod information;
mod rbf;
mod soften;
mod stages;
mod surfaces;

pub use activation::Activation;
pub use file::FileOptions;
pub use information::Likelihood;

use ndarray::{Array1, Array2, Axis};

use crate::error::{Error, Result};

/// One linear layer and the activation behind it: a ↦ φ(W a + b).
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// W, `[out, in]`, as PyTorch stores it.
    pub weight: Array2<f64>,
    /// b, `[out]`.
    pub bias: Array1<f64>,
    /// φ.
    pub activation: Activation,
}

impl Layer {
    /// Width of what comes in.
    pub fn inputs(&self) -> usize {
        self.weight.ncols()
    }

    /// Width of what goes out.
    pub fn outputs(&self) -> usize {
        self.weight.nrows()
    }

    /// True where W is zero below its diagonal, as behind [`Decoder::compressed`].
    pub(crate) fn is_triangular(&self) -> bool {
        self.outputs() <= self.inputs() && self.weight.indexed_iter().all(|((i, j), &w)| i <= j || w == 0.0)
    }
}

/// One chain of layers from the latent space to a part of the data space.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    name: String,
    layers: Vec<Layer>,
    /// Multiplied into the outputs; `None` where it is 1.
    scale: Option<Array1<f64>>,
}

impl Head {
    /// A head of at least one layer; `name` appears in messages, such as `decoder` or `mean`.
    ///
    /// # Errors
    ///
    /// [`Error::Decoder`] where there is no layer, a layer is empty, a bias has another length than its layer has outputs, a
    /// layer's inputs are not the outputs of the one before, or a weight is not finite.
    pub fn new(name: impl Into<String>, layers: Vec<Layer>) -> Result<Self> {
        let name = name.into();
        let refuse = |k: usize, problem: String| Err(Error::Decoder(format!("head `{name}`, layer {k}: {problem}")));
        if layers.is_empty() {
            return Err(Error::Decoder(format!("head `{name}`: expected at least one layer, found none")));
        }
        for (k, layer) in layers.iter().enumerate() {
            let (outputs, inputs) = layer.weight.dim();
            if outputs == 0 || inputs == 0 {
                return refuse(
                    k,
                    format!("expected a weight with at least one row and column, found [{outputs}, {inputs}]"),
                );
            }
            if layer.bias.len() != outputs {
                return refuse(k, format!("expected a bias of shape [{outputs}], found [{}]", layer.bias.len()));
            }
            if k > 0 && inputs != layers[k - 1].outputs() {
                let before = layers[k - 1].outputs();
                return refuse(
                    k,
                    format!(
                        "expected a weight of shape [{outputs}, {before}] behind a layer of {before} outputs, found [{outputs}, {inputs}]"
                    ),
                );
            }
            if !layer.activation.is_elementwise() && k + 1 < layers.len() {
                return refuse(
                    k,
                    format!("expected {} behind the last layer alone, found it before", layer.activation),
                );
            }
            if let Some(((row, column), value)) = layer.weight.indexed_iter().find(|(_, v)| !v.is_finite()) {
                return refuse(k, format!("weight [{row}, {column}] is {value}: expected finite weights"));
            }
            if let Some((row, value)) = layer.bias.indexed_iter().find(|(_, v)| !v.is_finite()) {
                return refuse(k, format!("bias [{row}] is {value}: expected finite biases"));
            }
        }
        Ok(Self { name, layers, scale: None })
    }

    /// The name given to [`Head::new`], or the key prefix in the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The layers, from the latent space outwards.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// What is multiplied into the outputs, `[data_dim]`: see [`Decoder::weighted`]. `None` stands for 1.
    pub fn scale(&self) -> Option<&Array1<f64>> {
        self.scale.as_ref()
    }

    fn last(&self) -> &Layer {
        &self.layers[self.layers.len() - 1]
    }

    /// The same head with other outputs: factor ∘ f.
    fn scaled(&self, factor: &Array1<f64>) -> Self {
        let mut head = self.clone();
        match head.layers.last_mut() {
            Some(last) if last.activation == Activation::Identity => {
                last.weight *= &factor.view().insert_axis(Axis(1));
                last.bias *= factor;
            }
            _ => {
                head.scale = Some(match &self.scale {
                    Some(scale) => scale * factor,
                    None => factor.clone(),
                });
            }
        }
        head
    }

    /// Width of the latent space.
    pub fn latent_dim(&self) -> usize {
        self.layers[0].inputs()
    }

    /// Number of outputs.
    pub fn data_dim(&self) -> usize {
        self.last().outputs()
    }
}

/// How chords between two outputs are measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Geometry {
    /// ‖f(z) − f(z′)‖.
    #[default]
    Euclidean,
    /// The first so many heads are independent members of an ensemble: the expected chord, see [`Decoder::ensemble`].
    Ensemble(usize),
    /// The first two heads are means and standard deviations: the Fisher–Rao metric, see [`Likelihood::Gaussian`].
    Gaussian,
}

/// A map f: R^d → R^D that pulls the Euclidean metric of the data space back to the latent space.
///
/// One or more heads on the same latent input, their outputs concatenated: with heads for the mean and the standard
/// deviation, the pullback metric is the expected metric JμᵀJμ + JσᵀJσ of a stochastic decoder (G. Arvanitidis et al.,
/// "Latent Space Oddity", 2018, theorem 1).
///
/// Weights are kept in `f64`, which holds every supported file format exactly.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoder {
    heads: Vec<Head>,
    geometry: Geometry,
}

impl Decoder {
    /// A decoder of at least one head, all on the same latent space.
    ///
    /// # Errors
    ///
    /// [`Error::Decoder`] where there is no head or the heads' latent dimensions differ.
    pub fn new(heads: Vec<Head>) -> Result<Self> {
        let Some(first) = heads.first() else {
            return Err(Error::Decoder("expected at least one head, found none".into()));
        };
        let dim = first.latent_dim();
        if let Some(other) = heads.iter().find(|head| head.latent_dim() != dim) {
            return Err(Error::Decoder(format!(
                "head `{}`: expected the latent dimension {dim} of head `{}`, found {}",
                other.name,
                first.name,
                other.latent_dim()
            )));
        }
        Ok(Self { heads, geometry: Geometry::Euclidean })
    }

    /// The heads, in the order of their outputs.
    pub fn heads(&self) -> &[Head] {
        &self.heads
    }

    /// How chords between outputs are measured.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// d, the dimension of the latent space.
    pub fn latent_dim(&self) -> usize {
        self.heads[0].latent_dim()
    }

    /// D, the dimension of the data space: the sum over the heads.
    pub fn data_dim(&self) -> usize {
        self.heads.iter().map(Head::data_dim).sum()
    }

    /// Number of weights and biases.
    pub fn parameters(&self) -> usize {
        self.heads.iter().flat_map(Head::layers).map(|l| l.weight.len() + l.bias.len()).sum()
    }
}
