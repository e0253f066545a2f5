//! What `bench step` and `bench infer` leave; one schema for this program and for `benches/torch_step.py`.

use serde::{Deserialize, Serialize};

use crate::bench::ceilings::Ceilings;
use crate::bench::record::Origin;
use crate::nn::Config;
use crate::tape::LowerOptions;
use crate::train::{InferencePlan, Recording, TrainingPlan};
use crate::{Error, Result};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Work {
    /// A training iteration: both discriminator and generator step, over a batch of each domain.
    Step,
    /// A pass of one generator, which makes images and their attention.
    Infer,
}

impl Work {
    /// Its name, as records have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Infer => "infer",
        }
    }
}

/// One program on one device.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Record {
    /// Where it comes from.
    #[serde(flatten)]
    pub origin: Origin,
    /// What it does.
    pub work: Work,
    /// The norms; of torch the form: `official`, `amp`, `best`.
    pub variant: String,
    /// What convolutions multiply: `f32`, `tf32`, `f16`, `bf16`.
    pub precision: String,
    /// Light mode.
    pub light: bool,
    /// Side of the images, pixels.
    pub size: usize,
    /// Channels of the first convolution.
    pub ch: usize,
    /// Residual blocks.
    pub n_res: usize,
    /// Depth of the discriminators.
    pub n_dis: usize,
    /// Images: of a step those of each domain.
    pub batch: usize,
    /// Kernel launches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launches: Option<usize>,
    /// Memory that the plan takes of a device, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned_bytes: Option<u64>,
    /// What a GPU's events measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
    /// Time of the emulator, which is that of no GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emulator: Option<Emulated>,
    /// What the model says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted: Option<Predicted>,
}

/// Time and memory on a GPU.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Measured {
    /// The median by events.
    pub milliseconds: f64,
    /// Of one run after the other with their inputs, by the host's clock: the mean.
    pub wall_milliseconds: f64,
    /// Samples.
    pub samples: usize,
    /// What was free of the GPU's memory before and was not afterwards: weights, activations, kernels, graphs.
    pub peak_bytes: u64,
    /// What this GPU can do, in the same run.
    pub ceilings: Ceilings,
}

/// Time of the emulator.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Emulated {
    /// The median by the host's clock.
    pub seconds: f64,
    /// Samples.
    pub samples: usize,
    /// Threads that it ran blocks on.
    pub threads: usize,
}

/// Time on a GPU that may not be here.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Predicted {
    /// Which GPU, as [`crate::model::machine::find`] takes it.
    pub gpu: String,
    /// Of the whole program.
    pub milliseconds: f64,
}

/// What a program must do, however it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor {
    /// Floating-point operations of the lean schedule.
    pub flops: u64,
    /// A step reads and writes each weight and each moment once; a pass reads one generator's weights.
    pub bytes: u64,
}

impl Record {
    /// The configuration that was run.
    pub fn config(&self) -> Config {
        let Self { light, size, ch, n_res, n_dis, .. } = *self;
        Config { light, img_size: size, ch, n_res, n_dis, ..Config::default() }
    }

    /// Images that one run takes in.
    pub fn images(&self) -> usize {
        match self.work {
            Work::Step => 2 * self.batch,
            Work::Infer => self.batch,
        }
    }

    /// Images a second, from the time by events.
    pub fn images_per_s(&self) -> Option<f64> {
        self.measured.as_ref().map(|m| self.images() as f64 * 1e3 / m.milliseconds)
    }

    /// What any implementation must do.
    ///
    /// # Errors
    /// When the configuration makes no network.
    pub fn floor(&self) -> Result<Floor> {
        let (cfg, options) = (self.config(), LowerOptions::default());
        let failed = |e: Error| e.context("a record's network");
        match self.work {
            Work::Step => {
                let plan = TrainingPlan::new(&cfg, self.batch, 0, Recording::default(), options);
                let plan = plan.map_err(failed)?;
                let memory = plan.memory();
                Ok(Floor { flops: plan.flops(), bytes: 2 * (memory.weights + memory.moments) })
            }
            Work::Infer => {
                let plan = InferencePlan::new(&cfg, 0, self.batch, options).map_err(failed)?;
                let flops = plan.pass.program.launches.iter().map(|l| l.flops).sum();
                // The layout has the weights of both directions.
                Ok(Floor { flops, bytes: plan.model.layout.bytes() / 2 })
            }
        }
    }

    /// Of the floor at the ceilings, the share that the measured time reaches, per cent.
    pub fn share_of_floor(&self, ceilings: &Ceilings) -> Result<Option<f64>> {
        let Some(measured) = &self.measured else { return Ok(None) };
        let Floor { flops, bytes } = self.floor()?;
        Ok(Some(100.0 * ceilings.floor_ms(flops, bytes) / measured.milliseconds))
    }
}

/// The highest ceilings that were measured on the GPU of a record, by whatever program; None for what was not measured.
pub fn ceilings_of(record: &Record, all: &[Record]) -> Option<Ceilings> {
    // PyTorch's version stands behind the GPU's name, and ours its number.
    let gpu = |r: &Record| r.origin.device.split(" (").next().unwrap_or_default().to_owned();
    let mut found: Option<Ceilings> = None;
    for r in all.iter().filter(|r| gpu(r) == gpu(record)) {
        let Some(Measured { ceilings, .. }) = &r.measured else { continue };
        let best = found.get_or_insert_with(|| ceilings.clone());
        best.copy_gb_per_s = best.copy_gb_per_s.max(ceilings.copy_gb_per_s);
        if ceilings.matrix_tflop_per_s > best.matrix_tflop_per_s {
            best.matrix_tflop_per_s = ceilings.matrix_tflop_per_s;
            best.matrix.clone_from(&ceilings.matrix);
        }
    }
    found
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A step of a small network that took a millisecond on an invented GPU.
    pub fn measured(source: &str, device: &str, tflops: f64, matrix: &str) -> Record {
        let ceilings =
            Ceilings { copy_gb_per_s: 2000.0, matrix_tflop_per_s: tflops, matrix: matrix.to_owned() };
        Record {
            origin: Origin {
                source: source.into(),
                device: device.into(),
                date: "2026-01-31".into(),
                commit: "abc".into(),
            },
            work: Work::Step,
            variant: "pad-fused".into(),
            precision: "tf32".into(),
            light: true,
            size: 32,
            ch: 8,
            n_res: 2,
            n_dis: 4,
            batch: 2,
            launches: Some(500),
            planned_bytes: None,
            measured: Some(Measured {
                milliseconds: 1.0,
                wall_milliseconds: 1.25,
                samples: 20,
                peak_bytes: 64 << 20,
                ceilings,
            }),
            emulator: None,
            predicted: Some(Predicted { gpu: "h100".into(), milliseconds: 0.8 }),
        }
    }

    #[test]
    fn a_record_is_held_against_the_best_ceilings_of_its_gpu() {
        let ours = measured("ugatit", "Some GPU (cuda:0)", 1.0, "tf32 tensor core convolution");
        let torch = measured("torch", "Some GPU (torch 2.15.0)", 4.0, "bf16 matmul");
        let other = measured("torch", "Some GPU Ti (torch 2.15.0)", 9.0, "bf16 matmul");
        let ceilings = ceilings_of(&ours, &[ours.clone(), torch, other]).expect("measured");
        assert_eq!((ceilings.matrix_tflop_per_s, &*ceilings.matrix), (4.0, "bf16 matmul"));
        let Floor { flops, bytes } = ours.floor().expect("a network");
        assert!(flops > 500_000_000 && bytes > 5_000_000, "{flops} {bytes}");
        let share = ours.share_of_floor(&ceilings).expect("a network").expect("measured");
        let by_hand = 100.0 * (flops as f64 / 4e12).max(bytes as f64 / 2e12) / 1e-3;
        assert!((share - by_hand).abs() < 1e-6 * by_hand, "{share} {by_hand}");
        assert_eq!(ours.images_per_s(), Some(4000.0));
        let emulated = Record { measured: None, ..ours };
        assert_eq!(ceilings_of(&emulated, std::slice::from_ref(&emulated)), None);
    }

    #[test]
    fn one_generator_is_half_of_the_weights_and_less_than_a_step() {
        let step = measured("ugatit", "Some GPU", 1.0, "");
        let infer = Record { work: Work::Infer, ..step.clone() };
        let (step, infer) = (step.floor().expect("a network"), infer.floor().expect("a network"));
        assert!(infer.flops * 8 < step.flops && infer.bytes * 4 < step.bytes, "{step:?} {infer:?}");
    }

    #[test]
    fn records_survive_json() {
        let record = measured("ugatit", "Some GPU", 1.0, "tf32 tensor core convolution");
        let text = serde_json::to_string(&record).expect("writes");
        assert!(text.contains(r#""source":"ugatit""#) && text.contains(r#""work":"step""#), "{text}");
        assert_eq!(serde_json::from_str::<Record>(&text).expect("reads"), record);
    }
}
