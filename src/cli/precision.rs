//! `pullback precision`: how far a GPU's results are from float64, in every precision.

use ndarray::{Array, Array1, Array2, Array3, Axis, Dimension};
use serde_json::{Value, json};

use super::args::PrecisionArgs;
use super::demo;
use super::random::Random;
use super::session::{absolute, check_interrupt, go_on};
use super::solve::straight_lines;
use crate::decoder::Decoder;
use crate::device::Device;
use crate::error::Result;
use crate::geodesic::{Options, Status};
use crate::model::Model;
use crate::precision::Precision;

/// Latents at which metrics are compared.
const POINTS: usize = 256;

/// What is computed in every precision, and in float64 on the processor.
struct Probe {
    starts: Array2<f32>,
    ends: Array2<f32>,
    points: Array2<f32>,
    options: Options,
    lines: Array3<f32>,
    reference: Model<f64>,
    line_energy: Array1<f64>,
    metric: Array3<f64>,
    /// Of geodesics that were solved in float64.
    energy: Array1<f64>,
}

/// Errors of one kind.
#[derive(Clone, Copy)]
struct Spread {
    median: f64,
    max: f64,
}

/// What one precision was measured to be.
#[derive(Clone, Copy)]
struct Figures {
    line_energy: Spread,
    metric: Spread,
    energy: Spread,
    /// Mean float64 energy of the geodesics found, relative to that of geodesics solved in float64, less 1.
    excess: f64,
    converged: usize,
}

pub(super) fn run(args: &PrecisionArgs) -> Result<()> {
    args.machine.start_threads()?;
    let decoder = match &args.decoder {
        Some(path) => args.file.open(path)?,
        None => demo::decoder()?,
    };
    let device = args.machine.open_for_kernels("pullback precision", "a GPU or `--device emulator`")?;
    let probe = Probe::new(&decoder, args.pairs)?;
    let bar = args.print.progress(Precision::ALL.len(), "precisions");
    // What was asked for, what is used, and its figures: one measurement serves all that use the same.
    let mut rows: Vec<(Precision, Precision, Figures)> = Vec::new();
    for asked in Precision::ALL {
        check_interrupt(0, args.pairs)?;
        let model = device.load_with(&decoder, asked)?;
        let used = model.precision();
        let figures = match rows.iter().find(|row| row.1 == used) {
            Some(row) => row.2,
            None => probe.measure(&model)?,
        };
        rows.push((asked, used, figures));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let record = json!({
        "program": "pullback",
        "version": env!("CARGO_PKG_VERSION"),
        "command": "precision",
        "decoder": args.decoder.as_deref().map(absolute), // null: the demo's
        "decoder_options": args.file.record(),
        "latent_dim": decoder.latent_dim(),
        "data_dim": decoder.data_dim(),
        "pairs": args.pairs,
        "segments": probe.options.segments,
        "points": POINTS,
        "device": device.label(),
        "device_name": device.properties().map(|p| p.name),
        "precisions": rows.iter().map(|(asked, used, figures)| figures.record(*asked, *used)).collect::<Vec<_>>(),
    });
    args.print.result(&table(&rows, &decoder, &device, &probe), &record)
}

impl Probe {
    /// Draws latents, the same on every machine, and computes in float64.
    fn new(decoder: &Decoder, pairs: usize) -> Result<Self> {
        let d = decoder.latent_dim();
        let mut random = Random(3);
        let mut draw = |rows: usize| Array2::from_shape_simple_fn((rows, d), || random.normal() as f32);
        let (starts, ends, points) = (draw(pairs), draw(pairs), draw(POINTS));
        let options = Options::default();
        let lines = straight_lines(starts.view(), ends.view(), options.segments);
        let reference = Device::cpu().load_as::<f64>(decoder)?;
        let (from, to) = (widen(&starts), widen(&ends));
        Ok(Self {
            line_energy: reference.energy(widen(&lines).view())?.energy,
            metric: reference.metric(widen(&points).view())?,
            energy: reference.geodesics_observed(from.view(), to.view(), &options, |_, _| go_on())?.energy,
            starts,
            ends,
            points,
            options,
            lines,
            reference,
        })
    }

    fn measure(&self, model: &Model) -> Result<Figures> {
        let line_energy = widen(&model.energy(self.lines.view())?.energy);
        let metric = widen(&model.metric(self.points.view())?);
        let found = model.geodesics_observed(self.starts.view(), self.ends.view(), &self.options, |_, _| go_on())?;
        let exact = self.reference.energy(widen(&found.curves).view())?.energy;
        let of_metrics = metric.axis_iter(Axis(0)).zip(self.metric.axis_iter(Axis(0))).map(|(found, exact)| {
            let scale = exact.iter().map(|x| x * x).sum::<f64>().sqrt();
            let errors = found.iter().zip(exact).map(|(&a, &b)| relative(a, b, scale));
            // A NaN must not be lost in the maximum.
            errors.fold(0.0, |worst, error| if error <= worst { worst } else { error })
        });
        let finite = || exact.iter().zip(&self.energy).filter(|(a, b)| a.is_finite() && b.is_finite());
        let (sum, best) = (finite().map(|(a, _)| a).sum::<f64>(), finite().map(|(_, b)| b).sum::<f64>());
        Ok(Figures {
            line_energy: Spread::of_energies(&line_energy, &self.line_energy),
            metric: Spread::new(of_metrics),
            energy: Spread::of_energies(&widen(&found.energy), &exact),
            excess: (sum - best) / best,
            converged: found.count(Status::Converged),
        })
    }
}

impl Spread {
    fn new(errors: impl Iterator<Item = f64>) -> Self {
        let mut errors: Vec<f64> = errors.collect();
        errors.sort_by(f64::total_cmp); // NaN, without a sign, comes last
        let at = |k: usize| errors.get(k).copied().unwrap_or(f64::NAN);
        Self { median: at(errors.len() / 2), max: at(errors.len().wrapping_sub(1)) }
    }

    fn of_energies(found: &Array1<f64>, exact: &Array1<f64>) -> Self {
        Self::new(found.iter().zip(exact).map(|(&a, &b)| relative(a, b, b)))
    }

    fn record(self) -> Value {
        json!({ "median": self.median, "max": self.max })
    }
}

impl Figures {
    fn record(&self, asked: Precision, used: Precision) -> Value {
        json!({
            "precision": asked.name(),
            "used": used.name(),
            "straight_energy_error": self.line_energy.record(),
            "metric_error": self.metric.record(),
            "geodesic_energy_error": self.energy.record(),
            "mean_energy_above_float64": self.excess,
            "converged": self.converged,
        })
    }
}

/// |found − exact| / scale, where equal numbers have no error, be they 0.
fn relative(found: f64, exact: f64, scale: f64) -> f64 {
    if found == exact { 0.0 } else { ((found - exact) / scale).abs() }
}

fn widen<D: Dimension>(numbers: &Array<f32, D>) -> Array<f64, D> {
    numbers.mapv(f64::from)
}

fn table(rows: &[(Precision, Precision, Figures)], decoder: &Decoder, device: &Device, probe: &Probe) -> String {
    let (pairs, segments) = (probe.starts.nrows(), probe.options.segments);
    let mut text = format!(
        "a decoder from {} to {} dimensions on {device}; {pairs} pairs, {segments} segments, {POINTS} points\n\
         errors relative to float64; quality: mean energy in float64, above that of geodesics solved in float64\n\n",
        decoder.latent_dim(),
        decoder.data_dim(),
    );
    let name = |(asked, used, _): &(Precision, Precision, Figures)| match asked == used {
        true => asked.to_string(),
        false => format!("{asked}, as {used}"),
    };
    let width = rows.iter().map(|row| name(row).len()).max().unwrap_or(0).max("precision".len());
    text += &format!("{:width$}  {:>18}  {:>18}  {:>18}\n", "", "straight energy", "metric", "geodesic energy");
    text += &format!("{:width$}", "precision");
    for _ in 0..3 {
        text += &format!("  {:>8}  {:>8}", "median", "max");
    }
    text += &format!("  {:>9}  {:>9}\n", "quality", "converged");
    for row in rows {
        let Figures { line_energy, metric, energy, excess, converged } = row.2;
        text += &format!("{:width$}", name(row));
        for Spread { median, max } in [line_energy, metric, energy] {
            text += &format!("  {median:>8.1e}  {max:>8.1e}");
        }
        text += &format!("  {excess:>+9.1e}  {converged:>9}\n");
    }
    if rows.iter().any(|(asked, used, _)| asked != used) {
        text += "\nas float32: this decoder's kernels have no such precision\n";
    }
    text
}
