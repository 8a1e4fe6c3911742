//! The latent plane: √det G as a heat map, encoded data, straight lines and geodesics.

use ndarray::Array2;
use plotters::style::text_anchor::HPos;

use super::axes::{Frame, Scale, TICK, TITLE, legend};
use super::canvas::{BLACK, Canvas, Font, GREY, Point, Stroke, WHITE, draw};
use super::colour::{CLASSES, GEODESIC, STRAIGHT, heat};
use crate::error::Result;
use crate::model::Model;

/// Cells of the heat map along each side.
const CELLS: usize = 360;

/// What is drawn on the plane. Curves are points of the plane.
#[derive(Default)]
pub(in crate::cli) struct Plane<'a> {
    pub title: String,
    /// Encoded data and their classes, 0 to 9.
    pub digits: Vec<(Point, usize)>,
    pub straight: Vec<Vec<Point>>,
    pub geodesics: Vec<Vec<Point>>,
    /// Classes at the ends of the curves, where they are known.
    pub ends: Vec<[usize; 2]>,
    /// The decoder behind the plane, where the plane is the whole latent space.
    pub model: Option<&'a Model>,
    pub axes: [String; 2],
}

impl Plane<'_> {
    /// The picture as a PNG file.
    pub fn draw(&self) -> Result<Vec<u8>> {
        let curves = || self.straight.iter().chain(&self.geodesics).flatten().copied();
        let points = || curves().chain(self.digits.iter().map(|d| d.0));
        let right = if self.model.is_some() { 1330.0 } else { 1540.0 };
        let frame = Frame {
            left: 150.0,
            top: 150.0,
            right,
            bottom: 1210.0,
            x: Scale::around(points().map(|p| p.0), 0.05),
            y: Scale::around(points().map(|p| p.1), 0.05),
        };
        let map = self.model.map(|model| HeatMap::new(model, &frame)).transpose()?;
        draw(1600, 1320, |canvas| {
            canvas.text((frame.left, 50.0), Font::new(34.0, HPos::Left).bold(), &self.title)?;
            match &map {
                Some(map) => map.draw(canvas, &frame)?,
                None => frame.grid(canvas)?,
            }
            self.draw_digits(canvas, &frame)?;
            let straight = Stroke { dashed: true, ..stroke(STRAIGHT, self.straight.len()) };
            let solid = stroke(GEODESIC, self.geodesics.len());
            for (curves, stroke) in [(&self.straight, straight), (&self.geodesics, solid)] {
                for curve in curves {
                    let path: Vec<Point> = curve.iter().map(|&p| frame.at(p)).collect();
                    canvas.line(&path, stroke)?;
                }
            }
            self.draw_ends(canvas, &frame)?;
            frame.draw(canvas, &self.axes[0], &self.axes[1])?;
            let lines =
                [(Stroke { casing: 0.0, ..solid }, "geodesic"), (Stroke { casing: 0.0, ..straight }, "straight line")];
            let x = legend(canvas, (frame.left, 106.0), &lines)?;
            if !self.digits.is_empty() {
                canvas.disc((x + 14.0, 106.0), 13.0, WHITE, 1.0)?;
                canvas.text((x + 14.0, 106.0), Font::new(26.0, HPos::Center).bold().colour(CLASSES[7]), "7")?;
                canvas.text((x + 38.0, 106.0), Font::new(TICK, HPos::Left), "encoded digit, by class")?;
            }
            Ok(())
        })
    }

    /// Classes as numerals, as many as fit without covering each other.
    fn draw_digits(&self, canvas: &Canvas<'_>, frame: &Frame) -> Result<()> {
        let mut drawn: Vec<Point> = Vec::new();
        for &(point, class) in &self.digits {
            let at = frame.at(point);
            if drawn.iter().any(|p| (p.0 - at.0).hypot(p.1 - at.1) < 25.0) {
                continue;
            }
            drawn.push(at);
            canvas.disc(at, 10.5, WHITE, 0.82)?;
            let font = Font::new(19.0, HPos::Center).bold().colour(CLASSES[class % CLASSES.len()]);
            canvas.text(at, font, &class.to_string())?;
        }
        Ok(())
    }

    fn draw_ends(&self, canvas: &Canvas<'_>, frame: &Frame) -> Result<()> {
        let few = self.geodesics.len() <= 100;
        for (k, curve) in self.geodesics.iter().enumerate() {
            for (side, point) in [curve.first(), curve.last()].into_iter().flatten().enumerate() {
                let at = frame.at(*point);
                match self.ends.get(k) {
                    Some(classes) => {
                        canvas.disc(at, 22.0, BLACK, 1.0)?;
                        canvas.disc(at, 19.0, WHITE, 1.0)?;
                        let font = Font::new(32.0, HPos::Center).bold().colour(BLACK);
                        canvas.text(at, font, &classes[side].to_string())?;
                    }
                    None if few => {
                        canvas.disc(at, 6.5, WHITE, 1.0)?;
                        canvas.disc(at, 4.5, BLACK, 1.0)?;
                    }
                    None => {}
                }
            }
        }
        Ok(())
    }
}

/// Thinner and clearer where there are many.
fn stroke(colour: plotters::style::RGBColor, count: usize) -> Stroke {
    let few = count <= 15;
    Stroke { casing: if few { 2.0 } else { 1.0 }, ..Stroke::new(colour, if few { 4.5 } else { 2.2 }) }
}

/// √det G over a frame.
struct HeatMap {
    volumes: Vec<f32>,
    scale: Scale,
}

impl HeatMap {
    fn new(model: &Model, frame: &Frame) -> Result<Self> {
        let along =
            |scale: &Scale, k: usize| (scale.low + (scale.high - scale.low) * (k as f64 + 0.5) / CELLS as f64) as f32;
        let latents = Array2::from_shape_fn((CELLS * CELLS, 2), |(k, axis)| {
            if axis == 0 { along(&frame.x, k % CELLS) } else { along(&frame.y, k / CELLS) }
        });
        let volumes = model.volume(latents.view())?.to_vec();
        let mut sorted: Vec<f32> = volumes.iter().copied().filter(|v| v.is_finite() && *v > 0.0).collect();
        sorted.sort_by(f32::total_cmp);
        let percentile = |p: usize| sorted.get((sorted.len().saturating_sub(1)) * p / 1000).map(|&v| f64::from(v));
        let scale = match (percentile(2), percentile(998)) {
            (Some(low), Some(high)) if high > low => Scale { low, high, logarithmic: high > 20.0 * low },
            (Some(one), _) => Scale { low: 0.9 * one, high: 1.1 * one, logarithmic: false },
            _ => Scale { low: 0.0, high: 1.0, logarithmic: false },
        };
        Ok(Self { volumes, scale })
    }

    fn draw(&self, canvas: &Canvas<'_>, frame: &Frame) -> Result<()> {
        let (width, height) = ((frame.right - frame.left) / CELLS as f64, (frame.bottom - frame.top) / CELLS as f64);
        for (k, &volume) in self.volumes.iter().enumerate() {
            let (column, row) = ((k % CELLS) as f64, (k / CELLS) as f64);
            let corner = (frame.left + column * width, frame.bottom - (row + 1.0) * height);
            canvas.rectangle(
                corner,
                (corner.0 + width, corner.1 + height),
                heat(self.scale.share(f64::from(volume))),
            )?;
        }
        self.draw_bar(canvas, frame)
    }

    fn draw_bar(&self, canvas: &Canvas<'_>, frame: &Frame) -> Result<()> {
        let (left, right) = (frame.right + 48.0, frame.right + 84.0);
        let steps = 256;
        for k in 0..steps {
            let at = |k: usize| frame.bottom - (frame.bottom - frame.top) * k as f64 / f64::from(steps as u16);
            canvas.rectangle((left, at(k + 1)), (right, at(k)), heat((k as f64 + 0.5) / f64::from(steps as u16)))?;
        }
        let pen = Stroke::new(GREY, 1.5);
        let mut widest: f64 = 0.0;
        for (value, label) in self.scale.ticks(8) {
            let y = frame.bottom - self.scale.share(value) * (frame.bottom - frame.top);
            canvas.line(&[(right, y), (right + 8.0, y)], pen)?;
            let font = Font::new(TICK, HPos::Left);
            canvas.text((right + 14.0, y), font, &label)?;
            widest = widest.max(canvas.text_width(font, &label));
        }
        let font = Font { upwards: true, ..Font::new(TITLE, HPos::Center) };
        let title = "volume element √det G";
        canvas.text((right + 14.0 + widest + 34.0, (frame.top + frame.bottom) / 2.0), font, title)
    }
}
