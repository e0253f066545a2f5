//! What the L2 keeps from launch to launch.

use std::collections::HashMap;

use super::Machine;
use crate::device::{Arg, Launch, Program, Space};

/// Of the L2's capacity, the traffic after which what was touched counts as gone.
const KEPT: f64 = 0.6;

/// Bytes that are followed as one.
const PIECE: u64 = 64 << 10;

/// The L2 over the launches of a program: pieces of its memory, and when each was last touched. Time is the traffic
/// so far: a piece that was read or written within the last 0.6 capacities counts as being there.
#[derive(Debug, Default)]
pub struct Cache {
    touched: HashMap<(Space, u64), f64>,
    traffic: f64,
}

impl Cache {
    /// Bytes that a launch moves between the L2 and device memory: its minimum traffic, less the share of its
    /// operands that the launches before left in the L2.
    pub fn dram_bytes(&mut self, program: &Program, launch: &Launch, machine: &Machine) -> f64 {
        let window = KEPT * machine.l2_bytes as f64;
        let (mut all, mut missing) = (0u64, 0u64);
        let before = self.traffic;
        for arg in launch.args() {
            let Arg::Buffer(r) = arg else { continue };
            let buffer = &program.buffers[r.buffer as usize];
            let first = buffer.offset + r.offset;
            let end = first + r.bytes;
            let mut at = first;
            while at < end {
                let next = (at / PIECE + 1) * PIECE;
                let n = next.min(end) - at;
                let last = self.touched.insert((buffer.space, at / PIECE), before);
                all += n;
                if last.is_none_or(|last| before - last > window) {
                    missing += n;
                }
                at += n;
            }
        }
        self.traffic += launch.min_bytes as f64;
        if all == 0 { 0.0 } else { launch.min_bytes as f64 * missing as f64 / all as f64 }
    }
}
