//! Convolutions to few channels, as ones of K x 1 taps to K times as many: `kernels/narrow.cu`.

use super::tiles::Extents;
use crate::Result;
use crate::device::Launch;
use crate::kernels::arg::{In, Out};
use crate::kernels::{args, entry};
use crate::tape::grid::{THREADS, blocks, ceil_div, int};
use crate::tape::lowering::Lowering;
use crate::tape::ops::activation::Activation;
use crate::tape::precision::Precision;
use crate::tape::value::Value;
use crate::tape::variant::{ConvVariant, LowerOptions};
use crate::tensor::Shape;

/// Most columns worth it: with more, a tile is filled without.
const COLUMNS: usize = 32;
/// Fewest channels of the input: with fewer, the columns are most of what is moved.
const CHANNELS: usize = 16;
/// Fewest rows of pixels a direction for which fp32 tiles, which are wider, are worth it.
const ROWS: usize = 1 << 14;

/// Such a convolution.
#[derive(Clone, Copy)]
pub(super) struct Narrow {
    /// Of the convolution itself.
    e: Extents,
    /// Of the one with K x 1 taps.
    pub wide: Extents,
}

impl Narrow {
    /// The convolution as one, where that pays.
    pub fn of(e: &Extents, options: &LowerOptions) -> Option<Self> {
        let Extents { inp, weight, out, stride } = *e;
        let (k, columns) = (weight.n, weight.n * out.c);
        let pays = match (options.conv, options.precision) {
            (Some(ConvVariant::Direct), _) => false,
            (Some(_), _) | (None, Precision::Tf32) => true,
            (None, Precision::F32) => out.n * out.pixels() >= ROWS,
        };
        let suits = stride == 1
            && k > 1
            && out.c > 1
            && columns <= COLUMNS
            && inp.c >= CHANNELS
            && inp.c.is_multiple_of(4);
        if !(pays && suits) {
            return None;
        }
        let c = columns.next_multiple_of(4);
        let weight = Shape { h: 1, c, ..weight };
        let out = Shape { w: out.w + k - 1, c, ..out };
        Some(Self { e: *e, wide: Extents { inp, weight, out, stride } })
    }

    /// The weight of the wide one.
    pub fn weight(&self, to: &mut Lowering, weight: Value) -> Result<In> {
        let wide = self.wide.weight;
        let to_here = to.scratch("wide weight", wide.len());
        let args = args::NarrowWeight {
            wide: Out(to_here),
            weight: to.input(weight),
            k: int(wide.n),
            ci: int(wide.w),
            co: int(self.e.out.c),
            c: int(wide.c),
        };
        let grid = [ceil_div(wide.len() / wide.d, THREADS), wide.d as u32, 1];
        to.launch(blocks(Launch::new(entry::NARROW_WEIGHT_F32, args)?, grid));
        Ok(In(to_here))
    }

    /// The gradient of the weight, from that of the wide one.
    pub fn weight_grad(&self, to: &mut Lowering, wide: In, dweight: Value) -> Result<()> {
        let (from, weight) = (self.wide.weight, self.e.weight);
        let args = args::NarrowWeightBackward {
            dweight: to.gradient(dweight),
            wide,
            k: int(from.n),
            ci: int(from.w),
            co: int(weight.c),
            c: int(from.c),
        };
        let grid = [ceil_div(weight.len() / weight.d, THREADS), weight.d as u32, 1];
        to.launch(blocks(Launch::new(entry::NARROW_WEIGHT_BACKWARD_F32, args)?, grid));
        Ok(())
    }

    /// The output, from the columns.
    pub fn fold(
        &self,
        to: &mut Lowering,
        wide: In,
        out: Out,
        bias: Option<In>,
        act: Activation,
    ) -> Result<()> {
        let (s, k) = (self.e.out, self.e.weight.n);
        let args = args::NarrowFold {
            out,
            wide,
            bias,
            n: int(s.n),
            h: int(s.h),
            w: int(s.w),
            co: int(s.c),
            k: int(k),
            c: int(self.wide.out.c),
            act: act as i32,
        };
        let grid = [ceil_div(s.w * s.c, THREADS), s.h as u32, s.images() as u32];
        to.launch(blocks(Launch::new(entry::NARROW_FOLD_F32, args)?, grid).flops(k * s.len()));
        Ok(())
    }

    /// The gradient of the columns.
    pub fn unfold(&self, to: &mut Lowering, dpre: Value) -> Result<In> {
        let (s, wide) = (self.e.out, self.wide.out);
        let to_here = to.scratch("columns' gradient", wide.len());
        let args = args::NarrowFoldBackward {
            wide: Out(to_here),
            dout: to.input(dpre),
            h: int(s.h),
            w: int(s.w),
            co: int(s.c),
            k: int(self.e.weight.n),
            c: int(wide.c),
        };
        let grid = [ceil_div(wide.w * wide.c, THREADS), s.h as u32, s.images() as u32];
        to.launch(blocks(Launch::new(entry::NARROW_FOLD_BACKWARD_F32, args)?, grid));
        Ok(In(to_here))
    }
}
