//! What the environment says of the driver and its devices.

use std::env;
use std::fmt::Display;
use std::process;
use std::str::FromStr;

use ugatit::model::occupancy::{self, Limits};

use crate::error::Code;

/// How the driver behaves.
pub struct Config {
    /// The CUDA version it supports, as `cuDriverGetVersion` counts.
    pub driver: i32,
    /// Work on a stream is done when something waits for it, and not before.
    pub late: bool,
    /// A complaint ends the process.
    pub abort: bool,
    /// Every call is noted.
    pub trace: bool,
    pub failures: Vec<Failure>,
    pub devices: Vec<Spec>,
}

/// A call that fails without having done anything.
pub struct Failure {
    /// The function; `*` for each.
    pub function: String,
    /// Which call of it, from 1; 0 for each.
    pub call: u64,
    pub code: Code,
}

/// What a device is.
#[derive(Clone)]
pub struct Spec {
    pub name: String,
    /// Compute capability times ten.
    pub capability: u32,
    pub multiprocessors: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// Whether it takes cooperative launches.
    pub cooperative: bool,
}

impl Spec {
    /// What one of its multiprocessors has.
    pub fn limits(&self) -> Limits {
        occupancy::limits_of(self.capability)
    }

    /// A device attribute, by the number that the driver's interface gives it.
    pub fn attribute(&self, which: u32) -> Option<i32> {
        let limits = self.limits();
        let value = match which {
            // MAX_THREADS_PER_BLOCK, MAX_BLOCK_DIM_X, _Y, _Z.
            1..=3 => 1024,
            4 => 64,
            // MAX_GRID_DIM_X, _Y, _Z.
            5 => i32::MAX as u32,
            6 | 7 => 65_535,
            // MAX_SHARED_MEMORY_PER_BLOCK, WARP_SIZE, MAX_REGISTERS_PER_BLOCK, MULTIPROCESSOR_COUNT.
            8 => 48 << 10,
            10 => 32,
            12 => 65_536,
            16 => self.multiprocessors,
            // L2_CACHE_SIZE, MAX_THREADS_PER_MULTIPROCESSOR.
            38 => 40 << 20,
            39 => limits.warps * 32,
            // COMPUTE_CAPABILITY_MAJOR, _MINOR.
            75 => self.capability / 10,
            76 => self.capability % 10,
            // MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, MAX_REGISTERS_PER_MULTIPROCESSOR.
            81 => limits.shared,
            82 => 65_536,
            // COOPERATIVE_LAUNCH, MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, MAX_BLOCKS_PER_MULTIPROCESSOR.
            95 => u32::from(self.cooperative),
            97 => limits.shared_a_block,
            106 => limits.blocks,
            // MEMORY_POOLS_SUPPORTED.
            115 => 1,
            _ => return None,
        };
        Some(value as i32)
    }
}

/// Ends the process: a test that asks for something else than it means proves nothing.
fn refuse(name: &str, text: &str, wanted: &str) -> ! {
    eprintln!("fake-cuda: {name}={text} is not {wanted}");
    process::abort();
}

fn text(name: &str) -> Option<String> {
    let text = env::var_os(name)?.into_string().ok()?;
    (!text.is_empty()).then_some(text)
}

fn number<T: FromStr + Display>(name: &str, default: T) -> T {
    let Some(text) = text(name) else { return default };
    text.parse().unwrap_or_else(|_| refuse(name, &text, &format!("a number such as {default}")))
}

/// The first of two words, which is the default, or the second.
fn word(name: &str, [first, second]: [&str; 2]) -> bool {
    match text(name) {
        None => true,
        Some(text) if text == first => true,
        Some(text) if text == second => false,
        Some(text) => refuse(name, &text, &format!("{first} or {second}")),
    }
}

impl Config {
    /// As the environment says.
    pub fn from_env() -> Self {
        let list = |name: &str, default: &str| -> Vec<String> {
            let text = text(name).unwrap_or_else(|| default.to_owned());
            text.split(',').map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned).collect()
        };
        let spec = |capability: &String| {
            let bad =
                || -> ! { refuse("FAKE_CUDA_CAPABILITY", capability, "none, or a list such as 8.0,9.0") };
            let (major, minor) = capability.split_once('.').unwrap_or_else(|| bad());
            let digit = |text: &str| text.parse::<u32>().unwrap_or_else(|_| bad());
            Spec {
                name: format!("Fake GPU {capability}"),
                capability: digit(major) * 10 + digit(minor),
                multiprocessors: number("FAKE_CUDA_SMS", 132),
                memory: number("FAKE_CUDA_MEMORY_MIB", 8192u64) << 20,
                cooperative: number("FAKE_CUDA_COOPERATIVE", 1) != 0,
            }
        };
        let failure = |text: &String| {
            let bad = || refuse("FAKE_CUDA_FAIL", text, "a list such as cuMemAlloc_v2:2:700");
            let parts: Vec<&str> = text.split(':').collect();
            let [function, call, code] = parts[..] else { bad() };
            Failure {
                function: function.to_owned(),
                call: call.parse().unwrap_or_else(|_| bad()),
                code: code.parse().unwrap_or_else(|_| bad()),
            }
        };
        Self {
            driver: number("FAKE_CUDA_DRIVER", 12_090),
            late: word("FAKE_CUDA_SCHEDULE", ["late", "eager"]),
            abort: word("FAKE_CUDA_COMPLAINTS", ["abort", "warn"]),
            trace: number("FAKE_CUDA_TRACE", 0) != 0,
            failures: list("FAKE_CUDA_FAIL", "").iter().map(failure).collect(),
            devices: list("FAKE_CUDA_CAPABILITY", "9.0").iter().filter(|c| *c != "none").map(spec).collect(),
        }
    }
}
