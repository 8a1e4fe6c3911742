// The whole chain of a decoder for a block's points: values, adjoints, tangents, and what geodesics need of them.
//
//   forward    f, φ' and φ'' of every layer
//   adjoint    r_i = 2 f_i − f_{i−1} − f_{i+1}, λ of every layer back to the latents: J_i r_i, and c = λ ∘ φ'' in the place of φ''
//   tangents   T of every layer; S = Σ_l T_l · diag(c_l) · T_lᵀ, G_i = J_i J_iᵀ and J_i J_{i+1}ᵀ
//
// A tile is ROWS points, or ROWS / d of them with d tangents each, which stand together. Rows stay in shared memory from the latents
// to the last layer (chain.cuh); tangents of no layer and no Jacobian are ever written. The adjoint pass comes first, since it needs
// no tangents, and then T_l has all that S needs of it while it is there.
//
// Inner products run on tensor cores as well: a warp takes 16 rows, the tangents of 16 / d points, against those of the same points and
// the ones before them, along the curve. Where a curve goes on from one tile to the next, its last point's J is put aside (d · W
// numbers, in the cache).
//
// All numbers by point: values [value_stride], jets [jet_stride] (of every layer φ', then φ'', `columns` each), G, S and J Jᵀ [d, d],
// gradient [d]. Global memory, bytes a point: 4 · value_stride and 4 · jet_stride once out and once or twice in.
#pragma once
#include "activation.cuh"
#include "chain.cuh"
#include "chain_sm90.cuh"
#include "product.cuh"

constexpr u32 MOST_LAYERS = 16;
constexpr u32 MOST_HEADS = 4;

struct FusedLayer {
    /// Of W: [inputs, columns].
    Matrix forward;
    /// Of its transpose: [outputs, inputs padded like columns]; no slices for a head's first layer.
    Matrix backward;
    /// [columns]
    const float* bias;
    /// Where φ' stands among a point's jets; φ'' stands `columns` behind it.
    u32 jets;
    u32 activation;
    u32 has_first, has_second;
};

struct FusedHead {
    u32 first, last;
    /// Where its values stand.
    u32 values;
    u32 padding;
    /// Wᵀ of its first layer, [d, columns].
    const float* tangents;
    /// Multiplied into its outputs, [columns], or null.
    const float* scale;
};

struct FusedNetwork {
    FusedLayer layers[MOST_LAYERS];
    FusedHead heads[MOST_HEADS];
    u32 head_count, latent_dim;
    u32 value_stride, jet_stride;
    /// Stages of the ring, where matrices are not resident.
    u32 stages;
    /// 1 where slices of high and of low parts take turns (but the first layers' always do so in the sm_90a build).
    u32 alternates;
};

/// Arrays by point number.
struct FusedPoints {
    const float* latents;
    float* values;    // or null
    float* jets;      // or null
    float* gram;
    float* off;       // or null
    float* curvature; // or null
    float* gradient;
};

/// Fragments of 8 columns whose inner products with 16 rows a warp makes at once; fewer while registers hold a layer's sums.
constexpr u32 INNER_FRAGMENTS = 4, FEW_FRAGMENTS = 2;

template <class Product, u32 W, u32 DIM, u32 ACTIVATION>
struct Fused {
    static constexpr u32 ROWS = Product::Place::ROWS;
    static constexpr u32 WIDTH = W;
    using Row = typename Product::Place::Row;

    const FusedNetwork& network;
    const FusedPoints& points;
    Rows<W> rows;
    Product& product;
    Shared<u32> ids; // [ROWS]: numbers of the tile's points
    /// J of the last point of the tile before, for every head [d, W].
    float* halo;

    DEVICE u32 dim() const { return known<DIM>(network.latent_dim); }
    DEVICE u32 activation_of(const FusedLayer& layer, bool last) const {
        return ACTIVATION == ANY || last ? layer.activation : ACTIVATION;
    }
    DEVICE static Matrix none() { return {nullptr, 0, 0, NO_PLACE, 1}; }

    /// A matrix as products of this arithmetic take it: of split numbers the high parts may be enough.
    template <u32 ARITHMETIC>
    DEVICE Matrix seen(Matrix matrix) const {
        if (ARITHMETIC == TF32 && network.alternates) matrix.count /= 2, matrix.step = 2;
        return matrix;
    }

    /// Brings all matrices to where they stay.
    DEVICE void settle() {
        for (u32 h = 0; h < network.head_count; h++) {
            for (u32 l = network.heads[h].first; l <= network.heads[h].last; l++) {
                const FusedLayer& layer = network.layers[l];
                if (layer.forward.resident != NO_PLACE) product.settle(layer.forward);
                if (layer.backward.count != 0 && layer.backward.resident != NO_PLACE) product.settle(layer.backward);
            }
        }
        Product::meet();
    }

    DEVICE float* jets_of(u32 id, const FusedLayer& layer) const {
        return points.jets + (u64(id) * network.jet_stride + layer.jets);
    }

    /// Fills `ids` from a list; returns how many points the tile has.
    DEVICE u32 take(const u32* list, u32 first, u32 count, u32 most) {
        const u32 taken = min(count - first, most);
        for (u32 i = thread_again(); i < taken; i += CHAIN_THREADS) ids[i] = list == nullptr ? first + i : list[first + i];
        Product::meet();
        return taken;
    }

    /// f at the listed points, and the jets of every layer.
    template <u32 ARITHMETIC>
    DEVICE void forward(const u32* list, u32 count) {
        for (u32 first = 0; first < count; first += ROWS) {
            const u32 taken = take(list, first, count, ROWS);
            for (u32 h = 0; h < network.head_count; h++) {
                const FusedHead& head = network.heads[h];
                load_latents(taken);
                for (u32 l = head.first; l <= head.last; l++) {
                    const FusedLayer& layer = network.layers[l];
                    const bool last = l == head.last;
                    const Matrix next = last ? none() : seen<ARITHMETIC>(network.layers[l + 1].forward);
                    if (l == head.first) { // costs little, and latents must not be rounded
                        product.template multiply<TF32X3>(rows, taken, layer.forward, next);
                    } else {
                        product.template multiply<ARITHMETIC>(rows, taken, seen<ARITHMETIC>(layer.forward), next);
                    }
                    Product::meet();
                    product.each_row(layer.forward.columns, [&](u32, Row sums) {
                        sums.each([&](u32 place, u32, float x, float y) { rows.store(place, x, y); });
                    });
                    Product::meet();
                    activate<ARITHMETIC>(layer, taken, points.values == nullptr ? nullptr : points.values + head.values,
                                         last ? head.scale : nullptr, last);
                    Product::meet();
                }
            }
        }
    }

    /// Gradients J r of all listed points; c of those behind which S is wanted: wants_curvature(id).
    template <u32 ARITHMETIC, class Wants>
    DEVICE void adjoint(const u32* list, u32 count, Wants wants_curvature) {
        for (u32 first = 0; first < count; first += ROWS) {
            const u32 taken = take(list, first, count, ROWS);
            for (u32 h = 0; h < network.head_count; h++) {
                const FusedHead& head = network.heads[h];
                load_residuals<ARITHMETIC>(head, taken, wants_curvature);
                Product::meet();
                for (u32 l = head.last; l > head.first; l--) {
                    const FusedLayer& layer = network.layers[l];
                    const FusedLayer& before = network.layers[l - 1];
                    const Matrix next = l - 1 > head.first ? seen<ARITHMETIC>(before.backward) : none();
                    product.template multiply<ARITHMETIC>(rows, taken, seen<ARITHMETIC>(layer.backward), next);
                    Product::meet();
                    const u32 columns = before.forward.columns;
                    product.each_row(columns, [&](u32 row, Row sums) {
                        const bool real = row < taken;
                        const u32 id = real ? ids[row] : 0;
                        float* const slopes = jets_of(id, before);
                        float* const bends = slopes + columns;
                        if (real && before.has_second && wants_curvature(id)) {
                            sums.each([&](u32, u32 column, float x, float y) {
                                const float2 bend = load2(bends + column);
                                store2(bends + column, make_float2(x * bend.x, y * bend.y));
                            });
                        }
                        if (real && before.has_first) scale(sums, slopes);
                        sums.each([&](u32 place, u32, float x, float y) { rows.store(place, kept<ARITHMETIC>(x), kept<ARITHMETIC>(y)); });
                    });
                    Product::meet();
                }
                gradients<ARITHMETIC>(head, taken, h > 0);
                Product::meet();
            }
        }
    }

    /// G of all listed points, J Jᵀ of those that stand behind each other, S where it is wanted.
    template <u32 ARITHMETIC, class Wants>
    DEVICE void tangents(const u32* list, u32 count, Wants wants_curvature) {
        const u32 d = dim(), most = ROWS / d;
        SHARED(u32, anyone, 1);
        for (u32 first = 0; first < count; first += most) {
            const u32 taken = take(list, first, count, most), live = taken * d;
            if (thread_again() < WARP) {
                bool wanted = false;
                for (u32 i = thread_again(); i < taken; i += WARP) wanted = wanted || wants_curvature(u32(ids[i]));
                wanted = __any_sync(ALL_LANES, wanted) != 0;
                if (thread_again() == 0) anyone[0] = wanted;
            }
            // The point before the tile's first, where it is its neighbour.
            const u32 before = first > 0 && (list == nullptr ? first - 1 : list[first - 1]) + 1 == ids[0] ? ids[0] - 1 : NO_ROW;
            Product::meet();
            const bool curved = points.curvature != nullptr && anyone[0] != 0;
            bool is_first_share = true;
            for (u32 h = 0; h < network.head_count; h++) {
                const FusedHead& head = network.heads[h];
                const FusedLayer& entry = network.layers[head.first];
                const bool bends = curved && entry.has_second;
                if (bends) {
                    first_tangents<ARITHMETIC>(head, taken, false);
                    Product::meet();
                    curvature_share<ARITHMETIC>(entry, live, is_first_share, wants_curvature);
                    is_first_share = false;
                    Product::meet();
                }
                first_tangents<ARITHMETIC>(head, taken, true);
                Product::meet();
                for (u32 l = head.first + 1; l <= head.last; l++) {
                    const FusedLayer& layer = network.layers[l];
                    const u32 columns = layer.forward.columns;
                    const Matrix next = l < head.last ? seen<ARITHMETIC>(network.layers[l + 1].forward) : none();
                    product.template multiply<ARITHMETIC>(rows, live, seen<ARITHMETIC>(layer.forward), next);
                    Product::meet();
                    if (curved && layer.has_second) {
                        product.each_row(columns, [&](u32, Row sums) {
                            sums.each([&](u32 place, u32, float x, float y) { rows.store(place, kept<ARITHMETIC>(x), kept<ARITHMETIC>(y)); });
                        });
                        Product::meet();
                        curvature_share<ARITHMETIC>(layer, live, is_first_share, wants_curvature);
                        is_first_share = false;
                        Product::meet();
                    }
                    product.each_row(columns, [&](u32 row, Row sums) {
                        if (layer.has_first && row < live) scale(sums, jets_of(ids[row / d], layer));
                        sums.each([&](u32 place, u32, float x, float y) { rows.store(place, kept<ARITHMETIC>(x), kept<ARITHMETIC>(y)); });
                    });
                    Product::meet();
                }
                const u32 columns = network.layers[head.last].forward.columns;
                metric<ARITHMETIC>(columns, live, h, before);
                Product::meet();
                if (points.off != nullptr) put_aside(columns, taken, h);
                Product::meet();
            }
        }
    }

private:
    /// A row of sums times φ'.
    DEVICE static void scale(Row sums, const float* slopes) {
        sums.each([&](u32, u32 column, float& x, float& y) {
            const float2 slope = load2(slopes + column);
            x *= slope.x, y *= slope.y;
        });
    }

    /// Latents of the tile's points in rows, with zeros up to whole slices.
    DEVICE void load_latents(u32 taken) {
        const u32 d = dim(), width = divide_up(d, SLICE) * SLICE;
        for (u32 e = thread_again(); e < ROWS * width / 4; e += CHAIN_THREADS) {
            const u32 row = e / (width / 4), piece = e % (width / 4);
            const float* z = points.latents + u64(row < taken ? ids[row] : 0) * d;
            float four[4];
            UNROLL for (u32 i = 0; i < 4; i++) four[i] = row < taken && 4 * piece + i < d ? z[4 * piece + i] : 0.0f;
            rows.store(row, piece, make_float4(four[0], four[1], four[2], four[3]));
        }
        Product::meet();
    }

    /// h = rows + bias becomes φ(h), in rows or, of the last layer, in `values`; φ' and φ'' go to the points' jets. All times `scale`, where
    /// it is not null.
    template <u32 ARITHMETIC>
    DEVICE void activate(const FusedLayer& layer, u32 taken, float* values, const float* scale, bool last) {
        const u32 columns = layer.forward.columns, pieces = columns / 4, activation = activation_of(layer, last);
        for (u32 e = thread_again(); e < ROWS * pieces; e += CHAIN_THREADS) {
            const u32 row = e / pieces, piece = e % pieces;
            if (row >= taken) continue; // zeros, and the bias does not matter
            const float4 h = rows.load(row, piece), bias = load4(layer.bias + 4 * piece);
            float value[4], first[4], second[4];
            UNROLL for (u32 i = 0; i < 4; i++) {
                const Jet jet = jet_of(activation, part(h, i) + part(bias, i));
                value[i] = jet.value, first[i] = jet.first, second[i] = jet.second;
            }
            if (scale != nullptr) {
                const float4 factor = load4(scale + 4 * piece);
                UNROLL for (u32 i = 0; i < 4; i++) {
                    value[i] *= part(factor, i), first[i] *= part(factor, i), second[i] *= part(factor, i);
                }
            }
            const u32 id = ids[row];
            float* jets = jets_of(id, layer) + 4 * piece;
            if (points.jets != nullptr && layer.has_first) store4(jets, make_float4(first[0], first[1], first[2], first[3]));
            if (points.jets != nullptr && layer.has_second) store4(jets + columns, make_float4(second[0], second[1], second[2], second[3]));
            const float4 four = make_float4(value[0], value[1], value[2], value[3]);
            if (last) {
                if (values != nullptr) store4(values + u64(id) * network.value_stride + 4 * piece, four);
            } else {
                rows.store(row, piece, kept<ARITHMETIC>(four));
            }
        }
    }

    /// φ' ∘ r of one head in rows, and c of its last layer.
    template <u32 ARITHMETIC, class Wants>
    DEVICE void load_residuals(const FusedHead& head, u32 taken, Wants wants_curvature) {
        const FusedLayer& layer = network.layers[head.last];
        const u32 columns = layer.forward.columns, pieces = columns / 4;
        for (u32 e = thread_again(); e < ROWS * pieces; e += CHAIN_THREADS) {
            const u32 row = e / pieces, piece = e % pieces;
            float four[4] = {0.0f, 0.0f, 0.0f, 0.0f};
            if (row < taken) {
                const u32 id = ids[row];
                const float* at = points.values + (u64(id) * network.value_stride + head.values + 4 * piece);
                const float4 here = load4(at), left = load4(at - network.value_stride), right = load4(at + network.value_stride);
                // Differences of neighbours first: they are small, and exact.
                UNROLL for (u32 i = 0; i < 4; i++) four[i] = (part(here, i) - part(left, i)) + (part(here, i) - part(right, i));
                float* jets = jets_of(id, layer) + 4 * piece;
                if (layer.has_second && wants_curvature(id)) {
                    const float4 bend = load4(jets + columns);
                    store4(jets + columns,
                           make_float4(four[0] * bend.x, four[1] * bend.y, four[2] * bend.z, four[3] * bend.w));
                }
                if (layer.has_first) {
                    const float4 slope = load4(jets);
                    UNROLL for (u32 i = 0; i < 4; i++) four[i] *= part(slope, i);
                }
            }
            rows.store(row, piece, kept<ARITHMETIC>(make_float4(four[0], four[1], four[2], four[3])));
        }
    }

    /// T of a head's first layer, its weight's columns: as they are, or times φ'.
    template <u32 ARITHMETIC>
    DEVICE void first_tangents(const FusedHead& head, u32 taken, bool scaled) {
        const FusedLayer& layer = network.layers[head.first];
        const u32 d = dim(), columns = layer.forward.columns, pieces = columns / 4;
        for (u32 e = thread_again(); e < taken * pieces; e += CHAIN_THREADS) {
            const u32 point = e / pieces, piece = e % pieces;
            float4 slope = make_float4(1.0f, 1.0f, 1.0f, 1.0f);
            if (scaled && layer.has_first) slope = load4(jets_of(ids[point], layer) + 4 * piece);
            for (u32 a = 0; a < d; a++) {
                const float4 w = load4(head.tangents + (a * columns + 4 * piece));
                rows.store(point * d + a, piece,
                           kept<ARITHMETIC>(make_float4(w.x * slope.x, w.y * slope.y, w.z * slope.z, w.w * slope.w)));
            }
        }
        const u32 live = taken * d; // others are multiplied as well
        for (u32 e = thread_again(); e < (ROWS - live) * pieces; e += CHAIN_THREADS) {
            rows.store(live + e / pieces, e % pieces, make_float4(0.0f, 0.0f, 0.0f, 0.0f));
        }
    }

    /// J of the tile's last point, for the tile behind it.
    DEVICE void put_aside(u32 columns, u32 taken, u32 head) {
        const u32 d = dim(), pieces = columns / 4;
        for (u32 e = thread_again(); e < d * pieces; e += CHAIN_THREADS) {
            const u32 a = e / pieces, piece = e % pieces;
            store4(halo + ((u64(head) * d + a) * W + 4 * piece), rows.load((taken - 1) * d + a, piece));
        }
    }

    /// Inner products of 16 rows with 8 · F others, a warp's: `other(j, piece)` are four numbers of the lane's column in
    /// fragment j.
    template <u32 ARITHMETIC, u32 F, class Other>
    DEVICE void inner_products_of(u32 row, u32 columns, float (&acc)[1][F][4], Other other) {
        const u32 g = lane_again() / 4, t = lane_again() % 4;
        UNROLL for (u32 j = 0; j < F; j++) {
            UNROLL for (u32 e = 0; e < 4; e++) acc[0][j][e] = 0.0f;
        }
        for (u32 piece = t; piece < columns / 4; piece += SLICE / 4) {
            const float4 low[1] = {rows.load(row + g, piece)}, high[1] = {rows.load(row + g + 8, piece)};
            float4 b[F];
            UNROLL for (u32 j = 0; j < F; j++) b[j] = other(j, piece);
            // bfloat16 is for the layers: here it would cost more than it saves.
            slice_products<(ARITHMETIC == TF32X3 ? u32(TF32X3) : u32(TF32))>(acc, low, high, b);
        }
    }

    /// Calls f(row, column, sum) for all of a warp's inner products.
    template <u32 F, class Take>
    DEVICE static void each_product(u32 row, u32 column, const float (&acc)[1][F][4], Take f) {
        UNROLL for (u32 j = 0; j < F; j++) {
            UNROLL for (u32 e = 0; e < 4; e++) f(row + lane_again() / 4 + e / 2 * 8, column + 8 * j + lane_again() % 4 * 2 + e % 2, acc[0][j][e]);
        }
    }

    /// J r of one head, from φ' ∘ λ of its first layer in rows.
    template <u32 ARITHMETIC>
    DEVICE void gradients(const FusedHead& head, u32 taken, bool add) {
        const u32 d = dim(), columns = network.layers[head.first].forward.columns;
        const u32 across = divide_up(d, 8 * INNER_FRAGMENTS), items = divide_up(taken, 16) * across;
        for (u32 item = thread_again() / WARP; item < items; item += WARPS) {
            const u32 row = item / across * 16, column = item % across * (8 * INNER_FRAGMENTS);
            float acc[1][INNER_FRAGMENTS][4];
            inner_products_of<TF32X3>(row, columns, acc, [&](u32 j, u32 piece) {
                const u32 a = column + 8 * j + lane_again() / 4;
                return a < d ? load4(head.tangents + (a * columns + 4 * piece)) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            });
            each_product(row, column, acc, [&](u32 m, u32 a, float sum) {
                if (m >= taken || a >= d) return;
                float* out = points.gradient + (u64(ids[m]) * d + a);
                *out = add ? *out + sum : sum;
            });
        }
    }

    /// T · diag(c) · Tᵀ of one layer, from T in rows.
    template <u32 ARITHMETIC, class Wants>
    DEVICE void curvature_share(const FusedLayer& layer, u32 live, bool is_first_share, Wants wants_curvature) {
        const u32 d = dim(), columns = layer.forward.columns;
        for_each_band<FEW_FRAGMENTS>(live, 0, [&](u32 row, u32 column) {
            float acc[1][FEW_FRAGMENTS][4];
            const float* weights[FEW_FRAGMENTS]; // c of the lane's columns
            UNROLL for (u32 j = 0; j < FEW_FRAGMENTS; j++) {
                const u32 other = column + 8 * j + lane_again() / 4;
                weights[j] = other < live ? jets_of(ids[other / d], layer) + columns : nullptr;
            }
            inner_products_of<ARITHMETIC>(row, columns, acc, [&](u32 j, u32 piece) {
                if (weights[j] == nullptr) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
                const float4 x = rows.load(column + 8 * j + lane_again() / 4, piece);
                const float4 c = load4(weights[j] + 4 * piece);
                return kept<ARITHMETIC>(make_float4(x.x * c.x, x.y * c.y, x.z * c.z, x.w * c.w));
            });
            each_product(row, column, acc, [&](u32 m, u32 n, float sum) {
                if (m >= live || n >= live || m / d != n / d || m > n) return;
                const u32 id = ids[m / d];
                if (wants_curvature(id)) set(points.curvature + u64(id) * d * d, m % d, n % d, sum, !is_first_share);
            });
        });
    }

    /// G and J Jᵀ, from J of one head in rows. `before` is the number of the point before the tile, or NO_ROW.
    template <u32 ARITHMETIC>
    DEVICE void metric(u32 columns, u32 live, u32 head, u32 before) {
        const u32 d = dim();
        for_each_band<INNER_FRAGMENTS>(live, points.off == nullptr ? 0 : d, [&](u32 row, u32 from) {
            // Columns are counted from the point before the tile on.
            float acc[1][INNER_FRAGMENTS][4];
            inner_products_of<ARITHMETIC>(row, columns, acc, [&](u32 j, u32 piece) {
                const u32 other = from + 8 * j + lane_again() / 4; // of d + live
                const u32 own = points.off == nullptr ? other : other - d;
                if (points.off != nullptr && other < d) {
                    return before == NO_ROW ? make_float4(0.0f, 0.0f, 0.0f, 0.0f)
                                            : load4(halo + ((u64(head) * d + other) * W + 4 * piece));
                }
                return own < live ? rows.load(own, piece) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            });
            each_product(row, from, acc, [&](u32 m, u32 n, float sum) {
                if (m >= live) return;
                const u32 point = m / d, id = ids[point];
                if (points.off == nullptr) {
                    if (n < live && n / d == point && m <= n) set(points.gram + u64(id) * d * d, m % d, n % d, sum, head > 0);
                    return;
                }
                if (n >= d + live) return;
                const u32 other = n / d; // one more than the other point
                if (other == point + 1) {
                    if (m % d <= n % d) set(points.gram + u64(id) * d * d, m % d, n % d, sum, head > 0);
                } else if (other == point) {
                    const u32 left = point == 0 ? before : u32(ids[point - 1]);
                    if (left == NO_ROW || left + 1 != id) return;
                    float* out = points.off + (u64(left) * d * d + n % d * d + m % d);
                    *out = head > 0 ? *out + sum : sum;
                }
            });
        });
    }

    /// An entry of a symmetric matrix, in both its places.
    DEVICE void set(float* matrix, u32 i, u32 j, float sum, bool add) const {
        const u32 d = dim();
        if (add) sum += matrix[i * d + j];
        matrix[i * d + j] = sum;
        matrix[j * d + i] = sum;
    }

    /// Hands 16 rows with the columns that they are to be multiplied with to the warps: those of the same points, from `lead` columns
    /// before them on. With a lead, columns are counted from `lead` before the first row on.
    template <u32 F, class Take>
    DEVICE void for_each_band(u32 live, u32 lead, Take f) {
        const u32 d = dim(), blocks = divide_up(live, 16);
        const u32 most = divide_up(16 + 2 * d + lead + 8, 8 * F);
        for (u32 item = thread_again() / WARP; item < blocks * most; item += WARPS) {
            const u32 row = item / most * 16;
            const u32 first = row / d * d / 8 * 8, end = min((row + 15) / d * d + d, live) + lead;
            const u32 column = first + item % most * (8 * F);
            if (column < end) f(row, column);
        }
    }
};
