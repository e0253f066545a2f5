//! Names, shapes, layouts and initial values of parameters, and how files and device memory differ.
//!
//! Files hold the official state_dict: NCHW, one tensor a network. The device holds both directions of
//! a tensor one after the other, convolution weights as `[K, K, CI, CO]`. A parameter is a [`ParamId`]; its
//! official name is for files and for people.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::tape::{StateView, Tape, Value};
use crate::tensor::Shape;

/// One network, in both directions. Direction d of a discriminator judges what generator d makes, so
/// direction 0 is genA2B with the discriminators of domain B.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// genA2B, genB2A.
    Generator,
    /// disGB, disGA.
    Global,
    /// disLB, disLA.
    Local,
}

impl Role {
    /// All roles.
    pub const ALL: [Role; 3] = [Role::Generator, Role::Global, Role::Local];

    /// Official names of its two networks, by direction.
    pub fn nets(self) -> [&'static str; 2] {
        match self {
            Role::Generator => ["genA2B", "genB2A"],
            Role::Global => ["disGB", "disGA"],
            Role::Local => ["disLB", "disLA"],
        }
    }

    /// Role and direction of an official network name.
    pub fn of_net(name: &str) -> Option<(Role, usize)> {
        Role::ALL.into_iter().find_map(|r| r.nets().iter().position(|n| *n == name).map(|d| (r, d)))
    }

    /// For names of values: `gen`, `disG`, `disL`.
    pub fn short(self) -> &'static str {
        match self {
            Role::Generator => "gen",
            Role::Global => "disG",
            Role::Local => "disL",
        }
    }
}

/// A parameter of a role: its place in the official order, handed out by the [`ParamList`] it was added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParamId(u32);

impl ParamId {
    fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a parameter is to the optimiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamClass {
    /// Trained.
    Weight,
    /// Trained, and clipped after each step: the rho of an AdaLIN or ILN.
    Rho,
    /// A vector of spectral normalisation, u or v: written by the power iterations.
    Spectral,
}

/// How a tensor's elements are ordered in a file, against the device's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// The same.
    Same,
    /// File `[CO, CI, K, K]`, device `[K, K, CI, CO]`.
    Conv { k: usize, ci: usize, co: usize },
    /// File `[CI, K, K]` (a spectral v), device `[K, K, CI]`.
    Taps { k: usize, ci: usize },
    /// File `[O, C, H, W]`, device `[O, H, W, C]`.
    Flat { o: usize, c: usize, pixels: usize },
}

/// How a tensor starts.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Init {
    /// Uniform in +-1/sqrt(fan_in), PyTorch's default for convolutions and linear layers.
    Uniform {
        fan_in: usize,
    },
    Constant(f32),
    /// A standard normal vector divided by its length (u and v).
    UnitNormal,
}

/// One tensor of a network.
#[derive(Clone, Debug)]
pub struct ParamSpec {
    /// Official key, such as `DownBlock.5.weight`.
    pub key: String,
    /// Extents in a file.
    pub dims: Vec<usize>,
    /// Extents of one direction on the device (d = 1).
    pub shape: Shape,
    /// What it is to the optimiser.
    pub class: ParamClass,
    order: Order,
    init: Init,
}

impl ParamSpec {
    /// Elements of one direction.
    pub fn len(&self) -> usize {
        self.shape.len()
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it has a gradient and moments.
    pub fn is_trained(&self) -> bool {
        self.class != ParamClass::Spectral
    }

    /// Calls `pair` with the position of every element in the device's order and in the file's.
    fn for_each_pair(&self, mut pair: impl FnMut(usize, usize)) {
        let mut device = 0;
        let mut next = |file| {
            pair(device, file);
            device += 1;
        };
        match self.order {
            Order::Same => (0..self.len()).for_each(next),
            Order::Conv { k, ci, co } => {
                for tap in 0..k * k {
                    for i in 0..ci {
                        (0..co).for_each(|o| next((o * ci + i) * k * k + tap));
                    }
                }
            }
            Order::Taps { k, ci } => {
                for tap in 0..k * k {
                    (0..ci).for_each(|i| next(i * k * k + tap));
                }
            }
            Order::Flat { o, c, pixels } => {
                for row in 0..o {
                    for p in 0..pixels {
                        (0..c).for_each(|ch| next((row * c + ch) * pixels + p));
                    }
                }
            }
        }
    }

    /// One direction's elements from the file's order to the device's.
    pub fn to_device(&self, file: &[f32]) -> Vec<f32> {
        if self.order == Order::Same {
            return file.to_vec();
        }
        let mut device = vec![0.0; file.len()];
        self.for_each_pair(|d, f| device[d] = file[f]);
        device
    }

    /// One direction's elements from the device's order to the file's.
    pub fn to_file(&self, device: &[f32]) -> Vec<f32> {
        if self.order == Order::Same {
            return device.to_vec();
        }
        let mut file = vec![0.0; device.len()];
        self.for_each_pair(|d, f| file[f] = device[d]);
        file
    }

    /// Initial values in the file's order.
    pub fn initial(&self, rng: &mut ChaCha8Rng) -> Vec<f32> {
        let n = self.len();
        match self.init {
            Init::Constant(v) => vec![v; n],
            Init::Uniform { fan_in } => {
                let bound = (fan_in as f32).sqrt().recip();
                (0..n).map(|_| rng.random_range(-bound..bound)).collect()
            }
            Init::UnitNormal => {
                // Box-Muller in f64: two uniforms make one normal here, which is plenty.
                let draws: Vec<f64> = (0..n)
                    .map(|_| {
                        let (a, b): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
                        (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
                    })
                    .collect();
                let norm = draws.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-12);
                draws.iter().map(|x| (x / norm) as f32).collect()
            }
        }
    }
}

/// A weight with the vectors of its spectral normalisation.
#[derive(Clone, Copy, Debug)]
pub struct SpectralParams {
    /// The weight as it is trained.
    pub weight: ParamId,
    /// Left singular vector, one element for each output channel.
    pub u: ParamId,
    /// Right singular vector.
    pub v: ParamId,
}

/// The parameters of a role in the official order, as far as they were added.
#[derive(Debug, Default)]
pub struct ParamList(Vec<ParamSpec>);

impl ParamList {
    fn push(&mut self, spec: ParamSpec) -> ParamId {
        self.0.push(spec);
        ParamId((self.0.len() - 1) as u32)
    }

    fn weight(
        &mut self,
        key: impl Into<String>,
        dims: &[usize],
        shape: Shape,
        order: Order,
        init: Init,
    ) -> ParamId {
        let (key, class) = (key.into(), ParamClass::Weight);
        self.push(ParamSpec { key, dims: dims.to_vec(), shape, class, order, init })
    }

    /// The weights of a linear layer with one output, `[1, C]`.
    pub(super) fn row(&mut self, key: impl Into<String>, c: usize) -> ParamId {
        self.weight(key, &[1, c], Shape::row(1, c), Order::Same, Init::Uniform { fan_in: c })
    }

    /// One value a channel, `[1, C, 1, 1]`.
    pub(super) fn map_row(&mut self, key: impl Into<String>, c: usize, value: f32) -> ParamId {
        self.weight(key, &[1, c, 1, 1], Shape::row(1, c), Order::Same, Init::Constant(value))
    }

    /// The share of the instance norm, one value a channel.
    pub(super) fn rho(&mut self, key: impl Into<String>, c: usize, value: f32) -> ParamId {
        let id = self.map_row(key, c, value);
        self.0[id.index()].class = ParamClass::Rho;
        id
    }

    /// The weights of a linear layer, `[O, I]`.
    pub(super) fn linear(&mut self, key: impl Into<String>, o: usize, i: usize) -> ParamId {
        self.weight(key, &[o, i], Shape::new(1, 1, 1, o, i), Order::Same, Init::Uniform { fan_in: i })
    }

    /// The weights of a linear layer over a whole map of `c` channels, `[O, C H W]`.
    pub(super) fn linear_over_map(
        &mut self,
        key: impl Into<String>,
        o: usize,
        c: usize,
        pixels: usize,
    ) -> ParamId {
        let i = pixels * c;
        let order = Order::Flat { o, c, pixels };
        self.weight(key, &[o, i], Shape::new(1, 1, 1, o, i), order, Init::Uniform { fan_in: i })
    }

    /// The weights of a convolution, `[CO, CI, K, K]`.
    pub(super) fn conv(&mut self, key: impl Into<String>, co: usize, ci: usize, k: usize) -> ParamId {
        let fan_in = ci * k * k;
        let shape = Shape::new(1, k, k, ci, co);
        self.weight(key, &[co, ci, k, k], shape, Order::Conv { k, ci, co }, Init::Uniform { fan_in })
    }

    /// The bias of a convolution, `[CO]`.
    pub(super) fn bias(&mut self, key: impl Into<String>, co: usize, fan_in: usize) -> ParamId {
        self.weight(key, &[co], Shape::row(1, co), Order::Same, Init::Uniform { fan_in })
    }

    /// The vectors of a module whose weight, `[CO, CI, K, K]`, was just added.
    pub(super) fn spectral(
        &mut self,
        module: &str,
        weight: ParamId,
        [co, ci, k]: [usize; 3],
    ) -> SpectralParams {
        let n = ci * k * k;
        let mut vector = |name: &str, len: usize, order: Order| {
            self.push(ParamSpec {
                key: format!("{module}.{name}"),
                dims: vec![len],
                shape: Shape::row(1, len),
                class: ParamClass::Spectral,
                order,
                init: Init::UnitNormal,
            })
        };
        let u = vector("weight_u", co, Order::Same);
        let v = vector("weight_v", n, Order::Taps { k, ci });
        SpectralParams { weight, u, v }
    }
}

/// Tensors start on 16 bytes, for vector loads.
const ALIGN: usize = 4;

/// The parameters of a role and where they lie: a range for each, of both directions, in the buffer of its class.
#[derive(Clone, Debug)]
pub struct ParamLayout {
    role: Role,
    specs: Vec<ParamSpec>,
    /// First float of each in its buffer (the same for a weight, its gradient and its moments).
    first: Vec<usize>,
}

impl ParamLayout {
    /// The parameters of a list, none of which has a place yet.
    pub fn new(role: Role, list: ParamList) -> Self {
        let first = vec![0; list.0.len()];
        Self { role, specs: list.0, first }
    }

    /// Gives the parameters of a class their places, from float `next` of a buffer on; returns what is next then.
    pub fn place(&mut self, class: ParamClass, mut next: usize) -> usize {
        for (spec, first) in self.specs.iter().zip(&mut self.first).filter(|(s, _)| s.class == class) {
            *first = next;
            next += (2 * spec.len()).next_multiple_of(ALIGN);
        }
        next
    }

    /// Whose parameters they are.
    pub fn role(&self) -> Role {
        self.role
    }

    /// All of them, in the official order.
    pub fn ids(&self) -> impl Iterator<Item = ParamId> + use<> {
        (0..self.specs.len() as u32).map(ParamId)
    }

    /// The parameter of an official key, such as `DownBlock.5.weight`.
    pub fn find(&self, key: &str) -> Option<ParamId> {
        self.ids().find(|id| self.spec(*id).key == key)
    }

    /// What a parameter is.
    pub fn spec(&self, id: ParamId) -> &ParamSpec {
        &self.specs[id.index()]
    }

    /// First float of a parameter in the buffer of its class: of direction 0, which direction 1 follows.
    pub fn first(&self, id: ParamId) -> usize {
        self.first[id.index()]
    }
}

/// The parameters of a role as values of a tape.
#[derive(Clone, Debug)]
pub struct ParamValues {
    role: Role,
    /// By [`ParamId`]: the value, and the module's official name.
    all: Vec<(Value, String)>,
}

impl ParamValues {
    /// Puts the parameters on a tape: both directions, or one of them (inference). `buffer` gives the buffer of a
    /// class.
    pub fn new(
        tape: &mut Tape,
        layout: &ParamLayout,
        direction: Option<usize>,
        buffer: impl Fn(ParamClass) -> u32,
    ) -> Self {
        let role = layout.role;
        let value = |id: ParamId| {
            let spec = layout.spec(id);
            let (d, skip) = direction.map_or((2, 0), |d| (1, d * spec.len()));
            let view = StateView { buffer: buffer(spec.class), offset: 4 * (layout.first(id) + skip) as u64 };
            let name = format!("{}.{}", role.short(), spec.key);
            let module = spec.key.rsplit_once('.').map_or("", |(module, _)| module);
            (tape.state(name, Shape { d, ..spec.shape }, view), module.to_owned())
        };
        Self { role, all: layout.ids().map(value).collect() }
    }

    /// Whose parameters they are.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The value of a parameter.
    pub fn get(&self, id: ParamId) -> Value {
        self.all[id.index()].0
    }
}

/// A network on a tape: the values of its parameters, and which of them is what (`P`).
#[derive(Clone, Debug)]
pub struct Net<P> {
    /// Which parameter is what.
    pub params: P,
    /// Their values.
    pub values: ParamValues,
}

impl<P> Net<P> {
    /// The value of a parameter.
    pub fn get(&self, id: ParamId) -> Value {
        self.values.get(id)
    }

    /// Official name of the module that a parameter belongs to: `DownBlock.5` of `DownBlock.5.weight`.
    pub fn module(&self, id: ParamId) -> &str {
        &self.values.all[id.index()].1
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// Trained parameters of a network.
    pub fn total(list: &ParamList) -> usize {
        list.0.iter().filter(|p| p.is_trained()).map(ParamSpec::len).sum()
    }

    /// Panics unless the device's order and back is the identity for all.
    pub fn assert_orders_invert(list: &ParamList) {
        for p in &list.0 {
            let file: Vec<f32> = (0..p.len()).map(|i| i as f32).collect();
            assert_eq!(p.dims.iter().product::<usize>(), p.len(), "{}", p.key);
            assert_eq!(p.to_file(&p.to_device(&file)), file, "{}", p.key);
        }
    }
}
