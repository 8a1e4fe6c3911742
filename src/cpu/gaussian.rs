//! Chords, residuals and tangents where outputs are means μ and standard deviations σ, measured by the Fisher–Rao metric.
//!
//! With Δ the difference to a neighbour, marked by a prime, and sums over the outputs, everything divided by N:
//!
//! ```text
//! chord²  e = Σ_k (Δμ² + 2 Δσ²) / (σ σ′)
//! r_μ = Σ Δμ / (σ σ′)      r_σ = Σ (2 Δσ / (σ σ′) − e_k / (2 σ))      over both neighbours
//! G = Σ_k (∂μ_k ∂μ_kᵀ + 2 ∂σ_k ∂σ_kᵀ) / σ_k²
//! ```

use crate::scalar::Scalar;

/// e of every segment, added to `squares`; the first `2 · width` of `stride` columns of `values` are μ and σ.
pub(crate) fn add_chords<T: Scalar>(width: usize, stride: usize, values: &[T], squares: &mut [f64]) {
    let points = values.chunks_exact(stride).zip(values.chunks_exact(stride).skip(1));
    for (square, (a, b)) in squares.iter_mut().zip(points) {
        let ((mean_a, std_a), (mean_b, std_b)) = (halves(width, a), halves(width, b));
        let means = mean_a.iter().zip(mean_b).zip(std_a.iter().zip(std_b));
        *square += means.map(|((&m, &n), (&s, &t))| chord(m - n, s - t, s, t).to_f64()).sum::<f64>();
    }
}

/// r at the point `here` between `left` and `right`, rows of `values`, of the means or of the standard deviations.
pub(crate) fn residual<T: Scalar>(width: usize, is_std: bool, left: &[T], here: &[T], right: &[T], out: &mut [T]) {
    let two = T::ONE + T::ONE;
    let (mean, std) = halves(width, here);
    for (k, r) in out.iter_mut().enumerate() {
        *r = T::ZERO;
        for (other_mean, other_std) in [halves(width, left), halves(width, right)] {
            let (dm, ds, scale) = (mean[k] - other_mean[k], std[k] - other_std[k], T::ONE / (std[k] * other_std[k]));
            *r += if is_std {
                two * ds * scale - chord(dm, ds, std[k], other_std[k]) / (two * std[k])
            } else {
                dm * scale
            };
        }
    }
}

/// Tangents `[points, d, width]` of μ or σ divided by σ, those of σ times √2: their Gram matrix is G. `values` `[points, stride]`.
pub(crate) fn normalise<T: Scalar>(
    d: usize,
    width: usize,
    stride: usize,
    is_std: bool,
    values: &[T],
    tangents: &mut [T],
) {
    let factor = T::from_f64(if is_std { std::f64::consts::SQRT_2 } else { 1.0 });
    for (tangents, values) in tangents.chunks_exact_mut(d * width).zip(values.chunks_exact(stride)) {
        let (_, std) = halves(width, values);
        for tangent in tangents.chunks_exact_mut(width) {
            for (t, &s) in tangent.iter_mut().zip(std) {
                *t *= factor / s;
            }
        }
    }
}

fn halves<T>(width: usize, row: &[T]) -> (&[T], &[T]) {
    row[..2 * width].split_at(width)
}

#[inline(always)]
fn chord<T: Scalar>(dm: T, ds: T, std: T, other_std: T) -> T {
    (dm * dm + (ds * ds + ds * ds)) / (std * other_std)
}
