//! What the variants share: a pass's extents, its result as a matrix that blocks compute tile by tile, and the split of long
//! sums over blocks.

use crate::Result;
use crate::device::Launch;
use crate::kernels::arg::Scratch;
use crate::kernels::{Args, KernelOf, args};
use crate::tape::grid::{ceil_div, int};
use crate::tape::lowering::Lowering;
use crate::tensor::Shape;

/// Blocks for each multiprocessor of a GPU that is full.
const RESIDENT: usize = 2;
/// Fewest elements of the sum worth a block of their own: what the parts cost to be written and added up stays small.
const CHUNK: usize = 128;
/// Most blocks that share a tile's sum: the last of them adds up as many parts.
const MAX_CHUNKS: usize = 64;

/// A pass's shapes, which all three take.
#[derive(Clone, Copy)]
pub(super) struct Extents {
    pub inp: Shape,
    pub weight: Shape,
    pub out: Shape,
    pub stride: usize,
}

impl Extents {
    pub fn flops(&self) -> usize {
        2 * self.out.len() * self.taps() * self.inp.c
    }

    fn taps(&self) -> usize {
        self.weight.n * self.weight.h
    }

    /// The output of each direction as a matrix.
    pub fn forward(&self) -> Matrix {
        let rows = self.out.n * self.out.pixels();
        Matrix { rows, columns: self.out.c, summed: self.taps() * self.inp.c }
    }

    /// The gradient of the input, one matrix for each of so many phases of the stride, which has taps of its own.
    pub fn input_grad(&self) -> (Matrix, usize) {
        let Self { inp, weight, out, stride } = *self;
        let rows = inp.n * inp.h.div_ceil(stride) * inp.w.div_ceil(stride);
        let taps = weight.n.div_ceil(stride) * weight.h.div_ceil(stride);
        (Matrix { rows, columns: inp.c, summed: taps * out.c }, stride * stride)
    }

    /// The gradient of the weight.
    pub fn weight_grad(&self) -> Matrix {
        let summed = self.out.n * self.out.pixels();
        Matrix { rows: self.taps() * self.inp.c, columns: self.out.c, summed }
    }
}

/// A tiled variant's kernels of the three passes.
pub(super) struct Kernels {
    pub forward: KernelOf<args::ConvForward>,
    pub dgrad: KernelOf<args::ConvDgrad>,
    pub ring_dgrad: KernelOf<args::ConvRingDgrad>,
    /// The tile of the ring's.
    pub ring_tile: Tile,
    pub wgrad: KernelOf<args::ConvWgrad>,
}

/// What a block computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    pub rows: usize,
    pub columns: usize,
    pub threads: u32,
}

/// The result of a pass for one direction, and the sum that each of its elements is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Matrix {
    pub rows: usize,
    pub columns: usize,
    /// Elements of the sum.
    pub summed: usize,
}

/// How the sum of each tile is split over blocks.
pub(super) struct Split {
    pub chunks: i32,
    /// Of the parts, and of the tiles' counters; none where there is one block a tile.
    pub partials: Option<Scratch>,
    pub counters: Option<Scratch>,
}

impl Matrix {
    /// The split of the sums of `z` such matrices, so that there are blocks for the whole GPU.
    ///
    /// # Errors
    /// When the counters cannot be zeroed.
    pub fn split(&self, tile: Tile, to: &mut Lowering, z: usize) -> Result<Split> {
        let full = RESIDENT * to.options.target.sms as usize;
        let tiles = self.rows.div_ceil(tile.rows) * self.columns.div_ceil(tile.columns) * z;
        let chunks = (full / tiles).min(self.summed / CHUNK).clamp(1, MAX_CHUNKS);
        if chunks == 1 {
            return Ok(Split { chunks: 1, partials: None, counters: None });
        }
        let partials = to.scratch("partial tiles", tiles * chunks * tile.rows * tile.columns);
        let counters = to.tile_counters(full)?;
        Ok(Split {
            chunks: int(chunks),
            partials: Some(Scratch(partials)),
            counters: Some(Scratch(counters)),
        })
    }

    /// The launch over the tiles of `z` such matrices, each with its chunks.
    pub fn launch<A: Args>(
        &self,
        tile: Tile,
        kernel: KernelOf<A>,
        args: A,
        split: &Split,
        z: usize,
    ) -> Result<Launch> {
        let columns = ceil_div(self.columns, tile.columns) * split.chunks as u32;
        let grid = [ceil_div(self.rows, tile.rows), columns, z as u32];
        Ok(Launch::new(kernel, args)?.grid(grid).block([tile.threads, 1, 1]))
    }
}
