//! From the emulator's counters to [`Counts`], by line of the PTX.

use std::collections::{BTreeMap, HashMap};

use super::counts::Counts;
use super::listing::{self, Kind, Line};
use crate::device::emulator::{Class, Emulator, Instruction};
use crate::device::{Prepared, Program};

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
pub fn of(emulator: &Emulator, prepared: Prepared, program: &Program) -> Vec<Counted> {
    let mut places: HashMap<&str, Vec<u32>> = HashMap::new();
    let mut out = Vec::with_capacity(program.launches.len());
    for (launch, counters) in program.launches.iter().zip(emulator.counters(prepared)) {
        let lines = places.entry(launch.kernel.name).or_insert_with(|| {
            let listing = listing::ptx(launch.kernel.module.ptx, launch.kernel.name);
            align(&listing, counters.instructions.iter().map(|i| &i.text[..]))
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

/// The line number of each instruction: both are in the order of the PTX, where a line may hold several.
/// What is in no line, because a call was inlined, counts for the line before it.
fn align<'a>(listing: &[Line], instructions: impl Iterator<Item = &'a str>) -> Vec<u32> {
    let squeezed = |text: &str| text.chars().filter(|c| !c.is_whitespace() && *c != ';').collect::<String>();
    let lines: Vec<(u32, String)> = listing
        .iter()
        .filter(|l| l.kind == Kind::Instruction)
        .map(|l| (l.number, squeezed(&l.text)))
        .collect();
    let (mut at, mut from) = (0, 0);
    let mut last = lines.first().map_or(0, |l| l.0);
    instructions
        .map(|text| {
            let text = squeezed(text);
            let found = (at..lines.len()).find_map(|i| {
                let start = if i == at { from } else { 0 };
                lines[i].1[start..].find(&text).map(|p| (i, start + p + text.len()))
            });
            if let Some((i, end)) = found {
                (at, from) = (i, end);
                last = lines[i].0;
            }
            last
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_find_their_lines() {
        let line = |number, text: &str| Line {
            number,
            text: text.into(),
            kind: Kind::Instruction,
            places: Vec::new(),
        };
        let listing = [
            line(3, "bar.sync 0;"),
            line(5, "bar.sync 0;"),
            line(7, "{ setp.eq.s32 p, %r1, 0; @p bra L; }"),
            line(9, "add.s32 %r1, %r2, %r3;"),
        ];
        let texts = [
            "bar.sync 0",
            "bar.sync 0",
            "setp.eq.s32 p, %r1, 0",
            "@p bra L",
            "mul inlined",
            "add.s32 %r1, %r2, %r3",
        ];
        assert_eq!(align(&listing, texts.into_iter()), [3, 5, 7, 7, 7, 9]);
    }
}
