//! Initial curves: straight lines, and curves carried from one grid to another.

use crate::scalar::Scalar;

/// Writes the straight line between two latents as `[N + 1, d]`; the ends are copied, to the bit.
pub(crate) fn straight_line<T: Scalar>(start: &[T], end: &[T], points: &mut [T]) {
    let d = start.len();
    let segments = points.len() / d - 1;
    for (i, point) in points.chunks_exact_mut(d).enumerate() {
        let t = T::from_f64(i as f64 / segments as f64);
        for ((p, &a), &b) in point.iter_mut().zip(start).zip(end) {
            *p = if i == segments { b } else { a + (b - a) * t };
        }
    }
}

/// Carries a curve `[M + 1, d]` to N + 1 equally spaced parameters by cubic Lagrange interpolation between the four nearest points
/// (fewer where the curve has fewer); points that the grids share are copied.
pub(crate) fn resample<T: Scalar>(d: usize, from: &[T], to: &mut [T]) {
    let (old, new) = (from.len() / d - 1, to.len() / d - 1);
    for (i, point) in to.chunks_exact_mut(d).enumerate() {
        let (whole, rest) = (i * old / new, i * old % new);
        if rest == 0 {
            point.copy_from_slice(&from[whole * d..(whole + 1) * d]);
            continue;
        }
        let x = whole as f64 + rest as f64 / new as f64;
        let first = whole.saturating_sub(1).min(old.saturating_sub(3));
        let last = (first + 3).min(old);
        // Differences to a neighbour: equal points stay equal, to the bit.
        let near = &from[whole * d..(whole + 1) * d];
        point.copy_from_slice(near);
        for j in (first..=last).filter(|&j| j != whole) {
            let others = (first..=last).filter(|&k| k != j);
            let weight: f64 = others.map(|k| (x - k as f64) / (j as f64 - k as f64)).product();
            let weight = T::from_f64(weight);
            for ((p, &q), &r) in point.iter_mut().zip(&from[j * d..(j + 1) * d]).zip(near) {
                *p += (q - r) * weight;
            }
        }
    }
}
