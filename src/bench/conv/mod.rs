//! Every convolution of a training step, pass by pass and variant by variant. On a GPU time by events, compared with double
//! precision before it is shown; on the emulator what one block of each launch does. Predicted time stands beside.

pub mod case;
pub mod record;
mod table;

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;

use case::Case;
use rayon::prelude::*;

use record::{Measured, Predicted, Record};

use super::ceilings::Ceilings;
use super::place::Place;
use super::record::{read_all, write};
use super::timing::time_program;
use crate::device::Target;
use crate::device::executable::{DeviceHandle, LaunchMode};
use crate::device::select::Choice;
use crate::model::{self, Machine};
use crate::nn::Config;
use crate::tape::{ConvLayer, ConvPass, ConvVariant};
use crate::train::{Model, Recording, record_step};
use crate::{Error, Result};

/// Microseconds that the repeats of a pass should fill, so that the ends of the measured time do not matter.
const FILLED: f64 = 1500.0;
/// Operations up to which the emulator runs a pass to compare it with double precision, not only a block of it.
const COMPARED: u64 = 50_000_000;

/// What to do. Empty lists mean all.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The networks whose convolutions are taken.
    pub cfg: Config,
    /// Images of each domain in the step; 0 for 1.
    pub batch: usize,
    /// Passes.
    pub pass: Vec<ConvPass>,
    /// Variants.
    pub variant: Vec<ConvVariant>,
    /// What to measure on.
    pub device: Option<Choice>,
    /// The GPU to predict for; None: the GPU at hand where there are constants of it, on the emulator an H100.
    pub machine: Option<&'static Machine>,
    /// File for the records.
    pub json: Option<PathBuf>,
    /// Measures nothing: the records of these files are shown as one table.
    pub show: Vec<PathBuf>,
}

/// The different passes of the convolutions of a step, and how often it has each; in the order of the tape.
///
/// # Errors
/// When the configuration makes no network.
pub fn layers(cfg: &Config, batch: usize) -> Result<Vec<(ConvLayer, usize)>> {
    cfg.check()?;
    let (tape, _) = record_step(&mut Model::for_training(cfg), batch, Recording::default());
    let mut found: Vec<(ConvLayer, usize)> = Vec::new();
    let mut index: HashMap<ConvLayer, usize> = HashMap::new();
    for layer in tape.convolutions() {
        let at = *index.entry(layer).or_insert(found.len());
        match found.get_mut(at) {
            Some((_, times)) => *times += 1,
            None => found.push((layer, 1)),
        }
    }
    // All layers of a pass together.
    found.sort_by_key(|(layer, _)| layer.pass);
    Ok(found)
}

/// Runs the benchmark, shows its table on `out` and returns the records.
///
/// # Errors
/// When the configuration makes no network, a variant computes something else than it should, the device fails, or a file
/// cannot be read or written.
pub fn run(options: &Options, out: &mut dyn Write) -> Result<Vec<Record>> {
    let told = |e: std::io::Error| Error::io("cannot write the table", &e);
    if !options.show.is_empty() {
        let records = read_all(&options.show)?;
        table::print(&records, out)?;
        return Ok(records);
    }
    let layers = layers(&options.cfg, options.batch.max(1))?;
    let Place { device, origin, target, machine, ceilings, .. } =
        Place::open(options.device, options.machine)?;
    let head = match &ceilings {
        Some(c) => format!(
            "{}; {} {:.1} TFLOP/s, measured now; µs: the median by events, operands in the same buffers each time",
            origin.device, c.matrix, c.matrix_tflop_per_s
        ),
        None => {
            "emulator: counts of a block of each launch, and what the machine model makes of them; no time"
                .to_owned()
        }
    };
    writeln!(out, "{head}").map_err(told)?;
    let cases = cases(options, &layers, &device, target, out)?;
    let predicted: Vec<Option<Predicted>> = match machine {
        Some(machine) => {
            let of = |(case, _): &(Case, usize)| predict(case, machine).map(Some);
            cases.par_iter().map(of).collect::<Result<_>>()?
        }
        None => vec![None; cases.len()],
    };
    let mut records = Vec::with_capacity(cases.len());
    for ((case, times), predicted) in cases.iter().zip(predicted) {
        let measured = match &ceilings {
            Some(ceilings) => Some(measure(case, &device, ceilings)?),
            None if case.layer.flops() <= COMPARED => {
                let inputs = case.inputs(1);
                case.check(&case.load(&device, &inputs)?, &inputs)?;
                None
            }
            None => None,
        };
        records.push(Record {
            origin: origin.clone(),
            pass: case.layer.pass.name().to_owned(),
            layer: case.layer.describe(),
            times: *times,
            variant: case.variant.name().to_owned(),
            precision: case.variant.precision().name().to_owned(),
            flops: case.layer.flops(),
            measured,
            predicted,
        });
    }
    table::print(&records, out)?;
    if let Some(path) = &options.json {
        write(path, &records)?;
    }
    Ok(records)
}

/// What is asked for and the device takes, planned.
fn cases(
    options: &Options,
    layers: &[(ConvLayer, usize)],
    device: &DeviceHandle,
    target: Target,
    out: &mut dyn Write,
) -> Result<Vec<(Case, usize)>> {
    let mut cases: Vec<(Case, usize)> = Vec::new();
    let mut left_out = Vec::new();
    for &(layer, times) in layers {
        if !options.pass.is_empty() && !options.pass.contains(&layer.pass) {
            continue;
        }
        for variant in ConvVariant::ALL {
            let wanted = options.variant.contains(&variant);
            if !options.variant.is_empty() && !wanted || left_out.contains(&variant) {
                continue;
            }
            let Some(case) = Case::plan(layer, variant, target)? else { continue };
            match device.lock().check_launches(case.program()) {
                Ok(()) => cases.push((case, times)),
                Err(e) if wanted => return Err(e),
                Err(e) => {
                    writeln!(out, "{} is left out: {}", variant.name(), e.message())
                        .map_err(|e| Error::io("cannot write the table", &e))?;
                    left_out.push(variant);
                }
            }
        }
    }
    Ok(cases)
}

/// From two rounds: the second finds in the L2 what the first has left there.
fn predict(case: &Case, machine: &Machine) -> Result<Predicted> {
    let twice = case.repeated(2);
    let counted = model::count(twice.program(), &|_| ())?;
    let predictions = counted.predict(twice.program(), machine);
    let before = predictions.len() - case.launches();
    let second = &predictions[before..];
    let longest = second.iter().max_by(|a, b| a.time.us.total_cmp(&b.time.us));
    Ok(Predicted {
        gpu: machine.key.to_owned(),
        microseconds: second.iter().map(|p| p.time.us).sum(),
        bound: longest.map_or("", |p| p.time.bound.name()).to_owned(),
        l2_bytes: second.iter().map(|p| p.work.l2_bytes * p.work.blocks as f64).sum::<f64>() as u64,
        bank_conflicts: counted.samples().skip(before).map(|s| s.counters.total().bank_conflicts).sum(),
    })
}

fn measure(case: &Case, gpu: &DeviceHandle, ceilings: &Ceilings) -> Result<Measured> {
    let inputs = case.inputs(1);
    let once = case.load(gpu, &inputs)?;
    case.check(&once, &inputs)?;
    let us = time_program(once.executable(), 1, LaunchMode::Graph)?;
    drop(once);
    let repeats = (FILLED / us).ceil().clamp(1.0, 64.0) as usize;
    let loaded = case.repeated(repeats).load(gpu, &inputs)?;
    let microseconds = time_program(loaded.executable(), repeats, LaunchMode::Graph)?;
    Ok(Measured { microseconds, ceilings: ceilings.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_has_as_many_operations_in_its_layers_as_in_its_launches() {
        let cfg = Config { img_size: 32, ch: 4, n_res: 2, n_dis: 4, light: true, ..Config::default() };
        let layers = layers(&cfg, 2).unwrap();
        let listed: u64 = layers.iter().map(|(layer, times)| layer.flops() * *times as u64).sum();
        let plan =
            crate::train::TrainingPlan::new(&cfg, 2, 0, Recording::default(), Default::default()).unwrap();
        let of_convolutions: u64 = plan
            .step
            .program
            .launches
            .iter()
            .filter(|l| ConvVariant::ALL.iter().any(|v| l.kernel.module.file == v.file()))
            .map(|l| l.flops)
            .sum();
        assert_eq!(listed, of_convolutions);
        // The generators' residual blocks, both directions: two a block, in encoder and decoder, in two passes of the step.
        assert!(layers.iter().any(|(layer, times)| layer.weight.n == 3 && *times >= 8));
    }
}
