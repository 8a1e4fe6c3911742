// Rows of a decoder's chain in shared memory, and their products with a layer's weights on tensor cores.
//
// A block of eight warps holds ROWS rows of W numbers in shared memory: values, tangents or adjoints, a layer's input until all
// products with it are in registers, then its output. Weights pass by in slices of 16 along k, through a ring of stages or, where
// all of them fit, from where they stay. Rows never leave the block.
//
//   C[m, n] += Σ_k rows[m, k] · matrix[n, k]      matrix as PyTorch stores it for the way out, transposed for the way back
//
// Inside a slice lane 4g + t takes the numbers k = 4t … 4t + 3 of its rows and columns, 16 bytes at once: the sum runs over k in any
// order, so that two steps of an m16n8k8 product take {4t, 4t + 1} and {4t + 2, 4t + 3}. The 16-byte pieces of a row are exchanged
// among eight by the bits of its number, reversed: eight lanes that read or write at once never meet in a bank.
//
// Two builds: this file's mma.sync with cp.async, from sm_80 on, and that of chain_sm90.cuh.
#pragma once
#include "device.cuh"
#include "tensor.cuh"

/// How products are computed; `Precision` in src/precision.rs.
enum Arithmetic : u32 {
    TF32X3, // hi·hi + hi·lo + lo·hi of numbers split into two TF32 parts; slices summed in float32, rounded to nearest
    TF32,
    BF16,
};

constexpr u32 WARPS = 8;
/// Numbers of a slice along k.
constexpr u32 SLICE = 16;
constexpr u32 NO_PLACE = 0xffffffffu;

/// A matrix on its way through products.
struct Matrix {
    /// [count, columns · 16 numbers of 32 bits], in the order in which lanes read them; see src/cuda/slices.rs. A slice of bfloat16
    /// holds 32 numbers along k instead of 16.
    const float* slices;
    u32 count;
    /// A multiple of 64.
    u32 columns;
    /// Where its slices stay in shared memory, in numbers, or NO_PLACE.
    u32 resident;
    /// 2 where every second slice is passed over, else 1.
    u32 step;
};

/// Rows of W numbers.
template <u32 W>
struct Rows {
    Shared<float> base;

    /// Place of 16 bytes: numbers 4 · piece … of a row.
    DEVICE u32 place(u32 row, u32 piece) const {
        const u32 exchange = (row & 1) << 2 | (row & 2) | (row >> 2 & 1);
        return row * W + (piece ^ exchange) * 4;
    }
    DEVICE float4 load(u32 row, u32 piece) const { return load4(base + place(row, piece)); }
    DEVICE void store(u32 row, u32 piece, float4 four) const { store4(base + place(row, piece), four); }
    DEVICE void store(u32 place, float x, float y) const { store2(base + place, make_float2(x, y)); }
};

/// A number that is the same in all lanes, in a way that the compiler sees.
DEVICE u32 uniform(u32 number) { return __shfl_sync(ALL_LANES, number, 0); }

/// Which rows and columns of a product one warp makes.
template <u32 W, u32 ACROSS>
struct WarpPlace {
    static constexpr u32 ROWS = W <= 256 ? 128 : 64;
    static constexpr u32 DOWN = WARPS / ACROSS;
    /// Fragments of 16 rows and of 8 columns.
    static constexpr u32 MF = ROWS / DOWN / 16, NF = W / ACROSS / 8;

    static_assert(8 * NF % 32 == 0, "where a warp's columns begin, eight pieces of 16 bytes do");

    u32 row, column;

    DEVICE WarpPlace() {
        const u32 warp = uniform(thread_again() / WARP);
        row = warp % DOWN * (16 * MF), column = warp / DOWN * (8 * NF);
    }

    /// The sums of one row: each(f) calls f(place in the rows, column, x, y) for every pair in neighbouring columns.
    struct Row {
        float (&sums)[NF][4];
        const u32 (&places)[4];
        u32 half, distance, first, columns;

        template <class F>
        DEVICE void each(F f) const {
            UNROLL for (u32 j = 0; j < NF; j++) {
                if (j / 4 * 32 < columns) f(places[j % 4] + (distance + j / 4 * 32), first + 8 * j, sums[j][2 * half], sums[j][2 * half + 1]);
            }
        }
    };

    /// Calls f(number of the row, Row) for all of this thread's rows.
    template <class F>
    DEVICE void each_row(float (&sums)[MF][NF][4], u32 columns, F f) const {
        const u32 lane = lane_again(), g = lane / 4, t = lane % 4;
        // The places of the first four pairs; others are a constant away.
        u32 places[4];
        UNROLL for (u32 j = 0; j < 4; j++) places[j] = Rows<W>{}.place(row + g, column / 4 + 2 * j + t / 2) + t % 2 * 2;
        UNROLL for (u32 i = 0; i < 2 * MF; i++) {
            f(row + g + 8 * i, Row{sums[i / 2], places, i % 2, 8 * i * W, column + 2 * t, columns - min(columns, column)});
        }
    }
};

/// A number as its TF32 parts; what is left of the second is dropped by the product.
DEVICE void split(float x, u32& high, u32& low) {
    high = to_tf32(x);
    low = __float_as_uint(x - __uint_as_float(high));
}

/// What a product takes of a number that is kept in shared memory.
template <u32 ARITHMETIC>
DEVICE float kept(float x) {
    return ARITHMETIC == TF32 ? __uint_as_float(to_tf32(x)) : x;
}
template <u32 ARITHMETIC>
DEVICE float4 kept(float4 x) {
    return make_float4(kept<ARITHMETIC>(x.x), kept<ARITHMETIC>(x.y), kept<ARITHMETIC>(x.z), kept<ARITHMETIC>(x.w));
}

DEVICE float part(const float4& x, u32 i) { return i == 0 ? x.x : i == 1 ? x.y : i == 2 ? x.z : x.w; }

/// acc += a · bᵀ over one slice: `low` and `high` are a lane's four numbers of rows g and g + 8, `b` those of its columns.
template <u32 ARITHMETIC, u32 MF, u32 NF>
DEVICE void slice_products(float (&acc)[MF][NF][4], const float4 (&low)[MF], const float4 (&high)[MF], const float4 (&b)[NF]) {
    if constexpr (ARITHMETIC == TF32X3) {
        float sums[MF][NF][4];
        UNROLL for (u32 i = 0; i < MF; i++) {
            UNROLL for (u32 j = 0; j < NF; j++) {
                UNROLL for (u32 e = 0; e < 4; e++) sums[i][j][e] = 0.0f;
            }
        }
        UNROLL for (u32 step = 0; step < 2; step++) {
            u32 a_high[MF][4], a_low[MF][4], b_high[NF][2], b_low[NF][2];
            UNROLL for (u32 i = 0; i < MF; i++) {
                UNROLL for (u32 e = 0; e < 2; e++) {
                    split(part(low[i], 2 * step + e), a_high[i][2 * e], a_low[i][2 * e]);
                    split(part(high[i], 2 * step + e), a_high[i][2 * e + 1], a_low[i][2 * e + 1]);
                }
            }
            UNROLL for (u32 j = 0; j < NF; j++) {
                UNROLL for (u32 e = 0; e < 2; e++) split(part(b[j], 2 * step + e), b_high[j][e], b_low[j][e]);
            }
            mma_tf32(sums, a_low, b_high);
            mma_tf32(sums, a_high, b_low);
            mma_tf32(sums, a_high, b_high);
        }
        // Tensor cores cut sums off instead of rounding them: their own are kept short.
        UNROLL for (u32 i = 0; i < MF; i++) {
            UNROLL for (u32 j = 0; j < NF; j++) {
                UNROLL for (u32 e = 0; e < 4; e++) acc[i][j][e] += sums[i][j][e];
            }
        }
    } else {
        UNROLL for (u32 step = 0; step < 2; step++) {
            u32 a[MF][4], columns[NF][2];
            UNROLL for (u32 i = 0; i < MF; i++) {
                UNROLL for (u32 e = 0; e < 2; e++) {
                    a[i][2 * e] = __float_as_uint(part(low[i], 2 * step + e));
                    a[i][2 * e + 1] = __float_as_uint(part(high[i], 2 * step + e));
                }
            }
            UNROLL for (u32 j = 0; j < NF; j++) {
                UNROLL for (u32 e = 0; e < 2; e++) columns[j][e] = __float_as_uint(part(b[j], 2 * step + e));
            }
            mma_tf32(acc, a, columns);
        }
    }
}

/// A lane's part of rows as bfloat16: the four registers of an m16n8k16 product.
DEVICE void bf16_rows(const float4& low, const float4& high, u32 (&a)[4]) {
    a[0] = to_bf16(low.x, low.y), a[1] = to_bf16(high.x, high.y);
    a[2] = to_bf16(low.z, low.w), a[3] = to_bf16(high.z, high.w);
}

/// Threads that multiply, and that do everything else.
constexpr u32 CHAIN_THREADS = WARPS * WARP;

/// Products of the block's rows with one matrix after the other.
///
/// All CHAIN_THREADS call `multiply` alike. Rows may be written again once they have met behind it.
template <u32 W>
struct Products {
    using Place = WarpPlace<W, (W <= 192 ? 2 : W <= 384 ? 4 : 8)>;
    static constexpr u32 THREADS = CHAIN_THREADS;
    /// Blocks on a multiprocessor, which registers are rationed for.
    static constexpr u32 BLOCKS = W <= 64 ? 2 : 1;
    static constexpr u32 MF = Place::MF, NF = Place::NF;

    float sums[MF][NF][4];

    Shared<float> memory; // stages, or all matrices
    u32 stages;
    u32 used;  // slices that have passed
    u32 ahead; // slices of the next matrix that are on their way

    DEVICE Products(Shared<float> memory, u32 stages) : memory(memory), stages(stages), used(0), ahead(0) {}

    /// False for threads that only serve the others, which then have nothing left to do.
    DEVICE bool begin() { return true; }
    DEVICE void end() {}
    /// The CHAIN_THREADS wait for each other.
    DEVICE static void meet() { __syncthreads(); }

    /// Copies a matrix to where it stays.
    DEVICE void settle(const Matrix& matrix) {
        const u32 pieces = matrix.count * matrix.step * matrix.columns * (SLICE / 4);
        for (u32 i = threadIdx.x; i < pieces; i += CHAIN_THREADS) copy_async(memory + (matrix.resident + 4 * i), matrix.slices + 4 * i);
        commit_copies();
        wait_copies<0>();
    }

    /// sums = rows · matrixᵀ for the first `live` rows. `next` is the matrix of the next call, or has no slices: its first are fetched.
    template <u32 ARITHMETIC>
    DEVICE void multiply(const Rows<W>& rows, u32 live, const Matrix& matrix, const Matrix& next) {
        UNROLL for (u32 i = 0; i < MF; i++) {
            UNROLL for (u32 j = 0; j < NF; j++) {
                UNROLL for (u32 e = 0; e < 4; e++) sums[i][j][e] = 0.0f;
            }
        }
        const Place at;
        live = uniform(live);
        if (matrix.resident != NO_PLACE) {
            for (u32 s = 0; s < matrix.count; s++) {
                slice<ARITHMETIC>(at, rows, live, matrix.columns, s, memory + (matrix.resident + s * matrix.step * matrix.columns * SLICE));
            }
            return;
        }
        // What is short leaves room for what comes after it.
        for (; ahead + 1 < stages; ahead++) {
            if (ahead < matrix.count) {
                fetch(matrix, ahead, ahead);
            } else {
                fetch(next, ahead - matrix.count, ahead);
            }
        }
        for (u32 s = 0; s < matrix.count; s++) {
            if (stages == 2) {
                wait_copies<0>();
            } else if (stages == 3) {
                wait_copies<1>();
            } else {
                wait_copies<2>();
            }
            meet();
            const u32 coming = s + stages - 1;
            if (coming < matrix.count) {
                fetch(matrix, coming, stages - 1);
            } else {
                fetch(next, coming - matrix.count, stages - 1);
            }
            slice<ARITHMETIC>(at, rows, live, matrix.columns, s, memory + used % stages * (W * SLICE));
            used++;
        }
        ahead = min(next.count, stages - 1);
    }

    /// See WarpPlace.
    template <class F>
    DEVICE void each_row(u32 columns, F f) {
        Place().each_row(sums, columns, f);
    }

private:
    /// Starts the copy of slice s to `behind` stages after the one in use; an empty one where there is no such slice.
    DEVICE void fetch(const Matrix& matrix, u32 s, u32 behind) {
        if (s < matrix.count) {
            const u32 pieces = matrix.columns * (SLICE / 4);
            const float* from = matrix.slices + u64(s) * matrix.step * matrix.columns * SLICE;
            Shared<float> to = memory + (used + behind) % stages * (W * SLICE);
            UNROLL for (u32 turn = 0; turn < W * (SLICE / 4) / CHAIN_THREADS; turn++) {
                const u32 i = threadIdx.x + turn * CHAIN_THREADS;
                if (i < pieces) copy_async(to + 4 * i, from + 4 * i);
            }
        }
        commit_copies();
    }

    template <u32 ARITHMETIC>
    DEVICE void slice(const Place& at, const Rows<W>& rows, u32 live, u32 columns, u32 s, Shared<float> stage) {
        if (at.row >= live) return;
        const u32 lane = lane_again(), g = lane / 4, t = lane % 4;
        Shared<float> mine = stage + (at.column / 8 * WARP + lane) * 4;
        if constexpr (ARITHMETIC == BF16) {
            u32 a[2][MF][4];
            UNROLL for (u32 step = 0; step < 2; step++) {
                UNROLL for (u32 i = 0; i < MF; i++) {
                    const u32 row = at.row + 16 * i + g, piece = 8 * s + 4 * step + t;
                    bf16_rows(rows.load(row, piece), rows.load(row + 8, piece), a[step][i]);
                }
            }
            constexpr u32 AT_ONCE = 2;
            UNROLL for (u32 from = 0; from < NF; from += AT_ONCE) {
                if (at.column + 8 * from >= columns) continue;
                u32 b[2][AT_ONCE][2];
                UNROLL for (u32 j = 0; j < AT_ONCE; j++) {
                    const float4 four = load4(mine + (from + j) * (WARP * 4));
                    b[0][j][0] = __float_as_uint(four.x), b[0][j][1] = __float_as_uint(four.y);
                    b[1][j][0] = __float_as_uint(four.z), b[1][j][1] = __float_as_uint(four.w);
                }
                UNROLL for (u32 step = 0; step < 2; step++) {
                    with_sums<MF, AT_ONCE>(0, from, [&](Sums<MF, AT_ONCE>& acc) { mma_bf16(acc, a[step], b[step]); });
                }
            }
        } else {
            // Split numbers take three times the registers: fewer rows at once, and weights twice from shared memory.
            constexpr u32 ROWS_AT_ONCE = ARITHMETIC == TF32X3 ? 2 : MF, AT_ONCE = ROWS_AT_ONCE == 4 ? 1 : NF % 4 == 0 ? 4 : 2;
            UNROLL for (u32 top = 0; top < MF; top += ROWS_AT_ONCE) {
                float4 low[ROWS_AT_ONCE], high[ROWS_AT_ONCE];
                UNROLL for (u32 i = 0; i < ROWS_AT_ONCE; i++) {
                    const u32 row = at.row + 16 * (top + i) + g, piece = 4 * s + t;
                    low[i] = rows.load(row, piece), high[i] = rows.load(row + 8, piece);
                }
                UNROLL for (u32 from = 0; from < NF; from += AT_ONCE) {
                    if (at.column + 8 * from >= columns) continue;
                    float4 b[AT_ONCE];
                    UNROLL for (u32 j = 0; j < AT_ONCE; j++) b[j] = load4(mine + (from + j) * (WARP * 4));
                    with_sums<ROWS_AT_ONCE, AT_ONCE>(
                        top, from, [&](Sums<ROWS_AT_ONCE, AT_ONCE>& acc) { slice_products<ARITHMETIC>(acc, low, high, b); });
                }
            }
        }
    }

    template <u32 HEIGHT, u32 WIDTH>
    using Sums = float[HEIGHT][WIDTH][4];

    /// f(the sums of some fragments), from `top` and `from` on.
    template <u32 HEIGHT, u32 WIDTH, class F>
    DEVICE void with_sums(u32 top, u32 from, F f) {
        Sums<HEIGHT, WIDTH> acc;
        UNROLL for (u32 i = 0; i < HEIGHT; i++) {
            UNROLL for (u32 j = 0; j < WIDTH; j++) {
                UNROLL for (u32 e = 0; e < 4; e++) acc[i][j][e] = sums[top + i][from + j][e];
            }
        }
        f(acc);
        UNROLL for (u32 i = 0; i < HEIGHT; i++) {
            UNROLL for (u32 j = 0; j < WIDTH; j++) {
                UNROLL for (u32 e = 0; e < 4; e++) sums[top + i][from + j][e] = acc[i][j][e];
            }
        }
    }
};
