//! What a case moves and executes, counted by the emulator.

use super::build::Part;
use super::case::Case;
use super::record::Counts;
use super::tensors::Inputs;
use crate::device::emulator;
use crate::device::executable::DeviceHandle;
use crate::{Error, Result};

/// Runs a case once on the emulator and returns what forward and backward pass moved and executed.
///
/// # Errors
/// When the emulator finds an error in a kernel, or the device does not count.
pub fn count(emulator: &DeviceHandle, case: &Case) -> Result<[Counts; 2]> {
    let built = case.build()?;
    let executable = built.load(emulator, &Inputs::random(case, 0.5, 1.0, 1))?;
    emulator.lock().set_counting(true);
    let ran = executable.run();
    emulator.lock().set_counting(false);
    ran?;
    let launches: Vec<_> = executable.counters().iter().flatten().map(|l| l.total()).collect();
    if launches.len() != built.launches(Part::Both).len() {
        return Err(Error::new("the emulator did not count every launch"));
    }
    let (forward, backward) = launches.split_at(built.split);
    let counts = [forward, backward].map(|launches| {
        let sum = |of: fn(&emulator::Counters) -> u64| launches.iter().map(of).sum::<u64>();
        let bytes = |c: &emulator::Counters| c.global_read_bytes + c.global_written_bytes;
        Counts {
            launches: launches.len(),
            read_bytes: sum(|c| c.global_read_bytes),
            written_bytes: sum(|c| c.global_written_bytes),
            read_sectors: sum(|c| c.read_sectors),
            written_sectors: sum(|c| c.written_sectors),
            warp_instructions: sum(|c| c.warp_instructions),
            bank_conflicts: sum(|c| c.bank_conflicts),
            last_launch_bytes: launches.last().map_or(0, bytes),
        }
    });
    Ok(counts)
}
