//! The solver's operations on one thread of the CPU.

use super::activation::Order;
use super::curve::{Curve, Need, Span, curve_size, tiles};
use super::decode::DecodeScratch;
use super::energy::{LineariseScratch, chord_sums, clear, evaluate, gradient, linearise};
use super::ensemble;
use super::network::Network;
use super::step::{Solver, System};
use crate::decoder::Geometry;
use crate::error::Result;
use crate::geodesic::Status;
use crate::geodesic::backend::{Backend, Finished, Initial};
use crate::geodesic::initial::{resample, straight_line};
use crate::geodesic::policy::{CANDIDATES, LEVELS, Next, Policy, Progress};
use crate::scalar::Scalar;

/// Numbers that a tile's tangents may take: about half of a core's own cache.
const TANGENT_BUDGET: usize = 96 * 1024;
/// Points of a tile at least, and at most.
const TILE_POINTS: (usize, usize) = (8, 256);
/// Numbers that the curves in work may take together.
const CURVE_BUDGET: usize = 1024 * 1024;
/// Curves in work at least, and at most.
const CURVES: (usize, usize) = (1, 16);

/// A batch of curves on one thread.
pub(crate) struct CpuBackend<'a, T> {
    network: &'a Network<T>,
    policy: Policy,
    /// Segments of every grid, coarse to fine; the last is N.
    grids: Vec<usize>,
    curves: Vec<Curve<T>>,
    solver: Solver<T>,
    decode: DecodeScratch<T>,
    linearise: LineariseScratch<T>,
    value_points: usize,
    tangent_points: usize,
    /// A straight line, `[N + 1, d]`.
    line: Vec<T>,
}

impl<'a, T: Scalar> CpuBackend<'a, T> {
    pub fn new(network: &'a Network<T>, grids: &[usize], policy: Policy) -> Self {
        let d = network.latent_dim;
        let segments = grids.iter().copied().max().unwrap_or(2);
        let clamp = |n: usize, (low, high): (usize, usize)| n.clamp(low, high);
        let widths: usize = network.layers().map(|l| l.outputs).sum();
        let tangent_points = clamp(TANGENT_BUDGET / ((widths + network.widest) * d), TILE_POINTS);
        let value_points = clamp(TANGENT_BUDGET / (2 * network.widest), TILE_POINTS);
        let count = clamp(CURVE_BUDGET / curve_size(network, segments), CURVES);
        Self {
            network,
            policy,
            grids: grids.to_vec(),
            curves: (0..count).map(|_| Curve::new(network, segments)).collect(),
            solver: Solver::new(segments - 1, d),
            decode: DecodeScratch::new(network, value_points),
            linearise: LineariseScratch::new(network, tangent_points, value_points),
            value_points,
            tangent_points,
            line: vec![T::ZERO; (segments + 1) * d],
        }
    }

    /// One whole pass over the curves that are in work, by the Gauss–Newton matrix or by the full Hessian: values with derivatives,
    /// gradient and blocks, and the solve of the boldest level. Then they are dropped: this is for measurements.
    pub fn pass(&mut self, newton: bool) -> Result<()> {
        self.search()?;
        self.decide(&mut |_| {})?;
        for curve in &mut self.curves {
            curve.progress.newton = newton;
        }
        self.linearise()?;
        self.step()?;
        for curve in &mut self.curves {
            curve.need = Need::Nothing;
        }
        Ok(())
    }

    /// Tiles over the interior points, or all points, of the curves that a condition picks.
    fn tiles(&self, limit: usize, ends: bool, pick: impl Fn(&Curve<T>) -> bool) -> Vec<Vec<Span>> {
        let picked = self.curves.iter().enumerate().filter(|(_, curve)| pick(curve));
        let runs = picked.map(|(k, c)| if ends { (k, 0, c.segments + 1) } else { (k, 1, c.segments - 1) });
        tiles(runs, limit)
    }

    /// Energy and length of the values at hand, the energy divided by N.
    fn chords(&self, k: usize) -> (f64, f64) {
        let (curve, width) = (&self.curves[k], self.network.data_dim);
        let (squares, length) = chord_sums(self.network, &curve.values[..(curve.segments + 1) * width]);
        (0.5 * squares, length)
    }

    /// What curve k does behind a trial or a solve: a status where it is done on its grid.
    fn advance(&mut self, k: usize) -> Option<Status> {
        let d = self.network.latent_dim;
        let last_grid = self.curves[k].grid + 1 == self.grids.len();
        let next = match self.curves[k].progress.is_over() {
            Some(status) => self.curves[k].progress.end(status),
            None => {
                let (energy, _) = self.chords(k);
                self.curves[k].progress.judge(&self.policy, energy)
            }
        };
        let curve = &mut self.curves[k];
        curve.need = match next {
            Next::Linearise | Next::Gradient => {
                let length = (curve.segments + 1) * d;
                curve.points[..length].copy_from_slice(&curve.trial[..length]);
                if !last_grid && curve.progress.leaves_coarse_grids() {
                    return Some(Status::MaxIterations);
                }
                if next == Next::Gradient { Need::Gradient } else { Need::Linearise }
            }
            Next::Try => Need::Step,
            Next::Settle(winner) => {
                let (level, length) = winner.map_or((0, 0.0), |k| CANDIDATES[k]);
                walk(curve, d, level, length);
                Need::Search
            }
            Next::Stop(status) => return Some(status),
        };
        None
    }

    /// Carries curve k to the next grid.
    fn refine(&mut self, k: usize) {
        let d = self.network.latent_dim;
        let curve = &mut self.curves[k];
        let coarse = (curve.segments + 1) * d;
        curve.grid += 1;
        curve.segments = self.grids[curve.grid];
        let fine = (curve.segments + 1) * d;
        resample(d, &curve.points[..coarse], &mut curve.trial[..fine]);
        curve.points[..fine].copy_from_slice(&curve.trial[..fine]);
        curve.progress.refine();
        curve.need = Need::Search;
    }

    /// Puts the straight line between curve k's ends on the last grid as its trial.
    fn straighten(&mut self, k: usize) {
        let d = self.network.latent_dim;
        let curve = &mut self.curves[k];
        let end = curve.segments * d;
        let segments = self.grids[self.grids.len() - 1];
        let (from, to) = (curve.points[..d].to_vec(), curve.points[end..end + d].to_vec());
        straight_line(&from, &to, &mut curve.trial[..(segments + 1) * d]);
        curve.segments = segments;
        curve.grid = self.grids.len() - 1;
    }

    /// True where curve k, solved by way of coarser grids, may have ended above the straight line, and has: then it starts anew
    /// from there, on the last grid. So does one that a coarser grid led to values that are not finite.
    fn starts_anew(&mut self, k: usize, status: Status, energy: f64) -> bool {
        let curve = &self.curves[k];
        if self.grids.len() == 1 || curve.anew {
            return false;
        }
        // Cutting chords into pieces only adds to a curve's energy: on nested grids the coarse line bounds the fine one.
        let nested = self.grids.windows(2).all(|pair| pair[1].is_multiple_of(pair[0]));
        if status != Status::NonFinite && nested && energy <= curve.line_energy {
            return false;
        }
        self.straighten(k);
        if status != Status::NonFinite {
            let (segments, runs) = (self.curves[k].segments, |n: usize| [(k, 0, n + 1)].into_iter());
            for tile in tiles(runs(segments), self.value_points) {
                evaluate(self.network, &tile, &mut self.curves, Order::Value, &mut self.decode);
            }
            let (line, _) = self.chords(k);
            // A line that is not finite is no lower.
            if line.is_nan() || segments as f64 * line >= energy {
                return false;
            }
        }
        let curve = &mut self.curves[k];
        let length = (curve.segments + 1) * self.network.latent_dim;
        curve.points[..length].copy_from_slice(&curve.trial[..length]);
        curve.progress.restart();
        curve.anew = true;
        curve.need = Need::Search;
        true
    }
}

impl<T: Scalar> Backend for CpuBackend<'_, T> {
    type Scalar = T;

    fn free(&self) -> usize {
        self.curves.iter().filter(|c| c.need == Need::Nothing).count()
    }

    fn active(&self) -> usize {
        self.curves.len() - self.free()
    }

    fn admit(&mut self, job: usize, initial: Initial<'_, T>) -> Result<()> {
        let points = match initial {
            Initial::Curve(points) => points,
            Initial::Line(start, end) => {
                straight_line(start, end, &mut self.line);
                &self.line
            }
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Initial::OnDevice(..) => {
                return Err(crate::error::Error::Device("cpu: expected latents in the host's memory".into()));
            }
        };
        if let Some(curve) = self.curves.iter_mut().find(|c| c.need == Need::Nothing) {
            let d = self.network.latent_dim;
            curve.job = job;
            curve.grid = 0;
            curve.anew = false;
            curve.segments = self.grids[0];
            curve.progress = Progress::new();
            curve.need = Need::Search;
            let length = (curve.segments + 1) * d;
            resample(d, points, &mut curve.points[..length]);
            curve.trial[..length].copy_from_slice(&curve.points[..length]);
        }
        Ok(())
    }

    fn linearise(&mut self) -> Result<()> {
        for curve in &mut self.curves {
            match curve.need {
                Need::Linearise => clear(curve),
                Need::Gradient => curve.gradient.fill(T::ZERO),
                _ => continue,
            }
            if let Geometry::Ensemble(members) = self.network.geometry {
                let (width, stride) = (self.network.chains[0].outputs(), self.network.data_dim);
                ensemble::means(members, width, stride, &curve.values, &mut curve.means);
            }
        }
        for newton in [false, true] {
            let pick = |c: &Curve<T>| c.need == Need::Linearise && c.progress.newton == newton;
            for tile in self.tiles(self.tangent_points, false, pick) {
                linearise(self.network, &tile, &mut self.curves, newton, &mut self.linearise);
            }
        }
        for tile in self.tiles(self.value_points, false, |c| c.need == Need::Gradient) {
            gradient(self.network, &tile, &mut self.curves, &mut self.linearise);
        }
        for curve in &mut self.curves {
            match curve.need {
                Need::Linearise => curve.progress.linearised(),
                Need::Gradient => curve.progress.gradient_found(),
                _ => continue,
            }
            curve.need = Need::Step;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<()> {
        let d = self.network.latent_dim;
        for curve in self.curves.iter_mut().filter(|c| c.need == Need::Step) {
            let Some((level, length)) = curve.progress.candidate() else { continue };
            if curve.progress.slopes[level].is_none() {
                let last_grid = curve.grid + 1 == self.grids.len();
                // Every finer grid needs a linearisation yet, and so does starting anew.
                let reserve = self.grids.len() - 1 - curve.grid + usize::from(self.grids.len() > 1 && !curve.anew);
                let slope = solve(&mut self.solver, d, curve, level);
                curve.progress.solved(&self.policy, last_grid, reserve as u32, level, slope);
                if curve.progress.is_over().is_some() {
                    continue;
                }
                if curve.progress.take_outdated() {
                    curve.need = Need::Linearise;
                    continue;
                }
            }
            walk(curve, d, level, length);
            curve.need = Need::Search;
        }
        Ok(())
    }

    fn search(&mut self) -> Result<()> {
        for (derivatives, order) in [(false, Order::Value), (true, Order::Second)] {
            // The first time, and on a new grid, the ends are decoded too; they never move.
            for ends in [true, false] {
                let pick = |c: &Curve<T>| {
                    c.need == Need::Search
                        && c.progress.keeps_derivatives() == derivatives
                        && c.progress.is_new() == ends
                };
                for tile in self.tiles(self.value_points, ends, pick) {
                    evaluate(self.network, &tile, &mut self.curves, order, &mut self.decode);
                }
            }
        }
        Ok(())
    }

    fn decide(&mut self, finish: &mut dyn FnMut(Finished<'_, T>)) -> Result<()> {
        for k in 0..self.curves.len() {
            if matches!(self.curves[k].need, Need::Nothing | Need::Linearise) {
                continue;
            }
            let first_look = self.curves[k].progress.is_new() && self.curves[k].grid == 0;
            let status = self.advance(k);
            if first_look {
                self.curves[k].line_energy = self.curves[k].segments as f64 * self.curves[k].progress.energy;
            }
            let Some(status) = status else { continue };
            if status != Status::NonFinite && self.curves[k].grid + 1 < self.grids.len() {
                self.refine(k);
                continue;
            }
            let n = self.curves[k].segments as f64;
            let (energy, length) = self.chords(k);
            if self.starts_anew(k, status, n * energy) {
                continue;
            }
            let (curve, d) = (&mut self.curves[k], self.network.latent_dim);
            curve.need = Need::Nothing;
            let gradient = &curve.gradient[..(curve.segments - 1) * d];
            let gradient_norm = n * gradient.iter().map(|g| g.to_f64().powi(2)).sum::<f64>().sqrt();
            let known = |x: f64| if status == Status::NonFinite { f64::NAN } else { x };
            finish(Finished {
                job: curve.job,
                points: &curve.points[..(curve.segments + 1) * d],
                energy: known(n * energy),
                length: known(length),
                gradient_norm: known(gradient_norm),
                iterations: curve.progress.iterations,
                status,
            });
        }
        Ok(())
    }
}

/// Solves for δ of one damping level; returns ∇E · δ, divided by N.
fn solve<T: Scalar>(solver: &mut Solver<T>, d: usize, curve: &mut Curve<T>, level: usize) -> f64 {
    let inner = curve.segments - 1;
    let Curve { gram, off, curvature, gradient, steps, progress, .. } = curve;
    let gram = &gram[..inner * d * d];
    let trace: f64 = gram.chunks_exact(d * d).flat_map(|g| g.iter().step_by(d + 1)).map(|g| g.to_f64()).sum();
    let stiffness = 2.0 * trace / (inner * d) as f64;
    let system = System {
        gram,
        curvature: progress.newton.then_some(&curvature[..inner * d * d]),
        off: &off[..inner * d * d],
        gradient: &gradient[..inner * d],
        damping: T::from_f64(progress.damping * LEVELS[level] * stiffness),
    };
    solver.solve(system, &mut steps[level][..inner * d])
}

/// trial = points + length · δ.
fn walk<T: Scalar>(curve: &mut Curve<T>, d: usize, level: usize, length: f64) {
    let length = T::from_f64(length);
    let inner = d..curve.segments * d;
    curve.trial[..d].copy_from_slice(&curve.points[..d]);
    let points = curve.trial[inner.clone()].iter_mut().zip(&curve.points[inner.clone()]);
    for ((to, &from), &step) in points.zip(&curve.steps[level]) {
        // A step that is not finite must not spoil the curve as it stands.
        *to = if length == T::ZERO { from } else { from + step * length };
    }
    let end = curve.segments * d..(curve.segments + 1) * d;
    curve.trial[end.clone()].copy_from_slice(&curve.points[end]);
}
