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
