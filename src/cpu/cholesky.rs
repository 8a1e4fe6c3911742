//! Cholesky's factor of a metric: its determinant, and systems with it.
//!
//! The metric is scaled to G = S C S with S = diag(‖J_i‖), so that C's diagonal is 1, and C = Uᵀ U is found row by row, next always the
//! latent whose column keeps most of its length outside the span of those before: that share is u_kk, and the last one tells how near to
//! singular the metric is, whatever the latents' scales. U's columns stand in the latents' order, its rows in that of the elimination.

use super::simd::vectorised;
use crate::scalar::Scalar;

/// What a factorisation found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rank {
    Full,
    /// Singular to working precision.
    Deficient,
    /// NaN or infinite.
    NotFinite,
}

/// The factor of one metric after another.
pub(crate) struct Cholesky<T> {
    d: usize,
    /// U, `[d, d]`.
    rows: Vec<T>,
    /// Which latent each row eliminates.
    order: Vec<usize>,
    /// √g_ii.
    scale: Vec<T>,
    /// 1 − Σ u_ki² over the rows so far; negative where i is done.
    left: Vec<T>,
}

impl<T: Scalar> Cholesky<T> {
    pub fn new(d: usize) -> Self {
        let zeros = |n: usize| vec![T::ZERO; n];
        Self { d, rows: zeros(d * d), order: vec![0; d], scale: zeros(d), left: zeros(d) }
    }

    /// Factors a metric given by rows, the first d numbers of each; ε is that of the type it was computed in.
    ///
    /// It counts as singular where rounding has left nothing of u_kk², which is then no more than 2dε, or of a column, which is then no
    /// longer than 4ε of the longest one.
    pub fn factor<'a, S: Scalar>(&mut self, metric: impl Iterator<Item = &'a [S]>, epsilon: f64) -> Rank {
        let d = self.d;
        let Self { rows, order, scale, left, .. } = self;
        for (to, from) in rows.chunks_exact_mut(d).zip(metric) {
            to.iter_mut().zip(from).for_each(|(to, from)| *to = T::from_f64(from.to_f64()));
        }
        if !rows.iter().all(|x| x.finite()) {
            return Rank::NotFinite;
        }
        let longest = rows.iter().step_by(d + 1).fold(T::ZERO, |m, &x| if x > m { x } else { m }).root();
        for (scale, &square) in scale.iter_mut().zip(rows.iter().step_by(d + 1)) {
            *scale = square.root();
            if *scale <= T::from_f64(4.0 * epsilon) * longest {
                return Rank::Deficient;
            }
        }
        left.fill(T::ONE);
        let tolerance = T::from_f64(2.0 * d as f64 * epsilon);
        vectorised(
            #[inline(always)]
            || {
                for (row, &s) in rows.chunks_exact_mut(d).zip(&*scale) {
                    row.iter_mut().zip(&*scale).for_each(|(x, &t)| *x = *x / s / t);
                }
                order.iter_mut().enumerate().for_each(|(k, latent)| *latent = k);
                for k in 0..d {
                    let next = (k..d).fold(k, |best, i| if left[order[i]] > left[order[best]] { i } else { best });
                    order.swap(k, next);
                    // Rows of C that are still wanted keep to their places behind those of U.
                    if next != k {
                        let (done, rest) = rows.split_at_mut(next * d);
                        done[k * d..(k + 1) * d].swap_with_slice(&mut rest[..d]);
                    }
                    let (done, row) = rows.split_at_mut(k * d);
                    let (row, latent) = (&mut row[..d], order[k]);
                    for done in done.chunks_exact(d) {
                        let share = -done[latent];
                        row.iter_mut().zip(done).for_each(|(x, &u)| *x = share.fma(u, *x));
                    }
                    let pivot = row[latent];
                    if pivot <= tolerance {
                        return Rank::Deficient;
                    }
                    let inverse = T::ONE / pivot.root();
                    row.iter_mut().for_each(|x| *x *= inverse);
                    order[..k].iter().for_each(|&i| row[i] = T::ZERO);
                    row[latent] = pivot.root();
                    left.iter_mut().zip(&*row).for_each(|(x, &u)| *x = (-u).fma(u, *x));
                }
                Rank::Full
            },
        )
    }

    /// log det G = 2 Σ log u_kk + 2 Σ log s_i, added up in `f64`.
    pub fn log_det(&self) -> f64 {
        let pivots = self.rows.chunks_exact(self.d).zip(&self.order).map(|(row, &latent)| row[latent]);
        2.0 * pivots.chain(self.scale.iter().copied()).map(|x| x.to_f64().ln()).sum::<f64>()
    }

    /// U⁻ᵀ S⁻¹ b: for b and c so whitened, b · c is what bᵀ G⁻¹ c was.
    pub fn whiten(&self, b: &[T], out: &mut [T]) {
        let mut rest: Vec<T> = b.iter().zip(&self.scale).map(|(&b, &s)| b / s).collect();
        for ((row, &latent), out) in self.rows.chunks_exact(self.d).zip(&self.order).zip(out) {
            *out = rest[latent] / row[latent];
            rest.iter_mut().zip(row).for_each(|(x, &u)| *x = (-u).fma(*out, *x));
        }
    }

    /// S⁻¹ U⁻¹ b: behind [`Cholesky::whiten`], G⁻¹ b.
    pub fn unwhiten(&self, b: &[T], out: &mut [T]) {
        out.fill(T::ZERO);
        for ((row, &latent), &b) in self.rows.chunks_exact(self.d).zip(&self.order).zip(b).rev() {
            let sum: T = row.iter().zip(&*out).map(|(&u, &x)| u * x).sum();
            out[latent] = (b - sum) / row[latent];
        }
        out.iter_mut().zip(&self.scale).for_each(|(x, &s)| *x /= s);
    }
}

/// log det G of metrics `[points, d, d]`: −∞ where one is singular, NaN where it is not finite.
pub(crate) fn log_dets<T: Scalar>(d: usize, metrics: &[T], mut found: impl FnMut(usize, f64)) {
    let mut factor = Cholesky::<T>::new(d);
    for (point, metric) in metrics.chunks_exact(d * d).enumerate() {
        let log_det = match factor.factor(metric.chunks_exact(d), T::EPSILON.to_f64()) {
            Rank::Full => factor.log_det(),
            Rank::Deficient => f64::NEG_INFINITY,
            Rank::NotFinite => f64::NAN,
        };
        found(point, log_det);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A product of random numbers, `[d, d]`, and its latents' scales.
    fn metric(d: usize) -> Vec<f64> {
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as f64 / f64::from(1u32 << 31) - 0.5
        };
        let rows: Vec<Vec<f64>> =
            (0..d).map(|k| (0..2 * d).map(|_| random() * 10f64.powi(k as i32 % 5)).collect()).collect();
        let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        rows.iter().flat_map(|a| rows.iter().map(|b| product(a, b)).collect::<Vec<f64>>()).collect()
    }

    #[test]
    fn systems_are_solved() {
        for d in 1..20 {
            let metric = metric(d);
            let mut factor = Cholesky::new(d);
            assert_eq!(factor.factor(metric.chunks_exact(d), f64::EPSILON), Rank::Full);
            let expected: Vec<f64> = (0..d).map(|k| (k as f64 + 1.0) / 10f64.powi(k as i32 % 5)).collect();
            let b: Vec<f64> =
                metric.chunks_exact(d).map(|row| row.iter().zip(&expected).map(|(g, x)| g * x).sum()).collect();
            let (mut white, mut found) = (vec![0.0; d], vec![0.0; d]);
            factor.whiten(&b, &mut white);
            factor.unwhiten(&white, &mut found);
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-8 * expected, "d = {d}: {found} instead of {expected}");
            }
            let (square, energy): (f64, f64) =
                (white.iter().map(|x| x * x).sum(), b.iter().zip(&expected).map(|(b, x)| b * x).sum());
            assert!((square - energy).abs() < 1e-10 * energy, "d = {d}: {square} instead of {energy}");
        }
    }
}
