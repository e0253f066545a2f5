//! What instructions compute, against values worked out by hand or by the host.

use super::case::lanes;

#[test]
fn fma_is_fused_and_division_rounds_to_nearest() {
    let x = 1.0f32 + 1.0 / 8192.0;
    let out = lanes("fma.rn.f32 %f2, %f1, %f1, 0fBF800000;\nmov.b32 %r9, %f2;", &[x.to_bits()]);
    assert_eq!(f32::from_bits(out[0]), x.mul_add(x, -1.0));
    assert_ne!(f32::from_bits(out[0]), x * x - 1.0);
    let out =
        lanes("div.rn.f32 %f2, 0f3F800000, %f1;\nmov.b32 %r9, %f2;", &[3f32.to_bits(), 0, 49f32.to_bits()]);
    assert_eq!(out, [(1f32 / 3.0).to_bits(), f32::INFINITY.to_bits(), (1f32 / 49.0).to_bits()]);
}

#[test]
fn directed_rounding_brackets_the_exact_result() {
    let inp = [0x3f80_0001, 0xbf80_0001, 0x0000_0001, 0x7f7f_ffff];
    let of = |mode: &str| {
        lanes(&format!("fma.{mode}.f32 %f2, %f1, 0f3DCCCCCD, 0f3EAAAAAB;\nmov.b32 %r9, %f2;"), &inp)
    };
    let (down, up, near, zero) = (of("rm"), of("rp"), of("rn"), of("rz"));
    for i in 0..inp.len() {
        let exact = f64::from(f32::from_bits(inp[i]))
            .mul_add(f64::from(0.1f32), f64::from(f32::from_bits(0x3eaa_aaab)));
        let [d, u, n, z] = [&down, &up, &near, &zero].map(|v| f32::from_bits(v[i]));
        assert!(f64::from(d) <= exact && exact <= f64::from(u));
        assert!(d.next_up() == u || d == u);
        assert!(n == d || n == u);
        assert_eq!(z, if exact < 0.0 { u } else { d });
    }
}

#[test]
fn minimum_and_maximum_of_zeros_and_nan() {
    let nan = f32::NAN.to_bits();
    let inp = [0x8000_0000, 0, nan, 0x3f80_0000];
    assert_eq!(lanes("min.f32 %f2, %f1, 0f00000000;\nmov.b32 %r9, %f2;", &inp), [0x8000_0000, 0, 0, 0]);
    assert_eq!(
        lanes("max.f32 %f2, %f1, 0f80000000;\nmov.b32 %r9, %f2;", &inp),
        [0x8000_0000, 0, 0x8000_0000, 0x3f80_0000]
    );
    assert_eq!(lanes("max.NaN.f32 %f2, %f1, 0f00000000;\nmov.b32 %r9, %f2;", &inp)[2], 0x7fff_ffff);
}

#[test]
fn subnormals_are_kept_unless_flushed() {
    let tiny = 0x0000_1000;
    assert_eq!(lanes("add.f32 %f2, %f1, %f1;\nmov.b32 %r9, %f2;", &[tiny]), [0x2000]);
    assert_eq!(lanes("add.ftz.f32 %f2, %f1, %f1;\nmov.b32 %r9, %f2;", &[tiny]), [0]);
    // 2^-130 is subnormal.
    assert_eq!(lanes("ex2.approx.f32 %f2, %f1;\nmov.b32 %r9, %f2;", &[(-130f32).to_bits()]), [1 << 19]);
    assert_eq!(lanes("ex2.approx.ftz.f32 %f2, %f1;\nmov.b32 %r9, %f2;", &[(-130f32).to_bits()]), [0]);
}

#[test]
fn conversions_round_and_saturate() {
    let f = |v: f32| v.to_bits();
    let inp = [f(2.5), f(-2.5), f(3e9), f(f32::NAN), f(-1.0)];
    assert_eq!(lanes("cvt.rni.s32.f32 %r9, %f1;", &inp), [2, -2i32 as u32, i32::MAX as u32, 0, u32::MAX]);
    assert_eq!(lanes("cvt.rzi.u32.f32 %r9, %f1;", &inp), [2, 0, 3_000_000_000, 0, 0]);
    assert_eq!(lanes("cvt.rmi.s32.f32 %r9, %f1;", &inp)[..2], [2, -3i32 as u32]);
    assert_eq!(lanes("cvt.rpi.s32.f32 %r9, %f1;", &inp)[..2], [3, -2i32 as u32]);
    assert_eq!(lanes("cvt.sat.f32.f32 %f2, %f1;\nmov.b32 %r9, %f2;", &inp), [f(1.0), 0, f(1.0), 0, 0]);
    let ints = [16_777_217, u32::MAX, 7];
    assert_eq!(
        lanes("cvt.rn.f32.u32 %f2, %r3;\nmov.b32 %r9, %f2;", &ints),
        [f(16_777_216.0), f(4_294_967_296.0), f(7.0)]
    );
    assert_eq!(lanes("cvt.rz.f32.u32 %f2, %r3;\nmov.b32 %r9, %f2;", &ints)[1], f(4_294_967_040.0));
    assert_eq!(lanes("cvt.rp.f32.u32 %f2, %r3;\nmov.b32 %r9, %f2;", &ints)[0], f(16_777_218.0));
    assert_eq!(lanes("cvt.sat.u8.u32 %r9, %r3;", &[255, 256, 3]), [255, 255, 3]);
    assert_eq!(lanes("cvt.s32.s8 %r9, %r3;", &[0xff, 0x7f, 0x180]), [u32::MAX, 127, (-128i32) as u32]);
}

#[test]
fn integers_wrap_divide_and_shift() {
    let min = i32::MIN as u32;
    assert_eq!(lanes("div.s32 %r9, %r3, -1;", &[min, 7, 0]), [min, -7i32 as u32, 0]);
    assert_eq!(lanes("rem.s32 %r9, %r3, 5;", &[-7i32 as u32, 7]), [-2i32 as u32, 2]);
    assert_eq!(lanes("mul.hi.s32 %r9, %r3, %r3;", &[min, 3]), [0x4000_0000, 0]);
    assert_eq!(lanes("mul.hi.u32 %r9, %r3, %r3;", &[u32::MAX]), [u32::MAX - 1]);
    assert_eq!(lanes("shl.b32 %r9, 1, %r3;", &[0, 31, 32, 1000]), [1, 1 << 31, 0, 0]);
    assert_eq!(lanes("shr.s32 %r9, -8, %r3;", &[1, 40]), [-4i32 as u32, u32::MAX]);
    assert_eq!(lanes("shr.u32 %r9, -8, %r3;", &[1, 40]), [0x7fff_fffc, 0]);
    assert_eq!(lanes("shf.l.wrap.b32 %r9, %r3, 1, 4;", &[0x8000_0000]), [0x18]);
    assert_eq!(lanes("bfe.s32 %r9, %r3, 4, 4;", &[0x80, 0x70]), [(-8i32) as u32, 7]);
    assert_eq!(lanes("bfe.u32 %r9, %r3, 28, 8;", &[0xf000_0000]), [15]);
    assert_eq!(lanes("bfi.b32 %r9, 3, %r3, 8, 4;", &[0xffff]), [0xf3ff]);
    assert_eq!(lanes("prmt.b32 %r9, %r3, 0, 0x8123;", &[0x8899_aabb]), [0xffaa_9988]);
    assert_eq!(lanes("bfind.u32 %r9, %r3;", &[0, 1, 0x8000_0000]), [u32::MAX, 0, 31]);
    assert_eq!(lanes("bfind.shiftamt.u32 %r9, %r3;", &[1]), [31]);
    assert_eq!(lanes("popc.b32 %r9, %r3;", &[0xff]), [8]);
    assert_eq!(lanes("clz.b32 %r9, %r3;", &[0, 1]), [32, 31]);
    assert_eq!(lanes("brev.b32 %r9, %r3;", &[1]), [1 << 31]);
    assert_eq!(lanes("lop3.b32 %r9, %r3, 12, 10, 0x96;", &[6]), [6 ^ 12 ^ 10]);
    assert_eq!(lanes("dp4a.s32.s32 %r9, %r3, %r3, 5;", &[0x0102_03ff]), [1 + 4 + 9 + 1 + 5]);
    assert_eq!(lanes("mad.wide.s32 %rd9, %r3, %r3, -1;\ncvt.u32.u64 %r9, %rd9;", &[3]), [8]);
    assert_eq!(
        lanes(
            "cvt.u64.u32 %rd9, %r3;\nmul.lo.s64 %rd9, %rd9, %rd9;\nshr.u64 %rd9, %rd9, 32;\ncvt.u32.u64 %r9, %rd9;",
            &[u32::MAX]
        ),
        [u32::MAX - 1]
    );
    assert_eq!(
        lanes("cvt.u64.u32 %rd9, %r3;\nmul.hi.u64 %rd9, %rd9, -1;\ncvt.u32.u64 %r9, %rd9;", &[5]),
        [4]
    );
}

#[test]
fn comparisons_combine_and_know_nan() {
    let inp = [1f32.to_bits(), f32::NAN.to_bits(), 3f32.to_bits()];
    let pick = |set: &str| lanes(&format!("{set}\nselp.u32 %r9, 1, 0, %p1;"), &inp);
    assert_eq!(pick("setp.lt.f32 %p1, %f1, 0f40000000;"), [1, 0, 0]);
    assert_eq!(pick("setp.ltu.f32 %p1, %f1, 0f40000000;"), [1, 1, 0]);
    assert_eq!(pick("setp.geu.f32 %p1, %f1, 0f40000000;"), [0, 1, 1]);
    assert_eq!(pick("setp.ne.f32 %p1, %f1, 0f40400000;"), [1, 0, 0]);
    assert_eq!(pick("setp.neu.f32 %p1, %f1, 0f40400000;"), [1, 1, 0]);
    assert_eq!(pick("setp.equ.f32 %p1, %f1, 0f40400000;"), [0, 1, 1]);
    assert_eq!(pick("setp.nan.f32 %p1, %f1, %f1;"), [0, 1, 0]);
    assert_eq!(pick("setp.eq.s32 %p2, %r2, 2;\nsetp.lt.or.f32 %p1, %f1, 0f40000000, %p2;"), [1, 0, 1]);
    assert_eq!(pick("setp.eq.s32 %p2, %r2, 2;\nsetp.gt.and.f32 %p1|%p3, %f1, 0f40000000, !%p2;"), [0, 0, 0]);
    assert_eq!(pick("setp.lt.f32 %p2|%p1, %f1, 0f40000000;"), [0, 1, 1]);
}

#[test]
fn small_floats_round_to_nearest_even() {
    let f = |v: f32| v.to_bits();
    let f16 = |v: f32| u32::from(half::f16::from_f32(v).to_bits());
    let bf16 = |v: f32| u32::from(half::bf16::from_f32(v).to_bits());
    let values = [
        0.1,
        -3.7,
        65504.0,
        65519.9,
        65520.0,
        1e-7,
        -3e-8,
        2.980_232_2e-8,
        6.1e-5,
        0.0,
        -0.0,
        1e38,
        f32::INFINITY,
        2049.0,
        2051.0,
    ];
    let bits: Vec<u32> = values.iter().map(|v| f(*v)).collect();
    let expected: Vec<u32> = values.iter().map(|v| f16(*v)).collect();
    assert_eq!(lanes("cvt.rn.f16.f32 %rs1, %f1;\ncvt.u32.u16 %r9, %rs1;", &bits), expected);
    let expected: Vec<u32> = values.iter().map(|v| bf16(*v)).collect();
    assert_eq!(lanes("cvt.rn.bf16.f32 %rs1, %f1;\ncvt.u32.u16 %r9, %rs1;", &bits), expected);
    let expected: Vec<u32> = values.iter().map(|v| f16(1.0) << 16 | f16(*v)).collect();
    assert_eq!(lanes("cvt.rn.f16x2.f32 %r9, 0f3F800000, %f1;", &bits), expected);
    // Every f16 comes back from f32 as it was, by the fast way and by the general one.
    for start in (0..0x7c00u32).step_by(32) {
        let halves: Vec<u32> = (start..start + 32).collect();
        let body = "cvt.u16.u32 %rs1, %r3;\ncvt.f32.f16 %f2, %rs1;\ncvt.rn.f16.f32 %rs2, %f2;\ncvt.f64.f16 %fd1, %rs1;\n\
                    cvt.rn.f16.f64 %rs3, %fd1;\nmov.b32 %r9, {%rs2, %rs3};";
        if start % 1024 == 0 || !(64..=0x7bc0).contains(&start) {
            assert_eq!(lanes(body, &halves), halves.iter().map(|h| h | h << 16).collect::<Vec<_>>());
        }
    }
    assert_eq!(lanes("cvt.rn.f16.f32 %rs1, %f1;\ncvt.u32.u16 %r9, %rs1;", &[f(f32::NAN)]), [0x7fff]);
    assert_eq!(
        lanes("cvt.rz.f16.f32 %rs1, %f1;\ncvt.u32.u16 %r9, %rs1;", &[f(65535.0), f(-0.1)]),
        [0x7bff, f16(-0.1)]
    );
    assert_eq!(lanes("cvt.rna.tf32.f32 %r9, %f1;", &[0x3f80_1000, 0x3f80_0fff]), [0x3f80_2000, 0x3f80_0000]);
}

#[test]
fn small_float_arithmetic() {
    let h = |v: f32| u32::from(half::f16::from_f32(v).to_bits());
    let b = |v: f32| u32::from(half::bf16::from_f32(v).to_bits());
    let two = |hi: u32, lo: u32| hi << 16 | lo;
    assert_eq!(lanes("fma.rn.f16x2 %r9, %r3, %r3, %r3;", &[two(h(1.5), h(-2.0))]), [two(h(3.75), h(2.0))]);
    assert_eq!(lanes("add.rn.bf16x2 %r9, %r3, %r3;", &[two(b(1.5), b(-2.0))]), [two(b(3.0), b(-4.0))]);
    assert_eq!(lanes("max.f16x2 %r9, %r3, 0;", &[two(h(1.5), h(-2.0))]), [two(h(1.5), 0)]);
    // (1 + 2^-10)^2 - 1 has a last bit that an unfused product loses.
    let x = 1.0 + 2f32.powi(-10);
    let body = "cvt.u16.u32 %rs1, %r3;\nfma.rn.f16 %rs2, %rs1, %rs1, 0xbc00;\ncvt.u32.u16 %r9, %rs2;";
    assert_eq!(lanes(body, &[h(x)]), [h(x * x - 1.0)]);
    let pick = |set: &str| {
        lanes(
            &format!("cvt.u16.u32 %rs1, %r3;\nmov.u16 %rs2, 0x4000;\n{set}\nselp.u32 %r9, 1, 0, %p1;"),
            &[h(1.0), h(3.0), 0x7e00],
        )
    };
    assert_eq!(pick("setp.lt.f16 %p1, %rs1, %rs2;"), [1, 0, 0]);
    assert_eq!(pick("setp.gtu.f16 %p1, %rs1, %rs2;"), [0, 1, 1]);
}
