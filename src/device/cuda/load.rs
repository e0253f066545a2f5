//! Modules and kernels: loaded when a program asks for them, and checked against what the GPU has.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_void};
use std::ptr;

use cudarc::driver::{result, sys};

use super::driver::{Gpu, describe, failed, title};
use crate::device::Launch;
use crate::kernels::{Cubin, Kernel, Module};
use crate::{Error, Result};

/// Shared memory a block may have without the kernel asking for more.
const DEFAULT_SHARED: u32 = 48 * 1024;

/// A kernel as loaded.
#[derive(Clone, Copy)]
struct Function {
    handle: sys::CUfunction,
    /// Bytes of static shared memory.
    static_shared: u32,
    /// Most bytes of dynamic shared memory a launch may ask for now.
    dynamic_shared: u32,
}

/// What of the kernels is loaded on a GPU.
#[derive(Default)]
pub(super) struct Loaded {
    /// By file.
    modules: HashMap<&'static str, sys::CUmodule>,
    /// By name.
    functions: HashMap<&'static str, Function>,
}

impl Loaded {
    /// The launch's kernel, loaded, with room on the GPU for what it asks for. The context must be current.
    ///
    /// # Errors
    /// When the driver refuses the module, or the GPU has less than the launch asks for.
    pub fn function_of(&mut self, gpu: &Gpu, launch: &Launch) -> Result<sys::CUfunction> {
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
    pub unsafe fn unload(&mut self) {
        self.functions.clear();
        for (_, module) in self.modules.drain() {
            // SAFETY: the caller's; each module is in the list once.
            _ = unsafe { result::module::unload(module) };
        }
    }

    /// The module, loaded.
    fn module(&mut self, gpu: &Gpu, module: &'static Module) -> Result<sys::CUmodule> {
        if let Some(&loaded) = self.modules.get(module.file) {
            return Ok(loaded);
        }
        let fits = |cubin: &&Cubin| runs_on(cubin.arch, gpu.capability);
        let cubin = module.cubins.iter().filter(fits).max_by_key(|cubin| cubin.arch);
        let loaded = match cubin {
            Some(cubin) => load_cubin(module.file, cubin),
            None => load_ptx(module.file, module.ptx),
        }?;
        self.modules.insert(module.file, loaded);
        Ok(loaded)
    }

    /// The kernel, loaded and allowed so much dynamic shared memory.
    fn function(
        &mut self,
        gpu: &Gpu,
        kernel: &'static Kernel,
        dynamic_shared: u32,
    ) -> Result<sys::CUfunction> {
        use sys::CUfunction_attribute_enum as Attribute;
        let ordinal = gpu.ordinal;
        let loading = || failed(format!("loading {} on cuda:{ordinal}", kernel.name));
        let mut function = match self.functions.get(kernel.name) {
            Some(&function) => function,
            None => {
                let module = self.module(gpu, kernel.module)?;
                let name = CString::new(kernel.name).expect("a C identifier");
                // SAFETY: the module is loaded, and unloaded only in `unload`.
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
        if shared > u64::from(gpu.target.shared_bytes) {
            return Err(Error::new(format!(
                "{} needs {shared} bytes of shared memory a block, but cuda:{} ({}) has at most {}",
                kernel.name, gpu.ordinal, gpu.name, gpu.target.shared_bytes
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
}

/// Refuses blocks that wait for each other where they would not all be resident: they would wait forever.
fn check_residency(gpu: &Gpu, launch: &Launch, function: sys::CUfunction) -> Result<()> {
    use sys::CUdevice_attribute_enum as Attribute;
    let asking = || failed(format!("asking what cuda:{} holds of {}", gpu.ordinal, launch.kernel.name));
    let attribute = |which| gpu.context.attribute(which).map_err(asking());
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
        gpu.ordinal,
        gpu.name
    ))
    .hint("take another variant of the norm, such as vectorised or network"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_code_runs_on_the_same_major_number_only() {
        assert!(runs_on(80, 80) && runs_on(80, 86) && runs_on(80, 89));
        assert!(!runs_on(80, 90) && !runs_on(80, 75) && !runs_on(86, 80));
        assert!(runs_on(90, 90) && !runs_on(90, 100) && !runs_on(90, 89));
    }
}
