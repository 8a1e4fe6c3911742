//! What is measured: decoders, and each operation over many points or curves.

use std::cell::Cell;
use std::hint::black_box;

use ndarray::{Array1, Array2, ArrayView2, s};
use serde_json::{Value, json};

use super::super::demo;
use super::super::random::Random;
use super::super::session::go_on;
use super::super::solve::straight_lines;
use super::measure::Timing;
use crate::cost::{Cost, Shape};
use crate::decoder::{Activation, Decoder, Head, Layer};
use crate::error::Result;
use crate::geodesic::{Options, Status};
use crate::model::Model;

/// Operations that a measurement should take about, on the processor and on a GPU, by which the number of points is chosen.
const ENOUGH: [f64; 2] = [2e9, 1e12];
/// Numbers that a result may have.
const MOST_NUMBERS: usize = 1 << 25;
const MOST_POINTS: usize = 1 << 17;

/// A decoder and latents of it.
pub(super) struct Subject {
    pub name: String,
    pub decoder: Decoder,
    pub latents: Array2<f32>,
}

impl Subject {
    /// A decoder with its own latents, or drawn from the standard normal law.
    pub fn new(name: impl Into<String>, decoder: Decoder, latents: Option<Array2<f32>>) -> Self {
        let latents = latents.unwrap_or_else(|| {
            let mut random = Random(3);
            Array2::from_shape_simple_fn((4096, decoder.latent_dim()), || random.normal() as f32)
        });
        Self { name: name.into(), decoder, latents }
    }

    /// Tanh layers of these widths with random weights, and a linear one at the end.
    pub fn random(widths: &[usize]) -> Result<Self> {
        let mut random = Random(1);
        let layers = widths.windows(2).enumerate().map(|(k, pair)| {
            let (inputs, outputs) = (pair[0], pair[1]);
            let scale = 1.0 / (inputs as f64).sqrt();
            Layer {
                weight: Array2::from_shape_simple_fn((outputs, inputs), || scale * random.normal()),
                bias: Array1::from_shape_simple_fn(outputs, || 0.1 * random.normal()),
                activation: if k + 2 < widths.len() { Activation::Tanh } else { Activation::Identity },
            }
        });
        let decoder = Decoder::new(vec![Head::new("decoder", layers.collect())?])?;
        let name: Vec<String> = widths.iter().map(usize::to_string).collect();
        Ok(Self::new(name.join("-"), decoder, None))
    }

    /// Those that are built in, and shapes of common sizes.
    pub fn all(quick: bool) -> Result<Vec<Self>> {
        let digits = Self::new("digits-d2-tanh", demo::decoder()?, Some(demo::latents()?));
        let shapes: &[&[usize]] = if quick { &[&[3, 16, 24]] } else { &[&[8, 256, 256, 784], &[8, 512, 512, 3072]] };
        let random = shapes.iter().map(|widths| Self::random(widths));
        std::iter::once(Ok(digits)).chain(random).collect()
    }

    /// So many rows of the latents, over and over.
    fn rows(&self, count: usize, from: usize) -> Array2<f32> {
        let all = self.latents.nrows();
        // Steps that have no factor in common with most lengths, so that pairs differ.
        self.latents.select(ndarray::Axis(0), &(0..count).map(|k| (from + k * 7919) % all).collect::<Vec<_>>())
    }
}

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
    /// Geodesics on one grid, whose passes are alike and can be counted.
    Passes,
    Geodesics,
}

impl Operation {
    pub const ALL: [Self; 11] = [
        Self::Decode,
        Self::Jacobian,
        Self::Metric,
        Self::PushForward,
        Self::PullBack,
        Self::AdjointHessian,
        Self::LogDet,
        Self::Spectrum,
        Self::Energy,
        Self::Passes,
        Self::Geodesics,
    ];

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
            Self::Passes => "solver_passes",
            Self::Geodesics => "geodesics",
        }
    }

    pub fn unit(self) -> &'static str {
        if matches!(self, Self::Energy | Self::Passes | Self::Geodesics) { "curves" } else { "points" }
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
            Self::Passes | Self::Geodesics => shape.linearise(elements, segments, false),
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
            Self::Energy | Self::Passes | Self::Geodesics => (segments + 1) * d,
        }
    }
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub repeats: usize,
    pub quick: bool,
    pub on_cpu: bool,
    /// False on the emulator: everything is computed, nothing timed.
    pub timed: bool,
}

/// What was measured of one operation.
pub(super) struct Figure {
    pub subject: String,
    pub operation: Operation,
    pub elements: usize,
    pub segments: Option<usize>,
    /// `None` for geodesics on several grids, which cost what each of them takes.
    pub cost: Option<Cost>,
    /// `None` on the emulator.
    pub timing: Option<Timing>,
    /// Of geodesics: passes, converged curves, and the mean energy.
    pub quality: Option<Quality>,
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

    /// Operations a second; those of the solver's passes alone, at least, in a time that has searches too.
    pub fn operations_per_second(&self) -> Option<f64> {
        self.timing.zip(self.cost).map(|(timing, cost)| cost.operations / timing.median)
    }

    pub fn record(&self) -> Value {
        json!({
            "decoder": self.subject,
            "operation": self.operation.name(),
            "elements": self.elements,
            "unit": self.operation.unit(),
            "segments": self.segments,
            "operations": self.cost.map(|cost| cost.operations),
            "bytes_at_least": self.cost.map(|cost| cost.bytes),
            "timing": self.timing.map(|timing| timing.record()),
            "elements_per_second": self.rate(),
            "operations_per_second": self.operations_per_second(),
            "mean_passes": self.quality.map(|q| q.passes),
            "converged": self.quality.map(|q| q.converged),
            "mean_energy": self.quality.map(|q| q.energy),
        })
    }
}

impl Plan {
    /// Points or curves to measure with.
    fn elements(&self, operation: Operation, subject: &Subject, segments: usize) -> usize {
        if self.quick || !self.timed {
            return 5;
        }
        let each = operation.cost(&Shape::new(&subject.decoder), 1, segments).operations;
        let passes = if matches!(operation, Operation::Passes | Operation::Geodesics) { 5.0 } else { 1.0 };
        let enough = ENOUGH[usize::from(!self.on_cpu)] / (each * passes);
        let most = MOST_POINTS.min(MOST_NUMBERS / operation.numbers(&subject.decoder, segments));
        (enough as usize).clamp(64, most.max(64))
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
        let width = subject.decoder.data_dim();
        let (others, lines) = match operation {
            Operation::Energy => {
                let ends = subject.rows(elements, 1);
                (Array2::zeros((0, 0)), Some(straight_lines(z.view(), ends.view(), segments)))
            }
            Operation::Passes | Operation::Geodesics | Operation::PushForward => (subject.rows(elements, 1), None),
            Operation::PullBack | Operation::AdjointHessian => (Array2::ones((elements, width)), None),
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
                Operation::Passes | Operation::Geodesics => {
                    let (found, seconds) = model.geodesics_timed(points, others, &options, |_, _| go_on())?;
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
        let cost = (operation != Operation::Geodesics).then_some(cost);
        let segments = (operation.unit() == "curves").then_some(segments);
        let name = subject.name.clone();
        Ok(Figure { subject: name, operation, elements, segments, cost, timing, quality: quality.get() })
    }
}

/// One thing that is varied while the others stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Sweep {
    /// Latents.
    D,
    /// Of the hidden layers.
    Width,
    /// Hidden layers.
    Depth,
    /// D.
    Outputs,
    /// N.
    Segments,
    /// C.
    Curves,
}

impl Sweep {
    pub const ALL: [Self; 6] = [Self::D, Self::Width, Self::Depth, Self::Outputs, Self::Segments, Self::Curves];

    pub fn name(self) -> &'static str {
        match self {
            Self::D => "d",
            Self::Width => "width",
            Self::Depth => "depth",
            Self::Outputs => "outputs",
            Self::Segments => "segments",
            Self::Curves => "curves",
        }
    }

    /// What an axis of a picture says.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::D => "latents d",
            Self::Width => "width of hidden layers",
            Self::Depth => "hidden layers",
            Self::Outputs => "outputs D",
            Self::Segments => "segments N",
            Self::Curves => "curves C",
        }
    }

    fn values(self, plan: &Plan) -> &'static [usize] {
        if plan.quick || !plan.timed {
            return &[2, 3];
        }
        match self {
            Self::D => &[1, 2, 4, 8, 16, 32],
            Self::Width => &[32, 64, 128, 256, 512],
            Self::Depth => &[1, 2, 3, 4],
            Self::Outputs => &[16, 64, 256, 1024, 4096],
            Self::Segments => &[8, 16, 32, 64, 128],
            Self::Curves => &[10, 100, 1_000, 10_000],
        }
    }

    /// Figures by value: metrics of random decoders, or geodesics of the built-in one.
    pub(super) fn measure(self, plan: &Plan, load: impl Fn(&Decoder) -> Result<Model>) -> Result<Vec<(usize, Figure)>> {
        let curves = matches!(self, Self::Segments | Self::Curves);
        let digits =
            if curves { Some(Subject::new("digits-d2-tanh", demo::decoder()?, Some(demo::latents()?))) } else { None };
        self.values(plan)
            .iter()
            .map(|&value| {
                let figure = if let Some(digits) = &digits {
                    let (segments, count) = match self {
                        Self::Segments => (value, if plan.quick || !plan.timed { 3 } else { 256 }),
                        _ => (if plan.quick || !plan.timed { 4 } else { 32 }, value),
                    };
                    let model = load(&digits.decoder)?;
                    plan.measure(&model, digits, Operation::Geodesics, segments, Some(count))?
                } else {
                    let (mut d, mut width, mut depth, mut outputs) = (8, 128, 2, 256);
                    match self {
                        Self::D => d = value,
                        Self::Width => width = value,
                        Self::Depth => depth = value,
                        _ => outputs = value,
                    }
                    let mut widths = vec![d];
                    widths.extend(std::iter::repeat_n(width, depth));
                    widths.push(outputs);
                    let subject = Subject::random(&widths)?;
                    plan.measure(&load(&subject.decoder)?, &subject, Operation::Metric, 2, None)?
                };
                Ok((value, figure))
            })
            .collect()
    }
}
