//! The driver and its GPUs: whether there are any, and what its errors mean.
#![allow(unsafe_code)]

use std::fmt;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUresult};
use cudarc::driver::{CudaContext, DriverError, result};

use crate::device::{Launch, Target};
use crate::{Error, ErrorKind, Result};

/// Set to `1`, it makes every run go launch by launch, waiting for each, so that an error names
/// the launch that failed.
pub const SYNC_VARIABLE: &str = "UGATIT_CUDA_SYNC";

/// The lowest compute capability the kernels are compiled for, times ten.
const LEAST_CAPABILITY: u32 = 80;

/// The oldest driver whose functions suffice: CUDA 12.0, as `cuDriverGetVersion` counts.
const LEAST_DRIVER: i32 = 12_000;

/// What there is to run on.
enum Found {
    NoDriver,
    NoDevice,
    Devices(usize),
}

/// One GPU, its context made.
pub(super) struct Gpu {
    pub context: Arc<CudaContext>,
    pub ordinal: usize,
    pub name: String,
    /// Compute capability times ten.
    pub capability: u32,
    /// Multiprocessors, and most bytes of shared memory a block can ask for.
    pub target: Target,
}

/// How many GPUs there are; none where there is no driver.
///
/// # Errors
/// When there is a driver, and it is too old or does not start.
pub(super) fn device_count() -> Result<usize> {
    Ok(match look()? {
        Found::NoDriver | Found::NoDevice => 0,
        Found::Devices(count) => count,
    })
}

impl Gpu {
    /// Opens the GPU of that number.
    ///
    /// # Errors
    /// When there is no driver, no such GPU, or it is too old for the kernels.
    pub fn open(ordinal: usize) -> Result<Self> {
        match look()? {
            Found::NoDriver => return Err(Error::new("no NVIDIA driver found")),
            Found::NoDevice => return Err(Error::new("the NVIDIA driver found no GPU")),
            Found::Devices(count) if ordinal >= count => {
                let there = match count {
                    1 => "there is one GPU, cuda:0".to_owned(),
                    _ => format!("there are {count} GPUs, cuda:0 to cuda:{}", count - 1),
                };
                return Err(Error::new(format!("no cuda:{ordinal}: {there}")));
            }
            Found::Devices(_) => {}
        }

        let opening = || opening(ordinal);
        let device = result::device::get(ordinal as i32).map_err(opening())?;
        let name = result::device::get_name(device).map_err(opening())?;
        // SAFETY: the device is one the driver gave.
        let attribute = |which| unsafe { result::device::get_attribute(device, which) }.map_err(opening());
        use sys::CUdevice_attribute as Attribute;
        let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let capability = (major * 10 + minor) as u32;
        if capability < LEAST_CAPABILITY {
            return Err(Error::new(format!(
                "cuda:{ordinal} ({name}) has compute capability {major}.{minor}, but the kernels need at least {}.{}",
                LEAST_CAPABILITY / 10,
                LEAST_CAPABILITY % 10
            )));
        }
        let target = target_of(device).map_err(opening())?;

        let context = CudaContext::new(ordinal).map_err(opening())?;
        // SAFETY: it concerns cudarc's own slices, of which there are none here; and all work is on
        // one stream. The events would break the capture.
        unsafe { context.disable_event_tracking() };
        Ok(Self { context, ordinal, name, capability, target })
    }
}

/// What plans for a GPU depend on.
fn target_of(device: sys::CUdevice) -> Result<Target, DriverError> {
    use sys::CUdevice_attribute as Attribute;
    // SAFETY: the device is one the driver gave.
    let attribute = |which| unsafe { result::device::get_attribute(device, which) };
    Ok(Target {
        sms: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as u32,
        shared_bytes: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)? as u32,
    })
}

/// What plans for the first GPU depend on; None where there is none.
pub(super) fn target_at_hand() -> Option<Target> {
    let Ok(Found::Devices(_)) = look() else { return None };
    result::device::get(0).and_then(target_of).ok()
}

/// Makes an error out of the driver's while opening the GPU of that number.
pub(super) fn opening(ordinal: usize) -> impl Fn(DriverError) -> Error {
    failed(format!("opening cuda:{ordinal}"))
}

/// Looks for the driver and its devices.
fn look() -> Result<Found> {
    // SAFETY: opening the driver's library has no conditions. Asked first, since every other call
    // panics where the library is missing.
    if !unsafe { sys::is_culib_present() } {
        return Ok(Found::NoDriver);
    }
    let starting = || failed("starting the NVIDIA driver");
    let mut version = 0;
    // SAFETY: it writes one int, and is allowed before `cuInit`.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(starting())?;
    if version < LEAST_DRIVER {
        let text = |v: i32| format!("{}.{}", v / 1000, v % 1000 / 10);
        return Err(Error::new(format!(
            "the NVIDIA driver supports CUDA {}, but at least {} is needed",
            text(version),
            text(LEAST_DRIVER)
        ))
        .hint("update the driver"));
    }
    match result::init() {
        Ok(()) => {}
        Err(DriverError(CUresult::CUDA_ERROR_NO_DEVICE)) => return Ok(Found::NoDevice),
        // A toolkit's stand-in for linking, not a driver.
        Err(DriverError(CUresult::CUDA_ERROR_STUB_LIBRARY)) => return Ok(Found::NoDriver),
        Err(error) => return Err(starting()(error)),
    }
    match result::device::get_count().map_err(starting())? {
        ..=0 => Ok(Found::NoDevice),
        count => Ok(Found::Devices(count as usize)),
    }
}

/// A launch, for messages: `adalin_forward_f32 (adalin gen.UpBlock1.2)`.
pub(super) fn title(launch: &Launch) -> String {
    format!("{} ({})", launch.kernel.name, launch.label)
}

/// Makes an error out of the driver's: what was being done, the name and the driver's words.
pub(super) fn failed(doing: impl fmt::Display) -> impl Fn(DriverError) -> Error {
    let doing = doing.to_string();
    move |error| describe(&doing, error)
}

/// As [`failed`], with what can be done.
pub(super) fn describe(doing: impl fmt::Display, error: DriverError) -> Error {
    use CUresult as E;
    let plain = describe_plainly(doing, error);
    match error.0 {
        E::CUDA_ERROR_ILLEGAL_ADDRESS
        | E::CUDA_ERROR_MISALIGNED_ADDRESS
        | E::CUDA_ERROR_ILLEGAL_INSTRUCTION
        | E::CUDA_ERROR_INVALID_ADDRESS_SPACE
        | E::CUDA_ERROR_INVALID_PC
        | E::CUDA_ERROR_HARDWARE_STACK_ERROR
        | E::CUDA_ERROR_ASSERT
        | E::CUDA_ERROR_LAUNCH_FAILED
        | E::CUDA_ERROR_LAUNCH_TIMEOUT => {
            plain.hint(format!("{SYNC_VARIABLE}=1 names the launch")).of_kind(ErrorKind::GpuFault)
        }
        E::CUDA_ERROR_UNSUPPORTED_PTX_VERSION | E::CUDA_ERROR_NO_BINARY_FOR_GPU | E::CUDA_ERROR_INVALID_IMAGE => {
            plain.hint("the driver is older than the NVRTC the kernels were compiled with: update the driver, or build with an older NVRTC")
        }
        E::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH => {
            plain.hint("the driver's library and its kernel module differ: restart the machine")
        }
        _ => plain,
    }
}

/// What was being done, the name of the driver's error and the driver's words.
pub(super) fn describe_plainly(doing: impl fmt::Display, error: DriverError) -> Error {
    let name = match error.error_name() {
        Ok(name) => name.to_string_lossy().into_owned(),
        Err(_) => format!("{:?}", error.0),
    };
    let text = match error.error_string() {
        Ok(text) => format!(" ({})", text.to_string_lossy()),
        Err(_) => String::new(),
    };
    Error::new(format!("{doing}: {name}{text}"))
}
