//! The longest chain of dependent instructions of a warp, and the loads it has in flight, from counted PTX.
//!
//! The instructions between two branches or barriers are a segment: within it an instruction starts when its operands are
//! there, as ptxas orders them so that loads go first. A warp waits at the end of a segment for its longest chain,
//! because it issues in order and the next segment uses what this one made. Asynchronous copies have no result, so
//! nothing waits for them here but their wait.

use std::collections::HashMap;

use ptx_emulator::{Class, Instruction, LaunchCounters};

/// Clocks from an instruction to one that uses its result, Ampere to Hopper (arXiv 2208.11174, table 2; 2402.13499).
const ARITHMETIC: f64 = 4.0;
const SPECIAL: f64 = 18.0;
const SHARED: f64 = 29.0;
const SHUFFLE: f64 = 23.0;
const MATRIX: f64 = 33.0;
const BARRIER: f64 = 25.0;
const FP64: f64 = 8.0;

/// A chain and what is in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Chain {
    /// Clocks.
    pub clocks: f64,
    /// Bytes of a thread.
    pub flight: f64,
}

/// Of the counts of `warps` warps; `latency`: of a load of local and of global memory.
pub(super) fn of(counters: &LaunchCounters, warps: f64, latency: [f64; 2]) -> Chain {
    let mut chain = Chain::default();
    let mut most = 0.0;
    for segment in segments(&counters.instructions) {
        let ran = segment.iter().map(|i| i.counters.warp_instructions).max().unwrap_or(0);
        if ran == 0 {
            continue;
        }
        // Some segments are for one warp alone; all others are for each of them alike.
        let times = (ran as f64 / warps).max(1.0);
        let (clocks, flight) = longest(segment, latency);
        chain.clocks += times * clocks;
        let moved: u64 = segment.iter().map(|i| i.counters.global_read_bytes).sum();
        if flight > 0.0 && moved as f64 > most {
            most = moved as f64;
            chain.flight = flight;
        }
    }
    if chain.flight == 0.0 {
        // Nothing but stores: each leaves at once.
        chain.flight = 16.0;
    }
    chain
}

/// Cuts instructions at branches and barriers, and where others execute than before.
fn segments(instructions: &[Instruction]) -> impl Iterator<Item = &[Instruction]> {
    instructions.chunk_by(|a, b| {
        !matches!(a.class, Class::Branch | Class::Barrier)
            && a.counters.warp_instructions == b.counters.warp_instructions
    })
}

/// Clocks of the longest chain of a segment, and bytes of its loads that wait for no other load of it.
fn longest(segment: &[Instruction], latency: [f64; 2]) -> (f64, f64) {
    /// When a register is there, and whether by way of a load of global memory.
    type Ready<'a> = HashMap<&'a str, (f64, bool)>;
    let mut ready: Ready = HashMap::new();
    let (mut clocks, mut flight) = (0.0f64, 0.0);
    for i in segment {
        let (written, read) = registers(&i.text);
        let mut start = 0.0f64;
        let mut loaded = false;
        for r in read {
            if let Some((at, by_load)) = ready.get(r) {
                start = start.max(*at);
                loaded |= by_load;
            }
        }
        let is_load = i.class == Class::LoadGlobal;
        if (is_load || i.class == Class::Copy) && !loaded && i.counters.thread_instructions > 0 {
            flight += i.counters.global_read_bytes as f64 / i.counters.thread_instructions as f64;
        }
        let end = start + clocks_of(i, latency);
        // A store or a copy is not waited for.
        if !written.is_empty() || i.class == Class::Barrier {
            clocks = clocks.max(end);
        } else {
            clocks = clocks.max(start);
        }
        for r in written {
            ready.insert(r, (end, loaded || is_load));
        }
    }
    (clocks, flight)
}

fn clocks_of(i: &Instruction, [local, global]: [f64; 2]) -> f64 {
    match i.class {
        Class::LoadGlobal | Class::Atomic => global,
        Class::LoadShared => SHARED,
        Class::Local => local,
        Class::Special => SPECIAL,
        Class::Matrix => MATRIX,
        Class::Warp => SHUFFLE,
        Class::Barrier => BARRIER,
        Class::Fp64 => FP64,
        _ => ARITHMETIC,
    }
}

/// The registers an instruction writes and those it reads, from its text.
fn registers(text: &str) -> (Vec<&str>, Vec<&str>) {
    let text = text.trim().trim_end_matches(';');
    let (guard, rest) = match text.strip_prefix('@') {
        Some(rest) => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
        None => ("", text),
    };
    let (opcode, operands) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let writes = !["st", "bra", "bar", "barrier", "red", "ret", "exit", "cp", "fence", "membar", "nanosleep"]
        .contains(&opcode.split('.').next().unwrap_or(""));
    let mut read: Vec<&str> = names(guard);
    if !writes {
        read.extend(names(operands));
        return (Vec::new(), read);
    }
    // The first operand, which may be a list in braces.
    let operands = operands.trim_start();
    let end = if operands.starts_with('{') {
        operands.find('}').map_or(operands.len(), |at| at + 1)
    } else {
        operands.find(',').unwrap_or(operands.len())
    };
    let (first, others) = operands.split_at(end);
    read.extend(names(others));
    (names(first), read)
}

/// Words that begin with `%`.
fn names(text: &str) -> Vec<&str> {
    let word = |c: char| c == '%' || c == '_' || c == '$' || c.is_ascii_alphanumeric();
    text.split(|c| !word(c)).filter(|w| w.starts_with('%')).collect()
}

#[cfg(test)]
mod tests {
    use ptx_emulator::Counters;

    use super::*;

    fn instruction(text: &str, class: Class, warps: u64) -> Instruction {
        let read = if class == Class::LoadGlobal { warps * 32 * 4 } else { 0 };
        Instruction {
            text: text.to_owned(),
            ptx_line: 1,
            kernel_line: 1,
            file: String::new(),
            line: 1,
            inlined_at: (String::new(), 1),
            class,
            counters: Counters {
                warp_instructions: warps,
                thread_instructions: 32 * warps,
                global_read_bytes: read,
                ..Counters::default()
            },
        }
    }

    #[test]
    fn registers_are_told_by_what_an_opcode_does() {
        assert_eq!(registers("fma.rn.f32 %f1, %f2, %f3, %f1;"), (vec!["%f1"], vec!["%f2", "%f3", "%f1"]));
        let (w, r) = registers("@%p1 ld.global.nc.v2.f32 {%f1, %f2}, [%rd4+16];");
        assert_eq!((w, r), (vec!["%f1", "%f2"], vec!["%p1", "%rd4"]));
        assert_eq!(registers("st.shared.f32 [%r1], %f2;"), (vec![], vec!["%r1", "%f2"]));
    }

    #[test]
    fn a_serial_loop_costs_a_round_trip_each_time_and_loads_side_by_side_one_in_all() {
        let latency = [34.0, 265.0];
        let counters =
            |instructions| LaunchCounters { kernel: "k".into(), label: String::new(), instructions };
        // Ten rounds of a load whose address the load before gave.
        let serial = counters(vec![
            instruction("ld.global.u64 %rd1, [%rd1];", Class::LoadGlobal, 10),
            instruction("bra L;", Class::Branch, 10),
        ]);
        assert_eq!(of(&serial, 1.0, latency).clocks, 10.0 * 265.0);
        let apart = counters(vec![
            instruction("ld.global.f32 %f1, [%rd1];", Class::LoadGlobal, 1),
            instruction("ld.global.f32 %f2, [%rd2];", Class::LoadGlobal, 1),
            instruction("add.f32 %f3, %f1, %f2;", Class::Fp32, 1),
        ]);
        assert_eq!(of(&apart, 1.0, latency), Chain { clocks: 265.0 + 4.0, flight: 8.0 });
        let one_after_another = counters(vec![
            instruction("ld.global.u64 %rd2, [%rd1];", Class::LoadGlobal, 1),
            instruction("ld.global.f32 %f2, [%rd2];", Class::LoadGlobal, 1),
        ]);
        assert_eq!(of(&one_after_another, 1.0, latency), Chain { clocks: 530.0, flight: 4.0 });
    }
}
