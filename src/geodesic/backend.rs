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

/// A device that keeps a batch of curves and moves all of them together.
///
/// A round is [`linearise`](Backend::linearise), [`step`](Backend::step), [`search`](Backend::search), [`decide`](Backend::decide). Each does its
/// work for the curves that need it (see [`policy`](super::policy)), so curves of one batch may stand at different points of
/// their search, and a finished one costs nothing more.
pub(crate) trait Backend {
    /// Type of the coordinates.
    type Scalar;

    /// Curves that may still be admitted.
    fn free(&self) -> usize;
    /// Curves in work.
    fn active(&self) -> usize;
    /// Takes an initial curve `[N + 1, d]`.
    fn admit(&mut self, job: usize, points: &[Self::Scalar]) -> Result<()>;
    /// Tangents, and from them gradient and Hessian blocks, at newly accepted curves.
    fn linearise(&mut self) -> Result<()>;
    /// Block-tridiagonal solves for the damping levels that are tried next.
    fn step(&mut self) -> Result<()>;
    /// Values and energies along the curves being tried.
    fn search(&mut self) -> Result<()>;
    /// Accepts, refines, tries again or finishes, curve by curve.
    fn decide(&mut self, finish: &mut dyn FnMut(Finished<'_, Self::Scalar>)) -> Result<()>;
}

/// Solves curves until `next` has no more.
///
/// `next` writes an initial curve and returns its number; `finish` receives the results, in the order in which curves end.
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
        backend.linearise()?;
        backend.step()?;
        backend.search()?;
        backend.decide(&mut finish)?;
    }
}
