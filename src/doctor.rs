//! Whether training can run on this machine: the driver, its GPUs, the kernels in this program, and a check that
//! repeats recorded runs of the reference, which are compiled in. Facts only; `ugatit doctor` words them.

use std::time::{Duration, Instant};

use crate::bench::adalin::build::Part;
use crate::bench::adalin::case::{Case, Kind};
use crate::device::cuda::{Cuda, DriverInfo, GpuInfo};
use crate::device::emulator::{Emulator, Options};
use crate::device::executable::DeviceHandle;
use crate::device::select::{self, Choice};
use crate::device::{Device, Launch, MemoryInfo};
use crate::study::compile;
use crate::tape::NormVariant;
use crate::tensor::{DType, Shape};
use crate::verify::{self, FileReport, Golden};
use crate::{Error, Result, kernels};

/// The recorded runs that are quickest: ten iterations in which the learning rate falls to 0, and five from the official
/// initial weights.
const RECORDED: [(&str, &[u8]); 2] = [
    (
        "train_decay_s24_c4_r1_b1.safetensors",
        include_bytes!("../tests/golden/train_decay_s24_c4_r1_b1.safetensors"),
    ),
    (
        "train_light_s32_c4_r2_b1.safetensors",
        include_bytes!("../tests/golden/train_light_s32_c4_r2_b1.safetensors"),
    ),
];

/// No further run is begun after this time; a run takes two seconds on the emulator.
const ENOUGH: Duration = Duration::from_secs(5);

/// Everything that was found.
#[derive(Debug)]
pub struct Report {
    /// What the driver says, or why it has not what was asked for; None where that was no GPU.
    pub driver: Option<Result<DriverInfo>>,
    /// The NVRTC that would compile a user's kernel, in words. Training needs none.
    pub compiler: Result<String>,
    /// The GPUs that were looked at.
    pub gpus: Vec<GpuReport>,
    /// What repeating the recorded runs on the emulator came to; None where a GPU was asked for, or is there.
    pub emulator: Option<Result<SelfCheck>>,
}

/// What was found of one GPU.
#[derive(Debug)]
pub struct GpuReport {
    /// What the driver says of it.
    pub info: GpuInfo,
    /// What was found after it opened.
    pub opened: Result<OpenedGpu>,
}

/// What was found of a GPU that opened.
#[derive(Debug)]
pub struct OpenedGpu {
    /// Its memory.
    pub memory: MemoryInfo,
    /// Kernels that are for such a GPU: old ones have none of those on tensor cores.
    pub kernels: usize,
    /// Files of kernels that do not load, and kernels whose blocks do not fit: name and why.
    pub refused: Vec<(String, Error)>,
    /// How many blocks that wait for each other the cooperative norm has, all of which the GPU holds at once, or why it
    /// does not; None where kernels were refused.
    pub cooperative: Option<Result<u64>>,
    /// What repeating the recorded runs came to; None where kernels were refused.
    pub check: Option<Result<SelfCheck>>,
}

/// What repeating the recorded runs came to.
#[derive(Debug)]
pub struct SelfCheck {
    /// One for each run that there was time for.
    pub runs: Vec<FileReport>,
    /// Wall-clock time of all.
    pub seconds: f64,
}

impl SelfCheck {
    /// Whether everything that was compared is within its tolerance.
    pub fn passes(&self) -> bool {
        !self.runs.is_empty() && self.runs.iter().all(FileReport::passes)
    }

    /// Numbers and tensors that were compared.
    pub fn quantities(&self) -> usize {
        self.runs.iter().flat_map(|run| &run.groups).map(|group| group.checks.len()).sum()
    }
}

impl OpenedGpu {
    fn trains(&self) -> bool {
        self.refused.is_empty() && passes(self.check.as_ref())
    }
}

impl GpuReport {
    /// Whether training can run on it.
    pub fn trains(&self) -> bool {
        self.opened.as_ref().is_ok_and(OpenedGpu::trains)
    }
}

impl Report {
    /// The GPU that training takes where none is named: the first on which it can run.
    pub fn first_gpu(&self) -> Option<&GpuReport> {
        self.gpus.iter().find(|gpu| gpu.trains())
    }

    /// Whether training can run on what was looked at, all that is there or what was asked for.
    pub fn trains(&self) -> bool {
        self.first_gpu().is_some() || passes(self.emulator.as_ref())
    }
}

fn passes(check: Option<&Result<SelfCheck>>) -> bool {
    check.is_some_and(|check| check.as_ref().is_ok_and(SelfCheck::passes))
}

/// Looks at what was asked for: with [`Choice::Auto`] at all GPUs, and at the emulator where there are none.
pub fn examine(choice: Choice) -> Report {
    let driver = (choice != Choice::Emulator).then(|| survey(choice).map_err(select::no_gpu));
    let all = match &driver {
        Some(Ok(driver)) => driver.gpus.clone(),
        _ => Vec::new(),
    };
    let asked = |gpu: &GpuInfo| match choice {
        Choice::Cuda(Some(ordinal)) => gpu.ordinal == ordinal,
        _ => true,
    };
    let gpus: Vec<GpuReport> = all.into_iter().filter(asked).map(examine_gpu).collect();
    let emulated = match choice {
        Choice::Emulator => true,
        // A driver that fails is something to mend, not a machine without a GPU.
        Choice::Auto => gpus.is_empty() && Cuda::device_count() == Ok(0),
        Choice::Cuda(_) => false,
    };
    let emulator = emulated.then(|| self_check(&DeviceHandle::new(Emulator::new(Options::default()))));
    Report { driver, compiler: compile::compiler(), gpus, emulator }
}

/// What the driver says.
///
/// # Errors
/// When it says nothing, or has not the GPU that was asked for.
fn survey(choice: Choice) -> Result<DriverInfo> {
    let driver = Cuda::survey()?;
    match choice {
        Choice::Cuda(ordinal) if ordinal.unwrap_or(0) >= driver.gpus.len() => {
            Cuda::open(ordinal.unwrap_or(0)).map(|_| driver)
        }
        _ => Ok(driver),
    }
}

fn examine_gpu(info: GpuInfo) -> GpuReport {
    let opened = Cuda::open(info.ordinal).and_then(open);
    GpuReport { info, opened }
}

fn open(mut gpu: Cuda) -> Result<OpenedGpu> {
    let memory = gpu.memory()?;
    let mut refused = Vec::new();
    let capability = gpu.info().capability;
    for module in kernels::modules().iter().filter(|module| module.needs <= capability) {
        if let Err(why) = gpu.load_module(module) {
            refused.push((format!("kernels/{}", module.file), why));
            continue;
        }
        for kernel in kernels::all().iter().filter(|kernel| std::ptr::eq(kernel.module, module)) {
            if let Err(why) = gpu.check_kernel(kernel) {
                refused.push((kernel.name.to_owned(), why));
            }
        }
    }
    let kernels = kernels::all().iter().filter(|k| k.module.needs <= capability).count();
    if !refused.is_empty() {
        return Ok(OpenedGpu { memory, kernels, refused, cooperative: None, check: None });
    }
    let cooperative = Some(cooperative_blocks(&mut gpu));
    let check = Some(self_check(&DeviceHandle::new(gpu)));
    Ok(OpenedGpu { memory, kernels, refused, cooperative, check })
}

/// The blocks of the largest cooperative launch of a norm, planned for the GPU, of an image a multiprocessor.
///
/// # Errors
/// When the GPU does not hold them at once.
fn cooperative_blocks(gpu: &mut Cuda) -> Result<u64> {
    let target = gpu.target();
    let shape = Shape::new(1, target.sms as usize, 8, 8, 64);
    let case = Case::new(Kind::AdaLin, NormVariant::Cooperative, DType::F32, shape);
    let program = Case { target, ..case }.build()?.program(Part::Both, 1, 1);
    gpu.check_launches(&program)?;
    let cooperative = program.launches.iter().filter(|launch| launch.cooperative);
    Ok(cooperative.map(Launch::blocks).max().unwrap_or(0))
}

/// Repeats the recorded runs on a device.
fn self_check(device: &DeviceHandle) -> Result<SelfCheck> {
    let start = Instant::now();
    let mut runs = Vec::new();
    for (name, bytes) in RECORDED {
        if start.elapsed() < ENOUGH {
            runs.push(verify::verify(&Golden::parse(name, bytes.to_vec())?, device)?);
        }
    }
    Ok(SelfCheck { runs, seconds: start.elapsed().as_secs_f64() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Target;

    fn gpu(opened: Result<OpenedGpu>) -> GpuReport {
        let info = GpuInfo {
            ordinal: 0,
            name: "GPU".to_owned(),
            capability: 80,
            target: Target::default(),
            memory: 1 << 30,
            cooperative: true,
        };
        GpuReport { info, opened }
    }

    fn opened(refused: Vec<(String, Error)>, check: Option<Result<SelfCheck>>) -> Result<OpenedGpu> {
        Ok(OpenedGpu {
            memory: MemoryInfo { free: 1, total: 2 },
            kernels: 1,
            refused,
            cooperative: None,
            check,
        })
    }

    #[test]
    fn nothing_trains_without_a_check_that_passes() {
        let none = || Some(Ok(SelfCheck { runs: Vec::new(), seconds: 0.0 }));
        assert!(!gpu(opened(Vec::new(), None)).trains());
        assert!(!gpu(opened(Vec::new(), none())).trains(), "a check that compared nothing");
        assert!(!gpu(opened(Vec::new(), Some(Err(Error::new("lost"))))).trains());
        assert!(!gpu(Err(Error::new("busy"))).trains());
        let emulator = Some(Err(Error::new("broken")));
        let report = Report { driver: None, compiler: Ok(String::new()), gpus: Vec::new(), emulator };
        assert!(!report.trains());
    }

    #[test]
    fn the_recorded_runs_pass_on_the_emulator() {
        let report = examine(Choice::Emulator);
        let check = report.emulator.as_ref().expect("asked for").as_ref().expect("runs");
        assert!(report.trains() && check.passes() && check.quantities() > 100);
        assert!(report.driver.is_none() && report.gpus.is_empty());
    }
}
