//! The demo's second half: what a decoder's uncertainty does to its geodesics.

use ndarray::{Array2, ArrayView2, s};
use serde_json::{Value, json};

use super::{Digits, random_pairs};
use crate::cli::args::DemoArgs;
use crate::cli::output::Output;
use crate::cli::plot::{Panel, draw_pair};
use crate::cli::solve::{Arrays, solve, straight_lines};
use crate::decoder::{Decoder, FileOptions};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::geodesic::{Geodesics, Options, Status};
use crate::model::Model;

/// Means, and standard deviations that grow away from the data, for the same digits: heads `mean` and `precision`.
const DECODER: &[u8] = include_bytes!("../../../fixtures/digits-d2-rbf.safetensors");
const LATENTS: &[u8] = include_bytes!("../../../fixtures/digits-d2-rbf.latents.npy");
const LABELS: &[u8] = include_bytes!("../../../fixtures/digits-d2-rbf.labels.npy");
/// Pairs solved, and pairs drawn.
const PAIRS: usize = 400;
const DRAWN: usize = 7;

/// Solves the same pairs with the means alone and with both heads, writes both, and draws them side by side; returns the record.
pub(super) fn run(args: &DemoArgs, device: &Device, output: &Output) -> Result<Value> {
    let digits = Digits::built_in(LATENTS, LABELS)?;
    let mut pairs = random_pairs(digits.labels.len());
    pairs.truncate(PAIRS);
    let ends = |side: usize| Array2::from_shape_fn((PAIRS, 2), |(k, axis)| digits.latents[[pairs[k][side], axis]]);
    let (starts, ends) = (ends(0), ends(1));
    let options = Options::default();
    let solve_with = |name: &str, heads: &[&str]| -> Result<(Model, Geodesics<f32>, Value)> {
        let heads = heads.iter().map(|head| head.to_string()).collect();
        let decoder = Decoder::from_safetensors(DECODER, &FileOptions { heads, ..FileOptions::default() })?;
        // Some devices have no kernels for standard deviations.
        let model = args.machine.load(device, &decoder, args.print).or_else(|_| Device::cpu().load(&decoder))?;
        let bar = args.print.progress(PAIRS, "curves");
        let mut solved = None;
        let totals = solve(&model, (starts.view(), ends.view()), &options, PAIRS, &bar, |geodesics, _| {
            solved = Some(geodesics.clone());
            Ok(())
        })?;
        let geodesics = solved.ok_or(Error::Cancelled { finished: 0, total: PAIRS })?;
        let mut arrays = Arrays::create_as(output, name, PAIRS, options.segments, 2)?;
        arrays.push(&geodesics).and_then(|()| arrays.finish()).map_err(output.io())?;
        let record = json!({
            "status": totals.status_record(),
            "mean_length": totals.mean_length(),
            "mean_straight_length": totals.mean_straight_length(),
            "solve_seconds": totals.solving.as_secs_f64(),
        });
        Ok((model, geodesics, record))
    };
    let (mean_model, mean, mean_record) = solve_with("mean-", &["mean"])?;
    let (expected_model, expected, expected_record) = solve_with("expected-", &[])?;
    output.write_bytes("rbf-decoder.safetensors", DECODER)?;
    output.write_bytes("rbf-latents.npy", LATENTS)?;
    output.write_bytes("rbf-labels.npy", LABELS)?;
    output.write("rbf-starts.npy", starts.shape(), starts.iter().copied())?;
    output.write("rbf-ends.npy", ends.shape(), ends.iter().copied())?;

    let chosen = choose(&expected_model, &mean, &expected)?;
    let straight = straight_lines(starts.view(), ends.view(), options.segments);
    let path = |curve: ArrayView2<'_, f32>| curve.outer_iter().map(|p| (f64::from(p[0]), f64::from(p[1]))).collect();
    let paths = |curves: &ndarray::Array3<f32>| -> Vec<Vec<(f64, f64)>> {
        chosen.iter().map(|&k| path(curves.slice(s![k, .., ..]))).collect()
    };
    let panels = [
        Panel { title: "metric of the mean", model: &mean_model, geodesics: paths(&mean.curves) },
        Panel { title: "expected metric", model: &expected_model, geodesics: paths(&expected.curves) },
    ];
    let data: Vec<(f64, f64)> = path(digits.latents.view());
    let title = "Geodesics keep to the data where the metric knows the decoder's uncertainty";
    output.write_bytes("mean-and-expected.png", &draw_pair(title, &data, &paths(&straight), &panels)?)?;
    Ok(json!({
        "decoder": "rbf-decoder.safetensors",
        "starts": "rbf-starts.npy",
        "ends": "rbf-ends.npy",
        "curves": PAIRS,
        "drawn": chosen,
        "mean": mean_record,
        "expected": expected_record,
    }))
}

/// The pairs whose two geodesics differ most: where the one of the mean is longest under the expected metric, compared with the other.
fn choose(model: &Model, mean: &Geodesics<f32>, expected: &Geodesics<f32>) -> Result<Vec<usize>> {
    let detour = model.energy(mean.curves.view())?.length / &expected.length;
    let both = |k: usize| [mean.status[k], expected.status[k]] == [Status::Converged; 2];
    let mut order: Vec<usize> = (0..expected.len()).filter(|&k| both(k) && detour[k].is_finite()).collect();
    order.sort_by(|&a, &b| detour[b].total_cmp(&detour[a]));
    let end = |k: usize, point: usize| [0, 1].map(|axis| expected.curves[[k, point, axis]]);
    let (_, points, _) = expected.curves.dim();
    let ends = |k: usize| [end(k, 0), end(k, points - 1)];
    let mut chosen: Vec<usize> = Vec::new();
    for k in order {
        // Pairs of their own: no two that begin or end at nearly the same place.
        let far = |a: [f32; 2], b: [f32; 2]| (a[0] - b[0]).hypot(a[1] - b[1]) > 0.7;
        let apart = chosen.iter().all(|&c| ends(c).iter().all(|&a| ends(k).iter().all(|&b| far(a, b))));
        if apart && chosen.len() < DRAWN {
            chosen.push(k);
        }
    }
    Ok(chosen)
}
