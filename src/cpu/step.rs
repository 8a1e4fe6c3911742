//! The step of a curve: a block-tridiagonal solve.

use crate::scalar::Scalar;

/// Off-diagonal of Λ, damping in the H¹ norm of the curve; a little less than ½ keeps a uniform shift from being free.
pub(crate) const COUPLING: f64 = 0.5 * (1.0 - 1e-3);

/// Room for one solve with up to n blocks of d × d.
pub(crate) struct Solver<T> {
    pivot: Vec<T>,
    /// D_i⁻¹ B_i, `[n, d, d + 1]`: the last column is the right-hand side.
    eliminated: Vec<T>,
}

impl<T: Scalar> Solver<T> {
    pub fn new(blocks: usize, d: usize) -> Self {
        Self { pivot: vec![T::ZERO; d * d], eliminated: vec![T::ZERO; blocks * d * (d + 1)] }
    }

    /// Solves (H + λs Λ⊗I) δ = −g block by block from the first point to the last, with pivoting inside the d × d blocks, so that an
    /// indefinite H is allowed.
    ///
    /// `diagonal(i)` writes block (i, i) of H; `off` holds the blocks J_i J_{i+1}ᵀ `[n − 1, d, d]`, which enter H with a minus;
    /// `gradient` and `delta` are `[n, d]`. Returns g · δ, which is NaN where a pivot block was singular.
    pub fn solve(
        &mut self,
        d: usize,
        damping: T,
        mut diagonal: impl FnMut(usize, &mut [T]),
        off: &[T],
        gradient: &[T],
        delta: &mut [T],
    ) -> f64 {
        let n = gradient.len() / d;
        let (square, wide) = (d * d, d * (d + 1));
        let coupling = damping * T::from_f64(COUPLING);
        for i in 0..n {
            diagonal(i, &mut self.pivot);
            for k in 0..d {
                self.pivot[k * d + k] += damping;
            }
            let (before, rest) = self.eliminated.split_at_mut(i * wide);
            let block = &mut rest[..wide];
            // Right-hand sides: block (i, i + 1) of the matrix, then −g.
            for r in 0..d {
                let row = &mut block[r * (d + 1)..(r + 1) * (d + 1)];
                if i + 1 < n {
                    for (to, &from) in row.iter_mut().zip(&off[i * square + r * d..i * square + (r + 1) * d]) {
                        *to = -from;
                    }
                    row[r] -= coupling;
                } else {
                    row.fill(T::ZERO);
                }
                row[d] = -gradient[i * d + r];
            }
            if i > 0 {
                eliminate(
                    d,
                    coupling,
                    &off[(i - 1) * square..i * square],
                    &before[(i - 1) * wide..],
                    &mut self.pivot,
                    block,
                );
            }
            solve_block(d, &mut self.pivot, block);
        }
        let mut slope = 0.0;
        for i in (0..n).rev() {
            let block = &self.eliminated[i * wide..(i + 1) * wide];
            let (delta, after) = delta.split_at_mut((i + 1) * d);
            for r in 0..d {
                let row = &block[r * (d + 1)..(r + 1) * (d + 1)];
                let mut value = row[d];
                if i + 1 < n {
                    for (&x, &y) in row.iter().zip(&after[..d]) {
                        value -= x * y;
                    }
                }
                delta[i * d + r] = value;
                slope += (gradient[i * d + r] * value).to_f64();
            }
        }
        slope
    }
}

/// Takes Bᵀ · (D⁻¹ [B | b]) of the block before off this one, where B = −off − coupling · I.
#[inline(always)]
fn eliminate<T: Scalar>(d: usize, coupling: T, off: &[T], before: &[T], pivot: &mut [T], block: &mut [T]) {
    for k in 0..d {
        let (solved, rhs) = before[k * (d + 1)..(k + 1) * (d + 1)].split_at(d);
        for r in 0..d {
            let mut b = -off[k * d + r];
            if k == r {
                b -= coupling;
            }
            for (p, &s) in pivot[r * d..(r + 1) * d].iter_mut().zip(solved) {
                *p -= b * s;
            }
            block[r * (d + 1) + d] -= b * rhs[0];
        }
    }
}

/// Replaces `block` `[d, d + 1]` by pivot⁻¹ · block, by Gauss–Jordan elimination with row pivoting.
#[inline(always)]
fn solve_block<T: Scalar>(d: usize, pivot: &mut [T], block: &mut [T]) {
    let wide = d + 1;
    for k in 0..d {
        let mut best = k;
        for r in k + 1..d {
            if pivot[r * d + k].magnitude() > pivot[best * d + k].magnitude() {
                best = r;
            }
        }
        if best != k {
            for c in k..d {
                pivot.swap(k * d + c, best * d + c);
            }
            for c in 0..wide {
                block.swap(k * wide + c, best * wide + c);
            }
        }
        let inverse = T::ONE / pivot[k * d + k];
        for c in k + 1..d {
            pivot[k * d + c] *= inverse;
        }
        for x in &mut block[k * wide..(k + 1) * wide] {
            *x *= inverse;
        }
        for r in 0..d {
            if r == k {
                continue;
            }
            let factor = pivot[r * d + k];
            for c in k + 1..d {
                let x = pivot[k * d + c];
                pivot[r * d + c] -= factor * x;
            }
            for c in 0..wide {
                let x = block[k * wide + c];
                block[r * wide + c] -= factor * x;
            }
        }
    }
}
