//! Small products over long rows: Gram matrices J Jᵀ, their banded neighbours, and weighted ones.

use super::simd::vectorised;
use crate::scalar::Scalar;

/// Partial sums of one inner product. Their number and order are fixed, so that results do not depend on the processor.
const LANES: usize = 16;

/// `out[i, j] += a[i] · b[j]` for rows of length `width`: `[m, width]` × `[n, width]` to `[m, n]`.
pub(crate) fn add_products<T: Scalar>(width: usize, a: &[T], b: &[T], out: &mut [T]) {
    vectorised(
        #[inline(always)]
        || products(width, a, b, out),
    );
}

/// `out[i, j] += Σ_k a[i, k] · weight[k] · a[j, k]`; `weighted` is room for one row.
pub(crate) fn add_weighted_gram<T: Scalar>(width: usize, a: &[T], weight: &[T], weighted: &mut [T], out: &mut [T]) {
    vectorised(
        #[inline(always)]
        || {
            let n = a.len() / width;
            let weighted = &mut weighted[..width];
            for (i, row) in a.chunks_exact(width).enumerate() {
                for ((w, &x), &y) in weighted.iter_mut().zip(row).zip(weight) {
                    *w = x * y;
                }
                let start = i * width;
                products(width, weighted, &a[start..], &mut out[i * n + i..(i + 1) * n]);
            }
            mirror(n, out);
        },
    );
}

/// `out = a aᵀ` for rows of length `width`: `[n, width]` to `[n, n]`.
pub(crate) fn add_gram<T: Scalar>(width: usize, a: &[T], out: &mut [T]) {
    vectorised(
        #[inline(always)]
        || {
            let n = a.len() / width;
            for (i, row) in a.chunks_exact(width).enumerate() {
                products(width, row, &a[i * width..], &mut out[i * n + i..(i + 1) * n]);
            }
            mirror(n, out);
        },
    );
}

/// Copies the upper triangle to the lower one.
#[inline(always)]
fn mirror<T: Scalar>(n: usize, out: &mut [T]) {
    for i in 1..n {
        for j in 0..i {
            out[i * n + j] = out[j * n + i];
        }
    }
}

#[inline(always)]
fn products<T: Scalar>(width: usize, a: &[T], b: &[T], out: &mut [T]) {
    let n = b.len() / width;
    for (row, out) in a.chunks_exact(width).zip(out.chunks_exact_mut(n)) {
        let mut j = 0;
        while j + 4 <= n {
            let sums = dots::<T, 4>(row, &b[j * width..(j + 4) * width]);
            for (o, s) in out[j..j + 4].iter_mut().zip(sums) {
                *o += s;
            }
            j += 4;
        }
        while j < n {
            let [sum] = dots::<T, 1>(row, &b[j * width..(j + 1) * width]);
            out[j] += sum;
            j += 1;
        }
    }
}

/// Inner products of one row with B rows.
#[inline(always)]
fn dots<T: Scalar, const B: usize>(a: &[T], b: &[T]) -> [T; B] {
    let width = a.len();
    let whole = width - width % LANES;
    let mut lanes = [[T::ZERO; LANES]; B];
    let rows: [&[T]; B] = std::array::from_fn(|j| &b[j * width..(j + 1) * width]);
    let mut k = 0;
    while k < whole {
        let x: &[T] = &a[k..k + LANES];
        for j in 0..B {
            let y = &rows[j][k..k + LANES];
            for l in 0..LANES {
                lanes[j][l] = x[l].fma(y[l], lanes[j][l]);
            }
        }
        k += LANES;
    }
    std::array::from_fn(|j| {
        let mut sums = lanes[j];
        for (l, (&x, &y)) in a[whole..].iter().zip(&rows[j][whole..]).enumerate() {
            sums[l] = x.fma(y, sums[l]);
        }
        sum(sums)
    })
}

/// The sum of all lanes, pairwise.
#[inline(always)]
fn sum<T: Scalar>(mut lanes: [T; LANES]) -> T {
    let mut half = LANES / 2;
    while half > 0 {
        for l in 0..half {
            let high = lanes[l + half];
            lanes[l] += high;
        }
        half /= 2;
    }
    lanes[0]
}

/// ‖a − b‖².
#[inline(always)]
pub(crate) fn square_distance<T: Scalar>(a: &[T], b: &[T]) -> T {
    let mut lanes = [T::ZERO; LANES];
    let (x, y) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    for (l, (&p, &q)) in x.remainder().iter().zip(y.remainder()).enumerate() {
        lanes[l] = (p - q) * (p - q);
    }
    for (x, y) in x.zip(y) {
        for l in 0..LANES {
            let difference = x[l] - y[l];
            lanes[l] = difference.fma(difference, lanes[l]);
        }
    }
    sum(lanes)
}
