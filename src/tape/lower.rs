//! From operations to kernel launches: the kernel variant, the grid, the split of long reductions.
//!
//! Nothing here depends on which device will run the program, so what the emulator checks is what the
//! GPU runs, launch for launch.

mod conv;

use std::collections::{HashMap, HashSet};

use super::norm::{self, NormVariant, Norms};
use super::{Activation, Affine, LossKind, Op, Place, Spectral, StateLayout, Tape, Value};
use crate::device::{Arg, Buffer, BufferRef, Launch, Space};
use crate::kernels;
use crate::tensor::Shape;
use crate::{Error, Result};

/// Threads a block of the reductions and passes over channels and pixels.
const THREADS: usize = 256;
/// Pixels a thread of such a pass walks over before another block is worth it.
const PIXELS_A_THREAD: usize = 16;

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

fn div_up(a: usize, b: usize) -> u32 {
    u32::try_from(a.div_ceil(b)).expect("grid fits 32 bits")
}

/// Operations of a sum over a block of threads that all of them want (`block_sum`): five shuffles in each
/// warp, then every thread adds up what the warps have. Where a layer is small, these are most of its operations.
pub(super) fn block_sum_for_all(threads: usize) -> usize {
    threads * (5 + threads / 32)
}

/// The same where one thread alone wants the sum.
pub(super) fn block_sum_for_one(threads: usize) -> usize {
    threads * 5 + threads / 32
}

/// Block shape (channels, pixels) of the passes that keep a thread on one channel.
fn channel_block(c: usize) -> (usize, usize) {
    let channels = c.next_power_of_two().min(32);
    (channels, THREADS / channels)
}

/// Blocks over `rows` rows of `c` channels so that a thread has some work to do.
fn chunks_of(rows: usize, c: usize) -> usize {
    rows.div_ceil(channel_block(c).1 * PIXELS_A_THREAD).clamp(1, 4096)
}

fn int(v: usize) -> Arg {
    Arg::I32(i32::try_from(v).expect("extent fits 31 bits"))
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

    fn buf(&mut self, v: Value) -> Arg {
        self.buf_from(v, 0)
    }

    fn maybe(&mut self, v: Option<Value>) -> Arg {
        v.map_or(Arg::Null, |v| self.buf(v))
    }

    /// The value from element `first` to its end.
    fn buf_from(&mut self, v: Value, first: usize) -> Arg {
        let buffer = self.buffer_of(v);
        let offset = first as u64 * self.tape.info(v).dtype.bytes();
        let bytes = self.out.buffers[buffer as usize].bytes - offset;
        Arg::Buffer(BufferRef { buffer, offset, bytes })
    }

    fn scratch(&mut self, name: &str, floats: usize) -> Arg {
        let name = format!("{name} of {}", self.label);
        let bytes = floats as u64 * 4;
        self.out.buffers.push(Buffer { name, space: Space::Arena, offset: 0, bytes });
        Arg::Buffer(BufferRef { buffer: (self.out.buffers.len() - 1) as u32, offset: 0, bytes })
    }

    /// 0 for the first write to a gradient, 1 for every later one.
    fn accumulate(&mut self, v: Value) -> Arg {
        Arg::I32(i32::from(!self.written.insert(v)))
    }

    fn launch(
        &mut self,
        kernel: &str,
        grid: [u32; 3],
        block: [u32; 3],
        args: Vec<Arg>,
        flops: usize,
    ) -> Result<()> {
        let geometry = norm::Geometry { grid, block, shared_bytes: 0, cooperative: false };
        self.launch_as(kernel, geometry, args, flops)
    }

    fn launch_as(
        &mut self,
        kernel: &str,
        geometry: norm::Geometry,
        args: Vec<Arg>,
        flops: usize,
    ) -> Result<()> {
        let norm::Geometry { grid, block, shared_bytes, cooperative } = geometry;
        let kernel = kernels::find(kernel)?;
        let bytes = |arg: &Arg| if let Arg::Buffer(r) = arg { r.bytes } else { 0 };
        let mut min_bytes: u64 = args.iter().map(bytes).sum();
        // A gradient that is added to is read as well. Gradients come first among the arguments.
        let adds = kernel
            .params
            .iter()
            .zip(&args)
            .filter(|(p, a)| p.name.starts_with("accumulate") && matches!(a, Arg::I32(1)))
            .count();
        min_bytes += args.iter().take(adds).map(bytes).sum::<u64>();
        let label = self.label.clone();
        self.out.launches.push(Launch {
            kernel,
            grid,
            block,
            shared_bytes,
            args,
            defines: Vec::new(),
            label,
            min_bytes,
            flops: flops as u64,
            cooperative,
        });
        Ok(())
    }

    /// A launch of `THREADS` threads a block over n elements.
    fn over(&mut self, kernel: &str, n: usize, args: Vec<Arg>, flops: usize) -> Result<()> {
        self.launch(kernel, [div_up(n, THREADS), 1, 1], [THREADS as u32, 1, 1], args, flops)
    }

    /// A launch over channels, chunks of pixels, images.
    fn pass(&mut self, kernel: &str, s: Shape, chunks: usize, args: Vec<Arg>, flops: usize) -> Result<()> {
        let (bc, bp) = channel_block(s.c);
        let grid = [div_up(s.c, bc), chunks as u32, s.images() as u32];
        self.launch(kernel, grid, [bc as u32, bp as u32, 1], args, flops)
    }

    fn scale_args(&mut self, spectral: Option<Spectral>, n: usize) -> (Arg, Arg) {
        match spectral {
            Some(s) => {
                let passes = self.shape(s.inv_sigma).n;
                (self.buf(s.inv_sigma), int(n / passes))
            }
            None => (Arg::Null, int(n)),
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
                let (kernel, v) =
                    if s.c % 4 == 0 { ("pad_forward_x4_f32", 4) } else { ("pad_forward_x1_f32", 1) };
                let args =
                    vec![self.buf(out), self.buf(inp), int(s.h), int(s.w), int(s.c), int(pad), int(up)];
                let grid = [div_up(o.w * o.c / v, THREADS), o.h as u32, o.images() as u32];
                self.launch(kernel, grid, [THREADS as u32, 1, 1], args, 0)
            }
            Op::PadGrad { dout, dinp, pad, up } => {
                self.label("pad grad", dinp);
                let s = self.shape(dinp);
                let (kernel, v) = if s.c.is_multiple_of(4) {
                    ("pad_backward_x4_f32", 4)
                } else {
                    ("pad_backward_x1_f32", 1)
                };
                let (dx, dy, acc) = (self.buf(dinp), self.buf(dout), self.accumulate(dinp));
                let args = vec![dx, dy, int(s.h), int(s.w), int(s.c), int(pad), int(up), acc];
                let grid = [div_up(s.w * s.c / v, THREADS), s.h as u32, s.images() as u32];
                self.launch(kernel, grid, [THREADS as u32, 1, 1], args, self.shape(dout).len())
            }
            Op::CopyImages { inp, inp_first, out, out_first, count, swap, add } => {
                self.label(if add { "add" } else { "copy" }, out);
                let (si, so) = (self.shape(inp), self.shape(out));
                let n = count * si.image_len();
                let acc = if add {
                    let whole = count == so.n;
                    if !whole && !self.written.contains(&out) {
                        return Err(Error::new(format!(
                            "{}: a part of it is added to before the whole was written",
                            self.tape.info(out).name
                        )));
                    }
                    self.accumulate(out)
                } else {
                    Arg::I32(0)
                };
                let args = vec![
                    self.buf_from(out, out_first * so.image_len()),
                    self.buf_from(inp, inp_first * si.image_len()),
                    int(n),
                    int(so.n * so.image_len()),
                    int(si.n * si.image_len()),
                    int(usize::from(swap)),
                    acc,
                ];
                let (copied, adds) = (n * si.d, acc == Arg::I32(1));
                self.launch(
                    "copy_images_f32",
                    [div_up(n, THREADS), si.d as u32, 1],
                    [THREADS as u32, 1, 1],
                    args,
                    if adds { copied } else { 0 },
                )?;
                // Only the part that is copied moves, whatever the buffers' sizes.
                let last = self.out.launches.last_mut().expect("just pushed");
                last.min_bytes = copied as u64 * 4 * if adds { 3 } else { 2 };
                Ok(())
            }
            Op::Conv { inp, weight, bias, spectral, out, stride, act } => {
                self.conv(inp, weight, bias, spectral, out, stride, act)
            }
            Op::ConvInputGrad { dpre, weight, spectral, dinp, stride } => {
                self.conv_input_grad(dpre, weight, spectral, dinp, stride)
            }
            Op::ConvWeightGrad { dpre, inp, dweight, stride, spectral, out, bias, act } => {
                self.conv_weight_grad(dpre, inp, dweight, stride, spectral)?;
                match spectral {
                    Some(sp) => self.spectral_correction(dpre, out, bias, act, sp, dweight),
                    None => Ok(()),
                }
            }
            Op::BiasGrad { dpre, dbias } => {
                self.label("bias grad", dbias);
                let s = self.shape(dpre);
                let rows = s.n * s.pixels();
                let chunks = chunks_of(rows, s.c);
                let acc = self.accumulate(dbias);
                let n = self.shape(dbias).len();
                let target = if chunks > 1 { self.scratch("partials", chunks * n) } else { self.buf(dbias) };
                let (bc, bp) = channel_block(s.c);
                let args = vec![
                    target,
                    self.buf(dpre),
                    int(rows),
                    int(s.c),
                    int(chunks),
                    if chunks > 1 { Arg::I32(0) } else { acc },
                ];
                let grid = [div_up(s.c, bc), chunks as u32, s.d as u32];
                self.launch("bias_backward_f32", grid, [bc as u32, bp as u32, 1], args, s.len())?;
                if chunks > 1 {
                    self.reduce(target, dbias, n, chunks, acc)?;
                }
                Ok(())
            }
            Op::Norm { inp, affine, act, residual, out, stats, layer_stats } => {
                self.label("norm", out);
                let layer = self.norm_layer(inp, affine, act);
                let behind = self.pads.get(&out).copied();
                let padded = behind.map(|p| norm::Padded { to: self.buf(p.padded), pad: p.pad, up: p.up });
                let io = norm::Forward {
                    out: if behind.is_none_or(|p| p.read) { self.buf(out) } else { Arg::Null },
                    inp: self.buf(inp),
                    params: affine.map(|a| self.norm_params(a)),
                    residual: self.maybe(residual),
                    stats: self.buf(stats),
                    layer_stats: self.maybe(layer_stats),
                    padded,
                };
                let variant = self.options.norm;
                let saved = norm::forward(self, &layer, variant, &io)?;
                self.norms.insert(stats, saved);
                Ok(())
            }
            Op::NormGrad { dout, inp, stats, layer_stats, affine, daffine, act, dinp } => {
                self.label("norm grad", dinp);
                let layer = self.norm_layer(inp, affine, act);
                let (mut accumulate_affine, mut accumulate_rho) = (false, false);
                if let Some(d) = daffine {
                    accumulate_affine = !self.written.insert(d.gamma);
                    if accumulate_affine == self.written.insert(d.beta) {
                        return Err(Error::new(format!("{}: gamma and beta differ in use", self.label)));
                    }
                    accumulate_rho = !self.written.insert(d.rho);
                }
                let io = norm::Backward {
                    dout: self.buf(dout),
                    inp: self.buf(inp),
                    dinp: self.buf(dinp),
                    params: affine.zip(daffine).map(|(a, d)| (self.norm_params(a), self.norm_params(d))),
                    stats: self.buf(stats),
                    layer_stats: self.maybe(layer_stats),
                    accumulate: !self.written.insert(dinp),
                    accumulate_affine,
                    accumulate_rho,
                };
                let saved = self.norms.get(&stats).cloned();
                let saved = saved.ok_or_else(|| Error::new(format!("{}: no forward pass", self.label)))?;
                let variant = self.options.norm;
                norm::backward(self, &layer, variant, &io, &saved)
            }
            Op::Pool { inp, average, maximum } => {
                self.label("pool", average);
                let s = self.shape(inp);
                let chunks = chunks_of(s.pixels(), s.c);
                let n = s.images() * chunks * s.c;
                let (sums, tops, places) =
                    (self.scratch("sums", n), self.scratch("maxima", n), self.scratch("places", n));
                let args = vec![sums, tops, places, self.buf(inp), int(s.pixels()), int(s.c), int(chunks)];
                self.pass("global_pool_partial_f32", s, chunks, args, s.len())?;
                let (top, at) = (self.maybe(maximum.map(|m| m.0)), self.maybe(maximum.map(|m| m.1)));
                let args = vec![
                    self.buf(average),
                    top,
                    at,
                    sums,
                    tops,
                    places,
                    int(s.pixels()),
                    int(s.c),
                    int(chunks),
                ];
                let grid = [div_up(s.c, THREADS), s.images() as u32, 1];
                self.launch("global_pool_finish_f32", grid, [THREADS as u32, 1, 1], args, 2 * n)
            }
            Op::PoolGrad { daverage, dmaximum, dinp } => {
                self.label("pool grad", dinp);
                let s = self.shape(dinp);
                let chunks = chunks_of(s.pixels(), s.c);
                let acc = self.accumulate(dinp);
                let args = vec![
                    self.buf(dinp),
                    self.buf(daverage),
                    self.maybe(dmaximum.map(|m| m.0)),
                    self.maybe(dmaximum.map(|m| m.1)),
                    int(s.pixels()),
                    int(s.c),
                    int(chunks),
                    acc,
                ];
                self.pass("global_pool_backward_f32", s, chunks, args, s.len())
            }
            Op::CamFold { weight, gap_w, gmp_w, out } => {
                self.label("cam fold", out);
                let s = self.shape(out);
                let args = vec![self.buf(out), self.buf(weight), self.buf(gap_w), self.buf(gmp_w), int(s.c)];
                let grid = [div_up(s.c, THREADS), s.c as u32, s.d as u32];
                self.launch("cam_fold_f32", grid, [THREADS as u32, 1, 1], args, 3 * s.len())
            }
            Op::CamFoldGrad { dfolded, weight, gap_w, gmp_w, dweight, dgap_w, dgmp_w } => {
                self.label("cam fold grad", dweight);
                let s = self.shape(dfolded);
                let (acc_rows, acc_other) = (self.accumulate(dgap_w), self.accumulate(dgmp_w));
                if acc_rows != acc_other {
                    return Err(Error::new(format!("{}: the two rows differ in use", self.label)));
                }
                let acc = self.accumulate(dweight);
                let mut args: Vec<Arg> = [dweight, dgap_w, dgmp_w, dfolded, weight, gap_w, gmp_w]
                    .into_iter()
                    .map(|v| self.buf(v))
                    .collect();
                args.extend([int(s.c), acc, acc_rows]);
                let grid = [s.c as u32, s.d as u32, 1];
                let sums = 2 * block_sum_for_all(THREADS) * s.c * s.d;
                self.launch("cam_fold_backward_f32", grid, [THREADS as u32, 1, 1], args, 6 * s.len() + sums)
            }
            Op::CamLogits { gap, gmp, gap_w, gmp_w, spectral, out } => {
                self.label("cam logits", out);
                let s = self.shape(gap);
                let (a, per) = self.scale_args(spectral.map(|s| s[0]), s.n);
                let (m, _) = self.scale_args(spectral.map(|s| s[1]), s.n);
                let mut args: Vec<Arg> =
                    [out, gap, gmp, gap_w, gmp_w].into_iter().map(|v| self.buf(v)).collect();
                args.extend([a, m, int(s.c), int(s.n), per]);
                let grid = [s.images() as u32, 1, 1];
                // A barrier follows the first of the sums, so all threads finish it.
                let sums = block_sum_for_all(THREADS) + block_sum_for_one(THREADS);
                let flops = 4 * s.len() + sums * s.images();
                self.launch("cam_logits_forward_f32", grid, [THREADS as u32, 1, 1], args, flops)
            }
            Op::CamLogitsPoolGrad { dlogits, gap_w, gmp_w, spectral, dgap, dgmp } => {
                self.label("cam logits grad", dgap);
                let s = self.shape(dgap);
                let (a, per) = self.scale_args(spectral.map(|s| s[0]), s.n);
                let (m, _) = self.scale_args(spectral.map(|s| s[1]), s.n);
                self.first_write(dgap)?;
                self.first_write(dgmp)?;
                let mut args: Vec<Arg> =
                    [dgap, dgmp, dlogits, gap_w, gmp_w].into_iter().map(|v| self.buf(v)).collect();
                args.extend([a, m, int(s.c), int(s.n), per]);
                let grid = [div_up(s.c, THREADS), s.images() as u32, 1];
                self.launch("cam_logits_backward_pool_f32", grid, [THREADS as u32, 1, 1], args, 4 * s.len())
            }
            Op::CamLogitsWeightGrad { dlogits, logits, pooled, spectral, which, dweight } => {
                self.label("cam logits wgrad", dweight);
                let s = self.shape(pooled);
                let (scale, per) = self.scale_args(spectral, s.n);
                let acc = self.accumulate(dweight);
                let args = vec![
                    self.buf(dweight),
                    self.buf(dlogits),
                    self.buf(logits),
                    self.buf(pooled),
                    scale,
                    self.maybe(spectral.map(|s| s.pass_u)),
                    self.maybe(spectral.map(|s| s.pass_v)),
                    int(which),
                    int(s.c),
                    int(s.n),
                    per,
                    acc,
                ];
                let grid = [div_up(s.c, THREADS), s.d as u32, 1];
                let passes = spectral.map_or(0, |sp| s.d * self.shape(sp.inv_sigma).n);
                let flops = 4 * s.len() + 5 * passes * s.c;
                self.launch("cam_logits_backward_weight_f32", grid, [THREADS as u32, 1, 1], args, flops)
            }
            Op::Heatmap { inp, out } => {
                self.label("heatmap", out);
                let s = self.shape(inp);
                let pixels = s.images() * s.pixels();
                let args = vec![self.buf(out), self.buf(inp), int(pixels), int(s.c)];
                let grid = [div_up(pixels, THREADS / 32), 1, 1];
                self.launch("cam_heatmap_f32", grid, [THREADS as u32, 1, 1], args, s.len())
            }
            Op::Linear { inp, weight, out, act } => {
                self.label("linear", out);
                let (n, w) = (self.shape(inp).n, self.shape(weight));
                let mut args: Vec<Arg> = [out, inp, weight].into_iter().map(|v| self.buf(v)).collect();
                args.extend([int(n), int(w.c), int(w.w), Arg::I32(act as i32)]);
                self.launch(
                    "linear_forward_f32",
                    [w.w as u32, w.d as u32, 1],
                    [128, 1, 1],
                    args,
                    2 * w.len() * n + block_sum_for_one(128) * w.w * w.d * n,
                )
            }
            Op::LinearInputGrad { dpre, weight, dinp } => {
                self.label("linear dgrad", dinp);
                let (n, w) = (self.shape(dpre).n, self.shape(weight));
                let acc = self.accumulate(dinp);
                let mut args: Vec<Arg> = [dinp, dpre, weight].into_iter().map(|v| self.buf(v)).collect();
                args.extend([int(n), int(w.c), int(w.w), acc]);
                let grid = [div_up(w.c, 128), w.d as u32, 1];
                self.launch("linear_backward_input_f32", grid, [128, 1, 1], args, 2 * w.len() * n)
            }
            Op::LinearWeightGrad { dpre, inp, dweight } => {
                self.label("linear wgrad", dweight);
                let (n, w) = (self.shape(dpre).n, self.shape(dweight));
                let acc = self.accumulate(dweight);
                let mut args: Vec<Arg> = [dweight, dpre, inp].into_iter().map(|v| self.buf(v)).collect();
                args.extend([int(n), int(w.c), int(w.w), acc]);
                let grid = [div_up(w.c, 128), w.w as u32, w.d as u32];
                self.launch("linear_backward_weight_f32", grid, [128, 1, 1], args, 2 * w.len() * n)
            }
            Op::Activation { inp, out, act } => {
                self.label("activation", out);
                let n = self.shape(inp).len();
                let args = vec![self.buf(out), self.buf(inp), int(n), Arg::I32(act as i32)];
                self.over("activation_forward_f32", n, args, n)
            }
            Op::ActivationGrad { dout, out, dinp, act } => {
                self.label("activation grad", dinp);
                self.first_write(dinp)?;
                let n = self.shape(dinp).len();
                let args = vec![self.buf(dinp), self.buf(dout), self.buf(out), int(n), Arg::I32(act as i32)];
                self.over("activation_backward_f32", n, args, n)
            }
            Op::Loss { kind, inp, target, targets, halves, terms } => {
                self.label("loss", terms);
                let s = self.shape(inp);
                let groups = s.d * halves;
                let n = s.len() / groups;
                let args = vec![
                    self.buf(terms),
                    self.buf(inp),
                    self.maybe(target),
                    int(n),
                    int(halves),
                    Arg::F32(targets[0]),
                    Arg::F32(targets[1]),
                ];
                let kernel = format!("loss_{}_forward_f32", loss_name(kind));
                let flops = forward_flops(kind) * s.len() + groups * block_sum_for_one(512);
                self.launch(&kernel, [groups as u32, 1, 1], [512, 1, 1], args, flops)
            }
            Op::LossGrad { kind, inp, target, targets, halves, weights, dinp } => {
                self.label("loss grad", dinp);
                let s = self.shape(inp);
                let groups = s.d * halves;
                let n = s.len() / groups;
                let acc = self.accumulate(dinp);
                let args = vec![
                    self.buf(dinp),
                    self.buf(inp),
                    self.maybe(target),
                    int(n),
                    int(halves),
                    Arg::F32(targets[0]),
                    Arg::F32(targets[1]),
                    Arg::F32(weights[0]),
                    Arg::F32(weights[1]),
                    acc,
                ];
                let kernel = format!("loss_{}_backward_f32", loss_name(kind));
                self.launch(
                    &kernel,
                    [div_up(n, 512), groups as u32, 1],
                    [512, 1, 1],
                    args,
                    backward_flops(kind) * s.len(),
                )
            }
            Op::PowerIteration { weight, u, v, spectral, pass } => {
                self.label("power iteration", weight);
                let (k, co, d) = (self.shape(v).c, self.shape(u).c, self.shape(weight).d);
                let passes = self.shape(spectral.inv_sigma).n;
                let (kk, cc) = (int(k), int(co));
                let raw = self.scratch("raw v", d * k);
                let lanes = co.next_power_of_two().min(32);
                let args = vec![raw, self.buf(weight), self.buf(u), kk, cc, int(lanes)];
                let threads = [THREADS as u32, 1, 1];
                let flops = 2 * d * k * co;
                self.launch(
                    "spectral_rows_f32",
                    [div_up(k * lanes, THREADS), d as u32, 1],
                    threads,
                    args,
                    // The lanes of a row join their sums, each of them all.
                    flops + d * k * lanes * lanes.ilog2() as usize,
                )?;
                let args = vec![self.buf(v), self.buf(spectral.pass_v), raw, kk, int(passes), int(pass)];
                let normalise = d * (3 * k + block_sum_for_all(THREADS));
                self.launch("spectral_normalise_f32", [d as u32, 1, 1], threads, args, normalise)?;
                let (bc, bp) = channel_block(co);
                let chunks = chunks_of(k, co).min(64);
                let partial = self.scratch("partials", d * chunks * co);
                let args = vec![partial, self.buf(weight), self.buf(v), kk, cc, int(chunks)];
                let grid = [div_up(co, bc), chunks as u32, d as u32];
                self.launch("spectral_columns_f32", grid, [bc as u32, bp as u32, 1], args, flops)?;
                let args = vec![
                    self.buf(u),
                    self.buf(spectral.pass_u),
                    self.buf(spectral.inv_sigma),
                    partial,
                    cc,
                    int(chunks),
                    int(passes),
                    int(pass),
                ];
                let sums = block_sum_for_all(THREADS) + block_sum_for_one(THREADS);
                let flops = d * (co * (chunks + 5) + sums);
                self.launch("spectral_finish_f32", [d as u32, 1, 1], threads, args, flops)
            }
            Op::Adam { p, m, v, g, schedule, hyper } => {
                self.label("adam", p);
                let n = self.shape(p).len();
                let mut args: Vec<Arg> = [p, m, v, g, schedule].into_iter().map(|x| self.buf(x)).collect();
                args.push(int(n));
                let constants = [
                    hyper.beta1,
                    hyper.beta2,
                    1.0 - hyper.beta1,
                    1.0 - hyper.beta2,
                    hyper.eps,
                    hyper.weight_decay,
                ];
                args.extend(constants.map(|x| Arg::F32(x as f32)));
                self.over("adam_f32", n, args, 14 * n)?;
                let last = self.out.launches.last_mut().expect("just pushed");
                last.min_bytes = 7 * 4 * n as u64; // p, m, v read and written, g read
                Ok(())
            }
            Op::ClipRho { rho, high } => {
                self.label("clip", rho);
                let n = self.shape(rho).len();
                let args = vec![self.buf(rho), int(n), Arg::F32(0.0), Arg::F32(high)];
                self.over("rho_clip_f32", n, args, 0)?;
                self.out.launches.last_mut().expect("just pushed").min_bytes = 8 * n as u64;
                Ok(())
            }
        }
    }

    fn norm_layer(&self, inp: Value, affine: Option<Affine>, act: Activation) -> norm::Layer {
        let shape = self.shape(inp);
        let images_per_affine = affine.map_or(1, |a| shape.n / self.shape(a.gamma).n);
        norm::Layer { shape, dtype: self.tape.info(inp).dtype, images_per_affine, act }
    }

    fn norm_params(&mut self, a: Affine) -> norm::Params {
        norm::Params { rho: self.buf(a.rho), gamma: self.buf(a.gamma), beta: self.buf(a.beta) }
    }

    /// For kernels that only store: their output must not have been written before.
    fn first_write(&mut self, v: Value) -> Result<()> {
        if self.written.insert(v) {
            return Ok(());
        }
        Err(Error::new(format!("{}: {} is written twice", self.label, self.tape.info(v).name)))
    }

    fn reduce(&mut self, partial: Arg, out: Value, n: usize, chunks: usize, accumulate: Arg) -> Result<()> {
        let args = vec![self.buf(out), partial, int(n), int(chunks), accumulate];
        self.over("reduce_partials_f32", n, args, n * chunks)
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
        let chunks = n.div_ceil(THREADS * PIXELS_A_THREAD).clamp(1, 64);
        let partial = self.scratch("dots", s.d * passes * chunks);
        let args = vec![
            partial,
            self.buf(dpre),
            self.buf(out),
            self.maybe(bias),
            int(n),
            int(co),
            int(passes),
            Arg::I32(act as i32),
        ];
        let grid = [chunks as u32, (s.d * passes) as u32, 1];
        self.launch("spectral_dot_f32", grid, [THREADS as u32, 1, 1], args, 3 * s.len())?;
        let args = vec![
            self.buf(dweight),
            partial,
            self.buf(sp.inv_sigma),
            self.buf(sp.pass_u),
            self.buf(sp.pass_v),
            int(k),
            int(co),
            int(passes),
            int(chunks),
        ];
        let grid = [div_up(k * co, THREADS), s.d as u32, 1];
        self.launch("spectral_correct_f32", grid, [THREADS as u32, 1, 1], args, 3 * s.d * passes * k * co)
    }
}

/// Operations of a loss for each element, exponential and logarithm as the polynomials they are.
fn forward_flops(kind: LossKind) -> usize {
    if kind == LossKind::Bce { 30 } else { 3 }
}

/// Of its gradient.
fn backward_flops(kind: LossKind) -> usize {
    if kind == LossKind::Bce { 15 } else { 4 }
}

fn loss_name(kind: LossKind) -> &'static str {
    match kind {
        LossKind::Mse => "mse",
        LossKind::Bce => "bce",
        LossKind::L1 => "l1",
    }
}

impl norm::Sink for Lowering<'_> {
    fn scratch(&mut self, name: &str, bytes: u64) -> Arg {
        let name = format!("{name} of {}", self.label);
        self.out.buffers.push(Buffer { name, space: Space::Arena, offset: 0, bytes });
        Arg::Buffer(BufferRef { buffer: (self.out.buffers.len() - 1) as u32, offset: 0, bytes })
    }

    fn counters(&mut self, count: usize) -> Result<Arg> {
        let counters = Lowering::scratch(self, "counters", count);
        self.over("adalin_elementary_zero_u32", count, vec![counters, int(count)], 0)?;
        Ok(counters)
    }

    fn put(
        &mut self,
        _what: &str,
        kernel: &str,
        geometry: norm::Geometry,
        args: Vec<Arg>,
        flops: usize,
    ) -> Result<()> {
        self.launch_as(kernel, geometry, args, flops)
    }
}
