//! The curves of one call: handed out to the devices that solve them, and collected again.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ndarray::Axis;

use super::backend::{Backend, Finished, Initial, drive};
use super::{Geodesics, Status};
use crate::error::{Error, Result};
use crate::scalar::Scalar;

/// Curves to be solved, taken one by one by as many workers as there are.
pub(crate) struct Jobs<'a, T> {
    count: usize,
    initial: &'a (dyn Fn(usize) -> Initial<'a, T> + Sync),
    /// Called with the number of finished curves and of all.
    progress: &'a (dyn Fn(usize, usize) -> ControlFlow<()> + Sync),
    taken: AtomicUsize,
    finished: AtomicUsize,
    stopped: AtomicBool,
}

impl<'a, T: Scalar> Jobs<'a, T> {
    pub fn new(
        count: usize,
        initial: &'a (dyn Fn(usize) -> Initial<'a, T> + Sync),
        progress: &'a (dyn Fn(usize, usize) -> ControlFlow<()> + Sync),
    ) -> Self {
        let (taken, finished, stopped) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
        Self { count, initial, progress, taken, finished, stopped }
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// Solves curves on one device until none is left.
    pub fn work<B: Backend<Scalar = T>>(&self, backend: &mut B) -> Result<Solved<T>> {
        let mut solved = Solved::default();
        let next = |backend: &mut B| {
            if self.stopped.load(Ordering::Relaxed) {
                return Ok(false);
            }
            let job = self.taken.fetch_add(1, Ordering::Relaxed);
            if job < self.count {
                backend.admit(job, (self.initial)(job))?;
            }
            Ok(job < self.count)
        };
        drive(backend, next, |curve| {
            solved.push(&curve);
            let finished = 1 + self.finished.fetch_add(1, Ordering::Relaxed);
            if (self.progress)(finished, self.count).is_break() {
                self.stopped.store(true, Ordering::Relaxed);
            }
        })?;
        Ok(solved)
    }

    /// An error where `progress` asked to stop.
    pub fn check(&self) -> Result<()> {
        if !self.stopped.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(Error::Cancelled { finished: self.finished.load(Ordering::Relaxed), total: self.count })
    }
}

/// What one worker solved, in the order in which curves ended.
pub(crate) struct Solved<T> {
    jobs: Vec<usize>,
    points: Vec<T>,
    numbers: Vec<[T; 3]>,
    iterations: Vec<u32>,
    status: Vec<Status>,
}

impl<T> Default for Solved<T> {
    fn default() -> Self {
        Self { jobs: Vec::new(), points: Vec::new(), numbers: Vec::new(), iterations: Vec::new(), status: Vec::new() }
    }
}

impl<T: Scalar> Solved<T> {
    fn push(&mut self, curve: &Finished<'_, T>) {
        self.jobs.push(curve.job);
        self.points.extend_from_slice(curve.points);
        self.numbers.push([curve.energy, curve.length, curve.gradient_norm].map(T::from_f64));
        self.iterations.push(curve.iterations);
        self.status.push(curve.status);
    }

    /// Puts every curve in its place.
    pub fn scatter<U: Scalar>(self, to: &mut Geodesics<U>) {
        let (_, points, d) = to.curves.dim();
        for (k, (&job, curve)) in self.jobs.iter().zip(self.points.chunks_exact(points * d)).enumerate() {
            let mut target = to.curves.index_axis_mut(Axis(0), job);
            for (to, &from) in target.iter_mut().zip(curve) {
                *to = U::from_f64(from.to_f64());
            }
            [to.energy[job], to.length[job], to.gradient_norm[job]] = self.numbers[k].map(|x| U::from_f64(x.to_f64()));
            to.iterations[job] = self.iterations[k];
            to.status[job] = self.status[k];
        }
    }
}
