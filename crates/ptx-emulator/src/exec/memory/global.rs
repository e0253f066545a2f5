//! Global memory.
// Lanes are numbers here: loops over them index several rows at once.
#![allow(clippy::needless_range_loop)]

use super::lanes::{Shape, conflict, extend, get, inside, put, put_words, shape};
use super::race::{record, record_coherence};
use crate::ErrorKind;
use crate::check::Access;
use crate::exec::issue::Issue;
use crate::fault::{Fault, Step};
use crate::isa::MemOp;
use crate::lanes::{Blend as _, Reg64, each, on};
use crate::launch::LaunchContext;
use crate::memory::Region;
use crate::warp::Lanes;

/// The region that all active lanes lie in, where there is one, aligned and in bounds.
#[inline(always)]
fn common<'j, 'a>(launch: &'j LaunchContext<'a>, addr: &Reg64, m: u32, bytes: u32) -> Option<&'j Region<'a>> {
    let region = launch.region(addr[m.trailing_zeros() as usize])?;
    let ok = inside(|l| addr[l].wrapping_sub(region.base), bytes, region.len) & m == m;
    (ok && region.base.is_multiple_of(u64::from(bytes))).then_some(region)
}

/// The region one lane lies in, aligned and in bounds.
#[inline]
pub(crate) fn alone<'j, 'a>(
    launch: &'j LaunchContext<'a>,
    addr: &Reg64,
    lane: u32,
    bytes: u32,
) -> Option<&'j Region<'a>> {
    let region = launch.region(addr[lane as usize])?;
    fits(region, addr[lane as usize], bytes).then_some(region)
}

/// Whether an access lies in a region, aligned.
#[inline(always)]
fn fits(region: &Region, address: u64, bytes: u32) -> bool {
    let at = address.wrapping_sub(region.base);
    at < region.len && u64::from(bytes) <= region.len - at && address.is_multiple_of(u64::from(bytes))
}

/// The first lane, in order, whose access is wrong.
#[cold]
pub(crate) fn culprit(launch: &LaunchContext, addr: &Reg64, m: u32, bytes: u32, what: &str) -> Box<Fault> {
    for l in each(m) {
        let a = addr[l as usize];
        if !launch.region(a).is_some_and(|r| fits(r, a, bytes)) {
            return launch.bad_access(l, a, bytes, what);
        }
    }
    Fault::warp(ErrorKind::Invalid, "lanes of one access point to different arguments")
}

#[inline(always)]
fn element(region: &Region, at: u64, size: u32) -> u64 {
    match size {
        4 => u64::from(region.memory.load32(at)),
        8 => region.memory.load64(at),
        2 => u64::from(region.memory.load16(at)),
        _ => u64::from(region.memory.load8(at)),
    }
}

#[inline(always)]
pub(crate) fn load_global(i: &mut Issue, op: &MemOp, addr: &Reg64) -> Step {
    let bytes = op.size * op.count;
    if i.launch.races.is_some() {
        if op.non_coherent {
            record_coherence(i, addr, bytes, Access::Read)?;
        }
        record(i, addr, i.m, bytes, Access::Read, op.order)?;
    }
    let (launch, warp, m) = (i.launch, &mut i.warp, i.m);
    let Some(region) = common(launch, addr, m, bytes) else {
        return load_global_apart(launch, warp, op, addr, m);
    };
    let memory = region.memory;
    let shift = region.start.wrapping_sub(region.base);
    let unwritten = |lane: u32| Err(launch.bad_access(lane, addr[lane as usize], bytes, "reads"));
    match shape(addr, m, u64::from(bytes)) {
        Shape::Row if op.size >= 4 => {
            let at = addr[0].wrapping_add(shift);
            if !region.all_written
                && let Some(byte) = memory.first_unwritten(at, u64::from(bytes) * 32)
            {
                return unwritten(((byte - at) / u64::from(bytes)) as u32);
            }
            if op.size == 4 && op.width == 32 {
                if op.count == 1 {
                    memory.read_words(at, &mut warp.r32[op.regs[0] as usize]);
                } else {
                    let mut words = [[0; 32]; 4];
                    for (i, part) in words.iter_mut().enumerate().take(op.count as usize) {
                        memory.read_words(at + 128 * i as u64, part);
                    }
                    let flat = words.as_flattened();
                    for k in 0..op.count as usize {
                        let reg = &mut warp.r32[op.regs[k] as usize];
                        for l in 0..32 {
                            reg[l] = flat[l * op.count as usize + k];
                        }
                    }
                }
                return Ok(());
            }
        }
        Shape::Same => {
            let first = m.trailing_zeros();
            let at = addr[first as usize].wrapping_add(shift);
            if !region.all_written && !memory.is_written(at, bytes) {
                return unwritten(first);
            }
            for k in 0..op.count {
                let v = extend(op, element(region, at + u64::from(k * op.size), op.size));
                let reg = op.regs[k as usize] as usize;
                if op.width == 64 {
                    let row = &mut warp.r64[reg];
                    for l in 0..32 {
                        row[l] = if m >> l & 1 != 0 { v } else { row[l] };
                    }
                } else {
                    let row = &mut warp.r32[reg];
                    for l in 0..32 {
                        row[l] = if m >> l & 1 != 0 { v as u32 } else { row[l] };
                    }
                }
            }
            return Ok(());
        }
        _ => {}
    }
    if !region.all_written {
        for l in each(m) {
            if !memory.is_written(addr[l as usize].wrapping_add(shift), bytes) {
                return unwritten(l);
            }
        }
    }
    if op.size == 4 && op.width == 32 {
        // Lanes that are off read what the first one reads, and drop it.
        let first = addr[m.trailing_zeros() as usize];
        let mut at = [0; 32];
        for l in 0..32 {
            at[l] = addr[l].blend(first, on(m, l)).wrapping_add(shift);
        }
        let mut out = [[0; 32]; 4];
        match op.count {
            1 => memory.gather::<1>(&at, &mut out),
            2 => memory.gather::<2>(&at, &mut out),
            _ => memory.gather::<4>(&at, &mut out),
        }
        put_words(warp, op, &out, m);
        return Ok(());
    }
    for l in each(m) {
        let at = addr[l as usize].wrapping_add(shift);
        put_elements(warp, op, l, region, at);
    }
    Ok(())
}

/// Loads the elements of one lane.
#[inline(always)]
fn put_elements(warp: &mut Lanes, op: &MemOp, lane: u32, region: &Region, at: u64) {
    for k in 0..op.count {
        put(warp, op, k, lane as usize, element(region, at + u64::from(k * op.size), op.size));
    }
}

/// A load whose lanes lie in different arguments, or are wrong.
#[inline(never)]
fn load_global_apart(launch: &LaunchContext, warp: &mut Lanes, op: &MemOp, addr: &Reg64, m: u32) -> Step {
    let bytes = op.size * op.count;
    for l in each(m) {
        let a = addr[l as usize];
        let Some(region) = alone(launch, addr, l, bytes) else {
            return Err(culprit(launch, addr, 1 << l, bytes, "reads"));
        };
        let at = a - region.base + region.start;
        if !region.all_written && !region.memory.is_written(at, bytes) {
            return Err(launch.bad_access(l, a, bytes, "reads"));
        }
        put_elements(warp, op, l, region, at);
    }
    Ok(())
}

#[inline(always)]
fn set_element(region: &Region, at: u64, size: u32, v: u64) {
    match size {
        4 => region.memory.store32(at, v as u32),
        8 => region.memory.store64(at, v),
        2 => region.memory.store16(at, v as u16),
        _ => region.memory.store8(at, v as u8),
    }
}

/// Stores the elements of one lane.
#[inline(always)]
fn set_elements(warp: &Lanes, op: &MemOp, lane: u32, region: &Region, at: u64) {
    for k in 0..op.count {
        set_element(region, at + u64::from(k * op.size), op.size, get(warp, op, k, lane as usize));
    }
}

#[inline(always)]
pub(crate) fn store_global(i: &mut Issue, op: &MemOp, addr: &Reg64) -> Step {
    let bytes = op.size * op.count;
    if i.launch.races.is_some() {
        record_coherence(i, addr, bytes, Access::Write)?;
        record(i, addr, i.m, bytes, Access::Write, op.order)?;
    }
    let (launch, warp, m) = (i.launch, &i.warp, i.m);
    let region = match common(launch, addr, m, bytes) {
        Some(r) if !r.read_only => r,
        _ => return store_global_apart(launch, warp, op, addr, m),
    };
    let memory = region.memory;
    let shift = region.start.wrapping_sub(region.base);
    if op.size == 4 && op.width == 32 && shape(addr, m, u64::from(bytes)) == Shape::Row {
        let at = addr[0].wrapping_add(shift);
        if op.count == 1 {
            memory.write_words(at, &warp.r32[op.regs[0] as usize]);
        } else {
            let mut words = [[0; 32]; 4];
            let flat = words.as_flattened_mut();
            for k in 0..op.count as usize {
                let reg = &warp.r32[op.regs[k] as usize];
                for l in 0..32 {
                    flat[l * op.count as usize + k] = reg[l];
                }
            }
            for (i, part) in words.iter().enumerate().take(op.count as usize) {
                memory.write_words(at + 128 * i as u64, part);
            }
        }
        if !region.all_written {
            memory.mark(at, u64::from(bytes) * 32);
        }
        return Ok(());
    }
    conflict(warp, op, addr, m)?;
    for l in each(m) {
        let at = addr[l as usize].wrapping_add(shift);
        set_elements(warp, op, l, region, at);
        if !region.all_written {
            memory.mark_written(at, bytes);
        }
    }
    Ok(())
}

#[inline(never)]
fn store_global_apart(launch: &LaunchContext, warp: &Lanes, op: &MemOp, addr: &Reg64, m: u32) -> Step {
    let bytes = op.size * op.count;
    conflict(warp, op, addr, m)?;
    for l in each(m) {
        let a = addr[l as usize];
        let region = match alone(launch, addr, l, bytes) {
            Some(r) if !r.read_only => r,
            Some(_) => return Err(launch.bad_access(l, a, bytes, "writes")),
            None => return Err(culprit(launch, addr, 1 << l, bytes, "writes")),
        };
        let at = a - region.base + region.start;
        set_elements(warp, op, l, region, at);
        region.memory.mark_written(at, bytes);
    }
    Ok(())
}
