//! `pullback metric`: the metric and its volume element at latents.

use std::time::{Duration, Instant};

use ndarray::s;
use serde_json::json;

use super::args::MetricArgs;
use super::npy::read_latents;
use super::session::{absolute, check_interrupt};
use super::solve::thousands;
use crate::error::Result;

/// Points computed and written at a time.
const BATCH_BYTES: usize = 8 << 20;

pub(super) fn run(args: &MetricArgs) -> Result<()> {
    let began = Instant::now();
    args.machine.start_threads()?;
    let decoder = args.file.open(&args.decoder)?;
    let points = read_latents(&args.points, decoder.latent_dim())?;
    let output = args.output.create()?;
    let device = args.machine.open(args.print)?;
    let (count, d) = points.dim();
    let model = args.machine.load(&device, &decoder, args.print)?;
    let mut metrics = output.array::<f32>("metric.npy", &[count, d, d])?;
    let mut volumes = output.array::<f32>("volume.npy", &[count])?;
    let bar = args.print.progress(count, "points");
    let batch = (BATCH_BYTES / (d * d * size_of::<f32>())).max(64);
    let (mut computing, mut not_finite, mut smallest, mut largest) = (Duration::ZERO, 0, f32::INFINITY, 0.0_f32);
    for from in (0..count).step_by(batch) {
        check_interrupt(from, count)?;
        let latents = points.slice(s![from..count.min(from + batch), ..]);
        let start = Instant::now();
        let metric = model.metric(latents)?;
        let volume = model.volume(latents)?;
        computing += start.elapsed();
        for (g, &v) in metric.outer_iter().zip(&volume) {
            if g.iter().all(|x| x.is_finite()) && v.is_finite() {
                (smallest, largest) = (smallest.min(v), largest.max(v));
            } else {
                not_finite += 1;
            }
        }
        metrics.extend(metric.iter().copied()).map_err(output.io())?;
        volumes.extend(volume.iter().copied()).map_err(output.io())?;
        bar.set_position((from + latents.nrows()) as u64);
    }
    bar.finish_and_clear();
    metrics.finish().map_err(output.io())?;
    volumes.finish().map_err(output.io())?;

    let seconds = computing.as_secs_f64();
    let range = (smallest <= largest).then_some([smallest, largest]);
    let mut record = json!({
        "program": "pullback",
        "version": env!("CARGO_PKG_VERSION"),
        "command": "metric",
        "decoder": absolute(&args.decoder),
        "decoder_options": args.file.record(),
        "points": absolute(&args.points),
        "count": count,
        "latent_dim": d,
        "data_dim": decoder.data_dim(),
        "device": device.label(),
        "device_name": device.properties().map(|p| p.name),
        "precision": model.precision().name(),
        "threads": rayon::current_num_threads(),
        "not_finite": not_finite,
        "volume_range": range,
        "timings": { "compute_seconds": seconds, "total_seconds": began.elapsed().as_secs_f64() },
    });
    check_interrupt(count, count)?;
    output.finish(&record)?;

    if not_finite > 0 {
        let (bad, all) = (thousands(not_finite), thousands(count));
        args.print.warn(&format!("the metric is not finite at {bad} of {all} points: see volume.npy"));
    }
    record["out"] = json!(absolute(&args.output.out));
    let mut summary = format!("{} metrics of {d}×{d} in {seconds:.3} s\n", thousands(count));
    if let Some([smallest, largest]) = range {
        summary += &format!("volume element √det G: {smallest:.4e} to {largest:.4e}\n");
    }
    summary += &format!("written to {}\n", args.output.out.display());
    args.print.result(&summary, &record)
}
