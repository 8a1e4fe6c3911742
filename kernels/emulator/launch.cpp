// Spreads the blocks of a launch over threads of the system; what Rust calls.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

#include "block.hpp"

namespace emulator {
namespace {

/// A launch with fewer threads than this in all is over sooner than another thread of the system wakes up.
constexpr uint64_t SMALL = 1024;

class Job {
  public:
    Job(const Launch& launch, Fault& fault) : launch_(launch), fault_(fault) {}

    /// Runs blocks until none is left or one failed. Blocks are taken in order, so that of all blocks that would fail the first does
    /// in every run, and it is the one reported.
    void work() {
        Fault fault{};
        try {
            Worker& worker = this_worker();
            while (!failed_) {
                const uint64_t block = next_.fetch_add(1);
                if (block >= launch_.blocks) return;
                if (!worker.run(launch_, uint32_t(block), fault)) return report(fault);
            }
        } catch (const std::bad_alloc&) {
            __builtin_snprintf(fault.what, sizeof fault.what, "the emulator ran out of memory");
            report(fault);
        }
    }

    bool failed() const { return failed_; }

  private:
    void report(const Fault& fault) {
        std::lock_guard<std::mutex> lock(mutex_);
        if (!failed_ || fault.block < fault_.block) fault_ = fault;
        failed_ = true;
    }

    const Launch& launch_;
    Fault& fault_;
    std::atomic<uint64_t> next_{0};
    std::atomic<bool> failed_{false};
    std::mutex mutex_;
};

/// Threads that wait for work; one job at a time.
class Pool {
  public:
    /// Never destroyed: its threads may still wait when the process ends.
    static Pool& instance() {
        static Pool& pool = *new Pool;
        return pool;
    }

    /// Works on the job with up to so many threads besides this one; with none while the pool is on another job.
    void run(Job& job, uint32_t helpers) {
        std::unique_lock<std::mutex> turn(turn_, std::try_to_lock);
        if (!turn.owns_lock() || helpers == 0) return job.work();
        {
            std::lock_guard<std::mutex> lock(mutex_);
            while (threads_ < helpers && start()) ++threads_;
            job_ = &job;
            seats_ = std::min(helpers, threads_);
        }
        wake_.notify_all();
        job.work();
        std::unique_lock<std::mutex> lock(mutex_);
        seats_ = 0; // who has not begun need not
        done_.wait(lock, [this] { return busy_ == 0; });
        job_ = nullptr;
    }

  private:
    bool start() {
        try {
            std::thread([this] { help(); }).detach();
            return true;
        } catch (const std::system_error&) {
            return false;
        }
    }

    void help() {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            wake_.wait(lock, [this] { return seats_ > 0; });
            --seats_;
            ++busy_;
            Job* job = job_;
            lock.unlock();
            job->work();
            lock.lock();
            if (--busy_ == 0) done_.notify_all();
        }
    }

    std::mutex turn_, mutex_;
    std::condition_variable wake_, done_;
    Job* job_ = nullptr;
    uint32_t threads_ = 0, seats_ = 0, busy_ = 0;
};

} // namespace
} // namespace emulator

/// False where the kernel failed; then `fault` is filled in.
extern "C" bool pullback_emulator_launch(const emulator::Launch* launch, emulator::Fault* fault) {
    using namespace emulator;
    Job job(*launch, *fault);
    const bool small = uint64_t(launch->blocks) * launch->threads < SMALL;
    const uint32_t workers = small ? 1 : std::min({launch->workers, launch->blocks, 64u});
    Pool::instance().run(job, workers == 0 ? 0 : workers - 1);
    return !job.failed();
}
