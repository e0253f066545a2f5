//! Repeats a recorded run on a device and reads back what the file has as well.

use std::collections::HashMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::names::{Kind, Output, Part, Pass};
use super::recorded::{Recorded, Values};
use crate::nn::{Role, Tap};
use crate::tape::Value;
use crate::tensor::{nchw_to_nhwc, nhwc_to_nchw};
use crate::train::{DOutput, GOutput, LOSS_NAMES, TensorRole, Trainer, apply_activation};
use crate::verify::golden::Golden;
use crate::{Error, Result};

impl Recorded {
    /// The file's tensors as they are compared: layer outputs through the activation that the engine's
    /// kernels apply at once. Losses may be in the metadata alone.
    pub(super) fn reference(&self, golden: &Golden, trainer: &Trainer) -> Result<Values> {
        let mut values = Values::new();
        for (name, kind) in &self.kinds {
            let mut data = match kind {
                Kind::Rates => continue,
                _ => golden.floats(name)?,
            };
            if let Kind::Tap { net, module } = kind
                && let Some((tap, _)) = find_tap(trainer, net, module)
            {
                data.iter_mut().for_each(|x| *x = apply_activation(tap.act, *x));
            }
            values.insert(name.clone(), data);
        }
        for (term, list) in self.metadata_losses(golden)? {
            values
                .entry(format!("loss/{term}"))
                .or_insert_with(|| list.into_iter().map(|x| x as f32).collect());
        }
        Ok(values)
    }

    /// Repeats the run from its start, with inputs perturbed by rounding if asked, and returns what the file
    /// has as well.
    pub(super) fn replay(
        &self,
        golden: &Golden,
        trainer: &mut Trainer,
        perturbation: Option<f32>,
    ) -> Result<Values> {
        for id in trainer.model().tensors(&[TensorRole::Weight]) {
            let name = format!("init/{}/{}", id.net(), trainer.model().spec(id).key);
            trainer.set(id, &golden.floats(&name)?)?;
        }
        for id in trainer.model().tensors(&[TensorRole::FirstMoment, TensorRole::SecondMoment]) {
            let zeros = vec![0.0; trainer.model().spec(id).len()];
            trainer.set(id, &zeros)?;
        }
        let mut values = Values::new();
        let mut losses = Vec::new();
        for step in 1..=self.steps {
            let a = self.batch_images(golden, "A", step, perturbation)?;
            let b = self.batch_images(golden, "B", step, perturbation)?;
            trainer.step(step, &a, &b)?;
            losses.push(trainer.losses()?);
            if step == 1 {
                self.first_step(golden, trainer, &mut values)?;
            }
            for (name, kind) in &self.kinds {
                let (net, key, tensor, norm) = match kind {
                    Kind::After { step: of, norm, net, key } if *of == step => {
                        (net, key, TensorRole::Weight, *norm)
                    }
                    Kind::Moment { tensor, net, key } if step == self.steps => (net, key, *tensor, false),
                    _ => continue,
                };
                let mut data = trainer.get(trainer.model().find(net, key, tensor)?)?;
                if norm {
                    let squares = data.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
                    data = vec![squares.sqrt() as f32, data.len() as f32];
                }
                values.insert(name.clone(), data);
            }
        }
        for term in LOSS_NAMES {
            let list: Vec<f32> = losses.iter().map(|l| l.get(term) as f32).collect();
            values.insert(format!("loss/{term}"), list);
        }
        Ok(values)
    }

    /// A batch in the device's order.
    pub(super) fn batch_images(
        &self,
        golden: &Golden,
        domain: &str,
        step: u64,
        perturbation: Option<f32>,
    ) -> Result<Vec<f32>> {
        let (side, channels) = (self.cfg.img_size, self.cfg.img_ch);
        let mut data = golden.floats(&format!("image/{domain}/{step}"))?;
        if let Some(perturbation) = perturbation {
            let mut rng = ChaCha8Rng::seed_from_u64(u64::from(perturbation.to_bits()));
            rng.set_stream(2 * step + u64::from(domain == "B"));
            data.iter_mut().for_each(|x| *x *= 1.0 + rng.random_range(-perturbation..perturbation));
        }
        Ok(nchw_to_nhwc(&data, self.batch, channels, side, side))
    }

    /// Outputs, layer outputs and gradients of iteration 1.
    pub(super) fn first_step(
        &self,
        golden: &Golden,
        trainer: &mut Trainer,
        values: &mut Values,
    ) -> Result<()> {
        let mut read: HashMap<Value, Vec<f32>> = HashMap::new();
        for (name, kind) in &self.kinds {
            let data = match kind {
                Kind::Gradient { net, key } => {
                    trainer.get(trainer.model().find(net, key, TensorRole::Gradient)?)?
                }
                Kind::Output(output) => {
                    let (value, images) = output.value(trainer, self.batch)?;
                    let channel = if output.part == Part::CamLogit { Some(2) } else { None };
                    let whole = cached(&mut read, trainer, value)?;
                    let first = if output.second { self.batch } else { 0 };
                    self.images(golden, name, whole, images, output.direction, first, channel)?
                }
                Kind::Tap { net, module } => {
                    let Some((value, images, direction, column)) =
                        tap_value(trainer, net, module, self.batch)
                    else {
                        continue;
                    };
                    let whole = cached(&mut read, trainer, value)?;
                    match column {
                        None => self.images(golden, name, whole, images, direction, 0, None)?,
                        Some(column) => {
                            golden.expect_dims(name, &[self.batch, 1])?;
                            let rows = whole.chunks_exact(2).skip(direction * images).take(self.batch);
                            rows.map(|row| row[column]).collect()
                        }
                    }
                }
                _ => continue,
            };
            values.insert(name.clone(), data);
        }
        Ok(())
    }

    /// The batch's images from `first` on of one direction of a device tensor `[2, images, H, W, C]`, in
    /// the order and extents of the file's tensor of that name.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn images(
        &self,
        golden: &Golden,
        name: &str,
        whole: &[f32],
        images: usize,
        direction: usize,
        first: usize,
        channels: Option<usize>,
    ) -> Result<Vec<f32>> {
        let len = whole.len() / (2 * images);
        let start = (direction * images + first) * len;
        let data = &whole[start..start + self.batch * len];
        let dims = golden.dims(name)?;
        let (c, h, w) = match *dims {
            [_, c] => (c, 1, 1),
            [_, c, h, w] => (c, h, w),
            _ => (0, 0, 0),
        };
        let fits = dims.first() == Some(&self.batch)
            && c.checked_mul(h).and_then(|n| n.checked_mul(w)) == Some(len)
            && channels.is_none_or(|want| want == c);
        if !fits {
            let what = format!(
                "{name} has the shape {dims:?}, but the network's has {} images of {len} values",
                self.batch
            );
            return Err(golden.error(what));
        }
        Ok(nhwc_to_nchw(data, self.batch, c, h, w))
    }
}

impl Output {
    /// The value it is part of, and how many images that has in a direction.
    pub(super) fn value(&self, trainer: &Trainer, batch: usize) -> Result<(Value, usize)> {
        let outputs = trainer.outputs();
        let generator = |g: Option<GOutput>| {
            g.map(|g| match self.part {
                Part::Main => g.image,
                Part::CamLogit => g.cam_logit,
                Part::Heatmap => g.heatmap,
            })
        };
        let discriminator = |d: Option<&DOutput>| {
            d.map(|d| match self.part {
                Part::Main => d.logit,
                Part::CamLogit => d.cam_logit,
                Part::Heatmap => d.heatmap,
            })
        };
        let (value, images) = match self.pass {
            Pass::First => (generator(outputs.first), 2 * batch),
            Pass::Cycle => (generator(outputs.cycle), batch),
            Pass::DStep(pair) => (discriminator(outputs.d_step.get(pair)), 2 * batch),
            Pass::GStep(pair) => (discriminator(outputs.g_step.get(pair)), batch),
        };
        Ok((value.ok_or_else(|| Error::new("the step records no outputs"))?, images))
    }
}

/// A value of the step, downloaded once.
pub(super) fn cached<'r>(
    read: &'r mut HashMap<Value, Vec<f32>>,
    trainer: &mut Trainer,
    value: Value,
) -> Result<&'r [f32]> {
    if let std::collections::hash_map::Entry::Vacant(slot) = read.entry(value) {
        slot.insert(trainer.read(value)?);
    }
    Ok(&read[&value])
}

/// The tap of a module and its direction. A tap's first use is the first half of its pass's batch: the
/// image to translate, or the real one.
pub(super) fn find_tap<'t>(trainer: &'t Trainer, net: &str, module: &str) -> Option<(&'t Tap, usize)> {
    let outputs = trainer.outputs();
    let (role, direction) = Role::of_net(net)?;
    let taps = match role {
        Role::Generator => &outputs.generator_taps,
        Role::Global => &outputs.global_taps,
        Role::Local => return None,
    };
    Some((taps.iter().find(|t| t.key == module)?, direction))
}

/// Where a module's output is: the value, its images in a direction, the direction, and the column for
/// the CAM classifiers, whose outputs are the two CAM logits.
pub(super) fn tap_value(
    trainer: &Trainer,
    net: &str,
    module: &str,
    batch: usize,
) -> Option<(Value, usize, usize, Option<usize>)> {
    let images = 2 * batch;
    if let Some((tap, direction)) = find_tap(trainer, net, module) {
        return Some((tap.value, images, direction, None));
    }
    let column = ["gap_fc", "gmp_fc"].iter().position(|m| *m == module)?;
    let outputs = trainer.outputs();
    let (role, direction) = Role::of_net(net)?;
    let value = match role {
        Role::Generator => outputs.first?.cam_logit,
        Role::Global => outputs.d_step.first()?.cam_logit,
        Role::Local => return None,
    };
    Some((value, images, direction, Some(column)))
}
