// Types and functions that device code finds without a header. Those of <math.h> are the C library's.
#pragma once

struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) uint2 {
    u32 x, y;
};
struct alignas(16) uint4 {
    u32 x, y, z, w;
};
DEVICE float2 make_float2(float x, float y) { return {x, y}; }
DEVICE float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
DEVICE uint2 make_uint2(u32 x, u32 y) { return {x, y}; }
DEVICE uint4 make_uint4(u32 x, u32 y, u32 z, u32 w) { return {x, y, z, w}; }

/// a · b + c: the product is exact in double, so that only the sum is rounded (twice, which tells in one case of 2^29).
DEVICE float fused(float a, float b, float c) { return float(double(a) * double(b) + double(c)); }

DEVICE u32 __float_as_uint(float value) {
    u32 bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    return bits;
}
DEVICE float __uint_as_float(u32 bits) {
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}
DEVICE int __float_as_int(float value) { return int(__float_as_uint(value)); }
DEVICE float __int_as_float(int bits) { return __uint_as_float(u32(bits)); }

DEVICE int min(int a, int b) { return b < a ? b : a; }
DEVICE int max(int a, int b) { return a < b ? b : a; }
DEVICE u32 min(u32 a, u32 b) { return b < a ? b : a; }
DEVICE u32 max(u32 a, u32 b) { return a < b ? b : a; }
DEVICE long long min(long long a, long long b) { return b < a ? b : a; }
DEVICE long long max(long long a, long long b) { return a < b ? b : a; }
DEVICE u64 min(u64 a, u64 b) { return b < a ? b : a; }
DEVICE u64 max(u64 a, u64 b) { return a < b ? b : a; }
// A NaN gives way to a number.
DEVICE float fminf(float a, float b) { return b < a || a != a ? b : a; }
DEVICE float fmaxf(float a, float b) { return a < b || a != a ? b : a; }
DEVICE double fmin(double a, double b) { return b < a || a != a ? b : a; }
DEVICE double fmax(double a, double b) { return a < b || a != a ? b : a; }
DEVICE float min(float a, float b) { return fminf(a, b); }
DEVICE float max(float a, float b) { return fmaxf(a, b); }
DEVICE double min(double a, double b) { return fmin(a, b); }
DEVICE double max(double a, double b) { return fmax(a, b); }

DEVICE bool isfinite(float value) { return __builtin_isfinite(value); }
DEVICE bool isfinite(double value) { return __builtin_isfinite(value); }
DEVICE bool isnan(float value) { return value != value; }
DEVICE bool isnan(double value) { return value != value; }
DEVICE bool isinf(float value) { return __builtin_isinf(value); }
DEVICE bool isinf(double value) { return __builtin_isinf(value); }

DEVICE float rsqrtf(float value) { return 1.0f / sqrtf(value); }
DEVICE float __fdividef(float a, float b) { return a / b; }
DEVICE float __frcp_rn(float value) { return 1.0f / value; }
DEVICE float __fadd_rn(float a, float b) { return a + b; }
DEVICE float __fsub_rn(float a, float b) { return a - b; }
DEVICE float __fmul_rn(float a, float b) { return a * b; }
DEVICE float __fmaf_rn(float a, float b, float c) { return fused(a, b, c); }

DEVICE int __popc(u32 bits) { return __builtin_popcount(bits); }
DEVICE int __clz(int bits) { return bits == 0 ? 32 : __builtin_clz(u32(bits)); }
DEVICE int __ffs(int bits) { return __builtin_ffs(bits); }

/// Read-only loads need no other path here.
template <class T>
DEVICE T __ldg(const T* from) {
    return *from;
}

// Blocks run on several threads of the system, so these are atomic here, too.
DEVICE u32 atomicAdd(u32* at, u32 value) { return __atomic_fetch_add(at, value, __ATOMIC_SEQ_CST); }
DEVICE u32 atomicSub(u32* at, u32 value) { return __atomic_fetch_sub(at, value, __ATOMIC_SEQ_CST); }
DEVICE u32 atomicOr(u32* at, u32 value) { return __atomic_fetch_or(at, value, __ATOMIC_SEQ_CST); }
DEVICE u32 atomicAnd(u32* at, u32 value) { return __atomic_fetch_and(at, value, __ATOMIC_SEQ_CST); }
DEVICE u32 atomicExch(u32* at, u32 value) { return __atomic_exchange_n(at, value, __ATOMIC_SEQ_CST); }
DEVICE u32 atomicCAS(u32* at, u32 expected, u32 value) {
    __atomic_compare_exchange_n(at, &expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return expected;
}
DEVICE u32 atomicMax(u32* at, u32 value) {
    u32 found = __atomic_load_n(at, __ATOMIC_SEQ_CST);
    while (found < value && !__atomic_compare_exchange_n(at, &found, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
    }
    return found;
}
DEVICE u32 atomicMin(u32* at, u32 value) {
    u32 found = __atomic_load_n(at, __ATOMIC_SEQ_CST);
    while (found > value && !__atomic_compare_exchange_n(at, &found, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
    }
    return found;
}
DEVICE void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
DEVICE void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
