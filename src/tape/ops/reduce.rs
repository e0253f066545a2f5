//! Sums: the gradient of a bias, and the chunks of a split reduction. Kernels: `kernels/reduce.cu`.

use crate::Result;
use crate::device::{BufferRef, Launch};
use crate::kernels::arg::{In, Write};
use crate::kernels::{args, entry};
use crate::tape::grid::{ceil_div, channel_block, chunks_of, int, over};
use crate::tape::lowering::Lowering;
use crate::tape::operation::{Operation, Uses};
use crate::tape::value::Value;

/// Joins the chunks of a split reduction into a gradient.
pub(super) fn join_chunks(to: &mut Lowering, partial: BufferRef, out: Value, chunks: usize) -> Result<()> {
    let n = to.shape(out).len();
    let args =
        args::ReducePartials { out: to.gradient(out), partial: In(partial), n: int(n), chunks: int(chunks) };
    to.launch(over(Launch::new(entry::REDUCE_PARTIALS_F32, args)?, n).flops(n * chunks));
    Ok(())
}

/// The gradient of a bias: the sum over the pixels of each channel.
#[derive(Debug)]
pub(super) struct BiasGrad {
    pub dpre: Value,
    pub dbias: Value,
}

impl Operation for BiasGrad {
    fn uses(&self) -> Uses {
        Uses::reads([self.dpre]).writes([self.dbias])
    }

    fn lower(&self, to: &mut Lowering) -> Result<()> {
        to.label("bias grad", self.dbias);
        let s = to.shape(self.dpre);
        let rows = s.n * s.pixels();
        let chunks = chunks_of(rows, s.c);
        let n = to.shape(self.dbias).len();
        let partial = (chunks > 1).then(|| to.scratch("partials", chunks * n));
        let args = args::BiasBackward {
            partial: partial.map_or_else(|| to.gradient(self.dbias), Write::Store),
            dout: to.input(self.dpre),
            rows: int(rows),
            c: int(s.c),
            chunks: int(chunks),
        };
        let (bc, bp) = channel_block(s.c);
        let launch = Launch::new(entry::BIAS_BACKWARD_F32, args)?
            .grid([ceil_div(s.c, bc), chunks as u32, s.d as u32])
            .block([bc as u32, bp as u32, 1]);
        to.launch(launch.flops(s.len()));
        match partial {
            Some(partial) => join_chunks(to, partial, self.dbias, chunks),
            None => Ok(()),
        }
    }
}
