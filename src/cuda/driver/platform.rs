//! Memory, copies, launches and graphs.

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::Ordering;

use cudarc::driver::DriverError;
use cudarc::driver::result::{self, event, graph, stream};
use cudarc::driver::sys::{self, CUresult};

use super::Driver;
use crate::cuda::platform::{Address, Geometry, Handle, Kernel, Platform, Properties};
use crate::cuda::pool::Pool;
use crate::error::{Error, Result};

impl Driver {
    /// As [`Context::check`](super::context::Context::check), for calls that report errors of earlier work.
    pub(super) fn check_later<T>(&self, what: &str, result: Result<T, DriverError>) -> Result<T> {
        if result.is_ok() {
            return self.context.check(what, result);
        }
        let last = self.modules.name(Kernel(self.last.load(Ordering::Relaxed)));
        let last = last.map_or_else(String::new, |last| format!(" (the last launch was {last})"));
        self.context.check(&format!("{what}{last}"), result)
    }
}

impl Platform for Driver {
    fn label(&self) -> String {
        self.context.label.clone()
    }

    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn free_memory(&self) -> Result<u64> {
        self.context.enter()?;
        let (free, _) = self.context.check("asking for free memory", result::mem_get_info())?;
        Ok(free as u64 + self.pool.device_bytes())
    }

    #[cfg(feature = "cli")]
    fn reached(&self, quick: bool) -> Option<crate::cuda::platform::Reached> {
        Some(self.measure_reached(quick))
    }

    fn pool(&self) -> &Pool {
        &self.pool
    }

    fn kernel(&self, name: &str) -> Result<Option<Kernel>> {
        self.modules.kernel(name)
    }

    fn specialise(&self, instances: &str) -> Result<bool> {
        self.modules.specialise(instances)
    }

    fn allocate(&self, bytes: usize) -> Result<Address> {
        self.context.enter()?;
        // SAFETY: the memory is uninitialised, as this function's own caller is told.
        match unsafe { result::malloc_sync(bytes) } {
            Err(DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => Err(Error::OutOfMemory {
                device: self.label(),
                bytes: bytes as u64,
                free: self.free_memory().unwrap_or(0),
            }),
            other => self.check_later("allocating memory", other),
        }
    }

    unsafe fn release(&self, address: Address) {
        if self.context.enter().is_ok() {
            // SAFETY: the caller's. The call may report an error of earlier work, which the context then remembers.
            let _ = self.check_later("releasing memory", unsafe { result::free_sync(address) });
        }
    }

    fn allocate_pinned(&self, bytes: usize) -> Result<*mut u8> {
        self.context.enter()?;
        // SAFETY: the memory is written below before anyone sees it.
        let pointer = match unsafe { result::malloc_host(bytes, 0) } {
            // As with the device's own memory, a caller may do with less.
            Err(DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => {
                let device = format!("{}, pinned host memory", self.label());
                return Err(Error::OutOfMemory { device, bytes: bytes as u64, free: 0 });
            }
            other => self.check_later("allocating pinned memory", other)?.cast::<u8>(),
        };
        // SAFETY: the driver gave out that many bytes.
        unsafe { ptr::write_bytes(pointer, 0, bytes) };
        Ok(pointer)
    }

    unsafe fn release_pinned(&self, pointer: *mut u8, _bytes: usize) {
        if self.context.enter().is_ok() {
            // SAFETY: the caller's.
            let _ = self.check_later("releasing pinned memory", unsafe { result::free_host(pointer.cast()) });
        }
    }

    fn create_stream(&self) -> Result<Handle> {
        self.context.enter()?;
        // Not ordered with the legacy default stream, on which other libraries of the process may work.
        let raw = stream::create(stream::StreamKind::NonBlocking);
        Ok(self.streams.insert(self.check_later("creating a stream", raw)?))
    }

    fn destroy_stream(&self, stream: Handle) {
        self.streams.remove(stream);
    }

    fn synchronise(&self, stream: Handle) -> Result<()> {
        self.context.enter()?;
        let stream = self.streams.get(stream)?;
        // SAFETY: the stream is alive as long as `stream` is.
        self.check_later("waiting for a stream", unsafe { stream::synchronize(stream.raw) })
    }

    unsafe fn upload(&self, stream: Handle, to: Address, from: *const u8, bytes: usize) -> Result<()> {
        self.context.enter()?;
        let stream = self.streams.get(stream)?;
        // SAFETY: the caller's; the stream is alive.
        let code = unsafe { sys::cuMemcpyHtoDAsync_v2(to, from.cast(), bytes, stream.raw) };
        self.check_later("copying to the device", code.result())
    }

    unsafe fn download(&self, stream: Handle, to: *mut u8, from: Address, bytes: usize) -> Result<()> {
        self.context.enter()?;
        let stream = self.streams.get(stream)?;
        // SAFETY: the caller's; the stream is alive.
        let code = unsafe { sys::cuMemcpyDtoHAsync_v2(to.cast(), from, bytes, stream.raw) };
        self.check_later("copying from the device", code.result())
    }

    unsafe fn fill(&self, stream: Handle, to: Address, byte: u8, bytes: usize) -> Result<()> {
        self.context.enter()?;
        let stream = self.streams.get(stream)?;
        // SAFETY: the caller's; the stream is alive.
        self.check_later("filling memory", unsafe { result::memset_d8_async(to, byte, bytes, stream.raw) })
    }

    unsafe fn launch(&self, stream: Handle, kernel: Kernel, geometry: Geometry, params: &[u8]) -> Result<()> {
        self.context.enter()?;
        let stream = self.streams.get(stream)?;
        let function = self.modules.prepare(kernel, params.len(), geometry.shared)?;
        let mut aligned = vec![0u128; params.len().div_ceil(16)]; // as a structure of parameters may be
        bytemuck::cast_slice_mut(&mut aligned)[..params.len()].copy_from_slice(params);
        let mut arguments: [*mut c_void; 1] = [aligned.as_mut_ptr().cast()];
        let Geometry { blocks, threads, shared } = geometry;
        // SAFETY: the kernel takes one structure of exactly these bytes, which the driver copies before it returns; function and
        // stream are alive; what the structure's addresses are used for is the caller's.
        let code = unsafe {
            let (function, stream, arguments) = (function.raw, stream.raw, arguments.as_mut_ptr());
            sys::cuLaunchKernel(function, blocks, 1, 1, threads, 1, 1, shared, stream, arguments, ptr::null_mut())
        };
        self.last.store(kernel.0, Ordering::Relaxed);
        self.context.check(&function.what, code.result())
    }

    fn create_event(&self) -> Result<Handle> {
        self.context.enter()?;
        let raw = event::create(sys::CUevent_flags::CU_EVENT_DEFAULT);
        Ok(self.events.insert(self.check_later("creating an event", raw)?))
    }

    fn destroy_event(&self, event: Handle) {
        self.events.remove(event);
    }

    fn record(&self, event: Handle, stream: Handle) -> Result<()> {
        self.context.enter()?;
        let (event, stream) = (self.events.get(event)?, self.streams.get(stream)?);
        // SAFETY: both are alive, and of one context.
        self.check_later("recording an event", unsafe { event::record(event.raw, stream.raw) })
    }

    fn wait(&self, stream: Handle, event: Handle) -> Result<()> {
        self.context.enter()?;
        let (event, stream) = (self.events.get(event)?, self.streams.get(stream)?);
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: both are alive, and of one context.
        self.check_later("waiting for an event", unsafe { stream::wait_event(stream.raw, event.raw, flags) })
    }

    fn synchronise_event(&self, event: Handle) -> Result<()> {
        self.context.enter()?;
        let event = self.events.get(event)?;
        // SAFETY: the event is alive.
        self.check_later("waiting for an event", unsafe { event::synchronize(event.raw) })
    }

    fn elapsed(&self, from: Handle, to: Handle) -> Result<f32> {
        self.context.enter()?;
        let (from, to) = (self.events.get(from)?, self.events.get(to)?);
        // SAFETY: both are alive, and of one context.
        self.check_later("timing", unsafe { event::elapsed(from.raw, to.raw) })
    }

    fn begin_graph(&self, stream: Handle) -> Result<()> {
        self.context.enter()?;
        let stream = self.streams.get(stream)?;
        // Relaxed: another thread that allocates meanwhile neither fails nor spoils the recording.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream is alive.
        self.check_later("recording a graph", unsafe { stream::begin_capture(stream.raw, mode) })
    }

    fn end_graph(&self, stream: Handle) -> Result<Handle> {
        self.context.enter()?;
        let stream = self.streams.get(stream)?;
        // SAFETY: the stream is alive.
        let recorded = self.check_later("recording a graph", unsafe { stream::end_capture(stream.raw) })?;
        if recorded.is_null() {
            return Err(self.context.refuse("recording a graph", "the driver gave none"));
        }
        // SAFETY: the driver just made the graph; what can be launched keeps nothing of it.
        let executable = unsafe {
            let executable = graph::instantiate(recorded, sys::CUgraphInstantiate_flags(0));
            let _ = graph::destroy(recorded);
            executable
        };
        Ok(self.graphs.insert(self.check_later("making a graph", executable)?))
    }

    unsafe fn launch_graph(&self, graph: Handle, stream: Handle) -> Result<()> {
        self.context.enter()?;
        let (graph, stream) = (self.graphs.get(graph)?, self.streams.get(stream)?);
        // SAFETY: both are alive; the rest is the caller's.
        self.check_later("launching a graph", unsafe { graph::launch(graph.raw, stream.raw) })
    }

    fn destroy_graph(&self, graph: Handle) {
        self.graphs.remove(graph);
    }
}
