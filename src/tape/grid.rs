//! Grids, block shapes and extents of launches, and what a sum over a block costs.

use crate::device::Launch;
use crate::tensor::Shape;

/// Threads a block of the reductions and passes over channels and pixels.
pub(super) const THREADS: usize = 256;
/// Pixels a thread of such a pass walks over before another block is worth it.
const PIXELS_A_THREAD: usize = 16;

/// An extent as kernels take it.
///
/// # Panics
/// When it does not fit 31 bits; the planner has checked the tensors by then.
pub(super) fn int(v: usize) -> i32 {
    i32::try_from(v).expect("extent fits 31 bits")
}

/// Blocks of `b` that cover `a`.
///
/// # Panics
/// When they do not fit a grid.
pub(super) fn ceil_div(a: usize, b: usize) -> u32 {
    u32::try_from(a.div_ceil(b)).expect("grid fits 32 bits")
}

/// Operations of a sum over a block of threads that all of them want (`block_sum`): five shuffles in each
/// warp, then every thread adds up what the warps have. Where a layer is small, these are most of its operations.
pub(super) fn block_sum_for_all(threads: usize) -> usize {
    threads * (5 + threads / 32)
}

/// The same where one thread alone wants the sum.
pub(super) fn block_sum_for_one(threads: usize) -> usize {
    threads * 5 + threads / 32
}

/// Block shape (channels, pixels) of the passes that keep a thread on one channel.
pub(super) fn channel_block(c: usize) -> (usize, usize) {
    let channels = c.next_power_of_two().min(32);
    (channels, THREADS / channels)
}

/// Blocks over `rows` rows of `c` channels so that a thread has some work to do.
pub(super) fn chunks_of(rows: usize, c: usize) -> usize {
    rows.div_ceil(channel_block(c).1 * PIXELS_A_THREAD).clamp(1, 4096)
}

/// Blocks over `n` elements in a row, so that a thread of a reduction has some work to do; 64 at most.
pub(super) fn chunks_of_row(n: usize) -> usize {
    n.div_ceil(THREADS * PIXELS_A_THREAD).clamp(1, 64)
}

/// The launch with [`THREADS`] threads a block and the given grid.
pub(super) fn blocks(launch: Launch, grid: [u32; 3]) -> Launch {
    launch.grid(grid).block([THREADS as u32, 1, 1])
}

/// The launch with a thread for each of `n` elements.
pub(super) fn over(launch: Launch, n: usize) -> Launch {
    blocks(launch, [ceil_div(n, THREADS), 1, 1])
}

/// The launch over channels, chunks of pixels, images.
pub(super) fn pass(launch: Launch, s: Shape, chunks: usize) -> Launch {
    let (bc, bp) = channel_block(s.c);
    launch.grid([ceil_div(s.c, bc), chunks as u32, s.images() as u32]).block([bc as u32, bp as u32, 1])
}
