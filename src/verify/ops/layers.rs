//! Convolution, padding, linear layers, pooling, activations and losses.

use super::super::tolerance;
use super::harness::{Bench, Case, conv_weight};
use crate::Result;
use crate::tape::{Activation, LossKind, Seed};
use crate::tensor::Shape;

impl Case<'_> {
    pub(super) fn conv(&self) -> Result<Bench> {
        let (s, w) = (self.map()?, self.dims("w", 4)?);
        let (stride, pad) = (self.number("s")?, self.number("p")?);
        let up = if self.params["up"].as_bool().unwrap_or(false) { 2 } else { 1 };
        let (co, ci, k) = (w[0], w[1], w[2]);
        if ci != s.c || k != w[3] || !(1..=8).contains(&stride) {
            return Err(self.bad(format!("x {s}, w {w:?} and stride {stride} make no convolution")));
        }
        self.check_pad(s, pad, up)?;
        let (h, wide) = (s.h * up + 2 * pad, s.w * up + 2 * pad);
        if k > h || k > wide {
            return Err(self.bad(format!("a kernel of {k} is too large for {h}x{wide} pixels")));
        }
        let mut b = Bench::default();
        let x = self.add_x(&mut b, s)?;
        let weight = b.input("w", Shape::new(1, k, k, ci, co), conv_weight(&self.floats("w")?, &w));
        let weight = b.gradient(weight);
        let bias = if self.golden.has(&self.key("b")) {
            let bias = b.input("b", Shape::row(1, co), self.of_dims("b", &[co])?);
            Some(b.gradient(bias))
        } else {
            None
        };
        let padded = if pad > 0 || up > 1 { b.tape.pad(x.0, pad, up) } else { x.0 };
        let y = b.tape.conv("y", padded, weight.0, bias.map(|b| b.0), None, stride, Activation::None);
        let o = b.tape.shape(y);
        let dw = conv_weight(&self.of_dims("d_w", &w)?, &w);
        let mut wrt = vec![("x", x, self.feature_map("d_x", s)?), ("w", weight, dw)];
        if let Some(bias) = bias {
            wrt.push(("b", bias, self.of_dims("d_b", &[co])?));
        }
        let (reference, dy) = (self.feature_map("y", o)?, self.feature_map("dy", o)?);
        self.differentiate(&mut b, (y, reference), dy, &wrt, tolerance::OP);
        Ok(b)
    }

    pub(super) fn pool(&self, maximum: bool) -> Result<Bench> {
        let s = self.map()?;
        let dims = [s.n, s.c, 1, 1];
        let mut b = Bench::default();
        let x = self.add_x(&mut b, s)?;
        let wrt = [("x", x, self.feature_map("d_x", s)?)];
        let (reference, dy) = (self.of_dims("y", &dims)?, self.of_dims("dy", &dims)?);
        if !maximum {
            let y = b.tape.average_pool("y", x.0);
            self.differentiate(&mut b, (y, reference), dy, &wrt, tolerance::OP);
            return Ok(b);
        }
        // One kernel makes both; here nothing comes from the average.
        let (average, y) = b.tape.average_and_max_pool(x.0);
        let upstream = b.input("dy", b.tape.shape(y), dy);
        let nothing = b.input("d(gap)", b.tape.shape(y), vec![0.0; reference.len()]);
        b.tape.backward(&[Seed::Upstream(y, upstream), Seed::Upstream(average, nothing)], &[x]);
        b.expect("y", y, reference, tolerance::OP);
        let [(_, (_, gradient), reference)] = wrt;
        b.expect("d_x", gradient, reference, tolerance::OP);
        Ok(b)
    }

    pub(super) fn pad(&self, pad: usize, up: usize) -> Result<Bench> {
        let s = self.map()?;
        self.check_pad(s, pad, up)?;
        let mut b = Bench::default();
        let x = self.add_x(&mut b, s)?;
        let y = b.tape.pad(x.0, pad, up);
        let o = b.tape.shape(y);
        let wrt = [("x", x, self.feature_map("d_x", s)?)];
        let (reference, dy) = (self.feature_map("y", o)?, self.feature_map("dy", o)?);
        self.differentiate(&mut b, (y, reference), dy, &wrt, tolerance::OP);
        Ok(b)
    }

    pub(super) fn linear(&self) -> Result<Bench> {
        let (x, w) = (self.dims("x", 2)?, self.dims("w", 2)?);
        let (n, i, o) = (x[0], x[1], w[0]);
        if w[1] != i {
            return Err(self.bad(format!("x {x:?} and w {w:?} make no linear layer")));
        }
        let mut b = Bench::default();
        let inp = b.input("x", Shape::new(1, n, 1, 1, i), self.floats("x")?);
        let weight = b.input("w", Shape::new(1, 1, 1, o, i), self.floats("w")?);
        let (inp, weight) = (b.gradient(inp), b.gradient(weight));
        let y = b.tape.linear("y", inp.0, weight.0, Activation::None);
        let wrt = [("x", inp, self.of_dims("d_x", &x)?), ("w", weight, self.of_dims("d_w", &w)?)];
        let (reference, dy) = (self.of_dims("y", &[n, o])?, self.of_dims("dy", &[n, o])?);
        self.differentiate(&mut b, (y, reference), dy, &wrt, tolerance::OP);
        Ok(b)
    }

    /// A tensor of any extents as one row.
    fn flat(&self, tensor: &str) -> Result<(Vec<usize>, Shape)> {
        let dims = self.golden.dims(&self.key(tensor))?.to_vec();
        let len = dims.iter().product();
        if len == 0 {
            return Err(self.bad(format!("{tensor} is empty")));
        }
        Ok((dims, Shape::row(1, len)))
    }

    pub(super) fn activation(&self, act: Activation) -> Result<Bench> {
        let (dims, shape) = self.flat("x")?;
        let mut b = Bench::default();
        let x = b.input("x", shape, self.floats("x")?);
        let x = b.gradient(x);
        let y = b.tape.activation("y", x.0, act);
        let wrt = [("x", x, self.of_dims("d_x", &dims)?)];
        let (reference, dy) = (self.of_dims("y", &dims)?, self.of_dims("dy", &dims)?);
        self.differentiate(&mut b, (y, reference), dy, &wrt, tolerance::OP);
        Ok(b)
    }

    pub(super) fn loss(&self, kind: LossKind) -> Result<Bench> {
        let (dims, shape) = self.flat("x")?;
        let mut b = Bench::default();
        let x = b.input("x", shape, self.floats("x")?);
        let x = b.gradient(x);
        let (tensor, constant) = if kind == LossKind::L1 {
            (Some(b.input("target", shape, self.of_dims("target", &dims)?)), 0.0)
        } else {
            (None, self.real("target")? as f32)
        };
        let dy = self.of_dims("dy", &[])?[0];
        let terms = b.tape.terms("y", 1, 1);
        b.tape.loss(kind, x.0, tensor, &[constant], terms);
        b.tape.backward(&[Seed::Loss(terms, [dy; 2])], &[x]);
        b.expect("y", terms, self.of_dims("y", &[])?, tolerance::OP);
        b.expect("d_x", x.1, self.of_dims("d_x", &dims)?, tolerance::OP);
        // A sigmoid next to its target leaves a difference of two numbers next to 1.
        b.floor("d_x", f64::from(dy).abs() / (shape.len() as f64).sqrt());
        Ok(b)
    }
}
