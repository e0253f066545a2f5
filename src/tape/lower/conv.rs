//! Convolutions: which variant computes them, and on which grid.

use super::{ConvVariant, Lowering, div_up, int};
use crate::Result;
use crate::device::Arg;
use crate::tape::{Activation, Spectral, Value};
use crate::tensor::Shape;

/// Rows of a tile of the implicit GEMM.
const BM: usize = 128;
/// Threads in all from which a direct weight gradient need not be split over its pixels: about a GPU full.
const DIRECT_WGRAD_THREADS: usize = 65536;
/// Tiles in all from which an implicit-GEMM weight gradient need not be split: two for each of 132 SMs.
const GEMM_WGRAD_TILES: usize = 264;
/// Fewest pixels worth a chunk of their own.
const CHUNK_PIXELS: usize = 64;

/// Sizes that all three passes share, in the order of the kernels' arguments.
struct Extents {
    inp: Shape,
    out: Shape,
    k: usize,
    stride: usize,
    per_scale: Arg,
}

impl Extents {
    fn args(&self) -> [Arg; 10] {
        let (s, o) = (self.inp, self.out);
        let sizes = [s.n, s.h, s.w, s.c, o.h, o.w, o.c, self.k, self.stride].map(int);
        let mut args = [self.per_scale; 10];
        args[..9].copy_from_slice(&sizes);
        args
    }

    fn flops(&self) -> usize {
        2 * self.out.len() * self.k * self.k * self.inp.c
    }

    /// Columns of the implicit GEMM's tile, or None for the direct kernel. `rows` and `columns` are those
    /// of one direction's result matrix.
    fn gemm(&self, variant: ConvVariant, rows: usize, columns: usize) -> Option<usize> {
        let possible = self.inp.c.is_multiple_of(4) && self.out.c.is_multiple_of(4);
        let chosen = match variant {
            ConvVariant::Direct => false,
            ConvVariant::ImplicitGemm => true,
            // Half-empty tiles cost as much as full ones.
            ConvVariant::Auto => rows >= BM / 2 && columns >= 48,
        };
        (possible && chosen).then_some(if columns > 64 { 128 } else { 64 })
    }
}

/// Name of a direct kernel: `vec` the contracted channels come in fours, `wide` the tiled ones in eights.
fn direct(pass: &str, vec: bool, wide: bool) -> String {
    format!("conv_{pass}_direct_x{}_c{}_f32", if vec { 4 } else { 1 }, if wide { 8 } else { 4 })
}

/// Channels a thread of a direct kernel.
fn tile_of(wide: bool) -> usize {
    if wide { 8 } else { 4 }
}

impl Lowering<'_> {
    pub(super) fn conv(
        &mut self,
        inp: Value,
        weight: Value,
        bias: Option<Value>,
        spectral: Option<Spectral>,
        out: Value,
        stride: usize,
        act: Activation,
    ) -> Result<()> {
        self.label("conv", out);
        let (s, w, o) = (self.shape(inp), self.shape(weight), self.shape(out));
        let (scale, per_scale) = self.scale_args(spectral, s.n);
        let e = Extents { inp: s, out: o, k: w.n, stride, per_scale };
        let mut args = vec![self.buf(out), self.buf(inp), self.buf(weight), self.maybe(bias), scale];
        args.extend(e.args());
        args.push(Arg::I32(act as i32));
        let rows = o.n * o.pixels();
        if let Some(bn) = e.gemm(self.options.conv, rows, o.c) {
            let grid = [div_up(rows, BM), div_up(o.c, bn), o.d as u32];
            return self.launch(&format!("conv_forward_gemm_n{bn}_f32"), grid, [256, 1, 1], args, e.flops());
        }
        let (vec, wide) = (s.c % 4 == 0, o.c % 8 == 0);
        let threads = o.pixels().div_ceil(4) * o.c.div_ceil(tile_of(wide));
        let grid = [div_up(threads, 64), o.images() as u32, 1];
        self.launch(&direct("forward", vec, wide), grid, [64, 1, 1], args, e.flops())
    }

    pub(super) fn conv_input_grad(
        &mut self,
        dpre: Value,
        weight: Value,
        spectral: Option<Spectral>,
        dinp: Value,
        stride: usize,
    ) -> Result<()> {
        self.label("conv dgrad", dinp);
        let (s, w, o) = (self.shape(dinp), self.shape(weight), self.shape(dpre));
        let (scale, per_scale) = self.scale_args(spectral, s.n);
        let e = Extents { inp: s, out: o, k: w.n, stride, per_scale };
        let accumulate = self.accumulate(dinp);
        let mut args = vec![self.buf(dinp), self.buf(dpre), self.buf(weight), scale];
        args.extend(e.args());
        args.push(accumulate);
        let (phases, pixels) = (stride * stride, s.h.div_ceil(stride) * s.w.div_ceil(stride));
        if let Some(bn) = e.gemm(self.options.conv, s.n * pixels, s.c) {
            let grid = [div_up(s.n * pixels, BM), div_up(s.c, bn), (s.d * phases) as u32];
            return self.launch(&format!("conv_dgrad_gemm_n{bn}_f32"), grid, [256, 1, 1], args, e.flops());
        }
        let (vec, wide) = (o.c % 4 == 0, s.c % 8 == 0);
        let threads = pixels.div_ceil(4) * s.c.div_ceil(tile_of(wide));
        let grid = [div_up(threads, 64), s.images() as u32, phases as u32];
        self.launch(&direct("dgrad", vec, wide), grid, [64, 1, 1], args, e.flops())
    }

    pub(super) fn conv_weight_grad(
        &mut self,
        dpre: Value,
        inp: Value,
        dweight: Value,
        stride: usize,
        spectral: Option<Spectral>,
    ) -> Result<()> {
        self.label("conv wgrad", dweight);
        let (s, w, o) = (self.shape(inp), self.shape(dweight), self.shape(dpre));
        let (scale, per_scale) = self.scale_args(spectral, s.n);
        let e = Extents { inp: s, out: o, k: w.n, stride, per_scale };
        let rows = w.n * w.n * s.c;
        let (pixels, image_rows) = (s.n * o.pixels(), s.n * o.h);
        let gemm = e.gemm(self.options.conv, rows, o.c);
        let wide = o.c % 8 == 0;
        let tiles = match gemm {
            Some(bn) => rows.div_ceil(BM) * o.c.div_ceil(bn),
            None => w.n * w.n * s.c.div_ceil(4) * o.c.div_ceil(tile_of(wide)),
        };
        let full = if gemm.is_some() { GEMM_WGRAD_TILES } else { DIRECT_WGRAD_THREADS };
        let chunks =
            (full / (tiles * s.d)).clamp(1, pixels.div_ceil(CHUNK_PIXELS)).min(image_rows).min(16384);
        let accumulate = self.accumulate(dweight);
        let split = chunks > 1;
        let target = if split { self.scratch("partials", chunks * w.len()) } else { self.buf(dweight) };
        let mut args = vec![target, self.buf(inp), self.buf(dpre), scale];
        args.extend(e.args());
        args.extend([int(chunks), if split { Arg::I32(0) } else { accumulate }]);
        if let Some(bn) = gemm {
            let grid = [div_up(rows, BM), div_up(o.c, bn), (chunks * s.d) as u32];
            self.launch(&format!("conv_wgrad_gemm_n{bn}_f32"), grid, [256, 1, 1], args, e.flops())?;
        } else {
            let grid = [div_up(tiles, 64), chunks as u32, s.d as u32];
            self.launch(&direct("wgrad", s.c % 4 == 0, wide), grid, [64, 1, 1], args, e.flops())?;
        }
        if split { self.reduce(target, dweight, w.len(), chunks, accumulate) } else { Ok(()) }
    }
}
