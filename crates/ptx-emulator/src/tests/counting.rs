//! Counters against kernels whose counts are worked out by hand.

use super::case::Case;
use crate::{Class, Counters};

fn counted(body: &str, inp: usize) -> (crate::LaunchCounters, String) {
    let mut case = Case::with(".shared .align 16 .b8 s[8192];", body).inp(0..inp as u32);
    case.out = 32;
    case.options.count = true;
    let counters = case.run_counted().expect("it is correct").1;
    (counters, case.ptx)
}

/// The counts of the instruction whose text starts so.
fn of(counters: &crate::LaunchCounters, text: &str) -> Counters {
    let found: Vec<_> = counters.instructions.iter().filter(|i| i.text.starts_with(text)).collect();
    assert_eq!(found.len(), 1, "{text}");
    found[0].counters
}

#[test]
fn global_accesses_by_their_sectors_and_lines() {
    let loads = [
        // instruction, offset of each lane, lanes, bytes of a lane, sectors, lines
        ("ld.global.u32 %r4", 4, 32, 4, 4, 1),
        ("ld.global.u32 %r4", 0, 32, 4, 1, 1),
        ("ld.global.u32 %r4", 64, 32, 4, 32, 16),
        ("ld.global.u16 %rs1", 2, 32, 2, 2, 1),
        ("ld.global.u8 %r4", 1, 32, 1, 1, 1),
        ("ld.global.v2.u32 {%r4, %r5}", 8, 32, 8, 8, 2),
        ("ld.global.v4.u32 {%r4, %r5, %r6, %r7}", 16, 32, 16, 16, 4),
        ("ld.global.v4.u32 {%r4, %r5, %r6, %r7}", 48, 32, 16, 32, 12),
        ("@%p1 ld.global.u32 %r4", 4, 9, 4, 2, 1),
        ("@%p1 ld.global.u64 %rd9", 16, 9, 8, 5, 2),
    ];
    for (load, stride, lanes, bytes, sectors, lines) in loads {
        let body = format!(
            "setp.lt.u32 %p1, %r2, 9;\nmul.wide.u32 %rd8, %r2, {stride};\nadd.s64 %rd8, %rd2, %rd8;\n{load}, [%rd8];"
        );
        let c = of(&counted(&body, 512).0, load);
        assert_eq!(
            (c.warp_instructions, c.thread_instructions, c.global_read_bytes, c.read_sectors, c.global_lines),
            (1, lanes, lanes * bytes, sectors, lines),
            "{load} by {stride}"
        );
        assert_eq!((c.global_written_bytes, c.wavefronts, c.flops), (0, 0, 0));
    }
    // A row that begins in the middle of a sector touches one more, and a second line; an atomic reads and writes,
    // but touches its line once.
    let (counters, _) = counted("st.global.u32 [%rd2], %r1;\nld.global.u32 %r4, [%rd5+16];", 64);
    let c = of(&counters, "ld.global.u32 %r4");
    assert_eq!((c.read_sectors, c.global_lines), (5, 2));
    let c = of(&counters, "st.global.u32 [%rd2]");
    assert_eq!((c.written_sectors, c.global_lines), (1, 1));
    let c = of(&counted("atom.global.add.u32 %r4, [%rd2], 1;", 1).0, "atom.global");
    assert_eq!(
        (c.global_read_bytes, c.global_written_bytes, c.read_sectors, c.written_sectors, c.global_lines),
        (128, 128, 1, 1, 1)
    );
}

#[test]
fn shared_accesses_by_their_banks() {
    // Stride in bytes, bytes a lane, passes, of these conflicts.
    for (stride, bytes, passes, conflicts) in [
        (4, 4, 1, 0),
        (8, 4, 2, 1),
        (128, 4, 32, 31),
        (132, 4, 1, 0),
        (0, 4, 1, 0),
        (8, 8, 2, 0),
        (16, 16, 4, 0),
        (32, 16, 8, 4),
        (256, 16, 32, 28),
    ] {
        let ty = ["u32", "v2.u32", "v4.u32"][bytes / 8];
        let regs = ["%r1", "{%r1, %r1}", "{%r1, %r1, %r1, %r1}"][bytes / 8];
        let body = format!(
            "mov.u64 %rd6, s;\nmul.wide.u32 %rd8, %r2, {stride};\nadd.s64 %rd8, %rd6, %rd8;\nst.shared.{ty} [%rd8], {regs};"
        );
        let c = of(&counted(&body, 1).0, "st.shared");
        assert_eq!((c.wavefronts, c.bank_conflicts), (passes, conflicts), "{bytes} bytes by {stride}");
        assert_eq!((c.global_read_bytes, c.global_written_bytes, c.thread_instructions), (0, 0, 32));
    }
}

#[test]
fn work_by_class() {
    let body = "cvt.rn.f32.u32 %f1, %r2;\nfma.rn.f32 %f2, %f1, %f1, %f1;\nadd.f32 %f3, %f2, %f1;\nmul.f32 %f3, %f3, %f1;\n\
                setp.lt.u32 %p1, %r2, 3;\n@%p1 sub.f32 %f3, %f3, %f1;\ndiv.rn.f32 %f4, %f3, 0f40000000;\nsqrt.rn.f32 %f4, %f4;\n\
                ex2.approx.f32 %f5, %f4;\nmax.f32 %f5, %f5, %f4;\ncvt.f64.f32 %fd1, %f5;\nfma.rn.f64 %fd1, %fd1, %fd1, %fd1;\n\
                mov.u32 %r3, 0x3c003c00;\nfma.rn.f16x2 %r3, %r3, %r3, %r3;\nshfl.sync.bfly.b32 %r4, %r2, 1, 31, -1;\n\
                bar.sync 0;\nmov.u32 %r5, 0;\n$L:\nadd.s32 %r5, %r5, 1;\nsetp.lt.u32 %p2, %r5, %r2;\n@%p2 bra $L;";
    let (counters, ptx) = counted(body, 1);
    let class = |class: Class| {
        let c = counters.of_class(class);
        (c.warp_instructions, c.thread_instructions, c.flops)
    };
    // fma, add, mul, sub of 3 lanes, max
    assert_eq!(class(Class::Fp32), (5, 4 * 32 + 3, 32 * (2 + 1 + 1) + 3));
    assert_eq!(class(Class::Fp64), (1, 32, 64));
    assert_eq!(class(Class::Fp16), (1, 32, 128));
    // div and sqrt one each, ex2 none
    assert_eq!(class(Class::Special), (3, 96, 64));
    assert_eq!(class(Class::Convert), (2, 64, 0));
    assert_eq!(class(Class::Warp), (1, 32, 0));
    assert_eq!((class(Class::Barrier), counters.total().barriers), ((1, 32, 0), 1));
    // Lane l goes round max(l, 1) times: 31 rounds, the lanes of a round falling from 32 to 1.
    let rounds: u64 = (0..32u64).map(|l| l.max(1)).sum();
    let (add, jump) = (of(&counters, "add.s32 %r5"), of(&counters, "@%p2 bra"));
    assert_eq!((add.warp_instructions, add.thread_instructions), (31, rounds));
    // Those who jump are counted; in the first round lanes 0 and 1 leave together, in the last the last one.
    assert_eq!(
        (jump.warp_instructions, jump.thread_instructions, jump.divergent_branches),
        (31, rounds - 32, 30)
    );
    let total = counters.total();
    assert_eq!(total.flops, counters.instructions.iter().map(|i| i.counters.flops).sum::<u64>());
    let mut by_class = Counters::default();
    Class::ALL.into_iter().for_each(|c| by_class += counters.of_class(c));
    let mut by_line = Counters::default();
    counters.by_line().iter().for_each(|l| by_line += l.counters);
    assert_eq!((by_class, by_line), (total, total));
    // Every instruction names its line of the PTX.
    let lines: Vec<&str> = ptx.lines().collect();
    for i in &counters.instructions {
        let line = lines[i.ptx_line as usize - 1];
        assert!(i.text == "exit" || line.contains(&i.text), "line {}: {line}, not {}", i.ptx_line, i.text);
    }
    assert!(counters.instructions.is_sorted_by_key(|i| i.ptx_line));
}

#[test]
fn asynchronous_copies_count_on_both_sides() {
    let body = "mov.u64 %rd6, s;\nmul.wide.u32 %rd8, %r2, 16;\nadd.s64 %rd7, %rd6, %rd8;\nadd.s64 %rd8, %rd2, %rd8;\n\
                cp.async.cg.shared.global [%rd7], [%rd8], 16;\nsetp.lt.u32 %p1, %r2, 6;\nselp.b32 %r4, 4, 0, %p1;\n\
                cp.async.ca.shared.global [%rd7+512], [%rd8], 8, %r4;\ncp.async.wait_all;";
    let (counters, _) = counted(body, 128);
    let whole = of(&counters, "cp.async.cg");
    assert_eq!((whole.global_read_bytes, whole.read_sectors, whole.wavefronts), (512, 16, 4));
    // Six lanes read 4 bytes each at a stride of 16; all write 8.
    let part = of(&counters, "cp.async.ca");
    assert_eq!((part.global_read_bytes, part.read_sectors), (24, 3));
    assert_eq!(counters.of_class(Class::Copy).warp_instructions, 3);
}

#[test]
fn counts_are_exact() {
    // 48 threads read 16 bytes each with a stride of 32, and 4 bytes each in a row.
    let body = "mul.wide.u32 %rd6, %r2, 32;\nadd.s64 %rd7, %rd2, %rd6;\n.loc 1 31 1\nld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%rd7];\n\
                .loc 1 32 1\nld.global.f32 %f5, [%rd5];\nfma.rn.f32 %f6, %f1, %f2, %f5;\nadd.f32 %f6, %f6, %f3;\n\
                setp.lt.s32 %p1, %r2, 3;\n.loc 1 33 1\n@%p1 bra $L_end;\nst.global.f32 [%rd4], %f6;\n$L_end:\n\
                .loc 1 34 1\nmov.u64 %rd8, s;\nmul.wide.u32 %rd9, %r2, 8;\nadd.s64 %rd9, %rd8, %rd9;\nst.shared.u32 [%rd9], %r2;\n\
                .loc 1 35 1\nbar.sync 0;\nld.shared.u32 %r9, [%rd8];";
    let mut case = Case::with(".shared .align 8 .b8 s[384];", body).floats((0..400).map(|i| i as f32));
    case.block = 48;
    case.out = 48;
    case.options.count = true;
    let (_, counters) = case.run_counted().expect("it is correct");
    let lines = counters.by_line();
    let at = |n: u32| lines.iter().find(|l| l.line == n).expect("a line").counters;
    assert_eq!((at(31).global_read_bytes, at(31).read_sectors), (48 * 16, 48));
    assert_eq!((at(32).global_read_bytes, at(32).read_sectors, at(32).flops), (48 * 4, 6, 48 * 3));
    assert_eq!(
        (at(33).divergent_branches, at(33).written_sectors, at(33).global_written_bytes),
        (1, 6, 45 * 4)
    );
    assert_eq!(at(33).warp_instructions, 4);
    // A stride of 8 bytes: two words to each bank in a full warp, none in half a warp.
    assert_eq!((at(34).wavefronts, at(34).bank_conflicts), (3, 1));
    assert_eq!((at(35).barriers, at(35).wavefronts, at(35).bank_conflicts), (2, 2, 0));
    assert_eq!(counters.of_class(crate::Class::Fp32).thread_instructions, 96);
    let once = counters;
    case.options.threads = 2;
    assert_eq!(case.run_counted().expect("it is correct").1, once);
}

#[test]
fn shuffles_apart_from_other_warp_instructions() {
    // Two warps, a shuffle in a loop of three, and a vote that is none.
    let body = "mov.u32 %r3, 0;\n$L_loop:\nshfl.sync.bfly.b32 %r9, %r2, 1, 31, -1;\nadd.s32 %r3, %r3, 1;\n\
                setp.lt.s32 %p1, %r3, 3;\n@%p1 bra $L_loop;\nvote.sync.ballot.b32 %r9, %p1, -1;";
    let mut case = Case::new(body).block(64);
    case.options.count = true;
    let counters = case.run_counted().expect("it is correct").1;
    assert_eq!(counters.total().shuffles, 2 * 3);
    assert_eq!(counters.of_class(Class::Warp).warp_instructions, 2 * 3 + 2);
}
