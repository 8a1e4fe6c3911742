// The rules by which one curve moves; src/geodesic/policy.rs says what they are and why. Function by function the same, and held
// against it by tests.
#pragma once
#include "curve.cuh"

/// What a curve does next.
enum Next : u32 { NEXT_LINEARISE, NEXT_GRADIENT, NEXT_TRY, NEXT_SETTLE, NEXT_STOP };

struct Decision {
    u32 next;
    /// Of NEXT_SETTLE: the candidate that won, or NO_CANDIDATE for the curve as it stands.
    u32 winner;
    /// Of NEXT_STOP.
    u32 status;
};

DEVICE bool slope_is_known(const Progress& c, u32 level) { return (c.solved_levels >> level & 1) != 0; }
DEVICE double slope_or_zero(const Progress& c, u32 level) { return slope_is_known(c, level) ? c.slopes[level] : 0.0; }

DEVICE void begin_search(Progress& c) {
    c.phase = PHASE_CANDIDATE;
    c.candidate = 0;
    c.solved_levels = 0;
    c.best = NO_CANDIDATE;
}

DEVICE void begin(const Policy& policy, Progress& c, u32 iterations) {
    begin_search(c);
    c.phase = PHASE_START;
    c.energy = infinity();
    c.damping = policy.first_damping;
    c.best_energy = c.last_slope = 0.0;
    c.newton = c.chord = c.outdated = c.hard = c.stale = 0;
    c.iterations = iterations;
    c.status = NO_STATUS;
    c.padding = 0;
}

/// The same curve on another grid.
DEVICE void refine(const Policy& policy, Progress& c) {
    if (c.status == STALLED) c.damping = policy.first_damping;
    c.phase = PHASE_START;
    c.energy = infinity();
    c.stale = 0;
    c.status = NO_STATUS;
}

DEVICE void linearised(Progress& c) {
    c.iterations += 1;
    c.chord = 0;
    begin_search(c);
}

DEVICE void gradient_found(Progress& c) {
    c.chord = 1;
    c.last_slope = slope_or_zero(c, 0);
    begin_search(c);
}

DEVICE bool is_over(const Progress& c) {
    return c.status != NO_STATUS && c.phase == PHASE_CANDIDATE && c.candidate == 0;
}

/// What an undamped step would promise: a damped one promises about 1/(1 + λ) of it.
DEVICE double promise(const Policy& policy, const Progress& c, double slope) {
    return fabs(slope) * (1.0 + policy.levels[0] * c.damping);
}

/// Called with ∇E · δ of a level just solved. `reserve` linearisations must be left.
DEVICE void solved(const Policy& policy, Progress& c, bool last_grid, u32 reserve, u32 level, double slope) {
    c.slopes[level] = slope;
    c.solved_levels |= 1u << level;
    if (level > 0) return;
    const double tolerance = last_grid ? policy.tolerance : policy.coarse_tolerance;
    if (promise(policy, c, slope) <= tolerance * c.energy) {
        c.status = CONVERGED;
    } else if (c.chord && fabs(slope) > policy.contraction * fabs(c.last_slope)) {
        c.outdated = 1;
    } else if (c.iterations + reserve >= policy.max_iterations) {
        c.status = MAX_ITERATIONS;
    }
}

/// A step to the given energy is taken.
DEVICE Decision accept(const Policy& policy, Progress& c, u32 level, double energy) {
    const double gain = c.energy - energy;
    const double share = gain / (-0.5 * slope_or_zero(c, level));
    const bool trusted = level == 0 && share >= policy.trust && share <= 1.0 / policy.trust;
    const bool stepped_by_newton = c.newton != 0;
    const bool little = gain < policy.little * c.energy;
    c.newton = c.hard ? little : c.newton || little || trusted;
    const double damping = c.damping * (trusted && !c.hard ? policy.trusted_shrinkage : policy.levels[level]);
    c.damping = damping > policy.least_damping ? damping : policy.least_damping;
    c.energy = energy;
    c.stale = 0;
    return {trusted && stepped_by_newton ? NEXT_GRADIENT : NEXT_LINEARISE, NO_CANDIDATE, NO_STATUS};
}

/// The curve is done; if the values at hand are another's, they must be found again first.
DEVICE Decision end(Progress& c, u32 status) {
    c.status = status;
    if (!c.stale) return {NEXT_STOP, NO_CANDIDATE, status};
    c.phase = PHASE_SETTLE;
    return {NEXT_SETTLE, NO_CANDIDATE, NO_STATUS};
}

DEVICE Decision judge_candidate(const Policy& policy, Progress& c, double energy, double noise) {
    const u32 k = c.candidate, level = policy.candidate_levels[k];
    const double slope = slope_or_zero(c, level);
    const bool falls = slope < 0.0 && energy < c.energy;
    c.stale = 1;
    if (k == 0 && falls && c.energy - energy >= policy.bold_share * -0.5 * slope) return accept(policy, c, level, energy);
    if (c.chord) {
        c.phase = PHASE_SETTLE;
        return {NEXT_SETTLE, NO_CANDIDATE, NO_STATUS};
    }
    c.hard = 1;
    if (falls && (c.best == NO_CANDIDATE || energy < c.best_energy)) c.best = k, c.best_energy = energy;
    if (k + 1 < CANDIDATE_COUNT) {
        c.candidate = k + 1;
        return {NEXT_TRY, NO_CANDIDATE, NO_STATUS};
    }
    if (c.best != NO_CANDIDATE) {
        c.phase = PHASE_SETTLE;
        return {NEXT_SETTLE, c.best, NO_STATUS};
    }
    if (promise(policy, c, slope_or_zero(c, 0)) <= noise * c.energy) return end(c, CONVERGED);
    c.damping *= policy.growth;
    c.newton = 0;
    if (c.damping > policy.most_damping) return end(c, STALLED);
    begin_search(c);
    return {NEXT_TRY, NO_CANDIDATE, NO_STATUS};
}

/// Called with the energy of the curve just tried, and the share of it that rounding can hide.
DEVICE Decision judge(const Policy& policy, Progress& c, double energy, double noise) {
    if (c.phase == PHASE_START) {
        if (!isfinite(energy)) return {NEXT_STOP, NO_CANDIDATE, NON_FINITE};
        c.energy = energy;
        return {NEXT_LINEARISE, NO_CANDIDATE, NO_STATUS};
    }
    if (c.phase == PHASE_CANDIDATE) return judge_candidate(policy, c, energy, noise);
    if (c.status != NO_STATUS) return {NEXT_STOP, NO_CANDIDATE, c.status};
    if (c.best != NO_CANDIDATE) return accept(policy, c, policy.candidate_levels[c.best], energy);
    c.stale = 0;
    return {NEXT_LINEARISE, NO_CANDIDATE, NO_STATUS};
}
