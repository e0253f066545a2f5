//! Groups of deviations: what is compared with what, and in which measure.

use std::collections::BTreeMap;

use super::names::{Kind, Part, Pass, is_vector};
use super::recorded::{Recorded, Values, numbers};
use crate::Result;
use crate::train::TensorRole;
use crate::verify::golden::Golden;
use crate::verify::report::{Check, Group};
use crate::verify::tolerance::{self, Bounds, Difference};

impl Recorded {
    /// The groups of everything that both sides have.
    pub(super) fn compare(&self, values: &Values, reference: &Values) -> Vec<Group> {
        let mut groups: BTreeMap<Order, Members> = BTreeMap::new();
        for (name, reference) in reference {
            let Some(value) = values.get(name) else { continue };
            let Some(kind) = Kind::of(name) else { continue };
            let mut add = |order: Order| groups.entry(order).or_default().push((name, value, reference));
            match kind {
                Kind::Loss { .. } => (1..=self.steps).for_each(|step| add(Order::Loss(step))),
                Kind::After { step, norm: false, ref key, .. } if !is_vector(key) => {
                    add(Order::After(step, State::Weights));
                    add(Order::After(step, State::Mismatched));
                }
                kind => add(Order::of(&kind)),
            }
        }
        groups.into_iter().map(|(order, members)| self.group(order, &members)).collect()
    }

    pub(super) fn group(&self, order: Order, members: &Members) -> Group {
        match order {
            Order::Loss(step) => self.losses(step, members),
            Order::After(step, State::Mismatched) => self.mismatched(step, members),
            Order::After(step, State::Norms) => self.norms(step, members),
            _ => self.relative(order, members),
        }
    }

    /// Relative L2 of all together, and of each tensor.
    pub(super) fn relative(&self, order: Order, members: &Members) -> Group {
        let differences: Vec<Difference> = members.iter().map(|(_, a, b)| Difference::of(a, b)).collect();
        let mut all = Difference::default();
        differences.iter().for_each(|d| all.join(*d));
        let mut bounds = order.bounds();
        if let Order::After(step, State::Weights) = order {
            // A share of the update budget, and the rounding of each step. Single tensors are judged by
            // how many elements are mismatched.
            let budget =
                tolerance::UPDATE_SHARE * self.update_budget(step) / all.rms().max(f64::MIN_POSITIVE);
            bounds.group = budget + f64::from(f32::EPSILON) * (step as f64).sqrt();
            bounds.tensor = f64::INFINITY;
        }
        let checks = members.iter().zip(&differences).map(|((name, ..), d)| {
            // A tensor that is nothing but rounding beside its group is measured by the group.
            let floor = 1e-6 * all.rms() * (d.count as f64).sqrt();
            Check::new(*name, d.relative(floor), bounds.tensor, d.max_abs, d.count)
        });
        let checks = if bounds.tensor.is_finite() {
            checks.collect()
        } else {
            let check = Check::new("all weights", all.relative(0.0), bounds.group, all.max_abs, all.count);
            vec![check]
        };
        Group::new(order.name(), "rel. L2", all.relative(0.0), bounds.group, bounds.relaxable, checks)
    }

    /// Relative difference of each term in one step.
    pub(super) fn losses(&self, step: u64, members: &Members) -> Group {
        let bounds = tolerance::LOSS;
        let at = step as usize - 1;
        let checks: Vec<Check> = members
            .iter()
            .map(|(name, a, b)| {
                let (a, b) = (a.get(at).copied().unwrap_or(f32::NAN), b.get(at).copied().unwrap_or(f32::NAN));
                let d = Difference::of(&[a], &[b]);
                Check::new(*name, d.relative(tolerance::LOSS_FLOOR), bounds.tensor, d.max_abs, 1)
            })
            .collect();
        Group::new(
            Order::Loss(step).name(),
            "relative",
            largest(&checks),
            bounds.group,
            bounds.relaxable,
            checks,
        )
    }

    /// Share of the weights that are mismatched.
    pub(super) fn mismatched(&self, step: u64, members: &Members) -> Group {
        let bounds = tolerance::MISMATCHED;
        let budget = tolerance::UPDATE_SHARE * self.update_budget(step);
        let (mut mismatched_all, mut count_all) = (0, 0);
        let checks = members
            .iter()
            .map(|(name, a, b)| {
                let mismatched = tolerance::count_mismatched(a, b, budget, step);
                mismatched_all += mismatched;
                count_all += b.len();
                Check::new(
                    *name,
                    tolerance::share_mismatched(mismatched, b.len()),
                    bounds.tensor,
                    Difference::of(a, b).max_abs,
                    b.len(),
                )
            })
            .collect();
        Group::new(
            Order::After(step, State::Mismatched).name(),
            "mismatched share",
            mismatched_all as f64 / count_all.max(1) as f64,
            bounds.group,
            bounds.relaxable,
            checks,
        )
    }

    /// Norms of tensors: what moves none of their elements by more than may be moves the norm no more.
    pub(super) fn norms(&self, step: u64, members: &Members) -> Group {
        let bounds = tolerance::NORM;
        let checks: Vec<Check> = members
            .iter()
            .map(|(name, a, b)| {
                // [norm] in the file, [norm, elements] from the run.
                let n = f64::from(a.get(1).or(b.get(1)).copied().unwrap_or(1.0));
                let d = Difference::of(&a[..1], &b[..1]);
                let budget = if is_vector(name) {
                    0.0
                } else {
                    tolerance::UPDATE_SHARE * self.update_budget(step) * n.sqrt()
                };
                let norm = f64::from(b[0]).abs().max(f64::MIN_POSITIVE);
                Check::new(
                    *name,
                    d.relative(1e-3 * n.sqrt()),
                    bounds.tensor + budget / norm.max(1e-3 * n.sqrt()),
                    d.max_abs,
                    n as usize,
                )
            })
            .collect();
        let worst = checks.iter().reduce(|a, b| {
            let ahead = b.deviation * a.tolerance <= a.deviation * b.tolerance;
            if ahead { a } else { b }
        });
        let (deviation, tolerance) = worst.map_or((0.0, 0.0), |c| (c.deviation, c.tolerance));
        Group::new(
            Order::After(step, State::Norms).name(),
            "relative",
            deviation,
            tolerance,
            bounds.relaxable,
            checks,
        )
    }

    /// Losses that are both in a tensor and in the metadata must be the same ones.
    pub(super) fn losses_twice(&self, golden: &Golden) -> Result<Option<Group>> {
        let mut checks = Vec::new();
        for (term, list) in self.metadata_losses(golden)? {
            let key = format!("loss/{term}");
            if golden.has(&key) {
                let list: Vec<f32> = list.into_iter().map(|x| x as f32).collect();
                let d = Difference::of(&list, &golden.floats(&key)?);
                checks.push(Check::new(
                    format!("losses.{term} in the metadata"),
                    d.relative(0.0),
                    tolerance::RATE_F32,
                    d.max_abs,
                    d.count,
                ));
            }
        }
        Ok((!checks.is_empty()).then(|| {
            Group::new("loss twice", "rel. L2", largest(&checks), tolerance::RATE_F32, false, checks)
        }))
    }

    /// The learning rates, in the tensor and in the metadata.
    pub(super) fn rates(&self, golden: &Golden) -> Result<Option<Group>> {
        let mut checks = Vec::new();
        let mut add = |name: &str, step: usize, recorded: f64, tolerance: f64| {
            let error = (self.cfg.lr_at(step as u64 + 1) - recorded).abs();
            checks.push(Check::new(
                format!("{name} of step {}", step + 1),
                tolerance::relative(error, self.cfg.lr, 0.0),
                tolerance,
                error,
                1,
            ));
        };
        if golden.has("lr") {
            let rates = golden.floats("lr")?;
            rates.iter().enumerate().for_each(|(i, &r)| add("lr", i, f64::from(r), tolerance::RATE_F32));
        }
        if golden.has_metadata("lr") {
            for (i, rate) in numbers(golden, "lr", &golden.json("lr")?, self.steps)?.into_iter().enumerate() {
                add("lr in the metadata", i, rate, tolerance::RATE);
            }
        }
        if checks.is_empty() {
            return Ok(None);
        }
        let deviation = largest(&checks);
        let tolerance = checks.iter().map(|c| c.tolerance).fold(0.0, f64::max);
        Ok(Some(Group::new("lr", "relative", deviation, tolerance, false, checks)))
    }
}

/// Tensors of one group: name, value, reference.
pub(super) type Members<'v> = Vec<(&'v String, &'v Vec<f32>, &'v Vec<f32>)>;

/// The largest deviation; NaN if one is.
pub(super) fn largest(checks: &[Check]) -> f64 {
    checks.iter().map(|c| c.deviation).fold(0.0, |a: f64, b| if b <= a { a } else { b })
}

/// Groups in the order of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Order {
    Image,
    CamLogit,
    Heatmap,
    DStep,
    GStep,
    TapGenerator,
    TapDiscriminator,
    Loss(u64),
    GradD,
    GradG,
    After(u64, State),
    FirstMoments,
    SecondMoments,
    Rates,
}

/// Groups of the state after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    Weights,
    Mismatched,
    Vectors,
    Norms,
}

impl Order {
    pub(super) fn of(kind: &Kind) -> Self {
        match kind {
            Kind::Output(o) => match (o.pass, o.part) {
                (Pass::First | Pass::Cycle, Part::Main) => Self::Image,
                (Pass::First | Pass::Cycle, Part::CamLogit) => Self::CamLogit,
                (Pass::First | Pass::Cycle, Part::Heatmap) => Self::Heatmap,
                (Pass::DStep(_), _) => Self::DStep,
                (Pass::GStep(_), _) => Self::GStep,
            },
            Kind::Tap { net, .. } if net.starts_with("gen") => Self::TapGenerator,
            Kind::Tap { .. } => Self::TapDiscriminator,
            Kind::Gradient { net, .. } if net.starts_with("gen") => Self::GradG,
            Kind::Gradient { .. } => Self::GradD,
            Kind::After { step, norm: true, .. } => Self::After(*step, State::Norms),
            Kind::After { step, key, .. } if is_vector(key) => Self::After(*step, State::Vectors),
            Kind::After { step, .. } => Self::After(*step, State::Weights),
            Kind::Moment { tensor: TensorRole::FirstMoment, .. } => Self::FirstMoments,
            Kind::Moment { .. } => Self::SecondMoments,
            Kind::Loss { .. } => Self::Loss(1),
            Kind::Rates | Kind::Initial { .. } | Kind::Image => Self::Rates,
        }
    }

    pub(super) fn name(self) -> String {
        match self {
            Self::Image => "fwd/image".into(),
            Self::CamLogit => "fwd/cam_logit".into(),
            Self::Heatmap => "fwd/heatmap".into(),
            Self::DStep => "fwd/D".into(),
            Self::GStep => "fwd/G".into(),
            Self::TapGenerator => "tap/generator".into(),
            Self::TapDiscriminator => "tap/discriminator".into(),
            Self::Loss(step) => format!("loss/{step}"),
            Self::GradD => "grad_D".into(),
            Self::GradG => "grad_G".into(),
            Self::After(step, State::Weights) => format!("after{step}"),
            Self::After(step, State::Mismatched) => format!("after{step}/mismatched"),
            Self::After(step, State::Vectors) => format!("after{step}/uv"),
            Self::After(step, State::Norms) => format!("after{step}_l2"),
            Self::FirstMoments => "adam_m".into(),
            Self::SecondMoments => "adam_v".into(),
            Self::Rates => "lr".into(),
        }
    }

    pub(super) fn bounds(self) -> Bounds {
        match self {
            Self::Image => tolerance::IMAGE,
            Self::CamLogit => tolerance::CAM_LOGIT,
            Self::Heatmap => tolerance::HEATMAP,
            Self::DStep => tolerance::D_STEP,
            Self::GStep => tolerance::G_STEP,
            Self::TapGenerator | Self::TapDiscriminator => tolerance::TAP,
            Self::Loss(_) => tolerance::LOSS,
            Self::GradD => tolerance::GRAD_D,
            Self::GradG => tolerance::GRAD_G,
            Self::After(_, State::Weights) | Self::After(_, State::Mismatched) => tolerance::MISMATCHED,
            Self::After(_, State::Norms) | Self::Rates => tolerance::NORM,
            Self::After(_, State::Vectors) => tolerance::VECTORS,
            Self::FirstMoments | Self::SecondMoments => tolerance::MOMENTS,
        }
    }
}
