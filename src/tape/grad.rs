//! Reverse-mode differentiation: one rule an operation, each appending adjoint operations to the tape.

use std::collections::{HashMap, HashSet};

use super::{Activation, Affine, Op, Place, Tape, Value};
use crate::tensor::DType;

/// Where a backward pass starts.
#[derive(Clone, Copy, Debug)]
pub enum Seed {
    /// Loss terms `[D, halves]`, each half with its weight in the total.
    Loss(Value, [f32; 2]),
    /// The upstream gradient of a value, in persistent memory.
    Upstream(Value, Value),
}

/// Gradients of the values a backward pass reached.
pub type Gradients = HashMap<Value, Value>;

struct Backward<'t> {
    tape: &'t mut Tape,
    needed: HashSet<Value>,
    grads: Gradients,
}

impl Tape {
    /// Appends the adjoints of everything between `seeds` and the parameters in `wrt` (each with the
    /// value its gradient goes to). What does not lead to one of them is left out: that is how fakes
    /// are detached in the discriminators' step.
    pub fn backward(&mut self, seeds: &[Seed], wrt: &[(Value, Value)]) -> Gradients {
        let mut needed: HashSet<Value> = wrt.iter().map(|w| w.0).collect();
        for op in &self.ops {
            if let Some((reads, writes)) = differentiable(op)
                && reads.iter().any(|v| needed.contains(v))
            {
                needed.extend(writes);
            }
        }
        let recorded = self.ops.len();
        let mut b = Backward { tape: self, needed, grads: wrt.iter().copied().collect() };
        // The parameters' own gradients are in the map from the start; whether anything was written to
        // them yet is the planner's to know, by the order of the operations.
        let mut weights: HashMap<Value, [f32; 2]> = HashMap::new();
        for seed in seeds {
            match *seed {
                Seed::Loss(terms, w) => {
                    weights.insert(terms, w);
                }
                Seed::Upstream(value, grad) => {
                    b.tape.preset.insert(grad);
                    b.grads.insert(value, grad);
                }
            }
        }
        for i in (0..recorded).rev() {
            let op = b.tape.ops[i].clone();
            b.adjoint(&op, &weights);
        }
        b.grads
    }
}

/// Inputs a gradient can flow to and outputs it can come from; None for what has no derivative.
fn differentiable(op: &Op) -> Option<(Vec<Value>, Vec<Value>)> {
    match op {
        Op::Pad { .. }
        | Op::CopyImages { add: false, .. }
        | Op::Norm { .. }
        | Op::Pool { .. }
        | Op::CamFold { .. }
        | Op::CamLogits { .. }
        | Op::Heatmap { .. }
        | Op::Linear { .. }
        | Op::Activation { .. }
        | Op::Loss { .. } => Some(op.reads_writes()),
        // 1/sigma is no input of its own: its derivative is the rank-1 term of the weight's gradient.
        Op::Conv { inp, weight, bias, out, .. } => {
            Some(([*inp, *weight].into_iter().chain(*bias).collect(), vec![*out]))
        }
        _ => None,
    }
}

impl Backward<'_> {
    /// The value that collects the gradient of `v`, made on first use; None where nobody asks for it.
    fn collect(&mut self, v: Value) -> Option<Value> {
        if !self.needed.contains(&v) {
            return None;
        }
        if let Some(&g) = self.grads.get(&v) {
            return Some(g);
        }
        let g = self.temp_like(v, "d");
        self.grads.insert(v, g);
        Some(g)
    }

    fn temp_like(&mut self, v: Value, prefix: &str) -> Value {
        let info = self.tape.info(v);
        let (name, shape) = (format!("{prefix}({})", info.name), info.shape);
        self.tape.push_value(name, shape, DType::F32, Place::Arena)
    }

    /// The gradient before the activation, from the one after it.
    fn before_activation(&mut self, dout: Value, out: Value, act: Activation) -> Value {
        if act == Activation::None {
            return dout;
        }
        let dinp = self.temp_like(out, "dpre");
        self.tape.ops.push(Op::ActivationGrad { dout, out, dinp, act });
        dinp
    }

    fn adjoint(&mut self, op: &Op, weights: &HashMap<Value, [f32; 2]>) {
        match *op {
            Op::Pad { inp, out, pad, up } => {
                let Some(&dout) = self.grads.get(&out) else { return };
                if let Some(dinp) = self.collect(inp) {
                    self.tape.ops.push(Op::PadGrad { dout, dinp, pad, up });
                }
            }
            Op::CopyImages { inp, inp_first, out, out_first, count, swap, add: false } => {
                let Some(&dout) = self.grads.get(&out) else { return };
                if let Some(dinp) = self.collect(inp) {
                    self.tape.ops.push(Op::CopyImages {
                        inp: dout,
                        inp_first: out_first,
                        out: dinp,
                        out_first: inp_first,
                        count,
                        swap,
                        add: true,
                    });
                }
            }
            Op::Conv { inp, weight, bias, spectral, out, stride, act } => {
                let Some(&dout) = self.grads.get(&out) else { return };
                let dpre = self.before_activation(dout, out, act);
                if let Some(dinp) = self.collect(inp) {
                    self.tape.ops.push(Op::ConvInputGrad { dpre, weight, spectral, dinp, stride });
                }
                if let Some(dweight) = self.collect(weight) {
                    self.tape.ops.push(Op::ConvWeightGrad {
                        dpre,
                        inp,
                        dweight,
                        stride,
                        spectral,
                        out,
                        bias,
                        act,
                    });
                }
                if let Some(bias) = bias
                    && let Some(dbias) = self.collect(bias)
                {
                    self.tape.ops.push(Op::BiasGrad { dpre, dbias });
                }
            }
            Op::Norm { inp, affine, act, residual, out, stats, layer_stats } => {
                let Some(&dout) = self.grads.get(&out) else { return };
                // gamma, beta and rho lead to the network's parameters whenever the input does.
                let daffine = affine.map(|a| Affine {
                    rho: self.always(a.rho),
                    gamma: self.always(a.gamma),
                    beta: self.always(a.beta),
                });
                let dinp = self.always(inp);
                self.tape.ops.push(Op::NormGrad {
                    dout,
                    inp,
                    stats,
                    layer_stats,
                    affine,
                    daffine,
                    act,
                    dinp,
                });
                let Some(residual) = residual.filter(|r| self.needed.contains(r)) else { return };
                if let Some(&g) = self.grads.get(&residual) {
                    let count = self.tape.shape(residual).n;
                    self.tape.ops.push(Op::CopyImages {
                        inp: dout,
                        inp_first: 0,
                        out: g,
                        out_first: 0,
                        count,
                        swap: false,
                        add: true,
                    });
                } else {
                    // The sum passes its gradient on unchanged, and nobody reads dout after this
                    // operation: the residual's gradient goes on in the same memory.
                    self.grads.insert(residual, dout);
                }
            }
            Op::Pool { inp, average, maximum } => {
                let Some(&daverage) = self.grads.get(&average) else { return };
                let dmaximum = maximum.and_then(|(m, at)| self.grads.get(&m).map(|&dm| (dm, at)));
                if let Some(dinp) = self.collect(inp) {
                    self.tape.ops.push(Op::PoolGrad { daverage, dmaximum, dinp });
                }
            }
            Op::CamFold { weight, gap_w, gmp_w, out } => {
                let Some(&dfolded) = self.grads.get(&out) else { return };
                let (dweight, dgap_w, dgmp_w) = (self.always(weight), self.always(gap_w), self.always(gmp_w));
                self.tape.ops.push(Op::CamFoldGrad {
                    dfolded,
                    weight,
                    gap_w,
                    gmp_w,
                    dweight,
                    dgap_w,
                    dgmp_w,
                });
            }
            Op::CamLogits { gap, gmp, gap_w, gmp_w, spectral, out } => {
                let Some(&dlogits) = self.grads.get(&out) else { return };
                if let (Some(dgap), Some(dgmp)) = (self.collect(gap), self.collect(gmp)) {
                    self.tape.ops.push(Op::CamLogitsPoolGrad { dlogits, gap_w, gmp_w, spectral, dgap, dgmp });
                }
                for (which, (pooled, weight)) in [(gap, gap_w), (gmp, gmp_w)].into_iter().enumerate() {
                    if let Some(dweight) = self.collect(weight) {
                        self.tape.ops.push(Op::CamLogitsWeightGrad {
                            dlogits,
                            logits: out,
                            pooled,
                            spectral: spectral.map(|s| s[which]),
                            which,
                            dweight,
                        });
                    }
                }
            }
            Op::Linear { inp, weight, out, act } => {
                let Some(&dout) = self.grads.get(&out) else { return };
                let dpre = self.before_activation(dout, out, act);
                if let Some(dinp) = self.collect(inp) {
                    self.tape.ops.push(Op::LinearInputGrad { dpre, weight, dinp });
                }
                if let Some(dweight) = self.collect(weight) {
                    self.tape.ops.push(Op::LinearWeightGrad { dpre, inp, dweight });
                }
            }
            Op::Activation { inp, out, act } => {
                let Some(&dout) = self.grads.get(&out) else { return };
                if let Some(dinp) = self.collect(inp) {
                    self.tape.ops.push(Op::ActivationGrad { dout, out, dinp, act });
                }
            }
            Op::Loss { kind, inp, target, targets, halves, terms } => {
                let Some(&w) = weights.get(&terms) else { return };
                if let Some(dinp) = self.collect(inp) {
                    self.tape.ops.push(Op::LossGrad { kind, inp, target, targets, halves, weights: w, dinp });
                }
            }
            // The heatmap is for people (no loss on it), the rest has no derivative or is an adjoint.
            _ => {}
        }
    }

    /// As [`Self::collect`], for the operations whose kernel writes all its gradients together.
    fn always(&mut self, v: Value) -> Value {
        self.needed.insert(v);
        self.collect(v).expect("a needed value has a gradient")
    }
}
