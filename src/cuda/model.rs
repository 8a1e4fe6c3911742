//! A decoder on a CUDA device, or on the emulator: every operation over many points, chunk by chunk.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::backend::{CudaBackend, Networks, Pairs};
use super::cholesky;
use super::decode::{Jets, decode};
use super::energy::{AdjointRows, AdjointTargets, Chords, CurveSums, adjoint_pass, scales, seed};
use super::fused::{FusedNetwork, Shape};
use super::gram::gram;
use super::jacobian::{Pass, jacobians, places};
use super::launch::{Launcher, RowList};
use super::memory::{Buffer, Event, Pinned, Stream};
use super::network::{DeviceNetwork, host_networks, instances, specialise};
use super::platform::{Address, Platform};
use super::spectrum::{self, Block};
use crate::cpu::activation::Order;
use crate::decoder::{Decoder, Geometry};
use crate::error::{Error, Result};
use crate::geodesic::Stages;
use crate::geodesic::policy::Policy;
use crate::precision::Precision;

/// Rows of a chunk at most, and bytes that its arrays may take together: enough to fill the device, little enough that copies of
/// one chunk pass behind the kernels of another.
const CHUNK_ROWS: usize = 1 << 17;
const CHUNK_BYTES: usize = 1 << 30;
/// Share of the free memory that two chunks may take.
const MEMORY_SHARE: f64 = 0.8;

/// A decoder's weights on a device.
#[derive(Debug)]
pub(crate) struct CudaModel {
    platform: Arc<dyn Platform>,
    asked: Precision,
    pub(super) original: DeviceNetwork,
    pub(super) compressed: DeviceNetwork,
    /// The compressed decoder on tensor cores, where they are asked for and take it.
    fused: Option<FusedNetwork>,
    /// Time that chunks of points have spent in kernels so far, in nanoseconds.
    nanoseconds: AtomicU64,
}

/// Rows of latents.
#[derive(Clone, Copy)]
pub(crate) enum Latents<'a> {
    Host(&'a [f32]),
    /// An address, and how many numbers stand there.
    Device(Address, usize),
}

/// What writes the numbers of a chunk of rows (the first, and how many) to where they are copied from.
type Stage<'a> = &'a dyn Fn(usize, usize, &mut [f32]);

/// Where an operation's rows come from.
#[derive(Clone, Copy)]
enum Source<'a> {
    Host(Stage<'a>),
    Device(Address),
}

/// One operation over rows of numbers.
pub(super) struct Operation {
    /// Numbers that come in and go out for every row, and that its kernels work on in between.
    pub width_in: usize,
    pub width_out: usize,
    pub room: usize,
    /// That is for so many rows together, and for so many at most.
    pub room_rows: (usize, usize),
    /// Numbers of every row behind that.
    pub behind: usize,
}

/// Room for every row.
pub(super) const EVERY_ROW: (usize, usize) = (1, usize::MAX);

impl Operation {
    /// Numbers of the room for so many rows, without those behind it.
    fn room(&self, rows: usize) -> usize {
        let (together, most) = self.room_rows;
        rows.next_multiple_of(together).min(most) * self.room
    }
}

/// What an operation's kernels work on.
pub(super) struct Chunk {
    pub rows: usize,
    pub input: Address,
    pub out: Address,
    pub room: Address,
}

/// One of two chunks on their way.
struct Lane {
    // Dropped, and so waited for, first.
    stream: Stream,
    input: Buffer<f32>,
    out: Buffer<f32>,
    room: Buffer<f32>,
    staged_in: Pinned<f32>,
    staged_out: Pinned<f32>,
    /// Before and behind the kernels.
    began: Event,
    ended: Event,
    /// Rows that are in work: first and number.
    busy: Option<(usize, usize)>,
}

impl Lane {
    fn new(platform: &Arc<dyn Platform>, rows: usize, operation: &Operation) -> Result<Self> {
        Ok(Self {
            stream: Stream::new(platform)?,
            input: Buffer::new(platform, rows * operation.width_in)?,
            out: Buffer::new(platform, rows * operation.width_out)?,
            room: Buffer::new(platform, operation.room(rows) + rows * operation.behind)?,
            staged_in: Pinned::new(platform, rows * operation.width_in)?,
            staged_out: Pinned::new(platform, rows * operation.width_out)?,
            began: Event::new(platform)?,
            ended: Event::new(platform)?,
            busy: None,
        })
    }

    /// Waits, and copies the results out; returns the milliseconds spent in kernels.
    fn drain(&mut self, width_out: usize, out: &mut [f32]) -> Result<f32> {
        let mut milliseconds = 0.0;
        if let Some((from, rows)) = self.busy.take() {
            self.stream.synchronise()?;
            milliseconds = self.ended.since(&self.began)?;
            out[from * width_out..(from + rows) * width_out]
                .copy_from_slice(&self.staged_out.as_slice()[..rows * width_out]);
        }
        Ok(milliseconds)
    }
}

impl CudaModel {
    pub fn new(platform: Arc<dyn Platform>, decoder: &Decoder, precision: Precision) -> Result<Self> {
        let [original, compressed] = host_networks(decoder);
        let shape = Shape::new(&compressed, precision, platform.properties());
        let plain: &[_] = if shape.is_some() { &[&original] } else { &[&original, &compressed] };
        specialise(platform.as_ref(), &instances::source(plain))?;
        if let Some(shape) = &shape {
            specialise(platform.as_ref(), &shape.instances())?;
        }
        Ok(Self {
            original: DeviceNetwork::new(&platform, &original)?,
            fused: FusedNetwork::new(&platform, &compressed, shape)?,
            compressed: DeviceNetwork::new(&platform, &compressed)?,
            platform,
            asked: precision,
            nanoseconds: AtomicU64::new(0),
        })
    }

    /// Where it is, and the precision that was asked for.
    pub fn platform(&self) -> Arc<dyn Platform> {
        self.platform.clone()
    }

    pub fn asked(&self) -> Precision {
        self.asked
    }

    /// The precision that is used.
    pub fn precision(&self) -> Precision {
        self.fused.as_ref().map_or(Precision::Float32, FusedNetwork::precision)
    }

    /// Time that operations over points have spent in kernels so far, transfers not counted. Two chunks that run side by side count
    /// twice.
    pub fn kernel_seconds(&self) -> f64 {
        self.nanoseconds.load(Ordering::Relaxed) as f64 * 1e-9
    }

    /// Room for geodesics.
    pub fn backend(&self, stages: &Stages, policy: &Policy, count: usize, pairs: Pairs) -> Result<CudaBackend<'_>> {
        let networks = Networks { plain: &self.compressed, fused: self.fused.as_ref() };
        CudaBackend::new(&self.platform, networks, stages, policy, count, pairs)
    }

    /// `[P, d]` to `[P, D]`.
    pub fn decode(&self, latents: Latents<'_>) -> Result<Vec<f32>> {
        let network = &self.original;
        let operation = Operation {
            width_in: network.latent_dim,
            width_out: network.data_dim,
            room: 2 * network.widest,
            room_rows: EVERY_ROW,
            behind: 0,
        };
        self.by_chunks(latents, &operation, |launcher, chunk| {
            let list = RowList::all(chunk.rows);
            decode(launcher, network, list, chunk.input, &Jets::default(), hidden(network, chunk), chunk.out)
        })
    }

    /// `[P, d]` to `[P, d, D]`.
    pub fn jacobian(&self, latents: Latents<'_>) -> Result<Vec<f32>> {
        let network = &self.original;
        let jets_width = Jets::width(network, Order::First);
        let decoding = 2 * network.widest + network.data_dim;
        let operation = Operation {
            width_in: network.latent_dim,
            width_out: network.latent_dim * network.data_dim,
            room: jets_width + decoding.max(network.tangent_width()),
            room_rows: EVERY_ROW,
            behind: 0,
        };
        self.by_chunks(latents, &operation, |launcher, chunk| {
            let (jets, rest) = self.derivatives(network, launcher, chunk, Order::First)?;
            jacobians(launcher, network, chunk.rows, &jets, rest, chunk.out)
        })
    }

    /// `[P, d]` to `[P, d, d]`.
    pub fn metric(&self, latents: Latents<'_>) -> Result<Vec<f32>> {
        self.by_chunks(latents, &self.metric_operation(), |launcher, chunk| self.metrics(launcher, chunk, chunk.out))
    }

    /// `[P, d]` to `[P, d + d²]`: eigenvalues and eigenvectors. Nothing where the device has no room for a metric.
    pub fn spectrum(&self, latents: &[f32]) -> Result<Option<Vec<f32>>> {
        let d = self.compressed.latent_dim;
        let Some(block) = Block::new(self.platform.properties(), d) else { return Ok(None) };
        let found = self.of_metrics(latents, spectrum::width(d), 0, |launcher, rows, metrics, out| {
            spectrum::spectra(launcher, block, (rows, d), metrics, out)
        })?;
        Ok(Some(found))
    }

    /// `[P, d]` to `[P, d² + 1]`: metrics without the eigenvalues that are not above `threshold` times the largest, and how many are.
    /// Nothing where there is no [`spectrum`](Self::spectrum).
    pub fn truncated_metric(&self, latents: &[f32], threshold: f32) -> Result<Option<Vec<f32>>> {
        let d = self.compressed.latent_dim;
        let Some(block) = Block::new(self.platform.properties(), d) else { return Ok(None) };
        let found = self.of_metrics(latents, d * d + 1, spectrum::width(d), |launcher, rows, metrics, out| {
            let spectra = metrics + bytes(rows * d * d);
            spectrum::spectra(launcher, block, (rows, d), metrics, spectra)?;
            spectrum::truncate(launcher, (rows, d), [metrics, spectra], threshold, out)
        })?;
        Ok(Some(found))
    }

    /// log det G, `[P, d]` to `[P]`. Nothing where the device has no room for a metric's factor.
    pub fn log_det(&self, latents: &[f32]) -> Result<Option<Vec<f64>>> {
        let d = self.compressed.latent_dim;
        let Some(room) = cholesky::room(self.platform.properties(), d) else { return Ok(None) };
        let found = self.of_metrics(latents, 2, 0, |launcher, rows, metrics, out| {
            cholesky::log_determinants(launcher, room, (rows, d), metrics, out)
        })?;
        Ok(Some(found.chunks_exact(2).map(|halves| float64([halves[0], halves[1]])).collect()))
    }

    /// What `finish` makes of so many metrics that stand at an address, with `more` numbers of room for every row behind them: `width_out`
    /// numbers a row, from another address on.
    fn of_metrics(
        &self,
        latents: &[f32],
        width_out: usize,
        more: usize,
        finish: impl Fn(Launcher<'_>, usize, Address, Address) -> Result<()>,
    ) -> Result<Vec<f32>> {
        let d = self.compressed.latent_dim;
        let operation = Operation { width_out, behind: d * d + more, ..self.metric_operation() };
        self.by_chunks(Latents::Host(latents), &operation, |launcher, chunk| {
            let metrics = chunk.room + bytes(operation.room(chunk.rows));
            self.metrics(launcher, chunk, metrics)?;
            finish(launcher, chunk.rows, metrics, chunk.out)
        })
    }

    fn metric_operation(&self) -> Operation {
        let network = &self.compressed;
        let d = network.latent_dim;
        let (room, room_rows) = match &self.fused {
            Some(fused) => (fused.jet_stride(), fused.metric_rows(self.platform.properties())),
            None => {
                let (decoding, needed) = values_of_metrics(network);
                let room = Jets::width(network, Order::First) + decoding.max(needed + network.tangent_width());
                (room, EVERY_ROW)
            }
        };
        Operation { width_in: d, width_out: d * d, room, room_rows, behind: 0 }
    }

    /// G of a chunk's rows, `[rows, d, d]`, in the room of [`metric_operation`](Self::metric_operation).
    fn metrics(&self, launcher: Launcher<'_>, chunk: &Chunk, out: Address) -> Result<()> {
        if let Some(fused) = &self.fused {
            return fused.metric(launcher, chunk.rows, chunk.input, chunk.room, out);
        }
        let network = &self.compressed;
        let d = network.latent_dim;
        let (decoding, needed) = values_of_metrics(network);
        let (jets, rest) = self.derivatives(network, launcher, chunk, Order::First)?;
        let list = RowList::all(chunk.rows);
        let behind = |numbers: usize| rest + bytes(chunk.rows * numbers);
        network.chains.iter().try_for_each(|chain| {
            let tangents = places(chain, d, chunk.rows, behind(needed));
            let pass = Pass { launcher, network, chain, list, jets: &jets, directions: d, tangents: &tangents };
            let scales = scales(&pass, behind(2 * network.widest), behind(decoding))?;
            pass.push_forward()?;
            gram(&pass, scales, out)
        })
    }

    /// Rows of z and w, `[P, d + D]`, to `[P, d, d]`.
    pub fn adjoint_hessian(&self, latents: &[f32], adjoints: &[f32]) -> Result<Vec<f32>> {
        let network = &self.original;
        let (d, width) = (network.latent_dim, network.data_dim);
        let decoding = 2 * network.widest + network.data_dim;
        let operation = Operation {
            width_in: d + width,
            width_out: d * d,
            room: Jets::width(network, Order::Second) + decoding.max(2 * network.widest + network.tangent_width()),
            room_rows: EVERY_ROW,
            behind: 0,
        };
        self.with_parts([(latents, d), (adjoints, width)], &operation, |launcher, chunk| {
            let (jets, rest) = self.derivatives(network, launcher, chunk, Order::Second)?;
            let list = RowList::all(chunk.rows);
            let rows = AdjointRows { list, ids: 0 };
            let adjoint_bytes = bytes(chunk.rows * network.widest);
            let lambdas = [rest, rest + adjoint_bytes];
            let mut targets = AdjointTargets { curvature: chunk.out, gradient: 0, split: 0, has_curvature: false };
            for chain in &network.chains {
                let tangents = places(chain, d, chunk.rows, rest + 2 * adjoint_bytes);
                let pass = Pass { launcher, network, chain, list, jets: &jets, directions: d, tangents: &tangents };
                pass.push_forward()?;
                let weights = chunk.input + bytes(chunk.rows * d);
                seed(&pass, rows, weights, false, lambdas[0])?;
                adjoint_pass(&pass, rows, lambdas, &mut targets)?;
            }
            if targets.has_curvature { Ok(()) } else { launcher.clear(chunk.out, chunk.rows * d * d) }
        })
    }

    /// Curves `[C, N + 1, d]` to Σ ‖f_{i+1} − f_i‖² and Σ ‖f_{i+1} − f_i‖, `[C]`.
    pub fn chord_sums(&self, curves: &[f32], points: usize) -> Result<Vec<(f64, f64)>> {
        let network = &self.compressed;
        let d = network.latent_dim;
        let (hidden_width, data_dim) = match &self.fused {
            Some(fused) => (0, fused.value_stride()),
            None => (2 * network.widest, network.data_dim),
        };
        let operation = Operation {
            width_in: points * d,
            width_out: 4, // two numbers in float64
            room: points * (hidden_width + data_dim + 1),
            room_rows: EVERY_ROW,
            behind: 0,
        };
        let sums = self.by_chunks(Latents::Host(curves), &operation, |launcher, chunk| {
            let all = chunk.rows * points;
            let list = RowList::all(all);
            let values = chunk.room;
            let squares = values + bytes(all * data_dim);
            match &self.fused {
                Some(fused) => fused.decode(launcher, all, chunk.input, values)?,
                None => {
                    let hidden = [0, all * network.widest].map(|at| squares + bytes(all + at));
                    decode(launcher, network, list, chunk.input, &Jets::default(), hidden, values)?;
                }
            }
            let segments = (points - 1) as u32;
            let (stride, data_dim) = (points as u32, data_dim as u32);
            let chords = Chords { list, values, squares, segments_of: 0, segments, stride, data_dim, padding: 0 };
            chords.launch(launcher, network)?;
            let curves = chunk.rows as u32;
            CurveSums { squares, out: chunk.out, curves, segments, stride, padding: 0 }.launch(launcher)
        })?;
        let both = |four: &[f32]| (float64([four[0], four[1]]), float64([four[2], four[3]]));
        Ok(sums.chunks_exact(4).map(both).collect())
    }

    /// Decodes a chunk's latents for the derivatives; returns where those stand, and the room behind them.
    pub(super) fn derivatives(
        &self,
        network: &DeviceNetwork,
        launcher: Launcher<'_>,
        chunk: &Chunk,
        order: Order,
    ) -> Result<(Jets, Address)> {
        let jets = Jets::new(network, order, chunk.rows, chunk.room);
        let rest = chunk.room + bytes(chunk.rows * Jets::width(network, order));
        let hidden = [rest, rest + bytes(chunk.rows * network.widest)];
        let values = rest + bytes(2 * chunk.rows * network.widest);
        decode(launcher, network, RowList::all(chunk.rows), chunk.input, &jets, hidden, values)?;
        Ok((jets, rest))
    }

    /// Rows of latents and of another array, with their widths: every chunk holds its latents first and the others behind them.
    pub(super) fn with_parts(
        &self,
        [(latents, d), (others, width)]: [(&[f32], usize); 2],
        operation: &Operation,
        compute: impl Fn(Launcher<'_>, &Chunk) -> Result<()>,
    ) -> Result<Vec<f32>> {
        let stage = |from: usize, count: usize, staged: &mut [f32]| {
            staged[..count * d].copy_from_slice(&latents[from * d..(from + count) * d]);
            staged[count * d..].copy_from_slice(&others[from * width..(from + count) * width]);
        };
        self.with_chunks(latents.len() / d, operation, Source::Host(&stage), compute)
    }

    fn by_chunks(
        &self,
        input: Latents<'_>,
        operation: &Operation,
        compute: impl Fn(Launcher<'_>, &Chunk) -> Result<()>,
    ) -> Result<Vec<f32>> {
        let width = operation.width_in;
        match input {
            Latents::Host(numbers) => {
                let stage = |from: usize, count: usize, staged: &mut [f32]| {
                    staged.copy_from_slice(&numbers[from * width..(from + count) * width]);
                };
                self.with_chunks(numbers.len() / width, operation, Source::Host(&stage), compute)
            }
            Latents::Device(address, numbers) => {
                self.with_chunks(numbers / width, operation, Source::Device(address), compute)
            }
        }
    }

    /// Runs an operation over all rows in two lanes: one copies while the other computes.
    fn with_chunks(
        &self,
        rows: usize,
        operation: &Operation,
        source: Source<'_>,
        compute: impl Fn(Launcher<'_>, &Chunk) -> Result<()>,
    ) -> Result<Vec<f32>> {
        let mut out = vec![0.0; rows * operation.width_out];
        if rows == 0 {
            return Ok(out);
        }
        let row_numbers = operation.width_in + operation.width_out + operation.room + operation.behind;
        let row_bytes = row_numbers * size_of::<f32>();
        let budget = ((self.platform.free_memory()? as f64 * MEMORY_SHARE / 2.0) as usize).min(CHUNK_BYTES);
        let mut chunk_rows = rows.min(CHUNK_ROWS).min(budget / row_bytes).max(1);
        let mut lanes = loop {
            let count = rows.div_ceil(chunk_rows).min(2);
            let lanes: Result<Vec<Lane>> =
                (0..count).map(|_| Lane::new(&self.platform, chunk_rows, operation)).collect();
            match lanes {
                Err(Error::OutOfMemory { .. }) if chunk_rows > 1 => chunk_rows /= 2,
                other => break other?,
            }
        };
        let mut milliseconds = 0.0;
        for (k, from) in (0..rows).step_by(chunk_rows).enumerate() {
            let count = chunk_rows.min(rows - from);
            let turn = k % lanes.len();
            let lane = &mut lanes[turn];
            milliseconds += lane.drain(operation.width_out, &mut out)?;
            let (numbers_in, numbers_out) = (count * operation.width_in, count * operation.width_out);
            let input = match source {
                Source::Host(stage) => {
                    stage(from, count, &mut lane.staged_in.as_mut_slice()[..numbers_in]);
                    // SAFETY: the staged numbers are not touched before `drain` has waited for the stream.
                    unsafe { lane.stream.upload((&lane.input, 0), (&lane.staged_in, 0), numbers_in)? };
                    lane.input.address()
                }
                Source::Device(address) => address + bytes(from * operation.width_in),
            };
            let (out, room) = (lane.out.address(), lane.room.address());
            lane.began.record(&lane.stream)?;
            compute(Launcher { stream: &lane.stream }, &Chunk { rows: count, input, out, room })?;
            lane.ended.record(&lane.stream)?;
            // SAFETY: likewise.
            unsafe { lane.stream.download((&lane.staged_out, 0), (&lane.out, 0), numbers_out)? };
            lane.busy = Some((from, count));
        }
        for lane in &mut lanes {
            milliseconds += lane.drain(operation.width_out, &mut out)?;
        }
        self.nanoseconds.fetch_add((f64::from(milliseconds) * 1e6) as u64, Ordering::Relaxed);
        Ok(out)
    }
}

/// Numbers that decoding a point takes for its metric, and how many of them, with what the geometry makes of them, tangents may not replace.
fn values_of_metrics(network: &DeviceNetwork) -> (usize, usize) {
    let decoding = 2 * network.widest + network.data_dim;
    let needed = if network.geometry == Geometry::Gaussian { decoding + network.geometry_width() } else { 0 };
    (decoding, needed)
}

/// A number in float64 from its two words.
fn float64(words: [f32; 2]) -> f64 {
    let [low, high] = words.map(|word| u64::from(word.to_bits()));
    f64::from_bits(low | high << 32)
}

pub(super) fn bytes(numbers: usize) -> u64 {
    (numbers * size_of::<f32>()) as u64
}

fn hidden(network: &DeviceNetwork, chunk: &Chunk) -> [Address; 2] {
    [chunk.room, chunk.room + bytes(chunk.rows * network.widest)]
}
