//! Activations on their own. Kernels: `kernels/activation.cu`; most layers apply theirs themselves.

use crate::Result;
use crate::device::Launch;
use crate::kernels::{args, entry};
use crate::tape::grid::{int, over};
use crate::tape::lowering::Lowering;
use crate::tape::operation::{Backward, Operation, Uses};
use crate::tape::record::Tape;
use crate::tape::value::Value;

/// Element-wise activation, as `kernels/common/common.cuh` numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// The identity.
    None = 0,
    /// max(x, 0).
    Relu = 1,
    /// x for x > 0, else 0.2 x.
    LeakyRelu = 2,
    /// Hyperbolic tangent.
    Tanh = 3,
}

impl Tape {
    /// An activation on its own.
    pub fn activation(&mut self, name: &str, inp: Value, act: Activation) -> Value {
        let out = self.temp(name, self.shape(inp));
        self.push(Activate { inp, out, act });
        out
    }
}

/// The gradient before a layer's activation, from the one after it.
pub(super) fn before_activation(back: &mut Backward, dout: Value, out: Value, act: Activation) -> Value {
    if act == Activation::None {
        return dout;
    }
    let dinp = back.temp_like(out, "dpre");
    back.push(ActivateGrad { dout, out, dinp, act });
    dinp
}

#[derive(Debug)]
struct Activate {
    inp: Value,
    out: Value,
    act: Activation,
}

impl Operation for Activate {
    fn uses(&self) -> Uses {
        Uses::reads([self.inp]).differentiable().writes([self.out])
    }

    fn adjoint(&self, back: &mut Backward) {
        if let Some((dout, dinp)) = back.flow(self.out, self.inp) {
            back.push(ActivateGrad { dout, out: self.out, dinp, act: self.act });
        }
    }

    fn lower(&self, to: &mut Lowering) -> Result<()> {
        to.label("activation", self.out);
        let n = to.shape(self.inp).len();
        let args = args::ActivationForward {
            out: to.output(self.out),
            inp: to.input(self.inp),
            n: int(n),
            act: self.act as i32,
        };
        to.launch(over(Launch::new(entry::ACTIVATION_FORWARD_F32, args)?, n).flops(n));
        Ok(())
    }
}

/// The slope follows from the output.
#[derive(Debug)]
struct ActivateGrad {
    dout: Value,
    out: Value,
    dinp: Value,
    act: Activation,
}

impl Operation for ActivateGrad {
    fn uses(&self) -> Uses {
        Uses::reads([self.dout, self.out]).writes([self.dinp])
    }

    fn lower(&self, to: &mut Lowering) -> Result<()> {
        to.label("activation grad", self.dinp);
        let n = to.shape(self.dinp).len();
        let args = args::ActivationBackward {
            dinp: to.only_write(self.dinp)?,
            dout: to.input(self.dout),
            out: to.input(self.out),
            n: int(n),
            act: self.act as i32,
        };
        to.launch(over(Launch::new(entry::ACTIVATION_BACKWARD_F32, args)?, n).flops(n));
        Ok(())
    }
}
