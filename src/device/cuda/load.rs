//! Modules and kernels: loaded when a program asks for them, and checked against what the GPU has.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_void};
use std::ptr;

use super::code::{Code, DriverResult};
use super::driver::{Gpu, GpuInfo, title};
use super::failure::{describe, failed};
use super::ffi::{FunctionAttribute, Functions, JIT_ERROR_LOG, JIT_ERROR_LOG_BYTES, RawFunction, RawModule};
use crate::device::Launch;
use crate::format;
use crate::kernels::{Cubin, Kernel, Module};
use crate::{Error, Result};

/// Shared memory a block may have without the kernel asking for more.
const DEFAULT_SHARED: u32 = 48 * 1024;

/// A kernel as loaded.
#[derive(Clone, Copy)]
struct Function {
    handle: RawFunction,
    /// Bytes of static shared memory.
    static_shared: u32,
    /// Most bytes of dynamic shared memory a launch may ask for now.
    dynamic_shared: u32,
}

/// What of the kernels is loaded on a GPU.
#[derive(Default)]
pub(super) struct Loaded {
    /// By the table's entry: a file or a name may be that of another entry, too.
    modules: HashMap<*const Module, RawModule>,
    functions: HashMap<*const Kernel, Function>,
}

impl Loaded {
    /// The launch's kernel, loaded, with room on the GPU for what it asks for. The context must be current.
    ///
    /// # Errors
    /// When the driver refuses the module, or the GPU has less than the launch asks for.
    pub fn function_of(&mut self, gpu: &Gpu, launch: &Launch) -> Result<RawFunction> {
        let function = self.function(gpu, launch.kernel, launch.shared_bytes)?;
        if launch.cooperative {
            check_residency(gpu, launch, function)?;
        }
        Ok(function)
    }

    /// Unloads all modules.
    ///
    /// # Safety
    /// The context must be current, and nothing may use the modules any more.
    pub unsafe fn unload(&mut self, driver: &Functions) {
        self.functions.clear();
        for (_, module) in self.modules.drain() {
            // SAFETY: the caller's; each module is in the list once.
            _ = unsafe { driver.cuModuleUnload(module) };
        }
    }

    /// Loads a kernel and checks that a block of its most threads fits; the context must be current.
    ///
    /// # Errors
    /// When the driver refuses it, or takes smaller blocks only.
    pub fn check_block(&mut self, gpu: &Gpu, kernel: &'static Kernel) -> Result<()> {
        let function = self.function(gpu, kernel, 0)?;
        let asking = failed(format!("asking what cuda:{} holds of {}", gpu.info.ordinal, kernel.name));
        let most = attribute(gpu.context.driver, function, FunctionAttribute::MaxThreads).map_err(asking)?;
        if kernel.max_threads <= most {
            return Ok(());
        }
        Err(Error::new(format!(
            "{} needs blocks of {} threads, but cuda:{} ({}) takes {most} of it",
            kernel.name, kernel.max_threads, gpu.info.ordinal, gpu.info.name
        )))
    }

    /// The module, loaded; the context must be current.
    ///
    /// # Errors
    /// When the driver refuses it.
    pub fn module(&mut self, gpu: &Gpu, module: &'static Module) -> Result<RawModule> {
        if let Some(&loaded) = self.modules.get(&ptr::from_ref(module)) {
            return Ok(loaded);
        }
        let fits = |cubin: &&Cubin| runs_on(cubin.arch, gpu.info.capability);
        let cubin = module.cubins.iter().filter(fits).max_by_key(|cubin| cubin.arch);
        let loaded = match cubin.map(|cubin| (cubin.arch, load_cubin(gpu, cubin))) {
            // What the numbers allow, such as code for 8.0 on an Orin of 8.7, a driver may still refuse.
            Some((_, Err(Code::NO_BINARY_FOR_GPU))) | None => load_ptx(gpu, module)?,
            Some((arch, loaded)) => {
                loaded.map_err(failed(format!("loading kernels/{} for sm_{arch}", module.file)))?
            }
        };
        self.modules.insert(ptr::from_ref(module), loaded);
        Ok(loaded)
    }

    /// The kernel, loaded and allowed so much dynamic shared memory.
    fn function(&mut self, gpu: &Gpu, kernel: &'static Kernel, dynamic_shared: u32) -> Result<RawFunction> {
        let (driver, ordinal) = (gpu.context.driver, gpu.info.ordinal);
        let loading = || failed(format!("loading {} on cuda:{ordinal}", kernel.name));
        let mut function = match self.functions.get(&ptr::from_ref(kernel)) {
            Some(&function) => function,
            None => {
                let module = self.module(gpu, kernel.module)?;
                let name = CString::new(kernel.name).expect("a C identifier");
                let mut handle = ptr::null_mut();
                // SAFETY: the module is loaded, and unloaded only in `unload`; the name ends with NUL.
                unsafe { driver.cuModuleGetFunction(&mut handle, module, name.as_ptr()) }
                    .map_err(loading())?;
                let static_shared =
                    attribute(driver, handle, FunctionAttribute::StaticShared).map_err(loading())?;
                Function {
                    handle,
                    static_shared,
                    dynamic_shared: DEFAULT_SHARED.saturating_sub(static_shared),
                }
            }
        };
        let shared = u64::from(function.static_shared) + u64::from(dynamic_shared);
        if shared > u64::from(gpu.info.target.shared_bytes) {
            return Err(Error::new(format!(
                "{} needs {shared} bytes of shared memory a block, but cuda:{ordinal} ({}) has at most {}",
                kernel.name, gpu.info.name, gpu.info.target.shared_bytes
            )));
        }
        if dynamic_shared > function.dynamic_shared {
            let which = FunctionAttribute::MaxDynamicShared as u32;
            // SAFETY: the function is of a loaded module.
            unsafe { driver.cuFuncSetAttribute(function.handle, which, dynamic_shared as i32) }
                .map_err(loading())?;
            function.dynamic_shared = dynamic_shared;
        }
        self.functions.insert(ptr::from_ref(kernel), function);
        Ok(function.handle)
    }
}

/// An attribute of a function of a loaded module.
fn attribute(driver: &Functions, function: RawFunction, which: FunctionAttribute) -> DriverResult<u32> {
    let mut value = 0;
    // SAFETY: the function is of a loaded module; it writes one int.
    unsafe { driver.cuFuncGetAttribute(&mut value, which as u32, function) }?;
    Ok(value.unsigned_abs())
}

/// Refuses blocks that wait for each other where they would not all be resident: they would wait forever.
fn check_residency(gpu: &Gpu, launch: &Launch, function: RawFunction) -> Result<()> {
    let (driver, info) = (gpu.context.driver, &gpu.info);
    let asking = || failed(format!("asking what cuda:{} holds of {}", info.ordinal, launch.kernel.name));
    let (threads, shared) = (launch.threads() as i32, launch.shared_bytes as usize);
    let mut each = 0;
    // SAFETY: the function is of a loaded module; the call writes one int.
    unsafe { driver.cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut each, function, threads, shared) }
        .map_err(asking())?;
    let blocks = launch.blocks();
    let resident = if info.cooperative { each.max(0) as u64 * u64::from(info.target.sms) } else { 0 };
    if blocks <= resident {
        return Ok(());
    }
    Err(Error::new(format!(
        "{}: {blocks} blocks wait for each other, but cuda:{} ({}) holds {resident} at once",
        title(launch),
        info.ordinal,
        info.name
    ))
    .hint("take another variant of the norm, such as vectorised or pad-fused"))
}

/// Whether machine code for one compute capability runs on a device of another: on the same major
/// number and at least the minor.
fn runs_on(arch: u32, capability: u32) -> bool {
    arch / 10 == capability / 10 && arch <= capability
}

/// Loads machine code; the context must be current.
fn load_cubin(gpu: &Gpu, cubin: &Cubin) -> DriverResult<RawModule> {
    // The driver reads an ELF image in place; an embedded one lies at any address.
    let mut image = vec![0u64; cubin.image.len().div_ceil(8)];
    bytemuck::cast_slice_mut::<u64, u8>(&mut image)[..cubin.image.len()].copy_from_slice(cubin.image);
    let mut module = ptr::null_mut();
    // SAFETY: the image is NVRTC's, whole, and is copied by the driver during the call.
    unsafe { gpu.context.driver.cuModuleLoadData(&mut module, image.as_ptr().cast()) }?;
    Ok(module)
}

/// Has the driver compile PTX and loads that; the context must be current.
fn load_ptx(gpu: &Gpu, module: &Module) -> Result<RawModule> {
    let file = module.file;
    let capability = gpu.info.capability;
    if capability < module.needs {
        let needs = format::capability(module.needs);
        let GpuInfo { ordinal, name, .. } = &gpu.info;
        return Err(Error::new(format!(
            "kernels/{file} needs compute capability {needs}, and cuda:{ordinal} ({name}) has {}",
            format::capability(capability)
        ))
        .hint("it has no tensor cores for tf32: take the precision f32"));
    }
    let ptx = module.ptx_for(capability).ok_or_else(|| {
        let capability = format::capability(capability);
        Error::new(format!("kernels/{file} was not compiled for compute capability {capability}"))
            .hint("build with an NVRTC that compiles for it")
    })?;
    let ptx = CString::new(ptx).map_err(|_| Error::new(format!("kernels/{file}: its PTX has a NUL")))?;
    let mut log = vec![0u8; 16 << 10];
    let mut options = [JIT_ERROR_LOG, JIT_ERROR_LOG_BYTES];
    let mut values = [log.as_mut_ptr().cast::<c_void>(), ptr::without_provenance_mut(log.len())];
    let mut module = ptr::null_mut();
    // SAFETY: the PTX is NUL-terminated; the options say where the log is and how long; all of it
    // outlives the call.
    unsafe {
        gpu.context.driver.cuModuleLoadDataEx(
            &mut module,
            ptx.as_ptr().cast(),
            options.len() as u32,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    }
    .map_err(|code| {
        let log = CStr::from_bytes_until_nul(&log).map(CStr::to_string_lossy).unwrap_or_default();
        let doing = format!("compiling kernels/{file} from PTX");
        match log.trim() {
            "" => describe(doing, code),
            log => describe(format!("{doing}: {log}"), code),
        }
    })?;
    Ok(module)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_code_runs_on_the_same_major_number_only() {
        assert!(runs_on(80, 80) && runs_on(80, 86) && runs_on(80, 89));
        assert!(!runs_on(80, 90) && !runs_on(80, 75) && !runs_on(86, 80));
        assert!(runs_on(90, 90) && !runs_on(90, 100) && !runs_on(90, 89));
        assert!(runs_on(100, 103) && !runs_on(100, 120) && runs_on(120, 121) && !runs_on(120, 110));
    }
}
