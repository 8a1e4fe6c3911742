//! Launches `kernels/gaussian.cu`: chords, adjoints and scales of means and standard deviations.

use bytemuck::{Pod, Zeroable};

use super::energy::{Chords, Seeds};
use super::jacobian::Pass;
use super::launch::{Launcher, RowList};
use super::network::kernel;
use super::platform::Address;
use crate::error::Result;

/// `GaussianChords` in `kernels/gaussian.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct GaussianChords {
    chords: Chords,
    width: u32,
    padding: u32,
}

/// `GaussianSeeds` in `kernels/gaussian.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct GaussianSeeds {
    seeds: Seeds,
    is_std: u32,
    padding: u32,
}

/// `GaussianScales` in `kernels/gaussian.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct GaussianScales {
    list: RowList,
    values: Address,
    scales: Address,
    width: u32,
    data_dim: u32,
    is_std: u32,
    padding: u32,
}

/// Squares of chords between `width` means and as many standard deviations.
pub(crate) fn chords(launcher: Launcher<'_>, chords: &Chords, width: usize) -> Result<()> {
    let params = GaussianChords { chords: *chords, width: width as u32, padding: 0 };
    let kernel = kernel(launcher.stream.platform().as_ref(), "gaussian_chords")?;
    launcher.warps(kernel, chords.list.limit as usize, &params)
}

/// r of the means or of the standard deviations where `seeds` says.
pub(crate) fn residuals(launcher: Launcher<'_>, seeds: &Seeds, is_std: bool) -> Result<()> {
    let params = GaussianSeeds { seeds: *seeds, is_std: is_std.into(), padding: 0 };
    let kernel = kernel(launcher.stream.platform().as_ref(), "gaussian_seeds")?;
    launcher.threads(kernel, seeds.list.limit as usize * seeds.outputs as usize, &params)
}

/// What the pass's tangents are multiplied with for G, into `scales` `[points, outputs]` by place, from values by number.
pub(crate) fn scales(pass: &Pass<'_>, is_std: bool, values: Address, scales: Address) -> Result<()> {
    let width = pass.chain.outputs();
    let params = GaussianScales {
        list: pass.list,
        values,
        scales,
        width: width as u32,
        data_dim: pass.network.data_dim as u32,
        is_std: is_std.into(),
        padding: 0,
    };
    let kernel = kernel(pass.launcher.stream.platform().as_ref(), "gaussian_scales")?;
    pass.launcher.threads(kernel, pass.list.limit as usize * width, &params)
}
