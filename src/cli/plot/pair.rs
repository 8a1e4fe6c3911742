//! Two metrics of one latent plane side by side, with the geodesics of each.

use plotters::style::text_anchor::HPos;

use super::axes::{Frame, Scale, TICK, legend};
use super::canvas::{BLACK, Font, GREY, Point, Stroke, WHITE, draw};
use super::colour::{GEODESIC, STRAIGHT};
use super::heat::HeatMap;
use super::plane::stroke;
use crate::error::Result;
use crate::model::Model;

/// One side.
pub(in crate::cli) struct Panel<'a> {
    pub title: &'a str,
    pub model: &'a Model,
    pub geodesics: Vec<Vec<Point>>,
}

/// The picture as a PNG file: both panels show the same part of the plane, with the same data and straight lines.
pub(in crate::cli) fn draw_pair(
    title: &str,
    data: &[Point],
    straight: &[Vec<Point>],
    panels: &[Panel<'_>; 2],
) -> Result<Vec<u8>> {
    const SIDE: f64 = 570.0;
    let curves = || panels.iter().flat_map(|p| &p.geodesics).flatten();
    let all = || data.iter().chain(curves());
    let (x, y) = (Scale::around(all().map(|p| p.0), 0.05), Scale::around(all().map(|p| p.1), 0.05));
    let frames = [130.0, 935.0].map(|left| Frame { left, top: 190.0, right: left + SIDE, bottom: 190.0 + SIDE, x, y });
    let mut maps = Vec::new();
    for (panel, frame) in panels.iter().zip(&frames) {
        maps.push(HeatMap::volumes(panel.model, frame)?);
    }
    draw(1640, 870, |canvas| {
        canvas.text((frames[0].left, 50.0), Font::new(34.0, HPos::Left).bold(), title)?;
        let lines = Stroke { dashed: true, ..stroke(STRAIGHT, straight.len()) };
        for ((panel, frame), map) in panels.iter().zip(&frames).zip(&maps) {
            map.draw(canvas, frame)?;
            data.iter().try_for_each(|&point| canvas.disc(frame.at(point), 1.8, WHITE, 0.55))?;
            for (curves, stroke) in [(straight, lines), (&panel.geodesics, stroke(GEODESIC, panel.geodesics.len()))] {
                for curve in curves {
                    let path: Vec<Point> = curve.iter().map(|&p| frame.at(p)).collect();
                    canvas.line(&path, stroke)?;
                }
            }
            for end in panel.geodesics.iter().flat_map(|curve| [curve.first(), curve.last()]).flatten() {
                canvas.disc(frame.at(*end), 8.0, WHITE, 1.0)?;
                canvas.disc(frame.at(*end), 5.5, BLACK, 1.0)?;
            }
            frame.draw(canvas, "latent coordinate z₁", if frame.left < 500.0 { "latent coordinate z₂" } else { "" })?;
            canvas.text((frame.left, frame.top - 24.0), Font::new(27.0, HPos::Left).bold(), panel.title)?;
            let bar = Frame { left: frame.right + 22.0, right: frame.right + 46.0, ..*frame };
            map.ramp.draw_bar(canvas, &bar, "")?;
            canvas.text((bar.left, frame.top - 24.0), Font::new(TICK, HPos::Left), "√det G")?;
        }
        let entries = [
            (Stroke { casing: 0.0, ..stroke(GEODESIC, 1) }, "geodesic"),
            (Stroke { casing: 0.0, ..lines }, "straight line"),
        ];
        let x = legend(canvas, (frames[0].left, 106.0), &entries)?;
        canvas.disc((x + 8.0, 106.0), 6.5, GREY, 1.0)?;
        canvas.disc((x + 8.0, 106.0), 4.0, WHITE, 1.0)?;
        canvas.text((x + 28.0, 106.0), Font::new(TICK, HPos::Left), "encoded digit")
    })
}
