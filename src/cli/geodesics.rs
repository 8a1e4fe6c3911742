//! `pullback geodesics`: pairs of latents in, curves out.

use std::time::Instant;

use serde_json::{Value, json};

use super::args::GeodesicsArgs;
use super::npy::read_latents;
use super::session::{absolute, check_interrupt};
use super::solve::{Arrays, Totals, batch_size, options_record, solve, thousands};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::geodesic::Options;
use crate::model::Model;

pub(super) fn run(args: &GeodesicsArgs) -> Result<()> {
    let began = Instant::now();
    let options = args.solver.options()?;
    args.machine.start_threads()?;
    let decoder = args.file.open(&args.decoder)?;
    let starts = read_latents(&args.starts, decoder.latent_dim())?;
    let ends = read_latents(&args.ends, decoder.latent_dim())?;
    if starts.dim() != ends.dim() {
        let problem =
            format!("expected shape {:?}, that of {}, found {:?}", starts.shape(), args.starts.display(), ends.shape());
        return Err(Error::file(&args.ends, problem));
    }
    let output = args.output.create()?;
    let device = args.machine.open(args.print)?;
    let (count, d) = starts.dim();
    let model = args.machine.load(&device, &decoder, args.print)?;
    let mut arrays = Arrays::create(&output, count, options.segments, d)?;
    let bar = args.print.progress(count, "curves");
    let batch = args.solver.batch.unwrap_or_else(|| batch_size(options.segments, d, &device));
    let pairs = (starts.view(), ends.view());
    let totals =
        solve(&model, pairs, &options, batch, &bar, |geodesics, _| arrays.push(geodesics).map_err(output.io()))?;
    arrays.finish().map_err(output.io())?;

    let mut record = record("geodesics", &model, &device, &options, &totals);
    record["decoder"] = json!(absolute(&args.decoder));
    record["decoder_options"] = args.file.record();
    record["starts"] = json!(absolute(&args.starts));
    record["ends"] = json!(absolute(&args.ends));
    record["timings"]["total_seconds"] = json!(began.elapsed().as_secs_f64());
    check_interrupt(count, count)?;
    output.finish(&record)?;

    for warning in totals.warnings() {
        args.print.warn(&warning);
    }
    record["out"] = json!(absolute(&args.output.out));
    let mut summary = summary(&totals);
    summary += &format!("written to {}\n", args.output.out.display());
    args.print.result(&summary, &record)
}

/// What a run of geodesics says about itself, but for its inputs and the total time.
pub(super) fn record(command: &str, model: &Model, device: &Device, options: &Options, totals: &Totals) -> Value {
    let decoder = model.decoder();
    let mut timings = json!({ "solve_seconds": totals.solving.as_secs_f64() });
    if let Some(seconds) = totals.device_seconds {
        timings["device_seconds"] = json!(seconds);
    }
    timings["total_seconds"] = json!(null); // known only at the end
    json!({
        "program": "pullback",
        "version": env!("CARGO_PKG_VERSION"),
        "command": command,
        "decoder": null,
        "decoder_options": null,
        "starts": null,
        "ends": null,
        "curves": totals.curves,
        "segments": options.segments,
        "latent_dim": decoder.latent_dim(),
        "data_dim": decoder.data_dim(),
        "options": options_record(options, model.precision()),
        "device": device.label(),
        "device_name": device.properties().map(|p| p.name),
        "precision": model.precision().name(),
        "threads": rayon::current_num_threads(),
        "status": totals.status_record(),
        "mean_iterations": totals.mean_iterations(),
        "singular_ends": { "looked_at": totals.ends[0], "singular": totals.ends[1] },
        "mean_length": totals.mean_length(),
        "mean_straight_length": totals.mean_straight_length(),
        "curves_per_second": totals.curves_per_second(),
        "timings": timings,
    })
}

/// The first lines of the summary of a run.
pub(super) fn summary(totals: &Totals) -> String {
    let on_device = totals.device_seconds.map_or_else(String::new, |s| format!(", of which {s:.2} s on the device"));
    let mut text = format!(
        "{} curves in {:.2} s in the solver{on_device}: {} curves/s, {:.1} iterations each\nstatus: {}\n",
        thousands(totals.curves),
        totals.solving.as_secs_f64(),
        thousands(totals.curves_per_second() as usize),
        totals.mean_iterations(),
        totals.status_line(),
    );
    if let (Some(length), Some(straight)) = (totals.mean_length(), totals.mean_straight_length()) {
        text += &format!("mean length: {length:.4}, straight lines {straight:.4}");
        if straight > 0.0 {
            text += &format!(" ({:.1} % shorter)", 100.0 * (1.0 - length / straight));
        }
        text.push('\n');
    }
    text
}
