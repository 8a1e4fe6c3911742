use super::*;

/// Blocks of no real memory: their address tells them apart.
fn block(at: Address, bytes: usize) -> Block<Address> {
    Block { at, bytes }
}

fn addresses(blocks: &[Block<Address>]) -> Vec<Address> {
    blocks.iter().map(|block| block.at).collect()
}

#[test]
fn the_smallest_block_that_fits_is_taken_and_none_that_is_far_too_large() {
    let shelf = Shelf::<Address>::new(1 << 30);
    let take = |bytes| shelf.take(bytes).map(|block| block.at);
    let mebi = 1 << 20;
    for (at, bytes) in [(1, 3 * mebi), (2, 2 * mebi), (3, 2 * mebi), (4, SLACK + 16)] {
        assert!(shelf.put(block(at, bytes)).is_empty());
    }
    assert_eq!(shelf.lock().bytes, (7 * mebi + SLACK + 16) as u64);
    assert_eq!(take(3 * mebi + 1), None, "too small");
    assert_eq!(take(mebi), None, "twice as large as what is asked for");
    assert_eq!(take(15), None, "more than the slack");
    assert_eq!(take(2 * mebi - 5), Some(3), "the last of two that are equal");
    assert_eq!(take(2 * mebi), Some(2));
    assert_eq!(take(2 * mebi - 1), None, "half as much again, and two bytes");
    assert_eq!(take(2 * mebi), Some(1));
    assert_eq!(take(16), Some(4), "as small as it is");
    assert_eq!(shelf.lock().bytes, 0);
}

#[test]
fn the_least_recently_used_go_where_there_are_too_many() {
    let shelf = Shelf::<Address>::new(100);
    assert_eq!(addresses(&shelf.put(block(1, 101))), [1], "larger than all that is kept");
    for (at, bytes) in [(2, 25), (3, 20), (4, 25), (5, 30)] {
        assert!(shelf.put(block(at, bytes)).is_empty());
    }
    assert!(shelf.put(block(6, 0)).is_empty(), "just full");
    let used_again = shelf.take(20);
    assert_eq!(used_again.map(|block| block.at), Some(3));
    assert!(used_again.is_some_and(|block| shelf.put(block).is_empty()));
    assert_eq!(addresses(&shelf.put(block(7, 40))), [2, 4]);
    assert_eq!(addresses(&shelf.lock().blocks), [5, 6, 3, 7]);
    assert_eq!(shelf.lock().bytes, 90);

    let shelf = Shelf::<Address>::new(1 << 30);
    let gone: Vec<Address> = (0..=BLOCKS as u64).flat_map(|at| shelf.put(block(at, 16))).map(|b| b.at).collect();
    assert_eq!((gone, shelf.lock().bytes), (vec![0], 16 * BLOCKS as u64));
}

#[cfg(all(feature = "emulator", not(pullback_sanitized)))]
mod on_the_emulator {
    use std::sync::Arc;

    use ndarray::{Array1, Array2, Array3};

    use super::*;
    use crate::cuda::emulator::{Emulator, EmulatorOptions};
    use crate::cuda::memory::{Buffer, Pinned, Stream};
    use crate::decoder::{Activation, Decoder, Head, Layer};
    use crate::geodesic::Options;
    use crate::model::Model;
    use crate::precision::Precision;

    const KIBI: usize = 1 << 10;
    const MEBI: usize = 1 << 20;

    fn device(options: EmulatorOptions) -> (Arc<Emulator>, Arc<dyn Platform>) {
        let emulator = Arc::new(Emulator::new(options).unwrap());
        (emulator.clone(), emulator)
    }

    fn with_memory(memory: usize) -> (Arc<Emulator>, Arc<dyn Platform>) {
        device(EmulatorOptions { memory: memory as u64, ..EmulatorOptions::default() })
    }

    /// Bytes that are allocated, kept ones included.
    fn allocated(platform: &Arc<dyn Platform>) -> u64 {
        platform.properties().memory + platform.pool().device_bytes() - platform.free_memory().unwrap()
    }

    fn model(platform: &Arc<dyn Platform>) -> Model<f32> {
        let layer = |inputs: usize, outputs: usize, activation| Layer {
            weight: Array2::from_shape_fn((outputs, inputs), |(i, j)| ((3 * i + 5 * j) as f64).sin()),
            bias: Array1::from_shape_fn(outputs, |i| 0.1 * i as f64),
            activation,
        };
        let layers = vec![layer(2, 7, Activation::Tanh), layer(7, 5, Activation::Identity)];
        let decoder = Decoder::new(vec![Head::new("decoder", layers).unwrap()]).unwrap();
        Model::on_cuda(Arc::clone(platform), &decoder, Precision::default()).unwrap()
    }

    fn latents(rows: usize, phase: f32) -> Array2<f32> {
        Array2::from_shape_fn((rows, 2), |(i, j)| (i as f32 + phase * j as f32).cos())
    }

    /// Every kind of call twice; how much each makes anew.
    fn calls(emulator: &Emulator, model: &Model<f32>) -> Vec<usize> {
        let (z, w) = (latents(9, 0.3), latents(9, 2.0));
        let curves = Array3::from_shape_fn((3, 5, 2), |(c, i, j)| (c + 2 * i + j) as f32 * 0.1);
        let mut made = Vec::new();
        let mut twice = |call: &dyn Fn() -> Vec<f32>| {
            let results = [(); 2].map(|()| {
                let before = emulator.created();
                let result = call();
                made.push(emulator.created() - before);
                result
            });
            assert_eq!(results[0], results[1]);
        };
        twice(&|| model.metric(z.view()).unwrap().into_iter().collect());
        twice(&|| model.jacobian(z.view()).unwrap().into_iter().collect());
        twice(&|| model.energy(curves.view()).unwrap().energy.to_vec());
        twice(&|| model.geodesics(z.view(), w.view(), &Options::default()).unwrap().length.to_vec());
        made
    }

    #[test]
    fn a_call_makes_nothing_that_an_equal_one_has_made_before() {
        let (emulator, platform) = with_memory(1 << 30);
        let model = model(&platform);
        let free = platform.free_memory().unwrap();
        let made = calls(&emulator, &model);
        assert!(made[0] > 0, "{made:?}");
        assert!(made.iter().skip(1).step_by(2).all(|&count| count == 0), "{made:?}");
        assert_eq!(platform.free_memory().unwrap(), free, "what is kept counts as free");
        assert!(platform.pool().device_bytes() > 0);
    }

    #[test]
    fn a_checked_emulator_keeps_nothing() {
        let (emulator, platform) = device(EmulatorOptions { checked: true, ..EmulatorOptions::default() });
        for _ in 0..2 {
            let before = emulator.created();
            let (_stream, _buffer) = (Stream::new(&platform).unwrap(), Buffer::<f32>::new(&platform, 5).unwrap());
            let _pinned = Pinned::<f32>::new(&platform, 5).unwrap();
            assert_eq!(emulator.created(), before + 3);
        }
        assert_eq!(allocated(&platform), 0);
    }

    #[test]
    fn kept_memory_is_as_new() {
        let (emulator, platform) = with_memory(MEBI);
        for count in [100, 90] {
            let buffer = Buffer::<f32>::new(&platform, count).unwrap();
            let mut pinned = Pinned::<f32>::new(&platform, count).unwrap();
            assert_eq!(pinned.as_slice(), vec![0.0; count]);
            let stream = Stream::new(&platform).unwrap();
            // SAFETY: everything lives until the stream was waited for.
            unsafe { stream.download((&pinned, 0), (&buffer, 0), count).unwrap() };
            stream.synchronise().unwrap();
            assert!(pinned.as_slice().iter().all(|value| value.is_nan()), "{count}");
            stream.clear(&buffer, 0, count).unwrap();
            pinned.as_mut_slice().fill(7.0);
        }
        assert_eq!(emulator.created(), 3);
    }

    #[test]
    fn an_allocation_that_does_not_fit_gets_what_was_kept() {
        let (emulator, platform) = with_memory(8 * MEBI);
        let live = Buffer::<u8>::new(&platform, 7 * MEBI).unwrap();
        drop([(); 2].map(|()| Buffer::<u8>::new(&platform, 512 * KIBI).unwrap()));
        assert_eq!((platform.pool().device_bytes(), allocated(&platform)), (MEBI as u64, 8 * MEBI as u64));
        assert_eq!(platform.free_memory().unwrap(), MEBI as u64);
        let before = emulator.created();
        let large = Buffer::<u8>::new(&platform, MEBI).unwrap();
        assert_eq!((platform.pool().device_bytes(), emulator.created() - before), (0, 1));
        let error = Buffer::<u8>::new(&platform, 16).unwrap_err().to_string();
        assert_eq!(error, "emulator: out of memory: 16 bytes asked for, 0 free");
        drop((live, large));
        assert_eq!(allocated(&platform), MEBI as u64, "the larger one was more than may be kept");

        // More than may be kept: the rest of the memory is left as if nothing had been.
        let large = Buffer::<u8>::new(&platform, 2 * MEBI).unwrap();
        assert_eq!(allocated(&platform), 2 * MEBI as u64);
        drop(large);

        // In a fragmented memory it fails all the same.
        let (_, platform) = device(EmulatorOptions { largest_allocation: 1000, ..EmulatorOptions::default() });
        drop(Buffer::<u8>::new(&platform, 1000).unwrap());
        assert!(matches!(Buffer::<u8>::new(&platform, 1001), Err(Error::OutOfMemory { .. })));
        assert_eq!(allocated(&platform), 0);
    }

    /// Curves through a memory that holds few of them, beside memory that other calls have left.
    #[test]
    fn little_memory_is_used_whole() {
        let (starts, ends) = (latents(60, 0.3), latents(60, 2.0));
        let solve = |model: &Model<f32>| model.geodesics(starts.view(), ends.view(), &Options::default()).unwrap();
        let (_, plenty) = with_memory(1 << 30);
        let expected = solve(&model(&plenty));
        let (_, platform) = with_memory(256 * KIBI);
        let model = model(&platform);
        for rows in [1, 40, 300] {
            model.metric(latents(rows, 1.0).view()).unwrap();
            assert_eq!(solve(&model), expected);
        }
        assert!(platform.pool().device_bytes() <= 32 * KIBI as u64);
    }

    #[test]
    fn memory_that_may_still_be_in_use_is_not_kept() {
        let (_, platform) = with_memory(MEBI);
        drop(Buffer::<u8>::new(&platform, 100).unwrap());
        assert_eq!(platform.pool().device_bytes(), 100);
        let stream = Stream::new(&platform).unwrap();
        stream.begin_recording().unwrap();
        drop(stream); // cannot be waited for
        drop(Buffer::<u8>::new(&platform, 100).unwrap());
        drop(Stream::new(&platform).unwrap());
        assert_eq!(allocated(&platform), 0);
        assert_eq!(platform.pool().take_stream(), None);
    }

    #[test]
    fn threads_share_what_is_kept() {
        let (_, platform) = with_memory(MEBI); // of which an eighth is kept: blocks are taken, kept and released all the time
        let work = |seed: usize| {
            for k in 0..400 {
                let count = 1 + (seed * 7919 + k * 104_729) % 9000;
                let buffer = Buffer::<u32>::new(&platform, count).unwrap();
                let mut staged = Pinned::<u32>::new(&platform, count).unwrap();
                let found = Pinned::<u32>::new(&platform, count).unwrap();
                let stream = Stream::new(&platform).unwrap();
                staged.as_mut_slice().fill((seed * 1000 + k) as u32);
                // SAFETY: everything lives until the stream was waited for.
                unsafe {
                    stream.upload((&buffer, 0), (&staged, 0), count).unwrap();
                    stream.download((&found, 0), (&buffer, 0), count).unwrap();
                }
                stream.synchronise().unwrap();
                assert_eq!(found.as_slice(), staged.as_slice());
                assert!(platform.pool().device_bytes() <= (MEBI / 8) as u64);
            }
        };
        std::thread::scope(|scope| {
            for seed in 1..=2 {
                scope.spawn(move || work(seed));
            }
        });
        assert_eq!(platform.free_memory().unwrap(), MEBI as u64);
        platform.pool().close(platform.as_ref());
        assert_eq!(allocated(&platform), 0);
    }

    #[test]
    fn nothing_is_kept_behind_the_device() {
        let (emulator, platform) = with_memory(MEBI);
        calls(&emulator, &model(&platform));
        let kept = platform.pool().device_bytes();
        assert!(kept > 0 && allocated(&platform) == kept, "the weights were given back, too");
        let weak = Arc::downgrade(&emulator);
        drop((emulator, platform));
        assert!(weak.upgrade().is_none(), "what is kept does not keep the device");
    }
}
