//! Compiled kernels on the disk, so that a machine compiles each once.
//!
//! An entry is a header (a word, the key, the length and a checksum of the body) and the body. Whatever is not a whole entry of its
//! key is taken for absent. Nothing here fails: without a folder that can be written, kernels are compiled again.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

const WORD: &[u8; 8] = b"pullbk01";

/// What an entry is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key([u8; 32]);

impl Key {
    /// The key of everything that decides what a compiler makes.
    pub(crate) fn new<'a>(parts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut hash = Sha256::new();
        hash.update(env!("CARGO_PKG_VERSION"));
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes()); // or "ab", "c" would be "a", "bc"
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    fn file(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).chain([".cubin".into()]).collect()
    }
}

/// A folder of entries, or none.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    folder: Option<PathBuf>,
}

impl Cache {
    /// `PULLBACK_CACHE` (empty or `none`: no cache), else `pullback` in the user's folder for caches.
    pub(crate) fn of_the_user() -> Self {
        Self { folder: folder(|name| env::var_os(name).map(PathBuf::from)) }
    }

    /// Where the entries are.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// The body of a whole entry.
    pub(crate) fn read(&self, key: Key) -> Option<Vec<u8>> {
        let mut entry = fs::read(self.folder.as_ref()?.join(key.file())).ok()?;
        let length = header(key, &[]).len();
        let (head, body) = entry.split_at_checked(length)?;
        if head != header(key, body) {
            return None;
        }
        Some(entry.split_off(length))
    }

    /// Writes an entry whole: under another name first, so that no reader and no other writer ever sees a part of it.
    pub(crate) fn write(&self, key: Key, body: &[u8]) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let Some(folder) = &self.folder else { return };
        let unique = format!("{}.{}.{}.tmp", key.file(), process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let temporary = folder.join(unique);
        let entry = [&header(key, body), body].concat();
        let written = fs::create_dir_all(folder).and_then(|()| fs::write(&temporary, entry));
        if written.and_then(|()| fs::rename(&temporary, folder.join(key.file()))).is_err() {
            let _ = fs::remove_file(&temporary); // a full disk: leave nothing behind
        }
    }
}

fn header(key: Key, body: &[u8]) -> Vec<u8> {
    let checksum: [u8; 32] = Sha256::digest(body).into();
    [WORD.as_slice(), &key.0, &(body.len() as u64).to_le_bytes(), &checksum].concat()
}

fn folder(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    if let Some(named) = variable("PULLBACK_CACHE") {
        return (!named.as_os_str().is_empty() && named != Path::new("none")).then_some(named);
    }
    // A relative path here is a mistake, by the rules of those variables.
    let absolute = |name: &str| variable(name).filter(|path| path.is_absolute());
    let user = if cfg!(windows) {
        absolute("LOCALAPPDATA")
    } else {
        absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))
    };
    Some(user?.join("pullback"))
}

#[cfg(test)]
pub(crate) mod tests;
