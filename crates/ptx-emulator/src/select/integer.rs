//! Integer arithmetic.

use super::alu::{Alu, alu, sized};
use super::bits::Int;
use super::expand::by_int;
use crate::isa::{Lane, Mods, Op, Ty};

pub(super) fn select(name: &str, ty: Ty, m: &mut Mods) -> Option<Alu> {
    match name {
        "add" | "sub" => add(name, ty, m.sat),
        "mul" | "mad" if m.take("wide") => multiply_wide(name, ty),
        "mul" | "mad" if m.take("hi") => multiply_high(name, ty),
        "mul" | "mad" => {
            m.take("lo");
            multiply_low(name, ty)
        }
        "mul24" | "mad24" if m.take("lo") => multiply_24(name, ty),
        "div" | "rem" => divide(name, ty),
        "neg" | "abs" => sign(name, ty),
        "min" | "max" => order(name, ty),
        "sad" => {
            let lane =
                by_int!(ty, T, |[a, b, c, _]| T::of(c).wrapping_add(T::of(a).abs_diff(T::of(b)) as T).bits());
            alu(None, lane, ty, &[ty, ty, ty])
        }
        "dp4a" => {
            let lane: Lane = match (m.types.first()?.signed(), ty.signed()) {
                (true, true) => dot4::<true, true>,
                (true, false) => dot4::<true, false>,
                (false, true) => dot4::<false, true>,
                (false, false) => dot4::<false, false>,
            };
            alu(None, lane, Ty::B32, &[Ty::B32, Ty::B32, Ty::B32])
        }
        _ => None,
    }
}

/// The vector loop for a signed or an unsigned type of 32 bits.
fn of_sign(ty: Ty, signed: Op, unsigned: Op) -> Option<Op> {
    match ty {
        Ty::S32 => Some(signed),
        Ty::U32 => Some(unsigned),
        _ => None,
    }
}

fn add(name: &str, ty: Ty, saturated: bool) -> Option<Alu> {
    let (fast, lane) = match (name, saturated) {
        ("add", true) => (None, (|[a, b, ..]| (a as i32).saturating_add(b as i32).bits()) as Lane),
        (_, true) => (None, (|[a, b, ..]| (a as i32).saturating_sub(b as i32).bits()) as Lane),
        ("add", false) => (
            sized(ty, Op::Add32, Op::Add64),
            by_int!(ty, T, |[a, b, ..]| T::of(a).wrapping_add(T::of(b)).bits()),
        ),
        (_, false) => (
            sized(ty, Op::Sub32, Op::Sub64),
            by_int!(ty, T, |[a, b, ..]| T::of(a).wrapping_sub(T::of(b)).bits()),
        ),
    };
    alu(fast, lane, ty, &[ty, ty])
}

/// `mul.wide` and `mad.wide`: the product, and the sum, have twice the bits.
fn multiply_wide(name: &str, ty: Ty) -> Option<Alu> {
    let wide = match ty {
        Ty::S16 => Ty::S32,
        Ty::U16 => Ty::U32,
        Ty::S32 => Ty::S64,
        Ty::U32 => Ty::U64,
        _ => ty,
    };
    if name == "mul" {
        let lane = by_int!(ty, T, |[a, b, ..]| (i128::from(T::of(a)) * i128::from(T::of(b))) as u64);
        let lane: Lane = match (wide.bytes(), ty.signed()) {
            (4, true) => |[a, b, ..]| (i32::from(a as i16) * i32::from(b as i16)).bits(),
            (4, false) => |[a, b, ..]| (u32::from(a as u16) * u32::from(b as u16)).bits(),
            _ => lane,
        };
        return alu(of_sign(ty, Op::MulWideS, Op::MulWideU), lane, wide, &[ty, ty]);
    }
    let lane = by_int!(ty, T, |[a, b, c, _]| {
        ((i128::from(T::of(a)) * i128::from(T::of(b))) as u64).wrapping_add(c)
    });
    alu(of_sign(ty, Op::MadWideS, Op::MadWideU), lane, wide, &[ty, ty, wide])
}

/// `mul.hi` and `mad.hi`: the upper half of the product.
fn multiply_high(name: &str, ty: Ty) -> Option<Alu> {
    macro_rules! high {
        ($T:ident, $a:ident, $b:ident) => {{
            let product = if $T::BITS == 64 && $T::MIN == 0 {
                (u128::from($a) * u128::from($b)) as i128
            } else {
                i128::from($T::of($a)) * i128::from($T::of($b))
            };
            (product >> $T::BITS) as $T
        }};
    }
    if name == "mul" {
        return alu(None, by_int!(ty, T, |[a, b, ..]| high!(T, a, b).bits()), ty, &[ty, ty]);
    }
    let lane = by_int!(ty, T, |[a, b, c, _]| high!(T, a, b).wrapping_add(T::of(c)).bits());
    alu(None, lane, ty, &[ty, ty, ty])
}

fn multiply_low(name: &str, ty: Ty) -> Option<Alu> {
    if name == "mul" {
        let lane = by_int!(ty, T, |[a, b, ..]| T::of(a).wrapping_mul(T::of(b)).bits());
        return alu(sized(ty, Op::Mul32, Op::Mul64), lane, ty, &[ty, ty]);
    }
    let lane = by_int!(ty, T, |[a, b, c, _]| T::of(a).wrapping_mul(T::of(b)).wrapping_add(T::of(c)).bits());
    alu(sized(ty, Op::Mad32, Op::Mad64), lane, ty, &[ty, ty, ty])
}

/// Of the low 24 bits of 32; without a third operand, that is zero.
fn multiply_24(name: &str, ty: Ty) -> Option<Alu> {
    let lane: Lane = if ty.signed() {
        |[a, b, c, _]| ((a as i32) << 8 >> 8).wrapping_mul((b as i32) << 8 >> 8).wrapping_add(c as i32).bits()
    } else {
        |[a, b, c, _]| (a as u32 & 0xff_ffff).wrapping_mul(b as u32 & 0xff_ffff).wrapping_add(c as u32).bits()
    };
    let operands = if name == "mul24" { 2 } else { 3 };
    alu(None, lane, ty, &[Ty::U32; 3][..operands])
}

/// By zero: the quotient is all ones, the remainder the dividend, as on the device.
fn divide(name: &str, ty: Ty) -> Option<Alu> {
    if name == "div" {
        let lane = by_int!(ty, T, |[a, b, ..]| {
            if T::of(b) == 0 { T::of(u64::MAX).bits() } else { T::of(a).wrapping_div(T::of(b)).bits() }
        });
        return alu(of_sign(ty, Op::DivS32, Op::DivU32), lane, ty, &[ty, ty]);
    }
    let lane = by_int!(ty, T, |[a, b, ..]| {
        if T::of(b) == 0 { T::of(a).bits() } else { T::of(a).wrapping_rem(T::of(b)).bits() }
    });
    alu(of_sign(ty, Op::RemS32, Op::RemU32), lane, ty, &[ty, ty])
}

fn sign(name: &str, ty: Ty) -> Option<Alu> {
    let (op, lane): (_, Lane) = match (name, ty) {
        ("neg", _) => (Op::Neg32, by_int!(ty, T, |[a, ..]| (0 as T).wrapping_sub(T::of(a)).bits())),
        (_, Ty::S16) => (Op::AbsS32, |[a, ..]| (a as i16).wrapping_abs().bits()),
        (_, Ty::S32) => (Op::AbsS32, |[a, ..]| (a as i32).wrapping_abs().bits()),
        (_, Ty::S64) => (Op::AbsS32, |[a, ..]| (a as i64).wrapping_abs().bits()),
        _ => return None,
    };
    alu((ty.bytes() == 4).then_some(op), lane, ty, &[ty])
}

fn order(name: &str, ty: Ty) -> Option<Alu> {
    let (fast, lane) = if name == "min" {
        (of_sign(ty, Op::MinS32, Op::MinU32), by_int!(ty, T, |[a, b, ..]| T::of(a).min(T::of(b)).bits()))
    } else {
        (of_sign(ty, Op::MaxS32, Op::MaxU32), by_int!(ty, T, |[a, b, ..]| T::of(a).max(T::of(b)).bits()))
    };
    alu(fast, lane, ty, &[ty, ty])
}

/// The dot product of four bytes, plus `c`; `A` and `B` tell whose bytes are signed.
fn dot4<const A: bool, const B: bool>([a, b, c, _]: [u64; 4]) -> u64 {
    let mut r = c as i32;
    for i in 0..4 {
        let part = |v: u64, signed: bool| {
            let byte = (v >> (8 * i)) as u8;
            if signed { i32::from(byte as i8) } else { i32::from(byte) }
        };
        r = r.wrapping_add(part(a, A) * part(b, B));
    }
    r.bits()
}
