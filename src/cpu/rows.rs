//! Work over the rows of arrays, on all threads, in bounded memory.

use rayon::prelude::*;

use crate::scalar::Scalar;

/// Points that one thread computes before it takes others.
const CHUNK: usize = 256;
/// Numbers that a thread's arrays for one chunk may hold, where more than one point asks for them.
const CHUNK_NUMBERS: usize = 1 << 22;

/// Points of a chunk, where each needs room for so many numbers.
pub(crate) fn chunk(numbers: usize) -> usize {
    (CHUNK_NUMBERS / numbers.max(1)).clamp(1, CHUNK)
}

/// A chunk: its first point, its rows of the inputs, and its part of the outputs.
type Part<'a, T, const I: usize, const O: usize> = (usize, [&'a [T]; I], [&'a mut [T]; O]);

/// Runs `compute` over chunks of at most `most` points on all threads, each with its own scratch (made for so many points).
///
/// Each input is an array with its width: row p of every one of them belongs to point p. `compute` gets the number of the chunk's first
/// point, the chunk's rows, and its part of every output, whose widths are given.
pub(crate) fn over_rows<T: Scalar, S, const I: usize, const O: usize>(
    inputs: [(&[T], usize); I],
    widths: [usize; O],
    most: usize,
    scratch: impl Fn(usize) -> S + Sync + Send,
    compute: impl Fn(&mut S, usize, [&[T]; I], [&mut [T]; O]) + Sync + Send,
) -> [Vec<T>; O] {
    let count = inputs.first().map_or(0, |(rows, width)| rows.len() / width);
    let chunk = most.min(count.div_ceil(rayon::current_num_threads())).max(1);
    let mut outputs = widths.map(|width| vec![T::ZERO; count * width]);
    let mut rest = outputs.each_mut().map(|output| &mut output[..]);
    let parts = (0..count).step_by(chunk).map(|first| {
        let points = chunk.min(count - first);
        let outputs = std::array::from_fn(|o| {
            let (part, behind) = std::mem::take(&mut rest[o]).split_at_mut(points * widths[o]);
            rest[o] = behind;
            part
        });
        (first, inputs.map(|(rows, width)| &rows[first * width..(first + points) * width]), outputs)
    });
    let parts: Vec<Part<'_, T, I, O>> = parts.collect();
    parts
        .into_par_iter()
        .for_each_init(|| scratch(chunk), |scratch, (first, rows, out)| compute(scratch, first, rows, out));
    outputs
}

/// The same, with NaN in every output of a point where a number of its inputs is not finite: an activation may have made it finite again.
pub(crate) fn over_finite_rows<T: Scalar, S, const I: usize, const O: usize>(
    inputs: [(&[T], usize); I],
    widths: [usize; O],
    most: usize,
    scratch: impl Fn(usize) -> S + Sync + Send,
    compute: impl Fn(&mut S, usize, [&[T]; I], [&mut [T]; O]) + Sync + Send,
) -> [Vec<T>; O] {
    let mut outputs = over_rows(inputs, widths, most, scratch, compute);
    spoil(inputs, widths, outputs.each_mut().map(|output| &mut output[..]));
    outputs
}

/// NaN into every output of a point where a number of its inputs is not finite.
pub(crate) fn spoil<T: Scalar, const I: usize, const O: usize>(
    inputs: [(&[T], usize); I],
    widths: [usize; O],
    mut outputs: [&mut [T]; O],
) {
    for (rows, width) in inputs {
        for (point, _) in rows.chunks_exact(width).enumerate().filter(|(_, row)| !row.iter().all(|x| x.finite())) {
            for (output, width) in outputs.iter_mut().zip(widths) {
                output[point * width..(point + 1) * width].fill(T::from_f64(f64::NAN));
            }
        }
    }
}
