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

/// Of in[i] the bits of out[2i] as TF32, and out[2i + 1] as bfloat16 with those of -1 above.
KERNEL(law_round, LawParams, 256, 1) {
    const u32 i = grid_thread();
    if (i >= p.n) return;
    p.out[2 * i] = __uint_as_float(to_tf32(p.in[i]));
    p.out[2 * i + 1] = __uint_as_float(to_bf16(p.in[i], -1));
}

/// Fragments of a row-major matrix of so many columns: 16 rows from `row` on, and 8 or 16 columns from `column` on.
template <bool BF16, class Matrix>
DEVICE void left_fragment(u32 (&a)[4], Matrix from, u32 columns, u32 row, u32 column) {
    for (u32 i = 0; i < 4; ++i) {
        const u32 at = (row + lane() / 4 + i % 2 * 8) * columns + column + (BF16 ? lane() % 4 * 2 + i / 2 * 8 : lane() % 4 + i / 2 * 4);
        a[i] = BF16 ? to_bf16(from[at], from[at + 1]) : to_tf32(from[at]);
    }
}
/// 8 columns, and 8 or 16 rows.
template <bool BF16, class Matrix>
DEVICE void right_fragment(u32 (&b)[2], Matrix from, u32 columns, u32 row, u32 column) {
    for (u32 i = 0; i < 2; ++i) {
        const u32 at = (row + (BF16 ? lane() % 4 * 2 + i * 8 : lane() % 4 + i * 4)) * columns + column + lane() / 4;
        b[i] = BF16 ? to_bf16(from[at], from[at + columns]) : to_tf32(from[at]);
    }
}
DEVICE u32 acc_place(u32 columns, u32 row, u32 column, u32 i) {
    return (row + lane() / 4 + i / 2 * 8) * columns + column + lane() % 4 * 2 + i % 2;
}

/// The warp's out = c + a · b, with a 32×16, b 16×24 and c 32×24 after each other in `in`.
template <bool BF16>
DEVICE void multiply_warp(const LawParams& p) {
    const float *left = p.in, *right = left + 32 * 16, *start = right + 16 * 24;
    float acc[2][3][4];
    for (u32 i = 0; i < 24; ++i) acc[i / 12][i / 4 % 3][i % 4] = start[acc_place(24, i / 12 * 16, i / 4 % 3 * 8, i % 4)];
    for (u32 k = 0; k < 16; k += BF16 ? 16 : 8) {
        u32 a[2][4], b[3][2];
        for (u32 i = 0; i < 2; ++i) left_fragment<BF16>(a[i], left, 16, i * 16, k);
        for (u32 j = 0; j < 3; ++j) right_fragment<BF16>(b[j], right, 24, k, j * 8);
        if constexpr (BF16) {
            mma_bf16(acc, a, b);
        } else {
            mma_tf32(acc, a, b);
        }
    }
    for (u32 i = 0; i < 24; ++i) p.out[acc_place(24, i / 12 * 16, i / 4 % 3 * 8, i % 4)] = acc[i / 12][i / 4 % 3][i % 4];
}
KERNEL(law_mma_tf32, LawParams, 32, 1) { multiply_warp<false>(p); }
KERNEL(law_mma_bf16, LawParams, 32, 1) { multiply_warp<true>(p); }

/// A number in units of the core matrices that wgmma_* reads: `width` floats or pairs along k, four of them in a core matrix.
DEVICE u32 core_place(u32 width, u32 k, u32 column) { return (column / 8 * (width / 4) + k / 4) * 32 + column % 8 * 4 + k % 4; }

/// The warpgroup's out = c + 2 a · b, with a 64×16, b 16×64 and c 64×64, once by wgmma_* and after that by mma_*. Bit 0 of n: c is 0;
/// bit 1: b is not fenced.
template <bool BF16>
DEVICE void multiply_warpgroup(const LawParams& p) {
    constexpr u32 K = BF16 ? 16 : 8, WIDTH = BF16 ? 8 : 16; // of a product; of b in registers
    SHARED(float, tile, 64 * WIDTH);
    const float *left = p.in, *right = left + 64 * 16, *start = right + 16 * 64;
    for (u32 i = threadIdx.x; i < 64 * WIDTH; i += 128) {
        const u32 k = i / 64, column = i % 64;
        const u32 bits = BF16 ? to_bf16(right[2 * k * 64 + column], right[(2 * k + 1) * 64 + column]) : to_tf32(right[k * 64 + column]);
        tile[core_place(WIDTH, k, column)] = __uint_as_float(bits);
    }
    if ((p.n & 2) == 0) fence_async();
    __syncthreads();
    const bool fresh = p.n & 1;
    const u32 row = threadIdx.x / 32 * 16;
    float acc[8][4], other[1][8][4];
    u32 a[16 / K][1][4];
    for (u32 k = 0; k < 16 / K; ++k) left_fragment<BF16>(a[k][0], left, 16, row, k * K);
    for (u32 i = 0; i < 32; ++i) {
        acc[i / 4][i % 4] = start[acc_place(64, row, i / 4 * 8, i % 4)];
        other[0][i / 4][i % 4] = fresh ? 0 : acc[i / 4][i % 4];
    }
    wgmma_fence();
    for (u32 round = 0; round < 2; ++round) {
        for (u32 k = 0; k < 16 / K; ++k) {
            const Shared<const float> b = Shared<const float>(tile) + k * 64;
            const bool accumulate = !fresh || round > 0 || k > 0;
            if constexpr (BF16) {
                wgmma_bf16(acc, a[k][0], b, 128, WIDTH * 32, accumulate);
            } else {
                wgmma_tf32(acc, a[k][0], b, 128, WIDTH * 32, accumulate);
            }
        }
        wgmma_commit();
    }
    wgmma_wait<0>();
    for (u32 round = 0; round < 2; ++round) {
        for (u32 k = 0; k < 16 / K; ++k) {
            u32 b[8][2];
            for (u32 j = 0; j < 8; ++j) right_fragment<BF16>(b[j], right, 64, k * K, j * 8);
            if constexpr (BF16) {
                mma_bf16(other, a[k], b);
            } else {
                mma_tf32(other, a[k], b);
            }
        }
    }
    for (u32 i = 0; i < 32; ++i) {
        const u32 at = acc_place(64, row, i / 4 * 8, i % 4);
        p.out[at] = acc[i / 4][i % 4];
        p.out[64 * 64 + at] = other[0][i / 4][i % 4];
    }
}
KERNEL(law_wgmma_tf32, LawParams, 128, 1) { multiply_warpgroup<false>(p); }
KERNEL(law_wgmma_bf16, LawParams, 128, 1) { multiply_warpgroup<true>(p); }

/// Half of the group comes to the product.
KERNEL(fault_group_incomplete, LawParams, 256, 1) {
    SHARED(float, tile, 512);
    float acc[8][4] = {};
    const u32 a[4] = {};
    for (u32 i = threadIdx.x; i < 512; i += blockDim.x) tile[i] = 0;
    fence_async();
    __syncthreads();
    if (threadIdx.x % 128 < 64) wgmma_tf32(acc, a, Shared<const float>(tile), 128, 256, false);
    p.out[grid_thread()] = acc[0][0];
}

/// Nothing but n products by each warp, 8192 multiplications of a · b each, to measure them.
KERNEL(law_mma, LawParams, 256, 1) {
    float acc[2][4][4] = {};
    u32 a[2][4], b[4][2];
    for (u32 i = 0; i < 8; ++i) {
        a[i / 4][i % 4] = to_tf32(1.0f / float(threadIdx.x + i + 1));
        b[i / 2][i % 2] = to_tf32(1.0f / float(threadIdx.x + i + 9));
    }
    for (u32 round = 0; round < p.n; ++round) mma_tf32(acc, a, b);
    float sum = 0;
    for (u32 i = 0; i < 32; ++i) sum += acc[i / 16][i / 4 % 4][i % 4];
    p.out[grid_thread()] = sum;
}

/// The block copies n tiles of 512 numbers, the next while it works on the last; out = the sum over tiles of the number that another
/// thread has copied. MISTAKE 1: it does not wait; 2: it waits for the wrong group; 3: there is no barrier after the wait; 4: none before
/// the next copy.
template <u32 MISTAKE>
DEVICE void copy_tiles(const LawParams& p) {
    SHARED(float, tile, 2 * 512);
    const auto begin = [&](u32 round) {
        if (round < p.n) copy_async(Shared<float>(tile) + round % 2 * 512 + threadIdx.x * 4, p.in + round * 512 + threadIdx.x * 4);
        commit_copies();
    };
    float sum = 0;
    begin(0);
    for (u32 round = 0; round < p.n; ++round) {
        begin(round + 1);
        if (MISTAKE == 2) {
            wait_copies<2>();
        } else if (MISTAKE != 1) {
            wait_copies<1>();
        }
        if (MISTAKE != 3) __syncthreads();
        sum += tile[round % 2 * 512 + (threadIdx.x * 4 + 64) % 512];
        if (MISTAKE != 4) __syncthreads();
    }
    p.out[grid_thread()] = sum;
}
KERNEL(law_copies, LawParams, 128, 1) { copy_tiles<0>(p); }
KERNEL(fault_copies_not_awaited, LawParams, 128, 1) { copy_tiles<1>(p); }
KERNEL(fault_copies_awaited_late, LawParams, 128, 1) { copy_tiles<2>(p); }
KERNEL(fault_copies_not_shared, LawParams, 128, 1) { copy_tiles<3>(p); }
KERNEL(fault_copies_too_early, LawParams, 128, 1) { copy_tiles<4>(p); }

enum Mistake : u32 {
    NO_MISTAKE,
    ARRIVAL_FORGOTTEN,   // one warp releases no stage
    TOO_FEW_ARRIVALS,    // a stage is free once one of the warpgroups has left it
    STAGE_NOT_AWAITED,   // a warpgroup does not wait for what it reads
    RELEASED_EARLY,      // stages are released before they are read
    WARP_NOT_TOGETHER,   // a lane releases the stage for its warp, which it has not met
    BYTES_FORGOTTEN,     // fewer are expected than come
    ANOTHER_STAGE,       // the barrier of the stage after is awaited
    NOTHING_AWAITED_END, // the last tiles are copied, and nobody reads them
};

/// A warp copies n tiles of 512 numbers into a ring of stages, and two warpgroups work on them: out = the sum over tiles of a number of
/// it, and behind these for the thread of a warpgroup four sums over tiles of acc = a · b, where the tile is b and a is thread / 16.
template <u32 MISTAKE>
DEVICE void run_ring(const LawParams& p) {
    constexpr u32 STAGES = 3, TILE = 512;
    SHARED(float, ring, STAGES * TILE);
    SHARED(u64, full, STAGES);
    SHARED(u64, empty, STAGES);
    const u32 warp = threadIdx.x / 32;
    if (threadIdx.x == 0) {
        for (u32 stage = 0; stage < STAGES; ++stage) {
            init_arrivals(full + stage, 1);
            init_arrivals(empty + stage, MISTAKE == TOO_FEW_ARRIVALS ? 4 : 8);
        }
    }
    __syncthreads();
    if (warp == 8) {
        const u32 tiles = p.n + (MISTAKE == NOTHING_AWAITED_END ? 1 : 0);
        for (u32 n = 0; n < tiles && lane() == 0; ++n) {
            const u32 stage = n % STAGES;
            await_arrivals(empty + stage, n / STAGES % 2 ^ 1);
            arrive_expecting(full + stage, MISTAKE == BYTES_FORGOTTEN ? 1024 : TILE * 4);
            const float* from = p.in + n % p.n * TILE; // in two pieces
            copy_bulk(Shared<float>(ring) + stage * TILE, from, 512, full + stage);
            copy_bulk(Shared<float>(ring) + stage * TILE + 128, from + 128, TILE * 4 - 512, full + stage);
        }
        return;
    }
    float sum = 0, acc[8][4];
    const u32 bits = to_tf32(float(threadIdx.x / 16)), a[4] = {bits, bits, bits, bits};
    const auto release = [&](u32 n) {
        if (MISTAKE != WARP_NOT_TOGETHER) __syncwarp();
        if (lane() == 0 && !(MISTAKE == ARRIVAL_FORGOTTEN && warp == 3)) arrive(empty + n % STAGES);
    };
    for (u32 n = 0; n < p.n; ++n) {
        const u32 stage = n % STAGES, awaited = MISTAKE == ANOTHER_STAGE ? (n + 1) % STAGES : stage;
        if (MISTAKE == ANOTHER_STAGE) {
            if (n + 1 < p.n) await_arrivals(full + awaited, (n + 1) / STAGES % 2);
        } else if (!(MISTAKE == STAGE_NOT_AWAITED && warp >= 4)) {
            await_arrivals(full + stage, n / STAGES % 2);
        }
        if (MISTAKE == RELEASED_EARLY) release(n);
        sum += ring[stage * TILE + (threadIdx.x * 5 + lane()) % TILE];
        wgmma_fence();
        wgmma_tf32(acc, a, Shared<const float>(ring) + stage * TILE, 128, 256, n > 0);
        wgmma_commit();
        wgmma_wait<0>();
        if (MISTAKE != RELEASED_EARLY) release(n);
    }
    p.out[blockIdx.x * 256 + threadIdx.x] = sum;
    for (u32 i = 0; i < 4; ++i) p.out[gridDim.x * 256 + (blockIdx.x * 256 + threadIdx.x) * 4 + i] = acc[i * 2][i];
}
KERNEL(law_ring, LawParams, 288, 1) { run_ring<NO_MISTAKE>(p); }
KERNEL(fault_arrival_forgotten, LawParams, 288, 1) { run_ring<ARRIVAL_FORGOTTEN>(p); }
KERNEL(fault_too_few_arrivals, LawParams, 288, 1) { run_ring<TOO_FEW_ARRIVALS>(p); }
KERNEL(fault_stage_not_awaited, LawParams, 288, 1) { run_ring<STAGE_NOT_AWAITED>(p); }
KERNEL(fault_released_early, LawParams, 288, 1) { run_ring<RELEASED_EARLY>(p); }
KERNEL(fault_warp_not_together, LawParams, 288, 1) { run_ring<WARP_NOT_TOGETHER>(p); }
KERNEL(fault_bytes_forgotten, LawParams, 288, 1) { run_ring<BYTES_FORGOTTEN>(p); }
KERNEL(fault_another_stage, LawParams, 288, 1) { run_ring<ANOTHER_STAGE>(p); }
KERNEL(fault_copies_left, LawParams, 288, 1) { run_ring<NOTHING_AWAITED_END>(p); }

/// As above with one warpgroup and one stage, which is released while the product that reads it may still be on its way.
KERNEL(fault_released_before_product, LawParams, 160, 1) {
    SHARED(float, stage, 512);
    SHARED(u64, full, 1);
    SHARED(u64, empty, 1);
    if (threadIdx.x == 0) {
        init_arrivals(full, 1);
        init_arrivals(empty, 128);
    }
    __syncthreads();
    if (threadIdx.x >= 128) {
        for (u32 n = 0; n < p.n && threadIdx.x == 128; ++n) {
            await_arrivals(empty, n % 2 ^ 1);
            arrive_expecting(full, 2048);
            copy_bulk(stage, p.in, 2048, full);
        }
        return;
    }
    float acc[8][4] = {};
    const u32 a[4] = {};
    for (u32 n = 0; n < p.n; ++n) {
        await_arrivals(full, n % 2);
        wgmma_fence();
        wgmma_tf32(acc, a, Shared<const float>(stage), 128, 256, true);
        wgmma_commit();
        arrive(empty);
        wgmma_wait<0>();
    }
    p.out[grid_thread()] = acc[0][0];
}

/// out = in, by a bulk copy that one thread awaits for all. n is a mistake: 1 nobody awaits it; 2 two copies go to one place; 3 the
/// size is odd; 4 there is no barrier; 5 a thread arrives too often.
KERNEL(law_bulk_copy, LawParams, 128, 1) {
    SHARED(float, row, 128);
    SHARED(u64, full, 2);
    if (threadIdx.x == 0) init_arrivals(full, 1);
    __syncthreads();
    if (threadIdx.x == 64) {
        arrive_expecting(full + (p.n == 4 ? 1 : 0), p.n == 2 ? 1024 : 512);
        copy_bulk(row, p.in, p.n == 3 ? 510 : 512, full);
        if (p.n == 2) copy_bulk(row, p.in, 512, full);
        if (p.n == 5) arrive(full);
        if (p.n != 1) await_arrivals(full, 0);
    }
    __syncthreads();
    p.out[grid_thread()] = row[threadIdx.x];
}

/// Pairs of warps exchange numbers n times, each by a barrier of its own; WRONG: with a warp of another pair.
template <bool WRONG>
DEVICE void exchange_in_pairs(const LawParams& p) {
    SHARED(float, row, 256);
    const u32 pair = threadIdx.x / 64, partner = WRONG ? threadIdx.x ^ 96 : threadIdx.x ^ 32;
    row[threadIdx.x] = 0;
    __syncthreads();
    float sum = 0;
    for (u32 n = 0; n < p.n + pair; ++n) { // pairs meet differently often
        row[threadIdx.x] = float(threadIdx.x + n);
        meet_warps(1 + pair, 64);
        if (n < p.n) sum += row[partner] + row[threadIdx.x ^ 1];
        meet_warps(1 + pair, 64);
    }
    p.out[grid_thread()] = sum;
}
KERNEL(law_pairs, LawParams, 256, 1) { exchange_in_pairs<false>(p); }
KERNEL(fault_pairs_mixed, LawParams, 256, 1) { exchange_in_pairs<true>(p); }

/// A warp never comes; half of a warp comes.
KERNEL(fault_warp_missing, LawParams, 256, 1) {
    if (threadIdx.x / 32 != 5) meet_warps(3, 256);
}
KERNEL(fault_warp_in_part, LawParams, 256, 1) {
    if (lane() < 16) meet_warps(3, 128);
}
