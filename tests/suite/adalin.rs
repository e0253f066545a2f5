//! Every variant of `kernels/adalin` in every element type: against recorded data, against double precision,
//! twice the same bits; what it moves, and what the compiler made of it.

use std::collections::HashMap;

use safetensors::SafeTensors;
use ugatit::bench::adalin::build::Part;
use ugatit::bench::adalin::case::{Case, Kind};
use ugatit::bench::adalin::reference;
use ugatit::bench::adalin::tensors::{Inputs, Outputs, deviation};
use ugatit::bench::adalin::{count, tolerance};
use ugatit::device::emulator::{Emulator, Options, WarpOrder};
use ugatit::device::executable::{DeviceHandle, Executable};
use ugatit::device::{Arg, Buffer, BufferRef, DeviceKind, Launch, Program, Space, Target};
use ugatit::kernels::{Kernel, Module, entry};
use ugatit::model::machine;
use ugatit::tape::{
    Activation, Affine, BufferRole, LowerOptions, NormVariant, Seed, StateLayout, StateView, Tape,
    plan::plan_with,
};
use ugatit::tensor::{DType, Shape, nchw_to_nhwc};

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::Bf16];

thread_local! {
    /// The device under test, opened once for each test.
    static DEVICE: DeviceHandle = crate::device();
}

fn device() -> DeviceHandle {
    DEVICE.with(DeviceHandle::clone)
}

/// The variants that the device under test runs: a small GPU does not hold the blocks of the cooperative one.
fn variants() -> impl Iterator<Item = NormVariant> {
    let runs = |variant: &NormVariant| {
        let built =
            Case::new(Kind::AdaLin, *variant, DType::F32, Shape::new(1, 4, 32, 32, 64)).build().unwrap();
        variant.trains() || device().lock().check_launches(&built.program(Part::Both, 1, 1)).is_ok()
    };
    NormVariant::ALL.into_iter().filter(runs)
}

fn run(case: &Case, inputs: &Inputs) -> Outputs {
    let device = device();
    let built = case.build().unwrap_or_else(|e| panic!("{}: {e}", case.describe()));
    built.run(&device, inputs).unwrap_or_else(|e| panic!("{}: {e}", case.describe()))
}

fn check(case: &Case, inputs: &Inputs, want: &Outputs, tolerance: f64) {
    let got = run(case, inputs);
    let names = ["out", "dx", "drho", "dgamma", "dbeta"];
    // Over two pixels a standardised value is 1 or -1 whatever they are, and its gradient a difference of equal
    // numbers: rounded at every step in 16 bits, nothing of it is left.
    let lost = case.shape.pixels() == 2 && case.dtype != DType::F32 && case.variant.rounds_intermediates();
    let shown = if lost { 1 } else { names.len() };
    for (name, err) in names.into_iter().zip(deviation(&got, want, case.dtype)).take(shown) {
        assert!(err <= tolerance, "{}: {name} is off by {err:.2e}, allowed {tolerance:.0e}", case.describe());
    }
}

/// Every variant and type on one layer, against the definition in double precision.
fn check_all(kind: Kind, shape: Shape, offset: f32, spread: f32, widen: f64) {
    for dtype in DTYPES {
        for variant in variants() {
            let case = Case::new(kind, variant, dtype, shape);
            let inputs = Inputs::random(&case, offset, spread, 7);
            check(
                &case,
                &inputs,
                &reference::outputs(&case, &inputs),
                tolerance(case.variant, case.dtype) * widen,
            );
        }
    }
}

#[test]
fn golden_forward_and_backward() {
    let bytes = std::fs::read("tests/golden/ops.safetensors").unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let header: &HashMap<String, String> = header.metadata().as_ref().unwrap();
    let cases: Vec<serde_json::Value> = serde_json::from_str(&header["cases"]).unwrap();
    let mut seen = 0;
    for golden in &cases {
        let kind = match golden["op"].as_str().unwrap() {
            "adalin" => Kind::AdaLin,
            "iln" => Kind::Iln,
            "instance_norm" => Kind::Instance,
            _ => continue,
        };
        let name = golden["name"].as_str().unwrap();
        let shape: Vec<usize> =
            golden["x"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect();
        let [n, c, h, w] = shape[..] else { panic!("{name} has no shape") };
        let read = |what: &str| -> Vec<f32> {
            let Ok(t) = file.tensor(&format!("{name}/{what}")) else { return Vec::new() };
            let floats = t.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            floats.collect()
        };
        let tensor = |what: &str| nchw_to_nhwc(&read(what), n, c, h, w);
        let inputs = Inputs {
            x: tensor("x"),
            dy: tensor("dy"),
            residual: Vec::new(),
            rho: read("rho"),
            gamma: read("gamma"),
            beta: read("beta"),
        };
        let wide = |v: Vec<f32>| -> Vec<f64> { v.into_iter().map(f64::from).collect() };
        let want = Outputs {
            out: wide(tensor("y")),
            dx: wide(tensor("d_x")),
            drho: wide(read("d_rho")),
            dgamma: wide(read("d_gamma")),
            dbeta: wide(read("d_beta")),
        };
        let shape = Shape::new(1, n, h, w, c);
        // Two pixels have two values, so what the instance norm makes of them hangs on their difference.
        // At an offset of 50 the mean's own rounding is 2e-6 of a standard deviation, and drho a difference.
        let offset = golden["offset"].as_f64().unwrap() != 0.0;
        let widen = if h * w == 2 {
            50.0
        } else if offset {
            5.0
        } else {
            1.0
        };
        for variant in NormVariant::ALL {
            let case = Case::new(kind, variant, DType::F32, shape);
            check(&case, &inputs, &want, tolerance(case.variant, case.dtype) * widen);
            for dtype in [DType::F16, DType::Bf16] {
                let case = Case { dtype, ..case };
                let inputs = inputs.clone().rounded(dtype);
                let want = reference::outputs(&case, &inputs);
                check(&case, &inputs, &want, tolerance(case.variant, case.dtype) * widen);
            }
        }
        // The reference agrees with the recorded data, so that it may stand in for it elsewhere.
        let case = Case::new(kind, NormVariant::Fused, DType::F32, shape);
        for err in deviation(&reference::outputs(&case, &inputs), &want, DType::F32) {
            assert!(err <= 3e-7 * widen, "{name}: the reference is off by {err:.2e}");
        }
        seen += 1;
    }
    assert_eq!(seen, 9);
}

#[test]
fn odd_shapes() {
    for (n, h, w, c) in
        [(1, 37, 29, 3), (2, 5, 8, 7), (1, 7, 9, 5), (2, 1, 2, 3), (2, 6, 5, 24), (1, 9, 3, 40)]
    {
        for kind in [Kind::AdaLin, Kind::Iln, Kind::Instance] {
            check_all(kind, Shape::new(1, n, h, w, c), 0.3, 1.0, if h * w == 2 { 50.0 } else { 1.0 });
        }
    }
}

#[test]
fn two_directions_with_two_images_each() {
    for kind in [Kind::AdaLin, Kind::Iln, Kind::Instance] {
        check_all(kind, Shape::new(2, 2, 6, 7, 16), 0.0, 1.0, 1.0);
        check_all(kind, Shape::new(2, 3, 4, 5, 6), 0.0, 1.0, 1.0);
    }
}

#[test]
fn a_large_mean_with_a_small_variance() {
    // Mean 50, standard deviation 0.03: E[x^2] - E[x]^2 would have no digit left in fp32. The mean's own
    // rounding, 2e-6, is 6e-5 of a deviation; no variant can do better than that with an fp32 mean. drho is a
    // difference of two such results.
    for (kind, c) in [(Kind::AdaLin, 16), (Kind::Iln, 5), (Kind::Instance, 8)] {
        for variant in NormVariant::ALL {
            let case = Case::new(kind, variant, DType::F32, Shape::new(1, 2, 24, 20, c));
            let inputs = Inputs::random(&case, 50.0, 0.0316, 3);
            check(&case, &inputs, &reference::outputs(&case, &inputs), 5e-4);
        }
    }
}

#[test]
fn activation_residual_and_padding() {
    for (shape, pad, up) in [
        (Shape::new(1, 2, 6, 5, 8), 1, 1),
        (Shape::new(2, 1, 5, 4, 3), 3, 1),
        (Shape::new(1, 1, 4, 3, 16), 1, 2),
    ] {
        for (act, residual) in
            [(Activation::Relu, false), (Activation::LeakyRelu, true), (Activation::None, true)]
        {
            for dtype in DTYPES {
                for variant in NormVariant::ALL {
                    let mut case = Case::new(Kind::AdaLin, variant, dtype, shape);
                    (case.act, case.residual) = (act, residual);
                    if variant.rounds_intermediates() && dtype != DType::F32 {
                        assert_eq!(case.build().is_err(), act != Activation::None);
                        continue;
                    }
                    if variant.fuses_padding() {
                        case.padded = Some((pad, up));
                    }
                    let inputs = Inputs::random(&case, 0.1, 1.0, 11);
                    let mut want = reference::outputs(&case, &inputs);
                    want.out = reference::padded(&case, &want.out);
                    check(&case, &inputs, &want, tolerance(case.variant, case.dtype));
                }
            }
        }
    }
}

#[test]
fn the_reference_is_the_derivative_of_its_forward_pass() {
    // Finite differences in double precision, through a scalar <dy, out>.
    for kind in [Kind::AdaLin, Kind::Iln, Kind::Instance] {
        let mut case = Case::new(kind, NormVariant::Fused, DType::F32, Shape::new(1, 2, 3, 4, 3));
        case.act = Activation::LeakyRelu;
        let inputs = Inputs::random(&case, 0.2, 1.0, 5);
        let grads = reference::outputs(&case, &inputs);
        let total = |inputs: &Inputs| -> f64 {
            let out = reference::outputs(&case, inputs).out;
            out.iter().zip(&inputs.dy).map(|(y, &g)| y * f64::from(g)).sum()
        };
        type Pick = fn(&mut Inputs) -> &mut Vec<f32>;
        let tensors: [(&str, Pick, &Vec<f64>); 4] = [
            ("x", |i| &mut i.x, &grads.dx),
            ("rho", |i| &mut i.rho, &grads.drho),
            ("gamma", |i| &mut i.gamma, &grads.dgamma),
            ("beta", |i| &mut i.beta, &grads.dbeta),
        ];
        for (name, pick, grad) in tensors {
            for (at, &grad) in grad.iter().enumerate() {
                let (mut low, mut high) = (inputs.clone(), inputs.clone());
                let (a, b) = (&mut pick(&mut low)[at], &mut pick(&mut high)[at]);
                // The step that was really taken, after rounding to f32.
                (*a, *b) = (*a - 1e-3, *b + 1e-3);
                let step = f64::from(*b) - f64::from(*a);
                let slope = (total(&high) - total(&low)) / step;
                let err = (slope - grad).abs() / (1.0 + slope.abs());
                assert!(err <= 2e-4, "{kind}: d {name}[{at}] is {grad} but the slope is {slope}");
            }
        }
    }
}

#[test]
fn the_same_bits_on_every_run() {
    let emulated = device().lock().kind() == DeviceKind::Emulator;
    for variant in variants() {
        for dtype in DTYPES {
            let case = Case::new(Kind::Iln, variant, dtype, Shape::new(2, 2, 20, 17, 16));
            let inputs = Inputs::random(&case, 1.0, 1.0, 2);
            let first = run(&case, &inputs);
            let again = match emulated {
                true => DeviceHandle::new(Emulator::new(Options { threads: 1, ..Options::default() })),
                false => device(),
            };
            let second = case.build().unwrap().run(&again, &inputs).unwrap();
            assert_eq!(first, second, "{}", case.describe());
        }
    }
}

#[test]
fn a_nan_reaches_output_and_gradient() {
    for variant in variants() {
        let case = Case::new(Kind::AdaLin, variant, DType::F32, Shape::new(1, 1, 6, 5, 8));
        let mut inputs = Inputs::random(&case, 0.0, 1.0, 2);
        inputs.x[100] = f32::NAN;
        let got = run(&case, &inputs);
        assert!(got.out.iter().all(|v| v.is_nan()), "{variant}: the layer's statistics lost a NaN");
        assert!(got.dx.iter().all(|v| v.is_nan()), "{variant}");
    }
}

#[test]
fn launches_are_as_many_as_the_baselines_say() {
    let launches = |kind, variant| {
        let built = Case::new(kind, variant, DType::F16, Shape::new(1, 1, 64, 64, 256)).build().unwrap();
        (built.launches(Part::Forward).len(), built.launches(Part::Backward).len())
    };
    assert_eq!(launches(Kind::AdaLin, NormVariant::Elementary), (18, 47));
    assert_eq!(launches(Kind::Iln, NormVariant::Elementary), (18, 47));
    assert_eq!(launches(Kind::Instance, NormVariant::Elementary), (6, 17));
    assert_eq!(launches(Kind::AdaLin, NormVariant::Composed), (7, 14));
    assert_eq!(launches(Kind::Instance, NormVariant::Composed), (2, 2));
    for variant in [NormVariant::Fused, NormVariant::Vectorised, NormVariant::PadFused] {
        assert_eq!(launches(Kind::AdaLin, variant), (3, 3));
    }
    // One launch, and one for the gradients of the parameters.
    assert_eq!(launches(Kind::AdaLin, NormVariant::Cooperative), (1, 2));
    assert_eq!(launches(Kind::Instance, NormVariant::Cooperative), (1, 1));
}

#[test]
fn the_fused_variants_move_little_more_than_they_must() {
    // The pass that writes the result: forward x in, result out; backward dout and x in, dx out. The
    // statistics before it read x once more, the sums before the backward one dout and x; with them three
    // and five passes over the tensor. Partial results and parameters may add 5 %.
    for (dtype, variants) in [
        (DType::F32, &[NormVariant::Fused, NormVariant::Vectorised, NormVariant::PadFused][..]),
        (DType::F16, &[NormVariant::Vectorised, NormVariant::PadFused]),
        (DType::Bf16, &[NormVariant::Vectorised]),
    ] {
        for &variant in variants {
            let mut case = Case::new(Kind::AdaLin, variant, dtype, Shape::new(1, 8, 32, 32, 64));
            if variant.fuses_padding() {
                case.padded = Some((1, 1));
            }
            let emulator = DeviceHandle::new(Emulator::new(Options::default()));
            let [forward, backward] = count(&emulator, &case).unwrap();
            let tensor = case.minimum_backward() / 3;
            let within = |what: &str, got: u64, minimum: u64| {
                let ratio = got as f64 / minimum as f64;
                assert!(
                    (1.0..=1.05).contains(&ratio),
                    "{}: {what} moves {ratio:.3} x the minimum",
                    case.describe()
                );
            };
            if variant != NormVariant::Fused {
                within("forward apply", forward.last_launch_bytes, case.minimum_forward());
                within("forward", forward.moved(), case.minimum_forward() + tensor);
                within("backward apply", backward.last_launch_bytes, case.minimum_backward());
                within("backward", backward.moved(), case.minimum_backward() + 2 * tensor);
                assert_eq!(forward.bank_conflicts + backward.bank_conflicts, 0, "{}", case.describe());
                // Every sector that a 16-byte access touches is used whole.
                let sectors = (forward.read_sectors + forward.written_sectors) * 32;
                assert!(sectors as f64 <= 1.02 * forward.moved() as f64, "{}", case.describe());
            } else {
                assert!(forward.moved() >= case.minimum_forward() + tensor);
            }
        }
    }
}

#[test]
fn the_cooperative_variant_moves_every_tensor_once() {
    // Images in turns, and one image that all blocks share. Forward x in, result out;
    // backward dout and x in, dx out; everything else, partial sums and parameters, may add 5 %.
    for (dtype, shape) in DTYPES
        .into_iter()
        .flat_map(|dtype| [(dtype, Shape::new(1, 16, 64, 64, 64)), (dtype, Shape::new(1, 1, 64, 64, 256))])
    {
        let case = Case::new(Kind::AdaLin, NormVariant::Cooperative, dtype, shape);
        let emulator = DeviceHandle::new(Emulator::new(Options::default()));
        let [forward, backward] = count(&emulator, &case).unwrap();
        for (what, counts, minimum) in
            [("forward", &forward, case.minimum_forward()), ("backward", &backward, case.minimum_backward())]
        {
            let ratio = counts.moved() as f64 / minimum as f64;
            assert!(
                (1.0..=1.05).contains(&ratio),
                "{}: {what} moves {ratio:.3} x the minimum",
                case.describe()
            );
            // A sector counts again for each access that takes a part of it: four bytes of a counter, or half of
            // eight channels' planes. With 132 blocks at one image that shows.
            let sectors = ((counts.read_sectors + counts.written_sectors) * 32) as f64 / minimum as f64;
            let most = if shape.n == 1 { 1.08 } else { 1.05 };
            assert!(sectors <= most, "{}: {what} {sectors:.3}", case.describe());
            assert_eq!(counts.bank_conflicts, 0, "{}: {what}", case.describe());
        }
    }
}

#[test]
fn cooperative_blocks_have_images_in_turns() {
    // (images, shape, element type): one block an image and more images than blocks; several blocks an image.
    for (shape, dtype) in [
        (Shape::new(2, 60, 3, 2, 8), DType::F32),
        (Shape::new(1, 10, 90, 80, 64), DType::F16),
        (Shape::new(1, 4, 90, 80, 129), DType::Bf16),
    ] {
        for kind in [Kind::AdaLin, Kind::Instance] {
            // Tiles of 88 KiB, of which an image takes several.
            let target = Target { sms: 108, shared_bytes: 99 << 10 };
            let mut case = Case { target, ..Case::new(kind, NormVariant::Cooperative, dtype, shape) };
            case.act = Activation::LeakyRelu;
            for part in [Part::Forward, Part::Backward] {
                let launch = &case.build().unwrap().launches(part)[0].clone();
                assert!(
                    launch.cooperative && (launch.grid[2] as usize) < shape.images(),
                    "{:?}",
                    launch.grid
                );
            }
            let inputs = Inputs::random(&case, 0.5, 1.0, 9);
            check(&case, &inputs, &reference::outputs(&case, &inputs), tolerance(case.variant, dtype));
        }
    }
}

#[test]
fn cooperative_blocks_wait_for_each_other_where_they_must() {
    // The race checker knows what release and acquire order; whichever block and warp is first, the bits are
    // the same, and the counters are left as they were found: the program runs twice.
    let mut case = Case::new(Kind::Iln, NormVariant::Cooperative, DType::F32, Shape::new(2, 2, 40, 37, 24));
    case.act = Activation::Relu;
    let inputs = Inputs::random(&case, 1.0, 1.0, 4);
    let emulator = DeviceHandle::new(Emulator::new(Options::default()));
    let plain = case.build().unwrap().run(&emulator, &inputs).unwrap();
    for warp_order in [WarpOrder::Forward, WarpOrder::Reverse] {
        let options = Options { warp_order, check_races: true, ..Options::default() };
        let device = DeviceHandle::new(Emulator::new(options));
        let built = case.build().unwrap();
        assert_eq!(built.run(&device, &inputs).unwrap(), plain);
        let state = built.state(&device, 1, &inputs).unwrap();
        Executable::load(built.program(Part::Both, 2, 1), &state).unwrap().run().unwrap();
    }
}

#[test]
fn an_image_too_large_for_shared_memory_is_left_to_the_variant_below() {
    let launches = |side, c, dtype| {
        let built = Case::new(Kind::AdaLin, NormVariant::Cooperative, dtype, Shape::new(1, 1, side, side, c))
            .build()
            .unwrap();
        (built.launches(Part::Forward).len(), built.launches(Part::Backward).len())
    };
    assert_eq!(launches(256, 64, DType::F32), (1, 3), "x fits, x and dout do not");
    assert_eq!(launches(256, 64, DType::F16), (1, 2));
    assert_eq!(launches(256, 128, DType::F32), (3, 3));
    assert_eq!(launches(1024, 64, DType::Bf16), (3, 3));
}

#[test]
fn tiles_fit_the_gpu_they_are_made_for() {
    for machine in &machine::ALL {
        let target = machine.target();
        let mut cooperative = 0;
        for (side, c, dtype) in
            [(64, 256, DType::F32), (64, 256, DType::F16), (128, 128, DType::Bf16), (256, 64, DType::F16)]
        {
            for n in [1, 4, 16, 64] {
                let shape = Shape::new(1, n, side, side, c);
                let case = Case { target, ..Case::new(Kind::AdaLin, NormVariant::Cooperative, dtype, shape) };
                let built = case.build().unwrap();
                for launch in built.launches(Part::Both).iter().filter(|l| l.cooperative) {
                    cooperative += 1;
                    assert!(launch.blocks() <= u64::from(target.sms), "{}", machine.name);
                    for r in launch.kernel.resources {
                        let bytes = r.shared + launch.shared_bytes;
                        let what = format!("{} of {side} on {}", launch.kernel.name, machine.name);
                        assert!(bytes <= target.shared_bytes, "{what}: {bytes} bytes on sm_{}", r.arch);
                        assert!(r.registers * 512 <= 65536, "{what}");
                    }
                }
            }
        }
        assert!(cooperative >= 16, "{}: {cooperative}", machine.name);
    }
}

#[test]
fn the_baselines_move_what_their_passes_say() {
    for variant in [NormVariant::Elementary, NormVariant::Composed] {
        let [forward_passes, backward_passes] = variant.passes().map(|n| n as f64);
        let case = Case::new(Kind::AdaLin, variant, DType::F32, Shape::new(1, 8, 32, 32, 64));
        let emulator = DeviceHandle::new(Emulator::new(Options::default()));
        let [forward, backward] = count(&emulator, &case).unwrap();
        let tensor = (case.minimum_backward() / 3) as f64;
        for (got, passes) in [(forward, forward_passes), (backward, backward_passes)] {
            // Broadcast operands are read beside the tensors: at most one each time.
            let moved = got.moved() as f64 / tensor;
            assert!(
                moved >= 0.99 * passes && moved <= 1.6 * passes,
                "{variant}: {moved:.1} of {passes} passes"
            );
        }
    }
}

/// Norm, padding, a second norm with a residual, and back, through the planner: every variant gives the same.
#[test]
fn a_planned_network_agrees_in_every_variant() {
    let shape = Shape::new(2, 2, 5, 6, 8);
    let wide = Shape { h: 7, w: 8, ..shape };
    let run = |norm: NormVariant| -> (usize, Vec<Vec<f32>>) {
        let mut layout = StateLayout::default();
        let mut tape = Tape::new();
        let mut state = |tape: &mut Tape, name: &str, shape: Shape| {
            let buffer = layout.add(BufferRole::Operand, name, shape.len() as u64 * 4);
            tape.state(name, shape, StateView { buffer, offset: 0 })
        };
        let row = Shape::row(2, 8);
        let x = state(&mut tape, "x", shape);
        let affine = Affine {
            rho: state(&mut tape, "rho", row),
            gamma: state(&mut tape, "gamma", row),
            beta: state(&mut tape, "beta", row),
        };
        let upstream = state(&mut tape, "upstream", wide);
        let grads = [(x, shape), (affine.rho, row), (affine.gamma, row)]
            .map(|(v, s)| (v, state(&mut tape, "grad", s)));
        let first = tape.norm("first", x, Some(affine), Activation::Relu, None);
        let padded = tape.pad(first, 1, 1);
        tape.keep(padded);
        let second = tape.norm("second", first, None, Activation::None, Some(first));
        let out = tape.pad(second, 1, 1);
        tape.keep(out);
        tape.backward(&[Seed::Upstream(out, upstream)], &grads);
        let options = LowerOptions { norm, ..LowerOptions::default() };
        let planned = plan_with("norms", &tape, &layout, options).unwrap();
        let launches = planned.program.launches.len();
        let loaded = planned.load(&device()).unwrap();
        for (i, buffer) in layout.buffers().iter().enumerate().take(5) {
            let values = (0..buffer.bytes / 4).map(|k| ((k * 37 + i as u64 * 11) % 101) as f32 / 50.0 - 1.0);
            loaded.executable().state().write(buffer.offset, &values.collect::<Vec<f32>>()).unwrap();
        }
        loaded.executable().run().unwrap();
        let read = [padded, out].into_iter().chain(grads.map(|g| g.1)).map(|v| loaded.read(v).unwrap());
        (launches, read.collect())
    };
    let (launches, want) = run(NormVariant::Vectorised);
    for norm in variants() {
        let (count, got) = run(norm);
        if norm.fuses_padding() {
            assert_eq!(count, launches - 2, "both paddings are made by the norms");
            assert_eq!(got, want, "the padding changes no bit");
        }
        for (what, (got, want)) in ["padded", "out", "dx", "drho", "dgamma"].iter().zip(got.iter().zip(&want))
        {
            let scale = want.iter().fold(0f32, |m, v| m.max(v.abs()));
            for (g, w) in got.iter().zip(want) {
                assert!((g - w).abs() <= 1e-5 * scale, "{norm}: {what} is {g}, not {w}");
            }
        }
    }
}

#[test]
fn two_pixels_at_least() {
    let one = Case::new(Kind::AdaLin, NormVariant::Vectorised, DType::F32, Shape::new(1, 1, 1, 1, 8));
    assert!(one.build().is_err());
}

/// Each value as bf16, by a kernel that widens a row of floats.
fn to_bf16(kernel: &'static Kernel, values: &[f32]) -> Vec<u16> {
    let n = values.len();
    let sizes = [("values", 4 * n as u64, 0), ("out", 2 * n as u64, 4 * n as u64)];
    let buffers =
        sizes.map(|(name, bytes, offset)| Buffer { name: name.into(), space: Space::State, offset, bytes });
    let whole = |i: usize| Arg::Buffer(BufferRef { buffer: i as u32, offset: 0, bytes: sizes[i].1 });
    // No tensor, the row, one pixel of n channels, one row an image, not one scalar, the operation that repeats a row.
    let numbers = [1, n as i32, 1, 0, 7].map(Arg::I32);
    let args = [whole(1), Arg::Null, whole(0)].into_iter().chain(numbers).collect();
    let launch = Launch::dynamic(kernel, args).grid([n.div_ceil(8 * 256) as u32, 1, 1]).block([256, 1, 1]);
    let program = Program {
        name: "to bf16".into(),
        buffers: buffers.into(),
        launches: vec![launch],
        state_bytes: 6 * n as u64,
        ..Program::default()
    };
    let executable = Executable::new(&device(), program).unwrap();
    executable.state().write(0, values).unwrap();
    executable.run().unwrap();
    executable.state().read(4 * n as u64, n).unwrap()
}

#[test]
fn the_ptx_for_turing_rounds_to_bf16_as_the_instruction_of_later_gpus_does() {
    let kernel = entry::ADALIN_ELEMENTARY_BROADCAST_X8_BF16.kernel();
    let Some(ptx) = kernel.module.ptx_75 else { return };
    let module: &Module = Box::leak(Box::new(Module { ptx, ptx_75: None, cubins: &[], ..*kernel.module }));
    let older: &Kernel = Box::leak(Box::new(Kernel { module, ..*kernel }));
    // Below, at and above the middle of any two neighbours: zeros, subnormals, infinities and NaNs are among them.
    let lows = [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff];
    let values: Vec<f32> =
        (0..=0xffff_u32).flat_map(|high| lows.map(|low| f32::from_bits(high << 16 | low))).collect();
    let (want, got) = (to_bf16(kernel, &values), to_bf16(older, &values));
    for ((value, want), got) in values.iter().zip(&want).zip(&got) {
        assert_eq!(got, want, "{value:e} ({:#x})", value.to_bits());
    }
    assert_eq!(
        want[6 * 0x3f80 + 3..6 * 0x3f80 + 5],
        [0x3f80, 0x3f81],
        "ties go to even, what is above goes up"
    );
}
