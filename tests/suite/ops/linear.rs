use ugatit::tape::Activation;
use ugatit::tensor::Shape;

use super::{Host, act, case, check, random, rng};

fn linear(x: &Host, w: &Host, a: Activation) -> Host {
    let s = Shape { h: 1, w: 1, c: w.s.w, ..x.s };
    Host::map(s, |d, n, _, _, o| {
        let row = &x.x[(d * x.s.n + n) * x.s.image_len()..][..x.s.image_len()];
        act(row.iter().enumerate().map(|(i, v)| v * w.at(d, 0, 0, o, i)).sum(), a)
    })
}

#[test]
fn linear_layers() {
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
}
