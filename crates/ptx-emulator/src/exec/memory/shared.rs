//! Shared memory, `ldmatrix` and `mbarrier`.
// Lanes are numbers here, as in global memory.
#![allow(clippy::needless_range_loop)]

use super::lanes::{addresses, conflict, get, inside, put, put_words, split};
use crate::ErrorKind;
use crate::check::{LaneAccess, WarpAccess};
use crate::exec::issue::Issue;
use crate::exec::matrix::distribute;
use crate::fault::{Fault, Step};
use crate::isa::{MBarKind, MBarOp, MemOp, REGION, SHARED_WINDOW, Slot, Space};
use crate::lanes::{Blend as _, Reg64, each, mask_of, on};
use crate::memory::Shared;
use crate::warp::Lanes;

/// The offset of a lane in shared memory, checked.
#[inline(always)]
pub(crate) fn shared_at(shared: &Shared, addr: u64, lane: u32, bytes: u32, what: &str) -> Step<u32> {
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
        let what = format!(
            "{what} {bytes} bytes out of bounds, at byte {at} of shared memory, of which the block has {len} bytes"
        );
        Fault::lane(ErrorKind::OutOfBounds, lane, what)
    } else {
        let what = format!("{what} {bytes} bytes misaligned, at byte {at} of shared memory");
        Fault::lane(ErrorKind::Misaligned, lane, what)
    }
}

/// Fails where a lane of `m` is out of bounds or misaligned.
#[inline(always)]
fn check(shared: &Shared, addr: &Reg64, m: u32, bytes: u32, what: &str) -> Step {
    if inside(|l| addr[l], bytes, shared.bytes.len() as u64) & m != m {
        for l in each(m) {
            shared_at(shared, addr[l as usize], l, bytes, what)?;
        }
    }
    Ok(())
}

#[inline(always)]
pub(crate) fn from_bytes(bytes: &[u8]) -> u64 {
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
fn ranges(addr: &Reg64, m: u32, bytes: u32, out: &mut [(u32, u32); 32]) -> usize {
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
pub(crate) fn load_shared(i: &mut Issue, op: &MemOp, addr: &Reg64) -> Step {
    let bytes = op.size * op.count;
    let (warp, shared, m, pc) = (&mut i.warp, &mut *i.shared, i.m, i.pc);
    check(shared, addr, m, bytes, "reads")?;
    let mut list = [(0, 0); 32];
    let n = ranges(addr, m, bytes, &mut list);
    shared.shadow.load(&WarpAccess { warp: warp.index, pc, m, at: addr, bytes, ranges: &list[..n] })?;
    if op.size == 4 && op.width == 32 {
        // Lanes that are off read what the first one reads, and drop it.
        let first = addr[m.trailing_zeros() as usize];
        let mut out = [[0; 32]; 4];
        match op.count {
            1 => gather_shared::<1>(shared, addr, first, m, &mut out),
            2 => gather_shared::<2>(shared, addr, first, m, &mut out),
            _ => gather_shared::<4>(shared, addr, first, m, &mut out),
        }
        put_words(warp, op, &out, m);
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
    addr: &Reg64,
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
pub(crate) fn store_shared(i: &mut Issue, op: &MemOp, addr: &Reg64) -> Step {
    let bytes = op.size * op.count;
    let (warp, shared, m, pc) = (&i.warp, &mut *i.shared, i.m, i.pc);
    check(shared, addr, m, bytes, "writes")?;
    let overlap = shared.shadow.overlap(addr, m);
    if overlap {
        conflict(warp, op, addr, m)?;
    }
    let mut list = [(0, 0); 32];
    let n = ranges(addr, m, bytes, &mut list);
    let access = WarpAccess { warp: warp.index, pc, m, at: addr, bytes, ranges: &list[..n] };
    shared.shadow.store(&access, overlap)?;
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

/// `ldmatrix`: lane `8 i + r` gives the address of row `r` of matrix `i`.
#[inline(always)]
pub(crate) fn load_matrix<const COUNT: bool>(i: &mut Issue, op: &MemOp, transposed: bool) -> Step {
    let mut addr = addresses(&i.warp, op);
    let m = if op.count == 4 { u32::MAX } else { (1 << (8 * op.count)) - 1 };
    if op.space == Space::Generic {
        split(&mut addr, m);
    }
    if COUNT {
        i.tally.shared(i.pc, &addr, m, 16);
    }
    let shared = &mut *i.shared;
    check(shared, &addr, m, 16, "reads")?;
    let mut list = [(0, 0); 32];
    let n = ranges(&addr, m, 16, &mut list);
    let (warp, pc, ranges) = (i.warp.index, i.pc, &list[..n]);
    shared.shadow.load(&WarpAccess { warp, pc, m, at: &addr, bytes: 16, ranges })?;
    let mut rows = [[[0u16; 8]; 8]; 4];
    for l in 0..8 * op.count as usize {
        let bytes = &shared.bytes[addr[l] as usize..addr[l] as usize + 16];
        for (out, pair) in rows[l / 8][l % 8].iter_mut().zip(bytes.as_chunks::<2>().0) {
            *out = u16::from_le_bytes(*pair);
        }
    }
    distribute(&mut i.warp, &op.regs[..op.count as usize], &rows, transposed);
    Ok(())
}

/// An `mbarrier` instruction; false where a test found the phase not over, so that others must run.
pub(crate) fn mbarrier(i: &mut Issue, op: &MBarOp) -> Step<bool> {
    let (warp, shared, pc) = (&mut i.warp, &mut *i.shared, i.pc);
    let mut all = true;
    for l in each(i.m) {
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
        let access = LaneAccess { warp: warp.index, pc, lane: l, at, bytes: 8 };
        if matches!(op.kind, MBarKind::Init | MBarKind::Inval) {
            shared.shadow.write(&access, false)?;
        } else {
            shared.shadow.read(&access)?;
        }
        let (who, Shared { mbarriers, shadow, .. }) = ((warp.index, l), &mut *shared);
        let result = match op.kind {
            MBarKind::Init => {
                mbarriers.init(l, at, value as u32)?;
                continue;
            }
            MBarKind::Inval => {
                mbarriers.invalidate(at);
                continue;
            }
            MBarKind::Arrive => mbarriers.arrive(shadow, who, at, value as u32, false)?,
            MBarKind::CopyArrive | MBarKind::CopyArriveNoInc => {
                // Copies land here: the barrier stands for a wait by the thread that tests it.
                warp.copies.wait(1 << l, None, warp.index, pc, shared);
                let Shared { mbarriers, shadow, .. } = &mut *shared;
                mbarriers.arrive(shadow, who, at, 1, op.kind == MBarKind::CopyArrive)?
            }
            MBarKind::Test | MBarKind::TestParity => {
                let over = mbarriers.test(shadow, who, at, value, op.kind == MBarKind::TestParity)?;
                all &= over;
                u64::from(over)
            }
        };
        let tested = matches!(op.kind, MBarKind::Test | MBarKind::TestParity);
        shared.progress += u64::from(!tested || result == 1);
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
