//! Second derivatives and curvature: closed forms, central differences, and laws between them.

use crate::fixtures::{NAMES, Random, cases, cast, decoder, gap, golden, model, norm, plans};
use ndarray::{Array1, Array2, Axis, array, s};
use proptest::prelude::*;
use pullback::{Activation, Decoder, Head, Layer, Model, Scalar};

/// Points of the charts away from the poles.
fn charted(random: &mut Random, points: usize) -> Array2<f64> {
    Array2::from_shape_fn(
        (points, 2),
        |(_, k)| if k == 0 { 0.4 + 2.3 * random.uniform() } else { 6.0 * random.uniform() },
    )
}

fn gaussian<T: Scalar>(decoder: &Decoder, curvature: impl Fn(f64, f64) -> f64, tolerance: f64) {
    let mut random = Random(1);
    let z = charted(&mut random, 100);
    let (u, v) = (random.array(z.dim()), random.array(z.dim()));
    let (narrow, u, v) = (cast::<T, _>(&z), cast::<T, _>(&u), cast::<T, _>(&v));
    let model = model::<T>(decoder);
    let found = model.gaussian_curvature(narrow.view()).unwrap();
    let sectional = model.sectional_curvature(narrow.view(), u.view(), v.view()).unwrap();
    let scalar = model.scalar_curvature(narrow.view()).unwrap();
    for (p, z) in z.rows().into_iter().enumerate() {
        let expected = curvature(z[0], z[1]);
        let bound = tolerance * (1.0 + expected.abs());
        for found in [found[p].to_f64(), sectional[p].to_f64(), 0.5 * scalar[p].to_f64()] {
            assert!((found - expected).abs() <= bound, "at {z}: {found} instead of {expected}");
        }
    }
}

/// Each by its formula, in either precision.
fn surface(decoder: &Decoder, curvature: impl Fn(f64, f64) -> f64) {
    gaussian::<f64>(decoder, &curvature, 1e-11);
    gaussian::<f32>(decoder, &curvature, 1e-3);
}

#[test]
fn spheres() {
    surface(&Decoder::sphere(1.0), |_, _| 1.0);
    surface(&Decoder::sphere(3.0), |_, _| 1.0 / 9.0);
}

#[test]
fn ellipsoids() {
    let [a, b, c] = [1.5f64, 1.0, 0.8];
    surface(&Decoder::ellipsoid([a, b, c]), |t, p| {
        let (x, y, z) = (a * t.sin() * p.cos(), b * t.sin() * p.sin(), c * t.cos());
        let sum = x * x / a.powi(4) + y * y / b.powi(4) + z * z / c.powi(4);
        1.0 / (a * b * c * sum).powi(2)
    });
}

#[test]
fn tori() {
    surface(&Decoder::torus(2.0, 0.75), |_, v| v.cos() / (0.75 * (2.0 + 0.75 * v.cos())));
}

#[test]
fn flat_surfaces() {
    surface(&Decoder::clifford_torus(1.5, 0.5), |_, _| 0.0);
    surface(&Decoder::cylinder(1.5), |_, _| 0.0);
}

/// A sphere times a line: the plane of both angles is curved, and no other one of the coordinates'.
#[test]
fn a_product_of_a_sphere_and_a_line() {
    let mut layers = Decoder::sphere(2.0).heads()[0].layers().to_vec();
    layers[0].weight.push_column(Array1::zeros(5).view()).unwrap();
    let line = Layer { weight: array![[0.0, 0.0, 3.0]], bias: array![0.0], activation: Activation::Identity };
    let heads = vec![Head::new("sphere", layers).unwrap(), Head::new("line", vec![line]).unwrap()];
    let model = model::<f64>(&Decoder::new(heads).unwrap());
    let z = array![[0.9, 0.2, 0.1]];
    let axis = |k: usize| Array2::from_shape_fn((1, 3), |(_, j)| if j == k { 1.0 } else { 0.0 });
    let plane = |a, b| model.sectional_curvature(z.view(), axis(a).view(), axis(b).view()).unwrap()[0];
    for (a, b, expected) in [(0, 1, 0.25), (0, 2, 0.0), (2, 1, 0.0)] {
        assert!((plane(a, b) - expected).abs() < 1e-13, "plane {a}, {b}: {}", plane(a, b));
    }
    let scalar = model.scalar_curvature(z.view()).unwrap()[0];
    assert!((scalar - 0.5).abs() < 1e-13, "{scalar}");
}

/// θ̈ = sin θ cos θ φ̇² and φ̈ = −2 cot θ θ̇ φ̇.
#[test]
fn geodesics_of_a_sphere() {
    let mut random = Random(2);
    let (z, v) = (charted(&mut random, 50), random.array((50, 2)));
    let found = model::<f64>(&Decoder::sphere(1.7)).geodesic_acceleration(z.view(), v.view()).unwrap();
    for p in 0..50 {
        let ((sin, cos), v) = (z[[p, 0]].sin_cos(), v.row(p));
        let expected = array![sin * cos * v[1] * v[1], -2.0 * cos / sin * v[0] * v[1]];
        assert!(norm((&found.row(p) - &expected).view()) < 1e-12 * (1.0 + norm(expected.view())), "{}", found.row(p));
    }
}

/// A curve's curvature: ‖II(u, u)‖ / ‖u‖² = 1/r.
#[test]
fn circles() {
    let model = model::<f64>(&Decoder::circle(2.5));
    let (z, u) = (array![[0.3], [1.0]], array![[1.0], [-3.0]]);
    let form = model.second_fundamental_form(z.view(), u.view(), u.view()).unwrap();
    let lengths = model.norm(z.view(), u.view()).unwrap();
    for p in 0..2 {
        assert!((norm(form.row(p)) / lengths[p].powi(2) - 0.4).abs() < 1e-13);
    }
    assert_eq!(model.scalar_curvature(z.view()).unwrap().mapv(|x| x.abs() < 1e-13), array![true, true]);
    assert!(model.sectional_curvature(z.view(), u.view(), u.view()).unwrap().iter().all(|x| x.is_nan()));
}

/// ∂²f[u, v] as the slope of J u along v; with h = 10⁻⁵, far from both the truncation's h² and the rounding's ε/h.
fn second_difference(model: &Model<f64>, z: &Array2<f64>, u: &Array2<f64>, v: &Array2<f64>) -> Array2<f64> {
    const H: f64 = 1e-5;
    let moved = |h: f64| model.push_forward((z + &(v * h)).view(), u.view()).unwrap();
    (moved(H) - moved(-H)) / (2.0 * H)
}

/// G⁻¹ b for a small well-conditioned G, by elimination.
fn solve(metric: ndarray::ArrayView2<'_, f64>, b: Array1<f64>) -> Array1<f64> {
    let (mut a, mut b) = (metric.to_owned(), b);
    let d = b.len();
    for k in 0..d {
        for i in (0..d).filter(|&i| i != k) {
            let share = a[[i, k]] / a[[k, k]];
            let row = a.row(k).to_owned();
            a.row_mut(i).scaled_add(-share, &row);
            b[i] -= share * b[k];
        }
    }
    b / a.diag()
}

/// Decoders with several heads, whose surface bends smoothly and whose metric is regular.
fn smooth(seed: u64, d: usize) -> Decoder {
    let smooth = [Activation::Tanh, Activation::Softplus, Activation::Sin, Activation::Silu, Activation::Gelu];
    let mut random = Random(seed);
    let hidden = smooth[(random.bits() % 5) as usize];
    let output = if seed.is_multiple_of(2) { Activation::Identity } else { Activation::Sigmoid };
    let heads =
        [&[d, 20, 16, 30][..], &[d, 11, 17]].map(|widths| random.head(&format!("{widths:?}"), widths, hidden, output));
    Decoder::new(heads.to_vec()).unwrap()
}

proptest! {
    #![proptest_config(cases(60))]

    /// II is what ∂²f has across the tangents, and the geodesic equation's acceleration is what it has along them.
    #[test]
    fn second_derivatives_are_slopes_of_first_ones(seed in any::<u64>(), d in 1usize..6) {
        let model = model::<f64>(&smooth(seed, d));
        let mut random = Random(seed ^ 1);
        let (z, u, v) = (random.array((3, d)), random.array((3, d)), random.array((3, d)));
        let (mixed, own) = (second_difference(&model, &z, &u, &v), second_difference(&model, &z, &v, &v));
        let form = model.second_fundamental_form(z.view(), u.view(), v.view()).unwrap();
        let acceleration = model.geodesic_acceleration(z.view(), v.view()).unwrap();
        let condition = model.spectrum(z.view()).unwrap().condition();
        let (metrics, jacobians) = (model.metric(z.view()).unwrap(), model.jacobian(z.view()).unwrap());
        for p in (0..3).filter(|&p| condition[p] < 100.0) {
            let (metric, columns) = (metrics.index_axis(Axis(0), p), jacobians.index_axis(Axis(0), p));
            let along = solve(metric, columns.dot(&mixed.row(p)));
            let expected = &mixed.row(p) - &along.dot(&columns);
            let error = norm((&form.row(p) - &expected).view());
            prop_assert!(error <= 1e-7 * (1.0 + norm(mixed.row(p))), "error {error:e} of {expected}");
            let tangential = norm(columns.dot(&form.row(p)).view());
            prop_assert!(tangential <= 1e-13 * norm(columns) * (1.0 + norm(mixed.row(p))), "{tangential:e} along the surface");
            let expected = -solve(metric, columns.dot(&own.row(p)));
            let error = norm((&acceleration.row(p) - &expected).view());
            prop_assert!(error <= 1e-6 * (1.0 + norm(expected.view())), "error {error:e} of {expected}");
        }
    }

    /// Gauss's equation from II in data space is what the compressed network's inner products give, for any vectors of the plane; and
    /// the scalar curvature is the sum over the planes of an orthonormal frame.
    #[test]
    fn curvatures_agree(seed in any::<u64>(), d in 2usize..5) {
        let model = model::<f64>(&smooth(seed, d));
        let mut random = Random(seed ^ 1);
        let z = random.array((1, d));
        prop_assume!(model.spectrum(z.view()).unwrap().condition()[0] < 100.0);
        let metric = model.metric(z.view()).unwrap().index_axis(Axis(0), 0).to_owned();
        // Gram and Schmidt's way, in G.
        let mut frame = random.array((d, d));
        for a in 0..d {
            for b in 0..a {
                let (x, y) = (frame.row(a).to_owned(), frame.row(b).to_owned());
                frame.row_mut(a).scaled_add(-x.dot(&metric.dot(&y)), &y);
            }
            let length = frame.row(a).dot(&metric.dot(&frame.row(a))).sqrt();
            frame.row_mut(a).mapv_inplace(|x| x / length);
        }
        let vector = |a: usize| frame.slice(s![a..=a, ..]).to_owned();
        let form = |u: &Array2<f64>, v: &Array2<f64>| {
            model.second_fundamental_form(z.view(), u.view(), v.view()).unwrap().row(0).to_owned()
        };
        let (mut sum, mut size) = (0.0, 1.0);
        for a in 0..d {
            for b in 0..a {
                let (u, v) = (vector(a), vector(b));
                let (uu, uv, vv) = (form(&u, &u), form(&u, &v), form(&v, &v));
                let expected = uu.dot(&vv) - uv.dot(&uv);
                let scale = 1.0 + norm(uu.view()) * norm(vv.view()) + uv.dot(&uv);
                let found = model.sectional_curvature(z.view(), u.view(), v.view()).unwrap()[0];
                prop_assert!((found - expected).abs() <= 1e-9 * scale, "{found} instead of {expected}");
                // The plane alone counts.
                let (x, y) = (&u * 3e5 + &v * 1e2, &u * 2e-7 - &v * 5e-7);
                let other = model.sectional_curvature(z.view(), x.view(), y.view()).unwrap()[0];
                prop_assert!((other - found).abs() <= 1e-7 * scale, "{other} instead of {found}");
                (sum, size) = (sum + 2.0 * expected, size + scale);
            }
        }
        let scalar = model.scalar_curvature(z.view()).unwrap()[0];
        prop_assert!((scalar - sum).abs() <= 1e-8 * size, "{scalar} instead of {sum}");
    }

    /// What bends nowhere has no second derivatives.
    #[test]
    fn piecewise_linear_decoders_are_flat(seed in any::<u64>(), d in 1usize..5) {
        let model = model::<f64>(&Random(seed).decoder(&[d, 30, 25, 20], Activation::LeakyRelu, Activation::Relu));
        let mut random = Random(seed ^ 1);
        let (z, v) = (random.array((3, d)), random.array((3, d)));
        let regular = model.log_volume(z.view()).unwrap().mapv(f64::is_finite);
        let form = model.second_fundamental_form(z.view(), v.view(), v.view()).unwrap();
        let (acceleration, scalar) =
            (model.geodesic_acceleration(z.view(), v.view()).unwrap(), model.scalar_curvature(z.view()).unwrap());
        for p in 0..3 {
            let all = form.row(p).iter().chain(acceleration.row(p)).chain([&scalar[p]]).copied().collect::<Vec<f64>>();
            prop_assert!(all.iter().all(|&x| if regular[p] { x == 0.0 } else { x.is_nan() }), "{all:?}");
        }
    }

    #[test]
    fn points_are_alone(plan in plans(), points in 0usize..6) {
        let model = model::<f32>(&plan.decoder());
        let mut random = Random(plan.seed ^ 1);
        let z = random.array((points, plan.latent_dim)).mapv(|x| x as f32);
        let v = random.array(z.dim()).mapv(|x| x as f32);
        let (scalar, all) = (model.scalar_curvature(z.view()).unwrap(), model.geodesic_acceleration(z.view(), v.view()).unwrap());
        for p in 0..points {
            let part = s![p..=p, ..];
            let one = model.geodesic_acceleration(z.slice(part), v.slice(part)).unwrap();
            prop_assert_eq!(crate::fixtures::bits(&one.row(0).to_owned()), crate::fixtures::bits(&all.row(p).to_owned()));
            prop_assert_eq!(model.scalar_curvature(z.slice(part)).unwrap()[0].to_bits(), scalar[p].to_bits());
        }
    }
}

/// float32 follows float64 on trained decoders, as far as the condition of the metric lets it.
#[test]
fn trained_decoders_in_float32() {
    for name in NAMES {
        let (z, decoder) = (golden(name).points, decoder(name));
        let z = z.slice(s![..8, ..]).to_owned();
        let v = Random(3).array(z.dim());
        let exact = model::<f64>(&decoder);
        let (expected, condition) =
            (exact.geodesic_acceleration(z.view(), v.view()).unwrap(), exact.spectrum(z.view()).unwrap().condition());
        let found =
            model::<f32>(&decoder).geodesic_acceleration(cast(&z).view(), cast(&v).view()).unwrap().mapv(f64::from);
        for p in 0..z.nrows() {
            let (error, size) = (norm((&found.row(p) - &expected.row(p)).view()), norm(expected.row(p)));
            let bound = 1e-5 * condition[p].powi(2) * (1.0 + size);
            assert!(error <= bound, "{name}, point {p}: error {error:e}, bound {bound:e}, condition {}", condition[p]);
        }
    }
}

#[test]
fn where_there_is_no_curvature() {
    let model = model::<f64>(&Decoder::sphere(1.0));
    // The pole, a NaN, and a point in order.
    let z = array![[0.0, 0.3], [f64::NAN, 0.3], [1.0, 0.3]];
    let (u, v) = (array![[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]], array![[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]);
    let only_the_last = |found: &[bool]| assert_eq!(found, [true, true, false]);
    let nan = |x: &Array1<f64>| x.iter().map(|x| x.is_nan()).collect::<Vec<bool>>();
    only_the_last(&nan(&model.gaussian_curvature(z.view()).unwrap()));
    only_the_last(&nan(&model.scalar_curvature(z.view()).unwrap()));
    only_the_last(&nan(&model.sectional_curvature(z.view(), u.view(), v.view()).unwrap()));
    only_the_last(&nan(&model.geodesic_acceleration(z.view(), v.view()).unwrap().column(0).to_owned()));
    only_the_last(&nan(&model.second_fundamental_form(z.view(), u.view(), v.view()).unwrap().column(2).to_owned()));
    // Vectors that span no plane.
    let z = array![[1.0, 0.3], [1.0, 0.3], [1.0, 0.3]];
    let (u, v) = (array![[1.0, 0.7], [0.0, 0.0], [0.1, 0.3]], array![[-3.0, -2.1], [1.0, 0.0], [0.1, 0.3]]);
    assert_eq!(nan(&model.sectional_curvature(z.view(), u.view(), v.view()).unwrap()), [true; 3]);
    let (u, v) = (array![[1.0, 0.7]], array![[1.0, 0.7 + 1e-6]]);
    let thin = model.sectional_curvature(array![[1.0, 0.3]].view(), u.view(), v.view()).unwrap()[0];
    assert!(gap(thin, 1.0) < 1e-8, "{thin}");
}

#[test]
fn nothing_comes_of_nothing() {
    let model = model::<f64>(&Decoder::sphere(1.0));
    let none = Array2::zeros((0, 2));
    assert_eq!(model.gaussian_curvature(none.view()).unwrap().len(), 0);
    assert_eq!(model.scalar_curvature(none.view()).unwrap().len(), 0);
    assert_eq!(model.sectional_curvature(none.view(), none.view(), none.view()).unwrap().len(), 0);
    assert_eq!(model.second_fundamental_form(none.view(), none.view(), none.view()).unwrap().dim(), (0, 3));
    assert_eq!(model.geodesic_acceleration(none.view(), none.view()).unwrap().dim(), (0, 2));
}

#[test]
fn refusals() {
    let model = model::<f64>(&Decoder::sphere(1.0));
    let (z, three) = (Array2::zeros((4, 2)), Array2::zeros((4, 3)));
    let says = |result: pullback::Result<()>, expected: &str| assert_eq!(result.unwrap_err().to_string(), expected);
    let latents = "latents: expected latents of dimension 2, the decoder's, found 3";
    says(model.gaussian_curvature(three.view()).map(drop), latents);
    says(model.scalar_curvature(three.view()).map(drop), latents);
    says(model.sectional_curvature(z.view(), three.view(), z.view()).map(drop), "u: expected [4, 2], found [4, 3]");
    says(model.second_fundamental_form(z.view(), z.view(), three.view()).map(drop), "v: expected [4, 2], found [4, 3]");
    says(model.geodesic_acceleration(z.view(), three.view()).map(drop), "velocities: expected [4, 2], found [4, 3]");
    let circle = crate::fixtures::model::<f64>(&Decoder::circle(1.0));
    says(
        circle.gaussian_curvature(Array2::zeros((4, 1)).view()).map(drop),
        "Gaussian curvature: expected a decoder of 2 latents (for others there are sectional and scalar curvature), found 1",
    );
}

/// The same on a device.
#[cfg(feature = "emulator")]
mod device {
    use super::{charted, smooth};
    use crate::fixtures::{Random, cases, kernels, kinds, model, norm, widen};
    use ndarray::{Array1, Array2, array};
    use proptest::prelude::*;
    use proptest::test_runner::TestCaseError;
    use pullback::{Decoder, Device, Geometry, Model};

    /// Every quantity at some points, one row a point.
    fn everything<T: pullback::Scalar>(model: &Model<T>, [z, u, v]: [&Array2<f32>; 3]) -> [Array2<f64>; 4] {
        let [z, u, v] = [z, u, v].map(|rows| rows.mapv(|x| T::from_f64(x.into())));
        let column = |x: Array1<T>| x.mapv(T::to_f64).insert_axis(ndarray::Axis(1));
        [
            model.second_fundamental_form(z.view(), u.view(), v.view()).unwrap().mapv(T::to_f64),
            model.geodesic_acceleration(z.view(), v.view()).unwrap().mapv(T::to_f64),
            column(model.sectional_curvature(z.view(), u.view(), v.view()).unwrap()),
            column(model.scalar_curvature(z.view()).unwrap()),
        ]
    }

    /// As near to float64 as float32 on the processor is, for regular points: squares of second derivatives may cancel.
    fn agrees(device: &Device, decoder: &Decoder, points: usize, seed: u64) -> Result<(), TestCaseError> {
        let mut random = Random(seed);
        let [z, u, v] = [(); 3].map(|()| random.array((points, decoder.latent_dim())).mapv(|x| x as f32));
        let exact = model::<f64>(decoder);
        let condition = exact.spectrum(widen(&z).view()).unwrap().condition();
        let there = everything(&device.load(decoder).unwrap(), [&z, &u, &v]);
        let here = everything(&exact, [&z, &u, &v]);
        let rounded = everything(&model::<f32>(decoder), [&z, &u, &v]);
        let names = ["II", "acceleration", "sectional", "scalar"];
        for (what, ((found, rounded), expected)) in names.iter().zip(there.iter().zip(&rounded).zip(&here)) {
            prop_assert_eq!(found.dim(), expected.dim());
            let regular = || (0..points).filter(|&p| condition[p] < 30.0);
            let gap = |found: &Array2<f64>, p: usize| norm((&found.row(p) - &expected.row(p)).view());
            let usual = regular().map(|p| gap(rounded, p)).fold(0.0, f64::max);
            for p in regular() {
                let error = gap(found, p);
                let bound = 1e-4 * condition[p].powi(2) * (1.0 + norm(expected.row(p))) + 8.0 * usual;
                prop_assert!(
                    error <= bound,
                    "{what}: error {error:e}, bound {bound:e}, {} instead of {}",
                    found.row(p),
                    expected.row(p)
                );
            }
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(cases(40))]

        #[test]
        fn curvatures_are_the_references(seed in any::<u64>(), d in 2usize..7, points in 0usize..40) {
            agrees(&kernels::device(), &smooth(seed, d), points, seed ^ 1)?;
        }
    }

    #[test]
    fn small_curvatures_of_every_kind() {
        let kinds = kinds().into_iter().filter(|(_, decoder)| decoder.geometry() != Geometry::Gaussian);
        for (kind, decoder) in kinds {
            agrees(&kernels::careful_device(), &decoder, 5, 9).unwrap_or_else(|error| panic!("{kind}: {error}"));
        }
    }

    #[test]
    fn closed_forms() {
        let z = charted(&mut Random(1), 50).mapv(|x| x as f32);
        for (decoder, curvature) in [
            (Decoder::sphere(2.0), (|_| 0.25) as fn(f64) -> f64),
            (Decoder::torus(2.0, 0.75), |v: f64| v.cos() / (0.75 * (2.0 + 0.75 * v.cos()))),
            (Decoder::clifford_torus(1.5, 0.5), |_| 0.0),
        ] {
            let model = kernels::model(&decoder);
            let (gaussian, scalar) =
                (model.gaussian_curvature(z.view()).unwrap(), model.scalar_curvature(z.view()).unwrap());
            for p in 0..z.nrows() {
                let expected = curvature(z[[p, 1]].into());
                for found in [f64::from(gaussian[p]), 0.5 * f64::from(scalar[p])] {
                    assert!((found - expected).abs() < 1e-3 * (1.0 + expected.abs()), "{found} instead of {expected}");
                }
            }
        }
    }

    #[test]
    fn where_there_is_no_curvature() {
        let model = kernels::model(&Decoder::sphere(1.0));
        let z = array![[0.0, 0.3], [f32::NAN, 0.3], [1.0, 0.3]];
        let u = array![[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]];
        let v = array![[0.0, 1.0], [0.0, 1.0], [0.0, f32::INFINITY]];
        let nan = |x: Array1<f32>| x.iter().map(|x| x.is_nan()).collect::<Vec<bool>>();
        assert_eq!(nan(model.gaussian_curvature(z.view()).unwrap()), [true, true, false]);
        assert_eq!(nan(model.scalar_curvature(z.view()).unwrap()), [true, true, false]);
        assert_eq!(nan(model.sectional_curvature(z.view(), u.view(), v.view()).unwrap()), [true; 3]);
        let none = Array2::zeros((0, 2));
        assert_eq!(model.geodesic_acceleration(none.view(), none.view()).unwrap().dim(), (0, 2));
        assert_eq!(model.second_fundamental_form(none.view(), none.view(), none.view()).unwrap().dim(), (0, 3));
    }
}
