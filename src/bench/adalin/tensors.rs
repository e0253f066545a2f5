//! What goes into a case and what comes out of it, on the host, and how far results deviate.

use half::{bf16, f16};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::case::{Case, Kind};
use crate::tensor::DType;

/// What goes in. `x`, `dy` and `residual` are exact in the case's element type.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inputs {
    /// `[D, N, H, W, C]`.
    pub x: Vec<f32>,
    /// Upstream gradient.
    pub dy: Vec<f32>,
    /// Empty where there is none.
    pub residual: Vec<f32>,
    /// `[D, C]`; empty for an instance norm.
    pub rho: Vec<f32>,
    /// `[rows, C]`.
    pub gamma: Vec<f32>,
    /// `[rows, C]`.
    pub beta: Vec<f32>,
}

impl Inputs {
    /// Random ones: each channel about `offset` plus a mean of its own, with standard deviation `spread`.
    pub fn random(case: &Case, offset: f32, spread: f32, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut draw = |n: usize, low: f32, high: f32| -> Vec<f32> {
            (0..n).map(|_| low + (high - low) * rng.random::<f32>()).collect()
        };
        let (s, affine) = (case.shape, case.kind != Kind::Instance);
        let width = 1.75 * spread; // of a uniform distribution, for about that deviation
        let means = draw(s.images() * s.c, offset - spread, offset + spread);
        let mut x = draw(s.len(), -width, width);
        for (i, v) in x.iter_mut().enumerate() {
            *v += means[i / s.image_len() * s.c + i % s.c];
        }
        let rows = if affine { s.images() / case.images_per_affine() * s.c } else { 0 };
        let rho = draw(if affine { s.d * s.c } else { 0 }, 0.0, 1.0);
        let (gamma, beta) = (draw(rows, 0.5, 1.5), draw(rows, -1.0, 1.0));
        let dy = draw(s.len(), -1.0, 1.0);
        let residual = draw(if case.residual { s.len() } else { 0 }, -1.0, 1.0);
        let inputs = Self { x, dy, residual, rho, gamma, beta };
        inputs.rounded(case.dtype)
    }

    /// With the tensors rounded to an element type.
    pub fn rounded(mut self, dtype: DType) -> Self {
        for tensor in [&mut self.x, &mut self.dy, &mut self.residual] {
            *tensor = decode(&encode(tensor, dtype), dtype);
        }
        self
    }
}

/// Numbers as a device holds them.
pub fn encode(values: &[f32], dtype: DType) -> Vec<u8> {
    match dtype {
        DType::F16 => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
        DType::Bf16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
        DType::F32 | DType::I32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
    }
}

/// The other way round.
pub fn decode(bytes: &[u8], dtype: DType) -> Vec<f32> {
    let two = |b: &[u8]| [b[0], b[1]];
    match dtype {
        DType::F16 => bytes.chunks_exact(2).map(|b| f16::from_le_bytes(two(b)).to_f32()).collect(),
        DType::Bf16 => bytes.chunks_exact(2).map(|b| bf16::from_le_bytes(two(b)).to_f32()).collect(),
        DType::F32 | DType::I32 => {
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        }
    }
}

/// Results of a forward and a backward pass, `[D, N, H, W, C]` and the parameters' shapes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outputs {
    /// The output, before any padding.
    pub out: Vec<f64>,
    /// Gradients of input, rho, gamma and beta; the last three empty for an instance norm.
    pub dx: Vec<f64>,
    /// See `dx`.
    pub drho: Vec<f64>,
    /// See `dx`.
    pub dgamma: Vec<f64>,
    /// See `dx`.
    pub dbeta: Vec<f64>,
}

/// Largest deviation of the results from the wanted ones, each relative to the largest wanted value of its
/// tensor; NaN where one of them is. In a 16-bit type drho is taken relative to dgamma where that is larger:
/// it is the difference of two sums of dgamma's size, whose terms the unfused variants round.
pub fn deviation(got: &Outputs, want: &Outputs, dtype: DType) -> [f64; 5] {
    let largest = |v: &[f64]| v.iter().fold(f64::MIN_POSITIVE, |m, v| m.max(v.abs()));
    let least_of_rho = if dtype == DType::F32 { 0.0 } else { largest(&want.dgamma) };
    let tensor = |got: &[f64], want: &[f64], least: f64| {
        if got.len() != want.len() {
            return f64::NAN;
        }
        let scale = largest(want).max(least);
        let mut worst = 0.0;
        for (g, w) in got.iter().zip(want) {
            let error = (g - w).abs() / scale;
            // So that a NaN stays.
            if error.is_nan() || error > worst {
                worst = error;
            }
        }
        worst
    };
    [
        tensor(&got.out, &want.out, 0.0),
        tensor(&got.dx, &want.dx, 0.0),
        tensor(&got.drho, &want.drho, least_of_rho),
        tensor(&got.dgamma, &want.dgamma, 0.0),
        tensor(&got.dbeta, &want.dbeta, 0.0),
    ]
}
