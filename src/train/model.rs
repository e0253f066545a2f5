//! Where the weights, gradients, moments, spectral vectors, inputs and results of a run lie.

use std::collections::BTreeMap;

use super::losses::TERMS;
use crate::nn::{Bound, Config, Net, NetSpec, ParamSpec, Role};
use crate::tape::{StateLayout, StateView, Tape, Value};
use crate::tensor::Shape;
use crate::{Error, Result};

/// Which of a weight's four tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// The weight (for u and v: the vector).
    Weight,
    /// Its gradient in the latest step.
    Grad,
    /// Adam's first moment.
    M,
    /// Adam's second moment.
    V,
}

/// The parameters of one optimiser: weights, gradients and moments as four buffers of one layout.
#[derive(Clone, Debug)]
pub struct Group {
    /// Buffer of the weights, gradients, first and second moments; the last three only for training.
    pub weight: u32,
    grad: Option<u32>,
    m: Option<u32>,
    v: Option<u32>,
    /// Floats in each.
    pub len: usize,
    /// First float of the rhos, which lie together at the end.
    pub rho_first: usize,
}

/// The memory layout of one configuration.
#[derive(Clone, Debug)]
pub struct Model {
    /// Hyper-parameters.
    pub cfg: Config,
    /// The persistent buffers.
    pub layout: StateLayout,
    bounds: BTreeMap<Role, Bound>,
    generators: Group,
    discriminators: Option<Group>,
    vectors: u32,
    /// Buffer of `[lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t)]`.
    schedule: u32,
    /// Buffer of the loss terms.
    terms: u32,
}

/// Tensors start on 16 bytes, for vector loads.
const ALIGN: usize = 4;

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
        let mut bounds = BTreeMap::new();
        let generators = Self::group(cfg, "gen", &[Role::Generator], training, &mut layout, &mut bounds);
        let discriminators = training.then(|| {
            Self::group(cfg, "dis", &[Role::Global, Role::Local], training, &mut layout, &mut bounds)
        });
        let mut next = 0;
        for bound in bounds.values_mut() {
            for spec in &bound.spec.vectors {
                bound.vector_offset.push(next);
                next += (2 * spec.len()).next_multiple_of(ALIGN);
            }
        }
        let vectors = layout.add("dis.vectors", 4 * next.max(ALIGN) as u64);
        let schedule = layout.add("schedule", 8);
        let terms = layout.add("loss terms", 4 * TERMS as u64);
        Self { cfg: cfg.clone(), layout, bounds, generators, discriminators, vectors, schedule, terms }
    }

    fn group(
        cfg: &Config,
        name: &str,
        roles: &[Role],
        training: bool,
        layout: &mut StateLayout,
        bounds: &mut BTreeMap<Role, Bound>,
    ) -> Group {
        let mut next = 0;
        for &role in roles {
            let spec = NetSpec::new(role, cfg);
            let weight_offset = vec![0; spec.weights.len()];
            bounds.insert(role, Bound { spec, weight_offset, vector_offset: Vec::new() });
        }
        let mut place = |rhos: bool| {
            for role in roles {
                let bound = bounds.get_mut(role).expect("just inserted");
                for (spec, offset) in bound.spec.weights.iter().zip(&mut bound.weight_offset) {
                    if spec.is_rho() == rhos {
                        *offset = next;
                        next += (2 * spec.len()).next_multiple_of(ALIGN);
                    }
                }
            }
            next
        };
        let rho_first = place(false);
        let len = place(true);
        let mut buffer = |what: &str| layout.add(format!("{name}.{what}"), 4 * len as u64);
        let weight = buffer("weights");
        let mut extra = |what: &str| training.then(|| buffer(what));
        Group {
            weight,
            grad: extra("gradients"),
            m: extra("first moments"),
            v: extra("second moments"),
            len,
            rho_first,
        }
    }

    /// The tensors of a role.
    ///
    /// # Panics
    /// When the layout is for inference and the role a discriminator.
    pub fn bound(&self, role: Role) -> &Bound {
        self.bounds.get(&role).unwrap_or_else(|| panic!("{role:?} is not part of an inference layout"))
    }

    /// Roles of this layout.
    pub fn roles(&self) -> impl Iterator<Item = Role> + '_ {
        self.bounds.keys().copied()
    }

    /// The optimiser group of a role.
    pub fn group_of(&self, role: Role) -> &Group {
        match role {
            Role::Generator => &self.generators,
            _ => self.discriminators.as_ref().expect("a discriminator of a training layout"),
        }
    }

    /// A role's tensors as values of a tape.
    pub fn net(&self, tape: &mut Tape, role: Role, direction: Option<usize>) -> Net {
        Net::bind(tape, self.bound(role), self.group_of(role).weight, self.vectors, direction)
    }

    /// For `Tape::backward`: every weight of the roles with the value its gradient goes to.
    pub fn gradients(&self, tape: &mut Tape, nets: &[(Role, &Net)]) -> Vec<(Value, Value)> {
        let mut out = Vec::new();
        for (role, net) in nets {
            let bound = self.bound(*role);
            let buffer = self.group_of(*role).grad.expect("a training layout");
            for (spec, &first) in bound.spec.weights.iter().zip(&bound.weight_offset) {
                let weight = net.get(&spec.key);
                let (name, shape) = (format!("d({})", tape.info(weight).name), tape.shape(weight));
                out.push((weight, tape.state(name, shape, StateView { buffer, offset: 4 * first as u64 })));
            }
        }
        out
    }

    /// Appends the Adam step of a group, and for the generators the rho clip.
    pub fn optimise(&self, tape: &mut Tape, role: Role) {
        let group = self.group_of(role);
        let name = if role == Role::Generator { "gen" } else { "dis" };
        let shape = Shape::row(1, group.len);
        let mut whole = |what: &str, buffer: u32| {
            tape.state(format!("{name}.{what}"), shape, StateView { buffer, offset: 0 })
        };
        let p = whole("weights", group.weight);
        let m = whole("first moments", group.m.expect("a training layout"));
        let v = whole("second moments", group.v.expect("a training layout"));
        let g = whole("gradients", group.grad.expect("a training layout"));
        let schedule =
            tape.state("schedule", Shape::row(1, 2), StateView { buffer: self.schedule, offset: 0 });
        let c = &self.cfg;
        let hyper = crate::tape::AdamHyper {
            beta1: c.beta1,
            beta2: c.beta2,
            eps: c.eps_adam,
            weight_decay: c.weight_decay,
        };
        tape.adam(p, m, v, g, schedule, hyper);
        if group.rho_first < group.len {
            let view = StateView { buffer: group.weight, offset: 4 * group.rho_first as u64 };
            let rho = tape.state(format!("{name}.rho"), Shape::row(1, group.len - group.rho_first), view);
            tape.clip_rho(rho, c.rho_max as f32);
        }
    }

    /// The value of some loss terms, `[2, halves]` from float `first` on.
    pub(super) fn terms_value(&self, tape: &mut Tape, name: &str, first: usize, halves: usize) -> Value {
        let view = StateView { buffer: self.terms, offset: 4 * first as u64 };
        tape.state(name, Shape::new(2, halves, 1, 1, 1), view)
    }

    /// First byte of the loss terms.
    pub(super) fn terms_offset(&self) -> u64 {
        self.layout.offset(StateView { buffer: self.terms, offset: 0 })
    }

    /// First byte of the schedule.
    pub(super) fn schedule_offset(&self) -> u64 {
        self.layout.offset(StateView { buffer: self.schedule, offset: 0 })
    }

    /// First byte of one network's tensor, and what it is.
    ///
    /// # Errors
    /// When the network or the key does not exist, or the slot does not apply to it.
    pub fn locate(&self, net: &str, key: &str, slot: Slot) -> Result<(u64, &ParamSpec)> {
        let unknown = || Error::new(format!("the model has no tensor {net}/{key}"));
        let (role, direction) = Role::of_net(net).ok_or_else(unknown)?;
        let bound = self.bounds.get(&role).ok_or_else(unknown)?;
        if let Some(i) = bound.spec.weights.iter().position(|s| s.key == key) {
            let group = self.group_of(role);
            let buffer = match slot {
                Slot::Weight => Some(group.weight),
                Slot::Grad => group.grad,
                Slot::M => group.m,
                Slot::V => group.v,
            }
            .ok_or_else(unknown)?;
            let spec = &bound.spec.weights[i];
            let first = bound.weight_offset[i] + direction * spec.len();
            return Ok((self.layout.offset(StateView { buffer, offset: 4 * first as u64 }), spec));
        }
        let i = bound.spec.vectors.iter().position(|s| s.key == key).filter(|_| slot == Slot::Weight);
        let i = i.ok_or_else(unknown)?;
        let spec = &bound.spec.vectors[i];
        let first = bound.vector_offset[i] + direction * spec.len();
        Ok((self.layout.offset(StateView { buffer: self.vectors, offset: 4 * first as u64 }), spec))
    }

    /// Every tensor of the layout in the official order: network, key, whether it is trained.
    pub fn tensors(&self) -> Vec<(&'static str, &str, bool)> {
        // The reference's order of networks.
        ["genA2B", "genB2A", "disGA", "disGB", "disLA", "disLB"]
            .into_iter()
            .filter_map(|net| {
                let (role, _) = Role::of_net(net)?;
                Some((net, self.bounds.get(&role)?))
            })
            .flat_map(|(net, bound)| {
                bound
                    .spec
                    .order
                    .iter()
                    .map(move |key| (net, key.as_str(), bound.spec.weights.iter().any(|s| s.key == *key)))
            })
            .collect()
    }
}
