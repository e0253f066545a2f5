//! What a pass of a convolution is.

use crate::tape::ops::activation::Activation;
use crate::tensor::Shape;

/// Which of a convolution's three computations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConvPass {
    /// The output.
    Forward,
    /// The gradient of the input.
    Dgrad,
    /// The gradient of the weight.
    Wgrad,
}

impl ConvPass {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Forward, Self::Dgrad, Self::Wgrad];

    /// Its name, as records have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Dgrad => "dgrad",
            Self::Wgrad => "wgrad",
        }
    }
}

/// One pass of one convolution: all that its launches depend on, but for the spectral norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvLayer {
    /// Which pass.
    pub pass: ConvPass,
    /// Of the input, `[D, N, H, W, CI]`.
    pub inp: Shape,
    /// `[D, K, K, CI, CO]`.
    pub weight: Shape,
    /// Of both axes.
    pub stride: usize,
    /// In the epilogue of the forward pass; none in the gradients.
    pub act: Activation,
    /// Whether the forward pass adds a bias.
    pub bias: bool,
}

impl ConvLayer {
    /// Of the output, `[D, N, H, W, CO]`.
    pub fn out(&self) -> Shape {
        let side = |n: usize| (n - self.weight.n) / self.stride + 1;
        Shape { h: side(self.inp.h), w: side(self.inp.w), c: self.weight.c, ..self.inp }
    }

    /// Floating-point operations, a multiply-add as two.
    pub fn flops(&self) -> u64 {
        2 * (self.out().len() * self.weight.n * self.weight.n * self.inp.c) as u64
    }

    /// `2x2x66x66x256 3x3 to 256`, with the stride where there is one.
    pub fn describe(&self) -> String {
        let Shape { d, n, h, w, c } = self.inp;
        let (k, to) = (self.weight.n, self.weight.c);
        let stride = if self.stride > 1 { format!(" by {}", self.stride) } else { String::new() };
        format!("{d}x{n}x{h}x{w}x{c} {k}x{k}{stride} to {to}")
    }
}
