//! Training runs: the recorded run is repeated step by step and everything the file has is compared.

mod bounds;
mod compare;
mod names;
mod recorded;
mod replay;

pub(super) use recorded::Recorded;

use bounds::Relaxation;

use super::golden::Golden;
use super::report::{FileReport, Group};
use super::tolerance;
use crate::Result;
use crate::device::executable::DeviceHandle;
use crate::train::{Recording, Trainer};

impl Recorded {
    /// Repeats the run on a device and compares.
    pub(in crate::verify) fn run(&self, golden: &Golden, device: &DeviceHandle) -> Result<FileReport> {
        let started = std::time::Instant::now();
        let what = self.what(&device.lock().describe());
        let mut notes = self.notes.clone();
        let recording = Recording { outputs: true, taps: self.taps };
        let mut trainer = Trainer::new(device, &self.cfg, self.batch, 0, recording)?;
        let values = self.replay(golden, &mut trainer, None)?;
        let reference = self.reference(golden, &trainer)?;
        let missing = reference.keys().filter(|k| !values.contains_key(*k)).count();
        if missing > 0 {
            notes.push(format!("{missing} layer outputs are left out: fused kernels never write them"));
        }
        let mut groups = self.compare(&values, &reference);
        groups.extend(self.rates(golden)?);
        groups.extend(self.losses_twice(golden)?);
        // Rounding is amplified next to a non-differentiable point, and by Adam where a gradient is close to 0. By
        // how much is measured by runs with perturbed inputs.
        if groups.iter().filter(|g| !g.passes()).all(|g| g.relaxable) {
            let mut relaxation = Relaxation::of(&groups);
            for perturbation in tolerance::PERTURBATIONS {
                if groups.iter().all(Group::passes) {
                    break;
                }
                let perturbed = self.replay(golden, &mut trainer, Some(perturbation))?;
                relaxation.relax(&mut groups, &self.compare(&perturbed, &values));
            }
        }
        Ok(FileReport {
            file: golden.name().to_owned(),
            kind: "training run",
            what,
            notes,
            groups,
            seconds: started.elapsed().as_secs_f64(),
        })
    }
}
