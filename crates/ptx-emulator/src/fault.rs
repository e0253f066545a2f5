//! A fault, as the interpreter raises it.

/// What an instruction gives, or its fault.
pub(crate) type Step<T = ()> = Result<T, Box<Fault>>;

/// What went wrong, at which lane.
#[derive(Debug)]
pub(crate) struct Fault {
    pub lane: Option<u32>,
    pub warp: u32,
    pub pc: u32,
    pub what: String,
    /// The other access of a race.
    pub other: Option<(u32, u32)>,
    /// Byte of shared memory.
    pub shared: Option<u32>,
}

impl Fault {
    /// A fault of a lane; the run loop adds the warp and the instruction.
    #[cold]
    pub(crate) fn lane(lane: u32, what: impl Into<String>) -> Box<Self> {
        Box::new(Self { lane: Some(lane), warp: 0, pc: 0, what: what.into(), other: None, shared: None })
    }

    /// At that byte of shared memory.
    #[cold]
    pub(crate) fn shared(mut self: Box<Self>, at: u32) -> Box<Self> {
        self.shared = Some(at);
        self
    }

    /// A fault of the warp as a whole.
    #[cold]
    pub(crate) fn warp(what: impl Into<String>) -> Box<Self> {
        Box::new(Self { lane: None, warp: 0, pc: 0, what: what.into(), other: None, shared: None })
    }
}
