//! Derivatives through [`Activation::Softmax`] and [`Activation::SoftmaxAngle`], whose outputs depend on all inputs of their row.
//!
//! With p = softmax(x), y = p^α / α (α = 1, and ½ for the angle) and s = α y = p^α, which the forward pass leaves as φ':
//!
//! ```text
//! tangents   ẏ = s ∘ (ẋ − ⟨p, ẋ⟩)
//! adjoints   ∂(w · y)/∂x = q − Q p,   q = w ∘ s,   Q = Σ q
//! Hessian    diag(α q − Q p) − α (q pᵀ + p qᵀ) + (1 + α) Q p pᵀ
//! ```

use super::gram::add_weighted_gram;
use super::jet::Jet;
use crate::decoder::Activation;
use crate::scalar::Scalar;

/// p from s = p^α.
#[inline(always)]
fn probability<T: Scalar>(activation: Activation, s: T) -> T {
    if activation == Activation::SoftmaxAngle { s * s } else { s }
}

fn alpha<T: Scalar>(activation: Activation) -> T {
    T::from_f64(if activation == Activation::SoftmaxAngle { 0.5 } else { 1.0 })
}

/// ẏ for the tangents ẋ in `pre` `[points, rows, width]` and s `[points, width]`.
pub(crate) fn scale_rows<T: Scalar>(
    activation: Activation,
    rows: usize,
    width: usize,
    s: &[T],
    pre: &[T],
    post: &mut [T],
) {
    let points = pre.chunks_exact(rows * width).zip(post.chunks_exact_mut(rows * width));
    for ((pre, post), s) in points.zip(s.chunks_exact(width)) {
        for (pre, post) in pre.chunks_exact(width).zip(post.chunks_exact_mut(width)) {
            let mean: T = pre.iter().zip(s).map(|(&x, &s)| x * probability(activation, s)).sum();
            for ((y, &x), &s) in post.iter_mut().zip(pre).zip(s) {
                *y = s * (x - mean);
            }
        }
    }
}

/// First derivatives along the jet's directions and second ones along its pairs, `[rows, width]`, at one point, in place. With
/// c_u = ẋ_u − ⟨p, ẋ_u⟩: ẏ_u = s ∘ c_u, ÿ_uv = s ∘ (c_uv + α c_u c_v − ⟨p, c_u c_v⟩).
pub(crate) fn bend<T: Scalar>(activation: Activation, jet: Jet<'_>, width: usize, s: &[T], rows: &mut [T]) {
    let alpha = alpha::<T>(activation);
    for row in rows.chunks_exact_mut(width) {
        let mean: T = row.iter().zip(s).map(|(&x, &s)| x * probability(activation, s)).sum();
        row.iter_mut().for_each(|x| *x -= mean);
    }
    let (tangents, pairs) = rows.split_at_mut(jet.directions * width);
    for (row, &(u, v)) in pairs.chunks_exact_mut(width).zip(jet.pairs) {
        let (u, v) = (&tangents[u * width..][..width], &tangents[v * width..][..width]);
        let products = || u.iter().zip(v).map(|(&u, &v)| u * v);
        let mean: T = products().zip(s).map(|(c, &s)| c * probability(activation, s)).sum();
        for ((x, c), &s) in row.iter_mut().zip(products()).zip(s) {
            *x = s * (*x + alpha * c - mean);
        }
    }
    for row in tangents.chunks_exact_mut(width) {
        row.iter_mut().zip(s).for_each(|(x, &s)| *x *= s);
    }
}

/// From w in `adjoint` `[points, width]` to ∂(w · y)/∂x, in place.
pub(crate) fn multiply<T: Scalar>(activation: Activation, width: usize, s: &[T], adjoint: &mut [T]) {
    for (adjoint, s) in adjoint.chunks_exact_mut(width).zip(s.chunks_exact(width)) {
        for (w, &s) in adjoint.iter_mut().zip(s) {
            *w *= s;
        }
        let total: T = adjoint.iter().copied().sum();
        for (q, &s) in adjoint.iter_mut().zip(s) {
            *q -= total * probability(activation, s);
        }
    }
}

/// T · H · Tᵀ for the tangents T in `pre` `[points, d, width]` and the Hessian H of w · y, added to `out` `[points, d, d]`.
/// `adjoint` holds w; `weights` `[points, width]` and `row` are room.
#[allow(clippy::too_many_arguments)] // one array per name in the formula
pub(crate) fn add_curvature<T: Scalar>(
    activation: Activation,
    d: usize,
    width: usize,
    pre: &[T],
    s: &[T],
    adjoint: &[T],
    weights: &mut [T],
    row: &mut [T],
    out: &mut [T],
) {
    let alpha = alpha::<T>(activation);
    let (mut along_q, mut along_p) = (vec![T::ZERO; d], vec![T::ZERO; d]);
    let points = pre.chunks_exact(d * width).zip(out.chunks_exact_mut(d * d));
    let rows = s.chunks_exact(width).zip(adjoint.chunks_exact(width)).zip(weights.chunks_exact_mut(width));
    for ((pre, out), ((s, w), weights)) in points.zip(rows) {
        let total: T = w.iter().zip(s).map(|(&w, &s)| w * s).sum();
        for ((weight, &w), &s) in weights.iter_mut().zip(w).zip(s) {
            *weight = alpha * w * s - total * probability(activation, s);
        }
        for ((t, q), p) in pre.chunks_exact(width).zip(&mut along_q).zip(&mut along_p) {
            *q = t.iter().zip(w).zip(s).map(|((&t, &w), &s)| t * w * s).sum();
            *p = t.iter().zip(s).map(|(&t, &s)| t * probability(activation, s)).sum();
        }
        add_weighted_gram(width, d, pre, weights, row, out);
        for (i, out) in out.chunks_exact_mut(d).enumerate() {
            for (j, out) in out.iter_mut().enumerate() {
                let mixed = along_q[i] * along_p[j] + along_p[i] * along_q[j];
                *out += (T::ONE + alpha) * total * along_p[i] * along_p[j] - alpha * mixed;
            }
        }
    }
}
