//! Jacobian columns: golden ones, and central differences of the values.

mod fixtures;

use fixtures::{NAMES, Random, cases, cast, decoder, golden, model, norm, plans, worst_error};
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
