// Eigenvalues and eigenvectors of metrics by Jacobi's rotations, and metrics without their weak directions.
//
//   metrics   [points, d, d]
//   spectra   [points, d + d²]    of each point d eigenvalues, largest first, and d eigenvectors as rows in the same order
//
// Formulas and threshold are those of src/cpu/spectrum.rs, which says where they come from. A round of the tournament is n/2 pairs of
// latents that have none in common, n = d or, with one that rests, d + 1. It has two phases, with a barrier behind each:
//
//   turns    a thread for every pair: s and τ, 0 where nothing is to be turned, and the entries pp, qq and pq
//   mixes    the upper triangle's other entries, by the 2 × 2 that two pairs have in common: a thread reads them, turns them by one pair
//            on one side and by the other on the other, and writes them; and the vectors' rows p and q, a thread for every column
//
// A block for every metric, of 32 threads for d ≤ 16, 64 for d ≤ 32, 128 for d ≤ 64, and 256. In shared memory stand the triangle with a
// row of n + 1, odd, for every latent; the vectors; s and τ: d (n + 1) + d² + n floats. The column behind the last latent is zeros, the
// resting one's partner. FFMA: 4d³ a sweep, of which six to nine are usual; words of shared memory: 3d³ a sweep; both are less where
// little is turned. A metric is read once from the device's memory, and its spectrum written once.
#include "device.cuh"

constexpr u32 SPECTRUM_THREADS = 256;
/// Sweeps at most.
constexpr u32 SWEEPS = 40;
/// ε², and e^−87: entries whose square is smaller are nothing beside a largest entry near 1.
constexpr float EPSILON_SQUARED = 1.42108547e-14f;
constexpr float SQUARE_FLOOR = 1.64581143e-38f;

struct Spectra {
    const float* metrics;
    float* spectra;
    u32 points, d;
};

/// Cells of a table, row by row: those of this thread, from its own number on in strides of the block.
struct Cells {
    u32 columns, row, column, row_step, column_step;

    DEVICE explicit Cells(u32 columns)
        : columns(columns), row(threadIdx.x / columns), column(threadIdx.x % columns), row_step(blockDim.x / columns),
          column_step(blockDim.x % columns) {}

    DEVICE void next() {
        row += row_step, column += column_step;
        if (column >= columns) column -= columns, row++;
    }
};

/// Whether any thread of the block says yes: the same in all of them. It begins with a barrier, and another one has to follow before the
/// next vote.
DEVICE bool any_thread(Shared<u32> votes, bool mine) {
    const u32 of_warp = __ballot_sync(ALL_LANES, mine);
    if (lane() == 0) votes[threadIdx.x / WARP] = of_warp;
    __syncthreads();
    u32 all = 0;
    for (u32 warp = 0; warp < blockDim.x / WARP; warp++) all |= u32(votes[warp]);
    return all != 0;
}

/// 2^k for −126 ≤ k ≤ 127.
DEVICE float power_of_2(int k) { return __uint_as_float(u32(k + 127) << 23); }

/// The power of 2 nearest to a metric's largest entry, as an exponent from −120 to 120. For a whole warp.
DEVICE int scale_of(const float* metric, u32 d) {
    float largest = 0.0f;
    for (u32 k = lane(); k < d; k += WARP) largest = fmaxf(largest, metric[u64(k) * (d + 1)]);
    UNROLL for (u32 offset = 16; offset > 0; offset /= 2) {
        largest = fmaxf(largest, __shfl_xor_sync(ALL_LANES, largest, offset));
    }
    if (!(largest > 0.0f)) return 0;
    const u32 bits = __float_as_uint(largest);
    const int above_root_2 = (bits & 0x007fffffu) > 0x003504f3u;
    return min(max(int(bits >> 23) - 127 + above_root_2, -120), 120);
}

/// One table of a round: latents p < q, of which q is d where p rests.
struct Pair {
    u32 p, q;
};

/// Who sits at a place, of n: the first one stays, the others move on.
DEVICE u32 seat(u32 place, u32 round, u32 n) {
    if (place == 0) return 0;
    const u32 moved = place + round;
    return moved < n ? moved : moved - (n - 1);
}

DEVICE Pair pair_of(u32 table, u32 round, u32 n) {
    const u32 x = seat(table, round, n), y = seat(n - 1 - table, round, n);
    return {min(x, y), max(x, y)};
}

/// x ← x − s (y + τ x) and y ← y + s (x − τ y).
DEVICE void turn(float& x, float& y, float s, float tau) {
    const float from = fused(tau, x, y), to = fused(-tau, y, x);
    x = fused(-s, from, x);
    y = fused(s, to, y);
}

/// A metric on its way to a diagonal one.
struct Rotation {
    u32 d, n, stride;
    /// The upper triangle, its rows of `stride`, and the vectors, [d, d].
    Shared<float> entries, vectors;
    /// s and τ of every pair.
    Shared<float> sines, taus;

    DEVICE u32 place(u32 a, u32 b) const { return min(a, b) * stride + max(a, b); }

    /// The first phase; whether this thread's pair is turned.
    DEVICE bool find_turns(u32 round) const {
        const u32 table = threadIdx.x;
        if (table >= n / 2) return false;
        const Pair pair = pair_of(table, round, n);
        float s = 0.0f, tau = 0.0f;
        bool turned = false;
        if (pair.q < d) {
            const u32 at_pp = pair.p * (stride + 1), at_qq = pair.q * (stride + 1), at_pq = pair.p * stride + pair.q;
            const float pp = entries[at_pp], qq = entries[at_qq], pq = entries[at_pq];
            const float square = pq * pq;
            turned = square > EPSILON_SQUARED * fabsf(pp * qq) && square > SQUARE_FLOOR;
            if (turned) {
                const float delta = qq - pp, twice = pq + pq;
                const float t = (delta < 0.0f ? -twice : twice) / (fabsf(delta) + sqrtf(fused(delta, delta, twice * twice)));
                const float c = 1.0f / sqrtf(fused(t, t, 1.0f));
                s = t * c;
                tau = s / (1.0f + c);
                entries[at_pp] = fused(-t, pq, pp);
                entries[at_qq] = fused(t, pq, qq);
                entries[at_pq] = 0.0f;
            }
        }
        sines[table] = s, taus[table] = tau;
        return turned;
    }

    /// The second phase. `pairs` are cells in rows of n/2 | 1, `columns` in rows of d.
    DEVICE void mix(u32 round, const Cells& pairs, const Cells& columns) const {
        // Two tables a step of 1, 2, … apart on a circle of an odd number: each two of them once. The last one may be empty.
        const u32 tables = n / 2, circle = pairs.columns;
        for (Cells at = pairs; at.row < circle / 2; at.next()) {
            const u32 one = at.column, behind = one + at.row + 1, other = behind < circle ? behind : behind - circle;
            const u32 first = min(one, other), second = max(one, other);
            if (second >= tables) continue;
            const float s = sines[first], next_s = sines[second];
            if (s == 0.0f && next_s == 0.0f) continue;
            const float tau = taus[first], next_tau = taus[second];
            const Pair a = pair_of(first, round, n), b = pair_of(second, round, n);
            const u32 pp = place(a.p, b.p), pq = place(a.p, b.q), qp = place(a.q, b.p), qq = place(a.q, b.q);
            float of_pp = entries[pp], of_pq = entries[pq], of_qp = entries[qp], of_qq = entries[qq];
            turn(of_pp, of_qp, s, tau);
            turn(of_pq, of_qq, s, tau);
            turn(of_pp, of_pq, next_s, next_tau);
            turn(of_qp, of_qq, next_s, next_tau);
            entries[pp] = of_pp, entries[pq] = of_pq, entries[qp] = of_qp, entries[qq] = of_qq;
        }
        for (Cells at = columns; at.row < tables; at.next()) {
            const float s = sines[at.row];
            if (s == 0.0f) continue;
            const Pair pair = pair_of(at.row, round, n);
            const u32 p = pair.p * d + at.column, q = pair.q * d + at.column;
            float of_p = vectors[p], of_q = vectors[q];
            turn(of_p, of_q, s, taus[at.row]);
            vectors[p] = of_p, vectors[q] = of_q;
        }
    }

    /// Eigenvalue k times a number, and its vector with a positive largest number, to where they stand in the order. For a whole warp.
    DEVICE void write(u32 k, float scale, float* spectrum) const {
        const float value = entries[k * (stride + 1)];
        u32 rank = 0;
        for (u32 from = 0; from < d; from += WARP) {
            const u32 j = from + lane();
            const float other = j < d ? float(entries[j * (stride + 1)]) : 0.0f;
            rank += __popc(__ballot_sync(ALL_LANES, j < d && (other > value || (other == value && j < k))));
        }
        const Shared<float> vector = vectors + k * d;
        float largest = 0.0f;
        u32 at = d;
        for (u32 j = lane(); j < d; j += WARP) {
            const float x = vector[j];
            if (fabsf(x) > fabsf(largest)) largest = x, at = j;
        }
        UNROLL for (u32 offset = 16; offset > 0; offset /= 2) {
            const float other = __shfl_xor_sync(ALL_LANES, largest, offset);
            const u32 other_at = __shfl_xor_sync(ALL_LANES, at, offset);
            const bool is_first = fabsf(other) == fabsf(largest) && other_at < at;
            if (fabsf(other) > fabsf(largest) || is_first) largest = other, at = other_at;
        }
        const float sign = largest < 0.0f ? -1.0f : 1.0f;
        float* const to = spectrum + d + u64(rank) * d;
        for (u32 j = lane(); j < d; j += WARP) to[j] = vector[j] * sign;
        if (lane() == 0) spectrum[rank] = (value > 0.0f ? value : 0.0f) * scale;
    }
};

KERNEL(spectra, Spectra, SPECTRUM_THREADS, 4) {
    SHARED(u32, votes, SPECTRUM_THREADS / WARP);
    DYNAMIC_SHARED(float, room);
    const u32 d = p.d, n = d + d % 2, stride = n + 1, size = d * d;
    const Shared<float> vectors = room + d * stride, sines = vectors + size;
    const Rotation rotation = {d, n, stride, room + 0, vectors, sines, sines + n / 2};
    const Cells columns(d), pairs(n / 2 | 1);
    for (u32 point = blockIdx.x; point < p.points; point += gridDim.x) {
        const float* const metric = p.metrics + u64(point) * size;
        float* const spectrum = p.spectra + u64(point) * (d + size);
        const int power = scale_of(metric, d);
        const float inverse = power_of_2(-power);
        bool finite = true;
        for (Cells at = columns; at.row < d; at.next()) {
            const u32 place = at.row * d + at.column;
            const float x = metric[place];
            finite = finite && isfinite(x);
            if (at.row <= at.column) rotation.entries[at.row * stride + at.column] = x * inverse;
            vectors[place] = at.row == at.column ? 1.0f : 0.0f;
        }
        if (n > d) {
            for (u32 k = threadIdx.x; k < d; k += blockDim.x) rotation.entries[k * stride + d] = 0.0f;
        }
        if (any_thread(votes, !finite)) {
            for (u32 k = threadIdx.x; k < d + size; k += blockDim.x) spectrum[k] = float(not_a_number());
        } else {
            for (u32 sweep = 0; sweep < SWEEPS; sweep++) {
                bool turned = false;
                for (u32 round = 0; round < n - 1; round++) {
                    turned |= rotation.find_turns(round);
                    __syncthreads();
                    rotation.mix(round, pairs, columns);
                    __syncthreads();
                }
                if (!any_thread(votes, turned)) break;
            }
            for (u32 k = threadIdx.x / WARP; k < d; k += blockDim.x / WARP) rotation.write(k, power_of_2(power), spectrum);
        }
        __syncthreads(); // the next metric may come
    }
}

struct TruncatedMetrics {
    const float* metrics;
    const float* spectra;
    /// [points, d² + 1]: Σ λ_k v_k v_kᵀ over the values above `threshold` times the largest, and how many those are.
    float* out;
    u32 points, d;
    float threshold;
    u32 padding;
};

/// A thread for every entry, which is the metric's own where no direction is weak. FFMA: points · d² · count.
KERNEL(truncated_metrics, TruncatedMetrics, 256, 4) {
    const u32 d = p.d, size = d * d;
    const u64 entries = u64(p.points) * size;
    for (u64 at = grid_thread(); at < entries; at += grid_threads()) {
        const u64 point = at / size;
        const u32 entry = u32(at % size), i = entry / d, j = entry % d;
        const float* const values = p.spectra + point * (d + size);
        const float* const vectors = values + d;
        const float largest = values[0];
        u32 count = 0;
        while (count < d && values[count] > p.threshold * largest) count++;
        float x = 0.0f;
        if (count == d || !isfinite(largest)) {
            x = p.metrics[at];
        } else {
            for (u32 k = 0; k < count; k++) x = fused(vectors[k * d + i] * vectors[k * d + j], values[k], x);
        }
        float* const out = p.out + point * (size + 1);
        out[entry] = x;
        if (entry == 0) out[size] = float(count);
    }
}
