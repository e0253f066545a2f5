//! A whole training step under every check of the emulator, and its bits with the warps in another order.

use ugatit::device::emulator::{Emulator, Options, WarpOrder};
use ugatit::device::{Allocation, Device};
use ugatit::nn::Config;
use ugatit::study::run::Shared;
use ugatit::train::{Recording, Trainer};

/// All bytes that two training steps leave: weights, gradients, moments, spectral vectors, losses.
fn state(cfg: &Config, options: Options) -> Vec<u8> {
    let device = Shared::new(Emulator::new(options));
    let mut trainer =
        Trainer::new(Box::new(device.another()), cfg, 1, 0, Recording::default()).expect("it can be planned");
    trainer.initialise(5).expect("it has room");
    let image = |by: usize| -> Vec<f32> {
        (0..cfg.img_size.pow(2) * 3).map(|i| ((i * by) % 511) as f32 / 255.5 - 1.0).collect()
    };
    let (a, b) = (image(7919), image(6007));
    for step in 1..=2 {
        trainer.step(step, &a, &b).unwrap_or_else(|e| panic!("{e}"));
    }
    let mut bytes = vec![0; trainer.program().state_bytes as usize];
    // The trainer allocates its state first.
    device.lock().download(Allocation(0), 0, &mut bytes).expect("it is there");
    bytes
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
