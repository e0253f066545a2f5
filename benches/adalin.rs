//! Forward and backward of every variant under criterion. With a GPU, the first or that of `UGATIT_DEVICE`, it is device
//! time by events; without one the emulator runs a small shape, and what is measured is the emulator's own time, named so.

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use ugatit::bench::adalin::build::Part;
use ugatit::bench::adalin::case::{Case, Kind};
use ugatit::bench::adalin::graph_time;
use ugatit::bench::adalin::tensors::Inputs;
use ugatit::device::DeviceKind;
use ugatit::device::executable::Executable;
use ugatit::device::select::{self, Choice};
use ugatit::tape::NormVariant;
use ugatit::tensor::{DType, Shape};

fn norms(c: &mut Criterion) {
    let choice = Choice::from_env().expect("UGATIT_DEVICE").unwrap_or_default();
    let (device, _) = select::open(choice).expect("what was asked for, or the emulator");
    let gpu = (device.lock().kind() == DeviceKind::Gpu).then(|| device.clone());
    let shape = if gpu.is_some() { Shape::new(1, 1, 64, 64, 256) } else { Shape::new(1, 1, 16, 16, 64) };
    let what = if gpu.is_some() { "adalin" } else { "adalin (emulator's own time, not a GPU's)" };
    let mut group = c.benchmark_group(what);
    group.sample_size(10).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(300));
    for variant in NormVariant::ALL {
        for (name, part) in [("forward", Part::Forward), ("backward", Part::Backward)] {
            let case = Case::new(Kind::AdaLin, variant, DType::F32, shape);
            let built = case.build().expect("a valid case");
            if gpu
                .as_ref()
                .is_some_and(|gpu| gpu.lock().check_launches(&built.program(Part::Both, 1, 1)).is_err())
            {
                continue; // a GPU with too few multiprocessors for the cooperative variant
            }
            group.bench_function(format!("{variant} {name}"), |b| match &gpu {
                Some(gpu) => b.iter_custom(|passes| {
                    let mut left = passes as usize;
                    let mut total = 0.0;
                    while left > 0 {
                        let now = left.min(256);
                        total += graph_time(gpu, &built, part, now).expect("the GPU runs it");
                        left -= now;
                    }
                    Duration::from_secs_f64(total / 1e6)
                }),
                None => {
                    let inputs = Inputs::random(&case, 0.5, 1.0, 1);
                    let state = built.state(&device, 1, &inputs).expect("memory");
                    let load = |part| Executable::load(built.program(part, 1, 1), &state).expect("loads");
                    load(Part::Forward).run().expect("runs");
                    let one = load(part);
                    b.iter_custom(|passes| {
                        let start = Instant::now();
                        for _ in 0..passes {
                            one.run().expect("runs");
                        }
                        start.elapsed()
                    });
                }
            });
        }
    }
    group.finish();
}

criterion_group!(benches, norms);
criterion_main!(benches);
