//! What a run will launch and how much memory it takes, known before any device is touched.

use serde::Serialize;

use super::model::Model;
use super::step::{
    GOutput, Recording, SampleGridOutputs, StepOutputs, record_sample_grid, record_step, record_translate,
};
use crate::device::executable::DeviceHandle;
use crate::device::{DeviceKind, Program};
use crate::format;
use crate::nn::Config;
use crate::tape::{BufferRole, LowerOptions, Planned, StateView, plan_with};
use crate::{Error, ErrorKind, Result};

/// The programs of a training run, planned but not loaded. [`super::Trainer::load`] loads them.
#[derive(Clone, Debug)]
pub struct TrainingPlan {
    /// The memory layout.
    pub model: Model,
    /// The training step.
    pub step: Planned,
    pub(super) outputs: StepOutputs,
    /// Images of each domain in a batch.
    pub(super) batch: usize,
    pub(super) sample_grid: Option<SampleGridPlan>,
}

/// The passes that some columns of a sample grid take.
#[derive(Clone, Debug)]
pub(super) struct SampleGridPlan {
    pub planned: Planned,
    pub outputs: SampleGridOutputs,
    /// Images of each domain.
    pub images: usize,
}

/// A generator's pass, planned but not loaded. [`super::Inference::load`] loads it.
#[derive(Clone, Debug)]
pub struct InferencePlan {
    /// The memory layout.
    pub model: Model,
    /// The pass.
    pub pass: Planned,
    pub(super) input: StateView,
    pub(super) output: GOutput,
    /// Images.
    pub(super) batch: usize,
}

impl InferencePlan {
    /// Plans the pass of one generator over `batch` images; direction 0 is A to B. Needs no device.
    ///
    /// # Errors
    /// When the configuration makes no network, or a tensor would be too large.
    pub fn new(cfg: &Config, direction: usize, batch: usize, options: LowerOptions) -> Result<Self> {
        cfg.check()?;
        let mut model = Model::for_inference(cfg);
        let (tape, input, output) = record_translate(&mut model, direction, batch);
        let pass = plan_with("translate", &tape, &model.layout, options)?;
        Ok(Self { model, pass, input, output, batch })
    }

    /// Bytes of a device that it takes.
    pub fn bytes(&self) -> u64 {
        self.model.layout.bytes() + self.pass.program.arena_bytes
    }
}

/// Memory of a training run, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryEstimate {
    /// Weights and spectral vectors.
    pub weights: u64,
    /// Gradients of the weights.
    pub gradients: u64,
    /// Adam's two moments.
    pub moments: u64,
    /// Images, losses and the learning rate.
    pub inputs: u64,
    /// Activations and their gradients in a training step.
    pub activations: u64,
    /// Activations of a sample grid.
    pub sample_grid: u64,
    /// The sum, with the gaps of alignment.
    pub total: u64,
}

impl TrainingPlan {
    /// Plans the step for batches of `batch` images, and sample grids of `sample_grid_images` images of each
    /// domain (0 for none). Needs no device.
    ///
    /// # Errors
    /// When the configuration makes no network, or a tensor would be too large.
    pub fn new(
        cfg: &Config,
        batch: usize,
        sample_grid_images: usize,
        recording: Recording,
        options: LowerOptions,
    ) -> Result<Self> {
        cfg.check()?;
        let mut model = Model::for_training(cfg);
        let (step, outputs) = record_step(&mut model, batch, recording);
        // All is recorded before anything is planned: recording adds to the layout.
        let sample_grid =
            (sample_grid_images > 0).then(|| record_sample_grid(&mut model, sample_grid_images));
        let step = plan_with("training step", &step, &model.layout, options)?;
        let sample_grid = match sample_grid {
            Some((tape, outputs)) => {
                let planned = plan_with("sample grid", &tape, &model.layout, options)?;
                Some(SampleGridPlan { planned, outputs, images: sample_grid_images })
            }
            None => None,
        };
        Ok(Self { model, step, outputs, batch, sample_grid })
    }

    /// Floating-point operations of a step.
    pub fn flops(&self) -> u64 {
        self.step.program.launches.iter().map(|l| l.flops).sum()
    }

    /// The program of a step, and that of a sample grid where there is one.
    pub(super) fn programs(&self) -> impl Iterator<Item = &Program> {
        let sample_grid = self.sample_grid.iter().map(|s| &*s.planned.program);
        std::iter::once(&*self.step.program).chain(sample_grid)
    }

    /// How much memory of a device it takes.
    pub fn memory(&self) -> MemoryEstimate {
        let layout = &self.model.layout;
        let weights = layout.bytes_of(BufferRole::Weights) + layout.bytes_of(BufferRole::Spectral);
        let (gradients, moments) =
            (layout.bytes_of(BufferRole::Gradients), layout.bytes_of(BufferRole::Moments));
        let activations = self.step.program.arena_bytes;
        let sample_grid = self.sample_grid.as_ref().map_or(0, |s| s.planned.program.arena_bytes);
        MemoryEstimate {
            weights,
            gradients,
            moments,
            inputs: layout.bytes() - weights - gradients - moments,
            activations,
            sample_grid,
            total: layout.bytes() + activations + sample_grid,
        }
    }
}

/// Bytes of a GPU's memory that are left for what a context takes besides: modules, the nodes of graphs, and the rounding
/// of every allocation.
const GPU_MARGIN: u64 = 256 << 20;

/// Refuses programs that do not fit the device's memory, before anything is allocated.
///
/// # Errors
/// Says how much is needed, for what, and how much there is.
pub(super) fn check_memory<'p>(
    device: &DeviceHandle,
    model: &Model,
    programs: impl Iterator<Item = &'p Program>,
) -> Result<()> {
    let arenas: u64 = programs.map(|p| p.arena_bytes).sum();
    let device = device.lock();
    let margin = if device.kind() == DeviceKind::Gpu { GPU_MARGIN } else { 0 };
    let (need, free) = (model.layout.bytes() + arenas + margin, device.memory()?.free);
    if need <= free {
        return Ok(());
    }
    Err(Error::new(format!(
        "{} has {} of memory free, but this run needs {} ({} for weights, gradients and moments, {} for activations{})",
        device.describe(),
        format::bytes(free),
        format::bytes(need),
        format::bytes(model.layout.bytes()),
        format::bytes(arenas),
        if margin > 0 { format!(", {} for kernels and graphs", format::bytes(margin)) } else { String::new() },
    ))
    .of_kind(ErrorKind::MemoryShort { need, free }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_size_run_s_memory_adds_up() {
        let cfg = Config { light: true, ..Config::default() };
        let plan = TrainingPlan::new(&cfg, 1, 1, Recording::default(), LowerOptions::default()).unwrap();
        let memory = plan.memory();
        let weights = 4 * 2 * (10_589_888 + 53_130_176 + 3_290_560);
        assert!(memory.gradients.abs_diff(weights) < 4096 && memory.moments == 2 * memory.gradients);
        assert!((weights..weights + (1 << 20)).contains(&memory.weights));
        let parts = memory.weights + memory.gradients + memory.moments + memory.inputs + memory.activations;
        assert_eq!(memory.total, parts + memory.sample_grid);
    }
}
