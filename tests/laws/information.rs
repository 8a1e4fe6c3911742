//! Weights on data space and information metrics against their closed forms.

use crate::fixtures::{Random, decoder, gap, golden, model, norm, widen, worst_error};
use ndarray::{Array1, Array2, Array3, Axis, arr1, arr2, s};
use pullback::{Activation, Decoder, Head, Layer, Likelihood, Options, Scalar, Status};

fn linear(weight: Array2<f64>, bias: Array1<f64>, activation: Activation) -> Head {
    Head::new("decoder", vec![Layer { weight, bias, activation }]).unwrap()
}

/// Σ_k w_k ∂f_k ∂f_kᵀ.
fn weighted_metric(jacobians: &Array3<f64>, weight: impl Fn(usize, usize) -> f64) -> Array3<f64> {
    let (points, d, width) = jacobians.dim();
    Array3::from_shape_fn((points, d, d), |(p, i, j)| {
        (0..width).map(|k| weight(p, k) * jacobians[[p, i, k]] * jacobians[[p, j, k]]).sum()
    })
}

#[test]
fn weights_weigh_outputs() {
    let mut random = Random(1);
    for output in Activation::COMMON.into_iter().chain([Activation::Softmax]) {
        let decoder = random.decoder(&[3, 9, 7], Activation::Tanh, output);
        let weights: Vec<f64> = (0..7).map(|k| 0.5 * f64::from(k)).collect();
        let points = random.array((5, 3));
        let jacobians = model::<f64>(&decoder).jacobian(points.view()).unwrap();
        let expected = weighted_metric(&jacobians, |_, k| weights[k]);
        let weighted = decoder.weighted(&weights).unwrap();
        let found = model::<f64>(&weighted).metric(points.view()).unwrap();
        assert!(worst_error(&found, &expected) < 1e-13, "{output}");
        // Twice is the product of the weights.
        let twice = weighted.weighted(&weights).unwrap();
        let expected = weighted_metric(&jacobians, |_, k| weights[k] * weights[k]);
        assert!(worst_error(&model::<f64>(&twice).metric(points.view()).unwrap(), &expected) < 1e-13, "{output}");
    }
}

#[test]
fn bernoulli_metrics_are_theirs_even_at_certainty() {
    let digits = decoder("digits-d8-softplus");
    let fisher = digits.fisher_rao(Likelihood::Bernoulli).unwrap();
    let golden = golden("digits-d8-softplus");
    let expected = weighted_metric(&golden.jacobians, |p, k| {
        let v = golden.values[[p, k]];
        1.0 / (v * (1.0 - v))
    });
    let found = model::<f64>(&fisher).metric(golden.points.view()).unwrap();
    assert!(worst_error(&found, &expected) < 1e-9);
    let found = model::<f32>(&fisher).metric(crate::fixtures::cast(&golden.points).view()).unwrap();
    assert!(worst_error(&found, &expected) < 1e-5);

    // One logit x = z: the distance is the difference of 2 arcsin √p, wherever p is.
    let one = Decoder::new(vec![linear(arr2(&[[1.0]]), arr1(&[0.0]), Activation::Sigmoid)]).unwrap();
    let one = model::<f64>(&one.fisher_rao(Likelihood::Bernoulli).unwrap());
    for (from, to) in [(-1.0, 2.0), (-60.0, -50.0), (-40.0, 40.0), (20.0, 30.0)] {
        let options = Options { segments: 64, ..Options::default() };
        let found = one.geodesics(arr2(&[[from]]).view(), arr2(&[[to]]).view(), &options).unwrap();
        let angle = |x: f64| 2.0 * (x / 2.0).exp().atan();
        // Near certainty by the complement: π − 2 atan e^(x/2) = 2 atan e^(−x/2).
        let expected = if from > 10.0 { angle(-from) - angle(-to) } else { angle(to) - angle(from) };
        let rounding = 4.0 * f64::EPSILON * angle(to) * 64.0;
        assert!((found.length[0] - expected).abs() <= 1e-9 * expected + rounding, "{from} to {to}");
    }
}

/// Of the softmax of three logits: G = diag p − p pᵀ through J, and distances are arcs on a sphere of radius 2.
#[test]
fn categorical_metrics_are_theirs() {
    let mut random = Random(3);
    let logits = random.decoder(&[2, 11, 4], Activation::Gelu, Activation::Identity);
    let mut layers = logits.heads()[0].layers().to_vec();
    layers[1].activation = Activation::Softmax;
    let softmax = Decoder::new(vec![Head::new("decoder", layers).unwrap()]).unwrap();
    let fisher = softmax.fisher_rao(Likelihood::Categorical).unwrap();
    let points = random.array((6, 2));
    let (x, j) = (model::<f64>(&logits).decode(points.view()), model::<f64>(&logits).jacobian(points.view()));
    let (x, j) = (x.unwrap(), j.unwrap());
    let p = x.mapv(f64::exp);
    let p = &p / &p.sum_axis(Axis(1)).insert_axis(Axis(1));
    assert!(worst_error(&model::<f64>(&softmax).decode(points.view()).unwrap(), &p) < 1e-14);
    let mean = Array2::from_shape_fn((6, 2), |(q, i)| (0..4).map(|k| p[[q, k]] * j[[q, i, k]]).sum::<f64>());
    let mut expected = weighted_metric(&j, |q, k| p[[q, k]]);
    for ((q, a, b), g) in expected.indexed_iter_mut() {
        *g -= mean[[q, a]] * mean[[q, b]];
    }
    assert!(worst_error(&model::<f64>(&fisher).metric(points.view()).unwrap(), &expected) < 1e-12);
    assert!(
        worst_error(&model::<f32>(&fisher).metric(crate::fixtures::cast(&points).view()).unwrap(), &expected) < 1e-5
    );

    let flat =
        Decoder::new(vec![linear(arr2(&[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]), Array1::zeros(3), Activation::Softmax)]);
    let model = model::<f64>(&flat.unwrap().fisher_rao(Likelihood::Categorical).unwrap());
    let (starts, ends) = (arr2(&[[-2.0, 1.0], [0.3, 4.0]]), arr2(&[[1.5, 0.5], [-1.0, -3.0]]));
    let options = Options { segments: 256, ..Options::default() };
    let found = model.geodesics(starts.view(), ends.view(), &options).unwrap();
    assert_eq!(found.status, [Status::Converged; 2]);
    let half = |z: ndarray::ArrayView1<'_, f64>| model.decode(z.insert_axis(Axis(0))).unwrap() / 2.0;
    for k in 0..2 {
        let expected = 2.0 * (half(starts.row(k)) * half(ends.row(k))).sum().acos();
        assert!(gap(found.length[k], expected) < 1e-5, "{} instead of {expected}", found.length[k]);
    }
}

/// With μ = x and σ = e^y the latent plane is hyperbolic: d = √2 arccosh(1 + (Δμ²/2 + Δσ²) / (2 σ σ′)).
#[test]
fn gaussian_distances_are_hyperbolic() {
    let mean = linear(arr2(&[[1.0, 0.0]]), arr1(&[0.5]), Activation::Identity);
    let std = linear(arr2(&[[0.0, 1.0]]), arr1(&[0.0]), Activation::Exp);
    let plane = Decoder::new(vec![mean, std]).unwrap().fisher_rao(Likelihood::Gaussian).unwrap();
    fn check<T: Scalar>(plane: &Decoder, bound: f64) {
        let model = model::<T>(plane);
        let metric = widen(&model.metric(arr2(&[[T::ONE, T::from_f64(-1.0)]]).view()).unwrap());
        let expected = Array3::from_shape_vec((1, 2, 2), vec![2f64.exp(), 0.0, 0.0, 2.0]).unwrap();
        assert!(worst_error(&metric, &expected) < bound);
        let (starts, ends) =
            (arr2(&[[-1.0, 0.0], [0.0, -2.0], [0.2, 1.0]]), arr2(&[[1.0, 0.0], [0.5, 1.0], [3.0, -1.0]]));
        let options = Options { segments: 256, coarse_to_fine: false, ..Options::default() };
        let found = model
            .geodesics(crate::fixtures::cast(&starts).view(), crate::fixtures::cast(&ends).view(), &options)
            .unwrap();
        assert_eq!(found.status, [Status::Converged; 3], "{:?}", found.iterations);
        for k in 0..3 {
            let (s, t) = (starts[[k, 1]].exp(), ends[[k, 1]].exp());
            let (dm, ds): (f64, f64) = (starts[[k, 0]] - ends[[k, 0]], s - t);
            let expected = 2f64.sqrt() * (1.0 + (dm * dm / 2.0 + ds * ds) / (2.0 * s * t)).acosh();
            let length = found.length[k].to_f64();
            // Hyperbolic chords are longer than arcs by O(1/N²).
            assert!(gap(length, expected) < 1e-4, "{length} instead of {expected}");
        }
    }
    check::<f64>(&plane, 1e-14);
    check::<f32>(&plane, 1e-6);
}

#[test]
fn gaussian_metrics_are_theirs() {
    let rbf = decoder("digits-d2-rbf");
    let points = Random(5).array((8, 2));
    let plain = model::<f64>(&rbf);
    let (values, jacobians) = (plain.decode(points.view()).unwrap(), plain.jacobian(points.view()).unwrap());
    let expected = weighted_metric(&jacobians, |p, k| {
        let std = values[[p, 64 + k % 64]];
        if k < 64 { 1.0 / (std * std) } else { 2.0 / (std * std) }
    });
    let fisher = rbf.fisher_rao(Likelihood::Gaussian).unwrap();
    assert!(worst_error(&model::<f64>(&fisher).metric(points.view()).unwrap(), &expected) < 1e-12);
    assert!(
        worst_error(&model::<f32>(&fisher).metric(crate::fixtures::cast(&points).view()).unwrap(), &expected) < 1e-5
    );
    assert_eq!(model::<f64>(&fisher).decode(points.view()).unwrap(), values);
}

/// Where a search under one of these metrics ends, the energy's derivative vanishes.
#[test]
fn solved_curves_are_stationary() {
    let mut random = Random(8);
    let mean = random.head("mean", &[2, 10, 5], Activation::Tanh, Activation::Identity);
    let std = random.head("std", &[2, 6, 5], Activation::Tanh, Activation::Softplus);
    let gaussian = Decoder::new(vec![mean, std]).unwrap().fisher_rao(Likelihood::Gaussian).unwrap();
    let softmax = random.decoder(&[2, 12, 6], Activation::Silu, Activation::Softmax);
    let sigmoid = random.decoder(&[2, 12, 6], Activation::Silu, Activation::Sigmoid);
    let weights = [3.0, 0.0, 1.0, 0.5, 2.0, 0.1];
    for (name, decoder) in [
        ("gaussian, ε", gaussian.regularised(0.05).unwrap()),
        ("gaussian", gaussian),
        ("categorical", softmax.fisher_rao(Likelihood::Categorical).unwrap()),
        ("weighted softmax", softmax.weighted(&weights).unwrap()),
        ("weighted bernoulli", sigmoid.fisher_rao(Likelihood::Bernoulli).unwrap().weighted(&weights).unwrap()),
    ] {
        let model = model::<f64>(&decoder);
        let (starts, ends) = (random.array((3, 2)), random.array((3, 2)));
        let options = Options { segments: 8, tolerance: Some(1e-12), ..Options::default() };
        let found = model.geodesics(starts.view(), ends.view(), &options).unwrap();
        assert_eq!(found.status, [Status::Converged; 3], "{name}");
        for (point, axis) in (1..8).flat_map(|i| [(i, 0), (i, 1)]) {
            let moved = |by: f64| {
                let mut curves = found.curves.clone();
                curves.slice_mut(s![.., point, axis]).mapv_inplace(|z| z + by);
                model.energy(curves.view()).unwrap().energy
            };
            let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            for (slope, energy) in slope.iter().zip(&found.energy) {
                assert!(slope.abs() < 1e-4 * energy, "{name}: slope {slope} of energy {energy}");
            }
        }
        println!("{name}: {:?} passes", found.iterations);
    }
}

/// Σ w_k ∇²f_k against central differences of wᵀJ, through softmax and weights.
#[test]
fn second_derivatives_are_derivatives() {
    let mut random = Random(12);
    for output in [Activation::Softmax, Activation::SoftmaxAngle, Activation::SigmoidAngle, Activation::Exp] {
        let decoder =
            random.decoder(&[3, 8, 5], Activation::Tanh, output).weighted(&[1.0, 2.0, 0.5, 0.0, 3.0]).unwrap();
        let model = model::<f64>(&decoder);
        let (point, adjoint) = (random.array((1, 3)), random.array((1, 5)));
        let found = model.adjoint_hessian(point.view(), adjoint.view()).unwrap();
        let gradient = |at: &Array2<f64>| {
            let jacobian = model.jacobian(at.view()).unwrap();
            jacobian.index_axis(Axis(0), 0).dot(&adjoint.row(0))
        };
        for k in 0..3 {
            let moved = |by: f64| {
                let mut at = point.clone();
                at[[0, k]] += by;
                gradient(&at)
            };
            let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            let error = norm((&found.slice(s![0, k, ..]) - &expected).view());
            assert!(error < 1e-8 * (1.0 + norm(expected.view())), "{output}: {error}");
        }
    }
}

#[test]
fn what_is_no_such_output_is_refused() {
    let tanh = Random(1).decoder(&[2, 4, 3], Activation::Tanh, Activation::Tanh);
    let refused = |result: pullback::Result<Decoder>, expected: &str| {
        assert_eq!(result.unwrap_err().to_string(), expected);
    };
    refused(
        tanh.fisher_rao(Likelihood::Bernoulli),
        "Fisher–Rao metric of bernoulli outputs: expected probabilities, by sigmoid behind the last layer of head `decoder`, found tanh",
    );
    refused(
        tanh.fisher_rao(Likelihood::Categorical),
        "Fisher–Rao metric of categorical outputs: expected probabilities, by softmax behind the last layer of head `decoder`, found tanh",
    );
    refused(
        tanh.fisher_rao(Likelihood::Gaussian),
        "Fisher–Rao metric of gaussian outputs: expected two heads, means and standard deviations, found 1",
    );
    let mut random = Random(2);
    let heads = |random: &mut Random, width: usize, output| {
        let mean = random.head("mean", &[2, 3], Activation::Tanh, Activation::Identity);
        Decoder::new(vec![mean, random.head("std", &[2, width], Activation::Tanh, output)]).unwrap()
    };
    refused(
        heads(&mut random, 4, Activation::Exp).fisher_rao(Likelihood::Gaussian),
        "Fisher–Rao metric of gaussian outputs: expected 3 standard deviations of head `std`, one for every mean, found 4",
    );
    refused(
        heads(&mut random, 3, Activation::Tanh).fisher_rao(Likelihood::Gaussian),
        "Fisher–Rao metric of gaussian outputs: expected standard deviations that are positive, by softplus, exp, sigmoid or rsqrt behind the last layer of head `std`, found tanh",
    );
    refused(tanh.weighted(&[1.0, -1.0, 1.0]), "weights: expected finite numbers of at least 0, found -1 at 1");
    refused(tanh.weighted(&[1.0, 1.0, f64::NAN]), "weights: expected finite numbers of at least 0, found NaN at 2");
    refused(tanh.weighted(&[1.0, 1.0]), "weights: expected 3, one for every output, found 2");
    let gaussian = heads(&mut random, 3, Activation::Exp).fisher_rao(Likelihood::Gaussian).unwrap();
    refused(gaussian.weighted(&[1.0; 6]), "weights: expected none with the Fisher–Rao metric of gaussian outputs");
    let mut layers = tanh.heads()[0].layers().to_vec();
    layers[0].activation = Activation::Softmax;
    let error = Head::new("decoder", layers).unwrap_err().to_string();
    assert_eq!(error, "head `decoder`, layer 0: expected softmax behind the last layer alone, found it before");
}

/// Three categories are a sphere of radius 2, two Bernoulli laws a flat square; pushed inner products are those of the metric.
#[test]
fn information_metrics_are_curved_as_they_should_be() {
    let points = Random(7).array((5, 2));
    let logits = arr2(&[[1.0, 0.3], [-0.2, 1.0], [0.4, -0.5]]);
    let three = Decoder::new(vec![linear(logits, arr1(&[0.1, 0.0, -0.3]), Activation::Softmax)]).unwrap();
    let sphere = model::<f64>(&three.fisher_rao(Likelihood::Categorical).unwrap());
    for k in sphere.gaussian_curvature(points.view()).unwrap() {
        assert!(gap(k, 0.25) < 1e-10, "{k}");
    }
    let mut random = Random(11);
    let square =
        random.decoder(&[2, 2], Activation::Tanh, Activation::Sigmoid).fisher_rao(Likelihood::Bernoulli).unwrap();
    for k in model::<f64>(&square).gaussian_curvature(points.view()).unwrap() {
        assert!(k.abs() < 1e-9, "{k}");
    }

    let gaussian = decoder("digits-d2-rbf").fisher_rao(Likelihood::Gaussian).unwrap();
    let weights = [2.0, 0.0, 1.0, 0.5];
    let softmax = random.decoder(&[2, 6, 4], Activation::Tanh, Activation::Softmax).weighted(&weights).unwrap();
    let (u, v) = (random.array((5, 2)), random.array((5, 2)));
    for decoder in [&gaussian, &softmax, &decoder("digits-d2-ensemble")] {
        let model = model::<f64>(decoder);
        let metric = model.metric(points.view()).unwrap();
        let found = model.inner(points.view(), u.view(), v.view()).unwrap();
        for p in 0..5 {
            let expected = u.row(p).dot(&metric.index_axis(Axis(0), p).dot(&v.row(p)));
            assert!((found[p] - expected).abs() < 1e-12 * (1.0 + metric.index_axis(Axis(0), p).sum().abs()), "{p}");
        }
    }
    let error = model::<f64>(&gaussian).gaussian_curvature(points.view()).unwrap_err().to_string();
    assert_eq!(
        error,
        "Gaussian curvature: expected Euclidean chords between outputs, found the Fisher–Rao metric of gaussian outputs"
    );
}
