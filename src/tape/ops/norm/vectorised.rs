//! The fused variant with 16 bytes a memory access. Kernels: `kernels/adalin/4_vectorised.cu`.

use super::layer::{BackwardBuffers, EPS, ForwardBuffers, Params};
use super::lowering::{Chunks, NormLowering, Numbers};
use crate::Result;
use crate::device::{BufferRef, Launch};
use crate::kernels::arg::{In, Out};
use crate::kernels::{args, entry};
use crate::tape::grid::{block_sum_for_all, ceil_div, int};

/// Threads a block of the small kernels between the passes.
const SMALL: usize = 1024;

/// Block (channels, parts) of the small kernels.
fn small_block(channels: usize) -> [u32; 3] {
    let channels = channels.next_power_of_two().min(256);
    [channels as u32, (SMALL / channels) as u32, 1]
}

/// Pairs of threads of that block that join what they have, for all channels of an image.
fn small_joins(channels: usize) -> usize {
    let [width, ..] = small_block(channels);
    channels.div_ceil(width as usize) * (SMALL - width as usize)
}

/// Mean and M2 of every channel of every chunk: `[D, N, chunks, 2, C]`, and the chunks.
pub(super) fn statistics(to: &mut NormLowering, inp: BufferRef) -> Result<(BufferRef, Chunks)> {
    let chunks = to.reduction();
    let Numbers { hw, c, .. } = to.numbers;
    let partial = to.floats("statistics", chunks.count() * to.s.c * 2);
    let args = args::AdalinStatistics { partial: Out(partial), x: In(inp), hw, c, rows: chunks.rows() };
    to.pass("statistics", "adalin_statistics", chunks, args, 3 * to.s.len())?;
    Ok((partial, chunks))
}

/// Mean, scale and shift of every channel, `[D, N, 3, C]`: two launches.
pub(super) fn lines(to: &mut NormLowering, io: &ForwardBuffers) -> Result<BufferRef> {
    let (partial, chunks) = statistics(to, io.inp)?;
    let s = to.s;
    let Numbers { hw, c, n, images_per_affine, unbiased, .. } = to.numbers;
    let lines = to.floats("lines", s.images() * s.c * 3);
    let [rho, gamma, beta] = Params::args(io.params);
    let args = args::AdalinFinishRows {
        stats: Out(io.stats),
        layer_stats: io.layer_stats.map(Out),
        lines: Out(lines),
        partial: In(partial),
        rho,
        gamma,
        beta,
        hw,
        c,
        n,
        images_per_affine,
        rows: chunks.rows(),
        unbiased,
        eps: EPS,
    };
    // Ten for each chunk of a channel; the rows of the block join theirs, ten a pair; then the layer's
    // mean and spread, which all threads want.
    let joins = 10 * small_joins(s.c) + if io.params.is_some() { 2 * block_sum_for_all(SMALL) } else { 0 };
    let flops = s.images() * (s.c * (10 * chunks.a_group() + 12) + joins);
    let launch = Launch::new(entry::ADALIN_FINISH_ROWS_F32, args)?.grid([s.images() as u32, 1, 1]);
    to.sink.launch("finish", launch.block(small_block(s.c)).flops(flops));
    Ok(lines)
}

/// Statistics of chunks, their join, the result: three launches. Leaves the lines.
pub(super) fn forward(mut to: NormLowering, io: &ForwardBuffers, out: BufferRef) -> Result<BufferRef> {
    let lines = lines(&mut to, io)?;
    let (chunks, Numbers { hw, c, act, .. }) = (to.apply(), to.numbers);
    let args = args::AdalinForwardVectorised {
        out: Out(out),
        x: In(io.inp),
        lines: In(lines),
        residual: io.residual.map(In),
        hw,
        c,
        act,
        rows: chunks.rows(),
    };
    to.pass("apply", "adalin_forward", chunks, args, 4 * to.s.len())?;
    Ok(lines)
}

/// Sums of chunks, coefficients, the input's gradient: three launches.
pub(super) fn backward(mut to: NormLowering, io: &BackwardBuffers, lines: BufferRef) -> Result<()> {
    let (s, chunks) = (to.s, to.reduction());
    let Numbers { hw, c, act, .. } = to.numbers;
    let (dout, x, lines) = (In(io.dout), In(io.inp), In(lines));
    let partial = to.floats("sums", chunks.count() * s.c * 2);
    let rows = chunks.rows();
    let args =
        args::AdalinBackwardReduceVectorised { partial: Out(partial), dout, x, lines, hw, c, act, rows };
    to.pass("sums", "adalin_backward_reduce", chunks, args, 4 * s.len())?;

    let coefficients = to.floats("coefficients", s.images() * s.c * 3);
    let args = args::AdalinBackwardCoefficientsRows {
        coefficients: Some(Out(coefficients)),
        images: int(s.images()),
        ..gradients_of_parameters(&to, io, partial, chunks.rows)
    };
    let block = small_block(s.c);
    let more = if io.params.is_some() { parameter_blocks(&to) } else { 0 };
    // The sums of an image are joined for its coefficients, and with parameters once more for their gradients.
    let (times, sums) = if io.params.is_some() { (2, 2 * block_sum_for_all(SMALL)) } else { (1, 0) };
    let joins = 2 * times * (s.c * chunks.a_group() + small_joins(s.c));
    let launch = Launch::new(entry::ADALIN_BACKWARD_COEFFICIENTS_ROWS_F32, args)?
        .grid([ceil_div(s.images() + more, 1), 1, 1])
        .block(block)
        .flops(s.images() * (20 * s.c + joins + sums));
    to.sink.launch("coefficients", launch);

    let (chunks, coefficients) = (to.apply(), In(coefficients));
    let rows = chunks.rows();
    let args = args::AdalinBackwardVectorised { dx: io.dinp, dout, x, coefficients, lines, hw, c, act, rows };
    to.pass("apply", "adalin_backward", chunks, args, 5 * s.len())
}

/// Blocks that make the gradients of the parameters.
fn parameter_blocks(to: &NormLowering) -> usize {
    let [width, ..] = small_block(to.s.c);
    to.s.d * to.s.c.div_ceil(width as usize)
}

/// Arguments for the gradients of the parameters alone, out of the sums of chunks of `rows` pixels.
fn gradients_of_parameters(
    to: &NormLowering,
    io: &BackwardBuffers,
    partial: BufferRef,
    rows: usize,
) -> args::AdalinBackwardCoefficientsRows {
    let Numbers { hw, c, n, images_per_affine, unbiased, .. } = to.numbers;
    let [rho, gamma, _] = Params::args(io.params);
    args::AdalinBackwardCoefficientsRows {
        coefficients: None,
        dgamma: io.dparams.map(|d| d.gamma),
        dbeta: io.dparams.map(|d| d.beta),
        drho: io.dparams.map(|d| d.rho),
        partial: In(partial),
        stats: In(io.stats),
        layer_stats: io.layer_stats.map(In),
        rho,
        gamma,
        images: 0,
        hw,
        c,
        n,
        images_per_affine,
        unbiased,
        rows: int(rows),
    }
}

/// The gradients of the parameters out of the sums of whole images, `totals` `[D, N, 2, C]`: one launch.
pub(super) fn parameters_backward(
    to: &mut NormLowering,
    io: &BackwardBuffers,
    totals: BufferRef,
) -> Result<()> {
    let s = to.s;
    let args = gradients_of_parameters(to, io, totals, s.pixels());
    let launch = Launch::new(entry::ADALIN_BACKWARD_COEFFICIENTS_ROWS_F32, args)?
        .grid([ceil_div(parameter_blocks(to), 1), 1, 1])
        .block(small_block(s.c))
        .flops(10 * s.images() * s.c);
    to.sink.launch("gradients of the parameters", launch);
    Ok(())
}
