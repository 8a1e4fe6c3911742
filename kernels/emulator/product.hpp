// What matrix instructions compute.
#pragma once

#include "runtime.hpp"

namespace emulator {

/// A warp's product, of every lane what it passed.
void multiply_warp(const Product* const (&lanes)[32]);

/// A warpgroup's product, of every thread what it passed. b is taken from its place as it is.
void multiply_group(const GroupProduct* const (&threads)[128]);

} // namespace emulator
