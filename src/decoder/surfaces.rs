//! Classical surfaces as decoders with sine activations: exact maps with known metrics, for tests and first steps.

use std::f64::consts::FRAC_PI_2;

use ndarray::{Array1, Array2, arr1, arr2};

use super::{Activation, Decoder, Geometry, Head, Layer};

/// x ↦ output · sin(angles · x + phases) + shift.
fn sines(angles: Array2<f64>, phases: Array1<f64>, output: Array2<f64>) -> Head {
    let outputs = output.nrows();
    let layers = vec![
        Layer { weight: angles, bias: phases, activation: Activation::Sin },
        Layer { weight: output, bias: Array1::zeros(outputs), activation: Activation::Identity },
    ];
    Head { name: "surface".into(), layers, scale: None }
}

impl Decoder {
    fn of(heads: Vec<Head>) -> Self {
        Self { heads, geometry: Geometry::Euclidean }
    }

    /// A circle of the given radius r: t ↦ r (cos t, sin t). G = r².
    pub fn circle(radius: f64) -> Self {
        let head = sines(arr2(&[[1.0], [1.0]]), arr1(&[FRAC_PI_2, 0.0]), arr2(&[[radius, 0.0], [0.0, radius]]));
        Self::of(vec![head])
    }

    /// A sphere of radius r: (θ, φ) ↦ r (sin θ cos φ, sin θ sin φ, cos θ). G = r² diag(1, sin² θ).
    pub fn sphere(radius: f64) -> Self {
        Self::ellipsoid([radius; 3])
    }

    /// An ellipsoid with semi-axes a, b, c: (θ, φ) ↦ (a sin θ cos φ, b sin θ sin φ, c cos θ).
    ///
    /// By the product-to-sum rule sin θ cos φ = ½ [sin(θ + φ) + sin(θ − φ)], and likewise for sin θ sin φ.
    pub fn ellipsoid([a, b, c]: [f64; 3]) -> Self {
        let angles = arr2(&[[1.0, 1.0], [1.0, -1.0], [1.0, 1.0], [1.0, -1.0], [1.0, 0.0]]);
        let phases = arr1(&[0.0, 0.0, FRAC_PI_2, FRAC_PI_2, FRAC_PI_2]);
        let output =
            arr2(&[[a / 2.0, a / 2.0, 0.0, 0.0, 0.0], [0.0, 0.0, -b / 2.0, b / 2.0, 0.0], [0.0, 0.0, 0.0, 0.0, c]]);
        Self::of(vec![sines(angles, phases, output)])
    }

    /// A torus with radii R (to the tube's centre) and r (of the tube):
    /// (u, v) ↦ ((R + r cos v) cos u, (R + r cos v) sin u, r sin v). G = diag((R + r cos v)², r²).
    pub fn torus(major: f64, minor: f64) -> Self {
        let (large, half) = (major, minor / 2.0);
        let angles = arr2(&[[1.0, 0.0], [1.0, 1.0], [1.0, -1.0], [1.0, 0.0], [1.0, 1.0], [1.0, -1.0], [0.0, 1.0]]);
        let phases = arr1(&[FRAC_PI_2, FRAC_PI_2, FRAC_PI_2, 0.0, 0.0, 0.0, 0.0]);
        let output = arr2(&[
            [large, half, half, 0.0, 0.0, 0.0, 0.0],
            [0.0, 0.0, 0.0, large, half, half, 0.0],
            [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, minor],
        ]);
        Self::of(vec![sines(angles, phases, output)])
    }

    /// The flat torus in R⁴: (u, v) ↦ (r₁ cos u, r₁ sin u, r₂ cos v, r₂ sin v). G = diag(r₁², r₂²): straight lines are geodesics.
    pub fn clifford_torus(first: f64, second: f64) -> Self {
        let angles = arr2(&[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]);
        let phases = arr1(&[FRAC_PI_2, 0.0, FRAC_PI_2, 0.0]);
        let output = Array2::from_diag(&arr1(&[first, first, second, second]));
        Self::of(vec![sines(angles, phases, output)])
    }

    /// A cylinder of the given radius r: (u, h) ↦ (r cos u, r sin u, h). G = diag(r², 1).
    pub fn cylinder(radius: f64) -> Self {
        let round =
            sines(arr2(&[[1.0, 0.0], [1.0, 0.0]]), arr1(&[FRAC_PI_2, 0.0]), arr2(&[[radius, 0.0], [0.0, radius]]));
        let height = Layer { weight: arr2(&[[0.0, 1.0]]), bias: arr1(&[0.0]), activation: Activation::Identity };
        Self::of(vec![round, Head { name: "height".into(), layers: vec![height], scale: None }])
    }
}
