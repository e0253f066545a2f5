//! A kernel whose barrier is missing: the emulator names the thread, the block and both lines. With the barrier it runs.
//!
//! `cargo run --example race -p ptx-emulator`

use ptx_emulator::{Buffer, Emulator, ErrorKind, Launch, Memory, Module, Options, Result, WarpOrder};

/// `reverse.cu`:
///
/// ```text
/// 1  extern "C" __global__ void reverse(float *x) {
/// 2    __shared__ float copy[64];
/// 3    copy[threadIdx.x] = x[threadIdx.x];
/// 4    __syncthreads();
/// 5    x[threadIdx.x] = copy[63 - threadIdx.x];
/// 6  }
/// ```
const PTX: &str = r#"
.version 8.0
.target sm_80
.address_size 64

.visible .entry reverse(.param .u64 reverse_param_0)
{
    .shared .align 4 .b8 copy[256];
    .reg .f32 %f<3>;
    .reg .b32 %r<6>;
    .reg .b64 %rd<4>;

    ld.param.u64 %rd1, [reverse_param_0];
    .loc 1 3 5
    mov.u32 %r1, %tid.x;
    mul.wide.u32 %rd2, %r1, 4;
    add.s64 %rd3, %rd1, %rd2;
    ld.global.f32 %f1, [%rd3];
    mov.u32 %r2, copy;
    shl.b32 %r3, %r1, 2;
    add.s32 %r4, %r2, %r3;
    st.shared.f32 [%r4], %f1;
    .loc 1 4 5
    bar.sync 0;
    .loc 1 5 5
    sub.s32 %r5, %r2, %r3;
    ld.shared.f32 %f2, [%r5+252];
    st.global.f32 [%rd3], %f2;
    ret;
}
.file 1 "reverse.cu"
"#;

fn run(ptx: &str, order: WarpOrder) -> Result<Vec<f32>> {
    let values: Vec<f32> = (0..64).map(|i| i as f32).collect();
    let memory = Memory::of(&values)?;
    let kernel = Module::from_ptx(ptx)?.kernel("reverse")?;
    let emulator = Emulator::new(Options { warp_order: order, ..Options::default() });
    let args = [Buffer::whole(&memory, "x").into()];
    emulator.launch(&kernel, &Launch::new([1, 1, 1], [64, 1, 1], &args))?;
    memory.read(0, values.len())
}

fn main() -> Result<()> {
    let broken = PTX.replace("bar.sync 0;", "");
    for order in [WarpOrder::Forward, WarpOrder::Reverse] {
        let error = run(&broken, order).expect_err("the barrier is missing");
        println!("Without the barrier, {order:?}: {error}");
        println!("  kind: {:?}", error.kind());
        println!("  thread: {:?} of block {:?}", error.thread(), error.block());
        println!("  line: {:?} of {:?}", error.line(), error.file());
        println!("  variable: {:?}", error.variable());
        assert!([ErrorKind::Race, ErrorKind::Uninitialized].contains(&error.kind()));
        let out = run(PTX, order)?;
        assert!(out.iter().rev().enumerate().all(|(i, v)| *v == i as f32));
        println!("With the barrier, {order:?}: {:?} ..\n", &out[..4]);
    }
    Ok(())
}
