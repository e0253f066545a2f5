//! Runs launches, on threads of the host.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use rayon::ThreadPool;

use crate::check::Races;
use crate::counters::tally::Tally;
use crate::counters::{LaunchCounters, Sample};
use crate::fault::Fault;
use crate::isa::{argument_base, variable_base};
use crate::launch::{Arg, Buffer, Launch, LaunchContext};
use crate::memory::Region;
use crate::module::Kernel;
use crate::options::{Options, WarpOrder};
use crate::schedule::{Worker, cooperative};
use crate::{Error, ErrorKind, Result};

/// Runs kernels, on threads of the host.
pub struct Emulator {
    options: Options,
    pool: ThreadPool,
    /// State of blocks, kept from launch to launch.
    workers: Mutex<Vec<Worker>>,
    races: Mutex<Races>,
    /// The cooperative launch that is running.
    cooperative: Mutex<Option<String>>,
}

/// A cooperative launch, as long as it runs.
struct Alone<'e>(&'e Mutex<Option<String>>);

impl<'e> Alone<'e> {
    /// # Errors
    /// When another one is running: each could hold the multiprocessors that the other's blocks wait for.
    fn start(running: &'e Mutex<Option<String>>, name: &str) -> Result<Self> {
        let mut now = running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = &*now {
            let what = format!(
                "launch of {name}: {other}, which is cooperative too, has not ended; each could hold the multiprocessors \
                 that blocks of the other wait for"
            );
            return Err(Error::new(ErrorKind::Launch, what));
        }
        *now = Some(name.to_owned());
        drop(now);
        Ok(Self(running))
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Emulator {
    /// An emulator that runs in that way.
    ///
    /// # Panics
    /// When the host starts no threads.
    pub fn new(options: Options) -> Self {
        let threads = if options.threads == 0 {
            std::thread::available_parallelism().map_or(1, usize::from)
        } else {
            options.threads
        };
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("emulator-{i}"))
            .build()
            .expect("the host can start threads");
        Self {
            options,
            pool,
            workers: Mutex::new(Vec::new()),
            races: Mutex::default(),
            cooperative: Mutex::default(),
        }
    }

    /// Threads of the host that run blocks.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Whether launches are counted.
    pub fn counting(&self) -> bool {
        self.options.count
    }

    /// Whether later launches are counted.
    pub fn set_counting(&mut self, on: bool) {
        self.options.count = on;
    }

    /// Runs a launch to its end; what it did, where counting is on.
    ///
    /// # Errors
    /// When the arguments do not fit the kernel, and at the first fault of the first block that has one: names
    /// the block, the thread, the source line and the variable.
    pub fn launch(&self, kernel: &Kernel, launch: &Launch) -> Result<Option<LaunchCounters>> {
        self.with_context(kernel, launch, false, |context| {
            let tally = self.run(context)?;
            Ok(context.count.then(|| context.counters(tally)))
        })
    }

    /// Runs one block of a launch by itself and counts it: what it costs, without the cost of the whole launch.
    /// Reads are not held against what was written, so the memory may be empty. `block` counts along x, then y,
    /// then z. Of a cooperative launch, whose blocks wait for each other, all blocks are run.
    ///
    /// # Errors
    /// As [`Self::launch`], and when there is no such block.
    pub fn sample(&self, kernel: &Kernel, launch: &Launch, block: u64) -> Result<Sample> {
        self.with_context(kernel, launch, true, |context| {
            if block >= context.blocks() {
                let of = context.blocks();
                let what = format!("launch of {}: no block {block} among {of}", kernel.name());
                return Err(Error::new(ErrorKind::Launch, what));
            }
            if context.cooperative {
                let tally = self.run(context)?;
                return Ok(Sample {
                    counters: context.counters(tally),
                    blocks: context.blocks(),
                    read_sectors: None,
                    busiest_warp: None,
                });
            }
            let mut worker = Worker::default();
            worker.begin(context);
            worker.tally.footprint = Some(HashSet::new());
            worker.run_block(context, block).map_err(|fault| context.error(block, *fault))?;
            let read_sectors = worker.tally.footprint.take().map(|sectors| sectors.len() as u64);
            let busiest_warp = worker.warps.iter().map(|warp| warp.executed).max();
            Ok(Sample { counters: context.counters(worker.tally), blocks: 1, read_sectors, busiest_warp })
        })
    }

    /// Checks a launch and binds its arguments.
    fn with_context<R>(
        &self,
        kernel: &Kernel,
        launch: &Launch,
        sampled: bool,
        run: impl FnOnce(&LaunchContext) -> Result<R>,
    ) -> Result<R> {
        let code = &*kernel.code;
        check(kernel, launch)?;
        let _alone = match launch.cooperative && !sampled {
            true => Some(Alone::start(&self.cooperative, kernel.name())?),
            false => None,
        };
        let mut args = Vec::with_capacity(launch.args.len());
        let mut regions = Vec::with_capacity(launch.args.len());
        let mut nulls = Vec::new();
        for (i, arg) in launch.args.iter().enumerate() {
            let param = parameter(kernel, launch, i);
            let (bits, region) = match *arg {
                Arg::Null => {
                    nulls.push(format!("`{param}`"));
                    (0, None)
                }
                Arg::I32(v) => (u64::from(v as u32), None),
                Arg::U32(v) => (u64::from(v), None),
                Arg::F32(v) => (u64::from(v.to_bits()), None),
                Arg::Buffer(Buffer { memory, offset, bytes, name }) => {
                    let base = argument_base(i, offset);
                    let region = Region {
                        memory,
                        start: offset,
                        len: bytes,
                        base,
                        all_written: sampled || memory.first_unwritten(offset, bytes).is_none(),
                        read_only: false,
                        name: name.to_owned(),
                        param: param.to_owned(),
                    };
                    (base, Some(region))
                }
            };
            args.push(bits);
            regions.push(region);
        }
        let module = kernel.module();
        let variables: Vec<Region> = module
            .variables()
            .iter()
            .enumerate()
            .map(|(i, (v, memory))| Region {
                memory,
                start: 0,
                len: u64::from(v.bytes),
                base: variable_base(i),
                all_written: true,
                read_only: v.space == ptx::Space::Const,
                name: v.name.clone(),
                param: String::new(),
            })
            .collect();
        let dynamic = launch.shared_bytes;
        let context = LaunchContext {
            code,
            grid: launch.grid,
            block: launch.block,
            shared_bytes: if dynamic == 0 {
                code.shared_bytes
            } else {
                code.shared_bytes.next_multiple_of(16) + dynamic
            },
            dynamic_shared: dynamic,
            args,
            regions,
            variables: &variables,
            nulls,
            label: launch.label,
            module: module.name(),
            source_root: module.source_root(),
            files: &module.ptx().files,
            reverse: self.options.warp_order == WarpOrder::Reverse,
            max_instructions: self.options.max_instructions,
            cooperative: launch.cooperative,
            count: sampled || self.options.count,
            races: (self.options.check_races && !sampled).then_some(&self.races),
        };
        run(&context)
    }

    /// Runs all blocks of a launch; the fault of the first block that has one.
    fn run(&self, context: &LaunchContext) -> Result<Tally> {
        if let Some(races) = context.races {
            let ordered = context.cooperative || context.code.orders_blocks;
            races.lock().unwrap_or_else(PoisonError::into_inner).start(context.code.global_granule, ordered);
        }
        if context.cooperative {
            return cooperative::run(context).map_err(|(b, fault)| context.error(b, *fault));
        }
        let blocks = context.blocks();
        let next = AtomicU64::new(0);
        let stop = AtomicU64::new(u64::MAX);
        let total = Mutex::new(Tally::default());
        let lock = || self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let work = || -> Option<(u64, Box<Fault>)> {
            let mut worker = lock().pop().unwrap_or_default();
            worker.begin(context);
            let mut fault = None;
            loop {
                // Blocks start in order, so those before a faulty one all run to their end.
                let b = next.fetch_add(1, Relaxed);
                if b >= blocks || b > stop.load(Relaxed) {
                    break;
                }
                if let Err(f) = worker.run_block(context, b) {
                    stop.fetch_min(b, Relaxed);
                    fault = Some((b, f));
                    break;
                }
            }
            if context.count {
                total.lock().unwrap_or_else(PoisonError::into_inner).add(&worker.tally);
            }
            lock().push(worker);
            fault
        };
        let faults: Vec<Option<(u64, Box<Fault>)>> =
            if blocks == 1 || context.races.is_some() || self.pool.current_num_threads() == 1 {
                vec![work()]
            } else {
                self.pool.broadcast(|_| work())
            };
        match faults.into_iter().flatten().min_by_key(|(b, _)| *b) {
            Some((b, fault)) => Err(context.error(b, *fault)),
            None => Ok(total.into_inner().unwrap_or_else(PoisonError::into_inner)),
        }
    }
}

/// The name of a parameter in messages.
fn parameter<'a>(kernel: &'a Kernel, launch: &Launch<'a>, i: usize) -> &'a str {
    launch.names.get(i).copied().or_else(|| kernel.params().get(i).map(|(name, _)| &**name)).unwrap_or("")
}

/// Whether a launch fits its kernel.
fn check(kernel: &Kernel, launch: &Launch) -> Result<()> {
    let fail =
        |what: String| Err(Error::new(ErrorKind::Launch, format!("launch of {}: {what}", kernel.name())));
    let params = kernel.params();
    if launch.args.len() != params.len() {
        return fail(format!("{} arguments, but it takes {}", launch.args.len(), params.len()));
    }
    for (i, ((_, kind), arg)) in params.iter().zip(launch.args).enumerate() {
        let name = parameter(kernel, launch, i);
        let fits = match kind {
            ptx::ParamKind::Pointer => matches!(arg, Arg::Null | Arg::Buffer(_)),
            ptx::ParamKind::Int32 => matches!(arg, Arg::I32(_) | Arg::U32(_)),
            ptx::ParamKind::Float32 => matches!(arg, Arg::F32(_)),
            ptx::ParamKind::Bytes(_) => false,
        };
        if !fits {
            return fail(format!("parameter {name} is {kind:?}, but the argument is of another kind"));
        }
        if let Arg::Buffer(b) = arg
            && b.offset.checked_add(b.bytes).is_none_or(|end| end > b.memory.len())
        {
            return fail(format!("{name} reaches past the end of its memory of {} bytes", b.memory.len()));
        }
    }
    let threads: u64 = launch.block.iter().map(|&n| u64::from(n)).product();
    let most = u64::from(kernel.code.max_threads);
    if threads == 0 || threads > most {
        return fail(format!("{threads} threads a block, but at most {most} are allowed"));
    }
    if launch.grid.contains(&0) || launch.grid[1] > 65535 || launch.grid[2] > 65535 {
        return fail(format!("grid {:?} is empty or too large", launch.grid));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cooperative_launches_run_alone() {
        let running = Mutex::default();
        let first = Alone::start(&running, "first").expect("nothing runs");
        let error = Alone::start(&running, "second").err().expect("the first runs");
        assert!(error.message().contains("launch of second: first, which is cooperative too"), "{error}");
        drop(first);
        assert!(Alone::start(&running, "third").is_ok());
    }
}
