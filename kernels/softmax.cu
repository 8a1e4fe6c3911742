// Softmax behind the last layer of a head, whose outputs depend on all inputs of their row, and derivatives through it.
//
//   p = softmax(x)     y = c ∘ p^α / α     s = c ∘ p^α        α = 1, or ½ for the angle; c are weights of the outputs, or 1
//
//   tangents   u = ẋ − ⟨p, ẋ⟩ and ẏ = s ∘ u
//   adjoints   ∂(w · y)/∂x = q − Q p                          q = w ∘ s,  Q = Σ q
//   Hessian    ẋᵀ ∇²(w · y) ẋ = Σ_k (α q_k − Q p_k) u_k²
//
// s is kept as φ' and p as φ'', so that behind softmax_tangents the kernels of other activations do the rest: J = φ' ∘ u. The Hessian
// is that of src/cpu/softmax.rs, diag(α q − Q p) − α (q pᵀ + p qᵀ) + (1 + α) Q p pᵀ, with p subtracted from the tangents instead of the
// sum: nothing cancels.
//
// A warp for every row, of which each lane reads and writes its own columns; the order of sums is fixed. Some 30 operations a number of
// the values, 4 of the others; bytes: every array once, twice where a sum comes first.
#include "activation.cuh"
#include "product.cuh"

struct SoftmaxValues {
    RowList list;
    /// x, and afterwards y: [points, stride] from column `offset` on, by number.
    float* values;
    /// s and p, [points, width] by number, or null.
    float* first;
    float* shares;
    /// c, [width], or null.
    const float* scale;
    u32 width, stride, offset;
    /// 1 for α = ½.
    u32 angle;
};

KERNEL(softmax_values, SoftmaxValues, 256, 4) {
    const u32 rows = p.list.rows();
    for (u32 row = grid_warp(); row < rows; row += grid_warps()) {
        const u32 id = p.list.id(row);
        float* const x = p.values + (u64(id) * p.stride + p.offset);
        float largest = -float(infinity());
        for (u32 k = lane(); k < p.width; k += WARP) largest = x[k] > largest ? x[k] : largest;
        UNROLL for (u32 offset = 16; offset > 0; offset /= 2) {
            const float other = __shfl_xor_sync(ALL_LANES, largest, offset);
            largest = other > largest ? other : largest;
        }
        float sum = 0.0f;
        for (u32 k = lane(); k < p.width; k += WARP) {
            const float power = exponential(x[k] - largest);
            x[k] = power;
            sum += power;
        }
        const float inverse = 1.0f / warp_sum(sum);
        for (u32 k = lane(); k < p.width; k += WARP) {
            const float share = x[k] * inverse;
            float slope = p.angle ? sqrtf(share) : share;
            if (p.scale != nullptr) slope *= p.scale[k];
            x[k] = p.angle ? slope + slope : slope;
            if (p.first != nullptr) p.first[u64(id) * p.width + k] = slope;
            if (p.shares != nullptr) p.shares[u64(id) * p.width + k] = share;
        }
    }
}

struct SoftmaxTangents {
    RowList list;
    /// ẋ, [points, d, width] by place, or [d, width] for all points.
    const float* input;
    /// p, [points, width] by number.
    const float* shares;
    /// s, likewise, to be applied as well, or null.
    const float* finish;
    /// u, [points, d, stride] by place from column `offset` on; may be `input`.
    float* output;
    u32 width, stride, offset;
    u32 latent_dim;
    u32 input_is_shared;
    u32 padding;
};

KERNEL(softmax_tangents, SoftmaxTangents, 256, 4) {
    const u32 d = p.latent_dim, rows = p.list.rows() * d;
    for (u32 row = grid_warp(); row < rows; row += grid_warps()) {
        const u64 id = p.list.id(row / d);
        const float* const from = p.input + u64(p.input_is_shared ? row % d : row) * p.width;
        const float* const shares = p.shares + id * p.width;
        float mean = 0.0f;
        for (u32 k = lane(); k < p.width; k += WARP) mean += from[k] * shares[k];
        mean = warp_sum(mean);
        float* const to = p.output + (u64(row) * p.stride + p.offset);
        for (u32 k = lane(); k < p.width; k += WARP) {
            const float slope = p.finish == nullptr ? 1.0f : p.finish[id * p.width + k];
            to[k] = slope * (from[k] - mean);
        }
    }
}

struct SoftmaxAdjoints {
    /// Places.
    RowList list;
    /// Point numbers by place, or null.
    const u32* ids;
    /// w, and afterwards q − Q p, [points, width] by place.
    float* adjoints;
    /// α q − Q p, likewise.
    float* weights;
    /// s and p, [points, width] by number.
    const float* first;
    const float* shares;
    u32 width;
    /// 1 for α = ½.
    u32 angle;
};

KERNEL(softmax_adjoints, SoftmaxAdjoints, 256, 4) {
    const u32 rows = p.list.rows();
    for (u32 row = grid_warp(); row < rows; row += grid_warps()) {
        const u64 place = p.list.id(row), id = p.ids == nullptr ? place : p.ids[place];
        float* const adjoints = p.adjoints + place * p.width;
        const float* const first = p.first + id * p.width;
        float sum = 0.0f;
        for (u32 k = lane(); k < p.width; k += WARP) {
            const float q = adjoints[k] * first[k];
            adjoints[k] = q;
            sum += q;
        }
        sum = warp_sum(sum);
        for (u32 k = lane(); k < p.width; k += WARP) {
            const float q = adjoints[k], share = sum * p.shares[id * p.width + k];
            adjoints[k] = q - share;
            p.weights[place * p.width + k] = (p.angle ? 0.5f * q : q) - share;
        }
    }
}
