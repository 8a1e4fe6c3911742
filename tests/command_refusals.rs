//! Bad input: one clear line on stderr, exit code 2, nothing written.

#![cfg(feature = "cli")]

mod command_line;

use std::fs;

use command_line::{Bench, f32_tensor, fixture, mlp, sequential, two_layers, write_npy_bytes, write_safetensors};
use ndarray::{Array2, array};
use ndarray_npy::write_npy;
use safetensors::Dtype;

/// A folder with a decoder R² → R³ and two pairs of latents.
fn bench() -> Bench {
    let bench = Bench::new();
    mlp(&bench.path("d.safetensors"), &two_layers(), &[("activation", "tanh")]);
    write_npy(bench.path("a.npy"), &array![[0.0_f32, 0.0], [1.0, 1.0]]).expect("write");
    write_npy(bench.path("b.npy"), &array![[1.0_f32, 0.0], [0.0, 1.0]]).expect("write");
    bench
}

const RUN: [&str; 7] = ["geodesics", "--decoder", "d.safetensors", "--starts", "a.npy", "--ends", "b.npy"];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&RUN[..], more].concat()
}

#[test]
fn the_bench_itself_is_accepted() {
    let run = bench().run(&RUN);
    assert_eq!(run.code, 0, "{}", run.stderr);
}

#[test]
fn missing_files() {
    for name in ["d.safetensors", "a.npy", "b.npy"] {
        let bench = bench();
        fs::remove_file(bench.path(name)).expect("remove");
        bench.refuses(&RUN, &[name, "No such file"]);
    }
    bench().refuses(&["plot", "nowhere"], &["nowhere", "No such file"]);
    bench().refuses(&["info", "nowhere"], &["nowhere", "No such file"]);
}

#[test]
fn no_safetensors_file() {
    let bench = bench();
    let whole = fs::read(bench.path("d.safetensors")).expect("read");
    for bytes in [&b"hello"[..], &[], &whole[..whole.len() - 3], &whole[..20]] {
        fs::write(bench.path("d.safetensors"), bytes).expect("write");
        bench.refuses(&RUN, &["d.safetensors", "not a safetensors file, or truncated"]);
    }
    fs::remove_file(bench.path("d.safetensors")).expect("remove");
    fs::create_dir(bench.path("d.safetensors")).expect("folder");
    bench.refuses(&RUN, &["d.safetensors", "found a folder"]);
}

#[test]
fn decoders_that_are_none() {
    let tanh = [("activation", "tanh")];
    let bench = bench();
    let file = bench.path("d.safetensors");
    let good = sequential(&two_layers());
    let without = |key: &str| good.iter().filter(|(name, _)| name != key).cloned().collect::<Vec<_>>();
    let replaced = |key: &str, tensor: command_line::Tensor| {
        let mut tensors = without(key);
        tensors.push((key.to_owned(), tensor));
        tensors
    };

    write_safetensors(&file, &without("0.bias"), &tanh);
    bench.refuses(&RUN, &["d.safetensors", "missing key `0.bias`"]);
    write_safetensors(&file, &replaced("2.weight", f32_tensor(&[3, 5], &[0.1; 15])), &tanh);
    bench.refuses(&RUN, &["d.safetensors", "`2.weight`", "[3, 2]", "[3, 5]"]);
    write_safetensors(&file, &replaced("0.scale", f32_tensor(&[2], &[1.0; 2])), &tanh);
    bench.refuses(&RUN, &["d.safetensors", "unknown key `0.scale`", "[2]"]);
    write_safetensors(&file, &replaced("0.bias", (Dtype::I32, vec![2], vec![0; 8])), &tanh);
    bench.refuses(&RUN, &["d.safetensors", "`0.bias`", "expected float32", "found I32"]);
    write_safetensors(&file, &replaced("0.bias", f32_tensor(&[2], &[0.0, f32::NAN])), &tanh);
    bench.refuses(&RUN, &["d.safetensors", "`0.bias`", "NaN at [1]"]);
    write_safetensors(&file, &replaced("0.weight", f32_tensor(&[2, 2], &[0.0, 1.0, f32::INFINITY, 0.0])), &tanh);
    bench.refuses(&RUN, &["d.safetensors", "`0.weight`", "inf at [1, 0]"]);
    write_safetensors(&file, &good, &[]);
    bench.refuses(&RUN, &["d.safetensors", "no activation given", "--activation"]);
    write_safetensors(&file, &good, &[("activation", "wobble")]);
    bench.refuses(&RUN, &["d.safetensors", "unknown activation `wobble`", "tanh"]);
    bench.refuses(&with(&["--activation", "wobble"]), &["--activation", "unknown activation `wobble`", "tanh"]);
    write_safetensors(&file, &good, &tanh);
    bench.refuses(&with(&["--output", "std=sin"]), &["--output", "no head `std`"]);
    bench.refuses(&with(&["--heads", "mean"]), &["no head `mean`"]);
}

#[test]
fn endpoints_that_are_none() {
    let bench = bench();
    let (a, b) = (bench.path("a.npy"), bench.path("b.npy"));
    write_npy(&b, &array![[1.0_f32, 0.0], [0.0, f32::NAN]]).expect("write");
    bench.refuses(&RUN, &["b.npy", "row 1, column 1", "NaN"]);
    write_npy(&b, &array![[1.0_f64, 0.0], [f64::INFINITY, 0.0]]).expect("write");
    bench.refuses(&RUN, &["b.npy", "row 1, column 0", "inf"]);
    write_npy(&b, &array![[1.0_f64, 1e300], [0.0, 0.0]]).expect("write");
    bench.refuses(&RUN, &["b.npy", "row 0, column 1", "float32 can hold", "1e300"]);
    write_npy(&b, &array![[1.0_f32, 0.0]]).expect("write");
    bench.refuses(&RUN, &["b.npy", "[2, 2]", "a.npy", "[1, 2]"]);
    write_npy(&b, &Array2::<f32>::zeros((2, 3))).expect("write");
    bench.refuses(&RUN, &["b.npy", "dimension 2", "found 3"]);
    write_npy(&a, &Array2::<f32>::zeros((0, 2))).expect("write");
    bench.refuses(&RUN, &["a.npy", "at least one row"]);
    write_npy(&a, &array![0.0_f32, 1.0]).expect("write");
    bench.refuses(&RUN, &["a.npy", "found [2]", "reshape it to [1, 2]"]);
    write_npy(&a, &array![[0_i64, 1]]).expect("write");
    bench.refuses(&RUN, &["a.npy", "expected float32", "<i8"]);
}

#[test]
fn files_that_are_no_npy() {
    let bench = bench();
    let a = bench.path("a.npy");
    let whole = fs::read(&a).expect("read");
    for bytes in [&b"hello, world"[..], &[], &whole[..7], &whole[..40]] {
        fs::write(&a, bytes).expect("write");
        bench.refuses(&RUN, &["a.npy", "not a .npy file"]);
    }
    fs::write(&a, &whole[..whole.len() - 1]).expect("write");
    bench.refuses(&RUN, &["a.npy", "truncated", "expected 16 bytes", "found 15"]);
    write_npy_bytes(&a, "<f4", false, "(4611686018427387904, 2)", &[0; 16]);
    bench.refuses(&RUN, &["a.npy", "fits in memory"]);
    write_npy_bytes(&a, "<f4", false, "(-1, 2)", &[0; 16]);
    bench.refuses(&RUN, &["a.npy", "header"]);
    write_npy_bytes(&a, "<c8", false, "(2, 2)", &[0; 32]);
    bench.refuses(&RUN, &["a.npy", "expected float32", "<c8"]);
    fs::write(&a, b"\x93NUMPY\x02\x00\xff\xff\xff\xff").expect("write");
    bench.refuses(&RUN, &["a.npy", "header"]);
    bench.refuses(&["metric", "--decoder", "d.safetensors", "--points", "a.npy"], &["a.npy", "header"]);
}

#[test]
fn options_out_of_range() {
    let bench = bench();
    bench.refuses(&with(&["--segments", "1"]), &["segments", "expected 2", "found 1"]);
    bench.refuses(&with(&["--tolerance", "0"]), &["tolerance", "between 0 and 1"]);
    bench.refuses(&with(&["--tolerance", "NaN"]), &["tolerance", "between 0 and 1"]);
    bench.refuses(&with(&["--max-iterations", "0"]), &["max_iterations", "at least 1"]);
    bench.refuses(&with(&["--threads", "0"]), &["--threads", "at least 1"]);
    bench.refuses(&with(&["--batch", "0"]), &["--batch", "at least 1"]);
    bench.refuses(&with(&["--wobble"]), &["--wobble"]);
    bench.refuses(&["geodesics", "--decoder", "d.safetensors"], &["--starts", "--ends"]);
    bench.refuses(&["wobble"], &["wobble"]);
}

#[test]
fn output_folders_that_cannot_be_used() {
    let bench = bench();
    fs::write(bench.path("file"), "mine").expect("write");
    bench.refuses(&with(&["--out", "file"]), &["file", "expected a folder"]);
    bench.refuses(&with(&["--out", "file/run"]), &["file/run"]);
    fs::create_dir(bench.path("mine")).expect("folder");
    fs::write(bench.path("mine/notes.txt"), "mine").expect("write");
    for more in [&["--out", "mine"][..], &["--out", "mine", "--overwrite"]] {
        bench.refuses(&with(more), &["mine", "no run of pullback"]);
    }
    fs::write(bench.path("mine/run.json"), "{\"program\": \"other\"}").expect("write");
    bench.refuses(&with(&["--out", "mine", "--overwrite"]), &["mine", "no run of pullback"]);
    bench.refuses(&["plot", "mine"], &["run.json", "found other JSON"]);
    #[cfg(target_os = "linux")]
    bench.refuses(&with(&["--out", "/proc/pullback-run"]), &["/proc/pullback-run", "cannot write here"]);
    fs::create_dir(bench.path("empty")).expect("folder");
    assert_eq!(bench.run(&with(&["--out", "empty"])).code, 0, "an empty folder is as good as none");
    assert_eq!(bench.run(&with(&["--out", "new/deep/run"])).code, 0, "folders above are made");
    write_npy(bench.path("b.npy"), &array![[0.0_f32, 0.0]]).expect("write");
    bench.refuses(&with(&["--out", "other/deep/run"]), &["b.npy"]);
}

#[cfg(unix)]
#[test]
fn a_reader_that_goes_away_is_no_error() {
    use std::process::{Command, Stdio};
    let mut child = Command::new(command_line::program())
        .args(["info", "--json"])
        .arg(fixture("digits-d2-tanh.safetensors"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"));
}

/// The bench's decoder has three outputs by way of tanh and none that is a probability.
#[test]
fn metrics_that_the_decoder_has_not() {
    bench().refuses(
        &with(&["--fisher-rao", "bernoulli"]),
        &["expected probabilities, by sigmoid", "`decoder`", "found identity"],
    );
    bench().refuses(&with(&["--fisher-rao", "categorical"]), &["by softmax", "found identity"]);
    bench().refuses(&with(&["--fisher-rao", "gaussian"]), &["expected two heads", "found 1"]);
    bench().refuses(&with(&["--epsilon", "-1"]), &["epsilon", "at least 0", "found -1"]);
    bench().refuses(&with(&["--epsilon", "NaN"]), &["epsilon", "found NaN"]);
    bench().refuses(&with(&["--ensemble"]), &["ensemble", "at least two members"]);
    for (weights, parts) in [
        (array![1.0_f32, -2.0, 1.0], ["w.npy", "found -2 at 1"]),
        (array![1.0, f32::NAN, 1.0], ["w.npy", "found NaN at 1"]),
        (array![1.0, 1.0], ["w.npy", "expected 3, one for every output, found 2"]),
    ] {
        let bench = bench();
        write_npy(bench.path("w.npy"), &weights).expect("write");
        bench.refuses(&with(&["--weights", "w.npy"]), &parts);
    }
    let bench = bench();
    write_npy(bench.path("w.npy"), &array![[1.0_f32, 1.0, 1.0]]).expect("write");
    bench.refuses(&with(&["--weights", "w.npy"]), &["w.npy", "expected an array [outputs] of weights, found [1, 3]"]);
    bench.refuses(&with(&["--weights", "none.npy"]), &["none.npy", "No such file"]);
}
