//! Curvature, from inner products of first and second directional derivatives.
//!
//! B(u, v) = ∂²f[u, v] has a part in the surface, J a with G a = Jᵀ B, and a part across it, the second fundamental form II(u, v). So, with
//! G = Jᵀ J,
//!
//! ```text
//! ⟨II(a), II(b)⟩ = ⟨B(a), B(b)⟩ − (Jᵀ B(a))ᵀ G⁻¹ (Jᵀ B(b))
//! K(u, v) = (⟨II(u, u), II(v, v)⟩ − ‖II(u, v)‖²) / (‖u‖² ‖v‖² − ⟨u, v⟩²)          Gauss's equation
//! z̈ = −G⁻¹ Jᵀ B(ż, ż)                                                             the geodesic equation
//! ```
//!
//! (M. do Carmo, "Riemannian Geometry", 1992, chapter 6.) Everything but II itself is inner products, so that the compressed network serves.

use super::cholesky::{Cholesky, Rank};
use super::decode::store;
use super::gram::{add_gram, add_products};
use super::jet::{Jet, JetScratch, jets};
use super::maps::dot;
use super::model::CpuModel;
use super::rows::{chunk, over_finite_rows};
use crate::scalar::Scalar;

/// G⁻¹ at one point.
struct Inverse(Cholesky<f64>);

impl Inverse {
    /// From the first d rows and columns of a matrix with rows of length `stride`; `None` where they are singular to the precision of `T`.
    fn new<T: Scalar>(d: usize, products: &[T], stride: usize) -> Option<Self> {
        let mut factor = Cholesky::new(d);
        let rows = products.chunks(stride).take(d).map(|row| &row[..d]);
        (factor.factor(rows, T::EPSILON.to_f64()) == Rank::Full).then_some(Self(factor))
    }

    /// b such that products of whitened vectors are those in G⁻¹.
    fn whitened<T: Scalar>(&self, b: &[T]) -> Vec<f64> {
        let (b, mut white): (Vec<f64>, Vec<f64>) = (b.iter().map(|x| x.to_f64()).collect(), vec![0.0; b.len()]);
        self.0.whiten(&b, &mut white);
        white
    }

    /// G⁻¹ b.
    fn solved<T: Scalar>(&self, b: &[T]) -> Vec<f64> {
        let (white, mut solved) = (self.whitened(b), vec![0.0; b.len()]);
        self.0.unwhiten(&white, &mut solved);
        solved
    }

    /// d vectors that are orthonormal in G, as rows.
    fn frame(&self, d: usize) -> Vec<f64> {
        let mut frame = vec![0.0; d * d];
        for (k, row) in frame.chunks_exact_mut(d).enumerate() {
            let unit: Vec<f64> = (0..d).map(|i| if i == k { 1.0 } else { 0.0 }).collect();
            self.0.unwhiten(&unit, row);
        }
        frame
    }
}

/// Writes the latents' own directions, d rows of d numbers.
fn write_axes<T: Scalar>(d: usize, room: &mut [T]) {
    room.fill(T::ZERO);
    room.iter_mut().step_by(d + 1).for_each(|x| *x = T::ONE);
}

/// d vectors that are orthonormal in the metric `[d, d]`, as rows; NaN where it is singular.
pub(crate) fn write_frame<T: Scalar>(d: usize, metric: &[T], frame: &mut [T]) {
    match Inverse::new(d, metric, d) {
        Some(metric) => frame.iter_mut().zip(metric.frame(d)).for_each(|(to, x)| *to = T::from_f64(x)),
        None => frame.fill(T::from_f64(f64::NAN)),
    }
}

/// Two vectors of the plane of u and v, of length 1 and at right angles in the latent space; NaN where there is no such plane.
///
/// A plane's curvature does not depend on the vectors that span it, but its rounding does.
pub(crate) fn write_plane<T: Scalar>(u: &[T], v: &[T], room: &mut [T]) {
    let wide = |x: &[T]| {
        let largest = x.iter().fold(0.0, |m: f64, x| m.max(x.magnitude().to_f64()));
        x.iter().map(|x| x.to_f64() / largest).collect::<Vec<f64>>()
    };
    let (u, v) = (wide(u), wide(v));
    let (uu, vv) = (dot(&u, &u), dot(&v, &v));
    let share = dot(&u, &v) / uu;
    let rest: Vec<f64> = u.iter().zip(&v).map(|(u, v)| v - share * u).collect();
    let ww = dot(&rest, &rest);
    let plane = ww.sqrt() > 8.0 * T::EPSILON.to_f64() * vv.sqrt();
    let scale = |x: f64, square: f64| T::from_f64(if plane { x / square.sqrt() } else { f64::NAN });
    let (first, second) = room.split_at_mut(u.len());
    first.iter_mut().zip(u).for_each(|(to, x)| *to = scale(x, uu));
    second.iter_mut().zip(rest).for_each(|(to, x)| *to = scale(x, ww));
}

impl<T: Scalar> CpuModel<T> {
    /// II(u, v): latents and vectors `[P, d]` to `[P, D]`.
    pub fn second_fundamental_form(&self, latents: &[T], u: &[T], v: &[T]) -> Vec<T> {
        let network = &self.original;
        let (d, width) = (network.latent_dim, network.data_dim);
        let jet = Jet { directions: d + 2, pairs: &[(d, d + 1)] };
        let rows = jet.rows();
        let [out] = over_finite_rows(
            [(latents, d), (u, d), (v, d)],
            [width],
            chunk(jet.numbers(network) + rows * width),
            |points| (JetScratch::new(network, points, jet), vec![T::ZERO; points * rows * width]),
            |(scratch, whole), _, [latents, u, v], [out]| {
                let write = |p: usize, room: &mut [T]| {
                    let (axes, vectors) = room.split_at_mut(d * d);
                    write_axes(d, axes);
                    let (first, second) = vectors.split_at_mut(d);
                    first.copy_from_slice(&u[p * d..(p + 1) * d]);
                    second.copy_from_slice(&v[p * d..(p + 1) * d]);
                };
                jets(network, latents, jet, scratch, write, |chain, rows| store(network, chain, rows, whole));
                for (out, whole) in out.chunks_exact_mut(width).zip(whole.chunks_exact(rows * width)) {
                    out.copy_from_slice(&whole[(rows - 1) * width..]);
                    across(&whole[..d * width], out);
                }
            },
        );
        out
    }

    /// Σ_{a ≠ b} K(e_a, e_b) over an orthonormal frame: latents `[P, d]` to `[P]`.
    pub fn scalar_curvature(&self, latents: &[T]) -> Vec<T> {
        let network = &self.compressed;
        let (d, widest) = (network.latent_dim, network.data_dim);
        let pairs = Question { vectors: 0, curved: d }.pairs(d);
        let (axes, jet) = (Jet { directions: d, pairs: &[] }, Jet { directions: d, pairs: &pairs });
        let [out] = over_finite_rows(
            [(latents, d)],
            [1],
            chunk(jet.numbers(network)),
            |points| (JetScratch::new(network, points, jet), FrameScratch::new(points, d, pairs.len(), widest)),
            |(scratch, room), _, [latents], [out]| {
                let points = out.len();
                room.clear();
                jets(
                    network,
                    latents,
                    axes,
                    scratch,
                    |_, room| write_axes(d, room),
                    |chain, rows| {
                        add_gram(chain.outputs(), d, rows, &mut room.grams);
                    },
                );
                room.take_frames(points);
                let write = |p: usize, to: &mut [T]| to.copy_from_slice(&room.frames[p * d * d..(p + 1) * d * d]);
                let (frame_sums, gram) = (&mut room.sums, &mut room.grams);
                gram.fill(T::ZERO);
                jets(network, latents, jet, scratch, write, |chain, rows| {
                    let width = chain.outputs();
                    for (p, rows) in rows.chunks_exact(jet.rows() * width).enumerate() {
                        let (tangents, seconds) = rows.split_at(d * width);
                        add_gram(width, d, tangents, &mut gram[p * d * d..(p + 1) * d * d]);
                        frame_sums[p].add(d, width, tangents, seconds, &pairs);
                    }
                });
                for (p, out) in out.iter_mut().enumerate() {
                    *out = T::from_f64(frame_sums[p].scalar(d, &gram[p * d * d..(p + 1) * d * d], &pairs));
                }
            },
        );
        out
    }

    /// Numbers that `measure` makes, `width` a point, of the inner products of all derivatives of a jet along the latents' own directions and
    /// the vectors that `write` makes of the point's rows of the inputs, the first of which are the latents.
    pub fn of_products<const I: usize>(
        &self,
        inputs: [(&[T], usize); I],
        width: usize,
        question: Question,
        write: impl Fn([&[T]; I], &mut [T]) + Sync + Send,
        measure: impl Fn(Products<'_, T>, &mut [T]) + Sync + Send,
    ) -> Vec<T> {
        let network = &self.compressed;
        let d = network.latent_dim;
        let pairs = question.pairs(d);
        let jet = Jet { directions: d + question.vectors, pairs: &pairs };
        let rows = jet.rows();
        let [out] = over_finite_rows(
            inputs,
            [width],
            chunk(jet.numbers(network) + rows * rows),
            |points| (JetScratch::new(network, points, jet), vec![T::ZERO; points * rows * rows]),
            |(scratch, products), _, inputs, [out]| {
                products.fill(T::ZERO);
                let write = |p: usize, room: &mut [T]| {
                    let (axes, vectors) = room.split_at_mut(d * d);
                    write_axes(d, axes);
                    write(inputs.map(|rows| &rows[p * d..(p + 1) * d]), vectors);
                };
                jets(network, inputs[0], jet, scratch, write, |chain, derivatives| {
                    add_gram(chain.outputs(), rows, derivatives, products);
                });
                for (out, products) in out.chunks_exact_mut(width).zip(products.chunks_exact(rows * rows)) {
                    let (first, second) = (0, jet.directions);
                    let table = |i: usize, j: usize| Table { numbers: &products[i * rows + j..], stride: rows };
                    let [tangents, cross, seconds] = [table(first, first), table(second, first), table(second, second)];
                    measure(Products { d, tangents, cross, seconds }, out);
                }
            },
        );
        out
    }
}

/// Which derivatives [`CpuModel::of_products`] multiplies: along each latent and so many vectors, and along pairs of the last so many of these
/// directions.
#[derive(Clone, Copy)]
pub(crate) struct Question {
    pub vectors: usize,
    pub curved: usize,
}

impl Question {
    /// In the order 00, 01, …, 11, 12, ….
    fn pairs(self, d: usize) -> Vec<(usize, usize)> {
        let (first, end) = (d + self.vectors - self.curved, d + self.vectors);
        (first..end).flat_map(|u| (u..end).map(move |v| (u, v))).collect()
    }
}

/// Rows of numbers in every `stride`.
#[derive(Clone, Copy)]
pub(crate) struct Table<'a, T> {
    pub numbers: &'a [T],
    pub stride: usize,
}

impl<'a, T: Scalar> Table<'a, T> {
    fn row(self, i: usize) -> &'a [T] {
        &self.numbers[i * self.stride..]
    }

    fn at(self, i: usize, j: usize) -> f64 {
        self.row(i)[j].to_f64()
    }
}

/// Inner products of a point's derivatives, the first d of which are along the latents.
#[derive(Clone, Copy)]
pub(crate) struct Products<'a, T> {
    pub d: usize,
    /// Of first derivatives.
    pub tangents: Table<'a, T>,
    /// Of second ones (rows) with first ones.
    pub cross: Table<'a, T>,
    /// Of second ones.
    pub seconds: Table<'a, T>,
}

impl<T: Scalar> Products<'_, T> {
    fn metric(&self) -> Option<Inverse> {
        Inverse::new(self.d, self.tangents.numbers, self.tangents.stride)
    }

    /// −G⁻¹ Jᵀ B for the first second derivative B, into `out` `[d]`.
    pub fn acceleration(&self, out: &mut [T]) {
        let Some(metric) = self.metric() else { return out.fill(T::from_f64(f64::NAN)) };
        for (to, x) in out.iter_mut().zip(metric.solved(&self.cross.row(0)[..self.d])) {
            *to = T::from_f64(-x);
        }
    }

    /// Gauss's equation for the directions u and v, where the second derivatives are B(u, u), B(u, v) and B(v, v).
    pub fn gauss(&self, [u, v]: [usize; 2]) -> f64 {
        let Some(metric) = self.metric() else { return f64::NAN };
        let whitened: [Vec<f64>; 3] = std::array::from_fn(|k| metric.whitened(&self.cross.row(k)[..self.d]));
        let form = |a: usize, b: usize| self.seconds.at(a, b) - dot(&whitened[a], &whitened[b]);
        let at = |i: usize, j: usize| self.tangents.at(i, j);
        (form(0, 2) - form(1, 1)) / (at(u, u) * at(v, v) - at(u, v) * at(u, v))
    }
}

/// Takes from `vector` `[D]` its part in the span of the tangents `[d, D]`; NaN where they span less than d dimensions.
pub(crate) fn across<T: Scalar>(tangents: &[T], vector: &mut [T]) {
    let width = vector.len();
    let d = tangents.len() / width;
    let mut gram = vec![T::ZERO; d * d];
    add_gram(width, d, tangents, &mut gram);
    let Some(metric) = Inverse::new(d, &gram, d) else { return vector.fill(T::from_f64(f64::NAN)) };
    // Once more takes away what rounding has left.
    for _ in 0..2 {
        let mut products = vec![T::ZERO; d];
        add_products(width, (1, vector), (d, tangents), &mut products);
        for (tangent, share) in tangents.chunks_exact(width).zip(metric.solved(&products)) {
            let share = T::from_f64(-share);
            vector.iter_mut().zip(tangent).for_each(|(x, &t)| *x = share.fma(t, *x));
        }
    }
}

/// The scalar curvature from a frame's metric `[d, d]`, products Jᵀ B_ab `[pairs, d]`, and ‖B_ab‖² `[pairs + 1]` with ‖Σ_a B_aa‖² behind them.
#[cfg(any(feature = "cuda", feature = "emulator"))]
pub(crate) fn scalar_of_frame<T: Scalar>(d: usize, metric: &[T], products: &[T], squares: &[T]) -> f64 {
    let pairs = Question { vectors: 0, curved: d }.pairs(d);
    let mut sums = FrameSums::new(d, pairs.len(), 0);
    sums.products.copy_from_slice(&products[..pairs.len() * d]);
    sums.squares.iter_mut().zip(squares).for_each(|(to, from)| *to = from.to_f64());
    sums.mean_square = squares[pairs.len()].to_f64();
    sums.scalar(d, metric, &pairs)
}

/// Room for the scalar curvature of a tile of points.
struct FrameScratch<T> {
    d: usize,
    grams: Vec<T>,
    /// Frames that are orthonormal in G, as rows, `[points, d, d]`.
    frames: Vec<T>,
    sums: Vec<FrameSums<T>>,
}

impl<T: Scalar> FrameScratch<T> {
    fn new(points: usize, d: usize, pairs: usize, widest: usize) -> Self {
        let zeros = || vec![T::ZERO; points * d * d];
        Self {
            d,
            grams: zeros(),
            frames: zeros(),
            sums: (0..points).map(|_| FrameSums::new(d, pairs, widest)).collect(),
        }
    }

    fn clear(&mut self) {
        self.grams.fill(T::ZERO);
        self.sums.iter_mut().for_each(FrameSums::clear);
    }

    /// Frames of the metrics in `grams`.
    fn take_frames(&mut self, points: usize) {
        let size = self.d * self.d;
        for (frame, gram) in self.frames.chunks_exact_mut(size).zip(self.grams.chunks_exact(size)).take(points) {
            write_frame(self.d, gram, frame);
        }
    }
}

/// Sums over the heads of one point, of B(e_a, e_b) over pairs a ≤ b of a frame.
struct FrameSums<T> {
    /// ‖B_ab‖², `[pairs]`.
    squares: Vec<f64>,
    /// Jᵀ B_ab, `[pairs, d]`.
    products: Vec<T>,
    /// ‖Σ_a B_aa‖².
    mean_square: f64,
    mean: Vec<T>,
}

impl<T: Scalar> FrameSums<T> {
    fn new(d: usize, pairs: usize, widest: usize) -> Self {
        Self {
            squares: vec![0.0; pairs],
            products: vec![T::ZERO; pairs * d],
            mean_square: 0.0,
            mean: vec![T::ZERO; widest],
        }
    }

    fn clear(&mut self) {
        self.squares.fill(0.0);
        self.products.fill(T::ZERO);
        self.mean_square = 0.0;
    }

    /// Adds one head's tangents `[d, width]` and second derivatives `[pairs, width]`.
    fn add(&mut self, d: usize, width: usize, tangents: &[T], seconds: &[T], pairs: &[(usize, usize)]) {
        add_products(width, (pairs.len(), seconds), (d, tangents), &mut self.products);
        let mean = &mut self.mean[..width];
        mean.fill(T::ZERO);
        for ((second, square), (a, b)) in seconds.chunks_exact(width).zip(&mut self.squares).zip(pairs) {
            *square += dot(second, second);
            if a == b {
                mean.iter_mut().zip(second).for_each(|(m, &x)| *m += x);
            }
        }
        self.mean_square += dot(mean, mean);
    }

    /// ‖Σ_a II_aa‖² − Σ_ab ‖II_ab‖².
    fn scalar(&self, d: usize, metric: &[T], pairs: &[(usize, usize)]) -> f64 {
        let Some(metric) = Inverse::new(d, metric, d) else { return f64::NAN };
        let (mut mean, mut sum) = (vec![0.0; d], 0.0);
        for ((products, square), (a, b)) in self.products.chunks_exact(d).zip(&self.squares).zip(pairs) {
            let whitened = metric.whitened(products);
            let form = square - dot(&whitened, &whitened);
            sum += if a == b { form } else { 2.0 * form };
            if a == b {
                mean.iter_mut().zip(&whitened).for_each(|(m, x)| *m += x);
            }
        }
        self.mean_square - dot(&mean, &mean) - sum
    }
}
