//! Compiles the kernels: for the emulator, with the C++ compiler of the target.

#[cfg(feature = "emulator")]
#[path = "build/emulator.rs"]
mod emulator;

fn main() {
    #[cfg(feature = "emulator")]
    emulator::build();
}
