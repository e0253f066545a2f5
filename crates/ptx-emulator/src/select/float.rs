//! Arithmetic of f32 and f64.

use super::alu::{Alu, alu};
use super::bits::{bits_of_f32, bits_of_f64, f32_of_bits, f64_of_bits, flush, saturate_f32};
use super::expand::{by_float, by_round, with_modifiers};
use super::rounding::{
    add_directed, div_directed, fma_directed, max_f32, max_f64, min_f32, min_f64, mul_directed,
    sqrt_directed, step_f64, two_sum,
};
use crate::isa::{Lane, Mods, Op, Round, Ty};
use Ty::{F32, F64};

/// The instructions that come with `.ftz`: the others appear with it in code that is compiled to flush only.
const FLUSHED: [&str; 12] =
    ["ex2", "lg2", "rcp", "sqrt", "rsqrt", "sin", "cos", "div", "mul", "add", "sub", "fma"];

pub(super) fn select(name: &str, ty: Ty, m: &mut Mods) -> Option<Alu> {
    if m.integer || m.ftz && (ty != F32 || !FLUSHED.contains(&name)) {
        return None;
    }
    if m.sat && !(ty == F32 && matches!(name, "add" | "sub" | "mul" | "fma" | "mad")) {
        return None;
    }
    let mode = m.round.unwrap_or(Round::Near);
    match (name, ty) {
        ("add" | "sub" | "mul" | "fma" | "mad", F32) => {
            if mode == Round::Near {
                arithmetic(name, m)
            } else {
                directed(name, mode, m)
            }
        }
        ("add" | "sub" | "mul" | "fma" | "mad" | "div", F64) => arithmetic_f64(name, mode),
        ("div", F32) => divide(mode, m),
        ("rcp", F32) => reciprocal(mode, m),
        ("sqrt", F32) => root(mode, m),
        ("rcp", F64) if mode == Round::Near => {
            alu(None, |[a, ..]| bits_of_f64(1.0 / f64_of_bits(a)), ty, &[ty])
        }
        ("sqrt", F64) if mode == Round::Near => {
            alu(None, |[a, ..]| bits_of_f64(f64_of_bits(a).sqrt()), ty, &[ty])
        }
        ("rsqrt", F64) if m.take("approx") => {
            alu(None, |[a, ..]| bits_of_f64(1.0 / f64_of_bits(a).sqrt()), ty, &[ty])
        }
        ("ex2" | "lg2" | "rsqrt" | "sin" | "cos" | "tanh", F32) if m.take("approx") => {
            let lane = match name {
                "ex2" => with_modifiers!(m, |a| f64::from(a).exp2() as f32),
                "lg2" => with_modifiers!(m, |a| f64::from(a).log2() as f32),
                "rsqrt" => with_modifiers!(m, |a| (1.0 / f64::from(a).sqrt()) as f32),
                "sin" => with_modifiers!(m, |a| f64::from(a).sin() as f32),
                "cos" => with_modifiers!(m, |a| f64::from(a).cos() as f32),
                _ => with_modifiers!(m, |a| f64::from(a).tanh() as f32),
            };
            alu(None, lane, ty, &[ty])
        }
        ("testp", F32 | F64) => alu(None, property(ty, m.rest.pop()?)?, Ty::Pred, &[ty]),
        ("neg" | "abs" | "copysign", F32 | F64) => sign(name, ty),
        ("min" | "max", F32 | F64) => order(name, ty, m),
        _ => None,
    }
}

/// Rounded to nearest, with `.ftz` and `.sat`. An fma has one rounding, and PTX's `mad` of floats is one.
fn arithmetic(name: &str, m: &Mods) -> Option<Alu> {
    let (op, lane, operands) = match name {
        "add" => (Op::AddF32, with_modifiers!(m, |a, b| a + b), 2),
        "sub" => (Op::SubF32, with_modifiers!(m, |a, b| a - b), 2),
        "mul" => (Op::MulF32, with_modifiers!(m, |a, b| a * b), 2),
        _ => (Op::FmaF32, with_modifiers!(m, |a, b, c| a.mul_add(b, c)), 3),
    };
    alu((!m.ftz && !m.sat).then_some(op), lane, F32, &[F32; 3][..operands])
}

fn directed(name: &str, mode: Round, m: &Mods) -> Option<Alu> {
    if m.ftz || m.sat {
        return None;
    }
    let (lane, operands) = match name {
        "add" => {
            (by_round!(mode, M, |[a, b, ..]| bits_of_f32(add_directed(M, f32_of_bits(a), f32_of_bits(b)))), 2)
        }
        "sub" => (
            by_round!(mode, M, |[a, b, ..]| bits_of_f32(add_directed(M, f32_of_bits(a), -f32_of_bits(b)))),
            2,
        ),
        "mul" => {
            (by_round!(mode, M, |[a, b, ..]| bits_of_f32(mul_directed(M, f32_of_bits(a), f32_of_bits(b)))), 2)
        }
        "fma" => (
            by_round!(mode, M, |[a, b, c, _]| bits_of_f32(fma_directed(
                M,
                f32_of_bits(a),
                f32_of_bits(b),
                f32_of_bits(c)
            ))),
            3,
        ),
        _ => return None,
    };
    let fast = (name == "fma" && mode == Round::Down).then_some(Op::FmaDownF32);
    alu(fast, lane, F32, &[F32; 3][..operands])
}

fn arithmetic_f64(name: &str, mode: Round) -> Option<Alu> {
    let near = mode == Round::Near;
    let (lane, operands): (Lane, _) = match name {
        "add" => (
            by_round!(mode, M, |[a, b, ..]| {
                let (sum, rest) = two_sum(f64_of_bits(a), f64_of_bits(b));
                bits_of_f64(step_f64(sum, rest, M))
            }),
            2,
        ),
        "sub" => (
            by_round!(mode, M, |[a, b, ..]| {
                let (sum, rest) = two_sum(f64_of_bits(a), -f64_of_bits(b));
                bits_of_f64(step_f64(sum, rest, M))
            }),
            2,
        ),
        "mul" => (
            by_round!(mode, M, |[a, b, ..]| {
                let (a, b) = (f64_of_bits(a), f64_of_bits(b));
                let product = a * b;
                bits_of_f64(step_f64(product, a.mul_add(b, -product), M))
            }),
            2,
        ),
        "div" if near => (|[a, b, ..]| bits_of_f64(f64_of_bits(a) / f64_of_bits(b)), 2),
        "fma" | "mad" if near => {
            (|[a, b, c, _]| bits_of_f64(f64_of_bits(a).mul_add(f64_of_bits(b), f64_of_bits(c))), 3)
        }
        _ => return None,
    };
    alu(None, lane, F64, &[F64; 3][..operands])
}

/// The approximate division is the exact one here.
fn divide(mode: Round, m: &mut Mods) -> Option<Alu> {
    let (fast, lane) = if m.take("approx") || m.take("full") {
        ((!m.ftz).then_some(Op::DivF32), with_modifiers!(m, |a, b| a / b))
    } else if m.ftz {
        return None;
    } else {
        let lane = by_round!(mode, M, |[a, b, ..]| {
            let (a, b) = (f32_of_bits(a), f32_of_bits(b));
            bits_of_f32(if M == Round::Near { a / b } else { div_directed(M, a, b) })
        });
        ((mode == Round::Near).then_some(Op::DivF32), lane)
    };
    alu(fast, lane, F32, &[F32, F32])
}

/// The approximate reciprocal is the exact one here.
fn reciprocal(mode: Round, m: &mut Mods) -> Option<Alu> {
    let (fast, lane) = if m.take("approx") {
        (Some(if m.ftz { Op::RcpFtzF32 } else { Op::RcpF32 }), with_modifiers!(m, |a| 1.0 / a))
    } else if m.ftz {
        return None;
    } else {
        let lane = by_round!(mode, M, |[a, ..]| {
            let a = f32_of_bits(a);
            bits_of_f32(if M == Round::Near { 1.0 / a } else { div_directed(M, 1.0, a) })
        });
        ((mode == Round::Near).then_some(Op::RcpF32), lane)
    };
    alu(fast, lane, F32, &[F32])
}

/// The approximate root is the exact one here.
fn root(mode: Round, m: &mut Mods) -> Option<Alu> {
    let (fast, lane) = if m.take("approx") {
        ((!m.ftz).then_some(Op::SqrtF32), with_modifiers!(m, |a| a.sqrt()))
    } else if m.ftz {
        return None;
    } else {
        let lane = by_round!(mode, M, |[a, ..]| {
            let a = f32_of_bits(a);
            bits_of_f32(if M == Round::Near { a.sqrt() } else { sqrt_directed(M, a) })
        });
        ((mode == Round::Near).then_some(Op::SqrtF32), lane)
    };
    alu(fast, lane, F32, &[F32])
}

/// Of the sign bit alone: a NaN stays the NaN it is.
fn sign(name: &str, ty: Ty) -> Option<Alu> {
    let unary = [ty];
    let binary = [ty, ty];
    match (name, ty) {
        ("neg", F32) => alu(Some(Op::NegF32), |[a, ..]| a ^ 0x8000_0000, ty, &unary),
        ("abs", F32) => alu(Some(Op::AbsF32), |[a, ..]| a & 0x7fff_ffff, ty, &unary),
        ("neg", F64) => alu(None, |[a, ..]| a ^ 1 << 63, ty, &unary),
        ("abs", F64) => alu(None, |[a, ..]| a & !(1 << 63), ty, &unary),
        ("copysign", F32) => alu(None, |[a, b, ..]| (b & 0x7fff_ffff) | (a & 0x8000_0000), ty, &binary),
        ("copysign", F64) => alu(None, |[a, b, ..]| (b & !(1 << 63)) | (a & 1 << 63), ty, &binary),
        _ => None,
    }
}

fn order(name: &str, ty: Ty, m: &mut Mods) -> Option<Alu> {
    macro_rules! of {
        ($order:path, $read:path, $write:path) => {
            (|[a, b, ..]| $write($order($read(a), $read(b)))) as Lane
        };
    }
    macro_rules! unless_nan {
        ($order:path) => {
            (|[a, b, ..]| {
                let (a, b) = (f32_of_bits(a), f32_of_bits(b));
                if a.is_nan() || b.is_nan() { 0x7fff_ffff } else { bits_of_f32($order(a, b)) }
            }) as Lane
        };
    }
    let (fast, lane) = match (name, ty, ty == F32 && m.take("NaN")) {
        ("min", F32, true) => (None, unless_nan!(min_f32)),
        (_, F32, true) => (None, unless_nan!(max_f32)),
        ("min", F32, false) => (Some(Op::MinF32), of!(min_f32, f32_of_bits, bits_of_f32)),
        (_, F32, false) => (Some(Op::MaxF32), of!(max_f32, f32_of_bits, bits_of_f32)),
        ("min", ..) => (None, of!(min_f64, f64_of_bits, bits_of_f64)),
        _ => (None, of!(max_f64, f64_of_bits, bits_of_f64)),
    };
    alu(fast, lane, ty, &[ty, ty])
}

/// `testp`: whether a float is of a kind.
fn property(ty: Ty, word: &str) -> Option<Lane> {
    Some(match word {
        "finite" => by_float!(ty, |a| u64::from(a.is_finite())),
        "infinite" => by_float!(ty, |a| u64::from(a.is_infinite())),
        "number" => by_float!(ty, |a| u64::from(!a.is_nan())),
        "notanumber" => by_float!(ty, |a| u64::from(a.is_nan())),
        "normal" => by_float!(ty, |a| u64::from(a.is_normal())),
        "subnormal" => by_float!(ty, |a| u64::from(a.is_subnormal())),
        _ => return None,
    })
}
