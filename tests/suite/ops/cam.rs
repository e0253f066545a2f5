use ugatit::tensor::Shape;

use super::pool::{largest, mean};
use super::{Host, case, check, random, rng};

#[test]
fn logits_of_both_poolings() {
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
}

#[test]
fn folded_weights() {
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
