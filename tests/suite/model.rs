//! The machine model against published timings, its two ways to a launch's work against each other, and `plan --for`.

use serde::Deserialize;
use ugatit::device::emulator::{Class, Emulator, Options};
use ugatit::device::executable::DeviceHandle;
use ugatit::model::{Machine, Term, Work, machine, predict, time};
use ugatit::nn::Config;
use ugatit::tape::LowerOptions;
use ugatit::train::{Recording, Trainer, TrainingPlan};

use crate::command::{TINY, ugatit};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Published {
    row: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    gpu: String,
    source: String,
    #[serde(flatten)]
    what: What,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum What {
    /// A product of an m x k and a k x n matrix of 16-bit elements on the tensor pipe.
    Gemm { unit: String, m: u64, n: u64, k: u64, us: f64 },
    /// Loads of 8 bytes, one a thread.
    Stream { threads_per_sm: u32, tb_per_s: f64 },
    /// A kernel in a chain of a graph that reads and writes so many megabytes, all in the L2.
    Chain { mb: f64, us: f64 },
    /// 4096 x 4096 x 4096 in fp32; counts a warp and step of k.
    Sgemm {
        kernel: String,
        gflops: f64,
        tile: [u64; 2],
        threads: u64,
        resident: u32,
        outputs: u64,
        instructions: f64,
        wavefronts: f64,
        lines: f64,
        round_k: f64,
        round_wait: f64,
        barriers: bool,
    },
}

/// A product by tiles of bm x bn, each operand's part of k streamed through shared memory. `shared`: blocks that get
/// the same part of B at once, by multicast.
fn product(unit: &str, [m, n, k]: [u64; 3], [bm, bn]: [u64; 2], shared: u64) -> Work {
    let flop = (2 * bm * bn * k) as f64;
    let (mma, wgmma) = if unit == "mma" { (flop, 0.0) } else { (0.0, flop) };
    let operands = (2 * (bm + bn) * k) as f64;
    Work {
        blocks: m.div_ceil(bm) * n.div_ceil(bn),
        resident: 1,
        warps: 8,
        mma,
        wgmma,
        // An ldmatrix reads each byte that a warp uses: with 64 x 64 a warp, twice what was loaded.
        wavefronts: if unit == "mma" { 2.0 * operands / 128.0 } else { 0.0 },
        l2_bytes: (2 * (bm + bn / shared) * k + 2 * bm * bn) as f64,
        stream_bytes: (2 * (m * k + k * n + m * n)) as f64,
        dram_bytes: (2 * (m * k + k * n + m * n)) as f64,
        // Four stages of 64 columns.
        flight: (4 * 64 * 2 * (bm + bn)) as f64 / 256.0,
        ..Work::default()
    }
}

/// Measured and predicted, in the row's unit, and what it is.
fn compare(row: &Row, machine: &Machine) -> (f64, f64, String) {
    match &row.what {
        What::Gemm { unit, m, n, k, us } => {
            let shape = [*m, *n, *k];
            // The library picks its tile for the shape, and so does the model; the example has one.
            let tiles: Vec<[u64; 2]> = if unit == "mma" {
                vec![[128, 128]]
            } else {
                (2..=16).map(|i| [128, 16 * i]).chain([[256, 128], [64, 256]]).collect()
            };
            // Its heuristic shares an operand by two blocks where there is more than one wave of them.
            let best = tiles.into_iter().map(|tile| {
                let alone = product(unit, shape, tile, 1);
                let more = unit == "wgmma" && alone.blocks > u64::from(machine.sms);
                time(machine, &product(unit, shape, tile, if more { 2 } else { 1 })).us
            });
            (*us, best.fold(f64::INFINITY, f64::min), format!("{unit} {m}x{n}x{k}, µs"))
        }
        What::Stream { threads_per_sm, tb_per_s } => {
            let bytes = 1e10;
            let work = Work {
                blocks: (bytes / 8.0 / 64.0) as u64,
                resident: threads_per_sm / 64,
                warps: 2,
                stream_bytes: bytes,
                dram_bytes: bytes,
                flight: 8.0,
                ..Work::default()
            };
            (*tb_per_s, bytes / time(machine, &work).us / 1e6, format!("{threads_per_sm} threads, TB/s"))
        }
        What::Chain { mb, us } => {
            let blocks = (mb * 1e6 / 8192.0).ceil();
            let work = Work {
                blocks: blocks as u64,
                resident: 8,
                warps: 8,
                l2_bytes: mb * 1e6 / blocks,
                stream_bytes: mb * 1e6,
                flight: 16.0,
                ..Work::default()
            };
            (*us, time(machine, &work).us, format!("{mb} MB, µs"))
        }
        What::Sgemm {
            kernel,
            gflops,
            tile: [bm, bn],
            threads,
            resident,
            outputs,
            instructions,
            wavefronts,
            lines,
            round_k,
            round_wait,
            barriers,
        } => {
            let side = 4096u64;
            let warps = threads / 32;
            // Warps times steps of k.
            let steps = (warps * side) as f64;
            let work = Work {
                blocks: side / bm * (side / bn),
                resident: *resident,
                warps: warps as u32,
                issue: steps * instructions,
                fp32: steps * 32.0 * *outputs as f64,
                wavefronts: steps * wavefronts,
                lines: steps * lines,
                l2_bytes: (4 * side * (bm + bn)) as f64,
                stream_bytes: (3 * 4 * side * side) as f64,
                dram_bytes: (3 * 4 * side * side) as f64,
                flight: 16.0,
                chain: side as f64 / round_k * round_wait,
                barriers: if *barriers { (2.0 * side as f64 / round_k) as u32 } else { 0 },
                ..Work::default()
            };
            let flop = 2.0 * (side as f64).powi(3);
            (*gflops, flop / time(machine, &work).us / 1e3, format!("{kernel}, GFLOP/s"))
        }
    }
}

#[test]
fn published_timings_are_met_within_a_tenth_on_average_and_a_third_at_worst() {
    let path = crate::project("tests/model/published.toml");
    let text = std::fs::read_to_string(path).expect("the rows are there");
    let rows = toml::from_str::<Published>(&text).expect("they are well formed").row;
    assert!(rows.len() >= 49, "{}", rows.len());
    let mut table = String::new();
    let (mut sum, mut worst) = (0.0, 0.0f64);
    for row in &rows {
        assert!(!row.source.is_empty());
        let machine = machine::find(&row.gpu).expect("a machine");
        let (measured, predicted, what) = compare(row, machine);
        let error = predicted / measured - 1.0;
        table += &format!(
            "{:<6} {what:<32} measured {measured:>9.3} predicted {predicted:>9.3} {:>+6.1} %\n",
            row.gpu,
            100.0 * error
        );
        sum += error.abs();
        worst = worst.max(error.abs());
    }
    let mean = sum / rows.len() as f64;
    println!("{table}mean {:.1} %, worst {:.1} %", 100.0 * mean, 100.0 * worst);
    assert!(mean <= 0.10 && worst <= 0.30, "{table}mean {mean:.3}, worst {worst:.3}");
}

/// A light network of odd sides and enough blocks to have some in the middle.
fn small() -> Config {
    Config { img_size: 40, ch: 16, n_res: 1, n_dis: 4, light: true, ..Config::default() }
}

#[test]
fn a_block_from_the_middle_stands_for_its_launch() {
    let device = DeviceHandle::new(Emulator::new(Options { count: true, ..Options::default() }));
    let cfg = small();
    let mut trainer = Trainer::new(&device, &cfg, 1, 0, Recording::default()).expect("it can be planned");
    trainer.initialise(3).expect("it has room");
    let image = vec![0.25; cfg.img_size.pow(2) * 3];
    trainer.step(1, &image, &image).expect("it runs");
    let step = trainer.executable();
    let counters = step.counters().expect("the emulator counts");
    let h100 = machine::find("h100").expect("a machine");
    let predicted = predict(step.program(), h100, &|_| ()).expect("all blocks run");
    assert_eq!(predicted.len(), counters.len());
    // [counted, from the block] of the whole step.
    let mut sums = [[0.0f64; 2]; 3];
    for ((launch, counted), p) in step.program().launches.iter().zip(counters.iter()).zip(&predicted) {
        let (total, blocks) = (counted.total(), p.work.blocks as f64);
        let pairs = [
            [total.warp_instructions as f64, p.work.issue * blocks],
            [counted.of_class(Class::Fp32).thread_instructions as f64, p.work.fp32 * blocks],
            [total.wavefronts as f64, p.work.wavefronts * blocks],
        ];
        for (sum, [counted, block]) in sums.iter_mut().zip(pairs) {
            sum[0] += counted;
            sum[1] += block;
        }
        // Where every block is alike, the block is the launch.
        let alike = launch.blocks() == 1;
        let [counted, block] = pairs[0];
        assert!(
            !alike || (counted - block).abs() <= 0.2 * counted,
            "{} {}: counted {counted}, from the block {block}",
            launch.label,
            launch.kernel.name
        );
    }
    for ([counted, block], what) in sums.into_iter().zip(["instructions", "fp32", "wavefronts"]) {
        assert!((block / counted - 1.0).abs() <= 0.25, "{what}: counted {counted}, from the blocks {block}");
    }
}

#[test]
fn a_block_of_the_implicit_gemm_does_what_its_tile_says() {
    let cfg = small();
    let plan = TrainingPlan::new(&cfg, 1, 1, Recording::default(), LowerOptions::default()).expect("a plan");
    let h100 = machine::find("h100").expect("a machine");
    let program = &plan.step.program;
    let predicted = predict(program, h100, &|_| ()).expect("all blocks run");
    let mut seen = 0;
    for (launch, p) in program.launches.iter().zip(&predicted) {
        let Some(rest) = launch.kernel.name.strip_prefix("conv_forward_gemm_n") else { continue };
        let bn: f64 = rest.trim_end_matches("_f32").parse().expect("a width");
        // All multiply-adds of the launch, over the part of its tiles that is filled.
        let tiles = launch.blocks() as f64;
        let filled = launch.flops as f64 / 2.0;
        // A tile of 128 rows: K follows from the useful share of the last ones, so bound it from both sides.
        let tile = p.work.fp32 * tiles;
        assert!(tile >= filled * 0.98, "{}: {tile} lanes, {filled} multiply-adds", launch.label);
        let k = p.work.fp32 / (128.0 * bn);
        // Operands once a block, four bytes each, what neighbours share counted once at most.
        let most = 4.0 * (128.0 + bn) * k + 3.0 * 4.0 * 128.0 * bn;
        assert!(p.work.l2_bytes <= 1.05 * most, "{}: {} bytes, tile {most}", launch.label, p.work.l2_bytes);
        seen += 1;
    }
    assert!(seen >= 4, "{seen}");
}

#[test]
fn a_serial_kernel_is_bound_by_latency_and_a_stream_by_memory() {
    let h100 = machine::find("h100").expect("a machine");
    // One warp that loads 8192 times, each load after the one before.
    let serial = Work {
        blocks: 1,
        resident: 1,
        warps: 1,
        issue: 8192.0 * 10.0,
        chain: 8192.0 * 265.0,
        ..Work::default()
    };
    let t = time(h100, &serial);
    assert_eq!(t.bound, Term::Latency);
    assert!((1000.0..1300.0).contains(&t.us), "{}", t.us);
    let bytes = 3e9;
    let copy = Work {
        blocks: 100_000,
        resident: 8,
        warps: 8,
        issue: 8.0 * 20.0,
        l2_bytes: bytes / 1e5,
        stream_bytes: bytes,
        dram_bytes: bytes,
        flight: 32.0,
        ..Work::default()
    };
    let t = time(h100, &copy);
    assert_eq!(t.bound, Term::Dram);
    assert!((1000.0..1150.0).contains(&t.us), "{}", t.us);
    // Twice the blocks of one wave take twice the time of one.
    let tile = Work { blocks: 132, resident: 1, warps: 8, issue: 4e6, ..Work::default() };
    let one = time(h100, &tile).us;
    let two = time(h100, &Work { blocks: 133, ..tile }).us;
    assert!((1.9..2.1).contains(&(two / one)), "{one} {two}");
}

#[test]
fn a_plan_for_a_gpu_predicts_each_launch_and_adds_up() {
    let flags = format!("plan {TINY} --for h100");
    let ended = ugatit(&flags, &[""; 0]).expect(0, &[]);
    for part in ["bound by", "the ten that cost most", "predicted for H100 SXM: "] {
        assert!(ended.out.contains(part), "{}", ended.out);
    }
    let ended = ugatit(&format!("{flags} --json"), &[""; 0]).expect(0, &[]);
    let json: serde_json::Value = serde_json::from_str(&ended.out).expect("JSON");
    let launches = json["launches"].as_array().expect("a list");
    let us: f64 = launches.iter().map(|l| l["predicted"]["us"].as_f64().expect("a number")).sum();
    let ms = json["predicted"]["ms"].as_f64().expect("a number");
    assert!((us / 1e3 - ms).abs() <= 1e-9 * ms, "{us} {ms}");
    for launch in launches {
        let bound = launch["predicted"]["bound"].as_str().expect("a term");
        assert!(launch["predicted"]["terms_us"][bound].as_f64().expect("a number") > 0.0);
    }
    ugatit("plan --for voodoo2", &[""; 0]).expect(2, &["no constants of a GPU 'voodoo2'", "there are h100"]);
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Worked {
    launch: Vec<WorkedLaunch>,
}

#[derive(Deserialize)]
struct WorkedLaunch {
    label: String,
    #[serde(flatten)]
    form: Form,
}

#[derive(Deserialize)]
#[serde(tag = "form", rename_all = "lowercase")]
enum Form {
    Gemm { bn: u64, blocks: u64, resident: u32, slices: u64, instructions: f64 },
    Adam { elements: u64 },
}

impl Form {
    /// The work by hand. Clocks of a barrier, and of shared memory behind it: 25 and 29.
    fn work(&self) -> Work {
        match *self {
            Form::Gemm { bn, blocks, resident, slices, instructions } => {
                let (columns, turns) = (bn as f64, slices as f64);
                // Of 16 bytes each: 2 and bn / 64 loads for each of 8 steps; 1 store of four parts and 1 whole.
                let shared = 4.0 * 8.0 * (2.0 + columns / 64.0) + 8.0;
                Work {
                    blocks,
                    resident,
                    warps: 8,
                    issue: 8.0 * turns * instructions,
                    fp32: 128.0 * columns * 8.0 * turns,
                    wavefronts: 8.0 * turns * shared,
                    l2_bytes: 4.0 * ((128.0 + columns) * 8.0 * turns + 128.0 * columns),
                    chain: turns * (25.0 + 29.0),
                    barriers: slices as u32,
                    flight: 32.0,
                    ..Work::default()
                }
            }
            Form::Adam { elements } => Work {
                blocks: elements / 256,
                resident: 8,
                warps: 8,
                l2_bytes: 28.0 * 256.0,
                stream_bytes: 28.0 * elements as f64,
                dram_bytes: 28.0 * elements as f64,
                flight: 16.0,
                ..Work::default()
            },
        }
    }
}

#[test]
fn launches_worked_out_by_hand_take_as_long_as_counted_ones() {
    let path = crate::project("tests/model/launches.toml");
    let text = std::fs::read_to_string(path).expect("the launches are there");
    let worked = toml::from_str::<Worked>(&text).expect("they are well formed").launch;
    assert!(worked.len() >= 10);
    let h100 = machine::find("h100").expect("a machine");
    let cfg = Config { light: true, ..Config::default() };
    let options = LowerOptions::on(h100.target());
    let plan = TrainingPlan::new(&cfg, 1, 1, Recording::default(), options).expect("a plan");
    let program = &plan.step.program;
    // Of each label the first, and no other launch: nothing of a hand's work depends on what ran before.
    let first = |label: &str| program.launches.iter().find(|l| l.label == label).cloned();
    let mut asked = (**program).clone();
    asked.launches =
        worked.iter().map(|w| first(&w.label).unwrap_or_else(|| panic!("no {}", w.label))).collect();
    let counted = predict(&asked, h100, &|_| ()).expect("all blocks run");
    let (mut sum, mut worst, mut table) = (0.0, 0.0f64, String::new());
    for ((worked, counted), launch) in worked.iter().zip(&counted).zip(&asked.launches) {
        let work = worked.form.work();
        assert!(work.blocks.abs_diff(launch.blocks()) <= 1, "{}: {} blocks", worked.label, launch.blocks());
        let (by_hand, us) = (time(h100, &work).us, counted.time.us);
        let error = us / by_hand - 1.0;
        table += &format!(
            "{:<45} by hand {by_hand:>7.1} counted {us:>7.1} {:>+6.1} %\n",
            worked.label,
            100.0 * error
        );
        sum += error.abs();
        worst = worst.max(error.abs());
    }
    let mean = sum / worked.len() as f64;
    println!("{table}mean {:.1} %, worst {:.1} %", 100.0 * mean, 100.0 * worst);
    assert!(mean <= 0.10 && worst <= 0.30, "{table}mean {mean:.3}, worst {worst:.3}");
}
