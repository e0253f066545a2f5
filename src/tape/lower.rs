//! From operations to kernel launches: the kernel variant, the grid, the split of long reductions.
//!
//! Nothing here depends on which device will run the program, so what the emulator checks is what the
//! GPU runs, launch for launch.

mod conv;

use std::collections::{HashMap, HashSet};

use super::grid::{
    THREADS, block_sum_for_all, block_sum_for_one, blocks, ceil_div, channel_block, chunks_of, chunks_of_row,
    int, over, pass,
};
use super::norm::{self, NormVariant, Norms};
use super::{Activation, Affine, LossKind, Op, Place, Spectral, StateLayout, Tape, Value};
use crate::device::{Buffer, BufferRef, Launch, Space};
use crate::kernels::arg::{In, InOut, Out, Write};
use crate::kernels::{KernelOf, args, entry};
use crate::tensor::Shape;
use crate::{Error, Result};

pub(super) struct Lowered {
    pub buffers: Vec<Buffer>,
    pub launches: Vec<Launch>,
    pub value_buffer: HashMap<Value, u32>,
}

/// Choices of kernel variants; the default picks by shape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LowerOptions {
    /// Which variant of the convolutions.
    pub conv: ConvVariant,
    /// Which variant of the norms.
    pub norm: NormVariant,
}

impl From<Norms> for LowerOptions {
    /// The default, with the norms chosen.
    fn from(norms: Norms) -> Self {
        Self { norm: norms.variant(), ..Self::default() }
    }
}

/// A variant of `kernels/conv`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConvVariant {
    /// The implicit GEMM where its tiles are well filled, else direct.
    #[default]
    Auto,
    /// `1_direct.cu` everywhere.
    Direct,
    /// `2_implicit_gemm.cu` wherever its channels come in fours.
    ImplicitGemm,
}

struct Lowering<'t> {
    tape: &'t Tape,
    options: LowerOptions,
    layout: &'t StateLayout,
    out: Lowered,
    /// Gradients something was written to already: the next write adds.
    written: HashSet<Value>,
    /// What the norms' forward passes keep for the backward passes, by their statistics.
    norms: HashMap<Value, norm::Saved>,
    /// Paddings that the norm before them makes in its own pass, by the norm's output.
    pads: HashMap<Value, PadBehind>,
    label: String,
}

/// Lowers the operations at the given positions, in order.
pub(super) fn lower(
    tape: &Tape,
    layout: &StateLayout,
    ops: &[usize],
    options: LowerOptions,
) -> Result<Lowered> {
    let mut l = Lowering {
        tape,
        options,
        layout,
        out: Lowered { buffers: Vec::new(), launches: Vec::new(), value_buffer: HashMap::new() },
        written: tape.preset.clone(),
        norms: HashMap::new(),
        pads: HashMap::new(),
        label: String::new(),
    };
    if options.norm == NormVariant::Network {
        l.pads = pads_behind_norms(tape, ops);
    }
    for &i in ops {
        l.op(&tape.ops[i])?;
    }
    Ok(l.out)
}

/// A padding right behind a norm.
#[derive(Clone, Copy)]
struct PadBehind {
    padded: Value,
    pad: usize,
    up: usize,
    /// Whether anything else reads the norm's output, so that it is written too.
    read: bool,
}

/// For every norm whose output is padded: the first such padding.
fn pads_behind_norms(tape: &Tape, ops: &[usize]) -> HashMap<Value, PadBehind> {
    let mut found = HashMap::new();
    let mut readers: HashMap<Value, usize> = HashMap::new();
    for &i in ops {
        let op = &tape.ops[i];
        op.reads_writes().0.into_iter().for_each(|v| *readers.entry(v).or_default() += 1);
        if let Op::Pad { inp, out, pad, up } = *op {
            found.entry(inp).or_insert(PadBehind { padded: out, pad, up, read: false });
        }
    }
    let norms: HashSet<Value> = ops
        .iter()
        .filter_map(|&i| if let Op::Norm { out, .. } = tape.ops[i] { Some(out) } else { None })
        .collect();
    found.retain(|v, _| norms.contains(v));
    for (v, pad) in &mut found {
        pad.read = readers[v] > 1 || tape.info(*v).kept;
    }
    found
}

impl Lowering<'_> {
    fn shape(&self, v: Value) -> Shape {
        self.tape.shape(v)
    }

    fn buffer_of(&mut self, v: Value) -> u32 {
        if let Some(&b) = self.out.value_buffer.get(&v) {
            return b;
        }
        let info = self.tape.info(v);
        let (space, offset) = match info.place {
            Place::Arena => (Space::Arena, 0),
            Place::State(view) => (Space::State, self.layout.offset(view)),
        };
        let bytes = info.shape.len() as u64 * info.dtype.bytes();
        self.out.buffers.push(Buffer { name: info.name.clone(), space, offset, bytes });
        let b = (self.out.buffers.len() - 1) as u32;
        self.out.value_buffer.insert(v, b);
        b
    }

    /// The whole of a value's memory.
    fn buf(&mut self, v: Value) -> BufferRef {
        self.buf_from(v, 0)
    }

    /// The value from element `first` to its end.
    fn buf_from(&mut self, v: Value, first: usize) -> BufferRef {
        let buffer = self.buffer_of(v);
        let offset = first as u64 * self.tape.info(v).dtype.bytes();
        BufferRef { buffer, offset, bytes: self.out.buffers[buffer as usize].bytes - offset }
    }

    fn input(&mut self, v: Value) -> In {
        In(self.buf(v))
    }

    fn output(&mut self, v: Value) -> Out {
        Out(self.buf(v))
    }

    fn update(&mut self, v: Value) -> InOut {
        InOut(self.buf(v))
    }

    /// A write to a gradient: the first one stores, every later one adds.
    fn gradient(&mut self, v: Value) -> Write {
        let to = self.buf(v);
        if self.written.insert(v) { Write::Store(to) } else { Write::Add(to) }
    }

    fn scratch(&mut self, name: &str, floats: usize) -> BufferRef {
        let name = format!("{name} of {}", self.label);
        let bytes = floats as u64 * 4;
        self.out.buffers.push(Buffer { name, space: Space::Arena, offset: 0, bytes });
        BufferRef { buffer: (self.out.buffers.len() - 1) as u32, offset: 0, bytes }
    }

    fn launch(&mut self, launch: Launch) {
        self.out.launches.push(launch.label(&self.label));
    }

    /// 1/sigma of a weight, and the images of a batch of `n` that share one.
    fn scale(&mut self, spectral: Option<Spectral>, n: usize) -> (Option<In>, i32) {
        match spectral {
            Some(s) => {
                let passes = self.shape(s.inv_sigma).n;
                (Some(self.input(s.inv_sigma)), int(n / passes))
            }
            None => (None, int(n)),
        }
    }

    fn label(&mut self, what: &str, v: Value) {
        self.label = format!("{what} {}", self.tape.info(v).name);
    }

    fn op(&mut self, op: &Op) -> Result<()> {
        match *op {
            Op::Pad { inp, out, pad, up } => {
                if self.pads.get(&inp).is_some_and(|p| p.padded == out) {
                    return Ok(());
                }
                self.label("pad", out);
                let (s, o) = (self.shape(inp), self.shape(out));
                let (kernel, v) = match s.c.is_multiple_of(4) {
                    true => (entry::PAD_FORWARD_X4_F32, 4),
                    false => (entry::PAD_FORWARD_X1_F32, 1),
                };
                let args = args::PadForward {
                    out: self.output(out),
                    inp: self.input(inp),
                    h: int(s.h),
                    w: int(s.w),
                    c: int(s.c),
                    p: int(pad),
                    up: int(up),
                };
                let grid = [ceil_div(o.w * o.c / v, THREADS), o.h as u32, o.images() as u32];
                self.launch(blocks(Launch::new(kernel, args)?, grid));
            }
            Op::PadGrad { dout, dinp, pad, up } => {
                self.label("pad grad", dinp);
                let s = self.shape(dinp);
                let (kernel, v) = match s.c.is_multiple_of(4) {
                    true => (entry::PAD_BACKWARD_X4_F32, 4),
                    false => (entry::PAD_BACKWARD_X1_F32, 1),
                };
                let args = args::PadBackward {
                    dinp: self.gradient(dinp),
                    dout: self.input(dout),
                    h: int(s.h),
                    w: int(s.w),
                    c: int(s.c),
                    p: int(pad),
                    up: int(up),
                };
                let grid = [ceil_div(s.w * s.c / v, THREADS), s.h as u32, s.images() as u32];
                self.launch(blocks(Launch::new(kernel, args)?, grid).flops(self.shape(dout).len()));
            }
            Op::CopyImages { inp, inp_first, out, out_first, count, swap, add } => {
                self.label(if add { "add" } else { "copy" }, out);
                let (si, so) = (self.shape(inp), self.shape(out));
                let n = count * si.image_len();
                if add && count != so.n && !self.written.contains(&out) {
                    let name = &self.tape.info(out).name;
                    let what = "a part of it is added to before the whole was written";
                    return Err(Error::new(format!("{name}: {what}")));
                }
                let adds = add && !self.written.insert(out);
                let to = self.buf_from(out, out_first * so.image_len());
                let args = args::CopyImages {
                    out: if adds { Write::Add(to) } else { Write::Store(to) },
                    inp: In(self.buf_from(inp, inp_first * si.image_len())),
                    count: int(n),
                    out_stride: int(so.n * so.image_len()),
                    inp_stride: int(si.n * si.image_len()),
                    swap: i32::from(swap),
                };
                let copied = n * si.d;
                let launch = blocks(
                    Launch::new(entry::COPY_IMAGES_F32, args)?,
                    [ceil_div(n, THREADS), si.d as u32, 1],
                );
                // Only the part that is copied moves, whatever the buffers' sizes.
                let launch = launch.moves(copied as u64 * 4 * if adds { 3 } else { 2 });
                self.launch(launch.flops(if adds { copied } else { 0 }));
            }
            Op::Conv { inp, weight, bias, spectral, out, stride, act } => {
                self.conv(inp, weight, bias, spectral, out, stride, act)?;
            }
            Op::ConvInputGrad { dpre, weight, spectral, dinp, stride } => {
                self.conv_input_grad(dpre, weight, spectral, dinp, stride)?;
            }
            Op::ConvWeightGrad { dpre, inp, dweight, stride, spectral, out, bias, act } => {
                self.conv_weight_grad(dpre, inp, dweight, stride, spectral)?;
                if let Some(sp) = spectral {
                    self.spectral_correction(dpre, out, bias, act, sp, dweight)?;
                }
            }
            Op::BiasGrad { dpre, dbias } => {
                self.label("bias grad", dbias);
                let s = self.shape(dpre);
                let rows = s.n * s.pixels();
                let chunks = chunks_of(rows, s.c);
                let n = self.shape(dbias).len();
                let partial = (chunks > 1).then(|| self.scratch("partials", chunks * n));
                let args = args::BiasBackward {
                    partial: partial.map_or_else(|| self.gradient(dbias), Write::Store),
                    dout: self.input(dpre),
                    rows: int(rows),
                    c: int(s.c),
                    chunks: int(chunks),
                };
                let (bc, bp) = channel_block(s.c);
                let grid = [ceil_div(s.c, bc), chunks as u32, s.d as u32];
                let launch =
                    Launch::new(entry::BIAS_BACKWARD_F32, args)?.grid(grid).block([bc as u32, bp as u32, 1]);
                self.launch(launch.flops(s.len()));
                if let Some(partial) = partial {
                    self.reduce(partial, dbias, n, chunks)?;
                }
            }
            Op::Norm { inp, affine, act, residual, out, stats, layer_stats } => {
                self.label("norm", out);
                let layer = self.norm_layer(inp, affine, act);
                let padded = self.pads.get(&out).copied().map(|p| (p, self.buf(p.padded)));
                let io = norm::Forward {
                    out: match padded {
                        None => norm::Output::Plain(self.buf(out)),
                        Some((PadBehind { pad, up, read, .. }, to)) => {
                            norm::Output::Padded { to, pad, up, plain: read.then(|| self.buf(out)) }
                        }
                    },
                    inp: self.buf(inp),
                    params: affine.map(|a| norm::Params {
                        rho: self.buf(a.rho),
                        gamma: self.buf(a.gamma),
                        beta: self.buf(a.beta),
                    }),
                    residual: residual.map(|r| self.buf(r)),
                    stats: self.buf(stats),
                    layer_stats: layer_stats.map(|l| self.buf(l)),
                };
                let variant = self.options.norm;
                let saved = norm::forward(self, &layer, variant, &io)?;
                self.norms.insert(stats, saved);
            }
            Op::NormGrad { dout, inp, stats, layer_stats, affine, daffine, act, dinp } => {
                self.label("norm grad", dinp);
                let layer = self.norm_layer(inp, affine, act);
                let io = norm::Backward {
                    dout: self.buf(dout),
                    inp: self.buf(inp),
                    dinp: self.gradient(dinp),
                    params: affine.map(|a| norm::Params {
                        rho: self.buf(a.rho),
                        gamma: self.buf(a.gamma),
                        beta: self.buf(a.beta),
                    }),
                    dparams: daffine.map(|d| norm::ParamGrads {
                        rho: self.gradient(d.rho),
                        gamma: self.gradient(d.gamma),
                        beta: self.gradient(d.beta),
                    }),
                    stats: self.buf(stats),
                    layer_stats: layer_stats.map(|l| self.buf(l)),
                };
                let saved = self.norms.get(&stats).cloned();
                let saved = saved.ok_or_else(|| Error::new(format!("{}: no forward pass", self.label)))?;
                let variant = self.options.norm;
                norm::backward(self, &layer, variant, &io, &saved)?;
            }
            Op::Pool { inp, average, maximum } => {
                self.label("pool", average);
                let s = self.shape(inp);
                let chunks = chunks_of(s.pixels(), s.c);
                let n = s.images() * chunks * s.c;
                let (sums, tops, places) =
                    (self.scratch("sums", n), self.scratch("maxima", n), self.scratch("places", n));
                let args = args::GlobalPoolPartial {
                    partial_sum: Out(sums),
                    partial_max: Out(tops),
                    partial_at: Out(places),
                    x: self.input(inp),
                    hw: int(s.pixels()),
                    c: int(s.c),
                    chunks: int(chunks),
                };
                let launch = Launch::new(entry::GLOBAL_POOL_PARTIAL_F32, args)?;
                self.launch(pass(launch, s, chunks).flops(s.len()));
                let (top, at) = (maximum.map(|m| self.output(m.0)), maximum.map(|m| self.output(m.1)));
                let args = args::GlobalPoolFinish {
                    average: self.output(average),
                    maximum: top,
                    argmax: at,
                    partial_sum: In(sums),
                    partial_max: In(tops),
                    partial_at: In(places),
                    hw: int(s.pixels()),
                    c: int(s.c),
                    chunks: int(chunks),
                };
                let grid = [ceil_div(s.c, THREADS), s.images() as u32, 1];
                self.launch(blocks(Launch::new(entry::GLOBAL_POOL_FINISH_F32, args)?, grid).flops(2 * n));
            }
            Op::PoolGrad { daverage, dmaximum, dinp } => {
                self.label("pool grad", dinp);
                let s = self.shape(dinp);
                let chunks = chunks_of(s.pixels(), s.c);
                let args = args::GlobalPoolBackward {
                    dinp: self.gradient(dinp),
                    daverage: self.input(daverage),
                    dmaximum: dmaximum.map(|m| self.input(m.0)),
                    argmax: dmaximum.map(|m| self.input(m.1)),
                    hw: int(s.pixels()),
                    c: int(s.c),
                    chunks: int(chunks),
                };
                let launch = Launch::new(entry::GLOBAL_POOL_BACKWARD_F32, args)?;
                self.launch(pass(launch, s, chunks).flops(s.len()));
            }
            Op::CamFold { weight, gap_w, gmp_w, out } => {
                self.label("cam fold", out);
                let s = self.shape(out);
                let args = args::CamFold {
                    folded: self.output(out),
                    weight: self.input(weight),
                    gap_w: self.input(gap_w),
                    gmp_w: self.input(gmp_w),
                    c: int(s.c),
                };
                let grid = [ceil_div(s.c, THREADS), s.c as u32, s.d as u32];
                self.launch(blocks(Launch::new(entry::CAM_FOLD_F32, args)?, grid).flops(3 * s.len()));
            }
            Op::CamFoldGrad { dfolded, weight, gap_w, gmp_w, dweight, dgap_w, dgmp_w } => {
                self.label("cam fold grad", dweight);
                let s = self.shape(dfolded);
                let args = args::CamFoldBackward {
                    dweight: self.gradient(dweight),
                    dgap_w: self.gradient(dgap_w),
                    dgmp_w: self.gradient(dgmp_w),
                    dfolded: self.input(dfolded),
                    weight: self.input(weight),
                    gap_w: self.input(gap_w),
                    gmp_w: self.input(gmp_w),
                    c: int(s.c),
                };
                let sums = 2 * block_sum_for_all(THREADS) * s.c * s.d;
                let launch =
                    blocks(Launch::new(entry::CAM_FOLD_BACKWARD_F32, args)?, [s.c as u32, s.d as u32, 1]);
                self.launch(launch.flops(6 * s.len() + sums));
            }
            Op::CamLogits { gap, gmp, gap_w, gmp_w, spectral, out } => {
                self.label("cam logits", out);
                let s = self.shape(gap);
                let (gap_scale, n_per_scale) = self.scale(spectral.map(|s| s[0]), s.n);
                let (gmp_scale, _) = self.scale(spectral.map(|s| s[1]), s.n);
                let args = args::CamLogitsForward {
                    logits: self.output(out),
                    gap: self.input(gap),
                    gmp: self.input(gmp),
                    gap_w: self.input(gap_w),
                    gmp_w: self.input(gmp_w),
                    gap_scale,
                    gmp_scale,
                    c: int(s.c),
                    n: int(s.n),
                    n_per_scale,
                };
                // A barrier follows the first of the sums, so all threads finish it.
                let sums = block_sum_for_all(THREADS) + block_sum_for_one(THREADS);
                let launch =
                    blocks(Launch::new(entry::CAM_LOGITS_FORWARD_F32, args)?, [s.images() as u32, 1, 1]);
                self.launch(launch.flops(4 * s.len() + sums * s.images()));
            }
            Op::CamLogitsPoolGrad { dlogits, gap_w, gmp_w, spectral, dgap, dgmp } => {
                self.label("cam logits grad", dgap);
                let s = self.shape(dgap);
                let (gap_scale, n_per_scale) = self.scale(spectral.map(|s| s[0]), s.n);
                let (gmp_scale, _) = self.scale(spectral.map(|s| s[1]), s.n);
                self.first_write(dgap)?;
                self.first_write(dgmp)?;
                let args = args::CamLogitsBackwardPool {
                    dgap: self.output(dgap),
                    dgmp: self.output(dgmp),
                    dlogits: self.input(dlogits),
                    gap_w: self.input(gap_w),
                    gmp_w: self.input(gmp_w),
                    gap_scale,
                    gmp_scale,
                    c: int(s.c),
                    n: int(s.n),
                    n_per_scale,
                };
                let grid = [ceil_div(s.c, THREADS), s.images() as u32, 1];
                self.launch(
                    blocks(Launch::new(entry::CAM_LOGITS_BACKWARD_POOL_F32, args)?, grid).flops(4 * s.len()),
                );
            }
            Op::CamLogitsWeightGrad { dlogits, logits, pooled, spectral, which, dweight } => {
                self.label("cam logits wgrad", dweight);
                let s = self.shape(pooled);
                let (scale, n_per_scale) = self.scale(spectral, s.n);
                let args = args::CamLogitsBackwardWeight {
                    dweight: self.gradient(dweight),
                    dlogits: self.input(dlogits),
                    logits: self.input(logits),
                    pooled: self.input(pooled),
                    scale,
                    u: spectral.map(|s| self.input(s.pass_u)),
                    v: spectral.map(|s| self.input(s.pass_v)),
                    which: int(which),
                    c: int(s.c),
                    n: int(s.n),
                    n_per_scale,
                };
                let grid = [ceil_div(s.c, THREADS), s.d as u32, 1];
                let passes = spectral.map_or(0, |sp| s.d * self.shape(sp.inv_sigma).n);
                let launch = blocks(Launch::new(entry::CAM_LOGITS_BACKWARD_WEIGHT_F32, args)?, grid);
                self.launch(launch.flops(4 * s.len() + 5 * passes * s.c));
            }
            Op::Heatmap { inp, out } => {
                self.label("heatmap", out);
                let s = self.shape(inp);
                let pixels = s.images() * s.pixels();
                let args = args::CamHeatmap {
                    heatmap: self.output(out),
                    x: self.input(inp),
                    pixels: int(pixels),
                    c: int(s.c),
                };
                let grid = [ceil_div(pixels, THREADS / 32), 1, 1];
                self.launch(blocks(Launch::new(entry::CAM_HEATMAP_F32, args)?, grid).flops(s.len()));
            }
            Op::Linear { inp, weight, out, act } => {
                self.label("linear", out);
                let (n, w) = (self.shape(inp).n, self.shape(weight));
                let args = args::LinearForward {
                    out: self.output(out),
                    inp: self.input(inp),
                    weight: self.input(weight),
                    n: int(n),
                    i: int(w.c),
                    o: int(w.w),
                    act: act as i32,
                };
                let flops = 2 * w.len() * n + block_sum_for_one(LINEAR_THREADS) * w.w * w.d * n;
                let launch = Launch::new(entry::LINEAR_FORWARD_F32, args)?.grid([w.w as u32, w.d as u32, 1]);
                self.launch(launch.block([LINEAR_THREADS as u32, 1, 1]).flops(flops));
            }
            Op::LinearInputGrad { dpre, weight, dinp } => {
                self.label("linear dgrad", dinp);
                let (n, w) = (self.shape(dpre).n, self.shape(weight));
                let args = args::LinearBackwardInput {
                    dinp: self.gradient(dinp),
                    dout: self.input(dpre),
                    weight: self.input(weight),
                    n: int(n),
                    i: int(w.c),
                    o: int(w.w),
                };
                let grid = [ceil_div(w.c, LINEAR_THREADS), w.d as u32, 1];
                let launch = Launch::new(entry::LINEAR_BACKWARD_INPUT_F32, args)?.grid(grid);
                self.launch(launch.block([LINEAR_THREADS as u32, 1, 1]).flops(2 * w.len() * n));
            }
            Op::LinearWeightGrad { dpre, inp, dweight } => {
                self.label("linear wgrad", dweight);
                let (n, w) = (self.shape(dpre).n, self.shape(dweight));
                let args = args::LinearBackwardWeight {
                    dweight: self.gradient(dweight),
                    dout: self.input(dpre),
                    inp: self.input(inp),
                    n: int(n),
                    i: int(w.c),
                    o: int(w.w),
                };
                let grid = [ceil_div(w.c, LINEAR_THREADS), w.w as u32, w.d as u32];
                let launch = Launch::new(entry::LINEAR_BACKWARD_WEIGHT_F32, args)?.grid(grid);
                self.launch(launch.block([LINEAR_THREADS as u32, 1, 1]).flops(2 * w.len() * n));
            }
            Op::Activation { inp, out, act } => {
                self.label("activation", out);
                let n = self.shape(inp).len();
                let args = args::ActivationForward {
                    out: self.output(out),
                    inp: self.input(inp),
                    n: int(n),
                    act: act as i32,
                };
                self.launch(over(Launch::new(entry::ACTIVATION_FORWARD_F32, args)?, n).flops(n));
            }
            Op::ActivationGrad { dout, out, dinp, act } => {
                self.label("activation grad", dinp);
                self.first_write(dinp)?;
                let n = self.shape(dinp).len();
                let args = args::ActivationBackward {
                    dinp: self.output(dinp),
                    dout: self.input(dout),
                    out: self.input(out),
                    n: int(n),
                    act: act as i32,
                };
                self.launch(over(Launch::new(entry::ACTIVATION_BACKWARD_F32, args)?, n).flops(n));
            }
            Op::Loss { kind, inp, target, targets, halves, terms } => {
                self.label("loss", terms);
                let s = self.shape(inp);
                let groups = s.d * halves;
                let args = args::LossForward {
                    terms: self.output(terms),
                    inp: self.input(inp),
                    target: target.map(|t| self.input(t)),
                    n: int(s.len() / groups),
                    halves: int(halves),
                    target0: targets[0],
                    target1: targets[1],
                };
                let launch = Launch::new(loss_forward(kind), args)?.grid([groups as u32, 1, 1]);
                let flops = forward_flops(kind) * s.len() + groups * block_sum_for_one(LOSS_THREADS);
                self.launch(launch.block([LOSS_THREADS as u32, 1, 1]).flops(flops));
            }
            Op::LossGrad { kind, inp, target, targets, halves, weights, dinp } => {
                self.label("loss grad", dinp);
                let s = self.shape(inp);
                let groups = s.d * halves;
                let n = s.len() / groups;
                let args = args::LossBackward {
                    dinp: self.gradient(dinp),
                    inp: self.input(inp),
                    target: target.map(|t| self.input(t)),
                    n: int(n),
                    halves: int(halves),
                    target0: targets[0],
                    target1: targets[1],
                    weight0: weights[0],
                    weight1: weights[1],
                };
                let grid = [ceil_div(n, LOSS_THREADS), groups as u32, 1];
                let launch = Launch::new(loss_backward(kind), args)?.grid(grid);
                self.launch(launch.block([LOSS_THREADS as u32, 1, 1]).flops(backward_flops(kind) * s.len()));
            }
            Op::PowerIteration { weight, u, v, spectral, pass } => {
                self.power_iteration(weight, u, v, spectral, pass)?;
            }
            Op::Adam { p, m, v, g, schedule, hyper } => {
                self.label("adam", p);
                let n = self.shape(p).len();
                let args = args::Adam {
                    p: self.update(p),
                    m: self.update(m),
                    v: self.update(v),
                    g: self.input(g),
                    schedule: self.input(schedule),
                    n: int(n),
                    beta1: hyper.beta1 as f32,
                    beta2: hyper.beta2 as f32,
                    one_minus_beta1: (1.0 - hyper.beta1) as f32,
                    one_minus_beta2: (1.0 - hyper.beta2) as f32,
                    eps: hyper.eps as f32,
                    weight_decay: hyper.weight_decay as f32,
                };
                self.launch(over(Launch::new(entry::ADAM_F32, args)?, n).flops(14 * n));
            }
            Op::ClipRho { rho, high } => {
                self.label("clip", rho);
                let n = self.shape(rho).len();
                let args = args::RhoClip { rho: self.update(rho), n: int(n), low: 0.0, high };
                self.launch(over(Launch::new(entry::RHO_CLIP_F32, args)?, n));
            }
        }
        Ok(())
    }

    /// One pass of the power method: v from u, u from v, and 1 / sigma.
    fn power_iteration(
        &mut self,
        weight: Value,
        u: Value,
        v: Value,
        spectral: Spectral,
        pass: usize,
    ) -> Result<()> {
        self.label("power iteration", weight);
        let (k, co, d) = (self.shape(v).c, self.shape(u).c, self.shape(weight).d);
        let passes = self.shape(spectral.inv_sigma).n;
        let raw = self.scratch("raw v", d * k);
        let lanes = co.next_power_of_two().min(32);
        let args = args::SpectralRows {
            raw: Out(raw),
            w: self.input(weight),
            u: self.input(u),
            k: int(k),
            co: int(co),
            lanes: int(lanes),
        };
        let product = 2 * d * k * co;
        let launch = Launch::new(entry::SPECTRAL_ROWS_F32, args)?;
        let launch = blocks(launch, [ceil_div(k * lanes, THREADS), d as u32, 1]);
        // The lanes of a row join their sums, each of them all.
        self.launch(launch.flops(product + d * k * lanes * lanes.ilog2() as usize));

        let args = args::SpectralNormalise {
            v: self.output(v),
            pass_v: self.output(spectral.pass_v),
            raw: In(raw),
            k: int(k),
            passes: int(passes),
            pass: int(pass),
        };
        let launch = blocks(Launch::new(entry::SPECTRAL_NORMALISE_F32, args)?, [d as u32, 1, 1]);
        self.launch(launch.flops(d * (3 * k + block_sum_for_all(THREADS))));

        let (bc, bp) = channel_block(co);
        let chunks = chunks_of(k, co).min(64);
        let partial = self.scratch("partials", d * chunks * co);
        let args = args::SpectralColumns {
            partial: Out(partial),
            w: self.input(weight),
            v: self.input(v),
            k: int(k),
            co: int(co),
            chunks: int(chunks),
        };
        let grid = [ceil_div(co, bc), chunks as u32, d as u32];
        let launch =
            Launch::new(entry::SPECTRAL_COLUMNS_F32, args)?.grid(grid).block([bc as u32, bp as u32, 1]);
        self.launch(launch.flops(product));

        let args = args::SpectralFinish {
            u: self.output(u),
            pass_u: self.output(spectral.pass_u),
            inv_sigma: self.output(spectral.inv_sigma),
            partial: In(partial),
            co: int(co),
            chunks: int(chunks),
            passes: int(passes),
            pass: int(pass),
        };
        let sums = block_sum_for_all(THREADS) + block_sum_for_one(THREADS);
        let launch = blocks(Launch::new(entry::SPECTRAL_FINISH_F32, args)?, [d as u32, 1, 1]);
        self.launch(launch.flops(d * (co * (chunks + 5) + sums)));
        Ok(())
    }

    fn norm_layer(&self, inp: Value, affine: Option<Affine>, act: Activation) -> norm::Layer {
        let shape = self.shape(inp);
        let images_per_affine = affine.map_or(1, |a| shape.n / self.shape(a.gamma).n);
        norm::Layer { shape, dtype: self.tape.info(inp).dtype, images_per_affine, act }
    }

    /// For kernels that only store: their output must not have been written before.
    fn first_write(&mut self, v: Value) -> Result<()> {
        if self.written.insert(v) {
            return Ok(());
        }
        Err(Error::new(format!("{}: {} is written twice", self.label, self.tape.info(v).name)))
    }

    /// Joins the chunks of a split reduction into a gradient.
    fn reduce(&mut self, partial: BufferRef, out: Value, n: usize, chunks: usize) -> Result<()> {
        let args = args::ReducePartials {
            out: self.gradient(out),
            partial: In(partial),
            n: int(n),
            chunks: int(chunks),
        };
        self.launch(over(Launch::new(entry::REDUCE_PARTIALS_F32, args)?, n).flops(n * chunks));
        Ok(())
    }

    /// The rank-1 term of a spectrally normalised weight's gradient.
    fn spectral_correction(
        &mut self,
        dpre: Value,
        out: Value,
        bias: Option<Value>,
        act: Activation,
        sp: Spectral,
        dweight: Value,
    ) -> Result<()> {
        let (s, k, co) = (self.shape(dpre), self.shape(sp.pass_v).c, self.shape(sp.pass_u).c);
        let passes = self.shape(sp.inv_sigma).n;
        let n = s.len() / (s.d * passes);
        let chunks = chunks_of_row(n);
        let partial = self.scratch("dots", s.d * passes * chunks);
        let args = args::SpectralDot {
            partial: Out(partial),
            dpre: self.input(dpre),
            out: self.input(out),
            bias: bias.map(|b| self.input(b)),
            n: int(n),
            co: int(co),
            passes: int(passes),
            act: act as i32,
        };
        let grid = [chunks as u32, (s.d * passes) as u32, 1];
        self.launch(blocks(Launch::new(entry::SPECTRAL_DOT_F32, args)?, grid).flops(3 * s.len()));
        let args = args::SpectralCorrect {
            dweight: self.update(dweight),
            partial: In(partial),
            inv_sigma: self.input(sp.inv_sigma),
            pass_u: self.input(sp.pass_u),
            pass_v: self.input(sp.pass_v),
            k: int(k),
            co: int(co),
            passes: int(passes),
            chunks: int(chunks),
        };
        let grid = [ceil_div(k * co, THREADS), s.d as u32, 1];
        let launch = blocks(Launch::new(entry::SPECTRAL_CORRECT_F32, args)?, grid);
        self.launch(launch.flops(3 * s.d * passes * k * co));
        Ok(())
    }
}

/// Threads a block of the linear layers' kernels.
const LINEAR_THREADS: usize = 128;
/// Threads a block of the losses' kernels.
const LOSS_THREADS: usize = 512;

/// Operations of a loss for each element, exponential and logarithm as the polynomials they are.
fn forward_flops(kind: LossKind) -> usize {
    if kind == LossKind::Bce { 30 } else { 3 }
}

/// Of its gradient.
fn backward_flops(kind: LossKind) -> usize {
    if kind == LossKind::Bce { 15 } else { 4 }
}

fn loss_forward(kind: LossKind) -> KernelOf<args::LossForward> {
    match kind {
        LossKind::Mse => entry::LOSS_MSE_FORWARD_F32,
        LossKind::Bce => entry::LOSS_BCE_FORWARD_F32,
        LossKind::L1 => entry::LOSS_L1_FORWARD_F32,
    }
}

fn loss_backward(kind: LossKind) -> KernelOf<args::LossBackward> {
    match kind {
        LossKind::Mse => entry::LOSS_MSE_BACKWARD_F32,
        LossKind::Bce => entry::LOSS_BCE_BACKWARD_F32,
        LossKind::L1 => entry::LOSS_L1_BACKWARD_F32,
    }
}

impl norm::Sink for Lowering<'_> {
    fn scratch(&mut self, name: &str, bytes: u64) -> BufferRef {
        let name = format!("{name} of {}", self.label);
        self.out.buffers.push(Buffer { name, space: Space::Arena, offset: 0, bytes });
        BufferRef { buffer: (self.out.buffers.len() - 1) as u32, offset: 0, bytes }
    }

    fn counters(&mut self, count: usize) -> Result<BufferRef> {
        let counters = Lowering::scratch(self, "counters", count);
        let args = args::AdalinElementaryZero { counter: Out(counters), n: int(count) };
        Lowering::launch(self, over(Launch::new(entry::ADALIN_ELEMENTARY_ZERO_U32, args)?, count));
        Ok(counters)
    }

    fn launch(&mut self, _what: &str, launch: Launch) {
        Lowering::launch(self, launch);
    }
}
