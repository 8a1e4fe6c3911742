//! Drawing: lines, areas and text on a bitmap, in pixels of the finished picture.

use std::io::Cursor;

use plotters::backend::BitMapBackend;
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::{Circle, PathElement, Rectangle};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{
    Color, FontDesc, FontFamily, FontStyle, FontTransform, IntoTextStyle, RGBColor, ShapeStyle, register_font,
};

use crate::error::{Error, Result};

/// Pictures are drawn this many times larger and then averaged: smooth edges everywhere.
const OVERSAMPLE: u32 = 2;
const FONT: &str = "DejaVu Sans";

/// A point of the picture, from its upper left corner.
pub(super) type Point = (f64, f64);

pub(super) const BLACK: RGBColor = RGBColor(20, 20, 20);
pub(super) const GREY: RGBColor = RGBColor(110, 110, 110);
pub(super) const FAINT: RGBColor = RGBColor(222, 222, 222);
pub(super) const WHITE: RGBColor = RGBColor(255, 255, 255);

/// How a line is drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stroke {
    pub colour: RGBColor,
    pub width: f64,
    pub opacity: f64,
    pub dashed: bool,
    /// Width of a border that sets the line off from what is behind it, 0 for none.
    pub casing: f64,
}

impl Stroke {
    pub const fn new(colour: RGBColor, width: f64) -> Self {
        Self { colour, width, opacity: 1.0, dashed: false, casing: 0.0 }
    }
}

/// How text is set: `x` is at its left, middle or right, `y` at the middle of its capitals.
#[derive(Clone, Copy)]
pub(super) struct Font {
    pub size: f64,
    pub bold: bool,
    pub align: HPos,
    pub colour: RGBColor,
    /// Read from bottom to top.
    pub upwards: bool,
}

impl Font {
    pub const fn new(size: f64, align: HPos) -> Self {
        Self { size, bold: false, align, colour: BLACK, upwards: false }
    }

    pub const fn bold(self) -> Self {
        Self { bold: true, ..self }
    }

    pub const fn colour(self, colour: RGBColor) -> Self {
        Self { colour, ..self }
    }
}

/// A picture in the making.
pub(super) struct Canvas<'a> {
    area: DrawingArea<BitMapBackend<'a>, Shift>,
}

/// Draws a picture and returns it as the bytes of a PNG file.
pub(super) fn draw(width: u32, height: u32, paint: impl FnOnce(&Canvas<'_>) -> Result<()>) -> Result<Vec<u8>> {
    for (style, bytes) in [(FontStyle::Normal, dejavu::sans::regular()), (FontStyle::Bold, dejavu::sans::bold())] {
        register_font(FONT, style, bytes).map_err(|_| cannot("a built-in font cannot be read"))?;
    }
    let (wide, high) = (width * OVERSAMPLE, height * OVERSAMPLE);
    let mut pixels = vec![255; 3 * wide as usize * high as usize];
    {
        let canvas = Canvas { area: BitMapBackend::with_buffer(&mut pixels, (wide, high)).into_drawing_area() };
        paint(&canvas)?;
        canvas.area.present().map_err(cannot)?;
    }
    let smooth = average(&pixels, width as usize, height as usize);
    let image = image::RgbImage::from_raw(width, height, smooth).ok_or_else(|| cannot("wrong size"))?;
    let mut png = Cursor::new(Vec::new());
    image.write_to(&mut png, image::ImageFormat::Png).map_err(cannot)?;
    Ok(png.into_inner())
}

fn average(pixels: &[u8], width: usize, height: usize) -> Vec<u8> {
    let k = OVERSAMPLE as usize;
    let row = 3 * width * k;
    let mut out = Vec::with_capacity(3 * width * height);
    for y in 0..height {
        for x in 0..width {
            for channel in 0..3 {
                let at = |dx: usize, dy: usize| u32::from(pixels[(y * k + dy) * row + 3 * (x * k + dx) + channel]);
                let sum: u32 = (0..k).flat_map(|dy| (0..k).map(move |dx| (dx, dy))).map(|(dx, dy)| at(dx, dy)).sum();
                out.push((sum / (OVERSAMPLE * OVERSAMPLE)) as u8);
            }
        }
    }
    out
}

fn cannot(what: impl std::fmt::Display) -> Error {
    Error::Io { path: "picture".into(), source: std::io::Error::other(format!("cannot draw: {what}")) }
}

fn scaled((x, y): Point) -> (i32, i32) {
    let k = f64::from(OVERSAMPLE);
    ((x * k).round() as i32, (y * k).round() as i32)
}

impl Canvas<'_> {
    /// A filled rectangle between two corners.
    pub fn rectangle(&self, from: Point, to: Point, colour: RGBColor) -> Result<()> {
        self.area.draw(&Rectangle::new([scaled(from), scaled(to)], colour.filled())).map_err(cannot)
    }

    /// A filled disc.
    pub fn disc(&self, centre: Point, radius: f64, colour: RGBColor, opacity: f64) -> Result<()> {
        let radius = (radius * f64::from(OVERSAMPLE)).round() as i32;
        self.area.draw(&Circle::new(scaled(centre), radius, colour.mix(opacity).filled())).map_err(cannot)
    }

    /// A line through points.
    pub fn line(&self, points: &[Point], stroke: Stroke) -> Result<()> {
        let pieces =
            if stroke.dashed { dashes(points, 4.0 * stroke.width, 3.2 * stroke.width) } else { vec![points.to_vec()] };
        if stroke.casing > 0.0 {
            for piece in &pieces {
                self.path(
                    &lengthened(piece, stroke.casing),
                    WHITE,
                    stroke.width + 2.0 * stroke.casing,
                    stroke.opacity,
                )?;
            }
        }
        pieces.iter().try_for_each(|piece| self.path(piece, stroke.colour, stroke.width, stroke.opacity))
    }

    fn path(&self, points: &[Point], colour: RGBColor, width: f64, opacity: f64) -> Result<()> {
        let mut path: Vec<_> = points.iter().copied().map(scaled).collect();
        path.dedup();
        if path.len() < 2 {
            return Ok(());
        }
        let width = (width * f64::from(OVERSAMPLE)).round().max(1.0) as u32;
        let style = ShapeStyle { color: colour.mix(opacity), filled: false, stroke_width: width };
        self.area.draw(&PathElement::new(path, style)).map_err(cannot)
    }

    /// A line of text.
    pub fn text(&self, at: Point, font: Font, text: &str) -> Result<()> {
        let k = f64::from(OVERSAMPLE);
        let style = if font.bold { FontStyle::Bold } else { FontStyle::Normal };
        let transform = if font.upwards { FontTransform::Rotate270 } else { FontTransform::None };
        let desc = FontDesc::new(FontFamily::Name(FONT), font.size * k, style).transform(transform);
        // The crate puts the baseline half a font size below the top; capitals of this font are 0.63 sizes high.
        let shift = 0.19 * font.size;
        let (at, pos) = if font.upwards {
            ((at.0 - shift, at.1), Pos::new(font.align, VPos::Top))
        } else {
            ((at.0, at.1 - shift), Pos::new(font.align, VPos::Top))
        };
        let style = desc.into_text_style(&self.area).color(&font.colour).pos(pos);
        self.area.draw_text(text, &style, scaled(at)).map_err(cannot)
    }

    /// How wide a line of text is.
    pub fn text_width(&self, font: Font, text: &str) -> f64 {
        let style = if font.bold { FontStyle::Bold } else { FontStyle::Normal };
        FontDesc::new(FontFamily::Name(FONT), font.size, style)
            .box_size(text)
            .map_or(0.0, |(width, _)| f64::from(width))
    }
}

/// The pieces of a dashed line.
fn dashes(points: &[Point], dash: f64, gap: f64) -> Vec<Vec<Point>> {
    let mut pieces = Vec::new();
    let mut current = points.first().map(|&p| vec![p]).unwrap_or_default();
    let (mut drawing, mut left) = (true, dash);
    for pair in points.windows(2) {
        let (mut from, to) = (pair[0], pair[1]);
        loop {
            let length = (to.0 - from.0).hypot(to.1 - from.1);
            if length <= left {
                left -= length;
                if drawing {
                    current.push(to);
                }
                break;
            }
            let t = left / length;
            from = (from.0 + t * (to.0 - from.0), from.1 + t * (to.1 - from.1));
            if drawing {
                current.push(from);
                pieces.push(std::mem::take(&mut current));
            } else {
                current = vec![from];
            }
            drawing = !drawing;
            left = if drawing { dash } else { gap };
        }
    }
    if drawing {
        pieces.push(current);
    }
    pieces
}

/// The line, longer at both ends, so that a casing goes around a dash.
fn lengthened(points: &[Point], by: f64) -> Vec<Point> {
    let mut points = points.to_vec();
    let beyond = |a: Point, b: Point| {
        let length = (b.0 - a.0).hypot(b.1 - a.1).max(1e-9);
        (a.0 + (a.0 - b.0) / length * by, a.1 + (a.1 - b.1) / length * by)
    };
    if let &[first, second, ..] = points.as_slice() {
        points[0] = beyond(first, second);
    }
    if let &[.., second, first] = points.as_slice() {
        let last = points.len() - 1;
        points[last] = beyond(first, second);
    }
    points
}
