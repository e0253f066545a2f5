//! One case of the benchmark: a layer, a variant and an element type, as programs a device runs.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use half::{bf16, f16};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::reference::Outputs;
use crate::device::executable::{DeviceHandle, Executable, State};
use crate::device::{BUFFER_ALIGN, Buffer, BufferRef, Launch, Program, Space};
use crate::kernels::arg::Write;
use crate::tape::{Activation, NormVariant, norm, plan};
use crate::tensor::{DType, Shape};
use crate::{Error, Result};

/// A member of the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// AdaLIN: gamma and beta of each image, from the network.
    AdaLin,
    /// ILN: its own gamma and beta.
    Iln,
    /// Instance norm without parameters.
    Instance,
}

impl Kind {
    /// Its name, as options take it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::AdaLin => "adalin",
            Kind::Iln => "iln",
            Kind::Instance => "in",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Kind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Kind::AdaLin, Kind::Iln, Kind::Instance]
            .into_iter()
            .find(|k| k.name() == text)
            .ok_or_else(|| Error::new(format!("unknown kind '{text}'")).hint("kinds are adalin, iln, in"))
    }
}

/// What an element type is called.
pub fn dtype_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "f32",
        DType::F16 => "f16",
        DType::Bf16 => "bf16",
        DType::I32 => "i32",
    }
}

/// A layer in one variant and one element type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Case {
    /// Which norm.
    pub kind: Kind,
    /// Which kernels.
    pub variant: NormVariant,
    /// Of input, output and their gradients.
    pub dtype: DType,
    /// Of the input.
    pub shape: Shape,
    /// Behind the norm.
    pub act: Activation,
    /// Whether a residual is added.
    pub residual: bool,
    /// Padding and up-sampling of the output; [`NormVariant::Network`] only.
    pub padded: Option<(usize, usize)>,
}

impl Case {
    /// A norm and nothing else.
    pub fn new(kind: Kind, variant: NormVariant, dtype: DType, shape: Shape) -> Self {
        Self { kind, variant, dtype, shape, act: Activation::None, residual: false, padded: None }
    }

    /// Images for each row of gamma and beta.
    pub fn images_per_affine(&self) -> usize {
        if self.kind == Kind::Iln { self.shape.n } else { 1 }
    }

    /// The activation's slope below 0.
    pub fn negative_slope(&self) -> f64 {
        match self.act {
            Activation::Relu => 0.0,
            Activation::LeakyRelu => f64::from(0.2f32),
            _ => 1.0,
        }
    }

    /// In words.
    pub fn describe(&self) -> String {
        let s = self.shape;
        let (kind, variant, dtype) = (self.kind, self.variant, dtype_name(self.dtype));
        format!("{kind} {variant} {dtype} {}x{}x{}x{}", s.images(), s.h, s.w, s.c)
    }

    /// Elements of the output, padded or not.
    pub fn output_len(&self) -> usize {
        let s = self.shape;
        let (pad, up) = self.padded.unwrap_or((0, 1));
        s.images() * (s.h * up + 2 * pad) * (s.w * up + 2 * pad) * s.c
    }

    /// Fewest bytes the forward pass can move between memory and chip: the input in, the output out,
    /// the residual in.
    pub fn least_forward(&self) -> u64 {
        let reads = self.shape.len() * if self.residual { 2 } else { 1 };
        (reads + self.output_len()) as u64 * self.dtype.bytes()
    }

    /// Fewest bytes of the backward pass: output gradient and input in, input gradient out.
    pub fn least_backward(&self) -> u64 {
        3 * self.shape.len() as u64 * self.dtype.bytes()
    }

    /// Makes the launches and lays out their memory.
    ///
    /// # Errors
    /// When the variant cannot do it; see [`norm::forward`].
    pub fn build(&self) -> Result<Built> {
        let (s, affine) = (self.shape, self.kind != Kind::Instance);
        if s.is_empty() || s.pixels() < 2 {
            return Err(Error::new(format!("{}: a norm needs two pixels or more", self.describe())));
        }
        if s.len() > i32::MAX as usize {
            return Err(Error::new(format!("{}: more than 2147483647 elements", self.describe())));
        }
        let mut b = Builder { built: Built::new(*self), label: self.describe() };
        let wide = self.dtype.bytes();
        let tensor = s.len() as u64 * wide;
        let (rows, per) = (s.images() / self.images_per_affine(), s.c as u64 * 4);
        let x = b.state("x", tensor);
        let dy = b.state("dy", tensor);
        let residual = self.residual.then(|| b.state("residual", tensor));
        let params = affine.then(|| norm::Params {
            rho: b.state("rho", s.d as u64 * per),
            gamma: b.state("gamma", rows as u64 * per),
            beta: b.state("beta", rows as u64 * per),
        });
        let out = b.state("out", self.output_len() as u64 * wide);
        let dx = b.state("dx", tensor);
        let dparams = affine.then(|| norm::ParamGrads {
            rho: Write::Store(b.state("drho", s.d as u64 * per)),
            gamma: Write::Store(b.state("dgamma", rows as u64 * per)),
            beta: Write::Store(b.state("dbeta", rows as u64 * per)),
        });
        let stats = b.state("stats", s.images() as u64 * per * 2);
        let layer_stats = affine.then(|| b.state("layer_stats", s.images() as u64 * 8));
        let layer = norm::Layer {
            shape: s,
            dtype: self.dtype,
            images_per_affine: self.images_per_affine(),
            act: self.act,
        };
        let out = match self.padded {
            None => norm::Output::Plain(out),
            Some((pad, up)) => norm::Output::Padded { to: out, pad, up, plain: None },
        };
        let forward = norm::Forward { out, inp: x, params, residual, stats, layer_stats };
        let saved = norm::forward(&mut b, &layer, self.variant, &forward)?;
        b.built.split = b.built.launches.len();
        let dinp = Write::Store(dx);
        let backward = norm::Backward { dout: dy, inp: x, dinp, params, dparams, stats, layer_stats };
        norm::backward(&mut b, &layer, self.variant, &backward, &saved)?;
        b.built.finish()
    }
}

/// What goes in. `x`, `dy` and `residual` are exact in the case's element type.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inputs {
    /// `[D, N, H, W, C]`.
    pub x: Vec<f32>,
    /// Upstream gradient.
    pub dy: Vec<f32>,
    /// Empty where there is none.
    pub residual: Vec<f32>,
    /// `[D, C]`; empty for an instance norm.
    pub rho: Vec<f32>,
    /// `[rows, C]`.
    pub gamma: Vec<f32>,
    /// `[rows, C]`.
    pub beta: Vec<f32>,
}

impl Inputs {
    /// Random ones: each channel about `offset` plus a mean of its own, with standard deviation `spread`.
    pub fn random(case: &Case, offset: f32, spread: f32, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut draw = |n: usize, low: f32, high: f32| -> Vec<f32> {
            (0..n).map(|_| low + (high - low) * rng.random::<f32>()).collect()
        };
        let (s, affine) = (case.shape, case.kind != Kind::Instance);
        let width = 1.75 * spread; // of a uniform distribution, for about that deviation
        let means = draw(s.images() * s.c, offset - spread, offset + spread);
        let mut x = draw(s.len(), -width, width);
        for (i, v) in x.iter_mut().enumerate() {
            *v += means[i / s.image_len() * s.c + i % s.c];
        }
        let rows = if affine { s.images() / case.images_per_affine() * s.c } else { 0 };
        let rho = draw(if affine { s.d * s.c } else { 0 }, 0.0, 1.0);
        let (gamma, beta) = (draw(rows, 0.5, 1.5), draw(rows, -1.0, 1.0));
        let dy = draw(s.len(), -1.0, 1.0);
        let residual = draw(if case.residual { s.len() } else { 0 }, -1.0, 1.0);
        let inputs = Self { x, dy, residual, rho, gamma, beta };
        inputs.rounded(case.dtype)
    }

    /// With the tensors rounded to an element type.
    pub fn rounded(mut self, dtype: DType) -> Self {
        for tensor in [&mut self.x, &mut self.dy, &mut self.residual] {
            *tensor = decode(&encode(tensor, dtype), dtype);
        }
        self
    }
}

/// Numbers as a device holds them.
pub fn encode(values: &[f32], dtype: DType) -> Vec<u8> {
    match dtype {
        DType::F16 => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
        DType::Bf16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
        DType::F32 | DType::I32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
    }
}

/// The other way round.
pub fn decode(bytes: &[u8], dtype: DType) -> Vec<f32> {
    let two = |b: &[u8]| [b[0], b[1]];
    match dtype {
        DType::F16 => bytes.chunks_exact(2).map(|b| f16::from_le_bytes(two(b)).to_f32()).collect(),
        DType::Bf16 => bytes.chunks_exact(2).map(|b| bf16::from_le_bytes(two(b)).to_f32()).collect(),
        DType::F32 | DType::I32 => {
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        }
    }
}

/// Which launches of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The forward pass.
    Forward,
    /// The backward pass, over what an earlier forward pass left.
    Backward,
    /// Both.
    Both,
}

/// A case's launches and memory.
#[derive(Clone, Debug)]
pub struct Built {
    /// What was asked for.
    pub case: Case,
    buffers: Vec<Buffer>,
    launches: Vec<Launch>,
    /// Launches of the forward pass.
    pub split: usize,
    named: HashMap<&'static str, u32>,
    state_bytes: u64,
    arena_bytes: u64,
}

impl Built {
    fn new(case: Case) -> Self {
        Self {
            case,
            buffers: Vec::new(),
            launches: Vec::new(),
            split: 0,
            named: HashMap::new(),
            state_bytes: 0,
            arena_bytes: 0,
        }
    }

    fn finish(mut self) -> Result<Self> {
        // What the backward pass reads of the forward pass is state, so that it can run by itself.
        let users =
            |launches: &[Launch]| -> HashSet<u32> { launches.iter().flat_map(Launch::buffers).collect() };
        let (before, after) = (users(&self.launches[..self.split]), users(&self.launches[self.split..]));
        for (i, b) in self.buffers.iter_mut().enumerate() {
            let i = i as u32;
            if b.space == Space::Arena && before.contains(&i) && after.contains(&i) {
                (b.space, b.offset) = (Space::State, self.state_bytes);
                self.state_bytes = (b.offset + b.bytes).next_multiple_of(BUFFER_ALIGN);
            }
        }
        self.arena_bytes = plan::lay_out(&mut self.buffers, &mut self.launches, &HashSet::new());
        for launch in &self.launches {
            launch.check(&self.buffers)?;
        }
        Ok(self)
    }

    /// The launches of a part.
    pub fn launches(&self, part: Part) -> &[Launch] {
        match part {
            Part::Forward => &self.launches[..self.split],
            Part::Backward => &self.launches[self.split..],
            Part::Both => &self.launches,
        }
    }

    /// Bytes of a set of buffers.
    pub fn bytes(&self) -> u64 {
        self.state_bytes + self.arena_bytes
    }

    /// The part `repeats` times over, going round `sets` sets of buffers.
    pub fn program(&self, part: Part, repeats: usize, sets: usize) -> Program {
        let mut buffers = Vec::with_capacity(sets * self.buffers.len());
        for set in 0..sets as u64 {
            buffers.extend(self.buffers.iter().cloned().map(|mut b| {
                let stride = if b.space == Space::State { self.state_bytes } else { self.arena_bytes };
                b.offset += set * stride;
                b
            }));
        }
        let mut launches = Vec::with_capacity(repeats * self.launches(part).len());
        for repeat in 0..repeats {
            let first = (repeat % sets * self.buffers.len()) as u32;
            launches.extend(self.launches(part).iter().cloned().map(|launch| launch.shifted(first)));
        }
        Program {
            name: self.case.describe(),
            buffers,
            launches,
            arena_bytes: self.arena_bytes * sets as u64,
            state_bytes: self.state_bytes * sets as u64,
        }
    }

    fn place(&self, name: &str) -> Option<&Buffer> {
        self.named.get(name).map(|&b| &self.buffers[b as usize])
    }

    /// New state for so many sets of buffers, with the inputs in every set, and zeroes for the counters.
    ///
    /// # Errors
    /// When the device fails or has too little memory.
    pub fn state(&self, device: &DeviceHandle, sets: usize, inputs: &Inputs) -> Result<Arc<State>> {
        let state = State::new(device, self.state_bytes * sets as u64)?;
        let dtype = self.case.dtype;
        for (name, values, dtype) in [
            ("x", &inputs.x, dtype),
            ("dy", &inputs.dy, dtype),
            ("residual", &inputs.residual, dtype),
            ("rho", &inputs.rho, DType::F32),
            ("gamma", &inputs.gamma, DType::F32),
            ("beta", &inputs.beta, DType::F32),
        ] {
            let Some(b) = self.place(name) else { continue };
            let bytes = encode(values, dtype);
            if bytes.len() as u64 != b.bytes {
                let what = self.case.describe();
                return Err(Error::new(format!("{what}: {name} has {} bytes, not {}", bytes.len(), b.bytes)));
            }
            for set in 0..sets as u64 {
                state.write(b.offset + set * self.state_bytes, &bytes)?;
            }
        }
        for b in self.buffers.iter().filter(|b| b.name == "counters") {
            for set in 0..sets as u64 {
                state.zero(b.offset + set * self.state_bytes, b.bytes)?;
            }
        }
        Ok(state)
    }

    /// Both passes, once, over new memory.
    ///
    /// # Errors
    /// As [`Self::state`].
    pub fn load(&self, device: &DeviceHandle, inputs: &Inputs) -> Result<Executable> {
        Executable::load(self.program(Part::Both, 1, 1), &self.state(device, 1, inputs)?)
    }

    /// Reads the first set's results.
    ///
    /// # Errors
    /// When the device fails.
    pub fn outputs(&self, state: &State) -> Result<Outputs> {
        let read = |name: &str, dtype: DType| -> Result<Vec<f64>> {
            let Some(b) = self.place(name) else { return Ok(Vec::new()) };
            let bytes = state.read(b.offset, b.bytes as usize)?;
            Ok(decode(&bytes, dtype).into_iter().map(f64::from).collect())
        };
        Ok(Outputs {
            out: read("out", self.case.dtype)?,
            dx: read("dx", self.case.dtype)?,
            drho: read("drho", DType::F32)?,
            dgamma: read("dgamma", DType::F32)?,
            dbeta: read("dbeta", DType::F32)?,
        })
    }

    /// Runs both passes once and returns the results.
    ///
    /// # Errors
    /// When the device fails.
    pub fn run(&self, device: &DeviceHandle, inputs: &Inputs) -> Result<Outputs> {
        let executable = self.load(device, inputs)?;
        executable.run()?;
        self.outputs(executable.state())
    }
}

/// Largest deviation of the results from the wanted ones, each relative to the largest wanted value of its
/// tensor; NaN where one of them is. In a 16-bit type drho is taken relative to dgamma where that is larger:
/// it is the difference of two sums of dgamma's size, whose terms the unfused variants round.
pub fn deviation(got: &Outputs, want: &Outputs, dtype: DType) -> [f64; 5] {
    let largest = |v: &[f64]| v.iter().fold(f64::MIN_POSITIVE, |m, v| m.max(v.abs()));
    let least_of_rho = if dtype == DType::F32 { 0.0 } else { largest(&want.dgamma) };
    let tensor = |got: &[f64], want: &[f64], least: f64| {
        if got.len() != want.len() {
            return f64::NAN;
        }
        let scale = largest(want).max(least);
        let mut worst = 0.0;
        for (g, w) in got.iter().zip(want) {
            let error = (g - w).abs() / scale;
            // So that a NaN stays.
            if error.is_nan() || error > worst {
                worst = error;
            }
        }
        worst
    };
    [
        tensor(&got.out, &want.out, 0.0),
        tensor(&got.dx, &want.dx, 0.0),
        tensor(&got.drho, &want.drho, least_of_rho),
        tensor(&got.dgamma, &want.dgamma, 0.0),
        tensor(&got.dbeta, &want.dbeta, 0.0),
    ]
}

struct Builder {
    built: Built,
    label: String,
}

impl Builder {
    fn buffer(&mut self, name: String, space: Space, offset: u64, bytes: u64) -> BufferRef {
        self.built.buffers.push(Buffer { name, space, offset, bytes });
        BufferRef { buffer: (self.built.buffers.len() - 1) as u32, offset: 0, bytes }
    }

    fn state(&mut self, name: &'static str, bytes: u64) -> BufferRef {
        let offset = self.built.state_bytes;
        self.built.state_bytes = (offset + bytes).next_multiple_of(BUFFER_ALIGN);
        let buffer = self.buffer(name.to_owned(), Space::State, offset, bytes);
        self.built.named.insert(name, buffer.buffer);
        buffer
    }
}

impl norm::Sink for Builder {
    fn scratch(&mut self, name: &str, bytes: u64) -> BufferRef {
        self.buffer(name.to_owned(), Space::Arena, 0, bytes)
    }

    fn counters(&mut self, count: usize) -> Result<BufferRef> {
        Ok(self.state("counters", count as u64 * 4))
    }

    fn launch(&mut self, what: &str, launch: Launch) {
        self.built.launches.push(launch.label(format!("{what} of {}", self.label)));
    }
}
