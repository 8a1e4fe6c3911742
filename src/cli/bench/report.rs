//! All that was measured: as a record, as a table and as a picture.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::super::args::BenchArgs;
use super::super::machine::{Machine, describe};
use super::super::plot::{Line, Mark, Series, draw_benchmark, write_whole};
use super::super::session::absolute;
use super::super::solve::thousands;
use super::cases::{Figure, Plan};
use super::ceilings::Ceilings;
use super::measure::peak_memory;
use super::subjects::Subject;
use super::sweeps::Sweep;
use crate::error::{Error, Result};
use crate::precision::Precision;

pub(super) struct Report<'a> {
    plan: Plan<'a>,
    machine: Machine,
    /// What the command was asked for.
    asked: Value,
    path: Option<PathBuf>,
    pub ceilings: Option<Ceilings>,
    pub figures: Vec<Figure>,
    pub swept: Vec<(Sweep, Vec<(usize, Figure)>)>,
    /// Whether nothing is to come.
    pub is_complete: bool,
}

impl<'a> Report<'a> {
    /// Of nothing so far.
    pub fn new(args: &BenchArgs, plan: Plan<'a>, subjects: &[Subject]) -> Self {
        let decoders = subjects.iter().map(|subject| {
            json!({
                "name": subject.name,
                "path": subject.path.as_deref().map(absolute), // null: built in
                "latent_dim": subject.decoder.latent_dim(),
                "data_dim": subject.decoder.data_dim(),
                "parameters": subject.decoder.parameters(),
            })
        });
        let asked = json!({
            "quick": args.quick,
            "repeats": args.repeats,
            "limit_seconds": args.limit,
            "precisions_asked": args.precision.iter().map(|p| p.name()).collect::<Vec<_>>(),
            "decoder_options": args.file.record(),
            "decoders": decoders.collect::<Vec<_>>(),
        });
        let (ceilings, figures, swept) = (None, Vec::new(), Vec::new());
        let (machine, path) = (Machine::look(), args.json.clone());
        Self { plan, machine, asked, path, ceilings, figures, swept, is_complete: false }
    }

    /// Writes the record to the file that was asked for, if any; there is always a whole one.
    pub fn save(&self) -> Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let text = serde_json::to_string_pretty(&self.record()).unwrap_or_default() + "\n";
        write_whole(path, text.as_bytes())
    }

    /// Operations per second as a share of what the roofline allows.
    fn share(&self, figure: &Figure) -> Option<f64> {
        self.ceilings.as_ref()?.share(figure.cost?, figure.precision, figure.operations_per_second()?)
    }

    fn with_share(&self, figure: &Figure) -> Value {
        let mut record = figure.record();
        if figure.left_out.is_none() {
            record["share_of_ceiling"] = json!(self.share(figure));
        }
        record
    }

    fn record(&self) -> Value {
        let sweeps = self.swept.iter().map(|(sweep, figures)| {
            let figures = figures.iter().map(|(value, figure)| {
                let mut record = self.with_share(figure);
                record["value"] = json!(value);
                record
            });
            (sweep.name().to_owned(), json!(figures.collect::<Vec<_>>()))
        });
        let properties = self.plan.device.properties();
        let mut record = json!({
            "program": "pullback",
            "version": env!("CARGO_PKG_VERSION"),
            "command": "bench",
            "complete": self.is_complete,
            "device": self.plan.device.label(),
            "device_name": properties.as_ref().map(|gpu| gpu.name.clone()),
            "gpu": properties.as_ref().map(describe),
            "emulated": !self.plan.timed,
            "threads": rayon::current_num_threads(),
            "ceilings": self.ceilings.as_ref().map(Ceilings::record),
            "operations": self.figures.iter().map(|figure| self.with_share(figure)).collect::<Vec<_>>(),
            "sweeps": sweeps.collect::<serde_json::Map<_, _>>(),
            "host_peak_bytes": peak_memory(),
            "device_peak_bytes": self.device_peak().and_then(|figure| figure.device_bytes),
        });
        if let (Some(all), Some(asked)) = (record.as_object_mut(), self.asked.as_object()) {
            all.extend(asked.clone());
        }
        let mut machine = json!({});
        self.machine.record(&mut machine);
        if let Some(all) = machine.as_object_mut() {
            all.remove("kernels"); // a long table that `pullback info` has
        }
        record["machine"] = machine;
        record
    }

    fn all(&self) -> impl Iterator<Item = &Figure> {
        self.figures.iter().chain(self.swept.iter().flat_map(|(_, figures)| figures.iter().map(|(_, figure)| figure)))
    }

    /// The figure with the most memory on the device.
    fn device_peak(&self) -> Option<&Figure> {
        self.all().filter(|figure| figure.device_bytes.is_some()).max_by_key(|figure| figure.device_bytes)
    }

    pub fn table(&self) -> String {
        let device = self.plan.device;
        let mut text = match device.properties() {
            Some(gpu) if self.plan.timed => {
                let kernels = self.machine.compilers().map_or_else(String::new, |by| format!("; kernels by {by}"));
                format!("{}: {}{kernels}\n", device.label(), Machine::line(&gpu))
            }
            _ => format!("{}, {} threads", device.label(), rayon::current_num_threads()),
        };
        match &self.ceilings {
            None if !self.plan.timed => text += "; times of the emulator mean nothing and are left out",
            None => {}
            Some(ceilings) if device.is_cpu() => text += &format!("; {}", ceilings.for_people()),
            Some(ceilings) => text += &ceilings.for_people(),
        }
        text.push('\n');
        let mut of = "";
        for figure in &self.figures {
            if of != figure.subject {
                of = &figure.subject;
                text += &format!("\n{}", self.title(of));
            }
            text += &self.line(figure.operation.name(), figure);
        }
        for (sweep, figures) in &self.swept {
            let operation = figures.first().map_or("", |(_, figure)| figure.operation.name());
            text += &format!("\n{operation} by {}\n", sweep.name());
            let mut of = "";
            for (value, figure) in figures {
                if sweep.is_of_subjects() && of != figure.subject {
                    of = &figure.subject;
                    text += &format!("  {of}\n");
                }
                text += &self.line(&format!("{} = {}", sweep.name(), thousands(*value)), figure);
            }
        }
        let megabytes = |bytes: u64| thousands((bytes >> 20) as usize);
        if let Some(bytes) = peak_memory() {
            text += &format!("\npeak memory: {} MB\n", megabytes(bytes));
        }
        if let Some((figure, bytes)) = self.device_peak().and_then(|figure| Some((figure, figure.device_bytes?))) {
            let (name, curves) = (figure.operation.name(), thousands(figure.elements));
            text += &format!(
                "peak memory of the device, beside weights: {} MB ({name} of {}, {curves} curves)\n",
                megabytes(bytes),
                figure.subject
            );
        }
        text
    }

    fn title(&self, subject: &str) -> String {
        let kernels = if self.has_kernels() { format!("  {:>10}", "kernels ms") } else { String::new() };
        format!(
            "{subject:<22} {:>8}  {:>9}  {:>12}  {:>9}{kernels}  {:>8}  {:>9}  {:>6}\n",
            "products", "elements", "per second", "median ms", "spread", "GFLOP/s", "share"
        )
    }

    /// Whether there is a clock of the device, by which operations are then counted.
    fn has_kernels(&self) -> bool {
        self.plan.timed && !self.plan.device.is_cpu()
    }

    fn line(&self, name: &str, figure: &Figure) -> String {
        let start = format!("  {name:<20} {:>8}  {:>9}", figure.precision.name(), thousands(figure.elements));
        if let Some(why) = &figure.left_out {
            return format!("{start}  left out: {why}\n");
        }
        let (Some(timing), Some(rate)) = (figure.timing, figure.rate()) else {
            return format!("{start}  computed\n");
        };
        let mut line = format!("{start}  {:>10} /s  {:>9.3}", thousands(rate as usize), timing.median * 1e3);
        if self.has_kernels() {
            let seconds = timing.in_kernels;
            line += &seconds.map_or_else(|| " ".repeat(12), |seconds| format!("  {:>10.3}", seconds * 1e3));
        }
        line += &format!("  {:>6.1} %", 100.0 * timing.spread());
        line +=
            &figure.operations_per_second().map_or_else(|| " ".repeat(11), |rate| format!("  {:>9.1}", rate * 1e-9));
        line += &self.share(figure).map_or_else(|| " ".repeat(8), |share| format!("  {:>4.0} %", 100.0 * share));
        if let Some(quality) = figure.quality {
            line += &format!("  {:.1} passes, {} converged", quality.passes, thousands(quality.converged));
        }
        line + "\n"
    }

    /// The roofline with every operation, and the cost of an element along each sweep.
    pub fn picture(&self) -> Result<Vec<u8>> {
        let several = self.all().any(|figure| figure.precision != Precision::Float32);
        let group = |figure: &Figure| {
            let precision = figure.precision;
            if several { format!("{}, {precision}", figure.subject) } else { figure.subject.clone() }
        };
        let mark = |figure: &Figure| {
            Some(Mark {
                name: figure.operation.name().to_owned(),
                group: group(figure),
                intensity: figure.cost?.intensity(),
                operations: figure.operations_per_second()?,
            })
        };
        let marks: Vec<Mark> = self.figures.iter().filter_map(mark).collect();
        let roofs = self.ceilings.as_ref().map(Ceilings::roofs).unwrap_or_default();
        if roofs.is_empty() {
            return Err(Error::Device("--plot: expected a device whose limits are known, found none".into()));
        }
        let bytes = self.ceilings.as_ref().and_then(|ceilings| ceilings.bytes);
        let series = self.swept.iter().map(|(sweep, figures)| {
            let mut lines: Vec<Line> = Vec::new();
            for (value, figure) in figures {
                let Some(rate) = figure.rate() else { continue };
                let name = if sweep.is_of_subjects() { group(figure) } else { figure.precision.to_string() };
                let point = (*value as f64, 1e6 / rate);
                match lines.iter_mut().find(|line| line.name == name) {
                    Some(line) => line.points.push(point),
                    None => lines.push(Line { name, points: vec![point] }),
                }
            }
            let unit = figures.first().map_or("points", |(_, figure)| figure.operation.unit());
            Series { x: sweep.symbol().into(), y: format!("µs for one of the {unit}"), lines }
        });
        draw_benchmark(&roofs, bytes, &marks, &series.collect::<Vec<_>>())
    }
}
