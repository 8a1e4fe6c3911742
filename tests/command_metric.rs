//! `pullback metric` and the maps that `pullback plot` draws of it: they are what the library computes, on points and on grids.

#![cfg(feature = "cli")]

mod command_line;

use std::fs;

use command_line::{Bench, fixture, mlp, two_layers, write_latents};
use ndarray::{Array1, Array2, array, s};
use ndarray_npy::{ReadableElement, read_npy};
use pullback::{Decoder, Device, Model};

const EVERYTHING: &str = "truncated,curvature,singular,dimension,rank,condition,spectrum,logdet,volume,metric";

/// A folder with a decoder of digits and encoded ones.
fn digits(name: &str, rows: usize) -> (Bench, Array2<f32>, Model) {
    let bench = Bench::new();
    let file = format!("{name}.safetensors");
    fs::copy(fixture(&file), bench.path("d.safetensors")).expect("copy");
    let latents: Array2<f32> = read_npy(fixture(&format!("{name}.latents.npy"))).expect("fixture");
    let latents = latents.slice(s![..rows, ..]).to_owned();
    write_latents(&bench.path("z.npy"), &latents);
    let model = Device::cpu().load(&Decoder::open(fixture(&file)).expect("decoder")).expect("model");
    (bench, latents, model)
}

fn metric<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["metric", "--decoder", "d.safetensors", "--device", "cpu", "--out", "m"], more].concat()
}

/// An array of a run.
fn read<A: ReadableElement, D: ndarray::Dimension>(bench: &Bench, name: &str) -> ndarray::Array<A, D> {
    read_npy(bench.path("m").join(name)).expect(name)
}

#[test]
fn every_quantity_is_what_the_library_computes() {
    for name in ["digits-d2-tanh", "digits-d8-softplus"] {
        // More than one batch of them.
        let (bench, points, model) = digits(name, 1500);
        let run = bench.run(&metric(&["--points", "z.npy", "--compute", EVERYTHING, "--threshold", "0.3"]));
        assert_eq!((run.code, run.stderr.as_str()), (0, ""));
        let z = points.view();
        let scalars = |name: &str| read::<f32, ndarray::Ix1>(&bench, name);
        let blocks = |name: &str| read::<f32, ndarray::Ix3>(&bench, name);
        assert_eq!(blocks("metric.npy"), model.metric(z).expect("metric"));
        assert_eq!(scalars("volume.npy"), model.volume(z).expect("volume"));
        assert_eq!(scalars("logdet.npy"), model.log_det(z).expect("log det"));
        let spectrum = model.spectrum(z).expect("spectrum");
        assert_eq!(read::<f32, ndarray::Ix2>(&bench, "eigenvalues.npy"), spectrum.values);
        assert_eq!(blocks("eigenvectors.npy"), spectrum.vectors);
        assert_eq!(scalars("condition.npy"), spectrum.condition());
        assert_eq!(scalars("dimension.npy"), spectrum.intrinsic_dimension());
        let ranks = spectrum.effective_rank(0.3).expect("ranks").mapv(|rank| rank as u32);
        assert_eq!(read::<u32, ndarray::Ix1>(&bench, "rank.npy"), ranks);
        assert!(ranks.iter().min() < ranks.iter().max(), "the threshold tells points apart");
        let singular = model.singular(z).expect("singular");
        assert_eq!(read::<f32, ndarray::Ix2>(&bench, "singular_values.npy"), singular.values);
        assert_eq!(blocks("left_vectors.npy"), singular.left);
        assert_eq!(blocks("right_vectors.npy"), singular.right);
        assert_eq!(blocks("truncated_metric.npy"), model.truncated_metric(z, 0.3).expect("truncated").0);
        let (curvature, what) = match points.ncols() {
            2 => (model.gaussian_curvature(z), "Gaussian curvature"),
            _ => (model.scalar_curvature(z), "scalar curvature"),
        };
        let curvature = curvature.expect("curvature");
        assert_eq!(scalars("curvature.npy"), curvature);

        let record = bench.record("m");
        assert_eq!(record["quantities"]["curvature"]["what"], what);
        assert_eq!((&record["threshold"], &record["not_finite"]), (&0.3.into(), &0.into()));
        let least = curvature.iter().copied().fold(f32::INFINITY, f32::min);
        // As float32: serde_json reads numbers that it wrote itself to within a digit of float64 only.
        let recorded = record["quantities"]["curvature"]["range"][0].as_f64().expect("a number");
        assert_eq!(recorded as f32, least);
        assert_eq!(record["compute"].as_array().map(Vec::len), Some(10));
        for line in ["metric G: finite everywhere", "effective rank (threshold 0.3): ", what] {
            assert!(run.stdout.contains(line), "{line} in {}", run.stdout);
        }
    }
}

#[test]
fn only_what_is_asked_for_is_written() {
    let (bench, ..) = digits("digits-d2-tanh", 5);
    assert_eq!(bench.run(&metric(&["--points", "z.npy", "--compute", "rank"])).code, 0);
    let names = |bench: &Bench| {
        let entries = fs::read_dir(bench.path("m")).expect("folder");
        let mut names: Vec<_> = entries.map(|e| e.expect("entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&bench), ["rank.npy", "run.json"]);
    let threshold = bench.record("m")["threshold"].as_f64().expect("the default threshold");
    assert!(1e-7 < threshold && threshold < 1e-4, "{threshold}");
    assert_eq!(bench.run(&metric(&["--points", "z.npy", "--overwrite"])).code, 0);
    assert_eq!(names(&bench), ["metric.npy", "run.json", "volume.npy"], "a former run's files go");
}

#[test]
fn a_grid_is_computed_at_its_own_points() {
    let (bench, latents, model) = digits("digits-d2-tanh", 200);
    let run = bench.run(&metric(&["--grid", "5x3", "--extent", "-1,3,0,1"]));
    assert_eq!(run.code, 0, "{}", run.stderr);
    let points: Array2<f32> = read(&bench, "points.npy");
    let expected = Array2::from_shape_fn((15, 2), |(k, axis)| [(k % 5) as f32 - 1.0, (k / 5) as f32 * 0.5][axis]);
    assert_eq!(points, expected);
    assert_eq!(read::<f32, ndarray::Ix1>(&bench, "volume.npy"), model.volume(points.view()).expect("volume"));

    let run = bench.run(&metric(&["--grid", "20", "--around", "z.npy", "--overwrite"]));
    assert_eq!(run.code, 0, "{}", run.stderr);
    let points: Array2<f32> = read(&bench, "points.npy");
    assert_eq!(points.dim(), (400, 2));
    for axis in [0, 1] {
        let range = |rows: &Array2<f32>| {
            rows.column(axis)
                .iter()
                .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &v| (low.min(v), high.max(v)))
        };
        let ((low, high), (from, to)) = (range(&latents), range(&points));
        assert!(from < low && to > high && to - from < 1.5 * (high - low), "{low}..{high} in {from}..{to}");
    }
    assert_eq!(read::<f32, ndarray::Ix2>(&bench, "around.npy"), latents);
    let run = bench.run(&metric(&["--grid", "2", "--overwrite"]));
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(
        read::<f32, ndarray::Ix2>(&bench, "points.npy"),
        array![[-3.0, -3.0], [3.0, -3.0], [-3.0, 3.0], [3.0, 3.0]]
    );
    assert!(!bench.path("m/around.npy").exists(), "of the former run");
}

#[test]
fn points_that_are_not_finite_are_counted() {
    let bench = Bench::new();
    let layers = [(array![[1e30_f32], [1.0]], array![0.0_f32, 5.0]), (array![[1e30_f32, 1.0]], array![0.0_f32])];
    mlp(&bench.path("d.safetensors"), &layers, &[("activation", "relu")]);
    write_latents(&bench.path("z.npy"), &array![[-1.0_f32], [1.0], [-2.0]]);
    let run = bench.run(&metric(&["--points", "z.npy", "--compute", "metric,volume,condition"]));
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(run.stderr, "warning: results are not finite at 1 of 3 points\n");
    assert!(run.stdout.contains("metric G: not finite at 1 point\n"), "{}", run.stdout);
    assert!(run.stdout.contains("volume element √det G: 1, not finite at 1 point\n"), "{}", run.stdout);
    let record = bench.record("m");
    assert_eq!((&record["not_finite"], &record["quantities"]["volume"]["not_finite"]), (&1.into(), &1.into()));
    let volume: Array1<f32> = read(&bench, "volume.npy");
    assert!(volume[0] == 1.0 && !volume[1].is_finite() && volume[2] == 1.0, "{volume}");
}

#[test]
fn maps_are_drawn_of_grids_and_of_points() {
    let (bench, ..) = digits("digits-d2-tanh", 300);
    let pictures = ["volume.png", "logdet.png", "condition.png", "rank.png", "dimension.png", "curvature.png"];
    for place in [&["--grid", "30x20", "--around", "z.npy"][..], &["--points", "z.npy"]] {
        let compute = ["--compute", EVERYTHING, "--threshold", "0.1", "--overwrite"];
        assert_eq!(bench.run(&metric(&[place, &compute].concat())).code, 0);
        assert!(!bench.path("m/volume.png").exists(), "pictures of a former run go");
        let run = bench.run(&["plot", "m", "--json"]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        let result: serde_json::Value = serde_json::from_str(&run.stdout).expect("JSON");
        assert_eq!(result["pictures"], serde_json::json!(pictures));
        for name in pictures {
            let image = image::open(bench.path("m").join(name)).expect(name).into_rgb8();
            assert_eq!(image.width(), 1600, "{name}");
            let mut colours: Vec<_> = image.pixels().map(|p| p.0).collect();
            colours.sort_unstable();
            colours.dedup();
            assert!(colours.len() > 50, "{name}: {} colours", colours.len());
        }
    }
}

#[test]
fn a_field_of_one_value_or_of_none_is_drawn_too() {
    let bench = Bench::new();
    let flat = [(Array2::<f32>::eye(2), Array1::zeros(2)), (Array2::eye(2), Array1::zeros(2))];
    let singular = [(array![[1.0_f32, 0.0], [1.0, 0.0]], Array1::zeros(2)), (Array2::eye(2), Array1::zeros(2))];
    for layers in [flat, singular] {
        mlp(&bench.path("d.safetensors"), &layers, &[("activation", "identity")]);
        let compute = ["--grid", "4", "--compute", EVERYTHING, "--overwrite"];
        assert_eq!(bench.run(&metric(&compute)).code, 0);
        let run = bench.run(&["plot", "m"]);
        assert_eq!(run.code, 0, "{}", run.stderr);
    }
}

#[test]
fn runs_that_are_no_map_are_refused_by_plot() {
    let (bench, ..) = digits("digits-d8-softplus", 5);
    assert_eq!(bench.run(&metric(&["--points", "z.npy"])).code, 0);
    bench.refuses(&["plot", "m"], &["run.json", "expected a run of 2 latents", "found 8"]);
    let (bench, ..) = digits("digits-d2-tanh", 5);
    assert_eq!(bench.run(&metric(&["--points", "z.npy", "--compute", "metric,singular"])).code, 0);
    bench.refuses(&["plot", "m"], &["run.json", "one of volume, logdet", "found metric, singular"]);
    assert_eq!(bench.run(&metric(&["--points", "z.npy", "--overwrite"])).code, 0);
    write_latents(&bench.path("z.npy"), &Array2::zeros((4, 2)));
    bench.refuses(&["plot", "m"], &["z.npy", "expected the run's 5 points, found 4"]);
    write_latents(&bench.path("z.npy"), &Array2::zeros((5, 2)));
    ndarray_npy::write_npy(bench.path("m/volume.npy"), &Array1::<f32>::zeros(7)).expect("write");
    bench.refuses(&["plot", "m"], &["volume.npy", "expected shape [5], found [7]"]);
}

#[test]
fn what_cannot_be_computed_is_refused() {
    let bench = Bench::new();
    mlp(&bench.path("d.safetensors"), &two_layers(), &[("activation", "tanh")]);
    write_latents(&bench.path("z.npy"), &array![[0.0_f32, 0.0]]);
    let refuses = |more: &[&str], parts: &[&str]| bench.refuses(&metric(more), parts);
    let points = ["--points", "z.npy"];
    refuses(&[], &["--points", "--grid"]);
    refuses(&["--points", "z.npy", "--grid", "9"], &["--points", "--grid", "cannot be used with"]);
    refuses(&["--points", "z.npy", "--extent", "0,1,0,1"], &["--extent"]);
    refuses(&["--points", "z.npy", "--around", "z.npy"], &["--around"]);
    refuses(
        &[&points[..], &["--compute", "volume,wobble"]].concat(),
        &["wobble", "metric, volume, logdet", "truncated"],
    );
    refuses(&[&points[..], &["--compute", ""]].concat(), &["--compute", "metric, volume"]);
    for threshold in ["1", "-0.1", "NaN"] {
        let parts = ["--threshold", "a number from 0 to 1, without 1", threshold];
        refuses(&[&points[..], &["--compute", "rank", "--threshold", threshold]].concat(), &parts);
    }
    refuses(&[&points[..], &["--threshold", "0.1"]].concat(), &["--threshold", "rank or truncated", "metric,volume"]);
    for size in ["0", "1", "5x0", "x", "-3", "70000", "4.5", "3x3x3"] {
        refuses(&["--grid", size], &["--grid", "from 2 to 65536"]);
    }
    for (extent, part) in [
        ("0,1,0", "four numbers"),
        ("0,1,0,1,2", "four numbers"),
        ("a,1,0,1", "four numbers"),
        ("0,NaN,0,1", "finite numbers, found x from 0 to NaN"),
        ("0,1,-inf,1", "finite numbers, found y from -inf to 1"),
        ("1,0,0,1", "x0 below x1, found 1 and 0"),
        ("0,1,2,2", "y0 below y1, found 2 and 2"),
        ("0,1e300,0,1", "float32 can hold"),
    ] {
        refuses(&["--grid", "5", "--extent", extent], &["--extent", part]);
    }
    refuses(&["--grid", "5", "--around", "no.npy"], &["no.npy", "No such file"]);
    write_latents(&bench.path("three.npy"), &Array2::zeros((4, 3)));
    refuses(&["--grid", "5", "--around", "three.npy"], &["three.npy", "dimension 2", "found 3"]);
    mlp(&bench.path("d.safetensors"), &[(Array2::zeros((2, 3)), Array1::zeros(2))], &[]);
    refuses(&["--grid", "5"], &["--grid", "a decoder of 2 latents", "found 3"]);
}
