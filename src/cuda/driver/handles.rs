//! Streams, events and graphs behind numbers, so that a number that was never given out, or was given back, is an error and not a
//! dangling pointer.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use cudarc::driver::sys::{CUevent, CUgraphExec, CUstream, cuEventDestroy_v2, cuGraphExecDestroy, cuStreamDestroy_v2};

use super::context::Context;
use crate::cuda::platform::Handle;
use crate::error::Result;

/// One of the driver's opaque pointers.
pub(super) trait Raw: Copy {
    const NAME: &'static str;
    /// # Safety
    /// The driver gave the pointer out, its context is bound, and nothing uses the pointer from here on.
    unsafe fn destroy(self);
}

macro_rules! raw {
    ($type:ty, $name:literal, $destroy:ident) => {
        impl Raw for $type {
            const NAME: &'static str = $name;
            unsafe fn destroy(self) {
                // SAFETY: the caller's. An error is of earlier work, which the next call reports as well.
                let _ = unsafe { $destroy(self) };
            }
        }
    };
}

raw!(CUstream, "stream", cuStreamDestroy_v2);
raw!(CUevent, "event", cuEventDestroy_v2);
raw!(CUgraphExec, "graph", cuGraphExecDestroy);

/// An object of the driver, destroyed when the last user is done with it.
pub(super) struct Owned<T: Raw> {
    context: Arc<Context>,
    pub raw: T,
}

// SAFETY: the driver's objects may be used from any thread, several at a time; the pointer is only handed to the driver.
unsafe impl<T: Raw> Send for Owned<T> {}
// SAFETY: as above.
unsafe impl<T: Raw> Sync for Owned<T> {}

impl<T: Raw> Drop for Owned<T> {
    fn drop(&mut self) {
        if self.context.enter().is_ok() {
            // SAFETY: made by the driver, in this context, and this was the last user.
            unsafe { self.raw.destroy() };
        }
    }
}

/// All objects of one kind.
pub(super) struct Table<T: Raw> {
    context: Arc<Context>,
    objects: RwLock<HashMap<usize, Arc<Owned<T>>>>,
}

impl<T: Raw> Table<T> {
    pub fn new(context: &Arc<Context>) -> Self {
        Self { context: context.clone(), objects: RwLock::default() }
    }

    pub fn insert(&self, raw: T) -> Handle {
        /// Numbers are never used again, for any kind on any device.
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let object = Arc::new(Owned { context: self.context.clone(), raw });
        self.objects.write().unwrap_or_else(PoisonError::into_inner).insert(number, object);
        Handle(number)
    }

    pub fn get(&self, handle: Handle) -> Result<Arc<Owned<T>>> {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        objects
            .get(&handle.0)
            .cloned()
            .ok_or_else(|| self.context.refuse(T::NAME, "not one of this device, or destroyed"))
    }

    pub fn remove(&self, handle: Handle) {
        // Taken out first: destroying it needs no lock.
        let object = self.objects.write().unwrap_or_else(PoisonError::into_inner).remove(&handle.0);
        drop(object);
    }
}

impl<T: Raw> fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.objects.read().unwrap_or_else(PoisonError::into_inner).len();
        write!(f, "{count} of kind {}", T::NAME)
    }
}
