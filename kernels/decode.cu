// One layer of the decoder, a = φ(W x + b), with φ' and φ'' where they are wanted.
//
//   input   [points, inputs]       weights [inputs, outputs], the transpose of PyTorch's     bias [outputs]
//   output  [points, stride]       from column `offset` on: heads stand side by side
//   first, second  [points, outputs]  φ'(h) and φ''(h), or null
//   scale   [outputs]              multiplied into φ, φ' and φ'', or null
//
// 256 threads, a tile of 128 points × 128 (or 64) outputs; see product.cuh for shared memory and cost. FFMA: 2 · points · inputs ·
// outputs, and some 30 operations for every activation.
#include "activation.cuh"
#include "product.cuh"

struct DecodeLayer {
    RowList list;
    const float* input;
    const float* weights;
    const float* bias;
    float* output;
    float* first;
    float* second;
    const float* scale;
    u32 inputs, outputs, stride, offset;
    u32 activation;
    /// Where rows are read and written: 1 by the point's number, 0 by its place in the list. φ' and φ'' go by number.
    u32 input_by_id, output_by_id;
    u32 padding;
};

/// 0 for INPUTS and OUTPUTS and ANY for ACTIVATION stand for what the parameters say.

template <u32 COLUMNS, u32 INPUTS, u32 OUTPUTS, u32 ACTIVATION>
DEVICE void decode_layer_of(const DecodeLayer& p) {
    const u32 inputs = known<INPUTS>(p.inputs), outputs = known<OUTPUTS>(p.outputs);
    const u32 activation = ACTIVATION == ANY ? p.activation : ACTIVATION;
    products_by_tiles<COLUMNS, INPUTS, u32>(
        p.list.rows(), inputs, outputs, p.input, nullptr, p.weights,
        [&](u32 m, u32& input_row, u32&) { input_row = p.input_by_id ? p.list.id(m) : m; },
        [&](u32 m, u32 n, float sum) {
            Jet jet = jet_of(activation, sum + p.bias[n]);
            if (p.scale != nullptr) {
                const float scale = p.scale[n];
                jet = {scale * jet.value, scale * jet.first, scale * jet.second};
            }
            const u32 id = p.list.id(m);
            p.output[u64(p.output_by_id ? id : m) * p.stride + p.offset + n] = jet.value;
            if (p.first != nullptr) p.first[u64(id) * outputs + n] = jet.first;
            if (p.second != nullptr) p.second[u64(id) * outputs + n] = jet.second;
        });
}

KERNEL(decode_layer, DecodeLayer, TILE_THREADS, 2) { decode_layer_of<128, 0, 0, ANY>(p); }
KERNEL(decode_layer_narrow, DecodeLayer, TILE_THREADS, 2) { decode_layer_of<64, 0, 0, ANY>(p); }

/// A layer whose sizes and activation the compiler knows.
#define DECODE_INSTANCE(name, inputs, outputs, activation) \
    INSTANCE(name, DecodeLayer, TILE_THREADS, 2) { decode_layer_of<(outputs) <= 64 ? 64 : 128, inputs, outputs, activation>(p); }
