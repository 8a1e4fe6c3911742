//! Weights in the order in which the lanes of a warp read them: slices of 64 bytes a column along k, for `kernels/chain.cuh`.
//!
//! A slice holds 16 numbers of every column, or 32 in bfloat16. In both builds lane 4g + t takes the numbers k = 4t … 4t + 3 of the
//! slice's (half of) 16: so do its rows, and the order of a sum is free.

/// Columns of a matrix are filled up to a multiple of this with zeros.
pub(crate) const COLUMNS: usize = 64;
/// Numbers of 32 bits that a column takes in a slice.
pub(crate) const SLICE: usize = 16;

/// What a slice holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// float32; products split it.
    Whole,
    /// Two slices for 16 numbers: rounded to TF32, and what rounding left.
    Split,
    /// Rounded to TF32.
    Tf32,
    /// Rounded to bfloat16.
    Bf16,
}

/// Which instruction reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Build {
    /// mma.sync: the 16 bytes of lane 0, 1, … of every 8 columns.
    Warp,
    /// wgmma: core matrices of 8 columns × 16 bytes, by half and step along k.
    Warpgroup,
}

/// Numbers along k of a slice.
fn depth(kind: Kind) -> usize {
    if kind == Kind::Bf16 { 2 * SLICE } else { SLICE }
}

/// Slices of a matrix with so many numbers along k.
pub(crate) fn count(kind: Kind, inner: usize) -> usize {
    inner.div_ceil(depth(kind)) * if kind == Kind::Split { 2 } else { 1 }
}

/// x rounded to TF32: to nearest, ties away from zero (cvt.rna).
fn to_tf32(x: f32) -> f32 {
    if x.is_finite() { f32::from_bits(x.to_bits().wrapping_add(0x1000) & !0x1fff) } else { x }
}

/// The slices of a matrix [columns, inner], as words of 32 bits; `at(column, k)` is 0 outside of it.
pub(crate) fn slices(
    kind: Kind,
    build: Build,
    (columns, inner): (usize, usize),
    at: impl Fn(usize, usize) -> f32,
) -> Vec<u32> {
    let padded = columns.next_multiple_of(COLUMNS);
    let number = |column: usize, k: usize| if column < columns && k < inner { at(column, k) } else { 0.0 };
    let mut words = Vec::with_capacity(count(kind, inner) * padded * SLICE);
    for first in (0..inner).step_by(depth(kind)) {
        let mut slice = |word: &dyn Fn(usize, usize) -> u32| {
            // word(column, w): word w of the 16 of a column, in the order of k.
            match build {
                Build::Warp => {
                    for column in (0..padded).step_by(8) {
                        for lane in 0..32 {
                            words.extend((0..4).map(|e| word(column + lane / 4, of_lane(kind, lane % 4, e))));
                        }
                    }
                }
                Build::Warpgroup => {
                    for (step, half) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                        for column in 0..padded {
                            words.extend((0..4).map(|i| word(column, of_core(kind, step, half, i))));
                        }
                    }
                }
            }
        };
        match kind {
            Kind::Whole => slice(&|column, w| number(column, first + w).to_bits()),
            Kind::Tf32 => slice(&|column, w| to_tf32(number(column, first + w)).to_bits()),
            Kind::Split => {
                slice(&|column, w| to_tf32(number(column, first + w)).to_bits());
                slice(&|column, w| {
                    let x = number(column, first + w);
                    to_tf32(x - to_tf32(x)).to_bits()
                });
            }
            Kind::Bf16 => slice(&|column, w| {
                let half = |k: usize| u32::from(half::bf16::from_f32(number(column, first + k)).to_bits());
                half(2 * w) | half(2 * w + 1) << 16
            }),
        }
    }
    words
}

/// The word of a column that lane t of its four has at place e: of four numbers in a row, or two pairs of either half.
fn of_lane(kind: Kind, t: usize, e: usize) -> usize {
    if kind == Kind::Bf16 { e / 2 * 8 + 2 * t + e % 2 } else { 4 * t + e }
}

/// The word of a column at place i of a core matrix: what lane i of the four has at this step and half.
fn of_core(kind: Kind, step: usize, half: usize, i: usize) -> usize {
    if kind == Kind::Bf16 { 8 * step + 2 * i + half } else { 4 * i + 2 * step + half }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every number stands in exactly one place of its slice, whichever way it is read; what is added is zero.
    #[test]
    fn slices_hold_every_number_once() {
        let (columns, inner) = (70, 37);
        let at = |n: usize, k: usize| (1 + n * inner + k) as f32;
        let mut expected: Vec<u32> = (0..columns * inner).map(|i| (i as f32 + 1.0).to_bits()).collect();
        expected.sort_unstable();
        for build in [Build::Warp, Build::Warpgroup] {
            let words = slices(Kind::Whole, build, (columns, inner), at);
            assert_eq!(words.len(), count(Kind::Whole, inner) * 128 * SLICE);
            let mut found: Vec<u32> = words.into_iter().filter(|&w| w != 0).collect();
            found.sort_unstable();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn lanes_find_their_numbers() {
        let at = |n: usize, k: usize| (100 * n + k) as f32;
        let whole = slices(Kind::Whole, Build::Warp, (16, 32), at);
        // Slice 1, columns 8 to 15, lane 4·3 + 2: column 11, k = 16 + 8 ….
        let place = 64 * SLICE + 8 * SLICE + 14 * 4;
        let found: Vec<f32> = whole[place..place + 4].iter().map(|&w| f32::from_bits(w)).collect();
        assert_eq!(found, [1124.0, 1125.0, 1126.0, 1127.0]);

        // Small numbers are exact in bfloat16. Lane 4·3 + 2 has k = 8 … 11 and 24 … 27.
        let pairs = slices(Kind::Bf16, Build::Warp, (8, 32), |n, k| (8 * k + n) as f32);
        let values = |w: u32| [w << 16, w & 0xffff_0000].map(f32::from_bits);
        let found: Vec<f32> = pairs[14 * 4..14 * 4 + 4].iter().flat_map(|&w| values(w)).collect();
        assert_eq!(found, [8, 9, 10, 11, 24, 25, 26, 27].map(|k| (8 * k + 3) as f32));

        // Core matrix of step 1, half 0: column 3 has, for lanes 0 to 3, k = 2, 6, 10, 14.
        let cores = slices(Kind::Whole, Build::Warpgroup, (16, 16), at);
        let place = 2 * 64 * 4 + 3 * 4;
        let found: Vec<f32> = cores[place..place + 4].iter().map(|&w| f32::from_bits(w)).collect();
        assert_eq!(found, [302.0, 306.0, 310.0, 314.0]);
    }

    #[test]
    fn split_numbers_add_up() {
        let at = |n: usize, k: usize| 1.0 / (1 + n * 16 + k) as f32;
        let words = slices(Kind::Split, Build::Warpgroup, (8, 16), at);
        let (high, low) = words.split_at(64 * SLICE);
        let whole = slices(Kind::Whole, Build::Warpgroup, (8, 16), at);
        for ((&high, &low), &whole) in high.iter().zip(low).zip(&whole) {
            let (high, low, whole) = (f32::from_bits(high), f32::from_bits(low), f32::from_bits(whole));
            assert!((high + low - whole).abs() <= whole * 2f32.powi(-22), "{high} + {low} != {whole}");
            assert_eq!(high.to_bits() & 0x1fff, 0);
        }
    }
}
