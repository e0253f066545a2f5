//! A training run and its folder: begun, interrupted, gone on with.
//!
//! `RUN/config.toml` says what the run is, `RUN/losses.csv` has a row a step, `RUN/samples` the sample
//! grids and `RUN/checkpoints` the checkpoints.
//!
//! **Invariant: a run that was interrupted and resumed ends with the very bits of one that was not.**
//! All that a step depends on is in the checkpoint (weights, moments, spectral vectors, hyper-parameters,
//! seed, step) or a pure function of it (batches, learning rate). What was written after the checkpoint
//! is taken back on resuming: rows of `losses.csv` are cut off, sample grids and checkpoints written again.

mod samples;
mod settings;
mod start;

use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

pub use settings::Settings;
pub use start::RunStart;

use samples::Samples;
use start::RunFolder;

use super::checkpoint::{self, Checkpoint, Meta};
use super::{LOSS_NAMES, Losses, Recording, Trainer, TrainingPlan};
use crate::data::{Dataset, LoaderOptions, Prefetcher};
use crate::device::DeviceKind;
use crate::device::executable::DeviceHandle;
use crate::device::select::{self, Choice};
use crate::error::io_reason;
use crate::format;
use crate::report::{LossTable, save_png};
use crate::tape::{LowerOptions, NormVariant};
use crate::{Error, ErrorKind, Result};

/// What happens in a run.
#[derive(Debug)]
pub enum Event<'a> {
    /// Worth knowing.
    Note(String),
    /// Worth looking into.
    Warning(String),
    /// The emulator will take so many seconds or so for each step, which is too long to train anything.
    SlowEmulator {
        /// Seconds of a step.
        seconds: f64,
    },
    /// A step is done.
    Step {
        /// Its number, from 1.
        step: u64,
        /// Its losses.
        losses: &'a Losses,
    },
}

/// Gets the events of a run as they happen.
pub type Observer<'a> = &'a mut dyn FnMut(Event);

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done.
    Done,
    /// It was asked to stop, and saved.
    Interrupted,
}

/// A run that is ready for its next step.
pub struct Session {
    folder: RunFolder,
    settings: Settings,
    trainer: Trainer,
    images: Prefetcher,
    fingerprint: u64,
    samples: Samples,
    losses: LossTable,
    /// Held as long as the run goes on.
    _lock: Option<File>,
    /// Steps done.
    done: u64,
    /// The step of the newest checkpoint.
    saved: Option<u64>,
}

impl Session {
    /// Checks everything, opens the device, plans, and only then writes to the run's folder.
    ///
    /// # Errors
    /// Whatever keeps the run from its first step: settings, images, the device, its memory, the
    /// checkpoint, the folder.
    pub fn open(
        start: RunStart,
        mut settings: Settings,
        device: Choice,
        observer: Observer<'_>,
    ) -> Result<Self> {
        let done = start.step();
        let RunStart { folder, checkpoint, warnings, .. } = start;
        warnings.into_iter().for_each(|w| observer(Event::Warning(w)));
        check(&settings, done)?;
        let data = Dataset::open(&settings.data)?;
        announce_images(&data, observer);
        let (device, which) = select::open(device)?;
        observer(Event::Note(format!("device: {which}")));
        let target = *settings.target.get_or_insert_with(|| device.lock().target());
        let cfg = &settings.model;
        let options =
            LowerOptions { norm: settings.norm, precision: settings.precision, ..LowerOptions::on(target) };
        let plan = TrainingPlan::new(cfg, settings.batch_size, 1, Recording::default(), options)?;
        observer(Event::Note(format!(
            "norms: {}; {} launches a step",
            settings.norm,
            plan.step.program.launches.len()
        )));
        observer(Event::Note(format!("convolutions: {}", settings.precision)));
        announce_memory(&plan, &device, observer)?;
        let seconds = emulator_seconds(plan.flops());
        let mut trainer = Trainer::load(&device, plan)?;
        if device.lock().kind() == DeviceKind::Emulator && seconds > SLOW_STEP {
            observer(Event::SlowEmulator { seconds });
        }
        let samples = Samples::choose(&data, cfg.img_size);
        let fingerprint = data.fingerprint();
        match checkpoint {
            Some(mut checkpoint) => {
                checkpoint.load_into(&mut trainer)?;
                announce_checkpoint(&checkpoint, &settings, fingerprint, observer);
            }
            None => trainer.initialise(settings.seed)?,
        }

        let lock = prepare_folder(&folder, observer)?;
        let losses = LossTable::open(&folder.losses(), &LOSS_NAMES, done)?;
        settings.write(&folder.config())?;
        let options = LoaderOptions::new(cfg.img_size, settings.batch_size, settings.seed);
        let images = Prefetcher::start(&data, options, done + 1)?;
        let saved = (done > 0).then_some(done);
        Ok(Self { folder, settings, trainer, images, fingerprint, samples, losses, _lock: lock, done, saved })
    }

    /// Steps done.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// What the run is.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Does the remaining steps, or those until `stop` becomes true. A sample grid and a checkpoint are
    /// written at the end in any case, after a stop the checkpoint only.
    ///
    /// # Errors
    /// When the device fails, a file cannot be written, or a loss is no longer finite. What the weights
    /// are still good for is saved before, if that is possible.
    pub fn run(mut self, stop: &AtomicBool, observer: Observer<'_>) -> Result<Outcome> {
        let ended = self.steps(stop, observer);
        let resumable = self.saved.is_some();
        ended.map_err(|error| match error.kind() {
            ErrorKind::GpuFault { .. } => error.of_kind(ErrorKind::GpuFault { resumable }),
            ErrorKind::GpuLost { .. } => error.of_kind(ErrorKind::GpuLost { resumable }),
            _ => error,
        })
    }

    fn steps(&mut self, stop: &AtomicBool, observer: Observer<'_>) -> Result<Outcome> {
        let steps = self.settings.model.iterations;
        while self.done < steps {
            if stop.load(Ordering::Relaxed) {
                self.save(observer)?;
                return Ok(Outcome::Interrupted);
            }
            let losses = match self.advance(observer) {
                Ok(losses) => losses,
                Err(Failure::Broken(error)) => return Err(error),
                Err(Failure::Around(error)) => {
                    // The first error is the one to report.
                    let _ = self.save(observer);
                    return Err(error);
                }
            };
            observer(Event::Step { step: self.done, losses: &losses });
            if is_due(self.done, self.settings.save_every) && self.done < steps {
                self.save(observer)?;
            }
        }
        self.save(observer)?;
        Ok(Outcome::Done)
    }

    /// One step, its row of losses, and its sample grid if one is due.
    fn advance(&mut self, observer: Observer<'_>) -> Result<Losses, Failure> {
        let batch = self.images.next_batch().map_err(Failure::Around);
        self.images.take_warnings().into_iter().for_each(|w| observer(Event::Warning(w)));
        let batch = batch?;
        let step = self.done + 1;
        self.trainer.step(step, &batch.a, &batch.b).map_err(Failure::Broken)?;
        let losses = self.trainer.losses().map_err(Failure::Broken)?;
        let lr = self.settings.model.lr_at(step);
        let written = self.losses.append(step, lr, &losses.0);
        if let Some(i) = losses.0.iter().position(|x| !x.is_finite()) {
            let error = Error::new(format!("step {step}: {} is {}", LOSS_NAMES[i], losses.0[i]));
            let kept = match self.saved {
                Some(saved) => {
                    format!("the weights of step {saved} are in {}", self.folder.checkpoint(saved).display())
                }
                None => "nothing was saved yet".to_owned(),
            };
            return Err(Failure::Broken(error.hint(kept).of_kind(ErrorKind::Diverged)));
        }
        self.done = step;
        written.map_err(Failure::Around)?;
        if is_due(step, self.settings.sample_every) || step == self.settings.model.iterations {
            self.sample_grid().map_err(Failure::Around)?;
        }
        Ok(losses)
    }

    /// Writes the sample grid of the weights as they are.
    fn sample_grid(&mut self) -> Result<()> {
        match self.samples.grid(&mut self.trainer)? {
            Some(grid) => save_png(&self.folder.sample(self.done), &grid),
            None => Ok(()),
        }
    }

    /// Writes the checkpoint of the weights as they are, if there is something new to save.
    fn save(&mut self, observer: Observer<'_>) -> Result<()> {
        if self.done == self.saved.unwrap_or(0) {
            return Ok(());
        }
        // Not even a power failure should leave a checkpoint whose rows are missing.
        let table = self.folder.losses();
        File::open(&table).and_then(|file| file.sync_all()).map_err(|e| cannot_write(&table, &e))?;
        let path = self.folder.checkpoint(self.done);
        let meta = Meta {
            config: self.settings.model.clone(),
            step: self.done,
            seed: self.settings.seed,
            batch_size: self.settings.batch_size,
            images: self.fingerprint,
            norm: self.settings.norm,
            precision: self.settings.precision,
            target: self.trainer.executable().program().target,
        };
        checkpoint::save(&self.trainer, &meta, &path)?;
        self.saved = Some(self.done);
        observer(Event::Note(format!("saved {}", path.display())));
        checkpoint::prune(&self.folder.checkpoints(), self.settings.keep)?;
        Ok(())
    }
}

/// Checks the settings of a run of which so many steps are done.
fn check(settings: &Settings, done: u64) -> Result<()> {
    settings.model.check()?;
    let steps = settings.model.iterations;
    if done > steps {
        return Err(Error::new(format!("a run of {steps} steps, but step {done} is done already"))
            .of_kind(ErrorKind::StepsDone { steps, done }));
    }
    if settings.batch_size == 0 {
        return Err(Error::new("a batch of 0 images trains nothing").hint("give at least 1"));
    }
    if !settings.norm.trains() {
        return Err(Error::new(format!("the {} norm does not train: small GPUs refuse it", settings.norm))
            .hint(format!("train with {}", NormVariant::names(NormVariant::trains))));
    }
    Ok(())
}

fn announce_images(data: &Dataset, observer: Observer<'_>) {
    data.notes().iter().for_each(|note| observer(Event::Warning(note.clone())));
    let found = [&data.train_a, &data.train_b, &data.test_a, &data.test_b].map(|f| f.images.len());
    observer(Event::Note(format!(
        "images: {} of A and {} of B to train with, {} and {} to test",
        found[0], found[1], found[2], found[3]
    )));
}

fn announce_memory(plan: &TrainingPlan, device: &DeviceHandle, observer: Observer<'_>) -> Result<()> {
    let memory = plan.memory();
    observer(Event::Note(format!(
        "memory: {} of {} free: {} for weights, gradients and moments, {} for activations",
        format::bytes(memory.total),
        format::bytes(device.lock().memory()?.free),
        format::bytes(memory.weights + memory.gradients + memory.moments),
        format::bytes(memory.activations + memory.sample_grid),
    )));
    Ok(())
}

fn announce_checkpoint(
    checkpoint: &Checkpoint,
    settings: &Settings,
    fingerprint: u64,
    observer: Observer<'_>,
) {
    let (meta, steps) = (checkpoint.meta(), settings.model.iterations);
    if meta.images != fingerprint {
        observer(Event::Warning(format!(
            "the training images in {} are not those that the run was started with",
            settings.data.display()
        )));
    }
    observer(Event::Note(match meta.step == steps {
        true => format!("all {steps} steps are done already"),
        false => format!("resuming after step {}: {}", meta.step, checkpoint.path().display()),
    }));
    if meta.config.iterations != steps {
        observer(Event::Note(format!(
            "the run is now of {steps} steps, not {}; the learning rate follows",
            meta.config.iterations
        )));
    }
}

/// Makes the run's folders, keeps others out, and removes what a run that was killed has left.
fn prepare_folder(folder: &RunFolder, observer: Observer<'_>) -> Result<Option<File>> {
    for path in [folder.checkpoints(), folder.samples()] {
        fs::create_dir_all(&path).map_err(|e| cannot_write(&path, &e))?;
    }
    let lock = folder.lock()?;
    for path in [folder.path(), &folder.checkpoints(), &folder.samples()] {
        for path in checkpoint::remove_temporary(path)? {
            observer(Event::Note(format!("removed {}, left by a run that was killed", path.display())));
        }
    }
    Ok(lock)
}

/// What can go wrong in a step.
enum Failure {
    /// The weights are lost.
    Broken(Error),
    /// The weights are good.
    Around(Error),
}

/// A step longer than this many seconds is worth a warning.
const SLOW_STEP: f64 = 30.0;

/// Seconds that so many floating-point operations take on the emulator, very roughly.
pub fn emulator_seconds(flops: u64) -> f64 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    flops as f64 / (0.6e9 * cores as f64)
}

/// Whether something done every so many steps (0: never) is to be done after this one.
fn is_due(step: u64, every: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}

fn cannot_write(path: &Path, e: &std::io::Error) -> Error {
    Error::new(format!("cannot write {}: {}", path.display(), io_reason(e)))
}
