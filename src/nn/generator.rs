//! The generator: encoder, CAM attention, gamma/beta network, AdaLIN decoder (SPEC sections 1 to 4).

use super::params::{ParamId, ParamList};
use super::{Config, Net, Tap};
use crate::tape::{Activation, Affine, Tape, Value};

/// A convolution and the rho of the AdaLIN after it.
#[derive(Clone, Copy, Debug)]
pub struct AdaLinConv {
    /// Weight of the convolution.
    pub conv: ParamId,
    /// Share of the instance norm.
    pub rho: ParamId,
}

/// An upsampling convolution and the ILN after it.
#[derive(Clone, Copy, Debug)]
pub struct IlnConv {
    /// Weight of the convolution.
    pub conv: ParamId,
    /// Share of the instance norm.
    pub rho: ParamId,
    /// Scale.
    pub gamma: ParamId,
    /// Shift.
    pub beta: ParamId,
}

/// The parameters of a generator.
#[derive(Clone, Debug)]
pub struct GeneratorParams {
    /// CAM classifier over average-pooled features.
    pub gap: ParamId,
    /// CAM classifier over maximum-pooled features.
    pub gmp: ParamId,
    /// Weight and bias of the 1x1 convolution over both weighted feature maps.
    pub conv1x1: [ParamId; 2],
    /// What makes gamma of the style.
    pub gamma: ParamId,
    /// What makes beta of the style.
    pub beta: ParamId,
    /// The AdaLIN residual blocks of the decoder.
    pub decoder: Vec<[AdaLinConv; 2]>,
    /// The encoder's convolution at full size and the two that halve the image.
    pub stem: [ParamId; 3],
    /// The residual blocks of the encoder.
    pub encoder: Vec<[ParamId; 2]>,
    /// The two linear layers that make the style.
    pub style: [ParamId; 2],
    /// The two convolutions after doubling the image.
    pub up: [IlnConv; 2],
    /// The convolution that makes the image.
    pub image: ParamId,
}

impl GeneratorParams {
    /// The parameters under a configuration, in the official order.
    pub fn new(list: &mut ParamList, cfg: &Config) -> Self {
        let (ch, c) = (cfg.ch, 4 * cfg.ch);
        // rho starts at 0.9 in the official PyTorch code; a lower ceiling is where it starts as well.
        let rho = 0.9f64.min(cfg.rho_max) as f32;
        let gap = list.row("gap_fc.weight", c);
        let gmp = list.row("gmp_fc.weight", c);
        let conv1x1 = [list.conv("conv1x1.weight", c, 2 * c, 1), list.bias("conv1x1.bias", c, 2 * c)];
        let gamma = list.linear("gamma.weight", c, c);
        let beta = list.linear("beta.weight", c, c);
        let mut decoder = Vec::new();
        for i in 1..=cfg.n_res {
            decoder.push([1, 2].map(|j| AdaLinConv {
                conv: list.conv(format!("UpBlock1_{i}.conv{j}.weight"), c, c, 3),
                rho: list.rho(format!("UpBlock1_{i}.norm{j}.rho"), c, rho),
            }));
        }
        let stem = [
            list.conv("DownBlock.1.weight", ch, cfg.img_ch, 7),
            list.conv("DownBlock.5.weight", 2 * ch, ch, 3),
            list.conv("DownBlock.9.weight", c, 2 * ch, 3),
        ];
        let mut encoder = Vec::new();
        for i in 0..cfg.n_res {
            let conv = |j| list.conv(format!("DownBlock.{}.conv_block.{j}.weight", 12 + i), c, c, 3);
            encoder.push([1, 5].map(conv));
        }
        let first = if cfg.light {
            list.linear("FC.0.weight", c, c)
        } else {
            list.linear_over_map("FC.0.weight", c, c, (cfg.img_size / 4) * (cfg.img_size / 4))
        };
        let style = [first, list.linear("FC.2.weight", c, c)];
        let up = [(2, 3, 2 * ch, c), (7, 8, ch, 2 * ch)].map(|(conv, norm, co, ci)| IlnConv {
            conv: list.conv(format!("UpBlock2.{conv}.weight"), co, ci, 3),
            rho: list.rho(format!("UpBlock2.{norm}.rho"), co, 0.0),
            gamma: list.map_row(format!("UpBlock2.{norm}.gamma"), co, 1.0),
            beta: list.map_row(format!("UpBlock2.{norm}.beta"), co, 0.0),
        });
        let image = list.conv("UpBlock2.11.weight", cfg.img_ch, ch, 7);
        Self { gap, gmp, conv1x1, gamma, beta, decoder, stem, encoder, style, up, image }
    }
}

/// What a generator pass leaves.
#[derive(Clone, Debug)]
pub struct GeneratorOutput {
    /// Images in [-1, 1], `[D, N, S, S, 3]`.
    pub image: Value,
    /// CAM logits `[D, N, 1, 1, 2]`.
    pub cam_logit: Value,
    /// The attended features whose channel sum is the heatmap, `[D, N, S/4, S/4, 4 ch]`.
    pub attended: Value,
    /// Intermediate results.
    pub taps: Vec<Tap>,
}

/// Records one pass over `x [D, N, S, S, 3]`.
pub fn generator(tape: &mut Tape, cfg: &Config, net: &Net<GeneratorParams>, x: Value) -> GeneratorOutput {
    use Activation::{None as Plain, Relu, Tanh};
    let p = &net.params;
    let mut taps = Vec::new();
    let mut conv = |tape: &mut Tape,
                    weight: ParamId,
                    x: Value,
                    pad: usize,
                    up: usize,
                    stride: usize,
                    act: Activation| {
        let padded = tape.pad(x, pad, up);
        let y = tape.conv(net.module(weight), padded, net.get(weight), None, None, stride, act);
        taps.push(Tap { key: net.module(weight).to_owned(), value: y, act });
        y
    };
    // The norms of the encoder have no parameters, and no modules that would name them.
    let instance_norm = |tape: &mut Tape, weight: ParamId, y: Value, act, residual| {
        tape.norm(&format!("{}.norm", net.module(weight)), y, None, act, residual)
    };

    let mut x = x;
    for (weight, pad, stride) in [(p.stem[0], 3, 1), (p.stem[1], 1, 2), (p.stem[2], 1, 2)] {
        let y = conv(tape, weight, x, pad, 1, stride, Plain);
        x = instance_norm(tape, weight, y, Relu, None);
    }
    for &[first, second] in &p.encoder {
        let y = conv(tape, first, x, 1, 1, 1, Plain);
        let y = instance_norm(tape, first, y, Relu, None);
        let y = conv(tape, second, y, 1, 1, 1, Plain);
        x = instance_norm(tape, second, y, Plain, Some(x));
    }

    let (gap_w, gmp_w) = (net.get(p.gap), net.get(p.gmp));
    let (gap, gmp) = tape.average_and_max_pool(x);
    let cam_logit = tape.cam_logits(gap, gmp, gap_w, gmp_w, None);
    let [weight, bias] = p.conv1x1.map(|id| net.get(id));
    let folded = tape.cam_fold(weight, gap_w, gmp_w);
    let attended = tape.conv(net.module(p.conv1x1[0]), x, folded, Some(bias), None, 1, Relu);

    let linear = |tape: &mut Tape, weight: ParamId, x: Value, act: Activation| {
        tape.linear(net.module(weight), x, net.get(weight), act)
    };
    let style = if cfg.light { tape.average_pool("style", attended) } else { attended };
    let hidden = linear(tape, p.style[0], style, Relu);
    let style = linear(tape, p.style[1], hidden, Relu);
    let gamma = linear(tape, p.gamma, style, Plain);
    let beta = linear(tape, p.beta, style, Plain);

    let mut x = attended;
    let mut norms = Vec::new();
    for &[first, second] in &p.decoder {
        let adalin = |of: AdaLinConv| Affine { rho: net.get(of.rho), gamma, beta };
        let y = conv(tape, first.conv, x, 1, 1, 1, Plain);
        let y = tape.norm(net.module(first.rho), y, Some(adalin(first)), Relu, None);
        norms.push(Tap { key: net.module(first.rho).to_owned(), value: y, act: Relu });
        let y = conv(tape, second.conv, y, 1, 1, 1, Plain);
        x = tape.norm(net.module(second.rho), y, Some(adalin(second)), Plain, Some(x));
    }
    for up in p.up {
        let affine = Affine { rho: net.get(up.rho), gamma: net.get(up.gamma), beta: net.get(up.beta) };
        let y = conv(tape, up.conv, x, 1, 2, 1, Plain);
        x = tape.norm(net.module(up.rho), y, Some(affine), Relu, None);
        norms.push(Tap { key: net.module(up.rho).to_owned(), value: x, act: Relu });
    }
    let image = conv(tape, p.image, x, 3, 1, 1, Tanh);

    let tap = |id: ParamId, value: Value, act| Tap { key: net.module(id).to_owned(), value, act };
    taps.extend([
        tap(p.conv1x1[0], attended, Relu),
        tap(p.style[0], hidden, Relu),
        tap(p.style[1], style, Relu),
        tap(p.gamma, gamma, Plain),
        tap(p.beta, beta, Plain),
    ]);
    taps.extend(norms);
    GeneratorOutput { image, cam_logit, attended, taps }
}

#[cfg(test)]
mod tests {
    use super::super::params::testing::{assert_orders_invert, total};
    use super::*;

    fn list(cfg: &Config) -> ParamList {
        let mut list = ParamList::default();
        GeneratorParams::new(&mut list, cfg);
        list
    }

    #[test]
    fn weight_counts_are_the_official_ones() {
        assert_eq!(total(&list(&Config { light: true, ..Config::default() })), 10_589_888);
        assert_eq!(total(&list(&Config::default())), 278_959_808);
    }

    #[test]
    fn device_order_and_back_is_the_identity() {
        let cfg = Config { img_size: 24, ch: 3, n_res: 1, n_dis: 4, ..Config::default() };
        assert_orders_invert(&list(&cfg));
    }
}
