//! Lane-wise instructions: what `select` knows, and vectors of registers.

use ptx::{Instruction, Operand};

use super::builder::{Builder, Decoded, index};
use crate::Result;
use crate::isa::{LaneOp, Mods, Op, Slot, Ty};
use crate::select::{bool_op_number, select};

pub(super) const FAMILIES: &[Decoded] = &[Decoded {
    title: "Packing",
    names: &["mov"],
    forms: &[
        "mov.b64 %rd1, {%r1, %r2}",
        "mov.b64 {%r1, %r2}, %rd1",
        "mov.b32 %r1, {%rs1, %rs2}",
        "mov.b32 {%rs1, %rs2}, %r1",
    ],
    remarks: "",
    take: mov,
}];

fn mov(b: &mut Builder, i: &Instruction) -> Result<()> {
    if i.operands.iter().any(|o| matches!(o, Operand::Vector(_))) {
        return mov_vector(b, i);
    }
    lane_wise(b, i)
}

/// Any instruction of which `select` knows what it does to a lane.
pub(super) fn lane_wise(b: &mut Builder, i: &Instruction) -> Result<()> {
    let Some(a) = select(&i.op) else {
        return b.unknown(i);
    };
    let setp = i.op[0] == "setp";
    let bool_op = if setp { bool_op_number(&i.op) } else { 0 };
    let inputs = a.src.len() + usize::from(setp && bool_op != 0);
    // `prmt` in its modes and the like would have been refused by `select`.
    b.need(i, inputs + 1)?;
    let mut src = [Slot::None; 4];
    for (k, ty) in a.src.iter().enumerate() {
        src[k] = b.src(i, &i.operands[k + 1], *ty)?;
    }
    if setp && bool_op != 0 {
        src[2] = b.src(i, &i.operands[3], Ty::Pred)?;
        src[3] = b.imm(bool_op, 4);
    }
    let (first, second) = match &i.operands[0] {
        Operand::Pair(p, q) => (p.as_ref(), Some(q.as_ref())),
        o => (o, None),
    };
    let dst = b.dst(i, first, a.dst)?;
    let dst2 = match second {
        Some(q) => b.dst(i, q, Ty::Pred)?,
        None => Slot::None,
    };
    match a.fast {
        Some(op) if second.is_none() => {
            let [x, y, z, _] = src.map(index);
            b.emit(op, i, [index(dst), x, y, z], 0)
        }
        _ => {
            if setp && src[3] == Slot::None {
                src[3] = b.imm(0, 4);
            }
            let ext = b.code.lanes.len() as u32;
            b.code.lanes.push(LaneOp { lane: a.lane, dst, dst2, src });
            b.emit(Op::Lane, i, [0; 4], ext)
        }
    }
}

fn mov_vector(b: &mut Builder, i: &Instruction) -> Result<()> {
    b.need(i, 2)?;
    let ty = Mods::new(&i.op).types.first().copied();
    let (part, pack, unpack) = match ty.map(Ty::bytes) {
        Some(8) => (Ty::B32, Op::Pack64, Op::Unpack64),
        Some(4) => (Ty::B16, Op::Pack32, Op::Unpack32),
        _ => return b.unknown(i),
    };
    let whole = ty.unwrap_or(Ty::B64);
    match (&i.operands[0], &i.operands[1]) {
        (d, Operand::Vector(parts)) if parts.len() == 2 => {
            let low = b.src(i, &parts[0], part)?;
            let high = b.src(i, &parts[1], part)?;
            let d = b.dst(i, d, whole)?;
            b.emit(pack, i, [index(d), index(low), index(high), 0], 0)
        }
        (Operand::Vector(parts), a) if parts.len() == 2 => {
            let a = b.src(i, a, whole)?;
            let low = b.dst(i, &parts[0], part)?;
            let high = b.dst(i, &parts[1], part)?;
            b.emit(unpack, i, [index(low), index(a), index(high), 0], 0)
        }
        _ => b.unknown(i),
    }
}
