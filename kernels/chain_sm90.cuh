// The products of chain.cuh as sm_90a makes them: wgmma, with rows from registers and weights from shared memory, where a thread that does
// nothing else brings them by bulk copies.
//
// Two warpgroups multiply 64 rows each (or, for W > 256, the same 64 rows by half of the columns each); while one of them waits for its
// sums the other keeps the tensor cores busy. A slice of a matrix is stored as the instruction reads it: core matrices of 8 columns ×
// 16 bytes, first the two of one step along k, then those of the next. Split numbers follow each other as slices, high parts before
// low ones, each of 16 along k. Slices lie in global memory as they do in shared memory, so that no tensor map is needed.
//
// The third warpgroup leaves its registers to the others. One of its threads takes orders, matrix by matrix, and sends slices to the
// ring's stages as they become free, so that weights are there before they are asked for.
#pragma once
#include "chain.cuh"

#ifdef PULLBACK_SM90

template <u32 W>
struct ProductsSm90 {
    using Place = WarpPlace<W, (W <= 256 ? 1 : 2)>;
    /// A third warpgroup, since registers are shared out by groups: one of its threads works.
    static constexpr u32 THREADS = CHAIN_THREADS + 4 * WARP;
    static constexpr u32 BLOCKS = 1;
    static constexpr u32 MF = Place::MF, NF = Place::NF;
    static_assert(MF == 1 && NF % 8 == 0, "a warp has 16 rows of its group's 64, and 64 columns at a time");
    static constexpr u32 MOST_STAGES = 4;
    /// Orders that may be open: one is carried out while the next waits.
    static constexpr u32 ORDERS = 4;

    float sums[MF][NF][4];

    Shared<float> memory;
    Shared<u64> full, empty; // for every stage
    Shared<u64> ordered;     // for every order
    Shared<u64> sources;     // of orders: the first slice's address,
    Shared<u32> shapes;      // and how many there are, their bytes and their distance in numbers
    u32 stages, used, orders;
    bool is_ordered; // the matrix that comes next is on its way

    DEVICE ProductsSm90(Shared<float> memory, u32 stages)
        : memory(memory), stages(stages), used(0), orders(0), is_ordered(false) {
        SHARED(u64, barriers, 2 * MOST_STAGES + ORDERS);
        SHARED(u64, of_orders, ORDERS);
        SHARED(u32, shapes_of_orders, 3 * ORDERS);
        full = Shared<u64>(barriers), empty = full + MOST_STAGES, ordered = empty + MOST_STAGES;
        sources = Shared<u64>(of_orders), shapes = Shared<u32>(shapes_of_orders);
        if (threadIdx.x == 0) {
            for (u32 i = 0; i < stages; i++) {
                init_arrivals(full + i, 1);
                init_arrivals(empty + i, WARPS);
            }
            for (u32 i = 0; i < ORDERS; i++) init_arrivals(ordered + i, 1);
        }
        __syncthreads();
    }

    DEVICE bool begin() {
        if (threadIdx.x < CHAIN_THREADS) {
            claim_registers<240>();
            return true;
        }
        give_registers<24>();
        if (threadIdx.x == CHAIN_THREADS) serve();
        return false;
    }
    DEVICE void end() { order({nullptr, 0, 0, NO_PLACE, 1}); }
    DEVICE static void meet() { meet_warps(1, CHAIN_THREADS); }

    DEVICE void settle(const Matrix& matrix) {
        const u32 pieces = matrix.count * matrix.step * matrix.columns * (SLICE / 4);
        for (u32 i = threadIdx.x; i < pieces; i += CHAIN_THREADS) copy_async(memory + (matrix.resident + 4 * i), matrix.slices + 4 * i);
        commit_copies();
        wait_copies<0>();
        fence_async();
    }

    template <u32 ARITHMETIC>
    DEVICE void multiply(const Rows<W>& rows, u32 live, const Matrix& matrix, const Matrix& next) {
        UNROLL for (u32 j = 0; j < NF; j++) {
            UNROLL for (u32 e = 0; e < 4; e++) sums[0][j][e] = 0.0f;
        }
        const Place at;
        const bool wanted = at.row / 64 * 64 < uniform(live); // the same for a whole group
        if (matrix.resident != NO_PLACE) {
            for (u32 s = 0; wanted && s < matrix.count; s++) {
                slice<ARITHMETIC>(at, rows, matrix.columns, s, memory + (matrix.resident + s * matrix.step * matrix.columns * SLICE));
            }
            return;
        }
        if (!is_ordered) order(matrix);
        is_ordered = next.count != 0;
        if (is_ordered) order(next);
        for (u32 s = 0; s < matrix.count; s++, used++) {
            const u32 stage = used % stages;
            await_arrivals(full + stage, used / stages % 2);
            if (wanted) slice<ARITHMETIC>(at, rows, matrix.columns, s, memory + stage * (W * SLICE));
            __syncwarp();
            if (lane() == 0) arrive(empty + stage);
        }
    }

    /// See WarpPlace.
    template <class F>
    DEVICE void each_row(u32 columns, F f) {
        Place().each_row(sums, columns, f);
    }

private:
    /// Has a matrix brought; without slices, the last order. An order's place is free again once its matrix has passed.
    DEVICE void order(const Matrix& matrix) {
        if (threadIdx.x == 0) {
            const u32 place = orders % ORDERS;
            sources[place] = u64(matrix.slices);
            shapes[3 * place] = matrix.count;
            shapes[3 * place + 1] = matrix.columns * (SLICE * 4);
            shapes[3 * place + 2] = matrix.columns * SLICE * matrix.step;
            arrive(ordered + place);
        }
        orders++;
    }

    /// Carries out orders: every slice goes to the next stage as soon as that is free.
    DEVICE void serve() {
        for (u32 number = 0, sent = 0;; number++) {
            const u32 place = number % ORDERS;
            await_arrivals(ordered + place, number / ORDERS % 2);
            const u32 count = shapes[3 * place], bytes = shapes[3 * place + 1], distance = shapes[3 * place + 2];
            if (count == 0) return;
            const float* from = reinterpret_cast<const float*>(u64(sources[place]));
            for (u32 s = 0; s < count; s++, sent++, from += distance) {
                const u32 stage = sent % stages;
                if (sent >= stages) await_arrivals(empty + stage, (sent / stages - 1) % 2);
                arrive_expecting(full + stage, bytes);
                copy_bulk(memory + stage * (W * SLICE), from, bytes, full + stage);
            }
        }
    }

    template <u32 ARITHMETIC>
    DEVICE void slice(const Place& at, const Rows<W>& rows, u32 columns, u32 s, Shared<float> slices) {
        const u32 lane = lane_again(), t = lane % 4, row = at.row + lane / 4;
        // From one core matrix to the next along k; along the columns it is 128 bytes.
        const u32 k_stride = columns * 16, step_numbers = columns * 8;
        Shared<float> mine = slices + at.column * 4;
        u32 a[2][4];
        if constexpr (ARITHMETIC == BF16) {
            UNROLL for (u32 step = 0; step < 2; step++) {
                const u32 piece = 8 * s + 4 * step + t;
                bf16_rows(rows.load(row, piece), rows.load(row + 8, piece), a[step]);
            }
        } else {
            // Of split numbers a slice along k has two: the high parts of the weights, then the low ones.
            const u32 piece = (ARITHMETIC == TF32X3 ? s / 2 : s) * 4 + t;
            const float4 low = rows.load(row, piece), high = rows.load(row + 8, piece);
            UNROLL for (u32 step = 0; step < 2; step++) {
                UNROLL for (u32 e = 0; e < 2; e++) {
                    a[step][2 * e] = __float_as_uint(part(low, 2 * step + e));
                    a[step][2 * e + 1] = __float_as_uint(part(high, 2 * step + e));
                }
            }
        }
        if constexpr (ARITHMETIC == TF32X3) {
            u32 a_low[2][4];
            UNROLL for (u32 step = 0; step < 2; step++) {
                UNROLL for (u32 e = 0; e < 4; e++) split(__uint_as_float(a[step][e]), a[step][e], a_low[step][e]);
            }
            const bool of_high = s % 2 == 0;
            UNROLL for (u32 from = 0; from < NF; from += 8) {
                if (at.column + 8 * from >= columns) continue;
                // Tensor cores cut sums off instead of rounding them: their own are kept short.
                float short_sums[8][4];
                wgmma_fence();
                UNROLL for (u32 step = 0; step < 2; step++) {
                    Shared<float> b = mine + (step * step_numbers + from * 32);
                    wgmma_tf32(short_sums, a[step], b, k_stride, 128, step > 0);
                    if (of_high) wgmma_tf32(short_sums, a_low[step], b, k_stride, 128, true);
                }
                wgmma_commit();
                wgmma_wait<0>();
                UNROLL for (u32 j = 0; j < 8; j++) {
                    UNROLL for (u32 e = 0; e < 4; e++) sums[0][from + j][e] += short_sums[j][e];
                }
            }
        } else {
            wgmma_fence();
            UNROLL for (u32 step = 0; step < 2; step++) {
                UNROLL for (u32 from = 0; from < NF; from += 8) {
                    if (at.column + 8 * from >= columns) continue;
                    Shared<float> b = mine + (step * step_numbers + from * 32);
                    if constexpr (ARITHMETIC == BF16) {
                        wgmma_bf16(chunk(from), a[step], b, k_stride, 128, true);
                    } else {
                        wgmma_tf32(chunk(from), a[step], b, k_stride, 128, true);
                    }
                }
            }
            wgmma_commit();
            wgmma_wait<0>();
        }
    }

    DEVICE float (&chunk(u32 from))[8][4] { return *reinterpret_cast<float(*)[8][4]>(&sums[0][from]); }
};

#endif
