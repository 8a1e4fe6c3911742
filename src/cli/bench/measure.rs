//! Repeated measurements of one call, and of the memory that it takes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde_json::{Value, json};

use super::super::session::check_interrupt;
use crate::device::Device;
use crate::error::Result;

/// A repeat takes at least so long, in seconds: short calls are made several times in it.
const LEAST: f64 = 0.02;
/// Of calls that take longer there are fewer repeats, such that all of them take as long as repeats of this length would.
const LONG: f64 = 2.0;

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
    /// Of one call that is made once to warm up and then `repeats` times, or less often where it takes long. `kernels` reads a clock of
    /// the device.
    pub fn of(
        repeats: usize,
        quick: bool,
        kernels: impl Fn() -> Option<f64>,
        mut call: impl FnMut() -> Result<()>,
    ) -> Result<Self> {
        call()?;
        let mut timed = |calls: usize| -> Result<(f64, Option<f64>)> {
            let (before, began) = (kernels(), Instant::now());
            for _ in 0..calls {
                call()?;
            }
            let each = |seconds: f64| seconds / calls as f64;
            let seconds = each(began.elapsed().as_secs_f64());
            Ok((seconds, kernels().zip(before).map(|(after, before)| each(after - before))))
        };
        check_interrupt(0, repeats)?;
        let first = timed(1)?;
        let least = if quick { 0.0 } else { LEAST };
        let calls = (least / first.0.max(1e-7)).ceil().clamp(1.0, 1e4) as usize;
        let repeats = fewer(repeats, first.0);
        let mut samples = Vec::with_capacity(repeats);
        samples.extend((calls == 1).then_some(first));
        while samples.len() < repeats {
            check_interrupt(samples.len(), repeats)?;
            samples.push(timed(calls)?);
        }
        samples.sort_by(|a, b| a.0.total_cmp(&b.0));
        let at = |k: usize| samples.get(k).copied().unwrap_or((f64::NAN, None));
        let (median, in_kernels) = at(repeats / 2);
        Ok(Self { median, least: at(0).0, most: at(repeats.saturating_sub(1)).0, repeats, in_kernels })
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

/// Repeats of a call of so many seconds, at least one, where so many were asked for.
fn fewer(repeats: usize, seconds: f64) -> usize {
    ((LONG * repeats as f64 / seconds.max(LONG)) as usize).clamp(1, repeats.max(1))
}

/// The most of a device's memory that is taken while somebody looks.
pub(super) struct Watch<'a> {
    device: &'a Device,
    /// Free bytes at the beginning; `None` on the processor.
    before: Option<u64>,
    least: AtomicU64,
}

impl<'a> Watch<'a> {
    pub fn new(device: &'a Device) -> Result<Self> {
        let before = device.free_memory()?;
        Ok(Self { device, before, least: AtomicU64::new(before.unwrap_or(0)) })
    }

    /// Looks. Where the driver does not tell, nothing was seen: whatever is wrong, the call that is watched will say so.
    pub fn look(&self) {
        if let Ok(Some(free)) = self.device.free_memory() {
            self.least.fetch_min(free, Ordering::Relaxed);
        }
    }

    /// Bytes, more than at the beginning.
    pub fn most(&self) -> Option<u64> {
        self.before.map(|before| before - self.least.load(Ordering::Relaxed))
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
    use std::cell::Cell;
    use std::time::Duration;

    use super::*;

    /// Once to warm up, once for every repeat; the device's clock is read around each.
    #[test]
    fn a_call_is_made_for_every_repeat_and_timed() {
        let (calls, clock) = (Cell::new(0), Cell::new(0.0));
        let call = || {
            calls.set(calls.get() + 1);
            clock.set(clock.get() + 0.5);
            std::thread::sleep(Duration::from_millis(2));
            Ok(())
        };
        let timing = Timing::of(5, true, || Some(clock.get()), call).unwrap();
        assert_eq!((calls.get(), timing.repeats, timing.in_kernels), (6, 5, Some(0.5)));
        assert!(0.002 <= timing.least && timing.least <= timing.median && timing.median <= timing.most);
        assert_eq!(Timing::of(1, true, || None, || Ok(())).unwrap().in_kernels, None);
    }

    #[test]
    fn long_calls_are_repeated_less_often() {
        let found = [0.001, 2.0, 3.0, 8.0, 30.0].map(|seconds| fewer(7, seconds));
        assert_eq!(found, [7, 7, 4, 1, 1]);
        assert_eq!((fewer(1, 0.1), fewer(1, 9.0)), (1, 1));
    }
}
