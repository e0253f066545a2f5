//! Asynchronous copies. They are lazy: data lands when the thread waits for it and no sooner, and
//! until then no access to its place is allowed. So a missing wait is an error, not luck.

use super::shared::Shared;
use crate::check::LaneAccess;
use crate::lanes::each;

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
pub(crate) struct Copies {
    pending: Vec<Pending>,
    /// Groups that each lane has closed.
    closed: [u32; 32],
}

impl Copies {
    pub(crate) fn clear(&mut self) {
        self.pending.clear();
        self.closed = [0; 32];
    }

    /// `cp.async` by the lanes of `m`: to bytes `to` of shared memory, the first `bytes` of `data`.
    pub(crate) fn start(&mut self, to: [u32; 32], data: [[u8; 16]; 32], bytes: u32, m: u32) {
        self.pending.push(Pending { to, data, bytes, mask: m, group: [OPEN; 32] });
    }

    /// `cp.async.commit_group`.
    pub(crate) fn commit(&mut self, m: u32) {
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
    pub(crate) fn wait(&mut self, m: u32, n: Option<u32>, warp: u32, pc: u32, shared: &mut Shared) {
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
                let to = LaneAccess { warp, pc, lane: l, at: p.to[l as usize], bytes: p.bytes };
                shared.shadow.end_copy(&to);
                let data = &p.data[l as usize][..p.bytes as usize];
                shared.bytes[to.at as usize..(to.at + to.bytes) as usize].copy_from_slice(data);
            }
            p.mask &= !land;
        }
        self.pending.retain(|p| p.mask != 0);
    }
}
