//! Launches `kernels/ensemble.cu`: chords, adjoints and products of an ensemble's members.

use bytemuck::{Pod, Zeroable};

use super::energy::{Chords, Seeds};
use super::gram::Operand;
use super::jacobian::Pass;
use super::launch::{Launcher, RowList};
use super::network::kernel;
use super::platform::Address;
use crate::error::Result;

/// One of the members, which are the first heads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    pub number: usize,
    pub of: usize,
}

/// `EnsembleChords` in `kernels/ensemble.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct EnsembleChords {
    chords: Chords,
    members: u32,
    width: u32,
}

/// `EnsembleSeeds` in `kernels/ensemble.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct EnsembleSeeds {
    seeds: Seeds,
    members: u32,
    member: u32,
}

/// `EnsembleAverage` in `kernels/ensemble.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct EnsembleAverage {
    list: RowList,
    tangents: Address,
    factor: Address,
    average: Address,
    width: u32,
    latent_dim: u32,
    members: u32,
    member: u32,
    is_shared: u32,
    padding: u32,
}

/// Squares of chords between so many members with `width` outputs each.
pub(crate) fn chords(launcher: Launcher<'_>, chords: &Chords, members: usize, width: usize) -> Result<()> {
    let params = EnsembleChords { chords: *chords, members: members as u32, width: width as u32 };
    let kernel = kernel(launcher.stream.platform().as_ref(), "ensemble_chords")?;
    launcher.warps(kernel, chords.list.limit as usize, &params)
}

impl Member {
    /// r_c where `seeds` says.
    pub fn residuals(self, launcher: Launcher<'_>, seeds: &Seeds) -> Result<()> {
        let params = EnsembleSeeds { seeds: *seeds, members: self.of as u32, member: self.number as u32 };
        let kernel = kernel(launcher.stream.platform().as_ref(), "ensemble_seeds")?;
        launcher.threads(kernel, seeds.list.limit as usize * seeds.outputs as usize, &params)
    }

    /// Adds the share of the pass's member to A in `average` `[points, d, outputs]`, by place; with the last member it is whole, and
    /// returned.
    pub fn average(self, pass: &Pass<'_>, average: Address) -> Result<Option<Operand>> {
        let (jacobian, d, width) = (Operand::jacobian(pass), pass.directions, pass.chain.outputs());
        let params = EnsembleAverage {
            list: pass.list,
            tangents: jacobian.base,
            factor: jacobian.factor,
            average,
            width: width as u32,
            latent_dim: d as u32,
            members: self.of as u32,
            member: self.number as u32,
            is_shared: jacobian.is_shared,
            padding: 0,
        };
        let kernel = kernel(pass.launcher.stream.platform().as_ref(), "ensemble_average")?;
        pass.launcher.threads(kernel, pass.list.limit as usize * d * width, &params)?;
        let whole = Operand { base: average, factor: 0, weight: 0, rows: d as u32, is_shared: 0 };
        Ok((self.number + 1 == self.of).then_some(whole))
    }
}
