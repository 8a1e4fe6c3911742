//! A batch of curves on a device: the solver's rounds as one recorded graph, pairs in and curves out while it runs.
//!
//! Pairs pass through a ring of two halves. One half is solved while the other is filled by the host or read back, on a stream
//! of its own. The host follows a round behind the device: it reads how many curves have finished only once the next round is
//! under way, so that the device never waits for it.

use std::sync::Arc;

use super::decode::{Jets, decode};
use super::energy::{AdjointRows, AdjointTargets, Chords, adjoint_pass, gradient, neighbours, scales, seed};
use super::fused::{FusedNetwork, Room};
use super::gram::gram;
use super::jacobian::{Pass, places};
use super::launch::{Launcher, RowList};
use super::memory::{Buffer, Event, Graph, Pinned, Stream};
use super::network::DeviceNetwork;
use super::platform::{Address, Platform};
use super::step::{Batch, CURVE_BYTES, counter, global_workspace};
use crate::cpu::activation::Order;
use crate::error::{Error, Result};
use crate::geodesic::backend::{Backend, Finished, Initial};
use crate::geodesic::policy::{LEVELS, Policy};
use crate::geodesic::{Stages, Status};

/// Curves in work at most: enough to fill the largest device, few enough that a ring's turn is short.
const MOST_SLOTS: usize = 32 * 1024;
/// Share of the free memory that a batch may take.
const MEMORY_SHARE: f64 = 0.8;
/// Share of it that a ring longer than the slots may take.
const RING_SHARE: f64 = 0.1;
/// Rounds of the fused kernel in one launch: it leaves early when it has nothing to do, but sees pairs that have come since only the next time.
const ROUNDS_PER_LAUNCH: usize = 16;
const ROUNDS_OF_ALL: usize = 256;
/// Rounds that a curve can spend on one iteration, and more: all candidates at every damping, from the first to the last.
const ROUNDS_PER_ITERATION: usize = 200;
/// Arrays of a batch begin at multiples of so many numbers; there are no more than this of them.
const ALIGNED: usize = 4;
const PLACES: usize = 32;
/// Uploads of the ring's limit that may be on their way at once.
const LIMITS: usize = 8;

/// How the arrays of a batch are laid out for every slot, in 4-byte numbers.
struct Layout {
    /// Points of one slot.
    stride: usize,
    d: usize,
    /// Numbers by point: what is kept between kernels.
    kept: usize,
    /// Numbers by point: hidden values, or adjoints, tangents and what the geometry needs; never both at once.
    transient: usize,
    /// Numbers by curve in the ring: pairs that come in, curves that go out.
    input: usize,
    output: usize,
}

impl Layout {
    fn new(networks: Networks<'_>, segments: usize, pairs: Pairs) -> Self {
        let network = networks.plain;
        let (d, stride) = (network.latent_dim, segments + 1);
        let squares = 4 * d * d; // gram, off, curvature, blocks
        let rows = (2 + 1 + 1 + LEVELS.len()) * d; // points, trial, gradient, sides, steps
        let lists = 3;
        let (values, transient) = match networks.fused {
            Some(fused) => (fused.value_stride() + fused.jet_stride(), 0),
            None => {
                let jets = Jets::width(network, Order::Second);
                (network.data_dim + jets, 2 * network.widest + network.tangent_width() + network.geometry_width())
            }
        };
        let kept = squares + rows + 1 + lists + values;
        let input = match pairs {
            Pairs::Lines => 2 * d,
            Pairs::Curves => stride * d,
            Pairs::OnDevice(..) => 0,
        };
        Self { stride, d, kept, transient, input, output: stride * d + 8 }
    }

    /// Bytes that one slot takes, its places in the ring included.
    fn slot_bytes(&self) -> usize {
        (self.stride * (self.kept + self.transient) + 2 * (self.input + self.output) + 3) * size_of::<f32>()
            + CURVE_BYTES
    }

    /// Pairs of one half of the ring: as many as there are slots. A kernel that takes pairs by itself is not to run out of them.
    fn window(&self, networks: Networks<'_>, slots: usize, count: usize, free: u64) -> usize {
        if networks.fused.is_none() {
            return slots;
        }
        let pair = 2 * (self.input + self.output) * size_of::<f32>();
        let room = (free as f64 * RING_SHARE) as usize / pair;
        count.min(room).min(MOST_SLOTS).max(slots)
    }

    /// Slots for `count` curves in `free` bytes; numbers of points and tangents fit into 32 bits.
    fn slots(&self, count: usize, free: u64) -> usize {
        let by_memory = (free as f64 * MEMORY_SHARE) as usize / self.slot_bytes();
        let by_numbering = (u32::MAX as usize / 2) / (self.stride * self.d.max(4));
        count.min(by_memory).min(by_numbering).clamp(1, MOST_SLOTS)
    }
}

/// Where the pairs come from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pairs {
    /// From the host, as two latents each.
    Lines,
    /// From the host, as curves `[N + 1, d]`.
    Curves,
    /// Starts and ends `[C, d]` that stand on the device already.
    OnDevice(Address, Address),
}

/// A decoder as the kernels take it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Networks<'a> {
    pub plain: &'a DeviceNetwork,
    /// What does all the work where it is there.
    pub fused: Option<&'a FusedNetwork>,
}

/// Where the arrays of the plain kernels stand that no step reads; nowhere where the fused kernel does the work.
#[derive(Default)]
struct Plain {
    values: Address,
    transient: Address,
    jets: Jets,
}

/// What the fused kernel works with.
struct Fused<'a> {
    network: &'a FusedNetwork,
    room: Room,
    /// Rounds in one launch.
    rounds: usize,
}

/// One half of the ring.
#[derive(Default)]
struct Half {
    /// The caller's number of every pair, by its place in the half.
    jobs: Vec<usize>,
    /// Pairs ever given to this half; the device counts those that it has finished.
    given: u32,
    /// Full, until its curves have been handed out.
    sealed: bool,
}

/// Curves in work on a device.
pub(crate) struct CudaBackend<'a> {
    // Dropped, and so waited for, before everything that it works on.
    compute: Stream,
    copies: Stream,
    /// A round of the plain kernels.
    graph: Option<Graph>,
    network: &'a DeviceNetwork,
    plain: Plain,
    fused: Option<Fused<'a>>,
    pairs: Pairs,
    batch: Batch,
    /// Pairs of one half.
    window: usize,
    halves: [Half; 2],
    filling: usize,
    /// Pairs given to the ring so far, and those of them that the device may take.
    given: usize,
    released: usize,
    rounds: usize,
    /// Pairs finished in both halves when that was last seen to change, and the round.
    last_finished: ([u32; 2], usize),
    /// Rounds after which some curve must have ended.
    patience: usize,
    /// Time in kernels so far.
    milliseconds: f64,
    /// Before and behind the last two rounds.
    began: [Event; 2],
    polled: [Event; 2],
    uploaded: Event,
    polls: Pinned<u32>,
    limits: Pinned<u32>,
    limit_uploads: usize,
    inputs: Pinned<f32>,
    outputs: Pinned<f32>,
    numbers: Pinned<f64>,
    codes: Pinned<u32>,
    counters: Buffer<u32>,
    curves: Buffer<u8>,
    _numbers_4: Buffer<f32>,
    ring_inputs: Buffer<f32>,
    ring_points: Buffer<f32>,
    ring_numbers: Buffer<f64>,
    /// Iterations, and behind them the statuses.
    ring_codes: Buffer<u32>,
}

impl<'a> CudaBackend<'a> {
    /// Room for `count` curves or as many as the free memory holds; half as many where that was too much, down to one.
    pub fn new(
        platform: &Arc<dyn Platform>,
        networks: Networks<'a>,
        stages: &Stages,
        policy: &Policy,
        count: usize,
        pairs: Pairs,
    ) -> Result<Self> {
        let segments = stages.grids.iter().copied().max().unwrap_or(2);
        let layout = Layout::new(networks, segments, pairs);
        let free = platform.free_memory()?;
        let mut slots = layout.slots(count, free);
        if let Some(fused) = networks.fused {
            slots = slots.min(fused.wanted_slots(platform.properties(), segments));
        }
        loop {
            let window = layout.window(networks, slots, count, free);
            match Self::with_slots(platform, networks, &layout, stages, policy, (slots, window), pairs) {
                Err(Error::OutOfMemory { .. }) if slots > 1 => slots /= 2,
                other => return other,
            }
        }
    }

    fn with_slots(
        platform: &Arc<dyn Platform>,
        networks: Networks<'a>,
        layout: &Layout,
        stages: &Stages,
        policy: &Policy,
        (slots, window): (usize, usize),
        pairs: Pairs,
    ) -> Result<Self> {
        let network = networks.plain;
        let (d, stride, ring) = (layout.d, layout.stride, 2 * window);
        let compute = Stream::new(platform)?;
        let launcher = Launcher { stream: &compute };
        let (workspace, halo) = match networks.fused {
            Some(fused) => (0, fused.blocks_of_slots(platform.properties(), slots).1 * fused.halo()),
            None => (global_workspace(launcher, slots, d), 0),
        };
        let points = slots * stride;
        let total = points * (layout.kept + layout.transient) + 3 * slots + workspace + halo + PLACES * ALIGNED;
        let numbers_4 = Buffer::<f32>::new(platform, total)?;
        let mut next = 0;
        let mut place = |count: usize| {
            let from = next;
            next += count.next_multiple_of(ALIGNED);
            numbers_4.at(from)
        };
        let curves = Buffer::<u8>::new(platform, slots * CURVE_BYTES)?;
        let counters = Buffer::<u32>::new(platform, counter::COUNT)?;
        let ring_inputs = Buffer::<f32>::new(platform, ring * layout.input)?;
        let ring_points = Buffer::<f32>::new(platform, ring * stride * d)?;
        let ring_numbers = Buffer::<f64>::new(platform, ring * 3)?;
        let ring_codes = Buffer::<u32>::new(platform, ring * 2)?;
        let curved = network.layers().any(|l| l.has_second);
        let (starts, ends, initial) = match pairs {
            Pairs::Lines => (ring_inputs.address(), ring_inputs.at(ring * d), 0),
            Pairs::Curves => (0, 0, ring_inputs.address()),
            Pairs::OnDevice(starts, ends) => (starts, ends, 0),
        };
        let mut plain = Plain::default();
        let fused = networks.fused.map(|network| {
            let (values, jets) = (place(points * network.value_stride()), place(points * network.jet_stride()));
            let rounds = if window > slots { ROUNDS_PER_LAUNCH } else { ROUNDS_OF_ALL };
            Fused { network, room: Room { values, jets, halo: place(halo) }, rounds }
        });
        if fused.is_none() {
            let jets_at = place(points * Jets::width(network, Order::Second));
            plain.jets = Jets::new(network, Order::Second, points, jets_at);
            plain.values = place(points * network.data_dim);
            plain.transient = place(points * layout.transient);
        }
        let rounds = fused.as_ref().map_or(1, |fused| fused.rounds);
        let curvature = place(points * d * d);
        let shape = Batch::new(&stages.grids, policy);
        let batch = Batch {
            counters: counters.address(),
            curves: curves.address(),
            segments_of: place(slots),
            points: place(points * d),
            trial: place(points * d),
            squares: place(points),
            gram: place(points * d * d),
            off: place(points * d * d),
            curvature: if curved { curvature } else { 0 },
            gradient: place(points * d),
            steps: place(points * d * LEVELS.len()),
            blocks: place(points * d * d),
            sides: place(points * d),
            tangent_ids: place(points),
            adjoint_rows: place(points),
            free_slots: place(slots),
            step_curves: place(slots),
            search_ids: place(points),
            workspace: place(workspace),
            starts,
            ends,
            initial,
            out_points: ring_points.address(),
            out_numbers: ring_numbers.address(),
            out_iterations: ring_codes.address(),
            out_status: ring_codes.at(ring),
            ring: ring as u32,
            input_ring: if layout.input == 0 { u32::MAX } else { ring as u32 },
            slots: slots as u32,
            stride: stride as u32,
            latent_dim: d as u32,
            // The line's energy in low precision bounds nothing: every curve is then held against the line in full precision.
            nested: if stages.low == 0 { shape.nested } else { 0 },
            low_grids: stages.low as u32,
            ..shape
        };
        let this = Self {
            copies: Stream::new(platform)?,
            graph: None,
            network,
            plain,
            fused,
            pairs,
            batch,
            window,
            halves: Default::default(),
            filling: 0,
            given: 0,
            released: 0,
            rounds: 0,
            last_finished: ([0; 2], 0),
            patience: (policy.max_iterations as usize).saturating_add(8).saturating_mul(ROUNDS_PER_ITERATION) / rounds
                + 2,
            milliseconds: 0.0,
            began: [Event::new(platform)?, Event::new(platform)?],
            polled: [Event::new(platform)?, Event::new(platform)?],
            uploaded: Event::new(platform)?,
            polls: Pinned::new(platform, 2 * counter::COUNT)?,
            limits: Pinned::new(platform, LIMITS)?,
            limit_uploads: 0,
            inputs: Pinned::new(platform, ring * layout.input)?,
            outputs: Pinned::new(platform, window * stride * d)?,
            numbers: Pinned::new(platform, window * 3)?,
            codes: Pinned::new(platform, window * 2)?,
            counters,
            curves,
            _numbers_4: numbers_4,
            ring_inputs,
            ring_points,
            ring_numbers,
            ring_codes,
            compute,
        };
        this.compute.clear(&this.curves, 0, slots * CURVE_BYTES)?;
        this.compute.clear(&this.counters, 0, counter::COUNT)?;
        Ok(this)
    }

    fn launcher(&self) -> Launcher<'_> {
        Launcher { stream: &self.compute }
    }

    fn counter(&self, word: usize) -> Address {
        self.counters.at(word)
    }

    /// Points that a curve's arrays are made for.
    fn capacity(&self) -> usize {
        self.batch.slots as usize * self.batch.stride as usize
    }

    /// Sends the pairs that were admitted since the last round, and lets the device take them.
    fn release(&mut self) -> Result<()> {
        let (d, ring) = (self.batch.latent_dim as usize, 2 * self.window);
        let mut from = self.released;
        while from < self.given {
            let at = from % ring;
            let count = (self.given - from).min(ring - at);
            // SAFETY: these places are written again only when their pairs have come back, long after this copy.
            unsafe {
                match self.pairs {
                    Pairs::Lines => {
                        for part in [at * d, (ring + at) * d] {
                            self.copies.upload((&self.ring_inputs, part), (&self.inputs, part), count * d)?;
                        }
                    }
                    Pairs::Curves => {
                        let width = d * self.batch.stride as usize;
                        self.copies.upload(
                            (&self.ring_inputs, at * width),
                            (&self.inputs, at * width),
                            count * width,
                        )?;
                    }
                    Pairs::OnDevice(..) => {}
                }
            }
            from += count;
        }
        if self.given > self.released {
            self.uploaded.record(&self.copies)?;
            self.compute.wait(&self.uploaded)?;
            let entry = self.limit_uploads % LIMITS;
            self.limits.as_mut_slice()[entry] = self.given as u32;
            // SAFETY: an entry is written again after LIMITS rounds, and the host is one round behind the device.
            unsafe { self.compute.upload((&self.counters, counter::LIMIT), (&self.limits, entry), 1)? };
            self.limit_uploads += 1;
            self.released = self.given;
        }
        Ok(())
    }

    /// Brings back a half of the ring and hands out its curves.
    fn deliver(&mut self, half: usize, finish: &mut dyn FnMut(Finished<'_, f32>)) -> Result<()> {
        let jobs = std::mem::take(&mut self.halves[half].jobs);
        let (count, from, ring) = (jobs.len(), half * self.window, 2 * self.window);
        let width = self.batch.stride as usize * self.batch.latent_dim as usize;
        // SAFETY: the device has finished these curves, the host reads behind `synchronise`, and nothing is dropped before.
        unsafe {
            self.copies.download((&self.outputs, 0), (&self.ring_points, from * width), count * width)?;
            self.copies.download((&self.numbers, 0), (&self.ring_numbers, from * 3), count * 3)?;
            self.copies.download((&self.codes, 0), (&self.ring_codes, from), count)?;
            self.copies.download((&self.codes, count), (&self.ring_codes, ring + from), count)?;
        }
        self.copies.synchronise()?;
        let (iterations, statuses) = self.codes.as_slice()[..2 * count].split_at(count);
        let curves = self.outputs.as_slice().chunks_exact(width).zip(self.numbers.as_slice().chunks_exact(3));
        for (k, ((points, numbers), &job)) in curves.zip(&jobs).enumerate() {
            finish(Finished {
                job,
                points,
                energy: numbers[0],
                length: numbers[1],
                gradient_norm: numbers[2],
                iterations: iterations[k],
                status: Status::ALL.get(statuses[k] as usize).copied().unwrap_or(Status::NonFinite),
            });
        }
        Ok(())
    }

    /// Hands out the halves whose curves had all finished in the round before.
    fn deliver_finished(&mut self, finish: &mut dyn FnMut(Finished<'_, f32>)) -> Result<()> {
        let before = (self.rounds + 1) % 2;
        self.polled[before].synchronise()?;
        self.milliseconds += f64::from(self.polled[before].since(&self.began[before])?);
        let at = before * counter::COUNT + counter::FINISHED;
        let finished = [self.polls.as_slice()[at], self.polls.as_slice()[at + 1]];
        if finished != self.last_finished.0 {
            self.last_finished = (finished, self.rounds);
        } else if self.rounds - self.last_finished.1 > self.patience {
            // Curves end by rules that allow no more: a device that does not follow them must not be waited for.
            let what = format!("{}, geodesics", self.compute.platform().label());
            let message = format!("no curve has ended in {} rounds", self.patience);
            return Err(Error::Cuda { what, message, fatal: false });
        }
        for (half, &finished) in finished.iter().enumerate() {
            let Half { jobs, given, sealed } = &self.halves[half];
            // Where there is room left in a half, no more pairs come.
            let is_whole = *sealed || self.free() > 0;
            if !jobs.is_empty() && is_whole && finished == *given {
                self.deliver(half, finish)?;
                self.halves[half].sealed = false;
            }
        }
        Ok(())
    }

    /// Time that the device has spent in rounds, transfers of pairs and curves not counted.
    pub fn device_seconds(&self) -> f64 {
        self.milliseconds / 1e3
    }
}

impl Backend for CudaBackend<'_> {
    type Scalar = f32;

    fn free(&self) -> usize {
        let half = &self.halves[self.filling];
        if half.sealed { 0 } else { self.window - half.jobs.len() }
    }

    fn active(&self) -> usize {
        self.halves.iter().map(|half| half.jobs.len()).sum()
    }

    fn admit(&mut self, job: usize, initial: Initial<'_, f32>) -> Result<()> {
        let (d, ring) = (self.batch.latent_dim as usize, 2 * self.window);
        let at = self.given % ring;
        let inputs = self.inputs.as_mut_slice();
        match initial {
            Initial::Line(start, end) => {
                inputs[at * d..(at + 1) * d].copy_from_slice(start);
                inputs[(ring + at) * d..(ring + at + 1) * d].copy_from_slice(end);
            }
            Initial::Curve(points) => {
                inputs[at * points.len()..(at + 1) * points.len()].copy_from_slice(points);
            }
            Initial::OnDevice(..) => {}
        }
        self.given += 1;
        let half = &mut self.halves[self.filling];
        half.jobs.push(job);
        half.given = half.given.wrapping_add(1);
        if half.jobs.len() == self.window {
            half.sealed = true;
            // Halves take turns, whichever is finished first: pair number k stands at k modulo the ring.
            self.filling = 1 - self.filling;
        }
        Ok(())
    }

    fn linearise(&mut self) -> Result<()> {
        let launcher = self.launcher();
        let (network, batch, capacity) = (self.network, &self.batch, self.capacity());
        let of_round = counter::SEARCHES + 1 - counter::FREE;
        self.compute.clear(&self.counters, counter::FREE, of_round)?;
        batch.admit(launcher)?;
        batch.collect_linearise(launcher)?;
        let d = network.latent_dim;
        let size = size_of::<f32>() as u64;
        let adjoint_bytes = (capacity * network.widest) as u64 * size;
        let adjoints = [self.plain.transient, self.plain.transient + adjoint_bytes];
        let count = self.counter(counter::TANGENTS);
        let list = RowList::counted(batch.tangent_ids, count, capacity);
        let everywhere = AdjointRows { list: RowList::counted(0, count, capacity), ids: batch.tangent_ids };
        let with_adjoint = AdjointRows {
            list: RowList::counted(batch.adjoint_rows, self.counter(counter::ADJOINTS), capacity),
            ids: batch.tangent_ids,
        };
        let mut targets =
            AdjointTargets { curvature: batch.curvature, gradient: batch.gradient, split: count, has_curvature: false };
        let tangents_at = self.plain.transient + 2 * adjoint_bytes;
        let room = tangents_at + (capacity * network.tangent_width()) as u64 * size;
        for chain in &network.chains {
            let tangents = places(chain, d, capacity, tangents_at);
            let pass =
                Pass { launcher, network, chain, list, jets: &self.plain.jets, directions: d, tangents: &tangents };
            pass.push_forward()?;
            let scales = scales(&pass, self.plain.values, room)?;
            gram(&pass, scales, batch.gram)?;
            neighbours(&pass, scales, room, batch.off)?;
            seed(&pass, everywhere, self.plain.values, true, adjoints[0])?;
            gradient(&pass, adjoints[0], batch.gradient)?;
            seed(&pass, with_adjoint, self.plain.values, true, adjoints[0])?;
            adjoint_pass(&pass, with_adjoint, adjoints, &mut targets)?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<()> {
        self.batch.step(self.launcher(), self.network)
    }

    fn search(&mut self) -> Result<()> {
        let (launcher, batch, capacity) = (self.launcher(), &self.batch, self.capacity());
        batch.collect_search(launcher)?;
        let list = RowList::counted(batch.search_ids, self.counter(counter::SEARCHES), capacity);
        let hidden_bytes = (capacity * self.network.widest * size_of::<f32>()) as u64;
        let hidden = [self.plain.transient, self.plain.transient + hidden_bytes];
        decode(launcher, self.network, list, batch.trial, &self.plain.jets, hidden, self.plain.values)?;
        let chords = Chords {
            list,
            values: self.plain.values,
            squares: batch.squares,
            segments_of: batch.segments_of,
            segments: 0,
            stride: batch.stride,
            data_dim: self.network.data_dim as u32,
            padding: 0,
        };
        chords.launch(launcher, self.network)
    }

    fn decide(&mut self, _: &mut dyn FnMut(Finished<'_, f32>)) -> Result<()> {
        self.batch.decide(self.launcher())
    }

    /// Gives one round, or a launch of several, to the device, and hands out what the one before has finished.
    fn round(&mut self, finish: &mut dyn FnMut(Finished<'_, f32>)) -> Result<()> {
        self.release()?;
        if self.graph.is_none() && self.fused.is_none() {
            self.compute.begin_recording()?;
            let recorded = self
                .linearise()
                .and_then(|()| self.step())
                .and_then(|()| self.search())
                .and_then(|()| self.decide(finish));
            // Recording ends whatever happened.
            let graph = self.compute.end_recording();
            recorded?;
            self.graph = Some(graph?);
        }
        let now = self.rounds % 2;
        self.began[now].record(&self.compute)?;
        if let Some(Fused { network, room, rounds }) = &self.fused {
            network.solve(self.launcher(), &self.batch, room, *rounds)?;
        } else if let Some(graph) = &self.graph {
            // SAFETY: every address in it belongs to this struct or its network.
            unsafe { self.compute.launch_graph(graph)? };
        }
        // SAFETY: the host reads it behind the event, and `self.compute` is dropped first.
        unsafe {
            let words = counter::COUNT;
            self.compute.download((&self.polls, now * words), (&self.counters, 0), words)?;
        }
        self.polled[now].record(&self.compute)?;
        if self.rounds > 0 {
            self.deliver_finished(finish)?;
        }
        self.rounds += 1;
        Ok(())
    }
}

#[cfg(all(test, feature = "emulator"))]
mod tests;
