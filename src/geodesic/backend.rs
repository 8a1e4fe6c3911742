//! What a device must be able to do for the driver, and the driver itself.

use super::Status;
use crate::error::Result;

/// One curve that is done. Arrays are borrowed from the device's own.
#[derive(Debug)]
pub(crate) struct Finished<'a, T> {
    /// The number given when the curve was admitted.
    pub job: usize,
    /// `[N + 1, d]`.
    pub points: &'a [T],
    pub energy: f64,
    pub length: f64,
    pub gradient_norm: f64,
    pub iterations: u32,
    pub status: Status,
}

/// The curve that the search starts from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Initial<'a, T> {
    /// The straight line between two latents, `[d]` each.
    Line(&'a [T], &'a [T]),
    /// `[N + 1, d]`.
    Curve(&'a [T]),
    /// Row `job` of the starts and of the ends `[C, d]` that stand at these addresses on the device.
    #[cfg(any(feature = "cuda", feature = "emulator"))]
    OnDevice(u64, u64),
}

/// A device that keeps a batch of curves and moves all of them together.
///
/// A [`round`](Backend::round) is [`linearise`](Backend::linearise), [`step`](Backend::step), [`search`](Backend::search), [`decide`](Backend::decide). Each does its
/// work for the curves that need it (see [`policy`](super::policy)), so curves of one batch may stand at different points of
/// their search, and a finished one costs nothing more.
pub(crate) trait Backend {
    /// Type of the coordinates.
    type Scalar;

    /// Curves that may still be admitted.
    fn free(&self) -> usize;
    /// Curves in work.
    fn active(&self) -> usize;
    /// Takes a curve to be solved.
    fn admit(&mut self, job: usize, initial: Initial<'_, Self::Scalar>) -> Result<()>;
    /// Tangents, and from them gradient and Hessian blocks, at newly accepted curves.
    fn linearise(&mut self) -> Result<()>;
    /// Block-tridiagonal solves for the damping levels that are tried next.
    fn step(&mut self) -> Result<()>;
    /// Values and energies along the curves being tried.
    fn search(&mut self) -> Result<()>;
    /// Accepts, refines, tries again or finishes, curve by curve.
    fn decide(&mut self, finish: &mut dyn FnMut(Finished<'_, Self::Scalar>)) -> Result<()>;

    /// All four. A device may do a later round's work before it hands out an earlier one's results.
    fn round(&mut self, finish: &mut dyn FnMut(Finished<'_, Self::Scalar>)) -> Result<()> {
        self.linearise()?;
        self.step()?;
        self.search()?;
        self.decide(finish)
    }
}

/// Solves curves until `next` has no more.
///
/// `next` admits a curve, or returns false where there is none; `finish` receives the results, in the order in which curves end.
pub(crate) fn drive<B: Backend>(
    backend: &mut B,
    mut next: impl FnMut(&mut B) -> Result<bool>,
    mut finish: impl FnMut(Finished<'_, B::Scalar>),
) -> Result<()> {
    loop {
        while backend.free() > 0 && next(backend)? {}
        if backend.active() == 0 {
            return Ok(());
        }
        backend.round(&mut finish)?;
    }
}
