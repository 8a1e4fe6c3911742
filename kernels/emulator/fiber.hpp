// Fibers: stacks, and the switch from one to another. A switch is a call that saves what the calling convention preserves.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include <sys/mman.h>
#include <unistd.h>

#if !defined(__x86_64__) && !defined(__aarch64__)
#define PULLBACK_UCONTEXT
#endif
#ifdef PULLBACK_UCONTEXT
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#define PULLBACK_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PULLBACK_ASAN 1
#endif
#endif
#ifdef PULLBACK_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace emulator {

/// A stack of its own mapping, with a page below it that no access survives.
class Stack {
  public:
    static constexpr size_t BYTES = 256 * 1024;

    Stack() = default;
    Stack(const Stack&) = delete;
    Stack& operator=(const Stack&) = delete;
    ~Stack() {
        if (mapping_ == nullptr) return;
        clean(); // the system may give these addresses to a thread's stack next
        munmap(mapping_, page() + BYTES);
    }

    /// False where the system has no memory for it.
    bool map() {
        void* mapping = mmap(nullptr, page() + BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (mapping == MAP_FAILED) return false;
        mapping_ = static_cast<char*>(mapping);
        return mprotect(mapping_, page(), PROT_NONE) == 0;
    }

    char* low() const { return mapping_ + page(); }

    /// What was left without a return is still poisoned.
    void clean() const {
#ifdef PULLBACK_ASAN
        __asan_unpoison_memory_region(low(), BYTES);
#endif
    }

  private:
    static size_t page() {
        static const size_t bytes = size_t(sysconf(_SC_PAGESIZE));
        return bytes;
    }

    char* mapping_ = nullptr;
};

#ifdef PULLBACK_UCONTEXT
using Saved = ucontext_t;
#else
using Saved = void*; // the stack pointer; the registers are on the stack

extern "C" void pullback_emulator_switch(void** from, void* to) __asm__("pullback_emulator_switch");
#endif

/// Where a fiber, or the thread that runs the fibers, goes on.
struct Context {
    Saved saved{};
    const void* low = nullptr; // of its stack
    size_t bytes = 0;
    void* sanitizer = nullptr;

    /// Makes it begin at `entry`, which must not return. Stacks start at different offsets (`colour`): at the same one, the hot
    /// lines of all of them would share a few sets of the cache.
    void prepare(const Stack& stack, size_t colour, void (*entry)()) {
        low = stack.low();
        bytes = Stack::BYTES;
        sanitizer = nullptr;
        const size_t room = Stack::BYTES - colour * 320 % 4096;
#if defined(PULLBACK_UCONTEXT)
        getcontext(&saved);
        saved.uc_stack.ss_sp = stack.low();
        saved.uc_stack.ss_size = room;
        saved.uc_link = nullptr;
        makecontext(&saved, entry, 0);
#elif defined(__x86_64__)
        // Six registers and the address that the switch returns to; then the stack is as after a call.
        void** frame = reinterpret_cast<void**>(stack.low() + room) - 8;
        memset(frame, 0, 8 * sizeof(void*));
        frame[6] = reinterpret_cast<void*>(entry);
        saved = frame;
#else
        // x19 to x30, then d8 to d15; the switch returns to x30.
        void** frame = reinterpret_cast<void**>(stack.low() + room) - 20;
        memset(frame, 0, 20 * sizeof(void*));
        frame[11] = reinterpret_cast<void*>(entry);
        saved = frame;
#endif
    }

    /// Goes on at `to` until something goes on here. `last`: nothing ever will.
    void go(Context& to, bool last = false) {
#ifdef PULLBACK_ASAN
        __sanitizer_start_switch_fiber(last ? nullptr : &sanitizer, to.low, to.bytes);
#else
        (void)last;
#endif
#ifdef PULLBACK_UCONTEXT
        swapcontext(&saved, &to.saved);
#else
        pullback_emulator_switch(&saved, to.saved);
#endif
        arrived(nullptr);
    }

    /// To be called first where a fiber begins, with the context it was entered from where that is the thread's own.
    void arrived(Context* from) {
#ifdef PULLBACK_ASAN
        const void* low_of_last = nullptr;
        size_t bytes_of_last = 0;
        __sanitizer_finish_switch_fiber(sanitizer, &low_of_last, &bytes_of_last);
        if (from != nullptr) {
            from->low = low_of_last;
            from->bytes = bytes_of_last;
        }
#else
        (void)from;
#endif
    }
};

} // namespace emulator
