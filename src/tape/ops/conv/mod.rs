//! Valid convolution, with the activation and 1/sigma in its epilogue. Kernels: `kernels/conv`, a file here for
//! each of theirs.

mod direct;
mod implicit_gemm;
mod layers;
mod narrow;
mod passes;
mod ring;
mod tensor_core;
mod tiles;

pub use layers::{ConvLayer, ConvPass};

use narrow::Narrow;
use passes::{Forward, InputGrad, Scale, WeightGrad};
use tiles::Extents;

use super::activation::{Activation, before_activation};
use super::pad;
use super::reduce::{BiasGrad, join_chunks};
use super::spectral::{self, Corrected, Spectral};
use crate::Result;
use crate::kernels::arg::{In, Out, Write};
use crate::tape::grid::int;
use crate::tape::lowering::Lowering;
use crate::tape::operation::{Backward, Operation, Uses};
use crate::tape::record::Tape;
use crate::tape::value::Value;
use crate::tensor::Shape;

/// Fewest pixels of a weight gradient worth a chunk of their own.
const CHUNK_PIXELS: usize = 64;

impl Tape {
    /// Valid convolution of `inp` with `weight [D, K, K, CI, CO]`, times 1/sigma, plus bias, through `act`.
    ///
    /// # Panics
    /// When channels or directions of input and weight differ, or the kernel is larger than the input.
    // Each is an operand or attribute of a convolution, and callers name them all.
    #[allow(clippy::too_many_arguments)]
    pub fn conv(
        &mut self,
        name: &str,
        inp: Value,
        weight: Value,
        bias: Option<Value>,
        spectral: Option<Spectral>,
        stride: usize,
        act: Activation,
    ) -> Value {
        let (s, w) = (self.shape(inp), self.shape(weight));
        assert!(s.c == w.w && s.d == w.d, "conv {name}: input {s}, weight {w}");
        assert!(s.h >= w.n && s.w >= w.n, "conv {name}: kernel {} over a {}x{} map", w.n, s.h, s.w);
        let shape = Shape { h: (s.h - w.n) / stride + 1, w: (s.w - w.n) / stride + 1, c: w.c, ..s };
        let out = self.temp(name, shape);
        self.push(Conv { inp, weight, bias, spectral, out, stride, act });
        out
    }
}

#[derive(Clone, Copy, Debug)]
struct Conv {
    inp: Value,
    weight: Value,
    bias: Option<Value>,
    spectral: Option<Spectral>,
    out: Value,
    stride: usize,
    act: Activation,
}

impl Operation for Conv {
    fn uses(&self) -> Uses {
        let spectral = self.spectral.iter().flat_map(|s| s.values());
        // 1/sigma is no input of its own: its derivative is the rank-1 term of the weight's gradient.
        let differentiable = Uses::reads([self.inp, self.weight]).also(self.bias).differentiable();
        differentiable.also(spectral).writes([self.out])
    }

    fn adjoint(&self, back: &mut Backward) {
        let Some(dout) = back.arrived(self.out) else { return };
        let Self { inp, weight, bias, spectral, out, stride, act } = *self;
        let dpre = before_activation(back, dout, out, act);
        if let Some(dinp) = back.collect(inp) {
            back.push(ConvInputGrad { dpre, weight, spectral, dinp, stride, pad: 0 });
        }
        if let Some(dweight) = back.collect(weight) {
            let corrected = spectral.map(|spectral| Corrected { spectral, out, bias, act });
            back.push(ConvWeightGrad { dpre, inp, dweight, stride, corrected });
        }
        if let Some(dbias) = bias.and_then(|bias| back.collect(bias)) {
            back.push(BiasGrad { dpre, dbias });
        }
    }

    fn lower(&self, to: &mut Lowering) -> Result<()> {
        to.label("conv", self.out);
        let (inp, weight, out) = (to.shape(self.inp), to.shape(self.weight), to.shape(self.out));
        let e = Extents { inp, weight, out, stride: self.stride };
        let bias = self.bias.map(|b| to.input(b));
        if let Some(narrow) = self.spectral.map_or_else(|| Narrow::of(&e, &to.options), |_| None) {
            let weight = narrow.weight(to, self.weight)?;
            let wide = to.scratch("columns", narrow.wide.out.len());
            let inp = to.input(self.inp);
            let (scale, act) = (Scale { of: None, images: int(e.inp.n) }, Activation::None);
            passes::forward(
                to,
                narrow.wide,
                Forward { out: Out(wide), inp, weight, bias: None, scale, act },
            )?;
            let out = to.output(self.out);
            return narrow.fold(to, In(wide), out, bias, self.act);
        }
        let operands = Forward {
            out: to.output(self.out),
            inp: to.input(self.inp),
            weight: to.input(self.weight),
            bias,
            scale: scale(to, self.spectral, inp.n),
            act: self.act,
        };
        passes::forward(to, e, operands)
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct ConvInputGrad {
    dpre: Value,
    weight: Value,
    spectral: Option<Spectral>,
    pub dinp: Value,
    stride: usize,
    /// Reflect padding between the input, whose gradient this is, and the convolution.
    pad: usize,
}

impl ConvInputGrad {
    /// The same through a reflect padding by `pad` of the input whose gradient is `dinp`.
    pub fn through(self, pad: usize, dinp: Value) -> Self {
        Self { dinp, pad, ..self }
    }
}

impl Operation for ConvInputGrad {
    fn uses(&self) -> Uses {
        let spectral = self.spectral.iter().flat_map(|s| s.values());
        Uses::reads([self.dpre, self.weight]).also(spectral).writes([self.dinp])
    }

    fn lower(&self, to: &mut Lowering) -> Result<()> {
        to.label("conv dgrad", self.dinp);
        let (inp, weight, out) = (to.shape(self.dinp), to.shape(self.weight), to.shape(self.dpre));
        let e = Extents { inp, weight, out, stride: self.stride };
        let scale = scale(to, self.spectral, inp.n);
        let (e, dout, weight) = match self.spectral.map_or_else(|| Narrow::of(&e, &to.options), |_| None) {
            Some(narrow) => {
                let weight = narrow.weight(to, self.weight)?;
                (narrow.wide, narrow.unfold(to, self.dpre)?, weight)
            }
            None => (e, to.input(self.dpre), to.input(self.weight)),
        };
        let operands = InputGrad { dout, weight, scale, pad: self.pad };
        if self.pad == 0 {
            let dinp = to.gradient(self.dinp);
            return passes::input_grad(to, e, operands, dinp, e.flops());
        }
        let padded = pad::padded(inp, self.pad, 1);
        let images = ring::share(e.flops(), inp, padded);
        let ring = passes::tiled(&e, &to.options, e.input_grad().0, Activation::None)
            .filter(|(_, kernels)| ring::pays(inp, e.weight, self.pad, kernels.ring_tile));
        let Some((_, kernels)) = ring else {
            let whole = to.scratch("padded gradient", padded.len());
            let (e, operands) = (Extents { inp: padded, ..e }, InputGrad { pad: 0, ..operands });
            passes::input_grad(to, e, operands, Write::Store(whole), e.flops())?;
            return pad::gather(to, In(whole), self.dinp, self.pad, 1);
        };
        let dinp = to.gradient(self.dinp);
        passes::input_grad(to, e, operands, dinp, e.flops() - images)?;
        to.label("conv dgrad, images of", self.dinp);
        let (dinp, targets) = (to.update(self.dinp), ring::targets(inp, self.pad));
        let launch = passes::ring_grad(to, e, operands, (kernels.ring_tile, &kernels), dinp, targets)?;
        to.launch(launch.flops(images).moves(ring::moves(inp, e.weight, e.out, self.pad)));
        Ok(())
    }
}

#[derive(Debug)]
struct ConvWeightGrad {
    dpre: Value,
    inp: Value,
    dweight: Value,
    stride: usize,
    /// The layer, where its weight is spectrally normalised.
    corrected: Option<Corrected>,
}

impl Operation for ConvWeightGrad {
    fn uses(&self) -> Uses {
        let layer = self.corrected.iter().flat_map(Corrected::reads);
        Uses::reads([self.dpre, self.inp]).also(layer).writes([self.dweight])
    }

    fn lower(&self, to: &mut Lowering) -> Result<()> {
        to.label("conv wgrad", self.dweight);
        let (inp, weight, out) = (to.shape(self.inp), to.shape(self.dweight), to.shape(self.dpre));
        let e = Extents { inp, weight, out, stride: self.stride };
        let spectral = self.corrected.map(|c| c.spectral);
        let scale = scale(to, spectral, inp.n);
        let narrow = spectral.map_or_else(|| Narrow::of(&e, &to.options), |_| None);
        if let Some(narrow) = narrow {
            let operands = WeightGrad { inp: to.input(self.inp), dout: narrow.unfold(to, self.dpre)?, scale };
            let wide = narrow.wide;
            let tiles = passes::tiled(&wide, &to.options, wide.weight_grad(), Activation::None);
            let tiles = tiles.expect("what is narrow is for tiles");
            let dweight = to.scratch("wide gradient", wide.weight.len());
            passes::weight_grad(to, wide, operands, tiles, Write::Store(dweight))?;
            return narrow.weight_grad(to, In(dweight), self.dweight);
        }
        let operands = WeightGrad { inp: to.input(self.inp), dout: to.input(self.dpre), scale };
        match passes::tiled(&e, &to.options, e.weight_grad(), Activation::None) {
            None => {
                let pixels = out.n * out.pixels();
                let full = direct::WGRAD_FULL * to.options.target.sms as usize;
                let chunks = full / (direct::wgrad_threads(weight) * inp.d);
                let chunks = chunks.clamp(1, pixels.div_ceil(CHUNK_PIXELS)).min(out.n * out.h).min(16384);
                let partial = (chunks > 1).then(|| to.scratch("partials", chunks * weight.len()));
                let dweight = partial.map_or_else(|| to.gradient(self.dweight), Write::Store);
                passes::weight_grad_direct(to, e, operands, dweight, chunks)?;
                if let Some(partial) = partial {
                    join_chunks(to, partial, self.dweight, chunks)?;
                }
            }
            Some(tiles) => {
                let dweight = to.gradient(self.dweight);
                passes::weight_grad(to, e, operands, tiles, dweight)?;
            }
        }
        match self.corrected {
            Some(layer) => layer.lower(to, self.dpre, self.dweight),
            None => Ok(()),
        }
    }
}

/// 1/sigma of a weight, where it has one.
fn scale(to: &mut Lowering, spectral: Option<Spectral>, images: usize) -> Scale {
    let (of, images) = spectral::scale(to, spectral, images);
    Scale { of, images }
}

impl Tape {
    /// Every pass of every convolution that is recorded, in order.
    pub fn convolutions(&self) -> Vec<ConvLayer> {
        let gradient = |pass, inp, weight, stride| {
            let (inp, weight) = (self.shape(inp), self.shape(weight));
            ConvLayer { pass, inp, weight, stride, act: Activation::None, bias: false }
        };
        let mut found = Vec::new();
        for op in &self.ops {
            if let Some(conv) = op.kind::<Conv>() {
                let (act, bias) = (conv.act, conv.bias.is_some());
                let layer = gradient(ConvPass::Forward, conv.inp, conv.weight, conv.stride);
                found.push(ConvLayer { act, bias, ..layer });
            } else if let Some(dgrad) = op.kind::<ConvInputGrad>() {
                found.push(gradient(ConvPass::Dgrad, dgrad.dinp, dgrad.weight, dgrad.stride));
            } else if let Some(wgrad) = op.kind::<ConvWeightGrad>() {
                found.push(gradient(ConvPass::Wgrad, wgrad.inp, wgrad.dweight, wgrad.stride));
            }
        }
        found
    }
}
