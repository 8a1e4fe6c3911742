// log det G of metrics, by Cholesky's factor with pivots.
//
//   metrics   [points, d, d]
//   out       [points]          double: −∞ where a metric is singular to working precision, NaN where it is not finite
//
// As in src/cpu/cholesky.rs: G = S C S with S = diag(√g_ii), and C = Uᵀ U row by row, next always the latent whose column keeps most of its
// length outside the span of those before. A row of U is C's row of that latent, of which the rows before have their share subtracted.
//
// A warp for every metric, in a block of its own; each lane has every 32nd column of the rows. In shared memory stand the rows of U that
// there are, √g_ii, what is left of each column and the pivots: d² + 3d floats. FFMA: d³/2 a metric, each with two words of shared memory;
// 2d logarithms and d² divisions, twice. The metric is read twice from the device's memory, the second time from a cache.
#include "device.cuh"

constexpr float CHOLESKY_EPSILON = 1.1920929e-7f;
/// What is left of a column that was eliminated. Of others rounding takes a few ε more than there is.
constexpr float ELIMINATED = -2.0f;

struct LogDeterminants {
    const float* metrics;
    double* out;
    u32 points, d;
};

/// The room of one metric.
struct Factor {
    u32 d;
    /// U, [d, d].
    Shared<float> rows;
    /// √g_ii.
    Shared<float> scale;
    /// 1 − Σ u_ki² over the rows so far.
    Shared<float> left;
    /// √u_kk of each row, read by the lane alone that wrote it.
    Shared<float> pivots;

    /// Lanes' numbers of C's columns are finite, and no column is lost beside the longest: otherwise what log det is.
    DEVICE bool begin(const float* metric, double& log_det) const {
        bool finite = true;
        for (u32 k = lane(); k < d * d; k += WARP) finite = finite && isfinite(metric[k]);
        if (!__all_sync(ALL_LANES, finite)) {
            log_det = not_a_number();
            return false;
        }
        float square = 0.0f;
        for (u32 k = lane(); k < d; k += WARP) square = fmaxf(square, metric[k * (d + 1)]);
        UNROLL for (u32 offset = 16; offset > 0; offset /= 2) {
            square = fmaxf(square, __shfl_xor_sync(ALL_LANES, square, offset));
        }
        const float least = 4.0f * CHOLESKY_EPSILON * sqrtf(square);
        bool short_column = false;
        for (u32 k = lane(); k < d; k += WARP) {
            const float length = sqrtf(metric[k * (d + 1)]);
            scale[k] = length;
            left[k] = 1.0f;
            short_column = short_column || length <= least;
        }
        log_det = -infinity();
        return !__any_sync(ALL_LANES, short_column);
    }

    /// The column of which most is left; of several the first.
    DEVICE u32 next() const {
        float most = ELIMINATED;
        u32 at = 0;
        for (u32 k = lane(); k < d; k += WARP) {
            const float rest = left[k];
            if (rest > most) most = rest, at = k;
        }
        UNROLL for (u32 offset = 16; offset > 0; offset /= 2) {
            const float other = __shfl_xor_sync(ALL_LANES, most, offset);
            const u32 other_at = __shfl_xor_sync(ALL_LANES, at, offset);
            if (other > most || (other == most && other_at < at)) most = other, at = other_at;
        }
        return at;
    }

    /// Row k of U, from C's row of a latent; false where rounding has left nothing of its pivot.
    DEVICE bool eliminate(const float* metric, u32 k, u32 latent) const {
        const Shared<float> row = rows + k * d;
        const float length = scale[latent];
        float mine = 0.0f;
        for (u32 c = lane(); c < d; c += WARP) {
            float x = metric[latent * d + c] / length / scale[c];
            for (u32 j = 0; j < k; j++) x = fused(-float(rows[j * d + latent]), rows[j * d + c], x);
            row[c] = x;
            if (c == latent) mine = x;
        }
        const float pivot = __shfl_sync(ALL_LANES, mine, latent % WARP);
        if (pivot <= 2.0f * float(d) * CHOLESKY_EPSILON) return false;
        const float root = sqrtf(pivot), inverse = 1.0f / root;
        for (u32 c = lane(); c < d; c += WARP) {
            const float rest = left[c];
            const float u = c == latent ? root : rest == ELIMINATED ? 0.0f : row[c] * inverse;
            row[c] = u;
            left[c] = c == latent ? ELIMINATED : fused(-u, u, rest);
        }
        if (lane() == k % WARP) pivots[k] = root;
        return true;
    }

    DEVICE double log_det(const float* metric) const {
        double found;
        if (!begin(metric, found)) return found;
        for (u32 k = 0; k < d; k++) {
            __syncwarp();
            if (!eliminate(metric, k, next())) return -infinity();
        }
        double sum = 0.0;
        for (u32 k = lane(); k < d; k += WARP) sum += log(double(pivots[k])) + log(double(scale[k]));
        return 2.0 * warp_sum(sum);
    }
};

KERNEL(log_determinants, LogDeterminants, 32, 24) {
    DYNAMIC_SHARED(float, room);
    const u32 d = p.d;
    const Shared<float> scale = room + d * d;
    const Factor factor = {d, room + 0, scale, scale + d, scale + 2 * d};
    for (u32 point = blockIdx.x; point < p.points; point += gridDim.x) {
        const double found = factor.log_det(p.metrics + u64(point) * d * d);
        if (lane() == 0) p.out[point] = found;
        __syncwarp(); // the next metric may come
    }
}
