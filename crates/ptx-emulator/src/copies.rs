//! Asynchronous copies. They are lazy: data lands when the thread waits for it and no sooner, and
//! until then nobody may look at its place. So a missing wait is an error, not luck.

use super::block::{Lanes, WideRow, each};
use super::code::{CopyOp, Slot};
use super::job::{Fault, Job};
use super::shared::Shared;

/// Not yet in a group.
const OPEN: u32 = u32::MAX;

/// A copy on its way.
#[derive(Debug)]
struct Pending {
    to: [u32; 32],
    data: [[u8; 16]; 32],
    bytes: u32,
    mask: u32,
    /// Group of each lane.
    group: [u32; 32],
}

/// Copies of a warp on their way.
#[derive(Debug, Default)]
pub(super) struct Copies {
    pending: Vec<Pending>,
    /// Groups that each lane has closed.
    closed: [u32; 32],
}

impl Copies {
    pub(super) fn clear(&mut self) {
        self.pending.clear();
        self.closed = [0; 32];
    }

    /// `cp.async.commit_group`.
    pub(super) fn commit(&mut self, m: u32) {
        for p in &mut self.pending {
            for l in each(p.mask & m) {
                let group = &mut p.group[l as usize];
                if *group == OPEN {
                    *group = self.closed[l as usize];
                }
            }
        }
        for l in each(m) {
            self.closed[l as usize] += 1;
        }
    }

    /// `cp.async.wait_group n`, or `wait_all` where `n` is None: what it waits for lands.
    pub(super) fn wait(&mut self, m: u32, n: Option<u32>, warp: u32, pc: u32, shared: &mut Shared) {
        for p in &mut self.pending {
            let mut land = 0;
            for l in each(p.mask & m) {
                let group = p.group[l as usize];
                let done = match n {
                    None => true,
                    Some(n) => group != OPEN && self.closed[l as usize] - group > n,
                };
                land |= u32::from(done) << l;
            }
            for l in each(land) {
                let data = &p.data[l as usize][..p.bytes as usize];
                shared.end_copy(warp, pc, l, p.to[l as usize], data);
            }
            p.mask &= !land;
        }
        self.pending.retain(|p| p.mask != 0);
    }
}

fn lane_value(warp: &Lanes, slot: Slot, l: u32) -> u64 {
    match slot {
        Slot::R32(n) => u64::from(warp.r32[n as usize][l as usize]),
        Slot::R64(n) => warp.r64[n as usize][l as usize],
        Slot::P(n) => u64::from(super::exec::pred(warp.preds, n) >> l & 1),
        Slot::None => 0,
    }
}

/// Where the lanes of a copy read and write.
pub(super) fn places(warp: &Lanes, op: &CopyOp) -> (WideRow, WideRow) {
    let at = |slot: Slot, offset: i64| {
        std::array::from_fn(|l| lane_value(warp, slot, l as u32).wrapping_add(offset as u64))
    };
    (at(op.to, op.to_offset), at(op.from, op.from_offset))
}

/// How many bytes each lane reads; the rest of its place becomes zero.
pub(super) fn lengths(warp: &Lanes, op: &CopyOp) -> [u32; 32] {
    std::array::from_fn(|l| match op.length {
        Slot::None => op.bytes,
        Slot::P(_) if lane_value(warp, op.length, l as u32) == 1 => 0,
        Slot::P(_) => op.bytes,
        _ => lane_value(warp, op.length, l as u32) as u32,
    })
}

/// `cp.async` by the lanes of `m`.
pub(super) fn copy(
    job: &Job,
    warp: &mut Lanes,
    shared: &mut Shared,
    op: &CopyOp,
    m: u32,
    pc: u32,
) -> Result<(), Box<Fault>> {
    let (to, from) = places(warp, op);
    let lengths = lengths(warp, op);
    let mut p = Pending { to: [0; 32], data: [[0; 16]; 32], bytes: op.bytes, mask: m, group: [OPEN; 32] };
    for l in each(m) {
        let i = l as usize;
        let n = lengths[i];
        if n > op.bytes {
            return Err(Fault::lane(l, format!("copies {n} bytes where at most {} fit", op.bytes)));
        }
        if n > 0 {
            super::access::read_bytes(job, warp.block, from[i], l, op.bytes, n, pc, &mut p.data[i])?;
        }
        p.to[i] = super::access::shared_at(shared, to[i], l, op.bytes, "copies")?;
        shared.begin_copy(warp.index, pc, l, p.to[i], op.bytes)?;
    }
    warp.copies.pending.push(p);
    Ok(())
}
