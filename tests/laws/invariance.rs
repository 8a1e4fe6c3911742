//! What must not change a result.

use crate::fixtures::{NAMES, Random, bits, cases, cast, decoder, gap, golden, model, norm, plans};
use ndarray::{Array1, Array2, ArrayView2, Axis, concatenate, s};
use proptest::prelude::*;
use pullback::{Activation, Decoder, Geodesics, Head, Layer, Model, Options, Status};

/// Latents of the golden pairs of a decoder, in float32.
fn pairs(name: &str, count: usize) -> (Array2<f32>, Array2<f32>) {
    let golden = golden(name);
    // Sprites take a hundred times as long.
    let part = s![..if name == "sprites-d6-silu" { count / 4 } else { count }, ..];
    (cast(&golden.starts.slice(part).to_owned()), cast(&golden.ends.slice(part).to_owned()))
}

fn solve(model: &Model<f32>, starts: ArrayView2<'_, f32>, ends: ArrayView2<'_, f32>) -> Geodesics<f32> {
    model.geodesics(starts, ends, &Options::default()).unwrap()
}

/// Everything about curve `a` of one result equals curve `b` of another, to the bit.
fn assert_same(what: &str, one: &Geodesics<f32>, a: usize, other: &Geodesics<f32>, b: usize) {
    let numbers = |g: &Geodesics<f32>, c: usize| {
        let curve = bits(&g.curves.index_axis(Axis(0), c).to_owned());
        let sizes = [g.energy[c], g.length[c], g.gradient_norm[c]].map(f32::to_bits);
        (curve, sizes, g.iterations[c], g.status[c])
    };
    let (left, right) = (numbers(one, a), numbers(other, b));
    assert_eq!((left.1, left.2, left.3), (right.1, right.2, right.3), "{what}: curve {a} has other numbers");
    assert!(left.0 == right.0, "{what}: curve {a} is another one");
}

#[test]
fn runs_repeat() {
    for name in NAMES {
        let (model, (starts, ends)) = (model::<f32>(&decoder(name)), pairs(name, 48));
        let (first, second) = (solve(&model, starts.view(), ends.view()), solve(&model, starts.view(), ends.view()));
        (0..first.len()).for_each(|c| assert_same(name, &first, c, &second, c));
    }
}

#[test]
fn the_number_of_threads_does_not_matter() {
    for name in NAMES {
        let (model, (starts, ends)) = (model::<f32>(&decoder(name)), pairs(name, 48));
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let values = model.jacobian(starts.view()).unwrap();
                (solve(&model, starts.view(), ends.view()), values)
            })
        };
        let (one, jacobians) = on(1);
        for threads in [2, 5] {
            let (many, others) = on(threads);
            (0..one.len()).for_each(|c| assert_same(name, &one, c, &many, c));
            assert_eq!(jacobians, others, "{name}");
        }
    }
}

#[test]
fn the_size_of_the_batch_does_not_matter() {
    for name in NAMES {
        let (model, (starts, ends)) = (model::<f32>(&decoder(name)), pairs(name, 48));
        let all = solve(&model, starts.view(), ends.view());
        for size in [1, 5, 17] {
            for first in (0..all.len()).step_by(size * 3) {
                let part = s![first..(first + size).min(all.len()), ..];
                let some = solve(&model, starts.slice(part), ends.slice(part));
                (0..some.len()).for_each(|c| assert_same(name, &some, c, &all, first + c));
            }
        }
    }
}

#[test]
fn the_order_does_not_matter() {
    for name in NAMES {
        let (model, (starts, ends)) = (model::<f32>(&decoder(name)), pairs(name, 48));
        let forth = solve(&model, starts.view(), ends.view());
        let back = solve(&model, starts.slice(s![..;-1, ..]), ends.slice(s![..;-1, ..]));
        (0..forth.len()).for_each(|c| assert_same(name, &forth, c, &back, forth.len() - 1 - c));
    }
}

/// Where a curve's values overflow it ends as not finite, alone.
#[test]
fn a_poisoned_neighbour_is_alone() {
    for name in NAMES {
        let (model, (mut starts, mut ends)) = (model::<f32>(&decoder(name)), pairs(name, 40));
        let healthy = solve(&model, starts.view(), ends.view());
        let poisoned: Vec<usize> = [0, 4, 5, 21, 39].into_iter().filter(|&c| c < starts.nrows()).collect();
        for &c in &poisoned {
            // Alternating signs, so that sums over latents become ∞ − ∞.
            starts.row_mut(c).indexed_iter_mut().for_each(|(k, x)| *x = if k % 2 == 0 { 3e38 } else { -3e38 });
            ends.row_mut(c).assign(&starts.row(c));
            ends[[c, 0]] = -3e38;
        }
        let found = solve(&model, starts.view(), ends.view());
        for c in 0..found.len() {
            if poisoned.contains(&c) {
                assert_eq!(found.status[c], Status::NonFinite, "{name}, curve {c}");
                assert!(found.energy[c].is_nan() && found.length[c].is_nan(), "{name}, curve {c}");
            } else {
                assert_same(name, &found, c, &healthy, c);
            }
        }
    }
}

#[test]
fn both_ways_cost_the_same() {
    for (name, bound) in [("digits-d2-tanh", 1e-7), ("digits-d8-softplus", 1e-7)] {
        let golden = golden(name);
        let model = model::<f64>(&decoder(name));
        let forth = model.geodesics(golden.starts.view(), golden.ends.view(), &Options::default()).unwrap();
        let back = model.geodesics(golden.ends.view(), golden.starts.view(), &Options::default()).unwrap();
        for c in 0..forth.len() {
            assert!(gap(forth.energy[c], back.energy[c]) < bound, "{name}: {} and {}", forth.energy[c], back.energy[c]);
        }
    }
}

/// The decoder followed by an orthogonal map of its data space.
fn rotated(decoder: &Decoder, random: &mut Random) -> Decoder {
    let heads = decoder.heads().iter().map(|head| {
        let width = head.data_dim();
        let turn =
            Layer { weight: random.orthogonal(width), bias: random.array(width), activation: Activation::Identity };
        Head::new(head.name(), [head.layers(), &[turn]].concat()).unwrap()
    });
    Decoder::new(heads.collect()).unwrap()
}

/// Metrics of both decoders at 20 points and energies of 3 curves agree to rounding.
fn same_geometry(one: &Decoder, other: &Decoder, seed: u64) -> Result<(), TestCaseError> {
    let d = one.latent_dim();
    let (a, b) = (model::<f64>(one), model::<f64>(other));
    let mut random = Random(seed);
    let (z, curves) = (random.array((20, d)), random.array((3, 9, d)));
    let (g, h) = (a.metric(z.view()).unwrap(), b.metric(z.view()).unwrap());
    for (g, h) in g.axis_iter(Axis(0)).zip(h.axis_iter(Axis(0))) {
        prop_assert!(norm((&g - &h).view()) <= 1e-12 * (norm(g) + 1e-3), "{g} and {h}");
    }
    let (e, f) = (a.energy(curves.view()).unwrap(), b.energy(curves.view()).unwrap());
    let close = |x: &Array1<f64>, y: &Array1<f64>| x.iter().zip(y).all(|(x, y)| (x - y).abs() <= 1e-12 * (x + 1e-3));
    prop_assert!(close(&e.energy, &f.energy) && close(&e.length, &f.length), "{e:?} and {f:?}");
    Ok(())
}

proptest! {
    #![proptest_config(cases(80))]

    #[test]
    fn orthogonal_maps_behind_the_decoder_change_nothing(plan in plans()) {
        let decoder = plan.decoder();
        same_geometry(&decoder, &rotated(&decoder, &mut Random(plan.seed ^ 2)), plan.seed ^ 1)?;
    }

    /// The metric of the compressed decoder, and the Gram matrix of the original's own Jacobian.
    #[test]
    fn compression_changes_nothing(mut plan in plans()) {
        plan.output = Activation::Identity;
        let decoder = plan.decoder();
        let small = decoder.compressed();
        for (head, original) in small.heads().iter().zip(decoder.heads()) {
            let inputs = original.layers().last().unwrap().inputs();
            prop_assert_eq!(head.data_dim(), original.data_dim().min(inputs));
        }
        same_geometry(&decoder, &small, plan.seed ^ 1)?;
        let z = Random(plan.seed ^ 3).array((5, plan.latent_dim));
        let jacobians = model::<f64>(&decoder).jacobian(z.view()).unwrap();
        let metrics = model::<f64>(&small).metric(z.view()).unwrap();
        for (j, g) in jacobians.axis_iter(Axis(0)).zip(metrics.axis_iter(Axis(0))) {
            let expected = j.dot(&j.t());
            prop_assert!(norm((&g - &expected).view()) <= 1e-12 * norm(expected.view()), "{g} instead of {expected}");
        }
    }
}

/// Heads are added up in the metric: JμᵀJμ + JσᵀJσ.
#[test]
fn heads_add_their_metrics() {
    let mut random = Random(11);
    let mean = random.head("mean", &[3, 20, 30], Activation::Tanh, Activation::Identity);
    let std = random.head("std", &[3, 15, 30], Activation::Silu, Activation::Softplus);
    let metric = |heads: Vec<Head>| {
        let z = Random(12).array((10, 3));
        model::<f64>(&Decoder::new(heads).unwrap()).metric(z.view()).unwrap()
    };
    let (both, sum) = (metric(vec![mean.clone(), std.clone()]), metric(vec![mean]) + metric(vec![std]));
    assert!(crate::fixtures::worst_error(&both, &sum) < 1e-13);
}

/// Solved curves too: the compressed decoder is what the solver uses, the turned one has no smaller form.
#[test]
fn geodesics_of_a_turned_decoder_cost_the_same() {
    let name = "digits-d2-tanh";
    let (golden, decoder) = (golden(name), decoder(name));
    let part = s![..64, ..];
    let solve = |decoder: &Decoder| {
        let options = Options::default();
        model::<f64>(decoder).geodesics(golden.starts.slice(part), golden.ends.slice(part), &options).unwrap().energy
    };
    let energies = concatenate(Axis(0), &[solve(&decoder).view()]).unwrap();
    for (one, other) in energies.iter().zip(solve(&rotated(&decoder, &mut Random(13)))) {
        assert!(gap(*one, other) < 1e-7, "{one} and {other}");
    }
}

/// The same of the CUDA path.
#[cfg(feature = "emulator")]
mod kernel {
    use super::{assert_same, pairs, solve};
    use crate::fixtures::{Random, decoder, kernels};
    use ndarray::{Axis, s};
    use pullback::{Activation, Device, EmulatorOptions, Error, Options, Status};
    use std::ops::ControlFlow;

    const NAME: &str = "digits-d2-tanh";

    #[test]
    fn runs_repeat() {
        let (model, (starts, ends)) = (kernels::model(&decoder(NAME)), pairs(NAME, 40));
        let (first, second) = (solve(&model, starts.view(), ends.view()), solve(&model, starts.view(), ends.view()));
        (0..first.len()).for_each(|c| assert_same(NAME, &first, c, &second, c));
        assert_eq!(model.metric(starts.view()).unwrap(), model.metric(starts.view()).unwrap());
    }

    #[test]
    fn neither_batch_nor_order_matter() {
        let (model, (starts, ends)) = (kernels::model(&decoder(NAME)), pairs(NAME, 40));
        let all = solve(&model, starts.view(), ends.view());
        let part = s![13..20, ..];
        let some = solve(&model, starts.slice(part), ends.slice(part));
        (0..7).for_each(|c| assert_same(NAME, &some, c, &all, 13 + c));
        let (mut back, mut back_ends) = (starts.clone(), ends.clone());
        back.invert_axis(Axis(0));
        back_ends.invert_axis(Axis(0));
        let reversed = solve(&model, back.view(), back_ends.view());
        (0..40).for_each(|c| assert_same(NAME, &reversed, 39 - c, &all, c));
    }

    /// One curve whose values overflow ends alone.
    #[test]
    fn a_poisoned_neighbour_does_not_matter() {
        let name = "digits-d8-softplus"; // without bounds, as tanh has them
        let (model, (mut starts, ends)) = (kernels::model(&decoder(name)), pairs(name, 12));
        let healthy = solve(&model, starts.view(), ends.view());
        starts.row_mut(5).fill(f32::MAX);
        let poisoned = solve(&model, starts.view(), ends.view());
        (0..12).filter(|&c| c != 5).for_each(|c| assert_same(name, &poisoned, c, &healthy, c));
        assert_eq!(poisoned.status[5], Status::NonFinite);
        assert!(poisoned.energy[5].is_nan() && poisoned.length[5].is_nan());
    }

    /// A caller that has seen enough stops the run, and the model goes on with the next.
    #[test]
    fn runs_can_be_stopped() {
        let (model, (starts, ends)) = (kernels::model(&decoder(NAME)), pairs(NAME, 6));
        let stop = |_: usize, _: usize| ControlFlow::Break(());
        let stopped = model.geodesics_observed(starts.view(), ends.view(), &Options::default(), stop);
        assert!(matches!(stopped, Err(Error::Cancelled { total: 6, .. })));
        assert_eq!(solve(&model, starts.view(), ends.view()).len(), 6);
    }

    fn emulator(memory: u64) -> Device {
        kernels::emulator(&EmulatorOptions { memory, ..EmulatorOptions::default() })
    }

    /// With little memory fewer curves are in work at once, through a ring that turns many times: the same curves, to the bit.
    #[test]
    fn little_memory_changes_nothing() {
        let (decoder, (starts, ends)) = (decoder(NAME), pairs(NAME, 40));
        let plenty = emulator(1 << 30).load(&decoder).unwrap();
        let all = solve(&plenty, starts.view(), ends.view());
        let metrics = plenty.metric(starts.view()).unwrap();
        for memory in [1 << 20, 400 << 10] {
            let model = emulator(memory).load(&decoder).unwrap();
            let found = solve(&model, starts.view(), ends.view());
            (0..all.len()).for_each(|c| assert_same("little memory", &found, c, &all, c));
            assert_eq!(model.metric(starts.view()).unwrap(), metrics);
        }
    }

    /// A batch that the free memory seemed to hold is halved until it fits.
    #[test]
    fn fragmented_memory_changes_nothing() {
        let (decoder, (starts, ends)) = (decoder(NAME), pairs(NAME, 40));
        let all = solve(&emulator(1 << 30).load(&decoder).unwrap(), starts.view(), ends.view());
        let options = EmulatorOptions { largest_allocation: 600 << 10, ..EmulatorOptions::default() };
        let model = kernels::emulator(&options).load(&decoder).unwrap();
        let found = solve(&model, starts.view(), ends.view());
        (0..all.len()).for_each(|c| assert_same("fragmented memory", &found, c, &all, c));
        let many = Random(2).array((5000, 2)).mapv(|x| x as f32);
        assert_eq!(model.metric(many.view()).unwrap(), kernels::model(&decoder).metric(many.view()).unwrap());
    }

    /// Too little for a single curve is an error, and the model goes on with what fits.
    #[test]
    fn too_little_memory_is_an_error() {
        let (decoder, (starts, ends)) = (decoder(NAME), pairs(NAME, 4));
        let model = emulator(300 << 10).load(&decoder).unwrap();
        let options = Options { segments: 4096, ..Options::default() };
        let error = model.geodesics(starts.view(), ends.view(), &options).unwrap_err();
        assert!(matches!(error, Error::OutOfMemory { .. }) && !error.is_fatal(), "{error}");
        assert!(error.to_string().starts_with("emulator: out of memory: "), "{error}");
        assert!(model.decode(starts.view()).is_ok());
        let tiny = emulator(1 << 10).load(&decoder);
        assert!(matches!(tiny, Err(Error::OutOfMemory { .. })));
    }

    /// A launch that fails is an error of that call alone.
    #[test]
    fn a_failed_launch_is_an_error() {
        let (decoder, (starts, ends)) = (decoder(NAME), pairs(NAME, 4));
        let options =
            EmulatorOptions { failing_kernel: Some("solve_64_tf32x3_2_tanh".into()), ..EmulatorOptions::default() };
        let model = kernels::emulator(&options).load(&decoder).unwrap();
        let error = model.geodesics(starts.view(), ends.view(), &Options::default()).unwrap_err();
        assert!(
            matches!(error, Error::Cuda { .. }) && !error.is_fatal() && error.to_string().contains("solve_64"),
            "{error}"
        );
        assert!(model.metric(starts.view()).is_ok());
    }

    #[test]
    fn float64_is_refused() {
        let decoder = Random(1).decoder(&[2, 3], Activation::Tanh, Activation::Identity);
        let error = kernels::device().load_as::<f64>(&decoder).err().unwrap();
        assert!(error.to_string().contains("expected f32"), "{error}");
    }
}
