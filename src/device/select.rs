//! Which device to run on: what was asked for, and what the machine has.

use std::fmt;
use std::str::FromStr;

use super::Device;
use super::cuda::Cuda;
use super::emulator::{Emulator, Options};
use super::executable::DeviceHandle;
use crate::{Error, ErrorKind, Result};

/// The environment variable that says which device to use where no option does.
pub const VARIABLE: &str = "UGATIT_DEVICE";

/// What to run on: `auto`, `cuda`, `cuda:N` or `emulator`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The first GPU that can, and the emulator where none can.
    #[default]
    Auto,
    /// The GPU of that number, or the first that can.
    Cuda(Option<usize>),
    /// The emulator.
    Emulator,
}

impl Choice {
    /// What [`VARIABLE`] asks for; none where it is not set.
    ///
    /// # Errors
    /// When it names no device.
    pub fn from_env() -> Result<Option<Self>> {
        match std::env::var(VARIABLE) {
            Ok(text) if !text.is_empty() => text.parse().map(Some).map_err(|e: Error| e.context(VARIABLE)),
            _ => Ok(None),
        }
    }
}

impl FromStr for Choice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "cuda" => Ok(Self::Cuda(None)),
            "emulator" => Ok(Self::Emulator),
            _ => match text.strip_prefix("cuda:").map(str::parse) {
                Some(Ok(ordinal)) => Ok(Self::Cuda(Some(ordinal))),
                _ => Err(Error::new(format!("unknown device '{text}'"))
                    .hint("devices are auto, cuda, cuda:0 (and further), emulator")),
            },
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cuda(None) => f.write_str("cuda"),
            Self::Cuda(Some(ordinal)) => write!(f, "cuda:{ordinal}"),
            Self::Emulator => f.write_str("emulator"),
        }
    }
}

/// Opens the device. The text says which it is, and why where it is not a GPU: `NVIDIA H200 (cuda:0)`,
/// `emulator: no NVIDIA driver found`.
///
/// # Errors
/// When a GPU was asked for and cannot be had.
pub fn open(choice: Choice) -> Result<(DeviceHandle, String)> {
    let emulator = |why: &str| -> Result<(DeviceHandle, String)> {
        Ok((DeviceHandle::new(Emulator::new(Options::default())), format!("emulator: {why}")))
    };
    let cuda = |cuda: Cuda| -> Result<(DeviceHandle, String)> {
        let text = cuda.describe();
        Ok((DeviceHandle::new(cuda), text))
    };
    match choice {
        Choice::Emulator => emulator("asked for"),
        Choice::Auto => match first_gpu() {
            Ok(gpu) => cuda(gpu),
            Err(error) => emulator(error.message()),
        },
        Choice::Cuda(ordinal) => cuda(open_cuda(ordinal)?),
    }
}

/// Opens the GPU of that number, or the first that can.
///
/// # Errors
/// When it cannot be had, or none can: of the kind [`ErrorKind::NoGpu`], unless it is short of memory.
pub fn open_cuda(ordinal: Option<usize>) -> Result<Cuda> {
    ordinal.map_or_else(first_gpu, Cuda::open).map_err(no_gpu)
}

/// Why no GPU can be had, where the error has no kind of its own.
pub(crate) fn no_gpu(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Other => error.of_kind(ErrorKind::NoGpu),
        _ => error,
    }
}

/// The first GPU that opens; the error of the first where none does.
fn first_gpu() -> Result<Cuda> {
    let first = Cuda::open(0);
    let others = Cuda::device_count().unwrap_or(0);
    match first {
        Ok(gpu) => Ok(gpu),
        Err(error) => (1..others).find_map(|ordinal| Cuda::open(ordinal).ok()).ok_or(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices() {
        for text in ["auto", "cuda", "cuda:0", "cuda:13", "emulator"] {
            assert_eq!(text.parse::<Choice>().unwrap().to_string(), text);
        }
        assert_eq!("cuda:1".parse(), Ok(Choice::Cuda(Some(1))));
        for text in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CUDA", "cuda:1 "] {
            let error = text.parse::<Choice>().unwrap_err();
            assert_eq!(error.message(), format!("unknown device '{text}'"));
            assert_eq!(error.hint_text(), Some("devices are auto, cuda, cuda:0 (and further), emulator"));
        }
    }

    #[test]
    fn without_a_gpu_auto_takes_the_emulator_and_cuda_is_an_error() {
        if Cuda::device_count() != Ok(0) {
            return;
        }
        let (_, why) = open(Choice::Auto).unwrap();
        assert!(why.starts_with("emulator: "), "{why}");
        let error = open(Choice::Cuda(None)).err().unwrap();
        assert!(why.ends_with(error.message()), "{why}, {error}");
        assert_eq!(error.kind(), ErrorKind::NoGpu);
    }
}
