use ugatit::tensor::Shape;

use super::{Host, case, check, random, rng};

fn reflect(i: isize, n: usize) -> usize {
    let n = n as isize;
    let i = i.abs();
    (if i < n { i } else { 2 * n - 2 - i }) as usize
}

/// Reflection padding after up-sampling.
pub(super) fn pad(x: &Host, p: usize, up: usize) -> Host {
    let (h, w) = (x.s.h * up, x.s.w * up);
    let s = Shape { h: h + 2 * p, w: w + 2 * p, ..x.s };
    Host::map(s, |d, n, i, j, c| {
        let (a, b) = (reflect(i as isize - p as isize, h) / up, reflect(j as isize - p as isize, w) / up);
        x.at(d, n, a, b, c)
    })
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
