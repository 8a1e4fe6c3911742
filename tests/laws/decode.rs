//! Values f(z): golden ones, a direct evaluation of random decoders, and batches.

use crate::fixtures::{NAMES, Random, cases, cast, decoder, golden, model, plans, worst_error};
use ndarray::{Array1, Array2, Axis, concatenate, s};
use proptest::prelude::*;
use pullback::{Activation, Decoder, Error, Scalar};

fn golden_values<T: Scalar>(tolerance: f64) {
    for name in NAMES {
        let golden = golden(name);
        let found = model::<T>(&decoder(name)).decode(cast(&golden.points).view()).unwrap();
        let error = worst_error(&found, &golden.values);
        assert!(error <= tolerance, "{name}: relative error {error:e}");
    }
}

#[test]
fn golden_values_in_float64() {
    golden_values::<f64>(1e-10);
}

#[test]
fn golden_values_in_float32() {
    golden_values::<f32>(1e-5);
}

/// φ by the standard library.
fn phi(activation: Activation, x: f64) -> f64 {
    let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
    let elu = |x: f64| if x > 0.0 { x } else { x.exp_m1() };
    match activation {
        Activation::Identity => x,
        Activation::Relu => x.max(0.0),
        Activation::LeakyRelu => x.max(0.01 * x),
        Activation::Elu => elu(x),
        Activation::Selu => 1.0507009873554805 * if x > 0.0 { x } else { 1.6732632423543772 * x.exp_m1() },
        Activation::Tanh => x.tanh(),
        Activation::Sigmoid => logistic(x),
        Activation::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
        Activation::Silu => x * logistic(x),
        Activation::Gelu => 0.5 * x * libm::erfc(-x / 2f64.sqrt()),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
        }
        Activation::Sin => x.sin(),
        Activation::Square => x * x,
        Activation::Exp => x.exp(),
        Activation::Rsqrt => x.powf(-0.5),
        Activation::SigmoidAngle => 2.0 * (x / 2.0).exp().atan(),
        Activation::Softmax | Activation::SoftmaxAngle => unreachable!("not elementwise"),
    }
}

/// f(z) as the formula says it: a ← φ(W a + b) for every layer of every head.
fn evaluate(decoder: &Decoder, z: Array1<f64>) -> Array1<f64> {
    let heads: Vec<Array1<f64>> = decoder
        .heads()
        .iter()
        .map(|head| {
            head.layers()
                .iter()
                .fold(z.clone(), |a, layer| (layer.weight.dot(&a) + &layer.bias).mapv(|x| phi(layer.activation, x)))
        })
        .collect();
    let views: Vec<_> = heads.iter().map(|values| values.view()).collect();
    concatenate(Axis(0), &views).unwrap()
}

proptest! {
    #![proptest_config(cases(200))]

    /// Relative to the size of activations: ‖found − expected‖ ≤ 10⁻¹³ (1 + ‖expected‖).
    #[test]
    fn values_follow_the_formula(plan in plans(), points in 1usize..6) {
        let decoder = plan.decoder();
        let z = Random(plan.seed ^ 1).array((points, plan.latent_dim));
        let found = model::<f64>(&decoder).decode(z.view()).unwrap();
        for (z, found) in z.rows().into_iter().zip(found.rows()) {
            let expected = evaluate(&decoder, z.to_owned());
            let error = crate::fixtures::norm((&found - &expected).view());
            prop_assert!(error <= 1e-13 * (1.0 + crate::fixtures::norm(expected.view())), "{found} instead of {expected}");
        }
    }

    /// To the bit, so that nobody sees in which batch a point was computed.
    #[test]
    fn a_point_alone_equals_the_point_in_a_batch(plan in plans(), points in 1usize..600) {
        let model = model::<f32>(&plan.decoder());
        let z: Array2<f32> = cast(&Random(plan.seed ^ 1).array((points, plan.latent_dim)));
        let together = model.decode(z.view()).unwrap();
        let jacobians = model.jacobian(z.view()).unwrap();
        let metrics = model.metric(z.view()).unwrap();
        for p in [0, points / 3, points - 1] {
            let alone = z.slice(s![p..=p, ..]);
            let (value, jacobian, metric) =
                (model.decode(alone).unwrap(), model.jacobian(alone).unwrap(), model.metric(alone).unwrap());
            prop_assert_eq!(value.view(), together.slice(s![p..=p, ..]));
            prop_assert_eq!(jacobian.view(), jacobians.slice(s![p..=p, .., ..]));
            prop_assert_eq!(metric.view(), metrics.slice(s![p..=p, .., ..]));
        }
    }
}

#[test]
fn views_with_any_strides_are_read() {
    let model = model::<f64>(&decoder("digits-d8-softplus"));
    let z = Random(3).array((8, 12));
    let (transposed, copied) = (z.t(), z.t().as_standard_layout().to_owned());
    assert_eq!(model.decode(transposed).unwrap(), model.decode(copied.view()).unwrap());
    let every_second = z.t().slice(s![..;2, ..]).to_owned();
    assert_eq!(model.decode(z.t().slice(s![..;2, ..])).unwrap(), model.decode(every_second.view()).unwrap());
}

#[test]
fn no_points_give_no_values() {
    let decoder = decoder("digits-d8-softplus");
    let (model, none) = (model::<f32>(&decoder), Array2::zeros((0, 8)));
    assert_eq!(model.decode(none.view()).unwrap().dim(), (0, 64));
    assert_eq!(model.jacobian(none.view()).unwrap().dim(), (0, 8, 64));
    assert_eq!(model.metric(none.view()).unwrap().dim(), (0, 8, 8));
    assert_eq!(model.volume(none.view()).unwrap().dim(), 0);
    assert_eq!(model.adjoint_hessian(none.view(), Array2::zeros((0, 64)).view()).unwrap().dim(), (0, 8, 8));
}

#[test]
fn latents_of_another_width_are_refused() {
    let model = model::<f32>(&decoder("digits-d8-softplus"));
    let three = Array2::zeros((5, 3));
    let message = |error: Error| error.to_string();
    let expected = "latents: expected latents of dimension 8, the decoder's, found 3";
    assert_eq!(message(model.decode(three.view()).unwrap_err()), expected);
    assert_eq!(message(model.jacobian(three.view()).unwrap_err()), expected);
    assert_eq!(message(model.metric(three.view()).unwrap_err()), expected);
    assert_eq!(message(model.volume(three.view()).unwrap_err()), expected);
    assert_eq!(message(model.adjoint_hessian(three.view(), Array2::zeros((5, 64)).view()).unwrap_err()), expected);
    assert_eq!(
        message(model.adjoint_hessian(Array2::zeros((5, 8)).view(), Array2::zeros((4, 64)).view()).unwrap_err()),
        "adjoints: expected [5, 64], found [4, 64]"
    );
}

/// The kernels of the CUDA path against float64 on the processor.
#[cfg(feature = "emulator")]
mod kernel {
    use crate::fixtures::{Plan, Random, cases, kernels, kinds, model, norm, plans, widen};
    use ndarray::array;
    use proptest::prelude::*;
    use pullback::{Activation, Decoder, Device, Head, Layer};

    /// Errors are measured against 1 too: inputs, weights and activations have that size, whatever the outputs cancel to.
    fn agrees(device: &Device, decoder: &Decoder, points: usize, seed: u64) -> Result<(), TestCaseError> {
        let z = Random(seed).array((points, decoder.latent_dim())).mapv(|x| x as f32);
        let found = device.load(decoder).unwrap().decode(z.view()).unwrap();
        let expected = model::<f64>(decoder).decode(widen(&z).view()).unwrap();
        prop_assert_eq!(found.dim(), expected.dim());
        for (row, expected) in found.rows().into_iter().zip(expected.rows()) {
            let error = norm((&row.mapv(f64::from) - &expected).view());
            let bound = 8.0 * kernels::rounding(decoder) * (1.0 + norm(expected));
            prop_assert!(error <= bound, "error {error:e}, bound {bound:e}: {row} instead of {expected}");
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(cases(120))]

        #[test]
        fn values_are_the_references(plan in plans(), points in 0usize..300) {
            agrees(&kernels::device(), &plan.decoder(), points, plan.seed ^ 1)?;
        }
    }

    #[test]
    fn wide_layers_and_many_latents_take_the_wide_tiles() {
        for widths in [[2, 129, 300], [65, 64, 128], [130, 1, 257]] {
            let decoder = Random(3).decoder(&widths, Activation::Gelu, Activation::Identity);
            agrees(&kernels::device(), &decoder, 200, 4).unwrap();
        }
    }

    #[test]
    fn small_decoders_with_every_activation() {
        for (k, activation) in Activation::COMMON.into_iter().enumerate() {
            let heads = vec![vec![5, 3], vec![1]];
            let plan = Plan { seed: k as u64, latent_dim: 2, heads, hidden: activation, output: activation };
            agrees(&kernels::careful_device(), &plan.decoder(), 3, 9).unwrap();
        }
    }

    #[test]
    fn small_decoders_of_every_kind() {
        for (kind, decoder) in kinds() {
            agrees(&kernels::careful_device(), &decoder, 5, 9).unwrap_or_else(|error| panic!("{kind}: {error}"));
        }
    }

    /// What is not a number stays so, and what is too large for one is infinite.
    #[test]
    fn small_decoders_hide_no_fault() {
        let faults = array![[f32::NAN, 0.5], [0.5, f32::NAN], [f32::NAN, f32::NAN]];
        for (k, activation) in Activation::ALL.into_iter().enumerate() {
            let decoder = Random(k as u64).decoder(&[2, 5], activation, activation);
            let found = kernels::careful_device().load(&decoder).unwrap().decode(faults.view()).unwrap();
            assert!(found.iter().all(|x| x.is_nan()), "{activation}: {found}");
        }
        let layer = Layer { weight: array![[1.0]], bias: array![0.0], activation: Activation::Exp };
        let decoder = Decoder::new(vec![Head::new("exp", vec![layer]).unwrap()]).unwrap();
        let found = kernels::careful_device().load(&decoder).unwrap().decode(array![[87.9], [89.0]].view()).unwrap();
        assert!(found[[0, 0]].is_finite() && found[[1, 0]] == f32::INFINITY, "{found}");
    }

    /// The kernels that are made for one decoder's sizes, where they exist; the emulator has those of this one.
    #[test]
    fn small_decoder_with_kernels_of_its_own() {
        let decoder = Random(7).decoder(&[2, 64, 64, 64], Activation::Tanh, Activation::Identity);
        agrees(&kernels::careful_device(), &decoder, 5, 8).unwrap();
    }
}
