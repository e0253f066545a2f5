//! The loss terms of one iteration under the reference's names (SPEC section 6).

use std::mem::offset_of;

use bytemuck::{Pod, Zeroable};

use crate::nn::Config;

/// Names of the loss terms in the order the reference reports them.
pub const LOSS_NAMES: [&str; 28] = [
    "D_ad_loss_GA",
    "D_ad_cam_loss_GA",
    "D_ad_loss_LA",
    "D_ad_cam_loss_LA",
    "D_ad_loss_GB",
    "D_ad_cam_loss_GB",
    "D_ad_loss_LB",
    "D_ad_cam_loss_LB",
    "D_loss_A",
    "D_loss_B",
    "Discriminator_loss",
    "G_ad_loss_GA",
    "G_ad_cam_loss_GA",
    "G_ad_loss_LA",
    "G_ad_cam_loss_LA",
    "G_ad_loss_GB",
    "G_ad_cam_loss_GB",
    "G_ad_loss_LB",
    "G_ad_cam_loss_LB",
    "G_recon_loss_A",
    "G_identity_loss_A",
    "G_cam_loss_A",
    "G_loss_A",
    "G_recon_loss_B",
    "G_identity_loss_B",
    "G_cam_loss_B",
    "G_loss_B",
    "Generator_loss",
];

/// The loss terms of one iteration, in the order of [`LOSS_NAMES`].
#[derive(Clone, Debug, PartialEq)]
pub struct Losses(pub [f64; LOSS_NAMES.len()]);

/// The terms as the step leaves them in device memory. Directions as in [`crate::nn::Role`]: 0 is domain B's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(super) struct LossTerms {
    /// D step: by pair of discriminators (global, local), by logit (patch, CAM), by direction, real and fake.
    d: [[[[f32; 2]; 2]; 2]; 2],
    /// G step: by pair, by logit, by direction.
    g: [[[f32; 2]; 2]; 2],
    /// By direction.
    cycle: [f32; 2],
    /// By direction, for the translated images (weight 0) and those to keep.
    identity: [[f32; 2]; 2],
    /// By direction, for the translated images and those to keep.
    cam: [[f32; 2]; 2],
}

/// The place of some loss terms: of both directions, for each so many parts of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    /// First byte in [`LossTerms`].
    pub offset: usize,
    /// Parts of a batch: 1 or 2.
    pub halves: usize,
}

impl LossTerms {
    /// What the step leaves of the cycle loss.
    pub const CYCLE: Terms = Terms { offset: offset_of!(Self, cycle), halves: 1 };
    /// Of the identity loss.
    pub const IDENTITY: Terms = Terms { offset: offset_of!(Self, identity), halves: 2 };
    /// Of the generators' CAM loss.
    pub const CAM: Terms = Terms { offset: offset_of!(Self, cam), halves: 2 };

    /// Of the D step for a pair of discriminators and one of its logits.
    pub fn discriminator(pair: usize, logit: usize) -> Terms {
        Terms { offset: offset_of!(Self, d) + (2 * pair + logit) * size_of::<[[f32; 2]; 2]>(), halves: 2 }
    }

    /// Of the G step for a pair of discriminators and one of its logits.
    pub fn generator(pair: usize, logit: usize) -> Terms {
        Terms { offset: offset_of!(Self, g) + (2 * pair + logit) * size_of::<[f32; 2]>(), halves: 1 }
    }
}

impl Losses {
    /// Sums up the terms, in double precision.
    pub(super) fn from_terms(terms: &LossTerms, cfg: &Config) -> Self {
        let sum = |halves: [f32; 2]| f64::from(halves[0]) + f64::from(halves[1]);
        let mut out = Self([f64::NAN; LOSS_NAMES.len()]);
        let (mut d_total, mut g_total) = (0.0, 0.0);
        for (domain, d) in [("A", 1usize), ("B", 0)] {
            let (mut d_loss, mut g_adv) = (0.0, 0.0);
            for (i, net) in ["G", "L"].into_iter().enumerate() {
                for (j, kind) in ["ad_loss", "ad_cam_loss"].into_iter().enumerate() {
                    let both = sum(terms.d[i][j][d]);
                    out.set(&format!("D_{kind}_{net}{domain}"), both);
                    d_loss += both;
                    let g = f64::from(terms.g[i][j][d]);
                    out.set(&format!("G_{kind}_{net}{domain}"), g);
                    g_adv += g;
                }
            }
            let d_loss = cfg.adv_weight * d_loss;
            let (cycle, identity) = (f64::from(terms.cycle[d]), f64::from(terms.identity[d][1]));
            let cam = sum(terms.cam[d]);
            let g_loss = cfg.adv_weight * g_adv
                + cfg.cycle_weight * cycle
                + cfg.identity_weight * identity
                + cfg.cam_weight * cam;
            out.set(&format!("D_loss_{domain}"), d_loss);
            out.set(&format!("G_recon_loss_{domain}"), cycle);
            out.set(&format!("G_identity_loss_{domain}"), identity);
            out.set(&format!("G_cam_loss_{domain}"), cam);
            out.set(&format!("G_loss_{domain}"), g_loss);
            d_total += d_loss;
            g_total += g_loss;
        }
        out.set("Discriminator_loss", d_total);
        out.set("Generator_loss", g_total);
        out
    }

    fn index(name: &str) -> usize {
        LOSS_NAMES.iter().position(|n| *n == name).unwrap_or_else(|| panic!("no loss is named {name}"))
    }

    fn set(&mut self, name: &str, value: f64) {
        self.0[Self::index(name)] = value;
    }

    /// The term of that name.
    ///
    /// # Panics
    /// When there is none.
    pub fn get(&self, name: &str) -> f64 {
        self.0[Self::index(name)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_term_has_a_place_of_its_own_and_is_read_from_it() {
        let pairs = [(0, 0), (0, 1), (1, 0), (1, 1)];
        let mut all: Vec<Terms> = pairs.map(|(i, j)| LossTerms::discriminator(i, j)).to_vec();
        all.extend(pairs.map(|(i, j)| LossTerms::generator(i, j)));
        all.extend([LossTerms::CYCLE, LossTerms::IDENTITY, LossTerms::CAM]);
        // What is recorded fills the struct, in order.
        let mut next = 0;
        for terms in &all {
            assert_eq!(terms.offset, next);
            next += 2 * terms.halves * size_of::<f32>();
        }
        assert_eq!(next, size_of::<LossTerms>());

        // A one at a recorded place is read as the loss it was recorded for.
        let read = |terms: Terms, direction: usize| {
            let mut left = LossTerms::zeroed();
            let floats: &mut [f32] = bytemuck::cast_slice_mut(bytemuck::bytes_of_mut(&mut left));
            floats[terms.offset / 4 + direction * terms.halves + terms.halves - 1] = 1.0;
            let losses = Losses::from_terms(&left, &Config::default());
            let sums = ["D_loss", "G_loss", "Discriminator", "Generator"];
            let is_sum = |name: &str| sums.iter().any(|s| name.starts_with(s));
            let found = LOSS_NAMES.iter().zip(losses.0).filter(|(name, x)| *x != 0.0 && !is_sum(name));
            found.map(|(name, _)| *name).collect::<Vec<_>>()
        };
        assert_eq!(read(LossTerms::discriminator(1, 0), 1), ["D_ad_loss_LA"]);
        assert_eq!(read(LossTerms::discriminator(0, 1), 0), ["D_ad_cam_loss_GB"]);
        assert_eq!(read(LossTerms::generator(1, 1), 1), ["G_ad_cam_loss_LA"]);
        assert_eq!(read(LossTerms::CYCLE, 0), ["G_recon_loss_B"]);
        assert_eq!(read(LossTerms::IDENTITY, 1), ["G_identity_loss_A"]);
        assert_eq!(read(LossTerms::CAM, 1), ["G_cam_loss_A"]);
    }
}
