//! Runs the recorded programs on a device and moves what goes in and out.

use std::sync::Arc;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::losses::{LossTerms, Losses};
use super::model::{Model, TensorId, TensorRole};
use super::plan::{InferencePlan, SampleGridPlan, TrainingPlan, check_memory};
use super::step::{GOutput, Recording, SampleGridOutputs, StepOutputs};
use crate::device::executable::{DeviceHandle, Executable, State};
use crate::nn::Config;
use crate::tape::{LoadedProgram, LowerOptions, Precision, StateView, Value};
use crate::{Error, Result};

/// The memory of a run and the means to move tensors in and out of it.
struct Memory {
    model: Model,
    state: Arc<State>,
}

impl Memory {
    /// Allocates the state and writes zeros wherever a kernel may read before anything was written.
    fn new(device: &DeviceHandle, model: Model) -> Result<Self> {
        let state = State::new(device, model.layout.bytes())?;
        for buffer in model.layout.buffers().iter().filter(|b| b.role.starts_at_zero()) {
            state.zero(buffer.offset, buffer.bytes)?;
        }
        Ok(Self { model, state })
    }

    fn write(&self, view: StateView, data: &[f32]) -> Result<()> {
        self.state.write(self.model.layout.offset(view), data)
    }

    fn set(&self, id: TensorId, file: &[f32]) -> Result<()> {
        let spec = self.model.spec(id);
        if file.len() != spec.len() {
            return Err(Error::new(format!(
                "{}/{} has {} elements, the model's has {}",
                id.net(),
                spec.key,
                file.len(),
                spec.len()
            )));
        }
        self.state.write(self.model.locate(id), &spec.to_device(file))
    }

    fn initialise(&self, seed: u64) -> Result<()> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(INIT_STREAM);
        for id in self.model.tensors(&[TensorRole::Weight]) {
            let values = self.model.spec(id).initial(&mut rng);
            self.set(id, &values)?;
        }
        Ok(())
    }

    fn get(&self, id: TensorId) -> Result<Vec<f32>> {
        let spec = self.model.spec(id);
        Ok(spec.to_file(&self.state.read(self.model.locate(id), spec.len())?))
    }
}

/// The step's input: by direction the images to translate and the images to keep, (A, B) and (B, A). Every image is
/// in it twice, since one launch does both directions and reads each one's batch in one piece.
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
        let options = LowerOptions::on(device.lock().target());
        Self::load(device, TrainingPlan::new(cfg, batch, sample_grid_images, recording, options)?)
    }

    /// Loads what was planned. All weights are zero until they are set.
    ///
    /// # Errors
    /// When the device has too little memory.
    pub fn load(device: &DeviceHandle, plan: TrainingPlan) -> Result<Self> {
        check_memory(device, &plan.model, plan.programs())?;
        let TrainingPlan { model, step, outputs, batch, sample_grid } = plan;
        let memory = Memory::new(device, model)?;
        let step = step.load_over(&memory.state)?;
        let sample_grid = match sample_grid {
            Some(SampleGridPlan { planned, outputs, images }) => {
                Some((planned.load_over(&memory.state)?, outputs, images))
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
        self.memory.initialise(seed)
    }

    /// Writes one network's tensor, given in the file's order.
    ///
    /// # Errors
    /// When its size differs, or the device fails.
    pub fn set(&mut self, id: TensorId, file: &[f32]) -> Result<()> {
        self.memory.set(id, file)
    }

    /// Reads one network's tensor in the file's order.
    ///
    /// # Errors
    /// When the device or a step before it fails.
    pub fn get(&self, id: TensorId) -> Result<Vec<f32>> {
        self.memory.get(id)
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
        let terms = self.memory.state.read::<LossTerms>(self.memory.model.terms_offset(), 1)?;
        Ok(Losses::from_terms(&terms[0], &self.memory.model.cfg))
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
    /// As [`Self::load`].
    pub fn new(
        device: &DeviceHandle,
        cfg: &Config,
        precision: Precision,
        direction: usize,
        batch: usize,
    ) -> Result<Self> {
        let options = LowerOptions { precision, ..LowerOptions::on(device.lock().target()) };
        Self::load(device, InferencePlan::new(cfg, direction, batch, options)?)
    }

    /// Loads what was planned. All weights are zero until they are set.
    ///
    /// # Errors
    /// When the device has too little memory.
    pub fn load(device: &DeviceHandle, plan: InferencePlan) -> Result<Self> {
        check_memory(device, &plan.model, std::iter::once(&*plan.pass.program))?;
        let InferencePlan { model, pass, input, output, batch } = plan;
        let memory = Memory::new(device, model)?;
        let loaded = pass.load_over(&memory.state)?;
        Ok(Self { memory, loaded, input, output, batch })
    }

    /// Draws the weights of both generators from the seed, as [`Trainer::initialise`] does.
    ///
    /// # Errors
    /// When the device fails.
    pub fn initialise(&mut self, seed: u64) -> Result<()> {
        self.memory.initialise(seed)
    }

    /// The pass, over the images of the latest [`Self::translate`].
    pub fn executable(&self) -> &Executable {
        self.loaded.executable()
    }

    /// The layout and configuration.
    pub fn model(&self) -> &Model {
        &self.memory.model
    }

    /// Writes one tensor of a generator, given in the file's order.
    ///
    /// # Errors
    /// When its size differs, or the device fails.
    pub fn set(&mut self, id: TensorId, file: &[f32]) -> Result<()> {
        self.memory.set(id, file)
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
