//! Loads, stores and atomics of a warp, with their checks.

mod async_copy;
mod atomic;
mod global;
mod lanes;
mod local;
mod race;
mod shared;

pub(crate) use async_copy::copy;
pub(crate) use atomic::atomic;
use global::{load_global, store_global};
use lanes::{addresses, count, split};
use local::{load_local, store_local};
pub(crate) use shared::{load_matrix, mbarrier};
use shared::{load_shared, store_shared};

use super::issue::Issue;
use crate::counters::tally::Traffic;
use crate::fault::Step;
use crate::isa::{MemOp, Space};
use crate::lanes::Reg64;

/// A load, or with `WRITE` a store.
#[inline(always)]
pub(crate) fn access<const COUNT: bool, const WRITE: bool>(i: &mut Issue, op: &MemOp) -> Step {
    let addr = addresses(&i.warp, op);
    if COUNT {
        count(i, op, &addr, if WRITE { Traffic::Write } else { Traffic::Read });
    }
    match op.space {
        Space::Generic => generic::<WRITE>(i, op, addr),
        space => access_in::<WRITE>(i, op, space, &addr),
    }
}

/// An access with generic addresses: the lanes of each space in turn.
#[inline(never)]
fn generic<const WRITE: bool>(i: &mut Issue, op: &MemOp, mut addr: Reg64) -> Step {
    for (space, m) in split(&mut addr, i.m) {
        if m != 0 {
            i.m = m;
            access_in::<WRITE>(i, op, space, &addr)?;
        }
    }
    Ok(())
}

#[inline(always)]
fn access_in<const WRITE: bool>(i: &mut Issue, op: &MemOp, space: Space, addr: &Reg64) -> Step {
    match (space, WRITE) {
        (Space::Shared, false) => load_shared(i, op, addr),
        (Space::Shared, true) => store_shared(i, op, addr),
        (Space::Local, false) => load_local(&mut i.warp, op, addr, i.m),
        (Space::Local, true) => store_local(&mut i.warp, op, addr, i.m),
        (_, false) => load_global(i, op, addr),
        (_, true) => store_global(i, op, addr),
    }
}
