//! The norm out of the layers a framework has: instance norm, layer norm, blend, scale and shift. Kernels:
//! `kernels/adalin/2_composed.cu`; sums and products are those of the elementary variant.

use super::formula::{Over, Tensor};
use super::layer::{BackwardBuffers, EPS, ForwardBuffers};
use super::lowering::{NormLowering, Numbers};
use super::unfused::{self, Eager};
use super::vectorised;
use crate::Result;
use crate::device::BufferRef;
use crate::kernels::arg::{In, Out, Scratch, Write};
use crate::kernels::{args, entry};
use crate::tape::grid::int;

/// What a forward pass keeps for its backward pass.
///
/// Beyond the instance norm AdaLIN has the layer norm and the blend.
pub(super) type Kept = unfused::Kept<Standardised, (Standardised, Tensor)>;

/// `a = (x - mean) * rstd` with its statistics, mean and rstd.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Standardised {
    stats: BufferRef,
    a: Tensor,
}

/// 7 launches for AdaLIN, 2 for an instance norm, and those of activation and residual.
pub(super) fn forward(to: NormLowering, io: &ForwardBuffers, out: BufferRef) -> Result<Kept> {
    let e = &mut Eager::new(to)?;
    let normed = e.normed(io, out);
    let kept = if let Some(p) = io.params {
        let instance = instance_norm(e, io.inp, None)?;
        let layer = layer_norm(e, io.inp)?;
        let Numbers { hw, c, n, images_per_affine: per, .. } = e.to.numbers;
        let mix = e.tensor("blend");
        let (a, b, rho) = (In(instance.a.0), In(layer.a.0), In(p.rho));
        let args = args::AdalinComposedBlend { out: Out(mix.0), a, b, rho, hw, c, n };
        e.to.each("blend", "adalin_composed_blend", args, 4 * e.to.s.len())?;
        let (x, gamma, beta) = (In(mix.0), In(p.gamma), In(p.beta));
        let args = args::AdalinComposedScaleShift { out: Out(normed.0), x, gamma, beta, hw, c, per };
        e.to.each("scale and shift", "adalin_composed_scale_shift", args, 2 * e.to.s.len())?;
        (instance, Some((layer, mix)))
    } else {
        (instance_norm(e, io.inp, Some(normed))?, None)
    };
    e.finish(io, normed, out, kept)
}

/// 14 launches for AdaLIN, 2 for an instance norm.
pub(super) fn backward(to: NormLowering, io: &BackwardBuffers, kept: &Kept) -> Result<()> {
    let (mut e, dout) = Eager::backward(to, io.dout, kept)?;
    let (e, instance) = (&mut e, kept.instance);
    let (Some((layer, mix)), Some(params), Some(grads)) = (kept.blend, io.params, io.dparams) else {
        return input_grad(e, io.dinp, dout, &instance, Over::Channel);
    };
    let [rho, ..] = params.small();
    let dmix = e.scale_shift_backward((params, grads), dout, mix)?;
    let di = e.eval(dmix * rho)?;
    let dl = e.eval(dmix.times_one_less(rho))?;
    rho_grad(e, grads.rho, dmix, [instance.a, layer.a])?;
    let (through_instance, through_layer) = (e.tensor("instance part"), e.tensor("layer part"));
    input_grad(e, Write::Store(through_instance.0), di, &instance, Over::Channel)?;
    input_grad(e, Write::Store(through_layer.0), dl, &layer, Over::Image)?;
    e.write(io.dinp, through_instance + through_layer)
}

/// Statistics and the standardised tensor: two launches.
fn instance_norm(e: &mut Eager, x: BufferRef, a: Option<Tensor>) -> Result<Standardised> {
    let s = e.to.s;
    let stats = e.to.floats("instance statistics", s.images() * s.c * 2);
    let chunks = e.to.reduction();
    let partial = e.to.floats("partial moments", chunks.count() * 2 * s.c);
    let Numbers { hw, c, unbiased, .. } = e.to.numbers;
    let args = args::AdalinComposedInstanceStatistics {
        stats: Out(stats),
        partial: Scratch(partial),
        counter: Scratch(e.counters),
        x: In(x),
        hw,
        c,
        rows: chunks.rows(),
        unbiased,
        eps: EPS,
    };
    let family = "adalin_composed_instance_statistics";
    e.to.pass("instance statistics", family, chunks, args, 3 * s.len())?;
    standardise(e, x, stats, a, Over::Channel)
}

/// Statistics of chunks, their join and the standardised tensor: three launches.
fn layer_norm(e: &mut Eager, x: BufferRef) -> Result<Standardised> {
    let s = e.to.s;
    let stats = e.to.floats("layer statistics", s.images() * 2);
    let (partial, chunks) = vectorised::statistics(&mut e.to, x)?;
    let Numbers { hw, c, unbiased, .. } = e.to.numbers;
    let (rows, eps) = (chunks.rows(), EPS);
    let partial = In(partial);
    let args = args::AdalinComposedLayerStatistics { stats: Out(stats), partial, hw, c, rows, unbiased, eps };
    let flops = 8 * chunks.count() * s.c;
    let kernel = entry::ADALIN_COMPOSED_LAYER_STATISTICS_F32;
    e.to.block_an_image("layer statistics", kernel, args, flops)?;
    standardise(e, x, stats, None, Over::Image)
}

fn standardise(
    e: &mut Eager,
    x: BufferRef,
    stats: BufferRef,
    a: Option<Tensor>,
    over: Over,
) -> Result<Standardised> {
    let a = a.unwrap_or_else(|| e.tensor("standardised"));
    let Numbers { hw, c, .. } = e.to.numbers;
    let layer = i32::from(over == Over::Image);
    let args = args::AdalinComposedStandardise { out: Out(a.0), x: In(x), stats: In(stats), hw, c, layer };
    e.to.each("standardise", "adalin_composed_standardise", args, 2 * e.to.s.len())?;
    Ok(Standardised { stats, a })
}

/// The gradient of rho, a dot product of the blend's gradient with what it blends: two launches.
fn rho_grad(e: &mut Eager, drho: Write, dmix: Tensor, [a, b]: [Tensor; 2]) -> Result<()> {
    let chunks = e.chunks(Over::Direction);
    let sets = e.grouping(Over::Direction).sets;
    let partial = e.to.floats("partial sums", chunks.a_group() * sets);
    let args = args::AdalinComposedBlendDot {
        partial: Out(partial),
        g: In(dmix.0),
        a: In(a.0),
        b: In(b.0),
        pixels: int(chunks.pixels),
        c: e.to.numbers.c,
        rows: chunks.rows(),
    };
    e.to.pass("dot", "adalin_composed_blend_dot", chunks, args, 3 * e.to.s.len())?;
    let (partial, chunks) = (In(partial), chunks.a_group());
    let args = args::ReducePartials { out: drho, partial, n: int(sets), chunks: int(chunks) };
    e.to.over("finish (drho)", entry::REDUCE_PARTIALS_F32, sets, args, sets * chunks)
}

/// Back through an instance norm (two launches) or a layer norm (three).
fn input_grad(e: &mut Eager, dx: Write, da: Tensor, of: &Standardised, over: Over) -> Result<()> {
    let (s, chunks, is_layer) = (e.to.s, e.to.reduction(), over == Over::Image);
    let Numbers { hw, c, unbiased, .. } = e.to.numbers;
    let (g, a) = (In(da.0), In(of.a.0));
    let partial = e.to.floats("partial sums", chunks.count() * 2 * s.c);
    let sums = e.to.floats("sums", s.images() * 2 * if is_layer { 1 } else { s.c });
    let args = args::AdalinComposedBackwardSums {
        sums: (!is_layer).then_some(Out(sums)),
        partial: Out(partial),
        counter: (!is_layer).then_some(Scratch(e.counters)),
        g,
        a,
        hw,
        c,
        rows: chunks.rows(),
    };
    e.to.pass("sums", "adalin_composed_backward_sums", chunks, args, 3 * s.len())?;
    if is_layer {
        let (partial, chunks_an_image) = (In(partial), int(chunks.a_group()));
        let args = args::AdalinComposedLayerSums { sums: Out(sums), partial, c, chunks: chunks_an_image };
        let flops = 2 * chunks.count() * s.c;
        e.to.block_an_image("finish", entry::ADALIN_COMPOSED_LAYER_SUMS_F32, args, flops)?;
    }
    let (stats, sums, layer) = (In(of.stats), In(sums), i32::from(is_layer));
    let args = args::AdalinComposedBackward { dx, g, a, stats, sums, hw, c, layer, unbiased };
    e.to.each("apply", "adalin_composed_backward", args, 5 * s.len())
}
