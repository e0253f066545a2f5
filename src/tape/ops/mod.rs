//! The operations, one file each: what is recorded, its derivative, its launches.
//!
//! To add an operation `<op>`:
//!
//! * `kernels/<op>.cu`: its kernels. Of `scale_forward_f32` the build makes `entry::SCALE_FORWARD_F32` and the struct
//!   `args::ScaleForward { .. }`, the parameters by name and type.
//! * `src/tape/ops/<op>.rs`: a recorder (`impl Tape`), a plain struct for the operation and one for its adjoint, and
//!   `impl Operation` for each of them: what it uses, the adjoint, the launches. `pad.rs` is a short example.
//! * `tests/suite/ops/<op>.rs`: against float64 on odd shapes, as its neighbours.
//! * the line `pub(super) mod <op>;` below, and `mod <op>;` in `tests/suite/ops/mod.rs`.
//!
//! To add a variant of the norms:
//!
//! * `kernels/adalin/<n>_<variant>.cu`, `n` one more than the last: its kernels, under names that no other file has.
//!   Kernels with the same parameters share a struct of arguments, named after the words that all their names begin and
//!   end with. So where the parameters are those of another variant, begin with that variant's words and put the new
//!   one's after them, as in `adalin_finish_<variant>_f32`; other words rename the struct for both, or leave it without
//!   a name.
//! * `norm/<variant>.rs`: `forward` and `backward`, which make its launches, and `mod <variant>;` in `norm/mod.rs`.
//! * in `variant.rs` a line in the enum and one in its `ALL`, whose length grows by one. The compiler asks for what the
//!   program must know of it (`properties`) and for its launches (`forward` in `norm/mod.rs`; where no other variant's
//!   `backward` reads what it keeps, `Kept` has a line for it and `backward` an arm). So nothing is edited but
//!   `variant.rs` and `norm/mod.rs`. Unit tests of `variant.rs` hold list and files together, and those of
//!   `tests/suite/adalin.rs` take every variant by themselves.
//!
//! A variant of the convolutions is the same with `kernels/conv`, `conv/<variant>.rs` and `Chosen` in `conv/mod.rs`.
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
