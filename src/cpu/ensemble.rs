//! Chords, residuals and products of an ensemble's M members, g_c = f_c / √M, drawn independently at every point.
//!
//! With the members' mean ḡ and spread v = Σ_c ‖g_c − ḡ‖², everything divided by N:
//!
//! ```text
//! E/N = ½ Σ_i (M ‖ḡ_{i+1} − ḡ_i‖² + v_{i+1} + v_i)       r_c = 2 ḡ_i − ḡ_{i−1} − ḡ_{i+1} + 2 (g_c − ḡ_i)
//! H_ii = 2 Σ_c J_c J_cᵀ + S_i                            H_{i,i+1} = −A_i A_{i+1}ᵀ,   A = Σ_c J_c / √M
//! ```

use super::simd::vectorised;
use crate::scalar::Scalar;

/// ḡ of `values` `[points, stride]`, whose first `members · width` columns are the members', into `means` `[points, width]`.
pub(crate) fn means<T: Scalar>(members: usize, width: usize, stride: usize, values: &[T], means: &mut [T]) {
    let share = T::ONE / T::from_f64(members as f64);
    vectorised(
        #[inline(always)]
        || {
            for (values, mean) in values.chunks_exact(stride).zip(means.chunks_exact_mut(width)) {
                mean.copy_from_slice(&values[..width]);
                for member in values[width..members * width].chunks_exact(width) {
                    for (m, &g) in mean.iter_mut().zip(member) {
                        *m += g;
                    }
                }
                for m in mean {
                    *m *= share;
                }
            }
        },
    );
}

/// M ‖ḡ_{i+1} − ḡ_i‖² + v_{i+1} + v_i of every segment, added to `squares`.
pub(crate) fn add_chords<T: Scalar>(members: usize, width: usize, stride: usize, values: &[T], squares: &mut [f64]) {
    let mut mean = vec![T::ZERO; values.len() / stride * width];
    means(members, width, stride, values, &mut mean);
    let spread = |(values, mean): (&[T], &[T])| -> f64 {
        let members = values[..members * width].chunks_exact(width);
        members.map(|member| distance(member, mean)).sum()
    };
    let points = values.chunks_exact(stride).zip(mean.chunks_exact(width));
    let spreads: Vec<f64> = points.map(spread).collect();
    let steps = mean.chunks_exact(width).zip(mean.chunks_exact(width).skip(1));
    for ((square, (a, b)), v) in squares.iter_mut().zip(steps).zip(spreads.windows(2)) {
        *square += members as f64 * distance(a, b) + v[0] + v[1];
    }
}

/// ‖a − b‖², summed in float64.
pub(crate) fn distance<T: Scalar>(a: &[T], b: &[T]) -> f64 {
    vectorised(
        #[inline(always)]
        || {
            let mut sums = [0.0; 8];
            let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
            for (&a, &b) in a8.remainder().iter().zip(b8.remainder()) {
                sums[0] += (a - b).to_f64().powi(2);
            }
            for (a, b) in a8.zip(b8) {
                for k in 0..8 {
                    let difference = (a[k] - b[k]).to_f64();
                    sums[k] += difference * difference;
                }
            }
            sums.iter().sum()
        },
    )
}

/// r_c of one member at inner points, in `out` `[points, width]`, from the values before and means `[points + 2, width]` that start
/// one point earlier.
pub(crate) fn residuals<T: Scalar>(
    member: usize,
    width: usize,
    stride: usize,
    values: &[T],
    means: &[T],
    out: &mut [T],
) {
    vectorised(
        #[inline(always)]
        || {
            let neighbours = means.windows(3 * width).step_by(width);
            for ((out, means), values) in out.chunks_exact_mut(width).zip(neighbours).zip(values.chunks_exact(stride)) {
                let (left, rest) = means.split_at(width);
                let (mean, right) = rest.split_at(width);
                let own = &values[member * width..(member + 1) * width];
                let around = mean.iter().zip(left).zip(right);
                for ((r, &g), ((&m, &left), &right)) in out.iter_mut().zip(own).zip(around) {
                    let apart = g - m;
                    *r = (m - left) + (m - right) + (apart + apart);
                }
            }
        },
    );
}
