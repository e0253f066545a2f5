//! The lane-wise instructions: which operands each has, and what it computes.
//!
//! Every one has a function of one lane ([`Lane`]); those that kernels spend their time in also name
//! an [`Op`] that `exec` runs as a vector loop over the warp.

mod alu;
mod half;
mod relation;
mod rounding;

pub(crate) use alu::Alu;
use alu::alu;
pub(crate) use relation::bool_op_number;
use relation::{cmp_of, combine, holds_float, holds_int};
use rounding::{
    add_directed, div_directed, fma_directed, int_to_f64, max_f64, min_f64, mul_directed, round_f32,
    round_to_integer, sqrt_directed, step_f64, two_sum,
};
pub(crate) use rounding::{fma_down, max_f32, min_f32};

use crate::isa::{Cmp, Lane, Mods, Op, Round, Ty};

/// An integer type, for functions over any of them.
trait Int: Copy {
    fn of(bits: u64) -> Self;
    fn bits(self) -> u64;
}

macro_rules! ints {
    ($($t:ident $u:ident),*) => {$(
        impl Int for $t {
            #[inline]
            fn of(bits: u64) -> Self { bits as $t }
            #[inline]
            fn bits(self) -> u64 { u64::from(self as $u) }
        }
    )*};
}
ints!(i8 u8, i16 u16, i32 u32, u8 u8, u16 u16, u32 u32, u64 u64);
impl Int for i64 {
    fn of(bits: u64) -> Self {
        bits as i64
    }
    fn bits(self) -> u64 {
        self as u64
    }
}

#[inline]
fn f(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}
#[inline]
fn fb(v: f32) -> u64 {
    u64::from(v.to_bits())
}
#[inline]
fn d(bits: u64) -> f64 {
    f64::from_bits(bits)
}
#[inline]
fn db(v: f64) -> u64 {
    v.to_bits()
}
#[inline]
fn flush(v: f32) -> f32 {
    if v.is_subnormal() { 0f32.copysign(v) } else { v }
}
#[inline]
fn sat32(v: f32) -> f32 {
    if v > 0.0 { v.min(1.0) } else { 0.0 }
}
#[inline]
fn sat64(v: f64) -> f64 {
    if v > 0.0 { v.min(1.0) } else { 0.0 }
}

/// A function of each integer type.
macro_rules! by_int {
    ($ty:expr, $T:ident, $lane:expr) => {
        match $ty {
            Ty::S8 => {
                type $T = i8;
                $lane as Lane
            }
            Ty::S16 => {
                type $T = i16;
                $lane as Lane
            }
            Ty::S32 => {
                type $T = i32;
                $lane as Lane
            }
            Ty::S64 => {
                type $T = i64;
                $lane as Lane
            }
            Ty::U8 | Ty::B8 => {
                type $T = u8;
                $lane as Lane
            }
            Ty::U16 | Ty::B16 => {
                type $T = u16;
                $lane as Lane
            }
            Ty::U32 | Ty::B32 => {
                type $T = u32;
                $lane as Lane
            }
            Ty::U64 | Ty::B64 => {
                type $T = u64;
                $lane as Lane
            }
            _ => return None,
        }
    };
}

/// A function of each rounding mode.
macro_rules! by_round {
    ($mode:expr, $M:ident, $lane:expr) => {
        match $mode {
            Round::Near => {
                const $M: Round = Round::Near;
                $lane as Lane
            }
            Round::Zero => {
                const $M: Round = Round::Zero;
                $lane as Lane
            }
            Round::Down => {
                const $M: Round = Round::Down;
                $lane as Lane
            }
            Round::Up => {
                const $M: Round = Round::Up;
                $lane as Lane
            }
            Round::NearAway => {
                const $M: Round = Round::NearAway;
                $lane as Lane
            }
        }
    };
}

/// How to run an opcode, or None where it is not a lane-wise one that is known.
pub(crate) fn select(op: &[String]) -> Option<Alu> {
    let mut m = Mods::new(op);
    let name = op[0].as_str();
    let alu = match name {
        "cvt" => convert(&mut m)?,
        "setp" | "set" => compare(name, &mut m)?,
        _ => {
            let ty = *m.types.last()?;
            if ty.float() && !matches!(name, "selp" | "slct" | "mov") {
                float(name, ty, &mut m)?
            } else {
                integer(name, ty, &mut m)?
            }
        }
    };
    m.rest.is_empty().then_some(alu)
}

fn only(ty: Ty, of: u32, op: Op) -> Option<Op> {
    (ty.bytes() == of).then_some(op)
}

fn sized(ty: Ty, op32: Op, op64: Op) -> Option<Op> {
    match ty.bytes() {
        4 => Some(op32),
        8 => Some(op64),
        _ => None,
    }
}

#[allow(clippy::too_many_lines)]
fn integer(name: &str, ty: Ty, m: &mut Mods) -> Option<Alu> {
    use Ty::{B32, B64, Pred, S32, S64, U16, U32, U64};
    let wide = match ty {
        Ty::S16 => S32,
        U16 => U32,
        S32 => S64,
        U32 => U64,
        _ => ty,
    };
    let t2 = [ty, ty];
    match name {
        "mov" => alu(
            match ty {
                Pred => Some(Op::MovP),
                _ if ty.bytes() == 8 => Some(Op::Mov64),
                _ => Some(Op::Mov32),
            },
            |[a, ..]| a,
            ty,
            &[ty],
        ),
        "add" if m.sat => alu(None, |[a, b, ..]| (a as i32).saturating_add(b as i32).bits(), ty, &t2),
        "sub" if m.sat => alu(None, |[a, b, ..]| (a as i32).saturating_sub(b as i32).bits(), ty, &t2),
        "add" => alu(
            sized(ty, Op::Add32, Op::Add64),
            by_int!(ty, T, |[a, b, ..]| T::of(a).wrapping_add(T::of(b)).bits()),
            ty,
            &t2,
        ),
        "sub" => alu(
            sized(ty, Op::Sub32, Op::Sub64),
            by_int!(ty, T, |[a, b, ..]| T::of(a).wrapping_sub(T::of(b)).bits()),
            ty,
            &t2,
        ),
        "mul" if m.take("wide") => {
            let fast = match ty {
                S32 => Some(Op::MulWideS),
                U32 => Some(Op::MulWideU),
                _ => None,
            };
            let lane = by_int!(ty, T, |[a, b, ..]| (i128::from(T::of(a)) * i128::from(T::of(b))) as u64);
            alu(fast, if wide.bytes() == 4 { low32(ty) } else { lane }, wide, &t2)
        }
        "mad" if m.take("wide") => {
            let fast = match ty {
                S32 => Some(Op::MadWideS),
                U32 => Some(Op::MadWideU),
                _ => None,
            };
            let lane = by_int!(ty, T, |[a, b, c, _]| {
                ((i128::from(T::of(a)) * i128::from(T::of(b))) as u64).wrapping_add(c)
            });
            alu(fast, lane, wide, &[ty, ty, wide])
        }
        "mul" if m.take("hi") => alu(
            None,
            by_int!(ty, T, |[a, b, ..]| {
                let p = if T::BITS == 64 && T::MIN == 0 {
                    (u128::from(a) * u128::from(b)) as i128
                } else {
                    i128::from(T::of(a)) * i128::from(T::of(b))
                };
                ((p >> T::BITS) as T).bits()
            }),
            ty,
            &t2,
        ),
        "mad" if m.take("hi") => alu(
            None,
            by_int!(ty, T, |[a, b, c, _]| {
                let p = if T::BITS == 64 && T::MIN == 0 {
                    (u128::from(a) * u128::from(b)) as i128
                } else {
                    i128::from(T::of(a)) * i128::from(T::of(b))
                };
                ((p >> T::BITS) as T).wrapping_add(T::of(c)).bits()
            }),
            ty,
            &[ty, ty, ty],
        ),
        "mul" => {
            m.take("lo");
            alu(
                sized(ty, Op::Mul32, Op::Mul64),
                by_int!(ty, T, |[a, b, ..]| T::of(a).wrapping_mul(T::of(b)).bits()),
                ty,
                &t2,
            )
        }
        "mad" => {
            m.take("lo");
            let lane =
                by_int!(ty, T, |[a, b, c, _]| T::of(a).wrapping_mul(T::of(b)).wrapping_add(T::of(c)).bits());
            alu(sized(ty, Op::Mad32, Op::Mad64), lane, ty, &[ty, ty, ty])
        }
        "div" => {
            let lane = by_int!(ty, T, |[a, b, ..]| {
                if T::of(b) == 0 { T::of(u64::MAX).bits() } else { T::of(a).wrapping_div(T::of(b)).bits() }
            });
            let fast = match ty {
                S32 => Some(Op::DivS32),
                U32 => Some(Op::DivU32),
                _ => None,
            };
            alu(fast, lane, ty, &t2)
        }
        "rem" => {
            let lane = by_int!(ty, T, |[a, b, ..]| {
                if T::of(b) == 0 { T::of(a).bits() } else { T::of(a).wrapping_rem(T::of(b)).bits() }
            });
            let fast = match ty {
                S32 => Some(Op::RemS32),
                U32 => Some(Op::RemU32),
                _ => None,
            };
            alu(fast, lane, ty, &t2)
        }
        "neg" => alu(
            only(ty, 4, Op::Neg32),
            by_int!(ty, T, |[a, ..]| (0 as T).wrapping_sub(T::of(a)).bits()),
            ty,
            &[ty],
        ),
        "abs" => alu(
            only(ty, 4, Op::AbsS32),
            match ty {
                Ty::S16 => |[a, ..]| (a as i16).wrapping_abs().bits(),
                S32 => |[a, ..]| (a as i32).wrapping_abs().bits(),
                S64 => |[a, ..]| (a as i64).wrapping_abs().bits(),
                _ => return None,
            },
            ty,
            &[ty],
        ),
        "min" | "max" => {
            let fast = match (ty, name) {
                (S32, "min") => Some(Op::MinS32),
                (S32, _) => Some(Op::MaxS32),
                (U32, "min") => Some(Op::MinU32),
                (U32, _) => Some(Op::MaxU32),
                _ => None,
            };
            let lane = if name == "min" {
                by_int!(ty, T, |[a, b, ..]| T::of(a).min(T::of(b)).bits())
            } else {
                by_int!(ty, T, |[a, b, ..]| T::of(a).max(T::of(b)).bits())
            };
            alu(fast, lane, ty, &t2)
        }
        "and" | "or" | "xor" => {
            let (p, s, l, lane): (_, _, _, Lane) = match name {
                "and" => (Op::AndP, Op::And32, Op::And64, |[a, b, ..]| a & b),
                "or" => (Op::OrP, Op::Or32, Op::Or64, |[a, b, ..]| a | b),
                _ => (Op::XorP, Op::Xor32, Op::Xor64, |[a, b, ..]| a ^ b),
            };
            let fast = match ty.bytes() {
                0 => p,
                8 => l,
                _ => s,
            };
            alu(Some(fast), lane, ty, &t2)
        }
        "not" => match ty.bytes() {
            0 => alu(Some(Op::NotP), |[a, ..]| a ^ 1, ty, &[ty]),
            2 => alu(None, |[a, ..]| !a & 0xffff, ty, &[ty]),
            4 => alu(Some(Op::Not32), |[a, ..]| !a & 0xffff_ffff, ty, &[ty]),
            _ => alu(Some(Op::Not64), |[a, ..]| !a, ty, &[ty]),
        },
        "cnot" => alu(None, |[a, ..]| u64::from(a == 0), ty, &[ty]),
        "lop3" => alu(
            None,
            |[a, b, c, lut]| {
                let mut r = 0;
                for (i, (x, y, z)) in [
                    (!a, !b, !c),
                    (!a, !b, c),
                    (!a, b, !c),
                    (!a, b, c),
                    (a, !b, !c),
                    (a, !b, c),
                    (a, b, !c),
                    (a, b, c),
                ]
                .into_iter()
                .enumerate()
                {
                    if lut >> i & 1 == 1 {
                        r |= x & y & z;
                    }
                }
                r & 0xffff_ffff
            },
            B32,
            &[B32, B32, B32, B32],
        ),
        "shl" => {
            let lane: Lane = match ty.bytes() {
                2 => |[a, b, ..]| if b as u32 > 15 { 0 } else { (a << b) & 0xffff },
                4 => |[a, b, ..]| {
                    if b as u32 > 31 { 0 } else { (a << b) & 0xffff_ffff }
                },
                8 => |[a, b, ..]| if b as u32 > 63 { 0 } else { a << (b as u32) },
                _ => return None,
            };
            alu(sized(ty, Op::Shl32, Op::Shl64), lane, ty, &[ty, U32])
        }
        "shr" => {
            let fast = match ty {
                S32 => Some(Op::ShrS32),
                U32 | B32 => Some(Op::ShrU32),
                S64 => Some(Op::ShrS64),
                U64 | B64 => Some(Op::ShrU64),
                _ => None,
            };
            let lane = by_int!(ty, T, |[a, b, ..]| {
                let n = (b as u32).min(T::BITS - 1);
                if b as u32 >= T::BITS && T::MIN == 0 { 0 } else { (T::of(a) >> n).bits() }
            });
            alu(fast, lane, ty, &[ty, U32])
        }
        "shf" => {
            let wrap = m.take("wrap");
            if !wrap {
                m.take("clamp");
            }
            let lane: Lane = match (m.take("l"), m.take("r"), wrap) {
                (true, _, true) => |[a, b, c, _]| ((b << 32 | a) << (c & 31)) >> 32,
                (true, _, false) => |[a, b, c, _]| {
                    let n = (c as u32).min(32);
                    (u128::from(b << 32 | a) << n >> 32) as u64 & 0xffff_ffff
                },
                (_, true, true) => |[a, b, c, _]| ((b << 32 | a) >> (c & 31)) & 0xffff_ffff,
                (_, true, false) => |[a, b, c, _]| ((b << 32 | a) >> (c as u32).min(32)) & 0xffff_ffff,
                _ => return None,
            };
            alu(None, lane, B32, &[B32, B32, U32])
        }
        "bfe" => {
            let lane = by_int!(ty, T, |[a, b, c, _]| {
                let (pos, len) = ((b & 0xff) as u32, (c & 0xff) as u32);
                let bits = T::BITS;
                let a = T::of(a);
                // The sign bit is the top bit of the field, or the top bit of a where it ends first.
                let signed = T::MIN != 0;
                let sign = signed && len > 0 && (a.bits() >> (pos + len - 1).min(bits - 1)) & 1 == 1;
                let mut r: u64 = if sign { u64::MAX } else { 0 };
                for i in 0..len.min(bits) {
                    if pos + i < bits {
                        let bit = a.bits() >> (pos + i) & 1;
                        r = r & !(1 << i) | bit << i;
                    }
                }
                T::of(r).bits()
            });
            alu(None, lane, ty, &[ty, U32, U32])
        }
        "bfi" => {
            let lane = by_int!(ty, T, |[a, b, c, d]| {
                let (pos, len) = ((c & 0xff) as u32, (d & 0xff) as u32);
                let mut r = b;
                for i in 0..len {
                    if pos + i < T::BITS && i < T::BITS {
                        r = r & !(1 << (pos + i)) | (a >> i & 1) << (pos + i);
                    }
                }
                T::of(r).bits()
            });
            alu(None, lane, ty, &[ty, ty, U32, U32])
        }
        "prmt" => {
            // Only the default mode has its selector free.
            alu(
                None,
                |[a, b, c, _]| {
                    let bytes = (b << 32 | a).to_le_bytes();
                    let mut r = 0;
                    for i in 0..4 {
                        let s = c >> (4 * i) & 15;
                        let v = bytes[(s & 7) as usize];
                        let v = if s & 8 != 0 { ((v as i8) >> 7) as u8 } else { v };
                        r |= u64::from(v) << (8 * i);
                    }
                    r
                },
                B32,
                &[B32, B32, B32],
            )
        }
        "popc" => alu(None, |[a, ..]| u64::from(a.count_ones()), U32, &[ty]),
        "clz" if ty.bytes() == 4 => alu(None, |[a, ..]| u64::from((a as u32).leading_zeros()), U32, &[ty]),
        "clz" => alu(None, |[a, ..]| u64::from(a.leading_zeros()), U32, &[ty]),
        "brev" if ty.bytes() == 4 => alu(None, |[a, ..]| (a as u32).reverse_bits().bits(), ty, &[ty]),
        "brev" => alu(None, |[a, ..]| a.reverse_bits(), ty, &[ty]),
        "bfind" => {
            let lane = if m.take("shiftamt") {
                by_int!(ty, T, |[a, ..]| find_leading(T::of(a) as i128, T::BITS)
                    .map_or(0xffff_ffff, |i| u64::from(T::BITS - 1 - i)))
            } else {
                by_int!(ty, T, |[a, ..]| find_leading(T::of(a) as i128, T::BITS)
                    .map_or(0xffff_ffff, u64::from))
            };
            alu(None, lane, U32, &[ty])
        }
        "sad" => {
            let lane =
                by_int!(ty, T, |[a, b, c, _]| T::of(c).wrapping_add(T::of(a).abs_diff(T::of(b)) as T).bits());
            alu(None, lane, ty, &[ty, ty, ty])
        }
        "selp" => alu(
            sized(ty, Op::Sel32, Op::Sel64).or(Some(Op::Sel32)),
            |[a, b, c, _]| if c & 1 == 1 { a } else { b },
            ty,
            &[ty, ty, Pred],
        ),
        "slct" => {
            let data = *m.types.first()?;
            if ty == Ty::F32 {
                alu(None, |[a, b, c, _]| if f(c) >= 0.0 { a } else { b }, data, &[data, data, ty])
            } else {
                alu(None, |[a, b, c, _]| if c as i32 >= 0 { a } else { b }, data, &[data, data, ty])
            }
        }
        "dp4a" => {
            let (ta, tb) = (*m.types.first()?, ty);
            let lane: Lane = match (ta.signed(), tb.signed()) {
                (true, true) => |[a, b, c, _]| dot4(a, b, c, true, true),
                (true, false) => |[a, b, c, _]| dot4(a, b, c, true, false),
                (false, true) => |[a, b, c, _]| dot4(a, b, c, false, true),
                (false, false) => |[a, b, c, _]| dot4(a, b, c, false, false),
            };
            alu(None, lane, B32, &[B32, B32, B32])
        }
        "mul24" | "mad24" if m.take("lo") => {
            let lane: Lane = if ty.signed() {
                |[a, b, c, _]| {
                    ((a as i32) << 8 >> 8).wrapping_mul((b as i32) << 8 >> 8).wrapping_add(c as i32).bits()
                }
            } else {
                |[a, b, c, _]| {
                    (a as u32 & 0xff_ffff).wrapping_mul(b as u32 & 0xff_ffff).wrapping_add(c as u32).bits()
                }
            };
            alu(None, lane, ty, if name == "mul24" { &[U32, U32] } else { &[U32, U32, U32] })
        }
        _ => None,
    }
}

/// `mul.wide` of 16-bit types.
fn low32(ty: Ty) -> Lane {
    if ty.signed() {
        |[a, b, ..]| (i32::from(a as i16) * i32::from(b as i16)).bits()
    } else {
        |[a, b, ..]| (u32::from(a as u16) * u32::from(b as u16)).bits()
    }
}

fn find_leading(v: i128, bits: u32) -> Option<u32> {
    let v = if v < 0 { !v } else { v };
    let v = v as u128 & ((1u128 << bits) - 1);
    (v != 0).then(|| 127 - v.leading_zeros())
}

fn dot4(a: u64, b: u64, c: u64, sa: bool, sb: bool) -> u64 {
    let mut r = c as i32;
    for i in 0..4 {
        let part = |v: u64, signed: bool| {
            let byte = (v >> (8 * i)) as u8;
            if signed { i32::from(byte as i8) } else { i32::from(byte) }
        };
        r = r.wrapping_add(part(a, sa) * part(b, sb));
    }
    r.bits()
}

#[allow(clippy::too_many_lines)]
fn float(name: &str, ty: Ty, m: &mut Mods) -> Option<Alu> {
    if matches!(ty, Ty::F16 | Ty::Bf16 | Ty::F16x2 | Ty::Bf16x2) {
        return half::select(name, ty, m);
    }
    use Ty::{F32, F64};
    let mode = m.round.unwrap_or(Round::Near);
    if m.integer || (m.ftz && ty != F32) {
        return None;
    }
    // Only the approximate functions come with `.ftz` where the code is compiled without it.
    if m.ftz
        && !matches!(
            name,
            "ex2" | "lg2" | "rcp" | "sqrt" | "rsqrt" | "sin" | "cos" | "div" | "mul" | "add" | "sub" | "fma"
        )
    {
        return None;
    }
    let src = |n: usize| vec![ty; n];
    let near = mode == Round::Near;
    let plain = near && !m.ftz && !m.sat;
    let fast = |op: Op| (plain && ty == F32).then_some(op);
    match (name, ty) {
        ("add" | "sub" | "mul" | "fma" | "mad", F32) if m.ftz => {
            if !near {
                return None;
            }
            let lane: Lane = match (name, m.sat) {
                ("add", false) => |[a, b, ..]| fb(flush(flush(f(a)) + flush(f(b)))),
                ("add", true) => |[a, b, ..]| fb(sat32(flush(flush(f(a)) + flush(f(b))))),
                ("sub", false) => |[a, b, ..]| fb(flush(flush(f(a)) - flush(f(b)))),
                ("sub", true) => |[a, b, ..]| fb(sat32(flush(flush(f(a)) - flush(f(b))))),
                ("mul", false) => |[a, b, ..]| fb(flush(flush(f(a)) * flush(f(b)))),
                ("mul", true) => |[a, b, ..]| fb(sat32(flush(flush(f(a)) * flush(f(b))))),
                (_, false) => |[a, b, c, _]| fb(flush(flush(f(a)).mul_add(flush(f(b)), flush(f(c))))),
                (_, true) => |[a, b, c, _]| fb(sat32(flush(flush(f(a)).mul_add(flush(f(b)), flush(f(c)))))),
            };
            alu(None, lane, ty, &src(if matches!(name, "fma" | "mad") { 3 } else { 2 }))
        }
        ("add", F32) if near && m.sat => alu(None, |[a, b, ..]| fb(sat32(f(a) + f(b))), ty, &src(2)),
        ("sub", F32) if near && m.sat => alu(None, |[a, b, ..]| fb(sat32(f(a) - f(b))), ty, &src(2)),
        ("mul", F32) if near && m.sat => alu(None, |[a, b, ..]| fb(sat32(f(a) * f(b))), ty, &src(2)),
        ("fma" | "mad", F32) if near && m.sat => {
            alu(None, |[a, b, c, _]| fb(sat32(f(a).mul_add(f(b), f(c)))), ty, &src(3))
        }
        (_, _) if m.sat => None,
        ("add", F32) if near => alu(fast(Op::AddF32), |[a, b, ..]| fb(f(a) + f(b)), ty, &src(2)),
        ("sub", F32) if near => alu(fast(Op::SubF32), |[a, b, ..]| fb(f(a) - f(b)), ty, &src(2)),
        ("mul", F32) if near => alu(fast(Op::MulF32), |[a, b, ..]| fb(f(a) * f(b)), ty, &src(2)),
        ("fma" | "mad", F32) if near => {
            alu(fast(Op::FmaF32), |[a, b, c, _]| fb(f(a).mul_add(f(b), f(c))), ty, &src(3))
        }
        ("add", F32) => {
            alu(None, by_round!(mode, M, |[a, b, ..]| fb(add_directed(M, f(a), f(b)))), ty, &src(2))
        }
        ("sub", F32) => {
            alu(None, by_round!(mode, M, |[a, b, ..]| fb(add_directed(M, f(a), -f(b)))), ty, &src(2))
        }
        ("mul", F32) => {
            alu(None, by_round!(mode, M, |[a, b, ..]| fb(mul_directed(M, f(a), f(b)))), ty, &src(2))
        }
        ("fma", F32) => {
            let fast = (mode == Round::Down).then_some(Op::FmaDownF32);
            alu(fast, by_round!(mode, M, |[a, b, c, _]| fb(fma_directed(M, f(a), f(b), f(c)))), ty, &src(3))
        }
        ("add", F64) => alu(
            None,
            by_round!(mode, M, |[a, b, ..]| {
                let (s, e) = two_sum(d(a), d(b));
                db(step_f64(s, e, M))
            }),
            ty,
            &src(2),
        ),
        ("sub", F64) => alu(
            None,
            by_round!(mode, M, |[a, b, ..]| {
                let (s, e) = two_sum(d(a), -d(b));
                db(step_f64(s, e, M))
            }),
            ty,
            &src(2),
        ),
        ("mul", F64) => alu(
            None,
            by_round!(mode, M, |[a, b, ..]| {
                let p = d(a) * d(b);
                db(step_f64(p, d(a).mul_add(d(b), -p), M))
            }),
            ty,
            &src(2),
        ),
        ("fma" | "mad", F64) if near => alu(None, |[a, b, c, _]| db(d(a).mul_add(d(b), d(c))), ty, &src(3)),
        ("div", F64) if near => alu(None, |[a, b, ..]| db(d(a) / d(b)), ty, &src(2)),
        ("div", F32) if m.take("approx") || m.take("full") => {
            if m.ftz {
                alu(None, |[a, b, ..]| fb(flush(flush(f(a)) / flush(f(b)))), ty, &src(2))
            } else {
                alu(Some(Op::DivF32), |[a, b, ..]| fb(f(a) / f(b)), ty, &src(2))
            }
        }
        ("div", F32) if !m.ftz => alu(
            fast(Op::DivF32),
            by_round!(mode, M, |[a, b, ..]| fb(if M == Round::Near {
                f(a) / f(b)
            } else {
                div_directed(M, f(a), f(b))
            })),
            ty,
            &src(2),
        ),
        ("rcp", F32) if m.take("approx") => {
            if m.ftz {
                alu(Some(Op::RcpFtzF32), |[a, ..]| fb(flush(1.0 / flush(f(a)))), ty, &src(1))
            } else {
                alu(Some(Op::RcpF32), |[a, ..]| fb(1.0 / f(a)), ty, &src(1))
            }
        }
        ("rcp", F32) if !m.ftz => alu(
            fast(Op::RcpF32),
            by_round!(mode, M, |[a, ..]| fb(if M == Round::Near {
                1.0 / f(a)
            } else {
                div_directed(M, 1.0, f(a))
            })),
            ty,
            &src(1),
        ),
        ("rcp", F64) if near => alu(None, |[a, ..]| db(1.0 / d(a)), ty, &src(1)),
        ("sqrt", F32) if m.take("approx") => {
            if m.ftz {
                alu(None, |[a, ..]| fb(flush(flush(f(a)).sqrt())), ty, &src(1))
            } else {
                alu(Some(Op::SqrtF32), |[a, ..]| fb(f(a).sqrt()), ty, &src(1))
            }
        }
        ("sqrt", F32) if !m.ftz => alu(
            fast(Op::SqrtF32),
            by_round!(mode, M, |[a, ..]| fb(if M == Round::Near {
                f(a).sqrt()
            } else {
                sqrt_directed(M, f(a))
            })),
            ty,
            &src(1),
        ),
        ("sqrt", F64) if near => alu(None, |[a, ..]| db(d(a).sqrt()), ty, &src(1)),
        ("rsqrt", F64) if m.take("approx") => alu(None, |[a, ..]| db(1.0 / d(a).sqrt()), ty, &src(1)),
        ("ex2" | "lg2" | "rsqrt" | "sin" | "cos", F32) if m.take("approx") => {
            let lane: Lane = match (name, m.ftz) {
                ("ex2", false) => |[a, ..]| fb(f64::from(f(a)).exp2() as f32),
                ("ex2", true) => |[a, ..]| fb(flush(f64::from(flush(f(a))).exp2() as f32)),
                ("lg2", false) => |[a, ..]| fb(f64::from(f(a)).log2() as f32),
                ("lg2", true) => |[a, ..]| fb(flush(f64::from(flush(f(a))).log2() as f32)),
                ("rsqrt", false) => |[a, ..]| fb((1.0 / f64::from(f(a)).sqrt()) as f32),
                ("rsqrt", true) => |[a, ..]| fb(flush((1.0 / f64::from(flush(f(a))).sqrt()) as f32)),
                ("sin", false) => |[a, ..]| fb(f64::from(f(a)).sin() as f32),
                ("sin", true) => |[a, ..]| fb(flush(f64::from(flush(f(a))).sin() as f32)),
                (_, false) => |[a, ..]| fb(f64::from(f(a)).cos() as f32),
                (_, true) => |[a, ..]| fb(flush(f64::from(flush(f(a))).cos() as f32)),
            };
            alu(None, lane, ty, &src(1))
        }
        ("tanh", F32) if m.take("approx") => {
            alu(None, |[a, ..]| fb(f64::from(f(a)).tanh() as f32), ty, &src(1))
        }
        ("neg", F32) => alu(Some(Op::NegF32), |[a, ..]| a ^ 0x8000_0000, ty, &src(1)),
        ("abs", F32) => alu(Some(Op::AbsF32), |[a, ..]| a & 0x7fff_ffff, ty, &src(1)),
        ("neg", F64) => alu(None, |[a, ..]| a ^ 1 << 63, ty, &src(1)),
        ("abs", F64) => alu(None, |[a, ..]| a & !(1 << 63), ty, &src(1)),
        ("min" | "max", F32) if m.take("NaN") => {
            let lane: Lane = if name == "min" {
                |[a, b, ..]| {
                    if f(a).is_nan() || f(b).is_nan() { 0x7fff_ffff } else { fb(min_f32(f(a), f(b))) }
                }
            } else {
                |[a, b, ..]| {
                    if f(a).is_nan() || f(b).is_nan() { 0x7fff_ffff } else { fb(max_f32(f(a), f(b))) }
                }
            };
            alu(None, lane, ty, &src(2))
        }
        ("min", F32) => alu(Some(Op::MinF32), |[a, b, ..]| fb(min_f32(f(a), f(b))), ty, &src(2)),
        ("max", F32) => alu(Some(Op::MaxF32), |[a, b, ..]| fb(max_f32(f(a), f(b))), ty, &src(2)),
        ("min", F64) => alu(None, |[a, b, ..]| db(min_f64(d(a), d(b))), ty, &src(2)),
        ("max", F64) => alu(None, |[a, b, ..]| db(max_f64(d(a), d(b))), ty, &src(2)),
        ("copysign", F32) => alu(None, |[a, b, ..]| (b & 0x7fff_ffff) | (a & 0x8000_0000), ty, &src(2)),
        ("copysign", F64) => alu(None, |[a, b, ..]| (b & !(1 << 63)) | (a & 1 << 63), ty, &src(2)),
        ("testp", F32 | F64) => {
            let lane: Lane = match (m.rest.pop()?, ty) {
                ("finite", F32) => |[a, ..]| u64::from(f(a).is_finite()),
                ("infinite", F32) => |[a, ..]| u64::from(f(a).is_infinite()),
                ("number", F32) => |[a, ..]| u64::from(!f(a).is_nan()),
                ("notanumber", F32) => |[a, ..]| u64::from(f(a).is_nan()),
                ("normal", F32) => |[a, ..]| u64::from(f(a).is_normal()),
                ("subnormal", F32) => |[a, ..]| u64::from(f(a).is_subnormal()),
                ("finite", F64) => |[a, ..]| u64::from(d(a).is_finite()),
                ("infinite", F64) => |[a, ..]| u64::from(d(a).is_infinite()),
                ("number", F64) => |[a, ..]| u64::from(!d(a).is_nan()),
                ("notanumber", F64) => |[a, ..]| u64::from(d(a).is_nan()),
                ("normal", F64) => |[a, ..]| u64::from(d(a).is_normal()),
                ("subnormal", F64) => |[a, ..]| u64::from(d(a).is_subnormal()),
                _ => return None,
            };
            alu(None, lane, Ty::Pred, &src(1))
        }
        _ => None,
    }
}

fn compare(name: &str, m: &mut Mods) -> Option<Alu> {
    use Ty::{Pred, S32, S64, U32, U64};
    let cmp = m.rest.iter().find_map(|w| cmp_of(w))?;
    let at = m.rest.iter().position(|w| cmp_of(w).is_some())?;
    m.rest.remove(at);
    let bool_op = if m.take("and") {
        1
    } else if m.take("or") {
        2
    } else if m.take("xor") {
        3
    } else {
        0u64
    };
    let (dst, ty) =
        if name == "setp" { (Pred, *m.types.first()?) } else { (*m.types.first()?, *m.types.get(1)?) };
    if m.ftz {
        return None;
    }
    macro_rules! by_cmp {
        ($op:expr, $C:ident, $lane:expr) => {
            match $op {
                Cmp::Eq => {
                    const $C: Cmp = Cmp::Eq;
                    $lane as Lane
                }
                Cmp::Ne => {
                    const $C: Cmp = Cmp::Ne;
                    $lane as Lane
                }
                Cmp::Lt => {
                    const $C: Cmp = Cmp::Lt;
                    $lane as Lane
                }
                Cmp::Le => {
                    const $C: Cmp = Cmp::Le;
                    $lane as Lane
                }
                Cmp::Gt => {
                    const $C: Cmp = Cmp::Gt;
                    $lane as Lane
                }
                Cmp::Ge => {
                    const $C: Cmp = Cmp::Ge;
                    $lane as Lane
                }
                Cmp::Equ => {
                    const $C: Cmp = Cmp::Equ;
                    $lane as Lane
                }
                Cmp::Neu => {
                    const $C: Cmp = Cmp::Neu;
                    $lane as Lane
                }
                Cmp::Ltu => {
                    const $C: Cmp = Cmp::Ltu;
                    $lane as Lane
                }
                Cmp::Leu => {
                    const $C: Cmp = Cmp::Leu;
                    $lane as Lane
                }
                Cmp::Gtu => {
                    const $C: Cmp = Cmp::Gtu;
                    $lane as Lane
                }
                Cmp::Geu => {
                    const $C: Cmp = Cmp::Geu;
                    $lane as Lane
                }
                Cmp::Num => {
                    const $C: Cmp = Cmp::Num;
                    $lane as Lane
                }
                Cmp::Nan => {
                    const $C: Cmp = Cmp::Nan;
                    $lane as Lane
                }
            }
        };
    }
    // The combining operation travels as the fourth operand, a constant the decoder adds.
    let lane: Lane = match ty {
        Ty::F32 => {
            by_cmp!(cmp, C, |[a, b, c, k]| combine(k, holds_float(C, f64::from(f(a)), f64::from(f(b))), c))
        }
        Ty::F64 => by_cmp!(cmp, C, |[a, b, c, k]| combine(k, holds_float(C, d(a), d(b)), c)),
        Ty::S16 => by_cmp!(cmp, C, |[a, b, c, k]| combine(
            k,
            holds_int(C, i128::from(a as i16), i128::from(b as i16)),
            c
        )),
        S32 => by_cmp!(cmp, C, |[a, b, c, k]| combine(
            k,
            holds_int(C, i128::from(a as i32), i128::from(b as i32)),
            c
        )),
        S64 => by_cmp!(cmp, C, |[a, b, c, k]| combine(
            k,
            holds_int(C, i128::from(a as i64), i128::from(b as i64)),
            c
        )),
        Ty::U16 | Ty::B16 | U32 | Ty::B32 | U64 | Ty::B64 => {
            by_cmp!(cmp, C, |[a, b, c, k]| combine(k, holds_int(C, i128::from(a), i128::from(b)), c))
        }
        Ty::F16 | Ty::Bf16 => half::compare(ty, cmp)?,
        _ => return None,
    };
    let fast = if dst == Pred && bool_op == 0 {
        match ty {
            Ty::F32 => Some(Op::SetpF32(cmp)),
            S32 => Some(Op::SetpS32(cmp)),
            U32 | Ty::B32 => Some(Op::SetpU32(cmp)),
            S64 => Some(Op::SetpS64(cmp)),
            U64 | Ty::B64 => Some(Op::SetpU64(cmp)),
            _ => None,
        }
    } else {
        None
    };
    if dst != Pred {
        // `set` gives all ones or 1.0; only the plain form.
        if bool_op != 0 {
            return None;
        }
        let lane: Lane = match (ty, dst) {
            (Ty::F32, Ty::F32) => {
                by_cmp!(cmp, C, |[a, b, ..]| if holds_float(C, f64::from(f(a)), f64::from(f(b))) {
                    0x3f80_0000
                } else {
                    0
                })
            }
            (Ty::F32, _) => {
                by_cmp!(cmp, C, |[a, b, ..]| if holds_float(C, f64::from(f(a)), f64::from(f(b))) {
                    0xffff_ffff
                } else {
                    0
                })
            }
            (S32, Ty::F32) => {
                by_cmp!(cmp, C, |[a, b, ..]| if holds_int(C, i128::from(a as i32), i128::from(b as i32)) {
                    0x3f80_0000
                } else {
                    0
                })
            }
            (S32, _) => {
                by_cmp!(cmp, C, |[a, b, ..]| if holds_int(C, i128::from(a as i32), i128::from(b as i32)) {
                    0xffff_ffff
                } else {
                    0
                })
            }
            (U32 | Ty::B32, U32 | S32) => {
                by_cmp!(cmp, C, |[a, b, ..]| if holds_int(C, i128::from(a), i128::from(b)) {
                    0xffff_ffff
                } else {
                    0
                })
            }
            _ => return None,
        };
        return alu(None, lane, dst, &[ty, ty]);
    }
    alu(fast, lane, Pred, &[ty, ty])
}

#[allow(clippy::too_many_lines)]
fn convert(m: &mut Mods) -> Option<Alu> {
    use Ty::{F32, F64, S32, S64, U32, U64};
    let (to, from) = (*m.types.first()?, *m.types.get(1)?);
    let is_small = |t: Ty| matches!(t, Ty::F16 | Ty::Bf16 | Ty::F16x2 | Ty::Bf16x2 | Ty::Tf32);
    if is_small(to) || is_small(from) {
        return half::convert(to, from, m);
    }
    let mode = m.round.unwrap_or(Round::Near);
    let done = |fast: Option<Op>, lane: Lane| alu(fast, lane, to, &[from]);
    match (to.float(), from.float()) {
        (false, false) => {
            if m.sat {
                // Clamp the value of `from` to the range of `to`.
                let lane: Option<Lane> = {
                    macro_rules! go {
                        ($F:ident) => {
                            Some(by_int!(to, T, |[a, ..]| (i128::from($F::of(a))
                                .clamp(i128::from(T::MIN), i128::from(T::MAX))
                                as T)
                                .bits()))
                        };
                    }
                    match from {
                        Ty::S8 => go!(i8),
                        Ty::S16 => go!(i16),
                        S32 => go!(i32),
                        S64 => go!(i64),
                        Ty::U8 => go!(u8),
                        Ty::U16 => go!(u16),
                        U32 => go!(u32),
                        U64 => go!(u64),
                        _ => None,
                    }
                };
                return done(None, lane?);
            }
            let fast = match (to, from) {
                (S64 | U64, U32) => Some(Op::CvtU64U32),
                (S64 | U64, S32) => Some(Op::CvtS64S32),
                (S32 | U32, S64 | U64) => Some(Op::CvtU32U64),
                _ => None,
            };
            let lane: Lane = match from {
                Ty::S8 => by_int!(to, T, |[a, ..]| (a as i8 as T).bits()),
                Ty::S16 => by_int!(to, T, |[a, ..]| (a as i16 as T).bits()),
                S32 => by_int!(to, T, |[a, ..]| (a as i32 as T).bits()),
                S64 => by_int!(to, T, |[a, ..]| (a as i64 as T).bits()),
                Ty::U8 => by_int!(to, T, |[a, ..]| (a as u8 as T).bits()),
                Ty::U16 => by_int!(to, T, |[a, ..]| (a as u16 as T).bits()),
                U32 => by_int!(to, T, |[a, ..]| (a as u32 as T).bits()),
                U64 => by_int!(to, T, |[a, ..]| (a as T).bits()),
                _ => return None,
            };
            done(fast, lane)
        }
        (true, false) => {
            m.round?;
            let lane: Lane = match (to, from) {
                (F32, S32) => by_round!(mode, M, |[a, ..]| fb(round_f32(f64::from(a as i32), 0.0, M))),
                (F32, U32) => by_round!(mode, M, |[a, ..]| fb(round_f32(f64::from(a as u32), 0.0, M))),
                (F32, Ty::S8) => |[a, ..]| fb(f32::from(a as i8)),
                (F32, Ty::U8) => |[a, ..]| fb(f32::from(a as u8)),
                (F32, Ty::S16) => |[a, ..]| fb(f32::from(a as i16)),
                (F32, Ty::U16) => |[a, ..]| fb(f32::from(a as u16)),
                (F32, S64) => by_round!(mode, M, |[a, ..]| {
                    let v = a as i64;
                    fb(int_to_f64(v < 0, v.unsigned_abs(), 24, M) as f32)
                }),
                (F32, U64) => by_round!(mode, M, |[a, ..]| fb(int_to_f64(false, a, 24, M) as f32)),
                (F64, S64) => by_round!(mode, M, |[a, ..]| {
                    let v = a as i64;
                    db(int_to_f64(v < 0, v.unsigned_abs(), 53, M))
                }),
                (F64, U64) => by_round!(mode, M, |[a, ..]| db(int_to_f64(false, a, 53, M))),
                (F64, S32) => |[a, ..]| db(f64::from(a as i32)),
                (F64, U32) => |[a, ..]| db(f64::from(a as u32)),
                (F64, Ty::S16) => |[a, ..]| db(f64::from(a as i16)),
                (F64, Ty::U16) => |[a, ..]| db(f64::from(a as u16)),
                _ => return None,
            };
            let fast = match (to, from, mode) {
                (F32, S32, Round::Near) => Some(Op::CvtF32S32),
                (F32, U32, Round::Near) => Some(Op::CvtF32U32),
                _ => None,
            };
            done(fast, lane)
        }
        (false, true) => {
            if !m.integer {
                return None;
            }
            macro_rules! to_int {
                ($read:ident, $wide_nan:expr) => {
                    match to {
                        Ty::S8 => {
                            by_round!(mode, M, |[a, ..]| (round_to_integer(f64::from($read(a)), M) as i8)
                                .bits())
                        }
                        Ty::U8 => {
                            by_round!(mode, M, |[a, ..]| (round_to_integer(f64::from($read(a)), M) as u8)
                                .bits())
                        }
                        Ty::S16 => {
                            by_round!(mode, M, |[a, ..]| (round_to_integer(f64::from($read(a)), M) as i16)
                                .bits())
                        }
                        Ty::U16 => {
                            by_round!(mode, M, |[a, ..]| (round_to_integer(f64::from($read(a)), M) as u16)
                                .bits())
                        }
                        S32 => by_round!(mode, M, |[a, ..]| {
                            let v = f64::from($read(a));
                            if v.is_nan() && $wide_nan {
                                0x8000_0000
                            } else {
                                (round_to_integer(v, M) as i32).bits()
                            }
                        }),
                        U32 => by_round!(mode, M, |[a, ..]| {
                            let v = f64::from($read(a));
                            if v.is_nan() && $wide_nan {
                                0x8000_0000
                            } else {
                                (round_to_integer(v, M) as u32).bits()
                            }
                        }),
                        S64 => by_round!(mode, M, |[a, ..]| {
                            let v = f64::from($read(a));
                            if v.is_nan() { 1 << 63 } else { (round_to_integer(v, M) as i64).bits() }
                        }),
                        U64 => by_round!(mode, M, |[a, ..]| {
                            let v = f64::from($read(a));
                            if v.is_nan() { 1 << 63 } else { round_to_integer(v, M) as u64 }
                        }),
                        _ => return None,
                    }
                };
            }
            let lane: Lane = match from {
                F32 if m.ftz => {
                    fn ff(a: u64) -> f32 {
                        flush(f(a))
                    }
                    to_int!(ff, false)
                }
                F32 => to_int!(f, false),
                F64 => to_int!(d, true),
                _ => return None,
            };
            done(None, lane)
        }
        (true, true) => {
            if m.ftz && !m.sat && !m.integer {
                return None;
            }
            let lane: Lane = match (to, from, m.integer, m.sat) {
                (F32, F32, true, false) => {
                    by_round!(mode, M, |[a, ..]| fb(round_to_integer(f64::from(f(a)), M) as f32))
                }
                (F64, F64, true, false) => {
                    by_round!(mode, M, |[a, ..]| db(round_to_integer(d(a), M)))
                }
                (F32, F32, false, true) => |[a, ..]| fb(sat32(f(a))),
                (F64, F64, false, true) => |[a, ..]| db(sat64(d(a))),
                (F32, F32, false, false) | (F64, F64, false, false) => |[a, ..]| a,
                (F64, F32, false, false) => |[a, ..]| db(f64::from(f(a))),
                (F32, F64, false, false) => {
                    by_round!(mode, M, |[a, ..]| fb(round_f32(d(a), 0.0, M)))
                }
                (F32, F64, false, true) => |[a, ..]| fb(sat32(d(a) as f32)),
                _ => return None,
            };
            done(None, lane)
        }
    }
}
