//! `pullback bench`: what this machine reaches, and how near that is to its limits.

mod cases;
mod ceilings;
mod measure;

use std::path::Path;

use serde_json::{Value, json};

use super::args::{BenchArgs, PrintArgs};
use super::machine::Machine;
use super::plot::{Mark, Series, draw_benchmark, write_whole};
use super::session::{absolute, print_result};
use super::solve::thousands;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::Model;
pub(super) use cases::Sweep;
use cases::{Figure, Operation, Plan, Subject};
use ceilings::Ceilings;

/// Segments of the curves, but where they are varied.
const SEGMENTS: usize = 32;

pub(super) fn run(args: &BenchArgs) -> Result<()> {
    args.machine.start_threads()?;
    for file in [&args.json, &args.plot].into_iter().flatten() {
        check_target(file)?;
    }
    let subjects = match &args.decoder {
        Some(path) => {
            let name = path.file_stem().map_or_else(|| "decoder".into(), |name| name.to_string_lossy().into_owned());
            vec![Subject::new(name, args.file.open(path)?, None)]
        }
        None => Subject::all(args.quick)?,
    };
    let print = PrintArgs { json: false, quiet: args.quiet };
    let device = args.machine.open(print)?;
    let plan =
        Plan { repeats: args.repeats, quick: args.quick, on_cpu: device.is_cpu(), timed: device.label() != "emulator" };
    if args.plot.is_some() && !plan.timed {
        return Err(Error::Device("--plot: expected a device with times, found the emulator".into()));
    }
    let sweeps: Vec<Sweep> = args.sweep.iter().copied().filter_map(SweepChoice::sweep).collect();
    let bar = print.progress(1 + subjects.len() * Operation::ALL.len() + sweeps.len(), "measurements");
    let ceilings = plan.timed.then(|| Ceilings::measure(&device, plan.quick)).flatten();
    bar.inc(1);
    let mut figures = Vec::new();
    for subject in &subjects {
        let model = args.machine.load(&device, &subject.decoder, print)?;
        for operation in Operation::ALL {
            let segments = if plan.quick || !plan.timed { 4 } else { SEGMENTS };
            figures.push(plan.measure(&model, subject, operation, segments, None)?);
            bar.inc(1);
        }
    }
    let mut swept = Vec::new();
    for sweep in sweeps {
        let load = |decoder: &_| -> Result<Model> { args.machine.load(&device, decoder, print) };
        swept.push((sweep, sweep.measure(&plan, load)?));
        bar.inc(1);
    }
    bar.finish_and_clear();

    let report = Report { device: &device, plan, ceilings, figures, swept };
    if let Some(path) = &args.json {
        let mut record = report.record();
        record["decoder"] = json!(args.decoder.as_deref().map(absolute));
        record["precision_asked"] = json!(args.machine.precision.map(crate::Precision::name));
        let text = serde_json::to_string_pretty(&record).unwrap_or_default() + "\n";
        write_whole(path, text.as_bytes())?;
    }
    if let Some(path) = &args.plot {
        write_whole(path, &report.picture()?)?;
    }
    if args.quiet { Ok(()) } else { print_result(&report.table()) }
}

/// Before minutes of measurements, not behind them.
fn check_target(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.is_dir() {
        return Err(Error::file(path, "expected the name of a file, found a folder"));
    }
    if !folder.is_dir() {
        return Err(Error::file(path, "expected a file in a folder that exists"));
    }
    Ok(())
}

/// A sweep by name, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SweepChoice(Option<Sweep>);

impl SweepChoice {
    fn sweep(self) -> Option<Sweep> {
        self.0
    }
}

impl std::str::FromStr for SweepChoice {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        if name == "none" {
            return Ok(Self(None));
        }
        let found = Sweep::ALL.into_iter().find(|sweep| sweep.name() == name);
        let names = || Sweep::ALL.map(Sweep::name).join(", ");
        found.map(|sweep| Self(Some(sweep))).ok_or_else(|| format!("expected {} or none", names()))
    }
}

/// All that was measured.
struct Report<'a> {
    device: &'a Device,
    plan: Plan,
    ceilings: Option<Ceilings>,
    figures: Vec<Figure>,
    swept: Vec<(Sweep, Vec<(usize, Figure)>)>,
}

impl Report<'_> {
    /// Operations per second as a share of what the roofline allows.
    fn share(&self, figure: &Figure) -> Option<f64> {
        let ceilings = self.ceilings?;
        let most = match ceilings.bytes {
            Some(bytes) => figure.cost?.ceiling(ceilings.operations, bytes),
            None => ceilings.operations,
        };
        figure.operations_per_second().map(|reached| reached / most)
    }

    fn record(&self) -> Value {
        let with_share = |figure: &Figure| {
            let mut record = figure.record();
            record["share_of_ceiling"] = json!(self.share(figure));
            record
        };
        let sweeps = self.swept.iter().map(|(sweep, figures)| {
            let figures = figures.iter().map(|(value, figure)| {
                let mut record = with_share(figure);
                record["value"] = json!(value);
                record
            });
            (sweep.name().to_owned(), json!(figures.collect::<Vec<_>>()))
        });
        let properties = self.device.properties();
        let mut record = json!({
            "program": "pullback",
            "version": env!("CARGO_PKG_VERSION"),
            "command": "bench",
            "device": self.device.label(),
            "device_name": properties.as_ref().map(|p| p.name.clone()),
            "clock_mhz": properties.as_ref().map(|p| p.clock),
            "emulated": !self.plan.timed,
            "quick": self.plan.quick,
            "repeats": self.plan.repeats,
            "threads": rayon::current_num_threads(),
            "decoder": null,
            "precision_asked": null,
            "ceilings": self.ceilings.map(|ceilings| ceilings.record()),
            "operations": self.figures.iter().map(with_share).collect::<Vec<_>>(),
            "sweeps": sweeps.collect::<serde_json::Map<_, _>>(),
            "host_peak_bytes": measure::peak_memory(),
        });
        let mut machine = json!({});
        Machine::look().record(&mut machine);
        if let Some(all) = machine.as_object_mut() {
            all.remove("kernels"); // a long table that `pullback info` has
        }
        record["machine"] = machine;
        record
    }

    fn table(&self) -> String {
        let mut text = format!("{}, {} threads", self.device.label(), rayon::current_num_threads());
        match self.ceilings {
            None if !self.plan.timed => text += "; times of the emulator mean nothing and are left out",
            None => {}
            Some(Ceilings { operations, bytes, is_measured }) => {
                let how = if is_measured { "products of large matrices" } else { "float32 at the highest clock" };
                text += &format!("; {how} {:.0} GFLOP/s", operations * 1e-9);
                if let Some(bytes) = bytes {
                    text += &format!(", copies {:.1} GB/s", bytes * 1e-9);
                }
            }
        }
        text.push('\n');
        let mut of = "";
        for figure in &self.figures {
            if of != figure.subject {
                of = &figure.subject;
                text += &format!(
                    "\n{of:<22} {:>9}  {:>12}  {:>9}  {:>8}  {:>9}  {:>6}\n",
                    "elements", "per second", "median ms", "spread", "GFLOP/s", "share"
                );
            }
            text += &self.line(figure.operation.name(), figure);
        }
        for (sweep, figures) in &self.swept {
            let operation = figures.first().map_or("", |(_, figure)| figure.operation.name());
            text += &format!("\n{operation} by {}\n", sweep.name());
            for (value, figure) in figures {
                text += &self.line(&format!("{} = {}", sweep.name(), thousands(*value)), figure);
            }
        }
        if let Some(bytes) = measure::peak_memory() {
            text += &format!("\npeak memory: {} MB\n", thousands((bytes >> 20) as usize));
        }
        text
    }

    fn line(&self, name: &str, figure: &Figure) -> String {
        let start = format!("  {name:<20} {:>9}", thousands(figure.elements));
        let (Some(timing), Some(rate)) = (figure.timing, figure.rate()) else {
            return format!("{start}  computed\n");
        };
        let mut line = format!(
            "{start}  {:>10} /s  {:>9.3}  {:>6.1} %",
            thousands(rate as usize),
            timing.median * 1e3,
            100.0 * timing.spread(),
        );
        line +=
            &figure.operations_per_second().map_or_else(|| " ".repeat(11), |rate| format!("  {:>9.1}", rate * 1e-9));
        line += &self.share(figure).map_or_else(|| " ".repeat(8), |share| format!("  {:>4.0} %", 100.0 * share));
        if let Some(quality) = figure.quality {
            line += &format!("  {:.1} passes, {} converged", quality.passes, thousands(quality.converged));
        }
        line + "\n"
    }

    /// The roofline with every operation, and the cost of an element along each sweep.
    fn picture(&self) -> Result<Vec<u8>> {
        let mark = |figure: &Figure| {
            Some(Mark {
                name: figure.operation.name().to_owned(),
                group: figure.subject.clone(),
                intensity: figure.cost?.intensity(),
                operations: figure.operations_per_second()?,
            })
        };
        let marks: Vec<Mark> = self.figures.iter().filter_map(mark).collect();
        let Some(ceilings) = self.ceilings else {
            return Err(Error::Device("--plot: expected a device whose limits are known, found none".into()));
        };
        let series = self.swept.iter().map(|(sweep, figures)| {
            let point = |(value, figure): &(usize, Figure)| Some((*value as f64, 1e6 / figure.rate()?));
            let unit = figures.first().map_or("points", |(_, figure)| figure.operation.unit());
            Series {
                x: sweep.symbol().into(),
                y: format!("µs for one of the {unit}"),
                points: figures.iter().filter_map(point).collect(),
            }
        });
        draw_benchmark((ceilings.operations, ceilings.bytes), &marks, &series.collect::<Vec<_>>())
    }
}
