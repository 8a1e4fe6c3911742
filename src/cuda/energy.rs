//! Launches `kernels/energy.cu`: chords, gradients, Hessian blocks, and the adjoint pass.

use bytemuck::{Pod, Zeroable};

use super::gram::{InnerProducts, Operand};
use super::jacobian::{Pass, Tangents};
use super::launch::{Launcher, RowList};
use super::network::{DeviceNetwork, Role, kernel};
use super::platform::Address;
use super::{ensemble, gaussian};
use crate::decoder::Geometry;
use crate::error::Result;

/// `Chords` in `kernels/energy.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct Chords {
    pub list: RowList,
    pub values: Address,
    pub squares: Address,
    pub segments_of: Address,
    pub segments: u32,
    pub stride: u32,
    pub data_dim: u32,
    pub padding: u32,
}

/// `CurveSums` in `kernels/energy.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct CurveSums {
    pub squares: Address,
    pub out: Address,
    pub curves: u32,
    pub segments: u32,
    pub stride: u32,
    pub padding: u32,
}

/// `Seeds` in `kernels/energy.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct Seeds {
    pub list: RowList,
    ids: Address,
    values: Address,
    out: Address,
    data_dim: u32,
    pub outputs: u32,
    offset: u32,
    residuals: u32,
}

/// `AdjointLayer` in `kernels/energy.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct AdjointLayer {
    list: RowList,
    ids: Address,
    input: Address,
    factor: Address,
    weights: Address,
    output: Address,
    inputs: u32,
    outputs: u32,
}

impl Chords {
    /// As the network measures them.
    pub fn launch(&self, launcher: Launcher<'_>, network: &DeviceNetwork) -> Result<()> {
        let width = network.chains[0].outputs();
        match network.geometry {
            Geometry::Euclidean => {}
            Geometry::Ensemble(members) => return ensemble::chords(launcher, self, members, width),
            Geometry::Gaussian => return gaussian::chords(launcher, self, width),
        }
        let chords = kernel(launcher.stream.platform().as_ref(), "chords")?;
        launcher.warps(chords, self.list.limit as usize, self)
    }
}

impl CurveSums {
    pub fn launch(&self, launcher: Launcher<'_>) -> Result<()> {
        let sums = kernel(launcher.stream.platform().as_ref(), "curve_sums")?;
        launcher.warps(sums, self.curves as usize, self)
    }
}

/// Points that an adjoint pass runs over.
#[derive(Clone, Copy)]
pub(crate) struct AdjointRows {
    /// Places, or all points where it has no ids.
    pub list: RowList,
    /// Point numbers by place; 0 where places are numbers.
    pub ids: Address,
}

/// λ at the outputs of one head: the residuals r of the values, or the values themselves.
pub(crate) fn seed(pass: &Pass<'_>, rows: AdjointRows, values: Address, residuals: bool, out: Address) -> Result<()> {
    let params = Seeds {
        list: rows.list,
        ids: rows.ids,
        values,
        out,
        data_dim: pass.network.data_dim as u32,
        outputs: pass.chain.outputs() as u32,
        offset: pass.chain.output_offset as u32,
        residuals: residuals.into(),
    };
    match pass.chain.role {
        Role::Member(member) if residuals => return member.residuals(pass.launcher, &params),
        Role::Mean if residuals => return gaussian::residuals(pass.launcher, &params, false),
        Role::Deviation if residuals => return gaussian::residuals(pass.launcher, &params, true),
        _ => {}
    }
    let seeds = kernel(pass.launcher.stream.platform().as_ref(), "adjoint_seeds")?;
    pass.launcher.threads(seeds, rows.list.limit as usize * pass.chain.outputs(), &params)
}

/// What the tangents of one head's outputs are multiplied with for products between them, by place in `room`; 0 for 1. `values` go by
/// number.
pub(crate) fn scales(pass: &Pass<'_>, values: Address, room: Address) -> Result<Address> {
    let is_std = match pass.chain.role {
        Role::Euclidean | Role::Member(_) => return Ok(0),
        Role::Mean => false,
        Role::Deviation => true,
    };
    gaussian::scales(pass, is_std, values, room)?;
    Ok(room)
}

/// J_i r_i of one head into `gradient`, by point number; r stands in `residuals` by place.
pub(crate) fn gradient(pass: &Pass<'_>, residuals: Address, gradient: Address) -> Result<()> {
    let residual = Operand { base: residuals, factor: 0, weight: 0, rows: 1, is_shared: 0 };
    let products = InnerProducts::new(pass.list, Operand::jacobian(pass), residual, pass.chain.outputs(), gradient);
    products.added(pass.is_further_head()).launch(pass.launcher, pass.network.kernels.gradient)
}

/// J_i J_{i+1}ᵀ of one head into `off`, by point number, with what [`scales`] gave; of an ensemble, that of all members together with the
/// last one. `room` has [`DeviceNetwork::geometry_width`] numbers for every point.
pub(crate) fn neighbours(pass: &Pass<'_>, scales: Address, room: Address, off: Address) -> Result<()> {
    let (operand, is_further) = match pass.chain.role {
        Role::Member(member) => match member.average(pass, room)? {
            Some(average) => (average, false),
            None => return Ok(()),
        },
        _ => (Operand { weight: scales, ..Operand::jacobian(pass) }, pass.is_further_head()),
    };
    let blocks = InnerProducts::new(pass.list, operand, operand, pass.chain.outputs(), off);
    blocks.added(is_further).launch(pass.launcher, pass.network.kernels.neighbours)
}

/// What the adjoint passes of all heads sum up.
pub(crate) struct AdjointTargets {
    /// S, `[points, d, d]` by number; 0 where it is not wanted, and tangents are not needed.
    pub curvature: Address,
    /// T λ of the first layer, `[points, d]` by number; 0 where it is not wanted.
    pub gradient: Address,
    /// Number of places that belong to S, the others being the gradient's; 0 where all belong to S.
    pub split: Address,
    /// S has had its first share, which sets it; false at first, and still false afterwards where S = 0.
    pub has_curvature: bool,
}

/// The adjoint pass of one head, from λ at its outputs in `adjoints[0]`: S of every layer, and the gradient at the first.
pub(crate) fn adjoint_pass(
    pass: &Pass<'_>,
    rows: AdjointRows,
    adjoints: [Address; 2],
    targets: &mut AdjointTargets,
) -> Result<()> {
    let Pass { launcher, network, chain, tangents, .. } = *pass;
    let d = network.latent_dim;
    let [mut here, mut before] = adjoints;
    for (k, layer) in chain.layers.iter().enumerate().rev() {
        let rows_of = |x, y, out| InnerProducts {
            ids: rows.ids,
            split: targets.split,
            ..InnerProducts::new(rows.list, x, y, layer.outputs, out)
        };
        // A softmax leaves λ behind it, and weights of second derivatives where the next layer's λ will stand.
        let (mut factor, mut bends) = (pass.first(k), (pass.second(k), here));
        if let Some(softmax) = layer.softmax {
            softmax.adjoints(pass, rows, here, before)?;
            (factor, bends) = (0, (0, before));
        }
        if layer.has_second && targets.curvature != 0 {
            let plain = Operand::tangents(tangents[k], d, 0);
            let weighted = Operand { factor: bends.0, weight: bends.1, ..plain };
            let share = rows_of(plain, weighted, targets.curvature).added(targets.has_curvature);
            share.launch(launcher, network.kernels.gram)?;
            targets.has_curvature = true;
        }
        if k == 0 {
            if targets.gradient != 0 {
                let first = Operand::tangents(Tangents::of_first(layer), d, 0);
                let adjoint = Operand { base: here, factor, weight: 0, rows: 1, is_shared: 0 };
                let products = rows_of(first, adjoint, targets.gradient).added(pass.is_further_head());
                let products = InnerProducts { behind_split: 1, ..products };
                products.launch(launcher, network.kernels.gradient)?;
            }
            break;
        }
        let params = AdjointLayer {
            list: rows.list,
            ids: rows.ids,
            input: here,
            factor,
            weights: layer.weight,
            output: before,
            inputs: layer.inputs as u32,
            outputs: layer.outputs as u32,
        };
        launcher.tiles(layer.adjoint, rows.list.limit as usize, layer.inputs, &params)?;
        (here, before) = (before, here);
    }
    Ok(())
}
