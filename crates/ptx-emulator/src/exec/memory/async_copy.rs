//! `cp.async`: reads global memory now, and lands in shared memory when it is waited for.

use super::race::record;
use super::shared::shared_at;
use crate::ErrorKind;
use crate::check::{Access, LaneAccess};
use crate::counters::tally::Traffic;
use crate::exec::issue::Issue;
use crate::fault::{Fault, Step};
use crate::isa::{CopyOp, Order, Slot};
use crate::lanes::{Reg64, each, pred};
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
fn places(warp: &Lanes, op: &CopyOp) -> (Reg64, Reg64) {
    let at = |slot: Slot, offset: i64| {
        std::array::from_fn(|l| lane_value(warp, slot, l as u32).wrapping_add(offset as u64))
    };
    (at(op.to, op.to_offset), at(op.from, op.from_offset))
}

/// How many bytes each lane reads; the rest of its place becomes zero.
fn lengths(warp: &Lanes, op: &CopyOp) -> [u32; 32] {
    std::array::from_fn(|l| match op.length {
        Slot::None => op.bytes,
        Slot::P(_) if lane_value(warp, op.length, l as u32) == 1 => 0,
        Slot::P(_) => op.bytes,
        _ => lane_value(warp, op.length, l as u32) as u32,
    })
}

/// `cp.async`.
pub(crate) fn copy<const COUNT: bool>(i: &mut Issue, op: &CopyOp) -> Step {
    let (m, warp, pc) = (i.m, i.warp.index, i.pc);
    let (to, from) = places(&i.warp, op);
    let lengths = lengths(&i.warp, op);
    if COUNT {
        i.tally.shared(pc, &to, m, op.bytes);
        for n in 1..=op.bytes {
            let lanes = each(m).filter(|l| lengths[*l as usize] == n).fold(0, |m, l| m | 1 << l);
            if lanes != 0 {
                i.tally.global(pc, &from, lanes, n, Traffic::Read);
            }
        }
    }
    let (mut at, mut data) = ([0; 32], [[0; 16]; 32]);
    for l in each(m) {
        let k = l as usize;
        let n = lengths[k];
        if n > op.bytes {
            let what = format!("copies {n} bytes where at most {} fit", op.bytes);
            return Err(Fault::lane(ErrorKind::Invalid, l, what));
        }
        if n > 0 {
            data[k] = read_bytes(i, &from, l, op.bytes, n)?;
        }
        at[k] = shared_at(i.shared, to[k], l, op.bytes, "copies")?;
        i.shared.shadow.begin_copy(&LaneAccess { warp, pc, lane: l, at: at[k], bytes: op.bytes })?;
    }
    i.warp.copies.start(at, data, op.bytes, m);
    Ok(())
}

/// Reads `n` bytes of global memory for a lane's asynchronous copy of `bytes`; the rest is zero.
fn read_bytes(i: &Issue, from: &Reg64, lane: u32, bytes: u32, n: u32) -> Step<[u8; 16]> {
    let (launch, address) = (i.launch, from[lane as usize]);
    let bad = || Err(launch.bad_access(lane, address, n, "reads"));
    let Some(region) = launch.region(address) else { return bad() };
    let at = address.wrapping_sub(region.base);
    if at >= region.len || u64::from(n) > region.len - at {
        return bad();
    }
    if !address.is_multiple_of(u64::from(bytes)) {
        return Err(launch.bad_access(lane, address, bytes, "reads"));
    }
    let start = region.start + at;
    if !region.all_written && !region.memory.is_written(start, n) {
        return bad();
    }
    if launch.races.is_some() {
        record(i, from, 1 << lane, n, Access::Read, Order::default())?;
    }
    let mut out = [0; 16];
    if n == 16 {
        out[..8].copy_from_slice(&region.memory.load64(start).to_le_bytes());
        out[8..].copy_from_slice(&region.memory.load64(start + 8).to_le_bytes());
    } else {
        for k in 0..n {
            out[k as usize] = region.memory.load8(start + u64::from(k));
        }
    }
    Ok(out)
}
