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

/// What threads wait at.
enum class Meeting : uint32_t { syncthreads, syncwarp, shuffle, vote };

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

/// A kernel in one build. The list of a build is linked, the last kernel first.
struct Registered {
    const char* name;
    uint32_t params;  // sizeof of its structure
    uint32_t threads; // most that a block may have
    void (*entry)(const void* params);
    const Registered* next;
};

} // namespace emulator
