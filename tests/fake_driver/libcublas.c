// A stand-in for cuBLAS beside the one for the driver: takes the calls of src/cuda/cublas.rs, and refuses arguments that are none of
// the three products that are measured there. Nothing is computed.
//
//   FAKE_CUBLAS_FAIL=cublasGemmEx:13   this function returns this code
#include <stdlib.h>
#include <string.h>

typedef int Code;
typedef struct { int* stream; int math; } Handle;
enum { SUCCESS = 0, INVALID_VALUE = 7 };
enum { OP_N = 0, DEFAULT_ALGORITHM = -1, STREAM = 1 };
enum { DEFAULT_MATH = 0, TF32_TENSOR_OP_MATH = 3, R_32F = 0, R_16BF = 14, COMPUTE_32F = 68, COMPUTE_32F_FAST_TF32 = 77 };

static Code failing(const char* name) {
    const char* spec = getenv("FAKE_CUBLAS_FAIL");
    size_t length = strlen(name);
    if (!spec || strncmp(spec, name, length) || spec[length] != ':') return SUCCESS;
    return atoi(spec + length + 1);
}

#define ENTER do { Code code = failing(__func__); if (code) return code; } while (0)
#define NEEDS(condition) do { if (!(condition)) return INVALID_VALUE; } while (0)

Code cublasCreate_v2(Handle** to) { ENTER; *to = calloc(1, sizeof **to); return SUCCESS; }
Code cublasDestroy_v2(Handle* handle) { ENTER; NEEDS(handle); free(handle); return SUCCESS; }
Code cublasSetStream_v2(Handle* handle, int* stream) {
    ENTER;
    NEEDS(handle && stream && *stream == STREAM); // the first number of the stand-in driver's streams
    handle->stream = stream;
    return SUCCESS;
}
Code cublasSetMathMode(Handle* handle, int mode) {
    ENTER;
    NEEDS(mode == DEFAULT_MATH || mode == TF32_TENSOR_OP_MATH);
    handle->math = mode;
    return SUCCESS;
}
Code cublasGemmEx(Handle* handle, int transpose_a, int transpose_b, int m, int n, int k, const float* alpha, const void* a, int a_type,
                  int lda, const void* b, int b_type, int ldb, const float* beta, const void* c, int c_type, int ldc, int compute,
                  int algorithm) {
    ENTER;
    NEEDS(handle->stream && transpose_a == OP_N && transpose_b == OP_N && algorithm == DEFAULT_ALGORITHM);
    NEEDS(m > 0 && n == m && k == m && lda == m && ldb == m && ldc == m && *alpha == 1 && *beta == 0);
    NEEDS(a && b && c && a != b && b != c && c != a && a_type == b_type && b_type == c_type);
    int is_tf32 = handle->math == TF32_TENSOR_OP_MATH && compute == COMPUTE_32F_FAST_TF32 && a_type == R_32F;
    int is_plain = handle->math == DEFAULT_MATH && compute == COMPUTE_32F && (a_type == R_32F || a_type == R_16BF);
    NEEDS(is_tf32 || is_plain);
    return SUCCESS;
}
