//! The command line of `ugatit`.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
