//! What the device reaches at most, measured in the same run: large matrix products, and copies.

use std::hint::black_box;
use std::time::Instant;

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;
use serde_json::{Value, json};

use super::super::solve::thousands;
use crate::cost::Cost;
#[cfg(feature = "cuda")]
use crate::cuda::platform::{Products, Reached};
use crate::device::Device;
#[cfg(feature = "cuda")]
use crate::device::DeviceProperties;
use crate::precision::Precision;

/// Rows, columns and inner length of a product, one on every thread.
const SIDE: usize = 768;
/// Numbers that every thread copies: beyond its share of the caches.
const COPIED: usize = 1 << 24;
const ROUNDS: usize = 5;

/// Operations and bytes per second at most.
#[derive(Clone, Debug, Default)]
pub(super) struct Ceilings {
    /// Of products, by the format of their factors; `None` where they were not measured.
    pub float32: Option<f64>,
    pub tf32: Option<f64>,
    pub bf16: Option<f64>,
    /// Read and written ones together; `None` where they were not measured.
    pub bytes: Option<f64>,
    /// Rows and columns of the matrices, and the library that multiplied them.
    products: Option<(usize, String)>,
    /// Why there is no measured rate of products, so that float32's is computed from the clock.
    why_nominal: Option<String>,
    why_no_bytes: Option<String>,
}

impl Ceilings {
    /// `None` on the emulator, whose times mean nothing.
    pub fn measure(device: &Device, quick: bool) -> Option<Self> {
        if device.is_cpu() {
            let (side, copied) = if quick { (SIDE / 6, COPIED / 256) } else { (SIDE, COPIED) };
            return Some(Self {
                float32: Some(products(side)),
                bytes: Some(copies(copied)),
                products: Some((side, "faer".into())),
                ..Self::default()
            });
        }
        #[cfg(feature = "cuda")]
        let found = device.properties().zip(device.reached(quick)).map(|(gpu, reached)| Self::of_gpu(&gpu, reached));
        #[cfg(not(feature = "cuda"))]
        let found = None;
        found
    }

    #[cfg(feature = "cuda")]
    fn of_gpu(gpu: &DeviceProperties, reached: Reached) -> Self {
        let mut this = Self::default();
        match reached.operations {
            Ok(Products { float32, tf32, bf16, side, library }) => {
                [this.float32, this.tf32, this.bf16] = [float32, tf32, bf16].map(Some);
                this.products = Some((side, library));
            }
            Err(why) => {
                // FFMA of all lanes at the highest clock: 128 in a multiprocessor, 64 in those of compute capability 8.0.
                let lanes = if gpu.compute == (8, 0) { 64 } else { 128 };
                let nominal = f64::from(gpu.multiprocessors * lanes * 2) * f64::from(gpu.clock) * 1e6;
                this.float32 = (nominal > 0.0).then_some(nominal);
                this.why_nominal = Some(why);
            }
        }
        match reached.bytes {
            Ok(bytes) => this.bytes = Some(bytes),
            Err(why) => this.why_no_bytes = Some(why),
        }
        this
    }

    /// Operations per second at most of what is computed in a precision: `tf32x3` takes three products for one, and a mixture is TF32's at
    /// best.
    fn operations(&self, precision: Precision) -> Option<f64> {
        match precision {
            Precision::Float32 => self.float32,
            Precision::Tf32 | Precision::Mixed => self.tf32,
            Precision::Tf32x3 => self.tf32.map(|rate| rate / 3.0),
            Precision::Bf16 => self.bf16,
        }
    }

    /// What so many operations a second are of what the roofline allows.
    pub fn share(&self, cost: Cost, precision: Precision, reached: f64) -> Option<f64> {
        let most = self.operations(precision)?;
        Some(reached / self.bytes.map_or(most, |bytes| cost.ceiling(most, bytes)))
    }

    /// The rates of products that are known, by format.
    pub fn roofs(&self) -> Vec<(&'static str, f64)> {
        let all = [("float32", self.float32), ("tf32", self.tf32), ("bf16", self.bf16)];
        all.into_iter().filter_map(|(name, rate)| Some((name, rate?))).collect()
    }

    pub fn record(&self) -> Value {
        json!({
            "float32_operations_per_second": self.float32,
            "tf32_operations_per_second": self.tf32,
            "bf16_operations_per_second": self.bf16,
            "operations_are": if self.why_nominal.is_none() { "measured" } else { "nominal" },
            "why": self.why_nominal,
            "matrix_rows": self.products.as_ref().map(|(side, _)| side),
            "library": self.products.as_ref().map(|(_, library)| library),
            "copied_bytes_per_second": self.bytes,
            "why_no_copies": self.why_no_bytes,
        })
    }

    pub fn for_people(&self) -> String {
        let rate = |(name, rate): (&str, f64)| format!("{name} {} GFLOP/s", thousands((rate * 1e-9) as usize));
        let rates = self.roofs().into_iter().map(rate).collect::<Vec<_>>().join(", ");
        let rates = if rates.is_empty() { "unknown".to_owned() } else { rates };
        let products = match &self.why_nominal {
            None => format!("products of large matrices: {rates}"),
            Some(why) => format!("at the highest clock: {rates} (not measured: {why})"),
        };
        let copies = match (self.bytes, &self.why_no_bytes) {
            (Some(bytes), _) => format!("copies {:.1} GB/s", bytes * 1e-9),
            (None, why) => format!("copies not measured: {}", why.as_deref().unwrap_or("unknown")),
        };
        format!("{products}; {copies}")
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

#[cfg(test)]
mod tests {
    use super::*;

    /// One operation a byte, so that the memory's rate counts where it is lower.
    const COST: Cost = Cost { operations: 10.0, bytes: 10.0 };

    fn made(bytes: Option<f64>) -> Ceilings {
        Ceilings { float32: Some(60.0), tf32: Some(300.0), bf16: Some(800.0), bytes, ..Ceilings::default() }
    }

    #[test]
    fn every_precision_has_the_ceiling_of_its_products() {
        let shares = |ceilings: &Ceilings| Precision::ALL.map(|p| ceilings.share(COST, p, 30.0));
        // float32, tf32x3, tf32, bf16, mixed
        let expected = [30.0 / 60.0, 30.0 / 100.0, 30.0 / 300.0, 30.0 / 800.0, 30.0 / 300.0];
        assert_eq!(shares(&made(None)), expected.map(Some));
        let expected = [30.0 / 60.0, 30.0 / 90.0, 30.0 / 90.0, 30.0 / 90.0, 30.0 / 90.0];
        assert_eq!(shares(&made(Some(90.0))), expected.map(Some), "bound by bytes");
        let float32 = Ceilings { tf32: None, bf16: None, ..made(None) };
        assert_eq!(shares(&float32), [Some(0.5), None, None, None, None]);
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn what_was_not_measured_is_nominal_and_says_why() {
        let gpu = |compute| {
            let gpu = crate::cuda::platform::Properties {
                compute,
                multiprocessors: 100,
                clock: 1500,
                ..crate::cuda::platform::Properties::default()
            };
            DeviceProperties::from(&gpu)
        };
        let none = || Reached { operations: Err("no cuBLAS (PULLBACK_CUBLAS=none)".into()), bytes: Ok(2e12) };
        let found = Ceilings::of_gpu(&gpu((9, 0)), none());
        let record = found.record();
        assert_eq!(record["operations_are"], "nominal");
        assert_eq!(record["why"], "no cuBLAS (PULLBACK_CUBLAS=none)");
        assert_eq!(
            (&record["float32_operations_per_second"], &record["tf32_operations_per_second"]),
            (&json!(3.84e13), &json!(null))
        );
        assert_eq!(record["copied_bytes_per_second"], json!(2e12));
        assert_eq!(
            found.for_people(),
            "at the highest clock: float32 38,400 GFLOP/s (not measured: no cuBLAS (PULLBACK_CUBLAS=none)); copies 2000.0 GB/s"
        );
        assert_eq!(Ceilings::of_gpu(&gpu((8, 0)), none()).float32, Some(1.92e13));

        let products =
            Products { float32: 5e13, tf32: 4e14, bf16: 7e14, side: 8192, library: "libcublas.so.12".into() };
        let found =
            Ceilings::of_gpu(&gpu((9, 0)), Reached { operations: Ok(products), bytes: Err("no memory".into()) });
        assert_eq!(
            found.for_people(),
            "products of large matrices: float32 50,000 GFLOP/s, tf32 400,000 GFLOP/s, bf16 700,000 GFLOP/s; \
             copies not measured: no memory"
        );
        let record = found.record();
        assert_eq!((&record["operations_are"], &record["why"]), (&json!("measured"), &json!(null)));
        assert_eq!((&record["matrix_rows"], &record["why_no_copies"]), (&json!(8192), &json!("no memory")));
    }
}
