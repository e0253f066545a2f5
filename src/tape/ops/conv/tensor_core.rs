//! `kernels/conv/3_tensor_core.cu`: a warp computes a part of the block's tile with matrix instructions.

use super::tiles::{Extents, Kernels, Matrix, Tile};
use crate::kernels::entry;
use crate::tape::ops::activation::Activation;

/// Threads a block.
const THREADS: u32 = 128;

/// Whether the kernels can do it: dgrad has a bit for each tap of a row.
pub(super) fn takes(e: &Extents) -> bool {
    e.weight.n <= 15
}

/// The tile and the kernels of the three passes with it. The kernels for channels in fours leave out tanh, which would be
/// most of their code.
pub(super) fn kernels(e: &Extents, matrix: Matrix, act: Activation) -> (Tile, Kernels) {
    let fours = e.inp.c.is_multiple_of(4) && e.out.c.is_multiple_of(4);
    let tile = |rows, columns| Tile { rows, columns, threads: THREADS };
    if !fours || act == Activation::Tanh {
        let kernels = Kernels {
            forward: entry::CONV_FORWARD_MMA_X1_TF32,
            dgrad: entry::CONV_DGRAD_MMA_X1_TF32,
            ring_dgrad: entry::CONV_RING_DGRAD_MMA_X1_TF32,
            ring_tile: tile(128, 32),
            wgrad: entry::CONV_WGRAD_MMA_X1_TF32,
        };
        return (tile(128, 32), kernels);
    }
    if matrix.columns <= 64 {
        let kernels = Kernels {
            forward: entry::CONV_FORWARD_MMA_N64_TF32,
            dgrad: entry::CONV_DGRAD_MMA_N64_TF32,
            ring_dgrad: entry::CONV_RING_DGRAD_MMA_N64_TF32,
            ring_tile: tile(128, 64),
            wgrad: entry::CONV_WGRAD_MMA_N64_TF32,
        };
        return (tile(128, 64), kernels);
    }
    if matrix.rows <= 64 {
        let kernels = Kernels {
            forward: entry::CONV_FORWARD_MMA_M64_TF32,
            dgrad: entry::CONV_DGRAD_MMA_M64_TF32,
            ring_dgrad: entry::CONV_RING_DGRAD_MMA_M64_TF32,
            ring_tile: tile(64, 128),
            wgrad: entry::CONV_WGRAD_MMA_M64_TF32,
        };
        return (tile(64, 128), kernels);
    }
    let kernels = Kernels {
        forward: entry::CONV_FORWARD_MMA_N128_TF32,
        dgrad: entry::CONV_DGRAD_MMA_N128_TF32,
        ring_dgrad: entry::CONV_RING_DGRAD_MMA_M64_TF32,
        ring_tile: tile(64, 128),
        wgrad: entry::CONV_WGRAD_MMA_N128_TF32,
    };
    (tile(128, 128), kernels)
}
