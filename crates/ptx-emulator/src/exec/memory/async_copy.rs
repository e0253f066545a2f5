//! `cp.async`: reads global memory now, and lands in shared memory when it is waited for.

use super::shared::shared_at;
use crate::check::Access;
use crate::fault::{Fault, Step};
use crate::isa::{CopyOp, Order, Slot};
use crate::lanes::{WideRow, each, pred};
use crate::launch::Job;
use crate::memory::Shared;
use crate::warp::Lanes;

fn lane_value(warp: &Lanes, slot: Slot, l: u32) -> u64 {
    match slot {
        Slot::R32(n) => u64::from(warp.r32[n as usize][l as usize]),
        Slot::R64(n) => warp.r64[n as usize][l as usize],
        Slot::P(n) => u64::from(pred(warp.preds, n) >> l & 1),
        Slot::None => 0,
    }
}

/// Where the lanes of a copy read and write.
pub(crate) fn places(warp: &Lanes, op: &CopyOp) -> (WideRow, WideRow) {
    let at = |slot: Slot, offset: i64| {
        std::array::from_fn(|l| lane_value(warp, slot, l as u32).wrapping_add(offset as u64))
    };
    (at(op.to, op.to_offset), at(op.from, op.from_offset))
}

/// How many bytes each lane reads; the rest of its place becomes zero.
pub(crate) fn lengths(warp: &Lanes, op: &CopyOp) -> [u32; 32] {
    std::array::from_fn(|l| match op.length {
        Slot::None => op.bytes,
        Slot::P(_) if lane_value(warp, op.length, l as u32) == 1 => 0,
        Slot::P(_) => op.bytes,
        _ => lane_value(warp, op.length, l as u32) as u32,
    })
}

/// `cp.async` by the lanes of `m`.
pub(crate) fn copy(
    job: &Job,
    warp: &mut Lanes,
    shared: &mut Shared,
    op: &CopyOp,
    m: u32,
    pc: u32,
) -> Result<(), Box<Fault>> {
    let (to, from) = places(warp, op);
    let lengths = lengths(warp, op);
    let (mut at, mut data) = ([0; 32], [[0; 16]; 32]);
    for l in each(m) {
        let i = l as usize;
        let n = lengths[i];
        if n > op.bytes {
            return Err(Fault::lane(l, format!("copies {n} bytes where at most {} fit", op.bytes)));
        }
        if n > 0 {
            read_bytes(job, warp.block, from[i], l, op.bytes, n, pc, &mut data[i])?;
        }
        at[i] = shared_at(shared, to[i], l, op.bytes, "copies")?;
        shared.begin_copy(warp.index, pc, l, at[i], op.bytes)?;
    }
    warp.copies.start(at, data, op.bytes, m);
    Ok(())
}

/// Reads `n` bytes of global memory for an asynchronous copy of `bytes`.
pub(crate) fn read_bytes(
    job: &Job,
    block: u64,
    address: u64,
    lane: u32,
    bytes: u32,
    n: u32,
    pc: u32,
    out: &mut [u8; 16],
) -> Step {
    let bad = || Err(job.bad_access(lane, address, n, "reads"));
    let Some(region) = job.region(address) else { return bad() };
    let at = address.wrapping_sub(region.base);
    if at >= region.len || u64::from(n) > region.len - at {
        return bad();
    }
    if !address.is_multiple_of(u64::from(bytes)) {
        return Err(job.bad_access(lane, address, bytes, "reads"));
    }
    let start = region.start + at;
    if !region.all_written && !region.memory.is_written(start, n) {
        return bad();
    }
    if let Some(races) = job.races {
        let mut addr = [0; 32];
        addr[lane as usize] = address;
        job.race(races, block, pc, &addr, 1 << lane, n, Access::Read, Order::default())?;
    }
    if n == 16 {
        out[..8].copy_from_slice(&region.memory.load64(start).to_le_bytes());
        out[8..].copy_from_slice(&region.memory.load64(start + 8).to_le_bytes());
    } else {
        for i in 0..n {
            out[i as usize] = region.memory.load8(start + u64::from(i));
        }
    }
    Ok(())
}
