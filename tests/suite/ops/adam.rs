use ugatit::tape::{AdamHyper, LowerOptions};
use ugatit::tensor::Shape;

use super::{Host, Recording, random, rng};

#[test]
fn one_step_and_the_clip() {
    let (n, mut r) = (301, rng("adam"));
    let s = Shape::row(1, n);
    let [p, m, v, g] =
        [(1.0, 0.0), (0.1, 0.0), (0.05, 0.06), (1.0, 0.0)].map(|(a, b)| random(&mut r, s, a, b));
    let hyper = AdamHyper { beta1: 0.5, beta2: 0.999, eps: 1e-8, weight_decay: 1e-2 };
    let step = 7;
    let (rate, correction) = (1e-3 / (1.0 - 0.5f64.powi(step)), 1.0 / (1.0 - 0.999f64.powi(step)).sqrt());
    let schedule = Host::new(Shape::row(1, 2), |i| [rate, correction][i]);

    let mut recording = Recording::default();
    let [vp, vm, vv, vg, rho] = ["p", "m", "v", "g", "rho"].map(|name| recording.state(name, s));
    let vs = recording.state("schedule", schedule.s);
    recording.tape.adam(vp, vm, vv, vg, vs, hyper);
    recording.tape.clip_rho(rho, 0.9);
    let inputs = [(vp, &p), (vm, &m), (vv, &v), (vg, &g), (rho, &p), (vs, &schedule)];
    let results = recording.run("adam", LowerOptions::default(), &inputs, &[vp, vm, vv, rho]);
    assert_eq!(results[3].len(), n);

    for (i, &rho) in results[3].iter().enumerate() {
        let grad = g.x[i] + hyper.weight_decay * p.x[i];
        let m = 0.5 * m.x[i] + 0.5 * grad;
        let v = 0.999 * v.x[i] + 0.001 * grad * grad;
        let moved = p.x[i] - rate * m / (v.sqrt() * correction + hyper.eps);
        for (what, got, want) in
            [("p", results[0][i], moved), ("m", results[1][i], m), ("v", results[2][i], v)]
        {
            assert!((got - want).abs() <= 3e-7, "{what} {i} is {got}, float64 says {want}");
        }
        let clipped = p.x[i].clamp(0.0, f64::from(0.9f32));
        assert_eq!(rho, clipped, "rho {i} of {}", p.x[i]);
    }
}
