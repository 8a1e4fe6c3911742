// One curve's part in a round of the solver, curve by curve: what step.cu calls for a list of curves, and a kernel of its own may call for
// those that it keeps. A curve is in work by one team at a time, all of whose threads make the call; behind it they see what was written.
//
//   admit_curve                              a free slot takes a pair
//   decoded_points, derivatives, takes_step  what a curve waits for
//   step_curve                               (H + λs Λ⊗I) δ = −∇E, then trial = points + length · δ
//   decide_curve                             accept, try again, refine, finish
#pragma once
#include "policy.cuh"
#include "team.cuh"
#include "tridiagonal.cuh"

/// Counted on the device; the host reads them once a round.
struct Counters {
    /// The next pair to take, and the first that has not arrived yet.
    u32 next, limit;
    /// Pairs ever finished in either half of the ring.
    u32 finished[2];
    /// Items of this round: free slots, points to linearise, points with a gradient alone, points of both with an adjoint, curves to
    /// step, points to decode.
    u32 free, tangents, gradients, adjoints, steps, searches;
    u32 padding[6];
};
static_assert(sizeof(Counters) == 64, "src/cuda/step/mod.rs reads them");

/// A batch of curves; every kernel of step.cu takes it.
struct Batch {
    Counters* counters;
    Curve* curves;
    /// [slots]
    u32* segments_of;
    // By point number: [slots · stride, …].
    float* points;      // z, [d]
    float* trial;       // the curve being tried, [d]
    const float* squares; // ‖f_{i+1} − f_i‖² along it
    const float* gram;  // G, [d, d]
    const float* off;   // J_i J_{i+1}ᵀ, [d, d]
    const float* curvature; // S, [d, d], or null where φ'' = 0 throughout
    const float* gradient;  // J r, [d]
    float* steps;       // δ, [LEVEL_COUNT, d] by level first: [LEVEL_COUNT, slots · stride, d]
    float* blocks;      // of the solve, [d, d]
    float* sides;       // of the solve, [d]
    // Lists.
    u32* tangent_ids;   // [slots · stride], gradient points from the end
    u32* adjoint_rows;  // [slots · stride], places in tangent_ids
    u32* free_slots;    // [slots]
    u32* step_curves;   // [slots]
    u32* search_ids;    // [slots · stride]
    /// Scratch of step_wide, [blocks of the grid, 2d² + d + …].
    float* workspace;
    // The ring of pairs: job j stands at j % ring, and its ends at j % input_ring, which is larger where the caller's own arrays are read.
    const float* starts; // [input_ring, d], or
    const float* ends;
    const float* initial; // [input_ring, N + 1, d]
    float* out_points;   // [ring, N + 1, d]
    double* out_numbers; // [ring, 3]: energy, length, ‖∇E‖
    u32* out_iterations; // [ring]
    u32* out_status;     // [ring]
    u32 ring, input_ring;
    u32 slots, stride, latent_dim;
    u32 grid_count;
    /// 1 where every grid divides the next, and all are computed alike.
    u32 nested;
    /// Grids, from the first on, that are computed in low precision where the kernel has one.
    u32 low_grids;
    u32 grids[MOST_GRIDS];
    Policy policy;

    DEVICE u32 capacity() const { return slots * stride; }
    DEVICE u32 last_segments() const { return grids[grid_count - 1]; }
    DEVICE float* step_of(u32 level, u32 id) const { return steps + (u64(level) * capacity() + id) * latent_dim; }
};

/// Number i of n on the straight line from a to b.
DEVICE float on_line(float a, float b, u32 i, u32 n) { return i == n ? b : a + (b - a) * float(double(i) / n); }

/// Number `at` = (point, coordinate) of a curve of `old` segments carried to `fresh` segments: cubic Lagrange interpolation between the
/// four nearest points, fewer where there are fewer; shared points are copied. read(j, k) is coordinate k of old point j.
template <class Read>
DEVICE float resampled(u32 d, u32 old, u32 fresh, u32 at, Read read) {
    const u32 i = at / d, k = at % d;
    const u32 whole = u32(u64(i) * old / fresh), rest = u32(u64(i) * old % fresh);
    const float near = read(whole, k);
    if (rest == 0) return near;
    const double x = whole + double(rest) / fresh;
    const u32 before = whole > 0 ? whole - 1 : 0, most = old > 3 ? old - 3 : 0;
    const u32 first = before < most ? before : most;
    const u32 last = first + 3 < old ? first + 3 : old;
    float value = near;
    for (u32 j = first; j <= last; j++) {
        if (j == whole) continue;
        double weight = 1.0;
        for (u32 m = first; m <= last; m++) {
            if (m != j) weight *= (x - m) / (double(j) - double(m));
        }
        // Differences to a neighbour: equal points stay equal, to the bit.
        value += (read(j, k) - near) * float(weight);
    }
    return value;
}

/// A free slot takes a pair. A warp.
DEVICE void admit_curve(const Batch& p, u32 slot, u32 job) {
    const u32 d = p.latent_dim, n = p.last_segments(), coarse = p.grids[0];
    Curve& curve = p.curves[slot];
    const u64 at = job % p.input_ring;
    for (u32 e = lane(); e < (coarse + 1) * d; e += WARP) {
        const float z = resampled(d, n, coarse, e, [&](u32 j, u32 k) {
            if (p.initial != nullptr) return p.initial[(at * (n + 1) + j) * d + k];
            return on_line(p.starts[at * d + k], p.ends[at * d + k], j, n);
        });
        const u64 to = u64(slot) * p.stride * d + e;
        p.points[to] = p.trial[to] = z;
    }
    if (lane() == 0) {
        begin(p.policy, curve.progress, 0);
        curve.line_energy = infinity();
        curve.found_energy = curve.found_length = 0.0;
        curve.job = job;
        curve.need = NEED_SEARCH;
        curve.grid = curve.anew = 0;
        curve.found_status = NO_STATUS;
        curve.segments = p.segments_of[slot] = coarse;
    }
    __syncwarp();
}

/// A few points of a curve, by their places in it.
struct Stretch {
    u32 first, count;
};

/// The points whose values a curve waits for. The first time, and on a new grid, the ends are among them; they never move.
DEVICE Stretch decoded_points(const Curve& curve) {
    if (curve.need != NEED_SEARCH && curve.need != NEED_LINE) return {0, 0};
    const bool whole = curve.need == NEED_LINE || curve.progress.phase == PHASE_START;
    return whole ? Stretch{0, curve.segments + 1} : Stretch{1, curve.segments - 1};
}

/// What a curve's inner points are to have before its step.
struct Derivatives {
    /// All of the linearisation; the gradient alone; either by an adjoint pass, which S and the gradient alone take.
    bool tangents, gradient, adjoint;
};

DEVICE Derivatives derivatives(const Curve& curve) {
    const bool all = curve.need == NEED_LINEARISE, gradient = curve.need == NEED_GRADIENT;
    return {all, gradient, gradient || (all && curve.progress.newton != 0)};
}

/// Whether a curve takes a step in this round.
DEVICE bool takes_step(const Curve& curve) {
    return curve.need == NEED_LINEARISE || curve.need == NEED_GRADIENT || curve.need == NEED_STEP;
}

/// Solves for the step of the level that is next, unless it is known, and writes the curve to be tried. Before it, the derivatives that the
/// curve waits for were found; behind it, it waits for values, or is to be linearised, or is over. `work`: `solve_workspace`.
template <u32 DIM, class Team, class Work>
DEVICE void step_curve(const Batch& p, const Team& team, Work work, u32 slot) {
    const u32 d = known<DIM>(p.latent_dim), square = d * d;
    Curve& curve = p.curves[slot];
    const u32 need = curve.need, inner = curve.segments - 1;
    const u32 first = slot * p.stride + 1; // number of the first inner point
    team.sync(); // every thread has read `need`
    if (team.thread() == 0) {
        if (need == NEED_LINEARISE) linearised(curve.progress);
        if (need == NEED_GRADIENT) gradient_found(curve.progress);
        curve.need = NEED_STEP;
    }
    team.sync();
    const u32 level = p.policy.candidate_levels[curve.progress.candidate];
    float* delta = p.step_of(level, first);
    if (!slope_is_known(curve.progress, level)) {
        System s;
        s.gram = p.gram + u64(first) * square;
        s.curvature = curve.progress.newton && p.curvature != nullptr ? p.curvature + u64(first) * square : nullptr;
        s.off = p.off + u64(first) * square;
        s.gradient = p.gradient + u64(first) * d;
        s.blocks = p.blocks + u64(first) * square;
        s.sides = p.sides + u64(first) * d;
        s.delta = delta;
        s.points = inner;
        const double trace = team.sum(inner * d, [&](u32 e) { return double(s.gram[e / d * square + e % d * (d + 1)]); });
        const double stiffness = 2.0 * trace / (double(inner) * d);
        s.damping = float(curve.progress.damping * p.policy.levels[level] * stiffness);
        s.coupling = s.damping * float(p.policy.coupling);
        solve<DIM>(s, d, team, work);
        const double slope = team.sum(inner * d, [&](u32 e) { return double(s.gradient[e] * delta[e]); });
        team.sync(); // every thread has read what the curve was
        if (team.thread() == 0) {
            const bool last_grid = curve.grid + 1 == p.grid_count;
            // Every finer grid needs a linearisation yet, and so does starting anew.
            const u32 reserve = p.grid_count - 1 - curve.grid + (p.grid_count > 1 && !curve.anew);
            solved(p.policy, curve.progress, last_grid, reserve, level, slope);
            if (!is_over(curve.progress) && curve.progress.outdated) {
                curve.progress.outdated = 0;
                curve.need = NEED_LINEARISE;
            }
        }
        team.sync();
    }
    const bool goes_on = curve.need == NEED_STEP && !is_over(curve.progress);
    const float length = float(p.policy.candidate_lengths[curve.progress.candidate]);
    team.sync(); // every thread has read `need`
    if (!goes_on) return;
    for (u32 e = team.thread(); e < inner * d; e += team.threads()) {
        const u64 at = u64(first) * d + e;
        p.trial[at] = fused(delta[e], length, p.points[at]);
    }
    if (team.thread() == 0) curve.need = NEED_SEARCH;
    team.sync();
}

/// What happens to the arrays of a curve behind a decision.
enum Move : u32 { MOVE_NONE, MOVE_WALK, MOVE_REFINE, MOVE_STRAIGHTEN, MOVE_ANEW, MOVE_FINISH };

struct Plan {
    /// trial becomes points, first of all.
    u32 take;
    u32 move;
    /// Of MOVE_WALK.
    u32 level;
    float length;
};

/// A curve is done with its grid: on to the next, a look at the straight line, or the end.
DEVICE void leave_grid(const Batch& p, Curve& curve, u32 status, double energy, double length, Plan& plan) {
    if (status != NON_FINITE && curve.grid + 1 < p.grid_count) {
        plan.move = MOVE_REFINE;
        return;
    }
    curve.found_energy = energy, curve.found_length = length, curve.found_status = status;
    plan.move = MOVE_FINISH;
    if (p.grid_count == 1 || curve.anew) return;
    // Cutting chords into pieces only adds to a curve's energy: on nested grids the coarse line bounds the fine one.
    if (status == NON_FINITE) {
        plan.move = MOVE_ANEW;
    } else if (!p.nested || energy > curve.line_energy) {
        plan.move = MOVE_STRAIGHTEN;
    }
}

/// Lane 0 of a curve's warp: what is next. `energy` is that of the values at hand, divided by N.
DEVICE Plan plan_curve(const Batch& p, Curve& curve, double energy, double length) {
    Plan plan = {0, MOVE_NONE, 0, 0.0f};
    Progress& progress = curve.progress;
    if (curve.need == NEED_LINE) {
        const double line = curve.segments * energy;
        if (isnan(line) || line >= curve.found_energy) { // a line that is not finite is no lower
            plan.move = MOVE_FINISH;
        } else {
            plan.take = 1;
            begin(p.policy, progress, progress.iterations);
            curve.anew = 1;
            curve.need = NEED_SEARCH;
        }
        return plan;
    }
    const bool first_look = progress.phase == PHASE_START && curve.grid == 0;
    const bool is_coarse = curve.segments != p.last_segments();
    const double noise = curve.grid < p.low_grids ? p.policy.low_noise : p.policy.noise;
    const Decision decision = is_over(progress) ? end(progress, progress.status) : judge(p.policy, progress, energy, noise);
    u32 status = NO_STATUS;
    switch (decision.next) {
    case NEXT_LINEARISE:
    case NEXT_GRADIENT:
        plan.take = 1;
        if (is_coarse && progress.hard) {
            status = MAX_ITERATIONS;
        } else {
            curve.need = decision.next == NEXT_GRADIENT ? NEED_GRADIENT : NEED_LINEARISE;
        }
        break;
    case NEXT_TRY:
        curve.need = NEED_STEP;
        break;
    case NEXT_SETTLE:
        plan.move = MOVE_WALK;
        if (decision.winner != NO_CANDIDATE) {
            plan.level = p.policy.candidate_levels[decision.winner];
            plan.length = float(p.policy.candidate_lengths[decision.winner]);
        }
        curve.need = NEED_SEARCH;
        break;
    default:
        status = decision.status;
    }
    if (first_look) curve.line_energy = curve.segments * progress.energy;
    if (status != NO_STATUS) leave_grid(p, curve, status, curve.segments * energy, length, plan);
    return plan;
}

/// Writes a finished curve to the ring and frees its slot.
DEVICE void finish(const Batch& p, u32 slot, Curve& curve) {
    const u32 d = p.latent_dim, n = curve.segments;
    const u64 first = u64(slot) * p.stride * d, at = curve.job % p.ring;
    const bool known = curve.found_status != NON_FINITE;
    double squares = 0.0;
    for (u32 e = lane(); known && e < (n - 1) * d; e += WARP) { // no gradient was found along a curve that is not finite
        const double g = p.gradient[first + d + e];
        squares += g * g;
    }
    squares = warp_sum(squares);
    // Only on the last grid is a curve ever finished.
    for (u32 e = lane(); e < (n + 1) * d; e += WARP) p.out_points[at * (n + 1) * d + e] = p.points[first + e];
    __syncwarp();
    if (lane() == 0) {
        p.out_numbers[at * 3] = known ? curve.found_energy : not_a_number();
        p.out_numbers[at * 3 + 1] = known ? curve.found_length : not_a_number();
        p.out_numbers[at * 3 + 2] = known ? n * sqrt(squares) : not_a_number();
        p.out_iterations[at] = curve.progress.iterations;
        p.out_status[at] = curve.found_status;
        curve.need = NEED_NOTHING;
        atomicAdd(&p.counters->finished[curve.job / (p.ring / 2) % 2], 1u);
    }
}

/// Accepts, refines, tries again or finishes, from the values of the curve tried. A warp.
DEVICE void decide_curve(const Batch& p, u32 slot) {
    const u32 d = p.latent_dim;
    Curve& curve = p.curves[slot];
    const u32 need = curve.need, before = curve.segments;
    __syncwarp();
    if (need == NEED_NOTHING || need == NEED_LINEARISE) return;
    const u64 id = u64(slot) * p.stride, first = id * d;
    double energy, length;
    chord_sums(p.squares + id, before, energy, length);
    Plan plan = {0, 0, 0, 0.0f};
    if (lane() == 0) plan = plan_curve(p, curve, 0.5 * energy, length);
    __syncwarp(); // the other lanes read what lane 0 changed
    plan.take = __shfl_sync(ALL_LANES, plan.take, 0);
    plan.move = __shfl_sync(ALL_LANES, plan.move, 0);
    plan.level = __shfl_sync(ALL_LANES, plan.level, 0);
    plan.length = __shfl_sync(ALL_LANES, plan.length, 0);
    if (plan.take) {
        for (u32 e = lane(); e < (before + 1) * d; e += WARP) p.points[first + e] = p.trial[first + e];
        __syncwarp();
    }
    switch (plan.move) {
    case MOVE_WALK: {
        const float* delta = p.step_of(plan.level, u32(id));
        for (u32 e = d + lane(); e < before * d; e += WARP) {
            p.trial[first + e] = plan.length == 0.0f ? p.points[first + e]
                                                     : fused(delta[e], plan.length, p.points[first + e]);
        }
        break;
    }
    case MOVE_REFINE: {
        const u32 fresh = p.grids[curve.grid + 1];
        for (u32 e = lane(); e < (fresh + 1) * d; e += WARP) {
            p.trial[first + e] =
                resampled(d, before, fresh, e, [&](u32 j, u32 k) { return p.points[first + j * d + k]; });
        }
        __syncwarp();
        for (u32 e = lane(); e < (fresh + 1) * d; e += WARP) p.points[first + e] = p.trial[first + e];
        if (lane() == 0) {
            curve.grid += 1;
            curve.segments = p.segments_of[slot] = fresh;
            refine(p.policy, curve.progress);
            curve.need = NEED_SEARCH;
        }
        break;
    }
    case MOVE_STRAIGHTEN:
    case MOVE_ANEW: {
        const u32 fresh = p.last_segments();
        for (u32 e = lane(); e < (fresh + 1) * d; e += WARP) {
            const u32 k = e % d;
            p.trial[first + e] = on_line(p.points[first + k], p.points[first + u64(before) * d + k], e / d, fresh);
        }
        __syncwarp();
        if (plan.move == MOVE_ANEW) {
            for (u32 e = lane(); e < (fresh + 1) * d; e += WARP) p.points[first + e] = p.trial[first + e];
        }
        if (lane() == 0) {
            curve.grid = p.grid_count - 1;
            curve.segments = p.segments_of[slot] = fresh;
            curve.need = NEED_LINE;
            if (plan.move == MOVE_ANEW) {
                begin(p.policy, curve.progress, curve.progress.iterations);
                curve.anew = 1;
                curve.need = NEED_SEARCH;
            }
        }
        break;
    }
    case MOVE_FINISH:
        finish(p, slot, curve);
        break;
    default:
        break;
    }
    __syncwarp();
}
