use std::fmt;
use std::path::PathBuf;

use crate::version::Version;

/// The result of what can fail here.
pub type Result<T> = std::result::Result<T, Error>;

/// Why NVRTC is not found, not loaded or gives no result.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// No folder has an NVRTC that is new enough.
    NotFound {
        /// Those that are too old: the library, and its version.
        too_old: Vec<(PathBuf, Version)>,
        /// The oldest that was asked for.
        oldest: Version,
    },
    /// `NVRTC_DIR` names a folder that has none.
    NotInFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// `NVRTC_DIR` names a folder whose NVRTC is too old.
    TooOld {
        /// The folder.
        folder: PathBuf,
        /// What it has.
        version: Version,
        /// The oldest that was asked for.
        oldest: Version,
    },
    /// A file of it cannot be found or loaded.
    Load {
        /// The file.
        file: PathBuf,
        /// Why, in the system's words.
        reason: String,
    },
    /// The library has no function of that name.
    Lacks {
        /// The function.
        function: String,
        /// Why, in the system's words.
        reason: String,
    },
    /// It does not say which version it is.
    Silent {
        /// The library.
        file: PathBuf,
        /// The status it gives.
        status: i32,
    },
    /// It cannot compile for an architecture.
    Architecture {
        /// The library.
        file: PathBuf,
        /// Its version.
        version: Version,
        /// Compute capability times ten.
        arch: u32,
    },
    /// A text for it has a NUL byte.
    Nul,
    /// It refuses a text or an option before compiling.
    Refused {
        /// The status in NVRTC's words.
        status: String,
    },
    /// The text does not compile.
    Compile {
        /// The compiler's log.
        log: String,
        /// The status in NVRTC's words.
        status: String,
    },
    /// It compiled but gives no result.
    Output {
        /// Which one, such as `PTX`.
        what: &'static str,
        /// The status in NVRTC's words.
        status: String,
    },
    /// The PTX is not UTF-8.
    NotText,
}

/// `NVRTC 11.8 is too old, at least 12.4 is needed`.
pub(crate) fn too_old(version: Version, oldest: Version) -> String {
    format!("NVRTC {}.{} is too old, at least {}.{} is needed", version.0, version.1, oldest.0, oldest.1)
}

impl fmt::Display for Error {
    /// In words: a line, and for [`Error::NotFound`] and [`Error::Compile`] several.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { too_old: old, oldest } => {
                write!(f, "no NVRTC was found")?;
                old.iter().try_for_each(|(file, version)| {
                    write!(f, "\nnote: {}: {}", file.display(), too_old(*version, *oldest))
                })
            }
            Self::NotInFolder { folder } => write!(
                f,
                "NVRTC_DIR={} holds no NVRTC (libnvrtc.so and libnvrtc-builtins.so)",
                folder.display()
            ),
            Self::TooOld { folder, version, oldest } => {
                write!(f, "NVRTC_DIR={}: {}", folder.display(), too_old(*version, *oldest))
            }
            Self::Load { file, reason } => write!(f, "cannot load {}: {reason}", file.display()),
            Self::Lacks { function, reason } => write!(f, "NVRTC lacks {function}: {reason}"),
            Self::Silent { file, status } => {
                write!(f, "{} does not answer (status {status})", file.display())
            }
            Self::Architecture { file, version: (major, minor), arch } => {
                write!(f, "{} (NVRTC {major}.{minor}) cannot compile for sm_{arch}", file.display())
            }
            Self::Nul => write!(f, "the source, one of its headers or an option has a NUL"),
            Self::Refused { status } => write!(f, "NVRTC makes no program of it: {status}"),
            Self::Compile { log, status } => {
                let log = crate::ptxas::without_report(log);
                if log.is_empty() { write!(f, "{status}") } else { write!(f, "{log}\n{status}") }
            }
            Self::Output { what, status } => write!(f, "NVRTC gives no {what}: {status}"),
            Self::NotText => write!(f, "NVRTC's PTX is not text"),
        }
    }
}

impl std::error::Error for Error {}
