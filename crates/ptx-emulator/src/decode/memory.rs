//! Loads, stores and atomics.

use ptx::{Instruction, Operand};

use super::builder::{Builder, Decoded, index};
use super::params::{data_width, is_constant, param_access};
use crate::Result;
use crate::isa::{AtomKind, AtomOp, LOCAL_WINDOW, MemOp, NONE, Op, SHARED_WINDOW, Slot, Space, Ty};

pub(super) const FAMILIES: &[Decoded] = &[
    Decoded {
        title: "Loads and stores",
        names: &["ld", "ldu", "st"],
        forms: &[
            "ld{,.weak,.volatile}{,.global,.shared,.shared::cta,.local,.const}{,.v2}.\
             {b8,b16,b32,b64,u8,u16,u32,u64,s8,s16,s32,s64,f32,f64} d, [%rd1]",
            "ld{,.global,.shared,.shared::cta,.local,.const}.v4.{b8,b16,b32,u8,u16,u32,s8,s16,s32,f32} d, [%rd1]",
            "ld.{relaxed,acquire}.{cta,cluster,gpu,sys}{,.global,.shared}.{b32,b64,u32,u64,s32,s64,f32,f64} d, [%rd1]",
            "ld{,.global}{,.nc}{,.L1::evict_last,.L1::evict_normal,.L1::evict_first,.L1::evict_unchanged,\
             .L1::no_allocate}{,.L2::64B,.L2::128B,.L2::256B}{,.v2,.v4}.{b32,u32,s32,f32} d, [%rd1]",
            "ld.global.{ca,cg,cs,lu,cv}{,.v2,.v4}.{b32,u32,s32,f32} d, [%rd1]",
            "ldu{,.global}{,.v2,.v4}.{b32,u32,s32,f32} d, [%rd1]",
            "st{,.weak,.volatile}{,.global,.shared,.shared::cta,.local}{,.v2}.\
             {b8,b16,b32,b64,u8,u16,u32,u64,s8,s16,s32,s64,f32,f64} [%rd1], d",
            "st{,.global,.shared,.shared::cta,.local}.v4.{b8,b16,b32,u8,u16,u32,s8,s16,s32,f32} [%rd1], d",
            "st.{relaxed,release}.{cta,cluster,gpu,sys}{,.global,.shared}.{b32,b64,u32,u64,s32,s64,f32,f64} [%rd1], d",
            "st.global.{wb,cg,cs,wt}{,.v2,.v4}.{b32,u32,s32,f32} [%rd1], d",
            "ld{.param,.param::entry}{,.v2}.{b8,b16,b32,b64,u8,u16,u32,u64,s8,s16,s32,s64,f32,f64} d, [k_param_0]",
            "ld{.param,.param::func}.{b32,b64,u32,u64,s32,s64,f32,f64} d, [object]",
            "st{.param,.param::func}.{b32,b64,u32,u64,s32,s64,f32,f64} [object], d",
        ],
        remarks: "At most 16 bytes. Cache hints are read and have no effect. A parameter object of a call is read in the \
                  width it was written in.",
        take: load_or_store,
    },
    Decoded {
        title: "Atomics",
        names: &["atom", "red"],
        forms: &[
            "atom{,.relaxed,.acquire,.release,.acq_rel}{,.cta,.gpu,.sys}{,.global,.shared,.shared::cta}\
             .{add.u32,add.s32,add.u64,add.f32,add.f64,exch.b32,exch.b64,inc.u32,dec.u32} d, [%rd1], d",
            "atom{,.global,.shared}.{min,max}.{u32,u64,s32,s64} d, [%rd1], d",
            "atom{,.global,.shared}.{and,or,xor}.{b32,b64} d, [%rd1], d",
            "atom{,.relaxed,.acquire,.release,.acq_rel}{,.cta,.gpu,.sys}{,.global,.shared,.shared::cta}\
             .cas.{b32,b64} d, [%rd1], d, d",
            "red{,.relaxed,.release}{,.cta,.gpu,.sys}{,.global,.shared,.shared::cta}\
             .{add.u32,add.s32,add.u64,add.f32,add.f64,inc.u32,dec.u32} [%rd1], d",
            "red{,.global,.shared}.{min,max}.{u32,u64,s32,s64} [%rd1], d",
            "red{,.global,.shared}.{and,or,xor}.{b32,b64} [%rd1], d",
        ],
        remarks: "",
        take: atomic,
    },
    Decoded {
        title: "Address conversions",
        names: &["cvta"],
        forms: &["cvta{,.to}.{global,shared,shared::cta,local,const,param}.u64 %rd1, %rd2"],
        remarks: "",
        take: convert_address,
    },
];

fn load_or_store(b: &mut Builder, i: &Instruction) -> Result<()> {
    let load = i.op[0] != "st";
    let mut space = Space::Generic;
    let mut param = false;
    let mut count = 1u32;
    let mut ty = None;
    for word in &i.op[1..] {
        match word.as_str() {
            "global" | "const" => space = Space::Global,
            "shared" | "shared::cta" => space = Space::Shared,
            "local" => space = Space::Local,
            "param" | "param::entry" | "param::func" => param = true,
            "v2" => count = 2,
            "v4" => count = 4,
            "nc"
            | "ca"
            | "cg"
            | "cs"
            | "lu"
            | "cv"
            | "wb"
            | "wt"
            | "volatile"
            | "relaxed"
            | "acquire"
            | "release"
            | "weak"
            | "cta"
            | "gpu"
            | "sys"
            | "cluster"
            | "L1::evict_last"
            | "L1::evict_normal"
            | "L1::evict_first"
            | "L1::evict_unchanged"
            | "L1::no_allocate"
            | "L2::64B"
            | "L2::128B"
            | "L2::256B" => {}
            other => match Ty::parse(other) {
                Some(t) if t != Ty::Pred => ty = Some(t),
                _ => return b.unknown(i),
            },
        }
    }
    let Some(ty) = ty else {
        return b.unknown(i);
    };
    b.need(i, 2)?;
    let (data, address) =
        if load { (&i.operands[0], &i.operands[1]) } else { (&i.operands[1], &i.operands[0]) };
    let (base, offset) = b.bracketed(i, address)?;
    let data: Vec<&Operand> = match data {
        Operand::Vector(parts) => parts.iter().collect(),
        o => vec![o],
    };
    if data.len() != count as usize {
        return b.fail(i, format!("{count} registers expected"));
    }
    if param {
        return param_access(b, i, load, ty, &data, base, offset);
    }
    if ty.bytes() * count > 16 {
        return b.unknown(i);
    }
    let width = data_width(b, data.iter().find(|d| !matches!(d, Operand::Sink)).unwrap_or(&data[0]), ty);
    let file = match width {
        64 => Ty::B64,
        16 => Ty::B16,
        _ => Ty::B32,
    };
    let mut regs = [NONE; 4];
    if !load {
        for (k, o) in data.iter().enumerate() {
            regs[k] = index(b.src(i, o, if is_constant(o) { ty } else { file })?);
        }
    }
    let (addr, offset) = b.address(i, base, offset)?;
    if load {
        for (k, o) in data.iter().enumerate() {
            regs[k] = index(b.dst(i, o, file)?);
        }
    }
    if matches!(space, Space::Shared | Space::Generic) {
        b.granule = b.granule.min(ty.bytes());
    }
    if matches!(space, Space::Global | Space::Generic) {
        b.global_granule = b.global_granule.min(ty.bytes());
    }
    let non_coherent = i.op.iter().any(|word| word == "nc");
    b.code.non_coherent |= non_coherent;
    let order = b.order(i, false);
    let ext = b.code.mems.len() as u32;
    b.code.mems.push(MemOp {
        space,
        order,
        size: ty.bytes(),
        count,
        signed: ty.signed(),
        non_coherent,
        width,
        regs,
        addr,
        offset,
    });
    b.emit(if load { Op::Load } else { Op::Store }, i, [0; 4], ext)
}

fn atomic(b: &mut Builder, i: &Instruction) -> Result<()> {
    let returns = i.op[0] == "atom";
    let mut space = Space::Generic;
    let mut what = None;
    let mut ty = None;
    for word in &i.op[1..] {
        match word.as_str() {
            "global" => space = Space::Global,
            "shared" | "shared::cta" => space = Space::Shared,
            "relaxed" | "acquire" | "release" | "acq_rel" | "cta" | "gpu" | "sys" | "noftz" => {}
            "add" | "min" | "max" | "and" | "or" | "xor" | "exch" | "cas" | "inc" | "dec" => {
                what = Some(word.as_str())
            }
            other => match Ty::parse(other) {
                Some(t) if t.bytes() >= 4 => ty = Some(t),
                _ => return b.unknown(i),
            },
        }
    }
    let (Some(what), Some(ty)) = (what, ty) else {
        return b.unknown(i);
    };
    let kind = match (what, ty) {
        ("add", Ty::F32 | Ty::F64) => AtomKind::AddF,
        ("add", Ty::U32 | Ty::S32 | Ty::U64) => AtomKind::Add,
        ("min", Ty::S32 | Ty::S64) => AtomKind::MinS,
        ("max", Ty::S32 | Ty::S64) => AtomKind::MaxS,
        ("min", Ty::U32 | Ty::U64) => AtomKind::MinU,
        ("max", Ty::U32 | Ty::U64) => AtomKind::MaxU,
        ("and", Ty::B32 | Ty::B64) => AtomKind::And,
        ("or", Ty::B32 | Ty::B64) => AtomKind::Or,
        ("xor", Ty::B32 | Ty::B64) => AtomKind::Xor,
        ("exch", Ty::B32 | Ty::B64) => AtomKind::Exch,
        ("cas", Ty::B32 | Ty::B64) => AtomKind::Cas,
        ("inc", Ty::U32) => AtomKind::Inc,
        ("dec", Ty::U32) => AtomKind::Dec,
        _ => return b.unknown(i),
    };
    let args = 2 + usize::from(kind == AtomKind::Cas);
    b.need(i, args + usize::from(returns))?;
    let rest = &i.operands[usize::from(returns)..];
    let (base, offset) = b.bracketed(i, &rest[0])?;
    let value = b.src(i, &rest[1], ty)?;
    let c = match rest.get(2) {
        Some(o) => b.src(i, o, ty)?,
        None => Slot::None,
    };
    let (addr, offset) = b.address(i, base, offset)?;
    let dst = if returns { b.dst(i, &i.operands[0], ty)? } else { Slot::None };
    if space != Space::Global {
        b.granule = b.granule.min(ty.bytes());
    }
    let order = b.order(i, true);
    let ext = b.code.atoms.len() as u32;
    b.code.atoms.push(AtomOp {
        kind,
        mem: MemOp {
            space,
            order,
            size: ty.bytes(),
            count: 1,
            signed: false,
            non_coherent: false,
            width: ty.bytes() * 8,
            regs: [NONE; 4],
            addr,
            offset,
        },
        dst,
        b: value,
        c,
    });
    b.emit(Op::Atom, i, [0; 4], ext)
}

fn convert_address(b: &mut Builder, i: &Instruction) -> Result<()> {
    b.need(i, 2)?;
    let to = i.op.iter().any(|w| w == "to");
    let window = i.op.iter().find_map(|w| match w.as_str() {
        "global" | "const" | "param" => Some(0),
        "shared" | "shared::cta" => Some(SHARED_WINDOW),
        "local" => Some(LOCAL_WINDOW),
        _ => None,
    });
    let (Some(window), Some("u64")) = (window, i.op.last().map(String::as_str)) else {
        return b.unknown(i);
    };
    let a = b.src(i, &i.operands[1], Ty::U64)?;
    let d = b.dst(i, &i.operands[0], Ty::U64)?;
    if window == 0 {
        return b.emit(Op::Mov64, i, [index(d), index(a), 0, 0], 0);
    }
    let start = b.imm(window, 8);
    b.emit(if to { Op::Sub64 } else { Op::Add64 }, i, [index(d), index(a), index(start), 0], 0)
}
