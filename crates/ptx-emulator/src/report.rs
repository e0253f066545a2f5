//! A fault in words: thread, source line, variable; and the counts of a launch by instruction.

use std::fmt::Write as _;

use crate::counters::tally::Tally;
use crate::counters::{Instruction, LaunchCounters};
use crate::error::{Error, ErrorKind, Place};
use crate::fault::Fault;
use crate::isa::REGION;
use crate::launch::LaunchContext;

impl LaunchContext<'_> {
    /// Why an access to global memory is wrong.
    #[cold]
    pub(crate) fn bad_access(&self, lane: u32, address: u64, bytes: u32, what: &str) -> Box<Fault> {
        let Some(r) = self.region(address) else {
            return self.no_region(lane, address, bytes, what);
        };
        let at = address.wrapping_sub(r.base) as i64;
        let (kind, wrong) = if at < 0 || at as u64 + u64::from(bytes) > r.len {
            (ErrorKind::OutOfBounds, "out of bounds")
        } else if r.read_only && what.starts_with("writes") {
            (ErrorKind::ReadOnly, "of constant memory")
        } else if !address.is_multiple_of(u64::from(bytes)) {
            (ErrorKind::Misaligned, "misaligned")
        } else {
            (ErrorKind::Uninitialized, "that nothing has written")
        };
        let place = format!("byte {at} of {}, which has {} bytes", r.describe(), r.len);
        Fault::lane(kind, lane, format!("{what} {bytes} bytes {wrong}, at {place}")).about(&r.name, &r.param)
    }

    /// The fault of an address that belongs to nothing.
    #[cold]
    fn no_region(&self, lane: u32, address: u64, bytes: u32, what: &str) -> Box<Fault> {
        if address >> REGION != 0 {
            let what = format!("{what} {bytes} bytes at {address:#x}, which belongs to no argument");
            return Fault::lane(ErrorKind::OutOfBounds, lane, what);
        }
        let names = match self.nulls.as_slice() {
            [] => String::new(),
            names => format!(" (null arguments: {})", names.join(", ")),
        };
        let what = format!("{what} {bytes} bytes through a null pointer, at address {address:#x}{names}");
        Fault::lane(ErrorKind::NullPointer, lane, what)
    }

    /// The counts of a launch, by instruction.
    pub(crate) fn counters(&self, tally: Tally) -> LaunchCounters {
        let code = self.code;
        let mut instructions = Vec::with_capacity(code.insts.len());
        for (pc, mut counters) in tally.by_inst.into_iter().enumerate() {
            if code.text[pc].is_empty() {
                // A check that the decoder added.
                continue;
            }
            let (class, flops) = code.classes[pc];
            counters.finish(class, flops, code.insts[pc].op);
            let loc = code.locs[pc];
            instructions.push(Instruction {
                text: code.text[pc].clone(),
                ptx_line: loc.ptx,
                kernel_line: loc.kernel,
                file: self.file(loc.inner.file),
                line: loc.inner.line,
                inlined_at: (self.file(loc.outer.file), loc.outer.line),
                class,
                counters,
            });
        }
        LaunchCounters { kernel: code.name.clone(), label: self.label.to_owned(), instructions }
    }

    /// `file:line` of an instruction, with the line it was inlined to.
    pub(crate) fn place(&self, pc: u32) -> String {
        let Some(loc) = self.code.locs.get(pc as usize) else {
            return self.module.to_owned();
        };
        let mut text = format!("{}:{}", self.file(loc.inner.file), loc.inner.line);
        if loc.outer != loc.inner {
            let _ = write!(text, " (inlined at {}:{})", self.file(loc.outer.file), loc.outer.line);
        }
        text
    }

    /// The name of a source file: that of the module where it is the module's own, else what comes after the
    /// source root, if that is known.
    fn file(&self, number: u32) -> String {
        let Some(file) = self.files.get(&number) else { return self.module.to_owned() };
        if file.ends_with(self.module) || self.module.ends_with(file) {
            return self.module.to_owned();
        }
        let root = self.source_root;
        let below = file.rfind(root).filter(|_| !root.is_empty()).map(|at| &file[at + root.len()..]);
        below.unwrap_or(file).to_owned()
    }

    /// The fault in full.
    pub(crate) fn error(&self, block: u64, fault: Fault) -> Error {
        let block = self.block_at(block);
        let thread = fault.lane.map(|lane| self.thread(fault.warp, lane));
        let mut text = format!("kernel {}", self.code.name);
        if !self.label.is_empty() {
            let _ = write!(text, " ({})", self.label);
        }
        let at = |what: &str, [x, y, z]: [u32; 3]| format!("{what} ({x}, {y}, {z})");
        let _ = write!(text, ": {}, ", at("block", block));
        text += &thread.map_or(format!("warp {}", fault.warp), |thread| at("thread", thread));
        let _ = write!(text, ", at {}: {}", self.place(fault.pc), fault.what);
        let mut variable = fault.variable;
        if let Some(at) = fault.shared {
            let mut variables = self.code.shared_names.iter();
            if let Some((name, first, bytes)) = variables.find(|(_, first, n)| at.wrapping_sub(*first) < *n) {
                let _ = write!(text, "; that is byte {} of `{name}`, which has {bytes}", at - first);
                variable.clone_from(name);
            } else if self.dynamic_shared > 0 && at >= self.shared_bytes - self.dynamic_shared {
                let at = at - (self.shared_bytes - self.dynamic_shared);
                let _ = write!(text, "; that is byte {at} of the dynamic shared memory");
            }
        }
        if let Some((warp, pc)) = fault.other {
            let _ = write!(text, "; the other access is by warp {warp} at {}", self.place(pc));
        }
        let instruction = self.code.text.get(fault.pc as usize).cloned();
        if let Some(i) = &instruction {
            let _ = write!(text, " [{i}]");
        }
        let loc = self.code.locs.get(fault.pc as usize).copied().unwrap_or_default();
        Error::new(fault.kind, text).at(Place {
            kernel: self.code.name.clone(),
            label: self.label.to_owned(),
            block: Some(block),
            thread,
            warp: Some(fault.warp),
            file: self.file(loc.inner.file),
            line: loc.inner.line,
            ptx_line: loc.ptx,
            instruction: instruction.unwrap_or_default(),
            variable,
            parameter: fault.parameter,
            detail: fault.what,
        })
    }
}
