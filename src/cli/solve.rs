//! Many geodesics in bounded memory: batch by batch through the solver and out to disk.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use ndarray::{Array3, ArrayView2, s};
use serde_json::{Value, json};

use super::args::SolverArgs;
use super::npy::Writer;
use super::output::Output;
use super::session::go_on;
use crate::Precision;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::geodesic::initial::straight_line;
use crate::geodesic::{Geodesics, Options, Status};
use crate::model::Model;

/// Memory for the curves of one batch, in bytes.
const BATCH_BYTES: usize = 16 << 20;
/// The same on a GPU, which must not run dry between two batches.
const DEVICE_BATCH_BYTES: usize = 256 << 20;
/// Starts whose metrics are looked at, at most, and as many ends.
const ENDS: usize = 500;

impl SolverArgs {
    /// The solver's options, checked.
    pub fn options(&self) -> Result<Options> {
        let options = Options {
            segments: self.segments,
            tolerance: self.tolerance,
            max_iterations: self.max_iterations,
            coarse_to_fine: !self.one_grid,
            soften_kinks: !self.keep_kinks,
        };
        options.check()?;
        Ok(options)
    }
}

/// Options as they stand in a record.
pub(super) fn options_record(options: &Options, precision: Precision) -> Value {
    json!({
        "segments": options.segments,
        "tolerance": options.policy::<f32>(precision).tolerance,
        "max_iterations": options.max_iterations,
        "coarse_to_fine": options.coarse_to_fine,
        "soften_kinks": options.soften_kinks,
    })
}

/// Curves of one batch where the caller does not say.
pub(super) fn batch_size(segments: usize, latent_dim: usize, device: &Device) -> usize {
    let bytes = (segments + 1).saturating_mul(latent_dim).saturating_mul(size_of::<f32>());
    let most = if device.is_cpu() { BATCH_BYTES } else { DEVICE_BATCH_BYTES };
    (most / bytes).max(8 * rayon::current_num_threads())
}

/// Sums over all curves of a run.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub curves: usize,
    /// Curves by status, in the order of [`Status::ALL`].
    pub status: [usize; 4],
    pub iterations: u64,
    /// Curves whose length and straight length are numbers.
    pub finite: usize,
    pub length: f64,
    pub straight_length: f64,
    /// Time in the solver alone.
    pub solving: Duration,
    /// Of that, seconds in a GPU's kernels; `None` on the processor.
    pub device_seconds: Option<f64>,
    /// Ends that were looked at, and those of them where the metric is singular.
    pub ends: [usize; 2],
}

impl Totals {
    pub fn mean_length(&self) -> Option<f64> {
        (self.finite > 0).then(|| self.length / self.finite as f64)
    }

    pub fn mean_straight_length(&self) -> Option<f64> {
        (self.finite > 0).then(|| self.straight_length / self.finite as f64)
    }

    pub fn mean_iterations(&self) -> f64 {
        self.iterations as f64 / self.curves.max(1) as f64
    }

    pub fn curves_per_second(&self) -> f64 {
        self.curves as f64 / self.solving.as_secs_f64().max(1e-9)
    }

    /// Curves by status as a record: `{"converged": 12, …}`.
    pub fn status_record(&self) -> Value {
        Status::ALL.iter().zip(self.status).map(|(status, n)| (status.name().to_owned(), json!(n))).collect()
    }

    /// The same for people, with the statuses that occur.
    pub fn status_line(&self) -> String {
        let occurring = Status::ALL.iter().zip(self.status).filter(|(_, n)| *n > 0);
        let parts: Vec<_> = occurring.map(|(s, n)| format!("{} {}", thousands(n), words(*s))).collect();
        parts.join(", ")
    }

    /// What to warn of: curves that did not converge, and a decoder with directions that move nothing.
    pub fn warnings(&self) -> Vec<String> {
        let open = self.curves - self.status[Status::Converged as usize];
        let mut warnings = Vec::new();
        if open > 0 {
            let (open, all) = (thousands(open), thousands(self.curves));
            warnings.push(format!("{open} of {all} curves did not converge ({}): see status.npy", self.status_line()));
        }
        let [looked_at, singular] = self.ends;
        if singular > 0 {
            warnings.push(format!(
                "the metric is singular at {} of {} ends: latents move there without moving the data, so that many curves are as short \
                 (`--epsilon` prefers straight ones, `pullback metric --compute rank,spectrum` tells more)",
                thousands(singular),
                thousands(looked_at)
            ));
        }
        warnings
    }

    /// Looks at the metric at some of the ends, evenly spread.
    fn look_at_ends(&mut self, model: &Model, starts: ArrayView2<'_, f32>, ends: ArrayView2<'_, f32>) -> Result<()> {
        let step = starts.nrows().div_ceil(ENDS).max(1) as isize;
        for points in [starts, ends] {
            let volumes = model.log_volume(points.slice(s![..;step, ..]))?;
            self.ends[0] += volumes.len();
            self.ends[1] += volumes.iter().filter(|&&x| x == f32::NEG_INFINITY).count();
        }
        Ok(())
    }

    fn add(&mut self, geodesics: &Geodesics<f32>, straight: &[f32]) {
        self.curves += geodesics.len();
        for status in Status::ALL {
            self.status[status as usize] += geodesics.count(status);
        }
        self.iterations += geodesics.iterations.iter().map(|&n| u64::from(n)).sum::<u64>();
        for (&length, &straight) in geodesics.length.iter().zip(straight) {
            if length.is_finite() && straight.is_finite() {
                self.finite += 1;
                self.length += f64::from(length);
                self.straight_length += f64::from(straight);
            }
        }
    }
}

fn words(status: Status) -> &'static str {
    match status {
        Status::Converged => "converged",
        Status::MaxIterations => "at the iteration limit",
        Status::Stalled => "stalled",
        Status::NonFinite => "non-finite",
    }
}

/// 1234567 as `1,234,567`.
pub(super) fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (k, digit) in digits.chars().enumerate() {
        if k > 0 && (digits.len() - k).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Straight lines between pairs `[C, d]`, as curves `[C, N + 1, d]`.
pub(super) fn straight_lines(starts: ArrayView2<'_, f32>, ends: ArrayView2<'_, f32>, segments: usize) -> Array3<f32> {
    let (count, d) = starts.dim();
    let mut numbers = vec![0.0; count * (segments + 1) * d];
    let pairs = starts.rows().into_iter().zip(ends.rows());
    for ((start, end), points) in pairs.zip(numbers.chunks_exact_mut((segments + 1) * d)) {
        straight_line(&start.to_vec(), &end.to_vec(), points);
    }
    Array3::from_shape_vec((count, segments + 1, d), numbers).unwrap_or_default()
}

/// Solves batch by batch; `sink` gets every batch with the lengths of its straight lines.
///
/// # Errors
///
/// As [`Model::geodesics`], what `sink` returns, and [`Error::Cancelled`] after Ctrl-C.
pub(super) fn solve(
    model: &Model,
    (starts, ends): (ArrayView2<'_, f32>, ArrayView2<'_, f32>),
    options: &Options,
    batch: usize,
    bar: &ProgressBar,
    mut sink: impl FnMut(&Geodesics<f32>, &[f32]) -> Result<()>,
) -> Result<Totals> {
    let total = starts.nrows();
    let mut totals = Totals::default();
    for from in (0..total).step_by(batch) {
        let rows = s![from..total.min(from.saturating_add(batch)), ..];
        let (starts, ends) = (starts.slice(rows), ends.slice(rows));
        let began = Instant::now();
        let progress = |finished: usize, _: usize| -> ControlFlow<()> {
            bar.set_position((from + finished) as u64);
            go_on()
        };
        let solved = model.geodesics_timed(starts, ends, options, progress).map_err(|error| match error {
            Error::Cancelled { finished, .. } => Error::Cancelled { finished: from + finished, total },
            other => other,
        });
        let (geodesics, device_seconds) = solved?;
        totals.solving += began.elapsed();
        if let Some(seconds) = device_seconds {
            *totals.device_seconds.get_or_insert(0.0) += seconds;
        }
        let straight = model.energy(straight_lines(starts, ends, options.segments).view())?.length.to_vec();
        totals.add(&geodesics, &straight);
        sink(&geodesics, &straight)?;
    }
    bar.finish_and_clear();
    totals.look_at_ends(model, starts, ends)?;
    Ok(totals)
}

/// The result arrays of a run of geodesics.
pub(super) struct Arrays {
    curves: Writer,
    energy: Writer,
    length: Writer,
    gradient_norm: Writer,
    iterations: Writer,
    status: Writer,
}

impl Arrays {
    pub fn create(output: &Output, count: usize, segments: usize, latent_dim: usize) -> Result<Self> {
        Self::create_as(output, "", count, segments, latent_dim)
    }

    /// The same with a prefix before the files' names.
    pub fn create_as(output: &Output, prefix: &str, count: usize, segments: usize, latent_dim: usize) -> Result<Self> {
        let name = |name: &str| format!("{prefix}{name}.npy");
        Ok(Self {
            curves: output.array::<f32>(&name("curves"), &[count, segments + 1, latent_dim])?,
            energy: output.array::<f32>(&name("energy"), &[count])?,
            length: output.array::<f32>(&name("length"), &[count])?,
            gradient_norm: output.array::<f32>(&name("gradient_norm"), &[count])?,
            iterations: output.array::<u32>(&name("iterations"), &[count])?,
            status: output.array::<u8>(&name("status"), &[count])?,
        })
    }

    pub fn push(&mut self, geodesics: &Geodesics<f32>) -> std::io::Result<()> {
        self.curves.extend(geodesics.curves.iter().copied())?;
        self.energy.extend(geodesics.energy.iter().copied())?;
        self.length.extend(geodesics.length.iter().copied())?;
        self.gradient_norm.extend(geodesics.gradient_norm.iter().copied())?;
        self.iterations.extend(geodesics.iterations.iter().copied())?;
        self.status.extend(geodesics.status.iter().map(|&s| s as u8))
    }

    pub fn finish(self) -> std::io::Result<()> {
        let Self { curves, energy, length, gradient_norm, iterations, status } = self;
        [curves, energy, length, gradient_norm, iterations, status].into_iter().try_for_each(Writer::finish)
    }
}
