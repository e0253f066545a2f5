//! Arithmetic of f32 and f64 as PTX has it: minimum and maximum, and every rounding mode.

use crate::isa::Round;

/// Minimum as in PTX: a NaN loses, -0 is below +0.
#[inline(always)]
pub(crate) fn min_f32(a: f32, b: f32) -> f32 {
    if a.is_nan() {
        if b.is_nan() { f32::from_bits(0x7fff_ffff) } else { b }
    } else if b.is_nan() || a < b {
        a
    } else if a == b {
        f32::from_bits(a.to_bits() | b.to_bits())
    } else {
        b
    }
}

/// Maximum as in PTX: a NaN loses, +0 is above -0.
#[inline(always)]
pub(crate) fn max_f32(a: f32, b: f32) -> f32 {
    if a.is_nan() {
        if b.is_nan() { f32::from_bits(0x7fff_ffff) } else { b }
    } else if b.is_nan() || a > b {
        a
    } else if a == b {
        f32::from_bits(a.to_bits() & b.to_bits())
    } else {
        b
    }
}

pub(crate) fn min_f64(a: f64, b: f64) -> f64 {
    if a.is_nan() {
        b
    } else if b.is_nan() || a < b {
        a
    } else if a == b {
        f64::from_bits(a.to_bits() | b.to_bits())
    } else {
        b
    }
}

pub(crate) fn max_f64(a: f64, b: f64) -> f64 {
    if a.is_nan() {
        b
    } else if b.is_nan() || a > b {
        a
    } else if a == b {
        f64::from_bits(a.to_bits() & b.to_bits())
    } else {
        b
    }
}

/// `hi + lo`, known exactly, rounded to f32; `hi` is the nearest f64 to the sum.
pub(crate) fn round_f32(hi: f64, lo: f64, mode: Round) -> f32 {
    let near = hi as f32;
    if !hi.is_finite() {
        return near;
    }
    let diff = hi - f64::from(near);
    // Sign of exact - near.
    let sign = if diff != 0.0 { diff } else { lo };
    match mode {
        Round::Near | Round::NearAway => {
            // The double rounding of hi + lo: only a tie of hi can be decided wrongly.
            if lo != 0.0 && near.is_finite() {
                let other = if sign > 0.0 { near.next_up() } else { near.next_down() };
                let middle = (f64::from(near) + f64::from(other)) / 2.0;
                if hi == middle && diff != 0.0 && (lo > 0.0) == (f64::from(other) > f64::from(near)) {
                    return other;
                }
            }
            near
        }
        Round::Down if sign < 0.0 => near.next_down(),
        Round::Up if sign > 0.0 => near.next_up(),
        Round::Zero if hi > 0.0 && sign < 0.0 => near.next_down(),
        Round::Zero if hi < 0.0 && sign > 0.0 => near.next_up(),
        _ => near,
    }
}

/// `a + b` as its nearest f64 and the exact rest.
pub(crate) fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let s = a + b;
    let t = s - a;
    (s, (a - (s - t)) + (b - t))
}

fn directed(mode: Round, hi: f64, lo: f64, both_zero_parts_differ: bool) -> f32 {
    if hi == 0.0 && lo == 0.0 && both_zero_parts_differ {
        return if mode == Round::Down { -0.0 } else { 0.0 };
    }
    round_f32(hi, lo, mode)
}

pub(crate) fn add_directed(mode: Round, a: f32, b: f32) -> f32 {
    let (s, e) = two_sum(f64::from(a), f64::from(b));
    directed(mode, s, if s.is_finite() { e } else { 0.0 }, a.is_sign_negative() != b.is_sign_negative())
}

pub(crate) fn mul_directed(mode: Round, a: f32, b: f32) -> f32 {
    round_f32(f64::from(a) * f64::from(b), 0.0, mode)
}

pub(crate) fn fma_directed(mode: Round, a: f32, b: f32, c: f32) -> f32 {
    let p = f64::from(a) * f64::from(b);
    let (s, e) = two_sum(p, f64::from(c));
    directed(mode, s, if s.is_finite() { e } else { 0.0 }, p.is_sign_negative() != c.is_sign_negative())
}

pub(crate) fn div_directed(mode: Round, a: f32, b: f32) -> f32 {
    let q = f64::from(a) / f64::from(b);
    if !q.is_finite() || q == 0.0 {
        return q as f32;
    }
    // The rest a - q b, exact by fma, tells on which side of q the quotient lies.
    let rest = (-q).mul_add(f64::from(b), f64::from(a));
    let lo = if rest == 0.0 { 0.0 } else { (rest / f64::from(b)).signum() * f64::MIN_POSITIVE };
    round_f32(q, lo, mode)
}

pub(crate) fn sqrt_directed(mode: Round, a: f32) -> f32 {
    let q = f64::from(a).sqrt();
    if !q.is_finite() || q == 0.0 {
        return q as f32;
    }
    let rest = (-q).mul_add(q, f64::from(a));
    round_f32(q, if rest == 0.0 { 0.0 } else { rest.signum() * f64::MIN_POSITIVE }, mode)
}

/// An f64 sum, product or fma in a directed mode, from the nearest and the sign of the rest.
pub(crate) fn step_f64(near: f64, rest: f64, mode: Round) -> f64 {
    if !near.is_finite() || rest == 0.0 || rest.is_nan() {
        return near;
    }
    match mode {
        Round::Down if rest < 0.0 => near.next_down(),
        Round::Up if rest > 0.0 => near.next_up(),
        Round::Zero if near > 0.0 && rest < 0.0 => near.next_down(),
        Round::Zero if near < 0.0 && rest > 0.0 => near.next_up(),
        _ => near,
    }
}

/// A magnitude rounded to `bits` bits of mantissa, as f64 arithmetic cannot: for 64-bit integers.
pub(crate) fn int_to_f64(negative: bool, magnitude: u64, bits: u32, mode: Round) -> f64 {
    let used = 64 - magnitude.leading_zeros();
    let value = if used <= bits {
        magnitude as f64
    } else {
        let shift = used - bits;
        let (mut top, rest) = (magnitude >> shift, magnitude & ((1 << shift) - 1));
        let half = 1u64 << (shift - 1);
        let up = match mode {
            Round::Near => rest > half || (rest == half && top & 1 == 1),
            Round::NearAway => rest >= half,
            Round::Zero => false,
            Round::Down => negative && rest != 0,
            Round::Up => !negative && rest != 0,
        };
        top += u64::from(up);
        top as f64 * 2f64.powi(shift as i32)
    };
    if negative { -value } else { value }
}

pub(crate) fn round_to_integer(v: f64, mode: Round) -> f64 {
    match mode {
        Round::Near => v.round_ties_even(),
        Round::Zero => v.trunc(),
        Round::Down => v.floor(),
        Round::Up => v.ceil(),
        Round::NearAway => v.round(),
    }
}

/// One lane of `fma.rm.f32`.
pub(crate) fn fma_down(a: f32, b: f32, c: f32) -> f32 {
    fma_directed(Round::Down, a, b, c)
}
