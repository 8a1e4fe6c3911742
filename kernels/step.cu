// The solver's rounds: lists of work, the curves' steps, and what becomes of every curve. solver.cuh has what happens to one of them.
//
// A round is
//   collect_free, admit   free slots take the next pairs
//   collect_linearise     lists of points and curves for what follows
//   (jacobian, gram, energy)
//   step, step_wide       (H + λs Λ⊗I) δ = −∇E, then trial = points + length · δ
//   collect_search        the points to be decoded
//   (decode, chords)
//   decide                accept, try again, refine, finish
// and runs without the host: all numbers of work items stay on the device. Lists hold only curves that have something to do.
//
// A step takes a warp for every curve where d ≤ 8, and a block of 128 or 256 threads where it is larger, and about n (14/3 d³ + 8 d²)
// operations for n inner points: one point after the other, with (2d² + 6d + 2) floats of shared memory, or, where the compiler knows a
// d ≤ 4, from both ends at once and in registers. It reads G, S and J Jᵀ once, and writes and reads d² + d numbers a point of its own. The
// other kernels take a warp for every slot, and touch each point's d numbers a few times.
#include "solver.cuh"

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
    const u32 count = admitted(*p.counters), next = p.counters->next;
    for (u32 item = grid_warp(); item < count; item += grid_warps()) admit_curve(p, p.free_slots[item], next + item);
}

/// Lists for the linearisation and the step. A warp for every slot.
KERNEL(collect_linearise, Batch, 256, 4) {
    if (grid_thread() == 0) p.counters->next += admitted(*p.counters);
    for (u32 slot = grid_warp(); slot < p.slots; slot += grid_warps()) {
        const Curve& curve = p.curves[slot];
        if (!takes_step(curve)) continue;
        const u32 count = curve.segments - 1;
        const Derivatives wanted = derivatives(curve);
        u32 place = 0, row = 0;
        if (lane() == 0) {
            p.step_curves[atomicAdd(&p.counters->steps, 1u)] = slot;
            if (wanted.tangents) place = atomicAdd(&p.counters->tangents, count);
            if (wanted.gradient) place = p.capacity() - count - atomicAdd(&p.counters->gradients, count);
            if (wanted.adjoint) row = atomicAdd(&p.counters->adjoints, count);
        }
        place = __shfl_sync(ALL_LANES, place, 0), row = __shfl_sync(ALL_LANES, row, 0);
        if (!wanted.tangents && !wanted.gradient) continue;
        for (u32 i = lane(); i < count; i += WARP) {
            p.tangent_ids[place + i] = slot * p.stride + 1 + i;
            if (wanted.adjoint) p.adjoint_rows[row + i] = place + i;
        }
    }
}

/// The list of points to be decoded. A warp for every slot.
KERNEL(collect_search, Batch, 256, 4) {
    for (u32 slot = grid_warp(); slot < p.slots; slot += grid_warps()) {
        const Stretch wanted = decoded_points(p.curves[slot]);
        if (wanted.count == 0) continue;
        u32 row = 0;
        if (lane() == 0) row = atomicAdd(&p.counters->searches, wanted.count);
        row = __shfl_sync(ALL_LANES, row, 0);
        for (u32 i = lane(); i < wanted.count; i += WARP) p.search_ids[row + i] = slot * p.stride + wanted.first + i;
    }
}

constexpr u32 STEP_THREADS = 256;
/// The largest d for which a warp steps a curve; src/cuda/step/mod.rs launches accordingly.
constexpr u32 WARP_STEP_DIM = 8;

/// Steps the listed curves number `from`, `from` + `stride`, …
template <u32 DIM, class Team, class Work>
DEVICE void step_curves(const Batch& p, const Team& team, Work work, u32 from, u32 stride) {
    const u32 count = p.counters->steps;
    for (u32 item = from; item < count; item += stride) step_curve<DIM>(p, team, work, p.step_curves[item]);
}

/// Steps every listed curve: a warp or a block for each, with its part of `work`.
template <u32 DIM>
DEVICE void step_in_shared(const Batch& p, Shared<float> work) {
    SHARED(double, scratch, 1);
    const u32 d = known<DIM>(p.latent_dim);
    if (d <= WARP_STEP_DIM) {
        const u32 warp = threadIdx.x / WARP;
        step_curves<DIM>(p, WarpTeam(), work + warp * solve_workspace(d), grid_warp(), grid_warps());
    } else {
        step_curves<DIM>(p, BlockTeam{scratch}, work, blockIdx.x, gridDim.x);
    }
}

KERNEL(step, Batch, STEP_THREADS, 2) {
    DYNAMIC_SHARED(float, work);
    step_in_shared<0>(p, work);
}

/// The same for a d whose blocks do not fit into shared memory: a block for every curve.
KERNEL(step_wide, Batch, STEP_THREADS, 2) {
    SHARED(double, scratch, 1);
    float* work = p.workspace + u64(blockIdx.x) * solve_workspace(p.latent_dim);
    step_curves<0>(p, BlockTeam{scratch}, work, blockIdx.x, gridDim.x);
}

#define STEP_INSTANCE(name, dim)             \
    INSTANCE(name, Batch, STEP_THREADS, 2) { \
        DYNAMIC_SHARED(float, work);         \
        step_in_shared<dim>(p, work);        \
    }

/// Accepts, refines, tries again or finishes, curve by curve. A warp for every slot.
KERNEL(decide, Batch, 256, 2) {
    for (u32 slot = grid_warp(); slot < p.slots; slot += grid_warps()) decide_curve(p, slot);
}
