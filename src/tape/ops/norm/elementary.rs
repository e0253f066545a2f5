//! The norm as an eager framework computes it, a launch for each operation. Kernels: `kernels/adalin/1_elementary.cu`.

use super::formula::{Over, Small, Tensor};
use super::layer::{BackwardBuffers, EPS, ForwardBuffers};
use super::lowering::NormLowering;
use super::unfused::{self, Eager};
use crate::Result;
use crate::device::BufferRef;
use crate::kernels::arg::{In, Out, Scratch, Write};
use crate::kernels::args;
use crate::tape::grid::int;

/// What a forward pass keeps for its backward pass.
pub(super) type Kept = unfused::Kept<Standardised, Blend>;

/// What AdaLIN has beyond an instance norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Blend {
    layer: Standardised,
    one_less_rho: Small,
    mix: Tensor,
}

/// `a = (x - mean) / sqrt(variance + eps)` and what it came from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Standardised {
    /// x - mean.
    centred: Tensor,
    /// sqrt(variance + eps).
    spread: Small,
    a: Tensor,
}

/// 18 launches for AdaLIN, 6 for an instance norm, and those of activation and residual.
pub(super) fn forward(to: NormLowering, io: &ForwardBuffers, out: BufferRef) -> Result<Kept> {
    let e = &mut Eager::new(to)?;
    let (x, normed) = (Tensor(io.inp), e.normed(io, out));
    let kept = if let Some(params) = io.params {
        let [rho, gamma, beta] = params.small();
        let instance = standardise(e, x, None, Over::Channel)?;
        let layer = standardise(e, x, None, Over::Image)?;
        let first = e.eval(instance.a * rho)?;
        let one_less_rho = e.eval(1.0 - rho)?;
        let second = e.eval(layer.a * one_less_rho)?;
        let mix = e.eval(first + second)?;
        let scaled = e.eval(mix * gamma)?;
        e.write(normed, scaled + beta)?;
        (instance, Some(Blend { layer, one_less_rho, mix }))
    } else {
        (standardise(e, x, Some(normed), Over::Channel)?, None)
    };
    e.finish(io, normed, out, kept)
}

/// 47 launches for AdaLIN, 17 for an instance norm: what reverse-mode differentiation of the forward pass's lines
/// issues, in its order.
pub(super) fn backward(to: NormLowering, io: &BackwardBuffers, kept: &Kept) -> Result<()> {
    let (mut e, dout) = Eager::backward(to, io.dout, kept)?;
    let (e, x, instance) = (&mut e, Tensor(io.inp), kept.instance);
    let (Some(blend), Some(params), Some(grads)) = (kept.blend, io.params, io.dparams) else {
        let parts = input_grads(e, x, dout, &instance, Over::Channel)?;
        return add_up(e, &parts, io.dinp);
    };
    let Blend { layer, one_less_rho, mix } = blend;
    let [rho, ..] = params.small();
    let dmix = e.scale_shift_backward((params, grads), dout, mix)?;

    // mix = instance.a * rho + layer.a * (1 - rho)
    let di = e.eval(dmix * rho)?;
    let product = e.eval(dmix * instance.a)?;
    let drho_i = e.eval(product.sum(Over::Direction).named("sum (drho)"))?;
    let dl = e.eval(dmix * one_less_rho)?;
    let product = e.eval(dmix * layer.a)?;
    let drho_l = e.eval(product.sum(Over::Direction).named("sum (drho)"))?;
    let minus = e.eval(-drho_l)?;
    e.write(grads.rho, drho_i + minus)?;

    let through_instance = input_grads(e, x, di, &instance, Over::Channel)?;
    let through_layer = input_grads(e, x, dl, &layer, Over::Image)?;
    add_up(e, &[through_instance, through_layer].concat(), io.dinp)
}

/// Six launches.
fn standardise(e: &mut Eager, x: Tensor, a: Option<Tensor>, over: Over) -> Result<Standardised> {
    let mean = e.mean(x, over)?;
    let variance = variance(e, x, over)?;
    let centred = e.eval(x - mean)?;
    let sum = e.eval(variance + f64::from(EPS))?;
    let spread = e.eval(sum.sqrt())?;
    let a = a.unwrap_or_else(|| e.tensor("standardised"));
    e.write(a, centred / spread)?;
    Ok(Standardised { centred, spread, a })
}

/// The variance of each set, unbiased with parameters.
fn variance(e: &mut Eager, x: Tensor, over: Over) -> Result<Small> {
    let chunks = e.chunks(over);
    let partial = e.to.floats("partial moments", chunks.count() * 2 * e.to.s.c);
    let at = e.to.floats("var", e.grouping(over).sets);
    let args = args::AdalinElementaryVariance {
        out: Out(at),
        partial: Scratch(partial),
        counter: Scratch(e.counters),
        x: In(x.0),
        pixels: int(chunks.pixels),
        c: e.to.numbers.c,
        rows: chunks.rows(),
        layer: i32::from(over == Over::Image),
        correction: e.to.numbers.unbiased,
    };
    e.to.pass("var", "adalin_elementary_variance", chunks, args, 3 * e.to.s.len())?;
    Ok(Small { at, over })
}

/// The three ways from a standardised tensor's gradient back to its input.
fn input_grads(e: &mut Eager, x: Tensor, da: Tensor, of: &Standardised, over: Over) -> Result<[Tensor; 3]> {
    let count = e.grouping(over).elements;
    // a = centred / spread
    let dcentred = e.eval(da / of.spread)?;
    let quotient = e.eval(of.centred / of.spread)?;
    let quotient = e.eval(quotient / of.spread)?;
    let minus = e.eval(-da)?;
    let product = e.eval(minus * quotient)?;
    let dspread = e.eval(product.sum(over))?;
    // spread = sqrt(variance + eps)
    let twice = e.eval(of.spread * 2.0)?;
    let dvariance = e.eval(dspread / twice)?;
    // variance
    let divisor = count - e.to.numbers.unbiased as usize;
    let factor = e.eval(dvariance * (2.0 / divisor as f64))?;
    let mean = e.mean(x, over)?;
    let centred = e.eval(x - mean)?;
    let through_variance = e.eval(centred * factor)?;
    // centred = x - mean(x); the factor 1 / n of the mean rides on the sum
    let minus = e.eval(-dcentred)?;
    let dmean = e.eval(minus.sum(over) * (1.0 / count as f64))?;
    let through_mean = e.eval(dmean.expand())?;
    Ok([dcentred, through_variance, through_mean])
}

/// The sum of the parts, from the first on.
fn add_up(e: &mut Eager, parts: &[Tensor], out: Write) -> Result<()> {
    let mut total = parts[0];
    for &part in &parts[1..parts.len() - 1] {
        total = e.eval(total + part)?;
    }
    e.write(out, total + parts[parts.len() - 1])
}
