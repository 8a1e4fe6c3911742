//! Runs that fail half-way: on a full disk, and interrupted. They leave nothing, and a former run as it was.

#![cfg(all(feature = "cli", target_os = "linux"))]

mod command_line;

use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use command_line::{Bench, fixture, program, write_latents};
use ndarray::Array2;
use ndarray_npy::read_npy;

const RUN: [&str; 9] =
    ["geodesics", "--decoder", "d.safetensors", "--starts", "a.npy", "--ends", "b.npy", "--device", "cpu"];

/// Inputs for `rows` pairs of digits, some of them many times.
fn prepared(rows: usize) -> Bench {
    let bench = Bench::new();
    let latents: Array2<f32> = read_npy(fixture("digits-d2-tanh.latents.npy")).expect("fixture");
    let pick = |shift: usize| Array2::from_shape_fn((rows, 2), |(k, axis)| latents[[(k + shift) % 1797, axis]]);
    write_latents(&bench.path("a.npy"), &pick(0));
    write_latents(&bench.path("b.npy"), &pick(700));
    fs::copy(fixture("digits-d2-tanh.safetensors"), bench.path("d.safetensors")).expect("copy");
    bench
}

const INPUTS: [&str; 3] = ["a.npy", "b.npy", "d.safetensors"];

/// The command where no file can grow beyond a few kB: to a program that ignores the signal, writing fails as on a full disk.
fn on_a_full_disk(args: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 4; exec \"$@\"", "sh"]).arg(program()).args(args);
    command
}

#[test]
fn a_full_disk_leaves_nothing() {
    let bench = prepared(100);
    let commands = [
        (&RUN[..], "pullback-out"),
        (
            &[
                "geodesics",
                "--decoder",
                "d.safetensors",
                "--starts",
                "a.npy",
                "--ends",
                "b.npy",
                "--out",
                "new/deep/run",
            ],
            "run",
        ),
        (&["demo"], "pullback-demo"),
    ];
    for (args, out) in commands {
        let args = [args, &["--quiet"]].concat();
        let run = bench.run_as(&mut on_a_full_disk(&args));
        assert_eq!(run.code, 2, "{args:?}: {}", run.stderr);
        assert_eq!((run.stdout.as_str(), run.stderr.lines().count()), ("", 1), "{args:?}: {}", run.stderr);
        for part in ["error: ", out, "cannot write here: ", "File too large"] {
            assert!(run.stderr.contains(part), "{args:?}: expected `{part}` in: {}", run.stderr);
        }
        assert_eq!(bench.names(), INPUTS, "{args:?}");
    }
}

#[test]
fn a_full_disk_leaves_the_former_run() {
    let bench = prepared(100);
    assert_eq!(bench.run(&[&RUN[..], &["--segments", "4"]].concat()).code, 0);
    let read = || fs::read(bench.path("pullback-out/curves.npy")).expect("curves");
    let before = read();
    let run = bench.run_as(&mut on_a_full_disk(&[&RUN[..], &["--overwrite"]].concat()));
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert!(read() == before && bench.record("pullback-out")["segments"] == 4);
    let left = fs::read_dir(bench.path("pullback-out")).expect("folder");
    let hidden = left.filter(|e| e.as_ref().expect("entry").file_name().to_string_lossy().starts_with('.'));
    assert_eq!(hidden.count(), 0, "no temporary folder is left");
}

#[test]
fn a_result_that_cannot_be_printed_is_an_error() {
    let bench = Bench::new();
    let full = fs::File::options().write(true).open("/dev/full").expect("/dev/full");
    let output = Command::new(program()).arg("info").stdout(full).output().expect("the binary runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.starts_with("error: standard output: ") && stderr.lines().count() == 1, "{stderr}");
    bench.refuses(&["demo", "--out", "/dev/full"], &["/dev/full", "expected a folder"]);
}

#[test]
fn an_interrupted_run_leaves_nothing() {
    // Enough for many seconds; it is stopped long before.
    let bench = prepared(400_000);
    let mut child = Command::new(program())
        .args(RUN)
        .args(["--threads", "1", "--one-grid"])
        .current_dir(bench.path(""))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let began = Instant::now();
    while !bench.names().iter().any(|name| name.starts_with(".pullback-")) {
        assert!(began.elapsed() < Duration::from_secs(60), "the run begins");
        sleep(Duration::from_millis(5));
    }
    sleep(Duration::from_millis(300));
    assert_eq!(child.try_wait().expect("a child"), None, "it is still running");
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    assert!(killed.success());
    let output = child.wait_with_output().expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.starts_with("error: cancelled after ") && stderr.contains("of 400000 curves"), "{stderr}");
    assert_eq!(bench.names(), INPUTS);
}
