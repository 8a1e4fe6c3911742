//! What a GPU reaches at most, by its own events: copies within its memory, and products of large matrices by cuBLAS.

use std::time::{Duration, Instant};

use cudarc::driver::sys;
use half::bf16;

use super::Driver;
use crate::cuda::cublas::{CuBlas, Format};
use crate::cuda::platform::{Address, Handle, Platform, Products, Reached};
use crate::error::Result;

/// Bytes of a copy, and rows and columns of the matrices; less where memory is short.
const COPIED: usize = 1 << 30;
const SIDE: usize = 8192;
/// The same where only a look is wanted.
const QUICK: (usize, usize) = (1 << 24, 1024);
const ROUNDS: usize = 5;
/// Rounds go on for so long, as clocks rise with the load; not where only a look is wanted.
const LEAST: Duration = Duration::from_millis(300);
/// Numbers that are drawn for a matrix, and repeated in it.
const DRAWN: usize = 1 << 16;

/// Memory of the device, given back at the end.
struct Memory<'a> {
    driver: &'a Driver,
    address: Address,
}

impl<'a> Memory<'a> {
    fn new(driver: &'a Driver, bytes: usize) -> Result<Self> {
        Ok(Self { driver, address: driver.allocate(bytes)? })
    }
}

impl Drop for Memory<'_> {
    fn drop(&mut self) {
        // SAFETY: allocated above; the clock, whose stream works on it, is dropped before it.
        unsafe { self.driver.release(self.address) };
    }
}

/// A stream, and the events around what is timed on it.
struct Clock<'a> {
    driver: &'a Driver,
    stream: Handle,
    began: Handle,
    ended: Handle,
    least: Duration,
}

impl<'a> Clock<'a> {
    fn new(driver: &'a Driver, least: Duration) -> Result<Self> {
        // What a failure here leaves is destroyed with the driver.
        let (stream, began, ended) = (driver.create_stream()?, driver.create_event()?, driver.create_event()?);
        Ok(Self { driver, stream, began, ended, least })
    }

    /// Seconds of the fastest of some rounds.
    fn fastest(&self, round: impl Fn() -> Result<()>) -> Result<f64> {
        round()?;
        let (mut least, mut rounds, begin) = (f32::INFINITY, 0, Instant::now());
        while rounds < ROUNDS || begin.elapsed() < self.least {
            rounds += 1;
            self.driver.record(self.began, self.stream)?;
            round()?;
            self.driver.record(self.ended, self.stream)?;
            self.driver.synchronise_event(self.ended)?;
            least = least.min(self.driver.elapsed(self.began, self.ended)?);
        }
        Ok((f64::from(least) * 1e-3).max(1e-9))
    }

    /// # Safety
    /// `bytes` are readable at `from` and writable at `to`, without an overlap, and stay until the stream was waited for.
    unsafe fn copy(&self, to: Address, from: Address, bytes: usize) -> Result<()> {
        self.driver.context.enter()?;
        let stream = self.driver.streams.get(self.stream)?;
        // SAFETY: the caller's; the stream is alive.
        let code = unsafe { sys::cuMemcpyDtoDAsync_v2(to, from, bytes, stream.raw) };
        self.driver.check_later("copying on the device", code.result())
    }
}

impl Drop for Clock<'_> {
    fn drop(&mut self) {
        let _ = self.driver.synchronise(self.stream); // an error was reported by the call whose work it is of
        self.driver.destroy_event(self.began);
        self.driver.destroy_event(self.ended);
        self.driver.destroy_stream(self.stream);
    }
}

impl Driver {
    /// Measures; what cannot be measured is a line that says why.
    pub(super) fn measure_reached(&self, quick: bool) -> Reached {
        let ((copied, side), least) = if quick { (QUICK, Duration::ZERO) } else { ((COPIED, SIDE), LEAST) };
        Reached {
            bytes: self.copies(copied, least).map_err(|error| error.to_string()),
            operations: self.products(side, least).map_err(|error| error.to_string()),
        }
    }

    /// Bytes per second, read and written ones together.
    fn copies(&self, most: usize, least: Duration) -> Result<f64> {
        let bytes = most.min(usize::try_from(self.free_memory()? / 4).unwrap_or(most));
        let (from, to) = (Memory::new(self, bytes)?, Memory::new(self, bytes)?);
        let clock = Clock::new(self, least)?;
        // SAFETY: both have so many bytes, and outlive the clock.
        unsafe { self.fill(clock.stream, from.address, 1, bytes)? };
        // SAFETY: as above.
        let seconds = clock.fastest(|| unsafe { clock.copy(to.address, from.address, bytes) })?;
        Ok(2.0 * bytes as f64 / seconds)
    }

    fn products(&self, most: usize, least: Duration) -> Result<Products> {
        let refuse = |message: String| self.context.refuse("products of matrices", message);
        // Half of what is free for three matrices; a power of two.
        let free = self.free_memory()?;
        let sides = std::iter::successors(Some(most), |side| Some(side / 2)).take_while(|&side| side > 0);
        let side = sides
            .filter(|&side| 6 * (4 * side * side) as u64 <= free)
            .max()
            .ok_or_else(|| refuse(format!("expected memory for three matrices, found {free} bytes")))?;
        let bytes = 4 * side * side;
        let matrices = [Memory::new(self, bytes)?, Memory::new(self, bytes)?, Memory::new(self, bytes)?];
        let [a, b, c] = matrices.each_ref().map(|matrix| matrix.address);
        let clock = Clock::new(self, least)?;
        let stream = self.streams.get(clock.stream)?;
        self.context.enter()?;
        // SAFETY: the thread was bound to the stream's context, and the stream outlives what is opened here.
        let blas = unsafe { CuBlas::open(stream.raw.cast()) }.map_err(refuse)?;
        let mut rates = [0.0; 3];
        for (rate, format) in rates.iter_mut().zip(Format::ALL) {
            let drawn = draw(format);
            for matrix in [a, b] {
                self.write(&clock, matrix, bytes, &drawn)?;
            }
            let seconds = clock.fastest(|| {
                // SAFETY: three matrices of side² numbers of four bytes, enough for any format, which outlive the clock.
                unsafe { blas.multiply(format, side, [a, b, c]) }.map_err(refuse)
            })?;
            *rate = 2.0 * (side as f64).powi(3) / seconds;
        }
        let [float32, tf32, bf16] = rates;
        Ok(Products { float32, tf32, bf16, side, library: blas.path().display().to_string() })
    }

    /// Writes the words to memory of so many bytes, over and over.
    fn write(&self, clock: &Clock<'_>, to: Address, bytes: usize, words: &[u32]) -> Result<()> {
        let mut done = size_of_val(words).min(bytes);
        let pinned = self.allocate_pinned(done)?;
        // SAFETY: the driver gave out so many bytes, which are pinned, and are given back once the copy was waited for.
        let copied = unsafe {
            pinned.copy_from_nonoverlapping(words.as_ptr().cast(), done);
            let copied = self.upload(clock.stream, to, pinned, done).and_then(|()| self.synchronise(clock.stream));
            self.release_pinned(pinned, done);
            copied
        };
        copied?;
        while done < bytes {
            let more = done.min(bytes - done);
            // SAFETY: what was written so far lies before what is written now, within the caller's memory.
            unsafe { clock.copy(to + done as u64, to, more)? };
            done += more;
        }
        Ok(())
    }
}

/// Numbers from 0 to 1 in a format, two of bf16 in a word: a GPU's clock depends on the bits that change.
fn draw(format: Format) -> Vec<u32> {
    let number = |k: usize| (k as u32).wrapping_mul(0x9e37_79b9) as f32 * 2.0_f32.powi(-32); // Weyl's sequence
    let word = |k: usize| match format {
        Format::Float32 | Format::Tf32 => number(k).to_bits(),
        Format::Bf16 => {
            let [low, high] = [2 * k, 2 * k + 1].map(|k| u32::from(bf16::from_f32(number(k)).to_bits()));
            high << 16 | low
        }
    };
    (0..DRAWN).map(word).collect()
}
