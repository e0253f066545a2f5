//! Runs a warp: 32 lanes at a time, each instruction a loop over rows of registers.
//!
//! Lanes that diverge form groups; the group with the lowest instruction runs, and groups that meet
//! at one instruction merge. That reconverges structured code without any analysis of it.
// Comparisons are written as they are meant: a NaN makes each of them false.
#![allow(clippy::double_comparisons, clippy::neg_cmp_op_on_partial_ord)]
#![allow(clippy::needless_range_loop)]

use super::alu;
use super::block::{Group, Lanes, Row, State, Warp, WideRow, each};
use super::code::*;
use super::count::Tally;
use super::job::{Fault, Job};
use super::shared::Shared;
use super::small;

type Step<T = ()> = Result<T, Box<Fault>>;

/// Runs a warp until it waits at a block barrier or ends.
pub(super) fn run_warp(job: &Job, warp: &mut Warp, shared: &mut Shared, tally: &mut Tally) -> Step {
    if job.count {
        run_warp_in::<true>(job, warp, shared, tally)
    } else {
        run_warp_in::<false>(job, warp, shared, tally)
    }
}

/// `COUNT`: whether to count, at the price of speed.
fn run_warp_in<const COUNT: bool>(
    job: &Job,
    warp: &mut Warp,
    shared: &mut Shared,
    tally: &mut Tally,
) -> Step {
    // One copy of the interpreter only: it is large. Every x86-64 processor since 2015 has AVX2 and FMA,
    // and without them `mul_add` would be a call into the C library.
    #[cfg(target_arch = "x86_64")]
    {
        if !(std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")) {
            return Err(Fault::warp("the emulator needs a processor with AVX2 and FMA"));
        }
        // SAFETY: the features were just detected; bmi, popcnt and lzcnt are older than AVX2.
        #[allow(unsafe_code)]
        unsafe {
            run_avx2::<COUNT>(job, warp, shared, tally)
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    run_body::<COUNT>(job, warp, shared, tally)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt,lzcnt")]
fn run_avx2<const COUNT: bool>(job: &Job, warp: &mut Warp, shared: &mut Shared, tally: &mut Tally) -> Step {
    run_body::<COUNT>(job, warp, shared, tally)
}

/// The bit of each lane.
const BIT: Row = {
    let mut bits = [0; 32];
    let mut l = 0;
    while l < 32 {
        bits[l] = 1 << l;
        l += 1;
    }
    bits
};

/// Whether a lane is in a mask, as all ones or zero: a form that vector loops are made of.
pub(super) trait Blend: Copy {
    const ONES: Self;
    const ZERO: Self;
    fn blend(self, other: Self, on: Self) -> Self;
}

impl Blend for u32 {
    const ONES: Self = u32::MAX;
    const ZERO: Self = 0;
    #[inline(always)]
    fn blend(self, other: Self, on: Self) -> Self {
        (self & on) | (other & !on)
    }
}

impl Blend for u64 {
    const ONES: Self = u64::MAX;
    const ZERO: Self = 0;
    #[inline(always)]
    fn blend(self, other: Self, on: Self) -> Self {
        (self & on) | (other & !on)
    }
}

#[inline(always)]
pub(super) fn on<T: Blend>(m: u32, l: usize) -> T {
    if m & BIT[l] != 0 { T::ONES } else { T::ZERO }
}

// The loops below compute a whole row before they store any of it: the compiler then needs no
// proof that rows are distinct, and makes four vector instructions of each.

/// `d = f(a)` in the lanes of `m`. The row is computed in all lanes and then blended, so that `f` is
/// compiled once: with a second, masked copy the interpreter takes twice as long to build.
#[inline(always)]
fn set<T: Blend>(file: &mut [[T; 32]], d: usize, m: u32, f: impl Fn(&[[T; 32]], usize) -> T) {
    let mut out = [T::ZERO; 32];
    for l in 0..32 {
        out[l] = f(file, l);
    }
    if m != u32::MAX {
        keep_others(&mut out, &file[d], m);
    }
    file[d] = out;
}

/// Puts back the lanes that are not in `m`.
#[inline(never)]
fn keep_others<T: Blend>(out: &mut [T; 32], old: &[T; 32], m: u32) {
    for l in 0..32 {
        out[l] = out[l].blend(old[l], on(m, l));
    }
}

/// The lanes in which a condition holds.
#[inline(always)]
pub(super) fn mask_of(f: impl Fn(usize) -> bool) -> u32 {
    let mut holds = [0i8; 32];
    for l in 0..32 {
        holds[l] = -i8::from(f(l));
    }
    let mut mask = 0;
    for l in 0..32 {
        mask |= u32::from(holds[l] < 0) << l;
    }
    mask
}

#[inline(always)]
pub(super) fn pred(preds: &[u32], slot: u16) -> u32 {
    let p = preds[(slot & !NOT) as usize];
    if slot & NOT != 0 { !p } else { p }
}

#[inline(always)]
fn set_pred(preds: &mut [u32], slot: u16, m: u32, v: u32) {
    let p = &mut preds[slot as usize];
    *p = *p & !m | v & m;
}

#[inline(always)]
fn ff(v: u32) -> f32 {
    f32::from_bits(v)
}

/// What ends a run of instructions of one group.
enum Flow {
    /// The group is now at this instruction.
    At(u32),
    /// The group splits: taken lanes and their instruction; the others go to the second one.
    Split(u32, u32, u32),
    /// Lanes to several places.
    Scatter(Vec<(u32, u32)>),
    /// These lanes ended; the others are at the instruction.
    Exit(u32, u32),
    /// The group waits at the instruction for other lanes of the warp.
    Blocked(u32),
    /// The whole warp waits at a block barrier, which is this instruction.
    Barrier { pc: u32, id: u32, count: u32, vote: u32 },
    /// The warp polled in vain with the instruction before this one.
    Poll(u32),
}

#[inline(always)]
fn run_body<const COUNT: bool>(job: &Job, warp: &mut Warp, shared: &mut Shared, tally: &mut Tally) -> Step {
    loop {
        // The group with the lowest instruction, merged with all others there.
        let mut best: Option<u32> = None;
        for g in &warp.groups {
            if !g.blocked && best.is_none_or(|b| g.pc < b) {
                best = Some(g.pc);
            }
        }
        let Some(pc) = best else {
            if warp.groups.is_empty() {
                warp.state = State::Done;
                return Ok(());
            }
            return Err(stuck(job, warp));
        };
        let mut mask = 0;
        let mut stop = u32::MAX;
        warp.groups.retain(|g| {
            if g.pc == pc {
                mask |= g.mask;
            } else if g.pc > pc {
                stop = stop.min(g.pc);
            }
            g.pc != pc
        });
        let alone = warp.groups.is_empty();
        let mut at = pc;
        let flow =
            run_group::<COUNT>(job, warp, shared, tally, &mut at, mask, stop, alone).map_err(|mut f| {
                f.pc = at;
                f
            })?;
        let mut put = |pc: u32, mask: u32, blocked: bool| {
            if mask != 0 {
                warp.groups.push(Group { pc, mask, blocked });
            }
        };
        match flow {
            Flow::At(pc) => put(pc, mask, false),
            Flow::Split(taken, there, here) => {
                put(there, taken, false);
                put(here, mask & !taken, false);
            }
            Flow::Scatter(list) => {
                warp.executed += 1;
                over_budget(job, warp.executed)?;
                for (pc, m) in list {
                    put(pc, m, false);
                }
            }
            Flow::Exit(gone, pc) => {
                put(pc, mask & !gone, false);
                warp.live &= !gone;
                // Those that wait may have waited for these lanes.
                for g in &mut warp.groups {
                    g.blocked = false;
                }
            }
            Flow::Blocked(pc) => put(pc, mask, true),
            Flow::Poll(pc) => {
                put(pc, mask, false);
                warp.wait_pc = pc - 1;
                warp.state = State::Polling;
                return Ok(());
            }
            Flow::Barrier { pc, id, count, vote } => {
                put(pc + 1, mask, false);
                warp.vote = vote;
                warp.wait_pc = pc;
                warp.state = State::Waiting { id, count };
                return Ok(());
            }
        }
    }
}

/// Fails when a warp has executed more than it may.
fn over_budget(job: &Job, executed: u64) -> Step {
    if executed <= job.max_instructions {
        return Ok(());
    }
    Err(Fault::warp(format!(
        "more than {} instructions in one warp: a loop without end?",
        job.max_instructions
    )))
}

/// No lane of the warp can go on.
#[cold]
fn stuck(job: &Job, warp: &Warp) -> Box<Fault> {
    let mut groups: Vec<&Group> = warp.groups.iter().collect();
    groups.sort_by_key(|g| g.pc);
    let parts: Vec<String> = groups
        .iter()
        .map(|g| {
            let n = g.mask.count_ones();
            let text = job.code.text.get(g.pc as usize).map_or("", String::as_str);
            format!("{n} lanes (mask {:#010x}) wait at {} [{text}]", g.mask, job.place(g.pc))
        })
        .collect();
    let first = groups[0];
    let barrier = matches!(job.code.insts[first.pc as usize].op, Op::Bar);
    let missing = warp.live & !first.mask;
    let what = if barrier {
        "barrier that not all threads of the warp reach"
    } else {
        "warp-wide instruction that not all lanes it names reach"
    };
    let mut f = Fault::lane(missing.trailing_zeros().min(31), format!("{what}: {}", parts.join("; ")));
    if missing == 0 {
        f.lane = None;
        f.what.push_str("; the lanes it names are not all active");
    }
    f.pc = first.pc;
    f
}

/// Whether all the lanes that a warp-wide instruction names take part.
#[inline(always)]
fn complete(members: &Row, m: u32, live: u32) -> bool {
    if m == u32::MAX {
        return true;
    }
    each(m).all(|l| members[l as usize] & live & !m == 0)
}

#[inline(always)]
#[allow(clippy::too_many_lines)]
fn run_group<const COUNT: bool>(
    job: &Job,
    warp: &mut Warp,
    shared: &mut Shared,
    tally: &mut Tally,
    at: &mut u32,
    mask: u32,
    stop: u32,
    alone: bool,
) -> Step<Flow> {
    let code = job.code;
    let Warp { r32, r64, preds, local, copies, index, live, executed, block, .. } = warp;
    let (r32, r64, preds) = (r32.as_mut_slice(), r64.as_mut_slice(), preds.as_mut_slice());
    let (index, live, block) = (*index, *live, *block);
    let insts = code.insts.as_slice();
    let mut pc = *at as usize;
    let mut from = pc;
    loop {
        let inst = &insts[pc];
        let Inst { op, d, a, b, c, ext, .. } = *inst;
        let (d, a, b, c) = (d as usize, a as usize, b as usize, c as usize);
        let mut m = mask;
        if inst.guard != NONE {
            m &= pred(preds, inst.guard);
        }
        if COUNT {
            tally.issue(pc, m);
        }
        macro_rules! un32 {
            (|$x:ident| $f:expr) => {{
                assert!(a < r32.len());
                set(r32, d, m, |r, l| {
                    let $x = r[a][l];
                    $f
                })
            }};
        }
        macro_rules! bin32 {
            (|$x:ident, $y:ident| $f:expr) => {{
                assert!(a < r32.len() && b < r32.len());
                set(r32, d, m, |r, l| {
                    let ($x, $y) = (r[a][l], r[b][l]);
                    $f
                })
            }};
        }
        macro_rules! tri32 {
            (|$x:ident, $y:ident, $z:ident| $f:expr) => {{
                assert!(a < r32.len() && b < r32.len() && c < r32.len());
                set(r32, d, m, |r, l| {
                    let ($x, $y, $z) = (r[a][l], r[b][l], r[c][l]);
                    $f
                })
            }};
        }
        macro_rules! bin64 {
            (|$x:ident, $y:ident| $f:expr) => {{
                assert!(a < r64.len() && b < r64.len());
                set(r64, d, m, |r, l| {
                    let ($x, $y) = (r[a][l], r[b][l]);
                    $f
                })
            }};
        }
        macro_rules! shift64 {
            (|$x:ident, $y:ident| $f:expr) => {{
                let by = &r32[b];
                assert!(a < r64.len());
                set(r64, d, m, |r, l| {
                    let ($x, $y) = (r[a][l], by[l]);
                    $f
                })
            }};
        }
        macro_rules! wide {
            (|$x:ident, $y:ident| $f:expr) => {{
                let (xs, ys) = (&r32[a], &r32[b]);
                set(r64, d, m, |_, l| {
                    let ($x, $y) = (xs[l], ys[l]);
                    $f
                })
            }};
        }
        macro_rules! setp_f {
            (|$x:ident, $y:ident| $f:expr) => {{
                let (xs, ys) = (&r32[a], &r32[b]);
                let v = mask_of(|l| {
                    let ($x, $y) = (ff(xs[l]), ff(ys[l]));
                    $f
                });
                set_pred(preds, d as u16, m, v);
            }};
        }
        macro_rules! setp_i {
            ($file:ident, $cmp:expr, |$v:ident| $read:expr) => {{
                let (xs, ys) = (&$file[a], &$file[b]);
                macro_rules! go {
                    ($o:tt) => {
                        mask_of(|l| {
                            let p = {
                                let $v = xs[l];
                                $read
                            };
                            let q = {
                                let $v = ys[l];
                                $read
                            };
                            p $o q
                        })
                    };
                }
                let v = match $cmp {
                    Cmp::Eq => go!(==),
                    Cmp::Ne => go!(!=),
                    Cmp::Lt => go!(<),
                    Cmp::Le => go!(<=),
                    Cmp::Gt => go!(>),
                    _ => go!(>=),
                };
                set_pred(preds, d as u16, m, v);
            }};
        }
        macro_rules! view {
            () => {
                &mut Lanes {
                    r32: &mut *r32,
                    r64: &mut *r64,
                    preds: &mut *preds,
                    local: &mut *local,
                    copies: &mut *copies,
                    index,
                    live,
                    block,
                }
            };
        }
        match op {
            Op::FmaF32 => tri32!(|x, y, z| ff(x).mul_add(ff(y), ff(z)).to_bits()),
            Op::AddF32 => bin32!(|x, y| (ff(x) + ff(y)).to_bits()),
            Op::SubF32 => bin32!(|x, y| (ff(x) - ff(y)).to_bits()),
            Op::MulF32 => bin32!(|x, y| (ff(x) * ff(y)).to_bits()),
            Op::DivF32 => bin32!(|x, y| (ff(x) / ff(y)).to_bits()),
            Op::MinF32 => bin32!(|x, y| alu::min_f32(ff(x), ff(y)).to_bits()),
            Op::MaxF32 => bin32!(|x, y| alu::max_f32(ff(x), ff(y)).to_bits()),
            Op::SqrtF32 => un32!(|x| ff(x).sqrt().to_bits()),
            Op::RcpF32 => un32!(|x| (1.0 / ff(x)).to_bits()),
            Op::RcpFtzF32 => un32!(|x| {
                let flush = |v: u32| {
                    if v & 0x7f80_0000 == 0 { v & 0x8000_0000 } else { v }
                };
                flush((1.0 / ff(flush(x))).to_bits())
            }),
            Op::NegF32 => un32!(|x| x ^ 0x8000_0000),
            Op::AbsF32 => un32!(|x| x & 0x7fff_ffff),
            Op::FmaDownF32 => tri32!(|x, y, z| alu::fma_down(ff(x), ff(y), ff(z)).to_bits()),
            Op::Mov32 => un32!(|x| x),
            Op::Add32 => bin32!(|x, y| x.wrapping_add(y)),
            Op::Sub32 => bin32!(|x, y| x.wrapping_sub(y)),
            Op::Mul32 => bin32!(|x, y| x.wrapping_mul(y)),
            Op::Mad32 => tri32!(|x, y, z| x.wrapping_mul(y).wrapping_add(z)),
            Op::And32 => bin32!(|x, y| x & y),
            Op::Or32 => bin32!(|x, y| x | y),
            Op::Xor32 => bin32!(|x, y| x ^ y),
            Op::Not32 => un32!(|x| !x),
            Op::Neg32 => un32!(|x| x.wrapping_neg()),
            Op::AbsS32 => un32!(|x| (x as i32).wrapping_abs() as u32),
            Op::Shl32 => bin32!(|x, y| if y > 31 { 0 } else { x << (y & 31) }),
            Op::ShrU32 => bin32!(|x, y| if y > 31 { 0 } else { x >> (y & 31) }),
            Op::ShrS32 => bin32!(|x, y| (x as i32 >> y.min(31)) as u32),
            Op::MinS32 => bin32!(|x, y| (x as i32).min(y as i32) as u32),
            Op::MaxS32 => bin32!(|x, y| (x as i32).max(y as i32) as u32),
            Op::MinU32 => bin32!(|x, y| x.min(y)),
            Op::MaxU32 => bin32!(|x, y| x.max(y)),
            Op::DivS32 => bin32!(|x, y| (x as i32)
                .checked_div(y as i32)
                .map_or(if y == 0 { u32::MAX } else { x }, |v| v as u32)),
            Op::DivU32 => bin32!(|x, y| x.checked_div(y).unwrap_or(u32::MAX)),
            Op::RemS32 => bin32!(|x, y| if y == 0 { x } else { (x as i32).wrapping_rem(y as i32) as u32 }),
            Op::RemU32 => bin32!(|x, y| x.checked_rem(y).unwrap_or(x)),
            Op::CvtF32S32 => un32!(|x| (x as i32 as f32).to_bits()),
            Op::CvtF32U32 => un32!(|x| (x as f32).to_bits()),
            Op::CvtF32F16 => un32!(|x| small::f16_to_f32(x)),
            Op::CvtF16F32 => un32!(|x| small::f32_to_f16(x)),
            Op::CvtBf16F32 => un32!(|x| small::f32_to_bf16(x)),
            Op::PackF16 => bin32!(|x, y| small::f32_to_f16(x) << 16 | small::f32_to_f16(y)),
            Op::PackBf16 => bin32!(|x, y| small::f32_to_bf16(x) << 16 | small::f32_to_bf16(y)),
            Op::Sel32 => {
                let p = pred(preds, c as u16);
                assert!(a < r32.len() && b < r32.len());
                set(r32, d, m, |r, l| r[a][l].blend(r[b][l], on(p, l)));
            }
            Op::Sel64 => {
                let p = pred(preds, c as u16);
                assert!(a < r64.len() && b < r64.len());
                set(r64, d, m, |r, l| r[a][l].blend(r[b][l], on(p, l)));
            }
            Op::Mov64 => {
                assert!(a < r64.len());
                set(r64, d, m, |r, l| r[a][l]);
            }
            Op::Add64 => bin64!(|x, y| x.wrapping_add(y)),
            Op::Sub64 => bin64!(|x, y| x.wrapping_sub(y)),
            Op::Mul64 => bin64!(|x, y| x.wrapping_mul(y)),
            Op::Mad64 => {
                assert!(a < r64.len() && b < r64.len() && c < r64.len());
                set(r64, d, m, |r, l| r[a][l].wrapping_mul(r[b][l]).wrapping_add(r[c][l]));
            }
            Op::And64 => bin64!(|x, y| x & y),
            Op::Or64 => bin64!(|x, y| x | y),
            Op::Xor64 => bin64!(|x, y| x ^ y),
            Op::Not64 => {
                assert!(a < r64.len());
                set(r64, d, m, |r, l| !r[a][l]);
            }
            Op::Shl64 => shift64!(|x, y| if y > 63 { 0 } else { x << (y & 63) }),
            Op::ShrU64 => shift64!(|x, y| if y > 63 { 0 } else { x >> (y & 63) }),
            Op::ShrS64 => shift64!(|x, y| (x as i64 >> y.min(63)) as u64),
            Op::MulWideS => wide!(|x, y| (i64::from(x as i32) * i64::from(y as i32)) as u64),
            Op::MulWideU => wide!(|x, y| u64::from(x) * u64::from(y)),
            Op::MadWideS => {
                let (xs, ys) = (&r32[a], &r32[b]);
                assert!(c < r64.len());
                set(r64, d, m, |r, l| {
                    ((i64::from(xs[l] as i32) * i64::from(ys[l] as i32)) as u64).wrapping_add(r[c][l])
                });
            }
            Op::MadWideU => {
                let (xs, ys) = (&r32[a], &r32[b]);
                assert!(c < r64.len());
                set(r64, d, m, |r, l| (u64::from(xs[l]) * u64::from(ys[l])).wrapping_add(r[c][l]));
            }
            Op::CvtU64U32 => {
                let x = &r32[a];
                set(r64, d, m, |_, l| u64::from(x[l]));
            }
            Op::CvtS64S32 => {
                let x = &r32[a];
                set(r64, d, m, |_, l| x[l] as i32 as i64 as u64);
            }
            Op::CvtU32U64 => {
                let x = &r64[a];
                set(r32, d, m, |_, l| x[l] as u32);
            }
            Op::Pack64 => wide!(|x, y| u64::from(x) | (u64::from(y) << 32)),
            Op::Unpack64 => {
                let x = &r64[a];
                set(r32, d, m, |_, l| x[l] as u32);
                set(r32, b, m, |_, l| (x[l] >> 32) as u32);
            }
            Op::Pack32 => bin32!(|x, y| (x & 0xffff) | (y << 16)),
            Op::Unpack32 => {
                let x: Row = r32[a];
                set(r32, d, m, |_, l| x[l] & 0xffff);
                set(r32, b, m, |_, l| x[l] >> 16);
            }
            Op::SetpF32(cmp) => match cmp {
                Cmp::Eq => setp_f!(|x, y| x == y),
                Cmp::Ne => setp_f!(|x, y| x < y || x > y),
                Cmp::Lt => setp_f!(|x, y| x < y),
                Cmp::Le => setp_f!(|x, y| x <= y),
                Cmp::Gt => setp_f!(|x, y| x > y),
                Cmp::Ge => setp_f!(|x, y| x >= y),
                Cmp::Equ => setp_f!(|x, y| !(x < y || x > y)),
                Cmp::Neu => setp_f!(|x, y| x != y),
                Cmp::Ltu => setp_f!(|x, y| !(x >= y)),
                Cmp::Leu => setp_f!(|x, y| !(x > y)),
                Cmp::Gtu => setp_f!(|x, y| !(x <= y)),
                Cmp::Geu => setp_f!(|x, y| !(x < y)),
                Cmp::Num => setp_f!(|x, y| !x.is_nan() && !y.is_nan()),
                Cmp::Nan => setp_f!(|x, y| x.is_nan() || y.is_nan()),
            },
            Op::SetpS32(cmp) => setp_i!(r32, cmp, |v| v as i32),
            Op::SetpU32(cmp) => setp_i!(r32, cmp, |v| v),
            Op::SetpS64(cmp) => setp_i!(r64, cmp, |v| v as i64),
            Op::SetpU64(cmp) => setp_i!(r64, cmp, |v| v),
            Op::MovP => {
                let v = pred(preds, a as u16);
                set_pred(preds, d as u16, m, v);
            }
            Op::AndP => {
                let v = pred(preds, a as u16) & pred(preds, b as u16);
                set_pred(preds, d as u16, m, v);
            }
            Op::OrP => {
                let v = pred(preds, a as u16) | pred(preds, b as u16);
                set_pred(preds, d as u16, m, v);
            }
            Op::XorP => {
                let v = pred(preds, a as u16) ^ pred(preds, b as u16);
                set_pred(preds, d as u16, m, v);
            }
            Op::NotP => {
                let v = !pred(preds, a as u16);
                set_pred(preds, d as u16, m, v);
            }
            Op::Mma => {
                *at = pc as u32;
                if m != u32::MAX {
                    return Err(Fault::warp(format!(
                        "a matrix instruction needs all lanes, but the mask is {m:#010x}"
                    )));
                }
                super::matrix::mma(view!(), &code.mmas[ext as usize]);
            }
            Op::LoadMatrix => {
                *at = pc as u32;
                if m != u32::MAX {
                    return Err(Fault::warp(format!(
                        "a matrix instruction needs all lanes, but the mask is {m:#010x}"
                    )));
                }
                let op = &code.mems[ext as usize];
                super::access::load_matrix::<COUNT>(view!(), shared, tally, op, d == 1, pc as u32)?;
            }
            Op::MarkWritten => preds[d] |= m,
            Op::CheckWritten => {
                let missing = m & !preds[d];
                if missing != 0 {
                    *at = pc as u32 + 1;
                    let name = &code.names[ext as usize];
                    return Err(Fault::lane(
                        missing.trailing_zeros(),
                        format!("reads register {name}, which nothing has written"),
                    ));
                }
            }
            Op::Load if m != 0 => {
                *at = pc as u32;
                super::access::load::<COUNT>(
                    job,
                    view!(),
                    shared,
                    tally,
                    &code.mems[ext as usize],
                    m,
                    pc as u32,
                )?;
            }
            Op::Store if m != 0 => {
                *at = pc as u32;
                super::access::store::<COUNT>(
                    job,
                    view!(),
                    shared,
                    tally,
                    &code.mems[ext as usize],
                    m,
                    pc as u32,
                )?;
            }
            Op::Load | Op::Store | Op::Nop => {}
            Op::Bra => {
                *executed += (pc + 1 - from) as u64;
                if *executed > job.max_instructions {
                    *at = pc as u32;
                    over_budget(job, *executed)?;
                }
                if m == mask {
                    pc = ext as usize;
                    from = pc;
                    if alone {
                        continue;
                    }
                    return Ok(Flow::At(ext));
                }
                from = pc + 1;
                if m != 0 {
                    if COUNT {
                        tally.by_inst[pc].divergent_branches += 1;
                    }
                    return Ok(Flow::Split(m, ext, pc as u32 + 1));
                }
            }
            Op::Exit => {
                if m != 0 {
                    return Ok(Flow::Exit(m, pc as u32 + 1));
                }
            }
            Op::Lane => {
                if m != 0 {
                    lane_op(view!(), &code.lanes[ext as usize], m);
                }
            }
            _ => {
                *at = pc as u32;
                if m != 0
                    && let Some(flow) = rare::<COUNT>(job, view!(), shared, tally, inst, m, mask, pc as u32)?
                {
                    if COUNT && matches!(flow, Flow::Blocked(_)) {
                        tally.unissue(pc, m);
                    }
                    return Ok(flow);
                }
            }
        }
        pc += 1;
        if pc as u32 == stop {
            *executed += (pc - from) as u64;
            return Ok(Flow::At(stop));
        }
    }
}

/// A lane-wise instruction without a vector loop.
#[inline(never)]
fn lane_op(warp: &mut Lanes, op: &LaneOp, m: u32) {
    for l in each(m) {
        let read = |s: Slot| match s {
            Slot::None => 0,
            Slot::R32(n) => u64::from(warp.r32[n as usize][l as usize]),
            Slot::R64(n) => warp.r64[n as usize][l as usize],
            Slot::P(n) => u64::from(pred(warp.preds, n) >> l & 1),
        };
        let v = (op.lane)(op.src.map(read));
        match op.dst {
            Slot::R32(n) => warp.r32[n as usize][l as usize] = v as u32,
            Slot::R64(n) => warp.r64[n as usize][l as usize] = v,
            Slot::P(n) => set_pred(warp.preds, n, 1 << l, (v as u32 & 1) << l),
            Slot::None => {}
        }
        if let Slot::P(n) = op.dst2 {
            set_pred(warp.preds, n, 1 << l, (v as u32 >> 1 & 1) << l);
        }
    }
}

/// Instructions that involve other lanes or other warps.
#[inline(never)]
#[allow(clippy::too_many_lines)]
fn rare<const COUNT: bool>(
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
                let (to, from) = super::copies::places(warp, copy);
                let lengths = super::copies::lengths(warp, copy);
                tally.shared(pc, &to, m, copy.bytes);
                for n in 1..=copy.bytes {
                    let lanes = each(m).filter(|l| lengths[*l as usize] == n).fold(0, |m, l| m | 1 << l);
                    if lanes != 0 {
                        tally.global(pc, &from, lanes, n, false);
                    }
                }
            }
            super::copies::copy(job, warp, shared, copy, m, pc)?;
        }
        Op::CopyCommit => warp.copies.commit(m),
        Op::CopyWait => {
            let n = warp.r32[au][m.trailing_zeros() as usize];
            warp.copies.wait(m, Some(n), warp.index, pc, shared);
        }
        Op::CopyWaitAll => warp.copies.wait(m, None, warp.index, pc, shared),
        Op::Yield => return Ok(Some(Flow::Poll(pc + 1))),
        Op::MBar => {
            if !super::access::mbarrier(warp, shared, &code.mbars[ext as usize], m, pc)? {
                return Ok(Some(Flow::Poll(pc + 1)));
            }
        }
        Op::Atom => {
            super::access::atomic::<COUNT>(job, warp, shared, tally, &code.atoms[ext as usize], m, pc)?
        }
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
