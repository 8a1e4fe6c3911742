//! Closed forms: maps, metrics and distances of classical surfaces.

use std::f64::consts::{FRAC_PI_2, PI};

use crate::fixtures::{Random, gap, model, norm};
use ndarray::{Array1, Array2, Axis, array, s};
use pullback::{Decoder, Geodesics, Options, Scalar, Status};

/// Values and metric at one point, of a surface given by formulas.
type Formulas = fn(f64, f64) -> (Vec<f64>, [[f64; 2]; 2]);

/// Holds a surface against its formulas at 200 points.
fn check(name: &str, decoder: &Decoder, formulas: Formulas) {
    let z = Random(1).array((200, 2));
    let model = model::<f64>(decoder);
    let (values, metrics, volumes) =
        (model.decode(z.view()).unwrap(), model.metric(z.view()).unwrap(), model.volume(z.view()).unwrap());
    for (p, z) in z.rows().into_iter().enumerate() {
        let (value, g) = formulas(z[0], z[1]);
        let (value, metric) = (Array1::from(value), ndarray::arr2(&g));
        assert!(norm((&values.row(p) - &value).view()) < 1e-13, "{name} at {z}: {} instead of {value}", values.row(p));
        let error = norm((&metrics.index_axis(Axis(0), p) - &metric).view());
        assert!(error < 1e-12, "{name} at {z}: {} instead of {metric}", metrics.index_axis(Axis(0), p));
        let volume = (g[0][0] * g[1][1] - g[0][1] * g[1][0]).max(0.0).sqrt();
        assert!((volumes[p] - volume).abs() < 1e-7, "{name} at {z}: volume {} instead of {volume}", volumes[p]);
    }
}

#[test]
fn sphere() {
    check("sphere", &Decoder::sphere(2.0), |t, p| {
        let value = vec![2.0 * t.sin() * p.cos(), 2.0 * t.sin() * p.sin(), 2.0 * t.cos()];
        (value, [[4.0, 0.0], [0.0, 4.0 * t.sin().powi(2)]])
    });
}

#[test]
fn ellipsoid() {
    check("ellipsoid", &Decoder::ellipsoid([3.0, 2.0, 0.5]), |t, p| {
        let value = vec![3.0 * t.sin() * p.cos(), 2.0 * t.sin() * p.sin(), 0.5 * t.cos()];
        let ((st, ct), (sp, cp)) = (t.sin_cos(), p.sin_cos());
        let tt = ct * ct * (9.0 * cp * cp + 4.0 * sp * sp) + 0.25 * st * st;
        let tp = (4.0 - 9.0) * st * ct * sp * cp;
        (value, [[tt, tp], [tp, st * st * (9.0 * sp * sp + 4.0 * cp * cp)]])
    });
}

#[test]
fn torus() {
    check("torus", &Decoder::torus(2.0, 0.75), |u, v| {
        let ring = 2.0 + 0.75 * v.cos();
        (vec![ring * u.cos(), ring * u.sin(), 0.75 * v.sin()], [[ring * ring, 0.0], [0.0, 0.75 * 0.75]])
    });
}

#[test]
fn clifford_torus() {
    check("clifford torus", &Decoder::clifford_torus(1.5, 0.5), |u, v| {
        (vec![1.5 * u.cos(), 1.5 * u.sin(), 0.5 * v.cos(), 0.5 * v.sin()], [[2.25, 0.0], [0.0, 0.25]])
    });
}

#[test]
fn cylinder() {
    check("cylinder", &Decoder::cylinder(1.5), |u, h| {
        (vec![1.5 * u.cos(), 1.5 * u.sin(), h], [[2.25, 0.0], [0.0, 1.0]])
    });
}

#[test]
fn circle() {
    let t = Random(1).array((200, 1)) * 3.0;
    let model = model::<f64>(&Decoder::circle(2.5));
    let (values, metrics) = (model.decode(t.view()).unwrap(), model.metric(t.view()).unwrap());
    for (p, t) in t.iter().enumerate() {
        let expected = array![2.5 * t.cos(), 2.5 * t.sin()];
        assert!(norm((&values.row(p) - &expected).view()) < 1e-13, "{} at {t}", values.row(p));
        assert!((metrics[[p, 0, 0]] - 6.25).abs() < 1e-13);
    }
}

/// Geodesics between rows of starts and ends, all of which must converge.
fn solve<T: Scalar>(decoder: &Decoder, starts: &Array2<f64>, ends: &Array2<f64>, segments: usize) -> Geodesics<T> {
    let options = Options { segments, ..Options::default() };
    let (starts, ends) = (crate::fixtures::cast(starts), crate::fixtures::cast(ends));
    let found = model::<T>(decoder).geodesics(starts.view(), ends.view(), &options).unwrap();
    assert_eq!(found.count(Status::Converged), found.len(), "{:?}", found.status);
    found
}

/// float32 lengths at N = 64 within 10⁻⁴ of the distances.
fn check_distances(decoder: &Decoder, starts: &Array2<f64>, ends: &Array2<f64>, distance: impl Fn(usize) -> f64) {
    let found = solve::<f32>(decoder, starts, ends, 64);
    for c in 0..found.len() {
        let (length, expected) = (f64::from(found.length[c]), distance(c));
        assert!(gap(length, expected) < 1e-4, "{} to {}: {length}, not {expected}", starts.row(c), ends.row(c));
        let speed = (2.0 * f64::from(found.energy[c])).sqrt();
        assert!(gap(speed, expected) < 1e-4, "{} to {}: √2E = {speed}, not {expected}", starts.row(c), ends.row(c));
    }
}

/// 60 points of the chart away from its poles.
fn charted(random: &mut Random) -> Array2<f64> {
    let column = |random: &mut Random, low: f64, high: f64| {
        Array1::from_shape_simple_fn(60, || low + (high - low) * random.uniform())
    };
    ndarray::stack(Axis(1), &[column(random, 0.5, 2.6).view(), column(random, -1.2, 1.2).view()]).unwrap()
}

/// The great circle's distance arccos⟨x, y⟩, for points less than a quarter of a turn from the chart's middle.
fn on_the_sphere(z: &Array2<f64>) -> Array2<f64> {
    model::<f64>(&Decoder::sphere(1.0)).decode(z.view()).unwrap()
}

#[test]
fn great_circles() {
    let mut random = Random(7);
    let (starts, ends) = (charted(&mut random), charted(&mut random));
    let (x, y) = (on_the_sphere(&starts), on_the_sphere(&ends));
    check_distances(&Decoder::sphere(1.0), &starts, &ends, |c| x.row(c).dot(&y.row(c)).acos());
}

#[test]
fn straight_lines_on_flat_surfaces() {
    let mut random = Random(8);
    let (starts, ends) = (random.array((50, 2)) * 0.5, random.array((50, 2)) * 0.5);
    let step = &ends - &starts;
    for (decoder, [a, b]) in [(Decoder::clifford_torus(1.5, 0.5), [1.5, 0.5]), (Decoder::cylinder(1.5), [1.5, 1.0])] {
        check_distances(&decoder, &starts, &ends, |c| (a * step[[c, 0]]).hypot(b * step[[c, 1]]));
        // The curve itself is straight, and passed at constant speed.
        let found = solve::<f32>(&decoder, &starts, &ends, 64);
        for c in 0..found.len() {
            for i in 0..=64 {
                let point = found.curves.slice(s![c, i, ..]).mapv(f64::from);
                let expected = &starts.row(c) + &step.row(c) * (i as f64 / 64.0);
                assert!(norm((&point - &expected).view()) < 2e-3 * norm(step.row(c)), "{point} instead of {expected}");
            }
        }
    }
}

#[test]
fn arcs_of_a_circle() {
    let (starts, ends) = (array![[0.0], [-0.5], [2.0]], array![[2.0], [1.5], [1.0]]);
    check_distances(&Decoder::circle(2.5), &starts, &ends, |c| 2.5 * (ends[[c, 0]] - starts[[c, 0]]).abs());
}

/// Outer and inner equator and meridians, short enough to be shortest.
#[test]
fn equators_and_meridians_of_a_torus() {
    let starts = array![[0.1, 0.0], [-0.4, PI], [0.3, -0.5], [1.0, FRAC_PI_2]];
    let ends = array![[1.1, 0.0], [1.2, PI], [0.3, 1.0], [1.0, PI]];
    let distances = [2.75, 1.25 * 1.6, 0.75 * 1.5, 0.75 * FRAC_PI_2];
    check_distances(&Decoder::torus(2.0, 0.75), &starts, &ends, |c| distances[c]);
}

/// Pairs on a torus that are neither.
fn skew_pairs() -> (Array2<f64>, Array2<f64>) {
    (array![[0.0, -0.8], [0.2, 0.5], [-0.5, 2.0]], array![[1.0, 1.1], [0.9, 2.5], [0.7, 3.5]])
}

/// A. Clairaut: (R + r cos v)² u̇ is the same all along a geodesic passed at constant speed.
#[test]
fn clairauts_relation() {
    const N: usize = 256;
    let (starts, ends) = skew_pairs();
    let found = solve::<f64>(&Decoder::torus(2.0, 0.75), &starts, &ends, N);
    for curve in found.curves.axis_iter(Axis(0)) {
        let momenta: Vec<f64> = (0..N)
            .map(|i| {
                let v = 0.5 * (curve[[i, 1]] + curve[[i + 1, 1]]);
                (2.0 + 0.75 * v.cos()).powi(2) * (curve[[i + 1, 0]] - curve[[i, 0]]) * N as f64
            })
            .collect();
        let mean = momenta.iter().sum::<f64>() / N as f64;
        for momentum in &momenta {
            assert!(gap(*momentum, mean) < 2e-4, "{momentum} where the mean is {mean}");
        }
    }
}

/// Against curves eight times finer, extrapolated to N = ∞ by the law that [`errors_fall_with_the_square_of_n`] tests.
#[test]
fn skew_geodesics_of_a_torus() {
    let (starts, ends) = skew_pairs();
    let torus = Decoder::torus(2.0, 0.75);
    let (coarse, fine) = (solve::<f64>(&torus, &starts, &ends, 256), solve::<f64>(&torus, &starts, &ends, 512));
    let reference = (&fine.length * 4.0 - &coarse.length) / 3.0;
    check_distances(&torus, &starts, &ends, |c| reference[c]);
}

/// Chords cut corners: a segment of length s on a curve of curvature κ is κ² s³/24 short, so N of them are O(1/N²) short.
#[test]
fn errors_fall_with_the_square_of_n() {
    let (starts, ends) = (array![[0.6, 0.0], [1.2, -1.0], [2.2, 0.3]], array![[2.0, 1.2], [1.5, 0.7], [0.9, 1.5]]);
    let (x, y) = (on_the_sphere(&starts), on_the_sphere(&ends));
    let errors: Vec<Vec<f64>> = [8, 16, 32, 64]
        .iter()
        .map(|&segments| {
            let found = solve::<f64>(&Decoder::sphere(1.0), &starts, &ends, segments);
            (0..3).map(|c| x.row(c).dot(&y.row(c)).acos() - found.length[c]).collect()
        })
        .collect();
    for pair in errors.windows(2) {
        for (coarse, fine) in pair[0].iter().zip(&pair[1]) {
            let ratio = coarse / fine;
            assert!((3.9..4.1).contains(&ratio), "error {coarse:e} falls to {fine:e}, by {ratio}");
        }
    }
}
