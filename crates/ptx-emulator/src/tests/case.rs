//! A kernel of a test, and how it is launched.

use crate::{Arg, Buffer, Emulator, Launch, LaunchCounters, Memory, Module, Options, Result};

/// A module with one kernel `k(out, inp, n)`; every thread starts with `%r1 = n`, `%r2 = tid`,
/// `%rd1 = out`, `%rd2 = inp`, `%rd4 = out + 4 tid`, `%rd5 = inp + 4 tid`.
pub(super) fn module(top: &str, body: &str) -> String {
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
pub(super) struct Case {
    pub(super) ptx: String,
    pub(super) source_root: &'static str,
    pub(super) grid: u32,
    pub(super) block: u32,
    pub(super) cooperative: bool,
    pub(super) shared: u32,
    pub(super) n: i32,
    /// Words of the output.
    pub(super) out: usize,
    pub(super) inp: Vec<u32>,
    pub(super) options: Options,
}

impl Case {
    pub(super) fn new(body: &str) -> Self {
        Self::with("", body)
    }

    pub(super) fn with(top: &str, body: &str) -> Self {
        Self {
            ptx: module(top, body),
            source_root: "",
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

    pub(super) fn block(mut self, threads: u32) -> Self {
        self.block = threads;
        self.out = self.out.max(threads as usize);
        self
    }

    pub(super) fn n(mut self, n: i32) -> Self {
        self.n = n;
        self
    }

    pub(super) fn inp(mut self, words: impl IntoIterator<Item = u32>) -> Self {
        self.inp = words.into_iter().collect();
        self
    }

    pub(super) fn floats(self, values: impl IntoIterator<Item = f32>) -> Self {
        self.inp(values.into_iter().map(f32::to_bits))
    }

    pub(super) fn run(&self) -> Result<Vec<u32>> {
        Ok(self.start()?.0)
    }

    pub(super) fn run_counted(&self) -> Result<(Vec<u32>, LaunchCounters)> {
        let (out, counters) = self.start()?;
        Ok((out, counters.expect("the launch was counted")))
    }

    pub(super) fn start(&self) -> Result<(Vec<u32>, Option<LaunchCounters>)> {
        let kernel = Module::named("test.cu", &self.ptx)?.with_source_root(self.source_root).kernel("k")?;
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

    pub(super) fn ok(&self) -> Vec<u32> {
        self.run().unwrap_or_else(|e| panic!("{e}"))
    }

    pub(super) fn floats_out(&self) -> Vec<f32> {
        self.ok().into_iter().map(f32::from_bits).collect()
    }

    /// The message of the fault, which must hold all of these.
    pub(super) fn fails(&self, parts: &[&str]) {
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
pub(super) fn lanes(body: &str, inp: &[u32]) -> Vec<u32> {
    let text = format!("ld.global.u32 %r3, [%rd5];\nmov.b32 %f1, %r3;\n{body}\nst.global.u32 [%rd4], %r9;");
    let mut words = inp.to_vec();
    words.resize(32, 0);
    Case::new(&text).inp(words).ok()[..inp.len()].to_vec()
}
