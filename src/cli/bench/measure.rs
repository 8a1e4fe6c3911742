//! Repeated measurements of one call.

use std::time::Instant;

use serde_json::{Value, json};

use super::super::session::check_interrupt;
use crate::error::Result;

/// A repeat takes at least so long, in seconds: short calls are made several times in it.
const LEAST: f64 = 0.02;

/// Seconds of a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    pub median: f64,
    pub least: f64,
    pub most: f64,
    pub repeats: usize,
    /// Of the median call, in a device's kernels; `None` on the processor.
    pub in_kernels: Option<f64>,
}

impl Timing {
    /// Of one call that is made once to warm up and then `repeats` times. `kernels` reads a clock of the device.
    pub fn of(
        repeats: usize,
        quick: bool,
        kernels: impl Fn() -> Option<f64>,
        mut call: impl FnMut() -> Result<()>,
    ) -> Result<Self> {
        call()?;
        let began = Instant::now();
        call()?;
        let least = if quick { 0.0 } else { LEAST };
        let calls = (least / began.elapsed().as_secs_f64().max(1e-7)).ceil().clamp(1.0, 1e4) as usize;
        let mut seconds = Vec::with_capacity(repeats);
        let before = kernels();
        for done in 0..repeats {
            check_interrupt(done, repeats)?;
            let began = Instant::now();
            for _ in 0..calls {
                call()?;
            }
            seconds.push(began.elapsed().as_secs_f64() / calls as f64);
        }
        let in_kernels = kernels().zip(before).map(|(after, before)| (after - before) / (calls * repeats) as f64);
        seconds.sort_by(f64::total_cmp);
        let at = |k: usize| seconds.get(k).copied().unwrap_or(f64::NAN);
        Ok(Self { median: at(repeats / 2), least: at(0), most: at(repeats.saturating_sub(1)), repeats, in_kernels })
    }

    /// Half of what the extremes are apart, as a share of the median.
    pub fn spread(&self) -> f64 {
        0.5 * (self.most - self.least) / self.median
    }

    pub fn record(&self) -> Value {
        json!({
            "median_seconds": self.median,
            "least_seconds": self.least,
            "most_seconds": self.most,
            "repeats": self.repeats,
            "seconds_in_kernels": self.in_kernels,
        })
    }
}

/// The most memory that this process has had, where the system tells.
pub(super) fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_made_for_every_repeat_and_timed() {
        let mut calls = 0;
        let timing = Timing::of(
            5,
            true,
            || None,
            || {
                calls += 1;
                std::thread::sleep(std::time::Duration::from_millis(2));
                Ok(())
            },
        );
        let timing = timing.unwrap();
        assert_eq!((calls, timing.repeats, timing.in_kernels), (7, 5, None));
        assert!(0.002 <= timing.least && timing.least <= timing.median && timing.median <= timing.most);
    }
}
