//! The discriminators: spectrally normalised PatchGANs with CAM attention (SPEC section 5).

use super::{Net, Tap};
use crate::tape::{Activation, Spectral, Tape, Value};

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

/// Records one pass of a pair of discriminators of so many layers over `x [D, N, S, S, 3]`.
///
/// The batch holds `passes` passes of the reference one after the other (real and fake): each has its
/// own power iteration, and with it its own 1/sigma.
pub fn discriminator(
    tape: &mut Tape,
    layers: usize,
    net: &Net,
    x: Value,
    passes: usize,
) -> DiscriminatorOutput {
    use Activation::{LeakyRelu, None as Plain};
    let mut taps = Vec::new();
    let iterate = |tape: &mut Tape, module: &str| -> Spectral {
        let of = |what: &str| net.get(&format!("{module}.{what}"));
        tape.power_iterations(of("weight_orig"), of("weight_u"), of("weight_v"), passes)
    };

    let mut x = x;
    for i in 0..layers - 1 {
        let module = format!("model.{}", 1 + 3 * i);
        let spectral = iterate(tape, &module);
        let stride = if i < layers - 2 { 2 } else { 1 };
        let (weight, bias) = (net.get(&format!("{module}.weight_orig")), net.get(&format!("{module}.bias")));
        let padded = tape.pad(x, 1, 1);
        x = tape.conv(&module, padded, weight, Some(bias), Some(spectral), stride, LeakyRelu);
        taps.push(Tap { key: module, value: x, act: LeakyRelu });
    }

    // The logits use the normalised rows, the scaling of the features the plain ones (SPEC section 5).
    let (gap_w, gmp_w) = (net.get("gap_fc.weight_orig"), net.get("gmp_fc.weight_orig"));
    let spectral = [iterate(tape, "gap_fc"), iterate(tape, "gmp_fc")];
    let (gap, gmp) = tape.average_and_max_pool(x);
    let cam_logit = tape.cam_logits(gap, gmp, gap_w, gmp_w, Some(spectral));
    let folded = tape.cam_fold(net.get("conv1x1.weight"), gap_w, gmp_w);
    let attended = tape.conv("conv1x1", x, folded, Some(net.get("conv1x1.bias")), None, 1, LeakyRelu);
    taps.push(Tap { key: "conv1x1".into(), value: attended, act: LeakyRelu });

    let spectral = iterate(tape, "conv");
    let padded = tape.pad(attended, 1, 1);
    let logit = tape.conv("conv", padded, net.get("conv.weight_orig"), None, Some(spectral), 1, Plain);
    taps.push(Tap { key: "conv".into(), value: logit, act: Plain });
    DiscriminatorOutput { logit, cam_logit, attended, taps }
}
