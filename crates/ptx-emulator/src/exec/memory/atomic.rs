//! Atomics.

use super::global::{alone, culprit};
use super::lanes::{addresses, count, split_by_space};
use super::race::{record, record_coherence};
use super::shared::{from_bytes, shared_at};
use crate::ErrorKind;
use crate::check::{Access, LaneAccess};
use crate::counters::tally::Traffic;
use crate::exec::issue::Issue;
use crate::fault::{Fault, Step};
use crate::isa::{AtomKind, AtomOp, Slot, Space};
use crate::lanes::each;
use crate::memory::Region;
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

/// Replaces a value in global memory; returns the old one.
fn update(region: &Region, at: u64, size: u32, new: impl Fn(u64) -> u64) -> u64 {
    if size == 4 {
        u64::from(region.memory.update32(at, |old| new(u64::from(old)) as u32))
    } else {
        region.memory.update64(at, new)
    }
}

/// An atomic, one lane after the other.
#[inline(never)]
pub(crate) fn atomic<const COUNT: bool>(i: &mut Issue, op: &AtomOp) -> Step {
    let mut addr = addresses(&i.warp, &op.mem);
    let size = op.mem.size;
    if COUNT {
        count(i, &op.mem, &addr, Traffic::Update);
    }
    let value = |warp: &Lanes, s: Slot, l: u32| match s {
        Slot::R32(n) => u64::from(warp.r32[n as usize][l as usize]),
        Slot::R64(n) => warp.r64[n as usize][l as usize],
        _ => 0,
    };
    for (space, m) in split_by_space(&op.mem, &mut addr, i.m) {
        if i.launch.races.is_some() && space == Space::Global && m != 0 {
            record_coherence(i, &addr, size, Access::Atomic)?;
            record(i, &addr, m, size, Access::Atomic, op.mem.order)?;
        }
        for l in each(m) {
            let a = addr[l as usize];
            let (b, c) = (value(&i.warp, op.b, l), value(&i.warp, op.c, l));
            let new = |old| combine(op.kind, size, old, b, c);
            let old = match space {
                Space::Shared => {
                    let at = shared_at(i.shared, a, l, size, "updates")?;
                    let access = LaneAccess { warp: i.warp.index, pc: i.pc, lane: l, at, bytes: size };
                    i.shared.shadow.has_value(&access)?;
                    i.shared.shadow.write(&access, true)?;
                    let place = at as usize..(at + size) as usize;
                    let old = from_bytes(&i.shared.bytes[place.clone()]);
                    i.shared.bytes[place].copy_from_slice(&new(old).to_le_bytes()[..size as usize]);
                    old
                }
                Space::Local => {
                    return Err(Fault::lane(ErrorKind::Invalid, l, "an atomic on local memory"));
                }
                _ => {
                    let region = match alone(i.launch, &addr, l, size) {
                        Some(r) if !r.read_only => r,
                        Some(_) => return Err(i.launch.bad_access(l, a, size, "writes")),
                        None => return Err(culprit(i.launch, &addr, 1 << l, size, "updates")),
                    };
                    let at = a - region.base + region.start;
                    if !region.all_written && !region.memory.is_written(at, size) {
                        return Err(i.launch.bad_access(l, a, size, "updates"));
                    }
                    update(region, at, size, new)
                }
            };
            match op.dst {
                Slot::R32(n) => i.warp.r32[n as usize][l as usize] = old as u32,
                Slot::R64(n) => i.warp.r64[n as usize][l as usize] = old,
                _ => {}
            }
        }
    }
    Ok(())
}
