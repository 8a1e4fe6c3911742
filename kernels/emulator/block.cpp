#include "block.hpp"

#include <cstdio>
#include <cstring>

#include "product.hpp"

namespace emulator {

__thread Here here;

namespace {

constexpr uint32_t NOBODY = ~0u;
constexpr size_t STATIC_LIMIT = 48 * 1024; // what nvcc lets a kernel declare
constexpr size_t ARRAYS = 64;
constexpr size_t ALIGNMENT = 128; // that of bulk copies
constexpr size_t GAP = 16;        // between arrays, so that the address sanitizer sees an access that runs over

} // namespace

__thread Worker* current = nullptr;

const char* name_of(Meeting meeting) {
    switch (meeting) {
    case Meeting::syncthreads: return "__syncthreads";
    case Meeting::syncwarp: return "__syncwarp";
    case Meeting::shuffle: return "a shuffle";
    case Meeting::vote: return "a vote";
    case Meeting::product: return "a matrix product";
    case Meeting::group_product: return "a warpgroup's product";
    case Meeting::warps: return "meet_warps";
    case Meeting::arrivals: return "await_arrivals";
    }
    return "";
}

const char* file_of(Site site) {
    const char* slash = strrchr(site.file, '/');
    return slash == nullptr ? site.file : slash + 1;
}

bool same(Site a, Site b) { return a.line == b.line && (a.file == b.file || strcmp(a.file, b.file) == 0); }

Worker& this_worker() {
    thread_local Worker worker;
    current = &worker;
    return worker;
}

bool Worker::run(const Launch& launch, uint32_t block, Fault& fault) {
    launch_ = &launch;
    fault_ = &fault;
    fault.block = block;
    failed_ = false;
    arrived_ = finished_ = 0;
    here = {{0}, {block}, {launch.threads}, {launch.blocks}};

    if (threads_.size() < launch.threads) threads_.resize(launch.threads);
    warps_.assign(launch.threads / LANES, Warp{EVERY_LANE, 0, 0, 0});
    if (!memory_) {
        const size_t room = SHARED_LIMIT + (ARRAYS + 1) * (GAP + ALIGNMENT);
        memory_.reset(new unsigned char[room]);
        shared_ = memory_.get() + (ALIGNMENT - reinterpret_cast<uintptr_t>(memory_.get()) % ALIGNMENT) % ALIGNMENT;
    }
    arrays_.clear();
    arrays_.reserve(ARRAYS); // kernels keep addresses of these
    used_ = asked_ = 0;
    if (launch.checked) shadow_.begin(launch.threads, SHARED_LIMIT + ARRAYS * (GAP + ALIGNMENT));
    array(nullptr, "", launch.shared);
    begin_pipeline();

    go_to(0, main_, false);

    if (failed_) {
        free_.clear();
        for (const auto& stack : stacks_) free_.push_back(stack.get());
    }
    return !failed_;
}

void Worker::begin_fiber() {
    Worker& worker = *current;
    // The first fiber of all is entered from the thread's own stack.
    worker.threads_[here.thread.x].context.arrived(worker.main_.low == nullptr ? &worker.main_ : nullptr);
    worker.run_fiber();
}

void Worker::run_fiber() {
    Stack* const stack = threads_[here.thread.x].stack;
    for (;;) {
        launch_->kernel->entry(launch_->params);

        const uint32_t me = here.thread.x;
        const uint32_t bit = 1u << me % LANES;
        warps_[me / LANES].ready &= ~bit;
        warps_[me / LANES].finished |= bit;
        Context& context = threads_[me].context;
        if (++finished_ == launch_->threads) {
            end_block();
            free_.push_back(stack);
            context.go(main_, true);
        }
        const uint32_t next = next_ready();
        if (next == NOBODY) report_stuck();
        if (warps_[next / LANES].started >> next % LANES & 1) {
            free_.push_back(stack);
            go_to(next, context, true);
        }
        // It begins on this stack, whose bounds and sanitizer's state its context takes over.
        warps_[next / LANES].started |= 1u << next % LANES;
        here.thread.x = next;
        threads_[next].stack = stack;
        threads_[next].context = context;
    }
}

void Worker::go_to(uint32_t next, Context& from, bool last) {
    Thread& thread = threads_[next];
    Warp& warp = warps_[next / LANES];
    const uint32_t bit = 1u << next % LANES;
    here.thread.x = next;
    if ((warp.started & bit) == 0) {
        warp.started |= bit;
        thread.stack = take_stack();
        thread.context.prepare(*thread.stack, next, begin_fiber);
    }
    from.go(thread.context, last);
}

/// A ready thread: of this warp where there is one, so that warps stay together, otherwise of the next.
uint32_t Worker::next_ready() const {
    const uint32_t warps = launch_->threads / LANES;
    uint32_t warp = here.thread.x / LANES;
    for (uint32_t n = 0; n < warps; ++n) {
        if (warps_[warp].ready != 0) return warp * LANES + uint32_t(__builtin_ctz(warps_[warp].ready));
        if (++warp == warps) warp = 0;
    }
    return NOBODY;
}

void Worker::go_on_elsewhere() {
    Context& from = threads_[here.thread.x].context;
    const uint32_t next = next_ready();
    if (next == NOBODY) report_stuck();
    go_to(next, from, false);
}

void Worker::barrier(Site site) {
    const uint32_t me = here.thread.x;
    if (arrived_ == 0) {
        barrier_ = site;
        first_at_barrier_ = me;
    } else if (!same(barrier_, site)) {
        fail(me, "waits at __syncthreads in %s:%u, where thread %u waits at the one in %s:%u", file_of(site), site.line,
             first_at_barrier_, file_of(barrier_), barrier_.line);
    }
    threads_[me].meeting = Meeting::syncthreads;
    threads_[me].site = site;
    if (++arrived_ == launch_->threads) {
        arrived_ = 0;
        for (Warp& warp : warps_) warp.ready = EVERY_LANE;
        if (launch_->checked) shadow_.barrier();
        return;
    }
    warps_[me / LANES].ready &= ~(1u << me % LANES);
    go_on_elsewhere();
}

uint64_t Worker::meet(Meeting meeting, uint32_t mask, uint64_t value, uint32_t source, Site site) {
    const uint32_t me = here.thread.x, lane = me % LANES;
    if ((mask >> lane & 1) == 0) {
        fail(me, "calls %s in %s:%u with the mask 0x%08x, which lacks its own lane %u", name_of(meeting), file_of(site), site.line,
             mask, lane);
    }
    if (meeting == Meeting::shuffle && (mask >> source & 1) == 0) {
        fail(me, "takes a value of lane %u in %s:%u, which the mask 0x%08x lacks", source, file_of(site), site.line, mask);
    }
    Thread& thread = threads_[me];
    thread.meeting = meeting;
    thread.site = site;
    thread.mask = mask;
    thread.source = source;
    thread.value = value;
    Warp& warp = warps_[me / LANES];
    warp.meeting |= 1u << lane;
    if ((warp.meeting & mask) == mask && complete(me / LANES, thread)) return thread.result;
    warp.ready &= ~(1u << lane);
    go_on_elsewhere();
    return thread.result;
}

/// Gives the lanes of a meeting their results, at once for all of them: one that goes on overwrites its value at its next meeting.
/// False where some wait at another one.
bool Worker::complete(uint32_t warp, const Thread& last) {
    Thread* lanes = &threads_[warp * LANES];
    const uint32_t mask = last.mask;
    uint64_t votes = 0;
    for (uint32_t left = mask; left != 0; left &= left - 1) {
        const uint32_t lane = uint32_t(__builtin_ctz(left));
        const Thread& other = lanes[lane];
        if (other.meeting != last.meeting || other.mask != mask) return false;
        // Lanes may meet at any __syncwarp, but not at different shuffles.
        if (last.meeting != Meeting::syncwarp && !same(other.site, last.site)) return false;
        votes |= uint64_t(other.value != 0) << lane;
    }
    if (last.meeting == Meeting::product) {
        const Product* products[LANES];
        for (uint32_t lane = 0; lane < LANES; ++lane) products[lane] = reinterpret_cast<const Product*>(lanes[lane].value);
        multiply_warp(products);
        warps_[warp].meeting = 0;
        warps_[warp].ready = EVERY_LANE;
        return true; // which orders no memory
    }
    for (uint32_t left = mask; left != 0; left &= left - 1) {
        Thread& lane = lanes[__builtin_ctz(left)];
        lane.result = last.meeting == Meeting::vote ? votes : lanes[lane.source].value;
    }
    warps_[warp].meeting &= ~mask;
    warps_[warp].ready |= mask;
    if (launch_->checked && (SHUFFLES_ORDER || last.meeting == Meeting::syncwarp)) shadow_.meeting(warp, mask);
    return true;
}

Stack* Worker::take_stack() {
    if (free_.empty()) {
        auto stack = std::make_unique<Stack>();
        if (!stack->map()) fail(here.thread.x, "no memory for the stack of a thread");
        free_.push_back(stack.get());
        stacks_.push_back(std::move(stack));
    }
    Stack* stack = free_.back();
    free_.pop_back();
    stack->clean();
    return stack;
}

const Array* Worker::array(const void* tag, const char* name, size_t bytes) {
    for (const Array& array : arrays_) {
        if (array.tag == tag) return &array;
    }
    if (arrays_.size() == ARRAYS) fail(here.thread.x, "more than %zu shared arrays", ARRAYS);
    asked_ += bytes;
    if (asked_ > SHARED_LIMIT || (tag != nullptr && asked_ - launch_->shared > STATIC_LIMIT)) {
        fail(here.thread.x, "shared array %s: %zu bytes with those before it, of which %u are dynamic; the limits are %zu in all, "
             "%zu static", name, asked_, launch_->shared, SHARED_LIMIT, STATIC_LIMIT);
    }
    unsigned char* begin = shared_ + used_;
    used_ += (bytes + GAP + 15) / 16 * 16;
#ifdef PULLBACK_ASAN
    __asan_unpoison_memory_region(begin, bytes);
    __asan_poison_memory_region(begin + (bytes + 7) / 8 * 8, GAP - 8);
#endif
    memset(begin, 0xff, bytes); // NaNs; what a block finds does not depend on the one before it
    arrays_.push_back({tag, name, begin, bytes});
    return &arrays_.back();
}

const Array* Worker::dynamic_array(const char* name) {
    arrays_.front().name = name;
    return &arrays_.front();
}

void Worker::check_access(uint32_t me, const Array& array, uintptr_t at, size_t bytes, size_t element, Access access,
                          uint32_t arrivals, uint32_t phase) {
    const uintptr_t begin = reinterpret_cast<uintptr_t>(array.begin);
    const int64_t offset = int64_t(at - begin), index = offset / int64_t(element);
    const bool reads = access == Access::read || access == Access::product;
    const char* verb = access == Access::bulk_copy ? "copies to" : reads ? "reads" : "writes";
    if (offset < 0 || size_t(offset) + bytes > array.bytes) {
        fail(me, "%s %s[%lld], a shared array of %zu", verb, array.name, (long long)index, array.bytes / element);
    }
    if (bytes != element && at % (bytes < 16 ? bytes : 16) != 0) {
        fail(me, "%s %zu bytes at once at %s[%lld], which is not aligned to them", verb, bytes, array.name, (long long)index);
    }
    const Finding found = shadow_.access(me, size_t(array.begin - shared_) + size_t(offset), bytes, access, arrivals, phase);
    if (found.flaw == Flaw::none) return;
    char other[64];
    if (found.thread < launch_->threads) {
        snprintf(other, sizeof other, "thread %u", found.thread);
    } else {
        name_shared(other, sizeof other, arrivals_[found.thread - launch_->threads].at, sizeof(uint64_t));
    }
    char what[160];
    snprintf(what, sizeof what, "%s %s[%lld] in shared memory", verb, array.name, (long long)index);
    switch (found.flaw) {
    case Flaw::none: return;
    case Flaw::unwritten: fail(me, "%s, which no thread has written yet", what);
    case Flaw::after_write:
        if (found.thread < launch_->threads) fail(me, "%s, which %s wrote, with no barrier between them", what, other);
        fail(me, "%s, which a bulk copy writes, without awaiting %s", what, other);
    case Flaw::after_read: fail(me, "%s, which %s read, with no barrier between them", what, other);
    case Flaw::in_flight: fail(me, "%s, which a copy of %s writes that was not waited for", what, other);
    case Flaw::unfenced: fail(me, "%s in a matrix product, which %s wrote without a fence_async after it", what, other);
    }
}

void Worker::fail_with(uint32_t thread, const char* format, va_list arguments) {
    failed_ = true;
    fault_->thread = thread;
    vsnprintf(fault_->what, sizeof fault_->what, format, arguments);
    threads_[here.thread.x].context.go(main_, true);
    __builtin_unreachable();
}

void Worker::fail(uint32_t thread, const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fail_with(thread, format, arguments);
}

void Worker::describe(char* text, size_t room, uint32_t thread) const {
    const Thread& it = threads_[thread];
    if (warps_[thread / LANES].finished >> thread % LANES & 1) {
        snprintf(text, room, "thread %u has ended", thread);
    } else {
        snprintf(text, room, "thread %u waits at %s in %s:%u", thread, name_of(it.meeting), file_of(it.site), it.site.line);
    }
}

/// Nobody can go on: some thread waits for one that does not come.
void Worker::report_stuck() {
    char other[200];
    for (const Arrivals& at : arrivals_) report_stuck_arrivals(at);
    // Lanes that wait for their warp tell more than the barrier that the rest of the block waits at because of them.
    for (uint32_t thread = 0; thread < launch_->threads; ++thread) {
        const Warp& warp = warps_[thread / LANES];
        if ((warp.meeting >> thread % LANES & 1) == 0) continue;
        const Thread& it = threads_[thread];
        uint32_t missing = 0;
        for (uint32_t lane = 0; lane < LANES; ++lane) {
            const Thread& peer = threads_[thread / LANES * LANES + lane];
            const bool comes = (warp.meeting >> lane & 1) != 0 && peer.meeting == it.meeting && peer.mask == it.mask &&
                               (it.meeting == Meeting::syncwarp || same(peer.site, it.site));
            if ((it.mask >> lane & 1) != 0 && !comes) missing |= 1u << lane;
        }
        const uint32_t lane = missing == 0 ? 0 : uint32_t(__builtin_ctz(missing));
        describe(other, sizeof other, thread / LANES * LANES + lane);
        fail(thread, "waits at %s in %s:%u with the mask 0x%08x, to which the lanes 0x%08x never come: %s", name_of(it.meeting),
             file_of(it.site), it.site.line, it.mask, missing, other);
    }
    for (const Gathering& at : groups_) report_stuck_gathering(at, "a warpgroup's product");
    for (const Gathering& at : named_) report_stuck_gathering(at, "meet_warps");
    uint32_t absent = 0;
    while (absent + 1 < launch_->threads && (warps_[absent / LANES].finished >> absent % LANES & 1) == 0) ++absent;
    describe(other, sizeof other, absent);
    fail(first_at_barrier_, "waits at __syncthreads in %s:%u, to which %u of %u threads never come: %s", file_of(barrier_),
         barrier_.line, launch_->threads - arrived_, launch_->threads, other);
}

void barrier(Site site) { current->barrier(site); }
uint64_t meet(Meeting meeting, uint32_t mask, uint64_t value, uint32_t source, Site site) {
    return current->meet(meeting, mask, value, source, site);
}
void multiply(const Product& product, Site site) {
    current->meet(Meeting::product, EVERY_LANE, reinterpret_cast<uintptr_t>(&product), 0, site);
}
const Array* static_array(const void* tag, const char* name, size_t bytes) { return current->array(tag, name, bytes); }
const Array* dynamic_array(const char* name) { return current->dynamic_array(name); }
void check_access(const Array* array, uintptr_t at, size_t bytes, size_t element, bool write) {
    current->check_access(*array, at, bytes, element, write);
}
void fault(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    current->fail_with(here.thread.x, format, arguments);
}

} // namespace emulator
