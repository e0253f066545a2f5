//! A whole program: each launch's work counted on one block of it, then timed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use ptx_emulator::{LaunchCounters, Memory, Module, Sample};
use rayon::prelude::*;

use super::{Cache, Machine, Time, Work, time};
use crate::Result;
use crate::device::emulator::with_buffers;
use crate::device::{Arg, Launch, Program};

/// The predicted time of one launch, and what it follows from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// What it asks of a GPU.
    pub work: Work,
    /// What it takes.
    pub time: Time,
}

/// How far a prediction has come: blocks run, of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Different launches counted.
    pub done: usize,
    /// Different launches in all.
    pub of: usize,
}

/// What two launches must have in common to do the same work: all but the contents of their buffers.
type Key = (&'static str, [u32; 3], [u32; 3], u32, Vec<(u64, u32)>);

fn key(launch: &Launch) -> Key {
    let args = launch.args().iter().map(|arg| match *arg {
        Arg::Null => (0, 0),
        Arg::Buffer(r) => (r.bytes, 1),
        Arg::I32(v) => (0, v as u32),
        Arg::U32(v) => (0, v),
        // No kernel's control flow depends on one.
        Arg::F32(_) => (0, 2),
    });
    (launch.kernel.name, launch.grid, launch.block, launch.shared_bytes, args.collect())
}

/// Counts of a program's launches: what predictions for any GPU start from.
#[derive(Clone, Debug)]
pub struct Counted {
    samples: Vec<Arc<Sample>>,
    /// Of each launch its sample.
    places: Vec<usize>,
}

impl Counted {
    /// From what the emulator counted when it ran every block of every launch of the program.
    pub fn of_run(program: &Program, counters: Vec<LaunchCounters>) -> Self {
        let blocks = program.launches.iter().map(Launch::blocks);
        let whole = |(counters, blocks)| Sample { counters, blocks, read_sectors: None, busiest_warp: None };
        let samples: Vec<Arc<Sample>> = counters.into_iter().zip(blocks).map(whole).map(Arc::new).collect();
        Self { places: (0..samples.len()).collect(), samples }
    }

    /// What was counted of each launch, in order.
    pub fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.places.iter().map(|&place| &*self.samples[place])
    }

    /// Predicts every launch of the program that was counted, in order.
    pub fn predict(&self, program: &Program, machine: &Machine) -> Vec<Prediction> {
        let mut cache = Cache::default();
        let predict = |(launch, place): (&Launch, &usize)| {
            let dram = cache.dram_bytes(program, launch, machine);
            let work = Work::counted(launch, &self.samples[*place], machine, dram);
            Prediction { work, time: time(machine, &work) }
        };
        // Where launches repeat from step to step, so does what the L2 holds at the first.
        program.launches.iter().zip(&self.places).map(predict).collect()
    }
}

/// Predicts every launch of a program, in order: [`count`], then [`Counted::predict`].
///
/// # Errors
/// As [`count`].
pub fn predict(
    program: &Program,
    machine: &Machine,
    progress: &(dyn Fn(Step) + Sync),
) -> Result<Vec<Prediction>> {
    Ok(count(program, progress)?.predict(program, machine))
}

/// Counts every launch of a program. One block of each different launch is run on the emulator, over empty memory of the
/// true size: a training step of 256 pixels takes some seconds.
///
/// # Errors
/// When a kernel is faulty, or the host has no address space for its buffers.
pub fn count(program: &Program, progress: &(dyn Fn(Step) + Sync)) -> Result<Counted> {
    Counter::default().count(program, progress)
}

/// Counts programs one after the other, each different launch once.
#[derive(Default)]
pub struct Counter {
    known: HashMap<Key, Arc<Sample>>,
}

impl Counter {
    /// Counts a program, as [`count`].
    ///
    /// # Errors
    /// As [`count`].
    pub fn count(&mut self, program: &Program, progress: &(dyn Fn(Step) + Sync)) -> Result<Counted> {
        let mut different: Vec<&Launch> = Vec::new();
        let mut keys: Vec<Key> = Vec::new();
        let mut index: HashMap<Key, usize> = HashMap::new();
        let places: Vec<usize> = program
            .launches
            .iter()
            .map(|launch| {
                *index.entry(key(launch)).or_insert_with_key(|key| {
                    different.push(launch);
                    keys.push(key.clone());
                    different.len() - 1
                })
            })
            .collect();
        let mut modules: HashMap<&str, Module> = HashMap::new();
        for launch in &different {
            let module = launch.kernel.module;
            if !modules.contains_key(module.file) {
                modules.insert(module.file, Module::named(module.file, module.ptx)?);
            }
        }
        let done = AtomicUsize::new(0);
        // A block runs on the thread that asks for it.
        let options = ptx_emulator::Options { threads: 1, ..Default::default() };
        let emulator = ptx_emulator::Emulator::new(options);
        let known = &self.known;
        let samples: Result<Vec<Arc<Sample>>> = different
            .par_iter()
            .zip(&keys)
            .map(|(launch, key)| {
                let sample = match known.get(key) {
                    Some(sample) => sample.clone(),
                    None => Arc::new(sample(&emulator, &modules[launch.kernel.module.file], launch)?),
                };
                progress(Step { done: done.fetch_add(1, Relaxed) + 1, of: different.len() });
                Ok(sample)
            })
            .collect();
        let samples = samples?;
        self.known.extend(keys.into_iter().zip(samples.iter().cloned()));
        Ok(Counted { samples, places })
    }
}

/// Runs a block from the middle of a launch: one at the rim may have less to do.
fn sample(emulator: &ptx_emulator::Emulator, module: &Module, launch: &Launch) -> Result<Sample> {
    let kernel = module.kernel(launch.kernel.name)?;
    let middle = launch.blocks() / 2;
    let mut memories = Vec::new();
    for arg in launch.args() {
        if let Arg::Buffer(r) = arg {
            memories.push(Memory::new(r.bytes)?);
        }
    }
    let mut next = memories.iter();
    with_buffers(
        launch,
        |r| {
            let memory = next.next().expect("one for each buffer");
            Ok(ptx_emulator::Buffer { memory, offset: 0, bytes: r.bytes, name: "" })
        },
        |launch| emulator.sample(&kernel, launch, middle),
    )
}
