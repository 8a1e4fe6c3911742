//! Launches `kernels/decode.cu`: the decoder forward, layer by layer.

use bytemuck::{Pod, Zeroable};

use super::launch::{Launcher, RowList};
use super::network::DeviceNetwork;
use super::platform::Address;
use crate::cpu::activation::Order;
use crate::error::Result;

/// `DecodeLayer` in `kernels/decode.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct DecodeLayer {
    list: RowList,
    input: Address,
    weights: Address,
    bias: Address,
    output: Address,
    first: Address,
    second: Address,
    inputs: u32,
    outputs: u32,
    stride: u32,
    offset: u32,
    activation: u32,
    input_by_id: u32,
    output_by_id: u32,
    padding: u32,
}

/// φ' and φ'' of every layer, `[points, outputs]` each, by point number; address 0 where they are constant or not kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Jets {
    pub first: Vec<Address>,
    pub second: Vec<Address>,
}

impl Jets {
    /// Numbers per point.
    pub fn width(network: &DeviceNetwork, order: Order) -> usize {
        let kept = |l: &super::network::DeviceLayer| {
            l.outputs
                * (usize::from(l.has_first && order >= Order::First)
                    + usize::from(l.has_second && order >= Order::Second))
        };
        network.layers().map(kept).sum()
    }

    /// Places for `points` points, from `at` on.
    pub fn new(network: &DeviceNetwork, order: Order, points: usize, mut at: Address) -> Self {
        let mut place = |wanted: bool, outputs: usize| {
            let here = if wanted { at } else { 0 };
            at += if wanted { (points * outputs * size_of::<f32>()) as u64 } else { 0 };
            here
        };
        let mut jets = Self::default();
        for l in network.layers() {
            jets.first.push(place(l.has_first && order >= Order::First, l.outputs));
            jets.second.push(place(l.has_second && order >= Order::Second, l.outputs));
        }
        jets
    }
}

/// f at the listed points: latents `[points, d]` to `values` `[points, D]`, both by number. `hidden` are two arrays
/// `[list.limit, widest]`.
pub(crate) fn decode(
    launcher: Launcher<'_>,
    network: &DeviceNetwork,
    list: RowList,
    latents: Address,
    jets: &Jets,
    hidden: [Address; 2],
    values: Address,
) -> Result<()> {
    for chain in &network.chains {
        for (k, layer) in chain.layers.iter().enumerate() {
            let (number, is_last) = (chain.first_layer + k, k + 1 == chain.layers.len());
            let params = DecodeLayer {
                list,
                input: if k == 0 { latents } else { hidden[(k + 1) % 2] },
                weights: layer.transposed,
                bias: layer.bias,
                output: if is_last { values } else { hidden[k % 2] },
                first: jets.first.get(number).copied().unwrap_or(0),
                second: jets.second.get(number).copied().unwrap_or(0),
                inputs: layer.inputs as u32,
                outputs: layer.outputs as u32,
                stride: if is_last { network.data_dim } else { layer.outputs } as u32,
                offset: if is_last { chain.output_offset } else { 0 } as u32,
                activation: layer.activation,
                input_by_id: (k == 0).into(),
                output_by_id: is_last.into(),
                padding: 0,
            };
            launcher.tiles(layer.decode, list.limit as usize, layer.outputs, &params)?;
        }
    }
    Ok(())
}
