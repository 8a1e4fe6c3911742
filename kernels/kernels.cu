// All kernels as one translation unit: what nvcc compiles into the embedded image, and NVRTC where there is none.
#include "decode.cu"
#include "jacobian.cu"
#include "gram.cu"
#include "energy.cu"
#include "step.cu"
