use ugatit::tape::Activation;
use ugatit::tensor::Shape;

use super::conv::conv;
use super::{case, check, random, rng};

#[test]
fn bias_gradients() {
    for (name, s, co) in [
        ("bias of 899 pixels, in one chunk", Shape::new(2, 1, 31, 29, 2), 3),
        ("bias of 2,300 pixels, in chunks", Shape::new(1, 2, 46, 25, 2), 19),
        ("bias of more channels than a block has", Shape::new(2, 2, 5, 3, 3), 37),
    ] {
        let mut r = rng(name);
        let inputs = vec![
            random(&mut r, s, 1.0, 0.0),
            random(&mut r, Shape::new(s.d, 1, 1, s.c, co), 1.0, 0.0),
            random(&mut r, Shape::row(s.d, co), 1.0, 0.0),
        ];
        check(&case(
            name,
            inputs,
            |t, v| t.conv("y", v[0], v[1], Some(v[2]), None, 1, Activation::None),
            |x| conv(&x[0], &x[1], Some(&x[2]), 1, Activation::None),
        ));
    }
}
