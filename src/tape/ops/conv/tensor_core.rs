//! `kernels/conv/3_tensor_core.cu`: a warp computes a part of the block's tile with matrix instructions.

use super::tiles::{Extents, Kernels, Matrix, Tile};
use crate::kernels::entry;
use crate::tape::ops::activation::Activation;

/// Whether the kernels can do it: dgrad has a bit for each tap of a row.
pub(super) fn takes(e: &Extents) -> bool {
    e.weight.n <= 15 && e.weight.h <= 15
}

fn tile(rows: usize, columns: usize) -> Tile {
    Tile { rows, columns, threads: 128 }
}

/// The tile and the kernels of the three passes with it.
pub(super) fn kernels(e: &Extents, matrix: Matrix, act: Activation) -> (Tile, Kernels) {
    let fours = e.inp.c.is_multiple_of(4) && e.out.c.is_multiple_of(4);
    // The kernels for channels in fours leave out tanh, which would be most of their code.
    if !fours || act == Activation::Tanh {
        let one = Kernels {
            forward: entry::CONV_FORWARD_MMA_X1_TF32,
            dgrad: entry::CONV_DGRAD_MMA_X1_TF32,
            wgrad: entry::CONV_WGRAD_MMA_X1_TF32,
            ring_dgrad: entry::CONV_RING_DGRAD_MMA_X1_TF32,
            ring_tile: tile(128, 32),
        };
        // An input's gradient only reads the output's channels.
        let kernels = match e.out.c.is_multiple_of(4) {
            true => Kernels { dgrad: narrow().dgrad, ring_dgrad: narrow().ring_dgrad, ..one },
            false => one,
        };
        return (tile(128, 32), kernels);
    }
    if matrix.columns <= 32 {
        return (tile(128, 32), narrow());
    }
    if matrix.columns <= 64 {
        let kernels = Kernels {
            forward: entry::CONV_FORWARD_MMA_N64_TF32,
            dgrad: entry::CONV_DGRAD_MMA_N64_TF32,
            wgrad: entry::CONV_WGRAD_MMA_N64_TF32,
            ring_dgrad: entry::CONV_RING_DGRAD_MMA_N64_TF32,
            ring_tile: tile(128, 64),
        };
        return (tile(128, 64), kernels);
    }
    let few_rows = Kernels {
        forward: entry::CONV_FORWARD_MMA_M64_TF32,
        dgrad: entry::CONV_DGRAD_MMA_M64_TF32,
        wgrad: entry::CONV_WGRAD_MMA_M64_TF32,
        ring_dgrad: entry::CONV_RING_DGRAD_MMA_M64_TF32,
        ring_tile: tile(64, 128),
    };
    if matrix.rows <= 64 {
        return (tile(64, 128), few_rows);
    }
    let kernels = Kernels {
        forward: entry::CONV_FORWARD_MMA_N128_TF32,
        dgrad: entry::CONV_DGRAD_MMA_N128_TF32,
        wgrad: entry::CONV_WGRAD_MMA_N128_TF32,
        ..few_rows
    };
    (tile(128, 128), kernels)
}

/// Those of up to 32 columns.
fn narrow() -> Kernels {
    Kernels {
        forward: entry::CONV_FORWARD_MMA_N32_TF32,
        dgrad: entry::CONV_DGRAD_MMA_N32_TF32,
        wgrad: entry::CONV_WGRAD_MMA_N32_TF32,
        ring_dgrad: entry::CONV_RING_DGRAD_MMA_N32_TF32,
        ring_tile: tile(128, 32),
    }
}
