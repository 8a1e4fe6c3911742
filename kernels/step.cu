// The step of a geodesic: lists of work, the block-tridiagonal solve, the curve to be tried, and what becomes of every curve.
//
// A round of the solver is
//   collect_free, admit   free slots take the next pairs
//   collect_linearise     lists of points and curves for what follows
//   (jacobian, gram, energy)
//   step, step_wide       (H + λs Λ⊗I) δ = −∇E, then trial = points + length · δ
//   collect_search        the points to be decoded
//   (decode, chords)
//   decide                accept, try again, refine, finish
// and runs without the host: all numbers of work items stay on the device. Lists hold only curves that have something to do.
//
// A step takes a block of 32 to 256 threads (more with larger d) for every curve, (2d² + 6d + 2) floats of shared memory and about
// n (14/3 d³ + 8 d²) operations for n inner points, one point after the other; it reads G, S and J Jᵀ once, and writes and reads d² + d numbers a
// point of its own. The other kernels take a warp for every slot, and touch each point's d numbers a few times.
#include "policy.cuh"

/// Counted on the device; the host reads them once a round.
struct Counters {
    /// The next pair to take, and the first that has not arrived yet.
    u32 next, limit;
    /// Pairs ever finished in either half of the ring.
    u32 finished[2];
    /// Items of this round: free slots, points to linearise, points with a gradient alone, points of both with an adjoint, curves to step, points to decode.
    u32 free, tangents, gradients, adjoints, steps, searches;
    u32 padding[6];
};
static_assert(sizeof(Counters) == 64, "src/cuda/step.rs reads them");

/// A batch of curves; every kernel of this file takes it.
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
    /// 1 where every grid divides the next.
    u32 nested;
    u32 padding;
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

/// A list of the free slots. One thread a slot.
KERNEL(collect_free, Batch, 256, 4) {
    for (u32 slot = grid_thread(); slot < p.slots; slot += grid_threads()) {
        if (p.curves[slot].need == NEED_NOTHING) p.free_slots[atomicAdd(&p.counters->free, 1u)] = slot;
    }
}

/// Pairs that free slots take in this round.
DEVICE u32 admitted(const Counters& counters) { return min(counters.free, counters.limit - counters.next); }

/// Free slots take the next pairs. A warp for every pair; `next` moves on in collect_linearise.
KERNEL(admit, Batch, 256, 4) {
    const u32 d = p.latent_dim, n = p.last_segments(), coarse = p.grids[0];
    const u32 count = admitted(*p.counters);
    for (u32 item = grid_warp(); item < count; item += grid_warps()) {
        const u32 slot = p.free_slots[item], job = p.counters->next + item;
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
    }
}

/// Lists for the linearisation and the step. A warp for every slot.
KERNEL(collect_linearise, Batch, 256, 4) {
    if (grid_thread() == 0) p.counters->next += admitted(*p.counters);
    for (u32 slot = grid_warp(); slot < p.slots; slot += grid_warps()) {
        const Curve& curve = p.curves[slot];
        const u32 need = curve.need, count = curve.segments - 1;
        if (need == NEED_NOTHING) continue;
        const bool all = need == NEED_LINEARISE, gradient = need == NEED_GRADIENT;
        const bool adjoint = gradient || (all && curve.progress.newton != 0);
        u32 place = 0, row = 0;
        if (lane() == 0) {
            if (all || gradient || need == NEED_STEP) p.step_curves[atomicAdd(&p.counters->steps, 1u)] = slot;
            if (all) place = atomicAdd(&p.counters->tangents, count);
            if (gradient) place = p.capacity() - count - atomicAdd(&p.counters->gradients, count);
            if (adjoint) row = atomicAdd(&p.counters->adjoints, count);
        }
        place = __shfl_sync(ALL_LANES, place, 0), row = __shfl_sync(ALL_LANES, row, 0);
        if (!all && !gradient) continue;
        for (u32 i = lane(); i < count; i += WARP) {
            p.tangent_ids[place + i] = slot * p.stride + 1 + i;
            if (adjoint) p.adjoint_rows[row + i] = place + i;
        }
    }
}

/// The list of points to be decoded. The first time, and on a new grid, the ends are among them; they never move.
KERNEL(collect_search, Batch, 256, 4) {
    for (u32 slot = grid_warp(); slot < p.slots; slot += grid_warps()) {
        const Curve& curve = p.curves[slot];
        if (curve.need != NEED_SEARCH && curve.need != NEED_LINE) continue;
        const bool whole = curve.need == NEED_LINE || curve.progress.phase == PHASE_START;
        const u32 first = whole ? 0 : 1, count = whole ? curve.segments + 1 : curve.segments - 1;
        u32 row = 0;
        if (lane() == 0) row = atomicAdd(&p.counters->searches, count);
        row = __shfl_sync(ALL_LANES, row, 0);
        for (u32 i = lane(); i < count; i += WARP) p.search_ids[row + i] = slot * p.stride + first + i;
    }
}

constexpr u32 STEP_THREADS = 256;

/// Sum over the block, the same in every thread; the order is fixed.
DEVICE double block_sum(Shared<double> partial, double value) {
    partial[threadIdx.x] = value;
    __syncthreads();
    for (u32 half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) partial[threadIdx.x] = partial[threadIdx.x] + partial[threadIdx.x + half];
        __syncthreads();
    }
    const double sum = partial[0];
    __syncthreads();
    return sum;
}

/// Solves (H + λs Λ⊗I) δ = −g for one curve, block by block from the first point to the last, by Gauss–Jordan elimination with row
/// pivoting inside the blocks, so that an indefinite H is allowed; δ of the curve goes to `delta`. Returns g · δ in every thread, NaN where a
/// block was singular.
///
/// `work` holds the pivot block with its right sides, [d, 2d + 1], and 5d + 1 numbers more, in shared or global memory.
template <u32 DIM, class Work>
DEVICE double solve_curve(const Batch& p, Work work, Shared<double> partial, u32 slot, const Curve& curve, double damping_f64,
                          float* delta) {
    const u32 d = known<DIM>(p.latent_dim), square = d * d, width = 2 * d + 1, n = curve.segments - 1;
    const u32 threads = blockDim.x, thread = threadIdx.x;
    const u64 first = u64(slot) * p.stride + 1; // number of the first inner point
    const float* gram = p.gram + first * square;
    const float* off = p.off + first * square;
    const float* curvature = curve.progress.newton && p.curvature != nullptr ? p.curvature + first * square : nullptr;
    const float* gradient = p.gradient + first * d;
    float* blocks = p.blocks + first * square;
    float* sides = p.sides + first * d;
    const float damping = float(damping_f64), coupling = damping * float(p.policy.coupling);
    // Rows of `system`: pivot block, right block, right side.
    Work system = work, pivot_row = work + d * width, old_row = pivot_row + width, factors = old_row + width;
    for (u32 i = 0; i < n; i++) {
        const bool last = i + 1 == n;
        // The pivot block and the right side, less what the block before leaves: Bᵀ (D⁻¹ [B | b]) with B = −off − coupling · I.
        for (u32 e = thread; e < d * (d + 1); e += threads) {
            const u32 r = e / (d + 1), c = e % (d + 1);
            float value;
            if (c < d) {
                value = 2.0f * gram[i * square + r * d + c];
                if (curvature != nullptr) value += curvature[i * square + r * d + c];
                if (r == c) value += damping;
            } else {
                value = -gradient[i * d + r];
            }
            if (i > 0) {
                const u32 before = i - 1;
                for (u32 k = 0; k < d; k++) {
                    float b = off[before * square + k * d + r];
                    if (k == r) b += coupling;
                    const float solved = c < d ? blocks[before * square + k * d + c] : sides[before * d + k];
                    value = fused(b, solved, value);
                }
            }
            system[r * width + (c < d ? c : 2 * d)] = value;
        }
        for (u32 e = thread; e < square; e += threads) {
            const u32 r = e / d, c = e % d;
            float value = last ? 0.0f : -off[i * square + e];
            if (r == c && !last) value -= coupling;
            system[r * width + d + c] = value;
        }
        __syncthreads();
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
            __syncthreads();
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
            __syncthreads();
        }
        for (u32 e = thread; e < square; e += threads) blocks[i * square + e] = system[e / d * width + d + e % d];
        for (u32 r = thread; r < d; r += threads) sides[i * d + r] = system[r * width + 2 * d];
        __syncthreads();
    }
    // Back substitution; δ of the point behind stands in pivot_row and old_row by turns.
    double slope = 0.0;
    for (u32 i = n; i-- > 0;) {
        Work behind = (i & 1) != 0 ? pivot_row : old_row, here = (i & 1) != 0 ? old_row : pivot_row;
        for (u32 r = thread; r < d; r += threads) {
            float value = sides[i * d + r];
            if (i + 1 < n) {
                for (u32 c = 0; c < d; c++) value = fused(-blocks[i * square + r * d + c], behind[c], value);
            }
            here[r] = value;
            delta[i * d + r] = value;
            slope += double(gradient[i * d + r] * value);
        }
        __syncthreads();
    }
    return block_sum(partial, slope);
}

/// Steps every listed curve: a block for each.
template <u32 DIM, class Work>
DEVICE void step_curves(const Batch& p, Work work) {
    SHARED(double, partial, STEP_THREADS);
    const u32 d = known<DIM>(p.latent_dim);
    const u32 count = p.counters->steps;
    for (u32 item = blockIdx.x; item < count; item += gridDim.x) {
        const u32 slot = p.step_curves[item];
        Curve& curve = p.curves[slot];
        const u32 need = curve.need, n = curve.segments;
        const u64 first = u64(slot) * p.stride + 1;
        __syncthreads(); // every thread has read `need`
        if (threadIdx.x == 0) {
            if (need == NEED_LINEARISE) linearised(curve.progress);
            if (need == NEED_GRADIENT) gradient_found(curve.progress);
            curve.need = NEED_STEP;
        }
        __syncthreads();
        const u32 level = p.policy.candidate_levels[curve.progress.candidate];
        const bool known_slope = slope_is_known(curve.progress, level);
        float* delta = p.step_of(level, u32(first));
        if (!known_slope) {
            double trace = 0.0;
            for (u32 e = threadIdx.x; e < (n - 1) * d; e += blockDim.x) {
                trace += p.gram[(first + e / d) * d * d + e % d * (d + 1)];
            }
            trace = block_sum(partial, trace);
            const double stiffness = 2.0 * trace / (double(n - 1) * d);
            const double damping = curve.progress.damping * p.policy.levels[level] * stiffness;
            const double slope = solve_curve<DIM>(p, work, partial, slot, curve, damping, delta);
            if (threadIdx.x == 0) {
                const bool last_grid = curve.grid + 1 == p.grid_count;
                // Every finer grid needs a linearisation yet, and so does starting anew.
                const u32 reserve = p.grid_count - 1 - curve.grid + (p.grid_count > 1 && !curve.anew);
                solved(p.policy, curve.progress, last_grid, reserve, level, slope);
                if (!is_over(curve.progress) && curve.progress.outdated) {
                    curve.progress.outdated = 0;
                    curve.need = NEED_LINEARISE;
                }
            }
            __syncthreads();
        }
        const bool goes_on = curve.need == NEED_STEP && !is_over(curve.progress);
        const float length = float(p.policy.candidate_lengths[curve.progress.candidate]);
        __syncthreads(); // every thread has read `need`
        if (!goes_on) continue;
        for (u32 e = threadIdx.x; e < (n - 1) * d; e += blockDim.x) {
            p.trial[first * d + e] = fused(delta[e], length, p.points[first * d + e]);
        }
        if (threadIdx.x == 0) curve.need = NEED_SEARCH;
    }
}

/// Floats of `work` in solve_curve.
DEVICE u32 step_workspace(u32 d) { return d * (2 * d + 1) + 2 * (2 * d + 1) + d; }

KERNEL(step, Batch, STEP_THREADS, 2) {
    DYNAMIC_SHARED(float, work);
    step_curves<0>(p, work);
}

/// The same for a d whose blocks do not fit into shared memory.
KERNEL(step_wide, Batch, STEP_THREADS, 2) {
    step_curves<0>(p, p.workspace + u64(blockIdx.x) * step_workspace(p.latent_dim));
}

#define STEP_INSTANCE(name, dim)         \
    INSTANCE(name, Batch, STEP_THREADS, 2) {  \
        DYNAMIC_SHARED(float, work);     \
        step_curves<dim>(p, work);       \
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
    const bool last_grid = curve.grid + 1 == p.grid_count;
    const Decision decision = is_over(progress) ? end(progress, progress.status) : judge(p.policy, progress, energy);
    u32 status = NO_STATUS;
    switch (decision.next) {
    case NEXT_LINEARISE:
    case NEXT_GRADIENT:
        plan.take = 1;
        if (!last_grid && progress.hard) {
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

/// Accepts, refines, tries again or finishes, curve by curve. A warp for every slot.
KERNEL(decide, Batch, 256, 2) {
    const u32 d = p.latent_dim;
    for (u32 slot = grid_warp(); slot < p.slots; slot += grid_warps()) {
        Curve& curve = p.curves[slot];
        const u32 need = curve.need, before = curve.segments;
        __syncwarp();
        if (need == NEED_NOTHING || need == NEED_LINEARISE) continue;
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
                refine(curve.progress);
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
    }
}
