//! Eigenvalues and eigenvectors of metrics.

use crate::fixtures::{NAMES, Random, cases, cast, decoder, gap, golden, model, norm, plans, widen};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, array, s};
use proptest::prelude::*;
use pullback::{Activation, Decoder, Head, Layer, Scalar, Spectrum};

/// Σ λ_k v_k v_kᵀ over the first so many.
fn rebuilt(values: ArrayView1<'_, f64>, vectors: ArrayView2<'_, f64>, count: usize) -> Array2<f64> {
    let vectors = vectors.slice(s![..count, ..]);
    let scaled = &vectors * &values.slice(s![..count]).insert_axis(Axis(1));
    vectors.t().dot(&scaled)
}

/// Values fall, vectors are orthonormal with a positive largest number, and together they make the metric.
fn check<T: Scalar>(spectrum: &Spectrum<T>, p: usize, metric: ArrayView2<'_, f64>, tolerance: f64) {
    let (values, vectors) = (widen(&spectrum.values), widen(&spectrum.vectors));
    let (values, vectors) = (values.row(p), vectors.index_axis(Axis(0), p));
    let d = values.len();
    assert!(values.iter().all(|&x| x >= 0.0), "{values}");
    assert!(values.windows(2).into_iter().all(|w| w[0] >= w[1]), "{values}");
    let error = norm((&rebuilt(values, vectors, d) - &metric).view());
    assert!(error <= tolerance * norm(metric), "error {error:e} of {metric}");
    let error = norm((&vectors.dot(&vectors.t()) - &Array2::<f64>::eye(d)).view());
    let bound = 16.0 * T::EPSILON.to_f64() * d as f64;
    assert!(error <= bound, "orthogonal up to {error:e}, which should be {bound:e}");
    for vector in vectors.rows() {
        let largest = vector.iter().fold(0.0, |m: f64, &x| if x.abs() > m.abs() { x } else { m });
        assert!(largest > 0.0, "{vector}");
    }
}

fn golden_spectra<T: Scalar>(tolerance: f64) {
    for name in NAMES {
        let golden = golden(name);
        let spectrum = model::<T>(&decoder(name)).spectrum(cast(&golden.points).view()).unwrap();
        for (p, metric) in golden.metrics.axis_iter(Axis(0)).enumerate() {
            check(&spectrum, p, metric, tolerance);
        }
    }
}

#[test]
fn golden_spectra_in_float64() {
    golden_spectra::<f64>(1e-10);
}

#[test]
fn golden_spectra_in_float32() {
    golden_spectra::<f32>(1e-5);
}

/// A linear decoder, whose metric is WᵀW everywhere.
fn linear(weight: Array2<f64>) -> Decoder {
    let bias = Array1::zeros(weight.nrows());
    let head = Head::new("linear", vec![Layer { weight, bias, activation: Activation::Identity }]);
    Decoder::new(vec![head.unwrap()]).unwrap()
}

/// Q diag(σ) Vᵀ has the eigenvalues σ² and the eigenvectors V: for every d, with repeated values, and with values of 0.
#[test]
fn metrics_with_known_spectra() {
    let mut random = Random(1);
    for d in [1, 2, 3, 4, 5, 8, 16, 17, 33, 64] {
        let (left, right) = (random.orthogonal(d), random.orthogonal(d));
        let singular = |law: fn(usize) -> f64| (0..d).map(law).collect::<Vec<f64>>();
        for singular in [
            singular(|k| 0.7f64.powi(k as i32)),
            singular(|_| 3.0),
            singular(|k| if k < 2 { 2.0 } else { 0.0 }),
            singular(|k| 1.0 / (1.0 + k as f64)),
        ] {
            let weight = left.dot(&Array2::from_diag(&Array1::from(singular.clone()))).dot(&right.t());
            let z = random.array((3, d));
            let spectrum = model::<f64>(&linear(weight.clone())).spectrum(z.view()).unwrap();
            for p in 0..3 {
                check(&spectrum, p, weight.t().dot(&weight).view(), 1e-14 * d as f64);
                for (found, sigma) in spectrum.values.row(p).iter().zip(&singular) {
                    let expected = sigma * sigma;
                    assert!((found - expected).abs() <= 1e-14 * singular[0].powi(2) * d as f64, "{found}, {expected}");
                }
            }
        }
    }
}

/// Small eigenvalues that come of a latent's scale keep all their digits: Jacobi's rotations, but not every method, see them.
#[test]
fn latents_of_very_different_scales() {
    let mut random = Random(2);
    for d in [2, 5, 12] {
        let plain = random.array((20, d));
        for scale in [1e-3, 1e-6] {
            let scales = Array1::from_shape_fn(d, |k| if k % 2 == 0 { 1.0 } else { scale });
            let weight = &plain * &scales;
            let z = Array2::zeros((1, d));
            let found = model::<f64>(&linear(weight.clone())).spectrum(z.view()).unwrap().values;
            // The product of the values is the determinant, of which Cholesky's pivots know every digit.
            let logs: f64 = found.iter().map(|x| x.ln()).sum();
            let expected = model::<f64>(&linear(weight)).log_det(z.view()).unwrap()[0];
            assert!((logs - expected).abs() < 1e-10, "d = {d}, scale {scale}: {logs} instead of {expected}");
        }
    }
}

/// The smaller eigenvalue where the difference in the closed formula would leave none of its digits.
#[test]
fn two_directions_nearly_alike() {
    for gap in [1e-3, 1e-5, 1e-7] {
        // (1, 0) and (1, gap): λ₂ = gap² / λ₁ by the determinant.
        let found = model::<f64>(&linear(array![[1.0, 1.0], [0.0, gap]])).spectrum(array![[0.0, 0.0]].view()).unwrap();
        let (large, small) = (found.values[[0, 0]], found.values[[0, 1]]);
        assert!((small - gap * gap / large).abs() <= 4.0 * f64::EPSILON * large, "{small:e} for {gap:e}");
    }
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn spectra_make_the_metric(plan in plans(), points in 0usize..40) {
        let model = model::<f64>(&plan.decoder());
        let z = Random(plan.seed ^ 1).array((points, plan.latent_dim));
        let spectrum = model.spectrum(z.view()).unwrap();
        prop_assert_eq!(spectrum.values.dim(), z.dim());
        prop_assert_eq!(spectrum.vectors.dim(), (points, plan.latent_dim, plan.latent_dim));
        for (p, metric) in model.metric(z.view()).unwrap().axis_iter(Axis(0)).enumerate() {
            check(&spectrum, p, metric, 1e-13);
        }
    }

    /// A point's spectrum does not depend on those that stand in the lanes beside it, to the bit.
    #[test]
    fn points_are_alone(plan in plans(), points in 1usize..40) {
        let model = model::<f32>(&plan.decoder());
        let mut z = Random(plan.seed ^ 1).array((points, plan.latent_dim)).mapv(|x| x as f32);
        let all = model.spectrum(z.view()).unwrap();
        for p in [0, points / 2, points - 1] {
            let one = model.spectrum(z.slice(s![p..=p, ..])).unwrap();
            prop_assert_eq!(crate::fixtures::bits(&one.values.row(0).to_owned()), crate::fixtures::bits(&all.values.row(p).to_owned()));
            let vectors = |spectrum: &Spectrum<f32>, p| crate::fixtures::bits(&spectrum.vectors.index_axis(Axis(0), p).to_owned());
            prop_assert_eq!(vectors(&one, 0), vectors(&all, p));
        }
        z[[0, 0]] = f32::NAN;
        let poisoned = model.spectrum(z.view()).unwrap();
        prop_assert!(poisoned.values.row(0).iter().chain(poisoned.vectors.index_axis(Axis(0), 0)).all(|x| x.is_nan()));
        prop_assert_eq!(poisoned.values.slice(s![1.., ..]), all.values.slice(s![1.., ..]));
        prop_assert_eq!(poisoned.vectors.slice(s![1.., .., ..]), all.vectors.slice(s![1.., .., ..]));
    }
}

#[test]
fn tiny_and_huge_metrics() {
    let weight = Random(3).array((30, 6));
    let z = Array2::zeros((1, 6));
    let plain = model::<f64>(&linear(weight.clone())).spectrum(z.view()).unwrap();
    for power in [-18, -15, 15, 18] {
        let scale = 10f64.powi(power);
        let found = model::<f32>(&linear(&weight * scale)).spectrum(cast(&z).view()).unwrap();
        for (found, expected) in found.values.iter().zip(&plain.values) {
            let expected = expected * scale * scale;
            assert!(gap(f64::from(*found), expected) < 1e-4, "{found:e} instead of {expected:e}");
        }
    }
}

/// Values of metrics 9, 4, 1 and 0.
fn known() -> (Spectrum<f64>, Array2<f64>) {
    let weight = Random(4).orthogonal(4).dot(&Array2::from_diag(&array![1.0, 3.0, 0.0, 2.0]));
    let spectrum = model::<f64>(&linear(weight.clone())).spectrum(Array2::zeros((1, 4)).view()).unwrap();
    (spectrum, weight)
}

#[test]
fn counts_and_conditions() {
    let (spectrum, _) = known();
    for (threshold, rank) in [(1e-12, 3), (0.1, 3), (0.12, 2), (0.4, 2), (0.45, 1), (0.99, 1)] {
        assert_eq!(spectrum.effective_rank(threshold).unwrap(), array![rank], "{threshold}");
    }
    let ratio = spectrum.intrinsic_dimension()[0];
    assert!(gap(ratio, 14.0 * 14.0 / 98.0) < 1e-12, "{ratio}");
    let cylinder = model::<f64>(&Decoder::cylinder(3.0)).spectrum(array![[0.3, 0.4]].view()).unwrap();
    assert!(gap(cylinder.condition()[0], 3.0) < 1e-12);
    assert!(gap(cylinder.intrinsic_dimension()[0], 100.0 / 82.0) < 1e-12);
    let pole = model::<f64>(&Decoder::sphere(3.0)).spectrum(array![[0.0, 0.4], [f64::NAN, 0.0]].view()).unwrap();
    assert!(pole.condition()[0] > 1e12 && pole.condition()[1].is_nan(), "{}", pole.condition());
    let flat = model::<f64>(&linear(array![[1.0, 0.0], [2.0, 0.0]])).spectrum(array![[0.0, 0.0]].view()).unwrap();
    assert_eq!(flat.condition()[0], f64::INFINITY);
    assert_eq!(pole.effective_rank(1e-9).unwrap(), array![1, 0]);
    assert!(pole.intrinsic_dimension()[0] == 1.0 && pole.intrinsic_dimension()[1].is_nan());
}

#[test]
fn weak_directions_are_removed() {
    let (spectrum, weight) = known();
    let model = model::<f64>(&linear(weight.clone()));
    let z = Array2::zeros((1, 4));
    for (threshold, rank) in [(0.01, 3), (0.2, 2), (0.5, 1)] {
        let (metric, ranks) = model.truncated_metric(z.view(), threshold).unwrap();
        let metric = metric.index_axis(Axis(0), 0).to_owned();
        assert_eq!(ranks, array![rank]);
        let expected = rebuilt(spectrum.values.row(0), spectrum.vectors.index_axis(Axis(0), 0), rank);
        assert!(norm((&metric - &expected).view()) < 1e-13, "{metric} instead of {expected}");
        assert_eq!(metric, metric.t());
    }
    // Where all directions are strong enough nothing is changed.
    let golden = golden("digits-d2-tanh");
    let model = crate::fixtures::model::<f32>(&decoder("digits-d2-tanh"));
    let z = cast(&golden.points);
    let (metrics, ranks) = model.truncated_metric(z.view(), 0.0).unwrap();
    assert_eq!(metrics, model.metric(z.view()).unwrap());
    assert!(ranks.iter().all(|&r| r == 2));
}

#[test]
fn nothing_comes_of_nothing() {
    let none = Array2::zeros((0, 2));
    let model = model::<f64>(&Decoder::sphere(1.0));
    let spectrum = model.spectrum(none.view()).unwrap();
    assert_eq!(spectrum.condition().len() + spectrum.effective_rank(0.5).unwrap().len(), 0);
    assert_eq!(spectrum.vectors.dim(), (0, 2, 2));
    assert_eq!(model.truncated_metric(none.view(), 0.5).unwrap().0.dim(), (0, 2, 2));
}

#[test]
fn refusals() {
    let model = model::<f64>(&Decoder::sphere(1.0));
    let z = array![[0.5, 0.0]];
    let spectrum = model.spectrum(z.view()).unwrap();
    for (threshold, found) in [(1.0, "1"), (-0.1, "-0.1"), (f64::NAN, "NaN")] {
        let message = format!("threshold: expected a number from 0 to 1, without 1, found {found}");
        assert_eq!(spectrum.effective_rank(threshold).unwrap_err().to_string(), message);
        assert_eq!(model.truncated_metric(z.view(), threshold).unwrap_err().to_string(), message);
    }
    let wide = Array2::zeros((4, 3));
    let latents = "latents: expected latents of dimension 2, the decoder's, found 3";
    assert_eq!(model.spectrum(wide.view()).unwrap_err().to_string(), latents);
    assert_eq!(model.truncated_metric(wide.view(), 0.5).unwrap_err().to_string(), latents);
}

/// The kernels of the CUDA path, whose spectra are to make the metrics that come from the same device.
#[cfg(feature = "emulator")]
mod kernel {
    use super::{check, linear, rebuilt};
    use crate::fixtures::{Random, bits, cases, kernels, kinds, norm, plans, widen};
    use ndarray::{Array1, Array2, Axis, s};
    use proptest::prelude::*;
    use pullback::{Activation, Decoder, Device, EmulatorOptions, Precision};

    const THRESHOLD: f64 = 0.1;

    fn agrees(device: &Device, decoder: &Decoder, points: usize, seed: u64) {
        let z = Random(seed).array((points, decoder.latent_dim())).mapv(|x| x as f32);
        let model = device.load(decoder).unwrap();
        let (spectrum, metrics) = (model.spectrum(z.view()).unwrap(), model.metric(z.view()).unwrap());
        let d = decoder.latent_dim();
        assert_eq!(spectrum.values.dim(), (points, d));
        assert_eq!(spectrum.vectors.dim(), (points, d, d));
        let (truncated, ranks) = model.truncated_metric(z.view(), THRESHOLD).unwrap();
        assert_eq!(ranks, spectrum.effective_rank(THRESHOLD).unwrap());
        let tolerance = 4.0 * kernels::EPSILON * (d as f64).sqrt();
        for (p, &rank) in ranks.iter().enumerate() {
            let metric = metrics.index_axis(Axis(0), p);
            check(&spectrum, p, widen(&metric.to_owned()).view(), tolerance);
            let truncated = truncated.index_axis(Axis(0), p);
            assert_eq!(truncated, truncated.t());
            if rank == d {
                assert_eq!(truncated, metric);
            }
            let (values, vectors) = (widen(&spectrum.values), widen(&spectrum.vectors));
            let expected = rebuilt(values.row(p), vectors.index_axis(Axis(0), p), rank);
            let error = norm((&widen(&truncated.to_owned()) - &expected).view());
            assert!(error <= tolerance * values[[p, 0]] * d as f64, "{truncated} instead of {expected}");
        }
    }

    proptest! {
        #![proptest_config(cases(60))]

        #[test]
        fn spectra_make_the_metrics(plan in plans(), points in 0usize..40) {
            agrees(&kernels::device(), &plan.decoder(), points, plan.seed ^ 1);
        }
    }

    /// From 32 to 256 threads; 170 are more than a block has shared memory for, and go to the processor.
    #[test]
    fn any_number_of_latents() {
        for d in [1, 2, 3, 4, 5, 8, 9, 17, 33, 64, 65, 100, 170] {
            let decoder = Random(3).decoder(&[d, 40, 120], Activation::Softplus, Activation::Identity);
            agrees(&kernels::device(), &decoder, 3, 4);
        }
    }

    #[test]
    fn small_spectra_of_every_kind() {
        for (kind, decoder) in kinds() {
            eprintln!("{kind}");
            agrees(&kernels::careful_device(), &decoder, 5, 9);
        }
    }

    #[test]
    fn small_spectra() {
        for d in [1, 2, 3, 5, 8, 16, 33] {
            let decoder = Random(7).decoder(&[d, 9, 35], Activation::Tanh, Activation::Identity);
            agrees(&kernels::careful_device(), &decoder, 3, 8);
        }
    }

    /// A value of every multiplicity, a value of 0 and a latent that does nothing.
    #[test]
    fn small_metrics_with_known_spectra() {
        let mut random = Random(1);
        let device = kernels::careful_device();
        for d in [1, 2, 3, 5, 8, 16, 17] {
            let (left, right) = (random.orthogonal(d), random.orthogonal(d));
            let singular = |law: fn(usize) -> f64| (0..d).map(law).collect::<Vec<f64>>();
            for singular in [
                singular(|_| 3.0),
                singular(|k| if k < 2 { 2.0 } else { 0.0 }),
                singular(|k| 1.0 / (1.0 + (k / 2) as f64)),
                singular(|k| 1e-12 * 0.8f64.powi(k as i32)),
            ] {
                let scaled = Array2::from_diag(&Array1::from(singular.clone()));
                let mut weight = left.dot(&scaled).dot(&right.t());
                let decoder = linear(weight.clone());
                agrees(&device, &decoder, 2, 5);
                let z = Array2::zeros((1, d));
                let found = device.load(&decoder).unwrap().spectrum(z.view()).unwrap().values;
                for (found, sigma) in found.iter().zip(&singular) {
                    let bound = 16.0 * kernels::EPSILON * singular[0].powi(2) * d as f64;
                    assert!((f64::from(*found) - sigma * sigma).abs() <= bound, "{found:e} instead of {sigma:e}²");
                }
                weight.column_mut(d / 2).fill(0.0);
                let decoder = linear(weight);
                agrees(&device, &decoder, 2, 5);
                let found = device.load(&decoder).unwrap().spectrum(z.view()).unwrap();
                assert_eq!(found.values[[0, d - 1]], 0.0);
            }
        }
    }

    /// Many chunks of points give what one gives, and metrics on tensor cores leave room for what is made of them.
    #[test]
    fn little_memory_changes_nothing() {
        let decoder = Random(5).decoder(&[5, 20, 40], Activation::Tanh, Activation::Identity);
        let z = Random(6).array((2000, 5)).mapv(|x| x as f32);
        for precision in [Precision::Float32, Precision::Tf32x3] {
            let load = |memory| {
                let options = EmulatorOptions { memory, multiprocessors: 1, ..EmulatorOptions::default() };
                kernels::emulator(&options).load_with(&decoder, precision).unwrap()
            };
            let (plenty, little) = (load(1 << 30), load(1 << 20));
            assert_eq!((plenty.precision(), little.precision()), (precision, precision));
            let (expected, found) = (plenty.spectrum(z.view()).unwrap(), little.spectrum(z.view()).unwrap());
            assert_eq!(bits(&found.values), bits(&expected.values));
            assert_eq!(bits(&found.vectors), bits(&expected.vectors));
            for (p, metric) in plenty.metric(z.view()).unwrap().axis_iter(Axis(0)).enumerate() {
                check(&found, p, widen(&metric.to_owned()).view(), 8.0 * kernels::EPSILON);
            }
            assert_eq!(
                little.truncated_metric(z.view(), THRESHOLD).unwrap(),
                plenty.truncated_metric(z.view(), THRESHOLD).unwrap()
            );
            let determinants = |model: &pullback::Model| bits(&model.log_det(z.view()).unwrap());
            assert_eq!(determinants(&little), determinants(&plenty));
        }
    }

    /// A point's spectrum does not depend on others, to the bit, and a NaN does not spread.
    #[test]
    fn small_points_are_alone() {
        for d in [2, 5] {
            let decoder = Random(7).decoder(&[d, 9, 35], Activation::Sigmoid, Activation::Identity);
            let model = kernels::careful_device().load(&decoder).unwrap();
            let mut z = Random(8).array((7, d)).mapv(|x| x as f32);
            let all = model.spectrum(z.view()).unwrap();
            for p in [0, 3, 6] {
                let one = model.spectrum(z.slice(s![p..=p, ..])).unwrap();
                assert_eq!(bits(&one.values), bits(&all.values.slice(s![p..=p, ..]).to_owned()));
                assert_eq!(bits(&one.vectors), bits(&all.vectors.slice(s![p..=p, .., ..]).to_owned()));
            }
            (z[[0, 0]], z[[1, d - 1]]) = (f32::NAN, f32::INFINITY);
            let poisoned = model.spectrum(z.view()).unwrap();
            let (truncated, ranks) = model.truncated_metric(z.view(), THRESHOLD).unwrap();
            for p in 0..2 {
                assert!(poisoned.values.row(p).iter().all(|x| x.is_nan()));
                assert!(poisoned.vectors.index_axis(Axis(0), p).iter().all(|x| x.is_nan()));
                assert!(truncated.index_axis(Axis(0), p).iter().all(|x| x.is_nan()));
                assert_eq!(ranks[p], 0);
            }
            assert_eq!(poisoned.values.slice(s![2.., ..]), all.values.slice(s![2.., ..]));
            assert_eq!(poisoned.vectors.slice(s![2.., .., ..]), all.vectors.slice(s![2.., .., ..]));
        }
    }
}
