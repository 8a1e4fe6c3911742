//! Solved curves: golden energies, and the laws that every geodesic follows.

use std::sync::OnceLock;

use crate::fixtures::{Golden, NAMES, Random, cases, cast, decoder, gap, golden, model, norm, plans, widen};
use ndarray::{Array1, Array3, ArrayView2, Axis, s};
use proptest::prelude::*;
use pullback::{Activation, Energies, Geodesics, Model, Options, Status};

/// Golden pairs, their geodesics in float32 with the options that everybody starts with, and those curves' energies in float64.
struct Solved {
    golden: Golden,
    found: Geodesics<f32>,
    exact: Energies<f64>,
}

/// Solves the pairs of a fixture, once for all tests.
fn solve(name: &str) -> &'static Solved {
    static SOLVED: [OnceLock<Solved>; 3] = [const { OnceLock::new() }; 3];
    let k = NAMES.iter().position(|&n| n == name).unwrap();
    SOLVED[k].get_or_init(|| {
        let (golden, decoder) = (golden(name), decoder(name));
        let (starts, ends) = (cast(&golden.starts), cast(&golden.ends));
        let found = model::<f32>(&decoder).geodesics(starts.view(), ends.view(), &Options::default()).unwrap();
        let exact = model::<f64>(&decoder).energy(widen(&found.curves).view()).unwrap();
        Solved { golden, found, exact }
    })
}

fn mean_iterations<T>(found: &Geodesics<T>) -> f64 {
    found.iterations.iter().map(|&i| f64::from(i)).sum::<f64>() / found.status.len() as f64
}

#[test]
fn digits_reach_the_best_energies() {
    for name in ["digits-d2-tanh", "digits-d8-softplus"] {
        let Solved { golden, found, exact } = solve(name);
        assert_eq!(found.count(Status::Converged), found.len(), "{name}");
        let reached = exact.energy.iter().zip(&golden.best_energy).filter(|(e, best)| **e <= **best * 1.001).count();
        assert!(reached as f64 >= 0.97 * found.len() as f64, "{name}: {reached} of {} pairs", found.len());
        assert!(mean_iterations(found) <= 12.0, "{name}: {} passes", mean_iterations(found));
    }
}

#[test]
fn sprites_reach_the_best_energies_on_average() {
    let Solved { golden, found, exact } = solve("sprites-d6-silu");
    assert_eq!(found.count(Status::Converged), found.len());
    let (mean, best) = (exact.energy.mean().unwrap(), golden.best_energy.mean().unwrap());
    assert!(mean <= 1.03 * best, "mean energy {mean}, best {best}");
    assert!(mean_iterations(found) <= 25.0, "{} passes", mean_iterations(found));
}

#[test]
fn no_geodesic_costs_more_than_the_straight_line() {
    for name in NAMES {
        let Solved { golden, exact, .. } = solve(name);
        for (c, (energy, straight)) in exact.energy.iter().zip(&golden.straight_energy).enumerate() {
            assert!(energy <= straight, "{name}, curve {c}: {energy} after {straight}");
        }
    }
}

/// What is reported in float32 is what the reported curve has in float64.
#[test]
fn reported_energies_and_lengths_are_those_of_the_curves() {
    for name in NAMES {
        let Solved { found, exact, .. } = solve(name);
        for c in 0..found.len() {
            assert!(gap(found.energy[c].into(), exact.energy[c]) < 1e-5, "{name}, energy of curve {c}");
            assert!(gap(found.length[c].into(), exact.length[c]) < 1e-5, "{name}, length of curve {c}");
        }
    }
}

fn ends_are_kept(found: &Geodesics<f32>, starts: ArrayView2<'_, f32>, ends: ArrayView2<'_, f32>) {
    assert_eq!(found.curves.index_axis(Axis(1), 0), starts);
    assert_eq!(found.curves.slice(s![.., -1, ..]), ends);
}

#[test]
fn ends_stay_to_the_bit() {
    for name in NAMES {
        let Solved { golden, found, .. } = solve(name);
        ends_are_kept(found, cast(&golden.starts).view(), cast(&golden.ends).view());
    }
}

/// All segments of a geodesic are equally long in data space, up to O(1/N).
#[test]
fn speed_is_constant() {
    let Solved { found, .. } = solve("digits-d2-tanh");
    for c in 0..found.len() {
        let (length, energy) = (f64::from(found.length[c]), f64::from(found.energy[c]));
        assert!(
            gap(length * length, 2.0 * energy) < 1e-2,
            "curve {c}: L² = {}, 2E = {}",
            length * length,
            2.0 * energy
        );
    }
}

/// E(z + ε v) − E(z) for curves z and random moves v of their inner points, with ‖v‖ = 1.
fn moved(model: &Model<f64>, curves: &Array3<f64>, epsilon: f64, seed: u64) -> Array1<f64> {
    let (_, points, _) = curves.dim();
    let mut random = Random(seed);
    let mut moves = random.array(curves.raw_dim());
    moves.slice_mut(s![.., 0, ..]).fill(0.0);
    moves.slice_mut(s![.., points - 1, ..]).fill(0.0);
    for mut v in moves.axis_iter_mut(Axis(0)) {
        let size = norm(v.view());
        v.mapv_inplace(|x| x * epsilon / size);
    }
    let before = model.energy(curves.view()).unwrap().energy;
    model.energy((curves + &moves).view()).unwrap().energy - before
}

/// Energy rises with the square of a move in any direction: slopes are zero, and what is found is a minimum.
#[test]
fn solved_curves_are_minima() {
    for name in NAMES {
        let golden = golden(name);
        let model = model::<f64>(&decoder(name));
        let count = if name == "sprites-d6-silu" { 6 } else { 32 };
        let part = s![..count, ..];
        let options = Options { tolerance: Some(1e-13), max_iterations: 1000, ..Options::default() };
        let found = model.geodesics(golden.starts.slice(part), golden.ends.slice(part), &options).unwrap();
        for seed in 0..5 {
            let [small, large, back] = [1e-4, 1e-3, -1e-3].map(|epsilon| moved(&model, &found.curves, epsilon, seed));
            for c in 0..count {
                let energy = found.energy[c];
                assert!(small[c] > -1e-12 * energy && large[c] > 0.0, "{name}, curve {c}: E falls by {}", -large[c]);
                let slope = (large[c] - back[c]).abs() / 2e-3;
                assert!(slope <= 1e-3 * energy, "{name}, curve {c}: slope {slope} at energy {energy}");
                assert!(
                    (50.0..200.0).contains(&(large[c] / small[c])),
                    "{name}, curve {c}: {} and {}",
                    small[c],
                    large[c]
                );
            }
        }
    }
}

/// In float64 curves converge to where the gradient is zero: ‖∇E‖ is the slope towards the steepest side.
#[test]
fn gradients_vanish_at_solutions() {
    for name in ["digits-d2-tanh", "digits-d8-softplus"] {
        let golden = golden(name);
        let model = model::<f64>(&decoder(name));
        let options = Options { tolerance: Some(1e-14), ..Options::default() };
        let found = model.geodesics(golden.starts.view(), golden.ends.view(), &options).unwrap();
        for c in 0..found.len() {
            let size = found.energy[c];
            assert!(found.gradient_norm[c] <= 1e-4 * size, "{name}, curve {c}: {} at {size}", found.gradient_norm[c]);
        }
    }
}

proptest! {
    #![proptest_config(cases(100))]

    /// Decoders nobody has seen: every curve ends with a status, below the straight line, with its ends in place.
    #[test]
    fn random_decoders(plan in plans(), segments in 2usize..20) {
        let model = model::<f32>(&plan.decoder());
        let mut random = Random(plan.seed ^ 1);
        let (starts, ends) = (cast(&random.array((4, plan.latent_dim))), cast(&random.array((4, plan.latent_dim))));
        let options = Options { segments, ..Options::default() };
        let found = model.geodesics(starts.view(), ends.view(), &options).unwrap();
        ends_are_kept(&found, starts.view(), ends.view());
        let lines = Array3::from_shape_fn((4, segments + 1, plan.latent_dim), |(c, i, k)| {
            starts[[c, k]] + (ends[[c, k]] - starts[[c, k]]) * (i as f32 / segments as f32)
        });
        let straight = model.energy(lines.view()).unwrap().energy;
        for c in 0..4 {
            prop_assert!(found.status[c] != Status::NonFinite);
            // The straight line's own rounding, where it is a geodesic.
            let bound = straight[c] * (1.0 + 1e-5) + 1e-12;
            prop_assert!(found.energy[c] <= bound, "curve {c}: {} after {}", found.energy[c], straight[c]);
        }
    }

    /// Straight lines are the geodesics of a linear decoder, of any number of layers, and are found at once.
    #[test]
    fn linear_decoders(mut plan in plans()) {
        (plan.hidden, plan.output) = (Activation::Identity, Activation::Identity);
        let decoder = plan.decoder();
        let model = model::<f64>(&decoder);
        let mut random = Random(plan.seed ^ 1);
        let (starts, ends) = (random.array((3, plan.latent_dim)), random.array((3, plan.latent_dim)));
        let found = model.geodesics(starts.view(), ends.view(), &Options::default()).unwrap();
        let (from, to) = (model.decode(starts.view()).unwrap(), model.decode(ends.view()).unwrap());
        for c in 0..3 {
            let distance = norm((&to.row(c) - &from.row(c)).view());
            prop_assert!(gap(found.length[c], distance) < 1e-9, "{} instead of {distance}", found.length[c]);
            prop_assert_eq!(found.status[c], Status::Converged);
            prop_assert!(found.iterations[c] <= 4, "{} passes", found.iterations[c]);
        }
    }
}

/// From the golden curves themselves there is next to nothing to gain.
#[test]
fn golden_curves_are_geodesics() {
    for name in ["digits-d2-tanh", "digits-d8-softplus"] {
        let golden = golden(name);
        let model = model::<f64>(&decoder(name));
        let found = model.geodesics_from(golden.best_curves.view(), &Options::default()).unwrap();
        for c in 0..found.len() {
            assert!(found.energy[c] <= golden.best_energy[c] * (1.0 + 1e-12), "{name}, curve {c}");
            assert!(gap(found.energy[c], golden.best_energy[c]) < 1e-6, "{name}, curve {c}");
            assert!(found.iterations[c] <= 4, "{name}, curve {c}: {} passes", found.iterations[c]);
        }
    }
}

/// The CUDA path against the processor.
#[cfg(feature = "emulator")]
mod kernel {
    use super::{ends_are_kept, mean_iterations, solve};
    use crate::fixtures::{Random, cases, cast, decoder, gap, golden, kernels, kinds, model, norm, plans, widen};
    use ndarray::s;
    use proptest::prelude::*;
    use pullback::{Activation, Geodesics, Options, Status};

    /// Solved on both paths, the curves agree in their energies; 1 % of the pairs may end in another local minimum.
    fn reaches_the_same_energies(name: &str) {
        let (golden, decoder) = (golden(name), decoder(name));
        let (starts, ends, count) = (cast(&golden.starts), cast(&golden.ends), golden.starts.nrows());
        let found = kernels::model(&decoder).geodesics(starts.view(), ends.view(), &Options::default()).unwrap();
        let exact = model::<f64>(&decoder).energy(widen(&found.curves).view()).unwrap().energy;
        let expected = solve(name);
        ends_are_kept(&found, starts.view(), ends.view());
        let mut same = 0;
        for c in 0..count {
            assert_eq!(found.status[c], Status::Converged, "{name}, curve {c}");
            assert!(exact[c] <= golden.straight_energy[c], "{name}, curve {c}");
            assert!(
                gap(found.energy[c].into(), exact[c]) < 1e-5,
                "{name}, curve {c}: {} is {}",
                found.energy[c],
                exact[c]
            );
            same += usize::from(gap(exact[c], expected.exact.energy[c]) <= 1e-4);
        }
        assert!(same as f64 >= 0.99 * count as f64, "{name}: {same} of {count} pairs agree");
        let (passes, theirs) = (mean_iterations(&found), mean_iterations(&expected.found));
        assert!(passes <= 1.2 * theirs, "{name}: {passes} passes, {theirs} on the processor");
    }

    #[test]
    fn digits_in_two_dimensions_reach_the_processors_energies() {
        reaches_the_same_energies("digits-d2-tanh");
    }

    #[test]
    fn digits_in_eight_dimensions_reach_the_processors_energies() {
        reaches_the_same_energies("digits-d8-softplus");
    }

    #[test]
    fn golden_curves_are_geodesics() {
        let (name, decoder) = ("digits-d2-tanh", decoder("digits-d2-tanh"));
        let golden = golden(name);
        let curves = cast(&golden.best_curves.slice(s![..24, .., ..]).to_owned());
        let found = kernels::model(&decoder).geodesics_from(curves.view(), &Options::default()).unwrap();
        for c in 0..found.len() {
            assert!(gap(found.energy[c].into(), golden.best_energy[c]) < 1e-5, "curve {c}");
            assert!(found.iterations[c] <= 4, "curve {c}: {} passes", found.iterations[c]);
        }
    }

    /// Limits hold as on the processor, and what is reported is the best so far.
    #[test]
    fn limits_are_kept() {
        let (golden, decoder) = (golden("digits-d8-softplus"), decoder("digits-d8-softplus"));
        let part = s![..8, ..];
        let (starts, ends) = (cast(&golden.starts.slice(part).to_owned()), cast(&golden.ends.slice(part).to_owned()));
        for max_iterations in [1, 2, 11] {
            let options = Options { max_iterations, tolerance: Some(1e-7), ..Options::default() };
            let found = kernels::model(&decoder).geodesics(starts.view(), ends.view(), &options).unwrap();
            let on_cpu = model::<f32>(&decoder).geodesics(starts.view(), ends.view(), &options).unwrap();
            for c in 0..8 {
                assert!(found.iterations[c] <= max_iterations, "curve {c}: {} passes", found.iterations[c]);
                assert!(f64::from(found.energy[c]) <= golden.straight_energy[c] * (1.0 + 1e-6), "curve {c}");
                if max_iterations < 3 {
                    assert_eq!(
                        (found.status[c], found.iterations[c]),
                        (on_cpu.status[c], on_cpu.iterations[c]),
                        "curve {c}"
                    );
                }
            }
        }
    }

    /// Curves that need every candidate, restarts and hundreds of passes: they end, below the straight line.
    #[test]
    fn hard_curves_end() {
        let (golden, decoder) = (golden("sprites-d6-silu"), decoder("sprites-d6-silu"));
        let part = s![..6, ..];
        let (starts, ends) = (cast(&golden.starts.slice(part).to_owned()), cast(&golden.ends.slice(part).to_owned()));
        let found = kernels::model(&decoder).geodesics(starts.view(), ends.view(), &Options::default()).unwrap();
        for c in 0..found.len() {
            assert_eq!(found.status[c], Status::Converged, "curve {c}");
            assert!(f64::from(found.energy[c]) <= golden.straight_energy[c] * (1.0 + 1e-6), "curve {c}");
            assert!(f64::from(found.energy[c]) <= 1.15 * golden.best_energy[c], "curve {c}: {} above", found.energy[c]);
        }
    }

    fn ends_well(found: &Geodesics<f32>) -> Result<(), TestCaseError> {
        for c in 0..found.len() {
            prop_assert!(found.status[c] != Status::NonFinite, "curve {c}");
            prop_assert!(found.energy[c].is_finite() && found.curves.iter().all(|x| x.is_finite()), "curve {c}");
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(cases(60))]

        /// Every shape of decoder and curve: no curve costs more than on the processor by more than rounding and another minimum can.
        #[test]
        fn random_decoders_end_as_on_the_processor(plan in plans(), segments in 2usize..20, count in 0usize..5) {
            let decoder = plan.decoder();
            let mut random = Random(plan.seed ^ 1);
            let (starts, ends) = (cast(&random.array((count, plan.latent_dim))), cast(&random.array((count, plan.latent_dim))));
            let options = Options { segments, ..Options::default() };
            let found = kernels::model(&decoder).geodesics(starts.view(), ends.view(), &options).unwrap();
            let on_cpu = model::<f32>(&decoder).geodesics(starts.view(), ends.view(), &options).unwrap();
            ends_are_kept(&found, starts.view(), ends.view());
            ends_well(&found)?;
            for c in 0..count {
                // Random decoders of few outputs can be nearly flat, and their minima many.
                let bound = 1.05 * on_cpu.energy[c] + 1e-5;
                prop_assert!(found.energy[c] <= bound, "curve {c}: {} instead of {}", found.energy[c], on_cpu.energy[c]);
            }
        }
    }

    /// Latents of many dimensions: blocks beyond shared memory's size, and threads of their own number for every size.
    #[test]
    fn many_latents() {
        for d in [1, 9, 33, 64, 180] {
            let decoder = Random(5).decoder(&[d, 60, d + 3], Activation::Tanh, Activation::Identity);
            let mut random = Random(6);
            let (starts, ends) = (cast(&random.array((2, d))), cast(&random.array((2, d))));
            let options = Options { segments: 6, ..Options::default() };
            let found = kernels::model(&decoder).geodesics(starts.view(), ends.view(), &options).unwrap();
            let on_cpu = model::<f32>(&decoder).geodesics(starts.view(), ends.view(), &options).unwrap();
            for c in 0..2 {
                assert_eq!(found.status[c], on_cpu.status[c], "d = {d}");
                assert!(gap(found.energy[c].into(), on_cpu.energy[c].into()) < 1e-4, "d = {d}");
            }
        }
    }

    /// Curves of many segments, by way of one or several coarser grids, nested and not.
    #[test]
    fn many_segments() {
        let (golden, decoder) = (golden("digits-d2-tanh"), decoder("digits-d2-tanh"));
        let part = s![..4, ..];
        let (starts, ends) = (cast(&golden.starts.slice(part).to_owned()), cast(&golden.ends.slice(part).to_owned()));
        for segments in [16, 130, 512] {
            let options = Options { segments, ..Options::default() };
            let found = kernels::model(&decoder).geodesics(starts.view(), ends.view(), &options).unwrap();
            let on_cpu = model::<f32>(&decoder).geodesics(starts.view(), ends.view(), &options).unwrap();
            ends_are_kept(&found, starts.view(), ends.view());
            for c in 0..4 {
                assert_eq!(found.status[c], Status::Converged, "N = {segments}, curve {c}");
                assert!(gap(found.energy[c].into(), on_cpu.energy[c].into()) < 1e-4, "N = {segments}, curve {c}");
            }
        }
    }

    /// Gradients and Hessians of every kind of decoder: from bent curves on, the first passes are those of the processor.
    #[test]
    fn small_first_passes_of_every_kind() {
        for (kind, decoder) in kinds() {
            let curves = cast::<f32, _>(&(Random(8).array((3, 6, decoder.latent_dim())) * 0.7));
            let model = kernels::careful_device().load(&decoder).unwrap();
            for max_iterations in 1..4 {
                let options = Options { segments: 5, max_iterations, ..Options::default() };
                let found = model.geodesics_from(curves.view(), &options).unwrap();
                let on_cpu = super::model::<f32>(&decoder).geodesics_from(curves.view(), &options).unwrap();
                for c in 0..3 {
                    let what = format!("{kind}, pass {max_iterations}, curve {c}");
                    let ends = [&found, &on_cpu].map(|all| (all.iterations[c], all.status[c]));
                    assert_eq!(ends[0], ends[1], "{what}");
                    let [curve, expected] =
                        [&found, &on_cpu].map(|all| widen(&all.curves.slice(s![c, .., ..]).to_owned()));
                    let error = norm((&curve - &expected).view()) / norm(expected.view());
                    assert!(error <= 1e-3, "{what} is off by {error:e}");
                    let [energy, bound] = [&found, &on_cpu].map(|all| f64::from(all.energy[c]));
                    assert!(gap(energy, bound) <= 1e-4, "{what}: E = {energy}, not {bound}");
                    let [slope, expected] = [&found, &on_cpu].map(|all| f64::from(all.gradient_norm[c]));
                    let error = (slope - expected).abs();
                    assert!(error <= 1e-2 * expected + 1e-4 * energy, "{what}: |∇E| = {slope}, not {expected}");
                }
            }
        }
    }

    #[test]
    fn small_geodesics() {
        for (widths, segments) in [(&[2, 5, 4][..], 3), (&[9, 7, 3, 10], 2), (&[1, 3], 4), (&[2, 64, 64, 64], 16)] {
            let decoder = Random(7).decoder(widths, Activation::Silu, Activation::Identity);
            let mut random = Random(8);
            let (starts, ends) = (cast(&random.array((3, widths[0]))), cast(&random.array((3, widths[0]))));
            let options = Options { segments, ..Options::default() };
            let model = kernels::careful_device().load(&decoder).unwrap();
            ends_well(&model.geodesics(starts.view(), ends.view(), &options).unwrap()).unwrap();
        }
    }
}
