//! A fault, as the interpreter raises it.

use crate::ErrorKind;

/// What an instruction gives, or its fault.
pub(crate) type Step<T = ()> = Result<T, Box<Fault>>;

/// What went wrong, at which lane.
#[derive(Debug)]
pub(crate) struct Fault {
    pub kind: ErrorKind,
    pub lane: Option<u32>,
    pub warp: u32,
    pub pc: u32,
    pub what: String,
    /// The other access of a race: its warp and its instruction.
    pub other: Option<(u32, u32)>,
    /// Byte of shared memory.
    pub shared: Option<u32>,
    /// The buffer, variable or register it is about; empty where there is none.
    pub variable: String,
    /// The kernel parameter it is about; empty where there is none.
    pub parameter: String,
}

impl Fault {
    #[cold]
    fn new(kind: ErrorKind, lane: Option<u32>, what: String) -> Box<Self> {
        let (variable, parameter) = (String::new(), String::new());
        Box::new(Self { kind, lane, warp: 0, pc: 0, what, other: None, shared: None, variable, parameter })
    }

    /// A fault of a lane; the run loop adds the warp and the instruction.
    #[cold]
    pub(crate) fn lane(kind: ErrorKind, lane: u32, what: impl Into<String>) -> Box<Self> {
        Self::new(kind, Some(lane), what.into())
    }

    /// A fault of the warp as a whole.
    #[cold]
    pub(crate) fn warp(kind: ErrorKind, what: impl Into<String>) -> Box<Self> {
        Self::new(kind, None, what.into())
    }

    /// At that byte of shared memory.
    #[cold]
    pub(crate) fn shared(mut self: Box<Self>, at: u32) -> Box<Self> {
        self.shared = Some(at);
        self
    }

    /// Against an access of that warp at that instruction.
    #[cold]
    pub(crate) fn against(mut self: Box<Self>, warp: u32, pc: u32) -> Box<Self> {
        self.other = Some((warp, pc));
        self
    }

    /// About a buffer, variable or register, and the parameter it was passed as.
    #[cold]
    pub(crate) fn about(mut self: Box<Self>, variable: &str, parameter: &str) -> Box<Self> {
        (self.variable, self.parameter) = (variable.to_owned(), parameter.to_owned());
        self
    }
}
