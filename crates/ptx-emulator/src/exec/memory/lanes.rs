//! Where the lanes of an access lie, and their elements.
// Lanes are numbers here: loops over them index several rows at once.
#![allow(clippy::needless_range_loop)]

use crate::ErrorKind;
use crate::counters::tally::Traffic;
use crate::exec::issue::Issue;
use crate::fault::{Fault, Step};
use crate::isa::{LOCAL_WINDOW, MemOp, REGION, SHARED_WINDOW, Slot, Space};
use crate::lanes::{Blend as _, Reg32, Reg64, each, mask_of, on};
use crate::warp::Lanes;

/// The addresses of a warp access.
#[inline(always)]
pub(crate) fn addresses(warp: &Lanes, op: &MemOp) -> Reg64 {
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
#[inline]
pub(crate) fn split(addr: &mut Reg64, m: u32) -> [(Space, u32); 3] {
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

/// The lanes of an access by the space they point to.
#[inline]
pub(crate) fn split_by_space(op: &MemOp, addr: &mut Reg64, m: u32) -> [(Space, u32); 3] {
    match op.space {
        Space::Generic => split(addr, m),
        space => [(space, m), (Space::Local, 0), (Space::Local, 0)],
    }
}

/// Counts an access before it is checked.
#[inline(never)]
pub(crate) fn count(i: &mut Issue, op: &MemOp, addr: &Reg64, traffic: Traffic) {
    let bytes = op.size * op.count;
    let mut addr = *addr;
    for (space, m) in split_by_space(op, &mut addr, i.m) {
        match space {
            _ if m == 0 => {}
            Space::Global => i.tally.global(i.pc, &addr, m, bytes, traffic),
            Space::Shared => i.tally.shared(i.pc, &addr, m, bytes),
            _ => {}
        }
    }
}

/// How the addresses of the active lanes lie.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// All lanes active, each next to the one before.
    Row,
    /// All the same.
    Same,
    Any,
}

#[inline(always)]
pub(crate) fn shape(addr: &Reg64, m: u32, stride: u64) -> Shape {
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
pub(crate) fn inside(offset: impl Fn(usize) -> u64, bytes: u32, len: u64) -> u32 {
    // Rotating the alignment bits to the top makes one comparison of two: what is misaligned is
    // then far out of bounds. Signed, because that is what the vector instructions have.
    let shift = bytes.trailing_zeros();
    let Some(most) = len.checked_sub(u64::from(bytes)) else {
        return 0;
    };
    let most = ((most >> shift) ^ (1 << 63)) as i64;
    mask_of(|l| (offset(l).rotate_right(shift) ^ (1 << 63)) as i64 <= most)
}

/// Brings a loaded element to the form of its register.
#[inline(always)]
pub(crate) fn extend(op: &MemOp, v: u64) -> u64 {
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
pub(crate) fn put(warp: &mut Lanes, op: &MemOp, k: u32, lane: usize, v: u64) {
    let v = extend(op, v);
    let reg = op.regs[k as usize] as usize;
    if op.width == 64 {
        warp.r64[reg][lane] = v;
    } else {
        warp.r32[reg][lane] = v as u32;
    }
}

/// Puts loaded words, row `k` of which is element `k`, into the registers of the lanes of `m`.
#[inline(always)]
pub(crate) fn put_words(warp: &mut Lanes, op: &MemOp, words: &[Reg32; 4], m: u32) {
    for k in 0..op.count as usize {
        let row = &mut warp.r32[op.regs[k] as usize];
        if m == u32::MAX {
            *row = words[k];
        } else {
            for l in 0..32 {
                row[l] = words[k][l].blend(row[l], on(m, l));
            }
        }
    }
}

#[inline(always)]
pub(crate) fn get(warp: &Lanes, op: &MemOp, k: u32, lane: usize) -> u64 {
    let reg = op.regs[k as usize] as usize;
    if op.width == 64 { warp.r64[reg][lane] } else { u64::from(warp.r32[reg][lane]) }
}

/// Two lanes that write different values to one place in one instruction.
pub(crate) fn conflict(warp: &Lanes, op: &MemOp, addr: &Reg64, m: u32) -> Step {
    let bytes = u64::from(op.size * op.count);
    // Ascending addresses cannot overlap.
    let mut last: Option<u64> = None;
    if each(m).all(|l| {
        let a = addr[l as usize];
        let fine = last.is_none_or(|b| a >= b + bytes);
        last = Some(a);
        fine
    }) {
        return Ok(());
    }
    // A table of the addresses so far, four times as large as it can get full.
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
                ErrorKind::Race,
                l,
                format!("lanes {p} and {q} write different values to one place in one instruction"),
            ));
        }
    }
    Ok(())
}
