//! A fault in words: thread, source line, variable; and the counts of a launch by instruction.

use std::fmt::Write as _;

use crate::Error;
use crate::counters::tally::Tally;
use crate::counters::{Instruction, LaunchCounters};
use crate::fault::Fault;
use crate::isa::REGION;
use crate::launch::Job;

impl Job<'_> {
    /// Why an access to global memory is wrong.
    #[cold]
    pub(crate) fn bad_access(&self, lane: u32, address: u64, bytes: u32, what: &str) -> Box<Fault> {
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

    /// The counts of a launch, told by instruction.
    pub(crate) fn counters(&self, tally: Tally) -> LaunchCounters {
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
    pub(crate) fn place(&self, pc: u32) -> String {
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

    /// The fault in full.
    pub(crate) fn error(&self, block: u64, fault: &Fault) -> Error {
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
