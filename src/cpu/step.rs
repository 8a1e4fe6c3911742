//! The step of a curve: a block-tridiagonal solve.

use super::simd::vectorised;
use crate::scalar::Scalar;

/// Off-diagonal of Λ, damping in the H¹ norm of the curve; a little less than ½ keeps a uniform shift from being free.
pub(crate) const COUPLING: f64 = 0.5 * (1.0 - 1e-3);

/// One damped system (H + λs Λ⊗I) δ = −g in blocks of d × d, for n points.
#[derive(Clone, Copy)]
pub(crate) struct System<'a, T> {
    /// G_i, `[n, d, d]`.
    pub gram: &'a [T],
    /// S_i, `[n, d, d]`, or nothing for the Gauss–Newton matrix.
    pub curvature: Option<&'a [T]>,
    /// J_i J_{i+1}ᵀ, `[n, d, d]`; the last is not used.
    pub off: &'a [T],
    /// J_i r_i, `[n, d]`.
    pub gradient: &'a [T],
    /// λs.
    pub damping: T,
}

/// Room for one solve.
pub(crate) struct Solver<T> {
    d: usize,
    pivot: Vec<T>,
    /// D_i⁻¹ B_i, `[n, d, d]`.
    blocks: Vec<T>,
    /// D_i⁻¹ b_i, `[n, d]`.
    sides: Vec<T>,
}

impl<T: Scalar> Solver<T> {
    pub fn new(points: usize, d: usize) -> Self {
        let zeros = |n: usize| vec![T::ZERO; n];
        Self { d, pivot: zeros(d * d), blocks: zeros(points * d * d), sides: zeros(points * d) }
    }

    /// Solves block by block from the first point to the last, with pivoting inside the blocks, so that an indefinite H is
    /// allowed. Writes δ `[n, d]` and returns g · δ, which is NaN where a block was singular.
    pub fn solve(&mut self, system: System<'_, T>, delta: &mut [T]) -> f64 {
        vectorised(
            #[inline(always)]
            || match self.d {
                1 => self.sized::<1>(system, delta),
                2 => self.sized::<2>(system, delta),
                3 => self.sized::<3>(system, delta),
                4 => self.sized::<4>(system, delta),
                6 => self.sized::<6>(system, delta),
                8 => self.sized::<8>(system, delta),
                16 => self.sized::<16>(system, delta),
                _ => self.sized::<0>(system, delta),
            },
        )
    }

    /// The same with d known to the compiler; 0 stands for any other.
    #[inline(always)]
    fn sized<const D: usize>(&mut self, system: System<'_, T>, delta: &mut [T]) -> f64 {
        let d = if D > 0 { D } else { self.d };
        let square = d * d;
        let n = system.gradient.len() / d;
        let coupling = system.damping * T::from_f64(COUPLING);
        let two = T::from_f64(2.0);
        for i in 0..n {
            let block = i * square..(i + 1) * square;
            for (p, &g) in self.pivot.iter_mut().zip(&system.gram[block.clone()]) {
                *p = two * g;
            }
            if let Some(curvature) = system.curvature {
                for (p, &s) in self.pivot.iter_mut().zip(&curvature[block.clone()]) {
                    *p += s;
                }
            }
            let (before, right) = self.blocks[..block.end].split_at_mut(block.start);
            let (side_before, side) = self.sides[..(i + 1) * d].split_at_mut(i * d);
            for (k, (x, &off)) in right.iter_mut().zip(&system.off[block.clone()]).enumerate() {
                let last = i + 1 == n;
                *x = if last { T::ZERO } else { -off };
                if k % (d + 1) == 0 {
                    self.pivot[k] += system.damping;
                    *x -= if last { T::ZERO } else { coupling };
                }
            }
            for (x, &g) in side.iter_mut().zip(&system.gradient[i * d..(i + 1) * d]) {
                *x = -g;
            }
            if i > 0 {
                let off = &system.off[block.start - square..block.start];
                let (solved, rhs) = (&before[block.start - square..], &side_before[(i - 1) * d..]);
                eliminate(d, coupling, off, solved, rhs, &mut self.pivot, side);
            }
            solve_block(d, &mut self.pivot, right, side);
        }
        let mut slope = 0.0;
        for i in (0..n).rev() {
            let (delta, after) = delta.split_at_mut((i + 1) * d);
            for r in 0..d {
                let mut value = self.sides[i * d + r];
                if i + 1 < n {
                    let row = &self.blocks[i * square + r * d..i * square + (r + 1) * d];
                    for (&x, &y) in row.iter().zip(&after[..d]) {
                        value = (-x).fma(y, value);
                    }
                }
                delta[i * d + r] = value;
                slope += (system.gradient[i * d + r] * value).to_f64();
            }
        }
        slope
    }
}

/// Takes Bᵀ · (D⁻¹ [B | b]) of the block before off this one, where B = −off − coupling · I.
#[inline(always)]
fn eliminate<T: Scalar>(d: usize, coupling: T, off: &[T], solved: &[T], rhs: &[T], pivot: &mut [T], side: &mut [T]) {
    for k in 0..d {
        let row = &solved[k * d..(k + 1) * d];
        for r in 0..d {
            let b = if k == r { off[k * d + r] + coupling } else { off[k * d + r] };
            for (p, &s) in pivot[r * d..(r + 1) * d].iter_mut().zip(row) {
                *p = b.fma(s, *p);
            }
            side[r] = b.fma(rhs[k], side[r]);
        }
    }
}

/// Replaces `right` `[d, d]` and `side` `[d]` by pivot⁻¹ times them, by Gauss–Jordan elimination with row pivoting.
#[inline(always)]
fn solve_block<T: Scalar>(d: usize, pivot: &mut [T], right: &mut [T], side: &mut [T]) {
    let (pivot, right, side) = (&mut pivot[..d * d], &mut right[..d * d], &mut side[..d]);
    for k in 0..d {
        let mut best = k;
        for r in k + 1..d {
            if pivot[r * d + k].magnitude() > pivot[best * d + k].magnitude() {
                best = r;
            }
        }
        if best != k {
            for c in 0..d {
                pivot.swap(k * d + c, best * d + c);
                right.swap(k * d + c, best * d + c);
            }
            side.swap(k, best);
        }
        let inverse = T::ONE / pivot[k * d + k];
        for c in 0..d {
            pivot[k * d + c] *= inverse;
            right[k * d + c] *= inverse;
        }
        side[k] *= inverse;
        for r in 0..d {
            if r == k {
                continue;
            }
            let factor = -pivot[r * d + k];
            for c in 0..d {
                pivot[r * d + c] = factor.fma(pivot[k * d + c], pivot[r * d + c]);
                right[r * d + c] = factor.fma(right[k * d + c], right[r * d + c]);
            }
            side[r] = factor.fma(side[k], side[r]);
        }
    }
}
