//! One training iteration on a tape: the lean schedule, equal in result to the official one.
//!
//! Against the official order (SPEC section 7): the fakes are computed once and shared by both steps
//! (the generators do not change in between); they are detached in the D step; translation and identity
//! passes run as one batch, real and fake as one batch through the discriminators; the G step computes
//! no weight gradients of the discriminators.
//!
//! Direction 0 is genA2B with the discriminators of B, direction 1 genB2A with those of A. The input
//! `pair [2, 2N, S, S, 3]` holds, by direction, the images to translate and the images to keep:
//! (A, B) and (B, A).

use super::losses::LossTerms;
use super::model::Model;
use crate::nn::{self, Config, DiscriminatorOutput, GeneratorOutput, Role};
use crate::tape::{Activation, BufferRole, LossKind, Seed, StateLayout, StateView, Tape, Value};
use crate::tensor::Shape;

/// What else the host wants to read after a step; costs memory and a few launches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// Outputs and heatmaps of every pass.
    pub outputs: bool,
    /// Intermediate results of the first pass of the generators and the global discriminators.
    pub taps: bool,
}

/// Outputs of a generator pass: image, CAM logits, heatmap.
#[derive(Clone, Copy, Debug)]
pub struct GOutput {
    /// `[2, n, S, S, 3]`.
    pub image: Value,
    /// `[2, n, 1, 1, 2]`.
    pub cam_logit: Value,
    /// `[2, n, S/4, S/4, 1]`.
    pub heatmap: Value,
}

/// Outputs of a discriminator pass: patch logits, CAM logits, heatmap.
#[derive(Clone, Copy, Debug)]
pub struct DOutput {
    /// `[2, n, h, w, 1]`.
    pub logit: Value,
    /// `[2, n, 1, 1, 2]`.
    pub cam_logit: Value,
    /// `[2, n, h', w', 1]`.
    pub heatmap: Value,
}

/// The values of a step that the host may read.
#[derive(Clone, Debug)]
pub struct StepOutputs {
    /// The input pair.
    pub pair: StateView,
    /// Translation then identity, n = 2N. Only when recorded, like the rest.
    pub first: Option<GOutput>,
    /// The cycle, n = N.
    pub cycle: Option<GOutput>,
    /// Global and local discriminators in the D step: real then fake, n = 2N.
    pub d_step: Vec<DOutput>,
    /// The same in the G step: fake, n = N.
    pub g_step: Vec<DOutput>,
    /// Taps of the first generator pass.
    pub generator_taps: Vec<nn::Tap>,
    /// Taps of the global discriminators in the D step.
    pub global_taps: Vec<nn::Tap>,
}

fn keep_generator(tape: &mut Tape, g: &GeneratorOutput) -> GOutput {
    let heatmap = tape.heatmap(g.attended);
    for v in [g.image, g.cam_logit, heatmap] {
        tape.keep(v);
    }
    GOutput { image: g.image, cam_logit: g.cam_logit, heatmap }
}

fn keep_discriminator(tape: &mut Tape, d: &DiscriminatorOutput) -> DOutput {
    let heatmap = tape.heatmap(d.attended);
    for v in [d.logit, d.cam_logit, heatmap] {
        tape.keep(v);
    }
    DOutput { logit: d.logit, cam_logit: d.cam_logit, heatmap }
}

/// Adds the input pair for batches of `n` images to the layout.
fn pair_input(
    tape: &mut Tape,
    layout: &mut StateLayout,
    name: &str,
    n: usize,
    cfg: &Config,
) -> (StateView, Value) {
    let shape = Shape::new(2, 2 * n, cfg.img_size, cfg.img_size, cfg.img_ch);
    let buffer = layout.add(BufferRole::Images, name, 4 * shape.len() as u64);
    let view = StateView { buffer, offset: 0 };
    (view, tape.state(name, shape, view))
}

/// Records a whole training iteration for batches of `n` images.
pub fn record_step(model: &mut Model, n: usize, recording: Recording) -> (Tape, StepOutputs) {
    let cfg = model.cfg.clone();
    let mut tape = Tape::new();
    let t = &mut tape;
    let (pair_view, pair) = pair_input(t, &mut model.layout, "images", n, &cfg);
    let gen_net = model.generator(t, None);
    let dis_nets = model.discriminators(t);
    let mut outputs = StepOutputs {
        pair: pair_view,
        first: None,
        cycle: None,
        d_step: Vec::new(),
        g_step: Vec::new(),
        generator_taps: Vec::new(),
        global_taps: Vec::new(),
    };

    // Translation and identity, one batch.
    t.set_scope("gen");
    let first = nn::generator(t, &cfg, &gen_net, pair);
    if recording.outputs {
        outputs.first = Some(keep_generator(t, &first));
    }

    // Discriminator step: real and fake, one batch. The second half of `pair` is the real images of
    // the domain that the direction's generator translates to.
    t.set_scope("D step");
    let mut seeds = Vec::new();
    let batch = t.gather("real and fake", &[(pair, n, n, false), (first.image, 0, n, false)]);
    for (i, net) in dis_nets.iter().enumerate() {
        let role = net.values.role();
        t.set_scope(format!("D step.{}", role.short()));
        let d = nn::discriminator(t, net, batch, 2);
        for (j, logit) in [d.logit, d.cam_logit].into_iter().enumerate() {
            let what = ["patch", "cam"][j];
            let name = format!("D step.{}.{what} loss", role.short());
            let terms = model.terms_value(t, &name, LossTerms::discriminator(i, j));
            t.loss(LossKind::Mse, logit, None, &[1.0, 0.0], terms);
            seeds.push(Seed::Loss(terms, [cfg.adv_weight as f32; 2]));
        }
        if recording.outputs {
            outputs.d_step.push(keep_discriminator(t, &d));
        }
        if recording.taps && role == Role::Global {
            d.taps.iter().for_each(|tap| t.keep(tap.value));
            outputs.global_taps = d.taps;
        }
    }
    let wrt = model.gradients(t, &dis_nets.each_ref().map(|net| &net.values));
    t.backward(&seeds, &wrt);
    model.optimise(t, Role::Global);

    // Generator step: the fakes through the updated discriminators.
    seeds.clear();
    t.set_scope("G step");
    let fakes = t.gather("fakes", &[(first.image, 0, n, false)]);
    for (i, net) in dis_nets.iter().enumerate() {
        let role = net.values.role();
        t.set_scope(format!("G step.{}", role.short()));
        let d = nn::discriminator(t, net, fakes, 1);
        for (j, logit) in [d.logit, d.cam_logit].into_iter().enumerate() {
            let what = ["patch", "cam"][j];
            let name = format!("G step.{}.{what} loss", role.short());
            let terms = model.terms_value(t, &name, LossTerms::generator(i, j));
            t.loss(LossKind::Mse, logit, None, &[1.0], terms);
            seeds.push(Seed::Loss(terms, [cfg.adv_weight as f32; 2]));
        }
        if recording.outputs {
            outputs.g_step.push(keep_discriminator(t, &d));
        }
    }

    t.set_scope("cycle");
    let crossed = t.gather("input", &[(first.image, 0, n, true)]);
    let real = t.gather("target", &[(pair, n, n, false)]);
    let cycle = nn::generator(t, &cfg, &gen_net, crossed);
    if recording.outputs {
        outputs.cycle = Some(keep_generator(t, &cycle));
    }
    t.set_scope("");
    let terms = model.terms_value(t, "cycle loss", LossTerms::CYCLE);
    t.loss(LossKind::L1, cycle.image, Some(real), &[0.0], terms);
    seeds.push(Seed::Loss(terms, [cfg.cycle_weight as f32; 2]));

    let terms = model.terms_value(t, "cam loss", LossTerms::CAM);
    t.loss(LossKind::Bce, first.cam_logit, None, &[1.0, 0.0], terms);
    seeds.push(Seed::Loss(terms, [cfg.cam_weight as f32; 2]));

    // The identity loss looks at the second half only (the first has weight 0). Recorded last, its
    // gradient is the first to be written, over both halves; the others add to parts of it.
    let terms = model.terms_value(t, "identity loss", LossTerms::IDENTITY);
    t.loss(LossKind::L1, first.image, Some(pair), &[0.0, 0.0], terms);
    seeds.push(Seed::Loss(terms, [0.0, cfg.identity_weight as f32]));

    if recording.taps {
        first.taps.iter().for_each(|tap| t.keep(tap.value));
        outputs.generator_taps = first.taps;
    }
    let wrt = model.gradients(t, &[&gen_net.values]);
    t.backward(&seeds, &wrt);
    model.optimise(t, Role::Generator);
    (tape, outputs)
}

/// The values of a sample grid's program.
#[derive(Clone, Copy, Debug)]
pub struct SampleGridOutputs {
    /// The input pair, `[2, 2n, S, S, 3]`.
    pub pair: StateView,
    /// Translation then identity, `[2, 2n]`.
    pub first: GOutput,
    /// The cycle, `[2, n]`: direction 0 is B2A2B.
    pub cycle: GOutput,
}

/// Records the forward passes of a sample grid over `n` images of each domain.
pub fn record_sample_grid(model: &mut Model, n: usize) -> (Tape, SampleGridOutputs) {
    let cfg = model.cfg.clone();
    let mut tape = Tape::new();
    let t = &mut tape;
    let (pair_view, pair) = pair_input(t, &mut model.layout, "sample images", n, &cfg);
    let net = model.generator(t, None);
    t.set_scope("sample grid");
    let first = nn::generator(t, &cfg, &net, pair);
    let crossed = t.gather("input", &[(first.image, 0, n, true)]);
    t.set_scope("sample grid cycle");
    let cycle = nn::generator(t, &cfg, &net, crossed);
    let outputs = SampleGridOutputs {
        pair: pair_view,
        first: keep_generator(t, &first),
        cycle: keep_generator(t, &cycle),
    };
    (tape, outputs)
}

/// Records one generator pass over `n` images in one direction; returns its input and outputs.
pub fn record_translate(model: &mut Model, direction: usize, n: usize) -> (Tape, StateView, GOutput) {
    let cfg = model.cfg.clone();
    let mut tape = Tape::new();
    let t = &mut tape;
    let shape = Shape::new(1, n, cfg.img_size, cfg.img_size, cfg.img_ch);
    let view = StateView {
        buffer: model.layout.add(BufferRole::Images, "images", 4 * shape.len() as u64),
        offset: 0,
    };
    let x = t.state("images", shape, view);
    let net = model.generator(t, Some(direction));
    t.set_scope("gen");
    let g = nn::generator(t, &cfg, &net, x);
    let out = keep_generator(t, &g);
    (tape, view, out)
}

/// The activation a tap's reference value has to go through before it is compared.
pub fn apply(act: Activation, x: f32) -> f32 {
    match act {
        Activation::None => x,
        Activation::Relu => x.max(0.0),
        Activation::LeakyRelu => {
            if x > 0.0 {
                x
            } else {
                0.2 * x
            }
        }
        Activation::Tanh => x.tanh(),
    }
}
