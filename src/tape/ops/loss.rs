//! Losses. Kernels: `kernels/loss.cu`.

use crate::Result;
use crate::device::Launch;
use crate::kernels::{KernelOf, args, entry};
use crate::tape::grid::{block_sum_for_one, ceil_div, int};
use crate::tape::lowering::Lowering;
use crate::tape::operation::{Backward, Operation, Uses};
use crate::tape::record::Tape;
use crate::tape::value::Value;
use crate::tensor::Shape;

/// Threads a block, as the kernels have it.
const THREADS: usize = 512;

/// Which loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LossKind {
    /// Mean squared error to a constant (LSGAN).
    Mse,
    /// Binary cross-entropy of logits to a constant.
    Bce,
    /// Mean absolute difference to a tensor.
    L1,
}

impl LossKind {
    fn forward(self) -> KernelOf<args::LossForward> {
        match self {
            Self::Mse => entry::LOSS_MSE_FORWARD_F32,
            Self::Bce => entry::LOSS_BCE_FORWARD_F32,
            Self::L1 => entry::LOSS_L1_FORWARD_F32,
        }
    }

    fn backward(self) -> KernelOf<args::LossBackward> {
        match self {
            Self::Mse => entry::LOSS_MSE_BACKWARD_F32,
            Self::Bce => entry::LOSS_BCE_BACKWARD_F32,
            Self::L1 => entry::LOSS_L1_BACKWARD_F32,
        }
    }

    /// Operations for each element, exponential and logarithm as the polynomials they are.
    fn forward_flops(self) -> usize {
        if self == Self::Bce { 30 } else { 3 }
    }

    fn backward_flops(self) -> usize {
        if self == Self::Bce { 15 } else { 4 }
    }
}

impl Tape {
    /// Loss terms `[D, halves, 1, 1, 1]`: the mean of each direction's and half batch's elements,
    /// against a target tensor or the half's constant.
    pub fn loss(&mut self, kind: LossKind, inp: Value, target: Option<Value>, targets: &[f32], terms: Value) {
        let halves = targets.len();
        assert!(halves == 1 || halves == 2, "a loss has one or two halves");
        assert_eq!(
            self.shape(inp).n % halves,
            0,
            "a loss over {} images in {halves} halves",
            self.shape(inp).n
        );
        assert_eq!(self.shape(terms).len(), self.shape(inp).d * halves);
        let targets = [targets[0], targets[halves - 1]];
        self.push(Loss { kind, inp, target, targets, halves, terms });
    }

    /// A tensor `[D, halves]` of loss terms in the arena.
    pub fn terms(&mut self, name: &str, d: usize, halves: usize) -> Value {
        self.temp(name, Shape::new(d, halves, 1, 1, 1))
    }
}

#[derive(Clone, Copy, Debug)]
struct Loss {
    kind: LossKind,
    inp: Value,
    target: Option<Value>,
    targets: [f32; 2],
    halves: usize,
    terms: Value,
}

impl Operation for Loss {
    fn uses(&self) -> Uses {
        Uses::reads([self.inp]).differentiable().also(self.target).writes([self.terms])
    }

    fn adjoint(&self, back: &mut Backward) {
        let Some(weights) = back.weights(self.terms) else { return };
        if let Some(dinp) = back.collect(self.inp) {
            back.push(LossGrad { of: *self, weights, dinp });
        }
    }

    fn lower(&self, to: &mut Lowering) -> Result<()> {
        to.label("loss", self.terms);
        let s = to.shape(self.inp);
        let groups = s.d * self.halves;
        let args = args::LossForward {
            terms: to.output(self.terms),
            inp: to.input(self.inp),
            target: self.target.map(|t| to.input(t)),
            n: int(s.len() / groups),
            halves: int(self.halves),
            target0: self.targets[0],
            target1: self.targets[1],
        };
        let launch = Launch::new(self.kind.forward(), args)?.grid([groups as u32, 1, 1]);
        let flops = self.kind.forward_flops() * s.len() + groups * block_sum_for_one(THREADS);
        to.launch(launch.block([THREADS as u32, 1, 1]).flops(flops));
        Ok(())
    }
}

/// The gradient of a loss whose halves have these weights in the total.
#[derive(Debug)]
struct LossGrad {
    of: Loss,
    weights: [f32; 2],
    dinp: Value,
}

impl Operation for LossGrad {
    fn uses(&self) -> Uses {
        Uses::reads([self.of.inp]).also(self.of.target).writes([self.dinp])
    }

    fn lower(&self, to: &mut Lowering) -> Result<()> {
        to.label("loss grad", self.dinp);
        let Loss { kind, inp, target, targets, halves, .. } = self.of;
        let s = to.shape(inp);
        let groups = s.d * halves;
        let n = s.len() / groups;
        let args = args::LossBackward {
            dinp: to.gradient(self.dinp),
            inp: to.input(inp),
            target: target.map(|t| to.input(t)),
            n: int(n),
            halves: int(halves),
            target0: targets[0],
            target1: targets[1],
            weight0: self.weights[0],
            weight1: self.weights[1],
        };
        let launch = Launch::new(kind.backward(), args)?.grid([ceil_div(n, THREADS), groups as u32, 1]);
        to.launch(launch.block([THREADS as u32, 1, 1]).flops(kind.backward_flops() * s.len()));
        Ok(())
    }
}
