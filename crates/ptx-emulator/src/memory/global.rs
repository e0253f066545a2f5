//! Global memory of the emulator: raw bytes, and one bit a byte that says whether it was written.
//!
//! Blocks run in parallel and a faulty kernel may race, so every access is a relaxed atomic one:
//! a race in a kernel is then a wrong value, never undefined behaviour in the emulator.
#![allow(unsafe_code)]
// Lanes are numbers here.
#![allow(clippy::needless_range_loop)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

use super::element::Element;
use crate::error::{Error, ErrorKind, Result};

/// Zeroed bytes obtained from the allocator, aligned to a page.
struct Raw {
    ptr: *mut u8,
    layout: Layout,
}

// SAFETY: the bytes are only reached through relaxed atomics, which any thread may use.
unsafe impl Send for Raw {}
// SAFETY: as above.
unsafe impl Sync for Raw {}

impl Raw {
    fn new(bytes: u64) -> Option<Self> {
        let layout = Layout::from_size_align(usize::try_from(bytes).ok()?.max(1), 4096).ok()?;
        // SAFETY: the layout has a size above zero.
        let ptr = unsafe { alloc_zeroed(layout) };
        (!ptr.is_null()).then_some(Self { ptr, layout })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // SAFETY: the pointer came from alloc_zeroed with this layout.
        unsafe { dealloc(self.ptr, self.layout) }
    }
}

/// Global memory that buffers lie in.
pub struct Memory {
    bytes: Raw,
    written: Raw,
    len: u64,
    requested: u64,
}

macro_rules! access {
    ($load:ident, $store:ident, $atomic:ident, $ty:ident, $at:ident) => {
        #[inline(always)]
        fn $at(&self, offset: u64) -> &$atomic {
            const SIZE: u64 = size_of::<$ty>() as u64;
            assert!(offset.is_multiple_of(SIZE) && offset < self.len && SIZE <= self.len - offset);
            // SAFETY: aligned, inside the allocation (just checked), and only reached atomically.
            unsafe { $atomic::from_ptr(self.bytes.ptr.add(offset as usize).cast()) }
        }

        /// The value at an aligned offset inside the allocation.
        #[inline(always)]
        pub(crate) fn $load(&self, offset: u64) -> $ty {
            self.$at(offset).load(Relaxed)
        }

        /// Sets the value at an aligned offset inside the allocation.
        #[inline(always)]
        pub(crate) fn $store(&self, offset: u64, value: $ty) {
            self.$at(offset).store(value, Relaxed);
        }
    };
}

impl Memory {
    /// Zeroed memory that counts as unwritten, aligned to a page. An eighth more is taken to note which bytes
    /// were written.
    ///
    /// # Errors
    /// When the host has too little.
    pub fn new(bytes: u64) -> Result<Self> {
        let fail = || {
            Error::new(
                ErrorKind::HostMemory,
                format!("the host has no memory for an allocation of {bytes} bytes"),
            )
        };
        let len = bytes.checked_next_multiple_of(64).ok_or_else(fail)?;
        Ok(Self {
            bytes: Raw::new(len).ok_or_else(fail)?,
            written: Raw::new(len / 8).ok_or_else(fail)?,
            len,
            requested: bytes,
        })
    }

    /// Memory that holds these values.
    ///
    /// # Errors
    /// When the host has too little.
    pub fn of<T: Element>(values: &[T]) -> Result<Self> {
        let mut bytes = Vec::with_capacity(size_of_val(values));
        values.iter().for_each(|v| v.put(&mut bytes));
        let memory = Self::new(bytes.len() as u64)?;
        memory.upload(0, &bytes)?;
        Ok(memory)
    }

    /// `count` values from a byte on, written or not.
    ///
    /// # Errors
    /// When the range does not lie inside.
    pub fn read<T: Element>(&self, offset: u64, count: usize) -> Result<Vec<T>> {
        let bytes = size_of::<T>() as u64 * count as u64;
        self.check(offset, bytes)?;
        let mut out = vec![0; bytes as usize];
        self.download(offset, &mut out)?;
        Ok(out.chunks_exact(size_of::<T>()).map(T::get).collect())
    }

    /// The bytes it was made for.
    pub(crate) fn requested(&self) -> u64 {
        self.requested
    }

    /// Its length in bytes: what was asked for, rounded up to a multiple of 64.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.len
    }

    access!(load8, store8, AtomicU8, u8, at8);
    access!(load16, store16, AtomicU16, u16, at16);
    access!(load32, store32, AtomicU32, u32, at32);
    access!(load64, store64, AtomicU64, u64, at64);

    /// Replaces the 32-bit word at an offset by a function of it; returns the old word.
    pub(crate) fn update32(&self, offset: u64, f: impl Fn(u32) -> u32) -> u32 {
        let at = self.at32(offset);
        let mut old = at.load(Relaxed);
        while let Err(now) = at.compare_exchange_weak(old, f(old), Relaxed, Relaxed) {
            old = now;
        }
        old
    }

    /// Replaces the 64-bit word at an offset by a function of it; returns the old word.
    pub(crate) fn update64(&self, offset: u64, f: impl Fn(u64) -> u64) -> u64 {
        let at = self.at64(offset);
        let mut old = at.load(Relaxed);
        while let Err(now) = at.compare_exchange_weak(old, f(old), Relaxed, Relaxed) {
            old = now;
        }
        old
    }

    /// Reads consecutive 32-bit words.
    #[inline(always)]
    pub(crate) fn read_words(&self, offset: u64, out: &mut [u32; 32]) {
        assert!(offset.is_multiple_of(4) && offset < self.len && 128 <= self.len - offset);
        // SAFETY: 128 bytes from an offset aligned to 4 lie inside the allocation (just checked).
        let ptr = unsafe { self.bytes.ptr.add(offset as usize) };
        if offset.is_multiple_of(8) {
            for i in 0..16 {
                // SAFETY: aligned to 8 and inside; only reached atomically.
                let v = unsafe { AtomicU64::from_ptr(ptr.add(8 * i).cast()) }.load(Relaxed);
                out[2 * i] = v as u32;
                out[2 * i + 1] = (v >> 32) as u32;
            }
        } else {
            for (i, o) in out.iter_mut().enumerate() {
                // SAFETY: aligned to 4 and inside; only reached atomically.
                *o = unsafe { AtomicU32::from_ptr(ptr.add(4 * i).cast()) }.load(Relaxed);
            }
        }
    }

    /// Reads `N` consecutive words at each of 32 offsets: word `k` of each into row `k`.
    #[inline(always)]
    pub(crate) fn gather<const N: usize>(&self, at: &[u64; 32], out: &mut [[u32; 32]; 4]) {
        let bytes = 4 * N as u64;
        assert!(self.len >= bytes);
        let last = self.len - bytes;
        let mut words = [[0u32; N]; 32];
        for l in 0..32 {
            let offset = at[l];
            assert!(offset <= last && offset.is_multiple_of(bytes));
            // SAFETY: aligned to the whole and inside (just checked).
            let ptr = unsafe { self.bytes.ptr.add(offset as usize) };
            if N == 1 {
                // SAFETY: as above; only reached atomically.
                words[l][0] = unsafe { AtomicU32::from_ptr(ptr.cast()) }.load(Relaxed);
            } else {
                for k in 0..N / 2 {
                    // SAFETY: as above; only reached atomically.
                    let v = unsafe { AtomicU64::from_ptr(ptr.add(8 * k).cast()) }.load(Relaxed);
                    words[l][2 * k] = v as u32;
                    words[l][2 * k + 1] = (v >> 32) as u32;
                }
            }
        }
        for k in 0..N {
            for l in 0..32 {
                out[k][l] = words[l][k];
            }
        }
    }

    /// Writes consecutive 32-bit words.
    #[inline(always)]
    pub(crate) fn write_words(&self, offset: u64, values: &[u32; 32]) {
        assert!(offset.is_multiple_of(4) && offset < self.len && 128 <= self.len - offset);
        // SAFETY: 128 bytes from an offset aligned to 4 lie inside the allocation (just checked).
        let ptr = unsafe { self.bytes.ptr.add(offset as usize) };
        if offset.is_multiple_of(8) {
            for i in 0..16 {
                let v = u64::from(values[2 * i]) | u64::from(values[2 * i + 1]) << 32;
                // SAFETY: aligned to 8 and inside; only reached atomically.
                unsafe { AtomicU64::from_ptr(ptr.add(8 * i).cast()) }.store(v, Relaxed);
            }
        } else {
            for (i, v) in values.iter().enumerate() {
                // SAFETY: aligned to 4 and inside; only reached atomically.
                unsafe { AtomicU32::from_ptr(ptr.add(4 * i).cast()) }.store(*v, Relaxed);
            }
        }
    }

    /// Fails where a range does not lie inside.
    fn check(&self, offset: u64, bytes: u64) -> Result<()> {
        if offset.checked_add(bytes).is_some_and(|end| end <= self.len) {
            return Ok(());
        }
        let end = offset.saturating_add(bytes);
        let what = format!("bytes {offset} to {end} lie outside a memory of {} bytes", self.len);
        Err(Error::new(ErrorKind::HostMemory, what))
    }

    /// Copies bytes in and marks them written.
    ///
    /// # Errors
    /// When they do not fit.
    pub fn upload(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.check(offset, data.len() as u64)?;
        let mut at = offset;
        let mut rest = data;
        while !rest.is_empty() && !at.is_multiple_of(8) {
            self.store8(at, rest[0]);
            (at, rest) = (at + 1, &rest[1..]);
        }
        let (words, tail) = rest.as_chunks::<8>();
        for word in words {
            self.store64(at, u64::from_le_bytes(*word));
            at += 8;
        }
        for &byte in tail {
            self.store8(at, byte);
            at += 1;
        }
        self.mark(offset, data.len() as u64);
        Ok(())
    }

    /// Copies bytes out, written or not.
    ///
    /// # Errors
    /// When the range does not lie inside.
    pub fn download(&self, offset: u64, data: &mut [u8]) -> Result<()> {
        self.check(offset, data.len() as u64)?;
        let mut at = offset;
        let mut rest = data;
        while !rest.is_empty() && !at.is_multiple_of(8) {
            rest[0] = self.load8(at);
            at += 1;
            rest = &mut rest[1..];
        }
        let (words, tail) = rest.as_chunks_mut::<8>();
        for word in words {
            *word = self.load64(at).to_le_bytes();
            at += 8;
        }
        for byte in tail {
            *byte = self.load8(at);
            at += 1;
        }
        Ok(())
    }

    #[inline(always)]
    fn shadow(&self, word: u64) -> &AtomicU64 {
        assert!(word < self.len / 64);
        // SAFETY: the shadow has len / 64 words, aligned, only reached atomically.
        unsafe { AtomicU64::from_ptr(self.written.ptr.add(word as usize * 8).cast()) }
    }

    /// Whether all of at most 64 bytes that do not cross a multiple of 64 were written.
    #[inline(always)]
    pub(crate) fn is_written(&self, offset: u64, bytes: u32) -> bool {
        let mask = bits(bytes) << (offset % 64);
        self.shadow(offset / 64).load(Relaxed) & mask == mask
    }

    /// Marks at most 64 bytes that do not cross a multiple of 64 as written.
    #[inline(always)]
    pub(crate) fn mark_written(&self, offset: u64, bytes: u32) {
        let mask = bits(bytes) << (offset % 64);
        let shadow = self.shadow(offset / 64);
        if mask == u64::MAX {
            shadow.store(mask, Relaxed);
        } else if shadow.load(Relaxed) & mask != mask {
            shadow.fetch_or(mask, Relaxed);
        }
    }

    /// The first byte of a range that nothing wrote, as an offset into the memory.
    ///
    /// # Panics
    /// When the range does not lie inside.
    #[inline(always)]
    pub fn first_unwritten(&self, offset: u64, bytes: u64) -> Option<u64> {
        let (mut at, end) = (offset, offset + bytes);
        while at < end {
            let n = (64 - at % 64).min(end - at);
            let mask = bits(n as u32) << (at % 64);
            let missing = mask & !self.shadow(at / 64).load(Relaxed);
            if missing != 0 {
                return Some(at / 64 * 64 + u64::from(missing.trailing_zeros()));
            }
            at += n;
        }
        None
    }

    /// Marks a range as written.
    #[inline(always)]
    pub(crate) fn mark(&self, offset: u64, bytes: u64) {
        let (mut at, end) = (offset, offset + bytes);
        while at < end {
            let n = (64 - at % 64).min(end - at);
            self.mark_written(at, n as u32);
            at += n;
        }
    }

    /// Marks a range as not written: its contents are undefined from now on.
    ///
    /// # Errors
    /// When the range does not lie inside.
    pub fn forget(&self, offset: u64, bytes: u64) -> Result<()> {
        self.check(offset, bytes)?;
        let (mut at, end) = (offset, offset + bytes);
        while at < end {
            let n = (64 - at % 64).min(end - at);
            let mask = bits(n as u32) << (at % 64);
            if mask == u64::MAX {
                self.shadow(at / 64).store(0, Relaxed);
            } else {
                self.shadow(at / 64).fetch_and(!mask, Relaxed);
            }
            at += n;
        }
        Ok(())
    }
}

/// The lowest `n` bits, `n` in 1..=64.
#[inline(always)]
fn bits(n: u32) -> u64 {
    u64::MAX >> (64 - n)
}
