//! Values of a tape, and where persistent ones lie.

use crate::tensor::{DType, Shape};

/// Handle of one tensor of a [`Tape`](super::Tape).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(u32);

/// A range of a persistent buffer, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateView {
    /// Index of the buffer in the [`StateLayout`].
    pub buffer: u32,
    /// First byte within the buffer.
    pub offset: u64,
}

/// Where a value lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the arena, where the planner puts it.
    Arena,
    /// In persistent memory.
    State(StateView),
}

/// What the tape knows of a value.
#[derive(Clone, Debug)]
pub struct ValueInfo {
    /// For people.
    pub name: String,
    /// Its extents.
    pub shape: Shape,
    /// Its element type.
    pub dtype: DType,
    /// Where it lives.
    pub place: Place,
    /// Whether the host reads it after a run, so that its memory must not be reused.
    pub kept: bool,
}

/// All values of a tape.
#[derive(Clone, Debug, Default)]
pub(super) struct Values(Vec<ValueInfo>);

impl Values {
    pub fn push(&mut self, name: String, shape: Shape, dtype: DType, place: Place) -> Value {
        self.0.push(ValueInfo { name, shape, dtype, place, kept: false });
        Value((self.0.len() - 1) as u32)
    }

    pub fn info(&self, v: Value) -> &ValueInfo {
        &self.0[v.0 as usize]
    }

    pub fn shape(&self, v: Value) -> Shape {
        self.info(v).shape
    }

    pub fn keep(&mut self, v: Value) {
        self.0[v.0 as usize].kept = true;
    }

    /// Whether it outlives the run: in persistent memory, or kept for the host.
    pub fn outlives(&self, v: Value) -> bool {
        let info = self.info(v);
        info.kept || matches!(info.place, Place::State(_))
    }
}

/// What a persistent buffer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BufferRole {
    /// Trained parameters.
    Weights,
    /// The vectors u and v of spectral normalisation.
    Spectral,
    /// Gradients of the weights.
    Gradients,
    /// One of Adam's two moments of the weights.
    Moments,
    /// Images that the host writes before a run.
    Images,
    /// What the host writes before each step: learning rate and bias correction.
    Schedule,
    /// What a step leaves of its losses.
    LossTerms,
    /// An input or a result of single operations, outside of any network.
    Operand,
}

impl BufferRole {
    /// Whether kernels may read of it what nobody has written: moments before the first step, and the gaps between
    /// tensors. All else is written by the host or a launch before it is read.
    pub fn starts_at_zero(self) -> bool {
        match self {
            Self::Weights | Self::Spectral | Self::Gradients | Self::Moments => true,
            Self::Images | Self::Schedule | Self::LossTerms | Self::Operand => false,
        }
    }
}

/// One persistent buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateBuffer {
    /// For people.
    pub name: String,
    /// What it is for.
    pub role: BufferRole,
    /// Its first byte in the state allocation.
    pub offset: u64,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Persistent buffers of a run, laid out one after the other: weights, gradients, moments, inputs.
#[derive(Clone, Debug, Default)]
pub struct StateLayout {
    buffers: Vec<StateBuffer>,
    bytes: u64,
}

impl StateLayout {
    /// Adds a buffer of so many bytes and returns its index.
    pub fn add(&mut self, role: BufferRole, name: impl Into<String>, bytes: u64) -> u32 {
        let offset = self.bytes;
        self.bytes = (offset + bytes).next_multiple_of(crate::device::BUFFER_ALIGN);
        self.buffers.push(StateBuffer { name: name.into(), role, offset, bytes });
        (self.buffers.len() - 1) as u32
    }

    /// First byte of a view in the state allocation.
    pub fn offset(&self, view: StateView) -> u64 {
        self.buffers[view.buffer as usize].offset + view.offset
    }

    /// Every buffer, in order.
    pub fn buffers(&self) -> &[StateBuffer] {
        &self.buffers
    }

    /// Bytes of all buffers of a role, without the gaps of alignment between buffers.
    pub fn bytes_of(&self, role: BufferRole) -> u64 {
        self.buffers.iter().filter(|b| b.role == role).map(|b| b.bytes).sum()
    }

    /// Bytes of the allocation.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}
