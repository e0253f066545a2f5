//! A Wengert list over value handles: recording computes nothing, `backward` appends the adjoint
//! operations to the same list, [`plan()`] turns it into a [`crate::device::Program`].

mod grad;
mod grid;
mod loaded;
mod lower;
pub mod norm;
mod op;
pub mod plan;

pub use grad::{Gradients, Seed};
pub use loaded::LoadedProgram;
pub use lower::{ConvVariant, LowerOptions};
pub use norm::{NormVariant, Norms};
pub use op::{Activation, AdamHyper, Affine, LossKind, Op, Spectral};
pub use plan::{Planned, plan, plan_with};

use std::collections::HashSet;

use crate::tensor::{DType, Shape};

/// Handle of one tensor of a [`Tape`].
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

/// Persistent buffers of a run, laid out one after the other: weights, gradients, moments, inputs.
#[derive(Clone, Debug, Default)]
pub struct StateLayout {
    buffers: Vec<(String, u64, u64)>,
    bytes: u64,
}

impl StateLayout {
    /// Adds a buffer of so many bytes and returns its index.
    pub fn add(&mut self, name: impl Into<String>, bytes: u64) -> u32 {
        let offset = self.bytes;
        self.bytes = (offset + bytes).next_multiple_of(crate::device::BUFFER_ALIGN);
        self.buffers.push((name.into(), offset, bytes));
        (self.buffers.len() - 1) as u32
    }

    /// First byte of a view in the state allocation.
    pub fn offset(&self, view: StateView) -> u64 {
        self.buffers[view.buffer as usize].1 + view.offset
    }

    /// Name, offset and size of every buffer.
    pub fn buffers(&self) -> impl Iterator<Item = (&str, u64, u64)> {
        self.buffers.iter().map(|(n, o, b)| (n.as_str(), *o, *b))
    }

    /// Bytes of the allocation.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// A list of operations over values. See the module's documentation.
#[derive(Clone, Debug, Default)]
pub struct Tape {
    values: Vec<ValueInfo>,
    ops: Vec<Op>,
    scope: String,
    /// Upstream gradients that the host provides: the first write to one adds.
    preset: HashSet<Value>,
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
        &self.values[v.0 as usize]
    }

    /// A value's extents.
    pub fn shape(&self, v: Value) -> Shape {
        self.info(v).shape
    }

    /// The operations so far.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// Keeps the value's memory until the end of the run, for the host to read.
    pub fn keep(&mut self, v: Value) {
        self.values[v.0 as usize].kept = true;
    }

    /// A tensor in persistent memory.
    pub fn state(&mut self, name: impl Into<String>, shape: Shape, view: StateView) -> Value {
        self.push_value(name.into(), shape, DType::F32, Place::State(view))
    }

    fn push_value(&mut self, name: String, shape: Shape, dtype: DType, place: Place) -> Value {
        self.values.push(ValueInfo { name, shape, dtype, place, kept: false });
        Value((self.values.len() - 1) as u32)
    }

    fn temp(&mut self, name: &str, shape: Shape) -> Value {
        self.temp_of(name, shape, DType::F32)
    }

    fn temp_of(&mut self, name: &str, shape: Shape, dtype: DType) -> Value {
        let name = if self.scope.is_empty() { name.to_owned() } else { format!("{}.{name}", self.scope) };
        self.push_value(name, shape, dtype, Place::Arena)
    }

    /// Reflect padding by `pad` after nearest-neighbour up-sampling by `up`.
    ///
    /// # Panics
    /// When the padding is as wide as the image: reflection is not defined there.
    pub fn pad(&mut self, inp: Value, pad: usize, up: usize) -> Value {
        let s = self.shape(inp);
        assert!(pad < s.h * up && pad < s.w * up, "reflect padding {pad} of a {}x{} map", s.h * up, s.w * up);
        let name = format!("{}.padded", self.short_name(inp));
        let out = self.temp(&name, Shape { h: s.h * up + 2 * pad, w: s.w * up + 2 * pad, ..s });
        self.ops.push(Op::Pad { inp, out, pad, up });
        out
    }

    /// Valid convolution of `inp` with `weight [D, K, K, CI, CO]`, times 1/sigma, plus bias, through `act`.
    ///
    /// # Panics
    /// When channels or directions of input and weight differ, or the kernel is larger than the input.
    pub fn conv(
        &mut self,
        name: &str,
        inp: Value,
        weight: Value,
        bias: Option<Value>,
        spectral: Option<Spectral>,
        stride: usize,
        act: Activation,
    ) -> Value {
        let (s, w) = (self.shape(inp), self.shape(weight));
        assert!(s.c == w.w && s.d == w.d, "conv {name}: input {s}, weight {w}");
        assert!(s.h >= w.n && s.w >= w.n, "conv {name}: kernel {} over a {}x{} map", w.n, s.h, s.w);
        let shape = Shape { h: (s.h - w.n) / stride + 1, w: (s.w - w.n) / stride + 1, c: w.c, ..s };
        let out = self.temp(name, shape);
        self.ops.push(Op::Conv { inp, weight, bias, spectral, out, stride, act });
        out
    }

    /// Instance norm (no `affine`), AdaLIN or ILN, through `act`, plus `residual`.
    pub fn norm(
        &mut self,
        name: &str,
        inp: Value,
        affine: Option<Affine>,
        act: Activation,
        residual: Option<Value>,
    ) -> Value {
        let s = self.shape(inp);
        let out = self.temp(name, s);
        let stats = self.temp(&format!("{name}.stats"), Shape { h: 1, w: s.c, c: 2, ..s });
        let layer_stats =
            affine.map(|_| self.temp(&format!("{name}.layer_stats"), Shape { h: 1, w: 1, c: 2, ..s }));
        self.ops.push(Op::Norm { inp, affine, act, residual, out, stats, layer_stats });
        out
    }

    /// Global average pooling: `[D, N, 1, 1, C]`.
    pub fn average_pool(&mut self, name: &str, inp: Value) -> Value {
        let shape = Shape { h: 1, w: 1, ..self.shape(inp) };
        let average = self.temp(name, shape);
        self.ops.push(Op::Pool { inp, average, maximum: None });
        average
    }

    /// Global average and maximum pooling: two `[D, N, 1, 1, C]`.
    pub fn average_and_max_pool(&mut self, inp: Value) -> (Value, Value) {
        let shape = Shape { h: 1, w: 1, ..self.shape(inp) };
        let average = self.temp("gap", shape);
        let maximum = self.temp("gmp", shape);
        let argmax = self.temp_of("gmp.argmax", shape, DType::I32);
        self.ops.push(Op::Pool { inp, average, maximum: Some((maximum, argmax)) });
        (average, maximum)
    }

    /// The 1x1 weights `[D, 1, 1, 2C, C]` with both CAM rows `[D, 1, 1, 1, C]` folded in: `[D, 1, 1, C, C]`.
    pub fn cam_fold(&mut self, weight: Value, gap_w: Value, gmp_w: Value) -> Value {
        let s = self.shape(weight);
        let out = self.temp("cam.folded", Shape::new(s.d, 1, 1, s.c, s.c));
        self.ops.push(Op::CamFold { weight, gap_w, gmp_w, out });
        out
    }

    /// CAM logits `[D, N, 1, 1, 2]` of the pooled features.
    pub fn cam_logits(
        &mut self,
        gap: Value,
        gmp: Value,
        gap_w: Value,
        gmp_w: Value,
        spectral: Option<[Spectral; 2]>,
    ) -> Value {
        let out = self.temp("cam_logit", self.shape(gap).with_c(2));
        self.ops.push(Op::CamLogits { gap, gmp, gap_w, gmp_w, spectral, out });
        out
    }

    /// Sum over the channels: `[D, N, H, W, 1]`.
    pub fn heatmap(&mut self, inp: Value) -> Value {
        let out = self.temp("heatmap", self.shape(inp).with_c(1));
        self.ops.push(Op::Heatmap { inp, out });
        out
    }

    /// Linear layer without bias over the whole image, `weight [D, 1, 1, O, I]`: `[D, N, 1, 1, O]`.
    ///
    /// # Panics
    /// When the image has not I elements.
    pub fn linear(&mut self, name: &str, inp: Value, weight: Value, act: Activation) -> Value {
        let (s, w) = (self.shape(inp), self.shape(weight));
        assert_eq!(s.image_len(), w.c, "linear {name}: input {s}, weight {w}");
        let out = self.temp(name, Shape { h: 1, w: 1, c: w.w, ..s });
        self.ops.push(Op::Linear { inp, weight, out, act });
        out
    }

    /// An activation on its own.
    pub fn activation(&mut self, name: &str, inp: Value, act: Activation) -> Value {
        let out = self.temp(name, self.shape(inp));
        self.ops.push(Op::Activation { inp, out, act });
        out
    }

    /// A batch put together from images of other batches: for each part, `count` images of every
    /// direction of `inp` from image `first` on; with `swap` direction d takes direction D - 1 - d.
    pub fn gather(&mut self, name: &str, parts: &[(Value, usize, usize, bool)]) -> Value {
        let s = self.shape(parts[0].0);
        let out = self.temp(name, Shape { n: parts.iter().map(|p| p.2).sum(), ..s });
        let mut at = 0;
        for &(inp, inp_first, count, swap) in parts {
            self.ops.push(Op::CopyImages { inp, inp_first, out, out_first: at, count, swap, add: false });
            at += count;
        }
        out
    }

    /// Loss terms `[D, halves, 1, 1, 1]`: the mean of each direction's and half batch's elements,
    /// against a target tensor or the half's constant.
    pub fn loss(&mut self, kind: LossKind, inp: Value, target: Option<Value>, targets: &[f32], terms: Value) {
        let halves = targets.len();
        assert!(halves == 1 || halves == 2, "a loss has one or two halves");
        assert_eq!(
            self.shape(inp).n % halves,
            0,
            "a loss over {} images in {halves} halves",
            self.shape(inp).n
        );
        assert_eq!(self.shape(terms).len(), self.shape(inp).d * halves);
        let targets = [targets[0], targets[halves - 1]];
        self.ops.push(Op::Loss { kind, inp, target, targets, halves, terms });
    }

    /// A tensor `[D, halves]` of loss terms in the arena.
    pub fn terms(&mut self, name: &str, d: usize, halves: usize) -> Value {
        self.temp(name, Shape::new(d, halves, 1, 1, 1))
    }

    /// `passes` power iterations one after the other on a weight's persistent `u [D, CO]` and `v [D, K]`;
    /// returns 1/sigma, u and v of every pass.
    pub fn power_iterations(&mut self, weight: Value, u: Value, v: Value, passes: usize) -> Spectral {
        let (w, rows) = (self.shape(weight), self.shape(u).c);
        let name = self.info(weight).name.clone();
        let spectral = Spectral {
            inv_sigma: self.temp(&format!("{name}.inv_sigma"), Shape::new(w.d, passes, 1, 1, 1)),
            pass_u: self.temp(&format!("{name}.pass_u"), Shape::new(w.d, passes, 1, 1, rows)),
            pass_v: self.temp(&format!("{name}.pass_v"), Shape::new(w.d, passes, 1, 1, self.shape(v).c)),
        };
        for pass in 0..passes {
            self.ops.push(Op::PowerIteration { weight, u, v, spectral, pass });
        }
        spectral
    }

    /// One Adam step over a whole group of parameters; `schedule` as in `adam.cu`.
    pub fn adam(&mut self, p: Value, m: Value, v: Value, g: Value, schedule: Value, hyper: AdamHyper) {
        self.ops.push(Op::Adam { p, m, v, g, schedule, hyper });
    }

    /// Clamps `rho` to `[0, high]`.
    pub fn clip_rho(&mut self, rho: Value, high: f32) {
        self.ops.push(Op::ClipRho { rho, high });
    }

    fn short_name(&self, v: Value) -> String {
        let name = &self.info(v).name;
        name.strip_prefix(&format!("{}.", self.scope)).unwrap_or(name).to_owned()
    }
}
