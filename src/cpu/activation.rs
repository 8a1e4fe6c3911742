//! Activations with their first and second derivatives, over whole arrays.
//!
//! The scalar formulas have no branches, so that the compiler turns the loops into vector code; `pulp` picks the widest
//! vectors of the processor at run time. Errors are a few units in the last place of the largest intermediate value;
//! the tests below hold them against the standard library.

use super::simd::vectorised;
use crate::decoder::Activation;
use crate::scalar::{Scalar, polynomial};

/// How many derivatives of φ a pass needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Order {
    Value,
    First,
    Second,
}

/// Adds `bias` to every row of `pre` (`[rows, width]`), replaces it by φ and writes φ' and φ'' as far as `order` asks.
///
/// `first` and `second` have the length of `pre`, or are empty where `order` does not ask for them.
pub(crate) fn activate<T: Scalar>(
    activation: Activation,
    order: Order,
    bias: &[T],
    pre: &mut [T],
    first: &mut [T],
    second: &mut [T],
) {
    vectorised(
        #[inline(always)]
        || match activation {
            Activation::Identity => rows::<T, Identity>(order, bias, pre, first, second),
            Activation::Relu => rows::<T, Relu>(order, bias, pre, first, second),
            Activation::LeakyRelu => rows::<T, LeakyRelu>(order, bias, pre, first, second),
            Activation::Elu => rows::<T, Elu>(order, bias, pre, first, second),
            Activation::Selu => rows::<T, Selu>(order, bias, pre, first, second),
            Activation::Tanh => rows::<T, Tanh>(order, bias, pre, first, second),
            Activation::Sigmoid => rows::<T, Sigmoid>(order, bias, pre, first, second),
            Activation::Softplus => rows::<T, Softplus>(order, bias, pre, first, second),
            Activation::Silu => rows::<T, Silu>(order, bias, pre, first, second),
            Activation::Gelu => rows::<T, Gelu>(order, bias, pre, first, second),
            Activation::GeluTanh => rows::<T, GeluTanh>(order, bias, pre, first, second),
            Activation::Sin => rows::<T, Sin>(order, bias, pre, first, second),
            Activation::Square => rows::<T, Square>(order, bias, pre, first, second),
            Activation::Exp => rows::<T, Exp>(order, bias, pre, first, second),
            Activation::Rsqrt => rows::<T, Rsqrt>(order, bias, pre, first, second),
            Activation::SigmoidAngle => rows::<T, SigmoidAngle>(order, bias, pre, first, second),
            Activation::Softmax | Activation::SoftmaxAngle => softmax(activation, order, bias, pre, first),
        },
    );
}

#[inline(always)]
fn rows<T: Scalar, A: Jet>(order: Order, bias: &[T], pre: &mut [T], first: &mut [T], second: &mut [T]) {
    let width = bias.len();
    match order {
        Order::Value => {
            for pre in pre.chunks_exact_mut(width) {
                for (x, &b) in pre.iter_mut().zip(bias) {
                    [*x, _, _] = A::jet(*x + b);
                }
            }
        }
        Order::First => {
            for (pre, first) in pre.chunks_exact_mut(width).zip(first.chunks_exact_mut(width)) {
                for ((x, &b), d1) in pre.iter_mut().zip(bias).zip(first) {
                    [*x, *d1, _] = A::jet(*x + b);
                }
            }
        }
        Order::Second => {
            let rows =
                pre.chunks_exact_mut(width).zip(first.chunks_exact_mut(width)).zip(second.chunks_exact_mut(width));
            for ((pre, first), second) in rows {
                for (((x, &b), d1), d2) in pre.iter_mut().zip(bias).zip(first).zip(second) {
                    [*x, *d1, *d2] = A::jet(*x + b);
                }
            }
        }
    }
}

/// `[φ(x), φ'(x), φ''(x)]`.
trait Jet {
    fn jet<T: Scalar>(x: T) -> [T; 3];
}

#[inline(always)]
fn select<T: Scalar>(condition: bool, yes: T, no: T) -> T {
    if condition { yes } else { no }
}

#[inline(always)]
fn c<T: Scalar>(x: f64) -> T {
    T::from_f64(x)
}

/// x = n ln 2 + r with |r| ≤ ln 2 / 2: (n in the low bits of a rounded number, r).
#[inline(always)]
fn reduce_exponent<T: Scalar>(x: T) -> (T, T) {
    let x = select(x < T::EXP_MIN, T::EXP_MIN, x);
    let rounded = x.fma(c::<T>(std::f64::consts::LOG2_E), T::ROUND);
    let n = rounded - T::ROUND;
    let r = (-n).fma(T::LN2.0, x);
    (rounded, (-n).fma(T::LN2.1, r))
}

/// e^x for x ≤ 0 (and a little beyond); at most the smallest normal number where e^x is below it.
#[inline(always)]
pub(crate) fn exp<T: Scalar>(x: T) -> T {
    let (rounded, r) = reduce_exponent(x);
    let tail = polynomial(r, T::EXP).fma(r * r, r);
    (T::ONE + tail).scale_by_rounded(rounded)
}

/// e^x − 1 for x ≤ 0, accurate near 0.
#[inline(always)]
fn exp_m1<T: Scalar>(x: T) -> T {
    let (rounded, r) = reduce_exponent(x);
    let tail = polynomial(r, T::EXP).fma(r * r, r);
    let power = T::ONE.scale_by_rounded(rounded);
    power.fma(tail, power - T::ONE)
}

/// log(1 + e) for 0 ≤ e ≤ 1, as 2 atanh(e / (2 + e)).
#[inline(always)]
fn log_1p<T: Scalar>(e: T) -> T {
    let s = e / (e + c::<T>(2.0));
    c::<T>(2.0) * s * polynomial(s * s, T::ATANH)
}

/// (tanh x, 1 − tanh² x), from t = e^(−2|x|) − 1.
#[inline(always)]
fn tanh<T: Scalar>(x: T) -> (T, T) {
    let t = exp_m1(c::<T>(-2.0) * x.magnitude());
    let q = T::ONE / (t + c::<T>(2.0));
    ((-t * q).with_sign(x), (t + T::ONE) * (c::<T>(4.0) * q * q))
}

/// (σ(x), σ(−x)), each accurate where it is small.
#[inline(always)]
fn logistic<T: Scalar>(x: T) -> (T, T) {
    let e = exp(-x.magnitude());
    let large = T::ONE / (T::ONE + e);
    let small = e * large;
    (select(x < T::ZERO, small, large), select(x < T::ZERO, large, small))
}

struct Identity;
impl Jet for Identity {
    #[inline(always)]
    fn jet<T: Scalar>(x: T) -> [T; 3] {
        [x, T::ONE, T::ZERO]
    }
}

/// A line of slope 1 for x > 0 and of the given slope otherwise; NaN stays NaN.
#[inline(always)]
fn kinked<T: Scalar>(x: T, slope: T) -> [T; 3] {
    let d1 = select(x > T::ZERO, T::ONE, slope);
    [x * d1, d1, T::ZERO]
}

struct Relu;
impl Jet for Relu {
    #[inline(always)]
    fn jet<T: Scalar>(x: T) -> [T; 3] {
        kinked(x, T::ZERO)
    }
}

struct LeakyRelu;
impl Jet for LeakyRelu {
    #[inline(always)]
    fn jet<T: Scalar>(x: T) -> [T; 3] {
        kinked(x, c::<T>(0.01))
    }
}

struct Elu;
impl Jet for Elu {
    #[inline(always)]
    fn jet<T: Scalar>(x: T) -> [T; 3] {
        let below = exp_m1(select(x > T::ZERO, T::ZERO, x));
        let positive = x > T::ZERO;
        let slope = below + T::ONE;
        [select(positive, x, below), select(positive, T::ONE, slope), select(positive, T::ZERO, slope)]
    }
}

struct Selu;
impl Jet for Selu {
    #[inline(always)]
    fn jet<T: Scalar>(x: T) -> [T; 3] {
        const SCALE: f64 = 1.050_700_987_355_480_5;
        const ALPHA: f64 = 1.673_263_242_354_377_2;
        let [a, d1, d2] = Elu::jet(x);
        let factor = select(x > T::ZERO, c::<T>(SCALE), c::<T>(SCALE * ALPHA));
        [factor * a, factor * d1, factor * d2]
    }
}

struct Tanh;
impl Jet for Tanh {
    #[inline(always)]
    fn jet<T: Scalar>(x: T) -> [T; 3] {
        let (a, d1) = tanh(x);
        [a, d1, c::<T>(-2.0) * a * d1]
    }
}

struct Sigmoid;
impl Jet for Sigmoid {
    #[inline(always)]
    fn jet<T: Scalar>(x: T) -> [T; 3] {
        let (s, r) = logistic(x);
        [s, s * r, s * r * (r - s)]
    }
}

struct Softplus;
impl Jet for Softplus {
    #[inline(always)]
    fn jet<T: Scalar>(x: T) -> [T; 3] {
        let e = exp(-x.magnitude());
        let large = T::ONE / (T::ONE + e);
        let small = e * large;
        let above = select(x < T::ZERO, T::ZERO, x);
        [above + log_1p(e), select(x < T::ZERO, small, large), small * large]
    }
}

struct Silu;
impl Jet for Silu {
    #[inline(always)]
    fn jet<T: Scalar>(x: T) -> [T; 3] {
        let (s, r) = logistic(x);
        let d2 = s * r * x.fma(r - s, c::<T>(2.0));
        [x * s, s * x.fma(r, T::ONE), d2]
    }
}

struct Gelu;
impl Jet for Gelu {
    #[inline(always)]
    fn jet<T: Scalar>(x: T) -> [T; 3] {
        const INV_SQRT_TAU: f64 = 0.398_942_280_401_432_7;
        let cdf = x.normal_cdf();
        let density = exp(c::<T>(-0.5) * x * x) * c::<T>(INV_SQRT_TAU);
        [x * cdf, x.fma(density, cdf), density * (-x).fma(x, c::<T>(2.0))]
    }
}

struct GeluTanh;
impl Jet for GeluTanh {
    #[inline(always)]
    fn jet<T: Scalar>(x: T) -> [T; 3] {
        const SLOPE: f64 = 0.797_884_560_802_865_4; // √(2/π)
        const CUBIC: f64 = 0.044_715;
        let half = c::<T>(0.5);
        let square = x * x;
        let u = x * square.fma(c::<T>(SLOPE * CUBIC), c::<T>(SLOPE));
        let u1 = square.fma(c::<T>(3.0 * SLOPE * CUBIC), c::<T>(SLOPE));
        let u2 = x * c::<T>(6.0 * SLOPE * CUBIC);
        // ½(1 + tanh u) = σ(2u), which stays accurate where it is small.
        let (gate, rest) = logistic(u + u);
        let s = c::<T>(4.0) * gate * rest;
        let t = gate - rest;
        [x * gate, (half * x * s).fma(u1, gate), s * (half * x).fma(u2 - c::<T>(2.0) * t * u1 * u1, u1)]
    }
}

struct Sin;
impl Jet for Sin {
    #[inline(always)]
    fn jet<T: Scalar>(x: T) -> [T; 3] {
        let rounded = x.fma(c::<T>(std::f64::consts::FRAC_1_PI), T::ROUND);
        let n = rounded - T::ROUND;
        let r = (-n).fma(T::PI.2, (-n).fma(T::PI.1, (-n).fma(T::PI.0, x)));
        let square = r * r;
        let sin = (r * polynomial(square, T::SIN)).negate_if_odd(rounded);
        let cos = polynomial(square, T::COS).negate_if_odd(rounded);
        [sin, cos, -sin]
    }
}

struct Square;
impl Jet for Square {
    #[inline(always)]
    fn jet<T: Scalar>(x: T) -> [T; 3] {
        [x * x, x + x, c::<T>(2.0)]
    }
}

struct Exp;
impl Jet for Exp {
    #[inline(always)]
    fn jet<T: Scalar>(x: T) -> [T; 3] {
        let within = exp(select(x > T::EXP_MAX, T::EXP_MAX, x));
        let a = select(x > T::EXP_MAX, c::<T>(f64::INFINITY), within);
        [a, a, a]
    }
}

struct Rsqrt;
impl Jet for Rsqrt {
    #[inline(always)]
    fn jet<T: Scalar>(x: T) -> [T; 3] {
        let inverse = T::ONE / x;
        let a = T::ONE / x.root();
        let d1 = c::<T>(-0.5) * a * inverse;
        [a, d1, c::<T>(-1.5) * d1 * inverse]
    }
}

/// atan e for 0 ≤ e ≤ 1.
#[inline(always)]
fn atan<T: Scalar>(e: T) -> T {
    let large = e > c::<T>(std::f64::consts::SQRT_2 - 1.0);
    let t = select(large, (e - T::ONE) / (e + T::ONE), e);
    let angle = t * polynomial(t * t, T::ATAN);
    select(large, c::<T>(std::f64::consts::FRAC_PI_4) + angle, angle)
}

/// 2 arcsin √σ(x) = 2 atan e^(x/2), φ' = √(p (1 − p)).
struct SigmoidAngle;
impl Jet for SigmoidAngle {
    #[inline(always)]
    fn jet<T: Scalar>(x: T) -> [T; 3] {
        let e = exp(c::<T>(-0.5) * x.magnitude());
        let q = T::ONE / e.fma(e, T::ONE);
        let (small, d1) = (c::<T>(2.0) * atan(e), e * q);
        let tanh = ((T::ONE - e * e) * q).with_sign(x);
        [select(x < T::ZERO, small, c::<T>(std::f64::consts::PI) - small), d1, c::<T>(-0.5) * tanh * d1]
    }
}

/// [`Activation::Softmax`] and [`Activation::SoftmaxAngle`], each row by itself, with α = 1 and ½: y = p^α / α. `first` gets
/// α y = p^α, from which [`super::softmax`] takes the derivatives.
#[inline(always)]
fn softmax<T: Scalar>(activation: Activation, order: Order, bias: &[T], pre: &mut [T], first: &mut [T]) {
    let width = bias.len();
    let angle = activation == Activation::SoftmaxAngle;
    for (row, pre) in pre.chunks_exact_mut(width).enumerate() {
        let mut largest = c::<T>(f64::NEG_INFINITY);
        for (x, &b) in pre.iter_mut().zip(bias) {
            *x += b;
            largest = select(*x > largest, *x, largest);
        }
        let mut sum = T::ZERO;
        for x in pre.iter_mut() {
            *x = exp(*x - largest);
            sum += *x;
        }
        let inverse = T::ONE / sum;
        for x in pre.iter_mut() {
            let p = *x * inverse;
            *x = select(angle, p.root(), p);
        }
        if order >= Order::First {
            first[row * width..(row + 1) * width].copy_from_slice(pre);
        }
        if angle {
            for x in pre.iter_mut() {
                *x += *x;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// φ, φ' and φ'' at one point, by the standard library in float64.
    fn expected(activation: Activation, x: f64) -> [f64; 3] {
        let s = 1.0 / (1.0 + (-x).exp());
        let (t, t1) = (x.tanh(), x.cosh().powi(-2));
        let kink = |slope: f64| if x > 0.0 { [x, 1.0, 0.0] } else { [slope * x, slope, 0.0] };
        let elu = if x > 0.0 { [x, 1.0, 0.0] } else { [x.exp_m1(), x.exp(), x.exp()] };
        match activation {
            Activation::Identity => [x, 1.0, 0.0],
            Activation::Relu => kink(0.0),
            Activation::LeakyRelu => kink(0.01),
            Activation::Elu => elu,
            Activation::Selu => {
                let scale = 1.0507009873554805 * if x > 0.0 { 1.0 } else { 1.6732632423543772 };
                elu.map(|v| scale * v)
            }
            Activation::Tanh => [t, t1, -2.0 * t * t1],
            Activation::Sigmoid => [s, s * (1.0 - s), s * (1.0 - s) * (1.0 - 2.0 * s)],
            Activation::Softplus => [x.max(0.0) + (-x.abs()).exp().ln_1p(), s, s * (1.0 - s)],
            Activation::Silu => [x * s, s + x * s * (1.0 - s), s * (1.0 - s) * (2.0 + x * (1.0 - 2.0 * s))],
            Activation::Gelu => {
                let cdf = 0.5 * libm::erfc(-x / 2f64.sqrt());
                let density = (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt();
                [x * cdf, cdf + x * density, density * (2.0 - x * x)]
            }
            Activation::GeluTanh => {
                let k = (2.0 / std::f64::consts::PI).sqrt();
                let (u, u1, u2) = (k * (x + 0.044715 * x.powi(3)), k * (1.0 + 0.134145 * x * x), k * 0.26829 * x);
                let (t, s, gate) = (u.tanh(), u.cosh().powi(-2), 1.0 / (1.0 + (-2.0 * u).exp()));
                [x * gate, gate + 0.5 * x * s * u1, s * u1 + 0.5 * x * s * (u2 - 2.0 * t * u1 * u1)]
            }
            Activation::Sin => [x.sin(), x.cos(), -x.sin()],
            Activation::Square => [x * x, 2.0 * x, 2.0],
            Activation::Exp => [x.exp(); 3],
            Activation::Rsqrt => [x.powf(-0.5), -0.5 * x.powf(-1.5), 0.75 * x.powf(-2.5)],
            Activation::SigmoidAngle => {
                let (a, d1) = (2.0 * (x / 2.0).exp().atan(), 0.5 / (x / 2.0).cosh());
                [a, d1, -0.5 * (x / 2.0).tanh() * d1]
            }
            Activation::Softmax | Activation::SoftmaxAngle => unreachable!("not elementwise"),
        }
    }

    fn elementwise() -> impl Iterator<Item = Activation> {
        Activation::ALL.into_iter().filter(|a| a.is_elementwise())
    }

    fn is_in_domain(activation: Activation, x: f64) -> bool {
        match activation {
            Activation::Rsqrt => x > 0.0,
            Activation::Exp => x < 88.0,
            _ => true,
        }
    }

    fn grid() -> Vec<f64> {
        let fine = (-4000..=4000).map(|i| f64::from(i) * 0.005);
        let tiny = (0..30).flat_map(|i| [2f64.powi(-i), -(2f64.powi(-i))]);
        fine.chain(tiny).chain([60.0, -60.0, 90.0, -90.0]).collect()
    }

    fn jets<T: Scalar>(activation: Activation, xs: &[f64]) -> Vec<[f64; 3]> {
        let mut pre: Vec<T> = xs.iter().map(|&x| T::from_f64(x)).collect();
        let (mut d1, mut d2) = (vec![T::ZERO; xs.len()], vec![T::ZERO; xs.len()]);
        activate(activation, Order::Second, &[T::ZERO], &mut pre, &mut d1, &mut d2);
        (0..xs.len()).map(|i| [pre[i].to_f64(), d1[i].to_f64(), d2[i].to_f64()]).collect()
    }

    fn follows_the_standard_library<T: Scalar>(ulps: f64) {
        for activation in elementwise() {
            let xs: Vec<f64> = grid().into_iter().map(|x| T::from_f64(x).to_f64()).collect();
            let xs: Vec<f64> = xs.into_iter().filter(|&x| is_in_domain(activation, x)).collect();
            for (&x, found) in xs.iter().zip(jets::<T>(activation, &xs)) {
                for (k, (found, wanted)) in found.into_iter().zip(expected(activation, x)).enumerate() {
                    // A derivative of order k is a sum of terms of size 1 that may cancel; a value is held to its own size.
                    let size = if k == 0 { wanted.abs().max(1e-3 * x.abs().min(1.0)) } else { wanted.abs().max(1.0) };
                    let bound = ulps * T::EPSILON.to_f64() * size + T::EXP_MIN.to_f64().exp() * x.abs().max(1.0) * 2.0;
                    assert!(
                        (found - wanted).abs() <= bound,
                        "{activation}, order {k}, x = {x}: found {found}, expected {wanted}"
                    );
                }
            }
        }
    }

    #[test]
    fn float32_jets_follow_the_standard_library() {
        follows_the_standard_library::<f32>(16.0);
    }

    #[test]
    fn float64_jets_follow_the_standard_library() {
        follows_the_standard_library::<f64>(16.0);
    }

    #[test]
    fn nan_stays_nan() {
        for activation in elementwise() {
            let found = jets::<f32>(activation, &[f64::NAN])[0][0];
            assert!(found.is_nan(), "{activation}(NaN) = {found}");
        }
    }

    #[test]
    fn lower_orders_give_the_same_values() {
        let xs: Vec<f32> = grid().into_iter().map(|x| x as f32).collect();
        for activation in elementwise() {
            let xs: Vec<f32> = xs.iter().copied().filter(|&x| is_in_domain(activation, f64::from(x))).collect();
            let run = |order| {
                let (mut a, mut d1, mut d2) = (xs.clone(), vec![0.0; xs.len()], vec![0.0; xs.len()]);
                activate(activation, order, &[0.25f32], &mut a, &mut d1, &mut d2);
                (a, d1)
            };
            let second = run(Order::Second);
            assert_eq!(run(Order::Value).0, second.0, "{activation}");
            assert_eq!(run(Order::First), second, "{activation}");
        }
    }
}
