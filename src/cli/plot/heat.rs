//! Numbers as colours: over a rectangle of the plane, and the bar that tells which is which.

use ndarray::Array2;
use plotters::style::RGBColor;
use plotters::style::text_anchor::HPos;

use super::axes::{Frame, Scale, TICK, TITLE};
use super::canvas::{Canvas, Font, GREY, Stroke};
use super::colour::{diverging, heat};
use crate::error::Result;
use crate::model::Model;

/// Where a number is not finite.
pub(super) const MISSING: RGBColor = RGBColor(236, 196, 214);
/// Cells of a map along its longer side.
const CELLS: usize = 480;
/// Points of a map of volumes along each side.
const VOLUMES: usize = 240;
/// Positive numbers that span more than this factor get a logarithmic scale.
const WIDE: f64 = 20.0;

/// Which colour stands for a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Ramp {
    /// From dark to light; numbers beyond the scale take the colours of its ends.
    Sequential(Scale),
    /// 0 white, the signs apart: proportional to asinh(x/unit), which is x for small numbers and its logarithm for large ones.
    Diverging { limit: f64, unit: f64 },
    /// Whole numbers from 0 to the largest.
    Whole(u32),
}

impl Ramp {
    /// From all but the outermost of the numbers; logarithmic where they are positive and span a wide range.
    pub fn sequential(values: &[f64]) -> Self {
        let sorted = sorted(values.iter().copied());
        let positive = sorted.first().is_some_and(|&least| least > 0.0);
        Self::Sequential(match (percentile(&sorted, 2), percentile(&sorted, 998)) {
            (Some(low), Some(high)) if high - low > 1e-6 * high.abs().max(low.abs()) => {
                Scale { low, high, logarithmic: positive && high > WIDE * low }
            }
            (Some(one), _) => {
                let room = 0.1 * if one == 0.0 { 1.0 } else { one.abs() };
                Scale { low: one - room, high: one + room, logarithmic: false }
            }
            _ => Scale { low: 0.0, high: 1.0, logarithmic: false },
        })
    }

    /// The same for volumes, whose zeros count for the smallest.
    pub fn volumes(values: &[f64]) -> Self {
        let positive: Vec<f64> = values.iter().copied().filter(|&v| v > 0.0).collect();
        Self::sequential(&positive)
    }

    /// As far to both sides as all but the outermost of the numbers go.
    pub fn diverging(values: &[f64]) -> Self {
        let sizes = sorted(values.iter().map(|v| v.abs()).filter(|&v| v > 0.0));
        let limit = percentile(&sizes, 990).unwrap_or(1.0);
        let middle = percentile(&sizes, 500).unwrap_or(limit);
        // Proportional where that shows half of the numbers well.
        let unit = if limit > WIDE * middle { middle } else { 10.0 * limit };
        Self::Diverging { limit, unit }
    }

    pub fn colour(&self, value: f64) -> RGBColor {
        match *self {
            _ if value.is_nan() => MISSING,
            Self::Sequential(scale) => heat(scale.share(value)),
            Self::Diverging { .. } => diverging(self.share(value)),
            Self::Whole(most) => heat(value.round() / f64::from(most.max(1))),
        }
    }

    /// Where a number lies on the bar, 0 at the lower end and 1 at the upper one.
    fn share(&self, value: f64) -> f64 {
        match *self {
            Self::Sequential(scale) => scale.share(value),
            Self::Diverging { limit, unit } => 0.5 + 0.5 * (value / unit).asinh() / (limit / unit).asinh(),
            Self::Whole(most) => (value + 0.5) / (f64::from(most) + 1.0),
        }
    }

    /// The number at a place on the bar.
    fn at(&self, share: f64) -> f64 {
        match *self {
            Self::Sequential(Scale { low, high, logarithmic: true }) => low * (high / low).powf(share),
            Self::Sequential(Scale { low, high, .. }) => low + share * (high - low),
            Self::Diverging { limit, unit } => unit * ((2.0 * share - 1.0) * (limit / unit).asinh()).sinh(),
            Self::Whole(most) => (share * (f64::from(most) + 1.0)).floor(),
        }
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        match *self {
            Self::Sequential(scale) => scale.ticks(8),
            Self::Diverging { limit, unit } if unit > limit => {
                Scale { low: -limit, high: limit, logarithmic: false }.ticks(8)
            }
            Self::Diverging { limit, unit } => {
                let outer = Scale { low: unit, high: limit, logarithmic: true }.ticks(4);
                // Not so many that their labels touch.
                let every = outer.len().div_ceil(4).max(1);
                let outer: Vec<_> = outer.into_iter().rev().step_by(every).collect();
                let negative = outer.iter().map(|(v, text)| (-v, format!("−{text}")));
                let zero = (0.0, "0".into());
                negative.chain([zero]).chain(outer.iter().cloned()).collect()
            }
            Self::Whole(most) => (0..=most).map(|k| (f64::from(k), k.to_string())).collect(),
        }
    }

    /// The bar in a frame, with numbers to its right and a title beside them; an empty title is left out.
    pub fn draw_bar(&self, canvas: &Canvas<'_>, frame: &Frame, title: &str) -> Result<()> {
        const STEPS: usize = 256;
        let (left, right) = (frame.left, frame.right);
        let at = |share: f64| frame.bottom - (frame.bottom - frame.top) * share;
        for k in 0..STEPS {
            let [low, middle, high] = [0.0, 0.5, 1.0].map(|part| (k as f64 + part) / STEPS as f64);
            canvas.rectangle((left, at(high)), (right, at(low)), self.colour(self.at(middle)))?;
        }
        let pen = Stroke::new(GREY, 1.5);
        let mut widest: f64 = 0.0;
        for (value, label) in self.ticks() {
            let y = at(self.share(value));
            canvas.line(&[(right, y), (right + 8.0, y)], pen)?;
            let font = Font::new(TICK, HPos::Left);
            canvas.text((right + 14.0, y), font, &label)?;
            widest = widest.max(canvas.text_width(font, &label));
        }
        if title.is_empty() {
            return Ok(());
        }
        let font = Font { upwards: true, ..Font::new(TITLE, HPos::Center) };
        canvas.text((right + 14.0 + widest + 34.0, (frame.top + frame.bottom) / 2.0), font, title)
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut sorted: Vec<f64> = values.filter(|v| v.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The number below which `p` of a thousand lie.
fn percentile(sorted: &[f64], p: usize) -> Option<f64> {
    sorted.get(sorted.len().saturating_sub(1) * p / 1000).copied()
}

/// Numbers on a grid that reaches a frame's borders, as colours.
pub(super) struct HeatMap {
    /// Row by row from below.
    pub values: Vec<f64>,
    pub columns: usize,
    pub ramp: Ramp,
}

impl HeatMap {
    /// √det G over a frame.
    pub fn volumes(model: &Model, frame: &Frame) -> Result<Self> {
        let along =
            |scale: &Scale, k: usize| (scale.low + (scale.high - scale.low) * k as f64 / (VOLUMES - 1) as f64) as f32;
        let latents = Array2::from_shape_fn((VOLUMES * VOLUMES, 2), |(k, axis)| {
            if axis == 0 { along(&frame.x, k % VOLUMES) } else { along(&frame.y, k / VOLUMES) }
        });
        let values: Vec<f64> = model.volume(latents.view())?.iter().map(|&v| f64::from(v)).collect();
        Ok(Self { ramp: Ramp::volumes(&values), values, columns: VOLUMES })
    }

    /// Fills a frame.
    pub fn draw(&self, canvas: &Canvas<'_>, frame: &Frame) -> Result<()> {
        let (wide, high) = (frame.right - frame.left, frame.bottom - frame.top);
        let cells = |length: f64| ((CELLS as f64 * length / wide.max(high)) as usize).max(1);
        let (across, up) = (cells(wide), cells(high));
        // Cells share their edges to the bit, so that nothing shows through between them.
        let x = |column: usize| frame.left + wide * column as f64 / across as f64;
        let y = |row: usize| frame.bottom - high * row as f64 / up as f64;
        for row in 0..up {
            for column in 0..across {
                let colour = self.colour((column as f64 + 0.5) / across as f64, (row as f64 + 0.5) / up as f64);
                canvas.rectangle((x(column), y(row + 1)), (x(column + 1), y(row)), colour)?;
            }
        }
        Ok(())
    }

    /// The colour at shares of the width and the height: of a mean of the four numbers around, on the bar's own scale.
    fn colour(&self, x: f64, y: f64) -> RGBColor {
        let rows = self.values.len() / self.columns;
        let (x, y) = (x * (self.columns - 1) as f64, y * (rows - 1) as f64);
        let value = |column: usize, row: usize| self.values.get(row * self.columns + column).copied();
        let nearest = value(x.round() as usize, y.round() as usize).unwrap_or(f64::NAN);
        if matches!(self.ramp, Ramp::Whole(_)) || !nearest.is_finite() {
            return self.ramp.colour(if nearest.is_finite() { nearest } else { f64::NAN });
        }
        let (left, below) = (x as usize, y as usize);
        let (s, t) = (x - left as f64, y - below as f64);
        let share = |dx: usize, dy: usize| {
            let value = value(left + dx, below + dy).filter(|v| v.is_finite()).unwrap_or(nearest);
            self.ramp.share(value).clamp(-0.5, 1.5)
        };
        let mean =
            (1.0 - t) * ((1.0 - s) * share(0, 0) + s * share(1, 0)) + t * ((1.0 - s) * share(0, 1) + s * share(1, 1));
        self.ramp.colour(self.ramp.at(mean.clamp(0.0, 1.0)))
    }

    /// Whether there is a number that is not finite.
    pub fn has_missing(&self) -> bool {
        self.values.iter().any(|v| !v.is_finite())
    }
}
