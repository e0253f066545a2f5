//! Tests of the emulator: small kernels in PTX, what they compute and what they are told off for.

mod counting;
mod sanitizer;

use crate::{Arg, Buffer, Emulator, Launch, LaunchCounters, Memory, Module, Options, Result, WarpOrder};

/// A module with one kernel `k(out, inp, n)`; every thread starts with `%r1 = n`, `%r2 = tid`,
/// `%rd1 = out`, `%rd2 = inp`, `%rd4 = out + 4 tid`, `%rd5 = inp + 4 tid`.
fn module(top: &str, body: &str) -> String {
    format!(
        ".version 8.8\n.target sm_80\n.address_size 64\n{top}\n\
         .visible .entry k(\n.param .u64 k_param_0,\n.param .u64 k_param_1,\n.param .u32 k_param_2\n)\n\
         .maxntid 1024, 1, 1\n{{\n\
         .reg .pred %p<20>;\n.reg .f32 %f<50>;\n.reg .b32 %r<60>;\n.reg .b64 %rd<40>;\n.reg .f64 %fd<20>;\n\
         .reg .b16 %rs<20>;\n.loc 1 10 1\n\
         ld.param.u64 %rd1, [k_param_0];\nld.param.u64 %rd2, [k_param_1];\nld.param.u32 %r1, [k_param_2];\n\
         mov.u32 %r2, %tid.x;\nmul.wide.u32 %rd3, %r2, 4;\nadd.s64 %rd4, %rd1, %rd3;\nadd.s64 %rd5, %rd2, %rd3;\n\
         .loc 1 20 1\n{body}\nret;\n}}\n.file 1 \"kernels/test.cu\"\n"
    )
}

/// How a kernel is launched in a test.
struct Case {
    ptx: String,
    grid: u32,
    block: u32,
    cooperative: bool,
    shared: u32,
    n: i32,
    /// Words of the output.
    out: usize,
    inp: Vec<u32>,
    options: Options,
}

impl Case {
    fn new(body: &str) -> Self {
        Self::with("", body)
    }

    fn with(top: &str, body: &str) -> Self {
        Self {
            ptx: module(top, body),
            grid: 1,
            block: 32,
            cooperative: false,
            shared: 0,
            n: 0,
            out: 32,
            inp: Vec::new(),
            options: Options { threads: 1, ..Options::default() },
        }
    }

    fn block(mut self, threads: u32) -> Self {
        self.block = threads;
        self.out = self.out.max(threads as usize);
        self
    }

    fn n(mut self, n: i32) -> Self {
        self.n = n;
        self
    }

    fn inp(mut self, words: impl IntoIterator<Item = u32>) -> Self {
        self.inp = words.into_iter().collect();
        self
    }

    fn floats(self, values: impl IntoIterator<Item = f32>) -> Self {
        self.inp(values.into_iter().map(f32::to_bits))
    }

    fn run(&self) -> Result<Vec<u32>> {
        Ok(self.start()?.0)
    }

    fn run_counted(&self) -> Result<(Vec<u32>, LaunchCounters)> {
        let (out, counters) = self.start()?;
        Ok((out, counters.expect("the launch was counted")))
    }

    fn start(&self) -> Result<(Vec<u32>, Option<LaunchCounters>)> {
        let kernel = Module::named("test.cu", &self.ptx)?.kernel("k")?;
        let emulator = Emulator::new(self.options);
        let out_at = (self.inp.len() as u64 * 4).next_multiple_of(256);
        let memory = Memory::new(out_at + self.out as u64 * 4)?;
        let bytes: Vec<u8> = self.inp.iter().flat_map(|w| w.to_le_bytes()).collect();
        memory.upload(0, &bytes)?;
        let buffer = |name, offset, words: usize| match words {
            0 => Arg::Null,
            _ => Arg::Buffer(Buffer { memory: &memory, offset, bytes: words as u64 * 4, name }),
        };
        let args = [
            buffer("the output", out_at, self.out),
            buffer("the input", 0, self.inp.len()),
            Arg::I32(self.n),
        ];
        let launch = Launch {
            shared_bytes: self.shared,
            cooperative: self.cooperative,
            label: "the test",
            names: &["out", "inp", "n"],
            ..Launch::new([self.grid, 1, 1], [self.block, 1, 1], &args)
        };
        let counters = emulator.launch(&kernel, &launch)?;
        let mut out = vec![0; self.out * 4];
        memory.download(out_at, &mut out)?;
        let words = out.as_chunks::<4>().0.iter().map(|c| u32::from_le_bytes(*c)).collect();
        Ok((words, counters))
    }

    fn ok(&self) -> Vec<u32> {
        self.run().unwrap_or_else(|e| panic!("{e}"))
    }

    fn floats_out(&self) -> Vec<f32> {
        self.ok().into_iter().map(f32::from_bits).collect()
    }

    /// The message of the fault, which must hold all of these.
    fn fails(&self, parts: &[&str]) {
        match self.run() {
            Ok(_) => panic!("ran without an error, expected {parts:?}"),
            Err(e) => {
                for part in parts {
                    assert!(e.message().contains(part), "no `{part}` in: {}", e.message());
                }
            }
        }
    }
}

/// Result of each lane for `body`, which reads `%f1`/`%r3` (the input word) and sets `%r9`.
fn lanes(body: &str, inp: &[u32]) -> Vec<u32> {
    let text = format!("ld.global.u32 %r3, [%rd5];\nmov.b32 %f1, %r3;\n{body}\nst.global.u32 [%rd4], %r9;");
    let mut words = inp.to_vec();
    words.resize(32, 0);
    Case::new(&text).inp(words).ok()[..inp.len()].to_vec()
}

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
fn lanes_diverge_and_meet_again() {
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
fn a_barrier_at_a_lower_line_than_a_branch_that_leads_to_it() {
    // Code placed after the place it returns to, as compilers do: all lanes still meet at the barrier.
    let body = "setp.lt.s32 %p1, %r2, 16;\n@%p1 bra $L_far;\nmov.u32 %r9, 1;\n$L_join:\nbar.sync 0;\n\
                st.global.u32 [%rd4], %r9;\nret;\n$L_far:\nmov.u32 %r9, 2;\nbra.uni $L_join;";
    let out = Case::new(body).ok();
    assert!(out[..16].iter().all(|v| *v == 2) && out[16..].iter().all(|v| *v == 1));
}

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
    // Forward, lane 1 reads what lane 0 wrote; in reverse warp 3 reads what nobody has written yet.
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
fn named_barriers_order_only_those_who_meet() {
    // Warps 0 and 1 meet at barrier 1, warps 2 and 3 at barrier 2; each reads its neighbour's word.
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
fn atomics() {
    let body = "mov.u32 %r3, 0;\nsetp.ne.s32 %p1, %r2, 0;\nmov.u64 %rd6, s;\n@!%p1 st.shared.u32 [%rd6], %r3;\nbar.sync 0;\n\
                atom.shared.add.u32 %r4, [%rd6], 2;\nbar.sync 0;\nld.shared.u32 %r9, [%rd6];\nst.global.u32 [%rd4], %r9;";
    assert!(Case::with(".shared .align 4 .b8 s[4];", body).block(64).ok().iter().all(|v| *v == 128));
    Case::with(".shared .align 4 .b8 s[4];", &body.replacen("bar.sync 0;\n", "", 1))
        .block(64)
        .fails(&["shared"]);
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
    assert_eq!((at(34).shared_passes, at(34).bank_conflicts), (3, 1));
    assert_eq!((at(35).barriers, at(35).shared_passes, at(35).bank_conflicts), (2, 2, 0));
    assert_eq!(counters.of_class(crate::Class::Fp32).thread_instructions, 96);
    let once = counters;
    case.options.threads = 2;
    assert_eq!(case.run_counted().expect("it is correct").1, once);
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

/// Blocks that write, meet at a barrier of the whole grid, and read what the next one wrote. `arrive`, `ask`: the
/// instructions of the barrier.
fn grid_barrier(arrive: &str, ask: &str) -> Case {
    let body = format!(
        "mov.u32 %r3, %ctaid.x;\nmov.u32 %r4, %nctaid.x;\nmad.lo.s32 %r5, %r3, 64, %r2;\n\
         mul.wide.u32 %rd6, %r5, 4;\nadd.s64 %rd7, %rd1, %rd6;\n\
         .loc 1 30 1\nst.global.u32 [%rd7], %r5;\n.loc 1 40 1\nbar.sync 0;\nsetp.ne.u32 %p1, %r2, 0;\n@%p1 bra $met;\n\
         {arrive}\n$ask:\n.loc 1 50 1\n{ask}\nsetp.ge.u32 %p2, %r7, %r4;\n@%p2 bra $met;\n.loc 1 51 1\n\
         nanosleep.u32 64;\nbra $ask;\n$met:\nbar.sync 0;\n\
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
    grid_barrier("bra $met;", ASK).fails(&["reads 4 bytes that nothing has written", "test.cu:60"]);
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

#[test]
fn a_plain_write_before_atomics_must_be_ordered_before_all_of_them() {
    let put = "setp.eq.u32 %p5, %r5, 0;\n@%p5 st.global.u32 [place], %r5;\n";
    let update = "setp.eq.u32 %p6, %r2, 0;\n@%p6 red.relaxed.gpu.global.add.u32 [place], 1;\n";
    let with = |before: &str, behind: &str| {
        let mut case = grid_barrier(ARRIVE, ASK);
        for (at, more) in [
            (".global .align 4 .u32 counter;\n", ".global .align 4 .u32 place;\n"),
            (".loc 1 40 1\n", before),
            (".loc 1 60 1\n", behind),
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
    // The writer's own atomic behind it does not make up for the others'.
    with(&format!("{put}{update}"), "").fails(&race);
    with(update, &format!("{update}{put}")).fails(&race);
}

#[test]
fn blocks_that_wait_in_vain_are_told() {
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
