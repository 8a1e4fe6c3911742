//! Geodesics with N = 32: curves per second with the default options, and on one grid alone, where operations can be counted.

#[path = "../tests/fixtures/mod.rs"]
mod fixtures;
mod rates;

use std::hint::black_box;
use std::ops::ControlFlow;

use criterion::{Criterion, criterion_group, criterion_main};
use fixtures::{NAMES, Random, cast, decoder, golden};
use ndarray::{Array2, s};
use pullback::cost::Shape;
use pullback::{Activation, Decoder, Options};
use rates::{Bench, Rates, device};

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
    let shape = Shape::new(decoder);
    let mut rates = Rates::new(criterion, "geodesics", name, decoder, &device);
    for (name, coarse_to_fine) in [("default", true), ("one grid", false)] {
        let options = Options { coarse_to_fine, ..Options::default() };
        let go_on = |_: usize, _: usize| ControlFlow::Continue(());
        let solve = || model.geodesics_timed(starts.view(), ends.view(), &options, go_on).unwrap();
        let (found, _) = solve();
        let passes = found.iterations.iter().map(|&i| f64::from(i)).sum::<f64>() / found.len() as f64;
        let bench = Bench {
            name,
            unit: "curves",
            elements: starts.nrows(),
            // Newton's adjoint rows and searches are not counted, so a share of the peak says too little.
            flops: (!coarse_to_fine).then(|| passes * shape.linearise(1, options.segments, false).operations),
            note: format!(", {passes:.1} passes"),
        };
        rates.run(&bench, || black_box(solve()).1);
    }
}

criterion_group!(benches, geodesics);
criterion_main!(benches);
