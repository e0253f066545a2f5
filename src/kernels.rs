//! The kernels, as `build.rs` found them: one table, generated from the PTX's `.entry` signatures.

use crate::{Error, Result};

/// What one kernel parameter is, as its `.entry` signature says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamKind {
    /// A 64-bit global address (`.u64 .ptr` or plain `.u64`).
    Pointer,
    /// A 32-bit integer, signed or not.
    Int32,
    /// A 32-bit float.
    Float32,
    /// Any other parameter: a by-value struct of so many bytes (a TMA map, say).
    Bytes(u32),
}

/// One parameter of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param {
    /// Its name in the `.cu` source.
    pub name: &'static str,
    /// Its kind.
    pub kind: ParamKind,
}

/// What `ptxas -v` reported of one kernel on one architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    /// Compute capability times ten: 80, 90.
    pub arch: u32,
    /// Registers a thread.
    pub registers: u32,
    /// Bytes of spill stores.
    pub spill_stores: u32,
    /// Bytes of spill loads.
    pub spill_loads: u32,
    /// Bytes of stack frame.
    pub stack: u32,
    /// Bytes of static shared memory.
    pub shared: u32,
}

/// Machine code of one module for one architecture.
#[derive(Clone, Copy)]
pub struct Cubin {
    /// Compute capability times ten. Runs on devices of the same major number and at least this minor.
    pub arch: u32,
    /// The ELF image.
    pub image: &'static [u8],
}

/// One compiled `.cu` file.
pub struct Module {
    /// Path below `kernels/`, such as `conv/1_direct.cu`.
    pub file: &'static str,
    /// Its CUDA C++ source.
    pub source: &'static str,
    /// Its PTX for compute capability 8.0, with line information. The emulator interprets it, and
    /// the driver compiles it where no cubin fits.
    pub ptx: &'static str,
    /// Machine code, by architecture.
    pub cubins: &'static [Cubin],
}

/// One `extern "C" __global__` function.
pub struct Kernel {
    /// Its name, such as `conv_forward_direct_f32`.
    pub name: &'static str,
    /// The module it is in.
    pub module: &'static Module,
    /// Its parameters in order.
    pub params: &'static [Param],
    /// The block size of its `__launch_bounds__` (`.maxntid`), as the most threads a block.
    pub max_threads: u32,
    /// Line in the `.cu` file on which its definition starts, counted from 1.
    pub line: u32,
    /// The comment above its definition: what it computes.
    pub doc: &'static str,
    /// What ptxas said, by architecture.
    pub resources: &'static [Resources],
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kernel({})", self.name)
    }
}

mod generated {
    use super::{Cubin, Kernel, Module, Param, ParamKind, Resources};
    include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
}

/// Every kernel, by name.
pub fn all() -> &'static [Kernel] {
    generated::KERNELS
}

/// Every module, by file.
pub fn modules() -> &'static [Module] {
    generated::MODULES
}

/// The headers the modules include: path below `kernels/` and text.
pub fn headers() -> &'static [(&'static str, &'static str)] {
    generated::HEADERS
}

/// The kernel of that name.
///
/// # Errors
/// When there is none.
pub fn find(name: &str) -> Result<&'static Kernel> {
    all()
        .binary_search_by(|k| k.name.cmp(name))
        .map(|i| &all()[i])
        .map_err(|_| Error::new(format!("no kernel is named {name}")))
}
