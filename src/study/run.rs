//! Running a program to see what it does: a whole training step of random weights and images.

use std::collections::HashMap;
use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::collect;
use super::counts::{Counts, KernelRecord, LaunchRecord, Predicted};
use crate::Result;
use crate::device::emulator::{Emulator, Options};
use crate::device::executable::{DeviceHandle, Executable};
use crate::device::select::{self, Choice};
use crate::device::{Program, Target};
use crate::model::{self, Machine};
use crate::nn::Config;
use crate::tape::{LowerOptions, NormVariant, Precision};
use crate::train::{Recording, Trainer, TrainingPlan};

/// What to run.
#[derive(Clone, Debug)]
pub struct Step {
    /// The networks.
    pub cfg: Config,
    /// Images of each domain.
    pub batch: usize,
    /// Of weights and images.
    pub seed: u64,
    /// Which variant of the norms.
    pub norm: NormVariant,
    /// What convolutions multiply.
    pub precision: Precision,
    /// The GPU to plan for; None: the device's.
    pub target: Option<Target>,
}

impl Step {
    /// In words: `a training step at 64 pixels, ch 8, …`.
    pub fn describe(&self) -> String {
        let c = &self.cfg;
        format!(
            "a training step of {} pixels, ch {}, n_res {}, n_dis {}, batch {}{}{}{}",
            c.img_size,
            c.ch,
            c.n_res,
            c.n_dis,
            self.batch,
            if c.light { ", light" } else { "" },
            if self.norm == NormVariant::default() {
                String::new()
            } else {
                format!(", {} norms", self.norm)
            },
            if self.precision == Precision::default() {
                String::new()
            } else {
                format!(", {}", self.precision)
            }
        )
    }
}

/// What ran and what it did.
#[derive(Clone, Debug)]
pub struct Record {
    /// The device in words.
    pub device: String,
    /// The program.
    pub program: Arc<Program>,
    /// By kernel, in the order of their first launches.
    pub kernels: Vec<KernelRecord>,
}

impl Record {
    /// Counts of everything.
    pub fn counts(&self) -> Counts {
        self.kernels.iter().map(KernelRecord::counts).sum()
    }

    /// What a device counted of a program's latest run; where it does not count, what it takes for each launch.
    ///
    /// # Errors
    /// When the device fails.
    pub fn of(executable: &Executable) -> Result<Self> {
        const REPEATS: usize = 10;
        let (device, program) = (executable.device().lock().describe(), executable.program().clone());
        if let Some(counters) = executable.counters() {
            let mut counted = collect::of(&counters).into_iter();
            return Ok(Self::group(device, program, |_| (counted.next().unwrap_or_default(), None)));
        }
        let times = executable.time_launches(REPEATS)?.unwrap_or_default();
        Ok(Self::group(device, program, |i| (collect::Counted::default(), times.get(i).copied())))
    }

    /// Predicts the time of each launch on every GPU there are constants of. One block of each different launch is run
    /// on the emulator.
    ///
    /// # Errors
    /// When a kernel is faulty, or the host has no address space for its buffers.
    pub fn predict(&mut self) -> Result<()> {
        let program = self.program.clone();
        self.predict_from(&program, &model::count(&program, &|_| ())?);
        Ok(())
    }

    /// The same from what was counted before, of the record's launches as `program` has them.
    pub(super) fn predict_from(&mut self, program: &Program, counted: &model::Counted) {
        for machine in &model::machine::ALL {
            let predictions = counted.predict(program, machine);
            for launch in self.kernels.iter_mut().flat_map(|k| &mut k.launches) {
                launch.predicted.extend(predictions.get(launch.index).map(|p| p.time));
            }
        }
    }

    /// Predicted time of all launches on that GPU.
    pub fn predicted(&self, machine: &Machine) -> Option<Predicted> {
        Predicted::of(self.kernels.iter().flat_map(|k| &k.launches), machine)
    }

    /// Groups a program's launches by kernel; `details` gives the counts, lines and classes of each and
    /// its time.
    pub(super) fn group(
        device: String,
        program: Arc<Program>,
        mut details: impl FnMut(usize) -> (collect::Counted, Option<f64>),
    ) -> Self {
        let mut kernels: Vec<KernelRecord> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for (i, launch) in program.launches.iter().enumerate() {
            let at = *places.entry(launch.kernel.name).or_insert_with(|| {
                kernels.push(KernelRecord::new(launch.kernel));
                kernels.len() - 1
            });
            let (counted, milliseconds) = details(i);
            let record = &mut kernels[at];
            for (line, counts) in counted.lines {
                *record.lines.entry(line).or_default() += counts;
            }
            for (class, n) in counted.classes {
                *record.classes.entry(class).or_default() += n;
            }
            record.launches.push(LaunchRecord {
                index: i,
                label: launch.label.clone(),
                grid: launch.grid,
                block: launch.block,
                shared_bytes: launch.shared_bytes,
                min_bytes: launch.min_bytes,
                flops: launch.flops,
                counts: counted.total,
                milliseconds,
                predicted: Vec::new(),
            });
        }
        Self { device, program, kernels }
    }
}

/// An emulator that counts.
pub fn counting_emulator() -> DeviceHandle {
    DeviceHandle::new(Emulator::new(Options { count: true, ..Options::default() }))
}

/// Runs one step. On the emulator everything is counted, on a GPU every launch is timed; both have predicted times.
///
/// # Errors
/// When the device is not there or has too little memory, or a kernel is faulty.
pub fn training_step(step: &Step, choice: Choice) -> Result<Record> {
    let (device, _) = select::open(choice)?;
    device.lock().set_counting(true);
    let target = step.target.unwrap_or_else(|| device.lock().target());
    let options = LowerOptions { norm: step.norm, precision: step.precision, ..LowerOptions::on(target) };
    let plan = TrainingPlan::new(&step.cfg, step.batch, 0, Recording::default(), options)?;
    let mut trainer = Trainer::load(&device, plan)?;
    trainer.initialise(step.seed)?;
    let mut rng = ChaCha8Rng::seed_from_u64(step.seed ^ 0x7069_6374_7572_6573);
    let len = step.batch * step.cfg.img_size * step.cfg.img_size * 3;
    let mut images = || -> Vec<f32> { (0..len).map(|_| rng.random_range(-1.0f32..1.0)).collect() };
    let (a, b) = (images(), images());
    trainer.step(1, &a, &b)?;
    trainer.losses()?;
    let mut record = Record::of(trainer.executable())?;
    record.predict()?;
    Ok(record)
}
