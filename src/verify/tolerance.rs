//! How far a quantity may deviate. The reasons are in the documentation of [`super`].

/// An element of a weight is mismatched when it deviates by more than this share of the update budget: the sum
/// of the learning rates, which is how far Adam can have moved it.
pub const UPDATE_SHARE: f64 = 0.004;

/// Where rounding is amplified, a run may deviate by this many times what perturbed runs deviate by.
pub const AMPLIFICATION: f64 = 4.0;

/// Inputs of perturbed runs differ by up to this share of their value: at first by about a unit in the last place,
/// which changes every rounding, then by more, until a nearby non-differentiable point is crossed.
pub const PERTURBATIONS: [f32; 4] = [2.5e-7, 5e-7, 1e-6, 4e-6];

/// A bound is never relaxed beyond this many times what the second worst tensor of its group would need.
pub const SINGLE_TENSOR_LIMIT: f64 = 20.0;

/// Losses below this are compared as if they were this large.
pub const LOSS_FLOOR: f64 = 0.1;

/// Bounds of one group of tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// For all elements of the group together.
    pub group: f64,
    /// For each tensor on its own.
    pub tensor: f64,
    /// Whether amplified rounding may relax them.
    pub relaxable: bool,
}

impl Bounds {
    const fn fixed(group: f64) -> Self {
        Self { group, tensor: 10.0 * group, relaxable: false }
    }

    const fn relaxable(group: f64) -> Self {
        Self { group, tensor: 10.0 * group, relaxable: true }
    }
}

/// Images the generators make.
pub const IMAGE: Bounds = Bounds::fixed(5e-5);
/// CAM logits of the generators.
pub const CAM_LOGIT: Bounds = Bounds::fixed(3e-5);
/// Heatmaps of the generators.
pub const HEATMAP: Bounds = Bounds::fixed(2e-5);
/// Discriminators in the D step.
pub const D_STEP: Bounds = Bounds::fixed(1e-5);
/// Discriminators in the G step, after their update.
pub const G_STEP: Bounds = Bounds::relaxable(1e-5);
/// Outputs of single layers.
pub const TAP: Bounds = Bounds::fixed(1e-5);
/// Gradients of the discriminators.
pub const GRAD_D: Bounds = Bounds::relaxable(1e-5);
/// Gradients of the generators.
pub const GRAD_G: Bounds = Bounds::relaxable(2e-5);
/// Loss terms.
pub const LOSS: Bounds = Bounds { group: 5e-6, tensor: 5e-6, relaxable: true };
/// Spectral vectors.
pub const VECTORS: Bounds = Bounds::relaxable(5e-6);
/// Adam's moments.
pub const MOMENTS: Bounds = Bounds::relaxable(2e-5);
/// Share of the weights that may be mismatched: of all, and of one tensor beyond [`MISMATCHES_NOT_COUNTED`] elements.
pub const MISMATCHED: Bounds = Bounds { group: 0.01, tensor: 0.1, relaxable: true };
/// Norms of tensors, beyond [`UPDATE_SHARE`] of the update budget.
pub const NORM: Bounds = Bounds { group: 1e-6, tensor: 1e-6, relaxable: true };
/// Single operations, times the condition of the input where an operation standardises it.
pub const OP: f64 = 5e-6;
/// Learning rate of a step, against the initial one.
pub const RATE: f64 = 1e-12;
/// The same where the file stores it in single precision.
pub const RATE_F32: f64 = 2e-7;

/// Elements of a tensor that may be mismatched without being counted, but at most half of it.
pub const MISMATCHES_NOT_COUNTED: usize = 2;

/// What two lists of numbers differ by.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Difference {
    /// Sum of the squared differences.
    pub error2: f64,
    /// Sum of the reference's squares.
    pub norm2: f64,
    /// The largest difference.
    pub max_abs: f64,
    /// How many.
    pub count: usize,
}

impl Difference {
    /// Of `run` from `reference`. Lists of unequal length differ by NaN.
    pub fn of(run: &[f32], reference: &[f32]) -> Self {
        let mut d = Self { count: reference.len(), ..Self::default() };
        if run.len() != reference.len() {
            return Self { error2: f64::NAN, max_abs: f64::NAN, ..d };
        }
        for (&a, &b) in run.iter().zip(reference) {
            let (a, b) = (f64::from(a), f64::from(b));
            let e = (a - b).abs();
            d.error2 += e * e;
            d.norm2 += b * b;
            if e.is_nan() || e > d.max_abs {
                d.max_abs = e;
            }
        }
        d
    }

    /// Adds another list's.
    pub fn join(&mut self, other: Self) {
        self.error2 += other.error2;
        self.norm2 += other.norm2;
        if other.max_abs.is_nan() || other.max_abs > self.max_abs {
            self.max_abs = other.max_abs;
        }
        self.count += other.count;
    }

    /// Relative L2: |run - reference| / max(|reference|, floor). 0 where nothing differs.
    pub fn relative(&self, floor: f64) -> f64 {
        relative(self.error2.sqrt(), self.norm2.sqrt(), floor)
    }

    /// Root mean square of the reference.
    pub fn rms(&self) -> f64 {
        (self.norm2 / self.count.max(1) as f64).sqrt()
    }
}

/// error / max(reference, floor), 0 where there is no error even if both are 0; NaN stays.
pub fn relative(error: f64, reference: f64, floor: f64) -> f64 {
    if error == 0.0 && !reference.is_nan() {
        0.0
    } else {
        error / reference.abs().max(floor).max(f64::MIN_POSITIVE)
    }
}

/// How many elements deviate by more than `budget` plus the rounding of so many additions to them.
pub fn count_mismatched(run: &[f32], reference: &[f32], budget: f64, steps: u64) -> usize {
    if run.len() != reference.len() {
        return reference.len().max(1);
    }
    let rounding = f64::from(f32::EPSILON) * (steps as f64).sqrt();
    run.iter()
        .zip(reference)
        .filter(|&(&a, &b)| {
            let (a, b) = (f64::from(a), f64::from(b));
            let near = (a - b).abs() <= budget + rounding * b.abs();
            !near
        })
        .count()
}

/// Share of a tensor of n elements that is mismatched, without the few that always may be.
pub fn share_mismatched(mismatched: usize, n: usize) -> f64 {
    mismatched.saturating_sub(MISMATCHES_NOT_COUNTED.min(n / 2)) as f64 / n.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_relative_to_the_reference() {
        let d = Difference::of(&[3.0, 5.0], &[3.0, 4.0]);
        assert_eq!((d.relative(0.0), d.max_abs), (0.2, 1.0));
        assert_eq!(d.relative(10.0), 0.1);
        assert_eq!(Difference::of(&[0.0], &[0.0]).relative(0.0), 0.0);
        assert!(Difference::of(&[1e-30], &[0.0]).relative(0.0) > 1e100);
        assert_eq!(Difference::of(&[], &[]).relative(0.0), 0.0);
    }

    #[test]
    fn nan_never_passes() {
        for (a, b) in [(f32::NAN, 1.0), (1.0, f32::NAN), (f32::NAN, f32::NAN), (f32::INFINITY, f32::INFINITY)]
        {
            let holds = Difference::of(&[1.0, a, 1.0], &[1.0, b, 1.0]).relative(1.0) <= 1e30;
            assert!(!holds, "{a} for {b}");
            let d = Difference::of(&[1.0, a, 1.0], &[1.0, b, 1.0]);
            assert!(d.max_abs.is_nan());
            assert_eq!(count_mismatched(&[1.0, a, 1.0], &[1.0, b, 1.0], 1e30, 1), 1);
        }
        let mut all = Difference::of(&[f32::NAN], &[1.0]);
        all.join(Difference::of(&[1.0], &[1.0]));
        assert!(all.max_abs.is_nan() && all.relative(0.0).is_nan());
        assert!(Difference::of(&[1.0], &[1.0, 2.0]).relative(0.0).is_nan());
    }

    #[test]
    fn few_elements_of_a_tensor_may_be_off() {
        assert_eq!(
            [(2, 100), (3, 100), (100, 100), (1, 2), (2, 2), (1, 1), (3, 3)]
                .map(|(k, n)| share_mismatched(k, n)),
            [0.0, 0.01, 0.98, 0.0, 0.5, 1.0, 2.0 / 3.0]
        );
        assert_eq!(count_mismatched(&[1.0, 1.1, 0.9], &[1.0; 3], 0.05, 1), 2);
        assert_eq!(count_mismatched(&[1.0 + 2e-7], &[1.0], 0.0, 1), 1);
        assert_eq!(count_mismatched(&[1.0 + 2e-7], &[1.0], 0.0, 4), 0);
    }
}
