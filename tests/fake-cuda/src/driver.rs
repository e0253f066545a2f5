//! The driver as a whole: its devices and their primary contexts, whose handles are whose, what must be true before a
//! function does anything, and complaints.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::ffi::c_int;
use std::process;
use std::sync::{LazyLock, Mutex, PoisonError};

use ptx_emulator::{Emulator, Options};

use crate::config::{Config, Spec};
use crate::error::{
    CONTEXT_IS_DESTROYED, Code, INVALID_CONTEXT, INVALID_DEVICE, INVALID_HANDLE, NOT_INITIALIZED, R,
    is_sticky,
};
use crate::graph::Graph;
use crate::memory::{Allocation, Pinned};
use crate::module::{Function, Module};
use crate::stream::{Event, Stream};

/// What must hold before a function's body runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// Nothing.
    Nothing,
    /// `cuInit` was called.
    Init,
    /// A context is current, alive and without a fault.
    Context,
    /// The same, and no capture is going on that forbids the function to this thread.
    Uncaptured,
}

/// A device and its primary context.
pub struct Device {
    pub spec: Spec,
    /// How often the context was retained and not released.
    references: u32,
    /// The error that every further call in the context returns; 0 for none.
    pub fault: Code,
    /// Bytes of its memory in use.
    pub used: u64,
    pub emulator: Option<Emulator>,
}

/// Everything.
pub struct Driver {
    pub config: Config,
    pub initialised: bool,
    pub devices: Vec<Device>,
    last_handle: u64,
    pub next_address: u64,
    /// By address.
    pub memory: BTreeMap<u64, Allocation>,
    /// Address and length of what was freed; no address is given out again.
    pub freed: BTreeMap<u64, u64>,
    /// By address.
    pub pinned: BTreeMap<usize, Pinned>,
    pub streams: HashMap<u64, Stream>,
    pub events: HashMap<u64, Event>,
    pub modules: HashMap<u64, Module>,
    pub functions: HashMap<u64, Function>,
    pub graphs: HashMap<u64, Graph>,
    /// Instantiated graphs.
    pub executables: HashMap<u64, Graph>,
    calls: HashMap<&'static str, u64>,
}

/// The handle of device 0's context; those of the others follow in steps of [`STEP`].
const CONTEXTS: u64 = 0x1000;
/// Distance of handles.
const STEP: u64 = 16;

thread_local! {
    /// The handle of the thread's current context.
    static CURRENT: Cell<u64> = const { Cell::new(0) };
}

static DRIVER: LazyLock<Mutex<Driver>> = LazyLock::new(|| {
    // SAFETY: the function is this library's, and glibc calls it before the library is closed.
    unsafe { atexit(at_exit) };
    Mutex::new(Driver::new(Config::from_env()))
});

unsafe extern "C" {
    fn atexit(function: extern "C" fn()) -> c_int;
}

/// A context that was never released holds a whole GPU's memory in a longer-lived process.
extern "C" fn at_exit() {
    let driver = DRIVER.lock().unwrap_or_else(PoisonError::into_inner);
    for (ordinal, device) in driver.devices.iter().enumerate() {
        if device.references > 0 && device.fault == 0 {
            let count = device.references;
            driver.complain(&format!(
                "the process ends with {count} references to the context of device {ordinal}"
            ));
        }
    }
}

/// The handle of the calling thread's context.
pub fn current() -> u64 {
    CURRENT.get()
}

/// Runs a function's body, where what must hold before does.
pub fn call(name: &'static str, before: Before, body: impl FnOnce(&mut Driver) -> R) -> Code {
    let mut driver = DRIVER.lock().unwrap_or_else(PoisonError::into_inner);
    let code = driver.allowed(name, before).and_then(|()| body(&mut driver)).err().unwrap_or(0);
    if driver.config.trace {
        eprintln!("fake-cuda: {name} -> {code}");
    }
    code
}

impl Driver {
    fn new(config: Config) -> Self {
        let device =
            |spec: &Spec| Device { spec: spec.clone(), references: 0, fault: 0, used: 0, emulator: None };
        Self {
            devices: config.devices.iter().map(device).collect(),
            config,
            initialised: false,
            last_handle: 0x10_0000,
            next_address: 0x7f10_0000_0000,
            memory: BTreeMap::new(),
            freed: BTreeMap::new(),
            pinned: BTreeMap::new(),
            streams: HashMap::new(),
            events: HashMap::new(),
            modules: HashMap::new(),
            functions: HashMap::new(),
            graphs: HashMap::new(),
            executables: HashMap::new(),
            calls: HashMap::new(),
        }
    }

    fn allowed(&mut self, name: &'static str, before: Before) -> R {
        let in_context = matches!(before, Before::Context | Before::Uncaptured);
        let count = self.calls.entry(name).or_default();
        *count += 1;
        let count = *count;
        let injected = self
            .config
            .failures
            .iter()
            .find(|f| (f.function == name || f.function == "*") && (f.call == count || f.call == 0));
        if let Some(code) = injected.map(|f| f.code) {
            if in_context
                && is_sticky(code)
                && let Ok(device) = self.here()
            {
                self.lose(device, code);
            }
            return Err(code);
        }
        if before != Before::Nothing && !self.initialised {
            return Err(NOT_INITIALIZED);
        }
        if in_context {
            let device = self.here()?;
            match self.devices[device].fault {
                0 => {}
                code => return Err(code),
            }
        }
        if before == Before::Uncaptured { self.invalidate_captures() } else { Ok(()) }
    }

    /// Reports what a real driver takes without a word, or crashes of, and what is wrong nevertheless.
    pub fn complain(&self, what: &str) {
        eprintln!("fake-cuda: COMPLAINT: {what}");
        if self.config.abort {
            process::abort();
        }
    }

    /// A handle that nothing else has or had.
    pub fn new_handle(&mut self) -> u64 {
        self.last_handle += STEP;
        self.last_handle
    }

    /// The device of the current context.
    pub fn here(&self) -> R<usize> {
        let handle = current();
        if handle == 0 {
            return Err(INVALID_CONTEXT);
        }
        let device = ((handle - CONTEXTS) / STEP) as usize;
        if self.devices[device].references == 0 { Err(CONTEXT_IS_DESTROYED) } else { Ok(device) }
    }

    /// An object of that device may be used in the current context only if it is of it.
    pub fn belongs(&self, device: usize, what: &str) -> R {
        let here = self.here()?;
        if here == device {
            return Ok(());
        }
        self.complain(&format!("{what} of device {device} is used in the context of device {here}"));
        Err(INVALID_HANDLE)
    }

    /// The device of that number.
    pub fn device(&self, ordinal: c_int) -> R<&Device> {
        usize::try_from(ordinal).ok().and_then(|i| self.devices.get(i)).ok_or(INVALID_DEVICE)
    }

    /// The context of a device is of no use any more.
    pub fn lose(&mut self, device: usize, code: Code) {
        self.devices[device].fault = code;
        for stream in self.streams.values_mut().filter(|s| s.device == device) {
            stream.queue.clear();
        }
    }

    /// Retains a device's primary context; returns its handle.
    pub fn retain(&mut self, ordinal: c_int) -> R<u64> {
        self.device(ordinal)?;
        let device = &mut self.devices[ordinal as usize];
        device.references += 1;
        // A launch whose blocks wait for each other, but are not all resident, is found in seconds.
        let options = Options { max_instructions: 50_000_000, ..Options::default() };
        device.emulator.get_or_insert_with(|| Emulator::new(options));
        Ok(CONTEXTS + STEP * ordinal as u64)
    }

    /// Releases it; with its last reference goes everything in it, a fault too.
    pub fn release(&mut self, ordinal: c_int) -> R {
        self.device(ordinal)?;
        let here = ordinal as usize;
        let device = &mut self.devices[here];
        device.references = device.references.checked_sub(1).ok_or(INVALID_CONTEXT)?;
        if device.references > 0 {
            return Ok(());
        }
        let faulty = device.fault != 0;
        (device.fault, device.used, device.emulator) = (0, 0, None);
        let mut left = Vec::new();
        /// Takes away what is the device's, and notes how much it was.
        macro_rules! take {
            ($($field:ident: $what:literal),*) => {$(
                let before = self.$field.len();
                self.$field.retain(|_, x| x.device != here);
                if before > self.$field.len() {
                    left.push(format!("{} {}", before - self.$field.len(), $what));
                }
            )*};
        }
        take!(memory: "allocations", streams: "streams", events: "events", modules: "modules",
            graphs: "graphs", executables: "executable graphs");
        self.functions.retain(|_, x| x.device != here);
        let pinned: Vec<usize> =
            self.pinned.iter().filter(|(_, p)| p.device == here).map(|(&at, _)| at).collect();
        if !pinned.is_empty() {
            left.push(format!("{} pinned buffers", pinned.len()));
        }
        for at in pinned {
            self.pinned.remove(&at).expect("listed").free(at);
        }
        if !left.is_empty() && !faulty {
            self.complain(&format!(
                "the context of device {here} goes, and there are left: {}",
                left.join(", ")
            ));
        }
        Ok(())
    }

    /// Makes a context the calling thread's; 0 for none.
    pub fn set_current(&mut self, handle: u64) -> R {
        if handle != 0 {
            let device = self.devices.get((handle.wrapping_sub(CONTEXTS) / STEP) as usize);
            if device.is_none_or(|d| d.references == 0) {
                self.complain(&format!(
                    "{handle:#x} is made current, which is no context, or one that was released"
                ));
                return Err(INVALID_CONTEXT);
            }
        }
        CURRENT.set(handle);
        Ok(())
    }
}
