//! The integration tests: one binary, so that it links once.

mod adalin;
mod checkpoint;
mod cli;
mod command;
mod golden;
mod ops;
mod resume;
mod sanitizer;
mod study;

use ugatit::device::{Device, select};

/// The device under test: the emulator, or what `UGATIT_DEVICE` names.
fn device() -> Box<dyn Device> {
    let choice = select::Choice::from_env().expect("UGATIT_DEVICE").unwrap_or(select::Choice::Emulator);
    select::open(choice).expect("the device opens").0
}
