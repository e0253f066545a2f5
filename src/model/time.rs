//! The formula.

use serde_json::{Map, Value as Json, json};

use super::{Machine, Work};

/// Of the tensor pipe's rate what the best main loops reach: `mma.sync` 0.78 (CUTLASS example 47), `wgmma` 0.90
/// (DeepGEMM). Of fp32: 0.92, what hand-written loops reach of the rate that their other instructions leave.
const MMA_EFFICIENCY: f64 = 0.78;
const WGMMA_EFFICIENCY: f64 = 0.90;
const FP32_EFFICIENCY: f64 = 0.92;

/// Clocks of every wave besides its tiles: starting blocks, addresses, the first loads of a pipeline, draining.
const WAVE: f64 = 900.0;

/// Lanes of an SM for roots, exponentials and reciprocals.
const SPECIAL: f64 = 16.0;

/// How sharply bytes in flight and bandwidth bound each other, as the exponent of a power mean: fit.
const SHARPNESS: f64 = 3.0;

/// Between which times the true one is expected where a step is predicted to take `total`, in its unit.
pub fn range(total: f64) -> [f64; 2] {
    [0.8 * total, 1.25 * total]
}

/// What a launch's time is made of: each by itself, were nothing else in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Term {
    /// Starting the kernel, and barriers of the whole grid.
    Launch,
    /// Issuing instructions, four a clock and SM.
    Issue,
    /// fp32 arithmetic.
    Fp32,
    /// Roots, exponentials, reciprocals.
    Special,
    /// Matrix instructions.
    Tensor,
    /// Wavefronts of shared memory and shuffles.
    Shared,
    /// Lines that the L1 looks up.
    L1,
    /// Bytes between the L2 and the SMs.
    L2,
    /// The dependent chain of a block: latencies that nothing of it hides.
    Latency,
    /// Bytes between device memory and the L2.
    Dram,
}

impl Term {
    /// All of them, in order.
    pub const ALL: [Self; 10] = [
        Self::Launch,
        Self::Issue,
        Self::Fp32,
        Self::Special,
        Self::Tensor,
        Self::Shared,
        Self::L1,
        Self::L2,
        Self::Latency,
        Self::Dram,
    ];

    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Launch => "launch",
            Self::Issue => "issue",
            Self::Fp32 => "fp32",
            Self::Special => "special",
            Self::Tensor => "tensor",
            Self::Shared => "shared",
            Self::L1 => "L1",
            Self::L2 => "L2",
            Self::Latency => "latency",
            Self::Dram => "DRAM",
        }
    }
}

/// The predicted time of one launch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Time {
    /// Microseconds.
    pub us: f64,
    /// The term that binds it.
    pub bound: Term,
    /// Microseconds of each term by itself, in the order of [`Term::ALL`].
    pub terms: [f64; 10],
    /// Waves of blocks, the last one as the fraction it is.
    pub waves: f64,
    /// Of the time of all waves, what the last, partly filled one takes more than its share: 0 to 1.
    pub tail: f64,
}

impl Time {
    /// For programs, with all terms.
    pub fn json(&self) -> Json {
        json!({ "us": self.us, "bound": self.bound.name(), "waves": self.waves, "tail": self.tail,
            "terms_us": terms_json(&self.terms) })
    }
}

/// Microseconds of each term by its name.
pub fn terms_json(terms: &[f64; 10]) -> Map<String, Json> {
    Term::ALL.iter().zip(terms).map(|(term, us)| (term.name().to_owned(), json!(us))).collect()
}

/// The largest of the terms.
pub fn largest(terms: &[f64; 10]) -> Term {
    let largest = Term::ALL.into_iter().max_by(|a, b| terms[*a as usize].total_cmp(&terms[*b as usize]));
    largest.unwrap_or(Term::Launch)
}

/// Bandwidth with so much in flight: neither more than the memory gives nor than latency lets through.
fn bandwidth(peak: f64, in_flight: f64) -> f64 {
    (peak.powf(-SHARPNESS) + in_flight.powf(-SHARPNESS)).powf(-1.0 / SHARPNESS)
}

/// Predicts a launch.
pub fn time(machine: &Machine, w: &Work) -> Time {
    let sms = f64::from(machine.sms);
    let resident = f64::from(w.resident.max(1));
    let warps = f64::from(w.warps.max(1));
    // Clocks that one block keeps each pipe busy.
    let pipes = [
        (Term::Fp32, w.fp32 / machine.fp32 / FP32_EFFICIENCY),
        (Term::Special, w.special / SPECIAL),
        (
            Term::Tensor,
            w.mma / machine.mma / MMA_EFFICIENCY
                + if w.wgmma > 0.0 { w.wgmma / machine.wgmma.max(1.0) / WGMMA_EFFICIENCY } else { 0.0 },
        ),
        (Term::Shared, w.wavefronts),
        (Term::L1, w.lines / machine.lines),
        (Term::L2, w.l2_bytes / machine.l2),
    ];
    // A scheduler issues an instruction a clock, and a warp belongs to one of the four.
    let issue = |blocks: f64| blocks * w.issue / (blocks * warps).min(4.0);
    let busy = |blocks: f64| pipes.iter().map(|(_, c)| blocks * c).fold(issue(blocks), f64::max);
    // Between barriers the warps of a block do the same at the same time; else one warp waits while others work.
    let one_warp = || pipes.iter().map(|(_, clocks)| clocks / warps).fold(w.issue / warps, f64::max);
    let alone = if w.barriers > 0 { busy(1.0) } else { one_warp() };
    let tile = |blocks: f64| busy(blocks).max(alone + w.chain);
    let slots = sms * resident;
    let blocks = w.blocks as f64;
    let (full, rest) = ((blocks / slots).floor(), blocks % slots);
    let last = if rest > 0.0 { tile((rest / sms).ceil()) } else { 0.0 };
    let waves = full + f64::from(u8::from(rest > 0.0));
    let compute = full * tile(resident) + last;
    // The clock falls where the arithmetic pipes are busy most of the time.
    let arithmetic = pipes[0].1.max(pipes[2].1) * resident.min(blocks / sms).max(1.0);
    let loaded = arithmetic > 0.4 * tile(resident.min((blocks / sms).ceil()).max(1.0));
    let ghz = machine.ghz[usize::from(!loaded)];
    let us = |clocks: f64| clocks / ghz / 1e3;

    // The time of a kernel's node has its first load in it.
    let first = us(machine.latency[1] + WAVE).min(machine.node_us);
    let in_flight = blocks.min(slots) * warps * 32.0 * w.flight;
    let dram = w.dram_bytes / bandwidth(machine.dram, in_flight / machine.in_flight_ns / 1e3) / 1e6;
    let l2_in_flight = in_flight / (machine.latency[1] / ghz) / 1e3;
    let stream = w.stream_bytes / bandwidth(machine.l2_stream, l2_in_flight) / 1e6;
    let l2 = (stream - machine.latency[1] / ghz / 1e3).max(0.0);
    let launch = machine.node_us + f64::from(w.grid_barriers) * machine.barrier_us;
    let body = (us(compute + waves * WAVE / resident) - first).max(0.0);
    let total = launch + body.max(dram).max(l2);

    let mut terms = [0.0; 10];
    terms[Term::Launch as usize] = launch;
    let spread = full * resident + (rest / sms).ceil();
    terms[Term::Issue as usize] =
        us(full * issue(resident) + if rest > 0.0 { issue((rest / sms).ceil()) } else { 0.0 });
    for (term, clocks) in pipes {
        terms[term as usize] = us(spread * clocks);
    }
    terms[Term::L2 as usize] = terms[Term::L2 as usize].max(l2);
    terms[Term::Latency as usize] = us(waves * w.chain);
    terms[Term::Dram as usize] = dram;
    let ideal = blocks / slots * tile(resident);
    Time {
        us: total,
        bound: largest(&terms),
        terms,
        waves: blocks / slots,
        tail: if compute > 0.0 && full > 0.0 { (1.0 - ideal / compute).max(0.0) } else { 0.0 },
    }
}
