//! The discriminators: spectrally normalised PatchGANs with CAM attention (SPEC section 5).

use super::params::{ParamId, ParamList, SpectralParams};
use super::{Config, Net, Tap};
use crate::tape::{Activation, Spectral, Tape, Value};

/// A strided convolution.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    /// Its bias.
    pub bias: ParamId,
    /// Its weight.
    pub conv: SpectralParams,
}

/// The parameters of a discriminator.
#[derive(Clone, Debug)]
pub struct DiscriminatorParams {
    /// CAM classifier over average-pooled features.
    pub gap: SpectralParams,
    /// CAM classifier over maximum-pooled features.
    pub gmp: SpectralParams,
    /// Weight and bias of the 1x1 convolution over both weighted feature maps.
    pub conv1x1: [ParamId; 2],
    /// The convolution that makes the patch logits.
    pub logit: SpectralParams,
    /// All layers before the CAM, from the image on.
    pub layers: Vec<Layer>,
}

impl DiscriminatorParams {
    /// The parameters of a discriminator of so many layers, the last makes the logits; in the official order.
    pub fn new(list: &mut ParamList, cfg: &Config, layers: usize) -> Self {
        let widths: Vec<usize> =
            std::iter::once(cfg.img_ch).chain((0..layers - 1).map(|i| cfg.ch << i)).collect();
        let c = widths[layers - 1];
        let [gap, gmp] = ["gap_fc", "gmp_fc"].map(|module| {
            let weight = list.row(format!("{module}.weight_orig"), c);
            list.spectral(module, weight, [1, c, 1])
        });
        let conv1x1 = [list.conv("conv1x1.weight", c, 2 * c, 1), list.bias("conv1x1.bias", c, 2 * c)];
        let weight = list.conv("conv.weight_orig", 1, c, 4);
        let logit = list.spectral("conv", weight, [1, c, 4]);
        let layer = |(i, pair): (usize, &[usize])| {
            let (module, ci, co) = (format!("model.{}", 1 + 3 * i), pair[0], pair[1]);
            let bias = list.bias(format!("{module}.bias"), co, ci * 16);
            let weight = list.conv(format!("{module}.weight_orig"), co, ci, 4);
            Layer { bias, conv: list.spectral(&module, weight, [co, ci, 4]) }
        };
        let layers = widths.windows(2).enumerate().map(layer).collect();
        Self { gap, gmp, conv1x1, logit, layers }
    }
}

/// What a discriminator pass leaves.
#[derive(Clone, Debug)]
pub struct DiscriminatorOutput {
    /// Patch logits `[D, N, h, w, 1]`.
    pub logit: Value,
    /// CAM logits `[D, N, 1, 1, 2]`.
    pub cam_logit: Value,
    /// The attended features whose channel sum is the heatmap.
    pub attended: Value,
    /// Intermediate results.
    pub taps: Vec<Tap>,
}

/// Records one pass of a pair of discriminators over `x [D, N, S, S, 3]`.
///
/// The batch holds `passes` passes of the reference one after the other (real and fake): each has its
/// own power iteration, and with it its own 1/sigma.
pub fn discriminator(
    tape: &mut Tape,
    net: &Net<DiscriminatorParams>,
    x: Value,
    passes: usize,
) -> DiscriminatorOutput {
    use Activation::{LeakyRelu, None as Plain};
    let p = &net.params;
    let mut taps = Vec::new();
    let iterate = |tape: &mut Tape, of: SpectralParams| -> Spectral {
        tape.power_iterations(net.get(of.weight), net.get(of.u), net.get(of.v), passes)
    };

    let mut x = x;
    for (i, layer) in p.layers.iter().enumerate() {
        let module = net.module(layer.bias);
        let spectral = iterate(tape, layer.conv);
        let stride = if i + 1 < p.layers.len() { 2 } else { 1 };
        let (weight, bias) = (net.get(layer.conv.weight), net.get(layer.bias));
        let padded = tape.pad(x, 1, 1);
        x = tape.conv(module, padded, weight, Some(bias), Some(spectral), stride, LeakyRelu);
        taps.push(Tap { key: module.to_owned(), value: x, act: LeakyRelu });
    }

    // The logits use the normalised rows, the scaling of the features the plain ones (SPEC section 5).
    let (gap_w, gmp_w) = (net.get(p.gap.weight), net.get(p.gmp.weight));
    let spectral = [iterate(tape, p.gap), iterate(tape, p.gmp)];
    let (gap, gmp) = tape.average_and_max_pool(x);
    let cam_logit = tape.cam_logits(gap, gmp, gap_w, gmp_w, Some(spectral));
    let [weight, bias] = p.conv1x1.map(|id| net.get(id));
    let module = net.module(p.conv1x1[0]);
    let folded = tape.cam_fold(weight, gap_w, gmp_w);
    let attended = tape.conv(module, x, folded, Some(bias), None, 1, LeakyRelu);
    taps.push(Tap { key: module.to_owned(), value: attended, act: LeakyRelu });

    let spectral = iterate(tape, p.logit);
    let padded = tape.pad(attended, 1, 1);
    let module = net.module(p.logit.weight);
    let logit = tape.conv(module, padded, net.get(p.logit.weight), None, Some(spectral), 1, Plain);
    taps.push(Tap { key: module.to_owned(), value: logit, act: Plain });
    DiscriminatorOutput { logit, cam_logit, attended, taps }
}

#[cfg(test)]
mod tests {
    use super::super::params::testing::{assert_orders_invert, total};
    use super::*;

    fn list(cfg: &Config, layers: usize) -> ParamList {
        let mut list = ParamList::default();
        DiscriminatorParams::new(&mut list, cfg, layers);
        list
    }

    #[test]
    fn weight_counts_are_the_official_ones() {
        let light = Config { light: true, ..Config::default() };
        assert_eq!(total(&list(&light, light.layers_global())), 53_130_176);
        assert_eq!(total(&list(&light, light.layers_local())), 3_290_560);
    }

    #[test]
    fn device_order_and_back_is_the_identity() {
        let cfg = Config { img_size: 24, ch: 3, n_res: 1, n_dis: 4, ..Config::default() };
        for layers in [cfg.layers_global(), cfg.layers_local()] {
            assert_orders_invert(&list(&cfg, layers));
        }
    }
}
