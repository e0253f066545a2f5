//! The optimiser.

use super::super::tolerance::{self, Difference};
use super::harness::{Bench, Case, Job, floats};
use crate::Result;
use crate::tape::AdamHyper;
use crate::tensor::Shape;

impl Case<'_> {
    pub(super) fn adam(&self) -> Result<Job> {
        let (steps, decay) = (self.number("steps")?, self.real("weight_decay")?);
        let dims = self.dims("p0", 1)?;
        let rates: Vec<f64> = (0..steps)
            .map(|i| {
                self.params["lr"][i]
                    .as_f64()
                    .ok_or_else(|| self.bad(format!("'lr' has no rate for step {}", i + 1)))
            })
            .collect::<Result<_>>()?;
        let start = self.of_dims("p0", &dims)?;
        let each = |stem: &str| -> Result<Vec<Vec<f32>>> {
            (1..=steps).map(|i| self.of_dims(&format!("{stem}{i}"), &dims)).collect()
        };
        let (gs, ps, ms, vs) = (each("g")?, each("p")?, each("m")?, each("v")?);
        let hyper = AdamHyper { beta1: 0.5, beta2: 0.999, eps: 1e-8, weight_decay: decay };
        let name = self.name.clone();
        Ok(self.ready("rel. L2", move |device| {
            let shape = Shape::row(1, start.len());
            let mut b = Bench::default();
            let zeros = || vec![0.0; start.len()];
            let p = b.input("p", shape, start.clone());
            let (m, v) = (b.input("m", shape, zeros()), b.input("v", shape, zeros()));
            let g = b.input("g", shape, zeros());
            let schedule = b.input("schedule", Shape::row(1, 2), vec![0.0; 2]);
            b.tape.adam(p, m, v, g, schedule, hyper);
            let loaded = b.load(&name, device)?;
            let mut checks = Vec::new();
            for i in 0..steps {
                let t = (i + 1) as f64;
                let rate = (rates[i] / (1.0 - hyper.beta1.powf(t))) as f32;
                let scale = (1.0 - hyper.beta2.powf(t)).sqrt().recip() as f32;
                loaded.write(schedule, &[rate, scale])?;
                loaded.write(g, &gs[i])?;
                loaded.executable().run()?;
                let now = loaded.read(p)?;
                checks.push(floats(format!("p{}", i + 1), &now, &ps[i], tolerance::OP));
                checks.push(floats(format!("m{}", i + 1), &loaded.read(m)?, &ms[i], tolerance::OP));
                checks.push(floats(format!("v{}", i + 1), &loaded.read(v)?, &vs[i], tolerance::OP));
                // The update so far, which a large weight would hide: a share of it, and the weight's
                // rounding in every step.
                let update = |to: &[f32]| to.iter().zip(&start).map(|(a, b)| a - b).collect::<Vec<f32>>();
                let d = Difference::of(&update(&now), &update(&ps[i]));
                let weight = Difference::of(&ps[i], &ps[i]).norm2.sqrt();
                let rounding =
                    f64::from(f32::EPSILON) * t.sqrt() * weight / d.norm2.sqrt().max(f64::MIN_POSITIVE);
                checks.push(floats(
                    format!("p{} - p0", i + 1),
                    &update(&now),
                    &update(&ps[i]),
                    1e-4 + rounding,
                ));
            }
            Ok(checks)
        }))
    }
}
