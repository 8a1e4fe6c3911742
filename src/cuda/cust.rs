//! Input from device buffers of the crate `cust`, without a copy.
//!
//! `cust` 0.3 retains the primary context of a device (`cust::quick_init`, `cust::context::Context::new`), as this crate does, so
//! an address is good in both. It orders nothing between its streams and ours: synchronise the stream that fills a buffer before the
//! buffer is handed over. Buffers of `cust::context::legacy` are in contexts of their own and must not be used.

use cust::memory::DeviceBuffer;

use super::array::DeviceArray;

impl<'a> From<&'a DeviceBuffer<f32>> for DeviceArray<'a> {
    fn from(buffer: &'a DeviceBuffer<f32>) -> Self {
        // SAFETY: `cust` allocated that many values, and frees them only after the borrow.
        unsafe { Self::from_raw(buffer.as_device_ptr().as_raw(), buffer.len()) }
    }
}
