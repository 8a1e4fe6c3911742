//! What the device reaches at most, measured in the same run: large matrix products, and copies.

use std::hint::black_box;
use std::time::Instant;

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::device::Device;

/// Rows, columns and inner length of a product, one on every thread.
const SIDE: usize = 768;
/// Numbers that every thread copies: beyond its share of the caches.
const COPIED: usize = 1 << 24;
const ROUNDS: usize = 5;

/// Operations and bytes per second at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ceilings {
    pub operations: f64,
    /// `None` where it was not measured.
    pub bytes: Option<f64>,
    /// False where the operations are computed from the clock.
    pub is_measured: bool,
}

impl Ceilings {
    /// `None` on the emulator, whose times mean nothing.
    pub fn measure(device: &Device, quick: bool) -> Option<Self> {
        if device.is_cpu() {
            let (side, copied) = if quick { (SIDE / 6, COPIED / 256) } else { (SIDE, COPIED) };
            return Some(Self { operations: products(side), bytes: Some(copies(copied)), is_measured: true });
        }
        // FFMA of all lanes at the highest clock: 128 in a multiprocessor, 64 in those of compute capability 8.0.
        let gpu = device.properties().filter(|gpu| gpu.clock > 0)?;
        let lanes = if gpu.compute == (8, 0) { 64 } else { 128 };
        let operations = f64::from(gpu.multiprocessors * lanes * 2) * f64::from(gpu.clock) * 1e6;
        Some(Self { operations, bytes: None, is_measured: false })
    }

    pub fn record(&self) -> Value {
        json!({
            "float32_operations_per_second": self.operations,
            "operations_are": if self.is_measured { "measured" } else { "nominal" },
            "copied_bytes_per_second": self.bytes,
        })
    }
}

/// Seconds of the fastest of some rounds.
fn fastest(mut round: impl FnMut()) -> f64 {
    round();
    let timed = |()| {
        let began = Instant::now();
        round();
        began.elapsed().as_secs_f64()
    };
    [(); ROUNDS].map(timed).into_iter().fold(f64::INFINITY, f64::min).max(1e-9)
}

/// Operations per second of float32 products, one on every thread at a time.
fn products(side: usize) -> f64 {
    let mut work: Vec<[Vec<f32>; 3]> = (0..rayon::current_num_threads())
        .map(|_| [vec![0.5; side * side], vec![0.25; side * side], vec![0.0; side * side]])
        .collect();
    let calls = 4;
    let seconds = fastest(|| {
        work.par_iter_mut().for_each(|[a, b, c]| {
            for _ in 0..calls {
                matmul(
                    MatMut::from_row_major_slice_mut(&mut c[..], side, side),
                    Accum::Replace,
                    MatRef::from_row_major_slice(black_box(&a[..]), side, side),
                    MatRef::from_row_major_slice(&b[..], side, side),
                    1.0,
                    Par::Seq,
                );
            }
            black_box(&c);
        });
    });
    2.0 * (side as f64).powi(3) * (calls * work.len()) as f64 / seconds
}

/// Bytes per second that are read and written together, by copies on every thread at a time.
fn copies(numbers: usize) -> f64 {
    let mut work: Vec<[Vec<f32>; 2]> =
        (0..rayon::current_num_threads()).map(|_| [vec![1.0; numbers], vec![0.0; numbers]]).collect();
    let seconds = fastest(|| work.par_iter_mut().for_each(|[from, to]| to.copy_from_slice(black_box(&from[..]))));
    (2 * size_of::<f32>() * numbers * work.len()) as f64 / seconds
}
