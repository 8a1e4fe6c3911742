// Products of gathered rows with a matrix: the one loop in which decode, jacobian and the adjoint pass spend their time.
//
//   C[m, n] = Σ_k a[m, k] · B[k, n]     a[m, k] = input[input_row[m], k] · (factor[factor_row[m], k] or 1)
//
// B is stored [inner, columns]: the transposed weight on the way out, the weight itself on the way back. A block of 256 threads
// makes a tile of 128 rows × COLUMNS (64 or 128); every thread 8 rows × 4 or 8 columns in registers. Both operands pass through
// shared memory in slices of 16 along k, two slices deep, so that the next one is on its way while one is used.
//
// Each row's bits depend on that row alone: k runs in the same order whatever the tile.
//
// Shared memory: 24.5 or 32.5 KiB, and 1.5 KiB of row numbers. FFMA: 2 · rows · inner · columns; bytes from global memory: each
// input row once per column tile, B once per row tile.
#pragma once
#include "device.cuh"

constexpr u32 TILE_ROWS = 128;
constexpr u32 TILE_THREADS = 256;
constexpr u32 TILE_DEPTH = 16;
/// A row that is not there.
constexpr u32 NO_ROW = 0xffffffffu;

/// N where it is known to the compiler, else n.
template <u32 N>
DEVICE u32 known(u32 n) {
    return N != 0 ? N : n;
}

/// Which points a kernel works on: row r is point ids[r], or r itself where `ids` is null.
struct RowList {
    const u32* ids;
    /// Number of rows, where the device counted them.
    const u32* count;
    /// Number of rows otherwise, and at most.
    u32 limit;
    u32 padding;

    DEVICE u32 rows() const { return count == nullptr ? limit : min(*count, limit); }
    DEVICE u32 id(u32 row) const { return ids == nullptr ? row : ids[row]; }
};

template <u32 COLUMNS>
struct ProductTile {
    static constexpr u32 PER_THREAD = COLUMNS / 16;
    static constexpr u32 A_STRIDE = TILE_ROWS + 4; // fewer bank conflicts, still 16-byte rows
    static constexpr u32 A_SIZE = TILE_DEPTH * A_STRIDE;
    static constexpr u32 B_SIZE = TILE_DEPTH * COLUMNS;
    static constexpr u32 SHARED_FLOATS = 2 * (A_SIZE + B_SIZE);
    static constexpr u32 A_LOADS = TILE_ROWS * TILE_DEPTH / TILE_THREADS;
    static constexpr u32 B_LOADS = B_SIZE / TILE_THREADS;

    float sums[8][PER_THREAD];

    /// Fills `sums`. `rows_at` and `factors_at` hold the tile's row numbers; all threads of the block call this.
    template <u32 INNER>
    DEVICE void multiply(Shared<float> tile, const float* input, const float* factor, Shared<u32> rows_at,
                         Shared<u32> factors_at, const float* matrix, u32 inner, u32 columns, u32 first_column) {
        const u32 thread = threadIdx.x;
        const u32 row_group = thread / 16 * 4, column_group = thread % 16 * 4;
        float a_next[A_LOADS], b_next[B_LOADS];
        UNROLL for (u32 i = 0; i < 8; i++) {
            UNROLL for (u32 j = 0; j < PER_THREAD; j++) sums[i][j] = 0.0f;
        }
        load(a_next, b_next, 0, input, factor, rows_at, factors_at, matrix, inner, columns, first_column);
        store(tile, a_next, b_next);
        __syncthreads();
        u32 stage = 0;
        for (u32 from = 0; from < inner; from += TILE_DEPTH) {
            const bool more = from + TILE_DEPTH < inner;
            if (more) {
                load(a_next, b_next, from + TILE_DEPTH, input, factor, rows_at, factors_at, matrix, inner, columns,
                     first_column);
            }
            Shared<float> a_slice = tile + stage * (A_SIZE + B_SIZE), b_slice = a_slice + A_SIZE;
            constexpr u32 DEPTH = INNER != 0 && INNER < TILE_DEPTH ? INNER : TILE_DEPTH;
            UNROLL for (u32 k = 0; k < DEPTH; k++) {
                float a[8], b[PER_THREAD];
                UNROLL for (u32 half = 0; half < 2; half++) {
                    const float4 four = load4(a_slice + (k * A_STRIDE + half * 64 + row_group));
                    a[half * 4] = four.x, a[half * 4 + 1] = four.y, a[half * 4 + 2] = four.z, a[half * 4 + 3] = four.w;
                }
                UNROLL for (u32 part = 0; part < PER_THREAD / 4; part++) {
                    const float4 four = load4(b_slice + (k * COLUMNS + part * 64 + column_group));
                    b[part * 4] = four.x, b[part * 4 + 1] = four.y, b[part * 4 + 2] = four.z, b[part * 4 + 3] = four.w;
                }
                UNROLL for (u32 i = 0; i < 8; i++) {
                    UNROLL for (u32 j = 0; j < PER_THREAD; j++) sums[i][j] += a[i] * b[j];
                }
            }
            stage ^= 1;
            if (more) store(tile + stage * (A_SIZE + B_SIZE), a_next, b_next);
            __syncthreads();
        }
    }

    /// Hands every sum to `write(row of the tile, column of the tile, sum)`, neighbouring columns to neighbouring threads.
    ///
    /// By way of shared memory, half a tile at a time: stores to global memory are whole lines, and the code of `write` stands
    /// there once instead of once for every sum.
    template <class Write>
    DEVICE void write(Shared<float> tile, Write write) {
        const u32 thread = threadIdx.x;
        const u32 row_group = thread / 16 * 4, column_group = thread % 16 * 4;
        UNROLL for (u32 half = 0; half < 2; half++) {
            UNROLL for (u32 i = 0; i < 4; i++) {
                UNROLL for (u32 part = 0; part < PER_THREAD / 4; part++) {
                    const float* four = sums[half * 4 + i] + part * 4;
                    store4(tile + ((row_group + i) * COLUMNS + part * 64 + column_group),
                           make_float4(four[0], four[1], four[2], four[3]));
                }
            }
            __syncthreads();
            for (u32 at = thread; at < 64 * COLUMNS; at += TILE_THREADS) {
                write(half * 64 + at / COLUMNS, at % COLUMNS, tile[at]);
            }
            __syncthreads();
        }
    }

private:
    DEVICE static void load(float (&a_next)[A_LOADS], float (&b_next)[B_LOADS], u32 from, const float* input,
                            const float* factor, Shared<u32> rows_at, Shared<u32> factors_at, const float* matrix,
                            u32 inner, u32 columns, u32 first_column) {
        const u32 thread = threadIdx.x;
        const u32 k = from + thread % TILE_DEPTH;
        UNROLL for (u32 i = 0; i < A_LOADS; i++) {
            const u32 row = rows_at[thread / TILE_DEPTH + i * (TILE_THREADS / TILE_DEPTH)];
            a_next[i] = row != NO_ROW && k < inner ? input[u64(row) * inner + k] : 0.0f;
        }
        if (factor != nullptr) {
            UNROLL for (u32 i = 0; i < A_LOADS; i++) {
                const u32 row = factors_at[thread / TILE_DEPTH + i * (TILE_THREADS / TILE_DEPTH)];
                if (row != NO_ROW && k < inner) a_next[i] *= factor[u64(row) * inner + k];
            }
        }
        const u32 column = first_column + thread % COLUMNS;
        UNROLL for (u32 i = 0; i < B_LOADS; i++) {
            const u32 row = from + thread / COLUMNS + i * (TILE_THREADS / COLUMNS);
            b_next[i] = row < inner && column < columns ? matrix[u64(row) * columns + column] : 0.0f;
        }
    }

    DEVICE static void store(Shared<float> slice, const float (&a_next)[A_LOADS], const float (&b_next)[B_LOADS]) {
        const u32 thread = threadIdx.x;
        UNROLL for (u32 i = 0; i < A_LOADS; i++) {
            const u32 m = thread / TILE_DEPTH + i * (TILE_THREADS / TILE_DEPTH);
            slice[thread % TILE_DEPTH * A_STRIDE + m] = a_next[i];
        }
        UNROLL for (u32 i = 0; i < B_LOADS; i++) slice[A_SIZE + thread + i * TILE_THREADS] = b_next[i];
    }
};

/// Runs a block over its share of the tiles of `rows` × `columns`: number(m) gives the row numbers of row m as it fills the
/// tile, write(m, column, sum) takes the sums.
///
/// `number(m, input_row, factor_row)` is called once a row and tile, for m < rows. Tiles are counted in `Count`: u32 where registers are
/// short and rows are points, of which a chunk's memory holds fewer.
template <u32 COLUMNS, u32 INNER, class Count = u64, class Number, class Write>
DEVICE void products_by_tiles(u32 rows, u32 inner, u32 columns, const float* input, const float* factor,
                              const float* matrix, Number number, Write write) {
    SHARED(float, tile, ProductTile<COLUMNS>::SHARED_FLOATS);
    SHARED(u32, rows_at, TILE_ROWS);
    SHARED(u32, factors_at, TILE_ROWS);
    const u32 across = divide_up(columns, COLUMNS);
    const Count tiles = Count(divide_up(rows, TILE_ROWS)) * across;
    for (Count t = blockIdx.x; t < tiles; t += gridDim.x) {
        const u32 first_row = u32(t / across) * TILE_ROWS, first_column = u32(t % across) * COLUMNS;
        if (threadIdx.x < TILE_ROWS) {
            u32 input_row = NO_ROW, factor_row = NO_ROW;
            if (first_row + threadIdx.x < rows) number(first_row + threadIdx.x, input_row, factor_row);
            rows_at[threadIdx.x] = input_row;
            factors_at[threadIdx.x] = factor_row;
        }
        __syncthreads();
        ProductTile<COLUMNS> product;
        product.template multiply<INNER>(tile, input, factor, rows_at, factors_at, matrix, inner, columns, first_column);
        product.write(tile, [&](u32 m, u32 n, float sum) {
            if (first_row + m < rows && first_column + n < columns) write(first_row + m, first_column + n, sum);
        });
    }
}
