//! The seam between the engine and what runs its kernels: about nine calls over plain data.
//!
//! Two devices implement [`Device`]: [`cuda`] (a GPU, through the driver API) and [`emulator`]
//! (interprets the same PTX on the CPU). Above this seam nothing knows which one runs.

pub mod cuda;
pub mod emulator;
pub mod select;

use std::sync::Arc;

use crate::kernels::{Kernel, ParamKind};
use crate::{Error, Result};

/// Alignment of every buffer in its allocation, bytes.
pub const BUFFER_ALIGN: u64 = 256;

/// Most blocks of a cooperative launch: the multiprocessors of the smallest GPU such launches are made for, an
/// A100. It does not follow from the GPU at hand, so that a program is the same everywhere.
pub const MAX_COOPERATIVE_BLOCKS: u32 = 108;

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

/// The whole of a buffer or a range of it, as one kernel argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferRef {
    /// Index into [`Program::buffers`].
    pub buffer: u32,
    /// First byte within the buffer.
    pub offset: u64,
    /// Length in bytes. The kernel may touch `[offset, offset + bytes)` and nothing else.
    pub bytes: u64,
}

/// One kernel argument.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arg {
    /// A null pointer: an optional tensor that is absent.
    Null,
    /// A pointer to device memory.
    Buffer(BufferRef),
    /// A signed 32-bit integer.
    I32(i32),
    /// An unsigned 32-bit integer.
    U32(u32),
    /// A 32-bit float.
    F32(f32),
}

/// One kernel launch.
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
    /// The arguments, in the order of the kernel's parameters.
    pub args: Vec<Arg>,
    /// Buffers (indices into [`Program::buffers`]) whose contents are undefined until this launch
    /// writes them: their place in the arena belonged to another buffer before.
    pub defines: Vec<u32>,
    /// What it does for the model, such as `conv gen.DownBlock.5`.
    pub label: String,
    /// Fewest bytes of global memory it must move: each input read once, each output written once.
    pub min_bytes: u64,
    /// Floating-point operations, two per multiply-add.
    pub flops: u64,
    /// Whether all its blocks must be resident at once, because they wait for each other. At most
    /// [`MAX_COOPERATIVE_BLOCKS`], one on a multiprocessor.
    pub cooperative: bool,
}

impl Launch {
    /// Blocks of the grid.
    pub fn blocks(&self) -> u64 {
        self.grid.iter().map(|&x| u64::from(x)).product()
    }

    /// Threads of a block.
    pub fn threads(&self) -> u64 {
        self.block.iter().map(|&x| u64::from(x)).product()
    }

    /// Checks arity, argument kinds, block size and buffer ranges against the kernel's signature.
    ///
    /// # Errors
    /// Names the kernel and the first argument that does not fit.
    pub fn check(&self, buffers: &[Buffer]) -> Result<()> {
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
        if self.grid.contains(&0) || self.grid[1] > 65535 || self.grid[2] > 65535 {
            return fail(format!("grid {:?} is empty or too large", self.grid));
        }
        let blocks = self.blocks();
        if self.cooperative && blocks > u64::from(MAX_COOPERATIVE_BLOCKS) {
            return fail(format!(
                "{blocks} blocks that wait for each other, but at most {MAX_COOPERATIVE_BLOCKS} are sure to be resident"
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

/// What runs programs.
pub trait Device: Send {
    /// In words, for people: `NVIDIA H200 (cuda:0)`, `emulator (2 threads)`.
    fn describe(&self) -> String;

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
}
