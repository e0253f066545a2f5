//! Loads, stores and atomics, and the memory they may access.

use super::case::Case;

#[test]
fn out_of_bounds_names_thread_buffer_and_line() {
    let case = Case::new("mov.u32 %r9, 1;\n.loc 1 77 1\nst.global.u32 [%rd4+4], %r9;");
    case.fails(&[
        "kernel k (the test)",
        "block (0, 0, 0), thread (31, 0, 0)",
        "test.cu:77",
        "writes 4 bytes out of bounds",
        "byte 128 of `the output` (argument out), which has 128 bytes",
    ]);
    Case::new("ld.global.u32 %r9, [%rd5+-8];")
        .inp(0..32)
        .fails(&["thread (0, 0, 0)", "byte -8 of `the input`"]);
    Case::new("ld.global.u32 %r9, [%rd5];").fails(&["null pointer", "`inp`"]);
    Case::new("ld.shared.u32 %r9, [%rd3];").fails(&["out of bounds, at byte 0 of shared memory"]);
}

#[test]
fn misaligned_and_unwritten() {
    Case::new("ld.global.u32 %r9, [%rd5+2];")
        .inp(0..64)
        .fails(&["reads 4 bytes misaligned", "byte 2 of `the input`"]);
    Case::new("ld.global.v2.u32 {%r8, %r9}, [%rd5];").inp(0..64).fails(&["misaligned", "thread (1, 0, 0)"]);
    Case::new("ld.global.u32 %r9, [%rd4];")
        .fails(&["reads 4 bytes that nothing has written", "byte 0 of `the output`"]);
    // One lane alone leaves its word out.
    Case::new("setp.ne.s32 %p1, %r2, 7;\n@%p1 st.global.u32 [%rd4], %r2;\nld.global.u32 %r9, [%rd4];")
        .fails(&["thread (7, 0, 0)", "nothing has written", "byte 28"]);
    Case::with(
        ".shared .align 4 .b8 s[128];",
        "mov.u64 %rd6, s;\nadd.s64 %rd7, %rd6, %rd3;\nld.shared.u32 %r9, [%rd7];",
    )
    .fails(&["shared memory that nothing has written"]);
}

#[test]
fn lanes_that_write_different_values_to_one_place() {
    Case::new("st.global.u32 [%rd1], %r2;").fails(&["lanes 0 and 1 write different values"]);
    assert_eq!(Case::new("st.global.u32 [%rd1], %r1;").n(9).ok()[0], 9);
}

#[test]
fn vectors_halves_and_bytes() {
    let body = "mul.wide.u32 %rd6, %r2, 16;\nadd.s64 %rd7, %rd2, %rd6;\nadd.s64 %rd8, %rd1, %rd6;\n\
                ld.global.v4.u32 {%r3, %r4, %r5, %r6}, [%rd7];\nst.global.v4.u32 [%rd8], {%r6, %r5, %r4, %r3};\n\
                ld.global.v2.u64 {%rd9, %rd10}, [%rd8];\nmov.b64 {%r7, %r8}, %rd9;\nmov.b64 %rd9, {%r8, %r7};\n\
                st.global.u64 [%rd8], %rd9;\nld.global.u16 %rs1, [%rd7];\nld.global.s8 %rs2, [%rd7+1];\n\
                add.s16 %rs3, %rs1, %rs2;\nst.global.u16 [%rd8+12], %rs3;\nst.global.u8 [%rd8+15], %rs1;";
    let mut case = Case::new(body).inp((0..128).map(|i| i * 0x0101 + 0xff80));
    case.out = 128;
    let out = case.ok();
    for t in 0..32usize {
        let word = |k: usize| (4 * t + k) as u32 * 0x0101 + 0xff80;
        let x = word(0);
        let half = (x as u16).wrapping_add((x >> 8) as u8 as i8 as i16 as u16);
        let last = x & 0x00ff_0000 | u32::from(half) | (x & 0xff) << 24;
        assert_eq!(out[4 * t..4 * t + 4], [word(2), word(3), word(1), last], "thread {t}");
    }
}

#[test]
fn local_memory_and_module_variables() {
    let top = ".const .align 4 .b8 table[16] = {10, 0, 0, 0, 20, 0, 0, 0, 30, 0, 0, 0, 40, 0, 0, 0};\n\
               .global .align 4 .u32 counter;";
    let body = ".local .align 8 .b8 depot[32];\nmov.u64 %rd6, depot;\ncvta.local.u64 %rd7, %rd6;\n\
                and.b32 %r3, %r2, 3;\nmul.wide.u32 %rd8, %r3, 4;\nadd.s64 %rd9, %rd6, %rd8;\nst.local.u32 [%rd9], %r2;\n\
                add.s64 %rd10, %rd7, %rd8;\nld.u32 %r4, [%rd10];\nmov.u64 %rd11, table;\nadd.s64 %rd12, %rd11, %rd8;\n\
                ld.const.u32 %r5, [%rd12];\nadd.s32 %r9, %r4, %r5;\nst.global.u32 [%rd4], %r9;\n\
                atom.global.add.u32 %r6, [counter], 1;";
    let out = Case::with(top, body).ok();
    assert!((0..32).all(|i| out[i] == i as u32 + 10 * (i as u32 % 4 + 1)));
    Case::with(top, &body.replace("ld.u32 %r4, [%rd10]", "ld.u32 %r4, [%rd10+16]"))
        .fails(&["local memory that nothing has written"]);
    Case::with(top, &body.replace("ld.const", "ld.global").replace("[%rd12]", "[%rd12+16]"))
        .fails(&["`table`", "out of bounds"]);
}

#[test]
fn atomics() {
    let body = "mov.u32 %r3, 0;\nsetp.ne.s32 %p1, %r2, 0;\nmov.u64 %rd6, s;\n@!%p1 st.shared.u32 [%rd6], %r3;\nbar.sync 0;\n\
                atom.shared.add.u32 %r4, [%rd6], 2;\nbar.sync 0;\nld.shared.u32 %r9, [%rd6];\nst.global.u32 [%rd4], %r9;";
    assert!(Case::with(".shared .align 4 .b8 s[4];", body).block(64).ok().iter().all(|v| *v == 128));
    Case::with(".shared .align 4 .b8 s[4];", &body.replacen("bar.sync 0;\n", "", 1))
        .block(64)
        .fails(&["shared"]);
}

#[test]
fn registers_that_nothing_has_written() {
    let case = Case::new(".loc 1 33 1\nadd.f32 %f3, %f1, %f2;");
    case.fails(&["thread (0, 0, 0)", "register %f1", "nothing has written", "test.cu:33"]);
    // Written by some lanes only; those alone read it, or all do.
    let body = |use_it: &str| {
        format!("setp.lt.s32 %p1, %r2, 4;\n@%p1 mov.u32 %r5, 3;\n{use_it}\nst.global.u32 [%rd4], %r2;")
    };
    Case::new(&body("@%p1 add.s32 %r6, %r5, 1;")).ok();
    Case::new(&body("selp.b32 %r6, %r5, 7, %p1;")).ok();
    Case::new(&body("add.s32 %r6, %r5, 1;")).fails(&["thread (4, 0, 0)", "register %r5"]);
    Case::new(&body("@%p2 add.s32 %r6, %r2, 1;")).fails(&["register %p2"]);
}
