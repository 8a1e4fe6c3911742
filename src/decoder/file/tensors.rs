//! Numbers of a file's tensors.

use half::{bf16, f16};
use ndarray::{Array1, Array2};
use safetensors::{Dtype, tensor::TensorView};

use crate::error::{Error, Result};

/// A tensor of two dimensions; `expected` names them.
pub(super) fn matrix(key: &str, view: &TensorView<'_>, expected: &str) -> Result<Array2<f64>> {
    let &[rows, columns] = view.shape() else {
        return Err(Error::Decoder(format!("key `{key}`: expected shape {expected}, found {:?}", view.shape())));
    };
    Array2::from_shape_vec((rows, columns), numbers(key, view)?)
        .map_err(|e| Error::Decoder(format!("key `{key}`: {e}")))
}

/// A tensor of one dimension.
pub(super) fn vector(key: &str, view: &TensorView<'_>, length: usize) -> Result<Array1<f64>> {
    if view.shape() != [length] {
        return Err(Error::Decoder(format!("key `{key}`: expected shape [{length}], found {:?}", view.shape())));
    }
    Ok(Array1::from_vec(numbers(key, view)?))
}

/// The tensor's numbers in row-major order, which float64 holds exactly.
pub(super) fn numbers(key: &str, view: &TensorView<'_>) -> Result<Vec<f64>> {
    let bytes = view.data();
    let numbers: Vec<f64> = match view.dtype() {
        Dtype::F64 => bytemuck::pod_collect_to_vec(bytes),
        Dtype::F32 => bytemuck::pod_collect_to_vec::<u8, f32>(bytes).into_iter().map(f64::from).collect(),
        Dtype::F16 => bytemuck::pod_collect_to_vec::<u8, f16>(bytes).into_iter().map(f64::from).collect(),
        Dtype::BF16 => bytemuck::pod_collect_to_vec::<u8, bf16>(bytes).into_iter().map(f64::from).collect(),
        other => {
            return Err(Error::Decoder(format!(
                "key `{key}`: expected float32, float64, float16 or bfloat16, found {other:?}"
            )));
        }
    };
    match numbers.iter().position(|v| !v.is_finite()) {
        Some(at) => {
            let columns = view.shape().last().copied().unwrap_or(1).max(1);
            let place = if view.shape().len() > 1 {
                format!("[{}, {}]", at / columns, at % columns)
            } else {
                format!("[{at}]")
            };
            Err(Error::Decoder(format!("key `{key}`: expected finite numbers, found {} at {place}", numbers[at])))
        }
        None => Ok(numbers),
    }
}
