//! Maps of a plane of latents: one number at every point as a colour, with the latents and the metric's ellipses over it.

use plotters::style::text_anchor::HPos;

use super::axes::{Frame, Scale, TICK};
use super::canvas::{BLACK, Canvas, Font, Point, Stroke, WHITE, draw};
use super::heat::{HeatMap, MISSING, Ramp};
use crate::error::Result;

/// Latents drawn as dots at most.
const DOTS: usize = 4000;
/// Longest radius of an ellipse, as a share of the distance between ellipses.
const REACH: f64 = 0.62;

/// The unit circle of a metric at a point: latents at one distance in the data, to first order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ellipse {
    centre: Point,
    /// Half axes, as vectors of the plane.
    axes: [Point; 2],
}

impl Ellipse {
    /// Of a metric G = [g0, g1; g1, g2], with half axes G^(-1/2); `None` where G is singular or not finite.
    pub fn new(centre: Point, [a, b, c]: [f64; 3]) -> Option<Self> {
        let (middle, half) = (0.5 * (a + c), (0.5 * (a - c)).hypot(b));
        let (large, small) = (middle + half, middle - half);
        let angle = 0.5 * (2.0 * b).atan2(a - c);
        let axis = |angle: f64, value: f64| {
            let radius = value.sqrt().recip();
            (radius * angle.cos(), radius * angle.sin())
        };
        let found = Self { centre, axes: [axis(angle, large), axis(angle + std::f64::consts::FRAC_PI_2, small)] };
        (small > 0.0 && found.axes.iter().all(|a| a.0.is_finite() && a.1.is_finite())).then_some(found)
    }

    fn longest(&self) -> f64 {
        let [_, (x, y)] = self.axes;
        x.hypot(y)
    }

    fn path(&self, distance: f64) -> Vec<Point> {
        let at = |k: usize| {
            let (sin, cos) = (std::f64::consts::TAU * k as f64 / 48.0).sin_cos();
            let along = |pick: fn(Point) -> f64| {
                pick(self.centre) + distance * (cos * pick(self.axes[0]) + sin * pick(self.axes[1]))
            };
            (along(|p| p.0), along(|p| p.1))
        };
        (0..=48).map(at).collect()
    }
}

/// Numbers over a plane.
pub(super) enum Field {
    /// On a grid that reaches the scales' ends.
    Grid(HeatMap),
    /// At points of their own.
    Points { points: Vec<Point>, values: Vec<f64>, ramp: Ramp },
}

/// One picture.
pub(super) struct Map<'a> {
    pub title: &'a str,
    /// What the bar's numbers are.
    pub quantity: &'a str,
    pub field: &'a Field,
    pub x: Scale,
    pub y: Scale,
    /// Latents to be drawn as dots.
    pub dots: &'a [Point],
    pub ellipses: &'a [Ellipse],
    /// Distance in the plane between ellipses.
    pub spacing: f64,
}

impl Map<'_> {
    /// The picture as a PNG file.
    pub fn draw(&self) -> Result<Vec<u8>> {
        // As high as wide where the plane's sides differ little: to scale, within the picture's bounds.
        let aspect = ((self.y.high - self.y.low) / (self.x.high - self.x.low)).clamp(0.5, 1.0);
        let (left, top, right) = (150.0, 150.0, 1330.0);
        let bottom = top + (right - left) * aspect * 0.9;
        let frame = Frame { left, top, right, bottom, x: self.x, y: self.y };
        draw(1600, (bottom + 110.0) as u32, |canvas| {
            canvas.text((left, 50.0), Font::new(34.0, HPos::Left).bold(), self.title)?;
            let ramp = match self.field {
                Field::Grid(map) => {
                    map.draw(canvas, &frame)?;
                    map.ramp
                }
                Field::Points { points, values, ramp } => {
                    frame.grid(canvas)?;
                    draw_points(canvas, &frame, points, values, ramp)?;
                    *ramp
                }
            };
            self.draw_dots(canvas, &frame)?;
            let distance = self.draw_ellipses(canvas, &frame)?;
            frame.draw(canvas, "latent coordinate z₁", "latent coordinate z₂")?;
            let bar = Frame { left: right + 48.0, right: right + 84.0, ..frame };
            ramp.draw_bar(canvas, &bar, self.quantity)?;
            self.draw_legend(canvas, (left, 106.0), distance)
        })
    }

    fn draw_dots(&self, canvas: &Canvas<'_>, frame: &Frame) -> Result<()> {
        let inside =
            |p: &&Point| (self.x.low..=self.x.high).contains(&p.0) && (self.y.low..=self.y.high).contains(&p.1);
        let every = self.dots.len().div_ceil(DOTS).max(1);
        for &dot in self.dots.iter().step_by(every).filter(inside) {
            draw_dot(canvas, frame.at(dot))?;
        }
        Ok(())
    }

    /// Draws the ellipses of one distance in the data, and returns that.
    fn draw_ellipses(&self, canvas: &Canvas<'_>, frame: &Frame) -> Result<Option<f64>> {
        let mut sizes: Vec<f64> = self.ellipses.iter().map(Ellipse::longest).collect();
        sizes.sort_by(f64::total_cmp);
        // The largest ones, where the decoder hardly changes, would cover all others.
        let Some(&large) = sizes.get(sizes.len().saturating_sub(1) * 7 / 10) else { return Ok(None) };
        let distance = round(0.42 * self.spacing / large);
        let stroke = Stroke { casing: 1.2, ..Stroke::new(BLACK, 2.0) };
        for ellipse in self.ellipses.iter().filter(|e| e.longest() * distance <= REACH * self.spacing) {
            let path: Vec<Point> = ellipse.path(distance).into_iter().map(|p| frame.at(p)).collect();
            if path
                .iter()
                .all(|p| (frame.left..=frame.right).contains(&p.0) && (frame.top..=frame.bottom).contains(&p.1))
            {
                canvas.line(&path, stroke)?;
            }
        }
        Ok(Some(distance))
    }

    fn draw_legend(&self, canvas: &Canvas<'_>, at: Point, distance: Option<f64>) -> Result<()> {
        let mut x = at.0;
        let font = Font::new(TICK, HPos::Left);
        let text = |from: &mut f64, text: &str| {
            let outcome = canvas.text((*from, at.1), font, text);
            *from += canvas.text_width(font, text) + 44.0;
            outcome
        };
        if let Some(distance) = distance {
            let ring = (0..=48).map(|k| (std::f64::consts::TAU * f64::from(k) / 48.0).sin_cos());
            let ring: Vec<Point> = ring.map(|(sin, cos)| (x + 22.0 + 22.0 * cos, at.1 + 11.0 * sin)).collect();
            canvas.line(&ring, Stroke::new(BLACK, 2.0))?;
            x += 58.0;
            text(&mut x, &format!("latents at data distance {distance} from the centre"))?;
        }
        if !self.dots.is_empty() {
            draw_dot(canvas, (x + 6.0, at.1))?;
            x += 24.0;
            text(&mut x, "given latents")?;
        }
        let missing = match self.field {
            Field::Grid(map) => map.has_missing(),
            Field::Points { values, .. } => values.iter().any(|v| !v.is_finite()),
        };
        if missing {
            canvas.rectangle((x, at.1 - 12.0), (x + 24.0, at.1 + 12.0), MISSING)?;
            x += 36.0;
            text(&mut x, "not finite")?;
        }
        Ok(())
    }
}

fn draw_dot(canvas: &Canvas<'_>, at: Point) -> Result<()> {
    canvas.disc(at, 3.5, WHITE, 0.9)?;
    canvas.disc(at, 2.3, BLACK, 1.0)
}

fn draw_points(canvas: &Canvas<'_>, frame: &Frame, points: &[Point], values: &[f64], ramp: &Ramp) -> Result<()> {
    let radius = if points.len() > 3000 { 4.0 } else { 7.0 };
    for (&point, &value) in points.iter().zip(values) {
        let colour = ramp.colour(if value.is_finite() { value } else { f64::NAN });
        canvas.disc(frame.at(point), radius + 1.0, BLACK, 0.35)?;
        canvas.disc(frame.at(point), radius, colour, 1.0)?;
    }
    Ok(())
}

/// The largest of a few round numbers that is not above a positive one.
fn round(number: f64) -> f64 {
    let power = number.log10().floor() as i32;
    let digit = [8.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.5, 1.0]
        .into_iter()
        .find(|&d| d * 10_f64.powi(power) <= number * (1.0 + 1e-9))
        .unwrap_or(1.0);
    // By way of text, which makes 0.3 of 3 tenths.
    format!("{digit}e{power}").parse().unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ellipse_is_one_of_the_metric() {
        let metric = [4.0, 1.0, 2.0];
        let ellipse = Ellipse::new((1.0, -2.0), metric).expect("an ellipse");
        for (x, y) in ellipse.path(0.5) {
            let (x, y) = (x - 1.0, y + 2.0);
            let square = metric[0] * x * x + 2.0 * metric[1] * x * y + metric[2] * y * y;
            assert!((square - 0.25).abs() < 1e-12, "{square}");
        }
        assert_eq!(Ellipse::new((0.0, 0.0), [1.0, 1.0, 1.0]), None, "singular");
        assert_eq!(Ellipse::new((0.0, 0.0), [f64::NAN, 1.0, 1.0]), None);
    }

    #[test]
    fn round_numbers_are_below() {
        assert_eq!([0.37, 1.0, 72.0, 0.1].map(round), [0.3, 1.0, 60.0, 0.1]);
    }
}
