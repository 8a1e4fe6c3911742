//! The differential J v, its adjoint Jᵀ w, and lengths and angles.

use std::f64::consts::PI;

use crate::fixtures::{NAMES, Random, cases, decoder, gap, golden, model, norm, plans};
use ndarray::{Array1, Array2, Axis, array, s};
use proptest::prelude::*;
use pullback::{Activation, Decoder, Error, Scalar};

proptest! {
    #![proptest_config(cases(150))]

    /// One row through the layers is the product with all of J.
    #[test]
    fn maps_are_products_with_the_jacobian(plan in plans(), points in 0usize..5) {
        let model = model::<f64>(&plan.decoder());
        let mut random = Random(plan.seed ^ 1);
        let z = random.array((points, plan.latent_dim));
        let (v, w) = (random.array(z.dim()), random.array((points, model.decoder().data_dim())));
        let pushed = model.push_forward(z.view(), v.view()).unwrap();
        let pulled = model.pull_back(z.view(), w.view()).unwrap();
        prop_assert_eq!((pushed.dim(), pulled.dim()), (w.dim(), v.dim()));
        for (p, columns) in model.jacobian(z.view()).unwrap().axis_iter(Axis(0)).enumerate() {
            let (forth, back) = (v.row(p).dot(&columns), columns.dot(&w.row(p)));
            let size = 1e-13 * (1.0 + norm(columns));
            prop_assert!(norm((&forth - &pushed.row(p)).view()) <= size * norm(v.row(p)), "{forth} and {}", pushed.row(p));
            prop_assert!(norm((&back - &pulled.row(p)).view()) <= size * norm(w.row(p)), "{back} and {}", pulled.row(p));
        }
    }

    /// ⟨J v, w⟩ = ⟨v, Jᵀ w⟩.
    #[test]
    fn the_pull_back_is_the_adjoint(plan in plans()) {
        let model = model::<f64>(&plan.decoder());
        let mut random = Random(plan.seed ^ 2);
        let z = random.array((4, plan.latent_dim));
        let (v, w) = (random.array(z.dim()), random.array((4, model.decoder().data_dim())));
        let there = (&model.push_forward(z.view(), v.view()).unwrap() * &w).sum_axis(Axis(1));
        let here = (&model.pull_back(z.view(), w.view()).unwrap() * &v).sum_axis(Axis(1));
        prop_assert!(norm((&there - &here).view()) <= 1e-12 * (1.0 + norm(there.view())), "{there} and {here}");
    }

    /// Over all heads, on the compressed network: ⟨u, v⟩ = uᵀ G v, ‖u‖² = ⟨u, u⟩, and the law of cosines.
    #[test]
    fn inner_products_are_the_metrics(plan in plans()) {
        let model = model::<f64>(&plan.decoder());
        let mut random = Random(plan.seed ^ 3);
        let z = random.array((3, plan.latent_dim));
        let (u, v) = (random.array(z.dim()), random.array(z.dim()));
        let inner = model.inner(z.view(), u.view(), v.view()).unwrap();
        let [length, other] = [&u, &v].map(|u| model.norm(z.view(), u.view()).unwrap());
        let angle = model.angle(z.view(), u.view(), v.view()).unwrap();
        for (p, metric) in model.metric(z.view()).unwrap().axis_iter(Axis(0)).enumerate() {
            let (u, v) = (u.row(p), v.row(p));
            let bound = 1e-12 * norm(metric) * norm(u) * norm(v);
            prop_assert!((inner[p] - u.dot(&metric.dot(&v))).abs() <= bound);
            let square = u.dot(&metric.dot(&u));
            prop_assert!((length[p].powi(2) - square).abs() <= 1e-12 * norm(metric) * norm(u).powi(2));
            if length[p] * other[p] > 0.0 {
                let cosine = inner[p] / (length[p] * other[p]);
                prop_assert!((angle[p].cos() - cosine).abs() <= 1e-10, "{} where the cosine is {cosine}", angle[p]);
            } else {
                prop_assert!(angle[p].is_nan());
            }
        }
    }
}

fn golden_maps<T: Scalar>(tolerance: f64) {
    for name in NAMES {
        let golden = golden(name);
        let model = model::<T>(&decoder(name));
        let z = crate::fixtures::cast(&golden.points);
        let v = Random(1).array(golden.points.dim());
        let pushed = model.push_forward(z.view(), crate::fixtures::cast(&v).view()).unwrap();
        let pulled = model.pull_back(z.view(), crate::fixtures::cast(&golden.adjoints).view()).unwrap();
        for (p, columns) in golden.jacobians.axis_iter(Axis(0)).enumerate() {
            let (forth, back) = (v.row(p).dot(&columns), columns.dot(&golden.adjoints.row(p)));
            let forth = norm((&forth - &pushed.row(p).mapv(T::to_f64)).view()) / (norm(columns) * norm(v.row(p)));
            let back =
                norm((&back - &pulled.row(p).mapv(T::to_f64)).view()) / (norm(columns) * norm(golden.adjoints.row(p)));
            assert!(forth <= tolerance && back <= tolerance, "{name}, point {p}: errors {forth:e} and {back:e}");
        }
    }
}

#[test]
fn golden_maps_in_float64() {
    golden_maps::<f64>(1e-12);
}

#[test]
fn golden_maps_in_float32() {
    golden_maps::<f32>(1e-5);
}

/// On a plane stretched by 10⁻⁸ … 10⁸ the angle between (1, 0) and (cos a, sin a) is a: where 1 − cos a is nothing, too.
#[test]
fn angles_near_0_and_180_degrees() {
    for scale in [1e-8, 1.0, 1e8] {
        let head = pullback::Head::new(
            "plane",
            vec![pullback::Layer {
                weight: array![[scale, 0.0], [0.0, scale], [0.0, 0.0]],
                bias: Array1::zeros(3),
                activation: Activation::Identity,
            }],
        );
        let plane = Decoder::new(vec![head.unwrap()]).unwrap();
        let angles = [1e-7, 1e-4, 0.5, PI / 2.0, PI - 1e-4];
        let z = Array2::zeros((angles.len(), 2));
        let u = Array2::from_shape_fn(z.dim(), |(_, k)| if k == 0 { 1.0 } else { 0.0 });
        let v = Array2::from_shape_fn(z.dim(), |(p, k)| if k == 0 { angles[p].cos() } else { angles[p].sin() });
        let exact = model::<f64>(&plane).angle(z.view(), u.view(), v.view()).unwrap();
        let (z, u, v) = (z.mapv(|x| x as f32), u.mapv(|x| x as f32), v.mapv(|x| x as f32));
        let rounded = model::<f32>(&plane).angle(z.view(), u.view(), v.view()).unwrap();
        for (p, &angle) in angles.iter().enumerate() {
            assert!(
                (exact[p] - angle).abs() <= 1e-15 + 1e-12 * angle.min(PI - angle),
                "{} instead of {angle}",
                exact[p]
            );
            let found = f64::from(rounded[p]);
            assert!((found - angle).abs() <= 3e-7 * angle.min(1.0), "{found} instead of {angle}");
        }
    }
}

#[test]
fn a_vector_of_length_0_has_no_angle() {
    let model = model::<f64>(&Decoder::sphere(1.0));
    let z = array![[0.5, 0.1], [0.5, 0.1], [0.5, 0.1]];
    let (u, v) = (array![[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]], array![[1.0, 0.0], [0.0, 0.0], [2.0, 0.0]]);
    let angles = model.angle(z.view(), u.view(), v.view()).unwrap();
    assert!(angles[0].is_nan() && angles[1].is_nan() && angles[2] == 0.0, "{angles}");
    assert_eq!(model.norm(z.view(), u.view()).unwrap(), array![0.0, 1.0, 1.0]);
}

/// Even where an activation has made a NaN or an infinity finite again; and a neighbour's bits stay as they are.
#[test]
fn what_is_not_finite_stays_alone() {
    for hidden in [Activation::Relu, Activation::Tanh] {
        let decoder = Random(1).decoder(&[3, 20, 9], hidden, Activation::Identity);
        let model = model::<f64>(&decoder);
        let mut random = Random(2);
        let (z, v, w) = (random.array((30, 3)), random.array((30, 3)), random.array((30, 9)));
        let (mut bad_z, mut bad_v, mut bad_w) = (z.clone(), v.clone(), w.clone());
        (bad_z[[4, 1]], bad_z[[5, 0]], bad_v[[20, 2]], bad_w[[20, 8]]) =
            (f64::NAN, f64::INFINITY, f64::INFINITY, f64::NAN);
        let columns = |z: &Array2<f64>, v: &Array2<f64>, w: &Array2<f64>| {
            let (z, v, w) = (z.view(), v.view(), w.view());
            let as_rows = |a: Array1<f64>| a.insert_axis(Axis(1));
            ndarray::concatenate![
                Axis(1),
                model.push_forward(z, v).unwrap(),
                model.pull_back(z, w).unwrap(),
                as_rows(model.inner(z, v, v).unwrap()),
                as_rows(model.norm(z, v).unwrap()),
                as_rows(model.angle(z, v, w.slice(s![.., ..3])).unwrap())
            ]
        };
        let (good, bad) = (columns(&z, &v, &w), columns(&bad_z, &bad_v, &bad_w));
        for p in 0..30 {
            match p {
                4 | 5 | 20 => assert!(bad.row(p).iter().take(15).all(|x| x.is_nan()), "{hidden}, {p}: {}", bad.row(p)),
                _ => assert_eq!(good.row(p), bad.row(p), "{hidden}, {p}"),
            }
        }
    }
}

#[test]
fn nothing_comes_of_nothing() {
    let model = model::<f64>(&Decoder::torus(2.0, 1.0));
    let (none, wide) = (Array2::zeros((0, 2)), Array2::zeros((0, 3)));
    assert_eq!(model.push_forward(none.view(), none.view()).unwrap().dim(), (0, 3));
    assert_eq!(model.pull_back(none.view(), wide.view()).unwrap().dim(), (0, 2));
    assert_eq!(model.angle(none.view(), none.view(), none.view()).unwrap().len(), 0);
    assert_eq!(model.norm(none.view(), none.view()).unwrap().len(), 0);
}

/// Rows that are not one after the other in memory are read as they stand.
#[test]
fn transposed_and_strided_arrays() {
    let model = model::<f64>(&decoder("digits-d2-tanh"));
    let mut random = Random(3);
    let (z, v) = (random.array((2, 40)), random.array((80, 2)));
    let (z, v) = (z.t(), v.slice(s![..;2, ..]));
    let (plain_z, plain_v) = (z.as_standard_layout().into_owned(), v.as_standard_layout().into_owned());
    assert_eq!(model.push_forward(z, v).unwrap(), model.push_forward(plain_z.view(), plain_v.view()).unwrap());
    assert_eq!(model.norm(z, v).unwrap(), model.norm(plain_z.view(), plain_v.view()).unwrap());
}

#[test]
fn refusals() {
    let model = model::<f64>(&Decoder::sphere(1.0));
    let (z, three, two) = (Array2::zeros((4, 2)), Array2::zeros((4, 3)), Array2::zeros((3, 2)));
    let says = |result: Result<(), Error>, expected: &str| assert_eq!(result.unwrap_err().to_string(), expected);
    let latents = "latents: expected latents of dimension 2, the decoder's, found 3";
    says(model.push_forward(three.view(), z.view()).map(drop), latents);
    says(model.push_forward(z.view(), three.view()).map(drop), "vectors: expected [4, 2], found [4, 3]");
    says(model.pull_back(z.view(), z.view()).map(drop), "covectors: expected [4, 3], found [4, 2]");
    says(model.inner(z.view(), two.view(), z.view()).map(drop), "u: expected [4, 2], found [3, 2]");
    says(model.inner(z.view(), z.view(), two.view()).map(drop), "v: expected [4, 2], found [3, 2]");
    says(model.angle(z.view(), z.view(), three.view()).map(drop), "v: expected [4, 2], found [4, 3]");
    says(model.norm(z.view(), three.view()).map(drop), "u: expected [4, 2], found [4, 3]");
    assert!(gap(model.norm(z.view(), z.view()).unwrap().sum() + 1.0, 1.0) == 0.0);
}

/// The same on a device.
#[cfg(feature = "emulator")]
mod device {
    use crate::fixtures::{Random, cases, kernels, kinds, model, norm, plans, widen};
    use ndarray::{Array, ArrayView1, Axis, Dimension};
    use proptest::prelude::*;
    use proptest::test_runner::TestCaseError;
    use pullback::{Activation, Decoder, Device, Model};

    fn near<D: Dimension>(what: &str, found: &Array<f32, D>, expected: &Array<f64, D>) {
        assert_eq!(found.shape(), expected.shape(), "{what}");
        let error = norm((&widen(found) - expected).view());
        assert!(error <= 1e-4 * norm(expected.view()), "{what}: error {error:e}, {found} instead of {expected}");
    }

    /// Every operation by either model, for 70 points.
    #[test]
    fn operations_are_the_references() {
        let decoder = Random(1).decoder(&[3, 30, 40, 60], Activation::Tanh, Activation::Identity);
        let (there, here): (Model<f32>, Model<f64>) = (kernels::model(&decoder), model(&decoder));
        let mut random = Random(2);
        let [z, u, v] = [(); 3].map(|()| random.array((70, 3)).mapv(|x| x as f32));
        let w = random.array((70, 60)).mapv(|x| x as f32);
        let [wide_z, wide_u, wide_v] = [&z, &u, &v].map(widen);
        let (z, u, v) = (z.view(), u.view(), v.view());
        let (exact_z, exact_u, exact_v) = (wide_z.view(), wide_u.view(), wide_v.view());
        near("J v", &there.push_forward(z, v).unwrap(), &here.push_forward(exact_z, exact_v).unwrap());
        near("Jᵀ w", &there.pull_back(z, w.view()).unwrap(), &here.pull_back(exact_z, widen(&w).view()).unwrap());
        near("inner", &there.inner(z, u, v).unwrap(), &here.inner(exact_z, exact_u, exact_v).unwrap());
        near("norm", &there.norm(z, u).unwrap(), &here.norm(exact_z, exact_u).unwrap());
        near("angle", &there.angle(z, u, v).unwrap(), &here.angle(exact_z, exact_u, exact_v).unwrap());
        near("volume", &there.volume(z).unwrap(), &here.volume(exact_z).unwrap());
        near("log volume", &there.log_volume(z).unwrap(), &here.log_volume(exact_z).unwrap());
        near("spectrum", &there.spectrum(z).unwrap().values, &here.spectrum(exact_z).unwrap().values);
        near("singular", &there.singular(z).unwrap().values, &here.singular(exact_z).unwrap().values);
        near("metric", &there.truncated_metric(z, 0.0).unwrap().0, &here.metric(exact_z).unwrap());
        let none = z.slice(ndarray::s![..0, ..]);
        assert_eq!(there.push_forward(none, none).unwrap().dim(), (0, 60));
        assert_eq!(there.spectrum(none).unwrap().vectors.dim(), (0, 3, 3));
    }

    /// Both maps of one decoder at so many points, each within the rounding of its products.
    fn maps_agree(device: &Device, decoder: &Decoder, points: usize, seed: u64) -> Result<(), TestCaseError> {
        let (there, here) = (device.load(decoder).unwrap(), model::<f64>(decoder));
        let mut random = Random(seed);
        let [z, v, w] = [decoder.latent_dim(), decoder.latent_dim(), decoder.data_dim()]
            .map(|width| random.array((points, width)).mapv(|x| x as f32));
        let [wide_z, wide_v, wide_w] = [&z, &v, &w].map(widen);
        let jacobians = here.jacobian(wide_z.view()).unwrap();
        let pushed = (
            there.push_forward(z.view(), v.view()).unwrap(),
            here.push_forward(wide_z.view(), wide_v.view()).unwrap(),
            &wide_v,
        );
        let pulled = (
            there.pull_back(z.view(), w.view()).unwrap(),
            here.pull_back(wide_z.view(), wide_w.view()).unwrap(),
            &wide_w,
        );
        for (found, expected, vectors) in [pushed, pulled] {
            prop_assert_eq!(found.dim(), expected.dim());
            for p in 0..points {
                let error = norm((&widen(&found.row(p).to_owned()) - &expected.row(p)).view());
                let size = norm(jacobians.index_axis(Axis(0), p)) * norm(vectors.row(p));
                let bound = 32.0 * kernels::rounding(decoder) * (1.0 + size);
                prop_assert!(error <= bound, "error {error:e}, bound {bound:e}: {}", found.row(p));
            }
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(cases(60))]

        #[test]
        fn maps_are_the_references(plan in plans(), points in 0usize..80) {
            maps_agree(&kernels::device(), &plan.decoder(), points, plan.seed ^ 1)?;
        }
    }

    #[test]
    fn small_maps_of_every_kind() {
        for (kind, decoder) in kinds() {
            maps_agree(&kernels::careful_device(), &decoder, 5, 9).unwrap_or_else(|error| panic!("{kind}: {error}"));
        }
    }

    /// Even where an activation has made it finite again; and a neighbour's bits stay as they are.
    #[test]
    fn what_is_not_finite_stays_alone() {
        let decoder = Random(1).decoder(&[3, 30, 8], Activation::Relu, Activation::Identity);
        let model = kernels::model(&decoder);
        let mut random = Random(2);
        let [z, v] = [(); 2].map(|()| random.array((6, 3)).mapv(|x| x as f32));
        let w = random.array((6, 8)).mapv(|x| x as f32);
        let (mut bad_z, mut bad_v, mut bad_w) = (z.clone(), v.clone(), w.clone());
        (bad_z[[1, 0]], bad_v[[3, 2]], bad_w[[4, 7]]) = (f32::INFINITY, f32::NAN, f32::NAN);
        let good = (model.push_forward(z.view(), v.view()).unwrap(), model.pull_back(z.view(), w.view()).unwrap());
        let bad = (
            model.push_forward(bad_z.view(), bad_v.view()).unwrap(),
            model.pull_back(bad_z.view(), bad_w.view()).unwrap(),
        );
        for p in 0..6 {
            let nan = |row: ArrayView1<'_, f32>| row.iter().all(|x| x.is_nan());
            if p == 1 || p == 3 {
                assert!(nan(bad.0.row(p)))
            } else {
                assert_eq!(good.0.row(p), bad.0.row(p))
            }
            if p == 1 || p == 4 { assert!(nan(bad.1.row(p))) } else { assert_eq!(good.1.row(p), bad.1.row(p)) }
        }
    }
}
