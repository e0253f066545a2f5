//! The fused variant, one element a memory access. Kernels: `kernels/adalin/3_fused.cu`.

use super::layer::{BackwardBuffers, EPS, ForwardBuffers, Params};
use super::lowering::{Chunks, NormLowering, Numbers};
use crate::Result;
use crate::device::BufferRef;
use crate::kernels::arg::{In, Out};
use crate::kernels::{args, entry};
use crate::tape::grid::{THREADS, block_sum_for_all, block_sum_for_one};

/// Pixels a thread.
const PIXELS: usize = 16;

/// The chunks of every pass.
fn chunks(to: &NormLowering) -> Chunks {
    to.images(to.block.1 * PIXELS)
}

/// What every pass takes that makes or needs normalised values.
#[derive(Clone, Copy)]
struct Normalised {
    stats: In,
    layer_stats: Option<In>,
    params: [Option<In>; 3],
    numbers: Numbers,
    rows: i32,
}

/// The arguments of such a pass: those of its own, and what all take.
macro_rules! args_of {
    ($signature:ident, $normalised:expr, { $($own:ident: $value:expr),+ $(,)? }) => {{
        let Normalised { stats, layer_stats, params: [rho, gamma, beta], numbers, rows } = $normalised;
        let Numbers { hw, c, n, images_per_affine, act, .. } = numbers;
        args::$signature {
            $($own: $value,)+
            stats, layer_stats, rho, gamma, beta, hw, c, n, images_per_affine, act, rows,
        }
    }};
}

/// Statistics of chunks, their join, the result: three launches.
pub(super) fn forward(to: NormLowering, io: &ForwardBuffers, out: BufferRef) -> Result<()> {
    let mut to = to.scalar();
    let (s, chunks, x) = (to.s, chunks(&to), In(io.inp));
    let Numbers { hw, c, unbiased, .. } = to.numbers;
    let rows = chunks.rows();
    let partial = to.floats("statistics", chunks.count() * s.c * 2);
    let args = args::AdalinStatistics { partial: Out(partial), x, hw, c, rows };
    to.pass("statistics", "adalin_statistics", chunks, args, 3 * s.len())?;

    let args = args::AdalinFinish {
        stats: Out(io.stats),
        layer_stats: io.layer_stats.map(Out),
        partial: In(partial),
        hw,
        c,
        rows,
        unbiased,
        eps: EPS,
    };
    let layer = if io.params.is_some() { block_sum_for_all(THREADS) + block_sum_for_one(THREADS) } else { 0 };
    let flops = s.images() * (s.c * (10 * chunks.a_group() + 12) + layer);
    to.block_an_image("finish", entry::ADALIN_FINISH_F32, args, flops)?;

    let normalised = Normalised {
        stats: In(io.stats),
        layer_stats: io.layer_stats.map(In),
        params: Params::args(io.params),
        numbers: to.numbers,
        rows,
    };
    let residual = io.residual.map(In);
    let args = args_of!(AdalinForwardFused, normalised, { out: Out(out), x: x, residual: residual });
    to.pass("apply", "adalin_forward", chunks, args, 6 * s.len())
}

/// Sums of chunks, coefficients, the input's gradient: three launches.
pub(super) fn backward(to: NormLowering, io: &BackwardBuffers) -> Result<()> {
    let mut to = to.scalar();
    let (s, chunks) = (to.s, chunks(&to));
    let partial = to.floats("sums", chunks.count() * s.c * 2);
    let coefficients = to.floats("coefficients", s.images() * s.c * 3);
    let (dout, x) = (In(io.dout), In(io.inp));
    let normalised = Normalised {
        stats: In(io.stats),
        layer_stats: io.layer_stats.map(In),
        params: Params::args(io.params),
        numbers: to.numbers,
        rows: chunks.rows(),
    };
    let args = args_of!(AdalinBackwardReduceFused, normalised, { partial: Out(partial), dout: dout, x: x });
    to.pass("sums", "adalin_backward_reduce", chunks, args, 4 * s.len())?;

    let Normalised { stats, layer_stats, params: [rho, gamma, _], numbers, rows } = normalised;
    let Numbers { hw, c, n, images_per_affine, unbiased, .. } = numbers;
    let args = args::AdalinBackwardCoefficients {
        coefficients: Out(coefficients),
        dgamma: io.dparams.map(|d| d.gamma),
        dbeta: io.dparams.map(|d| d.beta),
        drho: io.dparams.map(|d| d.rho),
        partial: In(partial),
        stats,
        layer_stats,
        rho,
        gamma,
        hw,
        c,
        n,
        images_per_affine,
        unbiased,
        rows,
    };
    let sums = if io.params.is_some() { 2 * block_sum_for_all(THREADS) } else { 0 };
    let flops = s.images() * (s.c * (2 * chunks.a_group() + 20) + sums);
    let kernel = entry::ADALIN_BACKWARD_COEFFICIENTS_F32;
    to.blocks("coefficients", kernel, [s.d as u32, 1, 1], args, flops)?;

    let coefficients = In(coefficients);
    let args = args_of!(
        AdalinBackwardFused,
        normalised,
        { dx: io.dinp, dout: dout, x: x, coefficients: coefficients }
    );
    to.pass("apply", "adalin_backward", chunks, args, 5 * s.len())
}
