//! What kind of work an instruction is.

/// What kind of work an instruction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// 32-bit floating-point arithmetic and comparison.
    Fp32,
    /// 16-bit floating-point arithmetic.
    Fp16,
    /// 64-bit floating-point arithmetic.
    Fp64,
    /// Integer and logic.
    Int,
    /// Conversions between types.
    Convert,
    /// Moves, selections and parameter loads.
    Move,
    /// Division, roots, exponentials and the like.
    Special,
    /// Loads of global memory.
    LoadGlobal,
    /// Stores to global memory.
    StoreGlobal,
    /// Loads of shared memory.
    LoadShared,
    /// Stores to shared memory.
    StoreShared,
    /// Loads and stores of local memory.
    Local,
    /// Atomics.
    Atomic,
    /// Asynchronous copies from global to shared memory, and their waits.
    Copy,
    /// Matrix multiply-adds.
    Matrix,
    /// Shuffles, votes and the like.
    Warp,
    /// Branches and exits.
    Branch,
    /// Block barriers.
    Barrier,
    /// Fences and hints.
    Other,
}

impl Class {
    /// All of them, in order.
    pub const ALL: [Self; 19] = [
        Self::Fp32,
        Self::Fp16,
        Self::Fp64,
        Self::Int,
        Self::Convert,
        Self::Move,
        Self::Special,
        Self::LoadGlobal,
        Self::StoreGlobal,
        Self::LoadShared,
        Self::StoreShared,
        Self::Local,
        Self::Atomic,
        Self::Copy,
        Self::Matrix,
        Self::Warp,
        Self::Branch,
        Self::Barrier,
        Self::Other,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Fp64 => "fp64",
            Self::Int => "integer",
            Self::Convert => "conversion",
            Self::Move => "move",
            Self::Special => "special",
            Self::LoadGlobal => "load global",
            Self::StoreGlobal => "store global",
            Self::LoadShared => "load shared",
            Self::StoreShared => "store shared",
            Self::Local => "local",
            Self::Atomic => "atomic",
            Self::Copy => "async copy",
            Self::Matrix => "matrix",
            Self::Warp => "warp",
            Self::Branch => "branch",
            Self::Barrier => "barrier",
            Self::Other => "other",
        }
    }
}

/// Class and floating-point operations a lane of an opcode.
pub(crate) fn classify(op: &[String]) -> (Class, u32) {
    let has = |w: &str| op.iter().any(|o| o == w);
    let name = op[0].as_str();
    let double = has("f64");
    let half = has("f16") || has("bf16");
    let pair = has("f16x2") || has("bf16x2");
    let float = has("f32") || double || half || pair;
    let arithmetic = match (double, half || pair) {
        (true, _) => Class::Fp64,
        (_, true) => Class::Fp16,
        _ => Class::Fp32,
    };
    let lanes = if pair { 2 } else { 1 };
    match name {
        "ld" | "ldu" | "st" if has("param") => (Class::Move, 0),
        "ld" | "ldu" if has("shared") || has("shared::cta") => (Class::LoadShared, 0),
        "st" if has("shared") || has("shared::cta") => (Class::StoreShared, 0),
        "ld" | "ldu" | "st" if has("local") => (Class::Local, 0),
        "ld" | "ldu" => (Class::LoadGlobal, 0),
        "st" => (Class::StoreGlobal, 0),
        "ldmatrix" => (Class::LoadShared, 0),
        "stmatrix" => (Class::StoreShared, 0),
        "atom" | "red" => (Class::Atomic, 0),
        "cp" if has("mbarrier") => (Class::Barrier, 0),
        "cp" => (Class::Copy, 0),
        "mma" => {
            // m16n8k: 16 x 8 x k multiply-adds, shared by 32 lanes.
            let k = op.iter().find_map(|w| w.strip_prefix("m16n8k")?.parse::<u32>().ok());
            (Class::Matrix, 8 * k.unwrap_or(0))
        }
        "shfl" | "vote" | "match" | "redux" | "activemask" | "elect" => (Class::Warp, 0),
        "bra" | "brx" | "ret" | "exit" | "trap" | "brkpt" | "call" => (Class::Branch, 0),
        "bar" | "barrier" if has("warp") => (Class::Warp, 0),
        "bar" | "barrier" | "mbarrier" => (Class::Barrier, 0),
        "mov" | "selp" | "slct" | "cvta" => (Class::Move, 0),
        "cvt" => (Class::Convert, 0),
        "ex2" | "lg2" | "sin" | "cos" | "tanh" | "rsqrt" => (Class::Special, 0),
        "rcp" | "sqrt" => (Class::Special, lanes),
        "div" if float => (Class::Special, lanes),
        "fma" | "mad" if float => (arithmetic, 2 * lanes),
        "add" | "sub" | "mul" if float => (arithmetic, lanes),
        "membar" | "fence" | "nanosleep" | "prefetch" | "prefetchu" | "discard" | "applypriority" => {
            (Class::Other, 0)
        }
        _ if float => (arithmetic, 0),
        _ => (Class::Int, 0),
    }
}
