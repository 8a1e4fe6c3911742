//! A decoder's weights in the device's memory, and the kernels that serve each of its layers.

use std::sync::Arc;

use super::ensemble::Member;
use super::memory::{Buffer, Pinned, Stream};
use super::platform::{Address, Kernel, Platform};
use super::softmax::Softmax;
use crate::cpu::network::{Chain, Dense, Network as HostNetwork};
use crate::decoder::{Activation, Decoder, Geometry};
use crate::error::{Error, Result};

/// Kernels of which there is also a version made for one decoder's sizes, compiled at run time; wide and narrow ones alike.
#[cfg(all(feature = "cuda", feature = "cli"))]
pub(crate) const SPECIALISED: [&str; 7] =
    ["decode_layer", "jacobian_layer", "adjoint_layer", "gram", "neighbour_products", "gradient_products", "step"];
/// Columns of the narrow kernels' tiles; `ProductTile` in `kernels/product.cuh`.
const NARROW: usize = 64;

/// One linear layer with its activation.
#[derive(Clone, Debug)]
pub(crate) struct DeviceLayer {
    pub inputs: usize,
    pub outputs: usize,
    /// Number in `Activation::ALL`.
    pub activation: u32,
    /// φ' ≠ 1.
    pub has_first: bool,
    /// φ'' ≠ 0.
    pub has_second: bool,
    /// What stands behind the layer where its activation is not elementwise.
    pub softmax: Option<Softmax>,
    /// `[outputs, inputs]`.
    pub weight: Address,
    /// `[inputs, outputs]`.
    pub transposed: Address,
    /// `[outputs]`.
    pub bias: Address,
    /// What is multiplied into φ, `[outputs]`; 0 for 1.
    pub scale: Address,
    pub decode: Kernel,
    pub jacobian: Kernel,
    pub adjoint: Kernel,
}

impl DeviceLayer {
    /// The k-th layer of a head has tangents of every point: the first one's are its weight, unless a softmax changes them.
    pub fn has_tangents(&self, k: usize) -> bool {
        k > 0 || self.softmax.is_some()
    }
}

/// What a head's outputs are where chords are measured.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    Euclidean,
    Member(Member),
    Mean,
    Deviation,
}

impl Role {
    fn of(host: &HostNetwork<f32>, chain: &Chain<f32>) -> Self {
        match (host.geometry, host.member(chain), host.is_std(chain)) {
            (Geometry::Ensemble(of), Some(number), _) => Self::Member(Member { number, of }),
            (_, _, Some(false)) => Self::Mean,
            (_, _, Some(true)) => Self::Deviation,
            _ => Self::Euclidean,
        }
    }
}

/// One head; offsets as in the CPU's [`Chain`].
#[derive(Debug)]
pub(crate) struct DeviceChain {
    pub layers: Vec<DeviceLayer>,
    pub output_offset: usize,
    pub first_layer: usize,
    pub role: Role,
}

impl DeviceChain {
    pub fn last(&self) -> &DeviceLayer {
        &self.layers[self.layers.len() - 1]
    }

    pub fn outputs(&self) -> usize {
        self.last().outputs
    }
}

/// Kernels that know d.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CurveKernels {
    pub gram: Kernel,
    pub neighbours: Kernel,
    pub gradient: Kernel,
    pub step: Kernel,
}

/// All heads.
#[derive(Debug)]
pub(crate) struct DeviceNetwork {
    /// Every weight and bias.
    _weights: Buffer<f32>,
    pub chains: Vec<DeviceChain>,
    pub latent_dim: usize,
    pub data_dim: usize,
    /// The widest layer, the latent and the data space included.
    pub widest: usize,
    /// How chords are measured.
    pub geometry: Geometry,
    pub kernels: CurveKernels,
}

/// The kernel of that name.
pub(crate) fn kernel(platform: &dyn Platform, name: &str) -> Result<Kernel> {
    platform.kernel(name)?.ok_or_else(|| Error::Compile {
        what: format!("{}, kernel `{name}`", platform.label()),
        message: "expected it in the compiled kernels, found none of that name".into(),
    })
}

/// The kernel made for one decoder's sizes, or else the one for all.
fn instance_or(platform: &dyn Platform, instance: &str, general: &str) -> Result<Kernel> {
    match platform.kernel(instance)? {
        Some(found) => Ok(found),
        None => kernel(platform, general),
    }
}

/// Names of kernels made for one layer or one d, with the macro of `kernels/` that defines each.
pub(crate) mod instances {
    use super::{Activation, Dense, HostNetwork};

    pub fn decode(l: &Dense<f32>) -> String {
        format!("decode_{}_{}_{}", l.inputs, l.outputs, l.activation)
    }
    pub fn jacobian(d: usize, l: &Dense<f32>) -> String {
        format!("jacobian_{d}_{}_{}", l.inputs, l.outputs)
    }
    pub fn adjoint(l: &Dense<f32>) -> String {
        format!("adjoint_{}_{}", l.inputs, l.outputs)
    }
    pub fn of_dim(what: &str, d: usize) -> String {
        format!("{what}_{d}")
    }

    /// What defines all of them, each once. The first layer of a head needs no product but its own.
    pub fn source(networks: &[&HostNetwork<f32>]) -> String {
        let d = networks.first().map_or(0, |n| n.latent_dim);
        let constant = |a: Activation| a.name().to_ascii_uppercase();
        let mut lines: Vec<String> =
            [("GRAM", "gram"), ("NEIGHBOUR", "neighbour"), ("GRADIENT", "gradient"), ("STEP", "step")]
                .iter()
                .map(|(family, name)| format!("{family}_INSTANCE({}, {d})", of_dim(name, d)))
                .collect();
        for (k, l) in networks.iter().flat_map(|n| &n.chains).flat_map(|chain| chain.layers.iter().enumerate()) {
            let (inputs, outputs) = (l.inputs, l.outputs);
            lines.push(format!("DECODE_INSTANCE({}, {inputs}, {outputs}, {})", decode(l), constant(l.activation)));
            if k > 0 {
                lines.push(format!("JACOBIAN_INSTANCE({}, {d}, {inputs}, {outputs})", jacobian(d, l)));
                lines.push(format!("ADJOINT_INSTANCE({}, {inputs}, {outputs})", adjoint(l)));
            }
        }
        lines.sort_unstable();
        lines.dedup();
        lines.join("\n") + "\n"
    }
}

/// Compiles kernels for one decoder from lines that define them, where the platform can and `PULLBACK_SPECIALISE` is not `none`.
/// Where its compiler fails, the general kernels do the work.
pub(crate) fn specialise(platform: &dyn Platform, instances: &str) -> Result<bool> {
    if std::env::var("PULLBACK_SPECIALISE").is_ok_and(|wanted| wanted == "none") {
        return Ok(false);
    }
    match platform.specialise(instances) {
        Err(Error::Compile { .. }) => Ok(false),
        other => other,
    }
}

/// What ends the name of a kernel for so many columns.
fn width(columns: usize) -> &'static str {
    if columns <= NARROW { "_narrow" } else { "" }
}

impl DeviceNetwork {
    /// Puts the weights on the device.
    pub fn new(platform: &Arc<dyn Platform>, host: &HostNetwork<f32>) -> Result<Self> {
        let count: usize = host.layers().map(|l| 2 * l.weight.len() + l.bias.len() + l.scale.len()).sum();
        let weights = Buffer::<f32>::new(platform, count)?;
        let mut staging = Pinned::<f32>::new(platform, count)?;
        let mut next = 0;
        let mut place = |numbers: &mut dyn Iterator<Item = f32>| {
            let from = next;
            for number in numbers {
                staging.as_mut_slice()[next] = number;
                next += 1;
            }
            weights.at(from)
        };
        let platform_ref = platform.as_ref();
        let d = host.latent_dim;
        let mut layer = |l: &Dense<f32>| -> Result<DeviceLayer> {
            let general = |family: &str, n: usize| format!("{family}_layer{}", width(n));
            let has_scale = !l.scale.is_empty();
            Ok(DeviceLayer {
                inputs: l.inputs,
                outputs: l.outputs,
                activation: Activation::ALL.iter().position(|&a| a == l.activation).unwrap_or(0) as u32,
                has_first: l.activation != Activation::Identity || has_scale,
                has_second: !l.activation.is_piecewise_linear(),
                softmax: Softmax::of(l.activation),
                weight: place(&mut l.weight.iter().copied()),
                transposed: place(&mut (0..l.weight.len()).map(|k| l.weight[k % l.outputs * l.inputs + k / l.outputs])),
                bias: place(&mut l.bias.iter().copied()),
                scale: if has_scale { place(&mut l.scale.iter().copied()) } else { 0 },
                decode: instance_or(platform_ref, &instances::decode(l), &general("decode", l.outputs))?,
                jacobian: instance_or(platform_ref, &instances::jacobian(d, l), &general("jacobian", l.outputs))?,
                adjoint: instance_or(platform_ref, &instances::adjoint(l), &general("adjoint", l.inputs))?,
            })
        };
        let mut chain = |c: &Chain<f32>| -> Result<DeviceChain> {
            let layers = c.layers.iter().map(&mut layer).collect::<Result<_>>()?;
            Ok(DeviceChain {
                layers,
                output_offset: c.output_offset,
                first_layer: c.first_layer,
                role: Role::of(host, c),
            })
        };
        let chains = host.chains.iter().map(&mut chain).collect::<Result<_>>()?;
        let by_dim = |family: &str, general: &str| instance_or(platform_ref, &instances::of_dim(family, d), general);
        let kernels = CurveKernels {
            gram: by_dim("gram", "gram")?,
            neighbours: by_dim("neighbour", "neighbour_products")?,
            gradient: by_dim("gradient", "gradient_products")?,
            step: by_dim("step", "step")?,
        };
        let stream = Stream::new(platform)?;
        // SAFETY: the staging memory is not touched again, and the stream is waited for before it is dropped.
        unsafe { stream.upload((&weights, 0), (&staging, 0), count)? };
        stream.synchronise()?;
        Ok(Self {
            _weights: weights,
            chains,
            latent_dim: d,
            data_dim: host.data_dim,
            widest: host.widest,
            geometry: host.geometry,
            kernels,
        })
    }

    /// The kernel of [`DeviceLayer::jacobian`] for any number of rows a point.
    pub fn general_jacobian(outputs: usize) -> String {
        format!("jacobian_layer{}", width(outputs))
    }

    /// Every layer, in the order of its number.
    pub fn layers(&self) -> impl Iterator<Item = &DeviceLayer> {
        self.chains.iter().flat_map(|chain| &chain.layers)
    }

    /// Numbers per point that products between tangents need besides those: an ensemble's average, or what tangents of means and
    /// standard deviations are multiplied with.
    pub fn geometry_width(&self) -> usize {
        let width = self.chains[0].outputs();
        match self.geometry {
            Geometry::Euclidean => 0,
            Geometry::Ensemble(_) => self.latent_dim * width,
            Geometry::Gaussian => width,
        }
    }

    /// Numbers per point that the tangents of one head take: see [`DeviceLayer::has_tangents`].
    pub fn tangent_width(&self) -> usize {
        let kept = |(k, l): (usize, &DeviceLayer)| if l.has_tangents(k) { l.outputs } else { 0 };
        let width = |chain: &DeviceChain| chain.layers.iter().enumerate().map(kept).sum();
        self.latent_dim * self.chains.iter().map(width).max().unwrap_or(0)
    }
}

/// The host's numbers of a decoder: as it is, and compressed.
pub(crate) fn host_networks(decoder: &Decoder) -> [HostNetwork<f32>; 2] {
    [HostNetwork::new(decoder), HostNetwork::new(&decoder.normalised())]
}

#[cfg(all(test, feature = "cuda"))]
mod tests {
    use ndarray::{Array1, Array2};

    use super::*;
    use crate::cuda::nvrtc;
    use crate::decoder::{Head, Layer};

    /// What a decoder asks a compiler for compiles, for every architecture, and defines all that is looked up later.
    #[test]
    fn a_decoders_own_kernels_compile() {
        let Ok(compiler) = nvrtc::compiler() else { return println!("skipped: no NVRTC") };
        let layer = |inputs: usize, outputs: usize, activation| Layer {
            weight: Array2::zeros((outputs, inputs)),
            bias: Array1::zeros(outputs),
            activation,
        };
        let head = |name, hidden| {
            let layers = vec![layer(3, 70, hidden), layer(70, 16, hidden), layer(16, 20, Activation::Identity)];
            Head::new(name, layers).unwrap()
        };
        let decoder =
            Decoder::new(vec![head("mean", Activation::GeluTanh), head("std", Activation::LeakyRelu)]).unwrap();
        let networks = host_networks(&decoder);
        let source = instances::source(&networks.each_ref());
        let layers = || networks.iter().flat_map(|n| &n.chains).flat_map(|chain| &chain.layers);
        let behind =
            || layers().filter(|l| l.inputs != 3).flat_map(|l| [instances::jacobian(3, l), instances::adjoint(l)]);
        let names = layers().map(instances::decode).chain(behind());
        let of_dim = ["gram", "neighbour", "gradient", "step"].map(|family| instances::of_dim(family, 3));
        let names: Vec<String> = names.chain(of_dim).collect();
        for architecture in ["sm_80", "sm_90a", "sm_100"] {
            let code = compiler.compile(architecture, &source).unwrap_or_else(|error| panic!("{error}"));
            for name in &names {
                let found = code.windows(name.len()).any(|bytes| bytes == name.as_bytes());
                assert!(found, "{architecture}: no {name}");
            }
        }
    }
}
