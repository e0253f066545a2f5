//! Reverse-mode differentiation: the walk back over the tape. Each operation's rule is its own
//! `Operation::adjoint`.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::operation::{Backward, Gradients};
use super::record::Tape;
use super::value::Value;

/// Where a backward pass starts.
#[derive(Clone, Copy, Debug)]
pub enum Seed {
    /// Loss terms `[D, halves]`, each half with its weight in the total.
    Loss(Value, [f32; 2]),
    /// The upstream gradient of a value, in persistent memory.
    Upstream(Value, Value),
}

impl Tape {
    /// Appends the adjoints of everything between `seeds` and the parameters in `wrt` (each with the
    /// value its gradient goes to). What does not lead to one of them is left out: that is how fakes
    /// are detached in the discriminators' step.
    pub fn backward(&mut self, seeds: &[Seed], wrt: &[(Value, Value)]) -> Gradients {
        let mut needed: HashSet<Value> = wrt.iter().map(|w| w.0).collect();
        for op in &self.ops {
            let uses = op.uses();
            if uses.differentiable.iter().any(|v| needed.contains(v)) {
                needed.extend(uses.writes);
            }
        }
        let recorded = self.ops.len();
        let mut back = Backward {
            values: &mut self.values,
            ops: &mut self.ops,
            needed,
            grads: wrt.iter().copied().collect(),
            weights: HashMap::new(),
        };
        for seed in seeds {
            match *seed {
                Seed::Loss(terms, weights) => {
                    back.weights.insert(terms, weights);
                }
                Seed::Upstream(value, grad) => {
                    self.preset.insert(grad);
                    back.grads.insert(value, grad);
                }
            }
        }
        for i in (0..recorded).rev() {
            let op = Rc::clone(&back.ops[i]);
            op.adjoint(&mut back);
        }
        back.grads
    }
}
