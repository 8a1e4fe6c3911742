//! Every operation over many points.

#[path = "../tests/fixtures/mod.rs"]
mod fixtures;
mod rates;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use fixtures::{NAMES, Random, cast, decoder};
use ndarray::{Array2, s};
use pullback::cost::{Cost, Shape};
use pullback::{Activation, Decoder, Options};
use rates::{Bench, Rates, device, in_kernels};

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
    let shape = Shape::new(decoder);
    // Rows of wide data spaces are large: fewer points, so that they fit.
    let few = points.slice(s![..POINTS * 64 / decoder.data_dim().max(64), ..]);
    let (rows, others) = (few.nrows(), Array2::ones((few.nrows(), decoder.data_dim())));
    let curves = cast::<f32, _>(&Random(4).array((64, 33, d)));
    let mut run = |name, unit, elements: usize, cost: Option<Cost>, call: &dyn Fn()| {
        let flops = cost.map(|cost| cost.operations);
        let bench = Bench { name, unit, elements, flops, note: String::new() };
        rates.run(&bench, || in_kernels(&model, call));
    };
    let points = points.view();
    run("decode", "points", POINTS, Some(shape.decode(1)), &|| drop(black_box(model.decode(points).unwrap())));
    run("jacobian", "points", rows, Some(shape.jacobian(1)), &|| drop(black_box(model.jacobian(few).unwrap())));
    run("metric", "points", POINTS, Some(shape.metric(1)), &|| drop(black_box(model.metric(points).unwrap())));
    run("push_forward", "points", rows, Some(shape.push_forward(1)), &|| {
        drop(black_box(model.push_forward(few, few).unwrap()));
    });
    run("pull_back", "points", rows, Some(shape.pull_back(1)), &|| {
        drop(black_box(model.pull_back(few, others.view()).unwrap()));
    });
    run("adjoint_hessian", "points", rows, Some(shape.adjoint_hessian(1)), &|| {
        drop(black_box(model.adjoint_hessian(few, others.view()).unwrap()));
    });
    run("inner", "points", rows, None, &|| drop(black_box(model.inner(few, few, few).unwrap())));
    run("log_det", "points", POINTS, Some(shape.log_det(1)), &|| drop(black_box(model.log_det(points).unwrap())));
    run("spectrum", "points", POINTS, Some(shape.spectrum(1)), &|| drop(black_box(model.spectrum(points).unwrap())));
    run("singular", "points", rows, None, &|| drop(black_box(model.singular(few).unwrap())));
    run("scalar_curvature", "points", rows, None, &|| drop(black_box(model.scalar_curvature(few).unwrap())));
    run("geodesic_acceleration", "points", rows, None, &|| {
        drop(black_box(model.geodesic_acceleration(few, few).unwrap()));
    });
    run("energy", "curves", 64, Some(shape.energy(1, 32)), &|| drop(black_box(model.energy(curves.view()).unwrap())));
    if device.is_cpu() {
        let (starts, ends, options) = (curves.slice(s![.., 0, ..]), curves.slice(s![.., 32, ..]), Options::default());
        for (name, newton) in [("linearise", false), ("linearise_newton", true)] {
            run(name, "curves", 64, Some(shape.linearise(1, 32, newton)), &|| {
                black_box(model.pass(starts, ends, &options, newton).unwrap());
            });
        }
    }
}

criterion_group!(benches, operations);
criterion_main!(benches);
