//! `pullback bench`: everything is measured and told, in tiny sizes; speeds are nobody's test.

#![cfg(feature = "cli")]

mod command_line;

use std::fs;

use command_line::{Bench, fixture};
use serde_json::Value;

const OPERATIONS: [&str; 11] = [
    "decode",
    "jacobian",
    "metric",
    "push_forward",
    "pull_back",
    "adjoint_hessian",
    "log_det",
    "spectrum",
    "energy",
    "solver_passes",
    "geodesics",
];

fn record(bench: &Bench, name: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(bench.path(name)).expect("a file")).expect("JSON")
}

#[test]
fn every_operation_is_measured() {
    let bench = Bench::new();
    let run =
        bench.run(&["bench", "--quick", "--device", "cpu", "--repeats", "3", "--json", "b.json", "--plot", "b.png"]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    for name in OPERATIONS {
        assert!(run.stdout.contains(&format!("\n  {name}")), "{name} in {}", run.stdout);
    }
    for title in ["metric by d", "metric by width", "metric by depth", "metric by outputs", "geodesics by segments"] {
        assert!(run.stdout.contains(title), "{title} in {}", run.stdout);
    }
    let record = record(&bench, "b.json");
    assert_eq!(
        (&record["command"], &record["device"], &record["quick"]),
        (&"bench".into(), &"cpu".into(), &true.into())
    );
    assert!(record["ceilings"]["float32_operations_per_second"].as_f64().expect("a rate") > 0.0);
    assert!(record["ceilings"]["copied_bytes_per_second"].as_f64().expect("a rate") > 0.0);
    assert!(record["machine"]["devices"][0]["threads"].as_u64().expect("threads") > 0);
    let operations = record["operations"].as_array().expect("a list");
    assert_eq!(operations.len(), 2 * OPERATIONS.len(), "two decoders");
    for (figure, name) in operations.iter().zip(OPERATIONS.iter().cycle()) {
        assert_eq!(figure["operation"], *name);
        let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{name}: {value}"));
        let timing = &figure["timing"];
        assert_eq!(timing["repeats"], 3);
        assert!(number(&timing["least_seconds"]) > 0.0);
        assert!(number(&timing["least_seconds"]) <= number(&timing["median_seconds"]));
        assert!(number(&timing["median_seconds"]) <= number(&timing["most_seconds"]));
        let rate = number(&figure["elements"]) / number(&timing["median_seconds"]);
        assert!((number(&figure["elements_per_second"]) / rate - 1.0).abs() < 1e-9, "{name}");
        if *name == "geodesics" {
            assert_eq!(figure["operations"], Value::Null, "grids of all sizes");
        } else {
            let operations = number(&figure["operations"]) / number(&timing["median_seconds"]);
            assert!((number(&figure["operations_per_second"]) / operations - 1.0).abs() < 1e-9, "{name}");
            assert!(number(&figure["share_of_ceiling"]) > 0.0);
        }
        let of_curves = ["energy", "solver_passes", "geodesics"].contains(name);
        assert_eq!(figure["unit"], if of_curves { "curves" } else { "points" });
        assert_eq!(figure["mean_passes"].is_number(), of_curves && *name != "energy");
    }
    for (name, sweep) in record["sweeps"].as_object().expect("sweeps") {
        let values: Vec<u64> =
            sweep.as_array().expect("a list").iter().map(|f| f["value"].as_u64().expect("value")).collect();
        assert_eq!(values, [2, 3], "{name}");
    }
    assert!(fs::read(bench.path("b.png")).expect("a picture").starts_with(b"\x89PNG"));
    assert_eq!(bench.names(), ["b.json", "b.png"], "no temporary file is left");
}

#[test]
fn a_decoder_of_ones_own_and_no_sweep() {
    let bench = Bench::new();
    fs::copy(fixture("digits-d8-softplus.safetensors"), bench.path("own.safetensors")).expect("copy");
    let run = bench.run(&[
        "bench",
        "--quick",
        "--device",
        "cpu",
        "--decoder",
        "own.safetensors",
        "--sweep",
        "none",
        "--json",
        "b.json",
        "--quiet",
    ]);
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (0, "", ""));
    let record = record(&bench, "b.json");
    assert_eq!(record["operations"].as_array().expect("a list").len(), OPERATIONS.len());
    assert_eq!((&record["operations"][0]["decoder"], &record["sweeps"]), (&"own".into(), &serde_json::json!({})));
    assert!(record["decoder"].as_str().expect("a path").ends_with("own.safetensors"));
}

#[cfg(feature = "emulator")]
#[test]
fn the_emulator_computes_and_gives_no_times() {
    let bench = Bench::new();
    command_line::mlp(&bench.path("d.safetensors"), &command_line::two_layers(), &[("activation", "tanh")]);
    let run = bench.run(&[
        "bench",
        "--device",
        "emulator",
        "--decoder",
        "d.safetensors",
        "--sweep",
        "curves",
        "--json",
        "b.json",
    ]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.contains("times of the emulator mean nothing"), "{}", run.stdout);
    let record = record(&bench, "b.json");
    assert_eq!((&record["emulated"], &record["ceilings"]), (&true.into(), &Value::Null));
    for figure in record["operations"].as_array().expect("a list") {
        assert_eq!((&figure["timing"], &figure["elements_per_second"]), (&Value::Null, &Value::Null));
        assert_eq!(figure["operations"].is_number(), figure["operation"] != "geodesics");
    }
    bench.refuses(
        &["bench", "--device", "emulator", "--decoder", "d.safetensors", "--sweep", "none", "--plot", "p.png"],
        &["--plot", "found the emulator"],
    );
}

#[test]
fn refusals() {
    let bench = Bench::new();
    bench.refuses(&["bench", "--sweep", "length"], &["length", "d, width, depth, outputs, segments, curves or none"]);
    bench.refuses(&["bench", "--repeats", "0"], &["--repeats", "at least 1"]);
    bench.refuses(&["bench", "--decoder", "none.safetensors"], &["none.safetensors"]);
    bench.refuses(&["bench", "--quick", "--json", "nowhere/b.json"], &["nowhere/b.json", "a folder that exists"]);
    bench.refuses(&["bench", "--quick", "--plot", "."], &["found a folder"]);
    bench.refuses(&["bench", "--precision", "bf16", "--device", "cpu"], &["--precision bf16"]);
}
