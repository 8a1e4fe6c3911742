// Products as tensor cores round them (Fasi, Higham, Mikaitis and Pranesh, "Numerical behavior of NVIDIA tensor cores", 2021). Products
// of two numbers are exact. The sum and a block of products, 4 of TF32 and 8 of bfloat16 as on an A100, are shifted to the exponent of the
// largest of them and cut off, toward zero, one bit below the last place of a float with that exponent. Then they are added without
// an error, and the result is cut off to a float. Later chips take larger blocks and keep more bits, and so are at least as exact.
//
// The fast path takes four columns at a time: products of such short numbers are exact as floats, and scaled by a power of two they are
// cut off by a conversion to integers. It holds as long as nothing comes near the limits of exponents; the slow path does for all.
#include "product.hpp"

#include <algorithm>
#include <cstring>

namespace emulator {
namespace {

typedef float Floats __attribute__((vector_size(16)));
typedef int32_t Ints __attribute__((vector_size(16)));
typedef uint32_t Words __attribute__((vector_size(16))); // for sums that may overflow where the result is not used

constexpr int32_t EXPONENT = 0x7f800000, LAST = 1 << 23; // of a float: its exponent, and the last bit of that
constexpr uint32_t ROWS = 16, COLUMNS = 8, MAX_K = 16;
constexpr int EXTRA = 1; // bits kept below the last place

Ints bits_of(Floats values) { return (Ints)values; }
Floats floats_of(Ints bits) { return (Floats)bits; }
Floats greater(Floats a, Floats b) { return a > b ? a : b; }

float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/// Numbers, each with its power of two alone. `odd`: some are infinite, NaN or subnormal.
template <uint32_t N>
struct Numbers {
    alignas(16) float values[N];
    alignas(16) float powers[N];
    bool odd;

    void set(uint32_t at, uint32_t bits) {
        const uint32_t exponent = bits & EXPONENT;
        values[at] = float_of(bits);
        powers[at] = float_of(exponent);
        odd |= exponent == EXPONENT || (exponent == 0 && bits << 1 != 0);
    }
    /// A register: one number as TF32, or two as bfloat16, the next one `step` farther.
    void set(uint32_t at, uint32_t step, uint32_t bits, bool bf16) {
        if (bf16) {
            set(at, bits << 16);
            set(at + step, bits & 0xffff0000u);
        } else {
            set(at, bits & ~0x1fffu);
        }
    }
};

using Left = Numbers<ROWS * MAX_K>;     // [row][k]
using Right = Numbers<MAX_K * COLUMNS>; // [k][column]

struct Tile {
    alignas(16) float values[ROWS][COLUMNS];
};

/// The result of one block in full generality.
float sum_slowly(float start, const float* a, const float* b, uint32_t terms) {
    double values[1 + 8];
    int exponents[1 + 8], largest = INT32_MIN;
    bool finite = __builtin_isfinite(start);
    values[0] = start;
    for (uint32_t k = 0; k < terms; ++k) {
        values[1 + k] = double(a[k]) * double(b[k * COLUMNS]);
        finite = finite && __builtin_isfinite(values[1 + k]);
    }
    if (!finite) {
        double sum = 0;
        for (uint32_t i = 0; i <= terms; ++i) sum += values[i];
        return sum != sum ? float_of(0x7fffffffu) : float(sum);
    }
    const auto exponent = [](float x) { return std::max(__builtin_ilogbf(x), -126); }; // subnormal numbers have the smallest
    exponents[0] = start == 0 ? INT32_MIN : exponent(start);
    for (uint32_t k = 0; k < terms; ++k) {
        exponents[1 + k] = values[1 + k] == 0 ? INT32_MIN : exponent(a[k]) + exponent(b[k * COLUMNS]);
    }
    for (uint32_t i = 0; i <= terms; ++i) largest = std::max(largest, exponents[i]);
    if (largest == INT32_MIN) return 0;
    const int last = largest - 23 - EXTRA;
    int64_t sum = 0;
    for (uint32_t i = 0; i <= terms; ++i) sum += int64_t(__builtin_ldexp(values[i], -last)); // cut off toward zero
    // Cut off to 24 bits, or fewer where the result is subnormal; beyond the largest float there is infinity.
    const uint64_t size = uint64_t(sum < 0 ? -sum : sum);
    if (size == 0) return 0;
    const int top = 63 - __builtin_clzll(size);
    const int drop = std::max({0, top - 23, -149 - last});
    const uint64_t kept = drop > 63 ? 0 : size >> drop << drop;
    const float result = float(__builtin_ldexp(double(kept), last));
    return sum < 0 ? -result : result;
}

template <uint32_t K, uint32_t BLOCK>
void multiply_slowly(Tile& c, const Left& a, const Right& b) {
    for (uint32_t row = 0; row < ROWS; ++row) {
        for (uint32_t column = 0; column < COLUMNS; ++column) {
            float& sum = c.values[row][column];
            for (uint32_t k = 0; k < K; k += BLOCK) {
                sum = sum_slowly(sum, &a.values[row * K + k], &b.values[k * COLUMNS + column], BLOCK);
            }
        }
    }
}

/// False where the fast path does not hold; then c is as it was.
template <uint32_t K, uint32_t BLOCK>
bool multiply_fast(Tile& c, const Left& a, const Right& b) {
    // Inside these limits no power of two below leaves the range of a float.
    constexpr float HIGH = 0x1p100f, LOW = 0x1p-90f;
    const Floats low = {LOW, LOW, LOW, LOW}, zero = {};
    const Ints sign_bit = {INT32_MIN, INT32_MIN, INT32_MIN, INT32_MIN};
    Tile results;
    Ints beyond = {};
    for (uint32_t row = 0; row < ROWS; ++row) {
        for (uint32_t column = 0; column < COLUMNS; column += 4) {
            Floats sum;
            memcpy(&sum, &c.values[row][column], sizeof sum);
            for (uint32_t k0 = 0; k0 < K; k0 += BLOCK) {
                Floats products[BLOCK];
                Floats largest = floats_of(bits_of(sum) & EXPONENT);
                for (uint32_t k = 0; k < BLOCK; ++k) {
                    Floats y, power;
                    memcpy(&y, &b.values[(k0 + k) * COLUMNS + column], sizeof y);
                    memcpy(&power, &b.powers[(k0 + k) * COLUMNS + column], sizeof power);
                    products[k] = a.values[row * K + k0 + k] * y;
                    largest = greater(largest, a.powers[row * K + k0 + k] * power);
                }
                // Where all are 0 there is nothing to be wrong; a subnormal sum shows in itself.
                const Floats size = greater(largest, floats_of(bits_of(sum) & ~sign_bit));
                beyond |= (size >= HIGH) | ((size < LOW) & (size != zero));
                largest = greater(largest, low);

                const Floats up = floats_of((Ints)((127 * 2 + 23 + EXTRA) * uint32_t(LAST) - (Words)bits_of(largest)));
                const Floats down = floats_of(bits_of(largest) - (23 + EXTRA) * LAST);
                Words total = (Words)__builtin_convertvector(sum * up, Ints);
                for (uint32_t k = 0; k < BLOCK; ++k) total += (Words)__builtin_convertvector(products[k] * up, Ints);
                const Ints negative = (Ints)total >> 31;
                const Ints magnitude = (Ints)((total ^ (Words)negative) - (Words)negative);
                // Rounded to the nearest, then one place down where that was up.
                const Floats nearest = __builtin_convertvector(magnitude, Floats);
                const Ints cut = bits_of(nearest) + (__builtin_convertvector(nearest, Ints) > magnitude);
                sum = floats_of(bits_of(floats_of(cut) * down) | (negative & sign_bit));
            }
            memcpy(&results.values[row][column], &sum, sizeof sum);
        }
    }
    if ((beyond[0] | beyond[1] | beyond[2] | beyond[3]) != 0) return false;
    c = results;
    return true;
}

void multiply_tile(Tile& c, const Left& a, const Right& b, bool bf16) {
    const bool odd = a.odd || b.odd;
    if (bf16) {
        if (odd || !multiply_fast<16, 8>(c, a, b)) multiply_slowly<16, 8>(c, a, b);
    } else {
        if (odd || !multiply_fast<8, 4>(c, a, b)) multiply_slowly<8, 4>(c, a, b);
    }
}

/// A lane's four numbers of a, of its rows and columns.
void take_left(Left& a, uint32_t lane, const uint32_t* registers, bool bf16) {
    const uint32_t k = bf16 ? 16 : 8, per = k / 8, row = lane / 4, first = lane % 4 * per;
    for (uint32_t i = 0; i < 4; ++i) {
        a.set((row + i % 2 * 8) * k + first + i / 2 * 4 * per, 1, registers[i], bf16);
    }
}

/// Where a lane has its four numbers of a tile.
struct Spot {
    float *above, *below;
    Spot(Tile& tile, uint32_t lane)
        : above(&tile.values[lane / 4][lane % 4 * 2]), below(&tile.values[lane / 4 + 8][lane % 4 * 2]) {}
};
void gather(Tile& tile, uint32_t lane, const float* acc) {
    const Spot spot(tile, lane);
    memcpy(spot.above, acc, 8);
    memcpy(spot.below, acc + 2, 8);
}
void scatter(Tile& tile, uint32_t lane, float* acc) {
    const Spot spot(tile, lane);
    memcpy(acc, spot.above, 8);
    memcpy(acc + 2, spot.below, 8);
}

} // namespace

void multiply_warp(const Product* const (&lanes)[32]) {
    const bool bf16 = lanes[0]->bf16;
    const uint32_t rows = lanes[0]->rows, columns = lanes[0]->columns, per = bf16 ? 2 : 1;
    constexpr uint32_t AT_ONCE = 4;
    Left a[AT_ONCE];
    Right b;
    Tile c;
    for (uint32_t first = 0; first < rows; first += AT_ONCE) {
        const uint32_t count = std::min(AT_ONCE, rows - first);
        for (uint32_t i = 0; i < count; ++i) {
            a[i].odd = false;
            for (uint32_t lane = 0; lane < 32; ++lane) take_left(a[i], lane, lanes[lane]->a + (first + i) * 4, bf16);
        }
        for (uint32_t j = 0; j < columns; ++j) {
            b.odd = false;
            for (uint32_t lane = 0; lane < 32; ++lane) {
                for (uint32_t i = 0; i < 2; ++i) {
                    const uint32_t k = (lane % 4 + i * 4) * per;
                    b.set(k * COLUMNS + lane / 4, COLUMNS, lanes[lane]->b[j * 2 + i], bf16);
                }
            }
            for (uint32_t i = 0; i < count; ++i) {
                const uint32_t at = ((first + i) * columns + j) * 4;
                for (uint32_t lane = 0; lane < 32; ++lane) gather(c, lane, lanes[lane]->acc + at);
                multiply_tile(c, a[i], b, bf16);
                for (uint32_t lane = 0; lane < 32; ++lane) scatter(c, lane, lanes[lane]->acc + at);
            }
        }
    }
}

void multiply_group(const GroupProduct* const (&threads)[128]) {
    const GroupProduct& any = *threads[0];
    const bool bf16 = any.bf16;
    const uint32_t per = bf16 ? 2 : 1;
    Left a[4];
    Right b;
    Tile c;
    for (uint32_t warp = 0; warp < 4; ++warp) {
        a[warp].odd = false;
        for (uint32_t lane = 0; lane < 32; ++lane) take_left(a[warp], lane, threads[warp * 32 + lane]->a, bf16);
    }
    for (uint32_t j = 0; j < 8; ++j) {
        b.odd = false;
        for (uint32_t core = 0; core < 2; ++core) {
            for (uint32_t column = 0; column < 8; ++column) {
                uint32_t words[4];
                memcpy(words, reinterpret_cast<const char*>(any.b.place.at) + core * any.b.k_stride + j * any.b.n_stride + column * 16, 16);
                for (uint32_t i = 0; i < 4; ++i) b.set((core * 4 + i) * per * COLUMNS + column, COLUMNS, words[i], bf16);
            }
        }
        for (uint32_t warp = 0; warp < 4; ++warp) {
            const GroupProduct* const* lanes = threads + warp * 32;
            if (any.accumulate) {
                for (uint32_t lane = 0; lane < 32; ++lane) gather(c, lane, lanes[lane]->acc + j * 4);
            } else {
                memset(&c, 0, sizeof c);
            }
            multiply_tile(c, a[warp], b, bf16);
            for (uint32_t lane = 0; lane < 32; ++lane) scatter(c, lane, lanes[lane]->acc + j * 4);
        }
    }
}

} // namespace emulator
