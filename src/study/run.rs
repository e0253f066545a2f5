//! Running a program to see what it does: a whole training step of random weights and images.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::collect;
use super::counts::{Counts, KernelRecord, LaunchRecord};
use crate::Result;
use crate::device::cuda::Cuda;
use crate::device::emulator::{Emulator, Options};
use crate::device::select::Choice;
use crate::device::{Allocation, Device, MemoryInfo, Prepared, Program};
use crate::nn::Config;
use crate::tape::Norms;
use crate::train::{Recording, Trainer};

/// A device that its user keeps a hand on while something else, a trainer say, owns it.
pub struct Shared<D>(Arc<Mutex<D>>);

impl<D> Shared<D> {
    /// Shares a device.
    pub fn new(device: D) -> Self {
        Self(Arc::new(Mutex::new(device)))
    }

    /// Another hand on the same device.
    pub fn another(&self) -> Self {
        Self(Arc::clone(&self.0))
    }

    /// The device, for as long as the guard lives.
    pub fn lock(&self) -> MutexGuard<'_, D> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D: Device> Device for Shared<D> {
    fn describe(&self) -> String {
        self.lock().describe()
    }

    fn memory(&self) -> Result<MemoryInfo> {
        self.lock().memory()
    }

    fn allocate(&mut self, bytes: u64) -> Result<Allocation> {
        self.lock().allocate(bytes)
    }

    fn release(&mut self, allocation: Allocation) -> Result<()> {
        self.lock().release(allocation)
    }

    fn upload(&mut self, to: Allocation, offset: u64, data: &[u8]) -> Result<()> {
        self.lock().upload(to, offset, data)
    }

    fn download(&mut self, from: Allocation, offset: u64, data: &mut [u8]) -> Result<()> {
        self.lock().download(from, offset, data)
    }

    fn prepare(&mut self, program: Arc<Program>, state: Allocation, arena: Allocation) -> Result<Prepared> {
        self.lock().prepare(program, state, arena)
    }

    fn run(&mut self, program: Prepared) -> Result<()> {
        self.lock().run(program)
    }

    fn synchronize(&mut self) -> Result<()> {
        self.lock().synchronize()
    }

    fn elapsed_ms(&mut self) -> Result<Option<f64>> {
        self.lock().elapsed_ms()
    }
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Step {
    /// The networks.
    pub cfg: Config,
    /// Images of each domain.
    pub batch: usize,
    /// Of weights and images.
    pub seed: u64,
    /// How norms are computed.
    pub norm: Norms,
}

impl Step {
    /// In words: `a training step at 64 pixels, ch 8, …`.
    pub fn describe(&self) -> String {
        let c = &self.cfg;
        format!(
            "a training step of {} pixels, ch {}, n_res {}, n_dis {}, batch {}{}{}",
            c.img_size,
            c.ch,
            c.n_res,
            c.n_dis,
            self.batch,
            if c.light { ", light" } else { "" },
            if self.norm == Norms::Fused { String::new() } else { format!(", {} norms", self.norm) }
        )
    }
}

/// What ran and what it did.
#[derive(Clone, Debug)]
pub struct Record {
    /// The device in words.
    pub device: String,
    /// The program.
    pub program: Program,
    /// By kernel, in the order of their first launches.
    pub kernels: Vec<KernelRecord>,
}

impl Record {
    /// Counts of everything.
    pub fn counts(&self) -> Counts {
        self.kernels.iter().map(KernelRecord::counts).sum()
    }

    /// What the emulator counted of a program's latest run.
    pub fn counted(emulator: &Emulator, prepared: Prepared, program: Program) -> Self {
        let mut counted = collect::of(emulator, prepared, &program).into_iter();
        Self::group(emulator.describe(), program, |_| (counted.next().unwrap_or_default(), None))
    }

    /// Groups a program's launches by kernel; `details` gives the counts, lines and classes of each and
    /// its time.
    pub(super) fn group(
        device: String,
        program: Program,
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
                label: launch.label.clone(),
                grid: launch.grid,
                block: launch.block,
                shared_bytes: launch.shared_bytes,
                min_bytes: launch.min_bytes,
                flops: launch.flops,
                counts: counted.total,
                milliseconds,
            });
        }
        Self { device, program, kernels }
    }
}

/// An emulator that counts.
pub fn counting_emulator() -> Emulator {
    Emulator::new(Options { count: true, ..Options::default() })
}

/// Runs one step. On the emulator everything is counted, on a GPU every launch is timed.
///
/// # Errors
/// When the device is not there or has too little memory, or a kernel is faulty.
pub fn training_step(step: &Step, choice: Choice) -> Result<Record> {
    let gpu = match choice {
        Choice::Emulator => None,
        Choice::Cuda(ordinal) => {
            Some(Cuda::open(ordinal.unwrap_or(0)).map_err(|e| e.hint("--device emulator needs no GPU"))?)
        }
        Choice::Auto => Cuda::open(0).ok(),
    };
    match gpu {
        Some(gpu) => {
            const REPEATS: usize = 10;
            let shared = Shared::new(gpu);
            let (program, prepared) = run_on(step, &shared)?;
            let times = shared.lock().time_launches(prepared, REPEATS)?;
            let device = shared.describe();
            Ok(Record::group(device, program, |i| (collect::Counted::default(), times.get(i).copied())))
        }
        None => {
            let shared = Shared::new(counting_emulator());
            let (program, prepared) = run_on(step, &shared)?;
            let emulator = shared.lock();
            Ok(Record::counted(&emulator, prepared, program))
        }
    }
}

/// Trains one step and returns its program.
fn run_on<D: Device + 'static>(step: &Step, device: &Shared<D>) -> Result<(Program, Prepared)> {
    let device = Box::new(device.another());
    let mut trainer =
        Trainer::with_options(device, &step.cfg, step.batch, 0, Recording::default(), step.norm.into())?;
    trainer.initialise(step.seed)?;
    let mut rng = ChaCha8Rng::seed_from_u64(step.seed ^ 0x7069_6374_7572_6573);
    let len = step.batch * step.cfg.img_size * step.cfg.img_size * 3;
    let mut images = || -> Vec<f32> { (0..len).map(|_| rng.random_range(-1.0f32..1.0)).collect() };
    let (a, b) = (images(), images());
    trainer.step(1, &a, &b)?;
    trainer.losses()?;
    // The trainer's step is the first program it prepares.
    Ok((trainer.program().clone(), Prepared(0)))
}
