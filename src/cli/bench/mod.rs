//! `pullback bench`: what this machine reaches, and how near that is to its limits.

mod cases;
mod ceilings;
mod measure;
mod report;
mod subjects;
mod sweeps;

use std::path::Path;

use super::args::{BenchArgs, MachineArgs, PrintArgs};
use super::plot::write_whole;
use super::session::{check_interrupt, print_result};
use crate::decoder::Decoder;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::precision::Precision;
use cases::{Operation, Plan};
use ceilings::Ceilings;
use report::Report;
use subjects::Subject;
pub(super) use sweeps::Sweep;

/// Segments of the curves, but where they are varied.
const SEGMENTS: usize = 32;

pub(super) fn run(args: &BenchArgs) -> Result<()> {
    args.device.start_threads()?;
    for file in [&args.json, &args.plot].into_iter().flatten() {
        check_target(file)?;
    }
    let subjects = match args.decoder.as_slice() {
        [] => Subject::all(args.quick)?,
        paths => Subject::files(paths, &args.file)?,
    };
    let print = PrintArgs { json: false, quiet: args.quiet };
    // By the precision that the processor does not have, where there is one.
    let strictest = args.precision.iter().copied().max_by_key(|&p| p != Precision::Float32);
    let device = args.machine(strictest).open(print)?;
    let machines = args.machines();
    let models = Models { device: &device, machines: &machines, print };
    let timed = device.label() != "emulator";
    let plan = Plan { device: &device, repeats: args.repeats, quick: args.quick, timed, limit: args.limit };
    if args.plot.is_some() && !timed {
        return Err(Error::Device("--plot: expected a device with times, found the emulator".into()));
    }
    let mut report = Report::new(args, plan, &subjects);
    let measured = measure(args, &plan, &subjects, &models, &mut report);
    if let (Err(Error::Cancelled { .. }), Some(path)) = (&measured, &args.json) {
        print.note(&format!("{}: holds what was measured so far", path.display()));
    }
    measured?;
    if let Some(path) = &args.plot {
        write_whole(path, &report.picture()?)?;
    }
    if args.quiet { Ok(()) } else { print_result(&report.table()) }
}

/// Measures everything, and writes the report anew after each measurement.
fn measure(
    args: &BenchArgs,
    plan: &Plan<'_>,
    subjects: &[Subject],
    models: &Models<'_>,
    report: &mut Report<'_>,
) -> Result<()> {
    let sweeps: Vec<Sweep> = args.sweep.iter().copied().filter_map(SweepChoice::sweep).collect();
    let operations = subjects.len() * models.machines.len() * Operation::all_on(plan.device).count();
    let bar = models.print.progress(1 + operations + sweeps.len(), "measurements");
    report.ceilings = plan.timed.then(|| Ceilings::measure(plan.device, plan.quick)).flatten();
    report.save()?;
    bar.inc(1);
    let segments = if plan.is_small() { 4 } else { SEGMENTS };
    for subject in subjects {
        let mut done = Vec::new();
        models.each(&subject.decoder, |model| {
            for operation in Operation::all_on(plan.device) {
                check_interrupt(report.figures.len(), operations)?;
                let case = (operation, operation.precision(model.precision()));
                if !done.contains(&case) {
                    done.push(case);
                    report.figures.push(plan.measure(model, subject, operation, segments, None)?);
                    report.save()?;
                }
                bar.inc(1);
            }
            Ok(())
        })?;
    }
    for sweep in sweeps {
        report.swept.push((sweep, Vec::new()));
        sweep.measure(plan, subjects, models, |value, figure| {
            if let Some((_, figures)) = report.swept.last_mut() {
                figures.push((value, figure));
            }
            report.save()?;
            check_interrupt(report.figures.len(), operations)
        })?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    report.is_complete = true;
    report.save()
}

/// Models of a decoder in the precisions that were asked for.
struct Models<'a> {
    device: &'a Device,
    machines: &'a [MachineArgs],
    print: PrintArgs,
}

impl Models<'_> {
    /// Calls `measure` with each, and once with those whose decoder is computed in the same precision.
    fn each(&self, decoder: &Decoder, mut measure: impl FnMut(&Model) -> Result<()>) -> Result<()> {
        let mut done = Vec::new();
        for machine in self.machines {
            let model = machine.load(self.device, decoder, self.print)?;
            if !done.contains(&model.precision()) {
                done.push(model.precision());
                measure(&model)?;
            }
        }
        Ok(())
    }
}

impl BenchArgs {
    fn machine(&self, precision: Option<Precision>) -> MachineArgs {
        MachineArgs { device: self.device.clone(), precision }
    }

    /// The machine in every precision that was asked for, or in the device's own.
    fn machines(&self) -> Vec<MachineArgs> {
        match self.precision.as_slice() {
            [] => vec![self.machine(None)],
            all => all.iter().map(|&precision| self.machine(Some(precision))).collect(),
        }
    }
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
