// The dialect of ../device.cuh for the processor. kernels.cpp includes it inside an unnamed namespace, once in each of two builds:
//
//   unchecked   Shared<T> is a pointer, and kernels are about as fast as any C++
//   checked     (PULLBACK_CHECKED) every access to shared memory is checked: its index, races, words never written
//
// Either build sees a barrier or a meeting of a warp to which some threads never come. Threads take turns and none is interrupted:
// a kernel in which a thread spins until another does something would spin for ever.
#pragma once

#ifndef PULLBACK_KERNELS_CPP
#error "included by kernels.cpp only"
#endif

#ifdef PULLBACK_CHECKED
#define DEVICE inline
#else
#define DEVICE inline __attribute__((always_inline))
#endif
#define UNROLL

#define threadIdx (::emulator::here.thread)
#define blockIdx (::emulator::here.block)
#define blockDim (::emulator::here.threads)
#define gridDim (::emulator::here.blocks)

/// The kernels of this build.
const emulator::Registered* registered_kernels = nullptr;

struct Registration {
    emulator::Registered kernel;
    Registration(const char* name, u32 params, u32 threads, void (*entry)(const void*))
        : kernel{name, params, threads, entry, registered_kernels} {
        registered_kernels = &kernel;
    }
};

// The structure is copied for every thread: behind a reference, each store through a pointer might change it.
#define KERNEL(name, Params, bound, blocks)                                                                  \
    void name(const Params);                                                                           \
    const Registration name##_registration(#name, sizeof(Params), bound, [](const void* params) {      \
        static_assert(alignof(Params) <= 16 && sizeof(Params) <= 4096, "what a launch can pass");      \
        name(*static_cast<const Params*>(params));                                                     \
    });                                                                                                \
    void name([[maybe_unused]] const Params p)

#define INSTANCE KERNEL

#include "math.hpp"
#include "meetings.hpp"
#include "shared.hpp"
