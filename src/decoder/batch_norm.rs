//! Folding batch normalisation (in evaluation mode) into the linear layer beside it.

use ndarray::{Array1, Axis};

use super::Layer;

/// PyTorch's default ε; a state_dict does not hold the one that was used.
pub(super) const EPSILON: f64 = 1e-5;

/// y = (x − running mean) / √(running variance + ε) · weight + bias.
pub(super) struct BatchNorm {
    pub scale: Array1<f64>,
    pub shift: Array1<f64>,
}

impl BatchNorm {
    pub fn new(weight: &Array1<f64>, bias: &Array1<f64>, mean: &Array1<f64>, variance: &Array1<f64>) -> Self {
        let scale = weight / &variance.mapv(|v| (v + EPSILON).sqrt());
        let shift = bias - &(mean * &scale);
        Self { scale, shift }
    }

    /// Normalisation of the layer's output, before its activation.
    pub fn fold_behind(&self, layer: &mut Layer) {
        layer.weight *= &self.scale.view().insert_axis(Axis(1));
        layer.bias = &layer.bias * &self.scale + &self.shift;
    }

    /// Normalisation of the layer's input, behind the activation of the layer before.
    pub fn fold_before(&self, layer: &mut Layer) {
        layer.bias += &layer.weight.dot(&self.shift);
        layer.weight *= &self.scale.view().insert_axis(Axis(0));
    }
}
