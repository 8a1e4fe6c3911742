//! Singular values and vectors of Jacobians.

use faer::diag::DiagMut;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::svd::{ComputeSvdVectors, svd, svd_scratch};
use faer::{MatMut, MatRef, Par};

use crate::scalar::Scalar;

/// J = Σ σ_k l_k r_kᵀ of `columns` `[points, d, D]` into `values` `[points, r]`, largest first, `left` `[points, r, D]` and `right`
/// `[points, r, d]`, with r = min(d, D). A right vector's largest number is positive. Where a Jacobian is not finite all is NaN.
pub(crate) fn decompose<T: Scalar>(
    (d, width): (usize, usize),
    columns: &[T],
    values: &mut [T],
    left: &mut [T],
    right: &mut [T],
) {
    let r = d.min(width);
    let thin = ComputeSvdVectors::Thin;
    let mut memory = MemBuffer::new(svd_scratch::<T>(d, width, thin, thin, Par::Seq, Default::default()));
    let points = columns.chunks_exact(d * width).zip(values.chunks_exact_mut(r));
    let vectors = left.chunks_exact_mut(r * width).zip(right.chunks_exact_mut(r * d));
    for ((columns, values), (left, right)) in points.zip(vectors) {
        let found = columns.iter().all(|x| x.finite()).then(|| {
            svd(
                MatRef::from_row_major_slice(columns, d, width),
                DiagMut::from_slice_mut(values),
                Some(MatMut::from_column_major_slice_mut(right, d, r)),
                Some(MatMut::from_column_major_slice_mut(left, width, r)),
                Par::Seq,
                MemStack::new(&mut memory),
                Default::default(),
            )
        });
        if !matches!(found, Some(Ok(()))) {
            [values, left, right].into_iter().for_each(|part| part.fill(T::from_f64(f64::NAN)));
            continue;
        }
        for (left, right) in left.chunks_exact_mut(width).zip(right.chunks_exact_mut(d)) {
            let largest = right.iter().fold(T::ZERO, |m, &x| if x.magnitude() > m.magnitude() { x } else { m });
            if largest < T::ZERO {
                left.iter_mut().chain(right).for_each(|x| *x = -*x);
            }
        }
    }
}
