//! `pullback demo`: geodesics between handwritten digits, from data that is built in.

mod uncertain;

use std::path::Path;
use std::time::Instant;

use ndarray::{Array2, ArrayView2, Axis, s};
use serde_json::json;

use super::args::{DemoArgs, FileArgs};
use super::geodesics::{record, summary};
use super::output::{Output, Replace};
use super::plot::{Plane, Speed, Strip, chord_speeds, draw_speeds, draw_strips};
use super::random::Random;
use super::session::check_interrupt;
use super::solve::{Arrays, solve, straight_lines};
use crate::decoder::{Decoder, FileOptions};
use crate::error::{Error, Result};
use crate::geodesic::{Geodesics, Options, Status};
use crate::model::Model;

/// A decoder R² → R⁶⁴ trained on the 8×8 digits of scikit-learn (E. Alpaydin, C. Kaynak, 1998), with the latents and classes of
/// all 1,797 images.
const DECODER: &[u8] = include_bytes!("../../../fixtures/digits-d2-tanh.safetensors");
const LATENTS: &[u8] = include_bytes!("../../../fixtures/digits-d2-tanh.latents.npy");
const LABELS: &[u8] = include_bytes!("../../../fixtures/digits-d2-tanh.labels.npy");
/// Bytes before the numbers in both arrays.
const HEADER: usize = 128;
/// Width and height of an image.
const SIDE: usize = 8;
/// Pairs solved, and pairs drawn.
const PAIRS: usize = 2000;
const DRAWN: usize = 6;

/// The built-in digits.
struct Digits {
    latents: Array2<f32>,
    labels: Vec<usize>,
}

/// What the demo solved: pairs of images, by their numbers.
struct Solved {
    pairs: Vec<[usize; 2]>,
    geodesics: Geodesics<f32>,
    straight_lengths: Vec<f32>,
}

/// The built-in decoder.
pub(super) fn decoder() -> Result<Decoder> {
    Decoder::from_safetensors(DECODER, &FileOptions::default())
}

/// The latents of all images, `[1797, 2]`.
pub(super) fn latents() -> Result<Array2<f32>> {
    Ok(Digits::built_in(LATENTS, LABELS)?.latents)
}

/// The rows of a built-in array of float32 with so many columns.
pub(super) fn built_in_rows(array: &'static [u8], columns: usize) -> Result<Array2<f32>> {
    let numbers = array.get(HEADER..).unwrap_or_default();
    let numbers: Vec<f32> = numbers.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    Array2::from_shape_vec((numbers.len() / columns, columns), numbers).map_err(|e| Error::Decoder(e.to_string()))
}

pub(super) fn run(args: &DemoArgs) -> Result<()> {
    let began = Instant::now();
    args.machine.start_threads()?;
    let replace = if args.overwrite { Replace::Any } else { Replace::Own("demo") };
    let output = Output::create(&args.out, replace)?;
    let device = args.machine.open(args.print)?;
    let decoder = decoder()?;
    let model = args.machine.load(&device, &decoder, args.print)?;
    let digits = Digits::built_in(LATENTS, LABELS)?;
    let pairs = random_pairs(digits.labels.len());
    let ends = |side: usize| Array2::from_shape_fn((PAIRS, 2), |(k, axis)| digits.latents[[pairs[k][side], axis]]);
    let (starts, ends) = (ends(0), ends(1));

    let options = Options::default();
    let bar = args.print.progress(PAIRS, "curves");
    let mut solved = None;
    let totals = solve(&model, (starts.view(), ends.view()), &options, PAIRS, &bar, |geodesics, straight| {
        solved = Some((geodesics.clone(), straight.to_vec()));
        Ok(())
    })?;
    let Some((geodesics, straight_lengths)) = solved else {
        return Err(Error::Cancelled { finished: 0, total: PAIRS });
    };
    let mut arrays = Arrays::create(&output, PAIRS, options.segments, 2)?;
    arrays.push(&geodesics).and_then(|()| arrays.finish()).map_err(output.io())?;
    output.write_bytes("decoder.safetensors", DECODER)?;
    output.write_bytes("latents.npy", LATENTS)?;
    output.write_bytes("labels.npy", LABELS)?;
    output.write("starts.npy", starts.shape(), starts.iter().copied())?;
    output.write("ends.npy", ends.shape(), ends.iter().copied())?;

    let solved = Solved { pairs, geodesics, straight_lengths };
    let chosen = digits.choose(&solved);
    draw_pictures(&output, &model, &digits, &solved, &chosen)?;
    let uncertain = uncertain::run(args, &device, &output)?;

    let mut record = record("demo", &model, &device, &options, &totals);
    record["decoder"] = json!("decoder.safetensors");
    record["decoder_options"] = FileArgs::default().record();
    record["starts"] = json!("starts.npy");
    record["ends"] = json!("ends.npy");
    record["drawn"] = json!(chosen);
    record["uncertain"] = uncertain;
    record["timings"]["total_seconds"] = json!(began.elapsed().as_secs_f64());
    check_interrupt(PAIRS, PAIRS)?;
    let target = output.target().display().to_string();
    output.finish(&record)?;
    record["out"] = json!(target);

    for warning in totals.warnings() {
        args.print.warn(&warning);
    }
    let text = format!(
        "geodesics between handwritten digits, a decoder from 2 to 64 dimensions\n{}{}",
        summary(&totals),
        next_steps(&args.out)
    );
    args.print.result(&text, &record)
}

fn next_steps(out: &Path) -> String {
    let quoted = |path: &Path| {
        let text = path.display().to_string();
        if text.contains(char::is_whitespace) { format!("'{text}'") } else { text }
    };
    let file = |name: &str| quoted(&out.join(name));
    format!(
        "pictures: {}, {}, {}, {}\n\nnext, with these files or your own:\n  pullback geodesics --decoder {} --starts {} --ends {} --out my-run\n  pullback plot my-run\n",
        file("latent-plane.png"),
        file("digit-strips.png"),
        file("speed.png"),
        file("mean-and-expected.png"),
        file("decoder.safetensors"),
        file("starts.npy"),
        file("ends.npy"),
    )
}

/// Pairs of different images, the same on every machine.
fn random_pairs(images: usize) -> Vec<[usize; 2]> {
    let mut random = Random(2);
    let mut image = || (random.bits() % images as u64) as usize;
    std::iter::repeat_with(|| [image(), image()]).filter(|[a, b]| a != b).take(PAIRS).collect()
}

impl Digits {
    /// From the bytes of both arrays.
    fn built_in(latents: &'static [u8], labels: &'static [u8]) -> Result<Self> {
        let labels = labels.get(HEADER..).unwrap_or_default();
        let labels: Vec<usize> = labels.chunks_exact(8).map(|b| usize::from(b[0])).collect();
        Ok(Self { latents: built_in_rows(latents, 2)?, labels })
    }

    /// Distance of every image from the middle of its class, in units of the class's own spread.
    fn oddness(&self) -> Vec<f64> {
        let point = |k: usize| [f64::from(self.latents[[k, 0]]), f64::from(self.latents[[k, 1]])];
        let of_class = |class: usize| (0..self.labels.len()).filter(move |&k| self.labels[k] == class);
        let mut oddness = vec![0.0; self.labels.len()];
        for class in 0..10 {
            let count = of_class(class).count().max(1) as f64;
            let middle = [0, 1].map(|axis| of_class(class).map(|k| point(k)[axis]).sum::<f64>() / count);
            let distance = |k: usize| (point(k)[0] - middle[0]).hypot(point(k)[1] - middle[1]);
            let spread = of_class(class).map(distance).sum::<f64>() / count;
            of_class(class).for_each(|k| oddness[k] = distance(k) / spread.max(1e-9));
        }
        oddness
    }

    /// The pairs to draw: typical digits of different classes, well apart, where the geodesic gains most.
    fn choose(&self, solved: &Solved) -> Vec<usize> {
        let oddness = self.oddness();
        let gain = |k: usize| 1.0 - solved.geodesics.length[k] / solved.straight_lengths[k];
        let label = |image: usize| self.labels[image];
        let mut order: Vec<usize> = (0..solved.pairs.len())
            .filter(|&k| {
                let [a, b] = solved.pairs[k];
                let typical = oddness[a] < 1.1 && oddness[b] < 1.1;
                typical && label(a) != label(b) && solved.geodesics.status[k] == Status::Converged
            })
            .collect();
        order.sort_by(|&a, &b| gain(b).total_cmp(&gain(a)));
        let mut chosen: Vec<usize> = Vec::new();
        let mut uses = [0; 10];
        for k in order {
            let far = |image: usize, other: usize| {
                let [x, y] = [0, 1].map(|axis| self.latents[[image, axis]] - self.latents[[other, axis]]);
                x.hypot(y) > 0.6
            };
            let apart =
                chosen.iter().flat_map(|&c| solved.pairs[c]).all(|o| solved.pairs[k].iter().all(|&i| far(i, o)));
            let classes = |k: usize| {
                let [a, b] = solved.pairs[k].map(label);
                [a.min(b), a.max(b)]
            };
            let fresh =
                classes(k).iter().all(|&class| uses[class] < 2) && chosen.iter().all(|&c| classes(c) != classes(k));
            if apart && fresh && chosen.len() < DRAWN {
                solved.pairs[k].iter().for_each(|&image| uses[label(image)] += 1);
                chosen.push(k);
            }
        }
        chosen
    }
}

fn draw_pictures(output: &Output, model: &Model, digits: &Digits, solved: &Solved, chosen: &[usize]) -> Result<()> {
    let geodesic = |k: usize| solved.geodesics.curves.slice(s![k, .., ..]);
    let (_, points, _) = solved.geodesics.curves.dim();
    let straight = |k: usize| {
        let ends = |i: usize| solved.geodesics.curves.slice(s![k..=k, i, ..]);
        straight_lines(ends(0), ends(points - 1), points - 1).index_axis_move(Axis(0), 0)
    };
    let path = |curve: ArrayView2<'_, f32>| curve.outer_iter().map(|p| (f64::from(p[0]), f64::from(p[1]))).collect();
    let classes = |k: usize| solved.pairs[k].map(|image| digits.labels[image]);

    let plane = Plane {
        title: "Shortest ways between handwritten digits, in the decoder's latent plane".into(),
        digits: digits
            .labels
            .iter()
            .enumerate()
            .map(|(k, &class)| ((f64::from(digits.latents[[k, 0]]), f64::from(digits.latents[[k, 1]])), class))
            .collect(),
        straight: chosen.iter().map(|&k| path(straight(k).view())).collect(),
        geodesics: chosen.iter().map(|&k| path(geodesic(k))).collect(),
        ends: chosen.iter().map(|&k| classes(k)).collect(),
        model: Some(model),
        axes: ["latent coordinate z₁".into(), "latent coordinate z₂".into()],
    };
    output.write_bytes("latent-plane.png", &plane.draw()?)?;

    let (mut strips, mut speeds) = (Vec::new(), Vec::new());
    for &k in chosen {
        let [from, to] = classes(k);
        let (along_straight, along_geodesic) = (model.decode(straight(k).view())?, model.decode(geodesic(k))?);
        let every_second = |values: &Array2<f32>| values.outer_iter().step_by(2).map(|image| image.to_vec()).collect();
        strips.push(Strip {
            title: format!("{from} to {to}"),
            straight: every_second(&along_straight),
            geodesic: every_second(&along_geodesic),
            lengths: [solved.straight_lengths[k], solved.geodesics.length[k]],
        });
        speeds.push(Speed {
            title: format!("{from} to {to}"),
            straight: chord_speeds(along_straight.view()),
            geodesic: chord_speeds(along_geodesic.view()),
        });
    }
    output.write_bytes("digit-strips.png", &draw_strips("Decoded digits along both ways", &strips, SIDE)?)?;
    output.write_bytes("speed.png", &draw_speeds("Speed in data space: constant along a geodesic", &speeds)?)
}
