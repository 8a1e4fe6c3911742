//! The seam between the launchers and what runs them: the CUDA driver, or the emulator.
//!
//! Everything above this trait (buffers, launch geometry, the order of arguments, streams, graphs) is the same on both, so that
//! all of it is tested where there is no GPU.

use std::fmt;

use super::pool::Pool;
use crate::error::Result;

/// An address in the device's memory.
pub(crate) type Address = u64;

/// A kernel of the platform, as [`Platform::kernel`] found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kernel(pub usize);

/// A stream, an event or a recorded graph of the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Handle(pub usize);

/// How many threads run a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Blocks, in one dimension.
    pub blocks: u32,
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory of a block, in bytes.
    pub shared: u32,
}

/// What a device is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Properties {
    /// As the vendor calls it.
    pub name: String,
    /// Compute capability, such as (9, 0).
    pub compute: (u32, u32),
    pub multiprocessors: u32,
    /// Highest clock of the multiprocessors in MHz; 0 where nobody knows.
    pub clock: u32,
    /// Dynamic shared memory that one block may ask for, in bytes.
    pub shared_per_block: u32,
    /// Bytes in all.
    pub memory: u64,
    /// Highest clock of the memory in MHz, and the width of its bus in bits; 0 where nobody knows.
    pub memory_clock: u32,
    pub memory_bus: u32,
    /// The newest CUDA version that the driver is for, such as (12, 8); (0, 0) where there is none.
    pub driver: (u32, u32),
}

/// What a device was measured to reach at most; what could not be measured is a line that says why.
#[cfg(all(feature = "cuda", feature = "cli"))]
#[derive(Clone, Debug)]
pub(crate) struct Reached {
    pub operations: Result<Products, String>,
    /// Bytes per second, read and written ones together, of copies within the device's memory.
    pub bytes: Result<f64, String>,
}

/// Operations per second of products of square matrices, by the format of their factors.
#[cfg(all(feature = "cuda", feature = "cli"))]
#[derive(Clone, Debug)]
pub(crate) struct Products {
    pub float32: f64,
    pub tf32: f64,
    pub bf16: f64,
    /// Rows and columns.
    pub side: usize,
    /// The library's path, or its name alone where the loader found it.
    pub library: String,
}

/// A device that runs the kernels in `kernels/`.
///
/// Work given to a stream is done in order, some time before [`synchronise`](Platform::synchronise) returns. Handles and addresses
/// are those that the same platform gave out. Errors of earlier asynchronous work may be reported by any later call.
pub(crate) trait Platform: fmt::Debug + Send + Sync {
    /// `cuda:0` or `emulator`.
    fn label(&self) -> String;
    fn properties(&self) -> &Properties;
    /// Bytes that can still be allocated, once the pool is empty.
    fn free_memory(&self) -> Result<u64>;
    /// Measures what the device reaches at most, quickly or well; `None` on the emulator, whose times mean nothing.
    #[cfg(all(feature = "cuda", feature = "cli"))]
    fn reached(&self, _quick: bool) -> Option<Reached> {
        None
    }
    /// Memory that is kept from one call to the next. The platform closes it when it is dropped.
    fn pool(&self) -> &Pool;

    /// Looks up a kernel; `None` where no module that was loaded has it.
    fn kernel(&self, name: &str) -> Result<Option<Kernel>>;
    /// Compiles kernels for one decoder: `instances` is appended to the sources (see `kernels/device.cuh`), so that
    /// [`kernel`](Platform::kernel) finds what it defines. False where this platform cannot compile.
    fn specialise(&self, instances: &str) -> Result<bool>;

    /// Uninitialised memory; [`Error::OutOfMemory`](crate::Error::OutOfMemory) where there is too little. `bytes` is not 0.
    fn allocate(&self, bytes: usize) -> Result<Address>;
    /// # Safety
    /// The address is of this platform's [`allocate`](Platform::allocate), and no work that touches it is pending.
    unsafe fn release(&self, address: Address);
    /// Makes `bytes` of an allocation as uninitialised as they were at first, where that can be seen.
    ///
    /// # Safety
    /// As [`release`](Platform::release), and the allocation has as many bytes.
    unsafe fn renew(&self, _address: Address, _bytes: usize) {}
    /// Zeroed host memory that copies can run from and to while kernels run.
    fn allocate_pinned(&self, bytes: usize) -> Result<*mut u8>;
    /// # Safety
    /// As [`release`](Platform::release).
    unsafe fn release_pinned(&self, pointer: *mut u8, bytes: usize);

    fn create_stream(&self) -> Result<Handle>;
    fn destroy_stream(&self, stream: Handle);
    /// Waits until everything given to the stream is done.
    fn synchronise(&self, stream: Handle) -> Result<()>;

    /// # Safety
    /// `bytes` are readable at `from`, which is pinned and stays as it is until the copy is done, and writable at `to`.
    unsafe fn upload(&self, stream: Handle, to: Address, from: *const u8, bytes: usize) -> Result<()>;
    /// # Safety
    /// `bytes` are readable at `from` and writable at `to`, which is pinned and not touched until the copy is done.
    unsafe fn download(&self, stream: Handle, to: *mut u8, from: Address, bytes: usize) -> Result<()>;
    /// # Safety
    /// `bytes` are writable at `to`.
    unsafe fn fill(&self, stream: Handle, to: Address, byte: u8, bytes: usize) -> Result<()>;
    /// Launches a kernel, which takes one structure of parameters by value.
    ///
    /// # Safety
    /// `params` are the bytes of the kernel's structure, and every address in it is valid for what the kernel does with it until the
    /// launch is done.
    unsafe fn launch(&self, stream: Handle, kernel: Kernel, geometry: Geometry, params: &[u8]) -> Result<()>;

    fn create_event(&self) -> Result<Handle>;
    fn destroy_event(&self, event: Handle);
    /// The event happens once everything given to the stream so far is done.
    fn record(&self, event: Handle, stream: Handle) -> Result<()>;
    /// Work given to the stream from now on waits for the event's last record.
    fn wait(&self, stream: Handle, event: Handle) -> Result<()>;
    /// Waits on the host.
    fn synchronise_event(&self, event: Handle) -> Result<()>;
    /// Milliseconds between two events that have happened.
    fn elapsed(&self, from: Handle, to: Handle) -> Result<f32>;

    /// From here on what is given to the stream (launches, fills and copies) is recorded instead of done.
    fn begin_graph(&self, stream: Handle) -> Result<()>;
    fn end_graph(&self, stream: Handle) -> Result<Handle>;
    /// Gives everything that was recorded to the stream.
    ///
    /// # Safety
    /// What was recorded is as safe as when it was recorded.
    unsafe fn launch_graph(&self, graph: Handle, stream: Handle) -> Result<()>;
    fn destroy_graph(&self, graph: Handle);
}
