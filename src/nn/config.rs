//! Hyper-parameters: names and defaults of the official PyTorch command line.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Error;

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
    /// The first value that does not, and what it may be.
    pub fn check(&self) -> Result<(), ConfigError> {
        let counts = [
            ("n_dis", self.n_dis, 2, 10),
            ("ch", self.ch, 1, 1024),
            ("n_res", self.n_res, 1, 64),
            ("img_ch", self.img_ch, 1, 64),
        ];
        for (field, value, min, max) in counts {
            if !(min..=max).contains(&value) {
                return Err(ConfigError::Count { field, value, min, max });
            }
        }
        let size = self.img_size;
        if !size.is_multiple_of(4) {
            let near = size.next_multiple_of(4).max(self.min_img_size());
            return Err(ConfigError::SizeNotMultipleOfFour { size, near });
        }
        if size < self.min_img_size() {
            let deepest = Self::deepest_below(self.n_dis, size);
            return Err(ConfigError::SizeTooSmall {
                size,
                min: self.min_img_size(),
                n_dis: self.n_dis,
                deepest,
            });
        }
        if size > MAX_SIZE {
            return Err(ConfigError::SizeTooLarge { size, max: MAX_SIZE });
        }
        if self.iterations == 0 {
            return Err(ConfigError::NoSteps);
        }
        if self.decay && self.iterations == 1 {
            return Err(ConfigError::DecayOverOneStep);
        }
        let weights = [
            ("lr", self.lr),
            ("weight_decay", self.weight_decay),
            ("adv_weight", self.adv_weight),
            ("cycle_weight", self.cycle_weight),
            ("identity_weight", self.identity_weight),
            ("cam_weight", self.cam_weight),
        ];
        if let Some((field, value)) = weights.into_iter().find(|(_, v)| !v.is_finite() || *v < 0.0) {
            return Err(ConfigError::NotFromZeroUp { field, value });
        }
        if !(self.rho_max > 0.0 && self.rho_max <= 1.0) {
            return Err(ConfigError::Share { field: "rho_max", value: self.rho_max, range: "(0, 1]" });
        }
        for (field, value) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(0.0..1.0).contains(&value) {
                return Err(ConfigError::Share { field, value, range: "[0, 1)" });
            }
        }
        Ok(())
    }
}

/// Largest side of a training image, pixels.
const MAX_SIZE: usize = 4096;

/// Why a [`Config`] makes no network that can be trained. Fields are called as in [`Config`].
#[derive(Clone, Debug, PartialEq)]
pub enum ConfigError {
    /// A count is out of its range, `min` to `max`.
    Count {
        /// The field's name.
        field: &'static str,
        /// What it is.
        value: usize,
        /// The minimum.
        min: usize,
        /// The most.
        max: usize,
    },
    /// The generator halves images twice.
    SizeNotMultipleOfFour {
        /// The side, pixels.
        size: usize,
        /// A side near it that would do.
        near: usize,
    },
    /// The discriminators are too deep for the images.
    SizeTooSmall {
        /// The side, pixels.
        size: usize,
        /// The smallest side for this depth.
        min: usize,
        /// The depth.
        n_dis: usize,
        /// The deepest discriminators that the side allows, where it allows any.
        deepest: Option<usize>,
    },
    /// The images are too large.
    SizeTooLarge {
        /// The side, pixels.
        size: usize,
        /// The largest side.
        max: usize,
    },
    /// No steps are asked for.
    NoSteps,
    /// The learning rate falls over the second half of the run, which one step does not have.
    DecayOverOneStep,
    /// A weight or rate is negative or no finite number.
    NotFromZeroUp {
        /// The field's name.
        field: &'static str,
        /// What it is.
        value: f64,
    },
    /// A number is out of its range within 0 to 1.
    Share {
        /// The field's name.
        field: &'static str,
        /// What it is.
        value: f64,
        /// The range.
        range: &'static str,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count { field, value, min, max } => {
                write!(f, "{field} {value} is out of range, {min} to {max}")
            }
            Self::SizeNotMultipleOfFour { size, .. } => write!(f, "img_size {size} is not a multiple of 4"),
            Self::SizeTooSmall { size, n_dis, .. } => {
                write!(f, "img_size {size} is too small for n_dis {n_dis}")
            }
            Self::SizeTooLarge { size, .. } => write!(f, "img_size {size} is too large"),
            Self::NoSteps => f.write_str("a run of no iterations trains nothing"),
            Self::DecayOverOneStep => f.write_str("one step cannot have a falling learning rate"),
            Self::NotFromZeroUp { field, value } => write!(f, "{field} {value} is not a number from 0 up"),
            Self::Share { field, value, range } => write!(f, "{field} {value} is out of range, {range}"),
        }
    }
}

impl std::error::Error for ConfigError {}

impl From<ConfigError> for Error {
    fn from(e: ConfigError) -> Self {
        Self::new(e.to_string())
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
            c.check().expect_err("must fail")
        };
        assert_eq!(bad(|c| c.img_size = 258), ConfigError::SizeNotMultipleOfFour { size: 258, near: 260 });
        assert_eq!(
            bad(|c| c.img_size = 64),
            ConfigError::SizeTooSmall { size: 64, min: 96, n_dis: 6, deepest: Some(5) }
        );
        assert_eq!(bad(|c| c.img_size = 64).to_string(), "img_size 64 is too small for n_dis 6");
        assert_eq!(bad(|c| c.lr = f64::NAN).to_string(), "lr NaN is not a number from 0 up");
        assert_eq!(bad(|c| c.rho_max = 0.0).to_string(), "rho_max 0 is out of range, (0, 1]");
        assert_eq!(Config::default().check(), Ok(()));
    }
}
