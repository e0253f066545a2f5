//! Whole programs: a training step, and a pass of one generator. On a GPU time by events and memory, against what the
//! same GPU reached in a copy and in a large convolution; on the emulator its own seconds. Predicted time stands beside.

pub mod record;
mod table;

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use record::{Emulated, Measured, Predicted, Record, Work};

use super::ceilings::Ceilings;
use super::place::Place;
use super::record::{read_all, write};
use crate::device::Program;
use crate::device::executable::{DeviceHandle, Executable, LaunchMode};
use crate::device::select::Choice;
use crate::model::{Counter, Machine};
use crate::nn::Config;
use crate::stats::median;
use crate::tape::{LowerOptions, NormVariant, Precision};
use crate::train::run::emulator_seconds;
use crate::train::{Inference, InferencePlan, Recording, Trainer, TrainingPlan};
use crate::{Error, Result};

/// Samples where none are asked for: on a GPU, on the emulator.
const SAMPLES: [usize; 2] = [20, 3];
/// A run that would take the emulator longer, in seconds, is predicted only.
const TOO_LONG: f64 = 30.0;
/// Of weights and images.
const SEED: u64 = 1;

/// What to do. Empty lists mean the default.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The networks.
    pub cfg: Config,
    /// Images, of a step those of each domain: 1.
    pub batch: Vec<usize>,
    /// Variants of the norms: the default one.
    pub norm: Vec<NormVariant>,
    /// What convolutions multiply: all that the device takes.
    pub precision: Vec<Precision>,
    /// What to measure on.
    pub device: Option<Choice>,
    /// The GPU to predict for; None: the GPU at hand where there are constants of it, on the emulator an H100. On the emulator
    /// it is what the plan is for too.
    pub machine: Option<&'static Machine>,
    /// Runs that are timed, after as many that are not.
    pub samples: Option<usize>,
    /// File for the records.
    pub json: Option<PathBuf>,
    /// Measures nothing: the records of these files are shown as one table.
    pub show: Vec<PathBuf>,
}

/// A benchmark under way.
struct Bench<'a> {
    options: &'a Options,
    place: Place,
    counter: Counter,
}

/// Runs the benchmark, shows its table on `out` and returns the records.
///
/// # Errors
/// When the configuration makes no network, the device fails, or a file cannot be read or written.
pub fn run(work: Work, options: &Options, out: &mut dyn Write) -> Result<Vec<Record>> {
    let told = |e: std::io::Error| Error::io("cannot write the table", &e);
    if !options.show.is_empty() {
        let records = read_all(&options.show)?;
        table::print(&records, out)?;
        return Ok(records);
    }
    options.cfg.check()?;
    let mut bench = Bench::open(options)?;
    writeln!(out, "{}", bench.describe()).map_err(told)?;
    let mut records: Vec<Record> = Vec::new();
    let precisions = if options.precision.is_empty() { &Precision::ALL[..] } else { &options.precision[..] };
    let norms = if options.norm.is_empty() { vec![NormVariant::default()] } else { options.norm.clone() };
    let batches = if options.batch.is_empty() { vec![1] } else { options.batch.clone() };
    for &batch in &batches {
        for &norm in &norms {
            for &precision in precisions {
                let options = LowerOptions { norm, precision, ..LowerOptions::on(bench.place.target) };
                let planned = bench.plan(work, &bench.options.cfg, batch, options)?;
                if let Err(e) = bench.place.device.lock().check_launches(planned.program()) {
                    if bench.options.precision.contains(&precision) {
                        return Err(e);
                    }
                    // Nobody asked for this one by name.
                    writeln!(out, "{precision} is left out: {}", e.message()).map_err(told)?;
                    continue;
                }
                records.push(bench.one(planned, batch, options)?);
                let slow = records.last().is_some_and(|r| r.emulator.is_none());
                if bench.place.is_emulated() && slow {
                    let small = small(&bench.options.cfg);
                    let planned = bench.plan(work, &small, batch, options)?;
                    records.push(bench.one(planned, batch, options)?);
                }
            }
        }
    }
    table::print(&records, out)?;
    if let Some(path) = &options.json {
        write(path, &records)?;
    }
    Ok(records)
}

/// A network that the emulator runs in a second or so.
fn small(cfg: &Config) -> Config {
    Config { img_size: 32, ch: 8, n_res: 2, n_dis: 4, ..cfg.clone() }
}

/// A program that is not loaded yet.
enum Planned {
    Step(Box<TrainingPlan>),
    Infer(Box<InferencePlan>),
}

impl Planned {
    fn program(&self) -> &Program {
        match self {
            Self::Step(plan) => &plan.step.program,
            Self::Infer(plan) => &plan.pass.program,
        }
    }

    fn cfg(&self) -> &Config {
        match self {
            Self::Step(plan) => &plan.model.cfg,
            Self::Infer(plan) => &plan.model.cfg,
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Step(plan) => plan.memory().total,
            Self::Infer(plan) => plan.bytes(),
        }
    }

    fn load(self, device: &DeviceHandle, batch: usize) -> Result<Loaded> {
        let pixels = batch * self.cfg().image_len();
        // Neither flat nor noise: a fine pattern over a coarse one, in [-1, 1].
        let image: Vec<f32> =
            (0..pixels).map(|i| (i as f32 * 0.37).sin() * 0.3 + (i as f32 * 0.001).cos() * 0.7).collect();
        Ok(match self {
            Self::Step(plan) => {
                let mut trainer = Trainer::load(device, *plan)?;
                trainer.initialise(SEED)?;
                Loaded::Step { trainer: Box::new(trainer), done: 0, image }
            }
            Self::Infer(plan) => {
                let mut inference = Inference::load(device, *plan)?;
                inference.initialise(SEED)?;
                Loaded::Infer { inference: Box::new(inference), image }
            }
        })
    }
}

/// A program with weights and images.
enum Loaded {
    Step { trainer: Box<Trainer>, done: u64, image: Vec<f32> },
    Infer { inference: Box<Inference>, image: Vec<f32> },
}

impl Loaded {
    fn executable(&self) -> &Executable {
        match self {
            Self::Step { trainer, .. } => trainer.executable(),
            Self::Infer { inference, .. } => inference.executable(),
        }
    }

    /// Starts a run with new inputs, as training and translation do; a pass also reads its results.
    fn run(&mut self) -> Result<()> {
        match self {
            Self::Step { trainer, done, image } => {
                *done += 1;
                trainer.step(*done, image, image)
            }
            Self::Infer { inference, image } => inference.translate(image).map(|_| ()),
        }
    }

    /// Refuses to report the time of what computed nonsense.
    fn check(&mut self) -> Result<()> {
        let fine = match self {
            Self::Step { trainer, .. } => trainer.losses()?.0.iter().all(|loss| loss.is_finite()),
            Self::Infer { inference, image } => {
                let (made, _) = inference.translate(image)?;
                made.iter().all(|v| v.abs() <= 1.0) && made.iter().any(|v| *v != made[0])
            }
        };
        if fine {
            Ok(())
        } else {
            Err(Error::new("what was run gave no sensible result, so its time is none"))
        }
    }
}

impl<'a> Bench<'a> {
    fn open(options: &'a Options) -> Result<Self> {
        let place = Place::open(options.device, options.machine)?;
        Ok(Self { options, place, counter: Counter::default() })
    }

    /// What the figures of the table are.
    fn describe(&self) -> String {
        let predicted = match self.place.machine {
            Some(machine) => format!("predicted: for {}, by the machine model", machine.name),
            None => "nothing is predicted: there are no constants of this GPU".to_owned(),
        };
        match &self.place.ceilings {
            Some(c) => format!(
                "{}; copy {:.0} GB/s (read + written), {} {:.1} TFLOP/s, both measured now; ms: the median by events; {predicted}",
                self.place.origin.device, c.copy_gb_per_s, c.matrix, c.matrix_tflop_per_s
            ),
            None => format!("emulator: its seconds are no GPU's; {predicted}"),
        }
    }

    fn plan(&self, work: Work, cfg: &Config, batch: usize, options: LowerOptions) -> Result<Planned> {
        Ok(match work {
            Work::Step => {
                Planned::Step(Box::new(TrainingPlan::new(cfg, batch, 0, Recording::default(), options)?))
            }
            Work::Infer => Planned::Infer(Box::new(InferencePlan::new(cfg, 0, batch, options)?)),
        })
    }

    fn one(&mut self, planned: Planned, batch: usize, options: LowerOptions) -> Result<Record> {
        let program = planned.program();
        let flops = program.launches.iter().map(|l| l.flops).sum();
        let predicted = match self.place.machine {
            Some(machine) => {
                let launches = self.counter.count(program, &|_| ())?.predict(program, machine);
                let milliseconds = launches.iter().map(|p| p.time.us).sum::<f64>() / 1e3;
                Some(Predicted { gpu: machine.key.to_owned(), milliseconds })
            }
            None => None,
        };
        let cfg = planned.cfg();
        let mut record = Record {
            origin: self.place.origin.clone(),
            work: if matches!(planned, Planned::Step(_)) { Work::Step } else { Work::Infer },
            variant: options.norm.name().to_owned(),
            precision: options.precision.name().to_owned(),
            light: cfg.light,
            size: cfg.img_size,
            ch: cfg.ch,
            n_res: cfg.n_res,
            n_dis: cfg.n_dis,
            batch,
            launches: Some(program.launches.len()),
            planned_bytes: Some(planned.bytes()),
            measured: None,
            emulator: None,
            predicted,
        };
        let samples = self.options.samples.unwrap_or(SAMPLES[usize::from(self.place.is_emulated())]).max(1);
        if self.place.is_emulated() && emulator_seconds(flops) > TOO_LONG {
            return Ok(record);
        }
        let loaded = planned.load(&self.place.device, batch)?;
        match self.place.ceilings.clone() {
            Some(ceilings) => record.measured = Some(self.measure(loaded, samples, ceilings)?),
            None => record.emulator = Some(emulate(loaded, samples)?),
        }
        Ok(record)
    }

    fn measure(&self, mut loaded: Loaded, samples: usize, ceilings: Ceilings) -> Result<Measured> {
        for _ in 0..samples {
            loaded.run()?;
        }
        self.place.device.lock().synchronize()?;
        let start = Instant::now();
        for _ in 0..samples {
            loaded.run()?;
        }
        self.place.device.lock().synchronize()?;
        let wall_milliseconds = start.elapsed().as_secs_f64() * 1e3 / samples as f64;
        let mut times = Vec::with_capacity(samples);
        for _ in 0..samples {
            let ms = match &loaded {
                // Each has its inputs, so that training goes on.
                Loaded::Step { .. } => {
                    loaded.run()?;
                    let mut device = self.place.device.lock();
                    device.synchronize()?;
                    device.elapsed_ms()?
                }
                Loaded::Infer { .. } => loaded.executable().time(LaunchMode::Graph)?,
            };
            times.push(ms.ok_or_else(|| Error::new("the GPU gave no time"))?);
        }
        loaded.check()?;
        let peak_bytes = self.place.free.saturating_sub(self.place.device.lock().memory()?.free);
        Ok(Measured { milliseconds: median(times), wall_milliseconds, samples, peak_bytes, ceilings })
    }
}

/// Seconds of the emulator, after one run that is not counted.
fn emulate(mut loaded: Loaded, samples: usize) -> Result<Emulated> {
    let mut times = Vec::with_capacity(samples);
    for sample in 0..=samples {
        let start = Instant::now();
        loaded.run()?;
        loaded.executable().device().lock().synchronize()?;
        if sample > 0 {
            times.push(start.elapsed().as_secs_f64());
        }
    }
    loaded.check()?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(Emulated { seconds: median(times), samples, threads })
}
