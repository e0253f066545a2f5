//! NVRTC, NVIDIA's CUDA C++ compiler as a library: finding it, loading it, calling it, and reading what
//! it and the source say of the kernels.
//!
//! - [`Installation::find`] looks where toolkits, distributions and Python wheels put it; nothing is linked
//!   at build time, so a program that uses this crate builds and starts without it.
//! - [`Nvrtc::load`] opens it, [`Nvrtc::compile`] turns a text into PTX and machine code.
//! - [`ptxas`] reads registers, spills, stack and shared memory out of the log.
//! - [`source`] reads the kernels' comments, lines and parameter names out of the text.
//!
//! Neither a GPU nor a driver is needed.
//!
//! ```no_run
//! use nvrtc::source::Headers;
//! use nvrtc::{Installation, Nvrtc, Source, ptxas};
//!
//! # fn main() -> Result<(), nvrtc::Error> {
//! let nvrtc = Nvrtc::load(&Installation::find((12, 4), &[])?)?;
//! let text = r#"extern "C" __global__ void twice(float *x) { x[threadIdx.x] *= 2; }"#;
//! let source = Source { name: "twice.cu", text, headers: &Headers::new() };
//! let compiled = nvrtc.compile(&source, &["-arch=sm_80", "--ptxas-options=-v"])?;
//! let resources = ptxas::resources(&compiled.log, "twice").expect("ptxas reported it");
//! println!("{} registers, {} bytes of machine code", resources.registers, compiled.cubin.len());
//! # Ok(())
//! # }
//! ```

mod error;
mod install;
mod library;
pub mod ptxas;
pub mod source;
mod version;

pub use error::{Error, Result};
pub use install::{Installation, VARIABLES};
pub use library::{Compiled, Nvrtc, Source};
pub use version::Version;
