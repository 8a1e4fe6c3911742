// Inner products over data space between the rows of two points, a warp for every 8 × 8 of them.
//
//   out[i, j] (+)= Σ_k x_i[k] · y_j[k]
//
// Lanes run along k, with the 64 sums (fewer where d is known to be small) in registers; at the end the lanes halve the sums
// between them, 62 exchanges instead of 320. The order of every sum is fixed. FFMA: 2 · width for every product; bytes: x and y once for
// every 8 × 8, which caches serve.
#pragma once
#include "product.cuh"

/// Rows of one factor of a product: `rows` of them for every point, `width` numbers each.
struct Operand {
    /// By place in the list, or the same for every point.
    const float* base;
    /// Multiplied into every row: [points, width] by the point's number; null for 1.
    const float* factor;
    /// The same, by place in the list.
    const float* weight;
    u32 rows;
    /// 1 where `base` is the same for every point.
    u32 is_shared;

    DEVICE float at(u64 place, u32 row, u32 k, u32 width) const {
        return base[((is_shared ? 0 : place * rows) + row) * width + k];
    }
    DEVICE float scale(u64 place, u64 id, u32 k, u32 width) const {
        float scale = factor == nullptr ? 1.0f : factor[id * width + k];
        if (weight != nullptr) scale *= weight[place * width + k];
        return scale;
    }
};

struct InnerProducts {
    RowList list;
    /// Point numbers by place, where the list holds places.
    const u32* ids;
    Operand x, y;
    /// [points, x.rows, y.rows], by the point's number; see `out_stride`.
    float* out;
    u32 width;
    /// 1 where `out` is added to.
    u32 accumulate;
    /// Places before `*split` are taken, or those from it on; all of them where it is null.
    const u32* split;
    u32 behind_split;
    /// Numbers from one point's products in `out` to the next one's: x.rows · y.rows, or more.
    u32 out_stride;
};

/// Sums V numbers over the lanes of a warp: afterwards lane l holds the sums of numbers first .. first + V/32 − 1, or shares
/// one with its neighbours where V < 32. V is a power of two.
template <u32 V>
struct LaneSums {
    static constexpr u32 LEFT = V > 32 ? V / 32 : 1;

    static constexpr u32 SHARING = V > 32 ? 1 : 32 / V;

    DEVICE static u32 first(u32 lane) { return lane / SHARING * LEFT; }
    /// True for one lane of those that share a sum.
    DEVICE static bool owns(u32 lane) { return lane % SHARING == 0; }

    DEVICE static void reduce(float (&sums)[V]) {
        u32 width = V / 2;
        UNROLL for (u32 offset = 16; offset > 0; offset /= 2) {
            if (width > 0) {
                const bool upper = (lane() & offset) != 0;
                UNROLL for (u32 i = 0; i < V / 2; i++) {
                    if (i < width) {
                        const float give = upper ? sums[i] : sums[i + width];
                        const float keep = upper ? sums[i + width] : sums[i];
                        sums[i] = keep + __shfl_xor_sync(ALL_LANES, give, offset);
                    }
                }
                width /= 2;
            } else {
                sums[0] += __shfl_xor_sync(ALL_LANES, sums[0], offset);
            }
        }
    }
};

/// The smallest tile that holds so many rows, or the largest there is.
template <u32 ROWS>
constexpr u32 INNER_TILE = ROWS <= 2 ? 2 : ROWS <= 4 ? 4 : 8;

/// All products of the listed points. SYMMETRIC: y is x up to scales, so that half of them are enough. SHIFT: y is the next point's.
template <u32 T, u32 XROWS, u32 YROWS, u32 WIDTH, bool SYMMETRIC, u32 SHIFT>
DEVICE void inner_products(const InnerProducts& p) {
    const u32 xrows = known<XROWS>(p.x.rows), yrows = known<YROWS>(p.y.rows), width = known<WIDTH>(p.width);
    const u32 down = divide_up(xrows, T), across = divide_up(yrows, T);
    const u32 tiles = SYMMETRIC ? down * (down + 1) / 2 : down * across;
    const u32 rows = p.list.rows();
    const u32 split = p.split == nullptr ? 0 : *p.split;
    const u64 items = u64(rows) * tiles;
    for (u64 item = grid_warp(); item < items; item += grid_warps()) {
        const u32 row = u32(item / tiles);
        u32 tile = u32(item % tiles), top = 0, left = 0;
        if (SYMMETRIC) {
            while (tile >= down - top) tile -= down - top++;
            left = top + tile;
        } else {
            top = tile / across, left = tile % across;
        }
        top *= T, left *= T;
        const u32 place = p.ids == nullptr ? row : p.list.id(row);
        const u32 id = p.ids == nullptr ? p.list.id(row) : p.ids[place];
        if (p.split != nullptr && (place >= split) != (p.behind_split != 0)) continue;
        if (SHIFT != 0 && row + SHIFT >= rows) continue; // the last point has no neighbour; nothing reads its block
        float sums[T * T];
        UNROLL for (u32 s = 0; s < T * T; s++) sums[s] = 0.0f;
        for (u32 k = lane(); k < width; k += WARP) {
            const float x_scale = p.x.scale(place, id, k, width);
            const float y_scale = p.y.scale(place + SHIFT, id + SHIFT, k, width);
            float x[T], y[T];
            UNROLL for (u32 i = 0; i < T; i++) {
                x[i] = top + i < xrows ? p.x.at(place, top + i, k, width) * x_scale : 0.0f;
                y[i] = left + i < yrows ? p.y.at(place + SHIFT, left + i, k, width) * y_scale : 0.0f;
            }
            UNROLL for (u32 i = 0; i < T; i++) {
                UNROLL for (u32 j = 0; j < T; j++) sums[i * T + j] += x[i] * y[j];
            }
        }
        LaneSums<T * T>::reduce(sums);
        UNROLL for (u32 s = 0; s < LaneSums<T * T>::LEFT; s++) {
            const u32 number = LaneSums<T * T>::first(lane()) + s;
            const u32 i = top + number / T, j = left + number % T;
            if (!LaneSums<T * T>::owns(lane()) || i >= xrows || j >= yrows || (SYMMETRIC && i > j)) continue;
            float* out = p.out + u64(id) * p.out_stride;
            const float sum = p.accumulate ? out[i * yrows + j] + sums[s] : sums[s];
            out[i * yrows + j] = sum;
            if (SYMMETRIC) out[j * yrows + i] = sum; // to the bit
        }
    }
}
