//! Launches `kernels/jet.cu`: derivatives along directions of their own, and second ones.

use bytemuck::{Pod, Zeroable};

use super::decode::Jets;
use super::jacobian::{Pass, Tangents};
use super::launch::{Launcher, RowList};
use super::network::{DeviceNetwork, kernel};
use super::platform::Address;
use crate::cpu::activation::Order;
use crate::error::Result;

/// `JetDirections` in `kernels/jet.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct JetDirections {
    vectors: Address,
    directions: Address,
    points: u32,
    latent_dim: u32,
    axes: u32,
    vectors_count: u32,
}

/// `JetPairs` in `kernels/jet.cu`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
struct JetPairs {
    curved: u32,
    has_sum: u32,
}

/// `JetBend` in `kernels/jet.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct JetBend {
    list: RowList,
    tangents: Address,
    first: Address,
    second: Address,
    pairs: Address,
    output: Address,
    which: JetPairs,
    directions: u32,
    width: u32,
    stride: u32,
    offset: u32,
    is_first_layer: u32,
    padding: u32,
}

/// `SoftmaxBend` in `kernels/jet.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct SoftmaxBend {
    list: RowList,
    tangents: Address,
    first: Address,
    shares: Address,
    pairs: Address,
    output: Address,
    which: JetPairs,
    directions: u32,
    width: u32,
    stride: u32,
    offset: u32,
    angle: u32,
    padding: u32,
}

/// `JetSquares` in `kernels/jet.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct JetSquares {
    list: RowList,
    pairs: Address,
    out: Address,
    rows: u32,
    width: u32,
    stride: u32,
    accumulate: u32,
}

/// Which derivatives are asked for at every point.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Jet {
    /// Along each latent.
    pub has_axes: bool,
    /// And behind those along so many vectors of the point's own.
    pub vectors: usize,
    /// Second derivatives along pairs u ≤ v of the last so many directions.
    pub curved: usize,
    /// And behind those the sum of those with u = v.
    pub has_sum: bool,
}

impl Jet {
    /// Along one vector.
    pub const FIRST: Self = Self { has_axes: false, vectors: 1, curved: 0, has_sum: false };

    pub fn order(&self) -> Order {
        if self.curved > 0 { Order::Second } else { Order::First }
    }

    /// Rows of first derivatives.
    pub fn directions(&self, d: usize) -> usize {
        if self.has_axes { d + self.vectors } else { self.vectors }
    }

    /// Rows of second derivatives.
    pub fn pairs(&self) -> usize {
        self.curved * (self.curved + 1) / 2 + usize::from(self.has_sum)
    }

    /// Numbers that a point's rows take.
    pub fn room(&self, network: &DeviceNetwork) -> usize {
        let d = network.latent_dim;
        let directions = if self.has_axes { self.directions(d) * d } else { 0 };
        directions + 2 * (self.directions(d) + self.pairs()) * network.widest
    }

    fn which(&self) -> JetPairs {
        JetPairs { curved: self.curved as u32, has_sum: self.has_sum.into() }
    }
}

/// Rows `[points, count, outputs]` of one layer, by place.
#[derive(Clone, Copy)]
struct Rows {
    at: Address,
    count: usize,
}

/// A jet through one head.
struct JetPass<'a> {
    pass: Pass<'a>,
    jet: Jet,
    /// Before the first layer.
    directions: Address,
    /// a_uv of every other layer.
    pairs: [Address; 2],
}

/// Where a head's last rows go: columns of an array `[points, rows, D]`, of second derivatives where there are any, otherwise of first
/// ones; or nowhere, where the rows stay in their room.
pub(crate) type Columns = Option<Address>;

/// Derivatives at points 0 … `points` − 1, whose φ' and φ'' are in `derivatives`, along the vectors `[points, vectors, d]`.
/// `room` is [`Jet::room`] wide. `output` gets every head with its second derivatives `[points, pairs, outputs]`; the pass has the first
/// ones. They stay there until the next head.
#[allow(clippy::too_many_arguments)] // what is asked, and where it stands
pub(crate) fn jets(
    launcher: Launcher<'_>,
    network: &DeviceNetwork,
    points: usize,
    derivatives: &Jets,
    jet: Jet,
    vectors: Address,
    room: Address,
    columns: Columns,
    mut output: impl FnMut(&Pass<'_>, Address) -> Result<()>,
) -> Result<()> {
    let (d, widest) = (network.latent_dim, network.widest);
    let count = jet.directions(d);
    let mut next = room;
    let mut place = |numbers: usize| {
        let here = next;
        next += (points * numbers * size_of::<f32>()) as u64;
        here
    };
    let directions = if jet.has_axes { place(count * d) } else { vectors };
    let tangents = [place(count * widest), place(count * widest)];
    let pairs = [place(jet.pairs() * widest), place(jet.pairs() * widest)];
    if jet.has_axes {
        let params = JetDirections {
            vectors,
            directions,
            points: points as u32,
            latent_dim: d as u32,
            axes: d as u32,
            vectors_count: jet.vectors as u32,
        };
        let kernel = kernel(launcher.stream.platform().as_ref(), "jet_directions")?;
        launcher.threads(kernel, points * count * d, &params)?;
    }
    for chain in &network.chains {
        let places: Vec<Tangents> =
            (0..chain.layers.len()).map(|k| Tangents { at: tangents[k % 2], is_shared: false }).collect();
        let list = RowList::all(points);
        let pass = Pass { launcher, network, chain, list, jets: derivatives, directions: count, tangents: &places };
        let pass = JetPass { pass, jet, directions, pairs };
        (0..chain.layers.len()).try_for_each(|k| pass.layer(k, columns))?;
        output(&pass.pass, pairs[(chain.layers.len() - 1) % 2])?;
    }
    Ok(())
}

/// ‖a_uv‖² of one head `[points, rows, outputs]`, to `rows` numbers in every `stride` of `out` by point number.
pub(crate) fn squares(pass: &Pass<'_>, pairs: Address, rows: usize, out: Address, stride: usize) -> Result<()> {
    let params = JetSquares {
        list: pass.list,
        pairs,
        out,
        rows: rows as u32,
        width: pass.chain.outputs() as u32,
        stride: stride as u32,
        accumulate: pass.is_further_head().into(),
    };
    let kernel = kernel(pass.launcher.stream.platform().as_ref(), "jet_squares")?;
    pass.launcher.warps(kernel, pass.list.limit as usize * rows, &params)
}

impl JetPass<'_> {
    /// From the rows before layer k to its tangents and, behind its activation, its pairs.
    fn layer(&self, k: usize, columns: Columns) -> Result<()> {
        let Self { pass, jet, directions, pairs } = self;
        let layer = &pass.chain.layers[k];
        let tangents = Rows { at: pass.tangents[k].at, count: pass.directions };
        let (before, factor) = match k {
            0 => (Rows { at: *directions, ..tangents }, 0),
            _ => (Rows { at: pass.tangents[k - 1].at, ..tangents }, pass.first(k - 1)),
        };
        let outside = columns.filter(|_| k + 1 == pass.chain.layers.len());
        let of_head = (pass.network.data_dim, pass.chain.output_offset);
        // First derivatives that leave do so behind their activation.
        match outside.filter(|_| jet.pairs() == 0) {
            None => pass.multiply(k, (before.at, before.count), factor, tangents.at, (layer.outputs, 0), 0)?,
            Some(out) if layer.softmax.is_none() => {
                return pass.multiply(k, (before.at, before.count), factor, out, of_head, pass.first(k));
            }
            Some(out) => {
                pass.multiply(k, (before.at, before.count), factor, tangents.at, (layer.outputs, 0), 0)?;
                return self.between_shares(tangents, out, of_head, pass.first(k));
            }
        }
        if layer.softmax.is_some() {
            self.between_shares(tangents, tangents.at, (layer.outputs, 0), 0)?;
        }
        if jet.pairs() == 0 {
            return Ok(());
        }
        let here = Rows { at: pairs[k % 2], count: jet.pairs() };
        if k > 0 {
            let before = Rows { at: pairs[(k + 1) % 2], ..here };
            pass.multiply(k, (before.at, before.count), 0, here.at, (layer.outputs, 0), 0)?;
        }
        let (output, columns) = outside.map_or((here.at, (layer.outputs, 0)), |out| (out, of_head));
        self.bend(k, here, output, columns)
    }

    /// x − ⟨p, x⟩ of the rows before a softmax; times `finish`, where it is not 0.
    fn between_shares(&self, rows: Rows, output: Address, columns: (usize, usize), finish: Address) -> Result<()> {
        let pass = Pass { directions: rows.count, ..self.pass };
        let softmax = pass.chain.last().softmax;
        let rows = Tangents { at: rows.at, is_shared: false };
        softmax.map_or(Ok(()), |softmax| softmax.tangents(&pass, rows, output, columns, finish))
    }

    /// From h_uv to a_uv.
    fn bend(&self, k: usize, pairs: Rows, output: Address, (stride, offset): (usize, usize)) -> Result<()> {
        let Self { pass, jet, .. } = self;
        let (layer, list) = (&pass.chain.layers[k], pass.list);
        let (points, platform) = (list.limit as usize, pass.launcher.stream.platform().as_ref());
        let (tangents, which, directions) = (pass.tangents[k].at, jet.which(), pass.directions as u32);
        let (width, stride, offset) = (layer.outputs as u32, stride as u32, offset as u32);
        let (first, second, pairs_at) = (pass.first(k), pass.second(k), pairs.at);
        let Some(softmax) = layer.softmax else {
            let params = JetBend {
                list,
                tangents,
                first,
                second,
                pairs: pairs_at,
                output,
                which,
                directions,
                width,
                stride,
                offset,
                is_first_layer: (k == 0).into(),
                padding: 0,
            };
            return pass.launcher.threads(kernel(platform, "jet_bend")?, points * layer.outputs, &params);
        };
        if k == 0 {
            pass.launcher.clear(pairs.at, points * pairs.count * layer.outputs)?;
        } else {
            self.between_shares(pairs, pairs.at, (layer.outputs, 0), 0)?;
        }
        let params = SoftmaxBend {
            list,
            tangents,
            first,
            shares: second,
            pairs: pairs_at,
            output,
            which,
            directions,
            width,
            stride,
            offset,
            angle: softmax.is_angle().into(),
            padding: 0,
        };
        pass.launcher.warps(kernel(platform, "softmax_bend")?, points * pairs.count, &params)
    }
}
