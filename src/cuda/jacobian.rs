//! Launches `kernels/jacobian.cu`: Jacobian columns, layer by layer.

use bytemuck::{Pod, Zeroable};

use super::decode::Jets;
use super::launch::{Launcher, RowList};
use super::network::{DeviceChain, DeviceLayer, DeviceNetwork, kernel};
use super::platform::Address;
use crate::error::Result;

/// `JacobianLayer` in `kernels/jacobian.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct JacobianLayer {
    list: RowList,
    input: Address,
    factor: Address,
    weights: Address,
    output: Address,
    finish: Address,
    inputs: u32,
    outputs: u32,
    stride: u32,
    offset: u32,
    latent_dim: u32,
    input_is_shared: u32,
}

/// Tangents of one layer before its activation; before a softmax, u of `kernels/softmax.cu`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tangents {
    /// `[points, d, outputs]` by place in the list, or `[d, outputs]` for all points: the first layer's are its weights.
    pub at: Address,
    pub is_shared: bool,
}

impl Tangents {
    /// Those of a head's first layer: its weight.
    pub fn of_first(layer: &DeviceLayer) -> Self {
        Self { at: layer.transposed, is_shared: true }
    }
}

/// Where the tangents of every layer of one head stand, in `room` for `points` points.
pub(crate) fn places(chain: &DeviceChain, latent_dim: usize, points: usize, room: Address) -> Vec<Tangents> {
    let mut next = room;
    let place = |(k, layer): (usize, &DeviceLayer)| {
        if !layer.has_tangents(k) {
            return Tangents::of_first(layer);
        }
        let at = next;
        next += (points * latent_dim * layer.outputs * size_of::<f32>()) as u64;
        Tangents { at, is_shared: false }
    };
    chain.layers.iter().enumerate().map(place).collect()
}

/// One head at a list of points: what its kernels read.
#[derive(Clone, Copy)]
pub(crate) struct Pass<'a> {
    pub launcher: Launcher<'a>,
    pub network: &'a DeviceNetwork,
    pub chain: &'a DeviceChain,
    pub list: RowList,
    pub jets: &'a Jets,
    /// Tangents of a point: d for J's columns.
    pub directions: usize,
    /// Of every layer; see [`places`].
    pub tangents: &'a [Tangents],
}

impl Pass<'_> {
    /// φ' of layer k by point number, or 0 where φ' = 1.
    pub fn first(&self, k: usize) -> Address {
        self.jets.first[self.chain.first_layer + k]
    }

    /// φ'' of layer k, likewise.
    pub fn second(&self, k: usize) -> Address {
        self.jets.second[self.chain.first_layer + k]
    }

    /// True for a head that adds to what an earlier one has left.
    pub fn is_further_head(&self) -> bool {
        self.chain.first_layer > 0
    }

    /// Carries the tangents through all layers.
    pub fn push_forward(&self) -> Result<()> {
        self.push_through(self.chain.layers.len())?;
        let (last, width) = (self.chain.layers.len() - 1, self.chain.outputs());
        let Some(softmax) = self.chain.last().softmax else { return Ok(()) };
        softmax.tangents(self, self.before_softmax(), self.tangents[last].at, (width, 0), 0)
    }

    /// What the last layer's products are in front of a softmax.
    fn before_softmax(&self) -> Tangents {
        let layers = &self.chain.layers;
        if layers.len() == 1 { Tangents::of_first(&layers[0]) } else { self.tangents[layers.len() - 1] }
    }

    fn push_through(&self, layers: usize) -> Result<()> {
        (1..layers).try_for_each(|k| {
            let params = self.layer(k, self.tangents[k].at, (self.chain.layers[k].outputs, 0), 0);
            self.launch(k, &params)
        })
    }

    /// Carries the tangents through all layers and the last activation, to columns of `out` `[points, d, D]`.
    fn finish(&self, out: Address) -> Result<()> {
        let last = self.chain.layers.len() - 1;
        let columns = (self.network.data_dim, self.chain.output_offset);
        if let Some(softmax) = self.chain.last().softmax {
            self.push_through(last + 1)?;
            return softmax.tangents(self, self.before_softmax(), out, columns, self.first(last));
        }
        self.push_through(last)?;
        let params = self.layer(last, out, columns, self.first(last));
        if last > 0 {
            return self.launch(last, &params);
        }
        let one_layer = kernel(self.launcher.stream.platform().as_ref(), "jacobian_of_one_layer")?;
        let rows = self.list.limit as usize * self.directions;
        self.launcher.threads(one_layer, rows * self.chain.outputs(), &params)
    }

    /// Layer k's tangents from those of the layer before, to rows of `output` of the given stride and first column.
    fn layer(&self, k: usize, output: Address, (stride, offset): (usize, usize), finish: Address) -> JacobianLayer {
        let layer = &self.chain.layers[k];
        // The first layer has none before it: its own weights are its tangents.
        let before = self.tangents[k.saturating_sub(1)];
        JacobianLayer {
            list: self.list,
            input: before.at,
            factor: if k > 0 { self.first(k - 1) } else { 0 },
            weights: layer.transposed,
            output,
            finish,
            inputs: layer.inputs as u32,
            outputs: layer.outputs as u32,
            stride: stride as u32,
            offset: offset as u32,
            latent_dim: self.directions as u32,
            input_is_shared: before.is_shared.into(),
        }
    }

    /// Layer k's products with `count` rows a point, `[points, count, inputs]`, by a kernel that does not count on d of them.
    pub(super) fn multiply(
        &self,
        k: usize,
        (rows, count): (Address, usize),
        factor: Address,
        output: Address,
        columns: (usize, usize),
        finish: Address,
    ) -> Result<()> {
        let outputs = self.chain.layers[k].outputs;
        let params = JacobianLayer {
            input: rows,
            factor,
            latent_dim: count as u32,
            input_is_shared: 0,
            ..self.layer(k, output, columns, finish)
        };
        let general = DeviceNetwork::general_jacobian(outputs);
        let kernel = kernel(self.launcher.stream.platform().as_ref(), &general)?;
        self.launcher.tiles(kernel, self.list.limit as usize * count, outputs, &params)
    }

    fn launch(&self, k: usize, params: &JacobianLayer) -> Result<()> {
        let layer = &self.chain.layers[k];
        let rows = self.list.limit as usize * self.directions;
        self.launcher.tiles(layer.jacobian, rows, layer.outputs, params)
    }
}

/// J of all heads: `out` `[points, d, D]`, from derivatives by point number. `room` is [`DeviceNetwork::tangent_width`] wide.
pub(crate) fn jacobians(
    launcher: Launcher<'_>,
    network: &DeviceNetwork,
    points: usize,
    jets: &Jets,
    room: Address,
    out: Address,
) -> Result<()> {
    network.chains.iter().try_for_each(|chain| {
        let directions = network.latent_dim;
        let tangents = places(chain, directions, points, room);
        let list = RowList::all(points);
        Pass { launcher, network, chain, list, jets, directions, tangents: &tangents }.finish(out)
    })
}
