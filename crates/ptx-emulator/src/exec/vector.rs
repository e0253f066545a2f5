//! Runs a warp: 32 lanes at a time, each instruction a loop over rows of registers.
//!
//! Lanes that diverge form groups; the group with the lowest instruction runs, and groups that reach
//! one instruction merge. That reconverges structured code without any analysis of it.
// Comparisons are written as they are meant: a NaN makes each of them false.
#![allow(clippy::double_comparisons, clippy::neg_cmp_op_on_partial_ord)]
#![allow(clippy::needless_range_loop)]

use super::flow::{Flow, over_budget};
use super::issue::Issue;
use super::matrix::mma;
use super::memory;
use super::warp_ops::warp_op;
use crate::ErrorKind;
use crate::counters::tally::Tally;
use crate::fault::{Fault, Step};
use crate::isa::half::{f16_to_f32, f32_to_bf16, f32_to_f16};
use crate::isa::{Cmp, Inst, LaneOp, NONE, Op, Slot};
use crate::lanes::{Blend, Reg32, each, mask_of, on, pred, set_pred};
use crate::launch::LaunchContext;
use crate::memory::Shared;
use crate::select::{fma_down, max_f32, min_f32};
use crate::warp::{Group, Lanes, State, Warp};

/// Runs a warp until it waits at a block barrier or ends.
pub(crate) fn run_warp(
    launch: &LaunchContext,
    warp: &mut Warp,
    shared: &mut Shared,
    tally: &mut Tally,
) -> Step {
    if launch.count {
        run_warp_in::<true>(launch, warp, shared, tally)
    } else {
        run_warp_in::<false>(launch, warp, shared, tally)
    }
}

/// `COUNT`: whether to count, at the price of speed.
fn run_warp_in<const COUNT: bool>(
    launch: &LaunchContext,
    warp: &mut Warp,
    shared: &mut Shared,
    tally: &mut Tally,
) -> Step {
    // One copy of the interpreter only: it is large. Every x86-64 processor since 2015 has AVX2 and FMA,
    // and without them `mul_add` would be a call into the C library.
    #[cfg(target_arch = "x86_64")]
    {
        if !(std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")) {
            return Err(Fault::warp(ErrorKind::Host, "the emulator needs a processor with AVX2 and FMA"));
        }
        // SAFETY: the features were just detected; bmi, popcnt and lzcnt are older than AVX2.
        #[allow(unsafe_code)]
        unsafe {
            run_avx2::<COUNT>(launch, warp, shared, tally)
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    run_body::<COUNT>(launch, warp, shared, tally)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt,lzcnt")]
fn run_avx2<const COUNT: bool>(
    launch: &LaunchContext,
    warp: &mut Warp,
    shared: &mut Shared,
    tally: &mut Tally,
) -> Step {
    run_body::<COUNT>(launch, warp, shared, tally)
}

#[inline(always)]
fn run_body<const COUNT: bool>(
    launch: &LaunchContext,
    warp: &mut Warp,
    shared: &mut Shared,
    tally: &mut Tally,
) -> Step {
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
            return Err(stuck(launch, warp));
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
        let flow = run_group::<COUNT>(launch, warp, shared, tally, &mut at, mask, stop, alone).map_err(
            |mut f| {
                f.pc = at;
                f
            },
        )?;
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
                over_budget(launch, warp.executed)?;
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

/// The fault of a warp of which no lane can go on.
#[cold]
fn stuck(launch: &LaunchContext, warp: &Warp) -> Box<Fault> {
    let mut groups: Vec<&Group> = warp.groups.iter().collect();
    groups.sort_by_key(|g| g.pc);
    let parts: Vec<String> = groups
        .iter()
        .map(|g| {
            let n = g.mask.count_ones();
            let text = launch.code.text.get(g.pc as usize).map_or("", String::as_str);
            format!("{n} lanes (mask {:#010x}) wait at {} [{text}]", g.mask, launch.place(g.pc))
        })
        .collect();
    let first = groups[0];
    let barrier = matches!(launch.code.insts[first.pc as usize].op, Op::Bar);
    let missing = warp.live & !first.mask;
    let what = if barrier {
        "barrier that not all threads of the warp reach"
    } else {
        "warp-wide instruction that not all lanes it names reach"
    };
    let mut f = Fault::lane(
        ErrorKind::Barrier,
        missing.trailing_zeros().min(31),
        format!("{what}: {}", parts.join("; ")),
    );
    if missing == 0 {
        f.lane = None;
        f.what.push_str("; the lanes it names are not all active");
    }
    f.pc = first.pc;
    f
}

// The loops below compute a whole row before they store any of it: the compiler then needs no
// proof that rows are distinct, and makes four vector instructions of each.
// `set` stands in the file of the interpreter loop: with it in another one, rustc 1.95 makes scalar code of many
// of these loops, and arithmetic takes twice the time.

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

#[inline(always)]
fn ff(v: u32) -> f32 {
    f32::from_bits(v)
}

/// Runs the lanes of `mask` from the instruction `at` on, until they part, wait or end, or reach `stop`, where
/// another group waits; `alone`: there is no other. `at` is the instruction of a fault.
// In one piece, and inlined: the compiler keeps the register files in machine registers over the whole loop, and
// makes vector code of each arm. Arms in functions of their own, or `set` in another file, run twice as slow.
#[inline(always)]
// A struct of them costs the loop: they stay in registers.
#[allow(clippy::too_many_arguments)]
fn run_group<const COUNT: bool>(
    launch: &LaunchContext,
    warp: &mut Warp,
    shared: &mut Shared,
    tally: &mut Tally,
    at: &mut u32,
    mask: u32,
    stop: u32,
    alone: bool,
) -> Step<Flow> {
    let code = launch.code;
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
                Lanes {
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
        macro_rules! issue {
            () => {
                &mut Issue {
                    launch,
                    warp: view!(),
                    shared: &mut *shared,
                    tally: &mut *tally,
                    m,
                    pc: pc as u32,
                }
            };
        }
        match op {
            Op::FmaF32 => tri32!(|x, y, z| ff(x).mul_add(ff(y), ff(z)).to_bits()),
            Op::AddF32 => bin32!(|x, y| (ff(x) + ff(y)).to_bits()),
            Op::SubF32 => bin32!(|x, y| (ff(x) - ff(y)).to_bits()),
            Op::MulF32 => bin32!(|x, y| (ff(x) * ff(y)).to_bits()),
            Op::DivF32 => bin32!(|x, y| (ff(x) / ff(y)).to_bits()),
            Op::MinF32 => bin32!(|x, y| min_f32(ff(x), ff(y)).to_bits()),
            Op::MaxF32 => bin32!(|x, y| max_f32(ff(x), ff(y)).to_bits()),
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
            Op::FmaDownF32 => tri32!(|x, y, z| fma_down(ff(x), ff(y), ff(z)).to_bits()),
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
            Op::CvtF32F16 => un32!(|x| f16_to_f32(x)),
            Op::CvtF16F32 => un32!(|x| f32_to_f16(x)),
            Op::CvtBf16F32 => un32!(|x| f32_to_bf16(x)),
            Op::PackF16 => bin32!(|x, y| f32_to_f16(x) << 16 | f32_to_f16(y)),
            Op::PackBf16 => bin32!(|x, y| f32_to_bf16(x) << 16 | f32_to_bf16(y)),
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
                let x: Reg32 = r32[a];
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
                all_lanes(m)?;
                mma(&mut view!(), &code.mmas[ext as usize]);
            }
            Op::LoadMatrix => {
                *at = pc as u32;
                all_lanes(m)?;
                let op = &code.mems[ext as usize];
                memory::load_matrix::<COUNT>(issue!(), op, d == 1)?;
            }
            Op::MarkWritten => preds[d] |= m,
            Op::CheckWritten => {
                let missing = m & !preds[d];
                if missing != 0 {
                    *at = pc as u32 + 1;
                    let name = &code.names[ext as usize];
                    let what = format!("reads register {name}, which nothing has written");
                    let lane = missing.trailing_zeros();
                    return Err(Fault::lane(ErrorKind::Uninitialized, lane, what).about(name, ""));
                }
            }
            Op::Load if m != 0 => {
                *at = pc as u32;
                memory::access::<COUNT, false>(issue!(), &code.mems[ext as usize])?;
            }
            Op::Store if m != 0 => {
                *at = pc as u32;
                memory::access::<COUNT, true>(issue!(), &code.mems[ext as usize])?;
            }
            Op::Load | Op::Store | Op::Nop => {}
            Op::Bra => {
                *executed += (pc + 1 - from) as u64;
                if *executed > launch.max_instructions {
                    *at = pc as u32;
                    over_budget(launch, *executed)?;
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
                    lane_op(&mut view!(), &code.lanes[ext as usize], m);
                }
            }
            _ => {
                *at = pc as u32;
                if m != 0
                    && let Some(flow) = warp_op::<COUNT>(issue!(), inst, mask)?
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

/// Fails where a matrix instruction does not have all lanes.
#[inline(always)]
fn all_lanes(m: u32) -> Step {
    if m == u32::MAX {
        return Ok(());
    }
    let what = format!("a matrix instruction needs all lanes, but the mask is {m:#010x}");
    Err(Fault::warp(ErrorKind::Barrier, what))
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
