//! Fully connected layers. Kernels: `kernels/linear.cu`.

use super::activation::{Activation, before_activation};
use crate::Result;
use crate::device::Launch;
use crate::kernels::{args, entry};
use crate::tape::grid::{block_sum_for_one, ceil_div, int};
use crate::tape::lowering::Lowering;
use crate::tape::operation::{Backward, Operation, Uses};
use crate::tape::record::Tape;
use crate::tape::value::Value;
use crate::tensor::Shape;

/// Threads a block, as the kernels have it.
const THREADS: usize = 128;
/// Threads a block of the gradient of the input.
const INPUT_THREADS: u32 = 256;

impl Tape {
    /// Linear layer without bias over the whole image, `weight [D, 1, 1, O, I]`: `[D, N, 1, 1, O]`.
    ///
    /// # Panics
    /// When the image has not I elements.
    pub fn linear(&mut self, name: &str, inp: Value, weight: Value, act: Activation) -> Value {
        let (s, w) = (self.shape(inp), self.shape(weight));
        assert_eq!(s.image_len(), w.c, "linear {name}: input {s}, weight {w}");
        let out = self.temp(name, Shape { h: 1, w: 1, c: w.w, ..s });
        self.push(Linear { inp, weight, out, act });
        out
    }
}

fn blocks(launch: Launch, grid: [u32; 3]) -> Launch {
    launch.grid(grid).block([THREADS as u32, 1, 1])
}

#[derive(Debug)]
struct Linear {
    inp: Value,
    weight: Value,
    out: Value,
    act: Activation,
}

impl Operation for Linear {
    fn uses(&self) -> Uses {
        Uses::reads([self.inp, self.weight]).differentiable().writes([self.out])
    }

    fn adjoint(&self, back: &mut Backward) {
        let Some(dout) = back.arrived(self.out) else { return };
        let Self { inp, weight, .. } = *self;
        let dpre = before_activation(back, dout, self.out, self.act);
        if let Some(dinp) = back.collect(inp) {
            back.push(LinearInputGrad { dpre, weight, dinp });
        }
        if let Some(dweight) = back.collect(weight) {
            back.push(LinearWeightGrad { dpre, inp, dweight });
        }
    }

    fn lower(&self, to: &mut Lowering) -> Result<()> {
        to.label("linear", self.out);
        let (n, w) = (to.shape(self.inp).n, to.shape(self.weight));
        let args = args::LinearForward {
            out: to.output(self.out),
            inp: to.input(self.inp),
            weight: to.input(self.weight),
            n: int(n),
            i: int(w.c),
            o: int(w.w),
            act: self.act as i32,
        };
        let launch = blocks(Launch::new(entry::LINEAR_FORWARD_F32, args)?, [w.w as u32, w.d as u32, 1]);
        to.launch(launch.flops(2 * w.len() * n + block_sum_for_one(THREADS) * w.w * w.d * n));
        Ok(())
    }
}

#[derive(Debug)]
struct LinearInputGrad {
    dpre: Value,
    weight: Value,
    dinp: Value,
}

impl Operation for LinearInputGrad {
    fn uses(&self) -> Uses {
        Uses::reads([self.dpre, self.weight]).writes([self.dinp])
    }

    fn lower(&self, to: &mut Lowering) -> Result<()> {
        to.label("linear dgrad", self.dinp);
        let (n, w) = (to.shape(self.dpre).n, to.shape(self.weight));
        let args = args::LinearBackwardInput {
            dinp: to.gradient(self.dinp),
            dout: to.input(self.dpre),
            weight: to.input(self.weight),
            n: int(n),
            i: int(w.c),
            o: int(w.w),
        };
        let launch = Launch::new(entry::LINEAR_BACKWARD_INPUT_F32, args)?
            .grid([ceil_div(w.c, 32), w.d as u32, 1])
            .block([INPUT_THREADS, 1, 1]);
        to.launch(launch.flops(2 * w.len() * n));
        Ok(())
    }
}

#[derive(Debug)]
struct LinearWeightGrad {
    dpre: Value,
    inp: Value,
    dweight: Value,
}

impl Operation for LinearWeightGrad {
    fn uses(&self) -> Uses {
        Uses::reads([self.dpre, self.inp]).writes([self.dweight])
    }

    fn lower(&self, to: &mut Lowering) -> Result<()> {
        to.label("linear wgrad", self.dweight);
        let (n, w) = (to.shape(self.dpre).n, to.shape(self.dweight));
        let args = args::LinearBackwardWeight {
            dweight: to.gradient(self.dweight),
            dout: to.input(self.dpre),
            inp: to.input(self.inp),
            n: int(n),
            i: int(w.c),
            o: int(w.w),
        };
        let grid = [ceil_div(w.c, THREADS), w.w as u32, w.d as u32];
        to.launch(blocks(Launch::new(entry::LINEAR_BACKWARD_WEIGHT_F32, args)?, grid).flops(2 * w.len() * n));
        Ok(())
    }
}
