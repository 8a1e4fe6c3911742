//! One curve in work: its points, what was computed along it, and where its search stands.

use super::network::Network;
use crate::decoder::{Activation, Geometry};
use crate::geodesic::policy::{LEVELS, Progress};
use crate::scalar::Scalar;

/// What a curve needs next in a round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Need {
    /// Free.
    Nothing,
    Linearise,
    Gradient,
    Step,
    Search,
}

/// All arrays of one curve, with room for N segments; `segments` of them are in use.
pub(crate) struct Curve<T> {
    /// Which of the caller's curves this is.
    pub job: usize,
    pub need: Need,
    pub progress: Progress,
    pub segments: usize,
    /// Position among the grids, coarse to fine.
    pub grid: usize,
    /// Energy of the straight line on the first grid.
    pub line_energy: f64,
    /// Started again from the straight line, on the last grid.
    pub anew: bool,
    /// z, `[N + 1, d]`.
    pub points: Vec<T>,
    /// The curve being tried, `[N + 1, d]`.
    pub trial: Vec<T>,
    /// f along the trial, `[N + 1, D]`.
    pub values: Vec<T>,
    /// Of an ensemble: the members' mean along the curve, `[N + 1, outputs]`, as its linearisation needs it.
    pub means: Vec<T>,
    /// φ' along the trial, `[N + 1, outputs]` for every layer; empty where φ is the identity.
    pub first: Vec<Vec<T>>,
    /// φ'', likewise; empty where φ'' = 0.
    pub second: Vec<Vec<T>>,
    /// G_i, `[N − 1, d, d]`.
    pub gram: Vec<T>,
    /// J_i J_{i+1}ᵀ, `[N − 1, d, d]`; the last is not used.
    pub off: Vec<T>,
    /// S_i, `[N − 1, d, d]`, where the search uses the full Hessian.
    pub curvature: Vec<T>,
    /// J_i r_i, `[N − 1, d]`.
    pub gradient: Vec<T>,
    /// δ for every damping level, `[N − 1, d]`.
    pub steps: [Vec<T>; LEVELS.len()],
}

impl<T: Scalar> Curve<T> {
    pub fn new(network: &Network<T>, segments: usize) -> Self {
        let (d, points, inner) = (network.latent_dim, segments + 1, segments - 1);
        let zeros = |n: usize| vec![T::ZERO; n];
        let jet = |wanted: fn(Activation) -> bool| {
            network
                .layers()
                .map(|l| if wanted(l.activation) { zeros(points * l.outputs) } else { Vec::new() })
                .collect()
        };
        Self {
            job: 0,
            need: Need::Nothing,
            progress: Progress::new(),
            segments,
            grid: 0,
            line_energy: f64::INFINITY,
            anew: false,
            points: zeros(points * d),
            trial: zeros(points * d),
            values: zeros(points * network.data_dim),
            means: match network.geometry {
                Geometry::Ensemble(_) => zeros(points * network.chains[0].outputs()),
                _ => Vec::new(),
            },
            first: jet(|a| a != Activation::Identity),
            second: jet(|a| !a.is_piecewise_linear()),
            gram: zeros(inner * d * d),
            off: zeros(inner * d * d),
            curvature: zeros(inner * d * d),
            gradient: zeros(inner * d),
            steps: [zeros(inner * d), zeros(inner * d), zeros(inner * d)],
        }
    }
}

/// Numbers a [`Curve`] holds, for sizing batches.
pub(crate) fn curve_size<T: Scalar>(network: &Network<T>, segments: usize) -> usize {
    let d = network.latent_dim;
    let jets: usize = network.layers().map(|l| 2 * l.outputs).sum();
    (segments + 1) * (network.data_dim + jets + 3 * d * d + 6 * d)
}

/// A run of neighbouring points of one curve inside a tile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// Index of the curve among those in work.
    pub curve: usize,
    /// First point, from 0 to N.
    pub first: usize,
    pub count: usize,
    /// Where the run starts in the tile.
    pub row: usize,
}

impl Span {
    /// This run's part of a tile's array with `width` numbers a point.
    pub fn rows(&self, width: usize) -> std::ops::Range<usize> {
        self.row * width..(self.row + self.count) * width
    }

    /// This run's part of a curve's array with `width` numbers a point.
    pub fn points(&self, width: usize) -> std::ops::Range<usize> {
        self.first * width..(self.first + self.count) * width
    }
}

/// Cuts runs of points (curve, first, count) into tiles of at most `limit` points.
pub(crate) fn tiles(runs: impl Iterator<Item = (usize, usize, usize)>, limit: usize) -> Vec<Vec<Span>> {
    let mut tiles: Vec<Vec<Span>> = Vec::new();
    let mut room = 0;
    for (curve, mut first, mut left) in runs {
        while left > 0 {
            if room == 0 {
                tiles.push(Vec::new());
                room = limit;
            }
            let count = left.min(room);
            if let Some(tile) = tiles.last_mut() {
                tile.push(Span { curve, first, count, row: limit - room });
            }
            (first, left, room) = (first + count, left - count, room - count);
        }
    }
    tiles
}
