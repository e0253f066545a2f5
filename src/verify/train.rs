//! Training runs: the recorded run is repeated step by step and everything the file has is compared.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::golden::Golden;
use super::report::{Check, FileReport, Group};
use super::tolerance::{self, Bounds, Difference};
use crate::device::executable::DeviceHandle;
use crate::nn::{Config, Role, Tap};
use crate::tape::Value;
use crate::tensor::{nchw_to_nhwc, nhwc_to_nchw};
use crate::train::{DOutput, GOutput, LOSS_NAMES, Recording, Slot, Trainer, apply_activation};
use crate::{Error, Result};

/// Values by their name in the file, in the file's order of elements.
type Values = BTreeMap<String, Vec<f32>>;

/// What a tensor of the file is.
#[derive(Clone, Debug, PartialEq)]
enum Kind {
    /// `init/<net>/<key>`.
    Initial { net: String, key: String },
    /// `image/<A|B>/<i>`.
    Image,
    /// An output of iteration 1.
    Output(Output),
    /// `tap/<net>/<module>`.
    Tap { net: String, module: String },
    /// `loss/<term>`.
    Loss { term: String },
    /// `grad_D/..`, `grad_G/..`.
    Gradient { net: String, key: String },
    /// `after<k>/..`, or with `norm` `after<k>_l2/..`.
    After { step: u64, norm: bool, net: String, key: String },
    /// `adam_m/..`, `adam_v/..`.
    Moment { slot: Slot, net: String, key: String },
    /// `lr`.
    Rates,
}

/// One output of a pass of iteration 1.
#[derive(Clone, Debug, PartialEq)]
struct Output {
    pass: Pass,
    part: Part,
    direction: usize,
    /// Whether it is the second half of the pass's batch.
    second: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    First,
    Cycle,
    /// In the D step; 0 global, 1 local.
    DStep(usize),
    GStep(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Main,
    CamLogit,
    Heatmap,
}

impl Kind {
    /// What the name says; None for names this code does not know.
    fn of(key: &str) -> Option<Self> {
        let parts: Vec<&str> = key.splitn(3, '/').collect();
        match parts[..] {
            ["lr"] => Some(Self::Rates),
            ["loss", term] => Some(Self::Loss { term: term.to_owned() }),
            [top, net, rest] => {
                let (net, key) = (net.to_owned(), rest.to_owned());
                match top {
                    "init" => Some(Self::Initial { net, key }),
                    "image" => Some(Self::Image),
                    "fwd" => Output::of(&net, rest).map(Self::Output),
                    "tap" => Some(Self::Tap { net, module: key }),
                    "grad_D" | "grad_G" => Some(Self::Gradient { net, key }),
                    "adam_m" => Some(Self::Moment { slot: Slot::M, net, key }),
                    "adam_v" => Some(Self::Moment { slot: Slot::V, net, key }),
                    _ => {
                        let after = top.strip_prefix("after")?;
                        let (step, norm) = match after.strip_suffix("_l2") {
                            Some(step) => (step, true),
                            None => (after, false),
                        };
                        Some(Self::After { step: step.parse().ok()?, norm, net, key })
                    }
                }
            }
            _ => None,
        }
    }
}

impl Output {
    /// Of `fwd/<pass>/<rest>`.
    fn of(pass: &str, rest: &str) -> Option<Self> {
        let part_of = |part: &str, main: &str| match part {
            _ if part == main => Some(Part::Main),
            "cam_logit" => Some(Part::CamLogit),
            "heatmap" => Some(Part::Heatmap),
            _ => None,
        };
        // Direction 0 is genA2B with the discriminators of B. Its first batch is A2B then B2B.
        let generator = match pass {
            "A2B" => Some((Pass::First, 0, false)),
            "B2A" => Some((Pass::First, 1, false)),
            "B2B" => Some((Pass::First, 0, true)),
            "A2A" => Some((Pass::First, 1, true)),
            "B2A2B" => Some((Pass::Cycle, 0, false)),
            "A2B2A" => Some((Pass::Cycle, 1, false)),
            _ => None,
        };
        if let Some((pass, direction, second)) = generator {
            return Some(Self { pass, part: part_of(rest, "image")?, direction, second });
        }
        let (which, part) = rest.split_once('/')?;
        let (kind, net) = which.split_once('_')?;
        let (pair, direction) = match net {
            "GB" => (0, 0),
            "GA" => (0, 1),
            "LB" => (1, 0),
            "LA" => (1, 1),
            _ => return None,
        };
        let (pass, second) = match (pass, kind) {
            ("D", "real") => (Pass::DStep(pair), false),
            ("D", "fake") => (Pass::DStep(pair), true),
            ("G", "fake") => (Pass::GStep(pair), false),
            _ => return None,
        };
        Some(Self { pass, part: part_of(part, "logit")?, direction, second })
    }
}

/// A recorded run: its parameters, and what each tensor is.
pub(super) struct Recorded {
    cfg: Config,
    batch: usize,
    steps: u64,
    taps: bool,
    /// The file's tensors by what they are, without the inputs.
    kinds: Vec<(String, Kind)>,
    notes: Vec<String>,
}

/// Largest number of steps or images that is believed.
const MOST: u64 = 1_000_000;

impl Recorded {
    /// Reads a file's parameters and checks that all inputs are there, so that an unusable file is found
    /// before anything runs.
    pub(super) fn read(golden: &Golden) -> Result<Self> {
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
    fn check_tensors(&self, golden: &Golden) -> Result<()> {
        let model = crate::train::Model::for_training(&self.cfg);
        for (net, key, _) in model.tensors() {
            let (_, spec) = model.locate(net, key, Slot::Weight)?;
            golden.expect_dims(&format!("init/{net}/{key}"), &spec.dims)?;
        }
        for name in golden.keys().filter(|k| k.starts_with("init/")) {
            if let Some(Kind::Initial { net, key }) = Kind::of(name) {
                model.locate(&net, &key, Slot::Weight).map_err(|e| golden.error(e.message()))?;
            }
        }
        for (name, kind) in &self.kinds {
            let (net, key, slot, norm) = match kind {
                Kind::Gradient { net, key } => (net, key, Slot::Grad, false),
                Kind::Moment { slot, net, key } => (net, key, *slot, false),
                Kind::After { step, norm, net, key } => {
                    if *step == 0 || *step > self.steps {
                        return Err(golden.error(format!("{name} is not of one of the {} steps", self.steps)));
                    }
                    (net, key, Slot::Weight, *norm)
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
            let (_, spec) = model.locate(net, key, slot).map_err(|e| golden.error(format!("{name}: {e}")))?;
            golden.expect_dims(name, if norm { &[1] } else { &spec.dims })?;
        }
        Ok(())
    }

    /// The way Adam may have moved a weight in so many steps: the sum of the learning rates.
    fn way(&self, steps: u64) -> f64 {
        (1..=steps).map(|s| self.cfg.lr_at(s).abs()).sum()
    }

    fn what(&self, device: &str) -> String {
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

    /// Repeats the run on a device and compares.
    pub(super) fn run(&self, golden: &Golden, device: &DeviceHandle) -> Result<FileReport> {
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
        // Rounding is amplified where a value lies next to a kink, and by Adam where a gradient is next to
        // 0. How much shows in runs whose inputs differ by rounding.
        if groups.iter().filter(|g| !g.holds()).all(|g| g.raisable) {
            let mut raised = Raised::of(&groups);
            for nudge in tolerance::NUDGES {
                if groups.iter().all(Group::holds) {
                    break;
                }
                let nudged = self.replay(golden, &mut trainer, Some(nudge))?;
                raised.raise(&mut groups, &self.compare(&nudged, &values));
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

    /// The file's tensors as they are compared: layer outputs through the activation that the engine's
    /// kernels apply at once. Losses may be in the metadata alone.
    fn reference(&self, golden: &Golden, trainer: &Trainer) -> Result<Values> {
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

    /// The loss terms in the metadata.
    fn metadata_losses(&self, golden: &Golden) -> Result<Vec<(String, Vec<f64>)>> {
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

    /// Repeats the run from its start, with inputs nudged by rounding if asked, and returns what the file
    /// has as well.
    fn replay(&self, golden: &Golden, trainer: &mut Trainer, nudge: Option<f32>) -> Result<Values> {
        let names: Vec<(&str, String, bool)> = trainer
            .model()
            .tensors()
            .into_iter()
            .map(|(net, key, trained)| (net, key.to_owned(), trained))
            .collect();
        for (net, key, trained) in names {
            let weight = golden.floats(&format!("init/{net}/{key}"))?;
            trainer.set(net, &key, Slot::Weight, &weight)?;
            if trained {
                let zeros = vec![0.0; weight.len()];
                trainer.set(net, &key, Slot::M, &zeros)?;
                trainer.set(net, &key, Slot::V, &zeros)?;
            }
        }
        let mut values = Values::new();
        let mut losses = Vec::new();
        for step in 1..=self.steps {
            let a = self.batch_images(golden, "A", step, nudge)?;
            let b = self.batch_images(golden, "B", step, nudge)?;
            trainer.step(step, &a, &b)?;
            losses.push(trainer.losses()?);
            if step == 1 {
                self.first_step(golden, trainer, &mut values)?;
            }
            for (name, kind) in &self.kinds {
                let (net, key, slot, norm) = match kind {
                    Kind::After { step: of, norm, net, key } if *of == step => {
                        (net, key, Slot::Weight, *norm)
                    }
                    Kind::Moment { slot, net, key } if step == self.steps => (net, key, *slot, false),
                    _ => continue,
                };
                let mut data = trainer.get(net, key, slot)?;
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
    fn batch_images(&self, golden: &Golden, domain: &str, step: u64, nudge: Option<f32>) -> Result<Vec<f32>> {
        let (side, channels) = (self.cfg.img_size, self.cfg.img_ch);
        let mut data = golden.floats(&format!("image/{domain}/{step}"))?;
        if let Some(nudge) = nudge {
            let mut rng = ChaCha8Rng::seed_from_u64(u64::from(nudge.to_bits()));
            rng.set_stream(2 * step + u64::from(domain == "B"));
            data.iter_mut().for_each(|x| *x *= 1.0 + rng.random_range(-nudge..nudge));
        }
        Ok(nchw_to_nhwc(&data, self.batch, channels, side, side))
    }

    /// Outputs, layer outputs and gradients of iteration 1.
    fn first_step(&self, golden: &Golden, trainer: &mut Trainer, values: &mut Values) -> Result<()> {
        let mut read: HashMap<Value, Vec<f32>> = HashMap::new();
        for (name, kind) in &self.kinds {
            let data = match kind {
                Kind::Gradient { net, key } => trainer.get(net, key, Slot::Grad)?,
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
    fn images(
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

    /// The groups of everything that both sides have.
    fn compare(&self, values: &Values, reference: &Values) -> Vec<Group> {
        let mut groups: BTreeMap<Order, Members> = BTreeMap::new();
        for (name, reference) in reference {
            let Some(value) = values.get(name) else { continue };
            let Some(kind) = Kind::of(name) else { continue };
            let mut add = |order: Order| groups.entry(order).or_default().push((name, value, reference));
            match kind {
                Kind::Loss { .. } => (1..=self.steps).for_each(|step| add(Order::Loss(step))),
                Kind::After { step, norm: false, ref key, .. } if !is_vector(key) => {
                    add(Order::After(step, State::Weights));
                    add(Order::After(step, State::Off));
                }
                kind => add(Order::of(&kind)),
            }
        }
        groups.into_iter().map(|(order, members)| self.group(order, &members)).collect()
    }

    fn group(&self, order: Order, members: &Members) -> Group {
        match order {
            Order::Loss(step) => self.losses(step, members),
            Order::After(step, State::Off) => self.off(step, members),
            Order::After(step, State::Norms) => self.norms(step, members),
            _ => self.relative(order, members),
        }
    }

    /// Relative L2 of all together, and of each tensor.
    fn relative(&self, order: Order, members: &Members) -> Group {
        let differences: Vec<Difference> = members.iter().map(|(_, a, b)| Difference::of(a, b)).collect();
        let mut all = Difference::default();
        differences.iter().for_each(|d| all.join(*d));
        let mut bounds = order.bounds();
        if let Order::After(step, State::Weights) = order {
            // A share of the way all have gone, and the rounding of each step. Single tensors are judged by
            // how many elements are off.
            let way = tolerance::WAY * self.way(step) / all.rms().max(f64::MIN_POSITIVE);
            bounds.group = way + f64::from(f32::EPSILON) * (step as f64).sqrt();
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
        Group::new(order.name(), "rel. L2", all.relative(0.0), bounds.group, bounds.raisable, checks)
    }

    /// Relative difference of each term in one step.
    fn losses(&self, step: u64, members: &Members) -> Group {
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
            bounds.raisable,
            checks,
        )
    }

    /// Share of the weights that are off.
    fn off(&self, step: u64, members: &Members) -> Group {
        let bounds = tolerance::OFF;
        let way = tolerance::WAY * self.way(step);
        let (mut off_all, mut count_all) = (0, 0);
        let checks = members
            .iter()
            .map(|(name, a, b)| {
                let off = tolerance::count_off(a, b, way, step);
                off_all += off;
                count_all += b.len();
                Check::new(
                    *name,
                    tolerance::share_off(off, b.len()),
                    bounds.tensor,
                    Difference::of(a, b).max_abs,
                    b.len(),
                )
            })
            .collect();
        Group::new(
            Order::After(step, State::Off).name(),
            "share off",
            off_all as f64 / count_all.max(1) as f64,
            bounds.group,
            bounds.raisable,
            checks,
        )
    }

    /// Norms of tensors: what moves none of their elements by more than may be moves the norm no more.
    fn norms(&self, step: u64, members: &Members) -> Group {
        let bounds = tolerance::NORM;
        let checks: Vec<Check> = members
            .iter()
            .map(|(name, a, b)| {
                // [norm] in the file, [norm, elements] from the run.
                let n = f64::from(a.get(1).or(b.get(1)).copied().unwrap_or(1.0));
                let d = Difference::of(&a[..1], &b[..1]);
                let way = if is_vector(name) { 0.0 } else { tolerance::WAY * self.way(step) * n.sqrt() };
                let norm = f64::from(b[0]).abs().max(f64::MIN_POSITIVE);
                Check::new(
                    *name,
                    d.relative(1e-3 * n.sqrt()),
                    bounds.tensor + way / norm.max(1e-3 * n.sqrt()),
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
            bounds.raisable,
            checks,
        )
    }

    /// Losses that are both in a tensor and in the metadata must be the same ones.
    fn losses_twice(&self, golden: &Golden) -> Result<Option<Group>> {
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
    fn rates(&self, golden: &Golden) -> Result<Option<Group>> {
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
type Members<'v> = Vec<(&'v String, &'v Vec<f32>, &'v Vec<f32>)>;

/// The largest deviation; NaN if one is.
fn largest(checks: &[Check]) -> f64 {
    checks.iter().map(|c| c.deviation).fold(0.0, |a: f64, b| if b <= a { a } else { b })
}

/// Groups in the order of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
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
enum State {
    Weights,
    Off,
    Vectors,
    Norms,
}

fn is_vector(key: &str) -> bool {
    key.ends_with("weight_u") || key.ends_with("weight_v")
}

impl Order {
    fn of(kind: &Kind) -> Self {
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
            Kind::Moment { slot: Slot::M, .. } => Self::FirstMoments,
            Kind::Moment { .. } => Self::SecondMoments,
            Kind::Loss { .. } => Self::Loss(1),
            Kind::Rates | Kind::Initial { .. } | Kind::Image => Self::Rates,
        }
    }

    fn name(self) -> String {
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
            Self::After(step, State::Off) => format!("after{step}/off"),
            Self::After(step, State::Vectors) => format!("after{step}/uv"),
            Self::After(step, State::Norms) => format!("after{step}_l2"),
            Self::FirstMoments => "adam_m".into(),
            Self::SecondMoments => "adam_v".into(),
            Self::Rates => "lr".into(),
        }
    }

    fn bounds(self) -> Bounds {
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
            Self::After(_, State::Weights) | Self::After(_, State::Off) => tolerance::OFF,
            Self::After(_, State::Norms) | Self::Rates => tolerance::NORM,
            Self::After(_, State::Vectors) => tolerance::VECTORS,
            Self::FirstMoments | Self::SecondMoments => tolerance::MOMENTS,
        }
    }
}

/// Raises the tolerances of groups to what nudged runs differ by.
///
/// The worst tensor speaks for all of its group: which value crosses its kink is chance, and another run
/// may cross another one. But amplified rounding never comes alone: a tensor whose group is otherwise
/// close is wrong, whatever nudged runs do.
struct Raised {
    /// By group, as they were before.
    plain: HashMap<String, Group>,
    /// By group, the largest differences of all nudged runs so far: of the group, and of its worst tensor.
    seen: HashMap<String, (f64, f64)>,
}

impl Raised {
    fn of(groups: &[Group]) -> Self {
        Self { plain: groups.iter().map(|g| (g.name.clone(), g.clone())).collect(), seen: HashMap::new() }
    }

    fn raise(&mut self, groups: &mut [Group], nudged: &[Group]) {
        for n in nudged {
            let (group, tensor) = self.seen.entry(n.name.clone()).or_default();
            // `f64::max` passes over NaN: a run that has one raises nothing.
            *group = group.max(n.deviation);
            *tensor = n.checks.iter().map(|c| c.deviation).fold(*tensor, f64::max);
        }
        for g in groups.iter_mut().filter(|g| g.raisable && !g.holds()) {
            let (Some(&(group, tensor)), Some(plain)) = (self.seen.get(&g.name), self.plain.get(&g.name))
            else {
                continue;
            };
            let most =
                plain.second_worst().map_or(f64::INFINITY, |ratio| (tolerance::ALONE * ratio).max(1.0));
            let mut lift = |tolerance: &mut f64, before: f64, seen: f64| {
                let raised = (tolerance::AMPLIFIED * seen).min(most * before);
                if raised > *tolerance {
                    *tolerance = raised;
                    g.raised = true;
                }
            };
            lift(&mut g.tolerance, plain.tolerance, group);
            for (c, before) in g.checks.iter_mut().zip(&plain.checks) {
                lift(&mut c.tolerance, before.tolerance, tensor);
            }
        }
    }
}

/// The configuration in the metadata. What this version does not know is left out with a note.
fn config(golden: &Golden, notes: &mut Vec<String>) -> Result<Config> {
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
fn numbers(golden: &Golden, name: &str, list: &serde_json::Value, steps: u64) -> Result<Vec<f64>> {
    let list = list.as_array().filter(|l| l.len() as u64 == steps);
    // NaN is no JSON; whoever writes it as null means that.
    let list =
        list.ok_or_else(|| golden.error(format!("'{name}' in its metadata is no list of {steps} numbers")))?;
    Ok(list.iter().map(|x| x.as_f64().unwrap_or(f64::NAN)).collect())
}

/// A value of the step, downloaded once.
fn cached<'r>(
    read: &'r mut HashMap<Value, Vec<f32>>,
    trainer: &mut Trainer,
    value: Value,
) -> Result<&'r [f32]> {
    if let std::collections::hash_map::Entry::Vacant(slot) = read.entry(value) {
        slot.insert(trainer.read(value)?);
    }
    Ok(&read[&value])
}

impl Output {
    /// The value it is part of, and how many images that has in a direction.
    fn value(&self, trainer: &Trainer, batch: usize) -> Result<(Value, usize)> {
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

/// The tap of a module and its direction. A tap's first use is the first half of its pass's batch: the
/// image to translate, or the real one.
fn find_tap<'t>(trainer: &'t Trainer, net: &str, module: &str) -> Option<(&'t Tap, usize)> {
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
fn tap_value(
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
