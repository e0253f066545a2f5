//! The vectorised variant with the padding after the norm in the same pass. Kernels:
//! `kernels/adalin/5_pad_fused.cu`, and those of the vectorised one. `tape::rewrite::pad_fusion` finds the paddings.

use super::layer::{ForwardBuffers, Output};
use super::lowering::{NormLowering, Numbers};
use super::vectorised;
use crate::Result;
use crate::device::BufferRef;
use crate::kernels::arg::{In, Out};
use crate::kernels::args;
use crate::tape::grid::int;

/// As the vectorised variant; the last launch writes a padded output too. Leaves the lines, for the vectorised
/// variant's backward pass.
pub(super) fn forward(mut to: NormLowering, io: &ForwardBuffers) -> Result<BufferRef> {
    let (padded, p, up, plain) = match io.out {
        Output::Plain(out) => return vectorised::forward(to, io, out),
        Output::Padded { to, pad, up, plain } => (to, pad, up, plain),
    };
    let lines = vectorised::lines(&mut to, io)?;
    let (s, chunks) = (to.s, to.apply());
    let Numbers { c, act, .. } = to.numbers;
    let args = args::AdalinPadFused {
        padded: Out(padded),
        out: plain.map(Out),
        x: In(io.inp),
        lines: In(lines),
        residual: io.residual.map(In),
        h: int(s.h),
        w: int(s.w),
        c,
        act,
        p: int(p),
        up: int(up),
        rows: chunks.rows(),
    };
    to.pass("apply and pad", "adalin_pad_fused", chunks, args, 4 * s.len())?;
    Ok(lines)
}
