//! The loss terms of one iteration under the reference's names (SPEC section 6).

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

/// Floats the step leaves: four D terms of `[2, 2]`, four G terms of `[2, 1]`, cycle `[2, 1]`,
/// identity `[2, 2]`, CAM `[2, 2]`.
pub(super) const TERMS: usize = 4 * 4 + 4 * 2 + 2 + 4 + 4;

impl Losses {
    /// From the terms as the step leaves them. Direction 0 is domain B's (see [`crate::nn::Role`]).
    pub(super) fn from_terms(t: &[f32; TERMS], cfg: &Config) -> Self {
        let t = t.map(f64::from);
        let mut out = Self([f64::NAN; LOSS_NAMES.len()]);
        let (mut d_total, mut g_total) = (0.0, 0.0);
        for (domain, d) in [("A", 1usize), ("B", 0)] {
            let (mut d_loss, mut g_adv) = (0.0, 0.0);
            for (i, net) in ["G", "L"].into_iter().enumerate() {
                for (j, kind) in ["ad_loss", "ad_cam_loss"].into_iter().enumerate() {
                    let at = (2 * i + j) * 4 + 2 * d;
                    let both = t[at] + t[at + 1];
                    out.set(&format!("D_{kind}_{net}{domain}"), both);
                    d_loss += both;
                    let g = t[16 + (2 * i + j) * 2 + d];
                    out.set(&format!("G_{kind}_{net}{domain}"), g);
                    g_adv += g;
                }
            }
            let d_loss = cfg.adv_weight * d_loss;
            let (cycle, identity) = (t[24 + d], t[26 + 2 * d + 1]);
            let cam = t[30 + 2 * d] + t[30 + 2 * d + 1];
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
