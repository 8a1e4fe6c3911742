// Copies in the background, barriers of parts of a block, and products of warpgroups; see ../tensor.cuh.
//
// A thread's own copies happen when it waits for them, bulk copies when somebody waits for the phase that they belong to and would
// otherwise have to: who reads too early finds what was there before.
#include <cstdio>
#include <cstring>

#include "block.hpp"
#include "product.hpp"

namespace emulator {

void Worker::begin_pipeline() {
    for (Gathering& at : named_) at.arrived = 0, at.lanes = {};
    for (Gathering& at : groups_) at.arrived = 0, at.lanes = {};
    arrivals_.clear();
    reads_.resize(MAX_WARPS);
    for (Reads& reads : reads_) reads.cores.clear(), reads.groups = 0;
    if (copying_) {
        for (Thread& thread : threads_) thread.copies.clear();
        copying_ = false;
    }
}

void Worker::end_block() {
    char name[64];
    for (const Arrivals& at : arrivals_) {
        name_shared(name, sizeof name, at.at, sizeof(uint64_t));
        if (!at.copies.empty()) fail(here.thread.x, "ends the block while bulk copies that %s counts are on their way", name);
    }
}

/// The array and the index of an address.
void Worker::name_shared(char* text, size_t room, uintptr_t at, size_t element) const {
    for (const Array& array : arrays_) {
        const uintptr_t begin = reinterpret_cast<uintptr_t>(array.begin);
        if (at < begin || at >= begin + array.bytes) continue;
        snprintf(text, room, "%s[%zu]", array.name, (at - begin) / element);
        return;
    }
    snprintf(text, room, "an address outside of shared memory");
}

/// Waits for the others unless this thread is the last, who has to wake them.
bool Worker::gather(Gathering& at, Meeting meeting, uint32_t threads, Site site) {
    const uint32_t me = here.thread.x;
    if (at.arrived == 0) {
        at.threads = threads;
        at.first = me;
        at.site = site;
    }
    Thread& thread = threads_[me];
    thread.meeting = meeting;
    thread.site = site;
    at.lanes[me / LANES] |= 1u << me % LANES;
    if (++at.arrived == threads) return true;
    warps_[me / LANES].ready &= ~(1u << me % LANES);
    go_on_elsewhere();
    return false;
}

void Worker::wake(const Lanes& lanes) {
    for (uint32_t warp = 0; warp < launch_->threads / LANES; ++warp) warps_[warp].ready |= lanes[warp];
}

void Worker::meet_warps(uint32_t id, uint32_t threads, Site site) {
    const uint32_t me = here.thread.x;
    if (id == 0 || id >= named_.size() || threads == 0 || threads % LANES != 0 || threads > launch_->threads) {
        fail(me, "calls meet_warps(%u, %u) in %s:%u: expected a number of 1 to 15, and whole warps of the block", id, threads,
             file_of(site), site.line);
    }
    Gathering& at = named_[id];
    if (at.arrived > 0 && at.threads != threads) {
        fail(me, "calls meet_warps(%u, %u) in %s:%u, where thread %u waits for %u threads in %s:%u", id, threads, file_of(site),
             site.line, at.first, at.threads, file_of(at.site), at.site.line);
    }
    if (!gather(at, Meeting::warps, threads, site)) return;
    Row row;
    for (uint32_t warp = 0; warp < launch_->threads / LANES; ++warp) {
        if (at.lanes[warp] != 0 && at.lanes[warp] != EVERY_LANE) {
            fail(me, "calls meet_warps(%u, %u) in %s:%u, which then has only the lanes 0x%08x of warp %u", id, threads, file_of(site),
                 site.line, at.lanes[warp], warp);
        }
    }
    if (launch_->checked) {
        for (uint32_t thread = 0; thread < launch_->threads; ++thread) {
            if (at.lanes[thread / LANES] != 0) shadow_.release(thread, row);
        }
        for (uint32_t thread = 0; thread < launch_->threads; ++thread) {
            if (at.lanes[thread / LANES] != 0) shadow_.acquire(thread, row);
        }
    }
    wake(at.lanes);
    at.arrived = 0;
    at.lanes = {};
}

void Worker::multiply_group(const GroupProduct& product, Site site) {
    constexpr uint32_t GROUP = 128;
    const uint32_t me = here.thread.x, first = me / GROUP * GROUP;
    if (first + GROUP > launch_->threads) {
        fail(me, "calls a warpgroup's product in %s:%u, but its group has only %u threads", file_of(site), site.line,
             launch_->threads - first);
    }
    Gathering& at = groups_[me / GROUP];
    threads_[me].value = reinterpret_cast<uintptr_t>(&product);
    if (at.arrived > 0 && !same(at.site, site)) {
        fail(me, "calls a warpgroup's product in %s:%u, where thread %u of its group waits at the one in %s:%u", file_of(site), site.line,
             at.first, file_of(at.site), at.site.line);
    }
    if (!gather(at, Meeting::group_product, GROUP, site)) return;
    const GroupProduct* products[GROUP];
    for (uint32_t i = 0; i < GROUP; ++i) {
        const GroupProduct& other = *reinterpret_cast<const GroupProduct*>(threads_[first + i].value);
        products[i] = &other;
        if (other.b.place.at != product.b.place.at || other.b.k_stride != product.b.k_stride || other.b.n_stride != product.b.n_stride ||
            other.accumulate != product.accumulate) {
            fail(me, "calls a warpgroup's product in %s:%u with other arguments than thread %u", file_of(site), site.line, first + i);
        }
    }
    const Cores b = product.b;
    if ((b.place.at | b.k_stride | b.n_stride) % 16 != 0) {
        fail(me, "calls a warpgroup's product in %s:%u of a matrix that is not aligned to 16 bytes", file_of(site), site.line);
    }
    const uintptr_t low = reinterpret_cast<uintptr_t>(shared_);
    if (b.place.at < low || b.place.at + b.k_stride + 7 * uintptr_t(b.n_stride) + 128 > low + used_) {
        fail(me, "calls a warpgroup's product in %s:%u of a matrix outside of shared memory", file_of(site), site.line);
    }
    if (launch_->checked) {
        // A warp reads as its first lane.
        for (uint32_t thread = first; thread < first + GROUP; thread += LANES) {
            check_cores(thread, b);
            reads_[thread / LANES].cores.emplace_back(b, reads_[thread / LANES].groups);
        }
    }
    ::emulator::multiply_group(products);
    wake(at.lanes);
    at.arrived = 0;
    at.lanes = {};
}

void Worker::check_cores(uint32_t thread, const Cores& cores) {
    for (uint32_t k = 0; k < 2; ++k) {
        for (uint32_t n = 0; n < 8; ++n) {
            const uintptr_t at = cores.place.at + k * cores.k_stride + n * cores.n_stride;
            check_access(thread, *cores.place.array, at, 128, sizeof(float), Access::product);
        }
    }
}

void Worker::commit_products() {
    const uint32_t me = here.thread.x;
    if (me % LANES == 0) ++reads_[me / LANES].groups;
}

/// What is over was read up to now: if somebody released it before, a write may have come in between.
void Worker::wait_products(uint32_t pending) {
    const uint32_t me = here.thread.x;
    if (me % LANES != 0) return;
    Reads& reads = reads_[me / LANES];
    size_t over = 0;
    while (over < reads.cores.size() && reads.cores[over].second + pending < reads.groups) check_cores(me, reads.cores[over++].first);
    reads.cores.erase(reads.cores.begin(), reads.cores.begin() + std::ptrdiff_t(over));
}

/// Both ends have to be aligned, and the destination inside of the block's shared memory.
void Worker::check_copy(const char* what, Place to, const void* from, size_t bytes, Site site) {
    const uint32_t me = here.thread.x;
    if ((to.at | reinterpret_cast<uintptr_t>(from) | bytes) % 16 != 0) {
        fail(me, "calls %s in %s:%u with an address or a size that is no multiple of 16 bytes", what, file_of(site), site.line);
    }
    const uintptr_t begin = reinterpret_cast<uintptr_t>(shared_);
    if (to.array == nullptr && (to.at < begin || to.at + bytes > begin + used_)) {
        fail(me, "calls %s in %s:%u to an address outside of shared memory", what, file_of(site), site.line);
    }
}

void Worker::copy_async(Place to, const float* from, Site site) {
    const uint32_t me = here.thread.x;
    check_copy("copy_async", to, from, 16, site);
    if (launch_->checked) check_access(me, *to.array, to.at, 16, sizeof(float), Access::begin_copy);
    Thread& thread = threads_[me];
    if (thread.copies.empty()) thread.groups = 0;
    thread.copies.push_back({to, from, 16, thread.groups});
    copying_ = true;
}

void Worker::commit_copies() { ++threads_[here.thread.x].groups; }

void Worker::wait_copies(uint32_t pending) {
    const uint32_t me = here.thread.x;
    Thread& thread = threads_[me];
    size_t over = 0;
    for (; over < thread.copies.size() && thread.copies[over].group + pending < thread.groups; ++over) {
        const Copy& copy = thread.copies[over];
        if (launch_->checked) check_access(me, *copy.to.array, copy.to.at, copy.bytes, sizeof(float), Access::end_copy);
        memcpy(reinterpret_cast<void*>(copy.to.at), copy.from, copy.bytes);
    }
    thread.copies.erase(thread.copies.begin(), thread.copies.begin() + std::ptrdiff_t(over));
}

void Worker::init_arrivals(Place barrier, uint32_t arrivals, Site site) {
    const uint32_t me = here.thread.x;
    if (launch_->checked) check_access(me, *barrier.array, barrier.at, sizeof(uint64_t), sizeof(uint64_t), Access::write);
    if (arrivals == 0 || arrivals >= 1u << 20) {
        fail(me, "calls init_arrivals in %s:%u with %u arrivals", file_of(site), site.line, arrivals);
    }
    for (const Arrivals& at : arrivals_) {
        if (at.at == barrier.at) fail(me, "calls init_arrivals in %s:%u a second time", file_of(site), site.line);
    }
    if (arrivals_.size() == MAX_ARRIVALS) fail(me, "more than %u mbarriers", MAX_ARRIVALS);
    arrivals_.push_back({barrier.at, arrivals, arrivals, 0, 0, {}, {}, 0, {}, {}});
}

Worker::Arrivals& Worker::arrivals(Place barrier, const char* what, Site site) {
    const uint32_t me = here.thread.x;
    for (Arrivals& at : arrivals_) {
        if (at.at != barrier.at) continue;
        if (launch_->checked) check_access(me, *barrier.array, barrier.at, sizeof(uint64_t), sizeof(uint64_t), Access::read);
        return at;
    }
    fail(me, "calls %s in %s:%u on a barrier without init_arrivals", what, file_of(site), site.line);
}

void Worker::arrive(Place barrier, uint32_t bytes, Site site) {
    const uint32_t me = here.thread.x;
    Arrivals& at = arrivals(barrier, bytes == 0 ? "arrive" : "arrive_expecting", site);
    if (at.missing == 0) {
        char name[64];
        name_shared(name, sizeof name, at.at, sizeof(uint64_t));
        fail(me, "arrives at %s in %s:%u, where all %u arrivals of phase %u have come and its copies have not", name, file_of(site),
             site.line, at.count, at.phase);
    }
    at.bytes += bytes;
    if (launch_->checked) shadow_.release(me, at.now);
    --at.missing;
    settle(at);
}

/// Ends the phase where that is due. Its copies are done only for somebody who waits.
void Worker::settle(Arrivals& at) {
    if (at.waiters > 0) {
        for (const Copy& copy : at.copies) {
            memcpy(reinterpret_cast<void*>(copy.to.at), copy.from, copy.bytes);
            at.bytes -= copy.bytes;
        }
        at.copies.clear();
    }
    if (at.missing > 0 || at.bytes != 0 || !at.copies.empty()) return;
    ++at.phase;
    at.missing = at.count;
    if (launch_->checked) {
        shadow_.release_copies(uint32_t(&at - arrivals_.data()), at.phase, at.now);
        at.over = at.now; // which was made from what was over before
        for (uint32_t thread = 0; thread < launch_->threads && at.waiters > 0; ++thread) {
            if (at.waiting[thread / LANES] >> thread % LANES & 1) shadow_.acquire(thread, at.over);
        }
    }
    wake(at.waiting);
    at.waiting = {};
    at.waiters = 0;
}

void Worker::await_arrivals(Place barrier, uint32_t parity, Site site) {
    const uint32_t me = here.thread.x;
    Arrivals& at = arrivals(barrier, "await_arrivals", site);
    const size_t index = size_t(&at - arrivals_.data());
    if ((at.phase & 1) == (parity & 1)) {
        Thread& thread = threads_[me];
        thread.meeting = Meeting::arrivals;
        thread.site = site;
        thread.value = index;
        at.waiting[me / LANES] |= 1u << me % LANES;
        ++at.waiters;
        const uint32_t phase = at.phase;
        settle(at);
        if (at.phase != phase) return;
        warps_[me / LANES].ready &= ~(1u << me % LANES);
        go_on_elsewhere();
    } else if (launch_->checked) {
        shadow_.acquire(me, at.over);
    }
}

void Worker::copy_bulk(Place to, const float* from, uint32_t bytes, Place barrier, Site site) {
    const uint32_t me = here.thread.x;
    Arrivals& at = arrivals(barrier, "copy_bulk", site);
    check_copy("copy_bulk", to, from, bytes, site);
    if (launch_->checked && bytes > 0) {
        check_access(me, *to.array, to.at, bytes, sizeof(float), Access::bulk_copy, uint32_t(&at - arrivals_.data()), at.phase + 1);
    }
    at.copies.push_back({to, from, bytes, 0});
    if (at.waiters > 0) settle(at);
}

void Worker::fence_async() { shadow_.fence(here.thread.x); }

/// What every thread waits at, threads that wait at the same together.
void Worker::tell_states(char* text, size_t room) const {
    const auto ended = [this](uint32_t thread) { return (warps_[thread / LANES].finished >> thread % LANES & 1) != 0; };
    const auto alike = [&](uint32_t a, uint32_t b) {
        if (ended(a) || ended(b)) return ended(a) && ended(b);
        const Thread &one = threads_[a], &other = threads_[b];
        return one.meeting == other.meeting && same(one.site, other.site) &&
               (one.meeting != Meeting::arrivals || one.value == other.value);
    };
    size_t used = 0;
    const auto tell = [&](const char* format, auto... arguments) {
        if (used < room) used += size_t(snprintf(text + used, room - used, format, arguments...));
    };
    for (uint32_t first = 0, end; first < launch_->threads; first = end) {
        end = first + 1;
        while (end < launch_->threads && alike(first, end)) ++end;
        tell(end - first == 1 ? "%sthread %u" : "%sthreads %u to %u", first == 0 ? "" : "; ", first, end - 1);
        const Thread& it = threads_[first];
        if (ended(first)) {
            tell(end - first == 1 ? " has ended" : " have ended");
            continue;
        }
        tell(": %s in %s:%u", name_of(it.meeting), file_of(it.site), it.site.line);
        if (it.meeting != Meeting::arrivals) continue;
        const Arrivals& at = arrivals_[it.value];
        char name[64];
        name_shared(name, sizeof name, at.at, sizeof(uint64_t));
        tell(" (phase %u of %s lacks %u of %u arrivals and %lld bytes)", at.phase, name, at.missing, at.count, (long long)at.bytes);
    }
}

void Worker::report_stuck_gathering(const Gathering& at, const char* name) {
    if (at.arrived == 0) return;
    char states[400];
    tell_states(states, sizeof states);
    fail(at.first, "waits at %s in %s:%u, to which %u of %u threads never come. Of all, %s", name, file_of(at.site), at.site.line,
         at.threads - at.arrived, at.threads, states);
}

void Worker::report_stuck_arrivals(const Arrivals& at) {
    if (at.waiters == 0) return;
    uint32_t first = 0;
    while ((at.waiting[first / LANES] >> first % LANES & 1) == 0) ++first;
    char states[400];
    tell_states(states, sizeof states);
    const Site site = threads_[first].site;
    fail(first, "waits at await_arrivals in %s:%u, and nobody can go on. Of all, %s", file_of(site), site.line, states);
}

void multiply_group(const GroupProduct& product, Site site) { current->multiply_group(product, site); }
void commit_products() { current->commit_products(); }
void wait_products(uint32_t pending) { current->wait_products(pending); }
void copy_async(Place to, const float* from, Site site) { current->copy_async(to, from, site); }
void commit_copies() { current->commit_copies(); }
void wait_copies(uint32_t pending) { current->wait_copies(pending); }
void meet_warps(uint32_t id, uint32_t threads, Site site) { current->meet_warps(id, threads, site); }
void init_arrivals(Place barrier, uint32_t arrivals, Site site) { current->init_arrivals(barrier, arrivals, site); }
void arrive(Place barrier, uint32_t bytes, Site site) { current->arrive(barrier, bytes, site); }
void await_arrivals(Place barrier, uint32_t parity, Site site) { current->await_arrivals(barrier, parity, site); }
void copy_bulk(Place to, const float* from, uint32_t bytes, Place barrier, Site site) {
    current->copy_bulk(to, from, bytes, barrier, site);
}
void fence_async() { current->fence_async(); }

} // namespace emulator
