// Who touched which word of shared memory, to find races and reads of words never written.
//
// Two accesses of one word race where at least one writes and nothing orders them. A barrier orders everything before it, so words
// remember the epoch (the number of barriers passed) of their accesses. Inside an epoch, meetings order the lanes of one warp: each
// lane has a clock, the number of its last meeting, and knows up to which clock it has met each of the others.
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

/// What is wrong with an access.
enum class Flaw { none, unwritten, after_write, after_read };
struct Finding {
    Flaw flaw;
    uint32_t thread; // the other one
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
        clocks_.assign(threads, Clocks{1, {}});
        meetings_.assign(threads / LANES, 1);
        const size_t words = (bytes + 3) / 4;
        if (words_.size() < words) {
            words_.resize(words);
            split_.resize(words);
        }
    }

    void barrier() { ++epoch_; }

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
    }

    Finding access(uint32_t thread, size_t offset, size_t bytes, bool write) {
        const size_t end = offset + bytes;
        for (size_t word = offset / 4; word * 4 < end; ++word) {
            const bool whole = word * 4 >= offset && word * 4 + 4 <= end;
            if (!whole && split_[word] < first_epoch_) split(word);
            if (split_[word] < first_epoch_) {
                const Finding found = touch(words_[word], thread, write);
                if (found.flaw != Flaw::none) return found;
                continue;
            }
            for (size_t byte = std::max(offset, word * 4); byte < std::min(end, word * 4 + 4); ++byte) {
                const Finding found = touch(bytes_[byte], thread, write);
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

    /// The last write, and the reads since then in the same epoch. Two warps of readers are enough to find any writer of a third;
    /// of the readers of one warp those of its last clock are kept, since they are ordered after the others wherever all lanes meet.
    struct Cell {
        uint32_t write_epoch, write_clock, writer;
        uint32_t read_epoch;
        Readers readers[2];
    };

    /// From now on in this block the word's bytes are watched one by one.
    void split(size_t word) {
        if (bytes_.size() < words_.size() * 4) bytes_.resize(words_.size() * 4);
        std::fill_n(&bytes_[word * 4], 4, words_[word]);
        split_[word] = first_epoch_;
    }

    Finding touch(Cell& cell, uint32_t thread, bool write) {
        const Clocks& clocks = clocks_[thread];
        const uint32_t warp = thread / LANES, lane = thread % LANES;
        if (!write && cell.write_epoch < first_epoch_) return {Flaw::unwritten, 0};
        if (cell.write_epoch == epoch_ && cell.writer != thread &&
            (cell.writer / LANES != warp || cell.write_clock > clocks.met[cell.writer % LANES])) {
            return {Flaw::after_write, cell.writer};
        }
        if (cell.read_epoch != epoch_) {
            cell.read_epoch = epoch_;
            cell.readers[0].lanes = cell.readers[1].lanes = 0;
        }
        if (!write) {
            note_read(cell, warp, lane, clocks.own);
            return {Flaw::none, 0};
        }
        for (const Readers& readers : cell.readers) {
            for (uint32_t left = readers.lanes; left != 0; left &= left - 1) {
                const uint32_t other = uint32_t(__builtin_ctz(left));
                if (readers.warp == warp && (other == lane || readers.clock <= clocks.met[other])) continue;
                return {Flaw::after_read, readers.warp * LANES + other};
            }
        }
        cell.readers[0].lanes = cell.readers[1].lanes = 0; // all of them before this write
        cell.write_epoch = epoch_;
        cell.write_clock = clocks.own;
        cell.writer = thread;
        return {Flaw::none, 0};
    }

    static void note_read(Cell& cell, uint32_t warp, uint32_t lane, uint32_t clock) {
        for (Readers& readers : cell.readers) {
            if (readers.lanes == 0 || (readers.warp == warp && readers.clock < clock)) {
                readers = {warp, clock, 1u << lane};
                return;
            }
            if (readers.warp == warp) {
                if (readers.clock == clock) readers.lanes |= 1u << lane;
                return;
            }
        }
    }

    std::vector<Cell> words_, bytes_;
    std::vector<uint32_t> split_; // the block, as its first epoch, in which the word was split
    std::vector<Clocks> clocks_;
    std::vector<uint32_t> meetings_;
    uint32_t epoch_ = 0, first_epoch_ = 0;
};

} // namespace emulator
