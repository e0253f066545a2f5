use ugatit::tape::{Activation, ConvVariant};
use ugatit::tensor::Shape;

use super::{Host, act, case, check, random, rng};

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
        ("conv more channels than a tile", Shape::new(1, 1, 7, 6, 68), 72, 3, 1, true, Activation::None),
    ];
    for variant in ConvVariant::ALL {
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
