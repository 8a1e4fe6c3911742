//! One thing varied while the others stay.

use super::cases::{Figure, Operation, Plan};
use super::subjects::Subject;
use super::{Models, SEGMENTS};
use crate::error::{Error, Result};
use crate::model::Model;

/// What is varied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Sweep {
    /// Latents.
    D,
    /// Of the hidden layers.
    Width,
    /// Hidden layers.
    Depth,
    /// D.
    Outputs,
    /// N.
    Segments,
    /// C.
    Curves,
}

impl Sweep {
    pub const ALL: [Self; 6] = [Self::D, Self::Width, Self::Depth, Self::Outputs, Self::Segments, Self::Curves];

    pub fn name(self) -> &'static str {
        match self {
            Self::D => "d",
            Self::Width => "width",
            Self::Depth => "depth",
            Self::Outputs => "outputs",
            Self::Segments => "segments",
            Self::Curves => "curves",
        }
    }

    /// What an axis of a picture says.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::D => "latents d",
            Self::Width => "width of hidden layers",
            Self::Depth => "hidden layers",
            Self::Outputs => "outputs D",
            Self::Segments => "segments N",
            Self::Curves => "curves C",
        }
    }

    /// Whether it is measured for every subject, and not for decoders of its own.
    pub(super) fn is_of_subjects(self) -> bool {
        matches!(self, Self::Segments | Self::Curves)
    }

    fn values(self, plan: &Plan<'_>) -> &'static [usize] {
        if plan.is_small() {
            return &[2, 3];
        }
        match self {
            Self::D => &[1, 2, 4, 8, 16, 32],
            Self::Width => &[32, 64, 128, 256, 512],
            Self::Depth => &[1, 2, 3, 4],
            Self::Outputs => &[16, 64, 256, 1024, 4096],
            Self::Segments => &[8, 16, 32, 64, 128],
            Self::Curves => &[10, 100, 1_000, 10_000, 100_000, 1_000_000],
        }
    }

    /// Figures by value: metrics of random decoders, or geodesics of the subjects that are not; each is handed out as it is measured.
    pub(super) fn measure(
        self,
        plan: &Plan<'_>,
        subjects: &[Subject],
        models: &Models<'_>,
        mut add: impl FnMut(usize, Figure) -> Result<()>,
    ) -> Result<()> {
        if self.is_of_subjects() {
            for subject in subjects.iter().filter(|subject| !subject.is_random) {
                models.each(&subject.decoder, |model| self.geodesics(plan, subject, model, &mut add))?;
            }
            return Ok(());
        }
        for &value in self.values(plan) {
            let (mut d, mut width, mut depth, mut outputs) = (8, 128, 2, 256);
            match self {
                Self::D => d = value,
                Self::Width => width = value,
                Self::Depth => depth = value,
                _ => outputs = value,
            }
            let mut widths = vec![d];
            widths.extend(std::iter::repeat_n(width, depth));
            widths.push(outputs);
            let subject = Subject::random(&widths)?;
            let mut done = Vec::new();
            models.each(&subject.decoder, |model| {
                let precision = Operation::Metric.precision(model.precision());
                if done.contains(&precision) {
                    return Ok(());
                }
                done.push(precision);
                add(value, plan.measure(model, &subject, Operation::Metric, 2, None)?)
            })?;
        }
        Ok(())
    }

    /// Geodesics for every value; a number of curves that would take too long by the rate of the last one is left out, and so is one that
    /// the device has no memory for.
    fn geodesics(
        self,
        plan: &Plan<'_>,
        subject: &Subject,
        model: &Model,
        add: &mut impl FnMut(usize, Figure) -> Result<()>,
    ) -> Result<()> {
        let mut rate: Option<f64> = None;
        for &value in self.values(plan) {
            let (segments, count) = match (self, plan.is_small()) {
                (Self::Segments, is_small) => (value, if is_small { 3 } else { 256 }),
                (_, is_small) => (if is_small { 4 } else { SEGMENTS }, value),
            };
            let left_out = |why| Plan::left_out(model, subject, Operation::Geodesics, (segments, count), why);
            let expected = rate.filter(|_| self == Self::Curves).map(|rate| count as f64 / rate);
            let figure = match expected.filter(|&seconds| seconds > plan.limit) {
                Some(seconds) => left_out(too_long(seconds)),
                None => match plan.measure(model, subject, Operation::Geodesics, segments, Some(count)) {
                    Err(error @ Error::OutOfMemory { .. }) => left_out(error.to_string()),
                    measured => measured?,
                },
            };
            rate = figure.rate().or(rate);
            add(value, figure)?;
        }
        Ok(())
    }
}

/// Why so many seconds are not spent.
fn too_long(seconds: f64) -> String {
    if seconds < 10.0 {
        format!("it would take about {seconds:.2} s")
    } else {
        format!("it would take about {seconds:.0} s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_says_how_long_it_would_take() {
        assert_eq!(too_long(80.04), "it would take about 80 s");
        assert_eq!(too_long(1.234), "it would take about 1.23 s");
    }
}
