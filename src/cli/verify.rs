//! `ugatit verify`

use std::path::PathBuf;

use clap::Args;
use ugatit::{ErrorKind, verify};

use super::args::DeviceArgs;
use super::end::End;

/// Repeat recorded runs of the official implementation, and tell how far this engine is off
///
/// Exits with 0 if everything is within its tolerance, and with 1 if not.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Recorded files (safetensors), such as those in tests/golden
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    #[command(flatten)]
    device: DeviceArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,

    /// List every quantity, not only those that deviate
    #[arg(long, short)]
    verbose: bool,
}

pub(super) fn run(args: &VerifyArgs) -> Result<(), End> {
    let device = args.device.choice().map_err(End::Input)?;
    let options =
        verify::Options { files: args.files.clone(), device, json: args.json, verbose: args.verbose };
    match verify::run(&options) {
        Ok(true) => Ok(()),
        Ok(false) => Err(End::Partly),
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Err(End::Unread),
        Err(e) => Err(End::Input(e)),
    }
}
