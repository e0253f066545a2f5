//! 32 lanes: rows of registers, masks, and loops over both.
#![allow(clippy::needless_range_loop)]

use crate::isa::NOT;

/// A register of 32 lanes.
pub(crate) type Reg32 = [u32; 32];

/// A 64-bit register of 32 lanes.
pub(crate) type Reg64 = [u64; 32];

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
const BIT: Reg32 = {
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
