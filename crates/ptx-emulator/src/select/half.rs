//! 16-bit floats: arithmetic, comparisons and conversions, by way of wider types.

use super::alu::{Alu, alu};
use super::relation::{combine, holds_float};
use super::rounding::{max_f32, min_f32};
use crate::isa::half::{BF16, F16, f16_to_f32, f32_to_bf16, f32_to_f16, f32_to_tf32, narrow};
use crate::isa::{Cmp, Lane, Mods, Op, Round, Ty};

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

/// Applies a function to each half.
fn pair(a: u64, b: u64, f: impl Fn(u64, u64) -> u64) -> u64 {
    (f(a & 0xffff, b & 0xffff) & 0xffff) | (f(a >> 16 & 0xffff, b >> 16 & 0xffff) & 0xffff) << 16
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

/// A lane-wise instruction of 16-bit floats.
pub(crate) fn select(name: &str, ty: Ty, m: &mut Mods) -> Option<Alu> {
    let bf = matches!(ty, Ty::Bf16 | Ty::Bf16x2);
    let two = matches!(ty, Ty::F16x2 | Ty::Bf16x2);
    if m.sat || m.ftz && name != "ex2" || m.integer || m.round.is_some_and(|r| r != Round::Near) {
        return None;
    }
    let src = |n: usize| vec![ty; n];
    macro_rules! each_format {
        (|$a:ident, $b:ident| $f:expr) => {
            match (bf, two) {
                (false, false) => {
                    const B: bool = false;
                    (|[$a, $b, ..]| $f) as Lane
                }
                (true, false) => {
                    const B: bool = true;
                    (|[$a, $b, ..]| $f) as Lane
                }
                (false, true) => {
                    const B: bool = false;
                    (|[a, b, ..]| pair(a, b, |$a, $b| $f)) as Lane
                }
                (true, true) => {
                    const B: bool = true;
                    (|[a, b, ..]| pair(a, b, |$a, $b| $f)) as Lane
                }
            }
        };
    }
    match name {
        "add" => alu(None, each_format!(|a, b| near::<B>(widen::<B>(a) + widen::<B>(b))), ty, &src(2)),
        "sub" => alu(None, each_format!(|a, b| near::<B>(widen::<B>(a) - widen::<B>(b))), ty, &src(2)),
        "mul" => alu(None, each_format!(|a, b| near::<B>(widen::<B>(a) * widen::<B>(b))), ty, &src(2)),
        "fma" => {
            let lane: Lane = match (bf, two, m.take("relu")) {
                (false, false, false) => |[a, b, c, _]| fma::<false>(a, b, c),
                (true, false, false) => |[a, b, c, _]| fma::<true>(a, b, c),
                (false, false, true) => |[a, b, c, _]| relu(fma::<false>(a, b, c)),
                (true, false, true) => |[a, b, c, _]| relu(fma::<true>(a, b, c)),
                (false, true, false) => |[a, b, c, _]| fma2::<false>(a, b, c),
                (true, true, false) => |[a, b, c, _]| fma2::<true>(a, b, c),
                (_, true, true) => return None,
            };
            alu(None, lane, ty, &src(3))
        }
        "neg" => alu(
            None,
            if two { |[a, ..]| a ^ 0x8000_8000 } else { |[a, ..]| (a ^ 0x8000) & 0xffff },
            ty,
            &src(1),
        ),
        "abs" => alu(None, if two { |[a, ..]| a & 0x7fff_7fff } else { |[a, ..]| a & 0x7fff }, ty, &src(1)),
        "min" if m.take("NaN") => alu(None, each_format!(|a, b| lowest::<B, false, true>(a, b)), ty, &src(2)),
        "max" if m.take("NaN") => alu(None, each_format!(|a, b| lowest::<B, true, true>(a, b)), ty, &src(2)),
        "min" => alu(None, each_format!(|a, b| lowest::<B, false, false>(a, b)), ty, &src(2)),
        "max" => alu(None, each_format!(|a, b| lowest::<B, true, false>(a, b)), ty, &src(2)),
        "ex2" if m.take("approx") => {
            let lane = each_format!(|a, b| {
                let _ = b;
                near::<B>(f64::from(widen::<B>(a)).exp2() as f32)
            });
            alu(None, lane, ty, &src(1))
        }
        "tanh" if m.take("approx") => {
            let lane = each_format!(|a, b| {
                let _ = b;
                near::<B>(f64::from(widen::<B>(a)).tanh() as f32)
            });
            alu(None, lane, ty, &src(1))
        }
        _ => None,
    }
}

fn fma2<const B: bool>(a: u64, b: u64, c: u64) -> u64 {
    let low = fma::<B>(a & 0xffff, b & 0xffff, c & 0xffff);
    low | fma::<B>(a >> 16 & 0xffff, b >> 16 & 0xffff, c >> 16 & 0xffff) << 16
}

/// The value of a 16-bit float as f64, by type.
pub(crate) fn value<const B: bool>(bits: u64) -> f64 {
    f64::from(widen::<B>(bits))
}

/// A comparison of 16-bit floats.
pub(crate) fn compare(ty: Ty, cmp: Cmp) -> Option<Lane> {
    macro_rules! go {
        ($($c:ident)*) => {
            match (ty, cmp) {
                $((Ty::F16, Cmp::$c) => |[a, b, c, k]| {
                    combine(k, holds_float(Cmp::$c, value::<false>(a), value::<false>(b)), c)
                },
                (Ty::Bf16, Cmp::$c) => |[a, b, c, k]| {
                    combine(k, holds_float(Cmp::$c, value::<true>(a), value::<true>(b)), c)
                },)*
                _ => return None,
            }
        };
    }
    Some(go!(Eq Ne Lt Le Gt Ge Equ Neu Ltu Leu Gtu Geu Num Nan))
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
pub(crate) fn convert(to: Ty, from: Ty, m: &mut Mods) -> Option<Alu> {
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
        (Ty::F16 | Ty::Bf16, Ty::F32 | Ty::F64, Some(mode), false) => {
            macro_rules! by_mode {
                ($read:expr, $format:expr) => {
                    match mode {
                        Round::Near => |[a, ..]| u64::from(narrow($read(a), $format, Round::Near, false)),
                        Round::Zero => |[a, ..]| u64::from(narrow($read(a), $format, Round::Zero, false)),
                        Round::Down => |[a, ..]| u64::from(narrow($read(a), $format, Round::Down, false)),
                        Round::Up => |[a, ..]| u64::from(narrow($read(a), $format, Round::Up, false)),
                        Round::NearAway => return None,
                    }
                };
            }
            fn single(a: u64) -> f64 {
                f64::from(f32::from_bits(a as u32))
            }
            let lane: Lane = match (to, from) {
                (Ty::F16, Ty::F32) => by_mode!(single, F16),
                (Ty::F16, _) => by_mode!(f64::from_bits, F16),
                (_, Ty::F32) => by_mode!(single, BF16),
                _ => by_mode!(f64::from_bits, BF16),
            };
            done(None, lane)
        }
        (Ty::F16, Ty::F16, Some(mode), true) => {
            let lane: Lane = match mode {
                Round::Near => |[a, ..]| near::<false>(widen::<false>(a).round_ties_even()),
                Round::Zero => |[a, ..]| near::<false>(widen::<false>(a).trunc()),
                Round::Down => |[a, ..]| near::<false>(widen::<false>(a).floor()),
                Round::Up => |[a, ..]| near::<false>(widen::<false>(a).ceil()),
                Round::NearAway => return None,
            };
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
                ($t:ident, $u:ident, $b:expr) => {
                    match mode {
                        Round::Near => |[a, ..]| u64::from(value::<$b>(a).round_ties_even() as $t as $u),
                        Round::Zero => |[a, ..]| u64::from(value::<$b>(a) as $t as $u),
                        Round::Down => |[a, ..]| u64::from(value::<$b>(a).floor() as $t as $u),
                        Round::Up => |[a, ..]| u64::from(value::<$b>(a).ceil() as $t as $u),
                        Round::NearAway => return None,
                    }
                };
            }
            let lane: Lane = match (to, from == Ty::Bf16) {
                (Ty::S32, false) => as_int!(i32, u32, false),
                (Ty::S32, true) => as_int!(i32, u32, true),
                (Ty::U32, false) => as_int!(u32, u32, false),
                (Ty::U32, true) => as_int!(u32, u32, true),
                (Ty::S16, false) => as_int!(i16, u16, false),
                (Ty::U16, false) => as_int!(u16, u16, false),
                _ => return None,
            };
            done(None, lane)
        }
        _ => None,
    }
}
