//! `--device` and `--precision`: the device that a name stands for, and a decoder on it.

use std::fmt;
use std::str::FromStr;

use super::args::{DeviceArgs, MachineArgs, PrintArgs};
use crate::decoder::Decoder;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::precision::Precision;

/// A device as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeviceName {
    /// A GPU where there is one that can be used, otherwise the processor.
    Auto,
    Cpu,
    /// A GPU by its number; `None` for the first, where no number was given.
    Cuda(Option<usize>),
    Emulator,
}

impl FromStr for DeviceName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(None)),
            "emulator" => Ok(Self::Emulator),
            _ => {
                let number = text.strip_prefix("cuda:").filter(|n| n.bytes().all(|b| b.is_ascii_digit()));
                let number = number.and_then(|n| n.parse().ok());
                number.map(|n| Self::Cuda(Some(n))).ok_or("expected cpu, cuda, cuda:N, auto or emulator")
            }
        }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(None) => f.write_str("cuda"),
            Self::Cuda(Some(number)) => write!(f, "cuda:{number}"),
            Self::Emulator => f.write_str("emulator"),
        }
    }
}

impl DeviceArgs {
    /// Sets up the processor's threads: before anything is computed.
    pub fn start_threads(&self) -> Result<()> {
        let Some(threads) = self.threads else { return Ok(()) };
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()
            .map_err(|e| Error::Device(format!("--threads {threads}: {e}")))
    }

    /// The device; a line on stderr where `auto` had to do without a GPU.
    pub fn open(&self, print: PrintArgs) -> Result<Device> {
        match self.device {
            DeviceName::Auto => Ok(Device::cuda(0).unwrap_or_else(|reason| {
                print.note(&format!("running on the processor: {}", first_line(&reason)));
                Device::cpu()
            })),
            DeviceName::Cpu => Ok(Device::cpu()),
            DeviceName::Cuda(number) => {
                Device::cuda(number.unwrap_or(0)).map_err(|error| named(&self.device.to_string(), error))
            }
            DeviceName::Emulator => emulator(),
        }
    }

    /// The device, which must run kernels: `what` asks for that, and `expected` says how it can be had.
    pub fn open_for_kernels(&self, what: &str, expected: &str) -> Result<Device> {
        let refuse = |reason: &str| Error::Device(format!("{what}: expected {expected}, found the processor{reason}"));
        match self.device {
            DeviceName::Auto => Device::cuda(0).map_err(|reason| refuse(&format!(" ({})", first_line(&reason)))),
            DeviceName::Cpu => Err(refuse("")),
            DeviceName::Cuda(_) | DeviceName::Emulator => self.open(PrintArgs { json: false, quiet: true }),
        }
    }
}

impl MachineArgs {
    /// As [`DeviceArgs::start_threads`].
    pub fn start_threads(&self) -> Result<()> {
        self.device.start_threads()
    }

    /// As [`DeviceArgs::open`], with an error where the processor cannot do what `--precision` asks for.
    pub fn open(&self, print: PrintArgs) -> Result<Device> {
        match self.precision {
            None | Some(Precision::Float32) => self.device.open(print),
            Some(precision) => {
                let what = format!("--precision {precision}");
                self.device.open_for_kernels(&what, "a GPU, `--device emulator` or float32")
            }
        }
    }

    /// The decoder on the device; a line on stderr where another precision than the one asked for is used.
    pub fn load(&self, device: &Device, decoder: &Decoder, print: PrintArgs) -> Result<Model> {
        let model = device.load_with(decoder, self.precision.unwrap_or_default())?;
        let used = model.precision();
        if let Some(asked) = self.precision.filter(|&asked| asked != used) {
            print.note(&format!("computing in {used}: this decoder's kernels have no {asked}"));
        }
        Ok(model)
    }
}

/// A compiler's log has many lines; the first says what failed.
fn first_line(error: &Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Says which argument asked for a device that is not there. A failure on one that is there names it already.
fn named(name: &str, error: Error) -> Error {
    match error {
        Error::Device(reason) => Error::Device(format!("--device {name}: {reason}")),
        other => other,
    }
}

#[cfg(feature = "emulator")]
fn emulator() -> Result<Device> {
    Device::emulator(&crate::cuda::emulator::EmulatorOptions::default())
}

#[cfg(not(feature = "emulator"))]
fn emulator() -> Result<Device> {
    let reason = "this build has no emulator: expected the feature `emulator` (cargo build --features emulator)";
    Err(named("emulator", Error::Device(reason.into())))
}
