//! Instructions that the lanes of a warp, or the warps of a block, execute together.

use ptx::{Instruction, Operand};

use super::builder::{Builder, Decoded, index};
use crate::Result;
use crate::isa::{BarKind, BarOp, NONE, Op, Redux, ShflKind, ShflOp, Slot, Ty, Vote};

pub(super) const FAMILIES: &[Decoded] = &[
    Decoded {
        title: "Shuffles",
        names: &["shfl"],
        forms: &[
            "shfl.sync.{up,down,bfly,idx}.b32 %r1, %r2, %r3, %r4, %r5",
            "shfl.sync.{up,down,bfly,idx}.b32 %r1|%p1, %r2, %r3, %r4, %r5",
        ],
        remarks: "",
        take: shuffle,
    },
    Decoded {
        title: "Votes",
        names: &["vote"],
        forms: &["vote.sync.{all,any,uni}.pred %p1, %p2, %r1", "vote.sync.ballot.b32 %r1, %p1, %r2"],
        remarks: "",
        take: vote,
    },
    Decoded {
        title: "Matches",
        names: &["match"],
        forms: &["match.any.sync.{b32,b64} %r1, d, %r2"],
        remarks: "",
        take: match_any,
    },
    Decoded {
        title: "Reductions over a warp",
        names: &["redux"],
        forms: &[
            "redux.sync.{add,min,max}.{u32,s32} %r1, %r2, %r3",
            "redux.sync.{and,or,xor}.b32 %r1, %r2, %r3",
        ],
        remarks: "",
        take: reduce,
    },
    Decoded {
        title: "Elections and active lanes",
        names: &["elect", "activemask"],
        forms: &["elect.sync %r1|%p1, %r2", "activemask.b32 %r1"],
        remarks: "",
        take: elect,
    },
    Decoded {
        title: "Block barriers",
        names: &["bar", "barrier"],
        forms: &[
            "{bar{,.cta},barrier{,.cta}{,.aligned}}.sync 0",
            "{bar{,.cta},barrier{,.cta}{,.aligned}}.{sync,arrive} 1, 64",
            "{bar{,.cta},barrier{,.cta}{,.aligned}}.red.popc.u32 %r1, 0, %p1",
            "{bar{,.cta},barrier{,.cta}{,.aligned}}.red.{and,or}.pred %p1, 1, 64, %p2",
            "bar.warp.sync %r1",
        ],
        remarks: "",
        take: barrier,
    },
    Decoded {
        title: "Fences and hints",
        names: &["membar", "fence", "prefetch", "prefetchu", "discard", "applypriority"],
        forms: &[
            "membar.{cta,gl,sys}",
            "fence{,.sc,.acq_rel}.{cta,cluster,gpu,sys}",
            "prefetch{,.global,.local}.{L1,L2} [%rd1]",
            "prefetchu.L1 [%rd1]",
            "discard.global.L2 [%rd1], 128",
            "applypriority.global.L2::evict_normal [%rd1], 128",
        ],
        remarks: "Without effect: the accesses of a warp take place in their order. Their words are not looked at.",
        take: fence,
    },
    Decoded {
        title: "Sleep",
        names: &["nanosleep"],
        forms: &["nanosleep.u32 100"],
        remarks: "Another warp runs first.",
        take: sleep,
    },
];

fn shuffle(b: &mut Builder, i: &Instruction) -> Result<()> {
    let kind = match (i.op.get(1).map(String::as_str), i.op.get(2).map(String::as_str)) {
        (Some("sync"), Some("up")) => ShflKind::Up,
        (Some("sync"), Some("down")) => ShflKind::Down,
        (Some("sync"), Some("bfly")) => ShflKind::Bfly,
        (Some("sync"), Some("idx")) => ShflKind::Idx,
        _ => return b.unknown(i),
    };
    b.need(i, 5)?;
    let (d, p) = match &i.operands[0] {
        Operand::Pair(d, p) => (d.as_ref(), Some(p.as_ref())),
        o => (o, None),
    };
    let a = b.src(i, &i.operands[1], Ty::B32)?;
    let lane = b.src(i, &i.operands[2], Ty::B32)?;
    let clamp = b.src(i, &i.operands[3], Ty::B32)?;
    let members = b.src(i, &i.operands[4], Ty::B32)?;
    let dst = b.dst(i, d, Ty::B32)?;
    let pred = match p {
        Some(p) => index(b.dst(i, p, Ty::Pred)?),
        None => NONE,
    };
    let ext = b.code.shfls.len() as u32;
    b.code.shfls.push(ShflOp {
        kind,
        dst: index(dst),
        pred,
        a: index(a),
        b: index(lane),
        c: index(clamp),
        members: index(members),
    });
    b.emit(Op::Shfl, i, [0; 4], ext)
}

fn barrier(b: &mut Builder, i: &Instruction) -> Result<()> {
    let words: Vec<&str> =
        i.op[1..].iter().map(String::as_str).filter(|w| !matches!(*w, "cta" | "aligned")).collect();
    if words.first() == Some(&"warp") {
        b.need(i, 1)?;
        let a = b.src(i, &i.operands[0], Ty::B32)?;
        return b.emit(Op::BarWarp, i, [0, index(a), 0, 0], 0);
    }
    let kind = match words.as_slice() {
        ["sync"] => BarKind::Sync,
        ["arrive"] => BarKind::Arrive,
        ["red", "popc", "u32"] => BarKind::Popc,
        ["red", "and", "pred"] => BarKind::And,
        ["red", "or", "pred"] => BarKind::Or,
        _ => return b.unknown(i),
    };
    let red = matches!(kind, BarKind::Popc | BarKind::And | BarKind::Or);
    let args = &i.operands[usize::from(red).min(i.operands.len())..];
    let plain = args.len() - usize::from(red && !args.is_empty());
    if !(1..=2).contains(&plain) {
        return b.unknown(i);
    }
    let id = b.src(i, &args[0], Ty::U32)?;
    let count = if plain == 2 { index(b.src(i, &args[1], Ty::U32)?) } else { NONE };
    let pred = if red { index(b.src(i, &args[plain], Ty::Pred)?) } else { NONE };
    let dst = if red {
        b.dst(i, &i.operands[0], if kind == BarKind::Popc { Ty::U32 } else { Ty::Pred })?
    } else {
        Slot::None
    };
    let ext = b.code.bars.len() as u32;
    b.code.bars.push(BarOp { kind, id: index(id), count, pred, dst });
    b.emit(Op::Bar, i, [0; 4], ext)
}

fn vote(b: &mut Builder, i: &Instruction) -> Result<()> {
    let kind = match i.op.get(2).map(String::as_str) {
        Some("all") => Vote::All,
        Some("any") => Vote::Any,
        Some("uni") => Vote::Uni,
        Some("ballot") => Vote::Ballot,
        _ => return b.unknown(i),
    };
    if i.op[1] != "sync" {
        return b.unknown(i);
    }
    let result = if kind == Vote::Ballot { Ty::B32 } else { Ty::Pred };
    with_members(b, i, Op::Vote(kind), result, Ty::Pred)
}

/// An instruction of a destination, a value and the mask of the lanes that take part.
fn with_members(b: &mut Builder, i: &Instruction, op: Op, result: Ty, value: Ty) -> Result<()> {
    b.need(i, 3)?;
    let d = b.dst(i, &i.operands[0], result)?;
    let a = b.src(i, &i.operands[1], value)?;
    let members = b.src(i, &i.operands[2], Ty::B32)?;
    b.emit(op, i, [index(d), index(a), index(members), 0], 0)
}

fn match_any(b: &mut Builder, i: &Instruction) -> Result<()> {
    if i.op.get(1).is_none_or(|w| w != "any") {
        return b.unknown(i);
    }
    if i.op.last().is_some_and(|w| w == "b64") {
        with_members(b, i, Op::MatchAny64, Ty::B32, Ty::B64)
    } else {
        with_members(b, i, Op::MatchAny32, Ty::B32, Ty::B32)
    }
}

fn reduce(b: &mut Builder, i: &Instruction) -> Result<()> {
    let [_, _, what, ty] = i.op.as_slice() else {
        return b.unknown(i);
    };
    if !matches!(ty.as_str(), "s32" | "u32" | "b32") {
        return b.unknown(i);
    }
    let kind = match (what.as_str(), ty == "s32") {
        ("add", _) => Redux::Add,
        ("min", true) => Redux::MinS,
        ("max", true) => Redux::MaxS,
        ("min", false) => Redux::MinU,
        ("max", false) => Redux::MaxU,
        ("and", _) => Redux::And,
        ("or", _) => Redux::Or,
        ("xor", _) => Redux::Xor,
        _ => return b.unknown(i),
    };
    with_members(b, i, Op::Redux(kind), Ty::B32, Ty::B32)
}

fn elect(b: &mut Builder, i: &Instruction) -> Result<()> {
    if i.op[0] == "activemask" {
        b.need(i, 1)?;
        let d = b.dst(i, &i.operands[0], Ty::B32)?;
        return b.emit(Op::ActiveMask, i, [index(d), 0, 0, 0], 0);
    }
    b.need(i, 2)?;
    let Operand::Pair(d, p) = &i.operands[0] else {
        return b.fail(i, "a pair of destinations expected");
    };
    let a = b.src(i, &i.operands[1], Ty::B32)?;
    let d = b.dst(i, d, Ty::B32)?;
    let p = b.dst(i, p, Ty::Pred)?;
    b.emit(Op::Elect, i, [index(d), index(a), index(p), 0], 0)
}

fn fence(b: &mut Builder, i: &Instruction) -> Result<()> {
    b.emit(Op::Nop, i, [0; 4], 0)
}

fn sleep(b: &mut Builder, i: &Instruction) -> Result<()> {
    b.emit(Op::Yield, i, [0; 4], 0)
}
