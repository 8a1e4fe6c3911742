//! Where the work is done.

use std::fmt;
#[cfg(any(feature = "cuda", feature = "emulator"))]
use std::sync::Arc;

#[cfg(feature = "cuda")]
use crate::cuda::driver::Driver;
#[cfg(feature = "emulator")]
use crate::cuda::emulator::{Emulator, EmulatorOptions};
#[cfg(all(feature = "cuda", feature = "cli"))]
use crate::cuda::platform::Reached;
#[cfg(any(feature = "cuda", feature = "emulator"))]
use crate::cuda::platform::{Platform, Properties};
use crate::decoder::Decoder;
use crate::error::Result;
use crate::model::Model;
use crate::precision::Precision;
use crate::scalar::Scalar;

/// A device that models can be loaded on.
#[derive(Clone, Debug)]
pub struct Device(Kind);

/// What a CUDA device is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceProperties {
    /// As the vendor calls it.
    pub name: String,
    /// Compute capability, such as (9, 0).
    pub compute: (u32, u32),
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Highest clock of the multiprocessors in MHz; 0 on the emulator.
    pub clock: u32,
    /// Bytes of memory in all.
    pub memory: u64,
    /// Highest clock of the memory in MHz; 0 on the emulator.
    pub memory_clock: u32,
    /// Width of the memory's bus in bits; 0 on the emulator.
    pub memory_bus: u32,
    /// The newest CUDA version that the driver is for, such as (12, 8); (0, 0) on the emulator.
    pub driver: (u32, u32),
}

#[cfg(any(feature = "cuda", feature = "emulator"))]
impl From<&Properties> for DeviceProperties {
    fn from(from: &Properties) -> Self {
        let Properties { name, compute, multiprocessors, clock, memory, memory_clock, memory_bus, driver, .. } = from;
        Self {
            name: name.clone(),
            compute: *compute,
            multiprocessors: *multiprocessors,
            clock: *clock,
            memory: *memory,
            memory_clock: *memory_clock,
            memory_bus: *memory_bus,
            driver: *driver,
        }
    }
}

#[derive(Clone, Debug)]
enum Kind {
    Cpu,
    #[cfg(any(feature = "cuda", feature = "emulator"))]
    Cuda(Arc<dyn Platform>),
}

impl Device {
    /// The first NVIDIA GPU where there is one that can be used, otherwise the processor. [`Device::cuda`] says why a GPU cannot.
    ///
    /// # Errors
    ///
    /// None at present: the processor is always there.
    pub fn best() -> Result<Self> {
        Ok(Self::cuda(0).unwrap_or_else(|_| Self::cpu()))
    }

    /// The processor, with as many threads as rayon's current pool has.
    pub fn cpu() -> Self {
        Self(Kind::Cpu)
    }

    /// An NVIDIA GPU, by its number from 0 on. Models on it compute in `f32`.
    ///
    /// # Errors
    ///
    /// [`Error::Device`](crate::Error::Device) where the crate was built without the feature `cuda`, or the machine has no CUDA driver, an old
    /// one, no such GPU, or one older than compute capability 8.0.
    pub fn cuda(ordinal: usize) -> Result<Self> {
        #[cfg(feature = "cuda")]
        {
            Ok(Self(Kind::Cuda(Arc::new(Driver::open(ordinal)?))))
        }
        #[cfg(not(feature = "cuda"))]
        {
            let message = format!("cuda:{ordinal}: this build has no CUDA path: expected the feature `cuda`");
            Err(crate::Error::Device(message))
        }
    }

    /// The kernels of the CUDA path on the processor, thread by thread: for tests and debugging, thousands of times slower than a GPU.
    ///
    /// # Errors
    ///
    /// None at present.
    #[cfg(feature = "emulator")]
    pub fn emulator(options: &EmulatorOptions) -> Result<Self> {
        Ok(Self(Kind::Cuda(Arc::new(Emulator::new(options.clone())?))))
    }

    /// True for the processor.
    pub fn is_cpu(&self) -> bool {
        matches!(self.0, Kind::Cpu)
    }

    /// `cpu`, `cuda:0` or `emulator`.
    pub fn label(&self) -> String {
        match &self.0 {
            Kind::Cpu => "cpu".into(),
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Kind::Cuda(platform) => platform.label(),
        }
    }

    /// What a GPU, or the emulator, says about itself; `None` for the processor.
    pub fn properties(&self) -> Option<DeviceProperties> {
        match &self.0 {
            Kind::Cpu => None,
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Kind::Cuda(platform) => Some(platform.properties().into()),
        }
    }

    /// Bytes of a device's memory that are free, with what this device keeps for its next call; `None` for the processor.
    ///
    /// # Errors
    ///
    /// [`Error::Cuda`](crate::Error::Cuda) where the driver does not tell.
    pub fn free_memory(&self) -> Result<Option<u64>> {
        match &self.0 {
            Kind::Cpu => Ok(None),
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Kind::Cuda(platform) => platform.free_memory().map(Some),
        }
    }

    /// Measures what a GPU reaches at most, quickly or well; `None` for the processor and the emulator.
    #[cfg(all(feature = "cuda", feature = "cli"))]
    pub(crate) fn reached(&self, quick: bool) -> Option<Reached> {
        match &self.0 {
            Kind::Cpu => None,
            Kind::Cuda(platform) => platform.reached(quick),
        }
    }

    /// Puts a decoder's weights on the device, in `f32`, to be computed in the default [`Precision`].
    ///
    /// # Errors
    ///
    /// As [`Device::load_as`].
    pub fn load(&self, decoder: &Decoder) -> Result<Model> {
        self.load_as::<f32>(decoder)
    }

    /// The same with a precision of choice; [`Model::precision`] tells what is used.
    ///
    /// # Errors
    ///
    /// As [`Device::load_as`].
    pub fn load_with(&self, decoder: &Decoder, precision: Precision) -> Result<Model> {
        self.place(decoder, precision)
    }

    /// Puts a decoder's weights on the device in a type of choice: `f64`, on the processor alone, for reference values.
    ///
    /// # Errors
    ///
    /// On a GPU [`Error::Device`](crate::Error::Device) for `f64`, [`Error::OutOfMemory`](crate::Error::OutOfMemory),
    /// [`Error::Compile`](crate::Error::Compile) and [`Error::Cuda`](crate::Error::Cuda); none on the processor.
    pub fn load_as<T: Scalar>(&self, decoder: &Decoder) -> Result<Model<T>> {
        self.place(decoder, Precision::default())
    }

    #[cfg_attr(not(any(feature = "cuda", feature = "emulator")), allow(unused_variables))] // the processor has one precision
    fn place<T: Scalar>(&self, decoder: &Decoder, precision: Precision) -> Result<Model<T>> {
        match &self.0 {
            Kind::Cpu => Ok(Model::on_cpu(decoder)),
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Kind::Cuda(platform) => Model::on_cuda(Arc::clone(platform), decoder, precision),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Cpu => write!(f, "cpu ({} threads)", rayon::current_num_threads()),
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Kind::Cuda(platform) => {
                let label = platform.label();
                match &platform.properties().name {
                    name if *name == label => f.write_str(&label),
                    name => write!(f, "{label} ({name})"),
                }
            }
        }
    }
}
