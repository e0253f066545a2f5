//! The normalisation family, instance norm, AdaLIN and ILN: its variants (`kernels/adalin`) and the launches
//! each of them makes. Lowering and the benchmark go through the same functions.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Activation;
use super::lower::{block_sum_for_all, block_sum_for_one};
use crate::device::{Arg, MAX_COOPERATIVE_BLOCKS};
use crate::tensor::{DType, Shape};
use crate::{Error, Result};

/// What is added to a variance.
pub const EPS: f32 = 1e-5;

/// Threads a block of the passes.
const THREADS: usize = 256;
/// Threads a block of the small kernels between the passes of the vectorised variant.
const SMALL: usize = 1024;
/// Blocks of a reduction: four for each multiprocessor of a large GPU.
const REDUCTION_BLOCKS: usize = 528;
/// Blocks of a pass that only writes out.
const APPLY_BLOCKS: usize = 2048;

/// Threads a block of the resident variant, as its kernels have it.
const RESIDENT_THREADS: usize = 512;
/// Its groups of channels a block, at most: a cache line of 128 bytes.
const RESIDENT_WIDTH: usize = 8;
/// Channels whose partial sums one of its blocks joins, as its kernels have it.
const SLICE: usize = 8;
/// Bytes of its tiles: those of compute capability 8.6 and 8.9 with 99 KiB a block, or else, for large images,
/// those of 8.0 and 9.0 with 163 KiB; what the kernels have of their own is taken off.
const TILE_BYTES: [usize; 2] = [88 << 10, 152 << 10];

/// A variant of `kernels/adalin`. All compute the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NormVariant {
    /// `1_elementary.cu`: one kernel an operation, as an eager framework.
    Elementary,
    /// `2_composed.cu`: instance norm, layer norm, blend, scale and shift.
    Composed,
    /// `3_fused.cu`: fused, one element a memory access.
    Fused,
    /// `4_vectorised.cu`: fused, 16 bytes a memory access.
    Vectorised,
    /// `5_pad_fused.cu`: as vectorised, and the padding behind it in the same pass.
    #[default]
    Network,
    /// `6_cooperative.cu`: one cooperative launch that reads its input once. Images that no GPU's shared memory
    /// holds are left to the vectorised variant.
    Resident,
}

impl NormVariant {
    /// All of them, from the bottom of the ladder.
    pub const ALL: [Self; 6] =
        [Self::Elementary, Self::Composed, Self::Fused, Self::Vectorised, Self::Network, Self::Resident];

    /// Its name, as options take it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Elementary => "elementary",
            Self::Composed => "composed",
            Self::Fused => "fused",
            Self::Vectorised => "vectorised",
            Self::Network => "network",
            Self::Resident => "resident",
        }
    }
}

impl fmt::Display for NormVariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for NormVariant {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|r| r.name() == text).ok_or_else(|| {
            Error::new(format!("unknown norm '{text}'"))
                .hint("norms are elementary, composed, fused, vectorised, network, resident")
        })
    }
}

/// How all norms of a network are computed: fused, or as one of the two baselines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Norms {
    /// [`NormVariant::Network`]: a norm, its activation, residual and padding in one pass.
    #[default]
    Fused,
    /// [`NormVariant::Composed`].
    Composed,
    /// [`NormVariant::Elementary`].
    Elementary,
}

impl Norms {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Fused, Self::Composed, Self::Elementary];

    /// The variant of `kernels/adalin` it stands for.
    pub fn variant(self) -> NormVariant {
        match self {
            Self::Fused => NormVariant::Network,
            Self::Composed => NormVariant::Composed,
            Self::Elementary => NormVariant::Elementary,
        }
    }
}

impl fmt::Display for Norms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fused => "fused",
            Self::Composed => "composed",
            Self::Elementary => "elementary",
        })
    }
}

impl FromStr for Norms {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|n| n.to_string() == text).ok_or_else(|| {
            Error::new(format!("unknown norm '{text}'")).hint("norms are fused, composed, elementary")
        })
    }
}

/// Where launches go, and where their scratch memory comes from.
pub trait Sink {
    /// Memory for results between launches; undefined until the first launch that names it.
    fn scratch(&mut self, name: &str, bytes: u64) -> Arg;

    /// So many zeroed 32-bit counters. Whoever uses them leaves them zeroed.
    ///
    /// # Errors
    /// When the sink cannot zero them.
    fn counters(&mut self, count: usize) -> Result<Arg>;

    /// Appends a launch; `what` says what it does, such as `mean`.
    ///
    /// # Errors
    /// When there is no such kernel.
    fn put(
        &mut self,
        what: &str,
        kernel: &str,
        geometry: Geometry,
        args: Vec<Arg>,
        flops: usize,
    ) -> Result<()>;

    /// As [`Self::put`], without dynamic shared memory, of blocks that do not wait for each other.
    ///
    /// # Errors
    /// As [`Self::put`].
    fn launch(
        &mut self,
        what: &str,
        kernel: &str,
        grid: [u32; 3],
        block: [u32; 3],
        args: Vec<Arg>,
        flops: usize,
    ) -> Result<()> {
        self.put(what, kernel, Geometry { grid, block, shared_bytes: 0, cooperative: false }, args, flops)
    }
}

/// How a launch lies on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads a block in x, y, z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared_bytes: u32,
    /// Whether its blocks wait for each other.
    pub cooperative: bool,
}

/// One layer's shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Of input and output.
    pub shape: Shape,
    /// Of input, output and residual; statistics and parameters are always `f32`.
    pub dtype: DType,
    /// Images for each row of gamma and beta: 1 in AdaLIN, the batch in ILN.
    pub images_per_affine: usize,
    /// Behind the norm: none, ReLU or leaky ReLU.
    pub act: Activation,
}

/// rho, gamma and beta, or their gradients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Params {
    /// `[D, C]`.
    pub rho: Arg,
    /// `[D * N / images_per_affine, C]`.
    pub gamma: Arg,
    /// As gamma.
    pub beta: Arg,
}

/// A padded copy of the output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Padded {
    /// `[D, N, H * up + 2 pad, W * up + 2 pad, C]`.
    pub to: Arg,
    /// Reflected pixels on each side.
    pub pad: usize,
    /// Nearest-neighbour up-sampling before it.
    pub up: usize,
}

/// Buffers of a forward pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forward {
    /// `[D, N, H, W, C]`; null where only the padded copy is wanted.
    pub out: Arg,
    /// The input.
    pub inp: Arg,
    /// None: instance norm, with the population variance.
    pub params: Option<Params>,
    /// Added to the activated result, or null.
    pub residual: Arg,
    /// Mean and rstd `[D, N, C, 2]`, written by the fused variants.
    pub stats: Arg,
    /// The layer's, `[D, N, 2]`; null for an instance norm.
    pub layer_stats: Arg,
    /// For [`NormVariant::Network`] only.
    pub padded: Option<Padded>,
}

/// Buffers of a backward pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backward {
    /// Gradient of the output.
    pub dout: Arg,
    /// The input.
    pub inp: Arg,
    /// Gradient of the input.
    pub dinp: Arg,
    /// As in the forward pass, with the gradients.
    pub params: Option<(Params, Params)>,
    /// As the forward pass left it.
    pub stats: Arg,
    /// As the forward pass left it.
    pub layer_stats: Arg,
    /// Whether `dinp` is added to.
    pub accumulate: bool,
    /// Whether the gradients of gamma and beta are added to.
    pub accumulate_affine: bool,
    /// Whether rho's is.
    pub accumulate_rho: bool,
}

/// What a forward pass keeps for its backward pass.
#[derive(Clone, Debug, PartialEq)]
pub enum Saved {
    /// Of the fused variants but the first: mean, scale and shift `[D, N, 3, C]`.
    Lines(Arg),
    /// Of the first fused variant: nothing beyond the statistics.
    Nothing,
    /// Of the unfused variants.
    Unfused(Box<Unfused>),
}

/// Intermediate tensors of the unfused variants.
#[derive(Clone, Debug, PartialEq)]
pub struct Unfused {
    instance: Standardised,
    layer: Option<Standardised>,
    mix: Arg,
    one_less_rho: Arg,
    /// Behind the activation, where there is one.
    activated: Option<Arg>,
    counters: Arg,
}

/// `a = (x - mean) / sqrt(variance + eps)` and what it came from.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Standardised {
    /// x - mean (elementary).
    centred: Arg,
    /// sqrt(variance + eps) (elementary), or mean and rstd (composed).
    spread: Arg,
    a: Arg,
}

/// Makes the launches of a forward pass.
///
/// # Errors
/// When the variant cannot do what is asked for: padding elsewhere than in [`NormVariant::Network`], an
/// activation in 16 bits in an unfused variant.
pub fn forward<S: Sink>(sink: &mut S, layer: &Layer, variant: NormVariant, io: &Forward) -> Result<Saved> {
    let m = Maker::new(sink, layer, variant, io.params.is_some())?;
    if io.padded.is_some() && variant != NormVariant::Network {
        return Err(Error::new(format!("the {variant} norm has no padding of its own")));
    }
    match variant {
        NormVariant::Elementary | NormVariant::Composed => m.unfused_forward(io),
        NormVariant::Fused => m.fused_forward(io),
        NormVariant::Vectorised | NormVariant::Network => m.vectorised_forward(io),
        NormVariant::Resident => m.resident_forward(io),
    }
}

/// Makes the launches of a backward pass.
///
/// # Errors
/// As [`forward`].
pub fn backward<S: Sink>(
    sink: &mut S,
    layer: &Layer,
    variant: NormVariant,
    io: &Backward,
    saved: &Saved,
) -> Result<()> {
    let m = Maker::new(sink, layer, variant, io.params.is_some())?;
    match saved {
        Saved::Unfused(saved) => m.unfused_backward(io, saved),
        Saved::Nothing => m.fused_backward(io),
        Saved::Lines(lines) if variant == NormVariant::Resident => m.resident_backward(io, *lines),
        Saved::Lines(lines) => m.vectorised_backward(io, *lines),
    }
}

/// The operations of `1_elementary.cu`, as it numbers them.
#[derive(Clone, Copy)]
enum Elementary {
    Add = 0,
    Sub = 1,
    Mul = 2,
    Div = 3,
    Neg = 4,
    Sqrt = 5,
    Rsub = 6,
    Expand = 7,
    MulRsub = 8,
}
use Elementary as E;

impl Elementary {
    fn name(self) -> &'static str {
        match self {
            E::Add => "add",
            E::Sub => "sub",
            E::Mul => "mul",
            E::Div => "div",
            E::Neg => "neg",
            E::Sqrt => "sqrt",
            E::Rsub => "rsub",
            E::Expand => "expand",
            E::MulRsub => "mul by one less",
        }
    }
}

/// Over which values a reduction goes.
#[derive(Clone, Copy, PartialEq)]
enum Over {
    /// The pixels of a channel of an image: `[D, N, C]` results.
    Channel,
    /// All of an image: `[D, N]`.
    Image,
    /// The pixels of a channel, of the images that share a row of gamma: `[rows, C]`.
    Affine,
    /// The pixels of a channel of a direction: `[D, C]`.
    Direction,
}

/// How the resident variant splits its images.
struct Split {
    /// Pixels a block.
    rows: usize,
    geometry: Geometry,
}

struct Maker<'s, S: Sink> {
    sink: &'s mut S,
    s: Shape,
    dtype: DType,
    per_affine: usize,
    act: Activation,
    variant: NormVariant,
    unbiased: usize,
    /// Channels a thread.
    v: usize,
    /// `x4_f32` and the like.
    suffix: String,
    /// Block shape of the passes: groups of channels, pixels.
    block: (usize, usize),
}

fn int(v: usize) -> Arg {
    Arg::I32(i32::try_from(v).expect("extent fits 31 bits"))
}

fn flag(v: bool) -> Arg {
    Arg::I32(i32::from(v))
}

fn up(a: usize, b: usize) -> u32 {
    u32::try_from(a.div_ceil(b)).expect("grid fits 32 bits")
}

impl<'s, S: Sink> Maker<'s, S> {
    fn new(sink: &'s mut S, layer: &Layer, variant: NormVariant, affine: bool) -> Result<Self> {
        if layer.act == Activation::Tanh {
            return Err(Error::new("a norm is followed by no tanh: its slope does not follow from the sign"));
        }
        let unfused = matches!(variant, NormVariant::Elementary | NormVariant::Composed);
        if unfused && layer.act != Activation::None && layer.dtype != DType::F32 {
            return Err(Error::new(format!("the {variant} norm has an activation in f32 only")));
        }
        let (name, wide) = match layer.dtype {
            DType::F32 => ("f32", 4),
            DType::F16 => ("f16", 8),
            DType::Bf16 => ("bf16", 8),
            DType::I32 => return Err(Error::new("a norm of integers")),
        };
        let v = if variant != NormVariant::Fused && layer.shape.c.is_multiple_of(wide) { wide } else { 1 };
        let suffix = if variant == NormVariant::Fused { name.to_owned() } else { format!("x{v}_{name}") };
        let groups = (layer.shape.c / v).next_power_of_two().min(32);
        Ok(Self {
            sink,
            s: layer.shape,
            dtype: layer.dtype,
            per_affine: layer.images_per_affine,
            act: layer.act,
            variant,
            unbiased: usize::from(affine),
            v,
            suffix,
            block: (groups, THREADS / groups),
        })
    }

    // ------------------------------------------------------------ grids

    /// Blocks over the channels.
    fn columns(&self) -> usize {
        (self.s.c / self.v).div_ceil(self.block.0)
    }

    /// Pixels a chunk, so that about `blocks` blocks have `least` to `most` pixels a thread.
    fn rows(&self, pixels: usize, groups: usize, blocks: usize, least: usize, most: usize) -> usize {
        let height = self.block.1;
        let rows = (pixels * groups * self.columns()).div_ceil(blocks);
        rows.clamp(height * least, height * most).next_multiple_of(height)
    }

    fn reduction_rows(&self) -> usize {
        match self.variant {
            NormVariant::Fused => self.block.1 * 16,
            _ => self.rows(self.s.pixels(), self.s.images(), REDUCTION_BLOCKS, 8, 64),
        }
    }

    fn apply_rows(&self) -> usize {
        match self.variant {
            NormVariant::Fused => self.block.1 * 16,
            _ => self.rows(self.s.pixels(), self.s.images(), APPLY_BLOCKS, 4, 32),
        }
    }

    /// A launch over channels, chunks of pixels, groups.
    fn pass(
        &mut self,
        what: &str,
        kernel: &str,
        (pixels, rows, groups): (usize, usize, usize),
        args: Vec<Arg>,
        flops: usize,
    ) -> Result<()> {
        let grid = [up(self.columns(), 1), up(pixels, rows), up(groups, 1)];
        let block = [self.block.0 as u32, self.block.1 as u32, 1];
        let kernel = format!("{kernel}_{}", self.suffix);
        self.sink.launch(what, &kernel, grid, block, args, flops)
    }

    /// A launch of a thread for each V elements of an image.
    fn each(&mut self, what: &str, kernel: &str, args: Vec<Arg>, flops: usize) -> Result<()> {
        let grid = [up(self.s.image_len() / self.v, THREADS), up(self.s.images(), 1), 1];
        let kernel = format!("{kernel}_{}", self.suffix);
        self.sink.launch(what, &kernel, grid, [THREADS as u32, 1, 1], args, flops)
    }

    /// Block (channels, parts) of the small kernels of the vectorised variant.
    fn small_block(&self) -> [u32; 3] {
        let channels = self.s.c.next_power_of_two().min(256);
        [channels as u32, (SMALL / channels) as u32, 1]
    }

    /// Pairs of threads of that block that join what they have, for all channels of an image.
    fn small_joins(&self) -> usize {
        let [channels, _, _] = self.small_block();
        self.s.c.div_ceil(channels as usize) * (SMALL - channels as usize)
    }

    // ------------------------------------------------------------ memory

    fn tensor(&mut self, name: &str) -> Arg {
        let bytes = self.s.len() as u64 * self.dtype.bytes();
        self.sink.scratch(name, bytes)
    }

    fn floats(&mut self, name: &str, count: usize) -> Arg {
        self.sink.scratch(name, count as u64 * 4)
    }

    // ------------------------------------------------------------ variant 3

    /// Height, width and channels, as most kernels take them.
    fn extents(&self) -> [Arg; 2] {
        [int(self.s.pixels()), int(self.s.c)]
    }

    fn affine_args(stats: Arg, layer_stats: Arg, params: Option<Params>) -> [Arg; 5] {
        let p = params.unwrap_or(Params { rho: Arg::Null, gamma: Arg::Null, beta: Arg::Null });
        [stats, layer_stats, p.rho, p.gamma, p.beta]
    }

    fn fused_forward(mut self, io: &Forward) -> Result<Saved> {
        let (s, rows) = (self.s, self.reduction_rows());
        let chunks = s.pixels().div_ceil(rows);
        let over = (s.pixels(), rows, s.images());
        let [hw, c] = self.extents();
        let partial = self.floats("statistics", s.images() * chunks * s.c * 2);
        let args = vec![partial, io.inp, hw, c, int(rows)];
        self.pass("statistics", "adalin_statistics", over, args, 3 * s.len())?;
        let args =
            vec![io.stats, io.layer_stats, partial, hw, c, int(rows), int(self.unbiased), Arg::F32(EPS)];
        let layer =
            if io.params.is_some() { block_sum_for_all(THREADS) + block_sum_for_one(THREADS) } else { 0 };
        let flops = s.images() * (s.c * (10 * chunks + 12) + layer);
        let grid = [s.images() as u32, 1, 1];
        self.sink.launch("finish", "adalin_finish_f32", grid, [THREADS as u32, 1, 1], args, flops)?;
        let mut args = vec![io.out, io.inp];
        args.extend(Self::affine_args(io.stats, io.layer_stats, io.params));
        args.extend([
            io.residual,
            hw,
            c,
            int(s.n),
            int(self.per_affine),
            Arg::I32(self.act as i32),
            int(rows),
        ]);
        self.pass("apply", "adalin_forward", over, args, 6 * s.len())?;
        Ok(Saved::Nothing)
    }

    fn fused_backward(mut self, io: &Backward) -> Result<()> {
        let (s, rows) = (self.s, self.reduction_rows());
        let chunks = s.pixels().div_ceil(rows);
        let over = (s.pixels(), rows, s.images());
        let [hw, c] = self.extents();
        let (n, per, act) = (int(s.n), int(self.per_affine), Arg::I32(self.act as i32));
        let partial = self.floats("sums", s.images() * chunks * s.c * 2);
        let coefficients = self.floats("coefficients", s.images() * s.c * 3);
        let affine = Self::affine_args(io.stats, io.layer_stats, io.params.map(|p| p.0));
        let mut args = vec![partial, io.dout, io.inp];
        args.extend(affine);
        args.extend([hw, c, n, per, act, int(rows)]);
        self.pass("sums", "adalin_backward_reduce", over, args, 4 * s.len())?;

        let [dgamma, dbeta, drho] = io.params.map_or([Arg::Null; 3], |(_, d)| [d.gamma, d.beta, d.rho]);
        let mut args = vec![coefficients, dgamma, dbeta, drho, partial];
        args.extend(&affine[..4]);
        args.extend([hw, c, n, per, int(self.unbiased), int(rows)]);
        args.extend([flag(io.accumulate_affine), flag(io.accumulate_rho)]);
        let (grid, block) = ([s.d as u32, 1, 1], [THREADS as u32, 1, 1]);
        let sums = if io.params.is_some() { 2 * block_sum_for_all(THREADS) } else { 0 };
        let flops = s.images() * (s.c * (2 * chunks + 20) + sums);
        self.sink.launch("coefficients", "adalin_backward_coefficients_f32", grid, block, args, flops)?;

        let mut args = vec![io.dinp, io.dout, io.inp, coefficients];
        args.extend(affine);
        args.extend([hw, c, n, per, act, int(rows), flag(io.accumulate)]);
        self.pass("apply", "adalin_backward", over, args, 5 * s.len())
    }

    // ------------------------------------------------------------ variants 4 and 5

    fn vectorised_statistics(&mut self, inp: Arg) -> Result<(Arg, usize)> {
        let (s, rows) = (self.s, self.reduction_rows());
        let [hw, c] = self.extents();
        let partial = self.floats("statistics", s.images() * s.pixels().div_ceil(rows) * s.c * 2);
        let args = vec![partial, inp, hw, c, int(rows)];
        self.pass("statistics", "adalin_statistics", (s.pixels(), rows, s.images()), args, 3 * s.len())?;
        Ok((partial, rows))
    }

    fn vectorised_finish(
        &mut self,
        (partial, rows): (Arg, usize),
        stats: Arg,
        layer_stats: Arg,
        params: Option<Params>,
    ) -> Result<Arg> {
        let s = self.s;
        let [hw, c] = self.extents();
        let lines = self.floats("lines", s.images() * s.c * 3);
        let [_, _, rho, gamma, beta] = Self::affine_args(stats, layer_stats, params);
        let args = vec![
            stats,
            layer_stats,
            lines,
            partial,
            rho,
            gamma,
            beta,
            hw,
            c,
            int(s.n),
            int(self.per_affine),
            int(rows),
            int(self.unbiased),
            Arg::F32(EPS),
        ];
        let (grid, block) = ([s.images() as u32, 1, 1], self.small_block());
        // Ten for each chunk of a channel; the rows of the block join theirs, ten a pair; then the layer's
        // mean and spread, which all threads want.
        let joins = 10 * self.small_joins() + if params.is_some() { 2 * block_sum_for_all(SMALL) } else { 0 };
        let flops = s.images() * (s.c * (10 * s.pixels().div_ceil(rows) + 12) + joins);
        self.sink.launch("finish", "adalin_finish_rows_f32", grid, block, args, flops)?;
        Ok(lines)
    }

    fn vectorised_forward(mut self, io: &Forward) -> Result<Saved> {
        let s = self.s;
        let partial = self.vectorised_statistics(io.inp)?;
        let lines = self.vectorised_finish(partial, io.stats, io.layer_stats, io.params)?;
        let rows = self.apply_rows();
        let over = (s.pixels(), rows, s.images());
        let act = Arg::I32(self.act as i32);
        if let Some(p) = io.padded {
            let mut args = vec![p.to, io.out, io.inp, lines, io.residual, int(s.h), int(s.w), int(s.c)];
            args.extend([act, int(p.pad), int(p.up), int(rows)]);
            self.pass("apply and pad", "adalin_network", over, args, 4 * s.len())?;
        } else {
            let [hw, c] = self.extents();
            let args = vec![io.out, io.inp, lines, io.residual, hw, c, act, int(rows)];
            self.pass("apply", "adalin_forward", over, args, 4 * s.len())?;
        }
        Ok(Saved::Lines(lines))
    }

    fn vectorised_backward(mut self, io: &Backward, lines: Arg) -> Result<()> {
        let (s, rows) = (self.s, self.reduction_rows());
        let chunks = s.pixels().div_ceil(rows);
        let [hw, c] = self.extents();
        let act = Arg::I32(self.act as i32);
        let partial = self.floats("sums", s.images() * chunks * s.c * 2);
        let args = vec![partial, io.dout, io.inp, lines, hw, c, act, int(rows)];
        self.pass("sums", "adalin_backward_reduce", (s.pixels(), rows, s.images()), args, 4 * s.len())?;

        let coefficients = self.floats("coefficients", s.images() * s.c * 3);
        let [dgamma, dbeta, drho] = io.params.map_or([Arg::Null; 3], |(_, d)| [d.gamma, d.beta, d.rho]);
        let [stats, layer_stats, rho, gamma, _] =
            Self::affine_args(io.stats, io.layer_stats, io.params.map(|p| p.0));
        let mut args = vec![coefficients, dgamma, dbeta, drho, partial, stats, layer_stats, rho, gamma];
        args.extend([int(s.images()), hw, c, int(s.n), int(self.per_affine), int(self.unbiased), int(rows)]);
        args.extend([flag(io.accumulate_affine), flag(io.accumulate_rho)]);
        let block = self.small_block();
        let more = if io.params.is_some() { s.d * s.c.div_ceil(block[0] as usize) } else { 0 };
        let grid = [up(s.images() + more, 1), 1, 1];
        // The sums of an image are joined for its coefficients, and with parameters once more for their gradients.
        let (times, sums) = if io.params.is_some() { (2, 2 * block_sum_for_all(SMALL)) } else { (1, 0) };
        let joins = 2 * times * (s.c * chunks + self.small_joins());
        let flops = s.images() * (20 * s.c + joins + sums);
        self.sink.launch(
            "coefficients",
            "adalin_backward_coefficients_rows_f32",
            grid,
            block,
            args,
            flops,
        )?;

        let rows = self.apply_rows();
        let args =
            vec![io.dinp, io.dout, io.inp, coefficients, lines, hw, c, act, int(rows), flag(io.accumulate)];
        self.pass("apply", "adalin_backward", (s.pixels(), rows, s.images()), args, 5 * s.len())
    }

    // ------------------------------------------------------------ variant 6

    /// How the images are spread over resident blocks whose shared memory holds `tiles` tensors; None where it
    /// holds no whole image.
    fn resident_split(&self, tiles: usize) -> Option<Split> {
        let (images, pixels) = (self.s.images(), self.s.pixels());
        let width = self.block.0.min(if self.v == 1 { 32 } else { RESIDENT_WIDTH });
        let columns = (self.s.c / self.v).div_ceil(width);
        let height = RESIDENT_THREADS / width;
        let row_bytes = width * self.v * self.dtype.bytes() as usize * tiles;
        let most_chunks = MAX_COOPERATIVE_BLOCKS as usize / columns;
        let fits = |tile_bytes: usize| {
            let chunks = pixels.div_ceil((tile_bytes / row_bytes).max(1));
            (tile_bytes >= row_bytes && chunks <= most_chunks).then_some(chunks)
        };
        let least = TILE_BYTES.into_iter().find_map(fits)?;
        let groups = images.min(most_chunks / least);
        // Where all images are at work at once, they take all blocks. Where they come in turns, fewer and larger
        // chunks leave fewer partial sums.
        let spread = (most_chunks / groups).min(pixels.div_ceil(height * 4)).max(least);
        let rows = pixels.div_ceil(if groups == images { spread } else { least });
        let grid = [up(columns, 1), up(pixels, rows), up(groups, 1)];
        let block = [width as u32, height as u32, 1];
        let shared_bytes = (rows * row_bytes) as u32;
        Some(Split { rows, geometry: Geometry { grid, block, shared_bytes, cooperative: true } })
    }

    /// Partial sums, planes of C floats an image, sums of slices, counters of the barriers.
    fn resident_scratch(&mut self, split: &Split, planes: usize, of_slice: usize) -> Result<[Arg; 4]> {
        let s = self.s;
        let partial = self.floats("partial sums", s.images() * split.geometry.grid[1] as usize * 2 * s.c);
        let planes = self.floats("planes", s.images() * planes * s.c);
        let slices = self.floats("slices", s.images() * s.c.div_ceil(SLICE) * of_slice);
        Ok([partial, planes, slices, self.sink.counters(3 * s.images())?])
    }

    fn resident_forward(mut self, io: &Forward) -> Result<Saved> {
        let Some(split) = self.resident_split(1) else { return self.vectorised_forward(io) };
        let s = self.s;
        let lines = self.floats("lines", s.images() * s.c * 3);
        let [partial, planes, slices, counters] = self.resident_scratch(&split, 4, 3)?;
        let [stats, layer_stats, rho, gamma, beta] = Self::affine_args(io.stats, io.layer_stats, io.params);
        let [hw, c] = self.extents();
        let mut args = vec![io.out, io.inp, io.residual, stats, layer_stats, lines, partial, planes, slices];
        args.extend([counters, rho, gamma, beta, int(s.images()), hw, c, int(s.n), int(self.per_affine)]);
        args.extend([int(split.rows), int(self.unbiased), Arg::I32(self.act as i32), Arg::F32(EPS)]);
        let kernel = format!("adalin_resident_forward_{}", self.suffix);
        self.sink.put("norm", &kernel, split.geometry, args, 7 * s.len())?;
        Ok(Saved::Lines(lines))
    }

    fn resident_backward(mut self, io: &Backward, lines: Arg) -> Result<()> {
        let Some(split) = self.resident_split(2) else { return self.vectorised_backward(io, lines) };
        let s = self.s;
        let totals = self.floats("totals", s.images() * 2 * s.c);
        let [partial, planes, slices, counters] = self.resident_scratch(&split, 3, 2)?;
        let [stats, layer_stats, rho, gamma, _] =
            Self::affine_args(io.stats, io.layer_stats, io.params.map(|p| p.0));
        let [hw, c] = self.extents();
        let mut args = vec![io.dinp, totals, io.dout, io.inp, stats, layer_stats, lines, partial, planes];
        args.extend([slices, counters, rho, gamma, int(s.images()), hw, c, int(s.n), int(self.per_affine)]);
        args.extend([int(split.rows), int(self.unbiased), Arg::I32(self.act as i32), flag(io.accumulate)]);
        let kernel = format!("adalin_resident_backward_{}", self.suffix);
        self.sink.put("norm", &kernel, split.geometry, args, 9 * s.len())?;

        // The parameters' gradients, over all images: one chunk an image, and no coefficients.
        let Some((_, d)) = io.params else { return Ok(()) };
        let mut args = vec![Arg::Null, d.gamma, d.beta, d.rho, totals, stats, layer_stats, rho, gamma];
        args.extend([int(0), hw, c, int(s.n), int(self.per_affine), int(self.unbiased), hw]);
        args.extend([flag(io.accumulate_affine), flag(io.accumulate_rho)]);
        let block = self.small_block();
        let grid = [up(s.d * s.c.div_ceil(block[0] as usize), 1), 1, 1];
        let kernel = "adalin_backward_coefficients_rows_f32";
        self.sink.launch("gradients of the parameters", kernel, grid, block, args, 10 * s.images() * s.c)
    }

    // ------------------------------------------------------------ variants 1 and 2: their parts

    /// out = a op b, element by element.
    fn binary(&mut self, op: Elementary, out: Arg, a: Arg, b: Option<Arg>, accumulate: bool) -> Result<()> {
        let n = self.s.len();
        let args = vec![out, a, b.unwrap_or(Arg::Null), int(n), Arg::I32(op as i32), flag(accumulate)];
        let kernel = format!("adalin_elementary_binary_{}", self.suffix);
        let grid = [up(n / self.v, THREADS), 1, 1];
        self.sink.launch(op.name(), &kernel, grid, [THREADS as u32, 1, 1], args, n)
    }

    /// The same into a new tensor.
    fn binary_new(&mut self, op: Elementary, a: Arg, b: Option<Arg>) -> Result<Arg> {
        let out = self.tensor(op.name());
        self.binary(op, out, a, b, false)?;
        Ok(out)
    }

    /// out = a op b, b a value for each channel or image.
    fn broadcast(&mut self, op: Elementary, out: Arg, a: Option<Arg>, b: Arg, over: Over) -> Result<()> {
        let [hw, c] = self.extents();
        let per = match over {
            Over::Channel | Over::Image => 1,
            Over::Affine => self.per_affine,
            Over::Direction => self.s.n,
        };
        let a = a.unwrap_or(Arg::Null);
        let args = vec![out, a, b, hw, c, int(per), flag(over == Over::Image), Arg::I32(op as i32)];
        self.each(op.name(), "adalin_elementary_broadcast", args, self.s.len())
    }

    fn broadcast_new(&mut self, op: Elementary, a: Option<Arg>, b: Arg, over: Over) -> Result<Arg> {
        let out = self.tensor(op.name());
        self.broadcast(op, out, a, b, over)?;
        Ok(out)
    }

    /// out = a op b over small tensors, b one of them or a number.
    fn small(
        &mut self,
        op: Elementary,
        out: Arg,
        a: Arg,
        b: Option<Arg>,
        scalar: f64,
        n: usize,
        accumulate: bool,
    ) -> Result<()> {
        let b = b.unwrap_or(Arg::Null);
        let args = vec![out, a, b, Arg::F32(scalar as f32), int(n), Arg::I32(op as i32), flag(accumulate)];
        let grid = [up(n, THREADS), 1, 1];
        self.sink.launch(op.name(), "adalin_elementary_small_f32", grid, [THREADS as u32, 1, 1], args, n)
    }

    fn small_new(&mut self, op: Elementary, a: Arg, b: Option<Arg>, scalar: f64, n: usize) -> Result<Arg> {
        let out = self.floats(op.name(), n);
        self.small(op, out, a, b, scalar, n, false)?;
        Ok(out)
    }

    /// Groups, pixels a group, values a result, results.
    fn grouping(&self, over: Over) -> (usize, usize, usize, usize) {
        let (s, hw) = (self.s, self.s.pixels());
        match over {
            Over::Channel => (s.images(), hw, hw, s.images() * s.c),
            Over::Image => (s.images(), hw, s.image_len(), s.images()),
            Over::Affine => {
                let groups = s.images() / self.per_affine;
                (groups, hw * self.per_affine, hw * self.per_affine, groups * s.c)
            }
            Over::Direction => (s.d, hw * s.n, hw * s.n, s.d * s.c),
        }
    }

    /// out = sum of x times a factor.
    fn sum(
        &mut self,
        what: &str,
        out: Arg,
        x: Arg,
        over: Over,
        scale: f64,
        accumulate: bool,
        counters: Arg,
    ) -> Result<()> {
        let (groups, pixels, ..) = self.grouping(over);
        let rows = self.rows(pixels, groups, REDUCTION_BLOCKS, 8, 512);
        let partial = self.floats("partial sums", groups * pixels.div_ceil(rows) * self.s.c);
        let mut args = vec![out, partial, counters, x, int(pixels), int(self.s.c), int(rows)];
        args.extend([flag(over == Over::Image), Arg::F32(scale as f32), flag(accumulate)]);
        self.pass(what, "adalin_elementary_sum", (pixels, rows, groups), args, self.s.len())
    }

    fn sum_new(&mut self, what: &str, x: Arg, over: Over, scale: f64, counters: Arg) -> Result<Arg> {
        let out = self.floats(what, self.grouping(over).3);
        self.sum(what, out, x, over, scale, false, counters)?;
        Ok(out)
    }

    fn mean(&mut self, x: Arg, over: Over, counters: Arg) -> Result<Arg> {
        let count = self.grouping(over).2;
        self.sum_new("mean", x, over, 1.0 / count as f64, counters)
    }

    /// `a = (x - mean(x)) / sqrt(var(x) + eps)`: six launches.
    fn elementary_standardise(
        &mut self,
        x: Arg,
        a: Option<Arg>,
        over: Over,
        counters: Arg,
    ) -> Result<Standardised> {
        let (groups, pixels, _, results) = self.grouping(over);
        let mean = self.mean(x, over, counters)?;
        let rows = self.rows(pixels, groups, REDUCTION_BLOCKS, 8, 512);
        let partial = self.floats("partial moments", groups * pixels.div_ceil(rows) * 2 * self.s.c);
        let variance = self.floats("var", results);
        let args = vec![
            variance,
            partial,
            counters,
            x,
            int(pixels),
            int(self.s.c),
            int(rows),
            flag(over == Over::Image),
            int(self.unbiased),
        ];
        self.pass("var", "adalin_elementary_variance", (pixels, rows, groups), args, 3 * self.s.len())?;
        let centred = self.broadcast_new(E::Sub, Some(x), mean, over)?;
        let raised = self.small_new(E::Add, variance, None, f64::from(EPS), results)?;
        let spread = self.small_new(E::Sqrt, raised, None, 0.0, results)?;
        let a = a.unwrap_or_else(|| self.tensor("standardised"));
        self.broadcast(E::Div, a, Some(centred), spread, over)?;
        Ok(Standardised { centred, spread, a })
    }

    /// Instance norm (two launches) or layer norm (three) by the library's kind of kernel.
    fn composed_standardise(
        &mut self,
        x: Arg,
        a: Option<Arg>,
        over: Over,
        counters: Arg,
    ) -> Result<Standardised> {
        let s = self.s;
        let [hw, c] = self.extents();
        let spread;
        if over == Over::Channel {
            spread = self.floats("instance statistics", s.images() * s.c * 2);
            let rows = self.reduction_rows();
            let partial = self.floats("partial moments", s.images() * s.pixels().div_ceil(rows) * 2 * s.c);
            let args =
                vec![spread, partial, counters, x, hw, c, int(rows), int(self.unbiased), Arg::F32(EPS)];
            let over = (s.pixels(), rows, s.images());
            self.pass("instance statistics", "adalin_composed_instance_statistics", over, args, 3 * s.len())?;
        } else {
            spread = self.floats("layer statistics", s.images() * 2);
            let (partial, rows) = self.vectorised_statistics(x)?;
            let args = vec![spread, partial, hw, c, int(rows), int(self.unbiased), Arg::F32(EPS)];
            let (grid, block) = ([s.images() as u32, 1, 1], [THREADS as u32, 1, 1]);
            let flops = 8 * s.images() * s.c * s.pixels().div_ceil(rows);
            self.sink.launch(
                "layer statistics",
                "adalin_composed_layer_statistics_f32",
                grid,
                block,
                args,
                flops,
            )?;
        }
        let a = a.unwrap_or_else(|| self.tensor("standardised"));
        let args = vec![a, x, spread, hw, c, flag(over == Over::Image)];
        self.each("standardise", "adalin_composed_standardise", args, 2 * s.len())?;
        Ok(Standardised { centred: x, spread, a })
    }

    // ------------------------------------------------------------ variants 1 and 2

    fn standardise(&mut self, x: Arg, a: Option<Arg>, over: Over, counters: Arg) -> Result<Standardised> {
        match self.variant {
            NormVariant::Composed => self.composed_standardise(x, a, over, counters),
            _ => self.elementary_standardise(x, a, over, counters),
        }
    }

    fn unfused_forward(mut self, io: &Forward) -> Result<Saved> {
        let (s, composed) = (self.s, self.variant == NormVariant::Composed);
        let counters = self.sink.counters(s.images())?;
        let rectified = self.act != Activation::None;
        let added = io.residual != Arg::Null;
        let normed = if rectified || added { self.tensor("normed") } else { io.out };

        let mut one_less_rho = Arg::Null;
        let (instance, layer, mix) = if let Some(p) = io.params {
            let instance = self.standardise(io.inp, None, Over::Channel, counters)?;
            let layer = self.standardise(io.inp, None, Over::Image, counters)?;
            let mix = if composed {
                let mix = self.tensor("blend");
                let [hw, c] = self.extents();
                let args = vec![mix, instance.a, layer.a, p.rho, hw, c, int(s.n)];
                self.each("blend", "adalin_composed_blend", args, 4 * s.len())?;
                let args = vec![normed, mix, p.gamma, p.beta, hw, c, int(self.per_affine)];
                self.each("scale and shift", "adalin_composed_scale_shift", args, 2 * s.len())?;
                mix
            } else {
                let first = self.broadcast_new(E::Mul, Some(instance.a), p.rho, Over::Direction)?;
                one_less_rho = self.small_new(E::Rsub, p.rho, None, 1.0, s.d * s.c)?;
                let second = self.broadcast_new(E::Mul, Some(layer.a), one_less_rho, Over::Direction)?;
                let mix = self.binary_new(E::Add, first, Some(second))?;
                let scaled = self.broadcast_new(E::Mul, Some(mix), p.gamma, Over::Affine)?;
                self.broadcast(E::Add, normed, Some(scaled), p.beta, Over::Affine)?;
                mix
            };
            (instance, Some(layer), mix)
        } else {
            let instance = self.standardise(io.inp, Some(normed), Over::Channel, counters)?;
            (instance, None, normed)
        };

        let mut last = normed;
        let mut activated = None;
        if rectified {
            last = if added { self.tensor("activated") } else { io.out };
            activated = Some(last);
            let args = vec![last, normed, int(s.len()), Arg::I32(self.act as i32)];
            let (grid, block) = ([up(s.len(), THREADS), 1, 1], [THREADS as u32, 1, 1]);
            self.sink.launch("activation", "activation_forward_f32", grid, block, args, s.len())?;
        }
        if added {
            self.binary(E::Add, io.out, last, Some(io.residual), false)?;
        }
        let saved = Unfused { instance, layer, mix, one_less_rho, activated, counters };
        Ok(Saved::Unfused(Box::new(saved)))
    }

    fn unfused_backward(mut self, io: &Backward, saved: &Unfused) -> Result<()> {
        let s = self.s;
        let counters = saved.counters;
        let mut dout = io.dout;
        if let Some(activated) = saved.activated {
            dout = self.tensor("before the activation");
            let args = vec![dout, io.dout, activated, int(s.len()), Arg::I32(self.act as i32)];
            let (grid, block) = ([up(s.len(), THREADS), 1, 1], [THREADS as u32, 1, 1]);
            self.sink.launch("activation", "activation_backward_f32", grid, block, args, s.len())?;
        }
        let composed = self.variant == NormVariant::Composed;
        let (Some((p, d)), Some(layer)) = (io.params, &saved.layer) else {
            if composed {
                let target = (io.dinp, io.accumulate);
                return self.composed_input_grad(target, dout, &saved.instance, Over::Channel, counters);
            }
            let parts =
                self.elementary_input_grads(io.inp, dout, &saved.instance, Over::Channel, counters)?;
            return self.add_up(&parts, io.dinp, io.accumulate);
        };

        // scale and shift
        let affine = io.accumulate_affine;
        self.sum("sum (dbeta)", d.beta, dout, Over::Affine, 1.0, affine, counters)?;
        let product = self.binary_new(E::Mul, dout, Some(saved.mix))?;
        self.sum("sum (dgamma)", d.gamma, product, Over::Affine, 1.0, affine, counters)?;
        let dmix = self.broadcast_new(E::Mul, Some(dout), p.gamma, Over::Affine)?;

        if composed {
            let di = self.broadcast_new(E::Mul, Some(dmix), p.rho, Over::Direction)?;
            let dl = self.broadcast_new(E::MulRsub, Some(dmix), p.rho, Over::Direction)?;
            let (groups, pixels, _, results) = self.grouping(Over::Direction);
            let rows = self.rows(pixels, groups, REDUCTION_BLOCKS, 8, 512);
            let chunks = pixels.div_ceil(rows);
            let partial = self.floats("partial sums", chunks * results);
            let args = vec![partial, dmix, saved.instance.a, layer.a, int(pixels), int(s.c), int(rows)];
            self.pass("dot", "adalin_composed_blend_dot", (pixels, rows, groups), args, 3 * s.len())?;
            let args = vec![d.rho, partial, int(results), int(chunks), flag(io.accumulate_rho)];
            let (grid, block) = ([up(results, THREADS), 1, 1], [THREADS as u32, 1, 1]);
            self.sink.launch("finish (drho)", "reduce_partials_f32", grid, block, args, results * chunks)?;
            let (ti, tl) = (self.tensor("instance part"), self.tensor("layer part"));
            self.composed_input_grad((ti, false), di, &saved.instance, Over::Channel, counters)?;
            self.composed_input_grad((tl, false), dl, layer, Over::Image, counters)?;
            return self.binary(E::Add, io.dinp, ti, Some(tl), io.accumulate);
        }

        // the blend
        let rows = s.d * s.c;
        let di = self.broadcast_new(E::Mul, Some(dmix), p.rho, Over::Direction)?;
        let product = self.binary_new(E::Mul, dmix, Some(saved.instance.a))?;
        let rho_i = self.sum_new("sum (drho)", product, Over::Direction, 1.0, counters)?;
        let dl = self.broadcast_new(E::Mul, Some(dmix), saved.one_less_rho, Over::Direction)?;
        let product = self.binary_new(E::Mul, dmix, Some(layer.a))?;
        let rho_l = self.sum_new("sum (drho)", product, Over::Direction, 1.0, counters)?;
        let minus = self.small_new(E::Neg, rho_l, None, 0.0, rows)?;
        self.small(E::Add, d.rho, rho_i, Some(minus), 0.0, rows, io.accumulate_rho)?;

        let mut parts = self.elementary_input_grads(io.inp, di, &saved.instance, Over::Channel, counters)?;
        parts.extend(self.elementary_input_grads(io.inp, dl, layer, Over::Image, counters)?);
        self.add_up(&parts, io.dinp, io.accumulate)
    }

    /// The three ways from a standardised tensor's gradient back to its input.
    fn elementary_input_grads(
        &mut self,
        x: Arg,
        da: Arg,
        of: &Standardised,
        over: Over,
        counters: Arg,
    ) -> Result<Vec<Arg>> {
        let (.., count, results) = self.grouping(over);
        // a = centred / spread
        let dcentred = self.broadcast_new(E::Div, Some(da), of.spread, over)?;
        let quotient = self.broadcast_new(E::Div, Some(of.centred), of.spread, over)?;
        let quotient = self.broadcast_new(E::Div, Some(quotient), of.spread, over)?;
        let minus = self.binary_new(E::Neg, da, None)?;
        let product = self.binary_new(E::Mul, minus, Some(quotient))?;
        let dspread = self.sum_new("sum", product, over, 1.0, counters)?;
        // spread = sqrt(var + eps)
        let twice = self.small_new(E::Mul, of.spread, None, 2.0, results)?;
        let dvar = self.small_new(E::Div, dspread, Some(twice), 0.0, results)?;
        // var
        let factor = self.small_new(E::Mul, dvar, None, 2.0 / (count - self.unbiased) as f64, results)?;
        let mean = self.mean(x, over, counters)?;
        let centred = self.broadcast_new(E::Sub, Some(x), mean, over)?;
        let through_var = self.broadcast_new(E::Mul, Some(centred), factor, over)?;
        // centred = x - mean(x); the factor 1 / n of the mean rides on the sum
        let minus = self.binary_new(E::Neg, dcentred, None)?;
        let dmean = self.sum_new("sum", minus, over, 1.0 / count as f64, counters)?;
        let through_mean = self.broadcast_new(E::Expand, None, dmean, over)?;
        Ok(vec![dcentred, through_var, through_mean])
    }

    fn add_up(&mut self, parts: &[Arg], out: Arg, accumulate: bool) -> Result<()> {
        let mut total = parts[0];
        for &part in &parts[1..parts.len() - 1] {
            total = self.binary_new(E::Add, total, Some(part))?;
        }
        self.binary(E::Add, out, total, parts.last().copied(), accumulate)
    }

    /// Back through an instance norm (two launches) or a layer norm (three).
    fn composed_input_grad(
        &mut self,
        (dinp, accumulate): (Arg, bool),
        da: Arg,
        of: &Standardised,
        over: Over,
        counters: Arg,
    ) -> Result<()> {
        let (s, rows, image) = (self.s, self.reduction_rows(), over == Over::Image);
        let [hw, c] = self.extents();
        let chunks = s.pixels().div_ceil(rows);
        let partial = self.floats("partial sums", s.images() * chunks * 2 * s.c);
        let sums = self.floats("sums", s.images() * 2 * if image { 1 } else { s.c });
        let (target, counter) = if image { (Arg::Null, Arg::Null) } else { (sums, counters) };
        let args = vec![target, partial, counter, da, of.a, hw, c, int(rows)];
        let passes = (s.pixels(), rows, s.images());
        self.pass("sums", "adalin_composed_backward_sums", passes, args, 3 * s.len())?;
        if image {
            let args = vec![sums, partial, c, int(chunks)];
            let (grid, block) = ([s.images() as u32, 1, 1], [THREADS as u32, 1, 1]);
            let flops = 2 * s.images() * chunks * s.c;
            self.sink.launch("finish", "adalin_composed_layer_sums_f32", grid, block, args, flops)?;
        }
        let args =
            vec![dinp, da, of.a, of.spread, sums, hw, c, flag(image), int(self.unbiased), flag(accumulate)];
        self.each("apply", "adalin_composed_backward", args, 5 * s.len())
    }
}
