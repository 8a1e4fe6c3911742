// What a curve's chords and the adjoints at its values have in common, whatever the geometry of the outputs: energy.cu, ensemble.cu and
// gaussian.cu have the formulas.
#pragma once
#include "product.cuh"

/// The square of every segment with a listed inner point, f by point number.
struct Chords {
    RowList list;
    /// [points, data_dim]
    const float* values;
    /// [points], by the number of the segment's first point.
    float* squares;
    /// Of every curve, or null where all have `segments`.
    const u32* segments_of;
    u32 segments;
    /// Points from one curve to the next.
    u32 stride;
    u32 data_dim;
    u32 padding;
};

/// A lane's share of ‖f_{i+1} − f_i‖² over the columns from `first` on.
DEVICE float euclidean(const float* from, const float* to, u32 first, u32 end) {
    float sum = 0.0f;
    for (u32 k = first + lane(); k < end; k += WARP) {
        const float difference = to[k] - from[k];
        sum += difference * difference;
    }
    return sum;
}

/// The chords of energy.cu.
struct Euclidean {
    u32 data_dim;
    DEVICE float operator()(const float* from, const float* to) const { return euclidean(from, to, 0, data_dim); }
};

/// The segment before an inner point, and behind the last one the segment to the end: a warp's, of which `share(from, to)` gives each
/// lane's share from the values of both ends.
template <class Share>
DEVICE void chords_at(const Chords& p, u32 id, Share share) {
    const u32 point = id % p.stride;
    const u32 segments = p.segments_of == nullptr ? p.segments : p.segments_of[id / p.stride];
    const auto chord = [&](u32 left) {
        const float* from = p.values + u64(left) * p.data_dim;
        const float sum = warp_sum(share(from, from + p.data_dim));
        if (lane() == 0) p.squares[left] = sum;
    };
    if (point == 0 && segments == 1) chord(id); // no point is inside
    if (point == 0 || point >= segments) return;
    chord(id - 1);
    if (point + 1 == segments) chord(id);
}

/// All listed segments.
template <class Share>
DEVICE void each_chord(const Chords& p, Share share) {
    const u32 rows = p.list.rows();
    for (u32 row = grid_warp(); row < rows; row += grid_warps()) chords_at(p, p.list.id(row), share);
}

/// Where one head's adjoint pass starts.
struct Seeds {
    RowList list;
    /// Point numbers by place, where the list holds places.
    const u32* ids;
    /// [points, data_dim], by number.
    const float* values;
    /// [points, outputs], by place.
    float* out;
    u32 data_dim, outputs, offset;
    /// 1 for the residuals r, 0 for the values themselves.
    u32 residuals;
};

/// λ at all listed points, `at(values of the point, column of the head)`. One thread a number.
template <class At>
DEVICE void each_seed(const Seeds& p, At at) {
    const u64 numbers = u64(p.list.rows()) * p.outputs;
    for (u64 number = grid_thread(); number < numbers; number += grid_threads()) {
        const u32 row = u32(number / p.outputs), k = u32(number % p.outputs);
        const u32 place = p.ids == nullptr ? row : p.list.id(row);
        const u32 id = p.ids == nullptr ? p.list.id(row) : p.ids[place];
        p.out[u64(place) * p.outputs + k] = at(p.values + u64(id) * p.data_dim, k);
    }
}
