//! Reads PTX, the text of NVIDIA's virtual instruction set: the signatures of kernels, their statements
//! and operands, and the source lines that `.loc` gives.
//!
//! ```
//! let module = ptx::Module::parse(
//!     ".version 8.8\n.target sm_80\n.address_size 64\n\
//!      .visible .entry twice(.param .u64 twice_param_0)\n.maxntid 256, 1, 1\n{\n\
//!      .reg .b64 %rd<2>;\n.loc 1 7 3\nld.param.u64 %rd1, [twice_param_0];\nret;\n}\n.file 1 \"twice.cu\"\n",
//! )?;
//! let kernel = module.kernels().next().expect("it has one");
//! assert_eq!((&*kernel.name, kernel.max_threads), ("twice", Some(256)));
//! assert_eq!(kernel.params[0].kind(), ptx::ParamKind::Pointer);
//! assert_eq!((kernel.first_line(), &*module.files[&1]), (Some(7), "twice.cu"));
//! # Ok::<(), ptx::Error>(())
//! ```
//!
//! What an instruction does is not checked here: any opcode is read.

mod ast;
mod error;
mod files;
mod operand;
mod scan;
mod version;

pub use ast::{
    Function, Instruction, Module, Operand, ParamKind, Place, Space, Statement, Variable, type_bytes,
};
pub use error::Error;
pub use files::rename_files;
pub use version::for_old_drivers;
