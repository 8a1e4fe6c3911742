//! Axes: a frame, its scales, ticks and labels.

use plotters::style::text_anchor::HPos;

use super::canvas::{BLACK, Canvas, FAINT, Font, GREY, Point, Stroke};
use crate::error::Result;

/// Numbers along one axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale {
    pub low: f64,
    pub high: f64,
    pub logarithmic: bool,
}

impl Scale {
    /// A scale that holds all finite values, with a margin as a share of their range.
    pub fn around(values: impl IntoIterator<Item = f64>, margin: f64) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.into_iter().filter(|v| v.is_finite()) {
            (low, high) = (low.min(value), high.max(value));
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        let range = high - low;
        // One value only: some room around it all the same.
        let margin = if range > 1e-9 * high.abs().max(low.abs()) && range > 0.0 {
            margin * range
        } else {
            0.5 * high.abs().max(1e-6)
        };
        Self { low: low - margin, high: high + margin, logarithmic: false }
    }

    /// From 0 to a little above the largest value.
    pub fn from_zero(values: impl IntoIterator<Item = f64>) -> Self {
        let high = values.into_iter().filter(|v| v.is_finite()).fold(0.0, f64::max);
        Self { low: 0.0, high: if high > 0.0 { 1.06 * high } else { 1.0 }, logarithmic: false }
    }

    /// Where a value lies, 0 at the low end and 1 at the high end.
    pub fn share(&self, value: f64) -> f64 {
        let (low, high, value) =
            if self.logarithmic { (self.low.ln(), self.high.ln(), value.ln()) } else { (self.low, self.high, value) };
        (value - low) / (high - low)
    }

    /// Round numbers along the scale, with their labels.
    pub fn ticks(&self, about: usize) -> Vec<(f64, String)> {
        if self.logarithmic {
            return self.logarithmic_ticks(about);
        }
        let raw = (self.high - self.low) / about.max(1) as f64;
        let power = 10_f64.powf(raw.log10().floor());
        let step = power * [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(|m| m * power >= raw * 0.999).unwrap_or(10.0);
        let first = (self.low / step - 1e-9).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        (first..=last.min(first + 50)).map(|k| (k as f64 * step, label(k as f64 * step, step))).collect()
    }

    /// As many as have room, where one has room for some ten characters.
    fn logarithmic_ticks(&self, about: usize) -> Vec<(f64, String)> {
        let decades = (self.high / self.low).log10();
        let at = |multiples: &[f64]| -> Vec<(f64, String)> {
            let powers = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
            let all = powers.flat_map(|p| multiples.iter().map(move |m| m * 10_f64.powi(p)));
            all.filter(|v| (self.low..=self.high).contains(v)).map(|v| (v, label(v, v))).collect()
        };
        let fits = |ticks: &Vec<(f64, String)>| {
            ticks.iter().map(|(_, label)| label.chars().count() + 1).sum::<usize>() <= 10 * about
        };
        let dense = [(2.2, &[1.0, 2.0, 5.0][..]), (4.0, &[1.0, 3.0])];
        let dense = dense.into_iter().filter(|(most, _)| decades <= *most).map(|(_, multiples)| at(multiples));
        dense.into_iter().find(fits).unwrap_or_else(|| at(&[1.0]))
    }
}

/// A number with as many decimals as its step needs.
fn label(value: f64, step: f64) -> String {
    let size = value.abs().max(step);
    if !(1e-4..1e6).contains(&size) {
        return format!("{value:.1e}").replace('-', "−");
    }
    let needed =
        |d: i32| (step * 10_f64.powi(d) - (step * 10_f64.powi(d)).round()).abs() < 1e-6 * step * 10_f64.powi(d);
    let decimals = (0..8).find(|&d| needed(d)).unwrap_or(2) as usize;
    let value = if value.abs() < 1e-12 * step { 0.0 } else { value };
    format!("{value:.decimals$}").replace('-', "−")
}

/// A rectangle of the picture that shows numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub left: f64,
    pub top: f64,
    pub right: f64,
    pub bottom: f64,
    pub x: Scale,
    pub y: Scale,
}

/// Sizes of text in frames, for pictures 1600 pixels wide.
pub(super) const TICK: f64 = 25.0;
pub(super) const TITLE: f64 = 29.0;

impl Frame {
    /// Where a pair of numbers lies.
    pub fn at(&self, (x, y): Point) -> Point {
        let (width, height) = (self.right - self.left, self.bottom - self.top);
        (self.left + self.x.share(x) * width, self.bottom - self.y.share(y) * height)
    }

    /// Faint lines at the ticks, to be drawn before the data.
    pub fn grid(&self, canvas: &Canvas<'_>) -> Result<()> {
        for (x, _) in self.x.ticks(self.columns()) {
            let (x, _) = self.at((x, self.y.low));
            canvas.line(&[(x, self.top), (x, self.bottom)], Stroke::new(FAINT, 1.0))?;
        }
        for (y, _) in self.y.ticks(self.rows()) {
            let (_, y) = self.at((self.x.low, y));
            canvas.line(&[(self.left, y), (self.right, y)], Stroke::new(FAINT, 1.0))?;
        }
        Ok(())
    }

    /// The border, ticks with numbers, and titles; an empty title is left out.
    pub fn draw(&self, canvas: &Canvas<'_>, x_title: &str, y_title: &str) -> Result<()> {
        let pen = Stroke::new(GREY, 1.5);
        let corners = [
            (self.left, self.top),
            (self.right, self.top),
            (self.right, self.bottom),
            (self.left, self.bottom),
            (self.left, self.top),
        ];
        corners.windows(2).try_for_each(|side| canvas.line(side, pen))?;
        for (x, label) in self.x.ticks(self.columns()) {
            let (x, _) = self.at((x, self.y.low));
            canvas.line(&[(x, self.bottom), (x, self.bottom + 7.0)], pen)?;
            canvas.text((x, self.bottom + 26.0), Font::new(TICK, HPos::Center), &label)?;
        }
        let mut widest: f64 = 0.0;
        for (y, label) in self.y.ticks(self.rows()) {
            let (_, y) = self.at((self.x.low, y));
            canvas.line(&[(self.left - 7.0, y), (self.left, y)], pen)?;
            let font = Font::new(TICK, HPos::Right);
            canvas.text((self.left - 13.0, y), font, &label)?;
            widest = widest.max(canvas.text_width(font, &label));
        }
        let middle = ((self.left + self.right) / 2.0, (self.top + self.bottom) / 2.0);
        if !x_title.is_empty() {
            canvas.text((middle.0, self.bottom + 66.0), Font::new(TITLE, HPos::Center), x_title)?;
        }
        if !y_title.is_empty() {
            let font = Font { upwards: true, ..Font::new(TITLE, HPos::Center) };
            canvas.text((self.left - 38.0 - widest, middle.1), font, y_title)?;
        }
        Ok(())
    }

    fn columns(&self) -> usize {
        (((self.right - self.left) / 130.0) as usize).clamp(2, 8)
    }

    fn rows(&self) -> usize {
        (((self.bottom - self.top) / 90.0) as usize).clamp(2, 8)
    }
}

/// A row of line samples with their names, from `at` to the right; returns where it ends.
pub(super) fn legend(canvas: &Canvas<'_>, at: Point, entries: &[(Stroke, &str)]) -> Result<f64> {
    let mut x = at.0;
    for (stroke, name) in entries {
        canvas.line(&[(x, at.1), (x + 62.0, at.1)], *stroke)?;
        let font = Font::new(TICK, HPos::Left).colour(BLACK);
        canvas.text((x + 76.0, at.1), font, name)?;
        x += 76.0 + canvas.text_width(font, name) + 44.0;
    }
    Ok(x)
}
