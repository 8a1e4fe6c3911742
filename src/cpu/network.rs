//! A decoder's weights in the precision and layout of the CPU path, and the products with them.

use std::ops::Range;

use faer::linalg::matmul::matmul;
use faer::reborrow::ReborrowMut;
use faer::{Accum, MatMut, MatRef, Par};
use ndarray::Array1;

use super::activation::{Order, activate};
use super::jacobian::scale_rows;
use super::jet::Jet;
use super::simd::vectorised;
use super::{gram, softmax};
use crate::decoder::{Activation, Decoder, Geometry, Head, Layer};
use crate::scalar::Scalar;

/// Columns of a product with a triangular matrix that are computed together: narrower ones leave out more zeros, wider ones go faster.
const TRIANGLE_BLOCK: usize = 32;

/// One linear layer with its activation.
pub(crate) struct Dense<T> {
    /// `[outputs, inputs]`, row-major.
    pub weight: Vec<T>,
    pub bias: Vec<T>,
    pub inputs: usize,
    pub outputs: usize,
    pub activation: Activation,
    /// W is zero below its diagonal, so that products with it are half the work.
    is_triangular: bool,
    /// Multiplied into φ, `[outputs]`; empty for 1.
    pub scale: Vec<T>,
}

impl<T: Scalar> Dense<T> {
    fn new(layer: &Layer, scale: Option<&Array1<f64>>) -> Self {
        Self {
            scale: scale.into_iter().flatten().map(|&s| T::from_f64(s)).collect(),
            weight: layer.weight.iter().map(|&w| T::from_f64(w)).collect(),
            bias: layer.bias.iter().map(|&b| T::from_f64(b)).collect(),
            inputs: layer.inputs(),
            outputs: layer.outputs(),
            activation: layer.activation,
            is_triangular: layer.is_triangular(),
        }
    }

    /// True where φ is the identity.
    pub fn is_linear(&self) -> bool {
        self.activation == Activation::Identity
    }

    /// φ' of so many points out of what [`Dense::activate`] wrote; nothing where it is 1.
    pub fn stored<'a>(&self, first: &'a [T], points: usize) -> &'a [T] {
        if self.is_linear() { &[] } else { &first[..points * self.outputs] }
    }

    /// Adds the bias to the products W a in `pre` `[rows, outputs]`, replaces them by φ, and writes φ' and φ'' as far as `order` asks:
    /// see [`activate`].
    pub fn activate(&self, order: Order, pre: &mut [T], first: &mut [T], second: &mut [T]) {
        activate(self.activation, order, &self.bias, pre, first, second);
        if self.scale.is_empty() {
            return;
        }
        multiply_rows(pre, &self.scale);
        if self.activation.is_elementwise() {
            multiply_rows(first, &self.scale);
            multiply_rows(second, &self.scale);
        }
    }

    /// `rows` tangents a point through φ: from `pre` to `post`, both `[points, rows, outputs]`, with φ' `[points, outputs]` from
    /// [`Dense::activate`] (empty where it is 1).
    pub fn push_forward(&self, rows: usize, first: &[T], pre: &[T], post: &mut [T]) {
        if self.activation.is_elementwise() {
            scale_rows(rows, self.outputs, first, pre, post);
        } else {
            softmax::scale_rows(self.activation, rows, self.outputs, first, pre, post);
            multiply_rows(post, &self.scale);
        }
    }

    /// Rows of a jet at one point through an activation whose outputs depend on all inputs.
    pub fn bend_together(&self, jet: Jet<'_>, first: &[T], rows: &mut [T]) {
        softmax::bend(self.activation, jet, self.outputs, first, rows);
        multiply_rows(rows, &self.scale);
    }

    /// From ∂(r · f)/∂a to ∂(r · f)/∂h in `adjoint` `[points, outputs]`.
    pub fn pull_back(&self, first: &[T], adjoint: &mut [T]) {
        if !self.activation.is_elementwise() {
            multiply_rows(adjoint, &self.scale);
            softmax::multiply(self.activation, self.outputs, first, adjoint);
        } else if !first.is_empty() {
            multiply(adjoint, first);
        }
    }

    /// The same with T · diag(∂(r · f)/∂a ∘ φ'') · Tᵀ added to `out` `[points, d, d]`, for tangents T in `pre`.
    ///
    /// φ'' is used up; it is empty where it is 0. `row` is room for two rows.
    #[allow(clippy::too_many_arguments)] // one row of arrays per name in the formula
    pub fn pull_back_twice(
        &self,
        d: usize,
        pre: &[T],
        first: &[T],
        second: &mut [T],
        adjoint: &mut [T],
        row: &mut [T],
        out: &mut [T],
    ) {
        if !self.activation.is_elementwise() {
            multiply_rows(adjoint, &self.scale);
            softmax::add_curvature(self.activation, d, self.outputs, pre, first, adjoint, second, row, out);
            softmax::multiply(self.activation, self.outputs, first, adjoint);
            return;
        }
        if !second.is_empty() {
            multiply(second, adjoint);
            gram::add_weighted_gram(self.outputs, d, pre, second, row, out);
        }
        self.pull_back(first, adjoint);
    }

    /// `output[r] = W · input[r]` for every row: `[rows, inputs]` to `[rows, outputs]`.
    pub fn forward(&self, rows: usize, input: &[T], output: &mut [T]) {
        let inner = |block: &Range<usize>| if self.is_triangular { block.start..self.inputs } else { 0..self.inputs };
        product(rows, input, self.matrix().transpose(), output, self.block(), inner);
    }

    /// `output[r] = Wᵀ · input[r]` for every row: `[rows, outputs]` to `[rows, inputs]`.
    pub fn backward(&self, rows: usize, input: &[T], output: &mut [T]) {
        let inner =
            |block: &Range<usize>| if self.is_triangular { 0..block.end.min(self.outputs) } else { 0..self.outputs };
        product(rows, input, self.matrix(), output, self.block(), inner);
    }

    fn matrix(&self) -> MatRef<'_, T> {
        MatRef::from_row_major_slice(&self.weight, self.outputs, self.inputs)
    }

    /// Columns of a product that are computed together.
    fn block(&self) -> usize {
        if self.is_triangular { TRIANGLE_BLOCK } else { usize::MAX }
    }
}

/// `out[i] *= by[i]`.
pub(crate) fn multiply<T: Scalar>(out: &mut [T], by: &[T]) {
    vectorised(
        #[inline(always)]
        || {
            for (o, &b) in out.iter_mut().zip(by) {
                *o *= b;
            }
        },
    );
}

/// Every row of `out` times `by`; nothing where `by` is empty.
fn multiply_rows<T: Scalar>(out: &mut [T], by: &[T]) {
    if !by.is_empty() {
        out.chunks_exact_mut(by.len()).for_each(|row| multiply(row, by));
    }
}

/// `output = input · matrix`, rows of the slices being rows of the matrices, in blocks of so many columns at most; `inner` tells the rows of
/// the matrix that are not zero in a block.
///
/// Each row's bits depend on that row alone, except that a product of a single row sums in another order: buffers have a
/// spare row (see [`with_spare_row`]), so that it is never taken alone.
fn product<T: Scalar>(
    rows: usize,
    input: &[T],
    matrix: MatRef<'_, T>,
    output: &mut [T],
    block: usize,
    inner: impl Fn(&Range<usize>) -> Range<usize>,
) {
    let rows = rows.max(2);
    let (from, to) = (matrix.nrows(), matrix.ncols());
    let input = MatRef::from_row_major_slice(&input[..rows * from], rows, from);
    let mut output = MatMut::from_row_major_slice_mut(&mut output[..rows * to], rows, to);
    for first in (0..to).step_by(block) {
        let columns = first..to.min(first.saturating_add(block));
        let inner = inner(&columns);
        matmul(
            output.rb_mut().subcols_mut(columns.start, columns.len()),
            Accum::Replace,
            input.subcols(inner.start, inner.len()),
            matrix.submatrix(inner.start, columns.start, inner.len(), columns.len()),
            T::ONE,
            Par::Seq,
        );
    }
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
    /// How chords between outputs are measured. Of an ensemble, the members' outputs are divided by √M where it matters.
    pub geometry: Geometry,
}

impl<T: Scalar> Network<T> {
    pub fn new(decoder: &Decoder) -> Self {
        let (mut output_offset, mut first_layer) = (0, 0);
        let chain = |head: &Head| {
            let last = head.layers().len() - 1;
            let layers = head.layers().iter().enumerate();
            let layers = layers.map(|(k, layer)| Dense::new(layer, head.scale().filter(|_| k == last))).collect();
            let chain = Chain { layers, output_offset, first_layer };
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
            geometry: decoder.geometry(),
            chains,
        }
    }

    /// One head alone.
    pub fn of_head(head: &Head) -> Self {
        let layers: Vec<_> = head.layers().iter().map(|layer| Dense::new(layer, None)).collect();
        let widths = layers.iter().map(|l| l.outputs);
        Self {
            latent_dim: head.latent_dim(),
            data_dim: head.data_dim(),
            widest: widths.max().unwrap_or(0).max(head.latent_dim()),
            geometry: Geometry::Euclidean,
            chains: vec![Chain { layers, output_offset: 0, first_layer: 0 }],
        }
    }

    /// Which member of an ensemble a head is.
    pub fn member(&self, chain: &Chain<T>) -> Option<usize> {
        let member = chain.output_offset / chain.outputs();
        matches!(self.geometry, Geometry::Ensemble(members) if chain.output_offset < members * self.chains[0].outputs())
            .then_some(member)
    }

    /// Of a head of means, `Some(false)`; of one of standard deviations, `Some(true)`; where chords are Euclidean, `None`.
    pub fn is_std(&self, chain: &Chain<T>) -> Option<bool> {
        let width = self.chains[0].outputs();
        (self.geometry == Geometry::Gaussian && chain.output_offset < 2 * width).then_some(chain.output_offset > 0)
    }

    /// Every layer with its number.
    pub fn layers(&self) -> impl Iterator<Item = &Dense<T>> {
        self.chains.iter().flat_map(|chain| &chain.layers)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    /// Products that leave zeros out are those of the whole matrix, in both directions.
    #[test]
    fn products_with_a_triangular_layer() {
        const ROWS: usize = 5;
        for (outputs, inputs) in [(70, 90), (64, 64), (33, 40), (1, 3)] {
            let weight = |i: usize, j: usize| if i <= j { ((i * 31 + j * 17) % 23) as f64 - 11.3 } else { 0.0 };
            let layer = Layer {
                weight: Array2::from_shape_fn((outputs, inputs), |(i, j)| weight(i, j)),
                bias: Array1::zeros(outputs),
                activation: Activation::Identity,
            };
            let dense = Dense::<f64>::new(&layer, None);
            assert!(dense.is_triangular);
            let number = |k: usize| (k as f64 * 0.7).sin();
            let (from, to): (Vec<f64>, Vec<f64>) =
                ((0..ROWS * inputs).map(number).collect(), (0..ROWS * outputs).map(number).collect());
            let (mut forward, mut backward) = (vec![f64::NAN; to.len()], vec![f64::NAN; from.len()]);
            dense.forward(ROWS, &from, &mut forward);
            dense.backward(ROWS, &to, &mut backward);
            for row in 0..ROWS {
                for i in 0..outputs {
                    let expected: f64 = (0..inputs).map(|j| weight(i, j) * from[row * inputs + j]).sum();
                    assert!((forward[row * outputs + i] - expected).abs() < 1e-10, "{outputs} × {inputs}: output {i}");
                }
                for j in 0..inputs {
                    let expected: f64 = (0..outputs).map(|i| weight(i, j) * to[row * outputs + i]).sum();
                    assert!((backward[row * inputs + j] - expected).abs() < 1e-10, "{outputs} × {inputs}: input {j}");
                }
            }
        }
    }
}
