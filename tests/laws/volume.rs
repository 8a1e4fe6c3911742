//! Volumes √det G and their logarithms.

use std::f64::consts::PI;

use crate::fixtures::{NAMES, Random, cases, cast, decoder, gap, golden, model, plans};
use ndarray::{Array2, Axis, array};
use proptest::prelude::*;
use pullback::{Activation, Decoder, Head, Scalar};

/// log det by elimination with pivots, another way than the crate's.
fn log_det(matrix: ndarray::ArrayView2<'_, f64>) -> f64 {
    let mut a = matrix.to_owned();
    let (n, mut sum) = (a.nrows(), 0.0);
    for k in 0..n {
        let largest = (k..n).max_by(|&i, &j| a[[i, k]].abs().total_cmp(&a[[j, k]].abs())).unwrap();
        for j in 0..n {
            a.swap([k, j], [largest, j]);
        }
        sum += a[[k, k]].abs().ln();
        for i in k + 1..n {
            let share = a[[i, k]] / a[[k, k]];
            for j in k..n {
                a[[i, j]] -= share * a[[k, j]];
            }
        }
    }
    sum
}

fn golden_volumes<T: Scalar>(tolerance: f64) {
    for name in NAMES {
        let golden = golden(name);
        let (model, z) = (model::<T>(&decoder(name)), cast(&golden.points));
        let found = model.log_volume(z.view()).unwrap();
        let (determinants, volumes) = (model.log_det(z.view()).unwrap(), model.volume(z.view()).unwrap());
        for (p, metric) in golden.metrics.axis_iter(Axis(0)).enumerate() {
            let expected = 0.5 * log_det(metric);
            let (half, volume) = (0.5 * determinants[p].to_f64(), volumes[p].to_f64());
            let bound = tolerance * (1.0 + expected.abs());
            assert!((found[p].to_f64() - expected).abs() <= bound, "{name}: {} instead of {expected}", found[p]);
            assert!((half - expected).abs() <= bound, "{name}: {half} instead of {expected}");
            assert!(gap(volume, expected.exp()) <= bound, "{name}: {volume} instead of {}", expected.exp());
        }
    }
}

#[test]
fn golden_volumes_in_float64() {
    golden_volumes::<f64>(1e-10);
}

#[test]
fn golden_volumes_in_float32() {
    golden_volumes::<f32>(1e-3); // a metric's relative error of 10⁻⁶ is as much of its smallest eigenvalue as its condition
}

/// The weights of the last layer times a number.
fn scaled(decoder: &Decoder, by: f64) -> Decoder {
    let scale = |head: &Head| {
        let mut layers = head.layers().to_vec();
        let last = layers.last_mut().unwrap();
        last.weight *= by;
        Head::new(head.name(), layers).unwrap()
    };
    Decoder::new(decoder.heads().iter().map(scale).collect()).unwrap()
}

/// det (s² G) = s^2d det G, where neither is a number that a float holds: 10^±1920 for d = 64.
fn scales<T: Scalar>(tolerance: f64) {
    for d in [2, 8, 64] {
        let plain = Random(1).decoder(&[d, 100, 120], Activation::Tanh, Activation::Identity);
        let z = Random(2).array((5, d)) * 0.3;
        let expected = model::<f64>(&plain).log_volume(z.view()).unwrap();
        for power in [-15, 0, 15] {
            let model = model::<T>(&scaled(&plain, 10f64.powi(power)));
            let found = model.log_volume(cast(&z).view()).unwrap();
            for (found, expected) in found.iter().zip(&expected) {
                let expected = expected + d as f64 * f64::from(power) * 10f64.ln();
                assert!((found.to_f64() - expected).abs() <= tolerance * d as f64, "{found} instead of {expected}");
            }
        }
    }
}

#[test]
fn scaled_metrics_neither_overflow_nor_underflow_in_float64() {
    scales::<f64>(1e-11);
}

#[test]
fn scaled_metrics_neither_overflow_nor_underflow_in_float32() {
    scales::<f32>(1e-3);
}

/// One latent of another scale changes no other: the test of singularity does not see it.
#[test]
fn latents_of_very_different_scales() {
    let sphere = Decoder::sphere(1.0);
    let mut layers = sphere.heads()[0].layers().to_vec();
    layers[0].weight.column_mut(1).mapv_inplace(|w| w * 1e-12);
    let stretched = model::<f64>(&Decoder::new(vec![Head::new("sphere", layers).unwrap()]).unwrap());
    let found = stretched.log_volume(array![[0.5, 1e12]].view()).unwrap()[0];
    assert!((found - (0.5f64.sin() * 1e-12).ln()).abs() < 1e-10, "{found}");
}

#[test]
fn closed_forms() {
    let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found} instead of {expected}");
    for theta in [1e-3, 0.3, PI / 2.0, 3.0] {
        near(
            model::<f64>(&Decoder::sphere(2.0)).log_volume(array![[theta, 0.4]].view()).unwrap()[0],
            (4.0 * theta.sin()).ln(),
        );
    }
    near(model::<f64>(&Decoder::torus(2.0, 0.5)).log_det(array![[0.4, PI]].view()).unwrap()[0], 2.0 * 0.75f64.ln());
    near(model::<f64>(&Decoder::circle(3.0)).log_volume(array![[0.4]].view()).unwrap()[0], 3f64.ln());
}

/// −∞ at a sphere's pole, where fewer outputs than latents are, and where latents enter only by their sum.
#[test]
fn singular_metrics() {
    let minus = f64::NEG_INFINITY;
    let pole = model::<f64>(&Decoder::sphere(1.0)).log_volume(array![[0.0, 0.7], [1.0, 0.7]].view()).unwrap();
    assert!(pole[0] == minus && pole[1].is_finite(), "{pole}");
    let mut alike = Random(4).head("alike", &[3, 30, 20], Activation::Tanh, Activation::Identity).layers().to_vec();
    let column = alike[0].weight.column(0).to_owned() * 0.3;
    alike[0].weight.column_mut(2).assign(&column);
    let alike = Decoder::new(vec![Head::new("alike", alike).unwrap()]).unwrap();
    let narrow = Random(5).decoder(&[3, 20, 2], Activation::Tanh, Activation::Identity);
    for decoder in [alike, narrow] {
        let z = Random(6).array((50, 3));
        assert_eq!(model::<f64>(&decoder).log_volume(z.view()).unwrap(), ndarray::Array1::from_elem(50, minus));
        assert_eq!(model::<f64>(&decoder).volume(z.view()).unwrap().sum(), 0.0);
        let rounded = model::<f32>(&decoder).log_det(cast(&z).view()).unwrap();
        assert!(rounded.iter().all(|&x| x == f32::NEG_INFINITY), "{rounded}");
    }
}

proptest! {
    #![proptest_config(cases(100))]

    /// The volumes of all points together are those of each alone, and of a NaN's neighbours.
    #[test]
    fn points_are_alone(plan in plans(), points in 0usize..6) {
        let model = model::<f64>(&plan.decoder());
        let mut z = Random(plan.seed ^ 1).array((points, plan.latent_dim));
        let all = model.log_volume(z.view()).unwrap();
        prop_assert_eq!(all.len(), points);
        for (p, row) in z.axis_chunks_iter(Axis(0), 1).enumerate() {
            prop_assert_eq!(model.log_volume(row).unwrap()[0].to_bits(), all[p].to_bits());
        }
        if points > 0 {
            z[[0, 0]] = f64::INFINITY;
            let poisoned = model.log_volume(z.view()).unwrap();
            prop_assert!(poisoned[0].is_nan());
            prop_assert_eq!(poisoned.as_slice().unwrap()[1..].to_vec(), all.as_slice().unwrap()[1..].to_vec());
        }
    }
}

#[test]
fn refusals() {
    let model = model::<f64>(&Decoder::sphere(1.0));
    let z = Array2::zeros((4, 3));
    let latents = "latents: expected latents of dimension 2, the decoder's, found 3";
    for result in [model.volume(z.view()), model.log_volume(z.view()), model.log_det(z.view())] {
        assert_eq!(result.unwrap_err().to_string(), latents);
    }
}

/// The kernels of the CUDA path against float64 on the processor.
#[cfg(feature = "emulator")]
mod kernel {
    use super::{log_det, scaled};
    use crate::fixtures::{Random, cases, kernels, kinds, plans, widen};
    use ndarray::{Array1, Axis};
    use proptest::prelude::*;
    use pullback::{Activation, Decoder, Device, Head};

    /// An error of ε in C is one of ε / λ_min in its determinant's logarithm.
    fn agrees(device: &Device, decoder: &Decoder, points: usize, seed: u64) -> Result<(), TestCaseError> {
        let d = decoder.latent_dim();
        let z = Random(seed).array((points, d)).mapv(|x| x as f32);
        let model = device.load(decoder).unwrap();
        let (found, metrics) = (model.log_det(z.view()).unwrap(), widen(&model.metric(z.view()).unwrap()));
        prop_assert_eq!(found.len(), points);
        let halves = found.mapv(|x| 0.5 * x);
        prop_assert_eq!(model.log_volume(z.view()).unwrap(), halves);
        for (&found, metric) in found.iter().zip(metrics.axis_iter(Axis(0))) {
            let scale = metric.diag().mapv(f64::sqrt);
            let correlation = &metric / &scale.view().insert_axis(Axis(1)) / &scale;
            let rounding = 8.0 * kernels::EPSILON * d as f64;
            // λ_min, at least: the product of the others, whose sum is less than d, is less than e.
            let least = log_det(correlation.view()).exp() / 3.0;
            let longest = scale.iter().copied().fold(0.0, f64::max);
            let is_short = scale.iter().any(|&x| x <= 8.0 * kernels::EPSILON * longest);
            if found == f32::NEG_INFINITY {
                prop_assert!(is_short || least <= rounding, "{} is not singular", metric);
            } else if least > 8.0 * rounding {
                let expected = log_det(metric);
                let bound = d as f64 * rounding / least + kernels::EPSILON * expected.abs();
                let error = (f64::from(found) - expected).abs();
                prop_assert!(error <= bound, "{found} instead of {expected} for {metric}");
            }
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(cases(60))]

        #[test]
        fn determinants_are_those_of_the_metrics(plan in plans(), points in 0usize..40) {
            agrees(&kernels::device(), &plan.decoder(), points, plan.seed ^ 1)?;
        }
    }

    #[test]
    fn small_determinants_of_every_kind() {
        for (kind, decoder) in kinds() {
            agrees(&kernels::careful_device(), &decoder, 5, 9).unwrap_or_else(|error| panic!("{kind}: {error}"));
        }
    }

    /// Far outside of what a float holds, too.
    #[test]
    fn small_determinants() {
        for d in [1, 2, 3, 5, 8, 16, 33] {
            let plain = Random(1).decoder(&[d, 60, 120], Activation::Tanh, Activation::Identity);
            let z = Random(2).array((3, d)) * 0.3;
            let expected = crate::fixtures::model::<f64>(&plain).log_det(z.view()).unwrap();
            for power in [-15, 0, 15] {
                let model = kernels::careful_device().load(&scaled(&plain, 10f64.powi(power))).unwrap();
                let found = model.log_det(z.mapv(|x| x as f32).view()).unwrap();
                for (found, expected) in found.iter().zip(&expected) {
                    let expected = expected + 2.0 * d as f64 * f64::from(power) * 10f64.ln();
                    assert!((f64::from(*found) - expected).abs() <= 1e-3 * d as f64, "{found} instead of {expected}");
                }
            }
        }
    }

    /// −∞ for a latent that does nothing, for one that does what another does and for fewer outputs than latents; NaN for a latent that is
    /// not finite, beside others that are.
    #[test]
    fn small_singular_metrics() {
        let head = Random(4).head("alike", &[3, 30, 20], Activation::Sigmoid, Activation::Identity);
        let with_column = |factor: f64| {
            let mut layers = head.layers().to_vec();
            let column = layers[0].weight.column(0).to_owned() * factor;
            layers[0].weight.column_mut(2).assign(&column);
            Decoder::new(vec![Head::new("alike", layers).unwrap()]).unwrap()
        };
        let narrow = Random(5).decoder(&[5, 20, 2], Activation::Tanh, Activation::Identity);
        for decoder in [with_column(0.0), with_column(0.3), narrow] {
            let z = Random(6).array((9, decoder.latent_dim())).mapv(|x| x as f32);
            let found = kernels::careful_device().load(&decoder).unwrap().log_det(z.view()).unwrap();
            assert_eq!(found, Array1::from_elem(9, f32::NEG_INFINITY));
        }
        let model = kernels::careful_device().load(&Decoder::new(vec![head]).unwrap()).unwrap();
        let mut z = Random(6).array((5, 3)).mapv(|x| x as f32);
        let all = model.log_det(z.view()).unwrap();
        (z[[0, 0]], z[[3, 2]]) = (f32::INFINITY, f32::NAN);
        let poisoned = model.log_det(z.view()).unwrap();
        for (p, (found, expected)) in poisoned.iter().zip(&all).enumerate() {
            assert!(if p == 0 || p == 3 { found.is_nan() } else { found == expected }, "{poisoned}");
        }
    }
}
