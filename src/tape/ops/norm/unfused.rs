//! What the unfused variants share: a launch for each formula, as an eager framework makes them, and the activation and
//! the residual after a norm.

use super::formula::{Binary, Broadcast, Over, Small, SmallBinary, Sum, Tensor};
use super::layer::{ForwardBuffers, ParamGrads, Params};
use super::lowering::{Chunks, NormLowering, Numbers};
use crate::Result;
use crate::device::BufferRef;
use crate::kernels::arg::{In, Out, Scratch, Write};
use crate::kernels::{args, entry};
use crate::tape::grid::int;
use crate::tape::ops::activation::Activation;

/// Evaluates formulas one after the other.
pub(super) struct Eager<'s> {
    pub to: NormLowering<'s>,
    /// One for each image, zero between launches: the blocks of a reduction are counted in them.
    pub counters: BufferRef,
}

/// What a forward pass keeps for its backward pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Kept<S, B> {
    /// The instance norm.
    pub instance: S,
    /// What AdaLIN has beyond it.
    pub blend: Option<B>,
    /// After the activation, where there is one.
    activated: Option<Tensor>,
    counters: BufferRef,
}

/// A formula that one launch evaluates.
pub(super) trait Formula {
    /// Where its values go.
    type Place;
    /// What they are.
    type Value;

    /// Memory for its values.
    fn place(&self, by: &mut Eager) -> (Self::Place, Self::Value);

    /// Launches it.
    fn launch(self, by: &mut Eager, place: Self::Place) -> Result<()>;
}

/// How the images are grouped by sets of elements.
pub(super) struct Grouping {
    groups: usize,
    /// Of a group.
    pixels: usize,
    /// Elements of a set.
    pub elements: usize,
    /// Sets.
    pub sets: usize,
}

impl<'s> Eager<'s> {
    /// Before a forward pass.
    pub fn new(to: NormLowering<'s>) -> Result<Self> {
        let counters = to.sink.counters(to.s.images())?;
        Ok(Self { to, counters })
    }

    /// Evaluates a formula into new memory.
    pub fn eval<F: Formula>(&mut self, formula: F) -> Result<F::Value> {
        let (place, value) = formula.place(self);
        formula.launch(self, place)?;
        Ok(value)
    }

    /// Evaluates a formula into a place.
    pub fn write<F: Formula>(&mut self, place: F::Place, formula: F) -> Result<()> {
        formula.launch(self, place)
    }

    /// New memory for a tensor.
    pub fn tensor(&mut self, name: &str) -> Tensor {
        Tensor(self.to.tensor(name))
    }

    /// The mean of each set.
    pub fn mean(&mut self, x: Tensor, over: Over) -> Result<Small> {
        let count = self.grouping(over).elements;
        self.eval(x.sum(over).named("mean") * (1.0 / count as f64))
    }

    pub fn grouping(&self, over: Over) -> Grouping {
        let (s, hw) = (self.to.s, self.to.s.pixels());
        let of = |groups: usize, images: usize| Grouping {
            groups,
            pixels: hw * images,
            elements: hw * images,
            sets: groups * s.c,
        };
        match over {
            Over::Channel => of(s.images(), 1),
            Over::Image => Grouping { elements: s.image_len(), sets: s.images(), ..of(s.images(), 1) },
            Over::Affine => {
                let images = self.to.layer.images_per_affine;
                of(s.images() / images, images)
            }
            Over::Direction => of(s.d, s.n),
        }
    }

    /// The chunks of a reduction over sets.
    pub fn chunks(&self, over: Over) -> Chunks {
        let Grouping { groups, pixels, .. } = self.grouping(over);
        self.to.whole_reduction(groups, pixels)
    }

    // ------------------------------------------------------------ around the norm

    /// Where the normalised tensor goes: the output, unless an activation or a residual comes after it.
    pub fn normed(&mut self, io: &ForwardBuffers, out: BufferRef) -> Tensor {
        let is_last = self.to.layer.act == Activation::None && io.residual.is_none();
        if is_last { Tensor(out) } else { self.tensor("normed") }
    }

    /// Activation and residual, a launch each; ends a forward pass.
    pub fn finish<S, B>(
        &mut self,
        io: &ForwardBuffers,
        normed: Tensor,
        out: BufferRef,
        (instance, blend): (S, Option<B>),
    ) -> Result<Kept<S, B>> {
        let mut activated = None;
        if self.to.layer.act != Activation::None {
            let to = if io.residual.is_some() { self.tensor("activated") } else { Tensor(out) };
            let (n, act) = (self.to.s.len(), self.to.numbers.act);
            let args = args::ActivationForward { out: Out(to.0), inp: In(normed.0), n: int(n), act };
            self.to.over("activation", entry::ACTIVATION_FORWARD_F32, n, args, n)?;
            activated = Some(to);
        }
        if let Some(residual) = io.residual {
            self.write(Write::Store(out), activated.unwrap_or(normed) + Tensor(residual))?;
        }
        Ok(Kept { instance, blend, activated, counters: self.counters })
    }

    /// Begins a backward pass, back through the activation: leaves the gradient of the normalised tensor.
    pub fn backward<S, B>(
        to: NormLowering<'s>,
        dout: BufferRef,
        kept: &Kept<S, B>,
    ) -> Result<(Self, Tensor)> {
        let mut by = Self { to, counters: kept.counters };
        let Some(Tensor(out)) = kept.activated else { return Ok((by, Tensor(dout))) };
        let dinp = by.tensor("before the activation");
        let (n, act) = (by.to.s.len(), by.to.numbers.act);
        let args =
            args::ActivationBackward { dinp: Out(dinp.0), dout: In(dout), out: In(out), n: int(n), act };
        by.to.over("activation", entry::ACTIVATION_BACKWARD_F32, n, args, n)?;
        Ok((by, dinp))
    }

    /// Back through scale and shift: the gradients of beta and gamma, and that of the blend, which is left.
    pub fn scale_shift_backward(
        &mut self,
        (params, grads): (Params, ParamGrads),
        dout: Tensor,
        blend: Tensor,
    ) -> Result<Tensor> {
        let [_, gamma, _] = params.small();
        self.write(grads.beta, dout.sum(Over::Affine).named("sum (dbeta)"))?;
        let product = self.eval(dout * blend)?;
        self.write(grads.gamma, product.sum(Over::Affine).named("sum (dgamma)"))?;
        self.eval(dout * gamma)
    }
}

impl Formula for Binary {
    type Place = Write;
    type Value = Tensor;

    fn place(&self, by: &mut Eager) -> (Write, Tensor) {
        let out = by.tensor(self.op.name());
        (Write::Store(out.0), out)
    }

    fn launch(self, by: &mut Eager, out: Write) -> Result<()> {
        let (n, op) = (by.to.s.len(), self.op as i32);
        let b = self.b.map(|b| In(b.0));
        let args = args::AdalinElementaryBinary { out, a: In(self.a.0), b, n: int(n), op };
        let kernel = by.to.kernel("adalin_elementary_binary")?;
        by.to.over(self.op.name(), kernel, n / by.to.v, args, n)
    }
}

impl Formula for Broadcast {
    type Place = Tensor;
    type Value = Tensor;

    fn place(&self, by: &mut Eager) -> (Tensor, Tensor) {
        let out = by.tensor(self.op.name());
        (out, out)
    }

    fn launch(self, by: &mut Eager, out: Tensor) -> Result<()> {
        let Numbers { hw, c, n, images_per_affine, .. } = by.to.numbers;
        let args = args::AdalinElementaryBroadcast {
            out: Out(out.0),
            a: self.a.map(|a| In(a.0)),
            b: In(self.b.at),
            hw,
            c,
            per: match self.b.over {
                Over::Channel | Over::Image => 1,
                Over::Affine => images_per_affine,
                Over::Direction => n,
            },
            scalar: i32::from(self.b.over == Over::Image),
            op: self.op as i32,
        };
        by.to.each(self.op.name(), "adalin_elementary_broadcast", args, by.to.s.len())
    }
}

impl Formula for SmallBinary {
    type Place = Write;
    type Value = Small;

    fn place(&self, by: &mut Eager) -> (Write, Small) {
        let at = by.to.floats(self.op.name(), by.grouping(self.a.over).sets);
        (Write::Store(at), Small { at, over: self.a.over })
    }

    fn launch(self, by: &mut Eager, out: Write) -> Result<()> {
        let n = by.grouping(self.a.over).sets;
        let (b, scalar, op) = (self.b.map(|b| In(b.at)), self.number as f32, self.op as i32);
        let args = args::AdalinElementarySmall { out, a: In(self.a.at), b, scalar, n: int(n), op };
        by.to.over(self.op.name(), entry::ADALIN_ELEMENTARY_SMALL_F32, n, args, n)
    }
}

impl Formula for Sum<'_> {
    type Place = Write;
    type Value = Small;

    fn place(&self, by: &mut Eager) -> (Write, Small) {
        let at = by.to.floats(self.name, by.grouping(self.over).sets);
        (Write::Store(at), Small { at, over: self.over })
    }

    fn launch(self, by: &mut Eager, out: Write) -> Result<()> {
        let chunks = by.chunks(self.over);
        let partial = by.to.floats("partial sums", chunks.count() * by.to.s.c);
        let args = args::AdalinElementarySum {
            out,
            partial: Scratch(partial),
            counter: Scratch(by.counters),
            x: In(self.x.0),
            pixels: int(chunks.pixels),
            c: by.to.numbers.c,
            rows: chunks.rows(),
            layer: i32::from(self.over == Over::Image),
            scale: self.factor as f32,
        };
        by.to.pass(self.name, "adalin_elementary_sum", chunks, args, by.to.s.len())
    }
}
