//! Races between blocks, as accesses are recorded.

use std::sync::PoisonError;

use crate::ErrorKind;
use crate::check::{Access, BlockAccess};
use crate::exec::issue::Issue;
use crate::fault::{Fault, Step};
use crate::isa::Order;
use crate::lanes::{Reg64, each};
use crate::launch::LaunchContext;
use crate::memory::Region;

/// The lanes of `m` whose address lies in a region, with the region and the byte in it. What is out of bounds the access
/// itself finds.
fn in_bounds<'l>(
    launch: &'l LaunchContext,
    addr: &'l Reg64,
    m: u32,
) -> impl Iterator<Item = (u32, &'l Region<'l>, u64)> {
    each(m).filter_map(|l| {
        let r = launch.region(addr[l as usize])?;
        let at = addr[l as usize].wrapping_sub(r.base);
        (at < r.len).then_some((l, r, at))
    })
}

/// Records non-coherent loads of a warp's lanes, and what they write, in a kernel that has such loads.
#[inline(never)]
pub(crate) fn record_coherence(i: &Issue, addr: &Reg64, bytes: u32, access: Access) -> Step {
    let (launch, pc) = (i.launch, i.pc);
    let Some(races) = launch.races.filter(|_| launch.code.non_coherent) else { return Ok(()) };
    let mut races = races.lock().unwrap_or_else(PoisonError::into_inner);
    let writes = access != Access::Read;
    for (l, r, at) in in_bounds(launch, addr, i.m) {
        let memory = std::ptr::from_ref(r.memory) as usize;
        let Err(other) = races.non_coherent.record(memory, r.start + at, u64::from(bytes), writes, pc) else {
            continue;
        };
        let (doing, done) = match writes {
            true => ("writes", "reads through the non-coherent cache (ld.global.nc)"),
            false => ("reads through the non-coherent cache (ld.global.nc)", "writes"),
        };
        let what = format!(
            "stale read: {doing} {bytes} bytes at byte {at} of {}, which the same launch {done}, at {}",
            r.describe(),
            launch.place(other)
        );
        return Err(Fault::lane(ErrorKind::Race, l, what).about(&r.name, &r.param));
    }
    Ok(())
}

/// Records accesses of the lanes of `m`, where races between blocks are checked for.
#[inline(never)]
pub(crate) fn record(i: &Issue, addr: &Reg64, m: u32, bytes: u32, access: Access, order: Order) -> Step {
    let (launch, block, pc) = (i.launch, i.warp.block, i.pc);
    let in_block = |memory, at, bytes| BlockAccess { memory, at, bytes, block, pc };
    let Some(races) = launch.races else { return Ok(()) };
    let mut races = races.lock().unwrap_or_else(PoisonError::into_inner);
    if access == Access::Read
        && order == Order::default()
        && !launch.cooperative
        && let Some(r) = launch.region(addr[m.trailing_zeros() as usize])
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
                    fine &= races.read(&in_block(memory, r.start + from, to - from));
                    (at, at + u64::from(bytes))
                }
                None => (at, at + u64::from(bytes)),
            });
        }
        if let Some((from, to)) = range {
            fine &= races.read(&in_block(memory, r.start + from, to - from));
        }
        if fine {
            return Ok(());
        }
    }
    for (l, r, at) in in_bounds(launch, addr, m) {
        let memory = std::ptr::from_ref(r.memory) as usize;
        let touched = in_block(memory, r.start + at, u64::from(bytes));
        let Err(other) = races.record(&touched, access, order) else { continue };
        let doing = match access {
            Access::Read => "reads",
            Access::Write => "writes",
            Access::Atomic => "updates",
        };
        let who = match other.block {
            Some(b) => {
                let [x, y, z] = launch.block_at(b);
                format!("block ({x}, {y}, {z})")
            }
            None => "more than one other block".to_owned(),
        };
        let how = if other.wrote { "writes" } else { "reads" };
        let what = format!(
            "race between blocks: {doing} {bytes} bytes at byte {at} of {}, which {who} {how} in the same launch, at {}",
            r.describe(),
            launch.place(other.pc)
        );
        return Err(Fault::lane(ErrorKind::Race, l, what).about(&r.name, &r.param));
    }
    Ok(())
}
