// Where threads of a block and lanes of a warp wait for each other. The default arguments are the caller's place in the source.
#pragma once

#define PULLBACK_SITE const char *file = __builtin_FILE(), unsigned line = __builtin_LINE()

DEVICE void __syncthreads(PULLBACK_SITE) { ::emulator::barrier({file, line}); }

DEVICE void __syncwarp(u32 mask = 0xffffffffu, PULLBACK_SITE) {
    ::emulator::meet(::emulator::Meeting::syncwarp, mask, 0, threadIdx.x % 32, {file, line});
}

DEVICE u32 __ballot_sync(u32 mask, int predicate, PULLBACK_SITE) {
    return u32(::emulator::meet(::emulator::Meeting::vote, mask, predicate != 0, 0, {file, line}));
}
DEVICE int __any_sync(u32 mask, int predicate, PULLBACK_SITE) { return __ballot_sync(mask, predicate, file, line) != 0; }
DEVICE int __all_sync(u32 mask, int predicate, PULLBACK_SITE) { return __ballot_sync(mask, predicate, file, line) == mask; }

template <class T>
DEVICE T value_of_lane(u32 mask, T value, u32 source, const char* file, unsigned line) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "as on the device");
    u64 bits = 0;
    __builtin_memcpy(&bits, &value, sizeof value);
    bits = ::emulator::meet(::emulator::Meeting::shuffle, mask, bits, source, {file, line});
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

// Lanes form segments of `width`, a power of two; where the source lies outside, a lane gets its own value.

template <class T>
DEVICE T __shfl_sync(u32 mask, T value, int source, int width = 32, PULLBACK_SITE) {
    const u32 lane = threadIdx.x % 32, inside = u32(width) - 1;
    return value_of_lane(mask, value, (lane & ~inside) | (u32(source) & inside), file, line);
}
template <class T>
DEVICE T __shfl_xor_sync(u32 mask, T value, int lane_mask, int width = 32, PULLBACK_SITE) {
    const u32 lane = threadIdx.x % 32, source = (lane ^ u32(lane_mask)) % 32;
    return value_of_lane(mask, value, source <= (lane | (u32(width) - 1)) ? source : lane, file, line);
}
template <class T>
DEVICE T __shfl_down_sync(u32 mask, T value, unsigned delta, int width = 32, PULLBACK_SITE) {
    const u32 lane = threadIdx.x % 32;
    return value_of_lane(mask, value, delta <= (lane | (u32(width) - 1)) - lane ? lane + delta : lane, file, line);
}
template <class T>
DEVICE T __shfl_up_sync(u32 mask, T value, unsigned delta, int width = 32, PULLBACK_SITE) {
    const u32 lane = threadIdx.x % 32;
    return value_of_lane(mask, value, delta <= (lane & (u32(width) - 1)) ? lane - delta : lane, file, line);
}
