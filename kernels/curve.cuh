// One curve in work: what the device remembers of it between kernels.
//
// A batch has room for `slots` curves of `stride` = N + 1 points. Point i of the curve in slot s has the number s · stride + i in every
// array that goes "by number"; a curve on a coarser grid uses the first of them.
#pragma once
#include "device.cuh"

/// What a curve needs next.
enum Need : u32 {
    NEED_NOTHING, // free
    NEED_LINEARISE,
    NEED_GRADIENT,
    NEED_STEP,
    NEED_SEARCH,
    NEED_LINE, // the straight line's energy, to compare with
};

/// As `Status` in src/geodesic/mod.rs.
enum Status : u32 { CONVERGED, MAX_ITERATIONS, STALLED, NON_FINITE, NO_STATUS };

enum Phase : u32 { PHASE_START, PHASE_CANDIDATE, PHASE_SETTLE };

constexpr u32 LEVEL_COUNT = 3;
constexpr u32 CANDIDATE_COUNT = 6;
constexpr u32 NO_CANDIDATE = CANDIDATE_COUNT;
/// Grids at most, coarse to fine.
constexpr u32 MOST_GRIDS = 12;

/// `Progress` of src/geodesic/policy.rs. Energies are divided by N.
struct Progress {
    double energy, damping;
    double slopes[LEVEL_COUNT];
    double best_energy;
    double last_slope;
    u32 phase, candidate;
    u32 newton, iterations;
    /// Bit k: the slope of level k is known.
    u32 solved_levels;
    /// Candidate, or NO_CANDIDATE.
    u32 best;
    u32 chord, outdated, hard, stale;
    u32 status;
    u32 padding;
};

struct Curve {
    Progress progress;
    /// Energy of the straight line on the first grid.
    double line_energy;
    /// What is reported if the straight line turns out to be no better.
    double found_energy, found_length;
    u32 job;
    u32 need;
    u32 segments, grid;
    /// Started again from the straight line, on the last grid.
    u32 anew;
    u32 found_status;
};
static_assert(sizeof(Curve) == 152, "src/cuda/step/mod.rs allocates as much");

/// Constants of src/geodesic/policy.rs, which has their meaning.
struct Policy {
    double tolerance, coarse_tolerance, noise, low_noise;
    double levels[LEVEL_COUNT];
    double candidate_lengths[CANDIDATE_COUNT];
    double first_damping, bold_share, trust, trusted_shrinkage, little, contraction, growth, least_damping, most_damping;
    double coupling;
    u32 candidate_levels[CANDIDATE_COUNT];
    u32 max_iterations;
    u32 padding;
};

/// Both sums over the segments from `squares` on, in every lane; the order is fixed.
DEVICE void chord_sums(const float* squares, u32 segments, double& energy, double& length) {
    energy = 0.0, length = 0.0;
    for (u32 i = lane(); i < segments; i += WARP) {
        energy += squares[i];
        length += sqrtf(squares[i]);
    }
    energy = warp_sum(energy), length = warp_sum(length);
}
