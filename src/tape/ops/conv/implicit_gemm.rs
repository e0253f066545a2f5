//! `kernels/conv/2_implicit_gemm.cu`: a block computes a tile of the result as a matrix.

use super::tiles::{Extents, Kernels, Matrix, Tile};
use crate::kernels::entry;

/// Elements of a sum from which on wide tiles that are a quarter full are worth it: so long a sum is not for one thread.
const LONG: usize = 2048;

/// 128 or 64 columns.
fn tile(matrix: Matrix) -> Tile {
    Tile { rows: 128, columns: if matrix.columns > 64 { 128 } else { 64 }, threads: 256 }
}

/// Whether the tiles are filled well enough: half-empty ones cost as much as full ones.
pub(super) fn fills(matrix: Matrix) -> bool {
    let tile = tile(matrix);
    let wide_and_long = tile.columns == 128 && matrix.summed >= LONG;
    matrix.rows >= tile.rows / if wide_and_long { 4 } else { 2 } && matrix.columns >= 48
}

/// Whether the kernels can do it: they read four channels at a time.
pub(super) fn takes(e: &Extents) -> bool {
    e.inp.c.is_multiple_of(4) && e.out.c.is_multiple_of(4)
}

/// The tile and the kernels of the three passes with it.
pub(super) fn kernels(matrix: Matrix) -> (Tile, Kernels) {
    let tile = tile(matrix);
    let kernels = if tile.columns == 64 {
        Kernels {
            forward: entry::CONV_FORWARD_GEMM_N64_F32,
            dgrad: entry::CONV_DGRAD_GEMM_N64_F32,
            ring_dgrad: entry::CONV_RING_DGRAD_GEMM_N64_F32,
            ring_tile: tile,
            wgrad: entry::CONV_WGRAD_GEMM_N64_F32,
        }
    } else {
        Kernels {
            forward: entry::CONV_FORWARD_GEMM_N128_F32,
            dgrad: entry::CONV_DGRAD_GEMM_N128_F32,
            ring_dgrad: entry::CONV_RING_DGRAD_GEMM_N128_F32,
            ring_tile: tile,
            wgrad: entry::CONV_WGRAD_GEMM_N128_F32,
        }
    };
    (tile, kernels)
}
