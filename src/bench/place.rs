//! Where a benchmark runs, and the GPU that it is predicted for.

use super::ceilings::Ceilings;
use super::record::Origin;
use crate::Result;
use crate::device::executable::DeviceHandle;
use crate::device::select::{self, Choice};
use crate::device::{DeviceKind, Target};
use crate::model::{Machine, machine};

/// An open device and what is known of it.
pub(super) struct Place {
    pub device: DeviceHandle,
    pub origin: Origin,
    /// Bytes that were free before anything was loaded.
    pub free: u64,
    /// What is planned for: the GPU at hand, or on the emulator the one that is predicted for.
    pub target: Target,
    /// What is predicted for; None where there are no constants of the GPU at hand.
    pub machine: Option<&'static Machine>,
    /// What the GPU can do; None on the emulator.
    pub ceilings: Option<Ceilings>,
}

impl Place {
    /// Opens a device. Predicted is for `machine`, or else for the GPU at hand, on the emulator for an H100.
    ///
    /// # Errors
    /// When there is no such device, or it fails.
    pub fn open(choice: Option<Choice>, machine: Option<&'static Machine>) -> Result<Self> {
        let (device, _) = select::open(choice.unwrap_or_default())?;
        let (name, kind, own, free) = {
            let device = device.lock();
            (device.describe(), device.kind(), device.target(), device.memory()?.free)
        };
        if kind == DeviceKind::Emulator {
            let machine = machine.unwrap_or(&machine::ALL[0]);
            let (target, machine) = (machine.target(), Some(machine));
            let origin = Origin::here("emulator".to_owned());
            return Ok(Self { device, origin, free, target, machine, ceilings: None });
        }
        let ceilings = Some(Ceilings::measure(&device)?);
        let machine = machine.or_else(|| machine::of_driver(&name));
        Ok(Self { device, origin: Origin::here(name), free, target: own, machine, ceilings })
    }

    /// Whether it is the emulator.
    pub fn is_emulated(&self) -> bool {
        self.ceilings.is_none()
    }
}
