//! How curves move between grids and back to the straight line: the kernels' arithmetic against the processor's.

use super::tests::{Bench, Curve, LINE, LINEARISE, NOTHING, Random, SEARCH, STEP};
use super::*;
use crate::cuda::memory::Buffer;
use crate::geodesic::Status;
use crate::geodesic::initial::{resample, straight_line};

const D: usize = 2;
const CANDIDATE: u32 = 1;

/// One curve in a batch of one slot, on grids of its own.
struct Stage {
    bench: Bench,
    batch: Batch,
    stride: usize,
    curves: Buffer<u8>,
    points: Buffer<f32>,
    trial: Buffer<f32>,
    squares: Buffer<f32>,
    counters: Buffer<u32>,
    codes: Buffer<u32>,
    numbers: Buffer<f64>,
    _others: (Vec<Buffer<f32>>, [Buffer<f32>; 2], Buffer<u32>),
}

impl Stage {
    fn new(grids: &[usize]) -> Self {
        let (bench, stride) = (Bench::new(), grids[grids.len() - 1] + 1);
        let numbers = |n: usize| bench.buffer(&vec![0.5f32; n]);
        let (points, trial, squares) = (numbers(stride * D), numbers(stride * D), numbers(stride));
        let others: Vec<_> = [stride * D, stride * D * 3, stride].map(numbers).into();
        let (starts, ends) = (bench.buffer(&[0.25f32, -1.0, 9.0, 9.0]), bench.buffer(&[1.5f32, 0.125, 9.0, 9.0]));
        let (curves, counters) = (bench.buffer(&[0u8; CURVE_BYTES]), bench.buffer(&[0u32; counter::COUNT]));
        let free = bench.buffer(&[0u32]);
        let (codes, results) = (bench.buffer(&[9u32; 4]), bench.buffer(&[0f64; 6]));
        let policy = policy::Policy {
            tolerance: 1e-6,
            coarse_tolerance: 1e-3,
            noise: 1e-6,
            low_noise: 1e-3,
            max_iterations: 100,
        };
        let batch = Batch {
            counters: counters.address(),
            curves: curves.address(),
            segments_of: others[2].address(),
            points: points.address(),
            trial: trial.address(),
            squares: squares.address(),
            gradient: others[0].address(),
            steps: others[1].address(),
            free_slots: free.address(),
            starts: starts.address(),
            ends: ends.address(),
            out_points: trial.address(),
            out_numbers: results.address(),
            out_iterations: codes.address(),
            out_status: codes.at(2),
            ring: 2,
            input_ring: 2,
            slots: 1,
            stride: stride as u32,
            latent_dim: D as u32,
            ..Batch::new(grids, &policy)
        };
        Self {
            batch,
            stride,
            curves,
            points,
            trial,
            squares,
            counters,
            codes,
            numbers: results,
            _others: (others, [starts, ends], free),
            bench,
        }
    }

    /// Puts a curve of the given energy in the slot.
    fn set(&self, curve: Curve, points: &[f32], energy: f64) {
        self.bench.write(&self.curves, bytemuck::bytes_of(&curve));
        self.bench.write(&self.points, points);
        self.bench.write(&self.trial, points);
        let square = (2.0 * energy / f64::from(curve.segments).powi(2)) as f32;
        self.bench.write(&self.squares, &vec![square; curve.segments as usize]);
    }

    fn decide(&self) -> Curve {
        self.bench.launch("decide", 256, 0, &self.batch);
        self.curve()
    }

    fn curve(&self) -> Curve {
        bytemuck::pod_read_unaligned(&self.bench.read(&self.curves, CURVE_BYTES))
    }

    fn points(&self, segments: usize) -> Vec<f32> {
        self.bench.read(&self.points, (segments + 1) * D)
    }
}

/// A curve whose last solve has found it converged.
fn converged(segments: usize, grid: u32) -> Curve {
    let status = Status::Converged as u32;
    Curve { phase: CANDIDATE, status, grid, iterations: 3, energy: 1.0, ..Curve::new(STEP, segments) }
}

fn close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() <= 4.0 * f32::EPSILON, "{found:?} instead of {expected:?}");
    }
}

#[test]
fn a_pair_starts_on_the_straight_line() {
    for grids in [&[2, 8][..], &[4, 6], &[5]] {
        let stage = Stage::new(grids);
        let (from, to) = ([0.25, -1.0], [1.5, 0.125]);
        let mut line = vec![0.0; stage.stride * D];
        straight_line(&from, &to, &mut line);
        let mut expected = vec![0.0; (grids[0] + 1) * D];
        resample(D, &line, &mut expected);
        let admit = |limit: u32| {
            let mut counted = [0; counter::COUNT];
            counted[counter::LIMIT] = limit;
            stage.bench.write(&stage.counters, &counted);
            for name in ["collect_free", "admit", "collect_linearise"] {
                stage.bench.launch(name, 256, 0, &stage.batch);
            }
        };
        admit(0);
        assert_eq!(stage.curve().need, NOTHING, "no pair has been released");
        admit(1);
        let curve = stage.curve();
        assert_eq!((curve.need, curve.segments, curve.job, curve.grid), (SEARCH, grids[0] as u32, 0, 0));
        assert_eq!(curve.damping, policy::FIRST_DAMPING);
        let found = stage.points(grids[0]);
        close(&found, &expected);
        assert_eq!((&found[..D], &found[grids[0] * D..]), (&from[..], &to[..]), "ends stay to the bit");
        assert_eq!(stage.bench.read(&stage.counters, 1), [1], "the next pair is number 1");
    }
}

#[test]
fn a_curve_is_carried_to_the_next_grid() {
    for grids in [[2, 8], [4, 6], [3, 10], [8, 9]] {
        let (stage, coarse) = (Stage::new(&grids), Random(3).numbers((grids[0] + 1) * D));
        stage.set(converged(grids[0], 0), &coarse, 1.0);
        let curve = stage.decide();
        assert_eq!((curve.need, curve.segments, curve.grid), (SEARCH, grids[1] as u32, 1));
        assert!(curve.energy.is_infinite() && curve.phase == 0);
        let mut expected = vec![0.0; (grids[1] + 1) * D];
        resample(D, &coarse, &mut expected);
        close(&stage.points(grids[1]), &expected);
    }
}

/// On the last grid, below the line's energy on the first grid, nothing is left to do; above it, the line on the last grid decides.
#[test]
fn a_curve_above_the_straight_line_looks_at_it() {
    let (stage, z) = (Stage::new(&[2, 8]), Random(4).numbers(9 * D));
    let curve = Curve { line_energy: 1.5, ..converged(8, 1) };
    stage.set(curve, &z, 1.25);
    assert_eq!(stage.decide().need, NOTHING);
    assert_eq!(stage.bench.read(&stage.numbers, 1), [1.25]);
    assert_eq!(stage.bench.read(&stage.codes, 3), [3, 9, Status::Converged as u32]);

    stage.set(curve, &z, 2.0);
    let looking = stage.decide();
    assert_eq!((looking.need, looking.found_energy), (LINE, 2.0));
    let mut line = vec![0.0; 9 * D];
    straight_line(&z[..D], &z[8 * D..], &mut line);
    close(&stage.bench.read(&stage.trial, 9 * D), &line);
    assert_eq!(stage.points(8), z);

    // The line is higher, or not finite: the curve is what is reported.
    for higher in [2.5, f64::NAN] {
        stage.set(looking, &z, higher);
        assert_eq!(stage.decide().need, NOTHING);
        assert_eq!(stage.bench.read(&stage.numbers, 1), [2.0]);
    }
    // It is lower: the curve starts anew from it, and what was spent still counts.
    stage.set(looking, &line, 1.75);
    let anew = stage.decide();
    assert_eq!((anew.need, anew.anew, anew.iterations, anew.phase), (SEARCH, 1, 3, 0));
    // Once alone.
    let again = Curve { anew: 1, ..curve };
    stage.set(again, &z, 2.0);
    assert_eq!(stage.decide().need, NOTHING);
}

#[test]
fn a_curve_that_is_not_finite_starts_anew_on_the_last_grid_once() {
    let (stage, z) = (Stage::new(&[2, 8]), Random(5).numbers(3 * D));
    stage.set(Curve::new(SEARCH, 2), &z, f64::NAN);
    let curve = stage.decide();
    assert_eq!((curve.need, curve.segments, curve.grid, curve.anew), (SEARCH, 8, 1, 1));
    let mut line = vec![0.0; 9 * D];
    straight_line(&z[..D], &z[2 * D..], &mut line);
    close(&stage.points(8), &line);
    stage.set(curve, &line, f64::INFINITY);
    assert_eq!(stage.decide().need, NOTHING);
    assert_eq!(stage.bench.read(&stage.codes, 3)[2], Status::NonFinite as u32);
    assert!(stage.bench.read(&stage.numbers, 3).iter().all(|x| x.is_nan()));
}

#[test]
fn a_hard_curve_leaves_a_coarse_grid() {
    let (stage, z) = (Stage::new(&[2, 8]), Random(6).numbers(3 * D));
    // A step that was accepted: the first candidate, with all that was promised.
    let slopes = [-0.4, 0.0, 0.0];
    let accepted = Curve { phase: CANDIDATE, solved_levels: 1, slopes, energy: 1.0, ..Curve::new(SEARCH, 2) };
    stage.set(Curve { hard: 1, ..accepted }, &z, 0.4);
    assert_eq!((stage.decide().grid, stage.curve().need), (1, SEARCH));
    stage.set(accepted, &z, 0.4);
    assert_eq!((stage.decide().grid, stage.curve().need), (0, LINEARISE));
}
