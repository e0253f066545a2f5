//! What the GPU at hand can do at best, measured in the same run as what is held against it.

use serde::{Deserialize, Serialize};

use super::conv::case::Case;
use super::timing::time_program;
use crate::device::executable::{DeviceHandle, Executable, LaunchMode, State};
use crate::device::{Buffer, BufferRef, Launch, Program, Space};
use crate::kernels::arg::{In, Out};
use crate::kernels::{args, entry};
use crate::tape::{Activation, ConvLayer, ConvPass, ConvVariant};
use crate::tensor::Shape;
use crate::{Error, Result};

/// Bytes that are copied to find the copy ceiling; at most an 8th of the GPU's memory.
const COPIED: u64 = 512 << 20;
/// What is copied repeats itself after so many bytes.
const COPY_PATTERN: u64 = 1 << 20;

/// The two rates that bound a program.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Ceilings {
    /// Of a copy, read and written bytes together.
    pub copy_gb_per_s: f64,
    /// Of the matrix product or convolution that `matrix` names.
    pub matrix_tflop_per_s: f64,
    /// `tf32 tensor core convolution`, `bf16 matmul`.
    pub matrix: String,
}

impl Ceilings {
    /// Measures both on a GPU.
    ///
    /// # Errors
    /// When the GPU fails.
    pub fn measure(gpu: &DeviceHandle) -> Result<Self> {
        let copy_gb_per_s = copy_ceiling(gpu)?;
        let (matrix_tflop_per_s, matrix) = matrix_ceiling(gpu)?;
        Ok(Self { copy_gb_per_s, matrix_tflop_per_s, matrix })
    }

    /// Milliseconds that so many operations and bytes take at least, whichever takes longer.
    pub fn floor_ms(&self, flops: u64, bytes: u64) -> f64 {
        (flops as f64 / self.matrix_tflop_per_s / 1e9).max(bytes as f64 / self.copy_gb_per_s / 1e6)
    }
}

/// GB/s, read and written, of a copy of 512 MiB, or an eighth of the memory where that is less.
///
/// # Errors
/// When the GPU fails.
pub fn copy_ceiling(gpu: &DeviceHandle) -> Result<f64> {
    let bytes = COPIED.min(gpu.lock().memory()?.total / 8) / COPY_PATTERN * COPY_PATTERN;
    let (count, repeats) = (bytes / 4, 8);
    let buffer = |name: &str, offset| Buffer { name: name.into(), space: Space::State, offset, bytes };
    let whole = |buffer| BufferRef { buffer, offset: 0, bytes };
    let args = args::CopyX4 { out: Out(whole(1)), inp: In(whole(0)), n: count as i32 };
    let launch = Launch::new(entry::COPY_X4_F32, args)?
        .grid([(count / 4).div_ceil(256) as u32, 1, 1])
        .block([256, 1, 1])
        .label("copy");
    let program = Program {
        name: "copy".into(),
        target: gpu.lock().target(),
        buffers: vec![buffer("from", 0), buffer("to", bytes)],
        launches: vec![launch; repeats],
        arena_bytes: 0,
        state_bytes: 2 * bytes,
    };
    let state = State::new(gpu, program.state_bytes)?;
    // What is copied takes part in the power a GPU draws, so it is neither all zeros nor left to chance.
    let pattern: Vec<f32> = (0..COPY_PATTERN / 4).map(|i| (i as f32).sin()).collect();
    for at in (0..bytes).step_by(COPY_PATTERN as usize) {
        state.write(at, &pattern)?;
    }
    let microseconds = time_program(&Executable::load(program, &state)?, repeats, LaunchMode::Graph)?;
    Ok(2.0 * bytes as f64 / microseconds / 1e3)
}

/// Images, side and channels of the 3x3 convolutions of which the first that takes no more than a 128th of the GPU's
/// memory is the matrix ceiling: the first fills any GPU.
const CONVOLVED: [[usize; 3]; 4] = [[8, 64, 256], [2, 64, 256], [2, 32, 128], [1, 16, 64]];

/// TFLOP/s of our fastest variant that this GPU takes, on a large convolution, and what that was.
fn matrix_ceiling(gpu: &DeviceHandle) -> Result<(f64, String)> {
    const REPEATS: usize = 8;
    let (total, target) = {
        let gpu = gpu.lock();
        (gpu.memory()?.total, gpu.target())
    };
    let layer = |[n, side, c]: [usize; 3]| ConvLayer {
        pass: ConvPass::Forward,
        inp: Shape::new(1, n, side + 2, side + 2, c),
        weight: Shape::new(1, 3, 3, c, c),
        stride: 1,
        act: Activation::None,
        bias: false,
    };
    let fits = |size: &[usize; 3]| 12 * layer(*size).inp.len() as u64 <= total / 128;
    let layer = layer(CONVOLVED.into_iter().find(fits).unwrap_or([1, 16, 64]));
    for variant in [ConvVariant::TensorCore, ConvVariant::ImplicitGemm] {
        let Some(case) = Case::plan(layer, variant, target)? else { continue };
        let case = case.repeated(REPEATS);
        if gpu.lock().check_launches(case.program()).is_err() {
            continue;
        }
        let loaded = case.load(gpu, &case.inputs(1))?;
        let microseconds = time_program(loaded.executable(), REPEATS, LaunchMode::Graph)?;
        let name = format!("{} {} convolution", variant.precision(), variant.name());
        return Ok((layer.flops() as f64 / microseconds / 1e6, name));
    }
    Err(Error::new(format!("{} takes no convolution", gpu.lock().describe())))
}
