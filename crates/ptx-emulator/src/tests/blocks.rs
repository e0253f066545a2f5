//! Races between blocks, and cooperative launches.

use super::case::Case;
use crate::WarpOrder;

#[test]
fn races_between_blocks() {
    // Two blocks of 32 write 32 words each, at a distance of `apart` words.
    let case = |apart: u32, read: &str| {
        let body = format!(
            "mov.u32 %r3, %ctaid.x;\nmul.lo.u32 %r4, %r3, {apart};\nadd.u32 %r5, %r4, %r2;\nmul.wide.u32 %rd6, %r5, 4;\n\
             add.s64 %rd7, %rd1, %rd6;\n.loc 1 60 1\nst.global.u32 [%rd7], %r5;\n.loc 1 61 1\n{read}"
        );
        let mut case = Case::new(&body);
        (case.grid, case.out, case.options.check_races) = (2, 64, true);
        case
    };
    case(32, "").ok();
    case(31, "").fails(&[
        "block (1, 0, 0), thread (0, 0, 0)",
        "race between blocks",
        "byte 124 of `the output`",
        "block (0, 0, 0) writes",
        "test.cu:60",
    ]);
    case(32, "ld.global.u32 %r6, [%rd7];").ok();
    case(32, "setp.eq.u32 %p1, %r3, 1;\n@%p1 ld.global.u32 %r6, [%rd4];")
        .fails(&["reads 4 bytes", "block (0, 0, 0) writes"]);
    let mut silent = case(31, "");
    silent.options.check_races = false;
    silent.ok();
    // Atomics of several blocks are no race.
    let mut atomics = Case::with(".global .align 4 .u32 counter;", "red.global.add.u32 [counter], 1;");
    (atomics.grid, atomics.options.check_races) = (4, true);
    atomics.ok();
}

#[test]
fn non_coherent_loads_of_what_the_launch_writes() {
    // A thread writes its word and loads one, in either order; a plain load of its own word is fine.
    let case = |body: &str| {
        let mut case = Case::new(body).inp(0..32);
        case.options.check_races = true;
        case
    };
    let store = ".loc 1 30 1\nst.global.u32 [%rd4], %r2;";
    let after = |load: &str| case(&format!("{store}\n.loc 1 31 1\n{load}"));
    after("ld.global.u32 %r3, [%rd4];").ok();
    let stale = after("ld.global.nc.u32 %r3, [%rd4];");
    stale.fails(&[
        "stale read: reads through the non-coherent cache (ld.global.nc) 4 bytes at byte 0 of `the output`",
        "which the same launch writes, at test.cu:30",
    ]);
    let mut silent = stale;
    silent.options.check_races = false;
    silent.ok();
    // Another buffer, and the same one loaded first.
    case(&format!("ld.global.nc.u32 %r3, [%rd5];\n{store}")).ok();
    let before =
        |write: &str| case(&format!(".loc 1 29 1\nld.global.nc.u32 %r3, [%rd5];\n.loc 1 30 1\n{write}"));
    before("st.global.u32 [%rd5], %r3;")
        .fails(&["stale read: writes 4 bytes at byte 0 of `the input`", "test.cu:29"]);
    before("red.global.add.u32 [%rd5], 1;").fails(&["stale read: writes", "`the input`"]);
    before("red.global.add.u32 [%rd4], 1;").fails(&["that nothing has written"]);
    // Neighbouring halves of a word are not the same bytes.
    case("ld.global.nc.u16 %rs1, [%rd5];\nst.global.u16 [%rd5+2], %rs1;").ok();
}

/// Blocks that write, wait at a barrier of the whole grid, and read what the next one wrote. `arrive`, `ask`: the
/// instructions of the barrier.
fn grid_barrier(arrive: &str, ask: &str) -> Case {
    let body = format!(
        "mov.u32 %r3, %ctaid.x;\nmov.u32 %r4, %nctaid.x;\nmad.lo.s32 %r5, %r3, 64, %r2;\n\
         mul.wide.u32 %rd6, %r5, 4;\nadd.s64 %rd7, %rd1, %rd6;\n\
         .loc 1 30 1\nst.global.u32 [%rd7], %r5;\n.loc 1 40 1\nbar.sync 0;\nsetp.ne.u32 %p1, %r2, 0;\n@%p1 bra $done;\n\
         {arrive}\n$ask:\n.loc 1 50 1\n{ask}\nsetp.ge.u32 %p2, %r7, %r4;\n@%p2 bra $done;\n.loc 1 51 1\n\
         nanosleep.u32 64;\nbra $ask;\n$done:\nbar.sync 0;\n\
         add.s32 %r8, %r3, 1;\nsetp.lt.u32 %p3, %r8, %r4;\nselp.b32 %r8, %r8, 0, %p3;\nmad.lo.s32 %r9, %r8, 64, %r2;\n\
         mul.wide.u32 %rd8, %r9, 4;\nadd.s64 %rd9, %rd1, %rd8;\n.loc 1 60 1\nld.global.u32 %r10, [%rd9];\n\
         mul.wide.u32 %rd10, %r4, 256;\nadd.s64 %rd11, %rd7, %rd10;\nst.global.u32 [%rd11], %r10;"
    );
    let mut case = Case::with(".global .align 4 .u32 counter;", &body).block(64);
    (case.grid, case.out, case.cooperative) = (5, 5 * 64 * 2, true);
    case.options.check_races = true;
    case
}

const ARRIVE: &str = "atom.add.release.gpu.global.u32 %r6, [counter], 1;";

const ASK: &str = "ld.acquire.gpu.global.u32 %r7, [counter];";

#[test]
fn blocks_of_a_cooperative_launch_wait_for_each_other() {
    for order in [WarpOrder::Forward, WarpOrder::Reverse] {
        for check_races in [false, true] {
            let mut case = grid_barrier(ARRIVE, ASK);
            (case.options.warp_order, case.options.check_races) = (order, check_races);
            let out = case.run().expect("it ends");
            for (b, row) in out[5 * 64..].chunks(64).enumerate() {
                let next = ((b + 1) % 5 * 64) as u32;
                assert!(row.iter().zip(next..).all(|(&got, want)| got == want), "block {b}: {row:?}");
            }
        }
    }
    // What was counted is of all blocks: each store once.
    let mut case = grid_barrier(ARRIVE, ASK);
    case.options.count = true;
    let (_, counters) = case.run_counted().expect("it ends");
    assert_eq!(counters.total().global_written_bytes, 2 * 5 * 64 * 4 + 5 * 4);
}

#[test]
fn a_grid_barrier_without_order_is_a_race() {
    let race = [
        "race between blocks",
        "reads 4 bytes",
        "of `the output`",
        "writes in the same launch",
        "test.cu:30",
    ];
    // Neither the release alone nor the acquire alone is enough, and within a block neither is worth anything.
    grid_barrier("atom.add.relaxed.gpu.global.u32 %r6, [counter], 1;", ASK).fails(&race);
    grid_barrier(ARRIVE, "ld.relaxed.gpu.global.u32 %r7, [counter];").fails(&race);
    grid_barrier("atom.add.release.cta.global.u32 %r6, [counter], 1;", ASK)
        .fails(&["race between blocks", "`counter`"]);
    // A plain read of what others update.
    grid_barrier(ARRIVE, "ld.global.u32 %r7, [counter];").fails(&["race between blocks", "`counter`"]);
    // No barrier at all: block 0 reads before block 1 has written.
    grid_barrier("bra $done;", ASK).fails(&["reads 4 bytes that nothing has written", "test.cu:60"]);
    // Another place is acquired than was released.
    let mut case = grid_barrier(
        ARRIVE,
        "ld.acquire.gpu.global.u32 %r7, [other];\nld.relaxed.gpu.global.u32 %r7, [counter];",
    );
    case.ptx = case.ptx.replace(
        ".global .align 4 .u32 counter;",
        ".global .align 4 .u32 counter;\n.global .align 4 .u32 other;",
    );
    case.fails(&race);
}

/// Blocks that leave a part each and count themselves by `count`; the last to come adds the parts up.
fn last_block(count: &str) -> Case {
    let body = format!(
        "mov.u32 %r3, %ctaid.x;\nmov.u32 %r4, %nctaid.x;\nmul.wide.u32 %rd6, %r3, 4;\nadd.s64 %rd7, %rd1, %rd6;\n\
         .loc 1 30 1\nst.global.u32 [%rd7], %r3;\n.loc 1 40 1\nsub.s32 %r5, %r4, 1;\n{count}\n\
         setp.ne.u32 %p1, %r6, %r5;\n@%p1 bra $done;\nmov.u32 %r7, 0;\nmov.u32 %r8, 0;\n$next:\n\
         mul.wide.u32 %rd8, %r8, 4;\nadd.s64 %rd9, %rd1, %rd8;\n.loc 1 60 1\nld.global.u32 %r9, [%rd9];\n\
         add.s32 %r7, %r7, %r9;\nadd.s32 %r8, %r8, 1;\nsetp.lt.u32 %p2, %r8, %r4;\n@%p2 bra $next;\n\
         mul.wide.u32 %rd10, %r4, 4;\nadd.s64 %rd11, %rd1, %rd10;\nst.global.u32 [%rd11], %r7;\n$done:"
    );
    let mut case = Case::with(".global .align 4 .u32 counter;", &body).block(1);
    (case.grid, case.out, case.options.check_races) = (7, 8, true);
    case
}

#[test]
fn the_last_block_of_a_launch_may_read_what_the_others_released() {
    let counted = |order: &str| format!("atom.inc.{order}.global.u32 %r6, [counter], %r5;");
    assert_eq!(last_block(&counted("acq_rel.gpu")).run().expect("no race")[7], 21);
    let race = ["race between blocks", "reads 4 bytes at byte 0 of `the output`", "test.cu:30"];
    for order in ["relaxed.gpu", "release.gpu", "acquire.gpu"] {
        last_block(&counted(order)).fails(&race);
    }
    last_block(&counted("acq_rel.cta")).fails(&["race between blocks", "`counter`"]);
}

#[test]
fn a_plain_write_before_atomics_must_be_ordered_before_all_of_them() {
    let put = "setp.eq.u32 %p5, %r5, 0;\n@%p5 st.global.u32 [place], %r5;\n";
    let update = "setp.eq.u32 %p6, %r2, 0;\n@%p6 red.relaxed.gpu.global.add.u32 [place], 1;\n";
    let with = |before: &str, after: &str| {
        let mut case = grid_barrier(ARRIVE, ASK);
        for (at, more) in [
            (".global .align 4 .u32 counter;\n", ".global .align 4 .u32 place;\n"),
            (".loc 1 40 1\n", before),
            (".loc 1 60 1\n", after),
        ] {
            assert!(case.ptx.contains(at));
            case.ptx = case.ptx.replace(at, &format!("{at}{more}"));
        }
        case
    };
    let silent = |case: Case| drop(case.run().unwrap_or_else(|e| panic!("{e}")));
    silent(with(put, update));
    silent(with(update, ""));
    silent(with(update, put));
    silent(with(&format!("{put}{update}").replace("%r2, 0", "%r5, 0"), update));
    let race = ["race between blocks", "`place`", "writes in the same launch"];
    // The writer's own atomic after it does not make up for the others'.
    with(&format!("{put}{update}"), "").fails(&race);
    with(update, &format!("{update}{put}")).fails(&race);
}

#[test]
fn blocks_that_wait_for_ever_are_named() {
    // A block that is not resident can bring nothing.
    let mut case = grid_barrier(ARRIVE, ASK);
    (case.cooperative, case.options.check_races) = (false, false);
    case.fails(&["block (0, 0, 0)", "the block can never go on: warp 0 sleeps and asks again", "test.cu:51"]);
    // One arrival too few.
    grid_barrier(
        "setp.eq.u32 %p4, %r3, 2;\n@%p4 bra $ask;\natom.add.release.gpu.global.u32 %r6, [counter], 1;",
        ASK,
    )
    .fails(&["no block of the grid can go on: warp 0 sleeps and asks again", "test.cu:51"]);
    // Who asks without sleeping never lets the others have their turn.
    let mut case = grid_barrier(ARRIVE, ASK);
    case.ptx = case.ptx.replace("nanosleep.u32 64;\n", "");
    case.options.max_instructions = 100_000;
    case.fails(&["more than 100000 instructions in one warp: a loop without end?"]);
    // A number of attempts, not for ever: the loop ends by itself.
    let mut bounded = Case::new(
        "mov.u32 %r3, 0;\n$again:\nnanosleep.u32 10;\nadd.s32 %r3, %r3, 1;\nsetp.lt.u32 %p1, %r3, 100;\n@%p1 bra $again;\n\
         st.global.u32 [%rd4], %r3;",
    );
    assert_eq!(bounded.run().expect("it ends"), vec![100; 32]);
    bounded.cooperative = true;
    assert_eq!(bounded.run().expect("it ends"), vec![100; 32]);
}
