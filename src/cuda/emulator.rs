//! The kernels on the processor: for tests and for debugging where there is no GPU.
//!
//! Work given to a stream waits until somebody waits for it, so that code which reads a result too early finds the old bytes, as it
//! may on a device. A kernel's fault (see `kernels/emulator/`) loses the device, as an illegal access does there.

mod bindings;
mod streams;
#[cfg(test)]
mod tests;

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use self::bindings::{Registered, aligned, kernels};
use self::streams::{Event, Operation, State, Work};
use crate::cuda::platform::{Address, Geometry, Handle, Kernel, Platform, Properties};
use crate::cuda::pool::Pool;
use crate::error::{Error, Result};

/// What an emulated device has and does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmulatorOptions {
    /// Check every access to shared memory: indices out of range, races, words never written. Some forty times slower. Barriers that
    /// some threads never reach are found either way.
    pub checked: bool,
    /// Bytes of device memory. Allocations beyond it fail with [`Error::OutOfMemory`]; it need not be there until it is used.
    pub memory: u64,
    /// Bytes of one allocation at most, as in a fragmented memory that has more in all.
    pub largest_allocation: u64,
    /// Multiprocessors that the device says it has, by which launches choose how many blocks to start.
    pub multiprocessors: u32,
    /// The compute capability that the device says it has, which tells the generation of GPU to imitate: kernels for `sm_90a` alone are
    /// looked for from (9, 0) on, while (8, 0) uses those of earlier chips.
    pub compute: (u32, u32),
    /// Every launch of this kernel fails with an [`Error::Cuda`] that is not fatal.
    pub failing_kernel: Option<String>,
    /// Threads that blocks are spread over; `None` for as many as the machine runs at once, but 4 at most.
    pub threads: Option<usize>,
}

impl Default for EmulatorOptions {
    fn default() -> Self {
        Self {
            checked: false,
            memory: 4 << 30,
            largest_allocation: u64::MAX,
            multiprocessors: 4,
            compute: (9, 0),
            failing_kernel: None,
            threads: None,
        }
    }
}

/// Dynamic shared memory of a block on compute capability 9.0.
const SHARED_LIMIT: u32 = 227 << 10;
/// As `cuMemAlloc` aligns.
const ALIGNMENT: usize = 256;

/// A device of its own, with its own memory.
pub(crate) struct Emulator {
    options: EmulatorOptions,
    workers: u32,
    properties: Properties,
    kernels: Vec<&'static Registered>,
    state: Mutex<State>,
    pool: Pool,
}

impl Emulator {
    /// # Errors
    ///
    /// [`Error::Option`] where a number is 0.
    pub(crate) fn new(options: EmulatorOptions) -> Result<Self> {
        let refuse = |name| Error::Option { name, expected: "at least 1", found: "0".into() };
        if options.multiprocessors == 0 {
            return Err(refuse("emulator multiprocessors"));
        }
        if options.threads == Some(0) {
            return Err(refuse("emulator threads"));
        }
        let available = || std::thread::available_parallelism().map_or(1, |n| n.get().min(4));
        let workers = u32::try_from(options.threads.unwrap_or_else(available)).unwrap_or(u32::MAX);
        let properties = Properties {
            name: "emulator".into(),
            compute: options.compute,
            multiprocessors: options.multiprocessors,
            shared_per_block: SHARED_LIMIT,
            memory: options.memory,
            ..Properties::default()
        };
        // The address sanitizer knows the bounds and the end of every allocation. A block that is kept, or is larger than what was
        // asked for, would hide an access behind the end of an array or of its life. So nothing is kept where accesses are watched.
        let is_watched = options.checked || cfg!(pullback_sanitized);
        let pool = if is_watched { Pool::nothing() } else { Pool::new(options.memory) };
        Ok(Self { workers, properties, kernels: kernels(options.checked), state: Mutex::default(), pool, options })
    }

    /// Allocations, pinned ones included, and streams that were ever made.
    #[cfg(test)]
    pub(crate) fn created(&self) -> usize {
        self.lock().created
    }

    /// The state, unless the device is lost.
    fn state(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.lock();
        match &state.lost {
            None => Ok(state),
            Some(lost) => Err(lost.error()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what was given to a stream, up to its operation number `until`.
    fn run(&self, state: &mut State, stream: Handle, until: u64) -> Result<()> {
        while let Some(operation) = state.next_operation(stream, until) {
            match operation {
                Operation::Once(work) => self.perform(state, &work)?,
                Operation::Graph(recorded) => recorded.iter().try_for_each(|work| self.perform(state, work))?,
                Operation::Wait { stream, until } => self.run(state, stream, until)?,
                Operation::Record { event, turn } => {
                    if let Some(event) = state.events.get_mut(&event)
                        && event.turn == turn
                    {
                        event.happened = Some(Instant::now());
                    }
                }
            }
        }
        Ok(())
    }

    fn perform(&self, state: &mut State, work: &Work) -> Result<()> {
        // SAFETY: whoever gave the work promised that it is sound until it is done; `launch` has checked the geometry.
        unsafe { work.perform(self.options.checked, self.workers) }.map_err(|lost| {
            let error = lost.error();
            state.lose(lost);
            error
        })
    }

    fn check_geometry(&self, kernel: &Registered, geometry: Geometry, params: usize) -> Result<()> {
        let Geometry { blocks, threads, shared } = geometry;
        let limit = kernel.threads;
        let problem = if self.options.failing_kernel.as_deref().map(str::as_bytes) == Some(kernel.name().to_bytes()) {
            "fails, as the emulator was told".into()
        } else if params != kernel.params as usize {
            format!("its parameters have {} bytes, found {params}", kernel.params)
        } else if threads == 0 || !threads.is_multiple_of(32) || threads > limit {
            format!("expected blocks of 32 to {limit} threads, a multiple of 32, found {threads}")
        } else if blocks == 0 || blocks > i32::MAX as u32 {
            format!("expected 1 to 2^31 - 1 blocks, found {blocks}")
        } else if shared > SHARED_LIMIT {
            format!("expected at most {SHARED_LIMIT} bytes of dynamic shared memory, found {shared}")
        } else {
            return Ok(());
        };
        Err(refused(&format!("kernel {}", kernel.name().to_string_lossy()), problem))
    }
}

/// A call that was wrong, and changed nothing.
fn refused(what: &str, message: impl Into<String>) -> Error {
    Error::Cuda { what: format!("emulator: {what}"), message: message.into(), fatal: false }
}

impl Platform for Emulator {
    fn label(&self) -> String {
        "emulator".into()
    }

    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn free_memory(&self) -> Result<u64> {
        let state = self.state()?;
        Ok(self.options.memory - state.used + self.pool.device_bytes())
    }

    fn pool(&self) -> &Pool {
        &self.pool
    }

    fn kernel(&self, name: &str) -> Result<Option<Kernel>> {
        drop(self.state()?);
        Ok(self.kernels.iter().position(|kernel| kernel.name().to_bytes() == name.as_bytes()).map(Kernel))
    }

    fn specialise(&self, _instances: &str) -> Result<bool> {
        drop(self.state()?);
        Ok(false)
    }

    fn allocate(&self, bytes: usize) -> Result<Address> {
        let mut state = self.state()?;
        let free = self.options.memory - state.used;
        let too_much = || Error::OutOfMemory { device: "emulator".into(), bytes: bytes as u64, free };
        if bytes == 0 {
            return Err(refused("allocation", "expected at least 1 byte, found 0"));
        }
        if bytes as u64 > free.min(self.options.largest_allocation) {
            return Err(too_much());
        }
        let layout = Layout::from_size_align(bytes, ALIGNMENT).map_err(|_| too_much())?;
        // SAFETY: the size is not 0.
        let pointer = unsafe { alloc(layout) };
        if pointer.is_null() {
            return Err(too_much());
        }
        let address = pointer.expose_provenance() as Address;
        state.memory.insert(address, bytes);
        state.used += bytes as u64;
        state.created += 1;
        // SAFETY: the allocation is that long, and nobody knows it yet.
        unsafe { self.renew(address, bytes) };
        Ok(address)
    }

    /// NaNs, so that a kernel which reads what nobody wrote shows.
    unsafe fn renew(&self, address: Address, bytes: usize) {
        // SAFETY: the caller's; the provenance of every allocation was exposed.
        unsafe { std::ptr::with_exposed_provenance_mut::<u8>(address as usize).write_bytes(0xff, bytes) };
    }

    unsafe fn release(&self, address: Address) {
        let mut state = self.lock();
        if let Some(bytes) = state.memory.remove(&address) {
            state.used -= bytes as u64;
            // SAFETY: it is in the map, hence from `allocate`; nothing pending touches it, as the caller promises.
            unsafe { free(address, bytes) };
        }
    }

    fn allocate_pinned(&self, bytes: usize) -> Result<*mut u8> {
        let mut state = self.state()?;
        let too_much = || refused("pinned allocation", format!("no memory for {bytes} bytes"));
        let layout = Layout::from_size_align(bytes.max(1), ALIGNMENT).map_err(|_| too_much())?;
        // SAFETY: the size is not 0.
        let pointer = unsafe { alloc_zeroed(layout) };
        if pointer.is_null() {
            return Err(too_much());
        }
        state.created += 1;
        Ok(pointer)
    }

    unsafe fn release_pinned(&self, pointer: *mut u8, bytes: usize) {
        if let Ok(layout) = Layout::from_size_align(bytes.max(1), ALIGNMENT) {
            // SAFETY: of `allocate_pinned` with the same layout, as the caller promises.
            unsafe { dealloc(pointer, layout) };
        }
    }

    fn create_stream(&self) -> Result<Handle> {
        let mut state = self.state()?;
        let handle = state.new_handle();
        state.streams.insert(handle, Default::default());
        state.created += 1;
        Ok(handle)
    }

    /// Does what the stream still holds, as a device would.
    fn destroy_stream(&self, stream: Handle) {
        if let Ok(mut state) = self.state() {
            // A fault is kept in the state.
            let _ = self.run(&mut state, stream, u64::MAX);
        }
        self.lock().streams.remove(&stream);
    }

    fn synchronise(&self, stream: Handle) -> Result<()> {
        let mut state = self.state()?;
        state.idle_stream(stream, "synchronising")?;
        self.run(&mut state, stream, u64::MAX)
    }

    unsafe fn upload(&self, stream: Handle, to: Address, from: *const u8, bytes: usize) -> Result<()> {
        let mut state = self.state()?;
        state.check_range("upload", to, bytes)?;
        state.give(stream, Work::Copy { to, from: from.expose_provenance() as Address, bytes })
    }

    unsafe fn download(&self, stream: Handle, to: *mut u8, from: Address, bytes: usize) -> Result<()> {
        let mut state = self.state()?;
        state.check_range("download", from, bytes)?;
        state.give(stream, Work::Copy { to: to.expose_provenance() as Address, from, bytes })
    }

    unsafe fn fill(&self, stream: Handle, to: Address, byte: u8, bytes: usize) -> Result<()> {
        let mut state = self.state()?;
        state.check_range("fill", to, bytes)?;
        state.give(stream, Work::Fill { to, byte, bytes })
    }

    unsafe fn launch(&self, stream: Handle, kernel: Kernel, geometry: Geometry, params: &[u8]) -> Result<()> {
        let mut state = self.state()?;
        let kernel = self.kernels.get(kernel.0).ok_or_else(|| refused("launch", "no such kernel"))?;
        self.check_geometry(kernel, geometry, params.len())?;
        state.give(stream, Work::Launch { kernel, geometry, params: aligned(params) })
    }

    fn create_event(&self) -> Result<Handle> {
        let mut state = self.state()?;
        let handle = state.new_handle();
        state.events.insert(handle, Event::default());
        Ok(handle)
    }

    fn destroy_event(&self, event: Handle) {
        self.lock().events.remove(&event);
    }

    fn record(&self, event: Handle, stream: Handle) -> Result<()> {
        let mut state = self.state()?;
        state.idle_stream(stream, "recording an event")?;
        let turn = state.event(event)?.turn + 1;
        let until = state.push(stream, Operation::Record { event, turn })?;
        state.events.insert(event, Event { turn, recorded: Some((stream, until)), happened: None });
        Ok(())
    }

    fn wait(&self, stream: Handle, event: Handle) -> Result<()> {
        let mut state = self.state()?;
        state.idle_stream(stream, "waiting for an event")?;
        match state.event(event)?.recorded {
            Some((of, until)) => state.push(stream, Operation::Wait { stream: of, until }).map(|_| ()),
            None => Ok(()),
        }
    }

    fn synchronise_event(&self, event: Handle) -> Result<()> {
        let mut state = self.state()?;
        match state.event(event)?.recorded {
            Some((stream, until)) => self.run(&mut state, stream, until),
            None => Ok(()),
        }
    }

    fn elapsed(&self, from: Handle, to: Handle) -> Result<f32> {
        let state = self.state()?;
        let happened = |event| match state.event(event)?.happened {
            Some(at) => Ok(at),
            None => Err(refused("elapsed time", "an event has not happened")),
        };
        let (from, to): (Instant, Instant) = (happened(from)?, happened(to)?);
        let milliseconds = |later: Instant, earlier| later.duration_since(earlier).as_secs_f32() * 1e3;
        Ok(if to >= from { milliseconds(to, from) } else { -milliseconds(from, to) })
    }

    fn begin_graph(&self, stream: Handle) -> Result<()> {
        let mut state = self.state()?;
        state.idle_stream(stream, "beginning a graph")?.recording = Some(Vec::new());
        Ok(())
    }

    fn end_graph(&self, stream: Handle) -> Result<Handle> {
        let mut state = self.state()?;
        let recorded = state.stream(stream)?.recording.take();
        let recorded = recorded.ok_or_else(|| refused("ending a graph", "none was begun on this stream"))?;
        let handle = state.new_handle();
        state.graphs.insert(handle, recorded.into());
        Ok(handle)
    }

    unsafe fn launch_graph(&self, graph: Handle, stream: Handle) -> Result<()> {
        let mut state = self.state()?;
        let recorded = state.graphs.get(&graph).map(Arc::clone);
        let recorded = recorded.ok_or_else(|| refused("launching a graph", "no such graph"))?;
        state.idle_stream(stream, "launching a graph")?;
        state.push(stream, Operation::Graph(recorded)).map(|_| ())
    }

    fn destroy_graph(&self, graph: Handle) {
        self.lock().graphs.remove(&graph);
    }
}

/// # Safety
///
/// The address and the size are those of an allocation of `Emulator::allocate`, which nothing uses.
unsafe fn free(address: Address, bytes: usize) {
    if let Ok(layout) = Layout::from_size_align(bytes, ALIGNMENT) {
        // SAFETY: allocated with this layout, and its provenance was exposed.
        unsafe { dealloc(std::ptr::with_exposed_provenance_mut(address as usize), layout) };
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.pool.close(self);
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (address, bytes) in std::mem::take(&mut state.memory) {
            // SAFETY: still in the map, so never freed; and the device that could use it is gone.
            unsafe { free(address, bytes) };
        }
    }
}

impl fmt::Debug for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emulator").field("options", &self.options).finish_non_exhaustive()
    }
}
