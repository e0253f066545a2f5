//! Instructions that involve other lanes or other warps.

use super::flow::Flow;
use super::memory;
use crate::counters::tally::Tally;
use crate::fault::{Fault, Step};
use crate::isa::{BarKind, Inst, NONE, Op, Redux, ShflKind, ShflOp, Vote};
use crate::lanes::{Row, WideRow, each, pred, set_pred};
use crate::launch::Job;
use crate::memory::Shared;
use crate::warp::Lanes;

/// Whether all the lanes that a warp-wide instruction names take part.
#[inline(always)]
fn complete(members: &Row, m: u32, live: u32) -> bool {
    if m == u32::MAX {
        return true;
    }
    each(m).all(|l| members[l as usize] & live & !m == 0)
}

/// Instructions that involve other lanes or other warps.
#[inline(never)]
#[allow(clippy::too_many_lines)]
pub(crate) fn rare<const COUNT: bool>(
    job: &Job,
    warp: &mut Lanes,
    shared: &mut Shared,
    tally: &mut Tally,
    inst: &Inst,
    m: u32,
    mask: u32,
    pc: u32,
) -> Step<Option<Flow>> {
    let code = job.code;
    let Inst { op, d, a, b, ext, .. } = *inst;
    let (du, au, bu) = (d as usize, a as usize, b as usize);
    match op {
        Op::Shfl => {
            let s = &code.shfls[ext as usize];
            if !complete(&warp.r32[s.members as usize], m, warp.live) {
                return Ok(Some(Flow::Blocked(pc)));
            }
            shuffle(warp, s, m)?;
        }
        Op::Vote(kind) => {
            if !complete(&warp.r32[bu], m, warp.live) {
                return Ok(Some(Flow::Blocked(pc)));
            }
            let p = pred(warp.preds, a);
            let members: Row = warp.r32[bu];
            for l in each(m) {
                let among = members[l as usize] & m;
                let yes = p & among;
                let v = match kind {
                    Vote::All => yes == among,
                    Vote::Any => yes != 0,
                    Vote::Uni => yes == 0 || yes == among,
                    Vote::Ballot => {
                        warp.r32[du][l as usize] = yes;
                        continue;
                    }
                };
                set_pred(warp.preds, d, 1 << l, u32::from(v) << l);
            }
        }
        Op::ActiveMask => {
            for l in each(m) {
                warp.r32[du][l as usize] = m;
            }
        }
        Op::MatchAny32 | Op::MatchAny64 => {
            if !complete(&warp.r32[bu], m, warp.live) {
                return Ok(Some(Flow::Blocked(pc)));
            }
            let members: Row = warp.r32[bu];
            let values: WideRow =
                if op == Op::MatchAny64 { warp.r64[au] } else { warp.r32[au].map(u64::from) };
            for l in each(m) {
                let same = each(members[l as usize] & m)
                    .filter(|o| values[*o as usize] == values[l as usize])
                    .fold(0, |s, o| s | 1 << o);
                warp.r32[du][l as usize] = same;
            }
        }
        Op::Redux(kind) => {
            if !complete(&warp.r32[bu], m, warp.live) {
                return Ok(Some(Flow::Blocked(pc)));
            }
            let (members, values): (Row, Row) = (warp.r32[bu], warp.r32[au]);
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
                warp.r32[du][l as usize] = v.unwrap_or(0);
            }
        }
        Op::BarWarp => {
            if !complete(&warp.r32[au], m, warp.live) {
                return Ok(Some(Flow::Blocked(pc)));
            }
            shared.meet_lanes(warp.index);
        }
        Op::Bar => {
            let bar = &code.bars[ext as usize];
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
                return Err(Fault::warp(format!(
                    "barrier {id} for {count} threads: the number must be at most 15, the count a multiple of 32, \
                     both the same in all lanes"
                )));
            }
            if bar.kind == BarKind::Arrive {
                shared.arrive(warp.index, id, m.count_ones());
                return Ok(None);
            }
            let vote = if bar.pred == NONE { 0 } else { pred(warp.preds, bar.pred) & m };
            return Ok(Some(Flow::Barrier { pc, id, count, vote }));
        }
        Op::Elect => {
            if !complete(&warp.r32[au], m, warp.live) {
                return Ok(Some(Flow::Blocked(pc)));
            }
            let members: Row = warp.r32[au];
            for l in each(m) {
                let first = (members[l as usize] & m).trailing_zeros();
                warp.r32[du][l as usize] = first;
                set_pred(warp.preds, b, 1 << l, u32::from(l == first) << l);
            }
        }
        Op::Copy => {
            let copy = &code.copies[ext as usize];
            if COUNT {
                let (to, from) = memory::places(warp, copy);
                let lengths = memory::lengths(warp, copy);
                tally.shared(pc, &to, m, copy.bytes);
                for n in 1..=copy.bytes {
                    let lanes = each(m).filter(|l| lengths[*l as usize] == n).fold(0, |m, l| m | 1 << l);
                    if lanes != 0 {
                        tally.global(pc, &from, lanes, n, false);
                    }
                }
            }
            memory::copy(job, warp, shared, copy, m, pc)?;
        }
        Op::CopyCommit => warp.copies.commit(m),
        Op::CopyWait => {
            let n = warp.r32[au][m.trailing_zeros() as usize];
            warp.copies.wait(m, Some(n), warp.index, pc, shared);
        }
        Op::CopyWaitAll => warp.copies.wait(m, None, warp.index, pc, shared),
        Op::Yield => return Ok(Some(Flow::Poll(pc + 1))),
        Op::MBar => {
            if !memory::mbarrier(warp, shared, &code.mbars[ext as usize], m, pc)? {
                return Ok(Some(Flow::Poll(pc + 1)));
            }
        }
        Op::Atom => memory::atomic::<COUNT>(job, warp, shared, tally, &code.atoms[ext as usize], m, pc)?,
        Op::BraTable => {
            let table = &code.tables[ext as usize];
            let mut list: Vec<(u32, u32)> = Vec::new();
            for l in each(m) {
                let i = warp.r32[au][l as usize];
                let Some(&to) = table.get(i as usize) else {
                    return Err(Fault::lane(l, format!("branch to entry {i} of a table of {}", table.len())));
                };
                match list.iter_mut().find(|(pc, _)| *pc == to) {
                    Some((_, m)) => *m |= 1 << l,
                    None => list.push((to, 1 << l)),
                }
            }
            list.push((pc + 1, mask & !m));
            return Ok(Some(Flow::Scatter(list)));
        }
        Op::Trap => return Err(Fault::lane(m.trailing_zeros(), "trap or failed assertion")),
        _ => unreachable!("every other instruction is run by the vector loops"),
    }
    Ok(None)
}

fn shuffle(warp: &mut Lanes, s: &ShflOp, m: u32) -> Step {
    let value: Row = warp.r32[s.a as usize];
    let (b, c): (Row, Row) = (warp.r32[s.b as usize], warp.r32[s.c as usize]);
    let members: Row = warp.r32[s.members as usize];
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
