//! Convolutions: which variant computes them, and on which grid.

use super::{ConvVariant, Lowering};
use crate::Result;
use crate::device::Launch;
use crate::kernels::arg::Write;
use crate::kernels::{Args, KernelOf, args, entry};
use crate::tape::grid::{ceil_div, int};
use crate::tape::{Activation, Spectral, Value};
use crate::tensor::Shape;

/// Rows of a tile of the implicit GEMM.
const BM: usize = 128;
/// Threads a block of the implicit GEMM.
const GEMM_THREADS: u32 = 256;
/// Threads a block of the direct kernels.
const DIRECT_THREADS: usize = 64;
/// Threads in all from which a direct weight gradient need not be split over its pixels: about a GPU full.
const DIRECT_WGRAD_THREADS: usize = 65536;
/// Tiles in all from which an implicit-GEMM weight gradient need not be split: two for each of 132 SMs.
const GEMM_WGRAD_TILES: usize = 264;
/// Fewest pixels worth a chunk of their own.
const CHUNK_PIXELS: usize = 64;

/// Sizes that all three passes share.
struct Extents {
    inp: Shape,
    out: Shape,
    k: usize,
    stride: usize,
}

impl Extents {
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

/// The arguments of a pass, with the extents that all three take.
macro_rules! with_extents {
    ($args:ident { $($field:ident: $value:expr),* $(,)? }, $e:expr) => {
        args::$args {
            $($field: $value,)*
            n: int($e.inp.n),
            h: int($e.inp.h),
            w: int($e.inp.w),
            ci: int($e.inp.c),
            oh: int($e.out.h),
            ow: int($e.out.w),
            co: int($e.out.c),
            k: int($e.k),
            s: int($e.stride),
        }
    };
}

/// The implicit GEMM of a pass with tiles of `bn` columns.
fn gemm<A: Args>(bn: usize, [wide, narrow]: [KernelOf<A>; 2]) -> KernelOf<A> {
    if bn == 128 { wide } else { narrow }
}

/// The direct kernel of a pass out of those for (`vec`, `wide`) of both, `vec`, `wide` and neither: `vec` the
/// contracted channels come in fours, `wide` the tiled ones in eights.
fn direct<A: Args>(vec: bool, wide: bool, kernels: [KernelOf<A>; 4]) -> KernelOf<A> {
    kernels[2 * usize::from(!vec) + usize::from(!wide)]
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
        let (scale, n_per_scale) = self.scale(spectral, s.n);
        let e = Extents { inp: s, out: o, k: w.n, stride };
        let args = with_extents!(
            ConvForward {
                out: self.output(out),
                inp: self.input(inp),
                weight: self.input(weight),
                bias: bias.map(|b| self.input(b)),
                scale: scale,
                n_per_scale: n_per_scale,
                act: act as i32,
            },
            e
        );
        let rows = o.n * o.pixels();
        let launch = if let Some(bn) = e.gemm(self.options.conv, rows, o.c) {
            let kernel = gemm(bn, [entry::CONV_FORWARD_GEMM_N128_F32, entry::CONV_FORWARD_GEMM_N64_F32]);
            let grid = [ceil_div(rows, BM), ceil_div(o.c, bn), o.d as u32];
            Launch::new(kernel, args)?.grid(grid).block([GEMM_THREADS, 1, 1])
        } else {
            let wide = o.c.is_multiple_of(8);
            let kernels = [
                entry::CONV_FORWARD_DIRECT_X4_C8_F32,
                entry::CONV_FORWARD_DIRECT_X4_C4_F32,
                entry::CONV_FORWARD_DIRECT_X1_C8_F32,
                entry::CONV_FORWARD_DIRECT_X1_C4_F32,
            ];
            let threads = o.pixels().div_ceil(4) * o.c.div_ceil(tile_of(wide));
            let grid = [ceil_div(threads, DIRECT_THREADS), o.images() as u32, 1];
            let launch = Launch::new(direct(s.c.is_multiple_of(4), wide, kernels), args)?;
            launch.grid(grid).block([DIRECT_THREADS as u32, 1, 1])
        };
        self.launch(launch.flops(e.flops()));
        Ok(())
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
        let (scale, n_per_scale) = self.scale(spectral, s.n);
        let e = Extents { inp: s, out: o, k: w.n, stride };
        let args = with_extents!(
            ConvDgrad {
                dinp: self.gradient(dinp),
                dout: self.input(dpre),
                weight: self.input(weight),
                scale: scale,
                n_per_scale: n_per_scale,
            },
            e
        );
        let (phases, pixels) = (stride * stride, s.h.div_ceil(stride) * s.w.div_ceil(stride));
        let launch = if let Some(bn) = e.gemm(self.options.conv, s.n * pixels, s.c) {
            let kernel = gemm(bn, [entry::CONV_DGRAD_GEMM_N128_F32, entry::CONV_DGRAD_GEMM_N64_F32]);
            let grid = [ceil_div(s.n * pixels, BM), ceil_div(s.c, bn), (s.d * phases) as u32];
            Launch::new(kernel, args)?.grid(grid).block([GEMM_THREADS, 1, 1])
        } else {
            let wide = s.c.is_multiple_of(8);
            let kernels = [
                entry::CONV_DGRAD_DIRECT_X4_C8_F32,
                entry::CONV_DGRAD_DIRECT_X4_C4_F32,
                entry::CONV_DGRAD_DIRECT_X1_C8_F32,
                entry::CONV_DGRAD_DIRECT_X1_C4_F32,
            ];
            let threads = pixels.div_ceil(4) * s.c.div_ceil(tile_of(wide));
            let grid = [ceil_div(threads, DIRECT_THREADS), s.images() as u32, phases as u32];
            let launch = Launch::new(direct(o.c.is_multiple_of(4), wide, kernels), args)?;
            launch.grid(grid).block([DIRECT_THREADS as u32, 1, 1])
        };
        self.launch(launch.flops(e.flops()));
        Ok(())
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
        let (scale, n_per_scale) = self.scale(spectral, s.n);
        let e = Extents { inp: s, out: o, k: w.n, stride };
        let rows = w.n * w.n * s.c;
        let (pixels, image_rows) = (s.n * o.pixels(), s.n * o.h);
        let tile = e.gemm(self.options.conv, rows, o.c);
        let wide = o.c.is_multiple_of(8);
        let tiles = match tile {
            Some(bn) => rows.div_ceil(BM) * o.c.div_ceil(bn),
            None => w.n * w.n * s.c.div_ceil(4) * o.c.div_ceil(tile_of(wide)),
        };
        let full = if tile.is_some() { GEMM_WGRAD_TILES } else { DIRECT_WGRAD_THREADS };
        let chunks =
            (full / (tiles * s.d)).clamp(1, pixels.div_ceil(CHUNK_PIXELS)).min(image_rows).min(16384);
        let partial = (chunks > 1).then(|| self.scratch("partials", chunks * w.len()));
        let args = with_extents!(
            ConvWgrad {
                dweight: partial.map_or_else(|| self.gradient(dweight), Write::Store),
                inp: self.input(inp),
                dout: self.input(dpre),
                scale: scale,
                n_per_scale: n_per_scale,
                chunks: int(chunks),
            },
            e
        );
        let launch = if let Some(bn) = tile {
            let kernel = gemm(bn, [entry::CONV_WGRAD_GEMM_N128_F32, entry::CONV_WGRAD_GEMM_N64_F32]);
            let grid = [ceil_div(rows, BM), ceil_div(o.c, bn), (chunks * s.d) as u32];
            Launch::new(kernel, args)?.grid(grid).block([GEMM_THREADS, 1, 1])
        } else {
            let kernels = [
                entry::CONV_WGRAD_DIRECT_X4_C8_F32,
                entry::CONV_WGRAD_DIRECT_X4_C4_F32,
                entry::CONV_WGRAD_DIRECT_X1_C8_F32,
                entry::CONV_WGRAD_DIRECT_X1_C4_F32,
            ];
            let grid = [ceil_div(tiles, DIRECT_THREADS), chunks as u32, s.d as u32];
            let launch = Launch::new(direct(s.c.is_multiple_of(4), wide, kernels), args)?;
            launch.grid(grid).block([DIRECT_THREADS as u32, 1, 1])
        };
        self.launch(launch.flops(e.flops()));
        match partial {
            Some(partial) => self.reduce(partial, dweight, w.len(), chunks),
            None => Ok(()),
        }
    }
}
