//! One launch: what all its blocks share, and how a fault in it is told.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use super::block::{WideRow, each};
use super::code::{Code, MIDDLE, Order, REGION, VARIABLES};
use super::count::{Instruction, LaunchCounters, Tally};
use super::memory::Memory;
use super::races::{Access, Races};
use crate::Error;

/// A range of global memory that a kernel may touch.
pub(super) struct Region<'a> {
    pub memory: &'a Memory,
    /// First byte in the memory.
    pub start: u64,
    pub len: u64,
    /// Address of the first byte.
    pub base: u64,
    /// Nothing in it is unwritten, so reads need no check.
    pub all_written: bool,
    /// Constant memory.
    pub read_only: bool,
    pub name: String,
    /// Of the parameter it was passed as.
    pub param: String,
}

/// A launch being run.
pub(super) struct Job<'a> {
    pub code: &'a Code,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Static and dynamic shared bytes.
    pub shared_bytes: u32,
    pub dynamic_shared: u32,
    /// Bits of each argument.
    pub args: Vec<u64>,
    /// Of each argument; None where it is no buffer.
    pub regions: Vec<Option<Region<'a>>>,
    pub variables: &'a [Region<'a>],
    /// Names of the parameters that are null.
    pub nulls: Vec<String>,
    pub label: &'a str,
    pub module: &'a str,
    pub files: &'a std::collections::HashMap<u32, String>,
    pub reverse: bool,
    pub max_instructions: u64,
    /// Its blocks are resident all at once.
    pub cooperative: bool,
    pub count: bool,
    /// Where races between blocks are checked for.
    pub races: Option<&'a Mutex<Races>>,
}

/// What went wrong, at which lane.
#[derive(Debug)]
pub(super) struct Fault {
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
    pub(super) fn lane(lane: u32, what: impl Into<String>) -> Box<Self> {
        Box::new(Self { lane: Some(lane), warp: 0, pc: 0, what: what.into(), other: None, shared: None })
    }

    /// At that byte of shared memory.
    #[cold]
    pub(super) fn shared(mut self: Box<Self>, at: u32) -> Box<Self> {
        self.shared = Some(at);
        self
    }

    /// A fault of the warp as a whole.
    #[cold]
    pub(super) fn warp(what: impl Into<String>) -> Box<Self> {
        Box::new(Self { lane: None, warp: 0, pc: 0, what: what.into(), other: None, shared: None })
    }
}

impl<'a> Job<'a> {
    /// The region of an address, or None where there is none.
    #[inline(always)]
    pub(super) fn region(&self, address: u64) -> Option<&Region<'a>> {
        let id = address >> REGION;
        if id >= VARIABLES {
            self.variables.get((id - VARIABLES) as usize)
        } else {
            self.regions.get((id as usize).wrapping_sub(1))?.as_ref()
        }
    }

    /// Blocks of the grid.
    pub(super) fn blocks(&self) -> u64 {
        self.grid.iter().map(|x| u64::from(*x)).product()
    }

    /// Threads of a block.
    pub(super) fn threads(&self) -> u32 {
        self.block.iter().product()
    }

    /// Why an access to global memory is wrong.
    #[cold]
    pub(super) fn bad_access(&self, lane: u32, address: u64, bytes: u32, what: &str) -> Box<Fault> {
        let text = match self.region(address) {
            None if address >> REGION == 0 => {
                let names = match self.nulls.as_slice() {
                    [] => String::new(),
                    names => format!(" (null arguments: {})", names.join(", ")),
                };
                format!("{what} {bytes} bytes through a null pointer, at address {address:#x}{names}")
            }
            None => format!("{what} {bytes} bytes at {address:#x}, which belongs to no argument"),
            Some(r) => {
                let at = address.wrapping_sub(r.base) as i64;
                let place = format!("byte {at} of {}, which has {} bytes", r.describe(), r.len);
                if at < 0 || at as u64 + u64::from(bytes) > r.len {
                    format!("{what} {bytes} bytes out of bounds, at {place}")
                } else if r.read_only && what.starts_with("writes") {
                    format!("{what} {bytes} bytes of constant memory, at {place}")
                } else if !address.is_multiple_of(u64::from(bytes)) {
                    format!("{what} {bytes} bytes misaligned, at {place}")
                } else {
                    format!("{what} {bytes} bytes that nothing has written, at {place}")
                }
            }
        };
        Fault::lane(lane, text)
    }

    /// Records accesses of a warp, where races between blocks are checked for.
    #[inline(never)]
    pub(super) fn race(
        &self,
        races: &Mutex<Races>,
        block: u64,
        pc: u32,
        addr: &WideRow,
        m: u32,
        bytes: u32,
        access: Access,
        order: Order,
    ) -> Result<(), Box<Fault>> {
        let mut races = races.lock().unwrap_or_else(PoisonError::into_inner);
        if access == Access::Read
            && order == Order::default()
            && !self.cooperative
            && let Some(r) = self.region(addr[m.trailing_zeros() as usize])
        {
            // Most reads are a few ranges of one buffer, that all is well with.
            let memory = std::ptr::from_ref(r.memory) as usize;
            let mut range: Option<(u64, u64)> = None;
            let mut fine = true;
            for l in each(m) {
                let at = addr[l as usize].wrapping_sub(r.base);
                if at >= r.len {
                    fine = false;
                    break;
                }
                range = Some(match range {
                    Some((from, to)) if from <= at && at <= to => (from, to.max(at + u64::from(bytes))),
                    Some((from, to)) => {
                        fine &= races.read(memory, r.start + from, to - from, block, pc);
                        (at, at + u64::from(bytes))
                    }
                    None => (at, at + u64::from(bytes)),
                });
            }
            if let Some((from, to)) = range {
                fine &= races.read(memory, r.start + from, to - from, block, pc);
            }
            if fine {
                return Ok(());
            }
        }
        for l in each(m) {
            let Some(r) = self.region(addr[l as usize]) else { continue };
            let at = addr[l as usize] - r.base;
            let memory = std::ptr::from_ref(r.memory) as usize;
            let Err(met) = races.touch(memory, r.start + at, bytes, block, pc, access, order) else {
                continue;
            };
            let doing = match access {
                Access::Read => "reads",
                Access::Write => "writes",
                Access::Atomic => "updates",
            };
            let who = match met.block {
                Some(b) => {
                    let [x, y, z] = self.block_at(b);
                    format!("block ({x}, {y}, {z})")
                }
                None => "more than one other block".to_owned(),
            };
            let how = if met.wrote { "writes" } else { "reads" };
            return Err(Fault::lane(
                l,
                format!(
                    "race between blocks: {doing} {bytes} bytes at byte {at} of {}, which {who} {how} in the same \
                     launch, at {}",
                    r.describe(),
                    self.place(met.pc)
                ),
            ));
        }
        Ok(())
    }

    /// The counts of a launch, told by instruction.
    pub(super) fn counters(&self, tally: Tally) -> LaunchCounters {
        let code = self.code;
        let mut instructions = Vec::with_capacity(code.insts.len());
        for (pc, mut counters) in tally.by_inst.into_iter().enumerate() {
            if code.text[pc].is_empty() {
                // A check that the decoder added.
                continue;
            }
            let (class, flops) = code.classes[pc];
            counters.finish(class, flops);
            let loc = code.locs[pc];
            let file =
                |n: u32| self.files.get(&n).map_or(self.module.to_owned(), |f| shorten(f, self.module));
            instructions.push(Instruction {
                text: code.text[pc].clone(),
                ptx_line: loc.ptx,
                kernel_line: loc.kernel,
                file: file(loc.inner.file),
                line: loc.inner.line,
                inlined_at: (file(loc.outer.file), loc.outer.line),
                class,
                counters,
            });
        }
        LaunchCounters { kernel: code.name.clone(), label: self.label.to_owned(), instructions }
    }

    /// `file:line` of an instruction, with the line it was inlined to.
    pub(super) fn place(&self, pc: u32) -> String {
        let Some(loc) = self.code.locs.get(pc as usize) else {
            return self.module.to_owned();
        };
        let file = |n: u32| match self.files.get(&n) {
            Some(f) => shorten(f, self.module),
            None => self.module.to_owned(),
        };
        let mut text = format!("{}:{}", file(loc.inner.file), loc.inner.line);
        if loc.outer != loc.inner {
            let _ = write!(text, " (inlined at {}:{})", file(loc.outer.file), loc.outer.line);
        }
        text
    }

    /// Coordinates of a thread.
    pub(super) fn thread(&self, warp: u32, lane: u32) -> [u32; 3] {
        let t = warp * 32 + lane;
        let [x, y, _] = self.block;
        [t % x, t / x % y, t / (x * y)]
    }

    /// Coordinates of a block.
    pub(super) fn block_at(&self, index: u64) -> [u32; 3] {
        let [x, y, _] = self.grid.map(u64::from);
        [(index % x) as u32, (index / x % y) as u32, (index / (x * y)) as u32]
    }

    /// The fault in full.
    pub(super) fn error(&self, block: u64, fault: &Fault) -> Error {
        let [x, y, z] = self.block_at(block);
        let mut text = format!("kernel {}", self.code.name);
        if !self.label.is_empty() {
            let _ = write!(text, " ({})", self.label);
        }
        let _ = write!(text, ": block ({x}, {y}, {z})");
        match fault.lane {
            Some(lane) => {
                let [x, y, z] = self.thread(fault.warp, lane);
                let _ = write!(text, ", thread ({x}, {y}, {z})");
            }
            None => {
                let _ = write!(text, ", warp {}", fault.warp);
            }
        }
        let _ = write!(text, ", at {}: {}", self.place(fault.pc), fault.what);
        let variable =
            |at: u32| self.code.shared_names.iter().find(|(_, first, n)| at.wrapping_sub(*first) < *n);
        match fault.shared.map(|at| (at, variable(at))) {
            Some((at, Some((name, first, bytes)))) => {
                let _ = write!(text, "; that is byte {} of `{name}`, which has {bytes}", at - first);
            }
            Some((at, None)) if self.dynamic_shared > 0 && at >= self.shared_bytes - self.dynamic_shared => {
                let at = at - (self.shared_bytes - self.dynamic_shared);
                let _ = write!(text, "; that is byte {at} of the dynamic shared memory");
            }
            _ => {}
        }
        if let Some((warp, pc)) = fault.other {
            let _ = write!(text, "; the other access is by warp {warp} at {}", self.place(pc));
        }
        if let Some(i) = self.code.text.get(fault.pc as usize) {
            let _ = write!(text, " [{i}]");
        }
        Error::new(text)
    }
}

impl Region<'_> {
    pub(super) fn describe(&self) -> String {
        if self.param.is_empty() || self.param == self.name {
            format!("`{}`", self.name)
        } else {
            format!("`{}` (argument {})", self.name, self.param)
        }
    }
}

/// The path below the folder of the module, where the name ends with it.
fn shorten(file: &str, module: &str) -> String {
    if file.ends_with(module) || module.ends_with(file) {
        return module.to_owned();
    }
    match file.rfind("kernels/") {
        Some(at) => file[at + "kernels/".len()..].to_owned(),
        None => file.to_owned(),
    }
}

/// Address of the first byte of an argument's buffer: the low bits tell its true alignment.
pub(super) fn argument_base(index: usize, offset: u64) -> u64 {
    ((index as u64 + 1) << REGION) | MIDDLE | (offset % 256)
}

/// Address of a module variable.
pub(super) fn variable_base(index: usize) -> u64 {
    (VARIABLES + index as u64) << REGION | MIDDLE
}
