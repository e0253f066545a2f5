//! Spectral normalisation, through the layers that use it.

use super::super::tolerance;
use super::harness::{Bench, Case, Job, conv_weight, floats, floats_above, norm};
use crate::Result;
use crate::tape::{Activation, Seed, Value};
use crate::tensor::{Shape, transpose};

impl Case<'_> {
    /// Passes one after the other, each through the layer that has such a weight in the networks, with
    /// the unit vectors as its inputs: then the layer's output is the effective weight, its upstream
    /// gradient the effective weight's, and its weight gradient the one asked for. A row goes through
    /// the CAM classifiers, everything else through a convolution.
    pub(super) fn spectral_norm(&self) -> Result<Job> {
        let passes = self.number("passes")?;
        let dims = self.golden.dims(&self.key("w"))?.to_vec();
        let layer = match dims[..] {
            [1, k] => Rows { k: 1, ci: k, co: 1, row: true },
            [co, ci, k, other] if k == other => Rows { k, ci, co, row: false },
            [co, ref rest @ ..] => Rows { k: 1, ci: rest.iter().product(), co, row: false },
            [] => return Err(self.bad("w has no rows")),
        };
        let (co, len) = (layer.co, layer.len());
        if co * len == 0 || len > 4096 || !(1..=64).contains(&passes) {
            return Err(self.bad(format!("a weight {dims:?} in {passes} passes is empty or too large")));
        }
        let weight =
            |tensor: &str| -> Result<Vec<f32>> { Ok(layer.to_device(&self.of_dims(tensor, &dims)?)) };
        let vector =
            |tensor: &str| -> Result<Vec<f32>> { Ok(layer.v_to_device(&self.of_dims(tensor, &[len])?)) };
        let w = weight("w")?;
        let each = |stem: &str| -> Result<Vec<Vec<f32>>> {
            (0..passes).map(|i| weight(&format!("{stem}{i}"))).collect()
        };
        let (ys, dys, dws) = (each("y")?, each("dy")?, each("d_w")?);
        let us: Vec<Vec<f32>> =
            (0..=passes).map(|i| self.of_dims(&format!("u{i}"), &[co])).collect::<Result<_>>()?;
        let vs: Vec<Vec<f32>> = (0..=passes).map(|i| vector(&format!("v{i}"))).collect::<Result<_>>()?;
        let name = self.name.clone();
        Ok(self.ready("rel. L2", move |device| {
            let tolerance = tolerance::OP;
            let mut checks = Vec::new();
            // G / sigma, from which the part along u v^T is taken. Of a single element nothing is left.
            let floor = |i: usize| norm(&dys[i]) * norm(&ys[i]) / norm(&w);
            // One pass a run: u and v live on from run to run.
            {
                let (bench, built) = layer.bench(&w, &us[0], &vs[0], &dys[..1]);
                let loaded = bench.load(&name, device)?;
                for i in 0..passes {
                    for dy in &built.dy {
                        loaded.write(*dy, &layer.upstream(&dys[i..=i]))?;
                    }
                    loaded.executable().run()?;
                    let y = layer.outputs(&loaded.read(built.y)?);
                    checks.push(floats(format!("y{i}"), &y, &ys[i], tolerance));
                    for dw in &built.dw {
                        let dw = loaded.read(*dw)?;
                        checks.push(floats_above(&format!("d_w{i}"), &dw, &dws[i], tolerance, floor(i)));
                    }
                    checks.push(floats(format!("u{}", i + 1), &loaded.read(built.u)?, &us[i + 1], tolerance));
                    checks.push(floats(format!("v{}", i + 1), &loaded.read(built.v)?, &vs[i + 1], tolerance));
                }
            }
            // All passes in one batch, as real and fake are: gradients add up.
            if passes > 1 {
                let (bench, built) = layer.bench(&w, &us[0], &vs[0], &dys);
                let loaded = bench.load(&name, device)?;
                loaded.executable().run()?;
                let y = layer.outputs(&loaded.read(built.y)?);
                checks.push(floats("y of all in one batch", &y, &ys.concat(), tolerance));
                let mut sum = vec![0.0; w.len()];
                for dw in &dws {
                    sum.iter_mut().zip(dw).for_each(|(s, x)| *s += x);
                }
                for dw in &built.dw {
                    let dw = loaded.read(*dw)?;
                    let floor = (0..passes).map(floor).fold(0.0, f64::max);
                    checks.push(floats_above("d_w of all in one batch", &dw, &sum, tolerance, floor));
                }
                checks.push(floats("u after the batch", &loaded.read(built.u)?, &us[passes], tolerance));
            }
            Ok(checks)
        }))
    }
}

/// A spectrally normalised weight as the layer that uses it sees it.
#[derive(Clone, Copy)]
struct Rows {
    k: usize,
    ci: usize,
    co: usize,
    /// A classifier's row.
    row: bool,
}

/// The values of a bench for [`Rows`].
struct Built {
    y: Value,
    dy: Vec<Value>,
    dw: Vec<Value>,
    u: Value,
    v: Value,
}

impl Rows {
    /// Elements of a row of the matrix.
    fn len(&self) -> usize {
        self.k * self.k * self.ci
    }

    /// A weight `[CO, CI, K, K]` in the device's order.
    fn to_device(self, file: &[f32]) -> Vec<f32> {
        conv_weight(file, &[self.co, self.ci, self.k, self.k])
    }

    /// v `[CI, K, K]` in the device's order.
    fn v_to_device(self, file: &[f32]) -> Vec<f32> {
        transpose(file, 1, self.ci, self.k * self.k)
    }

    /// Upstream gradients of the passes' effective weights as those of the layer's outputs.
    fn upstream(&self, dys: &[Vec<f32>]) -> Vec<f32> {
        let all = dys.concat();
        if self.row { all.iter().flat_map(|&x| [x, x]).collect() } else { all }
    }

    /// The effective weights in the layer's outputs.
    fn outputs(&self, y: &[f32]) -> Vec<f32> {
        if self.row { y.iter().copied().step_by(2).collect() } else { y.to_vec() }
    }

    /// As many passes as there are upstream gradients, in one batch of unit vectors for each.
    fn bench(&self, w: &[f32], u: &[f32], v: &[f32], dys: &[Vec<f32>]) -> (Bench, Built) {
        let (len, passes) = (self.len(), dys.len());
        let mut unit = vec![0.0; passes * len * len];
        for (i, row) in unit.chunks_exact_mut(len).enumerate() {
            row[i % len] = 1.0;
        }
        let mut b = Bench::default();
        let images = Shape::new(1, passes * len, self.k, self.k, self.ci);
        if self.row {
            let halves = ["gap", "gmp"].map(|name| {
                let x = b.input(name, images, unit.clone());
                let weight = b.input("w", Shape::row(1, len), w.to_vec());
                let u = b.input("u", Shape::row(1, 1), u.to_vec());
                let v = b.input("v", Shape::row(1, len), v.to_vec());
                (x, b.gradient(weight), u, v, b.tape.power_iterations(weight, u, v, passes))
            });
            let [gap, gmp] = halves;
            let y = b.tape.cam_logits(gap.0, gmp.0, gap.1.0, gmp.1.0, Some([gap.4, gmp.4]));
            b.tape.keep(y);
            let dy = b.input("dy", b.tape.shape(y), self.upstream(dys));
            b.tape.backward(&[Seed::Upstream(y, dy)], &[gap.1, gmp.1]);
            let built = Built { y, dy: vec![dy], dw: vec![gap.1.1, gmp.1.1], u: gap.2, v: gap.3 };
            return (b, built);
        }
        let x = b.input("x", images, unit);
        let weight = b.input("w", Shape::new(1, self.k, self.k, self.ci, self.co), w.to_vec());
        let u = b.input("u", Shape::row(1, self.co), u.to_vec());
        let v = b.input("v", Shape::row(1, len), v.to_vec());
        let weight = b.gradient(weight);
        let spectral = b.tape.power_iterations(weight.0, u, v, passes);
        let y = b.tape.conv("y", x, weight.0, None, Some(spectral), 1, Activation::None);
        b.tape.keep(y);
        let dy = b.input("dy", b.tape.shape(y), self.upstream(dys));
        b.tape.backward(&[Seed::Upstream(y, dy)], &[weight]);
        (b, Built { y, dy: vec![dy], dw: vec![weight.1], u, v })
    }
}
