//! The command's runs: what they write, and that it is what the library computes.

#![cfg(feature = "cli")]

mod command_line;

use std::fs;

use command_line::{Bench, fixture, mlp, write_latents};
use ndarray::{Array1, Array2, Array3, Axis, array, s};
use ndarray_npy::read_npy;
use pullback::{Decoder, Device, Model, Options};

fn prepared(rows: usize) -> (Bench, Array2<f32>, Array2<f32>) {
    let bench = Bench::new();
    let latents: Array2<f32> = read_npy(fixture("digits-d2-tanh.latents.npy")).expect("fixture");
    let (starts, ends) = (latents.slice(s![..rows, ..]).to_owned(), latents.slice(s![rows..2 * rows, ..]).to_owned());
    write_latents(&bench.path("a.npy"), &starts);
    write_latents(&bench.path("b.npy"), &ends);
    fs::copy(fixture("digits-d2-tanh.safetensors"), bench.path("d.safetensors")).expect("copy");
    (bench, starts, ends)
}

fn digits_model() -> Model {
    let decoder = Decoder::open(fixture("digits-d2-tanh.safetensors")).expect("decoder");
    Device::cpu().load(&decoder).expect("model")
}

/// On the processor, whose bits the library's are held against.
const RUN: [&str; 9] =
    ["geodesics", "--decoder", "d.safetensors", "--starts", "a.npy", "--ends", "b.npy", "--device", "cpu"];

#[test]
fn geodesics_writes_what_the_library_computes() {
    let (bench, starts, ends) = prepared(40);
    let run = bench.run(&RUN);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(run.stderr, "", "nothing on stderr when piped");
    assert!(run.stdout.contains("40 curves"), "{}", run.stdout);

    let expected = digits_model().geodesics(starts.view(), ends.view(), &Options::default()).expect("geodesics");
    let out = bench.path("pullback-out");
    let curves: Array3<f32> = read_npy(out.join("curves.npy")).expect("curves");
    assert_eq!(curves, expected.curves);
    let one = |name: &str| -> Array1<f32> { read_npy(out.join(name)).expect(name) };
    assert_eq!(one("energy.npy"), expected.energy);
    assert_eq!(one("length.npy"), expected.length);
    assert_eq!(one("gradient_norm.npy"), expected.gradient_norm);
    let iterations: Array1<u32> = read_npy(out.join("iterations.npy")).expect("iterations");
    assert_eq!(iterations, expected.iterations);
    let status: Array1<u8> = read_npy(out.join("status.npy")).expect("status");
    assert_eq!(status.to_vec(), expected.status.iter().map(|&s| s as u8).collect::<Vec<_>>());

    let record = bench.record("pullback-out");
    assert_eq!(record["command"], "geodesics");
    assert_eq!(record["curves"], 40);
    assert_eq!(record["segments"], 32);
    assert_eq!(record["status"]["converged"], 40);
    assert_eq!((&record["device"], &record["device_name"]), (&"cpu".into(), &serde_json::Value::Null));
    assert_eq!(record["timings"].get("device_seconds"), None, "the processor has no kernels");
    let seconds = |key: &str| record["timings"][key].as_f64().expect("a time");
    assert!(0.0 < seconds("solve_seconds") && seconds("solve_seconds") <= seconds("total_seconds"));
    assert_eq!(bench.names(), ["a.npy", "b.npy", "d.safetensors", "pullback-out"], "no temporary folder is left");
}

#[test]
fn small_batches_and_other_threads_change_no_bit() {
    let (bench, ..) = prepared(23);
    let whole = bench.run(&[&RUN[..], &["--out", "whole"]].concat());
    let parts = bench.run(&[&RUN[..], &["--out", "parts", "--batch", "5", "--threads", "1"]].concat());
    assert_eq!((whole.code, parts.code), (0, 0), "{}", parts.stderr);
    for name in ["curves.npy", "energy.npy", "length.npy", "gradient_norm.npy", "iterations.npy", "status.npy"] {
        let read = |run: &str| fs::read(bench.path(run).join(name)).expect(name);
        assert_eq!(read("whole"), read("parts"), "{name}");
    }
}

#[test]
fn json_is_one_object_on_stdout_and_quiet_is_silent() {
    let (bench, ..) = prepared(3);
    let run = bench.run(&[&RUN[..], &["--json"]].concat());
    let record: serde_json::Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(record["curves"], 3);
    let run = bench.run(&[&RUN[..], &["--quiet", "--out", "silent"]].concat());
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (0, "", ""));
}

#[test]
fn curves_that_do_not_converge_are_a_warning() {
    let (bench, ..) = prepared(5);
    let run = bench.run(&[&RUN[..], &["--max-iterations", "1"]].concat());
    assert_eq!(run.code, 0);
    assert!(run.stderr.starts_with("warning: 5 of 5 curves did not converge"), "{}", run.stderr);
    assert_eq!(run.stderr.lines().count(), 1);
}

/// The file's decoder with one more latent, which changes nothing.
#[test]
fn a_dead_latent_is_a_warning() {
    let (bench, starts, ends) = prepared(6);
    let alive = Decoder::open(bench.path("d.safetensors")).expect("decoder");
    let mut layers: Vec<(Array2<f32>, Array1<f32>)> =
        alive.heads()[0].layers().iter().map(|l| (l.weight.mapv(|w| w as f32), l.bias.mapv(|b| b as f32))).collect();
    let first = &mut layers[0].0;
    *first = ndarray::concatenate![Axis(1), first.view(), Array2::zeros((first.nrows(), 1))];
    mlp(&bench.path("d.safetensors"), &layers, &[("activation", "tanh")]);
    let third = Array2::from_shape_fn((6, 1), |(row, _)| row as f32);
    write_latents(&bench.path("a.npy"), &ndarray::concatenate![Axis(1), starts, third]);
    write_latents(&bench.path("b.npy"), &ndarray::concatenate![Axis(1), ends, third]);
    let run = bench.run(&RUN);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.starts_with("warning: the metric is singular at 12 of 12 ends"), "{}", run.stderr);
    assert_eq!(run.stderr.lines().count(), 1);
    let record = bench.record("pullback-out");
    assert_eq!((&record["status"]["converged"], &record["singular_ends"]["singular"]), (&6.into(), &12.into()));
    let curves: Array3<f32> = read_npy(bench.path("pullback-out/curves.npy")).expect("curves");
    for (row, curve) in curves.outer_iter().enumerate() {
        assert!(curve.column(2).iter().all(|&z| (z - row as f32).abs() < 1e-3), "wanders: {curve}");
    }
    let run = bench.run(&[&RUN[..], &["--epsilon", "1e-3", "--out", "mended"]].concat());
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
}

#[test]
fn identical_endpoints_are_a_curve_of_length_zero() {
    let (bench, ..) = prepared(4);
    fs::copy(bench.path("a.npy"), bench.path("b.npy")).expect("copy");
    let run = bench.run(&RUN);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let length: Array1<f32> = read_npy(bench.path("pullback-out/length.npy")).expect("length");
    let status: Array1<u8> = read_npy(bench.path("pullback-out/status.npy")).expect("status");
    assert_eq!(length, Array1::<f32>::zeros(4));
    assert_eq!(status, Array1::<u8>::zeros(4));
    assert_eq!(bench.run(&["plot", "pullback-out"]).code, 0, "points can be drawn too");
}

#[test]
fn a_decoder_that_overflows_spoils_its_own_curve_only() {
    let bench = Bench::new();
    // relu(1e30 z) · 1e30 is beyond float32 for z = 1e9, and 0 for z < 0.
    let layers = [(array![[1e30_f32], [1.0]], array![0.0_f32, 5.0]), (array![[1e30_f32, 1.0]], array![0.0_f32])];
    mlp(&bench.path("d.safetensors"), &layers, &[("activation", "relu")]);
    write_latents(&bench.path("a.npy"), &array![[-1.0_f32], [1e9], [-2.0]]);
    write_latents(&bench.path("b.npy"), &array![[-2.0_f32], [2e9], [-3.0]]);
    let run = bench.run(&RUN);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("1 non-finite"), "{}", run.stderr);
    let status: Array1<u8> = read_npy(bench.path("pullback-out/status.npy")).expect("status");
    assert_eq!(status, array![0, 3, 0]);
}

#[test]
fn a_run_is_replaced_only_when_asked() {
    let (bench, ..) = prepared(3);
    assert_eq!(bench.run(&RUN).code, 0);
    fs::write(bench.path("pullback-out/notes.txt"), "mine").expect("write");
    let before = fs::read(bench.path("pullback-out/curves.npy")).expect("curves");
    let again = [&RUN[..], &["--segments", "8"]].concat();
    bench.refuses(&again, &["pullback-out", "holds a run", "--overwrite"]);
    assert_eq!(fs::read(bench.path("pullback-out/curves.npy")).expect("curves"), before);

    let run = bench.run(&[&again[..], &["--overwrite"]].concat());
    assert_eq!(run.code, 0, "{}", run.stderr);
    let curves: Array3<f32> = read_npy(bench.path("pullback-out/curves.npy")).expect("curves");
    assert_eq!(curves.dim(), (3, 9, 2));
    assert_eq!(fs::read_to_string(bench.path("pullback-out/notes.txt")).expect("notes"), "mine");
    assert_eq!(bench.names(), ["a.npy", "b.npy", "d.safetensors", "pullback-out"]);
}

#[test]
fn a_failed_run_leaves_the_former_one() {
    let (bench, ..) = prepared(3);
    assert_eq!(bench.run(&RUN).code, 0);
    let before = fs::read(bench.path("pullback-out/run.json")).expect("record");
    write_latents(&bench.path("b.npy"), &array![[0.0_f32, f32::NAN]]);
    assert_eq!(bench.run(&[&RUN[..], &["--overwrite"]].concat()).code, 2);
    assert_eq!(fs::read(bench.path("pullback-out/run.json")).expect("record"), before);
}

#[test]
fn latents_are_read_in_every_sensible_form() {
    let (bench, starts, _) = prepared(6);
    assert_eq!(bench.run(&[&RUN[..], &["--out", "plain"]].concat()).code, 0);
    let expected = fs::read(bench.path("plain/curves.npy")).expect("curves");
    let numbers: Vec<f32> = starts.iter().copied().collect();
    let transposed: Vec<f32> = starts.t().iter().copied().collect();
    let forms: [(&str, bool, Vec<u8>); 4] = [
        ("<f4", true, transposed.iter().flat_map(|x| x.to_le_bytes()).collect()),
        (">f4", false, numbers.iter().flat_map(|x| x.to_be_bytes()).collect()),
        ("<f8", false, numbers.iter().flat_map(|x| f64::from(*x).to_le_bytes()).collect()),
        (">f8", true, transposed.iter().flat_map(|x| f64::from(*x).to_be_bytes()).collect()),
    ];
    for (k, (descr, fortran, bytes)) in forms.into_iter().enumerate() {
        command_line::write_npy_bytes(&bench.path("a.npy"), descr, fortran, "(6, 2)", &bytes);
        let out = format!("form-{k}");
        let run = bench.run(&[&RUN[..], &["--out", &out]].concat());
        assert_eq!(run.code, 0, "{descr} {fortran}: {}", run.stderr);
        assert_eq!(fs::read(bench.path(&out).join("curves.npy")).expect("curves"), expected, "{descr} {fortran}");
    }
    command_line::write_npy_bytes(&bench.path("a.npy"), "<f2", false, "(6, 2)", &[0x00, 0x3c].repeat(12));
    assert_eq!(bench.run(&[&RUN[..], &["--out", "half"]].concat()).code, 0);
    let curves: Array3<f32> = read_npy(bench.path("half/curves.npy")).expect("curves");
    assert!(curves.slice(s![.., 0, ..]).iter().all(|&v| v == 1.0), "0x3c00 is 1 in float16");
}

#[test]
fn info_describes_a_decoder() {
    let (bench, ..) = prepared(1);
    let run = bench.run(&["info", "d.safetensors"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    for text in ["latent dimension 2", "data dimension 64", "tanh", "compression"] {
        assert!(run.stdout.contains(text), "{text} in {}", run.stdout);
    }
    let run = bench.run(&["info", "d.safetensors", "--json"]);
    let record: serde_json::Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(record["decoder"]["latent_dim"], 2);
    assert_eq!(record["decoder"]["geometry"], "Euclidean");
    let ensemble = bench.run(&["info", fixture("digits-d2-ensemble.safetensors").to_str().expect("UTF-8")]);
    assert!(ensemble.stdout.contains("metric: expected, of an ensemble of 10 members"), "{}", ensemble.stdout);
    assert_eq!(bench.run(&["info"]).code, 0);
    mlp(&bench.path("bare.safetensors"), &command_line::two_layers(), &[]);
    let run = bench.run(&["info", "bare.safetensors"]);
    assert_eq!(run.code, 0);
    assert!(run.stdout.contains("activation: not in the file, give --activation"), "{}", run.stdout);
}

#[test]
fn the_demo_draws_and_its_next_commands_work() {
    let bench = Bench::new();
    let run = bench.run(&["demo"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let check = |folder: &str, pictures: &[&str]| {
        for name in pictures {
            let size = image::image_dimensions(bench.path(folder).join(name)).expect(name);
            assert!((1200..=1700).contains(&size.0) && (400..=1700).contains(&size.1), "{name}: {size:?}");
        }
    };
    check("pullback-demo", &["latent-plane.png", "digit-strips.png", "speed.png", "mean-and-expected.png"]);
    assert_eq!(bench.record("pullback-demo")["command"], "demo");
    let again = bench.run(&["demo", "--quiet"]);
    assert_eq!(again.code, 0, "a former demo is replaced: {}", again.stderr);

    let commands: Vec<&str> = run.stdout.lines().filter_map(|line| line.strip_prefix("  pullback ")).collect();
    assert_eq!(commands.len(), 2, "{}", run.stdout);
    for command in commands {
        let run = bench.run(&command.split(' ').collect::<Vec<_>>());
        assert_eq!(run.code, 0, "{command}: {}", run.stderr);
    }
    let read = |path: &str| fs::read(bench.path(path)).expect(path);
    assert_eq!(read("my-run/curves.npy"), read("pullback-demo/curves.npy"));
    check("my-run", &["curves.png", "lengths.png", "speeds.png"]);
    bench.refuses(&["demo", "--out", "my-run"], &["my-run", "holds a run of `pullback geodesics`"]);
}

#[test]
fn plot_draws_other_latent_dimensions() {
    for d in [1, 3] {
        let bench = Bench::new();
        let weight = Array2::from_shape_fn((4, d), |(i, j)| (i as f32 - 1.5) * 0.3 + j as f32 * 0.2);
        let layers = [(weight, Array1::zeros(4)), (Array2::eye(4), Array1::zeros(4))];
        mlp(&bench.path("d.safetensors"), &layers, &[("activation", "tanh")]);
        let latents = |shift: f32| Array2::from_shape_fn((5, d), |(i, j)| i as f32 * 0.4 - j as f32 + shift);
        write_latents(&bench.path("a.npy"), &latents(0.0));
        write_latents(&bench.path("b.npy"), &latents(1.0));
        assert_eq!(bench.run(&RUN).code, 0);
        let run = bench.run(&["plot", "pullback-out"]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert!(bench.path("pullback-out/curves.png").exists());
        fs::rename(bench.path("d.safetensors"), bench.path("moved.safetensors")).expect("rename");
        bench.refuses(&["plot", "pullback-out"], &["d.safetensors is not there", "--decoder"]);
        assert_eq!(bench.run(&["plot", "pullback-out", "--decoder", "moved.safetensors"]).code, 0);
    }
}
