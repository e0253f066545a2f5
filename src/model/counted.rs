//! The work of a launch from the counts of one of its blocks.

use ptx_emulator::{Class, Sample};

use super::{Machine, Work, chain, occupancy};
use crate::device::Launch;

/// Of the L1's memory that shared memory leaves, what serves repeated reads.
const L1_USED: f64 = 0.8;

impl Work {
    /// Of a launch of which one block was run. `dram_bytes`: see [`super::Cache`].
    pub fn counted(launch: &Launch, sample: &Sample, machine: &Machine, dram_bytes: f64) -> Self {
        let total = sample.counters.total();
        let lanes = |class| sample.counters.of_class(class).thread_instructions as f64;
        let warps = launch.threads().div_ceil(32) as u32;
        let ran = sample.blocks.max(1) as f64;
        // Threads past the end of a small map leave at once, and their warps share nothing of the work.
        let share = |busiest: u64| (total.warp_instructions as f64 / busiest.max(1) as f64).round() as u32;
        let working = sample.busiest_warp.map_or(warps, share).clamp(1, warps.max(1));
        let of_mma = |tf32: bool| -> f64 {
            let mma = sample.counters.instructions.iter().filter(|i| i.class == Class::Matrix);
            mma.filter(|i| i.text.contains(".tf32") == tf32).map(|i| i.counters.flops as f64).sum()
        };
        let resources = launch.kernel.resources_for(machine.arch);
        let (registers, shared) = resources.map_or((32, 0), |r| (r.registers, r.shared));
        let limits = occupancy::limits_of(machine.arch);
        let shared = shared + launch.shared_bytes;
        let held = occupancy::occupancy(&limits, launch.threads() as u32, registers, shared);
        let resident = if launch.cooperative { 1 } else { held.blocks.max(1) };
        let reads = 32.0 * total.read_sectors as f64 / ran;
        let writes = 32.0 * total.written_sectors as f64 / ran;
        // What the resident blocks read at all either fits the L1, and is read once, or does not.
        let distinct = sample.read_sectors.map_or(reads, |n| 32.0 * n as f64).min(reads);
        let here = f64::from(resident).min((launch.blocks() as f64 / f64::from(machine.sms)).ceil());
        let capacity = (machine.l1_bytes as f64 - here * f64::from(shared)).max(0.0) * L1_USED;
        let hit = if distinct > 0.0 { (capacity / (here * distinct)).min(1.0) } else { 1.0 };
        let from_l2 = distinct + (reads - distinct) * (1.0 - hit);
        // How long a load takes: by where its data is on average.
        let missed = if reads > 0.0 { from_l2 / reads } else { 0.0 };
        // Of what all blocks ask the L2 for, the share that is not there.
        let asked = launch.blocks() as f64 * (from_l2 + writes);
        let streamed = if asked > 0.0 { (dram_bytes / asked).min(1.0) } else { 0.0 };
        let [l1, l2, dram] = machine.latency;
        let load = (1.0 - missed) * l1 + missed * ((1.0 - streamed) * l2 + streamed * dram);
        // Between barriers the warps of a block are issued in turns, a quarter of them on each scheduler.
        let slot = if total.barriers > 0 { (f64::from(working) / 4.0).max(1.0) } else { 1.0 };
        let chain = chain::of(&sample.counters, f64::from(working) * ran, [l1, load], slot);
        Self {
            blocks: launch.blocks(),
            resident,
            warps: working,
            // An instruction of PTX counts as one of SASS: in the main loops of the implicit GEMM, for sm_90, there are 631
            // for 615 (forward) and 642 for 625 (dgrad).
            issue: total.warp_instructions as f64 / ran,
            fp32: (lanes(Class::Fp32) + lanes(Class::Fp16)) / ran,
            special: lanes(Class::Special) / ran,
            mma: (of_mma(false) + 2.0 * of_mma(true)) / ran,
            wgmma: 0.0,
            wavefronts: (total.wavefronts as f64
                + sample.counters.of_class(Class::Warp).warp_instructions as f64)
                / ran,
            lines: total.global_lines as f64 / ran,
            l2_bytes: from_l2 + writes,
            stream_bytes: launch.min_bytes as f64,
            dram_bytes,
            flight: chain.flight,
            chain: chain.clocks,
            barriers: (total.barriers as f64 / ran / f64::from(warps)) as u32,
            grid_barriers: if launch.cooperative {
                // A block reports to each barrier once.
                (sample.counters.of_class(Class::Atomic).warp_instructions as f64 / ran).round() as u32
            } else {
                0
            },
        }
    }
}
