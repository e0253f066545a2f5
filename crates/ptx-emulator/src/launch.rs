//! A launch: a kernel's grid and arguments, and what all its blocks share.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::check::Races;
use crate::isa::{Code, REGION, VARIABLES};
use crate::memory::{Memory, Region};

/// A range of a [`Memory`] as an argument: the kernel may touch it and nothing else.
#[derive(Clone, Copy)]
pub struct Buffer<'a> {
    /// The memory it lies in.
    pub memory: &'a Memory,
    /// First byte in it.
    pub offset: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its name in messages.
    pub name: &'a str,
}

impl<'a> Buffer<'a> {
    /// A memory as a whole, as many bytes as it was made for.
    pub fn whole(memory: &'a Memory, name: &'a str) -> Self {
        Self { memory, offset: 0, bytes: memory.requested(), name }
    }
}

/// One kernel argument.
#[derive(Clone, Copy)]
pub enum Arg<'a> {
    /// A null pointer.
    Null,
    /// A pointer to the first byte of a buffer.
    Buffer(Buffer<'a>),
    /// A signed 32-bit integer.
    I32(i32),
    /// An unsigned 32-bit integer.
    U32(u32),
    /// A 32-bit float.
    F32(f32),
}

impl<'a> From<Buffer<'a>> for Arg<'a> {
    fn from(buffer: Buffer<'a>) -> Self {
        Self::Buffer(buffer)
    }
}

impl From<i32> for Arg<'_> {
    fn from(value: i32) -> Self {
        Self::I32(value)
    }
}

impl From<u32> for Arg<'_> {
    fn from(value: u32) -> Self {
        Self::U32(value)
    }
}

impl From<f32> for Arg<'_> {
    fn from(value: f32) -> Self {
        Self::F32(value)
    }
}

/// A launch.
#[derive(Clone, Copy)]
pub struct Launch<'a> {
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads a block in x, y, z.
    pub block: [u32; 3],
    /// The arguments, in the order of the kernel's parameters.
    pub args: &'a [Arg<'a>],
    /// Bytes of dynamic shared memory.
    pub shared_bytes: u32,
    /// Whether all its blocks are resident at once, because they wait for each other.
    pub cooperative: bool,
    /// What it is for, in messages and counters; may be empty.
    pub label: &'a str,
    /// Names of the parameters in messages; where one is missing, that of the PTX.
    pub names: &'a [&'a str],
}

impl<'a> Launch<'a> {
    /// A launch without dynamic shared memory, label and names.
    pub fn new(grid: [u32; 3], block: [u32; 3], args: &'a [Arg<'a>]) -> Self {
        Self { grid, block, args, shared_bytes: 0, cooperative: false, label: "", names: &[] }
    }
}

/// A launch being run.
pub(crate) struct LaunchContext<'a> {
    pub code: &'a Code,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Static and dynamic shared bytes.
    pub shared_bytes: u32,
    pub dynamic_shared: u32,
    /// Bits of each argument.
    pub args: Vec<u64>,
    /// Of each argument; None where it is no buffer.
    pub regions: Vec<Option<Region<'a>>>,
    pub variables: &'a [Region<'a>],
    /// Names of the parameters that are null.
    pub nulls: Vec<String>,
    pub label: &'a str,
    pub module: &'a str,
    /// What file names are cut after, in messages and counters; may be empty.
    pub source_root: &'a str,
    pub files: &'a HashMap<u32, String>,
    pub reverse: bool,
    pub max_instructions: u64,
    /// Its blocks are resident all at once.
    pub cooperative: bool,
    pub count: bool,
    /// Where races between blocks are checked for.
    pub races: Option<&'a Mutex<Races>>,
}

impl<'a> LaunchContext<'a> {
    /// The region of an address, or None where there is none.
    #[inline(always)]
    pub(crate) fn region(&self, address: u64) -> Option<&Region<'a>> {
        let id = address >> REGION;
        if id >= VARIABLES {
            self.variables.get((id - VARIABLES) as usize)
        } else {
            self.regions.get((id as usize).wrapping_sub(1))?.as_ref()
        }
    }

    /// Blocks of the grid.
    pub(crate) fn blocks(&self) -> u64 {
        self.grid.iter().map(|x| u64::from(*x)).product()
    }

    /// Threads of a block.
    pub(crate) fn threads(&self) -> u32 {
        self.block.iter().product()
    }

    /// Coordinates of a thread.
    pub(crate) fn thread(&self, warp: u32, lane: u32) -> [u32; 3] {
        let t = warp * 32 + lane;
        let [x, y, _] = self.block;
        [t % x, t / x % y, t / (x * y)]
    }

    /// Coordinates of a block.
    pub(crate) fn block_at(&self, index: u64) -> [u32; 3] {
        let [x, y, _] = self.grid.map(u64::from);
        [(index % x) as u32, (index / x % y) as u32, (index / (x * y)) as u32]
    }
}
