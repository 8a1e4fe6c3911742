//! `.npy` files: latents in, results out row by row, so that memory stays bounded.
//!
//! Format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>. The header is read here and not by a
//! crate, as what stands in a file must never panic or allocate what the file claims to hold.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use half::f16;
use ndarray::{Array2, ShapeBuilder};

use crate::error::{Error, Result};

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// No header of a plain array is longer.
const LONGEST_HEADER: usize = 1 << 16;

/// What a file's header says.
#[derive(Clone, Debug, PartialEq)]
struct Header {
    descr: String,
    fortran: bool,
    shape: Vec<usize>,
}

/// An open `.npy` file whose header has been read.
pub(super) struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    header: Header,
    /// Where the numbers begin.
    start: u64,
}

/// The float types that are read.
#[derive(Clone, Copy)]
enum Float {
    F16,
    F32,
    F64,
}

impl Reader {
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path))?;
        if file.metadata().map_err(Error::io(path))?.is_dir() {
            return Err(Error::file(path, "expected a .npy file, found a folder"));
        }
        let mut file = BufReader::new(file);
        let not_npy = |_| Error::file(path, "not a .npy file, or truncated");
        let mut magic = [0; 8];
        file.read_exact(&mut magic).map_err(not_npy)?;
        if &magic[..6] != MAGIC {
            return Err(Error::file(
                path,
                "not a .npy file: expected it to begin with \\x93NUMPY (write it with numpy.save)",
            ));
        }
        let length = match magic[6] {
            1 => {
                let mut bytes = [0; 2];
                file.read_exact(&mut bytes).map_err(not_npy)?;
                usize::from(u16::from_le_bytes(bytes))
            }
            2 | 3 => {
                let mut bytes = [0; 4];
                file.read_exact(&mut bytes).map_err(not_npy)?;
                u32::from_le_bytes(bytes) as usize
            }
            other => return Err(Error::file(path, format!("expected .npy version 1, 2 or 3, found {other}"))),
        };
        if length > LONGEST_HEADER {
            return Err(Error::file(path, format!("expected a header of a plain array, found one of {length} bytes")));
        }
        let mut text = vec![0; length];
        file.read_exact(&mut text).map_err(not_npy)?;
        let header = Header::parse(&String::from_utf8_lossy(&text))
            .ok_or_else(|| Error::file(path, "not a .npy file of a plain array: its header cannot be read"))?;
        let start = file.stream_position().map_err(Error::io(path))?;
        Ok(Self { path: path.into(), file, header, start })
    }

    /// The array's shape.
    pub fn shape(&self) -> &[usize] {
        &self.header.shape
    }

    fn refuse(&self, problem: impl Into<String>) -> Error {
        Error::file(&self.path, problem)
    }

    /// The float type and whether it is big-endian.
    fn float(&self) -> Result<(Float, bool)> {
        let descr = self.header.descr.as_str();
        let kind = match descr.trim_start_matches(['<', '>', '=', '|']) {
            "f2" => Float::F16,
            "f4" => Float::F32,
            "f8" => Float::F64,
            _ => return Err(self.refuse(format!("expected float32, float64 or float16, found dtype {descr}"))),
        };
        Ok((kind, descr.starts_with('>')))
    }

    /// Refuses a file that ends too soon, before memory for it is asked for.
    fn check_size(&self, width: usize) -> Result<()> {
        let expected = self.header.shape.iter().try_fold(width, |n, &k| n.checked_mul(k));
        let size = self.file.get_ref().metadata().map_err(Error::io(&self.path))?.len();
        let found = size.saturating_sub(self.start);
        match expected {
            Some(expected) if expected as u64 <= found => Ok(()),
            Some(expected) => {
                Err(self.refuse(format!("truncated: expected {expected} bytes behind the header, found {found}")))
            }
            None => Err(self.refuse(format!("expected an array that fits in memory, found {:?}", self.header.shape))),
        }
    }

    /// The whole array, which must be `[rows, columns]`, as `f32`.
    fn matrix(mut self) -> Result<Array2<f32>> {
        let &[rows, columns] = self.header.shape.as_slice() else {
            let advice = match self.header.shape.as_slice() {
                [n] => format!("; for one point reshape it to [1, {n}]"),
                _ => String::new(),
            };
            return Err(self
                .refuse(format!("expected an array [rows, latent dimension], found {:?}{advice}", self.header.shape)));
        };
        let fortran = self.header.fortran;
        let mut numbers = Vec::new();
        self.each(|reader, at, value| {
            let number = value as f32;
            if !number.is_finite() {
                let (row, column) = if fortran { (at % rows, at / rows) } else { (at / columns, at % columns) };
                let expected = if value.is_finite() { "a number that float32 can hold" } else { "a finite number" };
                let value = if value.is_finite() { format!("{value:e}") } else { value.to_string() };
                return Err(reader.refuse(format!("row {row}, column {column}: expected {expected}, found {value}")));
            }
            numbers.push(number);
            Ok(())
        })?;
        let shape = (rows, columns).set_f(fortran);
        let array = Array2::from_shape_vec(shape, numbers).map_err(|e| self.refuse(e.to_string()))?;
        Ok(if fortran { array.as_standard_layout().into_owned() } else { array })
    }

    /// Every number as it stands in the file, with its place.
    fn each(&mut self, mut take: impl FnMut(&Self, usize, f64) -> Result<()>) -> Result<()> {
        let (float, big) = self.float()?;
        let width = match float {
            Float::F16 => 2,
            Float::F32 => 4,
            Float::F64 => 8,
        };
        self.check_size(width)?;
        let mut bytes = [0; 8];
        for at in 0..self.header.shape.iter().product() {
            let bytes = &mut bytes[..width];
            self.file.read_exact(bytes).map_err(Error::io(&self.path))?;
            if big {
                bytes.reverse();
            }
            let value = match (float, &*bytes) {
                (Float::F64, &[a, b, c, d, e, f, g, h]) => f64::from_le_bytes([a, b, c, d, e, f, g, h]),
                (Float::F32, &[a, b, c, d]) => f64::from(f32::from_le_bytes([a, b, c, d])),
                (Float::F16, &[a, b]) => f64::from(f16::from_le_bytes([a, b])),
                _ => 0.0,
            };
            take(self, at, value)?;
        }
        Ok(())
    }

    /// Row `index` along the first axis, as [`Reader::rows`].
    pub fn row<T: Number>(&mut self, index: usize) -> Result<Vec<T>> {
        self.rows(index, 1)
    }

    /// `count` rows from `first` on along the first axis of one of our own arrays: C order, `T` as [`Number::DESCR`] names it.
    pub fn rows<T: Number>(&mut self, first: usize, count: usize) -> Result<Vec<T>> {
        if self.header.descr != T::DESCR || self.header.fortran {
            let found = &self.header.descr;
            return Err(self.refuse(format!("expected dtype {} in C order, found {found}", T::DESCR)));
        }
        self.check_size(T::WIDTH)?;
        let row: usize = self.header.shape.iter().skip(1).product();
        let at = self.start + (first * row * T::WIDTH) as u64;
        self.file.seek(SeekFrom::Start(at)).map_err(Error::io(&self.path))?;
        let mut bytes = vec![0; count * row * T::WIDTH];
        self.file.read_exact(&mut bytes).map_err(Error::io(&self.path))?;
        Ok(bytes.chunks_exact(T::WIDTH).map(T::from_bytes).collect())
    }
}

impl Header {
    /// Reads `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }`.
    fn parse(text: &str) -> Option<Self> {
        let value = |key: &str| {
            let (_, rest) = text.split_once(&format!("'{key}'"))?;
            Some(rest.trim_start().strip_prefix(':')?.trim_start())
        };
        let descr = value("descr")?;
        let descr = match descr.strip_prefix('\'') {
            Some(plain) => plain.split_once('\'')?.0.to_owned(),
            None if descr.starts_with('[') => "of a structured array".into(),
            None => return None,
        };
        let fortran = match value("fortran_order")? {
            v if v.starts_with("True") => true,
            v if v.starts_with("False") => false,
            _ => return None,
        };
        let (shape, _) = value("shape")?.strip_prefix('(')?.split_once(')')?;
        let shape = shape.split(',').map(str::trim).filter(|s| !s.is_empty());
        let shape = shape.map(|s| s.parse().ok()).collect::<Option<Vec<usize>>>()?;
        Some(Self { descr, fortran, shape })
    }
}

/// Latents `[rows, d]` from a file: float32, float64 or float16, either byte order, C or Fortran order.
///
/// # Errors
///
/// Where the file cannot be read, holds no rows, has another width than `latent_dim`, or a number is not finite.
pub(super) fn read_latents(path: &Path, latent_dim: usize) -> Result<Array2<f32>> {
    let reader = Reader::open(path)?;
    let rank = reader.shape().len();
    if let &[rows, columns] = reader.shape() {
        reader.float()?;
        if rows == 0 {
            return Err(reader.refuse(format!("expected at least one row, found an array [0, {columns}]")));
        }
        if columns != latent_dim {
            return Err(reader.refuse(format!(
                "expected latents of dimension {latent_dim}, the decoder's, found {columns} (shape [{rows}, {columns}])"
            )));
        }
    } else if rank == 0 {
        return Err(reader.refuse(format!("expected an array [rows, {latent_dim}], found a single number")));
    }
    reader.matrix()
}

/// Numbers `[outputs]` from a file: a float type, either byte order.
///
/// # Errors
///
/// Where the file cannot be read or holds an array of another rank.
pub(super) fn read_weights(path: &Path) -> Result<Vec<f64>> {
    let mut reader = Reader::open(path)?;
    if reader.shape().len() != 1 {
        return Err(reader.refuse(format!("expected an array [outputs] of weights, found {:?}", reader.shape())));
    }
    let mut numbers = Vec::new();
    reader.each(|_, _, value| {
        numbers.push(value);
        Ok(())
    })?;
    Ok(numbers)
}

/// A number that is written to and read from result files.
pub(super) trait Number: Copy {
    /// Name of the type in a header.
    const DESCR: &'static str;
    /// Bytes per number.
    const WIDTH: usize;
    fn write(self, to: &mut impl Write) -> std::io::Result<()>;
    fn from_bytes(bytes: &[u8]) -> Self;
}

macro_rules! number {
    ($type:ty, $descr:literal) => {
        impl Number for $type {
            const DESCR: &'static str = $descr;
            const WIDTH: usize = size_of::<$type>();

            fn write(self, to: &mut impl Write) -> std::io::Result<()> {
                to.write_all(&self.to_le_bytes())
            }

            fn from_bytes(bytes: &[u8]) -> Self {
                bytes.try_into().map(Self::from_le_bytes).unwrap_or_default()
            }
        }
    };
}

number!(f32, "<f4");
number!(u32, "<u4");
number!(i64, "<i8");
number!(u8, "|u1");

/// Writes an array of known shape piece by piece.
pub(super) struct Writer {
    file: BufWriter<File>,
}

impl Writer {
    pub fn create<T: Number>(path: &Path, shape: &[usize]) -> std::io::Result<Self> {
        let mut file = BufWriter::with_capacity(1 << 18, File::create_new(path)?);
        let shape: String = shape.iter().map(|n| format!("{n}, ")).collect();
        let dict = format!("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", T::DESCR, shape.trim_end());
        // The numbers begin at a multiple of 64 bytes; 10 bytes stand before the dictionary and a line end behind it.
        let padded = (10 + dict.len() + 1).next_multiple_of(64) - 10 - 1;
        let header = format!("{dict:<padded$}\n");
        file.write_all(MAGIC)?;
        file.write_all(&[1, 0])?;
        file.write_all(&(header.len() as u16).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        Ok(Self { file })
    }

    pub fn extend<T: Number>(&mut self, numbers: impl IntoIterator<Item = T>) -> std::io::Result<()> {
        numbers.into_iter().try_for_each(|number| number.write(&mut self.file))
    }

    /// Puts everything on the disk.
    pub fn finish(self) -> std::io::Result<()> {
        self.file.into_inner().map_err(|e| e.into_error())?.sync_all()
    }
}
