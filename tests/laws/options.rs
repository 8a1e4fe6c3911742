//! Corners of the solver: smallest sizes, options, given curves, progress, and what is refused.

use std::ops::ControlFlow;
use std::sync::Mutex;

use crate::fixtures::{Random, cast, decoder, gap, golden, model};
use ndarray::{Array2, Array3, Axis, array, s};
use pullback::{Activation, Decoder, Device, Error, Geodesics, Model, Options, Status};

fn refusal<T>(result: Result<T, Error>) -> String {
    let error = result.err().expect("an error");
    assert!(error.is_input(), "{error:?}");
    error.to_string()
}

fn digits() -> (Model<f32>, Array2<f32>, Array2<f32>) {
    let golden = golden("digits-d2-tanh");
    (model(&decoder("digits-d2-tanh")), cast(&golden.starts), cast(&golden.ends))
}

#[test]
fn no_curves() {
    let none = Array2::<f32>::zeros((0, 2));
    let found = digits().0.geodesics(none.view(), none.view(), &Options::default()).unwrap();
    assert!(found.is_empty());
    assert_eq!((found.len(), found.curves.dim(), found.energy.len()), (0, (0, 33, 2), 0));
    let found = digits().0.geodesics_from(Array3::zeros((0, 33, 2)).view(), &Options::default()).unwrap();
    assert_eq!((found.len(), found.curves.dim()), (0, (0, 33, 2)));
}

#[test]
fn two_segments() {
    let options = Options { segments: 2, ..Options::default() };
    let found = model::<f64>(&Decoder::sphere(1.0))
        .geodesics(array![[1.0, 0.0]].view(), array![[1.5, 1.0]].view(), &options)
        .unwrap();
    // One inner point, which lies midway on the great circle: two chords of half the angle.
    let points = model::<f64>(&Decoder::sphere(1.0)).decode(array![[1.0, 0.0], [1.5, 1.0]].view()).unwrap();
    let angle = points.row(0).dot(&points.row(1)).acos();
    assert_eq!(found.curves.dim(), (1, 3, 2));
    assert!(gap(found.length[0], 4.0 * (angle / 4.0).sin()) < 1e-9, "{} for {angle}", found.length[0]);
}

#[test]
fn one_latent_and_one_output() {
    // f(z) = tanh(z): every way from a to b is as long, |tanh b − tanh a|, and the cheapest has constant speed.
    let mut random = Random(1);
    let layer = random.layer(1, 1, Activation::Tanh);
    let (w, b) = (layer.weight[[0, 0]], layer.bias[0]);
    let line = Decoder::new(vec![pullback::Head::new("line", vec![layer]).unwrap()]).unwrap();
    let found =
        model::<f64>(&line).geodesics(array![[-1.5]].view(), array![[2.0]].view(), &Options::default()).unwrap();
    let distance = ((2.0 * w + b).tanh() - (-1.5 * w + b).tanh()).abs();
    assert!(gap(found.length[0], distance) < 1e-9);
    assert!(gap(found.energy[0], 0.5 * distance * distance) < 1e-8);
    assert_eq!(found.status[0], Status::Converged);
}

#[test]
fn one_linear_layer() {
    let decoder = Random(2).decoder(&[5, 7], Activation::Identity, Activation::Identity);
    let (starts, ends) = (Random(3).array((1, 5)), Random(4).array((1, 5)));
    let found = model::<f64>(&decoder).geodesics(starts.view(), ends.view(), &Options::default()).unwrap();
    let length = crate::fixtures::norm((decoder.heads()[0].layers()[0].weight.dot(&(&ends - &starts).row(0))).view());
    assert!(gap(found.length[0], length) < 1e-12);
}

/// Piecewise linear decoders have kinks and regions where they do not move at all.
#[test]
fn relu_decoders() {
    for activation in [Activation::Relu, Activation::LeakyRelu] {
        let decoder = Random(5).decoder(&[2, 32, 32, 20], activation, Activation::Identity);
        let (starts, ends) = (cast(&Random(6).array((50, 2))), cast(&Random(7).array((50, 2))));
        let model = model::<f32>(&decoder);
        let found = model.geodesics(starts.view(), ends.view(), &Options::default()).unwrap();
        let one = Options { max_iterations: 1, ..Options::default() };
        let straight = model.geodesics(starts.view(), ends.view(), &one).unwrap();
        for c in 0..50 {
            assert!(found.energy[c].is_finite() && found.energy[c] <= straight.energy[c] * (1.0 + 1e-5), "curve {c}");
        }
        assert!(
            found.energy.sum() < 0.99 * straight.energy.sum(),
            "{} and {}",
            found.energy.sum(),
            straight.energy.sum()
        );
    }
}

#[test]
fn identical_ends() {
    let (model, starts, _) = digits();
    let found = model.geodesics(starts.view(), starts.view(), &Options::default()).unwrap();
    for c in 0..found.len() {
        assert_eq!((found.energy[c], found.length[c], found.status[c]), (0.0, 0.0, Status::Converged), "curve {c}");
        assert!(found.curves.index_axis(Axis(0), c).rows().into_iter().all(|z| z == starts.row(c)), "curve {c}");
    }
}

#[test]
fn one_iteration() {
    let (model, starts, ends) = digits();
    let options = Options { max_iterations: 1, ..Options::default() };
    let found = model.geodesics(starts.view(), ends.view(), &options).unwrap();
    assert!(found.iterations.iter().all(|&i| i == 1), "{}", found.iterations);
    assert!(found.count(Status::MaxIterations) > 200, "{:?}", found.status);
    assert!(found.energy.iter().all(|e| e.is_finite()));
}

/// The limit holds over all grids.
#[test]
fn iterations_never_exceed_the_limit() {
    let (model, starts, ends) = digits();
    for most in [2, 3, 5] {
        for coarse_to_fine in [false, true] {
            let options = Options { max_iterations: most, coarse_to_fine, ..Options::default() };
            let found = model.geodesics(starts.view(), ends.view(), &options).unwrap();
            for c in 0..found.len() {
                assert!(found.iterations[c] <= most, "curve {c}: {} passes of {most}", found.iterations[c]);
                assert!(found.status[c] != Status::MaxIterations || found.iterations[c] == most, "curve {c}");
            }
        }
    }
}

/// More effort never gives a worse curve, and a tighter tolerance a flatter one.
#[test]
fn tolerance_is_kept() {
    let golden = golden("digits-d8-softplus");
    let model = model::<f64>(&decoder("digits-d8-softplus"));
    let part = s![..32, ..];
    let solve = |tolerance| {
        let options = Options { tolerance: Some(tolerance), ..Options::default() };
        model.geodesics(golden.starts.slice(part), golden.ends.slice(part), &options).unwrap()
    };
    let (loose, tight) = (solve(1e-2), solve(1e-12));
    assert!(loose.iterations.sum() < tight.iterations.sum());
    assert!(tight.gradient_norm.sum() < 1e-3 * loose.gradient_norm.sum());
    for c in 0..32 {
        let excess = loose.energy[c] / tight.energy[c] - 1.0;
        assert!((-1e-9..0.05).contains(&excess), "curve {c}: {excess:e} above");
    }
}

#[test]
fn both_kinds_of_grids_find_geodesics() {
    let (model, starts, ends) = digits();
    let solve = |coarse_to_fine| {
        let options = Options { coarse_to_fine, ..Options::default() };
        model.geodesics(starts.view(), ends.view(), &options).unwrap()
    };
    let (coarse, fine) = (solve(true), solve(false));
    let same =
        coarse.energy.iter().zip(&fine.energy).filter(|(a, b)| gap(f64::from(**a), f64::from(**b)) < 1e-3).count();
    assert!(same >= 245, "{same} of 256 agree");
}

#[test]
fn given_curves_are_where_the_search_starts() {
    let (model, starts, ends) = digits();
    let options = Options { coarse_to_fine: false, ..Options::default() };
    let straight = model.geodesics(starts.view(), ends.view(), &options).unwrap();
    let lines = Array3::from_shape_fn((starts.nrows(), 33, 2), |(c, i, k)| {
        let (a, b) = (starts[[c, k]], ends[[c, k]]);
        if i == 32 { b } else { a + (b - a) * (i as f32 / 32.0) }
    });
    assert_eq!(model.geodesics_from(lines.view(), &options).unwrap(), straight);
    // A solved curve needs no more than a look, and stays what it is.
    let again = model.geodesics_from(straight.curves.view(), &options).unwrap();
    assert!(again.iterations.sum() <= 2 * 256, "{}", again.iterations);
    for c in 0..again.len() {
        assert!(gap(f64::from(again.energy[c]), f64::from(straight.energy[c])) < 1e-4, "curve {c}");
    }
}

#[test]
fn progress_counts_every_curve() {
    let (model, starts, ends) = digits();
    let calls = Mutex::new(Vec::new());
    model
        .geodesics_observed(starts.view(), ends.view(), &Options::default(), |finished, total| {
            calls.lock().unwrap().push((finished, total));
            ControlFlow::Continue(())
        })
        .unwrap();
    let mut calls = calls.into_inner().unwrap();
    calls.sort_unstable();
    assert_eq!(*calls.last().unwrap(), (256, 256));
    assert!(calls.iter().all(|&(finished, total)| (1..=256).contains(&finished) && total == 256));
}

#[test]
fn a_run_can_be_cancelled() {
    let (model, starts, ends) = digits();
    let stop = |_, _| ControlFlow::Break(());
    let error = model.geodesics_observed(starts.view(), ends.view(), &Options::default(), stop).unwrap_err();
    let Error::Cancelled { finished, total } = error else { panic!("{error:?}") };
    assert!((1..256).contains(&finished) && total == 256, "{finished} of {total}");
    assert!(!error.is_input());
    assert_eq!(error.to_string(), format!("cancelled after {finished} of 256 curves"));
}

fn with(options: Options) -> Result<Geodesics<f32>, Error> {
    let (model, starts, ends) = digits();
    model.geodesics(starts.view(), ends.view(), &options)
}

#[test]
fn options_out_of_range_are_refused() {
    let default = Options::default;
    for segments in [0, 1, usize::MAX] {
        let message = refusal(with(Options { segments, ..default() }));
        assert_eq!(message, format!("segments: expected 2 to 1048576, found {segments}"));
    }
    for (tolerance, shown) in [(0.0, "0"), (1.0, "1"), (-1e-3, "-0.001"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        let message = refusal(with(Options { tolerance: Some(tolerance), ..default() }));
        assert_eq!(message, format!("tolerance: expected a number between 0 and 1, found {shown}"));
    }
    assert_eq!(
        refusal(with(Options { max_iterations: 0, ..default() })),
        "max_iterations: expected at least 1, found 0"
    );
}

#[test]
fn latents_of_another_shape_are_refused() {
    let (model, starts, ends) = digits();
    let options = Options::default();
    assert_eq!(
        refusal(model.geodesics(starts.slice(s![..5, ..]), ends.slice(s![..4, ..]), &options)),
        "ends: expected [5, 2], the shape of starts, found [4, 2]"
    );
    let three = Array2::zeros((5, 3));
    assert_eq!(
        refusal(model.geodesics(three.view(), three.view(), &options)),
        "starts: expected latents of dimension 2, the decoder's, found 3"
    );
    assert_eq!(
        refusal(model.geodesics_from(Array3::zeros((4, 33, 3)).view(), &options)),
        "initial curves: expected latents of dimension 2, the decoder's, found 3"
    );
    assert_eq!(
        refusal(model.geodesics_from(Array3::zeros((4, 17, 2)).view(), &options)),
        "initial curves: expected 33 points each, one more than segments, found 17"
    );
}

#[test]
fn latents_that_are_not_finite_are_refused() {
    let (model, starts, mut ends) = digits();
    ends[[17, 1]] = f32::NAN;
    assert_eq!(
        refusal(model.geodesics(starts.view(), ends.view(), &Options::default())),
        "ends, row 17, column 1: expected a finite number, found NaN"
    );
    assert_eq!(
        refusal(model.geodesics((&starts * f32::INFINITY).view(), starts.view(), &Options::default())),
        format!("starts, row 0, column 0: expected a finite number, found {}", starts[[0, 0]] * f32::INFINITY)
    );
    let mut curves = Array3::zeros((4, 33, 2));
    curves[[1, 3, 0]] = f32::NEG_INFINITY;
    let message = refusal(model.geodesics_from(curves.view(), &Options::default()));
    assert!(message.starts_with("initial curves, ") && message.ends_with("found -inf"), "{message}");
}

#[test]
fn statuses_have_names_and_codes() {
    let names = Status::ALL.map(Status::name);
    assert_eq!(names, ["converged", "max_iterations", "stalled", "non_finite"]);
    assert_eq!(Status::ALL.map(|s| s as u8), [0, 1, 2, 3]);
}

#[test]
fn the_best_device_is_there() {
    let best = Device::best().unwrap();
    match Device::cuda(0) {
        Ok(gpu) => assert_eq!(best.to_string(), gpu.to_string()),
        Err(_) => assert!(best.is_cpu() && best.to_string().starts_with("cpu ("), "{best}"),
    }
    assert_eq!(Device::cpu().label(), "cpu");
    assert_eq!(Device::cpu().properties(), None);
    assert_eq!(Device::cpu().free_memory().unwrap(), None);
}

/// A model is shared freely between threads.
#[test]
fn models_are_shared_between_threads() {
    let (model, starts, ends) = digits();
    let solve = || model.geodesics(starts.view(), ends.view(), &Options::default()).unwrap();
    let alone = solve();
    std::thread::scope(|scope| {
        let threads = [scope.spawn(solve), scope.spawn(solve)];
        for thread in threads {
            assert_eq!(thread.join().unwrap(), alone);
        }
    });
}
