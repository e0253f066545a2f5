//! The error type.

use std::fmt;

/// What kind of error it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The text is not PTX.
    Ptx,
    /// The module has no kernel of that name.
    UnknownKernel,
    /// The kernel contains something that the emulator does not run.
    Unsupported,
    /// Grid, block or arguments do not fit the kernel.
    Launch,
    /// The host has no memory, or a range lies outside a [`Memory`](crate::Memory).
    HostMemory,
    /// The host's processor lacks instructions that the emulator needs.
    Host,
    /// An access outside the buffer, variable or memory that the address belongs to.
    OutOfBounds,
    /// An access through a null pointer.
    NullPointer,
    /// An access at an address that is no multiple of its size.
    Misaligned,
    /// A store to constant memory.
    ReadOnly,
    /// A read of memory or a register that nothing has written.
    Uninitialized,
    /// Two accesses, one of them a write, that nothing orders.
    Race,
    /// A barrier, shuffle or the like that not all reach whom it waits for.
    Barrier,
    /// More instructions than [`Options::max_instructions`](crate::Options::max_instructions) allows.
    EndlessLoop,
    /// The kernel ended itself: `trap`, or an assertion that failed.
    Trap,
    /// Operands that the instruction does not allow.
    Invalid,
}

/// Where an error arose; what is not known is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub kernel: String,
    pub label: String,
    pub block: Option<[u32; 3]>,
    pub thread: Option<[u32; 3]>,
    pub warp: Option<u32>,
    pub file: String,
    pub line: u32,
    pub ptx_line: u32,
    pub instruction: String,
    pub variable: String,
    pub parameter: String,
    pub detail: String,
}

/// A module that cannot be run, or a kernel that did what it must not.
///
/// `Display` gives one line with everything; the accessors give its parts, for programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    place: Option<Box<Place>>,
}

/// Result with [`Error`] as its error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A text, where there is one.
fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), place: None }
    }

    /// A kernel that contains something that the emulator does not run; line and instruction may be unknown.
    pub(crate) fn unsupported(kernel: &str, ptx_line: u32, instruction: &str, message: String) -> Self {
        let (kernel, instruction) = (kernel.to_owned(), instruction.to_owned());
        let place = Place { kernel, ptx_line, instruction, ..Place::default() };
        Self::new(ErrorKind::Unsupported, message).at(place)
    }

    /// The same, at a place.
    pub(crate) fn at(mut self, place: Place) -> Self {
        self.place = Some(Box::new(place));
        self
    }

    fn text(&self, of: impl Fn(&Place) -> &str) -> Option<&str> {
        self.place.as_deref().and_then(|place| some(of(place)))
    }

    /// What kind of error it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What went wrong and where, in one line.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What went wrong, without the place.
    pub fn detail(&self) -> &str {
        self.text(|p| &p.detail).unwrap_or(&self.message)
    }

    /// The kernel.
    pub fn kernel(&self) -> Option<&str> {
        self.text(|p| &p.kernel)
    }

    /// The label of the launch.
    pub fn label(&self) -> Option<&str> {
        self.text(|p| &p.label)
    }

    /// The block in the grid: x, y, z.
    pub fn block(&self) -> Option<[u32; 3]> {
        self.place.as_ref()?.block
    }

    /// The thread in its block: x, y, z. None where a warp as a whole is at fault.
    pub fn thread(&self) -> Option<[u32; 3]> {
        self.place.as_ref()?.thread
    }

    /// The number of the warp in its block.
    pub fn warp(&self) -> Option<u32> {
        self.place.as_ref()?.warp
    }

    /// The source file that `.loc` names for the instruction, or the name of the module.
    pub fn file(&self) -> Option<&str> {
        self.text(|p| &p.file)
    }

    /// The line in the source file, from 1; None where the PTX gives none.
    pub fn line(&self) -> Option<u32> {
        self.place.as_ref().map(|p| p.line).filter(|line| *line > 0)
    }

    /// The line in the module's PTX, from 1.
    pub fn ptx_line(&self) -> Option<u32> {
        self.place.as_ref().map(|p| p.ptx_line).filter(|line| *line > 0)
    }

    /// The instruction, as the PTX has it.
    pub fn instruction(&self) -> Option<&str> {
        self.text(|p| &p.instruction)
    }

    /// The buffer, module variable, shared variable or register that the error is about.
    pub fn variable(&self) -> Option<&str> {
        self.text(|p| &p.variable)
    }

    /// The kernel parameter that the buffer was passed as.
    pub fn parameter(&self) -> Option<&str> {
        self.text(|p| &p.parameter)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
