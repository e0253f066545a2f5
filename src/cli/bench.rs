//! `ugatit bench`

use clap::{Args, Subcommand};
use ugatit::bench::adalin;

use super::End;

/// Measure single layers: on a GPU time, on the emulator what they move and execute
#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// AdaLIN, ILN and instance norm: fused against unfused
    ///
    /// Every variant is compared with a computation in double precision before a number of it is shown. On a
    /// GPU: microseconds by events and GB/s, with warm and with rotated buffers, launched one by one and
    /// as a graph, against the speed of a copy measured in the same run. On the emulator: bytes, sectors,
    /// launches and instructions, which are counts and no time; the default shapes take about a minute.
    Adalin(adalin::Options),
}

pub(super) fn run(args: &BenchArgs) -> Result<(), End> {
    let What::Adalin(options) = &args.what;
    match adalin::run(options, &mut std::io::stdout()) {
        Ok(_) => Ok(()),
        Err(e) if e.message().contains("Broken pipe") => Err(End::Unread),
        Err(e) => Err(End::Failed(e)),
    }
}
