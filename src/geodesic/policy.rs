//! The rules by which one curve moves: which step is tried next, what is accepted, when a curve is done.
//!
//! Pure decisions on a few numbers per curve, the same on every device. A step solves
//! (H + λ s (Λ ⊗ I)) δ = −∇E, damped in the H¹ norm of the curve with strength λ.
//!
//! - The boldest step is tried first; where the energy falls about as the quadratic model says, that is all. Otherwise the other
//!   candidates are tried as well and the lowest energy wins.
//! - H is the Gauss–Newton matrix at first, and the full Hessian once a step gained what was promised or gained little.
//! - A curve whose bold step once failed is hard: it keeps to the Gauss–Newton matrix until steps gain little, and leaves a coarse
//!   grid at once, since what it finds there says little about the fine one.
//! - Behind a trusted Newton step only the gradient is found anew (one adjoint row a point instead of d tangents): it
//!   tells whether the curve is done, and otherwise gives a chord step with the Hessian at hand while those contract.

use super::Status;

/// Damping levels of the candidates, as multiples of the curve's own λ.
pub(crate) const LEVELS: [f64; 3] = [1.0 / 8.0, 1.0, 8.0];
/// (level, length) of every candidate; the first is the bold one.
pub(crate) const CANDIDATES: [(usize, f64); 6] = [(0, 1.0), (0, 0.4), (1, 1.0), (1, 0.4), (2, 1.0), (2, 0.4)];
/// λ of a fresh curve.
pub(crate) const FIRST_DAMPING: f64 = 1.0;
/// The bold step is taken without looking at others where it gains this share of what the model promises.
pub(crate) const BOLD_SHARE: f64 = 0.3;
/// The model is trusted where the gain is this share of the promise, or the inverse of it, or between.
pub(crate) const TRUST: f64 = 0.6;
/// λ shrinks by this factor behind a trusted step.
pub(crate) const TRUSTED_SHRINKAGE: f64 = 1.0 / 64.0;
/// A step that gains less than this share of the energy gains little.
pub(crate) const LITTLE: f64 = 3e-3;
/// Chord steps go on while ∇E · δ shrinks by this factor each time.
pub(crate) const CONTRACTION: f64 = 0.3;
/// λ grows by this factor where no candidate lowers the energy.
pub(crate) const GROWTH: f64 = 64.0;
/// λ never falls below this.
pub(crate) const LEAST_DAMPING: f64 = 1e-9;
/// Beyond this a curve that cannot move is stalled.
pub(crate) const MOST_DAMPING: f64 = 1e12;

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    /// Converged where |∇E · δ| ≤ tolerance · E.
    pub tolerance: f64,
    /// The same on grids coarser than the last.
    pub coarse_tolerance: f64,
    /// Share of the energy that rounding can hide.
    pub noise: f64,
    /// The same on grids that are computed in low precision, which is a GPU's matter.
    #[cfg_attr(not(any(feature = "cuda", feature = "emulator")), allow(dead_code))]
    pub low_noise: f64,
    /// Linearisations at most.
    pub max_iterations: u32,
}

/// What a curve does next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Next {
    /// Linearise at the curve just tried.
    Linearise,
    /// Find the gradient alone there, to go on with the Hessian at hand.
    Gradient,
    /// Solve for the levels still missing and try the next candidate.
    Try,
    /// Evaluate this candidate again, with derivatives: it won. `None`: the curve as it stands, whose values were overwritten.
    Settle(Option<usize>),
    /// Finished.
    Stop(Status),
}

/// Where a curve stands in its search.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// The first curve is to be evaluated.
    Start,
    /// Candidate k is being tried.
    Candidate(usize),
    /// The winner is being evaluated again.
    Settle,
}

/// The few numbers that steer one curve. Energies are divided by N.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    phase: Phase,
    pub energy: f64,
    pub damping: f64,
    pub newton: bool,
    pub iterations: u32,
    /// ∇E · δ for every level solved so far at this point.
    pub slopes: [Option<f64>; 3],
    best: Option<(usize, f64)>,
    /// The Hessian at hand belongs to an earlier point.
    chord: bool,
    /// The Hessian at hand is too old: the curve must be linearised before the next step.
    outdated: bool,
    /// ∇E · δ of the step before.
    last_slope: f64,
    /// A bold step has failed.
    hard: bool,
    /// The values at hand belong to a candidate that was not taken.
    stale: bool,
    /// The curve is done, once its values are those of its points.
    status: Option<Status>,
}

impl Progress {
    pub fn new() -> Self {
        Self {
            phase: Phase::Start,
            energy: f64::INFINITY,
            damping: FIRST_DAMPING,
            newton: false,
            iterations: 0,
            slopes: [None; 3],
            best: None,
            chord: false,
            outdated: false,
            last_slope: 0.0,
            hard: false,
            stale: false,
            status: None,
        }
    }

    /// The same curve on another grid: its energy must be found anew, and where no step helped, one may now.
    pub fn refine(&mut self) {
        if self.status == Some(Status::Stalled) {
            self.damping = FIRST_DAMPING;
        }
        self.phase = Phase::Start;
        self.energy = f64::INFINITY;
        self.stale = false;
        self.status = None;
    }

    /// Another curve between the same ends; what was spent so far still counts.
    pub fn restart(&mut self) {
        *self = Self { iterations: self.iterations, ..Self::new() };
    }

    /// True until the curve has been evaluated on its grid.
    pub fn is_new(&self) -> bool {
        self.phase == Phase::Start
    }

    /// (level, length) of the candidate to be tried; `None` for a curve to be evaluated as it stands.
    pub fn candidate(&self) -> Option<(usize, f64)> {
        match self.phase {
            Phase::Candidate(k) => Some(CANDIDATES[k]),
            Phase::Start | Phase::Settle => None,
        }
    }

    /// True where the trial's derivatives will be wanted if it is accepted.
    pub fn keeps_derivatives(&self) -> bool {
        !matches!(self.phase, Phase::Candidate(1..))
    }

    /// Called after a linearisation, before the first solve at this point.
    pub fn linearised(&mut self) {
        self.iterations += 1;
        self.chord = false;
        self.begin_search();
    }

    /// Called after the gradient alone was found anew.
    pub fn gradient_found(&mut self) {
        self.chord = true;
        self.last_slope = self.slopes[0].unwrap_or(0.0);
        self.begin_search();
    }

    /// True, once, where a solve has found the Hessian at hand too old.
    pub fn take_outdated(&mut self) -> bool {
        std::mem::take(&mut self.outdated)
    }

    /// True where more work on a grid that is not the last would not pay.
    pub fn leaves_coarse_grids(&self) -> bool {
        self.hard
    }

    /// The status that a solve has found, if any.
    pub fn is_over(&self) -> Option<Status> {
        self.status.filter(|_| self.phase == Phase::Candidate(0))
    }

    fn begin_search(&mut self) {
        self.phase = Phase::Candidate(0);
        self.slopes = [None; 3];
        self.best = None;
    }

    /// Called with ∇E · δ of a level just solved. `reserve` linearisations must be left.
    pub fn solved(&mut self, policy: &Policy, last_grid: bool, reserve: u32, level: usize, slope: f64) {
        self.slopes[level] = Some(slope);
        if level > 0 {
            return;
        }
        // A damped step promises about 1/(1 + λ) of what an undamped one would.
        let promise = slope.abs() * (1.0 + LEVELS[0] * self.damping);
        let tolerance = if last_grid { policy.tolerance } else { policy.coarse_tolerance };
        if promise <= tolerance * self.energy {
            self.status = Some(Status::Converged);
        } else if self.chord && slope.abs() > CONTRACTION * self.last_slope.abs() {
            self.outdated = true;
        } else if self.iterations.saturating_add(reserve) >= policy.max_iterations {
            self.status = Some(Status::MaxIterations);
        }
    }

    /// Called with the energy of the curve just tried.
    pub fn judge(&mut self, policy: &Policy, energy: f64) -> Next {
        match self.phase {
            Phase::Start => {
                if !energy.is_finite() {
                    return Next::Stop(Status::NonFinite);
                }
                self.energy = energy;
                Next::Linearise
            }
            Phase::Settle => match (self.status, self.best) {
                (Some(status), _) => Next::Stop(status),
                (None, Some((k, _))) => self.accept(CANDIDATES[k].0, energy),
                (None, None) => {
                    self.stale = false;
                    Next::Linearise
                }
            },
            Phase::Candidate(k) => self.judge_candidate(policy, k, energy),
        }
    }

    fn judge_candidate(&mut self, policy: &Policy, k: usize, energy: f64) -> Next {
        let (level, _) = CANDIDATES[k];
        let slope = self.slopes[level].unwrap_or(0.0);
        let falls = slope < 0.0 && energy < self.energy;
        self.stale = true;
        if k == 0 && falls && self.energy - energy >= BOLD_SHARE * -0.5 * slope {
            return self.accept(level, energy);
        }
        if self.chord {
            self.phase = Phase::Settle;
            return Next::Settle(None);
        }
        self.hard = true;
        if falls && self.best.is_none_or(|(_, lowest)| energy < lowest) {
            self.best = Some((k, energy));
        }
        if k + 1 < CANDIDATES.len() {
            self.phase = Phase::Candidate(k + 1);
            return Next::Try;
        }
        if let Some((winner, _)) = self.best {
            self.phase = Phase::Settle;
            return Next::Settle(Some(winner));
        }
        let promise = self.slopes[0].unwrap_or(0.0).abs() * (1.0 + LEVELS[0] * self.damping);
        if promise <= policy.noise * self.energy {
            return self.end(Status::Converged);
        }
        self.damping *= GROWTH;
        self.newton = false;
        if self.damping > MOST_DAMPING {
            return self.end(Status::Stalled);
        }
        self.begin_search();
        Next::Try
    }

    /// The curve is done; if the values at hand are another's, they must be found again first.
    pub fn end(&mut self, status: Status) -> Next {
        self.status = Some(status);
        if !self.stale {
            return Next::Stop(status);
        }
        self.phase = Phase::Settle;
        Next::Settle(None)
    }

    /// A step to the given energy is taken.
    fn accept(&mut self, level: usize, energy: f64) -> Next {
        let gain = self.energy - energy;
        let promise = -0.5 * self.slopes[level].unwrap_or(0.0);
        let trusted = level == 0 && (TRUST..=1.0 / TRUST).contains(&(gain / promise));
        let stepped_by_newton = self.newton;
        let little = gain < LITTLE * self.energy;
        self.newton = if self.hard { little } else { self.newton || little || trusted };
        let shrinkage = if trusted && !self.hard { TRUSTED_SHRINKAGE } else { LEVELS[level] };
        self.damping = (self.damping * shrinkage).max(LEAST_DAMPING);
        self.energy = energy;
        self.stale = false;
        if trusted && stepped_by_newton { Next::Gradient } else { Next::Linearise }
    }
}
