//! The operations, one file each: what is recorded, its derivative, its launches.
//!
//! To add an operation, say `scale`:
//!
//! * `kernels/scale.cu`: its kernels. The build makes `args::ScaleForward { .. }` and `entry::SCALE_FORWARD_F32` of
//!   `scale_forward_f32`, its parameters by name and type.
//! * `src/tape/ops/scale.rs`: a recorder (`impl Tape`), a plain struct for the operation and one for its adjoint, and
//!   for each of them `impl Operation`: what it reads and writes, the adjoint, the launches. `pad.rs` is a short example.
//! * `tests/suite/ops/scale.rs`: against float64 on odd shapes, `check(&case(..))` as in its neighbours.
//! * the line `mod scale;` below, and another one in `tests/suite/ops/mod.rs`.
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
pub(super) mod norm;
pub(super) mod pad;
pub(super) mod pool;
pub(super) mod reduce;
pub(super) mod spectral;
