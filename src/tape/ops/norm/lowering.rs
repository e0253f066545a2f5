//! What the variants' launches are made of: extents, grids, block shapes, scratch memory.

use std::ops::RangeInclusive;

use super::layer::{LaunchSink, Layer};
use crate::Result;
use crate::device::{BufferRef, Launch};
use crate::kernels::{Args, KernelOf};
use crate::tape::grid::{THREADS, ceil_div, int};
use crate::tensor::{DType, Shape};

/// Blocks of a reduction for each multiprocessor.
const REDUCTION_BLOCKS: usize = 4;
/// Blocks of a pass that only writes out.
const APPLY_BLOCKS: usize = 2048;

/// A layer's numbers as kernels take them.
#[derive(Clone, Copy)]
pub(super) struct Numbers {
    /// Pixels of an image.
    pub hw: i32,
    /// Channels.
    pub c: i32,
    /// Images a direction.
    pub n: i32,
    pub images_per_affine: i32,
    /// 1 where variances are divided by one less than the number of values.
    pub unbiased: i32,
    pub act: i32,
}

/// The pixels of each group of images in chunks, one a block.
#[derive(Clone, Copy)]
pub(super) struct Chunks {
    pub groups: usize,
    /// Of a group.
    pub pixels: usize,
    /// Pixels of a chunk.
    pub rows: usize,
}

impl Chunks {
    /// Chunks of a group.
    pub fn a_group(self) -> usize {
        self.pixels.div_ceil(self.rows)
    }

    /// Chunks of all groups.
    pub fn count(self) -> usize {
        self.groups * self.a_group()
    }

    /// `rows` as kernels take it.
    pub fn rows(self) -> i32 {
        int(self.rows)
    }
}

/// Block shape of a pass over so many groups of channels: groups, pixels.
fn block(groups: usize) -> (usize, usize) {
    let groups = groups.next_power_of_two().min(32);
    (groups, THREADS / groups)
}

/// The context in which a variant makes the launches of a layer.
pub(super) struct NormLowering<'s> {
    pub sink: &'s mut dyn LaunchSink,
    pub s: Shape,
    pub layer: Layer,
    pub numbers: Numbers,
    /// Channels a thread.
    pub v: usize,
    /// What the kernels' names end in: `x4_f32` and the like.
    suffix: String,
    /// Block shape of the passes: groups of channels, pixels.
    pub block: (usize, usize),
}

impl<'s> NormLowering<'s> {
    /// For kernels with 16 bytes a memory access where the channels allow it. `affine`: with parameters.
    pub fn new(sink: &'s mut dyn LaunchSink, layer: &Layer, affine: bool) -> Self {
        let s = layer.shape;
        let wide = if layer.dtype == DType::F32 { 4 } else { 8 };
        let v = if s.c.is_multiple_of(wide) { wide } else { 1 };
        let numbers = Numbers {
            hw: int(s.pixels()),
            c: int(s.c),
            n: int(s.n),
            images_per_affine: int(layer.images_per_affine),
            unbiased: i32::from(affine),
            act: layer.act as i32,
        };
        let suffix = format!("x{v}_{}", layer.dtype.name());
        Self { sink, s, layer: *layer, numbers, v, suffix, block: block(s.c / v) }
    }

    /// For kernels with one element a memory access.
    pub fn scalar(self) -> Self {
        let suffix = self.layer.dtype.name().to_owned();
        Self { v: 1, suffix, block: block(self.s.c), ..self }
    }

    // ------------------------------------------------------------ grids

    /// Blocks over the channels.
    fn columns(&self) -> usize {
        (self.s.c / self.v).div_ceil(self.block.0)
    }

    /// Blocks that a reduction is split into, about.
    fn reduction_blocks(&self) -> usize {
        REDUCTION_BLOCKS * self.sink.target().sms as usize
    }

    /// Groups of so many pixels in chunks, so that about `blocks` blocks have `a_thread` pixels a thread.
    fn chunks(&self, groups: usize, pixels: usize, blocks: usize, a_thread: RangeInclusive<usize>) -> Chunks {
        let height = self.block.1;
        let rows = (pixels * groups * self.columns()).div_ceil(blocks);
        let rows = rows.clamp(height * a_thread.start(), height * a_thread.end()).next_multiple_of(height);
        Chunks { groups, pixels, rows }
    }

    /// The images in chunks of `rows` pixels.
    pub fn images(&self, rows: usize) -> Chunks {
        Chunks { groups: self.s.images(), pixels: self.s.pixels(), rows }
    }

    /// The images in chunks, for a reduction whose results a second kernel joins.
    pub fn reduction(&self) -> Chunks {
        self.chunks(self.s.images(), self.s.pixels(), self.reduction_blocks(), 8..=64)
    }

    /// The images in chunks, for a pass that writes out.
    pub fn apply(&self) -> Chunks {
        self.chunks(self.s.images(), self.s.pixels(), APPLY_BLOCKS, 4..=32)
    }

    /// Groups of images in chunks, for a reduction whose last block joins the results.
    pub fn whole_reduction(&self, groups: usize, pixels: usize) -> Chunks {
        self.chunks(groups, pixels, self.reduction_blocks(), 8..=512)
    }

    // ------------------------------------------------------------ launches

    /// The kernel of a family for this layer's channels and type.
    pub fn kernel<A: Args>(&self, family: &str) -> Result<KernelOf<A>> {
        KernelOf::named(&format!("{family}_{}", self.suffix))
    }

    /// A launch over channels, chunks of pixels, groups.
    pub fn pass<A: Args>(
        &mut self,
        what: &str,
        family: &str,
        chunks: Chunks,
        args: A,
        flops: usize,
    ) -> Result<()> {
        let grid = [self.columns(), chunks.a_group(), chunks.groups].map(|blocks| ceil_div(blocks, 1));
        let block = [self.block.0 as u32, self.block.1 as u32, 1];
        let launch = Launch::new(self.kernel(family)?, args)?.grid(grid).block(block);
        self.sink.launch(what, launch.flops(flops));
        Ok(())
    }

    /// A launch of a thread for each V elements of an image.
    pub fn each<A: Args>(&mut self, what: &str, family: &str, args: A, flops: usize) -> Result<()> {
        let grid = [ceil_div(self.s.image_len() / self.v, THREADS), ceil_div(self.s.images(), 1), 1];
        self.blocks(what, self.kernel(family)?, grid, args, flops)
    }

    /// A launch of a thread for each of `n` elements.
    pub fn over<A: Args>(
        &mut self,
        what: &str,
        kernel: KernelOf<A>,
        n: usize,
        args: A,
        flops: usize,
    ) -> Result<()> {
        self.blocks(what, kernel, [ceil_div(n, THREADS), 1, 1], args, flops)
    }

    /// A launch of a block for each image.
    pub fn block_an_image<A: Args>(
        &mut self,
        what: &str,
        kernel: KernelOf<A>,
        args: A,
        flops: usize,
    ) -> Result<()> {
        self.blocks(what, kernel, [self.s.images() as u32, 1, 1], args, flops)
    }

    /// A launch of blocks of [`THREADS`] threads.
    pub fn blocks<A: Args>(
        &mut self,
        what: &str,
        kernel: KernelOf<A>,
        grid: [u32; 3],
        args: A,
        flops: usize,
    ) -> Result<()> {
        let launch = Launch::new(kernel, args)?.grid(grid).block([THREADS as u32, 1, 1]);
        self.sink.launch(what, launch.flops(flops));
        Ok(())
    }

    // ------------------------------------------------------------ memory

    /// Memory of the size of the input.
    pub fn tensor(&mut self, name: &str) -> BufferRef {
        let bytes = self.s.len() as u64 * self.layer.dtype.bytes();
        self.sink.scratch(name, bytes)
    }

    /// Memory for so many floats.
    pub fn floats(&mut self, name: &str, count: usize) -> BufferRef {
        self.sink.scratch(name, count as u64 * 4)
    }
}
