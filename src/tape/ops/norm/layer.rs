//! A layer of the normalisation family and its buffers: what every variant takes.

use crate::Result;
use crate::device::{BufferRef, Launch, Target};
use crate::kernels::arg::{In, Write};
use crate::tape::ops::activation::Activation;
use crate::tensor::{DType, Shape};

/// What is added to a variance.
pub const EPS: f32 = 1e-5;

/// Where launches go, and where their scratch memory comes from.
pub trait LaunchSink {
    /// The GPU that the launches are for.
    fn target(&self) -> Target;

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
    /// After the norm: none, ReLU or leaky ReLU.
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

impl Params {
    /// rho, gamma and beta as kernels of the whole family take them: none for an instance norm.
    pub(super) fn args(params: Option<Self>) -> [Option<In>; 3] {
        [params.map(|p| In(p.rho)), params.map(|p| In(p.gamma)), params.map(|p| In(p.beta))]
    }
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
    /// A padded copy, of the variants that fuse the padding.
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
pub struct ForwardBuffers {
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
pub struct BackwardBuffers {
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
