//! `kernels/conv/2_implicit_gemm.cu`: a block computes a tile of the result as a matrix.

use crate::Result;
use crate::device::Launch;
use crate::kernels::arg::Scratch;
use crate::kernels::{Args, KernelOf, args, entry};
use crate::tape::grid::{ceil_div, int};
use crate::tape::lowering::Lowering;
use crate::tensor::Shape;

/// Rows of a tile.
const BM: usize = 128;
/// Threads a block.
const THREADS: u32 = 256;
/// Elements of the sum that a slice has.
const BK: usize = 8;
/// Blocks for each multiprocessor of a GPU that is full.
const RESIDENT: usize = 2;
/// Fewest elements of the sum worth a block of their own: what the parts cost to be written and added up stays small.
const CHUNK: usize = 16 * BK;
/// Most blocks that share a tile's sum: the last of them adds up as many parts.
const MAX_CHUNKS: usize = 64;

/// Elements of a sum from which on wide tiles that are a quarter full are worth it: so long a sum is not for one thread.
const LONG: usize = 2048;

/// How the sum of each tile is split over blocks.
pub(super) struct Split {
    pub chunks: i32,
    /// Of the parts, and of the tiles' counters; none where there is one block a tile.
    pub partials: Option<Scratch>,
    pub counters: Option<Scratch>,
}

/// The result of a pass as a matrix, for each direction, and the tiles that cover it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiles {
    rows: usize,
    columns: usize,
    /// Elements of the sum that each result is.
    summed: usize,
    /// Columns of a tile.
    bn: usize,
}

impl Tiles {
    pub fn new(rows: usize, columns: usize, summed: usize) -> Self {
        Self { rows, columns, summed, bn: if columns > 64 { 128 } else { 64 } }
    }

    /// Whether they are filled well enough: half-empty tiles cost as much as full ones.
    pub fn are_full(&self) -> bool {
        let wide_and_long = self.bn == 128 && self.summed >= LONG;
        self.rows >= if wide_and_long { BM / 4 } else { BM / 2 } && self.columns >= 48
    }

    /// The split of the sums of `z` such matrices, so that there are blocks for the whole GPU.
    ///
    /// # Errors
    /// When the counters cannot be zeroed.
    pub fn split(&self, to: &mut Lowering, z: usize) -> Result<Split> {
        let full = RESIDENT * to.options.target.sms as usize;
        let tiles = self.count() * z;
        let chunks = (full / tiles).min(self.summed / CHUNK).clamp(1, MAX_CHUNKS);
        if chunks == 1 {
            return Ok(Split { chunks: 1, partials: None, counters: None });
        }
        let partials = to.scratch("partial tiles", tiles * chunks * BM * self.bn);
        let counters = to.tile_counters(full)?;
        Ok(Split {
            chunks: int(chunks),
            partials: Some(Scratch(partials)),
            counters: Some(Scratch(counters)),
        })
    }

    fn count(&self) -> usize {
        self.rows.div_ceil(BM) * self.columns.div_ceil(self.bn)
    }

    /// The launch over the tiles of `z` such matrices, each with its chunks.
    fn launch<A: Args>(
        &self,
        [narrow, wide]: [KernelOf<A>; 2],
        args: A,
        split: &Split,
        z: usize,
    ) -> Result<Launch> {
        let launch = Launch::new(if self.bn == 64 { narrow } else { wide }, args)?;
        let columns = ceil_div(self.columns, self.bn) * split.chunks as u32;
        Ok(launch.grid([ceil_div(self.rows, BM), columns, z as u32]).block([THREADS, 1, 1]))
    }
}

/// Whether the kernels can do it: they read four channels at a time.
pub(super) fn takes(inp: Shape, out: Shape) -> bool {
    inp.c.is_multiple_of(4) && out.c.is_multiple_of(4)
}

pub(super) fn forward(
    tiles: Tiles,
    args: args::ConvForwardGemm,
    split: &Split,
    directions: usize,
) -> Result<Launch> {
    let kernels = [entry::CONV_FORWARD_GEMM_N64_F32, entry::CONV_FORWARD_GEMM_N128_F32];
    tiles.launch(kernels, args, split, directions)
}

pub(super) fn dgrad(
    tiles: Tiles,
    args: args::ConvDgradGemm,
    split: &Split,
    directions_and_phases: usize,
) -> Result<Launch> {
    let kernels = [entry::CONV_DGRAD_GEMM_N64_F32, entry::CONV_DGRAD_GEMM_N128_F32];
    tiles.launch(kernels, args, split, directions_and_phases)
}

pub(super) fn wgrad(
    tiles: Tiles,
    args: args::ConvWgradGemm,
    split: &Split,
    directions: usize,
) -> Result<Launch> {
    let kernels = [entry::CONV_WGRAD_GEMM_N64_F32, entry::CONV_WGRAD_GEMM_N128_F32];
    tiles.launch(kernels, args, split, directions)
}
