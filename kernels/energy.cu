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
#include "energy.cuh"
#include "inner_products.cuh"

/// ‖f_{i+1} − f_i‖² of every segment.
KERNEL(chords, Chords, 256, 4) { each_chord(p, Euclidean{p.data_dim}); }

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

/// λ at the outputs of one head.
KERNEL(adjoint_seeds, Seeds, 256, 4) {
    const u32 offset = p.offset, stride = p.data_dim;
    each_seed(p, [&](const float* here, u32 k) {
        const float* value = here + (offset + k);
        const float f = *value;
        // Differences of neighbours first: they are small, and exact.
        return p.residuals ? (f - *(value - stride)) + (f - *(value + stride)) : f;
    });
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
