//! An NVIDIA GPU, through the CUDA driver API. The driver's library is opened at run time, so the
//! same binary starts on machines without one.
//!
//! Everything happens on one stream: uploads, runs and downloads are in order without further
//! care. A program is captured as a CUDA graph when it is prepared, and a run is one graph launch.
#![allow(unsafe_code)]

mod code;
mod driver;
mod failure;
mod ffi;
mod graph;
mod handle;
mod load;

use std::env;
use std::ptr;
use std::sync::Arc;

pub use driver::{DriverInfo, GpuInfo};
pub use failure::{NO_GPU_HINT, SYNC_VARIABLE};

use code::Code;
use driver::{Gpu, opening};
use failure::failed;
use ffi::{Address, Functions};
use graph::{Ready, Step, capture};
use handle::{Event, Stream};
use load::Loaded;

use super::{Allocation, Device, DeviceKind, MemoryInfo, Prepared, Program, Space, Target};
use crate::format;
use crate::kernels::{Kernel, Module};
use crate::{Error, Result};

/// Uploads go through this many pinned buffers in turn …
const STAGING_BUFFERS: usize = 8;

/// … of this many bytes, so that the host need not wait for the run that an upload is ordered after.
const STAGING_BYTES: usize = 2 << 20;

/// One GPU.
pub struct Cuda {
    gpu: Gpu,
    stream: Stream,
    loaded: Loaded,
    /// By [`Allocation`]; None once released.
    memory: Vec<Option<Memory>>,
    /// By [`Prepared`]; None once one of its allocations was released.
    programs: Vec<Option<Ready>>,
    staging: Vec<Staging>,
    next_staging: usize,
    started: Event,
    ended: Event,
    /// The latest program run.
    latest: Option<Arc<Program>>,
    /// Whether its start and end are recorded.
    timed: bool,
    launch_by_launch: bool,
}

// SAFETY: the driver's handles may be used from any thread, one at a time; every method that passes
// one to the driver makes the context current first, and there is no `Sync`.
unsafe impl Send for Cuda {}

#[derive(Clone, Copy)]
struct Memory {
    address: Address,
    bytes: u64,
}

/// A pinned buffer on the way to the device.
struct Staging {
    host: *mut u8,
    /// Recorded after the copy out of it.
    free: Event,
}

impl Cuda {
    /// How many GPUs there are; none where there is no driver.
    ///
    /// # Errors
    /// When there is a driver, and it is too old or does not start.
    pub fn device_count() -> Result<usize> {
        driver::device_count()
    }

    /// What the driver says of itself and its GPUs; opens none.
    ///
    /// # Errors
    /// When there is no driver, or it is too old or does not start.
    pub fn survey() -> Result<DriverInfo> {
        driver::survey()
    }

    /// Opens the GPU of that number.
    ///
    /// # Errors
    /// When there is no driver, no such GPU, or it is too old for the kernels.
    pub fn open(ordinal: usize) -> Result<Self> {
        let gpu = Gpu::open(ordinal)?;
        let stream = Stream::new(&gpu.context).map_err(opening(ordinal))?;
        let timer = || Event::timed(&gpu.context).map_err(opening(ordinal));
        let (started, ended) = (timer()?, timer()?);
        let launch_by_launch = env::var_os(SYNC_VARIABLE).is_some_and(|v| !v.is_empty() && v != "0");
        let mut cuda = Self {
            gpu,
            stream,
            loaded: Loaded::default(),
            memory: Vec::new(),
            programs: Vec::new(),
            staging: Vec::new(),
            next_staging: 0,
            started,
            ended,
            latest: None,
            timed: false,
            launch_by_launch,
        };
        for _ in 0..STAGING_BUFFERS {
            let free = Event::new(&cuda.gpu.context).map_err(opening(ordinal))?;
            let mut host = ptr::null_mut();
            // SAFETY: the context is current. The memory is written before it is read, and freed
            // in `drop`, once.
            unsafe { cuda.driver().cuMemHostAlloc(&mut host, STAGING_BYTES, 0) }
                .map_err(failed("allocating pinned memory"))?;
            cuda.staging.push(Staging { host: host.cast(), free });
        }
        Ok(cuda)
    }

    /// What plans for the first GPU that can run them depend on; None where there is none. Makes no context.
    pub fn target_at_hand() -> Option<Target> {
        driver::target_at_hand()
    }

    /// Its number among the machine's GPUs.
    pub fn ordinal(&self) -> usize {
        self.gpu.info.ordinal
    }

    /// Compute capability times ten: 80, 90.
    pub fn capability(&self) -> u32 {
        self.gpu.info.capability
    }

    /// What the driver says of it.
    pub fn info(&self) -> &GpuInfo {
        &self.gpu.info
    }

    /// Loads a file of kernels, as a program with one of them does.
    ///
    /// # Errors
    /// When the driver refuses it.
    pub fn load_module(&mut self, module: &'static Module) -> Result<()> {
        self.bind()?;
        self.loaded.module(&self.gpu, module).map(drop)
    }

    /// Loads a kernel, and checks that the GPU takes the largest of its blocks.
    ///
    /// # Errors
    /// When the driver refuses it, or takes only smaller blocks.
    pub fn check_kernel(&mut self, kernel: &'static Kernel) -> Result<()> {
        self.bind()?;
        self.loaded.check_block(&self.gpu, kernel)
    }

    /// Whether runs go launch by launch, waiting for each, so that an error names the launch, and programs are
    /// prepared without a graph; [`SYNC_VARIABLE`] sets it at the start.
    pub fn set_launch_by_launch(&mut self, yes: bool) {
        self.launch_by_launch = yes;
    }

    fn driver(&self) -> &'static Functions {
        self.gpu.context.driver
    }

    /// Makes the context current on this thread, as the driver's calls want it.
    fn bind(&self) -> Result<()> {
        self.gpu.context.bind().map_err(failed(format!("using cuda:{}", self.gpu.info.ordinal)))
    }

    /// Whatever the stream reports, it happened in the latest run, or before it.
    fn waiting(&self) -> impl Fn(Code) -> Error + use<> {
        let ordinal = self.gpu.info.ordinal;
        failed(match &self.latest {
            Some(program) => format!("running {} on cuda:{ordinal}", program.name),
            None => format!("waiting for cuda:{ordinal}"),
        })
    }

    /// The range of an allocation as a device address.
    fn range(&self, allocation: Allocation, offset: u64, bytes: usize) -> Result<Address> {
        let memory = self.memory_of(allocation)?;
        match offset.checked_add(bytes as u64) {
            Some(end) if end <= memory.bytes => Ok(memory.address + offset),
            _ => Err(Error::new(format!(
                "a copy of {bytes} bytes at {offset} reaches past the end of an allocation of {} bytes",
                memory.bytes
            ))),
        }
    }

    fn memory_of(&self, allocation: Allocation) -> Result<Memory> {
        let memory = self.memory.get(allocation.0 as usize).copied().flatten();
        memory.ok_or_else(|| Error::new("device memory is used that was released, or never obtained"))
    }

    /// Starts one run; the context is current.
    fn start(&self, ready: &Ready) -> Result<()> {
        let running = || failed(format!("running {} on cuda:{}", ready.program.name, self.gpu.info.ordinal));
        self.started.record(&self.stream).map_err(running())?;
        match &ready.graph {
            _ if self.launch_by_launch => ready.run_waiting(&self.stream)?,
            Some(graph) => graph.launch(&self.stream).map_err(running())?,
            None => ready.run_launches(&self.stream, |_| Ok(()))?,
        }
        self.ended.record(&self.stream).map_err(running())
    }
}

impl Device for Cuda {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Gpu
    }

    fn describe(&self) -> String {
        format!("{} (cuda:{})", self.gpu.info.name, self.gpu.info.ordinal)
    }

    fn target(&self) -> Target {
        self.gpu.info.target
    }

    fn memory(&self) -> Result<MemoryInfo> {
        self.bind()?;
        let (free, total) = self.gpu.context.memory().map_err(failed("asking for free memory"))?;
        Ok(MemoryInfo { free, total })
    }

    fn allocate(&mut self, bytes: u64) -> Result<Allocation> {
        self.bind()?;
        let mut address = 0;
        // SAFETY: the context is current; nothing reads the memory as a type, and it is freed once.
        let allocated = unsafe { self.driver().cuMemAlloc_v2(&mut address, bytes.max(1) as usize) };
        allocated.map_err(|code| {
            let mut what = format!("allocating {} on {}", format::bytes(bytes), self.describe());
            if let (Code::OUT_OF_MEMORY, Ok(at)) = (code, self.memory()) {
                what +=
                    &format!(", where {} of {} are free", format::bytes(at.free), format::bytes(at.total));
            }
            failed(what)(code)
        })?;
        self.memory.push(Some(Memory { address, bytes }));
        Ok(Allocation(self.memory.len() as u32 - 1))
    }

    fn release(&mut self, allocation: Allocation) -> Result<()> {
        let memory = self.memory_of(allocation)?;
        self.synchronize()?;
        for slot in &mut self.programs {
            if slot.as_ref().is_some_and(|ready| ready.allocations.contains(&allocation)) {
                *slot = None;
            }
        }
        self.memory[allocation.0 as usize] = None;
        // SAFETY: it came from the driver, everything started has ended, and its slot is empty
        // now, so nothing uses it or frees it again.
        unsafe { self.driver().cuMemFree_v2(memory.address) }.map_err(failed("releasing memory"))
    }

    fn upload(&mut self, to: Allocation, offset: u64, data: &[u8]) -> Result<()> {
        let uploading = || {
            failed(format!(
                "uploading {} to cuda:{}",
                format::bytes(data.len() as u64),
                self.gpu.info.ordinal
            ))
        };
        let mut address = self.range(to, offset, data.len())?;
        self.bind()?;
        for chunk in data.chunks(STAGING_BYTES) {
            let staging = &self.staging[self.next_staging];
            staging.free.synchronize().map_err(self.waiting())?;
            // SAFETY: the staging buffer is at least as long as the chunk, and the copy out of it
            // has ended. It is written again only after the event recorded here. The range of
            // device memory was checked.
            unsafe {
                ptr::copy_nonoverlapping(chunk.as_ptr(), staging.host, chunk.len());
                let (host, stream) = (staging.host.cast(), self.stream.raw);
                self.driver().cuMemcpyHtoDAsync_v2(address, host, chunk.len(), stream)
            }
            .map_err(uploading())?;
            staging.free.record(&self.stream).map_err(uploading())?;
            address += chunk.len() as u64;
            self.next_staging = (self.next_staging + 1) % self.staging.len();
        }
        Ok(())
    }

    fn download(&mut self, from: Allocation, offset: u64, data: &mut [u8]) -> Result<()> {
        let address = self.range(from, offset, data.len())?;
        if data.is_empty() {
            return self.synchronize();
        }
        self.bind()?;
        // SAFETY: the range of device memory was checked; the host memory stays borrowed until the
        // copy has ended, below.
        unsafe {
            let host = data.as_mut_ptr().cast();
            self.driver().cuMemcpyDtoHAsync_v2(host, address, data.len(), self.stream.raw)
        }
        .map_err(self.waiting())?;
        self.synchronize()
    }

    fn prepare(&mut self, program: Arc<Program>, state: Allocation, arena: Allocation) -> Result<Prepared> {
        self.bind()?;
        let (state_memory, arena_memory) = (self.memory_of(state)?, self.memory_of(arena)?);
        for (what, planned, memory) in
            [("state", program.state_bytes, state_memory), ("arena", program.arena_bytes, arena_memory)]
        {
            if planned > memory.bytes {
                let bytes = memory.bytes;
                return Err(Error::new(format!(
                    "{}: its {what} needs {planned} bytes, but has {bytes}",
                    program.name
                )));
            }
        }
        for buffer in &program.buffers {
            let space = match buffer.space {
                Space::State => program.state_bytes,
                Space::Arena => program.arena_bytes,
            };
            if buffer.offset.checked_add(buffer.bytes).is_none_or(|end| end > space) {
                return Err(Error::new(format!(
                    "{}: {} lies outside of its memory",
                    program.name, buffer.name
                )));
            }
        }
        let base = |space| match space {
            Space::State => state_memory.address,
            Space::Arena => arena_memory.address,
        };
        let mut steps = Vec::with_capacity(program.launches.len());
        for launch in &program.launches {
            let function = self.loaded.function_of(&self.gpu, launch)?;
            steps.push(Step::new(launch, &program, function, base)?);
        }
        let graph = match self.launch_by_launch {
            true => None,
            false => Some(capture(self.gpu.info.ordinal, &self.stream, &program, &steps)?),
        };
        self.programs.push(Some(Ready { program, allocations: [state, arena], steps, graph }));
        Ok(Prepared(self.programs.len() as u32 - 1))
    }

    fn run(&mut self, program: Prepared) -> Result<()> {
        self.bind()?;
        let ready = ready(&self.programs, program)?;
        (self.latest, self.timed) = (Some(ready.program.clone()), false);
        self.start(ready)?;
        self.timed = true;
        Ok(())
    }

    fn synchronize(&mut self) -> Result<()> {
        self.bind()?;
        self.stream.synchronize().map_err(self.waiting())
    }

    fn elapsed_ms(&mut self) -> Result<Option<f64>> {
        if !self.timed {
            // Of a run that failed there is no time, but perhaps a reason.
            return if self.latest.is_some() { self.synchronize().map(|()| None) } else { Ok(None) };
        }
        self.bind()?;
        self.started.milliseconds_to(&self.ended).map(Some).map_err(self.waiting())
    }

    fn run_stream(&mut self, program: Prepared) -> Result<()> {
        self.bind()?;
        let ready = ready(&self.programs, program)?;
        let running = || failed(format!("running {} on cuda:{}", ready.program.name, self.gpu.info.ordinal));
        (self.latest, self.timed) = (Some(ready.program.clone()), false);
        self.started.record(&self.stream).map_err(running())?;
        ready.run_launches(&self.stream, |_| Ok(()))?;
        self.ended.record(&self.stream).map_err(running())?;
        self.timed = true;
        Ok(())
    }

    fn check_launches(&mut self, program: &Program) -> Result<()> {
        self.bind()?;
        for launch in &program.launches {
            self.loaded.function_of(&self.gpu, launch)?;
        }
        Ok(())
    }

    fn time_launches(&mut self, program: Prepared, repeats: usize) -> Result<Option<Vec<f64>>> {
        self.bind()?;
        let ready = ready(&self.programs, program)?;
        (self.latest, self.timed) = (Some(ready.program.clone()), false);
        let ordinal = self.gpu.info.ordinal;
        let times = ready.time_launches(ordinal, &self.stream, repeats, || self.start(ready))?;
        self.timed = true;
        Ok(Some(times))
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        let driver = self.driver();
        // Nobody is left to tell of a failure; after one, the driver refuses all of this.
        _ = self.gpu.context.bind();
        _ = self.stream.synchronize();
        self.programs.clear();
        // SAFETY: the stream is idle and the graphs are gone, so nothing uses the modules and the
        // memory; each is in its list once, and the lists are emptied.
        unsafe {
            self.loaded.unload(driver);
            for memory in self.memory.drain(..).flatten() {
                _ = driver.cuMemFree_v2(memory.address);
            }
            for staging in self.staging.drain(..) {
                _ = driver.cuMemFreeHost(staging.host.cast());
            }
        }
    }
}

/// The prepared program of that handle.
fn ready(programs: &[Option<Ready>], program: Prepared) -> Result<&Ready> {
    let ready = programs.get(program.0 as usize).and_then(Option::as_ref);
    ready.ok_or_else(|| Error::new("a program is run whose memory was released, or that was never prepared"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_a_driver_says_so() {
        if ffi::functions().is_ok() {
            return;
        }
        assert_eq!(Cuda::device_count(), Ok(0));
        assert_eq!(Cuda::open(0).err().unwrap().message(), "no NVIDIA driver found");
    }
}
