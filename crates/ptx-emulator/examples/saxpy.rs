//! Runs `y = a x + y` and prints the result and what the kernel executed and moved.
//!
//! `cargo run --example saxpy -p ptx-emulator`

use ptx_emulator::{Buffer, Class, Emulator, Launch, Memory, Module, Options, Result};

/// `if (i < n) y[i] = a * x[i] + y[i]`, with `i` the number of the thread in the grid.
const PTX: &str = r#"
.version 8.0
.target sm_80
.address_size 64

.visible .entry saxpy(
    .param .u32 saxpy_param_0,
    .param .f32 saxpy_param_1,
    .param .u64 saxpy_param_2,
    .param .u64 saxpy_param_3
)
{
    .reg .pred %p<2>;
    .reg .f32 %f<5>;
    .reg .b32 %r<6>;
    .reg .b64 %rd<6>;

    .loc 1 2 3
    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %ntid.x;
    mov.u32 %r3, %tid.x;
    mad.lo.s32 %r4, %r1, %r2, %r3;
    .loc 1 3 3
    ld.param.u32 %r5, [saxpy_param_0];
    setp.ge.s32 %p1, %r4, %r5;
    @%p1 bra $end;
    .loc 1 4 3
    ld.param.f32 %f1, [saxpy_param_1];
    ld.param.u64 %rd1, [saxpy_param_2];
    ld.param.u64 %rd2, [saxpy_param_3];
    mul.wide.s32 %rd3, %r4, 4;
    add.s64 %rd4, %rd1, %rd3;
    add.s64 %rd5, %rd2, %rd3;
    ld.global.f32 %f2, [%rd4];
    ld.global.f32 %f3, [%rd5];
    fma.rn.f32 %f4, %f1, %f2, %f3;
    st.global.f32 [%rd5], %f4;
$end:
    ret;
}
.file 1 "saxpy.cu"
"#;

fn main() -> Result<()> {
    let n = 1000;
    let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
    let (x_memory, y_memory) = (Memory::of(&x)?, Memory::of(&vec![1f32; x.len()])?);

    let kernel = Module::from_ptx(PTX)?.kernel("saxpy")?;
    let emulator = Emulator::new(Options { count: true, ..Options::default() });
    let args =
        [n.into(), 2f32.into(), Buffer::whole(&x_memory, "x").into(), Buffer::whole(&y_memory, "y").into()];
    let counters = emulator.launch(&kernel, &Launch::new([4, 1, 1], [256, 1, 1], &args))?;

    let y: Vec<f32> = y_memory.read(0, x.len())?;
    assert!(y.iter().zip(&x).all(|(y, x)| *y == 2.0 * x + 1.0));
    println!("y = {:?} .. {:?}", &y[..4], &y[y.len() - 2..]);

    let counters = counters.expect("the launch was counted");
    let total = counters.total();
    println!("{} warp instructions, {} operations", total.warp_instructions, total.flops);
    println!("{} bytes read in {} sectors", total.global_read_bytes, total.read_sectors);
    println!("{} bytes written in {} sectors", total.global_written_bytes, total.written_sectors);
    println!("{} branches at which a warp diverged", total.divergent_branches);
    println!("{} loads by warps", counters.of_class(Class::LoadGlobal).warp_instructions);
    for line in counters.by_line() {
        println!("{}:{} {} warp instructions", line.file, line.line, line.counters.warp_instructions);
    }
    Ok(())
}
