//! The pullback metric G = JᵀJ and the volume √det G.

use crate::fixtures::{NAMES, Random, cases, cast, decoder, golden, model, norm, plans, worst_error};
use ndarray::{Axis, s};
use proptest::prelude::*;
use pullback::Scalar;

fn golden_metrics<T: Scalar>(tolerance: f64) {
    for name in NAMES {
        let golden = golden(name);
        let found = model::<T>(&decoder(name)).metric(cast(&golden.points).view()).unwrap();
        let error = worst_error(&found, &golden.metrics);
        assert!(error <= tolerance, "{name}: relative error {error:e}");
    }
}

#[test]
fn golden_metrics_in_float64() {
    golden_metrics::<f64>(1e-10);
}

#[test]
fn golden_metrics_in_float32() {
    golden_metrics::<f32>(1e-5);
}

proptest! {
    #![proptest_config(cases(200))]

    /// Over all heads together, and symmetric to the bit.
    #[test]
    fn the_metric_is_the_gram_matrix_of_the_jacobian(plan in plans(), points in 1usize..5) {
        let model = model::<f64>(&plan.decoder());
        let z = Random(plan.seed ^ 1).array((points, plan.latent_dim));
        let (jacobians, metrics) = (model.jacobian(z.view()).unwrap(), model.metric(z.view()).unwrap());
        for (jacobian, metric) in jacobians.axis_iter(Axis(0)).zip(metrics.axis_iter(Axis(0))) {
            let expected = jacobian.dot(&jacobian.t());
            prop_assert!(norm((&metric - &expected).view()) <= 1e-12 * norm(expected.view()), "{metric} instead of {expected}");
            prop_assert_eq!(metric, metric.t());
        }
    }
}

/// √det G by the determinant's formula for 2 × 2, and 0 where the decoder has fewer outputs than latents.
#[test]
fn the_volume_is_the_root_of_the_determinant() {
    let golden = golden("digits-d2-tanh");
    let found = model::<f64>(&decoder("digits-d2-tanh")).volume(golden.points.view()).unwrap();
    for (g, found) in golden.metrics.axis_iter(Axis(0)).zip(found) {
        let expected = (g[[0, 0]] * g[[1, 1]] - g[[0, 1]] * g[[1, 0]]).sqrt();
        assert!(crate::fixtures::gap(found, expected) < 1e-10, "{found} instead of {expected}");
    }
    let narrow = Random(5).decoder(&[3, 20, 2], pullback::Activation::Tanh, pullback::Activation::Identity);
    let z = Random(6).array((10, 3));
    let flat = model::<f64>(&narrow).volume(z.view()).unwrap();
    let metrics = model::<f64>(&narrow).metric(z.view()).unwrap();
    for (p, volume) in flat.iter().enumerate() {
        let size = norm(metrics.slice(s![p, .., ..])).powf(1.5);
        assert!(*volume <= 1e-7 * size, "a rank of 2 in 3 dimensions has the volume {volume}");
    }
}

/// The kernels of the CUDA path against float64 on the processor.
#[cfg(feature = "emulator")]
mod kernel {
    use crate::fixtures::{Random, cases, kernels, kinds, model, norm, plans, widen};
    use ndarray::Axis;
    use proptest::prelude::*;
    use pullback::{Activation, Decoder, Device};

    fn agrees(device: &Device, decoder: &Decoder, points: usize, seed: u64) -> Result<(), TestCaseError> {
        let z = Random(seed).array((points, decoder.latent_dim())).mapv(|x| x as f32);
        let found = device.load(decoder).unwrap().metric(z.view()).unwrap();
        let reference = model::<f64>(decoder);
        let z = widen(&z);
        let (expected, jacobians) = (reference.metric(z.view()).unwrap(), reference.jacobian(z.view()).unwrap());
        prop_assert_eq!(found.dim(), expected.dim());
        for (p, metric) in found.axis_iter(Axis(0)).enumerate() {
            let expected = expected.index_axis(Axis(0), p);
            let error = norm((&metric.mapv(f64::from) - &expected).view());
            let size = norm(jacobians.index_axis(Axis(0), p));
            let bound = 32.0 * kernels::rounding(decoder) * (1.0 + size * size);
            prop_assert!(error <= bound, "error {error:e}, bound {bound:e}: {metric} instead of {expected}");
            prop_assert_eq!(metric, metric.t());
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(cases(120))]

        #[test]
        fn metrics_are_the_references(plan in plans(), points in 0usize..80) {
            agrees(&kernels::device(), &plan.decoder(), points, plan.seed ^ 1)?;
        }
    }

    #[test]
    fn any_number_of_latents() {
        for d in [1, 2, 3, 4, 5, 8, 9, 17, 64, 100] {
            let decoder = Random(3).decoder(&[d, 40, 70], Activation::Softplus, Activation::Identity);
            agrees(&kernels::device(), &decoder, 9, 4).unwrap();
        }
    }

    #[test]
    fn small_metrics_of_every_kind() {
        for (kind, decoder) in kinds() {
            agrees(&kernels::careful_device(), &decoder, 5, 9).unwrap_or_else(|error| panic!("{kind}: {error}"));
        }
    }

    #[test]
    fn small_metrics() {
        for widths in [&[3, 4][..], &[9, 5, 1], &[1, 3, 6, 2], &[2, 64, 64, 64]] {
            let decoder = Random(7).decoder(widths, Activation::Tanh, Activation::Sin);
            agrees(&kernels::careful_device(), &decoder, 4, 8).unwrap();
        }
    }
}
