//! A recorded run: its parameters, checked against the network before anything runs.

use std::collections::{BTreeMap, BTreeSet};

use super::names::Kind;
use crate::nn::Config;
use crate::train::{LOSS_NAMES, TensorRole};
use crate::verify::golden::Golden;
use crate::{Error, Result};

/// Values by their name in the file, in the file's order of elements.
pub(super) type Values = BTreeMap<String, Vec<f32>>;

/// A recorded run: its parameters, and what each tensor is.
pub(in crate::verify) struct Recorded {
    pub(super) cfg: Config,
    pub(super) batch: usize,
    pub(super) steps: u64,
    pub(super) taps: bool,
    /// The file's tensors by what they are, without the inputs.
    pub(super) kinds: Vec<(String, Kind)>,
    pub(super) notes: Vec<String>,
}

/// Largest number of steps or images that is believed.
pub(super) const MOST: u64 = 1_000_000;

impl Recorded {
    /// Reads a file's parameters and checks that all inputs are there, so that an unusable file is found
    /// before anything runs.
    pub(in crate::verify) fn read(golden: &Golden) -> Result<Self> {
        let mut notes = Vec::new();
        let cfg = config(golden, &mut notes)?;
        let batch = golden.count("batch", MOST)? as usize;
        let steps = golden.count("steps", MOST)?;
        let mut kinds = Vec::new();
        let mut unknown = Vec::new();
        let mut taps = false;
        for key in golden.keys() {
            match Kind::of(key) {
                None => unknown.push(key),
                Some(Kind::Initial { .. } | Kind::Image) => {}
                Some(kind) => {
                    taps |= matches!(kind, Kind::Tap { .. });
                    kinds.push((key.to_owned(), kind));
                }
            }
        }
        if let [first, ..] = unknown[..] {
            notes.push(format!(
                "{} tensors have names that mean nothing here and are left out, such as {first}",
                unknown.len()
            ));
        }
        let side = cfg.img_size;
        for step in 1..=steps {
            for domain in ["A", "B"] {
                golden.expect_dims(&format!("image/{domain}/{step}"), &[batch, cfg.img_ch, side, side])?;
            }
        }
        let recorded = Self { cfg, batch, steps, taps, kinds, notes };
        recorded.check_tensors(golden)?;
        recorded.metadata_losses(golden)?;
        Ok(recorded)
    }

    /// All networks' tensors must be there to start from, and what is compared must fit the network.
    pub(super) fn check_tensors(&self, golden: &Golden) -> Result<()> {
        let model = crate::train::Model::for_training(&self.cfg);
        for id in model.tensors(&[TensorRole::Weight]) {
            let spec = model.spec(id);
            golden.expect_dims(&format!("init/{}/{}", id.net(), spec.key), &spec.dims)?;
        }
        for name in golden.keys().filter(|k| k.starts_with("init/")) {
            if let Some(Kind::Initial { net, key }) = Kind::of(name) {
                model.find(&net, &key, TensorRole::Weight).map_err(|e| golden.error(e))?;
            }
        }
        for (name, kind) in &self.kinds {
            let (net, key, tensor, norm) = match kind {
                Kind::Gradient { net, key } => (net, key, TensorRole::Gradient, false),
                Kind::Moment { tensor, net, key } => (net, key, *tensor, false),
                Kind::After { step, norm, net, key } => {
                    if *step == 0 || *step > self.steps {
                        return Err(golden.error(format!("{name} is not of one of the {} steps", self.steps)));
                    }
                    (net, key, TensorRole::Weight, *norm)
                }
                Kind::Loss { term } => {
                    if !LOSS_NAMES.contains(&term.as_str()) {
                        return Err(golden.error(format!("there is no loss term {term}")));
                    }
                    golden.expect_dims(name, &[self.steps as usize])?;
                    continue;
                }
                Kind::Rates => {
                    golden.expect_dims(name, &[self.steps as usize])?;
                    continue;
                }
                _ => continue,
            };
            let id = model.find(net, key, tensor).map_err(|e| golden.error(format!("{name}: {e}")))?;
            golden.expect_dims(name, if norm { &[1] } else { &model.spec(id).dims })?;
        }
        Ok(())
    }

    /// How far Adam can have moved a weight in so many steps: the sum of the learning rates.
    pub(super) fn update_budget(&self, steps: u64) -> f64 {
        (1..=steps).map(|s| self.cfg.lr_at(s).abs()).sum()
    }

    pub(super) fn what(&self, device: &str) -> String {
        let c = &self.cfg;
        format!(
            "{} {} of {}x{} pixels, batch {}, ch {}, n_res {}, n_dis {}, {}, on {device}",
            self.steps,
            if self.steps == 1 { "step" } else { "steps" },
            c.img_size,
            c.img_size,
            self.batch,
            c.ch,
            c.n_res,
            c.n_dis,
            if c.light { "light" } else { "full" },
        )
    }

    /// The loss terms in the metadata.
    pub(super) fn metadata_losses(&self, golden: &Golden) -> Result<Vec<(String, Vec<f64>)>> {
        if !golden.has_metadata("losses") {
            return Ok(Vec::new());
        }
        let json = golden.json("losses")?;
        let terms = json.as_object().ok_or_else(|| golden.error("'losses' in its metadata is no object"))?;
        let terms = terms.iter().map(|(term, list)| {
            if !LOSS_NAMES.contains(&term.as_str()) {
                return Err(golden.error(format!("there is no loss term {term}")));
            }
            Ok((term.clone(), numbers(golden, &format!("losses.{term}"), list, self.steps)?))
        });
        terms.collect()
    }
}

/// The configuration in the metadata. What this version does not know is left out with a note.
pub(super) fn config(golden: &Golden, notes: &mut Vec<String>) -> Result<Config> {
    let mut json = golden.json("config")?;
    let known = serde_json::to_value(Config::default()).map_err(|e| Error::new(e.to_string()))?;
    let fields = json.as_object_mut().ok_or_else(|| golden.error("'config' in its metadata is no object"))?;
    let unknown: BTreeSet<String> = fields.keys().filter(|k| known.get(k).is_none()).cloned().collect();
    fields.retain(|k, _| !unknown.contains(k));
    if !unknown.is_empty() {
        let names: Vec<&str> = unknown.iter().map(String::as_str).collect();
        notes.push(format!("parameters that mean nothing here are left out: {}", names.join(", ")));
    }
    let cfg: Config =
        serde_json::from_value(json).map_err(|e| golden.error(format!("'config' in its metadata: {e}")))?;
    cfg.check().map_err(|e| golden.error(e))?;
    Ok(cfg)
}

/// A list of as many numbers as there are steps.
pub(super) fn numbers(golden: &Golden, name: &str, list: &serde_json::Value, steps: u64) -> Result<Vec<f64>> {
    let list = list.as_array().filter(|l| l.len() as u64 == steps);
    // NaN is no JSON; whoever writes it as null means that.
    let list =
        list.ok_or_else(|| golden.error(format!("'{name}' in its metadata is no list of {steps} numbers")))?;
    Ok(list.iter().map(|x| x.as_f64().unwrap_or(f64::NAN)).collect())
}
