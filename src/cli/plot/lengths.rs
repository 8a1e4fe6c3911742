//! Straight against geodesic length, curve by curve.

use plotters::style::text_anchor::HPos;

use super::axes::{Frame, Scale, TICK, legend};
use super::canvas::{Font, GREY, Stroke, draw};
use super::colour::GEODESIC;
use crate::error::Result;

/// The picture as a PNG file; pairs are (straight length, geodesic length).
pub(in crate::cli) fn draw_lengths(title: &str, pairs: &[(f64, f64)]) -> Result<Vec<u8>> {
    let scale = Scale::from_zero(pairs.iter().flat_map(|&(a, b)| [a, b]));
    let frame = Frame { left: 150.0, top: 150.0, right: 1210.0, bottom: 1210.0, x: scale, y: scale };
    draw(1260, 1320, |canvas| {
        canvas.text((60.0, 50.0), Font::new(34.0, HPos::Left).bold(), title)?;
        frame.grid(canvas)?;
        let diagonal = Stroke { dashed: true, ..Stroke::new(GREY, 3.0) };
        canvas.line(&[frame.at((0.0, 0.0)), frame.at((scale.high, scale.high))], diagonal)?;
        let opacity = if pairs.len() > 300 { 0.35 } else { 0.75 };
        for &pair in pairs {
            canvas.disc(frame.at(pair), 5.0, GEODESIC, opacity)?;
        }
        frame.draw(canvas, "length of the straight line", "length of the geodesic")?;
        canvas.disc((74.0, 106.0), 7.0, GEODESIC, 1.0)?;
        let text = Font::new(TICK, HPos::Left);
        let name = "one curve";
        canvas.text((94.0, 106.0), text, name)?;
        legend(
            canvas,
            (94.0 + canvas.text_width(text, name) + 44.0, 106.0),
            &[(diagonal, "equal lengths (nothing gained)")],
        )?;
        Ok(())
    })
}
