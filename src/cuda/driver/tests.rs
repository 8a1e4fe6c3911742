//! The driver's side on a stand-in for libcuda (`tests/fake_driver/libcuda.c`), which a child process of the test finds first.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, process};

use cudarc::driver::sys;
use ndarray::{Array1, Array2};

use super::*;
use crate::cuda::compile::Compiled;
use crate::cuda::platform::{Geometry, Platform};
use crate::decoder::{Activation, Decoder, Head, Layer};
use crate::geodesic::Options;
use crate::model::Model;
use crate::precision::Precision;

const CHILD: &str = "cuda::driver::tests::child";
const PARAMS: usize = 24;
const GEOMETRY: Geometry = Geometry { blocks: 2, threads: 128, shared: 0 };

/// A folder with the stand-in, or a line that says what was not tested.
struct Fake(PathBuf);

impl Fake {
    fn build(test: &str) -> Option<Self> {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake_driver");
        let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
        if !sources.is_dir() || Command::new(&compiler).arg("--version").output().is_err() {
            println!("skipped: no C compiler, or a package without tests/fake_driver");
            return None;
        }
        let folder = env::temp_dir().join(format!("pullback-fake-{test}-{}", process::id()));
        fs::create_dir_all(&folder).unwrap();
        for name in ["libcuda", "libcublas"] {
            let (output, source) = (folder.join(format!("{name}.so")), sources.join(format!("{name}.c")));
            let mut command = Command::new(&compiler);
            let built = command.args(["-shared", "-fPIC", "-Wall", "-o"]).arg(output).arg(source).output().unwrap();
            assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        }
        Some(Self(folder))
    }

    /// What the scenario printed, in a process of its own: a process loads one driver.
    fn run(&self, scenario: &str, settings: &[(&str, &str)]) -> String {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", CHILD, "--nocapture"]).env("PULLBACK_FAKE", scenario).env("LD_LIBRARY_PATH", &self.0);
        let output = command.envs(settings.iter().copied()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let result = text.lines().find_map(|line| Some(line.split_once("RESULT ")?.1.to_owned()));
        result.unwrap_or_else(|| panic!("{scenario}: {text}\n{}", String::from_utf8_lossy(&output.stderr)))
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Does nothing but where a test below runs it in a process of its own.
#[test]
fn child() {
    let Ok(scenario) = env::var("PULLBACK_FAKE") else { return };
    let found = match scenario.as_str() {
        "devices" => devices().map(|all| format!("{all:?}")),
        "open" => open(0).map(|_| "opened".into()),
        "open 3" => open(3).map(|_| "opened".into()),
        "allocate" => open(0).and_then(|driver| driver.allocate(1 << 21)).map(|_| "allocated".into()),
        "pin" => open(0).and_then(|driver| driver.allocate_pinned(1 << 21)).map(|_| "pinned".into()),
        "launch" => launch(),
        "refusals" => refusals(),
        "modules" => modules(),
        "tour" => tour(),
        "pool" => pool(),
        #[cfg(feature = "cli")]
        "reached" => reached(),
        other => panic!("{other}"),
    };
    println!("\nRESULT {}", found.unwrap_or_else(|error| error.to_string()));
}

fn open(ordinal: usize) -> Result<Driver> {
    Driver::open_with(ordinal, Images { embedded: b"an image", compile })
}

/// In NVRTC's place.
fn compile(_: (u32, u32), instances: &str) -> Result<Compiled> {
    Ok(match instances {
        "good" => Compiled::Code(b"an image".into()),
        "bad" => Compiled::Code(b"bad image".into()),
        _ => Compiled::Unavailable("no NVRTC".into()),
    })
}

/// An embedded image that the device does not run, and NVRTC for it; then modules for decoders.
fn modules() -> Result<String> {
    let compiled: Images = Images { embedded: b"bad image", compile: |_, _| Ok(Compiled::Code(b"an image".into())) };
    let driver = Driver::open_with(0, compiled)?;
    assert!(driver.kernel("fake_kernel")?.is_some());
    let driver = open(0)?;
    let general = driver.kernel("fake_kernel")?;
    assert!(driver.specialise("good")? && driver.specialise("good")?);
    assert_eq!(driver.kernel("fake_kernel")?, general);
    let refused = driver.specialise("bad").expect_err("the stand-in does not load it");
    Ok(format!("{:?} | {refused}", driver.modules))
}

fn params(address: u64) -> [u8; PARAMS] {
    let mut bytes = [0; PARAMS];
    bytes[..8].copy_from_slice(&address.to_ne_bytes());
    bytes
}

/// Launches, reports the error, and what a second call then says.
fn launch() -> Result<String> {
    let driver = open(0)?;
    let (stream, address) = (driver.create_stream()?, driver.allocate(4)?);
    let kernel = driver.kernel("fake_kernel")?.expect("the stand-in has it");
    // SAFETY: the parameters are those of the stand-in's kernel.
    let first =
        unsafe { driver.launch(stream, kernel, GEOMETRY, &params(address)) }.and_then(|()| driver.synchronise(stream));
    let first = first.expect_err("the stand-in was told to fail");
    let second = driver.free_memory().map_or_else(|error| error.to_string(), |_| "works".into());
    Ok(format!("{first} | fatal: {} | afterwards: {second}", first.is_fatal()))
}

/// What is refused before the driver is asked.
fn refusals() -> Result<String> {
    let driver = open(0)?;
    let stream = driver.create_stream()?;
    let event = driver.create_event()?;
    let kernel = driver.kernel("fake_kernel")?.expect("the stand-in has it");
    assert_eq!(driver.kernel("unknown")?, None);
    assert_eq!(driver.kernel("fake\0")?, None);
    assert!(!driver.specialise("instances")?);
    let much = Geometry { shared: 163 * 1024, ..GEOMETRY };
    driver.destroy_event(event);
    // SAFETY: all of these are refused.
    let launched = unsafe {
        [
            driver.launch(stream, kernel, GEOMETRY, &[0; 23]),
            driver.launch(stream, kernel, much, &[0; PARAMS]),
            driver.launch(stream, super::super::platform::Kernel(7), GEOMETRY, &[0; PARAMS]),
            driver.launch(event, kernel, GEOMETRY, &[0; PARAMS]),
            driver.record(event, stream),
        ]
    };
    Ok(launched.map(|result| result.unwrap_err().to_string()).join(" | "))
}

/// Every function of the platform once; at the end nothing is left.
fn tour() -> Result<String> {
    let driver = Arc::new(open(0)?);
    assert_eq!(driver.label(), "cuda:0");
    let free = driver.free_memory()?;
    let (stream, other) = (driver.create_stream()?, driver.create_stream()?);
    let (from, to) = (driver.create_event()?, driver.create_event()?);
    let address = driver.allocate(64)?;
    let pinned = driver.allocate_pinned(64)?;
    let kernel = driver.kernel("fake_kernel")?.expect("the stand-in has it");
    assert_eq!(driver.kernel("fake_kernel")?, Some(kernel));
    assert_eq!(driver.free_memory()?, free - 128);
    let shared = Geometry { shared: 100 * 1024, ..GEOMETRY };

    // SAFETY: memory of the driver, of that size; the parameters are those of the stand-in's kernel.
    let counted = unsafe {
        assert_eq!(std::slice::from_raw_parts(pinned, 64), [0; 64]);
        driver.fill(stream, address, 0, 64)?;
        driver.record(from, stream)?;
        driver.launch(stream, kernel, GEOMETRY, &params(address))?;
        driver.launch(stream, kernel, shared, &params(address))?;
        driver.record(to, stream)?;
        driver.wait(other, to)?;
        driver.begin_graph(stream)?;
        driver.launch(stream, kernel, GEOMETRY, &params(address))?;
        driver.launch(stream, kernel, GEOMETRY, &params(address))?;
        let graph = driver.end_graph(stream)?;
        driver.launch_graph(graph, stream)?;
        // From a thread that has no context yet.
        std::thread::scope(|scope| scope.spawn(|| driver.launch_graph(graph, stream)).join()).expect("no panic")?;
        driver.download(stream, pinned, address, 4)?;
        driver.synchronise(stream)?;
        let counted = pinned.cast::<u32>().read();
        driver.upload(stream, address + 4, pinned, 4)?;
        driver.download(stream, pinned.add(8), address + 4, 4)?;
        assert_eq!(pinned.add(8).cast::<u32>().read(), counted);
        driver.destroy_graph(graph);
        driver.release(address);
        driver.release_pinned(pinned, 64);
        counted
    };
    driver.synchronise_event(to)?;
    assert_eq!(driver.elapsed(from, to)?, 0.5);
    assert_eq!(driver.free_memory()?, free);
    driver.destroy_stream(other);
    drop(driver); // with a stream and two events that nobody destroyed
    Ok(format!("{counted} launches, {} objects left", count("fake_live")))
}

/// A function of the stand-in that counts.
fn count(name: &str) -> i32 {
    // SAFETY: the stand-in is loaded, and exports this function.
    unsafe { sys::culib().get::<unsafe extern "C" fn() -> i32>(name.as_bytes()).unwrap()() }
}

/// Whether three calls make allocations and streams once or every time. The stand-in cannot run their kernels, so a call ends with an error
/// at its first launch, once everything is set up; what it had is given back all the same.
fn pool() -> Result<String> {
    let driver: Arc<dyn Platform> = Arc::new(open(0)?);
    let layer = Layer { weight: Array2::eye(3), bias: Array1::zeros(3), activation: Activation::Tanh };
    let model = Model::<f32>::on_cuda(
        driver.clone(),
        &Decoder::new(vec![Head::new("decoder", vec![layer])?])?,
        Precision::Float32,
    )?;
    let (starts, ends) = (Array2::zeros((4, 3)), Array2::ones((4, 3)));
    let metric = || model.metric(starts.view()).unwrap_err().to_string();
    let geodesics = || model.geodesics(starts.view(), ends.view(), &Options::default()).unwrap_err().to_string();
    let calls = [&metric as &dyn Fn() -> String, &geodesics].map(|call| {
        let made = [(); 3].map(|()| {
            let before = count("fake_created");
            let error = call();
            assert!(error.contains("bytes of parameters: expected 24"), "{error}");
            count("fake_created") - before
        });
        match made {
            [1..=99, 0, 0] => "once".into(),
            [first @ 1..=99, second, third] if [second, third] == [first; 2] => "every time".into(),
            _ => format!("{made:?}"),
        }
    });
    drop((model, driver));
    Ok(format!("{}, {} objects left", calls.join(", "), count("fake_live")))
}

/// What the device reaches where everything takes half a millisecond.
#[cfg(feature = "cli")]
fn reached() -> Result<String> {
    let driver = open(0)?;
    let found = driver.reached(true).expect("a device with times");
    drop(driver);
    let products = found.operations.map(|found| {
        let rates = [found.float32, found.tf32, found.bf16].map(|rate| format!("{:.0}", rate * 1e-9));
        format!("{} at {} by {}", rates.join(", "), found.side, found.library.rsplit('/').next().unwrap_or(""))
    });
    let copies = found.bytes.map_or_else(|reason| reason, |rate| format!("{:.0}", rate * 1e-6));
    Ok(format!("{} | {copies} | {} objects left", products.unwrap_or_else(|reason| reason), count("fake_live")))
}

/// Rates follow from sizes, which follow from free memory; what cannot be measured says why, and the rest is measured all the same.
#[cfg(feature = "cli")]
#[test]
fn what_a_device_reaches_is_measured_or_says_why_not() {
    let Some(fake) = Fake::build("reached") else { return };
    let folder = fake.0.display().to_string();
    let run = |memory: u32, cublas: &str, fail: &str| {
        let memory = (memory << 20).to_string();
        let (driver, blas) = if fail.starts_with("cublas") { ("", fail) } else { (fail, "") };
        let failures = [("FAKE_CUDA_FAIL", driver), ("FAKE_CUBLAS_FAIL", blas)];
        let settings = [("FAKE_CUDA_MEMORY", memory.as_str()), ("PULLBACK_CUBLAS", cublas)];
        fake.run("reached", &[settings, failures].concat())
    };
    // 2 · 1024³ operations and 2 · 16 MiB in half a millisecond.
    assert_eq!(run(64, &folder, ""), "4295, 4295, 4295 at 1024 by libcublas.so | 67109 | 0 objects left");
    assert_eq!(run(16, &folder, ""), "537, 537, 537 at 512 by libcublas.so | 16777 | 0 objects left");
    let products = "cuda:0, products of matrices: ";
    for (cublas, fail, expected) in [
        ("none", "", "no cuBLAS (PULLBACK_CUBLAS=none)"),
        ("/nowhere", "", "PULLBACK_CUBLAS: /nowhere: expected cuBLAS's library or its folder"),
        (&folder, "cublasCreate_v2:3", "cublasCreate: cuBLAS error 3"),
        (&folder, "cublasGemmEx:13", "cublasGemmEx: cuBLAS error 13"),
    ] {
        assert_eq!(run(64, cublas, fail), format!("{products}{expected} | 67109 | 0 objects left"), "{cublas} {fail}");
    }
    let failing = run(64, &folder, "cuMemcpyDtoDAsync_v2:1");
    let words = "cuda:0, copying on the device: an error (CUDA_ERROR_INVALID_VALUE)";
    assert_eq!(failing, format!("{words} | {words} | 0 objects left"));
}

/// The second call of each kind makes nothing anew, unless nothing is to be kept; nothing is left at the end either way.
#[test]
fn memory_is_kept_from_call_to_call() {
    let Some(fake) = Fake::build("pool") else { return };
    let settings = [("FAKE_CUDA_KERNELS", "any"), ("FAKE_CUDA_MEMORY", "67108864"), ("PULLBACK_POOL", "")];
    assert_eq!(fake.run("pool", &settings), "once, once, 0 objects left");
    let none = [settings[0], settings[1], ("PULLBACK_POOL", "none")];
    assert_eq!(fake.run("pool", &none), "every time, every time, 0 objects left");
}

#[test]
fn every_function_of_the_platform_works() {
    let Some(fake) = Fake::build("tour") else { return };
    assert_eq!(fake.run("tour", &[]), "6 launches, 0 objects left");
    assert_eq!(
        fake.run("modules", &[]),
        "2 modules | cuda:0, no kernels for compute capability 8.0: an error (CUDA_ERROR_NO_BINARY_FOR_GPU)"
    );
    let found = fake.run("devices", &[("FAKE_CUDA_DEVICES", "2"), ("FAKE_CUDA_COMPUTE", "75")]);
    assert!(found.contains("name: \"Fake 1\", compute: (7, 5), multiprocessors: 108"), "{found}");
    assert!(found.contains("memory_clock: 1593, memory_bus: 5120, driver: (12, 4)"), "{found}");
}

#[test]
fn every_refusal_has_its_message() {
    let Some(fake) = Fake::build("refusals") else { return };
    for (scenario, settings, expected) in [
        (
            "open",
            [("FAKE_CUDA_VERSION", "11080")],
            "the CUDA driver is too old: expected one for CUDA 12.4 or newer, found one for 11.8",
        ),
        ("devices", [("FAKE_CUDA_DEVICES", "0")], "no CUDA device: the driver is there, but shows none"),
        ("open", [("FAKE_CUDA_FAIL", "cuInit:100")], "no CUDA device: the driver is there, but shows none"),
        (
            "open",
            [("FAKE_CUDA_FAIL", "cuInit:803")],
            "the CUDA driver does not start: an error (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH)",
        ),
        ("open 3", [("FAKE_CUDA_DEVICES", "2")], "cuda:3: expected 0 to 1: this machine has 2 CUDA device(s)"),
        (
            "open",
            [("FAKE_CUDA_COMPUTE", "75")],
            "cuda:0 (Fake 0): wrong architecture: expected compute capability 8.0 or newer, found 7.5",
        ),
        (
            "open",
            [("FAKE_CUDA_FAIL", "cuModuleLoadData:209")],
            "cuda:0, no kernels for compute capability 8.0: embedded image: an error (CUDA_ERROR_NO_BINARY_FOR_GPU); no NVRTC",
        ),
        (
            "open",
            [("FAKE_CUDA_FAIL", "cuModuleLoadData:2")],
            "cuda:0, loading kernels: an error (CUDA_ERROR_OUT_OF_MEMORY)",
        ),
        ("allocate", [("FAKE_CUDA_MEMORY", "1000")], "cuda:0: out of memory: 2097152 bytes asked for, 1000 free"),
        (
            "pin",
            [("FAKE_CUDA_MEMORY", "1000")],
            "cuda:0, pinned host memory: out of memory: 2097152 bytes asked for, 0 free",
        ),
        (
            "refusals",
            [("FAKE_CUDA_DEVICES", "1")],
            "cuda:0, kernel `fake_kernel`: bytes of parameters: expected 24, found 23 | \
             cuda:0, kernel `fake_kernel`: bytes of dynamic shared memory: expected at most 165888, found 166912 | \
             cuda:0, kernel: not one of this device | \
             cuda:0, stream: not one of this device, or destroyed | \
             cuda:0, event: not one of this device, or destroyed",
        ),
    ] {
        assert_eq!(fake.run(scenario, &settings), expected, "{settings:?}");
    }
}

#[test]
fn a_fatal_error_ends_the_device_and_another_does_not() {
    let Some(fake) = Fake::build("launch") else { return };
    let failure = "unspecified launch failure (CUDA_ERROR_LAUNCH_FAILED)";
    assert_eq!(
        fake.run("launch", &[("FAKE_CUDA_FAIL", "cuLaunchKernel:719")]),
        format!(
            "cuda:0, kernel `fake_kernel`: {failure} | fatal: true | afterwards: cuda:0, kernel `fake_kernel`: {failure}"
        )
    );
    let later = format!("cuda:0, waiting for a stream (the last launch was kernel `fake_kernel`): {failure}");
    assert_eq!(
        fake.run("launch", &[("FAKE_CUDA_FAIL", "cuStreamSynchronize:719")]),
        format!("{later} | fatal: true | afterwards: {later}")
    );
    assert_eq!(
        fake.run("launch", &[("FAKE_CUDA_FAIL", "cuLaunchKernel:701")]),
        "cuda:0, kernel `fake_kernel`: an error (CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES) | fatal: false | afterwards: works"
    );
}

#[test]
fn a_machine_without_a_driver_is_told_so() {
    // A file that is no library, under the driver's names: the loader then finds none, even where there is one.
    let folder = env::temp_dir().join(format!("pullback-fake-none-{}", process::id()));
    fs::create_dir_all(&folder).unwrap();
    for name in ["libcuda.so", "libcuda.so.1"] {
        fs::write(folder.join(name), "no library").unwrap();
    }
    let fake = Fake(folder);
    for scenario in ["open", "devices"] {
        assert_eq!(fake.run(scenario, &[]), "no CUDA driver (libcuda) on this machine");
    }
}
