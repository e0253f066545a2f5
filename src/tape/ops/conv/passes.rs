//! The launches of a pass, from operands wherever they lie.

use super::tiles::{Extents, Kernels, Matrix, Tile};
use super::{direct, implicit_gemm, tensor_core};
use crate::Result;
use crate::device::Launch;
use crate::kernels::arg::{In, InOut, Out, Write};
use crate::kernels::args;
use crate::tape::grid::int;
use crate::tape::lowering::Lowering;
use crate::tape::ops::activation::Activation;
use crate::tape::precision::Precision;
use crate::tape::variant::{ConvVariant, LowerOptions};

/// The tile and the kernels that compute the result of a pass, which for each direction is such a matrix; None: the direct
/// ones. `act` is what the pass has in its epilogue.
pub(super) fn tiled(
    e: &Extents,
    options: &LowerOptions,
    matrix: Matrix,
    act: Activation,
) -> Option<(Tile, Kernels)> {
    let variant = options.conv.unwrap_or_else(|| match options.precision {
        // A dot product, or an outer one: nothing that a tile would use twice.
        _ if e.out.c == 1 => ConvVariant::Direct,
        Precision::Tf32 => ConvVariant::TensorCore,
        // The direct kernels' taps are square.
        Precision::F32 if e.weight.n != e.weight.h => ConvVariant::ImplicitGemm,
        Precision::F32 if implicit_gemm::fills(matrix) => ConvVariant::ImplicitGemm,
        Precision::F32 => ConvVariant::Direct,
    });
    match variant {
        ConvVariant::TensorCore if tensor_core::takes(e) => Some(tensor_core::kernels(e, matrix, act)),
        ConvVariant::ImplicitGemm if implicit_gemm::takes(e) => Some(implicit_gemm::kernels(matrix)),
        ConvVariant::TensorCore | ConvVariant::ImplicitGemm | ConvVariant::Direct => None,
    }
}

/// The arguments of a pass, those that all three take out of its extents.
macro_rules! with_extents {
    ($e:expr, $args:ident { $($field:ident: $value:expr),* $(,)? }) => {
        args::$args {
            $($field: $value,)*
            n: int($e.inp.n),
            h: int($e.inp.h),
            w: int($e.inp.w),
            ci: int($e.inp.c),
            oh: int($e.out.h),
            ow: int($e.out.w),
            co: int($e.out.c),
            k: int($e.weight.n),
            s: int($e.stride),
        }
    };
}

/// The arguments that `$pass` makes, of a pass in tiles whose sums are split.
macro_rules! with_tiles {
    ($pass:ident, $e:expr, $split:expr, $args:ident { $($field:ident: $value:expr),* $(,)? }) => {
        $pass!($args {
            kw: int($e.weight.h),
            partials: $split.partials,
            counters: $split.counters,
            chunks: $split.chunks
            $(, $field: $value)*
        })
    };
}

/// The arguments of the kernels of an input's gradient.
macro_rules! input_args {
    ($e:expr, $p:expr, $dinp:expr, $args:ident { $($field:ident: $value:expr),* }) => {
        with_extents!($e, $args {
            dinp: $dinp,
            dout: $p.dout,
            weight: $p.weight,
            scale: $p.scale.of,
            n_per_scale: $p.scale.images
            $(, $field: $value)*
        })
    };
}

/// 1/sigma of a weight, and the images of a batch that share one.
#[derive(Clone, Copy)]
pub(super) struct Scale {
    pub of: Option<In>,
    pub images: i32,
}

/// The operands of a forward pass.
pub(super) struct Forward {
    pub out: Out,
    pub inp: In,
    pub weight: In,
    pub bias: Option<In>,
    pub scale: Scale,
    pub act: Activation,
}

pub(super) fn forward(to: &mut Lowering, e: Extents, p: Forward) -> Result<()> {
    let matrix = e.forward();
    macro_rules! args {
        ($args:ident { $($field:ident: $value:expr),* }) => {
            with_extents!(e, $args {
                out: p.out,
                inp: p.inp,
                weight: p.weight,
                bias: p.bias,
                scale: p.scale.of,
                n_per_scale: p.scale.images,
                act: p.act as i32
                $(, $field: $value)*
            })
        };
    }
    let launch = match tiled(&e, &to.options, matrix, p.act) {
        None => direct::forward(args!(ConvForwardDirect {}), e.inp, e.out)?,
        Some((tile, kernels)) => {
            let split = matrix.split(tile, to, e.out.d)?;
            let args = with_tiles!(args, e, split, ConvForward {});
            matrix.launch(tile, kernels.forward, args, &split, e.out.d)?
        }
    };
    to.launch(launch.flops(e.flops()));
    Ok(())
}

/// The operands of an input's gradient. The input is reflect-padded by `pad`.
#[derive(Clone, Copy)]
pub(super) struct InputGrad {
    pub dout: In,
    pub weight: In,
    pub scale: Scale,
    pub pad: usize,
}

/// Leaves the gradient in `dinp`, but for what its border has from its mirror images where there is padding.
pub(super) fn input_grad(
    to: &mut Lowering,
    e: Extents,
    p: InputGrad,
    dinp: Write,
    flops: usize,
) -> Result<()> {
    let (matrix, phases) = e.input_grad();
    macro_rules! args {
        ($args:ident { $($field:ident: $value:expr),* }) => {
            input_args!(e, p, dinp, $args { $($field: $value),* })
        };
    }
    let launch = match tiled(&e, &to.options, matrix, Activation::None) {
        None => {
            assert_eq!(p.pad, 0, "the direct kernels know no padding");
            direct::dgrad(args!(ConvDgradDirect {}), e.inp, e.out, phases, matrix.rows / e.inp.n)?
        }
        Some((tile, kernels)) => {
            let split = matrix.split(tile, to, e.inp.d * phases)?;
            let args = with_tiles!(args, e, split, ConvDgrad { pad: int(p.pad) });
            matrix.launch(tile, kernels.dgrad, args, &split, e.inp.d * phases)?
        }
    };
    to.launch(launch.flops(flops));
    Ok(())
}

/// Adds what the border has from its mirror images: `targets` pixels of an image.
pub(super) fn ring_grad(
    to: &mut Lowering,
    e: Extents,
    p: InputGrad,
    (tile, kernels): (Tile, &Kernels),
    dinp: InOut,
    targets: usize,
) -> Result<Launch> {
    let matrix = Matrix { rows: e.inp.n * targets, ..e.input_grad().0 };
    let split = matrix.split(tile, to, e.inp.d)?;
    macro_rules! args {
        ($args:ident { $($field:ident: $value:expr),* }) => {
            input_args!(e, p, dinp, $args { $($field: $value),* })
        };
    }
    let args = with_tiles!(args, e, split, ConvRingDgrad { pad: int(p.pad) });
    matrix.launch(tile, kernels.ring_dgrad, args, &split, e.inp.d)
}

/// The operands of a weight's gradient.
#[derive(Clone, Copy)]
pub(super) struct WeightGrad {
    pub inp: In,
    pub dout: In,
    pub scale: Scale,
}

/// The arguments of the kernels of a weight's gradient.
macro_rules! weight_args {
    ($e:expr, $p:expr, $dweight:expr, $args:ident { $($field:ident: $value:expr),* }) => {
        with_extents!($e, $args {
            dweight: $dweight,
            inp: $p.inp,
            dout: $p.dout,
            scale: $p.scale.of,
            n_per_scale: $p.scale.images
            $(, $field: $value)*
        })
    };
}

/// In tiles.
pub(super) fn weight_grad(
    to: &mut Lowering,
    e: Extents,
    p: WeightGrad,
    (tile, kernels): (Tile, Kernels),
    dweight: Write,
) -> Result<()> {
    let matrix = e.weight_grad();
    let split = matrix.split(tile, to, e.inp.d)?;
    macro_rules! args {
        ($args:ident { $($field:ident: $value:expr),* }) => {
            weight_args!(e, p, dweight, $args { $($field: $value),* })
        };
    }
    let args = with_tiles!(args, e, split, ConvWgrad {});
    let launch = matrix.launch(tile, kernels.wgrad, args, &split, e.inp.d)?;
    to.launch(launch.flops(e.flops()));
    Ok(())
}

/// By a thread a weight, the sum over pixels in so many chunks.
pub(super) fn weight_grad_direct(
    to: &mut Lowering,
    e: Extents,
    p: WeightGrad,
    dweight: Write,
    chunks: usize,
) -> Result<()> {
    let args = weight_args!(e, p, dweight, ConvWgradDirect { chunks: int(chunks) });
    to.launch(direct::wgrad(args, e.weight, chunks)?.flops(e.flops()));
    Ok(())
}
