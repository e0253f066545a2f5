//! Class-activation attention. Kernels: `kernels/cam.cu`.

use super::spectral::{Spectral, scale};
use crate::Result;
use crate::device::Launch;
use crate::kernels::{args, entry};
use crate::tape::grid::{THREADS, block_sum_for_all, block_sum_for_one, blocks, ceil_div, int};
use crate::tape::lowering::Lowering;
use crate::tape::operation::{Backward, Operation, Uses};
use crate::tape::record::Tape;
use crate::tape::value::Value;
use crate::tensor::Shape;

impl Tape {
    /// The 1x1 weights `[D, 1, 1, 2C, C]` with both CAM rows `[D, 1, 1, 1, C]` folded in: `[D, 1, 1, C, C]`.
    pub fn cam_fold(&mut self, weight: Value, gap_w: Value, gmp_w: Value) -> Value {
        let s = self.shape(weight);
        let out = self.temp("cam.folded", Shape::new(s.d, 1, 1, s.c, s.c));
        self.push(CamFold { weight, gap_w, gmp_w, out });
        out
    }

    /// CAM logits `[D, N, 1, 1, 2]` of the pooled features.
    pub fn cam_logits(
        &mut self,
        gap: Value,
        gmp: Value,
        gap_w: Value,
        gmp_w: Value,
        spectral: Option<[Spectral; 2]>,
    ) -> Value {
        let out = self.temp("cam_logit", self.shape(gap).with_c(2));
        self.push(CamLogits { gap, gmp, gap_w, gmp_w, spectral, out });
        out
    }

    /// Sum over the channels: `[D, N, H, W, 1]`. For people: nothing flows back through it.
    pub fn heatmap(&mut self, inp: Value) -> Value {
        let out = self.temp("heatmap", self.shape(inp).with_c(1));
        self.push(Heatmap { inp, out });
        out
    }
}

#[derive(Debug)]
struct CamFold {
    weight: Value,
    gap_w: Value,
    gmp_w: Value,
    out: Value,
}

impl Operation for CamFold {
    fn uses(&self) -> Uses {
        Uses::reads([self.weight, self.gap_w, self.gmp_w]).differentiable().writes([self.out])
    }

    fn adjoint(&self, back: &mut Backward) {
        let Some(dfolded) = back.arrived(self.out) else { return };
        let Self { weight, gap_w, gmp_w, .. } = *self;
        let (dweight, dgap_w, dgmp_w) = (back.always(weight), back.always(gap_w), back.always(gmp_w));
        back.push(CamFoldGrad { dfolded, weight, gap_w, gmp_w, dweight, dgap_w, dgmp_w });
    }

    fn lower(&self, to: &mut Lowering) -> Result<()> {
        to.label("cam fold", self.out);
        let s = to.shape(self.out);
        let args = args::CamFold {
            folded: to.output(self.out),
            weight: to.input(self.weight),
            gap_w: to.input(self.gap_w),
            gmp_w: to.input(self.gmp_w),
            c: int(s.c),
        };
        let grid = [ceil_div(s.c, THREADS), s.c as u32, s.d as u32];
        to.launch(blocks(Launch::new(entry::CAM_FOLD_F32, args)?, grid).flops(3 * s.len()));
        Ok(())
    }
}

#[derive(Debug)]
struct CamFoldGrad {
    dfolded: Value,
    weight: Value,
    gap_w: Value,
    gmp_w: Value,
    dweight: Value,
    dgap_w: Value,
    dgmp_w: Value,
}

impl Operation for CamFoldGrad {
    fn uses(&self) -> Uses {
        let written = [self.dweight, self.dgap_w, self.dgmp_w];
        Uses::reads([self.dfolded, self.weight, self.gap_w, self.gmp_w]).writes(written)
    }

    fn lower(&self, to: &mut Lowering) -> Result<()> {
        to.label("cam fold grad", self.dweight);
        let s = to.shape(self.dfolded);
        let args = args::CamFoldBackward {
            dweight: to.gradient(self.dweight),
            dgap_w: to.gradient(self.dgap_w),
            dgmp_w: to.gradient(self.dgmp_w),
            dfolded: to.input(self.dfolded),
            weight: to.input(self.weight),
            gap_w: to.input(self.gap_w),
            gmp_w: to.input(self.gmp_w),
            c: int(s.c),
        };
        let sums = 2 * block_sum_for_all(THREADS) * s.c * s.d;
        let launch = blocks(Launch::new(entry::CAM_FOLD_BACKWARD_F32, args)?, [s.c as u32, s.d as u32, 1]);
        to.launch(launch.flops(6 * s.len() + sums));
        Ok(())
    }
}

#[derive(Debug)]
struct CamLogits {
    gap: Value,
    gmp: Value,
    gap_w: Value,
    gmp_w: Value,
    spectral: Option<[Spectral; 2]>,
    out: Value,
}

impl Operation for CamLogits {
    fn uses(&self) -> Uses {
        let inv_sigma = self.spectral.iter().flatten().map(|s| s.inv_sigma);
        let read = [self.gap, self.gmp, self.gap_w, self.gmp_w];
        Uses::reads(read).differentiable().also(inv_sigma).writes([self.out])
    }

    fn adjoint(&self, back: &mut Backward) {
        let Some(dlogits) = back.arrived(self.out) else { return };
        let Self { gap, gmp, gap_w, gmp_w, spectral, .. } = *self;
        if let (Some(dgap), Some(dgmp)) = (back.collect(gap), back.collect(gmp)) {
            back.push(CamLogitsPoolGrad { dlogits, gap_w, gmp_w, spectral, dgap, dgmp });
        }
        for (which, (pooled, weight)) in [(gap, gap_w), (gmp, gmp_w)].into_iter().enumerate() {
            if let Some(dweight) = back.collect(weight) {
                let spectral = spectral.map(|s| s[which]);
                let logits = self.out;
                back.push(CamLogitsWeightGrad { dlogits, logits, pooled, spectral, which, dweight });
            }
        }
    }

    fn lower(&self, to: &mut Lowering) -> Result<()> {
        to.label("cam logits", self.out);
        let s = to.shape(self.gap);
        let (gap_scale, n_per_scale) = scale(to, self.spectral.map(|s| s[0]), s.n);
        let (gmp_scale, _) = scale(to, self.spectral.map(|s| s[1]), s.n);
        let args = args::CamLogitsForward {
            logits: to.output(self.out),
            gap: to.input(self.gap),
            gmp: to.input(self.gmp),
            gap_w: to.input(self.gap_w),
            gmp_w: to.input(self.gmp_w),
            gap_scale,
            gmp_scale,
            c: int(s.c),
            n: int(s.n),
            n_per_scale,
        };
        // A barrier follows the first of the sums, so all threads finish it.
        let sums = block_sum_for_all(THREADS) + block_sum_for_one(THREADS);
        let launch = blocks(Launch::new(entry::CAM_LOGITS_FORWARD_F32, args)?, [s.images() as u32, 1, 1]);
        to.launch(launch.flops(4 * s.len() + sums * s.images()));
        Ok(())
    }
}

#[derive(Debug)]
struct CamLogitsPoolGrad {
    dlogits: Value,
    gap_w: Value,
    gmp_w: Value,
    spectral: Option<[Spectral; 2]>,
    dgap: Value,
    dgmp: Value,
}

impl Operation for CamLogitsPoolGrad {
    fn uses(&self) -> Uses {
        let inv_sigma = self.spectral.iter().flatten().map(|s| s.inv_sigma);
        let read = [self.dlogits, self.gap_w, self.gmp_w];
        Uses::reads(read).also(inv_sigma).writes([self.dgap, self.dgmp])
    }

    fn lower(&self, to: &mut Lowering) -> Result<()> {
        to.label("cam logits grad", self.dgap);
        let s = to.shape(self.dgap);
        let (gap_scale, n_per_scale) = scale(to, self.spectral.map(|s| s[0]), s.n);
        let (gmp_scale, _) = scale(to, self.spectral.map(|s| s[1]), s.n);
        let args = args::CamLogitsBackwardPool {
            c: int(s.c),
            n: int(s.n),
            n_per_scale,
            dgap: to.only_write(self.dgap)?,
            dgmp: to.only_write(self.dgmp)?,
            dlogits: to.input(self.dlogits),
            gap_w: to.input(self.gap_w),
            gmp_w: to.input(self.gmp_w),
            gap_scale,
            gmp_scale,
        };
        let grid = [ceil_div(s.c, THREADS), s.images() as u32, 1];
        let launch = blocks(Launch::new(entry::CAM_LOGITS_BACKWARD_POOL_F32, args)?, grid);
        to.launch(launch.flops(4 * s.len()));
        Ok(())
    }
}

/// Of one row; `which` 0 for the average, 1 for the maximum.
#[derive(Debug)]
struct CamLogitsWeightGrad {
    dlogits: Value,
    logits: Value,
    pooled: Value,
    spectral: Option<Spectral>,
    which: usize,
    dweight: Value,
}

impl Operation for CamLogitsWeightGrad {
    fn uses(&self) -> Uses {
        let spectral = self.spectral.iter().flat_map(|s| s.values());
        Uses::reads([self.dlogits, self.logits, self.pooled]).also(spectral).writes([self.dweight])
    }

    fn lower(&self, to: &mut Lowering) -> Result<()> {
        to.label("cam logits wgrad", self.dweight);
        let s = to.shape(self.pooled);
        let (scale, n_per_scale) = scale(to, self.spectral, s.n);
        let args = args::CamLogitsBackwardWeight {
            dweight: to.gradient(self.dweight),
            dlogits: to.input(self.dlogits),
            logits: to.input(self.logits),
            pooled: to.input(self.pooled),
            scale,
            u: self.spectral.map(|s| to.input(s.pass_u)),
            v: self.spectral.map(|s| to.input(s.pass_v)),
            which: int(self.which),
            c: int(s.c),
            n: int(s.n),
            n_per_scale,
        };
        let passes = self.spectral.map_or(0, |sp| s.d * to.shape(sp.inv_sigma).n);
        let grid = [ceil_div(s.c, THREADS), s.d as u32, 1];
        let launch = blocks(Launch::new(entry::CAM_LOGITS_BACKWARD_WEIGHT_F32, args)?, grid);
        to.launch(launch.flops(4 * s.len() + 5 * passes * s.c));
        Ok(())
    }
}

#[derive(Debug)]
struct Heatmap {
    inp: Value,
    out: Value,
}

impl Operation for Heatmap {
    fn uses(&self) -> Uses {
        Uses::reads([self.inp]).writes([self.out])
    }

    fn lower(&self, to: &mut Lowering) -> Result<()> {
        to.label("heatmap", self.out);
        let s = to.shape(self.inp);
        let pixels = s.images() * s.pixels();
        let args = args::CamHeatmap {
            heatmap: to.output(self.out),
            x: to.input(self.inp),
            pixels: int(pixels),
            c: int(s.c),
        };
        let grid = [ceil_div(pixels, THREADS / 32), 1, 1];
        to.launch(blocks(Launch::new(entry::CAM_HEATMAP_F32, args)?, grid).flops(s.len()));
        Ok(())
    }
}
