//! J v and Jᵀ w, one row a point: counterparts of `src/cpu/maps.rs`.

use super::decode::Jets;
use super::energy::{AdjointRows, AdjointTargets, adjoint_pass, seed};
use super::jacobian::Pass;
use super::jet::{Jet, jets};
use super::launch::RowList;
use super::model::{CudaModel, EVERY_ROW, Operation, bytes};
use crate::cpu::activation::Order;
use crate::error::Result;

impl CudaModel {
    /// J v: latents and vectors `[P, d]` to `[P, D]`.
    pub fn push_forward(&self, latents: &[f32], vectors: &[f32]) -> Result<Vec<f32>> {
        let network = &self.original;
        let (d, width) = (network.latent_dim, network.data_dim);
        let decoding = 2 * network.widest + network.data_dim;
        let operation = Operation {
            width_in: 2 * d,
            width_out: width,
            room: Jets::width(network, Order::First) + decoding.max(Jet::FIRST.room(network)),
            room_rows: EVERY_ROW,
            behind: 0,
        };
        self.with_parts([(latents, d), (vectors, d)], &operation, |launcher, chunk| {
            let (derivatives, rest) = self.derivatives(network, launcher, chunk, Order::First)?;
            let vectors = chunk.input + bytes(chunk.rows * d);
            let stay = |_: &Pass<'_>, _| Ok(());
            jets(launcher, network, chunk.rows, &derivatives, Jet::FIRST, vectors, rest, Some(chunk.out), stay)
        })
    }

    /// Jᵀ w: latents `[P, d]` and covectors `[P, D]` to `[P, d]`.
    pub fn pull_back(&self, latents: &[f32], covectors: &[f32]) -> Result<Vec<f32>> {
        let network = &self.original;
        let (d, width) = (network.latent_dim, network.data_dim);
        let operation = Operation {
            width_in: d + width,
            width_out: d,
            room: Jets::width(network, Order::First) + 2 * network.widest + network.data_dim,
            room_rows: EVERY_ROW,
            behind: 0,
        };
        self.with_parts([(latents, d), (covectors, width)], &operation, |launcher, chunk| {
            let (derivatives, rest) = self.derivatives(network, launcher, chunk, Order::First)?;
            let list = RowList::all(chunk.rows);
            let rows = AdjointRows { list, ids: 0 };
            let adjoints = [rest, rest + bytes(chunk.rows * network.widest)];
            let mut targets = AdjointTargets { curvature: 0, gradient: chunk.out, split: 0, has_curvature: false };
            network.chains.iter().try_for_each(|chain| {
                let pass = Pass { launcher, network, chain, list, jets: &derivatives, directions: d, tangents: &[] };
                seed(&pass, rows, chunk.input + bytes(chunk.rows * d), false, adjoints[0])?;
                adjoint_pass(&pass, rows, adjoints, &mut targets)
            })
        })
    }
}
