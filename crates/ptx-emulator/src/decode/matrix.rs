//! Matrix multiply-adds and the loads of their operands.

use ptx::{Instruction, Operand};

use super::builder::{Builder, Decoded, index};
use crate::Result;
use crate::isa::{MatrixType, MemOp, MmaOp, NONE, Op, Order, Space, Ty};

pub(super) const FAMILIES: &[Decoded] = &[
    Decoded {
        title: "Matrix multiply-adds",
        names: &["mma"],
        forms: &[
            "mma.sync.aligned.m16n8k16.row.col.{f32.f16.f16.f32,f32.bf16.bf16.f32} \
             {%f1, %f2, %f3, %f4}, {%r1, %r2, %r3, %r4}, {%r5, %r6}, {%f1, %f2, %f3, %f4}",
            "mma.sync.aligned.m16n8k8.row.col.{f32.f16.f16.f32,f32.bf16.bf16.f32} \
             {%f1, %f2, %f3, %f4}, {%r1, %r2}, {%r5}, {%f1, %f2, %f3, %f4}",
            "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 \
             {%f1, %f2, %f3, %f4}, {%r1, %r2, %r3, %r4}, {%r5, %r6}, {%f1, %f2, %f3, %f4}",
            "mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32 \
             {%f1, %f2, %f3, %f4}, {%r1, %r2}, {%r5}, {%f1, %f2, %f3, %f4}",
            "mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%r1, %r2}, {%r1, %r2, %r3, %r4}, {%r5, %r6}, {%r1, %r2}",
            "mma.sync.aligned.m16n8k8.row.col.f16.f16.f16.f16 {%r1, %r2}, {%r1, %r2}, {%r5}, {%r1, %r2}",
        ],
        remarks: "",
        take: mma,
    },
    Decoded {
        title: "Matrix loads",
        names: &["ldmatrix"],
        forms: &[
            "ldmatrix.sync.aligned.m8n8.x1{,.trans}{,.shared,.shared::cta}.b16 {%r1}, [%rd1]",
            "ldmatrix.sync.aligned.m8n8.x2{,.trans}{,.shared,.shared::cta}.b16 {%r1, %r2}, [%rd1]",
            "ldmatrix.sync.aligned.m8n8.x4{,.trans}{,.shared,.shared::cta}.b16 {%r1, %r2, %r3, %r4}, [%rd1]",
        ],
        remarks: "",
        take: load_matrix,
    },
];

fn mma(b: &mut Builder, i: &Instruction) -> Result<()> {
    let words: Vec<&str> = i.op.iter().map(String::as_str).collect();
    let ["mma", "sync", "aligned", shape, "row", "col", sum, left, right, addend] = words.as_slice() else {
        return b.unknown(i);
    };
    let k = shape.strip_prefix("m16n8k").and_then(|k| k.parse::<u32>().ok());
    let ty = match (*left, k) {
        ("f16", Some(8 | 16)) => MatrixType::F16,
        ("bf16", Some(8 | 16)) => MatrixType::Bf16,
        ("tf32", Some(4 | 8)) => MatrixType::Tf32,
        _ => return b.unknown(i),
    };
    let half = *sum == "f16";
    if left != right || sum != addend || !(half && ty == MatrixType::F16 || *sum == "f32") {
        return b.unknown(i);
    }
    b.need(i, 4)?;
    let k = k.unwrap_or(0);
    let tf32 = ty == MatrixType::Tf32;
    let counts =
        [if half { 2 } else { 4 }, if tf32 { k / 2 } else { k / 4 }, if tf32 { k / 4 } else { k / 8 }];
    let [outs, lefts, rights] = counts.map(|n| n as usize);
    let mut op = MmaOp { ty, k, half, d: [0; 4], a: [0; 4], b: [0; 2], c: [0; 4] };
    for (slot, o) in op.a.iter_mut().zip(vector(b, i, &i.operands[1], lefts)?) {
        *slot = index(b.src(i, o, Ty::B32)?);
    }
    for (slot, o) in op.b.iter_mut().zip(vector(b, i, &i.operands[2], rights)?) {
        *slot = index(b.src(i, o, Ty::B32)?);
    }
    let accumulator = if half { Ty::B32 } else { Ty::F32 };
    for (slot, o) in op.c.iter_mut().zip(vector(b, i, &i.operands[3], outs)?) {
        *slot = index(b.src(i, o, accumulator)?);
    }
    for (slot, o) in op.d.iter_mut().zip(vector(b, i, &i.operands[0], outs)?) {
        *slot = index(b.dst(i, o, accumulator)?);
    }
    let ext = b.code.mmas.len() as u32;
    b.code.mmas.push(op);
    b.emit(Op::Mma, i, [0; 4], ext)
}

fn load_matrix(b: &mut Builder, i: &Instruction) -> Result<()> {
    let mut count = 0;
    let mut transposed = false;
    let mut space = Space::Generic;
    for word in &i.op[1..] {
        match word.as_str() {
            "sync" | "aligned" | "m8n8" | "b16" => {}
            "x1" => count = 1,
            "x2" => count = 2,
            "x4" => count = 4,
            "trans" => transposed = true,
            "shared" | "shared::cta" => space = Space::Shared,
            _ => return b.unknown(i),
        }
    }
    if count == 0 {
        return b.unknown(i);
    }
    b.need(i, 2)?;
    let (base, offset) = b.bracketed(i, &i.operands[1])?;
    let (addr, offset) = b.address(i, base, offset)?;
    let mut regs = [NONE; 4];
    for (slot, o) in regs.iter_mut().zip(vector(b, i, &i.operands[0], count as usize)?) {
        *slot = index(b.dst(i, o, Ty::B32)?);
    }
    let ext = b.code.mems.len() as u32;
    b.code.mems.push(MemOp {
        space,
        order: Order::default(),
        size: 4,
        count,
        signed: false,
        non_coherent: false,
        width: 32,
        regs,
        addr,
        offset,
    });
    b.emit(Op::LoadMatrix, i, [u16::from(transposed), 0, 0, 0], ext)
}

/// The registers of a braced operand.
fn vector<'o>(b: &Builder, i: &Instruction, o: &'o Operand, n: usize) -> Result<&'o [Operand]> {
    match o {
        Operand::Vector(parts) if parts.len() == n => Ok(parts),
        _ if n == 1 => Ok(std::slice::from_ref(o)),
        _ => b.fail(i, format!("{n} registers in braces expected")),
    }
}
