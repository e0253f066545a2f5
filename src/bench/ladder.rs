//! The ladder: what a training step comes to with one change after the other, as the table of `kernels/README.md`.

use std::fmt::Write as _;

use super::record::between;
use crate::Result;
use crate::format::three_figures;
use crate::model::{Counter, Machine, machine};
use crate::nn::Config;
use crate::tape::{ConvVariant, LowerOptions, NormVariant, Precision};
use crate::train::{Recording, TrainingPlan};

/// The lines of a document that the table stands between.
pub const MARKERS: [&str; 2] = [
    "<!-- ladder of the step: written by `ugatit plan`, not by hand -->",
    "<!-- end of ladder of the step -->",
];

/// The GPUs that times are predicted for.
const GPUS: [&str; 4] = ["a100", "h100", "h200", "4090"];

/// The variants that a step is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The variant of the norms.
    pub norm: NormVariant,
    /// The variant of the convolutions; None: that of the precision, where it suits the shape.
    pub conv: Option<ConvVariant>,
    /// What convolutions multiply.
    pub precision: Precision,
}

/// From the bottom: first the convolutions, then the norms are replaced, then tensor cores. At this size fp32 is the implicit
/// GEMM wherever it takes a layer.
pub fn choices() -> Vec<Choice> {
    let elementary = |conv, precision| Choice { norm: NormVariant::Elementary, conv, precision };
    let mut choices =
        vec![elementary(Some(ConvVariant::Direct), Precision::F32), elementary(None, Precision::F32)];
    let norms = NormVariant::ALL.into_iter().filter(|norm| norm.trains() && *norm != NormVariant::Elementary);
    choices.extend(norms.map(|norm| Choice { norm, conv: None, precision: Precision::F32 }));
    let others = Precision::ALL.into_iter().filter(|p| *p != Precision::F32);
    choices.extend(others.map(|precision| Choice { norm: NormVariant::default(), conv: None, precision }));
    choices
}

impl Choice {
    fn plan(&self, machine: &Machine) -> Result<TrainingPlan> {
        let cfg = Config { light: true, ..Config::default() };
        let &Self { norm, conv, precision } = self;
        let options = LowerOptions { norm, conv, precision, ..LowerOptions::on(machine.target()) };
        TrainingPlan::new(&cfg, 1, 0, Recording::default(), options)
    }

    /// Which convolutions most layers have.
    fn convolutions(&self) -> ConvVariant {
        self.conv.unwrap_or(match self.precision {
            Precision::F32 => ConvVariant::ImplicitGemm,
            Precision::Tf32 => ConvVariant::TensorCore,
        })
    }

    /// The first cells of its row: variants, launches and minimum traffic on an H100.
    ///
    /// # Errors
    /// Never for those of [`choices`]: the official configuration makes a network.
    pub fn cells(&self) -> Result<[String; 5]> {
        let plan = self.plan(&machine::ALL[0])?;
        let launches = &plan.step.program.launches;
        let bytes = launches.iter().map(|l| l.min_bytes).sum();
        let [norm, conv, precision] =
            [self.norm.name(), self.convolutions().name(), self.precision.name()].map(str::to_owned);
        Ok([norm, conv, precision, launches.len().to_string(), three_figures(bytes)])
    }
}

/// The table in Markdown.
///
/// # Errors
/// When a kernel is faulty.
pub fn table() -> Result<String> {
    let mut counter = Counter::default();
    let mut text = String::from("| norms | convolutions | type | launches | bytes |");
    for gpu in GPUS {
        _ = write!(text, " {} |", machine::find(gpu)?.name);
    }
    text += "\n|---|---|---|--:|--:|";
    text += &"--:|".repeat(GPUS.len());
    for choice in choices() {
        _ = write!(text, "\n| {} |", choice.cells()?.join(" | "));
        for gpu in GPUS {
            let machine = machine::find(gpu)?;
            let plan = choice.plan(machine)?;
            let program = &plan.step.program;
            let predicted = counter.count(program, &|_| ())?.predict(program, machine);
            _ = write!(text, " {:.1} |", predicted.iter().map(|p| p.time.us).sum::<f64>() / 1e3);
        }
    }
    Ok(text + "\n")
}

/// A document with the table in its place.
///
/// # Errors
/// When it has no place for one, or as [`table`].
pub fn write_into(document: &str, table: &str) -> Result<String> {
    between(document, MARKERS, table)
}
