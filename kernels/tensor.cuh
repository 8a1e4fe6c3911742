// Matrix instructions, copies in the background, and barriers of parts of a block.
//
//   every GPU from sm_80 on   to_tf32, to_bf16, mma_tf32, mma_bf16; copy_async, commit_copies, wait_copies; meet_warps
//   sm_90a alone              wgmma_*, mbarriers (init_arrivals, arrive, arrive_expecting, await_arrivals), copy_bulk, fence_async,
//                             give_registers, claim_registers:
//                             only where PULLBACK_SM90 is defined, as it is in the emulator
//
// Fragments lie as PTX has them: with g = lane / 4 and t = lane % 4, a thread holds
//
//   a     rows g, g + 8 of columns k = t (a[0], a[1]) and t + 4 (a[2], a[3]); for bfloat16, pairs, of columns 2t and 2t + 8
//   b     column g, rows k = t (b[0]) and t + 4 (b[1]); for bfloat16, pairs, of rows 2t and 2t + 8
//   acc   row g of columns 2t, 2t + 1, then row g + 8 of these
//
// The first of a pair is its low half. Of a number given as TF32 the matrix instructions ignore the low 13 bits.
#pragma once
#include "device.cuh"

#ifdef PULLBACK_EMULATOR
#include "emulator/tensor.hpp"
#else

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define PULLBACK_SM90 1
#endif

/// `x` rounded to TF32, to the nearest, of two the one farther from zero: the bits of a float.
DEVICE u32 to_tf32(float x) {
    u32 bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
}

/// Two numbers rounded to bfloat16, to the nearest, of two the even one; the first in the low half.
DEVICE u32 to_bf16(float low, float high) {
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

/// A warp's products acc[i][j] += a[i] · b[j], each of 16×8 and 8×8 numbers.
template <u32 MF, u32 NF>
DEVICE void mma_tf32(float (&acc)[MF][NF][4], const u32 (&a)[MF][4], const u32 (&b)[NF][2]) {
    UNROLL
    for (u32 i = 0; i < MF; ++i) {
        UNROLL
        for (u32 j = 0; j < NF; ++j) {
            float(&d)[4] = acc[i][j];
            asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                         : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                         : "r"(a[i][0]), "r"(a[i][1]), "r"(a[i][2]), "r"(a[i][3]), "r"(b[j][0]), "r"(b[j][1]));
        }
    }
}

/// The same of 16×16 and 16×8 numbers in pairs.
template <u32 MF, u32 NF>
DEVICE void mma_bf16(float (&acc)[MF][NF][4], const u32 (&a)[MF][4], const u32 (&b)[NF][2]) {
    UNROLL
    for (u32 i = 0; i < MF; ++i) {
        UNROLL
        for (u32 j = 0; j < NF; ++j) {
            float(&d)[4] = acc[i][j];
            asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                         : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                         : "r"(a[i][0]), "r"(a[i][1]), "r"(a[i][2]), "r"(a[i][3]), "r"(b[j][0]), "r"(b[j][1]));
        }
    }
}

/// threadIdx.x, in a way that makes the compiler find what follows from it anew: what is cheap to find must not be kept for long.
DEVICE u32 thread_again() {
    u32 thread;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
    return thread;
}

DEVICE u32 shared_address(const void* at) { return u32(__cvta_generic_to_shared(at)); }

/// 16 bytes, aligned, from global to shared memory in the background; `to` is not to be touched before `wait_copies`.
DEVICE void copy_async(Shared<float> to, const float* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from) : "memory");
}
/// This thread's copies since the last call are a group.
DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits until at most the last `PENDING` of this thread's groups are on their way. Other threads see the copies after a barrier.
template <u32 PENDING>
DEVICE void wait_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

/// A barrier of whole warps of a block, `threads` in all; the numbers 1 to 15 tell such barriers apart.
DEVICE void meet_warps(u32 id, u32 threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }

#ifdef PULLBACK_SM90

// An mbarrier: a word of shared memory that counts what arrives. Its phases are numbered from 0; one is over when so many threads
// have arrived as `init_arrivals` said, and all bytes that they expect of bulk copies have come.

/// By one thread, before a barrier of all that use it.
DEVICE void init_arrivals(Shared<u64> barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
    asm volatile("fence.mbarrier_init.release.cluster;\n\tfence.proxy.async.shared::cta;" ::: "memory");
}
DEVICE void arrive(Shared<u64> barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
/// Arrives, and lets the phase wait for so many bytes of bulk copies besides.
DEVICE void arrive_expecting(Shared<u64> barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes) : "memory");
}
/// Waits until the last phase of this parity is over, which that before phase 0 is: no thread may be further behind.
DEVICE void await_arrivals(Shared<u64> barrier, u32 parity) {
    const u32 at = shared_address(barrier);
    u32 over;
    do {
        asm volatile("{\n\t"
                     ".reg .pred over;\n\t"
                     "mbarrier.try_wait.parity.shared::cta.b64 over, [%1], %2;\n\t"
                     "selp.u32 %0, 1, 0, over;\n\t"
                     "}"
                     : "=r"(over)
                     : "r"(at), "r"(parity)
                     : "memory");
    } while (over == 0);
}

/// `bytes`, a multiple of 16, from global to shared memory, both aligned to 16, by the engine for bulk copies. They are there when
/// the barrier's phase is over, which has to expect them.
DEVICE void copy_bulk(Shared<float> to, const float* from, u32 bytes, Shared<u64> barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared_address(to)),
                 "l"(from), "r"(bytes), "r"(shared_address(barrier))
                 : "memory");
}

/// What this thread wrote to shared memory by ordinary stores shows to bulk copies and to matrix instructions.
DEVICE void fence_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/// The descriptor of a matrix whose core matrices are not swizzled and lie along k. Units are 16 bytes; bits 0 to 13 have the address,
/// 16 to 29 the leading and 32 to 45 the stride offset; no swizzle is 0 in bits 62 and 63 (PTX ISA, "Asynchronous warpgroup level
/// matrix shared memory layout: matrix descriptor"). Along k the leading offset tells core matrices apart, along the other dimension
/// the stride offset: ((8,n),2):((1,SBO),LBO) in CUTLASS (make_gmma_desc<Major::K>, LayoutType::INTERLEAVE).
DEVICE u64 matrix_descriptor(const void* at, u32 k_stride, u32 n_stride) {
    return u64(shared_address(at) >> 4 & 0x3fff) | u64(k_stride >> 4 & 0x3fff) << 16 | u64(n_stride >> 4 & 0x3fff) << 32;
}

#define PULLBACK_WGMMA(instruction, flags)                                                                                          \
    asm volatile("{\n\t"                                                                                                            \
                 ".reg .pred add;\n\t"                                                                                              \
                 "setp.ne.b32 add, %37, 0;\n\t"                                                                                     \
                 "wgmma.mma_async.sync.aligned." instruction                                                                        \
                 " {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29," \
                 "%30,%31}, {%32,%33,%34,%35}, %36, add, " flags ";\n\t"                                                            \
                 "}"                                                                                                                \
                 : "+f"(acc[0][0]), "+f"(acc[0][1]), "+f"(acc[0][2]), "+f"(acc[0][3]), "+f"(acc[1][0]), "+f"(acc[1][1]),            \
                   "+f"(acc[1][2]), "+f"(acc[1][3]), "+f"(acc[2][0]), "+f"(acc[2][1]), "+f"(acc[2][2]), "+f"(acc[2][3]),            \
                   "+f"(acc[3][0]), "+f"(acc[3][1]), "+f"(acc[3][2]), "+f"(acc[3][3]), "+f"(acc[4][0]), "+f"(acc[4][1]),            \
                   "+f"(acc[4][2]), "+f"(acc[4][3]), "+f"(acc[5][0]), "+f"(acc[5][1]), "+f"(acc[5][2]), "+f"(acc[5][3]),            \
                   "+f"(acc[6][0]), "+f"(acc[6][1]), "+f"(acc[6][2]), "+f"(acc[6][3]), "+f"(acc[7][0]), "+f"(acc[7][1]),            \
                   "+f"(acc[7][2]), "+f"(acc[7][3])                                                                                 \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(matrix_descriptor(b, k_stride, n_stride)), "r"(u32(accumulate))   \
                 : "memory")

/// A warpgroup's product acc += a · b of 64×8 and 8×64 numbers, in the background; without `accumulate`, acc = a · b. Its threads
/// are 128, of warps 4i to 4i + 3, and the warp w of these has rows 16w and on of a and acc as in `mma_tf32`; acc[j] are the columns
/// 8j to 8j + 7. b lies in core matrices of 8 columns, each column 16 bytes along k and the next column right after it; `k_stride` and
/// `n_stride` bytes, multiples of 16, lead to the next core matrix along k and to the next 8 columns.
///
/// Registers that ordinary instructions wrote are safe to use after `wgmma_fence`; acc and a are not to be touched, nor b overwritten,
/// before `wgmma_wait`.
DEVICE void wgmma_tf32(float (&acc)[8][4], const u32 (&a)[4], Shared<const float> b, u32 k_stride, u32 n_stride, bool accumulate) {
    PULLBACK_WGMMA("m64n64k8.f32.tf32.tf32", "1, 1");
}
/// The same of 64×16 and 16×64 numbers in pairs.
DEVICE void wgmma_bf16(float (&acc)[8][4], const u32 (&a)[4], Shared<const float> b, u32 k_stride, u32 n_stride, bool accumulate) {
    PULLBACK_WGMMA("m64n64k16.f32.bf16.bf16", "1, 1, 0");
}
#undef PULLBACK_WGMMA

/// The registers of every thread of this warpgroup from now on: fewer, for others to claim, or more. All of its warps call it.
template <u32 COUNT>
DEVICE void give_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}
template <u32 COUNT>
DEVICE void claim_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
/// The warpgroup's products since the last call are a group.
DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/// Waits until at most the last `PENDING` groups are on their way.
template <u32 PENDING>
DEVICE void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

#endif
#endif

DEVICE u32 lane_again() { return thread_again() % WARP; }
