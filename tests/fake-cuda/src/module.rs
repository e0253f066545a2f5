//! Modules and functions: which of the project's modules an image is, and whether the device takes it.

use std::ffi::CStr;
use std::slice;

use ptx_emulator::Kernel;
use ugatit::model::occupancy;

use crate::driver::Driver;
use crate::error::{
    Code, INVALID_HANDLE, INVALID_IMAGE, INVALID_PTX, INVALID_VALUE, NO_BINARY_FOR_GPU, NOT_FOUND, R,
    UNSUPPORTED_PTX_VERSION,
};
use crate::stream::Op;

/// Shared memory that a block may have without the kernel asking for more.
const DEFAULT_SHARED: u32 = 48 << 10;

/// A loaded module.
pub struct Module {
    pub device: usize,
    module: ptx_emulator::Module,
    /// The architecture that ptxas' figures are taken for.
    arch: u32,
}

/// A kernel of a loaded module.
pub struct Function {
    pub device: usize,
    module: u64,
    pub kernel: Kernel,
    /// Bytes of static shared memory.
    pub static_shared: u32,
    /// Registers a thread.
    pub registers: u32,
    /// Most bytes of dynamic shared memory.
    pub dynamic_shared: u32,
}

/// Why an image is refused: the code, and the words for the log.
pub type Refused = (Code, String);

/// An image that the device takes: a name, its PTX, and the architecture of ptxas' figures.
struct Image<'a> {
    name: &'a str,
    ptx: &'a str,
    arch: u32,
}

/// Reads an image.
///
/// # Safety
/// It is an ELF file or a C string.
unsafe fn read<'a>(image: *const u8, capability: u32, driver: i32) -> Result<Image<'a>, Refused> {
    // A C string that differs from the magic number may end at the difference.
    // SAFETY: the caller's.
    let is_elf = b"\x7fELF".iter().enumerate().all(|(i, byte)| unsafe { image.add(i).read() } == *byte);
    if is_elf {
        // SAFETY: the caller's.
        return unsafe { machine_code(image, capability) };
    }
    // SAFETY: the caller's.
    let text = unsafe { CStr::from_ptr(image.cast()) };
    let text = text.to_str().map_err(|_| (INVALID_IMAGE, "the image is neither ELF nor text".to_owned()))?;
    check_ptx(text, capability, driver)?;
    let known = ugatit::kernels::modules().iter().find(|m| m.ptx == text);
    // There are no figures of what a driver's compiler makes of it.
    Ok(Image { name: known.map_or("PTX", |m| m.file), ptx: text, arch: 80 })
}

/// Refuses PTX that is newer than the driver or the device.
fn check_ptx(text: &str, capability: u32, driver: i32) -> Result<(), Refused> {
    let bad = |what: &str| (INVALID_PTX, format!("ptxas fatal: no {what} can be read"));
    let word = |key: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(key))?;
        line.split([' ', '\t', ',']).find(|word| !word.is_empty())
    };
    let version = word(".version").ok_or_else(|| bad(".version"))?;
    let number = version.split_once('.').and_then(|(major, minor)| {
        Some(major.parse::<u32>().ok()? * 10 + minor.parse::<u32>().ok().filter(|m| *m < 10)?)
    });
    let newest = newest_ptx(driver);
    if number.ok_or_else(|| bad(".version"))? > newest {
        let what =
            format!("ptxas fatal: PTX .version {version} is newer than {}.{}", newest / 10, newest % 10);
        return Err((UNSUPPORTED_PTX_VERSION, what));
    }
    let target = word(".target").ok_or_else(|| bad(".target"))?;
    let number = target.trim_start_matches("sm_");
    let specific = number.ends_with(char::is_alphabetic);
    let arch: u32 = number.trim_end_matches(char::is_alphabetic).parse().map_err(|_| bad(".target"))?;
    if arch > capability || specific && arch != capability {
        return Err((NO_BINARY_FOR_GPU, format!("PTX for {target} on a device of {capability}")));
    }
    Ok(())
}

/// The newest PTX, times ten, that a driver compiles: by the release notes of the PTX ISA.
fn newest_ptx(driver: i32) -> u32 {
    match driver / 10 {
        1300.. => 90,
        1209.. => 88,
        1208.. => 87,
        1207.. => 86,
        1205.. => 85,
        1204.. => 84,
        1203.. => 83,
        1202.. => 82,
        1201.. => 81,
        1200.. => 80,
        _ => 78,
    }
}

/// Machine code: runs the PTX of the module it was compiled from, since nothing here runs SASS.
///
/// # Safety
/// The image is a whole ELF file.
unsafe fn machine_code<'a>(image: *const u8, capability: u32) -> Result<Image<'a>, Refused> {
    const EM_CUDA: u16 = 190;
    let invalid = |what: &str| (INVALID_IMAGE, what.to_owned());
    // SAFETY: the header of an ELF file of 64 bits.
    let header = unsafe { slice::from_raw_parts(image, 64) };
    if header[4] != 2 || u16::from_le_bytes([header[18], header[19]]) != EM_CUDA {
        return Err(invalid("the image is an ELF file, but not of CUDA"));
    }
    let flags = u32::from_le_bytes([header[48], header[49], header[50], header[51]]);
    // Up to ABI 7 the lowest byte of the flags is the architecture, from 8 on (CUDA 13) the next one.
    let (arch, specific) = match header[8] {
        ..=7 => (flags & 0xff, flags & 0x800 != 0),
        _ => (flags >> 8 & 0xff, flags & 0x8 != 0),
    };
    let runs = if specific { arch == capability } else { arch / 10 == capability / 10 && arch <= capability };
    if !runs {
        return Err((NO_BINARY_FOR_GPU, format!("machine code for {arch} on a device of {capability}")));
    }
    // Byte by byte, which ends before the end of whichever is shorter.
    // SAFETY: the caller's; up to the first difference both are the same file.
    let is = |known: &[u8]| known.iter().enumerate().all(|(i, byte)| unsafe { image.add(i).read() } == *byte);
    let module = ugatit::kernels::modules().iter().find(|m| m.cubins.iter().any(|c| is(c.image)));
    let module = module.ok_or_else(|| {
        invalid("machine code that this library was not built with; run `cargo build --example fake_cuda`")
    })?;
    Ok(Image { name: module.file, ptx: module.ptx, arch })
}

impl Driver {
    /// Loads a module.
    ///
    /// # Errors
    /// The code, and why.
    ///
    /// # Safety
    /// The image is an ELF file or a C string.
    pub unsafe fn load(&mut self, image: *const u8) -> Result<u64, Refused> {
        let device = self.here().map_err(|code| (code, String::new()))?;
        if !image.addr().is_multiple_of(8) {
            // SAFETY: the caller's; there is at least the NUL.
            if unsafe { image.read() } == 0x7f {
                self.complain("an ELF image is loaded from an address that is no multiple of 8");
            }
        }
        let capability = self.devices[device].spec.capability;
        // SAFETY: the caller's.
        let image = unsafe { read(image, capability, self.config.driver) }?;
        let module =
            ptx_emulator::Module::named(image.name, image.ptx).map_err(|e| (INVALID_PTX, e.to_string()))?;
        let id = self.new_handle();
        self.modules.insert(id, Module { device, module, arch: image.arch });
        Ok(id)
    }

    fn module(&self, id: u64) -> R<&Module> {
        let Some(module) = self.modules.get(&id) else {
            self.complain(&format!("{id:#x} is used as a module, and is none, or one that was unloaded"));
            return Err(INVALID_HANDLE);
        };
        self.belongs(module.device, "a module")?;
        Ok(module)
    }

    /// Unloads a module, and its functions with it.
    pub fn unload(&mut self, id: u64) -> R {
        self.module(id)?;
        let of_it = |handle: u64| self.functions.get(&handle).is_some_and(|f| f.module == id);
        if self.is_pending(|op| matches!(op, Op::Launch(launch) if of_it(launch.function))) {
            self.complain("a module is unloaded while launches of its kernels are pending");
        }
        self.modules.remove(&id);
        self.functions.retain(|_, f| f.module != id);
        Ok(())
    }

    /// The kernel of a module by name.
    pub fn function_named(&mut self, module: u64, name: &str) -> R<u64> {
        let Module { device, module: ptx, arch } = self.module(module)?;
        let (device, arch) = (*device, *arch);
        let known = self.functions.iter().find(|(_, f)| f.module == module && f.kernel.name() == name);
        if let Some((&id, _)) = known {
            return Ok(id);
        }
        let kernel = ptx.kernel(name).map_err(|error| {
            eprintln!("fake-cuda: {error}");
            match error.kind() {
                ptx_emulator::ErrorKind::UnknownKernel => NOT_FOUND,
                _ => INVALID_PTX,
            }
        })?;
        let figures = ugatit::kernels::find(name).ok().filter(|k| k.module.file == ptx.name());
        let figures = figures.and_then(|k| k.resources.iter().find(|r| r.arch == arch));
        let static_shared = figures.map_or(kernel.shared_bytes(), |f| f.shared);
        let function = Function {
            device,
            module,
            kernel,
            static_shared,
            registers: figures.map_or(32, |f| f.registers),
            dynamic_shared: DEFAULT_SHARED.saturating_sub(static_shared),
        };
        let id = self.new_handle();
        self.functions.insert(id, function);
        Ok(id)
    }

    /// The function of a handle.
    pub fn function(&self, id: u64) -> R<&Function> {
        let Some(function) = self.functions.get(&id) else {
            self.complain(&format!(
                "{id:#x} is used as a function, and is none, or one whose module was unloaded"
            ));
            return Err(INVALID_HANDLE);
        };
        self.belongs(function.device, "a function")?;
        Ok(function)
    }

    /// An attribute of a function, by the number that the driver's interface gives it.
    pub fn function_attribute(&self, id: u64, which: u32) -> R<i32> {
        let f = self.function(id)?;
        let value = match which {
            // MAX_THREADS_PER_BLOCK, SHARED_SIZE_BYTES, CONST_SIZE_BYTES, LOCAL_SIZE_BYTES, NUM_REGS.
            0 => f.kernel.max_threads(),
            1 => f.static_shared,
            2 | 3 => 0,
            4 => f.registers,
            // MAX_DYNAMIC_SHARED_SIZE_BYTES.
            8 => f.dynamic_shared,
            _ => {
                self.complain(&format!("the fake driver knows no attribute {which} of functions"));
                return Err(INVALID_VALUE);
            }
        };
        Ok(value as i32)
    }

    /// Sets an attribute of a function.
    pub fn set_function_attribute(&mut self, id: u64, which: u32, value: i32) -> R {
        let f = self.function(id)?;
        let limits = self.devices[f.device].spec.limits();
        let most = limits.shared_a_block - f.static_shared.min(limits.shared_a_block);
        match (which, u32::try_from(value)) {
            (8, Ok(bytes)) if bytes <= most => {
                self.functions.get_mut(&id).expect("found above").dynamic_shared = bytes;
                Ok(())
            }
            // PREFERRED_SHARED_MEMORY_CARVEOUT, a hint.
            (9, _) if (-1..=100).contains(&value) => Ok(()),
            _ => Err(INVALID_VALUE),
        }
    }

    /// Blocks of a function that a multiprocessor has room for.
    pub fn occupancy(&self, id: u64, threads: i32, shared: usize) -> R<i32> {
        let f = self.function(id)?;
        let threads = u32::try_from(threads).ok().filter(|n| (1..=1024).contains(n)).ok_or(INVALID_VALUE)?;
        let Some(shared) = u32::try_from(shared).ok().filter(|n| *n <= f.dynamic_shared) else {
            return Ok(0);
        };
        let limits = self.devices[f.device].spec.limits();
        Ok(occupancy::occupancy(&limits, threads, f.registers, f.static_shared + shared).blocks as i32)
    }

    /// Offset and size of a parameter of a function.
    pub fn parameter(&self, id: u64, index: usize) -> R<(usize, usize)> {
        let (mut at, mut found) = (0usize, Err(INVALID_VALUE));
        for (i, (_, kind)) in self.function(id)?.kernel.params().iter().enumerate() {
            let bytes = match kind {
                ptx::ParamKind::Pointer => 8,
                ptx::ParamKind::Int32 | ptx::ParamKind::Float32 => 4,
                ptx::ParamKind::Bytes(n) => *n as usize,
            };
            at = at.next_multiple_of(bytes.clamp(1, 8));
            if i == index {
                found = Ok((at, bytes));
            }
            at += bytes;
        }
        found
    }
}
