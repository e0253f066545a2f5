//! The tape: a list of operations over values. Recording computes nothing.

use std::collections::HashSet;
use std::rc::Rc;

use super::operation::{Operation, Operations};
use super::value::{Place, StateView, Value, ValueInfo, Values};
use crate::tensor::{DType, Shape};

/// A list of operations over values; each kind of operation has its recorder beside it, in `ops`.
#[derive(Clone, Debug, Default)]
pub struct Tape {
    pub(super) values: Values,
    pub(super) ops: Operations,
    scope: String,
    /// Upstream gradients that the host provides: the first write to one adds.
    pub(super) preset: HashSet<Value>,
}

impl Tape {
    /// An empty tape.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names recorded from here on begin with `scope` and a dot.
    pub fn set_scope(&mut self, scope: impl Into<String>) {
        self.scope = scope.into();
    }

    /// What is known of a value.
    pub fn info(&self, v: Value) -> &ValueInfo {
        self.values.info(v)
    }

    /// A value's extents.
    pub fn shape(&self, v: Value) -> Shape {
        self.values.shape(v)
    }

    /// Keeps the value's memory until the end of the run, for the host to read.
    pub fn keep(&mut self, v: Value) {
        self.values.keep(v);
    }

    /// A tensor in persistent memory.
    pub fn state(&mut self, name: impl Into<String>, shape: Shape, view: StateView) -> Value {
        self.values.push(name.into(), shape, DType::F32, Place::State(view))
    }

    /// Appends an operation.
    pub(super) fn push(&mut self, op: impl Operation) {
        self.ops.push(Rc::new(op));
    }

    /// A tensor of floats in the arena.
    pub(super) fn temp(&mut self, name: &str, shape: Shape) -> Value {
        self.temp_of(name, shape, DType::F32)
    }

    /// A tensor in the arena.
    pub(super) fn temp_of(&mut self, name: &str, shape: Shape, dtype: DType) -> Value {
        let name = if self.scope.is_empty() { name.to_owned() } else { format!("{}.{name}", self.scope) };
        self.values.push(name, shape, dtype, Place::Arena)
    }

    /// A value's name without the scope.
    pub(super) fn short_name(&self, v: Value) -> String {
        let name = &self.info(v).name;
        name.strip_prefix(&format!("{}.", self.scope)).unwrap_or(name).to_owned()
    }
}
