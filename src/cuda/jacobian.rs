//! Launches `kernels/jacobian.cu`: Jacobian columns, layer by layer.

use bytemuck::{Pod, Zeroable};

use super::decode::Jets;
use super::launch::{Launcher, RowList};
use super::network::{DeviceChain, DeviceNetwork, kernel};
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

/// Tangents of one layer before its activation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tangents {
    /// `[points, d, outputs]` by place in the list, or `[d, outputs]` for all points: the first layer's are its weights.
    pub at: Address,
    pub is_shared: bool,
}

/// Where the tangents of every layer of one head stand, in `room` for `points` points.
pub(crate) fn places(chain: &DeviceChain, latent_dim: usize, points: usize, room: Address) -> Vec<Tangents> {
    let mut next = room;
    let place = |(k, layer): (usize, &super::network::DeviceLayer)| {
        if k == 0 {
            return Tangents { at: layer.transposed, is_shared: true };
        }
        let at = next;
        next += (points * latent_dim * layer.outputs * size_of::<f32>()) as u64;
        Tangents { at, is_shared: false }
    };
    chain.layers.iter().enumerate().map(place).collect()
}

/// Carries the tangents of one head through all its layers, to `tangents` (see [`places`]).
pub(crate) fn push_forward(
    launcher: Launcher<'_>,
    network: &DeviceNetwork,
    chain: &DeviceChain,
    list: RowList,
    jets: &Jets,
    tangents: &[Tangents],
) -> Result<()> {
    (1..chain.layers.len()).try_for_each(|k| {
        let layer = &chain.layers[k];
        let to = Target { at: tangents[k].at, stride: layer.outputs, offset: 0, finish: 0 };
        through_layer(launcher, network, chain, k, list, jets, tangents, to)
    })
}

/// Where a layer's tangents go.
struct Target {
    at: Address,
    stride: usize,
    offset: usize,
    finish: Address,
}

#[allow(clippy::too_many_arguments)] // a layer of a head, and the arrays that its kernel reads
fn through_layer(
    launcher: Launcher<'_>,
    network: &DeviceNetwork,
    chain: &DeviceChain,
    k: usize,
    list: RowList,
    jets: &Jets,
    tangents: &[Tangents],
    to: Target,
) -> Result<()> {
    let (layer, before, d) = (&chain.layers[k], &tangents[k - 1], network.latent_dim);
    let params = JacobianLayer {
        list,
        input: before.at,
        factor: jets.first[chain.first_layer + k - 1],
        weights: layer.transposed,
        output: to.at,
        finish: to.finish,
        inputs: layer.inputs as u32,
        outputs: layer.outputs as u32,
        stride: to.stride as u32,
        offset: to.offset as u32,
        latent_dim: d as u32,
        input_is_shared: before.is_shared.into(),
    };
    launcher.tiles(layer.jacobian, list.limit as usize * d, layer.outputs, &params)
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
    let (list, d) = (RowList::all(points), network.latent_dim);
    for chain in &network.chains {
        let last = chain.layers.len() - 1;
        let to = Target {
            at: out,
            stride: network.data_dim,
            offset: chain.output_offset,
            finish: jets.first[chain.first_layer + last],
        };
        let tangents = places(chain, d, points, room);
        if last == 0 {
            let layer = &chain.layers[0];
            let params = JacobianLayer {
                list,
                input: layer.transposed,
                factor: 0,
                weights: 0,
                output: to.at,
                finish: to.finish,
                inputs: d as u32,
                outputs: layer.outputs as u32,
                stride: to.stride as u32,
                offset: to.offset as u32,
                latent_dim: d as u32,
                input_is_shared: 1,
            };
            let one_layer = kernel(launcher.stream.platform().as_ref(), "jacobian_of_one_layer")?;
            launcher.threads(one_layer, points * d * layer.outputs, &params)?;
            continue;
        }
        for k in 1..last {
            let layer = &chain.layers[k];
            let to = Target { at: tangents[k].at, stride: layer.outputs, offset: 0, finish: 0 };
            through_layer(launcher, network, chain, k, list, jets, &tangents, to)?;
        }
        through_layer(launcher, network, chain, last, list, jets, &tangents, to)?;
    }
    Ok(())
}
