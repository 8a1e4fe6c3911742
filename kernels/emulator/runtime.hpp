// What the kernels, compiled as C++, call. Both builds of them (see kernels.cpp) share it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace emulator {

using std::uint32_t;
using std::uint64_t;

struct Index {
    uint32_t x;
};

/// The thread that runs, its block and the launch.
struct Here {
    Index thread, block, threads, blocks;
};
extern __thread Here here;

/// A place in a kernel's source.
struct Site {
    const char* file;
    uint32_t line;
};

/// What threads wait at: the first four and `product` with their warp, `group_product` with their warpgroup.
enum class Meeting : uint32_t { syncthreads, syncwarp, shuffle, vote, product, group_product, warps, arrivals };

/// __syncthreads().
void barrier(Site site);

/// Waits until every lane of `mask` has come to the same meeting. Gives the value of lane `source`; of a vote, the lanes whose
/// value is not 0.
uint64_t meet(Meeting meeting, uint32_t mask, uint64_t value, uint32_t source, Site site);

/// An array in shared memory.
struct Array {
    const void* tag;
    const char* name;
    unsigned char* begin;
    size_t bytes;
};

/// The block's array that `tag` stands for.
const Array* static_array(const void* tag, const char* name, size_t bytes);
/// The launch's dynamic shared memory.
const Array* dynamic_array(const char* name);

/// Reports an access of the thread that runs, as a fault where it is one.
void check_access(const Array* array, uintptr_t at, size_t bytes, size_t element, bool write);

/// Ends the launch with a fault of the thread that runs.
[[noreturn]] void fault(const char* format, ...) __attribute__((format(printf, 1, 2)));

/// An address in shared memory; the array is known in the checked build alone.
struct Place {
    const Array* array;
    uintptr_t at;
};

/// A lane's part of acc += a · b: `rows` fragments of a, `columns` of b.
struct Product {
    float* acc;
    const uint32_t* a;
    const uint32_t* b;
    uint32_t rows, columns;
    bool bf16;
};

/// Core matrices of b in shared memory, 2 along k and 8 along the other dimension.
struct Cores {
    Place place;
    uint32_t k_stride, n_stride;
};

/// A thread's part of a warpgroup's acc = a · b (+ acc).
struct GroupProduct {
    float* acc;
    const uint32_t* a;
    Cores b;
    bool accumulate, bf16;
};

// See ../tensor.cuh; `bytes` are those that an arrival expects.
void multiply(const Product& product, Site site);
void multiply_group(const GroupProduct& product, Site site);
void copy_async(Place to, const float* from, Site site);
void commit_copies();
void wait_copies(uint32_t pending);
void meet_warps(uint32_t id, uint32_t threads, Site site);
void init_arrivals(Place barrier, uint32_t arrivals, Site site);
void arrive(Place barrier, uint32_t bytes, Site site);
void await_arrivals(Place barrier, uint32_t parity, Site site);
void copy_bulk(Place to, const float* from, uint32_t bytes, Place barrier, Site site);
// Of the checked build.
void fence_async();
void commit_products();
void wait_products(uint32_t pending);

/// A kernel in one build. The list of a build is linked, the last kernel first.
struct Registered {
    const char* name;
    uint32_t params;  // sizeof of its structure
    uint32_t threads; // most that a block may have
    void (*entry)(const void* params);
    const Registered* next;
};

} // namespace emulator
