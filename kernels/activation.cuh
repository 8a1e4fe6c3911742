// Activations φ with their first and second derivatives.
//
// The formulas of src/cpu/activation.rs, without branches on the argument: errors are a few units in the last place of the
// largest intermediate value, and there is no slow path with a stack (as the library's sinf has one).
#pragma once
#include "device.cuh"

// The order of `Activation::ALL` in src/decoder/activation.rs.
enum Activation : u32 {
    IDENTITY,
    RELU,
    LEAKY_RELU,
    ELU,
    SELU,
    TANH,
    SIGMOID,
    SOFTPLUS,
    SILU,
    GELU,
    GELU_TANH,
    SIN,
    SQUARE,
    EXP,
    RSQRT,
    SIGMOID_ANGLE,
    // Behind the last layer alone, which they leave as it is: softmax.cu does the rest.
    SOFTMAX,
    SOFTMAX_ANGLE
};

/// Any of them: which one the parameters say.
constexpr u32 ANY = 0xffffffffu;

/// φ(x), φ'(x), φ''(x).
struct Jet {
    float value, first, second;
};

/// Adding and subtracting this rounds to an integer, which then stands in the low bits: 1.5 · 2²³.
constexpr float ROUND = 12582912.0f;

/// 2ⁿ for n in the low bits of a number that was rounded by adding ROUND, n > −127. Of a NaN any number: what it is multiplied by then
/// is NaN as well. (Adding n to the exponent of a NaN, 0x7fffffff on a GPU, would make it finite.)
DEVICE float power_of_rounded(float rounded) { return __uint_as_float((__float_as_uint(rounded) << 23) + 0x3f800000u); }

/// x = n ln 2 + r with |r| ≤ ln 2 / 2; returns r and leaves n in `rounded`. Below −87, e^x is not a normal number.
DEVICE float reduce_exponent(float x, float& rounded) {
    x = x < -87.0f ? -87.0f : x;
    rounded = fused(x, 1.44269504f, ROUND);
    const float n = rounded - ROUND;
    return fused(-n, -2.121944400e-4f, fused(-n, 0.693359375f, x));
}

/// (e^r − 1 − r)/r² on |r| ≤ ln 2 / 2 (Cephes, expf).
DEVICE float exponential_tail(float r) {
    float p = 1.9875691500e-4f;
    p = fused(p, r, 1.3981999507e-3f);
    p = fused(p, r, 8.3334519073e-3f);
    p = fused(p, r, 4.1665795894e-2f);
    p = fused(p, r, 1.6666665459e-1f);
    p = fused(p, r, 5.0000001201e-1f);
    return fused(p, r * r, r);
}

/// e^x for x ≤ 0 and a little beyond.
DEVICE float exponential(float x) {
    float rounded;
    const float r = reduce_exponent(x, rounded);
    return power_of_rounded(rounded) * (1.0f + exponential_tail(r));
}

/// e^x − 1 for x ≤ 0, accurate near 0.
DEVICE float exponential_minus_1(float x) {
    float rounded;
    const float r = reduce_exponent(x, rounded);
    const float power = power_of_rounded(rounded);
    return fused(power, exponential_tail(r), power - 1.0f);
}

/// log(1 + e) for 0 ≤ e ≤ 1, as 2 atanh(e/(2 + e)).
DEVICE float log_1_plus(float e) {
    const float s = e / (e + 2.0f), q = s * s;
    float p = 1.0f / 15.0f;
    p = fused(p, q, 1.0f / 13.0f);
    p = fused(p, q, 1.0f / 11.0f);
    p = fused(p, q, 1.0f / 9.0f);
    p = fused(p, q, 1.0f / 7.0f);
    p = fused(p, q, 1.0f / 5.0f);
    p = fused(p, q, 1.0f / 3.0f);
    p = fused(p, q, 1.0f);
    return 2.0f * s * p;
}

/// σ(x) and σ(−x), each accurate where it is small.
DEVICE void logistic(float x, float& at, float& opposite) {
    const float e = exponential(-fabsf(x));
    const float large = 1.0f / (1.0f + e), small = e * large;
    at = x < 0.0f ? small : large;
    opposite = x < 0.0f ? large : small;
}

DEVICE Jet jet_of_tanh(float x) {
    const float t = exponential_minus_1(-2.0f * fabsf(x));
    const float q = 1.0f / (t + 2.0f);
    const float value = copysignf(-t * q, x), first = (t + 1.0f) * (4.0f * q * q);
    return {value, first, -2.0f * value * first};
}

DEVICE Jet jet_of_elu(float x) {
    const float below = exponential_minus_1(x > 0.0f ? 0.0f : x), slope = below + 1.0f;
    return x > 0.0f ? Jet{x, 1.0f, 0.0f} : Jet{below, slope, slope};
}

DEVICE Jet jet_of_softplus(float x) {
    const float e = exponential(-fabsf(x));
    const float large = 1.0f / (1.0f + e), small = e * large;
    const float above = x < 0.0f ? 0.0f : x;
    return {above + log_1_plus(e), x < 0.0f ? small : large, small * large};
}

/// The cumulative distribution Φ(x) of the standard normal law (W. Press et al., Numerical Recipes, erfcc: 1.2e-7 relative).
DEVICE float normal_distribution(float x) {
    const float z = fabsf(x) * 0.70710678f;
    const float t = 1.0f / fused(0.5f, z, 1.0f);
    float p = 0.17087277f;
    p = fused(p, t, -0.82215223f);
    p = fused(p, t, 1.48851587f);
    p = fused(p, t, -1.13520398f);
    p = fused(p, t, 0.27886807f);
    p = fused(p, t, -0.18628806f);
    p = fused(p, t, 0.09678418f);
    p = fused(p, t, 0.37409196f);
    p = fused(p, t, 1.00002368f);
    p = fused(p, t, -1.26551223f);
    const float tail = 0.5f * t * exponential(p) * exponential(-z * z);
    return x < 0.0f ? tail : 1.0f - tail;
}

DEVICE Jet jet_of_gelu(float x) {
    const float distribution = normal_distribution(x);
    const float density = exponential(-0.5f * x * x) * 0.39894228f;
    return {x * distribution, fused(x, density, distribution), density * fused(-x, x, 2.0f)};
}

DEVICE Jet jet_of_gelu_tanh(float x) {
    constexpr float SLOPE = 0.79788456f; // √(2/π)
    constexpr float CUBIC = 0.044715f;
    const float square = x * x;
    const float u = x * fused(square, SLOPE * CUBIC, SLOPE);
    const float u1 = fused(square, 3.0f * SLOPE * CUBIC, SLOPE), u2 = x * (6.0f * SLOPE * CUBIC);
    // ½(1 + tanh u) = σ(2u), which stays accurate where it is small.
    float gate, rest;
    logistic(u + u, gate, rest);
    const float s = 4.0f * gate * rest, t = gate - rest;
    return {x * gate, fused(0.5f * x * s, u1, gate), s * fused(0.5f * x, u2 - 2.0f * t * u1 * u1, u1)};
}

DEVICE Jet jet_of_sin(float x) {
    const float rounded = fused(x, 0.31830989f, ROUND), n = rounded - ROUND;
    // π in three parts, the first two short enough that small multiples of them are exact.
    const float r = fused(-n, 1.509958e-7f, fused(-n, 9.675026e-4f, fused(-n, 3.140625f, x)));
    const float q = r * r;
    float s = 1.0f / 6227020800.0f;
    s = fused(s, q, -1.0f / 39916800.0f);
    s = fused(s, q, 1.0f / 362880.0f);
    s = fused(s, q, -1.0f / 5040.0f);
    s = fused(s, q, 1.0f / 120.0f);
    s = fused(s, q, -1.0f / 6.0f);
    s = fused(s, q, 1.0f) * r;
    float c = 1.0f / 479001600.0f;
    c = fused(c, q, -1.0f / 3628800.0f);
    c = fused(c, q, 1.0f / 40320.0f);
    c = fused(c, q, -1.0f / 720.0f);
    c = fused(c, q, 1.0f / 24.0f);
    c = fused(c, q, -0.5f);
    c = fused(c, q, 1.0f);
    const u32 sign = __float_as_uint(rounded) << 31;
    s = __uint_as_float(__float_as_uint(s) ^ sign);
    c = __uint_as_float(__float_as_uint(c) ^ sign);
    return {s, c, -s};
}

/// Of 1/√x for x > 0.
DEVICE Jet jet_of_rsqrt(float x) {
    const float inverse = 1.0f / x, value = 1.0f / sqrtf(x);
    const float first = -0.5f * value * inverse;
    return {value, first, -1.5f * first * inverse};
}

/// atan e for 0 ≤ e ≤ 1.
DEVICE float arc_tangent(float e) {
    const bool large = e > 0.41421356f; // tan(π/8)
    const float t = large ? (e - 1.0f) / (e + 1.0f) : e;
    const float q = t * t;
    float p = -6.026305e-2f;
    p = fused(p, q, 1.0569829e-1f);
    p = fused(p, q, -1.4239533e-1f);
    p = fused(p, q, 1.9998183e-1f);
    p = fused(p, q, -3.3333307e-1f);
    p = fused(p, q, 1.0f) * t;
    return large ? 0.78539816f + p : p;
}

/// Of 2 arcsin √σ(x) = 2 atan e^(x/2), φ' = √(σ(x) σ(−x)).
DEVICE Jet jet_of_sigmoid_angle(float x) {
    const float e = exponential(-0.5f * fabsf(x));
    const float q = 1.0f / fused(e, e, 1.0f);
    const float small = 2.0f * arc_tangent(e), first = e * q;
    const float t = copysignf((1.0f - e * e) * q, x);
    return {x < 0.0f ? small : 3.14159265f - small, first, -0.5f * t * first};
}

DEVICE Jet jet_of(u32 activation, float x) {
    switch (activation) {
    case RELU:
        return {x > 0.0f ? x : 0.0f * x, x > 0.0f ? 1.0f : 0.0f, 0.0f};
    case LEAKY_RELU:
        return {x > 0.0f ? x : 0.01f * x, x > 0.0f ? 1.0f : 0.01f, 0.0f};
    case ELU:
        return jet_of_elu(x);
    case SELU: {
        const float factor = x > 0.0f ? 1.0507009873554805f : 1.0507009873554805f * 1.6732632423543772f;
        const Jet elu = jet_of_elu(x);
        return {factor * elu.value, factor * elu.first, factor * elu.second};
    }
    case TANH:
        return jet_of_tanh(x);
    case SIGMOID: {
        float s, r;
        logistic(x, s, r);
        return {s, s * r, s * r * (r - s)};
    }
    case SOFTPLUS:
        return jet_of_softplus(x);
    case SILU: {
        float s, r;
        logistic(x, s, r);
        return {x * s, s * fused(x, r, 1.0f), s * r * fused(x, r - s, 2.0f)};
    }
    case GELU:
        return jet_of_gelu(x);
    case GELU_TANH:
        return jet_of_gelu_tanh(x);
    case SIN:
        return jet_of_sin(x);
    case SQUARE:
        return {x * x, x + x, 2.0f};
    case EXP: {
        // Above 88, e^x may be too large for a number.
        const float within = exponential(x > 88.0f ? 88.0f : x);
        const float value = x > 88.0f ? float(infinity()) : within;
        return {value, value, value};
    }
    case RSQRT:
        return jet_of_rsqrt(x);
    case SIGMOID_ANGLE:
        return jet_of_sigmoid_angle(x);
    default:
        return {x, 1.0f, 0.0f};
    }
}
