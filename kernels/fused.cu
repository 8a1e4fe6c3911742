// Everything about a geodesic in one kernel, and values and metrics in one kernel each, for decoders whose layers are no wider than 512.
//
//   solve          a batch of curves, from straight lines to geodesics, without the host
//   over_points    values and G at points
//
// A block of `solve` owns some slots and does all rounds of the solver (step.cu) for the curves in them: it takes pairs as they come,
// and leaves after a number of rounds, or when there is nothing left to do. What one kernel left the next goes on with. Blocks meet
// only where they take pairs. Points of all of a block's curves pass through the chain together, those with nothing to do left out.
//
// 256 threads (384 in the sm_90a build), 128 rows (64 where W > 256) of W numbers in shared memory and behind them the weights: all
// of them where they fit, or a ring of 2 to 4 stages of 64 · W bytes. A multiprocessor takes two blocks where W = 64 and shared memory
// allows two, else one; the 163 KiB that a block of an A100 may have are too little where W > 384. Registers are rationed for that:
// 128 a thread where W = 64, else 255; in the sm_90a build 168, which become 240 of threads that multiply and 24 of the others.
// scripts/check-kernels compares this with the compiled code.
//
// Operations on tensor cores for a point's linearisation: 2 · (d + 1) for every weight, and for a layer with φ'' ≠ 0 some
// 4 · (3d + 8) · d for every column, half of it in the last layer; three times as many in TF32X3.
#include "fused.cuh"
#include "solver.cuh"

struct Solve {
    Batch batch;
    FusedNetwork network;
    float* values; // [slots · stride, value_stride]
    float* jets;   // [slots · stride, jet_stride]
    float* halo;   // [blocks, heads, d, W]
    u32 slots_per_block; // 32 at most
    u32 rounds;
};

struct OverPoints {
    FusedNetwork network;
    const float* latents; // [count, d]
    float* values;        // [count, value_stride], or null
    float* jets;          // [blocks, ROWS, jet_stride], or null
    float* gram;          // [count, d, d]
    u32 count;
    u32 padding;
};

/// Slots of a block at most: one for every lane of a warp.
constexpr u32 MOST_OWN_SLOTS = 32;
constexpr u32 NO_JOB = 0xffffffffu;

/// Slots that a block looks after.
struct OwnSlots {
    u32 first, count;
};

/// Free slots take pairs. False where the block has nothing to do and nothing to come.
template <class Product>
DEVICE bool admit_own(const Batch& p, OwnSlots own) {
    SHARED(u32, jobs, MOST_OWN_SLOTS);
    SHARED(u32, busy, 1);
    if (thread_again() < WARP) {
        const bool mine = lane_again() < own.count;
        const bool is_free = mine && p.curves[own.first + lane_again()].need == NEED_NOTHING;
        const u32 vacant = __ballot_sync(ALL_LANES, is_free), occupied = __ballot_sync(ALL_LANES, mine && !is_free);
        u32 base = 0, taken = 0;
        if (lane_again() == 0 && vacant != 0) {
            u32 next = atomicAdd(&p.counters->next, 0u);
            for (;;) {
                // Where few are left every block gets its share.
                const u32 left = p.counters->limit - next;
                taken = min(u32(__popc(vacant)), divide_up(left, gridDim.x));
                const u32 found = taken == 0 ? next : atomicCAS(&p.counters->next, next, next + taken);
                if (found == next) break;
                next = found;
            }
            base = next;
        }
        base = __shfl_sync(ALL_LANES, base, 0), taken = __shfl_sync(ALL_LANES, taken, 0);
        const u32 rank = u32(__popc(vacant & ((1u << lane_again()) - 1)));
        jobs[lane_again()] = is_free && rank < taken ? base + rank : NO_JOB;
        if (lane_again() == 0) busy[0] = occupied != 0 || taken != 0;
    }
    Product::meet();
    const bool goes_on = busy[0] != 0;
    for (u32 i = thread_again() / WARP; i < own.count; i += WARPS) {
        const u32 job = jobs[i];
        if (job != NO_JOB) admit_curve(p, own.first + i, job);
    }
    Product::meet();
    return goes_on;
}

/// Parts of a list of points.
constexpr u32 MOST_PARTS = 4;

/// Lists points of the block's curves, part by part: `range(curve, slot, part, first, count)` tells which part a curve's points go
/// to, and which they are; a part of MOST_PARTS or more is none. `totals` are the sizes of the parts.
template <class Product, class Range>
DEVICE void list_own(const Batch& p, OwnSlots own, u32* list, u32 (&totals)[MOST_PARTS], Range range) {
    SHARED(u32, places, MOST_OWN_SLOTS);
    SHARED(u32, firsts, MOST_OWN_SLOTS);
    SHARED(u32, counts, MOST_OWN_SLOTS);
    SHARED(u32, sizes, MOST_PARTS);
    if (thread_again() < WARP) {
        u32 part = MOST_PARTS, first = 0, count = 0, place = 0, before = 0;
        if (lane_again() < own.count) range(p.curves[own.first + lane_again()], part, first, count);
        for (u32 k = 0; k < MOST_PARTS; k++) {
            const u32 size = part == k ? count : 0;
            u32 sum = size;
            UNROLL for (u32 offset = 1; offset < WARP; offset *= 2) {
                const u32 other = __shfl_up_sync(ALL_LANES, sum, offset);
                if (lane_again() >= offset) sum += other;
            }
            if (part == k) place = before + sum - size;
            const u32 total = __shfl_sync(ALL_LANES, sum, WARP - 1);
            if (lane_again() == 0) sizes[k] = total;
            before += total;
        }
        places[lane_again()] = place, firsts[lane_again()] = first, counts[lane_again()] = part < MOST_PARTS ? count : 0;
    }
    Product::meet();
    for (u32 i = thread_again() / WARP; i < own.count; i += WARPS) {
        const u32 place = places[i], first = firsts[i], count = counts[i];
        for (u32 k = lane_again(); k < count; k += WARP) list[place + k] = (own.first + i) * p.stride + first + k;
    }
    for (u32 k = 0; k < MOST_PARTS; k++) totals[k] = sizes[k];
    Product::meet();
}

/// A warp as a team (team.cuh).
struct ChainWarp : WarpTeam {
    DEVICE u32 thread() const { return lane_again(); }
};

/// The threads of a chain as a team.
template <class Product>
struct ChainTeam {
    Shared<double> scratch;

    DEVICE u32 thread() const { return thread_again(); }
    DEVICE u32 threads() const { return CHAIN_THREADS; }
    DEVICE void sync() const { Product::meet(); }

    template <class Term>
    DEVICE double sum(u32 count, Term term) const {
        if (thread_again() < WARP) {
            const double of_warp = WarpTeam().sum(count, term);
            if (thread_again() == 0) scratch[0] = of_warp;
        }
        sync();
        const double sum = scratch[0];
        sync(); // the next sum may begin
        return sum;
    }
};

/// Steps the block's curves: a warp for each, or the whole block for one after the other.
template <class Product, u32 DIM, class Work>
DEVICE void step_own(const Batch& p, OwnSlots own, Work work) {
    SHARED(double, scratch, 1);
    const u32 d = known<DIM>(p.latent_dim), warp = thread_again() / WARP;
    if (d <= WARP_STEP_DIM) {
        for (u32 i = warp; i < own.count; i += WARPS) {
            if (takes_step(p.curves[own.first + i])) step_curve<DIM>(p, ChainWarp(), work + warp * solve_workspace(d), own.first + i);
        }
    } else {
        for (u32 i = 0; i < own.count; i++) {
            if (takes_step(p.curves[own.first + i])) step_curve<DIM>(p, ChainTeam<Product>{scratch}, work, own.first + i);
        }
    }
}

template <class Product, class Chain, bool MIXED, u32 ARITHMETIC, u32 DIM, class Work>
DEVICE void solve_own(const Solve& p, Chain& chain, Work work) {
    const Batch& batch = p.batch;
    const u32 first_slot = blockIdx.x * p.slots_per_block;
    if (first_slot >= batch.slots) return;
    const OwnSlots own = {first_slot, min(p.slots_per_block, batch.slots - first_slot)};
    u32* const list = batch.tangent_ids + u64(own.first) * batch.stride;
    const u32 warp = thread_again() / WARP;
    const auto is_rough = [&](const Curve& curve) { return MIXED && curve.grid < batch.low_grids; };
    const auto wants_curvature = [&](u32 id) {
        const Curve& curve = batch.curves[id / batch.stride];
        return batch.curvature != nullptr && curve.need == NEED_LINEARISE && curve.progress.newton != 0;
    };
    u32 sizes[MOST_PARTS];
    for (u32 round = 0; round < p.rounds; round++) {
        if (!admit_own<Product>(batch, own)) return;
        list_own<Product>(batch, own, list, sizes, [&](const Curve& curve, u32& part, u32& first, u32& count) {
            const Derivatives wanted = derivatives(curve);
            if (wanted.tangents || wanted.gradient) part = wanted.gradient + 2 * is_rough(curve);
            first = 1, count = curve.segments - 1;
        });
        chain.template adjoint<ARITHMETIC>(list, sizes[0] + sizes[1], wants_curvature);
        chain.template tangents<ARITHMETIC>(list, sizes[0], wants_curvature);
        if (MIXED) {
            const u32* rough = list + sizes[0] + sizes[1];
            chain.template adjoint<TF32>(rough, sizes[2] + sizes[3], wants_curvature);
            chain.template tangents<TF32>(rough, sizes[2], wants_curvature);
        }
        step_own<Product, DIM>(batch, own, work);
        Product::meet();
        list_own<Product>(batch, own, list, sizes, [&](const Curve& curve, u32& part, u32& first, u32& count) {
            const Stretch stretch = decoded_points(curve);
            if (stretch.count > 0) part = is_rough(curve);
            first = stretch.first, count = stretch.count;
        });
        chain.template forward<ARITHMETIC>(list, sizes[0]);
        if (MIXED) chain.template forward<TF32>(list + sizes[0], sizes[1]);
        const Chords chords = {{nullptr, nullptr, 0, 0},     p.values, const_cast<float*>(batch.squares), batch.segments_of, 0,
                               batch.stride, p.network.value_stride, 0};
        for (u32 i = warp; i < sizes[0] + sizes[1]; i += WARPS) chords_at(chords, list[i], Euclidean{chords.data_dim});
        Product::meet();
        for (u32 i = warp; i < own.count; i += WARPS) decide_curve(batch, own.first + i);
        Product::meet();
    }
}

/// Shared memory: rows, and behind them the weights.
template <template <u32> class Product, u32 W, u32 ARITHMETIC, bool MIXED, u32 DIM, u32 ACTIVATION>
DEVICE void solve_with(const Solve& p, Shared<float> memory) {
    using Chain = Fused<Product<W>, W, DIM, ACTIVATION>;
    SHARED(u32, ids, Chain::ROWS);
    Product<W> product(memory + Chain::ROWS * W, p.network.stages);
    if (!product.begin()) return;
    const Batch& batch = p.batch;
    const FusedPoints points = {batch.trial,
                                p.values,
                                p.jets,
                                const_cast<float*>(batch.gram),
                                const_cast<float*>(batch.off),
                                const_cast<float*>(batch.curvature),
                                const_cast<float*>(batch.gradient)};
    float* const halo = p.halo + u64(blockIdx.x) * p.network.head_count * batch.latent_dim * W;
    Chain chain{p.network, points, {memory}, product, ids, halo};
    chain.settle();
    solve_own<Product<W>, Chain, MIXED, ARITHMETIC, DIM>(p, chain, memory);
    product.end();
}

/// Values, or G, of a block's share of the points; jets pass through its own scratch.
template <template <u32> class Product, u32 W, u32 ARITHMETIC, u32 DIM, u32 ACTIVATION>
DEVICE void over_points_with(const OverPoints& p, Shared<float> memory) {
    using Chain = Fused<Product<W>, W, DIM, ACTIVATION>;
    SHARED(u32, ids, Chain::ROWS);
    Product<W> product(memory + Chain::ROWS * W, p.network.stages);
    if (!product.begin()) return;
    const u32 tiles = divide_up(p.count, Chain::ROWS), d = p.network.latent_dim;
    FusedPoints points = {p.latents, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr};
    Chain chain{p.network, points, {memory}, product, ids, nullptr};
    chain.settle();
    if (p.jets != nullptr) points.jets = p.jets + u64(blockIdx.x) * Chain::ROWS * p.network.jet_stride;
    for (u32 tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const u32 first = tile * Chain::ROWS, count = min(p.count - first, Chain::ROWS);
        points.latents = p.latents + u64(first) * d;
        if (p.values != nullptr) points.values = p.values + u64(first) * p.network.value_stride;
        chain.template forward<ARITHMETIC>(nullptr, count);
        if (p.gram != nullptr) {
            points.gram = p.gram + u64(first) * d * d;
            chain.template tangents<ARITHMETIC>(nullptr, count, [](u32) { return false; });
        }
    }
    product.end();
}

#define SOLVE_WITH(...)                     \
    {                                       \
        DYNAMIC_SHARED(float, memory);      \
        solve_with<__VA_ARGS__>(p, memory); \
    }
#define OVER_POINTS_WITH(...)                     \
    {                                             \
        DYNAMIC_SHARED(float, memory);            \
        over_points_with<__VA_ARGS__>(p, memory); \
    }

// For one decoder: the build (Products, or ProductsSm90 where that is there), its d, and the activation of all its hidden layers or ANY.
#define SOLVE_INSTANCE(name, Build, W, arithmetic, mixed, dim, activation) \
    INSTANCE(name, Solve, Build<W>::THREADS, Build<W>::BLOCKS)             \
    SOLVE_WITH(Build, W, arithmetic, mixed, dim, activation)
#define OVER_POINTS_INSTANCE(name, Build, W, arithmetic, dim, activation) \
    INSTANCE(name, OverPoints, Build<W>::THREADS, Build<W>::BLOCKS)       \
    OVER_POINTS_WITH(Build, W, arithmetic, dim, activation)

#ifndef PULLBACK_AT_RUN_TIME // where every decoder gets its own, and these would take long to compile

KERNEL(solve_64_tf32x3, Solve, Products<64>::THREADS, Products<64>::BLOCKS) SOLVE_WITH(Products, 64, TF32X3, false, 0, ANY)
KERNEL(over_points_64_tf32x3, OverPoints, Products<64>::THREADS, Products<64>::BLOCKS) OVER_POINTS_WITH(Products, 64, TF32X3, 0, ANY)
#if !defined(PULLBACK_SM90) || defined(PULLBACK_EMULATOR) // elsewhere those below take their place
KERNEL(solve_128_tf32x3, Solve, Products<128>::THREADS, Products<128>::BLOCKS) SOLVE_WITH(Products, 128, TF32X3, false, 0, ANY)
KERNEL(solve_256_tf32x3, Solve, Products<256>::THREADS, Products<256>::BLOCKS) SOLVE_WITH(Products, 256, TF32X3, false, 0, ANY)
KERNEL(solve_512_tf32x3, Solve, Products<512>::THREADS, Products<512>::BLOCKS) SOLVE_WITH(Products, 512, TF32X3, false, 0, ANY)
KERNEL(over_points_128_tf32x3, OverPoints, Products<128>::THREADS, Products<128>::BLOCKS) OVER_POINTS_WITH(Products, 128, TF32X3, 0, ANY)
KERNEL(over_points_256_tf32x3, OverPoints, Products<256>::THREADS, Products<256>::BLOCKS) OVER_POINTS_WITH(Products, 256, TF32X3, 0, ANY)
KERNEL(over_points_512_tf32x3, OverPoints, Products<512>::THREADS, Products<512>::BLOCKS) OVER_POINTS_WITH(Products, 512, TF32X3, 0, ANY)
#endif
#ifdef PULLBACK_SM90
KERNEL(solve_128_tf32x3_sm90, Solve, ProductsSm90<128>::THREADS, ProductsSm90<128>::BLOCKS) SOLVE_WITH(ProductsSm90, 128, TF32X3, false, 0, ANY)
KERNEL(solve_256_tf32x3_sm90, Solve, ProductsSm90<256>::THREADS, ProductsSm90<256>::BLOCKS) SOLVE_WITH(ProductsSm90, 256, TF32X3, false, 0, ANY)
KERNEL(solve_512_tf32x3_sm90, Solve, ProductsSm90<512>::THREADS, ProductsSm90<512>::BLOCKS) SOLVE_WITH(ProductsSm90, 512, TF32X3, false, 0, ANY)
KERNEL(over_points_128_tf32x3_sm90, OverPoints, ProductsSm90<128>::THREADS, ProductsSm90<128>::BLOCKS) OVER_POINTS_WITH(ProductsSm90, 128, TF32X3, 0, ANY)
KERNEL(over_points_256_tf32x3_sm90, OverPoints, ProductsSm90<256>::THREADS, ProductsSm90<256>::BLOCKS) OVER_POINTS_WITH(ProductsSm90, 256, TF32X3, 0, ANY)
KERNEL(over_points_512_tf32x3_sm90, OverPoints, ProductsSm90<512>::THREADS, ProductsSm90<512>::BLOCKS) OVER_POINTS_WITH(ProductsSm90, 512, TF32X3, 0, ANY)
#endif

#endif
