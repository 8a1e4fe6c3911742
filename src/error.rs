//! What can go wrong, as values.

use std::path::PathBuf;

/// Everything that the public API and the command can refuse or fail at.
///
/// Each message says what was expected and what was found. [`Error::is_input`] tells a caller's mistake from a failure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong: which key or row, what was expected, what was found.
        problem: String,
    },
    /// Layers and activations that do not make a decoder.
    #[error("{0}")]
    Decoder(String),
    /// An array of the wrong shape.
    #[error("{what}: expected {expected}, found {found}")]
    Shape {
        /// Which array.
        what: String,
        /// The shape it should have.
        expected: String,
        /// The shape it has.
        found: String,
    },
    /// NaN or infinity where a number must stand.
    #[error("{what}, row {row}, column {column}: expected a finite number, found {value}")]
    NotFinite {
        /// Which array.
        what: String,
        /// Row, from 0.
        row: usize,
        /// Column, from 0.
        column: usize,
        /// What stands there.
        value: f64,
    },
    /// An option out of its range.
    #[error("{name}: expected {expected}, found {found}")]
    Option {
        /// Which option.
        name: &'static str,
        /// Its range.
        expected: &'static str,
        /// What was given.
        found: String,
    },
    /// A device that this machine or this build does not have.
    #[error("{0}")]
    Device(String),
    /// Too little memory on a device for the smallest piece of work.
    #[error("{device}: out of memory: {bytes} bytes asked for, {free} free")]
    OutOfMemory {
        /// Which device.
        device: String,
        /// Bytes asked for.
        bytes: u64,
        /// Bytes that were free.
        free: u64,
    },
    /// A kernel that could not be compiled or loaded.
    #[error("{what}: {message}")]
    Compile {
        /// What was compiled or loaded, and for which architecture.
        what: String,
        /// The compiler's or the driver's words.
        message: String,
    },
    /// A call of the CUDA driver that failed.
    #[error("{what}: {message}")]
    Cuda {
        /// Which device, and which call or kernel.
        what: String,
        /// The driver's words.
        message: String,
        /// See [`Error::is_fatal`].
        fatal: bool,
    },
    /// The caller's progress function asked to stop.
    #[error("cancelled after {finished} of {total} curves")]
    Cancelled {
        /// Curves that were finished by then.
        finished: usize,
        /// Curves asked for.
        total: usize,
    },
}

impl Error {
    /// True where the caller can mend it: input, arguments, files, room on the disk, a device that is not there. A cancelled run is
    /// none of these, nor is a failure on a device.
    pub fn is_input(&self) -> bool {
        !matches!(self, Self::Cancelled { .. } | Self::OutOfMemory { .. } | Self::Compile { .. } | Self::Cuda { .. })
    }

    /// True where the device's context is lost, so that nothing can be done on it any more in this process: an illegal access,
    /// say. Other failures leave the device as it was.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Cuda { fatal: true, .. })
    }

    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn file(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        Self::File { path: path.into(), problem: problem.into() }
    }
}

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
