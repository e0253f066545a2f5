//! Compiles with the NVRTC that the system has, or that lies in `.nvrtc` of the repository.

use std::path::PathBuf;

use nvrtc::source::Headers;
use nvrtc::{Error, Installation, Nvrtc, Source, ptxas};

fn load() -> Nvrtc {
    let repository = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let found = Installation::find((12, 4), &[repository.join(".nvrtc")]).expect("NVRTC is installed");
    let nvrtc = Nvrtc::load(&found).unwrap();
    assert_eq!(nvrtc.version(), found.version(), "the file names tell the version");
    nvrtc
}

const TEXT: &str = r#"
#include "twice.cuh"
extern "C" __global__ void __launch_bounds__(64) twice(float *x) {
    __shared__ float copy[64];
    copy[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = TWICE(copy[63 - threadIdx.x]);
}
"#;

#[test]
fn ptx_machine_code_and_the_report_come_out() {
    let headers = Headers::from([("twice.cuh", "#define TWICE(x) (2 * (x))")]);
    let source = Source { name: "folder/twice.cu", text: TEXT, headers: &headers };
    let compiled = load().compile(&source, &["-arch=sm_80", "-lineinfo", "--ptxas-options=-v"]).unwrap();
    assert!(compiled.ptx.contains(".visible .entry twice("), "{}", compiled.ptx);
    assert!(compiled.ptx.contains("folder/twice.cu"), "line information names the file");
    assert!(compiled.cubin.starts_with(b"\x7fELF"));
    let resources = ptxas::resources(&compiled.log, "twice").unwrap();
    assert!((1..=32).contains(&resources.registers), "{resources:?}");
    assert_eq!((resources.shared, resources.stack, resources.spill_loads), (256, 0, 0));
}

#[test]
fn a_virtual_architecture_gives_no_machine_code() {
    let headers = Headers::from([("twice.cuh", "#define TWICE(x) x")]);
    let source = Source { name: "twice.cu", text: TEXT, headers: &headers };
    let compiled = load().compile(&source, &["-arch=compute_80"]).unwrap();
    assert!(compiled.ptx.contains(".target sm_80") && compiled.cubin.is_empty());
}

#[test]
fn what_is_wrong_is_told_by_kind() {
    let nvrtc = load();
    let compile = |text: &str, option: &str| {
        let source = Source { name: "bad.cu", text, headers: &Headers::new() };
        nvrtc.compile(&source, &[option]).unwrap_err()
    };
    let Error::Compile { log, status } = compile(TEXT, "-arch=sm_80") else {
        panic!("no header, no program")
    };
    assert!(log.contains("bad.cu(2)") && log.contains("twice.cuh"), "{log}");
    assert_eq!(status, "NVRTC_ERROR_COMPILATION");
    assert!(
        matches!(compile("", "-arch=sm_1"), Error::Compile { status, .. } if status != "NVRTC_ERROR_COMPILATION")
    );
    assert_eq!(compile("a\0b", "-arch=sm_80"), Error::Nul);
}

#[test]
fn an_architecture_is_known_or_not() {
    let nvrtc = load();
    assert_eq!(nvrtc.require(&[80, 90]), Ok(()));
    let error = nvrtc.require(&[80, 1]).unwrap_err();
    assert!(error.to_string().ends_with("cannot compile for sm_1"), "{error}");
}
