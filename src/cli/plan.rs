//! `ugatit plan`

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};

use clap::Args;
use serde_json::json;
use ugatit::device::Launch;
use ugatit::format::{self, Column, Table};
use ugatit::nn::Config;
use ugatit::study::profile::Totals;
use ugatit::train::{MemoryEstimate, Recording, TrainingPlan};

use super::args::{NetworkArgs, depth_note};
use super::end::{End, say};
use super::words;

/// List every kernel launch of a training step, and the memory a run needs; no device is used
///
/// Bytes are the fewest that a launch must move: every input read once, every output written once. FLOPs
/// count a multiply-add as two.
#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    network: NetworkArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &PlanArgs) -> Result<(), End> {
    args.network.check_batch().map_err(End::Input)?;
    let mut cfg = Config::default();
    args.network.apply(&mut cfg);
    if args.network.n_dis.is_none() {
        cfg.n_dis = Config::deepest_n_dis(cfg.img_size);
    }
    words::check(&cfg).map_err(End::Input)?;
    let plan =
        TrainingPlan::new(&cfg, args.network.batch_size, 1, Recording::default(), args.network.norm.into())
            .map_err(End::Input)?;
    let launches = &plan.step.program.launches;
    depth_note(cfg.img_size, args.network.n_dis).iter().for_each(|note| say(note));
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
        print_json(&mut out, args, &plan, &kernels, all)?;
    } else {
        print_tables(&mut out, launches, &kernels, all, &plan.memory())?;
    }
    out.flush()?;
    Ok(())
}

fn print_json(
    out: &mut dyn Write,
    args: &PlanArgs,
    plan: &TrainingPlan,
    kernels: &[(&str, Totals)],
    all: Totals,
) -> io::Result<()> {
    let launches = plan.step.program.launches.iter().enumerate();
    let launches: Vec<_> = launches
        .map(|(index, l)| {
            json!({
                "index": index,
                "kernel": l.kernel.name,
                "label": l.label,
                "grid": l.grid,
                "block": l.block,
                "shared_bytes": l.shared_bytes,
                "cooperative": l.cooperative,
                "min_bytes": l.min_bytes,
                "flops": l.flops,
            })
        })
        .collect();
    let kernels: serde_json::Map<String, serde_json::Value> =
        kernels.iter().map(|(name, total)| ((*name).to_owned(), json!(total))).collect();
    let json = json!({
        "config": plan.model.cfg,
        "batch_size": args.network.batch_size,
        "norm": args.network.norm,
        "launches": launches,
        "kernels": kernels,
        "total": all,
        "memory": plan.memory(),
    });
    writeln!(out, "{json:#}")
}

fn print_tables(
    out: &mut dyn Write,
    launches: &[Launch],
    kernels: &[(&str, Totals)],
    all: Totals,
    memory: &MemoryEstimate,
) -> io::Result<()> {
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
        ],
    );
    write!(out, "{}", table.head())?;
    for (i, l) in launches.iter().enumerate() {
        let row = table.row([
            i.to_string(),
            cut(l.kernel.name, 29),
            cut(&l.label, 37),
            format::extent(l.grid, "x"),
            format::extent(l.block, "x"),
            format::three_figures(l.min_bytes),
            format::three_figures(l.flops),
        ]);
        write!(out, "{row}")?;
    }
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
    let letters: Vec<char> = text.chars().collect();
    if letters.len() <= columns {
        return text.to_owned();
    }
    let tail = (columns - 1) / 2;
    let head = columns - 1 - tail;
    letters[..head].iter().chain(&['…']).chain(&letters[letters.len() - tail..]).collect()
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
