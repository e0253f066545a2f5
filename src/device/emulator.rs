//! The emulator as a device: programs, buffers and allocations in terms of the crate `ptx-emulator`, which
//! runs the PTX that NVRTC produced on the CPU.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use ptx_emulator::Memory;
pub use ptx_emulator::{Class, Counters, Instruction, LaunchCounters, Line, Options, WarpOrder};

use crate::device::{
    Allocation, Arg, BufferRef, Device, DeviceKind, Launch, MemoryInfo, Prepared, Program, Space,
};
use crate::kernels::Kernel;
use crate::{Error, Result};

/// A program with what its launches need.
struct Ready {
    program: Arc<Program>,
    /// The kernel of each launch.
    kernels: Vec<ptx_emulator::Kernel>,
    state: Allocation,
    arena: Allocation,
    /// Of the latest counted run.
    counters: Vec<LaunchCounters>,
}

/// The emulator as a [`Device`].
pub struct Emulator {
    emulator: ptx_emulator::Emulator,
    memory: Vec<Option<Memory>>,
    /// The modules that PTX texts became, by the address and length of the text.
    modules: HashMap<(usize, usize), ptx_emulator::Module>,
    programs: Vec<Ready>,
}

impl From<ptx_emulator::Error> for Error {
    fn from(error: ptx_emulator::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl Emulator {
    /// An emulator that runs in that way.
    ///
    /// # Panics
    /// When the host starts no threads.
    pub fn new(options: Options) -> Self {
        Self {
            emulator: ptx_emulator::Emulator::new(options),
            memory: Vec::new(),
            modules: HashMap::new(),
            programs: Vec::new(),
        }
    }

    fn get(&self, a: Allocation) -> Result<&Memory> {
        self.memory
            .get(a.0 as usize)
            .and_then(Option::as_ref)
            .ok_or_else(|| Error::new(format!("allocation {} does not exist or was released", a.0)))
    }

    fn range(&self, a: Allocation, offset: u64, len: usize) -> Result<&Memory> {
        let memory = self.get(a)?;
        if offset.checked_add(len as u64).is_none_or(|end| end > memory.len()) {
            return Err(Error::new(format!(
                "bytes {offset} to {} lie outside allocation {} of {} bytes",
                offset.saturating_add(len as u64),
                a.0,
                memory.len()
            )));
        }
        Ok(memory)
    }

    fn kernel(&mut self, kernel: &Kernel) -> Result<ptx_emulator::Kernel> {
        let ptx = kernel.module.ptx;
        let key = (ptx.as_ptr() as usize, ptx.len());
        let module = match self.modules.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                new.insert(ptx_emulator::Module::named(kernel.module.file, ptx)?.with_source_root("kernels/"))
            }
        };
        Ok(module.kernel(kernel.name)?)
    }

    fn launch(
        &self,
        ready: &Ready,
        launch: &Launch,
        kernel: &ptx_emulator::Kernel,
    ) -> Result<Option<LaunchCounters>> {
        let program = &ready.program;
        let memory_of = |space: Space| match space {
            Space::State => self.get(ready.state),
            Space::Arena => self.get(ready.arena),
        };
        for &b in &launch.defines {
            if let Some(buffer) = program.buffers.get(b as usize) {
                memory_of(buffer.space)?.forget(buffer.offset, buffer.bytes)?;
            }
        }
        let buffer = |r: BufferRef| {
            let buffer = &program.buffers[r.buffer as usize];
            Ok(ptx_emulator::Buffer {
                memory: memory_of(buffer.space)?,
                offset: buffer.offset + r.offset,
                bytes: r.bytes,
                name: &buffer.name,
            })
        };
        with_buffers(launch, buffer, |launch| self.emulator.launch(kernel, launch))
    }
}

/// Runs a launch in the terms of the crate `ptx-emulator`; `buffer` says where each argument's buffer lies.
pub(crate) fn with_buffers<'a, R>(
    launch: &'a Launch,
    mut buffer: impl FnMut(BufferRef) -> Result<ptx_emulator::Buffer<'a>>,
    run: impl FnOnce(&ptx_emulator::Launch) -> ptx_emulator::Result<R>,
) -> Result<R> {
    let mut args = Vec::with_capacity(launch.args.len());
    for arg in &launch.args {
        args.push(match *arg {
            Arg::Null => ptx_emulator::Arg::Null,
            Arg::I32(v) => ptx_emulator::Arg::I32(v),
            Arg::U32(v) => ptx_emulator::Arg::U32(v),
            Arg::F32(v) => ptx_emulator::Arg::F32(v),
            Arg::Buffer(r) => ptx_emulator::Arg::Buffer(buffer(r)?),
        });
    }
    let names: Vec<&str> = launch.kernel.params.iter().map(|p| p.name).collect();
    Ok(run(&ptx_emulator::Launch {
        grid: launch.grid,
        block: launch.block,
        args: &args,
        shared_bytes: launch.shared_bytes,
        cooperative: launch.cooperative,
        label: &launch.label,
        names: &names,
    })?)
}

impl Device for Emulator {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Emulator
    }

    fn set_counting(&mut self, on: bool) {
        self.emulator.set_counting(on);
    }

    fn counters(&self, program: Prepared) -> Option<&[LaunchCounters]> {
        Some(self.programs.get(program.0 as usize).map_or(&[], |p| &p.counters))
    }

    fn describe(&self) -> String {
        match self.emulator.threads() {
            1 => "emulator (1 thread)".to_owned(),
            n => format!("emulator ({n} threads)"),
        }
    }

    fn memory(&self) -> Result<MemoryInfo> {
        let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let field = |name: &str| {
            let line = text.lines().find(|l| l.starts_with(name))?;
            Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
        };
        let total = field("MemTotal:").unwrap_or(8 << 30);
        Ok(MemoryInfo { free: field("MemAvailable:").unwrap_or(total).min(total), total })
    }

    fn allocate(&mut self, bytes: u64) -> Result<Allocation> {
        // An eighth more tells which bytes were written.
        let need = bytes.saturating_add(bytes / 8);
        let free = self.memory()?.free;
        if need > free {
            return Err(Error::new(format!(
                "{need} bytes are needed for an allocation of {bytes}, but the host has {free} free"
            )));
        }
        let memory = Memory::new(bytes)?;
        let slot = self.memory.iter().position(Option::is_none).unwrap_or(self.memory.len());
        if slot == self.memory.len() {
            self.memory.push(None);
        }
        self.memory[slot] = Some(memory);
        Ok(Allocation(slot as u32))
    }

    fn release(&mut self, allocation: Allocation) -> Result<()> {
        self.get(allocation)?;
        self.memory[allocation.0 as usize] = None;
        Ok(())
    }

    fn upload(&mut self, to: Allocation, offset: u64, data: &[u8]) -> Result<()> {
        self.range(to, offset, data.len())?.upload(offset, data)?;
        Ok(())
    }

    fn download(&mut self, from: Allocation, offset: u64, data: &mut [u8]) -> Result<()> {
        self.range(from, offset, data.len())?.download(offset, data)?;
        Ok(())
    }

    fn prepare(&mut self, program: Arc<Program>, state: Allocation, arena: Allocation) -> Result<Prepared> {
        for (space, allocation, need) in
            [(Space::State, state, program.state_bytes), (Space::Arena, arena, program.arena_bytes)]
        {
            let have = self.get(allocation)?.len();
            if have < need {
                return Err(Error::new(format!(
                    "{}: {space:?} needs {need} bytes, but its allocation has {have}",
                    program.name
                )));
            }
            for b in program.buffers.iter().filter(|b| b.space == space) {
                if b.offset.checked_add(b.bytes).is_none_or(|end| end > have) {
                    return Err(Error::new(format!(
                        "{}: buffer {} reaches past the end of its allocation of {have} bytes",
                        program.name, b.name
                    )));
                }
            }
        }
        let mut kernels = Vec::with_capacity(program.launches.len());
        for launch in &program.launches {
            launch.check(&program.buffers, program.target)?;
            kernels.push(self.kernel(launch.kernel)?);
        }
        self.programs.push(Ready { program, kernels, state, arena, counters: Vec::new() });
        Ok(Prepared(self.programs.len() as u32 - 1))
    }

    fn run(&mut self, program: Prepared) -> Result<()> {
        let Some(ready) = self.programs.get(program.0 as usize) else {
            return Err(Error::new(format!("program {} was not prepared", program.0)));
        };
        let arena = self.get(ready.arena)?;
        if ready.arena != ready.state {
            arena.forget(0, ready.program.arena_bytes)?;
        }
        let mut counters = Vec::new();
        for (launch, kernel) in ready.program.launches.iter().zip(&ready.kernels) {
            counters.extend(self.launch(ready, launch, kernel)?);
        }
        if self.emulator.counting() {
            self.programs[program.0 as usize].counters = counters;
        }
        Ok(())
    }

    fn synchronize(&mut self) -> Result<()> {
        Ok(())
    }

    fn elapsed_ms(&mut self) -> Result<Option<f64>> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Target;
    use crate::kernels::{self, Param, ParamKind};

    #[test]
    fn too_much_memory_is_an_error() {
        let mut emulator = Emulator::new(Options::default());
        assert!(emulator.allocate(1 << 50).is_err());
        assert!(emulator.allocate(u64::MAX).is_err());
        let a = emulator.allocate(100).expect("it is little");
        assert!(emulator.upload(a, 1 << 40, &[1]).is_err());
        assert!(emulator.release(a).is_ok() && emulator.release(a).is_err());
    }

    /// A kernel of one number and at most so many threads a block.
    fn kernel(max_threads: u32) -> &'static Kernel {
        Box::leak(Box::new(Kernel {
            name: "k",
            module: &kernels::modules()[0],
            params: &[Param { name: "n", kind: ParamKind::Int32 }],
            max_threads,
            line: 1,
            doc: "",
            resources: &[],
        }))
    }

    #[test]
    fn a_grid_that_waits_for_itself_is_bounded() {
        let kernel = kernel(64);
        let launch = |blocks| {
            Launch::dynamic(kernel, vec![Arg::I32(1)]).grid([blocks, 1, 1]).block([64, 1, 1]).cooperative()
        };
        let target = Target { sms: 108, ..Target::default() };
        assert!(launch(108).check(&[], target).is_ok());
        assert!(launch(109).check(&[], Target::default()).is_ok());
        let error = launch(109).check(&[], target).expect_err("more than are resident");
        let text = "109 blocks that wait for each other, but at most 108 are sure to be resident";
        assert!(error.message().contains(text), "{error}");
    }

    #[test]
    fn grids_and_blocks_that_no_gpu_takes_are_refused() {
        let kernel = kernel(1024);
        let check = |grid, block| {
            let launch = Launch::dynamic(kernel, vec![Arg::I32(1)]).grid(grid).block(block);
            launch.check(&[], Target::default())
        };
        for (grid, block) in [
            ([i32::MAX as u32, 1, 1], [1024, 1, 1]),
            ([1, 65535, 1], [1, 1024, 1]),
            ([1, 1, 65535], [4, 4, 64]),
        ] {
            assert_eq!(check(grid, block), Ok(()));
        }
        for (grid, block, what) in [
            ([1 << 31, 1, 1], [1, 1, 1], "grid [2147483648, 1, 1] is empty or larger than"),
            ([1, 65536, 1], [1, 1, 1], "grid [1, 65536, 1]"),
            ([1, 1, 65536], [1, 1, 1], "grid [1, 1, 65536]"),
            ([0, 1, 1], [1, 1, 1], "grid [0, 1, 1]"),
            ([1, 1, 1], [2, 1, 65], "block [2, 1, 65], but at most [1024, 1024, 64] are allowed"),
            ([1, 1, 1], [2, 512, 2], "2048 threads a block, but at most 1024"),
        ] {
            let error = check(grid, block).expect_err("no GPU takes it");
            assert!(error.message().contains(what), "{error}");
        }
    }
}
