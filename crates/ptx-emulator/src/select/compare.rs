//! Comparisons: `setp` and `set`.

use super::alu::{Alu, alu};
use super::bits::{f32_of_bits, f64_of_bits};
use super::expand::by_cmp;
use super::half::value;
use super::relation::{cmp_of, combine, holds_float, holds_int};
use crate::isa::{Cmp, Lane, Mods, Op, Ty};
use Ty::{Pred, S32, S64, U32, U64};

/// A function of a comparison of each type: what `$result` makes of whether it holds, and of the third and fourth
/// operand. A type that has no comparisons ends the caller with None.
macro_rules! by_compared {
    ($ty:expr, $cmp:expr, |$holds:ident, $c:pat_param, $k:pat_param| $result:expr) => {
        by_compared!(@ $ty, $cmp, |$holds, $c, $k| $result,
            [holds_float: F32, |a| f64::from(f32_of_bits(a))]
            [holds_float: F64, |a| f64_of_bits(a)]
            [holds_float: F16, |a| value::<false>(a)]
            [holds_float: Bf16, |a| value::<true>(a)]
            [holds_int: S16, |a| i128::from(a as i16)]
            [holds_int: S32, |a| i128::from(a as i32)]
            [holds_int: S64, |a| i128::from(a as i64)]
            [holds_int: U16 B16 U32 B32 U64 B64, |a| i128::from(a)])
    };
    (@ $ty:expr, $cmp:expr, |$holds:ident, $c:pat_param, $k:pat_param| $result:expr,
        $([$relation:ident: $($name:ident)+, $read:expr])+) => {
        match $ty {
            $($(Ty::$name)|+ => by_compared!(% $cmp, $relation, $read, |$holds, $c, $k| $result),)+
            _ => return None,
        }
    };
    (% $cmp:expr, $relation:ident, $read:expr, |$holds:ident, $c:pat_param, $k:pat_param| $result:expr) => {
        by_cmp!($cmp, C, |[a, b, $c, $k]: [u64; 4]| {
            let read = $read;
            let $holds = $relation(C, read(a), read(b));
            $result
        })
    };
}

/// The combining operation of `setp` travels as the fourth operand, a constant that the decoder adds.
pub(super) fn select(name: &str, _last: Ty, m: &mut Mods) -> Option<Alu> {
    let at = m.rest.iter().position(|w| cmp_of(w).is_some())?;
    let cmp = cmp_of(m.rest.remove(at))?;
    let combined = m.take("and") || m.take("or") || m.take("xor");
    let (dst, ty) =
        if name == "setp" { (Pred, *m.types.first()?) } else { (*m.types.first()?, *m.types.get(1)?) };
    if m.ftz {
        return None;
    }
    if dst != Pred {
        return if combined { None } else { set(dst, ty, cmp) };
    }
    let fast = match ty {
        _ if combined => None,
        Ty::F32 => Some(Op::SetpF32(cmp)),
        S32 => Some(Op::SetpS32(cmp)),
        U32 | Ty::B32 => Some(Op::SetpU32(cmp)),
        S64 => Some(Op::SetpS64(cmp)),
        U64 | Ty::B64 => Some(Op::SetpU64(cmp)),
        _ => None,
    };
    let lane = by_compared!(ty, cmp, |holds, c, k| combine(k, holds, c));
    alu(fast, lane, Pred, &[ty, ty])
}

/// `set` gives all ones, or 1.0.
fn set(dst: Ty, ty: Ty, cmp: Cmp) -> Option<Alu> {
    let known = match ty {
        Ty::F32 | S32 => true,
        U32 | Ty::B32 => matches!(dst, U32 | S32),
        _ => false,
    };
    if !known {
        return None;
    }
    let lane: Lane = if dst == Ty::F32 {
        by_compared!(ty, cmp, |holds, _, _| if holds { 0x3f80_0000 } else { 0 })
    } else {
        by_compared!(ty, cmp, |holds, _, _| if holds { 0xffff_ffff } else { 0 })
    };
    alu(None, lane, dst, &[ty, ty])
}
