//! Launch geometry: kernels walk over their work in strides of the grid, so a grid is as large as the work or as the device.

use bytemuck::{Pod, Zeroable};

use super::memory::Stream;
use super::platform::{Address, Geometry, Kernel};
use crate::error::Result;

/// Rows and threads of a product's tile; `kernels/product.cuh`.
const TILE_ROWS: u64 = 128;
const TILE_COLUMNS: u64 = 64;
/// Threads of every kernel but the solver's step.
const THREADS: u32 = 256;
const WARP: u64 = 32;
/// Blocks of a grid for every multiprocessor, at most: several waves, so that the last one is short. Blocks of one warp are many more.
const BLOCKS_PER_MULTIPROCESSOR: u64 = 16;
const SMALL_BLOCKS_PER_MULTIPROCESSOR: u64 = 64;

/// `RowList` in `kernels/product.cuh`: which points a kernel works on.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(crate) struct RowList {
    pub ids: Address,
    pub count: Address,
    pub limit: u32,
    pub padding: u32,
}

impl RowList {
    /// Points 0 to `count` − 1.
    pub fn all(count: usize) -> Self {
        Self { ids: 0, count: 0, limit: count as u32, padding: 0 }
    }

    /// Points in a list on the device, as many as the device counted, `limit` at most.
    pub fn counted(ids: Address, count: Address, limit: usize) -> Self {
        Self { ids, count, limit: limit as u32, padding: 0 }
    }
}

/// Where kernels are launched.
#[derive(Clone, Copy)]
pub(crate) struct Launcher<'a> {
    pub stream: &'a Stream,
}

impl Launcher<'_> {
    fn blocks(&self, wanted: u64, per_multiprocessor: u64) -> u32 {
        let most = u64::from(self.stream.platform().properties().multiprocessors) * per_multiprocessor;
        wanted.clamp(1, most.max(1)) as u32
    }

    fn launch<P: Pod>(&self, kernel: Kernel, blocks: u64, params: &P) -> Result<()> {
        let geometry = Geometry { blocks: self.blocks(blocks, BLOCKS_PER_MULTIPROCESSOR), threads: THREADS, shared: 0 };
        // SAFETY: launchers in this module build `params` from buffers that outlive their stream, with the sizes they were made for.
        unsafe { self.stream.launch(kernel, geometry, params) }
    }

    /// A product of `rows` × `columns`.
    pub fn tiles<P: Pod>(&self, kernel: Kernel, rows: usize, columns: usize, params: &P) -> Result<()> {
        let tiles = (rows as u64).div_ceil(TILE_ROWS) * (columns as u64).div_ceil(TILE_COLUMNS);
        self.launch(kernel, tiles, params)
    }

    /// A warp for every item.
    pub fn warps<P: Pod>(&self, kernel: Kernel, items: usize, params: &P) -> Result<()> {
        self.launch(kernel, (items as u64 * WARP).div_ceil(THREADS.into()), params)
    }

    /// A thread for every item.
    pub fn threads<P: Pod>(&self, kernel: Kernel, items: usize, params: &P) -> Result<()> {
        self.launch(kernel, (items as u64).div_ceil(THREADS.into()), params)
    }

    /// A block of `threads` for every item, with dynamic shared memory.
    pub fn each<P: Pod>(&self, kernel: Kernel, items: usize, (threads, shared): (u32, u32), params: &P) -> Result<()> {
        let geometry = Geometry { blocks: self.blocks_for(items), threads, shared };
        // SAFETY: as in `launch`.
        unsafe { self.stream.launch(kernel, geometry, params) }
    }

    /// Sets `count` numbers from an address on to zero.
    pub fn clear(&self, from: Address, count: usize) -> Result<()> {
        // SAFETY: as in `launch`.
        unsafe { self.stream.fill_with_zeros(from, count * size_of::<f32>()) }
    }

    /// Blocks that [`each`](Launcher::each) launches.
    pub fn blocks_for(&self, items: usize) -> u32 {
        self.blocks(items as u64, SMALL_BLOCKS_PER_MULTIPROCESSOR)
    }
}
