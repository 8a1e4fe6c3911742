//! Arrays that are on a device already.

use std::marker::PhantomData;

use super::platform::Address;

/// `f32` values in the memory of a device, borrowed from whoever owns them: input that needs no copy.
///
/// The memory must be of the device's primary context, which is the one that this crate, the CUDA runtime, PyTorch and `cust` use,
/// and nothing may write to it while it is borrowed: work that another library still has pending on it must be waited for first.
#[derive(Clone, Copy, Debug)]
pub struct DeviceArray<'a> {
    address: Address,
    length: usize,
    owner: PhantomData<&'a [f32]>,
}

impl<'a> DeviceArray<'a> {
    /// # Safety
    ///
    /// As many values are readable at the address, in the primary context of the device they are given to, for as long as `'a`.
    pub unsafe fn from_raw(address: u64, length: usize) -> Self {
        Self { address, length, owner: PhantomData }
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.length
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(crate) fn address(&self) -> Address {
        self.address
    }
}

#[cfg(all(test, feature = "emulator"))]
mod tests {
    use std::sync::Arc;

    use ndarray::{Array1, Array2};

    use super::*;
    use crate::cuda::emulator::{Emulator, EmulatorOptions};
    use crate::cuda::memory::{Buffer, Pinned, Stream};
    use crate::cuda::platform::Platform;
    use crate::decoder::{Activation, Decoder, Head, Layer};
    use crate::geodesic::Options;
    use crate::model::Model;
    use crate::precision::Precision;

    fn decoder() -> Decoder {
        let layer = |inputs: usize, outputs: usize, activation| Layer {
            weight: Array2::from_shape_fn((outputs, inputs), |(i, j)| ((3 * i + 5 * j) as f64).sin()),
            bias: Array1::from_shape_fn(outputs, |i| 0.1 * i as f64),
            activation,
        };
        let layers = vec![layer(2, 7, Activation::Tanh), layer(7, 5, Activation::Identity)];
        Decoder::new(vec![Head::new("decoder", layers).unwrap()]).unwrap()
    }

    fn on_device(platform: &Arc<dyn Platform>, rows: &Array2<f32>) -> Buffer<f32> {
        let buffer = Buffer::new(platform, rows.len()).unwrap();
        let mut staged = Pinned::new(platform, rows.len()).unwrap();
        staged.as_mut_slice().copy_from_slice(rows.as_slice().unwrap());
        let stream = Stream::new(platform).unwrap();
        // SAFETY: the stream is waited for while everything lives.
        unsafe { stream.upload((&buffer, 0), (&staged, 0), rows.len()).unwrap() };
        stream.synchronise().unwrap();
        buffer
    }

    /// Latents that stand on the device give what those of the host give, to the bit.
    #[test]
    fn latents_on_the_device_are_read_where_they_stand() {
        let platform: Arc<dyn Platform> = Arc::new(Emulator::new(EmulatorOptions::default()).unwrap());
        let model = Model::<f32>::on_cuda(Arc::clone(&platform), &decoder(), Precision::default()).unwrap();
        let rows = |phase: f32| Array2::from_shape_fn((9, 2), |(i, j)| (i as f32 + phase * j as f32).cos());
        let (z, w) = (rows(0.3), rows(2.0));
        let (z_there, w_there) = (on_device(&platform, &z), on_device(&platform, &w));
        // SAFETY: the buffers outlive what borrows them, and are of the model's device.
        let [from, to] = [&z_there, &w_there].map(|b| unsafe { DeviceArray::from_raw(b.address(), 18) });
        assert_eq!(model.decode_on_device(from).unwrap(), model.decode(z.view()).unwrap());
        assert_eq!(model.jacobian_on_device(from).unwrap(), model.jacobian(z.view()).unwrap());
        assert_eq!(model.metric_on_device(from).unwrap(), model.metric(z.view()).unwrap());
        let options = Options::default();
        for precision in [Precision::Float32, Precision::Tf32x3, Precision::Mixed] {
            let model = Model::<f32>::on_cuda(Arc::clone(&platform), &decoder(), precision).unwrap();
            assert_eq!(model.precision(), precision);
            let there = model.geodesics_on_device(from, to, &options).unwrap();
            assert_eq!(there, model.geodesics(z.view(), w.view(), &options).unwrap());
        }

        // SAFETY: as above.
        let short = unsafe { DeviceArray::from_raw(z_there.address(), 17) };
        let error = model.decode_on_device(short).unwrap_err().to_string();
        assert_eq!(error, "latents: expected rows of 2 numbers, the decoder's latent dimension, found 17 numbers");
        // SAFETY: as above.
        let fewer = unsafe { DeviceArray::from_raw(w_there.address(), 16) };
        let error = model.geodesics_on_device(from, fewer, &options).unwrap_err().to_string();
        assert_eq!(error, "ends: expected 18 numbers, as many as starts, found 16");
        let error = Model::<f32>::on_cpu(&decoder()).metric_on_device(from).unwrap_err().to_string();
        assert_eq!(error, "latents: expected a model on a CUDA device, found one on the processor");
    }
}
