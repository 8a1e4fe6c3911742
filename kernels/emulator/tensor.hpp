// Matrix instructions, copies in the background and barriers of parts of a block: what ../tensor.cuh describes, for the processor.
//
// A warp's product is computed by the last of its lanes to come. Copies happen as late as they may: a wait that is missing leaves the
// old words. Not found: registers of a wgmma_* that are touched before wgmma_wait, and a missing wgmma_fence.
#pragma once

#define PULLBACK_SM90 1

DEVICE u32 to_tf32(float x) {
    const u32 bits = __float_as_uint(x);
    if (x != x) return 0x7fffffffu;
    return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & ~0x1fffu;
}

DEVICE u32 to_bf16(float low, float high) {
    const auto rounded = [](float x) {
        const u32 bits = __float_as_uint(x);
        return x != x ? 0x7fffu : (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
    };
    return rounded(low) | rounded(high) << 16;
}

template <u32 MF, u32 NF>
DEVICE void mma_tf32(float (&acc)[MF][NF][4], const u32 (&a)[MF][4], const u32 (&b)[NF][2], PULLBACK_SITE) {
    ::emulator::multiply({&acc[0][0][0], &a[0][0], &b[0][0], MF, NF, false}, {file, line});
}
template <u32 MF, u32 NF>
DEVICE void mma_bf16(float (&acc)[MF][NF][4], const u32 (&a)[MF][4], const u32 (&b)[NF][2], PULLBACK_SITE) {
    ::emulator::multiply({&acc[0][0][0], &a[0][0], &b[0][0], MF, NF, true}, {file, line});
}

#ifdef PULLBACK_CHECKED
template <class T>
DEVICE ::emulator::Place place(Shared<T> at) {
    return at.place();
}
#else
DEVICE ::emulator::Place place(const void* at) { return {nullptr, reinterpret_cast<uintptr_t>(at)}; }
#endif

DEVICE void copy_async(Shared<float> to, const float* from, PULLBACK_SITE) { ::emulator::copy_async(place(to), from, {file, line}); }
DEVICE void commit_copies() { ::emulator::commit_copies(); }
template <u32 PENDING>
DEVICE void wait_copies() {
    ::emulator::wait_copies(PENDING);
}

DEVICE void meet_warps(u32 id, u32 threads, PULLBACK_SITE) { ::emulator::meet_warps(id, threads, {file, line}); }

DEVICE void init_arrivals(Shared<u64> barrier, u32 arrivals, PULLBACK_SITE) {
    ::emulator::init_arrivals(place(barrier), arrivals, {file, line});
}
DEVICE void arrive(Shared<u64> barrier, PULLBACK_SITE) { ::emulator::arrive(place(barrier), 0, {file, line}); }
DEVICE void arrive_expecting(Shared<u64> barrier, u32 bytes, PULLBACK_SITE) {
    ::emulator::arrive(place(barrier), bytes, {file, line});
}
DEVICE void await_arrivals(Shared<u64> barrier, u32 parity, PULLBACK_SITE) {
    ::emulator::await_arrivals(place(barrier), parity, {file, line});
}
DEVICE void copy_bulk(Shared<float> to, const float* from, u32 bytes, Shared<u64> barrier, PULLBACK_SITE) {
    ::emulator::copy_bulk(place(to), from, bytes, place(barrier), {file, line});
}

DEVICE void wgmma_tf32(float (&acc)[8][4], const u32 (&a)[4], Shared<const float> b, u32 k_stride, u32 n_stride, bool accumulate,
                       PULLBACK_SITE) {
    ::emulator::multiply_group({&acc[0][0], a, {place(b), k_stride, n_stride}, accumulate, false}, {file, line});
}
DEVICE void wgmma_bf16(float (&acc)[8][4], const u32 (&a)[4], Shared<const float> b, u32 k_stride, u32 n_stride, bool accumulate,
                       PULLBACK_SITE) {
    ::emulator::multiply_group({&acc[0][0], a, {place(b), k_stride, n_stride}, accumulate, true}, {file, line});
}
DEVICE u32 thread_again() { return threadIdx.x; }

template <u32 COUNT>
DEVICE void give_registers() {}
template <u32 COUNT>
DEVICE void claim_registers() {}

DEVICE void wgmma_fence() {}

#ifdef PULLBACK_CHECKED
DEVICE void fence_async() { ::emulator::fence_async(); }
DEVICE void wgmma_commit() { ::emulator::commit_products(); }
template <u32 PENDING>
DEVICE void wgmma_wait() {
    ::emulator::wait_products(PENDING);
}
#else
DEVICE void fence_async() {}
DEVICE void wgmma_commit() {}
template <u32 PENDING>
DEVICE void wgmma_wait() {}
#endif
