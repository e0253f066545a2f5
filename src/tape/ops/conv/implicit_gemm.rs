//! `kernels/conv/2_implicit_gemm.cu`: a block computes a tile of the result as a matrix.

use crate::Result;
use crate::device::Launch;
use crate::kernels::{Args, KernelOf, args, entry};
use crate::tape::grid::ceil_div;
use crate::tensor::Shape;

/// Rows of a tile.
const BM: usize = 128;
/// Threads a block.
const THREADS: u32 = 256;
/// Tiles for each multiprocessor from which a weight gradient need not be split over its pixels: as many as it holds.
pub(super) const WGRAD_FULL: usize = 2;

/// The result of a pass as a matrix, for each direction, and the tiles that cover it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiles {
    rows: usize,
    columns: usize,
    /// Columns of a tile.
    bn: usize,
}

impl Tiles {
    pub fn new(rows: usize, columns: usize) -> Self {
        Self { rows, columns, bn: if columns > 64 { 128 } else { 64 } }
    }

    /// Whether they are filled well enough: half-empty tiles cost as much as full ones.
    pub fn are_full(&self) -> bool {
        self.rows >= BM / 2 && self.columns >= 48
    }

    pub fn count(&self) -> usize {
        self.rows.div_ceil(BM) * self.columns.div_ceil(self.bn)
    }

    /// The launch over the tiles, and `z` such matrices.
    fn launch<A: Args>(&self, [narrow, wide]: [KernelOf<A>; 2], args: A, z: usize) -> Result<Launch> {
        let launch = Launch::new(if self.bn == 64 { narrow } else { wide }, args)?;
        let grid = [ceil_div(self.rows, BM), ceil_div(self.columns, self.bn), z as u32];
        Ok(launch.grid(grid).block([THREADS, 1, 1]))
    }
}

/// Whether the kernels can do it: they read four channels at a time.
pub(super) fn takes(inp: Shape, out: Shape) -> bool {
    inp.c.is_multiple_of(4) && out.c.is_multiple_of(4)
}

pub(super) fn forward(tiles: Tiles, args: args::ConvForward, directions: usize) -> Result<Launch> {
    tiles.launch([entry::CONV_FORWARD_GEMM_N64_F32, entry::CONV_FORWARD_GEMM_N128_F32], args, directions)
}

pub(super) fn dgrad(tiles: Tiles, args: args::ConvDgrad, directions_and_phases: usize) -> Result<Launch> {
    let kernels = [entry::CONV_DGRAD_GEMM_N64_F32, entry::CONV_DGRAD_GEMM_N128_F32];
    tiles.launch(kernels, args, directions_and_phases)
}

pub(super) fn wgrad(tiles: Tiles, args: args::ConvWgrad, chunks_and_directions: usize) -> Result<Launch> {
    let kernels = [entry::CONV_WGRAD_GEMM_N64_F32, entry::CONV_WGRAD_GEMM_N128_F32];
    tiles.launch(kernels, args, chunks_and_directions)
}
