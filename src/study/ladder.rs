//! The ladders of AdaLIN and of convolution: the same work by every variant, counted.

use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::run::{Record, counting_emulator};
use crate::Result;
use crate::bench::adalin::case::{Case, Kind};
use crate::bench::adalin::tensors::Inputs;
use crate::device::executable::Executable;
use crate::device::{Program, Space};
use crate::tape::{
    About, Activation, BufferRole, ConvVariant, LowerOptions, NormVariant, Seed, StateLayout, StateView,
    Tape, plan_with,
};
use crate::tensor::{DType, Shape};

/// One operation on every variant.
#[derive(Clone, Debug)]
pub struct Ladder {
    /// What is computed: `AdaLIN`.
    pub name: String,
    /// In a sentence.
    pub what: String,
    /// The sizes, in words.
    pub case: String,
    /// From the plainest to the most refined.
    pub variants: Vec<Variant>,
}

/// One way to compute it.
#[derive(Clone, Debug)]
pub struct Variant {
    /// For people: the file's name.
    pub name: String,
    /// What it is.
    pub lesson: String,
    /// Bytes the whole operation must move at least.
    pub minimum_traffic: u64,
    /// What ran.
    pub record: Record,
}

/// The ladders with all their variants, run on the emulator.
///
/// # Errors
/// When a kernel is faulty.
pub fn all() -> Result<Vec<Ladder>> {
    Ok(vec![adalin(DType::F32, 64)?, convolution(64, 64, &ConvVariant::ALL)?])
}

/// The same for element types and channel numbers that neither the ladders nor a training step have: runs
/// for the pages of kernels that would have none.
///
/// # Errors
/// When a kernel is faulty.
pub fn variants() -> Result<Vec<Ladder>> {
    let odd = 37;
    let mut out =
        vec![convolution(6, 10, &[ConvVariant::Direct])?, convolution(8, 10, &[ConvVariant::Direct])?];
    out.push(adalin(DType::F32, odd)?);
    for dtype in [DType::F16, DType::Bf16] {
        out.push(adalin(dtype, 64)?);
        out.push(adalin(dtype, odd)?);
    }
    Ok(out)
}

/// AdaLIN, forward and backward, over two images of 32 x 32 pixels in `c` channels.
///
/// # Errors
/// When a kernel is faulty.
pub fn adalin(dtype: DType, c: usize) -> Result<Ladder> {
    let shape = Shape::new(2, 1, 32, 32, c);
    let mut variants = Vec::new();
    for (i, variant) in NormVariant::ALL.into_iter().enumerate() {
        let mut case = Case::new(Kind::AdaLin, variant, dtype, shape);
        if variant.fuses_padding() {
            case.padded = Some((1, 1));
        }
        let built = case.build()?;
        let inputs = Inputs::random(&case, 0.0, 1.0, 1);
        let executable = built.load(&counting_emulator(), &inputs)?;
        executable.run()?;
        let mut record = Record::of(&executable)?;
        record.predict()?;
        variants.push(Variant {
            name: format!("{} {}", i + 1, variant.name()),
            lesson: lesson(&variant.about()),
            minimum_traffic: case.minimum_forward() + case.minimum_backward(),
            record,
        });
    }
    Ok(Ladder {
        name: "AdaLIN".into(),
        what: "forward and backward; variant 5 also writes its output padded, as the network needs it".into(),
        case: format!("2 images of 32 x 32 pixels, {c} channels, {}", dtype.name()),
        variants,
    })
}

/// A 3 x 3 convolution from `ci` to `co` channels, forward and both gradients.
///
/// # Errors
/// When a kernel is faulty.
pub fn convolution(ci: usize, co: usize, wanted: &[ConvVariant]) -> Result<Ladder> {
    let (inp, weight, out) =
        (Shape::new(2, 1, 18, 18, ci), Shape::new(2, 3, 3, ci, co), Shape::new(2, 1, 16, 16, co));
    let mut variants = Vec::new();
    for (i, variant) in ConvVariant::ALL.into_iter().enumerate().filter(|(_, v)| wanted.contains(v)) {
        let mut layout = StateLayout::default();
        let mut tape = Tape::new();
        let mut state = |name: &str, shape: Shape| {
            let buffer = layout.add(BufferRole::Operand, name, 4 * shape.len() as u64);
            tape.state(name, shape, StateView { buffer, offset: 0 })
        };
        let (x, w, dout) = (state("x", inp), state("weight", weight), state("dout", out));
        let (dx, dw) = (state("dx", inp), state("dweight", weight));
        let y = tape.conv("y", x, w, None, None, 1, Activation::None);
        tape.keep(y);
        tape.backward(&[Seed::Upstream(y, dout)], &[(x, dx), (w, dw)]);
        let options = LowerOptions { conv: Some(variant), ..LowerOptions::default() };
        let program = plan_with("convolution", &tape, &layout, options)?.program;
        let minimum = 4 * (3 * inp.len() + 3 * weight.len() + 3 * out.len()) as u64;
        let record = run_on_random(program)?;
        variants.push(Variant {
            name: format!("{} {}", i + 1, variant.name()),
            lesson: lesson(&variant.about()),
            minimum_traffic: minimum,
            record,
        });
    }
    Ok(Ladder {
        name: "convolution".into(),
        what: "forward, input gradient and weight gradient".into(),
        case: format!("2 images of 16 x 16 pixels, 3 x 3 taps, {ci} to {co} channels, f32"),
        variants,
    })
}

/// Runs a program whose whole state is random numbers.
fn run_on_random(program: Arc<Program>) -> Result<Record> {
    let executable = Executable::new(&counting_emulator(), program)?;
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for buffer in executable.program().buffers.iter().filter(|b| b.space == Space::State) {
        let values: Vec<f32> = (0..buffer.bytes / 4).map(|_| rng.random_range(-1.0f32..1.0)).collect();
        executable.state().write(buffer.offset, &values)?;
    }
    executable.run()?;
    let mut record = Record::of(&executable)?;
    record.predict()?;
    Ok(record)
}

/// What a variant is, what it moves and what bounds it, in sentences.
fn lesson(about: &About) -> String {
    let About { what, moves, bound_by } = about;
    format!("{what}. Moves: {moves}. Bound by: {bound_by}.")
}
