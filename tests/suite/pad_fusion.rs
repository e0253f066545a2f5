//! `src/tape/rewrite/pad_fusion.rs`: the same numbers with it and without.

use ugatit::tape::{Activation, Affine, NormVariant, Seed, Value, plan_with};
use ugatit::tensor::Shape;

use crate::ops::{Host, Recording, random, rng};

/// Three norms with their paddings: the first is read by its padding alone, the second has two paddings and other
/// readers, the third is kept. Launches, and everything that the host may read, with the norms of a variant.
fn run(norm: NormVariant) -> (usize, Vec<Vec<f64>>) {
    let mut r = Recording::default();
    let mut inputs: Vec<(Value, Host)> = Vec::new();
    let mut draw = rng("paddings");
    let mut state = |r: &mut Recording, name: &str, s: Shape| {
        let v = r.state(name, s);
        inputs.push((v, random(&mut draw, s, 1.0, 0.3)));
        v
    };
    let row = Shape::row(2, 5);
    let x = state(&mut r, "x", Shape::new(2, 3, 6, 7, 5));
    let affine = ["rho", "gamma", "beta"].map(|name| state(&mut r, name, row));
    let [rho, gamma, beta] = affine;
    let first = r.tape.norm("first", x, Some(Affine { rho, gamma, beta }), Activation::Relu, None);
    let wide = r.tape.pad(first, 1, 1);
    let second = r.tape.norm("second", wide, None, Activation::None, None);
    let enlarged = r.tape.pad(second, 1, 2);
    let wider = r.tape.pad(second, 2, 1);
    let third = r.tape.norm("third", second, None, Activation::LeakyRelu, Some(second));
    let last = r.tape.pad(third, 3, 1);
    let read = [enlarged, wider, third, last];
    read.into_iter().for_each(|v| r.tape.keep(v));
    let seeds = read.map(|v| {
        let s = r.tape.shape(v);
        Seed::Upstream(v, state(&mut r, "upstream", s))
    });
    let wrt = [x, rho, gamma, beta].map(|v| {
        let s = r.tape.shape(v);
        (v, r.state("gradient", s))
    });
    r.tape.backward(&seeds, &wrt);

    let planned = plan_with("paddings", &r.tape, &r.layout, norm.into()).expect("plans");
    let inputs: Vec<(Value, &Host)> = inputs.iter().map(|(v, h)| (*v, h)).collect();
    let read: Vec<Value> = read.into_iter().chain(wrt.map(|(_, gradient)| gradient)).collect();
    (planned.program.launches.len(), r.run("paddings", norm.into(), &inputs, &read))
}

#[test]
fn fusing_a_padding_changes_no_bit() {
    let (launches, apart) = run(NormVariant::Vectorised);
    let (fewer, fused) = run(NormVariant::PadFused);
    assert_eq!(launches - fewer, 3, "each norm makes one padding");
    assert!(apart.iter().flatten().any(|v| *v != 0.0));
    assert_eq!(fused, apart);
}
