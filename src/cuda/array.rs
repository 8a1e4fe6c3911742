//! Arrays that are on a device already.

use std::marker::PhantomData;

use super::platform::Address;

/// `f32` values in the memory of a device, borrowed from whoever owns them: input that needs no copy.
///
/// The memory must be of the device's primary context, which is the one that this crate, the CUDA runtime, PyTorch and `cust` use,
/// and nothing may write to it while it is borrowed: work that another library still has pending on it must be waited for first.
#[derive(Clone, Copy, Debug)]
pub struct DeviceArray<'a> {
    address: Address,
    length: usize,
    owner: PhantomData<&'a [f32]>,
}

impl<'a> DeviceArray<'a> {
    /// # Safety
    ///
    /// As many values are readable at the address, in the primary context of the device they are given to, for as long as `'a`.
    pub unsafe fn from_raw(address: u64, length: usize) -> Self {
        Self { address, length, owner: PhantomData }
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.length
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(crate) fn address(&self) -> Address {
        self.address
    }
}
