//! What there is on this machine: the driver, its version, its devices.

use cudarc::driver::DriverError;
use cudarc::driver::result::{self, device};
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute, CUresult};

use super::context::words;
use crate::cuda::platform::Properties;
use crate::error::{Error, Result};

/// The oldest driver: the first that tells the size of a kernel's parameters.
const OLDEST: i32 = 12_040;

/// The oldest architecture: asynchronous copies to shared memory and tensor cores for TF32 begin there.
const LEAST_COMPUTE: (u32, u32) = (8, 0);

/// All devices that the driver shows, in its order; those too old for the kernels too.
///
/// # Errors
///
/// [`Error::Device`] where there is no driver, an old one, or no device.
pub(crate) fn devices() -> Result<Vec<Properties>> {
    let (count, driver) = count()?;
    (0..count).map(|ordinal| properties(ordinal, driver)).collect()
}

/// The properties of a device that the kernels run on.
pub(super) fn usable(ordinal: usize) -> Result<Properties> {
    let (count, driver) = count()?;
    if ordinal >= count {
        let message = format!("cuda:{ordinal}: expected 0 to {}: this machine has {count} CUDA device(s)", count - 1);
        return Err(Error::Device(message));
    }
    let found = properties(ordinal, driver)?;
    if found.compute < LEAST_COMPUTE {
        let (major, minor) = found.compute;
        return Err(Error::Device(format!(
            "cuda:{ordinal} ({}): wrong architecture: expected compute capability {}.{} or newer, found {major}.{minor}",
            found.name, LEAST_COMPUTE.0, LEAST_COMPUTE.1
        )));
    }
    Ok(found)
}

/// How many devices there are, at least one, and the CUDA version that the driver is for. Also makes the driver ready: no other function
/// of it is called before.
fn count() -> Result<(usize, (u32, u32))> {
    let refuse = |message: String| Err(Error::Device(message));
    // SAFETY: loads NVIDIA's driver, whose initialisers ask nothing of their caller.
    if !unsafe { sys::is_culib_present() } {
        return refuse("no CUDA driver (libcuda) on this machine".into());
    }
    let mut version = 0;
    // SAFETY: writes one integer; every driver has the function, and answers before it is initialised.
    let code = unsafe { sys::cuDriverGetVersion(&mut version) };
    if let Err(error) = code.result() {
        return refuse(format!("the CUDA driver (libcuda) does not work: {}", words(error)));
    }
    // Before anything else: cudarc panics on a function that an old driver does not have.
    if version < OLDEST {
        let dotted = |(major, minor): (u32, u32)| format!("{major}.{minor}");
        let (oldest, found) = (dotted(parts(OLDEST)), dotted(parts(version)));
        return refuse(format!(
            "the CUDA driver is too old: expected one for CUDA {oldest} or newer, found one for {found}"
        ));
    }
    let none = || refuse("no CUDA device: the driver is there, but shows none".into());
    match result::init().and_then(|()| device::get_count()) {
        Ok(count) if count > 0 => Ok((usize::try_from(count).unwrap_or(0), parts(version))),
        Ok(_) | Err(DriverError(CUresult::CUDA_ERROR_NO_DEVICE)) => none(),
        Err(error) => refuse(format!("the CUDA driver does not start: {}", words(error))),
    }
}

/// Major and minor part of a version in the driver's own notation, 12040 for 12.4.
fn parts(version: i32) -> (u32, u32) {
    let version = u32::try_from(version).unwrap_or(0);
    (version / 1000, version % 1000 / 10)
}

fn properties(ordinal: usize, driver: (u32, u32)) -> Result<Properties> {
    let found = read(ordinal).map(|found| Properties { driver, ..found });
    found.map_err(|error| Error::Device(format!("cuda:{ordinal}: {}", words(error))))
}

fn read(ordinal: usize) -> Result<Properties, DriverError> {
    let device = device::get(i32::try_from(ordinal).unwrap_or(i32::MAX))?;
    // SAFETY: the driver gave the device out.
    let attribute =
        |which| unsafe { device::get_attribute(device, which) }.map(|value| u32::try_from(value).unwrap_or(0));
    let mut name = [0u8; 256];
    // SAFETY: writes at most as many bytes as it is told there are.
    unsafe { sys::cuDeviceGetName(name.as_mut_ptr().cast(), 256, device) }.result()?;
    let length = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    Ok(Properties {
        name: String::from_utf8_lossy(&name[..length]).into_owned(),
        compute: (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        clock: attribute(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE)? / 1000,
        shared_per_block: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        // SAFETY: the driver gave the device out.
        memory: unsafe { device::total_mem(device) }? as u64,
        memory_clock: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE)? / 1000,
        memory_bus: attribute(Attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH)?,
        driver: (0, 0),
    })
}
