//! The latents at which quantities are computed: rows of a file, or a grid over a plane.

use std::str::FromStr;

use ndarray::{Array2, ArrayView2, CowArray, Ix2, s};
use serde_json::{Value, json};

use crate::cli::args::MetricArgs;
use crate::cli::npy::read_latents;
use crate::error::{Error, Result};

/// Points along one side of a grid at most.
const WIDEST: usize = 1 << 16;
/// Room around the latents of `--around`, as a share of their range.
const MARGIN: f64 = 0.1;

/// Points of a grid along both axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct GridSize {
    pub columns: usize,
    pub rows: usize,
}

impl FromStr for GridSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (columns, rows) = text.split_once(['x', '×']).unwrap_or((text, text));
        match (columns.trim().parse(), rows.trim().parse()) {
            (Ok(columns), Ok(rows)) if (2..=WIDEST).contains(&columns) && (2..=WIDEST).contains(&rows) => {
                Ok(Self { columns, rows })
            }
            _ => Err(format!("expected points along both axes, from 2 to {WIDEST}, as 200 or 200x150")),
        }
    }
}

/// A rectangle of the latent plane.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::cli) struct Extent {
    pub x: [f64; 2],
    pub y: [f64; 2],
}

impl Default for Extent {
    /// Three standard deviations of the latents' usual prior.
    fn default() -> Self {
        Self { x: [-3.0, 3.0], y: [-3.0, 3.0] }
    }
}

impl FromStr for Extent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Option<Vec<f64>> = text.split(',').map(|n| n.trim().parse().ok()).collect();
        let Some(&[x0, x1, y0, y1]) = numbers.as_deref() else {
            return Err("expected four numbers, as -3,3,-2,2".into());
        };
        for (axis, [low, high]) in [("x", [x0, x1]), ("y", [y0, y1])] {
            if !(low.is_finite() && high.is_finite()) {
                return Err(format!("expected finite numbers, found {axis} from {low} to {high}"));
            }
            if low >= high || low as f32 >= high as f32 {
                return Err(format!("expected {axis}0 below {axis}1, found {low} and {high}"));
            }
            if !((low as f32).is_finite() && (high as f32).is_finite()) {
                return Err(format!("expected numbers that float32 can hold, found {axis} from {low:e} to {high:e}"));
            }
        }
        Ok(Self { x: [x0, x1], y: [y0, y1] })
    }
}

impl Extent {
    /// A little more than the bounding box of latents `[P, 2]`.
    fn around(latents: ArrayView2<'_, f32>) -> Self {
        let side = |axis: usize| {
            let column = latents.column(axis);
            let (low, high) = column.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &z| {
                (low.min(f64::from(z)), high.max(f64::from(z)))
            });
            // One place only: some room around it all the same.
            let margin = (MARGIN * (high - low)).max(1e-3 * high.abs().max(low.abs()));
            let margin = if margin > 0.0 { margin } else { 1.0 };
            let most = f64::from(f32::MAX);
            [(low - margin).max(-most), (high + margin).min(most)]
        };
        Self { x: side(0), y: side(1) }
    }

    pub fn record(&self) -> Value {
        json!([self.x[0], self.x[1], self.y[0], self.y[1]])
    }

    /// Reads what [`Extent::record`] wrote.
    pub fn from_record(record: &Value) -> Option<Self> {
        let numbers: Option<Vec<f64>> = record.as_array()?.iter().map(Value::as_f64).collect();
        match numbers?.as_slice() {
            &[x0, x1, y0, y1] if x0 < x1 && y0 < y1 => Some(Self { x: [x0, x1], y: [y0, y1] }),
            _ => None,
        }
    }
}

/// A grid: row by row from below, its points from left to right, the extent's borders among them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Grid {
    pub size: GridSize,
    pub extent: Extent,
}

impl Grid {
    fn point(&self, k: usize) -> [f32; 2] {
        let along = |[low, high]: [f64; 2], k: usize, count: usize| {
            let t = k as f64 / (count - 1) as f64;
            ((1.0 - t) * low + t * high) as f32
        };
        let GridSize { columns, rows } = self.size;
        [along(self.extent.x, k % columns, columns), along(self.extent.y, k / columns, rows)]
    }
}

/// Where quantities are computed.
pub(super) enum Places {
    Given(Array2<f32>),
    Grid {
        grid: Grid,
        /// The latents of `--around`.
        around: Option<Array2<f32>>,
    },
}

impl Places {
    /// The places that the arguments ask for, checked against a decoder of `d` latents.
    pub fn open(args: &MetricArgs, d: usize) -> Result<Self> {
        let size = match (&args.points, args.grid) {
            (Some(path), _) => return Ok(Self::Given(read_latents(path, d)?)),
            (None, Some(size)) => size,
            (None, None) => {
                return Err(Error::Option { name: "metric", expected: "--points or --grid", found: "neither".into() });
            }
        };
        if d != 2 {
            return Err(Error::Option {
                name: "--grid",
                expected: "a decoder of 2 latents (for others give --points)",
                found: d.to_string(),
            });
        }
        let around = args.around.as_deref().map(|path| read_latents(path, d)).transpose()?;
        let extent = match (args.extent, &around) {
            (Some(extent), _) => extent,
            (None, Some(latents)) => Extent::around(latents.view()),
            (None, None) => Extent::default(),
        };
        Ok(Self::Grid { grid: Grid { size, extent }, around })
    }

    pub fn count(&self) -> usize {
        match self {
            Self::Given(points) => points.nrows(),
            Self::Grid { grid, .. } => grid.size.columns * grid.size.rows,
        }
    }

    /// The latents from number `from` up to `to`, `[to − from, d]`.
    pub fn rows(&self, from: usize, to: usize) -> CowArray<'_, f32, Ix2> {
        match self {
            Self::Given(points) => points.slice(s![from..to, ..]).into(),
            Self::Grid { grid, .. } => {
                let numbers = (from..to).flat_map(|k| grid.point(k)).collect();
                Array2::from_shape_vec((to - from, 2), numbers).unwrap_or_default().into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn a_grid_reaches_its_borders_row_by_row() {
        let grid = Grid { size: "3x2".parse().expect("a size"), extent: "-1,3,0,5".parse().expect("an extent") };
        let places = Places::Grid { grid, around: None };
        assert_eq!(places.count(), 6);
        let all = array![[-1.0, 0.0], [1.0, 0.0], [3.0, 0.0], [-1.0, 5.0], [1.0, 5.0], [3.0, 5.0]];
        assert_eq!(places.rows(0, 6), all);
        assert_eq!(places.rows(2, 4), all.slice(s![2..4, ..]));
    }

    #[test]
    fn a_box_around_latents_has_room_even_for_one() {
        let found = Extent::around(array![[0.0, 2.0], [10.0, 2.0]].view());
        assert_eq!(found.x, [-1.0, 11.0]);
        assert!(found.y[0] < 2.0 && found.y[1] > 2.0);
        let one = Extent::around(array![[0.0, 0.0]].view());
        assert_eq!(one, Extent { x: [-1.0, 1.0], y: [-1.0, 1.0] });
    }
}
