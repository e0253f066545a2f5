//! Instructions that involve the lanes of a warp.

use super::case::{Case, lanes};

#[test]
fn shuffles() {
    let shfl = |op: &str| {
        lanes(
            &format!("shfl.sync.{op}, -1;\nselp.u32 %r8, 100, 0, %p1;\nadd.s32 %r9, %r9, %r8;"),
            &(0..32).collect::<Vec<_>>(),
        )
    };
    let down = shfl("down.b32 %r9|%p1, %r3, 3, 31");
    assert!((0..32).all(|i| down[i] == if i + 3 <= 31 { i as u32 + 103 } else { i as u32 }));
    let up = shfl("up.b32 %r9|%p1, %r3, 3, 0");
    assert!((0..32).all(|i| up[i] == if i >= 3 { i as u32 + 97 } else { i as u32 }));
    let bfly = shfl("bfly.b32 %r9|%p1, %r3, 16, 31");
    assert!((0..32).all(|i| bfly[i] == (i as u32 ^ 16) + 100));
    let idx = shfl("idx.b32 %r9|%p1, %r3, 5, 31");
    assert!(idx.iter().all(|v| *v == 105));
    // Segments of eight lanes.
    let seg = shfl("idx.b32 %r9|%p1, %r3, 1, 0x1807");
    assert!((0..32).all(|i| seg[i] == (i as u32 & !7) + 101));
}

#[test]
fn votes_match_and_reduce() {
    let all: Vec<u32> = (0..32).collect();
    assert_eq!(lanes("setp.lt.u32 %p1, %r3, 5;\nvote.sync.ballot.b32 %r9, %p1, -1;", &all), [31; 32]);
    assert_eq!(
        lanes("setp.lt.u32 %p1, %r3, 5;\nvote.sync.any.pred %p2, %p1, -1;\nselp.u32 %r9, 1, 0, %p2;", &all),
        [1; 32]
    );
    assert_eq!(
        lanes("setp.lt.u32 %p1, %r3, 5;\nvote.sync.all.pred %p2, !%p1, -1;\nselp.u32 %r9, 1, 0, %p2;", &all),
        [0; 32]
    );
    assert_eq!(lanes("redux.sync.add.s32 %r9, %r3, -1;", &all), [496; 32]);
    let out = lanes("and.b32 %r4, %r3, 3;\nmatch.any.sync.b32 %r9, %r4, -1;", &all);
    assert!((0..32).all(|i| out[i] == 0x1111_1111 << (i & 3)));
    let out = lanes("mov.u32 %r9, 0;\nelect.sync %r4|%p1, -1;\n@%p1 mov.u32 %r9, 7;", &all);
    assert_eq!(out.iter().sum::<u32>(), 7);
}

#[test]
fn a_shuffle_that_not_all_named_lanes_reach() {
    Case::new("setp.lt.s32 %p1, %r2, 16;\n@%p1 bra $L_end;\nshfl.sync.bfly.b32 %r9, %r2, 1, 31, -1;\n$L_end:\nbar.warp.sync -1;")
        .fails(&["kernel k (the test)", "not all lanes", "test.cu:20"]);
}
