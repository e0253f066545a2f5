use ugatit::tape::{Activation, Affine};
use ugatit::tensor::Shape;

use super::{Host, act, case, check, random, rng};

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
