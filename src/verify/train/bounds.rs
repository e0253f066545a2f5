//! Tolerances relaxed to what perturbed runs differ by.

use std::collections::HashMap;

use crate::verify::report::Group;
use crate::verify::tolerance;

/// Relaxes the tolerances of groups to what perturbed runs differ by.
///
/// The worst tensor speaks for all of its group: which value crosses its non-differentiable point is chance, and another run
/// may cross another one. But amplified rounding never comes alone: a tensor whose group is otherwise
/// close is wrong, whatever perturbed runs do.
pub(super) struct Relaxation {
    /// By group, as they were before.
    plain: HashMap<String, Group>,
    /// By group, the largest differences of all perturbed runs so far: of the group, and of its worst tensor.
    seen: HashMap<String, (f64, f64)>,
}

impl Relaxation {
    pub(super) fn of(groups: &[Group]) -> Self {
        Self { plain: groups.iter().map(|g| (g.name.clone(), g.clone())).collect(), seen: HashMap::new() }
    }

    pub(super) fn relax(&mut self, groups: &mut [Group], perturbed: &[Group]) {
        for n in perturbed {
            let (group, tensor) = self.seen.entry(n.name.clone()).or_default();
            // `f64::max` passes over NaN: a run that has one relaxes nothing.
            *group = group.max(n.deviation);
            *tensor = n.checks.iter().map(|c| c.deviation).fold(*tensor, f64::max);
        }
        for g in groups.iter_mut().filter(|g| g.relaxable && !g.passes()) {
            let (Some(&(group, tensor)), Some(plain)) = (self.seen.get(&g.name), self.plain.get(&g.name))
            else {
                continue;
            };
            let most = plain
                .second_worst()
                .map_or(f64::INFINITY, |ratio| (tolerance::SINGLE_TENSOR_LIMIT * ratio).max(1.0));
            let mut lift = |tolerance: &mut f64, before: f64, seen: f64| {
                let relaxed = (tolerance::AMPLIFICATION * seen).min(most * before);
                if relaxed > *tolerance {
                    *tolerance = relaxed;
                    g.relaxed = true;
                }
            };
            lift(&mut g.tolerance, plain.tolerance, group);
            for (c, before) in g.checks.iter_mut().zip(&plain.checks) {
                lift(&mut c.tolerance, before.tolerance, tensor);
            }
        }
    }
}
