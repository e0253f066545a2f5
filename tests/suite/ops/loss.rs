use ugatit::tape::{LossKind, LowerOptions, Seed};
use ugatit::tensor::Shape;

use super::{Recording, random, rng};

#[test]
fn losses() {
    let s = Shape::new(2, 4, 5, 3, 1);
    let kinds = [("mse", LossKind::Mse), ("bce", LossKind::Bce), ("l1", LossKind::L1)];
    for (name, kind) in kinds {
        let mut r = rng(name);
        let (x, target) = (random(&mut r, s, 3.0, 0.0), random(&mut r, s, 3.0, 0.0));
        let targets = [1.0f32, 0.0];
        let weights = [0.75f32, 2.5];
        let mut recording = Recording::default();
        let [v, t, dx] = ["x", "target", "dx"].map(|name| recording.state(name, s));
        let terms = recording.state("terms", Shape::new(2, 2, 1, 1, 1));
        let against_tensor = kind == LossKind::L1;
        recording.tape.loss(kind, v, against_tensor.then_some(t), &targets, terms);
        recording.tape.backward(&[Seed::Loss(terms, weights)], &[(v, dx)]);
        let inputs = [(v, &x), (t, &target)];
        let inputs = &inputs[..if against_tensor { 2 } else { 1 }];
        let results = recording.run(name, LowerOptions::default(), inputs, &[terms, dx]);
        let [got_terms, got_dx] = &results[..] else { unreachable!("two were read") };

        let n = s.len() / 4;
        for g in 0..4 {
            let (t0, weight) = (f64::from(targets[g % 2]), f64::from(weights[g % 2]));
            let (mut sum, mut slopes) = (0.0, Vec::new());
            for i in g * n..(g + 1) * n {
                let (v, t) = (x.x[i], if kind == LossKind::L1 { target.x[i] } else { t0 });
                let value = |v: f64| match kind {
                    LossKind::Mse => (v - t) * (v - t),
                    LossKind::Bce => v.max(0.0) - v * t + (-v.abs()).exp().ln_1p(),
                    LossKind::L1 => (v - t).abs(),
                };
                sum += value(v);
                slopes.push((value(v + 1e-6) - value(v - 1e-6)) / 2e-6 * weight / n as f64);
            }
            let err = (got_terms[g] - sum / n as f64).abs();
            assert!(err <= 1e-5, "{name}: term {g} is {}, float64 says {}", got_terms[g], sum / n as f64);
            for (i, slope) in slopes.iter().enumerate() {
                let err = (got_dx[g * n + i] - slope).abs();
                assert!(err <= 1e-6, "{name}: gradient {i} of group {g} is off by {err}");
            }
        }
    }
}
