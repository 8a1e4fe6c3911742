// Block-tridiagonal systems: (H + λs Λ⊗I) δ = −g, from what the linearisation of one curve has left.
//
//   D_i = 2 G_i + S_i + λs          B_i = −J_i J_{i+1}ᵀ − κ          B_{i−1}ᵀ δ_{i−1} + D_i δ_i + B_i δ_{i+1} = −g_i
//
// Points are eliminated one after the other, or from both ends at once, inside a point by Gauss–Jordan with row pivoting, so that an
// indefinite H is allowed. Where a block is singular, δ is not finite.
#pragma once
#include "product.cuh"
#include "team.cuh"

/// A system of n points; arrays start at its first.
struct System {
    const float* gram;      // G, [n, d, d]
    const float* curvature; // S, [n, d, d], or null
    const float* off;       // J_i J_{i+1}ᵀ, [n, d, d]; the last is not used
    const float* gradient;  // g, [n, d]
    float* blocks;          // room for D⁻¹ B, [n, d, d]
    float* sides;           // room for D⁻¹ b, [n, d]
    float* delta;           // δ, [n, d]
    u32 points;
    /// λs and κ.
    float damping, coupling;
};

/// Numbers of workspace that `solve_in_order` takes.
DEVICE u32 solve_workspace(u32 d) { return d * (2 * d + 1) + 2 * (2 * d + 1) + d; }

/// Solves a system from the first point to the last. `work` is shared or global memory of the team's own.
///
/// About n (14/3 d³ + 8 d²) operations, of which a team of at least d (2d + 1) threads takes n (2d + 3) steps.
template <u32 DIM, class Team, class Work>
DEVICE void solve_in_order(const System& s, u32 latent_dim, const Team& team, Work work) {
    const u32 d = known<DIM>(latent_dim), square = d * d, width = 2 * d + 1, n = s.points;
    const u32 threads = team.threads(), thread = team.thread();
    // Rows of `system`: pivot block, right block, right side.
    Work system = work, pivot_row = work + d * width, old_row = pivot_row + width, factors = old_row + width;
    for (u32 i = 0; i < n; i++) {
        const bool last = i + 1 == n;
        // The pivot block and the right side, less what the block before leaves: Bᵀ (D⁻¹ [B | b]).
        for (u32 e = thread; e < d * (d + 1); e += threads) {
            const u32 r = e / (d + 1), c = e % (d + 1);
            float value;
            if (c < d) {
                value = 2.0f * s.gram[i * square + r * d + c];
                if (s.curvature != nullptr) value += s.curvature[i * square + r * d + c];
                if (r == c) value += s.damping;
            } else {
                value = -s.gradient[i * d + r];
            }
            if (i > 0) {
                const u32 before = i - 1;
                for (u32 k = 0; k < d; k++) {
                    float b = s.off[before * square + k * d + r];
                    if (k == r) b += s.coupling;
                    const float solved = c < d ? s.blocks[before * square + k * d + c] : s.sides[before * d + k];
                    value = fused(b, solved, value);
                }
            }
            system[r * width + (c < d ? c : 2 * d)] = value;
        }
        for (u32 e = thread; e < square; e += threads) {
            const u32 r = e / d, c = e % d;
            float value = last ? 0.0f : -s.off[i * square + e];
            if (r == c && !last) value -= s.coupling;
            system[r * width + d + c] = value;
        }
        team.sync();
        for (u32 k = 0; k < d; k++) {
            u32 best = k;
            float largest = fabsf(system[k * width + k]);
            for (u32 r = k + 1; r < d; r++) {
                const float size = fabsf(system[r * width + k]);
                if (size > largest) largest = size, best = r;
            }
            const float inverse = 1.0f / system[best * width + k];
            for (u32 c = k + thread; c < width; c += threads) {
                pivot_row[c] = system[best * width + c] * inverse;
                old_row[c] = system[k * width + c];
            }
            for (u32 r = thread; r < d; r += threads) factors[r] = system[(r == best ? k : r) * width + k];
            team.sync();
            const u32 columns = width - k - 1;
            for (u32 e = thread; e < d * columns; e += threads) {
                const u32 r = e / columns, c = k + 1 + e % columns;
                if (r == k) {
                    system[r * width + c] = pivot_row[c];
                } else {
                    const float value = r == best ? old_row[c] : system[r * width + c];
                    system[r * width + c] = fused(-factors[r], pivot_row[c], value);
                }
            }
            team.sync();
        }
        for (u32 e = thread; e < square; e += threads) s.blocks[i * square + e] = system[e / d * width + d + e % d];
        for (u32 r = thread; r < d; r += threads) s.sides[i * d + r] = system[r * width + 2 * d];
        team.sync();
    }
    // Back substitution; δ of the point behind stands in pivot_row and old_row by turns.
    for (u32 i = n; i-- > 0;) {
        Work behind = (i & 1) != 0 ? pivot_row : old_row, here = (i & 1) != 0 ? old_row : pivot_row;
        for (u32 r = thread; r < d; r += threads) {
            float value = s.sides[i * d + r];
            if (i + 1 < n) {
                for (u32 c = 0; c < d; c++) value = fused(-s.blocks[i * square + r * d + c], behind[c], value);
            }
            here[r] = value;
            s.delta[i * d + r] = value;
        }
        team.sync();
    }
}

/// Makes column block⁻¹ · column.
template <u32 D>
DEVICE void eliminate(float (&block)[D][D], float (&column)[D]) {
    UNROLL for (u32 k = 0; k < D; k++) {
        u32 best = k;
        float largest = fabsf(block[k][k]);
        UNROLL for (u32 r = k + 1; r < D; r++) {
            const float size = fabsf(block[r][k]);
            if (size > largest) largest = size, best = r;
        }
        UNROLL for (u32 r = k + 1; r < D; r++) {
            const bool swap = r == best;
            UNROLL for (u32 c = k; c < D; c++) {
                const float upper = block[k][c], lower = block[r][c];
                block[k][c] = swap ? lower : upper, block[r][c] = swap ? upper : lower;
            }
            const float upper = column[k], lower = column[r];
            column[k] = swap ? lower : upper, column[r] = swap ? upper : lower;
        }
        const float inverse = 1.0f / block[k][k];
        UNROLL for (u32 c = k + 1; c < D; c++) block[k][c] *= inverse;
        column[k] *= inverse;
        UNROLL for (u32 r = 0; r < D; r++) {
            if (r == k) continue;
            UNROLL for (u32 c = k + 1; c < D; c++) block[r][c] = fused(-block[r][k], block[k][c], block[r][c]);
            column[r] = fused(-block[r][k], column[k], column[r]);
        }
    }
}

/// Solves a system of small d from both ends at once, by one warp, with everything in registers.
///
/// Half a warp eliminates from either end, and both meet in the middle, point m = n / 2, where what they leave is solved for δ_m; then each
/// half goes back to its own end. So a half sees a chain of its own, whose step j is point j or n − 1 − j, and whose L_j is B_j, or
/// B_{n−2−j}ᵀ: the same program for both, but for where a step's numbers lie. The order of the points does not change the system.
///
/// In every half lane c < d has column c of [P_j | L_j] and lane d the right side, where P_j = D_j − L_{j−1}ᵀ X_{j−1}, X_j = P_j⁻¹ L_j; P_j is
/// then put together in every lane. A step waits for that, for d reciprocals, and for little else: the numbers of the next step are
/// loaded before. G and S are symmetric, and their columns are read as rows; X is kept by columns.
template <u32 D>
DEVICE void solve_from_both_ends(const System& s) {
    constexpr u32 HALF = WARP / 2, SQUARE = D * D;
    static_assert(D < HALF, "a lane for every column");
    const u32 n = s.points, middle = n / 2, place = lane() % HALF, c = min(place, D); // lanes behind d do as lane d
    const bool from_end = lane() >= HALF, is_side = c == D, writes = place <= D;
    const u32 steps = from_end ? n - 1 - middle : middle; // for even n the second half has one step less
    // Where the numbers of the next step to be loaded are, and how far it is to those behind: the lane's column of G and S, or g; L_j, with
    // the sign of J Jᵀ and without κ, and the lane's column of it. Also where the lane's column of X, or the right side, is kept.
    const long long way = from_end ? -1 : 1, column_step = way * (is_side ? D : SQUARE), link_step = way * SQUARE;
    const u32 first = from_end ? n - 1 : 0, first_column = first * (is_side ? D : SQUARE) + (is_side ? 0 : c * D);
    const u32 first_link = from_end && n > 1 ? n - 2 : 0, right_row = from_end ? 1 : D;
    const float* column_at = (is_side ? s.gradient : s.gram) + first_column;
    const float* more_at = (is_side || s.curvature == nullptr ? s.gram : s.curvature) + first_column;
    const float* link_at = s.off + first_link * SQUARE;
    const float* right_at = link_at + (from_end ? c * D : c);
    float* kept_at = (is_side ? s.sides : s.blocks) + first_column;
    const bool has_more = !is_side && s.curvature != nullptr;
    const float scale = is_side ? -1.0f : 2.0f;

    /// The lane's part of a step, as it is loaded.
    struct Loaded {
        float column[D], more[D], right[D];
    };
    auto load = [&](bool links) {
        Loaded to;
        UNROLL for (u32 r = 0; r < D; r++) {
            to.column[r] = column_at[r];
            to.more[r] = has_more ? more_at[r] : 0.0f;
            to.right[r] = links && !is_side ? right_at[r * right_row] : 0.0f;
        }
        column_at += column_step, more_at += column_step, right_at += link_step;
        return to;
    };
    // X_{j−1} and, as it was loaded, the block of L_{j−1}: transposed in the second half.
    float before[D] = {}, link[D][D] = {};
    /// `start` − L_{j−1}ᵀ X_{j−1}, of the lane's column.
    auto reduced = [&](float start, u32 r) {
        UNROLL for (u32 k = 0; k < D; k++) {
            const float of_link = k == r ? link[k][k] + s.coupling : from_end ? link[r][k] : link[k][r];
            start = fused(of_link, before[k], start);
        }
        return start;
    };
    /// The lane's column of [D_j | −g].
    auto own = [&](const Loaded& from, u32 r) {
        return scale * from.column[r] + from.more[r] + (r == c ? s.damping : 0.0f);
    };
    /// The lanes' columns as a block, in every lane.
    auto gather = [&](float (&block)[D][D], const float (&column)[D]) {
        UNROLL for (u32 r = 0; r < D; r++) {
            UNROLL for (u32 k = 0; k < D; k++) block[r][k] = __shfl_sync(ALL_LANES, column[r], k, HALF);
        }
    };

    Loaded now = load(steps > 0);
    for (u32 j = 0; j < middle; j++) {
        const bool active = j < steps;
        float column[D], right[D], block[D][D];
        UNROLL for (u32 r = 0; r < D; r++) {
            column[r] = reduced(own(now, r), r);
            right[r] = -now.right[r] - (r == c ? s.coupling : 0.0f);
        }
        if (active) { // nothing below waits for these
            now = load(j + 1 < steps);
            UNROLL for (u32 e = 0; e < SQUARE; e++) link[e / D][e % D] = link_at[e];
            link_at += link_step;
        }
        gather(block, column);
        UNROLL for (u32 r = 0; r < D; r++) column[r] = is_side ? column[r] : right[r];
        eliminate(block, column);
        if (active) {
            UNROLL for (u32 r = 0; r < D; r++) {
                before[r] = column[r];
                if (writes) kept_at[r] = column[r];
            }
            kept_at += column_step;
        }
    }
    // The middle, to which both halves have come; it is in `now` of both.
    float column[D], block[D][D], behind[D];
    UNROLL for (u32 r = 0; r < D; r++) {
        column[r] = reduced(from_end ? 0.0f : own(now, r), r);
        column[r] += __shfl_xor_sync(ALL_LANES, column[r], HALF);
    }
    gather(block, column);
    eliminate(block, column);
    UNROLL for (u32 r = 0; r < D; r++) {
        behind[r] = __shfl_sync(ALL_LANES, column[r], D);
        if (lane() == 0) s.delta[middle * D + r] = behind[r];
    }
    __syncwarp(); // X and the right sides can be read
    if (steps == 0) return;
    // Back from the middle; every lane of a half finds all of δ.
    const u32 last = from_end ? middle + 1 : middle - 1;
    const float* block_at = s.blocks + last * SQUARE;
    const float* side_at = s.sides + last * D;
    float* delta_at = s.delta + last * D;
    struct Kept {
        float block[SQUARE], side[D];
    };
    auto load_kept = [&] {
        Kept to;
        UNROLL for (u32 r = 0; r < D; r++) to.side[r] = side_at[r];
        UNROLL for (u32 e = 0; e < SQUARE; e++) to.block[e] = block_at[e];
        side_at -= way * D, block_at -= link_step;
        return to;
    };
    Kept kept = load_kept();
    for (u32 j = steps; j-- > 0;) {
        Kept next = kept;
        if (j > 0) next = load_kept();
        UNROLL for (u32 r = 0; r < D; r++) {
            UNROLL for (u32 k = 0; k < D; k++) kept.side[r] = fused(-kept.block[k * D + r], behind[k], kept.side[r]);
            if (place == 0) delta_at[r] = kept.side[r];
        }
        UNROLL for (u32 r = 0; r < D; r++) behind[r] = kept.side[r];
        delta_at -= way * D;
        kept = next;
    }
}

/// The largest d, known to the compiler, whose systems are solved in registers.
constexpr u32 REGISTER_DIM = 4;

/// Solves a system. Behind it every thread of the team may read all of δ, whose bits are the same for every team; those with d known and
/// not known to the compiler may differ. `work` is not used in registers.
template <u32 DIM, class Team, class Work>
DEVICE void solve(const System& s, u32 latent_dim, const Team& team, Work work) {
    if constexpr (DIM >= 1 && DIM <= REGISTER_DIM) {
        if (team.thread() < WARP) solve_from_both_ends<DIM>(s);
        team.sync();
    } else {
        solve_in_order<DIM>(s, latent_dim, team, work);
    }
}
