//! The operations as plain data. Forward operations first, then their adjoints.

use super::Value;

/// Element-wise activation, as `kernels/common/common.cuh` numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// The identity.
    None = 0,
    /// max(x, 0).
    Relu = 1,
    /// x for x > 0, else 0.2 x.
    LeakyRelu = 2,
    /// Hyperbolic tangent.
    Tanh = 3,
}

/// Which loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LossKind {
    /// Mean squared error to a constant (LSGAN).
    Mse,
    /// Binary cross-entropy of logits to a constant.
    Bce,
    /// Mean absolute difference to a tensor.
    L1,
}

/// rho, gamma and beta of AdaLIN or ILN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affine {
    /// `[D, 1, 1, 1, C]`.
    pub rho: Value,
    /// `[D, N, 1, 1, C]` (AdaLIN, from the gamma/beta network) or `[D, 1, 1, 1, C]` (ILN, its own).
    pub gamma: Value,
    /// As gamma.
    pub beta: Value,
}

/// What the passes of spectral normalisation left for a layer whose batch they share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spectral {
    /// `[D, passes]`.
    pub inv_sigma: Value,
    /// `[D, passes, 1, 1, CO]`.
    pub pass_u: Value,
    /// `[D, passes, 1, 1, K]`.
    pub pass_v: Value,
}

/// Constants of an Adam optimiser.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamHyper {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// L2 weight decay, added to the gradient.
    pub weight_decay: f64,
}

/// One operation. Shapes are those of its values; see [`super::Tape`]'s methods for each.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Op {
    Pad {
        inp: Value,
        out: Value,
        pad: usize,
        up: usize,
    },
    /// `add` marks an adjoint: the images are added to what is there.
    CopyImages {
        inp: Value,
        inp_first: usize,
        out: Value,
        out_first: usize,
        count: usize,
        swap: bool,
        add: bool,
    },
    Conv {
        inp: Value,
        weight: Value,
        bias: Option<Value>,
        spectral: Option<Spectral>,
        out: Value,
        stride: usize,
        act: Activation,
    },
    Norm {
        inp: Value,
        affine: Option<Affine>,
        act: Activation,
        residual: Option<Value>,
        out: Value,
        stats: Value,
        layer_stats: Option<Value>,
    },
    /// `maximum` holds the maximum and the pixel index it was found at.
    Pool {
        inp: Value,
        average: Value,
        maximum: Option<(Value, Value)>,
    },
    CamFold {
        weight: Value,
        gap_w: Value,
        gmp_w: Value,
        out: Value,
    },
    CamLogits {
        gap: Value,
        gmp: Value,
        gap_w: Value,
        gmp_w: Value,
        spectral: Option<[Spectral; 2]>,
        out: Value,
    },
    Heatmap {
        inp: Value,
        out: Value,
    },
    Linear {
        inp: Value,
        weight: Value,
        out: Value,
        act: Activation,
    },
    Activation {
        inp: Value,
        out: Value,
        act: Activation,
    },
    Loss {
        kind: LossKind,
        inp: Value,
        target: Option<Value>,
        targets: [f32; 2],
        halves: usize,
        terms: Value,
    },
    PowerIteration {
        weight: Value,
        u: Value,
        v: Value,
        spectral: Spectral,
        pass: usize,
    },
    Adam {
        p: Value,
        m: Value,
        v: Value,
        g: Value,
        schedule: Value,
        hyper: AdamHyper,
    },
    ClipRho {
        rho: Value,
        high: f32,
    },

    PadGrad {
        dout: Value,
        dinp: Value,
        pad: usize,
        up: usize,
    },
    ActivationGrad {
        dout: Value,
        out: Value,
        dinp: Value,
        act: Activation,
    },
    ConvInputGrad {
        dpre: Value,
        weight: Value,
        spectral: Option<Spectral>,
        dinp: Value,
        stride: usize,
    },
    /// With spectral norm `out`, `bias` and `act` are the layer's, for the rank-1 correction.
    ConvWeightGrad {
        dpre: Value,
        inp: Value,
        dweight: Value,
        stride: usize,
        spectral: Option<Spectral>,
        out: Value,
        bias: Option<Value>,
        act: Activation,
    },
    BiasGrad {
        dpre: Value,
        dbias: Value,
    },
    NormGrad {
        dout: Value,
        inp: Value,
        stats: Value,
        layer_stats: Option<Value>,
        affine: Option<Affine>,
        daffine: Option<Affine>,
        act: Activation,
        dinp: Value,
    },
    PoolGrad {
        daverage: Value,
        dmaximum: Option<(Value, Value)>,
        dinp: Value,
    },
    CamFoldGrad {
        dfolded: Value,
        weight: Value,
        gap_w: Value,
        gmp_w: Value,
        dweight: Value,
        dgap_w: Value,
        dgmp_w: Value,
    },
    CamLogitsPoolGrad {
        dlogits: Value,
        gap_w: Value,
        gmp_w: Value,
        spectral: Option<[Spectral; 2]>,
        dgap: Value,
        dgmp: Value,
    },
    /// Of one row; `which` 0 for the average, 1 for the maximum.
    CamLogitsWeightGrad {
        dlogits: Value,
        logits: Value,
        pooled: Value,
        spectral: Option<Spectral>,
        which: usize,
        dweight: Value,
    },
    LinearInputGrad {
        dpre: Value,
        weight: Value,
        dinp: Value,
    },
    LinearWeightGrad {
        dpre: Value,
        inp: Value,
        dweight: Value,
    },
    LossGrad {
        kind: LossKind,
        inp: Value,
        target: Option<Value>,
        targets: [f32; 2],
        halves: usize,
        weights: [f32; 2],
        dinp: Value,
    },
}

impl Op {
    /// Values the operation reads and values it writes (a value added to, or updated in place, is in both
    /// roles where it matters: it is listed as written).
    pub fn reads_writes(&self) -> (Vec<Value>, Vec<Value>) {
        use Op::*;
        let spectral_reads =
            |s: &Option<Spectral>| s.map_or(vec![], |s| vec![s.inv_sigma, s.pass_u, s.pass_v]);
        let affine = |a: &Option<Affine>| a.map_or(vec![], |a| vec![a.rho, a.gamma, a.beta]);
        let join = |fixed: &[Value], more: &[Vec<Value>]| {
            fixed.iter().copied().chain(more.iter().flatten().copied()).collect::<Vec<_>>()
        };
        match self {
            Pad { inp, out, .. } => (vec![*inp], vec![*out]),
            CopyImages { inp, out, .. } => (vec![*inp], vec![*out]),
            Conv { inp, weight, bias, spectral, out, .. } => (
                join(&[*inp, *weight], &[bias.iter().copied().collect(), spectral_reads(spectral)]),
                vec![*out],
            ),
            Norm { inp, affine: a, residual, out, stats, layer_stats, .. } => (
                join(&[*inp], &[affine(a), residual.iter().copied().collect()]),
                join(&[*out, *stats], &[layer_stats.iter().copied().collect()]),
            ),
            Pool { inp, average, maximum } => {
                (vec![*inp], join(&[*average], &[maximum.map_or(vec![], |m| vec![m.0, m.1])]))
            }
            CamFold { weight, gap_w, gmp_w, out } => (vec![*weight, *gap_w, *gmp_w], vec![*out]),
            CamLogits { gap, gmp, gap_w, gmp_w, spectral, out } => (
                join(
                    &[*gap, *gmp, *gap_w, *gmp_w],
                    &[spectral.map_or(vec![], |s| s.iter().map(|s| s.inv_sigma).collect())],
                ),
                vec![*out],
            ),
            Heatmap { inp, out } | Activation { inp, out, .. } => (vec![*inp], vec![*out]),
            Linear { inp, weight, out, .. } => (vec![*inp, *weight], vec![*out]),
            Loss { inp, target, terms, .. } => {
                (join(&[*inp], &[target.iter().copied().collect()]), vec![*terms])
            }
            PowerIteration { weight, u, v, spectral, .. } => {
                (vec![*weight, *u], join(&[*u, *v], &[spectral_reads(&Some(*spectral))]))
            }
            Adam { p, m, v, g, schedule, .. } => (vec![*p, *m, *v, *g, *schedule], vec![*p, *m, *v]),
            ClipRho { rho, .. } => (vec![*rho], vec![*rho]),
            PadGrad { dout, dinp, .. } => (vec![*dout], vec![*dinp]),
            ActivationGrad { dout, out, dinp, .. } => (vec![*dout, *out], vec![*dinp]),
            ConvInputGrad { dpre, weight, spectral, dinp, .. } => {
                (join(&[*dpre, *weight], &[spectral_reads(spectral)]), vec![*dinp])
            }
            ConvWeightGrad { dpre, inp, dweight, spectral, out, bias, .. } => {
                let extra = if spectral.is_some() {
                    join(&[*out], &[bias.iter().copied().collect(), spectral_reads(spectral)])
                } else {
                    vec![]
                };
                (join(&[*dpre, *inp], &[extra]), vec![*dweight])
            }
            BiasGrad { dpre, dbias } => (vec![*dpre], vec![*dbias]),
            NormGrad { dout, inp, stats, layer_stats, affine: a, daffine, dinp, .. } => (
                join(&[*dout, *inp, *stats], &[layer_stats.iter().copied().collect(), affine(a)]),
                join(&[*dinp], &[affine(daffine)]),
            ),
            PoolGrad { daverage, dmaximum, dinp } => {
                (join(&[*daverage], &[dmaximum.map_or(vec![], |m| vec![m.0, m.1])]), vec![*dinp])
            }
            CamFoldGrad { dfolded, weight, gap_w, gmp_w, dweight, dgap_w, dgmp_w } => {
                (vec![*dfolded, *weight, *gap_w, *gmp_w], vec![*dweight, *dgap_w, *dgmp_w])
            }
            CamLogitsPoolGrad { dlogits, gap_w, gmp_w, spectral, dgap, dgmp } => (
                join(
                    &[*dlogits, *gap_w, *gmp_w],
                    &[spectral.map_or(vec![], |s| s.iter().map(|s| s.inv_sigma).collect())],
                ),
                vec![*dgap, *dgmp],
            ),
            CamLogitsWeightGrad { dlogits, logits, pooled, spectral, dweight, .. } => {
                (join(&[*dlogits, *logits, *pooled], &[spectral_reads(spectral)]), vec![*dweight])
            }
            LinearInputGrad { dpre, weight, dinp } => (vec![*dpre, *weight], vec![*dinp]),
            LinearWeightGrad { dpre, inp, dweight } => (vec![*dpre, *inp], vec![*dweight]),
            LossGrad { inp, target, dinp, .. } => {
                (join(&[*inp], &[target.iter().copied().collect()]), vec![*dinp])
            }
        }
    }
}
