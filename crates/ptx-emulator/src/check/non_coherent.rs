//! Loads through the non-coherent cache (`ld.global.nc`) of what the same launch writes. PTX lets them return a stale
//! value whoever writes it, before or after, in the same thread even: the data must be read-only while the kernel
//! runs. Checked on request, byte by byte.

use std::collections::HashMap;

/// Bytes of a page, in words of 64.
const WORDS: usize = 64;
const PAGE: u64 = 64 * WORDS as u64;

/// The bytes of a page that a launch loaded in that way, and those that it wrote.
struct Page {
    launch: u64,
    /// A bit a byte: loaded, written.
    touched: [[u64; WORDS]; 2],
    /// The latest instruction to touch each word.
    pc: [[u32; WORDS]; 2],
}

/// The pages by memory and number.
#[derive(Default)]
pub(crate) struct NonCoherent {
    launch: u64,
    pages: HashMap<(usize, u64), Page>,
}

impl NonCoherent {
    /// Starts a launch.
    pub(crate) fn start(&mut self) {
        self.launch += 1;
    }

    /// Records a non-coherent load, or a write, of bytes that lie in a memory.
    ///
    /// # Errors
    /// The instruction that did the other thing to one of them in this launch.
    pub(crate) fn record(
        &mut self,
        memory: usize,
        at: u64,
        bytes: u64,
        writes: bool,
        pc: u32,
    ) -> Result<(), u32> {
        let (mine, other) = (usize::from(writes), usize::from(!writes));
        let (mut from, end) = (at, at + bytes);
        while from < end {
            let page = self.pages.entry((memory, from / PAGE)).or_insert_with(|| Page {
                launch: 0,
                touched: [[0; WORDS]; 2],
                pc: [[0; WORDS]; 2],
            });
            if page.launch != self.launch {
                (page.launch, page.touched) = (self.launch, [[0; WORDS]; 2]);
            }
            let n = (64 - from % 64).min(end - from);
            let word = (from % PAGE / 64) as usize;
            let mask = u64::MAX >> (64 - n) << (from % 64);
            if page.touched[other][word] & mask != 0 {
                return Err(page.pc[other][word]);
            }
            page.touched[mine][word] |= mask;
            page.pc[mine][word] = pc;
            from += n;
        }
        Ok(())
    }
}
