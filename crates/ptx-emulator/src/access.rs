//! Loads, stores and atomics of a warp, with their checks.
// Lanes are numbers here: loops over them index several rows at once.
#![allow(clippy::needless_range_loop)]

use super::block::{Lanes, WideRow, each};
use super::code::*;
use super::count::Tally;
use super::exec::{Blend as _, mask_of, on};
use super::job::{Fault, Job, Region};
use super::races::Access;
use super::shared::Shared;

type Step<T = ()> = Result<T, Box<Fault>>;

/// The addresses of a warp access.
#[inline(always)]
fn addresses(warp: &Lanes, op: &MemOp) -> WideRow {
    let offset = op.offset as u64;
    match op.addr {
        Slot::R64(n) => {
            let base = &warp.r64[n as usize];
            std::array::from_fn(|l| base[l].wrapping_add(offset))
        }
        Slot::R32(n) => {
            let base = &warp.r32[n as usize];
            std::array::from_fn(|l| u64::from(base[l]).wrapping_add(offset))
        }
        _ => [offset; 32],
    }
}

/// Splits lanes with generic addresses by the space they point to, and strips the window.
fn split(addr: &mut WideRow, m: u32) -> [(Space, u32); 3] {
    let mut masks = [(Space::Global, 0), (Space::Shared, 0), (Space::Local, 0)];
    for l in each(m) {
        let a = &mut addr[l as usize];
        let k = match *a >> REGION {
            r if r == SHARED_WINDOW >> REGION => {
                *a = a.wrapping_sub(SHARED_WINDOW);
                1
            }
            r if r == LOCAL_WINDOW >> REGION => {
                *a = a.wrapping_sub(LOCAL_WINDOW);
                2
            }
            _ => 0,
        };
        masks[k].1 |= 1 << l;
    }
    masks
}

/// Counts an access before it is checked.
#[inline(never)]
fn count(tally: &mut Tally, op: &MemOp, addr: &WideRow, m: u32, pc: u32, write: bool) {
    let bytes = op.size * op.count;
    let mut addr = *addr;
    let masks = match op.space {
        Space::Generic => split(&mut addr, m),
        space => [(space, m), (Space::Local, 0), (Space::Local, 0)],
    };
    for (space, m) in masks {
        match space {
            _ if m == 0 => {}
            Space::Global => tally.global(pc, &addr, m, bytes, write),
            Space::Shared => tally.shared(pc, &addr, m, bytes),
            _ => {}
        }
    }
}

/// How the addresses of the active lanes lie.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// All lanes active, each next to the one before.
    Row,
    /// All the same.
    Same,
    Any,
}

#[inline(always)]
fn shape(addr: &WideRow, m: u32, stride: u64) -> Shape {
    let first = addr[m.trailing_zeros() as usize];
    let last = addr[31 - m.leading_zeros() as usize];
    if last == first {
        if mask_of(|l| addr[l] == first) & m == m {
            return Shape::Same;
        }
    } else if m == u32::MAX
        && last == first.wrapping_add(31 * stride)
        && mask_of(|l| addr[l] == first.wrapping_add(l as u64 * stride)) == u32::MAX
    {
        return Shape::Row;
    }
    Shape::Any
}

/// The lanes whose `bytes` (a power of two) at an offset lie aligned in `len` bytes.
#[inline(always)]
fn inside(offset: impl Fn(usize) -> u64, bytes: u32, len: u64) -> u32 {
    // Rotating the alignment bits to the top makes one comparison of two: what is misaligned is
    // then far out of bounds. Signed, because that is what the vector instructions have.
    let shift = bytes.trailing_zeros();
    let Some(most) = len.checked_sub(u64::from(bytes)) else {
        return 0;
    };
    let most = ((most >> shift) ^ (1 << 63)) as i64;
    mask_of(|l| (offset(l).rotate_right(shift) ^ (1 << 63)) as i64 <= most)
}

/// The region that all active lanes lie in, where there is one, aligned and in bounds.
#[inline(always)]
fn common<'j, 'a>(job: &'j Job<'a>, addr: &WideRow, m: u32, bytes: u32) -> Option<&'j Region<'a>> {
    let region = job.region(addr[m.trailing_zeros() as usize])?;
    let ok = inside(|l| addr[l].wrapping_sub(region.base), bytes, region.len) & m == m;
    (ok && region.base.is_multiple_of(u64::from(bytes))).then_some(region)
}

/// The region one lane lies in, aligned and in bounds.
fn alone<'j, 'a>(job: &'j Job<'a>, addr: &WideRow, lane: u32, bytes: u32) -> Option<&'j Region<'a>> {
    let a = addr[lane as usize];
    let region = job.region(a)?;
    let at = a.wrapping_sub(region.base);
    (at < region.len && u64::from(bytes) <= region.len - at && a.is_multiple_of(u64::from(bytes)))
        .then_some(region)
}

/// The first lane, in order, whose access is wrong.
#[cold]
fn culprit(job: &Job, addr: &WideRow, m: u32, bytes: u32, what: &str) -> Box<Fault> {
    for l in each(m) {
        let a = addr[l as usize];
        let fine = job.region(a).is_some_and(|r| {
            let at = a.wrapping_sub(r.base);
            at < r.len && u64::from(bytes) <= r.len - at && a.is_multiple_of(u64::from(bytes))
        });
        if !fine {
            return job.bad_access(l, a, bytes, what);
        }
    }
    Fault::warp("lanes of one access point to different arguments")
}

/// Brings a loaded element to the form of its register.
#[inline(always)]
fn extend(op: &MemOp, v: u64) -> u64 {
    if !op.signed || op.size == 8 {
        return v;
    }
    let v = match op.size {
        1 => i64::from(v as i8),
        2 => i64::from(v as i16),
        _ => i64::from(v as i32),
    } as u64;
    match op.width {
        16 => v & 0xffff,
        32 => v & 0xffff_ffff,
        _ => v,
    }
}

#[inline(always)]
fn put(warp: &mut Lanes, op: &MemOp, k: u32, lane: usize, v: u64) {
    let v = extend(op, v);
    let reg = op.regs[k as usize] as usize;
    if op.width == 64 {
        warp.r64[reg][lane] = v;
    } else {
        warp.r32[reg][lane] = v as u32;
    }
}

#[inline(always)]
fn get(warp: &Lanes, op: &MemOp, k: u32, lane: usize) -> u64 {
    let reg = op.regs[k as usize] as usize;
    if op.width == 64 { warp.r64[reg][lane] } else { u64::from(warp.r32[reg][lane]) }
}

/// A load by the lanes of `m`.
#[inline(always)]
pub(super) fn load<const COUNT: bool>(
    job: &Job,
    warp: &mut Lanes,
    shared: &mut Shared,
    tally: &mut Tally,
    op: &MemOp,
    m: u32,
    pc: u32,
) -> Step {
    let addr = addresses(warp, op);
    if COUNT {
        count(tally, op, &addr, m, pc, false);
    }
    match op.space {
        Space::Global => load_global(job, warp, op, &addr, m, pc),
        Space::Shared => load_shared(warp, shared, op, &addr, m, pc),
        Space::Local => load_local(warp, op, &addr, m),
        Space::Generic => load_generic(job, warp, shared, op, addr, m, pc),
    }
}

/// A store by the lanes of `m`.
#[inline(always)]
pub(super) fn store<const COUNT: bool>(
    job: &Job,
    warp: &mut Lanes,
    shared: &mut Shared,
    tally: &mut Tally,
    op: &MemOp,
    m: u32,
    pc: u32,
) -> Step {
    let addr = addresses(warp, op);
    if COUNT {
        count(tally, op, &addr, m, pc, true);
    }
    match op.space {
        Space::Global => store_global(job, warp, op, &addr, m, pc),
        Space::Shared => store_shared(warp, shared, op, &addr, m, pc),
        Space::Local => store_local(warp, op, &addr, m),
        Space::Generic => store_generic(job, warp, shared, op, addr, m, pc),
    }
}

#[inline(never)]
fn load_generic(
    job: &Job,
    warp: &mut Lanes,
    shared: &mut Shared,
    op: &MemOp,
    mut addr: WideRow,
    m: u32,
    pc: u32,
) -> Step {
    for (space, m) in split(&mut addr, m) {
        match space {
            _ if m == 0 => {}
            Space::Shared => load_shared(warp, shared, op, &addr, m, pc)?,
            Space::Local => load_local(warp, op, &addr, m)?,
            _ => load_global(job, warp, op, &addr, m, pc)?,
        }
    }
    Ok(())
}

#[inline(never)]
fn store_generic(
    job: &Job,
    warp: &mut Lanes,
    shared: &mut Shared,
    op: &MemOp,
    mut addr: WideRow,
    m: u32,
    pc: u32,
) -> Step {
    for (space, m) in split(&mut addr, m) {
        match space {
            _ if m == 0 => {}
            Space::Shared => store_shared(warp, shared, op, &addr, m, pc)?,
            Space::Local => store_local(warp, op, &addr, m)?,
            _ => store_global(job, warp, op, &addr, m, pc)?,
        }
    }
    Ok(())
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
fn load_global(job: &Job, warp: &mut Lanes, op: &MemOp, addr: &WideRow, m: u32, pc: u32) -> Step {
    let bytes = op.size * op.count;
    if let Some(races) = job.races {
        job.race(races, warp.block, pc, addr, m, bytes, Access::Read, op.order)?;
    }
    let Some(region) = common(job, addr, m, bytes) else {
        return load_global_apart(job, warp, op, addr, m);
    };
    let memory = region.memory;
    let shift = region.start.wrapping_sub(region.base);
    let unwritten = |lane: u32| Err(job.bad_access(lane, addr[lane as usize], bytes, "reads"));
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
        for k in 0..op.count as usize {
            let row = &mut warp.r32[op.regs[k] as usize];
            if m == u32::MAX {
                *row = out[k];
            } else {
                for l in 0..32 {
                    row[l] = out[k][l].blend(row[l], on(m, l));
                }
            }
        }
        return Ok(());
    }
    for l in each(m) {
        let at = addr[l as usize].wrapping_add(shift);
        for k in 0..op.count {
            put(warp, op, k, l as usize, element(region, at + u64::from(k * op.size), op.size));
        }
    }
    Ok(())
}

/// A load whose lanes lie in different arguments, or are wrong.
#[inline(never)]
fn load_global_apart(job: &Job, warp: &mut Lanes, op: &MemOp, addr: &WideRow, m: u32) -> Step {
    let bytes = op.size * op.count;
    for l in each(m) {
        let a = addr[l as usize];
        let Some(region) = alone(job, addr, l, bytes) else {
            return Err(culprit(job, addr, 1 << l, bytes, "reads"));
        };
        let at = a - region.base + region.start;
        if !region.all_written && !region.memory.is_written(at, bytes) {
            return Err(job.bad_access(l, a, bytes, "reads"));
        }
        for k in 0..op.count {
            put(warp, op, k, l as usize, element(region, at + u64::from(k * op.size), op.size));
        }
    }
    Ok(())
}

/// Two lanes that write different values to one place in one instruction.
fn conflict(warp: &Lanes, op: &MemOp, addr: &WideRow, m: u32) -> Step {
    let bytes = u64::from(op.size * op.count);
    // Ascending addresses cannot meet.
    let mut last: Option<u64> = None;
    if each(m).all(|l| {
        let a = addr[l as usize];
        let fine = last.is_none_or(|b| a >= b + bytes);
        last = Some(a);
        fine
    }) {
        return Ok(());
    }
    // A table of addresses met so far, four times as large as it can get full.
    let mut table = [u8::MAX; 128];
    let cut = if op.size == 8 { u64::MAX } else { (1 << (8 * op.size)) - 1 };
    for l in each(m) {
        let a = addr[l as usize];
        let mut i = ((a / bytes).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 57) as usize;
        while table[i] != u8::MAX && addr[table[i] as usize] != a {
            i = (i + 1) % 128;
        }
        let (p, q) = (table[i] as usize, l as usize);
        if table[i] == u8::MAX {
            table[i] = l as u8;
        } else if (0..op.count).any(|k| (get(warp, op, k, p) ^ get(warp, op, k, q)) & cut != 0) {
            return Err(Fault::lane(
                l,
                format!("lanes {p} and {q} write different values to one place in one instruction"),
            ));
        }
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

#[inline(always)]
fn store_global(job: &Job, warp: &Lanes, op: &MemOp, addr: &WideRow, m: u32, pc: u32) -> Step {
    let bytes = op.size * op.count;
    if let Some(races) = job.races {
        job.race(races, warp.block, pc, addr, m, bytes, Access::Write, op.order)?;
    }
    let region = match common(job, addr, m, bytes) {
        Some(r) if !r.read_only => r,
        _ => return store_global_apart(job, warp, op, addr, m),
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
        for k in 0..op.count {
            set_element(region, at + u64::from(k * op.size), op.size, get(warp, op, k, l as usize));
        }
        if !region.all_written {
            memory.mark_written(at, bytes);
        }
    }
    Ok(())
}

#[inline(never)]
fn store_global_apart(job: &Job, warp: &Lanes, op: &MemOp, addr: &WideRow, m: u32) -> Step {
    let bytes = op.size * op.count;
    conflict(warp, op, addr, m)?;
    for l in each(m) {
        let a = addr[l as usize];
        let region = match alone(job, addr, l, bytes) {
            Some(r) if !r.read_only => r,
            Some(_) => return Err(job.bad_access(l, a, bytes, "writes")),
            None => return Err(culprit(job, addr, 1 << l, bytes, "writes")),
        };
        let at = a - region.base + region.start;
        for k in 0..op.count {
            set_element(region, at + u64::from(k * op.size), op.size, get(warp, op, k, l as usize));
        }
        region.memory.mark_written(at, bytes);
    }
    Ok(())
}

/// The offset of a lane in shared memory, checked.
#[inline(always)]
pub(super) fn shared_at(shared: &Shared, addr: u64, lane: u32, bytes: u32, what: &str) -> Step<u32> {
    let len = shared.bytes.len() as u64;
    if addr < len && u64::from(bytes) <= len - addr && addr & u64::from(bytes - 1) == 0 {
        return Ok(addr as u32);
    }
    Err(bad_shared(len, addr, lane, bytes, what))
}

#[cold]
fn bad_shared(len: u64, addr: u64, lane: u32, bytes: u32, what: &str) -> Box<Fault> {
    let at = addr as i64;
    let at = if addr <= u64::from(u32::MAX) { i64::from(addr as u32) } else { at };
    if at < 0 || at as u64 + u64::from(bytes) > len {
        Fault::lane(
            lane,
            format!(
                "{what} {bytes} bytes out of bounds, at byte {at} of shared memory, of which the block has {len} bytes"
            ),
        )
    } else {
        Fault::lane(lane, format!("{what} {bytes} bytes misaligned, at byte {at} of shared memory"))
    }
}

#[inline(always)]
fn from_bytes(bytes: &[u8]) -> u64 {
    match *bytes {
        [a] => u64::from(a),
        [a, b] => u64::from(u16::from_le_bytes([a, b])),
        [a, b, c, d] => u64::from(u32::from_le_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        _ => 0,
    }
}

/// The ranges of bytes that lanes touch, each lane's next to or within the one before it.
///
/// Most accesses are one range: a row, a broadcast, a row that half warps share.
#[inline(always)]
fn ranges(addr: &WideRow, m: u32, bytes: u32, out: &mut [(u32, u32); 32]) -> usize {
    let first = addr[m.trailing_zeros() as usize] as u32;
    if m == u32::MAX && mask_of(|l| addr[l] == u64::from(first) + l as u64 * u64::from(bytes)) == m {
        out[0] = (first, 32 * bytes);
        return 1;
    }
    let (mut low, mut high, mut n) = (first, first + bytes, 0);
    for l in each(m & (m - 1)) {
        let a = addr[l as usize] as u32;
        if a == high {
            high += bytes;
        } else if a < low || a > high {
            out[n] = (low, high - low);
            n += 1;
            (low, high) = (a, a + bytes);
        }
    }
    out[n] = (low, high - low);
    n + 1
}

#[inline(always)]
fn load_shared(warp: &mut Lanes, shared: &mut Shared, op: &MemOp, addr: &WideRow, m: u32, pc: u32) -> Step {
    let bytes = op.size * op.count;
    let len = shared.bytes.len() as u64;
    if inside(|l| addr[l], bytes, len) & m != m {
        for l in each(m) {
            shared_at(shared, addr[l as usize], l, bytes, "reads")?;
        }
    }
    let mut list = [(0, 0); 32];
    let n = ranges(addr, m, bytes, &mut list);
    shared.load(warp.index, pc, addr, m, bytes, &list[..n])?;
    if op.size == 4 && op.width == 32 {
        // Lanes that are off read what the first one reads, and drop it.
        let first = addr[m.trailing_zeros() as usize];
        let mut out = [[0; 32]; 4];
        match op.count {
            1 => gather_shared::<1>(shared, addr, first, m, &mut out),
            2 => gather_shared::<2>(shared, addr, first, m, &mut out),
            _ => gather_shared::<4>(shared, addr, first, m, &mut out),
        }
        for k in 0..op.count as usize {
            let row = &mut warp.r32[op.regs[k] as usize];
            if m == u32::MAX {
                *row = out[k];
            } else {
                for l in 0..32 {
                    row[l] = out[k][l].blend(row[l], on(m, l));
                }
            }
        }
        return Ok(());
    }
    for l in each(m) {
        for k in 0..op.count {
            let from = addr[l as usize] as usize + (k * op.size) as usize;
            let v = from_bytes(&shared.bytes[from..from + op.size as usize]);
            put(warp, op, k, l as usize, v);
        }
    }
    Ok(())
}

/// `N` consecutive words of shared memory for each lane: word `k` into row `k`.
#[inline(always)]
fn gather_shared<const N: usize>(
    shared: &Shared,
    addr: &WideRow,
    first: u64,
    m: u32,
    out: &mut [[u32; 32]; 4],
) {
    let mut words = [[[0u8; 4]; N]; 32];
    for l in 0..32 {
        let at = if m == u32::MAX { addr[l] } else { addr[l].blend(first, on(m, l)) } as usize;
        words[l].as_flattened_mut().copy_from_slice(&shared.bytes[at..at + 4 * N]);
    }
    for k in 0..N {
        for l in 0..32 {
            out[k][l] = u32::from_le_bytes(words[l][k]);
        }
    }
}

#[inline(always)]
fn store_shared(warp: &mut Lanes, shared: &mut Shared, op: &MemOp, addr: &WideRow, m: u32, pc: u32) -> Step {
    let bytes = op.size * op.count;
    let len = shared.bytes.len() as u64;
    if inside(|l| addr[l], bytes, len) & m != m {
        for l in each(m) {
            shared_at(shared, addr[l as usize], l, bytes, "writes")?;
        }
    }
    let meet = shared.meets(addr, m);
    if meet {
        conflict(warp, op, addr, m)?;
    }
    let mut list = [(0, 0); 32];
    let n = ranges(addr, m, bytes, &mut list);
    shared.store(warp.index, pc, addr, m, bytes, &list[..n], meet)?;
    if op.size == 4 && op.width == 32 {
        for k in 0..op.count {
            let row = &warp.r32[op.regs[k as usize] as usize];
            for l in each(m) {
                let to = addr[l as usize] as usize + 4 * k as usize;
                shared.bytes[to..to + 4].copy_from_slice(&row[l as usize].to_le_bytes());
            }
        }
        return Ok(());
    }
    for l in each(m) {
        for k in 0..op.count {
            let to = addr[l as usize] as usize + (k * op.size) as usize;
            let v = get(warp, op, k, l as usize).to_le_bytes();
            shared.bytes[to..to + op.size as usize].copy_from_slice(&v[..op.size as usize]);
        }
    }
    Ok(())
}

/// The offset of a lane in its local memory, checked.
#[inline(always)]
fn local_at(warp: &Lanes, addr: u64, lane: u32, bytes: u32, what: &str) -> Step<u32> {
    let len = warp.local.words.len() as u64 / 32 * 4;
    if addr < len && u64::from(bytes) <= len - addr && addr & u64::from(bytes - 1) == 0 {
        return Ok(addr as u32);
    }
    Err(Fault::lane(
        lane,
        format!(
            "{what} {bytes} bytes out of bounds or misaligned, at byte {} of local memory, of which a thread has {len} bytes",
            addr as i64
        ),
    ))
}

#[inline(never)]
fn load_local(warp: &mut Lanes, op: &MemOp, addr: &WideRow, m: u32) -> Step {
    let bytes = op.size * op.count;
    for l in each(m) {
        let at = local_at(warp, addr[l as usize], l, bytes, "reads")?;
        for k in 0..op.count {
            let from = at + k * op.size;
            let mut v = 0;
            let word = |at: u32| (at / 4 * 32 + l) as usize;
            let mask = ((1u32 << op.size.min(4)) - 1) << (from % 4);
            for part in 0..op.size.div_ceil(4) {
                let w = word(from + 4 * part);
                if u32::from(warp.local.written[w]) & mask != mask {
                    return Err(Fault::lane(
                        l,
                        format!(
                            "reads {} bytes of local memory that nothing has written, at byte {from}",
                            op.size
                        ),
                    ));
                }
                v |= u64::from(warp.local.words[w]) << (32 * part);
            }
            v >>= 8 * (from % 4);
            if op.size < 8 {
                v &= (1 << (8 * op.size)) - 1;
            }
            put(warp, op, k, l as usize, v);
        }
    }
    Ok(())
}

#[inline(never)]
fn store_local(warp: &mut Lanes, op: &MemOp, addr: &WideRow, m: u32) -> Step {
    let bytes = op.size * op.count;
    for l in each(m) {
        let at = local_at(warp, addr[l as usize], l, bytes, "writes")?;
        for k in 0..op.count {
            let to = at + k * op.size;
            let v = get(warp, op, k, l as usize);
            for part in 0..op.size.div_ceil(4) {
                let w = ((to / 4 + part) * 32 + l) as usize;
                let byte = 8 * (to % 4);
                let cut = if op.size >= 4 { u32::MAX } else { ((1u32 << (8 * op.size)) - 1) << byte };
                let new = (v >> (32 * part)) as u32;
                let new = if op.size >= 4 { new } else { new << byte };
                warp.local.words[w] = warp.local.words[w] & !cut | new & cut;
                warp.local.written[w] |= (((1u32 << op.size.min(4)) - 1) << (to % 4)) as u8;
            }
        }
    }
    Ok(())
}

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
pub(super) fn atomic<const COUNT: bool>(
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

/// Reads `n` bytes of global memory for an asynchronous copy of `bytes`.
pub(super) fn read_bytes(
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

/// `ldmatrix`: lane `8 i + r` gives the address of row `r` of matrix `i`.
#[inline(always)]
pub(super) fn load_matrix<const COUNT: bool>(
    warp: &mut Lanes,
    shared: &mut Shared,
    tally: &mut Tally,
    op: &MemOp,
    transposed: bool,
    pc: u32,
) -> Step {
    let mut addr = addresses(warp, op);
    let m = if op.count == 4 { u32::MAX } else { (1 << (8 * op.count)) - 1 };
    if op.space == Space::Generic {
        split(&mut addr, m);
    }
    if COUNT {
        tally.shared(pc, &addr, m, 16);
    }
    if inside(|l| addr[l], 16, shared.bytes.len() as u64) & m != m {
        for l in each(m) {
            shared_at(shared, addr[l as usize], l, 16, "reads")?;
        }
    }
    let mut list = [(0, 0); 32];
    let n = ranges(&addr, m, 16, &mut list);
    shared.load(warp.index, pc, &addr, m, 16, &list[..n])?;
    let mut rows = [[[0u16; 8]; 8]; 4];
    for l in 0..8 * op.count as usize {
        let bytes = &shared.bytes[addr[l] as usize..addr[l] as usize + 16];
        for (out, pair) in rows[l / 8][l % 8].iter_mut().zip(bytes.as_chunks::<2>().0) {
            *out = u16::from_le_bytes(*pair);
        }
    }
    super::matrix::distribute(warp, &op.regs[..op.count as usize], &rows, transposed);
    Ok(())
}

/// An `mbarrier` instruction; false where a test found the phase not over, so that others must run.
pub(super) fn mbarrier(warp: &mut Lanes, shared: &mut Shared, op: &MBarOp, m: u32, pc: u32) -> Step<bool> {
    let mut all = true;
    for l in each(m) {
        let read = |warp: &Lanes, slot: Slot| match slot {
            Slot::R32(n) => u64::from(warp.r32[n as usize][l as usize]),
            Slot::R64(n) => warp.r64[n as usize][l as usize],
            _ => 1,
        };
        let mut address = read(warp, op.addr).wrapping_add(op.offset as u64);
        if address >> REGION == SHARED_WINDOW >> REGION {
            address = address.wrapping_sub(SHARED_WINDOW);
        }
        let at = shared_at(shared, address, l, 8, "uses an mbarrier of")?;
        let value = read(warp, op.value);
        if matches!(op.kind, MBarKind::Init | MBarKind::Inval) {
            shared.write(warp.index, pc, l, at, 8, false)?;
        } else {
            shared.read(warp.index, pc, l, at, 8)?;
        }
        let result = match op.kind {
            MBarKind::Init => {
                shared.mbar_init(l, at, value as u32)?;
                continue;
            }
            MBarKind::Inval => {
                shared.mbar_inval(at);
                continue;
            }
            MBarKind::Arrive => shared.mbar_arrive(warp.index, l, at, value as u32, false)?,
            MBarKind::CopyArrive | MBarKind::CopyArriveNoInc => {
                // Copies land here: the barrier stands for a wait by whoever tests it.
                warp.copies.wait(1 << l, None, warp.index, pc, shared);
                shared.mbar_arrive(warp.index, l, at, 1, op.kind == MBarKind::CopyArrive)?
            }
            MBarKind::Test | MBarKind::TestParity => {
                let over = shared.mbar_test(warp.index, l, at, value, op.kind == MBarKind::TestParity)?;
                all &= over;
                u64::from(over)
            }
        };
        match op.dst {
            Slot::R64(n) => warp.r64[n as usize][l as usize] = result,
            Slot::P(n) => {
                let p = &mut warp.preds[n as usize];
                *p = (*p & !(1 << l)) | ((result as u32 & 1) << l);
            }
            _ => {}
        }
    }
    Ok(all)
}
