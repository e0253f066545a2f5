//! Images moved between batches. Kernels: `kernels/copy.cu`.

use crate::device::Launch;
use crate::kernels::arg::{In, Write};
use crate::kernels::{args, entry};
use crate::tape::grid::{THREADS, blocks, ceil_div, int};
use crate::tape::lowering::Lowering;
use crate::tape::operation::{Backward, Operation, Uses};
use crate::tape::record::Tape;
use crate::tape::value::Value;
use crate::tensor::Shape;
use crate::{Error, Result};

impl Tape {
    /// A batch put together from images of other batches: for each part, `count` images of every
    /// direction of `inp` from image `first` on; with `swap` direction d takes direction D - 1 - d.
    pub fn gather(&mut self, name: &str, parts: &[(Value, usize, usize, bool)]) -> Value {
        let s = self.shape(parts[0].0);
        let out = self.temp(name, Shape { n: parts.iter().map(|p| p.2).sum(), ..s });
        let mut at = 0;
        for &(inp, inp_first, count, swap) in parts {
            self.push(CopyImages { inp, inp_first, out, out_first: at, count, swap, add: false });
            at += count;
        }
        out
    }
}

/// `add` marks an adjoint: the images are added to what is there.
#[derive(Debug)]
pub(super) struct CopyImages {
    inp: Value,
    inp_first: usize,
    out: Value,
    out_first: usize,
    count: usize,
    swap: bool,
    add: bool,
}

impl CopyImages {
    /// Adds all images of one gradient to another one.
    pub fn add(inp: Value, out: Value, count: usize) -> Self {
        Self { inp, inp_first: 0, out, out_first: 0, count, swap: false, add: true }
    }
}

impl Operation for CopyImages {
    fn uses(&self) -> Uses {
        let uses = Uses::reads([self.inp]).writes([self.out]);
        if self.add { uses } else { uses.differentiable() }
    }

    fn adjoint(&self, back: &mut Backward) {
        let Self { inp_first, out_first, count, swap, .. } = *self;
        if !self.add
            && let Some((dout, dinp)) = back.flow(self.out, self.inp)
        {
            back.push(Self {
                inp: dout,
                inp_first: out_first,
                out: dinp,
                out_first: inp_first,
                count,
                swap,
                add: true,
            });
        }
    }

    fn lower(&self, to: &mut Lowering) -> Result<()> {
        to.label(if self.add { "add" } else { "copy" }, self.out);
        let (si, so) = (to.shape(self.inp), to.shape(self.out));
        let n = self.count * si.image_len();
        if self.add && self.count != so.n && !to.is_written(self.out) {
            let name = &to.info(self.out).name;
            let what = "a part of it is added to before the whole was written";
            return Err(Error::new(format!("{name}: {what}")));
        }
        let first = self.out_first * so.image_len();
        let out = match self.add {
            true => to.gradient_from(self.out, first),
            false => Write::Store(to.buffer_from(self.out, first)),
        };
        let args = args::CopyImages {
            out,
            inp: In(to.buffer_from(self.inp, self.inp_first * si.image_len())),
            count: int(n),
            out_stride: int(so.n * so.image_len()),
            inp_stride: int(si.n * si.image_len()),
            swap: i32::from(self.swap),
        };
        let copied = n * si.d;
        let grid = [ceil_div(n, THREADS), si.d as u32, 1];
        let launch = blocks(Launch::new(entry::COPY_IMAGES_F32, args)?, grid);
        // Only the part that is copied moves, whatever the buffers' sizes.
        let launch = launch.moves(copied as u64 * 4 * if out.adds() { 3 } else { 2 });
        to.launch(launch.flops(if out.adds() { copied } else { 0 }));
        Ok(())
    }
}
