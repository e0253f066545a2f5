//! Tensors of the unfused variants and formulas of them, one launch each: `x - mean`, `scaled + beta`, `1.0 - rho`.

use std::ops::{Add, Div, Mul, Neg, Sub};

use super::layer::Params;
use crate::device::BufferRef;

/// A value for each element: `[D, N, H, W, C]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tensor(pub BufferRef);

/// A value for each set of elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Small {
    pub at: BufferRef,
    pub over: Over,
}

/// The sets of elements that share a value, or over which a reduction goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Over {
    /// The pixels of a channel of an image: `[D, N, C]` results.
    Channel,
    /// All of an image: `[D, N]`.
    Image,
    /// The pixels of a channel, of the images that share a row of gamma: `[rows, C]`.
    Affine,
    /// The pixels of a channel of a direction: `[D, C]`.
    Direction,
}

impl Params {
    /// rho, gamma and beta.
    pub(super) fn small(self) -> [Small; 3] {
        let affine = |at| Small { at, over: Over::Affine };
        [Small { at: self.rho, over: Over::Direction }, affine(self.gamma), affine(self.beta)]
    }
}

/// The operations of `1_elementary.cu`, as it numbers them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Elementary {
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

impl Elementary {
    pub fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Sub => "sub",
            Self::Mul => "mul",
            Self::Div => "div",
            Self::Neg => "neg",
            Self::Sqrt => "sqrt",
            Self::Rsub => "rsub",
            Self::Expand => "expand",
            Self::MulRsub => "mul by one less",
        }
    }
}

/// `a op b`, element by element.
pub(super) struct Binary {
    pub op: Elementary,
    pub a: Tensor,
    pub b: Option<Tensor>,
}

/// `a op b`, the same b for every element of a set.
pub(super) struct Broadcast {
    pub op: Elementary,
    pub a: Option<Tensor>,
    pub b: Small,
}

/// `a op b` of a value for each set, b another one or a number.
pub(super) struct SmallBinary {
    pub op: Elementary,
    pub a: Small,
    pub b: Option<Small>,
    pub number: f64,
}

/// A factor times the sum of x.
pub(super) struct Sum<'n> {
    pub name: &'n str,
    pub x: Tensor,
    pub over: Over,
    pub factor: f64,
}

impl Tensor {
    pub fn sum(self, over: Over) -> Sum<'static> {
        Sum { name: "sum", x: self, over, factor: 1.0 }
    }

    /// `self * (1 - b)`.
    pub fn times_one_less(self, b: Small) -> Broadcast {
        Broadcast { op: Elementary::MulRsub, a: Some(self), b }
    }
}

impl Small {
    pub fn sqrt(self) -> SmallBinary {
        SmallBinary { op: Elementary::Sqrt, a: self, b: None, number: 0.0 }
    }

    /// The value for every element of its set.
    pub fn expand(self) -> Broadcast {
        Broadcast { op: Elementary::Expand, a: None, b: self }
    }

    fn with(self, op: Elementary, number: f64) -> SmallBinary {
        SmallBinary { op, a: self, b: None, number }
    }
}

impl<'n> Sum<'n> {
    /// The same under another name.
    pub fn named<'m>(self, name: &'m str) -> Sum<'m> {
        Sum { name, x: self.x, over: self.over, factor: self.factor }
    }
}

impl Mul<f64> for Sum<'_> {
    type Output = Self;

    fn mul(self, factor: f64) -> Self {
        Self { factor: self.factor * factor, ..self }
    }
}

/// An operator between tensors, between a tensor and a value for each set, and between values for each set.
macro_rules! operator {
    ($trait:ident, $method:ident) => {
        impl $trait for Tensor {
            type Output = Binary;

            fn $method(self, b: Self) -> Binary {
                Binary { op: Elementary::$trait, a: self, b: Some(b) }
            }
        }

        impl $trait<Small> for Tensor {
            type Output = Broadcast;

            fn $method(self, b: Small) -> Broadcast {
                Broadcast { op: Elementary::$trait, a: Some(self), b }
            }
        }

        impl $trait for Small {
            type Output = SmallBinary;

            fn $method(self, b: Self) -> SmallBinary {
                SmallBinary { op: Elementary::$trait, a: self, b: Some(b), number: 0.0 }
            }
        }
    };
}

operator!(Add, add);
operator!(Sub, sub);
operator!(Mul, mul);
operator!(Div, div);

impl Neg for Tensor {
    type Output = Binary;

    fn neg(self) -> Binary {
        Binary { op: Elementary::Neg, a: self, b: None }
    }
}

impl Neg for Small {
    type Output = SmallBinary;

    fn neg(self) -> SmallBinary {
        self.with(Elementary::Neg, 0.0)
    }
}

impl Add<f64> for Small {
    type Output = SmallBinary;

    fn add(self, number: f64) -> SmallBinary {
        self.with(Elementary::Add, number)
    }
}

impl Mul<f64> for Small {
    type Output = SmallBinary;

    fn mul(self, number: f64) -> SmallBinary {
        self.with(Elementary::Mul, number)
    }
}

impl Sub<Small> for f64 {
    type Output = SmallBinary;

    fn sub(self, small: Small) -> SmallBinary {
        small.with(Elementary::Rsub, self)
    }
}
