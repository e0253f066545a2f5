//! Every operation against float64 on odd shapes: the forward values, and the gradients against central
//! differences of the float64 function, along random directions and single elements. A file for each of
//! `src/tape/ops`.

mod activation;
mod adam;
mod cam;
mod conv;
mod copy;
mod linear;
mod loss;
mod norm;
mod pad;
mod pool;
mod reduce;
mod spectral;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use ugatit::tape::{
    Activation, BufferRole, LowerOptions, Seed, StateLayout, StateView, Tape, Value, plan_with,
};
use ugatit::tensor::Shape;

/// A tensor on the host in double precision, `[D, N, H, W, C]`.
#[derive(Clone)]
pub(super) struct Host {
    s: Shape,
    x: Vec<f64>,
}

impl Host {
    fn new(s: Shape, f: impl FnMut(usize) -> f64) -> Self {
        Self { s, x: (0..s.len()).map(f).collect() }
    }

    fn index(&self, d: usize, n: usize, h: usize, w: usize, c: usize) -> usize {
        (((d * self.s.n + n) * self.s.h + h) * self.s.w + w) * self.s.c + c
    }

    fn at(&self, d: usize, n: usize, h: usize, w: usize, c: usize) -> f64 {
        self.x[self.index(d, n, h, w, c)]
    }

    /// One value for every index of a shape.
    fn map(s: Shape, mut f: impl FnMut(usize, usize, usize, usize, usize) -> f64) -> Self {
        let mut x = Vec::with_capacity(s.len());
        for d in 0..s.d {
            for n in 0..s.n {
                for h in 0..s.h {
                    for w in 0..s.w {
                        for c in 0..s.c {
                            x.push(f(d, n, h, w, c));
                        }
                    }
                }
            }
        }
        Self { s, x }
    }
}

fn act(v: f64, a: Activation) -> f64 {
    match a {
        Activation::None => v,
        Activation::Relu => v.max(0.0),
        Activation::LeakyRelu => {
            if v > 0.0 {
                v
            } else {
                f64::from(0.2f32) * v
            }
        }
        Activation::Tanh => v.tanh(),
    }
}

/// Records the operation under test.
type Record = dyn Fn(&mut Tape, &[Value]) -> Value;
/// The same on the host, in float64.
type Reference = dyn Fn(&[Host]) -> Host;

/// What a case records and what it computes.
struct Case {
    name: &'static str,
    inputs: Vec<Host>,
    record: Box<Record>,
    host: Box<Reference>,
    options: LowerOptions,
    /// How many of the inputs, from the first on, have a gradient.
    differentiable: usize,
    /// Error allowed in values and gradients, relative to the largest magnitude.
    tolerance: f64,
}

pub(super) fn rng(name: &str) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(
        name.bytes().fold(7, |h: u64, b| h.wrapping_mul(131).wrapping_add(u64::from(b))),
    )
}

/// Uniform in +-scale around offset, exact in single precision.
pub(super) fn random(r: &mut ChaCha8Rng, s: Shape, scale: f64, offset: f64) -> Host {
    Host::new(s, |_| f64::from(((r.random::<f64>() * 2.0 - 1.0) * scale + offset) as f32))
}

/// A tape with persistent tensors.
#[derive(Default)]
pub(super) struct Recording {
    pub(super) tape: Tape,
    pub(super) layout: StateLayout,
}

impl Recording {
    /// A tensor in persistent memory.
    pub(super) fn state(&mut self, name: impl Into<String>, s: Shape) -> Value {
        let name = name.into();
        let view = StateView {
            buffer: self.layout.add(BufferRole::Operand, name.clone(), 4 * s.len() as u64),
            offset: 0,
        };
        self.tape.state(name, s, view)
    }

    /// Runs what is recorded on the device: the values of `read` afterwards.
    pub(super) fn run(
        &self,
        name: &str,
        options: LowerOptions,
        inputs: &[(Value, &Host)],
        read: &[Value],
    ) -> Vec<Vec<f64>> {
        self.run_of(name, options, inputs, read).1
    }

    /// The same, and the names of the kernels that ran.
    fn run_of(
        &self,
        name: &str,
        options: LowerOptions,
        inputs: &[(Value, &Host)],
        read: &[Value],
    ) -> (Vec<&'static str>, Vec<Vec<f64>>) {
        let planned = plan_with(name, &self.tape, &self.layout, options).expect("plans");
        let kernels = planned.program.launches.iter().map(|l| l.kernel.name).collect();
        let loaded = planned.load(&super::device()).expect("loads");
        for &(v, h) in inputs {
            let single: Vec<f32> = h.x.iter().map(|&v| v as f32).collect();
            loaded.write(v, &single).expect("writes");
        }
        loaded.executable().run().unwrap_or_else(|e| panic!("{name}: {e}"));
        let of = |&v: &Value| loaded.read(v).expect("reads").into_iter().map(f64::from).collect();
        (kernels, read.iter().map(of).collect())
    }
}

/// What a case left.
struct Found {
    kernels: Vec<&'static str>,
    y: Vec<f64>,
    grads: Vec<Vec<f64>>,
}

/// Runs the case on the device: the output and the gradient of every input for the cotangent `dy`.
fn run(case: &Case, dy: &Host) -> Found {
    let mut r = Recording::default();
    let values: Vec<Value> =
        case.inputs.iter().enumerate().map(|(i, h)| r.state(format!("input {i}"), h.s)).collect();
    let grads: Vec<Value> = case.inputs[..case.differentiable]
        .iter()
        .enumerate()
        .map(|(i, h)| r.state(format!("gradient {i}"), h.s))
        .collect();
    let upstream = r.state("dy", dy.s);
    let out = (case.record)(&mut r.tape, &values);
    assert_eq!(r.tape.shape(out), dy.s, "{}: output shape", case.name);
    r.tape.keep(out);
    let wrt: Vec<_> = values.iter().copied().zip(grads.iter().copied()).collect();
    r.tape.backward(&[Seed::Upstream(out, upstream)], &wrt);

    let mut inputs: Vec<(Value, &Host)> = values.iter().copied().zip(&case.inputs).collect();
    inputs.push((upstream, dy));
    let read: Vec<Value> = [out].into_iter().chain(grads).collect();
    let (kernels, results) = r.run_of(case.name, case.options, &inputs, &read);
    let mut results = results.into_iter();
    Found { kernels, y: results.next().expect("the output"), grads: results.collect() }
}

/// Checks values and gradients; returns the names of the kernels that ran.
fn check(case: &Case) -> Vec<&'static str> {
    let mut r = rng(case.name);
    let expected = (case.host)(&case.inputs);
    let dy = random(&mut r, expected.s, 1.0, 0.0);
    let Found { kernels, y, grads } = run(case, &dy);

    let scale = expected.x.iter().fold(1.0f64, |m, v| m.max(v.abs()));
    for (i, (a, b)) in y.iter().zip(&expected.x).enumerate() {
        let err = (a - b).abs() / scale;
        assert!(err <= case.tolerance, "{}: output {i} is {a}, float64 says {b}", case.name);
    }

    let objective =
        |inputs: &[Host]| -> f64 { (case.host)(inputs).x.iter().zip(&dy.x).map(|(a, b)| a * b).sum() };
    for (k, grad) in grads.iter().enumerate() {
        let len = grad.len();
        let mut directions: Vec<Vec<f64>> =
            (0..2).map(|_| (0..len).map(|_| r.random::<f64>() * 2.0 - 1.0).collect()).collect();
        for _ in 0..3.min(len) {
            let mut one = vec![0.0; len];
            one[r.random_range(0..len)] = 1.0;
            directions.push(one);
        }
        let norm = grad.iter().map(|g| g * g).sum::<f64>().sqrt();
        for direction in directions {
            let mut moved = case.inputs.clone();
            let h = 1e-6;
            let mut along = |step: f64| {
                for ((m, x), d) in moved[k].x.iter_mut().zip(&case.inputs[k].x).zip(&direction) {
                    *m = x + step * d;
                }
                objective(&moved)
            };
            let numeric = (along(h) - along(-h)) / (2.0 * h);
            let ours: f64 = grad.iter().zip(&direction).map(|(a, b)| a * b).sum();
            let length = direction.iter().map(|d| d * d).sum::<f64>().sqrt();
            let err = (numeric - ours).abs() / (norm * length + 1.0);
            assert!(
                err <= 10.0 * case.tolerance,
                "{}: gradient of input {k} along a direction is {ours}, finite differences say {numeric}",
                case.name
            );
        }
    }
    kernels
}

fn case(
    name: &'static str,
    inputs: Vec<Host>,
    record: impl Fn(&mut Tape, &[Value]) -> Value + 'static,
    host: impl Fn(&[Host]) -> Host + 'static,
) -> Case {
    let (record, host) = (Box::new(record), Box::new(host));
    let differentiable = inputs.len();
    Case { name, inputs, record, host, options: LowerOptions::default(), differentiable, tolerance: 2e-6 }
}

#[test]
fn no_kernel_has_a_stack_frame() {
    let mut seen = 0;
    for kernel in ugatit::kernels::all() {
        for r in kernel.resources {
            let name = kernel.name;
            // For sm_100 ptxas keeps two of its registers in memory, though there are more than enough.
            let most = if (name, r.arch) == ("pad_backward_x4_f32", 100) { 8 } else { 0 };
            let bytes = r.stack.max(r.spill_stores).max(r.spill_loads);
            assert!(bytes <= most, "{name} on sm_{}: {bytes} bytes", r.arch);
            seen += 1;
        }
    }
    assert!(seen >= 300, "only {seen} kernels found");
}
