//! Launches `kernels/step.cu`: lists of work, steps and decisions of a batch of curves.

use bytemuck::{Pod, Zeroable};

use super::launch::Launcher;
use super::network::{DeviceNetwork, kernel};
use super::platform::Address;
use crate::cpu::step::COUPLING;
use crate::error::Result;
use crate::geodesic::policy::{self, CANDIDATES, LEVELS};

/// `Curve` in `kernels/curve.cuh`, in bytes; all zero is a free slot.
pub(crate) const CURVE_BYTES: usize = 152;
/// `MOST_GRIDS` in `kernels/curve.cuh`.
const MOST_GRIDS: usize = 12;
/// Bytes of shared memory, at most, that a step takes beside its workspace.
const STATIC_SHARED: usize = 4096;

/// Places in `Counters` of `kernels/solver.cuh`, in words; those from `FREE` to `SEARCHES` are of one round.
pub(crate) mod counter {
    pub const LIMIT: usize = 1;
    pub const FINISHED: usize = 2;
    pub const FREE: usize = 4;
    pub const TANGENTS: usize = 5;
    pub const ADJOINTS: usize = 7;
    #[cfg(all(test, feature = "emulator"))]
    pub const STEPS: usize = 8;
    pub const SEARCHES: usize = 9;
    pub const COUNT: usize = 16;
}

/// `Policy` in `kernels/curve.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(crate) struct Policy {
    tolerance: f64,
    coarse_tolerance: f64,
    noise: f64,
    low_noise: f64,
    levels: [f64; LEVELS.len()],
    candidate_lengths: [f64; CANDIDATES.len()],
    first_damping: f64,
    bold_share: f64,
    trust: f64,
    trusted_shrinkage: f64,
    little: f64,
    contraction: f64,
    growth: f64,
    least_damping: f64,
    most_damping: f64,
    coupling: f64,
    candidate_levels: [u32; CANDIDATES.len()],
    max_iterations: u32,
    padding: u32,
}

impl Policy {
    fn new(policy: &policy::Policy) -> Self {
        Self {
            tolerance: policy.tolerance,
            coarse_tolerance: policy.coarse_tolerance,
            noise: policy.noise,
            low_noise: policy.low_noise,
            levels: LEVELS,
            candidate_lengths: CANDIDATES.map(|(_, length)| length),
            first_damping: policy::FIRST_DAMPING,
            bold_share: policy::BOLD_SHARE,
            trust: policy::TRUST,
            trusted_shrinkage: policy::TRUSTED_SHRINKAGE,
            little: policy::LITTLE,
            contraction: policy::CONTRACTION,
            growth: policy::GROWTH,
            least_damping: policy::LEAST_DAMPING,
            most_damping: policy::MOST_DAMPING,
            coupling: COUPLING,
            candidate_levels: CANDIDATES.map(|(level, _)| level as u32),
            max_iterations: policy.max_iterations,
            padding: 0,
        }
    }
}

/// `Batch` in `kernels/solver.cuh`, which says what stands where.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(crate) struct Batch {
    pub counters: Address,
    pub curves: Address,
    pub segments_of: Address,
    pub points: Address,
    pub trial: Address,
    pub squares: Address,
    pub gram: Address,
    pub off: Address,
    pub curvature: Address,
    pub gradient: Address,
    pub steps: Address,
    pub blocks: Address,
    pub sides: Address,
    pub tangent_ids: Address,
    pub adjoint_rows: Address,
    pub free_slots: Address,
    pub step_curves: Address,
    pub search_ids: Address,
    pub workspace: Address,
    pub starts: Address,
    pub ends: Address,
    pub initial: Address,
    pub out_points: Address,
    pub out_numbers: Address,
    pub out_iterations: Address,
    pub out_status: Address,
    pub ring: u32,
    pub input_ring: u32,
    pub slots: u32,
    pub stride: u32,
    pub latent_dim: u32,
    pub grid_count: u32,
    pub nested: u32,
    pub low_grids: u32,
    pub grids: [u32; MOST_GRIDS],
    pub policy: Policy,
}

impl Batch {
    /// All addresses 0, for the caller to fill in.
    pub fn new(grids: &[usize], policy: &policy::Policy) -> Self {
        let mut batch = Self::zeroed();
        batch.grid_count = grids.len() as u32;
        batch.nested = grids.windows(2).all(|pair| pair[1].is_multiple_of(pair[0])).into();
        for (to, &from) in batch.grids.iter_mut().zip(grids) {
            *to = from as u32;
        }
        batch.policy = Policy::new(policy);
        batch
    }

    fn every_slot(&self, launcher: Launcher<'_>, name: &str) -> Result<()> {
        let kernel = kernel(launcher.stream.platform().as_ref(), name)?;
        launcher.warps(kernel, self.slots as usize, self)
    }

    /// Free slots take the next pairs.
    pub fn admit(&self, launcher: Launcher<'_>) -> Result<()> {
        let collect_free = kernel(launcher.stream.platform().as_ref(), "collect_free")?;
        launcher.threads(collect_free, self.slots as usize, self)?;
        self.every_slot(launcher, "admit")
    }

    /// Lists for the linearisation and the step.
    pub fn collect_linearise(&self, launcher: Launcher<'_>) -> Result<()> {
        self.every_slot(launcher, "collect_linearise")
    }

    /// The list of points to be decoded.
    pub fn collect_search(&self, launcher: Launcher<'_>) -> Result<()> {
        self.every_slot(launcher, "collect_search")
    }

    /// Accepts, refines, tries again or finishes, curve by curve.
    pub fn decide(&self, launcher: Launcher<'_>) -> Result<()> {
        self.every_slot(launcher, "decide")
    }

    /// Block-tridiagonal solves, and the curves to be tried.
    pub fn step(&self, launcher: Launcher<'_>, network: &DeviceNetwork) -> Result<()> {
        let (slots, d) = (self.slots as usize, self.latent_dim as usize);
        let (threads, curves) = step_block(d);
        match shared_workspace(launcher, d) {
            Some(shared) => launcher.each(network.kernels.step, slots.div_ceil(curves), (threads, shared), self),
            None => {
                let wide = kernel(launcher.stream.platform().as_ref(), "step_wide")?;
                launcher.each(wide, slots, (threads, 0), self)
            }
        }
    }
}

/// Threads of a block of `step`, and how many curves they work on at once: `WARP_STEP_DIM` in `kernels/step.cu`.
fn step_block(d: usize) -> (u32, usize) {
    match d {
        0..=8 => (256, 8),
        9..=24 => (128, 1),
        _ => (256, 1),
    }
}

/// Numbers that one curve's solve works on; `solve_workspace` in `kernels/tridiagonal.cuh`.
fn workspace(d: usize) -> usize {
    d * (2 * d + 1) + 2 * (2 * d + 1) + d
}

/// Bytes of shared memory for the workspaces of a block, or nothing where they do not fit.
fn shared_workspace(launcher: Launcher<'_>, d: usize) -> Option<u32> {
    let most = launcher.stream.platform().properties().shared_per_block as usize;
    let bytes = step_block(d).1 * workspace(d) * size_of::<f32>();
    (bytes + STATIC_SHARED <= most).then_some(bytes as u32)
}

/// Numbers of global workspace that the steps of so many slots need.
pub(crate) fn global_workspace(launcher: Launcher<'_>, slots: usize, d: usize) -> usize {
    if shared_workspace(launcher, d).is_some() { 0 } else { launcher.blocks_for(slots) as usize * workspace(d) }
}

#[cfg(all(test, feature = "emulator"))]
mod moves;
#[cfg(all(test, feature = "emulator"))]
mod tests;
