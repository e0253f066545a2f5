//! Convolutions and whole training steps with fused and with unfused norms, on the emulator or, with `UGATIT_DEVICE=cuda`, on a GPU.
//!
//! On a GPU the times are the device's own, by events around a graph launch. On the emulator they are wall
//! time, with the warp-instructions a second as throughput: a figure of the emulator, not of any GPU.

use std::time::{Duration, Instant};

use criterion::{
    BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use ugatit::device::emulator::{Emulator, Options};
use ugatit::device::executable::{DeviceHandle, Executable, LaunchMode};
use ugatit::device::select;
use ugatit::nn::Config;
use ugatit::tape::{
    Activation, BufferRole, ConvVariant, LowerOptions, NormVariant, Precision, Seed, StateLayout, StateView,
    Tape, plan_with,
};
use ugatit::tensor::Shape;
use ugatit::train::{Inference, Recording, Trainer, TrainingPlan};

/// The GPU that was asked for; None for the emulator.
fn gpu() -> Option<select::Choice> {
    let choice = select::Choice::from_env().expect("UGATIT_DEVICE").unwrap_or(select::Choice::Emulator);
    matches!(choice, select::Choice::Cuda(_)).then_some(choice)
}

/// One run: device time where the device has a clock, else wall time.
fn timed(executable: &Executable) -> Duration {
    let start = Instant::now();
    let device = executable.time(LaunchMode::Graph).expect("runs");
    let wall = start.elapsed();
    device.map_or(wall, |ms| Duration::from_secs_f64(ms / 1e3))
}

/// Forward, dgrad and wgrad of one convolution.
fn conv(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    s: Shape,
    co: usize,
    k: usize,
    variant: ConvVariant,
) {
    let mut layout = StateLayout::default();
    let mut tape = Tape::new();
    let mut add = |tape: &mut Tape, name: &str, s: Shape| {
        let view = StateView { buffer: layout.add(BufferRole::Operand, name, 4 * s.len() as u64), offset: 0 };
        tape.state(name, s, view)
    };
    let w = Shape::new(s.d, k, k, s.c, co);
    let o = Shape { h: s.h - k + 1, w: s.w - k + 1, c: co, ..s };
    let [x, dx] = ["x", "dx"].map(|n| add(&mut tape, n, s));
    let [weight, dweight] = ["w", "dw"].map(|n| add(&mut tape, n, w));
    let dy = add(&mut tape, "dy", o);
    let y = tape.conv("y", x, weight, None, None, 1, Activation::None);
    tape.keep(y);
    tape.backward(&[Seed::Upstream(y, dy)], &[(x, dx), (weight, dweight)]);
    let planned = plan_with(name, &tape, &layout, LowerOptions { conv: Some(variant), ..Default::default() })
        .expect("plans");
    let data: Vec<f32> = (0..layout.bytes() as usize / 4)
        .map(|i| ((i * 2_654_435_761) % 1009) as f32 / 1009.0 - 0.5)
        .collect();

    let program = planned.program;
    let ready = |device: &DeviceHandle| -> Executable {
        let executable = Executable::new(device, program.clone()).expect("loads");
        executable.state().write(0, &data).expect("writes");
        executable
    };
    if let Some(gpu) = gpu() {
        let executable = ready(&select::open(gpu).expect("a GPU").0);
        let flops: u64 = program.launches.iter().map(|l| l.flops).sum();
        group.throughput(Throughput::Elements(flops));
        group.bench_function(name, |b| {
            b.iter_custom(|n| (0..n).map(|_| timed(&executable)).sum());
        });
    } else {
        let counted = ready(&DeviceHandle::new(Emulator::new(Options { count: true, ..Options::default() })));
        counted.run().expect("runs");
        let launches = counted.counters().unwrap_or_default();
        let instructions = launches.iter().map(|l| l.total().warp_instructions).sum();
        // Without the check for races between blocks, with it, and counting besides.
        let one = Options { threads: 1, ..Options::default() };
        let races = Options { check_races: true, ..one };
        for (how, options) in
            [("", one), (", all checks", races), (", all checks, counted", Options { count: true, ..races })]
        {
            let device = DeviceHandle::new(Emulator::new(options));
            let executable = ready(&device);
            executable.run().expect("runs");
            group.throughput(Throughput::Elements(instructions));
            group.bench_function(format!("{name}{how}, warp-instructions on one core"), |b| {
                b.iter(|| executable.run().expect("runs"));
            });
        }
    }
}

fn convolutions(c: &mut Criterion) {
    let mut group = c.benchmark_group("conv");
    group.sample_size(10);
    let (s, co) = if gpu().is_some() {
        (Shape::new(2, 2, 66, 66, 256), 256) // a residual block's, two images a direction
    } else {
        (Shape::new(1, 1, 34, 34, 32), 32)
    };
    conv(&mut group, "1_direct", s, co, 3, ConvVariant::Direct);
    conv(&mut group, "2_implicit_gemm", s, co, 3, ConvVariant::ImplicitGemm);
    conv(&mut group, "3_tensor_core", s, co, 3, ConvVariant::TensorCore);
    group.finish();
}

fn training_steps(c: &mut Criterion) {
    let mut group = c.benchmark_group("training step");
    group.sample_size(10);
    for norm in [NormVariant::PadFused, NormVariant::Composed, NormVariant::Elementary] {
        training_step(&mut group, norm, Precision::F32);
    }
    training_step(&mut group, NormVariant::default(), Precision::Tf32);
    group.finish();
}

/// The official network on a GPU, a small one on the emulator.
fn network() -> Config {
    match gpu() {
        Some(_) => Config { light: true, ..Config::default() },
        None => Config { light: true, img_size: 32, ch: 8, n_res: 2, n_dis: 4, ..Config::default() },
    }
}

/// An image and the device to run on.
fn image_and_device(cfg: &Config) -> (Vec<f32>, DeviceHandle) {
    let values = cfg.img_size.pow(2) * 3;
    let image = (0..values).map(|i| ((i * 7919) % 511) as f32 / 255.5 - 1.0).collect();
    (image, select::open(gpu().unwrap_or(select::Choice::Emulator)).expect("a device").0)
}

fn training_step(group: &mut BenchmarkGroup<'_, WallTime>, norm: NormVariant, precision: Precision) {
    let cfg = network();
    let (image, device) = image_and_device(&cfg);
    let options = LowerOptions { norm, precision, ..LowerOptions::on(device.lock().target()) };
    let mut trainer =
        Trainer::load(&device, TrainingPlan::new(&cfg, 1, 0, Recording::default(), options).expect("plans"))
            .expect("fits");
    trainer.initialise(1).expect("initialises");
    let mut step = 0;
    let name =
        format!("{norm} norms, {precision}, {} px, ch {}, n_res {}, light", cfg.img_size, cfg.ch, cfg.n_res);
    group.bench_function(name, |b| {
        b.iter_custom(|n| {
            let mut total = Duration::ZERO;
            for _ in 0..n {
                step += 1;
                let start = Instant::now();
                trainer.step(step, &image, &image).expect("runs");
                trainer.device().lock().synchronize().expect("runs");
                let wall = start.elapsed();
                let device_ms = trainer.device().lock().elapsed_ms().expect("has run");
                total += device_ms.map_or(wall, |ms| Duration::from_secs_f64(ms / 1e3));
            }
            total
        });
    });
}

/// A generator's pass; wall time has the copies to and from the device in it.
fn translations(c: &mut Criterion) {
    let mut group = c.benchmark_group("translation");
    group.sample_size(10);
    let cfg = network();
    let (image, device) = image_and_device(&cfg);
    for precision in Precision::ALL {
        let mut inference = Inference::new(&device, &cfg, precision, 0, 1).expect("fits");
        inference.initialise(1).expect("initialises");
        inference.translate(&image).expect("runs");
        let name = format!("{precision}, {} px, ch {}, n_res {}, light", cfg.img_size, cfg.ch, cfg.n_res);
        group.bench_function(name, |b| {
            b.iter_custom(|n| (0..n).map(|_| timed(inference.executable())).sum());
        });
    }
    group.finish();
}

criterion_group!(benches, convolutions, training_steps, translations);
criterion_main!(benches);
