//! What is told of an array once all of it has been written.

use crate::cli::solve::thousands;

/// The range of a quantity's numbers, and the points where it is not finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tally {
    low: f64,
    high: f64,
    pub not_finite: usize,
}

impl Tally {
    pub const EMPTY: Self = Self { low: f64::INFINITY, high: f64::NEG_INFINITY, not_finite: 0 };

    /// Takes in one point's numbers; tells whether they are finite.
    pub fn add(&mut self, numbers: impl IntoIterator<Item = f64>) -> bool {
        let (mut low, mut high, mut finite) = (f64::INFINITY, f64::NEG_INFINITY, true);
        for number in numbers {
            finite &= number.is_finite();
            (low, high) = (low.min(number), high.max(number));
        }
        if finite {
            (self.low, self.high) = (self.low.min(low), self.high.max(high));
        } else {
            self.not_finite += 1;
        }
        finite
    }

    /// The least and the greatest number at points where all are finite.
    pub fn range(&self) -> Option<[f64; 2]> {
        (self.low <= self.high).then_some([self.low, self.high])
    }

    /// For people: `0.1 to 4` where the range is to be told, and the points that are not finite where there are some.
    pub fn line(&self, with_range: bool) -> String {
        let mut parts = Vec::new();
        if let Some([low, high]) = self.range().filter(|_| with_range) {
            parts.push(if low == high { number(low) } else { format!("{} to {}", number(low), number(high)) });
        }
        if self.not_finite > 0 {
            let s = if self.not_finite == 1 { "" } else { "s" };
            parts.push(format!("not finite at {} point{s}", thousands(self.not_finite)));
        }
        if parts.is_empty() {
            parts.push("finite everywhere".into());
        }
        parts.join(", ")
    }
}

/// Four digits, without an exponent where that is readable.
pub(super) fn number(x: f64) -> String {
    match x.abs() {
        size if x.fract() == 0.0 && size < 1e6 => format!("{x}"),
        size if (1e-3..1e5).contains(&size) => {
            let decimals = (3 - size.log10().floor() as i32).max(0) as usize;
            // Zeros at the end stand for digits that were rounded.
            let (rounded, exact) = (format!("{x:.decimals$}"), x.to_string());
            if exact.len() < rounded.len() { exact } else { rounded }
        }
        _ => format!("{x:.3e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        let found = [0.0, 2.0, 0.3, 1.9999, -4.01456, 0.13432, 10.0151, 23456.7, 1.23456e-7, 3.2e8].map(number);
        assert_eq!(found, ["0", "2", "0.3", "2.000", "-4.015", "0.1343", "10.02", "23457", "1.235e-7", "3.200e8"]);
    }

    #[test]
    fn a_point_is_finite_only_as_a_whole() {
        let mut tally = Tally::EMPTY;
        assert_eq!(tally.line(true), "finite everywhere");
        assert!(tally.add([1.0, 3.0]));
        assert!(!tally.add([9.0, f64::NAN]));
        assert!(!tally.add([f64::NEG_INFINITY]));
        assert_eq!((tally.range(), tally.not_finite), (Some([1.0, 3.0]), 2));
        assert_eq!(tally.line(true), "1 to 3, not finite at 2 points");
        assert_eq!(tally.line(false), "not finite at 2 points");
    }
}
