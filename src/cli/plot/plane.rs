//! The latent plane: √det G as a heat map, encoded data, straight lines and geodesics.

use plotters::style::text_anchor::HPos;

use super::axes::{Frame, Scale, TICK, legend};
use super::canvas::{BLACK, Canvas, Font, Point, Stroke, WHITE, draw};
use super::colour::{CLASSES, GEODESIC, STRAIGHT};
use super::heat::HeatMap;
use crate::error::Result;
use crate::model::Model;

/// Title of a bar of volumes.
const VOLUME: &str = "volume element √det G";

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
        let map = self.model.map(|model| HeatMap::volumes(model, &frame)).transpose()?;
        draw(1600, 1320, |canvas| {
            canvas.text((frame.left, 50.0), Font::new(34.0, HPos::Left).bold(), &self.title)?;
            match &map {
                Some(map) => {
                    map.draw(canvas, &frame)?;
                    let bar = Frame { left: frame.right + 48.0, right: frame.right + 84.0, ..frame };
                    map.ramp.draw_bar(canvas, &bar, VOLUME)?;
                }
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
pub(super) fn stroke(colour: plotters::style::RGBColor, count: usize) -> Stroke {
    let few = count <= 15;
    Stroke { casing: if few { 2.0 } else { 1.0 }, ..Stroke::new(colour, if few { 4.5 } else { 2.2 }) }
}
