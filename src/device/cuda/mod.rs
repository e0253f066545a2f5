//! An NVIDIA GPU, through the CUDA driver API. The driver's library is opened at run time, so the
//! same binary starts on machines without one.
//!
//! Everything happens on one stream: uploads, runs and downloads are in order without further
//! care. A program is captured as a CUDA graph when it is prepared, and a run is one graph launch.
#![allow(unsafe_code)]

mod driver;
mod graph;
mod load;

use std::env;
use std::ptr;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUresult};
use cudarc::driver::{CudaEvent, CudaStream, DriverError, result};

pub use driver::SYNC_VARIABLE;
use driver::{Gpu, failed, opening};
use graph::{Ready, Step, capture};
use load::Loaded;

use super::{Allocation, Device, DeviceKind, MemoryInfo, Prepared, Program, Space, Target};
use crate::format;
use crate::{Error, Result};

/// Uploads go through this many pinned buffers in turn …
const STAGING_BUFFERS: usize = 8;

/// … of this many bytes, so that the host need not wait for the run that an upload is ordered after.
const STAGING_BYTES: usize = 2 << 20;

/// One GPU.
pub struct Cuda {
    gpu: Gpu,
    stream: Arc<CudaStream>,
    loaded: Loaded,
    /// By [`Allocation`]; None once released.
    memory: Vec<Option<Memory>>,
    /// By [`Prepared`]; None once one of its allocations was released.
    programs: Vec<Option<Ready>>,
    staging: Vec<Staging>,
    next_staging: usize,
    started: CudaEvent,
    ended: CudaEvent,
    /// The latest program run.
    latest: Option<Arc<Program>>,
    launch_by_launch: bool,
}

// SAFETY: the driver's handles may be used from any thread, one at a time; every method that passes
// one to the driver makes the context current first, and there is no `Sync`.
unsafe impl Send for Cuda {}

#[derive(Clone, Copy)]
struct Memory {
    address: sys::CUdeviceptr,
    bytes: u64,
}

/// A pinned buffer on the way to the device.
struct Staging {
    host: *mut u8,
    /// Recorded after the copy out of it.
    free: CudaEvent,
}

impl Cuda {
    /// How many GPUs there are; none where there is no driver.
    ///
    /// # Errors
    /// When there is a driver, and it is too old or does not start.
    pub fn device_count() -> Result<usize> {
        driver::device_count()
    }

    /// Opens the GPU of that number.
    ///
    /// # Errors
    /// When there is no driver, no such GPU, or it is too old for the kernels.
    pub fn open(ordinal: usize) -> Result<Self> {
        let gpu = Gpu::open(ordinal)?;
        let stream = gpu.context.new_stream().map_err(opening(ordinal))?;
        let timer =
            || gpu.context.new_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT)).map_err(opening(ordinal));
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
            launch_by_launch,
        };
        for _ in 0..STAGING_BUFFERS {
            let free = cuda.gpu.context.new_event(None).map_err(opening(ordinal))?;
            // SAFETY: the context is current. The memory is written before it is read, and freed
            // in `drop`, once.
            let host = unsafe { result::malloc_host(STAGING_BYTES, 0) };
            let host = host.map_err(failed("allocating pinned memory"))?.cast();
            cuda.staging.push(Staging { host, free });
        }
        Ok(cuda)
    }

    /// What plans for the first GPU depend on; None where there is none. Makes no context.
    pub fn target_at_hand() -> Option<Target> {
        driver::target_at_hand()
    }

    /// Its number among the machine's GPUs.
    pub fn ordinal(&self) -> usize {
        self.gpu.ordinal
    }

    /// Compute capability times ten: 80, 90.
    pub fn capability(&self) -> u32 {
        self.gpu.capability
    }

    /// Whether runs go launch by launch, waiting for each, so that an error names the launch;
    /// [`SYNC_VARIABLE`] sets it at the start.
    pub fn set_launch_by_launch(&mut self, yes: bool) {
        self.launch_by_launch = yes;
    }

    /// Makes the context current on this thread, as the driver's calls want it.
    fn bind(&self) -> Result<()> {
        self.gpu.context.bind_to_thread().map_err(failed(format!("using cuda:{}", self.gpu.ordinal)))
    }

    /// Whatever the stream reports, it happened in the latest run, or before it.
    fn waiting(&self) -> impl Fn(DriverError) -> Error + use<> {
        let ordinal = self.gpu.ordinal;
        failed(match &self.latest {
            Some(program) => format!("running {} on cuda:{ordinal}", program.name),
            None => format!("waiting for cuda:{ordinal}"),
        })
    }

    /// The range of an allocation as a device address.
    fn range(&self, allocation: Allocation, offset: u64, bytes: usize) -> Result<sys::CUdeviceptr> {
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

    /// Starts one run.
    fn start(&self, ready: &Ready) -> Result<()> {
        let running = || failed(format!("running {} on cuda:{}", ready.program.name, self.gpu.ordinal));
        self.started.record(&self.stream).map_err(running())?;
        if self.launch_by_launch {
            ready.run_waiting(&self.stream)?;
        } else {
            ready.graph.launch().map_err(running())?;
        }
        self.ended.record(&self.stream).map_err(running())
    }
}

impl Device for Cuda {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Gpu
    }

    fn describe(&self) -> String {
        format!("{} (cuda:{})", self.gpu.name, self.gpu.ordinal)
    }

    fn target(&self) -> Target {
        self.gpu.target
    }

    fn memory(&self) -> Result<MemoryInfo> {
        let (free, total) = self.gpu.context.mem_get_info().map_err(failed("asking for free memory"))?;
        Ok(MemoryInfo { free: free as u64, total: total as u64 })
    }

    fn allocate(&mut self, bytes: u64) -> Result<Allocation> {
        self.bind()?;
        // SAFETY: the context is current; nothing reads the memory as a type, and it is freed once.
        let address = match unsafe { result::malloc_sync(bytes.max(1) as usize) } {
            Ok(address) => address,
            Err(DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => {
                let at = self.memory()?;
                return Err(Error::new(format!(
                    "out of memory on cuda:{} ({}): {} asked for, {} of {} free",
                    self.gpu.ordinal,
                    self.gpu.name,
                    format::bytes(bytes),
                    format::bytes(at.free),
                    format::bytes(at.total)
                ))
                .hint("a smaller image size, batch or number of channels needs less"));
            }
            Err(error) => return Err(failed(format!("allocating {}", format::bytes(bytes)))(error)),
        };
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
        // SAFETY: it came from `malloc_sync`, everything started has ended, and its slot is empty
        // now, so nothing uses it or frees it again.
        unsafe { result::free_sync(memory.address) }.map_err(failed("releasing memory"))
    }

    fn upload(&mut self, to: Allocation, offset: u64, data: &[u8]) -> Result<()> {
        let uploading =
            || failed(format!("uploading {} to cuda:{}", format::bytes(data.len() as u64), self.gpu.ordinal));
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
                let stream = self.stream.cu_stream();
                sys::cuMemcpyHtoDAsync_v2(address, staging.host.cast(), chunk.len(), stream).result()
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
        unsafe { result::memcpy_dtoh_async(data, address, self.stream.cu_stream()) }
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
        let graph = capture(&self.stream, &program, &steps)?;
        self.programs.push(Some(Ready { program, allocations: [state, arena], steps, graph }));
        Ok(Prepared(self.programs.len() as u32 - 1))
    }

    fn run(&mut self, program: Prepared) -> Result<()> {
        let ready = ready(&self.programs, program)?;
        self.latest = Some(ready.program.clone());
        self.start(ready)
    }

    fn synchronize(&mut self) -> Result<()> {
        self.stream.synchronize().map_err(self.waiting())
    }

    fn elapsed_ms(&mut self) -> Result<Option<f64>> {
        if self.latest.is_none() {
            return Ok(None);
        }
        let milliseconds = self.started.elapsed_ms(&self.ended).map_err(self.waiting())?;
        Ok(Some(f64::from(milliseconds)))
    }

    fn run_stream(&mut self, program: Prepared) -> Result<()> {
        let ready = ready(&self.programs, program)?;
        let running = || failed(format!("running {} on cuda:{}", ready.program.name, self.gpu.ordinal));
        self.latest = Some(ready.program.clone());
        self.started.record(&self.stream).map_err(running())?;
        ready.run_launches(&self.stream, |_| Ok(()))?;
        self.ended.record(&self.stream).map_err(running())
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
        self.latest = Some(ready.program.clone());
        ready.time_launches(&self.gpu.context, &self.stream, repeats, || self.start(ready)).map(Some)
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        // Nobody is left to tell of a failure; after one, the driver refuses all of this.
        _ = self.gpu.context.bind_to_thread();
        _ = self.stream.synchronize();
        self.programs.clear();
        // SAFETY: the stream is idle and the graphs are gone, so nothing uses the modules and the
        // memory; each is in its list once, and the lists are emptied.
        unsafe {
            self.loaded.unload();
            for memory in self.memory.drain(..).flatten() {
                _ = result::free_sync(memory.address);
            }
            for staging in self.staging.drain(..) {
                _ = result::free_host(staging.host.cast());
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
        // SAFETY: opening the library has no conditions.
        if unsafe { sys::is_culib_present() } {
            return;
        }
        assert_eq!(Cuda::device_count(), Ok(0));
        assert_eq!(Cuda::open(0).err().unwrap().message(), "no NVIDIA driver found");
    }
}
