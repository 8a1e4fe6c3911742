//! Geodesics of decoders with kinks, by way of smooth ones.
//!
//! The energy of a decoder with relu has kinks where any of a curve's points crosses any unit's zero: the derivative on one side does not
//! tell what is on the other, and a search by derivatives ends at one of them. With relu rounded to softplus(β h)/β it does not, and for
//! large β the curves are the same. So one is solved from the other, β growing from stage to stage.

use std::ops::ControlFlow;

use ndarray::{Array3, Axis, Slice, Zip};

use super::Model;
use crate::error::{Error, Result};
use crate::geodesic::backend::Initial;
use crate::geodesic::initial::straight_line;
use crate::geodesic::{Geodesics, Options, Status};
use crate::scalar::Scalar;

/// Sharpness β of every stage, in units of 1 / size of the pre-activations.
const SHARPNESS: [f64; 3] = [16.0, 64.0, 256.0];
/// Share of the iterations that a stage before the last may take.
const EARLY_SHARE: u32 = 4;
/// Tolerance of the stages before the last: the next one moves their curves anyway.
const EARLY_TOLERANCE: f64 = 1e-4;
/// Fewer iterations are left to the decoder as it is.
pub(super) const LEAST_ITERATIONS: u32 = 40;
/// Curves whose energies are computed together.
const BATCH: usize = 4096;

/// [`Model::solve`] of a decoder with kinks.
pub(super) fn solve<'a, T: Scalar>(
    model: &Model<T>,
    count: usize,
    options: &Options,
    initial: &(dyn Fn(usize) -> Initial<'a, T> + Sync),
    progress: &(dyn Fn(usize, usize) -> ControlFlow<()> + Sync),
) -> Result<(Geodesics<T>, Option<f64>)> {
    let stages = stages(model)?;
    let stage_count = stages.len();
    let early = Options {
        max_iterations: options.max_iterations / EARLY_SHARE,
        tolerance: Some(options.tolerance.unwrap_or(0.0).max(EARLY_TOLERANCE)),
        ..options.clone()
    };
    let last = Options {
        max_iterations: options.max_iterations - (stage_count as u32 - 1) * early.max_iterations,
        coarse_to_fine: false,
        ..options.clone()
    };
    let mut found: Option<(Geodesics<T>, Option<f64>)> = None;
    for (k, stage) in stages.iter().enumerate() {
        let of_all = |finished: usize| (k * count + finished) / stage_count;
        let progress = |finished: usize, _: usize| progress(of_all(finished), count);
        let on_grids = if k == 0 { &early } else { &Options { coarse_to_fine: false, ..early.clone() } };
        let options = if k + 1 < stage_count { on_grids } else { &last };
        let outcome = match &found {
            None => stage.solve_once(count, options, initial, &progress),
            Some((before, _)) => {
                let curve = |job: usize| Initial::Curve(row(&before.curves, job));
                stage.solve_once(count, options, &curve, &progress)
            }
        };
        let (mut geodesics, mut seconds) = outcome.map_err(|error| match error {
            Error::Cancelled { finished, total } => Error::Cancelled { finished: of_all(finished), total },
            other => other,
        })?;
        if let Some((before, seconds_before)) = &found {
            geodesics.iterations += &before.iterations;
            seconds = seconds.zip(*seconds_before).map(|(a, b)| a + b);
        }
        found = Some((geodesics, seconds));
    }
    let Some((mut geodesics, mut seconds)) = found else {
        return model.solve_once(count, options, initial, progress);
    };
    let above = measure(model, &mut geodesics)?;
    if !above.is_empty() {
        // From where they started; on a device pairs stand by their number among all, so the ends are taken from the curves.
        #[cfg(any(feature = "cuda", feature = "emulator"))]
        let ends = geodesics.curves.select(Axis(0), &above);
        let again = |k: usize| match initial(above[k]) {
            #[cfg(any(feature = "cuda", feature = "emulator"))]
            Initial::OnDevice(..) => {
                let (curve, d) = (row(&ends, k), model.decoder.latent_dim());
                Initial::Line(&curve[..d], &curve[curve.len() - d..])
            }
            host => host,
        };
        let outcome = model.solve_once(above.len(), options, &again, &|_, _| ControlFlow::Continue(()))?;
        for (k, &job) in above.iter().enumerate() {
            take(&outcome.0, k, &mut geodesics, job);
        }
        seconds = seconds.zip(outcome.1).map(|(a, b)| a + b);
    }
    Ok((geodesics, seconds))
}

/// The smooth neighbours, each sharper than the one before.
fn stages<T: Scalar>(model: &Model<T>) -> Result<&[Model<T>]> {
    if let Some(stages) = model.softened.get() {
        return Ok(stages);
    }
    let made = SHARPNESS.iter().map(|&sharpness| model.load(&model.decoder.softened(sharpness)));
    let made = made.collect::<Result<Vec<_>>>()?;
    Ok(model.softened.get_or_init(|| made))
}

/// Puts the decoder's own energies and lengths in place of the smooth one's; returns the curves that are above the straight line
/// between their ends, or were not finite in a smooth one's eyes.
fn measure<T: Scalar>(model: &Model<T>, geodesics: &mut Geodesics<T>) -> Result<Vec<usize>> {
    let (count, points, d) = geodesics.curves.dim();
    let mut above = Vec::new();
    for from in (0..count).step_by(BATCH) {
        let part = Slice::from(from..count.min(from + BATCH));
        let curves = geodesics.curves.slice_axis(Axis(0), part);
        let mut lines = Array3::from_elem(curves.dim(), T::ZERO);
        for (mut line, curve) in lines.outer_iter_mut().zip(curves.outer_iter()) {
            if let (Some(line), Some(curve)) = (line.as_slice_mut(), curve.as_slice()) {
                straight_line(&curve[..d], &curve[(points - 1) * d..], line);
            }
        }
        let (own, straight) = (model.energy(curves)?, model.energy(lines.view())?);
        let not_above = |k: usize| own.energy[k - from] <= straight.energy[k - from];
        let good = |k: usize| not_above(k) && geodesics.status[k] != Status::NonFinite;
        above.extend((from..from + own.energy.len()).filter(|&k| !good(k)));
        Zip::from(geodesics.energy.slice_axis_mut(Axis(0), part)).and(&own.energy).for_each(|to, &e| *to = e);
        Zip::from(geodesics.length.slice_axis_mut(Axis(0), part)).and(&own.length).for_each(|to, &l| *to = l);
    }
    Ok(above)
}

/// Curve `job`, `[points · d]`.
fn row<T: Scalar>(curves: &Array3<T>, job: usize) -> &[T] {
    let (_, points, d) = curves.dim();
    &curves.as_slice().unwrap_or_default()[job * points * d..(job + 1) * points * d]
}

/// Puts curve `k` of a result in the place of curve `job` of another.
fn take<T: Scalar>(from: &Geodesics<T>, k: usize, to: &mut Geodesics<T>, job: usize) {
    to.curves.index_axis_mut(Axis(0), job).assign(&from.curves.index_axis(Axis(0), k));
    to.energy[job] = from.energy[k];
    to.length[job] = from.length[k];
    to.gradient_norm[job] = from.gradient_norm[k];
    to.iterations[job] = from.iterations[k];
    to.status[job] = from.status[k];
}
