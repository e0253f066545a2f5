//! A whole training step under every check of the emulator, and its bits with the warps in another order.

use ugatit::device::emulator::{Emulator, Options, WarpOrder};
use ugatit::device::executable::DeviceHandle;
use ugatit::nn::Config;
use ugatit::train::{Recording, Trainer};

/// All bytes that two training steps leave: weights, gradients, moments, spectral vectors, losses.
fn state(cfg: &Config, options: Options) -> Vec<u8> {
    let device = DeviceHandle::new(Emulator::new(options));
    let mut trainer = Trainer::new(&device, cfg, 1, 0, Recording::default()).expect("it can be planned");
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
    for (light, img_size, n_dis) in [(true, 24, 4), (false, 16, 2)] {
        let cfg = Config { img_size, ch: 8, n_res: 1, n_dis, light, ..Config::default() };
        // The default checks bounds, alignment, what was written, shared memory, barriers and copies; with
        // it, races between blocks.
        let strict = state(&cfg, Options { check_races: true, ..Options::default() });
        assert!(strict.iter().any(|b| *b != 0));
        let reverse = Options { warp_order: WarpOrder::Reverse, check_races: true, ..Options::default() };
        assert!(strict == state(&cfg, reverse), "light {light}: the order of the warps shows");
        // And with blocks on all cores.
        assert!(strict == state(&cfg, Options::default()), "light {light}: the order of the blocks shows");
    }
}
