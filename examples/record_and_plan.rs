//! From a recorded network to numbers: a tape, its plan, and a run on the emulator, without a GPU.
//!
//!     cargo run --example record_and_plan
//!
//! The network is one layer as U-GAT-IT has many: reflection padding, a 3 x 3 convolution, instance norm with
//! ReLU; then global average pooling. Tensors are `[D, N, H, W, C]`, D the two translation directions; here D = 1.

use ugatit::Result;
use ugatit::device::emulator::{Emulator, Options};
use ugatit::device::executable::{DeviceHandle, Executable};
use ugatit::format;
use ugatit::tape::{Activation, BufferRole, StateLayout, StateView, Tape, Value, plan};
use ugatit::tensor::Shape;

fn main() -> Result<()> {
    // What outlives a run lies in the state: here the image and the weight, each in a buffer of its own.
    let (mut tape, mut layout) = (Tape::new(), StateLayout::default());
    let mut state = |tape: &mut Tape, name: &str, shape: Shape| -> (Value, StateView) {
        let view =
            StateView { buffer: layout.add(BufferRole::Operand, name, 4 * shape.len() as u64), offset: 0 };
        (tape.state(name, shape, view), view)
    };
    let (image, image_at) = state(&mut tape, "image", Shape::new(1, 1, 13, 18, 3));
    let (weight, weight_at) = state(&mut tape, "weight", Shape::new(1, 3, 3, 3, 8));

    // Recording computes nothing. A value that the host reads after the run is kept.
    let padded = tape.pad(image, 1, 1);
    let features = tape.conv("features", padded, weight, None, None, 1, Activation::None);
    let normed = tape.norm("normed", features, None, Activation::Relu, None);
    let pooled = tape.average_pool("pooled", normed);
    tape.keep(pooled);

    // The plan: kernel launches in order, and one arena in which values share memory once nobody reads them.
    let planned = plan("example", &tape, &layout)?;
    let program = planned.program;
    println!("{:<34} {:<28} {:>9} {:>7} {:>9}", "kernel", "for", "grid", "block", "minimum B");
    for l in &program.launches {
        let (grid, block) = (format::extent(l.grid, "x"), format::extent(l.block, "x"));
        println!("{:<34} {:<28} {grid:>9} {block:>7} {:>9}", l.kernel.name, l.label, l.min_bytes);
    }
    println!("state {}, arena {}", format::bytes(program.state_bytes), format::bytes(program.arena_bytes));

    // The emulator runs the kernels' PTX and checks every access.
    let device = DeviceHandle::new(Emulator::new(Options::default()));
    let executable = Executable::new(&device, program)?;
    let wave = |view: StateView, shape: Shape| -> Result<()> {
        let data: Vec<f32> = (0..shape.len()).map(|i| (0.37 * i as f32).sin()).collect();
        executable.state().write(layout.offset(view), &data)
    };
    wave(image_at, tape.shape(image))?;
    wave(weight_at, tape.shape(weight))?;
    executable.run()?;

    // Instance norm makes each channel's mean 0 and its variance 1; ReLU leaves a mean between 0 and 1/2.
    let output: Vec<f32> = executable.read(planned.locations[&pooled])?;
    let means: Vec<String> = output.iter().map(|v| format!("{v:.4}")).collect();
    println!("pooled: {}", means.join(" "));
    assert!(output.iter().all(|v| (0.0..=0.5).contains(v)), "no output of a normed layer");
    Ok(())
}
