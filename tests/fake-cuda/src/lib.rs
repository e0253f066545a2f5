//! A stand-in for the library of the NVIDIA driver: the `cu…` functions that `ugatit` and NVRTC call, over the
//! emulator. With it, `src/device/cuda/` runs on machines without a GPU.
//!
//! It does everything as late as a real driver may, refuses what one refuses, and complains of what one takes without
//! a word although it is wrong (a complaint ends the process): pinned memory that changes before it was copied,
//! memory, modules or graphs that go while work on them is pending, pointers to nowhere, reads of what nothing wrote,
//! and whatever is left when a context goes. Faults of kernels come back as the driver's codes, the emulator's words
//! go to standard error.
//!
//! | variable | what it says |
//! |---|---|
//! | `FAKE_CUDA_CAPABILITY` | compute capabilities of the devices, `9.0`; a list makes several, `none` none |
//! | `FAKE_CUDA_DRIVER` | the CUDA version supported, `12090` |
//! | `FAKE_CUDA_SMS` | multiprocessors of each device, `132` |
//! | `FAKE_CUDA_MEMORY_MIB` | memory of each device, `8192` |
//! | `FAKE_CUDA_COOPERATIVE` | `0`: no cooperative launches |
//! | `FAKE_CUDA_SCHEDULE` | `late`, or `eager`: every call does at once what it asks for |
//! | `FAKE_CUDA_COMPLAINTS` | `abort`, or `warn` |
//! | `FAKE_CUDA_FAIL` | a list such as `cuMemAlloc_v2:2:700`: the second call returns 700, and does nothing; 0 stands for every call, `*` for every function |
//! | `FAKE_CUDA_TRACE` | `1`: each call with its code goes to standard error |
//!
//! Its rules are written from the driver's documentation and were compared with no driver.
#![allow(unsafe_code, non_snake_case)]
// The functions of C say what they are by their names; NVIDIA's manual says the rest.
#![allow(missing_docs, clippy::missing_safety_doc, clippy::too_many_arguments)]

mod config;
mod driver;
mod error;
mod graph;
mod launch;
mod memory;
mod module;
mod stream;

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr;

use driver::{Before, Driver, call, current};
use error::{INVALID_DEVICE, INVALID_VALUE, NO_DEVICE, NOT_FOUND, R, words};
use launch::Shape;

type Handle = *mut c_void;

/// Defines exported functions; the word in front says what must hold before the body runs.
macro_rules! api {
    ($($before:ident fn $name:ident($($arg:ident: $type:ty),* $(,)?) |$driver:ident| $body:block)*) => {$(
        #[unsafe(no_mangle)]
        #[allow(unused_unsafe, reason = "some bodies use no pointer")]
        pub unsafe extern "C" fn $name($($arg: $type),*) -> u32 {
            // SAFETY: what a pointer has to be, the caller of a C function must know.
            call(stringify!($name), Before::$before, |$driver: &mut Driver| -> R { unsafe { $body } })
        }
    )*};
}

/// Writes a result.
///
/// # Safety
/// It is null or may be written.
unsafe fn put<T>(to: *mut T, value: T) -> R {
    if to.is_null() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: the caller's.
    unsafe { to.write(value) };
    Ok(())
}

const fn handle(id: u64) -> Handle {
    ptr::without_provenance_mut(id as usize)
}

fn id(handle: Handle) -> u64 {
    handle.addr() as u64
}

// What is allowed before `cuInit`, and itself. NVRTC opens the library, too: it asks for private tables, and without
// the function it crashes.
api! {
    Nothing fn cuInit(flags: c_uint) |d| {
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        if d.devices.is_empty() {
            return Err(NO_DEVICE);
        }
        d.initialised = true;
        Ok(())
    }
    Nothing fn cuDriverGetVersion(version: *mut c_int) |d| { put(version, d.config.driver) }
    Nothing fn cuGetErrorName(error: u32, text: *mut *const c_char) |_d| {
        put(text, words(error).map_or(ptr::null(), |(name, _)| name.as_ptr()))?;
        words(error).map(drop).ok_or(INVALID_VALUE)
    }
    Nothing fn cuGetErrorString(error: u32, text: *mut *const c_char) |_d| {
        put(text, words(error).map_or(ptr::null(), |(_, text)| text.as_ptr()))?;
        words(error).map(drop).ok_or(INVALID_VALUE)
    }
    Nothing fn cuGetExportTable(table: *mut *const c_void, _id: *const c_void) |_d| {
        put(table, ptr::null())?;
        Err(NOT_FOUND)
    }
}

// Devices and contexts.
api! {
    Init fn cuDeviceGetCount(count: *mut c_int) |d| { put(count, d.devices.len() as c_int) }
    Init fn cuDeviceGet(device: *mut c_int, ordinal: c_int) |d| {
        d.device(ordinal)?;
        put(device, ordinal)
    }
    Init fn cuDeviceGetName(name: *mut c_char, length: c_int, device: c_int) |d| {
        let text = &d.device(device)?.spec.name;
        let room = usize::try_from(length).ok().and_then(|n| n.checked_sub(1)).ok_or(INVALID_VALUE)?;
        let length = text.len().min(room);
        put(name.add(length), 0)?;
        ptr::copy_nonoverlapping(text.as_ptr().cast(), name, length);
        Ok(())
    }
    Init fn cuDeviceGetUuid(uuid: *mut [u8; 16], device: c_int) |d| { put_uuid(d, uuid, device) }
    Init fn cuDeviceGetUuid_v2(uuid: *mut [u8; 16], device: c_int) |d| { put_uuid(d, uuid, device) }
    Init fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_uint, device: c_int) |d| {
        let Some(found) = d.device(device)?.spec.attribute(attribute) else {
            d.complain(&format!("the fake driver knows no attribute {attribute} of devices"));
            return Err(INVALID_VALUE);
        };
        put(value, found)
    }
    Init fn cuDeviceTotalMem_v2(bytes: *mut usize, device: c_int) |d| {
        put(bytes, d.device(device)?.spec.memory as usize)
    }
    Init fn cuDevicePrimaryCtxRetain(context: *mut Handle, device: c_int) |d| {
        let id = d.retain(device)?;
        put(context, handle(id))
    }
    Init fn cuDevicePrimaryCtxRelease_v2(device: c_int) |d| { d.release(device) }
    Init fn cuCtxGetCurrent(context: *mut Handle) |_d| { put(context, handle(current())) }
    Init fn cuCtxSetCurrent(context: Handle) |d| { d.set_current(id(context)) }
    Context fn cuCtxGetDevice(device: *mut c_int) |d| {
        let here = d.here()?;
        put(device, c_int::try_from(here).map_err(|_| INVALID_DEVICE)?)
    }
    Uncaptured fn cuCtxSynchronize() |d| { d.synchronize_context() }
    Context fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) |d| {
        let (now, all) = d.memory_info()?;
        put(free, now as usize)?;
        put(total, all as usize)
    }
}

/// The device's UUID: the same in every process, as that of a GPU.
///
/// # Safety
/// As [`put`].
unsafe fn put_uuid(d: &Driver, uuid: *mut [u8; 16], device: c_int) -> R {
    let spec = &d.device(device)?.spec;
    let mut bytes = *b"fake-cuda-\0\0\0\0\0\0";
    (bytes[14], bytes[15]) = (spec.capability as u8, device as u8);
    // SAFETY: the caller's.
    unsafe { put(uuid, bytes) }
}

// Memory.
api! {
    Uncaptured fn cuMemAlloc_v2(address: *mut u64, bytes: usize) |d| {
        let at = d.allocate(bytes as u64)?;
        put(address, at)
    }
    Uncaptured fn cuMemFree_v2(address: u64) |d| { d.free(address) }
    Uncaptured fn cuMemHostAlloc(host: *mut Handle, bytes: usize, flags: c_uint) |d| {
        if flags & !7 != 0 {
            return Err(INVALID_VALUE);
        }
        let at = d.allocate_host(bytes)?;
        put(host, at.cast())
    }
    Uncaptured fn cuMemFreeHost(host: Handle) |d| { d.free_host(host.addr()) }
    Context fn cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, bytes: usize, stream: Handle) |d| {
        d.upload(to, from.cast(), bytes, id(stream))
    }
    Context fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, bytes: usize, stream: Handle) |d| {
        d.download(to.cast(), from, bytes, id(stream))
    }
}

// Modules and functions.
api! {
    Uncaptured fn cuModuleLoadData(module: *mut Handle, image: *const c_void) |d| {
        let id = d.load(image.cast()).map_err(|(code, why)| {
            eprintln!("fake-cuda: {why}");
            code
        })?;
        put(module, handle(id))
    }
    Uncaptured fn cuModuleLoadDataEx(
        module: *mut Handle, image: *const c_void, count: c_uint, options: *const c_uint, values: *const *mut c_void,
    ) |d| {
        const LOG: c_uint = 5;
        const LOG_BYTES: c_uint = 6;
        let refused = match d.load(image.cast()) {
            Ok(id) => return put(module, handle(id)),
            Err(refused) => refused,
        };
        let value = |which| (0..count as usize).find(|i| options.add(*i).read() == which).map(|i| values.add(i).read());
        if let (Some(log), Some(bytes)) = (value(LOG), value(LOG_BYTES)) {
            let text = &refused.1.as_bytes()[..refused.1.len().min(bytes.addr().saturating_sub(1))];
            put(log.cast::<u8>().add(text.len()), 0)?;
            ptr::copy_nonoverlapping(text.as_ptr(), log.cast(), text.len());
        }
        Err(refused.0)
    }
    Uncaptured fn cuModuleUnload(module: Handle) |d| { d.unload(id(module)) }
    Context fn cuModuleGetFunction(function: *mut Handle, module: Handle, name: *const c_char) |d| {
        let name = CStr::from_ptr(name).to_str().map_err(|_| NOT_FOUND)?;
        let found = d.function_named(id(module), name)?;
        put(function, handle(found))
    }
    Context fn cuFuncGetAttribute(value: *mut c_int, attribute: c_uint, function: Handle) |d| {
        let found = d.function_attribute(id(function), attribute)?;
        put(value, found)
    }
    Context fn cuFuncSetAttribute(function: Handle, attribute: c_uint, value: c_int) |d| {
        d.set_function_attribute(id(function), attribute, value)
    }
    Context fn cuFuncGetParamInfo(function: Handle, index: usize, offset: *mut usize, bytes: *mut usize) |d| {
        let (at, size) = d.parameter(id(function), index)?;
        put(offset, at)?;
        if bytes.is_null() { Ok(()) } else { put(bytes, size) }
    }
    Context fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
        blocks: *mut c_int, function: Handle, threads: c_int, shared: usize,
    ) |d| {
        let found = d.occupancy(id(function), threads, shared)?;
        put(blocks, found)
    }
}

// Streams and events.
api! {
    Uncaptured fn cuStreamCreate(stream: *mut Handle, flags: c_uint) |d| {
        let made = d.new_stream(flags)?;
        put(stream, handle(made))
    }
    Context fn cuStreamDestroy_v2(stream: Handle) |d| { d.destroy_stream(id(stream)) }
    Context fn cuStreamSynchronize(stream: Handle) |d| { d.synchronize(id(stream)) }
    Context fn cuStreamQuery(stream: Handle) |d| { d.query_stream(id(stream)) }
    Context fn cuEventCreate(event: *mut Handle, flags: c_uint) |d| {
        let made = d.new_event(flags)?;
        put(event, handle(made))
    }
    Context fn cuEventDestroy_v2(event: Handle) |d| { d.destroy_event(id(event)) }
    Context fn cuEventRecord(event: Handle, stream: Handle) |d| { d.record(id(event), id(stream)) }
    Context fn cuEventQuery(event: Handle) |d| { d.query(id(event)) }
    Context fn cuEventSynchronize(event: Handle) |d| { d.synchronize_event(id(event)) }
    Context fn cuEventElapsedTime(milliseconds: *mut f32, start: Handle, end: Handle) |d| {
        let time = d.elapsed(id(start), id(end))?;
        put(milliseconds, time)
    }
}

// Captures and graphs.
api! {
    Context fn cuStreamIsCapturing(stream: Handle, status: *mut c_uint) |d| {
        let found = d.capture_status(id(stream))?;
        put(status, found)
    }
    Context fn cuStreamBeginCapture_v2(stream: Handle, mode: c_uint) |d| { d.begin_capture(id(stream), mode) }
    Context fn cuStreamEndCapture(stream: Handle, graph: *mut Handle) |d| {
        put(graph, ptr::null_mut())?;
        let made = d.end_capture(id(stream))?;
        put(graph, handle(made))
    }
    Context fn cuGraphInstantiateWithFlags(executable: *mut Handle, graph: Handle, flags: u64) |d| {
        if flags & !15 != 0 {
            return Err(INVALID_VALUE);
        }
        let made = d.instantiate(id(graph))?;
        put(executable, handle(made))
    }
    Context fn cuGraphUpload(executable: Handle, stream: Handle) |d| { d.upload_graph(id(executable), id(stream)) }
    Context fn cuGraphLaunch(executable: Handle, stream: Handle) |d| { d.launch_graph(id(executable), id(stream)) }
    Context fn cuGraphExecDestroy(executable: Handle) |d| { d.destroy_executable(id(executable)) }
    Context fn cuGraphDestroy(graph: Handle) |d| { d.destroy_graph(id(graph)) }
}

// Launches.
api! {
    Context fn cuLaunchKernel(
        function: Handle, gx: c_uint, gy: c_uint, gz: c_uint, bx: c_uint, by: c_uint, bz: c_uint,
        shared: c_uint, stream: Handle, args: *const *const c_void, extra: *const *const c_void,
    ) |d| {
        if !extra.is_null() {
            return Err(INVALID_VALUE);
        }
        let shape = Shape { grid: [gx, gy, gz], block: [bx, by, bz], shared, cooperative: false };
        d.launch(id(function), shape, id(stream), args)
    }
    Context fn cuLaunchCooperativeKernel(
        function: Handle, gx: c_uint, gy: c_uint, gz: c_uint, bx: c_uint, by: c_uint, bz: c_uint,
        shared: c_uint, stream: Handle, args: *const *const c_void,
    ) |d| {
        let shape = Shape { grid: [gx, gy, gz], block: [bx, by, bz], shared, cooperative: true };
        d.launch(id(function), shape, id(stream), args)
    }
}
