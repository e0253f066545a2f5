//! One cooperative launch that reads its input once. Kernels: `kernels/adalin/6_cooperative.cu`. Images that the target's
//! shared memory does not hold are left to the vectorised variant.

use super::layer::{BackwardBuffers, EPS, ForwardBuffers, Params};
use super::lowering::{NormLowering, Numbers};
use super::vectorised;
use crate::Result;
use crate::device::{BufferRef, Launch};
use crate::kernels::Args;
use crate::kernels::arg::{In, Out, Scratch};
use crate::kernels::args;
use crate::tape::grid::{ceil_div, int};

/// Threads a block, as the kernels have it.
const THREADS: usize = 512;
/// Groups of channels a block, at most: a cache line of 128 bytes.
const WIDTH: usize = 8;
/// Channels whose partial sums one block joins, as the kernels have it.
const SLICE: usize = 8;
/// Bytes of shared memory that the kernels have beside the tile, at most.
const OWN_BYTES: usize = 11 << 10;

/// How the images are split over the blocks.
struct Split {
    /// Pixels a block.
    rows: usize,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
}

impl Split {
    /// The split over blocks whose shared memory holds `tiles` tensors; None where it holds no whole image.
    fn new(to: &NormLowering, tiles: usize) -> Option<Self> {
        let (images, pixels) = (to.s.images(), to.s.pixels());
        let width = to.block.0.min(if to.v == 1 { 32 } else { WIDTH });
        let columns = (to.s.c / to.v).div_ceil(width);
        let height = THREADS / width;
        let row_bytes = width * to.v * to.layer.dtype.bytes() as usize * tiles;
        let target = to.sink.target();
        let max_chunks = target.sms as usize / columns;
        let tile_bytes = (target.shared_bytes as usize).saturating_sub(OWN_BYTES);
        let min_chunks = pixels.div_ceil((tile_bytes / row_bytes).max(1));
        if tile_bytes < row_bytes || min_chunks > max_chunks {
            return None;
        }
        let groups = images.min(max_chunks / min_chunks);
        // Where all images are at work at once, they take all blocks. Where they come in turns, fewer and larger
        // chunks leave fewer partial sums.
        let spread = (max_chunks / groups).min(pixels.div_ceil(height * 4)).max(min_chunks);
        let rows = pixels.div_ceil(if groups == images { spread } else { min_chunks });
        let grid = [ceil_div(columns, 1), ceil_div(pixels, rows), ceil_div(groups, 1)];
        let block = [width as u32, height as u32, 1];
        Some(Self { rows, grid, block, shared_bytes: (rows * row_bytes) as u32 })
    }

    /// Partial sums, planes of C floats an image, sums of slices, counters of the barriers.
    fn scratch(&self, to: &mut NormLowering, planes: usize, of_slice: usize) -> Result<[Scratch; 4]> {
        let s = to.s;
        let partial = to.floats("partial sums", s.images() * self.grid[1] as usize * 2 * s.c);
        let planes = to.floats("planes", s.images() * planes * s.c);
        let slices = to.floats("slices", s.images() * s.c.div_ceil(SLICE) * of_slice);
        let counters = to.sink.counters(3 * s.images())?;
        Ok([partial, planes, slices, counters].map(Scratch))
    }

    fn launch<A: Args>(&self, to: &mut NormLowering, family: &str, args: A, flops: usize) -> Result<()> {
        let launch = Launch::new(to.kernel(family)?, args)?.grid(self.grid).block(self.block);
        to.sink.launch("norm", launch.shared(self.shared_bytes).cooperative().flops(flops));
        Ok(())
    }
}

/// One launch. Leaves the lines, as the vectorised variant does.
pub(super) fn forward(mut to: NormLowering, io: &ForwardBuffers, out: BufferRef) -> Result<BufferRef> {
    let Some(split) = Split::new(&to, 1) else { return vectorised::forward(to, io, out) };
    let s = to.s;
    let lines = to.floats("lines", s.images() * s.c * 3);
    let [partial, planes, slices, counters] = split.scratch(&mut to, 4, 3)?;
    let [rho, gamma, beta] = Params::args(io.params);
    let Numbers { hw, c, n, images_per_affine, unbiased, act } = to.numbers;
    let args = args::AdalinCooperativeForward {
        out: Out(out),
        x: In(io.inp),
        residual: io.residual.map(In),
        stats: Out(io.stats),
        layer_stats: io.layer_stats.map(Out),
        lines: Out(lines),
        partial,
        planes,
        slices,
        counters,
        rho,
        gamma,
        beta,
        images: int(s.images()),
        hw,
        c,
        n,
        images_per_affine,
        rows: int(split.rows),
        unbiased,
        act,
        eps: EPS,
    };
    split.launch(&mut to, "adalin_cooperative_forward", args, 7 * s.len())?;
    Ok(lines)
}

/// One launch, and with parameters one for their gradients, which go over all images.
pub(super) fn backward(mut to: NormLowering, io: &BackwardBuffers, lines: BufferRef) -> Result<()> {
    let Some(split) = Split::new(&to, 2) else { return vectorised::backward(to, io, lines) };
    let s = to.s;
    let totals = to.floats("totals", s.images() * 2 * s.c);
    let [partial, planes, slices, counters] = split.scratch(&mut to, 3, 2)?;
    let [rho, gamma, _] = Params::args(io.params);
    let Numbers { hw, c, n, images_per_affine, unbiased, act } = to.numbers;
    let args = args::AdalinCooperativeBackward {
        dx: io.dinp,
        totals: Out(totals),
        dout: In(io.dout),
        x: In(io.inp),
        stats: In(io.stats),
        layer_stats: io.layer_stats.map(In),
        lines: In(lines),
        partial,
        planes,
        slices,
        counters,
        rho,
        gamma,
        images: int(s.images()),
        hw,
        c,
        n,
        images_per_affine,
        rows: int(split.rows),
        unbiased,
        act,
    };
    split.launch(&mut to, "adalin_cooperative_backward", args, 9 * s.len())?;
    if io.params.is_some() {
        vectorised::parameters_backward(&mut to, io, totals)?;
    }
    Ok(())
}
