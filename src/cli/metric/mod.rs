//! `pullback metric`: the metric and what follows from it, at latents or on a grid.

mod places;
mod quantity;
mod tally;

pub(super) use places::{Extent, GridSize};
pub(super) use quantity::Quantity;

use std::time::{Duration, Instant};

use ndarray::ArrayView2;
use serde_json::{Value, json};

use super::args::MetricArgs;
use super::npy::{Number, Writer};
use super::output::Output;
use super::session::{absolute, check_interrupt};
use super::solve::thousands;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::precision::Precision;
use places::Places;
use tally::{Tally, number};

/// Results computed and written at a time.
const BATCH_BYTES: usize = 8 << 20;

pub(super) fn run(args: &MetricArgs) -> Result<()> {
    let began = Instant::now();
    let quantities = args.quantities();
    let threshold = args.threshold(&quantities)?;
    args.machine.start_threads()?;
    let decoder = args.file.open(&args.decoder)?;
    let (d, width) = (decoder.latent_dim(), decoder.data_dim());
    let places = Places::open(args, d)?;
    let output = args.output.create()?;
    let device = args.machine.open(args.print)?;
    let model = args.machine.load(&device, &decoder, args.print)?;
    let threshold = threshold.map(|given| given.unwrap_or_else(|| default_threshold(d, model.precision())));

    let count = places.count();
    let mut columns = Columns::create(&output, &quantities, count, (d, width))?;
    let mut points = match &places {
        Places::Grid { .. } => Some(output.array::<f32>("points.npy", &[count, d])?),
        Places::Given(_) => None,
    };
    if let Places::Grid { around: Some(latents), .. } = &places {
        output.write("around.npy", latents.shape(), latents.iter().copied())?;
    }
    let bar = args.print.progress(count, "points");
    let batch = (BATCH_BYTES / columns.bytes_per_point).max(64);
    let mut computing = Duration::ZERO;
    for from in (0..count).step_by(batch) {
        check_interrupt(from, count)?;
        let latents = places.rows(from, count.min(from + batch));
        if let Some(points) = &mut points {
            points.extend(latents.iter().copied()).map_err(output.io())?;
        }
        computing += columns.compute(&model, latents.view(), threshold, &output)?;
        bar.set_position((from + latents.nrows()) as u64);
    }
    bar.finish_and_clear();
    columns
        .all
        .iter_mut()
        .flat_map(|column| column.files.drain(..))
        .chain(points)
        .try_for_each(Writer::finish)
        .map_err(output.io())?;

    let seconds = computing.as_secs_f64();
    let mut record = json!({
        "program": "pullback",
        "version": env!("CARGO_PKG_VERSION"),
        "command": "metric",
        "decoder": absolute(&args.decoder),
        "decoder_options": args.file.record(),
        "points": args.points.as_deref().map_or_else(|| "points.npy".into(), absolute),
        "grid": grid_record(args, &places),
        "count": count,
        "latent_dim": d,
        "data_dim": width,
        "compute": quantities.iter().map(|q| q.name()).collect::<Vec<_>>(),
        "threshold": threshold,
        "quantities": columns.record(d),
        "not_finite": columns.not_finite,
        "device": device.label(),
        "device_name": device.properties().map(|p| p.name),
        "precision": model.precision().name(),
        "threads": rayon::current_num_threads(),
        "timings": { "compute_seconds": seconds, "total_seconds": began.elapsed().as_secs_f64() },
    });
    check_interrupt(count, count)?;
    output.finish(&record)?;

    if columns.not_finite > 0 {
        let (bad, all) = (thousands(columns.not_finite), thousands(count));
        args.print.warn(&format!("results are not finite at {bad} of {all} points"));
    }
    record["out"] = json!(absolute(&args.output.out));
    let on_grid = match &places {
        Places::Grid { grid, .. } => format!(", a grid of {} × {}", grid.size.columns, grid.size.rows),
        Places::Given(_) => String::new(),
    };
    let dimensions = if d == 1 { "dimension" } else { "dimensions" };
    let mut summary = format!("{} points in {d} {dimensions}{on_grid}, in {seconds:.3} s\n", thousands(count));
    summary += &columns.lines(d, threshold);
    summary += &format!("written to {}\n", args.output.out.display());
    args.print.result(&summary, &record)
}

/// Eigenvalues below this share of the largest are rounding: 8 d units of the precision's products.
fn default_threshold(d: usize, precision: Precision) -> f64 {
    let unit = match precision {
        Precision::Tf32 => 2_f64.powi(-11),
        Precision::Bf16 => 2_f64.powi(-8),
        _ => f64::from(f32::EPSILON),
    };
    (8.0 * d as f64 * unit).min(0.5)
}

fn grid_record(args: &MetricArgs, places: &Places) -> Value {
    let Places::Grid { grid, .. } = places else { return Value::Null };
    json!({
        "columns": grid.size.columns,
        "rows": grid.size.rows,
        "extent": grid.extent.record(),
        "around": args.around.as_deref().map(absolute),
    })
}

impl MetricArgs {
    /// What to compute, each once, in the order in which it is told.
    fn quantities(&self) -> Vec<Quantity> {
        Quantity::ALL.into_iter().filter(|q| self.compute.contains(q)).collect()
    }

    /// `None` where no quantity has a threshold, `Some(None)` where it has and the default is to be taken.
    fn threshold(&self, quantities: &[Quantity]) -> Result<Option<Option<f64>>> {
        let used = quantities.iter().any(|q| q.has_threshold());
        let refuse = |expected, found: String| Err(Error::Option { name: "--threshold", expected, found });
        match self.threshold {
            Some(t) if !(0.0..1.0).contains(&t) => refuse("a number from 0 to 1, without 1", t.to_string()),
            Some(_) if !used => {
                let names: Vec<_> = quantities.iter().map(|q| q.name()).collect();
                refuse("--compute with rank or truncated, which use it", names.join(","))
            }
            given => Ok(used.then_some(given)),
        }
    }
}

/// One quantity's files in the making.
struct Column {
    quantity: Quantity,
    files: Vec<Writer>,
    tally: Tally,
}

impl Column {
    /// Writes a batch of the quantity's arrays. The first decides whether a point is finite, and `finite` is told.
    fn push<T: Number + Into<f64>>(&mut self, arrays: &[&[T]], finite: &mut [bool]) -> std::io::Result<()> {
        if let Some(numbers) = arrays.first() {
            let width = (numbers.len() / finite.len().max(1)).max(1);
            for (point, finite) in numbers.chunks_exact(width).zip(finite) {
                *finite &= self.tally.add(point.iter().map(|&x| x.into()));
            }
        }
        self.files.iter_mut().zip(arrays).try_for_each(|(file, numbers)| file.extend(numbers.iter().copied()))
    }
}

/// All that is computed.
struct Columns {
    all: Vec<Column>,
    bytes_per_point: usize,
    /// Points where something is not finite.
    not_finite: usize,
}

impl Columns {
    fn create(output: &Output, quantities: &[Quantity], count: usize, (d, width): (usize, usize)) -> Result<Self> {
        let (mut all, mut numbers) = (Vec::new(), d * d);
        for &quantity in quantities {
            let mut files = Vec::new();
            for (name, shape) in quantity.files(d, width) {
                let shape = [&[count][..], &shape].concat();
                numbers += shape[1..].iter().product::<usize>();
                files.push(match quantity {
                    Quantity::Rank => output.array::<u32>(name, &shape)?,
                    _ => output.array::<f32>(name, &shape)?,
                });
            }
            all.push(Column { quantity, files, tally: Tally::EMPTY });
        }
        Ok(Self { all, bytes_per_point: numbers * size_of::<f32>(), not_finite: 0 })
    }

    /// Computes and writes a batch; returns the time of the computation.
    fn compute(
        &mut self,
        model: &Model,
        latents: ArrayView2<'_, f32>,
        threshold: Option<f64>,
        output: &Output,
    ) -> Result<Duration> {
        let threshold = threshold.unwrap_or(0.0);
        let mut finite = vec![true; latents.nrows()];
        let start = Instant::now();
        let spectral = self.all.iter().any(|column| column.quantity.is_spectral());
        let spectrum = spectral.then(|| model.spectrum(latents)).transpose()?;
        let mut computing = start.elapsed();
        for column in &mut self.all {
            let start = Instant::now();
            let quantity = column.quantity;
            let mut push = |arrays: &[&[f32]]| {
                computing += start.elapsed();
                column.push(arrays, &mut finite).map_err(output.io())
            };
            match (quantity, &spectrum) {
                (Quantity::Metric, _) => push(&[numbers(&model.metric(latents)?)])?,
                (Quantity::Volume, _) => push(&[numbers(&model.volume(latents)?)])?,
                (Quantity::LogDet, _) => push(&[numbers(&model.log_det(latents)?)])?,
                (Quantity::Spectrum, Some(found)) => push(&[numbers(&found.values), numbers(&found.vectors)])?,
                (Quantity::Condition, Some(found)) => push(&[numbers(&found.condition())])?,
                (Quantity::Dimension, Some(found)) => push(&[numbers(&found.intrinsic_dimension())])?,
                (Quantity::Rank, Some(found)) => {
                    let ranks: Vec<u32> = found.effective_rank(threshold)?.iter().map(|&rank| rank as u32).collect();
                    column.push(&[&ranks], &mut finite).map_err(output.io())?;
                }
                (Quantity::Singular, _) => {
                    let found = model.singular(latents)?;
                    push(&[numbers(&found.values), numbers(&found.left), numbers(&found.right)])?;
                }
                (Quantity::Curvature, _) if latents.ncols() == 2 => {
                    push(&[numbers(&model.gaussian_curvature(latents)?)])?;
                }
                (Quantity::Curvature, _) => push(&[numbers(&model.scalar_curvature(latents)?)])?,
                (Quantity::Truncated, _) => push(&[numbers(&model.truncated_metric(latents, threshold)?.0)])?,
                (Quantity::Spectrum | Quantity::Condition | Quantity::Dimension | Quantity::Rank, None) => {}
            }
        }
        self.not_finite += finite.iter().filter(|finite| !**finite).count();
        Ok(computing)
    }

    /// Files, ranges and counts by name.
    fn record(&self, d: usize) -> Value {
        let entries = self.all.iter().map(|column| {
            let mut entry = json!({ "what": column.quantity.title(d) });
            // Numbers of a matrix mean nothing one by one.
            if column.quantity.has_range() {
                entry["range"] = json!(column.tally.range());
            }
            entry["not_finite"] = json!(column.tally.not_finite);
            (column.quantity.name().to_owned(), entry)
        });
        entries.collect()
    }

    /// A line for each quantity.
    fn lines(&self, d: usize, threshold: Option<f64>) -> String {
        let title = |column: &Column| match (column.quantity, threshold) {
            (quantity, Some(t)) if quantity.has_threshold() => {
                format!("{} (threshold {})", quantity.title(d), number(t))
            }
            (quantity, _) => quantity.title(d).into(),
        };
        self.all.iter().map(|c| format!("{}: {}\n", title(c), c.tally.line(c.quantity.has_range()))).collect()
    }
}

/// The numbers of an array that a model returned, which are in standard layout.
fn numbers<D: ndarray::Dimension>(array: &ndarray::Array<f32, D>) -> &[f32] {
    array.as_slice().unwrap_or_default()
}
