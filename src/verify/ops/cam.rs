//! Attention: both classifiers, the weighted features and the heatmap.

use super::super::tolerance;
use super::harness::{Bench, Case, conv_weight};
use crate::Result;
use crate::tape::{Activation, Seed};
use crate::tensor::Shape;

impl Case<'_> {
    pub(super) fn cam(&self, spectral: bool) -> Result<Bench> {
        let s = self.map()?;
        let c = s.c;
        let (row, square) = ([1, c], [c, 2 * c, 1, 1]);
        let mut b = Bench::default();
        let x = self.add_x(&mut b, s)?;
        let gap_w = b.input("gap_w", Shape::row(1, c), self.of_dims("gap_w", &row)?);
        let gmp_w = b.input("gmp_w", Shape::row(1, c), self.of_dims("gmp_w", &row)?);
        let conv_w = conv_weight(&self.of_dims("conv_w", &square)?, &square);
        let conv_w = b.input("conv_w", Shape::new(1, 1, 1, 2 * c, c), conv_w);
        let conv_b = b.input("conv_b", Shape::row(1, c), self.of_dims("conv_b", &[c])?);
        let [gap_w, gmp_w, conv_w, conv_b] = [gap_w, gmp_w, conv_w, conv_b].map(|v| b.gradient(v));
        // A matrix of one row has one singular value: any u and v lead to it in one pass.
        let spectral = spectral.then(|| {
            [gap_w.0, gmp_w.0].map(|weight| {
                let u = b.input("u", Shape::row(1, 1), vec![1.0]);
                let v = b.input("v", Shape::row(1, c), vec![(c as f32).sqrt().recip(); c]);
                b.tape.power_iterations(weight, u, v, 1)
            })
        });
        let act = if spectral.is_some() { Activation::LeakyRelu } else { Activation::Relu };
        let (gap, gmp) = b.tape.average_and_max_pool(x.0);
        let logit = b.tape.cam_logits(gap, gmp, gap_w.0, gmp_w.0, spectral);
        let folded = b.tape.cam_fold(conv_w.0, gap_w.0, gmp_w.0);
        let y = b.tape.conv("y", x.0, folded, Some(conv_b.0), None, 1, act);
        let heatmap = b.tape.heatmap(y);
        let dy = b.input("dy", s, self.feature_map("dy", s)?);
        let dlogit = b.input("d_cam_logit", b.tape.shape(logit), self.of_dims("d_cam_logit", &[s.n, 2])?);
        b.tape.backward(
            &[Seed::Upstream(y, dy), Seed::Upstream(logit, dlogit)],
            &[x, gap_w, gmp_w, conv_w, conv_b],
        );
        for (name, value, reference) in [
            ("y", y, self.feature_map("y", s)?),
            ("cam_logit", logit, self.of_dims("cam_logit", &[s.n, 2])?),
            ("heatmap", heatmap, self.of_dims("heatmap", &[s.n, 1, s.h, s.w])?),
            ("d_x", x.1, self.feature_map("d_x", s)?),
            ("d_gap_w", gap_w.1, self.of_dims("d_gap_w", &row)?),
            ("d_gmp_w", gmp_w.1, self.of_dims("d_gmp_w", &row)?),
            ("d_conv_w", conv_w.1, conv_weight(&self.of_dims("d_conv_w", &square)?, &square)),
            ("d_conv_b", conv_b.1, self.of_dims("d_conv_b", &[c])?),
        ] {
            b.expect(name, value, reference, tolerance::OP);
        }
        Ok(b)
    }
}
