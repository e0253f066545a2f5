//! Loads, stores and atomics of a warp, with their checks.

mod async_copy;
mod atomic;
mod global;
mod lanes;
mod local;
mod race;
mod shared;

pub(crate) use async_copy::{copy, lengths, places};
pub(crate) use atomic::atomic;
use global::{load_global, store_global};
use lanes::{addresses, count, split};
use local::{load_local, store_local};
pub(crate) use shared::{load_matrix, mbarrier};
use shared::{load_shared, store_shared};

use crate::counters::tally::Tally;
use crate::fault::Step;
use crate::isa::{MemOp, Space};
use crate::lanes::WideRow;
use crate::launch::Job;
use crate::memory::Shared;
use crate::warp::Lanes;

/// A load by the lanes of `m`.
#[inline(always)]
pub(crate) fn load<const COUNT: bool>(
    job: &Job,
    warp: &mut Lanes,
    shared: &mut Shared,
    tally: &mut Tally,
    op: &MemOp,
    m: u32,
    pc: u32,
) -> Step {
    let addr = addresses(warp, op);
    if COUNT {
        count(tally, op, &addr, m, pc, false);
    }
    match op.space {
        Space::Global => load_global(job, warp, op, &addr, m, pc),
        Space::Shared => load_shared(warp, shared, op, &addr, m, pc),
        Space::Local => load_local(warp, op, &addr, m),
        Space::Generic => load_generic(job, warp, shared, op, addr, m, pc),
    }
}

/// A store by the lanes of `m`.
#[inline(always)]
pub(crate) fn store<const COUNT: bool>(
    job: &Job,
    warp: &mut Lanes,
    shared: &mut Shared,
    tally: &mut Tally,
    op: &MemOp,
    m: u32,
    pc: u32,
) -> Step {
    let addr = addresses(warp, op);
    if COUNT {
        count(tally, op, &addr, m, pc, true);
    }
    match op.space {
        Space::Global => store_global(job, warp, op, &addr, m, pc),
        Space::Shared => store_shared(warp, shared, op, &addr, m, pc),
        Space::Local => store_local(warp, op, &addr, m),
        Space::Generic => store_generic(job, warp, shared, op, addr, m, pc),
    }
}

#[inline(never)]
fn load_generic(
    job: &Job,
    warp: &mut Lanes,
    shared: &mut Shared,
    op: &MemOp,
    mut addr: WideRow,
    m: u32,
    pc: u32,
) -> Step {
    for (space, m) in split(&mut addr, m) {
        match space {
            _ if m == 0 => {}
            Space::Shared => load_shared(warp, shared, op, &addr, m, pc)?,
            Space::Local => load_local(warp, op, &addr, m)?,
            _ => load_global(job, warp, op, &addr, m, pc)?,
        }
    }
    Ok(())
}

#[inline(never)]
fn store_generic(
    job: &Job,
    warp: &mut Lanes,
    shared: &mut Shared,
    op: &MemOp,
    mut addr: WideRow,
    m: u32,
    pc: u32,
) -> Step {
    for (space, m) in split(&mut addr, m) {
        match space {
            _ if m == 0 => {}
            Space::Shared => store_shared(warp, shared, op, &addr, m, pc)?,
            Space::Local => store_local(warp, op, &addr, m)?,
            _ => store_global(job, warp, op, &addr, m, pc)?,
        }
    }
    Ok(())
}
