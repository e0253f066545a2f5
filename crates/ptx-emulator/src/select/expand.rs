//! One body for every type, rounding or modifier: each expands to functions without captures, as [`Lane`] wants.
//!
//! [`Lane`]: crate::isa::Lane

/// A function of each integer type: `$T` is the type in the body. Any other type ends the caller with None.
macro_rules! by_int {
    ($ty:expr, $T:ident, $lane:expr) => {
        by_int!(@ $ty, $T, $lane,
            [S8: i8] [S16: i16] [S32: i32] [S64: i64]
            [U8 B8: u8] [U16 B16: u16] [U32 B32: u32] [U64 B64: u64])
    };
    (@ $ty:expr, $T:ident, $lane:expr, $([$($name:ident)+: $of:ident])+) => {
        match $ty {
            $($(crate::isa::Ty::$name)|+ => {
                type $T = $of;
                $lane as crate::isa::Lane
            })+
            _ => return None,
        }
    };
}

/// A function of each rounding mode: `$M` is the mode in the body, a constant.
macro_rules! by_round {
    ($mode:expr, $M:ident, $lane:expr) => {
        by_round!(@ $mode, $M, $lane, Near Zero Down Up NearAway)
    };
    (@ $mode:expr, $M:ident, $lane:expr, $($name:ident)+) => {
        match $mode {
            $(crate::isa::Round::$name => {
                const $M: crate::isa::Round = crate::isa::Round::$name;
                $lane as crate::isa::Lane
            })+
        }
    };
}

/// A function of each comparison: `$C` is the comparison in the body, a constant.
macro_rules! by_cmp {
    ($cmp:expr, $C:ident, $lane:expr) => {
        by_cmp!(@ $cmp, $C, $lane, Eq Ne Lt Le Gt Ge Equ Neu Ltu Leu Gtu Geu Num Nan)
    };
    (@ $cmp:expr, $C:ident, $lane:expr, $($name:ident)+) => {
        match $cmp {
            $(crate::isa::Cmp::$name => {
                const $C: crate::isa::Cmp = crate::isa::Cmp::$name;
                $lane as crate::isa::Lane
            })+
        }
    };
}

/// A function of f32 operands with the modifiers `.ftz` and `.sat`: subnormal operands and results become zero,
/// and the result is clamped to [0, 1].
macro_rules! with_modifiers {
    ($modifiers:expr, |$($operand:ident),+| $body:expr) => {
        match ($modifiers.ftz, $modifiers.sat) {
            (false, false) => with_modifiers!(@ [$($operand)+] $body, std::convert::identity, std::convert::identity),
            (false, true) => with_modifiers!(@ [$($operand)+] $body, std::convert::identity, saturate_f32),
            (true, false) => with_modifiers!(@ [$($operand)+] $body, flush, std::convert::identity),
            (true, true) => with_modifiers!(@ [$($operand)+] $body, flush, saturate_f32),
        }
    };
    (@ [$($operand:ident)+] $body:expr, $flush:path, $saturate:path) => {
        (|[$($operand),+, ..]| {
            $(let $operand = $flush(f32_of_bits($operand));)+
            bits_of_f32($saturate($flush($body)))
        }) as Lane
    };
}

/// A function of an f32 or f64 operand, by type. Any other type ends the caller with None.
macro_rules! by_float {
    ($ty:expr, |$operand:ident| $body:expr) => {
        match $ty {
            Ty::F32 => {
                (|[$operand, ..]| {
                    let $operand = f32_of_bits($operand);
                    $body
                }) as Lane
            }
            Ty::F64 => {
                (|[$operand, ..]| {
                    let $operand = f64_of_bits($operand);
                    $body
                }) as Lane
            }
            _ => return None,
        }
    };
}

pub(super) use {by_cmp, by_float, by_int, by_round, with_modifiers};
