// Chords, adjoints and products of an ensemble's M members, g_c = f_c / √M, drawn independently at every point.
//
// With the members' mean ḡ and spread v = Σ_c ‖g_c − ḡ‖², everything divided by N:
//
//   E/N = ½ Σ_i (M ‖ḡ_{i+1} − ḡ_i‖² + v_{i+1} + v_i)       r_c = 2 ḡ_i − ḡ_{i−1} − ḡ_{i+1} + 2 (g_c − ḡ_i)
//   H_ii = 2 Σ_c J_c J_cᵀ + S_i                            H_{i,i+1} = −A_i A_{i+1}ᵀ,   A = Σ_c J_c / √M
//
// The members are the first M heads, `width` outputs each; chords of further heads are Euclidean. Kernels of energy.cu do the rest.
//
// A warp for every segment, a thread for every other number. FFMA: 6 M width for a chord and for M adjoints 3 M² width, which caches serve.
#include "curve.cuh"
#include "energy.cuh"

struct EnsembleChords {
    Chords chords;
    u32 members, width;
};

/// ḡ[k], from the values of one point.
DEVICE float ensemble_mean(const float* values, u32 members, u32 width, u32 k) {
    float sum = values[k];
    for (u32 c = 1; c < members; c++) sum += values[c * width + k];
    return sum / float(members);
}

KERNEL(ensemble_chords, EnsembleChords, 256, 4) {
    const u32 members = p.members, width = p.width, data_dim = p.chords.data_dim;
    each_chord(p.chords, [&](const float* from, const float* to) {
        float sum = 0.0f;
        for (u32 k = lane(); k < width; k += WARP) {
            const float mean = ensemble_mean(from, members, width, k), next = ensemble_mean(to, members, width, k);
            float spread = 0.0f;
            for (u32 c = 0; c < members; c++) {
                const float apart = from[c * width + k] - mean, next_apart = to[c * width + k] - next;
                spread += apart * apart + next_apart * next_apart;
            }
            sum += float(members) * (next - mean) * (next - mean) + spread;
        }
        return sum + euclidean(from, to, members * width, data_dim);
    });
}

struct EnsembleSeeds {
    Seeds seeds;
    u32 members, member;
};

/// r_c of one member.
KERNEL(ensemble_seeds, EnsembleSeeds, 256, 4) {
    const u32 stride = p.seeds.data_dim, width = p.seeds.outputs, members = p.members;
    each_seed(p.seeds, [&](const float* here, u32 k) {
        const float mean = ensemble_mean(here, members, width, k);
        const float left = ensemble_mean(here - stride, members, width, k);
        const float right = ensemble_mean(here + stride, members, width, k);
        const float apart = here[p.member * width + k] - mean;
        return (mean - left) + (mean - right) + (apart + apart);
    });
}

struct EnsembleAverage {
    RowList list;
    /// Tangents of one member's last layer, [points, d, width] by place, or [d, width] for all points.
    const float* tangents;
    /// φ' of that layer, [points, width] by number, or null.
    const float* factor;
    /// A, [points, d, width] by place: set by the first member, added to by the others.
    float* average;
    u32 width, latent_dim, members, member;
    u32 is_shared;
    u32 padding;
};

KERNEL(ensemble_average, EnsembleAverage, 256, 4) {
    const u32 d = p.latent_dim;
    const u64 numbers = u64(p.list.rows()) * d * p.width;
    const float share = 1.0f / sqrtf(float(p.members));
    for (u64 at = grid_thread(); at < numbers; at += grid_threads()) {
        const u32 k = u32(at % p.width), row = u32(at / p.width);
        const float slope = p.factor == nullptr ? share : share * p.factor[u64(p.list.id(row / d)) * p.width + k];
        const float own = slope * p.tangents[u64(p.is_shared ? row % d : row) * p.width + k];
        p.average[at] = p.member == 0 ? own : p.average[at] + own;
    }
}
