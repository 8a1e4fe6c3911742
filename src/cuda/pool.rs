//! Memory that one call gives back and the next one takes, so that calls for few curves do not spend their time on setting up.
//!
//! A platform has one pool. It keeps [`SHARE`] of the device's memory and [`PINNED`] bytes of pinned memory at most; what was used
//! least recently goes first. All of it goes when the platform is dropped, when a stream could not be waited for, and, of one kind,
//! when an allocation of that kind does not fit or is larger than all that may be kept: such a call has the device to itself, as if
//! nothing had been kept. `PULLBACK_POOL=none` keeps nothing, for tools that watch allocations, such as compute-sanitizer.
//!
//! What is given back must be at rest: no work that touches it is pending. `cuMemFree` would wait for such work; the pool does not,
//! and hands the memory to whoever asks next, on any stream. It holds because what owns buffers drops its streams first, a
//! [`Stream`](super::memory::Stream) waits when it is dropped, and where waiting fails it closes the pool.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::platform::{Address, Handle, Platform};
use crate::error::{Error, Result};

/// Of a device's memory this part is kept at most.
const SHARE: u64 = 8;
/// Bytes of pinned memory that are kept at most.
const PINNED: u64 = 256 << 20;
/// Blocks of one kind, and streams, that are kept at most: enough for dozens of threads, few enough to look through.
const BLOCKS: usize = 512;
const STREAMS: usize = 64;
/// A block is taken for less than it holds where half as much again, or this many bytes, is all that is wasted.
const SLACK: usize = 64 << 10;

/// What a platform keeps.
#[derive(Debug)]
pub(crate) struct Pool {
    device: Shelf<Address>,
    pinned: Shelf<Pinned>,
    streams: Mutex<Streams>,
}

/// Kept blocks of one kind of memory.
#[derive(Debug)]
pub(crate) struct Shelf<M> {
    kept: Mutex<Kept<M>>,
}

#[derive(Debug)]
struct Kept<M> {
    /// The least recently used first.
    blocks: Vec<Block<M>>,
    /// Of all blocks together: now, and at most.
    bytes: u64,
    most: u64,
}

#[derive(Debug)]
struct Streams {
    kept: Vec<Handle>,
    most: usize,
}

/// Memory from [`Block::take`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block<M> {
    pub at: M,
    bytes: usize,
}

/// Pinned host memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pinned(pub *mut u8);

// SAFETY: an address of memory that no thread owns more than another.
unsafe impl Send for Pinned {}

/// A kind of memory.
pub(crate) trait Memory: Copy + fmt::Debug {
    fn shelf(pool: &Pool) -> &Shelf<Self>;
    fn allocate(platform: &dyn Platform, bytes: usize) -> Result<Self>;
    /// # Safety
    /// As [`Platform::release`], with the bytes that were allocated.
    unsafe fn release(self, platform: &dyn Platform, bytes: usize);
    /// What an allocation holds at first, in a block that was in use before.
    ///
    /// # Safety
    /// As [`release`](Self::release), but that `bytes` may be fewer.
    unsafe fn renew(self, platform: &dyn Platform, bytes: usize);
}

impl Memory for Address {
    fn shelf(pool: &Pool) -> &Shelf<Self> {
        &pool.device
    }

    fn allocate(platform: &dyn Platform, bytes: usize) -> Result<Self> {
        platform.allocate(bytes)
    }

    unsafe fn release(self, platform: &dyn Platform, _bytes: usize) {
        // SAFETY: the caller's.
        unsafe { platform.release(self) };
    }

    unsafe fn renew(self, platform: &dyn Platform, bytes: usize) {
        // SAFETY: the caller's.
        unsafe { platform.renew(self, bytes) };
    }
}

impl Memory for Pinned {
    fn shelf(pool: &Pool) -> &Shelf<Self> {
        &pool.pinned
    }

    fn allocate(platform: &dyn Platform, bytes: usize) -> Result<Self> {
        platform.allocate_pinned(bytes).map(Self)
    }

    unsafe fn release(self, platform: &dyn Platform, bytes: usize) {
        // SAFETY: the caller's.
        unsafe { platform.release_pinned(self.0, bytes) };
    }

    unsafe fn renew(self, _platform: &dyn Platform, bytes: usize) {
        // SAFETY: the caller's: so many bytes, and no copy runs from or to them.
        unsafe { self.0.write_bytes(0, bytes) };
    }
}

impl<M: Memory> Block<M> {
    /// A kept block of about that size, or else a new one, as [`Platform::allocate`] and [`Platform::allocate_pinned`] give it.
    pub fn take(platform: &dyn Platform, bytes: usize) -> Result<Self> {
        let shelf = M::shelf(platform.pool());
        if let Some(block) = shelf.take(bytes) {
            // SAFETY: it was given back, hence is at rest, and is on no shelf any more; it has at least as many bytes.
            unsafe { block.at.renew(platform, bytes) };
            return Ok(block);
        }
        if bytes as u64 > shelf.lock().most {
            shelf.empty(platform); // else a large batch would fill what is free, and leave the driver nothing for itself
        }
        let at = match M::allocate(platform, bytes) {
            Err(Error::OutOfMemory { .. }) => {
                shelf.empty(platform);
                M::allocate(platform, bytes)
            }
            other => other,
        }?;
        Ok(Self { at, bytes })
    }

    /// # Safety
    /// The block is of this platform, and used no more: no work that touches it is pending on any stream.
    pub unsafe fn give_back(self, platform: &dyn Platform) {
        for block in M::shelf(platform.pool()).put(self) {
            // SAFETY: it was given back, hence is at rest, and is on no shelf any more.
            unsafe { block.at.release(platform, block.bytes) };
        }
    }
}

impl<M: Memory> Shelf<M> {
    fn new(most: u64) -> Self {
        Self { kept: Mutex::new(Kept { blocks: Vec::new(), bytes: 0, most }) }
    }

    fn lock(&self) -> MutexGuard<'_, Kept<M>> {
        // Nothing in this file panics between two changes that belong together.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The smallest block that fits; of equal ones the last that was used, so that those too many grow old.
    fn take(&self, bytes: usize) -> Option<Block<M>> {
        let mut kept = self.lock();
        let fits = |block: &Block<M>| block.bytes >= bytes && block.bytes - bytes <= SLACK.max(bytes / 2);
        let best = kept.blocks.iter().enumerate().rev().filter(|(_, block)| fits(block));
        let (place, _) = best.min_by_key(|(_, block)| block.bytes)?;
        let block = kept.blocks.remove(place);
        kept.bytes -= block.bytes as u64;
        Some(block)
    }

    /// Returns what cannot be kept: the block itself where it alone is too large, or else those used least recently.
    fn put(&self, block: Block<M>) -> Vec<Block<M>> {
        let kept = &mut *self.lock();
        if block.bytes as u64 > kept.most {
            return vec![block];
        }
        kept.blocks.push(block);
        kept.bytes += block.bytes as u64;
        let mut excess = 0;
        while kept.bytes > kept.most || kept.blocks.len() - excess > BLOCKS {
            kept.bytes -= kept.blocks[excess].bytes as u64;
            excess += 1;
        }
        kept.blocks.drain(..excess).collect()
    }

    /// Gives everything to the platform.
    fn empty(&self, platform: &dyn Platform) {
        let blocks = {
            let mut kept = self.lock();
            kept.bytes = 0;
            std::mem::take(&mut kept.blocks)
        }; // the lock is not held while the driver waits
        for block in blocks {
            // SAFETY: it was given back, hence is at rest, and is on no shelf any more.
            unsafe { block.at.release(platform, block.bytes) };
        }
    }
}

impl Pool {
    /// For a device with so much memory.
    pub fn new(memory: u64) -> Self {
        if std::env::var("PULLBACK_POOL").is_ok_and(|wanted| wanted == "none") {
            return Self::nothing();
        }
        Self::of(memory / SHARE, PINNED, STREAMS)
    }

    /// Keeps nothing.
    pub fn nothing() -> Self {
        Self::of(0, 0, 0)
    }

    fn of(device: u64, pinned: u64, streams: usize) -> Self {
        let streams = Mutex::new(Streams { kept: Vec::new(), most: streams });
        Self { device: Shelf::new(device), pinned: Shelf::new(pinned), streams }
    }

    /// Bytes of the device's memory that are kept, and free whenever they are needed.
    pub fn device_bytes(&self) -> u64 {
        self.device.lock().bytes
    }

    /// A stream that was waited for.
    pub fn take_stream(&self) -> Option<Handle> {
        self.streams().kept.pop()
    }

    /// Keeps a stream that was waited for; false where there are enough.
    pub fn put_stream(&self, stream: Handle) -> bool {
        let mut streams = self.streams();
        let has_room = streams.kept.len() < streams.most;
        if has_room {
            streams.kept.push(stream);
        }
        has_room
    }

    /// Gives everything to the platform; from here on nothing is kept.
    pub fn close(&self, platform: &dyn Platform) {
        self.device.lock().most = 0;
        self.pinned.lock().most = 0;
        let streams = {
            let mut streams = self.streams();
            streams.most = 0;
            std::mem::take(&mut streams.kept)
        };
        streams.into_iter().for_each(|stream| platform.destroy_stream(stream));
        self.device.empty(platform);
        self.pinned.empty(platform);
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
