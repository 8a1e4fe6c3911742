//! Small products over long rows: Gram matrices J Jᵀ, products with the neighbour's J, and weighted ones.
//!
//! Rows are tangents: `[m, width]` holds m of them. Blocks of 2 × 4 inner products are summed together in registers.

use pulp::{Simd, WithSimd};

use crate::scalar::Scalar;

/// `out[p] += a[p] · b[p]ᵀ` for every point p: `[points, m, width]` × `[points, n, width]` to `[points, m, n]`.
pub(crate) fn add_products<T: Scalar>(width: usize, (m, a): (usize, &[T]), (n, b): (usize, &[T]), out: &mut [T]) {
    pulp::Arch::new().dispatch(Products { width, m, a, n, b, out });
}

/// `out[p] += a[p] · a[p]ᵀ`: `[points, n, width]` to `[points, n, n]`.
pub(crate) fn add_gram<T: Scalar>(width: usize, n: usize, a: &[T], out: &mut [T]) {
    pulp::Arch::new().dispatch(Gram { width, n, a, weights: None, row: &mut [], out });
}

/// `out[p] += a[p] · diag(weights[p]) · a[p]ᵀ`, with weights `[points, width]`; `row` is room for one weighted row.
pub(crate) fn add_weighted_gram<T: Scalar>(
    width: usize,
    n: usize,
    a: &[T],
    weights: &[T],
    row: &mut [T],
    out: &mut [T],
) {
    pulp::Arch::new().dispatch(Gram { width, n, a, weights: Some(weights), row, out });
}

struct Products<'a, T> {
    width: usize,
    m: usize,
    a: &'a [T],
    n: usize,
    b: &'a [T],
    out: &'a mut [T],
}

impl<T: Scalar> WithSimd for Products<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { width, m, a, n, b, out } = self;
        let points = a.chunks_exact(m * width).zip(b.chunks_exact(n * width)).zip(out.chunks_exact_mut(m * n));
        for ((a, b), out) in points {
            let mut i = 0;
            while i + 2 <= m {
                row_products::<S, T, 2>(simd, width, &a[i * width..], n, b, &mut out[i * n..], n);
                i += 2;
            }
            if i < m {
                row_products::<S, T, 1>(simd, width, &a[i * width..], n, b, &mut out[i * n..], n);
            }
        }
    }
}

struct Gram<'a, T> {
    width: usize,
    n: usize,
    a: &'a [T],
    weights: Option<&'a [T]>,
    row: &'a mut [T],
    out: &'a mut [T],
}

impl<T: Scalar> WithSimd for Gram<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { width, n, a, weights, row, out } = self;
        for (p, (a, out)) in a.chunks_exact(n * width).zip(out.chunks_exact_mut(n * n)).enumerate() {
            // The upper triangle, two rows at a time: columns from the first of the two on.
            let mut i = 0;
            while i < n {
                let rows = (n - i).min(2);
                let pair = &a[i * width..(i + rows) * width];
                let left = match weights {
                    None => pair,
                    Some(weights) => {
                        let weights = &weights[p * width..(p + 1) * width];
                        let row = &mut row[..rows * width];
                        for (row, pair) in row.chunks_exact_mut(width).zip(pair.chunks_exact(width)) {
                            for ((r, &x), &w) in row.iter_mut().zip(pair).zip(weights) {
                                *r = x * w;
                            }
                        }
                        row
                    }
                };
                let (right, target) = (&a[i * width..], &mut out[i * n + i..]);
                if rows == 2 {
                    row_products::<S, T, 2>(simd, width, left, n - i, right, target, n);
                } else {
                    row_products::<S, T, 1>(simd, width, left, n - i, right, target, n);
                }
                i += rows;
            }
            for i in 1..n {
                for j in 0..i {
                    out[i * n + j] = out[j * n + i];
                }
            }
        }
    }
}

/// A rows of `a` against all n rows of `b`; `out` has rows of length `stride`.
#[inline(always)]
fn row_products<S: Simd, T: Scalar, const A: usize>(
    simd: S,
    width: usize,
    a: &[T],
    n: usize,
    b: &[T],
    out: &mut [T],
    stride: usize,
) {
    let mut j = 0;
    while j + 4 <= n {
        block::<S, T, A, 4>(simd, width, a, &b[j * width..], &mut out[j..], stride);
        j += 4;
    }
    while j + 2 <= n {
        block::<S, T, A, 2>(simd, width, a, &b[j * width..], &mut out[j..], stride);
        j += 2;
    }
    if j < n {
        block::<S, T, A, 1>(simd, width, a, &b[j * width..], &mut out[j..], stride);
    }
}

/// A × B inner products, summed in registers.
#[inline(always)]
fn block<S: Simd, T: Scalar, const A: usize, const B: usize>(
    simd: S,
    width: usize,
    a: &[T],
    b: &[T],
    out: &mut [T],
    stride: usize,
) {
    let mut sums = [[T::zero_lanes(simd); B]; A];
    let a: [_; A] = std::array::from_fn(
        #[inline(always)]
        |i| T::lanes(simd, &a[i * width..(i + 1) * width]),
    );
    let b: [_; B] = std::array::from_fn(
        #[inline(always)]
        |j| T::lanes(simd, &b[j * width..(j + 1) * width]),
    );
    let whole = a[0].0.len();
    for k in 0..whole {
        for i in 0..A {
            for j in 0..B {
                sums[i][j] = T::fma_lanes(simd, a[i].0[k], b[j].0[k], sums[i][j]);
            }
        }
    }
    if !a[0].1.is_empty() {
        for i in 0..A {
            for j in 0..B {
                sums[i][j] =
                    T::fma_lanes(simd, T::partial_lanes(simd, a[i].1), T::partial_lanes(simd, b[j].1), sums[i][j]);
            }
        }
    }
    for i in 0..A {
        for j in 0..B {
            out[i * stride + j] += T::sum_lanes(simd, sums[i][j]);
        }
    }
}

/// Σ_i ‖x_i − y_i‖² and Σ_i ‖x_i − y_i‖ over neighbouring rows x_i, y_i = x_{i+1} of `rows` `[points, width]`.
pub(crate) fn chord_sums<T: Scalar>(width: usize, rows: &[T]) -> (f64, f64) {
    pulp::Arch::new().dispatch(Chords { width, rows })
}

struct Chords<'a, T> {
    width: usize,
    rows: &'a [T],
}

impl<T: Scalar> WithSimd for Chords<'_, T> {
    type Output = (f64, f64);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> (f64, f64) {
        let Self { width, rows } = self;
        let (mut squares, mut lengths) = (0.0, 0.0);
        let points = rows.len() / width;
        for i in 1..points {
            let (a, a_tail) = T::lanes(simd, &rows[(i - 1) * width..i * width]);
            let (b, b_tail) = T::lanes(simd, &rows[i * width..(i + 1) * width]);
            let mut sums = [T::zero_lanes(simd); 4];
            let (a4, b4) = (a.chunks_exact(4), b.chunks_exact(4));
            for (&a, &b) in a4.remainder().iter().zip(b4.remainder()) {
                sums[0] = add_square::<S, T>(simd, a, b, sums[0]);
            }
            for (a, b) in a4.zip(b4) {
                for l in 0..4 {
                    sums[l] = add_square::<S, T>(simd, a[l], b[l], sums[l]);
                }
            }
            if !a_tail.is_empty() {
                let (a, b) = (T::partial_lanes(simd, a_tail), T::partial_lanes(simd, b_tail));
                sums[1] = add_square::<S, T>(simd, a, b, sums[1]);
            }
            let pair = T::add_lanes(simd, T::add_lanes(simd, sums[0], sums[1]), T::add_lanes(simd, sums[2], sums[3]));
            let square = T::sum_lanes(simd, pair).to_f64();
            squares += square;
            lengths += square.sqrt();
        }
        (squares, lengths)
    }
}

/// (a − b)² + sum.
#[inline(always)]
fn add_square<S: Simd, T: Scalar>(simd: S, a: T::Lanes<S>, b: T::Lanes<S>, sum: T::Lanes<S>) -> T::Lanes<S> {
    let difference = T::sub_lanes(simd, a, b);
    T::fma_lanes(simd, difference, difference, sum)
}
