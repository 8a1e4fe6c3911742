//! Values, Jacobians, metrics and what comes of them, of many points.

#[path = "../tests/fixtures/mod.rs"]
mod fixtures;
mod rates;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use fixtures::{NAMES, Random, cast, decoder};
use ndarray::Array2;
use pullback::{Activation, Decoder};
use rates::{Bench, Rates, device, metric_flops, row_flops};

const POINTS: usize = 8192;

fn operations(criterion: &mut Criterion) {
    for name in NAMES {
        bench(criterion, name, &decoder(name));
    }
    for widths in [[2, 64, 64, 64], [8, 256, 256, 784], [8, 512, 512, 3072]] {
        let decoder = Random(1).decoder(&widths, Activation::Tanh, Activation::Identity);
        bench(criterion, &format!("{}-tanh", widths.map(|w| w.to_string()).join("-")), &decoder);
    }
}

fn bench(criterion: &mut Criterion, name: &str, decoder: &Decoder) {
    let device = device();
    let model = device.load(decoder).unwrap();
    let d = decoder.latent_dim();
    let points: Array2<f32> = cast(&Random(2).array((POINTS, d)));
    let mut rates = Rates::new(criterion, "operations", name, decoder, &device);
    // Jacobians of wide data spaces are large: fewer points, so that they fit.
    let few = points.slice(ndarray::s![..POINTS * 64 / decoder.data_dim().max(64), ..]);
    let of = |name, elements, flops| Bench { name, unit: "points", elements, flops: Some(flops), note: String::new() };

    let (value, tangent) = row_flops(decoder);
    rates.run(&of("decode", POINTS, value), || {
        black_box(model.decode(points.view()).unwrap());
    });
    rates.run(&of("jacobian", few.nrows(), value + d as f64 * tangent), || {
        black_box(model.jacobian(few).unwrap());
    });
    rates.run(&of("metric", POINTS, metric_flops(decoder)), || {
        black_box(model.metric(points.view()).unwrap());
    });
    // The rates of metrics, to tell what eigenvalues and determinants add to them.
    rates.run(&of("spectrum", POINTS, metric_flops(decoder)), || {
        black_box(model.spectrum(points.view()).unwrap());
    });
    rates.run(&of("log_volume", POINTS, metric_flops(decoder)), || {
        black_box(model.log_volume(points.view()).unwrap());
    });
}

criterion_group!(benches, operations);
criterion_main!(benches);
