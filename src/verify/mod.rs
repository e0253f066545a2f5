//! Repeats recorded runs of the reference and reports how far this engine deviates.
//!
//! A recorded file is a safetensors file whose `__metadata__` holds JSON. There are two kinds, both
//! computed in float64 from weights and images that are exact float32 numbers, stored as float32:
//!
//! **A training run** has `config` (hyper-parameters), `batch` and `steps` in its metadata, the state
//! before iteration 1 (`init/<net>/<key>`) and the images of every iteration (`image/A/<i>`,
//! `image/B/<i>`). Of these the run is repeated. Whatever else is there is compared:
//!
//! | tensors | group | measure |
//! |---|---|---|
//! | `fwd/<pass>/image`, `cam_logit`, `heatmap` | `fwd/image`, `fwd/cam_logit`, `fwd/heatmap` | relative L2 |
//! | `fwd/D/..`, `fwd/G/..`: the discriminators in their own and in the generators' step | `fwd/D`, `fwd/G` | relative L2 |
//! | `tap/<net>/<module>`: outputs of layers | `tap/generator`, `tap/discriminator` | relative L2 |
//! | `loss/<term>`, and `losses` in the metadata | `loss/<step>` | relative, of each term |
//! | `grad_D/..`, `grad_G/..`: iteration 1, before weight decay | `grad_D`, `grad_G` | relative L2 |
//! | `after<k>/..`: weights | `after<k>`, `after<k>/mismatched` | relative L2; share of mismatched elements |
//! | `after<k>/..`: u and v | `after<k>/uv` | relative L2 |
//! | `after<k>_l2/..`: norms | `after<k>_l2` | relative, of each tensor |
//! | `adam_m/..`, `adam_v/..` after the last iteration | `adam_m`, `adam_v` | relative L2 |
//! | `lr`, and `lr` in the metadata | `lr` | relative to the initial rate |
//!
//! **Single operations** have `cases` in their metadata: a list of objects with `name`, `op` and the
//! operation's parameters, and tensors `<name>/<tensor>`: inputs, outputs, and gradients `d_<input>`
//! from an upstream gradient `dy`. Each case is a group of its own.
//!
//! # Tolerances
//!
//! A group is judged as a whole, and so is each of its tensors, ten times as loosely: a small tensor
//! that is wrong would drown in its group's norm. Everything is compared with `deviation <= tolerance`,
//! which NaN never fulfils.
//!
//! The bounds of [`tolerance`] are at least eight times what float32 runs of the reference itself deviate
//! by from its float64 run (`tests/golden/noise.json`), and at most a quarter of what its runs with
//! tf32-rounded convolutions deviate by. Beyond the shipped files they hold in some fifty configurations
//! (sides 24 to 96, widths 2 to 16, batches 1 to 4, light and full, rates 1e-4 to 1e-3). Two effects no
//! constant can bound:
//!
//! * *Non-differentiable points.* A value within rounding of the corner of a ReLU or of |x|, or of a tie for the
//!   maximum, can fall on the other side, and a part of the gradient flips. In one configuration of eight some
//!   tensor's gradient deviates by 1e-3 to 1e-1 for that reason.
//! * *Adam.* Its first steps are lr * sign(gradient), so where a gradient is close to 0 a weight may move in the
//!   opposite direction, and from there on the runs diverge: after five steps, in a third of all configurations,
//!   1e-2 of the weights or more deviate by a tenth of their update.
//!
//! Weights are therefore judged by count. The update budget of a step is the sum of the learning rates so far, which
//! is how far Adam can have moved a weight; an element is mismatched when it deviates by more than 0.4% of it. 1% of
//! all elements may be mismatched, and 10% of one tensor's (not counting two). Where this or another bound downstream
//! of a gradient fails, the run is repeated up to four times with perturbed images, first by 2.5e-7 of their values,
//! as rounding would, at last by 4e-6. Where rounding is amplified, the perturbed runs differ from the plain one by as
//! much as the reference does, and the tolerance is relaxed to four times that; the report marks it. A mistake in the
//! engine is the same in all of these runs and relaxes nothing. What is continuous in the inputs (outputs, layers, the
//! discriminators' step) is never relaxed, and a file that fails there is not run again.
//!
//! # Errors
//!
//! A file that is no such file, or whose tensors do not fit its configuration, is an error before
//! anything runs. An operation of an unknown name deviates.

mod golden;
mod ops;
pub mod report;
pub mod tolerance;
mod train;

use std::io::Write;
use std::path::PathBuf;

use serde_json::json;

pub use golden::Golden;
pub use report::FileReport;

use crate::device::executable::DeviceHandle;
use crate::device::select;
use crate::{Error, Result};

/// What `ugatit verify` is to do.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Recorded files.
    pub files: Vec<PathBuf>,
    /// What to run them on.
    pub device: select::Choice,
    /// Print JSON instead of tables.
    pub json: bool,
    /// List every quantity, not only those that deviate.
    pub verbose: bool,
}

/// Repeats the files' runs and prints how far they deviate; returns whether everything passes.
///
/// # Errors
/// When a file cannot be used, before anything runs, or the device fails.
pub fn run(options: &Options) -> Result<bool> {
    if options.files.is_empty() {
        return Err(
            Error::new("no file to verify").hint("give recorded files: ugatit verify golden/*.safetensors")
        );
    }
    for path in &options.files {
        check(&Golden::open(path)?)?;
    }
    let print = |text: &str| {
        let mut out = std::io::stdout().lock();
        let done = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        done.map_err(|e| Error::io("cannot print", &e))
    };
    let mut reports = Vec::new();
    let mut device = String::new();
    for path in &options.files {
        let golden = Golden::open(path)?;
        let (opened, text) = select::open(options.device)?;
        device = text;
        let report = verify(&golden, &opened)?;
        if !options.json {
            print(&format!("{}\n", report.text(options.verbose)))?;
        }
        reports.push(report);
    }
    let failing: Vec<&str> = reports.iter().filter(|r| !r.passes()).map(|r| r.file.as_str()).collect();
    if options.json {
        let files: Vec<_> = reports.iter().map(FileReport::json).collect();
        let all = json!({ "pass": failing.is_empty(), "device": device, "files": files });
        print(&format!("{all:#}\n"))?;
    } else if reports.len() > 1 {
        let n = reports.len();
        print(&match failing[..] {
            [] => format!("all {n} files pass on {device}\n"),
            _ => format!("{} of {n} files FAIL on {device}: {}\n", failing.len(), failing.join(", ")),
        })?;
    }
    Ok(failing.is_empty())
}

/// Checks that a file can be used, without running anything.
///
/// # Errors
/// Says what is wrong with it.
pub fn check(golden: &Golden) -> Result<()> {
    match kind(golden)? {
        Kind::Training => train::Recorded::read(golden).map(drop),
        Kind::Operations => ops::Cases::read(golden).map(drop),
    }
}

/// Repeats what a file has on a device and compares.
///
/// # Errors
/// When the file cannot be used, or the device fails.
pub fn verify(golden: &Golden, device: &DeviceHandle) -> Result<FileReport> {
    match kind(golden)? {
        Kind::Training => train::Recorded::read(golden)?.run(golden, device),
        Kind::Operations => Ok(ops::Cases::read(golden)?.run(golden, device)),
    }
}

enum Kind {
    Training,
    Operations,
}

fn kind(golden: &Golden) -> Result<Kind> {
    match (golden.has_metadata("config"), golden.has_metadata("cases")) {
        (true, _) => Ok(Kind::Training),
        (false, true) => Ok(Kind::Operations),
        (false, false) => Err(golden
            .error("its metadata has neither 'config' nor 'cases'")
            .hint("it is no recorded training run and no recorded operations")),
    }
}
