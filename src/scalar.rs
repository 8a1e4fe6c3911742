//! The two floating-point types that the CPU path computes in.

use std::fmt::{Debug, Display};
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub, SubAssign};

/// `f32`, in which geodesics are solved by default, or `f64`, the reference for every other path.
///
/// The trait is sealed: its methods are what the vectorised loops in this crate need, no more.
pub trait Scalar:
    sealed::Sealed
    + bytemuck::Pod
    + faer::traits::RealField
    + Copy
    + Debug
    + Display
    + Default
    + PartialOrd
    + Send
    + Sync
    + Sum
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + 'static
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// Distance from 1 to the next larger number.
    const EPSILON: Self;
    /// Below this, e^x is not a normal number any more.
    #[doc(hidden)]
    const EXP_MIN: Self;
    /// Adding and subtracting this rounds to an integer.
    #[doc(hidden)]
    const ROUND: Self;
    /// ln 2 in two parts, the first short enough that small multiples of it are exact.
    #[doc(hidden)]
    const LN2: (Self, Self);
    /// π in three parts, likewise.
    #[doc(hidden)]
    const PI: (Self, Self, Self);
    /// Coefficients of (e^r − 1 − r)/r² on |r| ≤ ln 2 / 2, highest power first.
    #[doc(hidden)]
    const EXP: &'static [Self];
    /// Coefficients of atanh(s)/s in s² for s ≤ 1/3, highest power first.
    #[doc(hidden)]
    const ATANH: &'static [Self];
    /// Coefficients of sin(r)/r in r² on |r| ≤ π/2, highest power first.
    #[doc(hidden)]
    const SIN: &'static [Self];
    /// Coefficients of cos(r) in r² on |r| ≤ π/2, highest power first.
    #[doc(hidden)]
    const COS: &'static [Self];

    /// Coefficients of atan(t)/t in t² for t ≤ tan(π/8), highest power first.
    #[doc(hidden)]
    const ATAN: &'static [Self];
    /// Above this, e^x may be too large for a number.
    #[doc(hidden)]
    const EXP_MAX: Self;

    /// The nearest number of this type.
    fn from_f64(x: f64) -> Self;
    /// The same number in `f64`.
    fn to_f64(self) -> f64;
    /// self · a + b, rounded once where the processor can.
    fn fma(self, a: Self, b: Self) -> Self;
    /// Absolute value.
    fn magnitude(self) -> Self;
    /// The magnitude of `self` with the sign of `sign`.
    fn with_sign(self, sign: Self) -> Self;
    /// Square root.
    fn root(self) -> Self;
    /// True unless NaN or infinite.
    fn finite(self) -> bool;
    /// x · 2^n for n read from the low bits of a number rounded by adding [`Scalar::ROUND`].
    #[doc(hidden)]
    fn scale_by_rounded(self, rounded: Self) -> Self;
    /// −x if the integer in the low bits of a rounded number is odd, else x.
    #[doc(hidden)]
    fn negate_if_odd(self, rounded: Self) -> Self;
    /// A vector register's worth of numbers.
    #[doc(hidden)]
    type Lanes<S: pulp::Simd>: Copy;
    /// A row as whole registers and a rest.
    #[doc(hidden)]
    fn lanes<S: pulp::Simd>(simd: S, row: &[Self]) -> (&[Self::Lanes<S>], &[Self]);
    /// A rest shorter than a register, filled up with zeros.
    #[doc(hidden)]
    fn partial_lanes<S: pulp::Simd>(simd: S, rest: &[Self]) -> Self::Lanes<S>;
    #[doc(hidden)]
    fn zero_lanes<S: pulp::Simd>(simd: S) -> Self::Lanes<S>;
    /// a · b + c.
    #[doc(hidden)]
    fn fma_lanes<S: pulp::Simd>(simd: S, a: Self::Lanes<S>, b: Self::Lanes<S>, c: Self::Lanes<S>) -> Self::Lanes<S>;
    #[doc(hidden)]
    fn add_lanes<S: pulp::Simd>(simd: S, a: Self::Lanes<S>, b: Self::Lanes<S>) -> Self::Lanes<S>;
    #[doc(hidden)]
    fn sub_lanes<S: pulp::Simd>(simd: S, a: Self::Lanes<S>, b: Self::Lanes<S>) -> Self::Lanes<S>;
    #[doc(hidden)]
    fn sum_lanes<S: pulp::Simd>(simd: S, a: Self::Lanes<S>) -> Self;

    /// The cumulative distribution Φ(x) of the standard normal law.
    #[doc(hidden)]
    fn normal_cdf(self) -> Self;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// Horner's rule, highest power first.
#[inline(always)]
pub(crate) fn polynomial<T: Scalar>(x: T, coefficients: &[T]) -> T {
    let mut value = T::ZERO;
    for &c in coefficients {
        value = value.fma(x, c);
    }
    value
}

macro_rules! shared_methods {
    ($float:ty, $bits:ty, $mantissa:literal, $lanes:ident, $partial:ident, $splat:ident, $fma:ident, $add:ident, $sub:ident, $sum:ident) => {
        const ZERO: Self = 0.0;
        const ONE: Self = 1.0;
        const EPSILON: Self = <$float>::EPSILON;

        #[inline(always)]
        fn from_f64(x: f64) -> Self {
            x as $float
        }
        #[inline(always)]
        fn to_f64(self) -> f64 {
            self as f64
        }
        #[inline(always)]
        fn fma(self, a: Self, b: Self) -> Self {
            self.mul_add(a, b)
        }
        #[inline(always)]
        fn magnitude(self) -> Self {
            self.abs()
        }
        #[inline(always)]
        fn with_sign(self, sign: Self) -> Self {
            self.copysign(sign)
        }
        #[inline(always)]
        fn root(self) -> Self {
            self.sqrt()
        }
        #[inline(always)]
        fn finite(self) -> bool {
            self.is_finite()
        }
        #[inline(always)]
        fn scale_by_rounded(self, rounded: Self) -> Self {
            let power = rounded.to_bits().wrapping_shl($mantissa);
            <$float>::from_bits(self.to_bits().wrapping_add(power))
        }
        #[inline(always)]
        fn negate_if_odd(self, rounded: Self) -> Self {
            let sign = rounded.to_bits() << (<$bits>::BITS - 1);
            <$float>::from_bits(self.to_bits() ^ sign)
        }

        type Lanes<S: pulp::Simd> = S::$lanes;

        #[inline(always)]
        fn lanes<S: pulp::Simd>(_: S, row: &[Self]) -> (&[S::$lanes], &[Self]) {
            let per_register = size_of::<S::$lanes>() / size_of::<$float>();
            let (whole, rest) = row.split_at(row.len() - row.len() % per_register);
            (bytemuck::cast_slice(whole), rest)
        }
        #[inline(always)]
        fn partial_lanes<S: pulp::Simd>(simd: S, rest: &[Self]) -> S::$lanes {
            simd.$partial(rest)
        }
        #[inline(always)]
        fn zero_lanes<S: pulp::Simd>(simd: S) -> S::$lanes {
            simd.$splat(0.0)
        }
        #[inline(always)]
        fn fma_lanes<S: pulp::Simd>(simd: S, a: S::$lanes, b: S::$lanes, c: S::$lanes) -> S::$lanes {
            simd.$fma(a, b, c)
        }
        #[inline(always)]
        fn add_lanes<S: pulp::Simd>(simd: S, a: S::$lanes, b: S::$lanes) -> S::$lanes {
            simd.$add(a, b)
        }
        #[inline(always)]
        fn sub_lanes<S: pulp::Simd>(simd: S, a: S::$lanes, b: S::$lanes) -> S::$lanes {
            simd.$sub(a, b)
        }
        #[inline(always)]
        fn sum_lanes<S: pulp::Simd>(simd: S, a: S::$lanes) -> Self {
            simd.$sum(a)
        }
    };
}

impl Scalar for f32 {
    shared_methods!(
        f32,
        u32,
        23,
        f32s,
        partial_load_f32s,
        splat_f32s,
        mul_add_f32s,
        add_f32s,
        sub_f32s,
        reduce_sum_f32s
    );

    const EXP_MIN: f32 = -87.0;
    const EXP_MAX: f32 = 88.0;
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³
    const LN2: (f32, f32) = (0.693_359_4, -2.121_944_4e-4);
    const PI: (f32, f32, f32) = (3.140_625, 9.675_026e-4, 1.509_958e-7);
    // Cephes, expf.
    const EXP: &'static [f32] = &[1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    const ATANH: &'static [f32] =
        &[1.0 / 15.0, 1.0 / 13.0, 1.0 / 11.0, 1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0, 1.0];
    const SIN: &'static [f32] =
        &[1.0 / 6_227_020_800.0, -1.0 / 39_916_800.0, 1.0 / 362_880.0, -1.0 / 5_040.0, 1.0 / 120.0, -1.0 / 6.0, 1.0];
    const COS: &'static [f32] =
        &[1.0 / 479_001_600.0, -1.0 / 3_628_800.0, 1.0 / 40_320.0, -1.0 / 720.0, 1.0 / 24.0, -0.5, 1.0];

    // Chebyshev's, error 6e-10.
    const ATAN: &'static [f32] =
        &[-6.026_305e-2, 1.056_982_9e-1, -1.423_953_3e-1, 1.999_818_3e-1, -3.333_330_7e-1, 1.0];

    /// W. Press et al., Numerical Recipes, `erfcc`: relative error of erfc below 1.2e-7.
    #[inline(always)]
    fn normal_cdf(self) -> f32 {
        const C: [f32; 10] = [
            0.170_872_77,
            -0.822_152_2,
            1.488_515_9,
            -1.135_204,
            0.278_868_07,
            -0.186_288_06,
            0.096_784_18,
            0.374_091_96,
            1.000_023_7,
            -1.265_512_2,
        ];
        let z = self.abs() * std::f32::consts::FRAC_1_SQRT_2;
        let t = 1.0 / 0.5f32.mul_add(z, 1.0);
        let tail = 0.5 * t * crate::cpu::activation::exp(polynomial(t, &C)) * crate::cpu::activation::exp(-z * z);
        if self < 0.0 { tail } else { 1.0 - tail }
    }
}

impl Scalar for f64 {
    shared_methods!(
        f64,
        u64,
        52,
        f64s,
        partial_load_f64s,
        splat_f64s,
        mul_add_f64s,
        add_f64s,
        sub_f64s,
        reduce_sum_f64s
    );

    const EXP_MIN: f64 = -708.0;
    const EXP_MAX: f64 = 709.0;
    const ROUND: f64 = 6_755_399_441_055_744.0; // 1.5 · 2⁵²
    const LN2: (f64, f64) = (6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10);
    const PI: (f64, f64, f64) = (3.141_592_651_605_606, 1.984_187_147_918_703_4e-9, 1.144_237_745_221_966_4e-17);
    const EXP: &'static [f64] = &[
        1.0 / 87_178_291_200.0,
        1.0 / 6_227_020_800.0,
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
    ];
    const ATANH: &'static [f64] = &[
        1.0 / 35.0,
        1.0 / 33.0,
        1.0 / 31.0,
        1.0 / 29.0,
        1.0 / 27.0,
        1.0 / 25.0,
        1.0 / 23.0,
        1.0 / 21.0,
        1.0 / 19.0,
        1.0 / 17.0,
        1.0 / 15.0,
        1.0 / 13.0,
        1.0 / 11.0,
        1.0 / 9.0,
        1.0 / 7.0,
        1.0 / 5.0,
        1.0 / 3.0,
        1.0,
    ];
    const SIN: &'static [f64] = &[
        1.0 / 51_090_942_171_709_440_000.0,
        -1.0 / 121_645_100_408_832_000.0,
        1.0 / 355_687_428_096_000.0,
        -1.0 / 1_307_674_368_000.0,
        1.0 / 6_227_020_800.0,
        -1.0 / 39_916_800.0,
        1.0 / 362_880.0,
        -1.0 / 5_040.0,
        1.0 / 120.0,
        -1.0 / 6.0,
        1.0,
    ];
    const COS: &'static [f64] = &[
        -1.0 / 1_124_000_727_777_607_680_000.0,
        1.0 / 2_432_902_008_176_640_000.0,
        -1.0 / 6_402_373_705_728_000.0,
        1.0 / 20_922_789_888_000.0,
        -1.0 / 87_178_291_200.0,
        1.0 / 479_001_600.0,
        -1.0 / 3_628_800.0,
        1.0 / 40_320.0,
        -1.0 / 720.0,
        1.0 / 24.0,
        -0.5,
        1.0,
    ];

    // Chebyshev's, error 5e-20.
    const ATAN: &'static [f64] = &[
        0.015_113_765_096_600_925,
        -0.033_387_824_501_211_95,
        0.044_995_007_289_840_32,
        -0.052_173_125_740_615_91,
        0.058_768_340_046_141_61,
        -0.066_662_052_599_765_26,
        0.076_922_810_999_377_44,
        -0.090_909_080_590_311_91,
        0.111_111_110_853_221_09,
        -0.142_857_142_853_297_1,
        0.199_999_999_999_970_15,
        -0.333_333_333_333_333_26,
        1.0,
    ];

    #[inline(always)]
    fn normal_cdf(self) -> f64 {
        0.5 * libm::erfc(-self * std::f64::consts::FRAC_1_SQRT_2)
    }
}
