//! Races between blocks: two blocks of one launch touch one place of global memory, one of them
//! writes it. Blocks run in no order, so the result would depend on luck. Checked where asked for,
//! with the blocks one after the other.

use std::collections::HashMap;

/// Granules of a page of records.
const PAGE: u64 = 1024;
/// Stands for several blocks.
const MANY: u64 = u64::MAX;

/// Who touched a granule in the latest launch that did.
#[derive(Clone, Copy, Default)]
struct Cell {
    written_in: u64,
    writer: u64,
    write_pc: u32,
    atomic: bool,
    read_in: u64,
    reader: u64,
    read_pc: u32,
}

/// What an access does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
    Atomic,
}

/// An access of another block that an access meets.
pub(super) struct Meeting {
    pub wrote: bool,
    /// The block, or None where there were several.
    pub block: Option<u64>,
    pub pc: u32,
}

/// Records of all memory.
#[derive(Default)]
pub(super) struct Races {
    pages: HashMap<(usize, u64), Vec<Cell>>,
    launch: u64,
    shift: u32,
}

impl Races {
    /// Starts a launch whose smallest access has so many bytes.
    pub(super) fn start(&mut self, granule: u32) {
        if self.shift != granule.trailing_zeros() {
            self.pages.clear();
            self.shift = granule.trailing_zeros();
        }
        self.launch += 1;
    }

    /// Records an access of a block; what it meets of another block.
    pub(super) fn touch(
        &mut self,
        memory: usize,
        at: u64,
        bytes: u32,
        block: u64,
        pc: u32,
        access: Access,
    ) -> Result<(), Meeting> {
        let launch = self.launch;
        for granule in at >> self.shift..=(at + u64::from(bytes) - 1) >> self.shift {
            let page = self.pages.entry((memory, granule / PAGE)).or_default();
            if page.is_empty() {
                page.resize(PAGE as usize, Cell::default());
            }
            let cell = &mut page[(granule % PAGE) as usize];
            let both_atomic = access == Access::Atomic && cell.atomic;
            if cell.written_in == launch && cell.writer != block && !both_atomic {
                let block = (cell.writer != MANY).then_some(cell.writer);
                return Err(Meeting { wrote: true, block, pc: cell.write_pc });
            }
            if access == Access::Read {
                if cell.read_in != launch {
                    (cell.read_in, cell.reader, cell.read_pc) = (launch, block, pc);
                } else if cell.reader != block {
                    cell.reader = MANY;
                }
                continue;
            }
            if cell.read_in == launch && cell.reader != block {
                let block = (cell.reader != MANY).then_some(cell.reader);
                return Err(Meeting { wrote: false, block, pc: cell.read_pc });
            }
            let again = cell.written_in == launch;
            // An atomic of its own after its plain write must not hide that write.
            cell.atomic = access == Access::Atomic && (!again || cell.atomic);
            let writer = if again && cell.writer != block { MANY } else { block };
            (cell.written_in, cell.writer, cell.write_pc) = (launch, writer, pc);
        }
        Ok(())
    }
}
