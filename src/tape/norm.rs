//! The normalisation family, instance norm, AdaLIN and ILN: its variants (`kernels/adalin`) and the launches
//! each of them makes. Lowering and the benchmark go through the same functions.

use super::grid::{THREADS, block_sum_for_all, block_sum_for_one, ceil_div, int};
use super::ops::activation::Activation;
use super::variant::NormVariant;
use crate::device::{BufferRef, Launch, MAX_COOPERATIVE_BLOCKS};
use crate::kernels::arg::{In, Out, Scratch, Write};
use crate::kernels::{Args, KernelOf, args, entry};
use crate::tensor::{DType, Shape};
use crate::{Error, Result};

/// What is added to a variance.
pub const EPS: f32 = 1e-5;

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

/// Where launches go, and where their scratch memory comes from.
pub trait Sink {
    /// Memory for results between launches; undefined until the first launch that names it.
    fn scratch(&mut self, name: &str, bytes: u64) -> BufferRef;

    /// So many zeroed 32-bit counters. Whoever uses them leaves them zeroed.
    ///
    /// # Errors
    /// When the sink cannot zero them.
    fn counters(&mut self, count: usize) -> Result<BufferRef>;

    /// Appends a launch; `what` says what it does, such as `mean`.
    fn launch(&mut self, what: &str, launch: Launch);
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

/// rho, gamma and beta.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Params {
    /// `[D, C]`.
    pub rho: BufferRef,
    /// `[D * N / images_per_affine, C]`.
    pub gamma: BufferRef,
    /// As gamma.
    pub beta: BufferRef,
}

/// The gradients of rho, gamma and beta.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ParamGrads {
    /// `[D, C]`.
    pub rho: Write,
    /// `[D * N / images_per_affine, C]`.
    pub gamma: Write,
    /// As gamma.
    pub beta: Write,
}

/// Where a forward pass writes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Output {
    /// `[D, N, H, W, C]`.
    Plain(BufferRef),
    /// A padded copy; for [`NormVariant::Network`] only.
    Padded {
        /// `[D, N, H * up + 2 pad, W * up + 2 pad, C]`.
        to: BufferRef,
        /// Reflected pixels on each side.
        pad: usize,
        /// Nearest-neighbour up-sampling before it.
        up: usize,
        /// `[D, N, H, W, C]`, where it is wanted too.
        plain: Option<BufferRef>,
    },
}

/// Buffers of a forward pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forward {
    /// The output.
    pub out: Output,
    /// The input.
    pub inp: BufferRef,
    /// None: instance norm, with the population variance.
    pub params: Option<Params>,
    /// Added to the activated result.
    pub residual: Option<BufferRef>,
    /// Mean and rstd `[D, N, C, 2]`, written by the fused variants.
    pub stats: BufferRef,
    /// The layer's, `[D, N, 2]`; none for an instance norm.
    pub layer_stats: Option<BufferRef>,
}

/// Buffers of a backward pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backward {
    /// Gradient of the output.
    pub dout: BufferRef,
    /// The input.
    pub inp: BufferRef,
    /// Gradient of the input.
    pub dinp: Write,
    /// As in the forward pass.
    pub params: Option<Params>,
    /// Their gradients.
    pub dparams: Option<ParamGrads>,
    /// As the forward pass left it.
    pub stats: BufferRef,
    /// As the forward pass left it.
    pub layer_stats: Option<BufferRef>,
}

/// What a forward pass keeps for its backward pass.
#[derive(Clone, Debug, PartialEq)]
pub enum Saved {
    /// Of the fused variants but the first: mean, scale and shift `[D, N, 3, C]`.
    Lines(BufferRef),
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
    mix: BufferRef,
    /// 1 - rho (elementary).
    one_less_rho: Option<BufferRef>,
    /// After the activation, where there is one.
    activated: Option<BufferRef>,
    counters: BufferRef,
}

/// `a = (x - mean) / sqrt(variance + eps)` and what it came from.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Standardised {
    /// x - mean (elementary).
    centred: BufferRef,
    /// sqrt(variance + eps) (elementary), or mean and rstd (composed).
    spread: BufferRef,
    a: BufferRef,
}

/// Makes the launches of a forward pass.
///
/// # Errors
/// When the variant cannot do what is asked for: padding elsewhere than in [`NormVariant::Network`], an
/// activation in 16 bits in an unfused variant.
pub fn forward<S: Sink>(sink: &mut S, layer: &Layer, variant: NormVariant, io: &Forward) -> Result<Saved> {
    let m = Maker::new(sink, layer, variant, io.params.is_some())?;
    let out = match io.out {
        Output::Plain(out) => out,
        Output::Padded { .. } if variant == NormVariant::Network => return m.vectorised_forward(io),
        Output::Padded { .. } => {
            return Err(Error::new(format!("the {variant} norm has no padding of its own")));
        }
    };
    match variant {
        NormVariant::Elementary | NormVariant::Composed => m.unfused_forward(io, out),
        NormVariant::Fused => m.fused_forward(io, out),
        NormVariant::Vectorised | NormVariant::Network => m.vectorised_forward(io),
        NormVariant::Resident => m.resident_forward(io, out),
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
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
}

impl Split {
    fn launch(&self, launch: Launch, flops: usize) -> Launch {
        launch.grid(self.grid).block(self.block).shared(self.shared_bytes).cooperative().flops(flops)
    }
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

    /// The kernel of a family for this layer's channels and type.
    fn kernel<A: Args>(&self, family: &str) -> Result<KernelOf<A>> {
        KernelOf::named(&format!("{family}_{}", self.suffix))
    }

    /// A launch over channels, chunks of pixels, groups.
    fn pass<A: Args>(
        &mut self,
        what: &str,
        family: &str,
        (pixels, rows, groups): (usize, usize, usize),
        args: A,
        flops: usize,
    ) -> Result<()> {
        let grid = [ceil_div(self.columns(), 1), ceil_div(pixels, rows), ceil_div(groups, 1)];
        let block = [self.block.0 as u32, self.block.1 as u32, 1];
        let launch = Launch::new(self.kernel(family)?, args)?.grid(grid).block(block);
        self.sink.launch(what, launch.flops(flops));
        Ok(())
    }

    /// A launch of a thread for each V elements of an image.
    fn each<A: Args>(&mut self, what: &str, family: &str, args: A, flops: usize) -> Result<()> {
        let grid = [ceil_div(self.s.image_len() / self.v, THREADS), ceil_div(self.s.images(), 1), 1];
        self.small_blocks(what, self.kernel(family)?, grid, args, flops)
    }

    /// A launch of blocks of [`THREADS`] threads.
    fn small_blocks<A: Args>(
        &mut self,
        what: &str,
        kernel: KernelOf<A>,
        grid: [u32; 3],
        args: A,
        flops: usize,
    ) -> Result<()> {
        let launch = Launch::new(kernel, args)?.grid(grid).block([THREADS as u32, 1, 1]);
        self.sink.launch(what, launch.flops(flops));
        Ok(())
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

    fn tensor(&mut self, name: &str) -> BufferRef {
        let bytes = self.s.len() as u64 * self.dtype.bytes();
        self.sink.scratch(name, bytes)
    }

    fn floats(&mut self, name: &str, count: usize) -> BufferRef {
        self.sink.scratch(name, count as u64 * 4)
    }

    // ------------------------------------------------------------ variant 3

    /// Pixels and channels, as most kernels take them.
    fn extents(&self) -> [i32; 2] {
        [int(self.s.pixels()), int(self.s.c)]
    }

    fn fused_forward(mut self, io: &Forward, out: BufferRef) -> Result<Saved> {
        let (s, rows) = (self.s, self.reduction_rows());
        let chunks = s.pixels().div_ceil(rows);
        let over = (s.pixels(), rows, s.images());
        let [hw, c] = self.extents();
        let partial = self.floats("statistics", s.images() * chunks * s.c * 2);
        let args = args::AdalinStatistics { partial: Out(partial), x: In(io.inp), hw, c, rows: int(rows) };
        self.pass("statistics", "adalin_statistics", over, args, 3 * s.len())?;

        let args = args::AdalinFinish {
            stats: Out(io.stats),
            layer_stats: io.layer_stats.map(Out),
            partial: In(partial),
            hw,
            c,
            rows: int(rows),
            unbiased: int(self.unbiased),
            eps: EPS,
        };
        let layer =
            if io.params.is_some() { block_sum_for_all(THREADS) + block_sum_for_one(THREADS) } else { 0 };
        let flops = s.images() * (s.c * (10 * chunks + 12) + layer);
        self.small_blocks("finish", entry::ADALIN_FINISH_F32, [s.images() as u32, 1, 1], args, flops)?;

        let args = args::AdalinForwardFused {
            out: Out(out),
            x: In(io.inp),
            stats: In(io.stats),
            layer_stats: io.layer_stats.map(In),
            rho: io.params.map(|p| In(p.rho)),
            gamma: io.params.map(|p| In(p.gamma)),
            beta: io.params.map(|p| In(p.beta)),
            residual: io.residual.map(In),
            hw,
            c,
            n: int(s.n),
            images_per_affine: int(self.per_affine),
            act: self.act as i32,
            rows: int(rows),
        };
        self.pass("apply", "adalin_forward", over, args, 6 * s.len())?;
        Ok(Saved::Nothing)
    }

    fn fused_backward(mut self, io: &Backward) -> Result<()> {
        let (s, rows) = (self.s, self.reduction_rows());
        let chunks = s.pixels().div_ceil(rows);
        let over = (s.pixels(), rows, s.images());
        let [hw, c] = self.extents();
        let (n, images_per_affine, act) = (int(s.n), int(self.per_affine), self.act as i32);
        let partial = self.floats("sums", s.images() * chunks * s.c * 2);
        let coefficients = self.floats("coefficients", s.images() * s.c * 3);
        let (stats, layer_stats) = (In(io.stats), io.layer_stats.map(In));
        let rho = io.params.map(|p| In(p.rho));
        let gamma = io.params.map(|p| In(p.gamma));
        let beta = io.params.map(|p| In(p.beta));
        let args = args::AdalinBackwardReduceFused {
            partial: Out(partial),
            dout: In(io.dout),
            x: In(io.inp),
            stats,
            layer_stats,
            rho,
            gamma,
            beta,
            hw,
            c,
            n,
            images_per_affine,
            act,
            rows: int(rows),
        };
        self.pass("sums", "adalin_backward_reduce", over, args, 4 * s.len())?;

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
            unbiased: int(self.unbiased),
            rows: int(rows),
        };
        let sums = if io.params.is_some() { 2 * block_sum_for_all(THREADS) } else { 0 };
        let flops = s.images() * (s.c * (2 * chunks + 20) + sums);
        let kernel = entry::ADALIN_BACKWARD_COEFFICIENTS_F32;
        self.small_blocks("coefficients", kernel, [s.d as u32, 1, 1], args, flops)?;

        let args = args::AdalinBackwardFused {
            dx: io.dinp,
            dout: In(io.dout),
            x: In(io.inp),
            coefficients: In(coefficients),
            stats,
            layer_stats,
            rho,
            gamma,
            beta,
            hw,
            c,
            n,
            images_per_affine,
            act,
            rows: int(rows),
        };
        self.pass("apply", "adalin_backward", over, args, 5 * s.len())
    }

    // ------------------------------------------------------------ variants 4 and 5

    fn vectorised_statistics(&mut self, inp: BufferRef) -> Result<(BufferRef, usize)> {
        let (s, rows) = (self.s, self.reduction_rows());
        let [hw, c] = self.extents();
        let partial = self.floats("statistics", s.images() * s.pixels().div_ceil(rows) * s.c * 2);
        let args = args::AdalinStatistics { partial: Out(partial), x: In(inp), hw, c, rows: int(rows) };
        self.pass("statistics", "adalin_statistics", (s.pixels(), rows, s.images()), args, 3 * s.len())?;
        Ok((partial, rows))
    }

    fn vectorised_finish(&mut self, (partial, rows): (BufferRef, usize), io: &Forward) -> Result<BufferRef> {
        let s = self.s;
        let [hw, c] = self.extents();
        let lines = self.floats("lines", s.images() * s.c * 3);
        let args = args::AdalinFinishRows {
            stats: Out(io.stats),
            layer_stats: io.layer_stats.map(Out),
            lines: Out(lines),
            partial: In(partial),
            rho: io.params.map(|p| In(p.rho)),
            gamma: io.params.map(|p| In(p.gamma)),
            beta: io.params.map(|p| In(p.beta)),
            hw,
            c,
            n: int(s.n),
            images_per_affine: int(self.per_affine),
            rows: int(rows),
            unbiased: int(self.unbiased),
            eps: EPS,
        };
        // Ten for each chunk of a channel; the rows of the block join theirs, ten a pair; then the layer's
        // mean and spread, which all threads want.
        let joins =
            10 * self.small_joins() + if io.params.is_some() { 2 * block_sum_for_all(SMALL) } else { 0 };
        let flops = s.images() * (s.c * (10 * s.pixels().div_ceil(rows) + 12) + joins);
        let launch = Launch::new(entry::ADALIN_FINISH_ROWS_F32, args)?.grid([s.images() as u32, 1, 1]);
        self.sink.launch("finish", launch.block(self.small_block()).flops(flops));
        Ok(lines)
    }

    fn vectorised_forward(mut self, io: &Forward) -> Result<Saved> {
        let s = self.s;
        let partial = self.vectorised_statistics(io.inp)?;
        let lines = self.vectorised_finish(partial, io)?;
        let rows = self.apply_rows();
        let over = (s.pixels(), rows, s.images());
        let (act, residual) = (self.act as i32, io.residual.map(In));
        let [hw, c] = self.extents();
        match io.out {
            Output::Padded { to, pad, up, plain } => {
                let args = args::AdalinNetwork {
                    padded: Out(to),
                    out: plain.map(Out),
                    x: In(io.inp),
                    lines: In(lines),
                    residual,
                    h: int(s.h),
                    w: int(s.w),
                    c,
                    act,
                    p: int(pad),
                    up: int(up),
                    rows: int(rows),
                };
                self.pass("apply and pad", "adalin_network", over, args, 4 * s.len())?;
            }
            Output::Plain(out) => {
                let args = args::AdalinForwardVectorised {
                    out: Out(out),
                    x: In(io.inp),
                    lines: In(lines),
                    residual,
                    hw,
                    c,
                    act,
                    rows: int(rows),
                };
                self.pass("apply", "adalin_forward", over, args, 4 * s.len())?;
            }
        }
        Ok(Saved::Lines(lines))
    }

    fn vectorised_backward(mut self, io: &Backward, lines: BufferRef) -> Result<()> {
        let (s, rows) = (self.s, self.reduction_rows());
        let chunks = s.pixels().div_ceil(rows);
        let [hw, c] = self.extents();
        let act = self.act as i32;
        let partial = self.floats("sums", s.images() * chunks * s.c * 2);
        let args = args::AdalinBackwardReduceVectorised {
            partial: Out(partial),
            dout: In(io.dout),
            x: In(io.inp),
            lines: In(lines),
            hw,
            c,
            act,
            rows: int(rows),
        };
        self.pass("sums", "adalin_backward_reduce", (s.pixels(), rows, s.images()), args, 4 * s.len())?;

        let coefficients = self.floats("coefficients", s.images() * s.c * 3);
        let args = self.coefficients(io, Some(coefficients), partial, s.images(), rows);
        let block = self.small_block();
        let more = if io.params.is_some() { s.d * s.c.div_ceil(block[0] as usize) } else { 0 };
        // The sums of an image are joined for its coefficients, and with parameters once more for their gradients.
        let (times, sums) = if io.params.is_some() { (2, 2 * block_sum_for_all(SMALL)) } else { (1, 0) };
        let joins = 2 * times * (s.c * chunks + self.small_joins());
        let launch = Launch::new(entry::ADALIN_BACKWARD_COEFFICIENTS_ROWS_F32, args)?
            .grid([ceil_div(s.images() + more, 1), 1, 1])
            .block(block)
            .flops(s.images() * (20 * s.c + joins + sums));
        self.sink.launch("coefficients", launch);

        let rows = self.apply_rows();
        let args = args::AdalinBackwardVectorised {
            dx: io.dinp,
            dout: In(io.dout),
            x: In(io.inp),
            coefficients: In(coefficients),
            lines: In(lines),
            hw,
            c,
            act,
            rows: int(rows),
        };
        self.pass("apply", "adalin_backward", (s.pixels(), rows, s.images()), args, 5 * s.len())
    }

    /// Arguments of the kernel that makes the coefficients of `images` images and the gradients of the
    /// parameters out of the sums of chunks of `rows` pixels.
    fn coefficients(
        &self,
        io: &Backward,
        coefficients: Option<BufferRef>,
        partial: BufferRef,
        images: usize,
        rows: usize,
    ) -> args::AdalinBackwardCoefficientsRows {
        let [hw, c] = self.extents();
        args::AdalinBackwardCoefficientsRows {
            coefficients: coefficients.map(Out),
            dgamma: io.dparams.map(|d| d.gamma),
            dbeta: io.dparams.map(|d| d.beta),
            drho: io.dparams.map(|d| d.rho),
            partial: In(partial),
            stats: In(io.stats),
            layer_stats: io.layer_stats.map(In),
            rho: io.params.map(|p| In(p.rho)),
            gamma: io.params.map(|p| In(p.gamma)),
            images: int(images),
            hw,
            c,
            n: int(self.s.n),
            images_per_affine: int(self.per_affine),
            unbiased: int(self.unbiased),
            rows: int(rows),
        }
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
        let grid = [ceil_div(columns, 1), ceil_div(pixels, rows), ceil_div(groups, 1)];
        let block = [width as u32, height as u32, 1];
        Some(Split { rows, grid, block, shared_bytes: (rows * row_bytes) as u32 })
    }

    /// Partial sums, planes of C floats an image, sums of slices, counters of the barriers.
    fn resident_scratch(&mut self, split: &Split, planes: usize, of_slice: usize) -> Result<[Scratch; 4]> {
        let s = self.s;
        let partial = self.floats("partial sums", s.images() * split.grid[1] as usize * 2 * s.c);
        let planes = self.floats("planes", s.images() * planes * s.c);
        let slices = self.floats("slices", s.images() * s.c.div_ceil(SLICE) * of_slice);
        let counters = self.sink.counters(3 * s.images())?;
        Ok([partial, planes, slices, counters].map(Scratch))
    }

    fn resident_forward(mut self, io: &Forward, out: BufferRef) -> Result<Saved> {
        let Some(split) = self.resident_split(1) else { return self.vectorised_forward(io) };
        let s = self.s;
        let lines = self.floats("lines", s.images() * s.c * 3);
        let [partial, planes, slices, counters] = self.resident_scratch(&split, 4, 3)?;
        let [hw, c] = self.extents();
        let args = args::AdalinResidentForward {
            out: Out(out),
            x: In(io.inp),
            residual: io.residual.map(In),
            stats: Out(io.stats),
            layer_stats: io.layer_stats.map(Out),
            lines: Out(lines),
            partial,
            planes,
            slices,
            counters,
            rho: io.params.map(|p| In(p.rho)),
            gamma: io.params.map(|p| In(p.gamma)),
            beta: io.params.map(|p| In(p.beta)),
            images: int(s.images()),
            hw,
            c,
            n: int(s.n),
            images_per_affine: int(self.per_affine),
            rows: int(split.rows),
            unbiased: int(self.unbiased),
            act: self.act as i32,
            eps: EPS,
        };
        let launch = Launch::new(self.kernel("adalin_resident_forward")?, args)?;
        self.sink.launch("norm", split.launch(launch, 7 * s.len()));
        Ok(Saved::Lines(lines))
    }

    fn resident_backward(mut self, io: &Backward, lines: BufferRef) -> Result<()> {
        let Some(split) = self.resident_split(2) else { return self.vectorised_backward(io, lines) };
        let s = self.s;
        let totals = self.floats("totals", s.images() * 2 * s.c);
        let [partial, planes, slices, counters] = self.resident_scratch(&split, 3, 2)?;
        let [hw, c] = self.extents();
        let args = args::AdalinResidentBackward {
            dx: io.dinp,
            totals: Out(totals),
            dout: In(io.dout),
            x: In(io.inp),
            stats: In(io.stats),
            layer_stats: io.layer_stats.map(In),
            lines: In(lines),
            partial,
            planes,
            slices,
            counters,
            rho: io.params.map(|p| In(p.rho)),
            gamma: io.params.map(|p| In(p.gamma)),
            images: int(s.images()),
            hw,
            c,
            n: int(s.n),
            images_per_affine: int(self.per_affine),
            rows: int(split.rows),
            unbiased: int(self.unbiased),
            act: self.act as i32,
        };
        let launch = Launch::new(self.kernel("adalin_resident_backward")?, args)?;
        self.sink.launch("norm", split.launch(launch, 9 * s.len()));

        // The parameters' gradients, over all images: one chunk an image, and no coefficients.
        if io.params.is_none() {
            return Ok(());
        }
        let args = self.coefficients(io, None, totals, 0, s.pixels());
        let block = self.small_block();
        let launch = Launch::new(entry::ADALIN_BACKWARD_COEFFICIENTS_ROWS_F32, args)?
            .grid([ceil_div(s.d * s.c.div_ceil(block[0] as usize), 1), 1, 1])
            .block(block)
            .flops(10 * s.images() * s.c);
        self.sink.launch("gradients of the parameters", launch);
        Ok(())
    }

    // ------------------------------------------------------------ variants 1 and 2: their parts

    /// out = a op b, element by element.
    fn binary(&mut self, op: Elementary, out: Write, a: BufferRef, b: Option<BufferRef>) -> Result<()> {
        let n = self.s.len();
        let args = args::AdalinElementaryBinary { out, a: In(a), b: b.map(In), n: int(n), op: op as i32 };
        let kernel = self.kernel("adalin_elementary_binary")?;
        self.small_blocks(op.name(), kernel, [ceil_div(n / self.v, THREADS), 1, 1], args, n)
    }

    /// The same into a new tensor.
    fn binary_new(&mut self, op: Elementary, a: BufferRef, b: Option<BufferRef>) -> Result<BufferRef> {
        let out = self.tensor(op.name());
        self.binary(op, Write::Store(out), a, b)?;
        Ok(out)
    }

    /// out = a op b, b a value for each channel or image.
    fn broadcast(
        &mut self,
        op: Elementary,
        out: BufferRef,
        a: Option<BufferRef>,
        b: BufferRef,
        over: Over,
    ) -> Result<()> {
        let [hw, c] = self.extents();
        let per = match over {
            Over::Channel | Over::Image => 1,
            Over::Affine => self.per_affine,
            Over::Direction => self.s.n,
        };
        let args = args::AdalinElementaryBroadcast {
            out: Out(out),
            a: a.map(In),
            b: In(b),
            hw,
            c,
            per: int(per),
            scalar: i32::from(over == Over::Image),
            op: op as i32,
        };
        self.each(op.name(), "adalin_elementary_broadcast", args, self.s.len())
    }

    fn broadcast_new(
        &mut self,
        op: Elementary,
        a: Option<BufferRef>,
        b: BufferRef,
        over: Over,
    ) -> Result<BufferRef> {
        let out = self.tensor(op.name());
        self.broadcast(op, out, a, b, over)?;
        Ok(out)
    }

    /// out = a op b over small tensors, b one of them or a number.
    fn small(
        &mut self,
        op: Elementary,
        out: Write,
        a: BufferRef,
        b: Option<BufferRef>,
        scalar: f64,
        n: usize,
    ) -> Result<()> {
        let args = args::AdalinElementarySmall {
            out,
            a: In(a),
            b: b.map(In),
            scalar: scalar as f32,
            n: int(n),
            op: op as i32,
        };
        let grid = [ceil_div(n, THREADS), 1, 1];
        self.small_blocks(op.name(), entry::ADALIN_ELEMENTARY_SMALL_F32, grid, args, n)
    }

    fn small_new(
        &mut self,
        op: Elementary,
        a: BufferRef,
        b: Option<BufferRef>,
        scalar: f64,
        n: usize,
    ) -> Result<BufferRef> {
        let out = self.floats(op.name(), n);
        self.small(op, Write::Store(out), a, b, scalar, n)?;
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
        out: Write,
        x: BufferRef,
        over: Over,
        scale: f64,
        counters: BufferRef,
    ) -> Result<()> {
        let (groups, pixels, ..) = self.grouping(over);
        let rows = self.rows(pixels, groups, REDUCTION_BLOCKS, 8, 512);
        let partial = self.floats("partial sums", groups * pixels.div_ceil(rows) * self.s.c);
        let args = args::AdalinElementarySum {
            out,
            partial: Scratch(partial),
            counter: Scratch(counters),
            x: In(x),
            pixels: int(pixels),
            c: int(self.s.c),
            rows: int(rows),
            layer: i32::from(over == Over::Image),
            scale: scale as f32,
        };
        self.pass(what, "adalin_elementary_sum", (pixels, rows, groups), args, self.s.len())
    }

    fn sum_new(
        &mut self,
        what: &str,
        x: BufferRef,
        over: Over,
        scale: f64,
        counters: BufferRef,
    ) -> Result<BufferRef> {
        let out = self.floats(what, self.grouping(over).3);
        self.sum(what, Write::Store(out), x, over, scale, counters)?;
        Ok(out)
    }

    fn mean(&mut self, x: BufferRef, over: Over, counters: BufferRef) -> Result<BufferRef> {
        let count = self.grouping(over).2;
        self.sum_new("mean", x, over, 1.0 / count as f64, counters)
    }

    /// `a = (x - mean(x)) / sqrt(var(x) + eps)`: six launches.
    fn elementary_standardise(
        &mut self,
        x: BufferRef,
        a: Option<BufferRef>,
        over: Over,
        counters: BufferRef,
    ) -> Result<Standardised> {
        let (groups, pixels, _, results) = self.grouping(over);
        let mean = self.mean(x, over, counters)?;
        let rows = self.rows(pixels, groups, REDUCTION_BLOCKS, 8, 512);
        let partial = self.floats("partial moments", groups * pixels.div_ceil(rows) * 2 * self.s.c);
        let variance = self.floats("var", results);
        let args = args::AdalinElementaryVariance {
            out: Out(variance),
            partial: Scratch(partial),
            counter: Scratch(counters),
            x: In(x),
            pixels: int(pixels),
            c: int(self.s.c),
            rows: int(rows),
            layer: i32::from(over == Over::Image),
            correction: int(self.unbiased),
        };
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
        x: BufferRef,
        a: Option<BufferRef>,
        over: Over,
        counters: BufferRef,
    ) -> Result<Standardised> {
        let s = self.s;
        let [hw, c] = self.extents();
        let spread;
        if over == Over::Channel {
            spread = self.floats("instance statistics", s.images() * s.c * 2);
            let rows = self.reduction_rows();
            let partial = self.floats("partial moments", s.images() * s.pixels().div_ceil(rows) * 2 * s.c);
            let args = args::AdalinComposedInstanceStatistics {
                stats: Out(spread),
                partial: Scratch(partial),
                counter: Scratch(counters),
                x: In(x),
                hw,
                c,
                rows: int(rows),
                unbiased: int(self.unbiased),
                eps: EPS,
            };
            let over = (s.pixels(), rows, s.images());
            self.pass("instance statistics", "adalin_composed_instance_statistics", over, args, 3 * s.len())?;
        } else {
            spread = self.floats("layer statistics", s.images() * 2);
            let (partial, rows) = self.vectorised_statistics(x)?;
            let args = args::AdalinComposedLayerStatistics {
                stats: Out(spread),
                partial: In(partial),
                hw,
                c,
                rows: int(rows),
                unbiased: int(self.unbiased),
                eps: EPS,
            };
            let flops = 8 * s.images() * s.c * s.pixels().div_ceil(rows);
            let kernel = entry::ADALIN_COMPOSED_LAYER_STATISTICS_F32;
            self.small_blocks("layer statistics", kernel, [s.images() as u32, 1, 1], args, flops)?;
        }
        let a = a.unwrap_or_else(|| self.tensor("standardised"));
        let layer = i32::from(over == Over::Image);
        let args = args::AdalinComposedStandardise { out: Out(a), x: In(x), stats: In(spread), hw, c, layer };
        self.each("standardise", "adalin_composed_standardise", args, 2 * s.len())?;
        Ok(Standardised { centred: x, spread, a })
    }

    // ------------------------------------------------------------ variants 1 and 2

    fn standardise(
        &mut self,
        x: BufferRef,
        a: Option<BufferRef>,
        over: Over,
        counters: BufferRef,
    ) -> Result<Standardised> {
        match self.variant {
            NormVariant::Composed => self.composed_standardise(x, a, over, counters),
            _ => self.elementary_standardise(x, a, over, counters),
        }
    }

    fn unfused_forward(mut self, io: &Forward, out: BufferRef) -> Result<Saved> {
        let (s, composed) = (self.s, self.variant == NormVariant::Composed);
        let counters = self.sink.counters(s.images())?;
        let rectified = self.act != Activation::None;
        let added = io.residual.is_some();
        let normed = if rectified || added { self.tensor("normed") } else { out };

        let mut one_less_rho = None;
        let (instance, layer, mix) = if let Some(p) = io.params {
            let instance = self.standardise(io.inp, None, Over::Channel, counters)?;
            let layer = self.standardise(io.inp, None, Over::Image, counters)?;
            let mix = if composed {
                let mix = self.tensor("blend");
                let [hw, c] = self.extents();
                let args = args::AdalinComposedBlend {
                    out: Out(mix),
                    a: In(instance.a),
                    b: In(layer.a),
                    rho: In(p.rho),
                    hw,
                    c,
                    n: int(s.n),
                };
                self.each("blend", "adalin_composed_blend", args, 4 * s.len())?;
                let args = args::AdalinComposedScaleShift {
                    out: Out(normed),
                    x: In(mix),
                    gamma: In(p.gamma),
                    beta: In(p.beta),
                    hw,
                    c,
                    per: int(self.per_affine),
                };
                self.each("scale and shift", "adalin_composed_scale_shift", args, 2 * s.len())?;
                mix
            } else {
                let first = self.broadcast_new(E::Mul, Some(instance.a), p.rho, Over::Direction)?;
                let less = self.small_new(E::Rsub, p.rho, None, 1.0, s.d * s.c)?;
                one_less_rho = Some(less);
                let second = self.broadcast_new(E::Mul, Some(layer.a), less, Over::Direction)?;
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
            last = if added { self.tensor("activated") } else { out };
            activated = Some(last);
            let args = args::ActivationForward {
                out: Out(last),
                inp: In(normed),
                n: int(s.len()),
                act: self.act as i32,
            };
            let grid = [ceil_div(s.len(), THREADS), 1, 1];
            self.small_blocks("activation", entry::ACTIVATION_FORWARD_F32, grid, args, s.len())?;
        }
        if added {
            self.binary(E::Add, Write::Store(out), last, io.residual)?;
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
            let args = args::ActivationBackward {
                dinp: Out(dout),
                dout: In(io.dout),
                out: In(activated),
                n: int(s.len()),
                act: self.act as i32,
            };
            let grid = [ceil_div(s.len(), THREADS), 1, 1];
            self.small_blocks("activation", entry::ACTIVATION_BACKWARD_F32, grid, args, s.len())?;
        }
        let (Some(p), Some(d), Some(layer)) = (io.params, io.dparams, &saved.layer) else {
            if self.variant == NormVariant::Composed {
                return self.composed_input_grad(io.dinp, dout, &saved.instance, Over::Channel, counters);
            }
            let parts =
                self.elementary_input_grads(io.inp, dout, &saved.instance, Over::Channel, counters)?;
            return self.add_up(&parts, io.dinp);
        };

        // scale and shift
        self.sum("sum (dbeta)", d.beta, dout, Over::Affine, 1.0, counters)?;
        let product = self.binary_new(E::Mul, dout, Some(saved.mix))?;
        self.sum("sum (dgamma)", d.gamma, product, Over::Affine, 1.0, counters)?;
        let dmix = self.broadcast_new(E::Mul, Some(dout), p.gamma, Over::Affine)?;

        // the blend
        let Some(one_less_rho) = saved.one_less_rho else {
            let instance = &saved.instance;
            let di = self.broadcast_new(E::Mul, Some(dmix), p.rho, Over::Direction)?;
            let dl = self.broadcast_new(E::MulRsub, Some(dmix), p.rho, Over::Direction)?;
            let (groups, pixels, _, results) = self.grouping(Over::Direction);
            let rows = self.rows(pixels, groups, REDUCTION_BLOCKS, 8, 512);
            let chunks = pixels.div_ceil(rows);
            let partial = self.floats("partial sums", chunks * results);
            let args = args::AdalinComposedBlendDot {
                partial: Out(partial),
                g: In(dmix),
                a: In(instance.a),
                b: In(layer.a),
                pixels: int(pixels),
                c: int(s.c),
                rows: int(rows),
            };
            self.pass("dot", "adalin_composed_blend_dot", (pixels, rows, groups), args, 3 * s.len())?;
            let args = args::ReducePartials {
                out: d.rho,
                partial: In(partial),
                n: int(results),
                chunks: int(chunks),
            };
            let grid = [ceil_div(results, THREADS), 1, 1];
            let kernel = entry::REDUCE_PARTIALS_F32;
            self.small_blocks("finish (drho)", kernel, grid, args, results * chunks)?;
            let (ti, tl) = (self.tensor("instance part"), self.tensor("layer part"));
            self.composed_input_grad(Write::Store(ti), di, instance, Over::Channel, counters)?;
            self.composed_input_grad(Write::Store(tl), dl, layer, Over::Image, counters)?;
            return self.binary(E::Add, io.dinp, ti, Some(tl));
        };
        let rows = s.d * s.c;
        let di = self.broadcast_new(E::Mul, Some(dmix), p.rho, Over::Direction)?;
        let product = self.binary_new(E::Mul, dmix, Some(saved.instance.a))?;
        let rho_i = self.sum_new("sum (drho)", product, Over::Direction, 1.0, counters)?;
        let dl = self.broadcast_new(E::Mul, Some(dmix), one_less_rho, Over::Direction)?;
        let product = self.binary_new(E::Mul, dmix, Some(layer.a))?;
        let rho_l = self.sum_new("sum (drho)", product, Over::Direction, 1.0, counters)?;
        let minus = self.small_new(E::Neg, rho_l, None, 0.0, rows)?;
        self.small(E::Add, d.rho, rho_i, Some(minus), 0.0, rows)?;

        let mut parts = self.elementary_input_grads(io.inp, di, &saved.instance, Over::Channel, counters)?;
        parts.extend(self.elementary_input_grads(io.inp, dl, layer, Over::Image, counters)?);
        self.add_up(&parts, io.dinp)
    }

    /// The three ways from a standardised tensor's gradient back to its input.
    fn elementary_input_grads(
        &mut self,
        x: BufferRef,
        da: BufferRef,
        of: &Standardised,
        over: Over,
        counters: BufferRef,
    ) -> Result<Vec<BufferRef>> {
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

    fn add_up(&mut self, parts: &[BufferRef], out: Write) -> Result<()> {
        let mut total = parts[0];
        for &part in &parts[1..parts.len() - 1] {
            total = self.binary_new(E::Add, total, Some(part))?;
        }
        self.binary(E::Add, out, total, parts.last().copied())
    }

    /// Back through an instance norm (two launches) or a layer norm (three).
    fn composed_input_grad(
        &mut self,
        dinp: Write,
        da: BufferRef,
        of: &Standardised,
        over: Over,
        counters: BufferRef,
    ) -> Result<()> {
        let (s, rows, image) = (self.s, self.reduction_rows(), over == Over::Image);
        let [hw, c] = self.extents();
        let chunks = s.pixels().div_ceil(rows);
        let partial = self.floats("partial sums", s.images() * chunks * 2 * s.c);
        let sums = self.floats("sums", s.images() * 2 * if image { 1 } else { s.c });
        let args = args::AdalinComposedBackwardSums {
            sums: (!image).then_some(Out(sums)),
            partial: Out(partial),
            counter: (!image).then_some(Scratch(counters)),
            g: In(da),
            a: In(of.a),
            hw,
            c,
            rows: int(rows),
        };
        let passes = (s.pixels(), rows, s.images());
        self.pass("sums", "adalin_composed_backward_sums", passes, args, 3 * s.len())?;
        if image {
            let args = args::AdalinComposedLayerSums {
                sums: Out(sums),
                partial: In(partial),
                c,
                chunks: int(chunks),
            };
            let flops = 2 * s.images() * chunks * s.c;
            let kernel = entry::ADALIN_COMPOSED_LAYER_SUMS_F32;
            self.small_blocks("finish", kernel, [s.images() as u32, 1, 1], args, flops)?;
        }
        let args = args::AdalinComposedBackward {
            dx: dinp,
            g: In(da),
            a: In(of.a),
            stats: In(of.spread),
            sums: In(sums),
            hw,
            c,
            layer: i32::from(image),
            unbiased: int(self.unbiased),
        };
        self.each("apply", "adalin_composed_backward", args, 5 * s.len())
    }
}
