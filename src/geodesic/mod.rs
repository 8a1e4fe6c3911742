//! Geodesics: options, results, and the driver that every device shares.

pub(crate) mod backend;
pub(crate) mod initial;
pub(crate) mod jobs;
pub(crate) mod policy;

use ndarray::{Array1, Array3};

use crate::error::{Error, Result};
use crate::precision::Precision;
use crate::scalar::Scalar;

/// Segments of the coarsest grid, and how many times finer the next one is.
const COARSEST: usize = 8;
const REFINEMENT: usize = 4;
/// Coarse grids are left out where fewer linearisations are allowed.
const LEAST_FOR_GRIDS: u32 = 10;
/// Tolerance on grids coarser than the last: their own error is larger.
const COARSE_TOLERANCE: f64 = 3e-4;
/// What stands for the tolerance and for rounding where products take numbers of 11 or 8 significant bits: four units in the last
/// place hide most of what chords lose.
const TF32_TOLERANCE: f64 = 3e-4;
const TF32_NOISE: f64 = 4.0 / 1024.0;
const BF16_TOLERANCE: f64 = 3e-3;
const BF16_NOISE: f64 = 4.0 / 128.0;

/// How geodesics are discretised and when the solver stops.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// N, the number of segments of every curve, at least 2. Distances are right to O(1/N²).
    pub segments: usize,
    /// Converged where the next step can gain no more than this share of the energy; `None` for 10⁻⁶ in `f32` and 10⁻¹⁰ in `f64`,
    /// and for 3 · 10⁻⁴ and 3 · 10⁻³ where a GPU's products are in [`Tf32`](crate::Precision::Tf32) and [`Bf16`](crate::Precision::Bf16).
    pub tolerance: Option<f64>,
    /// Linearisations at most, over all grids.
    pub max_iterations: u32,
    /// Solve on coarser grids first, where there are at least 16 segments and 10 iterations: faster, the more so the larger d is. On
    /// strongly curved decoders another local minimum may be found; never one above the straight line.
    pub coarse_to_fine: bool,
    /// Where the decoder has kinks (relu, leaky_relu), solve with rounded ones first, sharper from stage to stage: at a kink the
    /// energy has no derivative, and a search stalls there, often far above the minimum. Energies and lengths are the decoder's own.
    pub soften_kinks: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { segments: 32, tolerance: None, max_iterations: 200, coarse_to_fine: true, soften_kinks: true }
    }
}

impl Options {
    pub(crate) fn check(&self) -> Result<()> {
        if !(2..=1 << 20).contains(&self.segments) {
            return Err(Error::Option { name: "segments", expected: "2 to 1048576", found: self.segments.to_string() });
        }
        if let Some(tolerance) = self.tolerance
            && !(tolerance > 0.0 && tolerance < 1.0)
        {
            return Err(Error::Option {
                name: "tolerance",
                expected: "a number between 0 and 1",
                found: tolerance.to_string(),
            });
        }
        if self.max_iterations == 0 {
            return Err(Error::Option { name: "max_iterations", expected: "at least 1", found: "0".into() });
        }
        Ok(())
    }

    /// For curves in the type `T`, whose products are computed in the given precision.
    pub(crate) fn policy<T: Scalar>(&self, precision: Precision) -> policy::Policy {
        let (tolerance, noise) = match (precision, T::EPSILON.to_f64()) {
            (Precision::Tf32, _) => (TF32_TOLERANCE, TF32_NOISE),
            (Precision::Bf16, _) => (BF16_TOLERANCE, BF16_NOISE),
            (Precision::Float32 | Precision::Tf32x3 | Precision::Mixed, epsilon) => {
                (if epsilon > 1e-10 { 1e-6 } else { 1e-10 }, 32.0 * epsilon)
            }
        };
        policy::Policy {
            tolerance: self.tolerance.unwrap_or(tolerance),
            coarse_tolerance: COARSE_TOLERANCE.max(tolerance),
            noise,
            low_noise: TF32_NOISE,
            max_iterations: self.max_iterations,
        }
    }

    /// Segments of every grid, coarse to fine.
    pub(crate) fn grids(&self) -> Vec<usize> {
        let mut grids = Vec::new();
        let mut coarse = COARSEST;
        while self.coarse_to_fine && self.max_iterations >= LEAST_FOR_GRIDS && 2 * coarse <= self.segments {
            grids.push(coarse);
            coarse *= REFINEMENT;
        }
        grids.push(self.segments);
        grids
    }

    /// The grids of a search. One that starts in low precision passes all of them in it, and then the last once more in full; where too
    /// few linearisations are allowed for that, it has full precision alone.
    #[cfg(any(feature = "cuda", feature = "emulator"))]
    pub(crate) fn stages(&self, starts_low: bool) -> Stages {
        let mut grids = self.grids();
        // One linearisation for each grid, one for the last once more, and one for a start from the straight line.
        let least = LEAST_FOR_GRIDS.max(grids.len() as u32 + 2);
        let low = if starts_low && self.max_iterations >= least { grids.len() } else { 0 };
        if low > 0 {
            grids.push(self.segments);
        }
        Stages { grids, low }
    }
}

/// What a search passes through.
#[cfg(any(feature = "cuda", feature = "emulator"))]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stages {
    /// Segments of every grid, coarse to fine.
    pub grids: Vec<usize>,
    /// So many of them, from the first on, are computed in low precision: none, or all but the last.
    pub low: usize,
}

/// Why the solver left a curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Status {
    /// No step can gain more than the tolerance.
    Converged = 0,
    /// The limit on linearisations was reached; the curve is the best so far.
    MaxIterations = 1,
    /// No step lowers the energy, although the gradient says that one should.
    Stalled = 2,
    /// The decoder gave NaN or infinity along the first curve.
    NonFinite = 3,
}

impl Status {
    /// Every status, in the order of its codes.
    pub const ALL: [Self; 4] = [Self::Converged, Self::MaxIterations, Self::Stalled, Self::NonFinite];

    /// The name used in files and by the command.
    pub fn name(self) -> &'static str {
        match self {
            Self::Converged => "converged",
            Self::MaxIterations => "max_iterations",
            Self::Stalled => "stalled",
            Self::NonFinite => "non_finite",
        }
    }
}

/// Solved curves.
#[derive(Clone, Debug, PartialEq)]
pub struct Geodesics<T> {
    /// Points of every curve, `[C, N + 1, d]`; the first and the last are the given ends, to the bit.
    pub curves: Array3<T>,
    /// Chord energy N/2 · Σ ‖f(z_{i+1}) − f(z_i)‖², `[C]`, in squared data units; NaN for a curve that is not finite.
    pub energy: Array1<T>,
    /// Σ ‖f(z_{i+1}) − f(z_i)‖, `[C]`, in data units: the distance between the ends, up to O(1/N²).
    pub length: Array1<T>,
    /// ‖∇E‖ over all inner points, `[C]`.
    pub gradient_norm: Array1<T>,
    /// Linearisations spent on all grids, `[C]`; gradients found alone between them are not counted.
    pub iterations: Array1<u32>,
    /// Why the solver left the curve, `[C]`.
    pub status: Vec<Status>,
}

impl<T: Scalar> Geodesics<T> {
    pub(crate) fn new(count: usize, segments: usize, latent_dim: usize) -> Self {
        let nan = || Array1::from_elem(count, T::from_f64(f64::NAN));
        Self {
            curves: Array3::from_elem((count, segments + 1, latent_dim), T::ZERO),
            energy: nan(),
            length: nan(),
            gradient_norm: nan(),
            iterations: Array1::zeros(count),
            status: vec![Status::NonFinite; count],
        }
    }

    /// Number of curves.
    pub fn len(&self) -> usize {
        self.status.len()
    }

    /// True where there is no curve.
    pub fn is_empty(&self) -> bool {
        self.status.is_empty()
    }

    /// Curves with the given status.
    pub fn count(&self, status: Status) -> usize {
        self.status.iter().filter(|&&s| s == status).count()
    }
}

#[cfg(all(test, any(feature = "cuda", feature = "emulator")))]
mod tests {
    use super::*;

    #[test]
    fn the_last_grid_is_passed_again_in_full_precision() {
        let stages = |options: Options, starts_low| options.stages(starts_low);
        let of = |grids: &[usize], low| Stages { grids: grids.to_vec(), low };
        let default = Options::default;
        assert_eq!(stages(default(), false), of(&[8, 32], 0));
        assert_eq!(stages(default(), true), of(&[8, 32, 32], 2));
        assert_eq!(stages(Options { coarse_to_fine: false, ..default() }, true), of(&[32, 32], 1));
        assert_eq!(stages(Options { segments: 100, ..default() }, true), of(&[8, 32, 100, 100], 3));
        for (most, expected) in [(9, of(&[32], 0)), (10, of(&[8, 32, 32], 2))] {
            assert_eq!(stages(Options { max_iterations: most, ..default() }, true), expected);
        }
    }
}
