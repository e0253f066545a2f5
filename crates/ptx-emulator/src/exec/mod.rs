//! Runs a warp: 32 lanes at a time, each instruction a loop over rows of registers.
//!
//! Lanes that diverge form groups; the group with the lowest instruction runs, and groups that meet
//! at one instruction merge. That reconverges structured code without any analysis of it.

mod flow;
mod matrix;
mod memory;
mod vector;
mod warp_ops;

use flow::{Flow, over_budget};
use vector::run_group;

use crate::counters::tally::Tally;
use crate::fault::{Fault, Step};
use crate::isa::Op;
use crate::launch::Job;
use crate::memory::Shared;
use crate::warp::{Group, State, Warp};

/// Runs a warp until it waits at a block barrier or ends.
pub(crate) fn run_warp(job: &Job, warp: &mut Warp, shared: &mut Shared, tally: &mut Tally) -> Step {
    if job.count {
        run_warp_in::<true>(job, warp, shared, tally)
    } else {
        run_warp_in::<false>(job, warp, shared, tally)
    }
}

/// `COUNT`: whether to count, at the price of speed.
fn run_warp_in<const COUNT: bool>(
    job: &Job,
    warp: &mut Warp,
    shared: &mut Shared,
    tally: &mut Tally,
) -> Step {
    // One copy of the interpreter only: it is large. Every x86-64 processor since 2015 has AVX2 and FMA,
    // and without them `mul_add` would be a call into the C library.
    #[cfg(target_arch = "x86_64")]
    {
        if !(std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")) {
            return Err(Fault::warp("the emulator needs a processor with AVX2 and FMA"));
        }
        // SAFETY: the features were just detected; bmi, popcnt and lzcnt are older than AVX2.
        #[allow(unsafe_code)]
        unsafe {
            run_avx2::<COUNT>(job, warp, shared, tally)
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    run_body::<COUNT>(job, warp, shared, tally)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt,lzcnt")]
fn run_avx2<const COUNT: bool>(job: &Job, warp: &mut Warp, shared: &mut Shared, tally: &mut Tally) -> Step {
    run_body::<COUNT>(job, warp, shared, tally)
}

#[inline(always)]
fn run_body<const COUNT: bool>(job: &Job, warp: &mut Warp, shared: &mut Shared, tally: &mut Tally) -> Step {
    loop {
        // The group with the lowest instruction, merged with all others there.
        let mut best: Option<u32> = None;
        for g in &warp.groups {
            if !g.blocked && best.is_none_or(|b| g.pc < b) {
                best = Some(g.pc);
            }
        }
        let Some(pc) = best else {
            if warp.groups.is_empty() {
                warp.state = State::Done;
                return Ok(());
            }
            return Err(stuck(job, warp));
        };
        let mut mask = 0;
        let mut stop = u32::MAX;
        warp.groups.retain(|g| {
            if g.pc == pc {
                mask |= g.mask;
            } else if g.pc > pc {
                stop = stop.min(g.pc);
            }
            g.pc != pc
        });
        let alone = warp.groups.is_empty();
        let mut at = pc;
        let flow =
            run_group::<COUNT>(job, warp, shared, tally, &mut at, mask, stop, alone).map_err(|mut f| {
                f.pc = at;
                f
            })?;
        let mut put = |pc: u32, mask: u32, blocked: bool| {
            if mask != 0 {
                warp.groups.push(Group { pc, mask, blocked });
            }
        };
        match flow {
            Flow::At(pc) => put(pc, mask, false),
            Flow::Split(taken, there, here) => {
                put(there, taken, false);
                put(here, mask & !taken, false);
            }
            Flow::Scatter(list) => {
                warp.executed += 1;
                over_budget(job, warp.executed)?;
                for (pc, m) in list {
                    put(pc, m, false);
                }
            }
            Flow::Exit(gone, pc) => {
                put(pc, mask & !gone, false);
                warp.live &= !gone;
                // Those that wait may have waited for these lanes.
                for g in &mut warp.groups {
                    g.blocked = false;
                }
            }
            Flow::Blocked(pc) => put(pc, mask, true),
            Flow::Poll(pc) => {
                put(pc, mask, false);
                warp.wait_pc = pc - 1;
                warp.state = State::Polling;
                return Ok(());
            }
            Flow::Barrier { pc, id, count, vote } => {
                put(pc + 1, mask, false);
                warp.vote = vote;
                warp.wait_pc = pc;
                warp.state = State::Waiting { id, count };
                return Ok(());
            }
        }
    }
}

/// No lane of the warp can go on.
#[cold]
fn stuck(job: &Job, warp: &Warp) -> Box<Fault> {
    let mut groups: Vec<&Group> = warp.groups.iter().collect();
    groups.sort_by_key(|g| g.pc);
    let parts: Vec<String> = groups
        .iter()
        .map(|g| {
            let n = g.mask.count_ones();
            let text = job.code.text.get(g.pc as usize).map_or("", String::as_str);
            format!("{n} lanes (mask {:#010x}) wait at {} [{text}]", g.mask, job.place(g.pc))
        })
        .collect();
    let first = groups[0];
    let barrier = matches!(job.code.insts[first.pc as usize].op, Op::Bar);
    let missing = warp.live & !first.mask;
    let what = if barrier {
        "barrier that not all threads of the warp reach"
    } else {
        "warp-wide instruction that not all lanes it names reach"
    };
    let mut f = Fault::lane(missing.trailing_zeros().min(31), format!("{what}: {}", parts.join("; ")));
    if missing == 0 {
        f.lane = None;
        f.what.push_str("; the lanes it names are not all active");
    }
    f.pc = first.pc;
    f
}
