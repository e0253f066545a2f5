//! `ugatit doctor`

use std::io::{self, Write};

use clap::Args;
use serde_json::{Value as Json, json};
use ugatit::device::cuda;
use ugatit::doctor::{self, GpuReport, OpenedGpu, Report, SelfCheck};
use ugatit::{Error, Result, format, kernels};

use super::args::DeviceArgs;
use super::end::End;
use super::words;

/// Say whether training can run on this machine, and what to do where it cannot
///
/// Looks at the driver and every GPU, loads all kernels, and repeats recorded runs of the official implementation that are
/// part of this program; without a GPU on the emulator, which is then what there is. Takes some ten seconds for each.
///
/// Exits with 0 if training can run there, and with 1 if not.
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    device: DeviceArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &DoctorArgs) -> Result<(), End> {
    let device = args.device.choice().map_err(End::Input)?;
    let report = doctor::examine(device);
    let mut out = io::stdout().lock();
    match args.json {
        true => writeln!(out, "{:#}", as_json(&report))?,
        false => out.write_all(as_text(&report).as_bytes())?,
    }
    out.flush()?;
    if report.trains() { Ok(()) } else { Err(End::Partly) }
}

/// A line: what it is of, and what was found.
fn line(of: &str, found: impl std::fmt::Display) -> String {
    format!("{of:<12} {found}\n")
}

/// An error as the command line words it, on lines of its own.
fn failure(of: &str, error: &Error) -> String {
    let error = words::with_advice(error.clone());
    let mut text = line(of, format!("FAIL: {}", error.message()));
    if let Some(hint) = error.hint_text() {
        text += &line("", format!("hint: {hint}"));
    }
    text
}

fn as_text(report: &Report) -> String {
    let mut text = match &report.driver {
        None => String::new(),
        Some(Ok(driver)) => {
            let (major, minor) = driver.version;
            let gpus = match driver.gpus.len() {
                0 => "no GPU".to_owned(),
                1 => "one GPU".to_owned(),
                count => format!("{count} GPUs"),
            };
            line("driver", format!("for CUDA {major}.{minor}, {gpus}"))
        }
        Some(Err(why)) => match report.emulator {
            // Having no GPU is no failure of what was asked for.
            Some(_) => {
                let hint = why.hint_text().map(|hint| line("", format!("hint: {hint}"))).unwrap_or_default();
                line("driver", why.message()) + &hint
            }
            None => failure("driver", why),
        },
    };
    match &report.driver {
        Some(Ok(driver)) if driver.gpus.is_empty() => {
            text += &line("", format!("hint: {}", cuda::NO_GPU_HINT));
        }
        Some(Err(_)) => {
            text += &line(
                "",
                "a GPU needs NVIDIA's driver for CUDA 12.0 or newer; a container is started with --gpus all",
            );
        }
        Some(Ok(_)) | None => {}
    }
    text += &line("kernels", embedded());
    text += &match &report.compiler {
        Ok(compiler) => line("compiler", compiler),
        Err(why) => line("compiler", format!("{}; only 'study --source' needs it", first_line(why))),
    };
    for gpu in &report.gpus {
        text += &gpu_text(gpu);
    }
    if let Some(check) = &report.emulator {
        text += &line(
            "emulator",
            "what there is to train small networks on, some thousand times slower than a GPU",
        );
        text += &check_text(check);
    }
    text + &line("result", verdict(report))
}

fn first_line(error: &Error) -> &str {
    error.message().lines().next().unwrap_or_default()
}

/// The kernels in this program.
fn embedded() -> String {
    let (major, minor) = kernels::NVRTC_VERSION;
    let modules = kernels::modules();
    let (machine, ptx) = architectures();
    format!(
        "{} in {} files, compiled by NVRTC {major}.{minor}: machine code for {}, PTX for {}",
        kernels::all().len(),
        modules.len(),
        machine.join(", "),
        ptx.join(", ")
    )
}

/// The compute capabilities that there is machine code of, and PTX.
fn architectures() -> (Vec<String>, Vec<String>) {
    let Some(first) = kernels::modules().first() else { return Default::default() };
    let machine = first.cubins.iter().map(|cubin| format::capability(cubin.arch)).collect();
    let ptx = first.ptx_75.iter().map(|_| 75).chain([80]).map(format::capability).collect();
    (machine, ptx)
}

fn gpu_text(gpu: &GpuReport) -> String {
    let info = &gpu.info;
    let name = format!("cuda:{}", info.ordinal);
    let mut text = line(
        &name,
        format!(
            "{}, compute capability {}, {} multiprocessors, {} of memory",
            info.name,
            format::capability(info.capability),
            info.target.sms,
            format::bytes(info.memory)
        ),
    );
    match &gpu.opened {
        Err(why) => text += &failure("", why),
        Ok(opened) => text += &opened_text(opened),
    }
    text
}

fn opened_text(opened: &OpenedGpu) -> String {
    let mut text = line("  free", format::bytes(opened.memory.free));
    if opened.refused.is_empty() {
        text += &line("  kernels", format!("all {} load, and their blocks fit", opened.kernels));
    }
    if opened.kernels < kernels::all().len() {
        text += &line("  precision", "f32; tf32 needs compute capability 8.0");
    }
    for (name, why) in &opened.refused {
        text += &failure("  kernels", &why.clone().context(name));
    }
    match &opened.cooperative {
        None => {}
        Some(Ok(blocks)) => {
            let found =
                format!("all variants; the GPU holds the {blocks} blocks of the cooperative one at once");
            text += &line("  norms", found);
        }
        Some(Err(why)) => {
            text += &line("  norms", format!("all variants but cooperative: {}", why.message()))
        }
    }
    opened.check.iter().for_each(|check| text += &check_text(check));
    text
}

fn check_text(check: &Result<SelfCheck>) -> String {
    match check {
        Err(why) => failure("  self-check", why),
        Ok(check) => {
            let mut text = line(
                "  self-check",
                format!(
                    "{}: {} quantities of {} compared with the reference, {:.1} s",
                    if check.passes() { "pass" } else { "FAIL" },
                    check.quantities(),
                    if check.runs.len() == 1 { "a recorded run" } else { "two recorded runs" },
                    check.seconds
                ),
            );
            for run in check.runs.iter().filter(|run| !run.passes()) {
                let failing: Vec<&str> = run.failing().map(|group| group.name.as_str()).collect();
                text += &line("", format!("{}: {} deviate", run.file, failing.join(", ")));
                text +=
                    &line("", "hint: the GPU or its driver computes wrongly; see what 'ugatit verify' says");
            }
            text
        }
    }
}

fn verdict(report: &Report) -> String {
    match (report.first_gpu(), &report.emulator) {
        (Some(gpu), _) => format!("training can run on cuda:{} ({})", gpu.info.ordinal, gpu.info.name),
        (None, Some(_)) if report.trains() => "training can run on the emulator".to_owned(),
        _ => "training can NOT run here as asked for".to_owned(),
    }
}

fn as_json(report: &Report) -> Json {
    let error = |error: &Error| {
        let error = words::with_advice(error.clone());
        json!({ "error": error.message(), "hint": error.hint_text() })
    };
    let check = |check: &Result<SelfCheck>| match check {
        Err(why) => error(why),
        Ok(check) => json!({
            "pass": check.passes(),
            "runs": check.runs.iter().map(|run| json!({ "file": run.file, "pass": run.passes() })).collect::<Vec<_>>(),
            "quantities": check.quantities(),
            "seconds": check.seconds,
        }),
    };
    let driver = report.driver.as_ref().map(|driver| match driver {
        Err(why) => error(why),
        Ok(driver) => json!({ "cuda": [driver.version.0, driver.version.1], "gpus": driver.gpus.len() }),
    });
    let opened = |opened: &OpenedGpu| {
        let refused: Vec<Json> = opened
            .refused
            .iter()
            .map(|(name, why)| json!({ "name": name, "error": why.message(), "hint": why.hint_text() }))
            .collect();
        json!({
            "free": opened.memory.free,
            "kernels": opened.kernels,
            "refused": refused,
            "cooperative_blocks": opened.cooperative.as_ref().map(|blocks| match blocks {
                Ok(blocks) => json!(blocks),
                Err(why) => error(why),
            }),
            "self_check": opened.check.as_ref().map(check),
        })
    };
    let gpu = |gpu: &GpuReport| {
        json!({
            "device": format!("cuda:{}", gpu.info.ordinal),
            "name": gpu.info.name,
            "capability": format::capability(gpu.info.capability),
            "multiprocessors": gpu.info.target.sms,
            "memory": gpu.info.memory,
            "cooperative": gpu.info.cooperative,
            "shared_memory_a_block": gpu.info.target.shared_bytes,
            "opened": match &gpu.opened {
                Ok(found) => opened(found),
                Err(why) => error(why),
            },
            "trains": gpu.trains(),
        })
    };
    let (machine, ptx) = architectures();
    let compiler = match &report.compiler {
        Ok(compiler) => json!({ "found": compiler }),
        Err(why) => error(why),
    };
    json!({
        "trains": report.trains(),
        "driver": driver,
        "kernels": {
            "count": kernels::all().len(),
            "files": kernels::modules().len(),
            "nvrtc": [kernels::NVRTC_VERSION.0, kernels::NVRTC_VERSION.1],
            "machine_code": machine,
            "ptx": ptx,
        },
        "compiler": compiler,
        "gpus": report.gpus.iter().map(gpu).collect::<Vec<_>>(),
        "emulator": report.emulator.as_ref().map(check),
    })
}
