//! Asynchronous copies and the barriers that count them.

use ptx::{Instruction, Operand};

use super::builder::{Builder, Decoded, index};
use super::registers::Bank;
use crate::Result;
use crate::isa::{CopyOp, MBarKind, MBarOp, Op, Slot, Ty};

pub(super) const FAMILIES: &[Decoded] = &[
    Decoded {
        title: "Asynchronous copies",
        names: &["cp"],
        forms: &[
            "cp.async.ca.{shared,shared::cta}.global{,.L2::64B,.L2::128B,.L2::256B} [%rd1], [%rd2], 4",
            "cp.async.ca.{shared,shared::cta}.global [%rd1], [%rd2], 8, %r1",
            "cp.async.{ca,cg}.{shared,shared::cta}.global{,.L2::64B,.L2::128B,.L2::256B} [%rd1], [%rd2], 16",
            "cp.async.{ca,cg}.{shared,shared::cta}.global [%rd1], [%rd2], 16, %p1",
            "cp.async.{commit_group,wait_all}",
            "cp.async.wait_group 1",
            "cp.async.mbarrier.arrive{,.noinc}{,.shared,.shared::cta}.b64 [%rd1]",
        ],
        remarks: "The fourth operand is the bytes to read or the predicate that says to read none.",
        take: copy,
    },
    Decoded {
        title: "Barriers in shared memory",
        names: &["mbarrier"],
        forms: &[
            "mbarrier.init{,.shared,.shared::cta}.b64 [%rd1], %r1",
            "mbarrier.inval{,.shared,.shared::cta}.b64 [%rd1]",
            "mbarrier.arrive{,.release.cta}{,.shared,.shared::cta}.b64 %rd2, [%rd1]",
            "mbarrier.arrive{,.release.cta}{,.shared,.shared::cta}.b64 %rd2, [%rd1], %r1",
            "mbarrier.{test_wait,try_wait}{,.acquire.cta}{,.shared,.shared::cta}.b64 %p1, [%rd1], %rd2",
            "mbarrier.{test_wait,try_wait}.parity{,.acquire.cta}{,.shared,.shared::cta}.b64 %p1, [%rd1], %r1",
        ],
        remarks: "",
        take: mbarrier,
    },
];

fn copy(b: &mut Builder, i: &Instruction) -> Result<()> {
    let words: Vec<&str> = i.op[1..].iter().map(String::as_str).collect();
    match words.as_slice() {
        ["async", "commit_group"] => return b.emit(Op::CopyCommit, i, [0; 4], 0),
        ["async", "wait_all"] => return b.emit(Op::CopyWaitAll, i, [0; 4], 0),
        ["async", "wait_group"] => {
            b.need(i, 1)?;
            let n = b.src(i, &i.operands[0], Ty::U32)?;
            return b.emit(Op::CopyWait, i, [0, index(n), 0, 0], 0);
        }
        ["async", "mbarrier", "arrive", rest @ ..] => {
            let kind = if rest.contains(&"noinc") { MBarKind::CopyArriveNoInc } else { MBarKind::CopyArrive };
            b.need(i, 1)?;
            return push_mbarrier(b, i, kind, &i.operands[0], Slot::None, Slot::None);
        }
        ["async", "ca" | "cg", to, "global", rest @ ..]
            if matches!(*to, "shared" | "shared::cta")
                && rest.iter().all(|w| matches!(*w, "L2::64B" | "L2::128B" | "L2::256B")) => {}
        _ => return b.unknown(i),
    }
    if !(3..=4).contains(&i.operands.len()) {
        return b.fail(i, "3 or 4 operands expected");
    }
    let (Operand::Address(to, to_offset), Operand::Address(from, from_offset)) =
        (&i.operands[0], &i.operands[1])
    else {
        return b.fail(i, "two addresses expected");
    };
    let bytes = match i.operands[2] {
        Operand::Int(n @ (4 | 8)) if words[1] == "ca" => n as u32,
        Operand::Int(16) => 16,
        _ => return b.fail(i, "a copy is of 4, 8 or 16 bytes, with .cg of 16"),
    };
    let (to, to_offset) = b.address(i, to, *to_offset)?;
    let (from, from_offset) = b.address(i, from, *from_offset)?;
    let length = match i.operands.get(3) {
        None => Slot::None,
        Some(Operand::Not(_)) => b.src(i, &i.operands[3], Ty::Pred)?,
        Some(Operand::Name(n)) if b.reg(n).is_some_and(|r| b.regs[r].bank == Bank::P) => {
            b.src(i, &i.operands[3], Ty::Pred)?
        }
        Some(o) => b.src(i, o, Ty::U32)?,
    };
    let ext = b.code.copies.len() as u32;
    b.code.copies.push(CopyOp { to, to_offset, from, from_offset, bytes, length });
    b.emit(Op::Copy, i, [0; 4], ext)
}

fn push_mbarrier(
    b: &mut Builder,
    i: &Instruction,
    kind: MBarKind,
    address: &Operand,
    value: Slot,
    dst: Slot,
) -> Result<()> {
    let (base, offset) = b.bracketed(i, address)?;
    let (addr, offset) = b.address(i, base, offset)?;
    let ext = b.code.mbars.len() as u32;
    b.code.mbars.push(MBarOp { kind, addr, offset, value, dst });
    b.emit(Op::MBar, i, [0; 4], ext)
}

fn mbarrier(b: &mut Builder, i: &Instruction) -> Result<()> {
    let words: Vec<&str> = i.op[1..]
        .iter()
        .map(String::as_str)
        .filter(|w| {
            !matches!(*w, "shared" | "shared::cta" | "b64" | "release" | "acquire" | "relaxed" | "cta")
        })
        .collect();
    let o = &i.operands;
    match words.as_slice() {
        ["init"] => {
            b.need(i, 2)?;
            let count = b.src(i, &o[1], Ty::U32)?;
            push_mbarrier(b, i, MBarKind::Init, &o[0], count, Slot::None)
        }
        ["inval"] => {
            b.need(i, 1)?;
            push_mbarrier(b, i, MBarKind::Inval, &o[0], Slot::None, Slot::None)
        }
        ["arrive"] if (2..=3).contains(&o.len()) => {
            let count = match o.get(2) {
                Some(n) => b.src(i, n, Ty::U32)?,
                None => Slot::None,
            };
            let dst = b.dst(i, &o[0], Ty::B64)?;
            push_mbarrier(b, i, MBarKind::Arrive, &o[1], count, dst)
        }
        ["test_wait" | "try_wait"] if o.len() >= 3 => {
            let state = b.src(i, &o[2], Ty::B64)?;
            let dst = b.dst(i, &o[0], Ty::Pred)?;
            push_mbarrier(b, i, MBarKind::Test, &o[1], state, dst)
        }
        ["test_wait" | "try_wait", "parity"] if o.len() >= 3 => {
            let parity = b.src(i, &o[2], Ty::U32)?;
            let dst = b.dst(i, &o[0], Ty::Pred)?;
            push_mbarrier(b, i, MBarKind::TestParity, &o[1], parity, dst)
        }
        _ => b.unknown(i),
    }
}
