//! Single operations: each case is recorded on a tape of its own, exactly as the networks record it,
//! differentiated and run. Image operations go through the functions the images go through.

use serde_json::Value as Json;

use super::golden::Golden;
use super::report::{Check, FileReport, Group};
use super::tolerance::{self, Difference};
use crate::data::{Rgb8, normalise, resize_bilinear};
use crate::device::executable::DeviceHandle;
use crate::report::{JET, grey_map, heatmap, resize_grey};
use crate::tape::{
    Activation, AdamHyper, Affine, BufferRole, LoadedProgram, LossKind, Place, Seed, StateLayout, StateView,
    Tape, Value, plan,
};
use crate::tensor::{Shape, nchw_to_nhwc, transpose};
use crate::{Error, Result};

/// A case that was found to be whole, ready to run.
struct Job {
    name: String,
    measure: &'static str,
    run: Box<dyn FnOnce(&DeviceHandle) -> Result<Vec<Check>>>,
}

/// The cases of a file, read and checked.
pub(super) struct Cases(Vec<Job>);

impl Cases {
    /// Reads all cases, so that an unusable file is found before anything runs.
    pub(super) fn read(golden: &Golden) -> Result<Self> {
        let cases = golden.json("cases")?;
        let cases = cases.as_array().ok_or_else(|| golden.error("'cases' in its metadata is no list"))?;
        let jobs = cases.iter().enumerate().map(|(i, params)| {
            let name = params["name"].as_str().map(str::to_owned);
            let name = name.ok_or_else(|| golden.error(format!("case {i} has no name")))?;
            Case { golden, name, params }.job()
        });
        Ok(Self(jobs.collect::<Result<_>>()?))
    }

    /// Runs them all.
    pub(super) fn run(self, golden: &Golden, device: &DeviceHandle) -> FileReport {
        let started = std::time::Instant::now();
        let what = format!("{} cases on {}", self.0.len(), device.lock().describe());
        let groups = self
            .0
            .into_iter()
            .map(|job| {
                let checks = (job.run)(device).unwrap_or_else(|e| vec![broken("run", e.message())]);
                let worst = checks.iter().map(|c| (c.deviation, c.tolerance));
                // The number for the whole case is that of its worst tensor.
                let (deviation, tolerance) = worst
                    .reduce(|a, b| if b.0 / b.1 <= a.0 / a.1 || b.0 == 0.0 { a } else { b })
                    .unwrap_or((f64::NAN, 0.0));
                Group::new(job.name, job.measure, deviation, tolerance, false, checks)
            })
            .collect();
        FileReport {
            file: golden.name().to_owned(),
            kind: "operations",
            what,
            notes: Vec::new(),
            groups,
            seconds: started.elapsed().as_secs_f64(),
        }
    }
}

/// A check that fails without a number.
fn broken(name: &str, why: impl Into<String>) -> Check {
    Check {
        name: name.to_owned(),
        deviation: f64::NAN,
        tolerance: 0.0,
        max_abs: f64::NAN,
        elements: 0,
        note: Some(why.into()),
    }
}

/// Relative L2 of floats.
fn floats(name: impl AsRef<str>, run: &[f32], reference: &[f32], tolerance: f64) -> Check {
    floats_above(name.as_ref(), run, reference, tolerance, 0.0)
}

/// Relative L2 of floats, of a reference that counts as `floor` long where it is shorter.
fn floats_above(name: &str, run: &[f32], reference: &[f32], tolerance: f64, floor: f64) -> Check {
    let d = Difference::of(run, reference);
    Check::new(name, d.relative(floor), tolerance, d.max_abs, reference.len())
}

/// How many of some items differ; none may.
fn items<T: PartialEq>(name: &str, run: &[T], reference: &[T]) -> Check {
    let differing = run.iter().zip(reference).filter(|(a, b)| a != b).count();
    let missing = run.len().abs_diff(reference.len());
    Check::new(
        name,
        (differing + missing) as f64,
        0.0,
        f64::from(u8::from(differing + missing > 0)),
        reference.len(),
    )
}

/// What a value of a bench should be.
struct Expected {
    name: String,
    value: Value,
    reference: Vec<f32>,
    tolerance: f64,
    /// Norm below which the reference counts as this long.
    floor: f64,
}

/// A tape with its persistent tensors and what they start with.
#[derive(Default)]
struct Bench {
    tape: Tape,
    layout: StateLayout,
    uploads: Vec<(Value, Vec<f32>)>,
    expected: Vec<Expected>,
}

impl Bench {
    fn input(&mut self, name: &str, shape: Shape, data: Vec<f32>) -> Value {
        let view = StateView {
            buffer: self.layout.add(BufferRole::Operand, name, 4 * shape.len() as u64),
            offset: 0,
        };
        let value = self.tape.state(name, shape, view);
        self.uploads.push((value, data));
        value
    }

    /// Where a gradient goes. It starts as NaN, so that a gradient nobody writes is found.
    fn gradient(&mut self, of: Value) -> (Value, Value) {
        let (name, shape) = (format!("d({})", self.tape.info(of).name), self.tape.shape(of));
        (of, self.input(&name, shape, vec![f32::NAN; shape.len()]))
    }

    fn expect(&mut self, name: &str, value: Value, reference: Vec<f32>, tolerance: f64) {
        self.tape.keep(value);
        self.expected.push(Expected { name: name.to_owned(), value, reference, tolerance, floor: 0.0 });
    }

    /// What is expected under that name counts as at least so long.
    fn floor(&mut self, name: &str, floor: f64) {
        self.expected.iter_mut().filter(|e| e.name == name).for_each(|e| e.floor = floor);
    }

    fn load(&self, name: &str, device: &DeviceHandle) -> Result<LoadedProgram> {
        let loaded = plan(name, &self.tape, &self.layout)?.load(device)?;
        for (value, data) in &self.uploads {
            let Place::State(view) = self.tape.info(*value).place else { continue };
            loaded.executable().state().write(self.layout.offset(view), data)?;
        }
        Ok(loaded)
    }

    /// Runs once and compares everything that is expected.
    fn check(&self, name: &str, device: &DeviceHandle) -> Result<Vec<Check>> {
        let loaded = self.load(name, device)?;
        loaded.executable().run()?;
        self.expected
            .iter()
            .map(|e| Ok(floats_above(&e.name, &loaded.read(e.value)?, &e.reference, e.tolerance, e.floor)))
            .collect()
    }
}

/// One case of the file.
struct Case<'g> {
    golden: &'g Golden,
    name: String,
    params: &'g Json,
}

impl Case<'_> {
    fn job(&self) -> Result<Job> {
        let op = self.params["op"].as_str().ok_or_else(|| self.bad("it names no operation"))?;
        let bench = match op {
            "conv" => self.conv()?,
            "adalin" | "iln" => self.mixed_norm(op == "adalin")?,
            "instance_norm" => self.instance_norm()?,
            "global_avg_pool" | "global_max_pool" => self.pool(op == "global_max_pool")?,
            "cam" => match self.params["kind"].as_str() {
                Some("generator") => self.cam(false)?,
                Some("discriminator") => self.cam(true)?,
                kind => return Ok(self.unknown("attention", kind)),
            },
            "upsample" => self.pad(0, 2)?,
            "reflect_pad" => self.pad(self.number("p")?, 1)?,
            "linear" => self.linear()?,
            "activation" => match self.params["kind"].as_str() {
                Some("relu") => self.activation(Activation::Relu)?,
                Some("leaky_relu") => self.activation(Activation::LeakyRelu)?,
                Some("tanh") => self.activation(Activation::Tanh)?,
                kind => return Ok(self.unknown("activation", kind)),
            },
            "loss" => match self.params["kind"].as_str() {
                Some("mse") => self.loss(LossKind::Mse)?,
                Some("bce") => self.loss(LossKind::Bce)?,
                Some("l1") => self.loss(LossKind::L1)?,
                kind => return Ok(self.unknown("loss", kind)),
            },
            "spectral_norm" => return self.spectral_norm(),
            "adam" => return self.adam(),
            "resize" => return self.resize(),
            "heatmap" => return self.heatmap(),
            _ => return Ok(self.unknown("operation", Some(op))),
        };
        let name = self.name.clone();
        Ok(self.ready("rel. L2", move |device| bench.check(&name, device)))
    }

    fn ready(
        &self,
        measure: &'static str,
        run: impl FnOnce(&DeviceHandle) -> Result<Vec<Check>> + 'static,
    ) -> Job {
        Job { name: self.name.clone(), measure, run: Box::new(run) }
    }

    fn unknown(&self, what: &str, name: Option<&str>) -> Job {
        let why = format!("unknown {what} '{}'", name.unwrap_or_default());
        self.ready("known", move |_| Ok(vec![broken(&why, why.clone())]))
    }

    fn bad(&self, what: impl std::fmt::Display) -> Error {
        self.golden.error(format!("case {}: {what}", self.name))
    }

    fn key(&self, tensor: &str) -> String {
        format!("{}/{tensor}", self.name)
    }

    fn number(&self, param: &str) -> Result<usize> {
        let n = self.params[param].as_u64().filter(|n| *n <= 1 << 20);
        n.map(|n| n as usize)
            .ok_or_else(|| self.bad(format!("'{param}' is {}, not a size", self.params[param])))
    }

    fn real(&self, param: &str) -> Result<f64> {
        let x = self.params[param].as_f64();
        x.ok_or_else(|| self.bad(format!("'{param}' is {}, not a number", self.params[param])))
    }

    fn floats(&self, tensor: &str) -> Result<Vec<f32>> {
        self.golden.floats(&self.key(tensor))
    }

    /// A tensor that must have those extents.
    fn of_dims(&self, tensor: &str, dims: &[usize]) -> Result<Vec<f32>> {
        let found = self.golden.dims(&self.key(tensor))?;
        if found != dims {
            return Err(
                self.bad(format!("{tensor} has the shape {found:?}, but {dims:?} fits the other tensors"))
            );
        }
        self.floats(tensor)
    }

    fn dims(&self, tensor: &str, count: usize) -> Result<Vec<usize>> {
        let dims = self.golden.dims(&self.key(tensor))?;
        if dims.len() != count || dims.contains(&0) {
            return Err(self.bad(format!("{tensor} has the shape {dims:?}, which is not {count} sizes")));
        }
        Ok(dims.to_vec())
    }

    /// Extents of the feature map `x`.
    fn map(&self) -> Result<Shape> {
        let d = self.dims("x", 4)?;
        Ok(Shape::new(1, d[0], d[2], d[3], d[1]))
    }

    /// A feature map of that shape in the device's order.
    fn feature_map(&self, tensor: &str, s: Shape) -> Result<Vec<f32>> {
        Ok(nchw_to_nhwc(&self.of_dims(tensor, &[s.n, s.c, s.h, s.w])?, s.n, s.c, s.h, s.w))
    }

    /// Adds the map `x` with the place of its gradient.
    fn add_x(&self, b: &mut Bench, s: Shape) -> Result<(Value, Value)> {
        let x = b.input("x", s, self.feature_map("x", s)?);
        Ok(b.gradient(x))
    }

    /// Differentiates from `y` and expects `y` and the gradients of the named inputs, in the given orders.
    fn differentiate(
        &self,
        b: &mut Bench,
        y: (Value, Vec<f32>),
        dy: Vec<f32>,
        wrt: &[(&str, (Value, Value), Vec<f32>)],
        tolerance: f64,
    ) {
        let upstream = b.input("dy", b.tape.shape(y.0), dy);
        let pairs: Vec<(Value, Value)> = wrt.iter().map(|w| w.1).collect();
        b.tape.backward(&[Seed::Upstream(y.0, upstream)], &pairs);
        b.expect("y", y.0, y.1, tolerance);
        for (name, (_, gradient), reference) in wrt {
            b.expect(&format!("d_{name}"), *gradient, reference.clone(), tolerance);
        }
    }

    /// Checks that reflection is defined.
    fn check_pad(&self, s: Shape, pad: usize, up: usize) -> Result<()> {
        if pad < s.h * up && pad < s.w * up {
            return Ok(());
        }
        Err(self.bad(format!("reflect padding {pad} is too wide for {}x{} pixels", s.h * up, s.w * up)))
    }

    fn conv(&self) -> Result<Bench> {
        let (s, w) = (self.map()?, self.dims("w", 4)?);
        let (stride, pad) = (self.number("s")?, self.number("p")?);
        let up = if self.params["up"].as_bool().unwrap_or(false) { 2 } else { 1 };
        let (co, ci, k) = (w[0], w[1], w[2]);
        if ci != s.c || k != w[3] || !(1..=8).contains(&stride) {
            return Err(self.bad(format!("x {s}, w {w:?} and stride {stride} make no convolution")));
        }
        self.check_pad(s, pad, up)?;
        let (h, wide) = (s.h * up + 2 * pad, s.w * up + 2 * pad);
        if k > h || k > wide {
            return Err(self.bad(format!("a kernel of {k} is too large for {h}x{wide} pixels")));
        }
        let mut b = Bench::default();
        let x = self.add_x(&mut b, s)?;
        let weight = b.input("w", Shape::new(1, k, k, ci, co), conv_weight(&self.floats("w")?, &w));
        let weight = b.gradient(weight);
        let bias = if self.golden.has(&self.key("b")) {
            let bias = b.input("b", Shape::row(1, co), self.of_dims("b", &[co])?);
            Some(b.gradient(bias))
        } else {
            None
        };
        let padded = if pad > 0 || up > 1 { b.tape.pad(x.0, pad, up) } else { x.0 };
        let y = b.tape.conv("y", padded, weight.0, bias.map(|b| b.0), None, stride, Activation::None);
        let o = b.tape.shape(y);
        let dw = conv_weight(&self.of_dims("d_w", &w)?, &w);
        let mut wrt = vec![("x", x, self.feature_map("d_x", s)?), ("w", weight, dw)];
        if let Some(bias) = bias {
            wrt.push(("b", bias, self.of_dims("d_b", &[co])?));
        }
        let (reference, dy) = (self.feature_map("y", o)?, self.feature_map("dy", o)?);
        self.differentiate(&mut b, (y, reference), dy, &wrt, tolerance::OP);
        Ok(b)
    }

    /// How much of its digits standardising takes from x: 1 + its root mean square over its spread.
    fn condition(&self) -> Result<f64> {
        let x = self.floats("x")?;
        let n = x.len().max(1) as f64;
        let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let spread = (x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n).sqrt();
        Ok(1.0 + (mean.abs() / spread.max(f64::MIN_POSITIVE)).min(1e6))
    }

    fn mixed_norm(&self, adalin: bool) -> Result<Bench> {
        let s = self.map()?;
        let mut b = Bench::default();
        let x = self.add_x(&mut b, s)?;
        let row = [1, s.c, 1, 1];
        let (dims, shape) = if adalin {
            (vec![s.n, s.c], Shape::new(1, s.n, 1, 1, s.c))
        } else {
            (row.to_vec(), Shape::row(1, s.c))
        };
        let rho = b.input("rho", Shape::row(1, s.c), self.of_dims("rho", &row)?);
        let gamma = b.input("gamma", shape, self.of_dims("gamma", &dims)?);
        let beta = b.input("beta", shape, self.of_dims("beta", &dims)?);
        let [rho, gamma, beta] = [rho, gamma, beta].map(|v| b.gradient(v));
        let affine = Affine { rho: rho.0, gamma: gamma.0, beta: beta.0 };
        let y = b.tape.norm("y", x.0, Some(affine), Activation::None, None);
        let wrt = [
            ("x", x, self.feature_map("d_x", s)?),
            ("rho", rho, self.of_dims("d_rho", &row)?),
            ("gamma", gamma, self.of_dims("d_gamma", &dims)?),
            ("beta", beta, self.of_dims("d_beta", &dims)?),
        ];
        let (reference, dy) = (self.feature_map("y", s)?, self.feature_map("dy", s)?);
        let gammas = self.floats("gamma")?;
        let scaled: Vec<f32> = dy
            .iter()
            .enumerate()
            .map(|(i, g)| {
                let row = if adalin { i / s.image_len() } else { 0 };
                g * gammas[row * s.c + i % s.c]
            })
            .collect();
        // The gradient of rho is the difference of what the two norms get, and as exact as these are.
        let rho_floor = norm(&scaled);
        let x_floor = self.standardised_floor(s, &scaled)?;
        self.differentiate(&mut b, (y, reference), dy, &wrt, tolerance::OP * self.condition()?);
        b.floor("d_rho", rho_floor);
        b.floor("d_x", x_floor);
        Ok(b)
    }

    fn instance_norm(&self) -> Result<Bench> {
        let s = self.map()?;
        let mut b = Bench::default();
        let x = self.add_x(&mut b, s)?;
        let y = b.tape.norm("y", x.0, None, Activation::None, None);
        let wrt = [("x", x, self.feature_map("d_x", s)?)];
        let (reference, dy) = (self.feature_map("y", s)?, self.feature_map("dy", s)?);
        let floor = self.standardised_floor(s, &dy)?;
        self.differentiate(&mut b, (y, reference), dy, &wrt, tolerance::OP * self.condition()?);
        b.floor("d_x", floor);
        Ok(b)
    }

    /// How long the gradient of x is before a norm takes the parts along its mean and its spread from it.
    /// Of a map of two pixels nothing else is left, of others most.
    fn standardised_floor(&self, s: Shape, upstream: &[f32]) -> Result<f64> {
        let x = self.feature_map("x", s)?;
        let mut sum = 0.0;
        for (x, g) in x.chunks_exact(s.image_len()).zip(upstream.chunks_exact(s.image_len())) {
            for c in 0..s.c {
                let of =
                    |v: &[f32]| -> Vec<f64> { v[c..].iter().step_by(s.c).map(|&v| f64::from(v)).collect() };
                let (x, g) = (of(x), of(g));
                let mean = x.iter().sum::<f64>() / x.len() as f64;
                let spread = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / x.len() as f64 + 1e-5;
                sum += g.iter().map(|g| g * g).sum::<f64>() / spread;
            }
        }
        Ok(sum.sqrt())
    }

    fn pool(&self, maximum: bool) -> Result<Bench> {
        let s = self.map()?;
        let dims = [s.n, s.c, 1, 1];
        let mut b = Bench::default();
        let x = self.add_x(&mut b, s)?;
        let wrt = [("x", x, self.feature_map("d_x", s)?)];
        let (reference, dy) = (self.of_dims("y", &dims)?, self.of_dims("dy", &dims)?);
        if !maximum {
            let y = b.tape.average_pool("y", x.0);
            self.differentiate(&mut b, (y, reference), dy, &wrt, tolerance::OP);
            return Ok(b);
        }
        // One kernel makes both; here nothing comes from the average.
        let (average, y) = b.tape.average_and_max_pool(x.0);
        let upstream = b.input("dy", b.tape.shape(y), dy);
        let nothing = b.input("d(gap)", b.tape.shape(y), vec![0.0; reference.len()]);
        b.tape.backward(&[Seed::Upstream(y, upstream), Seed::Upstream(average, nothing)], &[x]);
        b.expect("y", y, reference, tolerance::OP);
        let [(_, (_, gradient), reference)] = wrt;
        b.expect("d_x", gradient, reference, tolerance::OP);
        Ok(b)
    }

    fn cam(&self, spectral: bool) -> Result<Bench> {
        let s = self.map()?;
        let c = s.c;
        let (row, square) = ([1, c], [c, 2 * c, 1, 1]);
        let mut b = Bench::default();
        let x = self.add_x(&mut b, s)?;
        let gap_w = b.input("gap_w", Shape::row(1, c), self.of_dims("gap_w", &row)?);
        let gmp_w = b.input("gmp_w", Shape::row(1, c), self.of_dims("gmp_w", &row)?);
        let conv_w = conv_weight(&self.of_dims("conv_w", &square)?, &square);
        let conv_w = b.input("conv_w", Shape::new(1, 1, 1, 2 * c, c), conv_w);
        let conv_b = b.input("conv_b", Shape::row(1, c), self.of_dims("conv_b", &[c])?);
        let [gap_w, gmp_w, conv_w, conv_b] = [gap_w, gmp_w, conv_w, conv_b].map(|v| b.gradient(v));
        // A matrix of one row has one singular value: any u and v lead to it in one pass.
        let spectral = spectral.then(|| {
            [gap_w.0, gmp_w.0].map(|weight| {
                let u = b.input("u", Shape::row(1, 1), vec![1.0]);
                let v = b.input("v", Shape::row(1, c), vec![(c as f32).sqrt().recip(); c]);
                b.tape.power_iterations(weight, u, v, 1)
            })
        });
        let act = if spectral.is_some() { Activation::LeakyRelu } else { Activation::Relu };
        let (gap, gmp) = b.tape.average_and_max_pool(x.0);
        let logit = b.tape.cam_logits(gap, gmp, gap_w.0, gmp_w.0, spectral);
        let folded = b.tape.cam_fold(conv_w.0, gap_w.0, gmp_w.0);
        let y = b.tape.conv("y", x.0, folded, Some(conv_b.0), None, 1, act);
        let heatmap = b.tape.heatmap(y);
        let dy = b.input("dy", s, self.feature_map("dy", s)?);
        let dlogit = b.input("d_cam_logit", b.tape.shape(logit), self.of_dims("d_cam_logit", &[s.n, 2])?);
        b.tape.backward(
            &[Seed::Upstream(y, dy), Seed::Upstream(logit, dlogit)],
            &[x, gap_w, gmp_w, conv_w, conv_b],
        );
        for (name, value, reference) in [
            ("y", y, self.feature_map("y", s)?),
            ("cam_logit", logit, self.of_dims("cam_logit", &[s.n, 2])?),
            ("heatmap", heatmap, self.of_dims("heatmap", &[s.n, 1, s.h, s.w])?),
            ("d_x", x.1, self.feature_map("d_x", s)?),
            ("d_gap_w", gap_w.1, self.of_dims("d_gap_w", &row)?),
            ("d_gmp_w", gmp_w.1, self.of_dims("d_gmp_w", &row)?),
            ("d_conv_w", conv_w.1, conv_weight(&self.of_dims("d_conv_w", &square)?, &square)),
            ("d_conv_b", conv_b.1, self.of_dims("d_conv_b", &[c])?),
        ] {
            b.expect(name, value, reference, tolerance::OP);
        }
        Ok(b)
    }

    fn pad(&self, pad: usize, up: usize) -> Result<Bench> {
        let s = self.map()?;
        self.check_pad(s, pad, up)?;
        let mut b = Bench::default();
        let x = self.add_x(&mut b, s)?;
        let y = b.tape.pad(x.0, pad, up);
        let o = b.tape.shape(y);
        let wrt = [("x", x, self.feature_map("d_x", s)?)];
        let (reference, dy) = (self.feature_map("y", o)?, self.feature_map("dy", o)?);
        self.differentiate(&mut b, (y, reference), dy, &wrt, tolerance::OP);
        Ok(b)
    }

    fn linear(&self) -> Result<Bench> {
        let (x, w) = (self.dims("x", 2)?, self.dims("w", 2)?);
        let (n, i, o) = (x[0], x[1], w[0]);
        if w[1] != i {
            return Err(self.bad(format!("x {x:?} and w {w:?} make no linear layer")));
        }
        let mut b = Bench::default();
        let inp = b.input("x", Shape::new(1, n, 1, 1, i), self.floats("x")?);
        let weight = b.input("w", Shape::new(1, 1, 1, o, i), self.floats("w")?);
        let (inp, weight) = (b.gradient(inp), b.gradient(weight));
        let y = b.tape.linear("y", inp.0, weight.0, Activation::None);
        let wrt = [("x", inp, self.of_dims("d_x", &x)?), ("w", weight, self.of_dims("d_w", &w)?)];
        let (reference, dy) = (self.of_dims("y", &[n, o])?, self.of_dims("dy", &[n, o])?);
        self.differentiate(&mut b, (y, reference), dy, &wrt, tolerance::OP);
        Ok(b)
    }

    /// A tensor of any extents as one row.
    fn flat(&self, tensor: &str) -> Result<(Vec<usize>, Shape)> {
        let dims = self.golden.dims(&self.key(tensor))?.to_vec();
        let len = dims.iter().product();
        if len == 0 {
            return Err(self.bad(format!("{tensor} is empty")));
        }
        Ok((dims, Shape::row(1, len)))
    }

    fn activation(&self, act: Activation) -> Result<Bench> {
        let (dims, shape) = self.flat("x")?;
        let mut b = Bench::default();
        let x = b.input("x", shape, self.floats("x")?);
        let x = b.gradient(x);
        let y = b.tape.activation("y", x.0, act);
        let wrt = [("x", x, self.of_dims("d_x", &dims)?)];
        let (reference, dy) = (self.of_dims("y", &dims)?, self.of_dims("dy", &dims)?);
        self.differentiate(&mut b, (y, reference), dy, &wrt, tolerance::OP);
        Ok(b)
    }

    fn loss(&self, kind: LossKind) -> Result<Bench> {
        let (dims, shape) = self.flat("x")?;
        let mut b = Bench::default();
        let x = b.input("x", shape, self.floats("x")?);
        let x = b.gradient(x);
        let (tensor, constant) = if kind == LossKind::L1 {
            (Some(b.input("target", shape, self.of_dims("target", &dims)?)), 0.0)
        } else {
            (None, self.real("target")? as f32)
        };
        let dy = self.of_dims("dy", &[])?[0];
        let terms = b.tape.terms("y", 1, 1);
        b.tape.loss(kind, x.0, tensor, &[constant], terms);
        b.tape.backward(&[Seed::Loss(terms, [dy; 2])], &[x]);
        b.expect("y", terms, self.of_dims("y", &[])?, tolerance::OP);
        b.expect("d_x", x.1, self.of_dims("d_x", &dims)?, tolerance::OP);
        // A sigmoid next to its target leaves a difference of two numbers next to 1.
        b.floor("d_x", f64::from(dy).abs() / (shape.len() as f64).sqrt());
        Ok(b)
    }

    /// Passes one after the other, each through the layer that has such a weight in the networks, with
    /// the unit vectors as its inputs: then the layer's output is the effective weight, its upstream
    /// gradient the effective weight's, and its weight gradient the one asked for. A row goes through
    /// the CAM classifiers, everything else through a convolution.
    fn spectral_norm(&self) -> Result<Job> {
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

    fn adam(&self) -> Result<Job> {
        let (steps, decay) = (self.number("steps")?, self.real("weight_decay")?);
        let dims = self.dims("p0", 1)?;
        let rates: Vec<f64> = (0..steps)
            .map(|i| {
                self.params["lr"][i]
                    .as_f64()
                    .ok_or_else(|| self.bad(format!("'lr' has no rate for step {}", i + 1)))
            })
            .collect::<Result<_>>()?;
        let start = self.of_dims("p0", &dims)?;
        let each = |stem: &str| -> Result<Vec<Vec<f32>>> {
            (1..=steps).map(|i| self.of_dims(&format!("{stem}{i}"), &dims)).collect()
        };
        let (gs, ps, ms, vs) = (each("g")?, each("p")?, each("m")?, each("v")?);
        let hyper = AdamHyper { beta1: 0.5, beta2: 0.999, eps: 1e-8, weight_decay: decay };
        let name = self.name.clone();
        Ok(self.ready("rel. L2", move |device| {
            let shape = Shape::row(1, start.len());
            let mut b = Bench::default();
            let zeros = || vec![0.0; start.len()];
            let p = b.input("p", shape, start.clone());
            let (m, v) = (b.input("m", shape, zeros()), b.input("v", shape, zeros()));
            let g = b.input("g", shape, zeros());
            let schedule = b.input("schedule", Shape::row(1, 2), vec![0.0; 2]);
            b.tape.adam(p, m, v, g, schedule, hyper);
            let loaded = b.load(&name, device)?;
            let mut checks = Vec::new();
            for i in 0..steps {
                let t = (i + 1) as f64;
                let rate = (rates[i] / (1.0 - hyper.beta1.powf(t))) as f32;
                let scale = (1.0 - hyper.beta2.powf(t)).sqrt().recip() as f32;
                loaded.write(schedule, &[rate, scale])?;
                loaded.write(g, &gs[i])?;
                loaded.executable().run()?;
                let now = loaded.read(p)?;
                checks.push(floats(format!("p{}", i + 1), &now, &ps[i], tolerance::OP));
                checks.push(floats(format!("m{}", i + 1), &loaded.read(m)?, &ms[i], tolerance::OP));
                checks.push(floats(format!("v{}", i + 1), &loaded.read(v)?, &vs[i], tolerance::OP));
                // The update so far, which a large weight would hide: a share of it, and the weight's
                // rounding in every step.
                let update = |to: &[f32]| to.iter().zip(&start).map(|(a, b)| a - b).collect::<Vec<f32>>();
                let d = Difference::of(&update(&now), &update(&ps[i]));
                let weight = Difference::of(&ps[i], &ps[i]).norm2.sqrt();
                let rounding =
                    f64::from(f32::EPSILON) * t.sqrt() * weight / d.norm2.sqrt().max(f64::MIN_POSITIVE);
                checks.push(floats(
                    format!("p{} - p0", i + 1),
                    &update(&now),
                    &update(&ps[i]),
                    1e-4 + rounding,
                ));
            }
            Ok(checks)
        }))
    }

    /// An image `[H, W, 3]` of bytes.
    fn image(&self, tensor: &str) -> Result<Rgb8> {
        let d = self.dims(tensor, 3)?;
        if d[2] != 3 {
            return Err(self.bad(format!("{tensor} has the shape {d:?}, which is no image")));
        }
        Rgb8::new(d[1], d[0], self.golden.bytes(&self.key(tensor))?)
    }

    fn resize(&self) -> Result<Job> {
        let (x, y) = (self.image("x")?, self.image("y")?);
        let values = if self.golden.has(&self.key("y_normalised")) {
            Some(self.of_dims("y_normalised", &[3, y.height(), y.width()])?)
        } else {
            None
        };
        Ok(self.ready("differing", move |_| {
            let resized = resize_bilinear(&x, y.width(), y.height());
            let mut checks = vec![items("y", resized.pixels(), y.pixels())];
            if let Some(values) = values {
                let floats: Vec<f32> = resized.pixels().iter().map(|&p| normalise(p)).collect();
                let planes = transpose(&floats, 1, y.width() * y.height(), 3);
                checks.push(items("y_normalised", &planes, &values));
            }
            Ok(checks)
        }))
    }

    fn heatmap(&self) -> Result<Job> {
        let d = self.dims("x", 3)?;
        let (h, w, size) = (d[1], d[2], self.number("size")?);
        if d[0] != 1 || size == 0 {
            return Err(self.bad(format!("x has the shape {d:?} and the size is {size}: no attention map")));
        }
        let x = self.floats("x")?;
        let bytes = |tensor: &str, dims: &[usize]| -> Result<Vec<u8>> {
            let found = self.golden.dims(&self.key(tensor))?;
            if found != dims {
                return Err(self.bad(format!("{tensor} has the shape {found:?}, not {dims:?}")));
            }
            self.golden.bytes(&self.key(tensor))
        };
        let grey = bytes("grey", &[h, w])?;
        let resized = bytes("grey_resized", &[size, size])?;
        let colours = bytes("y_rgb", &[size, size, 3])?;
        let table = bytes("jet_rgb", &[256, 3])?;
        Ok(self.ready("differing", move |_| {
            let own = grey_map(&x);
            let own_resized = resize_grey(&own, w, h, size, size)?;
            let own_colours = heatmap(&x, w, h, size)?;
            Ok(vec![
                items("grey", &own, &grey),
                items("grey_resized", &own_resized, &resized),
                items("y_rgb", own_colours.pixels(), &colours),
                items("jet_rgb", JET.as_flattened(), &table),
            ])
        }))
    }
}

/// Length of a vector.
fn norm(x: &[f32]) -> f64 {
    Difference::of(x, x).norm2.sqrt()
}

/// `[CO, CI, K, K]` to `[K, K, CI, CO]`.
fn conv_weight(file: &[f32], dims: &[usize]) -> Vec<f32> {
    transpose(&transpose(file, dims[0], dims[1], dims[2] * dims[3]), 1, dims[0], dims[1] * dims[2] * dims[3])
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
