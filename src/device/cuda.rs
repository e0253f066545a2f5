//! An NVIDIA GPU, through the CUDA driver API. The driver's library is opened at run time, so the
//! same binary starts on machines without one.
//!
//! Everything happens on one stream: uploads, runs and downloads are in order without further
//! care. A program is captured as a CUDA graph when it is prepared, and a run is one graph launch.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::env;
use std::ffi::{CStr, CString, c_void};
use std::fmt;
use std::ptr;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUresult};
use cudarc::driver::{CudaContext, CudaEvent, CudaGraph, CudaStream, DriverError, result};

use super::{Allocation, Arg, Device, DeviceKind, Launch, MemoryInfo, Prepared, Program, Space};
use crate::format;
use crate::kernels::{Cubin, Kernel, Module};
use crate::stats::median;
use crate::{Error, Result};

/// Set to `1`, it makes every run go launch by launch, waiting for each, so that an error names
/// the launch that failed.
pub const SYNC_VARIABLE: &str = "UGATIT_CUDA_SYNC";

/// The least compute capability the kernels are compiled for, times ten.
const LEAST_CAPABILITY: u32 = 80;

/// The oldest driver whose functions suffice: CUDA 12.0, as `cuDriverGetVersion` counts.
const LEAST_DRIVER: i32 = 12_000;

/// Shared memory a block may have without the kernel asking for more.
const DEFAULT_SHARED: u32 = 48 * 1024;

/// Uploads go through this many pinned buffers in turn …
const STAGING_BUFFERS: usize = 8;

/// … of this many bytes, so that the host need not wait for the run that an upload is ordered after.
const STAGING_BYTES: usize = 2 << 20;

/// One GPU.
pub struct Cuda {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    ordinal: usize,
    name: String,
    /// Compute capability times ten.
    capability: u32,
    /// Most bytes of shared memory a block can ask for.
    shared_limit: u32,
    /// By file.
    modules: HashMap<&'static str, sys::CUmodule>,
    /// By name.
    functions: HashMap<&'static str, Function>,
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

/// A kernel as loaded.
#[derive(Clone, Copy)]
struct Function {
    handle: sys::CUfunction,
    /// Bytes of static shared memory.
    static_shared: u32,
    /// Most bytes of dynamic shared memory a launch may ask for now.
    dynamic_shared: u32,
}

#[derive(Clone, Copy)]
struct Memory {
    address: sys::CUdeviceptr,
    bytes: u64,
}

/// A prepared program.
struct Ready {
    program: Arc<Program>,
    allocations: [Allocation; 2],
    /// In the order of the program's launches.
    steps: Vec<Step>,
    graph: CudaGraph,
}

/// A launch as the driver takes it.
struct Step {
    function: sys::CUfunction,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    cooperative: bool,
    /// The arguments, each at the start of its eight bytes.
    args: Vec<u64>,
}

/// A pinned buffer on the way to the device.
struct Staging {
    host: *mut u8,
    /// Recorded behind the copy out of it.
    free: CudaEvent,
}

/// What there is to run on.
enum Found {
    NoDriver,
    NoDevice,
    Devices(usize),
}

impl Cuda {
    /// How many GPUs there are; none where there is no driver.
    ///
    /// # Errors
    /// When there is a driver, and it is too old or does not start.
    pub fn device_count() -> Result<usize> {
        Ok(match look()? {
            Found::NoDriver | Found::NoDevice => 0,
            Found::Devices(count) => count,
        })
    }

    /// Opens the GPU of that number.
    ///
    /// # Errors
    /// When there is no driver, no such GPU, or it is too old for the kernels.
    pub fn open(ordinal: usize) -> Result<Self> {
        match look()? {
            Found::NoDriver => return Err(Error::new("no NVIDIA driver found")),
            Found::NoDevice => return Err(Error::new("the NVIDIA driver found no GPU")),
            Found::Devices(count) if ordinal >= count => {
                let there = match count {
                    1 => "there is one GPU, cuda:0".to_owned(),
                    _ => format!("there are {count} GPUs, cuda:0 to cuda:{}", count - 1),
                };
                return Err(Error::new(format!("no cuda:{ordinal}: {there}")));
            }
            Found::Devices(_) => {}
        }

        let opening = || failed(format!("opening cuda:{ordinal}"));
        let device = result::device::get(ordinal as i32).map_err(opening())?;
        let name = result::device::get_name(device).map_err(opening())?;
        // SAFETY: the device is one the driver gave.
        let attribute = |which| unsafe { result::device::get_attribute(device, which) }.map_err(opening());
        use sys::CUdevice_attribute as Attribute;
        let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let capability = (major * 10 + minor) as u32;
        if capability < LEAST_CAPABILITY {
            return Err(Error::new(format!(
                "cuda:{ordinal} ({name}) has compute capability {major}.{minor}, but the kernels need at least {}.{}",
                LEAST_CAPABILITY / 10,
                LEAST_CAPABILITY % 10
            )));
        }
        let shared_limit =
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)? as u32;

        let context = CudaContext::new(ordinal).map_err(opening())?;
        // SAFETY: it concerns cudarc's own slices, of which there are none here; and all work is on
        // one stream. The events would break the capture.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().map_err(opening())?;
        let timer = || context.new_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT)).map_err(opening());
        let (started, ended) = (timer()?, timer()?);
        let launch_by_launch = env::var_os(SYNC_VARIABLE).is_some_and(|v| !v.is_empty() && v != "0");
        let mut cuda = Self {
            context,
            stream,
            ordinal,
            name,
            capability,
            shared_limit,
            modules: HashMap::new(),
            functions: HashMap::new(),
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
            let free = cuda.context.new_event(None).map_err(opening())?;
            // SAFETY: the context is current. The memory is written before it is read, and freed
            // in `drop`, once.
            let host = unsafe { result::malloc_host(STAGING_BYTES, 0) };
            let host = host.map_err(failed("allocating pinned memory"))?.cast();
            cuda.staging.push(Staging { host, free });
        }
        Ok(cuda)
    }

    /// Its number among the machine's GPUs.
    pub fn ordinal(&self) -> usize {
        self.ordinal
    }

    /// Compute capability times ten: 80, 90.
    pub fn capability(&self) -> u32 {
        self.capability
    }

    /// Whether runs go launch by launch, waiting for each, so that an error names the launch;
    /// [`SYNC_VARIABLE`] sets it at the start.
    pub fn set_launch_by_launch(&mut self, yes: bool) {
        self.launch_by_launch = yes;
    }

    /// Makes the context current on this thread, as the driver's calls want it.
    fn bind(&self) -> Result<()> {
        self.context.bind_to_thread().map_err(failed(format!("using cuda:{}", self.ordinal)))
    }

    /// Whatever the stream reports, it happened in the latest run, or before it.
    fn waiting(&self) -> impl Fn(DriverError) -> Error + use<> {
        let ordinal = self.ordinal;
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

    /// The module, loaded.
    fn module(&mut self, module: &'static Module) -> Result<sys::CUmodule> {
        if let Some(&loaded) = self.modules.get(module.file) {
            return Ok(loaded);
        }
        let fits = |cubin: &&Cubin| runs_on(cubin.arch, self.capability);
        let cubin = module.cubins.iter().filter(fits).max_by_key(|cubin| cubin.arch);
        let loaded = match cubin {
            Some(cubin) => load_cubin(module.file, cubin),
            None => load_ptx(module.file, module.ptx),
        }?;
        self.modules.insert(module.file, loaded);
        Ok(loaded)
    }

    /// The kernel, loaded and allowed so much dynamic shared memory.
    fn function(&mut self, kernel: &'static Kernel, dynamic_shared: u32) -> Result<sys::CUfunction> {
        use sys::CUfunction_attribute_enum as Attribute;
        let ordinal = self.ordinal;
        let loading = || failed(format!("loading {} on cuda:{ordinal}", kernel.name));
        let mut function = match self.functions.get(kernel.name) {
            Some(&function) => function,
            None => {
                let module = self.module(kernel.module)?;
                let name = CString::new(kernel.name).expect("a C identifier");
                // SAFETY: the module is loaded, and unloaded only in `drop`.
                let handle = unsafe { result::module::get_function(module, name) }.map_err(loading())?;
                let which = Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES;
                // SAFETY: the function is of a loaded module.
                let shared = unsafe { result::function::get_function_attribute(handle, which) };
                let static_shared = shared.map_err(loading())? as u32;
                Function {
                    handle,
                    static_shared,
                    dynamic_shared: DEFAULT_SHARED.saturating_sub(static_shared),
                }
            }
        };
        let shared = u64::from(function.static_shared) + u64::from(dynamic_shared);
        if shared > u64::from(self.shared_limit) {
            return Err(Error::new(format!(
                "{} needs {shared} bytes of shared memory a block, but cuda:{} ({}) has at most {}",
                kernel.name, self.ordinal, self.name, self.shared_limit
            )));
        }
        if dynamic_shared > function.dynamic_shared {
            let which = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function is of a loaded module.
            unsafe {
                result::function::set_function_attribute(function.handle, which, dynamic_shared as i32)
            }
            .map_err(loading())?;
            function.dynamic_shared = dynamic_shared;
        }
        self.functions.insert(kernel.name, function);
        Ok(function.handle)
    }

    /// The launch's kernel, loaded, with room on this GPU for what it asks for.
    fn function_of(&mut self, launch: &Launch) -> Result<sys::CUfunction> {
        let function = self.function(launch.kernel, launch.shared_bytes)?;
        if launch.cooperative {
            self.check_residency(launch, function)?;
        }
        Ok(function)
    }

    /// Refuses blocks that wait for each other where they would not all be resident: they would wait forever.
    fn check_residency(&self, launch: &Launch, function: sys::CUfunction) -> Result<()> {
        use sys::CUdevice_attribute_enum as Attribute;
        let asking = || failed(format!("asking what cuda:{} holds of {}", self.ordinal, launch.kernel.name));
        let attribute = |which| self.context.attribute(which).map_err(asking());
        let multiprocessors = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        let able = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH)? != 0;
        let mut each = 0;
        // SAFETY: the function is of a loaded module; the call writes one int.
        unsafe {
            sys::cuOccupancyMaxActiveBlocksPerMultiprocessor(
                &mut each,
                function,
                launch.threads() as i32,
                launch.shared_bytes as usize,
            )
        }
        .result()
        .map_err(asking())?;
        let blocks = launch.blocks();
        let resident = if able { each.max(0) as u64 * multiprocessors.max(0) as u64 } else { 0 };
        if blocks <= resident {
            return Ok(());
        }
        Err(Error::new(format!(
            "{}: {blocks} blocks wait for each other, but cuda:{} ({}) holds {resident} at once",
            title(launch),
            self.ordinal,
            self.name
        ))
        .hint("take another variant of the norm, such as vectorised or network"))
    }

    /// The launch as the driver takes it.
    fn step(&mut self, launch: &Launch, program: &Program, state: Memory, arena: Memory) -> Result<Step> {
        launch.check(&program.buffers)?;
        let function = self.function_of(launch)?;
        let four = |[a, b, c, d]: [u8; 4]| u64::from_ne_bytes([a, b, c, d, 0, 0, 0, 0]);
        let value = |arg: &Arg| match *arg {
            Arg::Null => 0,
            Arg::I32(x) => four(x.to_ne_bytes()),
            Arg::U32(x) => four(x.to_ne_bytes()),
            Arg::F32(x) => four(x.to_ne_bytes()),
            Arg::Buffer(range) => {
                let buffer = &program.buffers[range.buffer as usize];
                let base = match buffer.space {
                    Space::State => state.address,
                    Space::Arena => arena.address,
                };
                base + buffer.offset + range.offset
            }
        };
        Ok(Step {
            function,
            grid: launch.grid,
            block: launch.block,
            shared_bytes: launch.shared_bytes,
            cooperative: launch.cooperative,
            args: launch.args.iter().map(value).collect(),
        })
    }

    /// The steps as a graph.
    fn capture(&self, program: &Program, steps: &[Step]) -> Result<CudaGraph> {
        let capturing = || failed(format!("capturing {} on cuda:{}", program.name, self.ordinal));
        self.stream
            .begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
            .map_err(capturing())?;
        let mut put = Ok(());
        for (step, launch) in steps.iter().zip(&program.launches) {
            put = step.start(&self.stream).map_err(|e| describe(format!("capturing {}", title(launch)), e));
            if put.is_err() {
                break;
            }
        }
        // The capture ends even where a launch failed, or the stream would stay in it.
        let graph = self.stream.end_capture(sys::CUgraphInstantiate_flags(0));
        put?;
        let graph = graph.map_err(capturing())?;
        let graph = graph
            .ok_or_else(|| Error::new(format!("capturing {}: the driver gave no graph", program.name)))?;
        graph.upload().map_err(capturing())?;
        Ok(graph)
    }
}

impl Device for Cuda {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Gpu
    }

    fn describe(&self) -> String {
        format!("{} (cuda:{})", self.name, self.ordinal)
    }

    fn memory(&self) -> Result<MemoryInfo> {
        let (free, total) = self.context.mem_get_info().map_err(failed("asking for free memory"))?;
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
                    self.ordinal,
                    self.name,
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
            || failed(format!("uploading {} to cuda:{}", format::bytes(data.len() as u64), self.ordinal));
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
        let step = |launch| self.step(launch, &program, state_memory, arena_memory);
        let steps = program.launches.iter().map(step).collect::<Result<Vec<_>>>()?;
        let graph = self.capture(&program, &steps)?;
        self.programs.push(Some(Ready { program, allocations: [state, arena], steps, graph }));
        Ok(Prepared(self.programs.len() as u32 - 1))
    }

    fn run(&mut self, program: Prepared) -> Result<()> {
        let ready = ready(&self.programs, program)?;
        let running = || failed(format!("running {} on cuda:{}", ready.program.name, self.ordinal));
        self.latest = Some(ready.program.clone());
        self.started.record(&self.stream).map_err(running())?;
        if self.launch_by_launch {
            let launches = &ready.program.launches;
            for (number, (step, launch)) in ready.steps.iter().zip(launches).enumerate() {
                let done = step.start(&self.stream).and_then(|()| self.stream.synchronize());
                done.map_err(|error| {
                    let (number, count) = (number + 1, launches.len());
                    let what =
                        format!("launch {number} of {count} of {}, {}", ready.program.name, title(launch));
                    describe(what, error).hint("--device emulator names the line of the kernel")
                })?;
            }
        } else {
            ready.graph.launch().map_err(running())?;
        }
        self.ended.record(&self.stream).map_err(running())
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
        let running = || failed(format!("running {} on cuda:{}", ready.program.name, self.ordinal));
        self.latest = Some(ready.program.clone());
        self.started.record(&self.stream).map_err(running())?;
        for (step, launch) in ready.steps.iter().zip(&ready.program.launches) {
            step.start(&self.stream).map_err(|e| describe(format!("launching {}", title(launch)), e))?;
        }
        self.ended.record(&self.stream).map_err(running())
    }

    fn check_launches(&mut self, program: &Program) -> Result<()> {
        self.bind()?;
        for launch in &program.launches {
            self.function_of(launch)?;
        }
        Ok(())
    }

    // An event stands between any two launches, which costs up to about a microsecond each, so the
    // sum is more than a run takes. Before each measured run goes one that is not, which keeps the
    // GPU busy while the launches queue up; what the program changes, it changes twice as often.
    fn time_launches(&mut self, program: Prepared, repeats: usize) -> Result<Option<Vec<f64>>> {
        let count = ready(&self.programs, program)?.steps.len();
        let ordinal = self.ordinal;
        let timing = || failed(format!("timing launches on cuda:{ordinal}"));
        let event = |_| self.context.new_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT));
        let events = (0..=count).map(event).collect::<Result<Vec<_>, _>>().map_err(timing())?;
        let mut samples = vec![Vec::with_capacity(repeats); count];
        for _ in 0..repeats.max(1) {
            self.run(program)?;
            let ready = ready(&self.programs, program)?;
            events[0].record(&self.stream).map_err(timing())?;
            for ((step, launch), event) in ready.steps.iter().zip(&ready.program.launches).zip(&events[1..]) {
                step.start(&self.stream).map_err(|e| describe(format!("launching {}", title(launch)), e))?;
                event.record(&self.stream).map_err(timing())?;
            }
            self.synchronize()?;
            for (samples, pair) in samples.iter_mut().zip(events.windows(2)) {
                let milliseconds = pair[0].elapsed_ms(&pair[1]).map_err(timing())?;
                samples.push(f64::from(milliseconds));
            }
        }
        Ok(Some(samples.into_iter().map(median).collect()))
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        // Nobody is left to tell of a failure; after one, the driver refuses all of this.
        _ = self.context.bind_to_thread();
        _ = self.stream.synchronize();
        self.programs.clear();
        // SAFETY: the stream is idle and the graphs are gone, so nothing uses the modules and the
        // memory; each is in its list once, and the lists are emptied.
        unsafe {
            for (_, module) in self.modules.drain() {
                _ = result::module::unload(module);
            }
            for memory in self.memory.drain(..).flatten() {
                _ = result::free_sync(memory.address);
            }
            for staging in self.staging.drain(..) {
                _ = result::free_host(staging.host.cast());
            }
        }
    }
}

impl Step {
    /// Puts it on the stream.
    fn start(&self, stream: &CudaStream) -> Result<(), DriverError> {
        stream.context().bind_to_thread()?;
        let pointer = |arg: &u64| ptr::from_ref(arg).cast_mut().cast::<c_void>();
        let mut args: Vec<*mut c_void> = self.args.iter().map(pointer).collect();
        let ([gx, gy, gz], [bx, by, bz]) = (self.grid, self.block);
        // SAFETY: the function's module stays loaded. `Launch::check` compared the arguments with
        // the kernel's parameters in number and kind, so the driver reads four or eight bytes of
        // each, during this call. What the kernel does with the addresses is the kernel's.
        unsafe {
            let stream = stream.cu_stream();
            if self.cooperative {
                return sys::cuLaunchCooperativeKernel(
                    self.function,
                    gx,
                    gy,
                    gz,
                    bx,
                    by,
                    bz,
                    self.shared_bytes,
                    stream,
                    args.as_mut_ptr(),
                )
                .result();
            }
            result::launch_kernel(
                self.function,
                (gx, gy, gz),
                (bx, by, bz),
                self.shared_bytes,
                stream,
                &mut args,
            )
        }
    }
}

/// The prepared program of that handle.
fn ready(programs: &[Option<Ready>], program: Prepared) -> Result<&Ready> {
    let ready = programs.get(program.0 as usize).and_then(Option::as_ref);
    ready.ok_or_else(|| Error::new("a program is run whose memory was released, or that was never prepared"))
}

/// A launch, for messages: `adalin_forward_f32 (adalin gen.UpBlock1.2)`.
fn title(launch: &Launch) -> String {
    format!("{} ({})", launch.kernel.name, launch.label)
}

/// Looks for the driver and its devices.
fn look() -> Result<Found> {
    // SAFETY: opening the driver's library has no conditions. Asked first, since every other call
    // panics where the library is missing.
    if !unsafe { sys::is_culib_present() } {
        return Ok(Found::NoDriver);
    }
    let starting = || failed("starting the NVIDIA driver");
    let mut version = 0;
    // SAFETY: it writes one int, and is allowed before `cuInit`.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(starting())?;
    if version < LEAST_DRIVER {
        let text = |v: i32| format!("{}.{}", v / 1000, v % 1000 / 10);
        return Err(Error::new(format!(
            "the NVIDIA driver supports CUDA {}, but at least {} is needed",
            text(version),
            text(LEAST_DRIVER)
        ))
        .hint("update the driver"));
    }
    match result::init() {
        Ok(()) => {}
        Err(DriverError(CUresult::CUDA_ERROR_NO_DEVICE)) => return Ok(Found::NoDevice),
        // A toolkit's stand-in for linking, not a driver.
        Err(DriverError(CUresult::CUDA_ERROR_STUB_LIBRARY)) => return Ok(Found::NoDriver),
        Err(error) => return Err(starting()(error)),
    }
    match result::device::get_count().map_err(starting())? {
        ..=0 => Ok(Found::NoDevice),
        count => Ok(Found::Devices(count as usize)),
    }
}

/// Whether machine code for one compute capability runs on a device of another: on the same major
/// number and at least the minor. That for 9.0 is compiled as 9.0a and runs there only.
fn runs_on(arch: u32, capability: u32) -> bool {
    if arch == 90 { capability == 90 } else { arch / 10 == capability / 10 && arch <= capability }
}

/// Loads machine code; the context must be current.
fn load_cubin(file: &str, cubin: &Cubin) -> Result<sys::CUmodule> {
    // The driver reads an ELF image in place; an embedded one lies at any address.
    let mut image = vec![0u64; cubin.image.len().div_ceil(8)];
    bytemuck::cast_slice_mut::<u64, u8>(&mut image)[..cubin.image.len()].copy_from_slice(cubin.image);
    // SAFETY: the image is NVRTC's, whole, and is copied by the driver during the call.
    unsafe { result::module::load_data(image.as_ptr().cast()) }
        .map_err(failed(format!("loading kernels/{file} for sm_{}", cubin.arch)))
}

/// Has the driver compile PTX and loads that; the context must be current.
fn load_ptx(file: &str, ptx: &str) -> Result<sys::CUmodule> {
    let ptx = CString::new(ptx).map_err(|_| Error::new(format!("kernels/{file}: its PTX has a NUL")))?;
    let mut log = vec![0u8; 16 << 10];
    let mut options =
        [sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER, sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
    let mut values = [log.as_mut_ptr().cast::<c_void>(), ptr::without_provenance_mut(log.len())];
    let mut module = ptr::null_mut();
    // SAFETY: the PTX is NUL-terminated; the options say where the log is and how long; all of it
    // outlives the call.
    let loaded = unsafe {
        let count = options.len() as u32;
        sys::cuModuleLoadDataEx(
            &mut module,
            ptx.as_ptr().cast(),
            count,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    };
    loaded.result().map_err(|error| {
        let log = CStr::from_bytes_until_nul(&log).map(CStr::to_string_lossy).unwrap_or_default();
        describe(format!("compiling kernels/{file} from PTX: {}", log.trim()), error)
    })?;
    Ok(module)
}

/// Makes an error out of the driver's: what was being done, the name and the driver's words.
fn failed(doing: impl fmt::Display) -> impl Fn(DriverError) -> Error {
    let doing = doing.to_string();
    move |error| describe(&doing, error)
}

fn describe(doing: impl fmt::Display, error: DriverError) -> Error {
    use CUresult as E;
    let name = match error.error_name() {
        Ok(name) => name.to_string_lossy().into_owned(),
        Err(_) => format!("{:?}", error.0),
    };
    let text = match error.error_string() {
        Ok(text) => format!(" ({})", text.to_string_lossy()),
        Err(_) => String::new(),
    };
    let told = Error::new(format!("{doing}: {name}{text}"));
    match error.0 {
        E::CUDA_ERROR_ILLEGAL_ADDRESS
        | E::CUDA_ERROR_MISALIGNED_ADDRESS
        | E::CUDA_ERROR_ILLEGAL_INSTRUCTION
        | E::CUDA_ERROR_INVALID_ADDRESS_SPACE
        | E::CUDA_ERROR_INVALID_PC
        | E::CUDA_ERROR_HARDWARE_STACK_ERROR
        | E::CUDA_ERROR_ASSERT
        | E::CUDA_ERROR_LAUNCH_FAILED
        | E::CUDA_ERROR_LAUNCH_TIMEOUT => {
            told.hint(format!("{SYNC_VARIABLE}=1 names the launch, --device emulator the line of the kernel"))
        }
        E::CUDA_ERROR_UNSUPPORTED_PTX_VERSION | E::CUDA_ERROR_NO_BINARY_FOR_GPU | E::CUDA_ERROR_INVALID_IMAGE => {
            told.hint("the driver is older than the NVRTC the kernels were compiled with: update the driver, or build with an older NVRTC")
        }
        E::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH => {
            told.hint("the driver's library and its kernel module differ: restart the machine")
        }
        _ => told,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_code_runs_on_the_same_major_number_only() {
        assert!(runs_on(80, 80) && runs_on(80, 86) && runs_on(80, 89));
        assert!(!runs_on(80, 90) && !runs_on(80, 75) && !runs_on(86, 80));
        assert!(runs_on(90, 90) && !runs_on(90, 100) && !runs_on(90, 89));
    }

    #[test]
    fn a_machine_without_a_driver_is_told_so() {
        // SAFETY: as in `look`.
        if unsafe { sys::is_culib_present() } {
            return;
        }
        assert_eq!(Cuda::device_count(), Ok(0));
        assert_eq!(Cuda::open(0).err().unwrap().message(), "no NVIDIA driver found");
    }
}
