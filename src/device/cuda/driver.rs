//! The driver and its GPUs: whether there are any, and whether they are able.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};
use std::sync::Arc;

use super::code::Code;
use super::failure::{NO_GPU_HINT, STUB_HINT, describe, failed_to_start};
use super::ffi::{self, DeviceAttribute, Functions, Missing, RawDevice};
use super::handle::{Context, attribute};
use crate::device::{Launch, Target};
use crate::kernels::NVRTC_VERSION;
use crate::{Error, Result};

/// The lowest compute capability the kernels are compiled for, times ten.
const LEAST_CAPABILITY: u32 = 75;

/// The oldest driver whose functions suffice: CUDA 12.0, as `cuDriverGetVersion` counts.
const LEAST_DRIVER: i32 = 12_000;

/// What there is to run on.
enum Found {
    /// Nothing, and why.
    NoDriver(Error),
    NoDevice(Driver),
    Devices(Driver, usize),
}

/// A driver that is new enough.
#[derive(Clone, Copy)]
struct Driver {
    functions: &'static Functions,
    /// The newest CUDA it supports, 1000 times the major number and 10 times the minor.
    version: i32,
}

/// What the driver says of itself and its GPUs, before one is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriverInfo {
    /// The newest CUDA it supports: major and minor number.
    pub version: (u32, u32),
    /// Its GPUs by number.
    pub gpus: Vec<GpuInfo>,
}

/// What the driver says of a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuInfo {
    /// Its number: 1 is `cuda:1`.
    pub ordinal: usize,
    /// Its name.
    pub name: String,
    /// Compute capability times ten.
    pub capability: u32,
    /// What plans for it depend on: its multiprocessors, and most bytes of shared memory a block can ask for.
    pub target: Target,
    /// Its memory, bytes.
    pub memory: u64,
    /// Whether it takes launches whose blocks wait for each other.
    pub cooperative: bool,
}

/// One GPU, its context made.
pub(super) struct Gpu {
    pub context: Arc<Context>,
    pub info: GpuInfo,
}

/// How many GPUs there are; none where there is no driver.
///
/// # Errors
/// When there is a driver, and it is too old or does not start.
pub(super) fn device_count() -> Result<usize> {
    Ok(match look()? {
        Found::NoDriver(_) | Found::NoDevice(_) => 0,
        Found::Devices(_, count) => count,
    })
}

/// What the driver says of itself and its GPUs.
///
/// # Errors
/// When there is no driver, or it is too old or does not start.
pub(super) fn survey() -> Result<DriverInfo> {
    let (driver, count) = match look()? {
        Found::NoDriver(why) => return Err(why),
        Found::NoDevice(driver) => (driver, 0),
        Found::Devices(driver, count) => (driver, count),
    };
    let gpus = (0..count).map(|ordinal| Ok(GpuInfo::of(driver.functions, ordinal)?.1));
    Ok(DriverInfo { version: cuda_version(driver.version), gpus: gpus.collect::<Result<_>>()? })
}

impl GpuInfo {
    fn of(driver: &Functions, ordinal: usize) -> Result<(RawDevice, Self)> {
        let asking = || failed_to_start(format!("opening cuda:{ordinal}"));
        let (mut device, mut memory) = (0, 0);
        let mut name = [0u8; 256];
        // SAFETY: it writes one number.
        unsafe { driver.cuDeviceGet(&mut device, ordinal as i32) }.map_err(asking())?;
        // SAFETY: the device is one the driver gave; it writes at most as many bytes as it is told there are.
        unsafe { driver.cuDeviceGetName(name.as_mut_ptr().cast::<c_char>(), name.len() as i32, device) }
            .map_err(asking())?;
        // SAFETY: the device is one the driver gave; it writes one size.
        unsafe { driver.cuDeviceTotalMem_v2(&mut memory, device) }.map_err(asking())?;
        let attribute = |which| attribute(driver, device, which).map(i32::unsigned_abs).map_err(asking());
        let name = CStr::from_bytes_until_nul(&name).map(CStr::to_string_lossy).unwrap_or_default();
        let info = Self {
            ordinal,
            name: name.into_owned(),
            capability: attribute(DeviceAttribute::CapabilityMajor)? * 10
                + attribute(DeviceAttribute::CapabilityMinor)?,
            target: Target {
                sms: attribute(DeviceAttribute::Multiprocessors)?,
                shared_bytes: attribute(DeviceAttribute::SharedPerBlock)?,
            },
            memory: memory as u64,
            cooperative: attribute(DeviceAttribute::CooperativeLaunch)? != 0,
        };
        Ok((device, info))
    }

    /// Refuses a GPU that no kernel is compiled for.
    fn check(&self) -> Result<()> {
        if self.capability >= LEAST_CAPABILITY {
            return Ok(());
        }
        let Self { ordinal, name, capability, .. } = self;
        Err(Error::new(format!(
            "cuda:{ordinal} ({name}) has compute capability {}.{}, but the kernels need at least {}.{}",
            capability / 10,
            capability % 10,
            LEAST_CAPABILITY / 10,
            LEAST_CAPABILITY % 10
        )))
    }
}

impl Gpu {
    /// Opens the GPU of that number, and makes its context current on this thread.
    ///
    /// # Errors
    /// When there is no driver, no such GPU, or it is too old for the kernels.
    pub fn open(ordinal: usize) -> Result<Self> {
        let driver = match look()? {
            Found::NoDriver(why) => return Err(why),
            Found::NoDevice(_) => {
                return Err(Error::new("the NVIDIA driver found no GPU").hint(NO_GPU_HINT));
            }
            Found::Devices(_, count) if ordinal >= count => {
                let there = match count {
                    1 => "there is one GPU, cuda:0".to_owned(),
                    _ => format!("there are {count} GPUs, cuda:0 to cuda:{}", count - 1),
                };
                return Err(Error::new(format!("no cuda:{ordinal}: {there}")));
            }
            Found::Devices(driver, _) => driver.functions,
        };
        let (device, info) = GpuInfo::of(driver, ordinal)?;
        info.check()?;
        let context = Context::retain(driver, device).map_err(opening(ordinal))?;
        Ok(Self { context, info })
    }
}

/// What plans for the first GPU that can run them depend on; None where there is none.
pub(super) fn target_at_hand() -> Option<Target> {
    survey().ok()?.gpus.into_iter().find(|gpu| gpu.check().is_ok()).map(|gpu| gpu.target)
}

/// Makes an error out of the driver's while opening the GPU of that number.
pub(super) fn opening(ordinal: usize) -> impl Fn(Code) -> Error {
    failed_to_start(format!("opening cuda:{ordinal}"))
}

/// Looks for the driver and its devices.
fn look() -> Result<Found> {
    let functions = match ffi::functions() {
        Ok(functions) => functions,
        Err(Missing::Library) => return Ok(Found::NoDriver(Error::new("no NVIDIA driver found"))),
        Err(Missing::Function { library, name }) => return Err(lacking(library, name)),
    };
    let starting = || failed_to_start("starting the NVIDIA driver");
    let stub =
        || Found::NoDriver(Error::new("no NVIDIA driver found, only a stand-in for linking").hint(STUB_HINT));
    let mut version = 0;
    // SAFETY: it writes one int, and is allowed before `cuInit`.
    match unsafe { functions.cuDriverGetVersion(&mut version) } {
        Err(Code::STUB_LIBRARY) => return Ok(stub()),
        result => result.map_err(starting())?,
    }
    check_version(version, NVRTC_VERSION)?;
    let driver = Driver { functions, version };
    // SAFETY: it takes 0 and has no other conditions.
    match unsafe { functions.cuInit(0) } {
        Err(Code::NO_DEVICE) => return Ok(Found::NoDevice(driver)),
        Err(Code::STUB_LIBRARY) => return Ok(stub()),
        result => result.map_err(starting())?,
    }
    let mut count = 0;
    // SAFETY: it writes one int.
    match unsafe { functions.cuDeviceGetCount(&mut count) } {
        Err(Code::NO_DEVICE) => Ok(Found::NoDevice(driver)),
        Err(code) => Err(describe("starting the NVIDIA driver", code)),
        Ok(()) if count <= 0 => Ok(Found::NoDevice(driver)),
        Ok(()) => Ok(Found::Devices(driver, count as usize)),
    }
}

/// A library without a function that is needed.
fn lacking(library: &str, name: &str) -> Error {
    Error::new(format!("the NVIDIA driver is too old: {library} has no function {name}"))
        .hint(format!("update the driver to one for CUDA {}", version_text(LEAST_DRIVER)))
}

/// Refuses a driver that is older than what the kernels were made for. Machine code of one major version of CUDA runs
/// on drivers of that major version and later.
fn check_version(driver: i32, nvrtc: (u32, u32)) -> Result<()> {
    let by_nvrtc = i32::try_from(nvrtc.0).unwrap_or(0) * 1000;
    let least = LEAST_DRIVER.max(by_nvrtc);
    if driver >= least {
        return Ok(());
    }
    let error = Error::new(format!(
        "the NVIDIA driver supports CUDA {}, but at least {} is needed",
        version_text(driver),
        version_text(least)
    ));
    Err(error.hint(match driver >= LEAST_DRIVER {
        true => format!("update the driver, or build with NVRTC {}", driver / 1000),
        false => "update the driver".to_owned(),
    }))
}

fn cuda_version(number: i32) -> (u32, u32) {
    let number = number.unsigned_abs();
    (number / 1000, number % 1000 / 10)
}

fn version_text(number: i32) -> String {
    let (major, minor) = cuda_version(number);
    format!("{major}.{minor}")
}

/// A launch, for messages: `adalin_forward_f32 (adalin gen.UpBlock1.2)`.
pub(super) fn title(launch: &Launch) -> String {
    format!("{} ({})", launch.kernel.name, launch.label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_is_as_new_as_its_functions_and_the_machine_code_ask() {
        assert_eq!(check_version(12_000, (12, 9)), Ok(()));
        assert_eq!(check_version(13_010, (12, 4)), Ok(()));
        assert_eq!(check_version(13_000, (13, 1)), Ok(()));
        let error = |driver, nvrtc| check_version(driver, nvrtc).unwrap_err().to_string();
        assert_eq!(
            error(11_080, (12, 9)),
            "the NVIDIA driver supports CUDA 11.8, but at least 12.0 is needed\nhint: update the driver"
        );
        assert_eq!(
            error(12_080, (13, 0)),
            "the NVIDIA driver supports CUDA 12.8, but at least 13.0 is needed\n\
             hint: update the driver, or build with NVRTC 12"
        );
    }

    #[test]
    fn a_library_that_lacks_a_function_is_named_with_it() {
        assert_eq!(
            lacking("libcuda.so.1", "cuGraphInstantiateWithFlags").to_string(),
            "the NVIDIA driver is too old: libcuda.so.1 has no function cuGraphInstantiateWithFlags\n\
             hint: update the driver to one for CUDA 12.0"
        );
    }
}
