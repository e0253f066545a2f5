//! Valid convolution, with the activation and 1/sigma in its epilogue. Kernels: `kernels/conv`, a file here for
//! each of theirs.

mod direct;
mod implicit_gemm;
mod ring;
mod tensor_core;
mod tiles;

use tiles::{Extents, Kernels, Matrix, Tile};

use super::activation::{Activation, before_activation};
use super::pad;
use super::reduce::{BiasGrad, join_chunks};
use super::spectral::{Corrected, Spectral, scale};
use crate::Result;
use crate::kernels::arg::{In, Write};
use crate::kernels::args;
use crate::tape::grid::int;
use crate::tape::lowering::Lowering;
use crate::tape::operation::{Backward, Operation, Uses};
use crate::tape::precision::Precision;
use crate::tape::record::Tape;
use crate::tape::value::Value;
use crate::tape::variant::{ConvVariant, LowerOptions};
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

/// The tile and the kernels that compute the result of a pass, which for each direction is such a matrix; None: the direct
/// ones. `act` is what the pass has in its epilogue.
fn tiled(e: &Extents, options: &LowerOptions, matrix: Matrix, act: Activation) -> Option<(Tile, Kernels)> {
    let variant = options.conv.unwrap_or_else(|| match options.precision {
        // A dot product, or an outer one: nothing that a tile would use twice.
        _ if e.out.c == 1 => ConvVariant::Direct,
        Precision::Tf32 => ConvVariant::TensorCore,
        Precision::F32 if implicit_gemm::fills(matrix) => ConvVariant::ImplicitGemm,
        Precision::F32 => ConvVariant::Direct,
    });
    match variant {
        ConvVariant::TensorCore if tensor_core::takes(e) => Some(tensor_core::kernels(e, matrix, act)),
        ConvVariant::ImplicitGemm if implicit_gemm::takes(e) => Some(implicit_gemm::kernels(matrix)),
        ConvVariant::TensorCore | ConvVariant::ImplicitGemm | ConvVariant::Direct => None,
    }
}

/// The arguments of a pass, those that all three take out of its extents.
macro_rules! with_extents {
    ($e:expr, $args:ident { $($field:ident: $value:expr),* $(,)? }) => {
        args::$args {
            $($field: $value,)*
            n: int($e.inp.n),
            h: int($e.inp.h),
            w: int($e.inp.w),
            ci: int($e.inp.c),
            oh: int($e.out.h),
            ow: int($e.out.w),
            co: int($e.out.c),
            k: int($e.weight.n),
            s: int($e.stride),
        }
    };
}

/// The arguments of a pass to an input's gradient.
macro_rules! input_args {
    ($op:expr, $to:expr, $e:expr, $args:ident { $($field:ident: $value:expr),* }) => {{
        let (scale, n_per_scale) = scale($to, $op.spectral, $e.inp.n);
        with_extents!($e, $args {
            dout: $to.input($op.dpre),
            weight: $to.input($op.weight),
            scale: scale,
            n_per_scale: n_per_scale,
            $($field: $value),*
        })
    }};
}

/// The arguments of a pass whose tiles' sums are split.
macro_rules! split_args {
    ($pass:ident, $args:ident, $split:ident { $($field:ident: $value:expr),* }) => {
        $pass!($args {
            partials: $split.partials,
            counters: $split.counters,
            chunks: $split.chunks
            $(, $field: $value)*
        })
    };
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
        let (scale, n_per_scale) = scale(to, self.spectral, inp.n);
        macro_rules! args {
            ($args:ident { $($field:ident: $value:expr),* }) => {
                with_extents!(e, $args {
                    out: to.output(self.out),
                    inp: to.input(self.inp),
                    weight: to.input(self.weight),
                    bias: self.bias.map(|b| to.input(b)),
                    scale: scale,
                    n_per_scale: n_per_scale,
                    act: self.act as i32,
                    $($field: $value),*
                })
            };
        }
        let summed = weight.n * weight.n * inp.c;
        let matrix = Matrix { rows: out.n * out.pixels(), columns: out.c, summed };
        let launch = match tiled(&e, &to.options, matrix, self.act) {
            None => direct::forward(args!(ConvForwardDirect {}), inp, out)?,
            Some((tile, kernels)) => {
                let split = matrix.split(tile, to, out.d)?;
                let args = split_args!(args, ConvForward, split {});
                matrix.launch(tile, kernels.forward, args, &split, out.d)?
            }
        };
        to.launch(launch.flops(e.flops()));
        Ok(())
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
        let (matrix, _) = input_matrix(&e);
        if self.pad == 0 {
            let dinp = to.gradient(self.dinp);
            return self.launch(to, e, dinp, e.flops());
        }
        let padded = pad::padded(inp, self.pad, 1);
        let images = ring::share(e.flops(), inp, padded);
        let ring = tiled(&e, &to.options, matrix, Activation::None)
            .filter(|(_, kernels)| ring::pays(inp, weight, self.pad, kernels.ring_tile));
        let Some((_, kernels)) = ring else {
            let whole = to.scratch("padded gradient", padded.len());
            let e = Extents { inp: padded, ..e };
            Self { pad: 0, ..*self }.launch(to, e, Write::Store(whole), e.flops())?;
            return pad::gather(to, In(whole), self.dinp, self.pad, 1);
        };
        let dinp = to.gradient(self.dinp);
        self.launch(to, e, dinp, e.flops() - images)?;
        to.label("conv dgrad, images of", self.dinp);
        let matrix = Matrix { rows: inp.n * ring::targets(inp, self.pad), ..matrix };
        let split = matrix.split(kernels.ring_tile, to, inp.d)?;
        let dinp = to.update(self.dinp);
        let ring = input_args!(
            self,
            to,
            e,
            ConvRingDgrad {
                dinp: dinp,
                pad: int(self.pad),
                partials: split.partials,
                counters: split.counters,
                chunks: split.chunks
            }
        );
        let launch = matrix.launch(kernels.ring_tile, kernels.ring_dgrad, ring, &split, inp.d)?;
        to.launch(launch.flops(images).moves(ring::moves(inp, weight, out, self.pad)));
        Ok(())
    }
}

impl ConvInputGrad {
    /// The launch that leaves in `dinp` the gradient of an input of such extents, but for what its border has from its
    /// mirror images where there is padding.
    fn launch(&self, to: &mut Lowering, e: Extents, dinp: Write, flops: usize) -> Result<()> {
        let (matrix, phases) = input_matrix(&e);
        let launch = match tiled(&e, &to.options, matrix, Activation::None) {
            None => {
                assert_eq!(self.pad, 0, "the direct kernels know no padding");
                let args = input_args!(self, to, e, ConvDgradDirect { dinp: dinp });
                direct::dgrad(args, e.inp, e.out, phases, matrix.rows / e.inp.n)?
            }
            Some((tile, kernels)) => {
                let split = matrix.split(tile, to, e.inp.d * phases)?;
                let args = input_args!(
                    self,
                    to,
                    e,
                    ConvDgrad {
                        dinp: dinp,
                        pad: int(self.pad),
                        partials: split.partials,
                        counters: split.counters,
                        chunks: split.chunks
                    }
                );
                matrix.launch(tile, kernels.dgrad, args, &split, e.inp.d * phases)?
            }
        };
        to.launch(launch.flops(flops));
        Ok(())
    }
}

/// The gradient of an input as a matrix, one for each of so many phases of the stride, which has taps of its own.
fn input_matrix(e: &Extents) -> (Matrix, usize) {
    let pixels = e.inp.h.div_ceil(e.stride) * e.inp.w.div_ceil(e.stride);
    let taps = e.weight.n.div_ceil(e.stride).pow(2);
    let matrix = Matrix { rows: e.inp.n * pixels, columns: e.inp.c, summed: taps * e.out.c };
    (matrix, e.stride * e.stride)
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
        let (scale, n_per_scale) = scale(to, self.corrected.map(|c| c.spectral), inp.n);
        let pixels = out.n * out.pixels();
        macro_rules! args {
            ($args:ident { $($field:ident: $value:expr),* }) => {
                with_extents!(e, $args {
                    inp: to.input(self.inp),
                    dout: to.input(self.dpre),
                    scale: scale,
                    n_per_scale: n_per_scale,
                    $($field: $value),*
                })
            };
        }
        let rows = weight.n * weight.n * inp.c;
        let matrix = Matrix { rows, columns: out.c, summed: pixels };
        match tiled(&e, &to.options, matrix, Activation::None) {
            None => {
                let full = direct::WGRAD_FULL * to.options.target.sms as usize;
                let chunks = full / (direct::wgrad_threads(weight) * inp.d);
                let chunks = chunks.clamp(1, pixels.div_ceil(CHUNK_PIXELS)).min(out.n * out.h).min(16384);
                let partial = (chunks > 1).then(|| to.scratch("partials", chunks * weight.len()));
                let dweight = partial.map_or_else(|| to.gradient(self.dweight), Write::Store);
                let args = args!(ConvWgradDirect { dweight: dweight, chunks: int(chunks) });
                let launch = direct::wgrad(args, weight, chunks)?;
                to.launch(launch.flops(e.flops()));
                if let Some(partial) = partial {
                    join_chunks(to, partial, self.dweight, chunks)?;
                }
            }
            Some((tile, kernels)) => {
                let split = matrix.split(tile, to, inp.d)?;
                let dweight = to.gradient(self.dweight);
                let args = split_args!(args, ConvWgrad, split { dweight: dweight });
                let launch = matrix.launch(tile, kernels.wgrad, args, &split, inp.d)?;
                to.launch(launch.flops(e.flops()));
            }
        }
        match self.corrected {
            Some(layer) => layer.lower(to, self.dpre, self.dweight),
            None => Ok(()),
        }
    }
}
