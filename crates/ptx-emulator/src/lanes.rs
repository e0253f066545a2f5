//! 32 lanes: rows of registers, masks, and loops over both.
#![allow(clippy::needless_range_loop)]

use crate::isa::NOT;

/// A register of 32 lanes.
pub(crate) type Row = [u32; 32];

/// A 64-bit register of 32 lanes.
pub(crate) type WideRow = [u64; 32];

/// The set bits of a mask, lowest first.
#[inline(always)]
pub(crate) fn each(mut mask: u32) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        if mask == 0 {
            return None;
        }
        let i = mask.trailing_zeros();
        mask &= mask - 1;
        Some(i)
    })
}

/// The bit of each lane.
const BIT: Row = {
    let mut bits = [0; 32];
    let mut l = 0;
    while l < 32 {
        bits[l] = 1 << l;
        l += 1;
    }
    bits
};

/// Whether a lane is in a mask, as all ones or zero: a form that vector loops are made of.
pub(crate) trait Blend: Copy {
    const ONES: Self;
    const ZERO: Self;
    fn blend(self, other: Self, on: Self) -> Self;
}

impl Blend for u32 {
    const ONES: Self = u32::MAX;
    const ZERO: Self = 0;
    #[inline(always)]
    fn blend(self, other: Self, on: Self) -> Self {
        (self & on) | (other & !on)
    }
}

impl Blend for u64 {
    const ONES: Self = u64::MAX;
    const ZERO: Self = 0;
    #[inline(always)]
    fn blend(self, other: Self, on: Self) -> Self {
        (self & on) | (other & !on)
    }
}

#[inline(always)]
pub(crate) fn on<T: Blend>(m: u32, l: usize) -> T {
    if m & BIT[l] != 0 { T::ONES } else { T::ZERO }
}

// The loops below compute a whole row before they store any of it: the compiler then needs no
// proof that rows are distinct, and makes four vector instructions of each.

/// `d = f(a)` in the lanes of `m`. The row is computed in all lanes and then blended, so that `f` is
/// compiled once: with a second, masked copy the interpreter takes twice as long to build.
#[inline(always)]
pub(crate) fn set<T: Blend>(file: &mut [[T; 32]], d: usize, m: u32, f: impl Fn(&[[T; 32]], usize) -> T) {
    let mut out = [T::ZERO; 32];
    for l in 0..32 {
        out[l] = f(file, l);
    }
    if m != u32::MAX {
        keep_others(&mut out, &file[d], m);
    }
    file[d] = out;
}

/// Puts back the lanes that are not in `m`.
#[inline(never)]
fn keep_others<T: Blend>(out: &mut [T; 32], old: &[T; 32], m: u32) {
    for l in 0..32 {
        out[l] = out[l].blend(old[l], on(m, l));
    }
}

/// The lanes in which a condition holds.
#[inline(always)]
pub(crate) fn mask_of(f: impl Fn(usize) -> bool) -> u32 {
    let mut holds = [0i8; 32];
    for l in 0..32 {
        holds[l] = -i8::from(f(l));
    }
    let mut mask = 0;
    for l in 0..32 {
        mask |= u32::from(holds[l] < 0) << l;
    }
    mask
}

#[inline(always)]
pub(crate) fn pred(preds: &[u32], slot: u16) -> u32 {
    let p = preds[(slot & !NOT) as usize];
    if slot & NOT != 0 { !p } else { p }
}

#[inline(always)]
pub(crate) fn set_pred(preds: &mut [u32], slot: u16, m: u32, v: u32) {
    let p = &mut preds[slot as usize];
    *p = *p & !m | v & m;
}
