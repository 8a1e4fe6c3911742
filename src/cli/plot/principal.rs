//! The plane in which curves of a larger latent space are drawn.

use faer::{Mat, Side};

use super::canvas::Point;

/// A projection onto two directions.
pub(super) struct Projection {
    mean: Vec<f64>,
    directions: [Vec<f64>; 2],
    /// Shares of the variance, in percent.
    pub shares: [f64; 2],
}

impl Projection {
    /// The two directions in which points (rows of `d` numbers) vary most; `None` where they cannot be found.
    pub fn new(points: &[f32], d: usize) -> Option<Self> {
        let count = (points.len() / d).max(1) as f64;
        let mut mean = vec![0.0; d];
        for point in points.chunks_exact(d) {
            mean.iter_mut().zip(point).for_each(|(m, &x)| *m += f64::from(x) / count);
        }
        let mut covariance = Mat::<f64>::zeros(d, d);
        for point in points.chunks_exact(d) {
            for i in 0..d {
                for j in 0..d {
                    covariance[(i, j)] += (f64::from(point[i]) - mean[i]) * (f64::from(point[j]) - mean[j]) / count;
                }
            }
        }
        let eigen = covariance.self_adjoint_eigen(Side::Lower).ok()?;
        let total: f64 = (0..d).map(|k| eigen.S()[k]).sum();
        // Eigenvalues come in ascending order.
        let column = |k: usize| -> Vec<f64> { (0..d).map(|i| eigen.U()[(i, k)]).collect() };
        let share = |k: usize| if total > 0.0 { 100.0 * eigen.S()[k] / total } else { 0.0 };
        let last = d.checked_sub(2)?;
        Some(Self { mean, directions: [column(last + 1), column(last)], shares: [share(last + 1), share(last)] })
    }

    /// Where a point lies on the plane.
    pub fn of(&self, point: &[f32]) -> Point {
        let along = |direction: &[f64]| -> f64 {
            point.iter().zip(&self.mean).zip(direction).map(|((&x, m), u)| (f64::from(x) - m) * u).sum()
        };
        (along(&self.directions[0]), along(&self.directions[1]))
    }
}
