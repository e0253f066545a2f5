//! The command line: raw flags, lowered to checked configurations; messages; exit codes.
//!
//! Data go to standard output, everything else to standard error. Exit codes: 0 success, 1 failure,
//! 2 bad usage or bad input (nothing was started), 130 interrupted (and saved).

mod bench;
mod plan;
mod train;
mod translate;
mod verify;

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use ugatit::device::select::Choice;
use ugatit::nn::Config;
use ugatit::study::command;
use ugatit::tape::Norms;
use ugatit::{Error, Result};

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
    Bench(bench::BenchArgs),
    Kernels(command::KernelsArgs),
    Profile(command::ProfileArgs),
    Study(command::StudyArgs),
}

/// What shapes the networks and their batches.
#[derive(Debug, Args)]
#[command(next_help_heading = "Network")]
struct NetworkArgs {
    /// Light mode: a small gamma/beta network, which sees pooled features only
    #[arg(long)]
    light: bool,

    /// Side of the square training images, a multiple of 4
    #[arg(long, value_name = "N", default_value_t = Config::default().img_size)]
    size: usize,

    /// Channels of the first convolution; all others are multiples of it
    #[arg(long, value_name = "N", default_value_t = Config::default().ch)]
    ch: usize,

    /// Residual blocks in each generator's encoder, and as many in its decoder
    #[arg(long, value_name = "N", default_value_t = Config::default().n_res)]
    n_res: usize,

    /// Depth of the discriminators; less depth allows smaller images [default: 6; `plan` takes the
    /// deepest that the size allows]
    #[arg(long, value_name = "N")]
    n_dis: Option<usize>,

    /// Images of each domain in a step
    #[arg(long, value_name = "N", default_value_t = 1)]
    batch_size: usize,

    /// How norms are computed: fused, or unfused for comparison, as composed or elementary kernels
    ///
    /// All compute the same, up to rounding; the unfused ones make more launches and move more memory.
    #[arg(long, value_name = "NORM", default_value_t = Norms::default(), value_parser = parse_norm)]
    norm: Norms,
}

impl NetworkArgs {
    /// Overwrites what these flags say of a configuration.
    fn apply(&self, cfg: &mut Config) {
        cfg.light = self.light;
        cfg.img_size = self.size;
        cfg.ch = self.ch;
        cfg.n_res = self.n_res;
        cfg.n_dis = self.n_dis.unwrap_or(Config::default().n_dis);
    }

    fn check_batch(&self) -> Result<()> {
        if (1..=1024).contains(&self.batch_size) {
            return Ok(());
        }
        Err(Error::new(format!("--batch-size {} is out of range", self.batch_size))
            .hint("give 1 to 1024 images"))
    }
}

#[derive(Debug, Args)]
struct DeviceArgs {
    /// What to run on: auto, cuda, cuda:N or emulator [default: $UGATIT_DEVICE, or else auto]
    #[arg(long, value_name = "DEVICE", value_parser = parse_device)]
    device: Option<Choice>,
}

impl DeviceArgs {
    fn choice(&self) -> Result<Choice> {
        match self.device {
            Some(choice) => Ok(choice),
            None => Ok(Choice::from_env()?.unwrap_or_default()),
        }
    }
}

/// clap prints it as part of its own message.
fn told(e: &Error) -> String {
    match e.hint_text() {
        Some(hint) => format!("{}; {hint}", e.message()),
        None => e.message().to_owned(),
    }
}

fn parse_device(text: &str) -> Result<Choice, String> {
    text.parse().map_err(|e| told(&e))
}

fn parse_norm(text: &str) -> Result<Norms, String> {
    text.parse().map_err(|e| told(&e))
}

/// How a command ended, other than well.
enum End {
    /// Bad usage or bad input: nothing was started.
    Input(Error),
    /// It was started, and failed.
    Failed(Error),
    /// It did its work, but not all of it; the rest was told.
    Partly,
    /// It was interrupted, and saved.
    Interrupted,
    /// Nobody reads the output any more.
    Unread,
}

impl From<io::Error> for End {
    /// Only writing to standard output gives bare I/O errors.
    fn from(e: io::Error) -> Self {
        match e.kind() {
            ErrorKind::BrokenPipe => End::Unread,
            _ => End::Failed(Error::new(format!("cannot write to standard output: {e}"))),
        }
    }
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
            Command::Bench(args) => bench::run(&args),
            Command::Kernels(args) => command::kernels(&args).map_err(End::Input),
            Command::Profile(args) => match args.step.step() {
                Ok(_) => {
                    args.step.note().iter().for_each(|note| say(note));
                    command::profile(&args).map_err(End::Failed)
                }
                Err(error) => Err(End::Input(error)),
            },
            Command::Study(args) => match args.check() {
                Ok(()) => {
                    args.step.note().iter().filter(|_| args.source.is_none()).for_each(|note| say(note));
                    command::study(&args).map_err(End::Failed)
                }
                Err(error) => Err(End::Input(error)),
            },
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
    say(&format!("error: {error}"));
    ExitCode::from(code)
}

/// A line to standard error. It may be closed; that is no reason to stop.
fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
    }
}
