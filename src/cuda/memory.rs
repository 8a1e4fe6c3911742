//! Memory, streams, events and graphs of a platform, given back when they are dropped.
//!
//! What is given back may be in use again at once (see `pool`). So whoever gives work to a stream drops the stream, which is then
//! waited for, before the memory that the work touches.

use std::marker::PhantomData;
use std::sync::Arc;

use bytemuck::Pod;

use super::platform::{Address, Geometry, Handle, Kernel, Platform};
use super::pool::{self, Block};
use crate::error::{Error, Result};

/// An array in the device's memory.
#[derive(Debug)]
pub(crate) struct Buffer<T> {
    platform: Arc<dyn Platform>,
    block: Block<Address>,
    length: usize,
    numbers: PhantomData<T>,
}

impl<T: Pod> Buffer<T> {
    /// Room for `length` numbers, which are not initialised.
    pub fn new(platform: &Arc<dyn Platform>, length: usize) -> Result<Self> {
        // An address is wanted even where there is nothing to hold.
        let block = Block::take(platform.as_ref(), (length * size_of::<T>()).max(16))?;
        Ok(Self { platform: Arc::clone(platform), block, length, numbers: PhantomData })
    }

    pub fn address(&self) -> Address {
        self.block.at
    }

    /// Address of one number.
    pub fn at(&self, index: usize) -> Address {
        debug_assert!(index <= self.length);
        self.address() + (index * size_of::<T>()) as u64
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        // SAFETY: of this platform; whoever launches on it keeps a `Stream` that is dropped, and so waited for, first.
        unsafe { self.block.give_back(self.platform.as_ref()) };
    }
}

/// An array in host memory that copies run from and to while kernels run.
#[derive(Debug)]
pub(crate) struct Pinned<T> {
    platform: Arc<dyn Platform>,
    block: Block<pool::Pinned>,
    length: usize,
    numbers: PhantomData<T>,
}

// SAFETY: it owns its memory, as a `Vec` does.
unsafe impl<T: Send> Send for Pinned<T> {}
// SAFETY: likewise.
unsafe impl<T: Sync> Sync for Pinned<T> {}

impl<T: Pod> Pinned<T> {
    /// `length` zeros.
    pub fn new(platform: &Arc<dyn Platform>, length: usize) -> Result<Self> {
        let block = Block::take(platform.as_ref(), (length * size_of::<T>()).max(16))?;
        Ok(Self { platform: Arc::clone(platform), block, length, numbers: PhantomData })
    }

    fn pointer(&self) -> *mut T {
        self.block.at.0.cast()
    }

    pub fn as_slice(&self) -> &[T] {
        // SAFETY: the block was given zeroed, is aligned for every number, and copies leave plain old data in it.
        unsafe { std::slice::from_raw_parts(self.pointer(), self.length) }
    }

    pub fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(), self.length) }
    }
}

impl<T> Drop for Pinned<T> {
    fn drop(&mut self) {
        // SAFETY: of this platform; copies are over, as for `Buffer`.
        unsafe { self.block.give_back(self.platform.as_ref()) };
    }
}

/// A copy beyond the end of an array would be a mistake of this crate's; it must not become a wild write.
fn check_range(what: &str, (from, length): (usize, usize), count: usize) -> Result<()> {
    if count <= length.saturating_sub(from) {
        return Ok(());
    }
    let message = format!("expected at most {length} numbers, found {count} from number {from} on");
    Err(Error::Cuda { what: what.into(), message, fatal: false })
}

/// Work in order. Waited for when dropped, so that a struct's buffers may follow its stream.
#[derive(Debug)]
pub(crate) struct Stream {
    platform: Arc<dyn Platform>,
    handle: Handle,
}

impl Stream {
    pub fn new(platform: &Arc<dyn Platform>) -> Result<Self> {
        let handle = match platform.pool().take_stream() {
            Some(kept) => kept,
            None => platform.create_stream()?,
        };
        Ok(Self { handle, platform: Arc::clone(platform) })
    }

    pub fn platform(&self) -> &Arc<dyn Platform> {
        &self.platform
    }

    pub fn synchronise(&self) -> Result<()> {
        self.platform.synchronise(self.handle)
    }

    /// Copies `count` numbers from a place in host memory to a place on the device.
    ///
    /// # Safety
    /// Neither is written nor dropped until the stream was waited for.
    pub unsafe fn upload<T: Pod>(
        &self,
        to: (&Buffer<T>, usize),
        from: (&Pinned<T>, usize),
        count: usize,
    ) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        check_range("a copy", (from.1, from.0.length), count)?;
        check_range("a copy", (to.1, to.0.length), count)?;
        let source = &from.0.as_slice()[from.1..from.1 + count];
        // SAFETY: both ranges were checked; the rest is the caller's.
        unsafe { self.platform.upload(self.handle, to.0.at(to.1), source.as_ptr().cast(), size_of_val(source)) }
    }

    /// Copies `count` numbers from a place on the device to a place in host memory.
    ///
    /// # Safety
    /// The host memory is not touched, and nothing is dropped, until the stream was waited for.
    pub unsafe fn download<T: Pod>(
        &self,
        to: (&Pinned<T>, usize),
        from: (&Buffer<T>, usize),
        count: usize,
    ) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        check_range("a copy", (from.1, from.0.length), count)?;
        check_range("a copy", (to.1, to.0.length), count)?;
        // SAFETY: both ranges were checked; the rest is the caller's.
        unsafe {
            let target = to.0.pointer().add(to.1).cast();
            self.platform.download(self.handle, target, from.0.at(from.1), count * size_of::<T>())
        }
    }

    /// Sets `count` numbers to zero bytes.
    pub fn clear<T: Pod>(&self, buffer: &Buffer<T>, from: usize, count: usize) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        check_range("a fill", (from, buffer.length), count)?;
        // SAFETY: the range was checked, and a buffer outlives the streams that work on it.
        unsafe { self.fill_with_zeros(buffer.at(from), count * size_of::<T>()) }
    }

    /// # Safety
    /// `bytes` from the address on are of a buffer that outlives this stream.
    pub unsafe fn fill_with_zeros(&self, from: Address, bytes: usize) -> Result<()> {
        // SAFETY: the caller's.
        unsafe { self.platform.fill(self.handle, from, 0, bytes) }
    }

    /// # Safety
    /// As [`Platform::launch`].
    pub unsafe fn launch<P: Pod>(&self, kernel: Kernel, geometry: Geometry, params: &P) -> Result<()> {
        // SAFETY: the caller's.
        unsafe { self.platform.launch(self.handle, kernel, geometry, bytemuck::bytes_of(params)) }
    }

    /// From here on work given to this stream is recorded instead of done.
    pub fn begin_recording(&self) -> Result<()> {
        self.platform.begin_graph(self.handle)
    }

    /// What was recorded.
    pub fn end_recording(&self) -> Result<Graph> {
        Ok(Graph { handle: self.platform.end_graph(self.handle)?, platform: Arc::clone(&self.platform) })
    }

    /// # Safety
    /// What was recorded is as safe as when it was recorded.
    pub unsafe fn launch_graph(&self, graph: &Graph) -> Result<()> {
        // SAFETY: the caller's.
        unsafe { self.platform.launch_graph(graph.handle, self.handle) }
    }

    /// Work given to this stream from now on waits for the event.
    pub fn wait(&self, event: &Event) -> Result<()> {
        self.platform.wait(self.handle, event.handle)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let is_done = self.platform.synchronise(self.handle).is_ok();
        if !is_done {
            // An error here was reported by an earlier call, or the work's result is not wanted any more. But the work may still be
            // under way (a stream that records cannot be waited for), and the memory that it touches is given back next.
            self.platform.pool().close(self.platform.as_ref());
        }
        if !(is_done && self.platform.pool().put_stream(self.handle)) {
            self.platform.destroy_stream(self.handle);
        }
    }
}

/// A point in a stream.
#[derive(Debug)]
pub(crate) struct Event {
    platform: Arc<dyn Platform>,
    handle: Handle,
}

impl Event {
    pub fn new(platform: &Arc<dyn Platform>) -> Result<Self> {
        Ok(Self { handle: platform.create_event()?, platform: Arc::clone(platform) })
    }

    /// The event happens once everything given to the stream so far is done.
    pub fn record(&self, stream: &Stream) -> Result<()> {
        self.platform.record(self.handle, stream.handle)
    }

    /// Waits on the host.
    pub fn synchronise(&self) -> Result<()> {
        self.platform.synchronise_event(self.handle)
    }

    /// Milliseconds from another event to this one.
    pub fn since(&self, earlier: &Event) -> Result<f32> {
        self.platform.elapsed(earlier.handle, self.handle)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        self.platform.destroy_event(self.handle);
    }
}

/// Recorded work.
#[derive(Debug)]
pub(crate) struct Graph {
    platform: Arc<dyn Platform>,
    handle: Handle,
}

impl Drop for Graph {
    fn drop(&mut self) {
        self.platform.destroy_graph(self.handle);
    }
}
