// Kernels for the emulator's own tests (src/cuda/emulator/tests.rs): healthy ones, whose results are known, and one for each fault
// that the emulator has to find. No other platform has them.
#include "../tensor.cuh"

struct LawParams {
    const float* in;
    float* out;
    u32* count;
    u32 n;
};

/// out[b] = the sum of the block's threads' shares of in[0..n]: first in shared memory, halving, then by shuffles; both must agree.
KERNEL(law_sum, LawParams, 256, 1) {
    SHARED(float, partial, 256);
    SHARED(float, of_warp, 8);
    float sum = 0;
    for (u32 i = grid_thread(); i < p.n; i += grid_threads()) sum += p.in[i];
    partial[threadIdx.x] = sum;
    __syncthreads();
    for (u32 half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) partial[threadIdx.x] += partial[threadIdx.x + half];
        __syncthreads();
    }

    for (u32 step = WARP / 2; step > 0; step /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, int(step));
    if (lane() == 0) of_warp[threadIdx.x / WARP] = sum;
    __syncthreads();
    if (threadIdx.x < WARP) {
        float all = lane() < blockDim.x / WARP ? float(of_warp[lane()]) : 0.0f;
        for (u32 step = WARP / 2; step > 0; step /= 2) all += __shfl_down_sync(ALL_LANES, all, step);
        if (lane() == 0) {
            p.out[2 * blockIdx.x] = partial[0];
            p.out[2 * blockIdx.x + 1] = all;
        }
    }
    if (threadIdx.x == 0) atomicAdd(p.count, 1);
}

/// out[i] = 2 · in[i]; no thread waits for another.
KERNEL(law_double, LawParams, 1024, 1) {
    for (u32 i = grid_thread(); i < p.n; i += grid_threads()) p.out[i] = 2 * p.in[i];
}

/// Each block turns 4 · 64 numbers round, through dynamic shared memory, four at a time.
KERNEL(law_reverse, LawParams, 64, 1) {
    DYNAMIC_SHARED(float, tile);
    const u32 first = blockIdx.x * 256, i = threadIdx.x;
    store4(tile + 4 * i, load4(p.in + first + 4 * i));
    __syncthreads();
    const float4 value = load4(Shared<float>(tile) + 4 * (63 - i));
    store4(p.out + first + 4 * i, make_float4(value.w, value.z, value.y, value.x));
}

/// What only lanes of one warp share is ordered by __syncwarp, within halves of a warp, too; and shuffles of every type and width.
KERNEL(law_warps, LawParams, 128, 1) {
    SHARED(u32, word, 128);
    SHARED(u8, byte, 128); // neighbours write bytes of one word
    const u32 i = threadIdx.x, mask = lane() < 16 ? 0x0000ffffu : 0xffff0000u;
    u32 sum = 0;
    for (u32 round = 0; round < 5; ++round) {
        word[i] = i + round;
        byte[i] = u8(i + round);
        __syncwarp(mask);
        sum += word[i ^ 5] + byte[i ^ 1];
        __syncwarp(mask);
    }
    if (lane() < 16) {
        sum += u32(__shfl_sync(0xffffu, double(i), 3) + __shfl_up_sync(0xffffu, u64(i), 1) + __shfl_xor_sync(0xffffu, int(i), 15));
    } else {
        __syncwarp(mask);
    }
    sum += __shfl_sync(ALL_LANES, i, 2, 8);
    sum += __ballot_sync(ALL_LANES, lane() % 2) == 0xaaaaaaaau ? 1000 : 0;
    sum += __any_sync(ALL_LANES, lane() == 31) ? 1000 : 0;
    p.out[grid_thread()] = float(sum);
}

/// Half of the threads skip a barrier.
KERNEL(fault_barrier_skipped, LawParams, 256, 1) {
    if (threadIdx.x < 64) __syncthreads();
    if (threadIdx.x == 0) p.out[0] = 1;
}

/// Two halves wait at two barriers.
KERNEL(fault_barriers_differ, LawParams, 256, 1) {
    if (threadIdx.x < 64) {
        __syncthreads();
    } else {
        __syncthreads();
    }
}

/// A lane leaves before its warp's shuffle.
KERNEL(fault_lane_missing, LawParams, 256, 1) {
    if (threadIdx.x == 37) return;
    p.out[threadIdx.x] = __shfl_xor_sync(ALL_LANES, 1.0f, 1);
}

/// Lanes of one warp at different shuffles.
KERNEL(fault_shuffles_differ, LawParams, 256, 1) {
    const float value = 1;
    p.out[threadIdx.x] = lane() < 16 ? __shfl_xor_sync(ALL_LANES, value, 1) : //
                             __shfl_xor_sync(ALL_LANES, value, 2);
}

/// A lane calls a meeting of others.
KERNEL(fault_lane_not_in_mask, LawParams, 256, 1) { __syncwarp(0x0000ffffu); }

/// A barrier is missing between write and read.
KERNEL(fault_read_after_write, LawParams, 256, 1) {
    SHARED(float, row, 256);
    row[threadIdx.x] = 0;
    __syncthreads();
    row[threadIdx.x] = 1;
    __syncwarp(); // orders the warp, but not the block
    p.out[threadIdx.x] = row[(threadIdx.x + 32) % blockDim.x];
}

/// A barrier is missing between read and write, as where a tile is overwritten too early.
KERNEL(fault_write_after_read, LawParams, 256, 1) {
    SHARED(float, row, 256);
    row[threadIdx.x] = 1;
    __syncthreads();
    const float all = row[0] + row[33];
    row[threadIdx.x] = all;
}

/// As above inside one warp: only half of it meets.
KERNEL(fault_race_in_warp, LawParams, 256, 1) {
    SHARED(float, row, 256);
    row[threadIdx.x] = 0;
    __syncthreads();
    row[threadIdx.x] = 1;
    if (lane() < 16) __syncwarp(0x0000ffffu);
    p.out[threadIdx.x] = row[threadIdx.x ^ 16];
}

/// Two threads write one word.
KERNEL(fault_two_writes, LawParams, 256, 1) {
    SHARED(float, total, 1);
    total[0] = float(threadIdx.x);
}

/// n is an index: too large by one, or far below the array.
KERNEL(fault_index, LawParams, 256, 1) {
    SHARED(float, row, 256);
    row[int(p.n)] = 1;
}

/// Nobody wrote what is read.
KERNEL(fault_unwritten, LawParams, 256, 1) {
    SHARED(float, row, 256);
    if (threadIdx.x != 5) row[threadIdx.x] = 1;
    __syncthreads();
    p.out[threadIdx.x] = row[threadIdx.x];
}

/// 16 bytes at once at an odd place.
KERNEL(fault_unaligned, LawParams, 256, 1) {
    SHARED(float, row, 256);
    store4(row + 1, make_float4(0, 0, 0, 0));
}

/// Only one thread, deep in the grid, is at fault.
KERNEL(fault_in_one_block, LawParams, 256, 1) {
    if (blockIdx.x >= p.n && threadIdx.x == 64) return;
    __syncthreads();
}

/// Nothing but n barriers, to measure a switch.
KERNEL(law_barriers, LawParams, 1024, 1) {
    for (u32 i = 0; i < p.n; ++i) __syncthreads();
}

/// Nothing but n meetings of a warp.
KERNEL(law_shuffles, LawParams, 1024, 1) {
    u32 value = threadIdx.x;
    for (u32 i = 0; i < p.n; ++i) value = __shfl_xor_sync(ALL_LANES, value, 1);
    if (value == ALL_LANES) *p.count = value;
}

/// Products of 8×8 tiles of two rows in shared memory: the inner loop of every matrix product, to see what is made of it.
KERNEL(law_products, LawParams, 256, 1) {
    SHARED(float, left, 1024);
    SHARED(float, right, 1024);
    for (u32 i = threadIdx.x; i < 1024; i += blockDim.x) left[i] = right[i] = 1.0f / float(i + 1);
    __syncthreads();
    float acc[8][8] = {};
    for (u32 round = 0; round < p.n; ++round) {
        for (u32 k = 0; k < 64; ++k) {
            float a[8], b[8];
            UNROLL
            for (u32 i = 0; i < 8; ++i) a[i] = left[k * 16 + threadIdx.x % 2 * 8 + i];
            UNROLL
            for (u32 i = 0; i < 8; ++i) b[i] = right[k * 16 + threadIdx.x / 2 % 2 * 8 + i];
            UNROLL
            for (u32 i = 0; i < 8; ++i) {
                UNROLL
                for (u32 j = 0; j < 8; ++j) acc[i][j] += a[i] * b[j];
            }
        }
    }
    float sum = 0;
    for (u32 i = 0; i < 64; ++i) sum += acc[i / 8][i % 8];
    p.out[grid_thread()] = sum;
}
