// Threads that work on one thing together. Functions that take a team are called by all of its threads, a block of which may hold
// one team or several.
#pragma once
#include "device.cuh"

/// The lanes of a warp.
struct WarpTeam {
    DEVICE u32 thread() const { return lane(); }
    DEVICE u32 threads() const { return WARP; }
    /// Threads wait for each other; what they wrote can be read by all.
    DEVICE void sync() const { __syncwarp(); }

    /// term(0) + … + term(count − 1), the same in every thread and, to the bit, in every team: 32 threads add up every 32nd term each,
    /// and then halve their number.
    template <class Term>
    DEVICE double sum(u32 count, Term term) const {
        double share = 0.0;
        for (u32 e = lane(); e < count; e += WARP) share += term(e);
        return warp_sum(share);
    }
};

/// The threads of a block.
struct BlockTeam {
    /// One number.
    Shared<double> scratch;

    DEVICE u32 thread() const { return threadIdx.x; }
    DEVICE u32 threads() const { return blockDim.x; }
    DEVICE void sync() const { __syncthreads(); }

    template <class Term>
    DEVICE double sum(u32 count, Term term) const {
        if (threadIdx.x < WARP) {
            const double of_warp = WarpTeam().sum(count, term);
            if (threadIdx.x == 0) scratch[0] = of_warp;
        }
        __syncthreads();
        const double sum = scratch[0];
        __syncthreads(); // the next sum may begin
        return sum;
    }
};
