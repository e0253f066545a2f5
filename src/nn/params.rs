//! Names, shapes, layouts and initial values of every weight, and how files and device memory differ.
//!
//! Files hold the official state_dict: NCHW, one tensor a network. The device holds both directions of
//! a tensor one after the other, convolution weights as `[K, K, CI, CO]`.

use std::collections::HashMap;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::Config;
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

    /// Whether this is an AdaLIN or ILN rho, which the clip applies to.
    pub fn is_rho(&self) -> bool {
        self.key.ends_with(".rho")
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

/// All tensors of one role, in the official order; `weights` are trained, `vectors` are the u and v of
/// spectral normalisation.
#[derive(Clone, Debug)]
pub struct NetSpec {
    /// Which network.
    pub role: Role,
    /// Trained tensors.
    pub weights: Vec<ParamSpec>,
    /// Spectral vectors.
    pub vectors: Vec<ParamSpec>,
    /// Keys of weights and vectors in the official order.
    pub order: Vec<String>,
}

#[derive(Default)]
struct Builder {
    weights: Vec<ParamSpec>,
    vectors: Vec<ParamSpec>,
    order: Vec<String>,
}

impl Builder {
    fn push(&mut self, key: String, dims: &[usize], shape: Shape, order: Order, init: Init) {
        self.order.push(key.clone());
        let vector = key.ends_with("weight_u") || key.ends_with("weight_v");
        let spec = ParamSpec { key, dims: dims.to_vec(), shape, order, init };
        if vector { self.vectors.push(spec) } else { self.weights.push(spec) }
    }

    fn row(&mut self, key: &str, c: usize) {
        self.push(key.into(), &[1, c], Shape::row(1, c), Order::Same, Init::Uniform { fan_in: c });
    }

    fn map_row(&mut self, key: String, c: usize, value: f32) {
        self.push(key, &[1, c, 1, 1], Shape::row(1, c), Order::Same, Init::Constant(value));
    }

    fn linear(&mut self, key: &str, o: usize, i: usize) {
        self.push(key.into(), &[o, i], Shape::new(1, 1, 1, o, i), Order::Same, Init::Uniform { fan_in: i });
    }

    fn conv(&mut self, key: String, co: usize, ci: usize, k: usize) {
        let fan_in = ci * k * k;
        let shape = Shape::new(1, k, k, ci, co);
        self.push(key, &[co, ci, k, k], shape, Order::Conv { k, ci, co }, Init::Uniform { fan_in });
    }

    fn bias(&mut self, key: String, co: usize, fan_in: usize) {
        self.push(key, &[co], Shape::row(1, co), Order::Same, Init::Uniform { fan_in });
    }

    fn spectral_vectors(&mut self, module: &str, co: usize, ci: usize, k: usize) {
        self.push(format!("{module}.weight_u"), &[co], Shape::row(1, co), Order::Same, Init::UnitNormal);
        let n = ci * k * k;
        self.push(
            format!("{module}.weight_v"),
            &[n],
            Shape::row(1, n),
            Order::Taps { k, ci },
            Init::UnitNormal,
        );
    }

    fn finish(self, role: Role) -> NetSpec {
        NetSpec { role, weights: self.weights, vectors: self.vectors, order: self.order }
    }
}

impl NetSpec {
    /// The tensors of a role under a configuration.
    pub fn new(role: Role, cfg: &Config) -> Self {
        match role {
            Role::Generator => Self::generator(cfg),
            Role::Global => Self::discriminator(role, cfg, cfg.layers_global()),
            Role::Local => Self::discriminator(role, cfg, cfg.layers_local()),
        }
    }

    fn generator(cfg: &Config) -> Self {
        let (ch, c) = (cfg.ch, 4 * cfg.ch);
        // rho starts at 0.9 in the official PyTorch code; a lower ceiling is where it starts as well.
        let rho = 0.9f64.min(cfg.rho_max) as f32;
        let mut b = Builder::default();
        b.row("gap_fc.weight", c);
        b.row("gmp_fc.weight", c);
        b.conv("conv1x1.weight".into(), c, 2 * c, 1);
        b.bias("conv1x1.bias".into(), c, 2 * c);
        b.linear("gamma.weight", c, c);
        b.linear("beta.weight", c, c);
        for i in 1..=cfg.n_res {
            for j in 1..=2 {
                b.conv(format!("UpBlock1_{i}.conv{j}.weight"), c, c, 3);
                b.map_row(format!("UpBlock1_{i}.norm{j}.rho"), c, rho);
            }
        }
        b.conv("DownBlock.1.weight".into(), ch, cfg.img_ch, 7);
        b.conv("DownBlock.5.weight".into(), 2 * ch, ch, 3);
        b.conv("DownBlock.9.weight".into(), c, 2 * ch, 3);
        for i in 0..cfg.n_res {
            for j in [1, 5] {
                b.conv(format!("DownBlock.{}.conv_block.{j}.weight", 12 + i), c, c, 3);
            }
        }
        if cfg.light {
            b.linear("FC.0.weight", c, c);
        } else {
            let pixels = (cfg.img_size / 4) * (cfg.img_size / 4);
            let i = pixels * c;
            let order = Order::Flat { o: c, c, pixels };
            b.push(
                "FC.0.weight".into(),
                &[c, i],
                Shape::new(1, 1, 1, c, i),
                order,
                Init::Uniform { fan_in: i },
            );
        }
        b.linear("FC.2.weight", c, c);
        for (conv, norm, co, ci) in [(2, 3, 2 * ch, c), (7, 8, ch, 2 * ch)] {
            b.conv(format!("UpBlock2.{conv}.weight"), co, ci, 3);
            b.map_row(format!("UpBlock2.{norm}.rho"), co, 0.0);
            b.map_row(format!("UpBlock2.{norm}.gamma"), co, 1.0);
            b.map_row(format!("UpBlock2.{norm}.beta"), co, 0.0);
        }
        b.conv("UpBlock2.11.weight".into(), cfg.img_ch, ch, 7);
        b.finish(Role::Generator)
    }

    fn discriminator(role: Role, cfg: &Config, layers: usize) -> Self {
        let widths: Vec<usize> =
            std::iter::once(cfg.img_ch).chain((0..layers - 1).map(|i| cfg.ch << i)).collect();
        let c = widths[layers - 1];
        let mut b = Builder::default();
        for name in ["gap_fc", "gmp_fc"] {
            b.row(&format!("{name}.weight_orig"), c);
            b.spectral_vectors(name, 1, c, 1);
        }
        b.conv("conv1x1.weight".into(), c, 2 * c, 1);
        b.bias("conv1x1.bias".into(), c, 2 * c);
        b.conv("conv.weight_orig".into(), 1, c, 4);
        b.spectral_vectors("conv", 1, c, 4);
        for (i, pair) in widths.windows(2).enumerate() {
            let (module, ci, co) = (format!("model.{}", 1 + 3 * i), pair[0], pair[1]);
            b.bias(format!("{module}.bias"), co, ci * 16);
            b.conv(format!("{module}.weight_orig"), co, ci, 4);
            b.spectral_vectors(&module, co, ci, 4);
        }
        b.finish(role)
    }
}

/// Where the weights of a role lie: a range of the group's buffer for each tensor, both directions.
#[derive(Clone, Debug)]
pub struct Bound {
    /// The tensors.
    pub spec: NetSpec,
    /// First element of each weight in the group's buffers (the same for weight, gradient and moments).
    pub weight_offset: Vec<usize>,
    /// First element of each vector in the vectors' buffer.
    pub vector_offset: Vec<usize>,
}

/// A role's tensors as values on a tape.
#[derive(Clone, Debug, Default)]
pub struct Net {
    values: HashMap<String, Value>,
}

impl Net {
    /// The value of a key.
    ///
    /// # Panics
    /// When the network has no such tensor: a bug in the model code.
    pub fn get(&self, key: &str) -> Value {
        *self.values.get(key).unwrap_or_else(|| panic!("the network has no tensor {key}"))
    }

    /// Puts tensors of `bound` on a tape: both directions, or one of them (inference).
    pub fn bind(
        tape: &mut Tape,
        bound: &Bound,
        weights: u32,
        vectors: u32,
        direction: Option<usize>,
    ) -> Self {
        let role = bound.spec.role.short();
        let mut values = HashMap::new();
        let tensors = bound
            .spec
            .weights
            .iter()
            .zip(&bound.weight_offset)
            .map(|t| (t, weights))
            .chain(bound.spec.vectors.iter().zip(&bound.vector_offset).map(|t| (t, vectors)));
        for ((spec, &first), buffer) in tensors {
            let (d, skip) = match direction {
                None => (2, 0),
                Some(d) => (1, d * spec.len()),
            };
            let view = StateView { buffer, offset: 4 * (first + skip) as u64 };
            let value = tape.state(format!("{role}.{}", spec.key), Shape { d, ..spec.shape }, view);
            values.insert(spec.key.clone(), value);
        }
        Self { values }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(spec: &NetSpec) -> usize {
        spec.weights.iter().map(ParamSpec::len).sum()
    }

    #[test]
    fn weight_counts_are_the_official_ones() {
        let light = Config { light: true, ..Config::default() };
        assert_eq!(total(&NetSpec::new(Role::Generator, &light)), 10_589_888);
        assert_eq!(total(&NetSpec::new(Role::Generator, &Config::default())), 278_959_808);
        assert_eq!(total(&NetSpec::new(Role::Global, &light)), 53_130_176);
        assert_eq!(total(&NetSpec::new(Role::Local, &light)), 3_290_560);
    }

    #[test]
    fn device_order_and_back_is_the_identity() {
        let cfg = Config { img_size: 24, ch: 3, n_res: 1, n_dis: 4, ..Config::default() };
        for role in Role::ALL {
            let spec = NetSpec::new(role, &cfg);
            for p in spec.weights.iter().chain(&spec.vectors) {
                let file: Vec<f32> = (0..p.len()).map(|i| i as f32).collect();
                assert_eq!(p.dims.iter().product::<usize>(), p.len(), "{}", p.key);
                assert_eq!(p.to_file(&p.to_device(&file)), file, "{}", p.key);
            }
        }
    }
}
