//! The operations, one file each: what is recorded, its derivative, its launches.
//!
//! To add an operation `<op>`:
//!
//! * `kernels/<op>.cu`: its kernels. Of `scale_forward_f32` the build makes `entry::SCALE_FORWARD_F32` and the struct
//!   `args::ScaleForward { .. }`, the parameters by name and type.
//! * `src/tape/ops/<op>.rs`: a recorder (`impl Tape`), a plain struct for the operation and one for its adjoint, and
//!   `impl Operation` for each of them: what it uses, the adjoint, the launches. `pad.rs` is a short example.
//! * `tests/suite/ops/<op>.rs`: against float64 on odd shapes, as its neighbours.
//! * the line `mod <op>;` below, and another one in `tests/suite/ops/mod.rs`.
//!
//! To add a variant of a family's kernels, say of the convolutions: its `.cu` file, a file here of the same name
//! (`conv/direct.rs`), and a line for it in the enum in `variant.rs`. The compiler then asks for the rest.
//!
//! A fusion of several operations is a file in `rewrite` and, where it needs kernels of its own, an operation like any
//! other.

pub(super) mod activation;
pub(super) mod adam;
pub(super) mod cam;
pub(super) mod conv;
pub(super) mod copy;
pub(super) mod linear;
pub(super) mod loss;
pub mod norm;
pub(super) mod pad;
pub(super) mod pool;
pub(super) mod reduce;
pub(super) mod spectral;
