//! The emulator on the kernels of `kernels/emulator/laws.cu`.

mod tensor;

use bytemuck::{Pod, Zeroable};

use super::{Emulator, EmulatorOptions};
use crate::cuda::platform::{Address, Geometry, Handle, Platform};
use crate::error::{Error, Result};

/// `LawParams`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
struct Params {
    input: Address,
    output: Address,
    count: Address,
    n: u32,
    padding: u32,
}

const BUILDS: [bool; 2] = [false, true];

/// A device with one stream, which every helper waits for.
#[derive(Debug)]
struct Bench {
    emulator: Emulator,
    stream: Handle,
}

impl Bench {
    fn new(options: EmulatorOptions) -> Self {
        let emulator = Emulator::new(options).unwrap();
        let stream = emulator.create_stream().unwrap();
        Self { emulator, stream }
    }

    fn build(checked: bool) -> Self {
        Self::new(EmulatorOptions { checked, ..Default::default() })
    }

    fn array<T: Pod>(&self, values: &[T]) -> Address {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let address = self.emulator.allocate(bytes.len()).unwrap();
        // SAFETY: the allocation is as long; the values live until the stream is done.
        unsafe { self.emulator.upload(self.stream, address, bytes.as_ptr(), bytes.len()) }.unwrap();
        self.emulator.synchronise(self.stream).unwrap();
        address
    }

    fn read<T: Pod>(&self, address: Address, count: usize) -> Vec<T> {
        let mut values = vec![T::zeroed(); count];
        self.download(&mut values, address);
        self.emulator.synchronise(self.stream).unwrap();
        values
    }

    /// The caller waits for the stream while the values still live.
    fn download<T: Pod>(&self, values: &mut [T], from: Address) {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(values);
        // SAFETY: the platform checks the allocation's length; every caller waits before it drops the values.
        unsafe { self.emulator.download(self.stream, bytes.as_mut_ptr(), from, bytes.len()) }.unwrap();
    }

    fn launch(&self, kernel: &str, (blocks, threads, shared): (u32, u32, u32), params: Params) -> Result<()> {
        let kernel = self.emulator.kernel(kernel)?.expect("a kernel of laws.cu");
        let geometry = Geometry { blocks, threads, shared };
        // SAFETY: these are the kernels' parameters; the arrays live as long as the device.
        unsafe { self.emulator.launch(self.stream, kernel, geometry, bytemuck::bytes_of(&params)) }
    }

    /// Launches and waits.
    fn run(&self, kernel: &str, shape: (u32, u32, u32), params: Params) -> Result<()> {
        self.launch(kernel, shape, params)?;
        self.emulator.synchronise(self.stream)
    }
}

/// What a faulty kernel is reported as, with three blocks of 256 threads.
fn fault(checked: bool, kernel: &str, n: u32) -> Option<String> {
    fault_of(checked, kernel, 256, n)
}

/// The same with blocks of so many threads.
fn fault_of(checked: bool, kernel: &str, threads: u32, n: u32) -> Option<String> {
    let bench = Bench::build(checked);
    let (input, output) = (bench.array(&[1.0f32; 16384]), bench.array(&[0.0f32; 16384]));
    let error = bench.run(kernel, (3, threads, 0), Params { input, output, n, ..Default::default() }).err()?;
    assert!(error.is_fatal() && !error.is_input());
    assert_eq!(bench.emulator.free_memory().unwrap_err().to_string(), error.to_string(), "the device is lost");
    assert_eq!(bench.emulator.synchronise(bench.stream).unwrap_err().to_string(), error.to_string());
    let message = error.to_string();
    assert!(message.starts_with(&format!("emulator: kernel {kernel}: block 0, thread ")), "{message}");
    Some(message)
}

fn assert_fault(checked: bool, kernel: &str, n: u32, expected: &str) {
    assert_fault_of(checked, kernel, 256, n, expected);
}

fn assert_fault_of(checked: bool, kernel: &str, threads: u32, n: u32, expected: &str) {
    let message = fault_of(checked, kernel, threads, n);
    let message = message.unwrap_or_else(|| panic!("{kernel}: no fault in the build checked: {checked}"));
    assert!(message.contains(expected), "expected {expected:?} in {message:?}");
}

#[test]
fn sums_by_shared_memory_and_by_shuffles_are_the_sum() {
    for checked in BUILDS {
        let bench = Bench::build(checked);
        let input: Vec<f32> = (0..40_000u16).map(|i| f32::from(i % 17)).collect();
        for (blocks, threads) in [(1, 32), (3, 64), (40, 256)] {
            let output = bench.array(&vec![0.0f32; 2 * blocks as usize]);
            let params =
                Params { input: bench.array(&input), output, count: bench.array(&[0u32]), n: 40_000, padding: 0 };
            bench.run("law_sum", (blocks, threads, 0), params).unwrap();
            let sums: Vec<f32> = bench.read(output, 2 * blocks as usize);
            assert!(sums.chunks(2).all(|pair| pair[0] == pair[1]), "{sums:?}");
            assert_eq!(sums.iter().step_by(2).sum::<f32>(), input.iter().sum::<f32>());
            assert_eq!(bench.read::<u32>(params.count, 1), [blocks]);
        }
    }
}

#[test]
fn every_thread_of_a_large_grid_runs_once() {
    for (checked, threads) in [(false, None), (false, Some(1)), (true, Some(3))] {
        let bench = Bench::new(EmulatorOptions { checked, threads, ..Default::default() });
        let input: Vec<f32> = (0..300_001u32).map(|i| i as f32).collect();
        let output = bench.array(&vec![0.0f32; input.len()]);
        let params = Params { input: bench.array(&input), output, n: input.len() as u32, ..Default::default() };
        bench.run("law_double", (1173, 256, 0), params).unwrap();
        assert!(bench.read::<f32>(output, input.len()).iter().zip(&input).all(|(out, x)| *out == 2.0 * x));
    }
}

#[test]
fn dynamic_shared_memory_moves_by_fours() {
    for checked in BUILDS {
        let bench = Bench::build(checked);
        let input: Vec<f32> = (0..1024u16).map(f32::from).collect();
        let output = bench.array(&[0.0f32; 1024]);
        let params = Params { input: bench.array(&input), output, ..Default::default() };
        bench.run("law_reverse", (4, 64, 1024), params).unwrap();
        let expected: Vec<f32> = input.chunks(256).flat_map(|block| block.iter().rev().copied()).collect();
        assert_eq!(bench.read::<f32>(output, 1024), expected);
    }
}

#[test]
fn warps_meet_in_halves_and_shuffle_every_type() {
    let expected = |i: u32| {
        let (lane, first) = (i % 32, i - i % 32);
        let rounds: u32 = (0..5).map(|round| (i ^ 5) + round + (i ^ 1) + round).sum();
        let half = if lane < 16 { first + 3 + if lane == 0 { i } else { i - 1 } + (i ^ 15) } else { 0 };
        rounds + half + first + lane / 8 * 8 + 2 + 2000
    };
    for checked in BUILDS {
        let bench = Bench::build(checked);
        let output = bench.array(&[0.0f32; 256]);
        bench.run("law_warps", (2, 128, 0), Params { output, ..Default::default() }).unwrap();
        let found: Vec<f32> = bench.read(output, 256);
        for (i, &value) in (0u32..).zip(&found) {
            assert_eq!(value, expected(i % 128) as f32, "thread {i}");
        }
    }
}

#[test]
fn missing_threads_are_reported_in_both_builds() {
    for checked in BUILDS {
        let skipped = "waits at __syncthreads in laws.cu:";
        assert_fault(checked, "fault_barrier_skipped", 0, skipped);
        assert_fault(checked, "fault_barrier_skipped", 0, "192 of 256 threads never come: thread 64 has ended");
        assert_fault(checked, "fault_barriers_differ", 0, "where thread 0 waits at the one in laws.cu:");
        let missing = "with the mask 0xffffffff, to which the lanes 0x00000020 never come: thread 37 has ended";
        assert_fault(checked, "fault_lane_missing", 0, missing);
        assert_fault(
            checked,
            "fault_shuffles_differ",
            0,
            "lanes 0xffff0000 never come: thread 16 waits at a shuffle in",
        );
        assert_fault(checked, "fault_lane_not_in_mask", 0, "thread 16 calls __syncwarp in");
    }
}

#[test]
fn misused_shared_memory_is_reported_in_the_checked_build() {
    let no_barrier = "with no barrier between them";
    for (kernel, n, expected) in [
        ("fault_read_after_write", 0, "in shared memory, which thread "),
        ("fault_write_after_read", 0, "writes row[0] in shared memory, which thread "),
        ("fault_race_in_warp", 0, "in shared memory, which thread "),
        ("fault_two_writes", 0, "thread 1 writes total[0] in shared memory, which thread 0 wrote"),
    ] {
        assert_fault(true, kernel, n, expected);
        assert_fault(true, kernel, n, no_barrier);
        assert_eq!(fault(false, kernel, n), None, "unchecked");
    }
    assert_fault(true, "fault_index", 256, "writes row[256], a shared array of 256");
    assert_fault(true, "fault_index", 1 << 31, "writes row[-2147483648], a shared array of 256");
    assert_fault(true, "fault_unwritten", 0, "thread 5 reads row[5] in shared memory, which no thread has written yet");
    assert_fault(true, "fault_unaligned", 0, "writes 16 bytes at once at row[1], which is not aligned to them");
}

#[test]
fn the_first_block_at_fault_is_reported_in_every_run() {
    for _ in 0..20 {
        let bench = Bench::new(EmulatorOptions { threads: Some(4), ..Default::default() });
        let error =
            bench.run("fault_in_one_block", (1000, 256, 0), Params { n: 700, ..Default::default() }).unwrap_err();
        assert!(error.to_string().contains(": block 700, thread 0 waits at __syncthreads"), "{error}");
    }
}

#[test]
fn a_device_works_after_another_was_lost() {
    assert!(fault(false, "fault_lane_missing", 0).is_some());
    let bench = Bench::build(false);
    bench.run("law_barriers", (5, 1024, 0), Params { n: 10, ..Default::default() }).unwrap();
}

#[test]
fn work_is_done_only_once_somebody_waits() {
    let bench = Bench::build(false);
    let (input, output) = (bench.array(&[1.0f32, 2.0]), bench.array(&[0.0f32; 2]));
    let mut found = [-1.0f32; 2];
    bench.launch("law_double", (1, 32, 0), Params { input, output, n: 2, ..Default::default() }).unwrap();
    bench.download(&mut found, output);
    assert_eq!(found, [-1.0; 2]);
    bench.emulator.synchronise(bench.stream).unwrap();
    assert_eq!(found, [2.0, 4.0]);
}

#[test]
fn a_stream_waits_for_the_other_up_to_the_event() {
    let bench = Bench::build(false);
    let platform = &bench.emulator;
    let (other, event, later) =
        (platform.create_stream().unwrap(), platform.create_event().unwrap(), platform.create_event().unwrap());
    let bytes = bench.array(&[0u8; 3]);
    let mut found = [9u8; 3];
    // SAFETY: inside the allocation.
    let fill = |offset: u64, byte| unsafe { platform.fill(other, bytes + offset, byte, 1) }.unwrap();
    platform.wait(bench.stream, event).unwrap(); // never recorded: nothing to wait for
    fill(0, 1);
    platform.record(event, other).unwrap();
    fill(1, 2);
    platform.wait(bench.stream, event).unwrap();
    bench.download(&mut found, bytes);
    platform.record(later, bench.stream).unwrap();
    assert!(platform.elapsed(event, later).is_err(), "neither has happened");

    platform.synchronise_event(later).unwrap();
    assert_eq!(found, [1, 0, 0], "the second fill comes after the event");
    assert!(platform.elapsed(event, later).unwrap() >= 0.0);
    assert!(platform.elapsed(later, event).unwrap() <= 0.0);
    platform.destroy_stream(other);
    assert_eq!(bench.read::<u8>(bytes, 3), [1, 2, 0], "a stream does what it was given before it goes");
    assert!(platform.synchronise(other).unwrap_err().to_string().contains("no such stream"));
    platform.destroy_event(event);
    assert!(platform.record(event, bench.stream).unwrap_err().to_string().contains("no such event"));
}

#[test]
fn a_graph_does_what_was_recorded_each_time() {
    let bench = Bench::build(false);
    let platform = &bench.emulator;
    let data = bench.array(&[1.0f32, 3.0]);
    let params = Params { input: data, output: data, n: 2, ..Default::default() };
    let mut found = [0.0f32; 2];
    platform.begin_graph(bench.stream).unwrap();
    bench.launch("law_double", (1, 32, 0), params).unwrap();
    bench.download(&mut found, data);
    assert!(platform.synchronise(bench.stream).unwrap_err().to_string().contains("records a graph"));
    let graph = platform.end_graph(bench.stream).unwrap();
    platform.synchronise(bench.stream).unwrap();
    assert_eq!(found, [0.0; 2], "recorded, not done");

    for times in 1..=3 {
        // SAFETY: array and destination still live.
        unsafe { platform.launch_graph(graph, bench.stream) }.unwrap();
        platform.synchronise(bench.stream).unwrap();
        assert_eq!(found, [1.0, 3.0].map(|x| x * f32::from(1u16 << times)));
    }
    assert!(platform.end_graph(bench.stream).is_err());
    platform.destroy_graph(graph);
    // SAFETY: refused.
    assert!(unsafe { platform.launch_graph(graph, bench.stream) }.is_err());
}

#[test]
fn wrong_launches_are_refused_and_harmless() {
    let bench = Bench::new(EmulatorOptions { failing_kernel: Some("law_warps".into()), ..Default::default() });
    let refused = |kernel, shape| {
        let error = bench.launch(kernel, shape, Params::default()).unwrap_err();
        assert!(matches!(error, Error::Cuda { fatal: false, .. }));
        error.to_string()
    };
    let threads = "emulator: kernel law_sum: expected blocks of 32 to 256 threads, a multiple of 32, found ";
    for n in [0, 33, 288, 1024] {
        assert_eq!(refused("law_sum", (1, n, 0)), format!("{threads}{n}"));
    }
    assert!(refused("law_sum", (0, 32, 0)).contains("blocks, found 0"));
    assert!(
        refused("law_reverse", (1, 64, 232_449))
            .contains("at most 232448 bytes of dynamic shared memory, found 232449")
    );
    assert!(refused("law_warps", (1, 128, 0)).contains("fails, as the emulator was told"));
    let kernel = bench.emulator.kernel("law_sum").unwrap().unwrap();
    let geometry = Geometry { blocks: 1, threads: 32, shared: 0 };
    // SAFETY: refused.
    let error = unsafe { bench.emulator.launch(bench.stream, kernel, geometry, &[0; 8]) }.unwrap_err();
    assert_eq!(error.to_string(), "emulator: kernel law_sum: its parameters have 32 bytes, found 8");
    assert_eq!(bench.emulator.kernel("law_of_nature").unwrap(), None);
    assert!(!bench.emulator.specialise("").unwrap());
    bench.run("law_barriers", (1, 32, 0), Params::default()).unwrap();
}

#[test]
fn memory_is_counted_and_starts_as_nan() {
    let bench = Bench::new(EmulatorOptions { memory: 1024, ..Default::default() });
    let platform = &bench.emulator;
    let address = platform.allocate(1000).unwrap();
    assert_eq!(platform.free_memory().unwrap(), 24);
    assert!(bench.read::<f32>(address, 250).iter().all(|value| value.is_nan()));
    let error = platform.allocate(25).unwrap_err();
    assert_eq!(error.to_string(), "emulator: out of memory: 25 bytes asked for, 24 free");
    // SAFETY: every range is refused.
    unsafe {
        let error = platform.fill(bench.stream, address + 8, 0, 1000).unwrap_err();
        assert!(error.to_string().contains("1000 bytes, where the allocation has 992 left"), "{error}");
        assert!(platform.fill(bench.stream, 1, 0, 1).unwrap_err().to_string().contains("no allocation"));
        assert!(platform.fill(bench.stream, address + 1000, 0, 1).is_err());
    }
    // SAFETY: nothing is pending.
    unsafe { platform.release(address) };
    assert_eq!(platform.free_memory().unwrap(), 1024);
    assert!(platform.allocate(0).is_err());

    let pinned = platform.allocate_pinned(100).unwrap();
    // SAFETY: 100 bytes, zeroed; then released once.
    unsafe {
        assert_eq!(std::slice::from_raw_parts(pinned, 100), [0; 100]);
        platform.release_pinned(pinned, 100);
    }
}

#[test]
fn options_are_checked() {
    let refused = |options| Emulator::new(options).unwrap_err().to_string();
    let none = refused(EmulatorOptions { multiprocessors: 0, ..Default::default() });
    assert_eq!(none, "emulator multiprocessors: expected at least 1, found 0");
    let none = refused(EmulatorOptions { threads: Some(0), ..Default::default() });
    assert_eq!(none, "emulator threads: expected at least 1, found 0");
    let emulator = Emulator::new(EmulatorOptions::default()).unwrap();
    assert_eq!((emulator.label().as_str(), emulator.properties().compute), ("emulator", (9, 0)));
    let emulator = Emulator::new(EmulatorOptions { compute: (8, 0), ..Default::default() }).unwrap();
    assert_eq!(emulator.properties().compute, (8, 0));
}
