//! From operations to kernel launches: the context in which an operation makes its own.
//!
//! Nothing here depends on which device will run the program, but on its target only, so what the emulator checks is
//! what that GPU runs, launch for launch.

use std::any::Any;
use std::collections::{HashMap, HashSet};

use super::grid::{int, over};
use super::value::{Place, StateLayout, Value, ValueInfo, Values};
use super::variant::LowerOptions;
use crate::device::{Buffer, BufferRef, Launch, Space};
use crate::kernels::arg::{In, InOut, Out, Write};
use crate::kernels::{args, entry};
use crate::tensor::Shape;
use crate::{Error, Result};

/// The launches of a program and the buffers they name, as far as they are made.
pub(super) struct Lowering<'t> {
    /// Choices of kernel variants.
    pub options: LowerOptions,
    pub buffers: Vec<Buffer>,
    pub launches: Vec<Launch>,
    pub value_buffer: HashMap<Value, u32>,
    values: &'t Values,
    layout: &'t StateLayout,
    /// Gradients something was written to already: the next write adds.
    written: HashSet<Value>,
    /// What the launches of a forward operation leave for those of its adjoint.
    left: HashMap<Value, Box<dyn Any>>,
    label: String,
    /// Zeroed counters that split sums take in turns, once one needs them.
    tile_counters: Option<BufferRef>,
}

impl<'t> Lowering<'t> {
    /// Nothing yet. The gradients in `written` hold something before the first launch.
    pub fn new(
        values: &'t Values,
        layout: &'t StateLayout,
        written: HashSet<Value>,
        options: LowerOptions,
    ) -> Self {
        Self {
            options,
            buffers: Vec::new(),
            launches: Vec::new(),
            value_buffer: HashMap::new(),
            values,
            layout,
            written,
            left: HashMap::new(),
            label: String::new(),
            tile_counters: None,
        }
    }

    /// Says what the launches that follow do, and to which value.
    pub fn label(&mut self, what: &str, v: Value) {
        self.label = format!("{what} {}", self.values.info(v).name);
    }

    /// Appends a launch under the label.
    pub fn launch(&mut self, launch: Launch) {
        self.launches.push(launch.label(&self.label));
    }

    /// An error in what the label says.
    pub fn error(&self, what: &str) -> Error {
        Error::new(format!("{}: {what}", self.label))
    }

    pub fn info(&self, v: Value) -> &'t ValueInfo {
        self.values.info(v)
    }

    pub fn shape(&self, v: Value) -> Shape {
        self.values.shape(v)
    }

    fn buffer_of(&mut self, v: Value) -> u32 {
        if let Some(&b) = self.value_buffer.get(&v) {
            return b;
        }
        let info = self.values.info(v);
        let (space, offset) = match info.place {
            Place::Arena => (Space::Arena, 0),
            Place::State(view) => (Space::State, self.layout.offset(view)),
        };
        let bytes = info.shape.len() as u64 * info.dtype.bytes();
        self.buffers.push(Buffer { name: info.name.clone(), space, offset, bytes });
        let b = (self.buffers.len() - 1) as u32;
        self.value_buffer.insert(v, b);
        b
    }

    /// The whole of a value's memory.
    pub fn buffer(&mut self, v: Value) -> BufferRef {
        self.buffer_from(v, 0)
    }

    /// The value from element `first` to its end.
    pub fn buffer_from(&mut self, v: Value, first: usize) -> BufferRef {
        let buffer = self.buffer_of(v);
        let offset = first as u64 * self.values.info(v).dtype.bytes();
        BufferRef { buffer, offset, bytes: self.buffers[buffer as usize].bytes - offset }
    }

    pub fn input(&mut self, v: Value) -> In {
        In(self.buffer(v))
    }

    pub fn output(&mut self, v: Value) -> Out {
        Out(self.buffer(v))
    }

    pub fn update(&mut self, v: Value) -> InOut {
        InOut(self.buffer(v))
    }

    /// A write to a gradient: the first one stores, every later one adds.
    pub fn gradient(&mut self, v: Value) -> Write {
        self.gradient_from(v, 0)
    }

    /// A write to a gradient from element `first` on.
    pub fn gradient_from(&mut self, v: Value, first: usize) -> Write {
        let to = self.buffer_from(v, first);
        if self.written.insert(v) { Write::Store(to) } else { Write::Add(to) }
    }

    /// Whether something was written to a gradient already.
    pub fn is_written(&self, v: Value) -> bool {
        self.written.contains(&v)
    }

    /// A gradient that a kernel only stores to.
    ///
    /// # Errors
    /// When it was written before.
    pub fn only_write(&mut self, v: Value) -> Result<Out> {
        match self.gradient(v) {
            Write::Store(to) => Ok(Out(to)),
            Write::Add(_) => Err(self.error(&format!("{} is written twice", self.info(v).name))),
        }
    }

    /// Memory for floats between launches; undefined until the first that names it.
    pub fn scratch(&mut self, name: &str, floats: usize) -> BufferRef {
        self.scratch_bytes(name, floats as u64 * 4)
    }

    /// Memory between launches.
    pub fn scratch_bytes(&mut self, name: &str, bytes: u64) -> BufferRef {
        let name = format!("{name} of {}", self.label);
        self.buffers.push(Buffer { name, space: Space::Arena, offset: 0, bytes });
        BufferRef { buffer: (self.buffers.len() - 1) as u32, offset: 0, bytes }
    }

    /// Counters for so many tiles whose sum several blocks share; 0 before and after every launch, so launches have the
    /// same ones in turns.
    ///
    /// # Errors
    /// When they cannot be zeroed.
    pub fn tile_counters(&mut self, tiles: usize) -> Result<BufferRef> {
        if let Some(counters) = self.tile_counters.filter(|counters| counters.bytes >= tiles as u64 * 4) {
            return Ok(counters);
        }
        let counters = self.zeroed_counters(tiles)?;
        self.tile_counters = Some(counters);
        Ok(counters)
    }

    /// So many zeroed 32-bit counters.
    ///
    /// # Errors
    /// When they cannot be zeroed.
    pub fn zeroed_counters(&mut self, count: usize) -> Result<BufferRef> {
        let counters = self.scratch_bytes("counters", count as u64 * 4);
        let args = args::AdalinElementaryZero { counter: Out(counters), n: int(count) };
        self.launch(over(Launch::new(entry::ADALIN_ELEMENTARY_ZERO_U32, args)?, count));
        Ok(counters)
    }

    /// Leaves something, under one of a forward operation's values, for the launches of its adjoint.
    pub fn leave<T: Any>(&mut self, under: Value, what: T) {
        self.left.insert(under, Box::new(what));
    }

    /// What the forward operation left.
    ///
    /// # Errors
    /// When it left nothing of the kind.
    pub fn left<T: Any + Clone>(&self, under: Value) -> Result<T> {
        let found = self.left.get(&under).and_then(|left| left.downcast_ref::<T>());
        found.cloned().ok_or_else(|| self.error("no forward pass"))
    }
}
