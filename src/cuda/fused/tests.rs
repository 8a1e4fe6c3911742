//! The parts of a chain, as `kernels/emulator/fused_laws.cu` calls them, against float64 on the processor.

use ndarray::{Array1, Array2, ArrayView2, Axis, s};

use super::*;
use crate::cuda::emulator::{Emulator, EmulatorOptions};
use crate::decoder::{Decoder, Head, Layer};
use crate::device::Device;

/// `FusedPoints` in `kernels/fused.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Points {
    latents: Address,
    values: Address,
    jets: Address,
    gram: Address,
    off: Address,
    curvature: Address,
    gradient: Address,
}

/// `ChainLaw` in `kernels/emulator/fused_laws.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ChainLaw {
    network: Parameters,
    points: Points,
    halo: Address,
    list: Address,
    curved: Address,
    decoded: u32,
    adjoints: u32,
    tangents: u32,
    rounds: u32,
}

/// Random numbers (splitmix64), the same in every run.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// About normal, of variance 1.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| (self.bits() >> 11) as f64 / (1u64 << 53) as f64).sum::<f64>() - 6.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Numbers that float32 holds.
    fn array(&mut self, shape: (usize, usize), size: f64) -> Array2<f64> {
        Array2::from_shape_simple_fn(shape, || f64::from((size * self.normal()) as f32))
    }

    /// Layers of these widths behind d, whose outputs have the size of the inputs.
    fn head(&mut self, d: usize, widths: &[usize], hidden: Activation, output: Activation) -> Head {
        let mut inputs = d;
        let layers = widths.iter().enumerate().map(|(k, &outputs)| {
            let weight = self.array((outputs, inputs), 1.0 / (inputs as f64).sqrt());
            let bias = self.array((1, outputs), 0.3).row(0).to_owned();
            inputs = outputs;
            Layer { weight, bias, activation: if k + 1 == widths.len() { output } else { hidden } }
        });
        Head::new("decoder", layers.collect()).unwrap()
    }
}

/// What is asked of a curve: nothing but its values, the gradient, G and J Jᵀ with it, or S as well.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
enum Wanted {
    Values,
    Gradient,
    Tangents,
    Curvature,
}
use Wanted::*;

/// Where the weights stand.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Weights {
    Resident,
    Ring(usize),
}

/// Curves of so many inner points each.
type Curves = [(usize, Wanted)];

/// What a chain left for every point.
#[derive(Debug, PartialEq)]
struct Found {
    values: Vec<u32>,
    gram: Vec<u32>,
    off: Vec<u32>,
    curvature: Vec<u32>,
    gradient: Vec<u32>,
}

struct Bench {
    platform: Arc<dyn Platform>,
    stream: Stream,
}

impl Bench {
    /// The build is that for sm_80 or for sm_90a.
    fn new(compute: (u32, u32), checked: bool) -> Self {
        let options = EmulatorOptions { checked, compute, ..EmulatorOptions::default() };
        let platform: Arc<dyn Platform> = Arc::new(Emulator::new(options).unwrap());
        Self { stream: Stream::new(&platform).unwrap(), platform }
    }

    fn buffer<T: Pod>(&self, numbers: &[T]) -> Buffer<T> {
        let buffer = Buffer::new(&self.platform, numbers.len().max(1)).unwrap();
        let mut staged = Pinned::new(&self.platform, numbers.len()).unwrap();
        staged.as_mut_slice().copy_from_slice(numbers);
        // SAFETY: the stream is waited for before the staged numbers are dropped.
        unsafe { self.stream.upload((&buffer, 0), (&staged, 0), numbers.len()).unwrap() };
        self.stream.synchronise().unwrap();
        buffer
    }

    fn read(&self, from: &Buffer<f32>, count: usize) -> Vec<u32> {
        let staged = Pinned::<f32>::new(&self.platform, count).unwrap();
        // SAFETY: likewise.
        unsafe { self.stream.download((&staged, 0), (from, 0), count).unwrap() };
        self.stream.synchronise().unwrap();
        staged.as_slice().iter().map(|x| x.to_bits()).collect()
    }

    /// The decoder with its weights in a ring of so many stages, or where the launcher puts them.
    fn network(&self, decoder: &Decoder, weights: Option<Weights>) -> FusedNetwork {
        let host = HostNetwork::new(decoder);
        let shape = Shape::new(&host, Precision::Tf32x3, self.platform.properties());
        let mut network = FusedNetwork::new(&self.platform, &host, shape).unwrap().expect("kernels for this width");
        let layers = decoder.heads().iter().map(|head| head.layers().len()).sum();
        if let Some(Weights::Ring(stages)) = weights {
            for layer in &mut network.parameters.layers[..layers] {
                layer.forward.resident = NO_PLACE;
                layer.backward.resident = NO_PLACE;
            }
            network.parameters.stages = stages as u32;
            network.shared = (network.shape.rows() + stages * SLICE) * network.shape.width * size_of::<f32>();
        }
        if weights == Some(Weights::Resident) {
            assert_ne!(network.parameters.layers[0].forward.resident, NO_PLACE, "too many weights");
        }
        network
    }

    /// Everything that is wanted of the curves, whose points are [points, d], by one block.
    fn pass(&self, network: &FusedNetwork, latents: &[f32], curves: &Curves, rounds: u32) -> Found {
        let p = &network.parameters;
        let (d, count) = (p.latent_dim as usize, latents.len() / p.latent_dim as usize);
        let (mut decoded, mut adjoints, mut tangents, mut curved) = (vec![], vec![], vec![], vec![0u32; count]);
        let mut later = vec![];
        let mut first = 0;
        for &(inner, wanted) in curves {
            let points = first + 1..first + 1 + inner as u32;
            decoded.extend(first..first + inner as u32 + 2);
            match wanted {
                Values => {}
                Gradient => later.extend(points.clone()),
                Tangents | Curvature => {
                    adjoints.extend(points.clone());
                    tangents.extend(points.clone());
                }
            }
            points.for_each(|id| curved[id as usize] = u32::from(wanted == Curvature));
            first += inner as u32 + 2;
        }
        adjoints.extend(later);
        let nothing = |numbers: usize| self.buffer(&vec![f32::NAN; count * numbers]);
        let (values, jets) = (nothing(network.value_stride()), nothing(network.jet_stride()));
        let [gram, off, curvature] = [d * d; 3].map(nothing);
        let (gradient, halo) = (nothing(d), self.buffer(&vec![f32::NAN; network.halo()]));
        let bends = p.layers.iter().any(|layer| layer.has_second != 0);
        let (latents, list, curved) =
            (self.buffer(latents), self.buffer(&[&decoded[..], &adjoints, &tangents].concat()), self.buffer(&curved));
        let law = ChainLaw {
            network: *p,
            points: Points {
                latents: latents.address(),
                values: values.address(),
                jets: jets.address(),
                gram: gram.address(),
                off: off.address(),
                curvature: if bends { curvature.address() } else { 0 },
                gradient: gradient.address(),
            },
            halo: halo.address(),
            list: list.address(),
            curved: curved.address(),
            decoded: decoded.len() as u32,
            adjoints: adjoints.len() as u32,
            tangents: tangents.len() as u32,
            rounds,
        };
        let name = format!("law_chain_{}{}", network.shape.width, network.shape.suffix());
        let kernel = self.platform.kernel(&name).unwrap().expect("a kernel of fused_laws.cu");
        network.launch(Launcher { stream: &self.stream }, kernel, 1, &law).unwrap();
        let read = |from, numbers: usize| self.read(from, count * numbers);
        Found {
            values: read(&values, network.value_stride()),
            gram: read(&gram, d * d),
            off: read(&off, d * d),
            curvature: read(&curvature, d * d),
            gradient: read(&gradient, d),
        }
    }
}

/// All curves' points [points, d].
fn latents(seed: u64, d: usize, curves: &Curves) -> Vec<f32> {
    let count: usize = curves.iter().map(|(inner, _)| inner + 2).sum();
    let size = if d > 8 { 0.5 } else { 1.0 };
    Random(seed).array((count, d), size).iter().map(|&x| x as f32).collect()
}

fn norm(numbers: impl IntoIterator<Item = f64>) -> f64 {
    numbers.into_iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn distance(found: &[f64], expected: ArrayView2<'_, f64>) -> f64 {
    norm(found.iter().zip(expected).map(|(x, y)| x - y))
}

/// Errors in units of rounding: the worst of each kind.
#[derive(Debug, Default)]
struct Errors {
    values: f64,
    gram: f64,
    off: f64,
    curvature: f64,
    gradient: f64,
}

/// Holds what was found against float64: each in units of ε · √(the widest layer) · layers, and of the numbers that went into it.
fn errors(decoder: &Decoder, network: &FusedNetwork, latents: &[f32], curves: &Curves, found: &Found) -> Errors {
    let (d, width) = (decoder.latent_dim(), network.value_stride());
    let count = latents.len() / d;
    let z = Array2::from_shape_vec((count, d), latents.iter().map(|&x| f64::from(x)).collect()).unwrap();
    let reference = Device::cpu().load_as::<f64>(decoder).unwrap();
    let (values, jacobians) = (reference.decode(z.view()).unwrap(), reference.jacobian(z.view()).unwrap());
    let mut residuals = Array2::zeros(values.raw_dim());
    for i in 1..count - 1 {
        residuals.row_mut(i).assign(&(&values.row(i) * 2.0 - values.row(i - 1) - values.row(i + 1)));
    }
    let curvatures = reference.adjoint_hessian(z.view(), residuals.view()).unwrap();
    let layers = || decoder.heads().iter().flat_map(Head::layers);
    let depth = decoder.heads().iter().map(|head| head.layers().len()).max().unwrap();
    let widest = layers().map(|l| l.inputs().max(l.outputs())).max().unwrap();
    let rounding = f64::from(f32::EPSILON) * (widest as f64).sqrt() * depth as f64;
    let mut worst = Errors::default();
    let raise = |to: &mut f64, error: f64, size: f64| {
        let error = error / (size * rounding);
        *to = if error <= *to || to.is_nan() { *to } else { error }; // NaN is the worst
    };
    let number = |bits: &u32| f64::from(f32::from_bits(*bits));
    let block = |bits: &[u32], id: usize| bits[id * d * d..(id + 1) * d * d].iter().map(number).collect::<Vec<_>>();
    let untouched = |bits: &[u32], what: &str, id: usize| {
        assert!(bits.iter().all(|b| *b == f32::NAN.to_bits()), "{what} of point {id} was not asked for");
    };
    let bends = layers().any(|l| !l.activation.is_piecewise_linear());
    let mut first = 0;
    for &(inner, wanted) in curves {
        for id in first..first + inner + 2 {
            let row = &found.values[id * width..(id + 1) * width];
            let mut at = (0, 0);
            for head in decoder.heads() {
                let data_dim = head.data_dim();
                let own = row[at.0..at.0 + data_dim].iter().map(number);
                let expected = values.slice(s![id, at.1..at.1 + data_dim]);
                let error = norm(own.zip(expected).map(|(x, y)| x - y));
                raise(&mut worst.values, error, 1.0 + norm(values.row(id).iter().copied()));
                at = (at.0 + padded(data_dim), at.1 + data_dim);
            }
            let is_inner = id > first && id <= first + inner;
            let (jacobian, r) = (jacobians.index_axis(Axis(0), id), residuals.row(id));
            let (size, length) = (1.0 + norm(jacobian.iter().copied()), 1.0 + norm(r.iter().copied()));
            let gradient = &found.gradient[id * d..(id + 1) * d];
            if is_inner && wanted >= Gradient {
                let expected: Array1<f64> = jacobian.dot(&r);
                let error = norm(gradient.iter().map(number).zip(expected).map(|(x, y)| x - y));
                raise(&mut worst.gradient, error, size * length);
            } else {
                untouched(gradient, "the gradient", id);
            }
            let (gram, off) = (&found.gram, &found.off);
            if is_inner && wanted >= Tangents {
                let error = distance(&block(gram, id), jacobian.dot(&jacobian.t()).view());
                raise(&mut worst.gram, error, size * size);
                let g = block(gram, id);
                assert!((0..d * d).all(|e| g[e].to_bits() == g[e % d * d + e / d].to_bits()), "G of point {id}: {g:?}");
            } else {
                untouched(&gram[id * d * d..(id + 1) * d * d], "G", id);
            }
            if is_inner && id < first + inner && wanted >= Tangents {
                let next = jacobians.index_axis(Axis(0), id + 1);
                let error = distance(&block(off, id), jacobian.dot(&next.t()).view());
                raise(&mut worst.off, error, size * (1.0 + norm(next.iter().copied())));
            } else {
                untouched(&off[id * d * d..(id + 1) * d * d], "J Jᵀ", id);
            }
            if is_inner && wanted >= Curvature && bends {
                let expected = curvatures.index_axis(Axis(0), id);
                let error = distance(&block(&found.curvature, id), expected);
                let bound = size * size * length + norm(expected.iter().copied());
                raise(&mut worst.curvature, error, bound);
            } else {
                untouched(&found.curvature[id * d * d..(id + 1) * d * d], "S", id);
            }
        }
        first += inner + 2;
    }
    worst
}

/// Widths, and the build that has kernels for them.
const BUILDS: [((u32, u32), &[usize]); 3] =
    [((8, 0), &[5, 37, 64]), ((8, 0), &[127, 5, 37, 64, 70, 128]), ((9, 0), &[70, 5, 37, 64, 127, 128])];

/// A decoder with one layer of the first of the widths at least.
fn decoder(random: &mut Random, d: usize, widths: &[usize], activations: [Activation; 2]) -> Decoder {
    let heads = 1 + random.below(2);
    let heads = (0..heads).map(|k| {
        let mut own: Vec<usize> = (0..1 + random.below(3)).map(|_| random.one(widths)).collect();
        if k == 0 {
            let at = random.below(own.len());
            own[at] = widths[0];
        }
        let [hidden, output] =
            if k == 0 { activations } else { [random.one(&Activation::COMMON), random.one(&Activation::COMMON)] };
        random.head(d, &own, hidden, output)
    });
    Decoder::new(heads.collect()).unwrap()
}

/// Curves of 1 to 40 inner points.
fn curves(random: &mut Random, most: usize) -> Vec<(usize, Wanted)> {
    let count = 1 + random.below(6);
    let mut curve = || (1 + random.below(most), random.one(&[Curvature, Curvature, Tangents, Gradient, Values]));
    (0..count).map(|_| curve()).collect()
}

/// Bounds in units of rounding; the worst that was measured is below 1.
const BOUND: f64 = 4.0;

fn is_exact(decoder: &Decoder, network: &FusedNetwork, latents: &[f32], curves: &Curves, found: &Found) {
    let errors = errors(decoder, network, latents, curves, found);
    let all = [errors.values, errors.gram, errors.off, errors.curvature, errors.gradient];
    assert!(all.iter().all(|&e| e <= BOUND), "{curves:?}: {errors:.2?}");
    if std::env::var_os("PULLBACK_SHOW_ERRORS").is_some() {
        eprintln!("{errors:.3?}");
    }
}

/// f, G, J_i J_{i+1}ᵀ, S and J r of random decoders and curves are those of the processor, and nothing else is written.
#[test]
fn chains_are_the_processors() {
    for (build, (compute, widths)) in BUILDS.into_iter().enumerate() {
        let bench = Bench::new(compute, false);
        let mut random = Random(build as u64);
        for k in 0..48 {
            let d = [1, 2, 3, 5, 8, 9, 16, 32][(k + 3 * build) % 8];
            let activations = [Activation::COMMON[k % 12], Activation::COMMON[(5 * k + build + k / 12) % 12]];
            let decoder = decoder(&mut random, d, widths, activations);
            let curves = curves(&mut random, if d > 8 { 12 } else { 40 });
            let latents = latents(random.bits(), d, &curves);
            let weights = [None, Some(Weights::Ring(2)), Some(Weights::Ring(3)), Some(Weights::Ring(4))][k % 4];
            let network = bench.network(&decoder, weights);
            is_exact(&decoder, &network, &latents, &curves, &bench.pass(&network, &latents, &curves, 1));
        }
    }
}

/// Activations that are no common ones, in columns that are filled up, and weights behind them.
#[test]
fn deviations_are_the_processors() {
    for (build, (compute, widths)) in BUILDS.into_iter().enumerate() {
        let bench = Bench::new(compute, false);
        let mut random = Random(build as u64);
        for d in [1, 3, 9] {
            let (wide, narrow) = (widths[0], widths[1]);
            let mut head = |widths: &[usize], activations: &[Activation]| {
                let mut layers = random.head(d, widths, Activation::Identity, Activation::Identity).layers().to_vec();
                for (layer, &activation) in layers.iter_mut().zip(activations) {
                    layer.activation = activation;
                    if activation == Activation::Rsqrt {
                        layer.weight.mapv_inplace(f64::abs);
                        layer.bias.mapv_inplace(|b| f64::from((0.5 + b.abs()) as f32));
                    }
                }
                Head::new("decoder", layers).unwrap()
            };
            use Activation::{Exp, Rsqrt, SigmoidAngle, Square};
            let heads = vec![
                head(&[wide, 37, narrow], &[Square, Rsqrt, SigmoidAngle]),
                head(&[5, 9, wide], &[SigmoidAngle, Square, Rsqrt]),
                head(&[7, narrow], &[SigmoidAngle, Exp]),
            ];
            let decoder = Decoder::new(heads).unwrap();
            let weights: Vec<f64> = (0..decoder.data_dim()).map(|k| f64::from((k % 5) as u8).powi(2) * 0.25).collect();
            let curves = [(17, Curvature), (5, Gradient), (9, Tangents)];
            let latents = latents(random.bits(), d, &curves);
            for decoder in [decoder.weighted(&weights).unwrap(), decoder] {
                let network = bench.network(&decoder, None);
                is_exact(&decoder, &network, &latents, &curves, &bench.pass(&network, &latents, &curves, 1));
            }
        }
    }
}

/// A decoder with few enough weights for shared memory in every build.
fn small(random: &mut Random, d: usize, widest: usize) -> Decoder {
    Decoder::new(vec![random.head(d, &[widest, 37], Activation::Tanh, Activation::Silu)]).unwrap()
}

/// Weights that stay and weights that pass by are the same weights, to the bit, however often they have passed.
#[test]
fn where_weights_stand_does_not_matter() {
    for (compute, widths) in BUILDS {
        let bench = Bench::new(compute, false);
        let mut random = Random(7);
        for d in [2, 9, 20] {
            let decoder = small(&mut random, d, widths[0].next_multiple_of(64));
            let curves = [(17, Curvature), (5, Gradient), (30, Tangents), (1, Curvature)];
            let latents = latents(8, d, &curves);
            let resident = bench.network(&decoder, Some(Weights::Resident));
            let expected = bench.pass(&resident, &latents, &curves, 1);
            is_exact(&decoder, &resident, &latents, &curves, &expected);
            for (stages, rounds) in [(2, 1), (3, 1), (4, 1), (2, 3), (3, 2), (4, 3)] {
                let network = bench.network(&decoder, Some(Weights::Ring(stages)));
                let found = bench.pass(&network, &latents, &curves, rounds);
                assert!(found == expected, "{compute:?}, d = {d}: {stages} stages, {rounds} rounds");
            }
        }
    }
}

/// What was found of the points from `first` on.
fn part(network: &FusedNetwork, found: &Found, first: usize, points: usize) -> Found {
    let d = network.parameters.latent_dim as usize;
    let of = |numbers: &[u32], width: usize| numbers[first * width..(first + points) * width].to_vec();
    Found {
        values: of(&found.values, network.value_stride()),
        gram: of(&found.gram, d * d),
        off: of(&found.off, d * d),
        curvature: of(&found.curvature, d * d),
        gradient: of(&found.gradient, d),
    }
}

/// A curve's bits do not depend on which others pass with it, where tiles cut it, or whether the others are finite.
#[test]
fn neighbours_do_not_matter() {
    for (compute, widths) in BUILDS {
        let bench = Bench::new(compute, false);
        let mut random = Random(9);
        for d in [1, 3, 8, 20] {
            let decoder = decoder(&mut random, d, widths, [Activation::Softplus, Activation::Identity]);
            let curves = [(3, Curvature), (40, Curvature), (7, Tangents), (26, Curvature), (11, Gradient)];
            let network = bench.network(&decoder, None);
            let latents = latents(10, d, &curves);
            let together = bench.pass(&network, &latents, &curves, 1);
            let mut poisoned = latents.clone();
            let places = curves.iter().scan(0, |at, (inner, _)| {
                *at += inner + 2;
                Some((*at - inner - 2, inner + 2))
            });
            let places: Vec<_> = places.collect();
            for (k, number) in [(0, f32::NAN), (2, f32::MAX), (4, f32::INFINITY)] {
                let (first, points) = places[k];
                poisoned[first * d..(first + points) * d].fill(number);
            }
            let beside = bench.pass(&network, &poisoned, &curves, 1);
            for (k, &(first, points)) in places.iter().enumerate() {
                let alone = bench.pass(&network, &latents[first * d..(first + points) * d], &curves[k..=k], 1);
                let expected = part(&network, &together, first, points);
                assert!(alone == expected, "{compute:?}, d = {d}: curve {k} alone is another one");
                if k % 2 == 1 {
                    let found = part(&network, &beside, first, points);
                    assert!(found == expected, "{compute:?}, d = {d}: curve {k} beside poisoned ones is another one");
                }
            }
        }
    }
}

/// What is not a number stays so in every activation: on a GPU the bits of its NaN are 7fffffff, and the emulator's products give those.
#[test]
fn nothing_hides_what_is_not_a_number() {
    for (compute, widths) in BUILDS {
        let bench = Bench::new(compute, false);
        for activation in Activation::ALL.into_iter().filter(|a| a.is_elementwise()) {
            let decoder = Decoder::new(vec![Random(13).head(3, &[widths[0], 5], activation, activation)]).unwrap();
            let network = bench.network(&decoder, None);
            let found = bench.pass(&network, &[f32::NAN; 9], &[(1, Values)], 1);
            for (at, &bits) in found.values.iter().enumerate() {
                let value = f32::from_bits(bits);
                assert!(value.is_nan() || at % network.value_stride() >= 5, "{compute:?}, {activation}: {value}");
            }
        }
    }
}

/// Under the emulator's checks: no races, nothing read that nobody wrote, every copy awaited.
#[test]
fn small_chains() {
    for (compute, widths) in BUILDS {
        let bench = Bench::new(compute, true);
        let mut random = Random(11);
        for (d, weights) in [
            (1, Weights::Resident),
            (2, Weights::Ring(2)),
            (3, Weights::Ring(3)),
            (9, Weights::Ring(4)),
            (20, Weights::Ring(2)),
        ] {
            let decoder = small(&mut random, d, widths[0].next_multiple_of(64));
            let curves = [(5, Curvature), (1, Gradient), (8, Tangents)];
            let latents = latents(12, d, &curves);
            let network = bench.network(&decoder, Some(weights));
            is_exact(&decoder, &network, &latents, &curves, &bench.pass(&network, &latents, &curves, 2));
        }
    }
}
