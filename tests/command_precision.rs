//! The command's `--precision`, and its table of precisions.

#![cfg(feature = "cli")]

mod command_line;

use command_line::{Bench, mlp, two_layers, write_latents};
use ndarray::array;
use pullback::{Decoder, Device, Error, Precision};

/// A folder with a decoder R² → R³ and two pairs of latents.
fn bench() -> Bench {
    let bench = Bench::new();
    mlp(&bench.path("d.safetensors"), &two_layers(), &[("activation", "tanh")]);
    write_latents(&bench.path("a.npy"), &array![[0.0_f32, 0.0], [1.0, 1.0]]);
    write_latents(&bench.path("b.npy"), &array![[1.0_f32, 0.0], [0.0, 1.0]]);
    bench
}

/// Every command that has a precision to choose, with a run of its own.
const RUNS: [&[&str]; 3] = [
    &["geodesics", "--decoder", "d.safetensors", "--starts", "a.npy", "--ends", "b.npy"],
    &["metric", "--decoder", "d.safetensors", "--points", "a.npy"],
    &["demo"],
];

#[test]
fn precisions_have_names() {
    let names = Precision::ALL.map(Precision::name);
    assert_eq!(names, ["float32", "tf32x3", "tf32", "bf16", "mixed"]);
    for precision in Precision::ALL {
        assert_eq!(precision.name().parse::<Precision>().expect("a name"), precision);
        assert_eq!(precision.to_string(), precision.name());
    }
    assert_eq!("TF32-x3".parse::<Precision>().expect("a name"), Precision::Tf32x3);
    assert_eq!(Precision::default(), Precision::Tf32x3);
    let error = "float64".parse::<Precision>().expect_err("no name");
    assert!(matches!(error, Error::Option { .. }) && error.is_input());
    assert_eq!(error.to_string(), "precision: expected float32, tf32x3, tf32, bf16 or mixed, found `float64`");
}

#[test]
fn the_processor_has_one_precision() {
    let device = Device::cpu();
    let points = array![[0.5_f32, -1.0], [2.0, 0.1]];
    let model = device.load(&Decoder::sphere(1.0)).expect("model");
    for precision in Precision::ALL {
        let same = device.load_with(&Decoder::sphere(1.0), precision).expect("model");
        assert_eq!(same.precision(), Precision::Float32);
        assert_eq!(same.metric(points.view()).expect("metric"), model.metric(points.view()).expect("metric"));
    }
    assert_eq!(device.load_as::<f64>(&Decoder::sphere(1.0)).expect("model").precision(), Precision::Float32);
}

#[test]
fn names_that_are_no_precision() {
    let bench = bench();
    for run in RUNS {
        for name in ["", "float64", "tf32x2", "f32"] {
            let expected = ["--precision", "expected float32, tf32x3, tf32, bf16 or mixed", &format!("`{name}`")];
            bench.refuses(&[run, &["--precision", name]].concat(), &expected);
        }
    }
}

#[test]
fn the_processor_refuses_other_precisions() {
    let bench = bench();
    for name in ["tf32x3", "tf32", "bf16", "mixed"] {
        let expected =
            format!("--precision {name}: expected a GPU, `--device emulator` or float32, found the processor");
        for run in RUNS {
            let given = ["--device", "cpu", "--precision", name, "--out", "new/deep/run"];
            bench.refuses(&[run, &given].concat(), &[&expected]);
            if let Err(reason) = Device::cuda(0) {
                let reason = reason.to_string();
                let reason = reason.lines().next().expect("a reason");
                bench.refuses(&[run, &given[2..]].concat(), &[&expected, reason]);
            }
        }
    }
    for run in &RUNS[..2] {
        let run = bench.run(&[run, &["--device", "cpu", "--precision", "float32", "--out", run[0]][..]].concat());
        assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    }
    assert_eq!(bench.record("geodesics")["precision"], "float32");
    assert_eq!(bench.record("metric")["precision"], "float32");
}

#[test]
fn the_table_needs_kernels() {
    let bench = bench();
    let expected = "pullback precision: expected a GPU or `--device emulator`, found the processor";
    bench.refuses(&["precision", "--device", "cpu"], &[expected]);
    if let Err(reason) = Device::cuda(0) {
        let reason = reason.to_string();
        bench.refuses(&["precision"], &[expected, reason.lines().next().expect("a reason")]);
    }
    bench.refuses(&["precision", "--pairs", "0"], &["--pairs", "at least 1"]);
    bench.refuses(&["precision", "--precision", "tf32"], &["--precision"]);
    bench.refuses(&["precision", "--decoder", "nowhere"], &["nowhere", "No such file"]);
    mlp(&bench.path("bare.safetensors"), &two_layers(), &[]);
    bench.refuses(&["precision", "--decoder", "bare.safetensors"], &["no activation given"]);
}

#[cfg(feature = "emulator")]
mod kernels {
    use super::*;
    use serde_json::Value;

    /// The device whose kernels are run.
    fn device() -> &'static str {
        match std::env::var("PULLBACK_TEST_DEVICE").as_deref() {
            Ok("cuda") => "cuda",
            _ => "emulator",
        }
    }

    #[test]
    fn the_record_tells_what_was_used() {
        let bench = bench();
        for (k, run) in RUNS[..2].iter().enumerate() {
            for precision in Precision::ALL {
                let out = format!("{k}-{precision}");
                let given = ["--device", device(), "--precision", precision.name(), "--out", &out];
                let run = bench.run(&[run, &given[..]].concat());
                assert_eq!(run.code, 0, "{}", run.stderr);
                let record = bench.record(&out);
                let used = record["precision"].as_str().expect("a precision");
                match used == precision.name() {
                    true => assert_eq!(run.stderr, ""),
                    false => {
                        let line = format!("computing in {used}: this decoder's kernels have no {precision}\n");
                        assert_eq!(run.stderr, line);
                        assert_eq!(used, "float32");
                    }
                }
            }
        }
    }

    fn errors(row: &Value) -> [f64; 6] {
        let keys = ["straight_energy_error", "metric_error", "geodesic_energy_error"];
        let [a, b, c] = keys.map(|key| ["median", "max"].map(|part| row[key][part].as_f64().expect("a number")));
        [a[0], a[1], b[0], b[1], c[0], c[1]]
    }

    #[test]
    fn the_table_has_a_row_for_every_precision() {
        let bench = bench();
        let run = bench.run(&["precision", "--device", device(), "--pairs", "12", "--json"]);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""));
        let record: Value = serde_json::from_str(&run.stdout).expect("JSON");
        assert_eq!((&record["decoder"], &record["pairs"], &record["points"]), (&Value::Null, &12.into(), &256.into()));
        let rows = record["precisions"].as_array().expect("rows");
        assert_eq!(rows.iter().map(|row| &row["precision"]).collect::<Vec<_>>(), Precision::ALL.map(Precision::name));
        for row in rows {
            let accurate = ["float32", "tf32x3", "mixed"].contains(&row["used"].as_str().expect("a precision"));
            let bound = if accurate { 1e-5 } else { f64::INFINITY };
            assert!(errors(row).iter().all(|error| (0.0..bound).contains(error)), "{row}");
            if accurate {
                assert_eq!(row["converged"], 12, "{row}");
                let excess = row["mean_energy_above_float64"].as_f64().expect("a number");
                assert!(excess.abs() < 0.05, "{row}"); // some end in another minimum
            }
        }
        assert_eq!(rows[0]["used"], "float32");
    }

    #[test]
    fn the_table_for_people_is_aligned() {
        let bench = bench();
        let run = bench.run(&["precision", "--decoder", "d.safetensors", "--device", device(), "--pairs", "3"]);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""));
        let lines: Vec<&str> = run.stdout.lines().collect();
        assert!(lines[0].starts_with("a decoder from 2 to 3 dimensions on "), "{}", run.stdout);
        assert!(lines[0].ends_with("; 3 pairs, 32 segments, 256 points"), "{}", run.stdout);
        let heading = lines.iter().position(|line| line.starts_with("precision ")).expect("a heading");
        for (precision, line) in Precision::ALL.iter().zip(&lines[heading + 1..]) {
            let name = line.split([' ', ',']).next().expect("a name");
            assert_eq!((name, line.len()), (precision.name(), lines[heading].len()), "{}", run.stdout);
        }
    }
}
