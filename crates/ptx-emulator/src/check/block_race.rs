//! Races between blocks: two blocks of one launch access one place of global memory, one of them
//! writes it. Blocks run in no order, so the result would depend on luck. Checked on request,
//! with the blocks one after the other.
//!
//! Memory is divided into shadow granules, as large as the smallest access of the kernel. Each has a shadow cell
//! with the latest access records.
//!
//! One block may be ordered after another: what the other did before it released a place (`atom.release.gpu`,
//! `st.release.gpu`) comes before what this one does after it acquired the same place (`ld.acquire.gpu`,
//! `atom.acquire.gpu`). The order is kept by vector clocks, one for each block that acquires or releases: the
//! threads of a block count as one, so that a barrier missing *inside* a block, before the release or after
//! the acquire, is not found here. Fences (`membar`, `fence`) order nothing here: a place is acquired and
//! released by the access itself, or not at all.

use std::collections::HashMap;

use super::non_coherent::NonCoherent;
use crate::isa::Order;

/// Shadow granules of a page.
const PAGE: u64 = 1024;
/// Stands for several blocks.
const MANY: u64 = u64::MAX;

/// The latest accesses of a shadow granule, with the launches they were in.
#[derive(Clone, Copy, Default)]
struct ShadowCell {
    written_in: u64,
    writer: u64,
    write: AccessRecord,
    read_in: u64,
    reader: u64,
    read: AccessRecord,
}

/// An access, by a block that is noted beside it.
#[derive(Clone, Copy, Default)]
struct AccessRecord {
    time: u32,
    pc: u32,
    strong: bool,
}

const WORDS: usize = PAGE as usize / 64;

/// The shadow cells of consecutive granules.
///
/// Plain reads are most of all accesses, so they are kept apart: as bits, which blocks that run one after
/// the other share.
struct Page {
    cells: Vec<ShadowCell>,
    /// Latest launch that wrote one of them.
    written_in: u64,
    /// Launch of the reads below.
    launch: u64,
    /// The latest block that read, and what it read.
    block: u64,
    mine: [u64; WORDS],
    /// What the blocks before it read.
    earlier: [u64; WORDS],
    /// First reader of each of those: block and instruction.
    first: Vec<(u32, u32)>,
}

impl Page {
    fn new() -> Self {
        Self {
            cells: vec![ShadowCell::default(); PAGE as usize],
            written_in: 0,
            launch: 0,
            block: 0,
            mine: [0; WORDS],
            earlier: [0; WORDS],
            first: vec![(0, 0); PAGE as usize],
        }
    }

    /// The plain read of a shadow granule by another block in this launch, if there is one.
    fn read_by_other(&self, launch: u64, g: usize, block: u64) -> Option<Conflict> {
        let bit = |words: &[u64; WORDS]| words[g / 64] >> (g % 64) & 1 != 0;
        let other = bit(&self.earlier) || bit(&self.mine) && self.block != block;
        (self.launch == launch && other).then(|| {
            let (reader, pc) = self.first[g];
            let reader = u64::from(reader);
            Conflict { wrote: false, block: (reader != block).then_some(reader), pc }
        })
    }
}

/// Pages by memory and number.
#[derive(Default)]
struct Pages {
    pages: Vec<Page>,
    index: HashMap<(usize, u64), usize>,
    /// Where the latest ones are: a map would be asked for every access.
    latest: Vec<((usize, u64), usize)>,
}

impl Pages {
    #[inline(always)]
    fn get(&mut self, memory: usize, number: u64) -> &mut Page {
        let key = (memory, number);
        if self.latest.is_empty() {
            self.latest.resize(64, ((0, 0), usize::MAX));
        }
        let latest = &mut self.latest[(number as usize ^ memory >> 4) % 64];
        if latest.1 == usize::MAX || latest.0 != key {
            let at = *self.index.entry(key).or_insert_with(|| {
                self.pages.push(Page::new());
                self.pages.len() - 1
            });
            *latest = (key, at);
        }
        &mut self.pages[latest.1]
    }
}

/// What an access does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    Atomic,
}

/// Bytes that a block accesses in one instruction.
pub(crate) struct BlockAccess {
    /// Which memory, as its address on the host.
    pub memory: usize,
    pub at: u64,
    pub bytes: u64,
    pub block: u64,
    pub pc: u32,
}

/// The access of another block that an access conflicts with.
pub(crate) struct Conflict {
    pub wrote: bool,
    /// The block, or None where there were several.
    pub block: Option<u64>,
    pub pc: u32,
}

/// The order between the blocks of a launch.
#[derive(Default)]
struct Clocks {
    /// The vector clock of each block: `vector[b][a]` says up to which of its times what block `a` did comes
    /// before what `b` does now; 0 beyond its end. A block that has none yet is at its own time 1 and after nobody.
    vector: HashMap<u64, Vec<u32>>,
    /// The joined vector clocks of the blocks that released a place, as they were then.
    released: HashMap<(usize, u64), Vec<u32>>,
    /// Reads of a shadow granule by other blocks than the first.
    more_reads: HashMap<(usize, u64), Vec<(u64, AccessRecord)>>,
    /// Writes of a shadow granule before the latest that some access may still race with.
    more_writes: HashMap<(usize, u64), Vec<(u64, AccessRecord)>>,
}

impl Clocks {
    fn acquire(&mut self, place: (usize, u64), block: u64) {
        if let Some(released) = self.released.get(&place) {
            join(self.vector.entry(block).or_insert_with(|| first_vector(block)), released);
        }
    }

    fn release(&mut self, place: (usize, u64), block: u64) {
        let vector = self.vector.entry(block).or_insert_with(|| first_vector(block));
        join(self.released.entry(place).or_default(), vector);
        vector[block as usize] += 1;
    }
}

/// That of a block before it acquires or releases.
fn first_vector(block: u64) -> Vec<u32> {
    let mut vector = vec![0; block as usize + 1];
    vector[block as usize] = 1;
    vector
}

fn join(into: &mut Vec<u32>, from: &[u32]) {
    into.resize(into.len().max(from.len()), 0);
    for (a, b) in into.iter_mut().zip(from) {
        *a = (*a).max(*b);
    }
}

/// The shadow of all memory.
#[derive(Default)]
pub(crate) struct Races {
    pages: Pages,
    launch: u64,
    shift: u32,
    clocks: Option<Clocks>,
    /// Of the kernels that have non-coherent loads.
    pub non_coherent: NonCoherent,
}

impl Races {
    /// Starts a launch whose smallest access has so many bytes. `ordered`: its blocks may be ordered, since they run
    /// together or something acquires or releases.
    pub(crate) fn start(&mut self, granule: u32, ordered: bool) {
        if self.shift != granule.trailing_zeros() {
            self.pages = Pages::default();
            self.shift = granule.trailing_zeros();
        }
        self.launch += 1;
        self.non_coherent.start();
        self.clocks = ordered.then(Clocks::default);
    }

    /// Records plain reads of a range by a block, in a launch whose blocks run one after the other; false
    /// where they conflict with another block, and were perhaps not all recorded.
    #[inline(always)]
    pub(crate) fn read(&mut self, access: &BlockAccess) -> bool {
        let &BlockAccess { memory, at, bytes, block, .. } = access;
        // Most of what is read was read before by the same block.
        let (first, last) = (at >> self.shift, (at + bytes - 1) >> self.shift);
        if last <= first | 63 {
            let page = self.pages.get(memory, first / PAGE);
            let mask = u64::MAX >> (63 - (last - first)) << (first % 64);
            let known = page.mine[(first % PAGE / 64) as usize] & mask == mask;
            if known && page.launch == self.launch && page.block == block {
                return true;
            }
        }
        self.read_new(access)
    }

    #[inline(never)]
    fn read_new(&mut self, access: &BlockAccess) -> bool {
        let &BlockAccess { memory, at, bytes, block, pc } = access;
        let (launch, shift) = (self.launch, self.shift);
        let (mut granule, last) = (at >> shift, (at + bytes - 1) >> shift);
        while granule <= last {
            let end = last.min(granule | 63);
            let page = self.pages.get(memory, granule / PAGE);
            if page.launch != launch {
                (page.launch, page.mine, page.earlier) = (launch, [0; WORDS], [0; WORDS]);
            } else if page.block != block {
                for (earlier, mine) in page.earlier.iter_mut().zip(&mut page.mine) {
                    *earlier |= std::mem::take(mine);
                }
            }
            page.block = block;
            let (word, start) = ((granule % PAGE / 64) as usize, ((granule & !63) % PAGE) as usize);
            let mask = u64::MAX >> (63 - (end - granule)) << (granule % 64);
            let mut new = mask & !page.mine[word];
            if new != 0 && page.written_in == launch {
                for i in (0..64).filter(|i| new >> i & 1 != 0) {
                    let cell = &page.cells[start + i];
                    if cell.written_in == launch && cell.writer != block {
                        return false;
                    }
                }
            }
            page.mine[word] |= mask;
            new &= !page.earlier[word];
            while new != 0 {
                page.first[start + new.trailing_zeros() as usize] = (block as u32, pc);
                new &= new - 1;
            }
            granule = end + 1;
        }
        true
    }

    /// Records an access of a block; the access of another block that it conflicts with.
    pub(crate) fn record(
        &mut self,
        touched: &BlockAccess,
        access: Access,
        order: Order,
    ) -> Result<(), Conflict> {
        let &BlockAccess { memory, at, bytes, block, pc } = touched;
        let Self { pages, launch, shift, clocks, .. } = self;
        let launch = *launch;
        // A copy, since the records below change while it is in use.
        let vector = clocks.as_ref().and_then(|c| c.vector.get(&block)).cloned().unwrap_or_default();
        let now = vector.get(block as usize).copied().unwrap_or(1);
        let ordered = |other: u64, record: &AccessRecord| {
            other == block || vector.get(other as usize).is_some_and(|&time| time >= record.time)
        };
        let before =
            |other: u64, record: &AccessRecord| (record.strong && order.strong) || ordered(other, record);
        // What does not race with this write does not race with that one either.
        let superseded =
            |other: u64, write: &AccessRecord| ordered(other, write) && (write.strong || !order.strong);
        for granule in at >> *shift..=(at + bytes - 1) >> *shift {
            let page = pages.get(memory, granule / PAGE);
            let g = (granule % PAGE) as usize;
            if access != Access::Read
                && let Some(found) = page.read_by_other(launch, g, block)
            {
                return Err(found);
            }
            let cell = &mut page.cells[g];
            // Whether nothing orders this one and the latest access, or one of those kept beside it.
            let conflict =
                |wrote: bool, latest: (u64, AccessRecord), more: Option<&Vec<(u64, AccessRecord)>>| {
                    let mut all = std::iter::once(&latest).chain(more.into_iter().flatten());
                    all.find(|(b, record)| !before(*b, record)).map_or(Ok(()), |&(b, record)| {
                        Err(Conflict { wrote, block: (b != MANY).then_some(b), pc: record.pc })
                    })
                };
            if cell.written_in == launch {
                let more = clocks.as_ref().and_then(|c| c.more_writes.get(&(memory, granule)));
                conflict(true, (cell.writer, cell.write), more)?;
            }
            if access == Access::Read {
                let read = AccessRecord { time: now, pc, strong: order.strong };
                if cell.read_in != launch {
                    (cell.read_in, cell.reader, cell.read) = (launch, block, read);
                } else if cell.reader == block {
                    // A plain read counts for more than a strong one.
                    cell.read = AccessRecord { strong: read.strong && cell.read.strong, ..read };
                } else if let Some(clocks) = clocks {
                    let more = clocks.more_reads.entry((memory, granule)).or_default();
                    match more.iter_mut().find(|(b, _)| *b == block) {
                        Some((_, old)) => *old = AccessRecord { strong: read.strong && old.strong, ..read },
                        None => more.push((block, read)),
                    }
                } else {
                    cell.reader = MANY;
                    cell.read.strong &= order.strong;
                }
                continue;
            }
            if cell.read_in == launch {
                let more = clocks.as_ref().and_then(|c| c.more_reads.get(&(memory, granule)));
                conflict(false, (cell.reader, cell.read), more)?;
            }
            let mut write = AccessRecord { time: now, pc, strong: order.strong };
            let mut writer = block;
            if cell.written_in == launch && !superseded(cell.writer, &cell.write) {
                match clocks {
                    Some(clocks) => {
                        let more = clocks.more_writes.entry((memory, granule)).or_default();
                        more.retain(|(b, write)| !superseded(*b, write));
                        more.push((cell.writer, cell.write));
                    }
                    // An atomic after a plain write of the same block must not hide that write.
                    None if cell.writer == block => write.strong = false,
                    // Atomics of several blocks: a plain access conflicts with at least one of another block.
                    None => writer = MANY,
                }
            }
            (cell.written_in, cell.writer, cell.write) = (launch, writer, write);
            page.written_in = launch;
        }
        if let Some(clocks) = clocks {
            if order.acquire {
                clocks.acquire((memory, at), block);
            }
            if order.release {
                clocks.release((memory, at), block);
            }
        }
        Ok(())
    }
}
