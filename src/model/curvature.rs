//! Second derivatives and curvature of the decoder's surface.

use ndarray::{Array1, Array2, ArrayView2};

use super::engine::Engine;
#[cfg(any(feature = "cuda", feature = "emulator"))]
use super::engine::{from_device, in_pieces, to_device};
use super::{Model, array2, beside, numbers};
use crate::cpu::curvature::{Products, Question, write_plane};
use crate::decoder::Geometry;
use crate::error::{Error, Result};
use crate::scalar::Scalar;
#[cfg(any(feature = "cuda", feature = "emulator"))]
use crate::{
    cpu::curvature::{Table, across, scalar_of_frame, write_frame},
    cuda::{curvature::ProductLayout, jet::Jet},
};

/// All are NaN where the latent or a vector is not finite, and where the metric is singular to working precision, as for [`Model::log_volume`].
impl<T: Scalar> Model<T> {
    /// The second fundamental form II(u, v), the part of ∂²f[u, v] across the surface: latents and vectors `[P, d]` to `[P, D]`.
    ///
    /// On a curve of constant speed v, II(v, v) is the acceleration that the surface itself asks for.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the latents' width is not d, or u or v is not `[P, d]`; [`Error::Decoder`] under the Fisher–Rao metric of Gaussian outputs.
    pub fn second_fundamental_form(
        &self,
        latents: ArrayView2<'_, T>,
        u: ArrayView2<'_, T>,
        v: ArrayView2<'_, T>,
    ) -> Result<Array2<T>> {
        let latents = self.latents(latents)?;
        let [u, v] = [("u", u), ("v", v)].map(|(what, rows)| beside(what, rows, latents.nrows(), latents.ncols()));
        let (u, v) = (u?, v?);
        self.check_extrinsic("second fundamental form")?;
        let form = self.engine.second_fundamental_form(numbers(&latents), numbers(&u), numbers(&v))?;
        Ok(array2(latents.nrows(), self.decoder.data_dim(), form))
    }

    /// The sectional curvature K of the plane of u and v: latents and vectors `[P, d]` to `[P]`, in 1/(units of the data space)².
    ///
    /// By Gauss's equation, K = (⟨II(u, u), II(v, v)⟩ − ‖II(u, v)‖²) / (‖u‖² ‖v‖² − ⟨u, v⟩²). It does not depend on the lengths of u and v or
    /// on the angle between them; NaN where they span no plane.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the latents' width is not d, or u or v is not `[P, d]`; [`Error::Decoder`] under the Fisher–Rao metric of Gaussian outputs.
    pub fn sectional_curvature(
        &self,
        latents: ArrayView2<'_, T>,
        u: ArrayView2<'_, T>,
        v: ArrayView2<'_, T>,
    ) -> Result<Array1<T>> {
        let latents = self.latents(latents)?;
        let [u, v] = [("u", u), ("v", v)].map(|(what, rows)| beside(what, rows, latents.nrows(), latents.ncols()));
        let (u, v) = (u?, v?);
        self.check_extrinsic("sectional curvature")?;
        let d = latents.ncols();
        let found = self.engine.of_products(
            [&latents, &u, &v].map(numbers),
            1,
            Question { vectors: 2, curved: 2 },
            |[_, u, v], room| write_plane(u, v, room),
            |products, out| out[0] = T::from_f64(products.gauss([d, d + 1])),
        )?;
        Ok(Array1::from_vec(found))
    }

    /// The Gaussian curvature of a surface with two latents: latents `[P, 2]` to `[P]`, in 1/(units of the data space)².
    ///
    /// ```
    /// use ndarray::array;
    /// use pullback::{Decoder, Device};
    ///
    /// let model = Device::cpu().load_as::<f64>(&Decoder::sphere(2.0))?;
    /// let found = model.gaussian_curvature(array![[0.5, 0.1]].view())?; // 1/r²
    /// assert!((found[0] - 0.25).abs() < 1e-12);
    /// # Ok::<(), pullback::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the decoder has another number of latents than 2, or the latents' width is not 2;
    /// [`Error::Decoder`] under the Fisher–Rao metric of Gaussian outputs.
    pub fn gaussian_curvature(&self, latents: ArrayView2<'_, T>) -> Result<Array1<T>> {
        if self.decoder.latent_dim() != 2 {
            return Err(Error::Shape {
                what: "Gaussian curvature".into(),
                expected: "a decoder of 2 latents (for others there are sectional and scalar curvature)".into(),
                found: self.decoder.latent_dim().to_string(),
            });
        }
        let latents = self.latents(latents)?;
        self.check_extrinsic("Gaussian curvature")?;
        let found = self.engine.of_products(
            [numbers(&latents)],
            1,
            Question { vectors: 0, curved: 2 },
            |_, _| {},
            |products, out| out[0] = T::from_f64(products.gauss([0, 1])),
        )?;
        Ok(Array1::from_vec(found))
    }

    /// The scalar curvature Σ_{a ≠ b} K(e_a, e_b) over an orthonormal frame e: latents `[P, d]` to `[P]`, in 1/(units of the data space)².
    ///
    /// It is twice the Gaussian curvature for d = 2, and 0 for d = 1. By Gauss's equation it is ‖Σ_a II(e_a, e_a)‖² − Σ_ab ‖II(e_a, e_b)‖²,
    /// and costs d(d + 1)/2 second-order rows through the layers.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the latents' width is not d; [`Error::Decoder`] under the Fisher–Rao metric of Gaussian outputs.
    pub fn scalar_curvature(&self, latents: ArrayView2<'_, T>) -> Result<Array1<T>> {
        let latents = self.latents(latents)?;
        self.check_extrinsic("scalar curvature")?;
        Ok(Array1::from_vec(self.engine.scalar_curvature(numbers(&latents))?))
    }

    /// The acceleration z̈ = −G⁻¹ Jᵀ ∂²f[ż, ż] of a geodesic: latents and velocities `[P, d]` to `[P, d]`.
    ///
    /// That is −Γ(ż, ż) with Christoffel's symbols Γ, without a derivative of G: one second-order row through the layers.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the latents' width is not d, or the velocities are not `[P, d]`; [`Error::Decoder`] under the Fisher–Rao metric of Gaussian outputs.
    pub fn geodesic_acceleration(
        &self,
        latents: ArrayView2<'_, T>,
        velocities: ArrayView2<'_, T>,
    ) -> Result<Array2<T>> {
        let latents = self.latents(latents)?;
        let velocities = beside("velocities", velocities, latents.nrows(), latents.ncols())?;
        self.check_extrinsic("geodesic acceleration")?;
        let d = latents.ncols();
        let accelerations = self.engine.of_products(
            [&latents, &velocities].map(numbers),
            d,
            Question { vectors: 1, curved: 1 },
            |[_, velocity], room| room.copy_from_slice(velocity),
            |products, out| products.acceleration(out),
        )?;
        Ok(array2(latents.nrows(), d, accelerations))
    }

    /// Second derivatives are measured in Euclidean space.
    fn check_extrinsic(&self, operation: &str) -> Result<()> {
        if self.decoder.geometry() != Geometry::Gaussian {
            return Ok(());
        }
        Err(Error::Decoder(format!(
            "{operation}: expected Euclidean chords between outputs, found the Fisher–Rao metric of gaussian outputs"
        )))
    }
}

impl<T: Scalar> Engine<T> {
    /// What `measure` makes, `width` numbers a point, of the inner products of derivatives along the latents and the vectors that `write`
    /// makes of the point's rows of the inputs `[P, d]`, the first of which are the latents.
    fn of_products<const I: usize>(
        &self,
        inputs: [&[T]; I],
        width: usize,
        question: Question,
        write: impl Fn([&[T]; I], &mut [T]) + Sync + Send,
        measure: impl Fn(Products<'_, T>, &mut [T]) + Sync + Send,
    ) -> Result<Vec<T>> {
        let d = self.latent_dim();
        let inputs = inputs.map(|rows| (rows, d));
        match self {
            Self::Cpu(model) => Ok(model.of_products(inputs, width, question, write, measure)),
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Self::Cuda { model, .. } => {
                let Question { vectors, curved } = question;
                let jet = Jet { has_axes: true, vectors, curved, has_sum: false };
                let layout = ProductLayout::new(jet, d);
                let ask = |inputs: [&[T]; I]| {
                    let mut rows = vec![T::ZERO; inputs[0].len() * vectors];
                    for (p, room) in rows.chunks_exact_mut((vectors * d).max(1)).enumerate() {
                        write(inputs.map(|rows| &rows[p * d..(p + 1) * d]), room);
                    }
                    from_device(model.jet_products(to_device(inputs[0])?, to_device(&rows)?, jet)?)
                };
                let [out] = in_pieces(layout.width(), inputs, [width], ask, |numbers, _, [out]| {
                    for (numbers, out) in numbers.chunks_exact(layout.width()).zip(out.chunks_exact_mut(width)) {
                        let table = |from: usize, stride| Table { numbers: &numbers[from..], stride };
                        let tangents = table(0, layout.tangents);
                        let cross = table(layout.cross(), layout.tangents);
                        let seconds = table(layout.seconds(), layout.pairs);
                        measure(Products { d, tangents, cross, seconds }, out);
                    }
                })?;
                Ok(out)
            }
        }
    }

    /// II(u, v).
    fn second_fundamental_form(&self, latents: &[T], u: &[T], v: &[T]) -> Result<Vec<T>> {
        match self {
            Self::Cpu(model) => Ok(model.second_fundamental_form(latents, u, v)),
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Self::Cuda { model, dims } => {
                let (d, width) = (dims.latent, dims.data);
                // J and ∂²f[u, v] of every point.
                let ask = |[latents, u, v]: [&[T]; 3]| {
                    let columns = self.jacobian(latents)?;
                    let seconds = model.second_derivatives(to_device(latents)?, to_device(u)?, to_device(v)?)?;
                    let seconds: Vec<T> = from_device(seconds)?;
                    let rows = columns.chunks_exact(d * width).zip(seconds.chunks_exact(3 * width));
                    Ok(rows.flat_map(|(columns, seconds)| [columns, &seconds[width..2 * width]].concat()).collect())
                };
                let inputs = [latents, u, v].map(|rows| (rows, d));
                let [out] = in_pieces((d + 1) * width, inputs, [width], ask, |numbers, _, [out]| {
                    for (numbers, out) in numbers.chunks_exact((d + 1) * width).zip(out.chunks_exact_mut(width)) {
                        let (columns, second) = numbers.split_at(d * width);
                        out.copy_from_slice(second);
                        across(columns, out);
                    }
                })?;
                Ok(out)
            }
        }
    }

    /// Σ_{a ≠ b} K(e_a, e_b), by second derivatives along a frame that is orthonormal in G.
    fn scalar_curvature(&self, latents: &[T]) -> Result<Vec<T>> {
        match self {
            Self::Cpu(model) => Ok(model.scalar_curvature(latents)),
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Self::Cuda { model, dims } => {
                let d = dims.latent;
                let jet = Jet { has_axes: false, vectors: d, curved: d, has_sum: true };
                let layout = ProductLayout::new(jet, d);
                let ask = |[latents]: [&[T]; 1]| {
                    let mut frames = self.metric(latents)?;
                    for frame in frames.chunks_exact_mut(d * d) {
                        let metric = frame.to_vec();
                        write_frame(d, &metric, frame);
                    }
                    from_device(model.jet_products(to_device(latents)?, to_device(&frames)?, jet)?)
                };
                let [out] = in_pieces(layout.width(), [(latents, d)], [1], ask, |numbers, _, [out]| {
                    for (numbers, out) in numbers.chunks_exact(layout.width()).zip(out) {
                        let (metric, rest) = numbers.split_at(layout.cross());
                        let (products, squares) = rest.split_at(layout.seconds() - layout.cross());
                        *out = T::from_f64(scalar_of_frame(d, metric, products, squares));
                    }
                })?;
                Ok(out)
            }
        }
    }
}
