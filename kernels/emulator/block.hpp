// Runs one block after the other on one thread of the system: the block's threads are fibers.
//
// A fiber runs until it has to wait, then switches straight to the next that need not. A thread that ends makes room for the next on
// the same stack, so that threads that never wait follow each other without a switch.
#pragma once

#include <cstdarg>
#include <memory>
#include <vector>

#include "fiber.hpp"
#include "runtime.hpp"
#include "shadow.hpp"

namespace emulator {

/// Dynamic and static shared memory of one block, as on compute capability 9.0.
constexpr size_t SHARED_LIMIT = 227 * 1024;

/// What Rust asks for; `Launch` in src/cuda/emulator/bindings.rs.
struct Launch {
    const Registered* kernel;
    const void* params; // aligned to 16 bytes
    uint32_t blocks, threads, shared;
    uint32_t workers; // threads of the system
    uint32_t checked;
};

/// What went wrong; `Fault` there.
struct Fault {
    uint32_t block, thread;
    char what[496];
};

class Worker {
  public:
    /// False where the system has no memory for the block's threads, or the kernel failed; `fault` says what.
    bool run(const Launch& launch, uint32_t block, Fault& fault);

    void barrier(Site site);
    uint64_t meet(Meeting meeting, uint32_t mask, uint64_t value, uint32_t source, Site site);
    const Array* array(const void* tag, const char* name, size_t bytes);
    const Array* dynamic_array(const char* name);
    void check_access(const Array& array, uintptr_t at, size_t bytes, size_t element, bool write);
    [[noreturn]] void fail_with(uint32_t thread, const char* format, va_list arguments);
    [[noreturn]] void fail(uint32_t thread, const char* format, ...) __attribute__((format(printf, 3, 4)));

  private:
    struct Thread {
        Context context;
        Stack* stack;
        Meeting meeting; // what it waits at, or waited at last
        Site site;
        uint32_t mask, source;
        uint64_t value, result;
    };

    /// Lanes by what they do. A lane that is none of these is ready, or runs.
    struct Warp {
        uint32_t ready, started, meeting, finished;
    };

    static void begin_fiber();
    [[noreturn]] void run_fiber();
    bool begin(const Launch& launch, Fault& fault);
    uint32_t next_ready() const;
    void wait(Meeting meeting, uint32_t mask, uint64_t value, uint32_t source, Site site);
    void go_on_elsewhere();
    void go_to(uint32_t next, Context& from, bool last);
    bool complete(uint32_t warp, const Thread& last);
    Stack* take_stack();
    [[noreturn]] void report_stuck();
    void describe(char* text, size_t room, uint32_t thread) const;

    const Launch* launch_ = nullptr;
    Fault* fault_ = nullptr;
    bool failed_ = false;
    uint32_t arrived_ = 0, finished_ = 0;
    Site barrier_{};
    uint32_t first_at_barrier_ = 0;

    Context main_;
    std::vector<Thread> threads_;
    std::vector<Warp> warps_;
    std::vector<std::unique_ptr<Stack>> stacks_;
    std::vector<Stack*> free_;
    std::vector<Array> arrays_; // in the order of their first use; the dynamic one first
    std::unique_ptr<unsigned char[]> memory_;
    unsigned char* shared_ = nullptr; // aligned, in `memory_`
    size_t used_ = 0;                 // of it, with the gaps between arrays
    size_t asked_ = 0;                // of the limit
    Shadow shadow_;
};

/// The worker of this thread of the system.
Worker& this_worker();

} // namespace emulator
