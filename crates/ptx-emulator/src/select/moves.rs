//! Moves and selections: `mov`, `selp`, `slct`, of any type.

use super::alu::{Alu, alu, sized};
use super::bits::f32_of_bits;
use crate::isa::{Mods, Op, Ty};

pub(super) fn select(name: &str, ty: Ty, m: &mut Mods) -> Option<Alu> {
    match name {
        "mov" => {
            let fast = match ty {
                Ty::Pred => Op::MovP,
                _ if ty.bytes() == 8 => Op::Mov64,
                _ => Op::Mov32,
            };
            alu(Some(fast), |[a, ..]| a, ty, &[ty])
        }
        "selp" => alu(
            sized(ty, Op::Sel32, Op::Sel64).or(Some(Op::Sel32)),
            |[a, b, c, _]| if c & 1 == 1 { a } else { b },
            ty,
            &[ty, ty, Ty::Pred],
        ),
        "slct" => {
            let data = *m.types.first()?;
            if ty == Ty::F32 {
                alu(None, |[a, b, c, _]| if f32_of_bits(c) >= 0.0 { a } else { b }, data, &[data, data, ty])
            } else {
                alu(None, |[a, b, c, _]| if c as i32 >= 0 { a } else { b }, data, &[data, data, ty])
            }
        }
        _ => None,
    }
}
