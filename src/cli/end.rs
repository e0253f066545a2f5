//! How commands end, and how they speak to whoever started them.

use std::io::{self, ErrorKind, Write};

use ugatit::Error;

/// How a command ended, other than well.
pub(super) enum End {
    /// Bad usage or bad input: nothing was started.
    Input(Error),
    /// It was started, and failed.
    Failed(Error),
    /// It did its work, but not all of it; the rest was reported.
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

/// A line to standard error. It may be closed; that is no reason to stop.
pub(super) fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
