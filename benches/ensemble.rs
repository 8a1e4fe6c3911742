//! The distances between all pairs of 133 class centres under an ensemble of ten decoders 2→128→128→50 with relu, 2,000 points a curve:
//! what is done today with 500 steps of Adam a curve.
//!
//!     cargo bench --bench ensemble -- [--pairs 8778] [--segments 1999] [--json FILE]
//!
//! The decoders are those of `fixtures/digits-d2-ensemble` with the first 50 of their outputs; the centres are 133 of its latents. Prints
//! seconds, curves per second, the most memory that was taken, and how the curves ended. Without `--pairs` 64 pairs spread over all of
//! them are solved: time goes with the number of pairs, as each is solved by itself. `PULLBACK_BENCH_DEVICE` names the device.
//! `benches/peers/ensemble_adam.py` does Adam's steps for the same pairs.

#[path = "../tests/fixtures/mod.rs"]
mod fixtures;
mod rates;

use std::time::Instant;

use fixtures::{decoder, path};
use ndarray::{Array2, s};
use pullback::{Decoder, Head, Options, Status};
use rates::device;
use serde_json::json;

const CENTRES: usize = 133;
const OUTPUTS: usize = 50;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| args.iter().position(|a| a == name).and_then(|k| args.get(k + 1));
    let number = |name: &str, default: usize| value(name).map_or(default, |text| text.parse().expect("a number"));
    // Without `--bench`, which `cargo bench` gives, this is a test of the bench.
    let is_test = !args.iter().any(|a| a == "--bench");
    let (pairs, segments) = if is_test { (1, 16) } else { (number("--pairs", 64), number("--segments", 1999)) };

    let latents: Array2<f32> = ndarray_npy::read_npy(path("digits-d2-ensemble.latents.npy")).expect("latents");
    let step = latents.nrows() / CENTRES;
    let centre = |k: usize| latents.row(k * step);
    let all: Vec<(usize, usize)> = (0..CENTRES).flat_map(|a| (0..a).map(move |b| (b, a))).collect();
    let chosen: Vec<_> = (0..pairs.min(all.len())).map(|k| all[k * all.len() / pairs.min(all.len())]).collect();
    let ends = |which: fn(&(usize, usize)) -> usize| {
        Array2::from_shape_fn((chosen.len(), 2), |(c, k)| centre(which(&chosen[c]))[k])
    };

    let device = device();
    let model = device.load(&ensemble()).expect("the ensemble loads");
    let options = Options { segments, ..Options::default() };
    let (starts, ends) = (ends(|p| p.0), ends(|p| p.1));
    let begin = Instant::now();
    let found = model.geodesics(starts.view(), ends.view(), &options).expect("geodesics");
    let seconds = begin.elapsed().as_secs_f64();

    let statuses: serde_json::Map<_, _> =
        Status::ALL.iter().map(|&s| (s.name().to_owned(), json!(found.count(s)))).collect();
    let passes: f64 = found.iterations.iter().map(|&i| f64::from(i)).sum::<f64>() / found.len() as f64;
    let record = json!({
        "program": "pullback",
        "version": env!("CARGO_PKG_VERSION"),
        "device": device.label(),
        "threads": rayon::current_num_threads(),
        "workload": "10 decoders 2-128-128-50, relu",
        "pairs": chosen.len(),
        "points": segments + 1,
        "seconds": seconds,
        "seconds_per_curve": seconds / chosen.len() as f64,
        "curves_per_second": chosen.len() as f64 / seconds,
        "host_peak_bytes": peak_memory(),
        "all_pairs_hours": all.len() as f64 * seconds / chosen.len() as f64 / 3600.0,
        "mean_passes": passes,
        "mean_energy": found.energy.iter().map(|&e| f64::from(e)).sum::<f64>() / found.len() as f64,
        "status": statuses,
    });
    let text = serde_json::to_string_pretty(&record).expect("JSON");
    if let Some(file) = value("--json") {
        std::fs::write(file, format!("{text}\n")).expect("written");
    }
    println!("{text}");
}

/// The most memory that this process has had, where the system tells.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
}

/// The members of the fixture with the first outputs alone.
fn ensemble() -> Decoder {
    let cut = |head: &Head| {
        let mut layers = head.layers().to_vec();
        let last = layers.last_mut().expect("a layer");
        last.weight = last.weight.slice(s![..OUTPUTS, ..]).to_owned();
        last.bias = last.bias.slice(s![..OUTPUTS]).to_owned();
        Head::new(head.name(), layers).expect("a head")
    };
    Decoder::ensemble(decoder("digits-d2-ensemble").heads().iter().map(cut).collect()).expect("an ensemble")
}
