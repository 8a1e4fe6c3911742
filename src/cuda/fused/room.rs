//! What `settle` finds room for, on the machines that kernels are compiled for.

use std::fmt::Write;

use ndarray::{Array1, Array2};

use super::*;
use crate::decoder::{Decoder, Head, Layer};

/// GPUs that kernels are compiled for (the first an A100), and KiB of shared memory that a block of theirs may have.
const MACHINES: [(&str, (u32, u32), u32); 3] =
    [("sm_80", (8, 0), 163), ("sm_90a", (9, 0), 227), ("sm_100", (10, 0), 227)];

/// Widths of a decoder, and its blocks on a multiprocessor of each machine, 0 where it has no room for the kernels.
const DECODERS: [([usize; 4], [usize; 3]); 4] = [
    ([2, 64, 64, 64], [1, 2, 2]), // on the A100 all weights stay in one block
    ([8, 128, 128, 64], [1, 1, 1]),
    ([8, 256, 256, 256], [1, 1, 1]),
    ([8, 512, 512, 512], [0, 1, 1]),
];

fn network(widths: [usize; 4]) -> HostNetwork<f32> {
    let layer = |k: usize| Layer {
        weight: Array2::zeros((widths[k + 1], widths[k])),
        bias: Array1::zeros(widths[k + 1]),
        activation: if k < 2 { Activation::Tanh } else { Activation::Identity },
    };
    let head = Head::new("mean", (0..3).map(layer).collect()).unwrap();
    HostNetwork::new(&Decoder::new(vec![head]).unwrap())
}

/// `scripts/check-kernels` compares what this writes with what the compiled kernels need.
#[test]
fn blocks_find_room_in_shared_memory() {
    let mut lines = String::new();
    for (widths, expected) in DECODERS {
        for ((architecture, compute, kib), expected) in MACHINES.into_iter().zip(expected) {
            let shared_per_block = kib << 10;
            let name = architecture.to_owned();
            let properties =
                Properties { name, compute, multiprocessors: 1, shared_per_block, ..Properties::default() };
            let host = network(widths);
            let shape = Shape::new(&host, Precision::Tf32x3, &properties).unwrap().general();
            let (mut network, _, layers) = parameters(&shape, &host);
            let (shared, blocks) = settle(&shape, &mut network, layers, &properties).unwrap_or((0, 0));
            let solve = shape.general_name("solve", shape.precision);
            let over_points = shape.general_name("over_points", shape.of_points());
            let (threads, stages) = (threads(shape.build), network.stages);
            assert_eq!(blocks, expected, "{widths:?} on {architecture}");
            let [a, b, c, d] = widths;
            writeln!(
                lines,
                "{architecture} {a}→{b}→{c}→{d} {solve} {over_points} {shared_per_block} {RESERVED} {STATIC_SHARED} \
                 {threads} {shared} {stages} {blocks}"
            )
            .unwrap();
        }
    }
    if let Some(folder) = std::env::var_os("PULLBACK_CUBINS") {
        std::fs::write(std::path::Path::new(&folder).join("blocks.txt"), lines).unwrap();
    }
}

/// What a decoder asks a compiler for compiles for every machine, and defines what is looked up later.
#[cfg(feature = "cuda")]
#[test]
fn a_decoders_own_kernels_compile() {
    let Ok(compiler) = crate::cuda::nvrtc::compiler() else { return println!("skipped: no NVRTC") };
    for ((architecture, compute, kib), precision) in
        MACHINES.into_iter().zip([Precision::Tf32, Precision::Mixed, Precision::Bf16])
    {
        let (name, shared_per_block) = (architecture.to_owned(), kib << 10);
        let properties = Properties { name, compute, multiprocessors: 1, shared_per_block, ..Properties::default() };
        let shape = Shape::new(&network([8, 128, 128, 64]), precision, &properties).unwrap();
        let code = compiler.compile(architecture, &shape.instances()).unwrap_or_else(|error| panic!("{error}"));
        for name in [shape.name("solve", shape.precision), shape.name("over_points", shape.of_points())] {
            let held = code.windows(name.len()).any(|bytes| bytes == name.as_bytes());
            assert!(held, "{architecture}: no {name}");
        }
    }
}
