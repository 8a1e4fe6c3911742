//! Strips of decoded images along straight lines and geodesics.

use plotters::style::RGBColor;
use plotters::style::text_anchor::HPos;

use super::axes::TICK;
use super::canvas::{Canvas, FAINT, Font, Point, Stroke, draw};
use super::colour::{GEODESIC, STRAIGHT};
use crate::error::Result;

/// Decoded images along both ways between one pair; images are square, in rows, from 0 (white) to 1 (black).
pub(in crate::cli) struct Strip {
    pub title: String,
    pub straight: Vec<Vec<f32>>,
    pub geodesic: Vec<Vec<f32>>,
    /// Lengths of both.
    pub lengths: [f32; 2],
}

const LABELS: f64 = 330.0;
const GAP: f64 = 6.0;

/// The picture as a PNG file.
pub(in crate::cli) fn draw_strips(title: &str, strips: &[Strip], side: usize) -> Result<Vec<u8>> {
    let images = strips.first().map_or(1, |s| s.geodesic.len()).max(1);
    let tile = ((1600.0 - LABELS - 40.0) / images as f64).floor();
    let high = 2.0 * tile + 72.0;
    let height = 180.0 + high * strips.len() as f64;
    draw(1600, height as u32, |canvas| {
        canvas.text((40.0, 50.0), Font::new(34.0, HPos::Left).bold(), title)?;
        for (k, strip) in strips.iter().enumerate() {
            let top = 118.0 + high * k as f64;
            canvas.line(&[(40.0, top - 22.0), (1560.0, top - 22.0)], Stroke::new(FAINT, 1.5))?;
            canvas.text((40.0, top + 2.0), Font::new(28.0, HPos::Left).bold(), &strip.title)?;
            let rows = [("straight line", STRAIGHT, &strip.straight), ("geodesic", GEODESIC, &strip.geodesic)];
            for (row, (name, colour, images)) in rows.into_iter().enumerate() {
                let y = top + row as f64 * (tile + GAP);
                let middle = y + tile / 2.0;
                canvas.text((LABELS - 16.0, middle - 15.0), Font::new(TICK, HPos::Right).colour(colour), name)?;
                let length = format!("length {:.2}", strip.lengths[row]);
                canvas.text((LABELS - 16.0, middle + 15.0), Font::new(TICK, HPos::Right).colour(colour), &length)?;
                for (column, image) in images.iter().enumerate() {
                    draw_image(canvas, (LABELS + column as f64 * tile, y), tile - GAP, image, side)?;
                }
            }
        }
        let bottom = height - 40.0;
        canvas.text((LABELS, bottom), Font::new(TICK, HPos::Left), "t = 0")?;
        canvas.text((1560.0 - GAP, bottom), Font::new(TICK, HPos::Right), "t = 1")?;
        let middle = (LABELS + 1560.0) / 2.0;
        canvas.text(
            (middle, bottom),
            Font::new(TICK, HPos::Center),
            "decoded at equal steps of the curve's parameter t",
        )
    })
}

fn draw_image(canvas: &Canvas<'_>, corner: Point, size: f64, image: &[f32], side: usize) -> Result<()> {
    let cell = size / side as f64;
    for (k, &ink) in image.iter().enumerate() {
        let (column, row) = ((k % side) as f64, (k / side) as f64);
        let from = (corner.0 + column * cell, corner.1 + row * cell);
        let shade = (255.0 - 225.0 * ink.clamp(0.0, 1.0)) as u8;
        canvas.rectangle(from, (from.0 + cell, from.1 + cell), RGBColor(shade, shade, shade))?;
    }
    let (right, bottom) = (corner.0 + size, corner.1 + size);
    let frame = [corner, (right, corner.1), (right, bottom), (corner.0, bottom), corner];
    frame.windows(2).try_for_each(|line| canvas.line(line, Stroke::new(FAINT, 1.0)))
}
