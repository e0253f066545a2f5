//! What a launch executed and moved: exact counts by instruction, which do not depend on the host.

pub(crate) mod tally;

use crate::isa::{Class, Op};

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
    /// Different 128-byte lines of global memory that each warp access touched, summed: reads and writes together, an
    /// atomic once.
    pub global_lines: u64,
    /// Passes over the 32 banks, of 4 bytes each, that accesses to shared memory took.
    pub wavefronts: u64,
    /// Of these, the ones beyond those that a conflict-free access takes.
    pub bank_conflicts: u64,
    /// Branches at which the lanes of a warp parted.
    pub divergent_branches: u64,
    /// Shuffles, by warp.
    pub shuffles: u64,
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
        self.global_lines += o.global_lines;
        self.wavefronts += o.wavefronts;
        self.bank_conflicts += o.bank_conflicts;
        self.divergent_branches += o.divergent_branches;
        self.shuffles += o.shuffles;
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

/// What one block of a launch did, or all blocks of a cooperative one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Its counts, by instruction.
    pub counters: LaunchCounters,
    /// Blocks that ran: 1, or all of them.
    pub blocks: u64,
    /// Different 32-byte sectors of global memory that the one block read at all: what it must get from the L2
    /// however well the L1 serves it.
    pub read_sectors: Option<u64>,
    /// Instructions of the one block's busiest warp: with the block's count, how many warps share the work.
    pub busiest_warp: Option<u64>,
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

impl Counters {
    /// Fills in what follows from the class of an instruction and from what it is.
    pub(crate) fn finish(&mut self, class: Class, flops: u32, op: Op) {
        self.flops += self.thread_instructions * u64::from(flops);
        if op == Op::Shfl {
            self.shuffles = self.warp_instructions;
        }
        match class {
            Class::Barrier => self.barriers = self.warp_instructions,
            Class::Matrix => self.matrix_instructions = self.warp_instructions,
            _ => {}
        }
    }
}
