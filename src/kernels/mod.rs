//! The kernels, as `build.rs` found them: one table, generated from the PTX's `.entry` signatures, and a
//! struct for the arguments of each signature, generated from the `.cu` sources.
//!
//! A launch is made of a kernel of [`entry`] and the struct that is its type:
//!
//! ```
//! use ugatit::device::Launch;
//! use ugatit::kernels::{args, arg::{BufferRef, In, Out}, entry};
//!
//! let buffer = |buffer| BufferRef { buffer, offset: 0, bytes: 4096 };
//! let args = args::CopyX4 { out: Out(buffer(1)), inp: In(buffer(0)), n: 1024 };
//! let launch = Launch::new(entry::COPY_X4_F32, args)?.grid([1, 1, 1]).block([256, 1, 1]);
//! assert_eq!(launch.min_bytes, 8192);
//! # Ok::<(), ugatit::Error>(())
//! ```
//!
//! An input where the output belongs does not compile:
//!
//! ```compile_fail,E0308
//! # use ugatit::device::Launch;
//! # use ugatit::kernels::{args, arg::{BufferRef, In, Out}, entry};
//! # let buffer = |buffer| BufferRef { buffer, offset: 0, bytes: 4096 };
//! let args = args::CopyX4 { inp: Out(buffer(1)), out: In(buffer(0)), n: 1024 };
//! ```
//!
//! Nor do another kernel's arguments:
//!
//! ```compile_fail,E0308
//! # use ugatit::device::Launch;
//! # use ugatit::kernels::{args, arg::{BufferRef, In, Out}, entry};
//! # let buffer = |buffer| BufferRef { buffer, offset: 0, bytes: 4096 };
//! # let args = args::CopyX4 { out: Out(buffer(1)), inp: In(buffer(0)), n: 1024 };
//! Launch::new(entry::ADAM_F32, args);
//! ```

pub mod arg;

use std::fmt;
use std::marker::PhantomData;

pub use generated::{NVRTC_HINT, NVRTC_VERSION, OLDEST_NVRTC, OPTIONS};
pub use ptx::ParamKind;

use self::arg::ArgList;

use crate::{Error, Result};

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
    /// Compute capability times ten: 80, 90, 100, 120.
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
    /// Whether it says which source line each instruction is of.
    pub lines: bool,
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
    /// Its PTX for compute capability 7.5, without line information, which the driver compiles for GPUs that are too
    /// old for [`Self::ptx`]; None where the NVRTC of the build made none, or it needs tensor cores that they lack.
    pub ptx_75: Option<&'static str>,
    /// The oldest compute capability that it is for, times ten.
    pub needs: u32,
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

impl Module {
    /// The PTX that the driver of a GPU can compile, by its compute capability times ten.
    pub fn ptx_for(&self, capability: u32) -> Option<&'static str> {
        match capability {
            80.. => Some(self.ptx),
            75.. => self.ptx_75,
            _ => None,
        }
    }
}

impl Kernel {
    /// What ptxas said for the architecture, or for the nearest older one there is machine code of.
    pub fn resources_for(&self, arch: u32) -> Option<&Resources> {
        self.resources.iter().filter(|r| r.arch <= arch).max_by_key(|r| r.arch).or(self.resources.first())
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kernel({})", self.name)
    }
}

mod generated {
    use super::{Cubin, Kernel, Module, Param, ParamKind, Resources};
    include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
}

include!(concat!(env!("OUT_DIR"), "/args.rs"));

/// The arguments of a kernel by name; a struct of [`args`].
pub trait Args: Sized {
    /// The kernels with this signature, as indices into [`all`].
    const KERNELS: &'static [usize];

    /// The arguments in the order of the parameters.
    ///
    /// # Errors
    /// When gradients that one parameter decides on are neither all stored to nor all added to: its name.
    fn list(self) -> std::result::Result<ArgList, &'static str>;
}

/// A kernel that takes the arguments `A`.
pub struct KernelOf<A> {
    index: usize,
    args: PhantomData<fn(A)>,
}

impl<A> KernelOf<A> {
    const fn at(index: usize) -> Self {
        Self { index, args: PhantomData }
    }

    /// The kernel.
    pub fn kernel(self) -> &'static Kernel {
        &all()[self.index]
    }
}

impl<A: Args> KernelOf<A> {
    /// The kernel of that name, for families whose names are put together.
    ///
    /// # Errors
    /// When no kernel that takes these arguments has that name.
    pub fn named(name: &str) -> Result<Self> {
        let found = A::KERNELS.iter().find(|&&i| all()[i].name == name);
        found.map(|&i| Self::at(i)).ok_or_else(|| {
            let args = std::any::type_name::<A>().rsplit(':').next().unwrap_or_default();
            Error::new(format!("no kernel named {name} takes {args}"))
        })
    }
}

impl<A> Clone for KernelOf<A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for KernelOf<A> {}

impl<A> fmt::Debug for KernelOf<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kernel().fmt(f)
    }
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
