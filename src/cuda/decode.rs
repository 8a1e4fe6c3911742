//! Launches `kernels/decode.cu`: the decoder forward, layer by layer.

use bytemuck::{Pod, Zeroable};

use super::launch::{Launcher, RowList};
use super::network::{DeviceLayer, DeviceNetwork};
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
    scale: Address,
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
        let numbers = |l: &DeviceLayer| l.outputs * Self::kept(l, order).into_iter().filter(|&kept| kept).count();
        network.layers().map(numbers).sum()
    }

    /// Whether φ' and φ'' of a layer are kept.
    fn kept(l: &DeviceLayer, order: Order) -> [bool; 2] {
        let second = if l.softmax.is_some() { Order::First } else { Order::Second };
        [l.has_first && order >= Order::First, l.has_second && order >= second]
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
            let [first, second] = Self::kept(l, order);
            jets.first.push(place(first, l.outputs));
            jets.second.push(place(second, l.outputs));
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
            let place = |jets: &[Address]| jets.get(number).copied().unwrap_or(0);
            let kept = [place(&jets.first), place(&jets.second)];
            let (stride, offset) = if is_last { (network.data_dim, chain.output_offset) } else { (layer.outputs, 0) };
            // A softmax takes the layer's products as they are.
            let [first, second, scale] = if layer.softmax.is_some() { [0; 3] } else { [kept[0], kept[1], layer.scale] };
            let params = DecodeLayer {
                list,
                input: if k == 0 { latents } else { hidden[(k + 1) % 2] },
                weights: layer.transposed,
                bias: layer.bias,
                output: if is_last { values } else { hidden[k % 2] },
                first,
                second,
                scale,
                inputs: layer.inputs as u32,
                outputs: layer.outputs as u32,
                stride: stride as u32,
                offset: offset as u32,
                activation: layer.activation,
                input_by_id: (k == 0).into(),
                output_by_id: is_last.into(),
                padding: 0,
            };
            launcher.tiles(layer.decode, list.limit as usize, layer.outputs, &params)?;
            if let Some(softmax) = layer.softmax {
                softmax.values(launcher, list, layer, values, (stride, offset), kept)?;
            }
        }
    }
    Ok(())
}
