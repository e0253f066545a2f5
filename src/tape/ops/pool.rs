//! Global average and maximum pooling. Kernels: `kernels/pool.cu`.

use crate::Result;
use crate::device::Launch;
use crate::kernels::arg::{In, Out};
use crate::kernels::{args, entry};
use crate::tape::grid::{THREADS, blocks, ceil_div, chunks_of, int, pass};
use crate::tape::lowering::Lowering;
use crate::tape::operation::{Backward, Operation, Uses};
use crate::tape::record::Tape;
use crate::tape::value::Value;
use crate::tensor::{DType, Shape};

impl Tape {
    /// Global average pooling: `[D, N, 1, 1, C]`.
    pub fn average_pool(&mut self, name: &str, inp: Value) -> Value {
        let shape = Shape { h: 1, w: 1, ..self.shape(inp) };
        let average = self.temp(name, shape);
        self.push(Pool { inp, average, maximum: None });
        average
    }

    /// Global average and maximum pooling: two `[D, N, 1, 1, C]`.
    pub fn average_and_max_pool(&mut self, inp: Value) -> (Value, Value) {
        let shape = Shape { h: 1, w: 1, ..self.shape(inp) };
        let average = self.temp("gap", shape);
        let maximum = self.temp("gmp", shape);
        let argmax = self.temp_of("gmp.argmax", shape, DType::I32);
        self.push(Pool { inp, average, maximum: Some((maximum, argmax)) });
        (average, maximum)
    }
}

/// `maximum` holds the maximum and the pixel index it was found at.
#[derive(Debug)]
struct Pool {
    inp: Value,
    average: Value,
    maximum: Option<(Value, Value)>,
}

impl Operation for Pool {
    fn uses(&self) -> Uses {
        let maximum = self.maximum.iter().flat_map(|m| [m.0, m.1]);
        Uses::reads([self.inp]).differentiable().writes([self.average]).writes(maximum)
    }

    fn adjoint(&self, back: &mut Backward) {
        let Some((daverage, dinp)) = back.flow(self.average, self.inp) else { return };
        let dmaximum = self.maximum.and_then(|(m, at)| Some((back.arrived(m)?, at)));
        back.push(PoolGrad { daverage, dmaximum, dinp });
    }

    fn lower(&self, to: &mut Lowering) -> Result<()> {
        to.label("pool", self.average);
        let s = to.shape(self.inp);
        let chunks = chunks_of(s.pixels(), s.c);
        let n = s.images() * chunks * s.c;
        let (sums, tops, places) = (to.scratch("sums", n), to.scratch("maxima", n), to.scratch("places", n));
        let args = args::GlobalPoolPartial {
            partial_sum: Out(sums),
            partial_max: Out(tops),
            partial_at: Out(places),
            x: to.input(self.inp),
            hw: int(s.pixels()),
            c: int(s.c),
            chunks: int(chunks),
        };
        to.launch(pass(Launch::new(entry::GLOBAL_POOL_PARTIAL_F32, args)?, s, chunks).flops(s.len()));
        let (maximum, argmax) = (self.maximum.map(|m| to.output(m.0)), self.maximum.map(|m| to.output(m.1)));
        let args = args::GlobalPoolFinish {
            average: to.output(self.average),
            maximum,
            argmax,
            partial_sum: In(sums),
            partial_max: In(tops),
            partial_at: In(places),
            hw: int(s.pixels()),
            c: int(s.c),
            chunks: int(chunks),
        };
        let grid = [ceil_div(s.c, THREADS), s.images() as u32, 1];
        to.launch(blocks(Launch::new(entry::GLOBAL_POOL_FINISH_F32, args)?, grid).flops(2 * n));
        Ok(())
    }
}

/// `dmaximum` holds the maximum's gradient and the pixel it belongs to.
#[derive(Debug)]
struct PoolGrad {
    daverage: Value,
    dmaximum: Option<(Value, Value)>,
    dinp: Value,
}

impl Operation for PoolGrad {
    fn uses(&self) -> Uses {
        let dmaximum = self.dmaximum.iter().flat_map(|m| [m.0, m.1]);
        Uses::reads([self.daverage]).also(dmaximum).writes([self.dinp])
    }

    fn lower(&self, to: &mut Lowering) -> Result<()> {
        to.label("pool grad", self.dinp);
        let s = to.shape(self.dinp);
        let chunks = chunks_of(s.pixels(), s.c);
        let args = args::GlobalPoolBackward {
            dinp: to.gradient(self.dinp),
            daverage: to.input(self.daverage),
            dmaximum: self.dmaximum.map(|m| to.input(m.0)),
            argmax: self.dmaximum.map(|m| to.input(m.1)),
            hw: int(s.pixels()),
            c: int(s.c),
            chunks: int(chunks),
        };
        to.launch(pass(Launch::new(entry::GLOBAL_POOL_BACKWARD_F32, args)?, s, chunks).flops(s.len()));
        Ok(())
    }
}
