//! Launches `kernels/cholesky.cu`: logarithms of metrics' determinants.

use bytemuck::{Pod, Zeroable};

use super::launch::Launcher;
use super::network::kernel;
use super::platform::{Address, Properties};
use crate::error::Result;

/// `LogDeterminants` in `kernels/cholesky.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct LogDeterminants {
    metrics: Address,
    out: Address,
    points: u32,
    d: u32,
}

/// Bytes of shared memory for a metric of d latents; nothing where a block of the device has too little.
pub(crate) fn room(properties: &Properties, d: usize) -> Option<u32> {
    let bytes = d * (d + 3) * size_of::<f32>();
    (bytes <= properties.shared_per_block as usize).then_some(bytes as u32)
}

/// From metrics `[points, d, d]` to log det G in float64, `[points]`; `room` is what [`room`] finds.
pub(crate) fn log_determinants(
    launcher: Launcher<'_>,
    room: u32,
    (points, d): (usize, usize),
    metrics: Address,
    out: Address,
) -> Result<()> {
    let params = LogDeterminants { metrics, out, points: points as u32, d: d as u32 };
    let kernel = kernel(launcher.stream.platform().as_ref(), "log_determinants")?;
    launcher.each(kernel, points, (32, room), &params)
}
