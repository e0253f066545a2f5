//! `ugatit profile`: one training step, kernel by kernel.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Value as Json, json};

use super::counts::{Counts, KernelRecord, Predicted};
use super::run::{Record, Step};
use crate::device::{Launch, Program};
use crate::format::{self, Column, Table};
use crate::model::{Machine, Term, Time, range, terms_json};

/// Sums over a program's launches, as `ugatit plan` prints them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Launches.
    pub launches: u64,
    /// Minimum traffic, bytes.
    pub min_bytes: u64,
    /// Floating-point operations.
    pub flops: u64,
}

impl Totals {
    /// Of a whole program.
    pub fn of(program: &Program) -> Self {
        let mut totals = Self::default();
        program.launches.iter().for_each(|l| totals.add(l));
        totals
    }

    /// Adds a launch.
    pub fn add(&mut self, launch: &Launch) {
        self.launches += 1;
        self.min_bytes += launch.min_bytes;
        self.flops += launch.flops;
    }
}

/// The kernels, those with the largest share first: of the time where it was measured, else of the
/// instructions.
fn sorted(record: &Record) -> Vec<&KernelRecord> {
    let mut kernels: Vec<_> = record.kernels.iter().collect();
    kernels.sort_by(|a, b| match (a.milliseconds(), b.milliseconds()) {
        (Some(x), Some(y)) => y.total_cmp(&x),
        _ => b.counts().instructions.cmp(&a.counts().instructions),
    });
    kernels
}

/// The columns of a prediction.
fn predicted_columns() -> [Column; 3] {
    [Column::right("predicted", 11), Column::left("bound by", 8), Column::left("terms", 0)]
}

/// Their cells.
fn predicted_cells(predicted: Option<Predicted>) -> [String; 3] {
    let dash = || "–".to_owned();
    [
        predicted.map_or_else(dash, |p| format!("{:.1} µs", p.us)),
        predicted.map_or_else(dash, |p| p.bound().name().to_owned()),
        predicted.map_or_else(String::new, |p| stacked(&p.terms)),
    ]
}

/// Characters of a stacked bar.
const BAR: f64 = 24.0;

/// A term in a stacked bar.
fn letter(term: Term) -> char {
    match term {
        Term::Launch => 'n',
        Term::Issue => 'i',
        Term::Fp32 => 'f',
        Term::Special => 's',
        Term::Tensor => 't',
        Term::Shared => 'h',
        Term::L1 => '1',
        Term::L2 => '2',
        Term::Latency => 'w',
        Term::Dram => 'd',
    }
}

/// The terms as a bar of letters, each as long as its share of their sum.
fn stacked(terms: &[f64; 10]) -> String {
    let sum: f64 = terms.iter().sum();
    let mut bar = String::new();
    let mut before = 0.0;
    for (term, us) in Term::ALL.into_iter().zip(terms) {
        before += us;
        // The ends are rounded, not the lengths, so that the whole is as long as it should be.
        let end = (BAR * before / sum.max(f64::MIN_POSITIVE)).round() as usize;
        bar.extend(std::iter::repeat_n(letter(term), end.saturating_sub(bar.len())));
    }
    bar
}

/// What the letters mean.
fn legend() -> String {
    let of: Vec<String> = Term::ALL.into_iter().map(|t| format!("{} {}", letter(t), t.name())).collect();
    format!("Terms, each by itself, by their shares of the sum: {}.\n", of.join(", "))
}

/// The step as a table, with times predicted for a GPU.
pub fn table(record: &Record, step: &Step, gpu: &Machine) -> String {
    let kernels = sorted(record);
    let totals = Totals::of(&record.program);
    let mut out = format!("{}, on {}\n\n", step.describe(), record.device);
    let width = kernels.iter().map(|k| k.kernel.name.len()).max().unwrap_or(6);
    let time: Option<f64> = record.kernels.iter().map(KernelRecord::milliseconds).sum();
    let [us_column, bound_column, terms_column] = predicted_columns();
    if let Some(all) = time {
        let table = Table::new(
            0,
            [
                Column::left("kernel", width),
                Column::right("launches", 8),
                Column::right("time", 9),
                Column::right("share", 6),
                Column::right("min B", 9),
                Column::right("FLOP", 9),
                Column::right("GB/s", 8),
                Column::right("GFLOP/s", 8),
                Column::right("ratio", 6),
                us_column,
                bound_column,
                terms_column,
            ],
        );
        out += &table.head();
        for k in kernels {
            let ms = k.milliseconds().unwrap_or(0.0);
            let predicted = k.predicted(gpu);
            let [us, bound, terms] = predicted_cells(predicted);
            out += &table.row([
                k.kernel.name.to_owned(),
                k.launches.len().to_string(),
                format::milliseconds(ms),
                format!("{:.1}%", 100.0 * ms / all.max(1e-9)),
                format::binary(k.min_bytes()),
                format::count(k.flops()),
                format!("{:.0}", k.min_bytes() as f64 / ms.max(1e-9) / 1e6),
                format!("{:.0}", k.flops() as f64 / ms.max(1e-9) / 1e6),
                predicted.map_or_else(|| "–".to_owned(), |p| format!("{:.2}x", ms * 1e3 / p.us)),
                us,
                bound,
                terms,
            ]);
        }
        _ = writeln!(
            out,
            "\nMeasured launch by launch with events between them, so the sum of {} is more than a step takes.\n\
             GB/s: of the minimum traffic. Ratio: of the measured to the predicted time.",
            format::milliseconds(all)
        );
    } else {
        let all = record.counts();
        let table = Table::new(
            0,
            [
                Column::left("kernel", width),
                Column::right("launches", 8),
                Column::right("instr", 7),
                Column::right("share", 6),
                Column::right("traffic B", 9),
                Column::right("min B", 9),
                Column::right("ratio", 6),
                Column::right("FLOP", 9),
                Column::right("planned", 9),
                Column::right("ratio", 6),
                Column::right("lanes", 5),
                Column::right("conflicts", 9),
                Column::right("divergent", 9),
                us_column,
                bound_column,
                terms_column,
            ],
        );
        out += &table.head();
        let mut row =
            |name: &str, launches: u64, c: &Counts, [min, flops]: [u64; 2], p: Option<Predicted>| {
                let [us, bound, terms] = predicted_cells(p);
                out += &table.row([
                    name.to_owned(),
                    launches.to_string(),
                    format::count(c.instructions),
                    format::percent(c.instructions, all.instructions),
                    format::binary(c.traffic_bytes()),
                    format::binary(min),
                    format::ratio(c.traffic_bytes(), min),
                    format::count(c.flops),
                    format::count(flops),
                    format::ratio(c.flops, flops),
                    format!("{:.1}", c.lanes as f64 / c.instructions.max(1) as f64),
                    format::count(c.conflicts),
                    format::percent(c.divergent, c.branches),
                    us,
                    bound,
                    terms,
                ]);
            };
        for k in kernels {
            let planned = [k.min_bytes(), k.flops()];
            row(k.kernel.name, k.launches.len() as u64, &k.counts(), planned, k.predicted(gpu));
        }
        row("all", totals.launches, &all, [totals.min_bytes, totals.flops], record.predicted(gpu));
        out += "\nCounted by the emulator. instr: warp instructions; traffic: 32 bytes a sector, before any cache; min: each\n\
                input once, each output once; lanes: active of 32; conflicts: further wavefronts of shared memory;\n\
                divergent: of the branches. `ugatit study KERNEL` shows where in the source.\n";
    }
    _ = writeln!(
        out,
        "\n{} launches, {} bytes at least, {} FLOP planned",
        totals.launches,
        format::grouped(totals.min_bytes),
        format::grouped(totals.flops)
    );
    if let Some(predicted) = record.predicted(gpu) {
        out += &legend();
        _ = writeln!(
            out,
            "predicted for {}: {}, all launches one after the other",
            gpu.name,
            format::milliseconds(predicted.us / 1e3)
        );
    }
    out
}

/// Counts for programs.
pub(super) fn counts_json(c: &Counts) -> Json {
    json!({
        "warp_instructions": c.instructions, "thread_instructions": c.lanes,
        "bytes_requested": { "read": c.read_bytes, "written": c.write_bytes },
        "bytes_moved": c.traffic_bytes(),
        "sectors": { "read": c.read_sectors, "written": c.write_sectors, "least": c.ideal_sectors },
        "shared_accesses": c.shared_accesses, "bank_conflicts": c.conflicts, "flops": c.flops,
        "matrix_instructions": c.matrix, "barriers": c.barriers, "branches": c.branches,
        "divergent_branches": c.divergent,
    })
}

/// A prediction for programs.
fn predicted_json(predicted: Option<Predicted>) -> Json {
    predicted.map_or(
        Json::Null,
        |p| json!({ "us": p.us, "bound": p.bound().name(), "terms_us": terms_json(&p.terms) }),
    )
}

/// The step for programs, with times predicted for a GPU.
pub fn json(record: &Record, step: &Step, gpu: &Machine) -> Json {
    let totals = Totals::of(&record.program);
    let counted = record.counts();
    let all = counted.instructions;
    let kernels: Vec<Json> = sorted(record)
        .into_iter()
        .map(|k| {
            let counts = k.counts();
            let launches: Vec<Json> = k
                .launches
                .iter()
                .map(|l| {
                    json!({ "label": l.label, "grid": l.grid, "block": l.block, "shared_bytes": l.shared_bytes,
                        "min_bytes": l.min_bytes, "flops": l.flops, "milliseconds": l.milliseconds,
                        "predicted": l.predicted_for(gpu).map(Time::json) })
                })
                .collect();
            json!({
                "name": k.kernel.name, "file": format!("kernels/{}", k.kernel.module.file),
                "min_bytes": k.min_bytes(), "flops": k.flops(),
                "share": if all > 0 { counts.instructions as f64 / all as f64 } else { 0.0 },
                "milliseconds": k.milliseconds(), "counted": counts_json(&counts), "classes": k.classes,
                "predicted": predicted_json(k.predicted(gpu)), "launches": launches,
            })
        })
        .collect();
    json!({
        "device": record.device,
        "config": step.cfg,
        "batch_size": step.batch,
        "seed": step.seed,
        "norm": step.norm,
        "precision": step.precision,
        "total": { "launches": totals.launches, "min_bytes": totals.min_bytes, "flops": totals.flops,
            "counted": counts_json(&counted) },
        "predicted": record.predicted(gpu).map(|p| {
            let [from, to] = range(p.us / 1e3);
            json!({ "gpu": gpu.key, "ms": p.us / 1e3, "from_ms": from, "to_ms": to })
        }),
        "kernels": kernels,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stacked_bar_is_as_long_as_all_of_it_and_each_part_as_its_share() {
        let bar = stacked(&[1.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 6.0]);
        assert_eq!(bar, "nniiiiii2222dddddddddddd");
        assert_eq!(stacked(&[1.0; 10]).len(), 24);
        assert_eq!(stacked(&[0.0; 10]), "");
    }
}
