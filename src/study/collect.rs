//! From the emulator's counters to [`Counts`], by line of the PTX.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::counts::Counts;
use super::listing::{self, Kind, Line};
use crate::device::Program;
use crate::device::emulator::{Class, Instruction, LaunchCounters};

/// What one launch did.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// In all.
    pub total: Counts,
    /// By line of its module's PTX.
    pub lines: BTreeMap<u32, Counts>,
    /// Warp instructions by class.
    pub classes: BTreeMap<&'static str, u64>,
}

/// The counts of every launch of a program's latest run.
pub fn of(counters: &[LaunchCounters], program: &Program) -> Vec<Counted> {
    let mut places: HashMap<&str, Vec<u32>> = HashMap::new();
    let mut out = Vec::with_capacity(program.launches.len());
    for (launch, counters) in program.launches.iter().zip(counters) {
        let lines = places.entry(launch.kernel.name).or_insert_with(|| {
            let listing = listing::ptx(launch.kernel.module.ptx, launch.kernel.name);
            align(&listing, counters.instructions.iter().map(|i| i.ptx_line))
        });
        let mut counted = Counted::default();
        for (instruction, &line) in counters.instructions.iter().zip(&*lines) {
            let counts = counts_of(instruction);
            counted.total += counts;
            if counts != Counts::default() {
                *counted.lines.entry(line).or_default() += counts;
                *counted.classes.entry(instruction.class.name()).or_default() += counts.instructions;
            }
        }
        out.push(counted);
    }
    out
}

fn counts_of(instruction: &Instruction) -> Counts {
    let c = &instruction.counters;
    let sectors = c.read_sectors + c.written_sectors;
    Counts {
        instructions: c.warp_instructions,
        lanes: c.thread_instructions,
        read_bytes: c.global_read_bytes,
        write_bytes: c.global_written_bytes,
        read_sectors: c.read_sectors,
        write_sectors: c.written_sectors,
        // Where lanes read the same bytes, fewer sectors than their sum were enough.
        ideal_sectors: sectors.min((c.global_read_bytes + c.global_written_bytes).div_ceil(32)),
        shared_accesses: c.shared_passes - c.bank_conflicts,
        conflicts: c.bank_conflicts,
        flops: c.flops,
        matrix: c.matrix_instructions,
        barriers: c.barriers,
        branches: if instruction.class == Class::Branch { c.warp_instructions } else { 0 },
        divergent: c.divergent_branches,
    }
}

/// The line of the listing for each instruction. What is in no line of it, because a call was inlined,
/// counts for the line before.
fn align(listing: &[Line], instructions: impl Iterator<Item = u32>) -> Vec<u32> {
    let lines: BTreeSet<u32> =
        listing.iter().filter(|l| l.kind == Kind::Instruction).map(|l| l.number).collect();
    let mut last = lines.first().copied().unwrap_or(0);
    instructions
        .map(|line| {
            if lines.contains(&line) {
                last = line;
            }
            last
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_inlined_counts_for_its_call() {
        let line = |number, kind| Line { number, text: String::new(), kind, places: Vec::new() };
        let listing = [
            line(20, Kind::Label),
            line(23, Kind::Instruction),
            line(25, Kind::Instruction),
            line(29, Kind::Instruction),
        ];
        assert_eq!(align(&listing, [23, 23, 25, 7, 8, 29].into_iter()), [23, 23, 25, 25, 25, 29]);
        assert_eq!(align(&listing, [7, 23].into_iter()), [23, 23]);
    }
}
