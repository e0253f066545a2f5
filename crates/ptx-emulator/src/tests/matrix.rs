//! Matrix multiply-adds and the asynchronous copies that feed them.

use super::case::Case;

/// A 16 x 16 by 16 x 8 product, operands brought by asynchronous copies and `ldmatrix`.
fn product(ty: &str, wait: &str) -> Case {
    let body = format!(
        "mov.u64 %rd6, a;\ncvt.u32.u64 %r3, %rd6;\nmov.u64 %rd7, b;\ncvt.u32.u64 %r4, %rd7;\n\
         mul.wide.u32 %rd8, %r2, 16;\nadd.s64 %rd9, %rd2, %rd8;\nshl.b32 %r5, %r2, 4;\nadd.s32 %r6, %r3, %r5;\n\
         cp.async.cg.shared.global [%r6], [%rd9], 16;\nmul.wide.u32 %rd8, %r2, 8;\nadd.s64 %rd10, %rd2, %rd8;\n\
         shl.b32 %r7, %r2, 3;\nadd.s32 %r8, %r4, %r7;\n\
         cp.async.ca.shared.global.L2::128B [%r8], [%rd10+512], 8, 8;\ncp.async.commit_group;\n.loc 1 25 1\n{wait}\n\
         bar.warp.sync -1;\n.loc 1 26 1\nand.b32 %r10, %r2, 15;\nshr.u32 %r11, %r2, 4;\nshl.b32 %r12, %r10, 5;\n\
         shl.b32 %r13, %r11, 4;\nadd.s32 %r14, %r3, %r12;\nadd.s32 %r14, %r14, %r13;\n\
         ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%r20, %r21, %r22, %r23}}, [%r14];\nshl.b32 %r15, %r10, 4;\n\
         add.s32 %r15, %r4, %r15;\nldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {{%r24, %r25}}, [%r15];\n\
         mov.f32 %f1, 0f3F800000;\n\
         mma.sync.aligned.m16n8k16.row.col.f32.{ty}.{ty}.f32 {{%f4, %f5, %f6, %f7}}, {{%r20, %r21, %r22, %r23}}, \
         {{%r24, %r25}}, {{%f1, %f1, %f1, %f1}};\nshr.u32 %r30, %r2, 2;\nand.b32 %r31, %r2, 3;\n\
         mad.lo.s32 %r32, %r30, 32, 0;\nmad.lo.s32 %r32, %r31, 8, %r32;\ncvt.u64.u32 %rd20, %r32;\n\
         add.s64 %rd21, %rd1, %rd20;\nst.global.v2.f32 [%rd21], {{%f4, %f5}};\nst.global.v2.f32 [%rd21+256], {{%f6, %f7}};"
    );
    let mut case = Case::with(".shared .align 128 .b8 a[512];\n.shared .align 128 .b8 b[256];", &body);
    case.out = 128;
    let word = |v: f32| {
        u32::from(if ty == "f16" {
            half::f16::from_f32(v).to_bits()
        } else {
            half::bf16::from_f32(v).to_bits()
        })
    };
    let values: Vec<u32> = (0..384).map(|i| word(value(i))).collect();
    case.inp = values.chunks(2).map(|p| p[0] | p[1] << 16).collect();
    case
}

/// Small whole numbers, exact in every type.
fn value(i: usize) -> f32 {
    (i * 7 % 13) as f32 - 6.0
}

#[test]
fn matrix_products_through_asynchronous_copies() {
    for ty in ["f16", "bf16"] {
        let out = product(ty, "cp.async.wait_group 0;").floats_out();
        for r in 0..16 {
            for n in 0..8 {
                let exact: f32 =
                    1.0 + (0..16).map(|k| value(r * 16 + k) * value(256 + k * 8 + n)).sum::<f32>();
                assert_eq!(out[r * 8 + n], exact, "{ty} ({r}, {n})");
            }
        }
    }
    product("f16", "cp.async.wait_all;").ok();
    product("f16", "").fails(&["asynchronous copy is on its way", "test.cu:26", "test.cu:20"]);
    product("f16", "cp.async.wait_group 1;").fails(&["asynchronous copy is on its way"]);
    let mut counted = product("f16", "cp.async.wait_all;");
    counted.options.count = true;
    let total = counted.run_counted().expect("it is correct").1.total();
    assert_eq!((total.matrix_instructions, total.flops), (1, 2 * 16 * 8 * 16));
    assert_eq!((total.global_read_bytes, total.bank_conflicts), (512 + 256, 4));
}

#[test]
fn matrix_products_in_tf32_and_f16() {
    // a[r][k] = r + k, b[k][n] = k - n, by the layout of m16n8k8.
    let body = "shr.u32 %r3, %r2, 2;\nand.b32 %r4, %r2, 3;\nadd.s32 %r5, %r3, %r4;\ncvt.rn.f32.s32 %f1, %r5;\n\
                add.f32 %f2, %f1, 0f41000000;\nadd.f32 %f3, %f1, 0f40800000;\nadd.f32 %f4, %f1, 0f41400000;\n\
                sub.s32 %r6, %r4, %r3;\ncvt.rn.f32.s32 %f5, %r6;\nadd.f32 %f6, %f5, 0f40800000;\nmov.f32 %f7, 0f00000000;\n\
                mov.b32 %r10, %f1;\nmov.b32 %r11, %f2;\nmov.b32 %r12, %f3;\nmov.b32 %r13, %f4;\nmov.b32 %r14, %f5;\n\
                mov.b32 %r15, %f6;\n\
                mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f10, %f11, %f12, %f13}, {%r10, %r11, %r12, %r13}, \
                {%r14, %r15}, {%f7, %f7, %f7, %f7};\nmul.wide.u32 %rd6, %r2, 16;\nadd.s64 %rd7, %rd1, %rd6;\n\
                st.global.v4.f32 [%rd7], {%f10, %f11, %f12, %f13};";
    let mut case = Case::new(body);
    case.out = 128;
    let out = case.floats_out();
    for l in 0..32 {
        for part in 0..4 {
            let (r, n) = (l / 4 + part / 2 * 8, l % 4 * 2 + part % 2);
            let exact: i32 = (0..8).map(|k| (r + k) * (k - n)).sum();
            assert_eq!(out[(l * 4 + part) as usize], exact as f32, "({r}, {n})");
        }
    }
    // Accumulation in f16: all ones, eight deep, on top of two.
    let body = "mov.u32 %r3, 0x3c003c00;\nmov.u32 %r4, 0x40004000;\n\
                mma.sync.aligned.m16n8k8.row.col.f16.f16.f16.f16 {%r9, %r10}, {%r3, %r3}, {%r3}, {%r4, %r4};\n\
                st.global.u32 [%rd4], %r9;";
    assert_eq!(Case::new(body).ok(), [0x4900_4900; 32]);
    Case::new(&format!("setp.lt.s32 %p1, %r2, 8;\n@%p1 bra $L_end;\n{body}\n$L_end:"))
        .fails(&["needs all lanes"]);
}

#[test]
fn copies_that_fill_with_zeros() {
    // Odd lanes read nothing, from nowhere.
    let body = "mov.u64 %rd6, s;\nmul.wide.u32 %rd7, %r2, 16;\nadd.s64 %rd8, %rd6, %rd7;\nadd.s64 %rd9, %rd2, %rd7;\n\
                and.b32 %r3, %r2, 1;\nsetp.eq.s32 %p1, %r3, 1;\nselp.b64 %rd9, 0, %rd9, %p1;\nselp.b32 %r4, 0, 8, %p1;\n\
                cp.async.cg.shared.global [%rd8], [%rd9], 16, %r4;\ncp.async.wait_all;\n\
                ld.shared.v4.u32 {%r5, %r6, %r7, %r8}, [%rd8];\nadd.s32 %r9, %r5, %r6;\nadd.s32 %r9, %r9, %r7;\n\
                st.global.u32 [%rd4], %r9;";
    let mut case = Case::with(".shared .align 16 .b8 s[512];", body).inp(1..=128);
    let out = case.ok();
    assert!((0..32).all(|i| out[i] == if i % 2 == 1 { 0 } else { 8 * i as u32 + 3 }));
    case.inp.truncate(120);
    case.fails(&["reads 8 bytes out of bounds", "thread (30, 0, 0)", "`the input`"]);
}
