//! Stochastic decoders and ensembles against golden values and laws.

use crate::fixtures::{Random, cast, decoder, gap, model, norm, path, widen, worst_error};
use ndarray::{Array1, Array2, Array3, Axis, arr1, arr2, s};
use ndarray_npy::{NpzReader, ReadableElement};
use pullback::{Activation, Decoder, Geometry, Head, Layer, Model, Options, Scalar, Status};

fn read<A: ReadableElement, D: ndarray::Dimension>(name: &str, key: &str) -> ndarray::Array<A, D> {
    let file = std::fs::File::open(path(&format!("{name}.golden.npz"))).unwrap();
    NpzReader::new(file).unwrap().by_name(key).unwrap()
}

fn follows_the_golden_rbf<T: Scalar>(bound: f64) {
    const NAME: &str = "digits-d2-rbf";
    let model = model::<T>(&decoder(NAME));
    let points = cast(&read::<f64, ndarray::Ix2>(NAME, "points"));
    let jacobians: Array3<f64> = read::<f64, ndarray::Ix3>(NAME, "jacobians").permuted_axes([0, 2, 1]);
    let error = worst_error(&model.decode(points.view()).unwrap(), &read(NAME, "values"));
    assert!(error < bound, "values: {error:e}");
    let error = worst_error(&model.jacobian(points.view()).unwrap(), &jacobians);
    assert!(error < bound, "jacobians: {error:e}");
    let error = worst_error(&model.metric(points.view()).unwrap(), &read(NAME, "metrics"));
    assert!(error < bound, "metrics: {error:e}");
}

#[test]
fn an_rbf_precision_has_the_golden_expected_metric() {
    follows_the_golden_rbf::<f64>(1e-10);
    follows_the_golden_rbf::<f32>(1e-5);
}

/// How many of the curves are at most 0.1 % above their golden energy; all end with a finite one.
fn within(energy: &Array1<f64>, golden: &Array1<f64>) -> f64 {
    assert!(energy.iter().all(|e| e.is_finite()));
    energy.iter().zip(golden).filter(|(e, g)| **e <= **g * 1.001).count() as f64 / golden.len() as f64
}

fn reaches_the_golden_energies<T: Scalar>(name: &str, best: &str, bound: f64) {
    reaches(&model::<T>(&decoder(name)), name, best, bound, usize::MAX);
}

/// The first so many pairs at most.
fn reaches<T: Scalar>(model: &Model<T>, name: &str, best: &str, bound: f64, most: usize) {
    let (starts, ends): (Array2<f64>, Array2<f64>) = (read(name, "starts"), read(name, "ends"));
    let part = s![..starts.nrows().min(most), ..];
    let (starts, ends) = (starts.slice(part).to_owned(), ends.slice(part).to_owned());
    let segments = read::<i64, ndarray::Ix0>(name, "segments").into_scalar() as usize;
    let lines = Array3::from_shape_fn((starts.nrows(), segments + 1, 2), |(c, i, k)| {
        let t = i as f64 / segments as f64;
        starts[[c, k]] + t * (ends[[c, k]] - starts[[c, k]])
    });
    let golden = |key: &str| read::<f64, ndarray::Ix1>(name, key).slice(s![..starts.nrows()]).to_owned();
    let straight = golden("straight_energy");
    for (found, expected) in model.energy(cast::<T, _>(&lines).view()).unwrap().energy.iter().zip(&straight) {
        assert!(gap(found.to_f64(), *expected) < bound, "straight line: {found} instead of {expected}");
    }
    let options = Options { segments, ..Options::default() };
    let found = model.geodesics(cast::<T, _>(&starts).view(), cast::<T, _>(&ends).view(), &options).unwrap();
    let energy = widen(&found.energy);
    let share = within(&energy, &golden(best));
    assert!(share >= 0.97, "{name}: {share} of the curves within 0.1 % of the golden energy");
    assert!(energy.iter().zip(&straight).all(|(e, s)| *e <= *s * (1.0 + bound)), "{name}: above the straight line");
}

#[test]
fn rbf_geodesics_reach_the_golden_energies() {
    reaches_the_golden_energies::<f64>("digits-d2-rbf", "best_energy", 1e-10);
    reaches_the_golden_energies::<f32>("digits-d2-rbf", "best_energy", 1e-5);
}

#[test]
fn ensemble_geodesics_reach_the_golden_energies() {
    reaches_the_golden_energies::<f64>("digits-d2-ensemble", "lbfgs_energy", 1e-10);
    reaches_the_golden_energies::<f32>("digits-d2-ensemble", "lbfgs_energy", 1e-5);
}

#[test]
fn an_ensemble_has_its_members_values_and_their_mean_metric() {
    const NAME: &str = "digits-d2-ensemble";
    let ensemble = decoder(NAME);
    assert_eq!(ensemble.geometry(), Geometry::Ensemble(10));
    assert_eq!(ensemble.heads()[9].name(), "decoders.9");
    let points: Array2<f64> = read(NAME, "points");
    let expected: Array3<f64> = read(NAME, "member_values");
    let expected = expected.into_shape_with_order((points.nrows(), 640)).unwrap();
    assert!(worst_error(&model::<f64>(&ensemble).decode(points.view()).unwrap(), &expected) < 1e-10);
    let narrow = model::<f32>(&ensemble).decode(cast(&points).view()).unwrap();
    assert!(worst_error(&narrow, &expected) < 1e-5);

    let mut mean = Array3::<f64>::zeros((points.nrows(), 2, 2));
    for head in ensemble.heads() {
        let member = Decoder::new(vec![head.clone()]).unwrap();
        mean += &model::<f64>(&member).metric(points.view()).unwrap();
    }
    mean /= 10.0;
    assert!(worst_error(&model::<f64>(&ensemble).metric(points.view()).unwrap(), &mean) < 1e-12);
}

/// Where σ grows away from the data, geodesics stay nearer to it than the means' own: compared by the distance to the nearest latent.
#[test]
fn expected_geodesics_stay_near_the_data() {
    const NAME: &str = "digits-d2-rbf";
    let both = decoder(NAME);
    let mean = Decoder::new(both.heads()[..1].to_vec()).unwrap();
    let (starts, ends): (Array2<f64>, Array2<f64>) = (read(NAME, "starts"), read(NAME, "ends"));
    let latents: Array2<f32> = ndarray_npy::read_npy(path(&format!("{NAME}.latents.npy"))).unwrap();
    let away = |decoder: &Decoder| {
        let found = model::<f64>(decoder).geodesics(starts.view(), ends.view(), &Options::default()).unwrap();
        let nearest = |z: ndarray::ArrayView1<'_, f64>| {
            let to = |l: ndarray::ArrayView1<'_, f32>| (z[0] - f64::from(l[0])).hypot(z[1] - f64::from(l[1]));
            latents.outer_iter().map(to).fold(f64::INFINITY, f64::min)
        };
        found.curves.lanes(Axis(2)).into_iter().map(nearest).sum::<f64>()
    };
    let (expected, by_means) = (away(&both), away(&mean));
    assert!(expected < 0.97 * by_means, "{expected} and {by_means}");
}

/// Members that agree have the geodesics of one of them.
#[test]
fn members_that_agree_are_one_decoder() {
    let one = Random(4).decoder(&[2, 16, 7], Activation::Tanh, Activation::Sigmoid);
    let all = Decoder::ensemble(vec![one.heads()[0].clone(); 3]).unwrap();
    let (starts, ends) = (arr2(&[[-0.9, 0.3], [0.1, 0.8]]), arr2(&[[0.7, -0.2], [-0.5, -1.0]]));
    let solve =
        |decoder: &Decoder| model::<f64>(decoder).geodesics(starts.view(), ends.view(), &Options::default()).unwrap();
    let (single, many) = (solve(&one), solve(&all));
    assert!(many.status.iter().all(|&s| s == Status::Converged));
    for k in 0..2 {
        assert!(gap(many.energy[k], single.energy[k]) < 1e-9, "{} instead of {}", many.energy[k], single.energy[k]);
        assert!(gap(many.length[k], single.length[k]) < 1e-9);
    }
}

/// At a geodesic of the expected energy that energy's derivative vanishes, by central differences.
#[test]
fn solved_curves_are_stationary() {
    let mut random = Random(9);
    let members = |random: &mut Random, hidden, output| {
        let heads = (0..4).map(|k| random.head(&format!("decoders.{k}"), &[3, 20, 12, 6], hidden, output)).collect();
        Decoder::ensemble(heads).unwrap()
    };
    let mut mixed = members(&mut random, Activation::Softplus, Activation::Sigmoid).regularised(0.01).unwrap();
    mixed = mixed.weighted(&(0..27).map(|k| 0.1 + f64::from(k % 5)).collect::<Vec<_>>()).unwrap();
    for decoder in [
        members(&mut random, Activation::Tanh, Activation::Identity),
        members(&mut random, Activation::Silu, Activation::Tanh),
        mixed,
    ] {
        let model = model::<f64>(&decoder);
        let (starts, ends) = (random.array((3, 3)), random.array((3, 3)));
        let options = Options { segments: 8, tolerance: Some(1e-12), ..Options::default() };
        let found = model.geodesics(starts.view(), ends.view(), &options).unwrap();
        assert_eq!(found.status, [Status::Converged; 3]);
        let energy = |curves: &Array3<f64>| model.energy(curves.view()).unwrap().energy;
        for axis in 0..3 {
            for point in 1..8 {
                let moved = |by: f64| {
                    let mut curves = found.curves.clone();
                    curves.slice_mut(s![.., point, axis]).mapv_inplace(|z| z + by);
                    energy(&curves)
                };
                let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                for (slope, energy) in slope.iter().zip(&found.energy) {
                    assert!(slope.abs() < 1e-4 * energy, "slope {slope} of energy {energy}");
                }
            }
        }
    }
}

#[test]
fn radial_basis_functions_are_their_formula() {
    let mut random = Random(2);
    let (centers, points) = (random.array((5, 3)), random.array((4, 3)));
    let bandwidths = arr1(&[0.5, 1.0, 2.0, 0.0, 3.0]);
    let weight = random.array((2, 5)).mapv(f64::abs);
    let floor = arr1(&[0.01, 0.3]);
    let head = Head::rbf("precision", &centers, &bandwidths, &weight, &floor).unwrap();
    let found = model::<f64>(&Decoder::new(vec![head]).unwrap()).decode(points.view()).unwrap();
    for (p, z) in points.outer_iter().enumerate() {
        for k in 0..2 {
            let term = |j: usize| {
                let distance = norm((&z - &centers.row(j)).view());
                weight[[k, j]] * (-bandwidths[j] * distance * distance).exp()
            };
            let precision = (0..5).map(term).sum::<f64>() + floor[k];
            assert!(gap(found[[p, k]], precision.powf(-0.5)) < 1e-13);
        }
    }
}

#[test]
fn bad_parts_are_refused() {
    let refused = |result: pullback::Result<Head>, expected: &str| {
        assert_eq!(result.unwrap_err().to_string(), expected);
    };
    let (c, l, w, f) = (arr2(&[[0.0, 0.0]]), arr1(&[1.0]), arr2(&[[1.0]]), arr1(&[0.1]));
    let rbf = |c: &Array2<f64>, l: &Array1<f64>, w: &Array2<f64>, f: &Array1<f64>| Head::rbf("precision", c, l, w, f);
    assert!(rbf(&c, &l, &w, &f).is_ok());
    refused(
        rbf(&c, &arr1(&[-1.0]), &w, &f),
        "head `precision`, bandwidths: expected finite numbers of at least 0, found -1",
    );
    refused(
        rbf(&c, &l, &arr2(&[[f64::NAN]]), &f),
        "head `precision`, weight: expected finite numbers of at least 0, found NaN",
    );
    refused(
        rbf(&c, &l, &w, &arr1(&[0.0])),
        "head `precision`, floor: expected positive finite numbers (σ is infinite at 0), found 0",
    );
    refused(
        rbf(&c, &arr1(&[1.0, 1.0]), &w, &f),
        "head `precision`, bandwidths: expected shape [1], one for every center, found [2]",
    );
    refused(
        rbf(&c, &l, &arr2(&[[1.0, 1.0]]), &f),
        "head `precision`, weight: expected shape [outputs, 1], found [1, 2]",
    );
    refused(rbf(&c, &l, &w, &arr1(&[0.1, 0.1])), "head `precision`, floor: expected shape [1] or [1], found [2]");

    let line = |name: &str, d: usize, outputs: usize| {
        let layer = Layer {
            weight: Array2::ones((outputs, d)),
            bias: Array1::zeros(outputs),
            activation: Activation::Identity,
        };
        Head::new(name, vec![layer]).unwrap()
    };
    let refused = |members: Vec<Head>, expected: &str| {
        assert_eq!(Decoder::ensemble(members).unwrap_err().to_string(), expected);
    };
    refused(vec![line("a", 2, 3)], "ensemble: expected at least two members, found `a` alone");
    refused(vec![line("a", 2, 3), line("b", 2, 4)], "ensemble: expected 3 outputs of member `b`, as `a` has, found 4");
    refused(vec![line("a", 2, 3), line("b", 1, 3)], "head `b`: expected the latent dimension 2 of head `a`, found 1");
}

/// With a second latent that changes nothing the metric is singular; with ε it is not, and curves converge.
#[test]
fn a_dead_latent_is_mended_by_epsilon() {
    let alive = Random(6).decoder(&[1, 8, 5], Activation::Tanh, Activation::Identity);
    let mut layers = alive.heads()[0].layers().to_vec();
    let first = layers[0].weight.clone();
    layers[0].weight = ndarray::concatenate![Axis(1), first, Array2::zeros((8, 1))];
    let dead = Decoder::new(vec![Head::new("decoder", layers).unwrap()]).unwrap();
    let (starts, ends) = (arr2(&[[-0.5, 0.3]]), arr2(&[[0.8, -0.4]]));
    let options = Options::default();

    let singular = model::<f64>(&dead);
    let found = singular.geodesics(starts.view(), ends.view(), &options).unwrap();
    assert_eq!(found.status, [Status::Converged]);
    assert!(found.curves.iter().all(|z| z.abs() < 1.0), "wanders: {}", found.curves);

    let mended = dead.regularised(1e-3).unwrap();
    let model = model::<f64>(&mended);
    let points = arr2(&[[0.2, 0.1]]);
    let mut expected = singular.metric(points.view()).unwrap();
    expected[[0, 0, 0]] += 1e-3;
    expected[[0, 1, 1]] += 1e-3;
    assert!(worst_error(&model.metric(points.view()).unwrap(), &expected) < 1e-14);
    let found = model.geodesics(starts.view(), ends.view(), &options).unwrap();
    assert_eq!(found.status, [Status::Converged]);

    for epsilon in [-1.0, f64::NAN, f64::INFINITY] {
        let error = dead.regularised(epsilon).unwrap_err().to_string();
        assert_eq!(error, format!("epsilon: expected a finite number of at least 0, found {epsilon}"));
    }
}

/// The kernels of the CUDA path.
#[cfg(feature = "emulator")]
mod kernel {
    use super::reaches;
    use crate::fixtures::{Random, decoder, gap, kernels, model};
    use ndarray::Array3;
    use pullback::{Activation, Decoder, Head, Likelihood, Precision};

    #[test]
    fn rbf_geodesics_reach_the_golden_energies() {
        for device in kernels::generations() {
            for precision in [Precision::Float32, Precision::Tf32x3] {
                let model = device.load_with(&decoder("digits-d2-rbf"), precision).unwrap();
                assert_eq!(model.precision(), precision);
                reaches(&model, "digits-d2-rbf", "best_energy", 2e-5, 6);
            }
        }
    }

    #[test]
    fn ensemble_geodesics_reach_the_golden_energies() {
        reaches(&kernels::model(&decoder("digits-d2-ensemble")), "digits-d2-ensemble", "lbfgs_energy", 2e-5, 8);
    }

    /// What the fused kernels do not take is computed in float32: softmax, ensembles, Gaussian outputs.
    #[test]
    fn other_geometries_are_computed_in_float32() {
        let mut random = Random(3);
        let mut head = |output| random.head("head", &[2, 20, 6], Activation::Tanh, output);
        let (one, two, std) = (head(Activation::Sigmoid), head(Activation::Sigmoid), head(Activation::Softplus));
        let shares = head(Activation::Softmax);
        let decoder = |heads: Vec<Head>| Decoder::new(heads).unwrap();
        let weighted = decoder(vec![one.clone(), std.clone()]).weighted(&[0.5; 12]).unwrap();
        let gaussian = decoder(vec![one.clone(), std.clone()]).fisher_rao(Likelihood::Gaussian).unwrap();
        for (decoder, expected) in [
            (weighted, Precision::Tf32x3),
            (decoder(vec![one.clone()]).fisher_rao(Likelihood::Bernoulli).unwrap(), Precision::Tf32x3),
            (decoder(vec![shares.clone()]).fisher_rao(Likelihood::Categorical).unwrap(), Precision::Float32),
            (decoder(vec![shares]), Precision::Float32),
            (Decoder::ensemble(vec![one, two]).unwrap(), Precision::Float32),
            (gaussian, Precision::Float32),
        ] {
            let curves: Array3<f64> = random.array((3, 7, 2));
            let expected_energies = model::<f64>(&decoder).energy(curves.view()).unwrap().energy;
            for device in kernels::generations() {
                let model = device.load_with(&decoder, Precision::Tf32x3).unwrap();
                assert_eq!(model.precision(), expected);
                let found = model.energy(curves.mapv(|x| x as f32).view()).unwrap().energy;
                for (found, expected) in found.iter().zip(&expected_energies) {
                    assert!(gap(f64::from(*found), *expected) < 1e-5, "{found} instead of {expected}");
                }
            }
        }
    }
}
