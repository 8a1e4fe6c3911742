//! Matrix instructions, copies in the background and barriers of parts of a block.

use super::*;

/// How products of one kind are rounded: numbers to so many bits, in blocks of so many terms.
#[derive(Clone, Copy, Debug)]
struct Kind {
    name: &'static str,
    bits: i32,
    block: u32,
}

const KINDS: [Kind; 2] = [Kind { name: "tf32", bits: 11, block: 4 }, Kind { name: "bf16", bits: 8, block: 8 }];

/// Matrices with 16 columns or rows between them, row after row.
#[derive(Clone, Debug)]
struct Matrices {
    rows: usize,
    columns: usize,
    left: Vec<f32>,
    right: Vec<f32>,
    start: Vec<f32>,
}

const INNER: usize = 16;

impl Matrices {
    /// Of what `number` makes of their number (0 to 2) and each element's row and column.
    fn new(rows: usize, columns: usize, number: impl Fn(u32, usize, usize) -> f32) -> Self {
        let matrix = |which, rows: usize, columns: usize| -> Vec<f32> {
            (0..rows * columns).map(|i| number(which, i / columns, i % columns)).collect()
        };
        let (left, right, start) = (matrix(0, rows, INNER), matrix(1, INNER, columns), matrix(2, rows, columns));
        Self { rows, columns, left, right, start }
    }

    /// Numbers of all sizes between 1/64 and 64.
    fn random(rows: usize, columns: usize) -> Self {
        Self::new(rows, columns, |which, row, column| {
            let bits = hash((which << 20) + ((row as u32) << 10) + column as u32);
            let size = f32::from_bits(0x3f80_0000 + (bits & 0x7f_ffff)) * ((bits >> 24) as f32 % 12.0 - 6.0).exp2();
            if bits & 0x80_0000 == 0 { size } else { -size }
        })
    }

    fn input(&self) -> Vec<f32> {
        [&self.left[..], &self.right, &self.start].concat()
    }

    /// start + times · left · right of numbers rounded to so many bits, and the same of absolute values.
    fn product(&self, kind: Kind, times: f64) -> (Vec<f64>, Vec<f64>) {
        let mut sums = (Vec::new(), Vec::new());
        for (i, &start) in self.start.iter().enumerate() {
            let (row, column) = (i / self.columns, i % self.columns);
            let terms = (0..INNER).map(|k| {
                let (a, b) = (self.left[row * INNER + k], self.right[k * self.columns + column]);
                times * rounded(a, kind) * rounded(b, kind)
            });
            sums.0.push(f64::from(start) + terms.clone().sum::<f64>());
            sums.1.push(f64::from(start.abs()) + terms.map(f64::abs).sum::<f64>());
        }
        sums
    }
}

fn hash(mut x: u32) -> u32 {
    for _ in 0..2 {
        x = (x ^ x >> 16).wrapping_mul(0x7feb_352d);
        x = (x ^ x >> 15).wrapping_mul(0x846c_a68b);
    }
    x ^ x >> 16
}

/// To the nearest with so many bits, from the middle away from zero for TF32 and to the even one for bfloat16.
fn rounded(x: f32, kind: Kind) -> f64 {
    if x == 0.0 {
        return 0.0;
    }
    let unit = 2f64.powi(f64::from(x).abs().log2().floor() as i32 - kind.bits + 1);
    let units = f64::from(x) / unit;
    unit * if kind.bits == 11 { units.round() } else { units.round_ties_even() }
}

/// What a law makes of matrices: `outputs` results.
fn multiply(checked: bool, law: &str, kind: Kind, matrices: &Matrices, n: u32, outputs: usize) -> Vec<f32> {
    let bench = Bench::build(checked);
    let count = outputs * matrices.start.len();
    let (input, output) = (bench.array(&matrices.input()), bench.array(&vec![0.0f32; count]));
    let threads = if matrices.rows == 64 { 128 } else { 32 };
    let params = Params { input, output, n, ..Default::default() };
    bench.run(&format!("{law}_{}", kind.name), (1, threads, 0), params).unwrap();
    bench.read(output, count)
}

fn multiply_warp(kind: Kind, matrices: &Matrices) -> Vec<f32> {
    let [unchecked, checked] = BUILDS.map(|checked| multiply(checked, "law_mma", kind, matrices, 0, 1));
    let bits = |values: &[f32]| -> Vec<u32> { values.iter().map(|x| x.to_bits()).collect() };
    assert_eq!(bits(&unchecked), bits(&checked));
    unchecked
}

#[test]
fn numbers_are_rounded_to_the_nearest() {
    let one = 1.0f32.to_bits();
    let cases: [(u32, u32, u32); 13] = [
        (one, one, 0x3f80),
        (one + 0xfff, one, 0x3f80),
        (one + 0x1000, one + 0x2000, 0x3f80),
        (one + 0x3000, one + 0x4000, 0x3f80),
        (one + 0x8000, one + 0x8000, 0x3f80), // the middle for bfloat16: even
        (one + 0x8001, one + 0x8000, 0x3f81),
        (one + 0x1_8000, one + 0x1_8000, 0x3f82),
        (0x8000_0000 + one + 0x1000, 0x8000_0000 + one + 0x2000, 0xbf80),
        (0x7f7f_ffff, 0x7f80_0000, 0x7f80), // beyond the largest
        (0xff80_0000, 0xff80_0000, 0xff80),
        (0, 0, 0),
        (0x8000_0000, 0x8000_0000, 0x8000),
        (0x0000_f000, 0x0001_0000, 1), // subnormal
    ];
    let input: Vec<f32> = cases.iter().map(|case| f32::from_bits(case.0)).collect();
    let bench = Bench::build(false);
    let output = bench.array(&[0.0f32; 26]);
    let params = Params { input: bench.array(&input), output, n: 13, ..Default::default() };
    bench.run("law_round", (1, 32, 0), params).unwrap();
    for (found, (bits, tf32, bf16)) in bench.read::<[u32; 2]>(output, 13).iter().zip(cases) {
        assert_eq!(found, &[tf32, 0xbf80_0000 + bf16], "{bits:#x}");
    }
    let params = Params { input: bench.array(&[f32::NAN]), output, n: 1, ..Default::default() };
    bench.run("law_round", (1, 32, 0), params).unwrap();
    assert_eq!(bench.read::<u32>(output, 2), [0x7fff_ffff, 0xbf80_7fff]);
}

#[test]
fn products_of_small_integers_are_exact() {
    // Every element of the three matrices differs from its neighbours, so that any other layout shows.
    for kind in KINDS {
        let matrices = Matrices::new(32, 24, |which, row, column| {
            ((hash(which * 7919 + row as u32 * 64 + column as u32) % 31) as f32) - 15.0
        });
        let expected: Vec<f32> = matrices.product(kind, 1.0).0.iter().map(|&x| x as f32).collect();
        assert_eq!(multiply_warp(kind, &matrices), expected, "{kind:?}");
    }
}

#[test]
fn products_are_within_the_bound_of_the_model_and_not_rounded_to_nearest() {
    for kind in KINDS {
        let matrices = Matrices::random(32, 24);
        let (exact, sizes) = matrices.product(kind, 1.0);
        let found = multiply_warp(kind, &matrices);
        // Each block cuts off its terms, the sum before it, and the result.
        let bound = f64::from(16 / kind.block * (kind.block + 3)) * 2f64.powi(-24);
        let (mut differ, mut inward) = (0, 0);
        for ((&found, &exact), &size) in found.iter().zip(&exact).zip(&sizes) {
            assert!((f64::from(found) - exact).abs() <= bound * size, "{kind:?}: {found} for {exact}");
            differ += i32::from(found != exact as f32);
            inward += i32::from(f64::from(found).abs() < exact.abs());
        }
        assert!(differ > 300 && inward > 384, "{kind:?}: {differ} differ from the nearest, {inward} are cut off");
    }
}

/// One row and one column: 1 (or `start`) plus the products of the two lists.
fn sum(kind: Kind, start: f32, left: &[f32], right: &[f32]) -> f32 {
    let number = |which, row, column| match which {
        0 if row == 3 => left.get(column).copied().unwrap_or(0.0),
        1 if column == 5 => right.get(row).copied().unwrap_or(0.0),
        2 if (row, column) == (3, 5) => start,
        _ => 0.0,
    };
    let found = multiply_warp(kind, &Matrices::new(32, 24, number));
    let finite = [left, right, &[start]].concat().iter().all(|x| x.is_finite());
    let nothing_elsewhere = found.iter().enumerate().all(|(i, &x)| i == 3 * 24 + 5 || x.to_bits() == 0);
    assert!(nothing_elsewhere || !finite, "{found:?}");
    found[3 * 24 + 5]
}

#[test]
fn sums_are_cut_off_one_bit_below_the_last_place() {
    let ulp = f32::EPSILON; // 2^-23
    for kind in KINDS {
        let small = [2f32.powi(-12); 16];
        let first = |count: usize| sum(kind, 1.0, &small[..count], &small);
        // Each product is half of an ulp, the bit that is kept: they add up, and what is left over at the end is cut off.
        assert_eq!([1, 2, 3, 4].map(first), [1.0, 1.0 + ulp, 1.0 + ulp, 1.0 + 2.0 * ulp]);
        assert_eq!(1.0 + 3.0 * 2f32.powi(-24), 1.0 + 2.0 * ulp, "to the nearest it is another number");
        // Of 2^-25 nothing is kept, however many there are.
        assert_eq!(sum(kind, 1.0, &[2f32.powi(-13); 16], &small), 1.0);
        // Toward zero for negative numbers, too.
        assert_eq!(sum(kind, -1.0, &[-(2f32.powi(-12)); 3], &small), -1.0 - ulp);
        assert_eq!(sum(kind, 1.0, &[-(2f32.powi(-13)); 4], &small), 1.0);
        assert_eq!(sum(kind, 1.0, &[-(2f32.powi(-12)); 1], &small), 1.0 - 2f32.powi(-24));
        // One of each pair of blocks: each is cut off for itself.
        let mut apart = [0.0; 16];
        apart[0] = small[0];
        apart[kind.block as usize] = small[0];
        assert_eq!(sum(kind, 1.0, &apart, &small), 1.0);
        // Products are not normalised before: 1.5 · 1.5 has the exponent of 1, and 2^-24 beside it counts in full.
        assert_eq!(sum(kind, 2f32.powi(-24), &[1.5], &[1.5]), 2.25);
        assert_eq!(
            sum(
                kind,
                0.0,
                &[1.5, 2f32.powi(-12), 2f32.powi(-12), 2f32.powi(-12), 0.0],
                &[1.5, small[0], small[0], 2.0 * small[0]]
            ),
            2.25 + 2f32.powi(-22)
        );
        // All that a large sum leaves comes back when it goes.
        assert_eq!(sum(kind, 0.0, &[1e6, 1e6, 1.0], &[1.0, -1.0, 1.0]), 1.0);
    }
}

#[test]
fn extreme_numbers_are_as_exact() {
    for kind in KINDS {
        let matrices = Matrices::random(32, 24);
        let usual = multiply_warp(kind, &matrices);
        for scale in [100, -80] {
            // Both ways to compute, of which one is for numbers such as these.
            let mut scaled = matrices.clone();
            scaled.left.iter_mut().chain(&mut scaled.start).for_each(|x| *x *= 2f32.powi(scale));
            let expected: Vec<f32> = usual.iter().map(|x| x * 2f32.powi(scale)).collect();
            assert_eq!(multiply_warp(kind, &scaled), expected, "{kind:?}, 2^{scale}");
        }
        let tiny = 2f32.powi(-120);
        assert_eq!(sum(kind, 2f32.powi(-149), &[], &[]), 2f32.powi(-149), "subnormal numbers count");
        assert_eq!(sum(kind, 0.0, &[2f32.powi(-130)], &[2f32.powi(100)]), 2f32.powi(-30));
        assert_eq!(sum(kind, 0.0, &[tiny, tiny], &[2f32.powi(-28), 2f32.powi(-20)]), 2f32.powi(-140) + 2f32.powi(-148));
        let huge = 2f32.powi(127);
        assert_eq!(sum(kind, 1.0, &[huge, huge], &[4.0, -4.0]), 0.0, "products do not overflow");
    }
}

#[test]
fn infinities_and_nan_go_through() {
    for kind in KINDS {
        assert_eq!(sum(kind, 1.0, &[f32::INFINITY], &[2.0]), f32::INFINITY);
        assert_eq!(sum(kind, f32::NEG_INFINITY, &[3.0], &[2.0]), f32::NEG_INFINITY);
        assert_eq!(sum(kind, 1.0, &[2f32.powi(127)], &[4.0]), f32::INFINITY, "beyond the largest");
        for (start, left, right) in
            [(f32::NAN, 1.0, 1.0), (1.0, f32::NAN, 1.0), (f32::INFINITY, f32::NEG_INFINITY, 1.0)]
        {
            assert!(sum(kind, start, &[left], &[right]).is_nan());
        }
    }
}

#[test]
fn a_warpgroup_multiplies_as_its_warps_do() {
    let small = Matrices::new(64, 64, |which, row, column| {
        ((hash(which * 7919 + row as u32 * 64 + column as u32) % 15) as f32) - 7.0
    });
    for kind in KINDS {
        for (n, matrices) in [(0, Matrices::random(64, 64)), (1, Matrices::random(64, 64)), (0, small.clone())] {
            for checked in BUILDS {
                let found = multiply(checked, "law_wgmma", kind, &matrices, n, 2);
                assert_eq!(found[..4096], found[4096..], "{kind:?}, n = {n}");
                if matrices.left == small.left {
                    let expected: Vec<f32> = matrices.product(kind, 2.0).0.iter().map(|&x| x as f32).collect();
                    assert_eq!(found[..4096], expected, "{kind:?}");
                }
            }
        }
        let kernel = format!("law_wgmma_{}", kind.name);
        assert_eq!(fault_of(false, &kernel, 128, 2), None);
        assert_fault_of(
            true,
            &kernel,
            128,
            2,
            "in a matrix product, which thread 0 wrote without a fence_async after it",
        );
    }
    for checked in BUILDS {
        let missing = "64 of 128 threads never come. Of all, threads 0 to 63: a warpgroup's product in laws.cu:";
        assert_fault(checked, "fault_group_incomplete", 0, missing);
    }
}

#[test]
fn copies_arrive_when_they_are_waited_for() {
    let input: Vec<f32> = (0..7 * 512u16).map(f32::from).collect();
    for checked in BUILDS {
        let bench = Bench::build(checked);
        let run = |kernel| {
            let output = bench.array(&[0.0f32; 128]);
            let params = Params { input: bench.array(&input), output, n: 7, ..Default::default() };
            bench.run(kernel, (1, 128, 0), params).unwrap();
            bench.read::<f32>(output, 128)
        };
        let expected: Vec<f32> =
            (0..128).map(|i| input.chunks(512).map(|tile| tile[(i * 4 + 64) % 512]).sum()).collect();
        assert_eq!(run("law_copies"), expected);
        if !checked {
            assert!(run("fault_copies_not_awaited").iter().all(|x| x.is_nan()));
            assert!(run("fault_copies_awaited_late").iter().all(|x| x.is_nan()));
        }
    }
    let pending = "in shared memory, which a copy of thread ";
    assert_fault_of(true, "fault_copies_not_awaited", 128, 7, pending);
    assert_fault_of(true, "fault_copies_not_awaited", 128, 7, "writes that was not waited for");
    assert_fault_of(true, "fault_copies_awaited_late", 128, 7, pending);
    assert_fault_of(true, "fault_copies_not_shared", 128, 7, "which no thread has written yet");
    assert_fault_of(true, "fault_copies_too_early", 128, 7, pending);
}

#[test]
fn a_ring_of_stages_feeds_two_warpgroups() {
    const BLOCKS: usize = 2;
    for checked in BUILDS {
        for n in [1, 2, 3, 4, 11] {
            let bench = Bench::build(checked);
            let input: Vec<f32> = (0..n * 512).map(|i| (hash(i) % 64) as f32).collect();
            let output = bench.array(&[0.0f32; BLOCKS * 256 * 5]);
            let params = Params { input: bench.array(&input), output, n, ..Default::default() };
            bench.run("law_ring", (BLOCKS as u32, 288, 0), params).unwrap();
            let found: Vec<f32> = bench.read(output, BLOCKS * 256 * 5);
            let (sums, products) = found.split_at(BLOCKS * 256);
            for i in 0..BLOCKS * 256 {
                let thread = i % 256;
                let at = (thread * 5 + thread % 32) % 512;
                assert_eq!(sums[i], input.chunks(512).map(|tile| tile[at]).sum::<f32>(), "thread {thread}");
                for j in 0..4 {
                    // Columns of core matrices: 2 along k, 4 numbers each.
                    let column = j * 16 + thread % 4 * 2 + j % 2;
                    let place = |k: usize| column / 8 * 64 + k / 4 * 32 + column % 8 * 4 + k % 4;
                    let of_tile = |tile: &[f32]| (0..8).map(|k| tile[place(k)]).sum::<f32>();
                    let expected = (thread / 16) as f32 * input.chunks(512).map(of_tile).sum::<f32>();
                    assert_eq!(products[i * 4 + j], expected, "thread {thread}, column {column}");
                }
            }
        }
    }
}

#[test]
fn mistakes_with_a_ring_are_found() {
    for checked in BUILDS {
        let forgotten = "thread 256: await_arrivals in laws.cu:";
        assert_fault_of(checked, "fault_arrival_forgotten", 288, 10, forgotten);
        let forgotten = "(phase 0 of empty[0] lacks 1 of 8 arrivals and 0 bytes); threads 257 to 287 have ended";
        assert_fault_of(checked, "fault_arrival_forgotten", 288, 10, forgotten);
        let bytes = "(phase 0 of full[0] lacks 0 of 1 arrivals and -1024 bytes)";
        assert_fault_of(checked, "fault_bytes_forgotten", 288, 10, bytes);
        let left = "ends the block while bulk copies that full[1] counts are on their way";
        assert_fault_of(checked, "fault_copies_left", 288, 10, left);
    }
    let unawaited = "in shared memory, which a bulk copy writes, without awaiting full[";
    let unordered = "with no barrier between them";
    for (kernel, expected) in [
        ("fault_stage_not_awaited", unawaited),
        ("fault_another_stage", "ring["),
        ("fault_released_early", "ring["),
        ("fault_too_few_arrivals", unordered),
        ("fault_warp_not_together", unordered),
    ] {
        assert_fault_of(true, kernel, 288, 10, expected);
    }
    assert_eq!(fault_of(false, "fault_warp_not_together", 288, 10), None, "unchecked");
    assert_fault_of(
        true,
        "fault_released_before_product",
        160,
        3,
        "copies to stage[0] in shared memory, which thread 0 read",
    );
    assert_eq!(fault_of(true, "fault_released_before_product", 160, 1), None, "nobody writes it again");
}

#[test]
fn whoever_awaits_a_bulk_copy_awaits_it_for_all() {
    for checked in BUILDS {
        let bench = Bench::build(checked);
        let input: Vec<f32> = (0..128u16).map(f32::from).collect();
        let output = bench.array(&[0.0f32; 128]);
        let params = Params { input: bench.array(&input), output, ..Default::default() };
        bench.run("law_bulk_copy", (1, 128, 0), params).unwrap();
        assert_eq!(bench.read::<f32>(output, 128), input);
    }
    let unawaited = "in shared memory, which a bulk copy writes, without awaiting full[0]";
    assert_fault_of(true, "law_bulk_copy", 128, 1, unawaited);
    assert_fault_of(
        false,
        "law_bulk_copy",
        128,
        1,
        "ends the block while bulk copies that full[0] counts are on their way",
    );
    assert_fault_of(true, "law_bulk_copy", 128, 2, "copies to row[0] in shared memory, which a bulk copy writes");
    for checked in BUILDS {
        assert_fault_of(checked, "law_bulk_copy", 128, 3, "calls copy_bulk in laws.cu:");
        assert_fault_of(checked, "law_bulk_copy", 128, 4, "on a barrier without init_arrivals");
        assert_fault_of(
            checked,
            "law_bulk_copy",
            128,
            5,
            "where all 1 arrivals of phase 0 have come and its copies have not",
        );
    }
}

#[test]
fn warps_meet_at_barriers_of_their_own() {
    for checked in BUILDS {
        let bench = Bench::build(checked);
        let output = bench.array(&[0.0f32; 512]);
        bench.run("law_pairs", (2, 256, 0), Params { output, n: 5, ..Default::default() }).unwrap();
        for (i, sum) in (0u32..).zip(bench.read::<f32>(output, 512)) {
            assert_eq!(sum, (5 * ((i % 256) ^ 32) + 5 * ((i % 256) ^ 1) + 20) as f32);
        }
        let missing = "32 of 256 threads never come. Of all, threads 0 to 159: meet_warps in laws.cu:";
        assert_fault(checked, "fault_warp_missing", 0, missing);
        assert_fault(
            checked,
            "fault_warp_missing",
            0,
            "threads 160 to 191 have ended; threads 192 to 255: meet_warps in",
        );
        assert_fault(checked, "fault_warp_in_part", 0, "which then has only the lanes 0x0000ffff of warp 0");
    }
    assert_fault(true, "fault_pairs_mixed", 5, "in shared memory, which thread ");
    assert_eq!(fault(false, "fault_pairs_mixed", 5), None, "unchecked");
}

/// How many multiplications a second one thread of the system does.
#[test]
#[ignore = "measures"]
fn speed_of_products() {
    let bench = Bench::new(EmulatorOptions { threads: Some(1), ..Default::default() });
    let (output, n) = (bench.array(&[0.0f32; 256]), 20_000);
    let start = std::time::Instant::now();
    bench.run("law_mma", (1, 256, 0), Params { output, n, ..Default::default() }).unwrap();
    println!("{:.0} million a second", f64::from(n) * 8.0 * 8192.0 / start.elapsed().as_secs_f64() / 1e6);
}
