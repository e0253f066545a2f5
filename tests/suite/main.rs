//! The integration tests: one binary, so that it links once.

mod adalin;
mod bench;
mod checkpoint;
mod cli;
mod command;
#[cfg(target_os = "linux")]
mod fake;
mod golden;
mod model;
mod ops;
mod pad_fusion;
mod resume;
mod sanitizer;
mod study;
mod train;

use std::path::PathBuf;

use ugatit::device::executable::DeviceHandle;
use ugatit::device::select;

/// A file of the repository, or of the folder that `UGATIT_ROOT` names where these tests were carried to
/// another machine (`scripts/bundle.sh`).
fn project(path: &str) -> PathBuf {
    let root = std::env::var_os("UGATIT_ROOT").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    PathBuf::from(root).join(path)
}

/// The device under test: the emulator, or what `UGATIT_DEVICE` names.
fn device() -> DeviceHandle {
    let choice = select::Choice::from_env().expect("UGATIT_DEVICE").unwrap_or(select::Choice::Emulator);
    select::open(choice).expect("the device opens").0
}
