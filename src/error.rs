//! The one error type: what went wrong, naming the input, and the way out.

use std::{fmt, io};

/// A failure in words: a message that names the input, and optionally a hint.
///
/// Printed as `error: <message>`, then `hint: <hint>` on a line of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    message: String,
    hint: Option<String>,
    kind: ErrorKind,
}

/// What a failure is, where a caller acts on it or has more to advise than the library knows: the library names no flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ErrorKind {
    /// Nothing that anyone asks for.
    #[default]
    Other,
    /// Nobody reads the output any more.
    BrokenPipe,
    /// No GPU can be had.
    NoGpu,
    /// A kernel failed on a GPU, which does not say where.
    GpuFault {
        /// Whether it ended a run that can be gone on with.
        resumable: bool,
    },
    /// A GPU that worked does not any more.
    GpuLost {
        /// Whether it ended a run that can be gone on with.
        resumable: bool,
    },
    /// A GPU has no memory left for what was asked of it.
    GpuMemory,
    /// The device has too little memory for the networks and their batch.
    MemoryShort {
        /// Bytes that the run needs.
        need: u64,
        /// Bytes that the device has.
        free: u64,
    },
    /// A tensor would have more elements than kernels count.
    TensorTooLarge,
    /// The loss or a weight is no longer finite.
    Diverged,
    /// The disk is full; what was saved before is whole.
    DiskFull,
    /// The folder for a result cannot be written to.
    OutputUnusable,
    /// The folder for a new run holds a run already.
    RunExists,
    /// There is no run to go on with.
    RunMissing,
    /// There is a run, and it cannot be gone on with.
    RunBroken,
    /// Another process writes to the run's folder.
    RunBusy,
    /// More steps are done than the run is to have.
    StepsDone {
        /// Steps of the whole run.
        steps: u64,
        /// Steps done.
        done: u64,
    },
    /// A file is no recording of the reference.
    NotARecording,
}

/// Result with [`Error`] as its error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A failure with a message and no hint. Lower case, no full stop, names the input.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, kind: ErrorKind::Other }
    }

    /// A failed read or write: what could not be done, and the system's reason.
    pub fn io(what: impl fmt::Display, reason: &io::Error) -> Self {
        let kind = match reason.kind() {
            io::ErrorKind::BrokenPipe => ErrorKind::BrokenPipe,
            _ => ErrorKind::Other,
        };
        Self::new(format!("{what}: {}", io_reason(reason))).of_kind(kind)
    }

    /// Says what the failure is.
    pub fn of_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }

    /// Adds the way out.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds another way out, after the hint where there is one.
    pub(crate) fn and_hint(self, more: impl fmt::Display) -> Self {
        let hint = match &self.hint {
            Some(hint) => format!("{hint}; {more}"),
            None => more.to_string(),
        };
        self.hint(hint)
    }

    /// Puts what was being done in front of the message: `<context>: <message>`.
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// What the failure is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message, without the hint.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The hint, where there is one.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// What went wrong in words: the system's own message without its number.
pub(crate) fn io_reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => "unknown error".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_known_by_its_kind() {
        let error = Error::io("cannot print", &io::Error::from_raw_os_error(32));
        assert_eq!((error.message(), error.kind()), ("cannot print: broken pipe", ErrorKind::BrokenPipe));
        let error = Error::io("cannot print", &io::Error::from_raw_os_error(28));
        assert_eq!(
            (error.message(), error.kind()),
            ("cannot print: no space left on device", ErrorKind::Other)
        );
    }
}
