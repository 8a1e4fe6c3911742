//! Speed in data space along straight lines and geodesics: constant along a geodesic.

use plotters::style::text_anchor::HPos;

use super::axes::{Frame, Scale, legend};
use super::canvas::{Font, Point, Stroke, draw};
use super::colour::{GEODESIC, STRAIGHT};
use crate::error::Result;

/// ‖df/dt‖ along both ways between one pair.
pub(in crate::cli) struct Speed {
    pub title: String,
    pub straight: Vec<f64>,
    pub geodesic: Vec<f64>,
}

/// Chord speeds N ‖f(z_{i+1}) − f(z_i)‖ from decoded points in rows.
pub(in crate::cli) fn chord_speeds(values: ndarray::ArrayView2<'_, f32>) -> Vec<f64> {
    let segments = values.nrows().saturating_sub(1) as f64;
    let chord = |i: usize| {
        let squares =
            values.row(i).into_iter().zip(values.row(i + 1)).map(|(a, b)| (f64::from(*b) - f64::from(*a)).powi(2));
        segments * squares.sum::<f64>().sqrt()
    };
    (0..values.nrows().saturating_sub(1)).map(chord).collect()
}

/// The picture as a PNG file: one panel for each pair, at most six.
pub(in crate::cli) fn draw_speeds(title: &str, speeds: &[Speed]) -> Result<Vec<u8>> {
    let speeds = &speeds[..speeds.len().min(6)];
    let columns = match speeds.len() {
        1 => 1,
        2 | 4 => 2,
        _ => 3,
    };
    let rows = speeds.len().div_ceil(columns).max(1);
    let (panel_high, top) = (480.0, 190.0);
    let height = top + rows as f64 * panel_high + 30.0;
    let left = 150.0;
    let wide = (1570.0 - left) / columns as f64;
    let all = || speeds.iter().flat_map(|s| s.straight.iter().chain(&s.geodesic)).copied();
    let y = Scale::from_zero(all());
    draw(1600, height as u32, |canvas| {
        canvas.text((60.0, 50.0), Font::new(34.0, HPos::Left).bold(), title)?;
        let solid = Stroke::new(GEODESIC, 4.5);
        let dashed = Stroke { dashed: true, ..Stroke::new(STRAIGHT, 4.0) };
        legend(canvas, (60.0, 108.0), &[(solid, "geodesic"), (dashed, "straight line")])?;
        for (k, speed) in speeds.iter().enumerate() {
            let (column, row) = (k % columns, k / columns);
            let corner = (left + column as f64 * wide, top + row as f64 * panel_high);
            let frame = Frame {
                left: corner.0,
                top: corner.1,
                right: corner.0 + wide - if columns > 1 { 90.0 } else { 20.0 },
                bottom: corner.1 + panel_high - 130.0,
                x: Scale { low: 0.0, high: 1.0, logarithmic: false },
                y,
            };
            frame.grid(canvas)?;
            for (values, stroke) in [(&speed.straight, dashed), (&speed.geodesic, solid)] {
                let count = values.len() as f64;
                let at = |(i, &v): (usize, &f64)| frame.at(((i as f64 + 0.5) / count, v));
                let path: Vec<Point> = values.iter().enumerate().filter(|(_, v)| v.is_finite()).map(at).collect();
                canvas.line(&path, stroke)?;
            }
            frame.draw(canvas, "curve parameter t", if column == 0 { "speed ‖df/dt‖" } else { "" })?;
            let middle = (frame.left + frame.right) / 2.0;
            canvas.text((middle, frame.top - 22.0), Font::new(26.0, HPos::Center).bold(), &speed.title)?;
        }
        Ok(())
    })
}
