//! One case of the benchmark: a layer, a variant and an element type.

use std::fmt;
use std::str::FromStr;

use crate::device::Target;
use crate::tape::{Activation, NormVariant};
use crate::tensor::{DType, Shape};
use crate::{Error, Result};

/// A member of the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// AdaLIN: gamma and beta of each image, from the network.
    AdaLin,
    /// ILN: its own gamma and beta.
    Iln,
    /// Instance norm without parameters.
    Instance,
}

impl Kind {
    /// Its name, as options take it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::AdaLin => "adalin",
            Kind::Iln => "iln",
            Kind::Instance => "in",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Kind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Kind::AdaLin, Kind::Iln, Kind::Instance]
            .into_iter()
            .find(|k| k.name() == text)
            .ok_or_else(|| Error::new(format!("unknown kind '{text}'")).hint("kinds are adalin, iln, in"))
    }
}

/// A layer in one variant and one element type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Case {
    /// Which norm.
    pub kind: Kind,
    /// Which kernels.
    pub variant: NormVariant,
    /// Of input, output and their gradients.
    pub dtype: DType,
    /// Of the input.
    pub shape: Shape,
    /// After the norm.
    pub act: Activation,
    /// Whether a residual is added.
    pub residual: bool,
    /// Padding and up-sampling of the output, in a variant that fuses them.
    pub padded: Option<(usize, usize)>,
    /// The GPU to plan for.
    pub target: Target,
}

impl Case {
    /// A norm and nothing else, for an H100.
    pub fn new(kind: Kind, variant: NormVariant, dtype: DType, shape: Shape) -> Self {
        let target = Target::default();
        Self { kind, variant, dtype, shape, act: Activation::None, residual: false, padded: None, target }
    }

    /// What the benchmark measures of a variant: the norm, and where the variant fuses it, a ReLU and a padding by one pixel.
    pub fn as_measured(kind: Kind, variant: NormVariant, dtype: DType, shape: Shape, target: Target) -> Self {
        let case = Self { target, ..Self::new(kind, variant, dtype, shape) };
        match variant.fuses_padding() {
            true => Self { act: Activation::Relu, padded: Some((1, 1)), ..case },
            false => case,
        }
    }

    /// Images for each row of gamma and beta.
    pub fn images_per_affine(&self) -> usize {
        if self.kind == Kind::Iln { self.shape.n } else { 1 }
    }

    /// The activation's slope below 0.
    pub fn negative_slope(&self) -> f64 {
        match self.act {
            Activation::Relu => 0.0,
            Activation::LeakyRelu => f64::from(0.2f32),
            _ => 1.0,
        }
    }

    /// In words.
    pub fn describe(&self) -> String {
        let s = self.shape;
        let (kind, variant, dtype) = (self.kind, self.variant, self.dtype.name());
        format!("{kind} {variant} {dtype} {}x{}x{}x{}", s.images(), s.h, s.w, s.c)
    }

    /// Elements of the output, padded or not.
    pub fn output_len(&self) -> usize {
        let s = self.shape;
        let (pad, up) = self.padded.unwrap_or((0, 1));
        s.images() * (s.h * up + 2 * pad) * (s.w * up + 2 * pad) * s.c
    }

    /// Fewest bytes the forward pass can move between memory and chip: the input in, the output out,
    /// the residual in.
    pub fn minimum_forward(&self) -> u64 {
        let reads = self.shape.len() * if self.residual { 2 } else { 1 };
        (reads + self.output_len()) as u64 * self.dtype.bytes()
    }

    /// Fewest bytes of the backward pass: output gradient and input in, input gradient out.
    pub fn minimum_backward(&self) -> u64 {
        3 * self.shape.len() as u64 * self.dtype.bytes()
    }
}
