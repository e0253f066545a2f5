//! 16-bit floats: arithmetic and conversions, by way of wider types.

use super::alu::{Alu, alu};
use super::bits::{Int, f32_of_bits, f64_of_bits};
use super::expand::by_round;
use super::rounding::{max_f32, min_f32, round_to_integer};
use crate::isa::half::{BF16, F16, f16_to_f32, f32_to_bf16, f32_to_f16, f32_to_tf32, narrow};
use crate::isa::{Lane, Mods, Op, Round, Ty};

fn widen<const B: bool>(bits: u64) -> f32 {
    f32::from_bits(if B { (bits as u32) << 16 } else { f16_to_f32(bits as u32 & 0xffff) })
}

fn near<const B: bool>(v: f32) -> u64 {
    u64::from(if B { f32_to_bf16(v.to_bits()) } else { f32_to_f16(v.to_bits()) })
}

/// Fused multiply-add: the exact sum, made odd where it was rounded, rounds as if it had not been.
fn fma<const B: bool>(a: u64, b: u64, c: u64) -> u64 {
    let (a, b, c) = (f64::from(widen::<B>(a)), f64::from(widen::<B>(b)), f64::from(widen::<B>(c)));
    let p = a * b;
    let s = p + c;
    let t = s - p;
    let rest = (p - (s - t)) + (c - t);
    let odd = if s.is_finite() && rest != 0.0 && s.to_bits() & 1 == 0 {
        if rest > 0.0 { s.next_up() } else { s.next_down() }
    } else {
        s
    };
    u64::from(narrow(odd, if B { BF16 } else { F16 }, Round::Near, false))
}

fn lowest<const B: bool, const MAX: bool, const NAN: bool>(a: u64, b: u64) -> u64 {
    let (x, y) = (widen::<B>(a), widen::<B>(b));
    if x.is_nan() && y.is_nan() || NAN && (x.is_nan() || y.is_nan()) {
        return 0x7fff;
    }
    near::<B>(if MAX { max_f32(x, y) } else { min_f32(x, y) })
}

fn relu(v: u64) -> u64 {
    // A NaN passes; -0 becomes +0.
    if v & 0x8000 != 0 && v & 0x7fff <= 0x7f80 { 0 } else { v }
}

/// A function of 16-bit floats of each type: `B` tells in the body whether they are bf16. Where two lie in a register,
/// each half by itself. Any other type ends the caller with None.
macro_rules! by_format {
    ($ty:expr, |$($operand:ident),+| $body:expr) => {
        match $ty {
            Ty::F16 => by_format!(@ one, false, |$($operand),+| $body),
            Ty::Bf16 => by_format!(@ one, true, |$($operand),+| $body),
            Ty::F16x2 => by_format!(@ two, false, |$($operand),+| $body),
            Ty::Bf16x2 => by_format!(@ two, true, |$($operand),+| $body),
            _ => return None,
        }
    };
    (@ one, $bf16:literal, |$($operand:ident),+| $body:expr) => {{
        const B: bool = $bf16;
        (|[$($operand),+, ..]| $body) as Lane
    }};
    (@ two, $bf16:literal, |$($operand:ident),+| $body:expr) => {{
        const B: bool = $bf16;
        (|[$($operand),+, ..]| {
            let low = { $(let $operand = $operand & 0xffff;)+ $body };
            let high = { $(let $operand = $operand >> 16 & 0xffff;)+ $body };
            low & 0xffff | (high & 0xffff) << 16
        }) as Lane
    }};
}

/// A lane-wise instruction of 16-bit floats.
pub(super) fn select(name: &str, ty: Ty, m: &mut Mods) -> Option<Alu> {
    if m.sat || m.ftz && name != "ex2" || m.integer || m.round.is_some_and(|r| r != Round::Near) {
        return None;
    }
    let two = matches!(ty, Ty::F16x2 | Ty::Bf16x2);
    let (lane, operands): (Lane, _) = match name {
        "add" => (by_format!(ty, |a, b| near::<B>(widen::<B>(a) + widen::<B>(b))), 2),
        "sub" => (by_format!(ty, |a, b| near::<B>(widen::<B>(a) - widen::<B>(b))), 2),
        "mul" => (by_format!(ty, |a, b| near::<B>(widen::<B>(a) * widen::<B>(b))), 2),
        "fma" if m.take("relu") => {
            if two {
                return None;
            }
            (by_format!(ty, |a, b, c| relu(fma::<B>(a, b, c))), 3)
        }
        "fma" => (by_format!(ty, |a, b, c| fma::<B>(a, b, c)), 3),
        "neg" if two => (|[a, ..]| a ^ 0x8000_8000, 1),
        "neg" => (|[a, ..]| (a ^ 0x8000) & 0xffff, 1),
        "abs" if two => (|[a, ..]| a & 0x7fff_7fff, 1),
        "abs" => (|[a, ..]| a & 0x7fff, 1),
        "min" if m.take("NaN") => (by_format!(ty, |a, b| lowest::<B, false, true>(a, b)), 2),
        "max" if m.take("NaN") => (by_format!(ty, |a, b| lowest::<B, true, true>(a, b)), 2),
        "min" => (by_format!(ty, |a, b| lowest::<B, false, false>(a, b)), 2),
        "max" => (by_format!(ty, |a, b| lowest::<B, true, false>(a, b)), 2),
        "ex2" if m.take("approx") => {
            (by_format!(ty, |a| near::<B>(f64::from(widen::<B>(a)).exp2() as f32)), 1)
        }
        "tanh" if m.take("approx") => {
            (by_format!(ty, |a| near::<B>(f64::from(widen::<B>(a)).tanh() as f32)), 1)
        }
        _ => return None,
    };
    alu(None, lane, ty, &[ty; 3][..operands])
}

/// The value of a 16-bit float as f64, by type.
pub(super) fn value<const B: bool>(bits: u64) -> f64 {
    f64::from(widen::<B>(bits))
}

fn packed<const B: bool, const RELU: bool>([a, b, ..]: [u64; 4]) -> u64 {
    let half = |v: u64| {
        let h = near::<B>(f32::from_bits(v as u32));
        if RELU { relu(h) } else { h }
    };
    half(b) | half(a) << 16
}

fn packed_zero<const B: bool>([a, b, ..]: [u64; 4]) -> u64 {
    let half = |v: u64| {
        let v = f64::from(f32::from_bits(v as u32));
        u64::from(narrow(v, if B { BF16 } else { F16 }, Round::Zero, false))
    };
    half(b) | half(a) << 16
}

/// A conversion from or to a small float.
pub(super) fn convert(to: Ty, from: Ty, m: &mut Mods) -> Option<Alu> {
    if m.ftz || m.sat {
        return None;
    }
    let mode = m.round;
    let done = |fast: Option<Op>, lane: Lane| alu(fast, lane, to, &[from]);
    let relu_too = m.take("relu");
    if relu_too && !matches!(to, Ty::F16x2 | Ty::Bf16x2) {
        return None;
    }
    match (to, from, mode, m.integer) {
        (Ty::F16x2 | Ty::Bf16x2, Ty::F32, Some(Round::Near | Round::Zero), false) => {
            let bf = to == Ty::Bf16x2;
            let zero = mode == Some(Round::Zero);
            let (fast, lane): (_, Lane) = match (bf, zero, relu_too) {
                (false, false, false) => (Some(Op::PackF16), packed::<false, false>),
                (true, false, false) => (Some(Op::PackBf16), packed::<true, false>),
                (false, false, true) => (None, packed::<false, true>),
                (true, false, true) => (None, packed::<true, true>),
                (false, true, false) => (None, packed_zero::<false>),
                (true, true, false) => (None, packed_zero::<true>),
                _ => return None,
            };
            alu(fast, lane, to, &[from, from])
        }
        (Ty::F32, Ty::F16, None, _) => done(Some(Op::CvtF32F16), |[a, ..]| u64::from(f16_to_f32(a as u32))),
        (Ty::F32, Ty::Bf16, None, _) => done(None, |[a, ..]| (a & 0xffff) << 16),
        (Ty::F64, Ty::F16, None, _) => done(None, |[a, ..]| value::<false>(a).to_bits()),
        (Ty::F64, Ty::Bf16, None, _) => done(None, |[a, ..]| value::<true>(a).to_bits()),
        (Ty::F16, Ty::F32, Some(Round::Near), false) => {
            done(Some(Op::CvtF16F32), |[a, ..]| u64::from(f32_to_f16(a as u32)))
        }
        (Ty::Bf16, Ty::F32, Some(Round::Near), false) => {
            done(Some(Op::CvtBf16F32), |[a, ..]| u64::from(f32_to_bf16(a as u32)))
        }
        (Ty::Tf32, Ty::F32, Some(Round::NearAway), false) => {
            done(None, |[a, ..]| u64::from(f32_to_tf32(a as u32, Round::NearAway)))
        }
        (_, _, Some(Round::NearAway), _) => None,
        (Ty::F16 | Ty::Bf16, Ty::F32 | Ty::F64, Some(mode), false) => {
            macro_rules! narrowed {
                ($read:path, $format:expr) => {
                    by_round!(mode, M, |[a, ..]| u64::from(narrow(f64::from($read(a)), $format, M, false)))
                };
            }
            let lane: Lane = match (to, from) {
                (Ty::F16, Ty::F32) => narrowed!(f32_of_bits, F16),
                (Ty::F16, _) => narrowed!(f64_of_bits, F16),
                (_, Ty::F32) => narrowed!(f32_of_bits, BF16),
                _ => narrowed!(f64_of_bits, BF16),
            };
            done(None, lane)
        }
        (Ty::F16, Ty::F16, Some(mode), true) => {
            let lane =
                by_round!(mode, M, |[a, ..]| near::<false>(round_to_integer(value::<false>(a), M) as f32));
            done(None, lane)
        }
        (Ty::F16 | Ty::Bf16, _, Some(Round::Near), false) if !from.float() => {
            macro_rules! of {
                ($t:ident) => {
                    if to == Ty::F16 {
                        |[a, ..]| u64::from(narrow(a as $t as f64, F16, Round::Near, false))
                    } else {
                        |[a, ..]| u64::from(narrow(a as $t as f64, BF16, Round::Near, false))
                    }
                };
            }
            let lane: Lane = match from {
                Ty::S8 => of!(i8),
                Ty::U8 => of!(u8),
                Ty::S16 => of!(i16),
                Ty::U16 => of!(u16),
                Ty::S32 => of!(i32),
                Ty::U32 => of!(u32),
                _ => return None,
            };
            done(None, lane)
        }
        (_, Ty::F16 | Ty::Bf16, Some(mode), true) if !to.float() => {
            macro_rules! as_int {
                ($t:ident, $b:expr) => {
                    by_round!(mode, M, |[a, ..]| (round_to_integer(value::<$b>(a), M) as $t).bits())
                };
            }
            let lane: Lane = match (to, from == Ty::Bf16) {
                (Ty::S32, false) => as_int!(i32, false),
                (Ty::S32, true) => as_int!(i32, true),
                (Ty::U32, false) => as_int!(u32, false),
                (Ty::U32, true) => as_int!(u32, true),
                (Ty::S16, false) => as_int!(i16, false),
                (Ty::U16, false) => as_int!(u16, false),
                _ => return None,
            };
            done(None, lane)
        }
        _ => None,
    }
}
