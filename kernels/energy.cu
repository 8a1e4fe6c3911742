// Chord energy along curves, its gradient, and the blocks of its Hessian (everything divided by N).
//
//   E/N = ½ Σ ‖f_{i+1} − f_i‖²      r_i = 2 f_i − f_{i−1} − f_{i+1}      g_i = J_i r_i
//   H_ii = 2 G_i + S_i               H_{i,i+1} = −J_i J_{i+1}ᵀ
//   S = Σ_l T_l · diag(λ_l ∘ φ''(h_l)) · T_lᵀ      λ_{l−1} = W_lᵀ (φ'(h_l) ∘ λ_l), from λ = r at the output
//
// G and S are made by gram.cu. Values and derivatives go by point number, Jacobians, r and λ by place in the list of points.
//
// 256 threads, a warp for every segment, curve or 8 × 8 inner products, or a tile of product.cuh. FFMA, for every point: 3D for a
// chord, 2d²D + 2dD for J Jᵀ and J r, 2 · inputs · outputs for a layer of the adjoint pass.
#include "curve.cuh"
#include "inner_products.cuh"

/// ‖f_{i+1} − f_i‖² of every segment with a listed inner point, f by point number.
struct Chords {
    RowList list;
    /// [points, data_dim]
    const float* values;
    /// [points], by the number of the segment's first point.
    float* squares;
    /// Of every curve, or null where all have `segments`.
    const u32* segments_of;
    u32 segments;
    /// Points from one curve to the next.
    u32 stride;
    u32 data_dim;
    u32 padding;
};

DEVICE void chord(const Chords& p, u32 left) {
    const float* from = p.values + u64(left) * p.data_dim;
    float sum = 0.0f;
    for (u32 k = lane(); k < p.data_dim; k += WARP) {
        const float difference = from[p.data_dim + k] - from[k];
        sum += difference * difference;
    }
    sum = warp_sum(sum);
    if (lane() == 0) p.squares[left] = sum;
}

/// The segment before an inner point, and behind the last one the segment to the end. A warp's.
DEVICE void chords_at(const Chords& p, u32 id) {
    const u32 point = id % p.stride;
    const u32 segments = p.segments_of == nullptr ? p.segments : p.segments_of[id / p.stride];
    if (point == 0 && segments == 1) chord(p, id); // no point is inside
    if (point == 0 || point >= segments) return;
    chord(p, id - 1);
    if (point + 1 == segments) chord(p, id);
}

KERNEL(chords, Chords, 256, 4) {
    const u32 rows = p.list.rows();
    for (u32 row = grid_warp(); row < rows; row += grid_warps()) chords_at(p, p.list.id(row));
}

struct CurveSums {
    const float* squares;
    /// [curves, 2]: Σ ‖f_{i+1} − f_i‖² and Σ ‖f_{i+1} − f_i‖.
    double* out;
    u32 curves, segments, stride, padding;
};

KERNEL(curve_sums, CurveSums, 256, 4) {
    for (u32 curve = grid_warp(); curve < p.curves; curve += grid_warps()) {
        double energy, length;
        chord_sums(p.squares + u64(curve) * p.stride, p.segments, energy, length);
        if (lane() == 0) p.out[2 * curve] = energy, p.out[2 * curve + 1] = length;
    }
}

struct Seeds {
    RowList list;
    /// Point numbers by place, where the list holds places.
    const u32* ids;
    /// [points, data_dim], by number.
    const float* values;
    /// [points, outputs], by place: where one head's adjoint pass starts.
    float* out;
    u32 data_dim, outputs, offset;
    /// 1 for the residuals r, 0 for the values themselves.
    u32 residuals;
};

/// λ at the outputs of one head. One thread a number.
KERNEL(adjoint_seeds, Seeds, 256, 4) {
    const u64 numbers = u64(p.list.rows()) * p.outputs;
    for (u64 at = grid_thread(); at < numbers; at += grid_threads()) {
        const u32 row = u32(at / p.outputs), k = u32(at % p.outputs);
        const u32 place = p.ids == nullptr ? row : p.list.id(row);
        const u32 id = p.ids == nullptr ? p.list.id(row) : p.ids[place];
        const float* value = p.values + u64(id) * p.data_dim + p.offset + k;
        const float f = *value;
        // Differences of neighbours first: they are small, and exact.
        p.out[u64(place) * p.outputs + k] =
            p.residuals ? (f - *(value - p.data_dim)) + (f - *(value + p.data_dim)) : f;
    }
}

struct AdjointLayer {
    /// Places.
    RowList list;
    /// Point numbers by place.
    const u32* ids;
    /// λ at this layer's outputs, [points, outputs], by place.
    const float* input;
    /// φ' of this layer, [points, outputs], by number, or null.
    const float* factor;
    /// [outputs, inputs], as PyTorch stores it.
    const float* weights;
    /// λ at the outputs of the layer before, [points, inputs], by place.
    float* output;
    u32 inputs, outputs;
};

/// λ' = Wᵀ (φ' ∘ λ). FFMA: 2 · points · inputs · outputs.
template <u32 COLUMNS, u32 INPUTS, u32 OUTPUTS>
DEVICE void adjoint_layer_of(const AdjointLayer& p) {
    const u32 inputs = known<INPUTS>(p.inputs), outputs = known<OUTPUTS>(p.outputs);
    products_by_tiles<COLUMNS, OUTPUTS>(
        p.list.rows(), outputs, inputs, p.input, p.factor, p.weights,
        [&](u32 m, u32& input_row, u32& factor_row) {
            input_row = p.list.id(m);
            factor_row = p.ids == nullptr ? input_row : p.ids[input_row];
        },
        [&](u32 m, u32 n, float sum) { p.output[u64(p.list.id(m)) * inputs + n] = sum; });
}

KERNEL(adjoint_layer, AdjointLayer, TILE_THREADS, 2) { adjoint_layer_of<128, 0, 0>(p); }
KERNEL(adjoint_layer_narrow, AdjointLayer, TILE_THREADS, 2) { adjoint_layer_of<64, 0, 0>(p); }

#define ADJOINT_INSTANCE(name, inputs, outputs) \
    INSTANCE(name, AdjointLayer, TILE_THREADS, 2) { adjoint_layer_of<(inputs) <= 64 ? 64 : 128, inputs, outputs>(p); }

/// J_i J_{i+1}ᵀ of every listed point but the last.
KERNEL(neighbour_products, InnerProducts, 256, 1) { inner_products<8, 0, 0, 0, false, 1>(p); }
/// J_i r_i, or T_i λ_i in the first layer.
KERNEL(gradient_products, InnerProducts, 256, 1) { inner_products<8, 0, 1, 0, false, 0>(p); }

#define NEIGHBOUR_INSTANCE(name, dim) \
    INSTANCE(name, InnerProducts, 256, 1) { inner_products<INNER_TILE<dim>, dim, dim, 0, false, 1>(p); }
#define GRADIENT_INSTANCE(name, dim) \
    INSTANCE(name, InnerProducts, 256, 1) { inner_products<INNER_TILE<dim>, dim, 1, 0, false, 0>(p); }
