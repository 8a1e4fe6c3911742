//! Products of square matrices by cuBLAS, which a CUDA toolkit or PyTorch brings along: the rate that kernels are held against.

use std::ffi::{c_int, c_void};
use std::path::{Path, PathBuf};
use std::ptr;

use super::platform::Address;
use super::toolkit::{Wanted, functions};

/// `cublasHandle_t`.
type Handle = *mut c_void;

const CUBLAS: Wanted = Wanted {
    name: "cuBLAS",
    variable: "PULLBACK_CUBLAS",
    files: if cfg!(windows) {
        &["cublas64_13.dll", "cublas64_12.dll"]
    } else {
        &["libcublas.so.13", "libcublas.so.12", "libcublas.so"]
    },
    needs: &["libcublasLt.so.", "cublasLt64_"],
};

functions! {
    /// The functions of cublas_v2.h that are used here; enumerations are plain numbers.
    cublasCreate_v2(*mut Handle) -> c_int;
    cublasDestroy_v2(Handle) -> c_int;
    cublasSetStream_v2(Handle, *mut c_void) -> c_int;
    cublasSetMathMode(Handle, c_int) -> c_int;
    // Handle, both transpositions, m, n, k, α, A with its type and leading dimension, B with its, β, C with its, compute type, algorithm.
    cublasGemmEx(
        Handle, c_int, c_int, c_int, c_int, c_int, *const c_void, *const c_void, c_int, c_int, *const c_void, c_int, c_int,
        *const c_void, *mut c_void, c_int, c_int, c_int, c_int,
    ) -> c_int;
}

/// What a product's factors are rounded to; sums are in float32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Float32,
    Tf32,
    Bf16,
}

const CUBLAS_OP_N: c_int = 0;
const CUBLAS_GEMM_DEFAULT: c_int = -1;
const CUBLAS_DEFAULT_MATH: c_int = 0;
const CUBLAS_TF32_TENSOR_OP_MATH: c_int = 3;
const CUBLAS_COMPUTE_32F: c_int = 68;
const CUBLAS_COMPUTE_32F_FAST_TF32: c_int = 77;
const CUDA_R_32F: c_int = 0;
const CUDA_R_16BF: c_int = 14;

impl Format {
    pub const ALL: [Self; 3] = [Self::Float32, Self::Tf32, Self::Bf16];

    /// cuBLAS's numbers for the math mode, the type of all three matrices, and the type to compute in.
    fn codes(self) -> (c_int, c_int, c_int) {
        match self {
            Self::Float32 => (CUBLAS_DEFAULT_MATH, CUDA_R_32F, CUBLAS_COMPUTE_32F),
            Self::Tf32 => (CUBLAS_TF32_TENSOR_OP_MATH, CUDA_R_32F, CUBLAS_COMPUTE_32F_FAST_TF32),
            Self::Bf16 => (CUBLAS_DEFAULT_MATH, CUDA_R_16BF, CUBLAS_COMPUTE_32F),
        }
    }
}

/// cuBLAS on one stream of the context that the thread is bound to.
pub(crate) struct CuBlas {
    functions: Functions,
    path: PathBuf,
    handle: Handle,
}

impl CuBlas {
    /// Opens the library and gives it a stream; the error says, in a line, why that cannot be.
    ///
    /// # Safety
    /// The stream is of the context that the calling thread is bound to, and outlives what is returned; so does the binding.
    pub unsafe fn open(stream: *mut c_void) -> Result<Self, String> {
        let (functions, path) = CUBLAS.open(Functions::load)?;
        let mut handle = ptr::null_mut();
        // SAFETY: writes one pointer.
        check("cublasCreate", unsafe { (functions.cublasCreate_v2)(&mut handle) })?;
        let this = Self { functions, path, handle };
        // SAFETY: the handle was created above; the stream is the caller's.
        check("cublasSetStream", unsafe { (this.functions.cublasSetStream_v2)(this.handle, stream) })?;
        Ok(this)
    }

    /// The library's path, or its name alone where the loader found it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives C = A B to the stream, of three matrices with so many rows and columns.
    ///
    /// # Safety
    /// Every address is of side² numbers of the format (four bytes, two of bf16) on the device, which stay until the stream was waited
    /// for; nobody else writes to them.
    pub unsafe fn multiply(&self, format: Format, side: usize, [a, b, c]: [Address; 3]) -> Result<(), String> {
        let side = c_int::try_from(side).map_err(|_| format!("{side}: expected fewer rows"))?;
        let (math, data, compute) = format.codes();
        let (one, zero) = (1.0_f32, 0.0_f32);
        // SAFETY: the handle is alive.
        check("cublasSetMathMode", unsafe { (self.functions.cublasSetMathMode)(self.handle, math) })?;
        // SAFETY: the handle is alive; both factors are float32 on the host, as the compute types ask, and are read before the call
        // returns; the matrices are the caller's.
        let code = unsafe {
            (self.functions.cublasGemmEx)(
                self.handle,
                CUBLAS_OP_N,
                CUBLAS_OP_N,
                side,
                side,
                side,
                ptr::from_ref(&one).cast(),
                a as *const c_void,
                data,
                side,
                b as *const c_void,
                data,
                side,
                ptr::from_ref(&zero).cast(),
                c as *mut c_void,
                data,
                side,
                compute,
                CUBLAS_GEMM_DEFAULT,
            )
        };
        check("cublasGemmEx", code)
    }
}

impl Drop for CuBlas {
    fn drop(&mut self) {
        // SAFETY: the handle was created, and nothing uses it any more. A failure would leak it, no more.
        let _ = unsafe { (self.functions.cublasDestroy_v2)(self.handle) };
    }
}

fn check(what: &str, code: c_int) -> Result<(), String> {
    if code == 0 { Ok(()) } else { Err(format!("{what}: cuBLAS error {code}")) }
}
