//! What `pullback metric` can compute at a point.

use std::fmt;
use std::str::FromStr;

/// A quantity, as `--compute` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::cli) enum Quantity {
    Metric,
    Volume,
    LogDet,
    Spectrum,
    Condition,
    Rank,
    Dimension,
    Singular,
    Curvature,
    Truncated,
}

impl Quantity {
    pub const ALL: [Self; 10] = [
        Self::Metric,
        Self::Volume,
        Self::LogDet,
        Self::Spectrum,
        Self::Condition,
        Self::Rank,
        Self::Dimension,
        Self::Singular,
        Self::Curvature,
        Self::Truncated,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Metric => "metric",
            Self::Volume => "volume",
            Self::LogDet => "logdet",
            Self::Spectrum => "spectrum",
            Self::Condition => "condition",
            Self::Rank => "rank",
            Self::Dimension => "dimension",
            Self::Singular => "singular",
            Self::Curvature => "curvature",
            Self::Truncated => "truncated",
        }
    }

    /// For people, at latents of dimension `d`.
    pub fn title(self, d: usize) -> &'static str {
        match self {
            Self::Metric => "metric G",
            Self::Volume => "volume element √det G",
            Self::LogDet => "log det G",
            Self::Spectrum => "eigenvalues of G",
            Self::Condition => "condition number of J",
            Self::Rank => "effective rank",
            Self::Dimension => "intrinsic dimension",
            Self::Singular => "singular values of J",
            Self::Curvature if d == 2 => "Gaussian curvature",
            Self::Curvature => "scalar curvature",
            Self::Truncated => "truncated metric",
        }
    }

    /// Its arrays' files and their shapes behind the first axis, at `d` latents and `width` outputs.
    pub fn files(self, d: usize, width: usize) -> Vec<(&'static str, Vec<usize>)> {
        let r = d.min(width);
        match self {
            Self::Metric => vec![("metric.npy", vec![d, d])],
            Self::Volume => vec![("volume.npy", vec![])],
            Self::LogDet => vec![("logdet.npy", vec![])],
            Self::Spectrum => vec![("eigenvalues.npy", vec![d]), ("eigenvectors.npy", vec![d, d])],
            Self::Condition => vec![("condition.npy", vec![])],
            Self::Rank => vec![("rank.npy", vec![])],
            Self::Dimension => vec![("dimension.npy", vec![])],
            Self::Singular => vec![
                ("singular_values.npy", vec![r]),
                ("left_vectors.npy", vec![r, width]),
                ("right_vectors.npy", vec![r, d]),
            ],
            Self::Curvature => vec![("curvature.npy", vec![])],
            Self::Truncated => vec![("truncated_metric.npy", vec![d, d])],
        }
    }

    /// Whether `--threshold` changes it.
    pub fn has_threshold(self) -> bool {
        matches!(self, Self::Rank | Self::Truncated)
    }

    /// Whether the range of its numbers says something: not of matrices.
    pub fn has_range(self) -> bool {
        !matches!(self, Self::Metric | Self::Truncated)
    }

    /// Whether it is taken from the eigenvalues of the metric.
    pub fn is_spectral(self) -> bool {
        matches!(self, Self::Spectrum | Self::Condition | Self::Rank | Self::Dimension)
    }
}

impl FromStr for Quantity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|q| q.name() == text.trim()).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|q| q.name()).collect();
            format!("expected {}", known.join(", "))
        })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
