//! Chord energies and lengths, second derivatives weighted by adjoints, and the energy's gradient.

use crate::fixtures::{NAMES, Random, cases, cast, decoder, gap, golden, model, norm, plans, worst_error};
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

/// The kernels of the CUDA path against float64 on the processor.
#[cfg(feature = "emulator")]
mod kernel {
    use crate::fixtures::{Random, cases, kernels, kinds, model, norm, plans, widen};
    use ndarray::Axis;
    use proptest::prelude::*;
    use pullback::{Activation, Decoder, Device};

    fn energies_agree(
        device: &Device,
        decoder: &Decoder,
        count: usize,
        points: usize,
        seed: u64,
    ) -> Result<(), TestCaseError> {
        let curves = Random(seed).array((count, points, decoder.latent_dim())).mapv(|x| x as f32);
        let found = device.load(decoder).unwrap().energy(curves.view()).unwrap();
        let expected = model::<f64>(decoder).energy(widen(&curves).view()).unwrap();
        prop_assert_eq!(found.energy.len(), count);
        let segments = (points - 1) as f64;
        for c in 0..count {
            // An error of e in every value changes ½N Σ ‖Δ‖² by N e Σ ‖Δ‖, and N e² where chords vanish.
            let e = 8.0 * kernels::rounding(decoder) * (1.0 + expected.length[c]);
            let bounds = [segments * e * (expected.length[c] + segments * e), segments * e];
            let errors =
                [f64::from(found.energy[c]) - expected.energy[c], f64::from(found.length[c]) - expected.length[c]];
            for (error, bound) in errors.iter().zip(bounds) {
                prop_assert!(error.abs() <= bound, "curve {c}: error {error:e}, bound {bound:e}");
            }
        }
        Ok(())
    }

    fn hessians_agree(device: &Device, decoder: &Decoder, points: usize, seed: u64) -> Result<(), TestCaseError> {
        let mut random = Random(seed);
        let z = random.array((points, decoder.latent_dim())).mapv(|x| x as f32);
        let w = random.array((points, decoder.data_dim())).mapv(|x| x as f32);
        let found = device.load(decoder).unwrap().adjoint_hessian(z.view(), w.view()).unwrap();
        let reference = model::<f64>(decoder);
        let (z, w) = (widen(&z), widen(&w));
        let (expected, jacobians) =
            (reference.adjoint_hessian(z.view(), w.view()).unwrap(), reference.jacobian(z.view()).unwrap());
        prop_assert_eq!(found.dim(), expected.dim());
        for (p, block) in found.axis_iter(Axis(0)).enumerate() {
            let expected = expected.index_axis(Axis(0), p);
            let error = norm((&block.mapv(f64::from) - &expected).view());
            let size = (1.0 + norm(jacobians.index_axis(Axis(0), p))) * (1.0 + norm(w.index_axis(Axis(0), p)));
            let bound = 64.0 * kernels::rounding(decoder) * (size * size + norm(expected));
            prop_assert!(error <= bound, "error {error:e}, bound {bound:e}: {block} instead of {expected}");
            prop_assert_eq!(block, block.t());
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(cases(100))]

        #[test]
        fn energies_are_the_references(plan in plans(), count in 0usize..12, points in 2usize..40) {
            energies_agree(&kernels::device(), &plan.decoder(), count, points, plan.seed ^ 1)?;
        }

        #[test]
        fn adjoint_hessians_are_the_references(plan in plans(), points in 0usize..60) {
            hessians_agree(&kernels::device(), &plan.decoder(), points, plan.seed ^ 1)?;
        }
    }

    #[test]
    fn any_number_of_latents() {
        for d in [1, 2, 8, 17, 64, 100] {
            let decoder = Random(3).decoder(&[d, 40, 70], Activation::Gelu, Activation::Tanh);
            hessians_agree(&kernels::device(), &decoder, 5, 4).unwrap();
        }
    }

    #[test]
    fn small_energies_and_adjoint_hessians_of_every_kind() {
        for (kind, decoder) in kinds() {
            let device = kernels::careful_device();
            for (count, points) in [(2, 4), (3, 2)] {
                energies_agree(&device, &decoder, count, points, 8).unwrap_or_else(|error| panic!("{kind}: {error}"));
            }
            hessians_agree(&device, &decoder, 3, 8).unwrap_or_else(|error| panic!("{kind}: {error}"));
        }
    }

    #[test]
    fn small_energies_and_adjoint_hessians() {
        for widths in [&[3, 4][..], &[9, 5, 1], &[1, 3, 6, 2], &[2, 64, 64, 64]] {
            let decoder = Random(7).decoder(widths, Activation::Tanh, Activation::Identity);
            energies_agree(&kernels::careful_device(), &decoder, 2, 3, 8).unwrap();
            energies_agree(&kernels::careful_device(), &decoder, 3, 2, 8).unwrap();
            hessians_agree(&kernels::careful_device(), &decoder, 3, 8).unwrap();
        }
    }
}
