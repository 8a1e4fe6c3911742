//! The kernels, compiled before the crate: by nvcc for GPUs, where there is one, and by a C++ compiler for the emulator.

#[cfg(feature = "emulator")]
#[path = "build/emulator.rs"]
mod emulator;
#[cfg(feature = "cuda")]
#[path = "build/nvcc.rs"]
mod nvcc;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "cuda")]
    nvcc::build();
    #[cfg(feature = "emulator")]
    emulator::build();
}
