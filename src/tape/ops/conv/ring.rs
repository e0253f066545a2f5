//! What the border of a reflect-padded input has from its mirror images (`kernels/common/ring.cuh`).

use super::tiles::Tile;
use crate::tensor::Shape;

/// The largest side of a weight that the kernels take.
const MAX_K: usize = 7;

/// Whether the kernels can do it, and there are targets enough that most tiles of them need the taps of one side only. Else
/// the whole padded gradient costs no more.
pub(super) fn pays(inp: Shape, weight: Shape, pad: usize, tile: Tile) -> bool {
    weight.n <= MAX_K && weight.h <= MAX_K && 2 * inp.n * targets(inp, pad) >= 3 * tile.rows
}

/// Positions of `n` that have a mirror image in a padding by `pad`; all where the two sides meet.
fn border(n: usize, pad: usize) -> usize {
    if 2 * pad + 2 > n { n } else { 2 * pad }
}

/// Pixels of an image that have one.
pub(super) fn targets(s: Shape, pad: usize) -> usize {
    let (rows, columns) = (border(s.h, pad), border(s.w, pad));
    rows * s.w + (s.h - rows) * columns
}

/// Of the products of a padded image, those that images contribute: the share of padded positions that are images.
pub(super) fn share(flops: usize, inp: Shape, padded: Shape) -> usize {
    flops - (flops as f64 * inp.pixels() as f64 / padded.pixels() as f64) as usize
}

/// The bytes that its kernel must move: the targets, as many pixels of the output's gradient, and the weight.
pub(super) fn moves(inp: Shape, weight: Shape, out: Shape, pad: usize) -> u64 {
    let pixels = targets(inp, pad) * inp.images();
    let read = pixels.min(out.images() * out.pixels()) * out.c + weight.len();
    4 * (2 * pixels * inp.c + read) as u64
}
