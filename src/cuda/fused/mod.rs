//! Launches `kernels/fused.cu`: decoders whose layers are no wider than 512, on tensor cores, without leaving the chip.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};

use super::launch::Launcher;
use super::memory::{Buffer, Pinned, Stream};
use super::platform::{Address, Geometry, Kernel, Platform, Properties};
use super::slices::{self, Build, COLUMNS, Kind, SLICE};
use super::step::Batch;
use crate::cpu::network::{Dense, Network as HostNetwork};
use crate::decoder::{self, Activation};
use crate::error::Result;
use crate::precision::Precision;

/// As in `kernels/fused.cuh` and `kernels/fused.cu`.
const MOST_LAYERS: usize = 16;
const MOST_HEADS: usize = 4;
const MOST_WIDTH: usize = 512;
const MOST_OWN_SLOTS: usize = 32;
const NO_PLACE: u32 = u32::MAX;
/// Points of a tile of tangents at least: with fewer, too much of it would be in vain.
const LEAST_POINTS: usize = 4;
/// Static shared memory of the kernels at most, in bytes, as `scripts/check-kernels` sees to.
const STATIC_SHARED: usize = 2048;
/// Shared memory that a multiprocessor takes from every block's besides, in bytes; it has this much more than one block may have.
const RESERVED: usize = 1024;
/// Stages of the ring at most.
const MOST_STAGES: usize = 4;
/// Points of a block's curves: enough for several tiles, so that the last of them is a small part.
const POINTS_PER_BLOCK: usize = 512;

/// `Matrix` in `kernels/chain.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Matrix {
    slices: Address,
    count: u32,
    columns: u32,
    resident: u32,
    step: u32,
}

/// `FusedLayer` in `kernels/fused.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct FusedLayer {
    forward: Matrix,
    backward: Matrix,
    bias: Address,
    jets: u32,
    activation: u32,
    has_first: u32,
    has_second: u32,
}

/// `FusedHead` in `kernels/fused.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct FusedHead {
    first: u32,
    last: u32,
    values: u32,
    padding: u32,
    tangents: Address,
    scale: Address,
}

/// `FusedNetwork` in `kernels/fused.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Parameters {
    layers: [FusedLayer; MOST_LAYERS],
    heads: [FusedHead; MOST_HEADS],
    head_count: u32,
    latent_dim: u32,
    value_stride: u32,
    jet_stride: u32,
    stages: u32,
    alternates: u32,
}

/// `Solve` in `kernels/fused.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Solve {
    batch: Batch,
    network: Parameters,
    values: Address,
    jets: Address,
    halo: Address,
    slots_per_block: u32,
    rounds: u32,
}

/// `OverPoints` in `kernels/fused.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct OverPoints {
    network: Parameters,
    latents: Address,
    values: Address,
    jets: Address,
    gram: Address,
    count: u32,
    padding: u32,
}

/// What the kernels for a decoder are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// W, numbers in a row.
    width: usize,
    precision: Precision,
    build: Build,
    latent_dim: usize,
    /// Of all hidden layers, where it is one.
    activation: Option<Activation>,
}

impl Shape {
    /// The shape for a decoder, or nothing where the fused kernels do not take it.
    pub fn new(host: &HostNetwork<f32>, precision: Precision, properties: &Properties) -> Option<Self> {
        let layers: usize = host.chains.iter().map(|c| c.layers.len()).sum();
        let widest = host.layers().map(|l| l.outputs).max().unwrap_or(0);
        if precision == Precision::Float32
            || layers > MOST_LAYERS
            || host.chains.len() > MOST_HEADS
            || widest > MOST_WIDTH
            || host.geometry != decoder::Geometry::Euclidean
            || host.layers().any(|l| !l.activation.is_elementwise())
            || properties.compute < (8, 0)
        {
            return None;
        }
        let mut hidden = host.chains.iter().flat_map(|c| &c.layers[..c.layers.len() - 1]).map(|l| l.activation);
        let first = hidden.next();
        let activation = first.filter(|first| hidden.all(|a| a == *first));
        let width = widest.next_multiple_of(if widest <= 256 { 64 } else { 128 });
        // Of 64 columns a warpgroup would have too few, and too few of them would fit beside each other.
        let build = if properties.compute == (9, 0) && width > 64 { Build::Warpgroup } else { Build::Warp };
        let shape = Self { width, precision, build, latent_dim: host.latent_dim, activation };
        (shape.rows() >= LEAST_POINTS * host.latent_dim).then_some(shape)
    }

    /// Rows of a tile.
    fn rows(&self) -> usize {
        if self.width <= 256 { 128 } else { 64 }
    }

    /// The width of the kernels that are there for every decoder.
    fn general_width(&self) -> usize {
        self.width.next_power_of_two()
    }

    fn suffix(&self) -> &'static str {
        if self.build == Build::Warpgroup { "_sm90" } else { "" }
    }

    /// The name of a kernel for all decoders of a width, which `kernels/fused.cu` may or may not define.
    fn general_name(&self, family: &str, precision: Precision) -> String {
        format!("{family}_{}_{precision}{}", self.general_width(), self.suffix())
    }

    fn name(&self, family: &str, precision: Precision) -> String {
        let activation = self.activation.map_or("any", Activation::name);
        format!("{family}_{}_{precision}_{}_{activation}{}", self.width, self.latent_dim, self.suffix())
    }

    /// What everything but geodesics is computed in.
    fn of_points(&self) -> Precision {
        if self.precision == Precision::Mixed { Precision::Tf32x3 } else { self.precision }
    }

    /// Lines that define the kernels for this shape, behind the sources.
    pub fn instances(&self) -> String {
        let arithmetic = |precision| match precision {
            Precision::Tf32 => "TF32",
            Precision::Bf16 => "BF16",
            Precision::Float32 | Precision::Tf32x3 | Precision::Mixed => "TF32X3",
        };
        let activation = self.activation.map_or("ANY".into(), |a| a.name().to_ascii_uppercase());
        let (width, d) = (self.width, self.latent_dim);
        let products = if self.build == Build::Warpgroup { "ProductsSm90" } else { "Products" };
        let (solve, over) = (self.name("solve", self.precision), self.name("over_points", self.of_points()));
        let (of_solve, of_over) = (arithmetic(self.precision), arithmetic(self.of_points()));
        let mixed = self.precision == Precision::Mixed;
        format!(
            "SOLVE_INSTANCE({solve}, {products}, {width}, {of_solve}, {mixed}, {d}, {activation})\n\
             OVER_POINTS_INSTANCE({over}, {products}, {width}, {of_over}, {d}, {activation})\n"
        )
    }

    /// The slices of a head's first layer, and of all other layers.
    fn kinds(&self) -> (Kind, Kind) {
        let whole = if self.build == Build::Warp { Kind::Whole } else { Kind::Split };
        match self.precision {
            Precision::Tf32 => (whole, Kind::Tf32),
            Precision::Bf16 => (whole, Kind::Bf16),
            Precision::Float32 | Precision::Tf32x3 | Precision::Mixed => (whole, whole),
        }
    }

    /// The shape with the width that general kernels have.
    fn general(self) -> Self {
        Self { width: self.general_width(), ..self }
    }
}

/// A decoder on tensor cores.
#[derive(Debug)]
pub(crate) struct FusedNetwork {
    _weights: Buffer<u32>,
    parameters: Parameters,
    shape: Shape,
    solve: Kernel,
    over_points: Kernel,
    /// Dynamic shared memory of a block, in bytes.
    shared: usize,
    /// Blocks that a multiprocessor has room for.
    blocks: usize,
}

impl FusedNetwork {
    /// Puts the slices of all weights on the device; nothing where there are no kernels for that shape, or too little shared memory.
    pub fn new(platform: &Arc<dyn Platform>, host: &HostNetwork<f32>, shape: Option<Shape>) -> Result<Option<Self>> {
        let properties = platform.properties();
        let Some(own) = shape else { return Ok(None) };
        let Some((shape, solve, over_points)) = kernels(platform.as_ref(), own)? else { return Ok(None) };
        let (mut network, words, number) = parameters(&shape, host);
        let Some((shared, blocks)) = settle(&shape, &mut network, number, properties) else { return Ok(None) };
        let weights = upload_words(platform, &words)?;
        network.move_by(weights.address(), number);
        Ok(Some(Self { _weights: weights, parameters: network, shape, solve, over_points, shared, blocks }))
    }

    pub fn precision(&self) -> Precision {
        self.shape.precision
    }

    /// Numbers of a point's values, filled up with what is the same at every point.
    pub fn value_stride(&self) -> usize {
        self.parameters.value_stride as usize
    }

    /// Numbers of a point's jets.
    pub fn jet_stride(&self) -> usize {
        self.parameters.jet_stride as usize
    }

    /// Blocks for so many tiles of points.
    fn blocks_for(&self, properties: &Properties, items: usize) -> usize {
        items.clamp(1, properties.multiprocessors as usize * self.blocks)
    }

    /// How many curves a block looks after, and how many blocks there are, for so many curves in work.
    pub fn blocks_of_slots(&self, properties: &Properties, slots: usize) -> (usize, usize) {
        let blocks = self.blocks_for(properties, slots);
        let own = slots.div_ceil(blocks).clamp(1, MOST_OWN_SLOTS);
        (own, slots.div_ceil(own))
    }

    /// Curves of so many segments that are worth having in work.
    pub fn wanted_slots(&self, properties: &Properties, segments: usize) -> usize {
        let own = POINTS_PER_BLOCK.div_ceil(segments).clamp(1, MOST_OWN_SLOTS);
        own * self.blocks_for(properties, usize::MAX)
    }

    /// Numbers that a block puts aside.
    pub fn halo(&self) -> usize {
        self.parameters.head_count as usize * self.parameters.latent_dim as usize * self.shape.width
    }

    /// Rounds of the solver for a batch, in every block until it has nothing to do.
    pub fn solve(&self, launcher: Launcher<'_>, batch: &Batch, room: &Room, rounds: usize) -> Result<()> {
        let (own, blocks) = self.blocks_of_slots(launcher.stream.platform().properties(), batch.slots as usize);
        let params = Solve {
            batch: *batch,
            network: self.parameters,
            values: room.values,
            jets: room.jets,
            halo: room.halo,
            slots_per_block: own as u32,
            rounds: rounds as u32,
        };
        self.launch(launcher, self.solve, blocks, &params)
    }

    /// Points whose jets [`metric`](Self::metric) has in its room: those of a tile together, and of one tile for every block.
    pub fn metric_rows(&self, properties: &Properties) -> (usize, usize) {
        let rows = self.shape.rows();
        (rows, self.blocks_for(properties, usize::MAX) * rows)
    }

    fn tiles(&self, properties: &Properties, count: usize) -> usize {
        self.blocks_for(properties, count.div_ceil(self.shape.rows()))
    }

    /// f at latents `[count, d]`: `values` `[count, value_stride]`.
    pub fn decode(&self, launcher: Launcher<'_>, count: usize, latents: Address, values: Address) -> Result<()> {
        self.over_points(launcher, OverPoints { latents, values, ..self.points(count) })
    }

    /// G at latents `[count, d]`: `gram` `[count, d, d]`. `room` has the jets of [`metric_rows`](Self::metric_rows).
    pub fn metric(
        &self,
        launcher: Launcher<'_>,
        count: usize,
        latents: Address,
        room: Address,
        gram: Address,
    ) -> Result<()> {
        self.over_points(launcher, OverPoints { latents, jets: room, gram, ..self.points(count) })
    }

    fn points(&self, count: usize) -> OverPoints {
        OverPoints { network: self.parameters, count: count as u32, ..OverPoints::zeroed() }
    }

    fn over_points(&self, launcher: Launcher<'_>, params: OverPoints) -> Result<()> {
        let blocks = self.tiles(launcher.stream.platform().properties(), params.count as usize);
        self.launch(launcher, self.over_points, blocks, &params)
    }

    fn launch<P: Pod>(&self, launcher: Launcher<'_>, kernel: Kernel, blocks: usize, params: &P) -> Result<()> {
        let threads = threads(self.shape.build);
        let geometry = Geometry { blocks: blocks as u32, threads, shared: self.shared as u32 };
        // SAFETY: `params` was built from buffers that outlive the stream, with the sizes that they were made for.
        unsafe { launcher.stream.launch(kernel, geometry, params) }
    }
}

/// Where a batch's values and jets stand, `[points, value_stride]` and `[points, jet_stride]`, and what blocks put aside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub values: Address,
    pub jets: Address,
    pub halo: Address,
}

/// The kernels for a shape: its own, or those for every decoder of its width.
fn kernels(platform: &dyn Platform, own: Shape) -> Result<Option<(Shape, Kernel, Kernel)>> {
    let general = own.general();
    let names = [
        (own, own.name("solve", own.precision), own.name("over_points", own.of_points())),
        (general, own.general_name("solve", own.precision), own.general_name("over_points", own.of_points())),
    ];
    for (shape, solve, over_points) in names {
        if let (Some(solve), Some(over_points)) = (platform.kernel(&solve)?, platform.kernel(&over_points)?) {
            return Ok(Some((shape, solve, over_points)));
        }
    }
    Ok(None)
}

/// Threads of a block.
fn threads(build: Build) -> u32 {
    match build {
        Build::Warp => 256,
        Build::Warpgroup => 384,
    }
}

fn padded(columns: usize) -> usize {
    columns.next_multiple_of(COLUMNS)
}

/// Puts words behind the others; returns how many bytes are before them.
fn place(words: &mut Vec<u32>, more: &[u32]) -> Address {
    let bytes = words.len() * size_of::<u32>();
    words.extend_from_slice(more);
    bytes as Address
}

/// Wᵀ of a head's first layer, [d, columns].
fn columns_of_first(layer: &Dense<f32>) -> Vec<u32> {
    let width = padded(layer.outputs);
    let weight = |a: usize, n: usize| if n < layer.outputs { layer.weight[n * layer.inputs + a] } else { 0.0 };
    (0..layer.inputs * width).map(|e| weight(e / width, e % width).to_bits()).collect()
}

/// Numbers for every column, `nothing` behind those that there are.
fn filled_up(numbers: &[f32], columns: usize, nothing: f32) -> Vec<u32> {
    (0..padded(columns)).map(|n| numbers.get(n).copied().unwrap_or(nothing).to_bits()).collect()
}

fn layer(shape: &Shape, dense: &Dense<f32>, is_first: bool, words: &mut Vec<u32>, jets: &mut u32) -> FusedLayer {
    let (first, others) = shape.kinds();
    let mut matrix = |kind, (columns, inner), at: &dyn Fn(usize, usize) -> f32| Matrix {
        slices: place(words, &slices::slices(kind, shape.build, (columns, inner), at)),
        count: slices::count(kind, inner) as u32,
        columns: padded(columns) as u32,
        resident: NO_PLACE,
        step: 1,
    };
    let (inputs, outputs) = (dense.inputs, dense.outputs);
    let kind = if is_first { first } else { others };
    let forward = matrix(kind, (outputs, inputs), &|n, k| dense.weight[n * inputs + k]);
    let backward = match is_first {
        true => Matrix { resident: NO_PLACE, step: 1, ..Matrix::zeroed() },
        false => matrix(others, (inputs, outputs), &|n, k| dense.weight[k * inputs + n]),
    };
    // Where columns are filled up, φ must be finite.
    let nothing: f32 = if dense.activation == Activation::Rsqrt { 1.0 } else { 0.0 };
    let bias = filled_up(&dense.bias, outputs, nothing);
    let has_first = dense.activation != Activation::Identity || !dense.scale.is_empty();
    let has_second = !dense.activation.is_piecewise_linear();
    let at = *jets;
    *jets += (padded(outputs) * (usize::from(has_first) + usize::from(has_second))) as u32;
    FusedLayer {
        forward,
        backward,
        bias: place(words, &bias),
        jets: at,
        activation: Activation::ALL.iter().position(|&a| a == dense.activation).unwrap_or(0) as u32,
        has_first: has_first.into(),
        has_second: has_second.into(),
    }
}

/// What the kernels need to know of a decoder, with places in a buffer instead of addresses; the buffer, and how many layers there are.
fn parameters(shape: &Shape, host: &HostNetwork<f32>) -> (Parameters, Vec<u32>, usize) {
    let mut words: Vec<u32> = Vec::new();
    let mut network = Parameters::zeroed();
    network.latent_dim = host.latent_dim as u32;
    network.head_count = host.chains.len() as u32;
    network.alternates = (shape.kinds().1 == Kind::Split).into();
    let mut number = 0;
    for (head, chain) in network.heads.iter_mut().zip(&host.chains) {
        head.first = number as u32;
        head.values = network.value_stride;
        network.value_stride += padded(chain.outputs()) as u32;
        head.tangents = place(&mut words, &columns_of_first(&chain.layers[0]));
        for (k, dense) in chain.layers.iter().enumerate() {
            network.layers[number] = layer(shape, dense, k == 0, &mut words, &mut network.jet_stride);
            number += 1;
        }
        head.last = number as u32 - 1;
        let last = chain.last();
        if !last.scale.is_empty() {
            head.scale = place(&mut words, &filled_up(&last.scale, last.outputs, 1.0));
        }
    }
    (network, words, number)
}

/// Finds places for the weights in shared memory, all of them or a ring's stages: the dynamic shared memory of a block, and how many
/// blocks a multiprocessor has room for. Nothing where there is too little.
fn settle(shape: &Shape, network: &mut Parameters, layers: usize, properties: &Properties) -> Option<(usize, usize)> {
    let number = size_of::<f32>();
    let rows = shape.rows() * shape.width * number;
    let limit = (properties.shared_per_block as usize).saturating_sub(STATIC_SHARED);
    let slices = |m: &Matrix| m.count as usize * m.columns as usize * SLICE;
    let all: usize = network.layers[..layers].iter().map(|l| slices(&l.forward) + slices(&l.backward)).sum();
    let weights = if rows + all * number <= limit {
        let mut next = 0;
        for matrix in network.layers[..layers].iter_mut().flat_map(|l| [&mut l.forward, &mut l.backward]) {
            matrix.resident = next;
            next += slices(matrix) as u32;
        }
        all * number
    } else {
        let stage = shape.width * SLICE * number;
        let stages = (limit.checked_sub(rows)? / stage).min(MOST_STAGES);
        if stages < 2 {
            return None;
        }
        network.stages = stages as u32;
        stages * stage
    };
    let shared = rows + weights;
    // Registers allow two where rows are short.
    let whole = properties.shared_per_block as usize + RESERVED;
    let two = shape.width <= 64 && 2 * (shared + STATIC_SHARED + RESERVED) <= whole;
    Some((shared, if two { 2 } else { 1 }))
}

impl Parameters {
    /// From places in the buffer to addresses.
    fn move_by(&mut self, base: Address, layers: usize) {
        for layer in &mut self.layers[..layers] {
            layer.forward.slices += base;
            if layer.backward.count > 0 {
                layer.backward.slices += base;
            }
            layer.bias += base;
        }
        for head in &mut self.heads[..self.head_count as usize] {
            head.tangents += base;
            // The buffer begins with a matrix, so that no scale stands at 0.
            if head.scale != 0 {
                head.scale += base;
            }
        }
    }
}

fn upload_words(platform: &Arc<dyn Platform>, words: &[u32]) -> Result<Buffer<u32>> {
    let buffer = Buffer::<u32>::new(platform, words.len())?;
    let mut staging = Pinned::<u32>::new(platform, words.len())?;
    staging.as_mut_slice().copy_from_slice(words);
    let stream = Stream::new(platform)?;
    // SAFETY: the staging memory is not touched again, and the stream is waited for before it is dropped.
    unsafe { stream.upload((&buffer, 0), (&staging, 0), words.len())? };
    stream.synchronise()?;
    Ok(buffer)
}

#[cfg(test)]
mod room;
#[cfg(all(test, feature = "emulator"))]
mod tests;
