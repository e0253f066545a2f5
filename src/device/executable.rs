//! A program bound to memory of a device: load, write, run, read, counters. Nothing else in the engine
//! allocates, prepares or runs.
//!
//! ```no_run
//! use ugatit::device::{executable::Executable, select};
//! # fn main() -> ugatit::Result<()> {
//! # let program = ugatit::device::Program::default();
//! let (device, _) = select::open(select::Choice::Auto)?;
//! let executable = Executable::new(&device, program)?;
//! executable.state().write(0, &[1.0f32, 2.0])?;
//! executable.run()?;
//! let result: Vec<f32> = executable.state().read(0, 2)?;
//! # Ok(()) }
//! ```
//!
//! Several programs share one state: [`State::new`], then [`Executable::load`] for each. An arena belongs to one
//! executable. Both are released with their last owner.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytemuck::Pod;

use super::emulator::LaunchCounters;
use super::{Allocation, Device, Location, Prepared, Program, Space};
use crate::{Error, Result};

/// Bytes that are zeroed in one copy.
const ZEROS: u64 = 1 << 20;

/// A device that several executables use in turn. A clone is another handle to the same device.
#[derive(Clone)]
pub struct DeviceHandle(Arc<Mutex<dyn Device>>);

impl DeviceHandle {
    /// A handle to that device.
    pub fn new(device: impl Device + 'static) -> Self {
        Self(Arc::new(Mutex::new(device)))
    }

    /// The device, for one call. While the guard lives, no executable of the device may be used or dropped on
    /// this thread: it would wait for the guard.
    pub fn lock(&self) -> MutexGuard<'_, dyn Device + 'static> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An allocation that is released when it is dropped.
struct Memory {
    device: DeviceHandle,
    allocation: Allocation,
}

impl Memory {
    fn new(device: &DeviceHandle, bytes: u64) -> Result<Self> {
        // A device need not know empty allocations.
        let allocation = device.lock().allocate(bytes.max(1))?;
        Ok(Self { device: device.clone(), allocation })
    }

    fn read<T: Pod>(&self, offset: u64, count: usize) -> Result<Vec<T>> {
        let mut data = vec![T::zeroed(); count];
        self.device.lock().download(self.allocation, offset, bytemuck::cast_slice_mut(&mut data))?;
        Ok(data)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // A device that cannot give memory back says so at its next use.
        _ = self.device.lock().release(self.allocation);
    }
}

/// The persistent memory of one program or of several: weights, inputs, results.
pub struct State(Memory);

impl State {
    /// Obtains uninitialised memory of the device.
    ///
    /// # Errors
    /// When the device has too little.
    pub fn new(device: &DeviceHandle, bytes: u64) -> Result<Arc<Self>> {
        Ok(Arc::new(Self(Memory::new(device, bytes)?)))
    }

    /// The device it lies on.
    pub fn device(&self) -> &DeviceHandle {
        &self.0.device
    }

    /// Copies `data` to the bytes from `offset` on, after everything started before.
    ///
    /// # Errors
    /// When the range lies outside, or the device fails.
    pub fn write<T: Pod>(&self, offset: u64, data: &[T]) -> Result<()> {
        self.0.device.lock().upload(self.0.allocation, offset, bytemuck::cast_slice(data))
    }

    /// Writes zeros to `bytes` bytes from `offset` on.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn zero(&self, offset: u64, bytes: u64) -> Result<()> {
        let zeros = vec![0u8; bytes.min(ZEROS) as usize];
        let mut done = 0;
        while done < bytes {
            let now = (bytes - done).min(ZEROS);
            self.write(offset + done, &zeros[..now as usize])?;
            done += now;
        }
        Ok(())
    }

    /// Reads `count` elements from byte `offset` on, after everything started before.
    ///
    /// # Errors
    /// When the range lies outside, or the device or a run before it fails.
    pub fn read<T: Pod>(&self, offset: u64, count: usize) -> Result<Vec<T>> {
        self.0.read(offset, count)
    }
}

/// How a run is put on a GPU; no difference on the emulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaunchMode {
    /// All launches as one graph, as every run of the engine.
    Graph,
    /// Launch by launch.
    Stream,
}

/// A program ready to run, over a state that it may share with others and an arena of its own.
pub struct Executable {
    program: Arc<Program>,
    prepared: Prepared,
    state: Arc<State>,
    arena: Memory,
}

impl Executable {
    /// Loads a program over a new state of its own.
    ///
    /// # Errors
    /// When the device has too little memory, or the program does not fit the device.
    pub fn new(device: &DeviceHandle, program: impl Into<Arc<Program>>) -> Result<Self> {
        let program = program.into();
        let state = State::new(device, program.state_bytes)?;
        Self::load(program, &state)
    }

    /// Loads a program over a state.
    ///
    /// # Errors
    /// As [`Self::new`], and when the state is smaller than the program's.
    pub fn load(program: impl Into<Arc<Program>>, state: &Arc<State>) -> Result<Self> {
        let program = program.into();
        let device = state.device();
        let arena = Memory::new(device, program.arena_bytes)?;
        let prepared = device.lock().prepare(program.clone(), state.0.allocation, arena.allocation)?;
        Ok(Self { program, prepared, state: state.clone(), arena })
    }

    /// The program.
    pub fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// The state.
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// The device.
    pub fn device(&self) -> &DeviceHandle {
        self.state.device()
    }

    /// Starts one run; returns without waiting where the device can. A read waits for it.
    ///
    /// # Errors
    /// When the device fails.
    pub fn start(&self) -> Result<()> {
        self.device().lock().run(self.prepared)
    }

    /// Runs once and waits for the end.
    ///
    /// # Errors
    /// When the device or the run fails.
    pub fn run(&self) -> Result<()> {
        let mut device = self.device().lock();
        device.run(self.prepared)?;
        device.synchronize()
    }

    /// Runs once, waits for the end and returns the time by the device's clock, milliseconds; None where it has
    /// none.
    ///
    /// # Errors
    /// When the device or the run fails.
    pub fn time(&self, mode: LaunchMode) -> Result<Option<f64>> {
        let mut device = self.device().lock();
        match mode {
            LaunchMode::Graph => device.run(self.prepared)?,
            LaunchMode::Stream => device.run_stream(self.prepared)?,
        }
        device.synchronize()?;
        device.elapsed_ms()
    }

    /// Reads a range of the state or the arena.
    ///
    /// # Errors
    /// When its size is no whole number of elements, or the device or a run before it fails.
    pub fn read<T: Pod>(&self, at: Location) -> Result<Vec<T>> {
        let size = size_of::<T>() as u64;
        if !at.bytes.is_multiple_of(size) {
            return Err(Error::new(format!("{} bytes are no whole number of elements of {size}", at.bytes)));
        }
        let memory = match at.space {
            Space::State => &self.state.0,
            Space::Arena => &self.arena,
        };
        memory.read(at.offset, (at.bytes / size) as usize)
    }

    /// What each launch did in the latest counted run, in order; None where the device does not count
    /// ([`Device::set_counting`]).
    pub fn counters(&self) -> Option<Vec<LaunchCounters>> {
        self.device().lock().counters(self.prepared).map(<[_]>::to_vec)
    }

    /// What each launch takes by itself, milliseconds; None where the device has no clock of its own. See
    /// [`Device::time_launches`].
    ///
    /// # Errors
    /// When the device fails.
    pub fn time_launches(&self, repeats: usize) -> Result<Option<Vec<f64>>> {
        self.device().lock().time_launches(self.prepared, repeats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::emulator::{Emulator, Options};
    use crate::device::{Buffer, BufferRef, DeviceKind, Launch, MemoryInfo, Target};
    use crate::kernels::arg::{In, Out};
    use crate::kernels::{args, entry};

    /// 1024 floats copied from the first KiB of the state that `from` names to the one that `to` names.
    fn copy(from: u64, to: u64) -> Program {
        let buffer = |name: &str, at: u64| {
            let (space, bytes) = (Space::State, 4096);
            Buffer { name: name.into(), space, offset: 4096 * at, bytes }
        };
        let whole = |buffer| BufferRef { buffer, offset: 0, bytes: 4096 };
        let args = args::CopyX4 { out: Out(whole(1)), inp: In(whole(0)), n: 1024 };
        let launch = Launch::new(entry::COPY_X4_F32, args).unwrap().grid([1, 1, 1]).block([256, 1, 1]);
        let buffers = vec![buffer("from", from), buffer("to", to)];
        Program {
            name: "copy".into(),
            target: Target::default(),
            buffers,
            launches: vec![launch],
            arena_bytes: 0,
            state_bytes: 3 * 4096,
        }
    }

    #[test]
    fn programs_share_a_state_and_are_counted_where_that_is_asked_for() {
        let device = DeviceHandle::new(Emulator::new(Options::default()));
        let state = State::new(&device, 3 * 4096).unwrap();
        let [first, second] =
            [(0, 1), (1, 2)].map(|(from, to)| Executable::load(copy(from, to), &state).unwrap());
        let data: Vec<f32> = (0..1024u16).map(f32::from).collect();
        state.write(0, &data).unwrap();
        state.zero(4096, 8192).unwrap();
        second.run().unwrap();
        assert_eq!(state.read::<f32>(8192, 1024).unwrap(), vec![0.0; 1024]);
        device.lock().set_counting(true);
        first.run().unwrap();
        second.run().unwrap();
        assert_eq!(state.read::<f32>(8192, 1024).unwrap(), data);
        let location = Location { space: Space::State, offset: 8192 + 4, bytes: 8 };
        assert_eq!(first.read::<f32>(location).unwrap(), [1.0, 2.0]);
        assert!(first.read::<f64>(Location { bytes: 12, ..location }).is_err());
        let counters = first.counters().unwrap();
        assert_eq!(counters.iter().map(|l| l.total().global_written_bytes).collect::<Vec<_>>(), [4096]);
        assert_eq!(first.time_launches(1).unwrap(), None, "the emulator's time is no device's");
        assert_eq!(first.time(LaunchMode::Stream).unwrap(), None);
    }

    /// A device that only keeps account of its memory.
    #[derive(Clone, Default)]
    struct Ledger(Arc<Mutex<Vec<u64>>>);

    impl Device for Ledger {
        fn kind(&self) -> DeviceKind {
            DeviceKind::Gpu
        }
        fn describe(&self) -> String {
            "ledger".into()
        }
        fn memory(&self) -> Result<MemoryInfo> {
            Ok(MemoryInfo { free: 0, total: 0 })
        }
        fn allocate(&mut self, bytes: u64) -> Result<Allocation> {
            if bytes > 100 {
                return Err(Error::new("too much"));
            }
            self.0.lock().unwrap().push(bytes);
            Ok(Allocation(bytes as u32))
        }
        fn release(&mut self, allocation: Allocation) -> Result<()> {
            self.0.lock().unwrap().retain(|b| *b != u64::from(allocation.0));
            Ok(())
        }
        fn upload(&mut self, _: Allocation, _: u64, _: &[u8]) -> Result<()> {
            Ok(())
        }
        fn download(&mut self, _: Allocation, _: u64, _: &mut [u8]) -> Result<()> {
            Ok(())
        }
        fn prepare(&mut self, program: Arc<Program>, _: Allocation, _: Allocation) -> Result<Prepared> {
            if program.name == "bad" { Err(Error::new("bad")) } else { Ok(Prepared(0)) }
        }
        fn run(&mut self, _: Prepared) -> Result<()> {
            Ok(())
        }
        fn synchronize(&mut self) -> Result<()> {
            Ok(())
        }
        fn elapsed_ms(&mut self) -> Result<Option<f64>> {
            Ok(None)
        }
    }

    #[test]
    fn memory_is_released_with_its_last_owner_and_after_a_failure() {
        let ledger = Ledger::default();
        let live = || ledger.0.lock().unwrap().clone();
        let device = DeviceHandle::new(ledger.clone());
        let program = |name: &str, arena_bytes| Program {
            name: name.into(),
            arena_bytes,
            state_bytes: 50,
            ..Program::default()
        };
        let state = State::new(&device, 50).unwrap();
        let first = Executable::load(program("first", 10), &state).unwrap();
        let second = Executable::load(program("second", 20), &state).unwrap();
        assert_eq!(live(), [50, 10, 20]);
        drop(first);
        drop(state);
        assert_eq!(live(), [50, 20], "the second still owns the state");
        drop(second);
        assert!(live().is_empty());
        assert!(Executable::new(&device, program("bad", 10)).is_err());
        assert!(Executable::new(&device, program("large", 101)).is_err());
        assert!(live().is_empty(), "what was obtained before the failure is given back");
    }
}
