// Who touched which word of shared memory, to find races and reads of words never written.
//
// Two accesses of one word race where at least one writes and nothing orders them. A barrier orders everything before it, so words
// remember the epoch (the number of barriers passed) of their accesses. Inside an epoch, meetings order the lanes of one warp: each
// lane has a clock, the number of its last meeting, and knows up to which clock it has met each of the others.
//
// Named barriers and mbarriers order threads of different warps. Once a block uses them, each thread has a row besides: the clocks up
// to which it is ordered after every other thread, and after the bulk copies that count on each mbarrier. These count as written by a
// thread of their own, whose clock is the number of the mbarrier's phase; who has not awaited that phase knows nothing of it.
#pragma once

#include <algorithm>
#include <array>
#include <vector>

#include "runtime.hpp"

namespace emulator {

constexpr uint32_t LANES = 32;
constexpr uint32_t EVERY_LANE = 0xffffffffu;

/// CUDA promises that __syncwarp orders memory, and does not promise it of shuffles and votes. Kernels here may rely on it for these,
/// too, as all hardware so far lets them.
constexpr bool SHUFFLES_ORDER = true;

struct Clocks {
    uint32_t own;
    std::array<uint32_t, LANES> met;
};

/// mbarriers of a block; each stands for a thread that writes what bulk copies bring.
constexpr uint32_t MAX_ARRIVALS = 64;

/// A clock of every thread and of the copies of every mbarrier: what `release` gives to `acquire`.
using Row = std::vector<uint32_t>;

enum class Access {
    read,
    write,
    product,    // read by a matrix instruction
    begin_copy, // by this thread in the background: until `end_copy` nobody may touch it
    end_copy,
    bulk_copy,
};

/// What is wrong with an access.
enum class Flaw { none, unwritten, after_write, after_read, in_flight, unfenced };
struct Finding {
    Flaw flaw;
    uint32_t thread; // the other one; from the number of threads on, a bulk copy
};

class Shadow {
  public:
    /// For a block of so many threads and so much shared memory.
    void begin(uint32_t threads, size_t bytes) {
        if (epoch_ > 0xf0000000u) {
            words_.clear();
            split_.clear();
            epoch_ = 0;
        }
        first_epoch_ = ++epoch_;
        threads_ = threads;
        crossed_ = false;
        clocks_.assign(threads, Clocks{1, {}});
        meetings_.assign(threads / LANES, 1);
        fenced_.assign(threads, 0);
        const size_t words = (bytes + 3) / 4;
        if (words_.size() < words) {
            words_.resize(words);
            split_.resize(words);
        }
    }

    void barrier() {
        ++epoch_;
        if (!crossed_) return;
        // Of copies the epoch says nothing.
        Row copies(MAX_ARRIVALS, 0);
        for (const Row& row : rows_) join(copies.data(), row.data() + threads_, MAX_ARRIVALS);
        for (Row& row : rows_) std::copy(copies.begin(), copies.end(), row.begin() + threads_);
    }

    /// Who acquires `row` later is ordered after everything that the thread did so far, and was ordered after.
    void release(uint32_t thread, Row& row) {
        cross();
        row.resize(threads_ + MAX_ARRIVALS);
        Clocks& clocks = clocks_[thread];
        const uint32_t warp = thread / LANES * LANES;
        join(row.data(), rows_[thread].data(), row.size());
        join(row.data() + warp, clocks.met.data(), LANES);
        row[thread] = std::max(row[thread], clocks.own);
        tick(thread);
    }

    void acquire(uint32_t thread, const Row& row) {
        if (row.empty()) return;
        cross();
        join(rows_[thread].data(), row.data(), row.size());
        join(clocks_[thread].met.data(), row.data() + thread / LANES * LANES, LANES);
    }

    /// Who acquires `row` is ordered after the bulk copies of a phase of an mbarrier, numbered from 1.
    void release_copies(uint32_t arrivals, uint32_t phase, Row& row) const {
        row.resize(threads_ + MAX_ARRIVALS);
        row[threads_ + arrivals] = phase;
    }

    /// What the thread wrote so far may be read by matrix instructions.
    void fence(uint32_t thread) {
        fenced_[thread] = clocks_[thread].own;
        tick(thread);
    }

    /// Lanes of a warp have met.
    void meeting(uint32_t warp, uint32_t mask) {
        Clocks* lanes = &clocks_[warp * LANES];
        std::array<uint32_t, LANES> met{};
        for (uint32_t lane = 0; lane < LANES; ++lane) {
            if ((mask >> lane & 1) == 0) continue;
            for (uint32_t i = 0; i < LANES; ++i) met[i] = std::max(met[i], lanes[lane].met[i]);
            met[lane] = std::max(met[lane], lanes[lane].own);
        }
        const uint32_t now = ++meetings_[warp];
        for (uint32_t lane = 0; lane < LANES; ++lane) {
            if (mask >> lane & 1) lanes[lane] = {now, met};
        }
        if (!crossed_) return;
        Row row(threads_ + MAX_ARRIVALS, 0);
        for (uint32_t lane = 0; lane < LANES; ++lane) {
            if (mask >> lane & 1) join(row.data(), rows_[warp * LANES + lane].data(), row.size());
        }
        for (uint32_t lane = 0; lane < LANES; ++lane) {
            if (mask >> lane & 1) rows_[warp * LANES + lane] = row;
        }
    }

    /// An access of the thread, or of a bulk copy that it starts for a phase, numbered from 1, of an mbarrier.
    Finding access(uint32_t thread, size_t offset, size_t bytes, Access access, uint32_t arrivals = 0, uint32_t phase = 0) {
        const Copier copier{threads_ + arrivals, phase};
        const size_t end = offset + bytes;
        for (size_t word = offset / 4; word * 4 < end; ++word) {
            const bool whole = word * 4 >= offset && word * 4 + 4 <= end;
            if (!whole && split_[word] < first_epoch_) split(word);
            if (split_[word] < first_epoch_) {
                const Finding found = touch(words_[word], thread, access, copier);
                if (found.flaw != Flaw::none) return found;
                continue;
            }
            for (size_t byte = std::max(offset, word * 4); byte < std::min(end, word * 4 + 4); ++byte) {
                const Finding found = touch(bytes_[byte], thread, access, copier);
                if (found.flaw != Flaw::none) return found;
            }
        }
        return {Flaw::none, 0};
    }

  private:
    /// Lanes of one warp that read at one clock.
    struct Readers {
        uint32_t warp, clock, lanes;
    };

    /// The last write, and the reads since then in the same epoch. Two warps of readers, the first and the last, are enough to find
    /// any writer of a third that only a barrier of the block could order; of the readers of one warp those of its last clock are kept,
    /// since they are ordered after the others wherever all lanes meet.
    struct Cell {
        uint32_t write_epoch, write_clock;
        uint32_t writer : 31, in_flight : 1;
        uint32_t read_epoch;
        Readers readers[2];
    };

    /// From now on in this block the word's bytes are watched one by one.
    void split(size_t word) {
        if (bytes_.size() < words_.size() * 4) bytes_.resize(words_.size() * 4);
        std::fill_n(&bytes_[word * 4], 4, words_[word]);
        split_[word] = first_epoch_;
    }

    struct Copier {
        uint32_t thread, clock;
    };

    static void join(uint32_t* into, const uint32_t* from, size_t count) {
        for (size_t i = 0; i < count; ++i) into[i] = std::max(into[i], from[i]);
    }

    void cross() {
        if (crossed_) return;
        crossed_ = true;
        rows_.resize(std::max(rows_.size(), size_t(threads_)));
        for (uint32_t thread = 0; thread < threads_; ++thread) rows_[thread].assign(threads_ + MAX_ARRIVALS, 0);
    }

    /// What the thread does from now on is not what it did before.
    void tick(uint32_t thread) {
        uint32_t& own = clocks_[thread].own;
        ++own;
        meetings_[thread / LANES] = std::max(meetings_[thread / LANES], own);
    }

    /// Whether the thread is ordered after what the other one did at that clock.
    bool knows(uint32_t thread, uint32_t other, uint32_t clock) const {
        if (other / LANES == thread / LANES) return other == thread || clock <= clocks_[thread].met[other % LANES];
        return crossed_ && clock <= rows_[thread][other];
    }

    Finding touch(Cell& cell, uint32_t thread, Access access, Copier copier) {
        const bool reads = access == Access::read || access == Access::product;
        if (cell.write_epoch < first_epoch_) {
            if (reads) return {Flaw::unwritten, 0};
        } else {
            const uint32_t writer = cell.writer;
            if (cell.in_flight && !(access == Access::end_copy && writer == thread)) return {Flaw::in_flight, writer};
            if ((cell.write_epoch == epoch_ || writer >= threads_) && !knows(thread, writer, cell.write_clock)) {
                return {Flaw::after_write, writer};
            }
            if (access == Access::product && writer < threads_ && fenced_[writer] < cell.write_clock) return {Flaw::unfenced, writer};
        }
        const uint32_t warp = thread / LANES, lane = thread % LANES;
        if (cell.read_epoch != epoch_) {
            cell.read_epoch = epoch_;
            cell.readers[0].lanes = cell.readers[1].lanes = 0;
        }
        if (reads) {
            note_read(cell, warp, lane, clocks_[thread].own);
            return {Flaw::none, 0};
        }
        for (const Readers& readers : cell.readers) {
            for (uint32_t left = readers.lanes; left != 0; left &= left - 1) {
                const uint32_t other = readers.warp * LANES + uint32_t(__builtin_ctz(left));
                if (!knows(thread, other, readers.clock)) return {Flaw::after_read, other};
            }
        }
        cell.readers[0].lanes = cell.readers[1].lanes = 0; // all of them before this write
        cell.write_epoch = epoch_;
        cell.write_clock = access == Access::bulk_copy ? copier.clock : clocks_[thread].own;
        cell.writer = access == Access::bulk_copy ? copier.thread : thread;
        cell.in_flight = access == Access::begin_copy;
        return {Flaw::none, 0};
    }

    static void note_read(Cell& cell, uint32_t warp, uint32_t lane, uint32_t clock) {
        Readers& first = cell.readers[0];
        Readers& last = cell.readers[1];
        Readers& readers = first.lanes == 0 || first.warp == warp ? first : last;
        if (readers.lanes == 0 || readers.warp != warp || readers.clock < clock) {
            readers = {warp, clock, 1u << lane};
        } else if (readers.clock == clock) {
            readers.lanes |= 1u << lane;
        }
    }

    std::vector<Cell> words_, bytes_;
    std::vector<uint32_t> split_; // the block, as its first epoch, in which the word was split
    std::vector<Clocks> clocks_;
    std::vector<uint32_t> meetings_;
    std::vector<uint32_t> fenced_; // of each thread, the clock of its last fence
    std::vector<Row> rows_;
    bool crossed_ = false; // rows_ are in use
    uint32_t threads_ = 0;
    uint32_t epoch_ = 0, first_epoch_ = 0;
};

} // namespace emulator
