// All kernels as one translation unit.
#include "decode.cu"
#include "jacobian.cu"
#include "gram.cu"
#include "energy.cu"
#include "step.cu"
#include "fused.cu"
