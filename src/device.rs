//! Where the work is done.

use std::fmt;

use crate::decoder::Decoder;
use crate::error::Result;
use crate::model::Model;
use crate::scalar::Scalar;

/// A device that models can be loaded on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Cpu,
}

impl Device {
    /// The fastest device of this machine that this version of the crate can use.
    ///
    /// # Errors
    ///
    /// None at present: the CPU is always there.
    pub fn best() -> Result<Self> {
        Ok(Self::cpu())
    }

    /// The processor, with as many threads as rayon's current pool has.
    pub fn cpu() -> Self {
        Self(Kind::Cpu)
    }

    /// Puts a decoder's weights on the device, in `f32`.
    ///
    /// # Errors
    ///
    /// None at present; devices with memory of their own may run out of it.
    pub fn load(&self, decoder: &Decoder) -> Result<Model> {
        self.load_as::<f32>(decoder)
    }

    /// Puts a decoder's weights on the device in a type of choice: `f64` for reference values.
    ///
    /// # Errors
    ///
    /// As [`Device::load`].
    pub fn load_as<T: Scalar>(&self, decoder: &Decoder) -> Result<Model<T>> {
        match self.0 {
            Kind::Cpu => Ok(Model::new(decoder)),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Kind::Cpu => write!(f, "cpu ({} threads)", rayon::current_num_threads()),
        }
    }
}
