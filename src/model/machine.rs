//! The GPUs there are constants of.
//!
//! Sources, by the short names used below: *datasheet*, NVIDIA's data sheets and architecture white papers; *gb*,
//! the measurements of the gpu-benches suite (RRZE-HPC, GitHub); *hpmll*, the Hopper microbenchmarks of arXiv
//! 2501.12084 and 2402.13499; *quack*, the pipe microbenchmarks of the QuACK repository; *fit*, set on the rows of
//! `tests/model/published.toml`.

use super::occupancy;
use crate::device::Target;
use crate::{Error, Result};

/// One GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    /// As options take it.
    pub key: &'static str,
    /// For people.
    pub name: &'static str,
    /// Compute capability times ten.
    pub arch: u32,
    /// Multiprocessors.
    pub sms: u32,
    /// Clock in GHz while the arithmetic pipes are busy, and otherwise.
    pub ghz: [f64; 2],
    /// Lanes of fp32 arithmetic of an SM.
    pub fp32: f64,
    /// FLOP a clock and SM of `mma.sync` with 16-bit operands and fp32 sums; tf32 has half of it.
    pub mma: f64,
    /// FLOP a clock and SM of `wgmma` with 16-bit operands; 0 where there is none.
    pub wgmma: f64,
    /// Lines of 128 bytes that the L1 looks up in a clock.
    pub lines: f64,
    /// Bytes a clock that an SM gets from the L2.
    pub l2: f64,
    /// Bytes a second of a stream out of and into the L2, 1e12.
    pub l2_stream: f64,
    /// Bytes a second of a copy in device memory, 1e12.
    pub dram: f64,
    /// Capacity of the L2, bytes.
    pub l2_bytes: u64,
    /// Capacity of L1 and shared memory of an SM, bytes.
    pub l1_bytes: u64,
    /// Clocks until a load is there: from L1, L2 and device memory.
    pub latency: [f64; 3],
    /// Nanoseconds from a load of device memory to the next in its place, under load: what bytes in flight have to cover.
    pub in_flight_ns: f64,
    /// A kernel in a graph after the one it depends on, µs; its first load included.
    pub node_us: f64,
    /// A barrier of the whole grid, µs.
    pub barrier_us: f64,
}

impl Machine {
    /// What a plan for it depends on.
    pub fn target(&self) -> Target {
        Target { sms: self.sms, shared_bytes: occupancy::limits_of(self.arch).shared_a_block }
    }
}

const MIB: u64 = 1 << 20;
const KIB: u64 = 1 << 10;

/// The A100 80 GB SXM. Clock: datasheet. fp32, mma: datasheet (312 TFLOP/s). L1 lines: ~3, gb gpu-strides. L2: 35
/// bytes a clock (5.4 TB/s), 3.5 TB/s of a stream, gb gpu-l2-cache, gpu-small-kernels. DRAM 1.73 TB/s of 2.04, gb.
/// Latencies: gb gpu-latency. Node 1.34 µs, barrier 1.34 µs: gb gpu-small-kernels -graph, -pt. In flight: fit.
const A100: Machine = Machine {
    key: "a100",
    name: "A100 80 GB SXM",
    arch: 80,
    sms: 108,
    ghz: [1.41, 1.41],
    fp32: 64.0,
    mma: 2048.0,
    wgmma: 0.0,
    lines: 3.0,
    l2: 35.0,
    l2_stream: 3.5,
    dram: 1.73,
    l2_bytes: 40 * MIB,
    l1_bytes: 192 * KIB,
    latency: [36.0, 211.0, 570.0],
    in_flight_ns: 660.0,
    node_us: 1.34,
    barrier_us: 1.34,
};

/// The H100 SXM. Clock 1.755 GHz under matrix load, 1.98 else: seen on a card. fp32: datasheet. mma 2469: 494 TFLOP/s
/// of `mma.sync` measured, hpmll. wgmma: datasheet. Lines 3.5: gb gpu-strides. L2: 37 bytes a clock, 5.8 TB/s of a
/// stream (scaled from the H200). DRAM 3.0 TB/s of 3.35, measured. Latencies: hpmll, gb. Node: 1.25 µs, gb on an H200.
const H100: Machine = Machine {
    key: "h100",
    name: "H100 SXM",
    arch: 90,
    sms: 132,
    ghz: [1.755, 1.98],
    fp32: 128.0,
    mma: 2469.0,
    wgmma: 4096.0,
    lines: 3.5,
    l2: 37.0,
    l2_stream: 5.8,
    dram: 3.0,
    l2_bytes: 50 * MIB,
    l1_bytes: 256 * KIB,
    latency: [34.0, 265.0, 650.0],
    in_flight_ns: 590.0,
    node_us: 1.25,
    barrier_us: 1.05,
};

/// The H200: an H100 with faster memory. L2 stream 6.0 TB/s, node 1.25 µs, barrier 1.04 to 1.13 µs, DRAM 4.3 TB/s of
/// 4.8: gb.
const H200: Machine =
    Machine { key: "h200", name: "H200", l2_stream: 6.0, dram: 4.3, barrier_us: 1.08, ..H100 };

/// The GeForce RTX 4090. Clock, fp32: datasheet. mma 512: datasheet (165 TFLOP/s, fp32 sums). L2: 15 bytes a clock and
/// 4.5 TB/s after the L40 (same chip, gb). DRAM 0.92 TB/s of 1.008: estimated from the L40's share. Lines: as the A6000.
/// Latencies: gb on the L40. Node: 0.95 µs, L40, gb.
const RTX4090: Machine = Machine {
    key: "4090",
    name: "GeForce RTX 4090",
    arch: 89,
    sms: 128,
    ghz: [2.5, 2.6],
    fp32: 128.0,
    mma: 512.0,
    wgmma: 0.0,
    lines: 1.0,
    l2: 15.0,
    l2_stream: 4.5,
    dram: 0.92,
    l2_bytes: 72 * MIB,
    l1_bytes: 128 * KIB,
    latency: [36.0, 285.0, 561.0],
    in_flight_ns: 455.0,
    node_us: 0.95,
    barrier_us: 0.8,
};

/// The GeForce RTX 5090. Clock, fp32, capacity: datasheet. mma 512: 209.5 TFLOP/s, datasheet. DRAM 1.6 TB/s of 1.79:
/// estimated. L2, latencies, node: those of the RTX 4090, not measured on this chip.
const RTX5090: Machine = Machine {
    key: "5090",
    name: "GeForce RTX 5090",
    arch: 120,
    sms: 170,
    ghz: [2.4, 2.6],
    dram: 1.6,
    l2_bytes: 96 * MIB,
    ..RTX4090
};

/// The L40. SMs, clock: datasheet. L2 stream 4.9 TB/s, 96 MiB, node 0.94 µs, barrier 0.66 to 0.82 µs, latencies: gb.
/// DRAM: datasheet 0.864 TB/s, which reads come near.
const L40: Machine = Machine {
    key: "l40",
    name: "L40",
    sms: 142,
    ghz: [2.2, 2.49],
    l2_stream: 4.9,
    dram: 0.83,
    l2_bytes: 96 * MIB,
    node_us: 0.94,
    barrier_us: 0.74,
    ..RTX4090
};

/// The RTX A6000. Clock: 1.41 GHz (base) under load, 1.8 (boost) else, datasheet; fp32, DRAM 0.768 TB/s: datasheet. One
/// line a clock: fit on the uncoalesced product of the published ladder. L2: as the L40, an estimate.
const A6000: Machine = Machine {
    key: "a6000",
    name: "RTX A6000",
    arch: 86,
    sms: 84,
    ghz: [1.41, 1.8],
    l2: 15.0,
    l2_stream: 2.4,
    dram: 0.69,
    l2_bytes: 6 * MIB,
    latency: [33.0, 250.0, 560.0],
    node_us: 1.2,
    barrier_us: 1.0,
    ..RTX4090
};

/// All of them; the first is the default.
pub const ALL: [Machine; 7] = [H100, H200, A100, RTX4090, RTX5090, L40, A6000];

/// The GPU of that name, however written: `h100`, `H100 SXM`, `rtx4090`.
///
/// # Errors
/// When there are no constants of it; lists those there are.
pub fn find(name: &str) -> Result<&'static Machine> {
    let wanted: String = name.to_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
    let fits = |m: &&Machine| {
        let full: String = m.name.to_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
        wanted == m.key
            || wanted == full
            || wanted.strip_prefix("rtx").or(wanted.strip_prefix("geforcertx")) == Some(m.key)
    };
    ALL.iter().find(fits).ok_or_else(|| {
        let keys: Vec<&str> = ALL.iter().map(|m| m.key).collect();
        Error::new(format!("no constants of a GPU '{name}'")).hint(format!("there are {}", keys.join(", ")))
    })
}

/// The GPU whose name a driver reports, such as `NVIDIA H100 80GB HBM3`; None where there are no constants of it.
pub fn of_driver(name: &str) -> Option<&'static Machine> {
    let name = name.to_lowercase();
    // The longest name first: an A6000 is no A60, and "RTX A6000" contains no other key.
    ALL.iter().filter(|m| name.contains(m.key)).max_by_key(|m| m.key.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_what_plans_are_made_for_if_no_gpu_is_named() {
        assert_eq!(ALL[0].target(), Target::default());
        assert_eq!(find("a100").unwrap().target(), Target { sms: 108, shared_bytes: 163 << 10 });
        assert_eq!(find("4090").unwrap().target().shared_bytes, 99 << 10);
    }

    #[test]
    fn names_are_found_however_written() {
        assert_eq!(find("RTX 4090").unwrap().key, "4090");
        assert_eq!(find("h200").unwrap().arch, 90);
        assert_eq!(find("GeForce RTX 5090").unwrap().key, "5090");
        let error = find("voodoo2").unwrap_err();
        assert_eq!(error.message(), "no constants of a GPU 'voodoo2'");
        assert!(error.hint_text().unwrap().contains("a100"));
        assert_eq!(of_driver("NVIDIA H100 80GB HBM3").unwrap().key, "h100");
        assert_eq!(of_driver("NVIDIA H200").unwrap().key, "h200");
        assert!(of_driver("Tesla T4").is_none());
    }
}
