// The dialect that all kernels are written in: CUDA C++ without CUDA's headers, which the emulator compiles as plain C++.
//
//   KERNEL(name, Params, threads, blocks) { ... p ... }   a kernel of one structure of parameters, launched with at most `threads` a
//                                                 block; registers are rationed for so many blocks on a multiprocessor
//   INSTANCE(name, Params, threads, blocks) { ... }       the same, for one decoder's sizes; compiled at run time
//   DEVICE                                        in front of every other function
//   SHARED(type, name, count);                    an array in shared memory; DYNAMIC_SHARED(type, name) of the launch's size
//   Shared<type>                                  a pointer into such an array: [i] and + alone
//   load4(pointer), store4(pointer, value)        16 bytes at once, aligned, in global or shared memory; load2 and store2 take 8
//
// Blocks and grids have one dimension. Threads of a block meet in __syncthreads(), lanes of a warp in the __shfl and
// __syncwarp functions. There are no atomic additions of floating-point numbers: results do not depend on the order of blocks.
#pragma once

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

#ifdef PULLBACK_EMULATOR
#include "emulator/emulator.hpp"
#else

#define DEVICE __device__ __forceinline__
#define INSTANCE(name, Params, threads, blocks) \
    extern "C" __global__ void __launch_bounds__(threads, blocks) name(const Params p)
#ifdef PULLBACK_SPECIALISED
// A template that nobody asks for costs nothing.
#define KERNEL(name, Params, threads, blocks) template <class> DEVICE void name(const Params& p)
#else
#define KERNEL INSTANCE
#endif
#define SHARED(type, name, count) __shared__ __align__(16) type name[count]
#define DYNAMIC_SHARED(type, name)                                    \
    extern __shared__ __align__(16) unsigned char dynamic_shared[];   \
    type* name = reinterpret_cast<type*>(dynamic_shared)
#define UNROLL _Pragma("unroll")

template <class T>
using Shared = T*;

DEVICE float2 load2(const float* from) { return *reinterpret_cast<const float2*>(from); }
DEVICE void store2(float* to, float2 value) { *reinterpret_cast<float2*>(to) = value; }
DEVICE float4 load4(const float* from) { return *reinterpret_cast<const float4*>(from); }
DEVICE void store4(float* to, float4 value) { *reinterpret_cast<float4*>(to) = value; }

/// a · b + c, rounded once.
DEVICE float fused(float a, float b, float c) { return fmaf(a, b, c); }

#endif

constexpr u32 WARP = 32;
constexpr u32 ALL_LANES = 0xffffffffu;

DEVICE double infinity() { return __uint_as_float(0x7f800000u); }
DEVICE double not_a_number() { return __uint_as_float(0x7fc00000u); }

DEVICE u32 lane() { return threadIdx.x % WARP; }
/// Number of this warp in the grid, and of all warps.
DEVICE u32 grid_warp() { return (blockIdx.x * blockDim.x + threadIdx.x) / WARP; }
DEVICE u32 grid_warps() { return gridDim.x * blockDim.x / WARP; }
DEVICE u32 grid_thread() { return blockIdx.x * blockDim.x + threadIdx.x; }
DEVICE u32 grid_threads() { return gridDim.x * blockDim.x; }
DEVICE u32 divide_up(u32 a, u32 b) { return (a + b - 1) / b; }

/// The same sum in every lane; the order is fixed.
DEVICE float warp_sum(float value) {
    UNROLL for (u32 offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(ALL_LANES, value, offset);
    return value;
}

DEVICE double warp_sum(double value) {
    UNROLL for (u32 offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(ALL_LANES, value, offset);
    return value;
}
