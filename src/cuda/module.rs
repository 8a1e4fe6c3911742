//! Which module a kernel comes from: the image that nvcc made, the embedded sources by NVRTC, or those with one decoder's instances.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use cudarc::driver::DriverError;
use cudarc::driver::result::{ctx, function, module};
use cudarc::driver::sys::{self, CUfunction_attribute as Attribute, CUresult};

use super::compile::{Compile, Compiled};
use super::driver::context::Context;
use super::platform::Kernel;
use crate::error::{Error, Result};

/// Dynamic shared memory that a kernel may ask for without saying so first.
const SHARED_WITHOUT_ASKING: u32 = 48 * 1024;

/// Where modules come from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Images {
    /// nvcc's image, or nothing.
    pub embedded: &'static [u8],
    /// Machine code for a compute capability, of the embedded sources with these instances behind them.
    pub compile: Compile,
}

/// The modules that one device has loaded. They stay loaded as long as this lives.
pub(crate) struct Modules {
    context: Arc<Context>,
    compute: (u32, u32),
    /// Dynamic and static shared memory that a block can have.
    shared_per_block: u32,
    compile: Compile,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    modules: Vec<sys::CUmodule>,
    functions: Vec<Arc<Function>>,
    /// Places in `functions`.
    places: HashMap<String, usize>,
    specialised: HashSet<String>,
}

// SAFETY: modules may be used from any thread; their pointers are only handed to the driver.
unsafe impl Send for State {}
// SAFETY: as above.
unsafe impl Sync for State {}

/// A kernel in a loaded module.
pub(crate) struct Function {
    pub raw: sys::CUfunction,
    /// "kernel `name`".
    pub what: String,
    /// Bytes of its structure of parameters.
    params: usize,
    /// Static shared memory, in bytes.
    shared: u32,
    allowed: AtomicBool,
}

// SAFETY: as for modules.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}

impl Modules {
    /// Loads the kernels that are the same for all decoders.
    ///
    /// # Errors
    ///
    /// [`Error::Compile`] where nothing makes code that this device runs, with what was tried.
    pub(crate) fn new(
        context: &Arc<Context>,
        images: Images,
        compute: (u32, u32),
        shared_per_block: u32,
    ) -> Result<Self> {
        let state = RwLock::default();
        let this = Self { context: context.clone(), compute, shared_per_block, compile: images.compile, state };
        let mut tried = String::from("built without nvcc");
        if !images.embedded.is_empty() {
            match this.load(images.embedded)? {
                Ok(()) => return Ok(this),
                Err(words) => tried = format!("embedded image: {words}"),
            }
        }
        let loaded = match (this.compile)(compute, "")? {
            Compiled::Code(code) => this.load(&code)?.map_err(|words| format!("{tried}; compiled by NVRTC: {words}")),
            Compiled::Unavailable(reason) => Err(format!("{tried}; {reason}")),
        };
        loaded.map_err(|message| this.unusable(message))?;
        Ok(this)
    }

    fn unusable(&self, message: String) -> Error {
        let (major, minor) = self.compute;
        Error::Compile {
            what: format!("{}, no kernels for compute capability {major}.{minor}", self.context.label),
            message,
        }
    }

    /// See [`Platform::specialise`](super::platform::Platform::specialise).
    pub(crate) fn specialise(&self, instances: &str) -> Result<bool> {
        self.context.enter()?;
        if self.read().specialised.contains(instances) {
            return Ok(true);
        }
        // Two threads may both get here with the same instances: the second module is loaded beside the first and never used.
        let Compiled::Code(code) = (self.compile)(self.compute, instances)? else { return Ok(false) };
        self.load(&code)?.map_err(|message| self.unusable(message))?;
        self.write().specialised.insert(instances.into());
        Ok(true)
    }

    /// Loads an image. The inner error is the driver's words where the image is at fault, the outer one any other failure.
    fn load(&self, image: &[u8]) -> Result<Result<(), String>> {
        self.context.enter()?;
        let mut aligned = vec![0u128; image.len().div_ceil(16) + 1]; // the driver reads words, and PTX up to a zero
        bytemuck::cast_slice_mut(&mut aligned)[..image.len()].copy_from_slice(image);
        // SAFETY: a whole image as a compiler wrote it, aligned, with zeros behind it; the driver keeps no pointer to it.
        match unsafe { module::load_data(aligned.as_ptr().cast()) } {
            Ok(module) => {
                self.write().modules.push(module);
                Ok(Ok(()))
            }
            Err(error) if of_the_image(error) => Ok(Err(super::driver::context::words(error))),
            Err(error) => self.context.check("loading kernels", Err(error)).map(Ok),
        }
    }

    /// The kernel of that name in any module, the oldest first.
    pub(crate) fn kernel(&self, name: &str) -> Result<Option<Kernel>> {
        self.context.enter()?;
        if let Some(place) = self.read().places.get(name) {
            return Ok(Some(Kernel(*place)));
        }
        let Ok(symbol) = CString::new(name) else { return Ok(None) };
        let mut state = self.write();
        for module in &state.modules {
            // SAFETY: modules are unloaded only when `self` is dropped.
            match unsafe { module::get_function(*module, symbol.clone()) } {
                Err(DriverError(CUresult::CUDA_ERROR_NOT_FOUND)) => {}
                found => {
                    let what = format!("kernel `{name}`");
                    let raw = self.context.check(&what, found)?;
                    let function = self.describe(raw, what)?;
                    let place = state.functions.len();
                    state.functions.push(Arc::new(function));
                    state.places.insert(name.into(), place);
                    return Ok(Some(Kernel(place)));
                }
            }
        }
        Ok(None)
    }

    fn describe(&self, raw: sys::CUfunction, what: String) -> Result<Function> {
        let mut sizes = [None; 2];
        for (i, size) in sizes.iter_mut().enumerate() {
            let (mut offset, mut bytes) = (0, 0);
            // SAFETY: the function is of a loaded module, and two integers are written.
            match unsafe { sys::cuFuncGetParamInfo(raw, i, &mut offset, &mut bytes) }.result() {
                Ok(()) => *size = Some(bytes),
                Err(DriverError(CUresult::CUDA_ERROR_INVALID_VALUE)) => {} // no such parameter
                Err(error) => self.context.check(&what, Err(error))?,
            }
        }
        let [Some(params), None] = sizes else {
            return Err(self.context.refuse(&what, "expected one structure of parameters, found none or several"));
        };
        // SAFETY: the function is of a loaded module.
        let shared = unsafe { function::get_function_attribute(raw, Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES) };
        let shared = u32::try_from(self.context.check(&what, shared)?).unwrap_or(0);
        Ok(Function { raw, what, params, shared, allowed: AtomicBool::new(false) })
    }

    /// The function of a kernel, ready for a launch with that many bytes of parameters and of dynamic shared memory.
    pub(crate) fn prepare(&self, kernel: Kernel, params: usize, shared: u32) -> Result<Arc<Function>> {
        let function = self.read().functions.get(kernel.0).cloned();
        let function = function.ok_or_else(|| self.context.refuse("kernel", "not one of this device"))?;
        let refuse = |what: &str, expected: String, found: String| {
            self.context.refuse(&function.what, format!("{what}: expected {expected}, found {found}"))
        };
        if params != function.params {
            return Err(refuse("bytes of parameters", function.params.to_string(), params.to_string()));
        }
        let most = self.shared_per_block.saturating_sub(function.shared);
        if shared > most {
            return Err(refuse("bytes of dynamic shared memory", format!("at most {most}"), shared.to_string()));
        }
        if shared > SHARED_WITHOUT_ASKING && !function.allowed.load(Ordering::Acquire) {
            // All that there is, once: every later launch stays below, and two threads that come at once set the same.
            let (attribute, most) =
                (Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, i32::try_from(most).unwrap_or(0));
            // SAFETY: the function is of a loaded module.
            let set = unsafe { function::set_function_attribute(function.raw, attribute, most) };
            self.context.check(&function.what, set)?;
            function.allowed.store(true, Ordering::Release);
        }
        Ok(function)
    }

    /// "kernel `name`".
    pub(crate) fn name(&self, kernel: Kernel) -> Option<String> {
        self.read().functions.get(kernel.0).map(|function| function.what.clone())
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// True where another image may do better.
fn of_the_image(error: DriverError) -> bool {
    use CUresult::*;
    matches!(
        error.0,
        CUDA_ERROR_INVALID_IMAGE
            | CUDA_ERROR_NO_BINARY_FOR_GPU
            | CUDA_ERROR_INVALID_PTX
            | CUDA_ERROR_UNSUPPORTED_PTX_VERSION
            | CUDA_ERROR_JIT_COMPILER_NOT_FOUND
            | CUDA_ERROR_JIT_COMPILATION_DISABLED
            | CUDA_ERROR_INVALID_SOURCE
            | CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND
            | CUDA_ERROR_SHARED_OBJECT_INIT_FAILED
            | CUDA_ERROR_NOT_SUPPORTED
    )
}

impl Drop for Modules {
    fn drop(&mut self) {
        if self.context.enter().is_err() || ctx::synchronize().is_err() {
            return; // a lost context takes its modules along
        }
        for module in self.write().modules.drain(..) {
            // SAFETY: loaded once, unloaded once, and all work is done. An error would leak it, no more.
            let _ = unsafe { module::unload(module) };
        }
    }
}

impl fmt::Debug for Modules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} modules", self.read().modules.len())
    }
}
