//! A network of radial basis functions in a file.

use safetensors::tensor::TensorView;

use super::tensors::{matrix, numbers, vector};
use crate::decoder::Head;
use crate::error::{Error, Result};

const PARAMETERS: [&str; 4] = ["centers", "bandwidths", "weight", "floor"];
const SHAPES: [&str; 4] = ["[K, d]", "[K]", "[outputs, K]", "[1] or [outputs]"];

/// Its tensors, with their keys, in the order of [`PARAMETERS`].
#[derive(Default)]
pub(super) struct RbfTensors<'a> {
    tensors: [Option<(String, TensorView<'a>)>; 4],
}

impl<'a> RbfTensors<'a> {
    /// Takes a tensor, or refuses one of another name.
    pub fn insert(&mut self, parameter: &str, key: &str, view: TensorView<'a>) -> Result<()> {
        let place = PARAMETERS.iter().position(|&p| p == parameter).ok_or_else(|| {
            let known = PARAMETERS.join(", ");
            Error::Decoder(format!("unknown key `{key}`: expected {known} of radial basis functions"))
        })?;
        self.tensors[place] = Some((key.to_owned(), view));
        Ok(())
    }

    /// The head σ(z).
    pub fn read(&self, name: &str) -> Result<Head> {
        let get = |k: usize| {
            let missing =
                || Error::Decoder(format!("missing key `{name}.{}`: expected shape {}", PARAMETERS[k], SHAPES[k]));
            self.tensors[k].as_ref().ok_or_else(missing)
        };
        let (key, view) = get(0)?;
        let centers = matrix(key, view, SHAPES[0])?;
        let (key, view) = get(1)?;
        let bandwidths = vector(key, view, centers.nrows())?;
        let (key, view) = get(2)?;
        let weight = matrix(key, view, SHAPES[2])?;
        let (key, view) = get(3)?;
        let floor = numbers(key, view)?.into();
        Head::rbf(name, &centers, &bandwidths, &weight, &floor)
    }
}
