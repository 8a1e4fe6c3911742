//! Steps and decisions against the processor's, kernel by kernel.

use std::sync::Arc;

use super::*;
use crate::cpu::step::{Solver, System};
use crate::cuda::emulator::{Emulator, EmulatorOptions};
use crate::cuda::memory::{Buffer, Pinned, Stream};
use crate::cuda::platform::Platform;
use crate::geodesic::Status;
use crate::geodesic::policy::{Next, Progress};

/// `Curve` in `kernels/curve.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(super) struct Curve {
    pub energy: f64,
    pub damping: f64,
    pub slopes: [f64; 3],
    pub best_energy: f64,
    pub last_slope: f64,
    pub phase: u32,
    pub candidate: u32,
    pub newton: u32,
    pub iterations: u32,
    pub solved_levels: u32,
    pub best: u32,
    pub chord: u32,
    pub outdated: u32,
    pub hard: u32,
    pub stale: u32,
    pub status: u32,
    pub padding: u32,
    pub line_energy: f64,
    pub found_energy: f64,
    pub found_length: f64,
    pub job: u32,
    pub need: u32,
    pub segments: u32,
    pub grid: u32,
    pub anew: u32,
    pub found_status: u32,
}

pub(super) const NOTHING: u32 = 0;
pub(super) const LINEARISE: u32 = 1;
const GRADIENT: u32 = 2;
pub(super) const STEP: u32 = 3;
pub(super) const SEARCH: u32 = 4;
pub(super) const LINE: u32 = 5;

impl Curve {
    /// As `begin` in `kernels/policy.cuh` leaves it.
    pub fn new(need: u32, segments: usize) -> Self {
        Self {
            energy: f64::INFINITY,
            damping: policy::FIRST_DAMPING,
            best: CANDIDATES.len() as u32,
            status: Status::ALL.len() as u32,
            line_energy: f64::INFINITY,
            need,
            segments: segments as u32,
            ..Self::zeroed()
        }
    }
}

/// Random numbers of size 1, the same in every run.
pub(super) struct Random(pub u64);

impl Random {
    pub fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn numbers(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| (2.0 * self.uniform() - 1.0) as f32).collect()
    }
}

pub(super) struct Bench {
    stream: Stream,
    platform: Arc<dyn Platform>,
}

impl Bench {
    pub fn new() -> Self {
        let options = EmulatorOptions { checked: true, ..EmulatorOptions::default() };
        let platform: Arc<dyn Platform> = Arc::new(Emulator::new(options).unwrap());
        Self { stream: Stream::new(&platform).unwrap(), platform }
    }

    pub fn write<T: Pod>(&self, to: &Buffer<T>, numbers: &[T]) {
        let mut staged = Pinned::new(&self.platform, numbers.len()).unwrap();
        staged.as_mut_slice().copy_from_slice(numbers);
        // SAFETY: the stream is waited for before the staged numbers are dropped.
        unsafe { self.stream.upload((to, 0), (&staged, 0), numbers.len()).unwrap() };
        self.stream.synchronise().unwrap();
    }

    pub fn buffer<T: Pod>(&self, numbers: &[T]) -> Buffer<T> {
        let buffer = Buffer::new(&self.platform, numbers.len()).unwrap();
        self.write(&buffer, numbers);
        buffer
    }

    pub fn read<T: Pod>(&self, from: &Buffer<T>, count: usize) -> Vec<T> {
        let staged = Pinned::new(&self.platform, count).unwrap();
        // SAFETY: likewise.
        unsafe { self.stream.download((&staged, 0), (from, 0), count).unwrap() };
        self.stream.synchronise().unwrap();
        staged.as_slice().to_vec()
    }

    pub fn launch(&self, name: &str, threads: u32, shared: usize, batch: &Batch) {
        let launcher = Launcher { stream: &self.stream };
        let kernel = kernel(self.platform.as_ref(), name).unwrap();
        launcher.each(kernel, 2, (threads, (shared * size_of::<f32>()) as u32), batch).unwrap();
        self.stream.synchronise().unwrap();
    }
}

fn widened(numbers: &[f32]) -> Vec<f64> {
    numbers.iter().copied().map(f64::from).collect()
}

/// Which H a test is about.
#[derive(Clone, Copy, PartialEq)]
enum Blocks {
    GaussNewton,
    Newton,
    Indefinite,
}

/// δ and g · δ of two curves of different length, by one kernel, against the processor's solver in float64. Returns them in bits.
fn steps_agree(name: &str, threads: u32, d: usize, segments: [usize; 2], blocks: Blocks) -> (Vec<u32>, Vec<u64>) {
    let newton = blocks != Blocks::GaussNewton;
    let (bench, mut random) = (Bench::new(), Random(d as u64 + 7));
    let stride = segments[0].max(segments[1]) + 1;
    let points = 2 * stride;
    let square = d * d;
    // Blocks that are positive definite by a margin, or, indefinite, near the matrix that reverses a vector: well conditioned either
    // way, so that rounding is all that differs, and the second in need of pivots off the diagonal.
    let indefinite = blocks == Blocks::Indefinite;
    let mut gram = vec![0.0; points * square];
    for block in gram.chunks_exact_mut(square) {
        let factor = random.numbers(square);
        for (k, entry) in block.iter_mut().enumerate() {
            let (i, j) = (k / d, k % d);
            *entry = (0..d).map(|m| factor[i * d + m] * factor[j * d + m]).sum::<f32>() + f32::from(u8::from(i == j));
            *entry *= if indefinite { 1e-4 / d as f32 } else { 1.0 };
        }
    }
    let off: Vec<f32> = random.numbers(points * square).iter().map(|x| 0.3 * x / d as f32).collect();
    let size = if indefinite { 1e-4 } else { 0.2 } / d as f32;
    let mut curvature: Vec<f32> = random.numbers(points * square).iter().map(|x| size * x).collect();
    for block in curvature.chunks_exact_mut(square) {
        for i in 0..d {
            (0..i).for_each(|j| block[i * d + j] = block[j * d + i]);
        }
        for i in 0..d {
            block[i * d + d - 1 - i] += if indefinite { 1.5 } else { 0.0 };
        }
    }
    let (gradient, z) = (random.numbers(points * d), random.numbers(points * d));
    let damping = 0.7;
    let curves: Vec<u8> = segments
        .iter()
        .flat_map(|&n| {
            let curve = Curve { energy: 1.0, damping, newton: newton.into(), ..Curve::new(LINEARISE, n) };
            bytemuck::bytes_of(&curve).to_vec()
        })
        .collect();
    let on_device = [&gram, &off, &curvature, &gradient, &z].map(|numbers| bench.buffer(numbers));
    let room: [Buffer<f32>; 5] = [points * d, points * d * 3, points * square, points * d, 8 * workspace(d)]
        .map(|n| bench.buffer(&vec![f32::NAN; n]));
    let curves = bench.buffer(&curves);
    let mut counted = [0; counter::COUNT];
    counted[counter::STEPS] = 2;
    let (counters, slots) = (bench.buffer(&counted), bench.buffer(&[0, 1]));
    let policy =
        policy::Policy { tolerance: 1e-6, coarse_tolerance: 1e-3, noise: 1e-6, low_noise: 1e-3, max_iterations: 100 };
    let batch = Batch {
        counters: counters.address(),
        curves: curves.address(),
        gram: on_device[0].address(),
        off: on_device[1].address(),
        curvature: on_device[2].address(),
        gradient: on_device[3].address(),
        points: on_device[4].address(),
        trial: room[0].address(),
        steps: room[1].address(),
        blocks: room[2].address(),
        sides: room[3].address(),
        workspace: room[4].address(),
        step_curves: slots.address(),
        slots: 2,
        stride: stride as u32,
        latent_dim: d as u32,
        ..Batch::new(&[stride - 1], &policy)
    };
    let curves_a_block = if d <= 8 || name == "step_by_warps" { threads as usize / 32 } else { 1 };
    bench.launch(name, threads, if name == "step_wide" { 0 } else { curves_a_block * workspace(d) }, &batch);
    let (found, trial) = (bench.read(&room[1], points * d * 3), bench.read(&room[0], points * d));
    let curves = bench.read(&curves, 2 * CURVE_BYTES);
    let curves: Vec<Curve> = curves.chunks_exact(CURVE_BYTES).map(bytemuck::pod_read_unaligned).collect();
    let mut bits = (Vec::new(), Vec::new());
    for (slot, &n) in segments.iter().enumerate() {
        let (first, inner) = (slot * stride + 1, n - 1);
        let part = |numbers: &[f32], width: usize| widened(&numbers[first * width..(first + inner) * width]);
        let gram = part(&gram, square);
        let trace: f64 = gram.chunks_exact(square).flat_map(|g| g.iter().step_by(d + 1)).sum();
        let (off, curvature, gradient) = (part(&off, square), part(&curvature, square), part(&gradient, d));
        let system = System {
            gram: &gram,
            curvature: newton.then_some(&curvature[..]),
            off: &off,
            gradient: &gradient,
            damping: damping * LEVELS[0] * 2.0 * trace / (inner * d) as f64,
        };
        let mut expected = vec![0.0; inner * d];
        let slope = Solver::new(inner, d).solve(system, &mut expected);
        let found = part(&found, d);
        let norm = |x: &[f64]| x.iter().map(|v| v * v).sum::<f64>().sqrt();
        let difference: Vec<f64> = found.iter().zip(&expected).map(|(a, b)| a - b).collect();
        let bound = 64.0 * f64::from(f32::EPSILON) * ((inner * d) as f64).sqrt();
        let what = format!("{name}, d = {d}, {n} segments");
        assert!(norm(&difference) <= bound * norm(&expected), "{what}: {found:?} instead of {expected:?}");
        assert!(
            (curves[slot].slopes[0] - slope).abs() <= bound * slope.abs(),
            "{what}: {} for {slope}",
            curves[slot].slopes[0]
        );
        assert_eq!((curves[slot].need, curves[slot].iterations), (SEARCH, 1), "{what}");
        for (k, (moved, z)) in part(&trial, d).iter().zip(part(&z, d)).enumerate() {
            assert!((moved - z - found[k]).abs() <= 1e-6 * (1.0 + z.abs()), "{what}: z moved to {moved}");
        }
        bits.0.extend(found.iter().map(|&x| (x as f32).to_bits()));
        bits.1.push(curves[slot].slopes[0].to_bits());
    }
    bits
}

#[test]
fn steps_are_the_processors() {
    for d in [1, 2, 3, 8, 9, 17, 40] {
        for (threads, blocks) in [(32, Blocks::GaussNewton), (128, Blocks::Newton), (256, Blocks::Indefinite)] {
            steps_agree("step", threads, d, [2, 9], blocks);
        }
    }
}

#[test]
fn steps_in_global_memory_are_the_processors() {
    steps_agree("step_wide", 256, 5, [6, 3], Blocks::Indefinite);
}

/// Who solves a system is not seen in what is found: a warp or a block, in shared memory or not.
#[test]
fn a_warp_and_a_block_take_the_same_step() {
    let same = |[one, other]: [&str; 2], d: usize| {
        let expected = steps_agree(one, 256, d, [35, 4], Blocks::Indefinite);
        for threads in [32, 128, 256] {
            let found = steps_agree(other, threads, d, [35, 4], Blocks::Indefinite);
            assert_eq!(found, expected, "{other}, d = {d}, {threads} threads");
        }
    };
    (1..=8).for_each(|d| same(["step", "step_wide"], d));
    [9, 12, 33].into_iter().for_each(|d| same(["step", "step_by_warps"], d));
    same(["step_3", "step_3_by_blocks"], 3);
}

/// Lengths of odd and even number, and with nothing or next to nothing on one side of the middle: 1, 2, 3, 4, 63, 64 and 200 points.
#[test]
fn steps_made_for_one_dimension_are_the_processors() {
    for d in 1..=4 {
        for segments in [[2, 3], [4, 5], [64, 65], [201, 9]] {
            for blocks in [Blocks::GaussNewton, Blocks::Newton, Blocks::Indefinite] {
                steps_agree(&format!("step_{d}"), 256, d, segments, blocks);
            }
        }
    }
}

#[test]
fn long_steps_are_the_processors() {
    for segments in [[2, 3], [64, 65], [201, 9]] {
        steps_agree("step", 256, 3, segments, Blocks::Indefinite);
        steps_agree("step_wide", 256, 3, segments, Blocks::Indefinite);
    }
}

/// Curves of one inner point and one latent, whose energies and systems are drawn at random: after every kernel the device's curve stands
/// where the processor's does.
#[test]
fn decisions_are_the_processors() {
    let bench = Bench::new();
    let policy =
        policy::Policy { tolerance: 1e-4, coarse_tolerance: 1e-3, noise: 1e-5, low_noise: 1e-3, max_iterations: 12 };
    let room: Vec<Buffer<f32>> = (0..10).map(|_| bench.buffer(&[0.5; 32])).collect();
    let curves = bench.buffer(&[0u8; CURVE_BYTES]);
    let mut counted = [0; counter::COUNT];
    counted[counter::STEPS] = 1;
    let (counters, slots, codes_out) = (bench.buffer(&counted), bench.buffer(&[0u32]), bench.buffer(&[9u32; 2]));
    let (numbers, segments_of) = (bench.buffer(&[0f64; 6]), bench.buffer(&[2u32]));
    let codes = bench.buffer(&[0u32; 2]);
    let mut at = room.iter().map(Buffer::address);
    let mut next = || at.next().unwrap();
    let (gram, gradient, squares) = (next(), next(), next());
    let batch = Batch {
        counters: counters.address(),
        curves: curves.address(),
        segments_of: segments_of.address(),
        gram,
        gradient,
        squares,
        off: next(),
        points: next(),
        trial: next(),
        steps: next(),
        blocks: next(),
        sides: next(),
        out_points: next(),
        step_curves: slots.address(),
        out_numbers: numbers.address(),
        out_iterations: codes.address(),
        out_status: codes_out.address(),
        ring: 2,
        slots: 1,
        stride: 3,
        latent_dim: 1,
        ..Batch::new(&[2], &policy)
    };
    let [gram, gradient, squares] = [&room[0], &room[1], &room[2]];
    let read = || -> Curve { bytemuck::pod_read_unaligned(&bench.read(&curves, CURVE_BYTES)) };
    let mut ends = [0; 4];
    let mut seen = [0; 5];
    for seed in 0..150 {
        let mut random = Random(seed);
        let mut progress = Progress::new();
        bench.write(&curves, bytemuck::bytes_of(&Curve::new(SEARCH, 2)));
        for round in 0..400 {
            let curve = read();
            seen[curve.need as usize] += 1;
            if curve.need == NOTHING {
                break;
            }
            if matches!(curve.need, LINEARISE | GRADIENT | STEP) && progress.is_over().is_none() {
                // Slopes from far above the tolerance to below it, now and then of the wrong sign.
                let size = 10f64.powf(-3.0 * random.uniform()) as f32;
                let sign = if random.uniform() < 0.1 { -1.0 } else { 1.0 };
                bench.write(gradient, &[0.0, size, 0.0]);
                bench.write(gram, &[0.0, sign * (0.1 + random.uniform() as f32), 0.0]);
                bench.launch("step", 32, workspace(1), &batch);
                match curve.need {
                    LINEARISE => progress.linearised(),
                    GRADIENT => progress.gradient_found(),
                    _ => {}
                }
                let level = progress.candidate().unwrap().0;
                if progress.slopes[level].is_none() {
                    progress.solved(&policy, true, 0, level, read().slopes[level]);
                }
                let expected = if progress.is_over().is_some() {
                    STEP
                } else if progress.take_outdated() {
                    LINEARISE
                } else {
                    SEARCH
                };
                assert_eq!(read().need, expected, "seed {seed}, round {round}, behind a step");
            } else {
                let slope = progress.candidate().and_then(|(level, _)| progress.slopes[level]).unwrap_or(0.0);
                let luck = random.uniform();
                let energy = match progress.is_new() {
                    true if luck < 0.05 => f64::NAN,
                    true => 1.0 + luck,
                    false if luck < 0.5 => progress.energy - slope.abs() * 1.2 * random.uniform(),
                    false => progress.energy * (1.0 + 0.1 * random.uniform()),
                } as f32;
                bench.write(squares, &[energy, energy, 0.0]);
                bench.launch("decide", 256, 0, &batch);
                let next = match progress.is_over() {
                    Some(status) => progress.end(status),
                    None => progress.judge(&policy, f64::from(energy)),
                };
                let expected = match next {
                    Next::Linearise => LINEARISE,
                    Next::Gradient => GRADIENT,
                    Next::Try => STEP,
                    Next::Settle(_) => SEARCH,
                    Next::Stop(_) => NOTHING,
                };
                assert_eq!(read().need, expected, "seed {seed}, round {round}: {next:?} at {energy}");
                if let Next::Stop(status) = next {
                    assert_eq!(bench.read(&codes_out, 1), [status as u32], "seed {seed}, round {round}");
                    ends[status as usize] += 1;
                }
            }
            let curve = read();
            if curve.need != NOTHING {
                let device = (curve.energy, curve.damping, curve.newton != 0, curve.iterations);
                let host = (progress.energy, progress.damping, progress.newton, progress.iterations);
                assert_eq!(device, host, "seed {seed}, round {round}");
            }
        }
        assert_eq!(read().need, NOTHING, "seed {seed} never ends");
    }
    // The draw has been through all of it.
    assert!(ends.iter().filter(|&&n| n > 0).count() >= 3, "curves ended as {ends:?}");
    assert!(seen.iter().all(|&n| n > 0), "needs seen: {seen:?}");
}
