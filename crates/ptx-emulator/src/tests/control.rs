//! Branches, loops, calls and scopes.

use super::case::Case;

#[test]
fn saxpy_over_blocks_that_do_not_divide() {
    let body = "mov.u32 %r3, %ctaid.x;\nmov.u32 %r4, %ntid.x;\nmad.lo.s32 %r5, %r3, %r4, %r2;\n\
                setp.ge.s32 %p1, %r5, %r1;\n@%p1 bra $L_end;\nmul.wide.s32 %rd6, %r5, 4;\nadd.s64 %rd7, %rd2, %rd6;\n\
                add.s64 %rd8, %rd1, %rd6;\nld.global.nc.f32 %f1, [%rd7];\nmov.f32 %f2, 0f40000000;\n\
                fma.rn.f32 %f3, %f1, %f2, 0f3F800000;\nst.global.f32 [%rd8], %f3;\n$L_end:";
    let mut case = Case::new(body).block(64).n(150).floats((0..150).map(|i| i as f32));
    case.grid = 3;
    case.out = 150;
    for threads in [1, 2] {
        case.options.threads = threads;
        let out = case.floats_out();
        assert!(out.iter().enumerate().all(|(i, v)| *v == 2.0 * i as f32 + 1.0));
    }
}

#[test]
fn lanes_diverge_and_reconverge() {
    // Each lane loops as often as its number; odd lanes take another path in the loop.
    let body = "mov.u32 %r4, 0;\nmov.u32 %r5, 0;\n$L_loop:\nsetp.ge.s32 %p1, %r4, %r2;\n@%p1 bra $L_done;\n\
                and.b32 %r6, %r4, 1;\nsetp.eq.s32 %p2, %r6, 0;\n@%p2 bra $L_even;\nadd.s32 %r5, %r5, 100;\n\
                bra.uni $L_next;\n$L_even:\nadd.s32 %r5, %r5, 1;\n$L_next:\nadd.s32 %r4, %r4, 1;\nbra.uni $L_loop;\n\
                $L_done:\nactivemask.b32 %r7;\npopc.b32 %r7, %r7;\nmad.lo.s32 %r9, %r7, 10000, %r5;\n\
                st.global.u32 [%rd4], %r9;";
    let out = Case::new(body).ok();
    for (i, v) in out.iter().enumerate() {
        let i = i as u32;
        assert_eq!(*v, 320_000 + i / 2 * 100 + i.div_ceil(2), "lane {i}");
    }
}

#[test]
fn a_switch_by_table() {
    let body = "mov.u32 %r9, 5;\nsetp.gt.u32 %p1, %r2, 2;\n@%p1 bra $L_end;\n\
                $L_tab: .branchtargets $L_0, $L_1, $L_2;\nbrx.idx %r2, $L_tab;\n$L_0:\nmov.u32 %r9, 10;\nbra.uni $L_end;\n\
                $L_1:\nmov.u32 %r9, 11;\nbra.uni $L_end;\n$L_2:\nmov.u32 %r9, 12;\n$L_end:\nst.global.u32 [%rd4], %r9;";
    let out = Case::new(body).ok();
    assert_eq!(out[..5], [10, 11, 12, 5, 5]);
}

#[test]
fn calls_are_inlined() {
    let top = ".func (.param .b32 func_retval0) twice(\n.param .b32 twice_param_0\n)\n{\n.reg .b32 %r<4>;\n\
               .reg .pred %p<2>;\nld.param.u32 %r1, [twice_param_0];\nsetp.lt.s32 %p1, %r1, 10;\n@%p1 bra $L_small;\n\
               st.param.b32 [func_retval0+0], 99;\nret;\n$L_small:\nadd.s32 %r2, %r1, %r1;\n\
               st.param.b32 [func_retval0+0], %r2;\nret;\n}";
    let body = "{\n.param .b32 param0;\nst.param.b32 [param0+0], %r2;\n.param .b32 retval0;\n\
                call.uni (retval0), twice, (param0);\nld.param.b32 %r9, [retval0+0];\n}\nst.global.u32 [%rd4], %r9;";
    let out = Case::with(top, body).ok();
    assert!((0..32).all(|i| out[i] == if i < 10 { 2 * i as u32 } else { 99 }));
    // What was inlined also names the line of its call.
    let mut case = Case::with(top, body);
    case.options.count = true;
    let (_, counters) = case.run_counted().expect("it is correct");
    let line_of =
        |text: &str| 1 + case.ptx.lines().position(|l| l.starts_with(text)).expect("it is there") as u32;
    let found =
        counters.instructions.iter().find(|i| i.text.starts_with("add.s32 %r2")).expect("it is there");
    assert_eq!((found.ptx_line, found.kernel_line), (line_of("add.s32 %r2"), line_of("call.uni")));
    let after =
        counters.instructions.iter().find(|i| i.text.starts_with("ld.param.b32 %r9")).expect("it is there");
    assert_eq!(after.kernel_line, after.ptx_line);
}

#[test]
fn scopes_of_inline_assembly() {
    // One name in two scopes: each has its own register and label.
    let piece = "{\n.reg .pred p;\n.reg .b32 t;\nsetp.lt.s32 p, %r2, 16;\nmov.u32 t, 1;\n@p bra SKIP;\nmov.u32 t, 2;\nSKIP:\n\
                 add.s32 %r9, %r9, t;\n}";
    let out = Case::new(&format!("mov.u32 %r9, 0;\n{piece}\n{piece}\nst.global.u32 [%rd4], %r9;")).ok();
    assert!((0..32).all(|i| out[i] == if i < 16 { 2 } else { 4 }));
}

#[test]
fn a_loop_without_end() {
    let mut case = Case::new("$L:\nadd.s32 %r3, %r2, 1;\nbra.uni $L;");
    case.options.max_instructions = 10_000;
    case.fails(&["loop without end", "test.cu:20"]);
}

#[test]
fn unknown_instructions_are_load_errors() {
    let error = Case::new("fancy.rn.f32 %f1, %f2;").run().expect_err("it is not known");
    for part in ["test.cu", "kernel k", "PTX line", "fancy.rn.f32 %f1, %f2"] {
        assert!(error.message().contains(part), "no `{part}` in: {}", error.message());
    }
    for bad in [
        "add.rn.sat.strange.f32 %f1, %f2, %f3;",
        "add.f32 %f1, %r2, %f3, %f4;",
        "add.f32 %f1, %rd1, %f3;",
        "bra $L_nowhere;",
        "mov.u32 %r3, %nowhere;",
    ] {
        assert!(Case::new(bad).run().is_err(), "{bad}");
    }
}
