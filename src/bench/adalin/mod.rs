//! AdaLIN, ILN and instance norm: fused against unfused. On a GPU time, by events; on the emulator what each
//! variant moves and executes, which needs no GPU and is the same on every machine.
//!
//! Every case is compared with a computation in double precision before a number of it is shown.

pub mod build;
pub mod case;
pub mod chart;
mod counting;
mod predicted;
pub mod record;
pub mod reference;
pub mod tensors;

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use build::{BEYOND_L2, Built, Part, Regime};
use case::{Case, Kind};
use chart::Chart;
use record::{Record, Time};
use tensors::{Inputs, Outputs, deviation};

pub use counting::count;

use crate::bench::ceilings::copy_ceiling;
use crate::bench::record::{Origin, read_all, write};
use crate::bench::timing::{SAMPLES, time_program};
use crate::device::DeviceKind;
use crate::device::executable::{DeviceHandle, Executable, LaunchMode};
use crate::device::select::{self, Choice};
use crate::format::{Column, Table};
use crate::tape::NormVariant;
use crate::tensor::{DType, Shape};
use crate::{Error, Result};

/// Elements from which on the check in double precision takes fewer images.
const CHECKED: usize = 1 << 22;

/// What to do. Empty lists mean the default.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Images, height, width, channels.
    pub shape: Vec<Shape>,
    /// Element types.
    pub dtype: Vec<DType>,
    /// Variants.
    pub variant: Vec<NormVariant>,
    /// Layers.
    pub kind: Vec<Kind>,
    /// What to measure on.
    pub device: Option<Choice>,
    /// File for the records.
    pub json: Option<PathBuf>,
    /// File for a chart; its ending names the format.
    pub plot: Option<PathBuf>,
    /// Measures nothing: chart and table of all records go into README.md and docs.
    pub readme: bool,
    /// Measures nothing: the records of these files are shown as one table.
    pub show: Vec<PathBuf>,
}

/// Largest deviation a variant may have from double precision, relative to a tensor's largest value. The
/// unfused variants round every intermediate tensor to the element type.
pub fn tolerance(variant: NormVariant, dtype: DType) -> f64 {
    match (dtype, variant.rounds_intermediates()) {
        (DType::F32 | DType::I32, _) => 2e-5,
        (DType::F16, false) => 6e-4,
        (DType::F16, true) => 8e-3,
        (DType::Bf16, false) => 5e-3,
        (DType::Bf16, true) => 6e-2,
    }
}

/// Runs the benchmark, shows the tables on `out` and returns the records.
///
/// # Errors
/// When a device fails, a variant computes something else than the reference, or a file cannot be written.
pub fn run(options: &Options, out: &mut dyn Write) -> Result<Vec<Record>> {
    let told = |e: std::io::Error| Error::io("cannot write the table", &e);
    if options.readme {
        let records = record::read_folder(Path::new("benches/records"))?;
        let readme = Path::new("README.md");
        let text =
            std::fs::read_to_string(readme).map_err(|e| Error::new(format!("cannot read README.md: {e}")))?;
        let text = record::into_readme(&text, &records, &predicted::predict(&records)?)?;
        std::fs::write(readme, text).map_err(|e| Error::new(format!("cannot write README.md: {e}")))?;
        Chart::new(&records).save(Path::new(record::CHART))?;
        return Ok(records);
    }
    if !options.show.is_empty() {
        let mut records: Vec<Record> = read_all(&options.show)?;
        records.sort_by(|a, b| {
            let key = |r: &Record| (r.kind.clone(), r.shape, r.dtype.clone(), r.pass.clone());
            (key(a)).cmp(&key(b)).reverse()
        });
        let predicted = predicted::predict(&records)?;
        write!(out, "{}", record::markdown(&records, &predicted)).map_err(told)?;
        draw(options, &records)?;
        return Ok(records);
    }
    let (device, _) = select::open(options.device.unwrap_or_default())?;
    let records = measure(options, &device, out)?;
    if let Some(path) = &options.json {
        write(path, &records)?;
    }
    draw(options, &records)?;
    Ok(records)
}

fn draw(options: &Options, records: &[Record]) -> Result<()> {
    options.plot.as_ref().map_or(Ok(()), |path| Chart::new(records).save(path))
}

/// The list given, or else the default.
fn or<T: Copy>(given: &[T], default: &[T]) -> Vec<T> {
    if given.is_empty() { default.to_vec() } else { given.to_vec() }
}

fn measure(options: &Options, device: &DeviceHandle, out: &mut dyn Write) -> Result<Vec<Record>> {
    let told = |e: std::io::Error| Error::io("cannot write the table", &e);
    let emulated = device.lock().kind() == DeviceKind::Emulator;
    let target = device.lock().target();
    let size = |n, side, c| Shape::new(1, n, side, side, c);
    let mut sizes = vec![size(1, 64, 256), size(16, 32, 64)];
    if !emulated {
        sizes = [1, 4, 16, 64]
            .iter()
            .flat_map(|&n| [size(n, 64, 256), size(n, 128, 128), size(n, 256, 64)])
            .collect();
    }
    let shapes = or(&options.shape, &sizes);
    let dtypes =
        or(&options.dtype, if emulated { &[DType::F32, DType::F16] } else { &[DType::F32, DType::Bf16] });
    let variants = or(&options.variant, &NormVariant::ALL);
    let kinds = or(&options.kind, &[Kind::AdaLin]);
    let name = if emulated { "emulator".to_owned() } else { device.lock().describe() };
    let copy = if emulated {
        writeln!(out, "counts of the emulator, no time: bytes as threads ask for them, caches play no part")
            .map_err(told)?;
        0.0
    } else {
        let copy = copy_ceiling(device)?;
        writeln!(out, "{name}; copy ceiling {copy:.0} GB/s (read + written). Times are medians of {SAMPLES} samples by events after 3 runs unmeasured; GB/s of the minimum traffic; warm: the same buffers each time, rotated: more than {} MiB in turn.", beyond_l2(device)? >> 20).map_err(told)?;
        copy
    };
    let origin = Origin::here(name.clone());
    let mut records: Vec<Record> = Vec::new();
    let mut references = HashMap::new();
    for &kind in &kinds {
        for &shape in &shapes {
            for &dtype in &dtypes {
                head(out, kind, shape, dtype, emulated).map_err(told)?;
                let first = records.len();
                for &variant in &variants {
                    let case = Case::as_measured(kind, variant, dtype, shape, target);
                    let program = case.build()?.program(Part::Both, 1, 1);
                    if options.variant.is_empty()
                        && let Err(e) = device.lock().check_launches(&program)
                    {
                        // Nobody asked for this one by name; the others can do without it.
                        writeln!(out, "  {variant} is left out: {}", e.message()).map_err(told)?;
                        continue;
                    }
                    check(device, &case, &mut references)?;
                    let base = |part: Part| Record {
                        origin: origin.clone(),
                        kind: kind.name().into(),
                        variant: variant.name().into(),
                        dtype: dtype.name().into(),
                        shape: [shape.images(), shape.h, shape.w, shape.c],
                        pass: if part == Part::Forward { "forward" } else { "backward" }.into(),
                        work: if case.padded.is_some() { "norm, relu, pad" } else { "norm" }.into(),
                        minimum_traffic: if part == Part::Forward {
                            case.minimum_forward()
                        } else {
                            case.minimum_backward()
                        },
                        counts: None,
                        time: None,
                    };
                    let parts = [Part::Forward, Part::Backward];
                    if emulated {
                        let counted = parts.into_iter().zip(count(device, &case)?);
                        records.extend(counted.map(|(part, c)| Record { counts: Some(c), ..base(part) }));
                    } else {
                        for part in parts {
                            let times = times(device, &case, part, copy)?;
                            records.extend(times.into_iter().map(|t| Record { time: Some(t), ..base(part) }));
                        }
                    }
                }
                rows(out, &records[first..], &predicted::predict(&records[first..])?).map_err(told)?;
            }
        }
    }
    Ok(records)
}

type References = HashMap<String, (Case, Inputs, Outputs)>;

/// Compares the case with double precision, on fewer images where there are very many.
fn check(device: &DeviceHandle, case: &Case, references: &mut References) -> Result<()> {
    let mut case = *case;
    case.shape.n = case.shape.n.min((CHECKED / (case.shape.pixels() * case.shape.c)).max(1));
    let key = format!("{} {} {:?} {:?}", case.kind, case.shape, case.dtype, case.act);
    if !references.contains_key(&key) {
        // The reference of a case is large; only the latest few are needed again.
        if references.len() > 4 {
            references.clear();
        }
        let inputs = Inputs::random(&case, 0.5, 1.0, 1);
        let want = reference::outputs(&case, &inputs);
        references.insert(key.clone(), (case, inputs, want));
    }
    let (_, inputs, want) = &references[&key];
    let mut want = want.clone();
    want.out = reference::padded(&case, &want.out);
    let got = case.build()?.run(device, inputs)?;
    let allowed = tolerance(case.variant, case.dtype);
    for (name, err) in
        ["out", "dx", "drho", "dgamma", "dbeta"].into_iter().zip(deviation(&got, &want, case.dtype))
    {
        let fine = err <= allowed;
        if !fine {
            let what = case.describe();
            return Err(Error::new(format!("{what}: {name} is off by {err:.1e}, allowed are {allowed:.0e}")));
        }
    }
    Ok(())
}

/// Both regimes and both launch modes of one pass.
///
/// # Errors
/// When the GPU fails, or has too little memory for the case.
pub fn times(gpu: &DeviceHandle, case: &Case, part: Part, copy_gb_per_s: f64) -> Result<Vec<Time>> {
    let built = case.build()?;
    let minimum = if part == Part::Forward { case.minimum_forward() } else { case.minimum_backward() };
    let inputs = Inputs::random(case, 0.5, 1.0, 1);
    let mut times = Vec::new();
    for regime in Regime::ALL {
        let sets = built.sets(regime, beyond_l2(gpu)?);
        let needed = built.bytes() * sets as u64;
        let free = gpu.lock().memory()?.free;
        if needed > free {
            let what = case.describe();
            return Err(Error::new(format!("{what}: needs {needed} bytes of memory, but {free} are free")));
        }
        let state = built.state(gpu, sets, &inputs)?;
        // Long enough that the ends of the measured time do not matter, in whole rounds of the sets.
        let repeats = ((1u64 << 30) / minimum.max(1)).clamp(4, 64) as usize;
        let repeats = repeats.next_multiple_of(sets);
        // The backward pass needs what a forward pass leaves, in every set.
        Executable::load(built.program(Part::Forward, sets, sets), &state)?.run()?;
        let executable = Executable::load(built.program(part, repeats, sets), &state)?;
        for (mode, launch_mode) in [("stream", LaunchMode::Stream), ("graph", LaunchMode::Graph)] {
            let microseconds = time_program(&executable, repeats, launch_mode)?;
            let gb_per_s = minimum as f64 / microseconds / 1e3;
            times.push(Time {
                regime: regime.name().into(),
                mode: mode.into(),
                microseconds,
                gb_per_s,
                copy_gb_per_s,
            });
        }
    }
    Ok(times)
}

/// [`BEYOND_L2`], or where the GPU has little memory a 16th of that.
fn beyond_l2(gpu: &DeviceHandle) -> Result<u64> {
    Ok(BEYOND_L2.min(gpu.lock().memory()?.total / 16))
}

fn head(out: &mut dyn Write, kind: Kind, shape: Shape, dtype: DType, emulated: bool) -> std::io::Result<()> {
    let [n, h, w, c] = [shape.images(), shape.h, shape.w, shape.c];
    writeln!(out, "\n{kind} {n}x{h}x{w}x{c} {}", dtype.name())?;
    write!(out, "{}", if emulated { COUNTED.head() } else { TIMED.head() })
}

/// What the emulator counted; the last column says what else was done, where it is more than the norm.
const COUNTED: Table<10> = Table::new(
    2,
    [
        Column::left("pass", 9),
        Column::left("variant", 11).gap(1),
        Column::right("launches", 8).gap(1),
        Column::right("traffic MB", 10).gap(1),
        Column::right("× minimum", 9).gap(1),
        Column::right("×, last", 9).gap(1),
        Column::right("sectors", 12).gap(1),
        Column::right("instr/val", 10).gap(1),
        Column::right("conflicts", 10).gap(1),
        Column::left("", 0),
    ],
);

/// What a GPU measured, and the time predicted for it with measured over predicted; the last column is that of
/// [`COUNTED`].
const TIMED: Table<12> = Table::new(
    2,
    [
        Column::left("pass", 9),
        Column::left("variant", 11).gap(1),
        Column::left("regime", 8).gap(1),
        Column::left("launch", 7).gap(1),
        Column::right("us", 10).gap(1),
        Column::right("GB/s", 8).gap(1),
        Column::right("% copy", 8).gap(1),
        Column::right("x elementary", 12).gap(1),
        Column::right("x composed", 11).gap(1),
        Column::right("predicted", 9).gap(1),
        Column::right("ratio", 6).gap(1),
        Column::left("", 0),
    ],
);

fn rows(out: &mut dyn Write, records: &[Record], predicted: &[Option<f64>]) -> std::io::Result<()> {
    let more = |r: &Record| if r.work == "norm" { String::new() } else { format!("({})", r.work) };
    for pass in ["forward", "backward"] {
        for (r, predicted) in records.iter().zip(predicted).filter(|(r, _)| r.pass == pass) {
            if let Some(c) = &r.counts {
                let (minimum, values) = (r.minimum_traffic as f64, r.shape.iter().product::<usize>() as f64);
                let row = COUNTED.row([
                    r.pass.clone(),
                    r.variant.clone(),
                    c.launches.to_string(),
                    format!("{:.2}", c.moved() as f64 / 1e6),
                    format!("{:.3}", c.moved() as f64 / minimum),
                    format!("{:.3}", c.last_launch_bytes as f64 / minimum),
                    (c.read_sectors + c.written_sectors).to_string(),
                    format!("{:.1}", c.warp_instructions as f64 * 32.0 / values),
                    c.bank_conflicts.to_string(),
                    more(r),
                ]);
                write!(out, "{row}")?;
            }
            let Some(t) = &r.time else { continue };
            let against = |variant: &str| -> String {
                let same = |o: &&Record| {
                    o.pass == r.pass
                        && o.variant == variant
                        && o.time.as_ref().is_some_and(|u| u.regime == t.regime && u.mode == t.mode)
                };
                let other = records.iter().find(same).and_then(|o| o.time.as_ref());
                other.map_or(String::new(), |u| format!("{:.2}", u.microseconds / t.microseconds))
            };
            let share = if t.regime == "rotated" {
                format!("{:.1}", 100.0 * t.gb_per_s / t.copy_gb_per_s)
            } else {
                String::new()
            };
            let row = TIMED.row([
                r.pass.clone(),
                r.variant.clone(),
                t.regime.clone(),
                t.mode.clone(),
                format!("{:.2}", t.microseconds),
                format!("{:.0}", t.gb_per_s),
                share,
                against("elementary"),
                against("composed"),
                predicted.map_or(String::new(), |us| format!("{us:.2}")),
                predicted.map_or(String::new(), |us| format!("{:.2}", t.microseconds / us)),
                more(r),
            ]);
            write!(out, "{row}")?;
        }
    }
    Ok(())
}

/// For the criterion benchmark: microseconds of a number of passes of a case on a GPU.
///
/// # Errors
/// When the GPU fails.
pub fn graph_time(gpu: &DeviceHandle, built: &Built, part: Part, passes: usize) -> Result<f64> {
    let state = built.state(gpu, 1, &Inputs::random(&built.case, 0.5, 1.0, 1))?;
    Executable::load(built.program(Part::Forward, 1, 1), &state)?.run()?;
    let executable = Executable::load(built.program(part, passes, 1), &state)?;
    let ms = executable.time(LaunchMode::Graph)?.ok_or_else(|| Error::new("the GPU gave no time"))?;
    Ok(ms * 1e3)
}
