//! Where the weights, gradients, moments, spectral vectors, inputs and results of a run lie.

use super::losses::{LossTerms, Terms};
use crate::nn::{
    Config, DiscriminatorParams, GeneratorParams, Net, ParamClass, ParamId, ParamLayout, ParamList,
    ParamSpec, ParamValues, Role,
};
use crate::tape::{AdamHyper, BufferRole, StateLayout, StateView, Tape, Value};
use crate::tensor::Shape;
use crate::{Error, Result};

/// Which of a parameter's four tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TensorRole {
    /// The parameter itself (for u and v: the vector).
    Weight,
    /// Its gradient in the latest step.
    Gradient,
    /// Adam's first moment.
    FirstMoment,
    /// Adam's second moment.
    SecondMoment,
}

/// One tensor of one network in a [`Model`], which hands it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TensorId {
    role: Role,
    direction: usize,
    param: ParamId,
    tensor: TensorRole,
}

impl TensorId {
    /// Official name of the network it belongs to.
    pub fn net(&self) -> &'static str {
        self.role.nets()[self.direction]
    }

    /// Which of the parameter's tensors it is.
    pub fn tensor(&self) -> TensorRole {
        self.tensor
    }
}

/// The buffers of one optimiser: weights, and for training gradients and moments, all of one layout.
#[derive(Clone, Debug)]
struct Group {
    /// For names of values.
    name: &'static str,
    weights: u32,
    trained: Option<TrainedBuffers>,
    /// Floats in each.
    len: usize,
    /// First float of the rhos, which lie together at the end.
    rho_first: usize,
}

#[derive(Clone, Copy, Debug)]
struct TrainedBuffers {
    gradients: u32,
    first_moments: u32,
    second_moments: u32,
}

impl Group {
    /// Places the parameters of some roles, and adds their buffers to the layout.
    fn new(
        name: &'static str,
        roles: &mut [&mut ParamLayout],
        training: bool,
        layout: &mut StateLayout,
    ) -> Self {
        let mut place = |class, from| roles.iter_mut().fold(from, |next, role| role.place(class, next));
        let rho_first = place(ParamClass::Weight, 0);
        let len = place(ParamClass::Rho, rho_first);
        let mut buffer = |role, what: &str| layout.add(role, format!("{name}.{what}"), 4 * len as u64);
        let weights = buffer(BufferRole::Weights, "weights");
        let trained = training.then(|| TrainedBuffers {
            gradients: buffer(BufferRole::Gradients, "gradients"),
            first_moments: buffer(BufferRole::Moments, "first moments"),
            second_moments: buffer(BufferRole::Moments, "second moments"),
        });
        Self { name, weights, trained, len, rho_first }
    }

    fn trained(&self) -> TrainedBuffers {
        self.trained.expect("the layout is one for training")
    }

    fn buffer(&self, tensor: TensorRole) -> u32 {
        match tensor {
            TensorRole::Weight => self.weights,
            TensorRole::Gradient => self.trained().gradients,
            TensorRole::FirstMoment => self.trained().first_moments,
            TensorRole::SecondMoment => self.trained().second_moments,
        }
    }
}

#[derive(Clone, Debug)]
struct Generators {
    layout: ParamLayout,
    params: GeneratorParams,
    group: Group,
}

/// Global and local ones: one optimiser.
#[derive(Clone, Debug)]
struct Discriminators {
    layouts: [ParamLayout; 2],
    params: [DiscriminatorParams; 2],
    group: Group,
}

/// The memory layout of one configuration.
#[derive(Clone, Debug)]
pub struct Model {
    /// Hyper-parameters.
    pub cfg: Config,
    /// The persistent buffers.
    pub layout: StateLayout,
    generators: Generators,
    /// None in a layout for inference.
    discriminators: Option<Discriminators>,
    /// Buffer of the spectral vectors.
    spectral: u32,
    /// Buffer of `[lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t)]`.
    schedule: u32,
    /// Buffer of the [`LossTerms`].
    terms: u32,
}

/// The reference's order of networks: role and direction.
const NETS: [(Role, usize); 6] = [
    (Role::Generator, 0),
    (Role::Generator, 1),
    (Role::Global, 1),
    (Role::Global, 0),
    (Role::Local, 1),
    (Role::Local, 0),
];

impl Model {
    /// The layout for training: all networks, with gradients and moments.
    pub fn for_training(cfg: &Config) -> Self {
        Self::new(cfg, true)
    }

    /// The layout for inference: the generators' weights.
    pub fn for_inference(cfg: &Config) -> Self {
        Self::new(cfg, false)
    }

    fn new(cfg: &Config, training: bool) -> Self {
        let mut layout = StateLayout::default();
        let mut list = ParamList::default();
        let params = GeneratorParams::new(&mut list, cfg);
        let mut generator = ParamLayout::new(Role::Generator, list);
        let group = Group::new("gen", &mut [&mut generator], training, &mut layout);
        let generators = Generators { layout: generator, params, group };
        let mut spectral_len = 0;
        let discriminators = training.then(|| {
            let make = |role, layers| {
                let mut list = ParamList::default();
                let params = DiscriminatorParams::new(&mut list, cfg, layers);
                (ParamLayout::new(role, list), params)
            };
            let (mut global, global_params) = make(Role::Global, cfg.layers_global());
            let (mut local, local_params) = make(Role::Local, cfg.layers_local());
            let group = Group::new("dis", &mut [&mut global, &mut local], training, &mut layout);
            for role in [&mut global, &mut local] {
                spectral_len = role.place(ParamClass::Spectral, spectral_len);
            }
            Discriminators { layouts: [global, local], params: [global_params, local_params], group }
        });
        // No buffer is empty.
        let spectral = layout.add(BufferRole::Spectral, "dis.vectors", 4 * spectral_len.max(4) as u64);
        let schedule = layout.add(BufferRole::Schedule, "schedule", size_of::<[f32; 2]>() as u64);
        let terms = layout.add(BufferRole::LossTerms, "loss terms", size_of::<LossTerms>() as u64);
        Self { cfg: cfg.clone(), layout, generators, discriminators, spectral, schedule, terms }
    }

    fn of_role(&self, role: Role) -> Option<(&ParamLayout, &Group)> {
        let of_discriminator = |which: usize| {
            let all = self.discriminators.as_ref()?;
            Some((&all.layouts[which], &all.group))
        };
        match role {
            Role::Generator => Some((&self.generators.layout, &self.generators.group)),
            Role::Global => of_discriminator(0),
            Role::Local => of_discriminator(1),
        }
    }

    fn expect_role(&self, role: Role) -> (&ParamLayout, &Group) {
        self.of_role(role).unwrap_or_else(|| panic!("{role:?} is not part of an inference layout"))
    }

    fn net<P: Clone>(
        &self,
        tape: &mut Tape,
        layout: &ParamLayout,
        group: &Group,
        params: &P,
        direction: Option<usize>,
    ) -> Net<P> {
        let values = ParamValues::new(tape, layout, direction, |class| match class {
            ParamClass::Weight | ParamClass::Rho => group.weights,
            ParamClass::Spectral => self.spectral,
        });
        Net { params: params.clone(), values }
    }

    /// The generators on a tape, both or the one of a direction.
    pub fn generator(&self, tape: &mut Tape, direction: Option<usize>) -> Net<GeneratorParams> {
        let Generators { layout, params, group } = &self.generators;
        self.net(tape, layout, group, params, direction)
    }

    /// The global and the local discriminators on a tape.
    ///
    /// # Panics
    /// When the layout is for inference.
    pub fn discriminators(&self, tape: &mut Tape) -> [Net<DiscriminatorParams>; 2] {
        let all = self.discriminators.as_ref().expect("the layout is one for training");
        [0, 1].map(|i| self.net(tape, &all.layouts[i], &all.group, &all.params[i], None))
    }

    /// For `Tape::backward`: every weight of the networks with the value its gradient goes to.
    pub fn gradients(&self, tape: &mut Tape, nets: &[&ParamValues]) -> Vec<(Value, Value)> {
        let mut out = Vec::new();
        for values in nets {
            let (layout, group) = self.expect_role(values.role());
            let buffer = group.trained().gradients;
            for id in layout.ids().filter(|id| layout.spec(*id).is_trained()) {
                let weight = values.get(id);
                let (name, shape) = (format!("d({})", tape.info(weight).name), tape.shape(weight));
                let view = StateView { buffer, offset: 4 * layout.first(id) as u64 };
                out.push((weight, tape.state(name, shape, view)));
            }
        }
        out
    }

    /// Appends the Adam step of a role's optimiser, and for the generators the rho clip.
    pub fn optimise(&self, tape: &mut Tape, role: Role) {
        let (_, group) = self.expect_role(role);
        let (name, trained) = (group.name, group.trained());
        let shape = Shape::row(1, group.len);
        let mut whole = |what: &str, buffer: u32| {
            tape.state(format!("{name}.{what}"), shape, StateView { buffer, offset: 0 })
        };
        let p = whole("weights", group.weights);
        let m = whole("first moments", trained.first_moments);
        let v = whole("second moments", trained.second_moments);
        let g = whole("gradients", trained.gradients);
        let schedule =
            tape.state("schedule", Shape::row(1, 2), StateView { buffer: self.schedule, offset: 0 });
        let c = &self.cfg;
        let hyper =
            AdamHyper { beta1: c.beta1, beta2: c.beta2, eps: c.eps_adam, weight_decay: c.weight_decay };
        tape.adam(p, m, v, g, schedule, hyper);
        if group.rho_first < group.len {
            let view = StateView { buffer: group.weights, offset: 4 * group.rho_first as u64 };
            let rho = tape.state(format!("{name}.rho"), Shape::row(1, group.len - group.rho_first), view);
            tape.clip_rho(rho, c.rho_max as f32);
        }
    }

    /// The value of some loss terms, `[2, halves]`.
    pub(super) fn terms_value(&self, tape: &mut Tape, name: &str, terms: Terms) -> Value {
        let view = StateView { buffer: self.terms, offset: terms.offset as u64 };
        tape.state(name, Shape::new(2, terms.halves, 1, 1, 1), view)
    }

    /// First byte of the loss terms.
    pub(super) fn terms_offset(&self) -> u64 {
        self.layout.offset(StateView { buffer: self.terms, offset: 0 })
    }

    /// First byte of the schedule.
    pub(super) fn schedule_offset(&self) -> u64 {
        self.layout.offset(StateView { buffer: self.schedule, offset: 0 })
    }

    /// All tensors of these kinds in the official order, one kind after the other; the vectors of spectral
    /// normalisation have no gradients and moments. In a layout for inference there are weights only.
    pub fn tensors(&self, kinds: &[TensorRole]) -> Vec<TensorId> {
        let mut out = Vec::new();
        for &tensor in kinds {
            for (role, direction) in NETS {
                let Some((layout, group)) = self.of_role(role) else { continue };
                let there = |param: &ParamId| {
                    tensor == TensorRole::Weight
                        || group.trained.is_some() && layout.spec(*param).is_trained()
                };
                let id = |param| TensorId { role, direction, param, tensor };
                out.extend(layout.ids().filter(there).map(id));
            }
        }
        out
    }

    /// The tensor of an official network and key, as files name them.
    ///
    /// # Errors
    /// When the network or the key does not exist, or the parameter has no such tensor.
    pub fn find(&self, net: &str, key: &str, tensor: TensorRole) -> Result<TensorId> {
        let found = || {
            let (role, direction) = Role::of_net(net)?;
            let (layout, group) = self.of_role(role)?;
            let param = layout.find(key)?;
            let there =
                tensor == TensorRole::Weight || group.trained.is_some() && layout.spec(param).is_trained();
            there.then_some(TensorId { role, direction, param, tensor })
        };
        found().ok_or_else(|| Error::new(format!("the model has no tensor {net}/{key}")))
    }

    /// The parameter that a tensor belongs to: official key, shape, order.
    ///
    /// # Panics
    /// When the tensor is of a network that this layout does not have.
    pub fn spec(&self, id: TensorId) -> &ParamSpec {
        self.expect_role(id.role).0.spec(id.param)
    }

    /// First byte of a tensor.
    ///
    /// # Panics
    /// As [`Self::spec`].
    pub fn locate(&self, id: TensorId) -> u64 {
        let (layout, group) = self.expect_role(id.role);
        let spec = layout.spec(id.param);
        let buffer = if spec.is_trained() { group.buffer(id.tensor) } else { self.spectral };
        let first = layout.first(id.param) + id.direction * spec.len();
        self.layout.offset(StateView { buffer, offset: 4 * first as u64 })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn tensors_lie_apart_and_are_found_by_their_official_names() {
        use TensorRole::{FirstMoment, Gradient, SecondMoment, Weight};
        let cfg = Config { img_size: 12, ch: 3, n_res: 1, n_dis: 3, light: true, ..Config::default() };
        let model = Model::for_training(&cfg);
        let all = model.tensors(&[Weight, Gradient, FirstMoment, SecondMoment]);
        let mut ranges = Vec::new();
        for &id in &all {
            assert_eq!(model.find(id.net(), &model.spec(id).key, id.tensor()), Ok(id));
            ranges.push((model.locate(id), model.locate(id) + 4 * model.spec(id).len() as u64));
        }
        ranges.sort_unstable();
        assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0));
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        assert_eq!(all.first().map(|id| id.net()), Some("genA2B"));
        assert_eq!(model.spec(all[0]).key, "gap_fc.weight");

        assert!(model.find("genA2B", "gap_fc.weight_u", Weight).is_err());
        assert!(model.find("disGA", "gap_fc.weight_u", Weight).is_ok());
        let error = model.find("disGA", "gap_fc.weight_u", Gradient).unwrap_err();
        assert_eq!(error.message(), "the model has no tensor disGA/gap_fc.weight_u");
        let inference = Model::for_inference(&cfg);
        assert!(inference.find("disGA", "gap_fc.weight_orig", Weight).is_err());
        assert!(inference.find("genB2A", "gap_fc.weight", FirstMoment).is_err());
        assert!(inference.tensors(&[Weight]).len() < model.tensors(&[Weight]).len());
        assert!(inference.tensors(&[FirstMoment]).is_empty());
    }
}
