//! What is measured: each operation over many points or curves.

use std::cell::Cell;
use std::hint::black_box;

use ndarray::{Array2, ArrayView2, s};
use serde_json::{Value, json};

use super::super::session::go_on;
use super::super::solve::straight_lines;
use super::measure::{Timing, Watch};
use super::subjects::Subject;
use crate::cost::{Cost, Shape};
use crate::decoder::Decoder;
use crate::device::Device;
use crate::error::Result;
use crate::geodesic::{Options, Status};
use crate::model::Model;
use crate::precision::Precision;

/// Operations that a measurement should take about, on the processor and on a GPU, by which the number of points is chosen.
const ENOUGH: [f64; 2] = [2e9, 1e12];
/// Numbers that a result may have.
const MOST_NUMBERS: usize = 1 << 25;
const MOST_POINTS: usize = 1 << 17;
/// A device's free memory is looked at when the first curve is finished, and each time that so many more are.
const LOOK: usize = 8192;

/// One operation over many points or curves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Decode,
    Jacobian,
    Metric,
    PushForward,
    PullBack,
    AdjointHessian,
    LogDet,
    Spectrum,
    Energy,
    /// One pass of the solver, by the Gauss–Newton matrix; on the processor alone, as devices compute no pass by itself.
    Linearise,
    /// The same by the full Hessian.
    LineariseNewton,
    /// Geodesics on one grid, whose passes are alike and can be counted.
    Passes,
    Geodesics,
}

impl Operation {
    const ALL: [Self; 13] = [
        Self::Decode,
        Self::Jacobian,
        Self::Metric,
        Self::PushForward,
        Self::PullBack,
        Self::AdjointHessian,
        Self::LogDet,
        Self::Spectrum,
        Self::Energy,
        Self::Linearise,
        Self::LineariseNewton,
        Self::Passes,
        Self::Geodesics,
    ];

    /// Those that a device computes by themselves.
    pub fn all_on(device: &Device) -> impl Iterator<Item = Self> {
        let on_cpu = device.is_cpu();
        Self::ALL
            .into_iter()
            .filter(move |&operation| on_cpu || !matches!(operation, Self::Linearise | Self::LineariseNewton))
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Jacobian => "jacobian",
            Self::Metric => "metric",
            Self::PushForward => "push_forward",
            Self::PullBack => "pull_back",
            Self::AdjointHessian => "adjoint_hessian",
            Self::LogDet => "log_det",
            Self::Spectrum => "spectrum",
            Self::Energy => "energy",
            Self::Linearise => "linearise",
            Self::LineariseNewton => "linearise_newton",
            Self::Passes => "solver_passes",
            Self::Geodesics => "geodesics",
        }
    }

    /// What a model's products are computed in: values, Jacobians and what is made of single rows are in float32 always, and a mixture is of
    /// geodesics alone.
    pub fn precision(self, of_model: Precision) -> Precision {
        match self {
            Self::Decode | Self::Jacobian | Self::PushForward | Self::PullBack | Self::AdjointHessian => {
                Precision::Float32
            }
            Self::Metric | Self::LogDet | Self::Spectrum | Self::Energy if of_model == Precision::Mixed => {
                Precision::Tf32x3
            }
            _ => of_model,
        }
    }

    fn is_of_curves(self) -> bool {
        matches!(self, Self::Energy | Self::Linearise | Self::LineariseNewton | Self::Passes | Self::Geodesics)
    }

    pub fn unit(self) -> &'static str {
        if self.is_of_curves() { "curves" } else { "points" }
    }

    /// Of so many elements; of geodesics, one pass of the solver on the last grid, at least: Newton's steps take more.
    fn cost(self, shape: &Shape, elements: usize, segments: usize) -> Cost {
        match self {
            Self::Decode => shape.decode(elements),
            Self::Jacobian => shape.jacobian(elements),
            Self::Metric => shape.metric(elements),
            Self::PushForward => shape.push_forward(elements),
            Self::PullBack => shape.pull_back(elements),
            Self::AdjointHessian => shape.adjoint_hessian(elements),
            Self::LogDet => shape.log_det(elements),
            Self::Spectrum => shape.spectrum(elements),
            Self::Energy => shape.energy(elements, segments),
            Self::Linearise | Self::Passes | Self::Geodesics => shape.linearise(elements, segments, false),
            Self::LineariseNewton => shape.linearise(elements, segments, true),
        }
    }

    /// Numbers of a result for one element.
    fn numbers(self, decoder: &Decoder, segments: usize) -> usize {
        let (d, width) = (decoder.latent_dim(), decoder.data_dim());
        match self {
            Self::Decode | Self::PushForward | Self::PullBack => width,
            Self::Jacobian => d * width,
            Self::Metric | Self::LogDet | Self::Spectrum => d * d,
            Self::AdjointHessian => d * d + width,
            _ => (segments + 1) * d,
        }
    }
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan<'a> {
    pub device: &'a Device,
    pub repeats: usize,
    pub quick: bool,
    /// False on the emulator: everything is computed, nothing timed.
    pub timed: bool,
    /// Seconds that a number of curves in a sweep may be expected to take.
    pub limit: f64,
}

/// What was measured of one operation.
#[derive(Clone, Debug)]
pub(super) struct Figure {
    pub subject: String,
    pub operation: Operation,
    /// What its products were computed in.
    pub precision: Precision,
    pub elements: usize,
    pub segments: Option<usize>,
    /// `None` for geodesics on several grids, which cost what each of them takes.
    pub cost: Option<Cost>,
    /// `None` on the emulator.
    pub timing: Option<Timing>,
    /// Of geodesics: passes, converged curves, and the mean energy.
    pub quality: Option<Quality>,
    /// Of geodesics: bytes of a device's memory that a call takes at most, beside the weights.
    pub device_bytes: Option<u64>,
    /// Why it was not measured.
    pub left_out: Option<String>,
}

/// How good the geodesics are that were timed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quality {
    pub passes: f64,
    pub converged: usize,
    pub energy: f64,
}

impl Figure {
    /// Points or curves a second.
    pub fn rate(&self) -> Option<f64> {
        self.timing.map(|timing| self.elements as f64 / timing.median)
    }

    /// Seconds by the device's own clock, which transfers do not count to; of the whole call on the processor.
    fn seconds(&self) -> Option<f64> {
        let timing = self.timing?;
        Some(timing.in_kernels.filter(|&seconds| seconds > 0.0).unwrap_or(timing.median))
    }

    /// Operations a second, in kernels where there is a device; those of the solver's passes alone, at least, in a time that has searches
    /// too.
    pub fn operations_per_second(&self) -> Option<f64> {
        self.seconds().zip(self.cost).map(|(seconds, cost)| cost.operations / seconds)
    }

    pub fn record(&self) -> Value {
        let mut record = json!({
            "decoder": self.subject,
            "operation": self.operation.name(),
            "precision": self.precision.name(),
            "elements": self.elements,
            "unit": self.operation.unit(),
            "segments": self.segments,
        });
        if let Some(why) = &self.left_out {
            record["left_out"] = json!(why);
            return record;
        }
        let measured = json!({
            "operations": self.cost.map(|cost| cost.operations),
            "bytes_at_least": self.cost.map(|cost| cost.bytes),
            "timing": self.timing.map(|timing| timing.record()),
            "elements_per_second": self.rate(),
            "operations_per_second": self.operations_per_second(),
            "device_bytes": self.device_bytes,
            "mean_passes": self.quality.map(|q| q.passes),
            "converged": self.quality.map(|q| q.converged),
            "mean_energy": self.quality.map(|q| q.energy),
        });
        if let (Some(all), Value::Object(measured)) = (record.as_object_mut(), measured) {
            all.extend(measured);
        }
        record
    }
}

impl Plan<'_> {
    /// Whether tiny sizes are enough.
    pub fn is_small(&self) -> bool {
        self.quick || !self.timed
    }

    /// Points or curves to measure with.
    fn elements(&self, operation: Operation, subject: &Subject, segments: usize) -> usize {
        if self.is_small() {
            return 5;
        }
        let each = operation.cost(&Shape::new(&subject.decoder), 1, segments).operations;
        let passes = if matches!(operation, Operation::Passes | Operation::Geodesics) { 5.0 } else { 1.0 };
        let enough = ENOUGH[usize::from(!self.device.is_cpu())] / (each * passes);
        let most = MOST_POINTS.min(MOST_NUMBERS / operation.numbers(&subject.decoder, segments));
        (enough as usize).clamp(64, most.max(64))
    }

    /// A figure that is not measured, and why.
    pub fn left_out(
        model: &Model,
        subject: &Subject,
        operation: Operation,
        (segments, elements): (usize, usize),
        why: String,
    ) -> Figure {
        Figure {
            subject: subject.name.clone(),
            operation,
            precision: operation.precision(model.precision()),
            elements,
            segments: (operation.unit() == "curves").then_some(segments),
            cost: None,
            timing: None,
            quality: None,
            device_bytes: None,
            left_out: Some(why),
        }
    }

    /// Measures one operation; `elements` where their number is not left to the plan.
    pub fn measure(
        &self,
        model: &Model,
        subject: &Subject,
        operation: Operation,
        segments: usize,
        elements: Option<usize>,
    ) -> Result<Figure> {
        let elements = elements.unwrap_or_else(|| self.elements(operation, subject, segments));
        let z = subject.rows(elements, 0);
        let coarse_to_fine = operation != Operation::Passes;
        let options = Options { segments, coarse_to_fine, ..Options::default() };
        let (seconds_in_kernels, quality) = (Cell::new(None), Cell::new(None));
        // Memory is looked at in the first call alone, which is not timed.
        let (watch, is_first) = (Watch::new(self.device)?, Cell::new(true));
        let width = subject.decoder.data_dim();
        let (others, lines) = match operation {
            Operation::Energy => {
                let ends = subject.rows(elements, 1);
                (Array2::zeros((0, 0)), Some(straight_lines(z.view(), ends.view(), segments)))
            }
            Operation::PushForward => (subject.rows(elements, 1), None),
            Operation::PullBack | Operation::AdjointHessian => (Array2::ones((elements, width)), None),
            _ if operation.is_of_curves() => (subject.rows(elements, 1), None),
            _ => (Array2::zeros((0, 0)), None),
        };
        let (points, others): (ArrayView2<'_, f32>, ArrayView2<'_, f32>) = (z.view(), others.slice(s![.., ..]));
        let call = || -> Result<()> {
            match operation {
                Operation::Decode => drop(black_box(model.decode(points)?)),
                Operation::Jacobian => drop(black_box(model.jacobian(points)?)),
                Operation::Metric => drop(black_box(model.metric(points)?)),
                Operation::PushForward => drop(black_box(model.push_forward(points, others)?)),
                Operation::PullBack => drop(black_box(model.pull_back(points, others)?)),
                Operation::AdjointHessian => drop(black_box(model.adjoint_hessian(points, others)?)),
                Operation::LogDet => drop(black_box(model.log_det(points)?)),
                Operation::Spectrum => drop(black_box(model.spectrum(points)?)),
                Operation::Energy => {
                    if let Some(lines) = &lines {
                        drop(black_box(model.energy(lines.view())?));
                    }
                }
                Operation::Linearise | Operation::LineariseNewton => {
                    let newton = operation == Operation::LineariseNewton;
                    black_box(model.pass(points, others, &options, newton)?);
                }
                Operation::Passes | Operation::Geodesics => {
                    let is_first = is_first.replace(false);
                    let progress = |finished: usize, _: usize| {
                        if is_first && finished % LOOK == 1 {
                            watch.look();
                        }
                        go_on()
                    };
                    let (found, seconds) = model.geodesics_timed(points, others, &options, progress)?;
                    if let Some(seconds) = seconds {
                        seconds_in_kernels.set(Some(seconds_in_kernels.get().unwrap_or(0.0) + seconds));
                    }
                    let mean = |sum: f64| sum / elements as f64;
                    quality.set(Some(Quality {
                        passes: mean(found.iterations.iter().map(|&n| f64::from(n)).sum()),
                        converged: found.count(Status::Converged),
                        energy: mean(found.energy.iter().map(|&e| f64::from(e)).sum()),
                    }));
                }
            }
            Ok(())
        };
        let kernels = || match operation {
            Operation::Passes | Operation::Geodesics => seconds_in_kernels.get(),
            _ => model.kernel_seconds(),
        };
        let timing = if self.timed {
            Some(Timing::of(self.repeats, self.quick, kernels, call)?)
        } else {
            call()?;
            None
        };
        let mut cost = operation.cost(&Shape::new(&subject.decoder), elements, segments);
        if let Some(quality) = quality.get() {
            cost.operations *= quality.passes;
        }
        Ok(Figure {
            subject: subject.name.clone(),
            operation,
            precision: operation.precision(model.precision()),
            elements,
            segments: (operation.unit() == "curves").then_some(segments),
            cost: (operation != Operation::Geodesics).then_some(cost),
            timing,
            quality: quality.get(),
            device_bytes: quality.get().and_then(|_| watch.most()),
            left_out: None,
        })
    }
}
