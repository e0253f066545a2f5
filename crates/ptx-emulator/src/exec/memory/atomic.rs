//! Atomics.

use super::global::{alone, culprit};
use super::lanes::{addresses, count, split};
use super::shared::{from_bytes, shared_at};
use crate::check::Access;
use crate::counters::tally::Tally;
use crate::fault::{Fault, Step};
use crate::isa::{AtomKind, AtomOp, Slot, Space};
use crate::lanes::each;
use crate::launch::Job;
use crate::memory::Shared;
use crate::warp::Lanes;

/// The new value of an atomic.
fn combine(kind: AtomKind, size: u32, old: u64, b: u64, c: u64) -> u64 {
    let cut = |v: u64| if size == 4 { v & 0xffff_ffff } else { v };
    let signed = |v: u64| {
        if size == 4 { i64::from(v as i32) } else { v as i64 }
    };
    match kind {
        AtomKind::Add => cut(old.wrapping_add(b)),
        AtomKind::AddF if size == 4 => {
            u64::from((f32::from_bits(old as u32) + f32::from_bits(b as u32)).to_bits())
        }
        AtomKind::AddF => (f64::from_bits(old) + f64::from_bits(b)).to_bits(),
        AtomKind::MinS => cut(signed(old).min(signed(b)) as u64),
        AtomKind::MaxS => cut(signed(old).max(signed(b)) as u64),
        AtomKind::MinU => old.min(b),
        AtomKind::MaxU => old.max(b),
        AtomKind::And => old & b,
        AtomKind::Or => old | b,
        AtomKind::Xor => old ^ b,
        AtomKind::Exch => b,
        AtomKind::Cas => {
            if old == b {
                c
            } else {
                old
            }
        }
        AtomKind::Inc => {
            if old >= b {
                0
            } else {
                old + 1
            }
        }
        AtomKind::Dec => {
            if old == 0 || old > b {
                b
            } else {
                old - 1
            }
        }
    }
}

/// An atomic by the lanes of `m`, one after the other.
#[inline(never)]
pub(crate) fn atomic<const COUNT: bool>(
    job: &Job,
    warp: &mut Lanes,
    shared: &mut Shared,
    tally: &mut Tally,
    op: &AtomOp,
    m: u32,
    pc: u32,
) -> Step {
    let mut addr = addresses(warp, &op.mem);
    let size = op.mem.size;
    if COUNT {
        count(tally, &op.mem, &addr, m, pc, false);
        count(tally, &op.mem, &addr, m, pc, true);
    }
    let masks = if op.mem.space == Space::Generic {
        split(&mut addr, m)
    } else {
        [(op.mem.space, m), (Space::Shared, 0), (Space::Local, 0)]
    };
    let value = |warp: &Lanes, s: Slot, l: u32| match s {
        Slot::R32(n) => u64::from(warp.r32[n as usize][l as usize]),
        Slot::R64(n) => warp.r64[n as usize][l as usize],
        _ => 0,
    };
    for (space, m) in masks {
        if let Some(races) = job.races
            && space == Space::Global
            && m != 0
        {
            job.race(races, warp.block, pc, &addr, m, size, Access::Atomic, op.mem.order)?;
        }
        for l in each(m) {
            let a = addr[l as usize];
            let (b, c) = (value(warp, op.b, l), value(warp, op.c, l));
            let old = match space {
                Space::Shared => {
                    let at = shared_at(shared, a, l, size, "updates")?;
                    shared.read_atomic(l, at, size)?;
                    shared.write(warp.index, pc, l, at, size, true)?;
                    let place = at as usize..(at + size) as usize;
                    let old = from_bytes(&shared.bytes[place.clone()]);
                    let new = combine(op.kind, size, old, b, c).to_le_bytes();
                    shared.bytes[place].copy_from_slice(&new[..size as usize]);
                    old
                }
                Space::Local => return Err(Fault::lane(l, "an atomic on local memory")),
                _ => {
                    let region = match alone(job, &addr, l, size) {
                        Some(r) if !r.read_only => r,
                        Some(_) => return Err(job.bad_access(l, a, size, "writes")),
                        None => return Err(culprit(job, &addr, 1 << l, size, "updates")),
                    };
                    let at = a - region.base + region.start;
                    if !region.all_written && !region.memory.is_written(at, size) {
                        return Err(job.bad_access(l, a, size, "updates"));
                    }
                    if size == 4 {
                        u64::from(
                            region
                                .memory
                                .update32(at, |old| combine(op.kind, 4, u64::from(old), b, c) as u32),
                        )
                    } else {
                        region.memory.update64(at, |old| combine(op.kind, 8, old, b, c))
                    }
                }
            };
            match op.dst {
                Slot::R32(n) => warp.r32[n as usize][l as usize] = old as u32,
                Slot::R64(n) => warp.r64[n as usize][l as usize] = old,
                _ => {}
            }
        }
    }
    Ok(())
}
