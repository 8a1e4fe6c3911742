//! Pictures of a run of `pullback metric` in a plane: a map for every number that it computed.

use std::path::Path;

use serde_json::Value;

use super::axes::Scale;
use super::canvas::Point;
use super::heat::{HeatMap, Ramp};
use super::map::{Ellipse, Field, Map};
use crate::cli::args::PlotArgs;
use crate::cli::metric::{Extent, Quantity};
use crate::cli::npy::{Reader, read_latents};
use crate::cli::output::RECORD;
use crate::cli::solve::thousands;
use crate::error::{Error, Result};

/// What can be drawn: one number at every point.
const DRAWN: [(Quantity, &str); 6] = [
    (Quantity::Volume, "volume.png"),
    (Quantity::LogDet, "logdet.png"),
    (Quantity::Condition, "condition.png"),
    (Quantity::Rank, "rank.png"),
    (Quantity::Dimension, "dimension.png"),
    (Quantity::Curvature, "curvature.png"),
];
/// Ellipses along the longer side.
const ELLIPSES: usize = 18;
/// Scattered points in a picture at most.
const SCATTER: usize = 20_000;

/// Where a run computed.
struct Plane {
    count: usize,
    x: Scale,
    y: Scale,
    /// Of a grid, its points along z₁; otherwise the points.
    places: Places,
    dots: Vec<Point>,
}

enum Places {
    Grid { columns: usize },
    Points(Vec<Point>),
}

/// The pictures and their names.
pub(super) fn pictures(args: &PlotArgs, record: &Value) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let refuse = |problem: String| Err(Error::file(args.run.join(RECORD), problem));
    match record["latent_dim"].as_u64() {
        Some(2) => {}
        found => {
            let found = found.map_or_else(|| "none".into(), |d| d.to_string());
            return refuse(format!("expected a run of 2 latents, which is drawn as a map, found {found}"));
        }
    }
    let computed = |quantity: Quantity| {
        record["compute"].as_array().is_some_and(|names| names.iter().any(|name| name == quantity.name()))
    };
    let wanted: Vec<_> = DRAWN.into_iter().filter(|&(quantity, _)| computed(quantity)).collect();
    if wanted.is_empty() {
        let names = DRAWN.map(|(quantity, _)| quantity.name()).join(", ");
        let found = record["compute"].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>();
        return refuse(format!("expected a run that computed one of {names}, found {}", found.join(", ")));
    }
    let plane = Plane::open(&args.run, record)?;
    let (ellipses, spacing) = match plane.places {
        Places::Grid { columns } if computed(Quantity::Metric) => plane.ellipses(&args.run, columns)?,
        _ => (Vec::new(), 1.0),
    };
    let draw = |(quantity, name): (Quantity, &'static str)| {
        let values = plane.values(&args.run, quantity)?;
        let ramp = match quantity {
            Quantity::Volume => Ramp::volumes(&values),
            Quantity::Curvature => Ramp::diverging(&values),
            Quantity::Rank => Ramp::Whole(2),
            _ => Ramp::sequential(&values),
        };
        let words = quantity.title(2);
        let (field, place) = match &plane.places {
            Places::Grid { columns } => {
                (Field::Grid(HeatMap { values, columns: *columns, ramp }), "over the latent plane".into())
            }
            Places::Points(points) => {
                let every = points.len().div_ceil(SCATTER).max(1);
                let points: Vec<Point> = points.iter().copied().step_by(every).collect();
                let values: Vec<f64> = values.into_iter().step_by(every).collect();
                let place = match (points.len(), plane.count) {
                    (drawn, count) if drawn < count => {
                        format!("at {} of {} latents", thousands(drawn), thousands(count))
                    }
                    (_, 1) => "at one latent".into(),
                    (_, count) => format!("at {} latents", thousands(count)),
                };
                (Field::Points { points, values, ramp }, place)
            }
        };
        let map = Map {
            title: &format!("{} {place}", capitalised(words)),
            quantity: words,
            field: &field,
            x: plane.x,
            y: plane.y,
            dots: &plane.dots,
            ellipses: if quantity == Quantity::Volume { &ellipses } else { &[] },
            spacing,
        };
        Ok((name, map.draw()?))
    };
    wanted.into_iter().map(draw).collect()
}

impl Plane {
    fn open(folder: &Path, record: &Value) -> Result<Self> {
        let number = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok());
        let count = number(&record["count"]).unwrap_or(0);
        let grid = &record["grid"];
        if grid.is_null() {
            let Some(path) = record["points"].as_str() else {
                return Err(Error::file(folder.join(RECORD), "expected the path of the run's points, found none"));
            };
            let path = folder.join(path);
            let points = pairs(&path)?;
            if points.len() != count {
                let problem = format!("expected the run's {count} points, found {}", points.len());
                return Err(Error::file(path, problem));
            }
            let (x, y) = (points.iter().map(|p| p.0), points.iter().map(|p| p.1));
            let (x, y) = (Scale::around(x, 0.05), Scale::around(y, 0.05));
            return Ok(Self { count, x, y, places: Places::Points(points), dots: Vec::new() });
        }
        match (number(&grid["columns"]), number(&grid["rows"]), Extent::from_record(&grid["extent"])) {
            (Some(columns), Some(rows), Some(extent))
                if columns >= 2 && rows >= 2 && columns.checked_mul(rows) == Some(count) =>
            {
                let scale = |[low, high]: [f64; 2]| Scale { low, high, logarithmic: false };
                let around = folder.join("around.npy");
                let dots = if around.exists() { pairs(&around)? } else { Vec::new() };
                Ok(Self { count, x: scale(extent.x), y: scale(extent.y), places: Places::Grid { columns }, dots })
            }
            _ => {
                Err(Error::file(folder.join(RECORD), "expected a grid's columns, rows and extent, found other numbers"))
            }
        }
    }

    /// One number for every point.
    fn values(&self, folder: &Path, quantity: Quantity) -> Result<Vec<f64>> {
        let path = folder.join(format!("{}.npy", quantity.name()));
        let mut reader = Reader::open(&path)?;
        if reader.shape() != [self.count] {
            return Err(Error::file(path, format!("expected shape [{}], found {:?}", self.count, reader.shape())));
        }
        Ok(match quantity {
            Quantity::Rank => reader.rows::<u32>(0, self.count)?.into_iter().map(f64::from).collect(),
            _ => reader.rows::<f32>(0, self.count)?.into_iter().map(f64::from).collect(),
        })
    }

    /// Ellipses of the metric on a coarser grid, and their distance.
    fn ellipses(&self, folder: &Path, columns: usize) -> Result<(Vec<Ellipse>, f64)> {
        let path = folder.join("metric.npy");
        let mut reader = Reader::open(&path)?;
        if reader.shape() != [self.count, 2, 2] {
            return Err(Error::file(
                path,
                format!("expected shape [{}, 2, 2], found {:?}", self.count, reader.shape()),
            ));
        }
        let rows = self.count / columns;
        let (wide, high) = (self.x.high - self.x.low, self.y.high - self.y.low);
        let spacing = wide.max(high) / ELLIPSES as f64;
        let steps = |length: f64| ((length / spacing) as usize).max(1);
        let mut ellipses = Vec::new();
        for row in 0..steps(high) {
            for column in 0..steps(wide) {
                // The grid's point that is nearest to the middle of a cell.
                let nearest = |k: usize, cells: usize, points: usize| {
                    ((k as f64 + 0.5) / cells as f64 * (points - 1) as f64).round() as usize
                };
                let (i, j) = (nearest(column, steps(wide), columns), nearest(row, steps(high), rows));
                let centre = (
                    self.x.low + wide * i as f64 / (columns - 1) as f64,
                    self.y.low + high * j as f64 / (rows - 1) as f64,
                );
                if let [a, b, _, c] = *reader.row::<f32>(j * columns + i)? {
                    ellipses.extend(Ellipse::new(centre, [a, b, c].map(f64::from)));
                }
            }
        }
        Ok((ellipses, spacing))
    }
}

fn pairs(path: &Path) -> Result<Vec<Point>> {
    let latents = read_latents(path, 2)?;
    Ok(latents.outer_iter().map(|z| (f64::from(z[0]), f64::from(z[1]))).collect())
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
