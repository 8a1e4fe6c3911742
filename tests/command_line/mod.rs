//! Runs the built binary in a folder of its own, and writes the files it reads.

#![allow(dead_code)] // every test file uses a part of this

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ndarray::{Array1, Array2, array};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use tempfile::TempDir;

/// A folder that holds a test's files.
pub struct Bench(TempDir);

pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Bench {
    pub fn new() -> Self {
        Self(TempDir::new().expect("temporary folder"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs `pullback` with these arguments in the folder.
    pub fn run(&self, args: &[&str]) -> Run {
        self.run_as(Command::new(program()).args(args))
    }

    /// Runs any command in the folder.
    pub fn run_as(&self, command: &mut Command) -> Run {
        let output = command.current_dir(self.0.path()).output().expect("the binary runs");
        Run {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }

    /// The command must exit with 2, say one line that holds all of `parts`, print no result and write nothing.
    pub fn refuses(&self, args: &[&str], parts: &[&str]) {
        let before = self.snapshot();
        let run = self.run(args);
        assert_eq!(run.code, 2, "{args:?}: {}", run.stderr);
        assert_eq!(run.stdout, "", "{args:?}");
        assert_eq!(run.stderr.lines().count(), 1, "{args:?}: {}", run.stderr);
        assert!(run.stderr.starts_with("error: "), "{args:?}: {}", run.stderr);
        for part in parts {
            assert!(run.stderr.contains(part), "{args:?}: expected `{part}` in: {}", run.stderr);
        }
        assert_eq!(self.snapshot(), before, "{args:?}");
    }

    pub fn record(&self, folder: &str) -> serde_json::Value {
        let text = fs::read_to_string(self.path(folder).join("run.json")).expect("run.json");
        serde_json::from_str(&text).expect("JSON")
    }

    /// Names in the folder, sorted.
    pub fn names(&self) -> Vec<String> {
        names(self.0.path())
    }

    fn snapshot(&self) -> Vec<String> {
        let mut all = self.names();
        for name in self.names() {
            if self.path(&name).is_dir() {
                all.extend(names(&self.path(&name)).into_iter().map(|inner| format!("{name}/{inner}")));
            }
        }
        all
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("folder");
    let mut names: Vec<_> = entries.map(|e| e.expect("entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The command: `PULLBACK_COMMAND` where the tests were built elsewhere.
pub fn program() -> PathBuf {
    std::env::var_os("PULLBACK_COMMAND").map_or_else(|| env!("CARGO_BIN_EXE_pullback").into(), PathBuf::from)
}

/// A file of `fixtures/`, or of the folder `PULLBACK_FIXTURES` where the tests were built elsewhere.
pub fn fixture(name: &str) -> PathBuf {
    let named = std::env::var_os("PULLBACK_FIXTURES").map(PathBuf::from);
    named.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")).join(name)
}

pub fn write_latents(path: &Path, latents: &Array2<f32>) {
    ndarray_npy::write_npy(path, latents).expect("write");
}

/// A `.npy` file with a header of choice.
pub fn write_npy_bytes(path: &Path, descr: &str, fortran: bool, shape: &str, bytes: &[u8]) {
    let fortran = if fortran { "True" } else { "False" };
    let dict = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((dict.len() as u16).to_le_bytes());
    file.extend(dict.as_bytes());
    file.extend(bytes);
    fs::write(path, file).expect("write");
}

/// A tensor to be written: dtype, shape, bytes.
pub type Tensor = (Dtype, Vec<usize>, Vec<u8>);

pub fn f32_tensor(shape: &[usize], numbers: &[f32]) -> Tensor {
    (Dtype::F32, shape.to_vec(), numbers.iter().flat_map(|x| x.to_le_bytes()).collect())
}

pub fn write_safetensors(path: &Path, tensors: &[(String, Tensor)], metadata: &[(&str, &str)]) {
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| (name, TensorView::new(*dtype, shape.clone(), bytes).expect("tensor")));
    let metadata: HashMap<String, String> = metadata.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    safetensors::serialize_to_file(views, Some(metadata), path).expect("write");
}

/// The tensors of an `nn.Sequential` of linear layers with an activation behind each.
pub fn sequential(layers: &[(Array2<f32>, Array1<f32>)]) -> Vec<(String, Tensor)> {
    let mut tensors = Vec::new();
    for (k, (weight, bias)) in layers.iter().enumerate() {
        let numbers: Vec<f32> = weight.iter().copied().collect();
        tensors.push((format!("{}.weight", 2 * k), f32_tensor(weight.shape(), &numbers)));
        tensors.push((format!("{}.bias", 2 * k), f32_tensor(bias.shape(), &bias.to_vec())));
    }
    tensors
}

pub fn mlp(path: &Path, layers: &[(Array2<f32>, Array1<f32>)], metadata: &[(&str, &str)]) {
    write_safetensors(path, &sequential(layers), metadata);
}

/// R² → R³ by way of R².
pub fn two_layers() -> [(Array2<f32>, Array1<f32>); 2] {
    [
        (array![[1.0, 0.5], [-0.3, 0.8]], array![0.1, -0.2]),
        (array![[1.0, 0.0], [0.5, 0.5], [0.2, -1.0]], array![0.0, 0.1, 0.2]),
    ]
}
