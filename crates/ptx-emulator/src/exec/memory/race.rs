//! Races between blocks, as accesses are recorded.

use std::sync::{Mutex, PoisonError};

use crate::check::{Access, Races};
use crate::fault::Fault;
use crate::isa::Order;
use crate::lanes::{WideRow, each};
use crate::launch::Job;

impl Job<'_> {
    /// Records accesses of a warp, where races between blocks are checked for.
    #[inline(never)]
    pub(crate) fn race(
        &self,
        races: &Mutex<Races>,
        block: u64,
        pc: u32,
        addr: &WideRow,
        m: u32,
        bytes: u32,
        access: Access,
        order: Order,
    ) -> Result<(), Box<Fault>> {
        let mut races = races.lock().unwrap_or_else(PoisonError::into_inner);
        if access == Access::Read
            && order == Order::default()
            && !self.cooperative
            && let Some(r) = self.region(addr[m.trailing_zeros() as usize])
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
                        fine &= races.read(memory, r.start + from, to - from, block, pc);
                        (at, at + u64::from(bytes))
                    }
                    None => (at, at + u64::from(bytes)),
                });
            }
            if let Some((from, to)) = range {
                fine &= races.read(memory, r.start + from, to - from, block, pc);
            }
            if fine {
                return Ok(());
            }
        }
        for l in each(m) {
            let Some(r) = self.region(addr[l as usize]) else { continue };
            let at = addr[l as usize] - r.base;
            let memory = std::ptr::from_ref(r.memory) as usize;
            let Err(met) = races.touch(memory, r.start + at, bytes, block, pc, access, order) else {
                continue;
            };
            let doing = match access {
                Access::Read => "reads",
                Access::Write => "writes",
                Access::Atomic => "updates",
            };
            let who = match met.block {
                Some(b) => {
                    let [x, y, z] = self.block_at(b);
                    format!("block ({x}, {y}, {z})")
                }
                None => "more than one other block".to_owned(),
            };
            let how = if met.wrote { "writes" } else { "reads" };
            return Err(Fault::lane(
                l,
                format!(
                    "race between blocks: {doing} {bytes} bytes at byte {at} of {}, which {who} {how} in the same \
                     launch, at {}",
                    r.describe(),
                    self.place(met.pc)
                ),
            ));
        }
        Ok(())
    }
}
