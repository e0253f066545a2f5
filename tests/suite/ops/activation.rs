use ugatit::tape::Activation;
use ugatit::tensor::Shape;

use super::{Host, act, case, check, random, rng};

#[test]
fn activations() {
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
