//! What the emulator counted, as sums that can be added up: of an instruction, a line, a launch, a kernel.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use crate::kernels::Kernel;
use crate::model::{Machine, Term, Time, largest, machine};

/// Counts of whatever was executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Instructions, counted once a warp.
    pub instructions: u64,
    /// Instructions, counted once a thread that executes it: at most 32 times the former.
    pub lanes: u64,
    /// Bytes of global memory that threads asked to read.
    pub read_bytes: u64,
    /// Bytes of global memory that threads asked to write.
    pub write_bytes: u64,
    /// 32-byte sectors those reads touch, counted once a warp's instruction.
    pub read_sectors: u64,
    /// 32-byte sectors those writes touch.
    pub write_sectors: u64,
    /// Sectors a warp's accesses would touch at least, were its bytes side by side.
    pub ideal_sectors: u64,
    /// Warp accesses of shared memory.
    pub shared_accesses: u64,
    /// Further wavefronts of shared memory because lanes conflict in a bank.
    pub conflicts: u64,
    /// Floating-point operations, two a multiply-add, those of the matrix units included.
    pub flops: u64,
    /// Matrix instructions.
    pub matrix: u64,
    /// Barriers that warps arrived at.
    pub barriers: u64,
    /// Branches that warps took.
    pub branches: u64,
    /// Of those, at which a warp's threads parted.
    pub divergent: u64,
}

impl Counts {
    /// Traffic between the caches and the SMs, bytes: 32 a sector.
    pub fn traffic_bytes(&self) -> u64 {
        32 * (self.read_sectors + self.write_sectors)
    }

    /// Bytes asked for.
    pub fn requested_bytes(&self) -> u64 {
        self.read_bytes + self.write_bytes
    }

    /// Sectors, read and written.
    pub fn sectors(&self) -> u64 {
        self.read_sectors + self.write_sectors
    }

    /// Wavefronts of shared memory: one for each access, and those that conflicts add.
    pub fn wavefronts(&self) -> u64 {
        self.shared_accesses + self.conflicts
    }

    /// Lanes that were idle while their warp executed.
    pub fn idle_lanes(&self) -> u64 {
        (32 * self.instructions).saturating_sub(self.lanes)
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, o: Self) {
        self.instructions += o.instructions;
        self.lanes += o.lanes;
        self.read_bytes += o.read_bytes;
        self.write_bytes += o.write_bytes;
        self.read_sectors += o.read_sectors;
        self.write_sectors += o.write_sectors;
        self.ideal_sectors += o.ideal_sectors;
        self.shared_accesses += o.shared_accesses;
        self.conflicts += o.conflicts;
        self.flops += o.flops;
        self.matrix += o.matrix;
        self.barriers += o.barriers;
        self.branches += o.branches;
        self.divergent += o.divergent;
    }
}

impl std::iter::Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::default(), |mut a, b| {
            a += b;
            a
        })
    }
}

/// One launch and what it did.
#[derive(Clone, Debug)]
pub struct LaunchRecord {
    /// Its place among the program's launches.
    pub index: usize,
    /// What it does for the model.
    pub label: String,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads a block.
    pub block: [u32; 3],
    /// Dynamic shared memory, bytes.
    pub shared_bytes: u32,
    /// Minimum traffic as planned, bytes.
    pub min_bytes: u64,
    /// Floating-point operations, as planned.
    pub flops: u64,
    /// What the emulator counted; zeros on a GPU.
    pub counts: Counts,
    /// Measured, on a GPU.
    pub milliseconds: Option<f64>,
    /// Predicted, on each GPU of [`machine::ALL`] in order; empty where there is no prediction.
    pub predicted: Vec<Time>,
}

impl LaunchRecord {
    /// Predicted for that GPU.
    pub fn predicted_for(&self, machine: &Machine) -> Option<&Time> {
        self.predicted.get(machine::ALL.iter().position(|m| m.key == machine.key)?)
    }
}

/// The predicted time of several launches, one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Predicted {
    /// Microseconds.
    pub us: f64,
    /// Microseconds of each term by itself, in the order of [`Term::ALL`].
    pub terms: [f64; 10],
}

impl Predicted {
    /// The sums over those launches; None where one has no prediction, or there are none.
    pub fn of<'a>(launches: impl Iterator<Item = &'a LaunchRecord>, machine: &Machine) -> Option<Self> {
        let mut sum = None;
        for launch in launches {
            let time = launch.predicted_for(machine)?;
            let sum: &mut Self = sum.get_or_insert_default();
            sum.us += time.us;
            sum.terms.iter_mut().zip(time.terms).for_each(|(sum, us)| *sum += us);
        }
        sum
    }

    /// The term that takes most over all of them.
    pub fn bound(&self) -> Term {
        largest(&self.terms)
    }
}

/// All launches of one kernel.
#[derive(Clone, Debug)]
pub struct KernelRecord {
    /// The kernel.
    pub kernel: &'static Kernel,
    /// Its launches in order.
    pub launches: Vec<LaunchRecord>,
    /// What each line of its module's PTX did in all of them, by number.
    pub lines: BTreeMap<u32, Counts>,
    /// Warp instructions by class.
    pub classes: BTreeMap<&'static str, u64>,
}

impl KernelRecord {
    /// A kernel not launched yet.
    pub fn new(kernel: &'static Kernel) -> Self {
        Self { kernel, launches: Vec::new(), lines: BTreeMap::new(), classes: BTreeMap::new() }
    }

    /// Counts of all launches.
    pub fn counts(&self) -> Counts {
        self.launches.iter().map(|l| l.counts).sum()
    }

    /// Minimum traffic of all launches, bytes.
    pub fn min_bytes(&self) -> u64 {
        self.launches.iter().map(|l| l.min_bytes).sum()
    }

    /// Planned operations of all launches.
    pub fn flops(&self) -> u64 {
        self.launches.iter().map(|l| l.flops).sum()
    }

    /// Measured time of all launches, where all were measured.
    pub fn milliseconds(&self) -> Option<f64> {
        self.launches.iter().map(|l| l.milliseconds).sum()
    }

    /// Predicted time of all launches on that GPU.
    pub fn predicted(&self, machine: &Machine) -> Option<Predicted> {
        Predicted::of(self.launches.iter(), machine)
    }

    /// The distinct launches: geometry, how often, the first one's label, planned bytes of all of them;
    /// the one with most work first.
    pub fn geometries(&self) -> Vec<Geometry<'_>> {
        let mut found: Vec<Geometry<'_>> = Vec::new();
        for l in &self.launches {
            match found.iter_mut().find(|g| g.has(l)) {
                Some(g) => {
                    g.times += 1;
                    g.instructions += l.counts.instructions;
                }
                None => found.push(Geometry { first: l, times: 1, instructions: l.counts.instructions }),
            }
        }
        found.sort_by_key(|g| std::cmp::Reverse((g.instructions, g.blocks())));
        found
    }
}

/// Launches of one kernel with the same grid, block and shared memory.
#[derive(Clone, Copy, Debug)]
pub struct Geometry<'a> {
    /// The first of them.
    pub first: &'a LaunchRecord,
    /// How many.
    pub times: usize,
    /// Warp instructions of all of them.
    pub instructions: u64,
}

impl Geometry<'_> {
    /// Blocks of one of them.
    pub fn blocks(&self) -> u64 {
        self.first.grid.iter().map(|&n| u64::from(n)).product()
    }

    /// Threads a block.
    pub fn threads(&self) -> u32 {
        self.first.block.iter().product()
    }

    /// Whether a launch is one of them.
    pub fn has(&self, l: &LaunchRecord) -> bool {
        (self.first.grid, self.first.block, self.first.shared_bytes) == (l.grid, l.block, l.shared_bytes)
    }
}
