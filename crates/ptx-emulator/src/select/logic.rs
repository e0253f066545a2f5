//! Logic, shifts and bit fields.

use super::alu::{Alu, alu, sized};
use super::bits::Int;
use super::expand::by_int;
use crate::isa::{Lane, Mods, Op, Ty};
use Ty::{B32, B64, S32, S64, U32, U64};

/// Logic and shifts.
pub(super) fn select(name: &str, ty: Ty, m: &mut Mods) -> Option<Alu> {
    match name {
        "and" => logic(Op::AndP, Op::And32, Op::And64, |[a, b, ..]| a & b, ty),
        "or" => logic(Op::OrP, Op::Or32, Op::Or64, |[a, b, ..]| a | b, ty),
        "xor" => logic(Op::XorP, Op::Xor32, Op::Xor64, |[a, b, ..]| a ^ b, ty),
        "not" => match ty.bytes() {
            0 => alu(Some(Op::NotP), |[a, ..]| a ^ 1, ty, &[ty]),
            2 => alu(None, |[a, ..]| !a & 0xffff, ty, &[ty]),
            4 => alu(Some(Op::Not32), |[a, ..]| !a & 0xffff_ffff, ty, &[ty]),
            _ => alu(Some(Op::Not64), |[a, ..]| !a, ty, &[ty]),
        },
        "cnot" => alu(None, |[a, ..]| u64::from(a == 0), ty, &[ty]),
        "lop3" => alu(None, lop3, B32, &[B32, B32, B32, B32]),
        "shl" => {
            let lane: Lane = match ty.bytes() {
                2 => |[a, b, ..]| if b as u32 > 15 { 0 } else { (a << b) & 0xffff },
                4 => |[a, b, ..]| {
                    if b as u32 > 31 { 0 } else { (a << b) & 0xffff_ffff }
                },
                8 => |[a, b, ..]| if b as u32 > 63 { 0 } else { a << (b as u32) },
                _ => return None,
            };
            alu(sized(ty, Op::Shl32, Op::Shl64), lane, ty, &[ty, U32])
        }
        "shr" => {
            let fast = match ty {
                S32 => Some(Op::ShrS32),
                U32 | B32 => Some(Op::ShrU32),
                S64 => Some(Op::ShrS64),
                U64 | B64 => Some(Op::ShrU64),
                _ => None,
            };
            let lane = by_int!(ty, T, |[a, b, ..]| {
                let n = (b as u32).min(T::BITS - 1);
                if b as u32 >= T::BITS && T::MIN == 0 { 0 } else { (T::of(a) >> n).bits() }
            });
            alu(fast, lane, ty, &[ty, U32])
        }
        "shf" => funnel_shift(m),
        _ => None,
    }
}

fn logic(predicates: Op, of_32: Op, of_64: Op, lane: Lane, ty: Ty) -> Option<Alu> {
    let fast = match ty.bytes() {
        0 => predicates,
        8 => of_64,
        _ => of_32,
    };
    alu(Some(fast), lane, ty, &[ty, ty])
}

/// Any function of three bits, from its truth table.
fn lop3([a, b, c, table]: [u64; 4]) -> u64 {
    let rows =
        [(!a, !b, !c), (!a, !b, c), (!a, b, !c), (!a, b, c), (a, !b, !c), (a, !b, c), (a, b, !c), (a, b, c)];
    let mut r = 0;
    for (i, (x, y, z)) in rows.into_iter().enumerate() {
        if table >> i & 1 == 1 {
            r |= x & y & z;
        }
    }
    r & 0xffff_ffff
}

fn funnel_shift(m: &mut Mods) -> Option<Alu> {
    let wrap = m.take("wrap");
    if !wrap {
        m.take("clamp");
    }
    let lane: Lane = match (m.take("l"), m.take("r"), wrap) {
        (true, _, true) => |[a, b, c, _]| ((b << 32 | a) << (c & 31)) >> 32,
        (true, _, false) => |[a, b, c, _]| {
            let n = (c as u32).min(32);
            (u128::from(b << 32 | a) << n >> 32) as u64 & 0xffff_ffff
        },
        (_, true, true) => |[a, b, c, _]| ((b << 32 | a) >> (c & 31)) & 0xffff_ffff,
        (_, true, false) => |[a, b, c, _]| ((b << 32 | a) >> (c as u32).min(32)) & 0xffff_ffff,
        _ => return None,
    };
    alu(None, lane, B32, &[B32, B32, U32])
}

/// Bit fields, counts of bits and permutations of bytes.
pub(super) fn select_bits(name: &str, ty: Ty, m: &mut Mods) -> Option<Alu> {
    match name {
        "bfe" => {
            let lane = by_int!(ty, T, |[a, b, c, _]| {
                let (pos, len) = ((b & 0xff) as u32, (c & 0xff) as u32);
                let bits = T::BITS;
                let a = T::of(a);
                // The sign bit is the top bit of the field, or the top bit of a where it ends first.
                let signed = T::MIN != 0;
                let sign = signed && len > 0 && (a.bits() >> (pos + len - 1).min(bits - 1)) & 1 == 1;
                let mut r: u64 = if sign { u64::MAX } else { 0 };
                for i in 0..len.min(bits) {
                    if pos + i < bits {
                        let bit = a.bits() >> (pos + i) & 1;
                        r = r & !(1 << i) | bit << i;
                    }
                }
                T::of(r).bits()
            });
            alu(None, lane, ty, &[ty, U32, U32])
        }
        "bfi" => {
            let lane = by_int!(ty, T, |[a, b, c, d]| {
                let (pos, len) = ((c & 0xff) as u32, (d & 0xff) as u32);
                let mut r = b;
                for i in 0..len {
                    if pos + i < T::BITS && i < T::BITS {
                        r = r & !(1 << (pos + i)) | (a >> i & 1) << (pos + i);
                    }
                }
                T::of(r).bits()
            });
            alu(None, lane, ty, &[ty, ty, U32, U32])
        }
        // Only the default mode has its selector free.
        "prmt" => alu(None, permute, B32, &[B32, B32, B32]),
        "popc" => alu(None, |[a, ..]| u64::from(a.count_ones()), U32, &[ty]),
        "clz" if ty.bytes() == 4 => alu(None, |[a, ..]| u64::from((a as u32).leading_zeros()), U32, &[ty]),
        "clz" => alu(None, |[a, ..]| u64::from(a.leading_zeros()), U32, &[ty]),
        "brev" if ty.bytes() == 4 => alu(None, |[a, ..]| (a as u32).reverse_bits().bits(), ty, &[ty]),
        "brev" => alu(None, |[a, ..]| a.reverse_bits(), ty, &[ty]),
        "bfind" => {
            let lane = if m.take("shiftamt") {
                by_int!(ty, T, |[a, ..]| find_leading(T::of(a) as i128, T::BITS)
                    .map_or(0xffff_ffff, |i| u64::from(T::BITS - 1 - i)))
            } else {
                by_int!(ty, T, |[a, ..]| find_leading(T::of(a) as i128, T::BITS)
                    .map_or(0xffff_ffff, u64::from))
            };
            alu(None, lane, U32, &[ty])
        }
        _ => None,
    }
}

/// Four bytes of eight: each digit of the selector gives the number of a byte, and whether its sign is spread.
fn permute([a, b, selector, _]: [u64; 4]) -> u64 {
    let bytes = (b << 32 | a).to_le_bytes();
    let mut r = 0;
    for i in 0..4 {
        let digit = selector >> (4 * i) & 15;
        let byte = bytes[(digit & 7) as usize];
        let byte = if digit & 8 != 0 { ((byte as i8) >> 7) as u8 } else { byte };
        r |= u64::from(byte) << (8 * i);
    }
    r
}

/// The number of the highest bit that differs from the sign.
fn find_leading(v: i128, bits: u32) -> Option<u32> {
    let v = if v < 0 { !v } else { v };
    let v = v as u128 & ((1u128 << bits) - 1);
    (v != 0).then(|| 127 - v.leading_zeros())
}
