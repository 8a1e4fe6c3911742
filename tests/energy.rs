//! Chord energies and lengths, second derivatives weighted by adjoints, and the energy's gradient.

mod fixtures;

use fixtures::{NAMES, Random, cases, cast, decoder, gap, golden, model, norm, plans, worst_error};
use ndarray::{Array2, Array3, Axis, s};
use proptest::prelude::*;
use pullback::{Decoder, Error, Model, Options, Scalar};

#[test]
fn golden_curves_have_the_golden_energy_and_length() {
    for name in NAMES {
        let golden = golden(name);
        let found = model::<f64>(&decoder(name)).energy(golden.best_curves.view()).unwrap();
        for c in 0..golden.best_energy.len() {
            assert!(gap(found.energy[c], golden.best_energy[c]) <= 1e-10, "{name}, energy of curve {c}");
            assert!(gap(found.length[c], golden.best_length[c]) <= 1e-10, "{name}, length of curve {c}");
        }
    }
}

#[test]
fn straight_lines_have_the_golden_energy() {
    for name in NAMES {
        let golden = golden(name);
        let (count, d) = golden.starts.dim();
        let lines = Array3::from_shape_fn((count, 33, d), |(c, i, k)| {
            let (a, b) = (golden.starts[[c, k]], golden.ends[[c, k]]);
            a + (b - a) * (i as f64 / 32.0)
        });
        let found = model::<f64>(&decoder(name)).energy(lines.view()).unwrap();
        for (found, expected) in found.energy.iter().zip(&golden.straight_energy) {
            assert!(gap(*found, *expected) <= 1e-10, "{name}: {found} instead of {expected}");
        }
    }
}

fn golden_adjoint_hessians<T: Scalar>(tolerance: f64) {
    for name in NAMES {
        let golden = golden(name);
        let (points, adjoints) = (cast(&golden.points), cast(&golden.adjoints));
        let found = model::<T>(&decoder(name)).adjoint_hessian(points.view(), adjoints.view()).unwrap();
        let error = worst_error(&found, &golden.adjoint_hessians);
        assert!(error <= tolerance, "{name}: relative error {error:e}");
    }
}

#[test]
fn golden_adjoint_hessians_in_float64() {
    golden_adjoint_hessians::<f64>(1e-10);
}

#[test]
fn golden_adjoint_hessians_in_float32() {
    golden_adjoint_hessians::<f32>(1e-5);
}

/// Both sums as the definition says them.
fn by_definition(model: &Model<f64>, curve: Array2<f64>) -> (f64, f64) {
    let values = model.decode(curve.view()).unwrap();
    let segments = curve.nrows() - 1;
    let chords: Vec<f64> = (0..segments).map(|i| norm((&values.row(i + 1) - &values.row(i)).view())).collect();
    (0.5 * segments as f64 * chords.iter().map(|c| c * c).sum::<f64>(), chords.iter().sum())
}

/// ‖∇E‖ over the inner points by central differences of the energy.
fn gradient_norm(model: &Model<f64>, curve: &Array2<f64>) -> f64 {
    const H: f64 = 1e-5;
    let (points, d) = curve.dim();
    let mut curves = Array3::zeros((2 * (points - 2) * d, points, d));
    for (k, mut moved) in curves.axis_iter_mut(Axis(0)).enumerate() {
        moved.assign(curve);
        moved[[1 + k / 2 / d, k / 2 % d]] += if k % 2 == 0 { H } else { -H };
    }
    let energies = model.energy(curves.view()).unwrap().energy;
    let slopes: Vec<f64> = energies.as_slice().unwrap().chunks(2).map(|e| (e[0] - e[1]) / (2.0 * H)).collect();
    slopes.iter().map(|s| s * s).sum::<f64>().sqrt()
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn energies_are_sums_over_chords(plan in plans(), segments in 1usize..12) {
        let model = model::<f64>(&plan.decoder());
        let curves = Random(plan.seed ^ 1).array((3, segments + 1, plan.latent_dim));
        let found = model.energy(curves.view()).unwrap();
        for (c, curve) in curves.axis_iter(Axis(0)).enumerate() {
            let (energy, length) = by_definition(&model, curve.to_owned());
            prop_assert!((found.energy[c] - energy).abs() <= 1e-12 * (1.0 + energy), "energy {}, not {energy}", found.energy[c]);
            prop_assert!((found.length[c] - length).abs() <= 1e-12 * (1.0 + length), "length {}, not {length}", found.length[c]);
            // L² ≤ 2E, by Cauchy and Schwarz.
            prop_assert!(found.length[c].powi(2) <= 2.0 * found.energy[c] * (1.0 + 1e-12));
        }
    }

    /// Σ_k w_k ∂²f_k/∂z_a ∂z_b by central differences of the Jacobian, with h = 10⁻⁵.
    #[test]
    fn adjoint_hessians_are_the_slopes_of_the_jacobian(plan in plans()) {
        const H: f64 = 1e-5;
        let (decoder, d) = (plan.decoder(), plan.latent_dim);
        let model = model::<f64>(&decoder);
        let mut random = Random(plan.seed ^ 1);
        let z = random.array((1, d));
        let w = random.array((1, decoder.data_dim()));
        let found = model.adjoint_hessian(z.view(), w.view()).unwrap();
        for a in 0..d {
            let pulled = |h: f64| {
                let mut z = z.clone();
                z[[0, a]] += h;
                model.jacobian(z.view()).unwrap().index_axis(Axis(0), 0).dot(&w.row(0))
            };
            let slopes = (pulled(H) - pulled(-H)) / (2.0 * H);
            let error = norm((&found.slice(s![0, a, ..]) - &slopes).view());
            prop_assert!(error <= 1e-7 * (1.0 + norm(w.view()) + norm(slopes.view())), "row {a}: error {error:e}");
        }
    }

    /// The reported ‖∇E‖ is that of the reported curve, wherever the solver stops.
    #[test]
    fn the_reported_gradient_is_that_of_the_energy(plan in plans(), segments in 2usize..9, most in 1u32..3) {
        let model = model::<f64>(&plan.decoder());
        let initial = Random(plan.seed ^ 1).array((2, segments + 1, plan.latent_dim));
        let options = Options { segments, max_iterations: most, ..Options::default() };
        let found = model.geodesics_from(initial.view(), &options).unwrap();
        for c in 0..2 {
            let curve = found.curves.index_axis(Axis(0), c).to_owned();
            let expected = gradient_norm(&model, &curve);
            let error = (found.gradient_norm[c] - expected).abs();
            prop_assert!(error <= 1e-6 * (1.0 + expected + found.energy[c]), "{}, not {expected}", found.gradient_norm[c]);
        }
    }
}

#[test]
fn no_curves_have_no_energies() {
    let found = model::<f32>(&Decoder::sphere(1.0)).energy(Array3::zeros((0, 5, 2)).view()).unwrap();
    assert_eq!((found.energy.len(), found.length.len()), (0, 0));
}

#[test]
fn curves_of_another_shape_are_refused() {
    let model = model::<f32>(&Decoder::sphere(1.0));
    let message = |shape| model.energy(Array3::zeros(shape).view()).map_err(|e: Error| e.to_string()).unwrap_err();
    assert_eq!(message((1, 5, 3)), "curves: expected latents of dimension 2, the decoder's, found 3");
    assert_eq!(message((1, 1, 2)), "curves: expected at least 2 points each, found 1");
}
