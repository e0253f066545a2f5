//! What an operation is to the tape: what it reads and writes, its derivative, its launches.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::rc::Rc;

use super::lowering::Lowering;
use super::value::{Place, Value, Values};
use crate::Result;
use crate::tensor::DType;

/// The values that an operation reads and writes. One that it adds to or updates in place is written; it is read
/// too where something must have written it before.
#[derive(Debug, Default)]
pub(super) struct Uses {
    pub reads: Vec<Value>,
    pub writes: Vec<Value>,
    /// Those of `reads` with respect to which the operation has a derivative.
    pub differentiable: Vec<Value>,
}

impl Uses {
    /// These are read.
    pub fn reads(values: impl IntoIterator<Item = Value>) -> Self {
        Self::default().also(values)
    }

    /// These are read too.
    pub fn also(mut self, values: impl IntoIterator<Item = Value>) -> Self {
        self.reads.extend(values);
        self
    }

    /// The operation has a derivative with respect to all that are read so far.
    pub fn differentiable(self) -> Self {
        Self { differentiable: self.reads.clone(), ..self }
    }

    /// These are written.
    pub fn writes(mut self, values: impl IntoIterator<Item = Value>) -> Self {
        self.writes.extend(values);
        self
    }
}

/// One kind of operation, forward or adjoint. Each is a plain struct in its own file of `ops`, see there.
pub(super) trait Operation: fmt::Debug + Any {
    /// The values it reads and writes, and those it can be differentiated by.
    fn uses(&self) -> Uses;

    /// Appends the operations that carry the gradient of its outputs to its inputs.
    fn adjoint(&self, _back: &mut Backward) {
        assert!(self.uses().differentiable.is_empty(), "{self:?} has no adjoint");
    }

    /// Makes its launches.
    fn lower(&self, to: &mut Lowering) -> Result<()>;
}

impl dyn Operation {
    /// The operation as one of kind `T`, if it is: for rewrites, which look for kinds.
    pub fn kind<T: Operation>(&self) -> Option<&T> {
        (self as &dyn Any).downcast_ref()
    }
}

/// Operations in the order of their recording.
pub(super) type Operations = Vec<Rc<dyn Operation>>;

/// Gradients of the values a backward pass reached.
pub type Gradients = HashMap<Value, Value>;

/// A backward pass under way, as an operation's adjoint sees it.
pub(super) struct Backward<'t> {
    pub(super) values: &'t mut Values,
    pub(super) ops: &'t mut Operations,
    /// Values whose gradient leads to one that is asked for.
    pub(super) needed: HashSet<Value>,
    /// The parameters' own gradients are there from the start; whether anything was written to them yet is
    /// the planner's to know, by the order of the operations.
    pub(super) grads: Gradients,
    /// Losses in the total: the weights of their halves.
    pub(super) weights: HashMap<Value, [f32; 2]>,
}

impl Backward<'_> {
    /// Appends an operation.
    pub fn push(&mut self, op: impl Operation) {
        self.ops.push(Rc::new(op));
    }

    /// The gradient of a value, where something of it has arrived.
    pub fn arrived(&self, v: Value) -> Option<Value> {
        self.grads.get(&v).copied()
    }

    /// The weights that a loss's terms have in the total.
    pub fn weights(&self, terms: Value) -> Option<[f32; 2]> {
        self.weights.get(&terms).copied()
    }

    /// Whether somebody asks for the gradient of a value.
    pub fn needs(&self, v: Value) -> bool {
        self.needed.contains(&v)
    }

    /// The value that collects the gradient of `v`, made on first use; None where nobody asks for it.
    pub fn collect(&mut self, v: Value) -> Option<Value> {
        if !self.needs(v) {
            return None;
        }
        if let Some(g) = self.arrived(v) {
            return Some(g);
        }
        let g = self.temp_like(v, "d");
        self.grads.insert(v, g);
        Some(g)
    }

    /// As [`Self::collect`], for the operations whose kernel writes all its gradients together.
    pub fn always(&mut self, v: Value) -> Value {
        self.needed.insert(v);
        self.collect(v).expect("a needed value has a gradient")
    }

    /// The gradient of an operation's output, and the value that collects the gradient of its input: None
    /// where nothing flows from one to the other.
    pub fn flow(&mut self, out: Value, inp: Value) -> Option<(Value, Value)> {
        let dout = self.arrived(out)?;
        Some((dout, self.collect(inp)?))
    }

    /// Lets a value's gradient be that of another one, in the same memory.
    pub fn share(&mut self, v: Value, gradient: Value) {
        self.grads.insert(v, gradient);
    }

    /// A new gradient of the shape of `v`.
    pub fn temp_like(&mut self, v: Value, prefix: &str) -> Value {
        let info = self.values.info(v);
        let (name, shape) = (format!("{prefix}({})", info.name), info.shape);
        self.values.push(name, shape, DType::F32, Place::Arena)
    }

    /// Images of a batch.
    pub fn images(&self, v: Value) -> usize {
        self.values.shape(v).n
    }
}
