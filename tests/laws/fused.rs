//! The fused kernels of the CUDA path, which hold a decoder's whole chain: every precision, in both builds.
#![cfg(feature = "emulator")]

use crate::fixtures::{Random, bits, cast, decoder, gap, golden, kernels, model, norm, widen, worst_error};
use ndarray::{Array1, Array2, Array3, ArrayView2, Axis, array, s};
use pullback::{
    Activation, Decoder, Device, EmulatorOptions, Energies, Geodesics, Head, Model, Options, Precision, Status,
};

use Precision::{Bf16, Float32, Mixed, Tf32, Tf32x3};

fn load(device: &Device, decoder: &Decoder, precision: Precision) -> Model {
    device.load_with(decoder, precision).unwrap()
}

/// The emulator has kernels for those decoders and precisions alone that its tests name.
fn has(model: &Model, precision: Precision) -> bool {
    let has = model.precision() == precision;
    assert!(has || kernels::device().label() == "emulator" && model.precision() == Float32);
    has
}

/// Pairs whose latents have the size of encoded images.
fn random_pairs(d: usize, count: usize, seed: u64) -> (Array2<f32>, Array2<f32>) {
    let mut random = Random(seed);
    (cast(&random.array((count, d))), cast(&random.array((count, d))))
}

/// Metrics and energies of a decoder against float64, in units of rounding (see `kernels::rounding`).
fn errors(model: &Model, points: usize, seed: u64) -> [f64; 2] {
    let (decoder, d) = (model.decoder(), model.decoder().latent_dim());
    let z: Array2<f32> = cast(&Random(seed).array((points, d)));
    let reference = crate::fixtures::model::<f64>(decoder);
    let metrics = model.metric(z.view()).unwrap();
    let (expected, jacobians) =
        (reference.metric(widen(&z).view()).unwrap(), reference.jacobian(widen(&z).view()).unwrap());
    assert_eq!(metrics.dim(), expected.dim());
    let rounding = kernels::rounding(decoder);
    let larger = |worst: f64, error: f64| if error <= worst || worst.is_nan() { worst } else { error };
    let mut worst = [0.0; 2];
    for (p, metric) in metrics.axis_iter(Axis(0)).enumerate() {
        let size = norm(jacobians.index_axis(Axis(0), p));
        let error = norm((&metric.mapv(f64::from) - &expected.index_axis(Axis(0), p)).view());
        worst[0] = larger(worst[0], error / (rounding * (1.0 + size * size)));
        assert_eq!(metric, metric.t());
    }
    // All points as one curve.
    if points > 1 {
        let curve = z.insert_axis(Axis(0));
        let found = model.energy(curve.view()).unwrap();
        let expected = reference.energy(widen(&curve).view()).unwrap();
        let (segments, length) = ((points - 1) as f64, expected.length[0]);
        // An error of e in every value changes ½N Σ ‖Δ‖² by N e Σ ‖Δ‖, and N e² where chords vanish.
        let e = rounding * (1.0 + length);
        let error = (f64::from(found.energy[0]) - expected.energy[0]).abs();
        worst[1] = larger(error / (segments * e * (length + segments * e)), 0.0);
    }
    worst
}

/// f and G of layers of every width that the kernels tell apart, and of tiles that are full, nearly full, and one point too many.
#[test]
fn metrics_and_energies_are_the_references() {
    let networks: [(&[usize], &[usize]); 9] = [
        (&[2, 64, 64, 64], &[0, 1, 2, 127, 128, 129, 300]),
        (&[1, 64, 5], &[130]),
        (&[3, 70, 127], &[0, 1, 127, 128, 129]),
        (&[9, 128, 100, 37], &[14, 15, 128, 260]),
        (&[32, 128, 65], &[5, 129]),
        (&[5, 200, 40], &[25, 26, 129]),
        (&[2, 192, 193, 256], &[65]),
        (&[2, 300, 50], &[1, 64, 65]),
        (&[7, 512, 40, 512], &[20]),
    ];
    for (k, (widths, counts)) in networks.into_iter().enumerate() {
        let activations = [Activation::COMMON[(3 + 2 * k) % 12], Activation::COMMON[(5 + k) % 12]];
        let decoder = Random(k as u64).decoder(widths, activations[0], activations[1]);
        for device in kernels::generations() {
            let model = load(&device, &decoder, Tf32x3);
            assert_eq!(model.precision(), Tf32x3, "{widths:?}");
            for &points in counts {
                let errors = errors(&model, points, points as u64);
                assert!(errors.iter().all(|&e| e <= 4.0), "{widths:?}, {activations:?}, {points} points: {errors:?}");
            }
        }
    }
}

/// Several heads of different depth and width.
#[test]
fn heads_are_added_up() {
    let mut random = Random(3);
    let heads = |random: &mut Random, widths: [&[usize]; 2]| {
        let head = |(k, widths): (usize, &&[usize])| {
            random.head(&format!("{k}"), widths, [Activation::Gelu, Activation::Tanh][k], Activation::Softplus)
        };
        Decoder::new(widths.iter().enumerate().map(head).collect::<Vec<Head>>()).unwrap()
    };
    for widths in [[&[3, 64, 40][..], &[3, 37, 5, 64]], [&[8, 5], &[8, 128, 70, 9]]] {
        let decoder = heads(&mut random, widths);
        for device in kernels::generations() {
            let model = load(&device, &decoder, Tf32x3);
            assert_eq!(model.precision(), Tf32x3);
            let errors = errors(&model, 150, 4);
            assert!(errors.iter().all(|&e| e <= 4.0), "{widths:?}: {errors:?}");
        }
    }
}

/// What the fused kernels do not take is computed in float32.
#[test]
fn other_decoders_are_computed_in_float32() {
    let chain = |widths: &[usize]| Random(1).decoder(widths, Activation::Tanh, Activation::Sigmoid);
    let deep = vec![5; 18]; // 17 layers
    let heads = |count: usize| {
        let head = |k: usize| Random(k as u64).head(&format!("{k}"), &[2, 3], Activation::Tanh, Activation::Tanh);
        Decoder::new((0..count).map(head).collect()).unwrap()
    };
    for (decoder, expected) in [
        (chain(&[2, 512, 3]), Tf32x3),
        (chain(&[2, 513, 3]), Float32),
        (chain(&[2, 3, 513]), Float32),
        (chain(&[32, 128, 3]), Tf32x3),
        (chain(&[33, 128, 3]), Float32),
        (chain(&[16, 257, 3]), Tf32x3),
        (chain(&[17, 257, 3]), Float32),
        (chain(&deep[1..]), Tf32x3),
        (chain(&deep), Float32),
        (heads(4), Tf32x3),
        (heads(5), Float32),
    ] {
        for device in kernels::generations() {
            let model = load(&device, &decoder, Tf32x3);
            assert_eq!(model.precision(), expected);
            assert_eq!(load(&device, &decoder, Float32).precision(), Float32);
            let errors = errors(&model, 3, 2);
            assert!(errors.iter().all(|&e| e <= 8.0), "{errors:?}");
        }
    }
    let old = kernels::emulator(&EmulatorOptions { compute: (7, 5), ..EmulatorOptions::default() });
    assert_eq!(load(&old, &decoder("digits-d2-tanh"), Tf32x3).precision(), Float32);
}

/// Factors of 11 and of 8 significant bits: errors of half a unit in the last place of each, which add up like random numbers.
#[test]
fn low_precisions_keep_their_bits() {
    for name in ["digits-d2-tanh", "digits-d8-softplus"] {
        let golden = golden(name);
        for device in kernels::generations() {
            for (precision, unit) in [(Tf32x3, 2f64.powi(-22)), (Tf32, 2f64.powi(-11)), (Bf16, 2f64.powi(-8))] {
                let model = load(&device, &decoder(name), precision);
                if has(&model, precision) {
                    let found = model.metric(cast(&golden.points).view()).unwrap();
                    let error = worst_error(&found, &golden.metrics);
                    assert!(error <= 4.0 * unit, "{name}, {precision}: {error:e}");
                    assert!(precision == Tf32x3 || error >= 0.1 * unit, "{name}, {precision}: too good, {error:e}");
                }
            }
        }
    }
}

/// Golden pairs, solved on the processor in float32, and those curves' energies in float64.
fn on_the_processor(name: &str, pairs: &(Array2<f32>, Array2<f32>), options: &Options) -> Array1<f64> {
    let found = model::<f32>(&decoder(name)).geodesics(pairs.0.view(), pairs.1.view(), options).unwrap();
    exact(name, &found).energy
}

fn exact(name: &str, found: &Geodesics<f32>) -> Energies<f64> {
    model::<f64>(&decoder(name)).energy(widen(&found.curves).view()).unwrap()
}

fn golden_pairs(name: &str, count: usize) -> (Array2<f32>, Array2<f32>) {
    let golden = golden(name);
    let part = s![..count.min(golden.starts.nrows()), ..];
    (cast(&golden.starts.slice(part).to_owned()), cast(&golden.ends.slice(part).to_owned()))
}

/// A device for every build that the decoder has: for layers of 64 numbers there is one.
fn builds(name: &str) -> Vec<Device> {
    if name == "digits-d2-tanh" { vec![kernels::device()] } else { kernels::generations() }
}

/// All converge; what is reported of a curve is what float64 makes of it; and all but 1 % end where the processor's curves end.
fn reaches_the_same_energies(name: &str, count: usize, precision: Precision, options: &Options, least: f64) {
    let pairs = golden_pairs(name, count);
    let count = pairs.0.nrows();
    let expected = on_the_processor(name, &pairs, options);
    for device in builds(name) {
        let model = load(&device, &decoder(name), precision);
        assert_eq!(model.precision(), precision);
        let found = model.geodesics(pairs.0.view(), pairs.1.view(), options).unwrap();
        assert_eq!(found.count(Status::Converged), count, "{name}, {precision}: {:?}", found.status);
        let exact = exact(name, &found);
        let mut worst: f64 = 0.0;
        for c in 0..count {
            let errors = [gap(found.energy[c].into(), exact.energy[c]), gap(found.length[c].into(), exact.length[c])];
            assert!(errors.iter().all(|&e| e <= 1e-5), "{name}, {precision}, curve {c}: {errors:?}");
            worst = worst.max(errors[0]);
        }
        let same = exact.energy.iter().zip(&expected).filter(|(e, f)| gap(**e, **f) <= 1e-4).count();
        eprintln!("{name}, {precision}, {options:?}: {same} of {count} agree, energies within {worst:.1e}");
        assert!(same as f64 >= least * count as f64, "{name}, {precision}: {same} of {count} pairs agree");
        assert_eq!(found.curves.index_axis(Axis(1), 0), pairs.0);
        assert_eq!(found.curves.slice(s![.., -1, ..]), pairs.1);
    }
}

#[test]
fn golden_pairs_reach_the_processors_energies() {
    for precision in [Tf32x3, Mixed] {
        reaches_the_same_energies("digits-d2-tanh", 48, precision, &Options::default(), 0.97);
        reaches_the_same_energies("digits-d8-softplus", 16, precision, &Options::default(), 0.9);
    }
}

#[test]
#[ignore = "minutes on the emulator"]
fn all_golden_pairs_reach_the_processors_energies() {
    for precision in [Tf32x3, Mixed] {
        for name in ["digits-d2-tanh", "digits-d8-softplus"] {
            reaches_the_same_energies(name, usize::MAX, precision, &Options::default(), 0.99);
        }
    }
}

/// Grids of any number, with and without coarser ones before.
#[test]
fn any_number_of_segments() {
    for precision in [Tf32x3, Mixed] {
        for (segments, count) in [(2, 24), (3, 24), (8, 16), (33, 8), (200, 3)] {
            for coarse_to_fine in [true, false] {
                let options = Options { segments, coarse_to_fine, ..Options::default() };
                reaches_the_same_energies("digits-d2-tanh", count, precision, &options, 0.8);
            }
        }
    }
    let options = Options { segments: 130, ..Options::default() };
    reaches_the_same_energies("digits-d8-softplus", 2, Tf32x3, &options, 0.5);
}

/// From the golden curves themselves there is next to nothing to gain.
#[test]
fn golden_curves_are_geodesics() {
    for (name, count) in [("digits-d2-tanh", 24), ("digits-d8-softplus", 8)] {
        let golden = golden(name);
        let curves: Array3<f32> = cast(&golden.best_curves.slice(s![..count, .., ..]).to_owned());
        for device in builds(name) {
            for precision in [Tf32x3, Mixed] {
                let found = load(&device, &decoder(name), precision).geodesics_from(curves.view(), &Options::default());
                let found = found.unwrap();
                for c in 0..count {
                    assert_eq!(found.status[c], Status::Converged, "{name}, {precision}, curve {c}");
                    assert!(
                        gap(found.energy[c].into(), golden.best_energy[c]) < 1e-5,
                        "{name}, {precision}, curve {c}"
                    );
                    assert!(found.iterations[c] <= 4, "{name}, {precision}, curve {c}: {}", found.iterations[c]);
                }
            }
        }
    }
}

/// Lengths at N = 64 within 10⁻⁴ of the distances that geometry knows.
#[test]
fn distances_on_surfaces() {
    let sphere = model::<f64>(&Decoder::sphere(1.0));
    let mut random = Random(7);
    let mut charted = || Array2::from_shape_fn((20, 2), |(_, k)| [0.5, -1.2][k] + [2.1, 2.4][k] * random.uniform());
    let (from, to) = (charted(), charted());
    let (x, y) = (sphere.decode(from.view()).unwrap(), sphere.decode(to.view()).unwrap());
    let great_circles: Vec<f64> = (0..20).map(|c| x.row(c).dot(&y.row(c)).acos()).collect();
    let half = std::f64::consts::FRAC_PI_2;
    let (starts, ends) = (
        array![[0.1, 0.0], [-0.4, 2.0 * half], [0.3, -0.5], [1.0, half]],
        array![[1.1, 0.0], [1.2, 2.0 * half], [0.3, 1.0], [1.0, 2.0 * half]],
    );
    let surfaces = [
        (Decoder::sphere(1.0), from, to, great_circles),
        (Decoder::torus(2.0, 0.75), starts, ends, vec![2.75, 1.25 * 1.6, 0.75 * 1.5, 0.75 * half]),
        (Decoder::circle(2.5), array![[0.0], [2.0]], array![[2.0], [1.0]], vec![5.0, 2.5]),
    ];
    for (decoder, starts, ends, distances) in surfaces {
        for precision in [Tf32x3, Mixed] {
            let model = load(&kernels::device(), &decoder, precision);
            assert_eq!(model.precision(), precision);
            let options = Options { segments: 64, ..Options::default() };
            let found = model.geodesics(cast(&starts).view(), cast(&ends).view(), &options).unwrap();
            for (c, &distance) in distances.iter().enumerate() {
                assert_eq!(found.status[c], Status::Converged);
                let speed = (2.0 * f64::from(found.energy[c])).sqrt();
                for length in [f64::from(found.length[c]), speed] {
                    assert!(gap(length, distance) < 1e-4, "curve {c}: {length}, not {distance}");
                }
            }
        }
    }
}

/// Everything about curve `a` of one result equals curve `b` of another, to the bit.
fn assert_same(what: &str, one: &Geodesics<f32>, a: usize, other: &Geodesics<f32>, b: usize) {
    let numbers = |g: &Geodesics<f32>, c: usize| {
        let sizes = [g.energy[c], g.length[c], g.gradient_norm[c]].map(f32::to_bits);
        (sizes, g.iterations[c], g.status[c], bits(&g.curves.index_axis(Axis(0), c).to_owned()))
    };
    assert!(numbers(one, a) == numbers(other, b), "{what}: curve {a} is another one");
}

fn solve(model: &Model, starts: ArrayView2<'_, f32>, ends: ArrayView2<'_, f32>, segments: usize) -> Geodesics<f32> {
    model.geodesics(starts, ends, &Options { segments, ..Options::default() }).unwrap()
}

/// Devices on which blocks are few or many, and run in one thread or several.
fn devices(compute: (u32, u32)) -> Vec<Device> {
    let of = |multiprocessors, threads| {
        kernels::emulator(&EmulatorOptions {
            compute,
            multiprocessors,
            threads: Some(threads),
            ..EmulatorOptions::default()
        })
    };
    vec![of(1, 1), of(3, 2), of(64, 2)]
}

/// A curve's bits depend neither on how many pass with it, nor on their order, nor on which block and slot it gets, nor on neighbours
/// that overflow.
#[test]
fn neighbours_blocks_and_order_do_not_matter() {
    for (name, count, segments, computes) in
        [("digits-d2-tanh", 24, 16, &[(9, 0)][..]), ("digits-d8-softplus", 10, 16, &[(8, 0), (9, 0)])]
    {
        let (starts, ends) = golden_pairs(name, count);
        for (&compute, precision) in computes.iter().flat_map(|c| [(c, Tf32x3), (c, Mixed)]) {
            let what = format!("{name}, {compute:?}, {precision}");
            let device = kernels::emulator(&EmulatorOptions { compute, ..EmulatorOptions::default() });
            let model = load(&device, &decoder(name), precision);
            assert_eq!(model.precision(), precision);
            let all = solve(&model, starts.view(), ends.view(), segments);
            let part = s![3..7, ..];
            let some = solve(&model, starts.slice(part), ends.slice(part), segments);
            (0..4).for_each(|c| assert_same(&what, &some, c, &all, 3 + c));
            let one = solve(&model, starts.slice(s![5..6, ..]), ends.slice(s![5..6, ..]), segments);
            assert_same(&what, &one, 0, &all, 5);
            for device in devices(compute) {
                let model = load(&device, &decoder(name), precision);
                let back = solve(&model, starts.slice(s![..;-1, ..]), ends.slice(s![..;-1, ..]), segments);
                (0..count).for_each(|c| assert_same(&what, &back, count - 1 - c, &all, c));
            }
            let (mut poisoned, mut poisoned_ends) = (starts.clone(), ends.clone());
            for c in [0, 4, 5] {
                // Far apart, so that their difference overflows and saturated units cannot hide it.
                poisoned.row_mut(c).fill(3e38);
                poisoned_ends.row_mut(c).fill(-3e38);
            }
            let found = solve(&model, poisoned.view(), poisoned_ends.view(), segments);
            for c in 0..count {
                match [0, 4, 5].contains(&c) {
                    false => assert_same(&what, &found, c, &all, c),
                    true => assert_eq!(found.status[c], Status::NonFinite, "{what}, curve {c}"),
                }
            }
        }
    }
}

/// With little memory and one multiprocessor few curves are in work at once, and the ring of pairs turns many times: the same curves.
#[test]
fn a_ring_that_turns_many_times_changes_nothing() {
    let decoder = Random(5).decoder(&[2, 20, 9], Activation::Tanh, Activation::Softplus);
    for (segments, count, memory) in [(2, 200, 120), (3, 160, 120), (8, 120, 160), (33, 90, 250), (200, 50, 600)] {
        let (starts, ends) = random_pairs(2, count, 6);
        for precision in [Tf32x3, Mixed] {
            let plenty = load(&kernels::emulator(&EmulatorOptions::default()), &decoder, precision);
            assert_eq!(plenty.precision(), precision);
            let all = solve(&plenty, starts.view(), ends.view(), segments);
            assert!(all.status.iter().all(|&s| s != Status::NonFinite));
            let options = EmulatorOptions { memory: memory << 10, multiprocessors: 1, ..EmulatorOptions::default() };
            let found =
                solve(&load(&kernels::emulator(&options), &decoder, precision), starts.view(), ends.view(), segments);
            (0..count).for_each(|c| assert_same(&format!("N = {segments}, {precision}"), &found, c, &all, c));
        }
    }
}

/// On a GPU these run under compute-sanitizer, and on the emulator with every access checked.
#[test]
fn small_metrics_in_every_precision() {
    for (widths, points) in [(&[2, 64, 64, 64][..], 5), (&[9, 37, 20], 8), (&[3, 128, 70], 3), (&[2, 130, 5], 1)] {
        let decoder = Random(7).decoder(widths, Activation::Tanh, Activation::Sin);
        for device in kernels::careful_generations() {
            for precision in [Tf32x3, Tf32, Bf16] {
                let model = load(&device, &decoder, precision);
                if has(&model, precision) {
                    let factor = [1.0, 2f64.powi(13), 2f64.powi(16)]
                        [[Tf32x3, Tf32, Bf16].iter().position(|&p| p == precision).unwrap()];
                    let errors = errors(&model, points, 8);
                    assert!(errors.iter().all(|&e| e <= 4.0 * factor), "{widths:?}, {precision}: {errors:?}");
                }
            }
        }
    }
}

#[test]
fn small_geodesics_in_every_precision() {
    for (widths, segments) in [(&[2, 5, 4][..], 3), (&[9, 7, 3, 10], 2), (&[1, 3], 4), (&[3, 70, 5], 4)] {
        let decoder = Random(7).decoder(widths, Activation::Silu, Activation::Identity);
        let (starts, ends) = random_pairs(widths[0], 3, 8);
        for device in kernels::careful_generations() {
            for precision in [Tf32x3, Mixed, Tf32, Bf16] {
                let model = load(&device, &decoder, precision);
                if has(&model, precision) {
                    let found = solve(&model, starts.view(), ends.view(), segments);
                    assert_eq!(found.count(Status::NonFinite), 0, "{widths:?}, {precision}");
                    assert!(found.energy.iter().all(|e| e.is_finite()), "{widths:?}, {precision}");
                }
            }
        }
    }
}
