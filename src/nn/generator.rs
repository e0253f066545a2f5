//! The generator: encoder, CAM attention, gamma/beta network, AdaLIN decoder (SPEC sections 1 to 4).

use super::{Config, Net, Tap};
use crate::tape::{Activation, Affine, Tape, Value};

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
pub fn generator(tape: &mut Tape, cfg: &Config, net: &Net, x: Value) -> GeneratorOutput {
    use Activation::{None as Plain, Relu, Tanh};
    let mut taps = Vec::new();
    let mut conv =
        |tape: &mut Tape, key: &str, x: Value, pad: usize, up: usize, stride: usize, act: Activation| {
            let padded = tape.pad(x, pad, up);
            let y = tape.conv(key, padded, net.get(&format!("{key}.weight")), None, None, stride, act);
            taps.push(Tap { key: key.to_owned(), value: y, act });
            y
        };

    let mut x = x;
    for (key, pad, stride) in [("DownBlock.1", 3, 1), ("DownBlock.5", 1, 2), ("DownBlock.9", 1, 2)] {
        let y = conv(tape, key, x, pad, 1, stride, Plain);
        x = tape.norm(&format!("{key}.norm"), y, None, Relu, None);
    }
    for i in 0..cfg.n_res {
        let block = format!("DownBlock.{}.conv_block", 12 + i);
        let y = conv(tape, &format!("{block}.1"), x, 1, 1, 1, Plain);
        let y = tape.norm(&format!("{block}.1.norm"), y, None, Relu, None);
        let y = conv(tape, &format!("{block}.5"), y, 1, 1, 1, Plain);
        x = tape.norm(&format!("{block}.5.norm"), y, None, Plain, Some(x));
    }

    let (gap_w, gmp_w) = (net.get("gap_fc.weight"), net.get("gmp_fc.weight"));
    let (gap, gmp) = tape.average_and_max_pool(x);
    let cam_logit = tape.cam_logits(gap, gmp, gap_w, gmp_w, None);
    let folded = tape.cam_fold(net.get("conv1x1.weight"), gap_w, gmp_w);
    let attended = tape.conv("conv1x1", x, folded, Some(net.get("conv1x1.bias")), None, 1, Relu);

    let style = if cfg.light { tape.average_pool("style", attended) } else { attended };
    let hidden = tape.linear("FC.0", style, net.get("FC.0.weight"), Relu);
    let style = tape.linear("FC.2", hidden, net.get("FC.2.weight"), Relu);
    let gamma = tape.linear("gamma", style, net.get("gamma.weight"), Plain);
    let beta = tape.linear("beta", style, net.get("beta.weight"), Plain);

    let mut x = attended;
    let mut norms = Vec::new();
    for i in 1..=cfg.n_res {
        let block = format!("UpBlock1_{i}");
        let adalin = |j: usize| Affine { rho: net.get(&format!("{block}.norm{j}.rho")), gamma, beta };
        let y = conv(tape, &format!("{block}.conv1"), x, 1, 1, 1, Plain);
        let y = tape.norm(&format!("{block}.norm1"), y, Some(adalin(1)), Relu, None);
        norms.push(Tap { key: format!("{block}.norm1"), value: y, act: Relu });
        let y = conv(tape, &format!("{block}.conv2"), y, 1, 1, 1, Plain);
        x = tape.norm(&format!("{block}.norm2"), y, Some(adalin(2)), Plain, Some(x));
    }
    for (key, norm) in [("UpBlock2.2", "UpBlock2.3"), ("UpBlock2.7", "UpBlock2.8")] {
        let own = |what: &str| net.get(&format!("{norm}.{what}"));
        let affine = Affine { rho: own("rho"), gamma: own("gamma"), beta: own("beta") };
        let y = conv(tape, key, x, 1, 2, 1, Plain);
        x = tape.norm(norm, y, Some(affine), Relu, None);
        norms.push(Tap { key: norm.to_owned(), value: x, act: Relu });
    }
    let image = conv(tape, "UpBlock2.11", x, 3, 1, 1, Tanh);

    let tap = |key: &str, value: Value, act| Tap { key: key.to_owned(), value, act };
    taps.extend([
        tap("conv1x1", attended, Relu),
        tap("FC.0", hidden, Relu),
        tap("FC.2", style, Relu),
        tap("gamma", gamma, Plain),
        tap("beta", beta, Plain),
    ]);
    taps.extend(norms);
    GeneratorOutput { image, cam_logit, attended, taps }
}
