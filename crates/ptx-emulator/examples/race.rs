//! A kernel whose barrier is missing: the emulator names the thread, the block and both lines. With the barrier it runs.
//!
//! `cargo run --example race -p ptx-emulator`

use ptx_emulator::{Buffer, Emulator, ErrorKind, Launch, Memory, Module, Options, Result, WarpOrder};

/// `hand_over.cu`, of two warps, the first of which writes what the second reads:
///
/// ```text
/// 1  extern "C" __global__ void hand_over(float *x) {
/// 2    __shared__ float copy[32];
/// 3    if (threadIdx.x < 32) copy[threadIdx.x] = x[threadIdx.x];
/// 4    __syncthreads();
/// 5    if (threadIdx.x >= 32) x[threadIdx.x] = copy[threadIdx.x - 32];
/// 6  }
/// ```
const PTX: &str = r#"
.version 8.0
.target sm_80
.address_size 64

.visible .entry hand_over(.param .u64 hand_over_param_0)
{
    .shared .align 4 .b8 copy[128];
    .reg .pred %p<2>;
    .reg .f32 %f<3>;
    .reg .b32 %r<2>;
    .reg .b64 %rd<6>;

    ld.param.u64 %rd1, [hand_over_param_0];
    .loc 1 3 3
    mov.u32 %r1, %tid.x;
    mul.wide.u32 %rd2, %r1, 4;
    add.s64 %rd3, %rd1, %rd2;
    mov.u64 %rd4, copy;
    add.s64 %rd5, %rd4, %rd2;
    setp.lt.u32 %p1, %r1, 32;
    @%p1 ld.global.f32 %f1, [%rd3];
    @%p1 st.shared.f32 [%rd5], %f1;
    .loc 1 4 3
    bar.sync 0;
    .loc 1 5 3
    @!%p1 ld.shared.f32 %f2, [%rd5+-128];
    @!%p1 st.global.f32 [%rd3], %f2;
    ret;
}
.file 1 "hand_over.cu"
"#;

fn run(ptx: &str, order: WarpOrder) -> Result<Vec<f32>> {
    let values: Vec<f32> = (0..64).map(|i| i as f32).collect();
    let memory = Memory::of(&values)?;
    let kernel = Module::from_ptx(ptx)?.kernel("hand_over")?;
    let emulator = Emulator::new(Options { warp_order: order, ..Options::default() });
    let args = [Buffer::whole(&memory, "x").into()];
    emulator.launch(&kernel, &Launch::new([1, 1, 1], [64, 1, 1], &args))?;
    memory.read(0, values.len())
}

fn main() -> Result<()> {
    let broken = PTX.replace("bar.sync 0;", "");
    // In one order the second warp reads what the first one wrote, in the other what nothing has written yet.
    for (order, kind) in
        [(WarpOrder::Forward, ErrorKind::Race), (WarpOrder::Reverse, ErrorKind::Uninitialized)]
    {
        let error = run(&broken, order).expect_err("the barrier is missing");
        println!("Without the barrier, {order:?}: {error}");
        println!("  kind: {:?}", error.kind());
        println!("  thread: {:?} of block {:?}", error.thread(), error.block());
        println!("  line: {:?} of {:?}", error.line(), error.file());
        println!("  variable: {:?}", error.variable());
        assert_eq!((error.kind(), error.line()), (kind, Some(5)));
        let out = run(PTX, order)?;
        assert!(out.iter().enumerate().all(|(i, v)| *v == (i % 32) as f32));
        println!("With the barrier, {order:?}: x[32..36] = {:?}\n", &out[32..36]);
    }
    Ok(())
}
