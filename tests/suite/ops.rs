//! Every operation against float64 on odd shapes: the forward values, and the gradients against central
//! differences of the float64 function, along random directions and single elements.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use ugatit::tape::{
    Activation, Affine, ConvVariant, LossKind, LowerOptions, Seed, StateLayout, StateView, Tape, Value,
    plan_with,
};
use ugatit::tensor::Shape;

/// A tensor on the host in double precision, `[D, N, H, W, C]`.
#[derive(Clone)]
struct Host {
    s: Shape,
    x: Vec<f64>,
}

impl Host {
    fn new(s: Shape, f: impl FnMut(usize) -> f64) -> Self {
        Self { s, x: (0..s.len()).map(f).collect() }
    }

    fn single(&self) -> Vec<f32> {
        self.x.iter().map(|&v| v as f32).collect()
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

fn reflect(i: isize, n: usize) -> usize {
    let n = n as isize;
    let i = i.abs();
    (if i < n { i } else { 2 * n - 2 - i }) as usize
}

fn pad(x: &Host, p: usize, up: usize) -> Host {
    let (h, w) = (x.s.h * up, x.s.w * up);
    let s = Shape { h: h + 2 * p, w: w + 2 * p, ..x.s };
    Host::map(s, |d, n, i, j, c| {
        let (a, b) = (reflect(i as isize - p as isize, h) / up, reflect(j as isize - p as isize, w) / up);
        x.at(d, n, a, b, c)
    })
}

fn conv(x: &Host, w: &Host, bias: Option<&Host>, stride: usize, a: Activation) -> Host {
    let k = w.s.n;
    let s = Shape { h: (x.s.h - k) / stride + 1, w: (x.s.w - k) / stride + 1, c: w.s.c, ..x.s };
    Host::map(s, |d, n, i, j, co| {
        let mut sum = bias.map_or(0.0, |b| b.at(d, 0, 0, 0, co));
        for kh in 0..k {
            for kw in 0..k {
                for ci in 0..x.s.c {
                    sum += x.at(d, n, i * stride + kh, j * stride + kw, ci) * w.at(d, kh, kw, ci, co);
                }
            }
        }
        act(sum, a)
    })
}

fn norm(x: &Host, affine: Option<[&Host; 3]>, a: Activation, residual: Option<&Host>) -> Host {
    let hw = x.s.pixels();
    let moments = |values: &[f64], unbiased: bool| {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let m2 = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>();
        (mean, 1.0 / (m2 / (if unbiased { n - 1.0 } else { n }) + 1e-5).sqrt())
    };
    let unbiased = affine.is_some();
    let image = |d: usize, n: usize| &x.x[(d * x.s.n + n) * hw * x.s.c..][..hw * x.s.c];
    let channel: Vec<(f64, f64)> = (0..x.s.images() * x.s.c)
        .map(|i| {
            let (img, c) = (i / x.s.c, i % x.s.c);
            let values: Vec<f64> =
                image(img / x.s.n, img % x.s.n).iter().skip(c).step_by(x.s.c).copied().collect();
            moments(&values, unbiased)
        })
        .collect();
    let layer: Vec<(f64, f64)> =
        (0..x.s.images()).map(|img| moments(image(img / x.s.n, img % x.s.n), unbiased)).collect();
    Host::map(x.s, |d, n, h, w, c| {
        let v = x.at(d, n, h, w, c);
        let (mi, ri) = channel[(d * x.s.n + n) * x.s.c + c];
        let y = match affine {
            None => (v - mi) * ri,
            Some([rho, gamma, beta]) => {
                let (ml, rl) = layer[d * x.s.n + n];
                let (r, row) = (rho.at(d, 0, 0, 0, c), if gamma.s.n == x.s.n { n } else { 0 });
                (r * (v - mi) * ri + (1.0 - r) * (v - ml) * rl) * gamma.at(d, row, 0, 0, c)
                    + beta.at(d, row, 0, 0, c)
            }
        };
        act(y, a) + residual.map_or(0.0, |r| r.at(d, n, h, w, c))
    })
}

fn linear(x: &Host, w: &Host, a: Activation) -> Host {
    let s = Shape { h: 1, w: 1, c: w.s.w, ..x.s };
    Host::map(s, |d, n, _, _, o| {
        let row = &x.x[(d * x.s.n + n) * x.s.image_len()..][..x.s.image_len()];
        act(row.iter().enumerate().map(|(i, v)| v * w.at(d, 0, 0, o, i)).sum(), a)
    })
}

/// What a case records and what it computes.
struct Case {
    name: &'static str,
    inputs: Vec<Host>,
    record: Box<dyn Fn(&mut Tape, &[Value]) -> Value>,
    host: Box<dyn Fn(&[Host]) -> Host>,
    options: LowerOptions,
    /// How many of the inputs, from the first on, have a gradient.
    differentiable: usize,
    /// Error allowed in values and gradients, relative to the largest magnitude.
    tolerance: f64,
}

fn rng(name: &str) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(
        name.bytes().fold(7, |h: u64, b| h.wrapping_mul(131).wrapping_add(u64::from(b))),
    )
}

/// Uniform in +-scale around offset, exact in single precision.
fn random(r: &mut ChaCha8Rng, s: Shape, scale: f64, offset: f64) -> Host {
    Host::new(s, |_| f64::from(((r.random::<f64>() * 2.0 - 1.0) * scale + offset) as f32))
}

/// Runs the case on the device: the output and the gradient of every input for the cotangent `dy`.
fn run(case: &Case, dy: &Host) -> (Vec<f64>, Vec<Vec<f64>>) {
    let mut layout = StateLayout::default();
    let mut tape = Tape::new();
    let mut state = |tape: &mut Tape, name: &str, s: Shape| {
        let view = StateView { buffer: layout.add(name, 4 * s.len() as u64), offset: 0 };
        tape.state(name, s, view)
    };
    let numbered = case.inputs.iter().enumerate();
    let inputs: Vec<Value> =
        numbered.clone().map(|(i, h)| state(&mut tape, &format!("input {i}"), h.s)).collect();
    let grads: Vec<Value> = numbered
        .take(case.differentiable)
        .map(|(i, h)| state(&mut tape, &format!("gradient {i}"), h.s))
        .collect();
    let upstream = state(&mut tape, "dy", dy.s);
    let out = (case.record)(&mut tape, &inputs);
    assert_eq!(tape.shape(out), dy.s, "{}: output shape", case.name);
    tape.keep(out);
    let wrt: Vec<_> = inputs.iter().copied().zip(grads.iter().copied()).collect();
    tape.backward(&[Seed::Upstream(out, upstream)], &wrt);
    let planned = plan_with(case.name, &tape, &layout, case.options).expect("plans");

    let loaded = planned.load(&super::device()).expect("loads");
    for (&v, h) in inputs.iter().zip(&case.inputs).chain([(&upstream, dy)]) {
        loaded.write(v, &h.single()).expect("writes");
    }
    loaded.executable().run().unwrap_or_else(|e| panic!("{}: {e}", case.name));
    let read = |v: Value| -> Vec<f64> { loaded.read(v).expect("reads").into_iter().map(f64::from).collect() };
    (read(out), grads.iter().map(|&g| read(g)).collect())
}

fn check(case: &Case) {
    let mut r = rng(case.name);
    let expected = (case.host)(&case.inputs);
    let dy = random(&mut r, expected.s, 1.0, 0.0);
    let (y, grads) = run(case, &dy);

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
fn padding() {
    for (name, s, p, up) in [
        ("pad 3 of 37x29", Shape::new(1, 1, 37, 29, 3), 3, 1),
        ("pad 1 of 5x4, four channels, two directions", Shape::new(2, 2, 5, 4, 8), 1, 1),
        ("up-sample, pad 1", Shape::new(1, 2, 7, 5, 4), 1, 2),
        ("up-sample, pad 2 of 2x3", Shape::new(1, 1, 2, 3, 5), 2, 2),
        ("pad as wide as an image allows", Shape::new(1, 1, 4, 3, 1), 2, 1),
    ] {
        let x = random(&mut rng(name), s, 1.0, 0.0);
        check(&case(name, vec![x], move |t, v| t.pad(v[0], p, up), move |x| pad(&x[0], p, up)));
    }
}

#[test]
fn convolutions() {
    // name, input, CO, K, stride, bias, activation
    let cases = [
        ("conv 7x7, 3 to 8", Shape::new(1, 1, 37, 29, 3), 8, 7, 1, false, Activation::None),
        ("conv 3x3 stride 2, odd sides", Shape::new(2, 1, 19, 15, 8), 12, 3, 2, false, Activation::None),
        ("conv 4x4 stride 2, bias, leaky", Shape::new(2, 2, 9, 12, 4), 8, 4, 2, true, Activation::LeakyRelu),
        ("conv 4x4, 5 to 7 channels", Shape::new(1, 3, 8, 6, 5), 7, 4, 1, true, Activation::None),
        ("conv 1x1, relu", Shape::new(2, 1, 9, 7, 16), 16, 1, 1, true, Activation::Relu),
        ("conv 5x5 stride 3", Shape::new(1, 1, 13, 11, 4), 4, 5, 3, false, Activation::None),
        ("conv to one channel, tanh", Shape::new(1, 2, 6, 6, 8), 1, 4, 1, false, Activation::Tanh),
        ("conv kernel as large as the map", Shape::new(2, 1, 4, 4, 8), 4, 4, 1, false, Activation::None),
        ("conv more channels than a tile", Shape::new(1, 1, 7, 6, 68), 72, 3, 1, true, Activation::None),
    ];
    for variant in [ConvVariant::Direct, ConvVariant::ImplicitGemm] {
        for (name, s, co, k, stride, bias, a) in cases {
            let mut r = rng(name);
            let fan = (k * k * s.c) as f64;
            let mut inputs = vec![
                random(&mut r, s, 1.0, 0.0),
                random(&mut r, Shape::new(s.d, k, k, s.c, co), 1.7 / fan.sqrt(), 0.0),
            ];
            if bias {
                inputs.push(random(&mut r, Shape::row(s.d, co), 1.0, 0.0));
            }
            let mut c = case(
                name,
                inputs,
                move |t, v| t.conv("y", v[0], v[1], v.get(2).copied(), None, stride, a),
                move |x| conv(&x[0], &x[1], x.get(2), stride, a),
            );
            c.options.conv = variant;
            check(&c);
        }
    }
}

#[test]
fn normalisation() {
    // name, shape, offset, spread, activation, residual, images share gamma and beta
    let shapes = [
        ("37x29", Shape::new(1, 1, 37, 29, 3), 0.0, 1.0, Activation::Relu, false),
        ("two directions, odd channels", Shape::new(2, 2, 7, 9, 5), 0.0, 1.0, Activation::None, true),
        ("four channels at a time", Shape::new(2, 3, 8, 5, 12), 1.0, 2.0, Activation::Relu, false),
        ("two pixels", Shape::new(1, 3, 1, 2, 3), 0.0, 1.0, Activation::None, false),
        ("mean 50, variance 1e-3", Shape::new(1, 1, 16, 16, 8), 50.0, 0.0548, Activation::None, false),
        ("many channels", Shape::new(1, 2, 6, 6, 70), 0.0, 1.0, Activation::Relu, true),
    ];
    for (what, s, offset, spread, a, with_residual) in shapes {
        for kind in ["instance", "adalin", "iln"] {
            let name: &'static str = format!("{kind} norm, {what}").leak();
            let mut r = rng(name);
            let mut inputs = vec![random(&mut r, s, spread, offset)];
            let affine = kind != "instance";
            if affine {
                let rows = if kind == "adalin" { s.n } else { 1 };
                let row = Shape::new(s.d, rows, 1, 1, s.c);
                inputs.push(random(&mut r, Shape::row(s.d, s.c), 0.5, 0.5));
                inputs.push(random(&mut r, row, 1.0, 0.0));
                inputs.push(random(&mut r, row, 1.0, 0.0));
            }
            if with_residual {
                inputs.push(random(&mut r, s, 1.0, 0.0));
            }
            let mut c = case(
                name,
                inputs,
                move |t, v| {
                    let rows = affine.then(|| Affine { rho: v[1], gamma: v[2], beta: v[3] });
                    t.norm("y", v[0], rows, a, with_residual.then(|| v[v.len() - 1]))
                },
                move |x| {
                    let rows = affine.then(|| [&x[1], &x[2], &x[3]]);
                    norm(&x[0], rows, a, with_residual.then(|| &x[x.len() - 1]))
                },
            );
            // A single-precision mean of 50 is 2e-6 off at best, of a spread of 0.03.
            c.tolerance = if offset > 10.0 { 2e-4 } else { 5e-6 };
            check(&c);
        }
    }
}

#[test]
fn pooling_and_attention() {
    let mean = |x: &Host| {
        let s = Shape { h: 1, w: 1, ..x.s };
        Host::map(s, |d, n, _, _, c| {
            let mut sum = 0.0;
            for h in 0..x.s.h {
                for w in 0..x.s.w {
                    sum += x.at(d, n, h, w, c);
                }
            }
            sum / x.s.pixels() as f64
        })
    };
    let largest = |x: &Host| {
        let s = Shape { h: 1, w: 1, ..x.s };
        Host::map(s, |d, n, _, _, c| {
            let pixels = (0..x.s.h).flat_map(|h| (0..x.s.w).map(move |w| (h, w)));
            pixels.map(|(h, w)| x.at(d, n, h, w, c)).fold(f64::NEG_INFINITY, f64::max)
        })
    };
    for (name, s) in [
        ("average pool of 37x29", Shape::new(2, 2, 37, 29, 3)),
        ("average pool of many channels", Shape::new(1, 1, 3, 5, 300)),
    ] {
        let x = random(&mut rng(name), s, 1.0, 0.0);
        check(&case(name, vec![x], |t, v| t.average_pool("y", v[0]), move |x| mean(&x[0])));
    }
    let name = "logits of average and maximum pool";
    let (s, mut r) = (Shape::new(2, 3, 9, 7, 37), rng("logits"));
    let inputs = vec![
        random(&mut r, s, 1.0, 0.0),
        random(&mut r, Shape::row(2, 37), 1.0, 0.0),
        random(&mut r, Shape::row(2, 37), 1.0, 0.0),
    ];
    check(&case(
        name,
        inputs,
        |t, v| {
            let (gap, gmp) = t.average_and_max_pool(v[0]);
            t.cam_logits(gap, gmp, v[1], v[2], None)
        },
        move |x| {
            let pooled = [mean(&x[0]), largest(&x[0])];
            Host::map(Shape::new(2, 3, 1, 1, 2), |d, n, _, _, k| {
                (0..37).map(|c| pooled[k].at(d, n, 0, 0, c) * x[1 + k].at(d, 0, 0, 0, c)).sum()
            })
        },
    ));
    let (c, mut r) = (21, rng("fold"));
    let inputs = vec![
        random(&mut r, Shape::new(2, 1, 1, 2 * c, c), 1.0, 0.0),
        random(&mut r, Shape::row(2, c), 1.0, 0.0),
        random(&mut r, Shape::row(2, c), 1.0, 0.0),
    ];
    check(&case(
        "both rows folded into the 1x1 weights",
        inputs,
        |t, v| t.cam_fold(v[0], v[1], v[2]),
        move |x| {
            Host::map(Shape::new(2, 1, 1, c, c), |d, _, _, i, o| {
                x[0].at(d, 0, 0, i, o) * x[1].at(d, 0, 0, 0, i)
                    + x[0].at(d, 0, 0, c + i, o) * x[2].at(d, 0, 0, 0, i)
            })
        },
    ));
}

#[test]
fn linear_layers_and_activations() {
    for (name, n, i, o, a) in [
        ("linear 37 to 11", 2, 37, 11, Activation::None),
        ("linear of seven images", 7, 130, 5, Activation::Relu),
        ("linear 1 to 1", 1, 1, 1, Activation::None),
    ] {
        let mut r = rng(name);
        let inputs = vec![
            random(&mut r, Shape::new(2, n, 1, 1, i), 1.0, 0.0),
            random(&mut r, Shape::new(2, 1, 1, o, i), 0.3, 0.0),
        ];
        check(&case(
            name,
            inputs,
            move |t, v| t.linear("y", v[0], v[1], a),
            move |x| linear(&x[0], &x[1], a),
        ));
    }
    for (name, a) in
        [("relu", Activation::Relu), ("leaky relu", Activation::LeakyRelu), ("tanh", Activation::Tanh)]
    {
        let x = random(&mut rng(name), Shape::new(1, 1, 37, 29, 3), 3.0, 0.0);
        check(&case(
            name,
            vec![x],
            move |t, v| t.activation("y", v[0], a),
            move |x| Host { s: x[0].s, x: x[0].x.iter().map(|&v| act(v, a)).collect() },
        ));
    }
}

#[test]
fn gathers() {
    let s = Shape::new(2, 3, 5, 3, 2);
    let mut r = rng("gather");
    let inputs = vec![random(&mut r, s, 1.0, 0.0), random(&mut r, s, 1.0, 0.0)];
    check(&case(
        "batches put together, one of them crosswise",
        inputs,
        // The activations give both inputs a gradient of their own that is written whole.
        |t, v| {
            let (a, b) =
                (t.activation("a", v[0], Activation::Tanh), t.activation("b", v[1], Activation::Tanh));
            t.gather("y", &[(a, 0, 3, true), (b, 0, 3, false)])
        },
        move |x| {
            Host::map(Shape { n: 6, ..s }, |d, n, h, w, c| {
                let (source, d, n) = if n < 3 { (&x[0], 1 - d, n) } else { (&x[1], d, n - 3) };
                source.at(d, n, h, w, c).tanh()
            })
        },
    ));
}

#[test]
fn losses() {
    let s = Shape::new(2, 4, 5, 3, 1);
    let kinds = [("mse", LossKind::Mse), ("bce", LossKind::Bce), ("l1", LossKind::L1)];
    for (name, kind) in kinds {
        let mut r = rng(name);
        let (x, target) = (random(&mut r, s, 3.0, 0.0), random(&mut r, s, 3.0, 0.0));
        let targets = [1.0f32, 0.0];
        let weights = [0.75f32, 2.5];
        let mut layout = StateLayout::default();
        let mut tape = Tape::new();
        let mut add = |tape: &mut Tape, name: &str, s: Shape| {
            let view = StateView { buffer: layout.add(name, 4 * s.len() as u64), offset: 0 };
            tape.state(name, s, view)
        };
        let [v, t, dx] = ["x", "target", "dx"].map(|name| add(&mut tape, name, s));
        let terms = add(&mut tape, "terms", Shape::new(2, 2, 1, 1, 1));
        let against_tensor = kind == LossKind::L1;
        tape.loss(kind, v, against_tensor.then_some(t), &targets, terms);
        tape.backward(&[Seed::Loss(terms, weights)], &[(v, dx)]);
        let planned = plan_with(name, &tape, &layout, LowerOptions::default()).expect("plans");
        let loaded = planned.load(&super::device()).expect("loads");
        loaded.write(v, &x.single()).expect("writes");
        if against_tensor {
            loaded.write(t, &target.single()).expect("writes");
        }
        loaded.executable().run().expect("runs");
        let (got_terms, got_dx) = (loaded.read(terms).expect("reads"), loaded.read(dx).expect("reads"));

        let n = s.len() / 4;
        for g in 0..4 {
            let (t0, weight) = (f64::from(targets[g % 2]), f64::from(weights[g % 2]));
            let (mut sum, mut slopes) = (0.0, Vec::new());
            for i in g * n..(g + 1) * n {
                let (v, t) = (x.x[i], if kind == LossKind::L1 { target.x[i] } else { t0 });
                let value = |v: f64| match kind {
                    LossKind::Mse => (v - t) * (v - t),
                    LossKind::Bce => v.max(0.0) - v * t + (-v.abs()).exp().ln_1p(),
                    LossKind::L1 => (v - t).abs(),
                };
                sum += value(v);
                slopes.push((value(v + 1e-6) - value(v - 1e-6)) / 2e-6 * weight / n as f64);
            }
            let err = (f64::from(got_terms[g]) - sum / n as f64).abs();
            assert!(err <= 1e-5, "{name}: term {g} is {}, float64 says {}", got_terms[g], sum / n as f64);
            for (i, slope) in slopes.iter().enumerate() {
                let err = (f64::from(got_dx[g * n + i]) - slope).abs();
                assert!(err <= 1e-6, "{name}: gradient {i} of group {g} is off by {err}");
            }
        }
    }
}

#[test]
fn spectral_weight_gradient_of_a_shared_batch() {
    // Real and fake images share a batch, each half with the sigma of its own power iteration.
    let (ci, co, k) = (5, 6, 3);
    let s = Shape::new(1, 4, 6, 5, ci);
    let mut r = rng("spectral");
    let rows = k * k * ci;
    let unit = |r: &mut ChaCha8Rng, n: usize| {
        let mut v = random(r, Shape::row(1, n), 1.0, 0.0);
        let norm = v.x.iter().map(|x| x * x).sum::<f64>().sqrt();
        v.x.iter_mut().for_each(|x| *x = f64::from((*x / norm) as f32));
        v
    };
    let x = random(&mut r, s, 1.0, 0.0);
    let w = random(&mut r, Shape::new(1, k, k, ci, co), 0.5, 0.0);
    let bias = random(&mut r, Shape::row(1, co), 0.3, 0.0);
    let (u, v) = (unit(&mut r, co), unit(&mut r, rows));

    // u and v of the two passes, constants to the gradient.
    let multiply = |w: &Host, u: &[f64]| -> Vec<f64> {
        (0..rows).map(|i| (0..co).map(|o| w.x[i * co + o] * u[o]).sum()).collect()
    };
    let transposed = move |w: &Host, v: &[f64]| -> Vec<f64> {
        (0..co).map(|o| (0..rows).map(|i| w.x[i * co + o] * v[i]).sum()).collect()
    };
    let normalised = |v: Vec<f64>| {
        let n = v.iter().map(|x| x * x).sum::<f64>().sqrt();
        v.into_iter().map(|x| x / n).collect::<Vec<_>>()
    };
    let mut passes = Vec::new();
    let mut at = u.x.clone();
    for _ in 0..2 {
        let right = normalised(multiply(&w, &at));
        at = normalised(transposed(&w, &right));
        passes.push((at.clone(), right));
    }
    let host = {
        let passes = passes.clone();
        move |inputs: &[Host]| {
            let plain = conv(&inputs[0], &inputs[1], None, 1, Activation::None);
            let sigma: Vec<f64> = passes
                .iter()
                .map(|(u, v)| transposed(&inputs[1], v).iter().zip(u).map(|(a, b)| a * b).sum())
                .collect();
            Host::map(plain.s, |d, n, h, w, c| {
                let y = plain.at(d, n, h, w, c) / sigma[n / 2] + inputs[2].at(0, 0, 0, 0, c);
                act(y, Activation::LeakyRelu)
            })
        }
    };
    let mut c = case(
        "spectral conv",
        vec![x, w, bias, u, v],
        |t, values| {
            let spectral = t.power_iterations(values[1], values[3], values[4], 2);
            t.conv("y", values[0], values[1], Some(values[2]), Some(spectral), 1, Activation::LeakyRelu)
        },
        host,
    );
    c.differentiable = 3; // u and v are state of the layer
    check(&c);
}

#[test]
fn no_kernel_has_a_stack_frame() {
    let mut seen = 0;
    for kernel in ugatit::kernels::all() {
        for r in kernel.resources {
            let name = kernel.name;
            assert_eq!((r.stack, r.spill_stores, r.spill_loads), (0, 0, 0), "{name} on sm_{}", r.arch);
            seen += 1;
        }
    }
    assert!(seen >= 300, "only {seen} kernels found");
}
