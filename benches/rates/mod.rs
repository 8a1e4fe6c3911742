//! What criterion measures, as elements per second, GFLOP/s and, on the processor, share of a matrix product's rate in the same run.
#![allow(dead_code)] // every bench uses a part of this

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use pullback::{Decoder, Device, Model};

/// Where everything runs: `PULLBACK_BENCH_DEVICE`, which is cpu (the default), cuda, cuda:N or emulator.
pub fn device() -> Device {
    let name = std::env::var("PULLBACK_BENCH_DEVICE").unwrap_or_else(|_| "cpu".into());
    let number = |n: &str| n.parse().unwrap_or_else(|_| panic!("PULLBACK_BENCH_DEVICE: expected cuda:N, found {name}"));
    let device = match name.as_str() {
        "cpu" => Ok(Device::cpu()),
        "cuda" => Device::cuda(0),
        #[cfg(feature = "emulator")]
        "emulator" => Device::emulator(&pullback::EmulatorOptions::default()),
        other => match other.strip_prefix("cuda:") {
            Some(n) => Device::cuda(number(n)),
            None => panic!("PULLBACK_BENCH_DEVICE: expected cpu, cuda, cuda:N or emulator, found {other}"),
        },
    };
    device.unwrap_or_else(|error| panic!("PULLBACK_BENCH_DEVICE={name}: {error}"))
}

/// What a call spends in a device's kernels, by the device's own clock.
pub fn in_kernels<A>(model: &Model, call: impl FnOnce() -> A) -> Option<f64> {
    let before = model.kernel_seconds();
    black_box(call());
    model.kernel_seconds().zip(before).map(|(after, before)| after - before)
}

/// One thing to be measured.
pub struct Bench<'a> {
    pub name: &'a str,
    /// What is counted, such as `points` or `curves`.
    pub unit: &'a str,
    /// How many of them one call of the operation computes.
    pub elements: usize,
    /// Multiplications and additions of one element, where they can be told.
    pub flops: Option<f64>,
    /// Anything else worth knowing.
    pub note: String,
}

/// A criterion group of one decoder that prints a table line for every bench.
pub struct Rates<'a> {
    group: BenchmarkGroup<'a, WallTime>,
    name: String,
    layer: (usize, usize),
    on_cpu: bool,
}

impl<'a> Rates<'a> {
    pub fn new(
        criterion: &'a mut Criterion,
        operation: &str,
        decoder_name: &str,
        decoder: &Decoder,
        device: &Device,
    ) -> Self {
        let on_cpu = device.is_cpu();
        let place = if on_cpu { String::new() } else { format!("{}/", device.label()) };
        let name = format!("{place}{operation}/{decoder_name}");
        let mut group = criterion.benchmark_group(&name);
        group.sample_size(10).sampling_mode(SamplingMode::Flat);
        group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(4));
        Self { group, name, layer: largest_layer(decoder), on_cpu }
    }

    /// `operation` returns the seconds that it spent in a device's kernels, `None` on the processor, where it is timed as a whole.
    pub fn run(&mut self, bench: &Bench<'_>, mut operation: impl FnMut() -> Option<f64>) {
        let samples = RefCell::new(Vec::new());
        self.group.throughput(Throughput::Elements(bench.elements as u64));
        self.group.bench_function(bench.name, |b| {
            b.iter_custom(|calls| {
                let start = Instant::now();
                let kernels: Option<f64> = (0..calls).map(|_| operation()).sum();
                let taken = kernels.map_or_else(|| start.elapsed(), Duration::from_secs_f64);
                samples.borrow_mut().push(taken.as_secs_f64() / calls as f64);
                taken
            });
        });
        let mut samples = samples.into_inner();
        samples.sort_by(f64::total_cmp);
        if !measuring() || samples.is_empty() {
            return;
        }
        let rate = bench.elements as f64 / samples[samples.len() / 2];
        let mut line = format!("{:<44} {:>12.0} {}/s", format!("{}/{}", self.name, bench.name), rate, bench.unit);
        if let Some(flops) = bench.flops {
            let reached = rate * flops * 1e-9;
            line += &format!(" {reached:>7.1} GFLOP/s");
            if self.on_cpu {
                let ((inputs, outputs), peak) = (self.layer, peak(self.layer));
                let share = 100.0 * reached / peak;
                line += &format!(", {share:>3.0} % of the {peak:.0} of {ROWS}×{inputs}×{outputs} products");
            }
        }
        println!("{line}{}\n", bench.note);
    }
}

/// False where `cargo test` runs every bench once.
fn measuring() -> bool {
    std::env::args().any(|a| a == "--bench") && !std::env::args().any(|a| a == "--test")
}

/// Rows of the products that the peak is measured with.
const ROWS: usize = 2048;

/// (inputs, outputs) of the layer that costs most, after isometric compression.
fn largest_layer(decoder: &Decoder) -> (usize, usize) {
    let decoder = decoder.compressed();
    let layers = decoder.heads().iter().flat_map(|head| head.layers());
    layers.map(|l| (l.inputs(), l.outputs())).max_by_key(|(inputs, outputs)| inputs * outputs).unwrap()
}

/// GFLOP/s of float32 products of that size, one per thread of the pool at a time, the best of ten rounds; measured once per size.
fn peak(layer: (usize, usize)) -> f64 {
    thread_local! {
        static PEAKS: RefCell<BTreeMap<(usize, usize), f64>> = const { RefCell::new(BTreeMap::new()) };
    }
    PEAKS.with(|peaks| *peaks.borrow_mut().entry(layer).or_insert_with(|| measure_peak(layer)))
}

fn measure_peak((inputs, outputs): (usize, usize)) -> f64 {
    let flops = 2.0 * (ROWS * inputs * outputs) as f64;
    let calls = (1e10 / flops).ceil() as usize; // about 0.1 s
    let threads = rayon::current_num_threads();
    let round = || {
        let start = Instant::now();
        rayon::broadcast(|_| {
            let (a, b) = (vec![0.5f32; ROWS * inputs], vec![0.25f32; outputs * inputs]);
            let mut c = vec![0.0f32; ROWS * outputs];
            for _ in 0..calls {
                matmul(
                    MatMut::from_row_major_slice_mut(&mut c, ROWS, outputs),
                    Accum::Replace,
                    MatRef::from_row_major_slice(black_box(&a), ROWS, inputs),
                    MatRef::from_row_major_slice(&b, outputs, inputs).transpose(),
                    1.0,
                    Par::Seq,
                );
            }
            black_box(c);
        });
        flops * (calls * threads) as f64 / start.elapsed().as_secs_f64() * 1e-9
    };
    (0..10).map(|_| round()).fold(0.0, f64::max)
}
