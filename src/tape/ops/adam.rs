//! Adam, and the clip of rho. Kernels: `kernels/adam.cu`.

use crate::Result;
use crate::device::Launch;
use crate::kernels::{args, entry};
use crate::tape::grid::{int, over};
use crate::tape::lowering::Lowering;
use crate::tape::operation::{Operation, Uses};
use crate::tape::record::Tape;
use crate::tape::value::Value;

/// Constants of an Adam optimiser.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamHyper {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// L2 weight decay, added to the gradient.
    pub weight_decay: f64,
}

impl Tape {
    /// One Adam step over a whole group of parameters; `schedule` as in `adam.cu`.
    pub fn adam(&mut self, p: Value, m: Value, v: Value, g: Value, schedule: Value, hyper: AdamHyper) {
        self.push(Adam { p, m, v, g, schedule, hyper });
    }

    /// Clamps `rho` to `[0, high]`.
    pub fn clip_rho(&mut self, rho: Value, high: f32) {
        self.push(ClipRho { rho, high });
    }
}

#[derive(Debug)]
struct Adam {
    p: Value,
    m: Value,
    v: Value,
    g: Value,
    schedule: Value,
    hyper: AdamHyper,
}

impl Operation for Adam {
    fn uses(&self) -> Uses {
        Uses::reads([self.p, self.m, self.v, self.g, self.schedule]).writes([self.p, self.m, self.v])
    }

    fn lower(&self, to: &mut Lowering) -> Result<()> {
        to.label("adam", self.p);
        let n = to.shape(self.p).len();
        let args = args::Adam {
            p: to.update(self.p),
            m: to.update(self.m),
            v: to.update(self.v),
            g: to.input(self.g),
            schedule: to.input(self.schedule),
            n: int(n),
            beta1: self.hyper.beta1 as f32,
            beta2: self.hyper.beta2 as f32,
            one_minus_beta1: (1.0 - self.hyper.beta1) as f32,
            one_minus_beta2: (1.0 - self.hyper.beta2) as f32,
            eps: self.hyper.eps as f32,
            weight_decay: self.hyper.weight_decay as f32,
        };
        to.launch(over(Launch::new(entry::ADAM_F32, args)?, n).flops(14 * n));
        Ok(())
    }
}

#[derive(Debug)]
struct ClipRho {
    rho: Value,
    high: f32,
}

impl Operation for ClipRho {
    fn uses(&self) -> Uses {
        Uses::reads([self.rho]).writes([self.rho])
    }

    fn lower(&self, to: &mut Lowering) -> Result<()> {
        to.label("clip", self.rho);
        let n = to.shape(self.rho).len();
        let args = args::RhoClip { rho: to.update(self.rho), n: int(n), low: 0.0, high: self.high };
        to.launch(over(Launch::new(entry::RHO_CLIP_F32, args)?, n));
        Ok(())
    }
}
