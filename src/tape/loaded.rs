//! A planned program on a device, read and written by the values of its tape.

use std::collections::HashMap;
use std::sync::Arc;

use super::plan::Planned;
use super::value::Value;
use crate::device::executable::{DeviceHandle, Executable, State};
use crate::device::{Location, Space};
use crate::{Error, Result};

/// An executable with the locations of the values that the host may read and write.
pub struct LoadedProgram {
    executable: Executable,
    locations: HashMap<Value, Location>,
}

impl Planned {
    /// Loads the program over a state of its own.
    ///
    /// # Errors
    /// When the device has too little memory.
    pub fn load(self, device: &DeviceHandle) -> Result<LoadedProgram> {
        Ok(LoadedProgram { executable: Executable::new(device, self.program)?, locations: self.locations })
    }

    /// Loads the program over a state that other programs share.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_over(self, state: &Arc<State>) -> Result<LoadedProgram> {
        Ok(LoadedProgram { executable: Executable::load(self.program, state)?, locations: self.locations })
    }
}

impl LoadedProgram {
    /// The program, to run it.
    pub fn executable(&self) -> &Executable {
        &self.executable
    }

    fn location(&self, v: Value) -> Result<Location> {
        let location = self.locations.get(&v).copied();
        location.ok_or_else(|| Error::new("a value is used that the program does not keep"))
    }

    /// Writes a persistent value, in the device's order: `[D, N, H, W, C]`.
    ///
    /// # Errors
    /// When the program does not use it, it is not persistent or of another size, or the device fails.
    pub fn write(&self, v: Value, data: &[f32]) -> Result<()> {
        let at = self.location(v)?;
        if at.space != Space::State || at.bytes != 4 * data.len() as u64 {
            return Err(Error::new(format!(
                "{} values do not fit a value of {} bytes",
                data.len(),
                at.bytes
            )));
        }
        self.executable.state().write(at.offset, data)
    }

    /// Reads a persistent or kept value of the latest run, in the device's order.
    ///
    /// # Errors
    /// When the program does not keep it, or the device or the run fails.
    pub fn read(&self, v: Value) -> Result<Vec<f32>> {
        self.executable.read(self.location(v)?)
    }
}
