//! Tensor-core instructions: `mma.sync` and `ldmatrix`, with the register layouts of the PTX ISA.
#![allow(clippy::needless_range_loop)]

use crate::isa::half::{f16_to_f32, f32_to_f16};
use crate::isa::{MatrixType, MmaOp};
use crate::lanes::Reg32;
use crate::warp::Lanes;

/// `d = a b + c` of a warp: a is 16 x K, b is K x 8. Sums run over k in order, each step fused.
#[inline(always)]
pub(crate) fn mma(warp: &mut Lanes, op: &MmaOp) {
    match (op.ty, op.k) {
        (MatrixType::F16, 16) => run::<16>(warp, op, |v| [f16_to_f32(v & 0xffff), f16_to_f32(v >> 16)]),
        (MatrixType::F16, _) => run::<8>(warp, op, |v| [f16_to_f32(v & 0xffff), f16_to_f32(v >> 16)]),
        (MatrixType::Bf16, 16) => run::<16>(warp, op, |v| [v << 16, v & 0xffff_0000]),
        (MatrixType::Bf16, _) => run::<8>(warp, op, |v| [v << 16, v & 0xffff_0000]),
        (MatrixType::Tf32, 8) => run_tf32::<8>(warp, op),
        (MatrixType::Tf32, _) => run_tf32::<4>(warp, op),
    }
}

/// 16-bit operands, two to a register.
#[inline(always)]
fn run<const K: usize>(warp: &mut Lanes, op: &MmaOp, split: impl Fn(u32) -> [u32; 2]) {
    let mut a = [[0f32; K]; 16];
    let mut b = [[0f32; 8]; K];
    for part in 0..K / 4 {
        // Registers go down the rows first, then along k.
        let row: Reg32 = warp.r32[op.a[part] as usize];
        for l in 0..32 {
            let [x, y] = split(row[l]);
            let (r, k) = (l / 4 + part % 2 * 8, l % 4 * 2 + part / 2 * 8);
            a[r][k] = f32::from_bits(x);
            a[r][k + 1] = f32::from_bits(y);
        }
    }
    for part in 0..K / 8 {
        let row: Reg32 = warp.r32[op.b[part] as usize];
        for l in 0..32 {
            let [x, y] = split(row[l]);
            let k = l % 4 * 2 + part * 8;
            b[k][l / 4] = f32::from_bits(x);
            b[k + 1][l / 4] = f32::from_bits(y);
        }
    }
    multiply(warp, op, &a, &b);
}

/// tf32 operands, one to a register; the device looks at the upper 19 bits.
#[inline(always)]
fn run_tf32<const K: usize>(warp: &mut Lanes, op: &MmaOp) {
    let cut = |v: u32| f32::from_bits(v & 0xffff_e000);
    let mut a = [[0f32; K]; 16];
    let mut b = [[0f32; 8]; K];
    for part in 0..K / 2 {
        let row: Reg32 = warp.r32[op.a[part] as usize];
        for l in 0..32 {
            a[l / 4 + part % 2 * 8][l % 4 + part / 2 * 4] = cut(row[l]);
        }
    }
    for part in 0..K / 4 {
        let row: Reg32 = warp.r32[op.b[part] as usize];
        for l in 0..32 {
            b[l % 4 + part * 4][l / 4] = cut(row[l]);
        }
    }
    multiply(warp, op, &a, &b);
}

#[inline(always)]
fn multiply<const K: usize>(warp: &mut Lanes, op: &MmaOp, a: &[[f32; K]; 16], b: &[[f32; 8]; K]) {
    let mut acc = [[0f32; 8]; 16];
    if op.half {
        for part in 0..2 {
            let row: Reg32 = warp.r32[op.c[part] as usize];
            for l in 0..32 {
                let (r, n) = (l / 4 + part * 8, l % 4 * 2);
                acc[r][n] = f32::from_bits(f16_to_f32(row[l] & 0xffff));
                acc[r][n + 1] = f32::from_bits(f16_to_f32(row[l] >> 16));
            }
        }
    } else {
        for part in 0..4 {
            let row: Reg32 = warp.r32[op.c[part] as usize];
            for l in 0..32 {
                acc[l / 4 + part / 2 * 8][l % 4 * 2 + part % 2] = f32::from_bits(row[l]);
            }
        }
    }
    for r in 0..16 {
        let mut sum = acc[r];
        for k in 0..K {
            for n in 0..8 {
                sum[n] = a[r][k].mul_add(b[k][n], sum[n]);
            }
        }
        acc[r] = sum;
    }
    if op.half {
        for part in 0..2 {
            let mut row = [0; 32];
            for l in 0..32 {
                let (r, n) = (l / 4 + part * 8, l % 4 * 2);
                row[l] = f32_to_f16(acc[r][n].to_bits()) | f32_to_f16(acc[r][n + 1].to_bits()) << 16;
            }
            warp.r32[op.d[part] as usize] = row;
        }
    } else {
        for part in 0..4 {
            let mut row = [0; 32];
            for l in 0..32 {
                row[l] = acc[l / 4 + part / 2 * 8][l % 4 * 2 + part % 2].to_bits();
            }
            warp.r32[op.d[part] as usize] = row;
        }
    }
}

/// Distributes 8 x 8 matrices of 16-bit elements: `rows[i][r]` is row `r` of matrix `i`.
#[inline(always)]
pub(crate) fn distribute(warp: &mut Lanes, regs: &[u16], rows: &[[[u16; 8]; 8]; 4], transposed: bool) {
    for (reg, matrix) in regs.iter().zip(rows) {
        let mut out = [0; 32];
        for l in 0..32 {
            let (i, j) = (l / 4, l % 4 * 2);
            let [low, high] =
                if transposed { [matrix[j][i], matrix[j + 1][i]] } else { [matrix[i][j], matrix[i][j + 1]] };
            out[l] = u32::from(low) | u32::from(high) << 16;
        }
        warp.r32[*reg as usize] = out;
    }
}
