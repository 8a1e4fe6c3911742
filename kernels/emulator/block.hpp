// Runs one block after the other on one thread of the system: the block's threads are fibers.
//
// A fiber runs until it has to wait, then switches straight to the next that need not. A thread that ends makes room for the next on
// the same stack, so that threads that never wait follow each other without a switch.
#pragma once

#include <array>
#include <cstdarg>
#include <memory>
#include <vector>

#include "fiber.hpp"
#include "runtime.hpp"
#include "shadow.hpp"

namespace emulator {

/// Dynamic and static shared memory of one block, as on compute capability 9.0.
constexpr size_t SHARED_LIMIT = 227 * 1024;

constexpr uint32_t MAX_WARPS = 32;

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
    void check_access(const Array& array, uintptr_t at, size_t bytes, size_t element, bool write) {
        check_access(here.thread.x, array, at, bytes, element, write ? Access::write : Access::read);
    }
    /// For a bulk copy, those it counts on and their phase.
    void check_access(uint32_t thread, const Array& array, uintptr_t at, size_t bytes, size_t element, Access access,
                      uint32_t arrivals = 0, uint32_t phase = 0);
    void multiply_group(const GroupProduct& product, Site site);
    void commit_products();
    void wait_products(uint32_t pending);
    void copy_async(Place to, const float* from, Site site);
    void commit_copies();
    void wait_copies(uint32_t pending);
    void meet_warps(uint32_t id, uint32_t threads, Site site);
    void init_arrivals(Place barrier, uint32_t arrivals, Site site);
    void arrive(Place barrier, uint32_t bytes, Site site);
    void await_arrivals(Place barrier, uint32_t parity, Site site);
    void copy_bulk(Place to, const float* from, uint32_t bytes, Place barrier, Site site);
    void fence_async();
    [[noreturn]] void fail_with(uint32_t thread, const char* format, va_list arguments);
    [[noreturn]] void fail(uint32_t thread, const char* format, ...) __attribute__((format(printf, 3, 4)));

  private:
    using Lanes = std::array<uint32_t, MAX_WARPS>; // of every warp

    /// 16 bytes or more from global to shared memory. For a thread's own, the group.
    struct Copy {
        Place to;
        const void* from;
        uint32_t bytes, group;
    };

    struct Thread {
        Context context;
        Stack* stack;
        Meeting meeting; // what it waits at, or waited at last
        Site site;
        uint32_t mask, source;
        uint64_t value, result;
        std::vector<Copy> copies; // on their way
        uint32_t groups;          // of copies, that it committed
    };

    /// Lanes by what they do. A lane that is none of these is ready, or runs.
    struct Warp {
        uint32_t ready, started, meeting, finished;
    };

    /// Threads of several warps on their way to a barrier, or to a product of a warpgroup.
    struct Gathering {
        uint32_t arrived, threads, first;
        Site site; // of the first
        Lanes lanes;
    };

    /// An mbarrier.
    struct Arrivals {
        uintptr_t at;
        uint32_t count, missing; // threads
        uint32_t phase;
        int64_t bytes; // that are expected and have not come
        std::vector<Copy> copies;
        Lanes waiting;
        uint32_t waiters;
        Row now, over; // what arrived in this phase, and up to the last
    };

    /// Products of a warp that may still read b.
    struct Reads {
        std::vector<std::pair<Cores, uint32_t>> cores; // and the group
        uint32_t groups;
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
    void begin_pipeline();
    void end_block();
    bool gather(Gathering& at, Meeting meeting, uint32_t threads, Site site);
    void wake(const Lanes& lanes);
    void check_cores(uint32_t thread, const Cores& cores);
    void check_copy(const char* what, Place to, const void* from, size_t bytes, Site site);
    Arrivals& arrivals(Place barrier, const char* what, Site site);
    void settle(Arrivals& arrivals);
    void name_shared(char* text, size_t room, uintptr_t at, size_t element) const;
    void report_stuck_gathering(const Gathering& at, const char* name);
    void report_stuck_arrivals(const Arrivals& arrivals);
    void tell_states(char* text, size_t room) const;

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

    // pipeline.cpp
    std::array<Gathering, 16> named_{};             // barriers
    std::array<Gathering, MAX_WARPS / 4> groups_{}; // of warps
    std::vector<Arrivals> arrivals_;
    std::vector<Reads> reads_; // of every warp
    bool copying_ = false;     // some thread has copies
};

/// The worker that runs a block on this thread of the system.
extern __thread Worker* current;

const char* name_of(Meeting meeting);
const char* file_of(Site site);
/// One literal may have several addresses.
bool same(Site a, Site b);

/// The worker of this thread of the system.
Worker& this_worker();

} // namespace emulator
