//! A benchmark: the roofline with what operations reach under it, and the cost of one element along each sweep.

use plotters::style::text_anchor::HPos;

use super::axes::{Frame, Scale};
use super::canvas::{BLACK, Canvas, Font, GREY, Stroke, draw};
use super::colour::{CLASSES, GEODESIC, STRAIGHT};
use crate::error::Result;

/// What an operation reaches.
pub(in crate::cli) struct Mark {
    pub name: String,
    /// The decoder.
    pub group: String,
    /// Operations for every byte.
    pub intensity: f64,
    /// Per second.
    pub operations: f64,
}

/// One sweep.
pub(in crate::cli) struct Series {
    pub x: String,
    pub y: String,
    pub lines: Vec<Line>,
}

/// What one decoder or precision takes along a sweep.
pub(in crate::cli) struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// Room of the roofline, and of one sweep.
const ROOF: (f64, f64) = (1600.0, 900.0);
const PANEL: (f64, f64) = (533.0, 440.0);
const COLUMNS: usize = 3;

/// The picture as a PNG file, under operations per second by their names, at least one, and bytes per second where they were measured.
pub(in crate::cli) fn draw_benchmark(
    roofs: &[(&str, f64)],
    bytes: Option<f64>,
    marks: &[Mark],
    series: &[Series],
) -> Result<Vec<u8>> {
    let rows = series.len().div_ceil(COLUMNS);
    draw(ROOF.0 as u32, (ROOF.1 + rows as f64 * PANEL.1) as u32, |canvas| {
        roofline(canvas, roofs, bytes, marks)?;
        for (k, series) in series.iter().enumerate() {
            let corner = ((k % COLUMNS) as f64 * PANEL.0, ROOF.1 + (k / COLUMNS) as f64 * PANEL.1);
            panel(canvas, corner, series)?;
        }
        Ok(())
    })
}

/// A logarithmic scale around positive values.
fn logarithmic(values: impl Iterator<Item = f64>) -> Scale {
    let (low, high) = values
        .filter(|v| v.is_finite() && *v > 0.0)
        .fold((f64::INFINITY, 0.0), |(low, high): (f64, f64), v| (low.min(v), high.max(v)));
    let (low, high) = if low > high { (0.1, 10.0) } else { (low / 1.8, high * 1.8) };
    Scale { low, high, logarithmic: true }
}

fn roofline(canvas: &Canvas<'_>, roofs: &[(&str, f64)], bytes: Option<f64>, marks: &[Mark]) -> Result<()> {
    let ridge = |operations: f64| bytes.map(|bytes| operations / bytes);
    let ridges = roofs.iter().filter_map(|&(_, operations)| ridge(operations));
    let x = logarithmic(marks.iter().map(|mark| mark.intensity).chain(ridges));
    let rates = || marks.iter().map(|mark| mark.operations).chain(roofs.iter().map(|roof| roof.1));
    let (low, high) =
        rates().fold((f64::INFINITY, 0.0), |(low, high): (f64, f64), rate| (low.min(rate), high.max(rate)));
    let y = Scale { low: low * 1e-9 / 1.8, high: high * 1e-9 * 1.8, logarithmic: true };
    let frame = Frame { left: 160.0, top: 170.0, right: 1130.0, bottom: ROOF.1 - 130.0, x, y };
    canvas.text(
        (60.0, 50.0),
        Font::new(34.0, HPos::Left).bold(),
        "What operations reach, under what the machine could",
    )?;
    frame.grid(canvas)?;
    let pen = Stroke::new(STRAIGHT, 4.0);
    for &(name, operations) in roofs {
        let roof = |intensity: f64| bytes.map_or(operations, |bytes| operations.min(intensity * bytes)) * 1e-9;
        let at = |intensity: f64| frame.at((intensity, roof(intensity).max(y.low)));
        // From where the roof leaves the frame's floor.
        let from = bytes.map_or(x.low, |bytes| (y.low * 1e9 / bytes).clamp(x.low, x.high));
        let middle = ridge(operations).filter(|ridge| (from..x.high).contains(ridge));
        let path: Vec<_> = [Some(from), middle, Some(x.high)].into_iter().flatten().map(at).collect();
        canvas.line(&path, pen)?;
        let name = format!("{name} {:.0} GFLOP/s", operations * 1e-9);
        let (_, level) = at(x.high);
        canvas.text((frame.right - 10.0, level - 24.0), Font::new(25.0, HPos::Right).colour(STRAIGHT), &name)?;
    }

    // Decoders by colour, operations by number.
    let mut names: Vec<&str> = Vec::new();
    let mut groups: Vec<&str> = Vec::new();
    for mark in marks {
        let number = position(&mut names, &mark.name) + 1;
        let colour = CLASSES[position(&mut groups, &mark.group) % CLASSES.len()];
        let centre = frame.at((mark.intensity, (mark.operations * 1e-9).max(y.low)));
        canvas.disc(centre, 17.0, colour, 0.9)?;
        let white = Font::new(20.0, HPos::Center).bold().colour(super::canvas::WHITE);
        canvas.text(centre, white, &number.to_string())?;
    }
    frame.draw(canvas, "operations per byte, at most", "GFLOP/s")?;
    let mut line = 190.0;
    let step = (340.0 / groups.len().max(1) as f64).min(42.0);
    for (k, group) in groups.iter().enumerate() {
        canvas.disc((1190.0, line), 13.0, CLASSES[k % CLASSES.len()], 0.9)?;
        canvas.text((1220.0, line), Font::new(25.0, HPos::Left), group)?;
        line += step;
    }
    line += 20.0;
    for (k, name) in names.iter().enumerate() {
        canvas.text((1205.0, line), Font::new(25.0, HPos::Right).bold(), &(k + 1).to_string())?;
        canvas.text((1220.0, line), Font::new(25.0, HPos::Left).colour(BLACK), &name.replace('_', " "))?;
        line += 38.0;
    }
    Ok(())
}

/// Where a name stands, at the end where it is new.
fn position<'a>(names: &mut Vec<&'a str>, name: &'a str) -> usize {
    names.iter().position(|known| *known == name).unwrap_or_else(|| {
        names.push(name);
        names.len() - 1
    })
}

fn panel(canvas: &Canvas<'_>, (left, top): (f64, f64), series: &Series) -> Result<()> {
    let points = || series.lines.iter().flat_map(|line| &line.points);
    let (x, y) = (logarithmic(points().map(|p| p.0)), logarithmic(points().map(|p| p.1)));
    let frame = Frame {
        left: left + 150.0,
        top: top + 30.0,
        right: left + PANEL.0 - 25.0,
        bottom: top + PANEL.1 - 120.0,
        x,
        y,
    };
    frame.grid(canvas)?;
    let is_only = series.lines.len() < 2;
    for (k, line) in series.lines.iter().enumerate() {
        let colour = if is_only { GEODESIC } else { CLASSES[k % CLASSES.len()] };
        let path: Vec<_> = line.points.iter().map(|&point| frame.at(point)).collect();
        canvas.line(&path, Stroke::new(if is_only { GREY } else { colour }, 2.5))?;
        path.iter().try_for_each(|&point| canvas.disc(point, if is_only { 8.0 } else { 5.0 }, colour, 1.0))?;
        if !is_only {
            let place = (frame.right - 10.0, frame.top + 16.0 + 19.0 * k as f64);
            canvas.text(place, Font::new(15.0, HPos::Right).colour(colour), &line.name)?;
        }
    }
    frame.draw(canvas, &series.x, &series.y)
}
