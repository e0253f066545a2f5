//! Comparisons, and how `setp` combines them with a predicate.

use crate::isa::Cmp;

/// The comparison that a modifier names, for signed or unsigned integers or floats.
pub(crate) fn cmp_of(word: &str) -> Option<Cmp> {
    Some(match word {
        "eq" => Cmp::Eq,
        "ne" => Cmp::Ne,
        "lt" | "lo" => Cmp::Lt,
        "le" | "ls" => Cmp::Le,
        "gt" | "hi" => Cmp::Gt,
        "ge" | "hs" => Cmp::Ge,
        "equ" => Cmp::Equ,
        "neu" => Cmp::Neu,
        "ltu" => Cmp::Ltu,
        "leu" => Cmp::Leu,
        "gtu" => Cmp::Gtu,
        "geu" => Cmp::Geu,
        "num" => Cmp::Num,
        "nan" => Cmp::Nan,
        _ => return None,
    })
}

/// Whether a float comparison holds.
#[inline(always)]
pub(crate) fn holds_float(cmp: Cmp, a: f64, b: f64) -> bool {
    let nan = a.is_nan() || b.is_nan();
    match cmp {
        Cmp::Eq => a == b,
        Cmp::Ne => a != b && !nan,
        Cmp::Lt => a < b,
        Cmp::Le => a <= b,
        Cmp::Gt => a > b,
        Cmp::Ge => a >= b,
        Cmp::Equ => a == b || nan,
        Cmp::Neu => a != b,
        Cmp::Ltu => a < b || nan,
        Cmp::Leu => a <= b || nan,
        Cmp::Gtu => a > b || nan,
        Cmp::Geu => a >= b || nan,
        Cmp::Num => !nan,
        Cmp::Nan => nan,
    }
}

pub(crate) fn holds_int(cmp: Cmp, a: i128, b: i128) -> bool {
    match cmp {
        Cmp::Eq => a == b,
        Cmp::Ne => a != b,
        Cmp::Lt => a < b,
        Cmp::Le => a <= b,
        Cmp::Gt => a > b,
        _ => a >= b,
    }
}

/// Combines a comparison with a predicate: bit 0 the result, bit 1 that of the complement.
pub(crate) fn combine(bool_op: u64, holds: bool, c: u64) -> u64 {
    let c = c & 1 == 1;
    let (p, q) = match bool_op {
        0 => (holds, !holds),
        1 => (holds && c, !holds && c),
        2 => (holds || c, !holds || c),
        _ => (holds ^ c, !holds ^ c),
    };
    u64::from(p) | u64::from(q) << 1
}

/// The number that `boolop` of a `setp` becomes.
pub(crate) fn bool_op_number(op: &[String]) -> u64 {
    op.iter()
        .find_map(|w| match w.as_str() {
            "and" => Some(1),
            "or" => Some(2),
            "xor" => Some(3),
            _ => None,
        })
        .unwrap_or(0)
}
