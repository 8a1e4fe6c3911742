//! Second derivatives, and inner products between derivatives: what the curvature of `src/cpu/curvature.rs` is made of.

use super::decode::Jets;
use super::gram::{InnerProducts, Operand};
use super::jacobian::Pass;
use super::jet::{Jet, jets, squares};
use super::model::{Chunk, CudaModel, EVERY_ROW, Operation, bytes};
use super::network::{DeviceNetwork, kernel};
use super::platform::Address;
use crate::cpu::activation::Order;
use crate::error::Result;

/// Inner products between the derivatives of a jet at one point, as [`CudaModel::jet_products`] leaves them one behind the other.
#[derive(Clone, Copy)]
pub(crate) struct ProductLayout {
    /// Rows of first and second derivatives.
    pub tangents: usize,
    pub pairs: usize,
    /// Of second derivatives with each other there are squares alone.
    pub squares: bool,
}

impl ProductLayout {
    pub fn new(jet: Jet, d: usize) -> Self {
        Self { tangents: jet.directions(d), pairs: jet.pairs(), squares: jet.has_sum }
    }

    /// Where the products of second derivatives with first ones begin, `[pairs, tangents]`, behind those of the first, `[tangents, tangents]`.
    pub fn cross(&self) -> usize {
        self.tangents * self.tangents
    }

    /// Where those of second derivatives begin, `[pairs, pairs]` or `[pairs]`.
    pub fn seconds(&self) -> usize {
        self.cross() + self.pairs * self.tangents
    }

    /// Numbers of a point.
    pub fn width(&self) -> usize {
        self.seconds() + if self.squares { self.pairs } else { self.pairs * self.pairs }
    }
}

impl CudaModel {
    /// Latents `[P, d]` and vectors `[P, V, d]` to inner products over the compressed network's outputs, `[P, …]`: see [`ProductLayout`].
    pub fn jet_products(&self, latents: &[f32], vectors: &[f32], jet: Jet) -> Result<Vec<f32>> {
        let network = &self.compressed;
        let d = network.latent_dim;
        let layout = ProductLayout::new(jet, d);
        let operation = jet_operation(network, jet, layout.width());
        self.with_parts([(latents, d), (vectors, jet.vectors * d)], &operation, |launcher, chunk| {
            let (derivatives, vectors, room) = self.before_jets(network, launcher, chunk)?;
            jets(launcher, network, chunk.rows, &derivatives, jet, vectors, room, None, |pass, pairs| {
                products(pass, pairs, layout, chunk.out)
            })
        })
    }

    /// ∂²f[u, u], ∂²f[u, v] and ∂²f[v, v]: latents, u and v `[P, d]` to `[P, 3, D]`.
    pub fn second_derivatives(&self, latents: &[f32], u: &[f32], v: &[f32]) -> Result<Vec<f32>> {
        let network = &self.original;
        let d = network.latent_dim;
        let jet = Jet { has_axes: false, vectors: 2, curved: 2, has_sum: false };
        let operation = jet_operation(network, jet, jet.pairs() * network.data_dim);
        let vectors: Vec<f32> =
            u.chunks_exact(d).zip(v.chunks_exact(d)).flat_map(|(u, v)| [u, v]).flatten().copied().collect();
        self.with_parts([(latents, d), (&vectors, 2 * d)], &operation, |launcher, chunk| {
            let (derivatives, vectors, room) = self.before_jets(network, launcher, chunk)?;
            let stay = |_: &Pass<'_>, _| Ok(());
            jets(launcher, network, chunk.rows, &derivatives, jet, vectors, room, Some(chunk.out), stay)
        })
    }

    /// Decodes a chunk's latents for second derivatives; returns where φ' and φ'', the vectors, and room for a jet stand.
    fn before_jets(
        &self,
        network: &DeviceNetwork,
        launcher: super::launch::Launcher<'_>,
        chunk: &Chunk,
    ) -> Result<(Jets, Address, Address)> {
        let (derivatives, rest) = self.derivatives(network, launcher, chunk, Order::Second)?;
        Ok((derivatives, chunk.input + bytes(chunk.rows * network.latent_dim), rest))
    }
}

fn jet_operation(network: &DeviceNetwork, jet: Jet, width_out: usize) -> Operation {
    let decoding = 2 * network.widest + network.data_dim;
    Operation {
        width_in: (1 + jet.vectors) * network.latent_dim,
        width_out,
        room: Jets::width(network, jet.order()) + decoding.max(jet.room(network)),
        room_rows: EVERY_ROW,
        behind: 0,
    }
}

/// The share of one head.
fn products(pass: &Pass<'_>, pairs: Address, layout: ProductLayout, out: Address) -> Result<()> {
    let (width, stride) = (pass.chain.outputs(), layout.width());
    let platform = pass.launcher.stream.platform().as_ref();
    let tangents = Operand::jacobian(pass);
    let seconds = Operand { base: pairs, factor: 0, weight: 0, rows: layout.pairs as u32, is_shared: 0 };
    let launch = |name, x, y, first: usize| {
        let of_rows = InnerProducts::new(pass.list, x, y, width, out + bytes(first));
        let interleaved = InnerProducts { out_stride: stride as u32, ..of_rows };
        interleaved.added(pass.is_further_head()).launch(pass.launcher, kernel(platform, name)?)
    };
    launch("gram", tangents, tangents, 0)?;
    launch("cross_products", seconds, tangents, layout.cross())?;
    if layout.squares {
        return squares(pass, pairs, layout.pairs, out + bytes(layout.seconds()), stride);
    }
    launch("gram", seconds, seconds, layout.seconds())
}
