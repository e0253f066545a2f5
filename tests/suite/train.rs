//! Training with each choice of norms and precision.

use ugatit::nn::Config;
use ugatit::tape::{LowerOptions, NormVariant, Precision};
use ugatit::train::{LOSS_NAMES, Recording, TensorRole, Trainer, TrainingPlan};

/// What three steps leave.
struct Trained {
    launches: usize,
    losses: Vec<Vec<f64>>,
    weight: Vec<f32>,
}

fn train(options: LowerOptions) -> Trained {
    let cfg = Config { img_size: 24, ch: 4, n_res: 1, n_dis: 4, light: true, ..Config::default() };
    let plan = TrainingPlan::new(&cfg, 1, 0, Recording::default(), options).expect("a plan");
    let mut trainer = Trainer::load(&crate::device(), plan).expect("a trainer");
    trainer.initialise(3).expect("weights");
    let launches = trainer.executable().program().launches.len();
    let image = |of: u32| -> Vec<f32> {
        (0..24 * 24 * 3).map(|i: u32| ((i * 7919 + of * 104_729) % 511) as f32 / 255.5 - 1.0).collect()
    };
    let losses = (1..=3).map(|step| {
        trainer.step(step, &image(2 * step as u32), &image(2 * step as u32 + 1)).expect("a step");
        trainer.losses().expect("losses").0.to_vec()
    });
    let losses = losses.collect();
    let id = trainer.model().find("genA2B", "DownBlock.5.weight", TensorRole::Weight).expect("a tensor");
    let weight = trainer.get(id).expect("its values");
    Trained { launches, losses, weight }
}

#[test]
fn losses_do_not_depend_on_how_norms_are_computed() {
    let fused = train(NormVariant::PadFused.into());
    for (norm, more) in
        [(NormVariant::Fused, 10), (NormVariant::Composed, 100), (NormVariant::Elementary, 400)]
    {
        let got = train(norm.into());
        assert!(got.launches >= fused.launches + more, "{norm}: {} and {}", got.launches, fused.launches);
        // Other kernels did the work: they round differently.
        assert_ne!(got.weight, fused.weight, "{norm}");
        for (step, (got, want)) in got.losses.iter().zip(&fused.losses).enumerate() {
            for (name, (got, want)) in LOSS_NAMES.iter().zip(got.iter().zip(want)) {
                // Adam's first steps have the size of the learning rate however small a gradient is, so
                // that where it is next to 0 rounding decides their direction.
                let allowed = if step == 0 { 2e-6 } else { 1e-5 };
                let err = (got - want).abs() / want.abs().max(1e-3);
                assert!(err <= allowed, "{norm}, step {}: {name} is {got}, not {want}", step + 1);
            }
        }
    }
}

#[test]
fn losses_in_tf32_are_those_of_f32_but_for_its_rounding() {
    let exact = train(LowerOptions::default());
    let got = train(LowerOptions { precision: Precision::Tf32, ..LowerOptions::default() });
    assert_ne!(got.weight, exact.weight);
    for (step, (got, want)) in got.losses.iter().zip(&exact.losses).enumerate() {
        for (name, (got, want)) in LOSS_NAMES.iter().zip(got.iter().zip(want)) {
            // A loss is a sum over thousands of values, each some convolutions deep.
            let err = (got - want).abs() / want.abs().max(1e-3);
            let allowed = if step == 0 { 4.0 } else { 16.0 } * Precision::Tf32.rounding();
            assert!(err <= allowed, "step {}: {name} is {got}, in f32 {want}", step + 1);
        }
    }
}
