//! A case of a file: its tensors and parameters, the tape it is recorded on, and what is compared with the file.

use serde_json::Value as Json;

use super::super::golden::Golden;
use super::super::report::Check;
use super::super::tolerance::Difference;
use crate::device::executable::DeviceHandle;
use crate::tape::{
    BufferRole, LoadedProgram, LowerOptions, Place, Seed, StateLayout, StateView, Tape, Value, plan_with,
};
use crate::tensor::{Shape, nchw_to_nhwc, transpose};
use crate::{Error, Result};

/// Runs a case and compares what it computed.
type Run = Box<dyn FnOnce(&DeviceHandle) -> Result<Vec<Check>>>;

/// A case that was found to be whole, ready to run.
pub(super) struct Job {
    pub(super) name: String,
    pub(super) measure: &'static str,
    pub(super) run: Run,
}

/// A check that fails without a number.
pub(super) fn broken(name: &str, why: impl Into<String>) -> Check {
    Check {
        name: name.to_owned(),
        deviation: f64::NAN,
        tolerance: 0.0,
        max_abs: f64::NAN,
        elements: 0,
        note: Some(why.into()),
    }
}

/// Relative L2 of floats.
pub(super) fn floats(name: impl AsRef<str>, run: &[f32], reference: &[f32], tolerance: f64) -> Check {
    floats_above(name.as_ref(), run, reference, tolerance, 0.0)
}

/// Relative L2 of floats, of a reference that counts as `floor` long where it is shorter.
pub(super) fn floats_above(name: &str, run: &[f32], reference: &[f32], tolerance: f64, floor: f64) -> Check {
    let d = Difference::of(run, reference);
    Check::new(name, d.relative(floor), tolerance, d.max_abs, reference.len())
}

/// How many of some items differ; none may.
pub(super) fn items<T: PartialEq>(name: &str, run: &[T], reference: &[T]) -> Check {
    let differing = run.iter().zip(reference).filter(|(a, b)| a != b).count();
    let missing = run.len().abs_diff(reference.len());
    Check::new(
        name,
        (differing + missing) as f64,
        0.0,
        f64::from(u8::from(differing + missing > 0)),
        reference.len(),
    )
}

/// What a value of a bench should be.
struct Expected {
    name: String,
    value: Value,
    reference: Vec<f32>,
    tolerance: f64,
    /// Norm below which the reference counts as this long.
    floor: f64,
}

/// A tape with its persistent tensors and what they start with.
#[derive(Default)]
pub(super) struct Bench {
    pub(super) tape: Tape,
    layout: StateLayout,
    uploads: Vec<(Value, Vec<f32>)>,
    expected: Vec<Expected>,
}

impl Bench {
    pub(super) fn input(&mut self, name: &str, shape: Shape, data: Vec<f32>) -> Value {
        let view = StateView {
            buffer: self.layout.add(BufferRole::Operand, name, 4 * shape.len() as u64),
            offset: 0,
        };
        let value = self.tape.state(name, shape, view);
        self.uploads.push((value, data));
        value
    }

    /// Where a gradient goes. It starts as NaN, so that a gradient nobody writes is found.
    pub(super) fn gradient(&mut self, of: Value) -> (Value, Value) {
        let (name, shape) = (format!("d({})", self.tape.info(of).name), self.tape.shape(of));
        (of, self.input(&name, shape, vec![f32::NAN; shape.len()]))
    }

    pub(super) fn expect(&mut self, name: &str, value: Value, reference: Vec<f32>, tolerance: f64) {
        self.tape.keep(value);
        self.expected.push(Expected { name: name.to_owned(), value, reference, tolerance, floor: 0.0 });
    }

    /// What is expected under that name counts as at least so long.
    pub(super) fn floor(&mut self, name: &str, floor: f64) {
        self.expected.iter_mut().filter(|e| e.name == name).for_each(|e| e.floor = floor);
    }

    pub(super) fn load(&self, name: &str, device: &DeviceHandle) -> Result<LoadedProgram> {
        let options = LowerOptions::on(device.lock().target());
        let loaded = plan_with(name, &self.tape, &self.layout, options)?.load(device)?;
        for (value, data) in &self.uploads {
            let Place::State(view) = self.tape.info(*value).place else { continue };
            loaded.executable().state().write(self.layout.offset(view), data)?;
        }
        Ok(loaded)
    }

    /// Runs once and compares everything that is expected.
    pub(super) fn check(&self, name: &str, device: &DeviceHandle) -> Result<Vec<Check>> {
        let loaded = self.load(name, device)?;
        loaded.executable().run()?;
        self.expected
            .iter()
            .map(|e| Ok(floats_above(&e.name, &loaded.read(e.value)?, &e.reference, e.tolerance, e.floor)))
            .collect()
    }
}

/// One case of the file.
pub(super) struct Case<'g> {
    pub(super) golden: &'g Golden,
    pub(super) name: String,
    pub(super) params: &'g Json,
}

impl Case<'_> {
    pub(super) fn ready(
        &self,
        measure: &'static str,
        run: impl FnOnce(&DeviceHandle) -> Result<Vec<Check>> + 'static,
    ) -> Job {
        Job { name: self.name.clone(), measure, run: Box::new(run) }
    }

    pub(super) fn unknown(&self, what: &str, name: Option<&str>) -> Job {
        let why = format!("unknown {what} '{}'", name.unwrap_or_default());
        self.ready("known", move |_| Ok(vec![broken(&why, why.clone())]))
    }

    pub(super) fn bad(&self, what: impl std::fmt::Display) -> Error {
        self.golden.error(format!("case {}: {what}", self.name))
    }

    pub(super) fn key(&self, tensor: &str) -> String {
        format!("{}/{tensor}", self.name)
    }

    pub(super) fn number(&self, param: &str) -> Result<usize> {
        let n = self.params[param].as_u64().filter(|n| *n <= 1 << 20);
        n.map(|n| n as usize)
            .ok_or_else(|| self.bad(format!("'{param}' is {}, not a size", self.params[param])))
    }

    pub(super) fn real(&self, param: &str) -> Result<f64> {
        let x = self.params[param].as_f64();
        x.ok_or_else(|| self.bad(format!("'{param}' is {}, not a number", self.params[param])))
    }

    pub(super) fn floats(&self, tensor: &str) -> Result<Vec<f32>> {
        self.golden.floats(&self.key(tensor))
    }

    /// A tensor that must have those extents.
    pub(super) fn of_dims(&self, tensor: &str, dims: &[usize]) -> Result<Vec<f32>> {
        let found = self.golden.dims(&self.key(tensor))?;
        if found != dims {
            return Err(
                self.bad(format!("{tensor} has the shape {found:?}, but {dims:?} fits the other tensors"))
            );
        }
        self.floats(tensor)
    }

    pub(super) fn dims(&self, tensor: &str, count: usize) -> Result<Vec<usize>> {
        let dims = self.golden.dims(&self.key(tensor))?;
        if dims.len() != count || dims.contains(&0) {
            return Err(self.bad(format!("{tensor} has the shape {dims:?}, which is not {count} sizes")));
        }
        Ok(dims.to_vec())
    }

    /// Extents of the feature map `x`.
    pub(super) fn map(&self) -> Result<Shape> {
        let d = self.dims("x", 4)?;
        Ok(Shape::new(1, d[0], d[2], d[3], d[1]))
    }

    /// A feature map of that shape in the device's order.
    pub(super) fn feature_map(&self, tensor: &str, s: Shape) -> Result<Vec<f32>> {
        Ok(nchw_to_nhwc(&self.of_dims(tensor, &[s.n, s.c, s.h, s.w])?, s.n, s.c, s.h, s.w))
    }

    /// Adds the map `x` with the place of its gradient.
    pub(super) fn add_x(&self, b: &mut Bench, s: Shape) -> Result<(Value, Value)> {
        let x = b.input("x", s, self.feature_map("x", s)?);
        Ok(b.gradient(x))
    }

    /// Differentiates from `y` and expects `y` and the gradients of the named inputs, in the given orders.
    pub(super) fn differentiate(
        &self,
        b: &mut Bench,
        y: (Value, Vec<f32>),
        dy: Vec<f32>,
        wrt: &[(&str, (Value, Value), Vec<f32>)],
        tolerance: f64,
    ) {
        let upstream = b.input("dy", b.tape.shape(y.0), dy);
        let pairs: Vec<(Value, Value)> = wrt.iter().map(|w| w.1).collect();
        b.tape.backward(&[Seed::Upstream(y.0, upstream)], &pairs);
        b.expect("y", y.0, y.1, tolerance);
        for (name, (_, gradient), reference) in wrt {
            b.expect(&format!("d_{name}"), *gradient, reference.clone(), tolerance);
        }
    }

    /// Checks that reflection is defined.
    pub(super) fn check_pad(&self, s: Shape, pad: usize, up: usize) -> Result<()> {
        if pad < s.h * up && pad < s.w * up {
            return Ok(());
        }
        Err(self.bad(format!("reflect padding {pad} is too wide for {}x{} pixels", s.h * up, s.w * up)))
    }
}

/// Length of a vector.
pub(super) fn norm(x: &[f32]) -> f64 {
    Difference::of(x, x).norm2.sqrt()
}

/// `[CO, CI, K, K]` to `[K, K, CI, CO]`.
pub(super) fn conv_weight(file: &[f32], dims: &[usize]) -> Vec<f32> {
    transpose(&transpose(file, dims[0], dims[1], dims[2] * dims[3]), 1, dims[0], dims[1] * dims[2] * dims[3])
}
