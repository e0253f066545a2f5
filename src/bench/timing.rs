//! Times of programs on a GPU.

use crate::device::executable::{Executable, LaunchMode};
use crate::stats::median;
use crate::{Error, Result};

/// Samples of a time.
pub(super) const SAMPLES: usize = 21;

/// Microseconds of one of `repeats` passes in a program: the median of so many samples by events, after three that are not
/// counted.
///
/// # Errors
/// When the GPU fails.
pub(super) fn time_program(executable: &Executable, repeats: usize, mode: LaunchMode) -> Result<f64> {
    let mut samples = Vec::with_capacity(SAMPLES);
    for sample in 0..SAMPLES + 3 {
        let ms = executable.time(mode)?.ok_or_else(|| Error::new("the GPU gave no time"))?;
        if sample >= 3 {
            samples.push(ms * 1e3 / repeats as f64);
        }
    }
    Ok(median(samples))
}
