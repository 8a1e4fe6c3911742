//! The CUDA driver as a [`Platform`](super::platform::Platform), through cudarc.
//!
//! | file | what |
//! | --- | --- |
//! | `devices.rs` | is there a driver, is it new enough, which devices |
//! | `context.rs` | the primary context; the driver's results as the crate's errors, and which of them are final |
//! | `handles.rs` | streams, events and graphs behind numbers |
//! | `platform.rs` | memory, copies, launches, graphs |
//! | `reached.rs` | what the device reaches at most, for `pullback bench` |

pub(crate) mod context;
mod devices;
mod handles;
mod platform;
#[cfg(feature = "cli")]
mod reached;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use cudarc::driver::sys::{CUevent, CUgraphExec, CUstream};

use self::context::Context;
#[allow(unused_imports)] // for `pullback info`
pub(crate) use self::devices::devices;
use self::handles::Table;
use super::module::{Images, Modules};
use super::platform::Properties;
use super::pool::Pool;
use super::{compile, sources};
use crate::error::Result;

/// A device of the CUDA driver.
///
/// The driver's own functions may be called from any thread, so a `Driver` is shared freely; what it keeps beside them is behind
/// locks that are held for look-ups, never while the driver waits.
#[derive(Debug)]
pub(crate) struct Driver {
    properties: Properties,
    pool: Pool,
    // Dropped in this order: what the context holds before the context.
    streams: Table<CUstream>,
    events: Table<CUevent>,
    graphs: Table<CUgraphExec>,
    modules: Modules,
    context: Arc<Context>,
    /// The last kernel that was launched: the first suspect when a later call reports an error of earlier work.
    last: AtomicUsize,
}

impl Driver {
    /// Opens a device by its number, and loads the kernels.
    ///
    /// # Errors
    ///
    /// [`Error::Device`](crate::Error::Device) where there is no driver, an old one, no such device, or one too old for the kernels;
    /// [`Error::Compile`](crate::Error::Compile) where there is no code for its architecture.
    pub(crate) fn open(ordinal: usize) -> Result<Self> {
        Self::open_with(ordinal, Images { embedded: sources::IMAGE, compile: compile::compile })
    }

    fn open_with(ordinal: usize, images: Images) -> Result<Self> {
        let properties = devices::usable(ordinal)?;
        let context = Arc::new(Context::new(ordinal)?);
        let modules = Modules::new(&context, images, properties.compute, properties.shared_per_block)?;
        Ok(Self {
            pool: Pool::new(properties.memory),
            properties,
            streams: Table::new(&context),
            events: Table::new(&context),
            graphs: Table::new(&context),
            modules,
            context,
            last: AtomicUsize::new(usize::MAX),
        })
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.pool.close(self);
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
