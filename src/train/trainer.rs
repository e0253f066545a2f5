//! Runs the recorded programs on a device and moves what goes in and out.

use std::sync::Arc;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::losses::{Losses, TERMS};
use super::model::{Model, Slot};
use super::step::{
    GOutput, Recording, SampleGridOutputs, StepOutputs, record_sample_grid, record_step, record_translate,
};
use crate::device::Program;
use crate::device::executable::{DeviceHandle, Executable, State};
use crate::format;
use crate::nn::Config;
use crate::tape::{LoadedProgram, LowerOptions, StateView, Value, plan, plan_with};
use crate::{Error, Result};

/// The memory of a run and the means to move tensors in and out of it.
struct Memory {
    model: Model,
    state: Arc<State>,
}

/// Refuses a run that does not fit the device's memory, before anything is allocated.
///
/// # Errors
/// Says how much is needed, for what, and how much there is.
pub fn check_memory(device: &DeviceHandle, model: &Model, programs: &[&Program]) -> Result<()> {
    let arenas: u64 = programs.iter().map(|p| p.arena_bytes).sum();
    let (needed, free) = (model.layout.bytes() + arenas, device.lock().memory()?.free);
    if needed <= free {
        return Ok(());
    }
    Err(Error::new(format!(
        "{} has {} of memory free, but this run needs {} ({} for weights, gradients and moments, {} for activations)",
        device.lock().describe(),
        format::bytes(free),
        format::bytes(needed),
        format::bytes(model.layout.bytes()),
        format::bytes(arenas),
    ))
    .hint("try --light, a smaller --size, --ch or --batch-size"))
}

impl Memory {
    /// Allocates the state and writes zeros wherever a kernel may read before anything was written:
    /// moments, gradients and the gaps between tensors.
    fn new(device: &DeviceHandle, model: Model) -> Result<Self> {
        let state = State::new(device, model.layout.bytes())?;
        for (name, offset, bytes) in model.layout.buffers() {
            if name.contains("images") || name == "loss terms" || name == "schedule" {
                continue; // written by the host or the step before anyone reads it
            }
            state.zero(offset, bytes)?;
        }
        Ok(Self { model, state })
    }

    fn write(&self, view: StateView, data: &[f32]) -> Result<()> {
        self.state.write(self.model.layout.offset(view), data)
    }

    fn set(&self, net: &str, key: &str, slot: Slot, file: &[f32]) -> Result<()> {
        let (offset, spec) = self.model.locate(net, key, slot)?;
        if file.len() != spec.len() {
            return Err(Error::new(format!(
                "{net}/{key} has {} elements, the model's has {}",
                file.len(),
                spec.len()
            )));
        }
        self.state.write(offset, &spec.to_device(file))
    }

    fn get(&self, net: &str, key: &str, slot: Slot) -> Result<Vec<f32>> {
        let (offset, spec) = self.model.locate(net, key, slot)?;
        Ok(spec.to_file(&self.state.read(offset, spec.len())?))
    }
}

/// By direction the images to translate and the images to keep: (A, B), (B, A).
fn pair(a: &[f32], b: &[f32]) -> Vec<f32> {
    [a, b, b, a].concat()
}

/// A training run on a device: weights, moments, and the step's program.
pub struct Trainer {
    memory: Memory,
    batch: usize,
    step: LoadedProgram,
    outputs: StepOutputs,
    sample_grid: Option<(LoadedProgram, SampleGridOutputs, usize)>,
}

impl Trainer {
    /// Plans and loads the step for batches of `batch` images, and for sample grids of
    /// `sample_grid_images` images of each domain (0 for none). All weights are zero until they are set.
    ///
    /// # Errors
    /// When the configuration makes no network, or the device has too little memory.
    pub fn new(
        device: &DeviceHandle,
        cfg: &Config,
        batch: usize,
        sample_grid_images: usize,
        recording: Recording,
    ) -> Result<Self> {
        Self::with_options(device, cfg, batch, sample_grid_images, recording, LowerOptions::default())
    }

    /// As [`Self::new`], with the kernel variants chosen.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_options(
        device: &DeviceHandle,
        cfg: &Config,
        batch: usize,
        sample_grid_images: usize,
        recording: Recording,
        options: LowerOptions,
    ) -> Result<Self> {
        cfg.check()?;
        let mut model = Model::for_training(cfg);
        let (tape, outputs) = record_step(&mut model, batch, recording);
        let sample_grid_tape =
            (sample_grid_images > 0).then(|| record_sample_grid(&mut model, sample_grid_images));
        let step = plan_with("training step", &tape, &model.layout, options)?;
        let sample_grid = match &sample_grid_tape {
            Some((tape, outputs)) => {
                Some((plan_with("sample grid", tape, &model.layout, options)?, *outputs))
            }
            None => None,
        };
        let mut programs = vec![&*step.program];
        programs.extend(sample_grid.iter().map(|s| &*s.0.program));
        check_memory(device, &model, &programs)?;
        let memory = Memory::new(device, model)?;
        let step = step.load_over(&memory.state)?;
        let sample_grid = match sample_grid {
            Some((planned, outputs)) => {
                Some((planned.load_over(&memory.state)?, outputs, sample_grid_images))
            }
            None => None,
        };
        Ok(Self { memory, batch, step, outputs, sample_grid })
    }

    /// The layout and configuration.
    pub fn model(&self) -> &Model {
        &self.memory.model
    }

    /// The device.
    pub fn device(&self) -> &DeviceHandle {
        self.memory.state.device()
    }

    /// The step, over the state that all programs of the trainer share.
    pub fn executable(&self) -> &Executable {
        self.step.executable()
    }

    /// Values of the step the host may read.
    pub fn outputs(&self) -> &StepOutputs {
        &self.outputs
    }

    /// Draws all weights and spectral vectors from the seed, network by network in the official order.
    ///
    /// # Errors
    /// When the device fails.
    pub fn initialise(&mut self, seed: u64) -> Result<()> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(INIT_STREAM);
        let names: Vec<(&'static str, String)> =
            self.model().tensors().into_iter().map(|(net, key, _)| (net, key.to_owned())).collect();
        for (net, key) in names {
            let values = self.model().locate(net, &key, Slot::Weight)?.1.initial(&mut rng);
            self.set(net, &key, Slot::Weight, &values)?;
        }
        Ok(())
    }

    /// Writes one network's tensor, given in the file's order.
    ///
    /// # Errors
    /// When there is no such tensor, or its size differs.
    pub fn set(&mut self, net: &str, key: &str, slot: Slot, file: &[f32]) -> Result<()> {
        self.memory.set(net, key, slot, file)
    }

    /// Reads one network's tensor in the file's order.
    ///
    /// # Errors
    /// When there is no such tensor.
    pub fn get(&mut self, net: &str, key: &str, slot: Slot) -> Result<Vec<f32>> {
        self.memory.get(net, key, slot)
    }

    /// Reads a kept value of the step as the device has it: `[D, N, H, W, C]`.
    ///
    /// # Errors
    /// When the step does not keep it.
    pub fn read(&mut self, v: Value) -> Result<Vec<f32>> {
        self.step.read(v)
    }

    /// Starts iteration `step` (from 1) on the batches `a` and `b`, `[N, S, S, 3]` in [-1, 1].
    ///
    /// # Errors
    /// When a batch has not the planned size, or the device fails.
    pub fn step(&mut self, step: u64, a: &[f32], b: &[f32]) -> Result<()> {
        let cfg = &self.memory.model.cfg;
        let expected = self.batch * cfg.image_len();
        if a.len() != expected || b.len() != expected {
            return Err(Error::new(format!(
                "batches of {} and {} values, but the step was planned for {expected}",
                a.len(),
                b.len()
            )));
        }
        let t = step as f64;
        let schedule = [
            (cfg.lr_at(step) / (1.0 - cfg.beta1.powf(t))) as f32,
            (1.0 / (1.0 - cfg.beta2.powf(t)).sqrt()) as f32,
        ];
        self.memory.state.write(self.memory.model.schedule_offset(), &schedule)?;
        self.memory.write(self.outputs.pair, &pair(a, b))?;
        self.step.executable().start()
    }

    /// The loss terms of the latest step; waits for it.
    ///
    /// # Errors
    /// When the step failed.
    pub fn losses(&mut self) -> Result<Losses> {
        let mut terms = [0f32; TERMS];
        terms.copy_from_slice(&self.memory.state.read::<f32>(self.memory.model.terms_offset(), TERMS)?);
        Ok(Losses::from_terms(&terms, &self.memory.model.cfg))
    }

    /// Runs the sample grid's passes over `n` images of each domain and returns, read back:
    /// (first image, first heatmap, cycle image, cycle heatmap), see [`SampleGridOutputs`].
    ///
    /// # Errors
    /// When the trainer has no sample grid, or the images' number differs from the planned one.
    pub fn sample_grid(&mut self, a: &[f32], b: &[f32]) -> Result<[Vec<f32>; 4]> {
        let Some((loaded, outputs, n)) = &self.sample_grid else {
            return Err(Error::new("this run was planned without sample grids"));
        };
        let expected = n * self.memory.model.cfg.image_len();
        if a.len() != expected || b.len() != expected {
            return Err(Error::new(format!("a sample grid takes {n} images of each domain")));
        }
        self.memory.write(outputs.pair, &pair(a, b))?;
        loaded.executable().start()?;
        Ok([
            loaded.read(outputs.first.image)?,
            loaded.read(outputs.first.heatmap)?,
            loaded.read(outputs.cycle.image)?,
            loaded.read(outputs.cycle.heatmap)?,
        ])
    }
}

/// ChaCha stream of the initial weights; the data order has its own.
const INIT_STREAM: u64 = 1;

/// One generator on a device, for translating images.
pub struct Inference {
    memory: Memory,
    loaded: LoadedProgram,
    input: StateView,
    output: GOutput,
    batch: usize,
}

impl Inference {
    /// Plans and loads a generator pass over `batch` images; direction 0 is A to B.
    ///
    /// # Errors
    /// When the device has too little memory.
    pub fn new(device: &DeviceHandle, cfg: &Config, direction: usize, batch: usize) -> Result<Self> {
        let mut model = Model::for_inference(cfg);
        let (tape, input, output) = record_translate(&mut model, direction, batch);
        let planned = plan("translate", &tape, &model.layout)?;
        check_memory(device, &model, &[&planned.program])?;
        let memory = Memory::new(device, model)?;
        let loaded = planned.load_over(&memory.state)?;
        Ok(Self { memory, loaded, input, output, batch })
    }

    /// The layout and configuration.
    pub fn model(&self) -> &Model {
        &self.memory.model
    }

    /// Writes one tensor of a generator, given in the file's order.
    ///
    /// # Errors
    /// When there is no such tensor, or its size differs.
    pub fn set(&mut self, net: &str, key: &str, file: &[f32]) -> Result<()> {
        self.memory.set(net, key, Slot::Weight, file)
    }

    /// Translates a batch `[N, S, S, 3]`: images `[N, S, S, 3]` and heatmaps `[N, S/4, S/4]`.
    ///
    /// # Errors
    /// When the batch has not the planned size, or the device fails.
    pub fn translate(&mut self, x: &[f32]) -> Result<(Vec<f32>, Vec<f32>)> {
        let expected = self.batch * self.memory.model.cfg.image_len();
        if x.len() != expected {
            return Err(Error::new(format!("a batch of {} values, but {expected} were planned", x.len())));
        }
        self.memory.write(self.input, x)?;
        self.loaded.executable().start()?;
        let image = self.loaded.read(self.output.image)?;
        let heatmap = self.loaded.read(self.output.heatmap)?;
        Ok((image, heatmap))
    }
}
