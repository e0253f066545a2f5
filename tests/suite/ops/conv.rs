use ugatit::device::emulator::{Emulator, Options};
use ugatit::device::executable::DeviceHandle;
use ugatit::tape::{Activation, ConvVariant, LowerOptions, Precision, Seed, Spectral, plan_with};
use ugatit::tensor::Shape;

use super::pad::pad;
use super::{Host, Recording, act, case, check, random, rng};

/// The convolution itself, through an activation.
pub fn conv(x: &Host, w: &Host, bias: Option<&Host>, stride: usize, a: Activation) -> Host {
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
        (
            "conv to one channel, bias, block a result",
            Shape::new(2, 2, 6, 7, 300),
            1,
            4,
            1,
            true,
            Activation::LeakyRelu,
        ),
        ("conv kernel as large as the map", Shape::new(2, 1, 4, 4, 8), 4, 4, 1, false, Activation::None),
        ("conv long sum, few tiles", Shape::new(2, 1, 9, 7, 132), 52, 3, 2, true, Activation::None),
        ("conv 7x7 to 3 channels, bias, tanh", Shape::new(2, 2, 13, 17, 16), 3, 7, 1, true, Activation::Tanh),
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
            c.options.conv = Some(variant);
            check(&c);
        }
    }
}

#[test]
fn convolutions_of_padded_maps() {
    // Input, CO, K, stride, padding. The gradient of the padding's images has launches of its own where there are enough
    // of them; in the last three the images of two sides meet, or are all there is.
    let cases = [
        ("padded 3x3, 37x29", Shape::new(1, 3, 37, 29, 4), 8, 3, 1, 1),
        ("padded 7x7", Shape::new(1, 1, 37, 29, 8), 4, 7, 1, 3),
        ("padded 3x3 stride 2", Shape::new(2, 2, 37, 30, 4), 4, 3, 2, 1),
        ("padded 4x4 stride 2", Shape::new(1, 2, 28, 35, 4), 12, 4, 2, 1),
        ("padded 7x7, 3 channels", Shape::new(1, 2, 21, 37, 3), 5, 7, 1, 3),
        ("padded 4x4, 72 channels", Shape::new(1, 5, 12, 11, 72), 20, 4, 1, 1),
        ("padded 5x5 of 5x9", Shape::new(1, 16, 5, 9, 4), 4, 5, 1, 3),
        ("padding as wide as the map allows", Shape::new(1, 9, 3, 4, 4), 4, 3, 1, 2),
        ("padded 7x7, to 3 channels", Shape::new(2, 1, 37, 29, 16), 3, 7, 1, 3),
        ("padded 3x3, to 2 channels, small", Shape::new(1, 2, 5, 4, 20), 2, 3, 1, 1),
        ("padded 2x2 of 2x2", Shape::new(2, 30, 2, 2, 8), 4, 2, 1, 1),
    ];
    let mut rings = 0;
    for variant in ConvVariant::ALL {
        for (name, s, co, k, stride, p) in cases {
            let mut r = rng(name);
            let fan = (k * k * s.c) as f64;
            let inputs = vec![
                random(&mut r, s, 1.0, 0.0),
                random(&mut r, Shape::new(s.d, k, k, s.c, co), 1.7 / fan.sqrt(), 0.0),
            ];
            let mut c = case(
                name,
                inputs,
                move |t, v| {
                    let padded = t.pad(v[0], p, 1);
                    t.conv("y", padded, v[1], None, None, stride, Activation::None)
                },
                move |x| conv(&pad(&x[0], p, 1), &x[1], None, stride, Activation::None),
            );
            c.options.conv = Some(variant);
            if variant == ConvVariant::TensorCore {
                c.tolerance = 3.0 * Precision::Tf32.rounding();
            }
            rings += check(&c).iter().filter(|kernel| kernel.contains("ring")).count();
        }
    }
    assert!(rings >= 10, "only {rings} launches for images");
}

/// A convolution's three results, each with the sum of the magnitudes of the products that it is the sum of.
struct Products {
    y: [Host; 2],
    dx: [Host; 2],
    dw: [Host; 2],
}

impl Products {
    /// Of a convolution whose weight is scaled image by image.
    fn of(x: &Host, w: &Host, dy: &Host, stride: usize, scale: impl Fn(usize, usize) -> f64) -> Self {
        let zero = |s| Host::new(s, |_| 0.0);
        let mut p =
            Self { y: [zero(dy.s), zero(dy.s)], dx: [zero(x.s), zero(x.s)], dw: [zero(w.s), zero(w.s)] };
        let mut add = |to: fn(&mut Self) -> &mut [Host; 2], at: usize, product: f64| {
            to(&mut p)[0].x[at] += product;
            to(&mut p)[1].x[at] += product.abs();
        };
        let k = w.s.n;
        for (d, n) in (0..dy.s.d).flat_map(|d| (0..dy.s.n).map(move |n| (d, n))) {
            let factor = scale(d, n);
            for (i, j) in (0..dy.s.h).flat_map(|i| (0..dy.s.w).map(move |j| (i, j))) {
                for (kh, kw) in (0..k).flat_map(|kh| (0..k).map(move |kw| (kh, kw))) {
                    for (ci, co) in (0..x.s.c).flat_map(|ci| (0..w.s.c).map(move |co| (ci, co))) {
                        let at_x = x.index(d, n, i * stride + kh, j * stride + kw, ci);
                        let (at_w, at_y) = (w.index(d, kh, kw, ci, co), dy.index(d, n, i, j, co));
                        add(|p| &mut p.y, at_y, x.x[at_x] * w.x[at_w] * factor);
                        add(|p| &mut p.dx, at_x, dy.x[at_y] * w.x[at_w] * factor);
                        add(|p| &mut p.dw, at_w, x.x[at_x] * dy.x[at_y] * factor);
                    }
                }
            }
        }
        p
    }
}

/// What the tensor cores see of an operand.
fn as_tf32(h: &Host) -> Host {
    let cut = |v: f64| f32::from_bits((v as f32 * (1.0 + 0.375 / 1024.0)).to_bits() & 0xffff_e000);
    Host { s: h.s, x: h.x.iter().map(|&v| f64::from(cut(v))).collect() }
}

#[test]
fn tensor_cores_err_by_no_more_than_their_operands_are_rounded() {
    // Input, CO, K, stride, passes of spectral normalisation that share the batch. Tiles of 128 and 64 columns, of 64
    // rows, and channels that do not come in fours; each pass of each with and without a split sum.
    let cases = [
        (Shape::new(1, 3, 37, 29, 3), 8, 7, 1, 0),
        (Shape::new(2, 1, 19, 15, 8), 12, 3, 2, 0),
        (Shape::new(2, 2, 9, 12, 4), 8, 4, 2, 2),
        (Shape::new(1, 3, 8, 6, 5), 7, 4, 1, 3),
        (Shape::new(2, 1, 9, 7, 16), 16, 1, 1, 0),
        (Shape::new(1, 1, 13, 11, 4), 4, 5, 3, 1),
        (Shape::new(1, 2, 6, 6, 8), 1, 4, 1, 0),
        (Shape::new(2, 1, 4, 4, 8), 4, 4, 1, 0),
        (Shape::new(2, 1, 9, 7, 132), 52, 3, 2, 0),
        (Shape::new(1, 1, 7, 6, 68), 72, 3, 1, 0),
        (Shape::new(1, 1, 23, 17, 132), 140, 3, 1, 0),
        (Shape::new(2, 4, 11, 9, 72), 76, 4, 2, 2),
        (Shape::new(1, 2, 5, 1, 4), 68, 1, 3, 2),
        (Shape::new(2, 2, 13, 17, 16), 3, 7, 1, 0),
        (Shape::new(1, 1, 9, 8, 3), 8, 4, 2, 0),
    ];
    for sms in [1, 132] {
        for (s, co, k, stride, passes) in cases {
            let name = format!("{s} to {co}, {k}x{k} stride {stride}, {sms} multiprocessors");
            let mut r = rng(&name);
            let out = Shape { h: (s.h - k) / stride + 1, w: (s.w - k) / stride + 1, c: co, ..s };
            let weight = Shape::new(s.d, k, k, s.c, co);
            let (x, w, dy) = (
                random(&mut r, s, 1.0, 0.1),
                random(&mut r, weight, 1.0, 0.0),
                random(&mut r, out, 1.0, 0.0),
            );
            let inv_sigma = random(&mut r, Shape::new(s.d, passes.max(1), 1, 1, 1), 0.4, 1.0);
            let zeros = |c| Host::new(Shape::new(s.d, passes.max(1), 1, 1, c), |_| 0.0);
            let (pass_u, pass_v) = (zeros(co), zeros(k * k * s.c));

            let mut t = Recording::default();
            let mut inputs = [("x", &x), ("w", &w), ("dy", &dy)].map(|(n, h)| (t.state(n, h.s), h)).to_vec();
            let (x_, w_, dy_) = (inputs[0].0, inputs[1].0, inputs[2].0);
            let spectral = (passes > 0).then(|| {
                let of = [("1/sigma", &inv_sigma), ("u", &pass_u), ("v", &pass_v)];
                inputs.extend(of.map(|(n, h)| (t.state(n, h.s), h)));
                let [inv_sigma, pass_u, pass_v] = [3, 4, 5].map(|i: usize| inputs[i].0);
                Spectral { inv_sigma, pass_u, pass_v }
            });
            let (dx, dw) = (t.state("dx", s), t.state("dw", weight));
            let y = t.tape.conv("y", x_, w_, None, spectral, stride, Activation::None);
            t.tape.keep(y);
            t.tape.backward(&[Seed::Upstream(y, dy_)], &[(x_, dx), (w_, dw)]);
            let mut options = LowerOptions { conv: Some(ConvVariant::TensorCore), ..LowerOptions::default() };
            options.target.sms = sms;
            let found = t.run(&name, options, &inputs, &[y, dx, dw]);

            let scale = |d, n| {
                if passes == 0 { 1.0 } else { inv_sigma.x[d * passes + n / (s.n / passes)] }
            };
            let exact = Products::of(&x, &w, &dy, stride, scale);
            let rounded = Products::of(&as_tf32(&x), &as_tf32(&w), &as_tf32(&dy), stride, scale);
            let results =
                [("y", exact.y, rounded.y), ("dx", exact.dx, rounded.dx), ("dw", exact.dw, rounded.dw)];
            for (found, (what, exact, rounded)) in found.iter().zip(results) {
                assert_eq!(found.len(), exact[0].x.len());
                for (i, &v) in found.iter().enumerate() {
                    let (err, magnitude) = ((v - exact[0].x[i]).abs(), exact[1].x[i]);
                    // Both operands of each product, and fp32 sums.
                    let bound = magnitude * (2.001 * Precision::Tf32.rounding() + 1e-5);
                    assert!(err <= bound, "{name}: {what} {i} is {v}, float64 says {}", exact[0].x[i]);
                    let err = (v - rounded[0].x[i]).abs();
                    assert!(err <= 1e-5 * magnitude, "{name}: {what} {i} is {v}, not {}", rounded[0].x[i]);
                }
            }
        }
    }
}

#[test]
fn tensor_cores_move_and_do_what_their_tiles_say() {
    if crate::device().lock().kind() != ugatit::device::DeviceKind::Emulator {
        return; // nothing else counts
    }
    // Input, CO, K, stride, padding; rows and columns of the tiles of forward pass, dgrad and wgrad. All tiles are full.
    let cases = [
        (Shape::new(1, 2, 16, 16, 128), 128, 3, 1, 1, [[128, 128]; 3]),
        (Shape::new(2, 2, 32, 32, 128), 64, 3, 1, 1, [[128, 64], [128, 128], [128, 64]]),
        (Shape::new(1, 1, 8, 8, 128), 128, 1, 1, 0, [[64, 128], [64, 128], [128, 128]]),
        (Shape::new(1, 2, 32, 32, 64), 128, 4, 2, 1, [[128, 128], [128, 64], [128, 128]]),
    ];
    for (s, co, k, stride, p, tiles) in cases {
        let out = Shape { h: s.h / stride, w: s.w / stride, c: co, ..s };
        let weight = Shape::new(s.d, k, k, s.c, co);
        let mut t = Recording::default();
        let [x, w, dy, dx, dw] =
            [("x", s), ("w", weight), ("dy", out), ("dx", s), ("dw", weight)].map(|(n, s)| t.state(n, s));
        let padded = if p > 0 { t.tape.pad(x, p, 1) } else { x };
        let y = t.tape.conv("y", padded, w, None, None, stride, Activation::None);
        assert_eq!(t.tape.shape(y), out);
        t.tape.keep(y);
        t.tape.backward(&[Seed::Upstream(y, dy)], &[(x, dx), (w, dw)]);
        // One multiprocessor: no sum is split.
        let mut options = LowerOptions { precision: Precision::Tf32, ..LowerOptions::default() };
        options.target.sms = 1;
        let planned = plan_with("conv", &t.tape, &t.layout, options).expect("plans");
        let device = DeviceHandle::new(Emulator::new(Options { count: true, ..Options::default() }));
        let loaded = planned.load(&device).expect("loads");
        let mut r = rng("counts");
        for (v, s) in [(x, s), (w, weight), (dy, out)] {
            let values: Vec<f32> = random(&mut r, s, 1.0, 0.0).x.iter().map(|&v| v as f32).collect();
            loaded.write(v, &values).expect("writes");
        }
        loaded.executable().run().expect("runs");
        let counted = loaded.executable().counters().expect("it counts");

        let pixels = out.n * out.pixels();
        let matrices = [
            // Rows, columns, sum and number of the matrices.
            ("forward", pixels, co, k * k * s.c, s.d),
            (
                "dgrad",
                s.n * s.pixels() / (stride * stride),
                s.c,
                k.div_ceil(stride).pow(2) * co,
                s.d * stride * stride,
            ),
            ("wgrad", k * k * s.c, co, pixels, s.d),
        ];
        for ((pass, rows, columns, summed, matrices), [bm, bn]) in matrices.into_iter().zip(tiles) {
            let kernel = format!("conv_{pass}_mma_");
            let of: Vec<_> = counted.iter().filter(|l| l.kernel.starts_with(&kernel)).collect();
            let [launch] = of[..] else { panic!("{} launches of {kernel}", of.len()) };
            let all = launch.total();
            let name = format!("{s} to {co}, {k}x{k} stride {stride}: {}", launch.kernel);
            let flops = 2 * matrices * rows * columns * summed;
            // m16n8k8: 2048 operations an instruction.
            assert_eq!(all.matrix_instructions as usize, flops / 2048, "{name}");
            assert_eq!(all.bank_conflicts, 0, "{name}");
            // A copy reads nothing where padding or another phase's taps are; so dgrad may read less.
            let operands = 4 * matrices * rows * columns * summed * (bm + bn) / (bm * bn);
            let read = all.global_read_bytes as f64 / operands as f64;
            let least = if pass == "dgrad" { 0.5 } else { 0.999 };
            assert!((least..=1.05).contains(&read), "{name}: reads {read:.3} of what its tiles say");
            assert_eq!(all.global_written_bytes as usize, 4 * matrices * rows * columns, "{name}");
        }
        let ring =
            counted.iter().find(|l| l.kernel.starts_with("conv_ring")).map(|l| l.total().bank_conflicts);
        assert!(ring.is_none_or(|conflicts| conflicts == 0), "{s}: bank conflicts at the border");
    }
}
