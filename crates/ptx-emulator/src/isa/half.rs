//! 16-bit floats, and tf32, as bits: conversions exact in every rounding mode.

use super::types::Round;

/// f16 to f32. Written without branches, so that a loop of it is a vector loop.
#[inline(always)]
pub(crate) fn f16_to_f32(h: u32) -> u32 {
    let magnitude = h & 0x7fff;
    let sign = (h & 0x8000) << 16;
    // 2^112 moves the exponent to its place, and makes subnormals normal.
    let scaled = (f32::from_bits(magnitude << 13) * f32::from_bits(239 << 23)).to_bits();
    let special = (magnitude << 13) | 0x7f80_0000;
    sign | if magnitude >= 0x7c00 { special } else { scaled }
}

/// f32 to the nearest f16, ties to even. Written without branches.
#[inline(always)]
pub(crate) fn f32_to_f16(v: u32) -> u32 {
    let sign = v >> 16 & 0x8000;
    let a = v & 0x7fff_ffff;
    let special = if a > 0x7f80_0000 { 0x7fff } else { 0x7c00 };
    // Adding 0.5 makes the addition itself round at the place of the subnormals' last bit.
    let subnormal = (f32::from_bits(a) + 0.5).to_bits().wrapping_sub(0x3f00_0000);
    let normal = a.wrapping_add(0xc800_0fff).wrapping_add(a >> 13 & 1) >> 13;
    let finite = if a < 0x3880_0000 { subnormal } else { normal & 0x7fff };
    // A NaN has no sign on the device.
    if a > 0x7f80_0000 { 0x7fff } else { sign | if a >= 0x4780_0000 { special } else { finite } }
}

/// f32 to the nearest bf16, ties to even.
#[inline(always)]
pub(crate) fn f32_to_bf16(v: u32) -> u32 {
    let near = v.wrapping_add(0x7fff).wrapping_add(v >> 16 & 1) >> 16;
    if v & 0x7fff_ffff > 0x7f80_0000 { 0x7fff } else { near }
}

/// A float format: bits of exponent and mantissa.
#[derive(Clone, Copy)]
pub(crate) struct Format {
    exponent: i32,
    mantissa: i32,
}

pub(crate) const F16: Format = Format { exponent: 5, mantissa: 10 };

pub(crate) const BF16: Format = Format { exponent: 8, mantissa: 7 };

/// As the upper 19 bits of a 32-bit word.
pub(crate) const TF32: Format = Format { exponent: 8, mantissa: 10 };

/// An f64 rounded to a format.
pub(crate) fn narrow(v: f64, format: Format, mode: Round, finite: bool) -> u32 {
    let Format { exponent, mantissa } = format;
    let sign = u32::from(v.is_sign_negative()) << (exponent + mantissa);
    let infinity = ((1u32 << exponent) - 1) << mantissa;
    if v.is_nan() {
        return if format.mantissa == 10 && format.exponent == 8 { infinity | 1 << 9 } else { 0x7fff };
    }
    let a = v.abs();
    let least = 2 - (1 << (exponent - 1));
    let own = if a >= f64::MIN_POSITIVE { (a.to_bits() >> 52) as i32 - 1023 } else { -1023 };
    let e = own.max(least);
    if v.is_infinite() || e > 1 - least {
        let largest = infinity - 1;
        let towards_zero = match mode {
            Round::Zero => true,
            Round::Down => sign == 0,
            Round::Up => sign != 0,
            _ => false,
        };
        let keep = finite || (towards_zero && v.is_finite());
        return sign | if keep { largest } else { infinity };
    }
    let scaled = a * 2f64.powi(mantissa - e);
    let units = match (mode, sign != 0) {
        (Round::Near, _) => scaled.round_ties_even(),
        (Round::NearAway, _) => scaled.round(),
        (Round::Zero, _) | (Round::Down, false) | (Round::Up, true) => scaled.floor(),
        _ => scaled.ceil(),
    } as u32;
    let bits = (((e - least) as u32) << mantissa) + units;
    sign | if finite { bits.min(infinity - 1) } else { bits }
}

/// tf32 of an f32: its bits with the lower 13 cleared after rounding.
pub(crate) fn f32_to_tf32(v: u32, mode: Round) -> u32 {
    narrow(f64::from(f32::from_bits(v)), TF32, mode, false) << 13
}
