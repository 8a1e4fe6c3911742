//! Launches `kernels/spectrum.cu`: eigenvalues and eigenvectors of metrics, and metrics without their weak directions.

use bytemuck::{Pod, Zeroable};

use super::launch::Launcher;
use super::network::kernel;
use super::platform::{Address, Properties};
use crate::error::Result;

/// Bytes of shared memory, at most, that `spectra` takes beside its room.
const STATIC_SHARED: usize = 64;

/// `Spectra` in `kernels/spectrum.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Spectra {
    metrics: Address,
    spectra: Address,
    points: u32,
    d: u32,
}

/// `TruncatedMetrics` in `kernels/spectrum.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct TruncatedMetrics {
    metrics: Address,
    spectra: Address,
    out: Address,
    points: u32,
    d: u32,
    threshold: f32,
    padding: u32,
}

/// A block for one metric at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    threads: u32,
    /// Bytes.
    shared: u32,
}

impl Block {
    /// For metrics of d latents; nothing where a block of the device has no room for one.
    pub fn new(properties: &Properties, d: usize) -> Option<Self> {
        let threads = match d {
            0..=16 => 32,
            17..=32 => 64,
            33..=64 => 128,
            _ => 256,
        };
        let n = d.next_multiple_of(2);
        let shared = (d * (n + 1) + d * d + n) * size_of::<f32>();
        let fits = shared + STATIC_SHARED <= properties.shared_per_block as usize;
        // A thread for every pair of latents.
        (fits && n / 2 <= threads).then_some(Self { threads: threads as u32, shared: shared as u32 })
    }
}

/// Numbers of a point's spectrum: d eigenvalues and, behind them, d eigenvectors.
pub(crate) fn width(d: usize) -> usize {
    d + d * d
}

/// From metrics `[points, d, d]` to spectra `[points, width]`.
pub(crate) fn spectra(
    launcher: Launcher<'_>,
    block: Block,
    (points, d): (usize, usize),
    metrics: Address,
    spectra: Address,
) -> Result<()> {
    let params = Spectra { metrics, spectra, points: points as u32, d: d as u32 };
    let kernel = kernel(launcher.stream.platform().as_ref(), "spectra")?;
    launcher.each(kernel, points, (block.threads, block.shared), &params)
}

/// From metrics and their spectra to Σ λ_k v_k v_kᵀ over the eigenvalues above `threshold` times the largest, and how many those are:
/// `out` `[points, d² + 1]`.
pub(crate) fn truncate(
    launcher: Launcher<'_>,
    (points, d): (usize, usize),
    [metrics, spectra]: [Address; 2],
    threshold: f32,
    out: Address,
) -> Result<()> {
    let params = TruncatedMetrics { metrics, spectra, out, points: points as u32, d: d as u32, threshold, padding: 0 };
    let kernel = kernel(launcher.stream.platform().as_ref(), "truncated_metrics")?;
    launcher.threads(kernel, points * d * d, &params)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An A100's 163 KiB and an H100's 227 KiB.
    #[test]
    fn blocks_have_room_for_so_many_latents() {
        let largest = |kib: u32| {
            let name = String::new();
            let properties = Properties {
                name,
                compute: (8, 0),
                multiprocessors: 1,
                shared_per_block: kib << 10,
                ..Properties::default()
            };
            (1..400).take_while(|&d| Block::new(&properties, d).is_some()).last()
        };
        assert_eq!((largest(163), largest(227)), (Some(143), Some(169)));
    }
}
