use super::*;
use crate::cuda::emulator::{Emulator, EmulatorOptions};
use crate::cuda::model::CudaModel;
use crate::decoder::{Decoder, FileOptions};
use crate::geodesic::initial::straight_line;
use crate::geodesic::jobs::Jobs;
use crate::geodesic::{Geodesics, Options};
use crate::precision::Precision;

const DIGITS: &[u8] = include_bytes!("../../../fixtures/digits-d2-tanh.safetensors");
const LATENTS: &[u8] = include_bytes!("../../../fixtures/digits-d2-tanh.latents.npy");
const PAIRS: usize = 24;

/// Pairs of encoded digits.
fn latents() -> Vec<f32> {
    let numbers = LATENTS[128..].chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    numbers.take(4 * PAIRS).collect()
}

fn solve(model: &CudaModel, stages: &Stages, options: &Options, as_curves: bool) -> Geodesics<f32> {
    let (latents, d) = (latents(), 2);
    let end = |job: usize, side: usize| &latents[(2 * job + side) * d..(2 * job + side + 1) * d];
    let lines: Vec<Vec<f32>> = (0..PAIRS)
        .map(|job| {
            let mut line = vec![0.0; (options.segments + 1) * d];
            straight_line(end(job, 0), end(job, 1), &mut line);
            line
        })
        .collect();
    let initial = |job: usize| match as_curves {
        false => Initial::Line(end(job, 0), end(job, 1)),
        true => Initial::Curve(&lines[job]),
    };
    let pairs = if as_curves { Pairs::Curves } else { Pairs::Lines };
    let progress = |_, _| std::ops::ControlFlow::Continue(());
    let jobs = Jobs::new(PAIRS, &initial, &progress);
    let mut backend = model.backend(stages, &options.policy::<f32>(Precision::Tf32x3), PAIRS, pairs).unwrap();
    let mut geodesics = Geodesics::new(PAIRS, options.segments, d);
    jobs.work(&mut backend).unwrap().scatter(&mut geodesics);
    geodesics
}

/// Where all is computed alike, passing the last grid once more finds the same curves, and never takes more linearisations than are
/// allowed.
#[test]
fn the_last_grid_can_be_passed_twice() {
    let platform: Arc<dyn Platform> = Arc::new(Emulator::new(EmulatorOptions::default()).unwrap());
    let decoder = Decoder::from_safetensors(DIGITS, &FileOptions::default()).unwrap();
    let model = CudaModel::new(platform, &decoder, Precision::Mixed).unwrap();
    for (coarse_to_fine, as_curves) in [(true, false), (false, false), (true, true)] {
        let options = Options { segments: 16, coarse_to_fine, ..Options::default() };
        let once = solve(&model, &options.stages(false), &options, as_curves);
        let twice = solve(&model, &options.stages(true), &options, as_curves);
        let converged = vec![Status::Converged; PAIRS];
        assert_eq!((&once.status, &twice.status), (&converged, &converged));
        let energies = || once.energy.iter().zip(&twice.energy);
        let same = energies().filter(|(a, b)| (*a - *b).abs() <= 1e-5 * **a).count();
        // A curve that meets the last grid with another step before it can end in another minimum.
        assert!(same + 2 >= PAIRS, "{same} of {PAIRS} agree: {} and {}", once.energy, twice.energy);
        let (spent, again) = (once.iterations.sum(), twice.iterations.sum());
        assert!(again <= spent + 2 * PAIRS as u32, "{again} linearisations in place of {spent}");
    }
    for most in [10, 11, 12] {
        let options = Options { segments: 16, max_iterations: most, tolerance: Some(1e-15), ..Options::default() };
        let found = solve(&model, &options.stages(true), &options, false);
        assert!(found.iterations.iter().all(|&n| n <= most), "{} of {most}", found.iterations);
    }
}

/// As many grids as a search can have are as many as a batch can hold.
#[test]
fn a_batch_holds_every_grid() {
    let options = Options { segments: 1 << 20, ..Options::default() };
    let stages = options.stages(true);
    let batch = Batch::new(&stages.grids, &options.policy::<f32>(Precision::Tf32x3));
    assert_eq!(batch.grid_count as usize, stages.grids.len());
    let held: Vec<usize> = batch.grids.iter().take(stages.grids.len()).map(|&n| n as usize).collect();
    assert_eq!(held, stages.grids);
}
