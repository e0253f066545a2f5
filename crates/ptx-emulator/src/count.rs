//! What a launch executed and moved: exact counts by instruction, which do not depend on the host.

use super::block::{WideRow, each};

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

/// Counts of one instruction, one source line or one launch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Instructions that a warp issued, whatever number of its lanes took part.
    pub warp_instructions: u64,
    /// Lanes that took part, over all of them.
    pub thread_instructions: u64,
    /// Floating-point operations: one per add, subtract, multiply, divide; two per multiply-add.
    pub flops: u64,
    /// Bytes that lanes asked for from global memory.
    pub global_read_bytes: u64,
    /// Bytes that lanes gave to global memory.
    pub global_written_bytes: u64,
    /// Different 32-byte sectors of global memory that each warp access read, summed.
    pub read_sectors: u64,
    /// Different 32-byte sectors of global memory that each warp access wrote, summed.
    pub written_sectors: u64,
    /// Passes that accesses to shared memory took, 32 banks of 4 bytes each.
    pub shared_passes: u64,
    /// Of these, the passes beyond those that a conflict-free access takes.
    pub bank_conflicts: u64,
    /// Branches at which the lanes of a warp parted.
    pub divergent_branches: u64,
    /// Block barriers, by warp.
    pub barriers: u64,
    /// Matrix multiply-add instructions, by warp.
    pub matrix_instructions: u64,
}

impl std::ops::AddAssign for Counters {
    fn add_assign(&mut self, o: Self) {
        self.warp_instructions += o.warp_instructions;
        self.thread_instructions += o.thread_instructions;
        self.flops += o.flops;
        self.global_read_bytes += o.global_read_bytes;
        self.global_written_bytes += o.global_written_bytes;
        self.read_sectors += o.read_sectors;
        self.written_sectors += o.written_sectors;
        self.shared_passes += o.shared_passes;
        self.bank_conflicts += o.bank_conflicts;
        self.divergent_branches += o.divergent_branches;
        self.barriers += o.barriers;
        self.matrix_instructions += o.matrix_instructions;
    }
}

/// One instruction of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// As the PTX has it.
    pub text: String,
    /// Its line in the module's PTX, from 1.
    pub ptx_line: u32,
    /// The line of the kernel's own statement: that of the call, where the call was inlined.
    pub kernel_line: u32,
    /// Source file, as `.loc` names it.
    pub file: String,
    /// Line in that file.
    pub line: u32,
    /// Where that line was inlined, outermost: file and line; the same as above where it was not.
    pub inlined_at: (String, u32),
    /// What kind of work it is.
    pub class: Class,
    /// Its counts.
    pub counters: Counters,
}

/// Counts of one source line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Source file.
    pub file: String,
    /// Line in it.
    pub line: u32,
    /// Counts of all its instructions.
    pub counters: Counters,
}

/// What one launch did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchCounters {
    /// The kernel.
    pub kernel: String,
    /// What the launch is for.
    pub label: String,
    /// Its instructions, in the order of the PTX.
    pub instructions: Vec<Instruction>,
}

impl LaunchCounters {
    /// Counts of the whole launch.
    pub fn total(&self) -> Counters {
        let mut sum = Counters::default();
        for i in &self.instructions {
            sum += i.counters;
        }
        sum
    }

    /// Counts of the instructions of a class.
    pub fn of_class(&self, class: Class) -> Counters {
        let mut sum = Counters::default();
        for i in self.instructions.iter().filter(|i| i.class == class) {
            sum += i.counters;
        }
        sum
    }

    /// Counts by source line, in the order of file and line.
    pub fn by_line(&self) -> Vec<Line> {
        let mut lines = std::collections::BTreeMap::<(&str, u32), Counters>::new();
        for i in &self.instructions {
            *lines.entry((&i.file, i.line)).or_default() += i.counters;
        }
        lines
            .into_iter()
            .map(|((file, line), counters)| Line { file: file.to_owned(), line, counters })
            .collect()
    }
}

/// Counts of a launch while it runs, by instruction.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub by_inst: Vec<Counters>,
}

impl Tally {
    /// An instruction that a warp issues for the lanes of `m`.
    #[inline(always)]
    pub(super) fn issue(&mut self, pc: usize, m: u32) {
        let c = &mut self.by_inst[pc];
        c.warp_instructions += 1;
        c.thread_instructions += u64::from(m.count_ones());
    }

    /// Takes an issue back: the instruction waits, and will be issued again.
    pub(super) fn unissue(&mut self, pc: usize, m: u32) {
        let c = &mut self.by_inst[pc];
        c.warp_instructions -= 1;
        c.thread_instructions -= u64::from(m.count_ones());
    }

    pub(super) fn add(&mut self, other: &Self) {
        if self.by_inst.is_empty() {
            self.by_inst.clone_from(&other.by_inst);
        } else {
            for (a, b) in self.by_inst.iter_mut().zip(&other.by_inst) {
                *a += *b;
            }
        }
    }

    /// An access to global memory.
    #[inline(never)]
    pub(super) fn global(&mut self, pc: u32, addr: &WideRow, m: u32, bytes: u32, write: bool) {
        let mut sectors = [0; 32];
        let mut n = 0;
        for l in each(m) {
            sectors[n] = addr[l as usize] >> 5;
            n += 1;
        }
        let sectors = &mut sectors[..n];
        sectors.sort_unstable();
        let different = sectors.chunk_by(|a, b| a == b).count() as u64;
        let c = &mut self.by_inst[pc as usize];
        let bytes = u64::from(m.count_ones()) * u64::from(bytes);
        if write {
            c.global_written_bytes += bytes;
            c.written_sectors += different;
        } else {
            c.global_read_bytes += bytes;
            c.read_sectors += different;
        }
    }

    /// An access to shared memory: 8 bytes a lane go by half warps, 16 by quarters.
    #[inline(never)]
    pub(super) fn shared(&mut self, pc: u32, addr: &WideRow, m: u32, bytes: u32) {
        let phases = (bytes / 4).max(1);
        let width = 32 / phases;
        let c = &mut self.by_inst[pc as usize];
        for phase in 0..phases {
            let lanes = m >> (phase * width) << (phase * width);
            let lanes = if width == 32 { m } else { lanes & (((1u32 << width) - 1) << (phase * width)) };
            if lanes == 0 {
                continue;
            }
            let mut words = [u64::MAX; 32];
            let mut n = 0;
            for l in each(lanes) {
                for k in 0..phases {
                    words[n] = addr[l as usize] / 4 + u64::from(k);
                    n += 1;
                }
            }
            let words = &mut words[..n];
            words.sort_unstable();
            let mut banks = [0u64; 32];
            for same in words.chunk_by(|a, b| a == b) {
                banks[(same[0] % 32) as usize] += 1;
            }
            let passes = banks.into_iter().max().unwrap_or(1);
            c.shared_passes += passes;
            c.bank_conflicts += passes - 1;
        }
    }
}

impl Counters {
    /// Fills in what follows from the class of an instruction.
    pub(super) fn finish(&mut self, class: Class, flops: u32) {
        self.flops += self.thread_instructions * u64::from(flops);
        match class {
            Class::Barrier => self.barriers = self.warp_instructions,
            Class::Matrix => self.matrix_instructions = self.warp_instructions,
            _ => {}
        }
    }
}

/// Class and floating-point operations a lane of an opcode.
pub(super) fn classify(op: &[String]) -> (Class, u32) {
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
