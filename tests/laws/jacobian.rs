//! Jacobian columns: golden ones, and central differences of the values.

use crate::fixtures::{NAMES, Random, cases, cast, decoder, golden, model, norm, plans, worst_error};
use ndarray::{Axis, s};
use proptest::prelude::*;
use pullback::Scalar;

fn golden_jacobians<T: Scalar>(tolerance: f64) {
    for name in NAMES {
        let golden = golden(name);
        let found = model::<T>(&decoder(name)).jacobian(cast(&golden.points).view()).unwrap();
        let error = worst_error(&found, &golden.jacobians);
        assert!(error <= tolerance, "{name}: relative error {error:e}");
    }
}

#[test]
fn golden_jacobians_in_float64() {
    golden_jacobians::<f64>(1e-10);
}

#[test]
fn golden_jacobians_in_float32() {
    golden_jacobians::<f32>(1e-5);
}

proptest! {
    #![proptest_config(cases(200))]

    /// J_k ≈ (f(z + h e_k) − f(z − h e_k)) / 2h with an error of h² and ε/h: with h = 10⁻⁶, a share of 10⁻⁸ is far above both.
    #[test]
    fn tangents_are_the_slopes_of_the_values(plan in plans()) {
        const H: f64 = 1e-6;
        let model = model::<f64>(&plan.decoder());
        let z = Random(plan.seed ^ 1).array((3, plan.latent_dim));
        let jacobian = model.jacobian(z.view()).unwrap();
        for k in 0..plan.latent_dim {
            let moved = |h: f64| {
                let mut z = z.clone();
                z.column_mut(k).mapv_inplace(|x| x + h);
                model.decode(z.view()).unwrap()
            };
            let slopes = (moved(H) - moved(-H)) / (2.0 * H);
            let error = norm((&jacobian.slice(s![.., k, ..]) - &slopes).view());
            prop_assert!(error <= 1e-8 * (1.0 + norm(slopes.view())), "direction {k}: error {error:e}");
        }
    }

    /// Heads share the latent space; their Jacobians stand side by side.
    #[test]
    fn heads_stand_side_by_side(plan in plans()) {
        let decoder = plan.decoder();
        let z = Random(plan.seed ^ 1).array((4, plan.latent_dim));
        let whole = model::<f64>(&decoder).jacobian(z.view()).unwrap();
        let mut offset = 0;
        for head in decoder.heads() {
            let width = head.data_dim();
            let one = pullback::Decoder::new(vec![head.clone()]).unwrap();
            let part = model::<f64>(&one).jacobian(z.view()).unwrap();
            prop_assert_eq!(part.view(), whole.slice_axis(Axis(2), (offset..offset + width).into()));
            offset += width;
        }
        prop_assert_eq!(offset, decoder.data_dim());
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
        let found = device.load(decoder).unwrap().jacobian(z.view()).unwrap();
        let expected = model::<f64>(decoder).jacobian(widen(&z).view()).unwrap();
        prop_assert_eq!(found.dim(), expected.dim());
        for (columns, expected) in found.axis_iter(Axis(0)).zip(expected.axis_iter(Axis(0))) {
            let error = norm((&columns.mapv(f64::from) - &expected).view());
            let bound = 16.0 * kernels::rounding(decoder) * (1.0 + norm(expected));
            prop_assert!(error <= bound, "error {error:e}, bound {bound:e}: {columns} instead of {expected}");
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(cases(120))]

        #[test]
        fn columns_are_the_references(plan in plans(), points in 0usize..80) {
            agrees(&kernels::device(), &plan.decoder(), points, plan.seed ^ 1)?;
        }
    }

    #[test]
    fn any_number_of_latents() {
        for d in [1, 2, 17, 64, 100] {
            let decoder = Random(3).decoder(&[d, 40, 70], Activation::Silu, Activation::Sigmoid);
            agrees(&kernels::device(), &decoder, 9, 4).unwrap();
        }
    }

    #[test]
    fn small_decoders_of_every_kind() {
        for (kind, decoder) in kinds() {
            agrees(&kernels::careful_device(), &decoder, 5, 9).unwrap_or_else(|error| panic!("{kind}: {error}"));
        }
    }

    #[test]
    fn small_decoders_of_one_to_three_layers() {
        for widths in [&[3, 4][..], &[2, 5, 1], &[1, 3, 6, 2], &[2, 64, 64, 64]] {
            let decoder = Random(7).decoder(widths, Activation::Tanh, Activation::Identity);
            agrees(&kernels::careful_device(), &decoder, 4, 8).unwrap();
        }
    }
}
