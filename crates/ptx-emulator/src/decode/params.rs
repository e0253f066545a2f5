//! Parameters of kernels, and of calls.

use ptx::{Instruction, Operand};

use super::builder::{Builder, Meaning, index};
use super::registers::{Bank, Reg};
use crate::Result;
use crate::isa::{Init, Lane, LaneOp, Op, Slot, Ty};

/// The width in bits that a register of a load or store has.
pub(super) fn data_width(b: &Builder, o: &Operand, ty: Ty) -> u32 {
    if let Operand::Name(name) = o
        && let Some(r) = b.reg(name)
    {
        return match b.regs[r] {
            Reg { bank: Bank::R64, .. } => 64,
            Reg { half: true, .. } => 16,
            _ => 32,
        };
    }
    if ty.bytes() == 8 { 64 } else { 32 }
}

/// Whether an operand is a constant, and so has no width of its own.
pub(super) fn is_constant(o: &Operand) -> bool {
    matches!(o, Operand::Int(_) | Operand::F32(_) | Operand::F64(_))
}

/// A load or store of a parameter: of the kernel, or of a call that is inlined.
pub(super) fn param_access(
    b: &mut Builder,
    i: &Instruction,
    load: bool,
    ty: Ty,
    data: &[&Operand],
    base: &Operand,
    offset: i64,
) -> Result<()> {
    let Operand::Name(name) = base else {
        return b.fail(i, "a parameter expected");
    };
    let object = match b.meaning(name) {
        Some(Meaning::Object(object)) => Some(object),
        _ => None,
    };
    let number = b.code.params.iter().position(|(n, _)| n == name);
    for (k, o) in data.iter().enumerate() {
        let at = offset + k as i64 * i64::from(ty.bytes());
        match (object, number) {
            (Some(object), _) => object_access(b, i, load, ty, o, (object, at))?,
            (None, None) => return b.fail(i, format!("{name} is no parameter")),
            (None, Some(_)) if !load => return b.fail(i, "a store to a kernel parameter"),
            (None, Some(number)) if ty.bytes() < 4 => load_narrow(b, i, ty, o, (number as u16, at))?,
            (None, Some(number)) => load_param(b, i, ty, o, Init::Param(number as u16, at as u16))?,
        }
    }
    Ok(())
}

/// A part of a parameter object of a call: a register carries it.
fn object_access(
    b: &mut Builder,
    i: &Instruction,
    load: bool,
    ty: Ty,
    o: &Operand,
    (object, at): (usize, i64),
) -> Result<()> {
    let wide = ty.bytes() == 8;
    let (file, mov) = if wide { (Ty::B64, Op::Mov64) } else { (Ty::B32, Op::Mov32) };
    let part = match b.objects[object].parts.get(&at).copied() {
        Some(r) => r,
        None => {
            let r = b.new_reg(if wide { "b64" } else { "b32" }).expect("a known type");
            b.objects[object].parts.insert(at, r);
            r
        }
    };
    if (b.regs[part].bank == Bank::R64) != wide {
        return b.fail(i, "a parameter read in another width than it was written");
    }
    let (d, a) = if load {
        let a = b.use_reg(part);
        if (data_width(b, o, ty) == 64) != wide {
            return b.fail(i, "a parameter read into a register of another width");
        }
        (b.dst(i, o, file)?, a)
    } else {
        let a = b.src(i, o, if is_constant(o) { ty } else { file })?;
        (b.def_reg(part), a)
    };
    b.emit(mov, i, [index(d), index(a), 0, 0], 0)
}

/// A small integer of a kernel parameter: cut out of its 32-bit word.
fn load_narrow(
    b: &mut Builder,
    i: &Instruction,
    ty: Ty,
    o: &Operand,
    (number, at): (u16, i64),
) -> Result<()> {
    let word = b.init32(Init::Param(number, (at / 4 * 4) as u16));
    let half = data_width(b, o, ty) == 16;
    let lane: Lane = match (ty.bytes(), ty.signed(), half) {
        (1, false, _) => |[a, s, ..]| (a >> s) & 0xff,
        (1, true, true) => |[a, s, ..]| u64::from(((a >> s) as i8) as i16 as u16),
        (1, true, false) => |[a, s, ..]| u64::from(((a >> s) as i8) as i32 as u32),
        (_, true, false) => |[a, s, ..]| u64::from(((a >> s) as i16) as i32 as u32),
        _ => |[a, s, ..]| (a >> s) & 0xffff,
    };
    let dst = b.dst(i, o, if half { Ty::B16 } else { Ty::B32 })?;
    let shift = b.imm((at % 4 * 8) as u64, 4);
    let ext = b.code.lanes.len() as u32;
    let src = [Slot::R32(word), shift, Slot::None, Slot::None];
    b.code.lanes.push(LaneOp { lane, dst, dst2: Slot::None, src });
    b.emit(Op::Lane, i, [0; 4], ext)
}

/// A kernel parameter of 4 or 8 bytes: a pre-filled register.
fn load_param(b: &mut Builder, i: &Instruction, ty: Ty, o: &Operand, init: Init) -> Result<()> {
    let (op, file, a) = match (ty.bytes() == 8, data_width(b, o, ty)) {
        (true, 64) => (Op::Mov64, Ty::B64, b.init64(init)),
        (false, 32) => (Op::Mov32, Ty::B32, b.init32(init)),
        (false, 64) if ty.signed() => (Op::CvtS64S32, Ty::B64, b.init32(init)),
        (false, 64) => (Op::CvtU64U32, Ty::B64, b.init32(init)),
        _ => return b.fail(i, "a parameter read into a register of another width"),
    };
    let d = b.dst(i, o, file)?;
    b.emit(op, i, [index(d), a, 0, 0], 0)
}
