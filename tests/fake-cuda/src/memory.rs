//! Memory of devices, and pinned memory of the host.

use std::alloc::{Layout, alloc, dealloc};
use std::hash::{DefaultHasher, Hasher};
use std::{ptr, slice};

use ptx_emulator::Memory;

use crate::driver::Driver;
use crate::error::{INVALID_VALUE, OUT_OF_MEMORY, R};
use crate::stream::{Op, Source};

/// The driver gives out memory of devices in pieces of so many bytes.
const PAGE: u64 = 2 << 20;

/// Device memory.
pub struct Allocation {
    pub device: usize,
    pub memory: Memory,
    /// What was asked for; the memory may be longer.
    pub bytes: u64,
}

/// Pinned memory.
pub struct Pinned {
    pub device: usize,
    layout: Layout,
}

impl Pinned {
    /// Frees it.
    pub fn free(self, at: usize) {
        // SAFETY: `allocate_host` obtained it with this layout, and its entry in the driver's list is gone.
        unsafe { dealloc(ptr::with_exposed_provenance_mut(at), self.layout) };
    }
}

/// What tells whether bytes have changed.
pub fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

/// Bytes of an allocation of that many.
fn rounded(bytes: u64) -> u64 {
    bytes.next_multiple_of(if bytes >= PAGE { PAGE } else { 512 })
}

impl Driver {
    /// Free and total bytes of the current context's device. A sixteenth is the system's.
    pub fn memory_info(&self) -> R<(u64, u64)> {
        let device = &self.devices[self.here()?];
        let total = device.spec.memory;
        Ok(((total - total / 16).saturating_sub(device.used), total))
    }

    /// Device memory that nothing has written; its bytes are all 0xff, a NaN in every element type.
    pub fn allocate(&mut self, bytes: u64) -> R<u64> {
        if bytes == 0 {
            return Err(INVALID_VALUE);
        }
        if rounded(bytes) > self.memory_info()?.0 {
            return Err(OUT_OF_MEMORY);
        }
        let device = self.here()?;
        let memory = Memory::new(bytes).map_err(|_| OUT_OF_MEMORY)?;
        let chunk = vec![0xff; 1 << 20];
        for at in (0..bytes).step_by(chunk.len()) {
            let length = (bytes - at).min(chunk.len() as u64) as usize;
            memory.upload(at, &chunk[..length]).expect("inside");
        }
        memory.forget(0, bytes).expect("inside");
        self.devices[device].used += rounded(bytes);
        // No address is given out twice, and none is better aligned than promised.
        let address = self.next_address + 256;
        self.next_address += bytes.next_multiple_of(PAGE) + 2 * PAGE;
        self.memory.insert(address, Allocation { device, memory, bytes });
        Ok(address)
    }

    /// Frees device memory.
    pub fn free(&mut self, address: u64) -> R {
        if address == 0 {
            return Ok(());
        }
        let Some(&Allocation { device, bytes, .. }) = self.memory.get(&address) else {
            self.complain(&format!("cuMemFree of {address:#x}, {}", self.what_is(address)));
            return Err(INVALID_VALUE);
        };
        self.belongs(device, "memory")?;
        if self.is_pending(|op| op.uses(address..address + bytes)) {
            self.complain("device memory is freed while work on it is pending");
        }
        self.devices[device].used -= rounded(bytes);
        self.memory.remove(&address);
        self.freed.insert(address, bytes);
        Ok(())
    }

    /// Whether something on a stream is not done yet that is like that.
    pub fn is_pending(&self, like: impl Fn(&Op) -> bool) -> bool {
        self.streams.values().any(|s| s.queue.iter().any(|(_, op)| like(op)))
    }

    /// Pinned memory.
    pub fn allocate_host(&mut self, bytes: usize) -> R<*mut u8> {
        let device = self.here()?;
        let layout = Layout::from_size_align(bytes, 4096).ok().filter(|_| bytes > 0).ok_or(INVALID_VALUE)?;
        // SAFETY: the size is above zero.
        let at = unsafe { alloc(layout) };
        if at.is_null() {
            return Err(OUT_OF_MEMORY);
        }
        self.pinned.insert(at.expose_provenance(), Pinned { device, layout });
        Ok(at)
    }

    /// Frees pinned memory.
    pub fn free_host(&mut self, at: usize) -> R {
        let Some(pinned) = self.pinned.get(&at) else {
            self.complain("cuMemFreeHost of what is not pinned");
            return Err(INVALID_VALUE);
        };
        let range = at..at + pinned.layout.size();
        let copies = |op: &Op| match op {
            Op::Upload { from: Source::Pinned { at, .. }, .. } | Op::Download { to: at, .. } => {
                range.contains(at)
            }
            _ => false,
        };
        if self.is_pending(copies) {
            self.complain("pinned memory is freed while a copy of it is pending");
        }
        self.pinned.remove(&at).expect("found above").free(at);
        Ok(())
    }

    /// Whether all of a range of the host's memory is pinned.
    pub fn is_pinned(&self, at: usize, bytes: usize) -> bool {
        let found = self.pinned.range(..=at).next_back();
        found.is_some_and(|(start, p)| at + bytes <= start + p.layout.size())
    }

    /// The allocation that an address lies in, and how far in.
    pub fn find(&self, address: u64) -> Option<(&Allocation, u64)> {
        let (start, allocation) = self.memory.range(..=address).next_back()?;
        (address - start < allocation.bytes).then_some((allocation, address - start))
    }

    /// In words, what an address is that lies in no allocation.
    pub fn what_is(&self, address: u64) -> &'static str {
        let freed = self.freed.range(..=address).next_back();
        match freed {
            Some((start, bytes)) if address < start + bytes => "memory that was freed",
            _ if self.find(address).is_some() => "an address within an allocation",
            _ => "no address of device memory",
        }
    }

    /// Refuses a copy of a range that lies in no allocation of the current context.
    fn check_range(&self, what: &str, address: u64, bytes: u64) -> R {
        match self.find(address) {
            Some((allocation, at)) if at + bytes <= allocation.bytes => {
                self.belongs(allocation.device, "memory")
            }
            _ => {
                let is = self.what_is(address);
                self.complain(&format!(
                    "{what} of {bytes} bytes at {address:#x} is within no allocation: {is}"
                ));
                Err(INVALID_VALUE)
            }
        }
    }

    /// Puts a copy to the device on a stream. Out of pinned memory it reads when it is done; other memory is copied now.
    ///
    /// # Safety
    /// `from` points at that many bytes.
    pub unsafe fn upload(&mut self, to: u64, from: *const u8, bytes: usize, stream: u64) -> R {
        if bytes == 0 {
            return Ok(());
        }
        self.check_range("the target", to, bytes as u64)?;
        // SAFETY: the caller's.
        let data = unsafe { slice::from_raw_parts(from, bytes) };
        let at = from.expose_provenance();
        let from = if self.is_pinned(at, bytes) {
            Source::Pinned { at, hash: hash(data) }
        } else {
            self.refuse_in_capture(stream)?;
            Source::Copied(data.into())
        };
        self.enqueue(stream, Op::Upload { to, from, bytes })
    }

    /// Puts a copy from the device on a stream; into memory that is not pinned, it waits for its end.
    ///
    /// # Safety
    /// `to` points at that many bytes, until the copy is done.
    pub unsafe fn download(&mut self, to: *mut u8, from: u64, bytes: usize, stream: u64) -> R {
        if bytes == 0 {
            return Ok(());
        }
        self.check_range("the source", from, bytes as u64)?;
        let to = to.expose_provenance();
        if self.is_pinned(to, bytes) {
            return self.enqueue(stream, Op::Download { to, from, bytes });
        }
        self.refuse_in_capture(stream)?;
        self.enqueue(stream, Op::Download { to, from, bytes })?;
        self.drain(stream, u64::MAX)
    }
}
