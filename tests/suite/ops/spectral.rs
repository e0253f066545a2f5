use rand_chacha::ChaCha8Rng;
use ugatit::tape::Activation;
use ugatit::tensor::Shape;

use super::conv::conv;
use super::{Host, act, case, check, random, rng};

#[test]
fn spectral_weight_gradient_of_a_shared_batch() {
    // Real and fake images share a batch, each half with the sigma of its own power iteration.
    let (ci, co, k) = (5, 6, 3);
    let s = Shape::new(1, 4, 6, 5, ci);
    let mut r = rng("spectral");
    let rows = k * k * ci;
    let unit = |r: &mut ChaCha8Rng, n: usize| {
        let mut v = random(r, Shape::row(1, n), 1.0, 0.0);
        let norm = v.x.iter().map(|x| x * x).sum::<f64>().sqrt();
        v.x.iter_mut().for_each(|x| *x = f64::from((*x / norm) as f32));
        v
    };
    let x = random(&mut r, s, 1.0, 0.0);
    let w = random(&mut r, Shape::new(1, k, k, ci, co), 0.5, 0.0);
    let bias = random(&mut r, Shape::row(1, co), 0.3, 0.0);
    let (u, v) = (unit(&mut r, co), unit(&mut r, rows));

    // u and v of the two passes, constants to the gradient.
    let multiply = |w: &Host, u: &[f64]| -> Vec<f64> {
        (0..rows).map(|i| (0..co).map(|o| w.x[i * co + o] * u[o]).sum()).collect()
    };
    let transposed = move |w: &Host, v: &[f64]| -> Vec<f64> {
        (0..co).map(|o| (0..rows).map(|i| w.x[i * co + o] * v[i]).sum()).collect()
    };
    let normalised = |v: Vec<f64>| {
        let n = v.iter().map(|x| x * x).sum::<f64>().sqrt();
        v.into_iter().map(|x| x / n).collect::<Vec<_>>()
    };
    let mut passes = Vec::new();
    let mut at = u.x.clone();
    for _ in 0..2 {
        let right = normalised(multiply(&w, &at));
        at = normalised(transposed(&w, &right));
        passes.push((at.clone(), right));
    }
    let host = {
        let passes = passes.clone();
        move |inputs: &[Host]| {
            let plain = conv(&inputs[0], &inputs[1], None, 1, Activation::None);
            let sigma: Vec<f64> = passes
                .iter()
                .map(|(u, v)| transposed(&inputs[1], v).iter().zip(u).map(|(a, b)| a * b).sum())
                .collect();
            Host::map(plain.s, |d, n, h, w, c| {
                let y = plain.at(d, n, h, w, c) / sigma[n / 2] + inputs[2].at(0, 0, 0, 0, c);
                act(y, Activation::LeakyRelu)
            })
        }
    };
    let mut c = case(
        "spectral conv",
        vec![x, w, bias, u, v],
        |t, values| {
            let spectral = t.power_iterations(values[1], values[3], values[4], 2);
            t.conv("y", values[0], values[1], Some(values[2]), Some(spectral), 1, Activation::LeakyRelu)
        },
        host,
    );
    c.differentiable = 3; // u and v are state of the layer
    check(&c);
}
