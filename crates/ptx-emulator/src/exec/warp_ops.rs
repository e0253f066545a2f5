//! Instructions that involve other lanes or other warps.

use super::flow::Flow;
use super::issue::Issue;
use super::memory;
use crate::ErrorKind;
use crate::fault::{Fault, Step};
use crate::isa::{BarKind, BarOp, Code, Inst, NONE, Op, Redux, ShflKind, ShflOp, Vote};
use crate::lanes::{Reg32, Reg64, each, pred, set_pred};
use crate::warp::Lanes;

/// Runs an instruction that involves other lanes or other warps; `mask`: the lanes of the group, whether the
/// guard lets them take part or not.
#[inline(never)]
pub(crate) fn warp_op<const COUNT: bool>(i: &mut Issue, inst: &Inst, mask: u32) -> Step<Option<Flow>> {
    let code = i.launch.code;
    let (m, pc, ext) = (i.m, i.pc, inst.ext as usize);
    if let Some(members) = members(code, inst)
        && !complete(&i.warp.r32[members as usize], m, i.warp.live)
    {
        return Ok(Some(Flow::Blocked(pc)));
    }
    match inst.op {
        Op::Shfl => shuffle(&mut i.warp, &code.shfls[ext], m)?,
        Op::Vote(kind) => vote(&mut i.warp, inst, kind, m),
        Op::ActiveMask => each(m).for_each(|l| i.warp.r32[inst.d as usize][l as usize] = m),
        Op::MatchAny32 | Op::MatchAny64 => match_any(&mut i.warp, inst, m),
        Op::Redux(kind) => redux(&mut i.warp, inst, kind, m),
        Op::BarWarp => i.shared.shadow.syncwarp(i.warp.index),
        Op::Bar => return block_barrier(i, &code.bars[ext]),
        Op::Elect => elect(&mut i.warp, inst, m),
        Op::Copy => memory::copy::<COUNT>(i, &code.copies[ext])?,
        Op::CopyCommit => i.warp.copies.commit(m),
        Op::CopyWait => {
            let n = i.warp.r32[inst.a as usize][m.trailing_zeros() as usize];
            i.warp.copies.wait(m, Some(n), i.warp.index, pc, i.shared);
        }
        Op::CopyWaitAll => i.warp.copies.wait(m, None, i.warp.index, pc, i.shared),
        Op::Yield => return Ok(Some(Flow::Poll(pc + 1))),
        Op::MBar => {
            if !memory::mbarrier(i, &code.mbars[ext])? {
                return Ok(Some(Flow::Poll(pc + 1)));
            }
        }
        Op::Atom => memory::atomic::<COUNT>(i, &code.atoms[ext])?,
        Op::BraTable => return branch_by_table(i, inst.a, &code.tables[ext], mask).map(Some),
        Op::Trap => {
            return Err(Fault::lane(ErrorKind::Trap, m.trailing_zeros(), "trap or failed assertion"));
        }
        _ => unreachable!("every other instruction is run by the vector loops"),
    }
    Ok(None)
}

/// The register that names the lanes of a warp-wide instruction.
fn members(code: &Code, inst: &Inst) -> Option<u16> {
    match inst.op {
        Op::Shfl => Some(code.shfls[inst.ext as usize].members),
        Op::Vote(_) | Op::MatchAny32 | Op::MatchAny64 | Op::Redux(_) => Some(inst.b),
        Op::BarWarp | Op::Elect => Some(inst.a),
        _ => None,
    }
}

/// Whether all the lanes that a warp-wide instruction names take part.
#[inline(always)]
fn complete(members: &Reg32, m: u32, live: u32) -> bool {
    if m == u32::MAX {
        return true;
    }
    each(m).all(|l| members[l as usize] & live & !m == 0)
}

fn shuffle(warp: &mut Lanes, s: &ShflOp, m: u32) -> Step {
    let value: Reg32 = warp.r32[s.a as usize];
    let (b, c): (Reg32, Reg32) = (warp.r32[s.b as usize], warp.r32[s.c as usize]);
    let members: Reg32 = warp.r32[s.members as usize];
    let mut out = warp.r32[s.dst as usize];
    let mut valid = 0u32;
    for l in each(m) {
        let i = l as usize;
        let (by, clamp, seg) = (b[i] & 31, c[i] & 31, c[i] >> 8 & 31);
        let max = (l & seg) | (clamp & !seg);
        let min = l & seg;
        let (from, ok) = match s.kind {
            ShflKind::Up => (l.wrapping_sub(by), l as i32 - by as i32 >= max as i32),
            ShflKind::Down => (l + by, l + by <= max),
            ShflKind::Bfly => (l ^ by, l ^ by <= max),
            ShflKind::Idx => {
                let from = min | (by & !seg);
                (from, from <= max)
            }
        };
        let from = if ok { from } else { l };
        if m >> from & 1 == 0 || members[i] >> from & 1 == 0 {
            return Err(Fault::lane(
                ErrorKind::Barrier,
                l,
                format!(
                    "shuffle from lane {from}, which does not take part (active lanes {m:#010x}, named {:#010x})",
                    members[i]
                ),
            ));
        }
        out[i] = value[from as usize];
        valid |= u32::from(ok) << l;
    }
    warp.r32[s.dst as usize] = out;
    if s.pred != NONE {
        set_pred(warp.preds, s.pred, m, valid);
    }
    Ok(())
}

fn vote(warp: &mut Lanes, inst: &Inst, kind: Vote, m: u32) {
    let p = pred(warp.preds, inst.a);
    let members: Reg32 = warp.r32[inst.b as usize];
    for l in each(m) {
        let among = members[l as usize] & m;
        let yes = p & among;
        let v = match kind {
            Vote::All => yes == among,
            Vote::Any => yes != 0,
            Vote::Uni => yes == 0 || yes == among,
            Vote::Ballot => {
                warp.r32[inst.d as usize][l as usize] = yes;
                continue;
            }
        };
        set_pred(warp.preds, inst.d, 1 << l, u32::from(v) << l);
    }
}

fn match_any(warp: &mut Lanes, inst: &Inst, m: u32) {
    let a = inst.a as usize;
    let members: Reg32 = warp.r32[inst.b as usize];
    let values: Reg64 = if inst.op == Op::MatchAny64 { warp.r64[a] } else { warp.r32[a].map(u64::from) };
    for l in each(m) {
        let same = each(members[l as usize] & m)
            .filter(|o| values[*o as usize] == values[l as usize])
            .fold(0, |s, o| s | 1 << o);
        warp.r32[inst.d as usize][l as usize] = same;
    }
}

fn redux(warp: &mut Lanes, inst: &Inst, kind: Redux, m: u32) {
    let (members, values): (Reg32, Reg32) = (warp.r32[inst.b as usize], warp.r32[inst.a as usize]);
    for l in each(m) {
        let all = each(members[l as usize] & m).map(|o| values[o as usize]);
        let v = all.reduce(|x, y| match kind {
            Redux::Add => x.wrapping_add(y),
            Redux::MinS => (x as i32).min(y as i32) as u32,
            Redux::MaxS => (x as i32).max(y as i32) as u32,
            Redux::MinU => x.min(y),
            Redux::MaxU => x.max(y),
            Redux::And => x & y,
            Redux::Or => x | y,
            Redux::Xor => x ^ y,
        });
        warp.r32[inst.d as usize][l as usize] = v.unwrap_or(0);
    }
}

/// `elect.sync`: the lowest lane of those named.
fn elect(warp: &mut Lanes, inst: &Inst, m: u32) {
    let members: Reg32 = warp.r32[inst.a as usize];
    for l in each(m) {
        let first = (members[l as usize] & m).trailing_zeros();
        warp.r32[inst.d as usize][l as usize] = first;
        set_pred(warp.preds, inst.b, 1 << l, u32::from(l == first) << l);
    }
}

/// A barrier of the block, which all live lanes of the warp must reach together.
fn block_barrier(i: &mut Issue, bar: &BarOp) -> Step<Option<Flow>> {
    let (m, pc, warp) = (i.m, i.pc, &i.warp);
    if m != warp.live {
        return Ok(Some(Flow::Blocked(pc)));
    }
    let lane = m.trailing_zeros() as usize;
    let id = warp.r32[bar.id as usize][lane];
    let count = if bar.count == NONE { 0 } else { warp.r32[bar.count as usize][lane] };
    let same = each(m).all(|l| {
        warp.r32[bar.id as usize][l as usize] == id
            && (bar.count == NONE || warp.r32[bar.count as usize][l as usize] == count)
    });
    if id > 15 || count % 32 != 0 || !same {
        let what = format!(
            "barrier {id} for {count} threads: the number must be at most 15, the count a multiple of 32, \
             both the same in all lanes"
        );
        return Err(Fault::warp(ErrorKind::Invalid, what));
    }
    if bar.kind == BarKind::Arrive {
        i.shared.shadow.arrive(warp.index, id, m.count_ones());
        return Ok(None);
    }
    let vote = if bar.pred == NONE { 0 } else { pred(warp.preds, bar.pred) & m };
    Ok(Some(Flow::Barrier { pc, id, count, vote }))
}

/// `brx.idx`: each lane to the entry that its register `index` gives.
fn branch_by_table(i: &Issue, index: u16, table: &[u32], mask: u32) -> Step<Flow> {
    let mut list: Vec<(u32, u32)> = Vec::new();
    for l in each(i.m) {
        let n = i.warp.r32[index as usize][l as usize];
        let Some(&to) = table.get(n as usize) else {
            let what = format!("branch to entry {n} of a table of {}", table.len());
            return Err(Fault::lane(ErrorKind::Invalid, l, what));
        };
        match list.iter_mut().find(|(pc, _)| *pc == to) {
            Some((_, m)) => *m |= 1 << l,
            None => list.push((to, 1 << l)),
        }
    }
    list.push((i.pc + 1, mask & !i.m));
    Ok(Flow::Scatter(list))
}
