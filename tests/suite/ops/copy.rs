use ugatit::tape::Activation;
use ugatit::tensor::Shape;

use super::{Host, case, check, random, rng};

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
