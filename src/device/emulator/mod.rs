//! The emulator: runs the PTX that NVRTC produced, on the CPU, checking every access.
//!
//! `parse` reads PTX, `decode` turns a kernel into compact instructions over register slots,
//! `exec` runs a warp of them, `access` does its loads and stores, `block` holds the warps and the
//! shared memory of a block, `job` what one launch's blocks share, `resident` runs blocks that wait for
//! each other, `memory` the global memory.

mod access;
mod alu;
mod block;
mod code;
mod copies;
mod count;
mod decode;
mod exec;
mod job;
mod matrix;
mod memory;
mod parse;
mod races;
mod resident;
mod shared;
mod small;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::ThreadPool;

use crate::device::{Allocation, Arg, Device, DeviceKind, Launch, MemoryInfo, Prepared, Program, Space};
use crate::kernels::{Kernel, Module, Param};
use crate::{Error, Result};

use code::Code;
use count::Tally;
pub use count::{Class, Counters, Instruction, LaunchCounters, Line};
use job::{Fault, Job, Region, argument_base, variable_base};
use memory::Memory;

/// Order in which the warps of a block run, and the blocks of a cooperative launch. A kernel whose result
/// depends on it has a race.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WarpOrder {
    /// Warp 0 and block 0 first.
    #[default]
    Forward,
    /// Warp 0 and block 0 last.
    Reverse,
}

/// How an [`Emulator`] runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Threads of the host; 0 for all cores.
    pub threads: usize,
    /// Order of the warps of a block.
    pub warp_order: WarpOrder,
    /// Most warp-instructions one warp may execute before it counts as a loop without end.
    pub max_instructions: u64,
    /// Check for races between blocks on global memory; blocks then run one after the other, those of a
    /// cooperative launch in turns. There, release and acquire order what the blocks do.
    pub check_races: bool,
    /// Count instructions and traffic.
    pub count: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: 0,
            warp_order: WarpOrder::Forward,
            max_instructions: 4_000_000_000,
            check_races: false,
            count: false,
        }
    }
}

/// A module of PTX, decoded.
struct Loaded {
    file: String,
    ptx: parse::Ptx,
    /// Address of each module variable.
    addresses: HashMap<String, u64>,
    /// The kernels decoded so far.
    codes: HashMap<String, Arc<Code>>,
    /// Module variables in order, with their memory.
    variables: Vec<(parse::Variable, Memory)>,
}

impl Loaded {
    fn new(file: &str, ptx: &str) -> Result<Self> {
        let parsed = parse::parse(file, ptx)?;
        let mut addresses = HashMap::new();
        let mut variables = Vec::new();
        for v in &parsed.variables {
            if matches!(v.space, parse::VarSpace::Global | parse::VarSpace::Const) && v.bytes > 0 {
                addresses.insert(v.name.clone(), variable_base(variables.len()));
                let memory = Memory::new(u64::from(v.bytes))?;
                let mut init = v.init.clone();
                init.resize(v.bytes as usize, 0);
                memory.upload(0, &init);
                variables.push((v.clone(), memory));
            }
        }
        Ok(Self { file: file.to_owned(), ptx: parsed, addresses, codes: HashMap::new(), variables })
    }

    /// A kernel, decoded when it is first asked for.
    fn code(&mut self, kernel: &str) -> Result<Arc<Code>> {
        if let Some(code) = self.codes.get(kernel) {
            return Ok(Arc::clone(code));
        }
        let Some(f) = self.ptx.kernels().find(|f| f.name == kernel) else {
            return Err(Error::new(format!("{} has no kernel {kernel}", self.file)));
        };
        let code = Arc::new(decode::decode(&self.ptx, &self.file, f, &self.addresses)?);
        self.codes.insert(kernel.to_owned(), Arc::clone(&code));
        Ok(code)
    }
}

/// A program with what its launches need.
struct Ready {
    program: Arc<Program>,
    /// Module and code of each launch.
    launches: Vec<(usize, Arc<Code>)>,
    state: Allocation,
    arena: Allocation,
    /// Of the latest counted run.
    counters: Vec<LaunchCounters>,
}

/// The emulator as a [`Device`].
pub struct Emulator {
    options: Options,
    pool: ThreadPool,
    memory: Vec<Option<Memory>>,
    modules: Vec<Loaded>,
    /// Which module a PTX text became, by the address and length of the text.
    known: HashMap<(usize, usize), usize>,
    programs: Vec<Ready>,
    executed: AtomicU64,
    /// State of blocks, kept from launch to launch.
    workers: Mutex<Vec<block::Worker>>,
    races: Mutex<races::Races>,
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
            memory: Vec::new(),
            modules: Vec::new(),
            known: HashMap::new(),
            programs: Vec::new(),
            executed: AtomicU64::new(0),
            workers: Mutex::new(Vec::new()),
            races: Mutex::default(),
        }
    }

    /// Warp-instructions executed since the emulator was made.
    pub fn executed(&self) -> u64 {
        self.executed.load(Relaxed)
    }

    fn get(&self, a: Allocation) -> Result<&Memory> {
        self.memory
            .get(a.0 as usize)
            .and_then(Option::as_ref)
            .ok_or_else(|| Error::new(format!("allocation {} does not exist or was released", a.0)))
    }

    fn range(&self, a: Allocation, offset: u64, len: usize) -> Result<&Memory> {
        let memory = self.get(a)?;
        if offset.checked_add(len as u64).is_none_or(|end| end > memory.len()) {
            return Err(Error::new(format!(
                "bytes {offset} to {} lie outside allocation {} of {} bytes",
                offset.saturating_add(len as u64),
                a.0,
                memory.len()
            )));
        }
        Ok(memory)
    }

    fn module(&mut self, module: &'static Module) -> Result<usize> {
        let key = (module.ptx.as_ptr() as usize, module.ptx.len());
        if let Some(&i) = self.known.get(&key) {
            return Ok(i);
        }
        self.modules.push(Loaded::new(module.file, module.ptx)?);
        self.known.insert(key, self.modules.len() - 1);
        Ok(self.modules.len() - 1)
    }

    fn launch(
        &self,
        ready: &Ready,
        launch: &Launch,
        module: usize,
        code: &Code,
    ) -> Result<Option<LaunchCounters>> {
        let loaded = &self.modules[module];
        let program = &ready.program;
        let memory_of = |space: Space| match space {
            Space::State => self.get(ready.state),
            Space::Arena => self.get(ready.arena),
        };
        for &b in &launch.defines {
            if let Some(buffer) = program.buffers.get(b as usize) {
                memory_of(buffer.space)?.forget(buffer.offset, buffer.bytes);
            }
        }
        let mut args = Vec::with_capacity(launch.args.len());
        let mut regions = Vec::with_capacity(launch.args.len());
        let mut nulls = Vec::new();
        for (i, arg) in launch.args.iter().enumerate() {
            let param = launch.kernel.params.get(i).map_or("", |p| p.name);
            let (bits, region) = match *arg {
                Arg::Null => {
                    nulls.push(format!("`{param}`"));
                    (0, None)
                }
                Arg::I32(v) => (u64::from(v as u32), None),
                Arg::U32(v) => (u64::from(v), None),
                Arg::F32(v) => (u64::from(v.to_bits()), None),
                Arg::Buffer(r) => {
                    let buffer = &program.buffers[r.buffer as usize];
                    let memory = memory_of(buffer.space)?;
                    let start = buffer.offset + r.offset;
                    let base = argument_base(i, start);
                    let region = Region {
                        memory,
                        start,
                        len: r.bytes,
                        base,
                        all_written: memory.first_unwritten(start, r.bytes).is_none(),
                        read_only: false,
                        name: buffer.name.clone(),
                        param: param.to_owned(),
                    };
                    (base, Some(region))
                }
            };
            args.push(bits);
            regions.push(region);
        }
        let variables: Vec<Region> = loaded
            .variables
            .iter()
            .enumerate()
            .map(|(i, (v, memory))| Region {
                memory,
                start: 0,
                len: u64::from(v.bytes),
                base: variable_base(i),
                all_written: true,
                read_only: v.space == parse::VarSpace::Const,
                name: v.name.clone(),
                param: String::new(),
            })
            .collect();
        let dynamic = launch.shared_bytes;
        let job = Job {
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
            label: &launch.label,
            module: &loaded.file,
            files: &loaded.ptx.files,
            reverse: self.options.warp_order == WarpOrder::Reverse,
            max_instructions: self.options.max_instructions,
            cooperative: launch.cooperative,
            count: self.options.count,
            races: self.options.check_races.then_some(&self.races),
        };
        let tally = self.run_job(&job)?;
        Ok(job.count.then(|| job.counters(tally)))
    }

    /// Runs all blocks of a launch; the fault of the first block that has one.
    fn run_job(&self, job: &Job) -> Result<Tally> {
        if let Some(races) = job.races {
            let together = job.cooperative.then_some(job.blocks() as usize);
            races.lock().unwrap_or_else(PoisonError::into_inner).start(job.code.global_granule, together);
        }
        if job.cooperative {
            let (executed, tally) = resident::run(job).map_err(|(b, fault)| job.error(b, &fault))?;
            self.executed.fetch_add(executed, Relaxed);
            return Ok(tally);
        }
        let blocks = job.blocks();
        let next = AtomicU64::new(0);
        let stop = AtomicU64::new(u64::MAX);
        let total = Mutex::new(Tally::default());
        let lock = || self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let work = || -> Option<(u64, Box<Fault>)> {
            let mut worker = lock().pop().unwrap_or_default();
            worker.begin(job);
            let mut fault = None;
            loop {
                // Blocks start in order, so those before a faulty one all run to their end.
                let b = next.fetch_add(1, Relaxed);
                if b >= blocks || b > stop.load(Relaxed) {
                    break;
                }
                if let Err(f) = worker.run_block(job, b) {
                    stop.fetch_min(b, Relaxed);
                    fault = Some((b, f));
                    break;
                }
            }
            self.executed.fetch_add(worker.executed, Relaxed);
            if job.count {
                total.lock().unwrap_or_else(PoisonError::into_inner).add(&worker.tally);
            }
            lock().push(worker);
            fault
        };
        let faults: Vec<Option<(u64, Box<Fault>)>> =
            if blocks == 1 || job.races.is_some() || self.pool.current_num_threads() == 1 {
                vec![work()]
            } else {
                self.pool.broadcast(|_| work())
            };
        match faults.into_iter().flatten().min_by_key(|(b, _)| *b) {
            Some((b, fault)) => Err(job.error(b, &fault)),
            None => Ok(total.into_inner().unwrap_or_else(PoisonError::into_inner)),
        }
    }
}

impl Device for Emulator {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Emulator
    }

    fn set_counting(&mut self, on: bool) {
        self.options.count = on;
    }

    fn counters(&self, program: Prepared) -> Option<&[LaunchCounters]> {
        Some(self.programs.get(program.0 as usize).map_or(&[], |p| &p.counters))
    }

    fn describe(&self) -> String {
        match self.pool.current_num_threads() {
            1 => "emulator (1 thread)".to_owned(),
            n => format!("emulator ({n} threads)"),
        }
    }

    fn memory(&self) -> Result<MemoryInfo> {
        let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let field = |name: &str| {
            let line = text.lines().find(|l| l.starts_with(name))?;
            Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
        };
        let total = field("MemTotal:").unwrap_or(8 << 30);
        Ok(MemoryInfo { free: field("MemAvailable:").unwrap_or(total).min(total), total })
    }

    fn allocate(&mut self, bytes: u64) -> Result<Allocation> {
        // An eighth more tells which bytes were written.
        let need = bytes.saturating_add(bytes / 8);
        let free = self.memory()?.free;
        if need > free {
            return Err(Error::new(format!(
                "{need} bytes are needed for an allocation of {bytes}, but the host has {free} free"
            )));
        }
        let memory = Memory::new(bytes)?;
        let slot = self.memory.iter().position(Option::is_none).unwrap_or(self.memory.len());
        if slot == self.memory.len() {
            self.memory.push(None);
        }
        self.memory[slot] = Some(memory);
        Ok(Allocation(slot as u32))
    }

    fn release(&mut self, allocation: Allocation) -> Result<()> {
        self.get(allocation)?;
        self.memory[allocation.0 as usize] = None;
        Ok(())
    }

    fn upload(&mut self, to: Allocation, offset: u64, data: &[u8]) -> Result<()> {
        self.range(to, offset, data.len())?.upload(offset, data);
        Ok(())
    }

    fn download(&mut self, from: Allocation, offset: u64, data: &mut [u8]) -> Result<()> {
        self.range(from, offset, data.len())?.download(offset, data);
        Ok(())
    }

    fn prepare(&mut self, program: Arc<Program>, state: Allocation, arena: Allocation) -> Result<Prepared> {
        for (space, allocation, need) in
            [(Space::State, state, program.state_bytes), (Space::Arena, arena, program.arena_bytes)]
        {
            let have = self.get(allocation)?.len();
            if have < need {
                return Err(Error::new(format!(
                    "{}: {space:?} needs {need} bytes, but its allocation has {have}",
                    program.name
                )));
            }
            for b in program.buffers.iter().filter(|b| b.space == space) {
                if b.offset.checked_add(b.bytes).is_none_or(|end| end > have) {
                    return Err(Error::new(format!(
                        "{}: buffer {} reaches past the end of its allocation of {have} bytes",
                        program.name, b.name
                    )));
                }
            }
        }
        let mut launches = Vec::with_capacity(program.launches.len());
        for launch in &program.launches {
            launch.check(&program.buffers)?;
            let module = self.module(launch.kernel.module)?;
            launches.push((module, self.modules[module].code(launch.kernel.name)?));
        }
        self.programs.push(Ready { program, launches, state, arena, counters: Vec::new() });
        Ok(Prepared(self.programs.len() as u32 - 1))
    }

    fn run(&mut self, program: Prepared) -> Result<()> {
        let Some(ready) = self.programs.get(program.0 as usize) else {
            return Err(Error::new(format!("program {} was not prepared", program.0)));
        };
        let arena = self.get(ready.arena)?;
        if ready.arena != ready.state {
            arena.forget(0, ready.program.arena_bytes);
        }
        let mut counters = Vec::new();
        for (launch, (module, code)) in ready.program.launches.iter().zip(&ready.launches) {
            counters.extend(self.launch(ready, launch, *module, code)?);
        }
        if self.options.count {
            self.programs[program.0 as usize].counters = counters;
        }
        Ok(())
    }

    fn synchronize(&mut self) -> Result<()> {
        Ok(())
    }

    fn elapsed_ms(&mut self) -> Result<Option<f64>> {
        Ok(None)
    }
}

/// Decodes every kernel of a PTX text; gives the number of kernels.
///
/// # Errors
/// Names the first kernel that the emulator cannot run, the line of the PTX and the instruction.
pub fn check_module(file: &str, ptx: &str) -> Result<usize> {
    let mut loaded = Loaded::new(file, ptx)?;
    let names: Vec<String> = loaded.ptx.kernels().map(|f| f.name.clone()).collect();
    for name in &names {
        loaded.code(name)?;
    }
    Ok(names.len())
}

/// Makes kernels of a PTX text, such as a user's own `.cu` compiled by NVRTC, that live as long as
/// the process, so that they can be launched like the built-in ones.
///
/// # Errors
/// When the text is not PTX that the emulator knows.
pub fn leak_module(file: &str, source: &str, ptx: &str) -> Result<Vec<&'static Kernel>> {
    let leak = |s: &str| -> &'static str { Box::leak(s.to_owned().into_boxed_str()) };
    let parsed = parse::parse(file, ptx)?;
    let module: &'static Module =
        Box::leak(Box::new(Module { file: leak(file), source: leak(source), ptx: leak(ptx), cubins: &[] }));
    let mut kernels: Vec<&'static Kernel> = Vec::new();
    for f in parsed.kernels() {
        let line = f
            .body
            .iter()
            .find_map(|s| match s {
                parse::Stmt::Inst(i) => Some(i.loc.outer.line),
                _ => None,
            })
            .unwrap_or(0);
        let names = source_names(source, &f.name);
        let params: Vec<Param> = f
            .params
            .iter()
            .enumerate()
            .map(|(i, p)| Param { name: leak(names.get(i).map_or(&p.name, |n| n)), kind: p.kind() })
            .collect();
        kernels.push(Box::leak(Box::new(Kernel {
            name: leak(&f.name),
            module,
            params: Box::leak(params.into_boxed_slice()),
            max_threads: f.max_threads,
            line,
            doc: "",
            resources: &[],
        })));
    }
    Ok(kernels)
}

/// Names of a kernel's parameters as its source has them; empty where it cannot be told.
fn source_names(source: &str, kernel: &str) -> Vec<String> {
    let Some(at) = source.find(&format!("{kernel}(")) else {
        return Vec::new();
    };
    let list = &source[at + kernel.len() + 1..];
    let Some(end) = list.find(')') else {
        return Vec::new();
    };
    list[..end]
        .split(',')
        .filter_map(|p| {
            let name: String =
                p.trim().chars().rev().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            (!name.is_empty()).then(|| name.chars().rev().collect())
        })
        .collect()
}
