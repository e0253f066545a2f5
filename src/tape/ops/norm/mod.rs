//! The normalisation family, instance norm, AdaLIN and ILN, with activation and residual: its place on the tape, and
//! the choice of the variant that makes its launches. A variant is one file, named like its kernels' in
//! `kernels/adalin`; the benchmark goes through the same functions as a network.

mod composed;
mod cooperative;
mod elementary;
mod formula;
mod fused;
mod layer;
mod lowering;
mod pad_fused;
mod unfused;
mod vectorised;

pub use layer::{BackwardBuffers, EPS, ForwardBuffers, LaunchSink, Layer, Output, ParamGrads, Params};

use lowering::NormLowering;

use super::activation::Activation;
use super::copy::CopyImages;
use super::pad::Pad;
use crate::device::{BufferRef, Launch, Target};
use crate::tape::lowering::Lowering;
use crate::tape::operation::{Backward, Operation, Uses};
use crate::tape::record::Tape;
use crate::tape::value::Value;
use crate::tape::variant::NormVariant;
use crate::tensor::{DType, Shape};
use crate::{Error, Result};

/// What a forward pass keeps for its backward pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved(Kept);

#[derive(Clone, Debug, PartialEq)]
enum Kept {
    Elementary(Box<elementary::Kept>),
    Composed(Box<composed::Kept>),
    /// Nothing beyond the statistics.
    Fused,
    /// Mean, scale and shift `[D, N, 3, C]`.
    Vectorised(BufferRef),
    /// As of the vectorised variant.
    Cooperative(BufferRef),
}

/// Makes the launches of a forward pass.
///
/// # Errors
/// When the variant cannot do what is asked for: padding in a variant that does not fuse it, an activation in 16 bits
/// in an unfused variant.
pub fn forward(
    sink: &mut dyn LaunchSink,
    layer: &Layer,
    variant: NormVariant,
    io: &ForwardBuffers,
) -> Result<Saved> {
    check(layer, variant)?;
    let plain = match io.out {
        Output::Plain(out) => Ok(out),
        Output::Padded { .. } => Err(Error::new(format!("the {variant} norm has no padding of its own"))),
    };
    let to = NormLowering::new(sink, layer, io.params.is_some());
    Ok(Saved(match variant {
        NormVariant::Elementary => Kept::Elementary(Box::new(elementary::forward(to, io, plain?)?)),
        NormVariant::Composed => Kept::Composed(Box::new(composed::forward(to, io, plain?)?)),
        NormVariant::Fused => {
            fused::forward(to, io, plain?)?;
            Kept::Fused
        }
        NormVariant::Vectorised => Kept::Vectorised(vectorised::forward(to, io, plain?)?),
        NormVariant::PadFused => Kept::Vectorised(pad_fused::forward(to, io)?),
        NormVariant::Cooperative => Kept::Cooperative(cooperative::forward(to, io, plain?)?),
    }))
}

/// Makes the launches of the backward pass, in the variant of the forward pass.
///
/// # Errors
/// When a launch does not fit its kernel.
pub fn backward(sink: &mut dyn LaunchSink, layer: &Layer, io: &BackwardBuffers, saved: &Saved) -> Result<()> {
    let to = NormLowering::new(sink, layer, io.params.is_some());
    match &saved.0 {
        Kept::Elementary(kept) => elementary::backward(to, io, kept),
        Kept::Composed(kept) => composed::backward(to, io, kept),
        Kept::Fused => fused::backward(to, io),
        Kept::Vectorised(lines) => vectorised::backward(to, io, *lines),
        Kept::Cooperative(lines) => cooperative::backward(to, io, *lines),
    }
}

fn check(layer: &Layer, variant: NormVariant) -> Result<()> {
    if layer.act == Activation::Tanh {
        return Err(Error::new("a norm is followed by no tanh: its slope does not follow from the sign"));
    }
    if variant.rounds_intermediates() && layer.act != Activation::None && layer.dtype != DType::F32 {
        return Err(Error::new(format!("the {variant} norm has an activation in f32 only")));
    }
    match layer.dtype {
        DType::F32 | DType::F16 | DType::Bf16 => Ok(()),
        DType::I32 => Err(Error::new("a norm of integers")),
    }
}

/// rho, gamma and beta of AdaLIN or ILN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affine {
    /// `[D, 1, 1, 1, C]`.
    pub rho: Value,
    /// `[D, N, 1, 1, C]` (AdaLIN, from the gamma/beta network) or `[D, 1, 1, 1, C]` (ILN, its own).
    pub gamma: Value,
    /// As gamma.
    pub beta: Value,
}

impl Affine {
    fn values(self) -> [Value; 3] {
        [self.rho, self.gamma, self.beta]
    }

    fn params(self, to: &mut Lowering) -> Params {
        Params { rho: to.buffer(self.rho), gamma: to.buffer(self.gamma), beta: to.buffer(self.beta) }
    }
}

impl Tape {
    /// Instance norm (no `affine`), AdaLIN or ILN, through `act`, plus `residual`.
    pub fn norm(
        &mut self,
        name: &str,
        inp: Value,
        affine: Option<Affine>,
        act: Activation,
        residual: Option<Value>,
    ) -> Value {
        let s = self.shape(inp);
        let out = self.temp(name, s);
        let stats = self.temp(&format!("{name}.stats"), Shape { h: 1, w: s.c, c: 2, ..s });
        let layer_stats =
            affine.map(|_| self.temp(&format!("{name}.layer_stats"), Shape { h: 1, w: 1, c: 2, ..s }));
        self.push(Norm { inp, affine, act, residual, out, stats, layer_stats, padded: None });
        out
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Norm {
    inp: Value,
    affine: Option<Affine>,
    act: Activation,
    residual: Option<Value>,
    pub out: Value,
    stats: Value,
    layer_stats: Option<Value>,
    padded: Option<PaddedOutput>,
}

impl Norm {
    /// The norm that makes a padding of its output in its own pass; see `tape::rewrite::pad_fusion`.
    pub fn with_padding(self, padded: PaddedOutput) -> Self {
        Self { padded: Some(padded), ..self }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct PaddedOutput {
    pub padding: Pad,
    /// Whether anything else reads the norm's output, so that it is written too.
    pub read: bool,
}

/// The layer of a norm of `inp`.
fn layer(to: &Lowering, inp: Value, affine: Option<Affine>, act: Activation) -> Layer {
    let info = to.info(inp);
    let images_per_affine = affine.map_or(1, |a| info.shape.n / to.shape(a.gamma).n);
    Layer { shape: info.shape, dtype: info.dtype, images_per_affine, act }
}

impl Operation for Norm {
    fn uses(&self) -> Uses {
        let affine = self.affine.iter().flat_map(|a| a.values());
        let read = Uses::reads([self.inp]).also(affine).also(self.residual).differentiable();
        let padded = self.padded.map(|p| p.padding.out);
        read.writes([self.out, self.stats]).writes(self.layer_stats).writes(padded)
    }

    fn adjoint(&self, back: &mut Backward) {
        let Some(dout) = back.arrived(self.out) else { return };
        let Self { inp, affine, act, stats, layer_stats, .. } = *self;
        // gamma, beta and rho lead to the network's parameters whenever the input does.
        let daffine = affine.map(|a| Affine {
            rho: back.always(a.rho),
            gamma: back.always(a.gamma),
            beta: back.always(a.beta),
        });
        let dinp = back.always(inp);
        back.push(NormGrad { dout, inp, stats, layer_stats, affine, daffine, act, dinp });
        let Some(residual) = self.residual.filter(|r| back.needs(*r)) else { return };
        if let Some(g) = back.arrived(residual) {
            back.push(CopyImages::add(dout, g, back.images(residual)));
        } else {
            // The sum passes its gradient on unchanged, and nothing reads dout after this operation: the
            // residual's gradient goes on in the same memory.
            back.share(residual, dout);
        }
    }

    fn lower(&self, to: &mut Lowering) -> Result<()> {
        to.label("norm", self.out);
        let layer = layer(to, self.inp, self.affine, self.act);
        let io = ForwardBuffers {
            out: match self.padded {
                None => Output::Plain(to.buffer(self.out)),
                Some(PaddedOutput { padding, read }) => Output::Padded {
                    to: to.buffer(padding.out),
                    pad: padding.pad,
                    up: padding.up,
                    plain: read.then(|| to.buffer(self.out)),
                },
            },
            inp: to.buffer(self.inp),
            params: self.affine.map(|a| a.params(to)),
            residual: self.residual.map(|r| to.buffer(r)),
            stats: to.buffer(self.stats),
            layer_stats: self.layer_stats.map(|l| to.buffer(l)),
        };
        let variant = to.options.norm;
        let saved = forward(to, &layer, variant, &io)?;
        to.leave(self.stats, saved);
        Ok(())
    }
}

#[derive(Debug)]
struct NormGrad {
    dout: Value,
    inp: Value,
    stats: Value,
    layer_stats: Option<Value>,
    affine: Option<Affine>,
    daffine: Option<Affine>,
    act: Activation,
    dinp: Value,
}

impl Operation for NormGrad {
    fn uses(&self) -> Uses {
        let affine = self.affine.iter().flat_map(|a| a.values());
        let daffine = self.daffine.iter().flat_map(|a| a.values());
        let read = Uses::reads([self.dout, self.inp, self.stats]).also(self.layer_stats).also(affine);
        read.writes([self.dinp]).writes(daffine)
    }

    fn lower(&self, to: &mut Lowering) -> Result<()> {
        to.label("norm grad", self.dinp);
        let layer = layer(to, self.inp, self.affine, self.act);
        let io = BackwardBuffers {
            dout: to.buffer(self.dout),
            inp: to.buffer(self.inp),
            dinp: to.gradient(self.dinp),
            params: self.affine.map(|a| a.params(to)),
            dparams: self.daffine.map(|d| ParamGrads {
                rho: to.gradient(d.rho),
                gamma: to.gradient(d.gamma),
                beta: to.gradient(d.beta),
            }),
            stats: to.buffer(self.stats),
            layer_stats: self.layer_stats.map(|l| to.buffer(l)),
        };
        let saved: Saved = to.left(self.stats)?;
        backward(to, &layer, &io, &saved)
    }
}

impl LaunchSink for Lowering<'_> {
    fn target(&self) -> Target {
        self.options.target
    }

    fn scratch(&mut self, name: &str, bytes: u64) -> BufferRef {
        self.scratch_bytes(name, bytes)
    }

    fn counters(&mut self, count: usize) -> Result<BufferRef> {
        self.zeroed_counters(count)
    }

    fn launch(&mut self, _what: &str, launch: Launch) {
        Lowering::launch(self, launch);
    }
}
