//! `ugatit plan`

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use serde_json::json;
use ugatit::Error;
use ugatit::bench::ladder;
use ugatit::device::Launch;
use ugatit::device::cuda::Cuda;
use ugatit::format::{self, Column, Table};
use ugatit::model::{self, Machine, Prediction, Term, machine};
use ugatit::study::profile::Totals;
use ugatit::tape::{ConvVariant, LowerOptions};
use ugatit::train::{MemoryEstimate, Recording, TrainingPlan};

use super::args::{NetworkArgs, parse_conv};
use super::end::{End, say};

/// List every kernel launch of a training step, and the memory a run needs; no device is used
///
/// Bytes are the fewest that a launch must move: every input read once, every output written once. FLOPs
/// count a multiply-add as two. With a GPU's name, the time that each launch would take there is predicted, and
/// what would bind it.
#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    network: NetworkArgs,

    /// Plan for this GPU, and predict the time of each launch: h100, h200, a100, 4090, 5090 and others. If not given,
    /// the plan is for the GPU at hand, or else an H100
    #[arg(long = "for", value_name = "GPU")]
    gpu: Option<String>,

    /// Use this variant of the convolutions wherever it takes the shape: direct, implicit-gemm, tensor-core. If not given,
    /// the precision and the shape decide
    #[arg(long, value_name = "VARIANT", value_parser = parse_conv)]
    conv: Option<ConvVariant>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    /// Print the ladder instead: the light step of 256 pixels with one change of variants after the other, its launches, bytes
    /// and predicted milliseconds on several GPUs, as a table in Markdown
    #[arg(long)]
    ladder: bool,

    /// Put the ladder into this document, between its markers, instead of printing it
    #[arg(long, value_name = "FILE", requires = "ladder")]
    write: Option<PathBuf>,
}

/// What `--for` adds.
struct Predicted {
    machine: &'static Machine,
    /// Of each launch.
    launches: Vec<Prediction>,
}

impl Predicted {
    fn ms(&self) -> f64 {
        self.launches.iter().map(|p| p.time.us).sum::<f64>() / 1e3
    }

    /// `predicted for an H100 SXM: 98.1 ms (78 to 123)`.
    fn describe(&self) -> String {
        let [low, high] = model::range(self.ms());
        let ms = format::milliseconds(self.ms());
        format!(
            "predicted for {}: {ms} a step, {low:.1} to {high:.1} ms within the model's error",
            self.machine.name
        )
    }
}

pub(super) fn run(args: &PlanArgs) -> Result<(), End> {
    args.network.check_batch().map_err(End::Input)?;
    if args.ladder {
        return ladder(args);
    }
    let cfg = args.network.shape.looked_at().map_err(End::Input)?;
    let machine = args.gpu.as_deref().map(machine::find).transpose().map_err(End::Input)?;
    let target = machine.map(Machine::target).or_else(Cuda::target_at_hand).unwrap_or_default();
    let options = LowerOptions {
        norm: args.network.norm,
        precision: args.network.precision,
        conv: args.conv,
        ..LowerOptions::on(target)
    };
    let plan = TrainingPlan::new(&cfg, args.network.batch_size, 1, Recording::default(), options)
        .map_err(End::Input)?;
    let launches = &plan.step.program.launches;
    let predicted = match machine {
        Some(machine) => {
            // Drawn on a terminal only.
            let bar = ProgressBar::no_length().with_message("counting a block of each launch");
            let counted = model::predict(&plan.step.program, machine, &|step| {
                bar.set_length(step.of as u64);
                bar.set_position(step.done as u64);
            });
            bar.finish_and_clear();
            Some(Predicted { machine, launches: counted.map_err(End::Failed)? })
        }
        None => None,
    };
    args.network.shape.depth_note().iter().for_each(|note| say(note));
    let mut kernels: BTreeMap<&str, Totals> = BTreeMap::new();
    for launch in launches {
        kernels.entry(launch.kernel.name).or_default().add(launch);
    }
    let all = Totals::of(&plan.step.program);
    // The most work first.
    let mut kernels: Vec<(&str, Totals)> = kernels.into_iter().collect();
    kernels.sort_by_key(|(name, t)| (std::cmp::Reverse(t.flops), std::cmp::Reverse(t.min_bytes), *name));
    let mut out = BufWriter::new(io::stdout().lock());
    if args.json {
        print_json(&mut out, args, &plan, &kernels, all, predicted.as_ref())?;
    } else {
        print_launches(&mut out, launches, predicted.as_ref())?;
        if let Some(predicted) = &predicted {
            print_costliest(&mut out, launches, predicted)?;
        }
        print_sums(&mut out, &kernels, all, &plan.memory())?;
        writeln!(out, "\nplanned for {target}")?;
        if let Some(predicted) = &predicted {
            writeln!(out, "{}", predicted.describe())?;
        }
    }
    out.flush()?;
    Ok(())
}

fn ladder(args: &PlanArgs) -> Result<(), End> {
    let cannot =
        |what: &str, path: &Path, e: io::Error| Error::new(format!("cannot {what} {}: {e}", path.display()));
    // A document without a place for it is refused now, not after a minute of counting.
    let document = match &args.write {
        Some(path) => {
            let text = fs::read_to_string(path).map_err(|e| End::Input(cannot("read", path, e)))?;
            ladder::write_into(&text, "").map_err(|e| End::Input(e.context(path.display())))?;
            Some((path, text))
        }
        None => None,
    };
    let bar = ProgressBar::new_spinner().with_message("counting a block of each launch");
    bar.enable_steady_tick(Duration::from_millis(200));
    let table = ladder::table();
    bar.finish_and_clear();
    let table = table.map_err(End::Failed)?;
    let Some((path, text)) = document else {
        io::stdout().lock().write_all(table.as_bytes())?;
        return Ok(());
    };
    let text = ladder::write_into(&text, &table).map_err(End::Input)?;
    fs::write(path, text).map_err(|e| End::Failed(cannot("write", path, e)))
}

fn print_json(
    out: &mut dyn Write,
    args: &PlanArgs,
    plan: &TrainingPlan,
    kernels: &[(&str, Totals)],
    all: Totals,
    predicted: Option<&Predicted>,
) -> io::Result<()> {
    let launches = plan.step.program.launches.iter().enumerate();
    let launches: Vec<_> = launches
        .map(|(index, l)| {
            let mut launch = json!({
                "index": index,
                "kernel": l.kernel.name,
                "label": l.label,
                "grid": l.grid,
                "block": l.block,
                "shared_bytes": l.shared_bytes,
                "cooperative": l.cooperative,
                "min_bytes": l.min_bytes,
                "flops": l.flops,
            });
            if let Some(predicted) = predicted {
                launch["predicted"] = predicted.launches[index].time.json();
            }
            launch
        })
        .collect();
    let kernels: serde_json::Map<String, serde_json::Value> =
        kernels.iter().map(|(name, total)| ((*name).to_owned(), json!(total))).collect();
    let mut json = json!({
        "config": plan.model.cfg,
        "batch_size": args.network.batch_size,
        "norm": args.network.norm,
        "precision": args.network.precision,
        "conv": args.conv.map(ConvVariant::name),
        "target": plan.step.program.target,
        "launches": launches,
        "kernels": kernels,
        "total": all,
        "memory": plan.memory(),
    });
    if let Some(predicted) = predicted {
        let [low, high] = model::range(predicted.ms());
        json["predicted"] =
            json!({ "gpu": predicted.machine.key, "ms": predicted.ms(), "from_ms": low, "to_ms": high });
    }
    writeln!(out, "{json:#}")
}

fn print_launches(out: &mut dyn Write, launches: &[Launch], predicted: Option<&Predicted>) -> io::Result<()> {
    // Without a prediction its columns are empty.
    let (us, bound) = if predicted.is_some() { ("µs", "bound by") } else { ("", "") };
    let table = Table::new(
        0,
        [
            Column::right("#", 4),
            Column::left("kernel", 29),
            Column::left("for", 37).gap(1),
            Column::right("grid", 15).gap(1),
            Column::right("block", 8).gap(1),
            Column::right("bytes", 8).gap(1),
            Column::right("FLOPs", 8).gap(1),
            Column::right(us, 8).gap(1),
            Column::left(bound, 0),
        ],
    );
    write!(out, "{}", table.head())?;
    for (i, l) in launches.iter().enumerate() {
        let (us, bound) = match predicted.map(|p| &p.launches[i].time) {
            Some(time) => (format!("{:.2}", time.us), time.bound.name().to_owned()),
            None => Default::default(),
        };
        let row = table.row([
            i.to_string(),
            cut(l.kernel.name, 29),
            cut(&l.label, 37),
            format::extent(l.grid, "x"),
            format::extent(l.block, "x"),
            format::three_figures(l.min_bytes),
            format::three_figures(l.flops),
            us,
            bound,
        ]);
        write!(out, "{row}")?;
    }
    Ok(())
}

/// The ten launches that are predicted to cost most, and what of it each term would take by itself.
fn print_costliest(out: &mut dyn Write, launches: &[Launch], predicted: &Predicted) -> io::Result<()> {
    let mut order: Vec<usize> = (0..launches.len()).collect();
    order.sort_by(|&a, &b| predicted.launches[b].time.us.total_cmp(&predicted.launches[a].time.us));
    let table = Table::new(
        0,
        [
            Column::right("#", 4),
            Column::left("the ten that cost most", 48),
            Column::right("µs", 8).gap(1),
            Column::left("bound by", 8),
            Column::right("waves", 6).gap(1),
        ],
    );
    let terms = Table::new(1, Term::ALL.map(|term| Column::right(term.name(), 7).gap(1)));
    let line = |table: String, terms: String| format!("{}{terms}", table.trim_end_matches('\n'));
    write!(out, "\n{}", line(table.head(), terms.head()))?;
    for i in order.into_iter().take(10) {
        let (l, time) = (&launches[i], &predicted.launches[i].time);
        let row = table.row([
            i.to_string(),
            cut(&format!("{} {}", l.label, l.kernel.name), 48),
            format!("{:.0}", time.us),
            time.bound.name().to_owned(),
            format!("{:>6.2}", time.waves),
        ]);
        write!(out, "{}", line(row, terms.row(time.terms.map(|us| format!("{us:.0}")))))?;
    }
    Ok(())
}

fn print_sums(
    out: &mut dyn Write,
    kernels: &[(&str, Totals)],
    all: Totals,
    memory: &MemoryEstimate,
) -> io::Result<()> {
    let table = Table::new(
        0,
        [
            Column::left("kernel", 44),
            Column::right("launches", 8).gap(1),
            Column::right("bytes", 8).gap(1),
            Column::right("", 6).gap(1),
            Column::right("FLOPs", 8).gap(1),
            Column::right("", 6).gap(1),
        ],
    );
    write!(out, "\n{}", table.head())?;
    let share = |part: u64, whole: u64| format!("{:.1}%", 100.0 * part as f64 / whole.max(1) as f64);
    for (name, t) in kernels.iter().copied().chain([("total", all)]) {
        let row = table.row([
            cut(name, 44),
            t.launches.to_string(),
            format::three_figures(t.min_bytes),
            share(t.min_bytes, all.min_bytes),
            format::three_figures(t.flops),
            share(t.flops, all.flops),
        ]);
        write!(out, "{row}")?;
    }
    writeln!(out, "\nmemory")?;
    for (name, bytes) in [
        ("weights and spectral vectors", memory.weights),
        ("gradients", memory.gradients),
        ("moments", memory.moments),
        ("images, losses, learning rate", memory.inputs),
        ("activations of a training step", memory.activations),
        ("activations of a sample grid", memory.sample_grid),
        ("total", memory.total),
    ] {
        writeln!(out, "{name:<44} {:>12}", format::bytes(bytes))?;
    }
    Ok(())
}

/// The text, or its beginning and its end, so that it fits.
fn cut(text: &str, columns: usize) -> String {
    let chars: Vec<char> = text.chars().collect();
    if chars.len() <= columns {
        return text.to_owned();
    }
    let tail = (columns - 1) / 2;
    let head = columns - 1 - tail;
    chars[..head].iter().chain(&['…']).chain(&chars[chars.len() - tail..]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_labels_keep_both_ends() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcdefgh", 5), "ab…gh");
    }
}
