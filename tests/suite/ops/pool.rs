use ugatit::tensor::Shape;

use super::{Host, case, check, random, rng};

/// Of the pixels of each channel.
pub fn mean(x: &Host) -> Host {
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
}

/// Of the pixels of each channel.
pub fn largest(x: &Host) -> Host {
    let s = Shape { h: 1, w: 1, ..x.s };
    Host::map(s, |d, n, _, _, c| {
        let pixels = (0..x.s.h).flat_map(|h| (0..x.s.w).map(move |w| (h, w)));
        pixels.map(|(h, w)| x.at(d, n, h, w, c)).fold(f64::NEG_INFINITY, f64::max)
    })
}

#[test]
fn average_pooling() {
    for (name, s) in [
        ("average pool of 37x29", Shape::new(2, 2, 37, 29, 3)),
        ("average pool of many channels", Shape::new(1, 1, 3, 5, 300)),
    ] {
        let x = random(&mut rng(name), s, 1.0, 0.0);
        check(&case(name, vec![x], |t, v| t.average_pool("y", v[0]), move |x| mean(&x[0])));
    }
}
