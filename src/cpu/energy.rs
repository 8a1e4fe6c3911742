//! Chord energy along curves, its gradient, and the blocks of its Hessian.
//!
//! With r_i = 2 f_i − f_{i−1} − f_{i+1}, everything divided by N:
//!
//! ```text
//! E/N = ½ Σ ‖f_{i+1} − f_i‖²     g_i = J_i r_i     H_ii = 2 G_i + S_i     H_{i,i+1} = −J_i J_{i+1}ᵀ
//! S = Σ_l T_l · diag(λ_l ∘ φ''(h_l)) · T_lᵀ        λ_l = ∂(r · f)/∂a_l, one adjoint row through the layers
//! ```

use super::activation::Order;
use super::curve::{Curve, Span};
use super::decode::{DecodeScratch, Wanted, forward};
use super::gram::{self, add_gram, add_products};
use super::jacobian::{Tangents, push_forward};
use super::network::{Chain, Dense, Network, with_spare_row};
use super::simd::vectorised;
use super::{ensemble, gaussian};
use crate::decoder::Geometry;
use crate::scalar::Scalar;

/// Σ_i e_i and Σ_i √e_i over the squared chords e_i between neighbouring rows of `values` `[points, D]`.
pub(crate) fn chord_sums<T: Scalar>(network: &Network<T>, values: &[T]) -> (f64, f64) {
    let (stride, width) = (network.data_dim, network.chains[0].outputs());
    let mut squares = vec![0.0; (values.len() / stride).saturating_sub(1)];
    let apart = match network.geometry {
        Geometry::Euclidean => return gram::chord_sums(stride, values),
        Geometry::Ensemble(members) => {
            ensemble::add_chords(members, width, stride, values, &mut squares);
            members * width
        }
        Geometry::Gaussian => {
            gaussian::add_chords(width, stride, values, &mut squares);
            2 * width
        }
    };
    if apart < stride {
        for (square, (a, b)) in
            squares.iter_mut().zip(values.chunks_exact(stride).zip(values.chunks_exact(stride).skip(1)))
        {
            *square += ensemble::distance(&a[apart..], &b[apart..]);
        }
    }
    (squares.iter().sum(), squares.iter().map(|e| e.sqrt()).sum())
}

/// f, and φ' and φ'' as far as `order` asks, along the trials of a tile's curves.
pub(crate) fn evaluate<T: Scalar>(
    network: &Network<T>,
    tile: &[Span],
    curves: &mut [Curve<T>],
    order: Order,
    scratch: &mut DecodeScratch<T>,
) {
    let d = network.latent_dim;
    let rows = tile.last().map_or(0, |span| span.row + span.count);
    for span in tile {
        scratch.latents()[span.rows(d)].copy_from_slice(&curves[span.curve].trial[span.points(d)]);
    }
    // Both closures write into the curves, one after the other.
    let curves = std::cell::RefCell::new(curves);
    forward(
        network,
        Wanted::Values,
        rows,
        scratch,
        |number, layer, products| {
            let curves = &mut *curves.borrow_mut();
            for span in tile {
                let Curve { first, second, .. } = &mut curves[span.curve];
                let (first, second) = (&mut first[number], &mut second[number]);
                // Constant derivatives are not stored.
                let order = match (first.is_empty(), second.is_empty()) {
                    (true, _) => Order::Value,
                    (false, true) => order.min(Order::First),
                    (false, false) => order,
                };
                let points = span.points(layer.outputs);
                let part = |wanted: bool| if wanted { points.clone() } else { 0..0 };
                let (p1, p2) = (part(order >= Order::First), part(order == Order::Second));
                let products = &mut products[span.rows(layer.outputs)];
                layer.activate(order, products, &mut first[p1], &mut second[p2]);
            }
        },
        |chain, outputs| {
            let curves = &mut *curves.borrow_mut();
            for span in tile {
                let values = &mut curves[span.curve].values[span.points(network.data_dim)];
                super::decode::store(network, chain, &outputs[span.rows(chain.outputs())], values);
            }
        },
    );
}

/// Room for the linearisation of a tile.
pub(crate) struct LineariseScratch<T> {
    tangents: Tangents<T>,
    /// ∂(r · f)/∂a of a layer and of the one before.
    adjoints: [Vec<T>; 2],
    /// J of the last point of the tile before, `[d, outputs]` for every head.
    halo: Vec<T>,
    /// Of an ensemble: Σ_c J_c / √M, `[points · d, outputs]`, and that of the last point of the tile before.
    average: Vec<T>,
    average_halo: Vec<T>,
    row: Vec<T>,
}

impl<T: Scalar> LineariseScratch<T> {
    pub fn new(network: &Network<T>, points: usize, gradient_points: usize) -> Self {
        let adjoint = || with_spare_row(points.max(gradient_points), network.widest);
        let averaged = matches!(network.geometry, Geometry::Ensemble(_));
        let average = if averaged { network.latent_dim * network.chains[0].outputs() } else { 0 };
        Self {
            tangents: Tangents::new(network, points),
            adjoints: [adjoint(), adjoint()],
            halo: vec![T::ZERO; network.latent_dim * network.data_dim],
            average: vec![T::ZERO; points * average],
            average_halo: vec![T::ZERO; average],
            row: vec![T::ZERO; 2 * network.widest],
        }
    }
}

/// Clears what [`linearise`] adds up in a curve.
pub(crate) fn clear<T: Scalar>(curve: &mut Curve<T>) {
    for array in [&mut curve.gram, &mut curve.off, &mut curve.curvature, &mut curve.gradient] {
        array.fill(T::ZERO);
    }
}

/// Gradient and Hessian blocks at a tile's interior points, from the values and derivatives that [`evaluate`] left.
///
/// A curve's tiles come one after the other, in order. `newton` asks for S too.
pub(crate) fn linearise<T: Scalar>(
    network: &Network<T>,
    tile: &[Span],
    curves: &mut [Curve<T>],
    newton: bool,
    scratch: &mut LineariseScratch<T>,
) {
    let d = network.latent_dim;
    let points = tile.last().map_or(0, |span| span.row + span.count);
    scratch.average.fill(T::ZERO);
    for chain in &network.chains {
        push_forward(chain, points, d, &mut scratch.tangents, |number, pre, post| {
            let layer = &chain.layers[number - chain.first_layer];
            for span in tile {
                let first = &curves[span.curve].first[number];
                let first = if first.is_empty() { &[][..] } else { &first[span.points(layer.outputs)] };
                let rows = span.rows(d * layer.outputs);
                layer.push_forward(d, first, &pre[rows.clone()], &mut post[rows]);
            }
        });
        for span in tile {
            residuals(network, chain, span, &curves[span.curve], &mut scratch.adjoints[0]);
            own_products(network, chain, span, &mut curves[span.curve], scratch);
        }
        let (width, offset) = (chain.outputs(), chain.output_offset);
        let rows = points * d * width;
        if network.member(chain).is_some() {
            for (sum, &t) in scratch.average.iter_mut().zip(&scratch.tangents.post[..rows]) {
                *sum += t;
            }
        } else {
            let halo = &mut scratch.halo[d * offset..d * (offset + width)];
            neighbour_products(d, width, tile, &scratch.tangents.post[..rows], halo, curves);
        }
        if newton {
            curvatures(network, chain, tile, points, curves, scratch);
        }
    }
    if let Geometry::Ensemble(members) = network.geometry {
        let (width, factor) = (network.chains[0].outputs(), T::from_f64((members as f64).sqrt().recip()));
        let average = &mut scratch.average[..points * d * width];
        average.iter_mut().for_each(|t| *t *= factor);
        neighbour_products(d, width, tile, average, &mut scratch.average_halo, curves);
    }
}

/// The gradient alone at a tile's interior points, by one adjoint row a point.
pub(crate) fn gradient<T: Scalar>(
    network: &Network<T>,
    tile: &[Span],
    curves: &mut [Curve<T>],
    scratch: &mut LineariseScratch<T>,
) {
    let d = network.latent_dim;
    let points = tile.last().map_or(0, |span| span.row + span.count);
    let adjoints = &mut scratch.adjoints;
    for chain in &network.chains {
        for span in tile {
            residuals(network, chain, span, &curves[span.curve], &mut adjoints[0]);
        }
        for (k, layer) in chain.layers.iter().enumerate().rev() {
            for span in tile {
                let first = &curves[span.curve].first[chain.first_layer + k];
                let first = if first.is_empty() { &[][..] } else { &first[span.points(layer.outputs)] };
                layer.pull_back(first, &mut adjoints[0][span.rows(layer.outputs)]);
            }
            let [from, to] = &mut *adjoints;
            layer.backward(points, from, to);
            adjoints.swap(0, 1);
        }
        for span in tile {
            let first = span.first - 1;
            let gradient = &mut curves[span.curve].gradient[first * d..(first + span.count) * d];
            for (g, &a) in gradient.iter_mut().zip(&adjoints[0][span.rows(d)]) {
                *g += a;
            }
        }
    }
}

/// r_i of one head's outputs into `out` `[points, outputs]`: half the gradient of the squared chords to both neighbours.
fn residuals<T: Scalar>(network: &Network<T>, chain: &Chain<T>, span: &Span, curve: &Curve<T>, out: &mut [T]) {
    let (stride, width, offset) = (network.data_dim, chain.outputs(), chain.output_offset);
    let out = &mut out[span.rows(width)];
    if let Some(member) = network.member(chain) {
        let means = &curve.means[(span.first - 1) * width..(span.first + span.count + 1) * width];
        ensemble::residuals(member, width, stride, &curve.values[span.points(stride)], means, out);
        return;
    }
    if let Some(is_std) = network.is_std(chain) {
        for (i, out) in (span.first..).zip(out.chunks_exact_mut(width)) {
            let row = |i: usize| &curve.values[i * stride..(i + 1) * stride];
            gaussian::residual(width, is_std, row(i - 1), row(i), row(i + 1), out);
        }
        return;
    }
    vectorised(
        #[inline(always)]
        || {
            for (i, out) in (span.first..).zip(out.chunks_exact_mut(width)) {
                let at = |i: usize| &curve.values[i * stride + offset..i * stride + offset + width];
                for (((r, &f), &left), &right) in out.iter_mut().zip(at(i)).zip(at(i - 1)).zip(at(i + 1)) {
                    // Differences of neighbours first: they are small, and exact.
                    *r = (f - left) + (f - right);
                }
            }
        },
    );
}

/// J r and J Jᵀ, added to the curve's gradient and blocks. Tangents of means and standard deviations are divided by those.
fn own_products<T: Scalar>(
    network: &Network<T>,
    chain: &Chain<T>,
    span: &Span,
    curve: &mut Curve<T>,
    scratch: &mut LineariseScratch<T>,
) {
    let (d, width) = (network.latent_dim, chain.outputs());
    let jacobians = &mut scratch.tangents.post[span.rows(d * width)];
    let residuals = &scratch.adjoints[0][span.rows(width)];
    let first = span.first - 1;
    let gradient = &mut curve.gradient[first * d..(first + span.count) * d];
    add_products(width, (1, residuals), (d, jacobians), gradient);
    if let Some(is_std) = network.is_std(chain) {
        let stride = network.data_dim;
        gaussian::normalise(d, width, stride, is_std, &curve.values[span.points(stride)], jacobians);
    }
    add_gram(width, d, jacobians, &mut curve.gram[first * d * d..(first + span.count) * d * d]);
}

/// Products of every point's tangents `[points · d, width]` with those of the point before, added to the curves' blocks. `halo` holds
/// the tangents of the last point of the tile before, and then of this one.
fn neighbour_products<T: Scalar>(
    d: usize,
    width: usize,
    tile: &[Span],
    tangents: &[T],
    halo: &mut [T],
    curves: &mut [Curve<T>],
) {
    for span in tile {
        let (jacobians, off) = (&tangents[span.rows(d * width)], &mut curves[span.curve].off);
        let first = span.first - 1;
        if first > 0 {
            add_products(width, (d, halo), (d, &jacobians[..d * width]), &mut off[(first - 1) * d * d..first * d * d]);
        }
        let inside = (span.count - 1) * d;
        let (before, after) = (&jacobians[..inside * width], &jacobians[d * width..]);
        add_products(width, (d, before), (d, after), &mut off[first * d * d..first * d * d + inside * d]);
    }
    halo.copy_from_slice(&tangents[tangents.len() - halo.len()..]);
}

/// The adjoint pass: S of every layer, from the outputs back to the first.
fn curvatures<T: Scalar>(
    network: &Network<T>,
    chain: &Chain<T>,
    tile: &[Span],
    points: usize,
    curves: &mut [Curve<T>],
    scratch: &mut LineariseScratch<T>,
) {
    let d = network.latent_dim;
    let LineariseScratch { tangents, adjoints, row, .. } = scratch;
    for (k, layer) in chain.layers.iter().enumerate().rev() {
        let (width, number) = (layer.outputs, chain.first_layer + k);
        for span in tile {
            let Curve { first, second, curvature, .. } = &mut curves[span.curve];
            let stored = |jet: &[T]| if jet.is_empty() { 0..0 } else { span.points(width) };
            let (p1, p2) = (stored(&first[number]), stored(&second[number]));
            let (first, second) = (&first[number][p1], &mut second[number][p2]);
            let adjoint = &mut adjoints[0][span.rows(width)];
            let pre = &tangents.pre[k][span.rows(d * width)];
            layer.pull_back_twice(d, pre, first, second, adjoint, row, &mut curvature[(span.first - 1) * d * d..]);
        }
        if k > 0 {
            let [from, to] = &mut *adjoints;
            layer.backward(points, from, to);
            adjoints.swap(0, 1);
        }
    }
}

/// Room for [`adjoint_hessians`].
pub(crate) struct AdjointScratch<T> {
    decode: DecodeScratch<T>,
    tangents: Tangents<T>,
    first: Vec<Vec<T>>,
    second: Vec<Vec<T>>,
    adjoints: [Vec<T>; 2],
    row: Vec<T>,
}

impl<T: Scalar> AdjointScratch<T> {
    pub fn new(network: &Network<T>, points: usize) -> Self {
        let jets = || network.layers().map(|l| vec![T::ZERO; points * l.outputs]).collect();
        let adjoint = || with_spare_row(points, network.widest);
        Self {
            decode: DecodeScratch::new(network, points),
            tangents: Tangents::new(network, points),
            first: jets(),
            second: jets(),
            adjoints: [adjoint(), adjoint()],
            row: vec![T::ZERO; 2 * network.widest],
        }
    }
}

/// Σ_k w_k ∇²f_k(z) for rows that hold z and w, `[points, d + D]`, into `out` `[points, d, d]`.
pub(crate) fn adjoint_hessians<T: Scalar>(
    network: &Network<T>,
    rows: &[T],
    scratch: &mut AdjointScratch<T>,
    out: &mut [T],
) {
    let (d, data_dim) = (network.latent_dim, network.data_dim);
    let points = rows.len() / (d + data_dim);
    let AdjointScratch { decode, tangents, first, second, adjoints, row } = scratch;
    for (to, from) in decode.latents().chunks_exact_mut(d).zip(rows.chunks_exact(d + data_dim)) {
        to.copy_from_slice(&from[..d]);
    }
    let keep = |number: usize, layer: &Dense<T>, products: &mut [T]| {
        let length = products.len();
        let (first, second) = (&mut first[number][..length], &mut second[number][..length]);
        layer.activate(Order::Second, products, first, second);
    };
    forward(network, Wanted::Derivatives, points, decode, keep, |_, _| {});
    for chain in &network.chains {
        push_forward(chain, points, d, tangents, |number, pre, post| {
            let layer = &chain.layers[number - chain.first_layer];
            layer.push_forward(d, layer.stored(&first[number], points), pre, post);
        });
        let width = chain.outputs();
        let weights = rows.chunks_exact(d + data_dim).map(|row| &row[d + chain.output_offset..][..width]);
        for (to, from) in adjoints[0].chunks_exact_mut(width).zip(weights) {
            to.copy_from_slice(from);
        }
        for (k, layer) in chain.layers.iter().enumerate().rev() {
            let (width, number) = (layer.outputs, chain.first_layer + k);
            let adjoint = &mut adjoints[0][..points * width];
            let bends = if layer.is_linear() { 0 } else { points * width };
            let (first, second) = (layer.stored(&first[number], points), &mut second[number][..bends]);
            layer.pull_back_twice(d, &tangents.pre[k], first, second, adjoint, row, out);
            if k > 0 {
                let [from, to] = &mut *adjoints;
                layer.backward(points, from, to);
                adjoints.swap(0, 1);
            }
        }
    }
}
