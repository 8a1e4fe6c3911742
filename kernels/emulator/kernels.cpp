// All kernels, compiled for the processor. Built twice (see emulator.hpp) into one library; the unnamed namespace keeps the builds apart.
#include <math.h>

#include "runtime.hpp"

#define PULLBACK_EMULATOR
#define PULLBACK_KERNELS_CPP

namespace {

#include "../device.cuh"

#include "../kernels.cu"

#include "fused_laws.cu"
#include "instances.cu"
#include "laws.cu"

} // namespace

#ifdef PULLBACK_CHECKED
extern "C" const emulator::Registered* pullback_emulator_checked_kernels() { return registered_kernels; }
#else
extern "C" const emulator::Registered* pullback_emulator_kernels() { return registered_kernels; }
#endif
