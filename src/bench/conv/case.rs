//! One pass of one convolution in one variant, as a program that a device runs.

use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::device::executable::DeviceHandle;
use crate::device::{Program, Target};
use crate::tape::{
    Activation, BufferRole, ConvLayer, ConvPass, ConvVariant, LoadedProgram, LowerOptions, Planned, Seed,
    StateLayout, StateView, Tape, Value, plan_with,
};
use crate::tensor::Shape;
use crate::{Error, Result};

/// Results that are computed again in double precision.
const CHECKED: usize = 48;

/// A planned pass and its operands.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is computed.
    pub layer: ConvLayer,
    /// With which kernels.
    pub variant: ConvVariant,
    planned: Planned,
    /// The two tensors that are multiplied, and the bias.
    operands: Vec<(Value, usize)>,
    result: Value,
    /// The first launch of the pass.
    first: usize,
}

/// The values of a case's operands, in the order in which its pass takes them: forward input, weight and bias, dgrad output
/// gradient and weight, wgrad input and output gradient.
#[derive(Clone, Debug)]
pub struct Inputs(Vec<Vec<f32>>);

impl Case {
    /// Plans the pass; None where the variant leaves the shape to another one.
    ///
    /// # Errors
    /// When a tensor would be too large.
    pub fn plan(layer: ConvLayer, variant: ConvVariant, target: Target) -> Result<Option<Self>> {
        let mut layout = StateLayout::default();
        let mut tape = Tape::new();
        let mut operands = Vec::new();
        let mut state = |tape: &mut Tape, name: &str, shape: Shape| {
            let buffer = layout.add(BufferRole::Operand, name, 4 * shape.len() as u64);
            tape.state(name, shape, StateView { buffer, offset: 0 })
        };
        let ConvLayer { pass, inp, weight, stride, act, bias } = layer;
        let x = state(&mut tape, "x", inp);
        let w = state(&mut tape, "w", weight);
        let mut operand = |v: Value, shape: Shape| operands.push((v, shape.len()));
        let result = match pass {
            ConvPass::Forward => {
                let shape = Shape::row(inp.d, weight.c);
                let b = bias.then(|| state(&mut tape, "bias", shape));
                let y = tape.conv("y", x, w, b, None, stride, act);
                tape.keep(y);
                operand(x, inp);
                operand(w, weight);
                b.into_iter().for_each(|b| operand(b, shape));
                y
            }
            ConvPass::Dgrad | ConvPass::Wgrad => {
                let dy = state(&mut tape, "dy", layer.out());
                let y = tape.conv("y", x, w, None, None, stride, Activation::None);
                let (of, like) = if pass == ConvPass::Dgrad { (x, inp) } else { (w, weight) };
                let result = state(&mut tape, "result", like);
                tape.backward(&[Seed::Upstream(y, dy)], &[(of, result)]);
                match pass {
                    ConvPass::Dgrad => {
                        operand(dy, layer.out());
                        operand(w, weight);
                    }
                    _ => {
                        operand(x, inp);
                        operand(dy, layer.out());
                    }
                }
                result
            }
        };
        let options =
            LowerOptions { conv: Some(variant), precision: variant.precision(), ..LowerOptions::on(target) };
        let name = format!("{} {} {}", pass.name(), layer.describe(), variant.name());
        let planned = plan_with(&name, &tape, &layout, options)?;
        let first = planned.program.launches.iter().position(|l| l.kernel.module.file == variant.file());
        Ok(first.map(|first| Self { layer, variant, planned, operands, result, first }))
    }

    /// The same so many times over, but for the counters that split sums have, which a program zeroes once.
    pub fn repeated(&self, times: usize) -> Self {
        let mut case = self.clone();
        let launches = &mut Arc::make_mut(&mut case.planned.program).launches;
        let pass = launches.split_off(self.first);
        for _ in 0..times {
            launches.extend_from_slice(&pass);
        }
        case
    }

    /// Launches of the pass.
    pub fn launches(&self) -> usize {
        self.planned.program.launches.len() - self.first
    }

    /// What a device runs.
    pub fn program(&self) -> &Program {
        &self.planned.program
    }

    /// In words.
    pub fn describe(&self) -> &str {
        &self.planned.program.name
    }

    /// Random operands between -1 and 1.
    pub fn inputs(&self, seed: u64) -> Inputs {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // What a GPU draws depends on the values, and drawing millions of them takes seconds: a block of them is repeated,
        // whose length no shape divides.
        let block: Vec<f32> = (0..65_521).map(|_| rng.random::<f32>() * 2.0 - 1.0).collect();
        let fill = |(at, &(_, len)): (usize, &(Value, usize))| -> Vec<f32> {
            block.iter().copied().cycle().skip(1 + 997 * at).take(len).collect()
        };
        Inputs(self.operands.iter().enumerate().map(fill).collect())
    }

    /// Loads it, with its operands.
    ///
    /// # Errors
    /// When the device has too little memory.
    pub fn load(&self, device: &DeviceHandle, inputs: &Inputs) -> Result<LoadedProgram> {
        let loaded = self.planned.clone().load(device)?;
        for ((value, _), data) in self.operands.iter().zip(&inputs.0) {
            loaded.write(*value, data)?;
        }
        Ok(loaded)
    }

    /// Runs it once and compares some results with double precision.
    ///
    /// # Errors
    /// When one is off by more than the rounding of its operands explains, or the device fails.
    pub fn check(&self, loaded: &LoadedProgram, inputs: &Inputs) -> Result<()> {
        loaded.executable().run()?;
        let got = loaded.read(self.result)?;
        // Spread over the whole result, with its first and its last element.
        let last = got.len() - 1;
        for i in (0..CHECKED).map(|i| (i as u128 * last as u128 / (CHECKED as u128 - 1)) as usize) {
            let (want, allowed) = self.expected(inputs, i);
            let fine = (f64::from(got[i]) - want).abs() <= allowed;
            if !fine {
                return Err(Error::new(format!(
                    "{}: element {i} is {}, but {want:.6} in double precision, and {allowed:.1e} is allowed",
                    self.describe(),
                    got[i]
                )));
            }
        }
        Ok(())
    }

    /// An element of the result in double precision, and how far from it a kernel may be. The roundings of operands are
    /// independent, so their effect grows with the root of the sum of squares: eight of those. Sums in fp32 lose at most
    /// some units of their largest partial sum.
    fn expected(&self, inputs: &Inputs, element: usize) -> (f64, f64) {
        let (mut sum, mut squares, mut magnitude) = (0.0, 0.0, 0.0);
        let mut add = |a: f32, b: f32| {
            let product = f64::from(a) * f64::from(b);
            sum += product;
            squares += product * product;
            magnitude += product.abs();
        };
        let ConvLayer { pass, inp, weight, stride, act, .. } = self.layer;
        let (out, k) = (self.layer.out(), weight.n);
        let [a, b] = [&inputs.0[0], &inputs.0[1]];
        let place = |s: Shape, i: usize| {
            let (c, i) = (i % s.c, i / s.c);
            let (w, i) = (i % s.w, i / s.w);
            let (h, i) = (i % s.h, i / s.h);
            [i / s.n, i % s.n, h, w, c]
        };
        let index = |s: Shape, [d, n, h, w, c]: [usize; 5]| (((d * s.n + n) * s.h + h) * s.w + w) * s.c + c;
        match pass {
            ConvPass::Forward => {
                let [d, n, oh, ow, co] = place(out, element);
                for (kh, kw, ci) in (0..k * k * inp.c).map(|i| (i / inp.c / k, i / inp.c % k, i % inp.c)) {
                    let x = a[index(inp, [d, n, oh * stride + kh, ow * stride + kw, ci])];
                    add(x, b[index(weight, [d, kh, kw, ci, co])]);
                }
            }
            ConvPass::Dgrad => {
                let [d, n, h, w, ci] = place(inp, element);
                let reached = |at: usize, tap: usize, outs: usize| {
                    let from = at.checked_sub(tap).filter(|from| from.is_multiple_of(stride))?;
                    Some(from / stride).filter(|o| *o < outs)
                };
                for (kh, kw) in (0..k * k).map(|i| (i / k, i % k)) {
                    let Some((oh, ow)) = reached(h, kh, out.h).zip(reached(w, kw, out.w)) else { continue };
                    for co in 0..out.c {
                        add(a[index(out, [d, n, oh, ow, co])], b[index(weight, [d, kh, kw, ci, co])]);
                    }
                }
            }
            ConvPass::Wgrad => {
                let [d, kh, kw, ci, co] = place(weight, element);
                for n in 0..inp.n {
                    for (oh, ow) in (0..out.pixels()).map(|i| (i / out.w, i % out.w)) {
                        let x = a[index(inp, [d, n, oh * stride + kh, ow * stride + kw, ci])];
                        add(x, b[index(out, [d, n, oh, ow, co])]);
                    }
                }
            }
        }
        if let (Some(bias), [d, .., co]) = (inputs.0.get(2), place(out, element)) {
            sum += f64::from(bias[d * out.c + co]);
        }
        let value = match act {
            Activation::None => sum,
            Activation::Relu => sum.max(0.0),
            Activation::LeakyRelu => sum.max(f64::from(0.2f32) * sum),
            Activation::Tanh => sum.tanh(),
        };
        let operands = 2.0 * self.variant.precision().rounding();
        (value, 8.0 * operands * squares.sqrt() + 2e-6 * magnitude + 1e-6)
    }
}
