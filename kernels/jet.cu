// Derivatives along directions of their own, ∂f[u], and second ones along pairs of these, ∂²f[u, v].
//
//   h_u ← W (φ'(h) ∘ h_u)        h_uv ← W a_uv,   a_uv = φ'(h) ∘ h_uv + φ''(h) ∘ h_u ∘ h_v
//
// The products are jacobian.cu's, with n directions in place of d latents: tangents h_u stand before an activation, pairs a_uv behind it.
// Pairs are those u ≤ v of the last m directions, in the order 00, 01, …, 11, 12, …; where it is asked for, Σ_u a_uu follows them as one
// more row, which costs one row through the layers and not m.
//
// A thread for every number of the values, which reads m tangents and changes m(m + 1)/2 rows.
#include "activation.cuh"
#include "product.cuh"

struct JetDirections {
    /// [points, vectors, d], or null where there are none.
    const float* vectors;
    /// [points, axes + vectors, d].
    float* directions;
    u32 points, latent_dim;
    /// d for the latents' own directions in front of the vectors, or 0.
    u32 axes;
    u32 vectors_count;
};

KERNEL(jet_directions, JetDirections, 256, 4) {
    const u32 d = p.latent_dim, rows = p.axes + p.vectors_count;
    const u64 numbers = u64(p.points) * rows * d;
    for (u64 at = grid_thread(); at < numbers; at += grid_threads()) {
        const u32 k = u32(at % d), row = u32(at / d % rows);
        const u64 point = at / d / rows;
        p.directions[at] = row < p.axes ? (row == k ? 1.0f : 0.0f) : p.vectors[(point * p.vectors_count + (row - p.axes)) * d + k];
    }
}

/// Which pairs stand in the rows of a point.
struct JetPairs {
    /// m, and 1 where the row of their sum follows.
    u32 curved, has_sum;

    DEVICE u32 rows() const { return curved * (curved + 1) / 2 + has_sum; }
};

struct JetBend {
    RowList list;
    /// h_u, [points, directions, width], by place.
    const float* tangents;
    /// φ' and φ'' by number, or null for 1 and 0.
    const float* first;
    const float* second;
    /// h_uv, [points, rows, width], by place.
    const float* pairs;
    /// a_uv, [points, rows, stride], by place from column `offset` on; may be `pairs`.
    float* output;
    JetPairs which;
    u32 directions, width, stride, offset;
    /// 1 behind the first layer, where h_uv = 0 and was not written.
    u32 is_first_layer;
    u32 padding;
};

KERNEL(jet_bend, JetBend, 256, 4) {
    const u32 m = p.which.curved, rows = p.which.rows(), width = p.width;
    const u64 numbers = u64(p.list.rows()) * width;
    for (u64 at = grid_thread(); at < numbers; at += grid_threads()) {
        const u32 k = u32(at % width), place = u32(at / width);
        const u64 number = u64(p.list.id(place)) * width + k;
        const float first = p.first == nullptr ? 1.0f : p.first[number];
        const float second = p.second == nullptr ? 0.0f : p.second[number];
        const float* const tangents = p.tangents + (u64(place + 1) * p.directions - m) * width + k;
        const float* from = p.pairs + u64(place) * rows * width + k;
        float* to = p.output + u64(place) * rows * p.stride + p.offset + k;
        const auto bend = [&](float product) {
            const float rest = p.is_first_layer ? 0.0f : first * *from;
            *to = rest + second * product;
            from += width, to += p.stride;
        };
        float sum = 0.0f;
        for (u32 u = 0; u < m; u++) {
            const float one = tangents[u64(u) * width];
            sum += one * one;
            for (u32 v = u; v < m; v++) bend(one * tangents[u64(v) * width]);
        }
        if (p.which.has_sum) bend(sum);
    }
}

struct SoftmaxBend {
    RowList list;
    /// u of softmax.cu, [points, directions, width], by place.
    const float* tangents;
    /// s and p by number.
    const float* first;
    const float* shares;
    /// x_uv − ⟨p, x_uv⟩, [points, rows, width], by place.
    const float* pairs;
    /// y_uv, [points, rows, stride], by place from column `offset` on; may be `pairs`.
    float* output;
    JetPairs which;
    u32 directions, width, stride, offset;
    /// 1 for α = ½.
    u32 angle;
    u32 padding;
};

/// Behind a softmax, y_uv = s ∘ (x_uv − ⟨p, x_uv⟩ + α u ∘ v − ⟨p, u ∘ v⟩). A warp for every row.
KERNEL(softmax_bend, SoftmaxBend, 256, 4) {
    const u32 m = p.which.curved, rows = p.which.rows(), width = p.width;
    const u64 items = u64(p.list.rows()) * rows;
    for (u64 item = grid_warp(); item < items; item += grid_warps()) {
        const u32 place = u32(item / rows), row = u32(item % rows);
        // The pair's directions; all of them with themselves in the row of the sum.
        u32 u = 0, v = row;
        while (u < m && v >= m - u) v -= m - u++;
        const bool is_sum = u == m;
        const float* const tangents = p.tangents + (u64(place + 1) * p.directions - m) * width;
        const auto product = [&](u32 k) {
            if (!is_sum) return tangents[u64(u) * width + k] * tangents[u64(u + v) * width + k];
            float sum = 0.0f;
            for (u32 w = 0; w < m; w++) {
                const float one = tangents[u64(w) * width + k];
                sum += one * one;
            }
            return sum;
        };
        const u64 id = p.list.id(place);
        const float* const first = p.first + id * width;
        const float* const shares = p.shares + id * width;
        float mean = 0.0f;
        for (u32 k = lane(); k < width; k += WARP) mean += shares[k] * product(k);
        mean = warp_sum(mean);
        const float* const from = p.pairs + item * width;
        float* const to = p.output + item * p.stride + p.offset;
        const float alpha = p.angle ? 0.5f : 1.0f;
        for (u32 k = lane(); k < width; k += WARP) to[k] = first[k] * (from[k] + (alpha * product(k) - mean));
    }
}

struct JetSquares {
    RowList list;
    /// [points, rows, width], by place.
    const float* pairs;
    /// ‖a_uv‖², `rows` numbers in every `stride`, by number.
    float* out;
    u32 rows, width, stride;
    /// 1 where `out` is added to.
    u32 accumulate;
};

/// A warp for every row.
KERNEL(jet_squares, JetSquares, 256, 4) {
    const u64 items = u64(p.list.rows()) * p.rows;
    for (u64 item = grid_warp(); item < items; item += grid_warps()) {
        const float* const pair = p.pairs + item * p.width;
        float sum = 0.0f;
        for (u32 k = lane(); k < p.width; k += WARP) sum += pair[k] * pair[k];
        sum = warp_sum(sum);
        float* const out = p.out + (u64(p.list.id(u32(item / p.rows))) * p.stride + item % p.rows);
        if (lane() == 0) *out = p.accumulate ? *out + sum : sum;
    }
}
