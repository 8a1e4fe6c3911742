//! Everything that one device is measured for, as one JSON object: operations by shape, and geodesics from one curve to a million, in
//! every precision.
//!
//!     PULLBACK_BENCH_DEVICE=cuda cargo bench --bench device -- [--quick] [--json FILE] [--limit SECONDS]
//!
//! The device is named as in the other benches. `--quick` takes tiny sizes. `--json` also writes FILE anew after every measurement, so
//! that a run that is cut short has not been for nothing. Numbers of curves that would take longer than `--limit` (60 s) are left out.
//! Times of the emulator would mean nothing: it gives none.

#[path = "../tests/fixtures/mod.rs"]
mod fixtures;
mod rates;

use std::fs;
use std::hint::black_box;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use fixtures::{Random, cast, decoder, path};
use ndarray::{Array2, ArrayView2};
use pullback::cost::Shape;
use pullback::{Activation, Decoder, Device, Options, Precision, Status};
use rates::device;
use serde_json::{Value, json};

/// Numbers that one operation may put out: 1 GiB.
const MOST_NUMBERS: usize = 1 << 28;
/// Calls of one measurement go on for about this long, in seconds.
const ENOUGH: f64 = 2.0;
const MOST_CALLS: usize = 50;

struct Run {
    device: Device,
    quick: bool,
    /// False on the emulator.
    timed: bool,
    limit: f64,
    json: Option<PathBuf>,
    record: Value,
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| args.iter().position(|a| a == name).and_then(|k| args.get(k + 1));
    let device = device();
    // Without `--bench`, which `cargo bench` gives, this is a test of the bench.
    let quick = args.iter().any(|a| a == "--quick") || !args.iter().any(|a| a == "--bench");
    let record = json!({
        "program": "pullback",
        "version": env!("CARGO_PKG_VERSION"),
        "device": describe(&device),
        "quick": quick,
        "operations": [],
        "geodesics": [],
    });
    let timed = device.label() != "emulator";
    let limit = value("--limit").map_or(60.0, |text| text.parse().expect("--limit: a number of seconds"));
    let json = value("--json").map(PathBuf::from);
    let mut run = Run { device, quick, timed, limit, json, record };
    for widths in [[2, 64, 64, 64], [8, 256, 256, 784], [8, 512, 512, 3072]] {
        run.operations(&widths);
    }
    for name in ["digits-d2-tanh", "digits-d8-softplus"] {
        run.geodesics(name);
    }
    println!("{}", serde_json::to_string_pretty(&run.record).expect("JSON"));
}

fn describe(device: &Device) -> Value {
    let properties = device.properties();
    json!({
        "label": device.label(),
        "name": properties.as_ref().map(|p| p.name.clone()),
        "compute_capability": properties.as_ref().map(|p| format!("{}.{}", p.compute.0, p.compute.1)),
        "multiprocessors": properties.as_ref().map(|p| p.multiprocessors),
        "clock_mhz": properties.as_ref().map(|p| p.clock),
        "memory_bytes": properties.as_ref().map(|p| p.memory),
        "threads": rayon::current_num_threads(),
        "emulated": device.label() == "emulator",
    })
}

impl Run {
    fn add(&mut self, list: &str, entry: Value) {
        eprintln!("{entry}");
        self.record[list].as_array_mut().expect("a list").push(entry);
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(&self.record).expect("JSON");
            fs::write(path, text + "\n").expect("the JSON can be written");
        }
    }

    /// Median seconds of a call on a device that is warm; `None` on the emulator.
    fn seconds(&self, mut call: impl FnMut()) -> Option<f64> {
        if !self.timed {
            return None;
        }
        let mut taken = Vec::new();
        while taken.is_empty() || (taken.iter().sum::<f64>() < ENOUGH && taken.len() < MOST_CALLS && !self.quick) {
            let began = Instant::now();
            call();
            taken.push(began.elapsed().as_secs_f64());
        }
        Some(median(taken))
    }

    /// GFLOP/s of float32 FFMA at the highest clock: 128 lanes in a multiprocessor, 64 in those of compute capability 8.0.
    fn ffma_peak(&self) -> Option<f64> {
        let gpu = self.device.properties().filter(|gpu| gpu.clock > 0)?;
        let lanes = if gpu.compute == (8, 0) { 64 } else { 128 };
        Some(f64::from(gpu.multiprocessors * lanes * 2) * f64::from(gpu.clock) * 1e-3)
    }

    fn operations(&mut self, widths: &[usize; 4]) {
        for &precision in self.precisions() {
            self.operations_in(precision, widths);
        }
    }

    /// The first is float32, in which everything can be computed.
    fn precisions(&self) -> &'static [Precision] {
        let all = &[Precision::Float32, Precision::Tf32x3, Precision::Tf32, Precision::Bf16, Precision::Mixed];
        if self.device.properties().is_some() { all } else { &all[..1] }
    }

    fn operations_in(&mut self, precision: Precision, widths: &[usize; 4]) {
        let decoder = Random(1).decoder(widths, Activation::Tanh, Activation::Identity);
        let model = self.device.load_with(&decoder, precision).unwrap();
        let (d, width) = (decoder.latent_dim(), decoder.data_dim());
        let shape = Shape::new(&decoder);
        let most = if self.quick { 33 } else { 1 << 17 };
        let all: Array2<f32> = cast(&Random(2).array((most, d)));
        for (name, outputs, flops) in [
            ("decode", width, shape.decode(1).operations),
            ("jacobian", d * width, shape.jacobian(1).operations),
            ("metric", d * d, shape.metric(1).operations),
        ] {
            // Metrics alone are computed on tensor cores, and of a mixture they are as in the finer part of it.
            if (name != "metric" && precision != Precision::Float32) || precision == Precision::Mixed {
                continue;
            }
            let points = all.slice(ndarray::s![..most.min(MOST_NUMBERS / outputs), ..]);
            let call = || match name {
                "decode" => drop(black_box(model.decode(points).unwrap())),
                "jacobian" => drop(black_box(model.jacobian(points).unwrap())),
                _ => drop(black_box(model.metric(points).unwrap())),
            };
            call();
            let in_kernels = || model.kernel_seconds().filter(|_| self.timed);
            let seconds = self.seconds(call);
            let before = in_kernels();
            call();
            let kernels = in_kernels().zip(before).map(|(after, before)| after - before);
            let rate = |seconds: f64| points.nrows() as f64 * flops / seconds * 1e-9;
            let entry = json!({
                "operation": name,
                "precision": model.precision().name(),
                "widths": widths,
                "points": points.nrows(),
                "flops_per_point": flops,
                "seconds_with_transfers": seconds,
                "seconds_in_kernels": kernels,
                "gflops": seconds.map(rate),
                "gflops_in_kernels": kernels.map(rate),
                "share_of_ffma_peak": kernels.map(rate).zip(self.ffma_peak()).map(|(reached, peak)| reached / peak),
            });
            self.add("operations", entry);
        }
    }

    fn geodesics(&mut self, name: &str) {
        for &precision in self.precisions() {
            self.geodesics_in(precision, name);
        }
    }

    fn geodesics_in(&mut self, precision: Precision, name: &str) {
        let decoder = decoder(name);
        let latents: Array2<f32> = ndarray_npy::read_npy(path(&format!("{name}.latents.npy"))).unwrap();
        let sizes: &[usize] = if self.quick { &[1, 3] } else { &[1, 100, 10_000, 100_000, 1_000_000] };
        let mut rate: Option<f64> = None;
        for &curves in sizes {
            let expected = rate.map(|rate| curves as f64 / rate).filter(|&seconds| seconds > self.limit);
            if let Some(seconds) = expected {
                let reason = format!("it would take about {seconds:.0} s");
                self.add(
                    "geodesics",
                    json!({ "decoder": name, "precision": precision.name(), "curves": curves, "left_out": reason }),
                );
                continue;
            }
            let mut random = Random(3);
            let mut pick = || {
                let rows: Vec<usize> = (0..curves).map(|_| (random.bits() % latents.nrows() as u64) as usize).collect();
                latents.select(ndarray::Axis(0), &rows)
            };
            let (starts, ends) = (pick(), pick());
            let entry = self.solve(name, &decoder, precision, starts.view(), ends.view());
            // A few curves do not fill a device: their rate says nothing of many.
            rate = entry["curves_per_second"].as_f64().filter(|_| curves >= 10_000).or(rate);
            self.add("geodesics", entry);
        }
    }

    fn solve(
        &self,
        name: &str,
        decoder: &Decoder,
        precision: Precision,
        starts: ArrayView2<f32>,
        ends: ArrayView2<f32>,
    ) -> Value {
        let model = self.device.load_with(decoder, precision).unwrap();
        let options = Options { segments: if self.quick { 8 } else { 32 }, ..Options::default() };
        let free = || self.device.free_memory().unwrap();
        // The first run warms up, and looks at the memory now and then.
        let (before, least) = (free(), AtomicU64::new(u64::MAX));
        let look = |finished: usize, _: usize| {
            if let Some(free) = (finished % 8192 == 1).then(free).flatten() {
                least.fetch_min(free, Ordering::Relaxed);
            }
            ControlFlow::Continue(())
        };
        let (found, _) = model.geodesics_timed(starts, ends, &options, look).unwrap();
        let device_bytes = before.map(|before| before.saturating_sub(least.load(Ordering::Relaxed)));

        let mut in_kernels = Vec::new();
        let go_on = |_: usize, _: usize| ControlFlow::Continue(());
        let seconds =
            self.seconds(|| in_kernels.extend(model.geodesics_timed(starts, ends, &options, go_on).unwrap().1));
        let curves = starts.nrows();
        let in_kernels = (!in_kernels.is_empty()).then(|| median(in_kernels));
        let per_second = |seconds: Option<f64>| seconds.filter(|&s| s > 0.0).map(|s| curves as f64 / s);
        let status: Value = Status::ALL.iter().map(|&s| (s.name().to_owned(), json!(found.count(s)))).collect();
        let mean = |numbers: &mut dyn Iterator<Item = f64>| numbers.sum::<f64>() / curves as f64;
        json!({
            "decoder": name,
            "precision": model.precision().name(),
            "curves": curves,
            "segments": options.segments,
            "seconds_with_transfers": seconds,
            "seconds_in_kernels": in_kernels,
            "curves_per_second": per_second(seconds),
            "curves_per_second_in_kernels": per_second(in_kernels),
            "status": status,
            "mean_energy": mean(&mut found.energy.iter().map(|&e| f64::from(e))),
            "mean_iterations": mean(&mut found.iterations.iter().map(|&n| f64::from(n))),
            "host_peak_bytes_so_far": host_peak(),
            "device_bytes": device_bytes,
        })
    }
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// The most memory that this process has had, where the system tells.
fn host_peak() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
}
