//! Spectral normalisation: power iterations, and the rank-1 term of a normalised weight's gradient. Kernels:
//! `kernels/spectral.cu`.

use super::activation::Activation;
use crate::Result;
use crate::device::Launch;
use crate::kernels::arg::{In, Out};
use crate::kernels::{args, entry};
use crate::tape::grid::{
    THREADS, block_sum_for_all, block_sum_for_one, blocks, ceil_div, channel_block, chunks_of, chunks_of_row,
    int,
};
use crate::tape::lowering::Lowering;
use crate::tape::operation::{Operation, Uses};
use crate::tape::record::Tape;
use crate::tape::value::Value;
use crate::tensor::Shape;

/// What the passes of spectral normalisation left for a layer whose batch they share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spectral {
    /// `[D, passes]`.
    pub inv_sigma: Value,
    /// `[D, passes, 1, 1, CO]`.
    pub pass_u: Value,
    /// `[D, passes, 1, 1, K]`.
    pub pass_v: Value,
}

impl Spectral {
    pub(super) fn values(self) -> [Value; 3] {
        [self.inv_sigma, self.pass_u, self.pass_v]
    }
}

/// 1/sigma of a weight, and the images of a batch of `n` that share one.
pub(super) fn scale(to: &mut Lowering, spectral: Option<Spectral>, n: usize) -> (Option<In>, i32) {
    match spectral {
        Some(s) => {
            let passes = to.shape(s.inv_sigma).n;
            (Some(to.input(s.inv_sigma)), int(n / passes))
        }
        None => (None, int(n)),
    }
}

impl Tape {
    /// `passes` power iterations one after the other on a weight's persistent `u [D, CO]` and `v [D, K]`;
    /// returns 1/sigma, u and v of every pass.
    pub fn power_iterations(&mut self, weight: Value, u: Value, v: Value, passes: usize) -> Spectral {
        let (w, rows) = (self.shape(weight), self.shape(u).c);
        let name = self.info(weight).name.clone();
        let spectral = Spectral {
            inv_sigma: self.temp(&format!("{name}.inv_sigma"), Shape::new(w.d, passes, 1, 1, 1)),
            pass_u: self.temp(&format!("{name}.pass_u"), Shape::new(w.d, passes, 1, 1, rows)),
            pass_v: self.temp(&format!("{name}.pass_v"), Shape::new(w.d, passes, 1, 1, self.shape(v).c)),
        };
        for pass in 0..passes {
            self.push(PowerIteration { weight, u, v, spectral, pass });
        }
        spectral
    }
}

/// One pass of the power method: v from u, u from v, and 1 / sigma.
#[derive(Debug)]
struct PowerIteration {
    weight: Value,
    u: Value,
    v: Value,
    spectral: Spectral,
    pass: usize,
}

impl Operation for PowerIteration {
    fn uses(&self) -> Uses {
        Uses::reads([self.weight, self.u]).writes([self.u, self.v]).writes(self.spectral.values())
    }

    fn lower(&self, to: &mut Lowering) -> Result<()> {
        let Self { weight, u, v, spectral, pass } = *self;
        to.label("power iteration", weight);
        let (k, co, d) = (to.shape(v).c, to.shape(u).c, to.shape(weight).d);
        let passes = to.shape(spectral.inv_sigma).n;
        let raw = to.scratch("raw v", d * k);
        let lanes = co.next_power_of_two().min(32);
        let args = args::SpectralRows {
            raw: Out(raw),
            w: to.input(weight),
            u: to.input(u),
            k: int(k),
            co: int(co),
            lanes: int(lanes),
        };
        let product = 2 * d * k * co;
        let grid = [ceil_div(k * lanes, THREADS), d as u32, 1];
        let launch = blocks(Launch::new(entry::SPECTRAL_ROWS_F32, args)?, grid);
        // The lanes of a row join their sums, each of them all.
        to.launch(launch.flops(product + d * k * lanes * lanes.ilog2() as usize));

        let args = args::SpectralNormalise {
            v: to.output(v),
            pass_v: to.output(spectral.pass_v),
            raw: In(raw),
            k: int(k),
            passes: int(passes),
            pass: int(pass),
        };
        let launch = blocks(Launch::new(entry::SPECTRAL_NORMALISE_F32, args)?, [d as u32, 1, 1]);
        to.launch(launch.flops(d * (3 * k + block_sum_for_all(THREADS))));

        let (bc, bp) = channel_block(co);
        let chunks = chunks_of(k, co).min(64);
        let partial = to.scratch("partials", d * chunks * co);
        let args = args::SpectralColumns {
            partial: Out(partial),
            w: to.input(weight),
            v: to.input(v),
            k: int(k),
            co: int(co),
            chunks: int(chunks),
        };
        let launch = Launch::new(entry::SPECTRAL_COLUMNS_F32, args)?
            .grid([ceil_div(co, bc), chunks as u32, d as u32])
            .block([bc as u32, bp as u32, 1]);
        to.launch(launch.flops(product));

        let args = args::SpectralFinish {
            u: to.output(u),
            pass_u: to.output(spectral.pass_u),
            inv_sigma: to.output(spectral.inv_sigma),
            partial: In(partial),
            co: int(co),
            chunks: int(chunks),
            passes: int(passes),
            pass: int(pass),
        };
        let sums = block_sum_for_all(THREADS) + block_sum_for_one(THREADS);
        let launch = blocks(Launch::new(entry::SPECTRAL_FINISH_F32, args)?, [d as u32, 1, 1]);
        to.launch(launch.flops(d * (co * (chunks + 5) + sums)));
        Ok(())
    }
}

/// The layer of a spectrally normalised weight whose gradient gets its rank-1 term.
#[derive(Clone, Copy, Debug)]
pub(super) struct Corrected {
    pub spectral: Spectral,
    /// Of the layer, like bias and activation.
    pub out: Value,
    pub bias: Option<Value>,
    pub act: Activation,
}

impl Corrected {
    pub fn reads(&self) -> Vec<Value> {
        [self.out].into_iter().chain(self.bias).chain(self.spectral.values()).collect()
    }

    /// Takes the rank-1 term off a weight's gradient.
    pub fn lower(&self, to: &mut Lowering, dpre: Value, dweight: Value) -> Result<()> {
        let sp = self.spectral;
        let (s, k, co) = (to.shape(dpre), to.shape(sp.pass_v).c, to.shape(sp.pass_u).c);
        let passes = to.shape(sp.inv_sigma).n;
        let n = s.len() / (s.d * passes);
        let chunks = chunks_of_row(n);
        let partial = to.scratch("dots", s.d * passes * chunks);
        let args = args::SpectralDot {
            partial: Out(partial),
            dpre: to.input(dpre),
            out: to.input(self.out),
            bias: self.bias.map(|b| to.input(b)),
            n: int(n),
            co: int(co),
            passes: int(passes),
            act: self.act as i32,
        };
        let grid = [chunks as u32, (s.d * passes) as u32, 1];
        to.launch(blocks(Launch::new(entry::SPECTRAL_DOT_F32, args)?, grid).flops(3 * s.len()));
        let args = args::SpectralCorrect {
            dweight: to.update(dweight),
            partial: In(partial),
            inv_sigma: to.input(sp.inv_sigma),
            pass_u: to.input(sp.pass_u),
            pass_v: to.input(sp.pass_v),
            k: int(k),
            co: int(co),
            passes: int(passes),
            chunks: int(chunks),
        };
        let grid = [ceil_div(k * co, THREADS), s.d as u32, 1];
        let launch = blocks(Launch::new(entry::SPECTRAL_CORRECT_F32, args)?, grid);
        to.launch(launch.flops(3 * s.d * passes * k * co));
        Ok(())
    }
}
