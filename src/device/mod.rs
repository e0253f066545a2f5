//! The seam between the engine and what runs its kernels: plain data and the calls of [`Device`].
//!
//! Two devices implement [`Device`]: [`cuda`] (a GPU, through the driver API) and [`emulator`]
//! (interprets the same PTX on the CPU). Above this seam nothing knows which one runs, and
//! programs are run by [`executable::Executable`] alone.

pub mod cuda;
pub mod emulator;
pub mod executable;
pub mod select;
mod target;

use std::sync::Arc;

use crate::kernels::arg::ArgList;
pub use crate::kernels::arg::{Arg, BufferRef};
use crate::kernels::{Args, Kernel, KernelOf, ParamKind};
use crate::{Error, Result};

pub use target::Target;

/// Alignment of every buffer in its allocation, bytes.
pub const BUFFER_ALIGN: u64 = 256;

/// Which of a program's two allocations a buffer lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    /// Lives across runs: weights, optimiser moments, inputs, losses. Shared by several programs.
    State,
    /// Lives within one run; laid out by the planner, contents undefined at the start of a run.
    Arena,
}

/// A buffer of a program: a planned range of one of its two allocations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// For people: `gen.DownBlock.5.weight`, `d(fake)`, …
    pub name: String,
    /// The allocation it lies in.
    pub space: Space,
    /// First byte in that allocation: in the arena a multiple of [`BUFFER_ALIGN`], in the state of 16
    /// (one tensor of a group of weights).
    pub offset: u64,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Where a value of a program lies in its two allocations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// The allocation.
    pub space: Space,
    /// First byte in it.
    pub offset: u64,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Most threads of a block in x, y, z, and most blocks of a grid (CUDA C++ Programming Guide, technical specifications).
const MAX_BLOCK: [u32; 3] = [1024, 1024, 64];
const MAX_GRID: [u32; 3] = [i32::MAX as u32, 65535, 65535];

/// One kernel launch, made by [`Launch::new`] from the struct of its kernel's arguments.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The kernel.
    pub kernel: &'static Kernel,
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads a block in x, y, z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared_bytes: u32,
    /// In the order of the kernel's parameters. Private, so that nothing but a constructor puts them together.
    args: Vec<Arg>,
    /// Buffers (indices into [`Program::buffers`]) whose contents are undefined until this launch
    /// writes them: their place in the arena belonged to another buffer before.
    pub defines: Vec<u32>,
    /// What it does for the model, such as `conv gen.DownBlock.5`.
    pub label: String,
    /// Fewest bytes of global memory it must move: each input read once, each output written once.
    pub min_bytes: u64,
    /// Floating-point operations, two per multiply-add.
    pub flops: u64,
    /// Whether all its blocks must be resident at once, because they wait for each other. At most one on each
    /// multiprocessor of the target.
    pub cooperative: bool,
}

impl Launch {
    /// A launch of a kernel with its arguments; grid and block must be given. Its minimum traffic is that of
    /// the arguments: each tensor read once, written once, and both where it is added to or updated.
    ///
    /// # Errors
    /// When gradients that one parameter of the kernel decides on are neither all stored to nor all added to.
    pub fn new<A: Args>(kernel: KernelOf<A>, args: A) -> Result<Self> {
        let kernel = kernel.kernel();
        let list = args.list().map_err(|flag| {
            let what = "stands for gradients of which some are stored to and some added to";
            Error::new(format!("launch of {}: {flag} {what}", kernel.name))
        })?;
        Ok(Self::with(kernel, list))
    }

    /// A launch of a kernel that is known only at run time, its buffers' bytes moved once each. Nothing but
    /// [`Launch::check`] holds the arguments against the kernel's parameters.
    pub fn dynamic(kernel: &'static Kernel, args: Vec<Arg>) -> Self {
        let bytes = |arg: &Arg| if let Arg::Buffer(r) = arg { r.bytes } else { 0 };
        let min_bytes = args.iter().map(bytes).sum();
        Self::with(kernel, ArgList { args, min_bytes })
    }

    fn with(kernel: &'static Kernel, ArgList { args, min_bytes }: ArgList) -> Self {
        Self {
            kernel,
            grid: [0; 3],
            block: [0; 3],
            shared_bytes: 0,
            args,
            defines: Vec::new(),
            label: String::new(),
            min_bytes,
            flops: 0,
            cooperative: false,
        }
    }

    /// With so many blocks in x, y, z.
    pub fn grid(self, grid: [u32; 3]) -> Self {
        Self { grid, ..self }
    }

    /// With so many threads a block in x, y, z.
    pub fn block(self, block: [u32; 3]) -> Self {
        Self { block, ..self }
    }

    /// With so many bytes of dynamic shared memory.
    pub fn shared(self, shared_bytes: u32) -> Self {
        Self { shared_bytes, ..self }
    }

    /// With so many floating-point operations.
    pub fn flops(self, flops: usize) -> Self {
        Self { flops: flops as u64, ..self }
    }

    /// For something of the model.
    pub fn label(self, label: impl Into<String>) -> Self {
        Self { label: label.into(), ..self }
    }

    /// With blocks that wait for each other.
    pub fn cooperative(self) -> Self {
        Self { cooperative: true, ..self }
    }

    /// With a minimum traffic below that of its arguments: it touches a part of their memory only.
    pub fn moves(self, min_bytes: u64) -> Self {
        Self { min_bytes, ..self }
    }

    /// The arguments, in the order of the kernel's parameters.
    pub fn args(&self) -> &[Arg] {
        &self.args
    }

    /// The buffers among its arguments.
    pub fn buffers(&self) -> impl Iterator<Item = u32> + '_ {
        self.args.iter().filter_map(|arg| if let Arg::Buffer(r) = arg { Some(r.buffer) } else { None })
    }

    /// The same launch over the buffers `by` places further on in its program.
    pub fn shifted(mut self, by: u32) -> Self {
        for arg in &mut self.args {
            if let Arg::Buffer(r) = arg {
                r.buffer += by;
            }
        }
        self.defines.iter_mut().for_each(|buffer| *buffer += by);
        self
    }

    /// Blocks of the grid.
    pub fn blocks(&self) -> u64 {
        self.grid.iter().map(|&x| u64::from(x)).product()
    }

    /// Threads of a block.
    pub fn threads(&self) -> u64 {
        self.block.iter().map(|&x| u64::from(x)).product()
    }

    /// Checks arity, argument kinds, block size and buffer ranges against the kernel's signature, and the size of a
    /// cooperative grid against the target.
    ///
    /// # Errors
    /// Names the kernel and the first argument that does not fit.
    pub fn check(&self, buffers: &[Buffer], target: Target) -> Result<()> {
        let k = self.kernel;
        let fail = |what: String| Err(Error::new(format!("launch of {} ({}): {what}", k.name, self.label)));
        if self.args.len() != k.params.len() {
            return fail(format!("{} arguments, but it takes {}", self.args.len(), k.params.len()));
        }
        for (param, arg) in k.params.iter().zip(&self.args) {
            let fits = matches!(
                (param.kind, arg),
                (ParamKind::Pointer, Arg::Null | Arg::Buffer(_))
                    | (ParamKind::Int32, Arg::I32(_) | Arg::U32(_))
                    | (ParamKind::Float32, Arg::F32(_))
            );
            if !fits {
                return fail(format!(
                    "parameter {} is {:?}, but the argument is {arg:?}",
                    param.name, param.kind
                ));
            }
            if let Arg::Buffer(r) = arg {
                match buffers.get(r.buffer as usize) {
                    Some(b) if r.offset.checked_add(r.bytes).is_some_and(|end| end <= b.bytes) => {}
                    Some(b) => return fail(format!("{} reaches past the end of {}", param.name, b.name)),
                    None => return fail(format!("{} names no buffer of the program", param.name)),
                }
            }
        }
        let threads = self.threads();
        if threads == 0 || threads > u64::from(k.max_threads) {
            return fail(format!("{threads} threads a block, but at most {} are allowed", k.max_threads));
        }
        if self.block.iter().zip(MAX_BLOCK).any(|(&is, most)| is > most) {
            return fail(format!("block {:?}, but at most {MAX_BLOCK:?} are allowed", self.block));
        }
        if self.grid.contains(&0) || self.grid.iter().zip(MAX_GRID).any(|(&is, most)| is > most) {
            return fail(format!("grid {:?} is empty or larger than {MAX_GRID:?}", self.grid));
        }
        let blocks = self.blocks();
        if self.cooperative && blocks > u64::from(target.sms) {
            return fail(format!(
                "{blocks} blocks that wait for each other, but at most {} are sure to be resident",
                target.sms
            ));
        }
        Ok(())
    }
}

/// A flat list of launches over planned buffers: everything a device needs, nothing to decide.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// For people: `training step`, `translate`, …
    pub name: String,
    /// The GPU that it is planned for.
    pub target: Target,
    /// All buffers, both spaces. Arena buffers whose lifetimes do not overlap may share bytes.
    pub buffers: Vec<Buffer>,
    /// The launches in order.
    pub launches: Vec<Launch>,
    /// Bytes the arena allocation must have.
    pub arena_bytes: u64,
    /// Bytes the state allocation must have.
    pub state_bytes: u64,
}

/// Memory obtained from [`Device::allocate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Allocation(pub u32);

/// A program made ready by [`Device::prepare`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prepared(pub u32);

/// Memory of a device, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryInfo {
    /// Not in use now.
    pub free: u64,
    /// In all.
    pub total: u64,
}

/// What kind of device it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A GPU: it has a clock of its own and counts nothing.
    Gpu,
    /// The emulator: it counts, and its time says nothing of a GPU's.
    Emulator,
}

/// What runs programs.
pub trait Device: Send {
    /// What kind it is.
    fn kind(&self) -> DeviceKind;

    /// In words, for people: `NVIDIA H200 (cuda:0)`, `emulator (2 threads)`.
    fn describe(&self) -> String;

    /// The GPU that programs for this device are planned for. The emulator runs those for any GPU; if none is named,
    /// those for an H100.
    fn target(&self) -> Target {
        Target::default()
    }

    /// Memory of the device.
    fn memory(&self) -> Result<MemoryInfo>;

    /// Obtains uninitialised memory, aligned to at least [`BUFFER_ALIGN`].
    fn allocate(&mut self, bytes: u64) -> Result<Allocation>;

    /// Gives memory back. Programs prepared over it must not run again.
    fn release(&mut self, allocation: Allocation) -> Result<()>;

    /// Copies bytes to the device, after everything started before.
    fn upload(&mut self, to: Allocation, offset: u64, data: &[u8]) -> Result<()>;

    /// Copies bytes from the device, after everything started before.
    fn download(&mut self, from: Allocation, offset: u64, data: &mut [u8]) -> Result<()>;

    /// Loads the program's kernels, binds its buffers to the two allocations and, on a GPU,
    /// captures it as a graph.
    fn prepare(&mut self, program: Arc<Program>, state: Allocation, arena: Allocation) -> Result<Prepared>;

    /// Starts one run of the program; returns without waiting where the device can.
    fn run(&mut self, program: Prepared) -> Result<()>;

    /// Waits until everything started has ended; reports its failure.
    fn synchronize(&mut self) -> Result<()>;

    /// Device time of the latest run in milliseconds, by events; None where the device has no clock
    /// of its own (the emulator).
    fn elapsed_ms(&mut self) -> Result<Option<f64>>;

    /// As [`Self::run`], each launch by itself, where a device makes a difference.
    fn run_stream(&mut self, program: Prepared) -> Result<()> {
        self.run(program)
    }

    /// Whether the device has the shared memory and the multiprocessors that a program's launches ask for.
    ///
    /// # Errors
    /// Names the first launch that asks for more, and what there is.
    fn check_launches(&mut self, program: &Program) -> Result<()> {
        _ = program;
        Ok(())
    }

    /// Runs the program `repeats` times and returns what each of its launches took by itself, in order: the
    /// median in milliseconds; None where the device has no clock of its own.
    fn time_launches(&mut self, program: Prepared, repeats: usize) -> Result<Option<Vec<f64>>> {
        _ = (program, repeats);
        Ok(None)
    }

    /// Whether later runs are counted, where the device can.
    fn set_counting(&mut self, on: bool) {
        _ = on;
    }

    /// What each launch of a program did in its latest counted run, in order; None where the device does
    /// not count.
    fn counters(&self, program: Prepared) -> Option<&[emulator::LaunchCounters]> {
        _ = program;
        None
    }
}
