//! Launches `kernels/gram.cu` and the inner products of `kernels/energy.cu`.

use bytemuck::{Pod, Zeroable};

use super::jacobian::{Pass, Tangents};
use super::launch::{Launcher, RowList};
use super::platform::{Address, Kernel};
use crate::error::Result;

/// Rows and columns of products that one warp makes; `INNER_TILE` in `kernels/inner_products.cuh`.
const TILE: usize = 8;

/// `Operand` in `kernels/inner_products.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(crate) struct Operand {
    pub base: Address,
    pub factor: Address,
    pub weight: Address,
    pub rows: u32,
    pub is_shared: u32,
}

impl Operand {
    /// The d tangents of one layer, scaled by `factor` where it is not 0.
    pub fn tangents(tangents: Tangents, d: usize, factor: Address) -> Self {
        Self { base: tangents.at, factor, weight: 0, rows: d as u32, is_shared: tangents.is_shared.into() }
    }

    /// J of one head, or its products with other directions: the tangents of its last layer behind the activation.
    pub fn jacobian(pass: &Pass<'_>) -> Self {
        let last = pass.chain.layers.len() - 1;
        Self::tangents(pass.tangents[last], pass.directions, pass.first(last))
    }
}

/// `InnerProducts` in `kernels/inner_products.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(crate) struct InnerProducts {
    pub list: RowList,
    pub ids: Address,
    pub x: Operand,
    pub y: Operand,
    pub out: Address,
    pub width: u32,
    pub accumulate: u32,
    pub split: Address,
    pub behind_split: u32,
    pub out_stride: u32,
}

impl InnerProducts {
    /// x · yᵀ of all listed points into `out`.
    pub fn new(list: RowList, x: Operand, y: Operand, width: usize, out: Address) -> Self {
        let (width, out_stride) = (width as u32, x.rows * y.rows);
        Self { list, ids: 0, x, y, out, width, accumulate: 0, split: 0, behind_split: 0, out_stride }
    }

    /// The same, added to what is there.
    pub fn added(self, accumulate: bool) -> Self {
        Self { accumulate: accumulate.into(), ..self }
    }

    pub fn launch(&self, launcher: Launcher<'_>, kernel: Kernel) -> Result<()> {
        let tiles = |rows: u32| (rows as usize).div_ceil(TILE);
        launcher.warps(kernel, self.list.limit as usize * tiles(self.x.rows) * tiles(self.y.rows), self)
    }
}

/// Adds the share of one head to G `[points, d, d]`, or sets it with the first head; `scales` as for [`neighbours`](super::energy::neighbours).
pub(crate) fn gram(pass: &Pass<'_>, scales: Address, out: Address) -> Result<()> {
    let jacobian = Operand { weight: scales, ..Operand::jacobian(pass) };
    let products = InnerProducts::new(pass.list, jacobian, jacobian, pass.chain.outputs(), out);
    products.added(pass.is_further_head()).launch(pass.launcher, pass.network.kernels.gram)
}
