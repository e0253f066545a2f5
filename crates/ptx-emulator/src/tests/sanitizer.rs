//! Kernels that are broken on purpose, each of which must be found, and beside each a correct twin that
//! must run without an error. All run with the warps in both orders.

use super::case::Case;
use crate::WarpOrder;

/// Instructions with shared memory `s`: `%rd6` is its address, `%rd7` that of the thread's word. The lines
/// of the kernel are those of `.loc`, here `@n ` in front of an instruction; others follow the last one.
fn kernel(top: &str, body: &str) -> Case {
    let mut text = String::from("mov.u64 %rd6, s;\nadd.s64 %rd7, %rd6, %rd3;\n");
    for line in body.lines().map(str::trim) {
        match line.strip_prefix('#').and_then(|l| l.split_once(' ')) {
            Some((n, rest)) => text += &format!(".loc 1 {n} 1\n{rest}\n"),
            None => text += &format!("{line}\n"),
        }
    }
    Case::with(top, &text)
}

const WORDS: &str = ".shared .align 16 .b8 s[1024];";

fn shared(body: &str) -> Case {
    kernel(WORDS, body)
}

/// Must be caught, whatever the order of the warps; the message holds `parts`.
#[track_caller]
fn caught(mut case: Case, parts: &[&str]) {
    for order in [WarpOrder::Forward, WarpOrder::Reverse] {
        case.options.warp_order = order;
        match case.run() {
            Ok(_) => panic!("{order:?}: ran without an error, expected {parts:?}"),
            Err(e) => {
                for part in parts.iter().chain(&["kernel k (the test): block ("]) {
                    assert!(e.message().contains(part), "{order:?}: no `{part}` in: {}", e.message());
                }
            }
        }
    }
}

/// Must run without a word, to the same bits whatever the order of the warps.
#[track_caller]
fn silent(mut case: Case) -> Vec<u32> {
    let [first, second] = [WarpOrder::Forward, WarpOrder::Reverse].map(|order| {
        case.options.warp_order = order;
        case.run().unwrap_or_else(|e| panic!("{order:?}: {e}"))
    });
    assert_eq!(first, second);
    first
}

fn between_blocks(body: &str) -> Case {
    let mut case = Case::new(body);
    (case.grid, case.out, case.options.check_races) = (2, 64, true);
    case
}

// ---------------------------------------------------------------- bounds

#[test]
fn past_the_end_of_a_buffer_into_the_next_one() {
    // The input has 64 words, so the output lies right after it, and is written before it is read.
    let body = |at: &str| format!("st.global.u32 [%rd4], %r2;\n.loc 1 21 1\nld.global.u32 %r9, [{at}];");
    caught(
        Case::new(&body("%rd5+132")).inp(0..64),
        &["thread (31, 0, 0), at test.cu:21", "byte 256 of `the input` (argument inp), which has 256 bytes"],
    );
    silent(Case::new(&body("%rd5+128")).inp(0..64));
    // One byte of sixteen, and one element of four.
    caught(
        Case::new("mul.wide.u32 %rd6, %r2, 16;\nadd.s64 %rd6, %rd2, %rd6;\nld.global.v4.u32 {%r3, %r4, %r5, %r6}, [%rd6];")
            .inp(0..124),
        &["thread (31, 0, 0)", "reads 16 bytes out of bounds", "byte 496 of `the input`"],
    );
    // A pointer far away, and a null pointer plus something.
    caught(
        Case::new("mov.u64 %rd6, 0x200000000000;\nadd.s64 %rd6, %rd2, %rd6;\nld.global.u32 %r9, [%rd6];")
            .inp(0..4),
        &["thread (0, 0, 0)"],
    );
    caught(Case::new("mov.u64 %rd6, 16;\nst.global.u32 [%rd6], %r1;"), &["null pointer", "0x10"]);
}

#[test]
fn only_lanes_that_take_part_are_checked() {
    // All lanes but one hold an address out of bounds.
    let body = |guard: &str| format!("setp.eq.u32 %p1, %r2, 0;\n{guard} st.global.u32 [%rd4+124], %r2;");
    silent(Case::new(&body("@%p1")));
    caught(Case::new(&body("@!%p1")), &["thread (1, 0, 0)", "byte 128 of `the output`"]);
}

#[test]
fn out_of_bounds_of_shared_and_local_memory() {
    caught(
        shared("#31 st.shared.u32 [%rd7+912], %r2;"),
        &["thread (28, 0, 0), at test.cu:31", "at byte 1024 of shared memory, of which the block has 1024"],
    );
    silent(shared("st.shared.u32 [%rd7+896], %r2;"));
    caught(shared("ld.shared.u32 %r9, [%rd7+-20];"), &["thread (0, 0, 0)", "at byte -20 of shared memory"]);
    let local = |offset: u32| {
        Case::new(&format!(
            ".local .align 8 .b8 depot[32];\nmov.u64 %rd6, depot;\nst.local.u32 [%rd6+{offset}], %r2;"
        ))
    };
    silent(local(28));
    caught(local(32), &["at byte 32 of local memory", "32 bytes"]);
}

#[test]
fn constant_memory_is_not_written() {
    let top = ".const .align 4 .b8 table[4] = {1, 0, 0, 0};";
    caught(
        Case::with(top, "mov.u64 %rd6, table;\nst.global.u32 [%rd6], %r1;"),
        &["constant memory", "`table`"],
    );
    caught(Case::with(top, "atom.global.add.u32 %r4, [table], 1;"), &["constant memory", "`table`"]);
    silent(Case::with(top, "ld.const.u32 %r9, [table];\nst.global.u32 [%rd4], %r9;"));
}

// ---------------------------------------------------------------- alignment

#[test]
fn misaligned_accesses() {
    for (access, bytes) in [
        ("ld.global.u16 %rs1, [%rd2+1]", 2),
        ("ld.global.u32 %r9, [%rd2+2]", 4),
        ("ld.global.u64 %rd9, [%rd2+4]", 8),
        ("ld.global.v2.u32 {%r8, %r9}, [%rd2+4]", 8),
        ("ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%rd2+8]", 16),
    ] {
        caught(Case::new(&format!("{access};")).inp(0..64), &[&format!("reads {bytes} bytes misaligned")]);
        let aligned = access.split_once("%rd2+").expect("an offset").0;
        silent(Case::new(&format!("{aligned}%rd2+16];")).inp(0..64));
    }
    caught(
        shared("st.shared.v2.u32 [%rd7], {%r2, %r2};"),
        &["thread (1, 0, 0)", "misaligned, at byte 4 of shared"],
    );
    caught(
        shared("add.s64 %rd9, %rd6, 8;\ncp.async.ca.shared.global [%rd9], [%rd2], 16;").inp(0..64),
        &["misaligned", "shared memory"],
    );
    caught(
        shared("cp.async.ca.shared.global [%rd6], [%rd2+4], 8;").inp(0..64),
        &["misaligned", "byte 4 of `the input`"],
    );
}

// ---------------------------------------------------------------- memory that nothing has written, byte by byte

#[test]
fn one_byte_of_a_word_is_unwritten() {
    let store = |space: &str, at: &str, bytes: &[u32]| -> String {
        bytes.iter().map(|b| format!("st.{space}.u8 [{at}+{b}], %r2;\n")).collect()
    };
    for (space, at, name) in
        [("global", "%rd4", "`the output`"), ("shared", "%rd7", "shared memory that nothing has written")]
    {
        for missing in 0..4u32 {
            let bytes: Vec<u32> = (0..4).filter(|b| *b != missing).collect();
            let body = format!("{}ld.{space}.u32 %r9, [{at}];", store(space, at, &bytes));
            caught(shared(&body), &["thread (0, 0, 0)", "reads 4 bytes", "nothing has written", name]);
        }
        silent(shared(&format!("{}ld.{space}.u32 %r9, [{at}];", store(space, at, &[0, 1, 2, 3]))));
    }
    let local = |bytes: &[u32]| {
        Case::new(&format!(
            ".local .align 8 .b8 depot[8];\nmov.u64 %rd6, depot;\n{}ld.local.u32 %r9, [%rd6];",
            store("local", "%rd6", bytes)
        ))
    };
    silent(local(&[0, 1, 2, 3]));
    caught(local(&[0, 1, 3]), &["local memory that nothing has written"]);
}

#[test]
fn half_of_a_pair_is_unwritten() {
    // Of two 16-bit floats in memory, and of two in a register.
    let memory = |more: &str| {
        format!("mov.u16 %rs1, 1;\nst.global.u16 [%rd4], %rs1;\n{more}\nld.global.u32 %r9, [%rd4];")
    };
    caught(Case::new(&memory("")), &["reads 4 bytes that nothing has written", "byte 0 of `the output`"]);
    silent(Case::new(&memory("st.global.u16 [%rd4+2], %rs1;")));
    let register = |more: &str| format!("mov.u16 %rs1, 1;\n{more}\nmov.b32 %r9, {{%rs1, %rs2}};");
    caught(Case::new(&register("")), &["register %rs2, which nothing has written"]);
    silent(Case::new(&register("mov.u16 %rs2, 1;")));
}

#[test]
fn parts_of_vectors_and_atomics_on_nothing() {
    let body = |last: &str| {
        format!(
            "mov.u32 %r3, 1;\nst.shared.u64 [%rd6], %rd3;\nst.shared.u32 [%rd6+8], %r3;\n{last}\n\
             ld.shared.v4.u32 {{%r4, %r5, %r6, %r7}}, [%rd6];"
        )
    };
    let one = |body: &str| shared(&format!("setp.ne.u32 %p1, %r2, 0;\n@%p1 bra $L_end;\n{body}\n$L_end:"));
    caught(one(&body("")), &["reads 16 bytes of shared memory that nothing has written", "byte 0 of `s`"]);
    silent(one(&body("st.shared.u32 [%rd6+12], %r3;")));
    caught(shared("atom.shared.add.u32 %r4, [%rd6], 1;"), &["updates 4 bytes of shared memory that nothing"]);
    caught(Case::new("atom.global.add.u32 %r4, [%rd1], 1;"), &["updates 4 bytes that nothing has written"]);
    silent(Case::new("atom.global.add.u32 %r4, [%rd2], 1;").inp(0..1));
}

#[test]
fn registers_of_one_branch_only() {
    let body = |other: &str| {
        format!(
            "setp.lt.s32 %p1, %r2, 7;\n@%p1 bra $L_a;\n{other}\nbra.uni $L_b;\n$L_a:\nmov.f32 %f1, 0f3F800000;\n$L_b:\n\
             .loc 1 44 1\nadd.f32 %f2, %f1, %f1;"
        )
    };
    caught(Case::new(&body("")), &["thread (7, 0, 0), at test.cu:44", "register %f1"]);
    silent(Case::new(&body("mov.f32 %f1, 0f00000000;")));
    // An accumulator that the loop makes only where it runs at all.
    let body = |before: &str| {
        format!(
            "{before}mov.u32 %r3, 0;\n$L:\nsetp.ge.s32 %p1, %r3, %r2;\n@%p1 bra $L_end;\nmov.u32 %r5, %r3;\nadd.s32 %r3, %r3, 1;\n\
             bra.uni $L;\n$L_end:\nst.global.u32 [%rd4], %r5;"
        )
    };
    caught(Case::new(&body("")), &["thread (0, 0, 0)", "register %r5"]);
    silent(Case::new(&body("mov.u32 %r5, 0;\n")));
}

// ---------------------------------------------------------------- shared-memory races within a warp

/// Each thread writes its word, then reads that of its neighbour.
fn neighbours(sync: &str, again: &str) -> Case {
    shared(&format!(
        "#50 st.shared.u32 [%rd7], %r2;
         {sync}
         add.s32 %r3, %r2, 1;
         and.b32 %r3, %r3, 31;
         mul.wide.u32 %rd8, %r3, 4;
         add.s64 %rd8, %rd6, %rd8;
         #51 ld.shared.u32 %r9, [%rd8];
         {again}
         st.global.u32 [%rd4], %r9;"
    ))
}

#[test]
fn lanes_of_a_warp_need_a_syncwarp_before_they_read() {
    caught(
        neighbours("", ""),
        &[
            "thread (0, 0, 0), at test.cu:51",
            "race: reads 4 bytes at byte 4, which lane 1 of the same warp wrote with no __syncwarp",
            "byte 4 of `s`, which has 1024",
            "the other access is by warp 0 at test.cu:50",
        ],
    );
    // A shuffle moves registers and orders no memory.
    caught(neighbours("shfl.sync.bfly.b32 %r4, %r2, 1, 31, -1;", ""), &["no __syncwarp"]);
    for sync in ["bar.warp.sync -1;", "bar.sync 0;"] {
        let out = silent(neighbours(sync, ""));
        assert!((0..32).all(|i| out[i] == (i as u32 + 1) % 32));
    }
}

#[test]
fn lanes_of_a_warp_need_a_syncwarp_before_they_write_again() {
    caught(
        neighbours("bar.warp.sync -1;", "#52 st.shared.u32 [%rd7], %r9;"),
        &["at test.cu:52", "race: writes 4 bytes", "lane 31 of the same warp read", "at test.cu:51"],
    );
    silent(neighbours("bar.warp.sync -1;", "bar.warp.sync -1;\nst.shared.u32 [%rd7], %r9;"));
    // What a lane alone reads and writes needs no barrier, wherever it lies.
    silent(shared(
        "mul.wide.u32 %rd8, %r2, 28;
         add.s64 %rd8, %rd6, %rd8;
         st.shared.u32 [%rd8], %r2;
         ld.shared.u32 %r3, [%rd8];
         add.s32 %r3, %r3, 1;
         st.shared.u32 [%rd8], %r3;
         ld.shared.u32 %r9, [%rd8];
         st.global.u32 [%rd4], %r9;",
    ));
}

#[test]
fn two_lanes_write_one_place() {
    // In two instructions, even the same value; in one instruction the same value is defined.
    let two = |sync: &str| {
        shared(&format!(
            "setp.eq.u32 %p1, %r2, 0;
             setp.eq.u32 %p2, %r2, 9;
             mov.u32 %r3, 5;
             #61 @%p1 st.shared.u32 [%rd6], %r3;
             {sync}
             #62 @%p2 st.shared.u32 [%rd6], %r3;"
        ))
    };
    caught(two(""), &["thread (9, 0, 0), at test.cu:62", "lane 0 of the same warp wrote", "at test.cu:61"]);
    silent(two("bar.warp.sync -1;"));
    silent(shared("mov.u32 %r3, 5;\nst.shared.u32 [%rd6], %r3;\nld.shared.u32 %r4, [%rd6];"));
    caught(shared("st.shared.u32 [%rd6], %r2;"), &["lanes 0 and 1 write different values"]);
    // A loop in which one instruction runs for other lanes each time.
    caught(
        shared(
            "mov.u32 %r3, 0;
             $L:
             setp.eq.u32 %p1, %r2, %r3;
             @%p1 st.shared.u32 [%rd6], %r3;
             add.s32 %r3, %r3, 1;
             setp.lt.u32 %p2, %r3, 2;
             @%p2 bra $L;",
        ),
        &["thread (1, 0, 0)", "lane 0 of the same warp wrote"],
    );
}

#[test]
fn sixteen_bytes_overlap_in_four() {
    let within = |sync: &str| {
        shared(&format!(
            "setp.eq.u32 %p1, %r2, 3;
             #71 @%p1 st.shared.v4.u32 [%rd6+16], {{%r2, %r2, %r2, %r2}};
             {sync}
             setp.eq.u32 %p2, %r2, 4;
             #72 @%p2 ld.shared.u32 %r9, [%rd6+28];"
        ))
    };
    caught(
        within(""),
        &["thread (4, 0, 0), at test.cu:72", "lane 3 of the same warp wrote", "at test.cu:71"],
    );
    silent(within("bar.warp.sync -1;"));
    let across = |offset: u32| {
        shared(&format!(
            "setp.eq.u32 %p1, %r2, 3;
             mov.u32 %r3, 1;
             setp.eq.u32 %p2, %r2, 40;
             #73 @%p1 st.shared.v4.u32 [%rd6], {{%r3, %r3, %r3, %r3}};
             #74 @%p2 st.shared.u32 [%rd6+{offset}], %r3;"
        ))
        .block(64)
    };
    caught(across(12), &["race: writes", "another warp wrote", "`s`"]);
    silent(across(16));
}

// ---------------------------------------------------------------- shared-memory races between warps

#[test]
fn warps_race_where_one_is_diverged() {
    let case = |sync: &str| {
        shared(&format!(
            "setp.lt.u32 %p1, %r2, 32;
             st.shared.u32 [%rd7], %r2;
             bar.sync 0;
             @%p1 bra $L_first;
             setp.ge.u32 %p2, %r2, 48;
             @%p2 bra $L_join;
             #81 st.shared.u32 [%rd7+-128], %r2;
             bra.uni $L_join;
             $L_first:
             setp.ne.u32 %p3, %r2, 3;
             @%p3 bra $L_join;
             {sync}
             #82 ld.shared.u32 %r9, [%rd7];
             $L_join:
             bar.sync 0;"
        ))
        .block(64)
    };
    caught(case(""), &["shared-memory race", "byte 12 of `s`", "test.cu:81", "test.cu:82"]);
    // The same where the diverged warp looks at what the other leaves alone.
    silent(case("add.s64 %rd7, %rd6, 72;"));
}

#[test]
fn atomics_against_plain_accesses_of_another_warp() {
    let case = |first: &str, second: &str| {
        shared(&format!(
            "setp.lt.u32 %p1, %r2, 32;
             setp.eq.u32 %p2, %r2, 0;
             setp.eq.u32 %p3, %r2, 32;
             @%p2 st.shared.u32 [%rd6], 0;
             bar.sync 0;
             @%p2 {first}
             @%p3 {second}"
        ))
        .block(64)
    };
    let (add, load, store) =
        ("atom.shared.add.u32 %r4, [%rd6], 1;", "ld.shared.u32 %r5, [%rd6];", "st.shared.u32 [%rd6], %r2;");
    silent(case(add, add));
    silent(case(load, load));
    for (a, b) in [(add, load), (load, add), (add, store), (store, add), (store, load), (store, store)] {
        caught(case(a, b), &["shared-memory race", "byte 0 of `s`"]);
    }
    // An atomic of the same thread does not make a plain write ordered.
    caught(case(&format!("{store}\n@%p2 {add}"), add), &["shared-memory race"]);
}

#[test]
fn named_variables_and_dynamic_memory_are_named() {
    let mut case = kernel(
        ".extern .shared .align 16 .b8 s[];\n.shared .align 16 .b8 _ZZ1kE4tile[16];",
        "mov.u64 %rd8, _ZZ1kE4tile;\n@!%p1 bra $L;\n$L:\nld.shared.u32 %r9, [%rd8+4];",
    );
    case.shared = 256;
    case.ptx = case.ptx.replace("@!%p1 bra $L;\n$L:\n", "");
    caught(case, &["byte 4 of `tile`, which has 16"]);
    let mut case = kernel(".extern .shared .align 16 .b8 s[];", "ld.shared.u32 %r9, [%rd6+8];");
    case.shared = 256;
    caught(case, &["byte 8 of the dynamic shared memory"]);
}

// ---------------------------------------------------------------- races between blocks

#[test]
fn atomics_against_plain_accesses_of_another_block() {
    let case = |first: &str, second: &str| {
        let mut case = between_blocks(&format!(
            "mov.u32 %r3, %ctaid.x;\nsetp.eq.u32 %p1, %r3, 0;\nsetp.eq.u32 %p2, %r2, 0;\n@!%p2 bra $L_end;\n\
             @!%p1 bra $L_b;\n.loc 1 91 1\n{first}\nbra.uni $L_end;\n$L_b:\n.loc 1 92 1\n{second}\n$L_end:"
        ));
        case.inp = vec![7; 32];
        case
    };
    let (add, load, store) =
        ("atom.global.add.u32 %r4, [%rd2], 1;", "ld.global.u32 %r5, [%rd2];", "st.global.u32 [%rd2], %r2;");
    silent(case(add, add));
    silent(case(load, load));
    for (a, b) in [(add, load), (load, add), (add, store), (store, add), (store, load), (store, store)] {
        caught(
            case(a, b),
            &[
                "block (1, 0, 0), thread (0, 0, 0), at test.cu:92",
                "block (0, 0, 0)",
                "test.cu:91",
                "`the input`",
            ],
        );
    }
    caught(case(&format!("{store}\n{add}"), add), &["race between blocks"]);
    caught(case(add, &format!("{add}\n{load}")), &["more than one other block"]);
}

#[test]
fn bytes_and_vectors_of_two_blocks() {
    // Neighbouring bytes are no race; a vector that reaches into another block's word is.
    let bytes = |stride: u32| {
        between_blocks(&format!(
            "mov.u32 %r3, %ctaid.x;\nmad.lo.u32 %r4, %r3, {stride}, %r2;\ncvt.u64.u32 %rd6, %r4;\nadd.s64 %rd6, %rd1, %rd6;\n\
             st.global.u8 [%rd6], %r2;"
        ))
    };
    silent(bytes(32));
    caught(bytes(31), &["race between blocks: writes 1 bytes at byte 31 of `the output`"]);
    let vector = |offset: u32| {
        between_blocks(&format!(
            "mov.u32 %r3, %ctaid.x;\nsetp.eq.u32 %p1, %r3, 0;\nsetp.ne.u32 %p2, %r2, 0;\n@%p2 bra $L_end;\n@%p1 bra $L_a;\n\
             st.global.u32 [%rd1+{offset}], %r2;\nbra.uni $L_end;\n$L_a:\nst.global.v4.u32 [%rd1], {{%r2, %r2, %r2, %r2}};\n$L_end:"
        ))
    };
    silent(vector(16));
    caught(vector(12), &["race between blocks", "byte 12 of `the output`"]);
}

#[test]
fn asynchronous_copies_of_what_another_block_writes() {
    let case = |offset: u32| {
        let mut case = kernel(
            WORDS,
            &format!(
                "mov.u32 %r3, %ctaid.x;
                 setp.eq.u32 %p1, %r3, 0;
                 setp.ne.u32 %p2, %r2, 0;
                 @%p2 bra $L_end;
                 @%p1 bra $L_a;
                 cp.async.cg.shared.global [%rd6], [%rd2], 16;
                 cp.async.wait_all;
                 bra.uni $L_end;
                 $L_a:
                 st.global.u32 [%rd2+{offset}], %r2;
                 $L_end:"
            ),
        );
        (case.grid, case.inp, case.options.check_races) = (2, vec![1; 32], true);
        case
    };
    silent(case(16));
    caught(case(8), &["race between blocks: reads 16 bytes", "`the input`"]);
}

// ---------------------------------------------------------------- barriers and deadlocks

#[test]
fn named_barriers_for_the_wrong_number_of_threads() {
    let case = |counts: [u32; 2]| {
        Case::new(&format!(
            "setp.lt.u32 %p1, %r2, 32;\nselp.u32 %r3, {}, {}, %p1;\n.loc 1 95 1\nbar.sync 1, %r3;",
            counts[0], counts[1]
        ))
        .block(64)
    };
    silent(case([64, 64]));
    silent(case([32, 32]).block(32));
    caught(
        case([32, 32]),
        &["more threads come to a barrier than it is for", "barrier 1 for 32 threads (test.cu:95)"],
    );
    caught(case([64, 96]), &["for different numbers of threads", "for 96 threads"]);
    caught(case([96, 96]), &["the block can never go on", "barrier 1 for 96 threads"]);
}

#[test]
fn one_warp_waits_once_more_than_the_other() {
    let case = |rounds: u32| {
        Case::new(&format!(
            "shr.u32 %r3, %r2, 5;\nmul.lo.u32 %r3, %r3, {rounds};\nadd.u32 %r3, %r3, 1;\n$L:\n.loc 1 96 1\nbar.sync 0;\n\
             sub.u32 %r3, %r3, 1;\nsetp.gt.u32 %p1, %r3, 0;\n@%p1 bra $L;\n.loc 1 97 1\nbar.sync 1;"
        ))
        .block(64)
    };
    silent(case(0));
    caught(
        case(1),
        &[
            "can never go on",
            "warp 0 waits at barrier 1 (test.cu:97)",
            "warp 1 waits at barrier 0 (test.cu:96)",
        ],
    );
    // Threads that ended are not waited for.
    silent(Case::new("setp.lt.u32 %p1, %r2, 40;\n@%p1 ret;\nbar.sync 0;").block(64));
}

#[test]
fn lanes_at_two_barriers() {
    let case = |second: &str| {
        Case::new(&format!(
            "setp.lt.u32 %p1, %r2, 9;\n@%p1 bra $L_a;\n.loc 1 98 1\nbar.sync 0;\nbra.uni $L_b;\n$L_a:\n.loc 1 99 1\n{second}\n$L_b:\n\
             bar.warp.sync -1;"
        ))
    };
    caught(
        case("bar.sync 0;"),
        &["barrier that not all threads of the warp reach", "test.cu:98", "test.cu:99"],
    );
    caught(case(""), &["barrier that not all threads of the warp reach"]);
}

#[test]
fn a_flag_that_nobody_sets() {
    let mut case =
        Case::new("$L:\nld.volatile.global.u32 %r3, [%rd2];\nsetp.eq.u32 %p1, %r3, %r1;\n@%p1 bra $L;")
            .inp([7]);
    case.options.max_instructions = 10_000;
    silent(case.n(8));
    let mut case = Case::new(
        "$L:\n.loc 1 88 1\nld.volatile.global.u32 %r3, [%rd2];\nsetp.eq.u32 %p1, %r3, %r1;\n@%p1 bra $L;",
    )
    .inp([7]);
    case.options.max_instructions = 10_000;
    caught(case.n(7), &["loop without end", "test.cu:88"]);
}

#[test]
fn shuffles_with_lanes_that_are_away() {
    let case = |lane: u32, members: &str| {
        Case::new(&format!(
            "setp.ge.u32 %p1, %r2, 16;\n@%p1 bra $L_end;\n.loc 1 89 1\nshfl.sync.idx.b32 %r9, %r2, {lane}, 31, {members};\n\
             st.global.u32 [%rd4], %r9;\n$L_end:\nbar.warp.sync -1;"
        ))
    };
    let out = silent(case(5, "0xffff"));
    assert!(out[..16].iter().all(|v| *v == 5));
    caught(case(20, "0xffff"), &["test.cu:89", "shuffle from lane 20, which does not take part"]);
    caught(case(5, "-1"), &["warp-wide instruction that not all lanes it names reach", "test.cu:89"]);
    // A lane that the mask leaves out.
    caught(case(5, "0xff00"), &["test.cu:89"]);
}

#[test]
fn an_mbarrier_of_too_many_arrivals_or_none() {
    let case = |count: u32, init: &str| {
        kernel(
            ".shared .align 8 .b8 s[8];",
            &format!(
                "setp.eq.u32 %p1, %r2, 0;\n{init}\nbar.sync 0;\nmbarrier.arrive.shared::cta.b64 %rd9, [%rd6];"
            )
            .replace("COUNT", &count.to_string()),
        )
    };
    let init = "@%p1 mbarrier.init.shared::cta.b64 [%rd6], COUNT;";
    silent(case(32, init));
    caught(case(32, ""), &["shared memory that nothing has written"]);
    caught(case(32, "@%p1 st.shared.u64 [%rd6], 0;"), &["no mbarrier was initialised"]);
    caught(case(0, init), &["an mbarrier for no arrivals"]);
}

// ---------------------------------------------------------------- asynchronous copies

/// Two copies of 16 bytes a thread in a group each; `wait`, then a read of what the `group`th brought.
fn copies(wait: &str, group: u32) -> Case {
    shared(&format!(
        "mul.wide.u32 %rd8, %r2, 16;
         add.s64 %rd9, %rd2, %rd8;
         add.s64 %rd10, %rd6, %rd8;
         #101 cp.async.cg.shared.global [%rd10], [%rd9], 16;
         cp.async.commit_group;
         #102 cp.async.cg.shared.global [%rd10+512], [%rd9], 16;
         cp.async.commit_group;
         {wait}
         #103 ld.shared.u32 %r9, [%rd10+{}];
         st.global.u32 [%rd4], %r9;",
        512 * group
    ))
    .inp(0..128)
}

#[test]
fn waits_for_the_wrong_group() {
    for (wait, done) in [
        ("", [false, false]),
        ("cp.async.wait_group 2;", [false, false]),
        ("cp.async.wait_group 1;", [true, false]),
        ("cp.async.wait_group 0;", [true, true]),
        ("cp.async.wait_all;", [true, true]),
    ] {
        for (group, done) in done.into_iter().enumerate() {
            let case = copies(wait, group as u32);
            if done {
                let out = silent(case);
                assert!((0..32).all(|i| out[i] == 4 * i as u32));
            } else {
                let line = ["test.cu:101", "test.cu:102"][group];
                caught(case, &["at test.cu:103", "asynchronous copy is on its way", line, "of `s`"]);
            }
        }
    }
    // A copy in no group is waited for by wait_all alone.
    let mut open = copies("cp.async.wait_group 0;", 1);
    open.ptx = open.ptx.replace("cp.async.commit_group;\ncp.async.wait_group", "cp.async.wait_group");
    caught(open, &["asynchronous copy is on its way", "test.cu:102"]);
    // Copies that nothing reads need no wait.
    let mut unread = copies("", 0);
    unread.ptx = unread.ptx.replace("ld.shared.u32 %r9, [%rd10+0]", "mov.u32 %r9, 0");
    silent(unread);
}

#[test]
fn a_copy_on_its_way_is_overwritten() {
    caught(
        copies("#104 st.shared.u32 [%rd10+4], %r2;\ncp.async.wait_all;", 0),
        &["at test.cu:104", "writes 4 bytes", "asynchronous copy is on its way", "test.cu:101"],
    );
    silent(copies("cp.async.wait_all;\nst.shared.u32 [%rd10+4], %r2;", 0));
    caught(
        copies("#104 cp.async.cg.shared.global [%rd10], [%rd9], 16;\ncp.async.wait_all;", 0),
        &["at test.cu:104", "asynchronous copy is on its way"],
    );
}

#[test]
fn a_copy_is_seen_by_who_waited_and_after_a_barrier_by_others() {
    // Each reads what its neighbour copied: in the warp, and in the other warp.
    let case = |other: u32, sync: &str| {
        shared(&format!(
            "add.s64 %rd9, %rd2, %rd3;
             #105 cp.async.ca.shared.global [%rd7], [%rd9], 4;
             #106 cp.async.wait_all;
             {sync}
             xor.b32 %r3, %r2, {other};
             mul.wide.u32 %rd8, %r3, 4;
             add.s64 %rd8, %rd6, %rd8;
             #107 ld.shared.u32 %r9, [%rd8];
             st.global.u32 [%rd4], %r9;"
        ))
        .inp(0..64)
        .block(64)
    };
    silent(case(0, ""));
    caught(case(1, ""), &["at test.cu:107", "no __syncwarp", "test.cu:106"]);
    silent(case(1, "bar.warp.sync -1;"));
    caught(case(32, "bar.warp.sync -1;"), &["at test.cu:107", "shared memory"]);
    let out = silent(case(32, "bar.sync 0;"));
    assert!((0..64).all(|i| out[i] == i as u32 ^ 32));
}
