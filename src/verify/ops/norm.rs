//! The norms: AdaLIN, ILN and instance norm.

use super::super::tolerance;
use super::harness::{Bench, Case, norm};
use crate::Result;
use crate::tape::{Activation, Affine};
use crate::tensor::Shape;

impl Case<'_> {
    /// How much of its digits standardising takes from x: 1 + its root mean square over its spread.
    fn condition(&self) -> Result<f64> {
        let x = self.floats("x")?;
        let n = x.len().max(1) as f64;
        let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let spread = (x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n).sqrt();
        Ok(1.0 + (mean.abs() / spread.max(f64::MIN_POSITIVE)).min(1e6))
    }

    pub(super) fn mixed_norm(&self, adalin: bool) -> Result<Bench> {
        let s = self.map()?;
        let mut b = Bench::default();
        let x = self.add_x(&mut b, s)?;
        let row = [1, s.c, 1, 1];
        let (dims, shape) = if adalin {
            (vec![s.n, s.c], Shape::new(1, s.n, 1, 1, s.c))
        } else {
            (row.to_vec(), Shape::row(1, s.c))
        };
        let rho = b.input("rho", Shape::row(1, s.c), self.of_dims("rho", &row)?);
        let gamma = b.input("gamma", shape, self.of_dims("gamma", &dims)?);
        let beta = b.input("beta", shape, self.of_dims("beta", &dims)?);
        let [rho, gamma, beta] = [rho, gamma, beta].map(|v| b.gradient(v));
        let affine = Affine { rho: rho.0, gamma: gamma.0, beta: beta.0 };
        let y = b.tape.norm("y", x.0, Some(affine), Activation::None, None);
        let wrt = [
            ("x", x, self.feature_map("d_x", s)?),
            ("rho", rho, self.of_dims("d_rho", &row)?),
            ("gamma", gamma, self.of_dims("d_gamma", &dims)?),
            ("beta", beta, self.of_dims("d_beta", &dims)?),
        ];
        let (reference, dy) = (self.feature_map("y", s)?, self.feature_map("dy", s)?);
        let gammas = self.floats("gamma")?;
        let scaled: Vec<f32> = dy
            .iter()
            .enumerate()
            .map(|(i, g)| {
                let row = if adalin { i / s.image_len() } else { 0 };
                g * gammas[row * s.c + i % s.c]
            })
            .collect();
        // The gradient of rho is the difference of what the two norms get, and as exact as these are.
        let rho_floor = norm(&scaled);
        let x_floor = self.standardised_floor(s, &scaled)?;
        self.differentiate(&mut b, (y, reference), dy, &wrt, tolerance::OP * self.condition()?);
        b.floor("d_rho", rho_floor);
        b.floor("d_x", x_floor);
        Ok(b)
    }

    pub(super) fn instance_norm(&self) -> Result<Bench> {
        let s = self.map()?;
        let mut b = Bench::default();
        let x = self.add_x(&mut b, s)?;
        let y = b.tape.norm("y", x.0, None, Activation::None, None);
        let wrt = [("x", x, self.feature_map("d_x", s)?)];
        let (reference, dy) = (self.feature_map("y", s)?, self.feature_map("dy", s)?);
        let floor = self.standardised_floor(s, &dy)?;
        self.differentiate(&mut b, (y, reference), dy, &wrt, tolerance::OP * self.condition()?);
        b.floor("d_x", floor);
        Ok(b)
    }

    /// How long the gradient of x is before a norm takes the parts along its mean and its spread from it.
    /// Of a map of two pixels nothing else is left, of others most.
    fn standardised_floor(&self, s: Shape, upstream: &[f32]) -> Result<f64> {
        let x = self.feature_map("x", s)?;
        let mut sum = 0.0;
        for (x, g) in x.chunks_exact(s.image_len()).zip(upstream.chunks_exact(s.image_len())) {
            for c in 0..s.c {
                let of =
                    |v: &[f32]| -> Vec<f64> { v[c..].iter().step_by(s.c).map(|&v| f64::from(v)).collect() };
                let (x, g) = (of(x), of(g));
                let mean = x.iter().sum::<f64>() / x.len() as f64;
                let spread = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / x.len() as f64 + 1e-5;
                sum += g.iter().map(|g| g * g).sum::<f64>() / spread;
            }
        }
        Ok(sum.sqrt())
    }
}
