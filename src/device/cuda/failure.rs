//! What the driver's codes mean to people: words, hints, and the kind of failure.

use std::fmt;

use super::code::Code;
use super::ffi;
use crate::{Error, ErrorKind};

/// Set to `1`, it makes every run go launch by launch, without a graph, waiting for each, so that an error names the
/// launch that failed.
pub const SYNC_VARIABLE: &str = "UGATIT_CUDA_SYNC";

/// What to do about a toolkit's stand-in for the driver's library.
pub(super) const STUB_HINT: &str =
    "LD_LIBRARY_PATH names a toolkit's folder of stubs, whose libcuda.so is for linking only: take it out";

/// What an unknown error means where nothing worked before.
const NOTHING_STARTS_HINT: &str = "the kernel module nvidia_uvm is not loaded, or a container was started without the GPU; \
                                   nvidia-smi and dmesg say more";

/// What to do where the driver sees no GPU.
pub const NO_GPU_HINT: &str = "nvidia-smi lists what there is; CUDA_VISIBLE_DEVICES may hide GPUs, this user may lack the right to open \
                                      /dev/nvidia*, and a container needs --gpus all";

/// What a code is to a caller, and what can be done.
fn meaning(code: Code) -> (ErrorKind, Option<String>) {
    let hint = match code.0 {
        2 => {
            let hint = "nvidia-smi lists what else uses the GPU's memory";
            return (ErrorKind::GpuMemory, Some(hint.to_owned()));
        }
        34 => STUB_HINT,
        46 => "another process may have the GPU to itself: nvidia-smi lists it, and shows the compute mode",
        200 | 209 | 218 | 222 => {
            "the driver is older than the NVRTC the kernels were compiled with: update the driver, or build with an older NVRTC"
        }
        214 => {
            let hint = "its memory has an error that it cannot correct: 'nvidia-smi -q -d ECC' counts them, and 'nvidia-smi --gpu-reset' \
                        or a restart takes the memory out of use";
            return (ErrorKind::GpuLost { resumable: false }, Some(hint.to_owned()));
        }
        221 => {
            "the driver's compiler, libnvidia-ptxjitcompiler.so.1, is not installed: it is part of the driver"
        }
        223 => "CUDA_DISABLE_PTX_JIT keeps the driver from compiling: unset it",
        304 | 800 => {
            "this user may lack the right to open /dev/nvidia*, which 'ls -l /dev/nvidia*' shows, or a container keeps them from it"
        }
        802 | 919 => {
            "GPUs that are joined by NVSwitch need the service nvidia-fabricmanager, in the driver's version"
        }
        803 => "the driver's library and its kernel module differ: restart the machine",
        804 => {
            "LD_LIBRARY_PATH names a cuda-compat folder, whose library does not support this GPU: take it out"
        }
        805..=810 => "the server of MPS, nvidia-cuda-mps-control, does not answer or is full",
        700 | 702 | 710 | 714..=719 => {
            let hint = format!("{SYNC_VARIABLE}=1 names the launch");
            return (ErrorKind::GpuFault { resumable: false }, Some(hint));
        }
        220 | 226 | 721 | 999 => {
            let hint =
                "the GPU is lost to this process: nvidia-smi and the kernel's log (dmesg, Xid) say why";
            return (ErrorKind::GpuLost { resumable: false }, Some(hint.to_owned()));
        }
        _ => return (ErrorKind::Other, None),
    };
    (ErrorKind::Other, Some(hint.to_owned()))
}

/// Makes an error out of the driver's code: what was being done, the code's name, the driver's words, and what can be
/// done.
pub(super) fn failed(doing: impl fmt::Display) -> impl Fn(Code) -> Error {
    let doing = doing.to_string();
    move |code| describe(&doing, code)
}

/// As [`failed`], of what makes a graph: there is a way without one.
pub(super) fn capture_failed(doing: impl fmt::Display) -> impl Fn(Code) -> Error {
    let doing = doing.to_string();
    move |code| describe(&doing, code).and_hint(format!("{SYNC_VARIABLE}=1 runs without a graph"))
}

/// As [`failed`], of what starts the driver or opens a GPU. Where nothing worked before, an unknown error has other
/// reasons.
pub(super) fn failed_to_start(doing: impl fmt::Display) -> impl Fn(Code) -> Error {
    let doing = doing.to_string();
    move |code| match code {
        Code::UNKNOWN => describe_plainly(&doing, code).hint(NOTHING_STARTS_HINT),
        _ => describe(&doing, code),
    }
}

/// The error of a code, with what can be done.
pub(super) fn describe(doing: impl fmt::Display, code: Code) -> Error {
    let (kind, hint) = meaning(code);
    let error = describe_plainly(doing, code).of_kind(kind);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// What was being done, the name of the code and the driver's words.
pub(super) fn describe_plainly(doing: impl fmt::Display, code: Code) -> Error {
    let words = ffi::functions().ok().and_then(|driver| driver.words(code));
    Error::new(message(doing, code, words))
}

fn message(doing: impl fmt::Display, code: Code, words: Option<(String, String)>) -> String {
    let name = match words {
        Some((name, text)) if text.is_empty() => name,
        Some((name, text)) => format!("{name} ({text})"),
        None => format!("error {}, for which the driver has no name", code.0),
    };
    match code {
        Code::OUT_OF_MEMORY => format!("out of memory while {doing}: {name}"),
        _ => format!("{doing}: {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_without_a_name_is_a_number() {
        let words = |name: &str, text: &str| Some((name.to_owned(), text.to_owned()));
        let text = |code, words| message("starting", Code(code), words);
        assert_eq!(text(4242, None), "starting: error 4242, for which the driver has no name");
        assert_eq!(text(1, words("CUDA_ERROR_INVALID_VALUE", "")), "starting: CUDA_ERROR_INVALID_VALUE");
        assert_eq!(
            text(2, words("CUDA_ERROR_OUT_OF_MEMORY", "out of memory")),
            "out of memory while starting: CUDA_ERROR_OUT_OF_MEMORY (out of memory)"
        );
    }

    #[test]
    fn faults_of_kernels_lost_gpus_and_short_memory_are_told_apart() {
        let kind = |code| meaning(Code(code)).0;
        assert_eq!(kind(2), ErrorKind::GpuMemory);
        for code in [700, 714, 716, 719] {
            assert_eq!(kind(code), ErrorKind::GpuFault { resumable: false }, "{code}");
        }
        for code in [214, 999] {
            assert_eq!(kind(code), ErrorKind::GpuLost { resumable: false }, "{code}");
        }
        for code in [1, 100, 701, 720, 802, 919, 4242] {
            assert_eq!(kind(code), ErrorKind::Other, "{code}");
        }
    }

    #[test]
    fn what_starts_the_driver_and_makes_graphs_has_hints_of_its_own() {
        let hint = |error: Error| error.hint_text().unwrap_or_default().to_owned();
        assert!(hint(failed_to_start("starting")(Code(999))).contains("nvidia_uvm"));
        assert!(hint(failed_to_start("starting")(Code(802))).contains("nvidia-fabricmanager"));
        assert!(hint(failed("running")(Code(999))).contains("Xid"));
        assert_eq!(hint(capture_failed("capturing")(Code(1))), "UGATIT_CUDA_SYNC=1 runs without a graph");
        let both = hint(capture_failed("capturing")(Code(2)));
        assert!(
            both.starts_with("nvidia-smi ") && both.ends_with("; UGATIT_CUDA_SYNC=1 runs without a graph")
        );
    }
}
