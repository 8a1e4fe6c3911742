//! The device's context, and what the driver's results mean.

use std::sync::{Arc, OnceLock};

use cudarc::driver::sys::CUresult;
use cudarc::driver::{CudaContext, DriverError};

use crate::error::{Error, Result};

/// The primary context of a device: the one that the CUDA runtime, PyTorch and `cust` use too, so that their memory is valid here.
#[derive(Debug)]
pub(crate) struct Context {
    /// `cuda:0`.
    pub label: String,
    pub cuda: Arc<CudaContext>,
    /// What and message of the error that ended the context.
    lost: OnceLock<(String, String)>,
}

impl Context {
    pub(super) fn new(ordinal: usize) -> Result<Self> {
        let label = format!("cuda:{ordinal}");
        let cuda = CudaContext::new(ordinal).map_err(|error| failure(format!("{label}, its context"), error))?;
        Ok(Self { label, cuda, lost: OnceLock::new() })
    }

    /// Binds the context to the calling thread; every use of the driver begins here.
    ///
    /// # Errors
    ///
    /// The fatal error, once there was one.
    pub(crate) fn enter(&self) -> Result<()> {
        if let Some((what, message)) = self.lost.get() {
            return Err(Error::Cuda { what: what.clone(), message: message.clone(), fatal: true });
        }
        self.check("its context", self.cuda.bind_to_thread())
    }

    /// Turns the driver's result for `what` into the crate's, and remembers an error that ends the context.
    pub(crate) fn check<T>(&self, what: &str, result: Result<T, DriverError>) -> Result<T> {
        result.map_err(|error| {
            let error = failure(format!("{}, {what}", self.label), error);
            if let Error::Cuda { what, message, fatal: true } = &error {
                let _ = self.lost.set((what.clone(), message.clone())); // the first is the cause, whatever follows
            }
            error
        })
    }

    /// An error of a caller in this crate, in the driver's place.
    pub(crate) fn refuse(&self, what: &str, message: impl Into<String>) -> Error {
        Error::Cuda { what: format!("{}, {what}", self.label), message: message.into(), fatal: false }
    }
}

fn failure(what: String, error: DriverError) -> Error {
    Error::Cuda { what, message: words(error), fatal: is_fatal(error.0) }
}

/// The driver's own words, and the name to search for.
pub(crate) fn words(error: DriverError) -> String {
    let words = error.error_string().map(|words| words.to_string_lossy());
    words.map_or_else(|_| format!("{:?}", error.0), |words| format!("{words} ({:?})", error.0))
}

/// True for errors after which the context can do nothing any more ("sticky" in CUDA's documentation).
fn is_fatal(code: CUresult) -> bool {
    use CUresult::*;
    matches!(
        code,
        CUDA_ERROR_DEINITIALIZED
            | CUDA_ERROR_INVALID_CONTEXT
            | CUDA_ERROR_ECC_UNCORRECTABLE
            | CUDA_ERROR_NVLINK_UNCORRECTABLE
            | CUDA_ERROR_CONTAINED
            | CUDA_ERROR_ILLEGAL_ADDRESS
            | CUDA_ERROR_LAUNCH_TIMEOUT
            | CUDA_ERROR_CONTEXT_IS_DESTROYED
            | CUDA_ERROR_ASSERT
            | CUDA_ERROR_HARDWARE_STACK_ERROR
            | CUDA_ERROR_ILLEGAL_INSTRUCTION
            | CUDA_ERROR_MISALIGNED_ADDRESS
            | CUDA_ERROR_INVALID_ADDRESS_SPACE
            | CUDA_ERROR_INVALID_PC
            | CUDA_ERROR_LAUNCH_FAILED
            | CUDA_ERROR_TENSOR_MEMORY_LEAK
            | CUDA_ERROR_MPS_CLIENT_TERMINATED
            | CUDA_ERROR_EXTERNAL_DEVICE
            | CUDA_ERROR_UNKNOWN
    )
}
