//! Reflection padding after nearest-neighbour up-sampling. Kernels: `kernels/pad.cu`.

use crate::Result;
use crate::device::Launch;
use crate::kernels::arg::In;
use crate::kernels::{args, entry};
use crate::tape::grid::{THREADS, blocks, ceil_div, int};
use crate::tape::lowering::Lowering;
use crate::tape::operation::{Backward, Operation, Uses};
use crate::tape::record::Tape;
use crate::tape::value::Value;
use crate::tensor::Shape;

impl Tape {
    /// Reflect padding by `pad` after nearest-neighbour up-sampling by `up`.
    ///
    /// # Panics
    /// When the padding is as wide as the image: reflection is not defined there.
    pub fn pad(&mut self, inp: Value, pad: usize, up: usize) -> Value {
        let s = self.shape(inp);
        assert!(pad < s.h * up && pad < s.w * up, "reflect padding {pad} of a {}x{} map", s.h * up, s.w * up);
        let name = format!("{}.padded", self.short_name(inp));
        let out = self.temp(&name, padded(s, pad, up));
        self.push(Pad { inp, out, pad, up });
        out
    }
}

/// The shape of a map up-sampled by `up`, then padded by `pad`.
pub(crate) fn padded(s: Shape, pad: usize, up: usize) -> Shape {
    Shape { h: s.h * up + 2 * pad, w: s.w * up + 2 * pad, ..s }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Pad {
    pub inp: Value,
    pub out: Value,
    pub pad: usize,
    pub up: usize,
}

impl Operation for Pad {
    fn uses(&self) -> Uses {
        Uses::reads([self.inp]).differentiable().writes([self.out])
    }

    fn adjoint(&self, back: &mut Backward) {
        if let Some((dout, dinp)) = back.flow(self.out, self.inp) {
            back.push(PadGrad { dout, dinp, pad: self.pad, up: self.up });
        }
    }

    fn lower(&self, to: &mut Lowering) -> Result<()> {
        to.label("pad", self.out);
        let (s, o) = (to.shape(self.inp), to.shape(self.out));
        let (kernel, v) = match s.c.is_multiple_of(4) {
            true => (entry::PAD_FORWARD_X4_F32, 4),
            false => (entry::PAD_FORWARD_X1_F32, 1),
        };
        let args = args::PadForward {
            out: to.output(self.out),
            inp: to.input(self.inp),
            h: int(s.h),
            w: int(s.w),
            c: int(s.c),
            pad: int(self.pad),
            up: int(self.up),
        };
        let grid = [ceil_div(o.w * o.c / v, THREADS), o.h as u32, o.images() as u32];
        to.launch(blocks(Launch::new(kernel, args)?, grid));
        Ok(())
    }
}

#[derive(Debug)]
pub(crate) struct PadGrad {
    pub dout: Value,
    pub dinp: Value,
    pub pad: usize,
    pub up: usize,
}

impl Operation for PadGrad {
    fn uses(&self) -> Uses {
        Uses::reads([self.dout]).writes([self.dinp])
    }

    fn lower(&self, to: &mut Lowering) -> Result<()> {
        to.label("pad grad", self.dinp);
        let dout = to.input(self.dout);
        gather(to, dout, self.dinp, self.pad, self.up)
    }
}

/// The launch that takes a padded gradient back to that of the input, `dinp`.
pub(crate) fn gather(to: &mut Lowering, dout: In, dinp: Value, pad: usize, up: usize) -> Result<()> {
    let s = to.shape(dinp);
    let (kernel, v) = match s.c.is_multiple_of(4) {
        true => (entry::PAD_BACKWARD_X4_F32, 4),
        false => (entry::PAD_BACKWARD_X1_F32, 1),
    };
    let args = args::PadBackward {
        dinp: to.gradient(dinp),
        dout,
        h: int(s.h),
        w: int(s.w),
        c: int(s.c),
        pad: int(pad),
        up: int(up),
    };
    let grid = [ceil_div(s.w * s.c / v, THREADS), s.h as u32, s.images() as u32];
    to.launch(blocks(Launch::new(kernel, args)?, grid).flops(padded(s, pad, up).len()));
    Ok(())
}
