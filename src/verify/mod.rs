//! Repeats recorded runs of the reference and tells how far this engine is off.
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
//! | `after<k>/..`: weights | `after<k>`, `after<k>/off` | relative L2; share of elements that are off |
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
//! * *Kinks.* A value that lies within rounding of the kink of a ReLU, of |x| or of the maximum can fall
//!   on the other side, and a part of the gradient flips. In one configuration of eight some tensor's
//!   gradient is off by 1e-3 to 1e-1 for that.
//! * *Adam.* Its first steps are lr * sign(gradient), so where a gradient is next to 0 a weight may go
//!   the other way. From there on the runs part: after five steps in a third of all configurations 1e-2
//!   of the weights or more are off by a tenth of the way they went.
//!
//! Weights are therefore judged by count: an element is off when it is away by more than 0.4% of the
//! way that Adam may have moved it, the sum of the learning rates; 1% of all elements may be, and 10%
//! of one tensor's (not counting two). And where this or another bound downstream of a gradient does not
//! hold, the run is repeated up to four times with its images nudged, first by 2.5e-7 of their values
//! as rounding would, at last by 4e-6. Where rounding is amplified, the nudged runs differ from the plain one by as much as
//! the reference does, and the tolerance is raised to four times that; the report marks it. A mistake
//! in the engine is the same in all of these runs and raises nothing. What is continuous in the inputs
//! (outputs, layers, the discriminators' step) is never raised, and a file that fails there is not
//! run again.
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

/// Repeats the files' runs and prints how far they are off; returns whether everything holds.
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
    let failing: Vec<&str> = reports.iter().filter(|r| !r.holds()).map(|r| r.file.as_str()).collect();
    if options.json {
        let files: Vec<_> = reports.iter().map(FileReport::json).collect();
        let all = json!({ "holds": failing.is_empty(), "device": device, "files": files });
        print(&format!("{all:#}\n"))?;
    } else if reports.len() > 1 {
        let n = reports.len();
        print(&match failing[..] {
            [] => format!("all {n} files hold on {device}\n"),
            _ => format!("{} of {n} files DEVIATE on {device}: {}\n", failing.len(), failing.join(", ")),
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
