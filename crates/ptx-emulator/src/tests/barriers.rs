//! Barriers of a block, and what they order.

use super::case::Case;
use crate::WarpOrder;

#[test]
fn a_barrier_at_a_lower_line_than_a_branch_that_leads_to_it() {
    // Code placed after the place it returns to, as compilers do: all lanes still reach the barrier together.
    let body = "setp.lt.s32 %p1, %r2, 16;\n@%p1 bra $L_far;\nmov.u32 %r9, 1;\n$L_join:\nbar.sync 0;\n\
                st.global.u32 [%rd4], %r9;\nret;\n$L_far:\nmov.u32 %r9, 2;\nbra.uni $L_join;";
    let out = Case::new(body).ok();
    assert!(out[..16].iter().all(|v| *v == 2) && out[16..].iter().all(|v| *v == 1));
}

/// Sums the block through shared memory; `barrier` is what stands between writes and reads.
fn block_sum(barrier: &str) -> Case {
    let body = format!(
        "mov.u64 %rd6, part;\nadd.s64 %rd7, %rd6, %rd3;\nst.shared.u32 [%rd7], %r2;\n.loc 1 30 1\n{barrier}\n\
         .loc 1 40 1\nmov.u32 %r3, 0;\nmov.u32 %r4, 0;\n$L_loop:\nld.shared.u32 %r5, [%rd6];\n\
         add.s32 %r4, %r4, %r5;\nadd.s64 %rd6, %rd6, 4;\nadd.s32 %r3, %r3, 1;\nsetp.lt.s32 %p1, %r3, 128;\n\
         @%p1 bra $L_loop;\nst.global.u32 [%rd4], %r4;"
    );
    Case::with(".shared .align 4 .b8 part[512];", &body).block(128)
}

#[test]
fn shared_memory_with_its_barrier() {
    let mut case = block_sum("bar.sync 0;");
    for order in [WarpOrder::Forward, WarpOrder::Reverse] {
        case.options.warp_order = order;
        case.grid = 1;
        assert!(case.ok().iter().all(|v| *v == 127 * 64));
    }
}

#[test]
fn shared_memory_without_its_barrier() {
    // Forward, lane 1 reads what lane 0 wrote; in reverse warp 3 reads what nothing has written yet.
    let mut case = block_sum("");
    case.fails(&["kernel k", "block (0, 0, 0)", "shared-memory race: reads", "test.cu:40", "test.cu:20"]);
    case.options.warp_order = WarpOrder::Reverse;
    case.fails(&["nothing has written"]);
    // Written before a barrier, and once more after it: lane 1 reads what lane 0 of its warp wrote.
    let mut again = block_sum("bar.sync 0;\nst.shared.u32 [%rd7], %r2;");
    again.fails(&["shared-memory race: reads 4 bytes", "test.cu:40", "test.cu:30"]);
    // With the lanes of each warp in order, the first warp still reads what the second then writes.
    again = block_sum("bar.sync 0;\nst.shared.u32 [%rd7], %r2;\nbar.warp.sync -1;");
    again.fails(&["shared-memory race: writes 4 bytes", "another warp read", "test.cu:40", "test.cu:30"]);
    let fixed = block_sum("bar.sync 0;\nst.shared.u32 [%rd7], %r2;\nbar.sync 0;");
    assert!(fixed.ok().iter().all(|v| *v == 127 * 64));
}

#[test]
fn named_barriers_order_only_their_warps() {
    // Warps 0 and 1 wait at barrier 1, warps 2 and 3 at barrier 2; each reads its neighbour's word.
    let body = |far: u32| {
        format!(
            "mov.u64 %rd6, part;\nadd.s64 %rd7, %rd6, %rd3;\nst.shared.u32 [%rd7], %r2;\nshr.u32 %r3, %r2, 6;\n\
             add.s32 %r3, %r3, 1;\nbar.sync %r3, 64;\nxor.b32 %r4, %r2, {far};\nmul.wide.u32 %rd8, %r4, 4;\n\
             add.s64 %rd9, %rd6, %rd8;\nld.shared.u32 %r9, [%rd9];\nst.global.u32 [%rd4], %r9;"
        )
    };
    let top = ".shared .align 4 .b8 part[512];";
    let out = Case::with(top, &body(32)).block(128).ok();
    assert!(out.iter().enumerate().all(|(i, v)| *v == i as u32 ^ 32));
    Case::with(top, &body(64)).block(128).fails(&["shared-memory race: reads"]);
}

#[test]
fn a_producer_arrives_and_a_consumer_waits() {
    let body = |arrive: &str| {
        format!(
            "mov.u64 %rd6, part;\nsetp.ge.u32 %p1, %r2, 32;\n@%p1 bra $L_consumer;\nadd.s64 %rd7, %rd6, %rd3;\n\
             st.shared.u32 [%rd7], %r2;\n{arrive}\nret;\n$L_consumer:\nbar.sync 3, 64;\nadd.s64 %rd7, %rd6, %rd3;\n\
             ld.shared.u32 %r9, [%rd7+-128];\nst.global.u32 [%rd4+-128], %r9;"
        )
    };
    let top = ".shared .align 4 .b8 part[128];";
    let mut case = Case::with(top, &body("barrier.cta.arrive.aligned 3, 64;")).block(64);
    for order in [WarpOrder::Forward, WarpOrder::Reverse] {
        case.options.warp_order = order;
        assert!(case.ok()[..32].iter().enumerate().all(|(i, v)| *v == i as u32));
    }
    Case::with(top, &body("")).block(64).fails(&["can never go on", "barrier 3 for 64 threads"]);
}

#[test]
fn barriers_that_not_all_reach() {
    Case::new("setp.lt.s32 %p1, %r2, 5;\n@%p1 bra $L_end;\nbar.sync 0;\n$L_end:\nbar.warp.sync -1;\nmov.u32 %r9, 1;")
        .block(64)
        .fails(&["barrier that not all threads", "thread (0, 0, 0)", "test.cu:20"]);
    // Whole warps apart: one waits at barrier 0, the other at barrier 1.
    Case::new(
        "setp.lt.s32 %p1, %r2, 32;\n@%p1 bra $L_a;\nbar.sync 0;\nret;\n$L_a:\n.loc 1 50 1\nbar.sync 1;",
    )
    .block(64)
    .fails(&[
        "can never go on",
        "warp 0 waits at barrier 1 (test.cu:50)",
        "warp 1 waits at barrier 0 (test.cu:20)",
    ]);
}

#[test]
fn reducing_barriers() {
    let body = "setp.lt.s32 %p1, %r2, 40;\nbarrier.cta.red.popc.aligned.u32 %r9, 0, %p1;\n\
                bar.red.and.pred %p2, 0, %p1;\n@%p2 add.s32 %r9, %r9, 100;\nbar.red.or.pred %p2, 0, %p1;\n\
                @%p2 add.s32 %r9, %r9, 1000;\nst.global.u32 [%rd4], %r9;";
    assert!(Case::new(body).block(64).ok().iter().all(|v| *v == 1040));
}

/// Warp 0 fills a buffer and arrives at an mbarrier, warp 1 polls it and reads.
fn mailbox(count: u32, parity: u32) -> Case {
    let body = format!(
        "mov.u64 %rd6, s;\nmov.u64 %rd7, bar;\nsetp.ne.s32 %p1, %r2, 0;\n@%p1 bra $L_ready;\n\
         mbarrier.init.shared::cta.b64 [%rd7], {count};\n$L_ready:\nbar.sync 0;\nsetp.ge.s32 %p2, %r2, 32;\n\
         @%p2 bra $L_read;\nadd.s64 %rd8, %rd6, %rd3;\nst.shared.u32 [%rd8], %r2;\n\
         mbarrier.arrive.shared::cta.b64 %rd9, [%rd7];\nret;\n$L_read:\n.loc 1 44 1\n\
         mbarrier.test_wait.parity.shared::cta.b64 %p3, [%rd7], {parity};\n@!%p3 bra $L_read;\nadd.s64 %rd8, %rd6, %rd3;\n\
         ld.shared.u32 %r9, [%rd8+-128];\nst.global.u32 [%rd4+-128], %r9;"
    );
    Case::with(".shared .align 8 .b8 bar[8];\n.shared .align 4 .b8 s[128];", &body).block(64)
}

#[test]
fn mbarriers() {
    for order in [WarpOrder::Forward, WarpOrder::Reverse] {
        let mut case = mailbox(32, 0);
        case.options.warp_order = order;
        assert!(case.ok()[..32].iter().enumerate().all(|(i, v)| *v == i as u32));
        // One arrival too many: the phase never ends.
        let mut case = mailbox(33, 0);
        case.options.warp_order = order;
        case.fails(&["can never go on", "polls an mbarrier", "test.cu:44"]);
    }
    // The phase before the first counts as over, so nothing orders the read.
    let mut early = mailbox(32, 1);
    early.options.warp_order = WarpOrder::Reverse;
    early.fails(&["shared memory that nothing has written"]);
}
