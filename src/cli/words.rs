//! What the library's facts mean on the command line: names of flags, and advice.

use ugatit::format;
use ugatit::nn::{Config, ConfigError};
use ugatit::train::run::Event;
use ugatit::{Error, ErrorKind};

/// The flag that sets a field of the configuration.
pub(super) fn flag(field: &str) -> String {
    match field {
        "img_size" => "--size".to_owned(),
        "iterations" => "--steps".to_owned(),
        "decay" => "--no-decay".to_owned(),
        _ => format!("--{}", field.replace('_', "-")),
    }
}

/// Checks what flags made of a configuration.
///
/// # Errors
/// Names the flag and what it may be.
pub(super) fn check(cfg: &Config) -> Result<(), Error> {
    cfg.check().map_err(|e| config_error(&e))
}

/// A note or warning of a run for standard error; none for a step, which is progress.
pub(super) fn event(event: &Event) -> Option<String> {
    match event {
        Event::Note(text) => Some(text.clone()),
        Event::Warning(text) => Some(format!("warning: {text}")),
        Event::SlowEmulator { seconds } => Some(format!(
            "warning: the emulator will take {} or so for each step; a small network (--light --size 32 --ch 8 \
             --n-res 2 --n-dis 4) takes less than a second",
            format::duration(*seconds)
        )),
        Event::Step { .. } => None,
    }
}

fn config_error(error: &ConfigError) -> Error {
    match *error {
        ConfigError::Count { field, value, min, max } => {
            let counted = match field {
                "n_dis" => format!("a depth from {min} to {max}"),
                "n_res" => format!("{min} to {max} blocks"),
                "ch" => format!("a width from {min} to {max}"),
                _ => format!("{min} to {max}"),
            };
            Error::new(format!("{} {value} is out of range", flag(field))).hint(format!("give {counted}"))
        }
        ConfigError::SizeNotMultipleOfFour { size, near } => {
            Error::new(format!("--size {size} is not a multiple of 4"))
                .hint(format!("the generator halves the image twice; try --size {near}"))
        }
        ConfigError::SizeTooSmall { size, min, n_dis, deepest } => {
            let hint = match deepest {
                Some(n) => format!("give --size {min} or more, or --n-dis {n}"),
                None => format!("give --size {min} or more"),
            };
            Error::new(format!("--size {size} is too small for --n-dis {n_dis}")).hint(hint)
        }
        ConfigError::SizeTooLarge { size, max } => {
            Error::new(format!("--size {size} is too large")).hint(format!("give at most {max}"))
        }
        ConfigError::NoSteps => Error::new("--steps 0 trains nothing").hint("give at least one step"),
        ConfigError::DecayOverOneStep => {
            Error::new(error.to_string()).hint("add --no-decay, or give more --steps")
        }
        ConfigError::NotFromZeroUp { field, value } => {
            Error::new(format!("{} {value} is not a number from 0 up", flag(field)))
                .hint("give a finite number from 0 up")
        }
        ConfigError::Share { field, value, range } => {
            Error::new(format!("{} {value} is out of range", flag(field)))
                .hint(format!("give a number in {range}"))
        }
    }
}

/// The way out that only someone at the command line has.
fn advice(kind: ErrorKind) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::Other | ErrorKind::BrokenPipe => return None,
        ErrorKind::NoGpu => "--device emulator needs no GPU",
        ErrorKind::GpuFault { resumable: false } => "--device emulator names the line of the kernel",
        ErrorKind::GpuFault { resumable: true } => {
            "--device emulator names the line of the kernel; --resume goes on from the newest checkpoint"
        }
        ErrorKind::GpuLost { resumable: false } => return None,
        ErrorKind::GpuLost { resumable: true } => "--resume goes on from the newest checkpoint",
        ErrorKind::MemoryShort { .. } | ErrorKind::GpuMemory => {
            "try --light, a smaller --size, --ch or --batch-size"
        }
        ErrorKind::TensorTooLarge => "try a smaller --size, --ch or --batch-size",
        ErrorKind::Diverged => "try a new run with a lower --lr",
        ErrorKind::DiskFull => "make room for it, then go on with --resume",
        ErrorKind::OutputUnusable => "give another --out",
        ErrorKind::RunExists => "go on with it by --resume, or give another --out",
        ErrorKind::RunMissing => "without --resume a new run is started",
        ErrorKind::RunBroken => "give another --out to begin anew",
        ErrorKind::RunBusy => "wait for it, or give another --out",
        ErrorKind::StepsDone { .. } => "give more --steps",
        ErrorKind::NotARecording => "see 'ugatit verify --help'",
    })
}

/// The error as it is printed: the library's hint, then the command line's advice.
pub(super) fn with_advice(error: Error) -> Error {
    let error = match error.kind() {
        kind @ ErrorKind::StepsDone { steps, done } => {
            Error::new(format!("--steps {steps}, but step {done} is done already")).of_kind(kind)
        }
        _ => error,
    };
    let hint = match (error.hint_text(), advice(error.kind())) {
        (Some(hint), Some(advice)) => format!("{hint}; {advice}"),
        (None, Some(advice)) => advice.to_owned(),
        (_, None) => return error,
    };
    error.hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_values_are_named_by_their_flags() {
        let bad = |change: fn(&mut Config)| {
            let mut cfg = Config::default();
            change(&mut cfg);
            check(&cfg).expect_err("must fail").to_string()
        };
        assert_eq!(
            bad(|c| c.img_size = 258),
            "--size 258 is not a multiple of 4\nhint: the generator halves the image twice; try --size 260"
        );
        assert_eq!(
            bad(|c| c.img_size = 64),
            "--size 64 is too small for --n-dis 6\nhint: give --size 96 or more, or --n-dis 5"
        );
        assert_eq!(
            bad(|c| c.iterations = 1),
            "one step cannot have a falling learning rate\nhint: add --no-decay, or give more --steps"
        );
        assert_eq!(
            bad(|c| c.cam_weight = -1.0),
            "--cam-weight -1 is not a number from 0 up\nhint: give a finite number from 0 up"
        );
        assert_eq!(bad(|c| c.rho_max = 2.0), "--rho-max 2 is out of range\nhint: give a number in (0, 1]");
        assert_eq!(bad(|c| c.n_res = 0), "--n-res 0 is out of range\nhint: give 1 to 64 blocks");
    }

    #[test]
    fn advice_follows_the_hint() {
        let error = Error::new("no").of_kind(ErrorKind::NoGpu);
        assert_eq!(with_advice(error).to_string(), "no\nhint: --device emulator needs no GPU");
        let error = Error::new("no").hint("it takes 5 MB").of_kind(ErrorKind::DiskFull);
        assert_eq!(
            with_advice(error).to_string(),
            "no\nhint: it takes 5 MB; make room for it, then go on with --resume"
        );
        let lost = |resumable| Error::new("lost").hint("see dmesg").of_kind(ErrorKind::GpuLost { resumable });
        assert_eq!(with_advice(lost(false)).to_string(), "lost\nhint: see dmesg");
        assert_eq!(
            with_advice(lost(true)).to_string(),
            "lost\nhint: see dmesg; --resume goes on from the newest checkpoint"
        );
        assert_eq!(with_advice(Error::new("no")).to_string(), "no");
        let error = Error::new("done").of_kind(ErrorKind::StepsDone { steps: 2, done: 3 });
        assert_eq!(
            with_advice(error).to_string(),
            "--steps 2, but step 3 is done already\nhint: give more --steps"
        );
    }
}
