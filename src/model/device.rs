//! Latents that are on the model's device already.

use std::ops::ControlFlow;

use ndarray::{Array2, Array3};

use super::engine::{Engine, from_device};
use super::{Model, array2, array3};
use crate::cuda::array::DeviceArray;
use crate::cuda::model::{CudaModel, Latents};
use crate::error::{Error, Result};
use crate::geodesic::backend::Initial;
use crate::geodesic::{Geodesics, Options};
use crate::scalar::Scalar;

impl<T: Scalar> Model<T> {
    /// [`Model::decode`] of latents that are on the device already, `[P, d]`: nothing is copied there.
    ///
    /// # Errors
    ///
    /// [`Error::Device`] where the model is not on a CUDA device, [`Error::Shape`] where the numbers are no whole rows of d.
    pub fn decode_on_device(&self, latents: DeviceArray<'_>) -> Result<Array2<T>> {
        let (model, rows) = self.on_device("latents", latents)?;
        let values = from_device(model.decode(Latents::Device(latents.address(), latents.len()))?)?;
        Ok(array2(rows, self.decoder.data_dim(), values))
    }

    /// [`Model::jacobian`] of latents that are on the device already.
    ///
    /// # Errors
    ///
    /// As [`Model::decode_on_device`].
    pub fn jacobian_on_device(&self, latents: DeviceArray<'_>) -> Result<Array3<T>> {
        let (model, rows) = self.on_device("latents", latents)?;
        let columns = from_device(model.jacobian(Latents::Device(latents.address(), latents.len()))?)?;
        Ok(array3(rows, self.decoder.latent_dim(), self.decoder.data_dim(), columns))
    }

    /// [`Model::metric`] of latents that are on the device already.
    ///
    /// # Errors
    ///
    /// As [`Model::decode_on_device`].
    pub fn metric_on_device(&self, latents: DeviceArray<'_>) -> Result<Array3<T>> {
        let (model, rows) = self.on_device("latents", latents)?;
        let metrics = from_device(model.metric(Latents::Device(latents.address(), latents.len()))?)?;
        Ok(array3(rows, self.decoder.latent_dim(), self.decoder.latent_dim(), metrics))
    }

    /// [`Model::geodesics`] between pairs of latents that are on the device already. A pair that is not finite ends with
    /// [`Status::NonFinite`](crate::Status::NonFinite).
    ///
    /// # Errors
    ///
    /// As [`Model::decode_on_device`], and [`Error::Option`] where an option is out of its range.
    pub fn geodesics_on_device(
        &self,
        starts: DeviceArray<'_>,
        ends: DeviceArray<'_>,
        options: &Options,
    ) -> Result<Geodesics<T>> {
        let (_, count) = self.on_device("starts", starts)?;
        self.on_device("ends", ends)?;
        if starts.len() != ends.len() {
            return Err(Error::Shape {
                what: "ends".into(),
                expected: format!("{} numbers, as many as starts", starts.len()),
                found: ends.len().to_string(),
            });
        }
        let pair = |_| Initial::OnDevice(starts.address(), ends.address());
        self.solve(count, options, &pair, &|_, _| ControlFlow::Continue(())).map(|(geodesics, _)| geodesics)
    }

    /// The model, and the number of rows in an array on its device.
    fn on_device(&self, what: &str, array: DeviceArray<'_>) -> Result<(&CudaModel, usize)> {
        let Engine::Cuda { model, .. } = &self.engine else {
            return Err(Error::Device(format!(
                "{what}: expected a model on a CUDA device, found one on the processor"
            )));
        };
        let d = self.decoder.latent_dim();
        if !array.len().is_multiple_of(d) {
            return Err(Error::Shape {
                what: what.into(),
                expected: format!("rows of {d} numbers, the decoder's latent dimension"),
                found: format!("{} numbers", array.len()),
            });
        }
        Ok((model.as_ref(), array.len() / d))
    }
}
