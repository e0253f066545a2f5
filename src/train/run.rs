//! A training run and its folder: begun, interrupted, gone on with.
//!
//! `RUN/config.toml` says what the run is, `RUN/losses.csv` has a row a step, `RUN/samples` the sample
//! sample grids and `RUN/checkpoints` the checkpoints.
//!
//! **Invariant: a run that was interrupted and resumed ends with the very bits of one that was not.**
//! All that a step depends on is in the checkpoint (weights, moments, spectral vectors, hyper-parameters,
//! seed, step) or a pure function of it (batches, learning rate). What was written after the checkpoint
//! is taken back on resuming: rows of `losses.csv` are cut off, sample grids and checkpoints written again.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use super::checkpoint::{self, Checkpoint, Meta};
use super::{LOSS_NAMES, Losses, Model, Recording, Trainer, record_sample_grid, record_step};
use crate::data::{Dataset, Folder, LoaderOptions, Prefetcher, Rgb8, resize_bilinear, to_input};
use crate::device::DeviceKind;
use crate::device::select::{self, Choice};
use crate::error::io_reason;
use crate::format;
use crate::nn::Config;
use crate::report::{Column, Half, LossTable, sample_grid, save_png, write_whole};
use crate::tape::{LowerOptions, NormVariant, Planned, plan_with};
use crate::{Error, Result};

/// Images of the training and of the test folder on a sample grid, as in the reference.
const SAMPLE_GRID_COLUMNS: usize = 5;

/// What a run is: enough to begin it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The data set's folder.
    pub data: PathBuf,
    /// Seed of initial weights, order of the images and augmentation.
    pub seed: u64,
    /// Images of each domain in a batch.
    pub batch_size: usize,
    /// Steps from checkpoint to checkpoint; 0 for the last step only.
    pub save_every: u64,
    /// Steps from sample grid to sample grid; 0 for the last step only.
    pub sample_every: u64,
    /// Newest checkpoints to keep; 0 for all.
    pub keep: usize,
    /// Which variant of the norms.
    #[serde(rename = "norm_variant", default)]
    pub norm: NormVariant,
    /// Hyper-parameters.
    pub model: Config,
}

/// Where the files of a run are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFolder(PathBuf);

impl RunFolder {
    fn config(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    fn losses(&self) -> PathBuf {
        self.0.join("losses.csv")
    }

    fn checkpoints(&self) -> PathBuf {
        self.0.join("checkpoints")
    }

    fn checkpoint(&self, step: u64) -> PathBuf {
        self.checkpoints().join(checkpoint::file_name(step))
    }

    fn samples(&self) -> PathBuf {
        self.0.join("samples")
    }

    fn sample(&self, step: u64) -> PathBuf {
        self.samples().join(format!("step-{step:07}.png"))
    }
}

/// What a run tells while it goes on.
#[derive(Debug)]
pub enum Event<'a> {
    /// Worth knowing.
    Note(String),
    /// Worth looking into.
    Warning(String),
    /// A step is done.
    Step {
        /// Its number, from 1.
        step: u64,
        /// Its losses.
        losses: &'a Losses,
    },
}

/// Who is told.
pub type Tell<'a> = &'a mut dyn FnMut(Event);

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done.
    Done,
    /// It was asked to stop, and saved.
    Interrupted,
}

/// Where a run starts from: nothing, or what its folder holds.
#[derive(Debug)]
pub struct Start {
    folder: RunFolder,
    settings: Option<Settings>,
    checkpoint: Option<Checkpoint>,
    warnings: Vec<String>,
}

impl Start {
    /// A new run in `folder`.
    ///
    /// # Errors
    /// When the folder holds a run already.
    pub fn fresh(folder: &Path) -> Result<Self> {
        let shown = folder.display();
        if folder.exists() && !folder.is_dir() {
            return Err(
                Error::new(format!("cannot write a run to {shown}: it is a file")).hint("give another --out")
            );
        }
        let folder = RunFolder(folder.to_owned());
        let newest = checkpoint::list(&folder.checkpoints())?.pop();
        let what = match newest {
            Some((step, _)) => format!("a run with checkpoints up to step {step}"),
            None if folder.losses().exists() => "a run that has not saved yet".to_owned(),
            None => return Ok(Self { folder, settings: None, checkpoint: None, warnings: Vec::new() }),
        };
        Err(Error::new(format!("{shown} already holds {what}"))
            .hint("go on with it by --resume, or give another --out"))
    }

    /// The run that `folder` holds, from its newest whole checkpoint; from its beginning if it was ended
    /// before the first.
    ///
    /// # Errors
    /// When there is no such folder, or it has checkpoints but no whole one.
    pub fn resume(folder: &Path) -> Result<Self> {
        let shown = folder.display();
        if !folder.is_dir() {
            let why = if folder.exists() { "it is a file" } else { "no such folder" };
            return Err(Error::new(format!("there is no run to resume in {shown}: {why}"))
                .hint("without --resume a new run is started"));
        }
        let folder = RunFolder(folder.to_owned());
        let found = checkpoint::newest_complete(&folder.checkpoints())?;
        let mut warnings: Vec<String> =
            found.broken.iter().map(|e| format!("passing over a checkpoint: {}", e.message())).collect();
        let mut settings = match read_settings(&folder.config()) {
            Ok(settings) => settings,
            // The checkpoint has all that matters.
            Err(error) if found.checkpoint.is_some() => {
                warnings.push(error.message().to_owned());
                None
            }
            Err(error) => return Err(error),
        };
        match &found.checkpoint {
            Some(c) => {
                let meta = c.meta();
                let recent = settings
                    .unwrap_or_else(|| Settings { model: meta.config.clone(), ..Settings::default() });
                // The number of steps may have been changed since.
                let iterations = recent.model.iterations;
                settings = Some(Settings {
                    model: Config { iterations, ..meta.config.clone() },
                    seed: meta.seed,
                    batch_size: meta.batch_size,
                    norm: meta.norm,
                    ..recent
                });
            }
            None => {
                if let Some(error) = found.broken.into_iter().next() {
                    return Err(Error::new(format!("{shown} has no whole checkpoint: {}", error.message()))
                        .hint("give another --out to begin anew"));
                }
                warnings.push(format!("no checkpoint in {shown} yet: starting over"));
            }
        }
        Ok(Self { folder, settings, checkpoint: found.checkpoint, warnings })
    }

    /// What the run was started with, where that is known.
    pub fn settings(&self) -> Option<&Settings> {
        self.settings.as_ref()
    }

    /// The step of the checkpoint; 0 without one.
    pub fn step(&self) -> u64 {
        self.checkpoint.as_ref().map_or(0, |c| c.meta().step)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data: PathBuf::new(),
            seed: 0,
            batch_size: 1,
            save_every: 10_000,
            sample_every: 1_000,
            keep: 3,
            norm: NormVariant::default(),
            model: Config::default(),
        }
    }
}

fn read_settings(path: &Path) -> Result<Option<Settings>> {
    let cannot = |why: String| {
        Error::new(format!("cannot read {}: {why}", path.display())).hint("give another --out to begin anew")
    };
    match fs::read_to_string(path) {
        Ok(text) => settings_of(&text).map(Some).map_err(cannot),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(cannot(io_reason(&e))),
    }
}

/// The settings that a run's `config.toml` holds; what is wrong with it otherwise.
fn settings_of(text: &str) -> Result<Settings, String> {
    let mut table: toml::Table = toml::from_str(text).map_err(|e| e.message().to_owned())?;
    // Version 0.1 had another key, and names that meant other kernels.
    if let Some(toml::Value::String(choice)) = table.remove("norm") {
        let norm = NormVariant::of_version_0_1(&choice).map_err(|e| e.message().to_owned())?;
        table.insert("norm_variant".into(), norm.name().into());
    }
    table.try_into().map_err(|e: toml::de::Error| e.message().to_owned())
}

fn write_settings(path: &Path, settings: &Settings) -> Result<()> {
    let cannot = |why: String| Error::new(format!("cannot write {}: {why}", path.display()));
    let text = toml::to_string(settings).map_err(|e| cannot(e.to_string()))?;
    let text = format!(
        "# What this run is, as ugatit {} wrote it. Checkpoints have their own copy of all that must not\n\
         # change in a run.\n{text}",
        env!("CARGO_PKG_VERSION")
    );
    write_whole(path, text.as_bytes())
}

/// The programs of a training run, planned but not loaded, and the memory they need.
#[derive(Clone, Debug)]
pub struct TrainingPlan {
    /// The memory layout.
    pub model: Model,
    /// The training step.
    pub step: Planned,
    /// A column of a sample grid.
    pub sample_grid: Planned,
}

/// Memory of a training run, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Needs {
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
    /// Plans a run without any device.
    ///
    /// # Errors
    /// When the configuration makes no network.
    pub fn new(cfg: &Config, batch_size: usize, norm: NormVariant) -> Result<Self> {
        cfg.check()?;
        let mut model = Model::for_training(cfg);
        let options = LowerOptions::from(norm);
        let (step, _) = record_step(&mut model, batch_size, Recording::default());
        let (sample_grid, _) = record_sample_grid(&mut model, 1);
        let step = plan_with("training step", &step, &model.layout, options)?;
        let sample_grid = plan_with("sample grid", &sample_grid, &model.layout, options)?;
        Ok(Self { model, step, sample_grid })
    }

    /// Floating-point operations of a step.
    pub fn flops(&self) -> u64 {
        self.step.program.launches.iter().map(|l| l.flops).sum()
    }

    /// How much memory of a device it takes.
    pub fn needs(&self) -> Needs {
        let of = |wanted: &dyn Fn(&str) -> bool| {
            self.model.layout.buffers().filter(|(name, ..)| wanted(name)).map(|(.., bytes)| bytes).sum()
        };
        let weights = of(&|name| name.ends_with("weights") || name.ends_with("vectors"));
        let gradients = of(&|name| name.ends_with("gradients"));
        let moments = of(&|name| name.ends_with("moments"));
        let (state, activations, sample_grid) =
            (self.model.layout.bytes(), self.step.program.arena_bytes, self.sample_grid.program.arena_bytes);
        Needs {
            weights,
            gradients,
            moments,
            inputs: state - weights - gradients - moments,
            activations,
            sample_grid,
            total: state + activations + sample_grid,
        }
    }
}

/// The images of the sample grids: the same ones on every sample grid of a run, so that sample grids can be
/// compared, and training goes on undisturbed. (The reference uses up five training batches for each
/// sample grid, so that its sample grids show other images every time.)
struct Samples {
    /// An image of A and one of B by column: training images, then test images.
    columns: Vec<(Rgb8, Rgb8)>,
    /// How many are training images.
    train: usize,
}

impl Samples {
    fn choose(data: &Dataset, size: usize) -> Self {
        let pairs = |a: &Folder, b: &Folder| -> Vec<(Rgb8, Rgb8)> {
            let take = |folder: &Folder| {
                let samples = folder.samples(SAMPLE_GRID_COLUMNS).into_iter();
                samples.map(|(_, image)| resize_bilinear(&image, size, size))
            };
            take(a).zip(take(b)).collect()
        };
        let mut columns = pairs(&data.train_a, &data.train_b);
        let train = columns.len();
        columns.extend(pairs(&data.test_a, &data.test_b));
        Self { columns, train }
    }
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
    pub fn open(start: Start, settings: Settings, device: Choice, tell: Tell<'_>) -> Result<Self> {
        let Start { folder, checkpoint, warnings, .. } = start;
        let cfg = &settings.model;
        warnings.into_iter().for_each(|w| tell(Event::Warning(w)));
        cfg.check()?;
        let done = checkpoint.as_ref().map_or(0, |c| c.meta().step);
        if done > cfg.iterations {
            return Err(Error::new(format!("--steps {}, but step {done} is done already", cfg.iterations))
                .hint("give more --steps"));
        }
        if settings.batch_size == 0 {
            return Err(Error::new("--batch-size 0 trains nothing").hint("give at least 1"));
        }
        if !settings.norm.trains() {
            return Err(Error::new(format!(
                "the {} norm does not train: small GPUs refuse it",
                settings.norm
            ))
            .hint(format!("train with {}", NormVariant::names(NormVariant::trains))));
        }
        let data = Dataset::open(&settings.data)?;
        data.notes().iter().for_each(|note| tell(Event::Warning(note.clone())));
        let found = [&data.train_a, &data.train_b, &data.test_a, &data.test_b].map(|f| f.images.len());
        tell(Event::Note(format!(
            "images: {} of A and {} of B to train with, {} and {} to test",
            found[0], found[1], found[2], found[3]
        )));
        let plan = TrainingPlan::new(cfg, settings.batch_size, settings.norm)?;
        let (needs, flops) = (plan.needs(), plan.flops());
        let (device, which) = select::open(device)?;
        tell(Event::Note(format!("device: {which}")));
        tell(Event::Note(format!(
            "norms: {}; {} launches a step",
            settings.norm,
            plan.step.program.launches.len()
        )));
        let emulated = device.lock().kind() == DeviceKind::Emulator;
        tell(Event::Note(format!(
            "memory: {} of {} free: {} for weights, gradients and moments, {} for activations",
            format::bytes(needs.total),
            format::bytes(device.lock().memory()?.free),
            format::bytes(needs.weights + needs.gradients + needs.moments),
            format::bytes(needs.activations + needs.sample_grid),
        )));
        let mut trainer = Trainer::with_options(
            &device,
            cfg,
            settings.batch_size,
            1,
            Recording::default(),
            settings.norm.into(),
        )?;
        let seconds = emulator_seconds(flops);
        if emulated && seconds > SLOW_STEP {
            tell(Event::Warning(format!(
                "the emulator will take {} or so for each step; a small network (--light --size 32 --ch 8 \
                 --n-res 2 --n-dis 4) takes less than a second",
                format::duration(seconds)
            )));
        }
        let samples = Samples::choose(&data, cfg.img_size);
        let fingerprint = data.fingerprint();
        match checkpoint {
            Some(mut checkpoint) => {
                checkpoint.load_into(&mut trainer)?;
                let meta = checkpoint.meta();
                if meta.images != fingerprint {
                    tell(Event::Warning(format!(
                        "the training images in {} are not those that the run was started with",
                        settings.data.display()
                    )));
                }
                tell(Event::Note(match done == cfg.iterations {
                    true => format!("all {done} steps are done already"),
                    false => format!("resuming after step {done}: {}", checkpoint.path().display()),
                }));
                if meta.config.iterations != cfg.iterations {
                    tell(Event::Note(format!(
                        "the run is now of {} steps, not {}; the learning rate follows",
                        cfg.iterations, meta.config.iterations
                    )));
                }
            }
            None => trainer.initialise(settings.seed)?,
        }

        for path in [folder.checkpoints(), folder.samples()] {
            fs::create_dir_all(&path).map_err(|e| cannot_write(&path, &e))?;
        }
        let lock = lock(&folder)?;
        for path in [folder.0.clone(), folder.checkpoints(), folder.samples()] {
            for path in checkpoint::remove_temporary(&path)? {
                tell(Event::Note(format!(
                    "removed {}, left behind by a run that was killed",
                    path.display()
                )));
            }
        }
        let losses = LossTable::open(&folder.losses(), &LOSS_NAMES, done)?;
        write_settings(&folder.config(), &settings)?;
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
    pub fn run(mut self, stop: &AtomicBool, tell: Tell<'_>) -> Result<Outcome> {
        let steps = self.settings.model.iterations;
        while self.done < steps {
            if stop.load(Ordering::Relaxed) {
                self.save(tell)?;
                return Ok(Outcome::Interrupted);
            }
            let losses = match self.advance(tell) {
                Ok(losses) => losses,
                Err(Failure::Broken(error)) => return Err(error),
                Err(Failure::Around(error)) => {
                    // The first error is the one to tell.
                    let _ = self.save(tell);
                    return Err(error);
                }
            };
            tell(Event::Step { step: self.done, losses: &losses });
            if is_due(self.done, self.settings.save_every) && self.done < steps {
                self.save(tell)?;
            }
        }
        self.save(tell)?;
        Ok(Outcome::Done)
    }

    /// One step, its row of losses, and its sample grid if one is due.
    fn advance(&mut self, tell: Tell<'_>) -> Result<Losses, Failure> {
        let batch = self.images.next_batch().map_err(Failure::Around);
        self.images.take_warnings().into_iter().for_each(|w| tell(Event::Warning(w)));
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
            return Err(Failure::Broken(error.hint(format!("{kept}; try a new run with a lower --lr"))));
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
        let Samples { columns, train } = &self.samples;
        if columns.is_empty() {
            return Ok(());
        }
        let size = self.settings.model.img_size;
        let inputs = |image: &Rgb8| to_input(image, size);
        let (a, b): (Vec<_>, Vec<_>) = columns.iter().map(|(a, b)| (inputs(a), inputs(b))).unzip();
        // One column at a time: a tenth of the memory.
        let passes =
            a.iter().zip(&b).map(|(a, b)| self.trainer.sample_grid(a, b)).collect::<Result<Vec<_>>>()?;
        let halves = [half(&a, &passes, 0, *train, size), half(&b, &passes, 1, *train, size)];
        let grid = sample_grid(&halves, size, (size / 4, size / 4))?;
        save_png(&self.folder.sample(self.done), &grid)
    }

    /// Writes the checkpoint of the weights as they are, if there is something new to save.
    fn save(&mut self, tell: Tell<'_>) -> Result<()> {
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
        };
        checkpoint::save(&mut self.trainer, &meta, &path)?;
        self.saved = Some(self.done);
        tell(Event::Note(format!("saved {}", path.display())));
        checkpoint::prune(&self.folder.checkpoints(), self.settings.keep)?;
        Ok(())
    }
}

/// The columns of the images `real` that the generator of direction `d` translates, from what
/// [`Trainer::sample_grid`] gave for each.
fn half<'a>(
    real: &'a [Vec<f32>],
    passes: &'a [[Vec<f32>; 4]],
    d: usize,
    train: usize,
    size: usize,
) -> Half<'a> {
    fn part(all: &[f32], i: usize, len: usize) -> &[f32] {
        &all[i * len..(i + 1) * len]
    }
    // The passes are (A2B, B2B) by direction 0 and (B2A, A2A) by direction 1; the cycles are B2A2B, A2B2A.
    let (translation, identity, cycle) = (2 * d, 2 * (1 - d) + 1, 1 - d);
    let (image, map) = (size * size * 3, (size / 4) * (size / 4));
    let column = |(real, [first, first_maps, back, back_maps]): (&'a Vec<f32>, &'a [Vec<f32>; 4])| Column {
        real,
        outputs: [part(first, identity, image), part(first, translation, image), part(back, cycle, image)],
        heatmaps: [
            part(first_maps, identity, map),
            part(first_maps, translation, map),
            part(back_maps, cycle, map),
        ],
    };
    let mut columns: Vec<Column<'a>> = real.iter().zip(passes).map(column).collect();
    let test = columns.split_off(train);
    let [source, target] = [['A', 'B'], ['B', 'A']][d];
    Half { source, target, train: columns, test }
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
fn emulator_seconds(flops: u64) -> f64 {
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

/// Keeps a second training out of the folder, until the returned handle is closed or the process ends.
fn lock(folder: &RunFolder) -> Result<Option<File>> {
    // Not every system opens folders, and not every file system has locks: then there is no such guard.
    let Ok(handle) = File::open(&folder.0) else { return Ok(None) };
    match handle.try_lock() {
        Err(TryLockError::WouldBlock) => {
            Err(Error::new(format!("another training is writing to {}", folder.0.display()))
                .hint("wait for it, or give another --out"))
        }
        Ok(()) | Err(TryLockError::Error(_)) => Ok(Some(handle)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_s_settings_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        assert_eq!(read_settings(&path), Ok(None));
        let model = Config { lr: 1.234_567_890_123e-5, iterations: 7, ..Config::default() };
        let settings = Settings {
            data: "a \"b\" c".into(),
            seed: i64::MAX as u64,
            norm: NormVariant::Composed,
            model,
            ..Settings::default()
        };
        write_settings(&path, &settings).unwrap();
        assert_eq!(read_settings(&path), Ok(Some(settings)));
        // Folders of version 0.1, and from before there was a choice of norms.
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("norm_variant = \"composed\"\n"));
        for (older, norm) in [
            ("", NormVariant::PadFused),
            ("norm = \"fused\"\n", NormVariant::PadFused),
            ("norm = \"composed\"\n", NormVariant::Composed),
            ("norm = \"elementary\"\n", NormVariant::Elementary),
        ] {
            fs::write(&path, text.replace("norm_variant = \"composed\"\n", older)).unwrap();
            assert_eq!(read_settings(&path).unwrap().unwrap().norm, norm, "{older}");
        }
        fs::write(&path, text.replace("norm_variant = \"composed\"", "norm = \"vectorised\"")).unwrap();
        assert!(read_settings(&path).unwrap_err().message().ends_with("unknown norm 'vectorised'"));
        fs::write(&path, "seed = -1").unwrap();
        assert!(read_settings(&path).unwrap_err().message().starts_with("cannot read "));
    }

    #[test]
    fn a_full_size_run_s_memory_adds_up() {
        let plan = TrainingPlan::new(&Config { light: true, ..Config::default() }, 1, NormVariant::PadFused)
            .unwrap();
        let needs = plan.needs();
        let weights = 4 * 2 * (10_589_888 + 53_130_176 + 3_290_560);
        assert!(needs.gradients.abs_diff(weights) < 4096 && needs.moments == 2 * needs.gradients);
        assert!((weights..weights + (1 << 20)).contains(&needs.weights));
        let parts = needs.weights + needs.gradients + needs.moments + needs.inputs + needs.activations;
        assert_eq!(needs.total, parts + needs.sample_grid);
    }
}
