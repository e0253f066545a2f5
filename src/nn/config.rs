//! Hyper-parameters: names and defaults of the official PyTorch command line.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Everything that shapes the networks, the losses and the optimisers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Side of the square training images, pixels.
    pub img_size: usize,
    /// Base width: channels of the first convolution.
    pub ch: usize,
    /// Residual blocks in the encoder, and as many in the decoder.
    pub n_res: usize,
    /// Light mode: the gamma/beta network sees the pooled features instead of the whole map.
    pub light: bool,
    /// Discriminator depth: n_dis + 1 layers in the global pair, n_dis - 1 in the local pair.
    pub n_dis: usize,
    /// Colour channels of an image. Files are read as RGB, so runs have 3; recordings may have others.
    pub img_ch: usize,
    /// Iterations of the whole run; the learning rate falls over the second half.
    pub iterations: u64,
    /// Whether the learning rate falls.
    pub decay: bool,
    /// Learning rate.
    pub lr: f64,
    /// L2 weight decay.
    pub weight_decay: f64,
    /// Adam's decay of the first moment.
    pub beta1: f64,
    /// Adam's decay of the second moment.
    pub beta2: f64,
    /// Adam's epsilon.
    pub eps_adam: f64,
    /// Weight of the adversarial losses.
    pub adv_weight: f64,
    /// Weight of the cycle loss.
    pub cycle_weight: f64,
    /// Weight of the identity loss.
    pub identity_weight: f64,
    /// Weight of the generators' CAM loss.
    pub cam_weight: f64,
    /// Upper end of the rho clip. 1 as in the official PyTorch code; 0.9 gives the TensorFlow
    /// release's smoothed AdaLIN.
    pub rho_max: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            img_size: 256,
            ch: 64,
            n_res: 4,
            light: false,
            n_dis: 6,
            img_ch: 3,
            iterations: 1_000_000,
            decay: true,
            lr: 1e-4,
            weight_decay: 1e-4,
            beta1: 0.5,
            beta2: 0.999,
            eps_adam: 1e-8,
            adv_weight: 1.0,
            cycle_weight: 10.0,
            identity_weight: 10.0,
            cam_weight: 1000.0,
            rho_max: 1.0,
        }
    }
}

impl Config {
    /// Layers of the global discriminators (7 officially).
    pub fn layers_global(&self) -> usize {
        self.n_dis + 1
    }

    /// Layers of the local discriminators (5 officially).
    pub fn layers_local(&self) -> usize {
        self.n_dis - 1
    }

    /// Smallest side the networks take: the generator needs 8, and 3 pixels must be left after the
    /// stride-2 stages of the global discriminator (SPEC section 5).
    pub fn min_img_size(&self) -> usize {
        (3usize << (self.layers_global() - 2)).next_multiple_of(4).max(8)
    }

    /// The official depth of the discriminators, or the deepest that images of a size allow.
    pub fn deepest_n_dis(img_size: usize) -> usize {
        Self::deepest_below(Self::default().n_dis + 1, img_size).unwrap_or(2)
    }

    /// The deepest discriminators below a depth that images of a size allow, if any do.
    fn deepest_below(n_dis: usize, img_size: usize) -> Option<usize> {
        let fits = |&n_dis: &usize| Self { n_dis, ..Self::default() }.min_img_size() <= img_size;
        (2..n_dis).rev().find(fits)
    }

    /// Values of one training image.
    pub fn image_len(&self) -> usize {
        self.img_size.pow(2) * self.img_ch
    }

    /// Learning rate of a step, counted from 1: constant for half the run, then down by equal slices.
    /// Repeats the reference's running subtraction, so that the last digit agrees as well.
    pub fn lr_at(&self, step: u64) -> f64 {
        let half = self.iterations / 2;
        if !self.decay || step <= half || half == 0 {
            return self.lr;
        }
        let slice = self.lr / half as f64;
        // Subtracting slice after slice differs from one multiplication by rounding only; a million
        // subtractions a step would not be free, so long runs take the closed form.
        let slices = step - half;
        if slices <= 4096 {
            (0..slices).fold(self.lr, |lr, _| lr - slice)
        } else {
            self.lr - slice * slices as f64
        }
    }

    /// Checks that the values make a network that can be trained.
    ///
    /// # Errors
    /// Names the value and what it may be.
    pub fn check(&self) -> Result<()> {
        let fail = |what: String, hint: String| Err(Error::new(what).hint(hint));
        if self.n_dis < 2 || self.n_dis > 10 {
            return fail(
                format!("--n-dis {} is out of range", self.n_dis),
                "give a depth from 2 to 10".into(),
            );
        }
        if self.ch == 0 || self.ch > 1024 {
            return fail(format!("--ch {} is out of range", self.ch), "give a width from 1 to 1024".into());
        }
        if self.n_res == 0 || self.n_res > 64 {
            return fail(format!("--n-res {} is out of range", self.n_res), "give 1 to 64 blocks".into());
        }
        if self.img_ch == 0 || self.img_ch > 64 {
            return fail(
                format!("{} colour channels are out of range", self.img_ch),
                "images have 1 to 64, and files of images are read as RGB: 3".into(),
            );
        }
        if !self.img_size.is_multiple_of(4) {
            let near = self.img_size.next_multiple_of(4).max(self.min_img_size());
            return fail(
                format!("--size {} is not a multiple of 4", self.img_size),
                format!("the generator halves the image twice; try --size {near}"),
            );
        }
        if self.img_size < self.min_img_size() {
            let hint = match Self::deepest_below(self.n_dis, self.img_size) {
                Some(n) => format!("give --size {} or more, or --n-dis {n}", self.min_img_size()),
                None => format!("give --size {} or more", self.min_img_size()),
            };
            return fail(format!("--size {} is too small for --n-dis {}", self.img_size, self.n_dis), hint);
        }
        if self.img_size > 4096 {
            return fail(format!("--size {} is too large", self.img_size), "give at most 4096".into());
        }
        if self.iterations == 0 {
            return fail("--steps 0 trains nothing".into(), "give at least one step".into());
        }
        if self.decay && self.iterations == 1 {
            return fail(
                "one step cannot have a falling learning rate".into(),
                "add --no-decay, or give more --steps".into(),
            );
        }
        for (name, v) in [
            ("--lr", self.lr),
            ("--weight-decay", self.weight_decay),
            ("--adv-weight", self.adv_weight),
            ("--cycle-weight", self.cycle_weight),
            ("--identity-weight", self.identity_weight),
            ("--cam-weight", self.cam_weight),
        ] {
            if !v.is_finite() || v < 0.0 {
                return fail(
                    format!("{name} {v} is not a number from 0 up"),
                    "give a finite number from 0 up".into(),
                );
            }
        }
        if !(self.rho_max > 0.0 && self.rho_max <= 1.0) {
            return fail(
                format!("--rho-max {} is out of range", self.rho_max),
                "give a number in (0, 1]".into(),
            );
        }
        for (name, v) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(0.0..1.0).contains(&v) {
                return fail(format!("{name} {v} is out of range"), "give a number in [0, 1)".into());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smallest_sizes_are_the_reference_s() {
        let smallest = |n_dis| Config { n_dis, ..Config::default() }.min_img_size();
        assert_eq!([6, 5, 4, 3, 2].map(smallest), [96, 48, 24, 12, 8]);
    }

    #[test]
    fn learning_rate_falls_to_zero_over_the_second_half() {
        let c = Config { iterations: 10, ..Config::default() };
        let rates: Vec<f64> = (1..=10).map(|s| c.lr_at(s)).collect();
        assert_eq!(rates[4], 1e-4);
        // The reference's running subtraction, digit for digit.
        assert_eq!(rates[6], 6.000000000000001e-5);
        assert_eq!(rates[9], 6.776263578034403e-21);
    }

    #[test]
    fn bad_values_are_named() {
        let bad = |f: fn(&mut Config)| {
            let mut c = Config::default();
            f(&mut c);
            c.check().expect_err("must fail").to_string()
        };
        assert!(bad(|c| c.img_size = 258).contains("--size 258 is not a multiple of 4"));
        assert!(bad(|c| c.img_size = 64).contains("--n-dis 5"));
        assert!(bad(|c| c.lr = f64::NAN).contains("--lr"));
        assert!(Config::default().check().is_ok());
    }
}
