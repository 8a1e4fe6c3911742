//! Geodesics with N = 32: curves per second with the default options, and on one grid alone, where operations can be counted.

#[path = "../tests/fixtures/mod.rs"]
mod fixtures;
mod rates;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use fixtures::{NAMES, Random, cast, decoder, golden};
use ndarray::{Array2, s};
use pullback::{Activation, Decoder, Options};
use rates::{Bench, Rates, device, row_flops};

fn geodesics(criterion: &mut Criterion) {
    for (name, count) in NAMES.into_iter().zip([256, 128, 32]) {
        let golden = golden(name);
        let part = s![..count, ..];
        let (starts, ends) = (golden.starts.slice(part).to_owned(), golden.ends.slice(part).to_owned());
        bench(criterion, name, &decoder(name), &cast(&starts), &cast(&ends));
    }
    for (widths, count) in [([8, 256, 256, 784], 64), ([8, 512, 512, 3072], 16)] {
        let mut random = Random(1);
        let decoder = random.decoder(&widths, Activation::Tanh, Activation::Identity);
        let (starts, ends) = (random.array((count, 8)), random.array((count, 8)));
        let name = format!("{}-tanh", widths.map(|w| w.to_string()).join("-"));
        bench(criterion, &name, &decoder, &cast(&starts), &cast(&ends));
    }
}

fn bench(criterion: &mut Criterion, name: &str, decoder: &Decoder, starts: &Array2<f32>, ends: &Array2<f32>) {
    let device = device();
    let model = device.load(decoder).unwrap();
    let mut rates = Rates::new(criterion, "geodesics", name, decoder, &device);
    for (name, coarse_to_fine) in [("default", true), ("one grid", false)] {
        let options = Options { coarse_to_fine, ..Options::default() };
        let solve = || model.geodesics(starts.view(), ends.view(), &options).unwrap();
        let found = solve();
        let passes = found.iterations.iter().map(|&i| f64::from(i)).sum::<f64>() / found.len() as f64;
        let bench = Bench {
            name,
            unit: "curves",
            elements: starts.nrows(),
            flops: (!coarse_to_fine).then(|| passes * pass_flops(decoder, options.segments)),
            note: format!(", {passes:.1} passes"),
        };
        rates.run(&bench, || {
            black_box(solve());
        });
    }
}

/// Multiplications and additions of one pass along a curve: values, tangents, and the banded products of the Jacobians. Adjoint rows
/// (only Newton's steps have them), rejected steps and the small systems are not counted, so a share of the peak says too little.
fn pass_flops(decoder: &Decoder, segments: usize) -> f64 {
    let decoder = decoder.compressed();
    let d = decoder.latent_dim();
    let (value, tangent) = row_flops(&decoder);
    let products = d * (d + 1) / 2 + d * d + d;
    (segments - 1) as f64 * (value + d as f64 * tangent + (2 * products * decoder.data_dim()) as f64)
}

criterion_group!(benches, geodesics);
criterion_main!(benches);
