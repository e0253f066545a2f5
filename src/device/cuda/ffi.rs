//! The functions of the driver's library that are called, bound by hand: a result is the number that C gives. A driver
//! newer than this file gives numbers that no list here has, and a Rust enum of them would be undefined behaviour.
//!
//! Signatures and constants are those of NVIDIA's `cuda.h`. The library is opened at run time, so the same binary starts
//! on machines without one.
#![allow(unsafe_code, non_snake_case)]

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::ptr;
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use super::code::{Code, DriverResult};

/// The names of the library. The first is the driver's own; the second, which links to it, is also the name of the
/// stand-in that toolkits have for linking, and must not hide a driver.
const LIBRARIES: [&str; 2] = ["libcuda.so.1", "libcuda.so"];

macro_rules! handles {
    ($($(#[$doc:meta])* $name:ident = $pointee:ident;)*) => {$(
        #[doc(hidden)]
        pub enum $pointee {}
        $(#[$doc])*
        pub(super) type $name = *mut $pointee;
    )*};
}

handles! {
    /// `CUcontext`
    RawContext = ContextObject;
    /// `CUmodule`
    RawModule = ModuleObject;
    /// `CUfunction`
    RawFunction = FunctionObject;
    /// `CUstream`
    RawStream = StreamObject;
    /// `CUevent`
    RawEvent = EventObject;
    /// `CUgraph`
    RawGraph = GraphObject;
    /// `CUgraphExec`
    RawGraphExec = GraphExecObject;
}

/// `CUdevice`
pub(super) type RawDevice = c_int;

/// `CUdeviceptr`
pub(super) type Address = u64;

/// `CU_STREAM_NON_BLOCKING`
pub(super) const STREAM_NON_BLOCKING: c_uint = 1;
/// `CU_STREAM_CAPTURE_MODE_THREAD_LOCAL`
pub(super) const CAPTURE_THREAD_LOCAL: c_uint = 1;
/// `CU_EVENT_DEFAULT`
pub(super) const EVENT_DEFAULT: c_uint = 0;
/// `CU_EVENT_DISABLE_TIMING`
pub(super) const EVENT_DISABLE_TIMING: c_uint = 2;
/// `CU_JIT_ERROR_LOG_BUFFER`
pub(super) const JIT_ERROR_LOG: c_uint = 5;
/// `CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES`
pub(super) const JIT_ERROR_LOG_BYTES: c_uint = 6;

/// What a device is asked for: numbers of `CUdevice_attribute`.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(super) enum DeviceAttribute {
    Multiprocessors = 16,
    CapabilityMajor = 75,
    CapabilityMinor = 76,
    CooperativeLaunch = 95,
    /// Most bytes of shared memory that a block can ask for.
    SharedPerBlock = 97,
}

/// What a kernel is asked for: numbers of `CUfunction_attribute`.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(super) enum FunctionAttribute {
    MaxThreads = 0,
    StaticShared = 1,
    MaxDynamicShared = 8,
}

/// Why there are no functions to call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// No library opens.
    Library,
    /// The library has no such function.
    Function { library: &'static str, name: &'static str },
}

macro_rules! functions {
    ($(fn $name:ident($($arg:ident: $type:ty),* $(,)?);)*) => {
        /// The functions, found.
        pub(super) struct Functions {
            $($name: unsafe extern "C" fn($($type),*) -> c_uint,)*
        }

        impl Functions {
            /// Finds each of them in a library.
            fn of(library: &Library, file: &'static str) -> Result<Self, Missing> {
                Ok(Self {$(
                    // SAFETY: the type is that of `cuda.h`; its enums are C ints, and so is its result.
                    $name: *unsafe {
                        library.get::<unsafe extern "C" fn($($type),*) -> c_uint>(stringify!($name).as_bytes())
                    }
                    .map_err(|_| Missing::Function { library: file, name: stringify!($name) })?,
                )*})
            }

            $(
                /// The function of that name.
                ///
                /// # Safety
                /// As NVIDIA's manual says of it.
                #[allow(clippy::too_many_arguments, reason = "as the driver has it")]
                pub unsafe fn $name(&self, $($arg: $type),*) -> DriverResult {
                    // SAFETY: the caller's.
                    Code::checked(unsafe { (self.$name)($($arg),*) })
                }
            )*
        }
    };
}

functions! {
    fn cuInit(flags: c_uint);
    fn cuDriverGetVersion(version: *mut c_int);
    fn cuGetErrorName(code: c_uint, name: *mut *const c_char);
    fn cuGetErrorString(code: c_uint, text: *mut *const c_char);

    fn cuDeviceGetCount(count: *mut c_int);
    fn cuDeviceGet(device: *mut RawDevice, ordinal: c_int);
    fn cuDeviceGetName(name: *mut c_char, length: c_int, device: RawDevice);
    fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_uint, device: RawDevice);
    fn cuDeviceTotalMem_v2(bytes: *mut usize, device: RawDevice);
    fn cuDevicePrimaryCtxRetain(context: *mut RawContext, device: RawDevice);
    fn cuDevicePrimaryCtxRelease_v2(device: RawDevice);
    fn cuCtxSetCurrent(context: RawContext);

    fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize);
    fn cuMemAlloc_v2(address: *mut Address, bytes: usize);
    fn cuMemFree_v2(address: Address);
    fn cuMemHostAlloc(host: *mut *mut c_void, bytes: usize, flags: c_uint);
    fn cuMemFreeHost(host: *mut c_void);
    fn cuMemcpyHtoDAsync_v2(to: Address, from: *const c_void, bytes: usize, stream: RawStream);
    fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: Address, bytes: usize, stream: RawStream);

    fn cuModuleLoadData(module: *mut RawModule, image: *const c_void);
    fn cuModuleLoadDataEx(
        module: *mut RawModule, image: *const c_void,
        count: c_uint, options: *mut c_uint, values: *mut *mut c_void,
    );
    fn cuModuleUnload(module: RawModule);
    fn cuModuleGetFunction(function: *mut RawFunction, module: RawModule, name: *const c_char);
    fn cuFuncGetAttribute(value: *mut c_int, attribute: c_uint, function: RawFunction);
    fn cuFuncSetAttribute(function: RawFunction, attribute: c_uint, value: c_int);
    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
        blocks: *mut c_int, function: RawFunction, threads: c_int, shared: usize,
    );

    fn cuStreamCreate(stream: *mut RawStream, flags: c_uint);
    fn cuStreamDestroy_v2(stream: RawStream);
    fn cuStreamSynchronize(stream: RawStream);
    fn cuStreamBeginCapture_v2(stream: RawStream, mode: c_uint);
    fn cuStreamEndCapture(stream: RawStream, graph: *mut RawGraph);
    fn cuEventCreate(event: *mut RawEvent, flags: c_uint);
    fn cuEventDestroy_v2(event: RawEvent);
    fn cuEventRecord(event: RawEvent, stream: RawStream);
    fn cuEventSynchronize(event: RawEvent);
    fn cuEventElapsedTime(milliseconds: *mut f32, start: RawEvent, end: RawEvent);

    fn cuGraphInstantiateWithFlags(executable: *mut RawGraphExec, graph: RawGraph, flags: c_ulonglong);
    fn cuGraphUpload(executable: RawGraphExec, stream: RawStream);
    fn cuGraphLaunch(executable: RawGraphExec, stream: RawStream);
    fn cuGraphExecDestroy(executable: RawGraphExec);
    fn cuGraphDestroy(graph: RawGraph);

    fn cuLaunchKernel(
        function: RawFunction, gx: c_uint, gy: c_uint, gz: c_uint, bx: c_uint, by: c_uint, bz: c_uint,
        shared: c_uint, stream: RawStream, args: *mut *mut c_void, extra: *mut *mut c_void,
    );
    fn cuLaunchCooperativeKernel(
        function: RawFunction, gx: c_uint, gy: c_uint, gz: c_uint, bx: c_uint, by: c_uint, bz: c_uint,
        shared: c_uint, stream: RawStream, args: *mut *mut c_void,
    );
}

impl Functions {
    /// The driver's name and words of a code, where it has them.
    pub fn words(&self, code: Code) -> Option<(String, String)> {
        let text = |of: &dyn Fn(*mut *const c_char) -> DriverResult| {
            let mut text = ptr::null();
            of(&mut text).ok()?;
            // SAFETY: where it is not null it is a static C string of the driver's.
            (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
        };
        // SAFETY: each writes one pointer and takes any number.
        let name = text(&|to| unsafe { self.cuGetErrorName(code.0, to) })?;
        // SAFETY: as above.
        Some((name, text(&|to| unsafe { self.cuGetErrorString(code.0, to) }).unwrap_or_default()))
    }
}

/// The driver's functions, its library opened at the first call.
pub(super) fn functions() -> Result<&'static Functions, &'static Missing> {
    static FUNCTIONS: OnceLock<Result<Functions, Missing>> = OnceLock::new();
    FUNCTIONS.get_or_init(|| open(&LIBRARIES)).as_ref()
}

/// The functions of the first library that opens.
fn open(names: &[&'static str]) -> Result<Functions, Missing> {
    for &name in names {
        // SAFETY: the driver's library has no initialisation that asks anything of the caller.
        if let Ok(library) = unsafe { Library::open(Some(name), RTLD_NOW | RTLD_LOCAL) } {
            let functions = Functions::of(&library, name);
            // The functions are called until the process ends.
            std::mem::forget(library);
            return functions;
        }
    }
    Err(Missing::Library)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_there_is_missing() {
        let names = ["libno-such-driver.so.1", "libno-such-driver.so"];
        assert_eq!(open(&names).err(), Some(Missing::Library));
    }

    #[test]
    fn a_library_without_the_functions_names_the_first() {
        let missing = Functions::of(&Library::this(), "libcuda.so.1").err();
        assert_eq!(missing, Some(Missing::Function { library: "libcuda.so.1", name: "cuInit" }));
    }
}
