//! Launches `kernels/softmax.cu`: softmax behind the last layer of a head, and derivatives through it.

use bytemuck::{Pod, Zeroable};

use super::energy::AdjointRows;
use super::jacobian::{Pass, Tangents};
use super::launch::{Launcher, RowList};
use super::network::{DeviceLayer, kernel};
use super::platform::Address;
use crate::decoder::Activation;
use crate::error::Result;

/// `SoftmaxValues` in `kernels/softmax.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Values {
    list: RowList,
    values: Address,
    first: Address,
    shares: Address,
    scale: Address,
    width: u32,
    stride: u32,
    offset: u32,
    angle: u32,
}

/// `SoftmaxTangents` in `kernels/softmax.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct TangentRows {
    list: RowList,
    input: Address,
    shares: Address,
    finish: Address,
    output: Address,
    width: u32,
    stride: u32,
    offset: u32,
    latent_dim: u32,
    input_is_shared: u32,
    padding: u32,
}

/// `SoftmaxAdjoints` in `kernels/softmax.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Adjoints {
    list: RowList,
    ids: Address,
    adjoints: Address,
    weights: Address,
    first: Address,
    shares: Address,
    width: u32,
    angle: u32,
}

/// One of the activations whose outputs depend on all inputs of their row. Behind it φ' stands for s and φ'' for p, both of which are
/// kept with the first derivatives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Softmax {
    angle: bool,
}

impl Softmax {
    /// Nothing for an elementwise activation.
    pub fn of(activation: Activation) -> Option<Self> {
        let angle = activation == Activation::SoftmaxAngle;
        (!activation.is_elementwise()).then_some(Self { angle })
    }

    /// True for the outputs 2√p.
    pub fn is_angle(self) -> bool {
        self.angle
    }

    /// From x to y in columns of `values` `[points, stride]`, by number; s and p to `jets` where they are wanted.
    pub fn values(
        self,
        launcher: Launcher<'_>,
        list: RowList,
        layer: &DeviceLayer,
        values: Address,
        (stride, offset): (usize, usize),
        [first, shares]: [Address; 2],
    ) -> Result<()> {
        let params = Values {
            list,
            values,
            first,
            shares,
            scale: layer.scale,
            width: layer.outputs as u32,
            stride: stride as u32,
            offset: offset as u32,
            angle: self.angle.into(),
        };
        let values = kernel(launcher.stream.platform().as_ref(), "softmax_values")?;
        launcher.warps(values, list.limit as usize, &params)
    }

    /// From ẋ to u = ẋ − ⟨p, ẋ⟩ in columns of `output` `[points, d, stride]`; times `finish`, where it is not 0.
    pub fn tangents(
        self,
        pass: &Pass<'_>,
        input: Tangents,
        output: Address,
        (stride, offset): (usize, usize),
        finish: Address,
    ) -> Result<()> {
        let (d, last) = (pass.directions, pass.chain.layers.len() - 1);
        let params = TangentRows {
            list: pass.list,
            input: input.at,
            shares: pass.second(last),
            finish,
            output,
            width: pass.chain.outputs() as u32,
            stride: stride as u32,
            offset: offset as u32,
            latent_dim: d as u32,
            input_is_shared: input.is_shared.into(),
            padding: 0,
        };
        let tangents = kernel(pass.launcher.stream.platform().as_ref(), "softmax_tangents")?;
        pass.launcher.warps(tangents, pass.list.limit as usize * d, &params)
    }

    /// From w in `adjoints` to ∂(w · y)/∂x, and the weights of u uᵀ in the second derivatives of w · y, both `[points, outputs]` by place.
    pub fn adjoints(self, pass: &Pass<'_>, rows: AdjointRows, adjoints: Address, weights: Address) -> Result<()> {
        let last = pass.chain.layers.len() - 1;
        let params = Adjoints {
            list: rows.list,
            ids: rows.ids,
            adjoints,
            weights,
            first: pass.first(last),
            shares: pass.second(last),
            width: pass.chain.outputs() as u32,
            angle: self.angle.into(),
        };
        let adjoints = kernel(pass.launcher.stream.platform().as_ref(), "softmax_adjoints")?;
        pass.launcher.warps(adjoints, rows.list.limit as usize, &params)
    }
}
