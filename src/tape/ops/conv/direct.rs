//! `kernels/conv/1_direct.cu`: a thread computes four pixels of a few channels.

use crate::Result;
use crate::device::Launch;
use crate::kernels::{Args, KernelOf, args, entry};
use crate::tape::grid::ceil_div;
use crate::tensor::Shape;

/// Threads a block.
const THREADS: usize = 64;
/// Threads for each multiprocessor from which a weight gradient need not be split over its pixels: a quarter of those
/// it holds, which has loads enough in flight.
pub(super) const WGRAD_FULL: usize = 512;

/// Threads that share the sum of a result with one channel.
const ONE_THREADS: u32 = 256;
/// Fewest channels of the sum worth that.
const ONE_CHANNELS: usize = 64;

/// Which of a pass's kernels. Each has four: for channels that come in fours (x4) or not (x1) along the sum,
/// and in eights (c8) or not (c4) in the result.
fn pick<A: Args>(summed: usize, tiled: usize, [x4_c8, x4_c4, x1_c8, x1_c4]: [KernelOf<A>; 4]) -> KernelOf<A> {
    match (summed.is_multiple_of(4), tiled.is_multiple_of(8)) {
        (true, true) => x4_c8,
        (true, false) => x4_c4,
        (false, true) => x1_c8,
        (false, false) => x1_c4,
    }
}

/// Threads that have a channel of `c`.
fn channel_groups(c: usize) -> usize {
    c.div_ceil(if c.is_multiple_of(8) { 8 } else { 4 })
}

fn blocks(launch: Launch, threads: usize, y: usize, z: usize) -> Launch {
    launch.grid([ceil_div(threads, THREADS), y as u32, z as u32]).block([THREADS as u32, 1, 1])
}

pub(super) fn forward(args: args::ConvForwardDirect, inp: Shape, out: Shape) -> Result<Launch> {
    if out.c == 1 && inp.c >= ONE_CHANNELS {
        let launch = Launch::new(entry::CONV_FORWARD_DIRECT_ONE_F32, args)?;
        let grid = [out.pixels() as u32, out.images() as u32, 1];
        return Ok(launch.grid(grid).block([ONE_THREADS, 1, 1]));
    }
    let kernels = [
        entry::CONV_FORWARD_DIRECT_X4_C8_F32,
        entry::CONV_FORWARD_DIRECT_X4_C4_F32,
        entry::CONV_FORWARD_DIRECT_X1_C8_F32,
        entry::CONV_FORWARD_DIRECT_X1_C4_F32,
    ];
    let launch = Launch::new(pick(inp.c, out.c, kernels), args)?;
    Ok(blocks(launch, out.pixels().div_ceil(4) * channel_groups(out.c), out.images(), 1))
}

/// `pixels` of the input for each of the `phases` of the stride.
pub(super) fn dgrad(
    args: args::ConvDgradDirect,
    inp: Shape,
    out: Shape,
    phases: usize,
    pixels: usize,
) -> Result<Launch> {
    let kernels = [
        entry::CONV_DGRAD_DIRECT_X4_C8_F32,
        entry::CONV_DGRAD_DIRECT_X4_C4_F32,
        entry::CONV_DGRAD_DIRECT_X1_C8_F32,
        entry::CONV_DGRAD_DIRECT_X1_C4_F32,
    ];
    let launch = Launch::new(pick(out.c, inp.c, kernels), args)?;
    Ok(blocks(launch, pixels.div_ceil(4) * channel_groups(inp.c), inp.images(), phases))
}

/// Threads for a weight gradient `[k, k, CI, CO]`.
pub(super) fn wgrad_threads(weight: Shape) -> usize {
    weight.n * weight.n * weight.w.div_ceil(4) * channel_groups(weight.c)
}

pub(super) fn wgrad(args: args::ConvWgradDirect, weight: Shape, chunks: usize) -> Result<Launch> {
    let kernels = [
        entry::CONV_WGRAD_DIRECT_X4_C8_F32,
        entry::CONV_WGRAD_DIRECT_X4_C4_F32,
        entry::CONV_WGRAD_DIRECT_X1_C8_F32,
        entry::CONV_WGRAD_DIRECT_X1_C4_F32,
    ];
    let launch = Launch::new(pick(weight.w, weight.c, kernels), args)?;
    Ok(blocks(launch, wgrad_threads(weight), chunks, weight.d))
}
