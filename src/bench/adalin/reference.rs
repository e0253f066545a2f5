//! The norms in double precision, written from their definition: what every variant is checked against
//! before a number of it is shown.

use super::case::{Case, Kind};
use super::tensors::{Inputs, Outputs};

/// Mean, 1 / sqrt(variance + eps) and number of the values at `at`.
fn statistics(x: &[f32], at: &[usize], less: f64) -> (f64, f64, f64) {
    let n = at.len() as f64;
    let mean = at.iter().map(|&i| f64::from(x[i])).sum::<f64>() / n;
    let m2 = at.iter().map(|&i| (f64::from(x[i]) - mean).powi(2)).sum::<f64>();
    (mean, 1.0 / (m2 / (n - less) + f64::from(crate::tape::norm::EPS)).sqrt(), n)
}

/// Both passes. The activation's and the residual's part is the case's.
pub fn outputs(case: &Case, inputs: &Inputs) -> Outputs {
    let s = case.shape;
    let (hw, c) = (s.pixels(), s.c);
    let affine = case.kind != Kind::Instance;
    let less = if affine { 1.0 } else { 0.0 };
    let per = case.images_per_affine();
    let x = &inputs.x;
    let mut o = Outputs { out: vec![0.0; s.len()], dx: vec![0.0; s.len()], ..Outputs::default() };
    if affine {
        o.drho = vec![0.0; s.d * c];
        o.dgamma = vec![0.0; s.images() / per * c];
        o.dbeta = o.dgamma.clone();
    }
    for image in 0..s.images() {
        let at = |i: usize, k: usize| (image * hw + i) * c + k;
        let all: Vec<usize> = (0..hw * c).map(|i| image * hw * c + i).collect();
        let (mean_l, rstd_l, count_l) = statistics(x, &all, less);
        let mut d_l = vec![0.0; hw * c]; // gradient of a_L, then of x through it
        let (mut q1, mut q2) = (0.0, 0.0);
        for k in 0..c {
            let channel: Vec<usize> = (0..hw).map(|i| at(i, k)).collect();
            let (mean, rstd, count) = statistics(x, &channel, less);
            let row = image / per * c + k;
            let (rho, gamma, beta) = if affine {
                let r = image / s.n * c + k;
                (f64::from(inputs.rho[r]), f64::from(inputs.gamma[row]), f64::from(inputs.beta[row]))
            } else {
                (1.0, 1.0, 0.0)
            };
            let (mut p1, mut p2) = (0.0, 0.0);
            let mut d_i = vec![0.0; hw];
            for i in 0..hw {
                let v = f64::from(x[at(i, k)]);
                let (a_i, a_l) = ((v - mean) * rstd, (v - mean_l) * rstd_l);
                let mix = rho * a_i + (1.0 - rho) * a_l;
                let y = mix * gamma + beta;
                let slope = if y > 0.0 { 1.0 } else { case.negative_slope() };
                let residual = inputs.residual.get(at(i, k)).map_or(0.0, |&r| f64::from(r));
                o.out[at(i, k)] = y * slope + residual;
                let g = f64::from(inputs.dy[at(i, k)]) * slope;
                if affine {
                    o.dbeta[row] += g;
                    o.dgamma[row] += g * mix;
                    o.drho[image / s.n * c + k] += g * gamma * (a_i - a_l);
                }
                d_i[i] = g * gamma * rho;
                p1 += d_i[i];
                p2 += d_i[i] * a_i;
                let q = g * gamma * (1.0 - rho);
                d_l[i * c + k] = q;
                q1 += q;
                q2 += q * a_l;
            }
            for (i, d) in d_i.iter().enumerate() {
                let a_i = (f64::from(x[at(i, k)]) - mean) * rstd;
                o.dx[at(i, k)] += rstd * (d - p1 / count - a_i * p2 / (count - less));
            }
        }
        for (i, d) in d_l.iter().enumerate().filter(|_| affine) {
            let a_l = (f64::from(x[image * hw * c + i]) - mean_l) * rstd_l;
            o.dx[image * hw * c + i] += rstd_l * (d - q1 / count_l - a_l * q2 / (count_l - less));
        }
    }
    o
}

/// `out` up-sampled and reflect-padded.
pub fn padded(case: &Case, out: &[f64]) -> Vec<f64> {
    let Some((pad, up)) = case.padded else { return out.to_vec() };
    let s = case.shape;
    let reflect = |i: usize, n: usize| {
        let i = (i as isize - pad as isize).unsigned_abs();
        (if i < n { i } else { 2 * n - 2 - i }) / up
    };
    let (oh, ow) = (s.h * up + 2 * pad, s.w * up + 2 * pad);
    let mut to = Vec::with_capacity(s.images() * oh * ow * s.c);
    for image in 0..s.images() {
        for h in 0..oh {
            for w in 0..ow {
                let from = (image * s.h + reflect(h, s.h * up)) * s.w + reflect(w, s.w * up);
                to.extend_from_slice(&out[from * s.c..][..s.c]);
            }
        }
    }
    to
}
