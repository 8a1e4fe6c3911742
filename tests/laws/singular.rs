//! Singular values and vectors of Jacobians, and of a decoder's first layers.

use crate::fixtures::{NAMES, Random, cases, cast, decoder, golden, model, norm, plans, widen};
use ndarray::{Array1, Array2, ArrayView2, Axis, array, s};
use proptest::prelude::*;
use pullback::{Activation, Decoder, Head, Layer, Scalar, Singular};

/// Values fall, vectors are orthonormal, and together they make the Jacobian `[d, D]`.
fn check<T: Scalar>(found: &Singular<T>, p: usize, columns: ArrayView2<'_, f64>, tolerance: f64) {
    let (values, left, right) = (widen(&found.values), widen(&found.left), widen(&found.right));
    let (values, left, right) = (values.row(p), left.index_axis(Axis(0), p), right.index_axis(Axis(0), p));
    assert!(values.iter().all(|&x| x >= 0.0) && values.windows(2).into_iter().all(|w| w[0] >= w[1]), "{values}");
    let scaled = &left * &values.insert_axis(Axis(1));
    let error = norm((&right.t().dot(&scaled) - &columns).view());
    assert!(error <= tolerance * norm(columns), "error {error:e} of {columns}");
    for vectors in [left, right] {
        let error = norm((&vectors.dot(&vectors.t()) - &Array2::<f64>::eye(values.len())).view());
        assert!(error <= 100.0 * T::EPSILON.to_f64(), "orthogonal up to {error:e}");
    }
    for vector in right.rows() {
        let largest = vector.iter().fold(0.0, |m: f64, &x| if x.abs() > m.abs() { x } else { m });
        assert!(largest > 0.0, "{vector}");
    }
}

fn golden_singular<T: Scalar>(tolerance: f64) {
    for name in NAMES {
        let golden = golden(name);
        let points = golden.points.slice(s![..8, ..]).to_owned();
        let found = model::<T>(&decoder(name)).singular(cast(&points).view()).unwrap();
        for p in 0..8 {
            check(&found, p, golden.jacobians.index_axis(Axis(0), p), tolerance);
        }
    }
}

#[test]
fn golden_decompositions_in_float64() {
    golden_singular::<f64>(1e-12);
}

#[test]
fn golden_decompositions_in_float32() {
    golden_singular::<f32>(1e-5);
}

proptest! {
    #![proptest_config(cases(100))]

    /// More latents than outputs, too. The squares are the metric's eigenvalues.
    #[test]
    fn decompositions_make_the_jacobian(plan in plans(), points in 0usize..5) {
        let model = model::<f64>(&plan.decoder());
        let z = Random(plan.seed ^ 1).array((points, plan.latent_dim));
        let found = model.singular(z.view()).unwrap();
        let eigenvalues = model.spectrum(z.view()).unwrap().values;
        let r = plan.latent_dim.min(model.decoder().data_dim());
        prop_assert_eq!(found.values.dim(), (points, r));
        for (p, columns) in model.jacobian(z.view()).unwrap().axis_iter(Axis(0)).enumerate() {
            check(&found, p, columns, 1e-13);
            for (sigma, lambda) in found.values.row(p).iter().zip(eigenvalues.row(p)) {
                prop_assert!((sigma * sigma - lambda).abs() <= 1e-12 * eigenvalues[[p, 0]], "{sigma}² and {lambda}");
            }
        }
    }
}

/// A direction that the metric has lost in its rounding.
#[test]
fn small_singular_values() {
    let mut random = Random(1);
    let (left, right) = (random.orthogonal(5), random.orthogonal(5));
    let expected = [1.0, 1e-3, 1e-6, 1e-9, 1e-12];
    let weight = left.dot(&Array2::from_diag(&Array1::from(expected.to_vec()))).dot(&right.t());
    let layer = Layer { weight, bias: Array1::zeros(5), activation: Activation::Identity };
    let linear = Decoder::new(vec![Head::new("linear", vec![layer]).unwrap()]).unwrap();
    let found = model::<f64>(&linear).singular(Array2::zeros((1, 5)).view()).unwrap().values;
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-15, "{found:e} instead of {expected:e}");
    }
}

#[test]
fn what_is_not_finite_stays_alone() {
    let decoder = Random(1).decoder(&[3, 20, 9], Activation::Relu, Activation::Identity);
    let mut z = Random(2).array((4, 3));
    let good = model::<f64>(&decoder).singular(z.view()).unwrap();
    z[[1, 2]] = f64::NAN;
    let bad = model::<f64>(&decoder).singular(z.view()).unwrap();
    assert!(bad.values.row(1).iter().chain(bad.left.index_axis(Axis(0), 1)).all(|x| x.is_nan()));
    assert!(bad.right.index_axis(Axis(0), 1).iter().all(|x| x.is_nan()));
    for p in [0, 2, 3] {
        assert_eq!(good.values.row(p), bad.values.row(p));
        assert_eq!(good.left.index_axis(Axis(0), p), bad.left.index_axis(Axis(0), p));
    }
    assert_eq!(model::<f64>(&decoder).singular(Array2::zeros((0, 3)).view()).unwrap().left.dim(), (0, 3, 9));
}

#[test]
fn refusals() {
    let wide = Array2::zeros((4, 3));
    let message = model::<f64>(&Decoder::sphere(1.0)).singular(wide.view()).unwrap_err().to_string();
    assert_eq!(message, "latents: expected latents of dimension 2, the decoder's, found 3");
    let sphere = Decoder::sphere(1.0);
    for count in [0, 3] {
        let message = sphere.heads()[0].stage(count).unwrap_err().to_string();
        let expected =
            format!("layers of a stage: expected at least 1 and no more than the head has, found {count} of 2");
        assert_eq!(message, expected);
    }
}

/// Every stage takes the one before by one layer of its own; heads that are shorter stay whole.
#[test]
fn stages_follow_each_other() {
    let mut random = Random(7);
    let heads = vec![
        random.head("long", &[2, 9, 8, 7], Activation::Tanh, Activation::Sigmoid),
        random.head("short", &[2, 5, 3], Activation::Sin, Activation::Identity),
    ];
    let decoder = Decoder::new(heads).unwrap();
    let stages = decoder.stages();
    assert_eq!(stages.iter().map(Decoder::data_dim).collect::<Vec<usize>>(), [9 + 5, 8 + 3, 7 + 3]);
    assert_eq!(stages[2], decoder);
    assert_eq!(stages[0].heads()[1].name(), "short");
    let z = random.array((6, 2));
    let tanh = |layer: &Layer, a: Array2<f64>| (a.dot(&layer.weight.t()) + &layer.bias).mapv(f64::tanh);
    let layers = decoder.heads()[0].layers();
    let first = tanh(&layers[0], z.clone());
    let second = tanh(&layers[1], first.clone());
    for (stage, expected) in stages.iter().zip([first, second]) {
        let found = model::<f64>(stage).decode(z.view()).unwrap();
        let width = expected.ncols();
        assert!(norm((&found.slice(s![.., ..width]) - &expected).view()) < 1e-13);
    }
    // The first layer of a plane's rotation does not stretch.
    let turned = Random(8).orthogonal(2);
    let turn = Layer { weight: turned, bias: array![0.0, 0.0], activation: Activation::Identity };
    let stretch = Layer { weight: array![[3.0, 0.0], [0.0, 0.5]], ..turn.clone() };
    let both = Decoder::new(vec![Head::new("both", vec![turn, stretch]).unwrap()]).unwrap();
    let found: Vec<Array2<f64>> = both
        .stages()
        .iter()
        .map(|stage| model::<f64>(stage).singular(array![[0.0, 0.0]].view()).unwrap().values)
        .collect();
    assert!(norm((&found[0] - &array![[1.0, 1.0]]).view()) < 1e-14, "{}", found[0]);
    assert!(norm((&found[1] - &array![[3.0, 0.5]]).view()) < 1e-14, "{}", found[1]);
}
