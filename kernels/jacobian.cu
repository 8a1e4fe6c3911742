// Forward-mode Jacobian columns through one layer: T' = W (φ'(h) ∘ T).
//
//   input    [points, d, inputs]     tangents before the activation, by place in the list; or, from the first layer, its weights
//                                    [d, inputs], the same for every point
//   factor   [points, inputs]        φ'(h) of that layer, by the point's number, or null where φ' = 1
//   weights  [inputs, outputs]       of this layer, transposed
//   output   [points, d, stride]     tangents before this layer's activation, from column `offset` on
//   finish   [points, outputs]       φ' of this layer, to be applied as well, or null
//
// The first layer's tangents are its weight's columns: no product is needed. 256 threads, 128 tangents × 128 (or 64) outputs; see
// product.cuh. FFMA: 2 · points · d · inputs · outputs.
#include "product.cuh"

struct JacobianLayer {
    RowList list;
    const float* input;
    const float* factor;
    const float* weights;
    float* output;
    const float* finish;
    u32 inputs, outputs, stride, offset;
    u32 latent_dim;
    /// 1 where `input` is the same for every point.
    u32 input_is_shared;
};

template <u32 COLUMNS, u32 DIM, u32 INPUTS, u32 OUTPUTS>
DEVICE void jacobian_layer_of(const JacobianLayer& p) {
    const u32 d = known<DIM>(p.latent_dim), inputs = known<INPUTS>(p.inputs), outputs = known<OUTPUTS>(p.outputs);
    products_by_tiles<COLUMNS, INPUTS>(
        p.list.rows() * d, inputs, outputs, p.input, p.factor, p.weights,
        [&](u32 m, u32& input_row, u32& factor_row) {
            input_row = p.input_is_shared ? m % d : m;
            factor_row = p.list.id(m / d);
        },
        [&](u32 m, u32 n, float sum) {
            const float slope = p.finish == nullptr ? 1.0f : p.finish[u64(p.list.id(m / d)) * outputs + n];
            p.output[u64(m) * p.stride + p.offset + n] = slope * sum;
        });
}

KERNEL(jacobian_layer, JacobianLayer, TILE_THREADS, 2) { jacobian_layer_of<128, 0, 0, 0>(p); }
KERNEL(jacobian_layer_narrow, JacobianLayer, TILE_THREADS, 2) { jacobian_layer_of<64, 0, 0, 0>(p); }

#define JACOBIAN_INSTANCE(name, dim, inputs, outputs) \
    INSTANCE(name, JacobianLayer, TILE_THREADS, 2) { jacobian_layer_of<(outputs) <= 64 ? 64 : 128, dim, inputs, outputs>(p); }

/// The Jacobian of a single layer: its weight's columns times φ'(h). One thread a number.
KERNEL(jacobian_of_one_layer, JacobianLayer, 256, 4) {
    const u32 d = p.latent_dim;
    const u64 numbers = u64(p.list.rows()) * d * p.outputs;
    for (u64 at = grid_thread(); at < numbers; at += grid_threads()) {
        const u32 n = u32(at % p.outputs), row = u32(at / p.outputs);
        const float slope = p.finish == nullptr ? 1.0f : p.finish[u64(p.list.id(row / d)) * p.outputs + n];
        p.output[u64(row) * p.stride + p.offset + n] = slope * p.input[row % d * p.outputs + n];
    }
}
