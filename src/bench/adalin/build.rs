//! A case as programs that a device runs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::case::{Case, Kind};
use super::tensors::{Inputs, Outputs, decode, encode};
use crate::device::executable::{DeviceHandle, Executable, State};
use crate::device::{BUFFER_ALIGN, Buffer, BufferRef, Launch, Program, Space, Target};
use crate::kernels::arg::Write;
use crate::tape::{norm, plan};
use crate::tensor::DType;
use crate::{Error, Result};

impl Case {
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
        let forward = norm::ForwardBuffers { out, inp: x, params, residual, stats, layer_stats };
        let saved = norm::forward(&mut b, &layer, self.variant, &forward)?;
        b.built.split = b.built.launches.len();
        let dinp = Write::Store(dx);
        let backward = norm::BackwardBuffers { dout: dy, inp: x, dinp, params, dparams, stats, layer_stats };
        norm::backward(&mut b, &layer, &backward, &saved)?;
        b.built.finish()
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

/// Bytes that go by before a rotated buffer is used again: more than any L2.
pub const BEYOND_L2: u64 = 256 << 20;

/// Where a pass finds its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Regime {
    /// In the same buffers each time: in the L2 if they fit.
    Warm,
    /// In buffers of more than [`BEYOND_L2`] in turn: in memory.
    Rotated,
}

impl Regime {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Warm, Self::Rotated];

    /// Its name, as records have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Rotated => "rotated",
        }
    }
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
            launch.check(&self.buffers, self.case.target)?;
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

    /// Sets of buffers that a regime goes round, so that more than `beyond` bytes, say [`BEYOND_L2`], lie between two uses.
    pub fn sets(&self, regime: Regime, beyond: u64) -> usize {
        match regime {
            Regime::Warm => 1,
            Regime::Rotated => (beyond / self.bytes() + 2).min(64) as usize,
        }
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
            target: self.case.target,
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

impl norm::LaunchSink for Builder {
    fn target(&self) -> Target {
        self.built.case.target
    }

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
