//! A whole training step under every check of the emulator, and its bits with the warps in another order.

use ugatit::device::emulator::{Emulator, Options, WarpOrder};
use ugatit::device::executable::DeviceHandle;
use ugatit::nn::Config;
use ugatit::tape::{ConvVariant, LowerOptions, Precision};
use ugatit::train::{Recording, Trainer, TrainingPlan};

/// All bytes that two training steps leave: weights, gradients, moments, spectral vectors, losses.
fn state(cfg: &Config, options: LowerOptions, checks: Options) -> Vec<u8> {
    let device = DeviceHandle::new(Emulator::new(checks));
    let plan = TrainingPlan::new(cfg, 1, 0, Recording::default(), options).expect("it can be planned");
    let mut trainer = Trainer::load(&device, plan).expect("it has memory");
    trainer.initialise(5).expect("it has room");
    let image = |by: usize| -> Vec<f32> {
        (0..cfg.img_size.pow(2) * 3).map(|i| ((i * by) % 511) as f32 / 255.5 - 1.0).collect()
    };
    let (a, b) = (image(7919), image(6007));
    for step in 1..=2 {
        trainer.step(step, &a, &b).unwrap_or_else(|e| panic!("{e}"));
    }
    let step = trainer.executable();
    step.state().read(0, step.program().state_bytes as usize).expect("it is there")
}

#[test]
fn a_training_step_is_clean_and_does_not_depend_on_the_order_of_warps() {
    let light = Config { img_size: 24, ch: 8, n_res: 1, n_dis: 4, light: true, ..Config::default() };
    let full = Config { img_size: 16, n_dis: 2, light: false, ..light };
    let plain = LowerOptions::default();
    // So small a step has no tiles that the planner would take this variant for.
    let tiled = LowerOptions { conv: Some(ConvVariant::ImplicitGemm), ..plain };
    let tf32 = LowerOptions { precision: Precision::Tf32, ..plain };
    for (name, cfg, options) in
        [("light", &light, plain), ("full", &full, plain), ("tiled", &light, tiled), ("tf32", &light, tf32)]
    {
        // The default checks bounds, alignment, what was written, shared memory, barriers and copies; with
        // it, races between blocks.
        let strict = state(cfg, options, Options { check_races: true, ..Options::default() });
        assert!(strict.iter().any(|b| *b != 0));
        let reverse = Options { warp_order: WarpOrder::Reverse, check_races: true, ..Options::default() };
        assert!(strict == state(cfg, options, reverse), "{name}: the order of the warps shows");
        // And with blocks on all cores.
        assert!(strict == state(cfg, options, Options::default()), "{name}: the order of the blocks shows");
    }
}
