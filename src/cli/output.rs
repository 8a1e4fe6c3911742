//! Result folders, which get their name only once they are whole.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use super::args::OutArgs;
use super::npy::{Number, Writer};
use crate::error::{Error, Result};

/// The file that makes a folder a run, written last.
pub(super) const RECORD: &str = "run.json";

/// Every other file that this program writes into a result folder; nothing else is ever replaced or removed.
const OURS: [&str; 56] = [
    "curves.npy",
    "energy.npy",
    "length.npy",
    "gradient_norm.npy",
    "iterations.npy",
    "status.npy",
    "metric.npy",
    "volume.npy",
    "logdet.npy",
    "eigenvalues.npy",
    "eigenvectors.npy",
    "condition.npy",
    "rank.npy",
    "dimension.npy",
    "singular_values.npy",
    "left_vectors.npy",
    "right_vectors.npy",
    "curvature.npy",
    "truncated_metric.npy",
    "points.npy",
    "around.npy",
    "starts.npy",
    "ends.npy",
    "latents.npy",
    "labels.npy",
    "decoder.safetensors",
    "latent-plane.png",
    "digit-strips.png",
    "speed.png",
    "curves.png",
    "lengths.png",
    "speeds.png",
    "volume.png",
    "logdet.png",
    "condition.png",
    "rank.png",
    "dimension.png",
    "curvature.png",
    "mean-curves.npy",
    "mean-energy.npy",
    "mean-length.npy",
    "mean-gradient_norm.npy",
    "mean-iterations.npy",
    "mean-status.npy",
    "expected-curves.npy",
    "expected-energy.npy",
    "expected-length.npy",
    "expected-gradient_norm.npy",
    "expected-iterations.npy",
    "expected-status.npy",
    "rbf-starts.npy",
    "rbf-ends.npy",
    "rbf-latents.npy",
    "rbf-labels.npy",
    "rbf-decoder.safetensors",
    "mean-and-expected.png",
];

/// Whether a finished run may be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replace {
    /// Only with `--overwrite`.
    No,
    /// Where it was made by this command.
    Own(&'static str),
    /// Whatever command made it.
    Any,
}

impl OutArgs {
    /// As [`Output::create`].
    pub fn create(&self) -> Result<Output> {
        Output::create(&self.out, if self.overwrite { Replace::Any } else { Replace::No })
    }
}

/// A result folder in the making: a hidden folder at its place, removed unless it is finished.
pub(super) struct Output {
    staging: TempDir,
    target: PathBuf,
    /// Whether the target was there before; one that appears meanwhile is somebody else's.
    existed: bool,
    /// Folders above the target that had to be made; removed again where the run fails.
    made: Vec<PathBuf>,
    finished: bool,
}

impl Output {
    /// Checks that a run may be written to `target` and makes room for it there.
    ///
    /// # Errors
    ///
    /// Where `target` holds a run that may not be replaced, is a folder of other files or no folder, or cannot be made.
    pub fn create(target: &Path, replace: Replace) -> Result<Self> {
        check(target, replace)?;
        let target = match fs::canonicalize(target) {
            Ok(existing) => existing,
            Err(_) => std::path::absolute(target).map_err(Error::io(target))?,
        };
        let Some(parent) = target.parent() else {
            return Err(Error::file(target, "expected the name of a folder, found the root of the file system"));
        };
        let mut made = Vec::new();
        let mut missing = Some(parent);
        while let Some(folder) = missing.filter(|folder| !folder.exists()) {
            made.push(folder.to_path_buf());
            missing = folder.parent();
        }
        // On the target's own file system: inside it where it exists, as it may be a mount of its own.
        let existed = target.exists();
        let place = if existed { &target } else { parent };
        let staging = fs::create_dir_all(place).and_then(|()| staging_folder(place)).map_err(|e| {
            remove_empty(&made);
            cannot_write(&target)(e)
        })?;
        Ok(Self { staging, target, existed, made, finished: false })
    }

    /// The finished folder's absolute path.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Where a file is written until the run is whole.
    pub fn path(&self, name: &str) -> PathBuf {
        debug_assert!(OURS.contains(&name) || name == RECORD, "{name} is not in the list of our files");
        self.staging.path().join(name)
    }

    /// A new array, to be written piece by piece.
    pub fn array<T: Number>(&self, name: &str, shape: &[usize]) -> Result<Writer> {
        Writer::create::<T>(&self.path(name), shape).map_err(self.io())
    }

    /// Writes a whole array.
    pub fn write<T: Number>(&self, name: &str, shape: &[usize], numbers: impl IntoIterator<Item = T>) -> Result<()> {
        let mut writer = self.array::<T>(name, shape)?;
        writer.extend(numbers).and_then(|()| writer.finish()).map_err(self.io())
    }

    /// Writes a file of bytes.
    pub fn write_bytes(&self, name: &str, bytes: &[u8]) -> Result<()> {
        fs::write(self.path(name), bytes).map_err(self.io())
    }

    /// Turns what the system says about a file in the making into an error that names the folder asked for.
    pub fn io(&self) -> impl Fn(io::Error) -> Error + use<> {
        let target = self.target.clone();
        move |source| cannot_write(&target)(source)
    }

    /// Writes the record and gives the folder its name; a former run's files go only now.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the system refuses; a former run is then still there, unless the very last step failed.
    pub fn finish(mut self, record: &Value) -> Result<()> {
        let text = serde_json::to_string_pretty(record).unwrap_or_default();
        self.write_bytes(RECORD, format!("{text}\n").as_bytes())?;
        let io = self.io();
        if self.existed {
            self.replace_files().map_err(io)?;
        } else {
            fs::rename(self.staging.path(), &self.target).map_err(io)?;
        }
        self.finished = true;
        Ok(())
    }

    /// Moves file by file into a folder that exists, as it may hold files that are not ours. The record goes first and comes last.
    fn replace_files(&self) -> io::Result<()> {
        for name in std::iter::once(RECORD).chain(OURS) {
            match fs::remove_file(self.target.join(name)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        for name in OURS.into_iter().chain([RECORD]) {
            let from = self.staging.path().join(name);
            if from.exists() {
                fs::rename(from, self.target.join(name))?;
            }
        }
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.finished {
            // Emptied first, so that the folders above it can go too; TempDir tries again and ignores that it is gone.
            let _ = fs::remove_dir_all(self.staging.path());
            remove_empty(&self.made);
        }
    }
}

fn remove_empty(folders: &[PathBuf]) {
    for folder in folders {
        let _ = fs::remove_dir(folder);
    }
}

fn staging_folder(parent: &Path) -> io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".pullback-");
    #[cfg(unix)]
    {
        // As any other new folder: the user's umask decides.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o777));
    }
    builder.tempdir_in(parent)
}

fn cannot_write(target: &Path) -> impl Fn(io::Error) -> Error {
    let path = target.to_path_buf();
    move |source| Error::Io {
        path: path.clone(),
        source: io::Error::new(source.kind(), format!("cannot write here: {}", plain(&source))),
    }
}

/// The system's words, without the path that tempfile adds (that of a hidden folder).
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" at path ").next().unwrap_or(&text).to_owned()
}

fn check(target: &Path, replace: Replace) -> Result<()> {
    let metadata = match fs::metadata(target) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(Error::io(target))?,
    };
    if !metadata.is_dir() {
        return Err(Error::file(target, "expected a folder or a new name, found a file"));
    }
    let empty = fs::read_dir(target).map_err(Error::io(target))?.next().is_none();
    if empty {
        return Ok(());
    }
    let Ok(record) = read_record(target) else {
        return Err(Error::file(
            target,
            "the folder holds files but no run of pullback: expected a new name, an empty folder or a former run",
        ));
    };
    let command = record["command"].as_str().unwrap_or("?");
    match replace {
        Replace::Any => Ok(()),
        Replace::Own(own) if own == command => Ok(()),
        _ => Err(Error::file(
            target,
            format!("the folder holds a run of `pullback {command}`: give another --out, or --overwrite to replace it"),
        )),
    }
}

/// The record of the run in a folder.
///
/// # Errors
///
/// Where there is none, or it is not this program's.
pub(super) fn read_record(folder: &Path) -> Result<Value> {
    let path = folder.join(RECORD);
    let text = fs::read_to_string(&path).map_err(Error::io(&path))?;
    match serde_json::from_str::<Value>(&text) {
        Ok(record) if record["program"] == "pullback" => Ok(record),
        Ok(_) => Err(Error::file(path, "expected the record of a run of pullback, found other JSON")),
        Err(e) => Err(Error::file(path, format!("expected the record of a run of pullback, found no JSON ({e})"))),
    }
}
