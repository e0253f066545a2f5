//! Single operations: each case is recorded on a tape of its own, exactly as the networks record it,
//! differentiated and run. Image operations go through the functions the images go through.

mod adam;
mod cam;
mod harness;
mod images;
mod layers;
mod norm;
mod spectral;

use super::golden::Golden;
use super::report::{FileReport, Group};
use crate::Result;
use crate::device::executable::DeviceHandle;
use crate::tape::{Activation, LossKind};
use harness::{Case, Job, broken};

/// The cases of a file, read and checked.
pub(super) struct Cases(Vec<Job>);

impl Cases {
    /// Reads all cases, so that an unusable file is found before anything runs.
    pub(super) fn read(golden: &Golden) -> Result<Self> {
        let cases = golden.json("cases")?;
        let cases = cases.as_array().ok_or_else(|| golden.error("'cases' in its metadata is no list"))?;
        let jobs = cases.iter().enumerate().map(|(i, params)| {
            let name = params["name"].as_str().map(str::to_owned);
            let name = name.ok_or_else(|| golden.error(format!("case {i} has no name")))?;
            job(&Case { golden, name, params })
        });
        Ok(Self(jobs.collect::<Result<_>>()?))
    }

    /// Runs them all.
    pub(super) fn run(self, golden: &Golden, device: &DeviceHandle) -> FileReport {
        let started = std::time::Instant::now();
        let what = format!("{} cases on {}", self.0.len(), device.lock().describe());
        let groups = self
            .0
            .into_iter()
            .map(|job| {
                let checks = (job.run)(device).unwrap_or_else(|e| vec![broken("run", e.message())]);
                let worst = checks.iter().map(|c| (c.deviation, c.tolerance));
                // The number for the whole case is that of its worst tensor.
                let (deviation, tolerance) = worst
                    .reduce(|a, b| if b.0 / b.1 <= a.0 / a.1 || b.0 == 0.0 { a } else { b })
                    .unwrap_or((f64::NAN, 0.0));
                Group::new(job.name, job.measure, deviation, tolerance, false, checks)
            })
            .collect();
        FileReport {
            file: golden.name().to_owned(),
            kind: "operations",
            what,
            notes: Vec::new(),
            groups,
            seconds: started.elapsed().as_secs_f64(),
        }
    }
}

/// Reads and checks what the case's operation needs.
fn job(case: &Case) -> Result<Job> {
    let op = case.params["op"].as_str().ok_or_else(|| case.bad("it names no operation"))?;
    let bench = match op {
        "conv" => case.conv()?,
        "adalin" | "iln" => case.mixed_norm(op == "adalin")?,
        "instance_norm" => case.instance_norm()?,
        "global_avg_pool" | "global_max_pool" => case.pool(op == "global_max_pool")?,
        "cam" => match case.params["kind"].as_str() {
            Some("generator") => case.cam(false)?,
            Some("discriminator") => case.cam(true)?,
            kind => return Ok(case.unknown("attention", kind)),
        },
        "upsample" => case.pad(0, 2)?,
        "reflect_pad" => case.pad(case.number("p")?, 1)?,
        "linear" => case.linear()?,
        "activation" => match case.params["kind"].as_str() {
            Some("relu") => case.activation(Activation::Relu)?,
            Some("leaky_relu") => case.activation(Activation::LeakyRelu)?,
            Some("tanh") => case.activation(Activation::Tanh)?,
            kind => return Ok(case.unknown("activation", kind)),
        },
        "loss" => match case.params["kind"].as_str() {
            Some("mse") => case.loss(LossKind::Mse)?,
            Some("bce") => case.loss(LossKind::Bce)?,
            Some("l1") => case.loss(LossKind::L1)?,
            kind => return Ok(case.unknown("loss", kind)),
        },
        "spectral_norm" => return case.spectral_norm(),
        "adam" => return case.adam(),
        "resize" => return case.resize(),
        "heatmap" => return case.heatmap(),
        _ => return Ok(case.unknown("operation", Some(op))),
    };
    let name = case.name.clone();
    Ok(case.ready("rel. L2", move |device| bench.check(&name, device)))
}
