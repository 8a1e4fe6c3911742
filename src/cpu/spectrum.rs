//! Eigenvalues and eigenvectors of metrics, by Jacobi's rotations, many metrics side by side.
//!
//! A rotation by the angle θ in the plane of two latents p and q takes the metric's entry (p, q) to 0:
//!
//! ```text
//! t = tan θ = 2 g_pq · sign(δ) / (|δ| + √(δ² + 4 g_pq²)),   δ = g_qq − g_pp        c = 1/√(1 + t²),  s = t c,  τ = s / (1 + c)
//! g_pp ← g_pp − t g_pq       g_qq ← g_qq + t g_pq            g_kp ← g_kp − s (g_kq + τ g_kp)   g_kq ← g_kq + s (g_kp − τ g_kq)
//! ```
//!
//! (H. Rutishauser, "The Jacobi method for real symmetric matrices", 1966.) Planes are taken in rounds of d/2 that have no latent in common,
//! as in a tournament, so that threads can share a round; all d(d − 1)/2 of them are a sweep, and sweeps go on until one turns nothing. An
//! entry is turned away where |g_pq| > ε √(g_pp g_qq): small eigenvalues of metrics with latents of very different scales stay accurate
//! (J. Demmel, K. Veselić, "Jacobi's method is more accurate than QR", 1992).
//!
//! L metrics stand side by side, one in each lane of the vectors. Their lanes do not mix, and a metric that is done is turned by 0: its
//! bits are its own.

use super::simd::vectorised;
use crate::scalar::Scalar;

/// Sweeps at most: six to nine are usual.
const SWEEPS: usize = 40;

/// Eigenvalues of `metrics` `[points, d, d]` into `values` `[points, d]`, largest first, and eigenvectors as rows in the same order into
/// `vectors` `[points, d, d]`, unless that is empty.
///
/// Negative values, which are rounding, become 0. A vector's largest number is positive. Where a metric is not finite all is NaN.
pub(crate) fn spectra<T: Scalar>(d: usize, metrics: &[T], values: &mut [T], vectors: &mut [T]) {
    // A register of 64 bytes.
    if size_of::<T>() == 4 {
        in_lanes::<T, 16>(d, metrics, values, vectors);
    } else {
        in_lanes::<T, 8>(d, metrics, values, vectors);
    }
}

/// How many of some values, largest first, exceed the largest times the threshold.
pub(crate) fn rank<'a, T: Scalar>(mut values: impl Iterator<Item = &'a T> + Clone, threshold: T) -> usize {
    let all = values.clone();
    values.next().map_or(0, |&largest| all.take_while(|&&x| x > threshold * largest).count())
}

/// Σ λ_k v_k v_kᵀ over the eigenvalues of `metrics` above the threshold times the largest, into `out` `[points, d, d]`, which is zero, and
/// how many those are into `ranks` `[points]`. Where they are all d, or the metric is not finite, it is the metric itself.
pub(crate) fn truncate<T: Scalar>(d: usize, metrics: &[T], threshold: T, out: &mut [T], ranks: &mut [T]) {
    let points = ranks.len();
    let (mut values, mut vectors) = (vec![T::ZERO; points * d], vec![T::ZERO; points * d * d]);
    spectra(d, metrics, &mut values, &mut vectors);
    for (p, (out, found)) in out.chunks_exact_mut(d * d).zip(ranks).enumerate() {
        let (block, values) = (p * d * d..(p + 1) * d * d, &values[p * d..(p + 1) * d]);
        let rank = rank(values.iter(), threshold);
        *found = T::from_f64(rank as f64);
        if rank == d || values.iter().any(|x| !x.finite()) {
            out.copy_from_slice(&metrics[block]);
        } else {
            add_parts(d, &values[..rank], &vectors[block], out);
        }
    }
}

/// Adds Σ λ_k v_k v_kᵀ to `out` `[d, d]`, symmetric to the bit.
fn add_parts<T: Scalar>(d: usize, values: &[T], vectors: &[T], out: &mut [T]) {
    for (&value, vector) in values.iter().zip(vectors.chunks_exact(d)) {
        for (row, &a) in out.chunks_exact_mut(d).zip(vector) {
            for (x, &b) in row.iter_mut().zip(vector) {
                *x = (a * b).fma(value, *x);
            }
        }
    }
}

fn in_lanes<T: Scalar, const L: usize>(d: usize, metrics: &[T], values: &mut [T], vectors: &mut [T]) {
    let size = d * d;
    let mut turned = vec![[T::ZERO; L]; d * stride(d)];
    let mut axes = if vectors.is_empty() { Vec::new() } else { vec![[T::ZERO; L]; size] };
    let mut order: Vec<usize> = (0..d).collect();
    for (batch, metrics) in metrics.chunks(L * size).enumerate() {
        let scales = pack(d, metrics, &mut turned);
        for (k, x) in axes.iter_mut().enumerate() {
            *x = [if k % (d + 1) == 0 { T::ONE } else { T::ZERO }; L];
        }
        rotate(d, &mut turned, &mut axes);
        for lane in 0..metrics.len() / size {
            let broken = scales[lane] * T::ZERO; // 0, or NaN
            let point = batch * L + lane;
            let diagonal = |k: usize| turned[k * stride(d) + k][lane];
            order.sort_unstable_by(|&a, &b| diagonal(b).to_f64().total_cmp(&diagonal(a).to_f64()).then(a.cmp(&b)));
            for (value, &k) in values[point * d..][..d].iter_mut().zip(&order) {
                let x = diagonal(k);
                *value = if x > T::ZERO { x } else { T::ZERO } * scales[lane];
            }
            if !axes.is_empty() {
                for (vector, &k) in vectors[point * size..][..size].chunks_exact_mut(d).zip(&order) {
                    vector.iter_mut().zip(&axes[k * d..]).for_each(|(to, from)| *to = from[lane]);
                    let largest =
                        vector.iter().fold(T::ZERO, |m, &x| if x.magnitude() > m.magnitude() { x } else { m });
                    let sign = T::ONE.with_sign(largest);
                    vector.iter_mut().for_each(|x| *x = (*x * sign) + broken);
                }
            }
        }
    }
}

/// Length of a row: odd, so that the cache holds columns as well as rows.
fn stride(d: usize) -> usize {
    d | 1
}

/// The upper triangles of up to L metrics side by side, each divided by a power of 2 near its largest entry, which comes
/// back: NaN where the metric is not finite.
fn pack<T: Scalar, const L: usize>(d: usize, metrics: &[T], packed: &mut [[T; L]]) -> [T; L] {
    let mut scales = [T::ONE; L];
    packed.fill([T::ZERO; L]);
    for (lane, metric) in metrics.chunks_exact(d * d).enumerate() {
        let largest = metric.iter().step_by(d + 1).fold(0.0, |m, x| x.to_f64().max(m));
        let power = if largest > 0.0 { largest.log2().round().clamp(-120.0, 120.0) } else { 0.0 };
        let inverse = T::from_f64((-power).exp2());
        let finite = metric.iter().all(|x| x.finite());
        scales[lane] = T::from_f64(if finite { power.exp2() } else { f64::NAN });
        for (i, row) in metric.chunks_exact(d).enumerate() {
            for (j, &x) in row.iter().enumerate().skip(i) {
                packed[i * stride(d) + j][lane] = x * inverse;
            }
        }
    }
    scales
}

/// Turns `a` (upper triangles) into diagonal matrices, and the rows of `axes` `[d, d]`, where there are any, into their eigenvectors.
fn rotate<T: Scalar, const L: usize>(d: usize, a: &mut [[T; L]], axes: &mut [[T; L]]) {
    // Players 0 … n − 1 of a tournament; with an odd number of latents one of them rests each round.
    let n = d.next_multiple_of(2);
    for _ in 0..SWEEPS {
        let mut turned = false;
        for round in 0..n - 1 {
            for table in 0..n / 2 {
                let seat = |k: usize| if k == 0 { 0 } else { 1 + (k - 1 + round) % (n - 1) };
                let (x, y) = (seat(table), seat(n - 1 - table));
                if x.max(y) < d {
                    turned |= turn(d, a, axes, x.min(y), x.max(y));
                }
            }
        }
        if !turned {
            return;
        }
    }
}

/// One rotation, in the plane of p < q; false where no lane needs it.
fn turn<T: Scalar, const L: usize>(d: usize, a: &mut [[T; L]], axes: &mut [[T; L]], p: usize, q: usize) -> bool {
    vectorised(
        #[inline(always)]
        || {
            let stride = stride(d);
            let (pp, pq, qq) = (a[p * stride + p], a[p * stride + q], a[q * stride + q]);
            // Entries whose square underflows are nothing beside a largest entry near 1.
            let floor = T::from_f64(T::EXP_MIN.to_f64().exp());
            let mut any = false;
            let mut needed = [false; L];
            for l in 0..L {
                let square = pq[l] * pq[l];
                needed[l] = square > T::EPSILON * T::EPSILON * (pp[l] * qq[l]).magnitude() && square > floor;
                any |= needed[l];
            }
            if !any {
                return false;
            }
            let (mut t, mut s, mut tau) = ([T::ZERO; L], [T::ZERO; L], [T::ZERO; L]);
            for l in 0..L {
                let delta = qq[l] - pp[l];
                let twice = pq[l] + pq[l];
                let rise = if delta < T::ZERO { -twice } else { twice };
                let slope = rise / (delta.magnitude() + delta.fma(delta, twice * twice).root());
                t[l] = if needed[l] { slope } else { T::ZERO };
                let c = T::ONE / t[l].fma(t[l], T::ONE).root();
                s[l] = t[l] * c;
                tau[l] = s[l] / (T::ONE + c);
            }
            for l in 0..L {
                a[p * stride + p][l] = (-t[l]).fma(pq[l], pp[l]);
                a[q * stride + q][l] = t[l].fma(pq[l], qq[l]);
                a[p * stride + q][l] = if needed[l] { T::ZERO } else { pq[l] };
            }
            for k in 0..p {
                mix(a, k * stride + p, k * stride + q, &s, &tau);
            }
            for k in p + 1..q {
                mix(a, p * stride + k, k * stride + q, &s, &tau);
            }
            for k in q + 1..d {
                mix(a, p * stride + k, q * stride + k, &s, &tau);
            }
            if !axes.is_empty() {
                for k in 0..d {
                    mix(axes, p * d + k, q * d + k, &s, &tau);
                }
            }
            true
        },
    )
}

/// x ← x − s (y + τ x) and y ← y + s (x − τ y), for the numbers at `x` and `y`.
#[inline(always)]
fn mix<T: Scalar, const L: usize>(numbers: &mut [[T; L]], x: usize, y: usize, s: &[T; L], tau: &[T; L]) {
    let (mut a, mut b) = (numbers[x], numbers[y]);
    for l in 0..L {
        let (from, to) = (tau[l].fma(a[l], b[l]), (-tau[l]).fma(b[l], a[l]));
        a[l] = (-s[l]).fma(from, a[l]);
        b[l] = s[l].fma(to, b[l]);
    }
    (numbers[x], numbers[y]) = (a, b);
}
