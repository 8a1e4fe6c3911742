//! The kernels as C++17, twice, and what runs them, in one static library: see `kernels/emulator/emulator.hpp`.

use std::env;
use std::path::{Path, PathBuf};
use std::thread;

/// Sanitizers to compile with, such as `address,undefined`; their run-time libraries are linked under gcc's names.
const SANITIZE: &str = "PULLBACK_EMULATOR_SANITIZE";

/// `none` leaves the C++ out, where nothing is linked: for clippy and the documentation.
const BUILD: &str = "PULLBACK_EMULATOR_BUILD";

const FOLDER: &str = "kernels/emulator";

pub fn build() {
    println!("cargo::rerun-if-changed=kernels");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-env-changed={SANITIZE}");
    println!("cargo::rerun-if-env-changed={BUILD}");
    if env::var("CARGO_CFG_TARGET_FAMILY").is_ok_and(|family| family != "unix") {
        panic!("the feature `emulator` needs a Unix-like system");
    }
    println!("cargo::rustc-check-cfg=cfg(pullback_sanitized)");
    if sanitizers().is_some() {
        println!("cargo::rustc-cfg=pullback_sanitized"); // the emulator then keeps no memory for later calls
    }
    if env::var(BUILD).is_ok_and(|wanted| wanted == "none") {
        return;
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    // The two builds of the kernels take most of the time.
    let (unchecked, checked) = thread::scope(|scope| {
        let checked = scope.spawn(|| kernels(&out.join("checked"), true));
        let unchecked = kernels(&out.join("unchecked"), false);
        (unchecked, checked.join().expect("the compiler runs"))
    });
    let mut library = compiler(&out);
    for name in ["fiber.cpp", "block.cpp", "pipeline.cpp", "product.cpp", "launch.cpp"] {
        library.file(Path::new(FOLDER).join(name));
    }
    library.objects(unchecked).objects(checked);
    // rustc keeps the linker from adding these by itself. They must be loaded first, so they come before the C++ library.
    for (sanitizer, name) in [("address", "asan"), ("undefined", "ubsan")] {
        if sanitizers().is_some_and(|list| list.split(',').any(|one| one == sanitizer)) {
            println!("cargo::rustc-link-lib={name}");
        }
    }
    library.compile("pullback_emulator");
}

fn sanitizers() -> Option<String> {
    env::var(SANITIZE).ok().filter(|list| !list.is_empty())
}

fn kernels(out: &Path, checked: bool) -> Vec<PathBuf> {
    let mut compiler = compiler(out);
    compiler.file(Path::new(FOLDER).join("kernels.cpp"));
    compiler.flag("-fno-exceptions").flag_if_supported("-Wno-unused-function");
    if checked {
        compiler.define("PULLBACK_CHECKED", None);
    }
    compiler.compile_intermediates()
}

/// Arithmetic is what the source says, without contractions, as kernels ask for fused operations by name. A fiber never leaves its
/// thread, so thread-local variables are found the fastest way.
fn compiler(out: &Path) -> cc::Build {
    let mut compiler = cc::Build::new();
    compiler.cpp(true).std("c++17").out_dir(out).opt_level(3).debug(false);
    for flag in ["-fno-math-errno", "-ffp-contract=off", "-fno-strict-aliasing", "-fno-rtti"] {
        compiler.flag(flag);
    }
    compiler.flag_if_supported("-ftls-model=initial-exec");
    if env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64") {
        compiler.flag_if_supported("-fcf-protection=none"); // no shadow stack: fibers have several stacks
    }
    if let Some(list) = sanitizers() {
        // At the third level the sanitizers' checks take a quarter of an hour to compile.
        compiler
            .opt_level(1)
            .debug(true)
            .flag(format!("-fsanitize={list}"))
            .flag("-fno-omit-frame-pointer")
            .flag("-fno-sanitize-recover=all");
    }
    compiler
}
