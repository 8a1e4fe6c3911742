//! `pullback bench`: everything is measured and told, in tiny sizes; speeds are nobody's test.

#![cfg(feature = "cli")]

mod command_line;

use std::fs;

use command_line::{Bench, fixture};
use serde_json::Value;

/// On the processor.
const OPERATIONS: [&str; 13] = [
    "decode",
    "jacobian",
    "metric",
    "push_forward",
    "pull_back",
    "adjoint_hessian",
    "log_det",
    "spectrum",
    "energy",
    "linearise",
    "linearise_newton",
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
        (&record["command"], &record["device"], &record["complete"]),
        (&"bench".into(), &"cpu".into(), &true.into())
    );
    assert_eq!((&record["quick"], &record["gpu"]), (&true.into(), &Value::Null));
    assert!(record["ceilings"]["float32_operations_per_second"].as_f64().expect("a rate") > 0.0);
    assert!(record["ceilings"]["copied_bytes_per_second"].as_f64().expect("a rate") > 0.0);
    assert!(record["machine"]["devices"][0]["threads"].as_u64().expect("threads") > 0);
    let operations = record["operations"].as_array().expect("a list");
    assert_eq!(operations.len(), 3 * OPERATIONS.len(), "three decoders");
    let names: Vec<_> = record["decoders"].as_array().expect("a list").iter().map(|d| &d["name"]).collect();
    assert_eq!(names, ["digits-d2-tanh", "digits-d8-softplus", "3-16-24"]);
    for (figure, name) in operations.iter().zip(OPERATIONS.iter().cycle()) {
        assert_eq!((&figure["operation"], &figure["precision"]), (&(*name).into(), &"float32".into()));
        assert_eq!((&figure["device_bytes"], figure.get("left_out")), (&Value::Null, None));
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
        let solves = ["solver_passes", "geodesics"].contains(name);
        let of_curves = solves || ["energy", "linearise", "linearise_newton"].contains(name);
        assert_eq!(figure["unit"], if of_curves { "curves" } else { "points" });
        assert_eq!(figure["mean_passes"].is_number(), solves);
    }
    for (name, sweep) in record["sweeps"].as_object().expect("sweeps") {
        let values: Vec<u64> =
            sweep.as_array().expect("a list").iter().map(|f| f["value"].as_u64().expect("value")).collect();
        let decoders = if ["segments", "curves"].contains(&name.as_str()) { 2 } else { 1 };
        assert_eq!(values, [2, 3].repeat(decoders), "{name}: the digits' decoders, or one by value");
    }
    assert_eq!(record["sweeps"]["curves"][3]["decoder"], "digits-d8-softplus");
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
    assert!(record["decoders"][0]["path"].as_str().expect("a path").ends_with("own.safetensors"));
}

/// Each with operations and sweeps of its own, by names that tell them apart.
#[test]
fn several_decoders() {
    let bench = Bench::new();
    fs::create_dir(bench.path("more")).expect("a folder");
    for (name, from) in [("a", "digits-d2-tanh"), ("b", "digits-d8-softplus"), ("more/b", "digits-d2-tanh")] {
        fs::copy(fixture(&format!("{from}.safetensors")), bench.path(&format!("{name}.safetensors"))).expect("copy");
    }
    let decoders = ["--decoder", "a.safetensors", "--decoder", "b.safetensors", "--decoder", "more/b.safetensors"];
    let options = ["bench", "--quick", "--device", "cpu", "--sweep", "segments", "--json", "b.json"];
    let run = bench.run(&[&options[..], &decoders].concat());
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    let record = record(&bench, "b.json");
    let names = |figures: &Value| -> Vec<String> {
        let mut names: Vec<_> = figures.as_array().expect("a list").iter().map(|f| f["decoder"].to_string()).collect();
        names.dedup();
        names
    };
    let expected = ["\"a\"", "\"b.safetensors\"", "\"more/b.safetensors\""];
    assert_eq!(names(&record["operations"]), expected);
    assert_eq!(names(&record["sweeps"]["segments"]), expected);
    assert_eq!(record["operations"].as_array().expect("a list").len(), 3 * OPERATIONS.len());
}

/// The first number of curves has no rate before it; the next is expected to take longer than no time at all.
#[test]
fn numbers_of_curves_that_would_take_too_long_are_left_out() {
    let bench = Bench::new();
    let limited = |limit: &str| {
        let options = ["--quick", "--device", "cpu", "--sweep", "curves,segments", "--json", "b.json"];
        let run = bench.run(&[&["bench", "--limit", limit], &options[..]].concat());
        assert_eq!((run.code, run.stderr.as_str()), (0, ""));
        (run.stdout, record(&bench, "b.json"))
    };
    let (table, record) = limited("0");
    for figures in record["sweeps"]["curves"].as_array().expect("a list").chunks(2) {
        assert!(figures[0]["elements_per_second"].is_number(), "{}", figures[0]);
        let left_out = figures[1]["left_out"].as_str().expect("a reason");
        assert!(left_out.starts_with("it would take about ") && left_out.ends_with(" s"), "{left_out}");
        assert_eq!((&figures[1]["value"], figures[1].get("timing")), (&3.into(), None));
        assert!(table.contains(&format!("  left out: {left_out}\n")), "{table}");
    }
    assert!(record["sweeps"]["segments"][1]["timing"].is_object(), "of curves alone");
    assert!(!limited("1e9").0.contains("left out"));
}

/// After each measurement there is a whole record of those so far.
#[cfg(unix)]
#[test]
fn a_run_that_is_cut_short_leaves_what_was_measured() {
    use std::process::{Command, Stdio};

    let bench = Bench::new();
    let mut command = Command::new(command_line::program());
    command.args(["bench", "--device", "cpu", "--repeats", "100", "--sweep", "none", "--json", "b.json"]);
    let folder = bench.path("");
    let mut run =
        command.current_dir(folder).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let measured = || {
        let text = fs::read_to_string(bench.path("b.json")).ok()?;
        let record: Value = serde_json::from_str(&text).expect("a whole record at any time");
        Some(record["operations"].as_array().expect("a list").len())
    };
    while measured().is_none_or(|count| count < 2) {
        assert!(run.try_wait().expect("it can be waited for").is_none(), "the run ended before it could be cut short");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let killed = Command::new("kill").args(["-INT", &run.id().to_string()]).status().expect("kill runs");
    let output = run.wait_with_output().expect("it ends");
    assert!(killed.success());
    assert_eq!((output.status.code(), output.stdout.len()), (Some(130), 0));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.starts_with("b.json: holds what was measured so far\nerror: cancelled"), "{said}");
    assert_eq!(record(&bench, "b.json")["complete"], false);
    assert!(measured() >= Some(2));
    assert_eq!(bench.names(), ["b.json"], "no temporary file is left");
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
        "--limit",
        "0",
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
    let bytes = |figure: &Value| figure["device_bytes"].as_u64();
    assert!(record["operations"].as_array().expect("a list").iter().all(|figure| bytes(figure) != Some(0)));
    let curves = record["sweeps"]["curves"].as_array().expect("a list");
    assert_eq!(curves.iter().map(|f| &f["value"]).collect::<Vec<_>>(), [2, 3], "no times, so none is left out");
    assert_eq!(
        curves.iter().filter_map(bytes).max().max(bytes(&record["operations"][10])),
        record["device_peak_bytes"].as_u64()
    );
    assert!(run.stdout.contains("peak memory of the device, beside weights: "), "{}", run.stdout);
    bench.refuses(
        &["bench", "--device", "emulator", "--decoder", "d.safetensors", "--sweep", "none", "--plot", "p.png"],
        &["--plot", "found the emulator"],
    );
}

/// What does not depend on a precision is measured once, and so is what two of them share.
#[cfg(feature = "emulator")]
#[test]
fn several_precisions() {
    let bench = Bench::new();
    command_line::mlp(&bench.path("d.safetensors"), &command_line::two_layers(), &[("activation", "tanh")]);
    let options = ["--device", "emulator", "--decoder", "d.safetensors", "--sweep", "curves", "--json", "b.json"];
    let run = bench.run(&[&["bench", "--precision", "float32,tf32x3,mixed"], &options[..]].concat());
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    let record = record(&bench, "b.json");
    let measured = |name: &str| -> Vec<String> {
        let all = record["operations"].as_array().expect("a list").iter();
        all.filter(|f| f["operation"] == name).map(|f| f["precision"].as_str().expect("a name").to_owned()).collect()
    };
    for name in ["decode", "jacobian", "push_forward", "pull_back", "adjoint_hessian"] {
        assert_eq!(measured(name), ["float32"], "{name}");
    }
    for name in ["metric", "log_det", "spectrum", "energy"] {
        assert_eq!(measured(name), ["float32", "tf32x3"], "{name}: of a mixture as in tf32x3");
    }
    for name in ["solver_passes", "geodesics"] {
        assert_eq!(measured(name), ["float32", "tf32x3", "mixed"], "{name}");
    }
    let swept: Vec<_> =
        record["sweeps"]["curves"].as_array().expect("a list").iter().map(|f| &f["precision"]).collect();
    assert_eq!(swept, ["float32", "float32", "tf32x3", "tf32x3", "mixed", "mixed"]);
    assert_eq!(record["gpu"]["name"], "emulator");
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
    bench.refuses(
        &["bench", "--precision", "float32,tf32", "--device", "cpu"],
        &["--precision tf32", "found the processor"],
    );
    for limit in ["-1", "inf", "NaN"] {
        bench.refuses(&["bench", "--quick", &format!("--limit={limit}")], &["--limit", "expected at least 0"]);
    }
}
