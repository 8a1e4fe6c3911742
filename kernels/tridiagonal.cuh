// Block-tridiagonal systems: (H + λs Λ⊗I) δ = −g, from what the linearisation of one curve has left.
//
//   D_i = 2 G_i + S_i + λs          B_i = −J_i J_{i+1}ᵀ − κ          B_{i−1}ᵀ δ_{i−1} + D_i δ_i + B_i δ_{i+1} = −g_i
//
// Points are eliminated one after the other, inside a point by Gauss–Jordan with row pivoting, so that an indefinite H is allowed. Where
// a block is singular, δ is not finite.
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

/// Solves a system. Every thread of the team may read all of δ behind it.
template <u32 DIM, class Team, class Work>
DEVICE void solve(const System& s, u32 latent_dim, const Team& team, Work work) {
    solve_in_order<DIM>(s, latent_dim, team, work);
}
