//! The command on every device that it can be told to use, and what it says where one is not there.

#![cfg(feature = "cli")]

mod command_line;

use command_line::{Bench, mlp, two_layers, write_latents};
use ndarray::array;
use pullback::Device;

/// A folder with a decoder R² → R³ and two pairs of latents.
fn bench() -> Bench {
    let bench = Bench::new();
    mlp(&bench.path("d.safetensors"), &two_layers(), &[("activation", "tanh")]);
    write_latents(&bench.path("a.npy"), &array![[0.0_f32, 0.0], [1.0, 1.0]]);
    write_latents(&bench.path("b.npy"), &array![[1.0_f32, 0.0], [0.0, 1.0]]);
    bench
}

fn run_on<'a>(device: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let run = ["geodesics", "--decoder", "d.safetensors", "--starts", "a.npy", "--ends", "b.npy", "--device", device];
    [&run[..], more].concat()
}

#[test]
fn names_that_are_no_device() {
    let bench = bench();
    for name in
        ["tpu", "", "gpu", "CUDA", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "cuda:1.5", "cuda:99999999999999999999"]
    {
        let expected = ["--device", "expected cpu, cuda, cuda:N, auto or emulator"];
        bench.refuses(&run_on(name, &[]), &expected);
        bench.refuses(&["metric", "--decoder", "d.safetensors", "--points", "a.npy", "--device", name], &expected);
        bench.refuses(&["demo", "--device", name], &expected);
    }
}

#[test]
fn a_gpu_that_is_not_there() {
    let bench = bench();
    bench.refuses(&run_on("cuda:4096", &[]), &["--device cuda:4096: "]);
    let Err(reason) = Device::cuda(0) else { return };
    assert!(reason.is_input(), "{reason:?}");
    let reason = reason.to_string();
    for name in ["cuda", "cuda:0"] {
        bench.refuses(&run_on(name, &[]), &[&format!("--device {name}: {reason}")]);
        bench.refuses(&run_on(name, &["--out", "new/deep/run"]), &[&reason]);
        bench.refuses(&["demo", "--device", name], &[&reason]);
    }
}

#[test]
fn auto_says_why_it_runs_on_the_processor() {
    let bench = bench();
    let run = bench.run(&run_on("auto", &[]));
    assert_eq!(run.code, 0, "{}", run.stderr);
    let record = bench.record("pullback-out");
    match Device::cuda(0) {
        Ok(gpu) => {
            assert_eq!(run.stderr, "");
            assert_eq!(record["device"], "cuda:0");
            assert_eq!(record["device_name"], gpu.properties().expect("a GPU").name);
            assert!(record["timings"]["device_seconds"].as_f64() > Some(0.0), "{record}");
            assert!(run.stdout.contains(" on the device"), "{}", run.stdout);
        }
        Err(reason) => {
            let reason = reason.to_string();
            let line = reason.lines().next().expect("a reason");
            assert_eq!(run.stderr, format!("running on the processor: {line}\n"));
            assert_eq!(record["device"], "cpu");
            assert!(!run.stdout.contains("on the device"), "{}", run.stdout);
        }
    }
    let run = bench.run(&run_on("auto", &["--quiet", "--overwrite"]));
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (0, "", ""));
}

#[test]
fn info_tells_the_devices() {
    let bench = Bench::new();
    let run = bench.run(&["info", "--json"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let record: serde_json::Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(record["devices"][0]["device"], "cpu");
    let text = bench.run(&["info"]).stdout;
    match Device::cuda(0) {
        Ok(gpu) => {
            let name = gpu.properties().expect("a GPU").name;
            assert_eq!(record["devices"][1]["name"], name.as_str());
            assert_eq!(record["no_gpu"], serde_json::Value::Null);
            assert!(text.contains(&name), "{text}");
        }
        Err(_) => {
            let reason = record["no_gpu"].as_str().expect("a reason");
            assert!(text.contains(&format!("cuda:      none: {reason}\n")), "{text}");
        }
    }
    if cfg!(feature = "cuda") {
        let kernels = record["kernels"].as_object().expect("kernels");
        for name in ["decode_layer", "jacobian_layer", "gram", "chords", "step"] {
            assert!(kernels.contains_key(name) && text.contains(name), "{name}: {text}");
        }
        for line in ["nvcc: ", "nvrtc: ", "cache: "] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
    assert_eq!(text.contains("emulator:"), cfg!(feature = "emulator"), "{text}");
}

#[cfg(not(feature = "emulator"))]
#[test]
fn a_build_without_the_emulator_says_so() {
    bench().refuses(&run_on("emulator", &[]), &["--device emulator", "expected the feature `emulator`"]);
}

#[cfg(feature = "emulator")]
mod emulator {
    use super::*;
    use ndarray::{Array, Array1, Array2, Array3, Dimension, Ix1, Ix3, s};
    use ndarray_npy::{ReadableElement, read_npy};

    fn read<A: ReadableElement, D: Dimension>(bench: &Bench, path: &str) -> Array<A, D> {
        read_npy(bench.path(path)).expect(path)
    }

    /// Largest difference, relative to the largest number.
    fn gap<D: Dimension>(a: &Array<f32, D>, b: &Array<f32, D>) -> f32 {
        let scale = b.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
        a.iter().zip(b).fold(0.0_f32, |worst, (x, y)| worst.max((x - y).abs())) / scale
    }

    /// A failure on the device is the run's, not the caller's, and leaves nothing behind.
    #[test]
    fn a_device_that_is_too_small() {
        let bench = bench();
        let layer = |inputs, outputs| (Array2::from_elem((outputs, inputs), 0.1), Array1::zeros(outputs));
        let wide = [layer(2, 2000), layer(2000, 3)];
        mlp(&bench.path("d.safetensors"), &wide, &[("activation", "tanh")]);
        let run = bench.run(&run_on("emulator", &["--segments", "1000000", "--out", "run"]));
        assert_eq!(run.code, 1, "{}", run.stderr);
        assert!(run.stderr.starts_with("error: emulator: out of memory: "), "{}", run.stderr);
        assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
        assert!(!bench.path("run").exists());
    }

    #[test]
    fn geodesics_agree_with_the_processor() {
        let bench = Bench::new();
        let latents: Array2<f32> = read_npy(command_line::fixture("digits-d2-tanh.latents.npy")).expect("fixture");
        write_latents(&bench.path("a.npy"), &latents.slice(s![..3, ..]).to_owned());
        write_latents(&bench.path("b.npy"), &latents.slice(s![3..6, ..]).to_owned());
        let decoder = command_line::fixture("digits-d2-tanh.safetensors");
        std::fs::copy(decoder, bench.path("d.safetensors")).expect("copy");
        for device in ["cpu", "emulator"] {
            let run = bench.run(&run_on(device, &["--segments", "8", "--out", device]));
            assert_eq!((run.code, run.stderr.as_str()), (0, ""));
            assert_eq!(run.stdout.contains(" s on the device"), device == "emulator", "{}", run.stdout);
        }
        let (energy, expected): (Array1<f32>, Array1<f32>) =
            (read(&bench, "emulator/energy.npy"), read(&bench, "cpu/energy.npy"));
        assert!(gap::<Ix1>(&energy, &expected) < 1e-4, "{energy} {expected}");
        let (curves, expected): (Array3<f32>, Array3<f32>) =
            (read(&bench, "emulator/curves.npy"), read(&bench, "cpu/curves.npy"));
        assert!(gap::<Ix3>(&curves, &expected) < 1e-2, "{curves} {expected}");
        let status: Array1<u8> = read(&bench, "emulator/status.npy");
        assert_eq!(status, array![0, 0, 0]);
        let record = bench.record("emulator");
        assert_eq!((record["device"].as_str(), record["device_name"].as_str()), (Some("emulator"), Some("emulator")));
        let seconds = |key: &str| record["timings"][key].as_f64().expect("a time");
        assert!(0.0 < seconds("device_seconds") && seconds("device_seconds") <= seconds("solve_seconds"), "{record}");
    }

    #[test]
    fn metrics_agree_with_the_processor() {
        let bench = bench();
        for device in ["cpu", "emulator"] {
            let run =
                ["metric", "--decoder", "d.safetensors", "--points", "a.npy", "--device", device, "--out", device];
            let run = bench.run(&run);
            assert_eq!((run.code, run.stderr.as_str()), (0, ""));
        }
        let (metric, expected): (Array3<f32>, Array3<f32>) =
            (read(&bench, "emulator/metric.npy"), read(&bench, "cpu/metric.npy"));
        assert!(gap(&metric, &expected) < 1e-5, "{metric} {expected}");
        let (volume, expected): (Array1<f32>, Array1<f32>) =
            (read(&bench, "emulator/volume.npy"), read(&bench, "cpu/volume.npy"));
        assert!(gap(&volume, &expected) < 1e-5, "{volume} {expected}");
        assert_eq!(bench.record("emulator")["device"], "emulator");
    }
}
