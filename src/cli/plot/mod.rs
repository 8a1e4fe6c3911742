//! `pullback plot`: pictures of a finished run; and the pictures themselves, which the demo draws too.

mod axes;
mod benchmark;
mod canvas;
mod colour;
mod heat;
mod lengths;
mod map;
mod metric;
mod pair;
mod plane;
mod principal;
mod speed;
mod strips;

pub(super) use benchmark::{Line, Mark, Series, draw_benchmark};
pub(super) use pair::{Panel, draw_pair};
pub(super) use plane::Plane;
pub(super) use speed::{Speed, chord_speeds, draw_speeds};
pub(super) use strips::{Strip, draw_strips};

use std::fs;
use std::path::{Path, PathBuf};

use ndarray::{Array2, Array3, ArrayView2, Axis, s};
use serde_json::{Value, json};

use super::args::{FileArgs, PlotArgs};
use super::npy::Reader;
use super::output::read_record;
use super::session::check_interrupt;
use super::solve::{straight_lines, thousands};
use crate::decoder::Decoder;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::Model;
use canvas::Point;
use lengths::draw_lengths;
use principal::Projection;

/// Curves in the picture of lengths at most.
const SCATTER: usize = 3000;

pub(super) fn run(args: &PlotArgs) -> Result<()> {
    let record = read_record(&args.run)?;
    let pictures =
        if record["command"] == "metric" { metric::pictures(args, &record)? } else { of_curves(args, &record)? };
    check_interrupt(0, pictures.len())?;
    let mut summary = String::new();
    for (name, png) in &pictures {
        write_whole(&args.run.join(name), png)?;
        summary += &format!("{}\n", args.run.join(name).display());
    }
    let names: Vec<_> = pictures.iter().map(|p| p.0).collect();
    args.print.result(&summary, &json!({ "out": args.run.display().to_string(), "pictures": names }))
}

/// Pictures of a run of geodesics.
fn of_curves(args: &PlotArgs, record: &Value) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let decoder = open_decoder(args, record)?;
    let mut run = Run::open(&args.run, &decoder)?;
    let drawn = run.curves(args.curves)?;
    if drawn.is_empty() {
        return Err(Error::file(&args.run, "expected at least one finite curve to draw, found none"));
    }
    let device = Device::cpu();
    // The same geometry with fewer outputs: all that is drawn here is geometry.
    let model = device.load(&decoder.compressed())?;
    Ok(vec![
        ("curves.png", draw_plane(&drawn, run.count, &model)?),
        ("lengths.png", draw_scatter(&run.curves(SCATTER)?, run.count, &model)?),
        ("speeds.png", draw_panels(&drawn, &model)?),
    ])
}

fn open_decoder(args: &PlotArgs, record: &Value) -> Result<Decoder> {
    let refuse = |problem: String| Err(Error::file(args.run.join(super::output::RECORD), problem));
    let command = record["command"].as_str().unwrap_or("?");
    if !["geodesics", "demo"].contains(&command) {
        return refuse(format!(
            "expected a run of `pullback geodesics`, `pullback demo` or `pullback metric`, found one of `pullback {command}`"
        ));
    }
    let path = match (&args.decoder, record["decoder"].as_str()) {
        (Some(path), _) => path.clone(),
        (None, Some(path)) => args.run.join(path),
        (None, None) => return refuse("expected the decoder's path, found none: give --decoder".into()),
    };
    if args.decoder.is_none() && !path.exists() {
        return refuse(format!("the run's decoder {} is not there: give --decoder", path.display()));
    }
    FileArgs::from_record(&record["decoder_options"]).open(&path)
}

/// The arrays of a run that are drawn.
struct Run {
    curves: Reader,
    folder: PathBuf,
    count: usize,
    points: usize,
    latent_dim: usize,
}

/// Curves `[K, N + 1, d]` of a run and their numbers in it.
struct Chosen {
    curves: Array3<f32>,
    numbers: Vec<usize>,
}

impl Chosen {
    fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    fn straight(&self) -> Array3<f32> {
        let (_, points, _) = self.curves.dim();
        straight_lines(self.curves.slice(s![.., 0, ..]), self.curves.slice(s![.., points - 1, ..]), points - 1)
    }
}

impl Run {
    fn open(folder: &Path, decoder: &Decoder) -> Result<Self> {
        let path = folder.join("curves.npy");
        let curves = Reader::open(&path)?;
        let expected = decoder.latent_dim();
        match *curves.shape() {
            [count, points, latent_dim] if count > 0 && points >= 2 && latent_dim == expected => {
                Ok(Self { curves, folder: folder.into(), count, points, latent_dim })
            }
            ref shape => Err(Error::file(
                path,
                format!("expected curves of shape [curves, points, {expected}] for this decoder, found {shape:?}"),
            )),
        }
    }

    /// At most `limit` finite curves, evenly spread over the run.
    fn curves(&mut self, limit: usize) -> Result<Chosen> {
        let wanted = limit.min(self.count);
        let (mut numbers, mut all) = (Vec::new(), Vec::new());
        for k in 0..wanted {
            let number = k * self.count / wanted;
            let curve = self.curves.row::<f32>(number)?;
            if curve.iter().all(|v| v.is_finite()) {
                all.extend(curve);
                numbers.push(number);
            }
        }
        let curves = Array3::from_shape_vec((numbers.len(), self.points, self.latent_dim), all)
            .map_err(|e| Error::file(self.folder.join("curves.npy"), e.to_string()))?;
        Ok(Chosen { curves, numbers })
    }
}

fn draw_plane(drawn: &Chosen, count: usize, model: &Model) -> Result<Vec<u8>> {
    let (_, points, d) = drawn.curves.dim();
    let straight = drawn.straight();
    // Where the ends alone span the space their directions are the ones to see: geodesics may go far where the decoder hardly changes.
    let spanning = if drawn.numbers.len() > d { &straight } else { &drawn.curves };
    let projection = Projection::new(spanning.as_slice().unwrap_or_default(), d).filter(|_| d > 2);
    let place = |i: usize, point: &[f32]| -> Point {
        match (&projection, point) {
            (Some(projection), point) => projection.of(point),
            (None, &[x, y]) => (f64::from(x), f64::from(y)),
            (None, point) => (i as f64 / (points - 1) as f64, point.first().map_or(0.0, |&z| f64::from(z))),
        }
    };
    let paths = |curves: &Array3<f32>| -> Vec<Vec<Point>> {
        let path =
            |curve: ArrayView2<'_, f32>| curve.outer_iter().enumerate().map(|(i, p)| place(i, &p.to_vec())).collect();
        curves.outer_iter().map(path).collect()
    };
    let axes = match (&projection, d) {
        (Some(p), _) => [1, 2].map(|k| format!("principal direction {k} ({:.0} % of the variance)", p.shares[k - 1])),
        (None, 1) => ["curve parameter t".into(), "latent coordinate z".into()],
        _ => ["latent coordinate z₁".into(), "latent coordinate z₂".into()],
    };
    let plane = Plane {
        title: title(drawn.numbers.len(), count, "in the latent space"),
        straight: paths(&straight),
        geodesics: paths(&drawn.curves),
        model: (d == 2).then_some(model),
        axes,
        ..Plane::default()
    };
    plane.draw()
}

fn title(drawn: usize, count: usize, place: &str) -> String {
    match (drawn, count) {
        (_, 1) => format!("The geodesic {place}"),
        (drawn, count) if drawn == count => format!("{} geodesics {place}", thousands(count)),
        _ => format!("{} of {} geodesics {place}", thousands(drawn), thousands(count)),
    }
}

fn draw_scatter(drawn: &Chosen, count: usize, model: &Model) -> Result<Vec<u8>> {
    let geodesic = model.energy(drawn.curves.view())?.length;
    let straight = model.energy(drawn.straight().view())?.length;
    let pairs = straight.iter().zip(&geodesic).map(|(&a, &b)| (f64::from(a), f64::from(b)));
    let pairs: Vec<Point> = pairs.filter(|(a, b)| a.is_finite() && b.is_finite()).collect();
    draw_lengths(&title(drawn.numbers.len(), count, "against straight lines"), &pairs)
}

/// Speeds along up to six curves: those that differ most from their straight lines.
fn draw_panels(drawn: &Chosen, model: &Model) -> Result<Vec<u8>> {
    let straight = drawn.straight();
    let speeds = |curve: ArrayView2<'_, f32>| -> Result<Vec<f64>> {
        let values: Array2<f32> = model.decode(curve)?;
        Ok(chord_speeds(values.view()))
    };
    let (from, to) = (model.energy(straight.view())?.length, model.energy(drawn.curves.view())?.length);
    let mut order: Vec<usize> = (0..drawn.numbers.len()).filter(|&k| to[k].is_finite()).collect();
    let gain = |k: usize| if from[k] > 0.0 { 1.0 - to[k] / from[k] } else { 0.0 };
    order.sort_by(|&a, &b| gain(b).total_cmp(&gain(a)));
    let panels = order.into_iter().take(6).map(|k| {
        Ok(Speed {
            title: format!("curve {}", drawn.numbers[k]),
            straight: speeds(straight.index_axis(Axis(0), k))?,
            geodesic: speeds(drawn.curves.index_axis(Axis(0), k))?,
        })
    });
    draw_speeds("Speed in data space, where geodesics gain most", &panels.collect::<Result<Vec<_>>>()?)
}

/// Writes under another name first, so that there is never half a picture.
/// Writes a file under a name of its own, and then gives it the one it should have.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let unfinished = path.with_extension("part");
    fs::write(&unfinished, bytes).and_then(|()| fs::rename(&unfinished, path)).map_err(|source| {
        let _ = fs::remove_file(&unfinished);
        Error::Io { path: path.into(), source }
    })
}
