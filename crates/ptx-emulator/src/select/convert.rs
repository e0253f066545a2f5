//! Conversions: `cvt`.

use super::alu::{Alu, alu};
use super::bits::{
    Int, bits_of_f32, bits_of_f64, f32_of_bits, f64_of_bits, flush, saturate_f32, saturate_f64,
};
use super::expand::{by_int, by_round};
use super::half;
use super::rounding::{int_to_f64, round_f32, round_to_integer};
use crate::isa::{Lane, Mods, Op, Round, Ty};
use Ty::{F32, F64, S32, S64, U32, U64};

pub(super) fn select(_name: &str, _last: Ty, m: &mut Mods) -> Option<Alu> {
    let (to, from) = (*m.types.first()?, *m.types.get(1)?);
    let narrow = |t: Ty| matches!(t, Ty::F16 | Ty::Bf16 | Ty::F16x2 | Ty::Bf16x2 | Ty::Tf32);
    if narrow(to) || narrow(from) {
        return half::convert(to, from, m);
    }
    let mode = m.round.unwrap_or(Round::Near);
    let (fast, lane) = match (to.float(), from.float()) {
        (false, false) => int_to_int(to, from, m.sat)?,
        (true, false) => {
            m.round?;
            int_to_float(to, from, mode)?
        }
        (false, true) => (None, float_to_int(to, from, mode, m)?),
        (true, true) => (None, float_to_float(to, from, mode, m)?),
    };
    alu(fast, lane, to, &[from])
}

/// Saturated: the value of `from` clamped to the range of `to`.
fn int_to_int(to: Ty, from: Ty, saturated: bool) -> Option<(Option<Op>, Lane)> {
    if matches!(from, Ty::B8 | Ty::B16 | Ty::B32 | Ty::B64) {
        return None;
    }
    if saturated {
        let lane = by_int!(
            from,
            From,
            by_int!(to, To, |[a, ..]| {
                let within = i128::from(From::of(a)).clamp(i128::from(To::MIN), i128::from(To::MAX));
                (within as To).bits()
            })
        );
        return Some((None, lane));
    }
    let fast = match (to, from) {
        (S64 | U64, U32) => Some(Op::CvtU64U32),
        (S64 | U64, S32) => Some(Op::CvtS64S32),
        (S32 | U32, S64 | U64) => Some(Op::CvtU32U64),
        _ => None,
    };
    Some((fast, by_int!(from, From, by_int!(to, To, |[a, ..]| (From::of(a) as To).bits()))))
}

fn int_to_float(to: Ty, from: Ty, mode: Round) -> Option<(Option<Op>, Lane)> {
    let lane: Lane = match (to, from) {
        (F32, S32) => by_round!(mode, M, |[a, ..]| bits_of_f32(round_f32(f64::from(a as i32), 0.0, M))),
        (F32, U32) => by_round!(mode, M, |[a, ..]| bits_of_f32(round_f32(f64::from(a as u32), 0.0, M))),
        (F32, Ty::S8) => |[a, ..]| bits_of_f32(f32::from(a as i8)),
        (F32, Ty::U8) => |[a, ..]| bits_of_f32(f32::from(a as u8)),
        (F32, Ty::S16) => |[a, ..]| bits_of_f32(f32::from(a as i16)),
        (F32, Ty::U16) => |[a, ..]| bits_of_f32(f32::from(a as u16)),
        (F32, S64) => by_round!(mode, M, |[a, ..]| {
            let v = a as i64;
            bits_of_f32(int_to_f64(v < 0, v.unsigned_abs(), 24, M) as f32)
        }),
        (F32, U64) => by_round!(mode, M, |[a, ..]| bits_of_f32(int_to_f64(false, a, 24, M) as f32)),
        (F64, S64) => by_round!(mode, M, |[a, ..]| {
            let v = a as i64;
            bits_of_f64(int_to_f64(v < 0, v.unsigned_abs(), 53, M))
        }),
        (F64, U64) => by_round!(mode, M, |[a, ..]| bits_of_f64(int_to_f64(false, a, 53, M))),
        (F64, S32) => |[a, ..]| bits_of_f64(f64::from(a as i32)),
        (F64, U32) => |[a, ..]| bits_of_f64(f64::from(a as u32)),
        (F64, Ty::S16) => |[a, ..]| bits_of_f64(f64::from(a as i16)),
        (F64, Ty::U16) => |[a, ..]| bits_of_f64(f64::from(a as u16)),
        _ => return None,
    };
    let fast = match (to, from, mode) {
        (F32, S32, Round::Near) => Some(Op::CvtF32S32),
        (F32, U32, Round::Near) => Some(Op::CvtF32U32),
        _ => None,
    };
    Some((fast, lane))
}

/// Out of range gives the nearest integer there is. A NaN gives zero, or the highest bit alone where the result has
/// 64 bits, and where an f64 becomes an integer of 32.
fn float_to_int(to: Ty, from: Ty, mode: Round, m: &Mods) -> Option<Lane> {
    if !m.integer {
        return None;
    }
    macro_rules! to_int {
        (|$a:ident| $read:expr, of_nan_32: $nan:expr) => {
            to_int!(@ |$a| $read,
                [S8: i8, 0] [U8: u8, 0] [S16: i16, 0] [U16: u16, 0] [S32: i32, $nan] [U32: u32, $nan]
                [S64: i64, 1 << 63] [U64: u64, 1 << 63])
        };
        (@ |$a:ident| $read:expr, $([$name:ident: $of:ident, $nan:expr])+) => {
            match to {
                $(Ty::$name => by_round!(mode, M, |[$a, ..]| {
                    let v: f64 = $read;
                    if v.is_nan() { $nan } else { (round_to_integer(v, M) as $of).bits() }
                }),)+
                _ => return None,
            }
        };
    }
    Some(match from {
        F32 if m.ftz => to_int!(|a| f64::from(flush(f32_of_bits(a))), of_nan_32: 0),
        F32 => to_int!(|a| f64::from(f32_of_bits(a)), of_nan_32: 0),
        F64 => to_int!(|a| f64_of_bits(a), of_nan_32: 0x8000_0000),
        _ => return None,
    })
}

fn float_to_float(to: Ty, from: Ty, mode: Round, m: &Mods) -> Option<Lane> {
    if m.ftz && !m.sat && !m.integer {
        return None;
    }
    Some(match (to, from, m.integer, m.sat) {
        (F32, F32, true, false) => {
            by_round!(mode, M, |[a, ..]| bits_of_f32(round_to_integer(f64::from(f32_of_bits(a)), M) as f32))
        }
        (F64, F64, true, false) => {
            by_round!(mode, M, |[a, ..]| bits_of_f64(round_to_integer(f64_of_bits(a), M)))
        }
        (F32, F32, false, true) => |[a, ..]| bits_of_f32(saturate_f32(f32_of_bits(a))),
        (F64, F64, false, true) => |[a, ..]| bits_of_f64(saturate_f64(f64_of_bits(a))),
        (F32, F32, false, false) | (F64, F64, false, false) => |[a, ..]| a,
        (F64, F32, false, false) => |[a, ..]| bits_of_f64(f64::from(f32_of_bits(a))),
        (F32, F64, false, false) => {
            by_round!(mode, M, |[a, ..]| bits_of_f32(round_f32(f64_of_bits(a), 0.0, M)))
        }
        (F32, F64, false, true) => |[a, ..]| bits_of_f32(saturate_f32(f64_of_bits(a) as f32)),
        _ => return None,
    })
}
