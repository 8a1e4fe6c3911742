// Chords, adjoints and scales where outputs are means μ and standard deviations σ, measured by the Fisher–Rao metric.
//
// With Δ the difference to a neighbour, marked by a prime, and sums over the outputs, everything divided by N:
//
//   chord²  e = Σ_k (Δμ² + 2 Δσ²) / (σ σ′)
//   r_μ = Σ Δμ / (σ σ′)      r_σ = Σ (2 Δσ / (σ σ′) − e_k / (2 σ))      over both neighbours
//   G = Σ_k (∂μ_k ∂μ_kᵀ + 2 ∂σ_k ∂σ_kᵀ) / σ_k²
//
// The first head has the means, the second the standard deviations; chords of further heads are Euclidean. Kernels of energy.cu and
// gram.cu do the rest, G and J Jᵀ with tangents that are multiplied by 1/σ and √2/σ.
//
// A warp for every segment, a thread for every other number; some 10 operations and two divisions for each output.
#include "curve.cuh"
#include "energy.cuh"

struct GaussianChords {
    Chords chords;
    u32 width, padding;
};

/// e_k.
DEVICE float gaussian_chord(float mean_step, float std_step, float std, float other_std) {
    return (mean_step * mean_step + (std_step * std_step + std_step * std_step)) / (std * other_std);
}

KERNEL(gaussian_chords, GaussianChords, 256, 4) {
    const u32 width = p.width, data_dim = p.chords.data_dim;
    each_chord(p.chords, [&](const float* from, const float* to) {
        float sum = 0.0f;
        for (u32 k = lane(); k < width; k += WARP) {
            const float std = from[width + k], next = to[width + k];
            sum += gaussian_chord(to[k] - from[k], next - std, std, next);
        }
        return sum + euclidean(from, to, 2 * width, data_dim);
    });
}

struct GaussianSeeds {
    Seeds seeds;
    /// 1 for the standard deviations.
    u32 is_std, padding;
};

/// r of the means or of the standard deviations.
KERNEL(gaussian_seeds, GaussianSeeds, 256, 4) {
    const u32 stride = p.seeds.data_dim, width = p.seeds.outputs;
    each_seed(p.seeds, [&](const float* here, u32 k) {
        const float std = here[width + k];
        float sum = 0.0f;
        UNROLL for (u32 side = 0; side < 2; side++) {
            const float* other = side == 0 ? here - stride : here + stride;
            const float mean_step = here[k] - other[k], std_step = std - other[width + k];
            const float scale = 1.0f / (std * other[width + k]);
            sum += p.is_std ? 2.0f * std_step * scale - gaussian_chord(mean_step, std_step, std, other[width + k]) / (2.0f * std)
                            : mean_step * scale;
        }
        return sum;
    });
}

struct GaussianScales {
    RowList list;
    /// [points, data_dim], by number.
    const float* values;
    /// 1/σ, or √2/σ for the tangents of σ: [points, width], by place.
    float* scales;
    u32 width, data_dim;
    u32 is_std, padding;
};

KERNEL(gaussian_scales, GaussianScales, 256, 4) {
    const u64 numbers = u64(p.list.rows()) * p.width;
    for (u64 at = grid_thread(); at < numbers; at += grid_threads()) {
        const u32 k = u32(at % p.width), id = p.list.id(u32(at / p.width));
        p.scales[at] = (p.is_std ? 1.41421356f : 1.0f) / p.values[u64(id) * p.data_dim + p.width + k];
    }
}
