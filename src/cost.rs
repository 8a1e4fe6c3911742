//! What operations cost: multiplications and additions, and bytes that have to move, from the decoder's shape alone.
//!
//! The counts are of the algorithms here, for the network that each works on: geometry (metrics, energies, geodesics) is computed on the
//! decoder's compressed form, whose last layer has no more outputs than the one before it has plus one. An addition and a multiplication
//! are one operation each; activations are not counted. Bytes are the least that an implementation with perfect caches moves: every input
//! and every result once, and the weights once.
//!
//! ```
//! use pullback::{Decoder, cost};
//!
//! let cost = cost::Shape::new(&Decoder::sphere(1.0)).decode(1000);
//! assert!(cost.operations > 0.0 && cost.bytes >= 1000.0 * 5.0 * 4.0);
//! // Beyond this many operations a second no machine goes that moves 100 GB/s and computes 1 TFLOP/s.
//! assert!(cost.ceiling(1e12, 1e11) <= 1e12);
//! ```

use crate::decoder::{Activation, Decoder, Layer};

/// Operations and bytes of one call.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Multiplications and additions.
    pub operations: f64,
    /// Bytes to and from memory, at least.
    pub bytes: f64,
}

impl Cost {
    /// Operations for every byte.
    pub fn intensity(&self) -> f64 {
        self.operations / self.bytes
    }

    /// Operations per second that a device can reach at most: by its rate of operations, or by its bandwidth in bytes per second (the
    /// roofline of S. Williams, A. Waterman, D. Patterson, 2009).
    pub fn ceiling(&self, operations_per_second: f64, bytes_per_second: f64) -> f64 {
        operations_per_second.min(self.intensity() * bytes_per_second)
    }

    /// Seconds that a device takes at least.
    pub fn seconds(&self, operations_per_second: f64, bytes_per_second: f64) -> f64 {
        (self.operations / operations_per_second).max(self.bytes / bytes_per_second)
    }
}

/// Sizes of a network: of the rows that run through it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Network {
    outputs: f64,
    /// Operations of a row of values, and of a tangent or adjoint row: the first layer's tangents are its weights.
    value: f64,
    row: f64,
    /// Of a last layer without an activation, which derivatives ask no values of.
    linear_end: f64,
    /// Widths of all layers with a curved activation, added up.
    curved: f64,
    weights: f64,
}

impl Network {
    fn new(decoder: &Decoder) -> Self {
        let layers = || decoder.heads().iter().flat_map(|head| head.layers());
        let product = |layer: &Layer| 2.0 * multiplications(layer);
        let ends = decoder.heads().iter().filter_map(|head| head.layers().last());
        let ends = ends.filter(|layer| layer.activation == Activation::Identity);
        let behind_first = decoder.heads().iter().flat_map(|head| head.layers().iter().skip(1));
        Self {
            outputs: decoder.data_dim() as f64,
            value: layers().map(product).sum(),
            row: behind_first.map(product).sum(),
            linear_end: ends.map(product).sum(),
            curved: layers().filter(|l| !l.activation.is_piecewise_linear()).map(|l| l.outputs() as f64).sum(),
            weights: layers().map(|l| (l.weight.len() + l.bias.len()) as f64).sum(),
        }
    }

    /// Operations of a row of values as far as φ' asks for them.
    fn slopes(&self) -> f64 {
        self.value - self.linear_end
    }
}

/// Of one row with a layer's weights, but for zeros below the diagonal.
fn multiplications(layer: &Layer) -> f64 {
    let (inputs, outputs) = (layer.inputs() as f64, layer.outputs() as f64);
    let zeros = if layer.is_triangular() { 0.5 * outputs * (outputs - 1.0) } else { 0.0 };
    inputs * outputs - zeros
}

/// A decoder's sizes, by which operations are counted; numbers of four bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    d: f64,
    original: Network,
    compressed: Network,
}

/// Sweeps of Jacobi's rotations, as many as metrics usually take.
const SWEEPS: f64 = 7.0;
/// Bytes of a number.
const NUMBER: f64 = 4.0;

impl Shape {
    /// Of a decoder.
    pub fn new(decoder: &Decoder) -> Self {
        let (original, compressed) = (Network::new(decoder), Network::new(&decoder.compressed()));
        Self { d: decoder.latent_dim() as f64, original, compressed }
    }

    /// f at so many points.
    pub fn decode(&self, points: usize) -> Cost {
        of_points(points, self.original, self.original.value, self.d + self.original.outputs)
    }

    /// All d columns of J; values as far as an activation asks for them, here and in all that follows.
    pub fn jacobian(&self, points: usize) -> Cost {
        let Network { row, outputs, .. } = self.original;
        of_points(points, self.original, self.original.slopes() + self.d * row, self.d + self.d * outputs)
    }

    /// G = JᵀJ: d tangents, and d(d + 1)/2 inner products over the compressed outputs.
    pub fn metric(&self, points: usize) -> Cost {
        of_points(points, self.compressed, self.metric_operations(), self.d + self.d * self.d)
    }

    /// J v: one tangent row.
    pub fn push_forward(&self, points: usize) -> Cost {
        let Network { value, outputs, .. } = self.original;
        of_points(points, self.original, self.original.slopes() + value, 2.0 * self.d + outputs)
    }

    /// Jᵀ w: one adjoint row.
    pub fn pull_back(&self, points: usize) -> Cost {
        let Network { value, outputs, .. } = self.original;
        of_points(points, self.original, self.original.slopes() + value, 2.0 * self.d + outputs)
    }

    /// Σ_k w_k ∇²f_k: tangents, one adjoint row, and a product T diag(λ φ'') Tᵀ in every layer that bends.
    pub fn adjoint_hessian(&self, points: usize) -> Cost {
        let Network { row, curved, outputs, .. } = self.original;
        let operations = self.original.slopes() + (self.d + 1.0) * row + self.d * (self.d + 1.0) * curved;
        of_points(points, self.original, operations, self.d + outputs + self.d * self.d)
    }

    /// log det G by Cholesky's factor, behind the metric.
    pub fn log_det(&self, points: usize) -> Cost {
        of_points(points, self.compressed, self.metric_operations() + self.d.powi(3) / 3.0, self.d + 1.0)
    }

    /// Eigenvalues and vectors of G by Jacobi's rotations, behind the metric: 4d³ multiplications and as many additions a sweep.
    pub fn spectrum(&self, points: usize) -> Cost {
        let operations = self.metric_operations() + 8.0 * SWEEPS * self.d.powi(3);
        of_points(points, self.compressed, operations, self.d + self.d + self.d * self.d)
    }

    /// Energies and lengths of given curves of so many segments.
    pub fn energy(&self, curves: usize, segments: usize) -> Cost {
        let (curves, segments) = (curves as f64, segments as f64);
        let operations = (segments + 1.0) * self.compressed.value + 3.0 * segments * self.compressed.outputs;
        let numbers = curves * ((segments + 1.0) * self.d + 2.0) + self.compressed.weights;
        Cost { operations: curves * operations, bytes: NUMBER * numbers }
    }

    /// One pass of the solver over curves: the energy's gradient and its Hessian's blocks at every inner point, and the block-tridiagonal
    /// system; for a Newton step also an adjoint row and the products that it bends. Searches between passes come on top.
    pub fn linearise(&self, curves: usize, segments: usize, is_newton: bool) -> Cost {
        let Network { row, curved, outputs, weights, linear_end, .. } = self.compressed;
        let (d, curves, inner) = (self.d, curves as f64, segments as f64 - 1.0);
        // J Jᵀ and J r of the point, and J J'ᵀ with its neighbour; then factor and solve.
        let newton = if is_newton { row + d * (d + 1.0) * curved } else { 0.0 };
        let point = linear_end + self.metric_operations() + 2.0 * d * outputs + 2.0 * d * d * outputs + newton;
        let system = 7.0 / 3.0 * d.powi(3) + 6.0 * d * d;
        let numbers = curves * 2.0 * (inner + 2.0) * d + weights;
        Cost { operations: curves * inner * (point + system), bytes: NUMBER * numbers }
    }

    fn metric_operations(&self) -> f64 {
        let Network { row, outputs, .. } = self.compressed;
        self.compressed.slopes() + self.d * row + self.d * (self.d + 1.0) * outputs
    }
}

fn of_points(points: usize, network: Network, operations: f64, numbers: f64) -> Cost {
    let points = points as f64;
    Cost { operations: points * operations, bytes: NUMBER * (points * numbers + network.weights) }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array2};

    use super::*;
    use crate::decoder::Head;

    /// R² → R³ → R⁵, which is compressed to three outputs.
    fn shape() -> Shape {
        let layer = |inputs: usize, outputs: usize, activation| Layer {
            weight: Array2::from_shape_fn((outputs, inputs), |(i, j)| ((i * 7 + j * 3) % 5) as f64 - 1.7),
            bias: Array1::ones(outputs),
            activation,
        };
        let layers = vec![layer(2, 3, Activation::Tanh), layer(3, 5, Activation::Identity)];
        Shape::new(&Decoder::new(vec![Head::new("decoder", layers).unwrap()]).unwrap())
    }

    /// Counted by hand.
    #[test]
    fn operations_are_counted() {
        let shape = shape();
        // Weights: 6 + 3 and 15 + 5.
        assert_eq!(shape.decode(10), Cost { operations: 10.0 * 42.0, bytes: 4.0 * (10.0 * 7.0 + 29.0) });
        assert_eq!(shape.jacobian(1).operations, 12.0 + 2.0 * 30.0, "the last layer is linear");
        assert_eq!(shape.push_forward(1).operations, 12.0 + 42.0);
        assert_eq!(shape.pull_back(1).operations, 12.0 + 42.0);
        assert_eq!(shape.adjoint_hessian(1).operations, 12.0 + 3.0 * 30.0 + 6.0 * 3.0);
        let outputs = shape.compressed.outputs;
        assert_eq!(outputs, 3.0, "compressed");
        // R is triangular: 3 + 2 + 1 weights that are not zero.
        let metric = 12.0 + 2.0 * 12.0 + 6.0 * outputs;
        assert_eq!(shape.metric(1).operations, metric);
        assert!((shape.log_det(1).operations - metric - 8.0 / 3.0).abs() < 1e-12);
    }

    /// Twice the points are twice the operations, more of anything costs more, and the roofline's two sides meet at its ridge.
    #[test]
    fn costs_grow() {
        let shape = shape();
        assert_eq!(shape.spectrum(20).operations, 2.0 * shape.spectrum(10).operations);
        assert!(shape.spectrum(10).bytes > shape.log_det(10).bytes);
        assert_eq!(shape.energy(6, 8).operations, 2.0 * shape.energy(3, 8).operations);
        let inner = |segments| shape.linearise(1, segments, true).operations;
        assert!((inner(33) / inner(17) - 2.0).abs() < 1e-12, "a point is a point");
        assert!(shape.linearise(1, 9, false).operations > 8.0 * shape.metric(1).operations);
        assert_eq!(inner(2) - shape.linearise(1, 2, false).operations, shape.compressed.row + 6.0 * 3.0);
        let cost = Cost { operations: 800.0, bytes: 100.0 };
        assert_eq!((cost.intensity(), cost.ceiling(1e3, 1e2)), (8.0, 800.0));
        assert_eq!((cost.ceiling(100.0, 1e2), cost.seconds(100.0, 1e2), cost.seconds(1e9, 10.0)), (100.0, 8.0, 10.0));
    }
}
