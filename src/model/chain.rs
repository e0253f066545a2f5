//! How long a warp waits for results, and the loads it has in flight, from counted PTX.
//!
//! The instructions between two branches or barriers are a segment. Within it an instruction is issued when its operands are
//! there and no other goes first; a load is on its way while what does not depend on it is issued. A warp waits at
//! the end of a segment for all that was made in it, because the next uses it. Asynchronous copies have no result, so nothing
//! waits for them here but their wait.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

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
    /// Clocks in which the warp issues nothing.
    pub clocks: f64,
    /// Bytes of a thread.
    pub flight: f64,
}

/// Of the counts of `warps` warps; `latency`: of a load of local and of global memory; `slot`: clocks from an instruction of
/// a warp to its next, more than one where other warps of its block are issued between.
pub(super) fn of(counters: &LaunchCounters, warps: f64, latency: [f64; 2], slot: f64) -> Chain {
    let mut chain = Chain::default();
    let mut most = 0.0;
    for segment in segments(&counters.instructions) {
        // Some segments are for one warp alone; all others are for each of them alike.
        let times = (segment[0].counters.warp_instructions as f64 / warps).max(1.0);
        let mut schedule = Schedule { slot, latency, ..Schedule::default() };
        segment
            .chunk_by(|a, _| !matches!(a.class, Class::Branch | Class::Barrier))
            .for_each(|block| schedule.add(block));
        chain.clocks += times * (schedule.end.max(schedule.now) - slot * segment.len() as f64).max(0.0);
        let moved: u64 = segment.iter().map(|i| i.counters.global_read_bytes).sum();
        if schedule.flight > 0.0 && moved as f64 > most {
            most = moved as f64;
            chain.flight = schedule.flight;
        }
    }
    if chain.flight == 0.0 {
        // Nothing but stores: each leaves at once.
        chain.flight = 16.0;
    }
    chain
}

/// Instructions that ran, in runs of those that ran about as often as each other: a loop's body without the rare paths in
/// it and without the loops in it, which are segments of their own. What most warps do belongs to it: at the rim of a
/// matrix some have nothing to load.
fn segments(instructions: &[Instruction]) -> Vec<Vec<&Instruction>> {
    let alike = |segment: &[&Instruction], n: u64| {
        let first = segment[0].counters.warp_instructions as f64;
        (0.6..=1.12).contains(&(n as f64 / first))
    };
    let mut done = Vec::new();
    let mut open: Vec<Vec<&Instruction>> = Vec::new();
    let mut rare: Vec<&Instruction> = Vec::new();
    for i in instructions {
        let n = i.counters.warp_instructions;
        if n == 0 {
            continue;
        }
        if !rare.is_empty() && !alike(&rare, n) {
            done.push(std::mem::take(&mut rare));
        }
        let colder = open.last().is_some_and(|top| top[0].counters.warp_instructions > n);
        if let Some(at) = open.iter().rposition(|segment| alike(segment, n)) {
            // Back from the loops within.
            done.extend(open.drain(at + 1..));
            open[at].push(i);
        } else if colder {
            rare.push(i);
        } else {
            open.push(vec![i]);
        }
    }
    done.extend(open);
    done.extend((!rare.is_empty()).then_some(rare));
    done
}

/// One warp on its way through a segment, basic block by basic block. Within one, of the instructions whose operands are
/// there, the one goes first that the longest chain hangs on, as ptxas has it: what does not depend on a load is issued
/// while it is on its way, in this block and in those after it.
#[derive(Default)]
struct Schedule<'i> {
    /// Clocks between two instructions of the warp.
    slot: f64,
    latency: [f64; 2],
    /// When the next instruction can be issued.
    now: f64,
    /// When the last result is there.
    end: f64,
    /// When registers are there, and whether by way of a load of global memory.
    registers: HashMap<&'i str, (f64, bool)>,
    /// Bytes of loads that wait for no other load.
    flight: f64,
}

impl<'i> Schedule<'i> {
    fn add(&mut self, block: &[&'i Instruction]) {
        let clocks: Vec<f64> = block.iter().map(|i| clocks_of(i, self.latency)).collect();
        let mut users = vec![Vec::new(); block.len()];
        let mut waits_for = vec![0usize; block.len()];
        let mut there = vec![self.now; block.len()];
        let mut writers: HashMap<&str, (usize, bool)> = HashMap::new();
        let mut written_by = Vec::with_capacity(block.len());
        for (at, i) in block.iter().enumerate() {
            let (written, read) = registers(&i.text);
            let mut loaded = false;
            for r in read {
                if let Some(&(writer, by_load)) = writers.get(r) {
                    users[writer].push(at);
                    waits_for[at] += 1;
                    loaded |= by_load;
                } else if let Some(&(when, by_load)) = self.registers.get(r) {
                    there[at] = there[at].max(when);
                    loaded |= by_load;
                }
            }
            let is_load = i.class == Class::LoadGlobal;
            if (is_load || i.class == Class::Copy) && !loaded && i.counters.thread_instructions > 0 {
                self.flight += i.counters.global_read_bytes as f64 / i.counters.thread_instructions as f64;
            }
            for &r in &written {
                writers.insert(r, (at, loaded || is_load));
            }
            written_by.push(written);
        }
        let mut height = clocks.clone();
        for at in (0..block.len()).rev() {
            height[at] += users[at].iter().map(|user: &usize| height[*user]).fold(0.0, f64::max);
        }
        // What ends the block is issued last.
        let last = block.len() - 1;
        if matches!(block[last].class, Class::Branch | Class::Barrier) {
            height[last] = 0.0;
            waits_for[last] += 1;
        }
        // By when operands are there, and of those whose are, by what hangs on them. Clocks are compared as bits, which
        // order as positive numbers do.
        let mut coming: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
        let mut ready: BinaryHeap<(u64, Reverse<usize>)> = BinaryHeap::new();
        let free = (0..block.len()).filter(|at| waits_for[*at] == 0);
        coming.extend(free.map(|at| Reverse((there[at].to_bits(), at))));
        for issued in 1..=block.len() {
            if issued == block.len() && waits_for[last] > 0 {
                coming.push(Reverse((there[last].to_bits(), last)));
            }
            if ready.is_empty() {
                let Some(&Reverse((when, _))) = coming.peek() else { break };
                self.now = self.now.max(f64::from_bits(when));
            }
            while let Some(&Reverse((when, at))) = coming.peek()
                && f64::from_bits(when) <= self.now
            {
                coming.pop();
                ready.push((height[at].to_bits(), Reverse(at)));
            }
            let Some((_, Reverse(at))) = ready.pop() else { break };
            let done = self.now + clocks[at];
            let written = &written_by[at];
            // A store or a copy is not waited for, but a barrier is.
            let waited = !written.is_empty() || block[at].class == Class::Barrier;
            self.now = if block[at].class == Class::Barrier { done } else { self.now + self.slot };
            self.end = self.end.max(if waited { done } else { self.now });
            for &r in written {
                let by_load = writers.get(r).is_some_and(|(_, by_load)| *by_load);
                self.registers.insert(r, (done, by_load));
            }
            for &user in &users[at] {
                there[user] = there[user].max(done);
                waits_for[user] -= 1;
                if waits_for[user] == 0 {
                    coming.push(Reverse((there[user].to_bits(), user)));
                }
            }
        }
    }
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
        assert_eq!(of(&serial, 1.0, latency, 1.0).clocks, 10.0 * (265.0 - 2.0));
        let apart = counters(vec![
            instruction("ld.global.f32 %f1, [%rd1];", Class::LoadGlobal, 1),
            instruction("ld.global.f32 %f2, [%rd2];", Class::LoadGlobal, 1),
            instruction("add.f32 %f3, %f1, %f2;", Class::Fp32, 1),
        ]);
        // The second is issued a clock later, and three clocks go to issuing.
        assert_eq!(of(&apart, 1.0, latency, 1.0), Chain { clocks: 266.0 + 4.0 - 3.0, flight: 8.0 });
        let one_after_another = counters(vec![
            instruction("ld.global.u64 %rd2, [%rd1];", Class::LoadGlobal, 1),
            instruction("ld.global.f32 %f2, [%rd2];", Class::LoadGlobal, 1),
        ]);
        assert_eq!(of(&one_after_another, 1.0, latency, 1.0), Chain { clocks: 530.0 - 2.0, flight: 4.0 });
    }

    #[test]
    fn what_does_not_wait_for_a_load_hides_it() {
        let counters =
            |instructions| LaunchCounters { kernel: "k".into(), label: String::new(), instructions };
        // A slice is fetched, under a branch, while the one before is multiplied, and stored behind it.
        let pipelined = |multiplications: usize| {
            let mut list = vec![
                instruction("@%p1 bra SKIP;", Class::Branch, 100),
                instruction("ld.global.f32 %f1, [%rd1];", Class::LoadGlobal, 99),
            ];
            let fma = |i| instruction(&format!("fma.rn.f32 %f{i}, %f2, %f3, %f{i};"), Class::Fp32, 100);
            list.extend((10..10 + multiplications).map(fma));
            list.push(instruction("st.shared.f32 [%r1], %f1;", Class::StoreShared, 99));
            list.push(instruction("bar.sync 0;", Class::Barrier, 100));
            counters(list)
        };
        let waits =
            |multiplications, slot| of(&pipelined(multiplications), 1.0, [34.0, 265.0], slot).clocks / 100.0;
        assert_eq!(
            waits(10, 1.0),
            265.0 + 2.0 - 13.0 + 24.0,
            "all but what is issued meanwhile, and the barrier"
        );
        assert_eq!(waits(400, 1.0), 25.0 - 1.0, "the barrier only");
        assert_eq!(waits(200, 2.0), 25.0 - 2.0, "other warps are issued between");
    }
}
