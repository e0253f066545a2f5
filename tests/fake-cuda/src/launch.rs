//! Launches: what a device refuses of them, and how they are run.

use std::ffi::c_void;
use std::sync::Arc;

use ptx::ParamKind;
use ptx_emulator::{Arg, Buffer, ErrorKind, Kernel, Memory};
use ugatit::model::occupancy;

use crate::driver::Driver;
use crate::error::{
    COOPERATIVE_LAUNCH_TOO_LARGE, ILLEGAL_ADDRESS, INVALID_VALUE, LAUNCH_FAILED, LAUNCH_OUT_OF_RESOURCES,
    MISALIGNED_ADDRESS, NOT_SUPPORTED, R,
};
use crate::stream::Op;

/// Grid and block of a launch.
pub struct Shape {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    pub cooperative: bool,
}

/// A launch that a device takes.
pub struct Launch {
    /// The function's handle.
    pub function: u64,
    pub kernel: Kernel,
    shape: Shape,
    /// Kind and bits of each argument.
    args: Vec<(ParamKind, u64)>,
}

impl Launch {
    /// The pointers among its arguments that are not null.
    pub fn pointers(&self) -> impl Iterator<Item = u64> + '_ {
        self.args
            .iter()
            .filter(|(kind, bits)| *kind == ParamKind::Pointer && *bits != 0)
            .map(|(_, bits)| *bits)
    }
}

impl Driver {
    /// Puts a launch on a stream.
    ///
    /// # Safety
    /// `args` points at as many pointers as the kernel has parameters, each to the bytes of one.
    pub unsafe fn launch(
        &mut self,
        function: u64,
        shape: Shape,
        stream: u64,
        args: *const *const c_void,
    ) -> R {
        self.check_shape(function, &shape)?;
        let kernel = self.function(function)?.kernel.clone();
        let mut values = Vec::new();
        for (i, (_, kind)) in kernel.params().iter().enumerate() {
            let bytes = match kind {
                ParamKind::Pointer => 8,
                ParamKind::Int32 | ParamKind::Float32 => 4,
                ParamKind::Bytes(_) => return Err(NOT_SUPPORTED),
            };
            if args.is_null() {
                return Err(INVALID_VALUE);
            }
            // SAFETY: the caller's.
            let at = unsafe { args.add(i).read() };
            if at.is_null() {
                return Err(INVALID_VALUE);
            }
            let mut bits = [0; 8];
            // SAFETY: the caller's.
            unsafe { bits.as_mut_ptr().copy_from_nonoverlapping(at.cast(), bytes) };
            values.push((*kind, u64::from_le_bytes(bits)));
        }
        let launch = Launch { function, kernel, shape, args: values };
        self.check_pointers(&launch);
        self.enqueue(stream, Op::Launch(Arc::new(launch)))
    }

    /// Refuses what the device has no room for.
    fn check_shape(&self, function: u64, shape: &Shape) -> R {
        let f = self.function(function)?;
        let spec = &self.devices[f.device].spec;
        let [gx, gy, gz] = shape.grid;
        let [bx, by, bz] = shape.block;
        let blocks = u64::from(gx) * u64::from(gy) * u64::from(gz);
        if blocks == 0 || gx > i32::MAX as u32 || gy > 65_535 || gz > 65_535 {
            return Err(INVALID_VALUE);
        }
        if bx == 0 || by == 0 || bz == 0 || bx > 1024 || by > 1024 || bz > 64 {
            return Err(INVALID_VALUE);
        }
        let threads = bx * by * bz;
        if threads > f.kernel.max_threads().min(1024) || shape.shared > f.dynamic_shared {
            return Err(INVALID_VALUE);
        }
        let shared = f.static_shared + shape.shared;
        let resident = occupancy::occupancy(&spec.limits(), threads, f.registers, shared).blocks;
        if resident == 0 {
            return Err(LAUNCH_OUT_OF_RESOURCES);
        }
        if shape.cooperative && !spec.cooperative {
            return Err(NOT_SUPPORTED);
        }
        if shape.cooperative && blocks > u64::from(resident) * u64::from(spec.multiprocessors) {
            return Err(COOPERATIVE_LAUNCH_TOO_LARGE);
        }
        Ok(())
    }

    /// Complains of pointers to nowhere. A device only notices when a kernel follows one.
    pub fn check_pointers(&self, launch: &Launch) {
        for address in launch.pointers() {
            match self.find(address) {
                None => self.complain(&format!(
                    "an argument of {} is {address:#x}: {}",
                    launch.kernel.name(),
                    self.what_is(address)
                )),
                Some((allocation, _)) => _ = self.belongs(allocation.device, "memory"),
            }
        }
    }

    /// Runs a launch on the emulator.
    pub fn run(&self, device: usize, launch: &Launch) -> R {
        let nothing = Memory::new(0).expect("no memory at all");
        let names: Vec<String> =
            launch.args.iter().map(|(_, bits)| format!("device memory at {bits:#x}")).collect();
        let args: Vec<Arg> = launch
            .args
            .iter()
            .zip(&names)
            .map(|(&(kind, bits), name)| match kind {
                ParamKind::Pointer if bits == 0 => Arg::Null,
                // Up to the end of the allocation: a device knows no smaller bounds.
                ParamKind::Pointer => Arg::Buffer(match self.find(bits) {
                    Some((a, offset)) => Buffer { memory: &a.memory, offset, bytes: a.bytes - offset, name },
                    None => Buffer::whole(&nothing, name),
                }),
                ParamKind::Float32 => Arg::F32(f32::from_bits(bits as u32)),
                ParamKind::Int32 | ParamKind::Bytes(_) => Arg::U32(bits as u32),
            })
            .collect();
        let shape = &launch.shape;
        let emulated = ptx_emulator::Launch {
            shared_bytes: shape.shared,
            cooperative: shape.cooperative,
            ..ptx_emulator::Launch::new(shape.grid, shape.block, &args)
        };
        let emulator = self.devices[device].emulator.as_ref().expect("its context was retained");
        let Err(error) = emulator.launch(&launch.kernel, &emulated) else { return Ok(()) };
        eprintln!("fake-cuda: {error}");
        Err(match error.kind() {
            ErrorKind::OutOfBounds | ErrorKind::NullPointer | ErrorKind::ReadOnly => ILLEGAL_ADDRESS,
            ErrorKind::Misaligned => MISALIGNED_ADDRESS,
            _ => LAUNCH_FAILED,
        })
    }
}
