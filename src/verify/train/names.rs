//! What the tensors of a recorded run are, by their names in the file.

use crate::train::TensorRole;

/// What a tensor of the file is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// `init/<net>/<key>`.
    Initial { net: String, key: String },
    /// `image/<A|B>/<i>`.
    Image,
    /// An output of iteration 1.
    Output(Output),
    /// `tap/<net>/<module>`.
    Tap { net: String, module: String },
    /// `loss/<term>`.
    Loss { term: String },
    /// `grad_D/..`, `grad_G/..`.
    Gradient { net: String, key: String },
    /// `after<k>/..`, or with `norm` `after<k>_l2/..`.
    After { step: u64, norm: bool, net: String, key: String },
    /// `adam_m/..`, `adam_v/..`.
    Moment { tensor: TensorRole, net: String, key: String },
    /// `lr`.
    Rates,
}

/// One output of a pass of iteration 1.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Output {
    pub(super) pass: Pass,
    pub(super) part: Part,
    pub(super) direction: usize,
    /// Whether it is the second half of the pass's batch.
    pub(super) second: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    First,
    Cycle,
    /// In the D step; 0 global, 1 local.
    DStep(usize),
    GStep(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Main,
    CamLogit,
    Heatmap,
}

impl Kind {
    /// What the name says; None for names this code does not know.
    pub(super) fn of(key: &str) -> Option<Self> {
        let parts: Vec<&str> = key.splitn(3, '/').collect();
        match parts[..] {
            ["lr"] => Some(Self::Rates),
            ["loss", term] => Some(Self::Loss { term: term.to_owned() }),
            [top, net, rest] => {
                let (net, key) = (net.to_owned(), rest.to_owned());
                match top {
                    "init" => Some(Self::Initial { net, key }),
                    "image" => Some(Self::Image),
                    "fwd" => Output::of(&net, rest).map(Self::Output),
                    "tap" => Some(Self::Tap { net, module: key }),
                    "grad_D" | "grad_G" => Some(Self::Gradient { net, key }),
                    "adam_m" => Some(Self::Moment { tensor: TensorRole::FirstMoment, net, key }),
                    "adam_v" => Some(Self::Moment { tensor: TensorRole::SecondMoment, net, key }),
                    _ => {
                        let after = top.strip_prefix("after")?;
                        let (step, norm) = match after.strip_suffix("_l2") {
                            Some(step) => (step, true),
                            None => (after, false),
                        };
                        Some(Self::After { step: step.parse().ok()?, norm, net, key })
                    }
                }
            }
            _ => None,
        }
    }
}

impl Output {
    /// Of `fwd/<pass>/<rest>`.
    pub(super) fn of(pass: &str, rest: &str) -> Option<Self> {
        let part_of = |part: &str, main: &str| match part {
            _ if part == main => Some(Part::Main),
            "cam_logit" => Some(Part::CamLogit),
            "heatmap" => Some(Part::Heatmap),
            _ => None,
        };
        // Direction 0 is genA2B with the discriminators of B. Its first batch is A2B then B2B.
        let generator = match pass {
            "A2B" => Some((Pass::First, 0, false)),
            "B2A" => Some((Pass::First, 1, false)),
            "B2B" => Some((Pass::First, 0, true)),
            "A2A" => Some((Pass::First, 1, true)),
            "B2A2B" => Some((Pass::Cycle, 0, false)),
            "A2B2A" => Some((Pass::Cycle, 1, false)),
            _ => None,
        };
        if let Some((pass, direction, second)) = generator {
            return Some(Self { pass, part: part_of(rest, "image")?, direction, second });
        }
        let (which, part) = rest.split_once('/')?;
        let (kind, net) = which.split_once('_')?;
        let (pair, direction) = match net {
            "GB" => (0, 0),
            "GA" => (0, 1),
            "LB" => (1, 0),
            "LA" => (1, 1),
            _ => return None,
        };
        let (pass, second) = match (pass, kind) {
            ("D", "real") => (Pass::DStep(pair), false),
            ("D", "fake") => (Pass::DStep(pair), true),
            ("G", "fake") => (Pass::GStep(pair), false),
            _ => return None,
        };
        Some(Self { pass, part: part_of(part, "logit")?, direction, second })
    }
}

pub(super) fn is_vector(key: &str) -> bool {
    key.ends_with("weight_u") || key.ends_with("weight_v")
}
