//! A decoder's weights in the precision and layout of the CPU path, and the products with them.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

use crate::decoder::{Activation, Decoder, Head, Layer};
use crate::scalar::Scalar;

/// One linear layer with its activation.
pub(crate) struct Dense<T> {
    /// `[outputs, inputs]`, row-major.
    pub weight: Vec<T>,
    pub bias: Vec<T>,
    pub inputs: usize,
    pub outputs: usize,
    pub activation: Activation,
}

impl<T: Scalar> Dense<T> {
    fn new(layer: &Layer) -> Self {
        Self {
            weight: layer.weight.iter().map(|&w| T::from_f64(w)).collect(),
            bias: layer.bias.iter().map(|&b| T::from_f64(b)).collect(),
            inputs: layer.inputs(),
            outputs: layer.outputs(),
            activation: layer.activation,
        }
    }

    /// `output[r] = W · input[r]` for every row: `[rows, inputs]` to `[rows, outputs]`.
    pub fn forward(&self, rows: usize, input: &[T], output: &mut [T]) {
        let weight = MatRef::from_row_major_slice(&self.weight, self.outputs, self.inputs);
        product(rows, input, weight.transpose(), output);
    }

    /// `output[r] = Wᵀ · input[r]` for every row: `[rows, outputs]` to `[rows, inputs]`.
    pub fn backward(&self, rows: usize, input: &[T], output: &mut [T]) {
        let weight = MatRef::from_row_major_slice(&self.weight, self.outputs, self.inputs);
        product(rows, input, weight, output);
    }
}

/// `output = input · matrix`, rows of the slices being rows of the matrices.
///
/// Each row's bits depend on that row alone, except that a product of a single row sums in another order: buffers have a
/// spare row (see [`with_spare_row`]), so that it is never taken alone.
fn product<T: Scalar>(rows: usize, input: &[T], matrix: MatRef<'_, T>, output: &mut [T]) {
    let rows = rows.max(2);
    let (inner, outer) = (matrix.nrows(), matrix.ncols());
    matmul(
        MatMut::from_row_major_slice_mut(&mut output[..rows * outer], rows, outer),
        Accum::Replace,
        MatRef::from_row_major_slice(&input[..rows * inner], rows, inner),
        matrix,
        T::ONE,
        Par::Seq,
    );
}

/// Zeros for `rows` rows of `width` numbers, and one row more than asked for.
pub(crate) fn with_spare_row<T: Scalar>(rows: usize, width: usize) -> Vec<T> {
    vec![T::ZERO; (rows + 1).max(2) * width]
}

/// One head: layers, and where its outputs and its derivatives stand among those of all heads.
pub(crate) struct Chain<T> {
    pub layers: Vec<Dense<T>>,
    /// First of this head's outputs in a row of data space.
    pub output_offset: usize,
    /// Number of the first layer when the layers of all heads are counted through.
    pub first_layer: usize,
}

impl<T> Chain<T> {
    pub fn last(&self) -> &Dense<T> {
        &self.layers[self.layers.len() - 1]
    }

    pub fn outputs(&self) -> usize {
        self.last().outputs
    }
}

/// All heads.
pub(crate) struct Network<T> {
    pub chains: Vec<Chain<T>>,
    pub latent_dim: usize,
    pub data_dim: usize,
    /// The widest layer, the latent and the data space included.
    pub widest: usize,
}

impl<T: Scalar> Network<T> {
    pub fn new(decoder: &Decoder) -> Self {
        let (mut output_offset, mut first_layer) = (0, 0);
        let chain = |head: &Head| {
            let chain = Chain { layers: head.layers().iter().map(Dense::new).collect(), output_offset, first_layer };
            output_offset += head.data_dim();
            first_layer += head.layers().len();
            chain
        };
        let chains: Vec<Chain<T>> = decoder.heads().iter().map(chain).collect();
        let widths = decoder.heads().iter().flat_map(Head::layers).map(Layer::outputs);
        Self {
            latent_dim: decoder.latent_dim(),
            data_dim: output_offset,
            widest: widths.max().unwrap_or(0).max(decoder.latent_dim()).max(output_offset),
            chains,
        }
    }

    /// Every layer with its number.
    pub fn layers(&self) -> impl Iterator<Item = &Dense<T>> {
        self.chains.iter().flat_map(|chain| &chain.layers)
    }
}
