//! Errors by their parts: kind, thread, source line, variable.

use super::case::Case;
use crate::{Error, ErrorKind, Memory, Module};

fn error(case: &Case) -> Error {
    case.run().expect_err("it is broken")
}

#[test]
fn a_fault_gives_its_place_in_parts() {
    let mut case = Case::new("mov.u32 %r9, 1;\n.loc 1 77 1\nst.global.u32 [%rd4+4], %r9;");
    case.grid = 2;
    let e = error(&case);
    assert_eq!(e.kind(), ErrorKind::OutOfBounds);
    assert_eq!((e.kernel(), e.label()), (Some("k"), Some("the test")));
    assert_eq!((e.block(), e.thread(), e.warp()), (Some([0, 0, 0]), Some([31, 0, 0]), Some(0)));
    assert_eq!((e.file(), e.line()), (Some("test.cu"), Some(77)));
    let line = 1 + case.ptx.lines().position(|l| l.starts_with("st.global")).expect("it is there") as u32;
    assert_eq!((e.ptx_line(), e.instruction()), (Some(line), Some("st.global.u32 [%rd4+4], %r9")));
    assert_eq!((e.variable(), e.parameter()), (Some("the output"), Some("out")));
    assert_eq!(
        e.detail(),
        "writes 4 bytes out of bounds, at byte 128 of `the output` (argument out), which has 128 bytes"
    );
    assert_eq!(
        e.message(),
        "kernel k (the test): block (0, 0, 0), thread (31, 0, 0), at test.cu:77: writes 4 bytes out of bounds, at byte \
         128 of `the output` (argument out), which has 128 bytes [st.global.u32 [%rd4+4], %r9]"
    );
}

#[test]
fn faults_have_kinds() {
    let shared = ".shared .align 4 .b8 part[128];";
    let at = "mov.u64 %rd6, part;\nadd.s64 %rd7, %rd6, %rd3;\n";
    for (body, kind, variable) in [
        ("ld.global.u32 %r9, [%rd2];", ErrorKind::NullPointer, None),
        ("ld.global.u32 %r9, [%rd4];", ErrorKind::Uninitialized, Some("the output")),
        ("ld.global.u32 %r9, [%rd1+2];", ErrorKind::Misaligned, Some("the output")),
        ("st.global.u32 [%rd1], %r2;", ErrorKind::Race, None),
        ("ld.shared.u32 %r9, [%rd7];", ErrorKind::Uninitialized, Some("part")),
        ("st.shared.u32 [%rd7+4], %r2;", ErrorKind::OutOfBounds, None),
        ("st.shared.u32 [%rd7], %r2;\nld.shared.u32 %r9, [%rd6];", ErrorKind::Race, Some("part")),
        (
            "setp.lt.s32 %p1, %r2, 5;\n@%p1 bra $E;\nbar.sync 0;\n$E:\nbar.warp.sync -1;",
            ErrorKind::Barrier,
            None,
        ),
        ("trap;", ErrorKind::Trap, None),
        ("bar.sync 0, 33;", ErrorKind::Invalid, None),
    ] {
        let e = error(&Case::with(shared, &format!("{at}{body}")));
        assert_eq!((e.kind(), e.variable()), (kind, variable), "{body}: {e}");
    }
    let mut endless = Case::new("$L:\nbra.uni $L;");
    endless.options.max_instructions = 1000;
    let e = error(&endless);
    assert_eq!((e.kind(), e.thread(), e.warp()), (ErrorKind::EndlessLoop, None, Some(0)));
}

#[test]
fn an_access_before_a_buffer_is_out_of_bounds_where_races_are_checked_for_too() {
    let mut case = Case::new("st.global.u32 [%rd4+-8], %r2;");
    case.options.check_races = true;
    let e = error(&case);
    assert_eq!((e.kind(), e.thread()), (ErrorKind::OutOfBounds, Some([0, 0, 0])));
}

#[test]
fn errors_without_a_launch_have_kinds() {
    let Err(e) = Module::from_ptx(".version 8.8\nwhat is this?") else { panic!("this is no PTX") };
    assert_eq!((e.kind(), e.ptx_line(), e.kernel()), (ErrorKind::Ptx, Some(2), None));
    let module = Module::from_ptx(&Case::new("what.u32 %r1, %r2;").ptx).expect("the form is right");
    let Err(e) = module.kernel("k") else { panic!("there is no such instruction") };
    assert_eq!((e.kind(), e.kernel()), (ErrorKind::Unsupported, Some("k")));
    assert_eq!(e.instruction(), Some("what.u32 %r1, %r2"));
    assert!(e.ptx_line().is_some());
    assert_eq!(module.kernel("other").err().map(|e| e.kind()), Some(ErrorKind::UnknownKernel));
    let memory = Memory::new(64).expect("it is little");
    assert_eq!(memory.upload(60, &[0; 8]).map_err(|e| e.kind()), Err(ErrorKind::HostMemory));
}

#[test]
fn source_files_are_named_from_below_the_root() {
    let mut case = Case::new("st.global.u32 [%rd4+4], %r2;");
    case.ptx = case.ptx.replace("kernels/test.cu", "/home/me/kernels/common/x.cuh");
    assert_eq!(error(&case).file(), Some("/home/me/kernels/common/x.cuh"));
    case.source_root = "kernels/";
    assert_eq!((error(&case).file(), error(&case).line()), (Some("common/x.cuh"), Some(20)));
    case.source_root = "elsewhere/";
    assert_eq!(error(&case).file(), Some("/home/me/kernels/common/x.cuh"));
}
