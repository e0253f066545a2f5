//! The command line: raw flags, lowered to checked configurations; messages; exit codes.
//!
//! Data go to standard output, everything else to standard error. Exit codes: 0 success, 1 failure,
//! 2 bad usage or bad input (nothing was started), 130 interrupted (and saved).

mod args;
mod bench;
mod doctor;
mod end;
mod plan;
mod study;
mod train;
mod translate;
mod verify;
mod words;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use ugatit::Error;

use end::{End, say};

/// Trains U-GAT-IT, unsupervised image-to-image translation, with hand-written CUDA kernels: on an
/// NVIDIA GPU, or without one on an emulator that runs the same kernels.
#[derive(Debug, Parser)]
#[command(
    name = "ugatit",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    args_override_self = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Train(train::TrainArgs),
    Translate(translate::TranslateArgs),
    Plan(plan::PlanArgs),
    Verify(verify::VerifyArgs),
    Doctor(doctor::DoctorArgs),
    Bench(bench::BenchArgs),
    Kernels(study::KernelsArgs),
    Profile(study::ProfileArgs),
    Study(study::StudyArgs),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let matches = match Cli::command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => {
            // Help and version are errors to clap. Whoever closed the stream does not want to know.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let ended = match (Cli::from_arg_matches(&matches), matches.subcommand()) {
        (Ok(Cli { command }), Some((_, matches))) => match command {
            Command::Train(args) => train::run(&args, matches),
            Command::Translate(args) => translate::run(&args),
            Command::Plan(args) => plan::run(&args),
            Command::Verify(args) => verify::run(&args),
            Command::Doctor(args) => doctor::run(&args),
            Command::Bench(args) => bench::run(&args),
            Command::Kernels(args) => study::kernels(&args),
            Command::Profile(args) => study::profile(&args),
            Command::Study(args) => study::study(&args),
        },
        (Err(error), _) => Err(End::Input(Error::new(error.to_string()))),
        (_, None) => Err(End::Input(Error::new("no command").hint("try ugatit --help"))),
    };
    let (error, code) = match ended {
        Ok(()) | Err(End::Unread) => return ExitCode::SUCCESS,
        Err(End::Partly) => return ExitCode::from(1),
        Err(End::Interrupted) => return ExitCode::from(130),
        Err(End::Failed(error)) => (error, 1),
        Err(End::Input(error)) => (error, 2),
    };
    say(&format!("error: {}", words::with_advice(error)));
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
    }
}
